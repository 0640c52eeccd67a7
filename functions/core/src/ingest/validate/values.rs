//! Rules of single values: NULLs, sizes, ranges of the type, the sender's name.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ByteViewType, Date32Type, Decimal128Type, Float64Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use arrow_array::{Array, GenericByteViewArray, RecordBatch};
use arrow_schema::{DataType, TimeUnit};
use jiff::Timestamp;
use jiff::civil::{Date, date};
use ribera_storage::batch::QuarantineReason;
use ribera_storage::dataset::{Column, DatasetDefinition};
use ribera_storage::limits::{FIRST_DAY, FIRST_MICROS, LAST_DAY, LAST_MICROS};
use ribera_storage::text::quoted;
use ribera_storage::{ExactDecimal, StoreId};

use crate::ingest::limits::Limits;
use crate::ingest::refusal::Refusal;

/// Columns that are not nullable hold no NULL.
pub fn check_nulls(definition: &DatasetDefinition, batch: &RecordBatch, rows_before: u64) -> Result<(), Refusal> {
    for (column, array) in definition.columns.iter().zip(batch.columns()) {
        if column.nullable || array.null_count() == 0 {
            continue;
        }
        let row = (0..array.len()).find(|row| array.is_null(*row)).unwrap_or(0);
        let row = rows_before + row as u64 + 1;
        let name = &column.name;
        return Err(if definition.key.contains(name) {
            Refusal::new(
                QuarantineReason::NullInKey,
                format!("key column {name}: must not be NULL, got NULL in row {row}"),
            )
        } else {
            Refusal::schema(format!("column {name}: must not be NULL, got NULL in row {row}"))
        });
    }
    Ok(())
}

/// Every value fits its type and the limits; returns the bytes of all values written out.
pub fn check_values(
    definition: &DatasetDefinition,
    batch: &RecordBatch,
    rows_before: u64,
    limits: &Limits,
) -> Result<u64, Refusal> {
    let mut bytes = 0;
    for (column, array) in definition.columns.iter().zip(batch.columns()) {
        bytes += match array.data_type() {
            DataType::Utf8View => check_lengths(column, array.as_string_view(), limits)?,
            DataType::BinaryView => check_lengths(column, array.as_binary_view(), limits)?,
            DataType::Decimal128(precision, _) => {
                let bound = 10_u128.pow(u32::from(*precision));
                let values = array.as_primitive::<Decimal128Type>().values();
                check_all(column, array, values, rows_before, |value| value.unsigned_abs() < bound)?
            }
            DataType::Date32 => {
                let values = array.as_primitive::<Date32Type>().values();
                check_all(column, array, values, rows_before, |days| (FIRST_DAY..=LAST_DAY).contains(days))?
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                let range = FIRST_MICROS..=LAST_MICROS;
                let values = array.as_primitive::<TimestampMicrosecondType>().values();
                check_all(column, array, values, rows_before, |micros| range.contains(micros))?
            }
            DataType::Boolean => array.len() as u64,
            kind => array.len() as u64 * kind.primitive_width().unwrap_or(8) as u64,
        };
    }
    Ok(bytes)
}

/// The store column names the sender in every row.
pub fn check_sender(
    definition: &DatasetDefinition,
    batch: &RecordBatch,
    rows_before: u64,
    sender: &StoreId,
) -> Result<(), Refusal> {
    let Some(name) = &definition.store_column else { return Ok(()) };
    let Some(names) = batch.column_by_name(name).and_then(|array| array.as_string_view_opt()) else { return Ok(()) };
    let sender = sender.as_str();
    // Equal views are equal values as long as they point to the same place; a column that repeats
    // one name is compared once.
    let mut proven = None;
    for (row, view) in names.views().iter().enumerate() {
        if proven == Some(*view) {
            continue;
        }
        let value = names.value(row);
        if value != sender {
            return Err(Refusal::new(
                QuarantineReason::StoreMismatch,
                format!(
                    "column {name}: must be {sender:?}, the sender, got {} in row {}",
                    quoted(value),
                    rows_before + row as u64 + 1
                ),
            ));
        }
        proven = Some(*view);
    }
    Ok(())
}

fn check_lengths<T: ByteViewType + ?Sized>(
    column: &Column,
    array: &GenericByteViewArray<T>,
    limits: &Limits,
) -> Result<u64, Refusal> {
    // The low half of a view is its value's length; that of a NULL is 0.
    let (total, longest) = array.views().iter().fold((0_u64, 0_u32), |(total, longest), view| {
        let length = *view as u32;
        (total + u64::from(length), longest.max(length))
    });
    if u64::from(longest) > limits.value_bytes_max {
        let what = format!("column {}: bytes of a value", column.name);
        return Err(Refusal::limit(&what, limits.value_bytes_max, u64::from(longest)));
    }
    Ok(total)
}

fn check_all<T>(
    column: &Column,
    array: &dyn Array,
    values: &[T],
    rows_before: u64,
    fits: impl Fn(&T) -> bool,
) -> Result<u64, Refusal> {
    if !values.iter().all(&fits)
        && let Some(row) = (0..values.len()).find(|row| array.is_valid(*row) && !fits(&values[*row]))
    {
        return Err(Refusal::schema(format!(
            "column {}: must fit {}, got {} in row {}",
            column.name,
            column.column_type,
            value_text(array, row),
            rows_before + row as u64 + 1
        )));
    }
    Ok(size_of_val(values) as u64)
}

/// A value as a detail shows it.
pub fn value_text(array: &dyn Array, row: usize) -> String {
    if array.is_null(row) {
        return "NULL".to_owned();
    }
    match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).to_string(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(row).to_string(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).to_string(),
        DataType::Decimal128(_, scale) => {
            let value = array.as_primitive::<Decimal128Type>().value(row);
            ExactDecimal::new(value, u8::try_from(*scale).unwrap_or(0)).to_string()
        }
        DataType::Date32 => date_text(array.as_primitive::<Date32Type>().value(row)),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            timestamp_text(array.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        DataType::Utf8View => quoted(array.as_string_view().value(row)),
        DataType::BinaryView => format!("{} bytes", array.as_binary_view().value(row).len()),
        other => other.to_string(),
    }
}

pub fn date_text(days: i32) -> String {
    match EPOCH.checked_add(jiff::Span::new().try_days(days).unwrap_or_default()) {
        Ok(date) if (FIRST_DAY..=LAST_DAY).contains(&days) => date.to_string(),
        _ => format!("{days} days after 1970-01-01"),
    }
}

pub fn timestamp_text(micros: i64) -> String {
    Timestamp::from_microsecond(micros).map_or_else(|_| format!("{micros} us after 1970-01-01"), |at| at.to_string())
}

pub fn days_since_epoch(day: Date) -> i32 {
    // Whole days between two civil dates never fail and fit.
    day.since((jiff::Unit::Day, EPOCH)).map_or(0, |span| span.get_days())
}

const EPOCH: Date = date(1970, 1, 1);
