//! Local time to UTC, quickly: transitions are rare, so offsets are remembered by quarter hour.

use std::cell::RefCell;
use std::collections::HashMap;

use jiff::tz::TimeZone;

use crate::calendar::{DAY_MICROS, date_of};

const QUARTER_MICROS: i64 = 900_000_000;

/// A zone that converts wall-clock microseconds to UTC microseconds.
///
/// A local time that occurs twice is taken as its first occurrence; one that does not exist is
/// moved forward by the gap.
#[derive(Debug)]
pub struct Zone {
    zone: TimeZone,
    /// Offset in microseconds of a quarter hour without a transition; `None` when it has one.
    offsets: RefCell<HashMap<i64, Option<i64>>>,
}

impl Zone {
    pub fn new(zone: TimeZone) -> Self {
        Self { zone, offsets: RefCell::new(HashMap::new()) }
    }

    /// UTC microseconds, or `None` outside the years -9999 to 9999.
    pub fn to_utc(&self, local: i64) -> Option<i64> {
        let quarter = local.div_euclid(QUARTER_MICROS);
        if let Some(known) = self.offsets.borrow().get(&quarter) {
            return match known {
                Some(offset) => Some(local - offset),
                None => self.slowly(local),
            };
        }
        let first = quarter * QUARTER_MICROS;
        let steady = match (self.steady_offset(first), self.steady_offset(first + QUARTER_MICROS - 1)) {
            (Some(begin), Some(end)) if begin == end => Some(begin),
            _ => None,
        };
        self.offsets.borrow_mut().insert(quarter, steady);
        match steady {
            Some(offset) => Some(local - offset),
            None => self.slowly(local),
        }
    }

    fn slowly(&self, local: i64) -> Option<i64> {
        let zoned = self.zone.to_zoned(civil(local)?).ok()?;
        Some(zoned.timestamp().as_microsecond())
    }

    /// The offset when the local time exists exactly once.
    fn steady_offset(&self, local: i64) -> Option<i64> {
        match self.zone.to_ambiguous_timestamp(civil(local)?).offset() {
            jiff::tz::AmbiguousOffset::Unambiguous { offset } => Some(i64::from(offset.seconds()) * 1_000_000),
            _ => None,
        }
    }
}

fn civil(local: i64) -> Option<jiff::civil::DateTime> {
    let date = date_of(i32::try_from(local.div_euclid(DAY_MICROS)).ok()?)?;
    let micros = local.rem_euclid(DAY_MICROS);
    let time = jiff::civil::Time::new(
        (micros / 3_600_000_000) as i8,
        (micros / 60_000_000 % 60) as i8,
        (micros / 1_000_000 % 60) as i8,
        (micros % 1_000_000 * 1000) as i32,
    );
    Some(date.to_datetime(time.ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn zone(name: &str) -> Zone {
        Zone::new(TimeZone::get(name).unwrap())
    }

    fn utc(zone: &Zone, local: &str) -> String {
        let civil: jiff::civil::DateTime = local.parse().unwrap();
        let micros = TimeZone::UTC.to_timestamp(civil).unwrap().as_microsecond();
        jiff::Timestamp::from_microsecond(zone.to_utc(micros).unwrap()).unwrap().to_string()
    }

    #[test]
    fn a_repeated_hour_is_its_first_occurrence_and_a_skipped_one_moves_forward() {
        let zone = zone("America/New_York");
        assert_eq!(utc(&zone, "2017-11-05T01:30:00"), "2017-11-05T05:30:00Z");
        assert_eq!(utc(&zone, "2017-03-12T02:30:00"), "2017-03-12T07:30:00Z");
        assert_eq!(utc(&zone, "2017-07-01T12:00:00"), "2017-07-01T16:00:00Z");
    }

    proptest! {
        #[test]
        fn remembered_offsets_give_what_the_calendar_gives(
            name in prop::sample::select(vec!["America/New_York", "Europe/Madrid", "America/Santiago", "Asia/Kathmandu", "Australia/Lord_Howe", "UTC"]),
            locals in prop::collection::vec(-2_000_000_000_000_000_i64..4_000_000_000_000_000, 1..50),
        ) {
            let zone = zone(name);
            for local in locals {
                prop_assert_eq!(zone.to_utc(local), zone.slowly(local));
                // Asked again it comes from memory.
                prop_assert_eq!(zone.to_utc(local), zone.slowly(local));
            }
        }
    }
}
