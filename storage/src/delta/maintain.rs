//! Keeping a table in shape: compaction, migration, vacuum, cleaning of the log.

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::RecordBatch;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};

use crate::dataset::evolution::{self, Evolution};
use crate::dataset::{DatasetDefinition, PartitionColumn};
use crate::delta::files::rows::{UnitCounter, read, runs};
use crate::delta::log::LogFile;
use crate::delta::log::action::{Action, AddFile};
use crate::delta::log::checkpoint::Parts;
use crate::delta::log::entry::{CommitDescription, EntryOutcome};
use crate::delta::log::snapshot::Snapshot;
use crate::delta::units::column::{UnitColumn, number_of};
use crate::delta::units::tags::UnitTag;
use crate::delta::{CONCURRENCY, LakeWriter, LakeWriterOptions, Table};
use crate::error::{Error, Result};
use crate::ids::Month;
use crate::object::{ObjectMeta, ObjectStore, list_all};
use crate::paths;
use crate::ports::Ports;

/// Removed and orphaned files are kept this long: readers of older versions, time travel and slow
/// commits (see [`crate::delta::READY_AGE_MAX`]) are done by then.
pub const VACUUM_RETENTION: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Log entries are kept this long.
pub const LOG_RETENTION: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Every checkpoint is kept this long, later only the last of each day.
const CHECKPOINTS_WHOLE: SignedDuration = SignedDuration::from_hours(24);

/// Files of a partition that still changes before they are merged.
const HOT_FILES: usize = 8;

/// A file of this size is left alone, and merged files come no larger than about this.
const TARGET_BYTES: u64 = 64 << 20;

/// Above this a file is large enough not to be merged with small ones again and again.
const GROWN_BYTES: u64 = 48 << 20;

/// Races lost before maintenance leaves the table to its writers.
const ATTEMPTS_MAX: usize = 20;

/// Files of one partition to merge.
#[derive(Debug, Clone, PartialEq)]
pub struct CompactionGroup {
    /// For [`Table::put_file`].
    pub partition: Vec<PartitionColumn>,
    pub files: Vec<AddFile>,
    /// The units of all files with their facts, in order: what the merged files must prove.
    pub units: Vec<UnitTag>,
    pub bytes: u64,
    pub rows: u64,
}

/// What to compact: partitions with 8 or more files below 48 MB, or whose month (year) is over
/// and that have more than one. `today` is the business date now.
///
/// # Errors
///
/// `Data` when a file's partition cannot be read.
pub fn compaction_plan(snapshot: &Snapshot, today: Date) -> Result<Vec<CompactionGroup>> {
    let mut groups = Vec::new();
    for (key, files) in snapshot.partitions() {
        let tagged: Result<Vec<(&AddFile, Vec<UnitTag>)>> = files.map(|file| Ok((file, file.units()?))).collect();
        // A partition of which a tag cannot be read, or that has a foreign file, is left alone.
        let mut small = match tagged {
            Ok(tagged) if tagged.iter().all(|(_, units)| !units.is_empty()) => tagged,
            Ok(_) => continue,
            Err(error) => {
                tracing::warn!(partition = key, %error, "not compacted");
                continue;
            }
        };
        small.retain(|(file, _)| file.size < GROWN_BYTES);
        let over = small.first().is_some_and(|(file, _)| is_over(file, today));
        if small.len() >= HOT_FILES || (over && small.len() > 1) {
            small.sort_by_key(|(_, units)| units.first().map(|tag| tag.unit));
            groups.extend(packed(snapshot, small));
        }
    }
    Ok(groups)
}

impl<S: ObjectStore> Table<'_, S> {
    /// Merges a group's files into one, in order of units, proving on the way that the rows and
    /// sums of every unit are those of its tag, and commits it. False when a batch came first.
    ///
    /// # Errors
    ///
    /// `Data` when a file cannot be read or is not what its tags say; `Retry` when the object store does not
    /// answer.
    pub async fn compact(
        &self,
        ports: Ports<'_, S>,
        dataset: &DatasetDefinition,
        group: &CompactionGroup,
    ) -> Result<bool> {
        let schema = dataset.arrow_schema();
        let column = UnitColumn::of(dataset, &schema)?;
        let mut counter = UnitCounter::new(dataset)?;
        let mut writer = LakeWriter::new(dataset, group.units.clone(), LakeWriterOptions::default())?;
        let mut sources = Vec::new();
        for file in &group.files {
            sources.push(Source::open(read(self.read_file(file).await?, &schema)?, column)?);
        }
        // Every unit is in one file, and every file is in order of units: take the lowest next.
        while let Some(source) = sources.iter_mut().filter(|one| one.next.is_some()).min_by_key(|one| one.number()) {
            if let Some((_, rows)) = source.take()? {
                counter.add(&rows)?;
                writer.write(&rows)?;
            }
        }
        let counted = counter.finish()?;
        for tag in &group.units {
            let found = counted.get(&tag.unit).cloned().unwrap_or_default();
            if !found.agrees_with(&tag.facts) {
                let (wanted, unit) = (&tag.facts, tag.unit);
                return Err(Error::data(format!(
                    "table {}: unit {unit}: must be {wanted:?}, got {found:?}",
                    self.name
                )));
            }
        }
        let merged = self.put_files(ports, &group.partition, &writer.finish()?).await?;
        self.commit_compaction(ports, group, merged).await
    }

    /// Commits the merge of `group.files` into `merged` without a change of data. False when a
    /// file of the group is no longer in the table: a batch came first, nothing is changed.
    ///
    /// # Errors
    ///
    /// `Data` when a tag cannot be read; `Retry` when the object store does not answer.
    pub async fn commit_compaction(
        &self,
        ports: Ports<'_, S>,
        group: &CompactionGroup,
        merged: Vec<AddFile>,
    ) -> Result<bool> {
        let mut units = Vec::new();
        for file in &merged {
            units.extend(file.units()?);
        }
        let rows: u64 = merged.iter().filter_map(AddFile::rows).sum();
        units.sort_by_key(|tag| tag.unit);
        if units != group.units || rows != group.rows {
            return Err(Error::data(format!(
                "table {}: compaction: merged files must hold the {} units and {} rows of the group, got {} and {rows}",
                self.name,
                group.units.len(),
                group.rows,
                units.len()
            )));
        }
        let Some(mut snapshot) = self.load().await? else { return Ok(false) };
        for _ in 0..ATTEMPTS_MAX {
            let stands = |file: &AddFile| snapshot.files().any(|active| active.path == file.path);
            if !group.files.iter().all(stands) {
                return Ok(false);
            }
            let removed_at = snapshot.removal_time(ports.clock.now());
            let removes = group
                .files
                .iter()
                .map(|file| Action { remove: Some(file.removed(removed_at, false)), ..Action::default() });
            let adds = merged
                .iter()
                .cloned()
                .map(|add| Action { add: Some(AddFile { data_change: false, ..add }), ..Action::default() });
            let actions: Vec<Action> = snapshot.protocol.upgrade().into_iter().chain(removes).chain(adds).collect();
            let version = snapshot.version() + 1;
            match self.put_entry(ports, version, CommitDescription::new("OPTIMIZE"), actions).await? {
                EntryOutcome::Won => return Ok(true),
                EntryOutcome::Lost(_) => drop(self.refresh(&mut snapshot).await?),
            }
        }
        Err(Error::retry(format!("table {}: lost {ATTEMPTS_MAX} races for a version", self.name)))
    }

    /// Makes the table's schema that of `dataset`, writing files of narrower types again where
    /// independent readers ask for it. True when anything was changed.
    ///
    /// # Errors
    ///
    /// `Config` when the table cannot take files of `dataset`; `Retry` when the object store does not answer.
    pub async fn migrate(&self, ports: Ports<'_, S>, dataset: &DatasetDefinition) -> Result<bool> {
        let Some(mut snapshot) = self.load().await? else { return Ok(false) };
        let mut rewritten: BTreeMap<String, Vec<AddFile>> = BTreeMap::new();
        for _ in 0..ATTEMPTS_MAX {
            let standing = snapshot.metadata();
            let evolution = evolution::of_table(&standing.schema_string, &standing.partition_columns, dataset)?;
            if evolution == Evolution::None {
                return Ok(false);
            }
            snapshot.check_writable()?;
            let mut actions: Vec<Action> = snapshot.protocol.upgrade().into_iter().collect();
            actions.push(Action { meta_data: Some(standing.evolved_to(dataset)?), ..Action::default() });
            if evolution == Evolution::Rewrite {
                self.rewrite_all(ports, dataset, &snapshot, &mut rewritten).await?;
                for file in snapshot.files() {
                    let remove = file.removed(snapshot.removal_time(ports.clock.now()), false);
                    actions.push(Action { remove: Some(remove), ..Action::default() });
                    for add in rewritten.get(&file.path).into_iter().flatten() {
                        let add = AddFile { data_change: false, ..add.clone() };
                        actions.push(Action { add: Some(add), ..Action::default() });
                    }
                }
            }
            let version = snapshot.version() + 1;
            match self.put_entry(ports, version, CommitDescription::new("CHANGE COLUMNS"), actions).await? {
                EntryOutcome::Won => return Ok(true),
                // Files written again for this attempt serve the next one.
                EntryOutcome::Lost(_) => drop(self.refresh(&mut snapshot).await?),
            }
        }
        Err(Error::retry(format!("table {}: lost {ATTEMPTS_MAX} races for a version", self.name)))
    }

    /// Objects under the table's folder that no reader, commit or time travel within `retention`
    /// can need: neither in the table, nor removed since, nor named by a ready record, nor
    /// written since. `now` is by the object store's own clock (see
    /// [`crate::object::object_store_now`]). Open manifests name files in `landing/` only, which this
    /// never touches. Delete them with [`Self::delete_objects`].
    ///
    /// # Errors
    ///
    /// `Retry` when the object store does not answer; `Data` when the log cannot be read.
    pub async fn vacuum_plan(&self, now: Timestamp, retention: SignedDuration) -> Result<Vec<ObjectMeta>> {
        // Listing first: whatever is committed or made ready after it was written before.
        let root = format!("{}/", paths::table_root(&self.name));
        let listed = list_all(self.objects, &root, None).await?;
        let mut named = self.files_of_ready_records().await?;
        let Some(snapshot) = self.load_latest(Parts::All).await? else { return Ok(Vec::new()) };
        let horizon = now.checked_sub(retention).map_err(|error| Error::bug("horizon").with_source(error))?;
        for file in snapshot.files() {
            named.insert(file.object_path(&self.name)?.to_string());
        }
        let needed = |at: Option<i64>| at.is_none_or(|at| at >= horizon.as_millisecond());
        for remove in snapshot.tombstones.values().filter(|remove| needed(remove.deletion_timestamp)) {
            named.insert(crate::delta::log::path::object_path(&self.name, &remove.path)?.to_string());
        }
        let log = self.log_folder();
        Ok(listed
            .into_iter()
            .filter(|meta| !meta.path.as_str().starts_with(&log) && !is_hidden(&root, meta))
            .filter(|meta| meta.modified < horizon && !named.contains(meta.path.as_str()))
            .collect())
    }

    /// Log entries and checkpoints before a checkpoint that is older than [`LOG_RETENTION`], and
    /// checkpoints older than a day that are not the last of their day. `now` as in
    /// [`Self::vacuum_plan`].
    ///
    /// # Errors
    ///
    /// `Retry` when the object store does not answer.
    pub async fn log_cleanup_plan(&self, now: Timestamp) -> Result<Vec<ObjectMeta>> {
        let listed = list_all(self.objects, &self.log_folder(), None).await?;
        let before =
            |age: SignedDuration| now.checked_sub(age).map_err(|error| Error::bug("horizon").with_source(error));
        let (log_horizon, whole_horizon) = (before(LOG_RETENTION)?, before(CHECKPOINTS_WHOLE)?);
        let checkpoints: Vec<(u64, &ObjectMeta)> = listed
            .iter()
            .filter_map(|meta| match LogFile::of(&meta.path)? {
                LogFile::Checkpoint(version) => Some((version, meta)),
                _ => None,
            })
            .collect();
        let oldest_kept = checkpoints.iter().filter(|(_, meta)| meta.modified < log_horizon).map(|(v, _)| *v).max();
        let day = |meta: &ObjectMeta| meta.modified.as_second().div_euclid(86_400);
        let thinned: BTreeSet<u64> = checkpoints
            .windows(2)
            .filter(|pair| pair[0].1.modified < whole_horizon && day(pair[0].1) == day(pair[1].1))
            .map(|pair| pair[0].0)
            .collect();
        let useless = |meta: &ObjectMeta| match LogFile::of(&meta.path) {
            Some(LogFile::Checkpoint(version)) => {
                oldest_kept.is_some_and(|kept| version < kept)
                    || (thinned.contains(&version) && Some(version) != oldest_kept)
            }
            Some(file) => oldest_kept.is_some_and(|kept| file.version() < kept),
            None => false,
        };
        Ok(listed.iter().filter(|meta| useless(meta)).cloned().collect())
    }

    /// Deletes what a plan names, oldest versions first.
    ///
    /// # Errors
    ///
    /// `Retry` when the object store does not answer: what was deleted before stays so.
    pub async fn delete_objects(&self, plan: &[ObjectMeta]) -> Result<()> {
        stream::iter(plan)
            .map(|meta| self.objects.delete(&meta.path))
            .buffered(CONCURRENCY)
            .try_collect::<Vec<()>>()
            .await
            .map(drop)
    }

    async fn files_of_ready_records(&self) -> Result<BTreeSet<String>> {
        let mut named = BTreeSet::new();
        for (batch, read) in self.read_all_records().await? {
            // Of a record that cannot be read nobody knows what it names: better nothing is taken.
            for file in read.map_err(|error| error.context(&batch))?.into_iter().flat_map(|record| record.files) {
                named.insert(file.object_path(&self.name)?.to_string());
            }
        }
        Ok(named)
    }

    async fn rewrite_all(
        &self,
        ports: Ports<'_, S>,
        dataset: &DatasetDefinition,
        snapshot: &Snapshot,
        rewritten: &mut BTreeMap<String, Vec<AddFile>>,
    ) -> Result<()> {
        for file in snapshot.files() {
            if !rewritten.contains_key(&file.path) {
                let files = self.rewrite(ports, dataset, file, file.units()?).await?;
                rewritten.insert(file.path.clone(), files);
            }
        }
        Ok(())
    }
}

/// Other programs keep things of their own beside the data, in folders and files whose names begin
/// with `_` or `.`.
fn is_hidden(root: &str, meta: &ObjectMeta) -> bool {
    let relative = meta.path.as_str().strip_prefix(root).unwrap_or_default();
    relative.split('/').any(|part| part.starts_with(['_', '.']))
}

/// A file being merged: its next run of rows of one unit.
struct Source<I> {
    batches: I,
    column: UnitColumn,
    queue: std::collections::VecDeque<(i64, RecordBatch)>,
    next: Option<(i64, RecordBatch)>,
}

impl<I: Iterator<Item = Result<RecordBatch>>> Source<I> {
    fn open(batches: I, column: UnitColumn) -> Result<Self> {
        let mut source = Self { batches, column, queue: std::collections::VecDeque::new(), next: None };
        source.advance()?;
        Ok(source)
    }

    fn number(&self) -> Option<i64> {
        self.next.as_ref().map(|(number, _)| *number)
    }

    fn take(&mut self) -> Result<Option<(i64, RecordBatch)>> {
        let taken = self.next.take();
        self.advance()?;
        Ok(taken)
    }

    fn advance(&mut self) -> Result<()> {
        while self.queue.is_empty() {
            let Some(batch) = self.batches.next() else { return Ok(()) };
            let batch = batch?;
            for (number, run) in runs(&self.column.numbers(&batch)?) {
                self.queue.push_back((number, batch.slice(run.start, run.len())));
            }
        }
        self.next = self.queue.pop_front();
        Ok(())
    }
}

/// Groups of about [`TARGET_BYTES`], of two files at least.
fn packed(snapshot: &Snapshot, files: Vec<(&AddFile, Vec<UnitTag>)>) -> Vec<CompactionGroup> {
    let mut groups: Vec<Vec<(&AddFile, Vec<UnitTag>)>> = vec![Vec::new()];
    let mut bytes = 0;
    for file in files {
        if bytes + file.0.size > TARGET_BYTES {
            groups.push(Vec::new());
            bytes = 0;
        }
        bytes += file.0.size;
        if let Some(group) = groups.last_mut() {
            group.push(file);
        }
    }
    groups.into_iter().filter(|group| group.len() > 1).map(|group| group_of(snapshot, group)).collect()
}

fn group_of(snapshot: &Snapshot, files: Vec<(&AddFile, Vec<UnitTag>)>) -> CompactionGroup {
    let value = |column: &String| {
        let of = files.first().and_then(|(file, _)| file.partition_values.get(column).cloned().flatten());
        (column.clone(), of.unwrap_or_default())
    };
    let partition = snapshot.metadata().partition_columns.iter().map(value).collect();
    let bytes = files.iter().map(|(file, _)| file.size).sum();
    let mut units: Vec<UnitTag> = files.iter().flat_map(|(_, units)| units.clone()).collect();
    units.sort_by_key(|tag| number_of(tag.unit));
    let rows = units.iter().map(|tag| tag.facts.rows).sum();
    CompactionGroup { partition, files: files.into_iter().map(|(file, _)| file.clone()).collect(), units, bytes, rows }
}

/// Whether the month or year of a file's partition has passed.
fn is_over(file: &AddFile, today: Date) -> bool {
    let value = |column: &str| file.partition_values.get(column).and_then(Option::as_deref);
    match (value("month"), value("year")) {
        (Some(month), _) => month.parse::<Month>().is_ok_and(|month| month.last_day() < today),
        (_, Some(year)) => year.parse::<i16>().is_ok_and(|year| year < today.year()),
        _ => false,
    }
}
