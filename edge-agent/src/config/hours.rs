//! Hours of the day, in the store's own time.

use jiff::ToSpan;
use jiff::civil::{DateTime, Time};
use serde::Deserialize;

/// From one time of day to another, past midnight where the second is the earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Hours {
    from: Time,
    /// The first moment that is no longer allowed.
    to: Time,
}

impl Hours {
    pub fn contains(self, time: Time) -> bool {
        if self.from < self.to { (self.from..self.to).contains(&time) } else { time >= self.from || time < self.to }
    }

    /// When work may go on: now, or at the next beginning.
    pub fn next(self, now: DateTime) -> DateTime {
        if self.contains(now.time()) {
            return now;
        }
        let today = now.date().to_datetime(self.from);
        if today >= now { today } else { today.checked_add(1.day()).unwrap_or(today) }
    }
}

impl TryFrom<String> for Hours {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl std::str::FromStr for Hours {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let time = |text: &str| {
            let (hour, minute) = text.trim().split_once(':')?;
            Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
        };
        let both = text.split_once('-').and_then(|(from, to)| Some((time(from)?, time(to)?)));
        match both {
            Some((from, to)) if from != to => Ok(Self { from, to }),
            _ => Err(format!("must be HH:MM-HH:MM with two different times, got {text:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn work_waits_for_the_hours_that_are_allowed_also_past_midnight() {
        let at = |hour, minute| date(2026, 3, 1).at(hour, minute, 0, 0);
        let day: Hours = "08:30-18:00".parse().unwrap();
        assert_eq!(day.next(at(8, 29)), at(8, 30));
        assert_eq!(day.next(at(8, 30)), at(8, 30));
        assert_eq!(day.next(at(17, 59)), at(17, 59));
        assert_eq!(day.next(at(18, 0)), date(2026, 3, 2).at(8, 30, 0, 0));
        let night: Hours = "22:00-06:00".parse().unwrap();
        assert_eq!(night.next(at(5, 59)), at(5, 59));
        assert_eq!(night.next(at(6, 0)), at(22, 0));
        assert_eq!(night.next(at(23, 0)), at(23, 0));
    }

    #[test]
    fn what_is_no_span_of_hours_is_refused() {
        for text in ["", "8-18", "22:00", "25:00-01:00", "08:00-08:00"] {
            assert!(text.parse::<Hours>().is_err(), "{text:?}");
        }
    }
}
