//! What became of a batch, told from the state of the table alone.

use std::collections::BTreeMap;

use crate::batch::Manifest;
use crate::dataset::DatasetDefinition;
use crate::delta::commit::ready::ReadyRecord;
use crate::delta::log::action::AddFile;
use crate::delta::log::path;
use crate::delta::log::snapshot::Snapshot;
use crate::delta::units::tags;
use crate::delta::{BatchOutcome, Table};
use crate::error::Result;
use crate::ids::{BatchId, Unit};
use crate::object::ObjectStore;

/// What identifies a batch to the table.
pub(in crate::delta) struct Candidate<'a> {
    batch: &'a BatchId,
    partition: String,
    /// Parsed where they are needed.
    units: Units<'a>,
}

enum Units<'a> {
    Tag(&'a str),
    List(Vec<Unit>),
}

impl<'a> From<&'a ReadyRecord> for Candidate<'a> {
    fn from(record: &'a ReadyRecord) -> Self {
        Self { batch: &record.batch, partition: record.partition_key(), units: Units::Tag(&record.units) }
    }
}

impl<S: ObjectStore> Table<'_, S> {
    /// What became of a batch, from the log alone: `None` when it is not settled. Lets a call that
    /// runs again skip re-encoding.
    ///
    /// # Errors
    ///
    /// `Data` when what a tag says of the store cannot be read.
    pub fn outcome_of(
        &self,
        snapshot: &Snapshot,
        dataset: &DatasetDefinition,
        manifest: &Manifest,
    ) -> Result<Option<BatchOutcome>> {
        let candidate = Candidate {
            batch: &manifest.batch,
            partition: path::partition_key(&dataset.partition(manifest.month)),
            units: Units::List(manifest.units.iter().map(|facts| facts.unit).collect()),
        };
        self.find_outcome(snapshot, &candidate, &BTreeMap::new())
    }

    /// `versions` are those known of batches by their text.
    pub(in crate::delta) fn find_outcome(
        &self,
        snapshot: &Snapshot,
        candidate: &Candidate<'_>,
        versions: &BTreeMap<String, u64>,
    ) -> Result<Option<BatchOutcome>> {
        let position = &candidate.batch.position;
        let mut standing = BTreeMap::new();
        let store = &candidate.batch.store;
        for file in files_of(snapshot, candidate) {
            standing.extend(file.unit_positions_of(store)?);
        }
        let found: Vec<_> = candidate.units.list()?.iter().map(|unit| standing.get(unit).copied()).collect();
        if found.contains(&Some(*position)) {
            return self.committed(snapshot, candidate, versions).map(Some);
        }
        let all_lost = found.iter().all(|winner| winner.is_some_and(|winner| winner > *position));
        Ok(all_lost.then_some(BatchOutcome::Superseded))
    }

    fn committed(
        &self,
        snapshot: &Snapshot,
        candidate: &Candidate<'_>,
        versions: &BTreeMap<String, u64>,
    ) -> Result<BatchOutcome> {
        let wanted = candidate.units.list()?;
        let (mut rows, mut units) = (0, Vec::new());
        for file in files_of(snapshot, candidate) {
            for tag in file.units_of(&candidate.batch.store)? {
                if !wanted.contains(&tag.unit) {
                    continue;
                }
                if tag.position == candidate.batch.position {
                    rows += tag.facts.rows;
                }
                units.push((tag.unit, tag.facts));
            }
        }
        units.sort_by_key(|(unit, _)| *unit);
        let version = versions.get(&candidate.batch.to_string()).copied().unwrap_or(snapshot.version);
        Ok(BatchOutcome::Committed { version, rows, units })
    }
}

/// The files in which a batch's units may lie.
fn files_of<'a>(snapshot: &'a Snapshot, candidate: &Candidate<'a>) -> impl Iterator<Item = &'a AddFile> {
    let (partition, store) = (snapshot.partition(&candidate.partition), candidate.batch);
    partition.into_iter().flat_map(|partition| partition.files_of(&store.store))
}

impl Units<'_> {
    fn list(&self) -> Result<Vec<Unit>> {
        match self {
            Self::Tag(text) => Ok(tags::decode_positions(text)?.into_iter().map(|(key, _)| key.unit).collect()),
            Self::List(units) => Ok(units.clone()),
        }
    }
}
