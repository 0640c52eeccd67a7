//! A large checkpoint of ours by parts: the footer first, row groups when they are asked for.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use super::Parts;
use super::decode::{Actions, decoding, reader_options};
use super::index::{Group, INDEX_KEY, Index, Wanted};
use crate::delta::files::ranged::{FilePart, bytes_of};
use crate::delta::log::action::{AddFile, RemoveFile};
use crate::delta::log::snapshot::{Changes, Snapshot};
use crate::delta::{CONCURRENCY, Table};
use crate::error::{Error, Result};
use crate::hex::sha256_hex;
use crate::object::{ObjectPath, ObjectStore};

/// Bytes that are fetched of the end of a file in the hope that the footer and the last row group,
/// which holds protocol and metadata, are among them.
const TAIL_BYTES: u64 = 96 << 10;

/// Bytes of neighbouring row groups that are fetched in one request.
const RANGE_BYTES_MAX: u64 = 2 << 20;

/// A checkpoint whose footer was read.
#[derive(Debug)]
struct Opened {
    path: ObjectPath,
    bytes: u64,
    metadata: ArrowReaderMetadata,
    /// Where each row group lies.
    ranges: Vec<Range<u64>>,
    index: Index,
}

/// What a snapshot has not read of its checkpoint.
#[derive(Debug, Clone)]
pub(in crate::delta) struct Unread {
    opened: Arc<Opened>,
    /// Row groups with files, not read yet.
    groups: BTreeSet<usize>,
    /// Paths of files that entries after the checkpoint added or removed: of them it is no longer true.
    touched: BTreeSet<String>,
}

impl Unread {
    /// Told of every file that an entry after the checkpoint names.
    pub(in crate::delta) fn touch(&mut self, log_path: &str) {
        self.touched.insert(log_path.to_owned());
    }

    /// Files that were not read, more or less: some may be removed by now.
    pub(in crate::delta) fn file_count(&self) -> usize {
        let rows = |group: &usize| self.opened.metadata.metadata().row_group(*group).num_rows();
        self.groups.iter().map(|group| usize::try_from(rows(group)).unwrap_or(0)).sum()
    }

    /// Whether a wanted file may not have been read.
    pub(in crate::delta) fn may_hold(&self, wanted: &Wanted) -> bool {
        !self.groups_with(wanted).is_empty()
    }

    /// Row groups that hold files, in order: those that are fetched together.
    pub(super) fn file_groups(&self) -> Vec<Range<usize>> {
        runs(&self.opened, &self.groups.iter().copied().collect::<Vec<_>>())
    }

    /// Row groups that hold removals, likewise.
    pub(super) fn removal_groups(&self) -> Vec<Range<usize>> {
        let groups = self.opened.index.groups.iter().enumerate();
        let groups: Vec<usize> = groups.filter(|(_, group)| group.removals).map(|(index, _)| index).collect();
        runs(&self.opened, &groups)
    }

    fn groups_with(&self, wanted: &Wanted) -> Vec<usize> {
        let may_hold = |group: &usize| {
            let group = self.opened.index.groups.get(*group);
            group.and_then(|group| group.files.as_ref()).is_some_and(|files| files.may_hold(wanted))
        };
        self.groups.iter().copied().filter(may_hold).collect()
    }
}

impl Opened {
    fn decode(&self, group: usize, (start, bytes): (u64, Bytes), parts: Parts) -> Result<Actions> {
        let mut read = Actions::default();
        read.read_group(FilePart::new(self.bytes, start, bytes), &self.metadata, group, parts)?;
        Ok(read)
    }

    /// What the last row group holds is all that a snapshot needs before its files.
    fn snapshot(self, version: u64, mut snapshot: Snapshot, tail: (u64, Bytes)) -> Result<Snapshot> {
        let head = self.decode(self.index.groups.len(), tail, Parts::FILES)?;
        for action in head.rest {
            snapshot.apply_action(action, &mut Changes::default())?;
        }
        snapshot.version = version;
        snapshot.checkpoint = Some(version);
        let with_files = |(index, group): (usize, &Group)| group.files.is_some().then_some(index);
        let groups = self.index.groups.iter().enumerate().filter_map(with_files).collect();
        snapshot.unread = Some(Unread { opened: Arc::new(self), groups, touched: BTreeSet::new() });
        snapshot.checked()
    }
}

impl<S: ObjectStore> Table<'_, S> {
    /// The snapshot of a checkpoint of `bytes` bytes, without its files. `None` when it is not of ours, or not as
    /// long as was said: then it must be read whole.
    pub(in crate::delta) async fn open_checkpoint(
        &self,
        version: u64,
        path: &ObjectPath,
        bytes: u64,
    ) -> Result<Option<Snapshot>> {
        let mut start = bytes.saturating_sub(TAIL_BYTES);
        loop {
            let Some(part) = self.objects.get_range(path, start..bytes.saturating_add(1)).await? else {
                return Ok(None);
            };
            if part.bytes.len() as u64 != bytes - start {
                return Ok(None);
            }
            let opened = match parse(path, bytes, &part.bytes) {
                Ok(Some(opened)) => opened,
                Ok(None) => return Ok(None),
                Err(needed) if needed > bytes - start && needed <= bytes => {
                    start = bytes - needed;
                    continue;
                }
                Err(_) => return Ok(None),
            };
            let head = opened.ranges.last().map_or(0, |range| range.start);
            if head < start {
                start = head;
                continue;
            }
            let snapshot = opened.snapshot(version, Snapshot::empty(&self.name), (start, part.bytes));
            return Ok(snapshot.ok());
        }
    }

    /// Reads the wanted files, if they were not read yet. Where the checkpoint is no longer what it was, the
    /// table is read anew, and may be newer.
    ///
    /// # Errors
    ///
    /// `Retry` when the object store does not answer; `Data` when the log cannot be read.
    pub(in crate::delta) async fn read_files(&self, snapshot: &mut Snapshot, wanted: &Wanted) -> Result<()> {
        let Some(unread) = &snapshot.unread else { return Ok(()) };
        let groups = unread.groups_with(wanted);
        let read = match self.read_groups(&unread.opened, &groups, Parts::FILES).await {
            Ok(read) => read,
            Err(error) if error.is_retry() => return Err(error),
            Err(_) => {
                let whole = self.load_latest(Parts::ALL).await?;
                *snapshot = whole.ok_or_else(|| Error::retry(format!("table {}: vanished", self.name)))?;
                return Ok(());
            }
        };
        for file in read.into_iter().flat_map(|actions| actions.adds) {
            if !snapshot.unread.as_ref().is_some_and(|unread| unread.touched.contains(&file.path)) {
                snapshot.add(file);
            }
        }
        if let Some(unread) = &mut snapshot.unread {
            unread.groups.retain(|group| !groups.contains(group));
        }
        Ok(())
    }

    /// The files of some row groups that stand still.
    pub(super) async fn read_unread_files(&self, snapshot: &Snapshot, groups: Range<usize>) -> Result<Vec<AddFile>> {
        let Some(unread) = &snapshot.unread else { return Ok(Vec::new()) };
        let read = self.read_run(&unread.opened, groups, Parts::FILES).await?;
        let files = read.into_iter().flat_map(|actions| actions.adds);
        Ok(files.filter(|file| !unread.touched.contains(&file.path)).collect())
    }

    /// The removals of some row groups that stand still.
    pub(super) async fn read_unread_removals(
        &self,
        snapshot: &Snapshot,
        groups: Range<usize>,
    ) -> Result<Vec<RemoveFile>> {
        let Some(unread) = &snapshot.unread else { return Ok(Vec::new()) };
        let read = self.read_run(&unread.opened, groups, Parts::ALL).await?;
        let removals = read.into_iter().flat_map(|actions| actions.rest).filter_map(|action| action.remove);
        Ok(removals.filter(|remove| !unread.touched.contains(&remove.path)).collect())
    }

    /// Neighbouring row groups are fetched in one request.
    async fn read_groups(&self, opened: &Opened, groups: &[usize], parts: Parts) -> Result<Vec<Actions>> {
        let read = stream::iter(runs(opened, groups)).map(|run| self.read_run(opened, run, parts));
        let read: Vec<Vec<Actions>> = read.buffered(CONCURRENCY).try_collect().await?;
        Ok(read.into_iter().flatten().collect())
    }

    async fn read_run(&self, opened: &Opened, run: Range<usize>, parts: Parts) -> Result<Vec<Actions>> {
        let changed = || Error::data(format!("{}: is no longer what its footer says", opened.path));
        let range = opened.ranges[run.start].start..opened.ranges[run.end - 1].end;
        let part = self.objects.get_range(&opened.path, range.clone()).await?.ok_or_else(changed)?;
        let mut read = Vec::with_capacity(run.len());
        for group in run {
            let own = &opened.ranges[group];
            let own = own.start - range.start..own.end - range.start;
            let bytes = usize::try_from(own.start).ok().zip(usize::try_from(own.end).ok());
            let bytes = bytes.filter(|(_, end)| *end <= part.bytes.len()).ok_or_else(changed)?;
            let bytes = part.bytes.slice(bytes.0..bytes.1);
            if opened.index.groups.get(group).is_none_or(|known| known.sha256 != sha256_hex(&bytes)) {
                return Err(changed());
            }
            read.push(opened.decode(group, (range.start + own.start, bytes), parts)?);
        }
        Ok(read)
    }
}

/// The footer and its index, if it has one; the bytes it needs of the end, if they are more.
fn parse(path: &ObjectPath, bytes: u64, tail: &Bytes) -> Result<Option<Opened>, u64> {
    let mut reader = ParquetMetaDataReader::new();
    match reader.try_parse_sized(tail, bytes) {
        Ok(()) => Ok(reader.finish().ok().and_then(|metadata| opened(path, bytes, metadata))),
        Err(ParquetError::NeedMoreData(needed)) => Err(needed as u64),
        Err(_) => Ok(None),
    }
}

fn opened(path: &ObjectPath, bytes: u64, metadata: ParquetMetaData) -> Option<Opened> {
    let pairs = metadata.file_metadata().key_value_metadata()?;
    let text = pairs.iter().find(|pair| pair.key == INDEX_KEY)?.value.as_ref()?;
    let index = Index::from_json(text).ok()?;
    if metadata.num_row_groups() != index.groups.len() + 1 {
        return None;
    }
    let ranges: Vec<Range<u64>> = metadata.row_groups().iter().map(bytes_of).collect::<Option<_>>()?;
    let in_order = ranges.windows(2).all(|pair| pair[0].end <= pair[1].start);
    if !in_order || ranges.last().is_none_or(|last| last.end > bytes) {
        return None;
    }
    let metadata = ArrowReaderMetadata::try_new(Arc::new(metadata), reader_options()).map_err(decoding).ok()?;
    Some(Opened { path: path.clone(), bytes, metadata, ranges, index })
}

/// Runs of neighbouring row groups.
fn runs(opened: &Opened, groups: &[usize]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for group in groups {
        match runs.last_mut() {
            Some(run)
                if run.end == *group
                    && opened.ranges[*group].end - opened.ranges[run.start].start <= RANGE_BYTES_MAX =>
            {
                run.end = group + 1;
            }
            _ => runs.push(*group..group + 1),
        }
    }
    runs
}
