//! `judge` against the same rules written out plainly: a map of days, one look at all evidence for
//! each of them.

use std::collections::BTreeMap;

use jiff::civil::{Date, Time, date};
use jiff::{SignedDuration, Timestamp, ToSpan};
use proptest::prelude::*;
use ribera_storage::batch::DifferingUnit;
use ribera_storage::dataset::{DatasetDefinition, DatasetKind, shipped};
use ribera_storage::ids::Position;
use ribera_storage::store::{StoreDefinition, WeekdayName};
use ribera_storage::{Month, Unit};

use super::DayState;
use super::judge::{Doubt, Span, StoreEvidence, UnitEvidence, judge};

const FIRST: Date = date(2026, 2, 20);

/// States by day from the first to the last of the calendar, rows by month, the newest proof.
type Judged = (BTreeMap<Date, DayState>, BTreeMap<Month, u64>, Option<Timestamp>);

fn plainly(store: &StoreDefinition, dataset: &DatasetDefinition, evidence: &StoreEvidence, now: Timestamp) -> Judged {
    let zone = store.zone().unwrap();
    let over_through = |at: Timestamp| {
        let local = zone.to_datetime(at);
        let days = if local.time() >= dataset.closes_at { 1 } else { 2 };
        local.date().saturating_sub(days.days())
    };
    let schedule = SignedDuration::from_secs(dataset.schedule_seconds().unwrap().try_into().unwrap());
    let today = zone.to_datetime(now).date();
    let date_of = |unit: Unit| match unit {
        Unit::Day(date) => date,
        Unit::Moment(moment) => zone.to_datetime(moment).date(),
        Unit::Table => today,
    };
    let units_of = |date: Date| evidence.units.iter().filter(move |unit| date_of(unit.unit) == date);
    let data: Vec<Date> = evidence.units.iter().map(|unit| date_of(unit.unit)).collect();
    let first = data.iter().copied().chain(store.opened).min();
    let from = first.unwrap_or(today.saturating_sub(i64::from(dataset.lookback_days.max(1)).days()));
    let end = store.closed.map_or(today, |closed| closed.min(today));
    let to = data.iter().copied().max().map_or(end, |last| last.min(today).max(end));

    let (mut states, mut months, mut newest) = (BTreeMap::new(), BTreeMap::new(), None);
    let mut day = from;
    while day <= to {
        let units: Vec<&UnitEvidence> = units_of(day).collect();
        let snapshot = dataset.kind == DatasetKind::Snapshot;
        let is_proof = |unit: &&&UnitEvidence| unit.proven && (snapshot || day <= over_through(unit.received_by));
        let proofs: Vec<&&UnitEvidence> = units.iter().filter(is_proof).collect();
        let proven = !proofs.is_empty() && (snapshot || units.len() == 1);
        let winner = units.iter().map(|unit| unit.position).max();
        let quarantined = evidence
            .quarantined
            .iter()
            .filter(|(_, refused)| refused.iter().any(|unit| date_of(*unit) == day))
            .any(|(position, _)| winner.is_none_or(|winner| winner <= *position));
        let awaits = evidence.differing.iter().filter(|one| date_of(one.unit) == day).map(|one| one.awaits).max();
        let differs = awaits.is_some_and(|awaits| winner.is_none_or(|winner| winner < awaits));
        let rows: u64 = units.iter().map(|unit| unit.rows).sum();
        let doubted = evidence.doubts.iter().any(|doubt| match doubt.span {
            Span::All => true,
            Span::Month(month) => Month::of(day) == month,
            Span::Year(year) => day.year() == year,
        });
        let newest_arrival = proofs.iter().map(|unit| unit.received_by).max();
        let fresh = newest_arrival.max(evidence.checked_at).is_some_and(|at| at >= now - schedule - schedule);
        let fresh = fresh && newest_arrival.is_some();
        let (over, due) = match snapshot && day == today {
            true => (fresh, !fresh && newest_arrival.is_some()),
            false => (day <= over_through(now), day <= over_through(now - schedule)),
        };
        let state = if !store.expects(day) {
            DayState::NotExpected
        } else if proven && !quarantined && !differs && !doubted && over {
            DayState::Complete
        } else if !due {
            DayState::Pending
        } else if rows > 0 || quarantined || (doubted && !proofs.is_empty()) {
            DayState::Partial
        } else {
            DayState::Missing
        };
        if state == DayState::Complete {
            newest = newest.max(proofs.iter().map(|unit| unit.extracted_at).max());
        }
        if rows > 0 {
            *months.entry(Month::of(day)).or_insert(0) += rows;
        }
        states.insert(day, state);
        day = day.tomorrow().unwrap();
    }
    (states, months, newest)
}

fn day() -> impl Strategy<Value = Date> {
    (0_i64..40).prop_map(|after| FIRST.checked_add(after.days()).unwrap())
}

/// To the second around the days' ends.
fn moment() -> impl Strategy<Value = Timestamp> {
    let near_an_hour = prop_oneof![Just(-1_i64), Just(0), Just(1), -1800_i64..1800];
    (0_i64..42 * 24, near_an_hour).prop_map(|(hours, seconds)| {
        let start = FIRST.in_tz("UTC").unwrap().timestamp();
        start + SignedDuration::from_secs(hours * 3600 + seconds)
    })
}

fn position() -> impl Strategy<Value = Position> {
    (0_u32..2, 1_u64..4).prop_map(|(epoch, sequence)| Position { epoch, sequence })
}

fn unit(snapshot: bool) -> BoxedStrategy<Unit> {
    if snapshot { moment().prop_map(Unit::Moment).boxed() } else { day().prop_map(Unit::Day).boxed() }
}

fn evidence(snapshot: bool) -> impl Strategy<Value = StoreEvidence> {
    let of_unit = (unit(snapshot), position(), 0_u64..3, prop::bool::weighted(0.8), moment(), moment()).prop_map(
        |(unit, position, rows, proven, extracted_at, received_by)| UnitEvidence {
            unit,
            position,
            rows,
            proven,
            extracted_at,
            received_by,
        },
    );
    // Units of one file arrive together.
    let of_file =
        (prop::collection::vec(of_unit, 0..12), moment(), any::<bool>()).prop_map(|(mut units, at, together)| {
            units.iter_mut().filter(|_| together).for_each(|unit| unit.received_by = at);
            units
        });
    (
        prop::collection::vec(of_file, 0..5),
        prop::collection::vec((position(), prop::collection::vec(unit(snapshot), 0..3)), 0..3),
        prop::collection::vec((unit(snapshot), position()), 0..3),
        prop::collection::vec(span(), 0..2),
        prop::option::of(moment()),
    )
        .prop_map(|(files, quarantined, differing, spans, checked_at)| StoreEvidence {
            units: files.into_iter().flatten().collect(),
            quarantined,
            differing: differing.into_iter().map(|(unit, awaits)| DifferingUnit { unit, awaits }).collect(),
            doubts: spans.into_iter().map(|span| Doubt { span, reason: "unreadable".to_owned() }).collect(),
            checked_at,
        })
}

/// Mostly one month: a doubt about everything hides all else.
fn span() -> impl Strategy<Value = Span> {
    prop_oneof![1 => Just(Span::All), 1 => Just(Span::Year(2026)), 6 => day().prop_map(|day| Span::Month(Month::of(day)))]
}

fn store() -> impl Strategy<Value = StoreDefinition> {
    let zone = prop::sample::select(vec!["America/New_York", "Europe/Madrid", "Asia/Tokyo", "UTC"]);
    (zone, prop::option::of(day()), prop::option::of(day()), any::<bool>()).prop_map(|(zone, opened, closed, rests)| {
        StoreDefinition {
            opened,
            closed: closed.filter(|closed| opened.is_none_or(|opened| opened <= *closed)),
            rest_days: if rests { vec![WeekdayName::Sunday] } else { Vec::new() },
            ..StoreDefinition::new("s1".parse().unwrap(), "Tienda", zone)
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_day_is_judged_as_by_the_plain_rules(
        store in store(),
        (snapshot, evidence) in any::<bool>().prop_flat_map(|snapshot| (Just(snapshot), evidence(snapshot))),
        closes_at_hour in 0_i8..5,
        now in moment(),
    ) {
        let name = if snapshot { "inventario" } else { "ventas" };
        let mut dataset = shipped(name).unwrap().unwrap();
        dataset.closes_at = Time::constant(closes_at_hour, 0, 0, 0);
        let judged = judge(&store, &dataset, &evidence, now).unwrap();
        let found: BTreeMap<Date, DayState> = judged.calendar.days().collect();
        prop_assert_eq!((found, judged.rows_by_month, judged.proven_at), plainly(&store, &dataset, &evidence, now));
    }
}
