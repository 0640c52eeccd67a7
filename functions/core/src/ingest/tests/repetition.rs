//! Events doubled, shuffled, lost; calls at once; calls that die anywhere: always the same lake.

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

use futures::future::join_all;
use proptest::prelude::*;
use ribera_storage::object::faulty::{Faults, FaultyStore};
use ribera_storage::object::{ObjectMeta, Part, PutBody, PutOutcome};
use ribera_storage::{Error, Result};

use super::*;

/// Batches of three stores over ten days, later ones over days of earlier ones.
fn batches() -> Vec<Sent> {
    let day = |number: i8| date(2026, 1, number);
    let of = |store: &str, epoch: u32, sequence: u64, days: &[Date], count| {
        Sent::new(&format!("{store}/ventas/{epoch:06}-{sequence:010}"), days, count)
    };
    vec![
        of("s1", 0, 1, &[day(1), day(2), day(3)], 7),
        of("s1", 0, 2, &[day(2)], 5),
        of("s1", 0, 3, &[day(3), day(4)], 0),
        of("s1", 1, 1, &[day(1)], 9),
        of("s2", 0, 1, &[day(1)], 4),
        of("s2", 0, 2, &[day(1), day(2)], 3),
        of("s3", 0, 1, &[day(5)], 11),
        of("s3", 0, 2, &[day(5)], 12),
    ]
}

/// What the lake must hold: of each day the batch with the highest position.
fn expected(batches: &[Sent]) -> Vec<String> {
    block_on(async {
        let host = world().await;
        let mut in_order: Vec<&Sent> = batches.iter().collect();
        in_order.sort_by_key(|sent| (sent.manifest.batch.store.clone(), sent.manifest.batch.position));
        for sent in in_order {
            sent.put(&host.objects).await;
            ingest(&host, &[sent]).await;
        }
        content(&host.objects).await
    })
}

/// Nothing is left behind: no manifest, no ready record, no marker; every batch has its ack.
async fn assert_settled(host: &TestHost, batches: &[Sent]) {
    for prefix in ["inbox/", "state/ready/", "state/attempts/", "quarantine/"] {
        assert_eq!(names(&host.objects, prefix).await, Vec::<String>::new(), "{prefix}");
    }
    for sent in batches {
        let ack = ack_of(&host.objects, &sent.manifest.batch).await.expect("an ack");
        assert!(matches!(ack.outcome, AckOutcome::Committed { .. } | AckOutcome::Superseded), "{ack:?}");
    }
}

#[test]
fn an_event_that_comes_again_changes_nothing_and_writes_no_file() {
    block_on(async {
        let (host, sent) = (world().await, batches());
        for one in &sent {
            one.put(&host.objects).await;
        }
        let all: Vec<&Sent> = sent.iter().collect();
        ingest(&host, &all).await;
        let (rows, files) = (content(&host.objects).await, names(&host.objects, "lake/").await);
        // The events come again, and an agent that lost an answer puts its manifests again.
        assert!(ingest(&host, &all).await.iter().all(|one| *one == Outcome::AlreadyDone));
        for one in &sent {
            one.put(&host.objects).await;
        }
        assert!(ingest(&host, &all).await.iter().all(|one| *one == Outcome::AlreadyDone));
        assert_eq!(swept(&host).await, Vec::new());
        assert_eq!((content(&host.objects).await, names(&host.objects, "lake/").await), (rows, files));
        assert_settled(&host, &sent).await;
    });
}

#[test]
fn when_all_events_are_lost_one_sweep_makes_the_same_lake() {
    let sent = batches();
    let expected = expected(&sent);
    block_on(async {
        let host = world().await;
        for one in &sent {
            one.put(&host.objects).await;
        }
        assert_eq!(swept(&host).await.len(), sent.len());
        assert_eq!(content(&host.objects).await, expected);
        assert_settled(&host, &sent).await;
    });
}

#[test]
fn an_event_that_dies_after_any_step_leaves_nothing_lost_and_nothing_doubled() {
    dies_after_every_step(1, async |dying, sent| {
        let paths: Vec<ObjectPath> = sent.iter().map(Sent::inbox).collect();
        let _ = ingest_event(dying.ports(), &settings(), &paths).await;
    });
}

#[test]
fn a_sweep_that_dies_after_any_step_is_made_good_by_the_next_two() {
    dies_after_every_step(2, async |dying, _| {
        let _ = sweep(dying.ports(), &settings(), &SweepBudget::default()).await;
    });
}

type DyingDeps = TestHost<Mortal>;

/// Lets `call` die after one step, two steps ... until it lives; so many sweeps make it good.
fn dies_after_every_step(sweeps: usize, call: impl AsyncFn(&DyingDeps, &[Sent])) {
    let sent = batches();
    let expected = expected(&sent);
    block_on(async {
        let mut crash_count = 0;
        for steps in 0.. {
            let host = world().await;
            for one in &sent {
                one.put(&host.objects).await;
            }
            let mortal = Mortal { inner: host.objects.clone(), steps: Rc::new(Cell::new(steps)) };
            call(&Host::new(mortal.clone(), host.clock.clone(), host.random.clone()), &sent).await;
            for _ in 0..sweeps {
                swept(&host).await;
            }
            assert_eq!(content(&host.objects).await, expected, "died after {steps} steps");
            assert_settled(&host, &sent).await;
            if mortal.steps.get() > 0 {
                break;
            }
            crash_count += 1;
        }
        assert!(crash_count > 50, "{crash_count}");
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn events_doubled_and_shuffled_over_calls_at_once_make_the_same_lake(
        order in prop::collection::vec(any::<prop::sample::Index>(), 8..40),
        seed in any::<u64>(),
        errors in 0..60_u64,
    ) {
        let (sent, expected) = &*EXPECTED;
        block_on(async {
            let host = world().await;
            for one in sent {
                one.put(&host.objects).await;
            }
            let faults = Faults { error_permille: errors, error_after_permille: errors, late_put_permille: errors / 4, yields_max: 3 };
            let faulty = FaultyStore::new(host.objects.clone(), seed, faults);
            let racing = Host::new(faulty.clone(), host.clock.clone(), host.random.clone());
            // Sixteen calls at once, each with some of the events in some order, and two sweeps.
            let chunk = order.len().div_ceil(16);
            let (events, event_settings, budget) = (order.chunks(chunk), settings(), SweepBudget::default());
            let calls = events.map(|events| {
                let paths: Vec<ObjectPath> = events.iter().map(|index| index.get(sent).inbox()).collect();
                let (racing, event_settings) = (&racing, &event_settings);
                async move { drop(ingest_event(racing.ports(), event_settings, &paths).await) }
            });
            futures::join!(
                join_all(calls),
                async { drop(sweep(racing.ports(), &event_settings, &budget).await) },
                async { drop(sweep(racing.ports(), &event_settings, &budget).await) }
            );
            faulty.set_faults(Faults::default());
            faulty.settle().await.unwrap();
            swept(&host).await;
            swept(&host).await;
            assert_eq!(&content(&host.objects).await, expected);
            host.clock.advance(601);
            swept(&host).await;
            assert_settled(&host, sent).await;
        });
    }
}

static EXPECTED: std::sync::LazyLock<(Vec<Sent>, Vec<String>)> = std::sync::LazyLock::new(|| {
    let sent = batches();
    let expected = expected(&sent);
    (sent, expected)
});

/// A store that its caller can use for so many steps; afterwards every call fails and does nothing,
/// as for a process that was killed.
#[derive(Debug, Clone)]
struct Mortal {
    inner: MemoryStore,
    steps: Rc<Cell<u64>>,
}

impl Mortal {
    fn step(&self) -> Result<()> {
        match self.steps.get() {
            0 => Err(Error::retry("dead")),
            left => {
                self.steps.set(left - 1);
                Ok(())
            }
        }
    }
}

impl ObjectStore for Mortal {
    async fn get(&self, path: &ObjectPath) -> Result<Option<Bytes>> {
        self.step()?;
        self.inner.get(path).await
    }
    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Option<Part>> {
        self.step()?;
        self.inner.get_range(path, range).await
    }
    async fn put(&self, path: &ObjectPath, body: PutBody) -> Result<()> {
        self.step()?;
        self.inner.put(path, body).await
    }
    async fn put_if_absent(&self, path: &ObjectPath, body: PutBody) -> Result<PutOutcome> {
        self.step()?;
        self.inner.put_if_absent(path, body).await
    }
    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Vec<ObjectMeta>> {
        self.step()?;
        self.inner.list(prefix, start_after, limit).await
    }
    async fn head(&self, path: &ObjectPath) -> Result<Option<ObjectMeta>> {
        self.step()?;
        self.inner.head(path).await
    }
    async fn delete(&self, path: &ObjectPath) -> Result<()> {
        self.step()?;
        self.inner.delete(path).await
    }
}
