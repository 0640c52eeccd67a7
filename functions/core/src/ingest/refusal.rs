//! Why a batch cannot be taken.

use std::fmt;

use ribera_storage::batch::QuarantineReason;
use ribera_storage::text;

/// A typed reason and a detail that names field, rule and value got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub reason: QuarantineReason,
    pub detail: String,
}

impl Refusal {
    /// A detail is for people: control characters become escapes, and it is cut, because what a store sent
    /// may be megabytes.
    pub fn new(reason: QuarantineReason, detail: impl Into<String>) -> Self {
        let mut detail = text::line(&detail.into()).into_owned();
        if detail.len() > DETAIL_BYTES_MAX {
            let mut end = DETAIL_BYTES_MAX;
            while !detail.is_char_boundary(end) {
                end -= 1;
            }
            detail.truncate(end);
            detail.push('…');
        }
        Self { reason, detail }
    }

    pub fn unreadable(detail: impl fmt::Display) -> Self {
        Self::new(QuarantineReason::FileUnreadable, format!("file: must be readable as Parquet, got: {detail}"))
    }

    pub fn limit(what: &str, max: u64, got: u64) -> Self {
        Self::new(QuarantineReason::LimitExceeded, format!("{what}: must be at most {max}, got {got}"))
    }

    pub fn schema(detail: impl Into<String>) -> Self {
        Self::new(QuarantineReason::SchemaMismatch, detail)
    }
}

const DETAIL_BYTES_MAX: usize = 1000;
