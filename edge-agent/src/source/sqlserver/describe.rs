//! What the driver does not tell of a result: the collations of its columns. It reads text of a
//! collation `_UTF8` by the code page of the collation's language, which gives other letters.

use std::collections::HashSet;

use ribera_storage::{Error, Result};
use tiberius::error::Error as DriverError;

use super::connect::Link;
use super::errors::query_error;
use crate::sql::Statement;

pub const SQL: &str =
    "SELECT name FROM sys.dm_exec_describe_first_result_set(@P1, @P2, 0) WHERE collation_name LIKE N'%[_]UTF8'";

/// Asks once for each statement of a session.
#[derive(Default)]
pub struct Describer {
    asked: HashSet<String>,
}

impl Describer {
    /// Refuses a statement with such a column, by its name.
    pub async fn check(&mut self, link: &mut Link, statement: &Statement<'_>) -> Result<()> {
        let sql: &str = &statement.sql;
        if self.asked.contains(sql) {
            return Ok(());
        }
        match utf8_columns(link, sql, &declared(statement)).await {
            Ok(columns) if columns.is_empty() => {}
            Ok(columns) => {
                return Err(Error::config(format!(
                    "source: sqlserver: column {}: must be of no collation _UTF8, which the driver cannot read; CAST it in the query to nvarchar",
                    columns.join(", ")
                )));
            }
            // Servers before 2012 describe nothing, and have no such collations (2019).
            Err(DriverError::Server(_)) => {}
            Err(error) => return Err(query_error(SQL, &error)),
        }
        self.asked.insert(sql.to_owned());
        Ok(())
    }
}

async fn utf8_columns(link: &mut Link, sql: &str, declared: &str) -> tiberius::Result<Vec<String>> {
    let rows = link.query(SQL, &[&sql, &declared]).await?.into_first_result().await?;
    let names =
        rows.iter().map(|row| row.try_get::<&str, _>(0).map(|name| name.unwrap_or("without a name").to_owned()));
    names.collect()
}

/// The parameters as a server is told of them.
fn declared(statement: &Statement<'_>) -> String {
    let kind = |day: &Option<jiff::civil::Date>| if day.is_some() { "date" } else { "nvarchar(4000)" };
    let each = statement.days.iter().enumerate().map(|(index, day)| format!("@P{} {}", index + 1, kind(day)));
    each.collect::<Vec<_>>().join(", ")
}
