//! The JSON API.

use jiff::Timestamp;
use ribera_storage::ledger::{self, LedgerRecord};
use ribera_storage::ports::Ports;
use ribera_storage::{DatasetName, Month, ObjectStore, StoreId};
use serde::Serialize;

use super::query::Query;
use super::{Problem, Response};
use crate::coverage::persist::{self, Age, Index, PAGE_STORES, PageStore};
use crate::coverage::{DayState, Light, Period, StoreSummary, Totals};

pub const JSON: &str = "application/json; charset=utf-8";

/// Runs of an answer at most.
pub const RUNS_MAX: usize = 100;

#[derive(Serialize)]
struct SummaryAnswer {
    dataset: DatasetName,
    table_version: Option<u64>,
    computed_at: Timestamp,
    period: Option<Period>,
    totals: Totals,
    age: Age,
}

#[derive(Serialize)]
struct StoresAnswer {
    dataset: DatasetName,
    stores: Vec<StoreSummary>,
    /// The `after` of the next page; `null` at the end.
    next: Option<StoreId>,
    age: Age,
}

#[derive(Serialize)]
struct CalendarAnswer {
    dataset: DatasetName,
    store: StoreId,
    name: String,
    month: Month,
    days: Vec<DayAnswer>,
    /// Why days are doubted although they were proven once.
    doubts: Vec<String>,
    age: Age,
}

#[derive(Serialize)]
struct DayAnswer {
    date: jiff::civil::Date,
    state: DayState,
}

pub async fn datasets<S: ObjectStore>(ports: Ports<'_, S>) -> Result<Response, Problem> {
    json(&serde_json::json!({"datasets": known_datasets(ports.objects).await?}))
}

pub async fn summary<S: ObjectStore>(ports: Ports<'_, S>, query: &Query) -> Result<Response, Problem> {
    let (index, age) = aged_index(ports, query).await?;
    let Index { dataset, table_version, computed_at, period, totals, .. } = index;
    json(&SummaryAnswer { dataset, table_version, computed_at, period, totals, age })
}

pub async fn stores<S: ObjectStore>(ports: Ports<'_, S>, query: &Query) -> Result<Response, Problem> {
    let (index, age) = aged_index(ports, query).await?;
    let after = query.parsed::<StoreId>("after", "must be a store id")?;
    let (mut stores, next) = stores_after(ports.objects, &index, after.as_ref(), query.limit(PAGE_STORES)?).await?;
    with_lights_of(&mut stores, &age);
    json(&StoresAnswer { dataset: index.dataset, stores, next, age })
}

pub async fn calendar<S: ObjectStore>(ports: Ports<'_, S>, query: &Query) -> Result<Response, Problem> {
    let (index, age) = aged_index(ports, query).await?;
    let store = query
        .parsed::<StoreId>("store", "must be a store id")?
        .ok_or_else(|| Problem::bad_parameter("store", "must be given", ""))?;
    let month = query
        .parsed::<Month>("month", "must be YYYY-MM")?
        .ok_or_else(|| Problem::bad_parameter("month", "must be given as YYYY-MM", ""))?;
    let found = store_of(ports.objects, &index, &store).await?.ok_or_else(|| no_such_store(&store))?;
    let days = found
        .coverage
        .calendar
        .days()
        .filter(|(date, _)| Month::of(*date) == month)
        .map(|(date, state)| DayAnswer { date, state })
        .collect();
    let (name, doubts) = (found.coverage.name, found.coverage.doubts);
    json(&CalendarAnswer { dataset: index.dataset, store, name, month, days, doubts, age })
}

pub async fn runs<S: ObjectStore>(ports: Ports<'_, S>, query: &Query) -> Result<Response, Problem> {
    let runs: Vec<LedgerRecord> = ledger::recent_runs(ports.objects, query.limit(RUNS_MAX)?).await?;
    json(&serde_json::json!({"runs": runs}))
}

/// Datasets that have coverage, by name; one listing each.
pub async fn known_datasets<S: ObjectStore>(objects: &S) -> Result<Vec<DatasetName>, Problem> {
    const ALL: &str = "state/coverage/";
    let mut names: Vec<DatasetName> = Vec::new();
    let mut after: Option<String> = None;
    while let Some(found) = objects.list(ALL, after.as_deref(), 1).await?.pop() {
        let name = found.path.as_str()[ALL.len()..].split('/').next().unwrap_or_default().to_owned();
        // '0' follows '/', so this passes over everything of the dataset.
        after = Some(format!("{ALL}{name}0"));
        names.extend(name.parse::<DatasetName>());
    }
    Ok(names)
}

/// The index that the request means: that of `dataset`, by default of `ventas` or the first.
pub async fn wanted_index<S: ObjectStore>(objects: &S, query: &Query) -> Result<Index, Problem> {
    let dataset = match query.parsed::<DatasetName>("dataset", "must be a dataset's name")? {
        Some(dataset) => dataset,
        None => {
            let known = known_datasets(objects).await?;
            let first = known.iter().find(|name| name.as_str() == "ventas").or(known.first());
            first.cloned().ok_or_else(no_coverage_yet)?
        }
    };
    persist::load_index(objects, &dataset)
        .await?
        .ok_or_else(|| Problem::new(404, "no_such_dataset", format!("there is no coverage of a dataset {dataset}")))
}

/// The index that the request means, and how old it is: if it is, its lights are unknown.
pub async fn aged_index<S: ObjectStore>(ports: Ports<'_, S>, query: &Query) -> Result<(Index, Age), Problem> {
    let index = wanted_index(ports.objects, query).await?;
    let age = persist::load_age(ports, &index).await?;
    Ok((index.with_lights_of(&age), age))
}

pub fn with_lights_of(stores: &mut [StoreSummary], age: &Age) {
    for store in stores.iter_mut().filter(|_| age.is_old) {
        store.light = Light::Unknown;
    }
}

/// At most `limit` summaries after a store, and the `after` of the next page. Reads two pages at
/// most.
pub async fn stores_after<S: ObjectStore>(
    objects: &S,
    index: &Index,
    after: Option<&StoreId>,
    limit: usize,
) -> Result<(Vec<StoreSummary>, Option<StoreId>), Problem> {
    let first = after.map_or(0, |after| index.pages.partition_point(|page| page.first <= *after).saturating_sub(1));
    let mut found: Vec<StoreSummary> = Vec::new();
    for (number, page) in index.pages.iter().enumerate().skip(first) {
        let mut lines = persist::load_page(objects, page).await?;
        lines.retain(|line| line.is_counted() && after.is_none_or(|after| line.store > *after));
        let free = limit - found.len();
        for line in lines.iter().take(free) {
            found.extend(line.read()?.summary);
        }
        let more = lines.len() > free || number + 1 < index.pages.len();
        if found.len() == limit && more {
            let next = found.last().map(|store| store.store.clone());
            return Ok((found, next));
        }
    }
    Ok((found, None))
}

/// A store with its calendar, from the one page that holds it.
pub async fn store_of<S: ObjectStore>(
    objects: &S,
    index: &Index,
    store: &StoreId,
) -> Result<Option<PageStore>, Problem> {
    let Some(page) = index.page_of(store) else { return Ok(None) };
    let lines = persist::load_page(objects, page).await?;
    let found = lines.iter().find(|line| line.store == *store);
    Ok(found.map(|line| line.read()).transpose()?)
}

pub fn no_coverage_yet() -> Problem {
    Problem::new(404, "no_coverage_yet", "no coverage has been computed yet")
}

pub fn no_such_store(store: &StoreId) -> Problem {
    Problem::new(404, "no_such_store", format!("there is no store {store}"))
}

fn json<T: Serialize>(value: &T) -> Result<Response, Problem> {
    match serde_json::to_string(value) {
        Ok(body) => Ok(Response::ok(JSON, body)),
        Err(error) => Err(ribera_storage::Error::bug("an answer does not serialise").with_source(error).into()),
    }
}
