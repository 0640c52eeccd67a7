//! The plan of a commit: what enters the table, what leaves it, which batches cannot enter.
//!
//! Each plan is made from the table as it stands. Files written again for one plan serve the next
//! one: a call that loses a race plans anew and copies nothing twice.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};

use crate::dataset::DatasetDefinition;
use crate::delta::commit::plan::{FileUnits, Retention, retentions};
use crate::delta::commit::ready::ReadyRecord;
use crate::delta::log::action::{AddFile, CommittedBatch, RemoveFile};
use crate::delta::units::staying::Keep;
use crate::delta::{CONCURRENCY, PartialSnapshot, StoreFiles, Table};
use crate::error::{Error, Result};
use crate::ids::{BatchId, StoreId, StoreUnit, Unit};
use crate::object::ObjectStore;
use crate::ports::Ports;
use crate::text::quoted;

/// Bytes of lake files that may be written again at the same time, a larger file alone. A plan holds
/// the new files in memory and, of each, a part of the old one (`ReadBounds`) or the whole if it is small.
const REWRITTEN_BYTES_MAX: u64 = 64 << 20;

/// What a commit is to write.
#[derive(Debug, Default)]
pub(in crate::delta) struct CommitPlan {
    pub adds: Vec<AddFile>,
    pub removes: Vec<RemoveFile>,
    pub committed: Vec<CommittedBatch>,
    /// Batches that cannot enter, and why. The others go on without them.
    pub failed: BTreeMap<BatchId, Error>,
}

impl CommitPlan {
    pub(in crate::delta) fn changes_nothing(&self) -> bool {
        self.adds.is_empty() && self.removes.is_empty()
    }

    fn fail(&mut self, records: &[&ReadyRecord], error: &Error) {
        for record in records {
            self.failed.insert(record.batch.clone(), Error::new(error.kind(), error.to_string()));
        }
    }
}

/// A file with all of its facts, and the units of it that stay.
type Rewriting<'a> = (&'a AddFile, Keep);

/// The same of a file of the table. Nothing stays, if `None`.
type Staying = (AddFile, Option<Keep>);

/// Makes the plans of one call.
pub(in crate::delta) struct Planner<'a, S> {
    table: &'a Table<'a, S>,
    ports: Ports<'a, S>,
    dataset: &'a DatasetDefinition,
    schema_hash: String,
    /// By path and the units that stay: what was written again.
    rewritten: BTreeMap<(String, Keep), Vec<AddFile>>,
}

/// Batches that cannot enter together with the others.
struct Failure<'r> {
    records: Vec<&'r ReadyRecord>,
    error: Error,
}

/// What of a ready file enters the table.
enum Entering {
    Nothing,
    AsItIs,
    /// These units, written again.
    Rewritten(Keep),
}

/// Who wins, before any file is touched.
#[derive(Default)]
struct Decision<'a> {
    /// Files of the table that lose units, by log path.
    losing: BTreeMap<&'a str, (&'a AddFile, BTreeSet<StoreUnit>)>,
    /// What of each file of each record enters.
    entering: Vec<(&'a ReadyRecord, Vec<(&'a AddFile, Entering)>)>,
}

impl<'a, S: ObjectStore> Planner<'a, S> {
    pub(in crate::delta) fn new(table: &'a Table<'a, S>, ports: Ports<'a, S>, dataset: &'a DatasetDefinition) -> Self {
        let schema_hash = crate::dataset::schema_hash(dataset);
        Self { table, ports, dataset, schema_hash, rewritten: BTreeMap::new() }
    }

    /// What settles `records` on top of `snapshot`.
    pub(in crate::delta) async fn plan(&mut self, snapshot: &PartialSnapshot, records: &[ReadyRecord]) -> CommitPlan {
        let mut partitions: BTreeMap<String, Vec<&ReadyRecord>> = BTreeMap::new();
        for record in records {
            partitions.entry(record.partition_key()).or_default().push(record);
        }
        let mut plan = CommitPlan::default();
        for (key, records) in partitions {
            self.plan_partition(snapshot, &key, records, &mut plan).await;
        }
        plan
    }

    async fn plan_partition(
        &mut self,
        snapshot: &PartialSnapshot,
        key: &str,
        mut records: Vec<&ReadyRecord>,
        plan: &mut CommitPlan,
    ) {
        // Each round leaves out at least one record.
        while !records.is_empty() {
            let decision = self.decide(key, snapshot, &records, plan);
            match self.carry_out(snapshot, &decision, plan).await {
                Ok(()) => return,
                Err(failure) if failure.records.is_empty() => plan.fail(&records, &failure.error),
                Err(failure) => plan.fail(&failure.records, &failure.error),
            }
            records.retain(|record| !plan.failed.contains_key(&record.batch));
        }
    }

    /// Store by store: what the log says of one cannot fail another. Records that fail are told to `plan`.
    fn decide<'r>(
        &self,
        key: &str,
        snapshot: &'r PartialSnapshot,
        records: &[&'r ReadyRecord],
        plan: &mut CommitPlan,
    ) -> Decision<'r> {
        let mut stores: BTreeMap<&StoreId, Vec<&'r ReadyRecord>> = BTreeMap::new();
        for record in records {
            stores.entry(&record.batch.store).or_default().push(record);
        }
        let mut decision = Decision::default();
        for (store, records) in stores {
            let decided = snapshot.files_of(key, store).and_then(|files| {
                self.refuse_foreign(key, &files, store)?;
                decide_store(files, store, &self.schema_hash, &records, &mut decision)
            });
            if let Err(error) = decided {
                plan.fail(&records, &error);
            }
        }
        decision
    }

    /// Nobody knows which batch won the units of a foreign file: rows beside it could be doubled.
    fn refuse_foreign(&self, key: &str, files: &[&AddFile], store: &StoreId) -> Result<()> {
        let Some(foreign) = files.iter().find(|file| file.is_foreign()) else { return Ok(()) };
        Err(Error::data(format!(
            "table {}: partition {key}: must hold files of Ribera only, got {} with rows of {store}: another program wrote to the table, or its checkpoint lost our tags",
            self.table.name,
            quoted(&foreign.path)
        ))
        .with_hint(format!("ribera repair {}", self.table.name)))
    }

    /// Writes again what must be, then adds to the plan. Nothing is added when it fails.
    async fn carry_out<'r>(
        &mut self,
        snapshot: &PartialSnapshot,
        decision: &Decision<'r>,
        plan: &mut CommitPlan,
    ) -> Result<(), Failure<'r>> {
        let staying = self.staying(decision).await?;
        let tasks = staying.iter().filter_map(|(file, keep)| Some((file, keep.clone()?)));
        let entering =
            decision.entering.iter().flat_map(|(_, files)| files).filter_map(|(file, entering)| match entering {
                Entering::Rewritten(keep) => Some((*file, keep.clone())),
                Entering::AsItIs | Entering::Nothing => None,
            });
        let tasks: Vec<Rewriting<'_>> = tasks.chain(entering).collect();
        if let Some((path, error)) = self.rewrite_all(tasks).await {
            return Err(Failure { records: concerned(decision, &path), error });
        }
        let whole = self.written(snapshot, decision, &staying);
        let more = whole.map_err(|error| Failure { records: Vec::new(), error })?;
        plan.adds.extend(more.adds);
        plan.removes.extend(more.removes);
        plan.committed.extend(more.committed);
        Ok(())
    }

    /// What is to be written once every file that must be was written again.
    fn written(&self, snapshot: &PartialSnapshot, decision: &Decision<'_>, staying: &[Staying]) -> Result<CommitPlan> {
        let rewritten = |file: &AddFile, keep: &Keep| {
            let found = self.rewritten.get(&(file.path.clone(), keep.clone())).cloned();
            found.ok_or_else(|| Error::bug(format!("{}: was not written again", file.path)))
        };
        let mut plan = CommitPlan::default();
        let removed_at = snapshot.removal_time(self.ports.clock.now());
        for (file, keep) in staying {
            plan.removes.push(file.removed(removed_at, true));
            if let Some(keep) = keep {
                plan.adds.extend(rewritten(file, keep)?);
            }
        }
        for (record, files) in &decision.entering {
            let mut rows = None;
            for (file, entering) in files {
                let adds = match entering {
                    Entering::Nothing => continue,
                    Entering::AsItIs => vec![(*file).clone()],
                    Entering::Rewritten(keep) => rewritten(file, keep)?,
                };
                rows = Some(rows.unwrap_or(0) + adds.iter().filter_map(AddFile::rows).sum::<u64>());
                plan.adds.extend(adds);
            }
            plan.committed.extend(rows.map(|rows| committed_batch(record, rows)));
        }
        Ok(plan)
    }

    /// What stays of each file that loses units.
    async fn staying<'r>(&self, decision: &Decision<'r>) -> Result<Vec<Staying>, Failure<'r>> {
        let mut all = Vec::with_capacity(decision.losing.len());
        for (file, lost) in decision.losing.values() {
            let failed = |error| Failure { records: concerned(decision, &file.path), error };
            let file = self.table.with_facts(file).await.map_err(failed)?;
            let mut units = 0;
            file.each_proof(|_, _| units += 1).map_err(failed)?;
            // All that is lost is of the file.
            let keep = (lost.len() < units).then(|| Keep::AllBut(lost.clone()));
            all.push((file, keep));
        }
        Ok(all)
    }

    /// Writes what no plan before has written; the path of a file that cannot be, and why.
    async fn rewrite_all(&mut self, tasks: Vec<Rewriting<'_>>) -> Option<(String, Error)> {
        let known = |(file, keep): &Rewriting<'_>| self.rewritten.contains_key(&(file.path.clone(), keep.clone()));
        let tasks: Vec<Rewriting<'_>> = tasks.into_iter().filter(|task| !known(task)).collect();
        for wave in in_waves(tasks) {
            let mut written = stream::iter(wave)
                .map(async |(file, keep)| {
                    let files = self.table.rewrite(self.ports, self.dataset, file, &keep).await;
                    (file.path.clone(), keep, files)
                })
                .buffer_unordered(CONCURRENCY)
                .collect::<Vec<_>>()
                .await;
            // Whatever ends first: the same failure is told every time.
            written.sort_by(|left, right| left.0.cmp(&right.0));
            for (path, keep, files) in written {
                match files {
                    Ok(files) => drop(self.rewritten.insert((path, keep), files)),
                    Err(error) => return Some((path, error)),
                }
            }
        }
        None
    }
}

fn committed_batch(record: &ReadyRecord, rows: u64) -> CommittedBatch {
    CommittedBatch { id: record.batch.to_string(), manifest_sha256: record.manifest_sha256.clone(), rows }
}

fn decide_store<'a>(
    active: Vec<&'a AddFile>,
    store: &StoreId,
    schema_hash: &str,
    records: &[&'a ReadyRecord],
    decision: &mut Decision<'a>,
) -> Result<()> {
    let active_units =
        active.iter().map(|file| file.unit_positions_of(store)).collect::<Result<Vec<FileUnits<Unit>>>>()?;
    let of_record = |record: &&ReadyRecord| {
        let files = record.files.iter().map(|file| file.unit_positions_of(store));
        files.collect::<Result<Vec<FileUnits<Unit>>>>()
    };
    let ready_units = records.iter().map(of_record).collect::<Result<Vec<_>>>()?;
    let retentions =
        retentions(&active_units, &ready_units).map_err(|error| error.context(format!("store {store}")))?;
    let keyed = |unit: &Unit| StoreUnit { store: store.clone(), unit: *unit };
    for ((file, units), kept) in active.into_iter().zip(active_units).zip(&retentions.active) {
        let lost = units.iter().map(|(unit, _)| unit).filter(|unit| !kept.keeps(unit));
        let lost: BTreeSet<StoreUnit> = lost.map(keyed).collect();
        if !lost.is_empty() {
            decision.losing.entry(&file.path).or_insert((file, BTreeSet::new())).1.extend(lost);
        }
    }
    for ((record, units), kept) in records.iter().zip(&ready_units).zip(&retentions.ready) {
        let same_schema = record.schema_hash == schema_hash;
        let entering = units.iter().zip(kept).map(|(units, kept)| match kept {
            Retention::None => Entering::Nothing,
            Retention::All if same_schema => Entering::AsItIs,
            Retention::All => Entering::Rewritten(Keep::Only(units.iter().map(|(unit, _)| keyed(unit)).collect())),
            Retention::Only(units) => Entering::Rewritten(Keep::Only(units.iter().map(keyed).collect())),
        });
        decision.entering.push((record, record.files.iter().zip(entering).collect()));
    }
    Ok(())
}

/// The records because of which a file is written again: those of its own, and those that win its units.
fn concerned<'r>(decision: &Decision<'r>, path: &str) -> Vec<&'r ReadyRecord> {
    let lost = decision.losing.get(path).map(|(_, lost)| lost);
    let wins = |record: &ReadyRecord| lost.is_some_and(|lost| lost.iter().any(|key| key.store == record.batch.store));
    let owns = |record: &ReadyRecord| record.files.iter().any(|file| file.path == path);
    decision.entering.iter().map(|(record, _)| *record).filter(|record| wins(record) || owns(record)).collect()
}

/// Files that may be in memory together.
fn in_waves(tasks: Vec<Rewriting<'_>>) -> Vec<Vec<Rewriting<'_>>> {
    let mut waves: Vec<Vec<Rewriting<'_>>> = Vec::new();
    let mut bytes_left = 0;
    for task in tasks {
        let bytes = task.0.size;
        match waves.last_mut() {
            Some(wave) if bytes <= bytes_left => wave.push(task),
            _ => {
                waves.push(vec![task]);
                bytes_left = REWRITTEN_BYTES_MAX;
            }
        }
        bytes_left = bytes_left.saturating_sub(bytes);
    }
    waves
}
