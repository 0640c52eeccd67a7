//! Which stores' units changed from one version of a table to another, told from its entries alone.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt, stream};

use crate::delta::log::action::{self, Action};
use crate::delta::merge::OPERATION;
use crate::delta::{CONCURRENCY, Table};
use crate::error::{Error, Result};
use crate::ids::StoreId;
use crate::object::ObjectStore;

/// More entries are not read: whoever asks takes every store for changed.
const ENTRIES_MAX: u64 = 1_000;

impl<S: ObjectStore> Table<'_, S> {
    /// The stores whose units, or what is proven of them, differ between version `from` and the later version
    /// `to`. `None` when nobody can say: another program wrote, the schema changed, the table was repaired, or an
    /// entry is no longer kept.
    ///
    /// # Errors
    ///
    /// `Retry` when the object store does not answer.
    pub async fn stores_changed(&self, from: u64, to: u64) -> Result<Option<BTreeSet<StoreId>>> {
        if from > to || to - from > ENTRIES_MAX {
            return Ok(None);
        }
        let mut read = stream::iter(from + 1..=to).map(|version| self.read_entry(version)).buffered(CONCURRENCY);
        let mut changed = BTreeSet::new();
        while let Some(entry) = read.try_next().await? {
            let actions = entry.and_then(|bytes| action::from_lines(&bytes).ok());
            match actions.and_then(|actions| stores_of(&actions).ok()) {
                Some(stores) => changed.extend(stores),
                None => return Ok(None),
            }
        }
        Ok(Some(changed))
    }
}

/// The stores that an entry of ours changed. An error for every other entry.
fn stores_of(actions: &[Action]) -> Result<BTreeSet<StoreId>> {
    let unknown = || Error::data("an entry that does not say which stores it changed");
    let info = actions.iter().find_map(|action| action.commit_info.as_ref()).ok_or_else(unknown)?;
    let ours = info.ribera.as_ref().ok_or_else(unknown)?;
    if actions.iter().any(|action| action.meta_data.is_some()) {
        return Err(unknown());
    }
    if info.operation == OPERATION {
        // Proven to change nothing.
        return Ok(BTreeSet::new());
    }
    let stores: BTreeSet<StoreId> = ours.batches.iter().map(|batch| Ok(batch.batch()?.store)).collect::<Result<_>>()?;
    if stores.is_empty() { Err(unknown()) } else { Ok(stores) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::action::{CommitInfo, CommittedBatch, RiberaInfo};

    fn entry(operation: &str, batches: Option<&[&str]>) -> Vec<Action> {
        let batch = |id: &&str| CommittedBatch { id: (*id).to_owned(), manifest_sha256: String::new(), rows: 1 };
        let ribera = batches
            .map(|batches| RiberaInfo { write_id: "x".to_owned(), batches: batches.iter().map(batch).collect() });
        let info = CommitInfo { operation: operation.to_owned(), ribera, ..CommitInfo::default() };
        vec![Action { commit_info: Some(info), ..Action::default() }]
    }

    #[test]
    fn an_entry_changes_the_stores_of_its_batches_a_merge_none_and_any_other_nobody_knows_which() {
        let two = entry("MERGE", Some(&["s1/ventas/000000-0000000001", "s2/ventas/000000-0000000007"]));
        let names: Vec<String> = stores_of(&two).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["s1", "s2"]);
        assert!(stores_of(&entry(OPERATION, Some(&[]))).unwrap().is_empty());
        for other in [
            entry(OPERATION, None),
            entry("MERGE", None),
            entry("MERGE", Some(&[])),
            entry("MERGE", Some(&["no batch"])),
            entry("REPAIR", Some(&[])),
            entry("CHANGE COLUMNS", Some(&[])),
            Vec::new(),
        ] {
            assert!(stores_of(&other).is_err(), "{other:?}");
        }
    }
}
