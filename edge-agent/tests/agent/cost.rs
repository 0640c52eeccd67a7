//! What an agent asks of the object store in a month, counted over a whole day and written down in docs/agent.md.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use ribera_agent::agent::Agent;
use ribera_agent::ports::Timer;
use ribera_agent::run::collect::RunMode;
use ribera_storage::object::{MemoryStore, ObjectMeta, ObjectPath, Part, PutBody, PutOutcome};
use ribera_storage::{ObjectStore, Result};

use crate::fixture::{World, block_on, request};

/// US dollars per request in S3's standard class, us-east-1: PUT and LIST 0.005 per 1,000; GET and HEAD 0.0004.
const PUT_USD: f64 = 0.005 / 1_000.0;
const GET_USD: f64 = 0.0004 / 1_000.0;
const DAYS: f64 = 30.0;

#[test]
fn an_idle_agent_costs_less_than_four_cents_a_month() {
    let (world, mut day) = opened_long_ago();
    day.pass(&world, |_| {}, true);
    let usd = day.objects.usd_per_month();
    println!("{usd:.4} USD a month; a day: {:?}", day.objects.seen.borrow());
    let puts = day.objects.per_month("put");
    assert!(
        (4_000.0..=4_700.0).contains(&puts),
        "a heartbeat every 10 minutes, got {puts} a month: {:?}",
        day.objects.seen
    );
    assert_eq!(day.objects.per_month("head"), 0.0, "{:?}", day.objects.seen);
    assert!(usd < 0.04, "got {usd} USD: {:?}", day.objects.seen);
}

#[test]
fn hourly_sales_cost_less_than_six_cents_a_month() {
    let (world, mut day) = opened_long_ago();
    let sell = |hour: u32| world.sell("2017-05-10", hour * 100..hour * 100 + 10);
    day.pass(&world, sell, true);
    let usd = day.objects.usd_per_month();
    println!("{usd:.4} USD a month; a day: {:?}", day.objects.seen.borrow());
    assert!(world.manifests().len() > 10, "sales were sent in most hours");
    assert!(usd < 0.06, "got {usd} USD: {:?}", day.objects.seen);
}

#[test]
fn a_centre_that_answers_nothing_is_asked_ever_less_often() {
    let (world, mut day) = opened_long_ago();
    let sell = |hour: u32| world.sell("2017-05-10", hour * 100..hour * 100 + 10);
    day.pass(&world, sell, false);
    // Without restraint each of the day's 2,880 ticks would ask.
    let asked = (day.objects.per_month("get acks") + day.objects.per_month("list acks")) / DAYS;
    assert!((1.0..600.0).contains(&asked), "got {asked} a day: {:?}", day.objects.seen);
    assert!(day.objects.usd_per_month() < 0.12, "got {} USD: {:?}", day.objects.usd_per_month(), day.objects.seen);
}

fn opened_long_ago() -> (World, Day) {
    let world = World::new();
    world.sell("2017-05-08", 1..50);
    world.sell("2017-05-09", 50..100);
    world.once();
    world.ingest();
    world.once();
    world.clock.set("2017-05-10T04:00:00Z");
    let objects = Counted { inner: world.objects.clone(), seen: RefCell::default() };
    (world, Day { objects })
}

/// A day of the program `run`: schedules are looked at every 30 s, heartbeats every 15 s.
struct Day {
    objects: Counted,
}

impl Day {
    fn pass(&mut self, world: &World, mut each_hour: impl FnMut(u32), centre_answers: bool) {
        let agent: Agent<&Counted> = world.start_on(&self.objects, world.journal().unwrap()).unwrap();
        for tick in 0..24 * 120_u32 {
            if tick % 120 == 0 && (9..21).contains(&(tick / 120)) {
                each_hour(tick / 120);
            }
            block_on(agent.run("run", &request(RunMode::Due), Duration::ZERO));
            for _ in 0..2 {
                block_on(agent.beat_if_due(&[])).unwrap();
                block_on(world.clock.sleep(Duration::from_secs(15)));
            }
            // The centre's sweep of every minute.
            if centre_answers && tick % 2 == 1 {
                world.ingest();
            }
        }
        assert!(agent.ports.clock.now() >= "2017-05-11T04:00:00Z".parse::<Timestamp>().unwrap());
    }
}

struct Counted {
    inner: MemoryStore,
    seen: RefCell<BTreeMap<String, u64>>,
}

impl Counted {
    fn note(&self, call: &str, path: &str) {
        let of = path.split('/').next().unwrap_or_default();
        *self.seen.borrow_mut().entry(format!("{call} {of}")).or_default() += 1;
    }

    /// Requests whose call, or call and first folder, begin so.
    fn per_month(&self, call: &str) -> f64 {
        let seen = self.seen.borrow();
        let of_call = seen.iter().filter(|(name, _)| name.starts_with(call)).map(|(_, count)| count);
        f64::from(u32::try_from(of_call.sum::<u64>()).unwrap()) * DAYS
    }

    fn usd_per_month(&self) -> f64 {
        (self.per_month("put") + self.per_month("list")) * PUT_USD
            + (self.per_month("get") + self.per_month("head")) * GET_USD
    }
}

/// As S3 counts them: a put that tells the time is one request.
impl ObjectStore for Counted {
    async fn get(&self, path: &ObjectPath) -> Result<Option<Bytes>> {
        self.note("get", path.as_str());
        self.inner.get(path).await
    }
    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Option<Part>> {
        self.note("get", path.as_str());
        self.inner.get_range(path, range).await
    }
    async fn put(&self, path: &ObjectPath, body: PutBody) -> Result<()> {
        self.note("put", path.as_str());
        self.inner.put(path, body).await
    }
    async fn put_timed(&self, path: &ObjectPath, body: PutBody) -> Result<Option<Timestamp>> {
        self.note("put", path.as_str());
        self.inner.put_timed(path, body).await
    }
    async fn put_if_absent(&self, path: &ObjectPath, body: PutBody) -> Result<PutOutcome> {
        self.note("put", path.as_str());
        self.inner.put_if_absent(path, body).await
    }
    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Vec<ObjectMeta>> {
        self.note("list", prefix);
        self.inner.list(prefix, start_after, limit).await
    }
    async fn head(&self, path: &ObjectPath) -> Result<Option<ObjectMeta>> {
        self.note("head", path.as_str());
        self.inner.head(path).await
    }
    async fn delete(&self, path: &ObjectPath) -> Result<()> {
        self.note("delete", path.as_str());
        self.inner.delete(path).await
    }
}
