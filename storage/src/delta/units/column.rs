//! Units as the numbers that the unit column of a file holds: days since 1970, microseconds since
//! 1970, or one unit for all rows.

use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, SchemaRef};
use jiff::Timestamp;
use jiff::civil::{Date, date};

use crate::dataset::{DatasetDefinition, STORE_COLUMN};
use crate::error::{Error, Result};
use crate::ids::Unit;

const EPOCH: Date = date(1970, 1, 1);

/// Rows of one unit that follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::delta) struct UnitRun<'a> {
    pub store: &'a str,
    pub number: i64,
    pub rows: Range<usize>,
}

/// Where the units of a file's rows stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::delta) enum UnitColumn {
    /// No column: every row belongs to the one unit.
    Whole,
    Day(usize),
    Moment(usize),
}

impl UnitColumn {
    pub(in crate::delta) fn of(dataset: &DatasetDefinition, schema: &SchemaRef) -> Result<Self> {
        let Some(name) = dataset.unit_column() else { return Ok(Self::Whole) };
        let absent = |_| Error::data(format!("dataset {}: the file has no column {name}", dataset.name));
        let index = schema.index_of(name).map_err(absent)?;
        match schema.field(index).data_type() {
            DataType::Date32 => Ok(Self::Day(index)),
            DataType::Timestamp(..) => Ok(Self::Moment(index)),
            other => Err(Error::data(format!("dataset {}: column {name} names units, got type {other}", dataset.name))),
        }
    }

    /// The number of every row's unit; an error when a row has none.
    pub(in crate::delta) fn numbers(self, batch: &RecordBatch) -> Result<Vec<i64>> {
        let no_nulls = |array: &dyn Array| match array.null_count() {
            0 => Ok(()),
            nulls => Err(Error::reject(format!("unit column: must not be NULL, got {nulls} rows without"))),
        };
        match self {
            Self::Whole => Ok(vec![0; batch.num_rows()]),
            Self::Day(index) => {
                let array = batch.column(index).as_primitive_opt::<Date32Type>().ok_or_else(other_type)?;
                no_nulls(array)?;
                Ok(array.values().iter().map(|day| i64::from(*day)).collect())
            }
            Self::Moment(index) => {
                let array =
                    batch.column(index).as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(other_type)?;
                no_nulls(array)?;
                Ok(array.values().to_vec())
            }
        }
    }

    /// Runs of rows of a lake file that belong to the same unit of the same store. An error when a row
    /// has none.
    pub(in crate::delta) fn runs(self, batch: &RecordBatch) -> Result<Vec<UnitRun<'_>>> {
        let numbers = self.numbers(batch)?;
        let stores = batch.column_by_name(STORE_COLUMN).and_then(|column| column.as_string_opt::<i32>());
        let stores = stores.filter(|stores| stores.null_count() == 0);
        let stores =
            stores.ok_or_else(|| Error::data(format!("column {STORE_COLUMN}: must name the store of every row")))?;
        let mut runs: Vec<UnitRun<'_>> = Vec::new();
        for (row, number) in numbers.into_iter().enumerate() {
            let store = stores.value(row);
            match runs.last_mut() {
                Some(last) if last.number == number && last.store == store => last.rows.end = row + 1,
                _ => runs.push(UnitRun { store, number, rows: row..row + 1 }),
            }
        }
        Ok(runs)
    }

    /// The unit that `number` stands for.
    pub(in crate::delta) fn unit(self, number: i64) -> Result<Unit> {
        Ok(match self {
            Self::Whole => Unit::Table,
            Self::Day(_) => Unit::Day(date_of_day(number)?),
            Self::Moment(_) => Unit::Moment(
                Timestamp::from_microsecond(number)
                    .map_err(|error| Error::data(format!("moment {number}: out of range")).with_source(error))?,
            ),
        })
    }
}

/// The number that stands for `unit`.
pub(in crate::delta) fn number_of(unit: Unit) -> i64 {
    match unit {
        Unit::Table => 0,
        Unit::Day(day) => day.duration_since(EPOCH).as_hours() / 24,
        Unit::Moment(moment) => moment.as_microsecond(),
    }
}

pub(in crate::delta) fn date_of_day(days: i64) -> Result<Date> {
    jiff::Span::new()
        .try_days(days)
        .and_then(|span| EPOCH.checked_add(span))
        .map_err(|error| Error::data(format!("day {days} since 1970: out of range")).with_source(error))
}

fn other_type() -> Error {
    Error::data("unit column: has another type than its schema says")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_their_numbers_are_inverse_over_the_calendar() {
        for (text, number) in [("1970-01-01", 0), ("1969-12-31", -1), ("2024-02-29", 19_782), ("0001-01-01", -719_162)]
        {
            let day: Date = text.parse().unwrap();
            assert_eq!(number_of(Unit::Day(day)), number);
            assert_eq!(date_of_day(number).unwrap(), day);
        }
        assert!(date_of_day(i64::MAX).is_err());
    }
}
