//! The combined commit: all ready batches of a table in one log entry.

mod changed;
mod follow;
pub(in crate::delta) mod outcome;
pub(in crate::delta) mod plan;
mod planner;
pub(in crate::delta) mod ready;
mod settle;

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use crate::dataset::DatasetDefinition;
use crate::dataset::evolution::{self, Evolution};
use crate::delta::commit::follow::GroupCommit;
use crate::delta::commit::ready::{READY_READ_MAX, ReadyRecord};
use crate::delta::log::action::{Action, Metadata};
use crate::delta::log::checkpoint::{self, Wanted};
use crate::delta::log::entry::{CommitDescription, EntryOutcome};
use crate::delta::{BatchOutcome, CONCURRENCY, CommitReport, PartialSnapshot, StoreFiles, Table};
use crate::error::{Error, Result};
use crate::ids::{BatchId, StoreId};
use crate::object::{ObjectMeta, ObjectStore};
use crate::ports::Ports;
use planner::{CommitPlan, Planner};

/// Races lost before a call gives up and leaves its batches to the next one. Every lost race is
/// another writer's commit, most often with this call's batches in it.
const ATTEMPTS_MAX: u32 = 100;

type Gathered = (Vec<ReadyRecord>, Vec<(BatchId, BatchOutcome)>, Option<PartialSnapshot>);

impl<S: ObjectStore> Table<'_, S> {
    /// Settles all ready batches of the table in one log entry (see the module). Creates the table
    /// when there is none, and adds the columns that `dataset` has and the table has not.
    /// `own` are the caller's batches whose records were put: read first, and reason enough to
    /// return once they are settled. A sweep passes none. One that another call has settled and
    /// deleted before it was read has no outcome in the report: ask [`Self::outcome_of`], or pass the
    /// records themselves to [`Self::commit_records`]. Safe to run any number of times at once.
    ///
    /// An error of kind `Config` says that `dataset` is no evolution of the table, or that
    /// [`Self::migrate`] must run first.
    ///
    /// # Errors
    ///
    /// `Retry` when the object store does not answer, or others committed first too often; `Data` when the log
    /// cannot be read. What concerns one batch is in its outcome.
    pub async fn commit_ready(
        &self,
        ports: Ports<'_, S>,
        dataset: &DatasetDefinition,
        own: &[BatchId],
    ) -> Result<CommitReport> {
        let read: Vec<Option<ReadyRecord>> =
            stream::iter(own).map(|batch| self.load_ready(batch)).buffered(CONCURRENCY).try_collect().await?;
        let records: Vec<ReadyRecord> = read.into_iter().flatten().collect();
        self.commit_records(ports, dataset, &records).await
    }

    /// The same for callers that have their records at hand: saves reading them, and each of them
    /// has an outcome in the report.
    ///
    /// # Errors
    ///
    /// As [`Self::commit_ready`].
    pub async fn commit_records(
        &self,
        ports: Ports<'_, S>,
        dataset: &DatasetDefinition,
        own: &[ReadyRecord],
    ) -> Result<CommitReport> {
        self.commit_records_from(ports, dataset, own, None).await
    }

    /// The same for callers that have read the table a moment ago: `base` is brought up to date
    /// instead of reading the table again.
    ///
    /// # Errors
    ///
    /// As [`Self::commit_ready`].
    pub async fn commit_records_from(
        &self,
        ports: Ports<'_, S>,
        dataset: &DatasetDefinition,
        own: &[ReadyRecord],
        base: Option<PartialSnapshot>,
    ) -> Result<CommitReport> {
        let listed = match own.is_empty() {
            true => None,
            false => match self.follow(own).await? {
                GroupCommit::AlreadyCommitted(report) => return Ok(report),
                GroupCommit::Leader(listed) => listed,
            },
        };
        let mut report = CommitReport::default();
        let (mut records, mut unreadable, snapshot) = self.gather(own, listed, base).await?;
        if records.is_empty() {
            report.outcomes.extend(unreadable);
            return Ok(report);
        }
        let snapshot = match snapshot {
            None if own.is_empty() => self.load_partial().await?,
            snapshot => snapshot,
        };
        let mut snapshot = match snapshot {
            Some(snapshot) => snapshot,
            None => self.create_partial(ports, dataset).await?,
        };
        let now = ports.clock.now();
        let expired: Vec<ReadyRecord> = records.extract_if(.., |record| record.has_expired(now)).collect();
        let mut planner = Planner::new(self, ports, dataset);
        let mut plan = CommitPlan::default();
        let (mut versions, mut is_due) = (BTreeMap::new(), false);
        for attempt in 0.. {
            self.read_for(&mut snapshot, records.iter().chain(&expired)).await?;
            let metadata = self.evolved(&snapshot, dataset)?;
            plan = planner.plan(&snapshot, &records).await;
            if plan.changes_nothing() {
                break;
            }
            if attempt >= ATTEMPTS_MAX {
                return Err(Error::retry(format!("table {}: lost {ATTEMPTS_MAX} races for a version", self.name)));
            }
            let version = snapshot.version() + 1;
            let (description, mut actions) = entry_of(&plan, metadata);
            actions.splice(0..0, snapshot.protocol().upgrade());
            let standing = match self.put_entry(ports, version, description, actions.clone()).await? {
                EntryOutcome::Won => {
                    versions.extend(plan.committed.iter().map(|batch| (batch.id.clone(), version)));
                    snapshot.apply(version, actions)?;
                    report.version = Some(version);
                    is_due = checkpoint::is_due(version, snapshot.file_count());
                    break;
                }
                EntryOutcome::Lost(standing) => standing,
            };
            report.races_lost += 1;
            let info = self.replay_partial(&mut snapshot, version, &standing)?;
            let batches = info.and_then(|info| info.ribera).map(|info| info.batches).unwrap_or_default();
            versions.extend(batches.into_iter().map(|batch| (batch.id, version)));
            self.refresh_partial(&mut snapshot).await?;
            self.read_for(&mut snapshot, records.iter().chain(&expired)).await?;
            if !own.is_empty() && self.all_have_outcomes(&snapshot, own) {
                break;
            }
            unreadable.extend(self.gather_more(&snapshot, now, &mut records).await?);
        }
        self.report_outcomes(&snapshot, &records, &plan, &versions, &mut report);
        for record in &expired {
            let outcome = match self.find_outcome(&snapshot, &record.into(), &versions) {
                Ok(settled) => settled.unwrap_or(BatchOutcome::Expired),
                Err(error) => BatchOutcome::Failed(error),
            };
            report.outcomes.push((record.batch.clone(), outcome));
        }
        report.outcomes.extend(unreadable);
        let own: Vec<&BatchId> = own.iter().map(|record| &record.batch).collect();
        report.outcomes.sort_by_key(|(batch, _)| !own.contains(&batch));
        self.delete_settled(&own, &report).await;
        report.checkpoint_due = is_due.then(|| Box::new(snapshot));
        Ok(report)
    }

    /// The caller's records and the others that are ready; what cannot be read, with why; and,
    /// since the caller's records will need it, the table, read at the same time.
    async fn gather(
        &self,
        own: &[ReadyRecord],
        listed: Option<Vec<ObjectMeta>>,
        base: Option<PartialSnapshot>,
    ) -> Result<Gathered> {
        let (read, snapshot) = match own.is_empty() {
            true => (self.read_other_records(own, listed).await?, None),
            false => futures::try_join!(self.read_other_records(own, listed), self.load_from_base(base))?,
        };
        let mut records = own.to_vec();
        let mut unreadable = Vec::new();
        for (batch, read) in read {
            match read {
                Ok(Some(record)) => records.push(record),
                Ok(None) => {}
                Err(error) => unreadable.push((batch, BatchOutcome::Failed(error))),
            }
        }
        Ok((records, unreadable, snapshot))
    }

    /// Reads the files in which the records' units may lie, and what is said of them elsewhere than in the log.
    async fn read_for(
        &self,
        snapshot: &mut PartialSnapshot,
        records: impl Iterator<Item = &ReadyRecord> + Clone,
    ) -> Result<()> {
        let mut wanted = Wanted::default();
        records.clone().for_each(|record| wanted.add_store(record.partition_key(), &record.batch.store));
        self.read_partial(snapshot, &wanted).await?;
        let partitions: BTreeSet<String> = records.clone().map(ReadyRecord::partition_key).collect();
        let stores: BTreeSet<StoreId> = records.map(|record| record.batch.store.clone()).collect();
        self.load_partial_facts(snapshot, &partitions, &stores).await
    }

    async fn load_from_base(&self, base: Option<PartialSnapshot>) -> Result<Option<PartialSnapshot>> {
        let Some(mut snapshot) = base else { return self.load_partial().await };
        self.refresh_partial(&mut snapshot).await?;
        Ok(Some(snapshot))
    }

    /// After a lost race: when most of the records at hand are settled, those that became ready
    /// meanwhile go along. Otherwise, in a crowd, each caller would commit its own batch only.
    async fn gather_more(
        &self,
        snapshot: &PartialSnapshot,
        now: Timestamp,
        records: &mut Vec<ReadyRecord>,
    ) -> Result<Vec<(BatchId, BatchOutcome)>> {
        let mut open = 0;
        for record in records.iter() {
            // One that cannot be read is never settled, and must not count for ever as open.
            let settled = self.find_outcome(snapshot, &record.into(), &BTreeMap::new());
            open += usize::from(matches!(settled, Ok(None)));
        }
        let mut unreadable = Vec::new();
        if open * 4 < READY_READ_MAX {
            for (batch, read) in self.read_other_records(records, None).await? {
                match read {
                    // An expired one is told to whoever lists it first.
                    Ok(Some(record)) if record.has_expired(now) => {}
                    Ok(Some(record)) => records.push(record),
                    Ok(None) => {}
                    Err(error) => unreadable.push((batch, BatchOutcome::Failed(error))),
                }
            }
        }
        Ok(unreadable)
    }

    /// The metadata action that this commit must carry, if any.
    fn evolved(&self, snapshot: &PartialSnapshot, dataset: &DatasetDefinition) -> Result<Option<Metadata>> {
        snapshot.check_writable()?;
        let current = snapshot.metadata();
        let evolution = evolution::of_table(&current.schema_string, &current.partition_columns, dataset)
            .map_err(|error| error.context(format!("table {}", self.name)))?;
        match evolution {
            Evolution::None => Ok(None),
            Evolution::Rewrite if snapshot.file_count() > 0 => Err(Error::config(format!(
                "table {}: files of narrower types must be written again before it takes version {} of dataset {}",
                self.name, dataset.version, dataset.name
            ))
            .with_hint("ribera maintain")),
            _ => Ok(Some(current.evolved_to(dataset)?)),
        }
    }

    fn all_have_outcomes(&self, snapshot: &PartialSnapshot, records: &[ReadyRecord]) -> bool {
        // What cannot be read will not be settled by waiting.
        records.iter().all(|record| !matches!(self.find_outcome(snapshot, &record.into(), &BTreeMap::new()), Ok(None)))
    }

    fn report_outcomes(
        &self,
        snapshot: &PartialSnapshot,
        records: &[ReadyRecord],
        plan: &CommitPlan,
        versions: &BTreeMap<String, u64>,
        report: &mut CommitReport,
    ) {
        for record in records {
            let outcome = match self.find_outcome(snapshot, &record.into(), versions) {
                Ok(Some(outcome)) => outcome,
                Ok(None) => unsettled(record, plan),
                Err(error) => BatchOutcome::Failed(error),
            };
            report.outcomes.push((record.batch.clone(), outcome));
        }
    }

    /// Deletes the records that are of no more use: all settled ones for the winner, its own for a
    /// loser. One that stays behind is harmless: the next commit sees that it is settled.
    async fn delete_settled(&self, own: &[&BatchId], report: &CommitReport) {
        let settled = report.outcomes.iter().filter(|(batch, outcome)| {
            // An expired one is written again from its manifest.
            let done =
                matches!(outcome, BatchOutcome::Committed { .. } | BatchOutcome::Superseded | BatchOutcome::Expired);
            done && (report.races_lost == 0 || report.version.is_some() || own.contains(&batch))
        });
        stream::iter(settled)
            .for_each_concurrent(CONCURRENCY, async |(batch, _)| {
                let _ = self.delete_ready(batch).await;
            })
            .await;
    }
}

fn entry_of(plan: &CommitPlan, metadata: Option<Metadata>) -> (CommitDescription, Vec<Action>) {
    let mut description = CommitDescription::new("MERGE");
    description.batches.clone_from(&plan.committed);
    let metadata = metadata.map(|metadata| Action { meta_data: Some(metadata), ..Action::default() });
    let removes = plan.removes.iter().cloned().map(|remove| Action { remove: Some(remove), ..Action::default() });
    let adds = plan.adds.iter().cloned().map(|add| Action { add: Some(add), ..Action::default() });
    (description, metadata.into_iter().chain(removes).chain(adds).collect())
}

fn unsettled(record: &ReadyRecord, plan: &CommitPlan) -> BatchOutcome {
    BatchOutcome::Failed(match plan.failed.get(&record.batch) {
        Some(error) => Error::new(error.kind(), error.to_string()),
        None => Error::retry(format!("{}: was not settled in time", record.batch)),
    })
}
