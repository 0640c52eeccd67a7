//! A late correction of one day of one store in a file that `maintain` has merged: what it costs, in a
//! process that does nothing else.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use bytes::Bytes;
use jiff::civil::{Date, date};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::ParquetMetaDataReader;
use ribera_storage::dataset::DatasetDefinition;
use ribera_storage::delta::action::{self, Action};
use ribera_storage::delta::{BatchOutcome, LakeFile, LakeWriter, LakeWriterOptions, ReadyRecord, Table, UnitTag};
use ribera_storage::ids::{Month, Position};
use ribera_storage::object::{FolderStore, ObjectStore};
use ribera_storage::ports::{Host, Random};
use ribera_storage::{Error, Result, paths};
use serde_json::{Value, json};

use crate::counting::CountingStore;
use crate::generate::{self, Generated, Plan};
use crate::options::Options;
use crate::ports::{SplitMix, WallClock};

/// Rows given to the writer at once, as a merge does.
const ROWS_AT_ONCE: usize = 8192;
const DAYS: u64 = 31;

/// `--rows=9000000 --stores=300`: builds the file, then corrects it in a process of its own.
/// `--folder=F` corrects what lies there: `--store=57 --day=9`; `--whole=true` without copying row groups.
pub fn measure(options: &Options) -> Result<Value> {
    let folder: String = options.get("folder", String::new())?;
    if !folder.is_empty() {
        return correct(options, Path::new(&folder));
    }
    let folder = std::env::temp_dir().join(format!("ribera-bench-{}", SplitMix::fresh().fresh_name()));
    let found = build(options, &folder).and_then(|()| in_another_process(options, &folder));
    if !options.get("keep", false)? {
        fs::remove_dir_all(&folder)?;
    }
    found
}

fn in_another_process(options: &Options, folder: &Path) -> Result<Value> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("correction").arg(format!("--folder={}", folder.display()));
    command.arg(format!("--whole={}", options.get("whole", false)?));
    let output = command.stderr(std::process::Stdio::inherit()).output()?;
    serde_json::from_slice(&output.stdout).map_err(|error| Error::bug("the correction failed").with_source(error))
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.map_err(|error| Error::bug("no runtime").with_source(error))
}

/// A table of one merged file.
fn build(options: &Options, folder: &Path) -> Result<()> {
    let dataset = generate::dataset()?;
    let file = merged(options, &dataset)?;
    let objects = FolderStore::open(folder, "build")?.without_sync();
    let host = Host::new(objects, WallClock, SplitMix::fresh());
    runtime()?.block_on(async {
        let lake = Table::new(&host.objects, dataset.name.clone());
        lake.load_or_create(host.ports(), &dataset).await?;
        let add = lake.put_file(host.ports(), &dataset.partition(Some(month())), &file).await?;
        let entry = paths::log_entry(&dataset.name, 1)?;
        let actions = [Action { add: Some(add), ..Action::default() }];
        host.objects.put_if_absent(&entry, action::to_lines(&actions)?.into()).await?;
        Ok(())
    })
}

/// The first file that a merge of all stores would write.
fn merged(options: &Options, dataset: &DatasetDefinition) -> Result<LakeFile> {
    let stores: u64 = options.get("stores", 300)?;
    let rows: u64 = options.get("rows", 9_000_000)?;
    let batches = (1..=stores).map(|store| generate::generate(&plan(store, 1, days()?, rows / stores)));
    let batches = batches.collect::<Result<Vec<Generated>>>()?;
    let mut writer = LakeWriter::new(dataset, batches.iter().flat_map(tags).collect(), LakeWriterOptions::default())?;
    for batch in batches {
        let store = batch.manifest.batch.store.to_string();
        for rows in rows_of(batch.file)? {
            let rows = rows?;
            let stores = StringArray::from_iter_values(std::iter::repeat_n(&store, rows.num_rows()));
            let columns =
                std::iter::once(std::sync::Arc::new(stores) as ArrayRef).chain(rows.columns().iter().cloned());
            let rows = RecordBatch::try_new(dataset.lake_schema(), columns.collect());
            writer.write(&rows.map_err(|error| Error::bug("columns").with_source(error))?)?;
        }
        if let Some(full) = writer.take_done().into_iter().next() {
            return Ok(full);
        }
    }
    writer.finish()?.into_iter().next().ok_or_else(|| Error::bug("no file"))
}

fn plan(store: u64, sequence: u64, days: Vec<Date>, rows: u64) -> Plan {
    let position = Position { epoch: 0, sequence };
    Plan { store: format!("t{store:03}"), position, days, rows, closed: true }
}

fn days() -> Result<Vec<Date>> {
    (1..=DAYS).map(day).collect()
}

fn day(day: u64) -> Result<Date> {
    let day = i8::try_from(day).unwrap_or(0);
    Date::new(2026, 1, day).map_err(|error| Error::config("--day: must be 1 to 31").with_source(error))
}

fn month() -> Month {
    Month::of(date(2026, 1, 1))
}

fn tags(batch: &Generated) -> Vec<UnitTag> {
    let manifest = &batch.manifest;
    manifest.units.iter().map(|facts| UnitTag::new(&manifest.batch, facts, facts.extracted_at)).collect()
}

fn rows_of(file: Vec<u8>) -> Result<impl Iterator<Item = Result<RecordBatch>>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(file));
    let reader = reader.and_then(|builder| builder.with_batch_size(ROWS_AT_ONCE).build());
    let reader = reader.map_err(|error| Error::bug("generated Parquet").with_source(error))?;
    Ok(reader.map(|rows| rows.map_err(|error| Error::bug("generated Parquet").with_source(error))))
}

fn correct(options: &Options, folder: &Path) -> Result<Value> {
    let (store, at) = (options.get("store", 57)?, day(options.get("day", 9)?)?);
    let random = SplitMix::fresh();
    let objects = CountingStore::new(FolderStore::open(folder, random.fresh_name())?.without_sync());
    let host = Host::new(objects, WallClock, random);
    let dataset = generate::dataset()?;
    let mut lake = Table::new(&host.objects, dataset.name.clone());
    if options.get("whole", false)? {
        lake = lake.with_whole_bytes_max(u64::MAX);
    }
    runtime()?.block_on(async {
        let batch = generate::generate(&plan(store, 2, vec![at], 1_000))?;
        let mut writer = LakeWriter::new(&dataset, tags(&batch), LakeWriterOptions::default())?;
        rows_of(batch.file.clone())?.try_for_each(|rows| writer.write(&rows?))?;
        let mut files = Vec::new();
        for file in writer.finish()? {
            files.push(lake.put_file(host.ports(), &dataset.partition(Some(month())), &file).await?);
        }
        let record = ReadyRecord::new(&dataset, &batch.manifest, "0".repeat(64), files, jiff::Timestamp::now())?;
        lake.put_ready(&record).await?;
        let before = data_files(&lake).await?;
        host.objects.take();
        let (rss_bytes, started, cpu_s) = (status_bytes("VmRSS:")?, Instant::now(), cpu_seconds()?);
        let report = lake.commit_ready(host.ports(), &dataset, &[]).await?;
        let seen = host.objects.take();
        let (seconds, cpu_s, peak) = (started.elapsed().as_secs_f64(), cpu_seconds()? - cpu_s, status_bytes("VmHWM:")?);
        let Some(BatchOutcome::Committed { .. }) = report.outcome(&batch.manifest.batch) else {
            return Err(Error::data(format!("{report:?}")));
        };
        let after = data_files(&lake).await?;
        let lost = before.iter().find(|file| !after.contains(file)).ok_or_else(|| Error::bug("no file was written"))?;
        let fresh = after.iter().filter(|file| !before.contains(file)).max_by_key(|file| file.1);
        let fresh = fresh.ok_or_else(|| Error::bug("no file was written"))?;
        let (old, new) = (row_groups(&folder.join(&lost.0))?, row_groups(&folder.join(&fresh.0))?);
        Ok(json!({
            "seconds": seconds, "cpu_s": cpu_s, "file_bytes": lost.1, "new_file_bytes": fresh.1,
            "bytes_read": seen.read_bytes, "reads": seen.of(&["get", "get_range"]),
            "bytes_written": seen.written_bytes,
            "rss_before_bytes": rss_bytes, "rss_peak_bytes": peak, "rss_more_bytes": peak.saturating_sub(rss_bytes),
            "row_groups": old.len(), "row_groups_as_before": new.iter().filter(|group| old.contains(group)).count(),
            "row_groups_after": new.len(),
        }))
    })
}

/// Path in the folder, and bytes.
async fn data_files<S: ObjectStore>(lake: &Table<'_, S>) -> Result<Vec<(PathBuf, u64)>> {
    let snapshot = lake.load().await?.ok_or_else(|| Error::data("no table"))?;
    snapshot.files().map(|file| Ok((PathBuf::from(file.object_path(lake.name())?.as_str()), file.size))).collect()
}

/// Rows and sizes of the row groups: what was copied has the same.
fn row_groups(path: &Path) -> Result<Vec<(i64, Vec<i64>)>> {
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&File::open(path)?);
    let metadata = metadata.map_err(|error| Error::data("footer").with_source(error))?;
    let sizes = metadata
        .row_groups()
        .iter()
        .map(|group| (group.num_rows(), group.columns().iter().map(|column| column.compressed_size()).collect()));
    Ok(sizes.collect())
}

pub fn status_bytes(name: &str) -> Result<u64> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.map(|kilobytes| kilobytes << 10).ok_or_else(|| Error::bug(format!("no {name} of this process")))
}

/// Of this process, to a hundredth.
pub fn cpu_seconds() -> Result<f64> {
    let text = fs::read_to_string("/proc/self/stat")?;
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / 100.0)
}
