//! `ribera-agent backfill`: history, a batch per month. What was sent and agrees is left out, so
//! running it again resumes.

use std::time::Duration;

use clap::Args;
use futures::StreamExt;
use jiff::civil::Date;
use ribera_storage::{Error, StoreId};
use serde::{Deserialize, Serialize};

use super::setup::Ready;
use super::{Common, Stopped, Wait, checked_days, once, setup, stopped};
use crate::config::{Config, Hours, Limits, StoreConfig};
use crate::cycle::Ask;
use crate::plan::Days;
use crate::reach;
use crate::report::{Exit, Problem, Stage};

/// Where the journal keeps the backfill that has not come to its end.
const NOTED: &str = "backfill";
/// For name, ping and port of a store before its history is asked for.
const REACH_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Args)]
pub struct BackfillArgs {
    /// Primer día de negocio / First business day
    #[arg(long, value_name = "YYYY-MM-DD", required_unless_present = "resume")]
    pub from: Option<Date>,
    /// Último día de negocio / Last business day
    #[arg(long, value_name = "YYYY-MM-DD", required_unless_present = "resume")]
    pub to: Option<Date>,
    /// También los días iguales / Days whose fingerprints agree too
    #[arg(long)]
    pub force: bool,
    /// Sigue con el que se interrumpió / Goes on with the one that was interrupted
    #[arg(long, conflicts_with_all = ["from", "to", "force"])]
    pub resume: bool,
    /// Tiendas a la vez / Stores at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=64))]
    pub workers: Option<u64>,
    /// Una tienda tras otra / One store after the other
    #[arg(long, conflicts_with = "workers")]
    pub sequential: bool,
    /// Filas por consulta / Rows per query
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub chunk_rows: Option<u64>,
    /// Segundos por consulta; la que tarda más se parte / Seconds per query; a slower one is halved
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: Option<u64>,
    /// Milisegundos de descanso entre consultas / Milliseconds of rest between queries
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(0..=3_600_000))]
    pub pause: Option<u64>,
    /// Solo a estas horas de la tienda / Only in these hours of the store
    #[arg(long, value_name = "HH:MM-HH:MM")]
    pub hours: Option<Hours>,
    /// Empieza por el mes más antiguo / Begins with the oldest month
    #[arg(long)]
    pub oldest_first: bool,
    #[command(flatten)]
    pub wait: Wait,
}

/// What was asked for, as the journal keeps it until it is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Noted {
    from: Date,
    to: Date,
    force: bool,
    stores: Vec<StoreId>,
    datasets: Vec<ribera_storage::DatasetName>,
}

pub async fn main(common: &Common, args: &BackfillArgs) -> Result<Exit, Stopped> {
    let mut ready = setup::agent_with(common, &|config| args.change(config))?;
    let asked = asked(&ready, common, args)?;
    if !ready.agent.config.dry_run {
        let text = serde_json::to_string(&asked)
            .map_err(|error| Error::bug("a backfill does not serialise").with_source(error))
            .map_err(stopped(Stage::Journal, None))?;
        ready.agent.journal.note(NOTED, Some(&text)).map_err(stopped(Stage::Journal, None))?;
    }
    let days = checked_days(asked.from, asked.to)?;
    let mut common = Common { stores: asked.stores.clone(), datasets: asked.datasets.clone(), ..common.clone() };
    let down = unreachable(&ready, &common).await;
    let left = |store: &StoreId| !down.iter().any(|problem| problem.store.as_ref() == Some(store));
    common.stores = ready.agent.served_ids(&common.stores).into_iter().filter(left).collect();
    if common.stores.is_empty() {
        return Err(Box::new(nobody_left(down)));
    }
    let exit =
        once::run_ready(&mut ready, &common, "backfill", Ask::Backfill { days, force: asked.force }, &args.wait, down)
            .await;
    if exit == Exit::Done && !ready.agent.config.dry_run {
        ready.agent.journal.note(NOTED, None).map_err(stopped(Stage::Journal, None))?;
    }
    Ok(exit)
}

/// From the command line, or with `--resume` as it was asked for then.
fn asked(ready: &Ready, common: &Common, args: &BackfillArgs) -> Result<Noted, Stopped> {
    let (stores, datasets) = (common.stores.clone(), common.datasets.clone());
    if let (Some(from), Some(to)) = (args.from, args.to) {
        let Days { from, to } = checked_days(from, to)?;
        return Ok(Noted { from, to, force: args.force, stores, datasets });
    }
    let noted = ready.agent.journal.noted(NOTED).map_err(stopped(Stage::Journal, None))?;
    let noted = noted.and_then(|text| serde_json::from_str(&text).ok());
    noted.ok_or_else(|| {
        let error = Error::config("--resume: there must be a backfill that was interrupted, got none")
            .with_hint("ribera-agent backfill --from YYYY-MM-DD --to YYYY-MM-DD");
        stopped(Stage::Definition, Some(Exit::Config))(error)
    })
}

/// A problem for each wanted store whose server does not answer.
async fn unreachable(ready: &Ready, common: &Common) -> Vec<Problem> {
    let tried = futures::stream::iter(ready.agent.served(&common.stores)).map(async |store| {
        let (host, port) = reach::place(&store.config.source).await?;
        let reached = reach::reach(&host, Some(port), REACH_TIMEOUT).await;
        let id = &store.config.id;
        reached.cause.map(|cause| {
            let (es, en) = cause.next_step();
            let error = Error::retry(format!("source: {host}:{port}: left out: {}", common.lang.pick(es, en)))
                .with_hint(format!("ribera-agent check --stores {id}"));
            Problem::new(Stage::Source, &error).of(id, None).ending(Exit::Unreachable)
        })
    });
    let workers = ready.agent.config.limits.workers.max(8);
    tried.buffered(workers).collect::<Vec<_>>().await.into_iter().flatten().collect()
}

fn nobody_left(down: Vec<Problem>) -> Problem {
    down.into_iter().next().unwrap_or_else(|| {
        Problem::new(Stage::Source, &Error::config("--stores: must be served stores, got none")).ending(Exit::Config)
    })
}

impl BackfillArgs {
    /// What the command line says in place of the settings, those of a single store included.
    fn change(&self, config: &mut Config) {
        self.limit(&mut config.limits);
        for StoreConfig { limits, .. } in &mut config.stores {
            if self.chunk_rows.is_some() {
                (limits.chunk_rows, limits.chunk_rows_min) = (None, None);
            }
            limits.chunk_timeout_s = limits.chunk_timeout_s.filter(|_| self.timeout.is_none());
            limits.chunk_pause_ms = limits.chunk_pause_ms.filter(|_| self.pause.is_none());
            limits.backfill_hours = limits.backfill_hours.filter(|_| self.hours.is_none());
        }
    }

    fn limit(&self, limits: &mut Limits) {
        if let Some(workers) = self.workers {
            limits.workers = usize::try_from(workers).unwrap_or(1);
        }
        if self.sequential {
            limits.workers = 1;
        }
        if let Some(rows) = self.chunk_rows {
            (limits.chunk_rows, limits.chunk_rows_win) = (rows, true);
            limits.chunk_rows_min = limits.chunk_rows_min.min(rows);
        }
        limits.chunk_timeout_s = self.timeout.unwrap_or(limits.chunk_timeout_s);
        limits.chunk_pause_ms = self.pause.unwrap_or(limits.chunk_pause_ms);
        limits.backfill_hours = self.hours.or(limits.backfill_hours);
        limits.oldest_first |= self.oldest_first;
    }
}
