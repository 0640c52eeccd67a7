//! Merging: the small files of a partition become few large ones, in order of store and unit, without
//! a change of data.
//!
//! Nothing is believed: on the way in the rows and sums of every unit must be those of its tag; on the
//! way out the written bytes are read again, and every value of every row must have come through. In memory
//! are the file that is being written, a part of each file that is read, and all facts as texts.

mod digest;
mod inputs;
mod plan;
mod source;
mod write;

use std::borrow::Cow;

use futures::{StreamExt, TryStreamExt, stream};

pub use plan::{MergeGroup, MergeOptions, merge_plan};

use crate::dataset::DatasetDefinition;
use crate::delta::log::action::{Action, AddFile};
use crate::delta::log::checkpoint::Wanted;
use crate::delta::log::entry::{CommitDescription, EntryOutcome};
use crate::delta::log::path;
use crate::delta::{CONCURRENCY, StoreFiles, Table};
use crate::error::{Error, Result};
use crate::object::ObjectStore;
use crate::ports::Ports;
pub(in crate::delta) use inputs::{Input, Inputs};
use write::Stop;

/// What the entry of a merge says of itself.
pub(in crate::delta) const OPERATION: &str = "OPTIMIZE";

/// Races lost before a merge leaves the table to its writers.
const ATTEMPTS_MAX: usize = 20;

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
                    (merged.files, merged.units, merged.rows) =
                        (inputs.files.len() as u64, inputs.units(), inputs.rows());
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
    async fn read_inputs<'g>(&self, group: &'g MergeGroup, merged: &mut Merged) -> Result<Inputs<'g>> {
        let read: Vec<Cow<'g, AddFile>> = stream::iter(&group.files)
            .map(async |file| match file.facts_tag() {
                // Those whose facts are in the log need no copy.
                Ok(None) => Ok(Cow::Borrowed(file)),
                _ => self.with_facts(file).await.map(Cow::Owned),
            })
            .buffered(CONCURRENCY)
            .try_collect()
            .await?;
        let mut files = Vec::with_capacity(read.len());
        for file in read {
            match Input::new(file) {
                Ok(input) => files.push(input),
                Err(error) => merged.left_alone.push(error.context(format!("table {}", self.name))),
            }
        }
        Ok(Inputs::new(&group.partition, files))
    }

    /// Commits the merge of `inputs` into `merged` without a change of data. False when a file of
    /// them is no longer in the table: a batch came first, nothing is changed.
    pub(in crate::delta) async fn commit_merge(
        &self,
        ports: Ports<'_, S>,
        inputs: &Inputs<'_>,
        merged: Vec<AddFile>,
    ) -> Result<bool> {
        self.prove_facts(inputs, &merged)?;
        let mut wanted = Wanted::default();
        wanted.add_partition(path::partition_key(inputs.partition));
        let Some(mut snapshot) = self.load_partial().await? else { return Ok(false) };
        self.read_partial(&mut snapshot, &wanted).await?;
        for _ in 0..ATTEMPTS_MAX {
            if !inputs.files.iter().all(|input| snapshot.has(&input.file.path)) {
                return Ok(false);
            }
            let removed_at = snapshot.removal_time(ports.clock.now());
            let removes = inputs
                .files
                .iter()
                .map(|input| Action { remove: Some(input.file.removed(removed_at, false)), ..Action::default() });
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

    /// The facts of the merged files must be exactly those of the inputs, unit by unit in the same order.
    fn prove_facts(&self, inputs: &Inputs<'_>, merged: &[AddFile]) -> Result<()> {
        let (mut wanted, mut same, mut units) = (inputs.tags(), true, 0_u64);
        for file in merged {
            let mut found = file.unit_cursor()?;
            while let Some(tag) = found.next()? {
                units += 1;
                same = same && wanted.next()?.as_ref() == Some(&tag);
            }
        }
        let rows: u64 = merged.iter().filter_map(AddFile::rows).sum();
        if same && units == inputs.units() && rows == inputs.rows() {
            return Ok(());
        }
        Err(Error::data(format!(
            "table {}: merge: the files must hold the facts of {} units and {} rows, got {units} and {rows}",
            self.name,
            inputs.units(),
            inputs.rows()
        )))
    }
}
