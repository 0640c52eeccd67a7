//! Gathers what is known of a dataset: the log, the quarantine, what sources published.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use ribera_storage::batch::Differing;
use ribera_storage::control;
use ribera_storage::dataset::DatasetDefinition;
use ribera_storage::delta::{Snapshot, Table};
use ribera_storage::object::list_all;
use ribera_storage::store::StoreDefinition;
use ribera_storage::{DatasetName, Error, ObjectStore, Result, StoreId, paths};

use super::judge::{StoreEvidence, UnitEvidence};
use crate::ingest::quarantine;

/// Requests in flight at once.
const CONCURRENCY: usize = 32;

pub struct Evidence {
    pub dataset: DatasetDefinition,
    pub stores: Vec<StoreDefinition>,
    pub by_store: BTreeMap<StoreId, StoreEvidence>,
    /// The highest version of the dataset's tables.
    pub table_version: Option<u64>,
}

/// Everything known of a dataset; `snapshots` instead of the lake as it is now, if given.
pub async fn gather<S: ObjectStore>(
    objects: &S,
    name: &DatasetName,
    snapshots: Option<&[Snapshot]>,
) -> Result<Evidence> {
    let loaded;
    let (dataset, stores, quarantined, differing, current) = futures::try_join!(
        control::load_dataset(objects, name),
        control::load_stores(objects),
        quarantine::of_dataset(objects, name),
        differing(objects, name),
        async {
            match snapshots {
                Some(_) => Ok(Vec::new()),
                None => load_tables(objects, name).await,
            }
        }
    )?;
    let snapshots = match snapshots {
        Some(snapshots) => snapshots,
        None => {
            loaded = current;
            &loaded
        }
    };
    let dataset = dataset.ok_or_else(|| {
        Error::config(format!("dataset: must be declared, got {name}")).with_hint("ribera dataset check FILE")
    })?;
    let mut by_store: BTreeMap<StoreId, StoreEvidence> = BTreeMap::new();
    for snapshot in snapshots {
        take_snapshot(snapshot, &mut by_store)?;
    }
    for entry in quarantined {
        if let Some(batch) = entry.batch {
            by_store.entry(batch.store).or_default().quarantined.push((batch.position, entry.record.units));
        }
    }
    for (store, published) in differing {
        by_store.entry(store).or_default().differing = published.units;
    }
    let table_version = snapshots.iter().map(Snapshot::version).max();
    Ok(Evidence { dataset, stores, by_store, table_version })
}

/// The tables of a dataset that exist.
async fn load_tables<S: ObjectStore>(objects: &S, name: &DatasetName) -> Result<Vec<Snapshot>> {
    let tables = control::load_settings(objects).await?.tables(name)?;
    let load = |table| async move { Table::new(objects, table).load().await };
    let loaded: Vec<Option<Snapshot>> = stream::iter(tables).map(load).buffered(CONCURRENCY).try_collect().await?;
    Ok(loaded.into_iter().flatten().collect())
}

fn take_snapshot(snapshot: &Snapshot, by_store: &mut BTreeMap<StoreId, StoreEvidence>) -> Result<()> {
    for file in snapshot.files() {
        let store = file.store()?;
        let received_by = jiff::Timestamp::from_millisecond(file.modification_time).map_err(|error| {
            Error::data(format!("table {}: {}: modificationTime", snapshot.table(), file.path)).with_source(error)
        })?;
        let units = file.units()?.into_iter().map(|tag| UnitEvidence {
            unit: tag.unit,
            position: tag.position,
            rows: tag.facts.rows,
            proven: tag.is_proven(),
            extracted_at: tag.extracted_at,
            received_by,
        });
        by_store.entry(store).or_default().units.extend(units);
    }
    Ok(())
}

/// What agents published as differing from what they sent. Most have no such object.
async fn differing<S: ObjectStore>(objects: &S, dataset: &DatasetName) -> Result<Vec<(StoreId, Differing)>> {
    let listed = list_all(objects, "agents/", None).await?;
    let published = listed.into_iter().filter_map(|meta| {
        let store: StoreId = meta.path.as_str().split('/').nth(1)?.parse().ok()?;
        (paths::differing(&store, dataset).ok()? == meta.path).then_some((store, meta.path))
    });
    let read = stream::iter(published).map(async |(store, path)| {
        let Some(bytes) = objects.get(&path).await? else { return Ok(None) };
        // One agent's broken object must not hide the coverage of all stores.
        let Ok(published) = serde_json::from_slice::<Differing>(&bytes) else {
            tracing::warn!(%path, "not a list of differing units; passed over");
            return Ok(None);
        };
        Ok::<_, Error>(Some((store, published)))
    });
    Ok(read.buffered(CONCURRENCY).try_collect::<Vec<_>>().await?.into_iter().flatten().collect())
}
