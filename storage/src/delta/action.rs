//! The actions of Delta log entries, as their JSON has them. Unknown keys are passed over, as the
//! protocol asks.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::path;
use super::tags::{self, UNITS_TAG, UnitProof, UnitTag};
use crate::error::{Error, Result};
use crate::hex::sha256_hex;
use crate::ids::{BatchId, Position, StoreId, TableName, Unit};
use crate::object::ObjectPath;

/// The tag of a file's hash.
const SHA256_TAG: &str = "ribera.sha256";

/// One line of a log entry. A line of another kind parses to an action with no field set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Action {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit_info: Option<CommitInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta_data: Option<Metadata>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub txn: Option<Txn>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub add: Option<AddFile>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remove: Option<RemoveFile>,
}

/// Reader 1, writer 2, no table features: every engine reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Protocol {
    pub min_reader_version: i32,
    pub min_writer_version: i32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    pub id: String,
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub description: Option<String>,
    pub format: Format,
    pub schema_string: String,
    pub partition_columns: Vec<String>,
    #[serde(default)]
    pub created_time: Option<i64>,
    #[serde(default)]
    pub configuration: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Format {
    pub provider: String,
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// The last sequence number applied of a stream whose order matters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Txn {
    pub app_id: String,
    pub version: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<i64>,
}

/// A data file of the table. The file was written whole before any entry names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddFile {
    /// Relative to the table, percent-encoded.
    pub path: String,
    pub partition_values: BTreeMap<String, Option<String>>,
    /// Bytes.
    pub size: u64,
    /// Unix milliseconds.
    pub modification_time: i64,
    pub data_change: bool,
    /// JSON text; see [`super::stats`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, Option<String>>>,
}

/// A file that is no longer of the table; kept so that older readers may finish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemoveFile {
    pub path: String,
    /// Unix milliseconds.
    #[serde(default)]
    pub deletion_timestamp: Option<i64>,
    pub data_change: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extended_file_metadata: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_values: Option<BTreeMap<String, Option<String>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// Who wrote an entry and why. Entries of other programs have what they have.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CommitInfo {
    /// Unix milliseconds by the writer's clock.
    pub timestamp: i64,
    pub operation: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub operation_parameters: BTreeMap<String, serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_blind_append: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine_info: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ribera: Option<RiberaInfo>,
}

/// What Ribera notes in its own entries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RiberaInfo {
    /// Random: tells one's own entry from another's after any doubt.
    pub write_id: String,
    /// What this entry settled.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub batches: Vec<CommittedBatch>,
}

/// A batch that an entry settled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommittedBatch {
    /// Text form of a [`BatchId`].
    pub id: String,
    pub manifest_sha256: String,
    /// Rows of it that entered the lake.
    pub rows: u64,
}

impl CommittedBatch {
    pub fn batch(&self) -> Result<BatchId> {
        self.id.parse()
    }
}

impl AddFile {
    /// Where the file lies in the object store.
    pub fn object_path(&self, table: &TableName) -> Result<ObjectPath> {
        path::object_path(table, &self.path)
    }

    /// The facts of every unit in the file. A file of another writer has none.
    pub fn units(&self) -> Result<Vec<UnitTag>> {
        self.units_text().map_or(Ok(Vec::new()), tags::decode).map_err(|error| error.context(&self.path))
    }

    /// Units and who won them: cheaper than [`Self::units`].
    pub fn unit_positions(&self) -> Result<Vec<(Unit, Position)>> {
        self.units_text().map_or(Ok(Vec::new()), tags::decode_positions).map_err(|error| error.context(&self.path))
    }

    /// Calls `take` with every unit and whether it is proven: far cheaper than [`Self::units`].
    pub fn each_proof(&self, take: impl FnMut(UnitProof)) -> Result<()> {
        self.units_text().map_or(Ok(()), |text| tags::each_proof(text, take)).map_err(|error| error.context(&self.path))
    }

    pub fn set_units(&mut self, units: &[UnitTag]) {
        let tag = (UNITS_TAG.to_owned(), Some(tags::encode(units)));
        self.tags.get_or_insert_default().extend([tag]);
    }

    /// Hexadecimal SHA-256 of the file. A file of another writer has none.
    pub fn sha256(&self) -> Option<&str> {
        self.tags.as_ref()?.get(SHA256_TAG)?.as_deref()
    }

    pub fn set_sha256(&mut self, bytes: &[u8]) {
        let tag = (SHA256_TAG.to_owned(), Some(sha256_hex(bytes)));
        self.tags.get_or_insert_default().extend([tag]);
    }

    /// The store whose partition the file lies in.
    pub fn store(&self) -> Result<StoreId> {
        match self.partition_values.get(crate::dataset::STORE_COLUMN) {
            Some(Some(store)) => store.parse(),
            _ => Err(Error::data(format!("{}: has no partition value store_id", self.path))),
        }
    }

    /// `numRecords` of the statistics.
    pub fn rows(&self) -> Option<u64> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Rows {
            num_records: Option<u64>,
        }
        serde_json::from_str::<Rows>(self.stats.as_deref()?).ok()?.num_records
    }

    /// The action that takes this file out of the table.
    pub fn removed(&self, at: Timestamp, data_change: bool) -> RemoveFile {
        RemoveFile {
            path: self.path.clone(),
            deletion_timestamp: Some(at.as_millisecond()),
            data_change,
            extended_file_metadata: Some(true),
            partition_values: Some(self.partition_values.clone()),
            size: Some(self.size),
        }
    }

    fn units_text(&self) -> Option<&str> {
        self.tags.as_ref()?.get(UNITS_TAG)?.as_deref()
    }
}

/// The bytes of a log entry: one action a line.
pub fn to_lines(actions: &[Action]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for action in actions {
        serde_json::to_writer(&mut bytes, action)
            .map_err(|error| Error::bug("an action does not serialise").with_source(error))?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

/// The actions of a log entry.
pub fn from_lines(bytes: &[u8]) -> Result<Vec<Action>> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.trim_ascii().is_empty())
        .map(|line| {
            serde_json::from_slice(line).map_err(|error| Error::data("a line is not a Delta action").with_source(error))
        })
        .collect()
}
