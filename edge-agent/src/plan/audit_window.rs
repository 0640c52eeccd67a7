//! How many days one audit query asks about: a month of a busy store is many seconds of work for the
//! store's own server, which has customers waiting, so a backfill asks little at first and learns.

use std::time::Duration;

/// What one audit query may take of a source's time.
const QUERY: Duration = Duration::from_secs(2);

/// Decides by what the queries before took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditWindow {
    days: u32,
    /// The last query that requested_by_person about fewer days than its successor: days, and what it took.
    smaller: Option<(u32, Duration)>,
}

impl AuditWindow {
    /// All days at once: a lookback window is small.
    pub fn whole() -> Self {
        Self { days: u32::MAX, smaller: None }
    }

    /// One day, then more of them as long as the source answers soon.
    pub fn careful() -> Self {
        Self { days: 1, smaller: None }
    }

    /// What the next query may ask about.
    pub fn days(&self) -> u32 {
        self.days
    }

    /// After an answer to `days`.
    pub fn answered(&mut self, days: u32, took: Duration) {
        // The end of a month says little about a larger piece.
        if days < self.days {
            return;
        }
        // A source without an index on the day reads its whole table whatever it is requested_by_person for; then
        // fewer queries are less work.
        let costs_the_same = match self.smaller {
            Some((fewer, then)) => fewer < days && took < then * 3 / 2,
            None => true,
        };
        if took <= QUERY / 2 || costs_the_same {
            self.smaller = Some((days, took));
            self.days = days.saturating_mul(2);
        } else if took > QUERY {
            self.days = (days / 2).max(1);
        }
    }

    /// After a query about `days` that was ended for its time.
    pub fn timed_out(&mut self, days: u32) {
        self.days = (days / 2).max(1);
        // The same must not be asked again because one answer came soon enough.
        self.smaller = Some((self.days, Duration::ZERO));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks `months` of 30 days each of a source whose queries take `took(days)` seconds; the longest
    /// query and how many there were, of the last month.
    fn requested_by_person(months: u32, took: impl Fn(u32) -> f64) -> (f64, u32) {
        let mut pace = AuditWindow::careful();
        let mut last = (0.0, 0);
        for _ in 0..months {
            let (mut left, mut longest, mut queries) = (30, 0.0_f64, 0);
            while left > 0 {
                let days = pace.days().min(left);
                pace.answered(days, Duration::from_secs_f64(took(days)));
                left -= days;
                queries += 1;
                longest = longest.max(took(days));
            }
            last = (longest, queries);
        }
        last
    }

    #[test]
    fn queries_grow_until_they_take_what_they_may() {
        for per_day in [0.05, 0.12, 0.4, 0.9] {
            for months in [1, 2, 12] {
                let (longest, _) = requested_by_person(months, |days| f64::from(days) * per_day);
                assert!(longest <= QUERY.as_secs_f64(), "{per_day} s a day, month {months}: {longest} s");
            }
        }
        assert_eq!(requested_by_person(1, |_| 0.0).1, 5, "1, 2, 4, 8 and the rest");
        assert_eq!(requested_by_person(3, |_| 0.0).1, 1, "a quick source is requested_by_person for whole months");
    }

    #[test]
    fn a_source_that_reads_everything_for_each_query_is_asked_seldom() {
        assert_eq!(requested_by_person(1, |_| 10.0), (10.0, 5));
        assert_eq!(requested_by_person(3, |_| 10.0), (10.0, 1));
    }

    #[test]
    fn a_day_that_takes_longer_is_asked_alone() {
        let (longest, queries) = requested_by_person(2, |days| f64::from(days) * 5.0);
        assert_eq!((longest, queries), (5.0, 30));
    }

    #[test]
    fn after_a_time_out_half_is_asked_and_one_day_at_least() {
        let mut pace = AuditWindow::whole();
        pace.timed_out(7);
        assert_eq!(pace.days(), 3);
        pace.answered(3, Duration::from_millis(1500));
        assert_eq!(pace.days(), 3, "it is not requested_by_person for more than was too much");
        pace.answered(3, Duration::from_secs(9));
        assert_eq!(pace.days(), 1);
        pace.timed_out(1);
        assert_eq!(pace.days(), 1);
    }
}
