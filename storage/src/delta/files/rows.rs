//! The rows of lake files: reading them in the table's present schema, counting them by unit.

use std::collections::BTreeMap;
use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, Int16Type, Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, RecordBatch, new_null_array};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, SchemaRef};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::batch::Facts;
use crate::dataset::{DatasetDefinition, PartitionColumn};
use crate::decimal::ExactDecimal;
use crate::delta::Table;
use crate::delta::log::action::AddFile;
use crate::delta::units::column::UnitColumn;
use crate::error::{Error, Result};
use crate::ids::StoreUnit;
use crate::object::ObjectStore;
use crate::ports::Ports;

/// Rows decoded at once.
pub(super) const BATCH_ROWS: usize = 8192;

/// Counts rows and sums of runs of rows.
pub(in crate::delta) struct RunCounter(Vec<(usize, String, DataType)>);

impl RunCounter {
    /// For batches of the dataset's lake schema.
    pub(in crate::delta) fn new(dataset: &DatasetDefinition) -> Result<Self> {
        let schema = dataset.lake_schema();
        let mut sums = Vec::new();
        for name in &dataset.audit_sums {
            let (index, field) = schema
                .column_with_name(name)
                .ok_or_else(|| Error::bug(format!("dataset {}: no column {name} to sum", dataset.name)))?;
            sums.push((index, name.clone(), field.data_type().clone()));
        }
        Ok(Self(sums))
    }

    /// Adds the rows of `run` to `facts`.
    pub(in crate::delta) fn add(&self, batch: &RecordBatch, run: &Range<usize>, facts: &mut Facts) -> Result<()> {
        facts.rows += run.len() as u64;
        for (index, name, kind) in &self.0 {
            let sum = sum(batch.column(*index), kind, run.clone());
            let total = sum.and_then(|sum| facts.sums.get(name).map_or(Some(sum), |total| total.checked_add(sum)));
            let total = total.ok_or_else(|| Error::reject(format!("sum of {name}: does not fit 38 digits")))?;
            match facts.sums.get_mut(name) {
                Some(sum) => *sum = total,
                None => drop(facts.sums.insert(name.clone(), total)),
            }
        }
        Ok(())
    }
}

/// Rows and sums by unit, counted from the rows of lake files.
pub struct UnitCounter {
    column: UnitColumn,
    runs: RunCounter,
    units: BTreeMap<(String, i64), Facts>,
}

impl UnitCounter {
    /// For batches of the dataset's lake schema.
    ///
    /// # Errors
    ///
    /// `Bug` when a column to sum is not in the definition.
    pub fn new(dataset: &DatasetDefinition) -> Result<Self> {
        let column = UnitColumn::of(dataset, &dataset.lake_schema())?;
        Ok(Self { column, runs: RunCounter::new(dataset)?, units: BTreeMap::new() })
    }

    /// Counts rows in any order.
    ///
    /// # Errors
    ///
    /// `Reject` when a row has no unit or a sum does not fit 38 digits.
    pub fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        for run in self.column.runs(batch)? {
            let facts = self.units.entry((run.store.to_owned(), run.number)).or_default();
            self.runs.add(batch, &run.rows, facts)?;
        }
        Ok(())
    }

    /// The facts of every unit that had rows.
    ///
    /// # Errors
    ///
    /// `Reject` when a sum does not fit 38 digits; `Data` when a row names no store.
    pub fn finish(self) -> Result<BTreeMap<StoreUnit, Facts>> {
        let named = |((store, number), facts): ((String, i64), Facts)| {
            let store = store.parse().map_err(|error: Error| Error::data(error.to_string()))?;
            Ok((StoreUnit { store, unit: self.column.unit(number)? }, facts))
        };
        self.units.into_iter().map(named).collect()
    }
}

fn sum(column: &ArrayRef, kind: &DataType, run: Range<usize>) -> Option<ExactDecimal> {
    let total = match kind {
        DataType::Int16 => sum_of(column.as_primitive_opt::<Int16Type>()?, run),
        DataType::Int32 => sum_of(column.as_primitive_opt::<Int32Type>()?, run),
        DataType::Int64 => sum_of(column.as_primitive_opt::<Int64Type>()?, run),
        DataType::Decimal128(..) => sum_of(column.as_primitive_opt::<Decimal128Type>()?, run),
        _ => None,
    }?;
    let scale = match kind {
        DataType::Decimal128(_, scale) => u8::try_from(*scale).ok()?,
        _ => 0,
    };
    Some(ExactDecimal::new(total, scale))
}

fn sum_of<T>(column: &arrow_array::PrimitiveArray<T>, run: Range<usize>) -> Option<i128>
where
    T: arrow_array::ArrowPrimitiveType,
    T::Native: Into<i128>,
{
    let values = column.values();
    if column.null_count() == 0 {
        return values[run].iter().try_fold(0_i128, |total, value| total.checked_add((*value).into()));
    }
    run.filter(|row| column.is_valid(*row)).try_fold(0_i128, |total, row| total.checked_add(values[row].into()))
}

/// The rows of a lake file in the columns of `schema`: columns that the file lacks are NULL,
/// narrower types are widened. An error of kind `Data` when the file has a column more.
///
/// # Errors
///
/// `Data` when it is not Parquet, or has a column that the schema lacks.
pub fn read(bytes: Bytes, schema: &SchemaRef) -> Result<impl Iterator<Item = Result<RecordBatch>> + use<>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)
        .and_then(|builder| builder.with_batch_size(BATCH_ROWS).build())
        .map_err(|error| unreadable().with_source(error))?;
    let schema = schema.clone();
    Ok(reader.map(move |batch| adapted(&batch.map_err(|error| unreadable().with_source(error))?, &schema)))
}

/// The columns of `schema`, as [`read`] gives them.
pub(super) fn adapted(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if let Some(extra) = batch.schema_ref().fields().iter().find(|field| schema.index_of(field.name()).is_err()) {
        return Err(Error::data(format!("lake file: has a column {} that the table has not", extra.name())));
    }
    let mut columns = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        columns.push(match batch.column_by_name(field.name()) {
            None => new_null_array(field.data_type(), batch.num_rows()),
            Some(column) if column.data_type() == field.data_type() => column.clone(),
            Some(column) => {
                let exact = CastOptions { safe: false, ..CastOptions::default() };
                cast_with_options(column, field.data_type(), &exact).map_err(|error| {
                    Error::data(format!("lake file: column {} cannot become {}", field.name(), field.data_type()))
                        .with_source(error)
                })?
            }
        });
    }
    RecordBatch::try_new(schema.clone(), columns)
        .map_err(|error| Error::data("lake file: is not of the table's schema").with_source(error))
}

impl<S: ObjectStore> Table<'_, S> {
    pub(in crate::delta) async fn put_files(
        &self,
        ports: Ports<'_, S>,
        partition: &[PartitionColumn],
        files: &[crate::delta::LakeFile],
    ) -> Result<Vec<AddFile>> {
        futures::future::try_join_all(files.iter().map(|file| self.put_file(ports, partition, file))).await
    }

    /// The bytes of a data file; an error of kind `Data` when there is none.
    ///
    /// # Errors
    ///
    /// `Data` when there is none; `Retry` when the object store does not answer.
    pub async fn read_file(&self, file: &AddFile) -> Result<Bytes> {
        let path = file.object_path(&self.name)?;
        self.objects
            .get(&path)
            .await?
            .ok_or_else(|| Error::data(format!("table {}: the file {path} is named by the log but absent", self.name)))
    }

    pub(in crate::delta) fn partition_of(
        &self,
        dataset: &DatasetDefinition,
        file: &AddFile,
    ) -> Result<Vec<PartitionColumn>> {
        let value = |column: String| match file.partition_values.get(&column) {
            Some(Some(value)) => Ok((column, value.clone())),
            _ => Err(Error::data(format!("table {}: {}: has no partition value {column}", self.name, file.path))),
        };
        dataset.partition_columns().into_iter().map(value).collect()
    }
}

pub(super) fn unreadable() -> Error {
    Error::data("lake file: is not readable as Parquet")
}
