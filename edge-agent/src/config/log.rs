//! `[log]`: the agent's own log file, beside what goes to standard error.

use std::path::PathBuf;

use ribera_storage::Result;
use serde::Deserialize;

use super::load::bad;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// A relative path lies in the agent's folder.
    pub file: PathBuf,
    #[serde(default)]
    pub format: LogFormat,
    /// Maximum size of all log files together, in bytes.
    #[serde(default = "bytes_max")]
    pub bytes_max: u64,
    #[serde(default = "files")]
    pub files: u32,
    #[serde(default)]
    pub level: LogLevel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A JSON object for each line.
    #[default]
    Json,
    Text,
}

/// What is told. Libraries only ever warn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
}

impl LogConfig {
    pub fn validate(&self) -> Result<()> {
        if !(1..=100).contains(&self.files) {
            return bad("log.files", "must be 1 to 100", &self.files.to_string());
        }
        // A file must hold a long line.
        if self.bytes_max / u64::from(self.files) < 4096 {
            return bad("log.bytes_max", "must be 4096 or more for each file", &self.bytes_max.to_string());
        }
        if self.file.file_name().is_none() {
            return bad("log.file", "must name a file", &self.file.display().to_string());
        }
        Ok(())
    }
}

fn bytes_max() -> u64 {
    10_000_000
}

fn files() -> u32 {
    5
}
