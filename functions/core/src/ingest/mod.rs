//! `ingest`: validates a batch, encodes it again, commits it, acknowledges it. A bad batch goes to
//! quarantine with a typed reason. Safe to run twice, at once, and to die anywhere.
//!
//! Order of effects: lake file under a fresh name, ready record, commit, ledger, ack, `done/`,
//! inbox manifest deleted, ready record deleted.

use ribera_storage::object::ObjectPath;
use ribera_storage::ports::Ports;
use ribera_storage::{ObjectStore, Result};

mod admit;
mod call;
mod decode;
mod definitions;
mod encode;
pub mod event;
mod failures;
mod limits;
mod pages;
mod poison;
mod refusal;
mod settle;
mod sweep;
mod types;
mod validate;

pub use limits::Limits;
pub(crate) use settle::QUOTED_BYTES_MAX;
pub use types::{FailureCause, IngestReport, IngestSettings, ManifestOutcome, Outcome, SweepBudget, SweepReport};
use types::{Item, Source};

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
            items.push(Item { path: path.clone(), source: Source::Event });
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

#[cfg(test)]
mod tests;
