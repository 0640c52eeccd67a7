//! Units that the agent abandoned: refused, not proven, or not in the lake as sent, and not tried again by
//! itself. What was told of them is noted, so that each is told once.

use std::collections::BTreeMap;

use jiff::Timestamp;
use ribera_storage::heartbeat::{AuditAlarm, Trouble};
use ribera_storage::{DatasetName, Result, StoreId, Unit};
use rusqlite::{OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::units::{json, parsed};
use super::{Journal, journal_error};
use crate::plan::{Fingerprint, Refusal, TRIES_MAX};

/// The key of the alarms that stand.
const NOTED: &str = "alarms";

/// The state at a past moment cannot be had again: a later one that is in the lake makes up for it.
const MADE_UP_FOR: &str = "(length(unit.unit) > 10 AND EXISTS (
    SELECT 1 FROM unit AS later WHERE later.store = unit.store AND later.dataset = unit.dataset
        AND later.unit > unit.unit AND later.proven AND later.lake = 'agrees'))";

/// An alarm and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreAlarm {
    pub store: StoreId,
    #[serde(flatten)]
    pub alarm: AuditAlarm,
}

/// What changed with the alarms.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AlarmChange {
    pub raised: Vec<StoreAlarm>,
    pub ended: Vec<StoreAlarm>,
}

type Key = (StoreId, DatasetName, Unit);

impl Journal {
    /// The alarms that were raised and have not ended.
    pub fn alarms(&self) -> Result<Vec<StoreAlarm>> {
        // An unreadable note is no reason to stop working: what still holds is raised again.
        Ok(self.noted(NOTED)?.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
    }

    /// What is new and what is over since the last call, which stays so until [`Journal::note_alarms`].
    /// An alarm stands until the unit is proven and in the lake, or forgotten with its facts.
    pub fn alarm_change(&self, now: Timestamp) -> Result<(Vec<StoreAlarm>, AlarmChange)> {
        let noted: BTreeMap<Key, StoreAlarm> = self.alarms()?.into_iter().map(|one| (key(&one), one)).collect();
        let mut standing = BTreeMap::new();
        let mut change = AlarmChange::default();
        for (key, alarm) in &noted {
            if self.is_mended(key)? {
                change.ended.push(alarm.clone());
            } else {
                standing.insert(key.clone(), alarm.clone());
            }
        }
        for found in self.given_up(now)? {
            let key = key(&found);
            match standing.get_mut(&key) {
                // The same alarm, whatever the source says by now.
                Some(known) => known.alarm = AuditAlarm { since: known.alarm.since, ..found.alarm },
                None => {
                    change.raised.push(found.clone());
                    standing.insert(key, found);
                }
            }
        }
        Ok((standing.into_values().collect(), change))
    }

    /// Makes `standing` what [`Journal::alarms`] gives.
    pub fn note_alarms(&self, standing: &[StoreAlarm]) -> Result<()> {
        if self.alarms()? == standing {
            return Ok(());
        }
        let text = serde_json::to_string(standing)
            .map_err(|error| ribera_storage::Error::bug("alarms do not serialise").with_source(error))?;
        self.note(NOTED, (!standing.is_empty()).then_some(&text))
    }

    fn is_mended(&self, (store, dataset, unit): &Key) -> Result<bool> {
        let good: Option<bool> = self
            .connection
            .prepare_cached(&format!(
                "SELECT proven AND lake = 'agrees' AND NOT stale AND refused IS NULL OR {MADE_UP_FOR} FROM unit
                 WHERE store = ? AND dataset = ? AND unit = ?"
            ))
            .and_then(|mut statement| {
                let known = params![store.as_str(), dataset.as_str(), unit.to_string()];
                statement.query_row(known, |row| row.get(0)).optional()
            })
            .map_err(journal_error)?;
        Ok(good.unwrap_or(true))
    }

    /// In trouble, and by the rules of [`crate::plan`] not extracted again unless it changes.
    fn given_up(&self, now: Timestamp) -> Result<Vec<StoreAlarm>> {
        let mut statement = self
            .connection
            .prepare_cached(&format!(
                "SELECT store, dataset, unit, lake, tries, fingerprint, facts, refused FROM unit
                 WHERE NOT {MADE_UP_FOR} AND (refused IS NOT NULL
                   OR ((lake IN ('differs', 'quarantined') OR (closed AND NOT proven))
                       AND (tries >= ? OR NOT (stale OR (closed AND NOT proven)))))
                 ORDER BY store, dataset, unit DESC"
            ))
            .map_err(journal_error)?;
        let rows = statement.query_map([TRIES_MAX], |row| given_up(row, now)).map_err(journal_error)?;
        rows.map(|row| row.map_err(journal_error)).collect()
    }
}

fn key(one: &StoreAlarm) -> Key {
    (one.store.clone(), one.alarm.dataset.clone(), one.alarm.unit)
}

fn given_up(row: &Row<'_>, now: Timestamp) -> rusqlite::Result<StoreAlarm> {
    let lake: String = row.get(3)?;
    let source: Fingerprint = json(row, 5)?;
    let refused: Option<String> = row.get(7)?;
    let refused = refused.and_then(|text| serde_json::from_str::<Refusal>(&text).ok());
    Ok(StoreAlarm {
        store: parsed(row, 0)?,
        alarm: AuditAlarm {
            dataset: parsed(row, 1)?,
            unit: parsed(row, 2)?,
            trouble: match lake.as_str() {
                _ if refused.is_some() => Trouble::Refused,
                "differs" => Trouble::LakeDiffers,
                "quarantined" => Trouble::Quarantined,
                _ => Trouble::Unproven,
            },
            tries: row.get(4)?,
            source: source.facts,
            sent: json(row, 6)?,
            reason: refused.map(|refusal| refusal.reason),
            since: now,
        },
    })
}
