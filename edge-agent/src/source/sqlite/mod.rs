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

use super::{Outcome, Session, Source};
use crate::config::Charset;
use crate::source::{Rows, Value};
use crate::sql::{Dialect, Statement};
use days::StoreZone;
use functions::register;

mod days;
mod functions;

/// How long a statement waits for the till to finish writing.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Rows that are read while the till may have to wait, unless one day has more.
const ROWS_AT_ONCE_MAX: u64 = 5_000;
/// SQLite instructions between two looks at the clock; about a millisecond.
const PROGRESS_OPS: i32 = 100_000;

pub struct SqliteSource {
    path: PathBuf,
    charset: Option<Charset>,
    clock: Rc<dyn Clock>,
}

impl SqliteSource {
    /// `path` may be a `file:` URI. The file has no clock of its own: `clock` is this machine's.
    pub fn new(path: impl Into<PathBuf>, clock: Rc<dyn Clock>) -> Self {
        Self { path: path.into(), charset: None, clock }
    }

    /// With text in another character set than UTF-8.
    pub fn with_charset(self, charset: Option<Charset>) -> Self {
        Self { charset, ..self }
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
            let (connection, zone) = open(&self.path)?;
            let mode: String = connection
                .query_row("PRAGMA journal_mode", [], |row| row.get(0))
                .map_err(|error| unreadable(&self.path, &error))?;
            let is_wal = mode.eq_ignore_ascii_case("wal");
            let session = SqliteSession { connection, zone, is_wal, charset: self.charset, clock: self.clock.clone() };
            Ok(Box::new(session) as Box<dyn Session>)
        })
    }
}

fn open(path: &Path) -> Result<(Connection, StoreZone)> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| {
        Error::config(format!("source: path: must be a SQLite file that can be read, got {}", path.display()))
            .with_source(error)
    })?;
    let prepared = connection.busy_timeout(BUSY_TIMEOUT).and_then(|()| register(&connection));
    let zone = prepared.and_then(|()| StoreZone::register(&connection));
    zone.map(|zone| (connection, zone)).map_err(|error| sqlite_error("opening", &error))
}

struct SqliteSession {
    connection: Connection,
    zone: StoreZone,
    /// Readers keep no writer waiting. Without it a writer waits until the last statement of a transaction has
    /// read its last row.
    is_wal: bool,
    charset: Option<Charset>,
    clock: Rc<dyn Clock>,
}

impl Session for SqliteSession {
    fn now(&mut self, _zone: &TimeZone) -> LocalBoxFuture<'_, Result<Timestamp>> {
        Box::pin(async { Ok(self.clock.now()) })
    }

    fn enter_zone<'a>(&'a mut self, zone: &'a TimeZone, _at: Timestamp) -> LocalBoxFuture<'a, Result<()>> {
        Box::pin(async {
            self.zone.set(zone);
            Ok(())
        })
    }

    fn begin(&mut self) -> LocalBoxFuture<'_, Result<bool>> {
        Box::pin(async {
            if !self.is_wal {
                return Ok(false);
            }
            self.connection.execute_batch("BEGIN").map_err(|error| sqlite_error("BEGIN", &error))?;
            Ok(true)
        })
    }

    fn rows_at_once_max(&self) -> Option<u64> {
        (!self.is_wal).then_some(ROWS_AT_ONCE_MAX)
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
            let outcome = match self.is_wal {
                true => run(&self.connection, statement, self.charset, rows),
                false => run_at_once(&self.connection, statement, self.charset, rows),
            };
            let cleared = self.connection.progress_handler(0, None::<fn() -> bool>);
            cleared.map_err(|error| sqlite_error("query", &error))?;
            outcome
        })
    }
}

/// Reads the rows into memory and hands them over when the file is free again: encoding and writing them takes
/// longer than reading, and the till would wait for it.
fn run_at_once(
    connection: &Connection,
    statement: &Statement<'_>,
    charset: Option<Charset>,
    rows: &mut dyn Rows,
) -> Result<Outcome> {
    let mut kept = KeptRows::default();
    let outcome = run(connection, statement, charset, &mut kept)?;
    if outcome == Outcome::Done {
        kept.hand_over(rows)?;
    }
    Ok(outcome)
}

/// Rows that wait for their receiver: each text as the bytes of the file, and what they mean.
#[derive(Default)]
struct KeptRows {
    names: Vec<String>,
    values: Vec<Kept>,
}

enum Kept {
    Null,
    Int(i64),
    Float(f64),
    Text(String),
    RawText(Vec<u8>, Option<Charset>),
    Bytes(Vec<u8>),
}

impl KeptRows {
    fn hand_over(self, rows: &mut dyn Rows) -> Result<()> {
        rows.begin(&self.names)?;
        for row in self.values.chunks(self.names.len().max(1)) {
            for (index, value) in row.iter().enumerate() {
                match value {
                    Kept::Null => rows.value(index, Value::Null),
                    Kept::Int(number) => rows.value(index, Value::Int(*number)),
                    Kept::Float(number) => rows.value(index, Value::Float(*number)),
                    Kept::Text(text) => rows.value(index, Value::Text(text)),
                    Kept::RawText(bytes, charset) => rows.raw_text(index, bytes, *charset),
                    Kept::Bytes(bytes) => rows.value(index, Value::Bytes(bytes)),
                }
            }
            rows.end_row()?;
        }
        Ok(())
    }
}

impl Rows for KeptRows {
    fn begin(&mut self, names: &[String]) -> Result<()> {
        self.names = names.to_vec();
        Ok(())
    }

    fn value(&mut self, _: usize, value: Value<'_>) {
        self.values.push(match value {
            Value::Int(number) => Kept::Int(number),
            Value::Float(number) => Kept::Float(number),
            Value::Text(text) => Kept::Text(text.to_owned()),
            Value::Bytes(bytes) => Kept::Bytes(bytes.to_vec()),
            // A file gives no other.
            _ => Kept::Null,
        });
    }

    fn raw_text(&mut self, _: usize, bytes: &[u8], charset: Option<Charset>) {
        self.values.push(Kept::RawText(bytes.to_vec(), charset));
    }

    fn end_row(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Why the file cannot be read although it was opened.
fn unreadable(path: &Path, error: &rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        // A file in WAL mode that no one has open needs its helper files made.
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly) => Error::config(format!(
            "source: sqlite: {}: the file is in WAL mode, whose -shm and -wal files must be made beside it when no one else has it open: \
             the agent's user needs to write in the folder (with systemd: ReadWritePaths), got {error}",
            path.display()
        )),
        _ => sqlite_error("opening", error),
    }
}

fn run(
    connection: &Connection,
    statement: &Statement<'_>,
    charset: Option<Charset>,
    rows: &mut dyn Rows,
) -> Result<Outcome> {
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
            match value {
                // Nobody has looked at its bytes yet. In every character set that may be declared ASCII is ASCII.
                ValueRef::Text(bytes) if !bytes.is_ascii() => rows.raw_text(index, bytes, charset),
                value => rows.value(index, converted(value)),
            }
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
