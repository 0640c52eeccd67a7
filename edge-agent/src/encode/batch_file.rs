//! A batch's Parquet file on its way into the spool: temporary file, fsync, rename, fsync of the
//! folder, hashed as it is written. Row groups are bounded by bytes, so memory stays flat.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::RecordBatch;
use arrow_schema::{DataType, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;
use ribera_storage::batch::ROWS_PLAIN_MAX;
use ribera_storage::delta::choose_encodings;
use ribera_storage::hex::hex;
use ribera_storage::{Error, Result};
use sha2::{Digest, Sha256};

use crate::ports::{FailPoints, SpoolDisk, SpoolFile, step};

/// A row group is written out when its encoded bytes reach this: large enough to compress well,
/// small enough that two of them (encoded, and being written) fit the memory bound.
const ROW_GROUP_BYTES: usize = 6 << 20;
/// The level that DuckDB and most writers use.
const ZSTD_LEVEL: i32 = 3;
/// Unfinished files end so; whatever is left of them is deleted at the next start.
pub const TEMPORARY: &str = ".tmp";

/// What came of a finished file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spooled {
    pub name: String,
    pub bytes: u64,
    /// Hexadecimal, lower case.
    pub sha256: String,
    pub rows: u64,
}

/// A file being written. Dropped before it is finished, it leaves nothing behind: a spool that is
/// full must not stay full of files that nobody will send.
pub struct BatchFile<'a> {
    disk: &'a dyn SpoolDisk,
    fail_points: &'a dyn FailPoints,
    name: String,
    file: Box<dyn SpoolFile>,
    schema: SchemaRef,
    /// About so many rows are to come.
    rows_expected: u64,
    /// Begun with the first rows, which say how each column is written best.
    writer: Option<ArrowWriter<Buffer>>,
    buffer: Buffer,
    hasher: Sha256,
    bytes: u64,
    bytes_max: u64,
    rows: u64,
    is_finished: bool,
}

impl<'a> BatchFile<'a> {
    /// Begins `name`, which may grow to `bytes_max` and is to hold about `rows`.
    pub fn create(
        disk: &'a dyn SpoolDisk,
        fail_points: &'a dyn FailPoints,
        schema: SchemaRef,
        name: String,
        bytes_max: u64,
        rows: u64,
    ) -> Result<Self> {
        fail_points.hit(step::SPOOL_CREATE)?;
        let file = disk.create(&temporary(&name))?;
        Ok(Self {
            disk,
            fail_points,
            name,
            file,
            schema,
            rows_expected: rows,
            writer: None,
            buffer: Buffer::default(),
            hasher: Sha256::new(),
            bytes: 0,
            bytes_max,
            rows: 0,
            is_finished: false,
        })
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        let writer = self.writer(Some(batch))?;
        writer.write(batch).map_err(parquet_error)?;
        if writer.in_progress_size() >= ROW_GROUP_BYTES {
            writer.flush().map_err(parquet_error)?;
        }
        self.drain()
    }

    /// Writes the footer with `facts` and makes the file durable under its name.
    pub fn finish(mut self, facts: &[(&str, String)]) -> Result<Spooled> {
        let writer = self.writer(None)?;
        for (key, value) in facts {
            writer.append_key_value_metadata(KeyValue::new((*key).to_owned(), value.clone()));
        }
        writer.finish().map_err(parquet_error)?;
        self.drain()?;
        self.fail_points.hit(step::SPOOL_SYNC)?;
        self.file.sync()?;
        self.fail_points.hit(step::SPOOL_RENAME)?;
        self.disk.rename(&temporary(&self.name), &self.name)?;
        self.fail_points.hit(step::SPOOL_SYNC_FOLDER)?;
        self.disk.sync_folder()?;
        self.is_finished = true;
        let sha256 = hex(&std::mem::take(&mut self.hasher).finalize());
        Ok(Spooled { name: std::mem::take(&mut self.name), bytes: self.bytes, sha256, rows: self.rows })
    }

    /// Gives up: what was written goes.
    pub fn abandon(self) {
        drop(self);
    }

    fn writer(&mut self, first: Option<&RecordBatch>) -> Result<&mut ArrowWriter<Buffer>> {
        let writer = match self.writer.take() {
            Some(writer) => writer,
            None => {
                let properties = properties(&self.schema, self.rows_expected, first)?;
                ArrowWriter::try_new(self.buffer.clone(), self.schema.clone(), Some(properties))
                    .map_err(parquet_error)?
            }
        };
        Ok(self.writer.insert(writer))
    }

    /// Moves what the Parquet writer gave out to the disk.
    fn drain(&mut self) -> Result<()> {
        let bytes = self.buffer.take();
        if bytes.is_empty() {
            return Ok(());
        }
        self.bytes += bytes.len() as u64;
        if self.bytes > self.bytes_max {
            return Err(Error::config(format!(
                "limits.spool_bytes_max: the spool is full, a batch needs more than the {} bytes that are left",
                self.bytes_max
            ))
            .with_hint("ribera-agent spool"));
        }
        self.hasher.update(&bytes);
        self.fail_points.hit(step::SPOOL_WRITE)?;
        self.file.write_all(&bytes).map_err(|error| write_error(&self.name, error))
    }
}

impl Drop for BatchFile<'_> {
    fn drop(&mut self) {
        // A program that dies deletes nothing; its leftovers go at the next start.
        if !self.is_finished && !std::thread::panicking() && self.fail_points.hit(step::SPOOL_PRUNE).is_ok() {
            let _ = self.disk.delete(&temporary(&self.name));
            let _ = self.disk.delete(&self.name);
        }
    }
}

fn temporary(name: &str) -> String {
    format!("{name}{TEMPORARY}")
}

fn write_error(name: &str, error: std::io::Error) -> Error {
    crate::ports::disk_error("write", std::path::Path::new(name), error)
}

/// Encodings that suit sales and that ingest accepts: it refuses DELTA_BYTE_ARRAY, which decodes
/// without bound and is this writer's own choice for text whose dictionary has grown too large.
fn properties(schema: &Schema, rows: u64, first: Option<&RecordBatch>) -> Result<WriterProperties> {
    let zstd = Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL).map_err(parquet_error)?);
    let mut properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_2_0)
        .set_compression(if rows > ROWS_PLAIN_MAX { zstd } else { Compression::UNCOMPRESSED })
        // Nobody reads them: ingest believes no statistics of a store's and counts its own.
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true)
        .set_created_by(concat!("ribera-agent ", env!("CARGO_PKG_VERSION")).to_owned());
    for field in schema.fields() {
        let column = ColumnPath::from(field.name().as_str());
        properties = match field.data_type() {
            // Moments hardly repeat and mostly rise: a dictionary only costs time and room.
            DataType::Timestamp(..) => properties
                .set_column_dictionary_enabled(column.clone(), false)
                .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED),
            DataType::Utf8 | DataType::Binary => {
                properties.set_column_encoding(column, Encoding::DELTA_LENGTH_BYTE_ARRAY)
            }
            DataType::Decimal128(precision, _) if *precision > 18 => {
                properties.set_column_encoding(column, Encoding::PLAIN)
            }
            _ => properties,
        };
    }
    // A dictionary that outgrows its page is work for nothing.
    if let Some(first) = first {
        properties = choose_encodings(properties, first, usize::try_from(rows).unwrap_or(usize::MAX));
    }
    Ok(properties.build())
}

fn parquet_error(error: parquet::errors::ParquetError) -> Error {
    Error::bug("writing Parquet failed").with_source(error)
}

/// Bytes between the Parquet writer, which must own a `Send` sink, and the disk, which need not be
/// `Send`.
#[derive(Debug, Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
