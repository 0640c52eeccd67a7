//! Encodes rows as lake files: zstd Parquet with true statistics, row groups bounded by bytes and, in
//! files of many stores, ending between two stores; a new file at a unit's border once one is full.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};

use super::{encoding as encodings, stats};
use crate::batch::ROWS_PLAIN_MAX;
use crate::dataset::DatasetDefinition;
use crate::delta::units::column::{UnitColumn, UnitRun};
use crate::delta::units::cursor::{Key, key_of};
use crate::delta::units::facts::FileUnits;
use crate::delta::units::tags::UnitTag;
use crate::error::{Error, Result};
use crate::ids::StoreId;
use crate::text::quoted;

/// Bounds of the files; the defaults suit the lake.
#[derive(Debug, Clone, Copy)]
pub struct LakeWriterOptions {
    /// A file past this ends at the next border between units. (A unit is never divided.)
    pub file_bytes_max: usize,
    /// Encoded bytes of a row group: what a reader must hold at once of all columns.
    pub row_group_bytes_max: usize,
    /// Rows of a row group: enough of them let a reader use all its cores.
    pub row_group_rows_max: usize,
    /// With so many rows a row group ends before the next store, so that whoever asks for one store
    /// reads few rows of others.
    pub row_group_rows_min: usize,
    /// 1 (quick) to 22.
    pub zstd_level: i32,
}

impl Default for LakeWriterOptions {
    fn default() -> Self {
        // With its last unit a file comes to 128 MB at most, the design's upper bound, unless a unit is huge.
        Self {
            file_bytes_max: 96 << 20,
            row_group_bytes_max: 16 << 20,
            row_group_rows_max: 1 << 18,
            row_group_rows_min: 1 << 16,
            zstd_level: 3,
        }
    }
}

/// An encoded file with what its `add` will say.
#[derive(Debug, Clone)]
pub struct LakeFile {
    pub bytes: Bytes,
    pub rows: u64,
    /// Delta's `stats` text.
    pub stats: String,
    /// The units whose rows (or whose emptiness) the file holds, in order of store and unit.
    pub units: FileUnits,
}

impl LakeFile {
    /// The store of all units, if they are of one.
    pub fn one_store(&self) -> Option<&StoreId> {
        let (first, last) = self.units.stores()?;
        (first == last).then_some(first)
    }
}

/// Writes record batches of a dataset, rows in order of store and unit.
pub struct LakeWriter {
    schema: SchemaRef,
    column: UnitColumn,
    options: LakeWriterOptions,
    /// Of all stores that are to come.
    rows_by_store: BTreeMap<String, u64>,
    /// Of files still to come, and about how many bytes.
    rows_left: u64,
    bytes_expected: usize,
    /// Units that were announced, and rows of them in the order they came.
    units: BTreeMap<Key, UnitTag>,
    counted: Vec<(Key, u64)>,
    /// Units of the open or next file that have their rows.
    settled: FileUnits,
    open: Option<OpenFile>,
    done: Vec<LakeFile>,
    /// The last unit that has rows.
    last: Option<Key>,
}

struct OpenFile {
    writer: ArrowWriter<Vec<u8>>,
    rows: u64,
}

impl LakeWriter {
    /// For rows of `units`: all there are, those without rows too.
    ///
    /// # Errors
    ///
    /// `Bug` when there are no units or one comes twice; `Config` when the zstd level is none.
    pub fn new(dataset: &DatasetDefinition, units: Vec<UnitTag>, options: LakeWriterOptions) -> Result<Self> {
        let count = units.len();
        let mut rows_by_store: BTreeMap<String, u64> = BTreeMap::new();
        for tag in &units {
            *rows_by_store.entry(tag.store.to_string()).or_default() += tag.facts.rows;
        }
        let mut writer = Self::of_stores(dataset, rows_by_store, 0, options)?;
        writer.announce(units);
        if count == 0 || writer.units.len() != count {
            return Err(Error::bug(format!("lake file of {}: units must be some and without repeats", dataset.name)));
        }
        Ok(writer)
    }

    /// For so many rows of these stores, some `bytes` in all. Their units are still to be announced.
    pub(in crate::delta) fn of_stores(
        dataset: &DatasetDefinition,
        rows_by_store: BTreeMap<String, u64>,
        bytes: u64,
        options: LakeWriterOptions,
    ) -> Result<Self> {
        let schema = dataset.lake_schema();
        Ok(Self {
            column: UnitColumn::of(dataset, &schema)?,
            schema,
            options,
            rows_left: rows_by_store.values().sum(),
            bytes_expected: usize::try_from(bytes).unwrap_or(usize::MAX),
            rows_by_store,
            units: BTreeMap::new(),
            counted: Vec::new(),
            settled: FileUnits::default(),
            open: None,
            done: Vec::new(),
            last: None,
        })
    }

    /// Says which units come next, before the first of their rows.
    pub(in crate::delta) fn announce(&mut self, units: Vec<UnitTag>) {
        self.units.extend(units.into_iter().map(|tag| (key_of(&tag), tag)));
    }

    /// Of the units that were announced all but the last have had their rows: they need not be held any longer.
    ///
    /// # Errors
    ///
    /// `Reject` when a unit's rows are not as many as its tag says.
    pub(in crate::delta) fn settle_announced(&mut self) -> Result<()> {
        let last = self.units.last_key_value().map(|(key, _)| key.clone());
        last.map_or(Ok(()), |last| self.settle(Some(&last)))
    }

    /// Adds rows: of the dataset's lake schema, or of its batch schema if all units are of one store.
    ///
    /// # Errors
    ///
    /// `Reject` when their units are out of order or not among those announced; `Bug` when the Parquet
    /// writer fails.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let batch = self.in_schema(batch)?;
        // Rows before `start` are written.
        let mut start = 0;
        for run in self.column.runs(&batch)? {
            let border = run.rows.start;
            if self.ends_before(&run, border - start) {
                self.write_rows(&batch.slice(start, border - start))?;
                start = border;
                match self.is_full() {
                    true => self.close_file()?,
                    false => self.close_row_group()?,
                }
            }
            if self.open.is_none() {
                self.open_file(Some(&batch.slice(start, batch.num_rows() - start)))?;
            }
            self.count(&run)?;
        }
        self.write_rows(&batch.slice(start, batch.num_rows() - start))
    }

    /// Takes the files that are finished: whoever writes many need not hold them all.
    pub fn take_done(&mut self) -> Vec<LakeFile> {
        std::mem::take(&mut self.done)
    }

    /// The files that were not taken yet; of all files at least one is made, if need be without rows.
    ///
    /// # Errors
    ///
    /// `Reject` when a unit's rows are not as many as its tag says; `Bug` when the Parquet writer fails.
    pub fn finish(mut self) -> Result<Vec<LakeFile>> {
        if self.open.is_some() || !self.units.is_empty() || !self.settled.is_empty() {
            self.open_file(None)?;
            self.settle(None)?;
            self.close_open_file()?;
        }
        Ok(self.done)
    }

    /// The batch with exactly the schema's field declarations; types must be equal, but text and
    /// binary may come as views, which are written as they are.
    fn in_schema(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        if batch.schema_ref() == &self.schema {
            return Ok(batch.clone());
        }
        let mut columns = batch.columns().to_vec();
        if columns.len() + 1 == self.schema.fields().len()
            && let Some((store, 0..=1)) = self.rows_by_store.keys().next().zip(Some(self.rows_by_store.len()))
        {
            let stores = std::iter::repeat_n(store.as_str(), batch.num_rows());
            columns.insert(0, Arc::new(StringArray::from_iter_values(stores)));
        }
        RecordBatch::try_new(self.schema_with_views(&columns), columns)
            .map_err(|error| Error::reject("rows are not of the dataset's columns and types").with_source(error))
    }

    fn schema_with_views(&self, columns: &[ArrayRef]) -> SchemaRef {
        let viewed = |(index, field): (usize, &Arc<Field>)| {
            let found = columns.get(index).map(|column| column.data_type());
            match (field.data_type(), found) {
                (DataType::Utf8, Some(view @ DataType::Utf8View))
                | (DataType::Binary, Some(view @ DataType::BinaryView)) => {
                    Arc::new(Field::new(field.name(), view.clone(), field.is_nullable()))
                }
                _ => Arc::clone(field),
            }
        };
        Arc::new(Schema::new(self.schema.fields().iter().enumerate().map(viewed).collect::<Vec<_>>()))
    }

    fn is_full(&self) -> bool {
        self.open.as_ref().is_some_and(|open| {
            open.writer.bytes_written() + open.writer.in_progress_size() >= self.options.file_bytes_max
        })
    }

    /// Whether the open file or its row group ends before `run`; `pending` rows of it are not written yet.
    fn ends_before(&self, run: &UnitRun<'_>, pending: usize) -> bool {
        let (Some(open), Some((store, number))) = (&self.open, &self.last) else { return false };
        if store.as_str() == run.store {
            return *number != run.number && self.is_full();
        }
        let rows = open.writer.in_progress_rows() + pending;
        let coming = self.rows_by_store.get(run.store).copied().unwrap_or(0);
        let fits = rows as u64 + coming <= self.options.row_group_rows_max as u64;
        self.is_full() || rows >= self.options.row_group_rows_min || (rows > 0 && !fits)
    }

    fn count(&mut self, run: &UnitRun<'_>) -> Result<()> {
        let rows = run.rows.len() as u64;
        let column = self.column;
        let misplaced = |rule: &str| match column.unit(run.number) {
            Ok(found) => Error::reject(format!("rows: unit: {rule}, got {found} of {}", quoted(run.store))),
            Err(error) => error,
        };
        let place = |(store, number): &Key| (run.store, run.number).cmp(&(store.as_str(), *number));
        match (self.last.as_ref().map(place), self.counted.last_mut()) {
            // A unit that was settled has no more rows to come.
            (Some(Ordering::Equal), Some((last, counted))) if place(last).is_eq() => *counted += rows,
            (Some(Ordering::Equal | Ordering::Less), _) => return Err(misplaced("must be in order")),
            _ => {
                let key = run.store.parse().ok().map(|store: StoreId| (store, run.number));
                let Some(key) = key.filter(|key| self.units.contains_key(key)) else {
                    return Err(misplaced("must be one of the batch"));
                };
                self.counted.push((key.clone(), rows));
                self.last = Some(key);
            }
        }
        let Some(open) = &mut self.open else { return Err(Error::bug("no open lake file")) };
        open.rows += rows;
        Ok(())
    }

    /// Takes the units before `end` (all, if `None`) to the open or next file, if each has its rows.
    fn settle(&mut self, end: Option<&Key>) -> Result<()> {
        let later = end.map(|end| self.units.split_off(end)).unwrap_or_default();
        let counted = self.counted.partition_point(|(key, _)| end.is_none_or(|end| key < end));
        let mut counted = self.counted.drain(..counted).peekable();
        for (key, tag) in std::mem::replace(&mut self.units, later) {
            let rows = counted.next_if(|(found, _)| *found == key).map_or(0, |(_, rows)| rows);
            if rows != tag.facts.rows {
                return Err(Error::reject(format!("unit {}: must have {} rows, got {rows}", tag.unit, tag.facts.rows)));
            }
            self.settled.push(tag)?;
        }
        Ok(())
    }

    fn write_rows(&mut self, batch: &RecordBatch) -> Result<()> {
        match &mut self.open {
            Some(open) if batch.num_rows() > 0 => open.writer.write(batch).map_err(encoding),
            _ => Ok(()),
        }
    }

    fn close_row_group(&mut self) -> Result<()> {
        self.open.as_mut().map_or(Ok(()), |open| open.writer.flush().map_err(encoding))
    }

    /// `first`: the first rows it is to hold.
    fn open_file(&mut self, first: Option<&RecordBatch>) -> Result<()> {
        if self.open.is_none() {
            // Grown step by step it would be in memory twice.
            let bytes = self.bytes_expected.min(self.options.file_bytes_max);
            let buffer = Vec::with_capacity(bytes + bytes / 16);
            let writer = encoder(&self.schema, &self.options, self.rows_left, first, buffer)?;
            self.open = Some(OpenFile { writer, rows: 0 });
        }
        Ok(())
    }

    /// Ends the open file after the last unit it has rows of.
    fn close_file(&mut self) -> Result<()> {
        let Some((store, number)) = self.last.clone() else { return Err(Error::bug("a file without rows")) };
        self.settle(Some(&(store, number.saturating_add(1))))?;
        self.close_open_file()
    }

    /// Ends the open file, which takes the units that are settled.
    fn close_open_file(&mut self) -> Result<()> {
        let Some(OpenFile { mut writer, rows }) = self.open.take() else { return Ok(()) };
        let metadata = writer.finish().map_err(encoding)?;
        let stats = stats::of_file(&self.schema, &metadata)?;
        let bytes: Bytes = std::mem::take(writer.inner_mut()).into();
        self.rows_left = self.rows_left.saturating_sub(rows);
        self.bytes_expected = self.bytes_expected.saturating_sub(bytes.len());
        self.done.push(LakeFile { bytes, rows, stats, units: std::mem::take(&mut self.settled) });
        Ok(())
    }
}

/// An encoder of `rows` rows that begin with `first`, into `buffer`.
pub(super) fn encoder(
    schema: &SchemaRef,
    options: &LakeWriterOptions,
    rows: u64,
    first: Option<&RecordBatch>,
    buffer: Vec<u8>,
) -> Result<ArrowWriter<Vec<u8>>> {
    let mut properties = properties(options, rows)?;
    if let Some(first) = first {
        let group_rows = usize::try_from(rows).unwrap_or(usize::MAX).min(options.row_group_rows_max);
        properties = encodings::choose(properties, first, group_rows);
    }
    let options = ArrowWriterOptions::new()
        .with_properties(properties.build())
        // The Parquet types say it all; the Arrow schema would add a kilobyte to each file.
        .with_skip_arrow_metadata(true);
    ArrowWriter::try_new_with_options(buffer, schema.clone(), options).map_err(encoding)
}

pub(super) fn properties(options: &LakeWriterOptions, rows: u64) -> Result<WriterPropertiesBuilder> {
    let level = ZstdLevel::try_new(options.zstd_level)
        .map_err(|error| Error::config("zstd_level: must be 1 to 22").with_source(error))?;
    let zstd = Compression::ZSTD(level);
    Ok(WriterProperties::builder()
        .set_compression(if rows > ROWS_PLAIN_MAX { zstd } else { Compression::UNCOMPRESSED })
        .set_created_by(concat!("ribera ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_statistics_truncate_length(Some(stats::TEXT_BYTES_MAX))
        .set_max_row_group_bytes(Some(options.row_group_bytes_max))
        .set_max_row_group_row_count(Some(options.row_group_rows_max)))
}

pub(super) fn encoding(error: parquet::errors::ParquetError) -> Error {
    Error::bug("lake file: cannot be encoded").with_source(error)
}
