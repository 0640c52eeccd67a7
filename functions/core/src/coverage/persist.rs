//! Coverage as it is kept: pages of stores under a fresh name, then a numbered index that names
//! them. A reader of one store reads the index and one page, however many stores there are.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use ribera_storage::numbered;
use ribera_storage::object::{ObjectPath, list_all};
use ribera_storage::ports::Ports;
use ribera_storage::store::StoreDefinition;
use ribera_storage::{DatasetName, Error, ObjectStore, Result, StoreId, paths};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::incremental::Bases;
use super::{Coverage, CoverageSettings, Light, Period, StoreCoverage, StoreSummary, Summary, Totals};
use ribera_storage::object::put_json;

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
    /// See [`super::CoverageSettings::old_after_seconds`].
    #[serde(default = "default_old_after_seconds")]
    pub old_after_seconds: u32,
}

fn default_old_after_seconds() -> u32 {
    super::CoverageSettings::default().old_after_seconds
}

/// How far kept coverage can be relied on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Age {
    /// It was computed so long ago that its lights say nothing of now.
    pub is_old: bool,
    pub computed_at: Timestamp,
    /// The last computation, if it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<FailedRefresh>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRef {
    /// The first store of the page; pages are in order of store id.
    pub first: StoreId,
    pub path: String,
}

/// The last computation of a dataset's coverage that failed. Deleted by the next that succeeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedRefresh {
    pub tried_at: Timestamp,
    pub error: String,
}

/// A store of a page. Inactive stores have no summary: they stand outside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PageStore {
    pub coverage: StoreCoverage,
    pub summary: Option<StoreSummary>,
    /// See [`super::incremental`]. Empty: judged anew every time.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub basis: String,
}

/// The coverage that was kept last.
pub struct Kept {
    pub index: Index,
    /// Those of the index, in its order.
    pub pages: Vec<Vec<PageStore>>,
}

/// The coverage that was kept last; `None` before the first, and when it cannot be read: then all is judged anew.
pub async fn load_kept<S: ObjectStore>(objects: &S, dataset: &DatasetName) -> Option<Kept> {
    read_kept(objects, dataset).await.ok().flatten()
}

/// What was kept last of `stores` and perhaps of others, and the version that was judged; `None` likewise.
pub async fn load_kept_of<S: ObjectStore>(
    objects: &S,
    dataset: &DatasetName,
    stores: &[StoreDefinition],
) -> Option<(u64, Vec<PageStore>)> {
    let index = load_index(objects, dataset).await.ok().flatten()?;
    let paths: BTreeSet<&str> =
        stores.iter().filter_map(|store| index.page_of(&store.id)).map(|page| page.path.as_str()).collect();
    let pages = index.pages.iter().filter(|page| paths.contains(page.path.as_str()));
    let pages = load_pages(objects, pages).await.ok()?;
    Some((index.table_version?, pages.into_iter().flatten().collect()))
}

async fn read_kept<S: ObjectStore>(objects: &S, dataset: &DatasetName) -> Result<Option<Kept>> {
    let Some(index) = load_index(objects, dataset).await? else { return Ok(None) };
    let pages = load_pages(objects, &index.pages).await?;
    Ok(Some(Kept { index, pages }))
}

async fn load_pages<'a, S: ObjectStore>(
    objects: &S,
    pages: impl IntoIterator<Item = &'a PageRef>,
) -> Result<Vec<Vec<PageStore>>> {
    stream::iter(pages).map(|page| load_page(objects, page)).buffered(CONCURRENCY).try_collect().await
}

/// Keeps coverage. Pages that are as they were are not written again.
pub async fn save<S: ObjectStore>(
    ports: Ports<'_, S>,
    settings: &CoverageSettings,
    coverage: Coverage,
    summary: &Summary,
    mut bases: Bases,
    kept: Option<Kept>,
) -> Result<()> {
    let prefix = paths::coverage(&coverage.dataset);
    let folder = format!("{}/{}", pages_folder(&coverage.dataset), ports.random.fresh_name());
    let mut index = Index {
        dataset: coverage.dataset.clone(),
        table_version: coverage.table_version,
        computed_at: coverage.computed_at,
        period: summary.period,
        totals: summary.totals.clone(),
        pages: Vec::new(),
        old_after_seconds: settings.old_after_seconds,
    };
    let mut summaries = summary.stores.iter().peekable();
    let stores: Vec<PageStore> = coverage
        .stores
        .into_iter()
        .map(|coverage| {
            let summary = summaries.next_if(|summary| summary.store == coverage.store).cloned();
            let basis = bases.remove(&coverage.store).unwrap_or_default();
            PageStore { coverage, summary, basis }
        })
        .collect();
    let mut pages = Vec::new();
    for (number, page) in stores.chunks(PAGE_STORES).enumerate() {
        if let Some(same) = kept.as_ref().and_then(|kept| kept.page_like(number, page)) {
            index.pages.push(same.clone());
            continue;
        }
        let path = ObjectPath::new(format!("{folder}/{number:05}.json"))?;
        index.pages.push(PageRef { first: page[0].coverage.store.clone(), path: path.to_string() });
        pages.push((path, page));
    }
    let puts = stream::iter(&pages).map(async |(path, page)| put_json(ports.objects, path, page).await);
    puts.buffered(CONCURRENCY).try_collect::<Vec<()>>().await?;
    let bytes =
        serde_json::to_vec(&index).map_err(|error| Error::bug("coverage does not serialise").with_source(error))?;
    numbered::publish(ports.objects, &prefix, "json", bytes.into()).await?;
    ports.objects.delete(&paths::coverage_failure(&index.dataset)?).await?;
    clean(ports, &coverage.dataset).await
}

/// Keeps that coverage could not be computed, and why.
pub async fn note_failure<S: ObjectStore>(ports: Ports<'_, S>, dataset: &DatasetName, error: &Error) -> Result<()> {
    let failed = FailedRefresh { tried_at: ports.clock.now(), error: error.line() };
    put_json(ports.objects, &paths::coverage_failure(dataset)?, &failed).await
}

/// How old an index is.
pub async fn load_age<S: ObjectStore>(ports: Ports<'_, S>, index: &Index) -> Result<Age> {
    let failed =
        load_failure(ports.objects, &index.dataset).await?.filter(|failed| failed.tried_at > index.computed_at);
    let seconds = ports.clock.now().duration_since(index.computed_at).as_secs();
    let is_old = seconds > i64::from(index.old_after_seconds);
    Ok(Age { is_old, computed_at: index.computed_at, failed })
}

/// The last failure, if no computation has succeeded since.
async fn load_failure<S: ObjectStore>(objects: &S, dataset: &DatasetName) -> Result<Option<FailedRefresh>> {
    match objects.get(&paths::coverage_failure(dataset)?).await? {
        Some(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        None => Ok(None),
    }
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
    let Some(Kept { index, pages }) = read_kept(objects, dataset).await? else { return Ok(None) };
    Ok(Some(Coverage {
        dataset: index.dataset,
        table_version: index.table_version,
        computed_at: index.computed_at,
        stores: pages.into_iter().flatten().map(|store| store.coverage).collect(),
    }))
}

impl Kept {
    /// The page of that number, if it holds exactly these stores: it need not be written again.
    fn page_like(&self, number: usize, stores: &[PageStore]) -> Option<&PageRef> {
        let same = self.pages.get(number).is_some_and(|page| page == stores);
        self.index.pages.get(number).filter(|_| same)
    }
}

impl Index {
    /// Of old coverage nobody knows what the lights are now.
    #[must_use]
    pub fn with_lights_of(mut self, age: &Age) -> Self {
        if age.is_old {
            let stores = self.totals.lights.values().sum();
            self.totals.lights = BTreeMap::from([(Light::Unknown, stores)]);
        }
        self
    }

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
async fn clean<S: ObjectStore>(ports: Ports<'_, S>, dataset: &DatasetName) -> Result<()> {
    let prefix = paths::coverage(dataset);
    numbered::prune(ports.objects, &prefix, KEPT).await?;
    let listed = list_all(ports.objects, &format!("{prefix}/"), None).await?;
    let pages = format!("{}/", pages_folder(dataset));
    let (pages, indexes): (Vec<_>, Vec<_>) =
        listed.into_iter().partition(|meta| meta.path.as_str().starts_with(&pages));
    let mut named = BTreeSet::new();
    for meta in &indexes {
        // An index that cannot be read names nothing; its readers are refused as well.
        if let Some(bytes) = ports.objects.get(&meta.path).await?
            && let Ok(index) = parse::<Index>(meta.path.as_str(), &bytes)
        {
            named.extend(index.pages.into_iter().map(|page| page.path));
        }
    }
    let now = ports.clock.now();
    let orphans = pages
        .iter()
        .filter(|meta| !named.contains(meta.path.as_str()) && now.duration_since(meta.modified) > ORPHAN_AGE);
    let deletes = stream::iter(orphans).map(|meta| ports.objects.delete(&meta.path)).buffered(CONCURRENCY);
    deletes.try_collect::<Vec<()>>().await.map(drop)
}

fn parse<T: DeserializeOwned>(path: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::data(format!("{path}: is not kept coverage")).with_source(error))
}
