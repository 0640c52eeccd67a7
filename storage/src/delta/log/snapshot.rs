//! The state of a table at a version: what a log says when replayed. No I/O here.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::delta::log::action::{APPEND_ONLY, Action, AddFile, CommitInfo, Metadata, Protocol, RemoveFile};
use crate::error::{Error, Result};
use crate::ids::{StoreId, DatasetName, Unit};

use crate::delta::units::tags::UnitTag;

/// Files by partition key (`store_id=S/month=YYYY-MM`). Most partitions have one: those of each
/// stand in a vector in order of log path, which takes a tenth of a map's memory.
pub type FilesByPartition = BTreeMap<String, Vec<AddFile>>;

/// A table at a version.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub(in crate::delta) table: DatasetName,
    pub(in crate::delta) version: u64,
    pub(in crate::delta) protocol: Protocol,
    pub(in crate::delta) metadata: Metadata,
    pub(in crate::delta) files: FilesByPartition,
    /// Removed files, as far as they were read: a reader passes over those of the checkpoint.
    pub(in crate::delta) tombstones: BTreeMap<String, RemoveFile>,
    /// The version of the checkpoint it was read from.
    pub(in crate::delta) checkpoint: Option<u64>,
    /// Unix milliseconds of the newest entry read, by its writer's clock.
    pub(in crate::delta) committed_at: i64,
}

/// What new log entries changed, for whoever planned on the older state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Keys of partitions whose files changed.
    pub partitions: BTreeSet<String>,
    /// Schema or protocol changed: nothing planned before holds.
    pub metadata: bool,
}

impl Snapshot {
    pub fn table(&self) -> &DatasetName {
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
    ///
    /// # Errors
    ///
    /// `Data` when a tag of the store cannot be read.
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

    pub(in crate::delta) fn empty(table: &DatasetName) -> Self {
        let format = crate::delta::log::action::Format { provider: "parquet".to_owned(), options: BTreeMap::new() };
        Self {
            table: table.clone(),
            version: 0,
            protocol: Protocol {
                min_reader_version: 0,
                min_writer_version: 0,
                writer_features: None,
                reader_features: None,
            },
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
            checkpoint: None,
            committed_at: 0,
        }
    }

    /// Replays the entry of `version`. Returns its commit info.
    pub(in crate::delta) fn apply(
        &mut self,
        version: u64,
        actions: Vec<Action>,
        changes: &mut Changes,
    ) -> Result<Option<CommitInfo>> {
        let mut info = None;
        for action in actions {
            info = action.commit_info.clone().or(info);
            self.committed_at = self.committed_at.max(info.as_ref().map_or(0, |info| info.timestamp));
            self.apply_action(action, changes)?;
        }
        self.version = version;
        Ok(info)
    }

    pub(in crate::delta) fn apply_action(&mut self, action: Action, changes: &mut Changes) -> Result<()> {
        if let Some(protocol) = action.protocol {
            protocol.check().map_err(|error| {
                let hint = "docs/operator.md, \"If another program upgraded the table\"";
                error.context(format!("table {}", self.table)).with_hint(hint)
            })?;
            self.protocol = protocol;
            changes.metadata = true;
        }
        if let Some(metadata) = action.meta_data {
            self.metadata = metadata;
            changes.metadata = true;
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
    pub(in crate::delta) fn add(&mut self, add: AddFile) {
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

    /// Whether a file that only Ribera can have written has no tags: the checkpoint it was read from
    /// lost them.
    pub fn has_lost_tags(&self) -> bool {
        self.foreign_files().any(AddFile::has_our_name)
    }

    /// Files that another program wrote, or whose tags a foreign checkpoint lost.
    pub fn foreign_files(&self) -> impl Iterator<Item = &AddFile> {
        self.files().filter(|file| file.is_foreign())
    }

    /// A person may protect a table by its own properties; writers must honour them.
    ///
    /// # Errors
    ///
    /// `Config` when the table is append-only or has invariants.
    pub(in crate::delta) fn check_writable(&self) -> Result<()> {
        let bad = |what: &str| {
            Err(Error::config(format!(
                "table {}: {what}: must not be set, because a correction replaces rows",
                self.table
            ))
            .with_hint(format!("ribera repair {}", self.table)))
        };
        if self.metadata.is_append_only() {
            return bad(APPEND_ONLY);
        }
        if self.metadata.schema_string.contains("\"delta.invariants\"") {
            return bad("delta.invariants");
        }
        match self.metadata.configuration.keys().find(|key| key.starts_with("delta.constraints.")) {
            Some(key) => bad(key),
            None => Ok(()),
        }
    }

    /// When a removal happens that is planned now: never before what this table has seen already, so
    /// that a host whose clock is behind does not give files to the next vacuum.
    pub(in crate::delta) fn removal_time(&self, now: Timestamp) -> Timestamp {
        Timestamp::from_millisecond(self.committed_at).map_or(now, |committed| committed.max(now))
    }

    /// Forgets removals before `horizon`: no reader may still need those files.
    pub(in crate::delta) fn forget_tombstones(&mut self, horizon: Timestamp) {
        let horizon = horizon.as_millisecond();
        self.tombstones.retain(|_, remove| remove.deletion_timestamp.is_none_or(|at| at >= horizon));
    }

    /// After replaying: an entry without a protocol or schema is no table.
    pub(in crate::delta) fn checked(self) -> Result<Self> {
        if self.protocol.min_writer_version == 0 || self.metadata.schema_string.is_empty() {
            return Err(Error::data(format!("table {}: its log holds no protocol and schema", self.table)));
        }
        Ok(self)
    }

    pub(in crate::delta) fn key_of(&self, add: &AddFile) -> String {
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
