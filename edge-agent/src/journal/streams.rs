//! Streams: one dataset of one store, numbered by epoch and sequence.

use jiff::Timestamp;
use ribera_storage::ids::Position;
use ribera_storage::{DatasetName, Result, StoreId};
use rusqlite::{OptionalExtension, Transaction, params};

use super::units::{Stream, change_known};
use super::{Journal, execute, journal_error};
use crate::plan::Event;

/// Where a stream stands: the position that its next batch gets.
pub type StreamState = Position;

impl Journal {
    /// The stream's next position; `None` before its first epoch is claimed.
    pub fn stream(&self, store: &StoreId, dataset: &DatasetName) -> Result<Option<StreamState>> {
        read(&self.connection, store, dataset).map_err(journal_error)
    }

    /// Begins `epoch` of a stream at sequence 0. Batches of an older epoch that are not
    /// acknowledged wait again to be numbered, and every other known unit is stale: the new epoch
    /// brings all of them again.
    pub fn begin_epoch(&self, store: &StoreId, dataset: &DatasetName, epoch: u32, now: Timestamp) -> Result<()> {
        self.transaction(|transaction| {
            let stream = Stream { store, dataset };
            let known = params![store.as_str(), dataset.as_str()];
            let had_epoch = read(transaction, store, dataset)?.is_some();
            execute(
                transaction,
                "INSERT OR REPLACE INTO stream VALUES (?, ?, ?, 0)",
                params![store.as_str(), dataset.as_str(), epoch],
            )?;
            if epoch > 0 {
                // What the lake holds came from another journal. (A snapshot's moment is past.)
                change_known(transaction, stream, "length(unit) <= 10", &[], &Event::NotOurs, now)?;
            }
            if had_epoch {
                execute(
                    transaction,
                    "UPDATE batch SET state = 'spooled', epoch = NULL, sequence = NULL
                     WHERE store = ? AND dataset = ? AND state IN ('numbered', 'uploaded')",
                    known,
                )?;
                let not_waiting = "batch NOT IN (SELECT id FROM batch WHERE state = 'spooled')";
                change_known(transaction, stream, not_waiting, &[], &Event::Lost, now)?;
            }
            Ok(())
        })
    }
}

/// Takes the stream's next position.
pub(super) fn take_position(
    transaction: &Transaction<'_>,
    store: &StoreId,
    dataset: &DatasetName,
) -> rusqlite::Result<Position> {
    let position = read(transaction, store, dataset)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    execute(
        transaction,
        "UPDATE stream SET next_sequence = next_sequence + 1 WHERE store = ? AND dataset = ?",
        params![store.as_str(), dataset.as_str()],
    )?;
    Ok(position)
}

fn read(
    connection: &rusqlite::Connection,
    store: &StoreId,
    dataset: &DatasetName,
) -> rusqlite::Result<Option<Position>> {
    connection
        .prepare_cached("SELECT epoch, next_sequence FROM stream WHERE store = ? AND dataset = ?")?
        .query_row([store.as_str(), dataset.as_str()], |row| Ok(Position { epoch: row.get(0)?, sequence: row.get(1)? }))
        .optional()
}
