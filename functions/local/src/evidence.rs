//! Coverage of what a command read: evidence first, snapshots later.
//!
//! The order matters. A doubt about a store-day ends when the batch that repairs it is committed. Were
//! it looked up after the rows were read, it could have ended meanwhile, over rows that it still
//! concerns.

use ribera_core::coverage::{self, Coverage};
use ribera_storage::dataset::DatasetDefinition;
use ribera_storage::delta::Snapshot;
use ribera_storage::{DatasetName, ErrorKind, Result};

use crate::lake::Lake;

/// What is known beside the log when a command begins.
pub struct Evidence;

/// The coverage of what was read.
pub enum Judgement {
    Known(Coverage),
    /// It cannot be computed, and why: nothing may be called complete.
    Unknown(String),
}

impl Evidence {
    /// Gathers the evidence of every dataset that `is_wanted`. Call it before the first snapshot is
    /// loaded.
    pub async fn gather(_lake: &Lake, _is_wanted: impl Fn(&DatasetDefinition) -> bool) -> Result<Self> {
        // `coverage::compute_at` still gathers and judges in one. Once it is split, the first half
        // belongs here and the second one below.
        Ok(Self)
    }

    /// Judges the versions that the command read. Data that cannot be read makes the coverage
    /// unknown; it does not take the answer back.
    pub async fn judge(&self, lake: &Lake, dataset: &DatasetName, snapshots: &[Snapshot]) -> Result<Judgement> {
        match coverage::compute_at(&lake.deps(), dataset, snapshots).await {
            Ok(coverage) => Ok(Judgement::Known(coverage)),
            Err(error) if error.kind() == ErrorKind::Data => Ok(Judgement::Unknown(error.to_string())),
            Err(error) => Err(error),
        }
    }
}
