//! Judges anew only the stores of which something may be different since their coverage was kept: a batch of
//! theirs was committed, something beside the log changed, or a day ended. The result is that of a full
//! computation (`incremental_tests`).
//!
//! A store's basis is a hash of all that its judgement rests on beside the units in the log. It holds the
//! store's date, so every store is judged anew at least once a day: that finds evidence that was lost since.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use ribera_storage::dataset::DatasetKind;
use ribera_storage::delta::{Snapshot, Table};
use ribera_storage::hex::sha256_hex;
use ribera_storage::{Error, ObjectStore, Result, StoreId};

use super::evidence::Known;
use super::persist::PageStore;
use super::{Coverage, StoreCoverage};
use super::{Versions, judge};

/// By store; none of one that must be judged anew every time.
pub(super) type Bases = BTreeMap<StoreId, String>;

/// Kept coverage of another release may follow other rules.
const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// The bases of all stores. None for datasets whose proof grows old by the second.
pub(super) fn bases_of(known: &Known<'_>, snapshot: Option<&Snapshot>, now: Timestamp) -> Result<Bases> {
    let mut bases = Bases::new();
    let Some(snapshot) = snapshot.filter(|_| known.dataset.kind == DatasetKind::Daily) else { return Ok(bases) };
    let shared = hash(&(RELEASE, &known.dataset, &snapshot.metadata().id))?;
    for store in known.stores() {
        let dates = judge::dates(store, &known.dataset, now)?;
        let basis = hash(&(&shared, store, dates, known.beside_the_log(&store.id)))?;
        bases.insert(store.id.clone(), basis);
    }
    Ok(bases)
}

/// What is kept of the stores that need not be judged anew: of `kept`, the version that was judged and its stores.
/// A store stands if it is the same in that version, in the one that is judged now, and in the newest.
pub(super) async fn standing<'a, S: ObjectStore>(
    table: &Table<'_, S>,
    versions: &Versions,
    kept: Option<(u64, impl Iterator<Item = &'a PageStore>)>,
    bases: &Bases,
) -> Result<BTreeMap<StoreId, StoreCoverage>> {
    let none = || Ok(BTreeMap::new());
    let Some((judged, newest)) = versions.judged.as_ref().zip(versions.newest()) else { return none() };
    // The table may have been set back since: then what is kept is of versions that are no more.
    let Some((kept, stores)) = kept.filter(|(kept, _)| *kept <= newest.version()) else { return none() };
    let changed = table.stores_changed(kept.min(judged.version()), newest.version()).await?;
    let Some(changed) = changed else { return none() };
    let stands = |store: &StoreId, basis: &String| bases.get(store) == Some(basis) && !changed.contains(store);
    let stores = stores.filter(|store| stands(&store.coverage.store, &store.basis));
    Ok(stores.map(|store| (store.coverage.store.clone(), store.coverage.clone())).collect())
}

/// The bases that may be kept: of a store that is in doubt the evidence may become readable without a change
/// that anybody sees.
pub(super) fn kept_bases(mut bases: Bases, coverage: &Coverage) -> Bases {
    let doubtful: BTreeSet<&StoreId> =
        coverage.stores.iter().filter(|store| !store.doubts.is_empty()).map(|store| &store.store).collect();
    bases.retain(|store, _| !doubtful.contains(store));
    bases
}

fn hash(value: &impl serde::Serialize) -> Result<String> {
    let bytes = serde_json::to_vec(value)
        .map_err(|error| Error::bug("what coverage rests on does not serialise").with_source(error))?;
    Ok(sha256_hex(&bytes))
}
