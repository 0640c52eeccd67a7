//! States of days and their compact calendar.

use jiff::civil::Date;
use ribera_storage::{Error, Result};
use serde::{Deserialize, Serialize};

use super::Period;

/// The state of a business date of a store and dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DayState {
    /// Closed at the source, and the lake equals the source's own audit.
    Complete,
    /// Some rows but not proven, or a batch of the day waits in quarantine.
    Partial,
    /// Expected, due, and no rows.
    Missing,
    /// Not due yet.
    Pending,
    NotExpected,
}

impl DayState {
    pub const ALL: [Self; 5] = [Self::Complete, Self::Partial, Self::Missing, Self::Pending, Self::NotExpected];

    /// One character: `C`, `P`, `M`, `-`, `.`.
    pub fn code(self) -> char {
        match self {
            Self::Complete => 'C',
            Self::Partial => 'P',
            Self::Missing => 'M',
            Self::Pending => '-',
            Self::NotExpected => '.',
        }
    }

    pub fn from_code(code: char) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.code() == code)
    }

    /// To be extracted (again): missing or partial.
    pub fn is_gap(self) -> bool {
        matches!(self, Self::Missing | Self::Partial)
    }

    /// Counts for percentages: complete, partial or missing.
    pub fn is_due(self) -> bool {
        self.is_gap() || self == Self::Complete
    }
}

/// The light of a store: green when every due day is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Light {
    Green,
    Yellow,
    Red,
    /// No due day.
    Grey,
    /// The coverage is too old to say.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StateCounts {
    pub complete: u64,
    pub partial: u64,
    pub missing: u64,
    pub pending: u64,
    pub not_expected: u64,
}

impl StateCounts {
    pub fn add(&mut self, state: DayState, days: u64) {
        *match state {
            DayState::Complete => &mut self.complete,
            DayState::Partial => &mut self.partial,
            DayState::Missing => &mut self.missing,
            DayState::Pending => &mut self.pending,
            DayState::NotExpected => &mut self.not_expected,
        } += days;
    }

    pub fn merge(&mut self, other: &Self) {
        self.complete += other.complete;
        self.partial += other.partial;
        self.missing += other.missing;
        self.pending += other.pending;
        self.not_expected += other.not_expected;
    }

    /// Expected days that are over: complete, partial and missing ones.
    pub fn due(&self) -> u64 {
        self.complete + self.partial + self.missing
    }
}

/// The states of consecutive days, kept as runs. JSON form: `{"from": "2026-01-01", "runs":
/// "31C2M365."}`, each run a count and a [`DayState::code`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "CalendarForm")]
pub struct Calendar {
    from: Date,
    runs: String,
}

impl Calendar {
    /// The calendar of `states` from the day `from` on.
    pub fn new(from: Date, states: impl IntoIterator<Item = DayState>) -> Self {
        let mut calendar = Self { from, runs: String::new() };
        let mut run: Option<(DayState, u64)> = None;
        for state in states {
            match &mut run {
                Some((same, days)) if *same == state => *days += 1,
                _ => {
                    calendar.push(run);
                    run = Some((state, 1));
                }
            }
        }
        calendar.push(run);
        calendar
    }

    /// Every day with its state, in order.
    pub fn days(&self) -> impl Iterator<Item = (Date, DayState)> + '_ {
        let states = parsed(&self.runs).flat_map(|(days, state)| std::iter::repeat_n(state, days));
        let mut next = Some(self.from);
        states.map_while(move |state| {
            let day = next?;
            next = day.tomorrow().ok();
            Some((day, state))
        })
    }

    /// Runs of days of one state, in order, each within one month.
    pub fn month_runs(&self) -> impl Iterator<Item = (Period, DayState)> + '_ {
        let mut runs = parsed(&self.runs).filter(|(days, _)| *days > 0);
        let (mut next, mut rest) = (Some(self.from), None);
        std::iter::from_fn(move || {
            let (days, state) = rest.take().or_else(|| runs.next())?;
            let from: Date = next?;
            let to = from.day().saturating_add(i8::try_from(days - 1).unwrap_or(i8::MAX)).min(from.days_in_month());
            let to = Date::new(from.year(), from.month(), to).ok()?;
            let taken = usize::from(to.day().abs_diff(from.day())) + 1;
            rest = (taken < days).then_some((days - taken, state));
            next = to.tomorrow().ok();
            Some((Period { from, to }, state))
        })
    }

    /// The first day of the calendar.
    pub fn from(&self) -> Date {
        self.from
    }

    /// The last day; `None` when the calendar has none.
    pub fn to(&self) -> Option<Date> {
        let days: usize = parsed(&self.runs).map(|(days, _)| days).sum();
        let after = i64::try_from(days.checked_sub(1)?).ok()?;
        self.from.checked_add(jiff::Span::new().try_days(after).ok()?).ok()
    }

    /// From the first expected day to the last; `None` when none is.
    pub fn expected(&self) -> Option<Period> {
        let (mut at, mut span) = (0_usize, None);
        for (days, state) in parsed(&self.runs).filter(|(days, _)| *days > 0) {
            if state != DayState::NotExpected {
                let first = span.map_or(at, |(first, _)| first);
                span = Some((first, at + days - 1));
            }
            at += days;
        }
        let date = |after: usize| {
            let days = jiff::Span::new().try_days(i64::try_from(after).ok()?).ok()?;
            self.from.checked_add(days).ok()
        };
        let (first, last) = span?;
        Some(Period { from: date(first)?, to: date(last)? })
    }

    /// The state of a day; outside the calendar nothing is expected.
    pub fn state(&self, date: Date) -> DayState {
        self.days().find(|(day, _)| *day == date).map_or(DayState::NotExpected, |(_, state)| state)
    }

    /// The runs' text form.
    pub fn runs(&self) -> &str {
        &self.runs
    }

    fn push(&mut self, run: Option<(DayState, u64)>) {
        if let Some((state, days)) = run {
            self.runs.push_str(&days.to_string());
            self.runs.push(state.code());
        }
    }
}

/// A calendar as it is stored; checked when read.
#[derive(Deserialize)]
struct CalendarForm {
    from: Date,
    runs: String,
}

/// Days of a calendar at most: a thousand years.
const DAYS_MAX: usize = 366_000;

impl TryFrom<CalendarForm> for Calendar {
    type Error = Error;
    fn try_from(form: CalendarForm) -> Result<Self> {
        let shape = form.runs.split_inclusive(|letter: char| !letter.is_ascii_digit());
        let good = shape.clone().all(|run| {
            let (days, code) = run.split_at(run.len() - run.chars().next_back().map_or(0, char::len_utf8));
            days.parse::<usize>().is_ok() && code.chars().next().and_then(DayState::from_code).is_some()
        });
        let days = parsed(&form.runs).try_fold(0_usize, |sum, (days, _)| sum.checked_add(days));
        if !good || days.is_none_or(|days| days > DAYS_MAX) {
            return Err(Error::data(format!(
                "calendar: runs: must be counts and states such as 31C2M, got {:?}",
                form.runs
            )));
        }
        Ok(Self { from: form.from, runs: form.runs })
    }
}

fn parsed(runs: &str) -> impl Iterator<Item = (usize, DayState)> + '_ {
    runs.split_inclusive(|letter: char| !letter.is_ascii_digit()).filter_map(|run| {
        let code = run.chars().next_back()?;
        let days = run[..run.len() - code.len_utf8()].parse().ok()?;
        Some((days, DayState::from_code(code)?))
    })
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn a_calendar_keeps_runs_and_gives_the_days_back() {
        use DayState::{Complete, Missing, NotExpected};
        let states = [Complete, Complete, Missing, NotExpected, NotExpected, Complete];
        let calendar = Calendar::new(date(2026, 2, 27), states);
        assert_eq!(calendar.runs(), "2C1M2.1C");
        assert_eq!(calendar.days().map(|(_, state)| state).collect::<Vec<_>>(), states);
        assert_eq!(calendar.to(), Some(date(2026, 3, 4)));
        let runs: Vec<_> = calendar.month_runs().map(|(run, state)| (run.from.day(), run.to.day(), state)).collect();
        assert_eq!(runs, [(27, 28, Complete), (1, 1, Missing), (2, 3, NotExpected), (4, 4, Complete)]);
        let year = Calendar::new(date(2025, 12, 30), std::iter::repeat_n(Complete, 400));
        assert_eq!(year.month_runs().map(|(run, _)| run.days()).sum::<u64>(), 400);
        assert_eq!(year.month_runs().map(|(run, _)| run.to).last(), year.to());
        assert_eq!(calendar.state(date(2026, 3, 1)), Missing);
        assert_eq!(calendar.expected(), Some(Period { from: date(2026, 2, 27), to: date(2026, 3, 4) }));
        assert_eq!(Calendar::new(date(2026, 2, 27), [NotExpected, Missing, NotExpected]).expected(), {
            let day = date(2026, 2, 28);
            Some(Period { from: day, to: day })
        });
        assert_eq!(Calendar::new(date(2026, 2, 27), [NotExpected]).expected(), None);
        assert_eq!(calendar.state(date(2027, 3, 1)), NotExpected);
        let json = serde_json::to_string(&calendar).unwrap();
        assert_eq!(serde_json::from_str::<Calendar>(&json).unwrap(), calendar);
        assert_eq!(Calendar::new(date(2026, 1, 1), []).to(), None);
    }

    #[test]
    fn a_calendar_that_is_damaged_is_refused() {
        for runs in ["C", "3", "3X", "-3C", "999999999C", "3C2", "3ñ", "18446744073709551615C1C"] {
            let json = format!(r#"{{"from":"2026-01-01","runs":"{runs}"}}"#);
            assert!(serde_json::from_str::<Calendar>(&json).is_err(), "{runs}");
        }
    }
}
