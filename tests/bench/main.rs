//! The part of the benchmarks that must be inside the process it measures: generated and landed batches,
//! the native ingest, what a commit costs, and the commit burst over a store with simulated latencies.
//! Each command ends with one JSON object on standard output; `bench.py` judges it.
#![allow(async_fn_in_trait)]
#![allow(clippy::disallowed_methods, reason = "real time is what it measures; it is its own host")]

mod commit;
mod commit_cost;
mod correction;
mod counting;
mod coverage;
mod generate;
mod ingest;
mod land;
mod latency;
mod merge;
mod options;
mod ports;
mod tables;

use std::process::ExitCode;

use options::Options;
use ribera_storage::{Error, Result};

const USAGE: &str = "ribera-bench burst|hourly|generate|land|sweep|coverage|keep-coverage|commit-cost|correction|merge [--name=value ...]";

fn main() -> ExitCode {
    match run() {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("ribera-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<serde_json::Value> {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let options = Options::parse(arguments)?;
    match command.as_str() {
        "burst" => commit::burst(&options),
        "hourly" => commit::hourly(&options),
        "generate" => generate::into_folder(&options),
        "land" => land::into_folder(&options),
        "commit-cost" => commit_cost::measure(&options),
        "correction" => correction::measure(&options),
        "merge" => merge::measure(&options),
        "coverage" => coverage::measure(&options),
        "keep-coverage" => coverage::keep(&options),
        "sweep" => ingest::sweep_folder(&options),
        _ => Err(Error::config(format!("command: must be one of {USAGE}, got {command:?}"))),
    }
}
