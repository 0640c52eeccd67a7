//! A store's own database: one trait for all of them.
//!
//! A session runs one statement at a time and hands each value of each row to a [`Rows`] as it
//! leaves the driver's buffer. What a value means is decided there, not here.

use std::time::Duration;

use futures::future::LocalBoxFuture;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use ribera_storage::{Error, Result};

use crate::sql::{Dialect, Statement};
use crate::value::Rows;

mod audit;
mod driver;
mod firebird;
mod mysql;
mod postgres;
mod postgres_copy;
mod sqlite;
mod sqlite_functions;

pub use audit::{Fingerprint, fingerprints};
pub use firebird::FirebirdSource;
pub use mysql::MysqlSource;
pub use postgres::PostgresSource;
pub use sqlite::SqliteSource;

/// A database that can be connected to.
pub trait Source {
    fn dialect(&self) -> Dialect;
    /// Kind and place, without secrets.
    fn describe(&self) -> String;
    /// Opens a session. Errors: retry (not reachable), config (login, TLS, file name).
    fn connect(&self) -> LocalBoxFuture<'_, Result<Box<dyn Session>>>;
}

/// An open connection.
pub trait Session {
    /// The source's own clock. `zone` is the store's, for a clock that shows wall time only.
    fn now(&mut self, zone: &TimeZone) -> LocalBoxFuture<'_, Result<Timestamp>>;
    /// Begins a read-only transaction. `true`: everything read until [`Session::end`] is of one
    /// moment, so one audit is enough.
    fn begin(&mut self) -> LocalBoxFuture<'_, Result<bool>>;
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
        .with_hint("raise limits.chunk_timeout_s, or index the business date")
}
