//! The same world twice, without faults: with the hostile store and without. What honest stores sell,
//! when their agents look and when hosts wake is drawn from sources that the hostile store does not
//! touch, so what is promised to the others can be compared one to one.

use std::collections::BTreeMap;

use jiff::civil::Date;
use ribera_core::coverage::DayState;
use ribera_storage::StoreId;

use super::kernel::{HOUR, MINUTE, Micros};
use super::pos::Rows;
use super::run::{Options, SeedReport};
use super::tally::Tally;
use super::world::{World, WorldOptions};

/// What became of the honest stores.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    pub rows: BTreeMap<(StoreId, Date), Rows>,
    pub states: BTreeMap<(StoreId, Date), DayState>,
    pub complete_since: BTreeMap<(StoreId, Date), Micros>,
    /// From a manifest to its answer.
    pub longest_wait: Micros,
    pub refused: u64,
}

/// A twin is small: it is for comparing, not for finding rare orders of events.
const STORES_MAX: u32 = 12;
const DAYS_MAX: u32 = 4;

/// A host that is woken has so much longer, at most, when it has the hostile store's objects to refuse.
const LATER_MAX: Micros = 5 * MINUTE;

/// A day is looked at every hour: it may be seen one look later.
const LOOK: Micros = HOUR;

/// Where only the sweep finds batches, one that just missed a sweep waits for the next of either host.
const SWEEPS_APART_MAX: Micros = 8 * HOUR;

/// Runs both; what differs, and what both did. Every second pair goes without events: then the sweep
/// alone finds the batches, behind all that the hostile store has piled up.
pub fn compare(seed: u64, options: &Options) -> (Vec<String>, Tally) {
    let events = !(seed / super::run::TWINS_EVERY).is_multiple_of(2);
    let run = |hostile| {
        let (stores, days) = (options.stores.min(STORES_MAX), options.days.min(DAYS_MAX));
        let options = WorldOptions { stores, days, print_trace: false, hostile, faulty: false, events };
        World::run(seed, &options)
    };
    let (alone, beside) = (run(false), run(true));
    let mut tally = alone.tally.clone();
    tally.add(&beside.tally);
    let mut violations: Vec<String> = Vec::new();
    for (name, report) in [("without", &alone), ("with", &beside)] {
        violations.extend(report.violations.iter().map(|what| format!("twin {name} the hostile store: {what}")));
    }
    if violations.is_empty() {
        violations = differences(&alone, &beside, events);
        for name in CHECKS {
            tally.check(name);
        }
    }
    (violations, tally)
}

const CHECKS: [&str; 4] = [
    "I9 the honest stores' rows are those of a world without the hostile store",
    "I9 the honest stores' coverage is that of a world without the hostile store",
    "I9 honest days are complete no later than in a world without the hostile store",
    "I9 honest batches are answered no later than in a world without the hostile store",
];

fn differences(alone: &SeedReport, beside: &SeedReport, events: bool) -> Vec<String> {
    let (left, right) = (&alone.outcome, &beside.outcome);
    let mut found = Vec::new();
    let mut differs = |index: usize, what: String| found.push(format!("{}: {what}", CHECKS[index]));
    if left.rows != right.rows {
        let first = left.rows.iter().find(|(key, rows)| right.rows.get(key) != Some(rows));
        differs(0, format!("{:?}", first.map(|(key, _)| key)));
    }
    if left.states != right.states {
        let first = left.states.iter().find(|(key, state)| right.states.get(key) != Some(state));
        differs(1, format!("{first:?}"));
    }
    let later = if events { LATER_MAX } else { SWEEPS_APART_MAX };
    for (day, since) in &left.complete_since {
        match right.complete_since.get(day) {
            Some(then) if *then <= since + later + LOOK => {}
            then => differs(2, format!("{day:?}: since {since} without, {then:?} with")),
        }
    }
    if right.longest_wait > left.longest_wait + later {
        differs(3, format!("{} s without, {} s with", left.longest_wait / 1_000_000, right.longest_wait / 1_000_000));
    }
    if right.refused != 0 || left.refused != 0 {
        differs(3, format!("{} refused without, {} with", left.refused, right.refused));
    }
    found
}
