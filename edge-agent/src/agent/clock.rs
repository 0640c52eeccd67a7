//! The clock of this computer and those of the sources, each against the object store's. A till whose battery is dead, or
//! whose zone is wrong, writes its sales on other days: people are told when a source's clock is off.

use std::collections::BTreeMap;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use ribera_storage::store::StoreDefinition;
use ribera_storage::{ObjectStore, StoreId};

use super::Agent;

/// Seconds that a source's clock may be off before people are told.
const TOLD_FROM_S: i64 = 300;

/// This clock against the object store's.
#[derive(Debug, Clone, Copy)]
pub struct ClockOffset {
    /// This clock less the object store's.
    pub seconds: i64,
    /// By this clock.
    pub(crate) measured_at: Timestamp,
}

/// What each store's source showed last: its clock less the object store's, in seconds.
pub(crate) type SourceClocks = BTreeMap<StoreId, i64>;

/// Whether a source's clock is so far off that people are told.
pub fn is_off(seconds: i64) -> bool {
    seconds.unsigned_abs() >= TOLD_FROM_S.unsigned_abs()
}

/// Seconds in the largest unit of which there is one, such as `3 d`.
pub fn rounded(seconds: i64) -> String {
    let seconds = seconds.unsigned_abs();
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

impl<S: ObjectStore> Agent<S> {
    /// The time of day in the store, by the object store's clock where that is known.
    pub(crate) fn local_now(&self, store: &StoreId) -> DateTime {
        let now = self.object_store_now().unwrap_or_else(|| self.ports.clock.now());
        self.zone_of(store).to_datetime(now)
    }

    /// As last seen in the object store, else as configured; nobody is asked.
    fn zone_of(&self, store: &StoreId) -> TimeZone {
        let seen = self.journal.cached_definition("store", store.as_str()).ok().flatten();
        let seen = seen.and_then(|text| StoreDefinition::from_toml(&text).ok()?.zone().ok());
        let configured = || TimeZone::get(self.config.store(store)?.time_zone.as_deref()?).ok();
        seen.or_else(configured).unwrap_or(TimeZone::UTC)
    }

    /// The object store's time, once this clock was measured against it.
    pub(crate) fn object_store_now(&self) -> Option<Timestamp> {
        let offset = SignedDuration::from_secs(self.clock_offset.get()?.seconds);
        self.ports.clock.now().checked_sub(offset).ok()
    }

    /// Remembers what a source's clock shows, and logs it once when it begins to be off. Until this clock was measured
    /// against the object store's it is compared with this one.
    pub(crate) fn note_source_clock(&self, store: &StoreId, source_now: Timestamp) -> i64 {
        let now = self.object_store_now().unwrap_or_else(|| self.ports.clock.now());
        let seconds = source_now.duration_since(now).as_secs();
        let before = self.source_clocks.borrow_mut().insert(store.clone(), seconds);
        if is_off(seconds) && !before.is_some_and(is_off) {
            let direction = if seconds < 0 { "behind" } else { "ahead" };
            self.log(format!("store {store}: the source's clock is {} {direction}", rounded(seconds)));
        }
        seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_told_from_five_minutes_in_the_largest_unit() {
        assert!(!is_off(299) && !is_off(-299) && is_off(300) && is_off(-300) && is_off(i64::MIN));
        let shown = [(-90, "90 s"), (300, "5 min"), (-7_200, "2 h"), (400 * 86_400 + 5, "400 d")];
        for (seconds, expected) in shown {
            assert_eq!(rounded(seconds), expected);
        }
    }
}
