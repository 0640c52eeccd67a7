//! What an agent says of itself each minute, at [`crate::paths::heartbeat`]. Overwritten in place:
//! only the last one counts.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::batch::Facts;
use crate::ids::{DatasetName, StoreId, Unit};

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
    /// The source's clock minus the object store's, as a dataset's last session showed it; `None` before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_clock_offset_s: Option<i64>,
    pub spool: SpoolDepth,
    #[serde(default)]
    pub runs: Vec<LastRun>,
    /// Units given up, of each dataset the newest first; at most [`ALARMS_MAX`].
    #[serde(default)]
    pub alarms: Vec<AuditAlarm>,
    /// How many there are in all.
    #[serde(default)]
    pub alarms_total: u64,
    /// The last lines worth a person's look, oldest first; without secrets.
    #[serde(default)]
    pub log_tail: Vec<String>,
}

/// Bytes of a heartbeat at most; a larger one is not read.
pub const HEARTBEAT_BYTES_MAX: usize = 64 << 10;

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

/// So many alarms are listed.
pub const ALARMS_MAX: usize = 20;

/// A unit that could not be proven, or that the lake does not hold as it was sent, in all the tries
/// that the agent makes by itself; or whose rows cannot be sent at all. It stands until the unit is proven and in
/// the lake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditAlarm {
    pub dataset: DatasetName,
    pub unit: Unit,
    pub trouble: Trouble,
    pub tries: u32,
    /// The source's own count and sums.
    pub source: Facts,
    /// Count and sums of the rows that it gave.
    pub sent: Facts,
    /// Of a refused unit: column, row and value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub since: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// The source's audit and the rows it gives differ.
    Unproven,
    /// The lake holds other rows or sums than were sent.
    LakeDiffers,
    /// The lake refused the batch.
    Quarantined,
    /// A value of its rows cannot be sent as it is.
    Refused,
}

/// The outcome of a cycle that came to its end.
pub const GOOD: &str = "ok";
