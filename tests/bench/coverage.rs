//! Coverage of a large chain, and the pages that show it: the table's log as the lake has it, without
//! data files.

use std::path::PathBuf;
use std::time::Instant;

use ribera_core::coverage::{self, Coverage, CoverageSettings};
use ribera_core::ingest::{self, IngestSettings, Outcome};
use ribera_core::status::{self, Request};
use ribera_storage::control;
use ribera_storage::dataset::DatasetDefinition;
use ribera_storage::ids::{Month, Position};
use ribera_storage::object::{FolderStore, MemoryStore};
use ribera_storage::ports::{Host, Random};
use ribera_storage::store::StoreDefinition;
use ribera_storage::{Error, Result, paths};
use serde_json::{Value, json};

use crate::generate::{self, Plan};
use crate::options::Options;
use crate::ports::{SplitMix, WallClock};
use crate::tables::{self, Shape, store_id};

const REQUESTS: usize = 50;
/// No batch of the table's own units has so high a number.
const SEQUENCE: u64 = 1_000_000;
const ROWS_PER_BATCH: u64 = 100;

/// `--stores=10000 --days=400 --batches=0 --apart=1`: with batches, so many stores then send their current day, and
/// coverage is computed and saved once more. They are neighbours, or so many stores apart.
pub fn measure(options: &Options) -> Result<Value> {
    let stores: usize = options.get("stores", 10_000)?;
    let days: i64 = options.get("days", 400)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|error| Error::bug("no runtime").with_source(error))?;
    runtime.block_on(async {
        let objects = MemoryStore::new();
        objects.set_now(jiff::Timestamp::now());
        let host = Host::new(objects, WallClock, SplitMix::seeded(1));
        let dataset = generate::dataset()?;
        build(&host, &dataset, stores, days).await?;
        let started = Instant::now();
        let computed: Coverage = coverage::compute(host.ports(), &dataset.name).await?;
        let compute_s = started.elapsed().as_secs_f64();
        let (started, cpu_s) = (Instant::now(), cpu_seconds()?);
        let summaries = coverage::refresh(host.ports(), &CoverageSettings::default()).await?;
        let (refresh_s, refresh_cpu_s) = (started.elapsed().as_secs_f64(), cpu_seconds()? - cpu_s);
        let totals = summaries.summaries.first().map(|summary| summary.totals.clone()).unwrap_or_default();
        let apart: usize = options.get("apart", 1)?;
        let senders: Vec<usize> = (0..stores).step_by(apart.max(1)).take(options.get("batches", 0)?).collect();
        commit_today(&host, &senders).await?;
        let (started, cpu_s) = (Instant::now(), cpu_seconds()?);
        let again = coverage::refresh(host.ports(), &CoverageSettings::default()).await?;
        let (refresh_again_s, refresh_again_cpu_s) = (started.elapsed().as_secs_f64(), cpu_seconds()? - cpu_s);
        let seen = again.summaries.first().map(|summary| summary.totals.days).unwrap_or_default();
        let last = store_id(stores.saturating_sub(1))?;
        let month = Month::of(jiff::Zoned::now().date());
        Ok(json!({
            "stores": computed.stores.len(), "days": days, "compute_s": compute_s, "refresh_s": refresh_s,
            "refresh_cpu_s": refresh_cpu_s, "batches": senders.len(), "apart": apart,
            "refresh_again_s": refresh_again_s, "refresh_again_cpu_s": refresh_again_cpu_s,
            "days_complete_again": seen.complete,
            "days_complete": totals.days.complete, "days_due": totals.days.due(),
            "page_ms": times(&host, "/").await?,
            "summary_ms": times(&host, &format!("/api/v1/summary?dataset={}", dataset.name)).await?,
            "calendar_ms": times(&host, &format!("/api/v1/calendar?dataset={}&store={last}&month={month}", dataset.name)).await?,
        }))
    })
}

/// `--folder=F`: keeps the coverage of a lake, as the hosts do every few minutes.
pub fn keep(options: &Options) -> Result<Value> {
    let random = SplitMix::fresh();
    let objects = FolderStore::open(PathBuf::from(options.required("folder")?), random.fresh_name())?.without_sync();
    let host = Host::new(objects, WallClock, random);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let kept = runtime
        .map_err(|error| Error::bug("no runtime").with_source(error))?
        .block_on(coverage::refresh(host.ports(), &CoverageSettings::default()))?;
    match kept.failed.first() {
        Some(failed) => Err(Error::data(format!("{}: {}", failed.dataset, failed.error))),
        None => Ok(json!({"datasets": kept.summaries.len()})),
    }
}

type Bench = tables::Bench<MemoryStore>;

async fn build(host: &Bench, dataset: &DatasetDefinition, stores: usize, days: i64) -> Result<()> {
    let today = jiff::Zoned::now().date();
    let first =
        today.checked_sub(jiff::Span::new().days(days)).map_err(|error| Error::bug("days").with_source(error))?;
    let ids = (0..stores).map(store_id).collect::<Result<Vec<_>>>()?;
    let mut definitions = Vec::with_capacity(stores);
    for id in &ids {
        let text =
            format!("id = \"{id}\"\nname = \"Tienda {id}\"\ntime_zone = \"Europe/Madrid\"\nopened = \"{first}\"\n");
        definitions.push(StoreDefinition::from_toml(&text)?);
    }
    control::publish_stores(&host.objects, &definitions).await?;
    control::publish_dataset(&host.objects, dataset).await?;
    let shape = Shape { stores: &ids, first, today, merged: true, checkpoint_is_due: false };
    tables::write(host, dataset, &shape).await?;
    Ok(())
}

/// The current day of some stores, each committed by a call of its own.
async fn commit_today(host: &Bench, senders: &[usize]) -> Result<()> {
    for index in senders {
        let plan = Plan {
            store: store_id(*index)?.to_string(),
            position: Position { epoch: 0, sequence: SEQUENCE },
            days: vec![jiff::Zoned::now().date()],
            rows: ROWS_PER_BATCH,
            closed: false,
        };
        let batch = generate::generate(&plan)?;
        let path = paths::inbox(&batch.manifest.batch)?;
        generate::upload(&host.objects, batch).await?;
        let report =
            ingest::ingest_event(host.ports(), &IngestSettings::default(), std::slice::from_ref(&path)).await?;
        match report.outcomes.first().map(|one| &one.outcome) {
            Some(Outcome::Committed { .. }) => {}
            other => return Err(Error::data(format!("{path}: {other:?}"))),
        }
    }
    Ok(())
}

/// Of this thread, the only one that works here, to the nanosecond.
fn cpu_seconds() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds: Option<u64> = text.split_whitespace().next().and_then(|field| field.parse().ok());
    nanoseconds.map(|count| count as f64 / 1e9).ok_or_else(|| Error::bug("no processor time of this thread"))
}

/// The median and the longest of several answers.
async fn times(host: &Bench, target: &str) -> Result<Value> {
    let mut millis = Vec::new();
    for _ in 0..REQUESTS {
        let started = Instant::now();
        let response =
            status::respond(host.ports(), &Request { method: "GET".to_owned(), target: target.to_owned() }).await;
        millis.push(started.elapsed().as_secs_f64() * 1e3);
        if response.status != 200 {
            return Err(Error::data(format!("GET {target}: {}: {}", response.status, response.body)));
        }
    }
    millis.sort_by(f64::total_cmp);
    Ok(json!({"p50": millis[REQUESTS / 2], "max": millis[REQUESTS - 1]}))
}
