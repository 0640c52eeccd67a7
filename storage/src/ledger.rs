//! The ledger: one record per batch, and the runs of all stores, newest first.
//!
//! A cache for people and coverage; the truth is the Delta log, the quarantine and the manifests,
//! from which `ribera rebuild` makes the ledger again.

use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::batch::AckOutcome;
use crate::error::{Error, Result};
use crate::ids::{BatchId, DatasetName, StoreId};
use crate::object::{ObjectPath, ObjectStore, list_all};
use crate::paths;

/// Requests in flight at once.
const CONCURRENCY: usize = 32;

/// The run index: object names that sort newest first, so that the latest runs are one page.
const RUNS: &str = "state/runs/";

/// Counted down from here, in milliseconds: 13 digits until the year 2286.
const RUN_MILLIS_MAX: i64 = 9_999_999_999_999;

/// What became of one batch, and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LedgerRecord {
    pub batch: BatchId,
    pub manifest_sha256: String,
    pub outcome: AckOutcome,
    /// Rows and bytes of the file the store sent.
    pub rows: u64,
    pub bytes: u64,
    /// Checks of the dataset that only warn, one text for each that failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    pub timings: Timings,
}

/// When things happened to a batch: the first two by the agent's clock, the rest by ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timings {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extraction_started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extraction_finished_at: Option<Timestamp>,
    /// The manifest was put, by the object store's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received_at: Option<Timestamp>,
    /// The call that settled it began.
    pub started_at: Timestamp,
    pub settled_at: Timestamp,
}

/// Writes the record and its place in the run index; writing it again replaces it.
///
/// # Errors
///
/// `Retry` when the object store does not answer; the record may stand without its place in the index: write it
/// again.
pub async fn record<S: ObjectStore>(objects: &S, record: &LedgerRecord) -> Result<()> {
    let bytes = serde_json::to_vec(record)
        .map_err(|error| Error::bug("a ledger record does not serialise").with_source(error))?;
    let ledger = paths::ledger(&record.batch)?;
    let run = run_path(record)?;
    futures::try_join!(objects.put(&ledger, bytes.into()), objects.put(&run, Vec::from(ledger.as_str()).into()))?;
    Ok(())
}

/// The record of a batch, if there is one.
///
/// # Errors
///
/// `Retry` when the object store does not answer; `Data` when the record cannot be read.
pub async fn load<S: ObjectStore>(objects: &S, batch: &BatchId) -> Result<Option<LedgerRecord>> {
    read(objects, &paths::ledger(batch)?).await
}

/// The newest `limit` runs of all stores, newest first. One listing page and `limit` GETs.
///
/// # Errors
///
/// `Retry` when the object store does not answer; `Data` when a record cannot be read.
pub async fn recent_runs<S: ObjectStore>(objects: &S, limit: usize) -> Result<Vec<LedgerRecord>> {
    let listed = objects.list(RUNS, None, limit).await?;
    let mut batches: Vec<BatchId> = listed.iter().filter_map(|meta| batch_of_run(&meta.path)).collect();
    // A batch that was settled twice stands at its newest place only.
    let mut seen = std::collections::HashSet::new();
    batches.retain(|batch| seen.insert(batch.clone()));
    let mut paths = Vec::new();
    for batch in &batches {
        paths.push(paths::ledger(batch)?);
    }
    read_all(objects, paths).await
}

/// The newest `limit` records of one store, newest first, of one dataset or all.
///
/// # Errors
///
/// `Retry` when the object store does not answer; `Data` when a record cannot be read.
pub async fn store_runs<S: ObjectStore>(
    objects: &S,
    store: &StoreId,
    dataset: Option<&DatasetName>,
    limit: usize,
) -> Result<Vec<LedgerRecord>> {
    let prefix = match dataset {
        Some(dataset) => format!("state/ledger/{store}/{dataset}/"),
        None => format!("state/ledger/{store}/"),
    };
    let mut listed = list_all(objects, &prefix, None).await?;
    listed.sort_by(|left, right| right.modified.cmp(&left.modified).then_with(|| right.path.cmp(&left.path)));
    read_all(objects, listed.into_iter().take(limit).map(|meta| meta.path).collect()).await
}

/// Deletes places in the run index of runs before `horizon`; the records stay.
///
/// # Errors
///
/// `Retry` when the object store does not answer.
pub async fn prune_runs<S: ObjectStore>(objects: &S, horizon: Timestamp) -> Result<usize> {
    // Sorts behind every run of that very millisecond.
    let after = format!("{RUNS}{:013}~~", RUN_MILLIS_MAX - horizon.as_millisecond());
    let old = list_all(objects, RUNS, Some(&after)).await?;
    let deleted = stream::iter(&old).map(|meta| objects.delete(&meta.path)).buffered(CONCURRENCY);
    deleted.try_collect::<Vec<()>>().await?;
    Ok(old.len())
}

async fn read_all<S: ObjectStore>(objects: &S, paths: Vec<ObjectPath>) -> Result<Vec<LedgerRecord>> {
    let mut reading = stream::iter(&paths).map(|path| read(objects, path)).buffered(CONCURRENCY);
    let mut records = Vec::new();
    while let Some(read) = reading.next().await {
        match read {
            Ok(record) => records.extend(record),
            Err(error) if error.is_retry() => return Err(error),
            // A list of runs must not end at one that cannot be read.
            Err(error) => tracing::warn!(%error, "ledger record passed over"),
        }
    }
    Ok(records)
}

async fn read<S: ObjectStore>(objects: &S, path: &ObjectPath) -> Result<Option<LedgerRecord>> {
    let Some(bytes) = objects.get(path).await? else { return Ok(None) };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| Error::data(format!("{path}: is not a ledger record")).with_source(error))
}

fn run_path(record: &LedgerRecord) -> Result<ObjectPath> {
    let down = RUN_MILLIS_MAX - record.timings.settled_at.as_millisecond();
    let BatchId { store, dataset, position } = &record.batch;
    ObjectPath::new(format!("{RUNS}{down:013}~{store}~{dataset}~{position}.json"))
}

fn batch_of_run(path: &ObjectPath) -> Option<BatchId> {
    let mut parts = path.file_name().strip_suffix(".json")?.split('~').skip(1);
    Some(BatchId {
        store: parts.next()?.parse().ok()?,
        dataset: parts.next()?.parse().ok()?,
        position: parts.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;
    use crate::object::MemoryStore;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + minute * 60).unwrap()
    }

    fn record_of(batch: &str, minute: i64) -> LedgerRecord {
        LedgerRecord {
            batch: batch.parse().unwrap(),
            manifest_sha256: "0".repeat(64),
            outcome: AckOutcome::Superseded,
            rows: 1,
            bytes: 2,
            warnings: Vec::new(),
            timings: Timings {
                extraction_started_at: None,
                extraction_finished_at: None,
                received_at: None,
                started_at: at(minute),
                settled_at: at(minute),
            },
        }
    }

    fn names(records: Vec<LedgerRecord>) -> Vec<String> {
        records.into_iter().map(|record| record.batch.to_string()).collect()
    }

    #[test]
    fn the_latest_runs_come_first_and_a_batch_settled_twice_comes_once() {
        block_on(async {
            let objects = MemoryStore::new();
            let batches =
                ["s1/ventas/000000-0000000001", "s2/ventas/000000-0000000001", "s1/tiendas/000000-0000000001"];
            for (minute, batch) in (0..).zip(batches).chain([(9, batches[0])]) {
                objects.set_now(at(minute));
                record(&objects, &record_of(batch, minute)).await.unwrap();
            }
            let store = "s1".parse().unwrap();
            assert_eq!(names(recent_runs(&objects, 10).await.unwrap()), [batches[0], batches[2], batches[1]]);
            assert_eq!(names(recent_runs(&objects, 1).await.unwrap()), [batches[0]]);
            assert_eq!(names(store_runs(&objects, &store, None, 10).await.unwrap()), [batches[0], batches[2]]);
            let tiendas = "tiendas".parse().unwrap();
            assert_eq!(names(store_runs(&objects, &store, Some(&tiendas), 10).await.unwrap()), [batches[2]]);
            assert_eq!(load(&objects, &batches[0].parse().unwrap()).await.unwrap(), Some(record_of(batches[0], 9)));
            assert_eq!(prune_runs(&objects, at(2)).await.unwrap(), 2, "those before minute 2");
            assert_eq!(names(recent_runs(&objects, 10).await.unwrap()), [batches[0], batches[2]]);
            assert!(load(&objects, &batches[1].parse().unwrap()).await.unwrap().is_some(), "the record stays");
        });
    }
}
