//! Runs seeds on threads, adds up what they did, says what failed and how to see it again.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::json;

use super::tally::{Fault, Tally};
use super::twin::{self, Outcome};
use super::world::{World, WorldOptions};

/// FailPoints must be crashed this often in a run of many seeds.
pub const CRASHES_MIN: u64 = 10;
/// From so many seeds on, a fault that never fired or a step that was hardly crashed is a failure.
pub const SEEDS_FOR_COUNTS: usize = 100;

/// Without these some checks have nothing to check.
const NEEDED: [&str; 3] =
    ["complete days of the hostile store", "complete days of an answer", "complete days of an older version"];

/// Of so many seeds one is also run with and without the hostile store, side by side.
pub const TWINS_EVERY: u64 = 5;

#[derive(Debug, Clone)]
pub struct Options {
    pub stores: u32,
    pub days: u32,
    pub threads: usize,
    pub fail_fast: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { stores: 50, days: 7, threads: 2, fail_fast: false }
    }
}

/// What one seed gave.
#[derive(Debug, Clone)]
pub struct SeedReport {
    pub seed: u64,
    pub tally: Tally,
    /// Hash and length of the trace.
    pub digest: (u64, u64),
    pub violations: Vec<String>,
    /// The last events before the first violation.
    pub tail: Vec<String>,
    pub outcome: Outcome,
}

#[derive(Debug)]
pub struct Report {
    pub options: Options,
    pub seeds: Vec<SeedReport>,
    pub tally: Tally,
    /// Seeds whose second run gave another trace.
    pub diverged: Vec<u64>,
    pub seconds: f64,
}

/// Seeds that failed once, from tests/sim/seeds.txt: one a line, `#` begins a remark.
pub fn kept_seeds() -> Vec<u64> {
    let lines = include_str!("seeds.txt").lines();
    lines.filter_map(|line| line.split('#').next()?.trim().parse().ok()).collect()
}

pub fn run_seed(seed: u64, options: &Options) -> SeedReport {
    let mut report = World::run(seed, &world_options(options, false));
    if seed.is_multiple_of(TWINS_EVERY) && report.violations.is_empty() {
        let (violations, tally) = twin::compare(seed, options);
        report.violations.extend(violations);
        report.tally.add(&tally);
    }
    report
}

/// Runs one seed and prints its events.
pub fn trace_seed(seed: u64, options: &Options) -> SeedReport {
    let report = World::run(seed, &world_options(options, true));
    println!("trace {:016x}, {} events", report.digest.0, report.digest.1);
    for violation in &report.violations {
        println!("VIOLATION {violation}");
    }
    report
}

/// Runs every seed; the first of them twice, to compare the traces.
pub fn run_seeds(seeds: &[u64], options: &Options) -> Report {
    let started = Instant::now();
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let done = Mutex::new(Vec::new());
    let again = Mutex::new(None);
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index > seeds.len() || (options.fail_fast && failed.load(Ordering::Relaxed)) {
                return;
            }
            // One past the end: the first seed once more.
            match seeds.get(index) {
                Some(seed) => {
                    let report = run_seed(*seed, options);
                    failed.fetch_or(!report.violations.is_empty(), Ordering::Relaxed);
                    done.lock().expect("no panic").push(report);
                }
                None => *again.lock().expect("no panic") = seeds.first().map(|seed| run_seed(*seed, options)),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..options.threads.max(1) {
            scope.spawn(work);
        }
    });
    let mut seeds = done.into_inner().expect("no panic");
    seeds.sort_by_key(|report| report.seed);
    let mut tally = Tally::default();
    seeds.iter().for_each(|report| tally.add(&report.tally));
    let again: Option<SeedReport> = again.into_inner().expect("no panic");
    let diverged = again
        .iter()
        .filter(|again| seeds.iter().any(|first| first.seed == again.seed && first.digest != again.digest))
        .map(|again| again.seed)
        .collect();
    Report { options: options.clone(), seeds, tally, diverged, seconds: started.elapsed().as_secs_f64() }
}

impl Report {
    pub fn failures(&self) -> impl Iterator<Item = &SeedReport> {
        self.seeds.iter().filter(|report| !report.violations.is_empty())
    }

    pub fn is_good(&self) -> bool {
        self.problems().is_empty()
    }

    /// Everything that fails the run, a line each.
    pub fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = Vec::new();
        for failure in self.failures() {
            let (first, count) = (&failure.violations[0], failure.violations.len());
            problems.push(format!("seed {}: {count} violations, first: {first}", failure.seed));
        }
        problems.extend(self.diverged.iter().map(|seed| format!("seed {seed}: another trace the second time")));
        let silent = self.tally.silent_faults();
        if !silent.is_empty() && self.seeds.len() >= SEEDS_FOR_COUNTS / 5 {
            problems.push(format!("faults that never fired: {}", silent.join(", ")));
        }
        if self.seeds.len() >= SEEDS_FOR_COUNTS / 5 {
            problems.extend(self.idle());
        }
        if self.seeds.len() >= SEEDS_FOR_COUNTS {
            for (step, count) in self.tally.rarely_crashed(CRASHES_MIN) {
                problems.push(format!("step {step}: crashed {} of {} times", count.crashed, count.met));
            }
        }
        problems
    }

    /// What proves nothing because it never came to anything.
    fn idle(&self) -> Vec<String> {
        let mut idle = Vec::new();
        let silent = self.tally.silent_acts();
        if !silent.is_empty() {
            idle.push(format!("hostile acts that never happened: {}", silent.join(", ")));
        }
        for amount in NEEDED {
            if self.tally.amounts.get(amount).is_none_or(|sum| *sum == 0) {
                idle.push(format!("{amount}: none in the whole run"));
            }
        }
        idle
    }

    pub fn replay_command(&self, seed: u64) -> String {
        format!(
            "cargo run --release -p ribera-tests --bin ribera-sim -- --stores {} --days {} --trace {seed}",
            self.options.stores, self.options.days
        )
    }

    pub fn to_json(&self) -> String {
        let steps: serde_json::Map<_, _> = self
            .tally
            .steps
            .iter()
            .map(|(step, count)| (step.clone(), json!({"met": count.met, "crashed": count.crashed})))
            .collect();
        let faults: serde_json::Map<_, _> =
            self.tally.faults.iter().map(|(fault, count)| (fault.name().to_owned(), json!(count))).collect();
        json!({
            "good": self.is_good(),
            "seeds": self.seeds.len(),
            "stores": self.options.stores,
            "days": self.options.days,
            "seconds": self.seconds,
            "faults": faults,
            "acts": self.tally.acts.iter().map(|(act, count)| (act.name(), count)).collect::<BTreeMap<_, _>>(),
            "steps": steps,
            "checks": self.tally.checks,
            "amounts": self.tally.amounts,
            "problems": self.problems(),
            "failed_seeds": self.failures().map(|failure| failure.seed).collect::<Vec<_>>(),
        })
        .to_string()
    }

    pub fn to_text(&self) -> String {
        let mut text = String::new();
        text.push_str(&table(
            ["fault", "fired"],
            Fault::ALL.iter().map(|fault| {
                let fired = self.tally.faults.get(fault).copied().unwrap_or(0);
                vec![fault.name().to_owned(), fired.to_string()]
            }),
        ));
        text.push_str(&table(
            ["hostile act", "happened"],
            self.tally.acts.iter().map(|(act, count)| vec![act.name().to_owned(), count.to_string()]),
        ));
        text.push_str(&table(
            ["step of I/O", "met", "crashed"],
            self.tally
                .steps
                .iter()
                .map(|(step, count)| vec![step.clone(), count.met.to_string(), count.crashed.to_string()]),
        ));
        let checks = self.tally.checks.iter().map(|(name, count)| vec![(*name).to_owned(), count.to_string()]);
        text.push_str(&table(["invariant", "checked"], checks));
        let amounts = self.tally.amounts.iter().map(|(name, count)| vec![(*name).to_owned(), count.to_string()]);
        text.push_str(&table(["amount", "sum"], amounts));
        text.push_str(&format!(
            "{} seeds x {} stores x {} days in {:.1} s; same seed, same trace: {}\n",
            self.seeds.len(),
            self.options.stores,
            self.options.days,
            self.seconds,
            if self.diverged.is_empty() { "yes" } else { "NO" },
        ));
        for problem in self.problems() {
            text.push_str(&format!("FAILED {problem}\n"));
        }
        if let Some(failure) = self.failures().next() {
            text.push_str("the last events before the first violation:\n");
            failure.tail.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
            text.push_str(&format!("replay: {}\n", self.replay_command(failure.seed)));
        }
        text
    }
}

fn world_options(options: &Options, print_trace: bool) -> WorldOptions {
    let Options { stores, days, .. } = *options;
    WorldOptions { stores, days, print_trace, hostile: true, faulty: true, events: true }
}

fn table<const N: usize>(header: [&str; N], rows: impl Iterator<Item = Vec<String>>) -> String {
    let rows: Vec<Vec<String>> =
        std::iter::once(header.iter().map(|title| (*title).to_owned()).collect()).chain(rows).collect();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            match column {
                0 => text.push_str(&format!("{cell:<width$}")),
                _ => text.push_str(&format!("  {cell:>width$}")),
            }
        }
        text.push('\n');
    }
    text.push('\n');
    text
}
