//! Units: what was last extracted of each day, moment or table, and what the lake holds of it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Date;
use ribera_storage::batch::UnitFacts;
use ribera_storage::{DatasetName, Result, StoreId, Unit};
use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde::Serialize;

use super::{Journal, execute, journal_error};
use crate::plan::{Event, LakeState, UnitRow};

const COLUMNS: &str = "unit, dataset_version, fingerprint, facts, closed, proven, final, stale, tries, batch, lake, \
                       extracted_at, doubted, refused, values_digest";

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

    /// The days before `before` that have to be looked at once more: stale ones, those not proven, those
    /// last extracted inside the lookback window, and refused ones.
    pub fn units_due_before(
        &self,
        store: &StoreId,
        dataset: &DatasetName,
        before: Date,
    ) -> Result<BTreeMap<Unit, UnitRow>> {
        self.units(
            "store = ? AND dataset = ? AND unit < ? AND (stale = 1 OR final = 0 OR (closed = 1 AND proven = 0)
                 OR refused IS NOT NULL)",
            params![store.as_str(), dataset.as_str(), before.to_string()],
        )
    }

    /// True if a unit is marked to be extracted again and was tried fewer than `tries_max` times.
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
            "store = ? AND dataset = ? AND (lake IN ('differs', 'quarantined') OR (proven = 0 AND closed = 1)
                 OR refused IS NOT NULL)",
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
            let stream = Stream { store, dataset };
            for facts in units {
                if read_unit(transaction, stream, facts.unit)?.is_some() {
                    continue;
                }
                let lost = UnitRow {
                    dataset_version,
                    facts: facts.file.clone(),
                    closed: facts.closed,
                    ..UnitRow::new(facts.unit, facts.extracted_at)
                };
                write_unit(transaction, stream, &lost.after(Event::Lost, facts.extracted_at))?;
            }
            Ok(())
        })
    }

    /// Notes that a unit's rows cannot be sent as they are. True: the lake may call it complete all the same,
    /// which has to be published.
    pub fn refuse(
        &self,
        store: &StoreId,
        dataset: &DatasetName,
        unit: Unit,
        refused: Event,
        now: Timestamp,
    ) -> Result<bool> {
        self.transaction(|transaction| {
            let changed = change(transaction, Stream { store, dataset }, unit, refused, now)?;
            Ok(changed.doubted)
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
        lake: lake_state(&row.get::<_, String>(10)?),
        extracted_at: parsed(row, 11)?,
        doubted: row.get(12)?,
        refused: row.get::<_, Option<String>>(13)?.and_then(|text| serde_json::from_str(&text).ok()),
        values_digest: row.get(14)?,
    })
}

fn lake_state(text: &str) -> LakeState {
    match text {
        "agrees" => LakeState::Agrees,
        "differs" => LakeState::Differs,
        "quarantined" => LakeState::Quarantined,
        _ => LakeState::Waiting,
    }
}

/// One dataset of one store.
#[derive(Clone, Copy)]
pub(super) struct Stream<'a> {
    pub(super) store: &'a StoreId,
    pub(super) dataset: &'a DatasetName,
}

/// Puts a unit, known or not, into the state after `event`, which is returned.
pub(super) fn change(
    transaction: &Transaction<'_>,
    stream: Stream<'_>,
    unit: Unit,
    event: Event,
    now: Timestamp,
) -> rusqlite::Result<UnitRow> {
    let known = read_unit(transaction, stream, unit)?.unwrap_or_else(|| UnitRow::new(unit, now));
    let changed = known.after(event, now);
    write_unit(transaction, stream, &changed)?;
    Ok(changed)
}

/// Applies `event` to each known unit of a stream that meets `condition`. Returns their number.
pub(super) fn change_known(
    transaction: &Transaction<'_>,
    stream: Stream<'_>,
    condition: &str,
    parameters: &[&dyn rusqlite::ToSql],
    event: &Event,
    now: Timestamp,
) -> rusqlite::Result<usize> {
    let (store, dataset) = (stream.store.as_str(), stream.dataset.as_str());
    let mut all: Vec<&dyn rusqlite::ToSql> = vec![&store, &dataset];
    all.extend_from_slice(parameters);
    let sql = format!("SELECT {COLUMNS} FROM unit WHERE store = ? AND dataset = ? AND {condition}");
    let known: Vec<UnitRow> =
        transaction.prepare_cached(&sql)?.query_map(&*all, unit_row)?.collect::<rusqlite::Result<_>>()?;
    let count = known.len();
    for row in known {
        // What is known of the rows is as old as before.
        let at = row.extracted_at;
        write_unit(transaction, stream, &UnitRow { extracted_at: at, ..row.after(event.clone(), now) })?;
    }
    Ok(count)
}

fn read_unit(transaction: &Transaction<'_>, stream: Stream<'_>, unit: Unit) -> rusqlite::Result<Option<UnitRow>> {
    transaction
        .prepare_cached(&format!("SELECT {COLUMNS} FROM unit WHERE store = ? AND dataset = ? AND unit = ?"))?
        .query_row([stream.store.as_str(), stream.dataset.as_str(), &unit.to_string()], unit_row)
        .optional()
}

fn write_unit(transaction: &Transaction<'_>, stream: Stream<'_>, row: &UnitRow) -> rusqlite::Result<()> {
    let refused = row.refused.as_ref().map(to_json).transpose()?;
    execute(
        transaction,
        &format!("INSERT OR REPLACE INTO unit (store, dataset, {COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"),
        params![
            stream.store.as_str(),
            stream.dataset.as_str(),
            row.unit.to_string(),
            row.dataset_version,
            to_json(&row.fingerprint)?,
            to_json(&row.facts)?,
            row.closed,
            row.proven,
            row.is_final,
            row.stale,
            row.tries,
            row.batch,
            row.lake.as_str(),
            row.extracted_at.to_string(),
            row.doubted,
            refused,
            row.values_digest
        ],
    )
    .map(drop)
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
