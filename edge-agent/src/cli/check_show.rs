//! What people see of `check` and `check --quick`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::check::Checked;
use super::quick::Answer;
use super::render::{json, table};
use super::{Common, Lang};
use crate::agent::{is_off, rounded};
use crate::report::Exit;
use crate::source::reach::{self, Obstacle, State};
use crate::terminal::say;

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
        table.add_row([store, name(lang, &line.what).to_owned(), state.to_owned(), detail]);
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
    let hints: BTreeSet<&String> = lines.iter().filter_map(|line| line.problem.as_ref()?.hint.as_ref()).collect();
    for hint in hints {
        say!("{}: {hint}", lang.pick("pruebe", "try"));
    }
}

/// What was tried, in the reader's language; a dataset has a name of its own.
fn name(lang: Lang, what: &str) -> &str {
    match what {
        "object_store" => lang.pick("almacén", "object store"),
        "object_store_network" => lang.pick("almacén: red", "object store: network"),
        "object_store_tls" => lang.pick("almacén: TLS", "object store: TLS"),
        "object_store_login" => lang.pick("almacén: clave", "object store: login"),
        "network" => lang.pick("red", "network"),
        "source" => lang.pick("fuente", "source"),
        "definition" => lang.pick("definición", "definition"),
        dataset => dataset,
    }
}

/// What to say of a source's clock that is off; nothing of one that is right.
pub fn clock_off(lang: Lang, seconds: i64) -> Option<String> {
    if !is_off(seconds) {
        return None;
    }
    let by = rounded(seconds);
    Some(match (lang, seconds < 0) {
        (Lang::Es, true) => format!("el reloj de la fuente está {by} atrasado"),
        (Lang::Es, false) => format!("el reloj de la fuente está {by} adelantado"),
        (Lang::En, true) => format!("the source's clock is {by} behind"),
        (Lang::En, false) => format!("the source's clock is {by} ahead"),
    })
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
        State::PortOk => lang.pick("puerto abierto", "port open"),
        State::Reachable => lang.pick("la máquina responde, el puerto no", "the machine answers, the port does not"),
        State::Unreachable => lang.pick("sin respuesta", "no answer"),
    }
}
