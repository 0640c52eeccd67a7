//! What commits cost: a burst of batches on a store with latencies, in virtual time.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::poll_fn;
use std::ops::Range;
use std::rc::Rc;
use std::task::{Poll, Waker};

use futures::executor::LocalPool;
use futures::task::LocalSpawnExt;

use super::*;
use crate::object::{MemoryStore, ObjectMeta, Part, PutBody};

/// Virtual time: sleeping tasks are woken in order of their hour, and nothing waits for real.
#[derive(Clone, Default)]
struct Time(Rc<RefCell<Sleepers>>);

#[derive(Default)]
struct Sleepers {
    now_micros: u64,
    next: u64,
    heap: BinaryHeap<Reverse<(u64, u64)>>,
    wakers: BTreeMap<u64, Waker>,
}

impl Time {
    fn now(&self) -> u64 {
        self.0.borrow().now_micros
    }

    async fn sleep(&self, micros: u64) {
        let until = self.now() + micros;
        let mut number = None;
        poll_fn(|context| {
            let mut sleepers = self.0.borrow_mut();
            if sleepers.now_micros >= until {
                return Poll::Ready(());
            }
            let number = *number.get_or_insert_with(|| {
                sleepers.next += 1;
                let number = sleepers.next;
                sleepers.heap.push(Reverse((until, number)));
                number
            });
            sleepers.wakers.insert(number, context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Moves on to the next hour at which someone wakes; false when nobody sleeps.
    fn advance(&self) -> bool {
        let mut sleepers = self.0.borrow_mut();
        let Some(Reverse((until, number))) = sleepers.heap.pop() else { return false };
        sleepers.now_micros = sleepers.now_micros.max(until);
        if let Some(waker) = sleepers.wakers.remove(&number) {
            waker.wake();
        }
        true
    }
}

/// A store with the latencies of object storage: GET 20/60 ms, PUT and LIST 40/150 ms (p50/p99).
#[derive(Clone)]
struct SlowStore {
    inner: MemoryStore,
    time: Time,
    random: Rc<Host>,
    requests: Rc<Cell<u64>>,
}

impl SlowStore {
    async fn wait(&self, p50_millis: f64, p99_millis: f64) {
        self.requests.set(self.requests.get() + 1);
        // Twelve uniform numbers make a normal one; latencies are log-normal.
        let normal: f64 =
            (0..12).map(|_| (self.random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64).sum::<f64>() - 6.0;
        let millis = p50_millis * ((p99_millis / p50_millis).ln() / 2.326 * normal).exp();
        self.time.sleep((millis * 1000.0) as u64).await;
    }
}

impl ObjectStore for SlowStore {
    async fn get(&self, path: &ObjectPath) -> Result<Option<Bytes>> {
        self.wait(20.0, 60.0).await;
        self.inner.get(path).await
    }
    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Option<Part>> {
        self.wait(20.0, 60.0).await;
        self.inner.get_range(path, range).await
    }
    async fn put(&self, path: &ObjectPath, body: PutBody) -> Result<()> {
        self.wait(40.0, 150.0).await;
        self.inner.put(path, body).await
    }
    async fn put_if_absent(&self, path: &ObjectPath, body: PutBody) -> Result<PutOutcome> {
        self.wait(40.0, 150.0).await;
        self.inner.put_if_absent(path, body).await
    }
    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Vec<ObjectMeta>> {
        self.wait(40.0, 150.0).await;
        self.inner.list(prefix, start_after, limit).await
    }
    async fn head(&self, path: &ObjectPath) -> Result<Option<ObjectMeta>> {
        self.wait(20.0, 60.0).await;
        self.inner.head(path).await
    }
    async fn delete(&self, path: &ObjectPath) -> Result<()> {
        self.wait(40.0, 150.0).await;
        self.inner.delete(path).await
    }
}

/// Calls of `ingest` arriving evenly, each for one batch of its own; milliseconds from arrival to
/// commit, sorted, and requests in all.
fn burst(batches: u64, over_millis: u64) -> (Vec<u64>, u64, u64) {
    let (time, memory) = (Time::default(), MemoryStore::new());
    let store = SlowStore {
        inner: memory.clone(),
        time: time.clone(),
        random: Rc::new(Host::new(11)),
        requests: Rc::default(),
    };
    let dataset = Rc::new(dataset());
    let latencies = Rc::new(RefCell::new(Vec::new()));
    let mut pool = LocalPool::new();
    for number in 0..batches {
        let (store, time, dataset, latencies) = (store.clone(), time.clone(), dataset.clone(), latencies.clone());
        let call = async move {
            time.sleep(number * over_millis * 1000 / batches).await;
            let arrived = time.now();
            let host = Host::new(1000 + number);
            let row = TestRow { day: 1, id: 1, cents: 1 };
            let batch = TestBatch {
                store: (number % 100) as u8,
                position: Position { epoch: 0, sequence: number },
                days: [((number / 100) as i8 + 1, vec![TestRow { day: (number / 100) as i8 + 1, ..row }])].into(),
            };
            let table = Table::new(&store, "pruebas".parse().unwrap());
            // Manifest and data file.
            let landing = ObjectPath::new("landing/x").unwrap();
            store.get(&landing).await.unwrap();
            store.get(&landing).await.unwrap();
            let record = encode(&table, host.ports(&store), &dataset, &batch).await.unwrap();
            table.put_ready(&record).await.unwrap();
            let report = table.commit_records(host.ports(&store), &dataset, &[record]).await.unwrap();
            assert!(matches!(report.outcome(&batch.id()), Some(BatchOutcome::Committed { .. })), "{report:?}");
            latencies.borrow_mut().push((time.now() - arrived) / 1000);
            if let Some(snapshot) = &report.checkpoint_due {
                table.checkpoint_of(host.ports(&store), snapshot).await.unwrap();
            }
        };
        pool.spawner().spawn_local(call).unwrap();
    }
    loop {
        pool.run_until_stalled();
        if !time.advance() {
            break;
        }
    }
    let table = Table::new(&memory, "pruebas".parse().unwrap());
    let snapshot = futures::executor::block_on(table.load()).unwrap().unwrap();
    assert_eq!(snapshot.file_count() as u64, batches, "no batch is lost");
    let mut latencies = latencies.take();
    latencies.sort_unstable();
    assert_eq!(latencies.len() as u64, batches);
    (latencies, store.requests.get(), snapshot.version())
}

#[test]
fn a_burst_of_200_batches_in_a_second_is_committed_within_a_second_each() {
    let (latencies, requests, versions) = burst(200, 1000);
    let at = |permille: usize| latencies[(latencies.len() - 1) * permille / 1000];
    println!(
        "p50 {} ms, p99 {} ms, max {} ms, {versions} versions, {} requests a batch",
        at(500),
        at(990),
        at(1000),
        requests / latencies.len() as u64
    );
    assert!(at(990) < 1000, "p99 {} ms", at(990));
    assert!(versions < 60, "{versions} versions for 200 batches");
}

/// Figures: `cargo test -p ribera-storage --release -- --ignored --nocapture figures`.
#[test]
#[ignore = "prints figures"]
fn figures_of_a_burst_of_1000_batches_in_5_seconds() {
    let (latencies, requests, versions) = burst(1000, 5000);
    let at = |permille: usize| latencies[(latencies.len() - 1) * permille / 1000];
    println!(
        "p50 {} ms, p99 {} ms, max {} ms, {versions} versions, {} requests a batch",
        at(500),
        at(990),
        at(1000),
        requests / latencies.len() as u64
    );
}
