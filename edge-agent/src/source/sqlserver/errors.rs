//! What the server's and the driver's errors mean for whoever runs the agent.

use ribera_storage::{Error, ErrorKind};
use tiberius::error::{Error as DriverError, IoErrorKind};

use crate::config::{SqlServerConfig, SqlServerLogin, TlsMode};
use crate::source::certificate;

pub use super::super::sqlx_common::shown;

/// A number of the server's, what it means, and what to do.
type Meaning = (u32, ErrorKind, &'static str);

const CONNECT: &[Meaning] = &[
    (
        18456,
        ErrorKind::Config,
        "user or password; or the server takes Windows logins only: enable SQL Server and Windows Authentication mode",
    ),
    (
        18452,
        ErrorKind::Config,
        "the server takes Windows logins only: enable SQL Server and Windows Authentication mode",
    ),
    (18470, ErrorKind::Config, "ALTER LOGIN ... ENABLE"),
    (18486, ErrorKind::Config, "ALTER LOGIN ... WITH PASSWORD = '...' UNLOCK"),
    (18487, ErrorKind::Config, "ALTER LOGIN ... WITH PASSWORD = '...', CHECK_EXPIRATION = OFF"),
    (18488, ErrorKind::Config, "the password must be changed once: ALTER LOGIN ... WITH PASSWORD = '...'"),
    (4060, ErrorKind::Config, "source.database, or CREATE USER ... FOR LOGIN ... in it"),
    (4063, ErrorKind::Config, "source.database"),
    (911, ErrorKind::Config, "source.database"),
    (916, ErrorKind::Config, "CREATE USER ... FOR LOGIN ... in that database"),
];

/// The error of a login by a Windows account.
const CONNECT_BY_WINDOWS: &[Meaning] = &[
    (
        18456,
        ErrorKind::Config,
        r"source.user: the server has no login for that Windows account: CREATE LOGIN [DOMAIN\name] FROM WINDOWS",
    ),
    (
        18452,
        ErrorKind::Config,
        "source.user: the server does not trust that Windows account's domain: take an account of its own machine or domain, or a \
         login of SQL Server's own",
    ),
];

const QUERY: &[Meaning] = &[
    (229, ErrorKind::Config, "GRANT the user that right"),
    (230, ErrorKind::Config, "GRANT the user that right"),
    (262, ErrorKind::Config, "GRANT the user that right"),
    (916, ErrorKind::Config, "CREATE USER ... FOR LOGIN ... in that database"),
    (529, ErrorKind::Config, "CAST the column to varchar(max) or nvarchar(max), or write row_hash = false"),
    (8116, ErrorKind::Config, "CAST the column to varchar(max) or nvarchar(max), or write row_hash = false"),
    (
        8152,
        ErrorKind::Config,
        "rows of more than 8000 bytes have no hash before SQL Server 2016: write row_hash = false",
    ),
    (
        3952,
        ErrorKind::Config,
        "the query reads another database too: ALTER DATABASE ... SET ALLOW_SNAPSHOT_ISOLATION ON",
    ),
    // A value that is not what the mapping says.
    (220, ErrorKind::Data, ""),
    (241, ErrorKind::Data, ""),
    (242, ErrorKind::Data, ""),
    (244, ErrorKind::Data, ""),
    (245, ErrorKind::Data, ""),
    (248, ErrorKind::Data, ""),
    (8114, ErrorKind::Data, ""),
    (8115, ErrorKind::Data, ""),
    (8134, ErrorKind::Data, ""),
    (8169, ErrorKind::Data, ""),
    // These pass: a deadlock, a lock that was not had in time, a table being changed.
    (601, ErrorKind::Retry, ""),
    (1205, ErrorKind::Retry, ""),
    (1222, ErrorKind::Retry, ""),
    (3960, ErrorKind::Retry, ""),
    (3961, ErrorKind::Retry, ""),
];

const OLD_TLS: &str = "source.tls: the server speaks no TLS that is still safe, 1.2 or newer: enable TLS 1.2 on it (SQL Server 2014 SP3 and \
     2012 SP4 have it, 2008 R2 SP3 and 2008 SP4 with update KB3135244), with a cipher suite with ECDHE; or tls = \"off\", if agent and server \
     are on the same machine";

pub fn connect_error(place: &str, error: &DriverError, config: &SqlServerConfig) -> Error {
    let text = format!("source: {place}: cannot connect");
    let untrusted = |message: &str| certificate::explained(message, config.tls_ca_file.as_deref());
    match error {
        DriverError::Server(token) => refused_login(&text, error, config).unwrap_or_else(|| {
            // Too many users, starting up, going down.
            Error::retry(format!("{text}: {} (error {})", token.message(), token.code()))
        }),
        DriverError::Io { message, .. } if is_old_tls(message) => {
            Error::config(format!("{text}: {OLD_TLS} ({message})"))
        }
        // How the TLS library says that it does not trust the certificate.
        DriverError::Io { kind: IoErrorKind::InvalidData | IoErrorKind::NotFound, message } => {
            let told = untrusted(message).unwrap_or_else(|| format!("source.tls: {message}"));
            Error::config(format!("{text}: {told}"))
        }
        DriverError::Tls(message) => {
            let message = first_sentence(message);
            let told = untrusted(message).unwrap_or_else(|| format!("source.tls: {message}"));
            Error::config(format!("{text}: {told}"))
        }
        DriverError::Protocol(message) if message.contains("encryption") => Error::config(format!(
            "{text}: source.tls: the server does not encrypt; tls = \"off\", if agent and server are on the same machine"
        )),
        DriverError::Io { message, .. } if config.tls == TlsMode::Off => Error::retry(format!(
            "{text}: {message} (a server that forces encryption ends the connection: tls = \"require\")"
        )),
        DriverError::Io { kind: IoErrorKind::UnexpectedEof | IoErrorKind::ConnectionReset, message } => {
            Error::retry(format!("{text}: {message}; if it stays so, perhaps {OLD_TLS}"))
        }
        DriverError::Io { message, .. } => Error::retry(format!("{text}: {message}")),
        other => Error::retry(format!("{text}: {other}")),
    }
}

fn refused_login(text: &str, error: &DriverError, config: &SqlServerConfig) -> Option<Error> {
    let by_windows = !matches!(config.login(), SqlServerLogin::Server(_));
    let known = if by_windows { CONNECT_BY_WINDOWS } else { &[] };
    meant(known, text, error).or_else(|| meant(CONNECT, text, error))
}

pub fn query_error(sql: &str, error: &DriverError) -> Error {
    let text = format!("source: sqlserver: {}", shown(sql));
    match error {
        DriverError::Server(token) => meant(QUERY, &text, error).unwrap_or_else(|| {
            let text = format!("{text}: {} (error {}, line {})", token.message(), token.code(), token.line());
            // From 17 on the server itself is in trouble; below it is what was asked.
            if (11..17).contains(&token.class()) { Error::config(text) } else { Error::retry(text) }
        }),
        DriverError::Encoding(message) => Error::data(format!("{text}: {message}")),
        DriverError::Utf16 => Error::data(format!("{text}: invalid UTF-16")),
        DriverError::Protocol(message) if message.contains("UTF-16") => Error::data(format!("{text}: {message}")),
        DriverError::Io { message, .. } => Error::retry(format!(
            "{text}: the connection was lost: the server was stopped, ended it, or the line is down ({message})"
        )),
        other => Error::retry(format!("{text}: {other}")),
    }
}

/// Whether the driver could not read a text; else it is the server that refuses something.
pub fn is_of_letters(error: &DriverError) -> bool {
    match error {
        DriverError::Encoding(_) | DriverError::Utf16 => true,
        DriverError::Protocol(message) => message.contains("UTF-16"),
        _ => false,
    }
}

fn meant(known: &[Meaning], text: &str, error: &DriverError) -> Option<Error> {
    let DriverError::Server(token) = error else { return None };
    let (number, kind, advice) = known.iter().find(|(number, ..)| *number == token.code())?;
    let advice = if advice.is_empty() { String::new() } else { format!(": {advice}") };
    Some(Error::new(*kind, format!("{text}: {} (error {number}{advice})", token.message())))
}

/// No version or cipher suite in common, said by either side.
fn is_old_tls(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["peer is incompatible", "protocolversion", "protocol version", "handshakefailure", "handshake failure"]
        .iter()
        .any(|part| message.contains(part))
}

/// What follows in the driver's message is advice to programmers.
fn first_sentence(message: &str) -> &str {
    message.split_once(". ").map_or(message, |(first, _)| first)
}
