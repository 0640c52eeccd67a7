//! Whether a store's server can be reached: of its source, host and port (see [`ribera_reach`]).

pub use ribera_reach::{Cause, Obstacle, Reach, State, reach};

use std::time::Duration;

use ribera_storage::ErrorKind;

use crate::config::{ServerConfig, SourceConfig};
use crate::source::{FIREBIRD_PORT, MYSQL_PORT, POSTGRES_PORT, SQL_SERVER_PORT, port_of};

/// Tries the server of a source, each step for `timeout` at most; `None` for a source that is a file of this machine. A
/// named instance of SQL Server tells its port when its machine's Browser is asked.
pub async fn reach_source(source: &SourceConfig, timeout: Duration) -> Option<Reach> {
    let (host, port) = match source {
        SourceConfig::SqlServer(server) if server.instance.is_some() => match port_of(server).await {
            Ok(port) => (server.host.clone(), port),
            Err(error) => return Some(without_port(&server.host, shown(source), error.kind(), timeout).await),
        },
        _ => configured(source)?,
    };
    Some(reach(&host, Some(port), timeout).await)
}

/// The machine of an instance whose port nobody tells.
async fn without_port(host: &str, shown: Option<String>, kind: ErrorKind, timeout: Duration) -> Reach {
    let mut found = reach(host, None, timeout).await;
    if found.cause != Some(Cause::NameUnknown) {
        // The Browser has answered where the instance is what lacks a port.
        let has_answered = kind == ErrorKind::Config;
        found.cause = Some(if has_answered { Cause::InstanceWithoutTcp } else { Cause::BrowserSilent });
        found.state = if has_answered { State::Reachable } else { found.state };
    }
    found.host = shown.unwrap_or(found.host);
    found
}

/// The configured host and port, for people. Does no I/O.
pub fn shown(source: &SourceConfig) -> Option<String> {
    if let SourceConfig::SqlServer(server) = source
        && let Some(instance) = &server.instance
    {
        return Some(format!("{}\\{instance}", server.host));
    }
    configured(source).map(|(host, port)| format!("{host}:{port}"))
}

/// Where it was tried, for people.
pub fn tried(reach: &Reach) -> String {
    match reach.port {
        Some(port) => format!("{}:{port}", reach.host),
        None => reach.host.clone(),
    }
}

fn configured(source: &SourceConfig) -> Option<(String, u16)> {
    let of = |server: &ServerConfig, port| Some((server.host.clone()?, server.port.unwrap_or(port)));
    match source {
        SourceConfig::Sqlite { .. } => None,
        SourceConfig::Mysql(server) => of(server, MYSQL_PORT),
        SourceConfig::Postgres(server) => of(server, POSTGRES_PORT),
        SourceConfig::Firebird(server) => Some((server.host.clone(), server.port.unwrap_or(FIREBIRD_PORT))),
        SourceConfig::SqlServer(server) => Some((server.host.clone(), server.port.unwrap_or(SQL_SERVER_PORT))),
    }
}
