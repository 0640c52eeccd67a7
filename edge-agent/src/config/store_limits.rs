//! What one store's limits differ in: a weak server is asked less at a time than the others.

use ribera_storage::Result;
use serde::Deserialize;

use super::{Hours, Limits};

/// `[store.limits]`: of `[limits]` what concerns one source; absent keys are as there.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreLimits {
    pub chunk_rows: Option<u64>,
    pub chunk_rows_min: Option<u64>,
    pub chunk_pause_ms: Option<u64>,
    pub chunk_timeout_s: Option<u64>,
    pub audit_tries: Option<u32>,
    pub backfill_hours: Option<Hours>,
}

impl StoreLimits {
    /// The agent's limits with this store's in their place.
    pub fn over(&self, limits: &Limits) -> Limits {
        let chunk_rows = self.chunk_rows.unwrap_or(limits.chunk_rows);
        Limits {
            chunk_rows,
            // A store that is asked for fewer rows at once than the floor of all has a floor of its own.
            chunk_rows_min: self.chunk_rows_min.unwrap_or(limits.chunk_rows_min.min(chunk_rows)),
            chunk_rows_win: self.chunk_rows.is_some() || limits.chunk_rows_win,
            chunk_pause_ms: self.chunk_pause_ms.unwrap_or(limits.chunk_pause_ms),
            chunk_timeout_s: self.chunk_timeout_s.unwrap_or(limits.chunk_timeout_s),
            audit_tries: self.audit_tries.unwrap_or(limits.audit_tries),
            backfill_hours: self.backfill_hours.or(limits.backfill_hours),
            ..limits.clone()
        }
    }

    pub(super) fn validate(&self, limits: &Limits) -> Result<()> {
        self.over(limits).validate()
    }
}
