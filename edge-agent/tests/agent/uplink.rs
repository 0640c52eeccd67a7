//! Weeks without a line, then catching up: newest first, within the uplink's limit and its hours.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use jiff::civil::Date;
use ribera_agent::report::{Exit, Report};
use ribera_agent::run::collect::RunMode;
use ribera_storage::object::{MemoryStore, ObjectMeta, ObjectPath, Part, PutBody, PutOutcome};
use ribera_storage::ports::Clock;
use ribera_storage::{Error, ObjectStore, Result, Unit};

use crate::fixture::{CONFIG, VirtualClock, World, block_on, day, request};

/// A bucket behind a line that can be cut; it notes when which file came.
#[derive(Clone)]
struct Wire {
    objects: MemoryStore,
    clock: VirtualClock,
    up: Rc<Cell<bool>>,
    files: Rc<RefCell<Vec<(Timestamp, u64)>>>,
    refused: Rc<Cell<u64>>,
}

impl Wire {
    fn of(world: &World) -> Self {
        Self {
            objects: world.objects.clone(),
            clock: world.clock.clone(),
            up: Rc::new(Cell::new(true)),
            files: Rc::default(),
            refused: Rc::default(),
        }
    }

    fn objects(&self) -> Result<&MemoryStore> {
        if self.up.get() {
            return Ok(&self.objects);
        }
        self.refused.set(self.refused.get() + 1);
        Err(Error::retry("object store: the line is down"))
    }
}

impl ObjectStore for Wire {
    async fn get(&self, path: &ObjectPath) -> Result<Option<Bytes>> {
        self.objects()?.get(path).await
    }

    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Option<Part>> {
        self.objects()?.get_range(path, range).await
    }

    async fn put(&self, path: &ObjectPath, body: PutBody) -> Result<()> {
        self.objects()?.put(path, body).await
    }

    async fn put_if_absent(&self, path: &ObjectPath, body: PutBody) -> Result<PutOutcome> {
        if let (true, PutBody::Bytes(bytes)) = (path.as_str().starts_with("landing/") && self.up.get(), &body) {
            self.files.borrow_mut().push((self.clock.now(), bytes.len() as u64));
        }
        self.objects()?.put_if_absent(path, body).await
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Vec<ObjectMeta>> {
        self.objects()?.list(prefix, start_after, limit).await
    }

    async fn head(&self, path: &ObjectPath) -> Result<Option<ObjectMeta>> {
        self.objects()?.head(path).await
    }

    async fn delete(&self, path: &ObjectPath) -> Result<()> {
        self.objects()?.delete(path).await
    }
}

const RATE: u64 = 1024;

#[test]
fn while_the_object_stores_clock_is_unknown_a_day_is_not_closed_by_a_till_that_is_ahead() {
    let world = World::new();
    let wire = Wire::of(&world);
    let once = |by_the_till: &str, by_the_store: &str| {
        world.clock.set(by_the_till);
        world.objects.set_now(by_the_store.parse().unwrap());
        let agent = world.start_on(wire.clone(), world.journal().unwrap()).unwrap();
        block_on(agent.run("test", &request(RunMode::Cycle), Duration::ZERO))
    };
    assert_eq!(once("2017-05-10T16:00:00Z", "2017-05-10T16:00:00Z").exit(), Exit::Done);
    world.sell("2017-05-10", 500..503);
    // The day ends at 07:00 in UTC. The till is 50 minutes ahead, and a fresh agent finds the line cut.
    wire.up.set(false);
    assert_eq!(once("2017-05-11T07:40:00Z", "2017-05-11T06:50:00Z").exit(), Exit::ObjectStore);
    wire.up.set(true);
    assert_eq!(once("2017-05-11T07:41:00Z", "2017-05-11T06:51:00Z").exit(), Exit::Done);
    let closed = || -> Vec<bool> {
        let units = world.manifests().into_iter().flat_map(|one| one.units);
        units.filter(|facts| facts.unit == day("2017-05-10")).map(|facts| facts.closed).collect()
    };
    assert!(!closed().is_empty() && closed().iter().all(|closed| !closed), "{:?}", closed());
    assert_eq!(once("2017-05-11T08:51:00Z", "2017-05-11T08:01:00Z").exit(), Exit::Done);
    assert_eq!(closed().last(), Some(&true), "and then it is closed and sent again");
}

#[test]
fn fourteen_days_offline_are_caught_up_newest_first_within_the_limit_and_its_hours() {
    let limits = format!(
        "\n[limits]\nupload_schedule = [{{ hours = \"08:00-22:00\", bytes_per_s = {RATE} }}, \
         {{ hours = \"22:00-07:00\" }}, {{ hours = \"07:00-08:00\", bytes_per_s = 0 }}]\n"
    );
    let world = World::with_config(&format!("{CONFIG}{limits}"));
    let wire = Wire::of(&world);
    let once = || -> Report {
        let agent = world.start_on(wire.clone(), world.journal().unwrap()).unwrap();
        block_on(agent.run("test", &request(RunMode::Cycle), Duration::ZERO))
    };
    assert_eq!(once().exit(), Exit::Done);
    // New York is four hours behind. The line is cut, the till sells on.
    wire.up.set(false);
    let first: Date = "2017-05-11".parse().unwrap();
    let dates: Vec<Date> = first.series(jiff::Span::new().days(1)).take(14).collect();
    for (number, date) in dates.iter().enumerate() {
        let tickets = number as u32 * 1000;
        world.sell(&date.to_string(), tickets..tickets + 100 + number as u32);
        world.clock.set(&format!("{date}T23:00:00Z"));
        assert_eq!(once().exit(), Exit::ObjectStore);
    }
    assert!(wire.refused.get() > 14);
    let done_before = world.manifests().len();
    // The line is back at a quarter past seven, when nothing may leave.
    world.clock.set("2017-05-25T11:15:00Z");
    wire.up.set(true);
    wire.files.borrow_mut().clear();
    let report = once();
    assert_eq!((report.exit(), report.upload.batches), (Exit::Done, 0), "{:?}", report.problems);
    assert_eq!(report.upload.held_until.map(|at| at.to_string()).as_deref(), Some("2017-05-25T08:00:00"));
    assert!(wire.files.borrow().is_empty() && report.upload.waiting >= 14);
    // Ten seconds before the limit ends for the night: some files leave slowly, the rest at once.
    world.clock.set("2017-05-26T01:59:50Z");
    let night: Timestamp = "2017-05-26T02:00:00Z".parse().unwrap();
    let report = once();
    assert_eq!((report.exit(), report.upload.held_until), (Exit::Done, None), "{:?}", report.problems);

    let files = wire.files.borrow();
    let limited: Vec<_> = files.iter().filter(|(at, _)| *at < night).collect();
    assert!(limited.len() >= 2 && limited.len() < files.len(), "{files:?}");
    for pair in files.windows(2).filter(|pair| pair[0].0 < night) {
        let [(begun, bytes), (next, _)] = pair else { unreachable!() };
        let least = *bytes as f64 / RATE as f64;
        assert!(next.duration_since(*begun).as_secs_f64() >= least - 0.001, "{bytes} bytes left too fast: {files:?}");
    }
    let at_night: Vec<Timestamp> = files.iter().map(|(at, _)| *at).filter(|at| *at >= night).collect();
    assert!(at_night.iter().all(|at| at == &at_night[0]), "the night has no limit: {files:?}");

    // Newest first, each day once, every row.
    let mut sent = world.manifests();
    sent.retain(|manifest| manifest.units.iter().any(|facts| matches!(facts.unit, Unit::Day(date) if date >= first)));
    assert!(world.manifests().len() >= done_before + 14);
    sent.sort_by_key(|manifest| manifest.batch.position);
    let order: Vec<Unit> = sent.iter().flat_map(|manifest| manifest.units.iter().map(|facts| facts.unit)).collect();
    // One was under way when the line was cut: it has its number already. The day closed since.
    let (under_way, rest) = order.split_first().unwrap();
    assert_eq!(*under_way, Unit::Day(first));
    let mut newest_first = rest.to_vec();
    newest_first.sort_by(|one, other| other.cmp(one));
    assert_eq!(rest, newest_first);
    let mut times: BTreeMap<Unit, u32> = BTreeMap::new();
    rest.iter().for_each(|unit| *times.entry(*unit).or_default() += 1);
    assert!(times.values().all(|times| *times == 1), "{times:?}");
    let lake = world.lake();
    for (number, date) in dates.iter().enumerate() {
        assert_eq!(lake[&Unit::Day(*date)].0, 100 + number as u64, "{date}");
    }
}
