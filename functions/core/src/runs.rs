//! What ran, when, and how it ended: small objects in `state/runs/`, newest first in a listing.

use jiff::Timestamp;
use ribera_storage::ports::{Clock, Random};
use ribera_storage::{Error, ObjectStore, Result};
use serde::{Deserialize, Serialize};

use crate::Deps;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// `ingest`, `sweep`, `coverage`, `maintain`.
    pub function: String,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    /// `false` when it ended with an error or left a failed manifest.
    pub ok: bool,
    /// Batches settled.
    pub batches: u64,
    pub rows: u64,
    pub quarantined: u64,
    /// The error, or what is worth a look. Empty most often.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// The latest `limit` runs, newest first.
pub async fn latest<S: ObjectStore>(_store: &S, _limit: usize) -> Result<Vec<Run>> {
    Err(Error::bug("runs: not built yet"))
}

/// Keeps a run. Never an error for the caller's work: it is told by the log only.
pub async fn record<S: ObjectStore, C: Clock, R: Random>(_deps: &Deps<S, C, R>, _run: &Run) {}
