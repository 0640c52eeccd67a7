//! `ribera-agent run`: cycles by schedule and a heartbeat each minute, until told to end.

use std::time::Duration;

use super::{Common, Stopped, render, setup};
use crate::agent::Agent;
use crate::cycle::{Ask, Request};
use crate::logfile;
use crate::report::Exit;
use ribera_storage::ObjectStore;

const BEAT: Duration = Duration::from_secs(60);
/// How often schedules are looked at, and acknowledgements asked for.
const TICK: Duration = Duration::from_secs(30);

pub async fn main(common: &Common) -> Result<Exit, Stopped> {
    let ready = setup::agent(common)?;
    let request = Request { ask: Ask::Due, stores: common.stores.clone(), datasets: common.datasets.clone() };
    let agent = &ready.agent;
    tokio::select! {
        // The first to be polled, so that signals are heard before anything begins.
        biased;
        // A signal ends the work between two awaits; every step before and after is crash-safe,
        // so what was begun is resumed at the next start.
        () = stop_asked() => {
            tracing::info!("ends, as it was told to");
            Ok(Exit::Done)
        }
        () = cycles(agent, common, &request) => Ok(Exit::Done),
        () = beats(agent, common) => Ok(Exit::Done),
    }
}

async fn cycles<S: ObjectStore>(agent: &Agent<S>, common: &Common, request: &Request) {
    loop {
        let report = agent.run("run", request, Duration::ZERO).await;
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
        tokio::time::sleep(TICK).await;
    }
}

async fn beats<S: ObjectStore>(agent: &Agent<S>, common: &Common) {
    if agent.config.dry_run || agent.config.local_only {
        return std::future::pending().await;
    }
    loop {
        if let Err(error) = agent.beat(&common.stores).await {
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
