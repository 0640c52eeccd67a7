//! Coverage of a large chain, and the pages that show it: the table's log as the lake has it, without
//! data files.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use jiff::civil::Date;
use ribera_core::coverage::{self, Coverage, CoverageSettings};
use ribera_core::status::{self, Request};
use ribera_storage::batch::Facts;
use ribera_storage::control;
use ribera_storage::dataset::DatasetDefinition;
use ribera_storage::decimal::ExactDecimal;
use ribera_storage::delta::action::{self, Action};
use ribera_storage::delta::{AddFile, LakeFile, Table, UnitTag};
use ribera_storage::ids::{Month, Position, StoreId, Unit};
use ribera_storage::object::{MemoryStore, ObjectStore};
use ribera_storage::ports::Host;
use ribera_storage::store::StoreDefinition;
use ribera_storage::{Error, Result, paths};
use serde_json::{Value, json};

use crate::generate;
use crate::options::Options;
use crate::ports::{SplitMix, WallClock};

const REQUESTS: usize = 50;
/// To the millisecond, as tags have it.
const EXTRACTED_AT: jiff::Timestamp = jiff::Timestamp::constant(1_900_000_000, 0);
/// What a proof costs to read does not depend on it.
const ROWS_PER_DAY: u64 = 900;

/// `--stores=10000 --days=400`.
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
        let started = Instant::now();
        let summaries = coverage::refresh(host.ports(), &CoverageSettings::default()).await?;
        let refresh_s = started.elapsed().as_secs_f64();
        let totals = summaries.summaries.first().map(|summary| summary.totals.clone()).unwrap_or_default();
        let last = store_id(stores.saturating_sub(1))?;
        let month = Month::of(jiff::Zoned::now().date());
        Ok(json!({
            "stores": computed.stores.len(), "days": days, "compute_s": compute_s, "refresh_s": refresh_s,
            "days_complete": totals.days.complete, "days_due": totals.days.due(),
            "page_ms": times(&host, "/").await?,
            "summary_ms": times(&host, &format!("/api/v1/summary?dataset={}", dataset.name)).await?,
            "calendar_ms": times(&host, &format!("/api/v1/calendar?dataset={}&store={last}&month={month}", dataset.name)).await?,
        }))
    })
}

type Bench = Host<MemoryStore, WallClock, SplitMix>;

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
    write_table(host, dataset, &ids, first, today).await
}

/// A merged file for each month that is over and a file per store of the last one, each day proven, in a
/// checkpoint as a table of that age has it.
async fn write_table(
    host: &Bench,
    dataset: &DatasetDefinition,
    stores: &[StoreId],
    first: Date,
    today: Date,
) -> Result<()> {
    let ports = host.ports();
    let lake = Table::new(&host.objects, dataset.name.clone());
    lake.load_or_create(ports, dataset).await?;
    let mut actions = Vec::new();
    let mut month = Month::of(first);
    while month.first_day() < today {
        let days: Vec<Date> = month.days().filter(|day| *day >= first && *day < today).collect();
        let together = if month.last_day() < today { stores.len() } else { 1 };
        for stores in stores.chunks(together) {
            let add = lake_file(host, dataset, stores, month, &days).await?;
            actions.push(Action { add: Some(add), ..Action::default() });
        }
        let next = month.last_day().tomorrow().map_err(|error| Error::bug("month").with_source(error))?;
        month = Month::of(next);
    }
    let entry = paths::log_entry(&dataset.name, 1)?;
    host.objects.put_if_absent(&entry, action::to_lines(&actions)?.into()).await?;
    lake.checkpoint(ports).await?;
    Ok(())
}

async fn lake_file(
    host: &Bench,
    dataset: &DatasetDefinition,
    stores: &[StoreId],
    month: Month,
    days: &[Date],
) -> Result<AddFile> {
    let units: Vec<UnitTag> =
        stores.iter().flat_map(|store| days.iter().map(|day| proven(store, *day, &host.random))).collect();
    let rows = ROWS_PER_DAY * units.len() as u64;
    // Nobody reads the rows.
    let file = LakeFile { bytes: Bytes::from_static(b"PAR1"), rows, stats: statistics(dataset, month, rows), units };
    let lake = Table::new(&host.objects, dataset.name.clone());
    lake.put_file(host.ports(), &dataset.partition(Some(month)), &file).await
}

/// As long as those of a real file.
fn statistics(dataset: &DatasetDefinition, month: Month, rows: u64) -> String {
    let of = |value: &dyn Fn(&str) -> Value| -> Value {
        dataset.columns.iter().map(|column| (column.name.clone(), value(&column.name))).collect()
    };
    let ends =
        |name: &str| Value::from(if name == "fecha" { month.first_day().to_string() } else { format!("{name} 12345") });
    json!({"numRecords": rows, "minValues": of(&ends), "maxValues": of(&ends), "nullCount": of(&|_| Value::from(0))})
        .to_string()
}

fn proven(store: &StoreId, day: Date, random: &SplitMix) -> UnitTag {
    let sum = |scale| ExactDecimal::new(i128::from(random.below(10_000_000)), scale);
    let facts = Facts {
        rows: ROWS_PER_DAY,
        sums: BTreeMap::from([("cantidad".to_owned(), sum(3)), ("total".to_owned(), sum(2))]),
    };
    UnitTag {
        store: store.clone(),
        unit: Unit::Day(day),
        position: Position { epoch: 0, sequence: 1 + random.below(1_000) },
        audit: Some(facts.clone()),
        facts,
        closed: true,
        extracted_at: EXTRACTED_AT,
        received_at: EXTRACTED_AT,
    }
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

fn store_id(index: usize) -> Result<StoreId> {
    format!("t{index:05}").parse()
}
