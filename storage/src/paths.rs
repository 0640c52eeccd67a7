//! Where everything lies in object storage. The only place that spells a path.

use crate::error::Result;
use crate::ids::{BatchId, DatasetName, Month, Position, StoreId};
use crate::object::ObjectPath;

/// The data file of a batch. `hash` is the file's SHA-256 in hexadecimal.
///
/// # Errors
///
/// `Reject` when the parts make no object path, which checked ids always do.
pub fn landing(batch: &BatchId, month: Option<Month>, hash: &str) -> Result<ObjectPath> {
    let month = month.map(|month| format!("month={month}/")).unwrap_or_default();
    ObjectPath::new(format!(
        "landing/{}/store_id={}/{month}{}-{}.parquet",
        batch.dataset,
        batch.store,
        batch.position,
        short(hash)
    ))
}

/// The manifest that makes a batch exist; put only if absent.
///
/// # Errors
///
/// `Reject` when the parts make no object path, which checked ids always do.
pub fn inbox(batch: &BatchId) -> Result<ObjectPath> {
    manifest_in("inbox", batch)
}

/// Where a manifest goes once its batch is acknowledged.
///
/// # Errors
///
/// `Reject` when the parts make no object path, which checked ids always do.
pub fn done(batch: &BatchId) -> Result<ObjectPath> {
    manifest_in("done", batch)
}

/// The answer to the agent; see [`crate::batch::Ack`].
///
/// # Errors
///
/// `Reject` when the parts make no object path, which checked ids always do.
pub fn ack(batch: &BatchId) -> Result<ObjectPath> {
    manifest_in("acks", batch)
}

/// One object per rejected batch; see [`crate::batch::QuarantineRecord`].
///
/// # Errors
///
/// `Reject` when the parts make no object path, which checked ids always do.
pub fn quarantine(batch: &BatchId) -> Result<ObjectPath> {
    manifest_in("quarantine", batch)
}

/// The record of a manifest that came from a cloned journal, beside the first's.
///
/// # Errors
///
/// `Reject` when the parts make no object path, which checked ids always do.
pub fn quarantine_clone(batch: &BatchId, sha256: &str) -> Result<ObjectPath> {
    let BatchId { store, dataset, position } = batch;
    ObjectPath::new(format!("quarantine/{store}/{dataset}/{position}~{}.json", short(sha256)))
}

/// The record of an inbox object whose path names no batch; `sha256` of path and content.
///
/// # Errors
///
/// `Reject` when the parts make no object path, which checked ids always do.
pub fn quarantine_unreadable(sha256: &str) -> Result<ObjectPath> {
    ObjectPath::new(format!("quarantine/_unreadable/{sha256}.json"))
}

/// A replay that was asked for and is not finished: holds the manifest.
///
/// # Errors
///
/// `Reject` when the parts make no object path, which checked ids always do.
pub fn replay(batch: &BatchId) -> Result<ObjectPath> {
    manifest_in("state/replay", batch)
}

/// That a person has discarded a refused batch, and why.
///
/// # Errors
///
/// `Reject` when the parts make no object path, which checked ids always do.
pub fn discarded(batch: &BatchId) -> Result<ObjectPath> {
    manifest_in("state/discarded", batch)
}

/// How often a batch has failed; see `ingest::failures`.
///
/// # Errors
///
/// `Reject` when the parts make no object path, which checked ids always do.
pub fn failing(batch: &BatchId) -> Result<ObjectPath> {
    manifest_in("state/failures", batch)
}

/// The ledger's record of a batch.
///
/// # Errors
///
/// `Reject` when the parts make no object path, which checked ids always do.
pub fn ledger(batch: &BatchId) -> Result<ObjectPath> {
    manifest_in("state/ledger", batch)
}

/// The batch that `path` names below `folder` (such as `inbox`): the inverse of the above.
///
/// # Errors
///
/// `Reject` when it names none.
pub fn batch_of(folder: &str, path: &ObjectPath) -> Result<BatchId> {
    let bad = || crate::Error::reject(format!("path: expected {folder}/STORE/DATASET/EPOCH-SEQUENCE.json, got {path}"));
    path.as_str()
        .strip_prefix(folder)
        .and_then(|rest| rest.strip_prefix('/'))
        .and_then(|rest| rest.strip_suffix(".json"))
        .ok_or_else(bad)?
        .parse()
        .map_err(|_| bad())
}

/// A batch that is re-encoded and waits to be committed by whichever call comes first.
///
/// # Errors
///
/// `Reject` when the parts make no object path, which checked ids always do.
pub fn ready(batch: &BatchId) -> Result<ObjectPath> {
    ObjectPath::new(format!("state/ready/{}/{}~{}.json", batch.dataset, batch.store, batch.position))
}

pub fn ready_prefix(table: &DatasetName) -> String {
    format!("state/ready/{table}/")
}

/// The root of a Delta table.
pub fn table_root(table: &DatasetName) -> String {
    format!("lake/{table}")
}

/// A log entry of a Delta table.
///
/// # Errors
///
/// `Reject` when the parts make no object path, which checked ids always do.
pub fn log_entry(table: &DatasetName, version: u64) -> Result<ObjectPath> {
    ObjectPath::new(format!("lake/{table}/_delta_log/{version:020}.json"))
}

/// The claim of an epoch of a stream; put only if absent.
///
/// # Errors
///
/// `Reject` when the parts make no object path, which checked ids always do.
pub fn epoch_claim(store: &StoreId, dataset: &DatasetName, epoch: u32) -> Result<ObjectPath> {
    ObjectPath::new(format!("agents/{store}/{dataset}/epoch/{epoch:06}.json"))
}

/// The agent's heartbeat; see [`crate::heartbeat::Heartbeat`].
///
/// # Errors
///
/// `Reject` when the parts make no object path, which checked ids always do.
pub fn heartbeat(store: &StoreId) -> Result<ObjectPath> {
    ObjectPath::new(format!("agents/{store}/heartbeat.json"))
}

/// Numbered lists of the units that a source says differ from what its agent sent:
/// `agents/STORE/DATASET/differing/NUMBER.json`; see [`crate::batch::Differing`].
pub fn differing(store: &StoreId, dataset: &DatasetName) -> String {
    format!("agents/{store}/{dataset}/differing")
}

/// Mutable state is numbered objects, of which the highest number wins.
///
/// # Errors
///
/// `Reject` when the parts make no object path, which checked ids always do.
pub fn numbered(prefix: &str, number: u64, extension: &str) -> Result<ObjectPath> {
    ObjectPath::new(format!("{prefix}/{number:010}.{extension}"))
}

/// Numbered store definitions: `control/stores/STORE/NUMBER.toml`.
pub fn store_definitions(store: &StoreId) -> String {
    format!("control/stores/{store}")
}

/// Numbered dataset definitions: `control/datasets/DATASET/NUMBER.toml`.
pub fn dataset_definitions(dataset: &DatasetName) -> String {
    format!("control/datasets/{dataset}")
}

/// Numbered coverage of one dataset, all stores: `state/coverage/DATASET/NUMBER.json`.
pub fn coverage(dataset: &DatasetName) -> String {
    format!("state/coverage/{dataset}")
}

/// Why coverage of a dataset could not be computed the last time.
///
/// # Errors
///
/// `Reject` when the parts make no object path, which checked ids always do.
pub fn coverage_failure(dataset: &DatasetName) -> Result<ObjectPath> {
    ObjectPath::new(format!("state/coverage/{dataset}/failed"))
}

fn short(hash: &str) -> &str {
    hash.get(..16).unwrap_or(hash)
}

fn manifest_in(folder: &str, batch: &BatchId) -> Result<ObjectPath> {
    let BatchId { store, dataset, position } = batch;
    let position: &Position = position;
    ObjectPath::new(format!("{folder}/{store}/{dataset}/{position}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_path_names_its_batch_and_nothing_else_does() {
        let batch: BatchId = "s1/ventas/000000-0000000003".parse().unwrap();
        let path = inbox(&batch).unwrap();
        assert_eq!(path.as_str(), "inbox/s1/ventas/000000-0000000003.json");
        assert_eq!(batch_of("inbox", &path).unwrap(), batch);
        assert!(batch_of("done", &path).is_err());
        let odd = ObjectPath::new("inbox/s1/ventas/x.json").unwrap();
        assert!(batch_of("inbox", &odd).is_err());
    }
}
