//! What a server says of its companies.

use std::borrow::Cow;
use std::time::Duration;

use ribera_storage::{Error, Result};

use super::company::Row;
use crate::calendar::{DAY_MICROS, date_of};
use crate::config::Discover;
use crate::source::{Outcome, Rows, Source, Value, timed_out};
use crate::sql::{ResultSet, Statement};

const TIMEOUT: Duration = Duration::from_secs(60);
/// No chain has so many companies; a wrong table may have so many rows.
const ROWS_MAX: usize = 100_000;
const COLUMNS: [&str; 5] = ["code", "name", "tax_number", "fiscal_year", "path"];

/// The rows of the master table, in the order of the query.
pub async fn ask(section: &Discover, kind: &str, source: &dyn Source) -> Result<Vec<Row>> {
    let sql = query(section, kind)?;
    let mut session = source.connect().await?;
    let statement =
        Statement { sql: Cow::Owned(sql), parameters: Vec::new(), days: Vec::new(), result_set: ResultSet::Only };
    let mut reader = Reader::default();
    match session.query(&statement, &mut reader, TIMEOUT).await? {
        Outcome::Done => Ok(reader.rows),
        Outcome::TimedOut => Err(timed_out("discover", TIMEOUT)),
    }
}

/// The query for the companies, or for the databases of the server.
pub fn query(section: &Discover, kind: &str) -> Result<String> {
    if section.databases {
        return databases(kind).map(str::to_owned).ok_or_else(|| {
            Error::config(format!(
                "configuration: discover.databases: must be false for a server without a list of its databases, got {kind}"
            ))
            .with_hint("name its master table: discover.from and discover.columns")
        });
    }
    if let Some(query) = &section.query {
        return Ok(query.clone());
    }
    let columns = &section.columns;
    let filter = section.filter.as_ref().map(|filter| format!(" WHERE {filter}")).unwrap_or_default();
    Ok(format!(
        "SELECT {} AS code, {} AS name, {} AS tax_number, {} AS fiscal_year, {} AS path FROM {}{filter} ORDER BY 1, 4",
        columns.code, columns.name, columns.tax_number, columns.fiscal_year, columns.path, section.from
    ))
}

/// Databases that are the users' own.
fn databases(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "mysql" => {
            "SELECT schema_name AS code, schema_name AS name, '' AS tax_number, '' AS fiscal_year, schema_name AS path
             FROM information_schema.schemata
             WHERE schema_name NOT IN ('information_schema', 'mysql', 'performance_schema', 'sys') ORDER BY 1"
        }
        "postgres" => {
            "SELECT datname::text AS code, datname::text AS name, ''::text AS tax_number, ''::text AS fiscal_year,
                 datname::text AS path
             FROM pg_catalog.pg_database
             WHERE datallowconn AND NOT datistemplate AND datname <> 'postgres'
                 AND has_database_privilege(oid, 'CONNECT') ORDER BY 1"
        }
        "sqlserver" => {
            "SELECT name AS code, name AS name, '' AS tax_number, '' AS fiscal_year, name AS path
             FROM sys.databases WHERE database_id > 4 AND state = 0 AND HAS_DBACCESS(name) = 1 ORDER BY 1"
        }
        _ => return None,
    })
}

/// Keeps every value as text.
#[derive(Default)]
struct Reader {
    /// Which of [`COLUMNS`] a result column is.
    meanings: Vec<usize>,
    row: Row,
    rows: Vec<Row>,
}

impl Rows for Reader {
    fn begin(&mut self, names: &[String]) -> Result<()> {
        let known = |name: &String| COLUMNS.iter().position(|known| name.eq_ignore_ascii_case(known));
        let missing = COLUMNS.iter().find(|known| !names.iter().any(|name| name.eq_ignore_ascii_case(known)));
        let unknown = names.iter().find(|name| known(name).is_none());
        if missing.is_some() || unknown.is_some() || names.len() != COLUMNS.len() {
            return Err(Error::config(format!(
                "configuration: discover.query: result columns must be {}, got {}",
                COLUMNS.join(", "),
                names.join(", ")
            )));
        }
        self.meanings = names.iter().filter_map(known).collect();
        Ok(())
    }

    fn value(&mut self, index: usize, value: Value<'_>) {
        let text = text_of(value);
        let Row { code, name, tax_number, fiscal_year, path } = &mut self.row;
        let fields = [code, name, tax_number, fiscal_year, path];
        if let Some(field) = self.meanings.get(index).and_then(|meaning| fields.into_iter().nth(*meaning)) {
            *field = text;
        }
    }

    fn end_row(&mut self) -> Result<()> {
        if self.rows.len() >= ROWS_MAX {
            return Err(Error::config(format!(
                "configuration: discover.from: must be a table of companies, got one of more than {ROWS_MAX} rows"
            )));
        }
        self.rows.push(std::mem::take(&mut self.row));
        Ok(())
    }
}

/// As people would write it; a date, which may stand for a fiscal year, is its year.
fn text_of(value: Value<'_>) -> String {
    let year = |days: i64| i32::try_from(days).ok().and_then(date_of).map(|date| date.year().to_string());
    match value {
        Value::Null | Value::NoDate(_) => String::new(),
        Value::Text(text) => text.trim().to_owned(),
        // A character set that the driver does not know: digits and Latin letters are the same in all.
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).trim().to_owned(),
        Value::Decimal(number) => number.normalized().to_string(),
        Value::Float(number) | Value::LargeMoney(number) => number.to_string(),
        Value::Date(days) => year(days.into()).unwrap_or_default(),
        Value::Local(micros) | Value::Instant(micros) => year(micros.div_euclid(DAY_MICROS)).unwrap_or_default(),
        other => other.to_string(),
    }
}
