//! A function host: events, sweeps, coverage and maintenance on schedules, each call with a time
//! limit; the whole program dies and comes back. Two of them run at once.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use futures::FutureExt;
use futures::future::{Either, select};
use jiff::{SignedDuration, Timestamp};
use ribera_core::coverage::{self, CoverageSettings, Refreshed};
use ribera_core::ingest::{self, IngestSettings, SweepBudget};
use ribera_storage::delta::{MergeOptions, Table, merge_plan};
use ribera_storage::object::ObjectPath;
use ribera_storage::ports;
use ribera_storage::ports::{Clock, Random};
use ribera_storage::{ErrorKind, Result, control, paths};

use super::cloud::{Cloud, Program, SimStore, Watcher, timestamp};
use super::kernel::{Chance, HOUR, MINUTE, Micros, SECOND, Sim};
use super::lake::LakeModel;
use super::machine::LOOK_EVERY;
use super::tally::Fault;

/// True time, or a clock that is off.
#[derive(Clone)]
pub struct SimClock {
    sim: Sim,
    off: Rc<Cell<Micros>>,
}

impl SimClock {
    pub fn new(sim: &Sim, off: Rc<Cell<Micros>>) -> Self {
        Self { sim: sim.clone(), off }
    }

    pub fn right(sim: &Sim) -> Self {
        Self::new(sim, Rc::default())
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        timestamp(self.sim.now() + self.off.get())
    }
}

#[derive(Clone)]
pub struct SimRandom(pub Rc<Chance>);

impl Random for SimRandom {
    fn next_u64(&self) -> u64 {
        self.0.next_u64()
    }
}

/// Small enough that files of all sizes come to be, and some are too large to be merged again.
const MERGING: MergeOptions = MergeOptions {
    files_min: 4,
    tier_bytes: 4 << 10,
    grown_bytes: 48 << 10,
    group_bytes_max: 64 << 10,
    group_units_max: 300,
    table_quiet_days: 7,
};

/// How often a host does what, and how long a call may take.
#[derive(Debug, Clone)]
pub struct HostSchedule {
    pub sweep_every: Micros,
    pub coverage_every: Micros,
    pub maintain_every: Micros,
    /// An operator offers everything that lies in quarantine again.
    pub replay_every: Micros,
    pub call_limit: Micros,
    /// Removed files are kept this long: shorter than in production, so that vacuum has work
    /// within the simulated days, and longer than a ready record may live.
    pub vacuum_retention: SignedDuration,
}

impl Default for HostSchedule {
    fn default() -> Self {
        Self {
            sweep_every: 5 * HOUR,
            coverage_every: 8 * HOUR,
            maintain_every: 20 * HOUR,
            replay_every: 5 * HOUR,
            call_limit: 15 * MINUTE,
            vacuum_retention: SignedDuration::from_hours(36),
        }
    }
}

type OwnPorts = ports::Host<SimStore, SimClock, SimRandom>;

pub struct Host {
    cloud: Rc<Cloud>,
    lake: Rc<LakeModel>,
    program: Rc<Program>,
    schedule: HostSchedule,
    own: OwnPorts,
    stopped: Cell<bool>,
}

impl Host {
    pub fn new(cloud: &Rc<Cloud>, lake: &Rc<LakeModel>, name: &str, schedule: HostSchedule) -> Rc<Self> {
        let program = Program::new(&cloud.sim, name, "host", Some(Fault::HostCrash));
        let random = SimRandom(Rc::clone(&program.chance));
        let own = ports::Host::new(SimStore::new(cloud, &program), SimClock::right(&cloud.sim), random);
        Rc::new(Self {
            cloud: Rc::clone(cloud),
            lake: Rc::clone(lake),
            program,
            schedule,
            own,
            stopped: Cell::new(false),
        })
    }

    /// Starts the program; it starts again by itself after each death.
    pub fn start(self: &Rc<Self>) {
        let sim = &self.cloud.sim;
        let me = Rc::clone(self);
        let group = sim.new_group(move |sim| {
            let me = Rc::clone(&me);
            if me.stopped.get() {
                return;
            }
            let down = sim.chance().between(SECOND, 20 * MINUTE);
            let nursery = sim.new_group(|_| {});
            sim.spawn(nursery, {
                let sim = sim.clone();
                async move {
                    sim.sleep(down).await;
                    me.start();
                }
            });
        });
        self.program.group.set(group);
        let HostSchedule { sweep_every, coverage_every, maintain_every, replay_every, .. } = self.schedule;
        self.every("sweep", sweep_every, async |host| host.sweep().await);
        self.every("coverage", coverage_every, async |host| host.refresh_coverage().await);
        self.every("maintain", maintain_every, async |host| {
            host.wait_for_burst().await;
            host.maintain().await;
        });
        self.every("replay", replay_every, async |host| host.replay_quarantined().await);
    }

    /// An event arrives. A host that is down does not hear it.
    pub fn deliver(self: &Rc<Self>, paths: Vec<ObjectPath>) {
        let sim = &self.cloud.sim;
        let group = self.program.group.get();
        if !sim.is_alive(group) {
            return;
        }
        let me = Rc::clone(self);
        sim.spawn(group, async move {
            let settings = IngestSettings::default();
            me.call("ingest", ingest::ingest_event(me.own.ports(), &settings, &paths).map(|report| report.map(drop)))
                .await;
        });
    }

    /// One whole sweep, as often as it asks to be called again.
    pub async fn sweep(&self) {
        let lay_there = if self.cloud.is_faulty() { Vec::new() } else { self.lake.honest_manifests_waiting() };
        self.try_sweep().await;
        // Nothing goes wrong any more: whatever one store has piled up, no other waits for the next sweep.
        if !self.cloud.is_faulty() {
            self.lake.check_swept(&lay_there);
        }
    }

    async fn try_sweep(&self) {
        let (settings, budget) = (IngestSettings::default(), SweepBudget::default());
        for _ in 0..20 {
            let more = Cell::new(false);
            let sweep = ingest::sweep(self.own.ports(), &settings, &budget);
            self.call("sweep", sweep.map(|report| report.map(|report| more.set(report.more)))).await;
            if !more.get() {
                return;
            }
        }
    }

    pub async fn refresh_coverage(&self) {
        let settings = CoverageSettings::default();
        let refresh = coverage::refresh(self.own.ports(), &settings);
        self.call("coverage", refresh.map(|refreshed| refreshed.map(|refreshed| self.check_refreshed(&refreshed))))
            .await;
    }

    /// I9. A dataset fails only where the object store itself did not answer.
    fn check_refreshed(&self, refreshed: &Refreshed) {
        self.cloud.tally.borrow_mut().check("I9 coverage of every dataset is computed");
        for failed in refreshed.failed.iter().filter(|failed| !failed.error.contains("simulated:")) {
            self.lake.fail(format!("I9 coverage of every dataset is computed: {}: {}", failed.dataset, failed.error));
        }
    }

    /// What `ribera maintain` does: merging, checkpoint, vacuum.
    pub async fn maintain(&self) {
        self.call("maintain", self.maintain_tables()).await;
    }

    /// The same a few times in a program of its own, unless it dies or is stopped before.
    pub fn begin_maintenance(self: &Rc<Self>) {
        let group = self.cloud.sim.new_group(|_| {});
        self.program.group.set(group);
        let me = Rc::clone(self);
        self.cloud.sim.spawn(group, async move {
            for _ in 0..3 {
                me.maintain().await;
                me.cloud.sim.sleep(MINUTE).await;
            }
        });
    }

    /// What an operator does who has looked at the quarantine: batches that were put aside because
    /// calls died handling them are taken now; those that are bad are refused again.
    pub async fn replay_quarantined(&self) {
        self.call("replay", self.try_replay()).await;
    }

    async fn try_replay(&self) -> Result<()> {
        for entry in ribera_core::quarantine::list(self.own.ports(), None, 10_000).await? {
            // A clone's record stands beside the first's, and is not replayed.
            if let Some(batch) = entry.batch
                && paths::quarantine(&batch)?.as_str() == entry.path
                // Nobody offers the crowds of a hostile store again but now and then.
                && (!self.lake.is_hostile(&batch.store) || (self.cloud.is_faulty() && self.program.chance.percent(5)))
            {
                match ribera_core::quarantine::replay(self.own.ports(), &batch).await {
                    Ok(_) => self.cloud.tally.borrow_mut().amount("batches replayed", 1),
                    // Its day was not over when it came: the agent sends it again.
                    Err(error) if error.kind() == ErrorKind::Config => {
                        self.cloud.tally.borrow_mut().amount("replays refused", 1);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    async fn maintain_tables(&self) -> Result<()> {
        let ports = self.own.ports();
        for dataset in control::load_published_datasets(ports.objects).await? {
            let table = Table::new(ports.objects, dataset.name.clone());
            let Some(snapshot) = table.load().await? else { continue };
            let today = ports.clock.now().to_zoned(jiff::tz::TimeZone::UTC).date();
            for group in merge_plan(&snapshot, today, &MERGING) {
                let merged = table.merge(ports, &dataset, &group).await?;
                self.cloud.tally.borrow_mut().amount("merges", u64::from(merged.committed));
                if let Some(error) = merged.left_alone.first() {
                    self.lake.fail(format!("I4 a merge finds every file as the log says: {error}"));
                }
            }
            table.checkpoint(ports).await?;
            let now = self.cloud.now();
            let plan = table.vacuum_plan(now, self.schedule.vacuum_retention).await?;
            table.delete_objects(&plan).await?;
            self.cloud.tally.borrow_mut().amount("files vacuumed", plan.len() as u64);
            let plan = table.log_cleanup_plan(now).await?;
            table.delete_objects(&plan).await?;
        }
        Ok(())
    }

    /// Until about when most agents send: maintenance is worth testing only against commits.
    async fn wait_for_burst(&self) {
        let sim = &self.cloud.sim;
        let into = sim.now().rem_euclid(LOOK_EVERY);
        sim.sleep(LOOK_EVERY - into + sim.chance().between(0, 40 * SECOND)).await;
    }

    /// Ends the program for good.
    pub fn stop(&self) {
        self.stopped.set(true);
        self.cloud.sim.kill(self.program.group.get());
    }

    fn every(self: &Rc<Self>, name: &str, span: Micros, work: impl AsyncFn(&Self) + 'static) {
        let me = Rc::clone(self);
        let sim = self.cloud.sim.clone();
        // Each schedule keeps its own pace: what a call took longer moves no other.
        let chance = sim.chance_of(&format!("{} {name} {}", self.program.name, sim.now()));
        self.cloud.sim.spawn(self.program.group.get(), async move {
            loop {
                sim.sleep(chance.between(span / 2, span + span / 2)).await;
                work(&me).await;
            }
        });
    }

    /// Runs a call to its end or its limit; now and then the limit comes early.
    async fn call(&self, name: &'static str, work: impl Future<Output = Result<()>>) {
        let sim = &self.cloud.sim;
        let early = self.cloud.strikes(Fault::CallAborted, 10_000);
        let limit = if early { sim.chance().between(0, 3 * SECOND) } else { self.schedule.call_limit };
        let (ended, is_sound) = match select(Box::pin(work), Box::pin(sim.sleep(limit))).await {
            Either::Left((Ok(()), _)) => ("done".to_owned(), true),
            Either::Left((Err(error), _)) => (format!("failed: {error:?}"), error.is_retry()),
            Either::Right(_) => ("ended at its limit".to_owned(), early || self.cloud.is_faulty()),
        };
        self.cloud.tally.borrow_mut().amount("calls", 1);
        sim.trace(&format!("{} {name} {ended}", self.program.name));
        self.cloud.tally.borrow_mut().check("I9 no call dies of what a store wrote");
        if !is_sound {
            self.lake.fail(format!("I9 no call dies of what a store wrote: {} {name} {ended}", self.program.name));
        }
    }
}

/// A queue gathers events for so long before it wakes a host, and so many at most.
const GATHERED_FOR: Micros = 3 * MINUTE;
const GATHERED_MAX: usize = 15;

/// Turns each new manifest into an event for some host: lost, doubled, late or in time, alone or
/// with others.
pub struct Events {
    cloud: Rc<Cloud>,
    hosts: Vec<Rc<Host>>,
    /// By host: what its queue gathers.
    gathered: Vec<Rc<RefCell<Vec<ObjectPath>>>>,
    /// In parts of a million.
    lost: u64,
    group: u32,
}

impl Events {
    pub fn new(cloud: &Rc<Cloud>, hosts: &[Rc<Host>], lost: u64) -> Rc<Self> {
        let group = cloud.sim.new_group(|_| {});
        let gathered = hosts.iter().map(|_| Rc::default()).collect();
        Rc::new(Self { cloud: Rc::clone(cloud), hosts: hosts.to_vec(), gathered, lost, group })
    }

    fn send(&self, path: ObjectPath) {
        let chance = self.cloud.sim.chance();
        let index = chance.index(self.hosts.len());
        if self.cloud.strikes(Fault::EventLate, 50_000) {
            self.deliver_after(chance.between(MINUTE, 6 * HOUR), index, Rc::new(RefCell::new(vec![path])));
        } else if chance.percent(8) {
            self.deliver_after(chance.between(0, 3 * SECOND), index, Rc::new(RefCell::new(vec![path])));
        } else {
            self.gather(index, path);
        }
    }

    fn gather(&self, index: usize, path: ObjectPath) {
        let queue = Rc::clone(&self.gathered[index]);
        let waiting = queue.borrow().len();
        if waiting == 0 {
            let span = self.cloud.sim.chance().between(SECOND, GATHERED_FOR);
            self.deliver_after(span, index, Rc::clone(&queue));
        }
        queue.borrow_mut().push(path);
        if waiting + 1 >= GATHERED_MAX {
            self.hosts[index].deliver(queue.take());
        }
    }

    fn deliver_after(&self, span: Micros, index: usize, paths: Rc<RefCell<Vec<ObjectPath>>>) {
        let (sim, host) = (self.cloud.sim.clone(), Rc::clone(&self.hosts[index]));
        self.cloud.sim.spawn(self.group, async move {
            sim.sleep(span).await;
            let paths = paths.take();
            if !paths.is_empty() {
                host.deliver(paths);
            }
        });
    }
}

impl Watcher for Events {
    fn put(&self, path: &ObjectPath, _bytes: &bytes::Bytes, _replaced: bool) {
        if !path.as_str().starts_with("inbox/") || self.cloud.strikes(Fault::EventLost, self.lost) {
            return;
        }
        self.send(path.clone());
        if self.cloud.strikes(Fault::EventDoubled, 50_000) {
            self.send(path.clone());
        }
    }

    fn deleted(&self, _path: &ObjectPath) {}
}
