//! The requested days within the life of the store, and why the others are left out.

use jiff::civil::Date;
use serde::Serialize;

use super::Days;

/// Days that were requested_by_person for and that nobody looks at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    pub from: Date,
    pub to: Date,
    pub why: WhyLeftOut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WhyLeftOut {
    /// Before the store's first business day.
    BeforeOpened,
    /// After its last one.
    AfterClosed,
    /// By the source's clock they have not begun.
    NotBegun,
}

/// The days of `requested_by_person` that lie in the store's life and have begun by `today`, and those that are left out.
pub fn days_of_life(
    requested_by_person: &Days,
    opened: Option<Date>,
    closed: Option<Date>,
    today: Date,
) -> (Option<Days>, Vec<LeftOut>) {
    let mut left_out = Vec::new();
    let (mut from, mut to) = (requested_by_person.from, requested_by_person.to);
    if let Some(opened) = opened.filter(|opened| *opened > from) {
        left_out.push(LeftOut { from, to: to.min(day_before(opened)), why: WhyLeftOut::BeforeOpened });
        from = opened;
    }
    if let Some(closed) = closed.filter(|closed| *closed < to) {
        if from <= to {
            let first = from.max(day_after(closed));
            left_out.push(LeftOut { from: first, to, why: WhyLeftOut::AfterClosed });
        }
        to = closed;
    }
    if today < to {
        if from <= to {
            left_out.push(LeftOut { from: from.max(day_after(today)), to, why: WhyLeftOut::NotBegun });
        }
        to = today;
    }
    ((from <= to).then_some(Days { from, to }), left_out)
}

fn day_before(day: Date) -> Date {
    day.yesterday().unwrap_or(day)
}

fn day_after(day: Date) -> Date {
    day.tomorrow().unwrap_or(day)
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;
    use jiff::civil::date;
    use proptest::prelude::*;

    use super::*;

    fn at(offset: i64) -> Date {
        date(2026, 1, 1).checked_add(offset.days()).unwrap()
    }

    proptest! {
        #[test]
        fn each_day_is_looked_at_or_left_out_for_a_reason_that_holds(
            from in 0_i64..40, count in 0_i64..20, opened in proptest::option::of(0_i64..40),
            closed in proptest::option::of(0_i64..60), today in 0_i64..60,
        ) {
            let requested_by_person = Days { from: at(from), to: at(from + count) };
            let (opened, closed, today) = (opened.map(at), closed.map(at), at(today));
            let (left, left_out) = days_of_life(&requested_by_person, opened, closed, today);
            for day in requested_by_person.iter() {
                let is_in = left.as_ref().is_some_and(|days| days.from <= day && day <= days.to);
                let reasons: Vec<WhyLeftOut> =
                    left_out.iter().filter(|one| one.from <= day && day <= one.to).map(|one| one.why).collect();
                prop_assert_eq!(reasons.len() + usize::from(is_in), 1, "{}", day);
                let holds = |why: &WhyLeftOut| match why {
                    WhyLeftOut::BeforeOpened => opened.is_some_and(|opened| day < opened),
                    WhyLeftOut::AfterClosed => closed.is_some_and(|closed| day > closed),
                    WhyLeftOut::NotBegun => day > today,
                };
                prop_assert!(reasons.iter().all(holds));
            }
            prop_assert!(left_out.iter().all(|one| requested_by_person.from <= one.from && one.from <= one.to && one.to <= requested_by_person.to));
        }
    }
}
