//! A mapping that asks the wrong question ends with what is wrong with it, and proves nothing.

use ribera_agent::report::{Exit, Report};
use ribera_agent::run::collect::RunMode;

use crate::each::{KINDS, Kind, Place};
use crate::fixture::{CONFIG, World, days, extract, run};

/// Another date, range and filter for the till's table.
fn config(date: &str, range: Option<&str>, filter: Option<&str>) -> String {
    let range = range.map(|range| format!("range = \"{range}\"\n")).unwrap_or_default();
    let filter = filter.map(|filter| format!("where = \"{filter}\"\n")).unwrap_or_default();
    CONFIG.replace("date = \"fecha\"", &format!("date = \"{date}\"\n{range}{filter}"))
}

/// Each way in which days are asked for.
fn asks() -> [RunMode; 4] {
    [
        RunMode::Cycle,
        RunMode::Extract { days: days("2017-05-09", "2017-05-09"), force: false },
        RunMode::Extract { days: days("2017-05-01", "2017-05-10"), force: true },
        RunMode::Backfill { days: days("2017-04-01", "2017-05-10"), force: false },
    ]
}

fn refused(world: &World, report: &Report, parts: &[&str]) {
    assert_eq!(report.exit(), Exit::Config, "{:?}", report.problems);
    let message = &report.problems[0].message;
    for part in parts {
        assert!(message.contains(part), "{part} in {message}");
    }
    assert_eq!(world.manifests().len(), 0, "nothing is proven");
}

#[test]
fn a_date_that_does_not_compare_as_a_day_is_refused_by_name_and_value_however_days_are_asked_for() {
    let forms =
        ["20170509", "'09/05/2017'", "'2017-5-9'", "'2017-05-09 10:30:00'", "'2017-02-30'", "2457882.5", "x'31'"];
    for form in forms {
        for ask in asks() {
            let world = World::new();
            world.sql("DROP TABLE lineas");
            world.sql("CREATE TABLE lineas (ticket, linea, fecha, hora, producto, cantidad, centavos)");
            for ticket in 1..4 {
                world.sql(&format!("INSERT INTO lineas VALUES ({ticket}, 1, {form}, '10:30:00', 'p', 2, 100)"));
            }
            let shown = form.trim_matches(|letter| letter == '\'').trim_start_matches("x'3");
            refused(&world, &world.run(ask), &["ventas.date", shown, "\"fecha\""]);
        }
    }
}

#[test]
fn one_date_of_another_form_among_good_ones_is_named_with_their_number() {
    let world = World::new();
    world.sell("2017-05-08", 1..9);
    world.sql("INSERT INTO lineas VALUES (90, 1, '2017-5-9', '10:30:00', 'p', 2, 100)");
    refused(&world, &world.once(), &["\"2017-5-9\"", "1 of 9 rows", "where"]);
    world.sql("UPDATE lineas SET fecha = '2017-05-09' WHERE ticket = 90");
    let report = world.once();
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
}

#[test]
fn a_range_that_is_right_for_a_window_and_wrong_for_its_last_day_is_refused() {
    let moment = "fecha || ' ' || hora";
    for range in [
        format!("{moment} BETWEEN :from AND :to"),
        format!("{moment} >= :from AND {moment} <= :to"),
        format!("{moment} > :from AND {moment} < :to"),
        "fecha > :from AND fecha < :after".to_owned(),
        "fecha >= :from AND fecha < :to".to_owned(),
        "fecha = :from".to_owned(),
        "fecha BETWEEN :from AND :to AND ticket > 2".to_owned(),
    ] {
        for ask in asks() {
            let world = World::with_config(&config("fecha", Some(&range), None));
            world.sell("2017-05-08", 1..5);
            world.sell("2017-05-09", 11..15);
            refused(&world, &world.run(ask), &["ventas.range", "whole days"]);
        }
    }
    let right = format!("{moment} >= :from AND {moment} < :after");
    let world = World::with_config(&config("fecha", Some(&right), None));
    world.sell("2017-05-09", 1..5);
    assert_eq!(world.once().exit(), Exit::Done);
}

#[test]
fn a_range_that_selects_other_days_too_is_refused() {
    let world = World::with_config(&config("fecha", Some("fecha >= :from"), None));
    world.sell("2017-05-08", 1..5);
    world.sell("2017-05-09", 11..15);
    let ask = RunMode::Extract { days: days("2017-05-08", "2017-05-08"), force: false };
    refused(&world, &world.run(ask), &["ventas.range", "whole days"]);
}

#[test]
fn queries_written_by_hand_are_compared_as_a_window_and_as_a_day() {
    let sql = |range: &str| {
        let by_hand = format!(
            "extract = \"SELECT fecha, ticket AS ticket_id, linea, producto AS producto_id, cantidad, total FROM v WHERE {range} ORDER BY fecha\"\n\
             audit = \"SELECT fecha AS day, COUNT(*) AS rows, ribera_sum(cantidad) AS cantidad, ribera_sum(total) AS total FROM v WHERE {range} GROUP BY fecha\"\n"
        );
        let head = CONFIG.split("from = \"lineas\"").next().unwrap();
        format!("{head}{by_hand}")
    };
    let view = "CREATE VIEW v AS SELECT *, fecha || ' ' || hora AS momento, centavos AS total FROM lineas";
    for ask in asks() {
        let world = World::with_config(&sql("momento BETWEEN :from AND :to"));
        world.sql(view);
        world.sell("2017-05-08", 1..5);
        world.sell("2017-05-09", 11..15);
        refused(&world, &world.run(ask), &["extract and audit", "whole days"]);
    }
    let world = World::with_config(&sql("momento >= :from AND momento < :after"));
    world.sql(view);
    world.sell("2017-05-09", 11..15);
    let report = world.once();
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
}

#[test]
fn a_where_that_lets_no_row_of_a_full_table_pass_proves_no_empty_day() {
    let world = World::with_config(&config("fecha", None, Some("producto = 'P'")));
    world.sell("2017-05-09", 1..5);
    refused(&world, &world.once(), &["ventas.where", "none of 4"]);
    // An empty table has empty days.
    let world = World::with_config(&config("fecha", None, Some("producto = 'P'")));
    let report = world.once();
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    assert!(!world.manifests().is_empty());
}

#[test]
fn rows_without_a_date_and_of_days_to_come_are_counted_in_every_report() {
    let world = World::new();
    world.sell("2017-05-09", 1..5);
    world.sql("INSERT INTO lineas VALUES (80, 1, NULL, '10:30:00', 'p', 2, 100)");
    world.sql("INSERT INTO lineas VALUES (81, 1, '', '10:30:00', 'p', 2, 100)");
    world.sql("INSERT INTO lineas VALUES (82, 1, '0000-00-00', '10:30:00', 'p', 2, 100)");
    world.sell("2017-06-01", 90..95);
    for _ in 0..2 {
        let report = world.once();
        assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
        assert_eq!((report.datasets[0].undated_rows, report.datasets[0].future_rows), (3, 5));
    }
    assert_eq!(world.lake().values().map(|(rows, _)| rows).sum::<u64>(), 4);
    let world = World::new();
    world.sql("INSERT INTO lineas VALUES (80, 1, NULL, '10:30:00', 'p', 2, 100)");
    refused(&world, &world.once(), &["ventas.date", "NULL in all 1 rows"]);
}

#[test]
fn a_question_is_proven_once_and_again_after_a_week_or_when_the_mapping_changes() {
    let mut world = World::new();
    world.sell("2017-05-09", 1..5);
    let asked_at = |world: &World| {
        let report = world.once();
        assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
        let known = world.journal().unwrap().noted("question/s1/ventas/-009999-01-01").unwrap().expect("it is noted");
        known.split("asked_at\":\"").nth(1).unwrap()[..19].to_owned()
    };
    assert_eq!(asked_at(&world), "2017-05-10T16:00:00");
    world.clock.set("2017-05-17T15:00:00Z");
    assert_eq!(asked_at(&world), "2017-05-10T16:00:00");
    world.clock.set("2017-05-18T16:00:00Z");
    assert_eq!(asked_at(&world), "2017-05-18T16:00:00");
    // Bad dates that came in since are found by then.
    world.sql("INSERT INTO lineas VALUES (90, 1, '2017-5-9', '10:30:00', 'p', 2, 100)");
    world.clock.set("2017-05-26T16:00:00Z");
    assert_eq!(world.once().exit(), Exit::Config);
    world.sql("DELETE FROM lineas WHERE ticket = 90");
    assert_eq!(world.once().exit(), Exit::Done);
    // Another predicate is another question.
    let file = world.folder.path().join("agent.toml");
    std::fs::write(&file, config("fecha", Some("fecha > :from AND fecha < :after"), None)).unwrap();
    world.config = ribera_agent::config::Config::load(&file, &|_| Some("secret".to_owned())).unwrap();
    assert_eq!(world.once().exit(), Exit::Config);
}

#[test]
fn comments_and_semicolons_at_the_end_of_a_mappings_sql_swallow_nothing() {
    let config = CONFIG
        .replace("from = \"lineas\"", "from = \"lineas -- la tabla\"\nwhere = \"producto <> 'p2' -- anulado\"")
        .replace("date = \"fecha\"", "date = \"fecha /* día */ -- del ticket\"")
        .replace("producto_id = \"producto\"", "producto_id = \"producto -- código\"");
    let world = World::with_config(&config);
    world.sell("2017-05-09", 1..5);
    let report = world.once();
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    assert_eq!(world.lake()[&crate::fixture::day("2017-05-09")].0, 3, "the void ticket is left out");
    let open = World::with_config(&config.replace("-- anulado", "/* anulado"));
    open.sell("2017-05-09", 1..5);
    refused(&open, &open.once(), &["comments must end"]);
}

pub const LINES_MAPPING: &str = r#"
[adapter.caja.ventas]
from = "lineas"
date = "fecha"
[adapter.caja.ventas.columns]
ticket_id = "ticket"
linea = "linea"
producto_id = "producto"
cantidad = "cantidad"
total = "total"
"#;

/// A till whose business date is of type `fecha`, with two rows on the 8th and three on the 9th as `form` writes them.
fn till(kind: Kind, name: &str, fecha: &str, form: impl Fn(&str) -> String, mapping: &str) -> (World, Place) {
    let place = Place::new(kind, name);
    let world = place.world(mapping);
    // The fixture's own table has another date.
    if kind == Kind::Sqlite {
        world.sql("DROP TABLE lineas");
    }
    let columns = format!(
        "ticket INTEGER, linea INTEGER, fecha {fecha}, producto VARCHAR(20), cantidad INTEGER, total NUMERIC(18,2)"
    );
    place.create(&world, "lineas", &columns);
    let insert = |ticket: u32| {
        let date = form(if ticket < 3 { "2017-05-08" } else { "2017-05-09" });
        format!("INSERT INTO lineas VALUES ({ticket}, 1, {date}, 'p', 2, {ticket})")
    };
    place.sql(&world, &(1..6).map(insert).collect::<Vec<_>>());
    (world, place)
}

#[test]
fn every_kind_of_database_refuses_a_date_that_is_no_day() {
    let digits = |date: &str| date.replace('-', "");
    let local = |date: &str| format!("'{}/{}/{}'", &date[8..], &date[5..7], &date[..4]);
    let short = |date: &str| format!("'{}'", date.replace("-0", "-"));
    let moment = |date: &str| format!("'{date} 10:30:00'");
    for kind in KINDS {
        for (name, fecha, form) in [
            ("entero", "INTEGER", &digits as &dyn Fn(&str) -> String),
            ("local", "VARCHAR(30)", &local),
            ("corta", "VARCHAR(30)", &short),
            ("momento", "TIMESTAMP", &moment),
        ] {
            let (world, _) = till(kind, &format!("pregunta_{name}"), fecha, form, LINES_MAPPING);
            for ask in [
                RunMode::Extract { days: days("2017-05-09", "2017-05-09"), force: false },
                RunMode::Backfill { days: days("2017-05-01", "2017-05-10"), force: false },
                RunMode::Cycle,
            ] {
                let report = run(&world.start().unwrap(), ask);
                let told = format!("{kind:?} {name}: {:?}", report.problems);
                assert!(matches!(report.exit(), Exit::Config | Exit::Source), "{told}");
                assert_eq!((report.problems[0].kind, world.manifests().len()), ("config", 0), "{told}");
            }
        }
    }
}

#[test]
fn every_kind_of_database_proves_a_date_and_counts_rows_without_one() {
    let quoted = |date: &str| format!("'{date}'");
    for kind in KINDS {
        for (name, fecha) in [("fecha", "DATE"), ("medianoche", "TIMESTAMP"), ("texto", "VARCHAR(10)")] {
            let midnight = |date: &str| match (kind, fecha) {
                // Text of a moment is no day there.
                (Kind::Sqlite, _) => quoted(date),
                (_, "TIMESTAMP") => format!("'{date} 00:00:00'"),
                _ => quoted(date),
            };
            let (world, place) = till(kind, &format!("probada_{name}"), fecha, midnight, LINES_MAPPING);
            place.sql(&world, &["INSERT INTO lineas VALUES (70, 1, NULL, 'p', 2, 1)".to_owned()]);
            place.sql(&world, &[format!("INSERT INTO lineas VALUES (71, 1, {}, 'p', 2, 1)", midnight("2099-07-01"))]);
            let report = extract(&world, "2017-05-08", "2017-05-09");
            assert_eq!(report.exit(), Exit::Done, "{kind:?} {name}: {:?}", report.problems);
            let counted = (report.datasets[0].undated_rows, report.datasets[0].future_rows);
            assert_eq!(counted, (1, 1), "{kind:?} {name}");
            let rows: Vec<u64> = world.lake().values().map(|(rows, _)| *rows).collect();
            assert_eq!(rows, [2, 3], "{kind:?} {name}");
        }
    }
}

#[test]
fn every_kind_of_database_refuses_a_range_of_moments_that_loses_the_last_day() {
    let moment = |date: &str| format!("'{date} 10:30:00'");
    for kind in KINDS {
        let date = match kind {
            Kind::Sqlite => "date(fecha)",
            Kind::Mariadb => "DATE(fecha)",
            Kind::Postgres => "fecha::date",
            Kind::Firebird => "CAST(fecha AS DATE)",
        };
        let mapping =
            |range: &str| LINES_MAPPING.replace("date = \"fecha\"", &format!("date = \"{date}\"\nrange = \"{range}\""));
        let (wrong, _) = till(kind, "rango", "TIMESTAMP", moment, &mapping("fecha BETWEEN :from AND :to"));
        let report = extract(&wrong, "2017-05-09", "2017-05-09");
        assert_eq!((report.exit(), wrong.manifests().len()), (Exit::Config, 0), "{kind:?}: {:?}", report.problems);
        assert!(report.problems[0].message.contains("whole days"), "{kind:?}: {:?}", report.problems);
        let (right, _) = till(kind, "rango_bueno", "TIMESTAMP", moment, &mapping("fecha >= :from AND fecha < :after"));
        let report = extract(&right, "2017-05-09", "2017-05-09");
        assert_eq!(report.exit(), Exit::Done, "{kind:?}: {:?}", report.problems);
        assert_eq!(right.lake().values().next().unwrap().0, 3, "{kind:?}");
    }
}
