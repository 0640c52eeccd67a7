//! How fast data files may leave: one limit, or one for each part of the day. Manifests, heartbeats and
//! answers are small and never wait.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, ToSpan};
use ribera_storage::object::s3::Pace;
use ribera_storage::store::StoreDefinition;
use ribera_storage::{ObjectStore, StoreId};

use crate::agent::Agent;
use crate::config::{Limits, UploadSpan};

/// Pieces so small that four of them make a second, within bounds.
const PIECE_MIN: u64 = 256;
const PIECE_MAX: u64 = 64 << 10;

/// What holds at a time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    Free,
    BytesPerS(u64),
    /// Nothing begins; what is under way is finished.
    Closed,
}

pub struct Uplink {
    general: Option<u64>,
    schedule: Vec<UploadSpan>,
    meter: Mutex<Meter>,
}

/// Of the file under way.
struct Meter {
    /// The time of day at an instant.
    told: Option<(DateTime, Instant)>,
    /// Up to here the line is used by what was handed over.
    used_until: Instant,
    last: Rate,
}

impl Uplink {
    pub fn new(limits: &Limits) -> Self {
        let meter = Meter { told: None, used_until: Instant::now(), last: Rate::Free };
        Self { general: limits.upload_bytes_per_s, schedule: limits.upload_schedule.clone(), meter: Mutex::new(meter) }
    }

    /// The first part of the schedule that has this time; outside of all the general limit.
    pub fn rate(&self, time: Time) -> Rate {
        let span = self.schedule.iter().find(|span| span.hours.contains(time));
        match span.and_then(|span| span.bytes_per_s).or(self.general) {
            Some(0) => Rate::Closed,
            Some(rate) => Rate::BytesPerS(rate),
            None => Rate::Free,
        }
    }

    /// When uploads may begin again, to the minute; `None` for now or never.
    pub fn opens_at(&self, now: DateTime) -> Option<DateTime> {
        let minute = now.with().second(0).subsec_nanosecond(0).build().ok()?;
        let next_day = (1..=24 * 60).filter_map(|count: i64| minute.checked_add(count.minutes()).ok());
        let is_open = |at: &DateTime| self.rate(at.time()) != Rate::Closed;
        if is_open(&now) { None } else { next_day.into_iter().find(is_open) }
    }

    /// A file begins at this local time.
    pub fn begin(&self, now: DateTime) {
        let mut meter = self.meter();
        meter.told = Some((now, Instant::now()));
        meter.last = self.rate(now.time());
    }

    fn meter(&self) -> MutexGuard<'_, Meter> {
        // Every change is whole, whoever panicked.
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// At this instant; hours that end while a file is under way do not stop it.
    fn rate_now(&self, meter: &mut Meter) -> Option<u64> {
        let local = meter.told.and_then(|(told, at)| {
            let passed = SignedDuration::try_from(at.elapsed()).ok()?;
            told.checked_add(passed).ok()
        });
        match local.map_or(Rate::Free, |local| self.rate(local.time())) {
            Rate::Closed => {}
            open => meter.last = open,
        }
        match meter.last {
            Rate::BytesPerS(rate) => Some(rate),
            Rate::Free | Rate::Closed => None,
        }
    }
}

impl Pace for Uplink {
    fn piece(&self) -> usize {
        let rate = self.rate_now(&mut self.meter());
        rate.map_or(PIECE_MAX, |rate| (rate / 4).clamp(PIECE_MIN, PIECE_MAX)) as usize
    }

    fn wait(&self, bytes: usize) -> Duration {
        let mut meter = self.meter();
        let Some(rate) = self.rate_now(&mut meter) else { return Duration::ZERO };
        let now = Instant::now();
        // What was not used in the past is not saved up.
        let begins = meter.used_until.max(now);
        meter.used_until = begins + Duration::from_secs_f64(bytes as f64 / rate as f64);
        begins.duration_since(now)
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
}

#[cfg(test)]
mod tests {
    use jiff::civil::{date, time};

    use super::*;

    fn uplink(general: Option<u64>, schedule: &[(&str, Option<u64>)]) -> Uplink {
        let span = |(hours, bytes_per_s): &(&str, Option<u64>)| UploadSpan {
            hours: hours.parse().unwrap(),
            bytes_per_s: *bytes_per_s,
        };
        let limits = Limits {
            upload_bytes_per_s: general,
            upload_schedule: schedule.iter().map(span).collect(),
            ..Limits::default()
        };
        Uplink::new(&limits)
    }

    #[test]
    fn each_part_of_the_day_has_its_limit_and_the_rest_the_general_one() {
        let uplink =
            uplink(Some(9000), &[("08:00-14:00", Some(50_000)), ("14:00-15:00", Some(0)), ("22:00-06:00", None)]);
        let at = |hour| uplink.rate(time(hour, 0, 0, 0));
        assert_eq!((at(8), at(13)), (Rate::BytesPerS(50_000), Rate::BytesPerS(50_000)));
        assert_eq!((at(14), at(15), at(23)), (Rate::Closed, Rate::BytesPerS(9000), Rate::BytesPerS(9000)));
        let lunch = date(2026, 3, 1).at(14, 20, 30, 5);
        assert_eq!(uplink.opens_at(lunch), Some(date(2026, 3, 1).at(15, 0, 0, 0)));
        assert_eq!(uplink.opens_at(date(2026, 3, 1).at(15, 0, 0, 0)), None);
        assert_eq!(super::tests::uplink(None, &[]).rate(time(1, 0, 0, 0)), Rate::Free);
    }

    #[test]
    fn pieces_are_handed_over_at_the_rate_and_what_is_under_way_is_finished() {
        let uplink = uplink(None, &[("08:00-22:00", Some(10_000)), ("22:00-08:00", Some(0))]);
        uplink.begin(date(2026, 3, 1).at(21, 59, 59, 990_000_000));
        assert_eq!(uplink.piece(), 2500);
        let waits: Duration = (0..5).map(|_| uplink.wait(2500)).fold(Duration::ZERO, |_, wait| wait);
        // Four pieces before the fifth.
        assert!((Duration::from_millis(900)..=Duration::from_secs(1)).contains(&waits), "{waits:?}");
        std::thread::park_timeout(Duration::from_millis(20));
        assert_eq!(uplink.piece(), 2500, "closed by now");
    }
}
