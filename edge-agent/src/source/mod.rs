//! A store's own database: one trait for all of them.
//!
//! A session runs one statement at a time and hands each value of each row to a [`Rows`] as it
//! leaves the driver's buffer. What a value means is decided there, not here.

use std::rc::Rc;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use ribera_storage::ports::Clock;
use ribera_storage::{Error, Result};

use crate::calendar::Days;
use crate::config::{Databases, SourceConfig, StoreConfig};
use crate::sql::{Dialect, Statement};

mod audit;
mod certificate;
mod databases;
mod firebird;
mod mysql;
mod postgres;
pub mod reach;
mod result_sets;
mod row;
mod sqlite;
mod sqlserver;
mod sqlx_common;
pub(crate) mod tls;

pub use audit::{Answer, fingerprints};
pub(crate) use audit::{count_of, day_of};
pub use databases::{DatabasesSource, connect_for_clock, pieces};
pub use firebird::{FirebirdSource, PORT as FIREBIRD_PORT};
pub use mysql::{MysqlSource, PORT as MYSQL_PORT};
pub use postgres::{PORT as POSTGRES_PORT, PostgresSource};
pub use row::{Rows, Value};
pub use sqlite::SqliteSource;
pub use sqlserver::{PORT as SQL_SERVER_PORT, SqlServerSource, port_of};

/// A database that can be connected to.
pub trait Source {
    fn dialect(&self) -> Dialect;
    /// Kind and place, without secrets.
    fn describe(&self) -> String;
    /// Kind and place of the database that holds `day`, without secrets.
    fn describe_for(&self, _day: Date) -> String {
        self.describe()
    }
    /// Opens a session. Errors: retry (not reachable), config (login, TLS, file name).
    fn connect(&self) -> LocalBoxFuture<'_, Result<Box<dyn Session>>>;
    /// The days around `day` that lie in the same database: all days, unless there are several.
    fn span(&self, _day: Date) -> Days {
        Days { from: Date::MIN, to: Date::MAX }
    }
    /// Opens a session with the database that holds `day`.
    fn connect_for(&self, _day: Date) -> LocalBoxFuture<'_, Result<Box<dyn Session>>> {
        self.connect()
    }
}

/// The source of a store.
pub fn open(store: &StoreConfig, clock: &Rc<dyn Clock>) -> Result<Box<dyn Source>> {
    let opener = |source: SourceConfig, clock: Rc<dyn Clock>| -> Box<dyn Source> {
        match source {
            SourceConfig::Sqlite { path, charset } => Box::new(SqliteSource::new(path, clock).with_charset(charset)),
            SourceConfig::Mysql(server) => Box::new(MysqlSource::new(server)),
            SourceConfig::Postgres(server) => Box::new(PostgresSource::new(server)),
            SourceConfig::Firebird(server) => Box::new(FirebirdSource::new(server)),
            SourceConfig::SqlServer(server) => Box::new(SqlServerSource::new(server)),
        }
    };
    let Some(databases) = Databases::of_store(store)? else {
        return Ok(opener(store.source.clone(), clock.clone()));
    };
    let (source, inner_clock) = (store.source.clone(), clock.clone());
    let open = move |database: &str| opener(source.with_database(database), inner_clock.clone());
    Ok(Box::new(DatabasesSource::new(store, databases, clock.clone(), Box::new(open))))
}

/// An open connection.
pub trait Session {
    /// The source's own clock. `zone` is the store's, for a clock that shows wall time only.
    fn now(&mut self, zone: &TimeZone) -> LocalBoxFuture<'_, Result<Timestamp>>;
    /// Makes the session tell moments as the store's clock does that shows `zone`, as of `at`: its own conversions
    /// of a moment to a day are the store's then. See [`Dialect::has_fixed_offsets`].
    fn enter_zone<'a>(&'a mut self, _zone: &'a TimeZone, _at: Timestamp) -> LocalBoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }
    /// Looks at statements that will be asked, before a transaction is begun: a server may end it at what is
    /// asked about them.
    fn prepare<'a>(&'a mut self, _statements: &'a [Statement<'a>]) -> LocalBoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }
    /// Whether the transaction that [`Session::begin`] began still lasts, as far as the last query tells. A server
    /// may end one by itself, and each query is then of a moment of its own.
    fn is_transaction_open(&self) -> bool {
        true
    }
    /// Begins a read-only transaction. `true`: everything read until [`Session::end`] is of one
    /// moment, so one audit is enough.
    fn begin(&mut self) -> LocalBoxFuture<'_, Result<bool>>;
    /// Whether all tables that `sql` may read are held still by the transaction that [`Session::begin`] began.
    fn is_in_snapshot(&self, _sql: &str) -> bool {
        true
    }
    /// Rows that one query may read at most while others cannot write; `None` where readers keep no one waiting.
    fn rows_at_once_max(&self) -> Option<u64> {
        None
    }
    /// Ends the transaction; it is no error when there is none.
    fn end(&mut self) -> LocalBoxFuture<'_, Result<()>>;
    /// Runs a query and hands over its rows. A query that takes longer than `timeout` is ended.
    fn query<'a>(
        &'a mut self,
        statement: &'a Statement<'a>,
        rows: &'a mut dyn Rows,
        timeout: Duration,
    ) -> LocalBoxFuture<'a, Result<Outcome>>;
    /// What the connected user could change, if the server tells; a reader should be able to
    /// change nothing.
    fn write_rights(&mut self) -> LocalBoxFuture<'_, Result<Option<String>>> {
        Box::pin(async { Ok(None) })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Rows handed over so far are of no use.
    TimedOut,
}

/// The error of a query that took too long and cannot be halved any more.
pub fn timed_out(what: &str, timeout: Duration) -> Error {
    Error::retry(format!("{what}: the source did not answer within {} s", timeout.as_secs()))
        .with_hint("ribera-agent check, then raise limits.chunk_timeout_s or index the business date")
}
