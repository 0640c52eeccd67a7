//! Reading a table's log: the newest checkpoint, then the entries after it.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use super::action::{self, CommitInfo};
use super::checkpoint::{self, Parts};
use super::snapshot::{Changes, Snapshot};
use super::{CONCURRENCY, Table};
use crate::error::{Error, Result};
use crate::object::{ObjectMeta, ObjectPath, ObjectStore, list_all};
use crate::paths;

/// What `_last_checkpoint` says. A hint: it may lag behind, and be absent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LastCheckpoint {
    pub version: u64,
    /// Actions in it.
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_in_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_of_add_files: Option<u64>,
}

/// A file of the log folder by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogFile {
    Entry(u64),
    Checkpoint(u64),
}

impl LogFile {
    pub(super) fn of(path: &ObjectPath) -> Option<Self> {
        let (digits, rest) = path.file_name().split_once('.')?;
        if digits.len() != 20 {
            return None;
        }
        let version = digits.parse().ok()?;
        match rest {
            "json" => Some(Self::Entry(version)),
            "checkpoint.parquet" => Some(Self::Checkpoint(version)),
            _ => None,
        }
    }
}

impl<S: ObjectStore> Table<'_, S> {
    /// The table as it stands, or `None` when it was never created. Three rounds of requests.
    pub async fn load(&self) -> Result<Option<Snapshot>> {
        self.load_latest(Parts::Files).await
    }

    /// The table as it stands, for whoever asks for its units alone: files from a checkpoint come
    /// without statistics. Not for commits.
    pub async fn load_without_statistics(&self) -> Result<Option<Snapshot>> {
        self.load_latest(Parts::FilesWithoutStatistics).await
    }

    /// The table as it stood at `version`; an error of kind `Config` when that version does not
    /// exist (yet), or is no longer kept.
    pub async fn load_at(&self, version: u64) -> Result<Snapshot> {
        let listed = list_all(self.objects, &self.log_folder(), None).await?;
        let exists = listed.iter().any(|meta| LogFile::of(&meta.path) == Some(LogFile::Entry(version)));
        let newest = listed.iter().rev().find_map(|meta| match LogFile::of(&meta.path)? {
            LogFile::Entry(version) => Some(version),
            LogFile::Checkpoint(_) => None,
        });
        if !exists {
            let newest = newest.map_or("none".to_owned(), |newest| format!("up to {newest}"));
            return Err(Error::config(format!(
                "table {}: version: must be one that exists and is still kept ({newest}), got {version}",
                self.name
            )));
        }
        match self.replay(&listed, version, Parts::Files).await? {
            Some(snapshot) => Ok(snapshot),
            None => Err(Error::config(format!(
                "table {}: version {version}: entries before it are no longer kept (30 days), and no checkpoint stands for them",
                self.name
            ))),
        }
    }

    /// Catches up with what was committed since; says what changed. One round of requests when
    /// little did.
    pub async fn refresh(&self, snapshot: &mut Snapshot) -> Result<Changes> {
        let mut changes = Changes::default();
        // Guess the next versions instead of listing them: a few GETs of which the last ones miss.
        let mut wave = 2;
        loop {
            let first = snapshot.version + 1;
            let entries = self.read_entries(first, wave).await?;
            let full = entries.len() == wave;
            for (version, bytes) in (first..).zip(&entries) {
                self.replay_entry(snapshot, version, bytes, &mut changes)?;
            }
            if !full {
                return Ok(changes);
            }
            wave = (wave * 4).min(CONCURRENCY);
        }
    }

    /// The newest `limit` versions with their commit info, newest first.
    pub async fn history(&self, limit: usize) -> Result<Vec<(u64, CommitInfo)>> {
        let Some(snapshot) = self.load().await? else { return Ok(Vec::new()) };
        let first = (snapshot.version + 1).saturating_sub(limit as u64);
        let read: Vec<_> = stream::iter(first..=snapshot.version)
            .map(async |version| Ok::<_, Error>((version, self.read_entry(version).await?)))
            .buffered(CONCURRENCY)
            .try_collect()
            .await?;
        let mut history = Vec::new();
        for (version, bytes) in read {
            // Entries before a checkpoint may have been cleaned away.
            let Some(bytes) = bytes else { continue };
            let actions = action::from_lines(&bytes).map_err(|error| self.in_entry(version, error))?;
            let info = actions.into_iter().find_map(|action| action.commit_info);
            history.push((version, info.unwrap_or_default()));
        }
        history.reverse();
        Ok(history)
    }

    pub(super) async fn load_latest(&self, parts: Parts) -> Result<Option<Snapshot>> {
        if let Some(hint) = self.read_last_checkpoint().await
            && let Some(snapshot) = self.load_from(hint.version, parts).await?
        {
            return Ok(Some(snapshot));
        }
        let listed = list_all(self.objects, &self.log_folder(), None).await?;
        match self.replay(&listed, u64::MAX, parts).await? {
            Some(snapshot) => Ok(Some(snapshot)),
            None if listed.iter().any(|meta| LogFile::of(&meta.path).is_some()) => Err(Error::data(format!(
                "table {}: its log begins neither with version 0 nor with a checkpoint",
                self.name
            ))),
            None => Ok(None),
        }
    }

    pub(super) fn log_folder(&self) -> String {
        format!("{}/_delta_log/", paths::table_root(&self.name))
    }

    pub(super) fn checkpoint_path(&self, version: u64) -> Result<ObjectPath> {
        ObjectPath::new(format!("{}{version:020}.checkpoint.parquet", self.log_folder()))
    }

    pub(super) fn last_checkpoint_path(&self) -> Result<ObjectPath> {
        ObjectPath::new(format!("{}_last_checkpoint", self.log_folder()))
    }

    pub(super) async fn read_entry(&self, version: u64) -> Result<Option<Bytes>> {
        self.objects.get(&paths::log_entry(&self.name, version)?).await
    }

    pub(super) fn replay_entry(
        &self,
        snapshot: &mut Snapshot,
        version: u64,
        bytes: &[u8],
        changes: &mut Changes,
    ) -> Result<Option<CommitInfo>> {
        action::from_lines(bytes)
            .and_then(|actions| snapshot.apply(version, actions, changes))
            .map_err(|error| self.in_entry(version, error))
    }

    pub(super) async fn read_last_checkpoint(&self) -> Option<LastCheckpoint> {
        // Only a hint: whatever is wrong with it, the listing knows better.
        let path = self.last_checkpoint_path().ok()?;
        let bytes = self.objects.get(&path).await.ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    /// From the checkpoint of `version` on; `None` when it cannot be read.
    async fn load_from(&self, version: u64, parts: Parts) -> Result<Option<Snapshot>> {
        let after = format!("{}{version:020}.json", self.log_folder());
        let path = self.checkpoint_path(version)?;
        let folder = self.log_folder();
        let (bytes, listed) =
            futures::try_join!(self.objects.get(&path), list_all(self.objects, &folder, Some(&after)))?;
        let newer = listed.iter().any(|meta| matches!(LogFile::of(&meta.path), Some(LogFile::Checkpoint(_))));
        if newer && let Some(snapshot) = self.replay(&listed, u64::MAX, parts).await? {
            return Ok(Some(snapshot));
        }
        let Some(bytes) = bytes else { return Ok(None) };
        let Ok(snapshot) = checkpoint::read(&self.name, version, bytes, parts) else { return Ok(None) };
        self.replay_onto(snapshot, &listed, u64::MAX).await.map(Some)
    }

    /// Up to version `last`, from the newest readable checkpoint of the listing or version 0;
    /// `None` when it holds neither.
    async fn replay(&self, listed: &[ObjectMeta], last: u64, parts: Parts) -> Result<Option<Snapshot>> {
        let kinds = || listed.iter().filter_map(|meta| LogFile::of(&meta.path));
        let mut checkpoints: Vec<u64> = kinds()
            .filter_map(|kind| match kind {
                LogFile::Checkpoint(version) if version <= last => Some(version),
                _ => None,
            })
            .collect();
        while let Some(version) = checkpoints.pop() {
            let Some(bytes) = self.objects.get(&self.checkpoint_path(version)?).await? else { continue };
            if let Ok(snapshot) = checkpoint::read(&self.name, version, bytes, parts) {
                return self.replay_onto(snapshot, listed, last).await.map(Some);
            }
        }
        if kinds().any(|kind| kind == LogFile::Entry(0)) {
            let mut snapshot = Snapshot::empty(&self.name);
            let bytes = self.read_entry(0).await?.ok_or_else(|| Error::retry("version 0 vanished"))?;
            self.replay_entry(&mut snapshot, 0, &bytes, &mut Changes::default())?;
            return self.replay_onto(snapshot, listed, last).await.map(Some);
        }
        Ok(None)
    }

    /// Replays the listed entries after the snapshot's version, up to `last`.
    async fn replay_onto(&self, mut snapshot: Snapshot, listed: &[ObjectMeta], last: u64) -> Result<Snapshot> {
        let versions: Vec<u64> = listed
            .iter()
            .filter_map(|meta| match LogFile::of(&meta.path)? {
                LogFile::Entry(version) if version > snapshot.version && version <= last => Some(version),
                _ => None,
            })
            .collect();
        if let Some((expected, found)) =
            (snapshot.version + 1..).zip(&versions).find(|(expected, found)| expected != *found)
        {
            return Err(Error::data(format!("table {}: log entry {expected} is missing before {found}", self.name)));
        }
        let mut entries = stream::iter(versions)
            .map(async |version| Ok::<_, Error>((version, self.read_entry(version).await?)))
            .buffered(CONCURRENCY);
        while let Some((version, bytes)) = entries.try_next().await? {
            let bytes = bytes.ok_or_else(|| Error::retry(format!("table {}: entry {version} vanished", self.name)))?;
            self.replay_entry(&mut snapshot, version, &bytes, &mut Changes::default())?;
        }
        snapshot.checked()
    }

    /// Entries from `first` on without a gap, `count` at most.
    async fn read_entries(&self, first: u64, count: usize) -> Result<Vec<Bytes>> {
        let read: Vec<Option<Bytes>> = stream::iter(first..first + count as u64)
            .map(|version| self.read_entry(version))
            .buffered(CONCURRENCY)
            .try_collect()
            .await?;
        // A version may appear between two of these reads: what follows a miss does not count.
        Ok(read.into_iter().map_while(|bytes| bytes).collect())
    }

    fn in_entry(&self, version: u64, error: Error) -> Error {
        error.context(format!("table {}: log entry {version}", self.name))
    }
}
