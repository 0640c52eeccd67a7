//! The agent: its ports, its journal, its stores; and what it puts in order when it starts.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use ribera_storage::dataset::DatasetDefinition;
use ribera_storage::ports::{Clock, Random};
use ribera_storage::{DatasetName, ObjectStore, Result, StoreId};

use crate::config::{Config, StoreConfig};
use crate::journal::Journal;
use crate::objects::uplink::Uplink;
use crate::ports::{FailPoints, SpoolDisk, Timer, step};
use crate::report::UploadReport;
use crate::source::Source;
use clock::SourceClocks;

mod clock;
mod definitions;

pub use clock::{ClockOffset, is_off, rounded};
pub use definitions::{DatasetContext, StoreCalendar};

/// What the agent is given by its host or by a simulation.
#[derive(Clone)]
pub struct Ports<S> {
    pub objects: S,
    pub clock: Rc<dyn Clock>,
    pub random: Rc<dyn Random>,
    pub timer: Rc<dyn Timer>,
    pub disk: Rc<dyn SpoolDisk>,
    pub fail_points: Rc<dyn FailPoints>,
}

/// Hears of rows as they are extracted, for a progress bar.
pub trait Progress {
    fn batch_begins(&self, _store: &StoreId, _dataset: &DatasetName, _rows: u64) {}
    fn batch_done(&self, _store: &StoreId, _dataset: &DatasetName, _rows: u64) {}
    /// So many days of one dataset were compared, and sent where they differed.
    fn days_done(&self, _days: u64) {}
    /// Whether a person wants the backfill to end after the month that it is at.
    fn stops(&self) -> bool {
        false
    }
}

pub struct NoProgress;

impl Progress for NoProgress {}

/// A store that the agent serves.
pub struct ServedStore {
    pub config: StoreConfig,
    pub source: Box<dyn Source>,
}

pub struct Agent<S> {
    pub config: Config,
    pub ports: Ports<S>,
    pub journal: Journal,
    pub stores: Vec<ServedStore>,
    pub progress: Rc<dyn Progress>,
    /// A backfill leaves room for daily work: between two months what waits is sent, and cycles that are due begin.
    pub beside_daily_work: bool,
    /// What was sent between the months of a backfill, until the report takes it.
    pub(crate) sent_meanwhile: RefCell<UploadReport>,
    pub uplink: Arc<Uplink>,
    /// Once measured.
    pub clock_offset: Cell<Option<ClockOffset>>,
    /// Newest last, for the heartbeat.
    pub log_tail: RefCell<Vec<String>>,
    /// When each store's heartbeat was put, and what it told.
    pub(crate) beaten: RefCell<BTreeMap<StoreId, (jiff::Timestamp, String)>>,
    /// When each stream's answers were last asked for.
    pub(crate) answers_asked_at: RefCell<BTreeMap<(StoreId, DatasetName), jiff::Timestamp>>,
    /// The clock of each source that was asked for it.
    pub(crate) source_clocks: RefCell<SourceClocks>,
    /// Definitions that were parsed, with their text.
    parsed: RefCell<BTreeMap<DatasetName, (String, DatasetDefinition)>>,
}

impl<S: ObjectStore> Agent<S> {
    /// Takes the parts and puts the spool in order: what no batch needs any more is deleted.
    pub fn start(config: Config, ports: Ports<S>, journal: Journal, stores: Vec<ServedStore>) -> Result<Self> {
        let agent = Self {
            uplink: Arc::new(Uplink::new(&config.limits)),
            config,
            ports,
            journal,
            stores,
            progress: Rc::new(NoProgress),
            beside_daily_work: false,
            sent_meanwhile: RefCell::default(),
            clock_offset: Cell::new(None),
            log_tail: RefCell::new(Vec::new()),
            beaten: RefCell::default(),
            answers_asked_at: RefCell::default(),
            source_clocks: RefCell::default(),
            parsed: RefCell::default(),
        };
        agent.delete_orphans()?;
        Ok(agent)
    }

    /// The configured stores that are wanted; all if none is named.
    pub fn served<'a>(&'a self, wanted: &'a [StoreId]) -> impl Iterator<Item = &'a ServedStore> {
        self.stores.iter().filter(move |store| wanted.is_empty() || wanted.contains(&store.config.id))
    }

    /// The ids of [`Agent::served`].
    pub fn served_ids(&self, wanted: &[StoreId]) -> Vec<StoreId> {
        self.served(wanted).map(|store| store.config.id.clone()).collect()
    }

    /// Remembers a line for people who look from afar.
    pub fn log(&self, line: impl Into<String>) {
        let line = line.into();
        tracing::warn!("{line}");
        self.keep_line(&line);
    }

    /// Logs something that a person must act on.
    pub fn log_error(&self, line: impl Into<String>) {
        let line = line.into();
        tracing::error!("{line}");
        self.keep_line(&line);
    }

    fn keep_line(&self, line: &str) {
        const LINES_MAX: usize = 50;
        let mut tail = self.log_tail.borrow_mut();
        if tail.len() >= LINES_MAX {
            tail.remove(0);
        }
        tail.push(format!("{} {line}", self.ports.clock.now()));
    }

    /// The lines of a store's own. A line that names no store is of no one else where only one is served.
    pub(crate) fn log_tail_of(&self, store: &StoreId) -> Vec<String> {
        let only_one = self.stores.len() == 1;
        let is_its_own = |line: &&String| {
            let said = line.split_once(' ').map_or("", |(_, said)| said);
            match said.strip_prefix("store ") {
                Some(rest) => rest.strip_prefix(store.as_str()).is_some_and(|rest| rest.starts_with([',', ':'])),
                None => only_one,
            }
        };
        self.log_tail.borrow().iter().filter(is_its_own).cloned().collect()
    }

    /// Deletes a file that no batch needs.
    pub(crate) fn prune(&self, file: &str) -> Result<()> {
        self.ports.fail_points.hit(step::SPOOL_PRUNE)?;
        self.ports.disk.delete(file)
    }

    fn remember(&self, kind: &str, name: &str, text: &str) -> Result<()> {
        if self.config.dry_run { Ok(()) } else { self.journal.cache_definition(kind, name, text) }
    }

    /// Files of crashed extractions, and of batches that were done with when the agent ended.
    fn delete_orphans(&self) -> Result<()> {
        if self.config.dry_run {
            return Ok(());
        }
        let live = self.journal.live_files()?;
        for (name, _) in self.ports.disk.list()? {
            if !live.contains(&name) {
                self.prune(&name)?;
            }
        }
        Ok(())
    }
}
