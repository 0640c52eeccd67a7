//! Coverage as it is kept: pages of stores under a fresh name, then a numbered index that names
//! them. A reader of one store reads the index and one page, however many stores there are.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use ribera_storage::numbered;
use ribera_storage::object::{ObjectPath, list_all};
use ribera_storage::ports::{Clock, Random};
use ribera_storage::{DatasetName, Error, ObjectStore, Result, StoreId, paths};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Coverage, Period, StoreCoverage, StoreSummary, Summary, Totals};
use crate::Deps;
use crate::ingest::put_json;

/// Stores of a page.
pub const PAGE_STORES: usize = 100;

/// Indexes that are kept, for readers that hold an older one.
const KEPT: usize = 3;

/// Pages that no index names are kept so long: their writer may not have put its index yet.
const ORPHAN_AGE: SignedDuration = SignedDuration::from_hours(1);

/// Requests in flight at once.
const CONCURRENCY: usize = 32;

/// The totals of a dataset and where its stores' pages lie.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Index {
    pub dataset: DatasetName,
    pub table_version: Option<u64>,
    pub computed_at: Timestamp,
    pub period: Option<Period>,
    pub totals: Totals,
    pub pages: Vec<PageRef>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRef {
    /// The first store of the page; pages are in order of store id.
    pub first: StoreId,
    pub path: String,
}

/// A store of a page. Inactive stores have no summary: they stand outside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PageStore {
    pub coverage: StoreCoverage,
    pub summary: Option<StoreSummary>,
}

pub async fn save<S: ObjectStore, C: Clock, R: Random>(
    deps: &Deps<S, C, R>,
    coverage: Coverage,
    summary: &Summary,
) -> Result<()> {
    let prefix = paths::coverage(&coverage.dataset);
    let folder = format!("{}/{}", pages_folder(&coverage.dataset), deps.random.fresh_name());
    let mut index = Index {
        dataset: coverage.dataset.clone(),
        table_version: coverage.table_version,
        computed_at: coverage.computed_at,
        period: summary.period,
        totals: summary.totals.clone(),
        pages: Vec::new(),
    };
    let mut summaries = summary.stores.iter().peekable();
    let stores: Vec<PageStore> = coverage
        .stores
        .into_iter()
        .map(|coverage| {
            let summary = summaries.next_if(|summary| summary.store == coverage.store).cloned();
            PageStore { coverage, summary }
        })
        .collect();
    let mut pages = Vec::new();
    for (number, page) in stores.chunks(PAGE_STORES).enumerate() {
        let path = ObjectPath::new(format!("{folder}/{number:05}.json"))?;
        index.pages.push(PageRef { first: page[0].coverage.store.clone(), path: path.to_string() });
        pages.push((path, page));
    }
    let puts = stream::iter(&pages).map(async |(path, page)| put_json(&deps.store, path, page).await);
    puts.buffered(CONCURRENCY).try_collect::<Vec<()>>().await?;
    let bytes =
        serde_json::to_vec(&index).map_err(|error| Error::bug("coverage does not serialise").with_source(error))?;
    numbered::publish(&deps.store, &prefix, "json", bytes.into()).await?;
    clean(deps, &coverage.dataset).await
}

/// The latest index, or `None` before the first.
pub async fn load_index<S: ObjectStore>(objects: &S, dataset: &DatasetName) -> Result<Option<Index>> {
    match numbered::latest(objects, &paths::coverage(dataset)).await? {
        Some(latest) => parse(latest.path.as_str(), &latest.bytes).map(Some),
        None => Ok(None),
    }
}

/// A page of an index; an error of kind `Retry` when a newer index has taken its place.
pub async fn load_page<S: ObjectStore>(objects: &S, page: &PageRef) -> Result<Vec<PageStore>> {
    let path = ObjectPath::new(page.path.clone())?;
    match objects.get(&path).await? {
        Some(bytes) => parse(&page.path, &bytes),
        None => Err(Error::retry(format!("{path}: was replaced by newer coverage"))),
    }
}

pub async fn load<S: ObjectStore>(objects: &S, dataset: &DatasetName) -> Result<Option<Coverage>> {
    let Some(index) = load_index(objects, dataset).await? else { return Ok(None) };
    let pages = stream::iter(&index.pages).map(|page| load_page(objects, page)).buffered(CONCURRENCY);
    let pages: Vec<Vec<PageStore>> = pages.try_collect().await?;
    Ok(Some(Coverage {
        dataset: index.dataset,
        table_version: index.table_version,
        computed_at: index.computed_at,
        stores: pages.into_iter().flatten().map(|store| store.coverage).collect(),
    }))
}

impl Index {
    /// The page that holds `store`, if any does.
    pub fn page_of(&self, store: &StoreId) -> Option<&PageRef> {
        let after = self.pages.partition_point(|page| page.first <= *store);
        self.pages.get(after.checked_sub(1)?)
    }
}

fn pages_folder(dataset: &DatasetName) -> String {
    format!("{}/pages", paths::coverage(dataset))
}

/// Forgets older indexes and the pages that only they named.
async fn clean<S: ObjectStore, C: Clock, R: Random>(deps: &Deps<S, C, R>, dataset: &DatasetName) -> Result<()> {
    let prefix = paths::coverage(dataset);
    numbered::prune(&deps.store, &prefix, KEPT).await?;
    let listed = list_all(&deps.store, &format!("{prefix}/"), None).await?;
    let pages = format!("{}/", pages_folder(dataset));
    let (pages, indexes): (Vec<_>, Vec<_>) =
        listed.into_iter().partition(|meta| meta.path.as_str().starts_with(&pages));
    let mut named = BTreeSet::new();
    for meta in &indexes {
        // An index that cannot be read names nothing; its readers are refused as well.
        if let Some(bytes) = deps.store.get(&meta.path).await?
            && let Ok(index) = parse::<Index>(meta.path.as_str(), &bytes)
        {
            named.extend(index.pages.into_iter().map(|page| page.path));
        }
    }
    let now = deps.clock.now();
    let orphans = pages
        .iter()
        .filter(|meta| !named.contains(meta.path.as_str()) && now.duration_since(meta.modified) > ORPHAN_AGE);
    let deletes = stream::iter(orphans).map(|meta| deps.store.delete(&meta.path)).buffered(CONCURRENCY);
    deletes.try_collect::<Vec<()>>().await.map(drop)
}

fn parse<T: DeserializeOwned>(path: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::data(format!("{path}: is not kept coverage")).with_source(error))
}
