//! Whether a store's server can be reached: of its source, host and port (see [`ribera_reach`]).

pub use ribera_reach::{Cause, Obstacle, Reach, State, reach};

use crate::config::{ServerConfig, SourceConfig};
use crate::source::{FIREBIRD_PORT, MYSQL_PORT, POSTGRES_PORT, SQL_SERVER_PORT, port_of};

/// Host and port of a source that is reached over the network. A named instance of SQL Server tells
/// its port when asked; if it does not, the usual one is tried.
pub async fn place(source: &SourceConfig) -> Option<(String, u16)> {
    match source {
        SourceConfig::SqlServer(server) if server.instance.is_some() => {
            Some((server.host.clone(), port_of(server).await.unwrap_or(SQL_SERVER_PORT)))
        }
        _ => configured(source),
    }
}

/// The same as it is configured, for people; asks nobody.
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
