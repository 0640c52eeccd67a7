//! What is declared: store and dataset definitions and the settings, published to `control/` as
//! numbered objects.
//!
//! A store has its own objects, because its agent may read only its own. Whoever needs all stores
//! would need one GET for each, so a packed copy of all definitions lies beside them: the
//! listing says which numbers are newest, the packed copy answers for those it has, and only the
//! rest are fetched. A packed copy that is old or gone costs time, never truth.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use crate::dataset::evolution;
use crate::dataset::{DatasetDefinition, SHIPPED, shipped};
use crate::error::{Error, Result};
use crate::ids::{DatasetName, StoreId};
use crate::numbered::{self, Published};
use crate::object::{ObjectPath, ObjectStore, list_all};
use crate::paths;
use crate::store::StoreDefinition;

mod settings;

pub use settings::{Settings, load_settings, publish_settings};

const STORES: &str = "control/stores";
const DATASETS: &str = "control/datasets";
const STORES_PACKED: &str = "control/stores.packed";

/// Requests in flight at once.
const CONCURRENCY: usize = 32;

/// Store definitions outside the packed copy before a publication packs again: below it, fetching
/// them is two rounds of requests; above it, writing the copy is cheaper than every later reading.
const LOOSE_MAX: usize = 64;

/// Publishes one store definition; writes nothing when it stands already.
///
/// # Errors
///
/// `Config` when it is not valid; `Retry` when the object store does not answer.
pub async fn publish_store<S: ObjectStore>(objects: &S, store: &StoreDefinition) -> Result<Published> {
    let published = publish_stores(objects, std::slice::from_ref(store)).await?;
    published.into_iter().next().ok_or_else(|| Error::bug("publishing one store gave no answer"))
}

/// Publishes many store definitions at once, in a few rounds of requests. All are validated
/// before the first is written; the answers are in the order of `stores`.
///
/// # Errors
///
/// `Config` when one is not valid, and none is published; `Retry` when the object store does not answer: some
/// may be published.
pub async fn publish_stores<S: ObjectStore>(objects: &S, stores: &[StoreDefinition]) -> Result<Vec<Published>> {
    for store in stores {
        store.validate()?;
    }
    let mut registry = Registry::load(objects).await?;
    let known = &registry;
    let published: Vec<Published> =
        stream::iter(stores).map(|store| put_store(objects, known, store)).buffered(CONCURRENCY).try_collect().await?;
    for (store, published) in stores.iter().zip(&published) {
        let entry = PackedStore { number: published.number, definition: store.clone() };
        if published.changed {
            registry.loose += 1;
        }
        registry.stores.insert(store.id.clone(), entry);
    }
    if registry.loose > LOOSE_MAX {
        registry.pack(objects).await?;
    }
    Ok(published)
}

/// The latest definition of a store, or `None` when it was never published.
///
/// # Errors
///
/// `Retry` when the object store does not answer; `Config` when the latest definition cannot be read.
pub async fn load_store<S: ObjectStore>(objects: &S, store: &StoreId) -> Result<Option<StoreDefinition>> {
    match numbered::latest(objects, &paths::store_definitions(store)).await? {
        Some(latest) => parse_store(&latest.path, &latest.bytes).map(Some),
        None => Ok(None),
    }
}

/// The latest definition of every store, by id. For 10,000 stores: ten listing pages and one GET.
///
/// # Errors
///
/// `Retry` when the object store does not answer; `Config` when a latest definition cannot be read.
pub async fn load_stores<S: ObjectStore>(objects: &S) -> Result<Vec<StoreDefinition>> {
    let registry = Registry::load(objects).await?;
    Ok(registry.stores.into_values().map(|entry| entry.definition).collect())
}

/// Publishes a dataset definition; writes nothing when it stands already. A change that the
/// tables cannot take (see [`evolution`]) is refused with the column and its types; a new dataset
/// whose name another table has in SQL is refused with the name.
///
/// # Errors
///
/// `Config` when it is not valid, cannot follow the one that stands, or has a table's name in SQL; `Retry` when
/// the object store does not answer.
pub async fn publish_dataset<S: ObjectStore>(objects: &S, dataset: &DatasetDefinition) -> Result<Published> {
    dataset.validate()?;
    let latest = load_published(objects, &dataset.name).await?;
    if latest.is_none() {
        dataset.check_new_name()?;
    }
    if let Some(latest) = latest {
        if latest == *dataset {
            let number = numbered::latest(objects, &paths::dataset_definitions(&dataset.name)).await?;
            return Ok(Published { number: number.map_or(0, |latest| latest.number), changed: false });
        }
        evolution::between(&latest, dataset)?;
    }
    let text = dataset.to_toml()?;
    numbered::publish(objects, &paths::dataset_definitions(&dataset.name), "toml", text.into()).await
}

/// The latest published definition of a dataset, else the shipped one, else `None`.
///
/// # Errors
///
/// `Retry` when the object store does not answer; `Config` when the latest definition cannot be read.
pub async fn load_dataset<S: ObjectStore>(objects: &S, name: &DatasetName) -> Result<Option<DatasetDefinition>> {
    match load_published(objects, name).await? {
        Some(dataset) => Ok(Some(dataset)),
        None => shipped(name.as_str()).transpose(),
    }
}

/// The latest definition of every published dataset, by name.
///
/// # Errors
///
/// `Retry` when the object store does not answer; `Config` when a latest definition cannot be read.
pub async fn load_published_datasets<S: ObjectStore>(objects: &S) -> Result<Vec<DatasetDefinition>> {
    let latest = latest_by_name(objects, DATASETS).await?;
    stream::iter(latest.into_values().map(|(_, path)| path))
        .map(async |path| {
            let bytes = objects.get(&path).await?.ok_or_else(|| vanished(&path))?;
            parse_dataset(&path, &bytes)
        })
        .buffered(CONCURRENCY)
        .try_collect()
        .await
}

/// Every published dataset, and the shipped ones that were not published, by name.
///
/// # Errors
///
/// `Retry` when the object store does not answer; `Config` when a latest definition cannot be read.
pub async fn load_datasets<S: ObjectStore>(objects: &S) -> Result<Vec<DatasetDefinition>> {
    let mut datasets = load_published_datasets(objects).await?;
    for (name, text) in SHIPPED {
        if !datasets.iter().any(|dataset| dataset.name.as_str() == name) {
            datasets.push(DatasetDefinition::from_toml(text)?);
        }
    }
    datasets.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(datasets)
}

/// All stores as they stand, and how many of them the packed copy lacks.
struct Registry {
    stores: BTreeMap<StoreId, PackedStore>,
    loose: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct PackedStore {
    number: u64,
    definition: StoreDefinition,
}

impl Registry {
    async fn load<S: ObjectStore>(objects: &S) -> Result<Self> {
        let (listed, mut packed) = futures::try_join!(latest_by_name(objects, STORES), Self::load_packed(objects))?;
        let (mut stores, mut loose) = (BTreeMap::new(), Vec::new());
        for (name, (number, path)) in listed {
            let Ok(id) = name.parse::<StoreId>() else { continue };
            match packed.remove(&id) {
                Some(entry) if entry.number == number => drop(stores.insert(id, entry)),
                _ => loose.push((id, number, path)),
            }
        }
        let loose_count = loose.len();
        let fetched: Vec<_> = stream::iter(loose)
            .map(async |(id, number, path)| {
                let bytes = objects.get(&path).await?.ok_or_else(|| vanished(&path))?;
                let definition = parse_store(&path, &bytes)?;
                Ok::<_, Error>((id, PackedStore { number, definition }))
            })
            .buffered(CONCURRENCY)
            .try_collect()
            .await?;
        stores.extend(fetched);
        Ok(Self { stores, loose: loose_count })
    }

    async fn load_packed<S: ObjectStore>(objects: &S) -> Result<BTreeMap<StoreId, PackedStore>> {
        let Some(latest) = numbered::latest(objects, STORES_PACKED).await? else { return Ok(BTreeMap::new()) };
        // A copy that another version of this program cannot read is made again, not an error.
        Ok(serde_json::from_slice(&latest.bytes).unwrap_or_default())
    }

    async fn pack<S: ObjectStore>(&self, objects: &S) -> Result<()> {
        let bytes = serde_json::to_vec(&self.stores)
            .map_err(|error| Error::bug("the packed stores do not serialise").with_source(error))?;
        numbered::publish(objects, STORES_PACKED, "json", bytes.into()).await?;
        numbered::prune(objects, STORES_PACKED, 3).await
    }
}

async fn put_store<S: ObjectStore>(objects: &S, known: &Registry, store: &StoreDefinition) -> Result<Published> {
    let standing = known.stores.get(&store.id);
    if let Some(entry) = standing
        && entry.definition == *store
    {
        return Ok(Published { number: entry.number, changed: false });
    }
    let prefix = paths::store_definitions(&store.id);
    let text: Bytes = store.to_toml()?.into();
    let number = standing.map_or(1, |entry| entry.number + 1);
    if numbered::put_number(objects, &prefix, number, "toml", &text).await? {
        return Ok(Published { number, changed: true });
    }
    numbered::publish(objects, &prefix, "toml", text).await
}

/// For every name directly below `folder`, its highest number and that object's path.
async fn latest_by_name<S: ObjectStore>(objects: &S, folder: &str) -> Result<BTreeMap<String, (u64, ObjectPath)>> {
    let prefix = format!("{folder}/");
    let mut latest = BTreeMap::new();
    for meta in list_all(objects, &prefix, None).await? {
        let name = meta.path.as_str()[prefix.len()..].split_once('/').map(|(name, _)| name.to_owned());
        if let (Some(name), Some(number)) = (name, numbered::number_of(&meta.path)) {
            latest.insert(name, (number, meta.path));
        }
    }
    Ok(latest)
}

async fn load_published<S: ObjectStore>(objects: &S, name: &DatasetName) -> Result<Option<DatasetDefinition>> {
    match numbered::latest(objects, &paths::dataset_definitions(name)).await? {
        Some(latest) => parse_dataset(&latest.path, &latest.bytes).map(Some),
        None => Ok(None),
    }
}

fn parse_store(path: &ObjectPath, bytes: &Bytes) -> Result<StoreDefinition> {
    StoreDefinition::from_toml(text(path, bytes)?).map_err(|error| error.context(path))
}

fn parse_dataset(path: &ObjectPath, bytes: &Bytes) -> Result<DatasetDefinition> {
    DatasetDefinition::from_toml(text(path, bytes)?).map_err(|error| error.context(path))
}

fn text<'a>(path: &ObjectPath, bytes: &'a Bytes) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|error| Error::config(format!("{path}: is not UTF-8")).with_source(error))
}

fn vanished(path: &ObjectPath) -> Error {
    Error::retry(format!("{path}: vanished between listing and reading"))
}

#[cfg(test)]
mod tests;
