//! Merging small lake files with DuckDB, and proving the merge before anyone commits it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;

use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::verify::file_facts;
use super::view::{ViewFile, quote_name, quote_text, rows_sql};
use super::{Engine, view_files};
use crate::batch::Facts;
use crate::dataset::DatasetDefinition;
use crate::delta::{CompactionGroup, LakeFile, LakeWriter, LakeWriterOptions, Snapshot};
use crate::error::{Error, Result};
use crate::ids::Unit;

/// Merges the files of `group` into one (or, when it grows large, a few) in order of unit and key.
///
/// DuckDB sorts; our writer encodes, with true statistics and the units' facts; then DuckDB reads
/// the encoded bytes again, and rows, sums and a hash of all values of every unit must be those of
/// the files merged. `engine` may open files below `root`, the folder of the object store, and
/// below `scratch`, a folder of this call alone.
pub fn merge(
    engine: &Engine,
    snapshot: &Snapshot,
    dataset: &DatasetDefinition,
    group: &CompactionGroup,
    root: &Path,
    scratch: &Path,
) -> Result<Vec<LakeFile>> {
    let paths: BTreeSet<String> = group
        .files
        .iter()
        .map(|file| Ok(root.join(file.object_path(snapshot.table())?.as_str()).display().to_string()))
        .collect::<Result<_>>()?;
    let sources = view_files(snapshot, dataset, root, |view| paths.contains(&view.path))?;
    if sources.len() != group.files.len() {
        return Err(Error::retry(format!("table {}: a file to merge is no longer in it", snapshot.table())));
    }
    let sorted = scratch.join("sorted.parquet");
    engine.execute(&format!(
        "COPY (SELECT {} FROM ({}) ORDER BY {}) TO {} (FORMAT parquet, COMPRESSION zstd)",
        column_list(dataset),
        rows_sql(dataset, &sources),
        order_list(dataset),
        quote_text(&sorted.display().to_string())
    ))?;
    let merged = encode(dataset, group, &sorted)?;
    let written = write_all(&merged, &sources, scratch)?;
    prove(engine, dataset, group, &sources, &written)?;
    Ok(merged)
}

fn encode(dataset: &DatasetDefinition, group: &CompactionGroup, sorted: &Path) -> Result<Vec<LakeFile>> {
    let unreadable = |error| Error::bug("the sorted rows cannot be read back").with_source(error);
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(sorted)?)
        .and_then(|builder| builder.with_batch_size(8192).build())
        .map_err(unreadable)?;
    let mut writer = LakeWriter::new(dataset, group.units.clone(), LakeWriterOptions::default())?;
    for batch in reader {
        let batch = batch.map_err(|error| Error::bug("the sorted rows cannot be read back").with_source(error))?;
        writer.write(&batch)?;
    }
    writer.finish()
}

/// The encoded files as DuckDB can open them, in folders that name their partition.
fn write_all(merged: &[LakeFile], sources: &[ViewFile], scratch: &Path) -> Result<Vec<ViewFile>> {
    let Some(like) = sources.first() else { return Ok(Vec::new()) };
    let mut folder = scratch.to_owned();
    for (name, value) in &like.partition {
        folder.push(format!("{name}={value}"));
    }
    std::fs::create_dir_all(&folder)?;
    let mut written = Vec::new();
    for (index, file) in merged.iter().enumerate() {
        let path = folder.join(format!("merged-{index}.parquet"));
        std::fs::write(&path, &file.bytes)?;
        written.push(ViewFile {
            path: path.display().to_string(),
            columns: None,
            bounds: BTreeMap::new(),
            ..like.clone()
        });
    }
    Ok(written)
}

fn prove(
    engine: &Engine,
    dataset: &DatasetDefinition,
    group: &CompactionGroup,
    sources: &[ViewFile],
    written: &[ViewFile],
) -> Result<()> {
    let mut counted: BTreeMap<Unit, Facts> = BTreeMap::new();
    for (_, units) in file_facts(engine, dataset, &rows_sql(dataset, written))? {
        for (unit, facts) in units {
            counted.entry(unit).or_default().add(&facts)?;
        }
    }
    for tag in &group.units {
        let got = counted.remove(&tag.unit).unwrap_or_default();
        if !got.agrees_with(&tag.facts) {
            return Err(Error::data(format!(
                "dataset {}: compaction: {} must keep {:?}, got {got:?}: nothing was changed",
                dataset.name, tag.unit, tag.facts
            ))
            .with_hint("ribera verify"));
        }
    }
    if let Some(unit) = counted.keys().next() {
        return Err(Error::data(format!("dataset {}: compaction: {unit} must not be there, got rows", dataset.name)));
    }
    let (before, after) = (content_hashes(engine, dataset, sources)?, content_hashes(engine, dataset, written)?);
    if before != after {
        return Err(Error::data(format!(
            "dataset {}: compaction: the merged files must hold the same values, got others: nothing was changed",
            dataset.name
        )));
    }
    Ok(())
}

/// By unit, a sum over the rows of a hash of all their values: the same for the same rows in any
/// order.
fn content_hashes(
    engine: &Engine,
    dataset: &DatasetDefinition,
    files: &[ViewFile],
) -> Result<Vec<Vec<Option<String>>>> {
    let unit = dataset.unit_column().map_or_else(|| "'*'".to_owned(), quote_name);
    engine.rows(&format!(
        "SELECT CAST({unit} AS VARCHAR), CAST(sum(CAST(hash({}) AS HUGEINT)) AS VARCHAR) FROM ({}) GROUP BY 1 ORDER BY 1",
        column_list(dataset),
        rows_sql(dataset, files)
    ))
}

fn column_list(dataset: &DatasetDefinition) -> String {
    dataset.columns.iter().map(|column| quote_name(&column.name)).collect::<Vec<_>>().join(", ")
}

fn order_list(dataset: &DatasetDefinition) -> String {
    let keys = dataset.key.iter().map(String::as_str).filter(|key| Some(*key) != dataset.unit_column());
    dataset.unit_column().into_iter().chain(keys).map(quote_name).collect::<Vec<_>>().join(", ")
}
