//! What one commit costs beside a table of many store-months: requests, bytes, time.

use std::path::Path;
use std::time::Instant;

use jiff::civil::Date;
use ribera_core::ingest::{self, IngestSettings, Outcome};
use ribera_storage::ids::{Month, Position};
use ribera_storage::object::{FolderStore, MemoryStore, ObjectPath, ObjectStore};
use ribera_storage::ports::{Host, Random};
use ribera_storage::{BatchId, Error, Result, paths};
use serde_json::{Value, json};

use crate::counting::CountingStore;
use crate::generate::{self, Plan};
use crate::options::Options;
use crate::ports::{SplitMix, WallClock};
use crate::tables::{self, Shape};

/// What fetches an object or a part of it, or asks whether it is there.
const GET_CLASS: [&str; 3] = ["get", "get_range", "head"];
/// No batch of the table's own units has so high a number.
const SEQUENCE: u64 = 1_000_000;

/// `--stores=1000 --months=10 --merged=yes --batches=32 --rows=1000`: so many batches, one after another, each
/// of one store and its current day, each in a call of its own that knows nothing before.
///
/// With `--due=yes` the first of them writes a checkpoint as well. With `--folder=F` the table and the batches are put there, and nothing is committed: for `ribera sweep`.
pub fn measure(options: &Options) -> Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|error| Error::bug("no runtime").with_source(error))?;
    match options.get("folder", String::new())? {
        folder if folder.is_empty() => {
            let objects = MemoryStore::new();
            objects.set_now(jiff::Timestamp::now());
            runtime.block_on(in_memory(objects, &Asked::of(options)?))
        }
        folder => runtime.block_on(in_folder(Path::new(&folder), &Asked::of(options)?)),
    }
}

struct Asked {
    stores: usize,
    months: i32,
    merged: bool,
    batches: usize,
    rows: u64,
    checkpoint_is_due: bool,
}

impl Asked {
    fn of(options: &Options) -> Result<Self> {
        let asked = Self {
            stores: options.get("stores", 1_000)?,
            months: options.get("months", 10)?,
            merged: options.get("merged", "yes".to_owned())? == "yes",
            batches: options.get("batches", 32)?,
            rows: options.get("rows", 1_000)?,
            checkpoint_is_due: options.get("due", "no".to_owned())? == "yes",
        };
        match asked.batches <= asked.stores && asked.months > 0 {
            true => Ok(asked),
            false => Err(Error::config("--batches: must be at most --stores, and --months more than none")),
        }
    }
}

async fn in_memory(objects: MemoryStore, asked: &Asked) -> Result<Value> {
    let (files, batches) = build(&objects, asked).await?;
    let counting = CountingStore::new(objects);
    let mut commits = Vec::new();
    for batch in &batches {
        let started = Instant::now();
        commit(&counting, &paths::inbox(batch)?).await?;
        let seconds = started.elapsed().as_secs_f64();
        let seen = counting.take();
        commits.push(json!({
            "gets": seen.of(&GET_CLASS), "requests": seen.requests, "read_bytes": seen.read_bytes,
            "written_bytes": seen.written_bytes, "seconds": seconds,
        }));
    }
    Ok(json!({
        "store_months": asked.stores as u64 * u64::from(asked.months.unsigned_abs()), "files": files,
        "commits": commits,
    }))
}

async fn in_folder(folder: &Path, asked: &Asked) -> Result<Value> {
    let objects = FolderStore::open(folder, SplitMix::fresh().fresh_name())?.without_sync();
    let (files, batches) = build(&objects, asked).await?;
    Ok(json!({"files": files, "batches": batches.len()}))
}

/// The table's files, and the batches that wait for their calls.
async fn build<S: ObjectStore + Clone>(objects: &S, asked: &Asked) -> Result<(u64, Vec<BatchId>)> {
    let host = Host::new(objects.clone(), WallClock, SplitMix::seeded(1));
    let dataset = generate::dataset()?;
    let ids = (0..asked.stores).map(tables::store_id).collect::<Result<Vec<_>>>()?;
    let today = jiff::Zoned::now().date();
    let shape = Shape {
        stores: &ids,
        first: first_day(today, asked.months)?,
        today,
        merged: asked.merged,
        checkpoint_is_due: asked.checkpoint_is_due,
    };
    let files = tables::write(&host, &dataset, &shape).await?;
    let mut batches = Vec::new();
    for index in 0..asked.batches {
        let id = &ids[index * asked.stores / asked.batches];
        let plan = Plan {
            store: id.to_string(),
            position: Position { epoch: 0, sequence: SEQUENCE },
            days: vec![today],
            rows: asked.rows,
            closed: false,
        };
        generate::put_store_definition(objects, &plan.store).await?;
        let batch = generate::generate(&plan)?;
        batches.push(batch.manifest.batch.clone());
        generate::upload(objects, batch).await?;
    }
    Ok((files, batches))
}

/// So that there are `months` of them, the one of `today` the last.
fn first_day(today: Date, months: i32) -> Result<Date> {
    let back = jiff::Span::new().try_months(months - 1);
    back.and_then(|back| Month::of(today).first_day().checked_sub(back))
        .map_err(|error| Error::config("--months").with_source(error))
}

async fn commit<S: ObjectStore>(objects: &S, path: &ObjectPath) -> Result<()> {
    let host = Host::new(objects, WallClock, SplitMix::fresh());
    let report = ingest::ingest_event(host.ports(), &IngestSettings::default(), std::slice::from_ref(path)).await?;
    match report.outcomes.into_iter().next().map(|one| one.outcome) {
        Some(Outcome::Committed { .. }) => Ok(()),
        other => Err(Error::data(format!("{path}: {other:?}"))),
    }
}
