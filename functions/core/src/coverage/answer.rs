//! Coverage behind an answer: of the version that was read, by what is known now.

use ribera_storage::dataset::DatasetDefinition;
use ribera_storage::delta::{PartialSnapshot, Snapshot, Table};
use ribera_storage::ports::Ports;
use ribera_storage::{ObjectStore, Result};

use super::pages::Line;
use super::{Coverage, Evidence, Judged, Versions, judge_versions, persist};

/// Coverage of the stores of `evidence` as the snapshot `read` has them (`None`: the table was never written),
/// by what is known now: what newer versions have corrected since is doubted. Stores of which nothing has changed
/// since their coverage was kept are not judged anew: one query costs what is new, however long the history.
///
/// `evidence` must have been gathered before the snapshot was loaded. Were a doubt looked up later, it
/// could have ended meanwhile, over rows that it still concerns.
///
/// # Errors
///
/// `Config` when a store's calendar cannot be computed; `Data` when the log cannot be read; `Retry` when
/// the object store does not answer.
pub async fn judge_answer<S: ObjectStore>(
    ports: Ports<'_, S>,
    evidence: &Evidence,
    dataset: &DatasetDefinition,
    read: Option<Snapshot>,
) -> Result<Coverage> {
    let known = evidence.of_dataset(dataset.clone());
    let table = Table::new(ports.objects, dataset.name.clone());
    let mut newest = read.clone();
    if let Some(newest) = &mut newest {
        table.refresh(newest).await?;
    }
    let is_newer = |newest: &Snapshot| read.as_ref().is_some_and(|read| read.version() < newest.version());
    let newer = newest.filter(is_newer).map(PartialSnapshot::from);
    let versions = Versions { newer, judged: read.map(PartialSnapshot::from) };
    let now = ports.clock.now();
    let kept = persist::load_kept_of(ports.objects, &dataset.name, known.stores()).await;
    let kept = kept.as_ref().map(|(version, stores)| (*version, stores.iter()));
    let take = |line: &Line| Some(line.read().ok()?.coverage);
    judge_versions(&table, &known, versions, kept, now, take).await.map(Judged::into_coverage)
}
