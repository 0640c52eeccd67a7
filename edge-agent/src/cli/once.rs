//! `ribera-agent once`: one cycle.

use std::time::Duration;

use super::setup::Ready;
use super::{Common, Stopped, Wait, hints, render, setup};
use crate::report::{Exit, Problem};
use crate::run::collect::{Request, RunMode};

pub async fn main(common: &Common, wait: &Wait) -> Result<Exit, Stopped> {
    run(common, "once", RunMode::Cycle, wait).await
}

/// Runs a request, beats once, prints the report.
pub async fn run(common: &Common, command: &str, ask: RunMode, wait: &Wait) -> Result<Exit, Stopped> {
    let mut ready = setup::agent(common)?;
    Ok(run_ready(&mut ready, common, command, ask, wait, Vec::new()).await)
}

/// Runs with an agent that is ready, and adds the problems met while it was opened.
pub async fn run_ready(
    ready: &mut Ready,
    common: &Common,
    command: &str,
    ask: RunMode,
    wait: &Wait,
    problems: Vec<Problem>,
) -> Exit {
    let bar = render::progress(common, &ready.agent, &ask);
    ready.agent.progress = bar.clone();
    let request = Request { ask, stores: common.stores.clone(), datasets: common.datasets.clone() };
    let mut report = ready.agent.run(command, &request, Duration::from_secs(wait.wait_acks)).await;
    report.problems.extend(problems);
    hints::complete(common, &mut report.problems);
    report.exit_code = report.exit().code();
    if !report.dry_run && !report.local_only && report.exit() != Exit::ObjectStore {
        // A heartbeat that fails is no failure of the run.
        let _ = ready.agent.beat(&common.stores).await;
    }
    bar.end();
    render::keep(&ready.agent.config, &report);
    render::report(common, &report);
    report.exit()
}
