//! Poison messages: manifests that may kill the call that handles them: a file that runs an instance out of memory
//! or time, or breaks its decoder, cannot be quarantined by that very instance.
//!
//! A sweep leaves a marker while it handles a group. A marker that is found again belongs to a
//! sweep that died (or still runs): its manifests are then handled last, in smaller and smaller
//! groups as long as calls die, each with a marker of its own, because most calls die of something
//! else, and a large inbox must not be handled one by one. A manifest that was processed alone and
//! left three markers (three crashes) is quarantined.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use ribera_storage::object::{ObjectMeta, ObjectPath, list_all};
use ribera_storage::ports::Ports;
use ribera_storage::{ObjectStore, Result};
use serde::{Deserialize, Serialize};

use ribera_storage::object::put_json;

const MARKERS: &str = "state/attempts/";

/// Crashes alone before a manifest is quarantined. One more than a power cut and its repetition.
pub const CRASHES_MAX: usize = 3;

/// Manifests of a group: one commit per table, and what is handled again after a death.
pub const GROUP_MAX: usize = 64;

const UNMARK_TRIES: usize = 3;

/// A marker younger than this may belong to a call that still runs.
const CALL_MAX: SignedDuration = SignedDuration::from_mins(10);

#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    manifests: Vec<String>,
}

/// What the markers of calls before this one say.
#[derive(Debug, Default)]
pub struct PoisonTracker {
    /// By inbox path: markers it had alone that are old enough to be dead.
    crash_count: BTreeMap<String, usize>,
    /// By inbox path: manifests of the smallest marker it was in that is old enough to be dead.
    smallest: BTreeMap<String, usize>,
    markers: Vec<(ObjectMeta, Vec<String>)>,
}

impl PoisonTracker {
    pub async fn load<S: ObjectStore>(objects: &S, now: Timestamp) -> Result<Self> {
        let mut suspects = Self::default();
        for meta in list_all(objects, MARKERS, None).await? {
            let Some(bytes) = objects.get(&meta.path).await? else { continue };
            let manifests = serde_json::from_slice(&bytes).map(|marker: Marker| marker.manifests).unwrap_or_default();
            let dead = now.duration_since(meta.modified) > CALL_MAX;
            for path in &manifests {
                *suspects.crash_count.entry(path.clone()).or_default() += usize::from(dead && manifests.len() == 1);
                if dead {
                    let smallest = suspects.smallest.entry(path.clone()).or_insert(manifests.len());
                    *smallest = manifests.len().min(*smallest);
                }
            }
            suspects.markers.push((meta, manifests));
        }
        Ok(suspects)
    }

    pub fn contains(&self, path: &ObjectPath) -> bool {
        self.crash_count.contains_key(path.as_str())
    }

    pub fn crash_count(&self, path: &ObjectPath) -> usize {
        self.crash_count.get(path.as_str()).copied().unwrap_or(0)
    }

    /// How many may be handled together with it: an eighth of those with which it last died.
    pub fn group_size_for(&self, path: &ObjectPath) -> usize {
        self.smallest.get(path.as_str()).map_or(GROUP_MAX, |smallest| (smallest / 8).max(1))
    }

    /// Once every suspect was handled: markers of several, and those of manifests that are settled.
    pub async fn clear<S: ObjectStore>(&self, objects: &S, settled: impl Fn(&str) -> bool) -> Result<()> {
        for (meta, manifests) in &self.markers {
            if manifests.len() != 1 || manifests.iter().all(|path| settled(path)) {
                objects.delete(&meta.path).await?;
            }
        }
        Ok(())
    }
}

/// Says that `manifests` are being handled; delete it with [`unmark`].
pub async fn mark<S: ObjectStore>(ports: Ports<'_, S>, manifests: &[ObjectPath]) -> Result<ObjectPath> {
    let path = ObjectPath::new(format!("{MARKERS}{}.json", ports.random.fresh_name()))?;
    let marker = Marker { manifests: manifests.iter().map(ToString::to_string).collect() };
    put_json(ports.objects, &path, &marker).await?;
    Ok(path)
}

/// Tries more than once: a marker that stays behind counts as a death.
pub async fn unmark<S: ObjectStore>(objects: &S, marker: &ObjectPath) {
    for _ in 0..UNMARK_TRIES {
        match objects.delete(marker).await {
            Ok(()) => return,
            Err(error) => tracing::warn!(%marker, %error, "marker not deleted"),
        }
    }
}
