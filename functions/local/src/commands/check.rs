//! `ribera check`: which stores' databases can be reached from the centre, and what to do about the others.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use ribera_core::coverage::{self, Touched};
use ribera_reach::{Obstacle, Reach, State};
use ribera_storage::heartbeat::{GOOD, HEARTBEAT_BYTES_MAX, Heartbeat};
use ribera_storage::object::{Bounded, get_at_most};
use ribera_storage::store::StoreDefinition;
use ribera_storage::{ObjectStore, Result, StoreId, control, paths};
use serde::Serialize;
use serde_json::json;

use crate::cli::{Context, Exit, Lang};
use crate::lake::Lake;
use crate::show;

/// An agent says something each minute; one that did not for so long says nothing of now.
const HEARTBEAT_FRESH: SignedDuration = SignedDuration::from_mins(10);

#[derive(Debug, clap::Args)]
#[command(after_help = "Estados: conectada (el agente de la tienda leyó su base hace poco), puerto abierto, responde,
sin respuesta, inactiva. Solo se prueban las tiendas que declaran `host`.
/ States: connected (the store's agent has read its database of late), port ok, reachable, unreachable,
inactive. Only stores that declare a `host` are tried.

Ejemplos / Examples:
  ribera check
  ribera check --only-active --workers 50 --timeout 3")]
pub struct Args {
    /// Solo estas tiendas, repetible. / Only these stores, repeatable.
    #[arg(long)]
    store: Vec<StoreId>,
    /// Tiendas a la vez. / Stores at once.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=512))]
    workers: u64,
    /// Segundos por paso. / Seconds for each step.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=120))]
    timeout: u64,
    /// Una tienda tras otra. / One store after the other.
    #[arg(long, conflicts_with = "workers")]
    sequential: bool,
    /// Deja fuera las inactivas. / Leaves inactive stores out.
    #[arg(long)]
    only_active: bool,
}

/// How far the way to a store goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Way {
    /// The store's own agent has logged in and read, a moment ago.
    Connected,
    PortOk,
    Reachable,
    Unreachable,
    /// Not tried.
    Inactive,
}

#[derive(Debug, Serialize)]
struct Checked {
    store: StoreId,
    name: String,
    way: Way,
    reach: Option<Reach>,
    /// Of the store's agent.
    heartbeat: Option<Timestamp>,
    /// What stands in the way: of the network, or as the store's agent says of its last runs.
    cause: Option<Obstacle>,
}

#[derive(Debug, Serialize)]
struct Summary {
    tried: usize,
    up: usize,
    /// Of those tried.
    up_percent: f64,
    causes: BTreeMap<Obstacle, Vec<StoreId>>,
    /// For the stores that are up and have days missing or partial.
    backfill: Option<String>,
}

pub async fn run(args: Args, context: &Context) -> Result<Exit> {
    let lake = Lake::open(context).await?;
    for store in &args.store {
        lake.store(store)?;
    }
    let wanted = |store: &&StoreDefinition| {
        store.host.is_some()
            && (args.store.is_empty() || args.store.contains(&store.id))
            && (store.active || !args.only_active)
    };
    let workers = if args.sequential { 1 } else { usize::try_from(args.workers).unwrap_or(1) };
    let timeout = Duration::from_secs(args.timeout);
    let checked: Vec<Checked> = futures::stream::iter(lake.stores.iter().filter(wanted))
        .map(|store| check(&lake, store, timeout))
        .buffered(workers)
        .try_collect()
        .await?;
    let summary = summary(&lake, &checked).await?;
    context.answer(&json!({"stores": checked, "summary": summary}), |lang| text(lang, &checked, &summary))?;
    Ok(if summary.causes.is_empty() { Exit::Ok } else { Exit::Findings })
}

async fn check(lake: &Lake, store: &StoreDefinition, timeout: Duration) -> Result<Checked> {
    let mut checked =
        Checked {
            store: store.id.clone(),
            name: store.name.clone(),
            way: Way::Inactive,
            reach: None,
            heartbeat: None,
            cause: None,
        };
    let (Some(host), true) = (&store.host, store.active) else { return Ok(checked) };
    let reach = ribera_reach::reach(host, store.port, timeout).await;
    let heartbeat = heartbeat(lake, &store.id).await?;
    checked.heartbeat = heartbeat.as_ref().map(|said| said.at);
    let fresh = heartbeat.filter(|said| lake.ports().clock.now().duration_since(said.at) < HEARTBEAT_FRESH);
    let reads = fresh.as_ref().is_some_and(|said| said.good);
    checked.way = match reach.state {
        State::Unreachable => Way::Unreachable,
        _ if reads => Way::Connected,
        State::PortOk => Way::PortOk,
        State::Reachable => Way::Reachable,
    };
    // The centre has no credentials of a store: what is wrong behind the port its agent knows.
    checked.cause = match checked.way {
        Way::Connected => None,
        _ => reach.cause.map(Obstacle::from).or_else(|| fresh.and_then(|said| said.obstacle)),
    };
    checked.reach = Some(reach);
    Ok(checked)
}

/// What the store's agent said last.
struct Said {
    /// By the object store's clock.
    at: Timestamp,
    /// Whether its last runs were good.
    good: bool,
    obstacle: Option<Obstacle>,
}

async fn heartbeat(lake: &Lake, store: &StoreId) -> Result<Option<Said>> {
    let path = paths::heartbeat(store)?;
    let Some(meta) = lake.objects.head(&path).await? else { return Ok(None) };
    let at = meta.modified;
    let bytes = match get_at_most(&lake.objects, &path, HEARTBEAT_BYTES_MAX).await? {
        Bounded::Absent => return Ok(None),
        Bounded::Whole(part) => part.bytes,
        Bounded::TooLarge => return Ok(Some(Said { at, good: false, obstacle: None })),
    };
    // One agent's broken object must not end the check of all stores.
    let Ok(heartbeat) = serde_json::from_slice::<Heartbeat>(&bytes) else {
        return Ok(Some(Said { at, good: false, obstacle: None }));
    };
    let good = !heartbeat.runs.is_empty() && heartbeat.runs.iter().all(|run| run.outcome == GOOD);
    let obstacle = heartbeat.runs.iter().find_map(|run| Obstacle::of(&run.outcome));
    Ok(Some(Said { at, good, obstacle }))
}

async fn summary(lake: &Lake, checked: &[Checked]) -> Result<Summary> {
    let tried: Vec<&Checked> = checked.iter().filter(|one| one.way != Way::Inactive).collect();
    let mut causes: BTreeMap<Obstacle, Vec<StoreId>> = BTreeMap::new();
    for one in &tried {
        if let Some(cause) = one.cause {
            causes.entry(cause).or_default().push(one.store.clone());
        }
    }
    let up: Vec<StoreId> = tried.iter().filter(|one| one.cause.is_none()).map(|one| one.store.clone()).collect();
    let up_percent = if tried.is_empty() { 100.0 } else { up.len() as f64 * 100.0 / tried.len() as f64 };
    Ok(Summary { tried: tried.len(), up: up.len(), up_percent, causes, backfill: backfill(lake, up).await? })
}

/// One command from the first to the last day that the stores that are up lack.
async fn backfill(lake: &Lake, up: Vec<StoreId>) -> Result<Option<String>> {
    let touched = Touched { stores: Some(up), from: None, to: None };
    let (mut stores, mut days): (Vec<StoreId>, Option<(Date, Date)>) = (Vec::new(), None);
    for dataset in control::load_published_datasets(&lake.objects).await? {
        for gap in coverage::compute(lake.ports(), &dataset.name).await?.gap_plan(&touched) {
            days = Some(days.map_or((gap.from, gap.to), |(from, to)| (from.min(gap.from), to.max(gap.to))));
            stores.push(gap.store);
        }
    }
    stores.sort_unstable();
    stores.dedup();
    let stores: Vec<&str> = stores.iter().map(StoreId::as_str).collect();
    Ok(days.map(|(from, to)| format!("ribera-agent backfill --stores {} --from {from} --to {to}", stores.join(","))))
}

fn text(lang: Lang, checked: &[Checked], summary: &Summary) -> String {
    if checked.is_empty() {
        return lang
            .pick("Ninguna tienda declara `host`: ribera store add ID --host HOST", "No store declares a `host`: ribera store add ID --host HOST")
            .to_owned();
    }
    let header = lang.pick(
        ["tienda", "nombre", "servidor", "estado", "ms", "agente"],
        ["store", "name", "server", "state", "ms", "agent"],
    );
    let mut table = show::table(&header);
    for one in checked {
        let server = one.reach.as_ref().map_or(String::new(), |reach| match reach.port {
            Some(port) => format!("{}:{port}", reach.host),
            None => reach.host.clone(),
        });
        let took = one.reach.as_ref().and_then(|reach| reach.port_ms.or(reach.ping_ms));
        table.add_row(vec![
            show::cell(&one.store),
            show::cell(&one.name),
            show::cell(server),
            show::cell(way(lang, one.way)),
            show::right(took.map_or("-".to_owned(), |took| took.to_string())),
            show::cell(one.heartbeat.map_or("-".to_owned(), |at| at.strftime("%Y-%m-%d %H:%MZ").to_string())),
        ]);
    }
    let mut lines = vec![show::table_text(&table)];
    let up = format!("{} / {} ({})", summary.up, summary.tried, show::percent(lang, summary.up_percent));
    lines.push(format!("{}: {up}", lang.pick("alcanzables", "reachable")));
    for (cause, stores) in &summary.causes {
        let (es, en) = cause.next_step();
        let stores: Vec<&str> = stores.iter().map(StoreId::as_str).collect();
        lines.push(format!("{}: {}", stores.join(", "), lang.pick(es, en)));
    }
    if let Some(command) = &summary.backfill {
        lines.push(format!("{}:\n{command}", lang.pick("para las que responden", "for those that are up")));
    }
    lines.join("\n")
}

fn way(lang: Lang, way: Way) -> &'static str {
    match way {
        Way::Connected => lang.pick("conectada", "connected"),
        Way::PortOk => lang.pick("puerto abierto", "port ok"),
        Way::Reachable => lang.pick("responde", "reachable"),
        Way::Unreachable => lang.pick("sin respuesta", "unreachable"),
        Way::Inactive => lang.pick("inactiva", "inactive"),
    }
}
