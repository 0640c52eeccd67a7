//! SQLite: the file opened read-only in this process.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures::future::LocalBoxFuture;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use ribera_storage::ports::Clock;
use ribera_storage::{Error, Result};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::sqlite_functions::register;
use super::{Outcome, Session, Source};
use crate::sql::{Dialect, Statement};
use crate::value::{Rows, Value};

/// How long a statement waits for the till to finish writing.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// SQLite instructions between two looks at the clock; about a millisecond.
const PROGRESS_OPS: i32 = 100_000;

pub struct SqliteSource {
    path: PathBuf,
    clock: Rc<dyn Clock>,
}

impl SqliteSource {
    /// `path` may be a `file:` URI. The file has no clock of its own: `clock` is this machine's.
    pub fn new(path: impl Into<PathBuf>, clock: Rc<dyn Clock>) -> Self {
        Self { path: path.into(), clock }
    }
}

impl Source for SqliteSource {
    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }

    fn describe(&self) -> String {
        format!("sqlite {}", self.path.display())
    }

    fn connect(&self) -> LocalBoxFuture<'_, Result<Box<dyn Session>>> {
        Box::pin(async move {
            let connection = open(&self.path)?;
            Ok(Box::new(SqliteSession { connection, clock: self.clock.clone() }) as Box<dyn Session>)
        })
    }
}

fn open(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| {
        Error::config(format!("source: path: must be a SQLite file that can be read, got {}", path.display()))
            .with_source(error)
    })?;
    let prepared = connection.busy_timeout(BUSY_TIMEOUT).and_then(|()| register(&connection));
    prepared.map_err(|error| sqlite_error("opening", &error))?;
    Ok(connection)
}

struct SqliteSession {
    connection: Connection,
    clock: Rc<dyn Clock>,
}

impl Session for SqliteSession {
    fn now(&mut self, _zone: &TimeZone) -> LocalBoxFuture<'_, Result<Timestamp>> {
        Box::pin(async { Ok(self.clock.now()) })
    }

    fn begin(&mut self) -> LocalBoxFuture<'_, Result<bool>> {
        Box::pin(async {
            self.connection.execute_batch("BEGIN").map_err(|error| sqlite_error("BEGIN", &error))?;
            Ok(true)
        })
    }

    fn end(&mut self) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async {
            if !self.connection.is_autocommit() {
                self.connection.execute_batch("ROLLBACK").map_err(|error| sqlite_error("ROLLBACK", &error))?;
            }
            Ok(())
        })
    }

    fn query<'a>(
        &'a mut self,
        statement: &'a Statement<'a>,
        rows: &'a mut dyn Rows,
        timeout: Duration,
    ) -> LocalBoxFuture<'a, Result<Outcome>> {
        Box::pin(async move {
            // The timer's clock: how long a query takes has no part in any decision but its own end.
            let begun = Instant::now();
            let late = move || begun.elapsed() > timeout;
            self.connection
                .progress_handler(PROGRESS_OPS, Some(late))
                .map_err(|error| sqlite_error("query", &error))?;
            let outcome = run(&self.connection, statement, rows);
            let cleared = self.connection.progress_handler(0, None::<fn() -> bool>);
            cleared.map_err(|error| sqlite_error("query", &error))?;
            outcome
        })
    }
}

fn run(connection: &Connection, statement: &Statement<'_>, rows: &mut dyn Rows) -> Result<Outcome> {
    let mut prepared = connection.prepare_cached(&statement.sql).map_err(|error| match error.sqlite_error_code() {
        Some(ErrorCode::Unknown) | None => {
            Error::config("adapter: query: must be valid SQL of the source").with_source(error)
        }
        // The file is at fault: preparing reads it for the first time.
        Some(_) => sqlite_error("query", &error),
    })?;
    let names: Vec<String> = prepared.column_names().map(str::to_owned).collect();
    rows.begin(&names)?;
    let mut found = prepared
        .query(rusqlite::params_from_iter(&statement.parameters))
        .map_err(|error| sqlite_error("query", &error))?;
    loop {
        let row = match found.next() {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(Outcome::Done),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
                return Ok(Outcome::TimedOut);
            }
            Err(error) => return Err(sqlite_error("query", &error)),
        };
        for index in 0..names.len() {
            let value = row.get_ref(index).map_err(|error| sqlite_error("query", &error))?;
            rows.value(index, converted(value));
        }
        rows.end_row()?;
    }
}

/// Text that is not UTF-8 is handed over as bytes, which a text column refuses with the value.
pub(super) fn converted(value: ValueRef<'_>) -> Value<'_> {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Int(number),
        ValueRef::Real(number) => Value::Float(number),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Value::Text(text),
            Err(_) => Value::Bytes(bytes),
        },
        ValueRef::Blob(bytes) => Value::Bytes(bytes),
    }
}

fn sqlite_error(doing: &str, error: &rusqlite::Error) -> Error {
    let text = format!("source: sqlite: {doing}: {error}");
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            Error::config(text).with_hint("sqlite3 FILE 'PRAGMA integrity_check'")
        }
        // What a function of ours refused, or SQL that only fails on some row.
        Some(ErrorCode::Unknown) => Error::data(text),
        _ => Error::retry(text),
    }
}
