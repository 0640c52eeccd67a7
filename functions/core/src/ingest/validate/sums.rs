//! Exact sums of the audit columns.

use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowPrimitiveType, Decimal128Type, Int16Type, Int32Type, Int64Type};
use arrow_array::{Array, PrimitiveArray, RecordBatch};
use arrow_schema::DataType;
use ribera_storage::batch::QuarantineReason;
use ribera_storage::dataset::{ColumnType, DatasetDefinition};

use crate::ingest::refusal::Refusal;

pub struct SumColumn {
    pub name: String,
    pub scale: u8,
    index: usize,
}

impl SumColumn {
    pub fn of(definition: &DatasetDefinition, name: &str) -> Option<Self> {
        let index = definition.columns.iter().position(|column| column.name == name)?;
        let scale = match definition.columns[index].column_type {
            ColumnType::Decimal { scale, .. } => scale,
            _ => 0,
        };
        Some(Self { name: name.to_owned(), scale, index })
    }

    /// `total` and the values of `rows`; NULL counts as nothing.
    pub fn add(&self, total: i128, batch: &RecordBatch, rows: Range<usize>) -> Result<i128, Refusal> {
        let array = batch.column(self.index);
        let sum = match array.data_type() {
            DataType::Int16 => sum::<Int16Type>(array.as_primitive(), rows),
            DataType::Int32 => sum::<Int32Type>(array.as_primitive(), rows),
            DataType::Int64 => sum::<Int64Type>(array.as_primitive(), rows),
            DataType::Decimal128(_, _) => sum::<Decimal128Type>(array.as_primitive(), rows),
            _ => None,
        };
        sum.and_then(|sum| total.checked_add(sum)).ok_or_else(|| {
            Refusal::new(QuarantineReason::SumsMismatch, format!("sum of {}: must fit 38 digits, got more", self.name))
        })
    }
}

fn sum<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, rows: Range<usize>) -> Option<i128>
where
    T::Native: Into<i128>,
{
    if array.null_count() == 0 {
        return array.values()[rows].iter().try_fold(0_i128, |sum, value| sum.checked_add((*value).into()));
    }
    rows.filter(|row| array.is_valid(*row)).try_fold(0_i128, |sum, row| sum.checked_add(array.value(row).into()))
}
