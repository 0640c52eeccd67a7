//! `ribera up`: everything that runs by itself, until told to stop. Nothing in memory matters.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ribera_storage::object::FolderStore;
use ribera_storage::ports::Random as _;
use ribera_storage::{Error, Result};
use tokio::net::TcpListener;
use tokio::signal;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::connections;
use super::functions::{Functions, millis};
use super::http::Routes;
use super::ingester::Ingester;
use super::watch::{Heard, Watch};
use crate::lake::Lake;
use crate::maintain::TableMaintenance;
use crate::ports::SystemRandom;

/// From a change to the coverage that shows it, while changes keep coming.
const COVERAGE_DEBOUNCE: Duration = Duration::from_secs(1);

/// How often the inbox is listed where the kernel tells nothing.
const LISTING_INTERVAL: Duration = Duration::from_secs(2);

/// From the start to the first maintenance: what waited has priority.
const MAINTAIN_DELAY: Duration = Duration::from_secs(60);

const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// How long calls may go on once told to stop.
const STOP_MAX: Duration = Duration::from_secs(30);

/// A host at work.
pub struct Host {
    pub ingester: Arc<Ingester>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Host {
    /// Starts the ingest workers and nothing else.
    pub fn start(functions: Functions, store_root: &Path) -> Self {
        let ingester = Arc::new(Ingester::new(functions, store_root));
        let (stop, stopped) = watch::channel(false);
        let tasks = ingester.start(&stopped);
        Self { ingester, stop, tasks }
    }

    /// Adds what wakes the functions: events, schedules, HTTP. Returns the address it listens on.
    pub async fn serve(&mut self, store_root: &Path, listen: SocketAddr) -> Result<SocketAddr> {
        let listener = TcpListener::bind(listen)
            .await
            .map_err(|error| Error::config(format!("--listen: {listen}: cannot be listened on")).with_source(error))?;
        let address = listener.local_addr()?;
        let settings = self.ingester.functions().settings().http.clone();
        let routes = Arc::new(Routes::new(self.ingester.clone(), address, &settings));
        self.tasks.spawn(connections::serve(listener, routes, settings, self.stop.subscribe()));
        let events = match Watch::start(store_root) {
            Ok((watch, heard)) => {
                self.hear(heard);
                Some(watch)
            }
            Err(error) => {
                tracing::warn!(%error, "no events of new manifests; the inbox is listed every two seconds");
                None
            }
        };
        self.spawn(match events {
            Some(watch) => Task::Listen(Box::new(watch)),
            None => Task::List,
        });
        self.spawn(Task::Sweep);
        self.spawn(Task::Coverage);
        self.spawn(Task::Maintain(store_root.to_owned()));
        self.spawn(Task::Progress);
        Ok(address)
    }

    /// Lets running calls end, for a while.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_MAX, all).await.is_err() {
            tracing::warn!("stopped with calls still running; the next start sweeps up after them");
        }
    }

    fn hear(&self, heard: Vec<Heard>) {
        hear(&self.ingester, heard);
    }

    fn spawn(&mut self, task: Task) {
        let ingester = self.ingester.clone();
        let mut stopped = self.stop.subscribe();
        self.tasks.spawn(async move {
            tokio::select! {
                () = run(task, &ingester) => {}
                _ = stopped.wait_for(|stop| *stop) => {}
            }
        });
    }
}

enum Task {
    Listen(Box<Watch>),
    List,
    Sweep,
    Coverage,
    Maintain(PathBuf),
    Progress,
}

/// Ends on SIGTERM, SIGINT.
pub async fn told_to_stop() -> Result<()> {
    #[cfg(unix)]
    {
        let mut terminate = signal::unix::signal(signal::unix::SignalKind::terminate())?;
        tokio::select! {
            _ = terminate.recv() => Ok(()),
            pressed = signal::ctrl_c() => Ok(pressed?),
        }
    }
    #[cfg(not(unix))]
    Ok(signal::ctrl_c().await?)
}

async fn run(task: Task, ingester: &Ingester) {
    match task {
        Task::Listen(watch) => listen(*watch, ingester).await,
        Task::List => list(ingester).await,
        Task::Sweep => sweep(ingester).await,
        Task::Coverage => coverage(ingester).await,
        Task::Maintain(store_root) => maintain(&store_root, ingester).await,
        Task::Progress => progress(ingester).await,
    }
}

async fn listen(mut watch: Watch, ingester: &Ingester) {
    loop {
        match watch.next().await {
            Ok(heard) => hear(ingester, heard),
            Err(error) => {
                tracing::warn!(%error, "events of new manifests ended; the inbox is listed every two seconds");
                return list(ingester).await;
            }
        }
    }
}

fn hear(ingester: &Ingester, heard: Vec<Heard>) {
    let lost = heard.contains(&Heard::Lost);
    ingester.queue.offer(heard.into_iter().filter_map(|one| match one {
        Heard::Manifest(path) => Some(path),
        Heard::Lost => None,
    }));
    if lost {
        tracing::warn!("events of new manifests were lost; the next sweep finds them");
    }
}

async fn list(ingester: &Ingester) {
    loop {
        if let Err(error) = ingester.offer_inbox().await {
            tracing::error!(%error, "inbox cannot be listed");
        }
        tokio::time::sleep(LISTING_INTERVAL).await;
    }
}

async fn sweep(ingester: &Ingester) {
    let interval = Duration::from_secs(ingester.functions().settings().schedule.sweep_seconds.into());
    loop {
        let started = Instant::now();
        match ingester.sweep().await {
            Ok(()) => tracing::info!(ms = millis(started.elapsed()), "swept"),
            Err(error) => tracing::error!(%error, "sweep failed"),
        }
        tokio::time::sleep(interval).await;
    }
}

async fn coverage(ingester: &Ingester) {
    let interval = Duration::from_secs(ingester.functions().settings().schedule.coverage_seconds.into());
    loop {
        let started = Instant::now();
        match ingester.functions().coverage().await {
            Ok(refreshed) => {
                let datasets = refreshed.summaries.len();
                tracing::info!(datasets, ms = millis(started.elapsed()), "coverage computed");
                for failed in refreshed.failed {
                    tracing::error!(dataset = %failed.dataset, error = failed.error, "coverage failed");
                }
            }
            Err(error) => tracing::error!(%error, "coverage failed"),
        }
        // While batches keep coming, coverage takes a quarter of one processor at most.
        let pause = (started.elapsed() * 3).max(COVERAGE_DEBOUNCE);
        if tokio::time::timeout(interval, ingester.changed.notified()).await.is_ok() {
            tokio::time::sleep(pause).await;
        }
    }
}

/// Beside the other functions, on a thread of its own: DuckDB computes there for seconds at a time.
async fn maintain(store_root: &Path, ingester: &Ingester) {
    let interval = Duration::from_secs(ingester.functions().settings().schedule.maintain_seconds.into());
    tokio::time::sleep(interval.min(MAINTAIN_DELAY)).await;
    loop {
        let (started, root) = (Instant::now(), store_root.to_owned());
        let runtime = tokio::runtime::Handle::current();
        let round = tokio::task::spawn_blocking(move || runtime.block_on(maintain_once(&root))).await;
        match round {
            Ok(Ok(done)) => tracing::info!(
                tables = done.len(),
                rows_merged = done.iter().map(|table| table.rows_merged).sum::<u64>(),
                files_deleted = done.iter().map(|table| table.files_deleted).sum::<u64>(),
                ms = millis(started.elapsed()),
                "maintained"
            ),
            Ok(Err(error)) => tracing::error!(%error, "maintenance failed; `ribera maintain` shows it"),
            Err(error) => tracing::error!(%error, "maintenance ended by itself; `ribera maintain` shows it"),
        }
        tokio::time::sleep(interval).await;
    }
}

async fn maintain_once(store_root: &Path) -> Result<Vec<TableMaintenance>> {
    let lake = Lake::of(FolderStore::open(store_root, SystemRandom.fresh_name())?).await?;
    crate::maintain::maintain(&lake, false, |_, _, _| ()).await
}

async fn progress(ingester: &Ingester) {
    let mut told = 0;
    loop {
        tokio::time::sleep(PROGRESS_INTERVAL).await;
        let tally = ingester.tally();
        if tally.settled() != told || ingester.queue.pending() > 0 {
            told = tally.settled();
            tracing::info!(
                batches = tally.committed,
                rows = tally.rows,
                quarantined = tally.quarantined,
                pending = ingester.queue.pending(),
                "progress"
            );
        }
    }
}
