//! Maintenance of the lake: merging, checkpoints, vacuum. `ribera maintain` and the schedule of
//! `ribera up` call it.

use jiff::SignedDuration;
use jiff::tz::TimeZone;
use ribera_storage::dataset::DatasetDefinition;
use ribera_storage::delta::{MergeOptions, Snapshot, Table, VACUUM_RETENTION, merge_plan};
use ribera_storage::object::{FolderStore, object_store_now};
use ribera_storage::ports::{Clock, Random};
use ribera_storage::{DatasetName, Error, ErrorKind, Result, ledger, retention};
use serde::Serialize;

use crate::lake::Lake;
use crate::ports::{SystemClock, SystemRandom};

/// Places of runs older than this leave the index of last runs; the records stay.
const RUNS_KEPT: SignedDuration = SignedDuration::from_hours(400 * 24);

/// What was done to a table, or with a dry run would be.
#[derive(Debug, Clone, Serialize)]
pub struct TableMaintenance {
    pub table: DatasetName,
    /// Columns were widened or added.
    pub migrated: bool,
    /// Groups of files merged.
    pub groups: u64,
    /// Groups that a batch changed meanwhile: left for the next time.
    pub groups_overtaken: u64,
    pub files_before: u64,
    pub files_after: u64,
    pub rows_merged: u64,
    /// Store-days whose rows and sums were proved.
    pub units_proved: u64,
    /// Why files were left alone: they are not what the log says.
    pub failures: Vec<String>,
    /// The version that a checkpoint was written for.
    pub checkpoint: Option<u64>,
    pub files_deleted: u64,
    pub bytes_deleted: u64,
}

impl TableMaintenance {
    /// Nothing is done yet.
    fn of(table: DatasetName) -> Self {
        Self {
            table,
            migrated: false,
            groups: 0,
            groups_overtaken: 0,
            files_before: 0,
            files_after: 0,
            rows_merged: 0,
            units_proved: 0,
            failures: Vec::new(),
            checkpoint: None,
            files_deleted: 0,
            bytes_deleted: 0,
        }
    }
}

/// Maintains every table of `lake`, one dataset after another. `progress` hears the table, the
/// groups done and all groups.
pub async fn maintain(
    lake: &Lake,
    dry_run: bool,
    mut progress: impl FnMut(&DatasetName, u64, u64),
) -> Result<Vec<TableMaintenance>> {
    let mut all = Vec::new();
    for dataset in &lake.datasets {
        let mut done = TableMaintenance::of(dataset.name.clone());
        match maintain_table(lake, dataset, dry_run, &mut done, &mut progress).await {
            Ok(true) => all.push(done),
            Ok(false) => {}
            // What one table holds does not keep the next one from its turn.
            Err(error) if error.kind() == ErrorKind::Data => {
                done.failures.push(failure(error));
                all.push(done);
            }
            Err(error) => return Err(error),
        }
    }
    if !dry_run {
        let horizon =
            SystemClock.now().checked_sub(RUNS_KEPT).map_err(|error| Error::bug("horizon").with_source(error))?;
        ledger::prune_runs(&lake.objects, horizon).await?;
        let now = object_store_now(&lake.objects, &SystemRandom.fresh_name()).await?;
        retention::delete(&lake.objects, &retention::plan(&lake.objects, now).await?).await?;
    }
    Ok(all)
}

/// False when the table was never written.
async fn maintain_table(
    lake: &Lake,
    dataset: &DatasetDefinition,
    dry_run: bool,
    done: &mut TableMaintenance,
    progress: &mut impl FnMut(&DatasetName, u64, u64),
) -> Result<bool> {
    let table = lake.table(&done.table);
    let Some(mut snapshot) = table.load().await? else { return Ok(false) };
    done.files_before = snapshot.file_count() as u64;
    if !dry_run && table.migrate(lake.ports(), dataset).await? {
        done.migrated = true;
        table.refresh(&mut snapshot).await?;
    }
    done.files_after = done.files_before;
    merge_all(lake, &table, dataset, &snapshot, dry_run, done, progress).await?;
    if !dry_run {
        table.refresh(&mut snapshot).await?;
        done.files_after = snapshot.file_count() as u64;
        done.checkpoint = table.checkpoint(lake.ports()).await?;
    }
    let now = object_store_now(&lake.objects, &SystemRandom.fresh_name()).await?;
    for plan in [table.vacuum_plan(now, VACUUM_RETENTION).await?, table.log_cleanup_plan(now).await?] {
        done.files_deleted += plan.len() as u64;
        done.bytes_deleted += plan.iter().map(|meta| meta.bytes).sum::<u64>();
        if !dry_run {
            table.delete_objects(&plan).await?;
        }
    }
    Ok(true)
}

/// Merges the small files of each partition. A file that is not what the log says is left alone, and no
/// other.
async fn merge_all(
    lake: &Lake,
    table: &Table<'_, FolderStore>,
    dataset: &DatasetDefinition,
    snapshot: &Snapshot,
    dry_run: bool,
    done: &mut TableMaintenance,
    progress: &mut impl FnMut(&DatasetName, u64, u64),
) -> Result<()> {
    let today = SystemClock.now().to_zoned(TimeZone::UTC).date();
    let groups = merge_plan(snapshot, today, &MergeOptions::default());
    for (index, group) in groups.iter().enumerate() {
        if dry_run {
            take(done, group.files.len() as u64, group.units, group.rows);
        } else {
            match table.merge(lake.ports(), dataset, group).await {
                Ok(merged) => {
                    done.failures.extend(merged.left_alone.into_iter().map(failure));
                    match merged.committed {
                        true => take(done, merged.files, merged.units, merged.rows),
                        false => done.groups_overtaken += 1,
                    }
                }
                Err(error) if error.is_retry() => return Err(error),
                Err(error) => done.failures.push(failure(error)),
            }
        }
        progress(table.name(), index as u64 + 1, groups.len() as u64);
    }
    for failure in &done.failures {
        tracing::warn!(table = %table.name(), %failure, "a file was left alone");
    }
    Ok(())
}

fn take(done: &mut TableMaintenance, files: u64, units: u64, rows: u64) {
    done.groups += 1;
    done.files_after = done.files_after.saturating_sub(files.saturating_sub(1));
    done.rows_merged += rows;
    done.units_proved += units;
}

/// What an operator reads about a failure, with the command that says more.
fn failure(error: Error) -> String {
    let error = if error.hint().is_none() { error.with_hint("ribera verify") } else { error };
    error.to_string()
}
