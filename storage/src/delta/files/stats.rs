//! Delta statistics of a lake file, taken from the statistics that the Parquet writer has just
//! computed over every row: nothing is estimated, and numbers are written digit by digit, because
//! a float would not hold 18 digits.
//!
//! Minima and maxima of texts are cut to [`TEXT_BYTES_MAX`] bytes, a maximum upward. `bool`,
//! `binary` and `float64` (whose NaN has no place in an order) have null counts only.

use std::fmt::Write;

use arrow_schema::{DataType, Schema};
use parquet::data_type::AsBytes;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::statistics::Statistics;

use crate::decimal::ExactDecimal;
use crate::error::{Error, Result};

/// Longest text in statistics.
pub(in crate::delta) const TEXT_BYTES_MAX: usize = 32;

/// Columns beyond this have no statistics, as other Delta writers do by default.
const COLUMNS_MAX: usize = 32;

/// The `stats` text of an `add`.
pub(in crate::delta) fn of_file(schema: &Schema, metadata: &ParquetMetaData) -> Result<String> {
    let rows: i64 = metadata.file_metadata().num_rows();
    let (mut minima, mut maxima, mut nulls) = (Object::new(), Object::new(), Object::new());
    for (index, field) in schema.fields().iter().enumerate().take(COLUMNS_MAX) {
        let column = of_column(metadata, index, field.data_type())?;
        if let Some((min, max)) = column.range {
            minima.put(field.name(), &min);
            maxima.put(field.name(), &max);
        }
        if let Some(count) = column.nulls {
            nulls.put(field.name(), &count.to_string());
        }
    }
    Ok(format!(
        "{{\"numRecords\":{rows},\"minValues\":{},\"maxValues\":{},\"nullCount\":{}}}",
        minima.end(),
        maxima.end(),
        nulls.end()
    ))
}

struct Column {
    /// As JSON.
    range: Option<(String, String)>,
    nulls: Option<u64>,
}

/// A value that can be compared, before it is written.
#[derive(PartialEq, PartialOrd)]
enum Value {
    Number(i128),
    Text(Vec<u8>),
}

fn of_column(metadata: &ParquetMetaData, index: usize, kind: &DataType) -> Result<Column> {
    let (mut range, mut nulls, mut whole): (Option<(Value, Value)>, _, _) = (None, Some(0), true);
    for group in metadata.row_groups() {
        let statistics = group.column(index).statistics();
        let group_nulls = statistics.and_then(Statistics::null_count_opt);
        nulls = nulls.zip(group_nulls).map(|(all, more)| all + more);
        let only_nulls = group_nulls.is_some_and(|nulls| i64::try_from(nulls) == Ok(group.num_rows()));
        match statistics.and_then(|statistics| values(statistics, kind)) {
            Some((min, max)) => {
                range = Some(match range.take() {
                    None => (min, max),
                    Some((low, high)) => (if min < low { min } else { low }, if max > high { max } else { high }),
                });
            }
            None if only_nulls => {}
            None => whole = false,
        }
    }
    let range = range.filter(|_| whole);
    let range = range.map(|(min, max)| Ok::<_, Error>((json(&min, kind)?, json(&max, kind)?))).transpose()?;
    Ok(Column { range, nulls })
}

fn values(statistics: &Statistics, kind: &DataType) -> Option<(Value, Value)> {
    let pair = |min: Option<i128>, max: Option<i128>| Some((Value::Number(min?), Value::Number(max?)));
    match (statistics, kind) {
        (_, DataType::Boolean | DataType::Binary | DataType::Float64) => None,
        (Statistics::Int32(found), _) => {
            pair(found.min_opt().map(|min| i128::from(*min)), found.max_opt().map(|max| i128::from(*max)))
        }
        (Statistics::Int64(found), _) => {
            pair(found.min_opt().map(|min| i128::from(*min)), found.max_opt().map(|max| i128::from(*max)))
        }
        (Statistics::FixedLenByteArray(found), DataType::Decimal128(..)) => {
            let number = |bytes: &[u8]| big_endian(bytes);
            pair(
                found.min_opt().and_then(|min| number(min.as_bytes())),
                found.max_opt().and_then(|max| number(max.as_bytes())),
            )
        }
        (Statistics::ByteArray(found), DataType::Utf8) => {
            let text = |bytes: &[u8]| (bytes.len() <= TEXT_BYTES_MAX + 4).then(|| Value::Text(bytes.to_vec()));
            Some((text(found.min_opt()?.as_bytes())?, text(found.max_opt()?.as_bytes())?))
        }
        _ => None,
    }
}

fn json(value: &Value, kind: &DataType) -> Result<String> {
    let bug = || Error::bug(format!("statistics of type {kind} hold another value"));
    Ok(match (value, kind) {
        (Value::Number(number), DataType::Int16 | DataType::Int32 | DataType::Int64) => number.to_string(),
        (Value::Number(number), DataType::Decimal128(_, scale)) => {
            ExactDecimal::new(*number, u8::try_from(*scale).map_err(|_| bug())?).to_string()
        }
        (Value::Number(number), DataType::Date32) => {
            let date = crate::delta::units::column::date_of_day(i64::try_from(*number).map_err(|_| bug())?)?;
            format!("\"{date}\"")
        }
        (Value::Number(number), DataType::Timestamp(..)) => moment_text(i64::try_from(*number).map_err(|_| bug())?)?,
        (Value::Text(bytes), _) => {
            let text = std::str::from_utf8(bytes).map_err(|_| bug())?;
            serde_json::to_string(text).map_err(|_| bug())?
        }
        _ => return Err(bug()),
    })
}

/// Microseconds since 1970 as JSON. By the calendar, because jiff's timestamps end some hours before
/// the year 9999 does, and tills write its last day as "no end".
fn moment_text(micros: i64) -> Result<String> {
    const DAY: i64 = 86_400_000_000;
    let date = crate::delta::units::column::date_of_day(micros.div_euclid(DAY))?;
    let (seconds, micros) = (micros.rem_euclid(DAY) / 1_000_000, micros.rem_euclid(1_000_000));
    Ok(format!("\"{date}T{:02}:{:02}:{:02}.{micros:06}Z\"", seconds / 3600, seconds / 60 % 60, seconds % 60))
}

fn big_endian(bytes: &[u8]) -> Option<i128> {
    if bytes.is_empty() || bytes.len() > 16 {
        return None;
    }
    let fill = if bytes[0] & 0x80 == 0 { 0 } else { 0xff };
    let mut padded = [fill; 16];
    padded[16 - bytes.len()..].copy_from_slice(bytes);
    Some(i128::from_be_bytes(padded))
}

/// A JSON object whose values are already JSON.
struct Object(String);

impl Object {
    fn new() -> Self {
        Self("{".to_owned())
    }

    fn put(&mut self, name: &str, json: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        // Column names are a-z, 0-9 and _: nothing to escape. Writing to a string cannot fail.
        let _ = write!(self.0, "\"{name}\":{json}");
    }

    fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}
