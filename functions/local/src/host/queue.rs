//! Manifests that wait for an ingest call, and how they are grouped into calls.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Mutex;

use ribera_storage::object::ObjectPath;
use tokio::sync::Notify;

/// What one ingest call takes at most. More: fewer commits; less: a slow batch holds up fewer others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupLimits {
    pub manifests_max: usize,
    pub file_bytes_max: u64,
    /// Of one store, so that the backlog of one does not fill a call.
    pub per_store_max: usize,
}

impl Default for GroupLimits {
    fn default() -> Self {
        Self { manifests_max: 128, file_bytes_max: 32 << 20, per_store_max: 16 }
    }
}

/// Manifests by store, in order of their paths; each store gets its turn.
#[derive(Debug, Default)]
struct Pending {
    by_store: BTreeMap<String, BTreeSet<ObjectPath>>,
    /// In a call now.
    running: HashSet<ObjectPath>,
    /// The store that had its turn last.
    last_store: String,
    count: usize,
}

impl Pending {
    /// False when it waits or runs already.
    fn offer(&mut self, path: ObjectPath) -> bool {
        if self.running.contains(&path) {
            return false;
        }
        let fresh = self.by_store.entry(store_of(&path).to_owned()).or_default().insert(path);
        self.count += usize::from(fresh);
        fresh
    }

    /// The next call's manifests; `file_bytes` tells the size of a manifest's file.
    fn take(&mut self, limits: &GroupLimits, file_bytes: impl Fn(&ObjectPath) -> u64) -> Vec<ObjectPath> {
        let mut group = Vec::new();
        let mut bytes = 0_u64;
        for store in self.turns() {
            let Some(waiting) = self.by_store.get_mut(&store) else { continue };
            for _ in 0..limits.per_store_max {
                let Some(path) = waiting.first() else { break };
                let size = file_bytes(path);
                let fits = group.len() < limits.manifests_max && bytes.saturating_add(size) <= limits.file_bytes_max;
                if !fits && !group.is_empty() {
                    break;
                }
                bytes = bytes.saturating_add(size);
                group.extend(waiting.pop_first());
            }
            if waiting.is_empty() {
                self.by_store.remove(&store);
            }
            self.last_store = store;
            if group.len() >= limits.manifests_max || bytes >= limits.file_bytes_max {
                break;
            }
        }
        self.count -= group.len();
        self.running.extend(group.iter().cloned());
        group
    }

    /// Stores in turn, beginning after the last.
    fn turns(&self) -> Vec<String> {
        let (before, after): (Vec<&String>, Vec<&String>) =
            self.by_store.keys().partition(|store| **store <= self.last_store);
        after.into_iter().chain(before).cloned().collect()
    }
}

/// Shared by whoever finds manifests and whoever ingests them.
#[derive(Debug, Default)]
pub struct Queue {
    pending: Mutex<Pending>,
    offered: Notify,
    settled: Notify,
}

impl Queue {
    /// How many of `paths` were not known yet.
    pub fn offer(&self, paths: impl IntoIterator<Item = ObjectPath>) -> usize {
        let mut pending = self.lock();
        let fresh = paths.into_iter().filter(|path| pending.offer(path.clone())).count();
        drop(pending);
        if fresh > 0 {
            self.offered.notify_one();
        }
        fresh
    }

    /// Waits until something is pending.
    pub async fn wait(&self) {
        while self.lock().count == 0 {
            self.offered.notified().await;
        }
    }

    pub fn take(&self, limits: &GroupLimits, file_bytes: impl Fn(&ObjectPath) -> u64) -> Vec<ObjectPath> {
        let mut pending = self.lock();
        let group = pending.take(limits, file_bytes);
        if pending.count > 0 {
            // The next worker need not wait for another manifest.
            self.offered.notify_one();
        }
        group
    }

    /// The call with these manifests is over.
    pub fn finish(&self, group: &[ObjectPath]) {
        let mut pending = self.lock();
        for path in group {
            pending.running.remove(path);
        }
        drop(pending);
        self.settled.notify_waiters();
    }

    pub fn pending(&self) -> usize {
        self.lock().count
    }

    pub fn is_idle(&self) -> bool {
        let pending = self.lock();
        pending.count == 0 && pending.running.is_empty()
    }

    /// Waits until nothing is pending and nothing runs.
    pub async fn idle(&self) {
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            if self.is_idle() {
                return;
            }
            settled.await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Pending> {
        // Nothing panics while it is held; even so, its content would still be whole.
        self.pending.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// `inbox/STORE/...`
fn store_of(path: &ObjectPath) -> &str {
    path.as_str().split('/').nth(1).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(store: &str, sequence: u64) -> ObjectPath {
        ObjectPath::new(format!("inbox/{store}/ventas/000000-{sequence:010}.json")).unwrap()
    }

    fn limits(manifests_max: usize, file_bytes_max: u64, per_store_max: usize) -> GroupLimits {
        GroupLimits { manifests_max, file_bytes_max, per_store_max }
    }

    #[test]
    fn a_manifest_offered_twice_is_taken_once_even_while_it_runs() {
        let queue = Queue::default();
        assert_eq!(queue.offer([path("a", 1), path("a", 1)]), 1);
        let group = queue.take(&limits(10, 100, 10), |_| 1);
        assert_eq!(group, [path("a", 1)]);
        assert_eq!(queue.offer([path("a", 1)]), 0);
        queue.finish(&group);
        assert!(queue.is_idle());
        assert_eq!(queue.offer([path("a", 1)]), 1);
    }

    #[test]
    fn a_store_with_a_backlog_does_not_keep_the_others_waiting() {
        let queue = Queue::default();
        queue.offer((0..100).map(|sequence| path("big", sequence)));
        queue.offer([path("small", 1), path("tiny", 1)]);
        let group = queue.take(&limits(10, 100, 4), |_| 1);
        assert_eq!(group.iter().filter(|one| one.as_str().contains("/big/")).count(), 4);
        assert!(group.contains(&path("small", 1)) && group.contains(&path("tiny", 1)));
    }

    #[test]
    fn a_store_cut_off_by_the_limits_has_its_turn_in_the_next_call() {
        let queue = Queue::default();
        queue.offer((0..4).flat_map(|sequence| [path("a", sequence), path("b", sequence), path("c", sequence)]));
        let first = queue.take(&limits(4, 100, 2), |_| 1);
        let second = queue.take(&limits(4, 100, 2), |_| 1);
        assert_eq!(first, [path("a", 0), path("a", 1), path("b", 0), path("b", 1)]);
        assert_eq!(second[..2], [path("c", 0), path("c", 1)]);
    }

    #[test]
    fn a_file_larger_than_a_call_may_take_goes_alone() {
        let queue = Queue::default();
        queue.offer([path("a", 1), path("b", 1)]);
        assert_eq!(queue.take(&limits(10, 100, 10), |_| 500), [path("a", 1)]);
        assert_eq!(queue.take(&limits(10, 100, 10), |_| 500), [path("b", 1)]);
        assert_eq!(queue.pending(), 0);
    }

    #[test]
    fn everything_offered_is_taken_exactly_once_whatever_the_limits() {
        for (manifests_max, bytes_max, per_store_max) in [(1, 1, 1), (3, 7, 2), (100, 1_000, 5)] {
            let queue = Queue::default();
            let all: BTreeSet<_> =
                (0..7).flat_map(|store| (0..9).map(move |sequence| path(&format!("s{store}"), sequence))).collect();
            queue.offer(all.iter().cloned());
            let mut taken = Vec::new();
            while queue.pending() > 0 {
                let group = queue.take(&limits(manifests_max, bytes_max, per_store_max), |_| 3);
                assert!(!group.is_empty());
                queue.finish(&group);
                taken.extend(group);
            }
            assert_eq!(taken.len(), all.len());
            assert_eq!(taken.into_iter().collect::<BTreeSet<_>>(), all);
        }
    }
}
