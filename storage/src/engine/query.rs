//! Queries of people: read-only, planned first to know what they touch.

use std::collections::BTreeMap;

use duckdb::{Config, Connection};
use serde_json::Value;

use super::days::{days_name, days_table_sql};
use super::scans::Scans;
use super::view::{planning_table_sql, quote_name, quote_text};
use super::{Engine, engine_error, other_names};
use crate::dataset::DatasetDefinition;
use crate::error::{Error, Result};

/// Plans queries over empty tables of the datasets' shapes: no file is opened.
pub struct Planner {
    connection: Connection,
    /// Every name of a table in SQL, and the table.
    names: BTreeMap<String, String>,
}

/// A column of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerColumn {
    pub name: String,
    /// DuckDB's name of the type, such as `DECIMAL(38,2)`.
    pub sql_type: String,
}

/// What a query answers, read row by row.
pub struct Answer<'a> {
    engine: &'a Engine,
    sql: String,
    pub columns: Vec<AnswerColumn>,
}

impl Planner {
    /// Knows the tables of these datasets, without rows.
    ///
    /// # Errors
    ///
    /// `Config` with DuckDB's message when it refuses a definition's view.
    pub fn open<'a>(datasets: impl IntoIterator<Item = &'a DatasetDefinition>) -> Result<Self> {
        let failed = |error| engine_error("plan", error);
        let config = Config::default()
            .enable_autoload_extension(false)
            .and_then(|config| config.enable_external_access(false))
            .and_then(|config| config.threads(1))
            .map_err(failed)?;
        let connection = Connection::open_in_memory_with_flags(config).map_err(failed)?;
        // With statistics of empty tables the optimizer would leave the scans out.
        let mut sql = "SET TimeZone = 'UTC'; \
            SET disabled_optimizers = 'statistics_propagation,empty_result_pullup';"
            .to_owned();
        let datasets: Vec<&DatasetDefinition> = datasets.into_iter().collect();
        let mut names = BTreeMap::new();
        for dataset in &datasets {
            for table in std::iter::once(planning_table_sql(dataset)).chain(days_table_sql(dataset)) {
                sql.push_str(&table);
                sql.push(';');
            }
            let tables = std::iter::once(dataset.name.to_string()).chain(days_name(dataset));
            names.extend(tables.map(|name| (name.clone(), name)));
        }
        for (other, name) in other_names(datasets) {
            sql.push_str(&format!("CREATE VIEW {} AS FROM {};", quote_name(other), quote_name(name)));
            names.insert(other.to_owned(), name.to_owned());
        }
        sql.push_str("SET lock_configuration = true;");
        connection.execute_batch(&sql).map_err(failed)?;
        Ok(Self { connection, names })
    }

    /// The text as one SELECT, without what follows it; an error for whatever is not one.
    ///
    /// # Errors
    ///
    /// `Config`, naming what is wrong with the text.
    pub fn read_only(&self, sql: &str) -> Result<String> {
        let parsed = self.text(&format!("SELECT json_serialize_sql({}::VARCHAR)", quote_text(sql)))?;
        let parsed: Value =
            serde_json::from_str(&parsed).map_err(|error| Error::bug("sql: no parse tree").with_source(error))?;
        if parsed["error"] == Value::Bool(true) {
            let message = parsed["error_message"].as_str().unwrap_or("");
            if parsed["error_type"] == "not implemented" {
                return Err(Error::config(
                    "sql: must only read: one SELECT (or FROM, WITH, DESCRIBE, SUMMARIZE, SHOW TABLES)",
                )
                .with_hint("ribera sql \"SELECT count(*) FROM ventas\""));
            }
            return Err(Error::config(format!("sql: {message}")));
        }
        match parsed["statements"].as_array().map(Vec::len) {
            Some(1) => {}
            other => {
                return Err(Error::config(format!("sql: must be one statement, got {}", other.unwrap_or(0))));
            }
        }
        let bare = sql.trim().trim_end_matches(';').trim_end();
        if !bare.contains(';') {
            return Ok(bare.to_owned());
        }
        // A semicolon in a string or before a comment: the parser's own text has neither.
        self.text(&format!("SELECT json_deserialize_sql(json_serialize_sql({}::VARCHAR))", quote_text(sql)))
    }

    /// What `select` (as [`Self::read_only`] gave it) reads.
    ///
    /// # Errors
    ///
    /// `Config` with DuckDB's message when it refuses the text.
    pub fn scans(&self, select: &str) -> Result<Scans> {
        let failed = |error| engine_error("sql", error);
        let mut statement = self.connection.prepare(&format!("EXPLAIN (FORMAT JSON) {select}")).map_err(failed)?;
        let plan: String = statement.query_row([], |row| row.get(1)).map_err(failed)?;
        Ok(Scans::of_plan(&plan, select, &self.names))
    }

    fn text(&self, sql: &str) -> Result<String> {
        self.connection.query_row(sql, [], |row| row.get(0)).map_err(|error| engine_error("sql", error))
    }
}

impl Engine {
    /// Answers `select`, as [`Planner::read_only`] gave it.
    ///
    /// # Errors
    ///
    /// `Config` with DuckDB's message when it refuses the text.
    pub fn ask(&self, select: &str) -> Result<Answer<'_>> {
        let mut columns = Vec::new();
        let describe = format!("SELECT column_name, column_type FROM (DESCRIBE FROM (\n{select}\n))");
        self.each_row(&describe, |row| {
            let cell = |index: usize| row.get(index).copied().flatten().unwrap_or("").to_owned();
            columns.push(AnswerColumn { name: cell(0), sql_type: cell(1) });
            Ok(())
        })?;
        // DuckDB writes every value as text itself: exact, whatever the type.
        let sql = format!("SELECT CAST(COLUMNS(*) AS VARCHAR) FROM (\n{select}\n)");
        Ok(Answer { engine: self, sql, columns })
    }
}

impl Answer<'_> {
    /// Calls `row` with the text of every cell, row by row, in the order the query gives.
    ///
    /// # Errors
    ///
    /// `Config` with DuckDB's message when it refuses or fails on the way; what `row` returns.
    pub fn each_row(&self, row: impl FnMut(&[Option<&str>]) -> Result<()>) -> Result<()> {
        self.engine.each_row(&self.sql, row)
    }
}
