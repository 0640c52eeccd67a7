//! Many small commits at once, and one open day replaced every hour, over a slow object store.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::civil::{Date, date};
use ribera_core::ingest::{self, IngestSettings, Outcome};
use ribera_storage::batch::{Ack, AckOutcome};
use ribera_storage::ids::{BatchId, Position};
use ribera_storage::object::{MemoryStore, ObjectStore, list_all};
use ribera_storage::ports::Host;
use ribera_storage::ports::Random;
use ribera_storage::{Error, Result, paths};
use serde_json::{Value, json};

use crate::generate::{self, Generated, Plan};
use crate::latency::SlowStore;
use crate::options::Options;
use crate::ports::{SplitMix, WallClock};

/// Calls that failed for a reason worth another try are tried again so often, as an event source
/// would do.
const TRIES: usize = 5;

/// `--batches=1000 --rows=1000 --stores=1000 --seconds=5`: every batch is uploaded at its moment,
/// its event starts a call at once.
pub fn burst(options: &Options) -> Result<Value> {
    let batches: u64 = options.get("batches", 1_000)?;
    let stores: u64 = options.get("stores", 1_000)?;
    let rows: u64 = options.get("rows", 1_000)?;
    let seconds: f64 = options.get("seconds", 5.0)?;
    let memory = MemoryStore::new();
    memory.set_now(jiff::Timestamp::now());
    let slow = SlowStore::new(memory.clone(), 1);
    let mut ready = Vec::new();
    for index in 0..batches {
        let plan = Plan {
            store: format!("t{:04}", index % stores + 1),
            position: Position { epoch: 0, sequence: index / stores + 1 },
            days: vec![day(index / stores)?],
            rows,
            closed: true,
        };
        block_on(generate::put_store_definition(&memory, &plan.store))?;
        ready.push((Duration::from_secs_f64(seconds * index as f64 / batches as f64), generate::generate(&plan)?));
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    let mut shares: Vec<Vec<(Duration, Generated)>> = (0..threads).map(|_| Vec::new()).collect();
    for (index, batch) in ready.into_iter().enumerate() {
        shares[index % threads].push(batch);
    }
    let started = Instant::now();
    let uploads: Vec<Uploaded> = std::thread::scope(|scope| {
        let running: Vec<_> = shares
            .into_iter()
            .enumerate()
            .map(|(at, share)| {
                let handle = slow.handle(at as u64 + 2);
                // Made in the thread that uses it: a handle is not shared between threads.
                scope.spawn(move || serve(&handle, share, started))
            })
            .collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(Error::bug("a server thread died"))))
            .collect::<Result<Vec<_>>>()
    })?
    .into_iter()
    .flatten()
    .collect();
    let wall_s = started.elapsed().as_secs_f64();
    let mut waits = Vec::new();
    let mut versions = BTreeSet::new();
    for upload in &uploads {
        let version = committed_version(&memory, &upload.batch)?;
        let entry = paths::log_entry(&upload.batch.dataset.clone(), version)?;
        let readable = slow.readable_at(&entry).ok_or_else(|| Error::data(format!("{entry}: never written")))?;
        versions.insert(version);
        waits.push(readable.saturating_duration_since(upload.at).as_secs_f64());
    }
    waits.sort_by(f64::total_cmp);
    let quantile = |part: f64| waits[((waits.len() - 1) as f64 * part).round() as usize];
    Ok(json!({
        "batches": uploads.len(), "commits": versions.len(), "wall_s": wall_s,
        "p50_s": quantile(0.5), "p99_s": quantile(0.99), "max_s": quantile(1.0),
        "rows_lost": (batches * rows) as i64 - rows_in_lake(&memory)? as i64,
        "left_in_inbox": count(&memory, "inbox/")?, "left_ready": count(&memory, "state/ready/")?,
        "quarantined": count(&memory, "quarantine/")?,
        "requests": slow.requests(),
    }))
}

/// `--hours=24 --rows=12000`: hour by hour the same open day, with ever more rows.
pub fn hourly(options: &Options) -> Result<Value> {
    let hours: u64 = options.get("hours", 24)?;
    let rows: u64 = options.get("rows", 12_000)?;
    let memory = MemoryStore::new();
    memory.set_now(jiff::Timestamp::now());
    let slow = SlowStore::new(memory.clone(), 1);
    block_on(generate::put_store_definition(&memory, "t001"))?;
    let (mut seconds, mut landed_bytes) = (Vec::new(), 0);
    for hour in 1..=hours {
        let plan = Plan {
            store: "t001".into(),
            position: Position { epoch: 0, sequence: hour },
            days: vec![day(0)?],
            rows: rows * hour / hours,
            closed: hour == hours,
        };
        let batch = generate::generate(&plan)?;
        landed_bytes += batch.file.len();
        let uploads = serve(&slow, vec![(Duration::ZERO, batch)], Instant::now())?;
        let upload = uploads.first().ok_or_else(|| Error::bug("no upload"))?;
        let version = committed_version(&memory, &upload.batch)?;
        let entry = paths::log_entry(&upload.batch.dataset.clone(), version)?;
        let readable = slow.readable_at(&entry).ok_or_else(|| Error::data(format!("{entry}: never written")))?;
        seconds.push(readable.saturating_duration_since(upload.at).as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    let lake = block_on(list_all(&memory, "lake/", None))?;
    // Checkpoints are Parquet too, and no data.
    let is_data = |path: &str| path.ends_with(".parquet") && !path.contains("/_delta_log/");
    let files = lake.iter().filter(|meta| is_data(meta.path.as_str()));
    let requests = slow.requests();
    Ok(json!({
        "batches": hours, "rows_in_lake": rows_in_lake(&memory)?, "rows_expected": rows,
        "files_live": live_files(&memory)?.len(), "files_written": files.clone().count(),
        "lake_bytes": files.map(|meta| meta.bytes).sum::<u64>(), "landed_bytes": landed_bytes,
        "put_bytes": slow.put_bytes(),
        "seconds_median": seconds[seconds.len() / 2], "seconds_max": seconds[seconds.len() - 1],
        "requests": requests, "requests_per_batch": requests.values().sum::<u64>() as f64 / hours as f64,
    }))
}

struct Uploaded {
    batch: BatchId,
    /// When its manifest existed.
    at: Instant,
}

/// Uploads each batch at its moment after `started` and answers each event with a call of its own.
fn serve(store: &SlowStore, share: Vec<(Duration, Generated)>, started: Instant) -> Result<Vec<Uploaded>> {
    let local = tokio::task::LocalSet::new();
    let runtime = runtime()?;
    let random = SplitMix::fresh();
    let failed: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
    let uploads = runtime.block_on(local.run_until(async {
        let mut uploads = Vec::new();
        let mut calls = Vec::new();
        for (moment, batch) in share {
            tokio::time::sleep_until((started + moment).into()).await;
            let id = batch.manifest.batch.clone();
            // The agent's own upload is not what is measured: it goes past the slow line.
            generate::upload(&store.inner, batch).await?;
            uploads.push(Uploaded { batch: id.clone(), at: Instant::now() });
            let handle = store.handle(random.next_u64());
            let failed = failed.clone();
            calls.push(tokio::task::spawn_local(async move {
                if let Err(error) = call(&handle, &id).await
                    && let Ok(mut failed) = failed.lock()
                {
                    failed.push(format!("{id}: {error}"));
                }
            }));
        }
        for one in calls {
            one.await.map_err(|error| Error::bug("a call died").with_source(error))?;
        }
        Ok::<_, Error>(uploads)
    }))?;
    match failed.lock().ok().and_then(|failed| failed.first().cloned()) {
        Some(first) => Err(Error::data(first)),
        None => Ok(uploads),
    }
}

/// One call of the function, as an event would start it.
async fn call(store: &SlowStore, batch: &BatchId) -> Result<()> {
    let host = Host::new(store, WallClock, SplitMix::fresh());
    let path = paths::inbox(batch)?;
    let mut last = Outcome::Waiting;
    for _ in 0..TRIES {
        let report =
            ingest::ingest_event(host.ports(), &IngestSettings::default(), std::slice::from_ref(&path)).await?;
        match report.outcomes.into_iter().next().map(|one| one.outcome) {
            Some(failed @ Outcome::Failed { .. }) => last = failed,
            Some(Outcome::Committed { .. } | Outcome::AlreadyDone) | None => return Ok(()),
            Some(other) => return Err(Error::data(format!("{other:?}"))),
        }
    }
    Err(Error::data(format!("{last:?}")))
}

fn committed_version(memory: &MemoryStore, batch: &BatchId) -> Result<u64> {
    let bytes = block_on(memory.get(&paths::ack(batch)?))?.ok_or_else(|| Error::data(format!("{batch}: lost")))?;
    let ack: Ack = serde_json::from_slice(&bytes).map_err(|error| Error::data("ack").with_source(error))?;
    match ack.outcome {
        AckOutcome::Committed { version, .. } => Ok(version),
        other => Err(Error::data(format!("{batch}: {other:?}"))),
    }
}

/// The live files of the lake's tables, from the log entries alone: (path, rows).
fn live_files(memory: &MemoryStore) -> Result<std::collections::BTreeMap<String, u64>> {
    let mut live = std::collections::BTreeMap::new();
    for meta in block_on(list_all(memory, "lake/", None))? {
        if !meta.path.as_str().ends_with(".json") {
            continue;
        }
        let bytes = block_on(memory.get(&meta.path))?.unwrap_or_default();
        for line in String::from_utf8_lossy(&bytes).lines() {
            let action: Value = serde_json::from_str(line).map_err(|error| Error::data("log").with_source(error))?;
            if let Some(path) = action["remove"]["path"].as_str() {
                live.remove(path);
            }
            if let Some(path) = action["add"]["path"].as_str() {
                let stats: Value = serde_json::from_str(action["add"]["stats"].as_str().unwrap_or("{}"))
                    .map_err(|error| Error::data("stats").with_source(error))?;
                live.insert(path.to_owned(), stats["numRecords"].as_u64().unwrap_or(0));
            }
        }
    }
    Ok(live)
}

fn rows_in_lake(memory: &MemoryStore) -> Result<u64> {
    Ok(live_files(memory)?.values().sum())
}

fn count(memory: &MemoryStore, prefix: &str) -> Result<usize> {
    Ok(block_on(list_all(memory, prefix, None))?.len())
}

fn day(index: u64) -> Result<Date> {
    let span = jiff::Span::new().days(i64::try_from(index).unwrap_or(0));
    date(2026, 1, 1).checked_add(span).map_err(|error| Error::config("days").with_source(error))
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|error| Error::bug("no runtime").with_source(error))
}

fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    runtime()?.block_on(future)
}
