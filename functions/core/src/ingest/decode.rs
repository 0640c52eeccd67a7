//! Opens the Parquet file a store sent: footer, exact schema, page sizes, then batches of rows.
//!
//! Text and binary columns are read as views, which point into the decoded pages: a page that
//! repeats one long value a million times takes 16 bytes a row, not the value's length.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::basic::Compression;
use parquet::file::metadata::PageIndexPolicy;
use ribera_storage::batch::QuarantineReason;
use ribera_storage::dataset::Column;
use ribera_storage::text::quoted;

use super::limits::Limits;
use super::pages::check_pages;
use super::refusal::Refusal;

/// Rows of a decoded batch. Small enough to stay in the cache, large enough to be quick.
const BATCH_ROWS: usize = 8192;

/// An opened file: its batches in file order, in the given columns.
pub struct BatchFile {
    reader: ParquetRecordBatchReader,
    schema: SchemaRef,
    failed: bool,
}

impl BatchFile {
    /// Opens `bytes`, which must hold exactly `columns` in that order and `rows` rows.
    pub fn open(bytes: Bytes, columns: &[Column], rows: u64, limits: &Limits) -> Result<Self, Refusal> {
        contained(|| open(bytes, columns, rows, limits))
    }

    /// Names and types as the batches have them: text and binary as views, nullability as defined.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }
}

impl Iterator for BatchFile {
    type Item = Result<RecordBatch, Refusal>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = contained(|| match self.reader.next() {
            Some(batch) => batch.map(Some).map_err(Refusal::unreadable),
            None => Ok(None),
        });
        self.failed = next.is_err();
        next.transpose()
    }
}

/// The decoder is fed what a stranger sent; should it panic, that file is unreadable and no more.
/// (In WASM a panic ends the instance: the sweep counts such crash_count, see `attempts`.)
fn contained<T>(work: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Refusal> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(Refusal::unreadable("a file that breaks the decoder")))
}

fn open(bytes: Bytes, columns: &[Column], rows: u64, limits: &Limits) -> Result<BatchFile, Refusal> {
    check_footer(&bytes, limits)?;
    let options =
        ArrowReaderOptions::new().with_skip_arrow_metadata(true).with_page_index_policy(PageIndexPolicy::Skip);
    let found = ArrowReaderMetadata::load(&bytes, options.clone()).map_err(Refusal::unreadable)?;
    check_schema(found.schema(), columns)?;
    check_rows(&found, rows, limits)?;
    check_codecs(&found)?;
    check_pages(&bytes, found.metadata(), limits)?;
    let views: Vec<Field> = found.schema().fields().iter().map(|field| as_view(field)).collect();
    let options = options.with_schema(Arc::new(Schema::new(views)));
    let metadata = ArrowReaderMetadata::try_new(Arc::clone(found.metadata()), options).map_err(Refusal::unreadable)?;
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, metadata)
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(Refusal::unreadable)?;
    let schema = columns
        .iter()
        .map(|column| as_view(&Field::new(&column.name, column.column_type.arrow(), column.nullable)))
        .collect::<Vec<_>>();
    Ok(BatchFile { reader, schema: Arc::new(Schema::new(schema)), failed: false })
}

const MAGIC: &[u8] = b"PAR1";

fn check_footer(bytes: &[u8], limits: &Limits) -> Result<(), Refusal> {
    let length = bytes.len();
    if length < 12 || !bytes.starts_with(MAGIC) || !bytes.ends_with(MAGIC) {
        return Err(Refusal::unreadable(format!("{length} bytes without Parquet's marks at both ends")));
    }
    let footer = bytes.get(length - 8..length - 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes);
    if footer as usize > length - 12 {
        return Err(Refusal::unreadable(format!("a footer of {footer} bytes in a file of {length}")));
    }
    if u64::from(footer) > limits.footer_bytes_max {
        return Err(Refusal::limit("footer bytes", limits.footer_bytes_max, u64::from(footer)));
    }
    Ok(())
}

fn check_schema(found: &Schema, columns: &[Column]) -> Result<(), Refusal> {
    for column in columns {
        let expected = column.column_type;
        match found.fields().iter().find(|field| *field.name() == column.name) {
            None => {
                return Err(Refusal::schema(format!("column {}: must be there as {expected}, got none", column.name)));
            }
            Some(field) if *field.data_type() != expected.arrow() => {
                return Err(Refusal::schema(format!(
                    "column {}: must be {expected}, got {}",
                    column.name,
                    field.data_type()
                )));
            }
            Some(_) => {}
        }
    }
    if let Some(extra) = found.fields().iter().find(|field| columns.iter().all(|column| column.name != *field.name())) {
        return Err(Refusal::schema(format!(
            "column {}: must not be there, got {}",
            quoted(extra.name()),
            extra.data_type()
        )));
    }
    let in_order = found.fields().iter().map(|field| field.name()).eq(columns.iter().map(|column| &column.name));
    if !in_order {
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        return Err(Refusal::schema(format!("columns: must be in the order {}, each once", names.join(", "))));
    }
    Ok(())
}

fn check_rows(found: &ArrowReaderMetadata, expected: u64, limits: &Limits) -> Result<(), Refusal> {
    let metadata = found.metadata();
    let stated = metadata.file_metadata().num_rows();
    let groups = metadata
        .row_groups()
        .iter()
        .try_fold(0_i64, |sum, group| (group.num_rows() >= 0).then_some(sum)?.checked_add(group.num_rows()));
    let rows = match (u64::try_from(stated), groups) {
        (Ok(rows), Some(groups)) if groups == stated => rows,
        _ => return Err(Refusal::unreadable(format!("a footer that contradicts itself on rows: {stated}"))),
    };
    if rows > limits.rows_max {
        return Err(Refusal::limit("rows", limits.rows_max, rows));
    }
    if rows != expected {
        return Err(Refusal::new(
            QuarantineReason::RowsMismatch,
            format!("rows: must be {expected} as the manifest says, got {rows}"),
        ));
    }
    Ok(())
}

/// Only the codecs that agents write: each one more is code that a stranger's bytes reach.
fn check_codecs(found: &ArrowReaderMetadata) -> Result<(), Refusal> {
    let columns = found.metadata().row_groups().iter().flat_map(|group| group.columns());
    for column in columns {
        if !matches!(column.compression(), Compression::UNCOMPRESSED | Compression::ZSTD(_)) {
            return Err(Refusal::unreadable(format!(
                "column {} compressed with {}, where zstd or nothing is allowed",
                quoted(&column.column_path().string()),
                column.compression()
            )));
        }
    }
    Ok(())
}

fn as_view(field: &Field) -> Field {
    let kind = match field.data_type() {
        DataType::Utf8 => DataType::Utf8View,
        DataType::Binary => DataType::BinaryView,
        other => other.clone(),
    };
    Field::new(field.name(), kind, field.is_nullable())
}
