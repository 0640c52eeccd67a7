//! Limits on what a store may send.

use ribera_storage::limits::VALUE_BYTES_MAX;
use serde::{Deserialize, Serialize};

/// What one batch may cost. Beyond it the batch is quarantined as `limit_exceeded`. Raising a
/// limit admits larger batches and costs that much more memory or time per call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The file is held in memory whole while it is read. A month of 5 million rows is about 60 MB.
    pub file_bytes_max: u64,
    pub rows_max: u64,
    /// The file's footer, which is parsed whole.
    pub footer_bytes_max: u64,
    /// One page decompressed; writers make pages of about 1 MiB, dictionaries included.
    pub page_bytes_max: u64,
    /// All pages decompressed, and separately all values written out in full.
    pub decoded_bytes_max: u64,
    /// One text or binary value. The agent refuses what is beyond the default.
    pub value_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes_max: 128 << 20,
            rows_max: 20_000_000,
            footer_bytes_max: 4 << 20,
            page_bytes_max: 32 << 20,
            decoded_bytes_max: 4 << 30,
            value_bytes_max: VALUE_BYTES_MAX,
        }
    }
}
