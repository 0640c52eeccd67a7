//! `ribera-agent check`: does everything that a run needs work, and what to do where it does not.

use futures::StreamExt;
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use ribera_storage::dataset::DatasetKind;
use ribera_storage::ports::Random;
use ribera_storage::{Error, ObjectStore, Result, StoreId};
use serde::Serialize;

use super::views;
use super::{CheckArgs, Common, Lang, Stopped, check_s3, check_show, hints, render, setup};
use crate::agent::{Agent, DatasetContext, ServedStore, StoreCalendar};
use crate::calendar::Days;
use crate::encode::Sink;
use crate::host::OsRandom;
use crate::objects::Objects;
use crate::report::{Exit, Problem, Stage};
use crate::run::extract::{Job, sink_context};
use crate::run::question::Proven;
use crate::run::session::{ExtractionSession, in_context};
use crate::source::reach::{self, Obstacle, Reach, State};
use crate::source::{Outcome, Session, timed_out};

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
    let mut offset_s = None;
    if reached {
        let (line, offset) = object_store(agent, common.lang).await;
        lines.push(line);
        offset_s = offset;
    }
    let checked = futures::stream::iter(agent.served(&common.stores))
        .map(|store| async move {
            let mut lines = Vec::new();
            check_store(agent, store, common, args, offset_s.unwrap_or(0), &mut lines).await;
            lines
        })
        .buffered(args.workers());
    lines.extend(checked.collect::<Vec<_>>().await.into_iter().flatten());
    let exit = lines.iter().filter_map(|line| line.problem.as_ref()).map(|problem| problem.exit).max();
    let exit = exit.unwrap_or(Exit::Done);
    hints::complete(common, lines.iter_mut().filter_map(|line| line.problem.as_mut()));
    check_show::checks(common, &lines, exit);
    Ok(exit)
}

/// Whether objects can be written and read; and by how many seconds this clock is ahead of the object store's.
async fn object_store(agent: &Agent<Objects>, lang: Lang) -> (Checked, Option<i64>) {
    let bucket = agent.ports.objects.describe();
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
        Ok(offset_s) => {
            let off = lang.pick("el reloj de esta máquina difiere en", "this machine's clock is off by");
            let warning = (offset_s.abs() > 60).then(|| format!("{off} {offset_s} s"));
            let detail = format!("{bucket}, {} {offset_s:+} s", lang.pick("reloj", "clock"));
            (Checked { warning, ..good("object_store", None, detail) }, Some(offset_s))
        }
        Err(error) => (check_s3::failed("object_store", &error, lang), None),
    }
}

async fn check_store<S: ObjectStore>(
    agent: &Agent<S>,
    store: &ServedStore,
    common: &Common,
    args: &CheckArgs,
    offset_s: i64,
    lines: &mut Vec<Checked>,
) {
    let (id, lang) = (&store.config.id, common.lang);
    if let Some(reached) = reach::reach_source(&store.config.source, args.timeout()).await {
        lines.push(network(id, &reached, common.lang));
        if reached.state != State::PortOk {
            return;
        }
    }
    let calendar = match agent.calendar(&store.config).await {
        Ok(calendar) => std::rc::Rc::new(calendar),
        Err(error) => return lines.push(bad("definition", Some(id), Stage::Definition, &error)),
    };
    let now = agent.ports.clock.now().checked_sub(SignedDuration::from_secs(offset_s)).unwrap_or_default();
    if !check_source(store, &calendar, now, lang, lines).await {
        return;
    }
    for (name, mapping) in agent.config.datasets(&store.config) {
        if !common.datasets.is_empty() && !common.datasets.contains(name) {
            continue;
        }
        let done = async {
            let definition = agent.definition(name).await?;
            let context = DatasetContext { store, name, mapping, definition, calendar: calendar.clone() };
            check_dataset(agent, &context, common.lang).await
        }
        .await;
        lines.push(match done {
            Ok((detail, warning)) => Checked { warning, ..good(name.as_str(), Some(id), detail) },
            Err(error) => bad(name.as_str(), Some(id), Stage::Source, &error),
        });
    }
}

/// Name, ping and port as one line.
fn network(id: &StoreId, reached: &Reach, lang: Lang) -> Checked {
    let endpoint = reach::tried(reached);
    let took = |what: &str, took: Option<f64>| took.map_or(format!("{what} -"), |took| format!("{what} {took} ms"));
    let steps =
        [took("DNS", reached.lookup_ms), took("ping", reached.ping_ms), took("TCP", reached.port_ms)].join(", ");
    match reached.cause {
        None => good("network", Some(id), format!("{endpoint}: {steps}")),
        Some(cause) => {
            let (es, en) = cause.next_step();
            let error = Error::retry(format!("source: {endpoint}: {steps}: {}", lang.pick(es, en)))
                .with_hint(format!("ribera-agent check --quick --stores {id}"));
            Checked { cause: Some(Obstacle::from(cause)), ..bad("network", Some(id), Stage::Source, &error) }
        }
    }
}

/// Login, clock and rights, in the database of today; if there is none, that is told, and the newest before it is
/// looked at. `now` is the object store's. False when there is no use in going on.
async fn check_source(
    store: &ServedStore,
    calendar: &StoreCalendar,
    now: Timestamp,
    lang: Lang,
    lines: &mut Vec<Checked>,
) -> bool {
    let id = &store.config.id;
    let today = now.to_zoned(calendar.time_zone.clone()).date();
    // A store that has closed is read no further.
    let day = calendar.closed.map_or(today, |closed| closed.min(today));
    let source = store.source.as_ref();
    let opened = match source.connect_for(day).await {
        Ok(session) => Ok((session, source.span(day))),
        Err(error) => {
            lines.push(bad("source", Some(id), Stage::Source, &error));
            let span = source.span(day);
            // Of a store with one database there is no other.
            let Some(before) = span.from.yesterday().ok().filter(|_| span.from > Date::MIN) else { return false };
            source.connect_for(before).await.map(|session| (session, source.span(before)))
        }
    };
    let Ok((session, held)): Result<_> = opened else { return false };
    match look_at(store, session, held.to.min(day), calendar, now, lang).await {
        Ok((detail, warning)) => lines.push(Checked { warning, ..good("source", Some(id), detail) }),
        Err(error) => {
            lines.push(bad("source", Some(id), Stage::Source, &error));
            return false;
        }
    }
    true
}

/// What a session with the database of `day` shows, and what a person should know of it.
async fn look_at(
    store: &ServedStore,
    mut session: Box<dyn Session>,
    day: Date,
    calendar: &StoreCalendar,
    now: Timestamp,
    lang: Lang,
) -> Result<(String, Option<String>)> {
    let source_now = session.now(&calendar.time_zone).await?;
    let rights = session.write_rights().await?;
    let rights = rights.map(|rights| match lang {
        Lang::Es => format!("el usuario puede escribir ({rights}); uno que solo lee no debería"),
        Lang::En => format!("the user can write ({rights}): a reader should not"),
    });
    let clock = check_show::clock_off(lang, source_now.duration_since(now).as_secs());
    let warnings: Vec<String> = rights.into_iter().chain(clock).collect();
    let described = store.source.describe_for(day);
    let described = if lang == Lang::Es { described.replacen(" at ", " en ", 1) } else { described };
    Ok((format!("{described}, {source_now}"), (!warnings.is_empty()).then(|| warnings.join("\n"))))
}

/// Proves the mapping's question, then runs both queries for the last day that has rows and compares them,
/// without keeping what is read. Gives what was found, and what a person should know of it.
async fn check_dataset<S: ObjectStore>(
    agent: &Agent<S>,
    context: &DatasetContext<'_>,
    lang: Lang,
) -> Result<(String, Option<String>)> {
    let mut reading = agent.begin_reading(context).await?;
    let today = reading.today;
    // Where no database holds today, the newest one that could be opened is looked at.
    let newest = today.min(reading.held().to).max(reading.held().from);
    agent.switch_database(&mut reading, newest).await?;
    let daily = context.definition.kind == DatasetKind::Daily;
    let table = match daily {
        true => agent.ask_the_question(&mut reading).await.map_err(|error| in_context(error, context))?.0,
        false => Proven::default(),
    };
    let held = reading.held().clone();
    let day = table.last.filter(|last| (held.from..=held.to.min(today)).contains(last)).unwrap_or(newest);
    let (audited, read) = count_both(agent, &mut reading, day).await?;
    let by_user = views::filtering_by_user(&mut reading).await;
    let counted = lang.pick("auditadas", "audited");
    let detail = format!("{day}: {audited} {counted}, {read} {}", lang.pick("leídas", "read"));
    let warnings: Vec<String> = odd_rows(&table, lang).into_iter().chain(views::told(&by_user, lang)).collect();
    let warning = (!warnings.is_empty()).then(|| warnings.join("\n"));
    Ok((table_shown(&table, lang).map_or(detail.clone(), |table| format!("{table}\n{detail}")), warning))
}

/// The rows of a day, as the audit counts them and as they are read.
async fn count_both<S: ObjectStore>(
    agent: &Agent<S>,
    reading: &mut ExtractionSession<'_>,
    day: Date,
) -> Result<(u64, u64)> {
    let context = reading.context;
    let days = Days { from: day, to: day };
    let job = Job::of(reading, &days);
    let mut counts = (0, 0);
    for _ in 0..reading.limits.audit_tries.max(1) {
        let found = agent.query_fingerprints(reading, &days).await?;
        let mut sink = Sink::new(sink_context(reading, &job, agent)?, None)?.noting_keys();
        let statement = reading.queries.extract.bind(day, day, &context.store.config.id);
        let timeout = reading.timeout();
        if reading.session.query(&statement, &mut sink, timeout).await? == Outcome::TimedOut {
            return Err(timed_out(&format!("extraction of {}", context.name), timeout));
        }
        if let Some((rows, key)) = sink.repeated_keys() {
            return Err(Error::config(format!(
                "dataset {}: key ({}): must name each row of a day once, got {rows} of {day} that repeat one, first {key}: \
                 the centre would refuse the day. Where each till counts from 1 its number belongs to the key",
                context.name,
                context.definition.key.join(", ")
            ))
            .with_hint("ribera dataset check FILE, with the column that is missing in `key`"));
        }
        counts = (found.values().map(|one| one.facts.rows).sum(), sink.rows());
        if counts.0 == counts.1 {
            return Ok(counts);
        }
    }
    Err(Error::data(format!(
        "{day}: the audit counts {} rows and {} are read: they must be the same rows",
        counts.0, counts.1
    ))
    .with_hint(format!(
        "ribera-agent audit --stores {} --datasets {} --from {day} --to {day}",
        context.store.config.id, context.name
    )))
}

fn table_shown(table: &Proven, lang: Lang) -> Option<String> {
    let (rows, first, last) = (table.rows?, table.first?, table.last?);
    Some(format!("{rows} {}, {first} {} {last}", lang.pick("filas", "rows"), lang.pick("a", "to")))
}

/// Rows that are in no day, or in none that has begun.
fn odd_rows(table: &Proven, lang: Lang) -> Option<String> {
    let odd = render::odd_rows(lang, table.undated, table.future);
    (!odd.is_empty()).then(|| odd.join("; "))
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
