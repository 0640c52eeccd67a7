//! Judges anew only the stores of which something may be different since their coverage was kept: a batch of
//! theirs was committed, something beside the log changed, or a day ended. The result is that of a full
//! computation (`incremental_tests`).
//!
//! A store's basis is a hash of all that its judgement rests on beside the units in the log. It holds the
//! store's date, so every store is judged anew at least once a day: that finds evidence that was lost since.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use ribera_storage::dataset::DatasetKind;
use ribera_storage::delta::{PartialSnapshot, StoreFiles, Table};
use ribera_storage::hex::sha256_hex;
use ribera_storage::store::StoreDefinition;
use ribera_storage::{Error, ObjectStore, Result, StoreId};

use super::evidence::Known;
use super::pages::Line;
use super::{Versions, judge};

/// By store; none of one that must be judged anew every time.
pub(super) type Bases = BTreeMap<StoreId, String>;

/// Kept coverage of another release may follow other rules.
const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// The bases of all stores. None for datasets whose proof grows old by the second.
pub(super) fn bases_of(known: &Known<'_>, snapshot: Option<&PartialSnapshot>, now: Timestamp) -> Result<Bases> {
    let Some(snapshot) = snapshot.filter(|_| is_kept_of(known)) else { return Ok(Bases::new()) };
    let of_zone = |store: &StoreDefinition| {
        let dates = judge::dates(store, &known.dataset, now)?;
        hash(&(RELEASE, &known.dataset, &snapshot.metadata().id, dates))
    };
    // Thousands of stores share a few time zones.
    let mut zones = HashMap::new();
    let mut bases = Bases::new();
    for store in known.stores() {
        let zone = match zones.entry(&store.time_zone) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(free) => free.insert(of_zone(store)?),
        };
        bases.insert(store.id.clone(), hash(&(&*zone, store, known.beside_the_log(&store.id)))?);
    }
    Ok(bases)
}

/// Whether stores of the dataset can stand as they were kept.
pub(super) fn is_kept_of(known: &Known<'_>) -> bool {
    known.dataset.kind == DatasetKind::Daily
}

/// What is kept of the stores that need not be judged anew: of `kept`, the version that was judged and its stores.
/// A store stands if it is the same in that version, in the one that is judged now, and in the newest; and if
/// `take` can read what it needs of it.
pub(super) async fn standing<'a, S: ObjectStore, T>(
    table: &Table<'_, S>,
    versions: &Versions,
    kept: Option<(u64, impl Iterator<Item = &'a Line>)>,
    bases: &Bases,
    take: impl Fn(&'a Line) -> Option<T>,
) -> Result<BTreeMap<StoreId, T>> {
    let none = || Ok(BTreeMap::new());
    let Some((judged, newest)) = versions.judged.as_ref().zip(versions.newest()) else { return none() };
    // The table may have been set back since: then what is kept is of versions that are no more.
    let Some((kept, stores)) = kept.filter(|(kept, _)| *kept <= newest.version()) else { return none() };
    let changed = table.stores_changed(kept.min(judged.version()), newest.version()).await?;
    let Some(changed) = changed else { return none() };
    let stands = |line: &&Line| bases.get(&line.store) == Some(&line.basis) && !changed.contains(&line.store);
    Ok(stores.filter(stands).filter_map(|line| Some((line.store.clone(), take(line)?))).collect())
}

fn hash(value: &impl serde::Serialize) -> Result<String> {
    let bytes = serde_json::to_vec(value)
        .map_err(|error| Error::bug("what coverage rests on does not serialise").with_source(error))?;
    Ok(sha256_hex(&bytes))
}
