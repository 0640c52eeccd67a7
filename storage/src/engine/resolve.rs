//! From a table's snapshot to the files that DuckDB opens.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use jiff::civil::{Date, date};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::view::ViewFile;
use crate::dataset::{DatasetDefinition, STORE_COLUMN};
use crate::delta::{AddFile, Snapshot, Stores};
use crate::error::{Error, Result};
use crate::ids::{DatasetName, Month};

/// Columns beyond this have no statistics.
const STATISTICS_COLUMNS_MAX: usize = 32;

/// A lake file whose log record cannot be trusted. Its rows are read all the same, if it has a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoubtfulFile {
    pub table: DatasetName,
    /// The store whose rows it holds, where the log names one.
    pub store: Option<String>,
    /// As the log has it, relative to the table.
    pub path: String,
    pub doubt: Doubt,
}

/// Why a lake file is doubtful.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doubt {
    /// It has no units tag: another program wrote it, or wrote a checkpoint without our tags.
    ForeignFile,
    /// Its units tag cannot be read: nobody knows which days it proves.
    UnitsUnreadable,
    /// Its statistics are not JSON.
    StatisticsUnreadable,
    /// It has no value of a partition column.
    PartitionUnreadable,
    /// Its path is none within the table: it is never opened, its rows are missing.
    PathUnreadable,
}

/// The statistics of an `add` as far as a query needs them.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Stats {
    null_count: BTreeMap<String, Value>,
}

/// The files of `snapshot` as they lie below `root`, the folder of the object store. A file whose
/// statistics or tags cannot be read is among them: see [`doubtful_files`].
///
/// # Errors
/// `Config` when `root` is not UTF-8.
pub fn view_files(snapshot: &Snapshot, dataset: &DatasetDefinition, root: &Path) -> Result<Vec<ViewFile>> {
    let root = std::path::absolute(root)?;
    let mut files = Vec::with_capacity(snapshot.file_count());
    for add in snapshot.files() {
        files.extend(view_file(add, snapshot.table(), dataset, &root)?);
    }
    files.iter_mut().filter(|file| !Path::new(&file.path).is_file()).for_each(|file| {
        file.unreadable = Some(unreadable(&file.path, "it is not there"));
    });
    fill_columns(dataset, &mut files);
    Ok(files)
}

/// The files of `snapshot` whose log record cannot be trusted. Facts that were not read from their object are not
/// doubted here: coverage reads those that it judges.
pub fn doubtful_files(snapshot: &Snapshot, dataset: &DatasetDefinition) -> Vec<DoubtfulFile> {
    let doubtful = |add: &AddFile| {
        Some(DoubtfulFile {
            table: snapshot.table().clone(),
            store: store_of(add),
            path: add.path.clone(),
            doubt: doubt_of(add, snapshot.table(), dataset)?,
        })
    };
    snapshot.files().filter_map(doubtful).collect()
}

impl Doubt {
    /// The stable text form, such as `foreign_file`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ForeignFile => "foreign_file",
            Self::UnitsUnreadable => "units_unreadable",
            Self::StatisticsUnreadable => "statistics_unreadable",
            Self::PartitionUnreadable => "partition_unreadable",
            Self::PathUnreadable => "path_unreadable",
        }
    }
}

fn doubt_of(add: &AddFile, table: &DatasetName, dataset: &DatasetDefinition) -> Option<Doubt> {
    let has_partition =
        dataset.partition_columns().iter().all(|name| add.partition_values.get(name).is_some_and(Option::is_some));
    if add.object_path(table).is_err() {
        return Some(Doubt::PathUnreadable);
    }
    if !has_partition {
        return Some(Doubt::PartitionUnreadable);
    }
    if add.is_foreign() {
        return Some(Doubt::ForeignFile);
    }
    if !add.has_unread_facts() && add.each_proof(|_, _| ()).is_err() {
        return Some(Doubt::UnitsUnreadable);
    }
    stats_of(add).is_none().then_some(Doubt::StatisticsUnreadable)
}

/// `None` when the path in the log leaves the table: such a file is never opened.
pub(super) fn view_file(
    add: &AddFile,
    table: &DatasetName,
    dataset: &DatasetDefinition,
    root: &Path,
) -> Result<Option<ViewFile>> {
    let Ok(object) = add.object_path(table) else { return Ok(None) };
    let stats = stats_of(add).unwrap_or_default();
    let partition: BTreeMap<String, String> = dataset
        .partition_columns()
        .into_iter()
        .filter_map(|name| add.partition_values.get(&name).cloned().flatten().map(|value| (name, value)))
        .collect();
    // Whose statistics are complete for these columns: our own writer's alone.
    let is_ours = !add.is_foreign();
    let has_all = stats.null_count.contains_key(STORE_COLUMN)
        && dataset.columns.iter().all(|column| stats.null_count.contains_key(&column.name));
    let known: BTreeSet<String> = if is_ours { stats.null_count.keys().cloned().collect() } else { BTreeSet::new() };
    Ok(Some(ViewFile {
        path: utf8(&root.join(object.as_str()))?,
        columns: (!has_all).then(|| Arc::new(known)),
        dates: if is_ours { partition_dates(&partition) } else { None },
        store: store_of(add),
        partition,
        written: add.modification_time,
        unreadable: None,
    }))
}

/// The path as text: DuckDB takes no other.
pub(super) fn utf8(path: &Path) -> Result<String> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| Error::config(format!("--lake: must be a path in UTF-8, got {}", path.display())))
}

/// `None` when they are not JSON.
fn stats_of(add: &AddFile) -> Option<Stats> {
    add.stats.as_ref().map_or_else(|| Some(Stats::default()), |text| serde_json::from_str(text).ok())
}

/// The business dates of a partition: ingest takes no row outside them.
fn partition_dates(partition: &BTreeMap<String, String>) -> Option<(Date, Date)> {
    if let Some(month) = partition.get("month") {
        let month: Month = month.parse().ok()?;
        return Some((month.first_day(), month.last_day()));
    }
    let year: i16 = partition.get("year")?.parse().ok()?;
    (1..=9999).contains(&year).then(|| (date(year, 1, 1), date(year, 12, 31)))
}

/// The one store of a file; `None` for a file of several, or when nobody knows.
fn store_of(add: &AddFile) -> Option<String> {
    match add.stores() {
        Stores::One(store) => Some(store.to_owned()),
        Stores::Between(..) | Stores::Any => None,
    }
}

/// The stores that rows of `snapshot` can be of; `None` when a file does not tell.
pub fn stores_of(snapshot: &Snapshot) -> Option<BTreeSet<String>> {
    let mut stores = BTreeSet::new();
    for add in snapshot.files() {
        if add.is_foreign() {
            return None;
        }
        stores.extend(add.unit_stores().ok()?.into_iter().map(str::to_owned));
    }
    Some(stores)
}

/// Our statistics name the columns of a file, except when there are too many of them or none: then
/// the file's own footer does. A footer that cannot be read makes the file unreadable.
pub(super) fn fill_columns(dataset: &DatasetDefinition, files: &mut [ViewFile]) {
    let mut known: BTreeSet<Arc<BTreeSet<String>>> = BTreeSet::new();
    for file in files.iter_mut().filter(|file| file.unreadable.is_none()) {
        let Some(columns) = &mut file.columns else { continue };
        if columns.is_empty() || columns.len() >= STATISTICS_COLUMNS_MAX {
            match footer_columns(&file.path) {
                Ok(found) => *columns = Arc::new(found),
                Err(error) => {
                    file.unreadable = Some(unreadable(&file.path, &error.to_string()));
                    continue;
                }
            }
        }
        match known.get(columns) {
            Some(same) => *columns = same.clone(),
            None => drop(known.insert(columns.clone())),
        }
        if columns.contains(STORE_COLUMN) && dataset.columns.iter().all(|column| columns.contains(&column.name)) {
            file.columns = None;
        }
    }
}

fn unreadable(path: &str, why: &str) -> String {
    format!("lake file {path} cannot be read: {why}; try: ribera verify")
}

fn footer_columns(path: &str) -> std::result::Result<BTreeSet<String>, ParquetError> {
    let reader = SerializedFileReader::new(File::open(path)?)?;
    let schema = reader.metadata().file_metadata().schema_descr().root_schema().get_fields();
    Ok(schema.iter().map(|field| field.name().to_owned()).collect())
}
