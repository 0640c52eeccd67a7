//! Maintenance of the lake: compaction proved by DuckDB, checkpoints, vacuum. What `ribera
//! maintain` and the schedule of `ribera up` call.

use std::path::Path;

use jiff::SignedDuration;
use jiff::tz::TimeZone;
use ribera_storage::dataset::DatasetDefinition;
use ribera_storage::delta::{CompactionGroup, Snapshot, Table, VACUUM_RETENTION, compaction_plan};
use ribera_storage::engine::{Engine, merge};
use ribera_storage::object::{FolderStore, store_now};
use ribera_storage::ports::{Clock, Random};
use ribera_storage::{Error, Result, TableName, ledger};
use serde::Serialize;

use crate::lake::Lake;
use crate::ports::{SystemClock, SystemRandom};

/// Places of runs older than this leave the index of last runs; the records stay.
const RUNS_KEPT: SignedDuration = SignedDuration::from_hours(400 * 24);

/// What was done to a table, or with a dry run would be.
#[derive(Debug, Clone, Serialize)]
pub struct TableMaintenance {
    pub table: TableName,
    /// Columns were widened or added.
    pub migrated: bool,
    /// Groups of files merged.
    pub groups: u64,
    /// Groups that a batch changed meanwhile: left for the next time.
    pub groups_overtaken: u64,
    pub files_before: u64,
    pub files_after: u64,
    pub rows_merged: u64,
    /// Store-days whose rows, sums and values were proved.
    pub units_proved: u64,
    /// The version a checkpoint was written of.
    pub checkpoint: Option<u64>,
    pub files_deleted: u64,
    pub bytes_deleted: u64,
}

/// Maintains every table of `lake`, one dataset after another. `progress` hears the table, the
/// groups done and all groups.
pub async fn maintain(
    lake: &Lake,
    dry_run: bool,
    mut progress: impl FnMut(&TableName, u64, u64),
) -> Result<Vec<TableMaintenance>> {
    let mut all = Vec::new();
    for dataset in &lake.datasets {
        for name in lake.settings.tables(&dataset.name)? {
            let table = lake.table(&name);
            if let Some(snapshot) = table.load().await? {
                all.push(maintain_table(lake, &table, dataset, snapshot, dry_run, &mut progress).await?);
            }
        }
    }
    if !dry_run {
        let horizon =
            SystemClock.now().checked_sub(RUNS_KEPT).map_err(|error| Error::bug("horizon").with_source(error))?;
        ledger::prune_runs(&lake.objects, horizon).await?;
    }
    Ok(all)
}

async fn maintain_table(
    lake: &Lake,
    table: &Table<'_, FolderStore>,
    dataset: &DatasetDefinition,
    mut snapshot: Snapshot,
    dry_run: bool,
    progress: &mut impl FnMut(&TableName, u64, u64),
) -> Result<TableMaintenance> {
    let mut done = TableMaintenance {
        table: table.name().clone(),
        migrated: false,
        groups: 0,
        groups_overtaken: 0,
        files_before: snapshot.file_count() as u64,
        files_after: 0,
        rows_merged: 0,
        units_proved: 0,
        checkpoint: None,
        files_deleted: 0,
        bytes_deleted: 0,
    };
    if !dry_run && table.migrate(lake.ports(), dataset).await? {
        done.migrated = true;
        table.refresh(&mut snapshot).await?;
    }
    let today = SystemClock.now().to_zoned(TimeZone::UTC).date();
    let groups = compaction_plan(&snapshot, today)?;
    let scratch = Scratch::new()?;
    for (index, group) in groups.iter().enumerate() {
        let merged = dry_run || compact(lake, table, dataset, &snapshot, group, &scratch.0).await?;
        if merged {
            done.groups += 1;
            done.rows_merged += group.rows;
            done.units_proved += group.units.len() as u64;
        } else {
            done.groups_overtaken += 1;
        }
        progress(table.name(), index as u64 + 1, groups.len() as u64);
    }
    if dry_run {
        let merged: u64 = groups.iter().map(|group| group.files.len() as u64 - 1).sum();
        done.files_after = done.files_before.saturating_sub(merged);
    } else {
        table.refresh(&mut snapshot).await?;
        done.files_after = snapshot.file_count() as u64;
        done.checkpoint = table.checkpoint(lake.ports()).await?;
    }
    let now = store_now(&lake.objects, &SystemRandom.fresh_name()).await?;
    for plan in [table.vacuum_plan(now, VACUUM_RETENTION).await?, table.log_cleanup_plan(now).await?] {
        done.files_deleted += plan.len() as u64;
        done.bytes_deleted += plan.iter().map(|meta| meta.bytes).sum::<u64>();
        if !dry_run {
            table.delete_objects(&plan).await?;
        }
    }
    Ok(done)
}

/// False when a batch came first.
async fn compact(
    lake: &Lake,
    table: &Table<'_, FolderStore>,
    dataset: &DatasetDefinition,
    snapshot: &Snapshot,
    group: &CompactionGroup,
    scratch: &Path,
) -> Result<bool> {
    let folder = scratch.join(SystemRandom.fresh_name());
    std::fs::create_dir_all(&folder)?;
    let mut options = lake.engine_options()?;
    options.folders.push(folder.clone());
    let merged = {
        let engine = Engine::open(&options)?;
        merge(&engine, snapshot, dataset, group, &lake.root()?, &folder)
    };
    std::fs::remove_dir_all(&folder)?;
    let mut files = Vec::new();
    for file in merged? {
        files.push(table.put_file(lake.ports(), &group.partition, &file).await?);
    }
    table.commit_compaction(lake.ports(), group, files).await
}

/// A folder of this process that goes when it is dropped.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("ribera-maintain-{}", SystemRandom.fresh_name()));
        std::fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left in a temporary folder does no harm.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
