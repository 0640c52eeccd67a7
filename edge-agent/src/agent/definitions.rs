//! What the centre has defined, as last seen: stores and datasets.

use std::rc::Rc;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use ribera_storage::dataset::{DatasetDefinition, shipped};
use ribera_storage::store::StoreDefinition;
use ribera_storage::{DatasetName, Error, ObjectStore, Result, control};

use super::{Agent, ServedStore};
use crate::calendar::Zone;
use crate::config::{DatasetMapping, StoreConfig};

/// A dataset of a store with everything that reading it takes.
pub struct DatasetContext<'a> {
    pub store: &'a ServedStore,
    pub name: &'a DatasetName,
    pub mapping: &'a DatasetMapping,
    pub definition: DatasetDefinition,
    pub calendar: Rc<StoreCalendar>,
}

/// Where a store is in time, and what its definition asks of the agent.
pub struct StoreCalendar {
    pub time_zone: TimeZone,
    pub zone: Rc<Zone>,
    pub opened: Option<Date>,
    pub closed: Option<Date>,
    pub hold_repair: bool,
}

impl<S: ObjectStore> Agent<S> {
    /// A store's definition: from the object store, else as last seen there, else as configured.
    pub async fn calendar(&self, store: &StoreConfig) -> Result<StoreCalendar> {
        let definition = match control::load_store(&self.ports.objects, &store.id).await {
            Ok(found) => {
                if let Some(definition) = &found {
                    self.remember("store", store.id.as_str(), &definition.to_toml()?)?;
                }
                found
            }
            Err(error) => {
                self.log(format!("store {}: definition not read, the last known is used: {error}", store.id));
                return self.last_seen_calendar(store);
            }
        };
        calendar_of(store, definition)
    }

    /// A store's definition as last seen in the object store, else as configured.
    pub(crate) fn last_seen_calendar(&self, store: &StoreConfig) -> Result<StoreCalendar> {
        let cached = self.journal.cached_definition("store", store.id.as_str())?;
        calendar_of(store, cached.map(|text| StoreDefinition::from_toml(&text)).transpose()?)
    }

    /// A dataset's definition: from the object store, else as last seen there, else as shipped.
    pub async fn definition(&self, name: &DatasetName) -> Result<DatasetDefinition> {
        let found = match control::load_dataset(&self.ports.objects, name).await {
            Ok(found) => {
                if let Some(definition) = &found {
                    self.remember("dataset", name.as_str(), &definition.to_toml()?)?;
                }
                found
            }
            Err(error) => {
                self.log(format!("dataset {name}: definition not read, the last known is used: {error}"));
                self.last_seen_definition(name)?
            }
        };
        found.ok_or_else(|| {
            Error::config(format!("dataset {name}: must be shipped or published to control/datasets/, got neither"))
                .with_hint("ribera dataset check FILE")
        })
    }

    /// A dataset's definition as last seen in the object store, else as shipped.
    pub(crate) fn last_seen_definition(&self, name: &DatasetName) -> Result<Option<DatasetDefinition>> {
        let Some(text) = self.journal.cached_definition("dataset", name.as_str())? else {
            return shipped(name.as_str()).transpose();
        };
        // Asked for every few seconds, to see what is due.
        if let Some((known, definition)) = self.parsed.borrow().get(name)
            && *known == text
        {
            return Ok(Some(definition.clone()));
        }
        let definition = DatasetDefinition::from_toml(&text)?;
        self.parsed.borrow_mut().insert(name.clone(), (text, definition.clone()));
        Ok(Some(definition))
    }
}

fn calendar_of(store: &StoreConfig, definition: Option<StoreDefinition>) -> Result<StoreCalendar> {
    let (time_zone, opened, closed, hold_repair) = match definition {
        Some(definition) => (definition.zone()?, definition.opened, definition.closed, definition.hold_repair),
        None => {
            let name = store.time_zone.as_deref().ok_or_else(|| {
                Error::config(format!(
                    "store {}: time_zone: must be configured, because the object store has no definition of the store",
                    store.id
                ))
                .with_hint(format!("ribera store add {}", store.id))
            })?;
            let zone = TimeZone::get(name).map_err(|error| {
                Error::config(format!("store {}: time_zone: must be an IANA time zone, got {name:?}", store.id))
                    .with_source(error)
            })?;
            (zone, store.opened, store.closed, false)
        }
    };
    Ok(StoreCalendar { zone: Rc::new(Zone::new(time_zone.clone())), time_zone, opened, closed, hold_repair })
}
