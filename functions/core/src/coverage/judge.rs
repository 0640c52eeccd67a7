//! The rules: what the evidence says of each day of a store. Pure.

use std::collections::BTreeMap;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use ribera_storage::batch::DifferingUnit;
use ribera_storage::dataset::{DatasetDefinition, DatasetKind};
use ribera_storage::ids::Position;
use ribera_storage::store::StoreDefinition;
use ribera_storage::{Month, Result, Unit};

use super::{Calendar, DayState, StoreCoverage};

/// What the lake's log says of one unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnitEvidence {
    pub unit: Unit,
    /// Of the batch that won it.
    pub position: Position,
    pub rows: u64,
    /// Closed at the source, by the agent's clock, and the audit equals the lake's rows and sums.
    pub proven: bool,
    /// By the agent's clock; shown to people.
    pub extracted_at: Timestamp,
    /// The batch had arrived by then, by our own clock.
    pub received_by: Timestamp,
}

/// Everything known of one store and dataset.
#[derive(Debug, Clone, Default)]
pub struct StoreEvidence {
    pub units: Vec<UnitEvidence>,
    /// Batches in quarantine with the units they would have covered.
    pub quarantined: Vec<(Position, Vec<Unit>)>,
    /// Units that the source says differ from what was sent, with the position that repairs it.
    pub differing: Vec<DifferingUnit>,
    /// Days of which nothing can be believed, and why.
    pub doubts: Vec<Doubt>,
    /// The agent asked the source then and found what it had sent.
    pub checked_at: Option<Timestamp>,
}

/// Evidence that cannot be read, or that another program has spoilt: no day of the span is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt {
    pub span: Span,
    pub reason: String,
}

/// Days of a doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    All,
    Month(Month),
    Year(i16),
}

impl Span {
    fn contains(self, date: Date) -> bool {
        match self {
            Self::All => true,
            Self::Month(month) => Month::of(date) == month,
            Self::Year(year) => date.year() == year,
        }
    }
}

/// Days of a calendar at most: some 27 years. Evidence outside is not looked at.
const DAYS_MAX: i32 = 10_000;

/// Coverage of one store.
///
/// A day is over when the store's clock passes `closes_at` of the next day, and due one `schedule`
/// later: by then the agent has looked again. It is complete only if it is over by our own clock
/// too, and was so when its batch arrived: an agent whose clock is ahead closes days too early.
///
/// A whole table, and the newest moment of a snapshot, are complete for two schedules: within one
/// the agent looks again, and the second is for it to be late. After that the proof is old, and
/// nobody knows what the source holds now.
pub fn judge(
    store: &StoreDefinition,
    dataset: &DatasetDefinition,
    evidence: &StoreEvidence,
    now: Timestamp,
) -> Result<StoreCoverage> {
    let clock = StoreClock { zone: store.zone()?, dataset };
    let days = Days::gather(store, &clock, evidence, now);
    let schedule = clock.schedule()?;
    let due_through = clock.due_through(now)?;
    let over_through = clock.over_through(now);
    let mut proven_at = None;
    let mut months = MonthRows::default();
    let fresh_since = now.checked_sub(schedule.saturating_add(schedule)).unwrap_or(Timestamp::MIN);
    let today = clock.date_of(now);
    let states = days.iter().map(|(date, day)| {
        months.add(date, day.rows);
        let fresh = day.fresh_at.is_some_and(|at| at >= fresh_since);
        let (over, due) = match dataset.kind {
            // A whole table is due as soon as the store is expected.
            DatasetKind::Dimension => (fresh, true),
            // A day that goes on is as good as its newest moment.
            DatasetKind::Snapshot if date == today => (fresh, !fresh && day.fresh_at.is_some()),
            _ => (date <= over_through, date <= due_through),
        };
        let state = state(store.expects(date), over, due, day);
        if state == DayState::Complete {
            proven_at = proven_at.max(day.proven_at);
        }
        state
    });
    let calendar = Calendar::new(days.from, states);
    Ok(StoreCoverage {
        store: store.id.clone(),
        name: store.name.clone(),
        active: store.active,
        hold_repair: store.hold_repair,
        calendar,
        rows_by_month: months.finish(),
        proven_at,
        doubts: evidence.doubts.iter().map(|doubt| doubt.reason.clone()).take(DOUBTS_SHOWN_MAX).collect(),
    })
}

/// Reasons of doubt that are kept for people to read.
const DOUBTS_SHOWN_MAX: usize = 10;

/// The one rule, in order of precedence.
fn state(expected: bool, over: bool, due: bool, day: &Day) -> DayState {
    let differs = day.awaits.is_some_and(|awaits| day.position.is_none_or(|winner| winner < awaits));
    let doubted = day.quarantined || day.doubted || differs;
    if !expected {
        DayState::NotExpected
    } else if over && day.proven_at.is_some() && !day.unproven && !doubted {
        DayState::Complete
    } else if !due {
        DayState::Pending
    } else if day.rows > 0 || day.quarantined || (day.doubted && day.proven_at.is_some()) {
        DayState::Partial
    } else {
        DayState::Missing
    }
}

/// Whether a business date of a store is over at `at`, by the dataset's rule.
///
/// # Errors
///
/// `Config` when the store's time zone is unknown.
pub fn is_over(store: &StoreDefinition, dataset: &DatasetDefinition, date: Date, at: Timestamp) -> Result<bool> {
    Ok(date <= StoreClock { zone: store.zone()?, dataset }.over_through(at))
}

/// The store's date, the last one that is over, and the last one that is due: all that the judgement of a dataset
/// by day takes from the clock.
///
/// # Errors
///
/// `Config` when the store's time zone or the dataset's schedule is unknown.
pub fn dates(store: &StoreDefinition, dataset: &DatasetDefinition, now: Timestamp) -> Result<[Date; 3]> {
    let clock = StoreClock { zone: store.zone()?, dataset };
    Ok([clock.date_of(now), clock.over_through(now), clock.due_through(now)?])
}

/// What the evidence says of one business date.
#[derive(Debug, Clone, Default)]
struct Day {
    rows: u64,
    /// When the newest proof was taken.
    proven_at: Option<Timestamp>,
    /// Evidence that is no proof, where every piece must be one.
    unproven: bool,
    /// The newest position of the day's units.
    position: Option<Position>,
    quarantined: bool,
    /// What is known of the day cannot be believed.
    doubted: bool,
    /// When the newest proof arrived, or the agent last found the source unchanged.
    fresh_at: Option<Timestamp>,
    /// The source has published a difference: only this position or a later one brings it.
    awaits: Option<Position>,
}

/// Sums rows by month over days in order.
#[derive(Default)]
struct MonthRows {
    done: BTreeMap<Month, u64>,
    /// The month of the last day that had rows.
    open: Option<(Month, u64)>,
}

impl MonthRows {
    fn add(&mut self, date: Date, rows: u64) {
        if rows == 0 {
            return;
        }
        let month = Month::of(date);
        match &mut self.open {
            Some((same, sum)) if *same == month => *sum += rows,
            open => self.done.extend(open.replace((month, rows))),
        }
    }

    fn finish(mut self) -> BTreeMap<Month, u64> {
        self.done.extend(self.open);
        self.done
    }
}

/// The days of a calendar, by their number after `from`.
struct Days {
    from: Date,
    days: Vec<Day>,
}

impl Days {
    fn gather(store: &StoreDefinition, clock: &StoreClock<'_>, evidence: &StoreEvidence, now: Timestamp) -> Self {
        let today = clock.date_of(now);
        let dated: Vec<(Date, &UnitEvidence)> =
            evidence.units.iter().map(|unit| (clock.date_of_unit(unit.unit, today), unit)).collect();
        let (from, to) = span(store, clock.dataset, today, dated.iter().map(|(date, _)| *date));
        let length = if to < from { 0 } else { number(to) - number(from) + 1 };
        let mut days = Self { from, days: vec![Day::default(); usize::try_from(length.min(DAYS_MAX)).unwrap_or(0)] };
        let mut received = None;
        for (date, unit) in dated {
            // Units of one file arrived together: their answer is computed once.
            let over_through = match received {
                Some((at, over_through)) if at == unit.received_by => over_through,
                _ => clock.over_through(unit.received_by),
            };
            received = Some((unit.received_by, over_through));
            let in_time = clock.dataset.kind != DatasetKind::Daily || date <= over_through;
            if let Some(day) = days.get(date) {
                day.take(unit, unit.proven && in_time, clock.dataset.kind);
            }
        }
        for (position, units) in &evidence.quarantined {
            for unit in units {
                if let Some(day) = days.get(clock.date_of_unit(*unit, today)) {
                    day.quarantined |= day.position.is_none_or(|winner| winner <= *position);
                }
            }
        }
        for day in days.days.iter_mut().filter(|day| day.fresh_at.is_some()) {
            day.fresh_at = day.fresh_at.max(evidence.checked_at);
        }
        if !evidence.doubts.is_empty() {
            let mut date = days.from;
            for day in &mut days.days {
                day.doubted = evidence.doubts.iter().any(|doubt| doubt.span.contains(date));
                date = date.tomorrow().unwrap_or(date);
            }
        }
        for differing in &evidence.differing {
            if let Some(day) = days.get(clock.date_of_unit(differing.unit, today)) {
                day.awaits = day.awaits.max(Some(differing.awaits));
            }
        }
        days
    }

    fn get(&mut self, date: Date) -> Option<&mut Day> {
        let index = usize::try_from(number(date) - number(self.from)).ok()?;
        self.days.get_mut(index)
    }

    fn iter(&self) -> impl Iterator<Item = (Date, &Day)> {
        let mut next = self.from;
        self.days.iter().map(move |day| {
            let date = next;
            next = date.tomorrow().unwrap_or(date);
            (date, day)
        })
    }
}

impl Day {
    fn take(&mut self, unit: &UnitEvidence, proven: bool, kind: DatasetKind) {
        // A day has one unit; a second one for it contradicts the log's own rule, and nothing is
        // complete. A snapshot day has many moments, of which one that is proven suffices.
        let second = self.position.is_some() && kind != DatasetKind::Snapshot;
        self.rows += unit.rows;
        self.position = self.position.max(Some(unit.position));
        if proven {
            self.proven_at = self.proven_at.max(Some(unit.extracted_at));
            self.fresh_at = self.fresh_at.max(Some(unit.received_by));
        }
        self.unproven |= second || (!proven && kind != DatasetKind::Snapshot);
    }
}

/// The first and last day of a store's calendar: from its opening, or else its first data, to its
/// closing or today.
fn span(
    store: &StoreDefinition,
    dataset: &DatasetDefinition,
    today: Date,
    data: impl Iterator<Item = Date>,
) -> (Date, Date) {
    let (first, last) = data.fold((None, None), |(first, last): (Option<Date>, Option<Date>), date| {
        (Some(first.map_or(date, |first| first.min(date))), Some(last.map_or(date, |last| last.max(date))))
    });
    if dataset.kind == DatasetKind::Dimension {
        return (today, today);
    }
    // A store that was never heard of shows up as missing over the days its agent looks back on.
    let looked_back = today.saturating_sub(i64::from(dataset.lookback_days.max(1)).days());
    let from = match (store.opened, first) {
        (Some(opened), Some(first)) => opened.min(first),
        (Some(opened), None) => opened,
        (None, Some(first)) => first,
        (None, None) => looked_back,
    };
    let end = store.closed.map_or(today, |closed| closed.min(today));
    let to = last.map_or(end, |last| last.min(today).max(end));
    (from.max(to.saturating_sub(i64::from(DAYS_MAX - 1).days())), to)
}

/// Dates as the store sees them.
struct StoreClock<'a> {
    zone: TimeZone,
    dataset: &'a DatasetDefinition,
}

impl StoreClock<'_> {
    fn date_of(&self, at: Timestamp) -> Date {
        self.zone.to_datetime(at).date()
    }

    fn schedule(&self) -> Result<SignedDuration> {
        Ok(SignedDuration::from_secs(i64::try_from(self.dataset.schedule_seconds()?).unwrap_or(i64::MAX / 2)))
    }

    /// The last business date that is due at `at`.
    fn due_through(&self, at: Timestamp) -> Result<Date> {
        Ok(self.over_through(at.checked_sub(self.schedule()?).unwrap_or(at)))
    }

    fn date_of_unit(&self, unit: Unit, today: Date) -> Date {
        match unit {
            Unit::Day(date) => date,
            Unit::Moment(moment) => self.date_of(moment),
            Unit::Table => today,
        }
    }

    /// The last business date that is over at `at`. (In the hour that a clock is set back it may
    /// be a day less for a while: never a day too many.)
    fn over_through(&self, at: Timestamp) -> Date {
        let local = self.zone.to_datetime(at);
        let before = |date: Date| date.yesterday().unwrap_or(Date::MIN);
        let yesterday = before(local.date());
        if local.time() >= self.dataset.closes_at { yesterday } else { before(yesterday) }
    }
}

/// Days since 1970-01-01, by arithmetic: coverage does this for millions of days.
fn number(date: Date) -> i32 {
    // Years that begin in March have their leap day last.
    let (year, month) = (i32::from(date.year()), i32::from(date.month()));
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + i32::from(date.day()) - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn day_numbers_count_the_calendar_without_gaps() {
        assert_eq!(number(date(1970, 1, 1)), 0);
        let first = date(1899, 12, 31);
        for (expected, day) in (number(first)..).zip(first.series(1.day()).take(60_000)) {
            assert_eq!(number(day), expected, "{day}");
        }
    }
}
