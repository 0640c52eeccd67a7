//! Coverage: for each dataset, store and business date whether the data is complete. "Complete"
//! is never said without the source's own audit.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Date;
use ribera_storage::dataset::DatasetDefinition;
use ribera_storage::delta::{Snapshot, Table};
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
pub(crate) mod persist;
mod summary;
mod types;

pub use answer::judge_answer;
pub use evidence::Evidence;
use evidence::Known;
use incremental::Bases;
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
    Ok(compute_from(ports, &evidence, definition, kept).await?.0)
}

/// What a refresh did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Refreshed {
    pub summaries: Vec<Summary>,
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
) -> Result<Summary> {
    let kept = persist::load_kept(ports.objects, &definition.name).await;
    let (coverage, bases) = compute_from(ports, evidence, definition, kept.as_ref()).await?;
    let summary = coverage.summary(settings, None, false);
    persist::save(ports, settings, coverage, &summary, bases, kept).await?;
    Ok(summary)
}

/// With `kept`, stores of which nothing has changed since are taken from it.
async fn compute_from<S: ObjectStore>(
    ports: Ports<'_, S>,
    evidence: &Evidence,
    definition: DatasetDefinition,
    kept: Option<&Kept>,
) -> Result<(Coverage, Bases)> {
    let known = evidence.of_dataset(definition);
    let table = Table::new(ports.objects, known.dataset.name.clone());
    let mut versions = Versions { judged: table.load_without_statistics().await?, newer: None };
    let computed_at = ports.clock.now();
    let bases = incremental::bases_of(&known, versions.judged.as_ref(), computed_at)?;
    let kept = kept.and_then(|kept| Some((kept.index.table_version?, kept.pages.iter().flatten())));
    let standing = incremental::standing(&table, &versions, kept, &bases).await?;
    let coverage = judge_all(&table, &known, &mut versions, standing, computed_at).await?;
    let bases = incremental::kept_bases(bases, &coverage);
    Ok((coverage, bases))
}

/// A table as it is judged.
struct Versions {
    /// `None`: it was never written.
    judged: Option<Snapshot>,
    /// As it is now, where what is judged is older: what has been corrected since is doubted.
    newer: Option<Snapshot>,
}

impl Versions {
    /// As the table is now.
    fn newest(&self) -> Option<&Snapshot> {
        self.newer.as_ref().or(self.judged.as_ref())
    }

    fn each(&mut self) -> impl Iterator<Item = &mut Snapshot> {
        self.judged.iter_mut().chain(&mut self.newer)
    }
}

/// Stores whose facts are in memory at once.
const STORES_AT_ONCE: usize = 200;

/// Judges every store but those that stand as they are.
async fn judge_all<S: ObjectStore>(
    table: &Table<'_, S>,
    known: &Known<'_>,
    versions: &mut Versions,
    mut standing: BTreeMap<StoreId, StoreCoverage>,
    computed_at: Timestamp,
) -> Result<Coverage> {
    let anew: Vec<&StoreDefinition> = known.stores().iter().filter(|store| !standing.contains_key(&store.id)).collect();
    for some in anew.chunks(STORES_AT_ONCE) {
        let ids = some.iter().map(|store| store.id.clone()).collect();
        for snapshot in versions.each() {
            table.load_facts(snapshot, None, Some(&ids)).await?;
        }
        for store in some {
            let evidence = known.of_store(&store.id, versions.judged.as_ref(), versions.newer.as_ref());
            let judged = judge::judge(store, &known.dataset, &evidence, computed_at)?;
            standing.insert(store.id.clone(), judged);
        }
        versions.each().for_each(Snapshot::forget_facts);
    }
    Ok(Coverage {
        dataset: known.dataset.name.clone(),
        table_version: versions.judged.as_ref().map(Snapshot::version),
        computed_at,
        stores: standing.into_values().collect(),
    })
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
