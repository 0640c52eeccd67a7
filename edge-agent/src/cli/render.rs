//! What people see: tables in Spanish and English; and JSON for machines.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::rc::Rc;
use std::time::Instant;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, Table};
use indicatif::{ProgressBar, ProgressStyle};
use ribera_storage::{DatasetName, ObjectStore, StoreId};
use serde::Serialize;

use super::audit::{self, Verdict};
use super::check::Checked;
use super::config::AdapterSummary;
use super::quick::Answer;
use super::spool::SpoolList;
use super::{Common, Lang};
use crate::agent::{Agent, Progress, ServedStore};
use crate::config::Config;
use crate::cycle::Ask;
use crate::journal::BatchState;
use crate::logbook::Logbook;
use crate::logfile;
use crate::reach::{self, Obstacle, State};
use crate::report::{Exit, Problem, Report};
use crate::terminal::{self, complain, say};

/// Days and rows of a backfill, on a terminal only.
pub struct Bar(Option<Shown>);

struct Shown {
    /// Counts days, which are known beforehand, so that the time left can be told.
    days: ProgressBar,
    rows: Cell<u64>,
    begun: Instant,
    lang: Lang,
}

impl Bar {
    pub fn end(&self) {
        if let Some(shown) = &self.0 {
            shown.days.finish_and_clear();
        }
    }
}

impl Progress for Bar {
    fn batch_begins(&self, store: &StoreId, dataset: &DatasetName, _rows: u64) {
        if let Some(shown) = &self.0 {
            shown.days.set_prefix(format!("{store} {dataset}"));
        }
    }

    fn batch_done(&self, _store: &StoreId, _dataset: &DatasetName, rows: u64) {
        if let Some(Shown { days, rows: all, begun, lang }) = &self.0 {
            all.set(all.get() + rows);
            let rate = (all.get() as f64 / begun.elapsed().as_secs_f64().max(0.001)).round();
            days.set_message(format!(
                "{} {}, {rate} {}",
                all.get(),
                lang.pick("filas", "rows"),
                lang.pick("filas/s", "rows/s")
            ));
        }
    }

    fn days_done(&self, count: u64) {
        if let Some(shown) = &self.0 {
            shown.days.inc(count);
        }
    }
}

pub fn progress<S: ObjectStore>(common: &Common, agent: &Agent<S>, ask: &Ask) -> Rc<Bar> {
    let days = match ask {
        Ask::Backfill { days, .. } if !common.json && std::io::stderr().is_terminal() => days.iter().count() as u64,
        _ => return Rc::new(Bar(None)),
    };
    let wanted = |name: &DatasetName| common.datasets.is_empty() || common.datasets.contains(name);
    let of = |store: &ServedStore| agent.config.datasets(&store.config).filter(|(name, _)| wanted(name)).count() as u64;
    let streams: u64 = agent.served(&common.stores).map(of).sum();
    let template = match common.lang {
        Lang::Es => "{spinner} {prefix}  {bar:30} {pos}/{len} días  {msg}  faltan {eta}",
        Lang::En => "{spinner} {prefix}  {bar:30} {pos}/{len} days  {msg}  {eta} left",
    };
    let bar = ProgressBar::new(days * streams);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(std::time::Duration::from_millis(200));
    Rc::new(Bar(Some(Shown { days: bar, rows: Cell::new(0), begun: Instant::now(), lang: common.lang })))
}

pub fn report(common: &Common, report: &Report) {
    if common.json {
        return json(report);
    }
    let lang = common.lang;
    let mut table = table(
        lang.pick("tienda,conjunto,días,por enviar,lotes,filas,bytes", "store,dataset,days,to send,batches,rows,bytes"),
        2,
    );
    for one in &report.datasets {
        table.add_row([
            one.store.to_string(),
            one.dataset.to_string(),
            one.compared.to_string(),
            one.planned.len().to_string(),
            one.batches.to_string(),
            one.rows.to_string(),
            one.bytes.to_string(),
        ]);
    }
    if !report.datasets.is_empty() {
        say!("{table}");
    }
    let upload = &report.upload;
    if report.dry_run {
        say!("{}", lang.pick("Ensayo: no se envió ni escribió nada.", "Dry run: nothing was sent or written."));
    } else {
        say!(
            "{}: {}  {}: {}  {}: {}",
            lang.pick("lotes subidos", "batches uploaded"),
            upload.batches,
            lang.pick("con acuse", "acknowledged"),
            upload.acknowledged,
            lang.pick("en espera", "waiting"),
            upload.waiting
        );
        if let Some(until) = upload.held_until {
            let held = lang.pick("la subida espera (upload_schedule) hasta", "uploads wait (upload_schedule) until");
            say!("{held}: {until}");
        }
    }
    if !report.alarms.is_empty() {
        let count = report.alarms.len();
        say!("{}: {count}", lang.pick("días sin probar, abandonados", "days not proven and given up"));
    }
    report.problems.iter().for_each(|problem| tell(lang, problem));
}

/// Into the logbook. A disk that is full for it must not fail the run, which is done.
pub fn keep(config: &Config, report: &Report) {
    if config.dry_run {
        return;
    }
    logfile::report(report);
    if let Err(error) = Logbook::of(config).keep(report) {
        tracing::warn!("logbook: {error}");
    }
}

pub fn spool(common: &Common, list: &SpoolList) {
    if common.json {
        return json(list);
    }
    let lang = common.lang;
    let mut table = table(
        lang.pick(
            "tienda,conjunto,estado,número,desde,hasta,filas,bytes",
            "store,dataset,state,number,from,to,rows,bytes",
        ),
        6,
    );
    for one in &list.batches {
        table.add_row([
            one.store.clone(),
            one.dataset.clone(),
            state(lang, one.state).to_owned(),
            one.position.clone().unwrap_or_default(),
            one.first_unit.clone(),
            one.last_unit.clone(),
            one.rows.to_string(),
            one.bytes.to_string(),
        ]);
    }
    if !list.batches.is_empty() {
        say!("{table}");
    }
    say!(
        "{}: {}  bytes: {} / {}",
        lang.pick("lotes en espera", "batches waiting"),
        list.total.batches,
        list.total.bytes,
        list.bytes_max
    );
    for one in &list.troubled {
        say!(
            "{} {} {}: {} {}, {} {}",
            one.store,
            one.dataset,
            one.unit,
            lang.pick("lago", "lake"),
            one.lake,
            lang.pick("intentos", "tries"),
            one.tries
        );
    }
}

pub fn checks(common: &Common, lines: &[Checked], exit: Exit) {
    #[derive(Serialize)]
    struct Answer<'a> {
        checks: &'a [Checked],
        exit_code: u8,
    }
    if common.json {
        return json(&Answer { checks: lines, exit_code: exit.code() });
    }
    let lang = common.lang;
    let mut table = table(lang.pick("tienda,prueba,estado,detalle", "store,check,state,detail"), 4);
    for line in lines {
        let state = match (line.ok, &line.warning) {
            (true, None) => lang.pick("bien", "ok"),
            (true, Some(_)) => lang.pick("aviso", "warning"),
            (false, _) => lang.pick("falla", "fails"),
        };
        let detail = match &line.warning {
            Some(warning) => format!("{}\n{warning}", line.detail),
            None => line.detail.clone(),
        };
        let store = line.store.as_ref().map(ToString::to_string).unwrap_or_default();
        table.add_row([store, line.what.clone(), state.to_owned(), detail]);
    }
    say!("{table}");
    let mut steps: BTreeMap<Obstacle, BTreeSet<&str>> = BTreeMap::new();
    for line in lines {
        // The network's own line has its next step already.
        if let (Some(cause), Some(store)) = (line.cause.filter(|cause| !cause.is_network()), &line.store) {
            steps.entry(cause).or_default().insert(store.as_str());
        }
    }
    for (cause, stores) in steps {
        let (es, en) = cause.next_step();
        let stores: Vec<&str> = stores.into_iter().collect();
        say!("{}: {}", stores.join(", "), lang.pick(es, en));
    }
    for hint in lines.iter().filter_map(|line| line.problem.as_ref()?.hint.as_ref()) {
        say!("{}: {hint}", lang.pick("pruebe", "try"));
    }
}

/// The days that do not agree, or all of them, a line for each measure.
pub fn audit(common: &Common, answer: &audit::Answer, all: bool) {
    if common.json {
        return json(answer);
    }
    let lang = common.lang;
    let header = lang.pick(
        "tienda,conjunto,día,medida,fuente,enviado,lago,resultado",
        "store,dataset,day,measure,source,sent,lake,result",
    );
    let mut table = table(header, 4);
    let agree = answer.days.iter().filter(|day| day.verdict == Verdict::Agrees).count();
    for day in answer.days.iter().filter(|day| all || day.verdict != Verdict::Agrees) {
        for (index, (measure, sides)) in day.measures().into_iter().enumerate() {
            let measure = if measure == "rows" { lang.pick("filas", "rows").to_owned() } else { measure };
            let [source, local, lake] = sides.map(|side| side.unwrap_or("-".to_owned()));
            let verdict = if index == 0 { verdict(lang, day.verdict) } else { "" };
            let place = [day.store.to_string(), day.dataset.to_string(), day.day.to_string()];
            let [store, dataset, date] = place.map(|text| if index == 0 { text } else { String::new() });
            table.add_row([store, dataset, date, measure, source, local, lake, verdict.to_owned()]);
        }
    }
    if table.row_count() > 0 {
        say!("{table}");
    }
    say!("{}: {} / {}", lang.pick("días que coinciden", "days that agree"), agree, answer.days.len());
    answer.problems.iter().for_each(|problem| tell(lang, problem));
    if let Some(first) = answer.days.iter().find(|day| day.verdict != Verdict::Agrees) {
        let again = format!(
            "ribera-agent extract --stores {} --datasets {} --from {} --to {}",
            first.store, first.dataset, first.day, first.day
        );
        say!("{}: {again}", lang.pick("pruebe", "try"));
    }
}

fn verdict(lang: Lang, verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Agrees => lang.pick("coincide", "agrees"),
        Verdict::Unproven => lang.pick("sin prueba", "not proven"),
        Verdict::SourceDiffers => lang.pick("la fuente difiere", "the source differs"),
        Verdict::Waiting => lang.pick("espera acuse", "awaits answer"),
        Verdict::LakeDiffers => lang.pick("el lago difiere", "the lake differs"),
        Verdict::Quarantined => lang.pick("en cuarentena", "quarantined"),
    }
}

pub fn config(common: &Common, answer: &super::config::Answer) {
    if common.json {
        return json(answer);
    }
    let lang = common.lang;
    let header = lang.pick("tienda,fuente,zona horaria,conjuntos", "store,source,time zone,datasets");
    let mut table = table(header, 4);
    for one in &answer.stores {
        let zone = one.time_zone.clone().unwrap_or_else(|| lang.pick("la del lago", "the lake's").to_owned());
        table.add_row([one.store.clone(), one.source.clone(), zone, one.datasets.join(", ")]);
    }
    say!("{table}");
    say!("{}: {}", answer.file, lang.pick("bien", "ok"));
    say!("{}: ribera-agent check", lang.pick("siguiente", "next"));
}

pub fn adapters(common: &Common, adapters: &[AdapterSummary]) {
    if common.json {
        return json(&adapters);
    }
    let lang = common.lang;
    let header = "adaptador,base,conjuntos,lee";
    let mut table = table(lang.pick(header, "adapter,database,datasets,reads"), 4);
    for one in adapters {
        table.add_row([one.name, one.kind, &one.datasets.join(", "), lang.pick(one.es, one.en)]);
    }
    say!("{table}");
    say!("{}: ribera-agent config adapters NAME", lang.pick("siguiente", "next"));
}

pub fn reached(common: &Common, answer: &Answer) {
    if common.json {
        return json(answer);
    }
    let lang = common.lang;
    let header = "tienda,servidor,estado,DNS ms,ping ms,TCP ms";
    let mut table = table(lang.pick(header, "store,server,state,DNS ms,ping ms,TCP ms"), 3);
    let took = |took: Option<f64>| took.map_or("-".to_owned(), |took| took.to_string());
    for one in &answer.stores {
        table.add_row(match &one.reach {
            None => {
                let local = lang.pick("archivo de esta máquina", "a file of this machine");
                [one.store.to_string(), String::new(), local.to_owned(), String::new(), String::new(), String::new()]
            }
            Some(reach) => [
                one.store.to_string(),
                reach::tried(reach),
                reach_state(lang, reach.state).to_owned(),
                took(reach.lookup_ms),
                took(reach.ping_ms),
                took(reach.port_ms),
            ],
        });
    }
    say!("{table}");
    say!("{}: {} %", lang.pick("alcanzables", "reachable"), answer.reachable_percent);
    for (cause, stores) in &answer.causes {
        let (es, en) = cause.next_step();
        let names: Vec<&str> = stores.iter().map(|store| store.as_str()).collect();
        say!("{}: {}", names.join(", "), lang.pick(es, en));
    }
}

fn reach_state(lang: Lang, state: State) -> &'static str {
    match state {
        State::PortOk => lang.pick("puerto abierto", "port ok"),
        State::Reachable => lang.pick("responde", "reachable"),
        State::Unreachable => lang.pick("sin respuesta", "unreachable"),
    }
}

/// A command that could not begin.
pub fn stopped(common: &Common, problem: &Problem) {
    #[derive(Serialize)]
    struct Answer<'a> {
        problems: [&'a Problem; 1],
        exit_code: u8,
    }
    if common.json {
        json(&Answer { problems: [problem], exit_code: problem.exit.code() });
    } else {
        tell(common.lang, problem);
    }
}

pub fn tell(lang: Lang, problem: &Problem) {
    let place = match (&problem.store, &problem.dataset) {
        (Some(store), Some(dataset)) => format!(" {store} {dataset}"),
        (Some(store), None) => format!(" {store}"),
        _ => String::new(),
    };
    complain!("{}{place}: {}", lang.pick("problema", "problem"), problem.message);
    if let Some(hint) = &problem.hint {
        complain!("  {}: {hint}", lang.pick("pruebe", "try"));
    }
}

fn state(lang: Lang, state: BatchState) -> &'static str {
    match state {
        BatchState::Spooled => lang.pick("en cola", "spooled"),
        BatchState::Numbered => lang.pick("subiendo", "uploading"),
        BatchState::Uploaded => lang.pick("espera acuse", "awaits answer"),
        BatchState::Acked => lang.pick("terminado", "done"),
    }
}

/// A table whose columns from `numbers_from` on are aligned to the right.
pub fn table(header: &str, numbers_from: usize) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_header(header.split(','));
    for column in table.column_iter_mut().skip(numbers_from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

pub fn json(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(document) => terminal::print_json(&document),
        Err(error) => complain!("ribera-agent: {error}"),
    }
}
