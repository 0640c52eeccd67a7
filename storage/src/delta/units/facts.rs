//! The facts of a file of many units, in an object of their own beside the file.
//!
//! ```text
//! block block ... index
//! ```
//!
//! A block is a text as [`super::tags`] has it, of whole stores, compressed by zstd. The index has a line for each
//! block: `first store;last store;offset;bytes;SHA-256`. The file's tag `ribera.facts` names the index by its hash,
//! and the index each block: whoever asks for one store reads the index and one block, and believes neither unseen.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;

use super::tags::{self, UnitTag};
use crate::error::{Error, Result};
use crate::hex::sha256_hex;
use crate::ids::StoreId;
use crate::text::quoted;

/// The tag of a file whose facts are in an object.
pub const FACTS_TAG: &str = "ribera.facts";

/// Units of a block before the next store begins another: some 64 KB of text.
const BLOCK_UNITS: usize = 900;

/// What a block may become when it is decompressed: far more than a writer of ours puts into one.
const BLOCK_BYTES_MAX: usize = 16 << 20;

/// What the tag says of the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FactsTag {
    pub bytes: u64,
    pub index_bytes: u64,
    pub index_sha256: String,
    pub units: u64,
}

impl fmt::Display for FactsTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{};{};{};{}", self.bytes, self.index_bytes, self.index_sha256, self.units)
    }
}

impl FromStr for FactsTag {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let bad =
            || Error::data(format!("tag {FACTS_TAG}: expected BYTES;INDEX BYTES;SHA-256;UNITS, got {}", quoted(text)));
        let parts: Vec<&str> = text.split(';').collect();
        let [bytes, index_bytes, index_sha256, units] = parts.as_slice() else { return Err(bad()) };
        let number = |text: &str| tags::number::<u64>(text).ok_or_else(bad);
        let tag = Self {
            bytes: number(bytes)?,
            index_bytes: number(index_bytes)?,
            index_sha256: (*index_sha256).to_owned(),
            units: number(units)?,
        };
        if tag.index_bytes > tag.bytes { Err(bad()) } else { Ok(tag) }
    }
}

impl FactsTag {
    /// Where the index lies in the object.
    pub(in crate::delta) fn index(&self) -> Range<u64> {
        self.bytes.saturating_sub(self.index_bytes)..self.bytes
    }
}

/// Where the facts of some stores lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::delta) struct Block {
    first: StoreId,
    last: StoreId,
    range: Range<u64>,
    sha256: String,
}

impl Block {
    pub(in crate::delta) fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    fn holds(&self, store: &StoreId) -> bool {
        (&self.first..=&self.last).contains(&store)
    }

    /// The block's text, if its bytes are those that the index names.
    pub(in crate::delta) fn decode(&self, bytes: &[u8]) -> Result<String> {
        let bad = |what: &str| Error::data(format!("facts of {} to {}: {what}", self.first, self.last));
        if sha256_hex(bytes) != self.sha256 {
            return Err(bad("must have the hash that the index names"));
        }
        let text = zstd::bulk::decompress(bytes, BLOCK_BYTES_MAX)
            .map_err(|error| bad("must be zstd").with_source(error))
            .and_then(|text| String::from_utf8(text).map_err(|error| bad("must be UTF-8").with_source(error)))?;
        match tags::ends(&text) {
            Some((first, last)) if first == self.first.as_str() && last == self.last.as_str() => Ok(text),
            found => Err(bad(&format!("must begin and end with these stores, got {found:?}"))),
        }
    }
}

/// What was read of a file's facts. A cache: two files are the same whatever was read of them.
#[derive(Debug, Clone, Default)]
pub struct LoadedFacts {
    index: Option<Arc<Vec<Block>>>,
    /// By place in the index.
    texts: BTreeMap<usize, Arc<str>>,
    /// Why they cannot be read.
    failure: Option<Arc<str>>,
}

impl PartialEq for LoadedFacts {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for LoadedFacts {}

impl LoadedFacts {
    pub(in crate::delta) fn failed(error: &Error) -> Self {
        Self { failure: Some(error.line().into()), ..Self::default() }
    }

    pub(in crate::delta) fn set_index(&mut self, blocks: Vec<Block>) {
        self.index = Some(Arc::new(blocks));
    }

    /// Forgets the texts, of thousands of stores too many to keep, and not where they lie.
    pub(in crate::delta) fn forget_texts(&mut self) {
        self.texts.clear();
    }

    pub(in crate::delta) fn has_index(&self) -> bool {
        self.index.is_some() || self.failure.is_some()
    }

    pub(in crate::delta) fn add(&mut self, place: usize, text: String) {
        self.texts.insert(place, text.into());
    }

    /// The blocks that `stores` (all, if `None`) need and that were not read yet.
    pub(in crate::delta) fn missing(&self, stores: Option<&BTreeSet<StoreId>>) -> Vec<(usize, Block)> {
        let wanted =
            |block: &Block| stores.is_none_or(|stores| stores.range(&block.first..=&block.last).next().is_some());
        let blocks = self.index.iter().flat_map(|blocks| blocks.iter()).enumerate();
        blocks
            .filter(|(place, block)| !self.texts.contains_key(place) && wanted(block))
            .map(|(place, block)| (place, block.clone()))
            .collect()
    }

    /// Every text, in order of stores.
    pub(in crate::delta) fn texts(&self) -> Result<Vec<&str>> {
        let blocks = self.blocks()?;
        (0..blocks.len()).map(|place| self.texts.get(&place).map(|text| &**text).ok_or_else(unread)).collect()
    }

    /// The text in which a store's section may be; empty when no block holds the store.
    pub(in crate::delta) fn text_of(&self, store: &StoreId) -> Result<&str> {
        let blocks = self.blocks()?;
        let place = blocks.partition_point(|block| block.last < *store);
        if blocks.get(place).is_none_or(|block| !block.holds(store)) {
            return Ok("");
        }
        self.texts.get(&place).map(|text| &**text).ok_or_else(unread)
    }

    fn blocks(&self) -> Result<&[Block]> {
        if let Some(failure) = &self.failure {
            return Err(Error::data(failure.to_string()));
        }
        self.index.as_deref().map(Vec::as_slice).ok_or_else(unread)
    }
}

/// Whoever asks must have read them before; the safe side is an error.
fn unread() -> Error {
    Error::data("the file's facts were not read from their object")
}

/// The units of a file that is being written, in order of store and unit. Of many, those of whole stores are packed as
/// the object will have them: a unit takes some twenty bytes then, and more than a kilobyte otherwise.
#[derive(Debug, Clone, Default)]
pub struct FileUnits {
    packed: Vec<(Block, Bytes)>,
    /// Behind the packed ones.
    rest: Vec<UnitTag>,
    count: usize,
}

impl From<Vec<UnitTag>> for FileUnits {
    fn from(mut units: Vec<UnitTag>) -> Self {
        units.sort_by(|left, right| (&left.store, left.unit).cmp(&(&right.store, right.unit)));
        Self { packed: Vec::new(), count: units.len(), rest: units }
    }
}

impl FileUnits {
    /// Adds a unit that is behind all others.
    ///
    /// # Errors
    ///
    /// `Reject` when units cannot be written as a text that gives them back.
    pub fn push(&mut self, unit: UnitTag) -> Result<()> {
        if self.rest.len() >= BLOCK_UNITS && self.rest.last().is_some_and(|last| last.store != unit.store) {
            let block = std::mem::take(&mut self.rest);
            self.packed.push(pack(&block.iter().collect::<Vec<_>>())?);
        }
        self.rest.push(unit);
        self.count += 1;
        Ok(())
    }

    pub fn count(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The first and the last store.
    pub fn stores(&self) -> Option<(&StoreId, &StoreId)> {
        let first = self.packed.first().map(|(block, _)| &block.first).or(self.rest.first().map(|unit| &unit.store));
        let last = self.rest.last().map(|unit| &unit.store).or(self.packed.last().map(|(block, _)| &block.last));
        first.zip(last)
    }

    /// All units, if they are so few that none were packed.
    pub fn few(&self) -> Option<&[UnitTag]> {
        self.packed.is_empty().then_some(&self.rest)
    }

    /// Every unit, decoded.
    ///
    /// # Errors
    ///
    /// `Data` when a block is damaged.
    pub fn to_vec(&self) -> Result<Vec<UnitTag>> {
        let mut all = Vec::with_capacity(self.count);
        for (block, bytes) in &self.packed {
            all.extend(tags::decode(&block.decode(bytes)?)?);
        }
        all.extend_from_slice(&self.rest);
        Ok(all)
    }
}

/// A block of units in order, its place to be found yet.
fn pack(units: &[&UnitTag]) -> Result<(Block, Bytes)> {
    let (Some(first), Some(last)) = (units.first(), units.last()) else {
        return Err(Error::bug("a block of facts must have units"));
    };
    let text = tags::encode_block(units)?;
    let packed = zstd::bulk::compress(text.as_bytes(), 3)
        .map_err(|error| Error::bug("facts cannot be compressed").with_source(error))?;
    let range = 0..packed.len() as u64;
    let block = Block { first: first.store.clone(), last: last.store.clone(), range, sha256: sha256_hex(&packed) };
    Ok((block, packed.into()))
}

/// Blocks of whole stores.
fn packed(mut units: &[UnitTag]) -> Result<Vec<(Block, Bytes)>> {
    let mut blocks = Vec::new();
    while !units.is_empty() {
        let mut end = units.len().min(BLOCK_UNITS);
        while end < units.len() && units[end].store == units[end - 1].store {
            end += 1;
        }
        let (block, after) = units.split_at(end);
        blocks.push(pack(&block.iter().collect::<Vec<_>>())?);
        units = after;
    }
    Ok(blocks)
}

/// The object of `units`, its tag, and the same as if it had been read.
pub(in crate::delta) fn encode(units: &FileUnits) -> Result<(Bytes, FactsTag, LoadedFacts)> {
    let rest = packed(&units.rest)?;
    let (mut bytes, mut index, mut blocks, mut loaded) =
        (Vec::new(), String::new(), Vec::new(), LoadedFacts::default());
    for (block, packed) in units.packed.iter().chain(&rest) {
        let offset = bytes.len() as u64;
        let entry = Block { range: offset..offset + packed.len() as u64, ..block.clone() };
        index.push_str(&format!("{};{};{offset};{};{}\n", entry.first, entry.last, packed.len(), entry.sha256));
        loaded.add(blocks.len(), block.decode(packed)?);
        bytes.extend_from_slice(packed);
        blocks.push(entry);
    }
    loaded.set_index(blocks);
    bytes.extend(index.as_bytes());
    let tag = FactsTag {
        bytes: bytes.len() as u64,
        index_bytes: index.len() as u64,
        index_sha256: sha256_hex(index.as_bytes()),
        units: units.count as u64,
    };
    Ok((bytes.into(), tag, loaded))
}

/// The blocks that an index names, if its bytes are those that the tag names.
pub(in crate::delta) fn decode_index(tag: &FactsTag, bytes: &[u8]) -> Result<Vec<Block>> {
    let bad = |what: &str| Error::data(format!("index of facts: {what}"));
    if sha256_hex(bytes) != tag.index_sha256 {
        return Err(bad("must have the hash that the tag names"));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| bad("must be UTF-8").with_source(error))?;
    let block = |line: &str| -> Option<Block> {
        let parts: Vec<&str> = line.split(';').collect();
        let [first, last, offset, length, sha256] = parts.as_slice() else { return None };
        let (offset, length): (u64, u64) = (tags::number(offset)?, tags::number(length)?);
        let range = offset..offset.checked_add(length).filter(|end| *end <= tag.index().start)?;
        let (first, last): (StoreId, StoreId) = (first.parse().ok()?, last.parse().ok()?);
        (first <= last).then(|| Block { first, last, range, sha256: (*sha256).to_owned() })
    };
    let blocks: Option<Vec<Block>> = text.lines().map(block).collect();
    blocks.ok_or_else(|| bad("must have a line of five fields for each block"))
}

/// Every unit that an object holds: for whoever has all of it at hand.
///
/// # Errors
///
/// `Data` when it is not the object that `tag` names.
pub fn decode(tag: &str, object: &[u8]) -> Result<Vec<UnitTag>> {
    let tag: FactsTag = tag.parse()?;
    let part = |range: Range<u64>| {
        let (start, end) = (usize::try_from(range.start).ok()?, usize::try_from(range.end).ok()?);
        object.get(start..end)
    };
    let cut = || Error::data("object of facts: is shorter than its tag says");
    let mut units = Vec::new();
    for block in decode_index(&tag, part(tag.index()).ok_or_else(cut)?)? {
        units.extend(tags::decode(&block.decode(part(block.range()).ok_or_else(cut)?)?)?);
    }
    Ok(units)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Facts;
    use crate::ids::{Position, Unit};

    fn units(stores: usize, days: i8) -> Vec<UnitTag> {
        let unit = |store: usize, day: i8| UnitTag {
            store: format!("s{store:04}").parse().unwrap(),
            unit: Unit::Day(jiff::civil::date(2026, 1, day)),
            position: Position { epoch: 0, sequence: store as u64 },
            facts: Facts { rows: u64::from(day.unsigned_abs()), ..Facts::default() },
            audit: None,
            closed: true,
            extracted_at: jiff::Timestamp::UNIX_EPOCH,
            received_at: jiff::Timestamp::UNIX_EPOCH,
        };
        (0..stores).flat_map(|store| (1..=days).map(move |day| unit(store, day))).collect()
    }

    #[test]
    fn an_object_of_many_stores_gives_every_unit_back_and_one_store_needs_one_block() {
        let units = units(300, 31);
        let (object, tag, _) = encode(&units.clone().into()).unwrap();
        assert_eq!(decode(&tag.to_string(), &object).unwrap(), units);
        let index = decode_index(&tag, &object[tag.index().start as usize..]).unwrap();
        assert!(index.len() > 8, "{}", index.len());
        let mut loaded = LoadedFacts::default();
        loaded.set_index(index);
        let store: StoreId = "s0123".parse().unwrap();
        let needed = loaded.missing(Some(&[store.clone()].into()));
        assert_eq!(needed.len(), 1);
        assert!(
            loaded.text_of(&store).is_err() && loaded.texts().is_err(),
            "nothing is concluded from what was not read"
        );
        let (place, block) = &needed[0];
        let range = block.range();
        loaded.add(*place, block.decode(&object[range.start as usize..range.end as usize]).unwrap());
        let own = tags::decode_of(loaded.text_of(&store).unwrap(), &store).unwrap();
        assert_eq!(own.len(), 31);
        assert_eq!(loaded.text_of(&"zz".parse().unwrap()).unwrap(), "", "no block holds it");
    }

    #[test]
    fn units_that_come_one_by_one_are_packed_as_those_that_come_at_once() {
        for count in [1, 29, 30, 300] {
            let units = units(count, 31);
            let mut one_by_one = FileUnits::default();
            units.iter().cloned().try_for_each(|unit| one_by_one.push(unit)).unwrap();
            let at_once = FileUnits::from(units.clone());
            assert_eq!(
                (encode(&one_by_one).unwrap().0, one_by_one.stores()),
                (encode(&at_once).unwrap().0, at_once.stores())
            );
            assert!(
                one_by_one.to_vec().unwrap() == units && one_by_one.few().is_some() == (count <= 30),
                "{count} stores"
            );
        }
    }

    #[test]
    fn whatever_byte_is_damaged_is_noticed() {
        let (object, tag, _) = encode(&units(60, 20).into()).unwrap();
        for place in (0..object.len()).step_by(37).chain([object.len() - 1]) {
            let mut damaged = object.to_vec();
            damaged[place] ^= 1;
            let error = decode(&tag.to_string(), &damaged).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Data, "{place}");
        }
        assert!(decode(&tag.to_string(), &object[..object.len() - 1]).is_err());
        for text in ["", "1;2;x;3", "1;2;3", "9;1;x;-1", "+9;1;x;1"] {
            assert!(text.parse::<FactsTag>().is_err(), "{text}");
        }
        assert_eq!(tag.to_string().parse::<FactsTag>().unwrap(), tag);
    }
}
