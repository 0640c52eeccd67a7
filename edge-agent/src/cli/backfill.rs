//! `ribera-agent backfill`: history, a batch per month. What was sent and agrees is left out, so
//! running it again resumes. Where an agent runs already, it is told, and carries it out beside its daily work.

use std::time::Duration;

use clap::Args;
use futures::StreamExt;
use jiff::civil::Date;
use ribera_storage::{DatasetName, Error, StoreId};
use serde::Serialize;

use super::setup::Ready;
use super::{Common, Stopped, Wait, checked_days, once, render, setup, stopped};
use crate::calendar::Days;
use crate::config::{Config, Hours, Limits, StoreConfig};
use crate::host::OsRandom;
use crate::journal::Journal;
use crate::report::{Exit, Problem, Stage};
use crate::run::backfill::{Backfill, Order};
use crate::run::collect::RunMode;
use crate::source::reach;
use crate::terminal::say;

/// For name, ping and port of a store before its history is asked for.
const REACH_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Args)]
pub struct BackfillArgs {
    /// Primer día de negocio / First business day
    #[arg(long, value_name = "YYYY-MM-DD", required_unless_present_any = ["resume", "stop", "cancel", "status"])]
    pub from: Option<Date>,
    /// Último día de negocio / Last business day
    #[arg(long, value_name = "YYYY-MM-DD", required_unless_present_any = ["resume", "stop", "cancel", "status"])]
    pub to: Option<Date>,
    /// También los días iguales / Days whose fingerprints agree too
    #[arg(long)]
    pub force: bool,
    /// Sigue con el que se interrumpió / Goes on with the one that was interrupted
    #[arg(long, conflicts_with_all = ["from", "to", "force"])]
    pub resume: bool,
    /// Lo detiene tras el mes en curso; `--resume` sigue / Stops it after the current month; `--resume` goes on
    #[arg(long, conflicts_with_all = ["from", "to", "force", "resume"])]
    pub stop: bool,
    /// Lo olvida tras el mes en curso / Forgets it after the current month
    #[arg(long, conflicts_with_all = ["from", "to", "force", "resume", "stop"])]
    pub cancel: bool,
    /// Muestra el avance / Shows how far it has come
    #[arg(long, conflicts_with_all = ["from", "to", "force", "resume", "stop", "cancel"])]
    pub status: bool,
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

pub async fn main(common: &Common, args: &BackfillArgs) -> Result<Exit, Stopped> {
    if args.status {
        return status(common);
    }
    let mut ready = match setup::agent_with(common, &|config| args.change(config)) {
        // Another agent has the journal: it carries out what it is told.
        Err(problem) if problem.exit == Exit::Locked && !common.dry_run => return tell(common, args, problem),
        ready => ready?,
    };
    let journal_error = stopped(Stage::Journal, None);
    if args.cancel || args.stop {
        let noted = Backfill::noted(&ready.agent.journal).map_err(&journal_error)?;
        let left = noted.filter(|_| args.stop).map(|noted| Backfill { stopped: true, ..noted });
        Backfill::note(&ready.agent.journal, left.as_ref()).map_err(&journal_error)?;
        return Ok(Exit::Done);
    }
    let asked = asked(&ready, common, args)?;
    if !ready.agent.config.dry_run {
        Backfill::note(&ready.agent.journal, Some(&asked)).map_err(&journal_error)?;
    }
    ready.agent.beside_daily_work = true;
    let days = checked_days(asked.from, asked.to)?;
    let mut common = Common { stores: asked.stores.clone(), datasets: asked.datasets.clone(), ..common.clone() };
    let down = unreachable(&ready, &common).await;
    let left = |store: &StoreId| !down.iter().any(|problem| problem.store.as_ref() == Some(store));
    common.stores = ready.agent.served_ids(&common.stores).into_iter().filter(left).collect();
    if common.stores.is_empty() {
        return Err(Box::new(nobody_left(down)));
    }
    let exit = once::run_ready(
        &mut ready,
        &common,
        "backfill",
        RunMode::Backfill { days, force: asked.force },
        &args.wait,
        down,
    )
    .await;
    if exit == Exit::Done && !ready.agent.config.dry_run {
        Backfill::note(&ready.agent.journal, None).map_err(&journal_error)?;
    }
    Ok(exit)
}

/// Leaves the order with the agent that runs.
fn tell(common: &Common, args: &BackfillArgs, locked: Stopped) -> Result<Exit, Stopped> {
    let order = match (args.from, args.to) {
        _ if args.cancel => Order::Cancel,
        _ if args.stop => Order::Stop,
        _ if args.resume => Order::Resume,
        (Some(from), Some(to)) => Order::Begin(of(common, args, checked_days(from, to)?)),
        _ => return Err(locked),
    };
    let config = setup::config(common)?;
    order.leave(&config.folder).map_err(stopped(Stage::Spool, None))?;
    say!(
        "{}",
        common.lang.pick(
            "El agente en marcha se encarga, junto a su trabajo diario. Avance: ribera-agent backfill --status",
            "The running agent carries it out beside its daily work. Progress: ribera-agent backfill --status"
        )
    );
    Ok(Exit::Done)
}

/// How far the backfill has come: of each stream the days that the journal knows.
fn status(common: &Common) -> Result<Exit, Stopped> {
    let config = setup::config(common)?;
    let error = stopped(Stage::Journal, None);
    let journal = Journal::open_file_to_read(&config.journal_file(), &OsRandom).map_err(&error)?;
    // Asked first: an order is noted before it is taken away.
    let waits = Order::waits(&config.folder);
    let noted = Backfill::noted(&journal).map_err(&error)?;
    let mut streams = Vec::new();
    for store in config.stores.iter().filter(|_| noted.is_some()) {
        for (dataset, _) in config.datasets(store) {
            let Some(noted) = &noted else { continue };
            let is_asked = (noted.stores.is_empty() || noted.stores.contains(&store.id))
                && (noted.datasets.is_empty() || noted.datasets.contains(dataset));
            if is_asked {
                let known = journal.units_between(&store.id, dataset, noted.from, noted.to).map_err(&error)?.len();
                streams.push(Stream { store: store.id.clone(), dataset: dataset.clone(), days_known: known as u64 });
            }
        }
    }
    let days = noted.as_ref().map_or(0, |noted| Days { from: noted.from, to: noted.to }.iter().count() as u64);
    render::backfill(common, &Status { backfill: noted, waits, days, streams });
    Ok(Exit::Done)
}

/// The answer of `backfill --status --json`.
#[derive(Debug, Serialize)]
pub struct Status {
    /// What is not done yet.
    pub backfill: Option<Backfill>,
    /// An order that the running agent has not taken yet.
    pub waits: bool,
    /// Days that were asked for.
    pub days: u64,
    pub streams: Vec<Stream>,
}

#[derive(Debug, Serialize)]
pub struct Stream {
    pub store: StoreId,
    pub dataset: DatasetName,
    /// Requested days that were extracted at least once.
    pub days_known: u64,
}

fn of(common: &Common, args: &BackfillArgs, days: Days) -> Backfill {
    let (stores, datasets) = (common.stores.clone(), common.datasets.clone());
    Backfill { from: days.from, to: days.to, force: args.force, stores, datasets, stopped: false }
}

/// From the command line, or with `--resume` as it was asked for then.
fn asked(ready: &Ready, common: &Common, args: &BackfillArgs) -> Result<Backfill, Stopped> {
    if let (Some(from), Some(to)) = (args.from, args.to) {
        return Ok(of(common, args, checked_days(from, to)?));
    }
    let noted = Backfill::noted(&ready.agent.journal).map_err(stopped(Stage::Journal, None))?;
    noted.map(|noted| Backfill { stopped: false, ..noted }).ok_or_else(|| {
        let error = Error::config("--resume: there must be a backfill that was interrupted, got none")
            .with_hint("ribera-agent backfill --from YYYY-MM-DD --to YYYY-MM-DD");
        stopped(Stage::Definition, Some(Exit::Config))(error)
    })
}

/// A problem for each wanted store whose server does not answer.
async fn unreachable(ready: &Ready, common: &Common) -> Vec<Problem> {
    let tried = futures::stream::iter(ready.agent.served(&common.stores)).map(async |store| {
        let reached = reach::reach_source(&store.config.source, REACH_TIMEOUT).await?;
        let id = &store.config.id;
        reached.cause.map(|cause| {
            let (es, en) = cause.next_step();
            let error = Error::retry(format!(
                "source: {}: {}: {}",
                reach::tried(&reached),
                common.lang.pick("queda fuera", "left out"),
                common.lang.pick(es, en)
            ))
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
