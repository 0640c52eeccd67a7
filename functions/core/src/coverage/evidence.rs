//! Gathers what is known of a dataset: the log, the quarantine, what sources published. A table at
//! a time, so that memory follows the shard and not the chain.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use ribera_storage::batch::{Differing, DifferingUnit, Manifest, UnitFacts};
use ribera_storage::control::{self, Settings};
use ribera_storage::dataset::DatasetDefinition;
use ribera_storage::delta::{Snapshot, Table, UnitTag};
use ribera_storage::ids::Position;
use ribera_storage::object::list_all;
use ribera_storage::store::StoreDefinition;
use ribera_storage::{DatasetName, Error, ObjectStore, Result, StoreId, TableName, numbered, paths};

use super::judge::{StoreEvidence, UnitEvidence};
use crate::ingest::quarantine;

/// Requests in flight at once.
const CONCURRENCY: usize = 32;

/// Tables in memory at once: the next is read while one is judged.
const TABLES_AHEAD: usize = 2;

/// What is known beside the log.
pub struct Known {
    pub dataset: DatasetDefinition,
    /// The stores of each table, by id.
    pub tables: BTreeMap<TableName, Vec<StoreDefinition>>,
    /// Evidence without units.
    by_store: BTreeMap<StoreId, StoreEvidence>,
    /// What batches in the inbox would bring.
    waiting: BTreeMap<StoreId, Vec<(Position, UnitFacts)>>,
}

pub async fn gather<S: ObjectStore>(objects: &S, name: &DatasetName) -> Result<Known> {
    let (dataset, stores, settings, quarantined, differing, waiting) = futures::try_join!(
        control::load_dataset(objects, name),
        control::load_stores(objects),
        control::load_settings(objects),
        quarantine::of_dataset(objects, name),
        differing(objects, name),
        waiting(objects, name),
    )?;
    let dataset = dataset.ok_or_else(|| {
        Error::config(format!("dataset: must be declared, got {name}")).with_hint("ribera dataset check FILE")
    })?;
    let mut by_store: BTreeMap<StoreId, StoreEvidence> = BTreeMap::new();
    for entry in quarantined {
        if let Some(batch) = entry.batch {
            by_store.entry(batch.store).or_default().quarantined.push((batch.position, entry.record.units));
        }
    }
    for (store, published) in differing {
        by_store.entry(store).or_default().differing = published.units;
    }
    Ok(Known { tables: by_table(&settings, name, stores)?, dataset, by_store, waiting })
}

/// The tables of the lake as it is now, with their stores, one after the other.
pub fn current<'a, S: ObjectStore>(
    objects: &'a S,
    known: &'a Known,
) -> impl futures::Stream<Item = Result<(&'a [StoreDefinition], Option<Snapshot>)>> + 'a {
    stream::iter(&known.tables)
        .map(async |(table, stores)| {
            let snapshot = Table::new(objects, table.clone()).load_without_statistics().await?;
            Ok((stores.as_slice(), snapshot))
        })
        .buffered(TABLES_AHEAD)
}

impl Known {
    /// Everything known of a store, with its units from the table's log.
    pub fn of_store(&self, store: &StoreId, snapshot: Option<&Snapshot>) -> Result<StoreEvidence> {
        let mut evidence = self.by_store.get(store).cloned().unwrap_or_default();
        let waiting = self.waiting.get(store).map(Vec::as_slice).unwrap_or_default();
        for file in snapshot.into_iter().flat_map(|snapshot| snapshot.store_files(store)) {
            let received_by = Timestamp::from_millisecond(file.modification_time)
                .map_err(|error| Error::data(format!("{}: modificationTime", file.path)).with_source(error))?;
            file.each_proof(|proof| {
                evidence.units.push(UnitEvidence {
                    unit: proof.unit,
                    position: proof.position,
                    rows: proof.rows,
                    proven: proof.is_proven,
                    extracted_at: proof.extracted_at,
                    received_by,
                });
            })?;
            if !waiting.is_empty() {
                evidence.differing.extend(doubts(&file.units()?, waiting));
            }
        }
        Ok(evidence)
    }
}

/// Units of a lake file of which a newer batch with other facts waits: whoever sent it may have had
/// no chance, or no memory, to publish the difference.
fn doubts(in_lake: &[UnitTag], waiting: &[(Position, UnitFacts)]) -> Vec<DifferingUnit> {
    let differs = |tag: &UnitTag, (position, facts): &(Position, UnitFacts)| {
        facts.unit == tag.unit && *position > tag.position && !facts.file.agrees_with(&tag.facts)
    };
    in_lake
        .iter()
        .flat_map(|tag| waiting.iter().filter(move |one| differs(tag, one)))
        .map(|(position, facts)| DifferingUnit { unit: facts.unit, awaits: *position })
        .collect()
}

/// Every store by the table that holds its rows.
fn by_table(
    settings: &Settings,
    dataset: &DatasetName,
    stores: Vec<StoreDefinition>,
) -> Result<BTreeMap<TableName, Vec<StoreDefinition>>> {
    let mut shards: BTreeMap<&StoreId, TableName> = BTreeMap::new();
    for listed in settings.shards.get(dataset).into_iter().flat_map(BTreeMap::values) {
        if let Some(first) = listed.first() {
            let table = settings.table(dataset, first)?;
            shards.extend(listed.iter().map(|store| (store, table.clone())));
        }
    }
    let mut tables: BTreeMap<TableName, Vec<StoreDefinition>> = BTreeMap::new();
    for store in stores {
        let table = shards.get(&store.id).cloned().unwrap_or_else(|| TableName::from(dataset));
        tables.entry(table).or_default().push(store);
    }
    Ok(tables)
}

/// What the batches in the inbox would bring. Those settled meanwhile are in the log, which is read
/// after this; a manifest that cannot be read is ingest's to refuse.
async fn waiting<S: ObjectStore>(
    objects: &S,
    dataset: &DatasetName,
) -> Result<BTreeMap<StoreId, Vec<(Position, UnitFacts)>>> {
    let listed = list_all(objects, "inbox/", None).await?;
    let of_dataset = listed.into_iter().filter_map(|meta| {
        let batch = paths::batch_of("inbox", &meta.path).ok()?;
        (batch.dataset == *dataset).then_some((batch, meta.path))
    });
    let read = stream::iter(of_dataset).map(async |(batch, path)| {
        let manifest = objects.get(&path).await?.and_then(|bytes| Manifest::from_json(&bytes).ok());
        Ok::<_, Error>((batch, manifest.map(|manifest| manifest.units).unwrap_or_default()))
    });
    let read: Vec<_> = read.buffered(CONCURRENCY).try_collect().await?;
    let mut waiting: BTreeMap<StoreId, Vec<(Position, UnitFacts)>> = BTreeMap::new();
    for (batch, units) in read {
        waiting.entry(batch.store).or_default().extend(units.into_iter().map(|facts| (batch.position, facts)));
    }
    Ok(waiting)
}

/// What agents published as differing from what they sent. Most have no such list.
async fn differing<S: ObjectStore>(objects: &S, dataset: &DatasetName) -> Result<Vec<(StoreId, Differing)>> {
    let listed = list_all(objects, "agents/", None).await?;
    let publishing: BTreeSet<StoreId> = listed
        .iter()
        .filter_map(|meta| {
            let store: StoreId = meta.path.as_str().split('/').nth(1)?.parse().ok()?;
            let rest = meta.path.as_str().strip_prefix(&paths::differing(&store, dataset))?;
            rest.starts_with('/').then_some(store)
        })
        .collect();
    let read = stream::iter(publishing).map(async |store| {
        let Some(latest) = numbered::latest(objects, &paths::differing(&store, dataset)).await? else {
            return Ok(None);
        };
        // One agent's broken object must not hide the coverage of all stores.
        let Ok(published) = serde_json::from_slice::<Differing>(&latest.bytes) else {
            tracing::warn!(path = %latest.path, "not a list of differing units; passed over");
            return Ok(None);
        };
        Ok::<_, Error>(Some((store, published)))
    });
    Ok(read.buffered(CONCURRENCY).try_collect::<Vec<_>>().await?.into_iter().flatten().collect())
}
