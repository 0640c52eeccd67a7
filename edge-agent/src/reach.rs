//! Whether a store's server can be reached: of its source, host and port (see [`ribera_reach`]).

pub use ribera_reach::{Cause, Reach, State, reach};

use crate::config::{ServerConfig, SourceConfig};

/// Host and port of a source that is reached over the network.
pub fn place(source: &SourceConfig) -> Option<(String, u16)> {
    let of = |server: &ServerConfig, port| Some((server.host.clone()?, server.port.unwrap_or(port)));
    match source {
        SourceConfig::Sqlite { .. } => None,
        SourceConfig::Mysql(server) => of(server, 3306),
        SourceConfig::Postgres(server) => of(server, 5432),
        SourceConfig::Firebird(server) => Some((server.host.clone(), server.port.unwrap_or(3050))),
    }
}
