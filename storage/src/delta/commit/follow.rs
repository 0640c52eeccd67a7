//! Group commit: up to three calls (leaders) commit everyone's ready batches; the other calls
//! (followers) only poll new log entries for their own batches. Followers read neither the table nor
//! other calls' records.
//!
//! Nothing depends on who leads. A call that waits in vain, because the one ahead of it died,
//! commits itself; the version is given out by put-if-absent all the same.

use std::collections::BTreeMap;

use crate::delta::commit::ready::ReadyRecord;
use crate::delta::log::LogFile;
use crate::delta::log::action::{Action, AddFile, CommittedBatch};
use crate::delta::{BatchOutcome, CommitReport, Table};
use crate::error::Result;
use crate::ids::BatchId;
use crate::object::{ObjectMeta, ObjectPath, ObjectStore, list_all};

/// Calls that commit at once: the second has read what the first left and follows at its heels.
const LEADERS_MAX: usize = 3;
/// Looks in vain for the next entry before twice as many calls commit at once: about half a second
/// of a remote store's answers. When those ahead have died the next ones follow soon, and when they
/// are only slow not all the others make them slower.
const POLLS_MAX: usize = 20;
/// A record that waits for so long longer than the caller's own belongs to no call that runs.
const AHEAD_MILLIS_MAX: i64 = 2_000;

/// What a call is to do with its records.
pub(in crate::delta) enum GroupCommit {
    /// Another call has committed them.
    AlreadyCommitted(CommitReport),
    /// Commit; with the listing of ready records if it is fresh.
    Leader(Option<Vec<ObjectMeta>>),
}

impl<S: ObjectStore> Table<'_, S> {
    /// Waits while others commit `own`.
    pub(in crate::delta) async fn follow(&self, own: &[ReadyRecord]) -> Result<GroupCommit> {
        let listed = self.list_ready().await?;
        let mut queue_ahead = self.queue_ahead(&listed, own)?;
        if !own.iter().all(can_follow) || queue_ahead.len() < LEADERS_MAX {
            return Ok(GroupCommit::Leader(Some(listed)));
        }
        let Some(newest) = self.newest_version().await? else { return Ok(GroupCommit::Leader(Some(listed))) };
        let mut outcomes: BTreeMap<BatchId, BatchOutcome> = BTreeMap::new();
        // One or two entries may have come since the records were put.
        let mut next = newest.saturating_sub(1).max(1);
        let (mut leaders, mut polls) = (LEADERS_MAX, 0);
        // The first batch in the queue that is still uncommitted becomes the next leader.
        while next <= newest || queue_ahead.len() >= leaders {
            let Some(entry) = self.read_entry(next).await? else {
                if next <= newest {
                    // Older than the log is kept.
                    next += 1;
                } else {
                    polls += 1;
                }
                if polls == POLLS_MAX {
                    (leaders, polls) = (leaders * 2, 0);
                }
                continue;
            };
            next += 1;
            polls = 0;
            for batch in committed_by(&entry) {
                queue_ahead.retain(|id| *id != batch.id);
                if let Some(record) = own.iter().find(|record| record.batch.to_string() == batch.id) {
                    match whole(record, &batch, &entry, next - 1)? {
                        Some(outcome) => outcomes.insert(record.batch.clone(), outcome),
                        None => return Ok(GroupCommit::Leader(None)),
                    };
                }
            }
            if outcomes.len() == own.len() {
                let outcomes = outcomes.into_iter().collect();
                return Ok(GroupCommit::AlreadyCommitted(CommitReport { outcomes, ..CommitReport::default() }));
            }
        }
        Ok(GroupCommit::Leader(None))
    }

    /// The batches whose records became ready before the caller's. A caller whose record is gone
    /// was settled already: all the others count.
    fn queue_ahead(&self, listed: &[ObjectMeta], own: &[ReadyRecord]) -> Result<Vec<String>> {
        let paths: Vec<ObjectPath> =
            own.iter().map(|record| crate::paths::ready(&record.batch)).collect::<Result<_>>()?;
        let order = |meta: &ObjectMeta| (meta.modified, meta.path.clone());
        let first = listed.iter().filter(|meta| paths.contains(&meta.path)).map(order).min();
        let is_ahead = |meta: &&ObjectMeta| match &first {
            Some(first) => {
                order(meta) < *first && first.0.duration_since(meta.modified).as_millis() <= AHEAD_MILLIS_MAX.into()
            }
            None => true,
        };
        let batches = listed.iter().filter(is_ahead).filter_map(|meta| self.batch_of_ready(&meta.path));
        Ok(batches.map(|batch| batch.to_string()).collect())
    }

    /// The newest version that a listing shows; `None` when there is no table yet.
    async fn newest_version(&self) -> Result<Option<u64>> {
        let hint = self.read_last_checkpoint().await;
        let after = hint.as_ref().map(|hint| format!("{}{:020}.json", self.log_folder(), hint.version));
        let listed = list_all(self.objects, &self.log_folder(), after.as_deref()).await?;
        let newest = listed.iter().rev().find_map(|meta| match LogFile::of(&meta.path)? {
            LogFile::Entry(version) => Some(version),
            _ => None,
        });
        Ok(newest.or(hint.map(|hint| hint.version)))
    }
}

/// Whether the log alone can say what became of a record.
fn can_follow(record: &ReadyRecord) -> bool {
    !record.files.is_empty()
}

/// What an entry settled: its commit info stands first.
fn committed_by(entry: &[u8]) -> Vec<CommittedBatch> {
    let first = entry.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let action: Option<Action> = serde_json::from_slice(first).ok();
    action.and_then(|action| action.commit_info?.ribera).map(|info| info.batches).unwrap_or_default()
}

/// The outcome of a batch whose files the entry added as they are; `None` when it won only a part
/// of its units or its files were written again: then the table has to be asked.
fn whole(record: &ReadyRecord, batch: &CommittedBatch, entry: &[u8], version: u64) -> Result<Option<BatchOutcome>> {
    let entry = std::str::from_utf8(entry).unwrap_or_default();
    let is_added = |file: &AddFile| {
        // Its name is random: no other line holds it.
        let line = entry.lines().find(|line| line.contains(&file.path));
        let action: Option<Action> = line.and_then(|line| serde_json::from_str(line).ok());
        action.is_some_and(|action| action.add.as_ref() == Some(file))
    };
    let same = batch.manifest_sha256 == record.manifest_sha256 && batch.rows == record.rows;
    if !same || !record.files.iter().all(is_added) {
        return Ok(None);
    }
    let mut units: Vec<_> = record.units()?.into_iter().map(|tag| (tag.unit, tag.facts)).collect();
    units.sort_by_key(|(unit, _)| *unit);
    Ok(Some(BatchOutcome::Committed { version, rows: batch.rows, units }))
}
