//! What became of a batch, told from the state of the table alone.

use std::collections::BTreeMap;

use super::ready::ReadyRecord;
use super::snapshot::Snapshot;
use super::{BatchOutcome, Table, path, tags};
use crate::batch::{Manifest, ManifestKind};
use crate::dataset::{DatasetDefinition, Mode};
use crate::error::Result;
use crate::ids::{BatchId, Unit};
use crate::object::ObjectStore;

/// What identifies a batch to the table.
pub(super) struct Candidate<'a> {
    batch: &'a BatchId,
    kind: ManifestKind,
    ordered: bool,
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
        Self {
            batch: &record.batch,
            kind: record.kind,
            ordered: record.ordered,
            partition: record.partition_key(),
            units: Units::Tag(&record.units),
        }
    }
}

impl<S: ObjectStore> Table<'_, S> {
    /// What became of a batch, from the log alone: `None` when it is not settled. Lets a call that
    /// runs again skip re-encoding. (In a stream whose order matters, a number that was closed
    /// without data reads as committed: a batch quarantined there must not be replayed.)
    pub fn settled(
        &self,
        snapshot: &Snapshot,
        dataset: &DatasetDefinition,
        manifest: &Manifest,
    ) -> Result<Option<BatchOutcome>> {
        let candidate = Candidate {
            batch: &manifest.batch,
            kind: manifest.kind,
            ordered: dataset.mode == Mode::Upsert,
            partition: path::partition_key(&dataset.partition(&manifest.batch.store, manifest.month)),
            units: Units::List(manifest.units.iter().map(|facts| facts.unit).collect()),
        };
        self.settle(snapshot, &candidate, &BTreeMap::new())
    }

    /// `versions` are those known of batches by their text.
    pub(super) fn settle(
        &self,
        snapshot: &Snapshot,
        candidate: &Candidate<'_>,
        versions: &BTreeMap<String, u64>,
    ) -> Result<Option<BatchOutcome>> {
        let BatchId { store, dataset, position } = candidate.batch;
        let is_void = candidate.kind == ManifestKind::Void;
        if candidate.ordered {
            let applied = snapshot.txns.get(&app_id(candidate.batch)).copied().unwrap_or(-1);
            let is_applied = i64::try_from(position.sequence).is_ok_and(|sequence| applied >= sequence);
            let is_overtaken = snapshot.stream_position(store, dataset).is_some_and(|last| last.epoch > position.epoch);
            return match (is_applied || is_overtaken, is_void) {
                (false, _) => Ok(None),
                (true, true) => Ok(Some(BatchOutcome::Voided)),
                (true, false) if is_applied => self.committed(snapshot, candidate, versions).map(Some),
                (true, false) => Ok(Some(BatchOutcome::Superseded)),
            };
        }
        if is_void {
            return Ok(Some(BatchOutcome::Voided));
        }
        let mut standing = BTreeMap::new();
        for file in snapshot.partition(&candidate.partition) {
            standing.extend(file.unit_positions()?);
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
        for file in snapshot.partition(&candidate.partition) {
            for tag in file.units()? {
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

impl Units<'_> {
    fn list(&self) -> Result<Vec<Unit>> {
        match self {
            Self::Tag(text) => Ok(tags::decode_positions(text)?.into_iter().map(|(unit, _)| unit).collect()),
            Self::List(units) => Ok(units.clone()),
        }
    }
}

/// The Delta application id of a batch's stream and epoch: `STORE/DATASET/EPOCH`.
pub(super) fn app_id(batch: &BatchId) -> String {
    format!("{}/{}/{}", batch.store, batch.dataset, batch.position.epoch)
}
