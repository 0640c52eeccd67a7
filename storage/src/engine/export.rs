//! A DuckDB database file with the lake's datasets as tables: it opens without extensions and
//! without the lake.

use std::path::Path;

use super::days::{days_columns, days_comment_sql, days_name};
use super::resolve::{stores_of, utf8};
use super::view::{StoreZones, ViewColumn, ViewFile, quote_name, quote_text, select_sql, view_columns};
use super::{Engine, EngineOptions, other_names};
use crate::dataset::DatasetDefinition;
use crate::delta::Snapshot;
use crate::error::{Error, Result};

/// A dataset with its table and the table's files.
pub struct ExportDataset<'a> {
    pub dataset: &'a DatasetDefinition,
    pub snapshot: Option<Snapshot>,
    pub files: Vec<ViewFile>,
}

/// A table of our own beside the datasets, such as the coverage.
pub struct ExportTable {
    pub name: String,
    /// Column definitions in SQL.
    pub columns: String,
    pub rows: Vec<Vec<Option<String>>>,
    /// Shown by DuckDB clients.
    pub comment: String,
}

/// Writes the database to `target`: whole into a file beside it, then swapped in by a rename, so
/// that readers see the old or the new one. `options` names the folders of the lake files, `root`
/// the folder of the object store. `progress` hears the name of every table that is done and its
/// rows.
///
/// # Errors
///
/// `Config` when the folder does not exist, or with DuckDB's message; the file is as it was.
pub fn export(
    options: &EngineOptions,
    datasets: &[ExportDataset<'_>],
    tables: &[ExportTable],
    zones: &StoreZones,
    root: &Path,
    target: &Path,
    mut progress: impl FnMut(&str, u64),
) -> Result<()> {
    let target = std::path::absolute(target)?;
    let folder = target.parent().unwrap_or(Path::new("/")).to_owned();
    if !folder.is_dir() {
        return Err(Error::config(format!("FILE: its folder must exist, got {}", folder.display())));
    }
    let name = target.file_name().and_then(std::ffi::OsStr::to_str).unwrap_or("export.duckdb");
    let temporary = folder.join(format!(".{name}.{}.tmp", std::process::id()));
    remove(&temporary)?;
    let mut options = options.clone();
    options.folders.push(folder.clone());
    let written = write(&options, datasets, tables, zones, root, &temporary, &mut progress);
    let swapped = written.and_then(|()| {
        std::fs::File::open(&temporary)?.sync_all()?;
        std::fs::rename(&temporary, &target)?;
        #[cfg(unix)]
        std::fs::File::open(&folder)?.sync_all()?;
        Ok(())
    });
    if swapped.is_err() {
        remove(&temporary)?;
    }
    swapped
}

fn write(
    options: &EngineOptions,
    datasets: &[ExportDataset<'_>],
    tables: &[ExportTable],
    zones: &StoreZones,
    root: &Path,
    file: &Path,
    progress: &mut impl FnMut(&str, u64),
) -> Result<()> {
    let engine = Engine::open(options)?;
    engine.execute(&format!("ATTACH {} AS lake_export; USE lake_export;", quote_text(&utf8(file)?)))?;
    for one in datasets {
        write_rows(&engine, one, zones, progress)?;
        write_days(&engine, one, root, progress)?;
    }
    for (other, name) in other_names(datasets.iter().map(|one| one.dataset)) {
        engine.execute(&format!("CREATE VIEW {} AS SELECT * FROM {}", quote_name(other), quote_name(name)))?;
    }
    for table in tables {
        write_table(&engine, table)?;
    }
    engine.execute("USE memory; CHECKPOINT lake_export; DETACH lake_export;")
}

fn write_rows(
    engine: &Engine,
    ExportDataset { dataset, snapshot, files }: &ExportDataset<'_>,
    zones: &StoreZones,
    progress: &mut impl FnMut(&str, u64),
) -> Result<()> {
    let name = dataset.name.as_str();
    let stores = snapshot.as_ref().and_then(stores_of);
    let select = select_sql(dataset, files, stores.as_ref(), zones, false);
    engine.execute(&format!("CREATE TABLE {} AS {select}", quote_name(name)))?;
    comment_columns(engine, name, view_columns(dataset))?;
    let title = format!("{} / {}", dataset.titles.es, dataset.titles.en);
    engine.execute(&format!("COMMENT ON TABLE {} IS {}", quote_name(name), quote_text(&title)))?;
    progress(name, row_count(engine, name)?);
    Ok(())
}

fn write_days(
    engine: &Engine,
    ExportDataset { dataset, snapshot, .. }: &ExportDataset<'_>,
    root: &Path,
    progress: &mut impl FnMut(&str, u64),
) -> Result<()> {
    let (Some(name), Some(comment)) = (days_name(dataset), days_comment_sql(dataset)) else { return Ok(()) };
    engine.define_days(dataset, snapshot.as_ref(), root)?;
    comment_columns(engine, &name, days_columns(dataset))?;
    engine.execute(&comment)?;
    progress(&name, row_count(engine, &name)?);
    Ok(())
}

fn comment_columns(engine: &Engine, table: &str, columns: Vec<ViewColumn>) -> Result<()> {
    for column in columns {
        let comment = format!("{} / {}", column.title_es, column.title_en);
        engine.execute(&format!(
            "COMMENT ON COLUMN {}.{} IS {}",
            quote_name(table),
            quote_name(&column.name),
            quote_text(&comment)
        ))?;
    }
    Ok(())
}

fn row_count(engine: &Engine, table: &str) -> Result<u64> {
    let rows = engine.rows(&format!("SELECT CAST(count(*) AS VARCHAR) FROM {}", quote_name(table)))?;
    let count = rows.first().and_then(|row| row.first().cloned().flatten()).and_then(|text| text.parse().ok());
    Ok(count.unwrap_or(0))
}

fn write_table(engine: &Engine, table: &ExportTable) -> Result<()> {
    /// Rows of one INSERT.
    const ROWS_MAX: usize = 1000;
    let name = quote_name(&table.name);
    engine.execute(&format!("CREATE TABLE {name} ({})", table.columns))?;
    for rows in table.rows.chunks(ROWS_MAX) {
        let rows = rows.iter().map(|row| {
            let cells = row.iter().map(|cell| cell.as_deref().map_or("NULL".to_owned(), quote_text));
            format!("({})", cells.collect::<Vec<_>>().join(", "))
        });
        engine.execute(&format!("INSERT INTO {name} VALUES {}", rows.collect::<Vec<_>>().join(", ")))?;
    }
    engine.execute(&format!("COMMENT ON TABLE {name} IS {}", quote_text(&table.comment)))
}

fn remove(file: &Path) -> Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
