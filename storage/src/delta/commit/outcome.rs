//! What became of a batch, and what a commit did.

use crate::batch::Facts;
use crate::delta::PartialSnapshot;
use crate::error::Error;
use crate::ids::{BatchId, Unit};

/// What became of a batch.
#[derive(Debug)]
pub enum BatchOutcome {
    /// It is in the lake since `version` (the newest version read, when the entry itself is
    /// no longer at hand). `units` is what the lake holds of each of its units, whoever won them;
    /// `rows` are the rows of those units that this batch won.
    Committed { version: u64, rows: u64, units: Vec<(Unit, Facts)> },
    /// Every unit had been won already by a higher position.
    Superseded,
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
    /// This call wrote a version that is due for a checkpoint: call [`crate::delta::Table::checkpoint_of`] with this once
    /// the acknowledgements are out.
    pub checkpoint_due: Option<Box<PartialSnapshot>>,
    /// Log entries that other writers put first.
    pub races_lost: u32,
}

impl CommitReport {
    pub fn outcome(&self, batch: &BatchId) -> Option<&BatchOutcome> {
        self.outcomes.iter().find(|(id, _)| id == batch).map(|(_, outcome)| outcome)
    }
}
