//! What people see: tables in Spanish and English; and JSON for machines.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::rc::Rc;
use std::time::Instant;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table};
use indicatif::{ProgressBar, ProgressStyle};
use ribera_storage::heartbeat::Trouble;
use ribera_storage::{DatasetName, ObjectStore, StoreId};
use serde::Serialize;

use super::backfill::Status;
use super::check_show::clock_off;
use super::config::AdapterSummary;
use super::hints::with_config;
use super::spool::SpoolList;
use super::{Common, Lang};
use crate::agent::{Agent, Progress, ServedStore};
use crate::config::Config;
use crate::journal::{BatchState, StoreAlarm};
use crate::plan::{LakeState, LeftOut, WhyLeftOut};
use crate::report::logbook::Logbook;
use crate::report::logfile;
use crate::report::{Problem, Report};
use crate::run::collect::RunMode;
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

pub fn progress<S: ObjectStore>(common: &Common, agent: &Agent<S>, ask: &RunMode) -> Rc<Bar> {
    let days = match ask {
        RunMode::Backfill { days, .. } if !common.json && std::io::stderr().is_terminal() => days.iter().count() as u64,
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
    for one in &report.datasets {
        for odd in odd_rows(lang, one.undated_rows, one.future_rows) {
            say!("{} {}: {odd}", one.store, one.dataset);
        }
        for days in &one.left_out {
            say!("{}", left_out(lang, &one.store, &one.dataset, days));
        }
    }
    for (store, offset_s) in source_clocks(report) {
        if let Some(off) = clock_off(lang, offset_s) {
            say!("{store}: {off}");
        }
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
    let (refused, given_up): (Vec<_>, Vec<_>) =
        report.alarms.iter().partition(|one| one.alarm.trouble == Trouble::Refused);
    if !given_up.is_empty() {
        say!("{}: {}", lang.pick("días sin probar, abandonados", "days not proven and abandoned"), given_up.len());
    }
    for StoreAlarm { store, alarm } in refused {
        let reason = alarm.reason.as_deref().unwrap_or_default();
        let reason = said_once(reason, store.as_str(), alarm.dataset.as_str());
        say!("{store} {} {}: {}: {reason}", alarm.dataset, alarm.unit, lang.pick("rechazado", "refused"));
    }
    report.problems.iter().for_each(|problem| tell(lang, problem));
}

/// The last that each store's source showed, datasets that were not read aside.
fn source_clocks(report: &Report) -> BTreeMap<&StoreId, i64> {
    report.datasets.iter().filter_map(|one| Some((&one.store, one.source_clock_offset_s?))).collect()
}

/// What to say of days that were asked for and not looked at.
pub(super) fn left_out(lang: Lang, store: &StoreId, dataset: &DatasetName, days: &LeftOut) -> String {
    let why = match days.why {
        WhyLeftOut::BeforeOpened => lang.pick("anteriores a la apertura (opened)", "before the store opened (opened)"),
        WhyLeftOut::AfterClosed => lang.pick("posteriores al cierre (closed)", "after the store closed (closed)"),
        WhyLeftOut::NotBegun => {
            lang.pick("aún no han empezado, según el reloj de la fuente", "not begun yet by the source's clock")
        }
    };
    let out = lang.pick("quedan fuera", "left out");
    format!("{store} {dataset}: {out} {} .. {}: {why}", days.from, days.to)
}

/// What to say of rows that are in no day, and of those of days that have not begun.
pub(super) fn odd_rows(lang: Lang, undated: u64, future: u64) -> Vec<String> {
    let counted = [
        (undated, lang.pick("filas sin fecha: no están en ningún día", "rows without a date: they are in no day")),
        (future, lang.pick("filas de días futuros", "rows of days to come")),
    ];
    counted.into_iter().filter(|(rows, _)| *rows > 0).map(|(rows, what)| format!("{rows} {what}")).collect()
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

pub fn backfill(common: &Common, status: &Status) {
    if common.json {
        return json(status);
    }
    let lang = common.lang;
    if status.waits {
        say!(
            "{}",
            lang.pick("El agente en marcha aún no tomó la orden.", "The running agent has not taken the order yet.")
        );
    }
    let Some(backfill) = &status.backfill else {
        return say!("{}", lang.pick("No hay ninguno pendiente.", "None is left to do."));
    };
    let state = if backfill.stopped { lang.pick("detenido", "stopped") } else { lang.pick("en curso", "under way") };
    say!("{} .. {}: {state}", backfill.from, backfill.to);
    let mut table = table(lang.pick("tienda,conjunto,días leídos,de", "store,dataset,days read,of"), 2);
    for one in &status.streams {
        table.add_row([
            one.store.to_string(),
            one.dataset.to_string(),
            one.days_known.to_string(),
            status.days.to_string(),
        ]);
    }
    say!("{table}");
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
        let what = match &one.refused {
            Some(reason) => {
                format!("{}: {}", lang.pick("rechazado", "refused"), said_once(reason, &one.store, &one.dataset))
            }
            None => format!("{} {}", lang.pick("lago", "lake"), lake_state(lang, one.lake)),
        };
        let tries = lang.pick("intentos", "tries");
        say!("{} {} {}: {what}, {tries} {}", one.store, one.dataset, one.unit, one.tries);
    }
}

fn lake_state(lang: Lang, state: LakeState) -> &'static str {
    match state {
        LakeState::Waiting => lang.pick("espera acuse", "awaits answer"),
        LakeState::Agrees => lang.pick("coincide", "agrees"),
        LakeState::Differs => lang.pick("difiere", "differs"),
        LakeState::Quarantined => lang.pick("en cuarentena", "quarantined"),
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
    for [one, other] in &answer.twins {
        let told = lang.pick(
            "tienen el mismo `tenant` y días en común: sus ventas quedarían dobles si leen las mismas filas",
            "have the same `tenant` and days in common: sales would be doubled if they read the same rows",
        );
        complain!("{one}, {other}: {told}");
    }
    say!("{}: {}", answer.file, lang.pick("bien", "ok"));
    say!("{}: {}", lang.pick("siguiente", "next"), with_config(common, "ribera-agent check"));
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
    let message = match (&problem.store, &problem.dataset) {
        (Some(store), Some(dataset)) => said_once(&problem.message, store.as_str(), dataset.as_str()),
        _ => problem.message.clone(),
    };
    complain!("{}{place}: {message}", lang.pick("problema", "problem"));
    if let Some(hint) = &problem.hint {
        complain!("  {}: {hint}", lang.pick("pruebe", "try"));
    }
}

/// A message without the store and dataset that are told in front of it.
fn said_once(message: &str, store: &str, dataset: &str) -> String {
    let place = format!("store {store}, dataset {dataset}");
    message.replace(&format!("{place}, "), "").replace(&format!("{place}: "), "")
}

fn state(lang: Lang, state: BatchState) -> &'static str {
    match state {
        BatchState::Spooled => lang.pick("en cola", "spooled"),
        BatchState::Numbered => lang.pick("subiendo", "uploading"),
        BatchState::Uploaded => lang.pick("espera acuse", "awaits answer"),
        BatchState::Acked => lang.pick("terminado", "done"),
    }
}

/// A table whose columns from `numbers_from` on are aligned to the right. It is as wide as the terminal at most, or
/// as COLUMNS of the environment says where there is none.
pub fn table(header: &str, numbers_from: usize) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_header(header.split(','));
    table.set_content_arrangement(ContentArrangement::Dynamic);
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    if let Some(columns) = columns.filter(|_| !std::io::stdout().is_terminal()) {
        table.set_width(columns);
    }
    for column in table.column_iter_mut().skip(numbers_from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A table without lines between rows, for things that take several rows.
pub fn dense_table(header: &str, numbers_from: usize) -> Table {
    let mut table = table(header, numbers_from);
    table.load_style(UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()));
    table
}

pub fn json(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(document) => terminal::print_json(&document),
        Err(error) => complain!("ribera-agent: {error}"),
    }
}
