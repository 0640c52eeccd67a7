//! `ribera-sim`: runs the simulation over a range of seeds and says what it tried.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::ExitCode;

use clap::Parser;
use ribera_tests::sim::run::{Options, Report, run_seeds, trace_seed};

/// A seed lives on small allocations: with the C library's own it takes a sixth longer.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Simulates stores, lines, object storage and function hosts with faults, and checks invariants.
#[derive(Debug, Parser)]
struct Arguments {
    /// Seeds `A..B`, without B, how many, or single ones as in `3,9,14`. Seeds that failed once
    /// (tests/sim/seeds.txt) run first.
    #[arg(long, default_value = "0..20", value_parser = seeds)]
    seeds: Seeds,
    #[arg(long, default_value_t = 50)]
    stores: u32,
    /// Business days.
    #[arg(long, default_value_t = 7)]
    days: u32,
    /// Runs this one seed and prints every event.
    #[arg(long)]
    trace: Option<u64>,
    /// Worker threads; each runs whole seeds.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Leaves out the seeds that failed once.
    #[arg(long)]
    no_kept_seeds: bool,
    /// Stops at the first seed that fails.
    #[arg(long)]
    fail_fast: bool,
    /// One JSON object on standard output instead of tables.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = Options {
        stores: arguments.stores,
        days: arguments.days,
        threads: arguments.threads,
        fail_fast: arguments.fail_fast,
    };
    if let Some(seed) = arguments.trace {
        return code(trace_seed(seed, &options).violations.is_empty());
    }
    let mut seeds: Vec<u64> = if arguments.no_kept_seeds { Vec::new() } else { ribera_tests::sim::run::kept_seeds() };
    seeds.extend(arguments.seeds.0.into_iter().filter(|seed| !seeds.contains(seed)).collect::<Vec<_>>());
    let report: Report = run_seeds(&seeds, &options);
    if arguments.json {
        println!("{}", report.to_json());
    } else {
        println!("{}", report.to_text());
    }
    code(report.is_good())
}

fn code(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[derive(Debug, Clone)]
struct Seeds(Vec<u64>);

fn seeds(text: &str) -> Result<Seeds, String> {
    let number = |text: &str| text.parse::<u64>().ok();
    let listed = || text.split(',').map(number).collect::<Option<Vec<u64>>>();
    let seeds = match text.split_once("..") {
        Some((from, to)) => number(from).zip(number(to)).map(|(from, to)| (from..to).collect()),
        None if text.contains(',') => listed(),
        None => number(text).map(|to| (0..to).collect()),
    };
    let some = seeds.filter(|seeds| !seeds.is_empty());
    some.map(Seeds).ok_or_else(|| format!("must be A..B with A < B, a number, or A,B,C, got {text:?}"))
}
