//! The hint that names the newest checkpoint.

use serde::{Deserialize, Serialize};

/// What `_last_checkpoint` says. A hint: it may lag behind, and be absent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::delta) struct LastCheckpoint {
    pub version: u64,
    /// Actions in it.
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_in_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_of_add_files: Option<u64>,
}
