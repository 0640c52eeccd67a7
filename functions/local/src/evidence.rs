//! Coverage of what a command read: evidence first, snapshots later.
//!
//! The order matters. A doubt about a store-day ends when the batch that repairs it is committed. Were
//! it looked up after the rows were read, it could have ended meanwhile, over rows that it still
//! concerns.

use ribera_core::coverage::{self, Coverage};
use ribera_storage::dataset::DatasetDefinition;
use ribera_storage::delta::Snapshot;
use ribera_storage::ports::Clock as _;
use ribera_storage::{DatasetName, ErrorKind, Result};

use crate::lake::Lake;
use crate::ports::SystemClock;

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
    /// Gathers the evidence of every dataset that `is_wanted`. Call it before the first snapshot is
    /// loaded.
    pub async fn gather(lake: &Lake, is_wanted: impl Fn(&DatasetDefinition) -> bool) -> Result<Self> {
        let wanted: Vec<DatasetDefinition> = lake.datasets.iter().filter(|one| is_wanted(one)).cloned().collect();
        if wanted.is_empty() {
            return Ok(Self { known: coverage::Evidence::default() });
        }
        Ok(Self { known: coverage::Evidence::gather(&lake.objects, &wanted).await? })
    }

    /// Judges the version that the command read, by what was known before and by what the newest
    /// version has corrected since. Data that cannot be read makes the coverage unknown; it does
    /// not take the answer back.
    pub async fn judge(&self, lake: &Lake, dataset: &DatasetName, snapshot: Option<&Snapshot>) -> Result<Judgement> {
        match self.try_judge(lake, dataset, snapshot).await {
            Ok(coverage) => Ok(Judgement::Known(coverage)),
            Err(error) if error.kind() == ErrorKind::Data => Ok(Judgement::Unknown(error.to_string())),
            Err(error) => Err(error),
        }
    }

    async fn try_judge(&self, lake: &Lake, dataset: &DatasetName, snapshot: Option<&Snapshot>) -> Result<Coverage> {
        let mut newest = snapshot.cloned();
        if let Some(newest) = &mut newest {
            let table = lake.table(dataset);
            table.refresh(newest).await?;
            table.load_facts(newest, None, None).await?;
        }
        coverage::judge_snapshot(&self.known, lake.dataset(dataset)?, snapshot, newest.as_ref(), SystemClock.now())
    }
}
