//! (bodies to come)
use super::*;

impl<'a, S: ObjectStore> Table<'a, S> {
    /// The table as it stands, or `None` when it was never created. Three rounds of requests.
    pub async fn load(&self) -> Result<Option<Snapshot>> {
        Err(Error::bug("not yet"))
    }

    /// The table as it stood at `version`; an error of kind `Config` when that version does not
    /// exist (yet), or is no longer kept.
    pub async fn load_at(&self, version: u64) -> Result<Snapshot> {
        let _ = version;
        Err(Error::bug("not yet"))
    }

    /// Catches up with what was committed since; says what changed. One round of requests when
    /// little did.
    pub async fn refresh(&self, snapshot: &mut Snapshot) -> Result<Changes> {
        let _ = snapshot;
        Err(Error::bug("not yet"))
    }

    /// The newest `limit` versions with their commit info, newest first.
    pub async fn history(&self, limit: usize) -> Result<Vec<(u64, CommitInfo)>> {
        let _ = limit;
        Err(Error::bug("not yet"))
    }

    /// Loads the table, creating version 0 from the definition when there is none.
    pub async fn load_or_create(&self, ports: Ports<'_>, dataset: &DatasetDefinition) -> Result<Snapshot> {
        let _ = (ports, dataset);
        Err(Error::bug("not yet"))
    }

    /// Settles all ready batches of the table in one log entry (see the module). Creates the table
    /// when there is none, and adds the columns that `dataset` has and the table has not.
    /// `own` are the caller's batches: read first, and reason enough to return once they are
    /// settled. A sweep passes none. Safe to run any number of times at once.
    ///
    /// An error of kind `Config` says that `dataset` is no evolution of the table, or that
    /// [`Self::migrate`] must run first.
    pub async fn commit_ready(
        &self,
        ports: Ports<'_>,
        dataset: &DatasetDefinition,
        own: &[BatchId],
    ) -> Result<CommitReport> {
        let _ = (ports, dataset, own);
        Err(Error::bug("not yet"))
    }

    /// What became of a batch, from the log alone: `None` when it is not settled. Lets a call that
    /// runs again skip re-encoding.
    pub fn settled(
        &self,
        snapshot: &Snapshot,
        dataset: &DatasetDefinition,
        manifest: &Manifest,
    ) -> Result<Option<BatchOutcome>> {
        let _ = (snapshot, dataset, manifest);
        Err(Error::bug("not yet"))
    }

    /// Writes a checkpoint of the latest version, so that readers need no entries before it.
    /// Any caller may, at any time; the version it is of, or `None` when it stands already.
    pub async fn checkpoint(&self, ports: Ports<'_>) -> Result<Option<u64>> {
        let _ = ports;
        Err(Error::bug("not yet"))
    }

    /// Commits the merge of `group.files` into `merged` without a change of data. False when a
    /// file of the group is no longer in the table: a batch came first, nothing is changed.
    pub async fn commit_compaction(
        &self,
        ports: Ports<'_>,
        group: &CompactionGroup,
        merged: Vec<AddFile>,
    ) -> Result<bool> {
        let _ = (ports, group, merged);
        Err(Error::bug("not yet"))
    }

    /// Makes the table's schema that of `dataset`, writing files of narrower types anew where
    /// independent readers ask for it. True when anything was changed.
    pub async fn migrate(&self, ports: Ports<'_>, dataset: &DatasetDefinition) -> Result<bool> {
        let _ = (ports, dataset);
        Err(Error::bug("not yet"))
    }

    /// Objects under the table's folder that no reader, commit or time travel within `retention`
    /// can need any more. Delete them with [`Self::delete_objects`].
    pub async fn vacuum_plan(
        &self,
        now: Timestamp,
        retention: jiff::SignedDuration,
    ) -> Result<Vec<crate::object::ObjectMeta>> {
        let _ = (now, retention);
        Err(Error::bug("not yet"))
    }

    /// Log entries and checkpoints that lie before a checkpoint older than [`LOG_RETENTION`].
    pub async fn log_cleanup_plan(&self, now: Timestamp) -> Result<Vec<crate::object::ObjectMeta>> {
        let _ = now;
        Err(Error::bug("not yet"))
    }

    /// Deletes what a plan names.
    pub async fn delete_objects(&self, plan: &[crate::object::ObjectMeta]) -> Result<()> {
        let _ = plan;
        Err(Error::bug("not yet"))
    }
}

/// Removed and orphaned files are kept this long by the object store's clock: readers of older
/// versions and slow commits are done by then.
pub const VACUUM_RETENTION: jiff::SignedDuration = jiff::SignedDuration::from_hours(7 * 24);

/// Log entries are kept this long: as far back as time travel goes.
pub const LOG_RETENTION: jiff::SignedDuration = jiff::SignedDuration::from_hours(30 * 24);

/// Files of one partition to merge into one (or, rolled, a few).
#[derive(Debug, Clone, PartialEq)]
pub struct CompactionGroup {
    /// For [`Table::put_file`].
    pub partition: Vec<PartitionColumn>,
    pub files: Vec<AddFile>,
    /// The units of all files with their facts, in order: what the merged files must prove.
    pub units: Vec<UnitTag>,
    pub bytes: u64,
    pub rows: u64,
}

/// What to compact: partitions with 8 or more files, or whose month is over and that have more
/// than one. `today` is the business date now.
pub fn compaction_plan(snapshot: &Snapshot, today: jiff::civil::Date) -> Result<Vec<CompactionGroup>> {
    let _ = (snapshot, today);
    Err(Error::bug("not yet"))
}
