//! What the central side keeps of batches that are settled, and for how long. The lake itself has
//! its own rules (see [`crate::delta::VACUUM_RETENTION`]).
//!
//! | folder | kept | why so long |
//! |---|---|---|
//! | `landing/` | 35 days after it was put | a batch that has to be encoded or replayed again is found within a month |
//! | `done/`, `acks/`, `state/ledger/` | 400 days | a year of history; recognises a number that a cloned journal uses again |
//! | `quarantine/` | 400 days | an operator's decision; a refused batch is not decided by time alone |
//!
//! A file in `landing/` stays as long as a manifest in the inbox or a record in the quarantine names
//! its batch.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};

use crate::error::{Error, Result};
use crate::ids::BatchId;
use crate::object::{ObjectMeta, ObjectPath, ObjectStore, list_all};
use crate::paths;

/// Batch files are kept this long.
pub const LANDING_RETENTION: SignedDuration = SignedDuration::from_hours(35 * 24);

/// Manifests, acknowledgements, ledger records and quarantine records are kept this long.
pub const RECORDS_RETENTION: SignedDuration = SignedDuration::from_hours(400 * 24);

/// Requests in flight at once.
const CONCURRENCY: usize = 32;

/// Folders of records, by the batch that their paths name.
const RECORDS: [&str; 4] = ["done", "acks", "state/ledger", "quarantine"];

/// Objects that are kept no longer. `now` is by the object store's own clock (see
/// [`crate::object::object_store_now`]). Delete them with [`delete`].
///
/// # Errors
///
/// `Retry` when the object store does not answer.
pub async fn plan<S: ObjectStore>(objects: &S, now: Timestamp) -> Result<Vec<ObjectMeta>> {
    let before = |age: SignedDuration| now.checked_sub(age).map_err(|error| Error::bug("horizon").with_source(error));
    let (landing_horizon, records_horizon) = (before(LANDING_RETENTION)?, before(RECORDS_RETENTION)?);
    // The files first: whatever is put into the inbox later names a file that is younger.
    let files = list_all(objects, "landing/", None).await?;
    let open = open_batches(objects).await?;
    let is_old = |meta: &ObjectMeta| meta.modified < landing_horizon;
    let is_open = |meta: &ObjectMeta| batch_of_file(&meta.path).is_some_and(|batch| open.contains(&batch));
    let mut plan: Vec<ObjectMeta> = files.into_iter().filter(|meta| is_old(meta) && !is_open(meta)).collect();
    for folder in RECORDS {
        let records = list_all(objects, &format!("{folder}/"), None).await?;
        plan.extend(records.into_iter().filter(|meta| meta.modified < records_horizon));
    }
    Ok(plan)
}

/// Deletes what a plan names.
///
/// # Errors
///
/// `Retry` when the object store does not answer: what was deleted before stays so.
pub async fn delete<S: ObjectStore>(objects: &S, plan: &[ObjectMeta]) -> Result<()> {
    let deletes = stream::iter(plan).map(|meta| objects.delete(&meta.path)).buffered(CONCURRENCY);
    deletes.try_collect::<Vec<()>>().await.map(drop)
}

/// Batches whose file may still be asked for.
async fn open_batches<S: ObjectStore>(objects: &S) -> Result<BTreeSet<BatchId>> {
    let mut open = BTreeSet::new();
    for folder in ["inbox", "state/replay", "quarantine"] {
        for meta in list_all(objects, &format!("{folder}/"), None).await? {
            // The record of a cloned journal's batch has a hash behind its position.
            let path = meta.path.as_str();
            let plain = path.split_once('~').map_or(path.to_owned(), |(plain, _)| format!("{plain}.json"));
            open.extend(ObjectPath::new(plain).and_then(|path| paths::batch_of(folder, &path)));
        }
    }
    Ok(open)
}

/// The batch of `landing/DATASET/store_id=S/month=M/EPOCH-SEQUENCE-HASH.parquet`.
fn batch_of_file(path: &ObjectPath) -> Option<BatchId> {
    let mut parts = path.as_str().strip_prefix("landing/")?.split('/');
    let dataset = parts.next()?.parse().ok()?;
    let store = parts.next()?.strip_prefix("store_id=")?.parse().ok()?;
    let (position, _) = path.file_name().rsplit_once('-')?;
    Some(BatchId { store, dataset, position: position.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;
    use crate::object::MemoryStore;

    #[test]
    fn old_files_go_unless_a_manifest_or_a_record_in_quarantine_names_their_batch() {
        block_on(async {
            let objects = MemoryStore::new();
            let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
            objects.set_now(start);
            let batch = |sequence: u64| -> BatchId { format!("s1/ventas/000000-{sequence:010}").parse().unwrap() };
            let mut put = Vec::new();
            for sequence in 0..4 {
                put.push(paths::landing(&batch(sequence), Some("2026-01".parse().unwrap()), &"a".repeat(64)).unwrap());
                put.push(paths::done(&batch(sequence)).unwrap());
                put.push(paths::ack(&batch(sequence)).unwrap());
            }
            put.push(paths::inbox(&batch(1)).unwrap());
            put.push(paths::quarantine(&batch(2)).unwrap());
            put.push(paths::quarantine_clone(&batch(3), &"b".repeat(64)).unwrap());
            for path in &put {
                objects.put(path, b"x".to_vec().into()).await.unwrap();
            }
            let names = async |days: i64| -> Vec<String> {
                let now = start + SignedDuration::from_hours(24 * days);
                let plan = plan(&objects, now).await.unwrap();
                plan.iter().map(|meta| meta.path.to_string()).collect()
            };
            assert_eq!(names(34).await, Vec::<String>::new());
            assert_eq!(names(36).await, [put[0].to_string()]);
            let late = names(401).await;
            assert!(late.len() > 8 && late.iter().all(|path| !path.starts_with("inbox/")), "{late:?}");
            assert!(late.iter().any(|path| path.starts_with("quarantine/")));
        });
    }
}
