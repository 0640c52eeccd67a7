//! Which columns of a file are written without a dictionary.
//!
//! The Parquet writer builds a dictionary for every column and gives it up once it outgrows a page:
//! for moments and numbers of tickets that is most of an ingest's time, spent on nothing. So the
//! first rows of a file say, column by column, how many distinct values a row group will have.

use std::collections::HashSet;
use std::hash::Hash;

use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, TimeUnit};
use parquet::basic::Encoding;
use parquet::file::properties::WriterPropertiesBuilder;
use parquet::schema::types::ColumnPath;

/// A row group of fewer rows is quick to write either way.
const ROWS_MIN: usize = 1 << 15;

/// Rows that are looked at.
const SAMPLE_ROWS_MAX: usize = 1 << 13;

/// Fewer of them say too little.
const SAMPLE_ROWS_MIN: usize = 1 << 10;

/// A column whose distinct values grow slower than so is coming to an end of them (products, prices):
/// its dictionary is kept, because readers group and join by it.
const GROWTH_MIN: f64 = 0.9;

/// Where the writer gives a dictionary up.
const DICTIONARY_BYTES_MAX: f64 = (1 << 20) as f64;

/// Names the encodings of columns whose dictionary would outgrow its page in a row group of
/// `group_rows` rows that go on as `first` does.
pub fn choose(mut builder: WriterPropertiesBuilder, first: &RecordBatch, group_rows: usize) -> WriterPropertiesBuilder {
    if group_rows < ROWS_MIN || first.num_rows() < SAMPLE_ROWS_MIN {
        return builder;
    }
    for (field, column) in first.schema_ref().fields().iter().zip(first.columns()) {
        let sample = column.slice(0, column.len().min(SAMPLE_ROWS_MAX));
        let Some(growth) = growth(&sample) else { continue };
        if growth.exponent() > GROWTH_MIN && growth.dictionary_bytes(group_rows) > DICTIONARY_BYTES_MAX {
            let path = ColumnPath::from(field.name().as_str());
            builder = builder.set_column_dictionary_enabled(path.clone(), false);
            // Steps from moment to moment are far smaller than the moments.
            if matches!(field.data_type(), DataType::Timestamp(..)) {
                builder = builder.set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
            }
        }
    }
    builder
}

/// How many distinct values half the sample had, and the whole.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Growth {
    values: usize,
    distinct_in_half: usize,
    distinct: usize,
    value_bytes: f64,
}

impl Growth {
    /// The number of distinct values grows with this power of the number of values: 1 for tickets,
    /// less for what is sold again and again.
    fn exponent(self) -> f64 {
        (self.distinct.max(1) as f64 / self.distinct_in_half.max(1) as f64).log2().clamp(0.0, 1.0)
    }

    /// Of `rows` rows that go on as these.
    fn dictionary_bytes(self, rows: usize) -> f64 {
        let times = (rows as f64 / self.values.max(1) as f64).max(1.0);
        self.distinct as f64 * times.powf(self.exponent()) * self.value_bytes
    }
}

/// `None` for types without a dictionary worth its while either way.
fn growth(sample: &ArrayRef) -> Option<Growth> {
    match sample.data_type() {
        DataType::Int32 => Some(counted(sample.as_primitive_opt::<Int32Type>()?.iter().flatten(), |_| 4)),
        DataType::Int64 => Some(counted(sample.as_primitive_opt::<Int64Type>()?.iter().flatten(), |_| 8)),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            Some(counted(sample.as_primitive_opt::<TimestampMicrosecondType>()?.iter().flatten(), |_| 8))
        }
        DataType::Decimal128(precision, _) => {
            let bytes = if *precision > 18 { 16 } else { 8 };
            Some(counted(sample.as_primitive_opt::<Decimal128Type>()?.iter().flatten(), |_| bytes))
        }
        DataType::Utf8 => Some(counted(sample.as_string_opt::<i32>()?.iter().flatten(), |text| text.len() + 4)),
        DataType::Utf8View => Some(counted(sample.as_string_view_opt()?.iter().flatten(), |text| text.len() + 4)),
        _ => None,
    }
}

fn counted<T: Hash + Eq + Copy>(values: impl Iterator<Item = T>, bytes_of: impl Fn(T) -> usize) -> Growth {
    let values: Vec<T> = values.collect();
    let mut seen: HashSet<T> = HashSet::with_capacity(values.len());
    let half = values.len() / 2;
    seen.extend(&values[..half]);
    let distinct_in_half = seen.len();
    seen.extend(&values[half..]);
    let bytes: usize = values.iter().map(|value| bytes_of(*value)).sum();
    let value_bytes = bytes as f64 / values.len().max(1) as f64;
    Growth { values: values.len(), distinct_in_half, distinct: seen.len(), value_bytes }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Int64Array, StringArray, TimestampMicrosecondArray};
    use parquet::file::properties::WriterProperties;

    use super::*;

    fn properties(group_rows: usize) -> WriterProperties {
        const ROWS: i64 = 8192;
        // What is sold: few of 20,000 products sell much. Their growth alone would make a
        // dictionary of more than a page; there are not so many.
        let product = |row: i64| {
            let part = (row * 7919 % ROWS) as f64 / ROWS as f64;
            (20_000.0 * part.powi(3)) as i64
        };
        let columns: [(&str, ArrayRef); 4] = [
            ("at", Arc::new((0..ROWS).map(|row| Some(row * 3_600_000)).collect::<TimestampMicrosecondArray>())),
            ("ticket", Arc::new((0..ROWS).map(|row| Some(format!("01-{:09}", row / 3))).collect::<StringArray>())),
            (
                "product",
                Arc::new((0..ROWS).map(|row| Some(format!("84{:011}", product(row)))).collect::<StringArray>()),
            ),
            ("store", Arc::new((0..ROWS).map(|_| Some(1)).collect::<Int64Array>())),
        ];
        choose(WriterProperties::builder(), &RecordBatch::try_from_iter(columns).unwrap(), group_rows).build()
    }

    #[test]
    fn only_columns_whose_dictionary_would_be_given_up_have_none() {
        let chosen = properties(262_144);
        let has = |name: &str| chosen.dictionary_enabled(&ColumnPath::from(name));
        assert_eq!(["at", "ticket", "product", "store"].map(has), [false, false, true, true]);
        assert_eq!(chosen.encoding(&ColumnPath::from("at")), Some(Encoding::DELTA_BINARY_PACKED));
        let small = properties(ROWS_MIN - 1);
        assert!(small.dictionary_enabled(&ColumnPath::from("at")));
    }
}
