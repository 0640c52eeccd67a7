//! The native ingest over a folder, as the WASM component does it.

use std::path::PathBuf;
use std::time::Instant;

use ribera_core::ingest::{self, IngestSettings, Outcome, SweepBudget};
use ribera_storage::object::FolderStore;
use ribera_storage::ports::Host;
use ribera_storage::ports::Random;
use ribera_storage::{Error, Result};
use serde_json::{Value, json};

use crate::options::Options;
use crate::ports::{SplitMix, WallClock};

/// Sweeps `--folder` in this thread until nothing is left; with `--sync=no` without fsync.
pub fn sweep_folder(options: &Options) -> Result<Value> {
    let folder = PathBuf::from(options.required("folder")?);
    let durable = options.get("sync", "yes".to_owned())? == "yes";
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|error| Error::bug("no runtime").with_source(error))?;
    let started = Instant::now();
    let (mut rows, mut batches, mut calls) = (0, 0, 0_u64);
    runtime.block_on(async {
        loop {
            let random = SplitMix::fresh();
            let objects = FolderStore::open(&folder, random.fresh_name())?;
            let objects = if durable { objects } else { objects.without_sync() };
            let host = Host::new(objects, WallClock, random);
            let swept = ingest::sweep(host.ports(), &IngestSettings::default(), &SweepBudget::default()).await?;
            calls += 1;
            for outcome in &swept.report.outcomes {
                match &outcome.outcome {
                    Outcome::Committed { rows: of, .. } => {
                        rows += of;
                        batches += 1;
                    }
                    other => return Err(Error::data(format!("{}: {other:?}", outcome.path))),
                }
            }
            if !swept.more {
                return Ok::<_, Error>(());
            }
        }
    })?;
    Ok(json!({"rows": rows, "batches": batches, "calls": calls, "seconds": started.elapsed().as_secs_f64()}))
}
