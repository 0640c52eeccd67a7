//! The quarantine: list, show, replay.

use ribera_storage::batch::QuarantineRecord;
use ribera_storage::object::ObjectPath;
use ribera_storage::ports::{Clock, Random};
use ribera_storage::{BatchId, Error, ObjectStore, Result};
use serde::{Deserialize, Serialize};

use crate::Deps;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineEntry {
    /// Of the record in `quarantine/`.
    pub path: String,
    /// `None` for a manifest that could not be read.
    pub batch: Option<BatchId>,
    pub record: QuarantineRecord,
}

/// At most `limit` entries in order of their paths, beginning after `start_after`.
pub async fn list<S: ObjectStore, C: Clock, R: Random>(
    _deps: &Deps<S, C, R>,
    _start_after: Option<&str>,
    _limit: usize,
) -> Result<Vec<QuarantineEntry>> {
    Err(Error::bug("quarantine list: not built yet"))
}

/// Every record of a batch (a cloned journal's stands beside the first's).
pub async fn show<S: ObjectStore, C: Clock, R: Random>(
    _deps: &Deps<S, C, R>,
    _batch: &BatchId,
) -> Result<Vec<QuarantineEntry>> {
    Err(Error::bug("quarantine show: not built yet"))
}

/// Puts the manifest of a quarantined batch back into the inbox and forgets the verdict; returns
/// the inbox path, for the caller to ingest at once. An error when there is no record of it.
pub async fn replay<S: ObjectStore, C: Clock, R: Random>(
    _deps: &Deps<S, C, R>,
    _batch: &BatchId,
) -> Result<ObjectPath> {
    Err(Error::bug("quarantine replay: not built yet"))
}
