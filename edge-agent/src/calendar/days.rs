//! Business days in a row.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan};
use ribera_storage::Month;

/// The business days a request looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Days {
    pub from: Date,
    pub to: Date,
}

impl Days {
    /// Cut to the store's life; `None` when nothing is left.
    pub fn within(&self, opened: Option<Date>, closed: Option<Date>) -> Option<Self> {
        let from = opened.map_or(self.from, |opened| self.from.max(opened));
        let to = closed.map_or(self.to, |closed| self.to.min(closed));
        (from <= to).then_some(Self { from, to })
    }

    pub fn iter(&self) -> impl Iterator<Item = Date> {
        let to = self.to;
        self.from.series(1.day()).take_while(move |day| *day <= to)
    }

    /// The first `count` days at most, one at least, and the rest.
    pub fn split_after(&self, count: u32) -> (Self, Option<Self>) {
        let more = Span::new().try_days(i64::from(count.max(1)) - 1);
        let to = more.and_then(|more| self.from.checked_add(more)).map_or(self.to, |to| to.min(self.to));
        let rest = to.tomorrow().ok().filter(|from| *from <= self.to).map(|from| Self { from, to: self.to });
        (Self { from: self.from, to }, rest)
    }

    /// The first of the days that begin and end with one offset of `zone` from UTC, and the rest. A day in which
    /// the clock changes is alone.
    pub fn split_at_clock_change(self, zone: &TimeZone) -> (Self, Option<Self>) {
        let Some(change) = self.clock_change(zone) else { return (self, None) };
        let first = if change == self.from { change } else { change.yesterday().unwrap_or(change) };
        let rest = first.tomorrow().ok().filter(|from| *from <= self.to).map(|from| Self { from, to: self.to });
        (Self { from: self.from, to: first }, rest)
    }

    /// The first day that does not begin with the offset of the first moment, or in which the clock changes.
    fn clock_change(&self, zone: &TimeZone) -> Option<Date> {
        let begin = |day| begin_of(day, zone);
        let (from, end) = (begin(self.from)?, begin(self.to.tomorrow().ok()?)?);
        let offset = zone.to_offset(from);
        let moved = |at: &Timestamp| *at >= end || zone.to_offset(*at) != offset;
        let change = zone.following(from).map(|change| change.timestamp()).find(moved).filter(|at| *at < end)?;
        let before = change.checked_sub(jiff::SignedDuration::from_nanos(1)).ok()?;
        let day = zone.to_datetime(before).date();
        // At midnight sharp the day before is untouched.
        Some(if begin(day.tomorrow().ok()?) == Some(change) { day.tomorrow().ok()? } else { day })
    }

    /// The moments after which the clock of `zone` shows the day: its beginning, and its last change of the clock.
    pub fn offsets_of_day(day: Date, zone: &TimeZone) -> Vec<Timestamp> {
        let begin = |day| begin_of(day, zone);
        let Some(from) = begin(day) else { return Vec::new() };
        let end = day.tomorrow().ok().and_then(begin).unwrap_or(from);
        let changes = zone.following(from).map(|change| change.timestamp()).take_while(|at| *at < end);
        let moved = changes.filter(|at| zone.to_offset(*at) != zone.to_offset(from));
        std::iter::once(from).chain(moved).collect()
    }

    /// One piece per month, in order.
    pub fn months(&self) -> Vec<Self> {
        let mut pieces: Vec<Self> = Vec::new();
        for day in self.iter() {
            match pieces.last_mut() {
                Some(piece) if Month::of(piece.to) == Month::of(day) => piece.to = day,
                _ => pieces.push(Self { from: day, to: day }),
            }
        }
        pieces
    }
}

/// The first moment of a day by the clock of `zone`.
fn begin_of(day: Date, zone: &TimeZone) -> Option<Timestamp> {
    zone.to_timestamp(day.to_datetime(jiff::civil::Time::midnight())).ok()
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn days_are_split_where_the_clock_changes_and_such_a_day_is_alone() {
        let pieces = |zone: &str, from: Date, to: Date| {
            let zone = TimeZone::get(zone).unwrap();
            let (mut pieces, mut left) = (Vec::new(), Some(Days { from, to }));
            while let Some((piece, rest)) = left.map(|days| days.split_at_clock_change(&zone)) {
                pieces.push(format!("{}..{}", piece.from, piece.to));
                left = rest;
            }
            pieces
        };
        let (from, to) = (date(2017, 3, 10), date(2017, 3, 14));
        assert_eq!(pieces("America/Bogota", from, to), ["2017-03-10..2017-03-14"]);
        assert_eq!(
            pieces("America/New_York", from, to),
            ["2017-03-10..2017-03-11", "2017-03-12..2017-03-12", "2017-03-13..2017-03-14"]
        );
        assert_eq!(
            pieces("America/New_York", date(2017, 3, 12), date(2017, 3, 13)),
            ["2017-03-12..2017-03-12", "2017-03-13..2017-03-13"]
        );
        // At midnight: no day has two offsets.
        assert_eq!(
            pieces("America/Santiago", date(2017, 8, 11), date(2017, 8, 15)),
            ["2017-08-11..2017-08-12", "2017-08-13..2017-08-15"]
        );
        let new_york = TimeZone::get("America/New_York").unwrap();
        assert_eq!(Days::offsets_of_day(date(2017, 3, 12), &new_york).len(), 2);
        assert_eq!(Days::offsets_of_day(date(2017, 3, 13), &new_york).len(), 1);
    }
}
