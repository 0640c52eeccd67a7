//! `ribera-agent run`: cycles by schedule and heartbeats, until told to end.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{Common, Stopped, hints, render, setup};
use crate::agent::{Agent, Progress};
use crate::calendar::Days;
use crate::report::Exit;
use crate::report::logfile;
use crate::run::backfill::{Backfill, Order};
use crate::run::collect::{Request, RunMode};
use ribera_storage::ObjectStore;

/// How often it is looked whether a heartbeat is due: `limits.heartbeat_s` is at least as long.
const BEAT: Duration = Duration::from_secs(15);
/// How often schedules are looked at, and acknowledgements asked for.
const TICK: Duration = Duration::from_secs(30);

const LISTEN: Duration = Duration::from_secs(1);
/// After a backfill that failed, such as for a source that is unreachable.
const BACKFILL_AGAIN: Duration = Duration::from_secs(900);

pub async fn main(common: &Common) -> Result<Exit, Stopped> {
    until(common, stop_asked()).await
}

/// Runs until `stop` comes.
pub async fn until(common: &Common, stop: impl Future<Output = ()>) -> Result<Exit, Stopped> {
    let mut ready = setup::agent(common)?;
    ready.agent.beside_daily_work = true;
    ready.agent.progress = Rc::new(Orders { folder: ready.agent.config.folder.clone() });
    let request = Request { ask: RunMode::Due, stores: common.stores.clone(), datasets: common.datasets.clone() };
    let agent = &ready.agent;
    tokio::select! {
        // The first to be polled, so that signals are heard before anything begins.
        biased;
        // A signal ends the work between two awaits; every step before and after is crash-safe,
        // so what was begun is resumed at the next start.
        () = stop => {
            tracing::info!("ends, as it was told to");
            Ok(Exit::Done)
        }
        () = cycles(agent, common, &request) => Ok(Exit::Done),
        () = beats(agent, common) => Ok(Exit::Done),
    }
}

/// An order that comes in ends the month that a backfill is at; what it asks for is done then.
struct Orders {
    folder: PathBuf,
}

impl Progress for Orders {
    fn stops(&self) -> bool {
        Order::waits(&self.folder)
    }
}

/// The least of all work: history that a person asked for, as long as no order says otherwise.
async fn history<S: ObjectStore>(agent: &Agent<S>, common: &Common, not_before: &mut Option<Instant>) {
    if agent.config.dry_run {
        return;
    }
    if Order::waits(&agent.config.folder) {
        *not_before = None;
        if let Err(error) = Order::take(&agent.config.folder, &agent.journal) {
            return agent.log(format!("backfill: {error}"));
        }
    }
    let noted = Backfill::noted(&agent.journal).ok().flatten();
    let Some(backfill) = noted.filter(|noted| !noted.stopped) else { return };
    if not_before.is_some_and(|at| Instant::now() < at) {
        return;
    }
    let days = Days { from: backfill.from, to: backfill.to };
    let ask = RunMode::Backfill { days, force: backfill.force };
    let request = Request { ask, stores: backfill.stores.clone(), datasets: backfill.datasets.clone() };
    let mut report = agent.run("backfill", &request, Duration::ZERO).await;
    hints::complete(common, &mut report.problems);
    render::report(common, &report);
    render::keep(&agent.config, &report);
    if report.datasets.iter().any(|dataset| dataset.stopped) {
        return;
    }
    // What is refused or not proven is told by its alarm: asking all of history again would not cure it. A source that
    // is unreachable, and a setting that a person has to correct, leave it to be done.
    let retries = report.problems.iter().any(|problem| problem.kind != "data");
    if retries {
        *not_before = Some(Instant::now() + BACKFILL_AGAIN);
    } else if let Err(error) = Backfill::note(&agent.journal, None) {
        agent.log(format!("backfill: {error}"));
    }
}

async fn cycles<S: ObjectStore>(agent: &Agent<S>, common: &Common, request: &Request) {
    let mut history_not_before = None;
    loop {
        let mut report = agent.run("run", request, Duration::ZERO).await;
        hints::complete(common, &mut report.problems);
        let worth_telling =
            !report.datasets.is_empty() || report.upload.acknowledged > 0 || !report.problems.is_empty();
        if worth_telling {
            render::report(common, &report);
        }
        // A line per cycle that began: an uplink that is away all day must not fill the logbook.
        if !report.datasets.is_empty() {
            render::keep(&agent.config, &report);
        } else if worth_telling {
            logfile::report(&report);
        }
        history(agent, common, &mut history_not_before).await;
        // An order is heard at once.
        let ends_at = Instant::now() + TICK;
        while Instant::now() < ends_at && (agent.config.dry_run || !Order::waits(&agent.config.folder)) {
            tokio::time::sleep(LISTEN).await;
        }
    }
}

async fn beats<S: ObjectStore>(agent: &Agent<S>, common: &Common) {
    if agent.config.dry_run || agent.config.local_only {
        return std::future::pending().await;
    }
    loop {
        if let Err(error) = agent.beat_if_due(&common.stores).await {
            tracing::warn!("heartbeat: {error}");
        }
        tokio::time::sleep(BEAT).await;
    }
}

async fn stop_asked() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = tokio::signal::ctrl_c() => return,
            }
        }
    }
    // Without a handler for the signal only Ctrl-C ends in order.
    let _ = tokio::signal::ctrl_c().await;
}
