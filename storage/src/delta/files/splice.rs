//! A lake file that is put together from row groups of other files, copied as bytes.

use arrow_schema::SchemaRef;
use bytes::Bytes;
use parquet::arrow::ArrowSchemaConverter;
use parquet::column::writer::ColumnCloseResult;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::ChunkReader;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::SchemaDescriptor;

use super::writer::{encoding, properties};
use super::{rows, stats};
use crate::delta::LakeWriterOptions;
use crate::error::{Error, Result};

/// Takes row groups one after the other.
pub(super) struct Splicer {
    schema: SchemaRef,
    writer: SerializedFileWriter<Vec<u8>>,
}

impl Splicer {
    /// `bytes`: what the file will have, about.
    ///
    /// # Errors
    ///
    /// `Bug` when the schema cannot be Parquet's.
    pub(super) fn new(schema: &SchemaRef, options: &LakeWriterOptions, rows: u64, bytes: u64) -> Result<Self> {
        let root = parquet_schema(schema)?.root_schema_ptr();
        let properties = properties(options, rows)?.build();
        // Grown step by step it would be in memory twice. What is encoded again may need a little more than before.
        let buffer = Vec::with_capacity(usize::try_from(bytes + bytes / 16).unwrap_or(0));
        let writer = SerializedFileWriter::new(buffer, root, properties.into()).map_err(encoding)?;
        Ok(Self { schema: schema.clone(), writer })
    }

    /// Copies a row group of the file that `metadata` describes and that has the same Parquet schema.
    ///
    /// # Errors
    ///
    /// `Data` when its columns have not as many values as it has rows, or lie elsewhere.
    pub(super) fn copy(&mut self, file: &impl ChunkReader, metadata: &ParquetMetaData, index: usize) -> Result<()> {
        let (group, page_index) = (metadata.row_group(index), metadata.page_index_for_row_group(index));
        let damaged = |error| rows::unreadable().with_source(error);
        let mut copied = self.writer.next_row_group().map_err(encoding)?;
        for (place, column) in group.columns().iter().enumerate() {
            let bytes = u64::try_from(column.compressed_size()).map_err(|_| rows::unreadable())?;
            if column.num_values() != group.num_rows() {
                return Err(Error::data(format!(
                    "row group {index}: column {place} must have {} values, got {}",
                    group.num_rows(),
                    column.num_values()
                )));
            }
            let closed = ColumnCloseResult {
                bytes_written: bytes,
                rows_written: u64::try_from(group.num_rows()).map_err(|_| rows::unreadable())?,
                metadata: column.clone(),
                // Lake files have none; without one a reader reads more, and nothing wrong.
                bloom_filter: None,
                column_index: page_index.column_index(place).cloned(),
                offset_index: page_index.offset_index(place).cloned(),
            };
            copied.append_column(file, closed).map_err(damaged)?;
        }
        copied.close().map_err(encoding)?;
        Ok(())
    }

    /// The file's bytes and Delta's `stats` text.
    ///
    /// # Errors
    ///
    /// `Bug` when the Parquet writer fails.
    pub(super) fn finish(mut self) -> Result<(Bytes, String)> {
        let metadata = self.writer.finish().map_err(encoding)?;
        let stats = stats::of_file(&self.schema, &metadata)?;
        Ok((std::mem::take(self.writer.inner_mut()).into(), stats))
    }
}

/// How a lake file declares the columns of `schema`.
///
/// # Errors
///
/// `Bug` when it cannot.
pub(super) fn parquet_schema(schema: &SchemaRef) -> Result<SchemaDescriptor> {
    ArrowSchemaConverter::new().convert(schema).map_err(encoding)
}
