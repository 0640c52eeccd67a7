//! An object store that answers as slowly as a remote one, in real time, and counts requests.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ribera_storage::Result;
use ribera_storage::object::{MemoryStore, ObjectMeta, ObjectPath, ObjectStore, Part, PutBody, PutOutcome};

use crate::counting::body_bytes;
use crate::ports::SplitMix;

/// A latency distribution: log-normal, by its median and 99th percentile.
#[derive(Debug, Clone, Copy)]
pub struct Latency {
    pub p50_ms: f64,
    pub p99_ms: f64,
}

pub const GET: Latency = Latency { p50_ms: 20.0, p99_ms: 60.0 };
/// Also of LIST and DELETE.
pub const PUT: Latency = Latency { p50_ms: 40.0, p99_ms: 150.0 };

/// The 99th percentile of the standard normal distribution.
const NORMAL_P99: f64 = 2.326_347_9;

impl Latency {
    fn sample(self, random: &SplitMix) -> Duration {
        let sigma = (self.p99_ms / self.p50_ms).ln() / NORMAL_P99;
        let radius = (-2.0 * (1.0 - random.unit()).ln()).sqrt();
        let normal = radius * (std::f64::consts::TAU * random.unit()).cos();
        Duration::from_secs_f64(self.p50_ms / 1000.0 * (sigma * normal).exp())
    }
}

/// What all clones of a slow store share.
#[derive(Debug, Default)]
struct Seen {
    requests: BTreeMap<&'static str, u64>,
    put_bytes: u64,
    /// When each log entry became readable.
    entries: BTreeMap<String, Instant>,
}

/// A [`MemoryStore`] behind a slow line: half of a request's time passes before its effect, half
/// after.
#[derive(Debug, Clone)]
pub struct SlowStore {
    pub inner: MemoryStore,
    random: SplitMix,
    seen: Arc<Mutex<Seen>>,
}

impl SlowStore {
    pub fn new(inner: MemoryStore, seed: u64) -> Self {
        Self { inner, random: SplitMix::seeded(seed), seen: Arc::default() }
    }

    /// Another handle on the same objects and counters, with latencies of its own.
    pub fn handle(&self, seed: u64) -> Self {
        Self { inner: self.inner.clone(), random: SplitMix::seeded(seed), seen: self.seen.clone() }
    }

    pub fn requests(&self) -> BTreeMap<&'static str, u64> {
        self.locked().requests.clone()
    }

    pub fn put_bytes(&self) -> u64 {
        self.locked().put_bytes
    }

    /// When the object at `path` became readable, for entries of a Delta log.
    pub fn readable_at(&self, path: &ObjectPath) -> Option<Instant> {
        self.locked().entries.get(path.as_str()).copied()
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn slowly<T>(
        &self,
        kind: &'static str,
        latency: Latency,
        effect: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        *self.locked().requests.entry(kind).or_default() += 1;
        let half = latency.sample(&self.random) / 2;
        tokio::time::sleep(half).await;
        let result = effect.await;
        tokio::time::sleep(half).await;
        result
    }
}

impl ObjectStore for SlowStore {
    async fn get(&self, path: &ObjectPath) -> Result<Option<Bytes>> {
        self.slowly("get", GET, self.inner.get(path)).await
    }

    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Option<Part>> {
        self.slowly("get", GET, self.inner.get_range(path, range)).await
    }

    async fn put(&self, path: &ObjectPath, body: PutBody) -> Result<()> {
        self.locked().put_bytes += body_bytes(&body);
        self.slowly("put", PUT, self.inner.put(path, body)).await
    }

    async fn put_if_absent(&self, path: &ObjectPath, body: PutBody) -> Result<PutOutcome> {
        self.locked().put_bytes += body_bytes(&body);
        let effect = async {
            let outcome = self.inner.put_if_absent(path, body).await?;
            if outcome == PutOutcome::Created && path.as_str().contains("/_delta_log/") {
                self.locked().entries.insert(path.as_str().to_owned(), Instant::now());
            }
            Ok(outcome)
        };
        self.slowly("put", PUT, effect).await
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Vec<ObjectMeta>> {
        self.slowly("list", PUT, self.inner.list(prefix, start_after, limit)).await
    }

    async fn head(&self, path: &ObjectPath) -> Result<Option<ObjectMeta>> {
        self.slowly("head", GET, self.inner.head(path)).await
    }

    async fn delete(&self, path: &ObjectPath) -> Result<()> {
        self.slowly("delete", PUT, self.inner.delete(path)).await
    }
}
