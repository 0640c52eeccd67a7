//! Coverage: for each dataset, store and business date whether the data is complete. "Complete"
//! is never said without the source's own audit.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Date;
use ribera_storage::dataset::DatasetDefinition;
use ribera_storage::delta::{PartialSnapshot, StoreFiles, Table};
use ribera_storage::ports::Ports;
use ribera_storage::store::StoreDefinition;
use ribera_storage::{DatasetName, Error, Month, ObjectStore, Result, StoreId, control, paths};
use serde::{Deserialize, Serialize};

mod answer;
mod evidence;
#[cfg(test)]
mod evidence_tests;
mod gaps;
mod incremental;
#[cfg(test)]
mod incremental_tests;
mod judge;
#[cfg(test)]
mod model_tests;
mod pages;
pub(crate) mod persist;
mod summary;
mod types;

pub use answer::judge_answer;
pub use evidence::Evidence;
use evidence::Known;
use incremental::Bases;
use pages::Line;
use persist::Kept;

pub use judge::is_over;
pub use types::{Calendar, DayState, Light, StateCounts};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CoverageSettings {
    /// A store at or above this share of complete due days is yellow, below it red.
    pub yellow_percent: u8,
    /// Kept coverage older than this is shown as old, its lights as unknown: three of the host's
    /// intervals. Less: false alarms when a computation is late. More: a standstill goes unnoticed.
    pub old_after_seconds: u32,
}

impl Default for CoverageSettings {
    fn default() -> Self {
        Self { yellow_percent: 80, old_after_seconds: 2700 }
    }
}

/// A run of business dates, both inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Period {
    pub from: Date,
    pub to: Date,
}

impl Period {
    /// How many days it has.
    pub fn days(&self) -> u64 {
        u64::try_from((self.to - self.from).get_days() + 1).unwrap_or(0)
    }

    /// What both have in common.
    pub(crate) fn within(self, other: Self) -> Option<Self> {
        let both = Self { from: self.from.max(other.from), to: self.to.min(other.to) };
        (both.from <= both.to).then_some(both)
    }

    fn each_day(self) -> impl Iterator<Item = Date> {
        self.from.series(jiff::Span::new().days(1)).take_while(move |date| *date <= self.to)
    }
}

/// Coverage of one dataset in all its stores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    pub dataset: DatasetName,
    /// The table version it was computed from; `None` before the first commit.
    pub table_version: Option<u64>,
    pub computed_at: Timestamp,
    /// In order of store id.
    pub stores: Vec<StoreCoverage>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoreCoverage {
    pub store: StoreId,
    pub name: String,
    pub active: bool,
    /// Held out of automatic repair.
    pub hold_repair: bool,
    pub calendar: Calendar,
    /// Rows in the lake by month of the business date.
    pub rows_by_month: BTreeMap<Month, u64>,
    /// When the newest proof of a complete day was taken, by the agent's clock.
    pub proven_at: Option<Timestamp>,
    /// Why days are doubted although they were proven once; at most ten reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<String>,
}

/// One line of `ribera coverage --summary` and of the status page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoreSummary {
    pub store: StoreId,
    pub name: String,
    pub active: bool,
    pub rows: u64,
    pub days: StateCounts,
    /// Complete of due days, 0 to 100 with two decimals, rounded down: 100 means all.
    pub day_percent: f64,
    /// Months without a missing or partial due day, of months with a due day; likewise.
    pub month_percent: f64,
    /// Months with a missing or partial day. Names: `Lang::month_name`.
    pub missing_months: Vec<Month>,
    /// First expected day, for a store that opened within the period.
    pub since: Option<Date>,
    pub light: Light,
    pub proven_at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub dataset: DatasetName,
    pub period: Option<Period>,
    pub computed_at: Timestamp,
    pub table_version: Option<u64>,
    pub stores: Vec<StoreSummary>,
    pub totals: Totals,
}

/// What a refresh says of a dataset; what it says of each store is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatasetSummary {
    pub dataset: DatasetName,
    pub period: Option<Period>,
    pub computed_at: Timestamp,
    pub table_version: Option<u64>,
    pub totals: Totals,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Totals {
    pub rows: u64,
    pub days: StateCounts,
    pub stores_configured: u64,
    pub stores_active: u64,
    /// Rows by months of the period that have rows; `None` without any.
    pub rows_per_month_mean: Option<f64>,
    pub lights: BTreeMap<Light, u64>,
}

/// Store-days behind an answer that are not complete.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnswerCoverage {
    pub dataset: DatasetName,
    pub days: StateCounts,
    /// Runs of missing and partial days, in order of store and date.
    pub gaps: Vec<GapRun>,
}

/// A run of days of one store and month that are all missing or partial: what to extract again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapRun {
    pub dataset: DatasetName,
    pub store: StoreId,
    pub from: Date,
    /// Inclusive; in the month of `from`.
    pub to: Date,
    pub missing: u32,
    pub partial: u32,
    /// The store is held out of automatic repair.
    pub hold_repair: bool,
}

/// Which store-days an answer rests on; `None` means all.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Touched {
    pub stores: Option<Vec<StoreId>>,
    pub from: Option<Date>,
    pub to: Option<Date>,
}

/// Computes coverage of a dataset from the lake as it is now. Store-days in quarantine that no
/// later batch superseded count as partial.
///
/// # Errors
///
/// `Config` for a dataset that is not declared, `Data` when its table's log cannot be read, `Retry`
/// when the object store does not answer.
pub async fn compute<S: ObjectStore>(ports: Ports<'_, S>, dataset: &DatasetName) -> Result<Coverage> {
    compute_one(ports, dataset, None).await
}

/// The same as [`refresh`] would keep it now: stores of which nothing can have changed are taken from what is kept.
/// For whoever compares the two.
///
/// # Errors
///
/// As [`compute`].
pub async fn brought_up_to_date<S: ObjectStore>(ports: Ports<'_, S>, dataset: &DatasetName) -> Result<Coverage> {
    let kept = persist::load_kept(ports.objects, dataset).await;
    compute_one(ports, dataset, kept.as_ref()).await
}

async fn compute_one<S: ObjectStore>(
    ports: Ports<'_, S>,
    dataset: &DatasetName,
    kept: Option<&Kept>,
) -> Result<Coverage> {
    let definition = definition_of(ports.objects, dataset).await?;
    let evidence = Evidence::gather(ports.objects, std::slice::from_ref(&definition)).await?;
    let read = |line: &Line| Some(line.read().ok()?.coverage);
    judge_from(ports, &evidence, &definition, kept, read).await.map(Judged::into_coverage)
}

/// What a refresh did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Refreshed {
    pub summaries: Vec<DatasetSummary>,
    /// Datasets whose coverage could not be computed: what is kept of them is old.
    pub failed: Vec<FailedDataset>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedDataset {
    pub dataset: DatasetName,
    pub error: String,
}

/// Computes and persists coverage of every published dataset and of every other that has data. A
/// dataset that fails holds up no other: that it failed, and why, is kept beside its old coverage.
///
/// # Errors
///
/// When nothing can be computed at all, because the evidence or the definitions cannot be read.
pub async fn refresh<S: ObjectStore>(ports: Ports<'_, S>, settings: &CoverageSettings) -> Result<Refreshed> {
    let mut refreshed = Refreshed::default();
    let definitions = definitions(ports.objects).await?;
    let evidence = Evidence::gather(ports.objects, &definitions).await?;
    for definition in definitions {
        let name = definition.name.clone();
        match refresh_one(ports, settings, &evidence, definition).await {
            Ok(summary) => refreshed.summaries.push(summary),
            Err(error) => {
                tracing::error!(dataset = %name, %error, "coverage not computed");
                persist::note_failure(ports, &name, &error).await?;
                refreshed.failed.push(FailedDataset { dataset: name, error: error.line() });
            }
        }
    }
    Ok(refreshed)
}

async fn refresh_one<S: ObjectStore>(
    ports: Ports<'_, S>,
    settings: &CoverageSettings,
    evidence: &Evidence,
    definition: DatasetDefinition,
) -> Result<DatasetSummary> {
    let kept = persist::load_kept(ports.objects, &definition.name).await;
    let judged = judge_from(ports, evidence, &definition, kept.as_ref(), Some).await?;
    if let Some(summary) = persist::save(ports, settings, judged, kept.as_ref()).await? {
        return Ok(summary);
    }
    let judged = judge_from(ports, evidence, &definition, None, Some).await?;
    let saved = persist::save(ports, settings, judged, kept.as_ref()).await?;
    saved.ok_or_else(|| Error::bug("coverage that was judged in full was not kept"))
}

/// What was judged anew, and of the other stores what was taken of what is kept.
pub(crate) struct Judged<T> {
    dataset: DatasetName,
    table_version: Option<u64>,
    computed_at: Timestamp,
    standing: BTreeMap<StoreId, T>,
    anew: Vec<StoreCoverage>,
    /// Of all stores.
    bases: Bases,
}

impl Judged<StoreCoverage> {
    fn into_coverage(self) -> Coverage {
        let Self { dataset, table_version, computed_at, standing, anew, .. } = self;
        let mut stores: Vec<StoreCoverage> = standing.into_values().chain(anew).collect();
        stores.sort_by(|left, right| left.store.cmp(&right.store));
        Coverage { dataset, table_version, computed_at, stores }
    }
}

/// With `kept`, stores of which nothing has changed since are taken from it by `take`.
async fn judge_from<'a, S: ObjectStore, T>(
    ports: Ports<'_, S>,
    evidence: &Evidence,
    definition: &DatasetDefinition,
    kept: Option<&'a Kept>,
    take: impl Fn(&'a Line) -> Option<T>,
) -> Result<Judged<T>> {
    let known = evidence.of_dataset(definition.clone());
    let table = Table::new(ports.objects, known.dataset.name.clone());
    let kept = kept.and_then(Kept::stores).filter(|_| incremental::is_kept_of(&known));
    let judged = match kept {
        // Of most stores nothing is needed.
        Some(_) => table.load_to_read_stores().await?,
        None => table.load_without_statistics().await?.map(PartialSnapshot::from),
    };
    let versions = Versions { judged, newer: None };
    judge_versions(&table, &known, versions, kept, ports.clock.now(), take).await
}

/// A table as it is judged.
struct Versions {
    /// `None`: it was never written.
    judged: Option<PartialSnapshot>,
    /// As it is now, where what is judged is older: what has been corrected since is doubted.
    newer: Option<PartialSnapshot>,
}

impl Versions {
    /// As the table is now.
    fn newest(&self) -> Option<&PartialSnapshot> {
        self.newer.as_ref().or(self.judged.as_ref())
    }

    fn each(&mut self) -> impl Iterator<Item = &mut PartialSnapshot> {
        self.judged.iter_mut().chain(&mut self.newer)
    }

    /// The number of what is judged.
    fn judged_version(&self) -> Option<u64> {
        self.judged.as_ref().map(PartialSnapshot::version)
    }
}

async fn judge_versions<'a, S: ObjectStore, T>(
    table: &Table<'_, S>,
    known: &Known<'_>,
    mut versions: Versions,
    kept: Option<(u64, impl Iterator<Item = &'a Line>)>,
    computed_at: Timestamp,
    take: impl Fn(&'a Line) -> Option<T>,
) -> Result<Judged<T>> {
    let bases = incremental::bases_of(known, versions.newest(), computed_at)?;
    let mut standing = incremental::standing(table, &versions, kept, &bases, take).await?;
    let mut anew: Vec<&StoreDefinition> =
        known.stores().iter().filter(|store| !standing.contains_key(&store.id)).collect();
    let before = versions.judged_version();
    if let Some(snapshot) = &mut versions.judged {
        table.read_stores(snapshot, anew.iter().map(|store| store.id.clone()).collect()).await?;
    }
    // The checkpoint was no longer what it was, and the table was read again, whole.
    if versions.judged_version() != before {
        standing.clear();
        anew = known.stores().iter().collect();
    }
    let anew = judge_all(table, known, &mut versions, &anew, computed_at).await?;
    let (dataset, table_version) = (known.dataset.name.clone(), versions.judged_version());
    Ok(Judged { dataset, table_version, computed_at, standing, anew, bases })
}

/// Stores whose facts are in memory at once.
const STORES_AT_ONCE: usize = 200;

async fn judge_all<S: ObjectStore>(
    table: &Table<'_, S>,
    known: &Known<'_>,
    versions: &mut Versions,
    stores: &[&StoreDefinition],
    computed_at: Timestamp,
) -> Result<Vec<StoreCoverage>> {
    let mut judged = Vec::with_capacity(stores.len());
    for some in stores.chunks(STORES_AT_ONCE) {
        let ids = some.iter().map(|store| store.id.clone()).collect();
        for snapshot in versions.each() {
            table.load_facts_of(snapshot, &ids).await?;
        }
        for store in some {
            let evidence = known.of_store(&store.id, versions.judged.as_ref(), versions.newer.as_ref())?;
            judged.push(judge::judge(store, &known.dataset, &evidence, computed_at)?);
        }
        versions.each().for_each(PartialSnapshot::forget_facts);
    }
    Ok(judged)
}

async fn definition_of<S: ObjectStore>(objects: &S, name: &DatasetName) -> Result<DatasetDefinition> {
    control::load_dataset(objects, name).await?.ok_or_else(|| {
        Error::config(format!("dataset: must be declared, got {name}")).with_hint("ribera dataset check FILE")
    })
}

/// Published datasets, and shipped ones with a table, by name.
pub async fn datasets<S: ObjectStore>(objects: &S) -> Result<Vec<DatasetName>> {
    Ok(definitions(objects).await?.into_iter().map(|dataset| dataset.name).collect())
}

async fn definitions<S: ObjectStore>(objects: &S) -> Result<Vec<DatasetDefinition>> {
    let (published, known) =
        futures::try_join!(control::load_published_datasets(objects), control::load_datasets(objects))?;
    let published: Vec<DatasetName> = published.into_iter().map(|dataset| dataset.name).collect();
    let mut found = Vec::new();
    for dataset in known {
        let log = format!("{}/_delta_log/", paths::table_root(&dataset.name));
        if published.contains(&dataset.name) || !objects.list(&log, None, 1).await?.is_empty() {
            found.push(dataset);
        }
    }
    Ok(found)
}

/// The coverage persisted last, or `None`.
pub async fn load<S: ObjectStore>(store: &S, dataset: &DatasetName) -> Result<Option<Coverage>> {
    persist::load(store, dataset).await
}

impl Coverage {
    /// Percentages, lights and totals over `period` (by default from the first expected day to
    /// the last); rows are those of the months it touches. Inactive stores stand outside unless
    /// `with_inactive`.
    pub fn summary(&self, settings: &CoverageSettings, period: Option<Period>, with_inactive: bool) -> Summary {
        summary::summarise(self, settings, period, with_inactive)
    }

    /// Exactly the missing and partial days, in runs by store and month.
    pub fn gap_plan(&self, touched: &Touched) -> Vec<GapRun> {
        self.behind(touched).gaps
    }

    /// What is not complete behind an answer that rests on the store-days that `touched` says yes
    /// to: what `ribera sql` asks with the filters of a query's plan. It is asked of runs within a month (first and
    /// last day), and of each day of a run of which it says neither yes nor no. Inactive stores count too
    /// when they are touched and have gaps.
    pub fn behind_where(&self, touched: impl FnMut(&StoreId, (Date, Date)) -> Option<bool>) -> AnswerCoverage {
        gaps::behind(self, touched)
    }

    /// What is not complete behind an answer.
    pub fn behind(&self, touched: &Touched) -> AnswerCoverage {
        self.behind_where(|store, run| touched.includes(store, run))
    }
}

#[cfg(test)]
mod tests;
