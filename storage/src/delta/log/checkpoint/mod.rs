//! Checkpoints: the whole state of a table in one Parquet file, in the classic form that every
//! reader of Delta Lake takes.
//!
//! A small one is one row group and is read whole. A large one has row groups in order of partition and store,
//! and an index in its footer: a commit fetches the footer and the row groups it needs.
//!
//! A checkpoint is due every [`EVERY_SMALL`] versions of a small table, because each entry after it
//! costs a commit one request, and every [`EVERY_LARGE`] of a large one, because writing it (some
//! megabytes) costs more than the entries: with ten of them a commit stays below 20 reading requests.

mod decode;
mod encode;
mod index;
mod partial;

pub(in crate::delta) use decode::read;
pub(in crate::delta) use encode::CheckpointWriter;
pub(in crate::delta) use index::Wanted;
pub(in crate::delta) use partial::Unread;

use jiff::Timestamp;

use super::last_checkpoint::LastCheckpoint;
use crate::delta::log::action::AddFile;
use crate::delta::log::path::store_of;
use crate::delta::log::snapshot::Snapshot;
use crate::delta::{PartialSnapshot, Table, VACUUM_RETENTION};
use crate::error::{Error, Result};
use crate::object::ObjectStore;
use crate::ports::Ports;
use encode::Written;

/// Versions from one checkpoint of a small table to the next.
pub const EVERY_SMALL: u64 = 6;

/// Versions from one checkpoint of a large table to the next.
pub const EVERY_LARGE: u64 = 10;

/// Files of a table that is small: its checkpoint is below a megabyte.
const FILES_SMALL_MAX: usize = 2_000;

/// Whether the version that was just committed gets a checkpoint from its writer.
pub(in crate::delta) fn is_due(version: u64, files: usize) -> bool {
    version.is_multiple_of(if files <= FILES_SMALL_MAX { EVERY_SMALL } else { EVERY_LARGE })
}

/// How checkpoints are written and read; the defaults suit the lake.
#[derive(Debug, Clone, Copy)]
pub struct CheckpointBounds {
    /// Rows of a row group: some 300 kB. More: fewer requests for a whole partition; less: fewer bytes for one store.
    pub group_rows_max: usize,
    /// A checkpoint up to this length is read whole: one request more would take longer than the bytes.
    pub whole_bytes_max: u64,
}

impl Default for CheckpointBounds {
    fn default() -> Self {
        Self { group_rows_max: 2_048, whole_bytes_max: 512 << 10 }
    }
}

/// What is read of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::delta) struct Parts {
    /// Only whoever writes the next checkpoint or vacuums needs them.
    pub removals: bool,
    /// A good part of a large checkpoint.
    pub statistics: bool,
    /// Files of a large checkpoint are read when they are asked for.
    pub on_demand: bool,
}

impl Parts {
    pub(in crate::delta) const ALL: Self = Self { removals: true, statistics: true, on_demand: false };
    pub(in crate::delta) const FILES: Self = Self { removals: false, ..Self::ALL };
    pub(in crate::delta) const FILES_WITHOUT_STATISTICS: Self = Self { statistics: false, ..Self::FILES };
    pub(in crate::delta) const ALL_ON_DEMAND: Self = Self { on_demand: true, ..Self::ALL };
    pub(in crate::delta) const FILES_ON_DEMAND: Self = Self { on_demand: true, ..Self::FILES };
}

/// The order of files in a checkpoint: by partition, then those of one store by store, then the others.
pub(in crate::delta) fn order_of<'a>(partition: &'a str, log_path: &'a str) -> impl Ord + 'a {
    let store = store_of(log_path);
    (partition, store.is_none(), store, log_path)
}

impl<S: ObjectStore> Table<'_, S> {
    /// Writes a checkpoint of the latest version, so that readers need no entries before it.
    /// Any caller may, at any time; the version it is of, or `None` when it stands already.
    ///
    /// # Errors
    ///
    /// `Retry` when the object store does not answer; `Data` when the log cannot be read.
    pub async fn checkpoint(&self, ports: Ports<'_, S>) -> Result<Option<u64>> {
        let horizon = horizon_of(ports);
        let (version, written) = match self.encode_latest(Parts::ALL_ON_DEMAND, horizon).await {
            // A damaged row group: the whole may be read from an older checkpoint.
            Err(error) if !error.is_retry() => self.encode_latest(Parts::ALL, horizon).await?,
            encoded => encoded?,
        };
        self.put_checkpoint(version, written).await
    }

    /// The same of the version at which a commit has left `snapshot`: nothing is read twice.
    ///
    /// # Errors
    ///
    /// As [`Self::checkpoint`].
    pub async fn checkpoint_of(&self, ports: Ports<'_, S>, snapshot: &PartialSnapshot) -> Result<Option<u64>> {
        let horizon = horizon_of(ports);
        let snapshot = snapshot.known();
        if !snapshot.has_removals {
            return self.checkpoint(ports).await;
        }
        match self.encode_checkpoint(snapshot, horizon).await {
            // The row groups that were not read yet are gone or damaged.
            Err(error) if !error.is_retry() => self.checkpoint(ports).await,
            encoded => self.put_checkpoint(snapshot.version, encoded?).await,
        }
    }

    async fn put_checkpoint(&self, version: u64, written: Option<Written>) -> Result<Option<u64>> {
        let Some(Written { bytes, actions, files }) = written else { return Ok(None) };
        let hint = LastCheckpoint {
            version,
            size: actions,
            size_in_bytes: Some(bytes.len() as u64),
            num_of_add_files: Some(files),
        };
        self.objects.put(&self.checkpoint_path(version)?, bytes.into()).await?;
        let newer = self.read_last_checkpoint().await.is_some_and(|standing| standing.version > version);
        if !newer {
            let hint = serde_json::to_vec(&hint)
                .map_err(|error| Error::bug("_last_checkpoint does not serialise").with_source(error))?;
            self.objects.put(&self.last_checkpoint_path()?, hint.into()).await?;
        }
        Ok(Some(version))
    }

    /// The latest version and its checkpoint; `None` when there is nothing to write.
    async fn encode_latest(&self, parts: Parts, horizon: Timestamp) -> Result<(u64, Option<Written>)> {
        match self.load_latest(parts).await? {
            Some(snapshot) if snapshot.checkpoint != Some(snapshot.version) => {
                Ok((snapshot.version, self.encode_checkpoint(&snapshot, horizon).await?))
            }
            snapshot => Ok((snapshot.map_or(0, |snapshot| snapshot.version), None)),
        }
    }

    /// What `snapshot` knows, merged with what it has not read of the last checkpoint, row group by row group.
    /// Removals before `horizon` are forgotten: no reader may still need those files. `None` when tags
    /// were lost: that must not be written down as if they had never been.
    async fn encode_checkpoint(&self, snapshot: &Snapshot, horizon: Timestamp) -> Result<Option<Written>> {
        let mut writer =
            CheckpointWriter::new(&snapshot.protocol, &snapshot.metadata, self.bounds.checkpoints.group_rows_max);
        let known = snapshot.partitions().flat_map(|(key, files)| files.files().map(move |file| (key, file)));
        let mut known = known.peekable();
        let mut has_lost_tags = false;
        let mut put = |partition: &str, file: &AddFile| {
            has_lost_tags |= file.has_lost_tags();
            writer.add(partition, file)
        };
        for groups in snapshot.unread.iter().flat_map(Unread::file_groups) {
            for file in self.read_unread_files(snapshot, groups).await? {
                let key = snapshot.key_of(&file);
                let order = order_of(&key, &file.path);
                while let Some((key, file)) = known.next_if(|(key, file)| order_of(key, &file.path) < order) {
                    put(key, file)?;
                }
                put(&key, &file)?;
            }
        }
        for (key, file) in known {
            put(key, file)?;
        }
        if has_lost_tags {
            return Ok(None);
        }
        let horizon = horizon.as_millisecond();
        for groups in snapshot.unread.iter().flat_map(Unread::removal_groups) {
            for remove in self.read_unread_removals(snapshot, groups).await? {
                if remove.is_needed(horizon) {
                    writer.remove(&remove)?;
                }
            }
        }
        for remove in snapshot.tombstones.values().filter(|remove| remove.is_needed(horizon)) {
            writer.remove(remove)?;
        }
        writer.finish().map(Some)
    }
}

/// Removals before it are forgotten.
fn horizon_of<S>(ports: Ports<'_, S>) -> Timestamp {
    ports.clock.now().checked_sub(VACUUM_RETENTION).unwrap_or(Timestamp::MIN)
}

/// The bytes of a checkpoint of a snapshot that was read whole.
#[cfg(test)]
pub(in crate::delta) fn write(snapshot: &Snapshot) -> Result<Vec<u8>> {
    let mut writer =
        CheckpointWriter::new(&snapshot.protocol, &snapshot.metadata, CheckpointBounds::default().group_rows_max);
    for (key, files) in snapshot.partitions() {
        files.files().try_for_each(|file| writer.add(key, file))?;
    }
    snapshot.tombstones.values().try_for_each(|remove| writer.remove(remove))?;
    Ok(writer.finish()?.bytes)
}
