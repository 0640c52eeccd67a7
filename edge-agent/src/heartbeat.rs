//! The heartbeat: what the centre sees of an agent that it cannot reach.

use jiff::{SignedDuration, Timestamp};
use ribera_storage::heartbeat::{ALARMS_MAX, AuditAlarm, Heartbeat, LastRun, SpoolDepth};
use ribera_storage::{Error, ObjectStore, Result, StoreId, paths};

use crate::agent::{Agent, ServedStore};
use crate::ports::step;

/// After so long this clock is measured again before a cycle: it may have been set since. The
/// heartbeat of each minute measures it too.
const MEASURED_FOR_S: i64 = 120;

/// This clock against the object store's.
#[derive(Debug, Clone, Copy)]
pub struct ClockOffset {
    /// This clock less the object store's.
    pub seconds: i64,
    /// By this clock.
    measured_at: Timestamp,
}

impl<S: ObjectStore> Agent<S> {
    /// Puts the heartbeat of every served store (of those wanted). One that fails is not tried
    /// again: the next minute brings another.
    pub async fn beat(&self, stores: &[StoreId]) -> Result<()> {
        let mut first_failure = Ok(());
        for store in self.served(stores) {
            if let Err(error) = self.beat_store(store).await {
                first_failure = first_failure.and(Err(error));
            }
        }
        first_failure
    }

    /// Measures this clock against the object store's, if that was not done of late. Where it
    /// cannot be reached the last measurement stands.
    pub(crate) async fn measure_clock(&self, stores: &[StoreId]) {
        let now = self.ports.clock.now();
        let fresh =
            |offset: ClockOffset| (0..MEASURED_FOR_S).contains(&now.duration_since(offset.measured_at).as_secs());
        if !self.clock_offset.get().is_some_and(fresh)
            && let Some(store) = self.served(stores).next()
            && let Err(error) = self.beat_store(store).await
        {
            tracing::warn!("heartbeat: {error}");
        }
    }

    /// The object store's time, once this clock was measured against it.
    pub(crate) fn object_store_now(&self) -> Option<Timestamp> {
        let offset = SignedDuration::from_secs(self.clock_offset.get()?.seconds);
        self.ports.clock.now().checked_sub(offset).ok()
    }

    async fn beat_store(&self, store: &ServedStore) -> Result<()> {
        let id = &store.config.id;
        let path = paths::heartbeat(id)?;
        let mut alarms: Vec<AuditAlarm> =
            self.journal.alarms()?.into_iter().filter(|one| one.store == *id).map(|one| one.alarm).collect();
        alarms.sort_by(|one, other| (&one.dataset, other.unit).cmp(&(&other.dataset, one.unit)));
        let alarms_total = alarms.len() as u64;
        alarms.truncate(ALARMS_MAX);
        let heartbeat = Heartbeat {
            store: id.clone(),
            at: self.ports.clock.now(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            journal_id: self.journal.id().to_owned(),
            clock_offset_s: self.clock_offset.get().map(|offset| offset.seconds),
            spool: self.spool_depth(id)?,
            runs: self.last_runs(store)?,
            alarms,
            alarms_total,
            log_tail: self.log_tail.borrow().clone(),
        };
        let body = serde_json::to_vec(&heartbeat)
            .map_err(|error| Error::bug("a heartbeat does not serialise").with_source(error))?;
        self.ports.steps.at(step::HEARTBEAT)?;
        self.ports.objects.put(&path, body.into()).await?;
        if let Some(meta) = self.ports.objects.head(&path).await? {
            let measured_at = self.ports.clock.now();
            let seconds = measured_at.duration_since(meta.modified).as_secs();
            self.clock_offset.set(Some(ClockOffset { seconds, measured_at }));
        }
        Ok(())
    }

    fn spool_depth(&self, store: &StoreId) -> Result<SpoolDepth> {
        let used = self.journal.spool_use(Some(store))?;
        Ok(SpoolDepth {
            batches: used.batches,
            bytes: used.bytes,
            bytes_max: self.config.limits.spool_bytes_max,
            oldest: used.oldest,
        })
    }

    fn last_runs(&self, store: &ServedStore) -> Result<Vec<LastRun>> {
        let mut runs = Vec::new();
        for (dataset, _) in self.config.datasets(&store.config) {
            if let Some((begun_at, outcome)) = self.journal.last_cycle(&store.config.id, dataset)? {
                runs.push(LastRun { dataset: dataset.clone(), begun_at, outcome });
            }
        }
        Ok(runs)
    }
}
