//! The combined commit: all ready batches of a table in one log entry.

mod follow;
pub(in crate::delta) mod outcome;
pub(in crate::delta) mod plan;
pub(in crate::delta) mod ready;
mod settle;

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use crate::dataset::DatasetDefinition;
use crate::dataset::evolution::{self, Evolution};
use crate::delta::commit::follow::GroupCommit;
use crate::delta::commit::ready::{READY_READ_MAX, ReadyRecord};
use crate::delta::log::action::{Action, AddFile, CommittedBatch, Metadata, RemoveFile};
use crate::delta::log::checkpoint;
use crate::delta::log::entry::{CommitDescription, EntryOutcome};
use crate::delta::log::snapshot::{Changes, Snapshot};
use crate::delta::{BatchOutcome, CONCURRENCY, CommitReport, Table};
use crate::error::{Error, Result};
use crate::ids::BatchId;
use crate::object::{ObjectMeta, ObjectStore};
use crate::ports::Ports;
use crate::text::quoted;
use plan::{FileUnits, Retention};

/// Races lost before a call gives up and leaves its batches to the next one. Every lost race is
/// another writer's commit, most often with this call's batches in it.
const ATTEMPTS_MAX: u32 = 100;

/// The plan of one partition's records. It is made again when the partition's files change.
#[derive(Debug, Default)]
pub(in crate::delta) struct GroupPlan {
    pub adds: Vec<AddFile>,
    pub removes: Vec<RemoveFile>,
    pub committed: Vec<CommittedBatch>,
}

impl GroupPlan {
    fn changes_nothing(&self) -> bool {
        self.adds.is_empty() && self.removes.is_empty()
    }
}

/// Bytes of lake files that may be rewritten at the same time: what a plan holds in memory. A
/// partition whose files are larger is planned alone.
const REWRITTEN_BYTES_MAX: u64 = 64 << 20;

type Gathered = (Vec<ReadyRecord>, Vec<(BatchId, BatchOutcome)>, Option<Snapshot>);
type Plans = BTreeMap<String, Result<GroupPlan>>;

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
        base: Option<Snapshot>,
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
        let mut snapshot = match snapshot {
            Some(snapshot) => snapshot,
            None => self.load_or_create(ports, dataset).await?,
        };
        let now = ports.clock.now();
        let expired: Vec<ReadyRecord> = records.extract_if(.., |record| record.has_expired(now)).collect();
        let mut plans = Plans::new();
        let mut versions = BTreeMap::new();
        for attempt in 0.. {
            let metadata = self.evolved(&snapshot, dataset)?;
            self.plan_groups(ports, dataset, &snapshot, &records, &mut plans).await;
            if plans.values().all(|plan| plan.as_ref().is_ok_and(GroupPlan::changes_nothing) || plan.is_err()) {
                break;
            }
            if attempt >= ATTEMPTS_MAX {
                return Err(Error::retry(format!("table {}: lost {ATTEMPTS_MAX} races for a version", self.name)));
            }
            let version = snapshot.version + 1;
            let (description, mut actions) = entry_of(&plans, metadata);
            actions.splice(0..0, snapshot.protocol.upgrade());
            let mut changes = Changes::default();
            let standing = match self.put_entry(ports, version, description, actions.clone()).await? {
                EntryOutcome::Won => {
                    let batches = committed(&plans);
                    versions.extend(batches.iter().map(|batch| (batch.id.clone(), version)));
                    snapshot.apply(version, actions, &mut changes)?;
                    report.version = Some(version);
                    report.checkpoint_due = checkpoint::is_due(version, snapshot.file_count());
                    break;
                }
                EntryOutcome::Lost(standing) => standing,
            };
            report.races_lost += 1;
            let info = self.replay_entry(&mut snapshot, version, &standing, &mut changes)?;
            let batches = info.and_then(|info| info.ribera).map(|info| info.batches).unwrap_or_default();
            versions.extend(batches.into_iter().map(|batch| (batch.id, version)));
            let more = self.refresh(&mut snapshot).await?;
            changes.partitions.extend(more.partitions);
            changes.metadata |= more.metadata;
            forget_changed(&mut plans, &changes);
            if !own.is_empty() && self.all_have_outcomes(&snapshot, own) {
                break;
            }
            unreadable.extend(self.gather_more(&snapshot, now, &mut records, &mut plans).await?);
        }
        self.report_outcomes(&snapshot, &records, plans, &versions, &mut report);
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
        Ok(report)
    }

    /// The caller's records and the others that are ready; what cannot be read, with why; and,
    /// since the caller's records will need it, the table, read at the same time.
    async fn gather(
        &self,
        own: &[ReadyRecord],
        listed: Option<Vec<ObjectMeta>>,
        base: Option<Snapshot>,
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

    async fn load_from_base(&self, base: Option<Snapshot>) -> Result<Option<Snapshot>> {
        let Some(mut snapshot) = base else { return self.load().await };
        self.refresh(&mut snapshot).await?;
        Ok(Some(snapshot))
    }

    /// After a lost race: when most of the records at hand are settled, those that became ready
    /// meanwhile go along. Otherwise, in a crowd, each caller would commit its own batch only.
    async fn gather_more(
        &self,
        snapshot: &Snapshot,
        now: Timestamp,
        records: &mut Vec<ReadyRecord>,
        plans: &mut Plans,
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
                    Ok(Some(record)) => {
                        plans.remove(&record.partition_key());
                        records.push(record);
                    }
                    Ok(None) => {}
                    Err(error) => unreadable.push((batch, BatchOutcome::Failed(error))),
                }
            }
        }
        Ok(unreadable)
    }

    /// The metadata action that this commit must carry, if any.
    fn evolved(&self, snapshot: &Snapshot, dataset: &DatasetDefinition) -> Result<Option<Metadata>> {
        snapshot.check_writable()?;
        let current = &snapshot.metadata;
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

    /// Plans every group that has no plan yet. A group that cannot be planned holds up no other.
    async fn plan_groups(
        &self,
        ports: Ports<'_, S>,
        dataset: &DatasetDefinition,
        snapshot: &Snapshot,
        records: &[ReadyRecord],
        plans: &mut Plans,
    ) {
        let mut groups: BTreeMap<String, Vec<&ReadyRecord>> = BTreeMap::new();
        for record in records {
            groups.entry(record.partition_key()).or_default().push(record);
        }
        groups.retain(|key, _| !plans.contains_key(key));
        for wave in in_waves(snapshot, groups) {
            let mut planned = stream::iter(wave)
                .map(async |(key, records)| {
                    let plan = self.plan_partition(ports, dataset, snapshot, &key, &records).await;
                    (key, plan)
                })
                .buffer_unordered(CONCURRENCY);
            while let Some((key, plan)) = planned.next().await {
                plans.insert(key, plan);
            }
        }
    }

    async fn plan_partition(
        &self,
        ports: Ports<'_, S>,
        dataset: &DatasetDefinition,
        snapshot: &Snapshot,
        partition: &str,
        records: &[&ReadyRecord],
    ) -> Result<GroupPlan> {
        let active: Vec<&AddFile> = snapshot.partition(partition).collect();
        self.refuse_foreign(partition, &active)?;
        let active_units = active.iter().map(|file| file.unit_positions()).collect::<Result<Vec<FileUnits>>>()?;
        let of_record = |record: &&ReadyRecord| {
            let files = record.files.iter().map(AddFile::unit_positions);
            files.collect::<Result<Vec<FileUnits>>>()
        };
        let ready_units = records.iter().map(of_record).collect::<Result<Vec<_>>>()?;
        let retentions = plan::retentions(&active_units, &ready_units)?;
        let mut plan = GroupPlan::default();
        for (file, fate) in active.iter().zip(&retentions.active) {
            let removed_at = snapshot.removal_time(ports.clock.now());
            self.apply_to_active(ports, dataset, file, fate, removed_at, &mut plan).await?;
        }
        for (record, retentions) in records.iter().zip(&retentions.ready) {
            let mut rows = None;
            for (file, fate) in record.files.iter().zip(retentions) {
                let adds = self.entering(ports, dataset, record, file, fate).await?;
                if *fate != Retention::None {
                    let entered: u64 = adds.iter().filter_map(AddFile::rows).sum();
                    rows = Some(rows.unwrap_or(0) + entered);
                }
                plan.adds.extend(adds);
            }
            plan.committed.extend(rows.map(|rows| committed_batch(record, rows)));
        }
        Ok(plan)
    }

    /// Nobody knows which batch won the units of a foreign file: rows beside it could be doubled.
    fn refuse_foreign(&self, partition: &str, active: &[&AddFile]) -> Result<()> {
        let Some(foreign) = active.iter().find(|file| file.is_foreign()) else { return Ok(()) };
        Err(Error::data(format!(
            "table {}: partition {partition}: must hold files of Ribera only, got {}: another program wrote to the table, or its checkpoint lost our tags",
            self.name,
            quoted(&foreign.path)
        ))
        .with_hint(format!("ribera repair {}", self.name)))
    }

    /// Removes an active file, dividing it where some of its units stand.
    pub(in crate::delta) async fn apply_to_active(
        &self,
        ports: Ports<'_, S>,
        dataset: &DatasetDefinition,
        file: &AddFile,
        fate: &Retention,
        removed_at: Timestamp,
        plan: &mut GroupPlan,
    ) -> Result<()> {
        if let Retention::Only(keep) = fate {
            let mut tags = file.units()?;
            tags.retain(|tag| keep.contains(&tag.unit));
            plan.adds.extend(self.rewrite(ports, dataset, file, tags).await?);
        }
        if *fate != Retention::All {
            plan.removes.push(file.removed(removed_at, true));
        }
        Ok(())
    }

    /// What of a ready file enters the table.
    async fn entering(
        &self,
        ports: Ports<'_, S>,
        dataset: &DatasetDefinition,
        record: &ReadyRecord,
        file: &AddFile,
        fate: &Retention,
    ) -> Result<Vec<AddFile>> {
        let same_schema = record.schema_hash == crate::dataset::schema_hash(dataset);
        match fate {
            Retention::None => Ok(Vec::new()),
            Retention::All if same_schema => Ok(vec![file.clone()]),
            Retention::All => self.rewrite(ports, dataset, file, file.units()?).await,
            Retention::Only(keep) => {
                let mut tags = file.units()?;
                tags.retain(|tag| keep.contains(&tag.unit));
                self.rewrite(ports, dataset, file, tags).await
            }
        }
    }

    fn all_have_outcomes(&self, snapshot: &Snapshot, records: &[ReadyRecord]) -> bool {
        // What cannot be read will not be settled by waiting.
        records.iter().all(|record| !matches!(self.find_outcome(snapshot, &record.into(), &BTreeMap::new()), Ok(None)))
    }

    fn report_outcomes(
        &self,
        snapshot: &Snapshot,
        records: &[ReadyRecord],
        mut plans: Plans,
        versions: &BTreeMap<String, u64>,
        report: &mut CommitReport,
    ) {
        for record in records {
            let outcome = match self.find_outcome(snapshot, &record.into(), versions) {
                Ok(Some(outcome)) => outcome,
                Ok(None) => unsettled(record, &mut plans),
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

pub(in crate::delta) fn committed_batch(record: &ReadyRecord, rows: u64) -> CommittedBatch {
    CommittedBatch { id: record.batch.to_string(), manifest_sha256: record.manifest_sha256.clone(), rows }
}

/// Groups whose partitions' files may be in memory together.
fn in_waves<'a>(
    snapshot: &Snapshot,
    groups: BTreeMap<String, Vec<&'a ReadyRecord>>,
) -> Vec<Vec<(String, Vec<&'a ReadyRecord>)>> {
    let mut waves: Vec<Vec<(String, Vec<&ReadyRecord>)>> = Vec::new();
    let mut bytes_left = 0;
    for (key, records) in groups {
        let ready: u64 = records.iter().flat_map(|record| &record.files).map(|file| file.size).sum();
        let bytes = ready + snapshot.partition(&key).map(|file| file.size).sum::<u64>();
        match waves.last_mut() {
            Some(wave) if bytes <= bytes_left => wave.push((key, records)),
            _ => {
                waves.push(vec![(key, records)]);
                bytes_left = REWRITTEN_BYTES_MAX;
            }
        }
        bytes_left = bytes_left.saturating_sub(bytes);
    }
    waves
}

fn committed(plans: &Plans) -> Vec<CommittedBatch> {
    plans.values().flatten().flat_map(|plan| plan.committed.iter().cloned()).collect()
}

fn entry_of(plans: &Plans, metadata: Option<Metadata>) -> (CommitDescription, Vec<Action>) {
    let mut description = CommitDescription::new("MERGE");
    description.batches = committed(plans);
    let mut actions = Vec::new();
    actions.extend(metadata.map(|metadata| Action { meta_data: Some(metadata), ..Action::default() }));
    for plan in plans.values().flatten() {
        let removes = plan.removes.iter().cloned().map(|remove| Action { remove: Some(remove), ..Action::default() });
        let adds = plan.adds.iter().cloned().map(|add| Action { add: Some(add), ..Action::default() });
        actions.extend(removes.chain(adds));
    }
    (description, actions)
}

/// Drops the plans that stand on what has changed; the files of the others are used again.
fn forget_changed(plans: &mut Plans, changes: &Changes) {
    plans.retain(|key, plan| !changes.metadata && plan.is_ok() && !changes.partitions.contains(key));
}

fn unsettled(record: &ReadyRecord, plans: &mut Plans) -> BatchOutcome {
    match plans.get(&record.partition_key()) {
        Some(Ok(_)) => BatchOutcome::Failed(Error::retry(format!("{}: was not settled in time", record.batch))),
        Some(Err(error)) => BatchOutcome::Failed(Error::new(error.kind(), error.to_string())),
        None => BatchOutcome::Failed(Error::retry(format!("{}: was not planned", record.batch))),
    }
}
