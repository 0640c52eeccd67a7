//! Encodes the rows of a batch as lake files: zstd Parquet with true statistics, row groups
//! bounded by bytes, a new file at a unit's border once one is full.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};

use super::{encoding as encodings, stats};
use crate::batch::ROWS_PLAIN_MAX;
use crate::dataset::DatasetDefinition;
use crate::delta::units::column::{UnitColumn, number_of};
use crate::delta::units::tags::UnitTag;
use crate::error::{Error, Result};

/// Bounds of the files; the defaults suit the lake.
#[derive(Debug, Clone, Copy)]
pub struct LakeWriterOptions {
    /// A file past this ends at the next border between units. (A unit is never divided.)
    pub file_bytes_max: usize,
    /// Encoded bytes of a row group: what a reader must hold at once of all columns.
    pub row_group_bytes_max: usize,
    /// Rows of a row group: enough of them let a reader use all its cores.
    pub row_group_rows_max: usize,
    /// 1 (quick) to 22.
    pub zstd_level: i32,
}

impl Default for LakeWriterOptions {
    fn default() -> Self {
        // 64 MB is the design's upper bound for lake files.
        Self { file_bytes_max: 64 << 20, row_group_bytes_max: 16 << 20, row_group_rows_max: 1 << 18, zstd_level: 3 }
    }
}

/// An encoded file with what its `add` will say.
#[derive(Debug, Clone)]
pub struct LakeFile {
    pub bytes: Bytes,
    pub rows: u64,
    /// Delta's `stats` text.
    pub stats: String,
    /// The units whose rows (or whose emptiness) the file holds.
    pub units: Vec<UnitTag>,
}

/// Writes record batches of a dataset's Arrow schema, rows in order of their units.
pub struct LakeWriter {
    schema: SchemaRef,
    column: UnitColumn,
    options: LakeWriterOptions,
    /// Those of files still to come, by number.
    units: BTreeMap<i64, UnitTag>,
    open: Option<OpenFile>,
    done: Vec<LakeFile>,
}

struct OpenFile {
    writer: ArrowWriter<Vec<u8>>,
    /// Rows by unit, in the order they came.
    counted: Vec<(i64, u64)>,
}

impl LakeWriter {
    /// For the rows of a batch. `units` are all units of the batch, those without rows too.
    ///
    /// # Errors
    ///
    /// `Bug` when there are no units or one comes twice; `Config` when the zstd level is none.
    pub fn new(dataset: &DatasetDefinition, units: Vec<UnitTag>, options: LakeWriterOptions) -> Result<Self> {
        let schema = dataset.arrow_schema();
        let column = UnitColumn::of(dataset, &schema)?;
        let count = units.len();
        let units: BTreeMap<i64, UnitTag> = units.into_iter().map(|tag| (number_of(tag.unit), tag)).collect();
        if units.is_empty() || units.len() != count {
            return Err(Error::bug(format!("lake file of {}: units must be some and without repeats", dataset.name)));
        }
        Ok(Self { schema, column, options, units, open: None, done: Vec::new() })
    }

    /// Adds rows; an error of kind `Reject` when their units are out of order or not of the batch.
    ///
    /// # Errors
    ///
    /// `Reject` as said; `Bug` when the Parquet writer fails.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let batch = self.in_schema(batch)?;
        let numbers = self.column.numbers(&batch)?;
        let mut start = 0;
        while start < numbers.len() {
            // Rows up to the next border, where a full file may end; else all that is left.
            let end = if self.is_full() { self.end_of_unit(&numbers, start) } else { numbers.len() };
            if end > start {
                self.write_rows(&batch.slice(start, end - start), &numbers[start..end])?;
            }
            if end < numbers.len() {
                self.close_file()?;
            }
            start = end;
        }
        Ok(())
    }

    /// The files; at least one, with no rows if none were written. An error of kind `Reject` when
    /// a unit's rows are not as many as its tag says.
    ///
    /// # Errors
    ///
    /// `Reject` as said; `Bug` when the Parquet writer fails.
    pub fn finish(mut self) -> Result<Vec<LakeFile>> {
        if self.open.is_some() || self.done.is_empty() || !self.units.is_empty() {
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
        RecordBatch::try_new(self.schema_with_views(batch), batch.columns().to_vec())
            .map_err(|error| Error::reject("rows are not of the dataset's columns and types").with_source(error))
    }

    fn schema_with_views(&self, batch: &RecordBatch) -> SchemaRef {
        let viewed = |(index, field): (usize, &Arc<Field>)| {
            let found = batch.columns().get(index).map(|column| column.data_type());
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

    /// The first row from `start` on whose unit is another than the open file's last.
    fn end_of_unit(&self, numbers: &[i64], start: usize) -> usize {
        let last = self.open.as_ref().and_then(|open| open.counted.last()).map(|(number, _)| *number);
        numbers[start..].iter().position(|number| Some(*number) != last).map_or(numbers.len(), |found| start + found)
    }

    fn write_rows(&mut self, batch: &RecordBatch, numbers: &[i64]) -> Result<()> {
        let column = self.column;
        let after = self.done.last().and_then(|file| file.units.last()).map(|tag| number_of(tag.unit));
        let misplaced = |number: i64, rule: &str| match column.unit(number) {
            Ok(found) => Error::reject(format!("rows: unit: {rule}, got {found}")),
            Err(error) => error,
        };
        self.open_file(Some(batch))?;
        let units = &self.units;
        let Some(open) = &mut self.open else { return Err(Error::bug("no open lake file")) };
        for number in numbers {
            match open.counted.last_mut() {
                Some((last, rows)) if last == number => *rows += 1,
                Some((last, _)) if *last > *number => return Err(misplaced(*number, "must be in order")),
                _ if after.is_some_and(|after| *number <= after) => return Err(misplaced(*number, "must be in order")),
                _ if !units.contains_key(number) => return Err(misplaced(*number, "must be one of the batch")),
                _ => open.counted.push((*number, 1)),
            }
        }
        open.writer.write(batch).map_err(encoding)
    }

    /// `first`: the first rows it is to hold.
    fn open_file(&mut self, first: Option<&RecordBatch>) -> Result<()> {
        if self.open.is_none() {
            let rows: u64 = self.units.values().map(|tag| tag.facts.rows).sum();
            let mut properties = properties(&self.options, rows)?;
            if let Some(first) = first {
                let group_rows = usize::try_from(rows).unwrap_or(usize::MAX).min(self.options.row_group_rows_max);
                properties = encodings::choose(properties, first, group_rows);
            }
            let options = ArrowWriterOptions::new()
                .with_properties(properties.build())
                // The Parquet types say it all; the Arrow schema would add a kilobyte to each file.
                .with_skip_arrow_metadata(true);
            let writer =
                ArrowWriter::try_new_with_options(Vec::new(), self.schema.clone(), options).map_err(encoding)?;
            self.open = Some(OpenFile { writer, counted: Vec::new() });
        }
        Ok(())
    }

    /// Ends the open file after the last unit it has rows of.
    fn close_file(&mut self) -> Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let last = open.counted.last().map_or(i64::MAX, |(number, _)| *number);
        let later = if last == i64::MAX { BTreeMap::new() } else { self.units.split_off(&(last + 1)) };
        let units = std::mem::replace(&mut self.units, later);
        let file = self.encoded(open, units)?;
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

    fn encoded(&self, mut open: OpenFile, units: BTreeMap<i64, UnitTag>) -> Result<LakeFile> {
        let counted: BTreeMap<i64, u64> = open.counted.into_iter().collect();
        for (number, tag) in &units {
            let rows = counted.get(number).copied().unwrap_or(0);
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

fn properties(options: &LakeWriterOptions, rows: u64) -> Result<WriterPropertiesBuilder> {
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

fn encoding(error: parquet::errors::ParquetError) -> Error {
    Error::bug("lake file: cannot be encoded").with_source(error)
}
