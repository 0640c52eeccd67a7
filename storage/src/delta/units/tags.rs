//! The facts of every unit in a lake file, kept in the tags of its `add` action: the log itself
//! says which batch won each unit and what was proven.
//!
//! One tag, `ribera.units`, in a compact text without quotes, because checkpoints carry it too:
//!
//! ```text
//! cantidad,total|@s1|2026-01-31;0;12;c=;1769900400000;1769900460000;345;130.000;389.99|2026-02-01;0;12;o!;…;…;3;9;2.5;4;10;2.5|@s2|…
//! ```
//!
//! First the names of the sums. Then for each store, in order, a section: `@` and its id, and its units
//! in order. A unit has: unit, epoch, sequence, flags, extraction time
//! and time of arrival in Unix milliseconds, rows, sums (empty where absent), and, when the
//! source's audit differs from the file, the audit's rows and sums. Flags: `c` closed or `o` open;
//! `=` the audit equals the file, `!` it differs, `?` there was none.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::str::FromStr;

use jiff::Timestamp;

use crate::batch::{Facts, UnitFacts, is_proven};
use crate::error::{Error, Result};
use crate::ids::{BatchId, Position, StoreId, StoreUnit, Unit};
use crate::text::quoted;

/// The tag's key.
pub const UNITS_TAG: &str = "ribera.units";

/// What the lake knows of a unit of a store: who won it, what lies in the file, what the
/// source said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitTag {
    pub store: StoreId,
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
    /// Of a unit of `batch`.
    pub fn new(batch: &BatchId, facts: &UnitFacts, received_at: Timestamp) -> Self {
        Self {
            store: batch.store.clone(),
            unit: facts.unit,
            position: batch.position,
            facts: facts.file.clone(),
            audit: facts.audit.clone(),
            closed: facts.closed,
            extracted_at: to_millisecond(facts.extracted_at),
            received_at: to_millisecond(received_at),
        }
    }

    pub fn key(&self) -> StoreUnit {
        StoreUnit { store: self.store.clone(), unit: self.unit }
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
            && self.store == other.store
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

/// Bytes of a tag. The units of a file that would need more are kept in an object of their own (see
/// [`super::facts`]): every commit reads the tags, whatever files it touches.
pub const UNITS_TAG_BYTES_MAX: usize = 16 << 10;

/// The least that a unit takes of a text: `|*;0;0;c?;0;0;0`.
pub(in crate::delta) const UNIT_BYTES_MIN: usize = 15;

/// The tag's text, units in order of store and unit. What was written is read back and compared before
/// it is given out: a text that some reader could not read must never reach the log.
///
/// # Errors
///
/// `Reject` when the name of a sum is no column's name, or the text does not give the units back.
pub fn encode(units: &[UnitTag]) -> Result<String> {
    let mut sorted: Vec<&UnitTag> = units.iter().collect();
    sorted.sort_by(|left, right| (&left.store, left.unit).cmp(&(&right.store, right.unit)));
    encode_block(&sorted)
}

/// The same of units that are in order.
pub(super) fn encode_block(units: &[&UnitTag]) -> Result<String> {
    let text = written(units)?;
    let read = decode(&text)?;
    let mut proofs = Vec::with_capacity(units.len());
    each_proof(&text, |store, proof| proofs.push((store.to_owned(), proof)))?;
    let proven = proofs.iter().map(|(store, proof)| (store.as_str(), proof.unit, proof.position));
    let positions = decode_positions(&text)?;
    let same = read.len() == units.len()
        && read.iter().zip(units).all(|(read, unit)| read.is_same(unit))
        && proven.eq(positions.iter().map(|(key, position)| (key.store.as_str(), key.unit, *position)));
    match same {
        true => Ok(text),
        false => Err(Error::reject(format!("tag {UNITS_TAG}: must give its units back, got {}", quoted(&text)))),
    }
}

fn written(units: &[&UnitTag]) -> Result<String> {
    let all = units.iter().flat_map(|tag| std::iter::once(&tag.facts).chain(&tag.audit));
    let names: BTreeSet<&str> = all.flat_map(|facts| facts.sums.keys()).map(String::as_str).collect();
    let names: Vec<&str> = names.into_iter().collect();
    if let Some(bad) = names.iter().find(|name| !is_column_name(name)) {
        return Err(Error::reject(format!("tag {UNITS_TAG}: a sum's name must be a column's, got {}", quoted(bad))));
    }
    let mut text = names.join(",");
    let mut section = None;
    for tag in units {
        if section.replace(&tag.store) != Some(&tag.store) {
            // Writing to a string cannot fail.
            let _ = write!(text, "|@{}", tag.store);
        }
        let Position { epoch, sequence } = tag.position;
        let audit = match &tag.audit {
            None => '?',
            Some(audit) if audit.agrees_with(&tag.facts) => '=',
            Some(_) => '!',
        };
        let closed = if tag.closed { 'c' } else { 'o' };
        let _ = write!(
            text,
            "|{};{epoch};{sequence};{closed}{audit};{};{}",
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

/// The units of a tag's text.
///
/// # Errors
///
/// `Data` when it is not such a text.
pub fn decode(text: &str) -> Result<Vec<UnitTag>> {
    decode_with(text, text, decode_unit)
}

/// The same of one store: what the text says of the others may be damaged.
///
/// # Errors
///
/// `Data` when the store's section is not such a text.
pub fn decode_of(text: &str, store: &StoreId) -> Result<Vec<UnitTag>> {
    decode_with(text, section(text, store), decode_unit)
}

/// The units of each section of a text: one store after the other, decoded once its turn comes. (What stands
/// before the first section, [`each_proof`] looks at.)
pub(super) fn decode_sections(text: &str) -> impl Iterator<Item = Result<Vec<UnitTag>>> {
    let mut at = next_section(text, 0);
    std::iter::from_fn(move || {
        let first = at?;
        at = next_section(text, first + 2);
        Some(decode_with(text, text.get(first..at.unwrap_or(text.len())).unwrap_or_default(), decode_unit))
    })
}

/// Units and positions only: what commits compare.
///
/// # Errors
///
/// `Data` when it is not such a text.
pub fn decode_positions(text: &str) -> Result<Vec<(StoreUnit, Position)>> {
    decode_with(text, text, |_, store, fields| {
        let unit = fields.next()?.parse().ok()?;
        Some((StoreUnit { store: store.clone(), unit }, decode_position(fields)?))
    })
}

/// The same of one store.
///
/// # Errors
///
/// `Data` when the store's section is not such a text.
pub fn decode_positions_of(text: &str, store: &StoreId) -> Result<Vec<(Unit, Position)>> {
    decode_with(text, section(text, store), |_, _, fields| {
        Some((fields.next()?.parse().ok()?, decode_position(fields)?))
    })
}

/// The stores of the text's sections.
pub fn stores(text: &str) -> impl Iterator<Item = &str> {
    text.split('|').filter_map(|part| part.strip_prefix('@'))
}

/// The stores of the first and the last section.
pub(in crate::delta) fn ends(text: &str) -> Option<(&str, &str)> {
    let name = |at: usize| text.get(at + 2..)?.split('|').next();
    Some((name(text.find("|@")?)?, name(text.rfind("|@")?)?))
}

/// What the text says of one store: from its `|@` to the next store's. By halves: the sections are in
/// order, and the texts of many stores are long.
fn section<'a>(text: &'a str, store: &StoreId) -> &'a str {
    let (mut low, mut high) = (0, text.len());
    while low < high {
        let middle = low + (high - low) / 2;
        let Some(first) = next_section(text, middle).filter(|first| *first < text.len()) else {
            high = middle;
            continue;
        };
        let name = text.get(first + 2..).and_then(|rest| rest.split('|').next()).unwrap_or_default();
        match name.cmp(store.as_str()) {
            std::cmp::Ordering::Less => low = first + 2,
            std::cmp::Ordering::Greater => high = middle,
            std::cmp::Ordering::Equal => {
                let end = next_section(text, first + 2).unwrap_or(text.len());
                return text.get(first..end).unwrap_or_default();
            }
        }
    }
    ""
}

/// Where the first section from `from` on begins.
fn next_section(text: &str, from: usize) -> Option<usize> {
    // Compared byte by byte, this was more than half of a computation of coverage.
    memchr::memmem::find(text.as_bytes().get(from..)?, b"|@").map(|found| from + found)
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

/// Calls `take` with the store and proof of every unit: ten times cheaper than [`decode`], because
/// coverage reads millions of them.
///
/// # Errors
///
/// `Data` when it is not such a text; some units may have been given before.
pub fn each_proof<'a>(text: &'a str, mut take: impl FnMut(&'a str, UnitProof)) -> Result<()> {
    let bytes = text.as_bytes();
    let end_from = |at: usize| {
        let end = bytes.get(at..).and_then(|rest| memchr::memchr(b'|', rest));
        end.map_or(bytes.len(), |found| at + found)
    };
    let mut at = end_from(0);
    let mut store = None;
    while at < bytes.len() {
        let mut cursor = Cursor { bytes, at: at + 1 };
        if bytes.get(at + 1) == Some(&b'@') {
            let end = end_from(at + 1);
            let name = text.get(at + 2..end).filter(|name| name.parse::<StoreId>().is_ok());
            store = Some(name.ok_or_else(|| unreadable(text.get(at + 1..end).unwrap_or("")))?);
            at = end;
            continue;
        }
        let proof = decode_proof(text, &mut cursor);
        let end = end_from(cursor.at);
        match (store, proof) {
            (Some(store), Some(proof)) => take(store, proof),
            _ => return Err(unreadable(text.get(at + 1..end).unwrap_or(""))),
        }
        at = end;
    }
    Ok(())
}

/// The same of one store.
///
/// # Errors
///
/// `Data` when the store's section is not such a text; some units may have been given before.
pub fn each_proof_of(text: &str, store: &StoreId, mut take: impl FnMut(UnitProof)) -> Result<()> {
    each_proof(section(text, store), |_, proof| take(proof))
}

fn decode_proof(text: &str, cursor: &mut Cursor<'_>) -> Option<UnitProof> {
    let unit = text.get(cursor.field())?.parse().ok()?;
    let position = Position { epoch: u32::try_from(cursor.digits()?).ok()?, sequence: cursor.digits()? };
    let flags = &cursor.bytes[cursor.field()];
    // As `written` writes what `batch::is_proven` holds.
    let is_proven = flags == b"c=";
    let extracted_at = Timestamp::from_millisecond(cursor.signed_digits()?).ok()?;
    let received_at = Timestamp::from_millisecond(cursor.signed_digits()?).ok()?;
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

/// Decodes the units of `part`, a piece of `text` that begins with a section, or `text` itself.
fn decode_with<'a, T>(
    text: &'a str,
    part: &'a str,
    decode: impl Fn(&[&str], &StoreId, &mut std::str::Split<'a, char>) -> Option<T>,
) -> Result<Vec<T>> {
    let names: Vec<&str> = text.split('|').next().unwrap_or("").split(',').filter(|name| !name.is_empty()).collect();
    let (mut store, mut units): (Option<StoreId>, Vec<T>) = (None, Vec::new());
    for part in part.split('|').skip(1) {
        if let Some(name) = part.strip_prefix('@') {
            store = Some(name.parse().map_err(|_| unreadable(part))?);
            continue;
        }
        let unit = store.as_ref().and_then(|store| decode(&names, store, &mut part.split(';')));
        units.push(unit.ok_or_else(|| unreadable(part))?);
    }
    Ok(units)
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

fn decode_unit(names: &[&str], store: &StoreId, fields: &mut std::str::Split<'_, char>) -> Option<UnitTag> {
    let unit = fields.next()?.parse().ok()?;
    let position = decode_position(fields)?;
    let [closed @ (b'c' | b'o'), audited] = fields.next()?.as_bytes() else { return None };
    let (closed, audited) = (*closed == b'c', *audited);
    let extracted_at = Timestamp::from_millisecond(number(fields.next()?)?).ok()?;
    let received_at = Timestamp::from_millisecond(number(fields.next()?)?).ok()?;
    let facts = decode_facts(names, fields)?;
    let audit = match audited {
        b'=' => Some(facts.clone()),
        b'!' => Some(decode_facts(names, fields)?),
        b'?' => None,
        _ => return None,
    };
    let store = store.clone();
    fields.next().is_none().then_some(UnitTag {
        store,
        unit,
        position,
        facts,
        audit,
        closed,
        extracted_at,
        received_at,
    })
}

fn decode_position(fields: &mut std::str::Split<'_, char>) -> Option<Position> {
    Some(Position { epoch: number(fields.next()?)?, sequence: number(fields.next()?)? })
}

/// A whole number as [`Cursor`] reads it: no reader of a text must take what another refuses.
pub(super) fn number<T: FromStr>(field: &str) -> Option<T> {
    if field.starts_with('+') { None } else { field.parse().ok() }
}

fn decode_facts(names: &[&str], fields: &mut std::str::Split<'_, char>) -> Option<Facts> {
    let mut facts = Facts { rows: number(fields.next()?)?, ..Facts::default() };
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
mod tests;
