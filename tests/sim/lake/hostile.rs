//! What the model knows of the hostile store, and what it must not do to the others.

use ribera_storage::batch::{QUARANTINE_RECORD_BYTES_MAX, QuarantineRecord, UnitFacts};
use ribera_storage::ids::Position;
use ribera_storage::object::{ObjectPath, ObjectStore, list_all};
use ribera_storage::{StoreId, Unit, paths, text};

use bytes::Bytes;

use super::LakeModel;
use crate::sim::cloud::ready;
use crate::sim::kernel::Micros;

impl LakeModel {
    pub fn is_hostile(&self, store: &StoreId) -> bool {
        self.hostile.as_ref() == Some(store)
    }

    /// Whether the object lies below a prefix that the hostile store may write.
    pub fn is_of_hostile(&self, path: &str) -> bool {
        let Some(store) = &self.hostile else { return false };
        let mut parts = path.split('/');
        match parts.next() {
            Some("inbox" | "agents" | "quarantine" | "acks") => parts.next() == Some(store.as_str()),
            Some("landing") => parts.nth(1).and_then(|part| part.strip_prefix("store_id=")) == Some(store.as_str()),
            _ => false,
        }
    }

    /// The hostile store deletes an object of its own.
    pub fn delete_by_own_hand(&self, path: &ObjectPath) {
        self.by_own_hand.set(true);
        self.cloud.delete_at_once(path);
        self.by_own_hand.set(false);
    }

    /// What the store said of a unit in the batch that has it now, and when that was put.
    pub fn accepted(&self, store: &StoreId, unit: Unit, position: Position) -> Option<(UnitFacts, Micros)> {
        let state = self.state.borrow();
        let all = state.accepted.get(&(store.clone(), position))?;
        let mut said = all.iter().rev().filter_map(|sent| {
            let facts = sent.manifest.units.iter().find(|facts| facts.unit == unit)?;
            Some((facts.clone(), sent.at))
        });
        said.next()
    }

    /// Manifests of honest stores in the inbox.
    pub fn honest_manifests_waiting(&self) -> Vec<ObjectPath> {
        let listed = ready(list_all(&self.cloud.objects, "inbox/", None)).unwrap_or_default();
        listed.into_iter().map(|meta| meta.path).filter(|path| !self.is_of_hostile(path.as_str())).collect()
    }

    /// I9. None of `lay_there` is left after a sweep that nothing disturbed.
    pub fn check_swept(&self, lay_there: &[ObjectPath]) {
        let left = self.honest_manifests_waiting();
        let left = lay_there.iter().find(|path| left.contains(path));
        self.check("I9 a sweep takes every honest batch that it finds", left.is_none(), || format!("{left:?}"));
    }

    /// How long the slowest answer to an honest store took, and how many of their batches were refused.
    pub fn answers(&self) -> (Micros, u64) {
        let state = self.state.borrow();
        (state.longest_wait, state.honest_refused)
    }

    /// I9. A record of a refusal is typed and printable, whatever was refused.
    pub(super) fn saw_refusal(&self, path: &str, bytes: &Bytes) {
        let record = serde_json::from_slice::<QuarantineRecord>(bytes).ok();
        let fits = record.as_ref().is_some_and(|record| {
            bytes.len() <= QUARANTINE_RECORD_BYTES_MAX && !record.detail.chars().any(text::is_control)
        });
        self.check("I9 a refusal has a reason that can be shown", fits, || format!("{path}: {record:?}"));
    }

    /// I8. What the hostile store put and a host took away is on record, unless it was settled before.
    pub(super) fn hostile_gone(&self, path: &ObjectPath) {
        if self.by_own_hand.get() {
            return;
        }
        let objects = &self.cloud.objects;
        let some = |prefix: String| ready(objects.list(&prefix, None, 1)).is_ok_and(|found| !found.is_empty());
        let recorded = match paths::batch_of("inbox", path) {
            Ok(batch) => ["quarantine", "acks", "state/replay"].iter().any(|folder| some(format!("{folder}/{batch}"))),
            Err(_) => some("quarantine/_unreadable/".to_owned()),
        };
        self.check("I8 a refusal is on record", recorded, || path.to_string());
    }
}
