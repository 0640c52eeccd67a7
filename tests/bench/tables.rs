//! Tables as a chain has them after some years: logs and facts as the lake writes them, without data files.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::civil::Date;
use ribera_storage::batch::Facts;
use ribera_storage::dataset::DatasetDefinition;
use ribera_storage::decimal::ExactDecimal;
use ribera_storage::delta::action::{self, Action};
use ribera_storage::delta::{AddFile, LakeFile, MergeOptions, Table, UnitTag};
use ribera_storage::ids::{Month, Position, StoreId, Unit};
use ribera_storage::object::ObjectStore;
use ribera_storage::ports::Host;
use ribera_storage::{Error, Result, paths};
use serde_json::{Value, json};

use crate::ports::{SplitMix, WallClock};

/// To the millisecond, as tags have it.
const EXTRACTED_AT: jiff::Timestamp = jiff::Timestamp::constant(1_900_000_000, 0);
/// What a proof costs to read does not depend on it.
const ROWS_PER_DAY: u64 = 900;
/// An entry's text is held in memory whole.
const ADDS_PER_ENTRY: usize = 5_000;
const DAYS_PER_MONTH_MAX: usize = 31;
/// At such a version a checkpoint is due, be the table small or large.
const DUE_EVERY: u64 = 96;

pub type Bench<S> = Host<S, WallClock, SplitMix>;

/// What a table holds: each day of each store from `first` on, `today` not included, all proven.
pub struct Shape<'a> {
    pub stores: &'a [StoreId],
    pub first: Date,
    pub today: Date,
    /// The files of months that are over were merged; otherwise each store has its own.
    pub merged: bool,
    /// The next version is one whose writer writes a checkpoint as well.
    pub checkpoint_is_due: bool,
}

/// Files that were named, in a checkpoint as a table of that age has it. The month of `today` has a file
/// for each store.
pub async fn write<S: ObjectStore>(host: &Bench<S>, dataset: &DatasetDefinition, shape: &Shape<'_>) -> Result<u64> {
    let lake = Table::new(&host.objects, dataset.name.clone());
    lake.load_or_create(host.ports(), dataset).await?;
    let (mut lines, mut pending, mut files, mut version) = (Vec::new(), 0, 0, 0);
    for (month, days) in months(shape)? {
        let is_over = month.last_day() < shape.today;
        let together = if shape.merged && is_over { stores_per_merged_file() } else { 1 };
        for stores in shape.stores.chunks(together) {
            let add = lake_file(host, dataset, stores, month, &days).await?;
            lines.extend(action::to_lines(&[Action { add: Some(add), ..Action::default() }])?);
            (pending, files) = (pending + 1, files + 1);
            if pending == ADDS_PER_ENTRY {
                version += 1;
                put_entry(host, dataset, version, std::mem::take(&mut lines)).await?;
                pending = 0;
            }
        }
    }
    if pending > 0 {
        version += 1;
        put_entry(host, dataset, version, lines).await?;
    }
    while shape.checkpoint_is_due && !(version + 1).is_multiple_of(DUE_EVERY) {
        version += 1;
        put_entry(host, dataset, version, b"{\"commitInfo\":{}}\n".to_vec()).await?;
    }
    lake.checkpoint(host.ports()).await?;
    Ok(files)
}

pub fn store_id(index: usize) -> Result<StoreId> {
    format!("t{index:05}").parse()
}

async fn put_entry<S: ObjectStore>(
    host: &Bench<S>,
    dataset: &DatasetDefinition,
    version: u64,
    lines: Vec<u8>,
) -> Result<()> {
    host.objects.put_if_absent(&paths::log_entry(&dataset.name, version)?, lines.into()).await?;
    Ok(())
}

fn months(shape: &Shape<'_>) -> Result<Vec<(Month, Vec<Date>)>> {
    let mut months = Vec::new();
    let mut month = Month::of(shape.first);
    while month.first_day() < shape.today {
        months.push((month, month.days().filter(|day| *day >= shape.first && *day < shape.today).collect()));
        let next = month.last_day().tomorrow().map_err(|error| Error::bug("month").with_source(error))?;
        month = Month::of(next);
    }
    Ok(months)
}

/// What one merge takes at most.
fn stores_per_merged_file() -> usize {
    usize::try_from(MergeOptions::default().group_units_max).unwrap_or(usize::MAX) / DAYS_PER_MONTH_MAX
}

async fn lake_file<S: ObjectStore>(
    host: &Bench<S>,
    dataset: &DatasetDefinition,
    stores: &[StoreId],
    month: Month,
    days: &[Date],
) -> Result<AddFile> {
    let units: Vec<UnitTag> =
        stores.iter().flat_map(|store| days.iter().map(|day| proven(store, *day, &host.random))).collect();
    let rows = ROWS_PER_DAY * units.len() as u64;
    let stats = statistics(dataset, stores, month, rows);
    // Nobody reads the rows.
    let file = LakeFile { bytes: Bytes::from_static(b"PAR1"), rows, stats, units: units.into() };
    let lake = Table::new(&host.objects, dataset.name.clone());
    lake.put_file(host.ports(), &dataset.partition(Some(month)), &file).await
}

/// As long as those of a real file.
fn statistics(dataset: &DatasetDefinition, stores: &[StoreId], month: Month, rows: u64) -> String {
    let of = |store: Option<&StoreId>, value: &dyn Fn(&str) -> Value| -> Value {
        let columns = dataset.columns.iter().map(|column| (column.name.clone(), value(&column.name)));
        store.map(|store| ("store_id".to_owned(), Value::from(store.as_str()))).into_iter().chain(columns).collect()
    };
    let ends =
        |name: &str| Value::from(if name == "fecha" { month.first_day().to_string() } else { format!("{name} 12345") });
    json!({
        "numRecords": rows, "minValues": of(stores.first(), &ends), "maxValues": of(stores.last(), &ends),
        "nullCount": of(None, &|_| Value::from(0)),
    })
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
