//! What an agent says of itself each minute, at [`crate::paths::heartbeat`]. Overwritten in place:
//! only the last one counts.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{DatasetName, StoreId};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    pub store: StoreId,
    /// By the agent's clock.
    pub at: Timestamp,
    pub agent_version: String,
    pub journal_id: String,
    /// The agent's clock minus the object store's, as last measured; `None` before that.
    #[serde(default)]
    pub clock_offset_s: Option<i64>,
    pub spool: SpoolDepth,
    #[serde(default)]
    pub runs: Vec<LastRun>,
    /// The last lines worth a person's look, oldest first; without secrets.
    #[serde(default)]
    pub log_tail: Vec<String>,
}

/// What waits in a store's spool.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SpoolDepth {
    pub batches: u64,
    pub bytes: u64,
    /// Of the whole spool, which the agent's stores share.
    pub bytes_max: u64,
    /// When what has waited longest came in.
    #[serde(default)]
    pub oldest: Option<Timestamp>,
}

/// A dataset's last cycle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRun {
    pub dataset: DatasetName,
    pub begun_at: Timestamp,
    /// [`GOOD`], or what went wrong.
    pub outcome: String,
}

/// The outcome of a cycle that came to its end.
pub const GOOD: &str = "ok";
