//! The state of a table at a version: what a log says when replayed. No I/O here.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::dataset::STORE_COLUMN;
use crate::delta::log::action::{APPEND_ONLY, Action, AddFile, CommitInfo, Metadata, Protocol, RemoveFile};
use crate::delta::log::checkpoint::Unread;
use crate::delta::log::path::store_of;
use crate::error::{Error, Result};
use crate::ids::{DatasetName, StoreId, Unit};

use crate::delta::units::tags::UnitTag;

/// The files of a partition: those of one store are found without looking at the others'.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Partition {
    /// Files of one store each; those of a store in order of log path.
    own: BTreeMap<String, Vec<AddFile>>,
    /// The others, in order of log path.
    shared: Vec<AddFile>,
}

impl Partition {
    /// Every file: first those of one store, by store, then the others; each in order of log path.
    pub fn files(&self) -> impl Iterator<Item = &AddFile> {
        self.own.values().flatten().chain(&self.shared)
    }

    /// The files that may hold rows of `store`.
    pub fn files_of(&self, store: &StoreId) -> impl Iterator<Item = &AddFile> {
        let shared = self.shared.iter().filter(move |file| file.stores().may_hold(store.as_str()));
        self.own.get(store.as_str()).into_iter().flatten().chain(shared)
    }

    fn is_empty(&self) -> bool {
        self.own.is_empty() && self.shared.is_empty()
    }

    fn len(&self) -> usize {
        self.own.values().map(Vec::len).sum::<usize>() + self.shared.len()
    }

    fn has(&self, path: &str) -> bool {
        let files = store_of(path).map_or(Some(&self.shared), |store| self.own.get(store));
        files.is_some_and(|files| place(files, path).is_ok())
    }

    /// Takes a file in, in the place of one of the same path.
    fn add(&mut self, add: AddFile) {
        let files = match store_of(&add.path) {
            Some(store) => self.own.entry(store.to_owned()).or_insert_with(|| Vec::with_capacity(1)),
            None => &mut self.shared,
        };
        match place(files, &add.path) {
            Ok(found) => files[found] = add,
            Err(free) => files.insert(free, add),
        }
    }

    fn remove(&mut self, path: &str) {
        let store = store_of(path);
        let files = store.map_or(Some(&mut self.shared), |store| self.own.get_mut(store));
        let Some(files) = files else { return };
        if let Ok(found) = place(files, path) {
            files.remove(found);
        }
        if let (Some(store), true) = (store, files.is_empty()) {
            self.own.remove(store);
        }
    }
}

/// A table at a version.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub(in crate::delta) table: DatasetName,
    pub(in crate::delta) version: u64,
    pub(in crate::delta) protocol: Protocol,
    pub(in crate::delta) metadata: Metadata,
    /// By partition key (`month=YYYY-MM`; empty without a grain).
    pub(in crate::delta) partitions: BTreeMap<String, Partition>,
    /// Removed files, as far as they were read: a reader passes over those of the checkpoint.
    pub(in crate::delta) tombstones: BTreeMap<String, RemoveFile>,
    /// No removal was passed over: a checkpoint may be written of it.
    pub(in crate::delta) has_removals: bool,
    /// The version of the checkpoint it was read from.
    pub(in crate::delta) checkpoint: Option<u64>,
    /// Unix milliseconds of the newest entry read, by its writer's clock.
    pub(in crate::delta) committed_at: i64,
    /// What of a large checkpoint was not read: only inside a [`super::PartialSnapshot`] and for whoever writes the
    /// next checkpoint.
    pub(in crate::delta) unread: Option<Unread>,
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

    /// Every file of the table, by partition.
    pub fn files(&self) -> impl Iterator<Item = &AddFile> {
        self.partitions.values().flat_map(Partition::files)
    }

    pub fn file_count(&self) -> usize {
        self.partitions.values().map(Partition::len).sum()
    }

    /// Partition keys with their files.
    pub fn partitions(&self) -> impl Iterator<Item = (&str, &Partition)> {
        self.partitions.iter().map(|(key, files)| (key.as_str(), files))
    }

    /// The partition of that key, if it has files.
    pub fn partition(&self, key: &str) -> Option<&Partition> {
        self.partitions.get(key)
    }

    /// Whether the file of that log path is of the table.
    pub(in crate::delta) fn has(&self, path: &str) -> bool {
        let own = self.partitions.get(folder_of(path)).is_some_and(|partition| partition.has(path));
        own || self.partitions.values().any(|partition| partition.has(path))
    }

    /// The files whose facts are in an object of their own, as [`crate::delta::Table::load_facts`] asks for them.
    pub(in crate::delta) fn files_with_facts(
        &mut self,
        partitions: Option<&BTreeSet<String>>,
        stores: Option<&BTreeSet<StoreId>>,
    ) -> Vec<&mut AddFile> {
        let wanted = |key: &String| partitions.is_none_or(|partitions| partitions.contains(key));
        let may_hold = |file: &AddFile| stores.is_none_or(|stores| file.stores().may_hold_any(stores));
        let partitions = self.partitions.iter_mut().filter(|(key, _)| wanted(key)).map(|(_, partition)| partition);
        let files = partitions.flat_map(|partition| partition.own.values_mut().flatten().chain(&mut partition.shared));
        files.filter(|file| matches!(file.facts_tag(), Ok(Some(_))) && may_hold(file)).collect()
    }

    /// Forgets what was read of facts in objects of their own: those of thousands of stores fill a memory.
    pub fn forget_facts(&mut self) {
        for file in self.files_with_facts(None, None) {
            file.facts.forget_texts();
        }
    }

    /// The files that may hold rows of a store, over all partitions.
    pub fn store_files(&self, store: &StoreId) -> impl Iterator<Item = &AddFile> {
        self.partitions.values().flat_map(move |partition| partition.files_of(store))
    }

    /// Who won each unit of a store, over all its partitions.
    ///
    /// # Errors
    ///
    /// `Data` when what a tag says of the store cannot be read.
    pub fn winners(&self, store: &StoreId) -> Result<BTreeMap<Unit, UnitTag>> {
        let mut winners = BTreeMap::new();
        for file in self.store_files(store) {
            winners.extend(file.units_of(store)?.into_iter().map(|tag| (tag.unit, tag)));
        }
        Ok(winners)
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
            partitions: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            has_removals: true,
            checkpoint: None,
            committed_at: 0,
            unread: None,
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
            self.refuse_old_layout(&metadata)?;
            self.metadata = metadata;
            changes.metadata = true;
        }
        if let Some(unread) = &mut self.unread {
            let removed = action.remove.iter().map(|remove| &remove.path);
            removed.chain(action.add.iter().map(|add| &add.path)).for_each(|path| unread.touch(path));
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
        self.partitions.entry(partition).or_default().add(add);
    }

    /// Tables were partitioned by store once. Their files lack the column that now names it.
    fn refuse_old_layout(&self, metadata: &Metadata) -> Result<()> {
        if !metadata.partition_columns.iter().any(|column| column == STORE_COLUMN) {
            return Ok(());
        }
        Err(Error::data(format!(
            "table {}: must be partitioned by month, year or nothing, got {}: an older release of Ribera wrote it",
            self.table,
            metadata.partition_columns.join(", ")
        ))
        .with_hint("docs/operator.md, \"A lake of an older release\""))
    }

    /// Whether a file that only Ribera can have written has no tags: the checkpoint it was read from
    /// lost them.
    pub fn has_lost_tags(&self) -> bool {
        self.files().any(AddFile::has_lost_tags)
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
        let has = |key: &str| self.partitions.get(key).is_some_and(|partition| partition.has(&remove.path));
        let key = Some(folder_of(&remove.path).to_owned())
            .filter(|key| has(key))
            .or_else(|| self.partitions.keys().find(|key| has(key)).cloned());
        if let Some(key) = key {
            if let Some(partition) = self.partitions.get_mut(&key) {
                partition.remove(&remove.path);
                if partition.is_empty() {
                    self.partitions.remove(&key);
                }
            }
            changes.partitions.insert(key);
        }
        self.tombstones.insert(remove.path.clone(), remove);
    }
}

/// The folder of a log path: the key of the partition that our own files lie in.
fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Where the file of `path` stands in its partition, or where it would.
fn place(files: &[AddFile], path: &str) -> std::result::Result<usize, usize> {
    files.binary_search_by(|file| file.path.as_str().cmp(path))
}
