//! What a merge is made of.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};

use crate::dataset::PartitionColumn;
use crate::delta::log::action::AddFile;
use crate::delta::units::column::number_of;
use crate::delta::units::cursor::{Key, UnitCursor, key_of};
use crate::delta::units::tags::UnitTag;
use crate::error::{Error, Result};

/// A file, with all of its facts.
#[derive(Debug)]
pub(in crate::delta) struct Input<'a> {
    pub file: Cow<'a, AddFile>,
    /// Its first unit.
    pub first: Key,
    pub units: u64,
    /// By its tags.
    pub rows: u64,
}

impl<'a> Input<'a> {
    /// # Errors
    ///
    /// `Data` when the file's facts cannot be read, or it has none.
    pub(in crate::delta) fn new(file: Cow<'a, AddFile>) -> Result<Self> {
        let (mut first, mut units, mut rows) = (None, 0, 0);
        file.each_proof(|store, proof| {
            first.get_or_insert((store, number_of(proof.unit)));
            units += 1;
            rows += proof.rows;
        })?;
        let Some((store, number)) = first else {
            return Err(Error::data(format!("{}: must have units", file.path)));
        };
        let first = (store.parse()?, number);
        Ok(Self { file, first, units, rows })
    }
}

/// The files of a merge. Their facts are held as texts, a hundred bytes a unit, and decoded store by store.
#[derive(Debug)]
pub(in crate::delta) struct Inputs<'a> {
    pub partition: &'a [PartitionColumn],
    /// In order of their first units.
    pub files: Vec<Input<'a>>,
}

impl<'a> Inputs<'a> {
    pub(in crate::delta) fn new(partition: &'a [PartitionColumn], mut files: Vec<Input<'a>>) -> Self {
        files.sort_by(|left, right| (&left.first, &left.file.path).cmp(&(&right.first, &right.file.path)));
        Self { partition, files }
    }

    pub(super) fn units(&self) -> u64 {
        self.files.iter().map(|input| input.units).sum()
    }

    pub(super) fn rows(&self) -> u64 {
        self.files.iter().map(|input| input.rows).sum()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|input| input.file.size).sum()
    }

    /// By the tags.
    pub(super) fn rows_by_store(&self) -> Result<BTreeMap<String, u64>> {
        let mut rows: BTreeMap<String, u64> = BTreeMap::new();
        for input in &self.files {
            input.file.each_proof(|store, proof| match rows.get_mut(store) {
                Some(of_store) => *of_store += proof.rows,
                None => drop(rows.insert(store.to_owned(), proof.rows)),
            })?;
        }
        Ok(rows)
    }

    pub(super) fn leave_out(&mut self, path: &str) {
        self.files.retain(|input| input.file.path != path);
    }

    /// The units of all files one after the other: what the merged files must prove.
    pub(super) fn tags(&self) -> TagsInOrder<'_> {
        TagsInOrder { waiting: self.files.iter().collect(), open: Vec::new() }
    }
}

/// See [`Inputs::tags`].
pub(super) struct TagsInOrder<'a> {
    waiting: VecDeque<&'a Input<'a>>,
    /// The next unit of each file that was begun, and those behind it.
    open: Vec<(Key, UnitTag, UnitCursor<'a>)>,
}

impl TagsInOrder<'_> {
    /// # Errors
    ///
    /// `Data` when a file's facts cannot be read.
    pub(super) fn next(&mut self) -> Result<Option<UnitTag>> {
        // A file is begun once its turn comes: few overlap.
        while let Some(next) = self.waiting.front() {
            if self.open.iter().any(|(key, ..)| *key < next.first) {
                break;
            }
            let mut cursor = next.file.unit_cursor()?;
            self.waiting.pop_front();
            if let Some(tag) = cursor.next()? {
                self.open.push((key_of(&tag), tag, cursor));
            }
        }
        let lowest = self.open.iter().enumerate().min_by(|left, right| left.1.0.cmp(&right.1.0));
        let Some(index) = lowest.map(|(index, _)| index) else { return Ok(None) };
        let (key, tag, cursor) = &mut self.open[index];
        match cursor.next()? {
            Some(next) => {
                *key = key_of(&next);
                Ok(Some(std::mem::replace(tag, next)))
            }
            None => Ok(Some(self.open.swap_remove(index).1)),
        }
    }
}
