//! What the sources with sqlx as their driver share: connecting in time, and the classes of errors.

use std::path::Path;
use std::time::Duration;

use ribera_storage::{Error, Result};
use sqlx::error::DatabaseError;

use super::certificate;
use crate::config::ServerConfig;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// Kind, database and place, without secrets; `port` is the one that holds unless another is configured.
pub fn describe(kind: &str, config: &ServerConfig, port: u16) -> String {
    let ServerConfig { host, socket, database, .. } = config;
    match socket {
        Some(socket) => format!("{kind} {database} at {}", socket.display()),
        None => {
            format!("{kind} {database} at {}:{}", host.as_deref().unwrap_or_default(), config.port.unwrap_or(port))
        }
    }
}

/// The connection, or why there is none: config where a person must act, else retry. `advice` tells
/// what a server's refusal is about; nothing for one that passes. `ca_file` is `source.tls_ca_file`.
pub async fn connected<C>(
    place: &str,
    ca_file: Option<&Path>,
    connecting: impl Future<Output = sqlx::Result<C>>,
    advice: impl Fn(&dyn DatabaseError) -> Option<&'static str>,
) -> Result<C> {
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(connect_error(place, ca_file, error, advice).with_hint("ribera-agent check")),
        Err(_) => Err(Error::retry(format!("source: {place}: no answer within {} s", CONNECT_TIMEOUT.as_secs()))),
    }
}

fn connect_error(
    place: &str,
    ca_file: Option<&Path>,
    error: sqlx::Error,
    advice: impl Fn(&dyn DatabaseError) -> Option<&'static str>,
) -> Error {
    let text = format!("source: {place}: cannot connect");
    match &error {
        sqlx::Error::Database(database) => match advice(database.as_ref()) {
            Some(advice) => Error::config(format!("{text}: {advice}: {database}")),
            None => Error::retry(format!("{text}: {database}")),
        },
        sqlx::Error::Protocol(message) if message.contains("authentication plugin") => Error::config(format!(
            "{text}: the user logs in by a plugin that this program does not speak ({message}): make one for it with \
             mysql_native_password or caching_sha2_password (CREATE USER ... IDENTIFIED WITH, in MariaDB IDENTIFIED VIA)"
        )),
        sqlx::Error::Tls(_) | sqlx::Error::Configuration(_) => tls_error(&text, &error.to_string(), ca_file),
        // How the TLS library says that it does not trust the certificate.
        sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::InvalidData => {
            tls_error(&text, &io.to_string(), ca_file)
        }
        _ => Error::retry(text).with_source(error),
    }
}

/// What is wrong with the encryption, and what to do about a server that is too old for it.
fn tls_error(text: &str, message: &str, ca_file: Option<&Path>) -> Error {
    if let Some(explained) = certificate::explained(message, ca_file) {
        return Error::config(format!("{text}: {explained}"));
    }
    let folded: String = message.to_lowercase().chars().filter(|character| !matches!(character, ' ' | '_')).collect();
    let advice = if folded.contains("tls12or13") || folded.contains("protocolversion") {
        ": the server speaks only TLS 1.0 or 1.1; update it or give it TLS 1.2. On the same machine, or through a tunnel, source.tls = \"off\""
    } else if folded.contains("notsupport") {
        ": the server does not encrypt; switch TLS on there. On the same machine, or through a tunnel, source.tls = \"off\""
    } else {
        ""
    };
    Error::config(format!("{text}: source.tls: {message}{advice}"))
}

/// The beginning of a statement, on one line, for error messages.
pub fn shown(sql: &str) -> String {
    sql.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(80).collect()
}
