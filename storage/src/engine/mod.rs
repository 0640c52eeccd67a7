//! The DuckDB engine: SQL over resolved lake files. Native only.
//!
//! DuckDB is given lake files alone, which this project wrote itself, never bytes that a store
//! sent. It runs without extensions, without network, and can open nothing outside the folders it
//! is given.

use std::collections::BTreeSet;
use std::path::PathBuf;

use duckdb::types::ValueRef;
use duckdb::{Config, Connection};

use crate::dataset::DatasetDefinition;
use crate::error::{Error, Result};

mod days;
mod export;
mod predicate;
mod query;
mod resolve;
mod scans;
mod verify;
mod view;

pub use days::{days_columns, days_name};
pub use export::{ExportDataset, ExportTable, export};
pub use query::{Answer, AnswerColumn, Planner};
pub use resolve::{Doubt, DoubtfulFile, doubtful_files, stores_of, view_files};
pub use scans::{Scan, Scans};
pub use verify::{Finding, FindingKind, VerifyReport, verify};
pub use view::{StoreZones, ViewColumn, ViewFile, quote_name, quote_text, select_sql, sql_type, view_columns};

use resolve::utf8;
use view::{quote_path, unread_sql};

/// What the engine may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineOptions {
    /// More: larger sorts and joins without spilling; DuckDB may go a little beyond it.
    pub memory_bytes_max: u64,
    /// More: quicker answers, less left for others on the machine.
    pub threads: usize,
    /// Folders DuckDB may open files in.
    pub folders: Vec<PathBuf>,
    /// Where sorts and joins that outgrow the memory go. `None`: they fail.
    pub spill_folder: Option<PathBuf>,
}

impl EngineOptions {
    /// Half the machine's processors or 2, 1 GiB.
    pub fn new(folders: Vec<PathBuf>) -> Self {
        let processors = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self { memory_bytes_max: 1 << 30, threads: processors.max(2), folders, spill_folder: None }
    }
}

/// An in-memory DuckDB.
pub struct Engine {
    connection: Connection,
}

impl Engine {
    /// Opens an engine of its own, in memory.
    ///
    /// # Errors
    ///
    /// `Config` with DuckDB's message when a setting cannot be had.
    pub fn open(options: &EngineOptions) -> Result<Self> {
        let config = Config::default()
            .enable_autoload_extension(false)
            .and_then(|config| config.max_memory(&format!("{}B", options.memory_bytes_max)))
            .and_then(|config| config.threads(i64::try_from(options.threads).unwrap_or(2)))
            .map_err(|error| engine_error("open", error))?;
        let connection = Connection::open_in_memory_with_flags(config).map_err(|error| engine_error("open", error))?;
        let engine = Self { connection };
        let spill = options.spill_folder.as_ref().map(|folder| folder.display().to_string()).unwrap_or_default();
        let mut folders = Vec::new();
        for folder in &options.folders {
            let folder = format!("{}/", utf8(folder)?);
            // Files are named by patterns that match one file: both forms must be allowed.
            folders.extend([quote_text(&folder), quote_path(&folder)]);
        }
        engine.execute(&format!(
            "SET TimeZone = 'UTC'; SET temp_directory = {}; SET allowed_directories = [{}]; \
             SET enable_external_access = false;",
            quote_text(&spill),
            folders.join(", ")
        ))?;
        Ok(engine)
    }

    /// Refuses every later change of a setting. To be called before text of a user runs.
    ///
    /// # Errors
    ///
    /// `Config` with DuckDB's message when it refuses.
    pub fn lock(&self) -> Result<()> {
        self.execute("SET lock_configuration = true")
    }

    /// Shows the rows of `dataset` as a view over `files`. `stores` and `state_dates`: see [`select_sql`].
    ///
    /// # Errors
    ///
    /// `Config` with DuckDB's message when it refuses the view.
    pub fn define(
        &self,
        dataset: &DatasetDefinition,
        files: &[ViewFile],
        stores: Option<&BTreeSet<String>>,
        zones: &StoreZones,
        state_dates: bool,
    ) -> Result<()> {
        let select = select_sql(dataset, files, stores, zones, state_dates);
        self.execute(&format!("CREATE VIEW {} AS {select}", quote_name(dataset.name.as_str())))
    }

    /// Stands for the rows of a dataset that a query is thought not to read: it can be described, and
    /// fails when it is read after all.
    ///
    /// # Errors
    ///
    /// `Config` with DuckDB's message when it refuses the view.
    pub fn define_unread(&self, dataset: &DatasetDefinition) -> Result<()> {
        let name = dataset.name.as_str();
        self.execute(&format!("CREATE VIEW {} AS {}", quote_name(name), unread_sql(name, &view_columns(dataset))))
    }

    /// Gives the datasets, once they are defined, the second names that they have: `ventas_raw` for
    /// `ventas`.
    ///
    /// # Errors
    ///
    /// `Config` with DuckDB's message when it refuses a view.
    pub fn define_other_names<'a>(&self, datasets: impl IntoIterator<Item = &'a DatasetDefinition>) -> Result<()> {
        for (other, name) in other_names(datasets) {
            self.execute(&format!("CREATE VIEW {} AS FROM {}", quote_name(other), quote_name(name)))?;
        }
        Ok(())
    }

    /// Runs statements of our own.
    ///
    /// # Errors
    ///
    /// `Config` with DuckDB's message when it refuses them.
    pub fn execute(&self, sql: &str) -> Result<()> {
        self.connection.execute_batch(sql).map_err(|error| engine_error("sql", error))
    }

    /// Rows of a query of our own whose columns are all VARCHAR, one at a time.
    ///
    /// # Errors
    ///
    /// `Config` with DuckDB's message when it refuses the query; `Data` when a text is not UTF-8; `Bug` when a
    /// column is not text; what `row` returns.
    pub fn each_row(&self, sql: &str, mut row: impl FnMut(&[Option<&str>]) -> Result<()>) -> Result<()> {
        let failed = |error| engine_error("sql", error);
        let mut statement = self.connection.prepare(sql).map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        while let Some(current) = rows.next().map_err(failed)? {
            let width = current.as_ref().column_count();
            let mut cells = Vec::with_capacity(width);
            for index in 0..width {
                cells.push(match current.get_ref(index).map_err(failed)? {
                    ValueRef::Null => None,
                    ValueRef::Text(text) => Some(
                        std::str::from_utf8(text)
                            .map_err(|error| Error::data("a text is not UTF-8").with_source(error))?,
                    ),
                    other => return Err(Error::bug(format!("expected text, got {:?}", other.data_type()))),
                });
            }
            row(&cells)?;
        }
        Ok(())
    }

    /// The cells of all rows; columns as for [`Self::each_row`].
    ///
    /// # Errors
    ///
    /// As [`Self::each_row`].
    pub fn rows(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        let mut all = Vec::new();
        self.each_row(sql, |row| {
            all.push(row.iter().map(|cell| cell.map(str::to_owned)).collect());
            Ok(())
        })?;
        Ok(all)
    }
}

/// Second names and their datasets. A dataset that has a second name as its own keeps it.
pub(crate) fn other_names<'a>(
    datasets: impl IntoIterator<Item = &'a DatasetDefinition>,
) -> Vec<(&'static str, &'a str)> {
    let datasets: Vec<&DatasetDefinition> = datasets.into_iter().collect();
    let taken = |name: &str| datasets.iter().any(|dataset| dataset.name.as_str() == name);
    let named = datasets.iter().filter_map(|dataset| Some((dataset.other_name()?, dataset.name.as_str())));
    named.filter(|(other, _)| !taken(other)).collect()
}

pub(crate) fn engine_error(doing: &str, error: duckdb::Error) -> Error {
    let text = match &error {
        duckdb::Error::DuckDBFailure(_, Some(message)) => message.clone(),
        other => other.to_string(),
    };
    Error::config(format!("{doing}: {}", text.trim_end()))
}
