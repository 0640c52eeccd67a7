//! The definitions a call needs, read once. A definition that cannot be read fails only the
//! manifests that need it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use ribera_storage::control;
use ribera_storage::dataset::evolution;
use ribera_storage::dataset::{DatasetDefinition, shipped};
use ribera_storage::numbered;
use ribera_storage::object::list_all;
use ribera_storage::store::StoreDefinition;
use ribera_storage::{BatchId, DatasetName, Error, ObjectStore, Result, StoreId, paths};

/// More stores than this are read by one call for all of them.
const STORES_SINGLY_MAX: usize = 8;

#[derive(Debug)]
pub struct Definitions {
    stores: BTreeMap<StoreId, Found<StoreDefinition>>,
    datasets: BTreeMap<DatasetName, Found<DatasetDefinition>>,
    /// Older versions that manifests of this call name.
    older: BTreeMap<(DatasetName, u32), Found<DatasetDefinition>>,
}

/// Present, absent, or unreadable with the reason.
type Found<T> = std::result::Result<Option<T>, String>;

impl Definitions {
    /// Those that `batches` name.
    pub async fn load<S: ObjectStore>(objects: &S, batches: &[BatchId]) -> Result<Self> {
        let stores: BTreeSet<&StoreId> = batches.iter().map(|batch| &batch.store).collect();
        let datasets: BTreeSet<&DatasetName> = batches.iter().map(|batch| &batch.dataset).collect();
        let dataset = async |name: &DatasetName| (name.clone(), found(control::load_dataset(objects, name).await));
        let (stores, datasets) =
            futures::join!(load_stores(objects, stores), join_all(datasets.into_iter().map(dataset)));
        Ok(Self { stores: stores?, datasets: datasets.into_iter().collect(), older: BTreeMap::new() })
    }

    /// Adds an older version of a dataset, once some manifest named it. The latest is at hand.
    pub async fn load_older<S: ObjectStore>(&mut self, objects: &S, dataset: &DatasetName, version: u32) {
        if matches!(self.datasets.get(dataset), Some(Ok(Some(latest))) if latest.version == version) {
            return;
        }
        if let Entry::Vacant(vacant) = self.older.entry((dataset.clone(), version)) {
            vacant.insert(found(load_version(objects, dataset, version).await));
        }
    }

    /// The store's definition, or `None` for a store that is not declared.
    pub fn store(&self, store: &StoreId) -> Result<Option<&StoreDefinition>> {
        taken(self.stores.get(store))
    }

    /// The latest definition, or `None` for a dataset that is not known.
    pub fn dataset(&self, name: &DatasetName) -> Result<Option<&DatasetDefinition>> {
        taken(self.datasets.get(name))
    }

    /// The definition of `version`, or `None` when there never was one or [`Self::load_older`] was
    /// not asked for it.
    pub fn dataset_version(&self, name: &DatasetName, version: u32) -> Result<Option<&DatasetDefinition>> {
        match self.dataset(name)? {
            Some(latest) if latest.version == version => Ok(Some(latest)),
            _ => taken(self.older.get(&(name.clone(), version))),
        }
    }
}

async fn load_stores<S: ObjectStore>(
    objects: &S,
    wanted: BTreeSet<&StoreId>,
) -> Result<BTreeMap<StoreId, Found<StoreDefinition>>> {
    if wanted.len() > STORES_SINGLY_MAX {
        // One unreadable definition must not hold up the rest: then they are read one by one.
        if let Ok(all) = control::load_stores(objects).await {
            return Ok(all.into_iter().map(|store| (store.id.clone(), Ok(Some(store)))).collect());
        }
    }
    let one = async |id: &StoreId| match control::load_store(objects, id).await {
        Err(error) if error.is_retry() => Err(error),
        store => Ok((id.clone(), found(store))),
    };
    join_all(wanted.into_iter().map(one)).await.into_iter().collect()
}

/// The text published for `version`, newest first, or the shipped one.
async fn load_version<S: ObjectStore>(
    objects: &S,
    name: &DatasetName,
    version: u32,
) -> Result<Option<DatasetDefinition>> {
    let listed = list_all(objects, &format!("{}/", paths::dataset_definitions(name)), None).await?;
    for meta in listed.iter().rev().filter(|meta| numbered::number_of(&meta.path).is_some()) {
        let Some(bytes) = objects.get(&meta.path).await? else { continue };
        let Ok(definition) = DatasetDefinition::from_toml(&String::from_utf8_lossy(&bytes)) else { continue };
        if definition.version == version {
            return Ok(Some(definition));
        }
    }
    Ok(shipped(name.as_str()).transpose()?.filter(|definition| definition.version == version))
}

/// Whether rows of `old` can be written as rows of `new`.
pub fn can_become(old: &DatasetDefinition, new: &DatasetDefinition) -> bool {
    evolution::between(old, new).is_ok()
}

fn found<T>(result: Result<Option<T>>) -> Found<T> {
    result.map_err(|error| error.to_string())
}

fn taken<T>(found: Option<&Found<T>>) -> Result<Option<&T>> {
    match found {
        Some(Ok(definition)) => Ok(definition.as_ref()),
        Some(Err(message)) => Err(Error::config(message.clone())),
        None => Ok(None),
    }
}
