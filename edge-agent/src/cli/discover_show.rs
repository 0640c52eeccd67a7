//! What `discover` shows: progress, tables in Spanish and English, JSON.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

use super::discover::{Answer, Asked, Put};
use super::hints::with_config;
use super::render::{json, table, tell};
use super::{Common, Lang};
use crate::discover::company::{Company, Counts, Fate};
use crate::discover::stores::{Change, Kind};
use crate::source::reach::Obstacle;
use crate::system;
use crate::terminal::{complain, say};

/// Counts servers, on a terminal only.
pub fn progress(common: &Common, servers: usize) -> ProgressBar {
    if common.json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = match common.lang {
        Lang::Es => "{spinner} {bar:30} {pos}/{len} servidores",
        Lang::En => "{spinner} {bar:30} {pos}/{len} servers",
    };
    let bar = ProgressBar::new(servers as u64);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(std::time::Duration::from_millis(200));
    bar
}

/// `again` is the command that asked, without a file to write.
pub fn answer(common: &Common, answer: &Answer, put: Put, again: &str) {
    if common.json {
        return json(answer);
    }
    let lang = common.lang;
    servers(lang, &answer.servers);
    companies(lang, answer);
    counts(lang, &answer.found.counts);
    near(lang, answer);
    changes(lang, &answer.plan.changes);
    for problem in answer.servers.iter().filter_map(|asked| asked.problem.as_ref()) {
        tell(lang, problem);
        // The network's problems name theirs themselves.
        if let Some(obstacle) = Obstacle::of(&problem.message) {
            let (es, en) = obstacle.next_step();
            complain!("  {}", lang.pick(es, en));
        }
    }
    next(common, answer, put, again);
}

fn servers(lang: Lang, servers: &[Asked]) {
    let mut table = table(lang.pick("servidor,base,estado,empresas", "server,database,state,companies"), 3);
    for asked in servers {
        let state = if asked.problem.is_none() { lang.pick("bien", "ok") } else { lang.pick("falla", "fails") };
        table.add_row([asked.server.as_str(), &asked.place, state, &asked.companies.to_string()]);
    }
    say!("{table}");
}

fn companies(lang: Lang, answer: &Answer) {
    let header =
        lang.pick("servidor,código,nombre,número,año,base,resultado", "server,code,name,number,year,database,result");
    let mut table = table(header, 7);
    for (index, company) in answer.found.companies.iter().enumerate() {
        let number = company.number.as_ref().map_or(company.row.tax_number.as_str(), |number| number.as_str());
        let Company { server, row, .. } = company;
        let fate = fate(lang, company, answer.plan.ids.get(&index), answer.plan.held.get(&index));
        table.add_row([server, &row.code, &row.name, number, &row.fiscal_year, &row.path, &fate]);
    }
    if table.row_count() > 0 {
        say!("{table}");
    }
}

fn fate(lang: Lang, company: &Company, store: Option<&String>, holder: Option<&String>) -> String {
    if let Some(holder) = holder {
        let told = lang.pick("no se escribe: ya la lee la tienda", "not written: read already by store");
        return format!("{told} {holder}");
    }
    match (&company.fate, store) {
        (_, Some(store)) => format!("{} {store}", lang.pick("tienda", "store")),
        (Fate::Skipped { first_server, first_code }, None) => {
            format!("{} {first_server} ({first_code})", lang.pick("omitida: ya está en", "skipped: held by"))
        }
        (Fate::NoNumber, None) => lang.pick("sin número tributario", "no tax number").to_owned(),
        (Fate::Unusable { field, rule }, None) => match (lang, *field) {
            (Lang::En, _) => format!("unusable: {field} {rule}"),
            (Lang::Es, "fiscal_year") => "no sirve: fiscal_year debe ser un año de 1900 a 2200, o vacío".to_owned(),
            (Lang::Es, _) => format!("no sirve: {field} no puede estar vacío"),
        },
        (Fate::First, None) => String::new(),
    }
}

fn counts(lang: Lang, counts: &Counts) {
    let Counts { found, first, skipped, without_number, unusable } = counts;
    say!(
        "{}: {found}  {}: {first}  {}: {skipped}  {}: {without_number}  {}: {unusable}",
        lang.pick("empresas", "companies"),
        lang.pick("se leen", "read"),
        lang.pick("omitidas", "skipped"),
        lang.pick("sin número", "without number"),
        lang.pick("no sirven", "unusable"),
    );
}

fn near(lang: Lang, answer: &Answer) {
    for near in &answer.found.near {
        let numbers: Vec<&str> = near.numbers.iter().map(|number| number.as_str()).collect();
        let told = lang.pick(
            "difieren solo en el último dígito o en que falta; no se unieron, revise cuál es el correcto",
            "differ only in their last character or its absence; they were not joined, check which is right",
        );
        say!("{}: {told}", numbers.join(", "));
    }
}

fn changes(lang: Lang, changes: &[Change]) {
    for change in changes {
        let told = match &change.kind {
            Kind::Same => continue,
            Kind::New => lang.pick("nueva", "new").to_owned(),
            Kind::Changed { keys } => format!("{}: {}", lang.pick("cambió", "changed"), keys.join(", ")),
            Kind::Gone => lang
                .pick(
                    "ya no está en ningún servidor; quítela del archivo si cerró",
                    "no server holds it any more; take it out of the file if it closed",
                )
                .to_owned(),
            Kind::Unknown => lang.pick("su servidor no respondió", "its server did not answer").to_owned(),
            Kind::ByHand => lang.pick("escrita a mano; queda como está", "written by hand; stays as it is").to_owned(),
        };
        say!("{} {}: {told}", lang.pick("tienda", "store"), change.store);
    }
}

fn next(common: &Common, answer: &Answer, put: Put, again: &str) {
    let lang = common.lang;
    let output = answer.output.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let tries = match put {
        Put::Written | Put::Same => {
            let word = if put == Put::Written {
                lang.pick("escrito", "written")
            } else {
                lang.pick("sin cambios", "unchanged")
            };
            say!("{output}: {word}");
            let set: String = answer.variables.iter().map(|name| system::set_variable(name) + "\n  ").collect();
            format!("{set}ribera-agent --config {output} check")
        }
        Put::Refused => {
            say!(
                "{output}: {}",
                lang.pick("ya existe y difiere; no se tocó", "is there and differs; it was left alone")
            );
            with_config(common, &format!("{again} --output {output} --force"))
        }
        Put::Nothing => {
            say!("{}", lang.pick("no hay empresas que escribir", "there is no company to write"));
            return;
        }
        Put::NotAsked => with_config(common, &format!("{again} --output agent.toml")),
    };
    say!("{}:\n  {tries}", lang.pick("siguiente", "next"));
}
