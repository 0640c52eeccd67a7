//! Which unit each row belongs to: rows lie in the order of the manifest's units.

use std::ops::Range;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, TimestampMicrosecondType};
use ribera_storage::Unit;
use ribera_storage::batch::{Manifest, QuarantineReason};
use ribera_storage::dataset::DatasetDefinition;

use super::values::{date_text, days_since_epoch, timestamp_text};
use crate::ingest::refusal::Refusal;

/// Consecutive rows of one unit.
pub struct UnitRun {
    /// Index into the manifest's units.
    pub unit: usize,
    pub rows: Range<usize>,
    pub begins_unit: bool,
}

pub struct UnitCursor {
    column: Option<usize>,
    name: String,
    /// The manifest's units as the column's raw values, in order.
    raw: Vec<i64>,
    current: Option<usize>,
}

impl UnitCursor {
    pub fn new(definition: &DatasetDefinition, manifest: &Manifest) -> Result<Self, Refusal> {
        let raw = manifest.units.iter().map(|facts| raw_value(facts.unit)).collect::<Result<_, _>>()?;
        let name = definition.unit_column();
        let column = name.and_then(|name| definition.columns.iter().position(|column| column.name == name));
        Ok(Self { column, name: name.unwrap_or_default().to_owned(), raw, current: None })
    }

    /// The runs of a batch; the unit column holds no NULL.
    pub fn runs(&mut self, batch: &RecordBatch, rows_before: u64) -> Result<Vec<UnitRun>, Refusal> {
        let Some(column) = self.column else {
            return Ok(self.enter(0, 0..batch.num_rows()).into_iter().collect());
        };
        let array = batch.column(column);
        if let Some(dates) = array.as_primitive_opt::<Date32Type>() {
            return self.split(dates.values(), rows_before);
        }
        match array.as_primitive_opt::<TimestampMicrosecondType>() {
            Some(moments) => self.split(moments.values(), rows_before),
            None => Err(Refusal::schema(format!("column {}: must be a date or timestamp", self.name))),
        }
    }

    fn split<T: Copy + PartialEq + Into<i64>>(
        &mut self,
        values: &[T],
        rows_before: u64,
    ) -> Result<Vec<UnitRun>, Refusal> {
        let mut runs = Vec::new();
        let mut start = 0;
        while let Some(first) = values.get(start) {
            let length = values[start..].iter().position(|value| value != first).unwrap_or(values.len() - start);
            let unit = self.locate((*first).into(), rows_before + start as u64 + 1)?;
            runs.extend(self.enter(unit, start..start + length));
            start += length;
        }
        Ok(runs)
    }

    fn enter(&mut self, unit: usize, rows: Range<usize>) -> Option<UnitRun> {
        let begins_unit = self.current != Some(unit);
        self.current = Some(unit);
        (!rows.is_empty()).then_some(UnitRun { unit, rows, begins_unit })
    }

    fn locate(&self, value: i64, row: u64) -> Result<usize, Refusal> {
        let outside = |rule: &str| {
            Refusal::new(
                QuarantineReason::DateOutsideBatch,
                format!("column {}: {rule}, got {} in row {row}", self.name, self.text(value)),
            )
        };
        match self.raw.binary_search(&value) {
            Err(_) => Err(outside("must be one of the batch's units")),
            Ok(unit) if self.current.is_some_and(|current| unit < current) => {
                Err(outside("must not go back: rows lie in the order of the units"))
            }
            Ok(unit) => Ok(unit),
        }
    }

    fn text(&self, value: i64) -> String {
        match i32::try_from(value) {
            Ok(days) => date_text(days),
            Err(_) => timestamp_text(value),
        }
    }
}

fn raw_value(unit: Unit) -> Result<i64, Refusal> {
    match unit {
        Unit::Table => Ok(0),
        Unit::Day(date) => Ok(i64::from(days_since_epoch(date))),
        Unit::Moment(moment) if moment.as_nanosecond() % 1000 == 0 => Ok(moment.as_microsecond()),
        Unit::Moment(moment) => Err(Refusal::new(
            QuarantineReason::ManifestInvalid,
            format!("manifest: units: a moment must be whole microseconds, got {moment}"),
        )),
    }
}
