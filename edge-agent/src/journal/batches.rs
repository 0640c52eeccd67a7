//! Batches: from the spool to the lake's acknowledgement.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use ribera_storage::batch::Manifest;
use ribera_storage::{DatasetName, Result, StoreId, Unit};
use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde::{Deserialize, Serialize};

use super::units::{Stream, change, change_known, json, parsed, to_json};
use super::{Journal, execute, journal_error, streams};
use crate::plan::{Event, Fingerprint, LakeState};

/// Where a batch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchState {
    /// In the spool, without a number: a newer extraction of its units replaces it.
    Spooled,
    /// Its upload began: the number is its own.
    Numbered,
    /// The manifest is in the inbox.
    Uploaded,
    /// Nothing more to do; the file is gone or goes.
    Acked,
}

impl BatchState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spooled => "spooled",
            Self::Numbered => "numbered",
            Self::Uploaded => "uploaded",
            Self::Acked => "acked",
        }
    }

    fn parse(text: &str) -> Self {
        match text {
            "numbered" => Self::Numbered,
            "uploaded" => Self::Uploaded,
            "acked" => Self::Acked,
            _ => Self::Spooled,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct BatchRow {
    pub id: i64,
    pub state: BatchState,
    /// File name in the spool.
    pub file: String,
    pub bytes: u64,
    /// As it was or will be sent. Before the number: position 0, no path.
    pub manifest: Manifest,
    /// The manifest as it is put, byte for byte: another version of this program may write the same otherwise.
    pub text: String,
    pub updated_at: Timestamp,
}

impl BatchRow {
    pub fn store(&self) -> &StoreId {
        &self.manifest.batch.store
    }

    pub fn dataset(&self) -> &DatasetName {
        &self.manifest.batch.dataset
    }
}

/// A batch that was just extracted.
#[derive(Debug)]
pub struct NewBatch {
    pub file: String,
    pub bytes: u64,
    pub manifest: Manifest,
    /// Per unit: what the source said, and whether the unit has left the lookback window.
    pub fingerprints: BTreeMap<Unit, (Fingerprint, bool)>,
    /// See [`crate::plan::UnitRow::values_digest`].
    pub values_digest: String,
}

/// What the spool holds of one store.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct SpoolUse {
    pub batches: u64,
    pub bytes: u64,
    /// The longest anything has waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest: Option<Timestamp>,
}

const COLUMNS: &str = "id, state, file, bytes, manifest, updated_at";
/// States whose file is needed.
const LIVE: &str = "state IN ('spooled', 'numbered', 'uploaded')";

impl Journal {
    /// Records a spooled batch and its units. Batches without a number whose units it all brings
    /// again are forgotten; their files are returned, to be deleted.
    pub fn add_batch(&self, batch: &NewBatch, now: Timestamp) -> Result<(i64, Vec<String>)> {
        self.transaction(|transaction| {
            let id = insert(transaction, batch, now)?;
            for facts in &batch.manifest.units {
                let found = batch.fingerprints.get(&facts.unit).cloned().unwrap_or_default();
                let stream = Stream { store: &batch.manifest.batch.store, dataset: &batch.manifest.batch.dataset };
                change(transaction, stream, facts.unit, extracted(id, batch, facts, found), now)?;
            }
            Ok((id, replace_predecessors(transaction, id, batch)?))
        })
    }

    /// The next batch to send: one that has a number already, else the one with the newest days.
    /// Never one of which a unit waits in an older extraction, for the higher number wins: that
    /// one goes first.
    pub fn next_to_send(&self, stores: &[StoreId]) -> Result<Option<BatchRow>> {
        let (marks, wanted) = (marks(stores.len()), texts(stores));
        let begun = self.batch_where(
            &format!("state = 'numbered' AND store IN ({marks}) ORDER BY epoch, sequence LIMIT 1"),
            &to_sql(&wanted),
        )?;
        if begun.is_some() {
            return Ok(begun);
        }
        let mut next = self.batch_where(
            &format!("state = 'spooled' AND store IN ({marks}) ORDER BY last_unit DESC, id LIMIT 1"),
            &to_sql(&wanted),
        )?;
        while let Some(batch) = &next {
            let older = self.batch_where(
                "state = 'spooled' AND id < ?1 AND store = ?2 AND dataset = ?3 AND id IN
                 (SELECT theirs.batch FROM batch_unit ours JOIN batch_unit theirs USING (unit) WHERE ours.batch = ?1)
                 ORDER BY id LIMIT 1",
                &[&batch.id, &batch.store().as_str(), &batch.dataset().as_str()],
            )?;
            if older.is_none() {
                break;
            }
            next = older;
        }
        Ok(next)
    }

    /// Gives a spooled batch the stream's next number. `complete` fills in what depends on it.
    pub fn number(
        &self,
        batch: &BatchRow,
        now: Timestamp,
        complete: impl FnOnce(&mut Manifest) -> Result<()>,
    ) -> Result<BatchRow> {
        let mut numbered = batch.clone();
        let mut failed = Ok(());
        self.transaction(|transaction| {
            let position = streams::take_position(transaction, batch.store(), batch.dataset())?;
            numbered.manifest.batch.position = position;
            numbered.state = BatchState::Numbered;
            failed = complete(&mut numbered.manifest);
            numbered.text = to_json(&numbered.manifest)?;
            execute(
                transaction,
                "UPDATE batch SET state = 'numbered', epoch = ?, sequence = ?, manifest = ?, updated_at = ? WHERE id = ?",
                params![position.epoch, position.sequence, numbered.text, now.to_string(), batch.id],
            )
        })?;
        failed.map(|()| numbered)
    }

    pub fn set_state(&self, id: i64, state: BatchState, outcome: Option<&str>, now: Timestamp) -> Result<()> {
        self.transaction(|transaction| {
            execute(
                transaction,
                "UPDATE batch SET state = ?, outcome = ?, updated_at = ? WHERE id = ?",
                params![state.as_str(), outcome, now.to_string(), id],
            )
            .map(drop)
        })
    }

    /// The file of a batch that was never sent is lost: the batch is forgotten, its number too if it
    /// has one, and its units are extracted again.
    pub fn forget_unsent(&self, batch: &BatchRow, now: Timestamp) -> Result<()> {
        let stream = Stream { store: batch.store(), dataset: batch.dataset() };
        self.transaction(|transaction| {
            change_known(transaction, stream, "batch = ?", &[&batch.id], &Event::Lost, now)?;
            delete(transaction, batch.id)
        })
    }

    /// The lake answered: the batch is done, and each unit whose last batch it is takes its state.
    /// Units in `again` are extracted again.
    pub fn acknowledge(
        &self,
        batch: &BatchRow,
        outcome: &str,
        units: &[(Unit, LakeState)],
        again: &BTreeSet<Unit>,
        now: Timestamp,
    ) -> Result<()> {
        self.transaction(|transaction| {
            execute(
                transaction,
                "UPDATE batch SET state = 'acked', outcome = ?, updated_at = ? WHERE id = ?",
                params![outcome, now.to_string(), batch.id],
            )?;
            let stream = Stream { store: batch.store(), dataset: batch.dataset() };
            for (unit, lake) in units {
                let event = Event::Acknowledged { lake: *lake, again: again.contains(unit) };
                let known: [&dyn rusqlite::ToSql; 2] = [&batch.id, &unit.to_string()];
                change_known(transaction, stream, "batch = ? AND unit = ?", &known, &event, now)?;
            }
            Ok(())
        })
    }

    /// Batches whose acknowledgement is awaited, in order of their numbers.
    pub fn awaiting_ack(&self, stores: &[StoreId]) -> Result<Vec<BatchRow>> {
        let marks = marks(stores.len());
        self.batches_where(
            &format!("state = 'uploaded' AND store IN ({marks}) ORDER BY store, dataset, epoch, sequence"),
            &to_sql(&texts(stores)),
        )
    }

    /// Every batch that is not done, oldest first.
    pub fn open_batches(&self) -> Result<Vec<BatchRow>> {
        self.batches_where("state <> 'acked' ORDER BY id", &[])
    }

    pub fn batch(&self, id: i64) -> Result<Option<BatchRow>> {
        self.batch_where("id = ?", &[&id])
    }

    /// Names of the files that batches still need.
    pub fn live_files(&self) -> Result<BTreeSet<String>> {
        let mut statement =
            self.connection.prepare_cached(&format!("SELECT file FROM batch WHERE {LIVE}")).map_err(journal_error)?;
        let names = statement.query_map([], |row| row.get(0)).map_err(journal_error)?;
        names.map(|name| name.map_err(journal_error)).collect()
    }

    /// What the spool holds, of one store or of all.
    pub fn spool_use(&self, store: Option<&StoreId>) -> Result<SpoolUse> {
        let store = store.map(StoreId::as_str);
        self.connection
            .prepare_cached(&format!(
                "SELECT COUNT(*), COALESCE(SUM(bytes), 0), MIN(updated_at) FROM batch
                 WHERE {LIVE} AND store = COALESCE(?, store)"
            ))
            .and_then(|mut statement| {
                statement.query_row([store], |row| {
                    let oldest: Option<String> = row.get(2)?;
                    Ok(SpoolUse {
                        batches: row.get(0)?,
                        bytes: row.get(1)?,
                        oldest: oldest.and_then(|text| text.parse().ok()),
                    })
                })
            })
            .map_err(journal_error)
    }

    fn batch_where(&self, condition: &str, parameters: &[&dyn rusqlite::ToSql]) -> Result<Option<BatchRow>> {
        self.connection
            .prepare_cached(&format!("SELECT {COLUMNS} FROM batch WHERE {condition}"))
            .and_then(|mut statement| statement.query_row(parameters, batch_row).optional())
            .map_err(journal_error)
    }

    fn batches_where(&self, condition: &str, parameters: &[&dyn rusqlite::ToSql]) -> Result<Vec<BatchRow>> {
        let mut statement = self
            .connection
            .prepare_cached(&format!("SELECT {COLUMNS} FROM batch WHERE {condition}"))
            .map_err(journal_error)?;
        let rows = statement.query_map(parameters, batch_row).map_err(journal_error)?;
        rows.map(|row| row.map_err(journal_error)).collect()
    }
}

/// `?, ?, ?` for so many values.
fn marks(count: usize) -> String {
    vec!["?"; count].join(", ")
}

fn texts(stores: &[StoreId]) -> Vec<&str> {
    stores.iter().map(StoreId::as_str).collect()
}

fn to_sql<'a>(texts: &'a [&str]) -> Vec<&'a dyn rusqlite::ToSql> {
    texts.iter().map(|text| text as &dyn rusqlite::ToSql).collect()
}

fn batch_row(row: &Row<'_>) -> rusqlite::Result<BatchRow> {
    Ok(BatchRow {
        id: row.get(0)?,
        state: BatchState::parse(&row.get::<_, String>(1)?),
        file: row.get(2)?,
        bytes: row.get(3)?,
        manifest: json(row, 4)?,
        text: row.get(4)?,
        updated_at: parsed(row, 5)?,
    })
}

fn insert(transaction: &Transaction<'_>, batch: &NewBatch, now: Timestamp) -> rusqlite::Result<i64> {
    let NewBatch { file, bytes, manifest, .. } = batch;
    let last_unit = manifest.units.last().map(|facts| facts.unit.to_string()).unwrap_or_default();
    execute(
        transaction,
        "INSERT INTO batch (store, dataset, state, file, bytes, last_unit, manifest, updated_at)
         VALUES (?, ?, 'spooled', ?, ?, ?, ?, ?)",
        params![
            manifest.batch.store.as_str(),
            manifest.batch.dataset.as_str(),
            file,
            bytes,
            last_unit,
            to_json(manifest)?,
            now.to_string()
        ],
    )?;
    let id = transaction.last_insert_rowid();
    for facts in &manifest.units {
        execute(transaction, "INSERT INTO batch_unit VALUES (?, ?)", params![id, facts.unit.to_string()])?;
    }
    Ok(id)
}

fn extracted(
    id: i64,
    batch: &NewBatch,
    facts: &ribera_storage::batch::UnitFacts,
    (fingerprint, is_final): (Fingerprint, bool),
) -> Event {
    Event::Extracted {
        batch: id,
        dataset_version: batch.manifest.dataset_version,
        fingerprint,
        facts: facts.file.clone(),
        closed: facts.closed,
        proven: facts.audit.as_ref().is_some_and(|audit| audit.agrees_with(&facts.file)),
        is_final,
        values_digest: batch.values_digest.clone(),
    }
}

/// Forgets batches without a number whose units are all in batch `id`; gives their files.
fn replace_predecessors(transaction: &Transaction<'_>, id: i64, batch: &NewBatch) -> rusqlite::Result<Vec<String>> {
    let mut statement = transaction.prepare_cached(
        "SELECT id, file FROM batch WHERE state = 'spooled' AND id < ?1 AND store = ?2 AND dataset = ?3
         AND NOT EXISTS (SELECT 1 FROM batch_unit theirs WHERE theirs.batch = batch.id
                         AND theirs.unit NOT IN (SELECT unit FROM batch_unit ours WHERE ours.batch = ?1))",
    )?;
    let found = statement
        .query_map(params![id, batch.manifest.batch.store.as_str(), batch.manifest.batch.dataset.as_str()], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let replaced: Vec<(i64, String)> = found.collect::<rusqlite::Result<_>>()?;
    for (old, _) in &replaced {
        delete(transaction, *old)?;
    }
    Ok(replaced.into_iter().map(|(_, file)| file).collect())
}

fn delete(transaction: &Transaction<'_>, id: i64) -> rusqlite::Result<()> {
    execute(transaction, "DELETE FROM batch_unit WHERE batch = ?", [id])?;
    execute(transaction, "DELETE FROM batch WHERE id = ?", [id]).map(drop)
}
