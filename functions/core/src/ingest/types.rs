//! Settings of ingest, and what it reports.

use ribera_storage::BatchId;
use ribera_storage::batch::QuarantineReason;
use ribera_storage::object::ObjectPath;
use serde::{Deserialize, Serialize};

use super::Limits;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngestSettings {
    pub limits: Limits,
    /// A manifest whose file is not there is tried again for so long. More: late files on poor
    /// lines are still taken; less: a lost file is noticed sooner.
    pub file_wait_seconds: u32,
}

impl Default for IngestSettings {
    fn default() -> Self {
        Self { limits: Limits::default(), file_wait_seconds: 900 }
    }
}

/// What a failure lies in: decides how long a batch may go on failing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCause {
    /// The batch itself.
    Batch,
    /// Something that other batches need as well: a table, a definition.
    Shared,
    /// The object store did not answer, or another call was quicker.
    #[default]
    Retry,
}

/// What became of one manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Outcome {
    /// In the lake since `version`.
    Committed {
        version: u64,
        rows: u64,
    },
    /// Every unit had been won by a higher position.
    Superseded,
    Quarantined {
        reason: QuarantineReason,
        detail: String,
    },
    /// Nothing to do: acknowledged before, or no such manifest.
    AlreadyDone,
    /// Its file is not there yet.
    Waiting,
    /// Something failed that may succeed later; the manifest stays. What fails in every sweep is
    /// quarantined in the end.
    Failed {
        message: String,
        #[serde(default)]
        cause: FailureCause,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestOutcome {
    pub path: String,
    /// `None` when the path names no batch.
    pub batch: Option<BatchId>,
    #[serde(flatten)]
    pub outcome: Outcome,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngestReport {
    pub outcomes: Vec<ManifestOutcome>,
}

/// How much one sweep does before it returns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepBudget {
    /// Manifests and ready records settled at most.
    pub manifests_max: usize,
    /// No new group of manifests is begun after so long.
    pub seconds_max: u32,
}

impl Default for SweepBudget {
    fn default() -> Self {
        Self { manifests_max: 10_000, seconds_max: 60 }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepReport {
    #[serde(flatten)]
    pub report: IngestReport,
    /// The budget ended first: sweep again at once.
    pub more: bool,
}

/// A manifest to look at.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub path: ObjectPath,
    pub source: Source,
}

/// Who named a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// An upload. Nearly always nobody has begun with the batch yet.
    Event,
    /// A listing of the inbox. Most often a call that died had begun with the batch.
    Sweep,
}

impl IngestReport {
    /// Manifests with an outcome that `wanted` takes.
    pub fn count(&self, wanted: impl Fn(&Outcome) -> bool) -> usize {
        self.outcomes.iter().filter(|one| wanted(&one.outcome)).count()
    }

    /// Rows that this call saw committed.
    pub fn rows_committed(&self) -> u64 {
        let rows = |one: &ManifestOutcome| if let Outcome::Committed { rows, .. } = one.outcome { rows } else { 0 };
        self.outcomes.iter().map(rows).sum()
    }
}
