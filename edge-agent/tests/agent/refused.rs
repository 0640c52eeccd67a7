//! A bad row costs its day and nothing else: not the other days, not the window, not the cycle.

use ribera_agent::journal::Journal;
use ribera_agent::plan::TRIES_MAX;
use ribera_agent::report::{Exit, Report};
use ribera_agent::run::collect::RunMode;
use ribera_storage::Unit;
use ribera_storage::heartbeat::{Heartbeat, Trouble};
use ribera_storage::paths;

use crate::each::{KINDS, Kind, Place};
use crate::fixture::{CONFIG, World, block_on, day, days, extract, run};
use crate::question::LINES_MAPPING;

/// Sales on each day of the window, and one row that cannot be sent on the 6th.
fn world(bad: &str) -> World {
    let world = World::new();
    for (index, date) in days("2017-05-03", "2017-05-09").iter().enumerate() {
        world.sell(&date.to_string(), index as u32 * 10..index as u32 * 10 + 4);
    }
    world.sql(&format!("INSERT INTO lineas VALUES (90, 1, '2017-05-06', {bad})"));
    world
}

/// A value that only the rows show, and one that the audit cannot sum either.
const BAD: [&str; 2] = ["'25:00:00', 'p', 2, 100", "'10:30:00', 'p', 'muchos', 100"];

fn sent_days(world: &World) -> Vec<Unit> {
    world.lake().into_keys().collect()
}

fn planned(report: &Report) -> Vec<Unit> {
    report.datasets[0].planned.iter().map(|one| one.unit).collect()
}

#[test]
fn the_other_days_are_sent_and_the_refusal_is_told_everywhere() {
    for bad in BAD {
        let world = world(bad);
        let agent = world.start().unwrap();
        let report = block_on(agent.run("test", &crate::fixture::request(RunMode::Cycle), std::time::Duration::ZERO));
        assert_eq!(report.exit(), Exit::Source, "{:?}", report.problems);
        assert_eq!(sent_days(&world).len(), 6, "{:?}", report.problems);
        assert!(!sent_days(&world).contains(&day("2017-05-06")));
        let refused = &report.datasets[0].refused;
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert_eq!(refused[0].unit, day("2017-05-06"));
        let value = if bad.contains("muchos") { "muchos" } else { "25:00:00" };
        assert!(refused[0].reason.contains(value), "{refused:?}");
        assert!(report.problems[0].message.contains(value), "{:?}", report.problems);
        // Alarms, heartbeat, spool.
        let alarm = &report.alarms[0].alarm;
        assert_eq!((alarm.unit, alarm.trouble, alarm.tries), (day("2017-05-06"), Trouble::Refused, 1));
        block_on(agent.beat(&[])).unwrap();
        let beat: Heartbeat =
            serde_json::from_slice(&world.object(paths::heartbeat(&"s1".parse().unwrap()).unwrap().as_str()).unwrap())
                .unwrap();
        assert!(beat.alarms[0].reason.as_ref().unwrap().contains(value), "{beat:?}");
        assert_eq!(beat.runs[0].outcome, "ok", "the cycle itself was good");
        let journal = world.journal().unwrap();
        let troubled = journal.troubled_units(&"s1".parse().unwrap(), &"ventas".parse().unwrap()).unwrap();
        assert!(troubled[&day("2017-05-06")].refused.as_ref().unwrap().reason.contains(value));
    }
}

#[test]
fn the_window_does_not_grow_and_the_day_is_tried_a_few_times_and_then_left_alone() {
    for bad in BAD {
        let world = world(bad);
        world.once();
        world.ingest();
        let mut tries = 1;
        for step in 1..60 {
            // A day later each time, past the lookback window and months beyond.
            let date = jiff::civil::date(2017, 5, 10).checked_add(jiff::Span::new().days(step)).unwrap();
            world.clock.set(&format!("{date}T16:00:00Z"));
            let report = world.once();
            world.ingest();
            assert_eq!(report.datasets[0].compared, 8, "{bad} on {date}: the window stays as it is");
            assert_eq!(report.exit(), Exit::Source, "it is not forgotten: {:?}", report.problems);
            tries += u32::from(!report.datasets[0].refused.is_empty());
        }
        if bad.contains("25:00") {
            assert_eq!(tries, TRIES_MAX);
        }
        // Mended: sent at once, although it left the window long ago.
        world.sql("UPDATE lineas SET hora = '10:30:00', cantidad = 2 WHERE ticket = 90");
        let report = world.once();
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        assert_eq!(planned(&report), [day("2017-05-06")]);
        assert_eq!(world.lake()[&day("2017-05-06")].0, 5);
        world.ingest();
        assert_eq!(world.once().exit(), Exit::Done);
    }
}

#[test]
fn a_month_backfilled_with_bad_rows_is_sent_but_for_their_days() {
    for bad in BAD {
        let world = World::new();
        for (index, date) in days("2017-01-01", "2017-01-31").iter().enumerate() {
            world.sell(&date.to_string(), index as u32 * 10..index as u32 * 10 + 3);
        }
        for (ticket, date) in [(900, "2017-01-17"), (901, "2017-01-18"), (902, "2017-01-31")] {
            world.sql(&format!("INSERT INTO lineas VALUES ({ticket}, 1, '{date}', {bad})"));
        }
        let report = world.backfill("2017-01-01", "2017-01-31");
        assert_eq!(report.exit(), Exit::Source, "{:?}", report.problems);
        assert_eq!((sent_days(&world).len(), report.datasets[0].refused.len()), (28, 3), "{bad}");
        assert!(world.manifests().iter().flat_map(|one| &one.units).all(|unit| unit.is_proven()));
        // Again nothing but the refused days is asked for, and again the others stay as they are.
        let before = world.manifests().len();
        world.sql("DELETE FROM lineas WHERE ticket = 901");
        let report = world.backfill("2017-01-01", "2017-01-31");
        assert_eq!((sent_days(&world).len(), world.manifests().len()), (29, before + 1), "{:?}", report.problems);
    }
}

#[test]
fn a_complete_day_whose_new_rows_cannot_be_sent_is_doubted_until_they_can() {
    for bad in BAD {
        let world = World::new();
        world.sell("2017-05-06", 1..5);
        assert_eq!(world.once().exit(), Exit::Done);
        world.ingest();
        let doubted = |world: &World| {
            let all = world.objects_under("");
            let last = all.iter().rfind(|path| path.contains("differing")).map(|path| world.object(path).unwrap());
            last.is_some_and(|list| String::from_utf8_lossy(&list).contains("2017-05-06"))
        };
        world.sql(&format!("INSERT INTO lineas VALUES (90, 1, '2017-05-06', {bad})"));
        world.once();
        assert!(doubted(&world), "{bad}: the lake's old day must not stand as complete");
        world.sql("UPDATE lineas SET hora = '10:30:00', cantidad = 2 WHERE ticket = 90");
        world.once();
        world.ingest();
        world.once();
        world.once();
        assert!(!doubted(&world), "{bad}");
        assert_eq!(world.lake()[&day("2017-05-06")].0, 5);
    }
}

#[test]
fn another_mapping_tries_what_the_old_one_refused() {
    let mut world = world("'25:00:00', 'p', 2, 100");
    for _ in 0..TRIES_MAX + 2 {
        world.once();
    }
    assert!(planned(&world.once()).is_empty());
    let file = world.folder.path().join("agent.toml");
    std::fs::write(&file, CONFIG.replace("vendido_en = \"fecha || ' ' || hora\"\n", "")).unwrap();
    world.config = ribera_agent::config::Config::load(&file, &|_| Some("secret".to_owned())).unwrap();
    let report = world.once();
    assert!(planned(&report).contains(&day("2017-05-06")), "{:?}", report.datasets[0].planned);
    assert!(report.datasets[0].refused.is_empty());
    assert!(sent_days(&world).contains(&day("2017-05-06")));
}

#[test]
fn a_person_who_asks_for_a_refused_day_has_it_tried_again() {
    let world = world("'25:00:00', 'p', 2, 100");
    for _ in 0..TRIES_MAX + 2 {
        world.once();
    }
    let ask = RunMode::Extract { days: days("2017-05-06", "2017-05-06"), force: false };
    assert_eq!(world.run(ask).datasets[0].refused.len(), 1);
}

#[test]
fn a_journal_of_the_version_before_is_brought_up_to_date_and_read_by_who_may_not_write() {
    let world = World::new();
    world.sell("2017-05-09", 1..5);
    world.once();
    let known = |journal: &Journal| journal.all_units(&"s1".parse().unwrap(), &"ventas".parse().unwrap()).unwrap();
    // What that version did not write is unknown.
    let mut before = known(&world.journal().unwrap());
    before.values_mut().for_each(|unit| unit.values_digest = None);
    {
        let old = rusqlite::Connection::open(world.journal_file()).unwrap();
        old.execute_batch(
            "DROP INDEX unit_batch; DROP INDEX unit_refused; DROP INDEX batch_unit_unit;
             ALTER TABLE unit DROP COLUMN refused; ALTER TABLE unit DROP COLUMN values_digest; PRAGMA user_version = 1;",
        )
        .unwrap();
    }
    let bytes = std::fs::read(world.journal_file()).unwrap();
    let random = crate::fixture::Seeded(std::cell::Cell::new(7));
    assert_eq!(known(&Journal::open_file_to_read(&world.journal_file(), &random).unwrap()), before);
    assert_eq!(std::fs::read(world.journal_file()).unwrap(), bytes, "a reader changes nothing");
    assert_eq!(known(&world.journal().unwrap()), before);
    assert_eq!(world.once().exit(), Exit::Done);
    assert_eq!(world.manifests().len(), before.len(), "nothing is sent again");
}

#[test]
fn on_every_server_a_value_that_no_sum_takes_costs_its_day_only() {
    for kind in [Kind::Postgres, Kind::Firebird, Kind::Mariadb] {
        let place = Place::new(kind, "rechazada");
        let world = place.world(&LINES_MAPPING.replace("total = \"total\"", "total = { sql = \"total\", round = 2 }"));
        // NaN in PostgreSQL; elsewhere a number that the rounded type cannot hold.
        let (kind_of_total, bad) = match kind {
            Kind::Postgres => ("NUMERIC", "'NaN'"),
            _ => ("DOUBLE PRECISION", "1e300"),
        };
        place.create(
            &world,
            "lineas",
            &format!("ticket INTEGER, linea INTEGER, fecha DATE, producto VARCHAR(20), cantidad INTEGER, total {kind_of_total}"),
        );
        let mut rows: Vec<String> = (1..9)
            .map(|date| format!("INSERT INTO lineas VALUES ({date}, 1, '2017-05-0{date}', 'p', 2, 1.5)"))
            .collect();
        rows.push(format!("INSERT INTO lineas VALUES (90, 1, '2017-05-04', 'p', 2, {bad})"));
        place.sql(&world, &rows);
        let report = extract(&world, "2017-05-01", "2017-05-08");
        let told = format!("{kind:?}: {:?} {:?}", report.problems, report.datasets[0].refused);
        assert_eq!(report.exit(), Exit::Source, "{told}");
        assert_eq!((sent_days(&world).len(), report.datasets[0].refused.len()), (7, 1), "{told}");
        let again =
            run(&world.start().unwrap(), RunMode::Backfill { days: days("2017-05-01", "2017-05-08"), force: true });
        let told = format!("{kind:?}: {:?}", again.problems);
        assert_eq!((sent_days(&world).len(), again.datasets[0].refused.len()), (7, 1), "{told}");
    }
    assert_eq!(KINDS.len(), 4, "SQLite is in the tests above");
}
