//! Which units of a file stay when it is written again, found as its rows come.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::cursor::{Key, UnitCursor, key_of};
use super::tags::UnitTag;
use crate::delta::log::action::AddFile;
use crate::error::{Error, Result};
use crate::ids::StoreUnit;
use crate::text::quoted;

/// A part of a file's units.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::delta) enum Keep {
    AllBut(BTreeSet<StoreUnit>),
    Only(BTreeSet<StoreUnit>),
}

impl Keep {
    fn has(&self, unit: &StoreUnit) -> bool {
        match self {
            Self::AllBut(units) => !units.contains(unit),
            Self::Only(units) => units.contains(unit),
        }
    }

    /// The rows that stay of each store, by the file's tags.
    ///
    /// # Errors
    ///
    /// `Data` when they cannot be read; `Bug` when no unit stays.
    pub(in crate::delta) fn rows_by_store(&self, file: &AddFile) -> Result<BTreeMap<String, u64>> {
        let mut rows: BTreeMap<String, u64> = BTreeMap::new();
        file.each_proof(|store, proof| {
            let Ok(store) = store.parse() else { return };
            let unit = StoreUnit { store, unit: proof.unit };
            if self.has(&unit) {
                *rows.entry(unit.store.into()).or_default() += proof.rows;
            }
        })?;
        if rows.is_empty() { Err(Error::bug(format!("{}: some unit must stay", file.path))) } else { Ok(rows) }
    }
}

/// The units that stay, in order, each with as many rows as its tag says: one is held at a time.
pub(in crate::delta) struct StayingUnits<'a> {
    keep: &'a Keep,
    cursor: UnitCursor<'a>,
    /// The first unit that can have rows yet, and those it had.
    next: Option<(Key, UnitTag, u64)>,
    /// The last unit that had rows, be it one that leaves.
    last: Option<Key>,
    begun: Vec<UnitTag>,
}

impl<'a> StayingUnits<'a> {
    pub(in crate::delta) fn new(file: &'a AddFile, keep: &'a Keep) -> Result<Self> {
        let cursor = file.unit_cursor()?;
        let mut units = Self { keep, cursor, next: None, last: None, begun: Vec::new() };
        units.go_on()?;
        Ok(units)
    }

    /// Counts rows that follow. Whether they stay: rows that no tag names do not.
    ///
    /// # Errors
    ///
    /// `Data` when they are out of order, or a unit before them has not as many rows as its tag says.
    pub(in crate::delta) fn count(&mut self, store: &str, number: i64, rows: u64) -> Result<bool> {
        let compared = |key: &Key| (key.0.as_str(), key.1).cmp(&(store, number));
        match self.last.as_ref().map(compared) {
            Some(Ordering::Greater) => {
                return Err(Error::data(format!("rows: unit: must be in order, got {number} of {}", quoted(store))));
            }
            Some(Ordering::Equal) => {}
            _ => self.last = Some((store.parse()?, number)),
        }
        while let Some((key, ..)) = &self.next
            && compared(key) == Ordering::Less
        {
            self.go_on()?;
        }
        match &mut self.next {
            Some((key, _, counted)) if compared(key) == Ordering::Equal => {
                *counted += rows;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// The units that stay up to the rows that were counted last, and perhaps one more: each is given once.
    pub(in crate::delta) fn take_begun(&mut self) -> Vec<UnitTag> {
        std::mem::take(&mut self.begun)
    }

    /// The units that are left, if each has its rows.
    ///
    /// # Errors
    ///
    /// `Data` when one has not.
    pub(in crate::delta) fn finish(mut self) -> Result<Vec<UnitTag>> {
        while self.next.is_some() {
            self.go_on()?;
        }
        Ok(self.begun)
    }

    fn go_on(&mut self) -> Result<()> {
        if let Some((_, tag, rows)) = self.next.take()
            && rows != tag.facts.rows
        {
            let wanted = tag.facts.rows;
            return Err(Error::data(format!(
                "its rows are not what its tags say: unit {}: must have {wanted} rows, got {rows}",
                tag.unit
            )));
        }
        while let Some(tag) = self.cursor.next()? {
            if self.keep.has(&tag.key()) {
                self.begun.push(tag.clone());
                self.next = Some((key_of(&tag), tag, 0));
                break;
            }
        }
        Ok(())
    }
}
