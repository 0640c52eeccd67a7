//! Reads, fills in secrets and checks. Every error names field, rule and value got.

use std::collections::BTreeMap;
use std::path::Path;

use ribera_storage::{DatasetName, Error, Result};
use serde::Deserialize;

use super::adapters;
use crate::system;

use super::secrets::{ENV_FILE, Secrets};
use super::{
    Config, Databases, DatasetMapping, FirebirdConfig, Limits, LogConfig, Rate, ServerConfig, SourceConfig,
    StoreConfig, TlsMode,
};

/// Shorter ones can be found by trying, and with them every identity number.
const SALT_CHARS_MIN: usize = 16;

impl Config {
    /// Reads a file. Relative paths in it count from the file's own folder.
    pub fn load(file: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let bytes = std::fs::read(file).map_err(|error| {
            Error::config(format!("configuration {}: cannot be read", file.display()))
                .with_source(error)
                .with_hint("ribera-agent --config FILE check")
        })?;
        let text =
            file_text(&bytes).map_err(|error| error.context(format_args!("configuration {}", file.display())))?;
        let folder = file.parent().unwrap_or(Path::new("."));
        let secrets = Secrets::in_folder(folder, env)?;
        let mut config = Self::parse_with(&text, &|name| secrets.get(name))
            .map_err(|error| error.context(format_args!("{}", file.display())))?;
        config.resolve_paths(folder);
        Ok(config)
    }

    /// Reads TOML text; `${NAME}` in any text value is replaced by what `env` knows of NAME.
    pub fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        Self::parse_with(text, &|name| Ok(env(name)))
    }

    fn parse_with(text: &str, secret: Named<'_>) -> Result<Self> {
        // The text as it stands, for errors that name the line; then again with secrets filled in.
        toml::from_str::<Self>(text).map_err(|error| parse_error(text, &error))?;
        let mut value: toml::Value = toml::from_str(text).map_err(|error| parse_error(text, &error))?;
        // Its secrets are those of `discover` alone.
        if let Some(table) = value.as_table_mut() {
            table.remove("discover");
        }
        fill(&mut value, "", secret)?;
        let mut config =
            Self::deserialize(value).map_err(|error| Error::config(format!("configuration: {}", error.message())))?;
        config.add_shipped_adapters()?;
        config.validate()?;
        Ok(config)
    }

    /// Adapters that stores name and the file does not have come with the agent.
    fn add_shipped_adapters(&mut self) -> Result<()> {
        for store in &self.stores {
            let Some(shipped) = adapters::shipped(&store.adapter) else { continue };
            if !self.adapters.contains_key(shipped.name) {
                self.adapters.insert(shipped.name.to_owned(), shipped.datasets()?);
                self.shipped.insert(shipped.name);
            }
            if self.shipped.contains(shipped.name) && store.source.kind() != shipped.kind {
                let field = format!("store {}: source.kind", store.id);
                return bad(
                    &field,
                    &format!("must be {} with adapter {}", shipped.kind, shipped.name),
                    store.source.kind(),
                );
            }
        }
        Ok(())
    }

    fn resolve_paths(&mut self, base: &Path) {
        let resolve = |path: &mut std::path::PathBuf| *path = base.join(&*path);
        resolve(&mut self.folder);
        self.object_store.paths_mut().for_each(resolve);
        if let Some(log) = &mut self.log {
            log.file = self.folder.join(&log.file);
        }
        for store in &mut self.stores {
            match &mut store.source {
                SourceConfig::Sqlite { path, .. } => resolve(path),
                SourceConfig::Mysql(server) | SourceConfig::Postgres(server) => {
                    server.tls_ca_file.iter_mut().for_each(resolve)
                }
                SourceConfig::SqlServer(server) => server.tls_ca_file.iter_mut().for_each(resolve),
                SourceConfig::Firebird(_) => {}
            }
            if let SourceConfig::Sqlite { .. } = &store.source {
                for one in &mut store.databases {
                    one.database = base.join(&one.database).display().to_string();
                }
            }
        }
    }

    fn validate(&self) -> Result<()> {
        self.limits.validate()?;
        if let Some(salt) =
            self.hash_salt.as_ref().filter(|salt| (1..SALT_CHARS_MIN).contains(&salt.expose().chars().count()))
        {
            let rule = format!(
                "must have {SALT_CHARS_MIN} characters at least, or whoever knows it finds every value by trying"
            );
            return bad("hash_salt", &rule, &format!("{} characters", salt.expose().chars().count()));
        }
        self.object_store.validate()?;
        self.log.as_ref().map_or(Ok(()), LogConfig::validate)?;
        if self.stores.is_empty() {
            return bad("store", "must be at least one [[store]]", "none");
        }
        for (adapter, datasets) in &self.adapters {
            for (dataset, mapping) in datasets {
                mapping.validate(&format!("adapter.{adapter}.{dataset}"))?;
            }
        }
        for (index, store) in self.stores.iter().enumerate() {
            if self.stores[..index].iter().any(|other| other.id == store.id) {
                return bad("store.id", "must be unique", store.id.as_str());
            }
            store.validate(self)?;
        }
        Ok(())
    }
}

/// The text of a file as Windows programs save it too: PowerShell's `>` writes UTF-16, editors a mark in front.
pub fn file_text(bytes: &[u8]) -> Result<String> {
    let wide = |rest: &[u8], unit: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = rest.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect();
        String::from_utf16(&units)
            .map_err(|error| Error::config("must be UTF-8 or UTF-16 text, got a broken UTF-16 file").with_source(error))
    };
    match bytes {
        [0xFF, 0xFE, rest @ ..] => wide(rest, u16::from_le_bytes),
        [0xFE, 0xFF, rest @ ..] => wide(rest, u16::from_be_bytes),
        [0xEF, 0xBB, 0xBF, rest @ ..] => narrow(rest),
        _ => narrow(bytes),
    }
}

fn narrow(bytes: &[u8]) -> Result<String> {
    let error = match std::str::from_utf8(bytes) {
        Ok(text) => return Ok(text.to_owned()),
        Err(error) => error,
    };
    let at = error.valid_up_to();
    let line = 1 + bytes[..at].iter().filter(|byte| **byte == b'\n').count();
    let begin = bytes[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let before = String::from_utf8_lossy(&bytes[begin..at]).chars().take(40).collect::<String>();
    Err(Error::config(format!(
        "must be UTF-8 text, got byte {:#04x} in line {line} behind {before:?}: saved in another encoding, perhaps Windows-1252 (ANSI); \
         save it again as UTF-8",
        bytes[at]
    )))
}

impl Limits {
    pub(super) fn validate(&self) -> Result<()> {
        let checks = [
            ("spool_bytes_max", self.spool_bytes_max, 1 << 20, u64::MAX),
            ("chunk_rows", self.chunk_rows, 1, 10_000_000),
            ("chunk_rows_min", self.chunk_rows_min, 1, self.chunk_rows.max(1)),
            ("chunk_pause_ms", self.chunk_pause_ms, 0, 3_600_000),
            ("chunk_timeout_s", self.chunk_timeout_s, 1, 86_400),
            ("workers", self.workers as u64, 1, 64),
            ("audit_tries", u64::from(self.audit_tries), 1, 20),
            ("upload_tries", u64::from(self.upload_tries), 1, 100),
            ("upload_bytes_per_s", self.upload_bytes_per_s.unwrap_or(1024), 1024, u64::MAX),
            ("facts_days", u64::from(self.facts_days), 31, 36_500),
            ("heartbeat_s", self.heartbeat_s, 15, 86_400),
            ("reports_days", u64::from(self.reports_days), 1, 36_500),
            ("reports_max", u64::from(self.reports_max), 1, 1_000_000),
        ];
        for (field, value, min, max) in checks {
            if !(min..=max).contains(&value) {
                return bad(&format!("limits.{field}"), &format!("must be {min} to {max}"), &value.to_string());
            }
        }
        for rate in self.upload_schedule.iter().filter_map(|span| span.bytes_per_s) {
            if (1..1024).contains(&rate) {
                return bad("limits.upload_schedule.bytes_per_s", "must be 0, or 1024 and more", &rate.to_string());
            }
        }
        let uploads = self.upload_schedule();
        let noon = jiff::civil::date(2026, 1, 1).at(12, 0, 0, 0);
        if uploads.rate(noon.time()) == Rate::Closed && uploads.opens_at(noon).is_none() {
            return bad("limits.upload_schedule", "must leave some time of the day for uploads", "none");
        }
        Ok(())
    }
}

impl StoreConfig {
    fn validate(&self, config: &Config) -> Result<()> {
        let field = |name: &str| format!("store {}: {name}", self.id);
        let Some(adapter) = config.adapters.get(&self.adapter) else {
            let rule = "must be the name of an [adapter.NAME.DATASET], or of one that comes with the agent";
            return bad(&field("adapter"), rule, &self.adapter)
                .map_err(|error: Error| error.with_hint("ribera-agent config adapters"));
        };
        if let Some(name) = self.datasets.iter().flatten().find(|name| !adapter.contains_key(name)) {
            return bad(&field("datasets"), &format!("must be datasets of adapter {:?}", self.adapter), name.as_str());
        }
        if let Some(zone) = &self.time_zone
            && jiff::tz::TimeZone::get(zone).is_err()
        {
            return bad(&field("time_zone"), "must be an IANA time zone such as Europe/Madrid", zone);
        }
        Databases::of_store(self)?;
        self.limits.validate(&config.limits).map_err(|error| error.context(format_args!("store {}", self.id)))?;
        self.validate_charsets(adapter)?;
        self.source.validate(&field("source"))
    }

    /// A server that converts its text itself gives no other bytes than those of the connection.
    fn validate_charsets(&self, adapter: &BTreeMap<DatasetName, DatasetMapping>) -> Result<()> {
        let rule = match self.source {
            SourceConfig::Sqlite { .. } | SourceConfig::Mysql(_) | SourceConfig::Postgres(_) => return Ok(()),
            SourceConfig::Firebird(_) => "must be absent with Firebird, whose server converts: see source.charset",
            SourceConfig::SqlServer(_) => "must be absent with SQL Server, which says itself what its text is in",
        };
        for (dataset, mapping) in adapter {
            if let Some((name, charset)) = mapping.columns.iter().find_map(|(name, one)| Some((name, one.charset?))) {
                let field = format!("adapter.{}.{dataset}.columns.{name}.charset", self.adapter);
                return bad(&field, &format!("{rule} (store {})", self.id), charset.name());
            }
        }
        Ok(())
    }
}

impl SourceConfig {
    pub fn validate(&self, field: &str) -> Result<()> {
        match self {
            Self::Sqlite { .. } => Ok(()),
            Self::Mysql(server) | Self::Postgres(server) => server.validate(field),
            Self::Firebird(server) => server.validate(field),
            Self::SqlServer(server) => server.validate(field),
        }
    }
}

impl ServerConfig {
    fn validate(&self, field: &str) -> Result<()> {
        match (&self.host, &self.socket) {
            (None, None) => bad(&format!("{field}.host"), "must be there unless there is a socket", "nothing"),
            (Some(host), Some(_)) => bad(&format!("{field}.host"), "must be absent beside a socket", host),
            _ if self.tls == TlsMode::Verify && self.socket.is_some() => {
                bad(&format!("{field}.tls"), "must be off or absent with a socket", "verify")
            }
            _ => Ok(()),
        }
    }
}

impl FirebirdConfig {
    fn validate(&self, field: &str) -> Result<()> {
        for (name, value) in [("host", &self.host), ("database", &self.database), ("user", &self.user)] {
            // The login takes names of up to 255 bytes.
            if value.is_empty() || value.len() > 255 {
                return bad(&format!("{field}.{name}"), "must be 1 to 255 bytes long", value);
            }
        }
        Ok(())
    }
}

impl DatasetMapping {
    fn validate(&self, field: &str) -> Result<()> {
        let by_hand = self.extract.is_some() || self.audit.is_some();
        match (&self.from, by_hand) {
            (None, false) => {
                return bad(&format!("{field}.from"), "must be there unless `extract` and `audit` are", "nothing");
            }
            (Some(from), true) => {
                return bad(&format!("{field}.from"), "must be absent beside `extract` and `audit`", from);
            }
            (None, true) => {
                for (name, query) in [("extract", &self.extract), ("audit", &self.audit)] {
                    if query.is_none() {
                        return bad(&format!("{field}.{name}"), "must be there beside the other query", "nothing");
                    }
                }
            }
            (Some(_), false) => {}
        }
        for (name, number) in [("result_set", self.result_set), ("audit_result_set", self.audit_result_set)] {
            match number {
                Some(number) if !by_hand => {
                    return bad(
                        &format!("{field}.{name}"),
                        "must be absent unless there is `extract`",
                        &number.to_string(),
                    );
                }
                Some(0) => return bad(&format!("{field}.{name}"), "must be 1 for the first or more", "0"),
                _ => {}
            }
        }
        if let Some(name) = self.audit_columns.keys().next().filter(|_| !by_hand) {
            return bad(&format!("{field}.audit_columns"), "must be absent unless there is `audit`", name);
        }
        if let Some(rows) = self.chunk_rows.filter(|rows| !(1..=10_000_000).contains(rows)) {
            return bad(&format!("{field}.chunk_rows"), "must be 1 to 10000000", &rows.to_string());
        }
        if let Some(watermark) = &self.watermark {
            if by_hand {
                let rule = "must be absent beside `extract` and `audit`";
                return bad(&format!("{field}.watermark"), rule, &watermark.column);
            }
            watermark.validate(field)?;
        }
        for (name, column) in &self.columns {
            let field = format!("{field}.columns.{name}");
            if let Some(zone) = &column.zone
                && jiff::tz::TimeZone::get(zone).is_err()
            {
                return bad(&format!("{field}.zone"), "must be an IANA time zone such as Europe/Madrid", zone);
            }
            if let (Some(scale), Some(_)) = (column.scale, column.round) {
                return bad(&format!("{field}.scale"), "must be absent beside `round`", &scale.to_string());
            }
            if let Some(digits) = column.scale.or(column.round).filter(|digits| *digits > 18) {
                return bad(&field, "scale and round must be 0 to 18", &digits.to_string());
            }
            if column.round.is_some() && by_hand {
                return bad(&format!("{field}.round"), "must be written into the query beside `extract`", "round");
            }
        }
        Ok(())
    }
}

/// What a name stands for, if anything does.
pub(super) type Named<'a> = &'a dyn Fn(&str) -> Result<Option<String>>;

/// Replaces `${NAME}` in every text below `value`; `path` names it in errors.
pub(super) fn fill(value: &mut toml::Value, path: &str, env: Named<'_>) -> Result<()> {
    match value {
        toml::Value::String(text) if text.contains("${") => *text = filled(text, path, env)?,
        toml::Value::Array(values) => {
            for value in values {
                fill(value, path, env)?;
            }
        }
        toml::Value::Table(table) => {
            for (key, value) in table.iter_mut() {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                fill(value, &path, env)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn filled(text: &str, path: &str, env: Named<'_>) -> Result<String> {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("${") {
        let Some((name, after)) = behind.split_once('}') else {
            return bad(path, "must close ${NAME} with }", behind);
        };
        let value = env(name).map_err(|error| error.context(format_args!("configuration: {path}")))?;
        let Some(value) = value else {
            return Err(Error::config(format!(
                "configuration: {path}: environment variable must be set, here or in {ENV_FILE} beside the configuration, got none of name {name:?}"
            ))
            .with_hint(system::set_variable(name)));
        };
        result.push_str(before);
        result.push_str(&value);
        rest = after;
    }
    result.push_str(rest);
    Ok(result)
}

/// Line, key and rule, without quoting the line: it may hold a secret.
pub fn parse_error(text: &str, error: &toml::de::Error) -> Error {
    let place = error.span().map(|span| {
        let before = text.get(..span.start).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let key = text.lines().nth(line - 1).and_then(|line| line.split_once('=')).map(|(key, _)| key.trim());
        match key {
            Some(key) => format!("line {line}: {key}: "),
            None => format!("line {line}: "),
        }
    });
    Error::config(format!("configuration: {}{}", place.unwrap_or_default(), error.message()))
}

pub(super) fn bad<T>(field: &str, rule: &str, got: &str) -> Result<T> {
    Err(Error::config(format!("configuration: {field}: {rule}, got {got:?}")))
}
