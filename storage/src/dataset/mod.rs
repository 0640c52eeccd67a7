//! Dataset definitions (TOML, versioned, published to `control/datasets/`): one text that agents
//! and functions share. `docs/datasets.md` describes every key.

use jiff::civil::Time;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ids::DatasetName;

mod check;
mod column;
pub mod evolution;
mod names;
mod schema;
mod shipped;
mod validate;

#[cfg(test)]
mod doc_tests;

pub use check::{Check, CheckAction, CheckRule};
pub use column::{Column, ColumnType, Transform};
pub use schema::{PartitionColumn, STORE_COLUMN, schema_hash};
pub use shipped::{SHIPPED, shipped};

/// Ends the name of the table of days that stands beside a daily dataset's rows in SQL.
pub const DAYS_SUFFIX: &str = "_days";

/// What the rows of a dataset are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DatasetKind {
    /// Facts by business date.
    Daily,
    /// The state at a moment.
    Snapshot,
    /// The whole table of a store.
    Dimension,
}

/// How the lake is partitioned below the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grain {
    Month,
    Year,
    None,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Titles {
    pub es: String,
    pub en: String,
}

/// A dataset, as declared in TOML.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetDefinition {
    pub name: DatasetName,
    /// Counts up; added nullable columns and widenings are migrated, other changes need a new one.
    pub version: u32,
    pub titles: Titles,
    pub kind: DatasetKind,
    #[serde(default = "default_grain")]
    pub grain: Grain,
    /// The column of type `date` that holds the business date. Absent for a dimension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub business_date: Option<String>,
    /// For a snapshot: the column of type `timestamp` that holds the moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moment: Option<String>,
    /// The column that names the store inside the rows, if there is one; it must be the sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_column: Option<String>,
    /// Columns that identify a row within a store and unit.
    pub key: Vec<String>,
    /// Numeric columns summed on both sides of every audit.
    #[serde(default)]
    pub audit_sums: Vec<String>,
    /// Days before today that every cycle fingerprints again.
    #[serde(default = "default_lookback")]
    pub lookback_days: u32,
    /// How often an agent looks, such as `1h` or `4h`.
    #[serde(default = "default_schedule")]
    pub schedule: String,
    /// A day is over at this local time of the next day.
    #[serde(default)]
    pub closes_at: Time,
    #[serde(rename = "column")]
    pub columns: Vec<Column>,
    #[serde(default, rename = "check", skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
}

impl DatasetDefinition {
    /// Reads and validates; the error names field, rule and value got.
    ///
    /// # Errors
    ///
    /// `Config` when it is not TOML of a definition, or breaks a rule of [`Self::validate`].
    pub fn from_toml(text: &str) -> Result<Self> {
        let unreadable =
            |error: toml::de::Error| Error::config(format!("dataset definition: {}", error.to_string().trim_end()));
        let dataset: Self = match without_mode(text)? {
            Some(table) => table.try_into().map_err(unreadable)?,
            None => toml::from_str(text).map_err(unreadable)?,
        };
        dataset.validate()?;
        Ok(dataset)
    }

    /// As TOML, the form that is published.
    ///
    /// # Errors
    ///
    /// `Bug` when it does not serialise, which it always does.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|error| Error::bug("dataset definition does not serialise").with_source(error))
    }

    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// Definitions published before decision 0014 have a key `mode`: the definition without it, or
/// `None` when there is no such key.
fn without_mode(text: &str) -> Result<Option<toml::Table>> {
    let Ok(mut table) = toml::from_str::<toml::Table>(text) else { return Ok(None) };
    match table.remove("mode") {
        None => Ok(None),
        Some(mode) if mode.as_str() == Some("replace") => Ok(Some(table)),
        Some(mode) => Err(Error::config(format!(
            "dataset definition: mode: must be absent or \"replace\" (a batch is all there is for its days), got {mode}"
        ))),
    }
}

fn default_grain() -> Grain {
    Grain::Month
}

fn default_lookback() -> u32 {
    7
}

fn default_schedule() -> String {
    "1h".to_owned()
}
