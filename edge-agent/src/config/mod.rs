//! The agent's settings: plain data read from one TOML file. `docs/agent.md` holds the commented
//! sample, which a test keeps valid.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use jiff::civil::Date;
use ribera_storage::secret::Secret;
use ribera_storage::{DatasetName, StoreId, TaxNumber};
use serde::Deserialize;

pub mod adapters;
mod calls;
mod charset;
mod databases;
mod discover;
mod hours;
mod load;
mod log;
mod mapping;
mod object_store;
mod secrets;
mod sqlserver;
mod store_limits;
#[cfg(test)]
mod tests;
mod upload_schedule;
mod watermark;

pub use calls::is_call;
pub(crate) use calls::verb;
pub use charset::{Charset, decoded};
pub use databases::{DatabaseDays, Databases, have_days_in_common, twins};
pub use discover::{Discover, DiscoverServer};
pub use hours::Hours;
pub use load::file_text;
pub use log::{LogConfig, LogFormat, LogLevel};
pub use mapping::{ColumnMapping, DatasetMapping, EpochUnit};
pub use object_store::{ObjectStoreConfig, ProxyConfig, S3Config};
pub use secrets::ENV_FILE;
pub use sqlserver::{SqlServerConfig, SqlServerLogin};
pub use store_limits::StoreLimits;
pub use upload_schedule::{Rate, UploadSchedule};
pub use watermark::{Lag, Watermark};

/// The whole configuration file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where journal, spool and reports live. One agent process at a time uses it.
    pub folder: PathBuf,
    pub object_store: ObjectStoreConfig,
    #[serde(default)]
    pub limits: Limits,
    /// RunMode the source, send nothing, write nothing but the report.
    #[serde(default)]
    pub dry_run: bool,
    /// Fill the spool, upload nothing.
    #[serde(default)]
    pub local_only: bool,
    /// The agent's log file; without it lines go to standard error alone.
    #[serde(default)]
    pub log: Option<LogConfig>,
    /// Salt of columns with the `hash` transform.
    #[serde(default)]
    pub hash_salt: Option<Secret>,
    /// The stores this agent serves.
    #[serde(rename = "store")]
    pub stores: Vec<StoreConfig>,
    /// `[adapter.NAME.DATASET]`: how a point-of-sale product's tables become datasets.
    #[serde(default, rename = "adapter")]
    pub adapters: BTreeMap<String, BTreeMap<DatasetName, DatasetMapping>>,
    /// The names in `adapters` that came with the agent.
    #[serde(skip)]
    pub shipped: BTreeSet<&'static str>,
    /// For `ribera-agent discover`, which reads it itself; here it is only checked.
    #[serde(default)]
    pub discover: Option<Discover>,
}

/// One store: its database, and what is read from it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    pub id: StoreId,
    /// The company's tax number; `ribera-agent discover` knows the store again by it.
    #[serde(default)]
    pub tenant: Option<TaxNumber>,
    /// IANA name. Needed only while `control/stores/` has no definition of the store, which wins.
    #[serde(default)]
    pub time_zone: Option<String>,
    /// First business day; as for `time_zone`.
    #[serde(default, deserialize_with = "date")]
    pub opened: Option<Date>,
    /// Last business day; as for `time_zone`.
    #[serde(default, deserialize_with = "date")]
    pub closed: Option<Date>,
    /// Which `[adapter.NAME]` reads its tables.
    pub adapter: String,
    /// The datasets of the adapter that this store sends; all when absent.
    #[serde(default)]
    pub datasets: Option<Vec<DatasetName>>,
    /// Where they differ from the agent's.
    #[serde(default)]
    pub limits: StoreLimits,
    pub source: SourceConfig,
    /// Where the days of a store lie in several databases, unless `{year}` in the source's says so.
    #[serde(default)]
    pub databases: Vec<DatabaseDays>,
    /// First day of the year that `{year}` names, as MM-01.
    #[serde(default)]
    pub fiscal_year_starts: Option<String>,
}

/// The store's own database.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum SourceConfig {
    Sqlite {
        /// Opened read-only.
        path: PathBuf,
        /// Character set of its text, if the till's program does not write UTF-8.
        #[serde(default)]
        charset: Option<Charset>,
    },
    #[serde(alias = "mariadb")]
    Mysql(ServerConfig),
    #[serde(alias = "postgresql")]
    Postgres(ServerConfig),
    Firebird(FirebirdConfig),
    #[serde(alias = "mssql")]
    SqlServer(SqlServerConfig),
}

impl SourceConfig {
    /// As `kind` names it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "sqlite",
            Self::Mysql(_) => "mysql",
            Self::Postgres(_) => "postgres",
            Self::Firebird(_) => "firebird",
            Self::SqlServer(_) => "sqlserver",
        }
    }
}

/// A database reached over the network.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    #[serde(default)]
    pub host: Option<String>,
    #[serde(default)]
    pub port: Option<u16>,
    /// A local socket instead of host and port; with PostgreSQL the folder that it lies in.
    #[serde(default)]
    pub socket: Option<PathBuf>,
    pub database: String,
    pub user: String,
    #[serde(default)]
    pub password: Option<Secret>,
    #[serde(default)]
    pub tls: TlsMode,
    /// PEM file of the authority that signed the server's certificate; with `tls = "verify"`.
    #[serde(default)]
    pub tls_ca_file: Option<PathBuf>,
    /// Character set of text that the server does not convert: in columns of bytes, in a database without encoding.
    #[serde(default)]
    pub charset: Option<Charset>,
}

/// How the connection to a database is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// Encrypted, certificate and host name checked.
    Verify,
    /// Encrypted, certificate not checked. Protects from listeners, not from impostors.
    #[default]
    Require,
    /// In the clear. Only for a server on the same machine.
    Off,
}

/// A database of Firebird.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirebirdConfig {
    pub host: String,
    #[serde(default)]
    pub port: Option<u16>,
    /// A path on the server, or an alias of its databases.conf.
    pub database: String,
    pub user: String,
    #[serde(default)]
    pub password: Option<Secret>,
    #[serde(default)]
    pub charset: FirebirdCharset,
    #[serde(default)]
    pub role: Option<String>,
}

/// The character set of the connection. The server converts into it whatever has a character set
/// of its own; text that has none is taken to be in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum FirebirdCharset {
    #[default]
    Utf8,
    Iso8859_1,
    Iso8859_2,
    Win1250,
    Win1251,
    Win1252,
}

/// The uplink limit in a part of the day, in the store's own time.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UploadSpan {
    pub hours: Hours,
    /// 0: nothing is uploaded. Absent: as `upload_bytes_per_s` says.
    #[serde(default)]
    pub bytes_per_s: Option<u64>,
}

/// Bounds. Each trade is told beside its key in `docs/agent.md`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    pub spool_bytes_max: u64,
    pub chunk_rows: u64,
    /// The command line says `chunk_rows`: it wins over the number of a dataset.
    #[serde(skip)]
    pub chunk_rows_win: bool,
    pub chunk_rows_min: u64,
    pub chunk_pause_ms: u64,
    pub chunk_timeout_s: u64,
    pub workers: usize,
    pub audit_tries: u32,
    pub upload_tries: u32,
    pub upload_bytes_per_s: Option<u64>,
    /// The first that has the time of day holds.
    pub upload_schedule: Vec<UploadSpan>,
    pub facts_days: u32,
    /// Seconds between two heartbeats of a store whose state does not change. Less: a dead agent is noticed sooner.
    /// More: fewer requests, which are most of what an idle store costs (a PUT every 600 s is 4,400 a month).
    pub heartbeat_s: u64,
    pub reports_days: u32,
    pub reports_max: u32,
    /// When a backfill may read, in the store's own time.
    pub backfill_hours: Option<Hours>,
    /// A backfill begins with the oldest month.
    pub oldest_first: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            spool_bytes_max: 4 << 30,
            chunk_rows: 50_000,
            chunk_rows_win: false,
            chunk_rows_min: 1_000,
            chunk_pause_ms: 0,
            chunk_timeout_s: 120,
            workers: 3,
            audit_tries: 3,
            upload_tries: 5,
            upload_bytes_per_s: None,
            upload_schedule: Vec::new(),
            facts_days: 400,
            heartbeat_s: 600,
            reports_days: 90,
            reports_max: 500,
            backfill_hours: None,
            oldest_first: false,
        }
    }
}

impl Limits {
    /// Rows of a query, and the floor that they are halved down to. A dataset's own number has its
    /// floor at a tenth.
    pub fn chunk_rows_of(&self, mapping: &DatasetMapping) -> (u64, u64) {
        match mapping.chunk_rows.filter(|_| !self.chunk_rows_win) {
            Some(rows) => (rows, self.chunk_rows_min.min(rows.div_ceil(10))),
            None => (self.chunk_rows, self.chunk_rows_min),
        }
    }
}

impl Config {
    pub fn store(&self, id: &StoreId) -> Option<&StoreConfig> {
        self.stores.iter().find(|store| store.id == *id)
    }

    /// The datasets of `store` with their mappings, in name order.
    pub fn datasets<'a>(
        &'a self,
        store: &'a StoreConfig,
    ) -> impl Iterator<Item = (&'a DatasetName, &'a DatasetMapping)> {
        let wanted = store.datasets.as_ref();
        self.adapters
            .get(&store.adapter)
            .into_iter()
            .flatten()
            .filter(move |(name, _)| wanted.is_none_or(|wanted| wanted.contains(name)))
    }

    pub fn journal_file(&self) -> PathBuf {
        self.folder.join("journal.sqlite")
    }

    pub fn spool_folder(&self) -> PathBuf {
        self.folder.join("spool")
    }
}

/// A date as text, or as TOML's own without quotes.
fn date<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<Date>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Text(String),
        Toml(toml::value::Datetime),
    }

    let text = match Written::deserialize(deserializer)? {
        Written::Text(text) => text,
        Written::Toml(date) => date.to_string(),
    };
    let parsed = text
        .parse()
        .map_err(|_| serde::de::Error::custom(format!("must be a date such as \"2024-01-31\", got {text:?}")));
    parsed.map(Some)
}
