//! Tables too large to fingerprint: only days with rows written since the last cycle are looked at, and
//! nothing is lost by it, whatever commits late.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use proptest::prelude::*;
use ribera_agent::host::SystemClock;
use ribera_agent::plan::Why;
use ribera_agent::report::{Exit, Report};
use ribera_agent::run::collect::RunMode;
use ribera_agent::sql::Statement;
use ribera_storage::Unit;
use ribera_storage::ports::Clock;

use crate::between::{Between, stand_between};
use crate::each::{KINDS, Kind, Place};
use crate::fixture::{CONFIG, TestAgent, World, block_on, day, request, run};

const MAPPING: &str = r#"watermark = { column = "escrito", lag = "15m" }"#;

fn world() -> World {
    let world = World::with_config(
        &CONFIG.replace("date = \"fecha\"", &format!("date = \"fecha\"\nwhere = \"cantidad <> 0\"\n{MAPPING}")),
    );
    world.sql("ALTER TABLE lineas ADD COLUMN escrito TEXT; CREATE INDEX lineas_escrito ON lineas (escrito)");
    world
}

/// In the store's own time, as the till writes it.
fn local(at: Timestamp) -> DateTime {
    at.to_zoned(TimeZone::get("America/New_York").unwrap()).datetime()
}

/// A ticket of `day` that its transaction stamps with `written`.
fn write(world: &World, ticket: u32, day: &str, written: Timestamp) {
    let written = local(written).strftime("%Y-%m-%d %H:%M:%S").to_string();
    world
        .till
        .execute(
            "INSERT INTO lineas VALUES (?1, 1, ?2, '10:30:00', 'p', 2, ?1 * 100 + 5, ?3)",
            rusqlite::params![ticket, day, written],
        )
        .unwrap();
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn now(world: &World) -> Timestamp {
    world.clock.now()
}

fn planned(report: &Report) -> Vec<(Unit, Why)> {
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    report.datasets[0].planned.iter().map(|one| (one.unit, one.why)).collect()
}

/// What a source is asked, with its values in the text.
#[derive(Clone, Default)]
struct Asked(Rc<RefCell<Vec<String>>>);

impl Between for Asked {
    fn asked(&self, statement: &Statement<'_>) {
        let mut text = statement.sql.to_string();
        for value in &statement.parameters {
            text = text.replacen('?', &format!("'{value}'"), 1);
        }
        self.0.borrow_mut().push(text);
    }
}

fn listening(world: &World) -> (TestAgent, Asked) {
    let asked = Asked::default();
    let mut agent = world.start().unwrap();
    stand_between(&mut agent, asked.clone());
    (agent, asked)
}

fn cycle(agent: &TestAgent) -> Report {
    block_on(agent.run("test", &request(RunMode::Cycle), Duration::ZERO))
}

#[test]
fn only_days_with_rows_written_since_are_asked_for_and_by_way_of_an_index() {
    let world = world();
    for (index, date) in
        ["2017-05-03", "2017-05-04", "2017-05-05", "2017-05-06", "2017-05-07", "2017-05-08"].iter().enumerate()
    {
        for ticket in 0..50 {
            write(&world, index as u32 * 100 + ticket, date, at("2017-05-08T23:00:00Z"));
        }
    }
    let (agent, asked) = listening(&world);
    cycle(&agent);
    world.ingest();
    world.clock.set("2017-05-10T17:00:00Z");
    write(&world, 9001, "2017-05-05", at("2017-05-10T16:50:00Z"));
    asked.0.borrow_mut().clear();
    let report = cycle(&agent);
    assert_eq!(planned(&report), [(day("2017-05-05"), Why::Changed)]);
    assert_eq!(report.datasets[0].compared, 2, "the day that was written to, and today, which has no rows yet");
    // The zone of the computer is asked without the table.
    let asked: Vec<String> = asked.0.take().into_iter().filter(|sql| sql.contains("lineas")).collect();
    assert!(asked[0].contains("escrito >= '2017-05-10 11:45:00'"), "{asked:?}");
    for sql in &asked {
        let plan: Vec<String> = world
            .till
            .prepare(&format!(
                "EXPLAIN QUERY PLAN {}",
                sql.replace("ribera_sum", "max").replace("ribera_hash(", "max(")
            ))
            .unwrap()
            .query_map([], |row| row.get(3))
            .unwrap()
            .map(|line| line.unwrap())
            .collect();
        assert!(plan.iter().any(|line| line.starts_with("SEARCH lineas USING")), "{sql}: {plan:?}");
        assert!(!plan.iter().any(|line| line.starts_with("SCAN")), "{sql}: {plan:?}");
    }
    // Beside the question for the days: no query reaches over any day but these two.
    let spans: Vec<bool> = asked[1..]
        .iter()
        .map(|sql| ["2017-05-05", "2017-05-10"].iter().any(|day| sql.contains(&format!("BETWEEN '{day}' AND '{day}'"))))
        .collect();
    assert!(!spans.is_empty() && spans.iter().all(|one| *one), "{asked:?}");
    // A cycle after which nothing was written asks for nothing but that, and today.
    world.ingest();
    world.clock.set("2017-05-10T17:30:00Z");
    assert_eq!(planned(&world.once()), []);
    world.clock.set("2017-05-10T18:00:00Z");
    let (agent, asked) = listening(&world);
    assert_eq!(planned(&cycle(&agent)), []);
    let of_the_table = asked.0.borrow().iter().filter(|sql| sql.contains("lineas")).count();
    assert_eq!(of_the_table, 2, "{asked:?}", asked = asked.0);
}

#[test]
fn a_change_of_any_age_that_the_column_shows_reaches_the_lake() {
    // In a snapshot, which SQLite has with WAL alone, history is sent without a hash.
    for (row_hash, mode) in [(true, "DELETE"), (true, "WAL"), (false, "DELETE"), (false, "WAL")] {
        let config = CONFIG.replace(
            "date = \"fecha\"",
            &format!("date = \"fecha\"\nwhere = \"cantidad <> 0\"\nrow_hash = {row_hash}\n{MAPPING}"),
        );
        let world = World::with_config(&config);
        world.till.query_row(&format!("PRAGMA journal_mode = {mode}"), [], |_| Ok(())).unwrap();
        world.sql("ALTER TABLE lineas ADD COLUMN escrito TEXT; CREATE INDEX lineas_escrito ON lineas (escrito)");
        for (ticket, date) in [(1, "2017-03-02"), (2, "2017-04-20"), (3, "2017-05-09")] {
            write(&world, ticket, date, at("2017-05-09T20:00:00Z"));
        }
        world.backfill("2017-03-01", "2017-05-10");
        world.ingest();
        world.once();
        world.ingest();
        world.clock.set("2017-05-10T18:00:00Z");
        // A return that is booked today on old tickets; and a change that keeps count and sums.
        let stamp = local(now(&world)).strftime("%Y-%m-%d %H:%M:%S").to_string();
        world.sql(&format!("UPDATE lineas SET centavos = 1, escrito = '{stamp}' WHERE ticket = 1"));
        world.sql(&format!("UPDATE lineas SET producto = 'otro', escrito = '{stamp}' WHERE ticket = 2"));
        let report = world.once();
        let both = ["2017-03-02", "2017-04-20"].map(|date| (day(date), Why::Changed));
        assert_eq!(planned(&report), both, "row_hash = {row_hash}");
        assert_eq!(world.lake()[&day("2017-03-02")].1, "0.01");
        // A day that was never sent is a backfill's business.
        write(&world, 9, "2016-12-24", now(&world));
        world.clock.set("2017-05-10T20:00:00Z");
        let found = planned(&world.once());
        // Without a hash, days that were written to within the lag are sent once more.
        let again = if row_hash { &[][..] } else { &both[..] };
        assert_eq!(found, again, "row_hash = {row_hash}");
        world.clock.set("2017-05-10T22:00:00Z");
        world.ingest();
        assert!(planned(&world.once()).is_empty(), "row_hash = {row_hash}");
    }
}

#[test]
fn a_hash_that_is_turned_on_later_compares_the_days_already_sent() {
    let without = CONFIG.replace("date = \"fecha\"", "date = \"fecha\"\nrow_hash = false");
    let mut world = World::with_config(&without);
    world.sell("2017-05-08", 1..5);
    world.once();
    world.ingest();
    world.sql("UPDATE lineas SET producto = 'otro' WHERE ticket = 1");
    assert!(planned(&world.once()).is_empty(), "count and sums are as before");
    let file = world.folder.path().join("agent.toml");
    std::fs::write(&file, CONFIG).unwrap();
    world.config = ribera_agent::config::Config::load(&file, &|_| Some("secret".to_owned())).unwrap();
    assert_eq!(planned(&world.once()), [(day("2017-05-08"), Why::Changed)]);
    world.ingest();
    assert!(planned(&world.once()).is_empty());
}

#[test]
fn rows_of_one_moment_are_never_split_by_the_cursor() {
    let world = world();
    let moment = at("2017-05-10T15:59:59Z");
    for ticket in 1..40 {
        write(&world, ticket, "2017-05-09", moment);
    }
    planned(&world.once());
    world.ingest();
    // As many again of the very same moment, committed after the cycle; and some of the moment of the cycle itself.
    for ticket in 40..80 {
        write(&world, ticket, "2017-05-09", moment);
    }
    for ticket in 80..90 {
        write(&world, ticket, "2017-05-08", now(&world));
    }
    world.clock.set("2017-05-10T16:10:00Z");
    assert_eq!(planned(&world.once()), [(day("2017-05-08"), Why::Changed), (day("2017-05-09"), Why::Changed)]);
    let lake = world.lake();
    assert_eq!((lake[&day("2017-05-09")].0, lake[&day("2017-05-08")].0), (79, 10));
}

#[test]
fn a_commit_within_the_lag_is_found_at_once_and_a_later_one_when_its_day_leaves_the_lookback() {
    let world = world();
    write(&world, 1, "2017-05-09", at("2017-05-09T20:00:00Z"));
    planned(&world.once());
    world.ingest();
    world.clock.set("2017-05-10T17:00:00Z");
    planned(&world.once());
    // Stamped before the last cycle, committed after it: by less than the lag, by more, and a row deleted for good.
    write(&world, 2, "2017-05-09", at("2017-05-10T16:46:00Z"));
    write(&world, 3, "2017-05-08", at("2017-05-10T16:40:00Z"));
    world.clock.set("2017-05-10T18:00:00Z");
    assert_eq!(planned(&world.once()), [(day("2017-05-09"), Why::Changed)]);
    world.ingest();
    world.sql("DELETE FROM lineas WHERE ticket = 1");
    world.clock.set("2017-05-10T19:00:00Z");
    assert_eq!(planned(&world.once()), [], "a row that is gone has no moment");
    // A row that counts no more is one that was written.
    world.sql("UPDATE lineas SET cantidad = 0, escrito = '2017-05-10 15:30:00' WHERE ticket = 2");
    world.clock.set("2017-05-10T20:00:00Z");
    assert_eq!(planned(&world.once()), [(day("2017-05-09"), Why::Changed)]);
    world.ingest();
    for date in 11..20 {
        world.clock.set(&format!("2017-05-{date}T18:00:00Z"));
        planned(&world.once());
        world.ingest();
    }
    let lake = world.lake();
    assert_eq!((lake[&day("2017-05-08")].0, lake[&day("2017-05-09")].0), (1, 0));
}

#[test]
fn a_source_clock_that_was_wrong_by_400_days_costs_one_full_comparison_and_no_row() {
    let world = world();
    write(&world, 1, "2017-05-09", at("2017-05-09T20:00:00Z"));
    // The till believes in 2018 for an hour, and writes so.
    world.clock.set("2018-06-14T16:00:00Z");
    world.once();
    world.ingest();
    world.clock.set("2017-05-10T17:00:00Z");
    write(&world, 2, "2017-05-09", at("2017-05-10T16:59:00Z"));
    write(&world, 3, "2017-05-08", at("2018-06-14T16:00:00Z"));
    let report = world.once();
    assert!(report.datasets[0].compared >= 8, "all of the window: {}", report.datasets[0].compared);
    assert_eq!((world.lake()[&day("2017-05-09")].0, world.lake()[&day("2017-05-08")].0), (2, 1));
    world.ingest();
    // And 400 days behind: the days of the window are other ones, and the cursor does not stay in the past.
    world.clock.set("2016-04-05T16:00:00Z");
    world.once();
    world.ingest();
    world.clock.set("2017-05-10T18:00:00Z");
    write(&world, 4, "2017-05-09", at("2017-05-10T17:59:00Z"));
    world.once();
    assert_eq!(world.lake()[&day("2017-05-09")].0, 3);
}

#[test]
fn a_cycle_that_fails_or_dies_leaves_the_cursor_where_it_was() {
    let whole = world();
    let prepare = |world: &World| {
        write(world, 1, "2017-05-09", at("2017-05-09T20:00:00Z"));
        world.once();
        world.ingest();
        world.clock.set("2017-05-10T18:00:00Z");
        write(world, 2, "2017-05-09", at("2017-05-10T17:00:00Z"));
        write(world, 3, "2017-05-07", at("2017-05-10T17:00:00Z"));
        world.fail_points.seen.borrow_mut().clear();
    };
    prepare(&whole);
    whole.once();
    let steps = whole.fail_points.seen.borrow().clone();
    let mut crashed = 0;
    for (nth, step) in steps.iter().enumerate() {
        let world = world();
        prepare(&world);
        world.fail_points.nth.set(Some(nth));
        if let Ok(agent) = world.start() {
            cycle(&agent);
        }
        crashed += u32::from(world.fail_points.crashed().is_some());
        world.fail_points.nth.set(None);
        world.disk.lose_power();
        // Hours later, when the lag no longer covers what the dead cycle had seen.
        world.clock.set("2017-05-10T23:00:00Z");
        world.once();
        world.once();
        let lake = world.lake();
        assert_eq!((lake[&day("2017-05-09")].0, lake[&day("2017-05-07")].0), (2, 1), "crash at {nth}, {step}");
    }
    assert!(crashed > 20, "{crashed}");
    // A value that does not fit fails its day only, and the cursor waits for it.
    let world = world();
    prepare(&world);
    world.sql("UPDATE lineas SET hora = 'ayer', escrito = '2017-05-10 13:30:00' WHERE ticket = 3");
    assert_eq!(world.once().exit(), Exit::Source);
    world.clock.set("2017-05-10T23:00:00Z");
    world.sql("UPDATE lineas SET hora = '10:00:00' WHERE ticket = 3");
    world.once();
    assert_eq!(world.lake()[&day("2017-05-07")].0, 1);
}

#[derive(Debug, Clone)]
enum Step {
    /// A ticket of the day so many days ago whose transaction began so many minutes ago.
    Write {
        days_ago: i64,
        begun_minutes_ago: i64,
    },
    /// So many minutes pass, then a cycle; it crashes at a step, perhaps.
    Cycle {
        minutes: i64,
        crash_at: Option<usize>,
    },
    Ingest,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0_i64..5, 0_i64..15).prop_map(|(days_ago, begun_minutes_ago)| Step::Write { days_ago, begun_minutes_ago }),
        3 => (1_i64..400, prop::option::weighted(0.4, 0_usize..60))
            .prop_map(|(minutes, crash_at)| Step::Cycle { minutes, crash_at }),
        1 => Just(Step::Ingest),
    ];
    prop::collection::vec(step, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// In whatever order rows are written, cycles run and die: the lake has the window's days as the till has them.
    #[test]
    fn whatever_the_order_of_writes_cycles_and_crashes_no_row_within_the_lag_is_missed(steps in steps()) {
        let world = world();
        let mut ticket = 0;
        let mut wanted: BTreeMap<Unit, u64> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Write { days_ago, begun_minutes_ago } => {
                    let written = now(&world).checked_sub(begun_minutes_ago.minutes()).unwrap();
                    let date = local(now(&world)).date().checked_sub(days_ago.days()).unwrap();
                    ticket += 1;
                    write(&world, ticket, &date.to_string(), written);
                    *wanted.entry(Unit::Day(date)).or_default() += 1;
                }
                Step::Cycle { minutes, crash_at } => {
                    world.clock.set(&now(&world).checked_add(minutes.minutes()).unwrap().to_string());
                    world.fail_points.seen.borrow_mut().clear();
                    world.fail_points.nth.set(crash_at);
                    if let Ok(agent) = world.start() {
                        cycle(&agent);
                    }
                    if crash_at.is_some() {
                        world.disk.lose_power();
                    }
                    world.fail_points.nth.set(None);
                }
                Step::Ingest => drop(world.ingest()),
            }
        }
        world.once();
        world.once();
        let lake = world.lake();
        for (unit, rows) in wanted {
            prop_assert_eq!(lake.get(&unit).map(|found| found.0), Some(rows), "{}", unit);
        }
    }
}

/// Real servers have their own clocks and their own ways to compare a moment with a text.
#[test]
fn every_kind_of_database_is_asked_for_the_days_written_since() {
    for kind in KINDS {
        let place = Place::new(kind, "marcada");
        let mapping = format!(
            "[adapter.caja.ventas]\nfrom = \"lineas\"\ndate = \"fecha\"\n{MAPPING}\n[adapter.caja.ventas.columns]\n\
             ticket_id = \"ticket\"\nlinea = \"linea\"\nproducto_id = \"producto\"\ncantidad = \"cantidad\"\n\
             total = {}\n",
            if kind == Kind::Sqlite { "{ sql = \"total\", round = 2 }" } else { "\"total\"" }
        );
        let world = place.world(&mapping);
        if kind == Kind::Sqlite {
            world.sql("DROP TABLE lineas");
        }
        let columns = "ticket INTEGER, linea INTEGER, fecha DATE, producto VARCHAR(20), cantidad INTEGER,
                       total NUMERIC(18,2), escrito TIMESTAMP";
        place.create(&world, "lineas", columns);
        world.clock.set(&SystemClock.now().to_string());
        // What the server's clock shows in the store's zone. Firebird knows wall time only, here that of UTC.
        let shown = || match kind {
            Kind::Firebird => SystemClock.now().to_zoned(TimeZone::UTC).datetime(),
            _ => local(SystemClock.now()),
        };
        let today = shown().date();
        let ago = |days: i64| today.checked_sub(days.days()).unwrap();
        let insert = |ticket: u32, days: i64, written: DateTime| {
            let moment = written.strftime("%Y-%m-%d %H:%M:%S");
            format!("INSERT INTO lineas VALUES ({ticket}, 1, '{}', 'p', 2, {ticket}.05, '{moment}')", ago(days))
        };
        let long_ago = today.to_datetime(jiff::civil::Time::midnight()).checked_sub(1.day()).unwrap();
        place.sql(&world, &(1..7).map(|days| insert(days as u32, days, long_ago)).collect::<Vec<_>>());
        let cycle = || run(&world.start().unwrap(), RunMode::Cycle);
        let first = cycle();
        assert_eq!(first.exit(), Exit::Done, "{kind:?}: {:?}", first.problems);
        world.ingest();
        place.sql(&world, &[insert(50, 3, shown()), insert(51, 5, long_ago)]);
        let report = cycle();
        let found: Vec<Unit> = report.datasets[0].planned.iter().map(|one| one.unit).collect();
        assert_eq!(found, [Unit::Day(ago(3))], "{kind:?}: the other was written too long ago to be seen");
        assert!(report.datasets[0].compared <= 3, "{kind:?}: {}", report.datasets[0].compared);
        assert_eq!(world.lake()[&Unit::Day(ago(3))].0, 2, "{kind:?}");
    }
}

/// A computer in the wrong zone, whose programs stamp rows hours before the store's clock.
#[test]
fn a_row_that_a_server_of_another_zone_stamped_hours_early_is_found() {
    let mapping = format!(
        "[adapter.caja.ventas]\nfrom = \"lineas\"\ndate = \"fecha\"\n{MAPPING}\n[adapter.caja.ventas.columns]\n\
         ticket_id = \"ticket\"\nlinea = \"linea\"\nproducto_id = \"producto\"\ncantidad = \"cantidad\"\ntotal = \"total\"\n"
    );
    for kind in [Kind::Mariadb, Kind::Postgres] {
        let place = Place::new(kind, "otra_zona");
        let world = place.world(&mapping);
        let columns = "ticket INTEGER, linea INTEGER, fecha DATE, producto VARCHAR(20), cantidad INTEGER,
                       total NUMERIC(18,2), escrito TIMESTAMP";
        place.create(&world, "lineas", columns);
        drop(place.client(match kind {
            Kind::Mariadb => "SET GLOBAL time_zone = '-10:00'",
            _ => "ALTER SYSTEM SET log_timezone = 'Pacific/Honolulu'",
        }));
        if kind == Kind::Postgres {
            drop(place.client("SELECT pg_reload_conf()"));
        }
        world.clock.set(&SystemClock.now().to_string());
        let today = local(SystemClock.now()).date();
        let ago = |days: i64| today.checked_sub(days.days()).unwrap();
        let insert = |ticket: u32, days: i64, written: DateTime| {
            let moment = written.strftime("%Y-%m-%d %H:%M:%S");
            format!("INSERT INTO lineas VALUES ({ticket}, 1, '{}', 'p', 2, {ticket}.05, '{moment}')", ago(days))
        };
        let long_ago = ago(2).to_datetime(jiff::civil::Time::midnight());
        place.sql(&world, &(1..7).map(|days| insert(days as u32, days, long_ago)).collect::<Vec<_>>());
        let cycle = || run(&world.start().unwrap(), RunMode::Cycle);
        assert_eq!(cycle().exit(), Exit::Done);
        world.ingest();
        // As the server's own clock shows it now.
        let honolulu = SystemClock.now().to_zoned(TimeZone::get("Pacific/Honolulu").unwrap()).datetime();
        place.sql(&world, &[insert(50, 3, honolulu), insert(51, 5, long_ago)]);
        let found: Vec<Unit> = cycle().datasets[0].planned.iter().map(|one| one.unit).collect();
        assert_eq!(found, [Unit::Day(ago(3))], "{kind:?}");
    }
}
