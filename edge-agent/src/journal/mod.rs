//! The journal: what the agent knows of every day, batch and stream. SQLite with full sync; every
//! change is one transaction, so a crash leaves either the old or the new state.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use ribera_storage::ports::Random;
use ribera_storage::{DatasetName, Error, Result, StoreId, heartbeat};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, params};

use crate::ports::{FailPoints, NoFailPoints, step};

mod alarms;
mod batches;
mod differing;
pub mod recover;
mod streams;
#[cfg(test)]
mod tests;
mod units;

pub use alarms::{AlarmChange, StoreAlarm};
pub use batches::{BatchRow, BatchState, NewBatch, SpoolUse};
pub use streams::StreamState;

const SCHEMA_VERSION: i64 = 2;
/// More than the journal has statements, so that each is prepared once.
const STATEMENTS_KEPT: usize = 64;
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

const SCHEMA: &str = "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE stream (
        store TEXT NOT NULL, dataset TEXT NOT NULL,
        epoch INTEGER NOT NULL, next_sequence INTEGER NOT NULL,
        PRIMARY KEY (store, dataset)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE unit (
        store TEXT NOT NULL, dataset TEXT NOT NULL, unit TEXT NOT NULL,
        dataset_version INTEGER NOT NULL,
        fingerprint TEXT NOT NULL,
        facts TEXT NOT NULL,
        closed INTEGER NOT NULL, proven INTEGER NOT NULL, final INTEGER NOT NULL,
        stale INTEGER NOT NULL, tries INTEGER NOT NULL,
        batch INTEGER NOT NULL,
        lake TEXT NOT NULL,
        doubted INTEGER NOT NULL DEFAULT 0,
        extracted_at TEXT NOT NULL,
        refused TEXT, values_digest TEXT,
        PRIMARY KEY (store, dataset, unit)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX unit_batch ON unit (batch);
    CREATE INDEX unit_refused ON unit (store, dataset) WHERE refused IS NOT NULL;
    -- Few at a time, and asked for at each look.
    CREATE INDEX unit_stale ON unit (store, dataset) WHERE stale;
    CREATE INDEX unit_doubted ON unit (store, dataset) WHERE doubted;
    CREATE TABLE batch (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        store TEXT NOT NULL, dataset TEXT NOT NULL,
        state TEXT NOT NULL,
        epoch INTEGER, sequence INTEGER,
        file TEXT NOT NULL, bytes INTEGER NOT NULL,
        last_unit TEXT NOT NULL,
        manifest TEXT NOT NULL,
        outcome TEXT,
        updated_at TEXT NOT NULL
    ) STRICT;
    CREATE INDEX batch_state ON batch (state);
    CREATE TABLE batch_unit (
        batch INTEGER NOT NULL, unit TEXT NOT NULL, PRIMARY KEY (batch, unit)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX batch_unit_unit ON batch_unit (unit);
    CREATE TABLE definition (
        kind TEXT NOT NULL, name TEXT NOT NULL, text TEXT NOT NULL, PRIMARY KEY (kind, name)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE cycle (
        store TEXT NOT NULL, dataset TEXT NOT NULL, begun_at TEXT NOT NULL, outcome TEXT NOT NULL, good_at TEXT NOT NULL,
        PRIMARY KEY (store, dataset)
    ) STRICT, WITHOUT ROWID;
";

/// From version 1: units that are refused, by what values were read, and what grew with stores and years without an index.
const TO_VERSION_2: &str = "
    ALTER TABLE unit ADD COLUMN refused TEXT;
    ALTER TABLE unit ADD COLUMN values_digest TEXT;
    CREATE INDEX unit_batch ON unit (batch);
    CREATE INDEX unit_refused ON unit (store, dataset) WHERE refused IS NOT NULL;
    CREATE INDEX batch_unit_unit ON batch_unit (unit);
";

pub struct Journal {
    connection: Connection,
    fail_points: Rc<dyn FailPoints>,
    id: String,
}

impl Journal {
    /// Opens or makes the journal behind `connection`. Errors: data when it is damaged.
    pub fn open(connection: Connection, random: &dyn Random, fail_points: Rc<dyn FailPoints>) -> Result<Self> {
        connection.busy_timeout(BUSY_TIMEOUT).map_err(journal_error)?;
        connection
            .execute_batch("PRAGMA journal_mode = TRUNCATE; PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF;")
            .map_err(journal_error)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
        // Plans do not depend on the values bound: else SQLite prepares many a statement again at every call.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(journal_error)?;
        check(&connection)?;
        let version = version(&connection)?;
        let journal = Self { connection, fail_points, id: String::new() };
        if version < SCHEMA_VERSION {
            journal.transaction(|transaction| {
                if version == 0 {
                    transaction.execute_batch(SCHEMA)?;
                    execute(transaction, "INSERT INTO meta VALUES ('journal_id', ?)", [random.fresh_name()])?;
                } else {
                    transaction.execute_batch(TO_VERSION_2)?;
                }
                transaction.pragma_update(None, "user_version", SCHEMA_VERSION)
            })?;
        }
        // Earlier versions closed the number of a lost file by a manifest without data.
        execute(&journal.connection, "DELETE FROM batch WHERE state = 'voiding'", []).map_err(journal_error)?;
        journal.with_id()
    }

    /// Opens the file, which is made if it is absent.
    pub fn open_file(path: &Path, random: &dyn Random, fail_points: Rc<dyn FailPoints>) -> Result<Self> {
        let connection = Connection::open(path).map_err(journal_error)?;
        Self::open(connection, random, fail_points).map_err(|error| error.context(path.display()))
    }

    /// Opens the file for reading only; one in memory when there is none.
    pub fn open_file_to_read(path: &Path, random: &dyn Random) -> Result<Self> {
        if !path.exists() {
            let connection = Connection::open_in_memory().map_err(journal_error)?;
            return Self::open(connection, random, Rc::new(NoFailPoints));
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(journal_error)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(journal_error)?;
        let opened = check(&connection).and_then(|()| version(&connection)).and_then(|version| {
            if version == SCHEMA_VERSION {
                return Self { connection, fail_points: Rc::new(NoFailPoints), id: String::new() }.with_id();
            }
            // An older program wrote it: a copy is brought up to date, because a reader must not change the file.
            let mut copy = Connection::open_in_memory().map_err(journal_error)?;
            rusqlite::backup::Backup::new(&connection, &mut copy)
                .and_then(|backup| backup.run_to_completion(1000, Duration::ZERO, None))
                .map_err(journal_error)?;
            Self::open(copy, random, Rc::new(NoFailPoints))
        });
        opened.map_err(|error| error.context(path.display()))
    }

    /// Random, made with the journal.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Keeps a definition for times without the object store.
    pub fn cache_definition(&self, kind: &str, name: &str, text: &str) -> Result<()> {
        if self.cached_definition(kind, name)?.as_deref() == Some(text) {
            return Ok(());
        }
        self.transaction(|transaction| {
            execute(transaction, "INSERT OR REPLACE INTO definition VALUES (?, ?, ?)", [kind, name, text]).map(drop)
        })
    }

    pub fn cached_definition(&self, kind: &str, name: &str) -> Result<Option<String>> {
        self.connection
            .prepare_cached("SELECT text FROM definition WHERE kind = ? AND name = ?")
            .and_then(|mut statement| statement.query_row([kind, name], |row| row.get(0)).optional())
            .map_err(journal_error)
    }

    /// Remembers when a dataset's cycle began and what came of it. `seen_at` is the earliest that
    /// "now" may have been: should the cycles after this one fail, whoever succeeds looks back so far.
    pub fn record_cycle(
        &self,
        store: &StoreId,
        dataset: &DatasetName,
        begun_at: jiff::Timestamp,
        seen_at: jiff::Timestamp,
        outcome: &str,
    ) -> Result<()> {
        self.transaction(|transaction| {
            // The first of all counts as good: what was before it is a backfill's business.
            execute(
                transaction,
                "INSERT INTO cycle VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO UPDATE SET begun_at = ?3, outcome = ?4,
                     good_at = CASE WHEN ?4 = ?6 THEN ?5 ELSE good_at END",
                params![
                    store.as_str(),
                    dataset.as_str(),
                    begun_at.to_string(),
                    outcome,
                    seen_at.to_string(),
                    heartbeat::GOOD
                ],
            )
            .map(drop)
        })
    }

    /// Keeps `value` under `key`, or forgets it.
    pub fn note(&self, key: &str, value: Option<&str>) -> Result<()> {
        self.transaction(|transaction| match value {
            Some(value) => {
                let known = "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2";
                execute(transaction, known, [key, value]).map(drop)
            }
            None => execute(transaction, "DELETE FROM meta WHERE key = ?", [key]).map(drop),
        })
    }

    pub fn noted(&self, key: &str) -> Result<Option<String>> {
        self.connection
            .prepare_cached("SELECT value FROM meta WHERE key = ?")
            .and_then(|mut statement| statement.query_row([key], |row| row.get(0)).optional())
            .map_err(journal_error)
    }

    /// When the last cycle that succeeded looked at the source, or else the first of all.
    pub fn last_good_cycle(&self, store: &StoreId, dataset: &DatasetName) -> Result<Option<jiff::Timestamp>> {
        let found: Option<String> = self
            .connection
            .prepare_cached("SELECT good_at FROM cycle WHERE store = ? AND dataset = ?")
            .and_then(|mut statement| {
                statement.query_row([store.as_str(), dataset.as_str()], |row| row.get(0)).optional()
            })
            .map_err(journal_error)?;
        Ok(found.and_then(|at| at.parse().ok()))
    }

    /// When a dataset's last cycle began, and what came of it.
    pub fn last_cycle(&self, store: &StoreId, dataset: &DatasetName) -> Result<Option<(jiff::Timestamp, String)>> {
        let found: Option<(String, String)> = self
            .connection
            .prepare_cached("SELECT begun_at, outcome FROM cycle WHERE store = ? AND dataset = ?")
            .and_then(|mut statement| {
                let known = [store.as_str(), dataset.as_str()];
                statement.query_row(known, |row| Ok((row.get(0)?, row.get(1)?))).optional()
            })
            .map_err(journal_error)?;
        Ok(found.and_then(|(at, outcome)| Some((at.parse().ok()?, outcome))))
    }

    /// Runs `change` in one transaction, made durable at its end.
    fn transaction<T>(&self, change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T> {
        let transaction = self.connection.unchecked_transaction().map_err(journal_error)?;
        let value = change(&transaction).map_err(journal_error)?;
        // An error here drops the transaction, which rolls it back.
        self.fail_points.hit(step::JOURNAL_COMMIT)?;
        transaction.commit().map_err(journal_error)?;
        Ok(value)
    }

    fn with_id(mut self) -> Result<Self> {
        let id = self.connection.query_row("SELECT value FROM meta WHERE key = 'journal_id'", [], |row| row.get(0));
        self.id = id.map_err(journal_error)?;
        Ok(self)
    }
}

/// Executes a statement that is kept prepared.
fn execute(connection: &Connection, sql: &str, parameters: impl rusqlite::Params) -> rusqlite::Result<usize> {
    connection.prepare_cached(sql)?.execute(parameters)
}

fn version(connection: &Connection) -> Result<i64> {
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(journal_error)?;
    if version > SCHEMA_VERSION {
        return Err(Error::config(format!(
            "journal: version must be at most {SCHEMA_VERSION}, got {version}: it was written by a newer ribera-agent"
        ))
        .with_hint("ribera-agent --version, and start the newer one again"));
    }
    Ok(version)
}

fn check(connection: &Connection) -> Result<()> {
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(journal_error)?;
    if verdict == "ok" { Ok(()) } else { Err(damaged(&verdict)) }
}

fn damaged(what: &str) -> Error {
    Error::data(format!(
        "journal: damaged ({what}). A new journal takes a new epoch, so that nothing it sends can be mistaken"
    ))
    .with_hint("ribera-agent once --new-journal")
}

/// What SQLite says of the journal, as what the operator should do.
pub(crate) fn journal_error(error: rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => damaged(&error.to_string()),
        Some(ErrorCode::DiskFull) => {
            let shown = crate::system::free_space(std::path::Path::new("."));
            Error::config("journal: the disk is full").with_source(error).with_hint(shown)
        }
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            Error::config("journal: its folder must be writable by this user").with_source(error)
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::SystemIoFailure) => {
            Error::retry("journal: cannot be written now").with_source(error)
        }
        _ => Error::bug("journal").with_source(error),
    }
}
