//! How fast data files may leave: one limit, or one for each part of the day. Manifests, heartbeats and
//! answers are small and never wait.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use jiff::civil::DateTime;
use ribera_storage::object::s3::Throttle;

use crate::config::{Limits, Rate, UploadSchedule};

/// Pieces so small that four of them make a second, within bounds.
const PIECE_MIN: u64 = 256;
const PIECE_MAX: u64 = 64 << 10;

pub struct Uplink {
    schedule: UploadSchedule,
    meter: Mutex<Meter>,
}

/// The use of the line by the file that is being sent.
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
        Self { schedule: limits.upload_schedule(), meter: Mutex::new(meter) }
    }

    /// What the settings allow, and when.
    pub fn schedule(&self) -> &UploadSchedule {
        &self.schedule
    }

    /// A file begins at this local time.
    pub fn begin(&self, now: DateTime) {
        let mut meter = self.meter();
        meter.told = Some((now, Instant::now()));
        meter.last = self.schedule.rate(now.time());
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
        match local.map_or(Rate::Free, |local| self.schedule.rate(local.time())) {
            Rate::Closed => {}
            open => meter.last = open,
        }
        match meter.last {
            Rate::BytesPerS(rate) => Some(rate),
            Rate::Free | Rate::Closed => None,
        }
    }
}

impl Throttle for Uplink {
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

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    fn uplink(general: Option<u64>, schedule: &[(&str, Option<u64>)]) -> Uplink {
        let span = |(hours, bytes_per_s): &(&str, Option<u64>)| crate::config::UploadSpan {
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
