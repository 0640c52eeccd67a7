//! What a source says of its own days: the answer to an audit query.

use std::collections::BTreeMap;
use std::time::Duration;

use ribera_storage::batch::Facts;
use ribera_storage::dataset::{DatasetDefinition, DatasetKind};
use ribera_storage::hex::hex;
use ribera_storage::{Error, ExactDecimal, Result, Unit};
use serde::{Deserialize, Serialize};

use super::{Outcome, Session};
use crate::config::DatasetMapping;
use crate::sql::Statement;
use crate::value::{Rows, Value, date_of};

/// Count, sums and perhaps a hash of a unit's rows. Two that are equal mean that nothing changed,
/// as far as the source can tell.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Fingerprint {
    #[serde(flatten)]
    pub facts: Facts,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

/// Asks the audit query. Units without rows are absent from the answer of a daily dataset; any
/// other dataset answers with one unit, [`Unit::Table`]. `None`: the query took too long.
pub async fn fingerprints(
    session: &mut dyn Session,
    statement: &Statement<'_>,
    definition: &DatasetDefinition,
    mapping: &DatasetMapping,
    timeout: Duration,
) -> Result<Option<BTreeMap<Unit, Fingerprint>>> {
    let mut reader = AuditReader::new(definition, mapping);
    match session.query(statement, &mut reader, timeout).await? {
        Outcome::Done => Ok(Some(reader.found)),
        Outcome::TimedOut => Ok(None),
    }
}

#[derive(Clone)]
enum Meaning {
    Day,
    Rows,
    /// Audit column and what its source integers count (10^-scale).
    Sum(String, u8),
    Hash,
    /// Of a procedure: not ours.
    LeftOut,
}

struct AuditReader<'a> {
    definition: &'a DatasetDefinition,
    mapping: &'a DatasetMapping,
    meanings: Vec<Meaning>,
    unit: Option<Unit>,
    current: Fingerprint,
    refused: Option<String>,
    found: BTreeMap<Unit, Fingerprint>,
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
            found: BTreeMap::new(),
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
                self.current.facts.sums.insert(name.clone(), sum.normalized());
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
                Meaning::Day => "day".to_owned(),
                Meaning::Rows => "rows".to_owned(),
                Meaning::Hash => "hash".to_owned(),
                Meaning::LeftOut => return,
                Meaning::Sum(name, _) => name,
            };
            self.refused.get_or_insert(format!("{name}: {rule}, got {value}"));
        }
    }

    fn end_row(&mut self) -> Result<()> {
        if let Some(refused) = self.refused.take() {
            return Err(Error::data(format!("audit: {refused}")));
        }
        let unit = self.unit.take().unwrap_or(Unit::Table);
        let current = std::mem::take(&mut self.current);
        if self.found.insert(unit, current).is_some() {
            return Err(self.error("day", "must be grouped: one row per day", &format!("two rows for {unit}")));
        }
        Ok(())
    }
}

/// The day that a value of any of the sources' types means.
pub(crate) fn day_of(value: Value<'_>) -> Option<jiff::civil::Date> {
    match value {
        Value::Date(days) => date_of(days),
        Value::Local(micros) => date_of(i32::try_from(micros.div_euclid(crate::value::DAY_MICROS)).ok()?),
        Value::Text(text) => text.get(..10)?.parse().ok().filter(|_| text.len() == 10),
        _ => None,
    }
}

fn count_of(value: Value<'_>) -> Option<u64> {
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
        _ => Err("must be an exact number".to_owned()),
    }
}
