//! Coverage of what a command read: evidence first, snapshots later.
//!
//! The order matters. A doubt about a store-day ends when the batch that repairs it is committed. Were
//! it looked up after the rows were read, it could have ended meanwhile, over rows that it still
//! concerns.

use ribera_core::coverage::{self, Coverage};
use ribera_storage::dataset::DatasetDefinition;
use ribera_storage::delta::Snapshot;
use ribera_storage::{DatasetName, ErrorKind, Result, StoreId};

use crate::lake::Lake;

/// What is known beside the log when a command begins.
pub struct Evidence {
    known: coverage::Evidence,
}

/// The coverage of what was read.
pub enum Judgement {
    Known(Coverage),
    /// It cannot be computed, and why: nothing may be called complete.
    Unknown(String),
}

impl Evidence {
    /// Gathers the evidence of every dataset that `is_wanted`, in the stores that are. Call it before the first
    /// snapshot is loaded.
    pub async fn gather(
        lake: &Lake,
        is_wanted: impl Fn(&DatasetDefinition) -> bool,
        is_wanted_of: impl Fn(&StoreId) -> bool,
    ) -> Result<Self> {
        let wanted: Vec<DatasetDefinition> = lake.datasets.iter().filter(|one| is_wanted(one)).cloned().collect();
        if wanted.is_empty() {
            return Ok(Self { known: coverage::Evidence::default() });
        }
        let stores = lake.stores.iter().filter(|store| is_wanted_of(&store.id)).cloned().collect();
        Ok(Self { known: coverage::Evidence::gather_of(&lake.objects, &wanted, stores).await? })
    }

    /// Judges the version that the command read, by what was known before and by what the newest
    /// version has corrected since. Data that cannot be read makes the coverage unknown; it does
    /// not take the answer back.
    pub async fn judge(&self, lake: &Lake, dataset: &DatasetName, snapshot: Option<Snapshot>) -> Result<Judgement> {
        match coverage::judge_answer(lake.ports(), &self.known, lake.dataset(dataset)?, snapshot).await {
            Ok(coverage) => Ok(Judgement::Known(coverage)),
            Err(error) if error.kind() == ErrorKind::Data => Ok(Judgement::Unknown(error.to_string())),
            Err(error) => Err(error),
        }
    }
}
