//! One seed: builds the world, lets it live with faults, calms it, and checks what must hold.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use jiff::ToSpan;
use jiff::civil::{Date, date};
use ribera_core::coverage::DayState;
use ribera_storage::StoreId;
use ribera_storage::control;
use ribera_storage::dataset::DatasetDefinition;
use ribera_storage::store::{StoreDefinition, WeekdayName};

use super::checker::Checker;
use super::cloud::{Cloud, Rates, ready};
use super::foreign;
use super::host::{Events, Host, HostSchedule};
use super::hostile::{self, HostileStore};
use super::kernel::{DAY, HOUR, MINUTE, Micros, Sim};
use super::lake::LakeModel;
use super::machine::Machine;
use super::nature::{self, Misfortunes};
use super::pos::Pos;
use super::reader::Reader;
use super::rows;
use super::run::SeedReport;
use super::twin::Outcome;

#[derive(Debug, Clone)]
pub struct WorldOptions {
    pub stores: u32,
    /// Business days.
    pub days: u32,
    pub print_trace: bool,
    /// A store that writes what it likes lives beside the others.
    pub hostile: bool,
    /// Machines, lines and the object store fail.
    pub faulty: bool,
    /// Manifests wake a host; else the sweep finds them.
    pub events: bool,
}

/// After the last business day changes and faults go on for so long.
const AFTERMATH: Micros = DAY;
/// When faults have stopped, agents get so long to look, send and hear; and longer until each has
/// looked once without a problem: a cycle that faults have put off comes when its pause is over.
const CALM: Micros = DAY;
const CALM_MAX: Micros = 3 * DAY;
/// Every moment of checking is about so far from the next.
const CHECK_EVERY: Micros = 8 * HOUR;

/// Spools are looked at so often, at this interval, until each was empty once.
const DRAIN_LOOKS: usize = 30;
const DRAIN_PAUSE: Micros = 10 * MINUTE;

/// The last maintenance begins so often while things go wrong.
const MAINTENANCE_RUNS: usize = 6;
/// It takes away thousands of lake files before it comes to the checkpoints.
const MAINTENANCE_RUN: Micros = 6 * HOUR;

pub struct World {
    sim: Sim,
    cloud: Rc<Cloud>,
    lake: Rc<LakeModel>,
    hosts: Vec<Rc<Host>>,
    machines: Vec<Rc<Machine>>,
    checker: Rc<Checker>,
    reader: Rc<Reader>,
    first: Date,
    days: u32,
    end: Micros,
    /// When each day was first seen complete, of honest stores.
    complete_since: RefCell<BTreeMap<(StoreId, Date), Micros>>,
}

impl World {
    pub fn run(seed: u64, options: &WorldOptions) -> SeedReport {
        // Tables are small here: checkpoints are read by parts all the same, row groups copied, facts kept apart.
        ribera_storage::delta::testing::use_small_bounds();
        let world = Self::new(seed, options);
        let panicked = world.live().err();
        let outcome = world.outcome();
        let mut violations = world.lake.violations();
        violations.extend(panicked);
        let tail = world.lake.first_tail().unwrap_or_else(|| world.sim.trace_tail());
        let (tally, digest) = (world.cloud.tally.borrow().clone(), world.sim.digest());
        world.sim.shut_down();
        world.cloud.unwatch();
        SeedReport { seed, tally, digest, violations, tail, outcome }
    }

    fn new(seed: u64, options: &WorldOptions) -> Self {
        // Around a month's end, so that weeks lie in two partitions.
        let first = date(2026, 2, 20).checked_add(((seed % 12) as i64).days()).expect("a date");
        let start = first.to_zoned(jiff::tz::TimeZone::UTC).expect("a time").timestamp().as_microsecond();
        let end = start + i64::from(options.days) * DAY + AFTERMATH;
        let sim = Sim::new(seed, start, options.print_trace);
        let cloud = Cloud::new(&sim, Rates::default(), options.faulty);
        let dataset = DatasetDefinition::from_toml(rows::DATASET).expect("the simulation's dataset");
        let schedule = HostSchedule::default();
        let bad = options.hostile.then(|| hostile::definition(first));
        let lake =
            LakeModel::new(&cloud, &dataset.name, schedule.vacuum_retention, bad.as_ref().map(|bad| bad.id.clone()));
        let stores: Vec<Rc<Pos>> = (0..options.stores).map(|index| open_store(&sim, index, first)).collect();
        declare(&cloud, &dataset, &stores, bad.as_ref());
        let hosts: Vec<Rc<Host>> =
            ["host-a", "host-b"].iter().map(|name| Host::new(&cloud, &lake, name, schedule.clone())).collect();
        cloud.watch(lake.clone());
        if options.events {
            cloud.watch(Events::new(&cloud, &hosts, 150_000));
        }
        let machines: Vec<Rc<Machine>> = stores.iter().map(|pos| Machine::new(&cloud, &lake, pos, &dataset)).collect();
        let checker = Rc::new(Checker {
            cloud: Rc::clone(&cloud),
            lake: Rc::clone(&lake),
            stores: stores.iter().map(|pos| (pos.store.clone(), Rc::clone(pos))).collect::<BTreeMap<_, _>>(),
            dataset: dataset.name.clone(),
            definition: dataset.clone(),
            hostile: bad,
            chance: sim.chance_of("checker"),
            closes_at: dataset.closes_at,
        });
        let nature = sim.new_group(|_| {});
        for pos in &stores {
            nature::live(&cloud, nature, pos, first, options.days, end);
        }
        if options.hostile {
            HostileStore::new(&cloud, &lake, &dataset.name, first, options.days).live(nature, end);
        }
        let reader = Reader::new(&cloud, &checker);
        nature::befall(&cloud, nature, &machines, &Misfortunes::default(), start, end);
        foreign::write_checkpoints(&cloud, nature, end);
        let (days, complete_since) = (options.days, RefCell::default());
        Self { sim, cloud, lake, hosts, machines, checker, reader, first, days, end, complete_since }
    }

    fn live(&self) -> Result<(), String> {
        self.hosts.iter().for_each(Host::start);
        self.machines.iter().for_each(Machine::start);
        self.reader.start();
        self.watch_until(self.end)?;
        self.cloud.set_faulty(false);
        self.sim.trace("faults stop");
        self.machines.iter().for_each(|machine| machine.calm());
        self.watch_until(self.end + CALM)?;
        self.agents_look()?;
        let operator = Rc::clone(&self.hosts[0]);
        self.sim.block_on(async move { operator.replay_quarantined().await })?;
        self.recover_days_in_doubt()?;
        for _ in 0..2 {
            let host = Rc::clone(&self.hosts[0]);
            self.sim.block_on(async move { host.sweep().await })?;
        }
        self.spools_drain()?;
        self.close_stores()?;
        self.final_checks();
        self.maintain_long_after()?;
        self.count_amounts();
        Ok(())
    }

    /// What an operator does who reads `ribera recover`: a refused batch of a cloned disk that has died since
    /// keeps its days in doubt until the store's own agent sends them again. No other day needs this.
    fn recover_days_in_doubt(&self) -> Result<(), String> {
        let doubts = self.checker.days_doubted_by_clones();
        self.cloud.tally.borrow_mut().amount("days recovered by an operator", doubts.len() as u64);
        for (store, day) in &doubts {
            let machine = self.machines.iter().find(|machine| machine.program.name == store.as_str());
            machine.ok_or("no machine of a store")?.ask_for(*day);
        }
        self.agents_look()
    }

    /// I5. Every agent comes round by itself.
    fn agents_look(&self) -> Result<(), String> {
        let deadline = self.sim.now() + CALM_MAX;
        let all_looked = || self.machines.iter().all(|machine| machine.has_looked());
        // Nothing is watched any more once something is wrong.
        while self.sim.now() < deadline && self.lake.is_good() && !all_looked() {
            self.watch_until(self.sim.now() + HOUR)?;
        }
        self.cloud.tally.borrow_mut().check("I5 agents come round when faults have stopped");
        if let Some(machine) = self.machines.iter().find(|machine| !machine.has_looked()) {
            self.lake.fail(format!("I5 agents come round when faults have stopped: {}", machine.program.name));
        }
        Ok(())
    }

    /// Nothing is sent any more, and what was sent a moment ago is taken.
    fn close_stores(&self) -> Result<(), String> {
        self.machines.iter().for_each(|machine| machine.scrap());
        let host = Rc::clone(&self.hosts[0]);
        self.sim.block_on(async move { host.sweep().await })
    }

    /// Everybody has gone home, and maintenance takes what nobody needs any more, in runs that may die
    /// at any step and a last one that does not: nothing else goes.
    fn maintain_long_after(&self) -> Result<(), String> {
        self.hosts.iter().for_each(|host| host.stop());
        self.sim.run_until(self.sim.now() + 2 * DAY)?;
        self.cloud.set_faulty(true);
        for _ in 0..MAINTENANCE_RUNS {
            self.hosts[1].begin_maintenance();
            self.sim.run_until(self.sim.now() + MAINTENANCE_RUN)?;
            self.hosts[1].stop();
        }
        self.cloud.set_faulty(false);
        let host = Rc::clone(&self.hosts[0]);
        self.sim.block_on(async move { host.maintain().await })?;
        self.checker.lake_is_complete();
        self.checker.tables_read_as_logged();
        Ok(())
    }

    /// I5. Days go on leaving the lookback window, so each spool has its own moment of being empty.
    fn spools_drain(&self) -> Result<(), String> {
        let mut waiting: Vec<_> = self.machines.iter().filter(|machine| !machine.is_drained()).collect();
        for _ in 0..DRAIN_LOOKS {
            if waiting.is_empty() {
                break;
            }
            self.sim.run_until(self.sim.now() + DRAIN_PAUSE)?;
            waiting.retain(|machine| !machine.is_drained());
        }
        self.cloud.tally.borrow_mut().check("I5 spools drain when faults have stopped");
        if let Some(machine) = waiting.first() {
            let (count, first) = (waiting.len(), machine.waiting());
            self.lake.fail(format!("I5 spools drain when faults have stopped: {count} machines, first {first}"));
        }
        Ok(())
    }

    /// The last business day.
    fn last(&self) -> Date {
        self.first.checked_add((i64::from(self.days) - 1).days()).expect("a date")
    }

    fn final_checks(&self) {
        let last = self.last();
        // What became complete since the last look is seen too.
        if !self.cloud.was_faulty() {
            self.note_complete();
        }
        self.checker.lake_is_complete();
        self.checker.tables_read_as_logged();
        self.checker.all_is_settled(last);
        self.checker.coverage_is_honest();
    }

    /// Runs on, looking now and then; stops early once something is wrong.
    fn watch_until(&self, deadline: Micros) -> Result<(), String> {
        while self.sim.now() < deadline && self.lake.is_good() {
            let step = match self.cloud.was_faulty() {
                true => self.checker.chance.between(CHECK_EVERY / 2, CHECK_EVERY * 3 / 2),
                false => HOUR,
            };
            self.sim.run_until(deadline.min(self.sim.now() + step))?;
            if !self.cloud.was_faulty() {
                self.note_complete();
            }
            self.checker.coverage_is_honest();
            self.checker.a_file_is_what_it_says();
            self.checker.tables_read_as_logged();
            self.checker.reads_are_bounded();
            self.checker.status_answers();
        }
        Ok(())
    }

    /// What two runs of one seed are compared by.
    fn outcome(&self) -> Outcome {
        let (longest_wait, refused) = self.lake.answers();
        Outcome {
            rows: self.checker.honest_rows(),
            // Later days are as late as the run ended.
            states: self.honest_states().filter(|((_, day), _)| *day <= self.last()).collect(),
            complete_since: self.complete_since.take(),
            longest_wait,
            refused,
        }
    }

    fn honest_states(&self) -> impl Iterator<Item = ((StoreId, Date), DayState)> {
        let stores = self.checker.coverage().map(|coverage| coverage.stores).unwrap_or_default();
        let honest = stores.into_iter().filter(|store| !self.lake.is_hostile(&store.store));
        honest.flat_map(|store| {
            let days: Vec<_> = store.calendar.days().map(|(day, state)| ((store.store.clone(), day), state)).collect();
            days
        })
    }

    /// Notes when a day was first seen complete; every hour of a world without faults.
    fn note_complete(&self) {
        let now = self.sim.now();
        let complete = self.honest_states().filter(|(_, state)| *state == DayState::Complete);
        let mut since = self.complete_since.borrow_mut();
        complete.for_each(|(day, _)| {
            since.entry(day).or_insert(now);
        });
    }

    fn count_amounts(&self) {
        let versions: u64 = self.lake.table_names().iter().map(|name| self.lake.table(name).1).sum();
        let mut tally = self.cloud.tally.borrow_mut();
        tally.amount("versions", versions);
        tally.amount("batches", self.lake.manifest_count() as u64);
        tally.amount("events of the trace", self.sim.digest().1);
        tally.amount("polls", self.sim.polls());
    }
}

fn open_store(sim: &Sim, index: u32, first: Date) -> Rc<Pos> {
    let zones = ["Europe/Madrid", "America/New_York", "America/Santiago"];
    let chance = sim.chance();
    let id = format!("s{index:02}").parse().expect("a store id");
    let mut definition = StoreDefinition::new(id, format!("Tienda {index}"), *chance.pick(&zones));
    definition.opened = Some(first);
    if chance.percent(30) {
        definition.rest_days.push(WeekdayName::Sunday);
    }
    let pos = Pos::new(sim, definition, chance.percent(50));
    pos.clock_off.set(chance.between(-20, 20) * super::kernel::MINUTE);
    pos
}

/// Publishes what a data engineer declares.
fn declare(cloud: &Rc<Cloud>, dataset: &DatasetDefinition, stores: &[Rc<Pos>], bad: Option<&StoreDefinition>) {
    cloud.objects.set_now(cloud.now());
    let honest = stores.iter().map(|pos| pos.definition.clone());
    let definitions: Vec<StoreDefinition> = honest.chain(bad.cloned()).collect();
    ready(control::publish_dataset(&cloud.objects, dataset)).expect("a dataset");
    ready(control::publish_stores(&cloud.objects, &definitions)).expect("stores");
}
