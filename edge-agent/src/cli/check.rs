//! `ribera-agent check`: does everything that a run needs work, and what to do where it does not.

use futures::StreamExt;
use jiff::civil::Date;
use ribera_storage::ports::Random;
use ribera_storage::{Error, ObjectStore, Result, StoreId};
use serde::Serialize;

use super::{CheckArgs, Common, Lang, Stopped, check_s3, render, setup};
use crate::agent::{Agent, DatasetContext, ServedStore};
use crate::extract::Job;
use crate::host::OsRandom;
use crate::objects::Objects;
use crate::plan::Days;
use crate::reach::{self, Obstacle, Reach, State};
use crate::report::{Exit, Problem, Stage};
use crate::sink::{Sink, SinkContext};

/// One line of the answer.
#[derive(Debug, Serialize)]
pub struct Checked {
    /// What was tried, such as `source` or `ventas`.
    pub what: String,
    pub store: Option<StoreId>,
    pub ok: bool,
    /// Something a person should know although it works.
    pub warning: Option<String>,
    pub detail: String,
    pub problem: Option<Problem>,
    /// What stands in the way, where it is known.
    pub cause: Option<Obstacle>,
}

pub async fn main(common: &Common, args: &CheckArgs) -> Result<Exit, Stopped> {
    // A check changes nothing in the agent's folder, and may run beside a running agent.
    let ready = setup::agent(&Common { dry_run: true, ..common.clone() })?;
    let agent = &ready.agent;
    let mut lines = Vec::new();
    let reached = match (&agent.config.object_store.s3, &agent.ports.objects) {
        (Some(config), Objects::S3(store)) => {
            check_s3::way(config, store, common.lang, args.timeout(), &mut lines).await
        }
        _ => true,
    };
    if reached {
        lines.push(object_store(agent, common.lang).await);
    }
    let checked = futures::stream::iter(agent.served(&common.stores))
        .map(|store| async move {
            let mut lines = Vec::new();
            check_store(agent, store, common, args, &mut lines).await;
            lines
        })
        .buffered(args.workers());
    lines.extend(checked.collect::<Vec<_>>().await.into_iter().flatten());
    let exit = lines.iter().filter_map(|line| line.problem.as_ref()).map(|problem| problem.exit).max();
    let exit = exit.unwrap_or(Exit::Done);
    render::checks(common, &lines, exit);
    Ok(exit)
}

async fn object_store(agent: &Agent<Objects>, lang: Lang) -> Checked {
    let place = agent.ports.objects.describe();
    let done = async {
        agent.ports.objects.probe().await?;
        let path = ribera_storage::object::ObjectPath::new(format!("state/probe/{}", OsRandom.fresh_name()))?;
        agent.ports.objects.put(&path, b"1".to_vec().into()).await?;
        let modified = agent.ports.objects.head(&path).await?.map(|meta| meta.modified);
        agent.ports.objects.delete(&path).await?;
        Ok(modified.map_or(0, |modified| agent.ports.clock.now().duration_since(modified).as_secs()))
    }
    .await;
    match done {
        Ok(offset_s) => Checked {
            warning: (offset_s.abs() > 60).then(|| format!("clock off by {offset_s} s")),
            ..good("object_store", None, format!("{place}, clock {offset_s:+} s"))
        },
        Err(error) => check_s3::failed("object_store", &error, lang),
    }
}

async fn check_store<S: ObjectStore>(
    agent: &Agent<S>,
    store: &ServedStore,
    common: &Common,
    args: &CheckArgs,
    lines: &mut Vec<Checked>,
) {
    let id = &store.config.id;
    if let Some((host, port)) = reach::place(&store.config.source).await {
        let reached = reach::reach(&host, Some(port), args.timeout()).await;
        lines.push(network(id, &reached, common.lang));
        if reached.state != State::PortOk {
            return;
        }
    }
    let place = match agent.place(&store.config).await {
        Ok(place) => std::rc::Rc::new(place),
        Err(error) => return lines.push(bad("definition", Some(id), Stage::Definition, &error)),
    };
    match check_source(store, &place.time_zone).await {
        Ok((detail, warning)) => lines.push(Checked { warning, ..good("source", Some(id), detail) }),
        Err(error) => return lines.push(bad("source", Some(id), Stage::Source, &error)),
    }
    for (name, mapping) in agent.config.datasets(&store.config) {
        if !common.datasets.is_empty() && !common.datasets.contains(name) {
            continue;
        }
        let done = async {
            let definition = agent.definition(name).await?;
            let context = DatasetContext { store, name, mapping, definition, place: place.clone() };
            check_dataset(agent, &context).await
        }
        .await;
        lines.push(match done {
            Ok(detail) => good(name.as_str(), Some(id), detail),
            Err(error) => bad(name.as_str(), Some(id), Stage::Source, &error),
        });
    }
}

/// Name, ping and port as one line.
fn network(id: &StoreId, reached: &Reach, lang: Lang) -> Checked {
    let place = reach::tried(reached);
    let took = |what: &str, took: Option<f64>| took.map_or(format!("{what} -"), |took| format!("{what} {took} ms"));
    let steps =
        [took("DNS", reached.lookup_ms), took("ping", reached.ping_ms), took("TCP", reached.port_ms)].join(", ");
    match reached.cause {
        None => good("network", Some(id), format!("{place}: {steps}")),
        Some(cause) => {
            let (es, en) = cause.next_step();
            let error = Error::retry(format!("source: {place}: {steps}: {}", lang.pick(es, en)))
                .with_hint(format!("ribera-agent check --quick --stores {id}"));
            Checked { cause: Some(Obstacle::from(cause)), ..bad("network", Some(id), Stage::Source, &error) }
        }
    }
}

async fn check_source(store: &ServedStore, zone: &jiff::tz::TimeZone) -> Result<(String, Option<String>)> {
    let mut session = store.source.connect().await?;
    let now = session.now(zone).await?;
    let rights = session.write_rights().await?;
    let warning = rights.map(|rights| format!("the user can write ({rights}): a reader should not"));
    Ok((format!("{}, {now}", store.source.describe()), warning))
}

/// Runs both queries for one day and reads the rows, without keeping them.
async fn check_dataset<S: ObjectStore>(agent: &Agent<S>, context: &DatasetContext<'_>) -> Result<String> {
    let mut reading = agent.begin_reading(context).await?;
    let day: Date = reading.today;
    agent.turn_to(&mut reading, day).await?;
    let found = agent.ask(&mut reading, &Days { from: day, to: day }).await?;
    let job = match context.definition.kind {
        ribera_storage::dataset::DatasetKind::Daily => Job::days(&Days { from: day, to: day }),
        ribera_storage::dataset::DatasetKind::Snapshot => {
            Job::whole(ribera_storage::Unit::Moment(reading.source_now), day)
        }
        ribera_storage::dataset::DatasetKind::Dimension => Job::whole(ribera_storage::Unit::Table, day),
    };
    let mut sink = Sink::new(
        SinkContext {
            definition: &context.definition,
            mapping: context.mapping,
            store: &context.store.config.id,
            zone: context.place.zone.clone(),
            salt: agent.config.hash_salt.as_ref().map(|salt| salt.expose()).unwrap_or_default().into(),
            units: job.units,
            snapshot_date: job.snapshot_date,
        },
        None,
    )?;
    let statement = reading.queries.extract.bind(day, day, &context.store.config.id);
    let timeout = reading.timeout();
    reading.session.query(&statement, &mut sink, timeout).await?;
    let audited: u64 = found.values().map(|one| one.facts.rows).sum();
    Ok(format!("{day}: {audited} audited, {} read", sink.rows()))
}

pub(super) fn good(what: &str, store: Option<&StoreId>, detail: String) -> Checked {
    Checked {
        what: what.to_owned(),
        store: store.cloned(),
        ok: true,
        warning: None,
        detail,
        problem: None,
        cause: None,
    }
}

pub(super) fn bad(what: &str, store: Option<&StoreId>, stage: Stage, error: &ribera_storage::Error) -> Checked {
    let problem = Problem::new(stage, error);
    Checked {
        what: what.to_owned(),
        store: store.cloned(),
        ok: false,
        warning: None,
        detail: problem.message.clone(),
        cause: Obstacle::of(&problem.message),
        problem: Some(problem),
    }
}
