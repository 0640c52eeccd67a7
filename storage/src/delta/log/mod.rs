//! Reading a table's log: the newest checkpoint, then the entries after it.

pub mod action;
pub(in crate::delta) mod checkpoint;
pub(in crate::delta) mod entry;
mod last_checkpoint;
mod partial;
pub(crate) mod path;
pub(in crate::delta) mod snapshot;

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use crate::delta::log::snapshot::{Changes, Snapshot};
use crate::delta::{CONCURRENCY, Table};
use action::CommitInfo;
use checkpoint::Parts;
use last_checkpoint::LastCheckpoint;
pub use partial::{PartialSnapshot, StoreFiles};

use crate::error::{Error, Result};
use crate::object::{ObjectMeta, ObjectPath, ObjectStore, list_all};
use crate::paths;

/// A file of the log folder by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::delta) enum LogFile {
    Entry(u64),
    /// A checkpoint in one file.
    Checkpoint(u64),
    /// One of the files of a checkpoint that another program wrote in several, counted from 1.
    CheckpointPart {
        version: u64,
        part: u32,
        parts: u32,
    },
    /// Something else about a version, such as another program's checksum. Only log cleaning
    /// needs to know it.
    Other(u64),
}

impl LogFile {
    pub(in crate::delta) fn of(path: &ObjectPath) -> Option<Self> {
        let (digits, rest) = path.file_name().split_once('.')?;
        if digits.len() != 20 {
            return None;
        }
        let version = digits.parse().ok()?;
        match rest {
            "json" => Some(Self::Entry(version)),
            "checkpoint.parquet" => Some(Self::Checkpoint(version)),
            _ => Some(Self::part_of(version, rest).unwrap_or(Self::Other(version))),
        }
    }

    pub(in crate::delta) fn version(self) -> u64 {
        match self {
            Self::Entry(version) | Self::Checkpoint(version) | Self::Other(version) => version,
            Self::CheckpointPart { version, .. } => version,
        }
    }

    /// `checkpoint.0000000001.0000000003.parquet`
    fn part_of(version: u64, rest: &str) -> Option<Self> {
        let (part, parts) = rest.strip_prefix("checkpoint.")?.strip_suffix(".parquet")?.split_once('.')?;
        let (part, parts) = (part.parse().ok()?, parts.parse().ok()?);
        (1 <= part && part <= parts).then_some(Self::CheckpointPart { version, part, parts })
    }
}

impl<S: ObjectStore> Table<'_, S> {
    /// The table as it stands, or `None` when it was never created. Three rounds of requests.
    ///
    /// # Errors
    ///
    /// `Retry` when the object store does not answer; `Data` when the log cannot be read or its
    /// protocol is not ours.
    pub async fn load(&self) -> Result<Option<Snapshot>> {
        self.load_latest(Parts::FILES).await
    }

    /// The table as it stands, for whoever asks for its units alone: files from a checkpoint come
    /// without statistics, unless one is of another program. Not for commits.
    ///
    /// # Errors
    ///
    /// As [`Self::load`].
    pub async fn load_without_statistics(&self) -> Result<Option<Snapshot>> {
        match self.load_latest(Parts::FILES_WITHOUT_STATISTICS).await? {
            // Which stores such a file can hold, its statistics alone say.
            Some(snapshot) if snapshot.foreign_files().next().is_some() => self.load().await,
            snapshot => Ok(snapshot),
        }
    }

    /// The table as it stood at `version`; an error of kind `Config` when that version does not
    /// exist (yet), or is no longer kept.
    ///
    /// # Errors
    ///
    /// `Config` as said, else as [`Self::load`].
    pub async fn load_at(&self, version: u64) -> Result<Snapshot> {
        let listed = list_all(self.objects, &self.log_folder(), None).await?;
        let exists = listed.iter().any(|meta| LogFile::of(&meta.path) == Some(LogFile::Entry(version)));
        let newest = listed.iter().rev().find_map(|meta| match LogFile::of(&meta.path)? {
            LogFile::Entry(version) => Some(version),
            _ => None,
        });
        if !exists {
            let newest = newest.map_or("none".to_owned(), |newest| format!("up to {newest}"));
            return Err(Error::config(format!(
                "table {}: version: must be one that exists and is still kept ({newest}), got {version}",
                self.name
            )));
        }
        match self.replay(&listed, version, Parts::FILES).await? {
            Some(snapshot) => Ok(snapshot),
            None => Err(Error::config(format!(
                "table {}: version {version}: entries before it are no longer kept (30 days), and no checkpoint stands for them",
                self.name
            ))),
        }
    }

    /// Catches up with what was committed since; says what changed. One round of requests when
    /// little did.
    ///
    /// # Errors
    ///
    /// As [`Self::load`]; then the snapshot stands at the last version that was read.
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
    ///
    /// # Errors
    ///
    /// `Retry` when the object store does not answer; `Data` when an entry cannot be read.
    pub async fn history(&self, limit: usize) -> Result<Vec<(u64, CommitInfo)>> {
        // Older entries may have been cleaned away: only those that exist are asked for.
        let listed = list_all(self.objects, &self.log_folder(), None).await?;
        let mut versions: Vec<u64> = listed
            .iter()
            .filter_map(|meta| match LogFile::of(&meta.path)? {
                LogFile::Entry(version) => Some(version),
                _ => None,
            })
            .collect();
        versions.drain(..versions.len().saturating_sub(limit));
        let read: Vec<_> = stream::iter(versions)
            .map(async |version| Ok::<_, Error>((version, self.read_entry(version).await?)))
            .buffered(CONCURRENCY)
            .try_collect()
            .await?;
        let mut history = Vec::new();
        for (version, bytes) in read {
            let Some(bytes) = bytes else { continue };
            let actions = action::from_lines(&bytes).map_err(|error| self.in_entry(version, error))?;
            let info = actions.into_iter().find_map(|action| action.commit_info);
            history.push((version, info.unwrap_or_default()));
        }
        history.reverse();
        Ok(history)
    }

    pub(in crate::delta) async fn load_latest(&self, parts: Parts) -> Result<Option<Snapshot>> {
        if let Some(hint) = self.read_last_checkpoint().await
            && let Some(snapshot) = self.load_from(&hint, parts).await?
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

    pub(in crate::delta) fn log_folder(&self) -> String {
        format!("{}/_delta_log/", paths::table_root(&self.name))
    }

    pub(in crate::delta) fn checkpoint_path(&self, version: u64) -> Result<ObjectPath> {
        ObjectPath::new(format!("{}{version:020}.checkpoint.parquet", self.log_folder()))
    }

    pub(in crate::delta) fn last_checkpoint_path(&self) -> Result<ObjectPath> {
        ObjectPath::new(format!("{}_last_checkpoint", self.log_folder()))
    }

    pub(in crate::delta) async fn read_entry(&self, version: u64) -> Result<Option<Bytes>> {
        self.objects.get(&paths::log_entry(&self.name, version)?).await
    }

    pub(in crate::delta) fn replay_entry(
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

    pub(in crate::delta) async fn read_last_checkpoint(&self) -> Option<LastCheckpoint> {
        // Only a hint: whatever is wrong with it, the listing knows better.
        let path = self.last_checkpoint_path().ok()?;
        let bytes = self.objects.get(&path).await.ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    /// From the checkpoint that the hint names on; `None` when it cannot be read.
    async fn load_from(&self, hint: &LastCheckpoint, parts: Parts) -> Result<Option<Snapshot>> {
        let version = hint.version;
        let after = format!("{}{version:020}.json", self.log_folder());
        let folder = self.log_folder();
        let (read, listed) =
            futures::try_join!(self.read_hinted(hint, parts), list_all(self.objects, &folder, Some(&after)))?;
        let newer = listed.iter().filter_map(|meta| LogFile::of(&meta.path)).any(|file| {
            matches!(file, LogFile::Checkpoint(_) | LogFile::CheckpointPart { .. }) && file.version() > version
        });
        // The listing begins behind the checkpoint of `version`: what it holds may be of no use alone.
        if newer {
            match self.replay(&listed, u64::MAX, parts).await {
                Ok(Some(snapshot)) if !snapshot.has_lost_tags() => return Ok(Some(snapshot)),
                Err(error) if error.is_retry() => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        match read {
            Some(snapshot) if !snapshot.has_lost_tags() => {
                self.replay_onto(snapshot, &listed, u64::MAX).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    async fn read_hinted(&self, hint: &LastCheckpoint, parts: Parts) -> Result<Option<Snapshot>> {
        let path = self.checkpoint_path(hint.version)?;
        if let Some(bytes) = hint.size_in_bytes.filter(|bytes| self.opens(*bytes, parts))
            && let Some(opened) = self.open_checkpoint(hint.version, &path, bytes).await?
        {
            return Ok(Some(opened));
        }
        let bytes = self.objects.get(&path).await?;
        Ok(bytes.and_then(|bytes| checkpoint::read(&self.name, hint.version, &[bytes], parts).ok()))
    }

    /// Whether of a checkpoint of that length the footer is read first.
    fn opens(&self, bytes: u64, parts: Parts) -> bool {
        parts.on_demand && bytes > self.bounds.checkpoints.whole_bytes_max
    }

    /// Up to version `last`, from the newest checkpoint that can be believed, or version 0; `None`
    /// when the listing holds neither.
    ///
    /// A checkpoint in which files of ours have no tags is not believed: another program wrote it,
    /// and whoever believed it would take every unit for one that nobody has won. Where nothing
    /// else is left the table can be read all the same; its files are then foreign.
    async fn replay(&self, listed: &[ObjectMeta], last: u64, parts: Parts) -> Result<Option<Snapshot>> {
        let (mut untagged, mut failure, mut unreadable) = (None, None, None);
        for (version, files) in checkpoints_of(listed, last).into_iter().rev() {
            let snapshot = match self.read_checkpoint(version, &files, parts).await? {
                Some(Ok(snapshot)) => snapshot,
                Some(Err(error)) => {
                    unreadable = unreadable.or(Some(error));
                    continue;
                }
                None => continue,
            };
            if snapshot.has_lost_tags() {
                untagged = untagged.or(Some(snapshot));
                continue;
            }
            match self.replay_onto(snapshot, listed, last).await {
                Err(error) if !error.is_retry() => failure = failure.or(Some(error)),
                replayed => return replayed.map(Some),
            }
        }
        if listed.iter().any(|meta| LogFile::of(&meta.path) == Some(LogFile::Entry(0))) {
            match self.replay_from_start(listed, last).await {
                Err(error) if !error.is_retry() => failure = failure.or(Some(error)),
                replayed => return replayed.map(Some),
            }
        }
        match (untagged, failure.or(unreadable)) {
            (Some(snapshot), _) => self.replay_onto(snapshot, listed, last).await.map(Some),
            (None, Some(failure)) => Err(failure),
            (None, None) => Ok(None),
        }
    }

    async fn replay_from_start(&self, listed: &[ObjectMeta], last: u64) -> Result<Snapshot> {
        let mut snapshot = Snapshot::empty(&self.name);
        let bytes = self.read_entry(0).await?.ok_or_else(|| Error::retry("version 0 vanished"))?;
        self.replay_entry(&mut snapshot, 0, &bytes, &mut Changes::default())?;
        self.replay_onto(snapshot, listed, last).await
    }

    /// `None` when a part is gone; an error inside when it cannot be read.
    pub(in crate::delta) async fn read_checkpoint(
        &self,
        version: u64,
        files: &[ObjectMeta],
        parts: Parts,
    ) -> Result<Option<Result<Snapshot>>> {
        if let [file] = files
            && self.opens(file.bytes, parts)
            && let Some(opened) = self.open_checkpoint(version, &file.path, file.bytes).await?
        {
            return Ok(Some(Ok(opened)));
        }
        let read = stream::iter(files).map(|file| self.objects.get(&file.path)).buffered(CONCURRENCY);
        let Some(bytes) = read.try_collect::<Vec<_>>().await?.into_iter().collect::<Option<Vec<Bytes>>>() else {
            return Ok(None);
        };
        let named = |error: Error| error.context(format!("table {}: checkpoint {version}", self.name));
        Ok(Some(checkpoint::read(&self.name, version, &bytes, parts).map_err(named)))
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

/// The checkpoints of a listing up to version `last`, each with its files in order. One of which a
/// file is missing is none.
pub(in crate::delta) fn checkpoints_of(listed: &[ObjectMeta], last: u64) -> Vec<(u64, Vec<ObjectMeta>)> {
    let mut found: BTreeMap<(u64, u32), Vec<(u32, ObjectMeta)>> = BTreeMap::new();
    for meta in listed {
        let (key, part) = match LogFile::of(&meta.path) {
            Some(LogFile::Checkpoint(version)) => ((version, 1), 1),
            Some(LogFile::CheckpointPart { version, part, parts }) => ((version, parts), part),
            _ => continue,
        };
        if key.0 <= last {
            found.entry(key).or_default().push((part, meta.clone()));
        }
    }
    let whole = found.into_iter().filter(|((_, parts), files)| files.len() == *parts as usize);
    whole
        .map(|((version, _), mut files)| {
            files.sort_by_key(|(part, _)| *part);
            (version, files.into_iter().map(|(_, file)| file).collect())
        })
        .collect()
}
