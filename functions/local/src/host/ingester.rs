//! Feeds manifests to ingest calls: several at once, grouped, each store in its turn. What kills
//! a call is set apart, so that the rest goes on.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ribera_core::ingest::{IngestReport, SweepBudget, SweepReport};
use ribera_storage::batch::MANIFEST_BYTES_MAX;
use ribera_storage::object::{FolderStore, ObjectPath, list_all};
use ribera_storage::{Error, Result};
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::functions::{Functions, millis};
use super::queue::{GroupLimits, Queue};
use super::tally::Tally;

/// How long a sweep waits for the inbox it listed to be worked off, before it goes on.
const DRAIN_MAX: Duration = Duration::from_secs(120);

pub struct Ingester {
    functions: Functions,
    store_root: PathBuf,
    pub queue: Queue,
    /// Manifests that killed the call that had them alone; only sweeps touch them, which know how
    /// to give one up.
    set_apart: Mutex<HashSet<ObjectPath>>,
    tally: Mutex<Tally>,
    /// Something was committed or quarantined: coverage changed.
    pub changed: Notify,
    active_at: Mutex<Instant>,
}

impl Ingester {
    pub fn new(functions: Functions, store_root: &Path) -> Self {
        Self {
            functions,
            store_root: store_root.to_owned(),
            queue: Queue::default(),
            set_apart: Mutex::default(),
            tally: Mutex::default(),
            changed: Notify::new(),
            active_at: Mutex::new(Instant::now()),
        }
    }

    pub fn functions(&self) -> &Functions {
        &self.functions
    }

    pub fn tally(&self) -> Tally {
        lock(&self.tally).clone()
    }

    /// Since when nothing was settled.
    pub fn quiet_for(&self) -> Duration {
        lock(&self.active_at).elapsed()
    }

    /// Starts the workers; they end after their call once `stop` turns true.
    pub fn start(self: &Arc<Self>, stop: &watch::Receiver<bool>) -> JoinSet<()> {
        let mut workers = JoinSet::new();
        for _ in 0..self.functions.settings().call.ingest_calls_max {
            workers.spawn(self.clone().work(stop.clone()));
        }
        workers
    }

    /// Offers every manifest of the inbox as it is listed; returns how many it holds.
    pub async fn offer_inbox(&self) -> Result<usize> {
        let store = FolderStore::read_only(&self.store_root);
        let listed = list_all(&store, "inbox/", None).await?;
        let paths: Vec<ObjectPath> = listed.into_iter().map(|meta| meta.path).collect();
        let mut set_apart = lock(&self.set_apart);
        let present: HashSet<&ObjectPath> = paths.iter().collect();
        set_apart.retain(|path| present.contains(path));
        let count = paths.len();
        self.queue.offer(paths.into_iter().filter(|path| !set_apart.contains(path)));
        Ok(count)
    }

    /// One sweep: the inbox through the workers, then whatever only a sweep finds.
    pub async fn sweep(&self) -> Result<()> {
        self.offer_inbox().await?;
        if tokio::time::timeout(DRAIN_MAX, self.queue.idle()).await.is_err() {
            tracing::info!(pending = self.queue.pending(), "sweep goes on while manifests keep arriving");
        }
        let mut settled = self.tally().settled();
        loop {
            let swept = self.functions.sweep(&SweepBudget::default()).await?;
            self.note(&swept.report);
            let now_settled = self.tally().settled();
            if !swept.more || now_settled == settled {
                return Ok(());
            }
            settled = now_settled;
        }
    }

    /// Sweeps until the inbox is empty or holds only what cannot be settled now.
    pub async fn sweep_all(&self) -> Result<()> {
        loop {
            let before = self.tally().settled();
            self.sweep().await?;
            let store = FolderStore::read_only(&self.store_root);
            let left = list_all(&store, "inbox/", None).await?.len();
            if left == 0 || self.tally().settled() == before {
                return Ok(());
            }
        }
    }

    /// Ingests the manifests that callers outside name, beside the workers.
    pub async fn ingest_for_callers(&self, manifests: &[ObjectPath]) -> Result<IngestReport> {
        let report = self.functions.for_callers().ingest(manifests).await?;
        self.note(&report);
        Ok(report)
    }

    /// Sweeps once for callers outside.
    pub async fn sweep_for_callers(&self) -> Result<SweepReport> {
        let swept = self.functions.for_callers().sweep(&SweepBudget::default()).await?;
        self.note(&swept.report);
        Ok(swept)
    }

    async fn work(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let gather = Duration::from_millis(self.functions.settings().schedule.gather_ms.into());
        let limits = GroupLimits::default();
        loop {
            tokio::select! {
                () = self.queue.wait() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            if self.queue.pending() < limits.manifests_max {
                tokio::time::sleep(gather).await;
            }
            let group = self.queue.take(&limits, |manifest| self.file_bytes(manifest));
            if !group.is_empty() {
                self.ingest(&group).await;
                self.queue.finish(&group);
            }
        }
    }

    async fn ingest(&self, group: &[ObjectPath]) {
        match self.call(group).await {
            Ok(()) => {}
            Err(error) if group.len() > 1 && !error.is_retry() => {
                tracing::error!(manifests = group.len(), %error, "ingest call failed; its manifests go one by one");
                for manifest in group {
                    if let Err(error) = self.call(std::slice::from_ref(manifest)).await {
                        self.failed(manifest, &error);
                    }
                }
            }
            Err(error) => group.iter().for_each(|manifest| self.failed(manifest, &error)),
        }
    }

    async fn call(&self, group: &[ObjectPath]) -> Result<()> {
        let started = Instant::now();
        let report = self.functions.ingest(group).await.inspect_err(|_| lock(&self.tally).calls_failed += 1)?;
        let before = self.tally();
        self.note(&report);
        let mut call = Tally::default();
        call.add(&report);
        tracing::info!(
            manifests = group.len(),
            committed = call.committed,
            rows = call.rows,
            quarantined = call.quarantined,
            waiting = call.waiting,
            failed = call.failed,
            total_committed = before.committed + call.committed,
            ms = millis(started.elapsed()),
            "ingested"
        );
        for one in call.notable.values() {
            tracing::warn!(manifest = one.path, outcome = ?one.outcome, "not ingested");
        }
        Ok(())
    }

    fn failed(&self, manifest: &ObjectPath, error: &Error) {
        tracing::error!(%manifest, %error, "ingest failed; the next sweep tries again");
        if !error.is_retry() {
            lock(&self.set_apart).insert(manifest.clone());
        }
    }

    fn note(&self, report: &IngestReport) {
        let mut tally = lock(&self.tally);
        let before = tally.settled();
        tally.add(report);
        if tally.settled() > before {
            *lock(&self.active_at) = Instant::now();
            self.changed.notify_one();
        }
    }

    /// Of the file that a manifest names, to group calls by; a manifest that cannot be read counts
    /// as a small one, and its call says what is wrong with it.
    fn file_bytes(&self, manifest: &ObjectPath) -> u64 {
        #[derive(Deserialize)]
        struct Sized {
            file: Option<SizedFile>,
        }
        #[derive(Deserialize)]
        struct SizedFile {
            bytes: u64,
        }
        let path = self.store_root.join(manifest.as_str());
        let readable = std::fs::metadata(&path).is_ok_and(|meta| meta.len() <= MANIFEST_BYTES_MAX as u64);
        let manifest = readable.then(|| std::fs::read(path).ok()).flatten();
        manifest.and_then(|bytes| serde_json::from_slice::<Sized>(&bytes).ok()?.file).map_or(0, |file| file.bytes)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while one is held; even so, its content would still be whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
