use jiff::ToSpan;
use jiff::civil::date;
use proptest::prelude::*;
use ribera_storage::Unit;
use ribera_storage::batch::DifferingUnit;
use ribera_storage::dataset::DatasetDefinition;
use ribera_storage::ids::Position;
use ribera_storage::store::{CalendarException, StoreDefinition, WeekdayName};

use super::judge::{Doubt, Span, StoreEvidence, UnitEvidence, judge};
use super::*;
use crate::fixture::ventas;

fn store(id: &str, opened: Option<Date>) -> StoreDefinition {
    let store = StoreDefinition::new(id.parse().unwrap(), format!("Tienda {id}"), "America/New_York");
    StoreDefinition { opened, ..store }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn position(sequence: u64) -> Position {
    Position { epoch: 0, sequence }
}

/// A day that was extracted well after it was over.
fn proof(day: Date, rows: u64) -> UnitEvidence {
    let later = day.checked_add(3.days()).unwrap().in_tz("UTC").unwrap().timestamp();
    UnitEvidence {
        unit: Unit::Day(day),
        position: position(1),
        rows,
        proven: true,
        extracted_at: later,
        received_by: later,
    }
}

fn coverage_of(stores: Vec<StoreCoverage>) -> Coverage {
    Coverage {
        dataset: "ventas".parse().unwrap(),
        table_version: Some(1),
        computed_at: at("2026-02-01T00:00:00Z"),
        stores,
    }
}

fn state_of(
    definition: &DatasetDefinition,
    store: &StoreDefinition,
    evidence: &StoreEvidence,
    now: &str,
    day: Date,
) -> DayState {
    judge(store, definition, evidence, at(now)).unwrap().calendar.state(day)
}

const DAY: Date = date(2026, 1, 10);
const LATER: &str = "2026-02-01T00:00:00Z";

#[test]
fn a_day_is_complete_only_when_it_is_proven() {
    let open = store("s1", Some(date(2026, 1, 1)));
    let good = proof(DAY, 5);
    let case = |units: Vec<UnitEvidence>| {
        state_of(&ventas(), &open, &StoreEvidence { units, ..StoreEvidence::default() }, LATER, DAY)
    };
    assert_eq!(case(vec![good]), DayState::Complete);
    assert_eq!(case(vec![UnitEvidence { rows: 0, ..good }]), DayState::Complete, "audited empty");
    assert_eq!(case(vec![UnitEvidence { proven: false, ..good }]), DayState::Partial);
    assert_eq!(case(vec![UnitEvidence { proven: false, rows: 0, ..good }]), DayState::Missing);
    assert_eq!(case(vec![]), DayState::Missing);
    assert_eq!(case(vec![good, good]), DayState::Partial, "two files claim the day");
}

#[test]
fn a_day_that_arrived_before_it_was_over_by_our_clock_is_not_complete() {
    let open = store("s1", Some(date(2026, 1, 1)));
    // New York is five hours behind: the day is over at 08:00 UTC of the next.
    for (received, expected) in
        [("2026-01-11T07:59:59Z", DayState::Partial), ("2026-01-11T08:00:00Z", DayState::Complete)]
    {
        let unit = UnitEvidence { received_by: at(received), ..proof(DAY, 5) };
        let evidence = StoreEvidence { units: vec![unit], ..StoreEvidence::default() };
        assert_eq!(state_of(&ventas(), &open, &evidence, LATER, DAY), expected, "{received}");
    }
}

#[test]
fn a_day_is_pending_until_it_is_over_and_the_agent_has_looked_once_more() {
    let open = store("s1", Some(date(2026, 1, 1)));
    let unproven = UnitEvidence { proven: false, ..proof(DAY, 5) };
    let some = StoreEvidence { units: vec![unproven], ..StoreEvidence::default() };
    for (now, with_rows, without) in [
        ("2026-01-10T18:00:00Z", DayState::Pending, DayState::Pending),
        ("2026-01-11T08:59:59Z", DayState::Pending, DayState::Pending),
        ("2026-01-11T09:00:00Z", DayState::Partial, DayState::Missing),
    ] {
        assert_eq!(state_of(&ventas(), &open, &some, now, DAY), with_rows, "{now}");
        assert_eq!(state_of(&ventas(), &open, &StoreEvidence::default(), now, DAY), without, "{now}");
    }
}

#[test]
fn a_batch_in_quarantine_makes_its_days_partial_until_a_later_one_wins_them() {
    let open = store("s1", Some(date(2026, 1, 1)));
    let day = Unit::Day(DAY);
    for (winner, refused, expected) in [
        (None, 1, DayState::Partial),
        (Some(1), 2, DayState::Partial),
        (Some(2), 2, DayState::Partial),
        (Some(3), 2, DayState::Complete),
    ] {
        let units = winner.map(|sequence| UnitEvidence { position: position(sequence), ..proof(DAY, 5) });
        let evidence = StoreEvidence {
            units: units.into_iter().collect(),
            quarantined: vec![(position(refused), vec![day])],
            ..StoreEvidence::default()
        };
        assert_eq!(state_of(&ventas(), &open, &evidence, LATER, DAY), expected, "{winner:?} {refused}");
    }
}

#[test]
fn a_difference_that_the_source_published_takes_complete_away_until_a_newer_batch_wins() {
    let open = store("s1", Some(date(2026, 1, 1)));
    for (winner, awaits, expected) in
        [(1, 2, DayState::Partial), (2, 2, DayState::Complete), (3, 2, DayState::Complete)]
    {
        let evidence = StoreEvidence {
            units: vec![UnitEvidence { position: position(winner), ..proof(DAY, 5) }],
            differing: vec![DifferingUnit { unit: Unit::Day(DAY), awaits: position(awaits) }],
            ..StoreEvidence::default()
        };
        assert_eq!(state_of(&ventas(), &open, &evidence, LATER, DAY), expected, "{winner} {awaits}");
    }
}

#[test]
fn days_without_business_are_not_expected_whatever_lies_in_the_lake() {
    let mut shop = store("s1", Some(date(2026, 1, 5)));
    shop.rest_days = vec![WeekdayName::Sunday];
    shop.holidays = vec![date(2026, 1, 12)];
    shop.closed = Some(date(2026, 1, 20));
    let units = vec![proof(date(2026, 1, 4), 1), proof(date(2026, 1, 11), 1), proof(date(2026, 1, 12), 0)];
    let evidence = StoreEvidence { units, ..StoreEvidence::default() };
    let found = judge(&shop, &ventas(), &evidence, at(LATER)).unwrap();
    assert_eq!(found.calendar.from(), date(2026, 1, 4));
    assert_eq!(found.calendar.to(), Some(date(2026, 1, 20)));
    assert_eq!(found.calendar.runs(), "1.6M2.5M1.2M");
    assert_eq!(found.rows_by_month.values().sum::<u64>(), 2);
    let closed = StoreDefinition { active: false, ..shop };
    let found = judge(&closed, &ventas(), &evidence, at(LATER)).unwrap();
    assert_eq!(found.calendar.runs(), "17.");
}

#[test]
fn a_store_never_heard_of_is_missing_over_the_days_its_agent_looks_back_on() {
    let found = judge(&store("s1", None), &ventas(), &StoreEvidence::default(), at("2026-01-20T12:00:00Z")).unwrap();
    assert_eq!(found.calendar.runs(), "7M1-");
    let heard = StoreEvidence { units: vec![proof(date(2026, 1, 18), 3)], ..StoreEvidence::default() };
    let found = judge(&store("s1", None), &ventas(), &heard, at("2026-01-20T12:00:00Z")).unwrap();
    assert_eq!(found.calendar.from(), date(2026, 1, 18));
}

#[test]
fn a_snapshot_day_needs_one_proven_moment_and_a_table_its_proof() {
    let inventory = ribera_storage::dataset::shipped("inventario").unwrap().unwrap();
    let open = store("s1", Some(date(2026, 1, 10)));
    // 02:00 UTC is still the evening before in New York.
    let moment = |text: &str, proven| UnitEvidence { unit: Unit::Moment(at(text)), proven, ..proof(DAY, 5) };
    let units = vec![
        moment("2026-01-11T02:00:00Z", true),
        moment("2026-01-10T14:00:00Z", false),
        moment("2026-01-11T14:00:00Z", false),
    ];
    let evidence = StoreEvidence { units, ..StoreEvidence::default() };
    let found = judge(&open, &inventory, &evidence, at("2026-01-13T00:00:00Z")).unwrap();
    assert_eq!(found.calendar.runs(), "1C1P1-");
    let products = ribera_storage::dataset::shipped("productos").unwrap().unwrap();
    let whole = UnitEvidence { unit: Unit::Table, ..proof(DAY, 5) };
    for (units, runs) in [(vec![whole], "1C"), (vec![UnitEvidence { proven: false, ..whole }], "1P"), (vec![], "1M")] {
        let evidence = StoreEvidence { units, ..StoreEvidence::default() };
        let soon = whole.received_by + jiff::SignedDuration::from_hours(1);
        assert_eq!(judge(&open, &products, &evidence, soon).unwrap().calendar.runs(), runs);
    }
}

#[test]
fn a_table_and_the_newest_moment_are_complete_for_two_schedules_after_the_agent_last_looked() {
    let products = ribera_storage::dataset::shipped("productos").unwrap().unwrap();
    let schedule = i64::try_from(products.schedule_seconds().unwrap()).unwrap();
    let open = store("s1", Some(date(2026, 1, 10)));
    let whole = UnitEvidence { unit: Unit::Table, ..proof(DAY, 5) };
    let state = |dataset: &DatasetDefinition, unit, checked_at, now: Timestamp| {
        let evidence = StoreEvidence { units: vec![unit], checked_at, ..StoreEvidence::default() };
        judge(&open, dataset, &evidence, now).unwrap().calendar.days().last().unwrap().1
    };
    let after = |seconds: i64| whole.received_by + jiff::SignedDuration::from_secs(seconds);
    assert_eq!(state(&products, whole, None, after(2 * schedule)), DayState::Complete);
    assert_eq!(
        state(&products, whole, None, after(2 * schedule + 1)),
        DayState::Partial,
        "proven long ago is not proven now"
    );
    // The agent asked again later, and found the table as it had sent it.
    let checked = Some(after(schedule));
    assert_eq!(state(&products, whole, checked, after(3 * schedule)), DayState::Complete);
    assert_eq!(state(&products, whole, checked, after(3 * schedule + 1)), DayState::Partial);
    let unproven = UnitEvidence { proven: false, ..whole };
    assert_eq!(state(&products, unproven, checked, after(1)), DayState::Partial, "asking is no proof by itself");

    let inventory = ribera_storage::dataset::shipped("inventario").unwrap().unwrap();
    let every = i64::try_from(inventory.schedule_seconds().unwrap()).unwrap();
    // 10:00 in New York.
    let moment = at("2026-01-20T15:00:00Z");
    let newest = UnitEvidence { unit: Unit::Moment(moment), received_by: moment, ..proof(DAY, 5) };
    let later = |seconds: i64| moment + jiff::SignedDuration::from_secs(seconds);
    assert_eq!(state(&inventory, newest, None, later(2 * every)), DayState::Complete);
    assert_eq!(state(&inventory, newest, None, later(2 * every + 1)), DayState::Partial);
}

#[test]
fn no_day_of_a_span_in_doubt_is_complete_and_the_others_are() {
    let open = store("s1", Some(date(2026, 1, 30)));
    let units: Vec<UnitEvidence> =
        [date(2026, 1, 30), date(2026, 1, 31), date(2026, 2, 1)].map(|day| proof(day, 0)).to_vec();
    for (span, runs) in [
        (Span::Month("2026-02".parse().unwrap()), "2C1P"),
        (Span::Year(2026), "3P"),
        (Span::All, "3P"),
        (Span::Year(2025), "3C"),
    ] {
        let doubts = vec![Doubt { span, reason: "spoilt".to_owned() }];
        let evidence = StoreEvidence { units: units.clone(), doubts, ..StoreEvidence::default() };
        let found = judge(&open, &ventas(), &evidence, at("2026-02-02T20:00:00Z")).unwrap();
        assert!(found.calendar.runs().starts_with(runs), "{span:?}: {}", found.calendar.runs());
        assert_eq!(found.doubts, ["spoilt"]);
    }
}

#[test]
fn a_summary_gives_percentages_months_lights_and_totals() {
    let calendar = |from, runs: &str| serde_json::from_value(serde_json::json!({"from": from, "runs": runs})).unwrap();
    let one = |id: &str, calendar, rows: &[(&str, u64)]| StoreCoverage {
        store: id.parse().unwrap(),
        name: format!("Tienda {id}"),
        active: true,
        hold_repair: false,
        calendar,
        rows_by_month: rows.iter().map(|(month, rows)| (month.parse().unwrap(), *rows)).collect(),
        proven_at: None,
        doubts: Vec::new(),
    };
    let mut inactive = one("z", calendar("2026-01-01", "59."), &[("2026-01", 9)]);
    inactive.active = false;
    let coverage = coverage_of(vec![
        one("green", calendar("2026-01-01", "59C2-"), &[("2026-01", 310), ("2026-02", 280)]),
        one("late", calendar("2026-02-01", "28C2-"), &[("2026-02", 28)]),
        one("red", calendar("2026-01-01", "31C28M2-"), &[("2026-01", 31)]),
        one("yellow", calendar("2026-01-01", "31C20C5P3M2-"), &[("2026-01", 31)]),
        inactive,
    ]);
    let summary = coverage.summary(&CoverageSettings::default(), None, false);
    let lights: Vec<Light> = summary.stores.iter().map(|store| store.light).collect();
    assert_eq!(lights, [Light::Green, Light::Green, Light::Red, Light::Yellow]);
    let [green, late, red, yellow] = summary.stores.as_slice() else { panic!("four stores") };
    assert_eq!((green.day_percent, green.month_percent, green.rows), (100.0, 100.0, 590));
    assert_eq!((late.since, green.since), (Some(date(2026, 2, 1)), None));
    assert_eq!((red.day_percent, red.month_percent), (52.54, 50.0));
    assert_eq!(yellow.missing_months, ["2026-02".parse().unwrap()]);
    assert_eq!(summary.period, Some(Period { from: date(2026, 1, 1), to: date(2026, 3, 2) }));
    let totals = &summary.totals;
    assert_eq!((totals.rows, totals.stores_configured, totals.stores_active), (680, 5, 4));
    assert_eq!(totals.rows_per_month_mean, Some(340.0));
    assert_eq!(totals.days.missing, 31);
    let january = Period { from: date(2026, 1, 1), to: date(2026, 1, 31) };
    let summary = coverage.summary(&CoverageSettings::default(), Some(january), true);
    assert_eq!(
        summary.stores.iter().map(|store| store.light).collect::<Vec<_>>(),
        [Light::Green, Light::Grey, Light::Green, Light::Green, Light::Grey]
    );
    assert_eq!(summary.totals.rows, 381);
}

#[test]
fn an_almost_complete_store_never_shows_a_hundred_percent() {
    let calendar = serde_json::from_value(serde_json::json!({"from": "2000-01-01", "runs": "99999C1M"})).unwrap();
    let coverage = coverage_of(vec![StoreCoverage {
        store: "s1".parse().unwrap(),
        name: String::new(),
        active: true,
        hold_repair: false,
        calendar,
        rows_by_month: BTreeMap::new(),
        proven_at: None,
        doubts: Vec::new(),
    }]);
    let summary = coverage.summary(&CoverageSettings::default(), None, false);
    assert_eq!(summary.stores[0].day_percent, 99.99);
    assert_eq!(summary.stores[0].light, Light::Yellow);
}

#[test]
fn gaps_are_exactly_the_missing_and_partial_days_in_runs_by_month() {
    let calendar = serde_json::from_value(serde_json::json!({"from": "2026-01-28", "runs": "1C6M1P1.1M1C"})).unwrap();
    let coverage = coverage_of(vec![StoreCoverage {
        store: "s1".parse().unwrap(),
        name: String::new(),
        active: true,
        hold_repair: true,
        calendar,
        rows_by_month: BTreeMap::new(),
        proven_at: None,
        doubts: Vec::new(),
    }]);
    let plan = coverage.gap_plan(&Touched::default());
    let shown: Vec<String> =
        plan.iter().map(|run| format!("{}..{} {}+{}", run.from, run.to, run.missing, run.partial)).collect();
    assert_eq!(shown, ["2026-01-29..2026-01-31 3+0", "2026-02-01..2026-02-04 3+1", "2026-02-06..2026-02-06 1+0"]);
    assert!(plan.iter().all(|run| run.hold_repair));
    let touched = Touched { from: Some(date(2026, 1, 31)), to: Some(date(2026, 2, 1)), stores: None };
    let answer = coverage.behind(&touched);
    assert_eq!((answer.days.missing, answer.gaps.len()), (2, 2));
    let other = Touched { stores: Some(vec!["s2".parse().unwrap()]), ..Touched::default() };
    assert_eq!(
        coverage.behind(&other),
        AnswerCoverage { dataset: "ventas".parse().unwrap(), days: StateCounts::default(), gaps: Vec::new() }
    );
}

/// The rules once more, day by day and without any of the shortcuts.
fn naive(
    store: &StoreDefinition,
    dataset: &DatasetDefinition,
    evidence: &StoreEvidence,
    now: Timestamp,
    day: Date,
) -> DayState {
    let over_at = |day: Date| {
        day.tomorrow().unwrap().to_datetime(dataset.closes_at).to_zoned(store.zone().unwrap()).unwrap().timestamp()
    };
    let unit = evidence.units.iter().find(|unit| unit.unit == Unit::Day(day));
    let quarantined = evidence
        .quarantined
        .iter()
        .any(|(refused, units)| units.contains(&Unit::Day(day)) && unit.is_none_or(|unit| unit.position <= *refused));
    let differs = evidence
        .differing
        .iter()
        .any(|differing| differing.unit == Unit::Day(day) && unit.is_none_or(|unit| unit.position < differing.awaits));
    if !store.expects(day) {
        return DayState::NotExpected;
    }
    let proven = unit.is_some_and(|unit| unit.proven && unit.received_by >= over_at(day));
    if proven && now >= over_at(day) && !quarantined && !differs {
        return DayState::Complete;
    }
    if now < over_at(day) + jiff::SignedDuration::from_hours(1) {
        return DayState::Pending;
    }
    match unit {
        Some(unit) if unit.rows > 0 => DayState::Partial,
        _ if quarantined => DayState::Partial,
        _ => DayState::Missing,
    }
}

prop_compose! {
    fn any_unit()(day in 0..30_i32, sequence in 1..5_u64, rows in 0..3_u64, proven in any::<bool>(), late_hours in -30..100_i64) -> UnitEvidence {
        let date = date(2026, 3, 1).checked_add(day.days()).unwrap();
        let received_by = date.in_tz("UTC").unwrap().timestamp() + jiff::SignedDuration::from_hours(late_hours);
        UnitEvidence { position: position(sequence), received_by, proven, rows, ..proof(date, rows) }
    }
}

proptest! {
    #[test]
    fn coverage_agrees_with_a_naive_model_day_by_day(
        units in prop::collection::btree_map(0..30_i32, any_unit(), 0..30),
        quarantined in prop::collection::vec((1..5_u64, prop::collection::vec(0..30_i32, 1..4)), 0..4),
        differing in prop::collection::vec((0..30_i32, 1..6_u64), 0..4),
        rest in prop::option::of(0..1_u8),
        exception in prop::option::of((0..30_i32, any::<bool>())),
        now_hours in 0..900_i64,
    ) {
        let base = date(2026, 3, 1);
        let day = |offset: i32| base.checked_add(offset.days()).unwrap();
        // March has the clock change of New York on the 8th.
        let mut shop = store("s1", Some(base));
        shop.rest_days = rest.map(|_| WeekdayName::Sunday).into_iter().collect();
        shop.exceptions = exception.map(|(at, expected)| CalendarException { from: day(at), to: day(at + 2), expected, reason: String::new() }).into_iter().collect();
        let evidence = StoreEvidence {
            units: units.into_iter().map(|(at, unit)| UnitEvidence { unit: Unit::Day(day(at)), ..unit }).collect(),
            quarantined: quarantined.into_iter().map(|(sequence, days)| (position(sequence), days.into_iter().map(|at| Unit::Day(day(at))).collect())).collect(),
            differing: differing.into_iter().map(|(at, sequence)| DifferingUnit { unit: Unit::Day(day(at)), awaits: position(sequence) }).collect(),
            ..StoreEvidence::default()
        };
        let now = base.in_tz("America/New_York").unwrap().timestamp() + jiff::SignedDuration::from_hours(now_hours);
        let definition = ventas();
        let found = judge(&shop, &definition, &evidence, now).unwrap();
        for (date, state) in found.calendar.days() {
            prop_assert_eq!(state, naive(&shop, &definition, &evidence, now, date), "{}", date);
        }
        let days = found.calendar.days().count() as i32;
        prop_assert!(days > 0 && i64::from(days) >= now_hours.min(29 * 24) / 24);
    }
}
