//! Merging: the small files of a partition become few large ones, in order of store and unit, without
//! a change of data.
//!
//! Nothing is believed: on the way in the rows and sums of every unit must be those of its tag; on the
//! way out the written bytes are read again, and every value of every unit must have come through.

mod digest;
mod plan;
mod source;

use std::collections::{BTreeSet, VecDeque};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use arrow_select::concat::concat_batches;
use futures::{StreamExt, TryStreamExt, stream};

pub use plan::{MergeGroup, MergeOptions, merge_plan};

use crate::dataset::{DatasetDefinition, PartitionColumn};
use crate::delta::files::rows::{UnitCounter, read};
use crate::delta::log::action::{Action, AddFile};
use crate::delta::log::checkpoint::Wanted;
use crate::delta::log::entry::{CommitDescription, EntryOutcome};
use crate::delta::log::path;
use crate::delta::units::column::{UnitColumn, number_of};
use crate::delta::units::tags::UnitTag;
use crate::delta::{CONCURRENCY, LakeFile, LakeWriter, LakeWriterOptions, StoreFiles, Table};
use crate::error::{Error, Result};
use crate::ids::StoreUnit;
use crate::object::ObjectStore;
use crate::ports::Ports;
use digest::Digester;
use source::{Key, Source};

/// What the entry of a merge says of itself.
pub(in crate::delta) const OPERATION: &str = "OPTIMIZE";

/// Races lost before a merge leaves the table to its writers.
const ATTEMPTS_MAX: usize = 20;

/// Rows that are written at once: writing each small run by itself would cost more than its rows.
const ROWS_AT_ONCE: usize = 8192;

/// What became of a merge.
#[derive(Debug, Default)]
pub struct Merged {
    /// False when a batch came first, or too few files were left: nothing is changed.
    pub committed: bool,
    /// Files merged and what they hold.
    pub files: u64,
    pub units: u64,
    pub rows: u64,
    /// Files that are not what the log says, and why: they were left alone, the others merged.
    pub left_alone: Vec<Error>,
}

/// What a merge is made of.
#[derive(Debug)]
pub(in crate::delta) struct Inputs {
    pub partition: Vec<PartitionColumn>,
    /// With all of their facts.
    pub files: Vec<AddFile>,
    /// The units of all files, in order of store and unit: what the merged files must prove.
    pub units: Vec<UnitTag>,
}

impl Inputs {
    /// The first unit that each file can have rows of and the file's place, lowest first.
    fn in_order(&self) -> Result<VecDeque<(Key, usize)>> {
        let mut order = Vec::with_capacity(self.files.len());
        for (index, file) in self.files.iter().enumerate() {
            if let Some((first, _)) = file.unit_positions()?.first() {
                order.push(((first.store.to_string(), number_of(first.unit)), index));
            }
        }
        order.sort();
        Ok(order.into())
    }

    fn rows(&self) -> u64 {
        self.units.iter().map(|tag| tag.facts.rows).sum()
    }

    fn leave_out(&mut self, path: &str) {
        let out = self.files.iter().filter(|file| file.path == path);
        let gone: BTreeSet<StoreUnit> =
            out.flat_map(|file| file.unit_positions().unwrap_or_default()).map(|(key, _)| key).collect();
        self.files.retain(|file| file.path != path);
        self.units.retain(|tag| !gone.contains(&tag.key()));
    }
}

/// Why a merge stopped.
enum Stop {
    /// This file is not what the log says.
    File(String, Error),
    Other(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl<S: ObjectStore> Table<'_, S> {
    /// Merges a group's files and commits it. A file that is not what the log says is left alone.
    ///
    /// # Errors
    ///
    /// `Retry` when the object store does not answer; `Data` when the log cannot be read.
    pub async fn merge(&self, ports: Ports<'_, S>, dataset: &DatasetDefinition, group: &MergeGroup) -> Result<Merged> {
        let mut merged = Merged::default();
        let mut inputs = self.read_inputs(group, &mut merged).await?;
        while inputs.files.len() > 1 {
            match self.write_merged(ports, dataset, &inputs).await {
                Ok(files) => {
                    (merged.files, merged.units) = (inputs.files.len() as u64, inputs.units.len() as u64);
                    merged.rows = inputs.rows();
                    merged.committed = self.commit_merge(ports, &inputs, files).await?;
                    break;
                }
                Err(Stop::File(path, error)) if !error.is_retry() => {
                    merged.left_alone.push(error.context(format!("table {}: {path}", self.name)));
                    inputs.leave_out(&path);
                }
                Err(Stop::File(_, error) | Stop::Other(error)) => return Err(error),
            }
        }
        Ok(merged)
    }

    /// The files of a group with all of their facts; those that cannot be read are left alone.
    async fn read_inputs(&self, group: &MergeGroup, merged: &mut Merged) -> Result<Inputs> {
        let read: Vec<AddFile> =
            stream::iter(&group.files).map(|file| self.with_facts(file)).buffered(CONCURRENCY).try_collect().await?;
        let mut inputs = Inputs { partition: group.partition.clone(), files: Vec::new(), units: Vec::new() };
        for file in read {
            match file.units() {
                Ok(units) => {
                    inputs.units.extend(units);
                    inputs.files.push(file);
                }
                Err(error) => merged.left_alone.push(error.context(format!("table {}", self.name))),
            }
        }
        inputs.units.sort_by_key(UnitTag::key);
        Ok(inputs)
    }

    /// Commits the merge of `inputs` into `merged` without a change of data. False when a file of
    /// them is no longer in the table: a batch came first, nothing is changed.
    pub(in crate::delta) async fn commit_merge(
        &self,
        ports: Ports<'_, S>,
        inputs: &Inputs,
        merged: Vec<AddFile>,
    ) -> Result<bool> {
        let mut units = Vec::new();
        for file in &merged {
            units.extend(file.units()?);
        }
        let rows: u64 = merged.iter().filter_map(AddFile::rows).sum();
        let wanted = inputs.rows();
        units.sort_by_key(UnitTag::key);
        if units != inputs.units || rows != wanted {
            return Err(Error::data(format!(
                "table {}: merge: the files must hold {} units and {wanted} rows, got {} and {rows}",
                self.name,
                inputs.units.len(),
                units.len()
            )));
        }
        let mut wanted = Wanted::default();
        wanted.add_partition(path::partition_key(&inputs.partition));
        let Some(mut snapshot) = self.load_partial().await? else { return Ok(false) };
        self.read_partial(&mut snapshot, &wanted).await?;
        for _ in 0..ATTEMPTS_MAX {
            if !inputs.files.iter().all(|file| snapshot.has(&file.path)) {
                return Ok(false);
            }
            let removed_at = snapshot.removal_time(ports.clock.now());
            let removes = inputs
                .files
                .iter()
                .map(|file| Action { remove: Some(file.removed(removed_at, false)), ..Action::default() });
            let adds = merged
                .iter()
                .cloned()
                .map(|add| Action { add: Some(AddFile { data_change: false, ..add }), ..Action::default() });
            let actions: Vec<Action> = snapshot.protocol().upgrade().into_iter().chain(removes).chain(adds).collect();
            let version = snapshot.version() + 1;
            match self.put_entry(ports, version, CommitDescription::new(OPERATION), actions).await? {
                EntryOutcome::Won => return Ok(true),
                EntryOutcome::Lost(_) => self.refresh_partial(&mut snapshot).await?,
            }
        }
        Err(Error::retry(format!("table {}: lost {ATTEMPTS_MAX} races for a version", self.name)))
    }

    /// Writes the merged files and proves them.
    async fn write_merged(
        &self,
        ports: Ports<'_, S>,
        dataset: &DatasetDefinition,
        group: &Inputs,
    ) -> Result<Vec<AddFile>, Stop> {
        let schema = dataset.lake_schema();
        let mut merging = Merging::new(dataset, group, &schema, self.bounds.writer)?;
        let mut waiting = group.in_order()?;
        let mut open: Vec<Source<_>> = Vec::new();
        let mut merged = Vec::new();
        loop {
            // A file is opened once its turn comes: few overlap.
            while let Some((first, index)) = waiting.front() {
                if open.iter().filter_map(Source::key).min().is_some_and(|lowest| lowest < first) {
                    break;
                }
                let (index, file) = (*index, &group.files[*index]);
                waiting.pop_front();
                let named = |error| Stop::File(file.path.clone(), error);
                let batches = read(self.read_file(file).await.map_err(named)?, &schema).map_err(named)?;
                open.push(Source::open(index, batches, merging.column).map_err(named)?);
            }
            open.retain(|source| source.key().is_some());
            let Some(source) = open.iter_mut().min_by(|left, right| left.key().cmp(&right.key())) else { break };
            let file = &group.files[source.index];
            if let Some(rows) = source.take().map_err(|error| Stop::File(file.path.clone(), error))? {
                merging.add(rows)?;
            }
            for file in merging.finished()? {
                merged.push(self.put_file(ports, &group.partition, &file).await?);
            }
        }
        for file in merging.finish(group)? {
            merged.push(self.put_file(ports, &group.partition, &file).await?);
        }
        Ok(merged)
    }
}

/// The rows of a merge on their way, counted where they come in and where they have gone out.
struct Merging<'a> {
    schema: &'a SchemaRef,
    column: UnitColumn,
    writer: LakeWriter,
    /// Rows that are not written yet, and how many.
    pending: (Vec<RecordBatch>, usize),
    counter: UnitCounter,
    came_in: Digester,
    went_out: Digester,
}

impl<'a> Merging<'a> {
    fn new(
        dataset: &DatasetDefinition,
        group: &Inputs,
        schema: &'a SchemaRef,
        options: LakeWriterOptions,
    ) -> Result<Self> {
        Ok(Self {
            schema,
            column: UnitColumn::of(dataset, schema)?,
            writer: LakeWriter::new(dataset, group.units.clone(), options)?,
            pending: (Vec::new(), 0),
            counter: UnitCounter::new(dataset)?,
            came_in: Digester::new(dataset, schema)?,
            went_out: Digester::new(dataset, schema)?,
        })
    }

    fn add(&mut self, rows: RecordBatch) -> Result<()> {
        self.pending.1 += rows.num_rows();
        self.pending.0.push(rows);
        if self.pending.1 >= ROWS_AT_ONCE { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<()> {
        let (batches, _) = std::mem::take(&mut self.pending);
        let rows = concat_batches(self.schema, &batches)
            .map_err(|error| Error::bug("rows cannot be joined").with_source(error))?;
        self.counter.add(&rows)?;
        self.came_in.add(&rows)?;
        self.writer.write(&rows)
    }

    /// The files that are whole by now, read again.
    fn finished(&mut self) -> Result<Vec<LakeFile>> {
        let files = self.writer.take_done();
        read_back(&files, self.schema, &mut self.went_out)?;
        Ok(files)
    }

    /// The last files, if all of them together hold what came in, and what came in is what the tags say.
    fn finish(mut self, group: &Inputs) -> Result<Vec<LakeFile>, Stop> {
        self.write()?;
        let Self { schema, writer, counter, came_in, mut went_out, .. } = self;
        let counted = counter.finish()?;
        for tag in &group.units {
            let found = counted.get(&tag.key()).cloned().unwrap_or_default();
            if !found.agrees_with(&tag.facts) {
                let error = Error::data(format!("unit {}: must be {:?}, got {found:?}", tag.key(), tag.facts));
                return Err(Stop::File(holder(group, tag), error));
            }
        }
        let files = writer.finish()?;
        read_back(&files, schema, &mut went_out)?;
        if came_in.finish() != went_out.finish() {
            return Err(Error::bug("merge: the written files do not hold the rows that were read").into());
        }
        Ok(files)
    }
}

fn read_back(files: &[LakeFile], schema: &SchemaRef, went_out: &mut Digester) -> Result<()> {
    for file in files {
        for batch in read(file.bytes.clone(), schema)? {
            went_out.add(&batch?)?;
        }
    }
    Ok(())
}

/// The file of a group that holds a unit.
fn holder(group: &Inputs, tag: &UnitTag) -> String {
    let holds = |file: &&AddFile| {
        file.unit_positions_of(&tag.store).is_ok_and(|units| units.iter().any(|(unit, _)| *unit == tag.unit))
    };
    group.files.iter().find(holds).map(|file| file.path.clone()).unwrap_or_default()
}
