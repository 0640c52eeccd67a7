//! The facts of every unit in a lake file, kept in the tags of its `add` action: the log itself
//! says which batch won each unit and what was proven.
//!
//! One tag, `ribera.units`, in a compact text without quotes (a table of 5,000 files of 31 days
//! carries 155,000 of them in every checkpoint):
//!
//! ```text
//! cantidad,total|2026-01-31;0;12;c=r;1769900400000;1769900460000;345;130.000;389.99|2026-02-01;0;12;o!r;…;…;3;9;2.5;4;10;2.5
//! ```
//!
//! First the names of the sums; then for each unit: unit, epoch, sequence, flags, extraction time
//! and time of arrival in Unix milliseconds, rows, sums (empty where absent), and, when the
//! source's audit differs from the file, the audit's rows and sums. Flags: `c` closed or `o` open;
//! `=` the audit equals the file, `!` it differs, `?` there was none; `r` if there is a time of
//! arrival. A tag without `r` was written before the time of arrival was kept: its units arrived
//! when the file was written, or earlier.

use std::collections::BTreeSet;
use std::fmt::Write;

use jiff::Timestamp;

use crate::batch::{Facts, UnitFacts, is_proven};
use crate::error::{Error, Result};
use crate::ids::{Position, Unit};
use crate::text::quoted;

/// The tag's key.
pub const UNITS_TAG: &str = "ribera.units";

/// What the lake knows of one unit of one store: who won it, what lies in the file, what the
/// source said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitTag {
    pub unit: Unit,
    /// Position of the batch that won the unit.
    pub position: Position,
    /// Rows and sums in the lake.
    pub facts: Facts,
    /// Counted by the source itself; `None` when it would not hold still or could not be asked.
    pub audit: Option<Facts>,
    /// The day was over at the source when it was extracted.
    pub closed: bool,
    /// By the agent's clock, to the millisecond; for people only.
    pub extracted_at: Timestamp,
    /// The batch was put then, by the object store's clock, to the millisecond. Every rewrite keeps it:
    /// a day that arrived before it was over is not complete, however often its rows are merged.
    pub received_at: Timestamp,
}

impl UnitTag {
    pub fn new(position: Position, facts: &UnitFacts, received_at: Timestamp) -> Self {
        Self {
            unit: facts.unit,
            position,
            facts: facts.file.clone(),
            audit: facts.audit.clone(),
            closed: facts.closed,
            extracted_at: to_millisecond(facts.extracted_at),
            received_at: to_millisecond(received_at),
        }
    }

    /// See [`crate::batch::is_proven`].
    pub fn is_proven(&self) -> bool {
        is_proven(self.closed, self.audit.as_ref(), &self.facts)
    }

    /// Equal, but for how an absent sum and one of 0 are written.
    fn is_same(&self, other: &Self) -> bool {
        let audits = match (&self.audit, &other.audit) {
            (Some(left), Some(right)) => left.agrees_with(right),
            (None, None) => true,
            _ => false,
        };
        audits
            && self.facts.agrees_with(&other.facts)
            && (self.unit, self.position, self.closed) == (other.unit, other.position, other.closed)
            && (self.extracted_at, self.received_at) == (other.extracted_at, other.received_at)
    }
}

/// `[a-z][a-z0-9_]*`, at most 64 characters: the rule of [`crate::dataset::Column`] names.
pub fn is_column_name(name: &str) -> bool {
    name.len() <= 64
        && name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// The tag's text. What was written is read back and compared before it is given out: a text that
/// some reader could not read must never reach the log.
///
/// # Errors
///
/// `Reject` when the name of a sum is no column's name, or the text does not give the units back.
pub fn encode(units: &[UnitTag]) -> Result<String> {
    let text = written(units)?;
    let read = decode(&text, Timestamp::UNIX_EPOCH)?;
    let mut proofs = Vec::with_capacity(units.len());
    each_proof(&text, Timestamp::UNIX_EPOCH, |proof| proofs.push(proof))?;
    let same = read.len() == units.len()
        && read.iter().zip(units).all(|(read, unit)| read.is_same(unit))
        && proofs.iter().map(|proof| (proof.unit, proof.position)).eq(decode_positions(&text)?);
    match same {
        true => Ok(text),
        false => Err(Error::reject(format!("tag {UNITS_TAG}: must give its units back, got {}", quoted(&text)))),
    }
}

fn written(units: &[UnitTag]) -> Result<String> {
    let all = units.iter().flat_map(|tag| std::iter::once(&tag.facts).chain(&tag.audit));
    let names: BTreeSet<&str> = all.flat_map(|facts| facts.sums.keys()).map(String::as_str).collect();
    let names: Vec<&str> = names.into_iter().collect();
    if let Some(bad) = names.iter().find(|name| !is_column_name(name)) {
        return Err(Error::reject(format!("tag {UNITS_TAG}: a sum's name must be a column's, got {}", quoted(bad))));
    }
    let mut text = names.join(",");
    for tag in units {
        let Position { epoch, sequence } = tag.position;
        let audit = match &tag.audit {
            None => '?',
            Some(audit) if audit.agrees_with(&tag.facts) => '=',
            Some(_) => '!',
        };
        let closed = if tag.closed { 'c' } else { 'o' };
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "|{};{epoch};{sequence};{closed}{audit}r;{};{}",
            tag.unit,
            tag.extracted_at.as_millisecond(),
            tag.received_at.as_millisecond()
        );
        encode_facts(&mut text, &names, &tag.facts);
        if let (Some(facts), '!') = (&tag.audit, audit) {
            encode_facts(&mut text, &names, facts);
        }
    }
    Ok(text)
}

/// The units of a tag's text. `file_written_at` is the time of arrival where the tag has none.
///
/// # Errors
///
/// `Data` when it is not such a text.
pub fn decode(text: &str, file_written_at: Timestamp) -> Result<Vec<UnitTag>> {
    decode_with(text, |names, fields| decode_unit(names, fields, file_written_at))
}

/// Units and positions only: what commits compare.
///
/// # Errors
///
/// `Data` when it is not such a text.
pub fn decode_positions(text: &str) -> Result<Vec<(Unit, Position)>> {
    decode_with(text, |_, fields| Some((fields.next()?.parse().ok()?, decode_position(fields)?)))
}

/// What coverage asks of a unit: [`UnitTag`] without sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnitProof {
    pub unit: Unit,
    pub position: Position,
    pub rows: u64,
    /// See [`UnitTag::is_proven`].
    pub is_proven: bool,
    pub extracted_at: Timestamp,
    /// See [`UnitTag::received_at`].
    pub received_at: Timestamp,
}

/// Calls `take` with every unit and whether it is proven: ten times cheaper than [`decode`],
/// because coverage reads millions of them. `file_written_at` as in [`decode`].
///
/// # Errors
///
/// `Data` when it is not such a text; some units may have been given before.
pub fn each_proof(text: &str, file_written_at: Timestamp, mut take: impl FnMut(UnitProof)) -> Result<()> {
    let bytes = text.as_bytes();
    let mut at = bytes.iter().position(|byte| *byte == b'|').unwrap_or(bytes.len());
    while at < bytes.len() {
        let mut cursor = Cursor { bytes, at: at + 1 };
        let proof = decode_proof(text, &mut cursor, file_written_at);
        let end = bytes[cursor.at.min(bytes.len())..].iter().position(|byte| *byte == b'|');
        let end = end.map_or(bytes.len(), |found| cursor.at + found);
        match proof {
            Some(proof) => take(proof),
            None => return Err(unreadable(text.get(at + 1..end).unwrap_or(""))),
        }
        at = end;
    }
    Ok(())
}

fn decode_proof(text: &str, cursor: &mut Cursor<'_>, file_written_at: Timestamp) -> Option<UnitProof> {
    let unit = text.get(cursor.field())?.parse().ok()?;
    let position = Position { epoch: u32::try_from(cursor.digits()?).ok()?, sequence: cursor.digits()? };
    let flags = &cursor.bytes[cursor.field()];
    // As `written` writes what `batch::is_proven` holds.
    let is_proven = matches!(flags, b"c=" | b"c=r");
    let extracted_at = Timestamp::from_millisecond(cursor.signed_digits()?).ok()?;
    let received_at = match flags {
        [_, _, b'r'] => Timestamp::from_millisecond(cursor.signed_digits()?).ok()?,
        _ => file_written_at,
    };
    Some(UnitProof { unit, position, rows: cursor.digits()?, is_proven, extracted_at, received_at })
}

/// Reads fields one byte after the other: for fields this short, a search costs more.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    /// The next field of the unit; the cursor stands behind its semicolon, or on the unit's end.
    fn field(&mut self) -> std::ops::Range<usize> {
        let first = self.at;
        let mut end = first;
        while let Some(byte) = self.bytes.get(end)
            && !matches!(byte, b';' | b'|')
        {
            end += 1;
        }
        self.at = if self.bytes.get(end) == Some(&b';') { end + 1 } else { end };
        first..end
    }

    /// A whole number in digits that fills a field.
    fn digits(&mut self) -> Option<u64> {
        let (first, mut number) = (self.at, 0_u64);
        loop {
            match self.bytes.get(self.at) {
                Some(digit @ b'0'..=b'9') => number = number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?,
                None | Some(b';' | b'|') if self.at > first => break,
                _ => return None,
            }
            self.at += 1;
        }
        self.at += usize::from(self.bytes.get(self.at) == Some(&b';'));
        Some(number)
    }

    fn signed_digits(&mut self) -> Option<i64> {
        let negative = self.bytes.get(self.at) == Some(&b'-');
        self.at += usize::from(negative);
        let number = i64::try_from(self.digits()?).ok()?;
        Some(if negative { -number } else { number })
    }
}

fn decode_with<'a, T>(
    text: &'a str,
    decode: impl Fn(&[&str], &mut std::str::Split<'a, char>) -> Option<T>,
) -> Result<Vec<T>> {
    let mut parts = text.split('|');
    let names: Vec<&str> = parts.next().unwrap_or("").split(',').filter(|name| !name.is_empty()).collect();
    parts.map(|part| decode(&names, &mut part.split(';')).ok_or_else(|| unreadable(part))).collect()
}

fn unreadable(part: &str) -> Error {
    Error::data(format!("tag {UNITS_TAG}: expected the facts of a unit, got {}", quoted(part)))
}

fn encode_facts(text: &mut String, names: &[&str], facts: &Facts) {
    let _ = write!(text, ";{}", facts.rows);
    for name in names {
        text.push(';');
        if let Some(sum) = facts.sums.get(*name) {
            let _ = write!(text, "{sum}");
        }
    }
}

fn decode_unit(names: &[&str], fields: &mut std::str::Split<'_, char>, file_written_at: Timestamp) -> Option<UnitTag> {
    let unit = fields.next()?.parse().ok()?;
    let position = decode_position(fields)?;
    let (closed, audited, has_arrival) = match fields.next()?.as_bytes() {
        [closed @ (b'c' | b'o'), audited] => (*closed == b'c', *audited, false),
        [closed @ (b'c' | b'o'), audited, b'r'] => (*closed == b'c', *audited, true),
        _ => return None,
    };
    let extracted_at = Timestamp::from_millisecond(fields.next()?.parse().ok()?).ok()?;
    let received_at = match has_arrival {
        true => Timestamp::from_millisecond(fields.next()?.parse().ok()?).ok()?,
        false => file_written_at,
    };
    let facts = decode_facts(names, fields)?;
    let audit = match audited {
        b'=' => Some(facts.clone()),
        b'!' => Some(decode_facts(names, fields)?),
        b'?' => None,
        _ => return None,
    };
    fields.next().is_none().then_some(UnitTag { unit, position, facts, audit, closed, extracted_at, received_at })
}

fn decode_position(fields: &mut std::str::Split<'_, char>) -> Option<Position> {
    Some(Position { epoch: fields.next()?.parse().ok()?, sequence: fields.next()?.parse().ok()? })
}

fn decode_facts(names: &[&str], fields: &mut std::str::Split<'_, char>) -> Option<Facts> {
    let mut facts = Facts { rows: fields.next()?.parse().ok()?, ..Facts::default() };
    for name in names {
        let sum = fields.next()?;
        if !sum.is_empty() {
            facts.sums.insert((*name).to_owned(), sum.parse().ok()?);
        }
    }
    Some(facts)
}

fn to_millisecond(moment: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(moment.as_millisecond()).unwrap_or(moment)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decimal::ExactDecimal;

    fn facts() -> impl Strategy<Value = Facts> {
        let sum = (any::<i64>(), 0_u8..6).prop_map(|(unscaled, scale)| ExactDecimal::new(unscaled.into(), scale));
        (any::<u32>(), prop::collection::btree_map("[a-c]", sum, 0..3))
            .prop_map(|(rows, sums)| Facts { rows: rows.into(), sums })
    }

    /// When the file of a tag without times of arrival was written.
    const WRITTEN: Timestamp = Timestamp::UNIX_EPOCH;

    fn decode_proofs(text: &str) -> Result<Vec<UnitProof>> {
        let mut proofs = Vec::new();
        each_proof(text, WRITTEN, |proof| proofs.push(proof))?;
        Ok(proofs)
    }

    /// Reads the proofs by splitting the text: slower, and plain to see.
    fn plain_proofs(text: &str) -> Result<Vec<UnitProof>> {
        decode_with(text, |_, fields| {
            let unit = fields.next()?.parse().ok()?;
            let position = decode_position(fields)?;
            let flags = fields.next()?;
            let is_proven = ["c=", "c=r"].contains(&flags);
            let extracted_at = Timestamp::from_millisecond(fields.next()?.parse().ok()?).ok()?;
            let received_at = match flags.len() == 3 && flags.ends_with('r') {
                true => Timestamp::from_millisecond(fields.next()?.parse().ok()?).ok()?,
                false => WRITTEN,
            };
            Some(UnitProof { unit, position, rows: fields.next()?.parse().ok()?, is_proven, extracted_at, received_at })
        })
    }

    fn tag() -> impl Strategy<Value = UnitTag> {
        (0_i32..20_000, any::<(u32, u64, bool)>(), facts(), prop::option::of(facts())).prop_map(
            |(day, (epoch, sequence, closed), facts, audit)| UnitTag {
                unit: Unit::Day(jiff::civil::date(1990, 1, 1).checked_add(jiff::Span::new().days(day)).unwrap()),
                position: Position { epoch, sequence },
                facts,
                audit,
                closed,
                extracted_at: Timestamp::from_millisecond(i64::from(day) * 86_400_123).unwrap(),
                received_at: Timestamp::from_millisecond(i64::from(day) * 86_400_999).unwrap(),
            },
        )
    }

    proptest! {
        #[test]
        fn tags_survive_their_text(mut tags in prop::collection::vec(tag(), 0..8)) {
            let decoded = decode(&encode(&tags).unwrap(), WRITTEN).unwrap();
            for tag in &mut tags {
                // An audit that agrees is kept as the facts themselves.
                if tag.audit.as_ref().is_some_and(|audit| audit.agrees_with(&tag.facts)) {
                    tag.audit = Some(tag.facts.clone());
                }
            }
            prop_assert_eq!(&decoded, &tags);
            let positions: Vec<_> = tags.iter().map(|tag| (tag.unit, tag.position)).collect();
            prop_assert_eq!(decode_positions(&encode(&tags).unwrap()).unwrap(), positions);
            let proofs: Vec<_> = tags
                .iter()
                .map(|tag| UnitProof {
                    unit: tag.unit,
                    position: tag.position,
                    rows: tag.facts.rows,
                    is_proven: tag.is_proven(),
                    extracted_at: tag.extracted_at,
                    received_at: tag.received_at,
                })
                .collect();
            prop_assert_eq!(decode_proofs(&encode(&tags).unwrap()).unwrap(), proofs);
        }

        /// Whatever the quick parser reads, the plain one reads too, to the same end.
        #[test]
        fn proofs_are_read_from_damaged_tags_as_field_by_field(
            tags in prop::collection::vec(tag(), 1..4),
            damage in prop::collection::vec((any::<prop::sample::Index>(), "[-|;0-9a-z=!?.+ñ]{0,2}"), 0..3),
        ) {
            let mut text = encode(&tags).unwrap();
            for (at, with) in damage {
                let at = at.index(text.len());
                if text.is_char_boundary(at) && text.is_char_boundary(at + 1) {
                    text.replace_range(at..at + 1, &with);
                }
            }
            match (decode_proofs(&text), plain_proofs(&text)) {
                (Ok(quick), Ok(plain)) => prop_assert_eq!(quick, plain),
                (Ok(quick), Err(_)) => prop_assert!(false, "{text:?} was read as {quick:?}"),
                // Numbers that no writer of ours writes.
                (Err(_), Ok(_)) => prop_assert!(text.contains('+'), "{text:?} was refused"),
                (Err(_), Err(_)) => {}
            }
        }
    }

    #[test]
    fn a_damaged_tag_is_an_error_of_kind_data_naming_it() {
        for text in
            ["|", "|2026-01-01", "a|2026-01-01;0;1;c=;0;5", "|2026-01-01;0;1;x=;0;5", "|2026-01-01;0;1;c=;0;5;9"]
        {
            let error = decode(text, WRITTEN).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Data);
            assert!(error.message().contains(UNITS_TAG));
        }
    }

    #[test]
    fn a_sum_whose_name_is_no_columns_is_refused() {
        let tag = |name: &str| UnitTag {
            unit: "2026-01-10".parse().unwrap(),
            position: Position { epoch: 0, sequence: 1 },
            facts: Facts { rows: 1, sums: [(name.to_owned(), ExactDecimal::ZERO)].into() },
            audit: None,
            closed: true,
            extracted_at: WRITTEN,
            received_at: WRITTEN,
        };
        assert!(encode(&[tag("total")]).is_ok());
        for name in ["", "a,b", "z|2026-01-05;0;99", "a;b", "A", "á", "1a", "a\u{1b}[2J", &"x".repeat(65)] {
            assert_eq!(encode(&[tag(name)]).unwrap_err().kind(), crate::ErrorKind::Reject, "{name:?}");
        }
    }

    #[test]
    fn a_tag_without_times_of_arrival_takes_the_time_its_file_was_written() {
        let text = "total|2026-01-10;0;1;c=;1000;5;1.25";
        let written = Timestamp::from_second(77).unwrap();
        assert_eq!(decode(text, written).unwrap()[0].received_at, written);
        let mut proofs = Vec::new();
        each_proof(text, written, |proof| proofs.push(proof)).unwrap();
        assert_eq!((proofs[0].received_at, proofs[0].is_proven), (written, true));
    }
}
