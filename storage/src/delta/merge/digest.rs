//! What the rows of each unit are, in a few bytes: the same whatever their order and however they are
//! divided into files and batches.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher as _};

use arrow_array::RecordBatch;
use arrow_row::{RowConverter, SortField};
use arrow_schema::SchemaRef;

use crate::dataset::DatasetDefinition;
use crate::delta::units::column::UnitColumn;
use crate::error::{Error, Result};

/// Rows and the sum of their hashes, over every column, by store and number of the unit.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Digests(BTreeMap<(String, i64), (u64, u64)>);

/// Computes [`Digests`] from batches of the dataset's lake schema.
pub(super) struct Digester {
    column: UnitColumn,
    converter: RowConverter,
    digests: Digests,
}

impl Digester {
    pub(super) fn new(dataset: &DatasetDefinition, schema: &SchemaRef) -> Result<Self> {
        let fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
        let converter = RowConverter::new(fields).map_err(unconverted)?;
        Ok(Self { column: UnitColumn::of(dataset, schema)?, converter, digests: Digests::default() })
    }

    pub(super) fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let rows = self.converter.convert_columns(batch.columns()).map_err(unconverted)?;
        for run in self.column.runs(batch)? {
            let digest = self.digests.0.entry((run.store.to_owned(), run.number)).or_default();
            for row in run.rows {
                let mut hasher = DefaultHasher::new();
                hasher.write(rows.row(row).as_ref());
                *digest = (digest.0 + 1, digest.1.wrapping_add(hasher.finish()));
            }
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Digests {
        self.digests
    }
}

fn unconverted(error: arrow_schema::ArrowError) -> Error {
    Error::bug("rows cannot be compared").with_source(error)
}
