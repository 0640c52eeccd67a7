//! From a table's snapshot to the files that DuckDB opens.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::file::reader::{FileReader, SerializedFileReader};
use serde::Deserialize;
use serde_json::Value;

use super::predicate::{Bounds, Literal};
use super::view::ViewFile;
use crate::dataset::{ColumnType, DatasetDefinition, STORE_COLUMN};
use crate::delta::{AddFile, Snapshot};
use crate::error::{Error, Result};
use crate::object::ObjectPath;

/// The statistics of an `add` as far as a query needs them.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Stats {
    min_values: BTreeMap<String, Value>,
    max_values: BTreeMap<String, Value>,
    null_count: BTreeMap<String, Value>,
}

/// The snapshot's files that `wanted` says yes to, as they lie below `root`, the folder of the
/// object store.
pub fn view_files(
    snapshot: &Snapshot,
    dataset: &DatasetDefinition,
    root: &Path,
    wanted: impl Fn(&ViewFile) -> bool,
) -> Result<Vec<ViewFile>> {
    let root = std::path::absolute(root)?;
    let mut files = Vec::new();
    for add in snapshot.files() {
        let object = add.object_path(snapshot.table())?;
        let file = view_file(add, &object, dataset, &root)?;
        if wanted(&file) {
            files.push(file);
        }
    }
    fill_columns(dataset, &mut files)?;
    Ok(files)
}

pub(super) fn view_file(
    add: &AddFile,
    object: &ObjectPath,
    dataset: &DatasetDefinition,
    root: &Path,
) -> Result<ViewFile> {
    let stats: Stats = match &add.stats {
        Some(text) => serde_json::from_str(text)
            .map_err(|error| Error::data(format!("{}: its statistics are not JSON", add.path)).with_source(error))?,
        None => Stats::default(),
    };
    let partition = dataset
        .partition_columns()
        .into_iter()
        .map(|name| match add.partition_values.get(&name) {
            Some(Some(value)) if object.as_str().split('/').any(|part| part == format!("{name}={value}")) => {
                Ok((name, value.clone()))
            }
            other => {
                Err(Error::data(format!("{}: partition value {name}: must be its folder's, got {other:?}", add.path)))
            }
        })
        .collect::<Result<BTreeMap<_, _>>>()?;
    let mut bounds: BTreeMap<String, Bounds> =
        dataset.columns.iter().filter_map(|column| bounds(&stats, &column.name, column.column_type)).collect();
    bounds.extend(store_bounds(&stats, dataset, &partition));
    let has_all = dataset.columns.iter().all(|column| stats.null_count.contains_key(&column.name));
    Ok(ViewFile {
        path: root.join(object.as_str()).display().to_string(),
        partition,
        columns: (!has_all).then(|| Arc::new(stats.null_count.keys().cloned().collect())),
        bounds,
        written: add.modification_time,
    })
}

/// Dates and times alone: filters on them decide which files are opened.
fn bounds(stats: &Stats, column: &str, column_type: ColumnType) -> Option<(String, Bounds)> {
    let literal = |values: &BTreeMap<String, Value>| {
        let text = values.get(column)?.as_str()?;
        match column_type {
            ColumnType::Date => text.parse().ok().map(Literal::Date),
            _ => None,
        }
    };
    Some((column.to_owned(), (literal(&stats.min_values)?, literal(&stats.max_values)?)))
}

/// Of the column that names the store, where statistics prove that all rows name the partition's.
fn store_bounds(
    stats: &Stats,
    dataset: &DatasetDefinition,
    partition: &BTreeMap<String, String>,
) -> Option<(String, Bounds)> {
    let (column, store) = (dataset.store_column.as_ref()?, partition.get(STORE_COLUMN)?);
    let is_store = |values: &BTreeMap<String, Value>| values.get(column).and_then(Value::as_str) == Some(store);
    let same = is_store(&stats.min_values) && is_store(&stats.max_values);
    let never_null = stats.null_count.get(column).and_then(Value::as_u64) == Some(0);
    let literal = Literal::Text(store.clone());
    (same && never_null).then(|| (column.clone(), (literal.clone(), literal)))
}

/// Statistics name the columns of a file, except when there are too many of them or none: then
/// the file's own footer does.
pub(super) fn fill_columns(dataset: &DatasetDefinition, files: &mut [ViewFile]) -> Result<()> {
    /// Columns beyond this have no statistics.
    const STATISTICS_COLUMNS_MAX: usize = 32;
    let mut known: BTreeSet<Arc<BTreeSet<String>>> = BTreeSet::new();
    for file in files {
        let Some(columns) = &mut file.columns else { continue };
        if columns.is_empty() || columns.len() >= STATISTICS_COLUMNS_MAX {
            *columns = Arc::new(footer_columns(&file.path)?);
        }
        match known.get(columns) {
            Some(same) => *columns = same.clone(),
            None => drop(known.insert(columns.clone())),
        }
        if dataset.columns.iter().all(|column| columns.contains(&column.name)) {
            file.columns = None;
        }
    }
    Ok(())
}

fn footer_columns(path: &str) -> Result<BTreeSet<String>> {
    let unreadable = |error| Error::data(format!("{path}: lake file cannot be read")).with_source(error);
    let file = File::open(path)
        .map_err(|error| Error::data(format!("{path}: lake file cannot be opened")).with_source(error))?;
    let reader = SerializedFileReader::new(file).map_err(unreadable)?;
    let schema = reader.metadata().file_metadata().schema_descr().root_schema().get_fields();
    Ok(schema.iter().map(|field| field.name().to_owned()).collect())
}
