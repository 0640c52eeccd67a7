//! Epochs: of several journals that number one stream, each has an epoch of its own, and the
//! highest wins. A journal that is not the only one begins a new epoch, which brings all again.

use bytes::Bytes;
use jiff::SignedDuration;
use ribera_storage::object::{ObjectMeta, ObjectPath, PutOutcome, list_all};
use ribera_storage::{DatasetName, Error, ObjectStore, Result, StoreId, paths};
use serde::{Deserialize, Serialize};

use crate::agent::Agent;
use crate::ports::step;
use crate::report::UploadReport;

/// Epochs that a store's streams may begin in one run because their batches met another's.
const EPOCHS_PER_RUN: u64 = 8;
/// A claim by another is answered once it is older than two to the power of its epoch in minutes,
/// at most so many: two live copies of one disk must not make each other read everything again
/// at every cycle.
const ANSWER_AFTER_MINUTES_MAX: i64 = 6 * 60;

/// The body of an epoch's claim.
#[derive(Debug, Serialize, Deserialize)]
struct EpochClaim {
    journal_id: String,
    claimed_at: jiff::Timestamp,
    agent_version: String,
}

impl<S: ObjectStore> Agent<S> {
    /// Begins a new epoch of a stream because another journal used the one it had.
    pub(crate) async fn leave_epoch(
        &self,
        store: &StoreId,
        dataset: &DatasetName,
        report: &mut UploadReport,
    ) -> Result<()> {
        if report.new_epochs >= EPOCHS_PER_RUN * self.stores.len().max(1) as u64 {
            return Err(Error::fenced(format!(
                "store {store}, dataset {dataset}: another agent keeps using this stream; is this disk a copy of one that is running elsewhere?"
            ))
            .with_hint("end the other agent, then ribera-agent once"));
        }
        self.begin_next_epoch(store, dataset).await?;
        report.new_epochs += 1;
        Ok(())
    }

    /// Before a stream's cycle: whoever claimed a higher epoch may have sent older rows over what
    /// this journal sent, without a batch of it ever being refused. One request.
    pub(crate) async fn answer_claim(&self, store: &StoreId, dataset: &DatasetName) -> Result<()> {
        let Some(position) = self.journal.stream(store, dataset)? else { return Ok(()) };
        let own = paths::epoch_claim(store, dataset, position.epoch)?;
        let later = list_all(&self.ports.objects, folder_of(&own), Some(own.as_str())).await?;
        let Some((epoch, claim)) = later.iter().filter_map(|meta| Some((epoch_of(&meta.path)?, meta))).next_back()
        else {
            return Ok(());
        };
        if self.is_old_enough(epoch, claim) { self.begin_next_epoch(store, dataset).await } else { Ok(()) }
    }

    /// Claims the next free epoch of a stream. One claimed before a crash stays unused.
    pub(crate) async fn claim_epoch(&self, store: &StoreId, dataset: &DatasetName) -> Result<u32> {
        let held = self.journal.stream(store, dataset)?.map_or(0, |position| position.epoch + 1);
        let mut epoch = held.max(self.first_unclaimed(store, dataset).await?);
        let claim = EpochClaim {
            journal_id: self.journal.id().to_owned(),
            claimed_at: self.ports.clock.now(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let body: Bytes = serde_json::to_vec(&claim)
            .map_err(|error| Error::bug("an epoch claim does not serialise").with_source(error))?
            .into();
        loop {
            let path = paths::epoch_claim(store, dataset, epoch)?;
            let outcome = self
                .with_retries(async || {
                    self.ports.fail_points.hit(step::EPOCH_CLAIM)?;
                    self.ports.objects.put_if_absent(&path, body.clone().into()).await
                })
                .await?;
            match outcome {
                PutOutcome::Created => return Ok(epoch),
                // Perhaps an earlier attempt of ours: a free epoch costs nothing, doubt would.
                PutOutcome::Exists => epoch += 1,
            }
        }
    }

    async fn begin_next_epoch(&self, store: &StoreId, dataset: &DatasetName) -> Result<()> {
        let epoch = self.claim_epoch(store, dataset).await?;
        self.log(format!("store {store}, dataset {dataset}: another journal used this stream; epoch {epoch} begins"));
        self.journal.begin_epoch(store, dataset, epoch, self.ports.clock.now())
    }

    /// By the object store's clock, as far as it is known.
    fn is_old_enough(&self, epoch: u32, claim: &ObjectMeta) -> bool {
        let minutes = (1_i64 << epoch.min(32)).min(ANSWER_AFTER_MINUTES_MAX);
        let now = self.object_store_now();
        now.is_none_or(|now| now.duration_since(claim.modified) >= SignedDuration::from_mins(minutes))
    }

    async fn first_unclaimed(&self, store: &StoreId, dataset: &DatasetName) -> Result<u32> {
        let first = paths::epoch_claim(store, dataset, 0)?;
        let claimed = self.with_retries(async || list_all(&self.ports.objects, folder_of(&first), None).await).await?;
        let epochs = claimed.iter().filter_map(|meta| epoch_of(&meta.path));
        Ok(epochs.max().map_or(0, |highest| highest + 1))
    }
}

/// What the paths of all claims of a stream begin with.
fn folder_of(claim: &ObjectPath) -> &str {
    claim.as_str().trim_end_matches(claim.file_name())
}

fn epoch_of(claim: &ObjectPath) -> Option<u32> {
    claim.file_name().strip_suffix(".json")?.parse().ok()
}
