//! Coverage as it is kept: pages of stores under a fresh name, then a numbered index that names
//! them. A reader of one store reads the index and one page, however many stores there are.

use std::borrow::Cow;
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

pub use super::pages::{Line, PageStore};
use super::{Coverage, CoverageSettings, DatasetSummary, Judged, Light, Period, Totals, summary};
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
    /// It was computed with.
    #[serde(default)]
    pub settings: CoverageSettings,
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

/// The coverage that was kept last.
pub struct Kept {
    pub index: Index,
    /// Those of the index, in its order.
    pub pages: Vec<Vec<Line>>,
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
) -> Option<(u64, Vec<Line>)> {
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
) -> Result<Vec<Vec<Line>>> {
    stream::iter(pages).map(|page| load_page(objects, page)).buffered(CONCURRENCY).try_collect().await
}

/// Keeps coverage. Pages that are as they were are not written again, and of the others the stores that stand are
/// written as they were. `None`: nothing was kept, because the summaries of the stores that stand are of another
/// period, or by other settings.
pub async fn save<S: ObjectStore>(
    ports: Ports<'_, S>,
    settings: &CoverageSettings,
    judged: Judged<&Line>,
    kept: Option<&Kept>,
) -> Result<Option<DatasetSummary>> {
    let period = period_of(&judged);
    let is_as_kept = |kept: &Kept| kept.index.period == period && kept.index.settings == *settings;
    if !judged.standing.is_empty() && !kept.is_some_and(is_as_kept) {
        return Ok(None);
    }
    let (dataset, table_version, computed_at) = (judged.dataset.clone(), judged.table_version, judged.computed_at);
    let lines = lines_of(judged, settings, period)?;
    let mut totals = summary::totals(lines.iter().filter_map(|line| line.counted.as_ref()), period);
    totals.stores_configured = lines.len() as u64;
    totals.stores_active = lines.iter().filter(|line| line.is_counted()).count() as u64;
    let summary = DatasetSummary { dataset, period, computed_at, table_version, totals };
    let pages = put_pages(ports, &summary.dataset, &lines, kept).await?;
    publish(ports, settings, &summary, pages).await?;
    clean(ports, &summary.dataset).await?;
    Ok(Some(summary))
}

/// From the first expected day of any store that counts to the last.
fn period_of(judged: &Judged<&Line>) -> Option<Period> {
    let standing = judged.standing.values().filter_map(|line| line.counted.as_ref()).map(|counted| counted.expected);
    let anew = judged.anew.iter().filter(|store| store.active).map(|store| store.calendar.expected());
    summary::whole_period(standing.chain(anew))
}

/// All stores, by id.
fn lines_of<'a>(
    judged: Judged<&'a Line>,
    settings: &CoverageSettings,
    period: Option<Period>,
) -> Result<Vec<Cow<'a, Line>>> {
    let Judged { standing, anew, mut bases, .. } = judged;
    let mut lines: Vec<Cow<'_, Line>> = standing.into_values().map(Cow::Borrowed).collect();
    for coverage in anew {
        // The evidence of a store in doubt may become readable without a change that anybody sees.
        let basis = bases.remove(&coverage.store).filter(|_| coverage.doubts.is_empty());
        lines.push(Cow::Owned(Line::new(coverage, basis.unwrap_or_default(), settings, period)?));
    }
    lines.sort_by(|left, right| left.store.cmp(&right.store));
    Ok(lines)
}

async fn put_pages<S: ObjectStore>(
    ports: Ports<'_, S>,
    dataset: &DatasetName,
    lines: &[Cow<'_, Line>],
    kept: Option<&Kept>,
) -> Result<Vec<PageRef>> {
    let folder = format!("{}/{}", pages_folder(dataset), ports.random.fresh_name());
    let (mut pages, mut fresh) = (Vec::new(), Vec::new());
    for (number, page) in lines.chunks(PAGE_STORES).enumerate() {
        if let Some(same) = kept.and_then(|kept| kept.page_like(number, page)) {
            pages.push(same.clone());
            continue;
        }
        let path = ObjectPath::new(format!("{folder}/{number:05}.json"))?;
        pages.push(PageRef { first: page[0].store.clone(), path: path.to_string() });
        fresh.push((path, page));
    }
    let puts = stream::iter(&fresh).map(async |(path, page)| put_json(ports.objects, path, page).await);
    puts.buffered(CONCURRENCY).try_collect::<Vec<()>>().await?;
    Ok(pages)
}

async fn publish<S: ObjectStore>(
    ports: Ports<'_, S>,
    settings: &CoverageSettings,
    summary: &DatasetSummary,
    pages: Vec<PageRef>,
) -> Result<()> {
    let DatasetSummary { dataset, period, computed_at, table_version, totals } = summary.clone();
    let index = Index { dataset, table_version, computed_at, period, totals, pages, settings: settings.clone() };
    let bytes =
        serde_json::to_vec(&index).map_err(|error| Error::bug("coverage does not serialise").with_source(error))?;
    numbered::publish(ports.objects, &paths::coverage(&index.dataset), "json", bytes.into()).await?;
    ports.objects.delete(&paths::coverage_failure(&index.dataset)?).await
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
    let is_old = seconds > i64::from(index.settings.old_after_seconds);
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
pub async fn load_page<S: ObjectStore>(objects: &S, page: &PageRef) -> Result<Vec<Line>> {
    let path = ObjectPath::new(page.path.clone())?;
    match objects.get(&path).await? {
        Some(bytes) => parse(&page.path, &bytes),
        None => Err(Error::retry(format!("{path}: was replaced by newer coverage"))),
    }
}

pub async fn load<S: ObjectStore>(objects: &S, dataset: &DatasetName) -> Result<Option<Coverage>> {
    let Some(Kept { index, pages }) = read_kept(objects, dataset).await? else { return Ok(None) };
    let stores = pages.iter().flatten().map(|line| Ok(line.read()?.coverage)).collect::<Result<_>>()?;
    let Index { dataset, table_version, computed_at, .. } = index;
    Ok(Some(Coverage { dataset, table_version, computed_at, stores }))
}

impl Kept {
    /// The version that was judged, and its stores.
    pub fn stores(&self) -> Option<(u64, impl Iterator<Item = &Line>)> {
        Some((self.index.table_version?, self.pages.iter().flatten()))
    }

    /// The page of that number, if it holds exactly these stores: it need not be written again.
    fn page_like(&self, number: usize, stores: &[Cow<'_, Line>]) -> Option<&PageRef> {
        let same = self.pages.get(number).is_some_and(|page| page.iter().eq(stores.iter().map(|line| &**line)));
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
