//! The combined commit: all ready batches of a table in one log entry.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use super::action::{Action, AddFile, CommittedBatch, Metadata, RemoveFile, Txn};
use super::checkpoint::CHECKPOINT_EVERY;
use super::entry::{EntryOutcome, Purpose};
use super::evolution::{self, Evolution};
use super::follow::Turn;
use super::plan::{self, Fate, FileUnits};
use super::ready::{READY_READ_MAX, ReadyRecord};
use super::snapshot::{Changes, Snapshot};
use super::{BatchOutcome, CONCURRENCY, CommitReport, Ports, Table};
use crate::batch::ManifestKind;
use crate::dataset::{DatasetDefinition, STORE_COLUMN};
use crate::error::{Error, Result};
use crate::ids::BatchId;
use crate::object::{ObjectMeta, ObjectStore};

/// Races lost before a call gives up and leaves its batches to the next one. Every lost race is
/// another writer's commit, most often with this call's batches in it.
const ATTEMPTS_MAX: u32 = 100;

/// Records that are planned together, and planned again when what they stand on changes: those of
/// one partition, or of one store where order matters.
#[derive(Debug, Default)]
pub(super) struct GroupPlan {
    pub adds: Vec<AddFile>,
    pub removes: Vec<RemoveFile>,
    pub txns: Vec<Txn>,
    pub committed: Vec<CommittedBatch>,
    /// Numbers that must come first.
    pub waiting: Vec<(BatchId, u64)>,
}

impl GroupPlan {
    fn changes_nothing(&self) -> bool {
        self.adds.is_empty() && self.removes.is_empty() && self.txns.is_empty()
    }
}

type Gathered = (Vec<ReadyRecord>, Vec<(BatchId, BatchOutcome)>, Option<Snapshot>);
type Plans = BTreeMap<String, Result<GroupPlan>>;

impl<S: ObjectStore> Table<'_, S> {
    /// Settles all ready batches of the table in one log entry (see the module). Creates the table
    /// when there is none, and adds the columns that `dataset` has and the table has not.
    /// `own` are the caller's batches whose records were put: read first, and reason enough to
    /// return once they are settled. A sweep passes none. One that another call has settled and
    /// deleted before it was read has no outcome in the report: ask [`Self::settled`], or pass the
    /// records themselves to [`Self::commit_records`]. Safe to run any number of times at once.
    ///
    /// An error of kind `Config` says that `dataset` is no evolution of the table, or that
    /// [`Self::migrate`] must run first.
    pub async fn commit_ready(
        &self,
        ports: Ports<'_>,
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
    pub async fn commit_records(
        &self,
        ports: Ports<'_>,
        dataset: &DatasetDefinition,
        own: &[ReadyRecord],
    ) -> Result<CommitReport> {
        self.commit_records_from(ports, dataset, own, None).await
    }

    /// The same for callers that have read the table a moment ago: `base` is brought up to date
    /// instead of reading the table again.
    pub async fn commit_records_from(
        &self,
        ports: Ports<'_>,
        dataset: &DatasetDefinition,
        own: &[ReadyRecord],
        base: Option<Snapshot>,
    ) -> Result<CommitReport> {
        let listed = match own.is_empty() {
            true => None,
            false => match self.follow(own).await? {
                Turn::Settled(report) => return Ok(report),
                Turn::Lead(listed) => listed,
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
        let expired: Vec<ReadyRecord> = records.extract_if(.., |record| expires(record, now)).collect();
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
            let (purpose, actions) = entry_of(&plans, metadata);
            let mut changes = Changes::default();
            let standing = match self.put_entry(ports, version, purpose, actions.clone()).await? {
                EntryOutcome::Won => {
                    let batches = committed(&plans);
                    versions.extend(batches.iter().map(|batch| (batch.id.clone(), version)));
                    snapshot.apply(version, actions, &mut changes)?;
                    report.version = Some(version);
                    report.checkpoint_due = version % CHECKPOINT_EVERY == 0;
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
            changes.streams.extend(more.streams);
            changes.metadata |= more.metadata;
            forget_changed(&mut plans, &changes);
            if !own.is_empty() && self.all_settled(&snapshot, own)? {
                break;
            }
            unreadable.extend(self.gather_more(&snapshot, now, &mut records, &mut plans).await?);
        }
        self.report_outcomes(&snapshot, &records, plans, &versions, &mut report);
        for record in &expired {
            let settled = self.settle(&snapshot, &record.into(), &versions)?;
            report.outcomes.push((record.batch.clone(), settled.unwrap_or(BatchOutcome::Expired)));
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
            open += usize::from(self.settle(snapshot, &record.into(), &BTreeMap::new())?.is_none());
        }
        let mut unreadable = Vec::new();
        if open * 4 < READY_READ_MAX {
            for (batch, read) in self.read_other_records(records, None).await? {
                match read {
                    // An expired one is told to whoever lists it first.
                    Ok(Some(record)) if expires(&record, now) => {}
                    Ok(Some(record)) => {
                        plans.remove(&group_of(&record));
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
        let standing = &snapshot.metadata;
        let evolution = evolution::of_table(&standing.schema_string, &standing.partition_columns, dataset)
            .map_err(|error| error.context(format!("table {}", self.name)))?;
        match evolution {
            Evolution::None => Ok(None),
            Evolution::Rewrite if snapshot.file_count() > 0 => Err(Error::config(format!(
                "table {}: files of narrower types must be written anew before it takes version {} of dataset {}",
                self.name, dataset.version, dataset.name
            ))
            .with_hint("ribera maintain")),
            _ => Ok(Some(Metadata { schema_string: dataset.delta_schema(), ..standing.clone() })),
        }
    }

    /// Plans every group that has no plan yet. A group that cannot be planned holds up no other.
    async fn plan_groups(
        &self,
        ports: Ports<'_>,
        dataset: &DatasetDefinition,
        snapshot: &Snapshot,
        records: &[ReadyRecord],
        plans: &mut Plans,
    ) {
        let mut groups: BTreeMap<String, Vec<&ReadyRecord>> = BTreeMap::new();
        for record in records {
            groups.entry(group_of(record)).or_default().push(record);
        }
        groups.retain(|key, _| !plans.contains_key(key));
        let mut planned = stream::iter(groups)
            .map(async |(key, records)| {
                let plan = match records.iter().any(|record| record.ordered) {
                    true => self.plan_ordered(ports, dataset, snapshot, &records).await,
                    false => self.plan_replace(ports, dataset, snapshot, &key, &records).await,
                };
                (key, plan)
            })
            .buffer_unordered(CONCURRENCY);
        while let Some((key, plan)) = planned.next().await {
            plans.insert(key, plan);
        }
    }

    async fn plan_replace(
        &self,
        ports: Ports<'_>,
        dataset: &DatasetDefinition,
        snapshot: &Snapshot,
        partition: &str,
        records: &[&ReadyRecord],
    ) -> Result<GroupPlan> {
        let active: Vec<&AddFile> = snapshot.partition(partition).collect();
        let active_units = active.iter().map(|file| file.unit_positions()).collect::<Result<Vec<FileUnits>>>()?;
        let of_record = |record: &&ReadyRecord| {
            let files = record.files.iter().map(AddFile::unit_positions);
            files.collect::<Result<Vec<FileUnits>>>()
        };
        let ready_units = records.iter().map(of_record).collect::<Result<Vec<_>>>()?;
        let fates = plan::fates(&active_units, &ready_units)?;
        let mut plan = GroupPlan::default();
        for (file, fate) in active.iter().zip(&fates.active) {
            self.apply_to_active(ports, dataset, file, fate, &mut plan).await?;
        }
        for (record, fates) in records.iter().zip(&fates.ready) {
            let mut rows = None;
            for (file, fate) in record.files.iter().zip(fates) {
                let adds = self.entering(ports, dataset, record, file, fate).await?;
                if *fate != Fate::None {
                    let entered: u64 = adds.iter().filter_map(AddFile::rows).sum();
                    rows = Some(rows.unwrap_or(0) + entered);
                }
                plan.adds.extend(adds);
            }
            plan.committed.extend(rows.map(|rows| committed_batch(record, rows)));
        }
        Ok(plan)
    }

    /// Removes an active file, dividing it where some of its units stand.
    pub(super) async fn apply_to_active(
        &self,
        ports: Ports<'_>,
        dataset: &DatasetDefinition,
        file: &AddFile,
        fate: &Fate,
        plan: &mut GroupPlan,
    ) -> Result<()> {
        if let Fate::Part(keep) = fate {
            let mut tags = file.units()?;
            tags.retain(|tag| keep.contains(&tag.unit));
            plan.adds.extend(self.rewrite(ports, dataset, file, tags).await?);
        }
        if *fate != Fate::Whole {
            plan.removes.push(file.removed(ports.clock.now(), true));
        }
        Ok(())
    }

    /// What of a ready file enters the table.
    async fn entering(
        &self,
        ports: Ports<'_>,
        dataset: &DatasetDefinition,
        record: &ReadyRecord,
        file: &AddFile,
        fate: &Fate,
    ) -> Result<Vec<AddFile>> {
        let same_schema = record.schema_hash == super::schema_hash(dataset);
        match fate {
            Fate::None => Ok(Vec::new()),
            Fate::Whole if same_schema => Ok(vec![file.clone()]),
            Fate::Whole => self.rewrite(ports, dataset, file, file.units()?).await,
            Fate::Part(keep) => {
                let mut tags = file.units()?;
                tags.retain(|tag| keep.contains(&tag.unit));
                self.rewrite(ports, dataset, file, tags).await
            }
        }
    }

    fn all_settled(&self, snapshot: &Snapshot, records: &[ReadyRecord]) -> Result<bool> {
        for record in records {
            if self.settle(snapshot, &record.into(), &BTreeMap::new())?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
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
            let outcome = match self.settle(snapshot, &record.into(), versions) {
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
            let done =
                matches!(outcome, BatchOutcome::Committed { .. } | BatchOutcome::Superseded | BatchOutcome::Voided);
            done && (report.races_lost == 0 || report.version.is_some() || own.contains(&batch))
        });
        stream::iter(settled)
            .for_each_concurrent(CONCURRENCY, async |(batch, _)| {
                let _ = self.delete_ready(batch).await;
            })
            .await;
    }
}

pub(super) fn committed_batch(record: &ReadyRecord, rows: u64) -> CommittedBatch {
    CommittedBatch { id: record.batch.to_string(), manifest_sha256: record.manifest_sha256.clone(), rows }
}

fn expires(record: &ReadyRecord, now: Timestamp) -> bool {
    record.kind == ManifestKind::Batch && record.has_expired(now)
}

fn group_of(record: &ReadyRecord) -> String {
    match record.ordered {
        true => format!("{STORE_COLUMN}={}", record.batch.store),
        false => record.partition_key(),
    }
}

fn committed(plans: &Plans) -> Vec<CommittedBatch> {
    plans.values().flatten().flat_map(|plan| plan.committed.iter().cloned()).collect()
}

fn entry_of(plans: &Plans, metadata: Option<Metadata>) -> (Purpose, Vec<Action>) {
    let mut purpose = Purpose::new("MERGE");
    purpose.batches = committed(plans);
    let mut actions = Vec::new();
    actions.extend(metadata.map(|metadata| Action { meta_data: Some(metadata), ..Action::default() }));
    for plan in plans.values().flatten() {
        let txns = plan.txns.iter().cloned().map(|txn| Action { txn: Some(txn), ..Action::default() });
        let removes = plan.removes.iter().cloned().map(|remove| Action { remove: Some(remove), ..Action::default() });
        let adds = plan.adds.iter().cloned().map(|add| Action { add: Some(add), ..Action::default() });
        actions.extend(txns.chain(removes).chain(adds));
    }
    (purpose, actions)
}

/// Drops the plans that stand on what has changed; the files of the others are used again.
fn forget_changed(plans: &mut Plans, changes: &Changes) {
    let below =
        |key: &str, group: &str| key.strip_prefix(group).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let store_of = |stream: &str| stream.split('/').next().map(|store| format!("{STORE_COLUMN}={store}"));
    let streams: BTreeSet<String> = changes.streams.iter().filter_map(|stream| store_of(stream)).collect();
    plans.retain(|group, plan| {
        !changes.metadata
            && plan.is_ok()
            && !streams.contains(group)
            && !changes.partitions.iter().any(|key| below(key, group))
    });
}

fn unsettled(record: &ReadyRecord, plans: &mut Plans) -> BatchOutcome {
    match plans.get(&group_of(record)) {
        Some(Ok(plan)) => match plan.waiting.iter().find(|(batch, _)| *batch == record.batch) {
            Some((_, missing)) => BatchOutcome::Waiting { missing_sequence: *missing },
            None => BatchOutcome::Failed(Error::retry(format!("{}: was not settled in time", record.batch))),
        },
        Some(Err(error)) => BatchOutcome::Failed(Error::new(error.kind(), error.to_string())),
        None => BatchOutcome::Failed(Error::retry(format!("{}: was not planned", record.batch))),
    }
}
