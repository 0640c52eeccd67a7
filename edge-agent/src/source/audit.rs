//! What a source says of its own days: the answer to an audit query.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use ribera_storage::dataset::{Column, ColumnType, DatasetDefinition, DatasetKind};
use ribera_storage::hex::hex;
use ribera_storage::{Error, ExactDecimal, Result, Unit};

use super::{Outcome, Session};
use crate::calendar::date_of;
use crate::config::DatasetMapping;
use crate::plan::Fingerprint;
use crate::source::{Rows, Value};
use crate::sql::Statement;

/// What a source says of its units, and of which units it cannot say it, and why.
#[derive(Debug, Default)]
pub struct Answer {
    pub found: BTreeMap<Unit, Fingerprint>,
    pub refused: BTreeMap<Unit, Error>,
}

/// Asks the audit query. Units without rows are absent from the answer of a daily dataset; any
/// other dataset answers with one unit, [`Unit::Table`]. `clocks` are the moments whose offsets in `zone` the
/// session's clock shall have, one after the other. `None`: the query took too long.
pub async fn fingerprints(
    session: &mut dyn Session,
    statement: &Statement<'_>,
    definition: &DatasetDefinition,
    mapping: &DatasetMapping,
    timeout: Duration,
    zone: &TimeZone,
    clocks: &[Timestamp],
) -> Result<Option<Answer>> {
    let mut first: Option<Answer> = None;
    for at in clocks {
        session.enter_zone(zone, *at).await?;
        let mut reader = AuditReader::new(definition, mapping);
        if session.query(statement, &mut reader, timeout).await? == Outcome::TimedOut {
            return Ok(None);
        }
        match &mut first {
            None => first = Some(reader.answer),
            Some(first) => first.refuse_other(&reader.answer, definition, zone),
        }
    }
    Ok(Some(first.unwrap_or_default()))
}

impl Answer {
    /// Refuses units that are others by another offset of the session's clock: neither is the store's day.
    fn refuse_other(&mut self, other: &Self, definition: &DatasetDefinition, zone: &TimeZone) {
        let units: BTreeSet<Unit> = self.found.keys().chain(other.found.keys()).copied().collect();
        let zone = zone.iana_name().unwrap_or("the store's zone");
        // Count and sums only: a hash of moments as text is another by another clock.
        let facts = |answer: &Self, unit: &Unit| answer.found.get(unit).map(|found| found.facts.clone());
        let moved: Vec<Unit> = units.into_iter().filter(|unit| facts(self, unit) != facts(other, unit)).collect();
        for unit in moved {
            self.found.remove(&unit);
            self.refused.insert(
                unit,
                Error::data(format!(
                    "adapter: {}.date: the clock of {zone} changes on {unit}, and the server converts moments by one offset a day: \
                     write date = \"DATE(CONVERT_TZ(column, @@session.time_zone, '{zone}'))\", with the server's zone tables loaded",
                    definition.name
                )),
            );
        }
    }
}

#[derive(Clone)]
enum Meaning {
    Day,
    Rows,
    /// Audit column and what its source integers count (10^-scale).
    Sum(String, u8),
    Hash,
    /// A column of a procedure that the audit does not use.
    LeftOut,
}

struct AuditReader<'a> {
    definition: &'a DatasetDefinition,
    mapping: &'a DatasetMapping,
    meanings: Vec<Meaning>,
    unit: Option<Unit>,
    current: Fingerprint,
    refused: Option<String>,
    no_day: Option<String>,
    answer: Answer,
}

impl<'a> AuditReader<'a> {
    fn new(definition: &'a DatasetDefinition, mapping: &'a DatasetMapping) -> Self {
        Self {
            definition,
            mapping,
            meanings: Vec::new(),
            unit: None,
            current: Fingerprint::default(),
            refused: None,
            no_day: None,
            answer: Answer::default(),
        }
    }

    fn daily(&self) -> bool {
        self.definition.kind == DatasetKind::Daily
    }

    fn meaning(&self, name: &str) -> Result<Meaning> {
        Ok(match self.mapping.audit_column_of(name) {
            "day" if self.daily() => Meaning::Day,
            "rows" => Meaning::Rows,
            "hash" => Meaning::Hash,
            name if self.definition.audit_sums.iter().any(|sum| sum == name) => {
                let scale = self.mapping.columns.get(name).and_then(|options| options.scale).unwrap_or(0);
                Meaning::Sum(name.to_owned(), scale)
            }
            _ if self.mapping.leaves_out_audit_columns() => Meaning::LeftOut,
            _ => {
                return Err(self.error(name, "result columns must be day, rows, hash or one of audit_sums", "another"));
            }
        })
    }

    fn error(&self, column: &str, rule: &str, got: &str) -> Error {
        Error::config(format!("adapter: {}.audit: {column}: {rule}, got {got}", self.definition.name))
    }

    fn take(&mut self, meaning: &Meaning, value: Value<'_>) -> Result<(), String> {
        match meaning {
            Meaning::Day => self.unit = Some(Unit::Day(day_of(value).ok_or("must be a date")?)),
            Meaning::Rows => self.current.facts.rows = count_of(value).ok_or("must be a count")?,
            Meaning::Hash => self.current.hash = hash_of(value),
            Meaning::LeftOut => {}
            Meaning::Sum(name, scale) => {
                let sum = exact(value)?;
                let shifted = match scale {
                    0 => Some(sum),
                    _ => sum.rescale(0).map(|whole| ExactDecimal::new(whole.unscaled(), *scale)),
                };
                let sum = shifted.ok_or_else(|| format!("must be a whole number that counts 10^-{scale}"))?;
                // With the digits of the column: people read an amount of 54.20 as it is written.
                let digits = self.definition.column(name).map_or(0, scale_of);
                let sum = sum.rescale(digits).unwrap_or_else(|| sum.normalized());
                self.current.facts.sums.insert(name.clone(), sum);
            }
        }
        Ok(())
    }
}

impl Rows for AuditReader<'_> {
    fn begin(&mut self, names: &[String]) -> Result<()> {
        self.meanings = names.iter().map(|name| self.meaning(name)).collect::<Result<_>>()?;
        let has = |wanted: &str| names.iter().any(|name| self.mapping.audit_column_of(name) == wanted);
        for wanted in self.definition.audit_sums.iter().map(String::as_str).chain(["rows"]) {
            if !has(wanted) {
                return Err(self.error(wanted, "must be a result column", "none of that name"));
            }
        }
        if self.daily() && !has("day") {
            return Err(self.error("day", "must be a result column", "none of that name"));
        }
        Ok(())
    }

    fn value(&mut self, index: usize, value: Value<'_>) {
        let meaning = self.meanings[index].clone();
        if let Err(rule) = self.take(&meaning, value) {
            let name = match meaning {
                // No single day is concerned: what has no day is in the answer of none.
                Meaning::Day => {
                    self.no_day.get_or_insert_with(|| value.to_string());
                    return;
                }
                Meaning::Rows => "rows".to_owned(),
                Meaning::Hash => "hash".to_owned(),
                Meaning::LeftOut => return,
                Meaning::Sum(name, _) => name,
            };
            self.refused.get_or_insert(format!("{name}: {rule}, got {value}"));
        }
    }

    fn end_row(&mut self) -> Result<()> {
        if let Some(got) = self.no_day.take() {
            let date = self.mapping.date.as_deref().unwrap_or("day");
            return Err(Error::config(format!(
                "adapter: {}.date: must be a day of the calendar, a date or text such as 2017-05-08, in every row; got {got} of {date:?}",
                self.definition.name
            )));
        }
        let unit = self.unit.take().unwrap_or(Unit::Table);
        let current = std::mem::take(&mut self.current);
        // It spoils the day that it is of, and no other.
        if let Some(refused) = self.refused.take() {
            self.answer.refused.insert(unit, Error::data(format!("audit of {unit}: {refused}")));
            return Ok(());
        }
        if self.answer.found.insert(unit, current).is_some() {
            return Err(self.error("day", "must be grouped: one row per day", &format!("two rows for {unit}")));
        }
        Ok(())
    }
}

/// The day that a value of any of the sources' types means.
pub(crate) fn day_of(value: Value<'_>) -> Option<jiff::civil::Date> {
    match value {
        Value::Date(days) => date_of(days),
        // A moment within a day is no day: as such it compares with no day's name.
        Value::Local(micros) if micros % crate::calendar::DAY_MICROS == 0 => {
            date_of(i32::try_from(micros / crate::calendar::DAY_MICROS).ok()?)
        }
        Value::Text(text) => text.get(..10)?.parse().ok().filter(|_| text.len() == 10),
        _ => None,
    }
}

fn scale_of(column: &Column) -> u8 {
    match column.column_type {
        ColumnType::Decimal { scale, .. } => scale,
        _ => 0,
    }
}

/// A count, in any of the types that sources give one.
pub(crate) fn count_of(value: Value<'_>) -> Option<u64> {
    match value {
        Value::Int(count) => u64::try_from(count).ok(),
        Value::UInt(count) => Some(count),
        Value::Text(text) | Value::Digits(text) => text.parse().ok(),
        Value::Decimal(count) => count.rescale(0).and_then(|whole| u64::try_from(whole.unscaled()).ok()),
        _ => None,
    }
}

fn hash_of(value: Value<'_>) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Text(text) => Some(text.to_owned()),
        Value::Bytes(bytes) => Some(hex(bytes)),
        other => Some(other.to_string()),
    }
}

fn exact(value: Value<'_>) -> Result<ExactDecimal, String> {
    match value {
        Value::Null => Ok(ExactDecimal::ZERO),
        Value::Int(number) => Ok(ExactDecimal::new(number.into(), 0)),
        Value::UInt(number) => Ok(ExactDecimal::new(number.into(), 0)),
        Value::Decimal(number) => Ok(number),
        Value::Text(text) | Value::Digits(text) => text.parse().map_err(|_| "must be an exact number".to_owned()),
        Value::Float(_) => {
            Err("must be exact, not a float (declare `round` for the column, or cast it in the query)".to_owned())
        }
        Value::LargeMoney(_) => {
            Err("must be money below 112589990684.2624, or SUM(CAST(column AS decimal(19,4))) in the query".to_owned())
        }
        _ => Err("must be an exact number".to_owned()),
    }
}
