//! The state of a table at a version: what a log says when replayed. No I/O here.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::action::{Action, AddFile, CommitInfo, Metadata, Protocol, RemoveFile};
use crate::error::{Error, Result};
use crate::ids::{DatasetName, Position, StoreId, TableName, Unit};

use super::tags::UnitTag;

/// Files by partition key (`store_id=S/month=YYYY-MM`). Most partitions have one: those of each
/// stand in a vector in order of log path, which takes a tenth of a map's memory.
pub type FilesByPartition = BTreeMap<String, Vec<AddFile>>;

/// A table at a version.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub(super) table: TableName,
    pub(super) version: u64,
    pub(super) protocol: Protocol,
    pub(super) metadata: Metadata,
    pub(super) files: FilesByPartition,
    /// Removed files, as far as they were read: a reader passes over those of the checkpoint.
    pub(super) tombstones: BTreeMap<String, RemoveFile>,
    pub(super) txns: BTreeMap<String, i64>,
    /// The version of the checkpoint it was read from.
    pub(super) checkpoint: Option<u64>,
}

/// What new log entries changed, for whoever planned on the older state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Keys of partitions whose files changed.
    pub partitions: BTreeSet<String>,
    /// Application ids whose number moved.
    pub streams: BTreeSet<String>,
    /// Schema or protocol changed: nothing planned before holds.
    pub metadata: bool,
}

impl Snapshot {
    pub fn table(&self) -> &TableName {
        &self.table
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The version of the last checkpoint it was read from, if any.
    pub fn checkpoint_version(&self) -> Option<u64> {
        self.checkpoint
    }

    /// Every file of the table, by partition and path.
    pub fn files(&self) -> impl Iterator<Item = &AddFile> {
        self.files.values().flatten()
    }

    pub fn file_count(&self) -> usize {
        self.files.values().map(Vec::len).sum()
    }

    /// Partition keys with their files.
    pub fn partitions(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = &AddFile>)> {
        self.files.iter().map(|(key, files)| (key.as_str(), files.iter()))
    }

    /// The files of one partition.
    pub fn partition(&self, key: &str) -> impl Iterator<Item = &AddFile> {
        self.files.get(key).into_iter().flatten()
    }

    /// The files of all partitions of a store.
    pub fn store_files(&self, store: &StoreId) -> impl Iterator<Item = &AddFile> {
        let key = format!("{}={store}", crate::dataset::STORE_COLUMN);
        let end = format!("{key}0"); // '0' follows '/', so keys like `store_id=S/…` lie before it
        self.files
            .range(key.clone()..end)
            .filter(move |(found, _)| **found == key || found.as_bytes().get(key.len()) == Some(&b'/'))
            .flat_map(|(_, files)| files)
    }

    /// Who won each unit of a store, over all its partitions.
    pub fn winners(&self, store: &StoreId) -> Result<BTreeMap<Unit, UnitTag>> {
        let mut winners = BTreeMap::new();
        for file in self.store_files(store) {
            winners.extend(file.units()?.into_iter().map(|tag| (tag.unit, tag)));
        }
        Ok(winners)
    }

    /// Every unit of every store with its facts, in order of store.
    pub fn units(&self) -> impl Iterator<Item = Result<(StoreId, UnitTag)>> {
        self.files().flat_map(|file| {
            let parsed = file.store().and_then(|store| Ok((store, file.units()?)));
            match parsed {
                Ok((store, units)) => units.into_iter().map(|tag| Ok((store.clone(), tag))).collect(),
                Err(error) => vec![Err(error)],
            }
        })
    }

    /// The last number applied in a stream whose order matters: its highest epoch and sequence.
    pub fn stream_position(&self, store: &StoreId, dataset: &DatasetName) -> Option<Position> {
        let prefix = format!("{store}/{dataset}/");
        self.txns
            .range(prefix.clone()..)
            .take_while(|(app_id, _)| app_id.starts_with(&prefix))
            .filter_map(|(app_id, version)| {
                Some(Position { epoch: app_id[prefix.len()..].parse().ok()?, sequence: u64::try_from(*version).ok()? })
            })
            .max()
    }

    pub(super) fn empty(table: &TableName) -> Self {
        let format = super::action::Format { provider: "parquet".to_owned(), options: BTreeMap::new() };
        Self {
            table: table.clone(),
            version: 0,
            protocol: Protocol { min_reader_version: 0, min_writer_version: 0 },
            metadata: Metadata {
                id: String::new(),
                name: None,
                description: None,
                format,
                schema_string: String::new(),
                partition_columns: Vec::new(),
                created_time: None,
                configuration: BTreeMap::new(),
            },
            files: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            txns: BTreeMap::new(),
            checkpoint: None,
        }
    }

    /// Replays the entry of `version`. Returns its commit info.
    pub(super) fn apply(
        &mut self,
        version: u64,
        actions: Vec<Action>,
        changes: &mut Changes,
    ) -> Result<Option<CommitInfo>> {
        let mut info = None;
        for action in actions {
            info = action.commit_info.clone().or(info);
            self.apply_action(action, changes)?;
        }
        self.version = version;
        Ok(info)
    }

    pub(super) fn apply_action(&mut self, action: Action, changes: &mut Changes) -> Result<()> {
        if let Some(protocol) = action.protocol {
            check_protocol(&self.table, &protocol)?;
            self.protocol = protocol;
            changes.metadata = true;
        }
        if let Some(metadata) = action.meta_data {
            self.metadata = metadata;
            changes.metadata = true;
        }
        if let Some(txn) = action.txn {
            changes.streams.insert(txn.app_id.clone());
            self.txns.insert(txn.app_id, txn.version);
        }
        if let Some(remove) = action.remove {
            self.remove(remove, changes);
        }
        if let Some(add) = action.add {
            let key = self.key_of(&add);
            changes.partitions.insert(key.clone());
            self.add_to(key, add);
        }
        Ok(())
    }

    /// Takes a file into the table, in the place of one of the same path.
    pub(super) fn add(&mut self, add: AddFile) {
        self.add_to(self.key_of(&add), add);
    }

    fn add_to(&mut self, partition: String, add: AddFile) {
        self.tombstones.remove(&add.path);
        let files = self.files.entry(partition).or_insert_with(|| Vec::with_capacity(1));
        match place(files, &add.path) {
            Ok(found) => files[found] = add,
            Err(free) => files.insert(free, add),
        }
    }

    /// Forgets removals before `horizon`: no reader may still need those files.
    pub(super) fn forget_tombstones(&mut self, horizon: Timestamp) {
        let horizon = horizon.as_millisecond();
        self.tombstones.retain(|_, remove| remove.deletion_timestamp.is_none_or(|at| at >= horizon));
    }

    /// After replaying: an entry without a protocol or schema is no table.
    pub(super) fn checked(self) -> Result<Self> {
        if self.protocol.min_writer_version == 0 || self.metadata.schema_string.is_empty() {
            return Err(Error::data(format!("table {}: its log holds no protocol and schema", self.table)));
        }
        Ok(self)
    }

    fn key_of(&self, add: &AddFile) -> String {
        let mut key = String::with_capacity(64);
        for (index, column) in self.metadata.partition_columns.iter().enumerate() {
            let value = add.partition_values.get(column).and_then(Option::as_deref).unwrap_or("");
            let slash = if index > 0 { "/" } else { "" };
            key.extend([slash, column, "=", value]);
        }
        key
    }

    fn remove(&mut self, remove: RemoveFile, changes: &mut Changes) {
        // Our own paths begin with their partition's key; a search finds another writer's.
        let by_path = remove.path.rsplit_once('/').map(|(key, _)| key.to_owned());
        let key =
            by_path.filter(|key| self.files.get(key).is_some_and(|files| place(files, &remove.path).is_ok())).or_else(
                || self.files.iter().find(|(_, files)| place(files, &remove.path).is_ok()).map(|(key, _)| key.clone()),
            );
        if let Some(key) = key {
            if let Some(files) = self.files.get_mut(&key) {
                if let Ok(found) = place(files, &remove.path) {
                    files.remove(found);
                }
                if files.is_empty() {
                    self.files.remove(&key);
                }
            }
            changes.partitions.insert(key);
        }
        self.tombstones.insert(remove.path.clone(), remove);
    }
}

/// Where the file of `path` stands in its partition, or where it would.
fn place(files: &[AddFile], path: &str) -> std::result::Result<usize, usize> {
    files.binary_search_by(|file| file.path.as_str().cmp(path))
}

fn check_protocol(table: &TableName, protocol: &Protocol) -> Result<()> {
    if protocol.min_reader_version > 1 || protocol.min_writer_version > 2 {
        return Err(Error::data(format!(
            "table {table}: protocol: must be reader 1 and writer 2 at most, got reader {} and writer {}: another program has upgraded it",
            protocol.min_reader_version, protocol.min_writer_version
        )));
    }
    Ok(())
}
