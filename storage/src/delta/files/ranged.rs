//! A lake file that is read by its footer and then a few row groups at a time, never whole.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes, buf::Reader};
use parquet::DecodeResult;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    PageIndexPolicy, ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataPushDecoder, RowGroupMetaData,
};
use parquet::file::reader::{ChunkReader, Length};

use super::rows::{BATCH_ROWS, unreadable};
use crate::error::{Error, Result};
use crate::object::{ObjectPath, ObjectStore};

/// How a file is read that is written again.
#[derive(Debug, Clone, Copy)]
pub(in crate::delta) struct ReadBounds {
    /// A file up to this is read in one request.
    pub whole_bytes_max: u64,
    /// Read at the end of a larger one at first: in a file of many row groups the footer and the page
    /// indexes come to some hundred kilobytes.
    pub tail_bytes: u64,
    /// Row groups that follow each other are read together as long as they are no more than this. A larger
    /// row group is read alone.
    pub part_bytes_max: u64,
}

impl Default for ReadBounds {
    fn default() -> Self {
        Self { whole_bytes_max: 1 << 20, tail_bytes: 1 << 20, part_bytes_max: 16 << 20 }
    }
}

impl ReadBounds {
    /// For a file that is read beside others.
    pub(in crate::delta) fn side_by_side(self) -> Self {
        Self { part_bytes_max: self.part_bytes_max / 4, ..self }
    }
}

/// An object that is a lake file, of which the footer was read.
pub(super) struct RangedFile<'a, S> {
    bounds: ReadBounds,
    objects: &'a S,
    path: ObjectPath,
    bytes: u64,
    metadata: ArrowReaderMetadata,
}

impl<'a, S: ObjectStore> RangedFile<'a, S> {
    /// `bytes`: its length, by the log.
    ///
    /// # Errors
    ///
    /// `Data` when there is none, it has another length or is not Parquet; `Retry` when the object
    /// store does not answer.
    pub(super) async fn open(objects: &'a S, path: ObjectPath, bytes: u64, bounds: ReadBounds) -> Result<Self> {
        let mut decoder = ParquetMetaDataPushDecoder::try_new(bytes)
            .map_err(|error| unreadable().with_source(error))?
            .with_page_index_policy(PageIndexPolicy::Optional)
            .with_metadata_options(Some(Arc::new(metadata_options())));
        let tail = bytes.saturating_sub(bounds.tail_bytes)..bytes;
        let mut wanted = vec![tail];
        let metadata = loop {
            for range in std::mem::take(&mut wanted) {
                let part = read_range(objects, &path, range.clone()).await?;
                decoder.push_range(range, part).map_err(|error| unreadable().with_source(error))?;
            }
            match decoder.try_decode() {
                Ok(DecodeResult::Data(metadata)) => break metadata,
                Ok(DecodeResult::NeedsData(ranges)) => wanted = ranges,
                Ok(DecodeResult::Finished) => return Err(Error::bug("a footer is decoded once")),
                Err(error) => return Err(unreadable().with_source(error)),
            }
        };
        let metadata = ArrowReaderMetadata::try_new(Arc::new(metadata), ArrowReaderOptions::new())
            .map_err(|error| unreadable().with_source(error))?;
        Ok(Self { bounds, objects, path, bytes, metadata })
    }

    pub(super) fn metadata(&self) -> &ParquetMetaData {
        self.metadata.metadata()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All row groups, divided into what is read together, and where they lie.
    ///
    /// # Errors
    ///
    /// `Data` when the footer says what cannot be.
    pub(super) fn parts(&self) -> Result<Vec<(Range<usize>, Range<u64>)>> {
        let mut parts: Vec<(Range<usize>, Range<u64>)> = Vec::new();
        for (index, group) in self.metadata().row_groups().iter().enumerate() {
            let bytes = bytes_of(group).filter(|bytes| bytes.end <= self.bytes).ok_or_else(unreadable)?;
            match parts.last_mut() {
                Some((groups, together))
                    if bytes.start >= together.end && bytes.end - together.start <= self.bounds.part_bytes_max =>
                {
                    groups.end = index + 1;
                    together.end = bytes.end;
                }
                _ => parts.push((index..index + 1, bytes)),
            }
        }
        Ok(parts)
    }

    /// The rows of some row groups of a part: of these columns (all, if `None`), by place in the file.
    ///
    /// # Errors
    ///
    /// `Data` when they cannot be read.
    pub(super) fn decode(
        &self,
        part: &FilePart,
        groups: Vec<usize>,
        columns: Option<&[usize]>,
    ) -> Result<ParquetRecordBatchReader> {
        let declared = self.metadata().file_metadata().schema_descr();
        let columns = columns.map(|columns| ProjectionMask::roots(declared, columns.iter().copied()));
        ParquetRecordBatchReaderBuilder::new_with_metadata(part.clone(), self.metadata.clone())
            .with_row_groups(groups)
            .with_projection(columns.unwrap_or_else(ProjectionMask::all))
            .with_batch_size(BATCH_ROWS)
            .build()
            .map_err(|error| unreadable().with_source(error))
    }

    /// The bytes of a part, for readers that count from the file's beginning.
    ///
    /// # Errors
    ///
    /// `Data` when the file is gone or shorter; `Retry` when the object store does not answer.
    pub(super) async fn read(&self, range: Range<u64>) -> Result<FilePart> {
        let start = range.start;
        Ok(FilePart::new(self.bytes, start, read_range(self.objects, &self.path, range).await?))
    }
}

/// All that a footer says: what is copied must be said again.
pub(super) fn metadata_options() -> ParquetMetaDataOptions {
    ParquetMetaDataOptions::new().with_encoding_stats_as_mask(false)
}

async fn read_range<S: ObjectStore>(objects: &S, path: &ObjectPath, range: Range<u64>) -> Result<Bytes> {
    let part = objects.get_range(path, range.clone()).await?;
    let absent = || Error::data(format!("the file {path} is named by the log but absent"));
    let bytes = part.ok_or_else(absent)?.bytes;
    if bytes.len() as u64 != range.end - range.start {
        return Err(Error::data(format!("the file {path} must have {} bytes, ends before", range.end)));
    }
    Ok(bytes)
}

/// Where a row group lies. (The crate's own `byte_range` panics at lengths below zero.)
pub(in crate::delta) fn bytes_of(group: &RowGroupMetaData) -> Option<Range<u64>> {
    let mut all: Option<Range<u64>> = None;
    for column in group.columns() {
        let start = u64::try_from(column.dictionary_page_offset().unwrap_or(column.data_page_offset())).ok()?;
        let end = start.checked_add(u64::try_from(column.compressed_size()).ok()?)?;
        all = Some(all.map_or(start..end, |all| all.start.min(start)..all.end.max(end)));
    }
    all
}

/// Some bytes of a file, at their place in it.
#[derive(Debug, Clone)]
pub(in crate::delta) struct FilePart {
    file_bytes: u64,
    start: u64,
    bytes: Bytes,
}

impl FilePart {
    /// `bytes` from `start` on of a file of `file_bytes`.
    pub(in crate::delta) fn new(file_bytes: u64, start: u64, bytes: Bytes) -> Self {
        Self { file_bytes, start, bytes }
    }

    /// From `start` on.
    fn rest(&self, start: u64) -> parquet::errors::Result<Bytes> {
        let at = start.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        let at = at.filter(|at| *at <= self.bytes.len());
        at.map(|at| self.bytes.slice(at..)).ok_or_else(|| outside(start))
    }
}

impl Length for FilePart {
    fn len(&self) -> u64 {
        self.file_bytes
    }
}

impl ChunkReader for FilePart {
    type T = Reader<Bytes>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        Ok(self.rest(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let rest = self.rest(start)?;
        if length > rest.len() { Err(outside(start)) } else { Ok(rest.slice(..length)) }
    }
}

fn outside(start: u64) -> ParquetError {
    ParquetError::EOF(format!("byte {start} is outside of its row group"))
}
