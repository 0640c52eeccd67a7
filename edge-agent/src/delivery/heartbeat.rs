//! The heartbeat: what the centre sees of an agent that it cannot reach.

use ribera_storage::heartbeat::{ALARMS_MAX, AuditAlarm, Heartbeat, LastRun, SpoolDepth};
use ribera_storage::{Error, ObjectStore, Result, StoreId, paths};

use crate::agent::{Agent, ClockOffset, ServedStore, is_off};
use crate::plan::has_passed;
use crate::ports::step;

/// Maximum age of a clock measurement before a cycle; the clock may have been changed since. Each heartbeat
/// measures it too: a longer age than between two of them costs no request.
const MEASURED_FOR_S: i64 = 720;

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

    /// Puts the heartbeats that are due: of a store whose state has changed, or that has put none for `heartbeat_s`.
    pub async fn beat_if_due(&self, stores: &[StoreId]) -> Result<()> {
        let every_s = i64::try_from(self.config.limits.heartbeat_s).unwrap_or(i64::MAX);
        let mut first_failure = Ok(());
        for store in self.served(stores) {
            let known = self.beaten.borrow().get(&store.config.id).cloned();
            let heartbeat = self.heartbeat(store)?;
            let due = known.is_none_or(|(at, told)| has_passed(every_s, at, heartbeat.at) || told != state(&heartbeat));
            if due && let Err(error) = self.put_heartbeat(heartbeat).await {
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

    async fn beat_store(&self, store: &ServedStore) -> Result<()> {
        self.put_heartbeat(self.heartbeat(store)?).await
    }

    async fn put_heartbeat(&self, heartbeat: Heartbeat) -> Result<()> {
        let path = paths::heartbeat(&heartbeat.store)?;
        let state = state(&heartbeat);
        let body = serde_json::to_vec(&heartbeat)
            .map_err(|error| Error::bug("a heartbeat does not serialise").with_source(error))?;
        self.ports.fail_points.hit(step::HEARTBEAT)?;
        if let Some(then) = self.ports.objects.put_timed(&path, body.into()).await? {
            let measured_at = self.ports.clock.now();
            let seconds = measured_at.duration_since(then).as_secs();
            self.clock_offset.set(Some(ClockOffset { seconds, measured_at }));
        }
        self.beaten.borrow_mut().insert(heartbeat.store, (heartbeat.at, state));
        Ok(())
    }

    fn heartbeat(&self, store: &ServedStore) -> Result<Heartbeat> {
        let id = &store.config.id;
        let mut alarms: Vec<AuditAlarm> =
            self.journal.alarms()?.into_iter().filter(|one| one.store == *id).map(|one| one.alarm).collect();
        alarms.sort_by(|one, other| (&one.dataset, other.unit).cmp(&(&other.dataset, one.unit)));
        let alarms_total = alarms.len() as u64;
        alarms.truncate(ALARMS_MAX);
        Ok(Heartbeat {
            store: id.clone(),
            at: self.ports.clock.now(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            journal_id: self.journal.id().to_owned(),
            clock_offset_s: self.clock_offset.get().map(|offset| offset.seconds),
            source_clock_offset_s: self.source_clocks.borrow().get(id).copied(),
            spool: self.spool_depth(id)?,
            runs: self.last_runs(store)?,
            alarms,
            alarms_total,
            log_tail: self.log_tail_of(id),
        })
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

/// What a person would want to know at once: how the last runs ended, what is abandoned or refused, whether anything
/// waits.
fn state(heartbeat: &Heartbeat) -> String {
    let runs: Vec<String> = heartbeat.runs.iter().map(|run| format!("{} {}", run.dataset, run.outcome)).collect();
    let alarms: Vec<String> =
        heartbeat.alarms.iter().map(|one| format!("{} {} {:?}", one.dataset, one.unit, one.trouble)).collect();
    let waits = heartbeat.spool.batches > 0;
    let clock_is_off = heartbeat.source_clock_offset_s.is_some_and(is_off);
    format!("{runs:?} {alarms:?} {} {waits} {clock_is_off} {}", heartbeat.alarms_total, heartbeat.journal_id)
}
