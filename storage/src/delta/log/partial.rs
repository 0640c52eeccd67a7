//! A table of which only some files were read: what a commit needs.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::checkpoint::{Parts, Wanted};
use super::snapshot::{Changes, Snapshot};
use crate::batch::Manifest;
use crate::dataset::DatasetDefinition;
use crate::delta::Table;
use crate::delta::log::action::{Action, AddFile, CommitInfo, Metadata, Protocol};
use crate::delta::log::path;
use crate::error::{Error, Result};
use crate::ids::StoreId;
use crate::object::ObjectStore;
use crate::ports::Ports;

/// A table at a version. Of a large one only those files are known that were asked for
/// ([`Table::load_for`]); to ask for others is an error, never "no such file".
#[derive(Debug, Clone)]
pub struct PartialSnapshot(Snapshot);

/// Whoever knows the files of a store in a partition.
pub trait StoreFiles {
    /// The version of the table.
    fn version(&self) -> u64;

    /// The files of a partition that may hold rows of `store`.
    ///
    /// # Errors
    ///
    /// `Bug` when they were not read.
    fn files_of(&self, partition: &str, store: &StoreId) -> Result<Vec<&AddFile>>;
}

impl StoreFiles for Snapshot {
    fn version(&self) -> u64 {
        self.version
    }

    fn files_of(&self, partition: &str, store: &StoreId) -> Result<Vec<&AddFile>> {
        let mut wanted = Wanted::default();
        wanted.add_store(partition.to_owned(), store);
        if self.unread.as_ref().is_some_and(|unread| unread.may_hold(&wanted)) {
            return Err(Error::bug(format!("table {}: files of {store} in {partition} were not read", self.table)));
        }
        let partition = self.partition(partition);
        Ok(partition.into_iter().flat_map(|partition| partition.files_of(store)).collect())
    }
}

impl StoreFiles for PartialSnapshot {
    fn version(&self) -> u64 {
        self.0.version
    }

    fn files_of(&self, partition: &str, store: &StoreId) -> Result<Vec<&AddFile>> {
        self.0.files_of(partition, store)
    }
}

/// Of which everything was read.
impl From<Snapshot> for PartialSnapshot {
    fn from(whole: Snapshot) -> Self {
        Self(whole)
    }
}

impl PartialSnapshot {
    pub fn metadata(&self) -> &Metadata {
        &self.0.metadata
    }

    /// The files that may hold rows of a store, over all partitions.
    ///
    /// # Errors
    ///
    /// `Bug` when they were not read.
    pub fn store_files(&self, store: &StoreId) -> Result<Vec<&AddFile>> {
        let wanted = || Wanted::of_stores([store.clone()].into());
        if self.0.unread.as_ref().is_some_and(|unread| unread.may_hold(&wanted())) {
            return Err(Error::bug(format!("table {}: files of {store} were not read", self.0.table)));
        }
        Ok(self.0.store_files(store).collect())
    }

    /// See [`Snapshot::forget_facts`].
    pub fn forget_facts(&mut self) {
        self.0.forget_facts();
    }

    /// Files of the table, more or less where not all were read.
    pub fn file_count(&self) -> usize {
        self.0.file_count() + self.0.unread.as_ref().map_or(0, |unread| unread.file_count())
    }

    /// What is known of the table, and what is not.
    pub(in crate::delta) fn known(&self) -> &Snapshot {
        &self.0
    }

    pub(in crate::delta) fn protocol(&self) -> &Protocol {
        &self.0.protocol
    }

    pub(in crate::delta) fn check_writable(&self) -> Result<()> {
        self.0.check_writable()
    }

    pub(in crate::delta) fn removal_time(&self, now: Timestamp) -> Timestamp {
        self.0.removal_time(now)
    }

    pub(in crate::delta) fn apply(&mut self, version: u64, actions: Vec<Action>) -> Result<()> {
        self.0.apply(version, actions, &mut Changes::default()).map(drop)
    }

    /// Whether the file of that log path is of the table. Its partition must have been read.
    pub(in crate::delta) fn has(&self, log_path: &str) -> bool {
        self.0.has(log_path)
    }
}

impl<S: ObjectStore> Table<'_, S> {
    /// The table as it stands, or `None` when it was never created; with the files in which units of these
    /// batches may lie. Three or four rounds of requests, however large the table is.
    ///
    /// # Errors
    ///
    /// As [`Table::load`].
    pub async fn load_for(
        &self,
        dataset: &DatasetDefinition,
        manifests: impl IntoIterator<Item = &Manifest>,
    ) -> Result<Option<PartialSnapshot>> {
        let Some(mut snapshot) = self.load_partial().await? else { return Ok(None) };
        let mut wanted = Wanted::default();
        for manifest in manifests {
            wanted.add_store(path::partition_key(&dataset.partition(manifest.month)), &manifest.batch.store);
        }
        self.read_partial(&mut snapshot, &wanted).await?;
        Ok(Some(snapshot))
    }

    /// The table as it stands, for whoever asks for the units of some stores: those must be named to
    /// [`Self::read_stores`] before. Not for commits.
    ///
    /// # Errors
    ///
    /// As [`Table::load`].
    pub async fn load_to_read_stores(&self) -> Result<Option<PartialSnapshot>> {
        Ok(self.load_latest(Parts::FILES_ON_DEMAND).await?.map(PartialSnapshot))
    }

    /// Reads the files of some stores, where they were not read yet. The table may be newer afterwards.
    ///
    /// # Errors
    ///
    /// As [`Table::load`].
    pub async fn read_stores(&self, snapshot: &mut PartialSnapshot, stores: BTreeSet<StoreId>) -> Result<()> {
        self.read_files(&mut snapshot.0, &Wanted::of_stores(stores)).await
    }

    /// Reads the facts of some stores: see [`Table::load_facts`].
    ///
    /// # Errors
    ///
    /// As [`Table::load_facts`].
    pub async fn load_facts_of(&self, snapshot: &mut PartialSnapshot, stores: &BTreeSet<StoreId>) -> Result<()> {
        self.load_facts(&mut snapshot.0, None, Some(stores)).await
    }

    /// Without the files of a large checkpoint: see [`Self::read_partial`].
    pub(in crate::delta) async fn load_partial(&self) -> Result<Option<PartialSnapshot>> {
        Ok(self.load_latest(Parts::ALL_ON_DEMAND).await?.map(PartialSnapshot))
    }

    /// The same of a table that was not there a moment ago.
    pub(in crate::delta) async fn create_partial(
        &self,
        ports: Ports<'_, S>,
        dataset: &DatasetDefinition,
    ) -> Result<PartialSnapshot> {
        self.create(ports, dataset).await?;
        self.load_partial()
            .await?
            .ok_or_else(|| Error::retry(format!("table {}: vanished after its creation", self.name)))
    }

    /// Reads the wanted files, where they were not read yet. The table may be newer afterwards.
    pub(in crate::delta) async fn read_partial(&self, snapshot: &mut PartialSnapshot, wanted: &Wanted) -> Result<()> {
        self.read_files(&mut snapshot.0, wanted).await
    }

    /// See [`Table::load_facts`].
    pub(in crate::delta) async fn load_partial_facts(
        &self,
        snapshot: &mut PartialSnapshot,
        partitions: &BTreeSet<String>,
        stores: &BTreeSet<StoreId>,
    ) -> Result<()> {
        self.load_facts(&mut snapshot.0, Some(partitions), Some(stores)).await
    }

    /// Catches up with what was committed since.
    pub(in crate::delta) async fn refresh_partial(&self, snapshot: &mut PartialSnapshot) -> Result<()> {
        self.refresh(&mut snapshot.0).await.map(drop)
    }

    pub(in crate::delta) fn replay_partial(
        &self,
        snapshot: &mut PartialSnapshot,
        version: u64,
        bytes: &[u8],
    ) -> Result<Option<CommitInfo>> {
        self.replay_entry(&mut snapshot.0, version, bytes, &mut Changes::default())
    }
}
