//! What rows are, in a few bytes: the same whatever their order and however they are divided into files and
//! batches.

use std::hash::{DefaultHasher, Hasher as _};

use arrow_array::RecordBatch;
use arrow_row::{RowConverter, Rows, SortField};
use arrow_schema::SchemaRef;

use crate::error::{Error, Result};

/// Rows and the sum of their hashes over every column. Store and unit of a row are columns of every lake file
/// (of a whole table the store alone is), so one sum says as much as one for each unit: a row that came into
/// another unit has another hash.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest {
    rows: u64,
    hashes: u64,
}

/// Computes a [`Digest`] from batches of the dataset's lake schema.
pub(super) struct Digester {
    converter: RowConverter,
    rows: Rows,
    digest: Digest,
}

impl Digester {
    pub(super) fn new(schema: &SchemaRef) -> Result<Self> {
        let fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
        let converter = RowConverter::new(fields).map_err(unconverted)?;
        Ok(Self { rows: converter.empty_rows(0, 0), converter, digest: Digest::default() })
    }

    pub(super) fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows.clear();
        self.converter.append(&mut self.rows, batch.columns()).map_err(unconverted)?;
        for row in &self.rows {
            let mut hasher = DefaultHasher::new();
            hasher.write(row.as_ref());
            self.digest.rows += 1;
            self.digest.hashes = self.digest.hashes.wrapping_add(hasher.finish());
        }
        Ok(())
    }

    pub(super) fn digest(&self) -> Digest {
        self.digest
    }
}

fn unconverted(error: arrow_schema::ArrowError) -> Error {
    Error::bug("rows cannot be compared").with_source(error)
}
