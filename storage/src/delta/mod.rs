//! The lake's tables: a small Delta Lake implementation of our own, protocol reader 1, writer 2,
//! no table features. Every engine reads them; it needs no server and runs in WASM.
//!
//! The way of a batch:
//!
//! 1. [`LakeWriter`] encodes its rows as lake files with true statistics; the tags of each file
//!    say, unit by unit, which batch it came from and what was proven.
//! 2. [`Table::put_file`] puts them under fresh random names; [`Table::put_ready`] says so.
//! 3. [`Table::commit_ready`] settles every ready batch of the table in one log entry.
//! 4. [`Table::settled`] tells at any later time, from the log alone, what became of a batch.
//!
//! What must hold: a unit's rows lie in exactly one file of the table; the batch of the highest
//! position wins a unit, whatever the order of arrival; a reader sees whole batches; every
//! file an entry names exists before the entry does; after any doubt about a write the version is
//! read back and its write id compared.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::batch::Facts;
use crate::dataset::{DatasetDefinition, PartitionColumn};
use crate::error::{Error, Result};
use crate::hex::hex;
use crate::ids::{BatchId, TableName, Unit};
use crate::object::{ObjectPath, ObjectStore, PutOutcome};
use crate::ports::{Clock, Random};

pub mod action;
mod checkpoint;
mod commit;
mod encoding;
mod entry;
pub mod evolution;
mod follow;
mod log;
mod maintain;
mod ordered;
mod path;
mod plan;
mod ready;
mod rows;
mod settle;
mod snapshot;
mod stats;
pub mod tags;
mod unit;
mod writer;

pub use action::{AddFile, CommitInfo, CommittedBatch};
pub use checkpoint::CHECKPOINT_EVERY;
pub use encoding::choose as choose_encodings;
pub use maintain::{CompactionGroup, LOG_RETENTION, VACUUM_RETENTION, compaction_plan};
pub use ready::{READY_AGE_MAX, ReadyRecord};
pub use rows::{UnitCounter, read as read_rows};
pub use snapshot::{Changes, Snapshot};
pub use tags::{UnitProof, UnitTag};
pub use writer::{LakeFile, LakeWriter, LakeWriterOptions, keys_schema};

/// Requests in flight at once.
const CONCURRENCY: usize = 32;

/// A Delta table in an object store. Holds no state: make one wherever it is needed.
#[derive(Debug)]
pub struct Table<'a, S> {
    objects: &'a S,
    name: TableName,
}

/// What deciding code asks of its host.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    pub clock: &'a dyn Clock,
    pub random: &'a dyn Random,
}

/// What became of a batch.
#[derive(Debug)]
pub enum BatchOutcome {
    /// It is in the lake since `version` (the newest version read, when the entry itself is
    /// no longer at hand). `units` is what the lake holds of each of its units, whoever won them;
    /// `rows` are the rows of those units that this batch won.
    Committed { version: u64, rows: u64, units: Vec<(Unit, Facts)> },
    /// Every unit had been won already by a higher position.
    Superseded,
    /// Its number is closed without data.
    Voided,
    /// Its stream's order matters, and this number is still to come: try again later.
    Waiting { missing_sequence: u64 },
    /// Its ready record is too old to be committed safely: re-encode it and put a new record.
    Expired,
    /// It cannot be committed, and the other batches went on without it.
    Failed(Error),
}

/// What a call of [`Table::commit_ready`] did.
#[derive(Debug, Default)]
pub struct CommitReport {
    /// The version this call wrote; `None` when there was nothing left to write.
    pub version: Option<u64>,
    /// Every batch whose record was read: the caller's own first.
    pub outcomes: Vec<(BatchId, BatchOutcome)>,
    /// This call wrote a version that is due for a checkpoint: call [`Table::checkpoint`] once the
    /// acknowledgements are out.
    pub checkpoint_due: bool,
    /// Log entries that other writers put first.
    pub races_lost: u32,
}

impl CommitReport {
    pub fn outcome(&self, batch: &BatchId) -> Option<&BatchOutcome> {
        self.outcomes.iter().find(|(id, _)| id == batch).map(|(_, outcome)| outcome)
    }
}

impl<'a, S: ObjectStore> Table<'a, S> {
    pub fn new(objects: &'a S, name: TableName) -> Self {
        Self { objects, name }
    }

    pub fn name(&self) -> &TableName {
        &self.name
    }

    /// Puts an encoded file under a fresh name in `partition` (see
    /// [`DatasetDefinition::partition`]). It is in the table once an entry names it.
    pub async fn put_file(&self, ports: Ports<'_>, partition: &[PartitionColumn], file: &LakeFile) -> Result<AddFile> {
        let log_path = path::data_file(partition, &ports.random.fresh_name());
        let object = path::object_path(&self.name, &log_path)?;
        self.put_fresh(&object, file.bytes.clone()).await?;
        let mut add = AddFile {
            path: log_path,
            partition_values: partition.iter().map(|(name, value)| (name.clone(), Some(value.clone()))).collect(),
            size: file.bytes.len() as u64,
            modification_time: ports.clock.now().as_millisecond(),
            data_change: true,
            stats: Some(file.stats.clone()),
            tags: None,
        };
        add.set_units(&file.units);
        add.set_sha256(&file.bytes);
        Ok(add)
    }

    /// A name that is random cannot be taken; put-if-absent makes sure of it all the same.
    async fn put_fresh(&self, object: &ObjectPath, bytes: Bytes) -> Result<()> {
        match self.objects.put_if_absent(object, bytes.clone().into()).await {
            Ok(PutOutcome::Created) => Ok(()),
            doubt => match self.objects.get(object).await? {
                Some(found) if found == bytes => Ok(()),
                Some(_) => Err(Error::bug(format!("{object}: a fresh name was taken"))),
                None => Err(doubt.err().unwrap_or_else(|| Error::retry(format!("{object}: vanished")))),
            },
        }
    }
}

/// Tells files of one schema from those of another: names and types of the columns in order.
pub fn schema_hash(dataset: &DatasetDefinition) -> String {
    hash_of_schema(&dataset.delta_schema())
}

fn hash_of_schema(schema: &str) -> String {
    hex(&Sha256::digest(schema.as_bytes())[..8])
}

#[cfg(test)]
mod tests;
