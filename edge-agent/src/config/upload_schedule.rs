//! How fast data files may leave at a time of day.

use jiff::ToSpan;
use jiff::civil::{DateTime, Time};

use super::{Limits, UploadSpan};

/// What holds at a time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    Free,
    BytesPerS(u64),
    /// Nothing begins; what is under way is finished.
    Closed,
}

/// One limit, or one for each part of the day.
pub struct UploadSchedule {
    general: Option<u64>,
    spans: Vec<UploadSpan>,
}

impl Limits {
    pub fn upload_schedule(&self) -> UploadSchedule {
        UploadSchedule { general: self.upload_bytes_per_s, spans: self.upload_schedule.clone() }
    }
}

impl UploadSchedule {
    /// The first part of the schedule that has this time; outside of all the general limit.
    pub fn rate(&self, time: Time) -> Rate {
        let span = self.spans.iter().find(|span| span.hours.contains(time));
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
}

#[cfg(test)]
mod tests {
    use jiff::civil::{date, time};

    use super::*;

    fn schedule(general: Option<u64>, schedule: &[(&str, Option<u64>)]) -> UploadSchedule {
        let span = |(hours, bytes_per_s): &(&str, Option<u64>)| UploadSpan {
            hours: hours.parse().unwrap(),
            bytes_per_s: *bytes_per_s,
        };
        let limits = Limits {
            upload_bytes_per_s: general,
            upload_schedule: schedule.iter().map(span).collect(),
            ..Limits::default()
        };
        limits.upload_schedule()
    }

    #[test]
    fn each_part_of_the_day_has_its_limit_and_the_rest_the_general_one() {
        let hours =
            schedule(Some(9000), &[("08:00-14:00", Some(50_000)), ("14:00-15:00", Some(0)), ("22:00-06:00", None)]);
        let at = |hour| hours.rate(time(hour, 0, 0, 0));
        assert_eq!((at(8), at(13)), (Rate::BytesPerS(50_000), Rate::BytesPerS(50_000)));
        assert_eq!((at(14), at(15), at(23)), (Rate::Closed, Rate::BytesPerS(9000), Rate::BytesPerS(9000)));
        let lunch = date(2026, 3, 1).at(14, 20, 30, 5);
        assert_eq!(hours.opens_at(lunch), Some(date(2026, 3, 1).at(15, 0, 0, 0)));
        assert_eq!(hours.opens_at(date(2026, 3, 1).at(15, 0, 0, 0)), None);
        assert_eq!(schedule(None, &[]).rate(time(1, 0, 0, 0)), Rate::Free);
    }
}
