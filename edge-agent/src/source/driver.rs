//! What the sources with sqlx as their driver share: connecting in time, and the classes of errors.

use std::time::Duration;

use ribera_storage::{Error, Result};
use sqlx::error::DatabaseError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// The connection, or why there is none: config where a person must act, else retry. `is_login`
/// tells an error of user, password or database name from one that passes.
pub async fn connected<C>(
    place: &str,
    connecting: impl Future<Output = sqlx::Result<C>>,
    is_login: impl Fn(&dyn DatabaseError) -> bool,
) -> Result<C> {
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(connect_error(place, error, is_login).with_hint("ribera-agent check")),
        Err(_) => Err(Error::retry(format!("source: {place}: no answer within {} s", CONNECT_TIMEOUT.as_secs()))),
    }
}

fn connect_error(place: &str, error: sqlx::Error, is_login: impl Fn(&dyn DatabaseError) -> bool) -> Error {
    let text = format!("source: {place}: cannot connect");
    match &error {
        sqlx::Error::Database(database) if is_login(database.as_ref()) => {
            Error::config(format!("{text}: user, password or database name: {database}"))
        }
        sqlx::Error::Database(database) => Error::retry(format!("{text}: {database}")),
        sqlx::Error::Tls(_) | sqlx::Error::Configuration(_) => Error::config(format!("{text}: source.tls: {error}")),
        // How the TLS library says that it does not trust the certificate.
        sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::InvalidData => {
            Error::config(format!("{text}: source.tls: {io}"))
        }
        _ => Error::retry(text).with_source(error),
    }
}

/// The beginning of a statement, on one line, for error messages.
pub fn shown(sql: &str) -> String {
    sql.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(80).collect()
}
