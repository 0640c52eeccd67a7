//! Encodes rows as lake files: zstd Parquet with true statistics, row groups bounded by bytes and, in
//! files of many stores, ending between two stores; a new file at a unit's border once one is full.

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
use crate::delta::units::column::{UnitColumn, UnitRun, number_of};
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
    pub units: Vec<UnitTag>,
}

impl LakeFile {
    /// The store of all units, if they are of one.
    pub fn one_store(&self) -> Option<&StoreId> {
        let (first, last) = (&self.units.first()?.store, &self.units.last()?.store);
        (first == last).then_some(first)
    }
}

/// Where a unit stands in a file: by store, then by its number.
type Key = (StoreId, i64);

/// Writes record batches of a dataset, rows in order of store and unit.
pub struct LakeWriter {
    schema: SchemaRef,
    column: UnitColumn,
    options: LakeWriterOptions,
    /// Those of files still to come.
    units: BTreeMap<Key, UnitTag>,
    rows_by_store: BTreeMap<String, u64>,
    open: Option<OpenFile>,
    done: Vec<LakeFile>,
    /// The last unit of the last file that was closed.
    closed_at: Option<Key>,
}

struct OpenFile {
    writer: ArrowWriter<Vec<u8>>,
    /// Rows by unit, in the order they came.
    counted: Vec<(Key, u64)>,
}

impl LakeWriter {
    /// For rows of `units`: all there are, those without rows too.
    ///
    /// # Errors
    ///
    /// `Bug` when there are no units or one comes twice; `Config` when the zstd level is none.
    pub fn new(dataset: &DatasetDefinition, units: Vec<UnitTag>, options: LakeWriterOptions) -> Result<Self> {
        let schema = dataset.lake_schema();
        let column = UnitColumn::of(dataset, &schema)?;
        let count = units.len();
        let mut rows_by_store: BTreeMap<String, u64> = BTreeMap::new();
        for tag in &units {
            *rows_by_store.entry(tag.store.to_string()).or_default() += tag.facts.rows;
        }
        let units: BTreeMap<Key, UnitTag> =
            units.into_iter().map(|tag| ((tag.store.clone(), number_of(tag.unit)), tag)).collect();
        if units.is_empty() || units.len() != count {
            return Err(Error::bug(format!("lake file of {}: units must be some and without repeats", dataset.name)));
        }
        Ok(Self { schema, column, options, units, rows_by_store, open: None, done: Vec::new(), closed_at: None })
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
            self.open_file(Some(&batch.slice(start, batch.num_rows() - start)))?;
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
        if self.open.is_some() || !self.units.is_empty() {
            self.open_file(None)?;
            self.close_last_file()?;
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
        let Some(open) = &self.open else { return false };
        let Some(((store, number), _)) = open.counted.last() else { return false };
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
        let (column, closed_at, units) = (self.column, &self.closed_at, &self.units);
        let Some(open) = &mut self.open else { return Err(Error::bug("no open lake file")) };
        let here = (run.store, run.number);
        let misplaced = |rule: &str| match column.unit(run.number) {
            Ok(found) => Error::reject(format!("rows: unit: {rule}, got {found} of {}", quoted(run.store))),
            Err(error) => error,
        };
        let place = |(store, number): &Key| here.cmp(&(store.as_str(), *number));
        match open.counted.last_mut() {
            Some((last, counted)) if place(last).is_eq() => {
                *counted += rows;
                return Ok(());
            }
            Some((last, _)) if place(last).is_lt() => return Err(misplaced("must be in order")),
            _ if closed_at.as_ref().is_some_and(|last| place(last).is_le()) => {
                return Err(misplaced("must be in order"));
            }
            _ => {}
        }
        let key = run.store.parse().ok().map(|store: StoreId| (store, run.number));
        match key.filter(|key| units.contains_key(key)) {
            Some(key) => open.counted.push((key, rows)),
            None => return Err(misplaced("must be one of the batch")),
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
            let rows: u64 = self.units.values().map(|tag| tag.facts.rows).sum();
            let writer = encoder(&self.schema, &self.options, rows, first)?;
            self.open = Some(OpenFile { writer, counted: Vec::new() });
        }
        Ok(())
    }

    /// Ends the open file after the last unit it has rows of.
    fn close_file(&mut self) -> Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let Some(((store, number), _)) = open.counted.last().cloned() else {
            return Err(Error::bug("a file without rows"));
        };
        let later = self.units.split_off(&(store.clone(), number.saturating_add(1)));
        let units = std::mem::replace(&mut self.units, later);
        let file = self.encoded(open, units)?;
        self.closed_at = Some((store, number));
        self.done.push(file);
        Ok(())
    }

    /// Ends the open file, which takes all units that are left.
    fn close_last_file(&mut self) -> Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let units = std::mem::take(&mut self.units);
        let file = self.encoded(open, units)?;
        self.done.push(file);
        Ok(())
    }

    fn encoded(&self, mut open: OpenFile, units: BTreeMap<Key, UnitTag>) -> Result<LakeFile> {
        let counted: BTreeMap<Key, u64> = open.counted.into_iter().collect();
        for (key, tag) in &units {
            let rows = counted.get(key).copied().unwrap_or(0);
            if rows != tag.facts.rows {
                return Err(Error::reject(format!("unit {}: must have {} rows, got {rows}", tag.unit, tag.facts.rows)));
            }
        }
        let metadata = open.writer.finish().map_err(encoding)?;
        let stats = stats::of_file(&self.schema, &metadata)?;
        let bytes = std::mem::take(open.writer.inner_mut()).into();
        Ok(LakeFile { bytes, rows: counted.values().sum(), stats, units: units.into_values().collect() })
    }
}

/// An encoder of `rows` rows that begin with `first`.
pub(super) fn encoder(
    schema: &SchemaRef,
    options: &LakeWriterOptions,
    rows: u64,
    first: Option<&RecordBatch>,
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
    ArrowWriter::try_new_with_options(Vec::new(), schema.clone(), options).map_err(encoding)
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
