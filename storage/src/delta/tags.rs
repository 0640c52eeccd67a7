//! The facts of every unit in a lake file, kept in the tags of its `add` action: the log itself
//! says which batch won each unit and what was proven.
//!
//! One tag, `ribera.units`, in a compact text without quotes (a table of 5,000 files of 31 days
//! carries 155,000 of them in every checkpoint):
//!
//! ```text
//! cantidad,total|2026-01-31;0;12;c=;1769900400000;345;130.000;389.99|2026-02-01;0;12;o!;…;3;9;2.5;4;10;2.5
//! ```
//!
//! First the names of the sums; then for each unit: unit, epoch, sequence, flags, extraction time
//! in Unix milliseconds, rows, sums (empty where absent), and, when the source's audit differs
//! from the file, the audit's rows and sums. Flags: `c` closed or `o` open; `=` the audit
//! equals the file, `!` it differs, `?` there was none.

use std::collections::BTreeSet;
use std::fmt::Write;

use jiff::Timestamp;

use crate::batch::{Facts, UnitFacts};
use crate::error::{Error, Result};
use crate::ids::{Position, Unit};

/// The tag's key.
pub const UNITS_TAG: &str = "ribera.units";

/// What the lake knows of one unit of one store: who won it, what lies in the file, what the
/// source said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitTag {
    pub unit: Unit,
    /// Of the batch that won the unit (of the last one applied, for upsert and delete).
    pub position: Position,
    /// Rows and sums in the lake.
    pub facts: Facts,
    /// Counted by the source itself; `None` when it would not hold still or could not be asked.
    pub audit: Option<Facts>,
    /// The day was over at the source when it was extracted.
    pub closed: bool,
    /// For people only, to the millisecond.
    pub extracted_at: Timestamp,
}

impl UnitTag {
    pub fn new(position: Position, facts: &UnitFacts) -> Self {
        Self {
            unit: facts.unit,
            position,
            facts: facts.file.clone(),
            audit: facts.audit.clone(),
            closed: facts.closed,
            extracted_at: to_millisecond(facts.extracted_at),
        }
    }

    /// The source's own audit equals what the lake holds, on a closed unit.
    pub fn is_proven(&self) -> bool {
        self.closed && self.audit.as_ref().is_some_and(|audit| audit.agrees_with(&self.facts))
    }
}

/// The tag's text.
pub fn encode(units: &[UnitTag]) -> String {
    let all = units.iter().flat_map(|tag| std::iter::once(&tag.facts).chain(&tag.audit));
    let names: BTreeSet<&str> = all.flat_map(|facts| facts.sums.keys()).map(String::as_str).collect();
    let names: Vec<&str> = names.into_iter().collect();
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
        let _ = write!(text, "|{};{epoch};{sequence};{closed}{audit};{}", tag.unit, tag.extracted_at.as_millisecond());
        encode_facts(&mut text, &names, &tag.facts);
        if let (Some(facts), '!') = (&tag.audit, audit) {
            encode_facts(&mut text, &names, facts);
        }
    }
    text
}

/// The units of a tag's text; an error of kind `Data` when it is not such a text.
pub fn decode(text: &str) -> Result<Vec<UnitTag>> {
    decode_with(text, decode_unit)
}

/// Units and positions only: what commits compare.
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
}

/// Calls `take` with every unit and whether it is proven: ten times cheaper than [`decode`],
/// because coverage reads millions of them.
pub fn each_proof(text: &str, mut take: impl FnMut(UnitProof)) -> Result<()> {
    let bytes = text.as_bytes();
    let mut at = bytes.iter().position(|byte| *byte == b'|').unwrap_or(bytes.len());
    while at < bytes.len() {
        let mut cursor = Cursor { bytes, at: at + 1 };
        let proof = decode_proof(text, &mut cursor);
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

fn decode_proof(text: &str, cursor: &mut Cursor<'_>) -> Option<UnitProof> {
    let unit = text.get(cursor.field())?.parse().ok()?;
    let position = Position { epoch: u32::try_from(cursor.digits()?).ok()?, sequence: cursor.digits()? };
    let is_proven = &cursor.bytes[cursor.field()] == b"c=";
    let extracted_at = Timestamp::from_millisecond(cursor.signed_digits()?).ok()?;
    Some(UnitProof { unit, position, rows: cursor.digits()?, is_proven, extracted_at })
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
    Error::data(format!("tag {UNITS_TAG}: expected the facts of a unit, got {part:?}"))
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

fn decode_unit(names: &[&str], fields: &mut std::str::Split<'_, char>) -> Option<UnitTag> {
    let unit = fields.next()?.parse().ok()?;
    let position = decode_position(fields)?;
    let (closed, audited) = match fields.next()?.as_bytes() {
        [closed @ (b'c' | b'o'), audited] => (*closed == b'c', *audited),
        _ => return None,
    };
    let extracted_at = Timestamp::from_millisecond(fields.next()?.parse().ok()?).ok()?;
    let facts = decode_facts(names, fields)?;
    let audit = match audited {
        b'=' => Some(facts.clone()),
        b'!' => Some(decode_facts(names, fields)?),
        b'?' => None,
        _ => return None,
    };
    fields.next().is_none().then_some(UnitTag { unit, position, facts, audit, closed, extracted_at })
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

    fn decode_proofs(text: &str) -> Result<Vec<UnitProof>> {
        let mut proofs = Vec::new();
        each_proof(text, |proof| proofs.push(proof))?;
        Ok(proofs)
    }

    /// The same by splitting: slower, and plain to see.
    fn plain_proofs(text: &str) -> Result<Vec<UnitProof>> {
        decode_with(text, |_, fields| {
            let unit = fields.next()?.parse().ok()?;
            let position = decode_position(fields)?;
            let is_proven = fields.next()? == "c=";
            let extracted_at = Timestamp::from_millisecond(fields.next()?.parse().ok()?).ok()?;
            Some(UnitProof { unit, position, rows: fields.next()?.parse().ok()?, is_proven, extracted_at })
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
            },
        )
    }

    proptest! {
        #[test]
        fn tags_survive_their_text(mut tags in prop::collection::vec(tag(), 0..8)) {
            let decoded = decode(&encode(&tags)).unwrap();
            for tag in &mut tags {
                // An audit that agrees is kept as the facts themselves.
                if tag.audit.as_ref().is_some_and(|audit| audit.agrees_with(&tag.facts)) {
                    tag.audit = Some(tag.facts.clone());
                }
            }
            prop_assert_eq!(&decoded, &tags);
            let positions: Vec<_> = tags.iter().map(|tag| (tag.unit, tag.position)).collect();
            prop_assert_eq!(decode_positions(&encode(&tags)).unwrap(), positions);
            let proofs: Vec<_> = tags
                .iter()
                .map(|tag| UnitProof {
                    unit: tag.unit,
                    position: tag.position,
                    rows: tag.facts.rows,
                    is_proven: tag.is_proven(),
                    extracted_at: tag.extracted_at,
                })
                .collect();
            prop_assert_eq!(decode_proofs(&encode(&tags)).unwrap(), proofs);
        }

        /// Whatever the quick parser reads, the plain one reads too, to the same end.
        #[test]
        fn proofs_are_read_from_damaged_tags_as_field_by_field(
            tags in prop::collection::vec(tag(), 1..4),
            damage in prop::collection::vec((any::<prop::sample::Index>(), "[-|;0-9a-z=!?.+ñ]{0,2}"), 0..3),
        ) {
            let mut text = encode(&tags);
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
            let error = decode(text).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Data);
            assert!(error.message().contains(UNITS_TAG));
        }
    }
}
