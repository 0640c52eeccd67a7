//! What people see of `audit`.

use std::collections::BTreeMap;

use ribera_storage::{DatasetName, StoreId, Unit};

use super::audit::{Answer, Verdict};
use super::hints::with_config;
use super::render::{dense_table, json, left_out, tell};
use super::{Common, Lang};
use crate::terminal::say;

/// The days that do not agree, or all of them, a line for each measure.
pub fn audit(common: &Common, answer: &Answer, all: bool) {
    if common.json {
        return json(answer);
    }
    let lang = common.lang;
    let header = lang.pick(
        "tienda,conjunto,día,medida,fuente,enviado,lago,resultado",
        "store,dataset,day,measure,source,sent,lake,result",
    );
    let mut table = dense_table(header, 4);
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
    for one in &answer.left_out {
        say!("{}", left_out(lang, &one.store, &one.dataset, &one.days));
    }
    say!("{}: {} / {}", lang.pick("días que coinciden", "days that agree"), agree, answer.days.len());
    answer.problems.iter().for_each(|problem| tell(lang, problem));
    for step in next_steps(answer) {
        say!("{}: {}", lang.pick("pruebe", "try"), with_config(common, &step));
    }
}

/// A command for each stream and for each thing that can be done about its days.
fn next_steps(answer: &Answer) -> Vec<String> {
    let mut days: BTreeMap<(&StoreId, &DatasetName, Step), (Unit, Unit)> = BTreeMap::new();
    for day in &answer.days {
        if let Some(step) = step(day.verdict) {
            let range = days.entry((&day.store, &day.dataset, step)).or_insert((day.day, day.day));
            *range = (range.0.min(day.day), range.1.max(day.day));
        }
    }
    let command = |((store, dataset, step), (from, to)): ((&StoreId, &DatasetName, Step), (Unit, Unit))| match step {
        Step::ReadAnswers => format!("ribera-agent once --stores {store} --wait-acks 30"),
        Step::SendAgain => {
            format!("ribera-agent extract --stores {store} --datasets {dataset} --from {from} --to {to}")
        }
        Step::AskCentre => format!("ribera quarantine list --store {store}"),
    };
    let mut steps: Vec<String> = days.into_iter().map(command).collect();
    steps.dedup();
    steps
}

/// What helps a day that does not agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// The lake may have answered meanwhile.
    ReadAnswers,
    SendAgain,
    /// The batch waits at the central side.
    AskCentre,
}

fn step(verdict: Verdict) -> Option<Step> {
    match verdict {
        Verdict::Agrees => None,
        Verdict::Waiting => Some(Step::ReadAnswers),
        Verdict::Quarantined => Some(Step::AskCentre),
        Verdict::Unproven | Verdict::SourceDiffers | Verdict::LakeDiffers | Verdict::Refused => Some(Step::SendAgain),
    }
}

fn verdict(lang: Lang, verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Agrees => lang.pick("coincide", "agrees"),
        Verdict::Unproven => lang.pick("sin prueba", "not proven"),
        Verdict::SourceDiffers => lang.pick("la fuente difiere", "the source differs"),
        Verdict::Waiting => lang.pick("espera acuse", "awaits answer"),
        Verdict::LakeDiffers => lang.pick("el lago difiere", "the lake differs"),
        Verdict::Refused => lang.pick("rechazado: un valor no se puede enviar", "refused: a value cannot be sent"),
        Verdict::Quarantined => lang.pick("en cuarentena", "quarantined"),
    }
}
