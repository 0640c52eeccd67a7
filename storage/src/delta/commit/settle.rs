//! What became of a batch, told from the state of the table alone.

use std::collections::BTreeMap;

use crate::batch::Manifest;
use crate::dataset::DatasetDefinition;
use crate::delta::commit::ready::ReadyRecord;
use crate::delta::log::action::AddFile;
use crate::delta::log::path;
use crate::delta::units::tags;
use crate::delta::{BatchOutcome, PartialSnapshot, StoreFiles, Table};
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
    /// `Data` when what the table says of the store cannot be read; `Retry` when the object store does not answer.
    pub async fn outcome_of(
        &self,
        snapshot: &impl StoreFiles,
        dataset: &DatasetDefinition,
        manifest: &Manifest,
    ) -> Result<Option<BatchOutcome>> {
        let candidate = Candidate {
            batch: &manifest.batch,
            partition: path::partition_key(&dataset.partition(manifest.month)),
            units: Units::List(manifest.units.iter().map(|facts| facts.unit).collect()),
        };
        let mut files = Vec::new();
        for file in snapshot.files_of(&candidate.partition, &manifest.batch.store)? {
            files.push(self.with_facts_of(file, &manifest.batch.store).await?);
        }
        outcome_in(&files.iter().collect::<Vec<_>>(), snapshot.version(), &candidate, &BTreeMap::new())
    }

    /// `versions` are those known of batches by their text.
    pub(in crate::delta) fn find_outcome(
        &self,
        snapshot: &PartialSnapshot,
        candidate: &Candidate<'_>,
        versions: &BTreeMap<String, u64>,
    ) -> Result<Option<BatchOutcome>> {
        let files = snapshot.files_of(&candidate.partition, &candidate.batch.store)?;
        outcome_in(&files, snapshot.version(), candidate, versions)
    }
}

/// `files` are those in which the batch's units may lie, with their facts of its store.
fn outcome_in(
    files: &[&AddFile],
    newest: u64,
    candidate: &Candidate<'_>,
    versions: &BTreeMap<String, u64>,
) -> Result<Option<BatchOutcome>> {
    let BatchId { store, position, .. } = candidate.batch;
    let mut standing = BTreeMap::new();
    for file in files {
        standing.extend(file.unit_positions_of(store)?);
    }
    let wanted = candidate.units.list()?;
    let found: Vec<_> = wanted.iter().map(|unit| standing.get(unit).copied()).collect();
    if !found.contains(&Some(*position)) {
        let all_lost = found.iter().all(|winner| winner.is_some_and(|winner| winner > *position));
        return Ok(all_lost.then_some(BatchOutcome::Superseded));
    }
    let (mut rows, mut units) = (0, Vec::new());
    for file in files {
        for tag in file.units_of(store)?.into_iter().filter(|tag| wanted.contains(&tag.unit)) {
            if tag.position == *position {
                rows += tag.facts.rows;
            }
            units.push((tag.unit, tag.facts));
        }
    }
    units.sort_by_key(|(unit, _)| *unit);
    let version = versions.get(&candidate.batch.to_string()).copied().unwrap_or(newest);
    Ok(Some(BatchOutcome::Committed { version, rows, units }))
}

impl Units<'_> {
    fn list(&self) -> Result<Vec<Unit>> {
        match self {
            Self::Tag(text) => Ok(tags::decode_positions(text)?.into_iter().map(|(key, _)| key.unit).collect()),
            Self::List(units) => Ok(units.clone()),
        }
    }
}
