//! What may be called complete of the hostile store: only what its own last word supports.

use jiff::civil::Date;
use ribera_core::coverage::{Coverage, DayState};
use ribera_storage::batch::{
    DIFFERING_BYTES_MAX, Differing, MANIFEST_BYTES_MAX, Manifest, QUARANTINE_RECORD_BYTES_MAX, QuarantineRecord,
};
use ribera_storage::ids::Position;
use ribera_storage::object::{ObjectMeta, ObjectStore, list_all};
use ribera_storage::store::StoreDefinition;
use ribera_storage::{Unit, numbered, paths};

use super::checker::Checker;
use super::cloud::ready;
use super::lake::Win;

/// Objects of one folder from which on nothing of the store is believed.
const OBJECTS_MAX: usize = 1_000;

impl Checker {
    /// I9. At the moment in which `coverage` was computed.
    pub fn judge_hostile(&self, coverage: &Coverage) {
        for store in &coverage.stores {
            if !self.lake.is_hostile(&store.store) {
                let reason = store.doubts.first();
                self.check("I9 no store is doubted for what another wrote", reason.is_none(), || {
                    format!("{} {reason:?}", store.store)
                });
                continue;
            }
            let Some(definition) = &self.hostile else { continue };
            let complete: Vec<Date> =
                store.calendar.days().filter(|(_, state)| *state == DayState::Complete).map(|(day, _)| day).collect();
            if complete.is_empty() {
                continue;
            }
            self.cloud.tally.borrow_mut().amount("complete days of the hostile store", complete.len() as u64);
            let why_not = self.not_believed(definition);
            for day in complete {
                let why_not = why_not.clone().or_else(|| self.not_complete(definition, day));
                self.check("I9 a hostile store's day is complete by its own word alone", why_not.is_none(), || {
                    format!("{} {day}: {}", definition.id, why_not.unwrap_or_default())
                });
            }
        }
    }

    /// Why nothing of it may be complete.
    fn not_believed(&self, store: &StoreDefinition) -> Option<String> {
        for folder in ["inbox", "quarantine", "agents"] {
            if self.listed(&format!("{folder}/{}/", store.id)).len() > OBJECTS_MAX {
                return Some(format!("a crowd in {folder}/"));
            }
        }
        let lists = self.listed(&format!("{}/", paths::differing(&store.id, &self.dataset)));
        let newest = lists.iter().rfind(|meta| numbered::number_of(&meta.path).is_some())?;
        self.read::<Differing>(newest, DIFFERING_BYTES_MAX).is_none().then(|| format!("{} cannot be read", newest.path))
    }

    /// Why this day may not be complete.
    fn not_complete(&self, store: &StoreDefinition, day: Date) -> Option<String> {
        let unit = Unit::Day(day);
        let Some(win) = self.lake.winner(&store.id, unit) else { return Some("it is not in the lake".to_owned()) };
        let Some((said, arrived)) = self.lake.accepted(&store.id, unit, win.position) else {
            return Some("no manifest says it".to_owned());
        };
        if !said.is_proven() || !said.file.agrees_with(&win.facts) {
            return Some(format!("its manifest says {said:?}"));
        }
        let zone = store.zone().expect("a zone");
        let closing = day.tomorrow().expect("a date").to_datetime(self.closes_at);
        if arrived < zone.to_timestamp(closing).expect("a time").as_microsecond() {
            return Some("its batch came before it was over".to_owned());
        }
        self.waits(store, unit, &win).or_else(|| self.is_refused(store, unit, &win)).or_else(|| {
            let lists = self.listed(&format!("{}/", paths::differing(&store.id, &self.dataset)));
            let newest = lists.iter().rfind(|meta| numbered::number_of(&meta.path).is_some())?;
            let list: Differing = self.read(newest, DIFFERING_BYTES_MAX)?;
            let named = list.units.iter().any(|one| one.unit == unit && one.awaits > win.position);
            named.then(|| format!("{} names it", newest.path))
        })
    }

    /// A later manifest that says otherwise, or that nobody can read.
    fn waits(&self, store: &StoreDefinition, unit: Unit, win: &Win) -> Option<String> {
        for folder in ["inbox", "state/replay"] {
            for (position, meta) in self.batches(folder, store) {
                let manifest = self.read::<Manifest>(&meta, MANIFEST_BYTES_MAX).filter(|one| one.validate().is_ok());
                let differs = manifest.is_none_or(|manifest| {
                    manifest.units.iter().any(|facts| facts.unit == unit && !facts.file.agrees_with(&win.facts))
                });
                if position > win.position && differs {
                    return Some(format!("{} waits", meta.path));
                }
            }
        }
        None
    }

    /// A batch of the day, or of nobody knows what, was refused and nothing came since.
    fn is_refused(&self, store: &StoreDefinition, unit: Unit, win: &Win) -> Option<String> {
        for (position, meta) in self.batches("quarantine", store) {
            let record = self.read::<QuarantineRecord>(&meta, QUARANTINE_RECORD_BYTES_MAX);
            let units = record.map(|record| record.units).unwrap_or_default();
            let doubted = if units.is_empty() { position > win.position } else { position >= win.position };
            if doubted && (units.is_empty() || units.contains(&unit)) {
                return Some(format!("{} stands", meta.path));
            }
        }
        None
    }

    fn batches(&self, folder: &str, store: &StoreDefinition) -> Vec<(Position, ObjectMeta)> {
        let prefix = format!("{folder}/{}/{}/", store.id, self.dataset);
        let position = |meta: &ObjectMeta| {
            let name = meta.path.file_name().strip_suffix(".json")?;
            // As a path and never deeper.
            let direct = meta.path.as_str().len() == prefix.len() + meta.path.file_name().len();
            direct.then(|| name.split('~').next()?.parse().ok()).flatten()
        };
        self.listed(&prefix).into_iter().filter_map(|meta| position(&meta).map(|position| (position, meta))).collect()
    }

    fn listed(&self, prefix: &str) -> Vec<ObjectMeta> {
        ready(list_all(&self.cloud.objects, prefix, None)).unwrap_or_default()
    }

    fn read<T: serde::de::DeserializeOwned>(&self, meta: &ObjectMeta, bytes_max: usize) -> Option<T> {
        if meta.bytes > bytes_max as u64 {
            return None;
        }
        serde_json::from_slice(&ready(self.cloud.objects.get(&meta.path)).ok()??).ok()
    }
}
