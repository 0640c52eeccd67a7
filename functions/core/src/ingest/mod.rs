//! `ingest`: validates a batch, encodes it anew, commits it, acknowledges it. A bad batch goes to
//! quarantine with a typed reason. Safe to run twice, at once, and to die anywhere.
//!
//! Order of effects: lake file under a fresh name, ready record, commit, ledger, ack, `done/`,
//! inbox manifest deleted, ready record deleted.

use jiff::Timestamp;
use ribera_storage::batch::QuarantineReason;
use ribera_storage::object::ObjectPath;
use ribera_storage::ports::Ports;
use ribera_storage::{BatchId, ObjectStore, Result};
use serde::{Deserialize, Serialize};

mod admit;
mod call;
mod decode;
mod definitions;
mod encode;
pub mod event;
mod failures;
mod limits;
mod pages;
pub mod quarantine;
mod refusal;
mod settle;
mod suspects;
mod sweep;
mod validate;

pub use limits::Limits;
pub(crate) use settle::put_json;

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

/// Ingests the manifests that an event names. A hint only: paths that name nothing are no error.
///
/// An error means that nothing could be decided at all (the store is unreachable); what fails for
/// one manifest is in its outcome, and the rest goes on.
pub async fn ingest_event<S: ObjectStore>(
    ports: Ports<'_, S>,
    settings: &IngestSettings,
    manifest_paths: &[ObjectPath],
) -> Result<IngestReport> {
    let mut items: Vec<Item> = Vec::new();
    for path in manifest_paths {
        if !items.iter().any(|item| item.path == *path) {
            items.push(Item { path: path.clone(), modified: None });
        }
    }
    Ok(IngestReport { outcomes: call::ingest(ports, settings, items).await? })
}

/// Ingests whatever the inbox holds and finishes what a call that died left ready.
pub async fn sweep<S: ObjectStore>(
    ports: Ports<'_, S>,
    settings: &IngestSettings,
    budget: &SweepBudget,
) -> Result<SweepReport> {
    sweep::sweep(ports, settings, budget).await
}

/// A manifest to look at.
#[derive(Debug, Clone)]
struct Item {
    path: ObjectPath,
    /// By the object store's clock, where a listing told.
    modified: Option<Timestamp>,
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

#[cfg(test)]
mod tests;
