//! `ribera-agent once`: one cycle.

use std::time::Duration;

use super::{Common, Stopped, Wait, render, setup};
use crate::cycle::{Ask, Request};
use crate::report::Exit;

pub async fn main(common: &Common, wait: &Wait) -> Result<Exit, Stopped> {
    run(common, "once", Ask::Cycle, wait).await
}

/// Runs a request, beats once, prints the report.
pub async fn run(common: &Common, command: &str, ask: Ask, wait: &Wait) -> Result<Exit, Stopped> {
    let mut ready = setup::agent(common)?;
    let bar = render::progress(common, &ask);
    ready.agent.progress = bar.clone();
    let request = Request { ask, stores: common.stores.clone(), datasets: common.datasets.clone() };
    let report = ready.agent.run(command, &request, Duration::from_secs(wait.wait_acks)).await;
    if !report.dry_run && !report.local_only && report.exit() != Exit::ObjectStore {
        // A heartbeat that fails is no failure of the run.
        let _ = ready.agent.beat(&common.stores).await;
    }
    bar.end();
    render::keep(&ready.agent.config, &report);
    render::report(common, &report);
    Ok(report.exit())
}
