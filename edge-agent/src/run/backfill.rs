//! A backfill beside daily work: what a person asked for, and what a store does between two of its months. History
//! has time; today's sales and the heartbeat have not.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::civil::Date;
use ribera_storage::{DatasetName, Error, ObjectStore, Result, StoreId};
use serde::{Deserialize, Serialize};

use crate::agent::{Agent, ServedStore};
use crate::journal::Journal;
use crate::ports::disk_error;
use crate::report::UploadReport;
use crate::run::collect::{Request, RunMode};
use crate::run::session::ExtractionSession;

/// Where the journal keeps the backfill that has not come to its end.
const NOTED: &str = "backfill";
/// While a backfill waits for its hours, it is looked this often what else there is to do.
const LOOK: Duration = Duration::from_secs(60);

/// What was asked for, as the journal keeps it until it is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backfill {
    pub from: Date,
    pub to: Date,
    pub force: bool,
    pub stores: Vec<StoreId>,
    pub datasets: Vec<DatasetName>,
    /// It stays as it is until a person lets it go on.
    #[serde(default)]
    pub stopped: bool,
}

/// What a command tells an agent that runs: it alone may write the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    Begin(Backfill),
    Stop,
    Resume,
    Cancel,
}

impl Backfill {
    /// # Errors
    /// As the journal's.
    pub fn noted(journal: &Journal) -> Result<Option<Self>> {
        Ok(journal.noted(NOTED)?.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Notes it, or that there is none any more.
    ///
    /// # Errors
    /// As the journal's.
    pub fn note(journal: &Journal, backfill: Option<&Self>) -> Result<()> {
        let text = backfill.map(serde_json::to_string).transpose();
        let text = text.map_err(|error| Error::bug("a backfill does not serialise").with_source(error))?;
        journal.note(NOTED, text.as_deref())
    }
}

impl Order {
    /// Leaves an order in the agent's folder.
    ///
    /// # Errors
    /// Config: the folder cannot be written.
    pub fn leave(&self, folder: &Path) -> Result<()> {
        let path = file(folder);
        let fresh = path.with_extension("new");
        let text =
            serde_json::to_vec(self).map_err(|error| Error::bug("an order does not serialise").with_source(error))?;
        std::fs::write(&fresh, text)
            .and_then(|()| std::fs::rename(&fresh, &path))
            .map_err(|error| disk_error("write", &path, error))
    }

    /// Whether an order waits.
    pub fn waits(folder: &Path) -> bool {
        file(folder).exists()
    }

    /// Does what an order asks for in the journal. The order is gone afterwards, also one that cannot be read.
    ///
    /// # Errors
    /// As the journal's.
    pub fn take(folder: &Path, journal: &Journal) -> Result<()> {
        let path = file(folder);
        let Ok(text) = std::fs::read(&path) else { return Ok(()) };
        let known = Backfill::noted(journal)?;
        match serde_json::from_slice(&text) {
            Ok(Self::Begin(backfill)) => Backfill::note(journal, Some(&backfill))?,
            Ok(Self::Cancel) => Backfill::note(journal, None)?,
            Ok(Self::Stop) => Backfill::note(journal, known.map(|one| Backfill { stopped: true, ..one }).as_ref())?,
            Ok(Self::Resume) => Backfill::note(journal, known.map(|one| Backfill { stopped: false, ..one }).as_ref())?,
            Err(error) => tracing::warn!("{}: is no order: {error}", path.display()),
        }
        std::fs::remove_file(&path).map_err(|error| disk_error("delete", &path, error))
    }
}

fn file(folder: &Path) -> PathBuf {
    folder.join("backfill.order")
}

impl<S: ObjectStore> Agent<S> {
    /// Between two months of a store's history: sends what waits and begins what is due, if daily work goes on
    /// beside the backfill.
    pub(crate) async fn between_months(&self, store: &ServedStore) {
        if !self.beside_daily_work || self.config.dry_run {
            return;
        }
        let ids = [store.config.id.clone()];
        // Only datasets that have had a cycle: the first one is not the task of a backfill.
        let cycled = |name: &DatasetName| self.journal.last_cycle(&ids[0], name).is_ok_and(|last| last.is_some());
        let datasets: Vec<DatasetName> =
            self.config.datasets(&store.config).map(|(name, _)| name.clone()).filter(cycled).collect();
        if !datasets.is_empty() {
            let due = Request { ask: RunMode::Due, stores: ids.to_vec(), datasets };
            // What fails is told in the log, and again by the cycle after the backfill.
            Box::pin(self.collect(&due)).await;
        }
        if self.config.local_only {
            return;
        }
        let mut report = UploadReport::default();
        let sent = self.upload(&ids, &mut report).await;
        let answered = self.read_acks(&ids, &mut report).await;
        self.sent_meanwhile.borrow_mut().add(&report);
        for error in [sent.err(), answered.err()].into_iter().flatten() {
            self.log(format!("store {}: between two months: {error}", ids[0]));
        }
    }

    /// Waits, and does meanwhile what there is to do. Ends early if a person wants the backfill to end.
    pub(crate) async fn wait_beside_daily_work(&self, reading: &ExtractionSession<'_>, wait: Duration) {
        if !self.beside_daily_work {
            return self.ports.timer.sleep(wait).await;
        }
        let mut left = wait;
        while !left.is_zero() && !self.progress.stops() {
            self.between_months(reading.context.store).await;
            let nap = left.min(LOOK);
            self.ports.timer.sleep(nap).await;
            left -= nap;
        }
    }
}
