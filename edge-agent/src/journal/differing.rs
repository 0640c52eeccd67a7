//! Units that the lake may call complete although the source has moved on.

use std::collections::BTreeMap;

use jiff::Timestamp;
use ribera_storage::batch::{Differing, DifferingUnit};
use ribera_storage::ids::Position;
use ribera_storage::{DatasetName, Result, StoreId, Unit};
use rusqlite::params;

use super::units::{Stream, change_known, parsed, to_json};
use super::{Journal, journal_error};
use crate::plan::Event;

impl Journal {
    /// Notes that `units` were found to differ from what was extracted: they are stale, and
    /// doubted where they had been proven after closing. False when there were none of those, and
    /// nothing was written.
    pub fn note_differing(
        &self,
        store: &StoreId,
        dataset: &DatasetName,
        units: &[Unit],
        now: Timestamp,
    ) -> Result<bool> {
        let names: Vec<String> = units.iter().map(Unit::to_string).collect();
        let names = to_json(&names).map_err(journal_error)?;
        const SETTLED: &str = "closed AND proven AND unit IN (SELECT value FROM json_each(?))";
        let known = params![store.as_str(), dataset.as_str(), names];
        let some: bool = self
            .connection
            .prepare_cached(&format!(
                "SELECT EXISTS (SELECT 1 FROM unit WHERE store = ? AND dataset = ? AND {SETTLED})"
            ))
            .and_then(|mut statement| statement.query_row(known, |row| row.get(0)))
            .map_err(journal_error)?;
        if some {
            self.transaction(|transaction| {
                let stream = Stream { store, dataset };
                change_known(transaction, stream, SETTLED, &[&names], &Event::FoundDiffering, now).map(drop)
            })?;
        }
        Ok(some)
    }

    /// The doubted units of a stream with the position that ends the doubt: past every batch of
    /// the unit that has a number, unless that batch is the newest extraction itself. Nothing
    /// before the stream's first epoch is claimed.
    pub fn differing(&self, store: &StoreId, dataset: &DatasetName) -> Result<Differing> {
        let Some(next) = self.stream(store, dataset)? else { return Ok(Differing::default()) };
        // Nearly always there is none, and this is asked before each upload.
        let any: bool = self
            .connection
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM unit WHERE store = ? AND dataset = ? AND doubted)")
            .and_then(|mut statement| statement.query_row([store.as_str(), dataset.as_str()], |row| row.get(0)))
            .map_err(journal_error)?;
        if !any {
            return Ok(Differing::default());
        }
        let begin = Position { epoch: next.epoch, sequence: 0 };
        let mut awaits: BTreeMap<Unit, Position> = BTreeMap::new();
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT unit.unit, batch.epoch, batch.sequence, batch.id = unit.batch AND NOT unit.stale AND unit.refused IS NULL
                 FROM unit LEFT JOIN (batch_unit JOIN batch ON batch.id = batch_unit.batch AND batch.epoch IS NOT NULL)
                      ON batch_unit.unit = unit.unit AND batch.store = unit.store AND batch.dataset = unit.dataset
                 WHERE unit.store = ? AND unit.dataset = ? AND unit.doubted",
            )
            .map_err(journal_error)?;
        let mut rows = statement.query([store.as_str(), dataset.as_str()]).map_err(journal_error)?;
        while let Some(row) = rows.next().map_err(journal_error)? {
            let read = || -> rusqlite::Result<(Unit, Option<Position>)> {
                let Some(epoch) = row.get(1)? else { return Ok((parsed(row, 0)?, None)) };
                let sequence: u64 = row.get(2)?;
                let is_newest: bool = row.get(3)?;
                Ok((parsed(row, 0)?, Some(Position { epoch, sequence: sequence + u64::from(!is_newest) })))
            };
            let (unit, sent) = read().map_err(journal_error)?;
            let found = awaits.entry(unit).or_insert(begin);
            *found = (*found).max(sent.unwrap_or(begin));
        }
        Ok(Differing { units: awaits.into_iter().map(|(unit, awaits)| DifferingUnit { unit, awaits }).collect() })
    }
}
