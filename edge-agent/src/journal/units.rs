//! Units: what was last extracted of each day, moment or table, and what the lake holds of it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Date;
use ribera_storage::batch::{Facts, UnitFacts};
use ribera_storage::{DatasetName, Result, StoreId, Unit};
use rusqlite::types::Type;
use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};

use super::{Journal, execute, journal_error};
use crate::source::Fingerprint;

/// What the agent knows of one unit.
#[derive(Debug, Clone, PartialEq)]
pub struct UnitRow {
    pub unit: Unit,
    pub dataset_version: u32,
    pub fingerprint: Fingerprint,
    /// Of the file last extracted.
    pub facts: Facts,
    pub closed: bool,
    pub proven: bool,
    /// Extracted after it had left the lookback window: looked at no more.
    pub is_final: bool,
    /// To be extracted again, whatever its fingerprint says.
    pub stale: bool,
    /// Extractions in a row that were not proven or that the lake did not take over.
    pub tries: u32,
    pub batch: i64,
    pub lake: LakeState,
    pub extracted_at: Timestamp,
}

/// What the lake said of the unit's last batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LakeState {
    /// Nothing yet.
    Waiting,
    /// It holds what was sent.
    Agrees,
    /// It holds something else.
    Differs,
    /// It refused the batch.
    Quarantined,
}

impl LakeState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Agrees => "agrees",
            Self::Differs => "differs",
            Self::Quarantined => "quarantined",
        }
    }

    fn parse(text: &str) -> Self {
        match text {
            "agrees" => Self::Agrees,
            "differs" => Self::Differs,
            "quarantined" => Self::Quarantined,
            _ => Self::Waiting,
        }
    }
}

const COLUMNS: &str =
    "unit, dataset_version, fingerprint, facts, closed, proven, final, stale, tries, batch, lake, extracted_at";

impl Journal {
    /// The known units of the days `from` to `to`.
    pub fn units_between(
        &self,
        store: &StoreId,
        dataset: &DatasetName,
        from: Date,
        to: Date,
    ) -> Result<BTreeMap<Unit, UnitRow>> {
        self.units(
            "store = ? AND dataset = ? AND unit BETWEEN ? AND ?",
            params![store.as_str(), dataset.as_str(), from.to_string(), to.to_string()],
        )
    }

    /// The days before `before` that have to be extracted once more: stale ones, those not proven,
    /// and those last extracted inside the lookback window.
    pub fn units_due_before(
        &self,
        store: &StoreId,
        dataset: &DatasetName,
        before: Date,
    ) -> Result<BTreeMap<Unit, UnitRow>> {
        self.units(
            "store = ? AND dataset = ? AND unit < ? AND (stale = 1 OR final = 0 OR (closed = 1 AND proven = 0))",
            params![store.as_str(), dataset.as_str(), before.to_string()],
        )
    }

    /// Whether a unit waits to be extracted once more that may be tried: so often it was not yet.
    pub fn has_stale(&self, store: &StoreId, dataset: &DatasetName, tries_max: u32) -> Result<bool> {
        self.connection
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM unit WHERE store = ? AND dataset = ? AND stale AND tries < ?)",
            )
            .and_then(|mut statement| {
                statement.query_row(params![store.as_str(), dataset.as_str(), tries_max], |row| row.get(0))
            })
            .map_err(journal_error)
    }

    /// All known units of a stream.
    pub fn all_units(&self, store: &StoreId, dataset: &DatasetName) -> Result<BTreeMap<Unit, UnitRow>> {
        self.units("store = ? AND dataset = ?", params![store.as_str(), dataset.as_str()])
    }

    /// The latest unit of a stream, such as its last snapshot's moment.
    pub fn last_unit(&self, store: &StoreId, dataset: &DatasetName) -> Result<Option<Unit>> {
        let last: Option<String> = self
            .connection
            .query_row(
                "SELECT MAX(unit) FROM unit WHERE store = ? AND dataset = ?",
                [store.as_str(), dataset.as_str()],
                |row| row.get(0),
            )
            .map_err(journal_error)?;
        last.map(|text| text.parse()).transpose()
    }

    /// The units whose last batch is `batch`, with the tries they had.
    pub fn all_units_of_batch(&self, batch: i64) -> Result<Vec<(Unit, u32)>> {
        let mut statement =
            self.connection.prepare_cached("SELECT unit, tries FROM unit WHERE batch = ?").map_err(journal_error)?;
        let rows = statement.query_map([batch], |row| Ok((parsed(row, 0)?, row.get(1)?))).map_err(journal_error)?;
        rows.map(|row| row.map_err(journal_error)).collect()
    }

    /// Whether the lake refused or altered units of these, or some are not proven.
    pub fn troubled_units(&self, store: &StoreId, dataset: &DatasetName) -> Result<BTreeMap<Unit, UnitRow>> {
        self.units(
            "store = ? AND dataset = ? AND (lake IN ('differs', 'quarantined') OR (proven = 0 AND closed = 1))",
            params![store.as_str(), dataset.as_str()],
        )
    }

    /// Notes units of which only the file in the spool is known, as lost: they are extracted again.
    pub fn note_lost_units(
        &self,
        store: &StoreId,
        dataset: &DatasetName,
        dataset_version: u32,
        units: &[UnitFacts],
    ) -> Result<()> {
        self.transaction(|transaction| {
            for facts in units {
                execute(transaction, "INSERT INTO unit (store, dataset, unit, dataset_version, fingerprint, facts, closed, proven, final,
                                       stale, tries, batch, lake, extracted_at)
                     VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0, 1, 0, 0, 'waiting', ?) ON CONFLICT DO NOTHING",
                    params![
                        store.as_str(),
                        dataset.as_str(),
                        facts.unit.to_string(),
                        dataset_version,
                        to_json(&Fingerprint::default())?,
                        to_json(&facts.file)?,
                        facts.closed,
                        facts.extracted_at.to_string()
                    ],
                )?;
            }
            Ok(())
        })
    }

    /// Forgets the facts of units extracted before `before`, but for those of batches under way.
    pub fn forget_units(&self, before: Timestamp) -> Result<()> {
        const OLD: &str = "extracted_at < ? AND batch NOT IN (SELECT id FROM batch WHERE state <> 'acked')";
        let before = before.to_string();
        let some: bool = self
            .connection
            .prepare_cached(&format!("SELECT EXISTS (SELECT 1 FROM unit WHERE {OLD})"))
            .and_then(|mut statement| statement.query_row([&before], |row| row.get(0)))
            .map_err(journal_error)?;
        if !some {
            return Ok(());
        }
        self.transaction(|transaction| {
            execute(transaction, &format!("DELETE FROM unit WHERE {OLD}"), [&before])?;
            execute(
                transaction,
                "DELETE FROM batch WHERE state = 'acked' AND updated_at < ? AND id NOT IN (SELECT batch FROM unit)",
                [&before],
            )?;
            execute(transaction, "DELETE FROM batch_unit WHERE batch NOT IN (SELECT id FROM batch)", [])
        })?;
        Ok(())
    }

    fn units(&self, condition: &str, parameters: &[&dyn rusqlite::ToSql]) -> Result<BTreeMap<Unit, UnitRow>> {
        let mut statement = self
            .connection
            .prepare_cached(&format!("SELECT {COLUMNS} FROM unit WHERE {condition}"))
            .map_err(journal_error)?;
        let rows = statement.query_map(parameters, unit_row).map_err(journal_error)?;
        rows.map(|row| row.map(|row| (row.unit, row)).map_err(journal_error)).collect()
    }
}

fn unit_row(row: &Row<'_>) -> rusqlite::Result<UnitRow> {
    Ok(UnitRow {
        unit: parsed(row, 0)?,
        dataset_version: row.get(1)?,
        fingerprint: json(row, 2)?,
        facts: json(row, 3)?,
        closed: row.get(4)?,
        proven: row.get(5)?,
        is_final: row.get(6)?,
        stale: row.get(7)?,
        tries: row.get(8)?,
        batch: row.get(9)?,
        lake: LakeState::parse(&row.get::<_, String>(10)?),
        extracted_at: parsed(row, 11)?,
    })
}

pub(super) fn parsed<T: std::str::FromStr>(row: &Row<'_>, index: usize) -> rusqlite::Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: String = row.get(index)?;
    text.parse().map_err(|error| rusqlite::Error::FromSqlConversionFailure(index, Type::Text, Box::new(error)))
}

pub(super) fn json<T: serde::de::DeserializeOwned>(row: &Row<'_>, index: usize) -> rusqlite::Result<T> {
    let text: String = row.get(index)?;
    serde_json::from_str(&text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(index, Type::Text, Box::new(error)))
}

pub(super) fn to_json<T: Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}
