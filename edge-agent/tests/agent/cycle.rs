//! What a cycle finds, sends and leaves alone.

use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Decimal128Type, TimestampMicrosecondType};
use ribera_agent::plan::Why;
use ribera_agent::report::Exit;
use ribera_agent::run::collect::RunMode;
use ribera_storage::Unit;

use crate::fixture::{CONFIG, World, day, days};

#[test]
fn a_day_reaches_the_store_as_its_till_has_it() {
    let world = World::new();
    world.sell("2017-05-09", 1..4);
    world.sql("INSERT INTO lineas VALUES (4, 1, '2017-05-09', '23:59:59', 'ñandú', -1, -12345)");
    let report = world.once();
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    let manifest = world.manifests().into_iter().find(|one| one.units[0].unit == day("2017-05-09")).unwrap();
    assert!(manifest.units[0].is_proven());
    let rows = world.rows(&manifest);
    let column = |name: &str| rows[0].column_by_name(name).unwrap().clone();
    assert_eq!(column("total").as_primitive::<Decimal128Type>().values().to_vec(), [105, 205, 305, -12345]);
    assert_eq!(column("cantidad").as_primitive::<Decimal128Type>().values().to_vec(), [2000, 2000, 2000, -1000]);
    assert_eq!(column("ubicacion_id").as_string::<i32>().value(0), "s1");
    assert_eq!(column("ticket_id").as_string::<i32>().value(0), "1");
    assert_eq!(column("producto_id").as_string::<i32>().value(3), "ñandú");
    assert_eq!(column("fecha").as_primitive::<Date32Type>().value(0), 17_295);
    let sold = column("vendido_en").as_primitive::<TimestampMicrosecondType>().value(3);
    assert_eq!(jiff::Timestamp::from_microsecond(sold).unwrap().to_string(), "2017-05-10T03:59:59Z");
    assert_eq!(manifest.units[0].file.sums["total"].to_string(), "-117.30");
}

#[test]
fn a_year_backfilled_is_twelve_batches_with_every_days_facts_and_again_nothing() {
    let world =
        World::with_config(&CONFIG.replace("adapter = \"caja\"", "closed = \"2016-12-31\"\nadapter = \"caja\""));
    for (index, date) in days("2016-01-01", "2016-12-31").iter().enumerate().filter(|(index, _)| index % 3 == 0) {
        world.sell(&date.to_string(), index as u32 * 10..index as u32 * 10 + 4);
    }
    let report = world.backfill("2016-01-01", "2016-12-31");
    assert_eq!((report.exit(), report.upload.batches), (Exit::Done, 12), "{:?}", report.problems);
    let manifests = world.manifests();
    assert_eq!(manifests.iter().map(|one| one.units.len()).sum::<usize>(), 366);
    assert!(manifests.iter().flat_map(|one| &one.units).all(|facts| facts.is_proven()));
    assert_eq!(manifests.iter().map(|one| one.file.rows).sum::<u64>(), 122 * 4);
    assert_eq!(world.backfill("2016-01-01", "2016-12-31").datasets[0].planned.len(), 0);
    let once = world.once();
    assert_eq!((once.datasets[0].planned.len(), world.manifests().len()), (0, 12));
}

#[test]
fn late_rows_voids_and_changes_that_cancel_out_are_found_without_a_cursor() {
    let world = World::new();
    world.sell("2017-05-05", 1..10);
    world.sell("2017-05-06", 20..30);
    world.sell("2017-05-07", 40..50);
    world.once();
    world.ingest();
    let before = world.manifests().len();
    // A late row, a voided ticket, and two changes whose count and sums are as before.
    world.sell("2017-05-05", 90..91);
    world.sql("DELETE FROM lineas WHERE ticket = 25");
    world.sql("UPDATE lineas SET centavos = centavos + 1 WHERE ticket = 41");
    world.sql("UPDATE lineas SET centavos = centavos - 1 WHERE ticket = 42");
    let report = world.once();
    let planned: Vec<(Unit, Why)> = report.datasets[0].planned.iter().map(|one| (one.unit, one.why)).collect();
    let changed = ["2017-05-05", "2017-05-06", "2017-05-07"].map(|date| (day(date), Why::Changed));
    assert_eq!(planned, changed);
    assert_eq!(world.manifests().len(), before + 3);
    assert_eq!(world.lake()[&day("2017-05-05")].0, 10);
    assert_eq!(world.lake()[&day("2017-05-06")].0, 9);
}

#[test]
fn a_cycle_that_failed_begins_again_after_a_quarter_of_an_hour() {
    let world = World::new();
    world.sell("2017-05-10", 1..3);
    world.sql("ALTER TABLE lineas RENAME TO otras");
    let begun = |at: &str| {
        world.clock.set(at);
        world.run(RunMode::Due).datasets.len()
    };
    assert_eq!(begun("2017-05-10T16:00:00Z"), 1);
    world.sql("ALTER TABLE otras RENAME TO lineas");
    assert_eq!(begun("2017-05-10T16:14:00Z"), 0);
    assert_eq!(begun("2017-05-10T16:15:00Z"), 1);
    assert!(!world.manifests().is_empty());
    // It succeeded: the schedule of an hour holds again.
    assert_eq!(begun("2017-05-10T17:14:00Z"), 0);
    assert_eq!(begun("2017-05-10T17:15:00Z"), 1);
}

#[test]
fn an_open_day_is_sent_with_every_change_and_once_more_when_it_has_closed() {
    let world = World::new();
    world.sell("2017-05-10", 1..3);
    world.once();
    let today = |world: &World| {
        world.manifests().into_iter().filter(|one| one.units[0].unit == day("2017-05-10")).collect::<Vec<_>>()
    };
    assert_eq!(today(&world).iter().map(|one| one.units[0].closed).collect::<Vec<_>>(), [false]);
    world.once();
    assert_eq!(today(&world).len(), 1, "nothing changed");
    world.clock.set("2017-05-11T06:59:00Z");
    world.once();
    assert_eq!(today(&world).len(), 1, "not closed before 03:00 in New York");
    world.clock.set("2017-05-11T07:00:00Z");
    world.once();
    assert_eq!(today(&world).iter().map(|one| one.units[0].closed).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn a_day_is_extracted_once_more_when_it_leaves_the_lookback_and_then_never() {
    let world = World::new();
    world.sell("2017-05-03", 1..3);
    world.once();
    let sent = |world: &World| {
        world.manifests().iter().filter(|one| one.units.iter().any(|facts| facts.unit == day("2017-05-03"))).count()
    };
    assert_eq!(sent(&world), 1);
    world.clock.set("2017-05-11T16:00:00Z");
    let report = world.once();
    assert!(
        report.datasets[0].planned.iter().any(|one| one.why == Why::LeavesLookback && one.unit == day("2017-05-03"))
    );
    assert_eq!(sent(&world), 2);
    world.clock.set("2017-05-12T16:00:00Z");
    world.once();
    assert_eq!(sent(&world), 2);
}

#[test]
fn days_missed_while_the_agent_was_off_are_made_up_for() {
    let world = World::new();
    world.once();
    for (index, date) in days("2017-05-11", "2017-06-20").iter().enumerate() {
        world.sell(&date.to_string(), index as u32 * 10..index as u32 * 10 + 2);
    }
    world.clock.set("2017-06-20T23:00:00Z");
    world.once();
    let lake = world.lake();
    for date in days("2017-05-11", "2017-06-20").iter() {
        assert_eq!(lake[&Unit::Day(date)].0, 2, "{date}");
    }
}

#[test]
fn a_dry_run_asks_and_writes_nothing() {
    let mut world = World::new();
    world.sell("2017-05-09", 1..4);
    world.config.dry_run = true;
    let journal =
        ribera_agent::journal::Journal::open_file_to_read(&world.journal_file(), &ribera_agent::host::OsRandom)
            .unwrap();
    let agent = world.start_with(journal).unwrap();
    let report = crate::fixture::block_on(agent.run(
        "test",
        &crate::fixture::request(RunMode::Cycle),
        std::time::Duration::ZERO,
    ));
    assert!(report.datasets[0].planned.iter().any(|one| one.unit == day("2017-05-09")));
    assert_eq!(report.exit(), Exit::Done);
    assert!(world.objects_under("").is_empty());
    assert!(!world.journal_file().exists());
    assert!(
        world.fail_points.seen.borrow().iter().all(|step| *step == "source.query"),
        "{:?}",
        world.fail_points.seen.borrow()
    );
}

#[test]
fn local_only_fills_the_spool_and_the_next_run_sends_it() {
    let mut world = World::new();
    world.sell("2017-05-09", 1..4);
    world.config.local_only = true;
    let report = world.once();
    assert!(report.upload.waiting > 0 && world.objects_under("").is_empty());
    world.config.local_only = false;
    world.once();
    assert_eq!(world.lake()[&day("2017-05-09")], (3, "6.15".to_owned()));
}

#[test]
fn a_value_that_does_not_fit_is_an_error_naming_column_row_and_value() {
    let world = World::new();
    world.sell("2017-05-09", 1..4);
    world.sql("INSERT INTO lineas VALUES (7, 1, '2017-05-09', '10:00:00', 'p', 'muchos', 5)");
    let report = world.once();
    assert_eq!(report.exit(), Exit::Source);
    let message = &report.problems[0].message;
    for word in ["s1", "ventas", "muchos"] {
        assert!(message.contains(word), "{message:?} should name {word}");
    }
    world.sql("UPDATE lineas SET cantidad = 1, hora = '25:00:00' WHERE ticket = 7");
    let message = world.once().problems[0].message.clone();
    for word in ["lineas", "vendido_en", "ticket_id = \"7\"", "linea = 1", "2017-05-09 25:00:00"] {
        assert!(message.contains(word), "{message:?} should name {word}");
    }
    assert!(!world.lake().contains_key(&day("2017-05-09")));
    // The day with the bad row waits; the others do not.
    world.sell("2017-05-08", 20..23);
    assert_eq!(world.once().exit(), Exit::Source);
    assert_eq!(world.lake()[&day("2017-05-08")].0, 3);
}

#[test]
fn a_float_is_refused_unless_rounding_is_declared() {
    let world = World::new();
    world.sql("INSERT INTO lineas VALUES (1, 1, '2017-05-09', '10:00:00', 'p', 1.5, 5)");
    assert!(world.once().problems[0].message.contains("round"));
    let rounding = CONFIG.replace("cantidad = \"cantidad\"", "cantidad = { sql = \"cantidad\", round = 3 }");
    let world = World::with_config(&rounding);
    world.sql("INSERT INTO lineas VALUES (1, 1, '2017-05-09', '10:00:00', 'p', 1.1005, 5)");
    world.sql("INSERT INTO lineas VALUES (2, 1, '2017-05-09', '10:00:00', 'p', 0.1 + 0.2, 5)");
    assert_eq!(world.once().exit(), Exit::Done);
    let manifest = world.manifests().into_iter().find(|one| one.units[0].unit == day("2017-05-09")).unwrap();
    assert!(manifest.units[0].is_proven());
    assert_eq!(manifest.units[0].file.sums["cantidad"].to_string(), "1.401");
}

#[test]
fn one_store_that_fails_leaves_the_others_alone() {
    let two = CONFIG.to_owned()
        + "\n[[store]]\nid = \"s2\"\ntime_zone = \"UTC\"\nadapter = \"caja\"\nsource = { kind = \"sqlite\", path = \"absent.db\" }\n";
    let world = World::with_config(&two);
    world.sell("2017-05-09", 1..4);
    let report = world.once();
    assert_eq!(report.exit(), Exit::Source);
    assert_eq!(report.problems[0].store.as_ref().unwrap().as_str(), "s2");
    assert_eq!(world.lake()[&day("2017-05-09")].0, 3);
}

#[test]
fn forced_days_are_sent_again_though_nothing_changed() {
    let world = World::new();
    world.sell("2017-05-09", 1..4);
    world.once();
    let extract = |force| RunMode::Extract { days: days("2017-05-09", "2017-05-09"), force };
    assert_eq!(world.run(extract(false)).upload.batches, 0);
    assert_eq!(world.run(extract(true)).upload.batches, 1);
}

#[test]
fn a_day_is_not_closed_before_the_object_stores_clock_says_so_however_far_ahead_the_till_is() {
    let world = World::new();
    world.sell("2017-05-10", 1..3);
    let closed = |world: &World| -> Vec<bool> {
        let today = world.manifests().into_iter().filter(|one| one.units[0].unit == day("2017-05-10"));
        today.map(|one| one.units[0].closed).collect()
    };
    // Past the closing of the 10th by the till, three hours before it by the store.
    world.clock.set("2017-05-11T08:00:00Z");
    world.objects.set_now("2017-05-11T04:00:00Z".parse().unwrap());
    world.once();
    assert_eq!(closed(&world), [false]);
    world.clock.set("2017-05-11T08:00:00Z");
    world.once();
    assert_eq!(closed(&world), [false, true]);
}

#[test]
fn a_day_on_which_the_source_was_away_is_found_however_many_cycles_failed_since() {
    let world = World::new();
    world.once();
    world.sell("2017-05-11", 1..3);
    world.sql("ALTER TABLE lineas RENAME TO away");
    for date in ["2017-05-12", "2017-05-16", "2017-05-21", "2017-05-29"] {
        world.clock.set(&format!("{date}T16:00:00Z"));
        assert!(!world.once().problems.is_empty());
    }
    world.sql("ALTER TABLE away RENAME TO lineas");
    world.clock.set("2017-05-30T16:00:00Z");
    world.once();
    assert_eq!(world.lake()[&day("2017-05-11")].0, 2);
}

#[test]
fn history_is_compared_by_count_and_sums_and_the_days_of_the_window_by_a_hash_too() {
    let world = World::new();
    // Where a transaction holds what is read still.
    world.till.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).unwrap();
    world.sell("2017-03-05", 1..4);
    world.sell("2017-05-08", 11..14);
    assert_eq!(world.backfill("2017-03-01", "2017-05-09").exit(), Exit::Done);
    world.ingest();
    let hash = |text: &str| {
        let journal = world.journal().unwrap();
        let id = &world.config.stores[0].id;
        let date = day(text).date().unwrap();
        let units = journal.units_between(id, &"ventas".parse().unwrap(), date, date).unwrap();
        units.into_values().next().unwrap().fingerprint.hash
    };
    assert_eq!((hash("2017-03-05"), hash("2017-05-08").is_some()), (None, true));
    let batches = |report: &ribera_agent::report::Report| report.datasets[0].batches;
    // What no sum shows: in the window a cycle finds it, of history a person has to insist.
    world.sql("UPDATE lineas SET producto = 'otro' WHERE fecha IN ('2017-03-05', '2017-05-08')");
    let report = world.backfill("2017-03-01", "2017-03-31");
    assert_eq!(batches(&report), 0, "{report:?}");
    assert_eq!(batches(&world.once()), 1);
    world.sql("UPDATE lineas SET centavos = centavos + 1 WHERE fecha = '2017-03-05' AND ticket = 1");
    assert_eq!(batches(&world.backfill("2017-03-01", "2017-03-31")), 1);
    let insists = RunMode::Backfill { days: days("2017-03-01", "2017-03-31"), force: true };
    assert_eq!(batches(&world.run(insists)), 1);
}

#[test]
fn without_a_snapshot_history_is_guarded_by_the_hash() {
    let world = World::new();
    // No lock is held between reads there, so nothing holds still.
    world.till.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(())).unwrap();
    world.sell("2017-03-05", 1..4);
    assert_eq!(world.backfill("2017-03-01", "2017-03-31").exit(), Exit::Done);
    let date = day("2017-03-05").date().unwrap();
    let journal = world.journal().unwrap();
    let units = journal.units_between(&world.config.stores[0].id, &"ventas".parse().unwrap(), date, date).unwrap();
    assert!(units.into_values().next().unwrap().fingerprint.hash.is_some());
}

#[test]
fn a_cycle_that_drifts_over_the_end_of_a_stretch_leaves_none_without_a_snapshot() {
    let stock = "[adapter.caja.inventario]\nfrom = \"existencias\"\n[adapter.caja.inventario.columns]\n\
                 producto_id = \"codigo\"\nexistencia = \"cantidad\"\n";
    let world = World::with_config(&format!("{CONFIG}{stock}"));
    world.sql("CREATE TABLE existencias (codigo TEXT, cantidad INTEGER); INSERT INTO existencias VALUES ('a', 5)");
    let agent = world.start().unwrap();
    // Every four hours by the clock of New York; each look comes a little later than the one a stretch before.
    for look in ["07:59:50", "08:00:20", "08:30:10", "11:59:40", "12:00:10", "16:00:40", "16:16:00"] {
        world.clock.set(&format!("2017-05-11T{look}Z"));
        crate::fixture::block_on(agent.run("run", &crate::fixture::request(RunMode::Due), std::time::Duration::ZERO));
    }
    let moments: Vec<String> = world
        .manifests()
        .into_iter()
        .filter(|one| one.batch.dataset.as_str() == "inventario")
        .map(|one| one.units[0].unit.to_string())
        .collect();
    let hours: Vec<&str> = moments.iter().map(|moment| &moment[11..16]).collect();
    assert_eq!(hours, ["07:59", "08:30", "12:00", "16:00"], "{moments:?}");
}

/// The source says of its days what it said before: without a hash nothing else tells.
#[test]
fn a_corrected_mapping_another_zone_or_character_set_sends_the_days_again_once() {
    const ZONE: &str = "time_zone = \"America/New_York\"";
    const SOURCE: &str = "path = \"pos.db\"";
    const MAPPING: &str = "from = \"lineas\"";
    let without_hash = CONFIG.replace(MAPPING, &format!("{MAPPING}\nrow_hash = false"));
    let corrections = [
        ("producto_id = \"producto\"", "producto_id = \"upper(producto)\"", true),
        ("fecha || ' ' || hora", "fecha || ' 12:00:00'", true),
        (
            "vendido_en = \"fecha || ' ' || hora\"",
            "vendido_en = { sql = \"fecha || ' ' || hora\", zone = \"UTC\" }",
            true,
        ),
        (MAPPING, "from = \"lineas\"\nwhere = \"1 = 1\"", true),
        (ZONE, "time_zone = \"America/Bogota\"", true),
        (SOURCE, "path = \"pos.db\", charset = \"windows-1252\"", true),
        // What only proves or paces.
        (MAPPING, "from = \"lineas\"\nchunk_rows = 1000", false),
        (MAPPING, "from = \"lineas\"\norder = [\"ticket\"]", false),
    ];
    for (before, after, shall_send) in corrections {
        let mut world = World::with_config(&without_hash);
        world.sell("2017-05-09", 1..4);
        world.sell("2017-05-08", 11..12);
        assert_eq!(world.once().exit(), Exit::Done);
        world.ingest();
        assert_eq!(world.once().datasets[0].batches, 0);
        let corrected = without_hash.replacen(before, after, 1);
        assert_ne!(corrected, without_hash);
        let file = world.folder.path().join("agent.toml");
        std::fs::write(&file, corrected).unwrap();
        world.config = ribera_agent::config::Config::load(&file, &|_| None).unwrap();
        let report = world.once();
        assert_eq!(report.exit(), Exit::Done, "{after}: {:?}", report.problems);
        let whys: Vec<Why> = report.datasets[0].planned.iter().map(|one| one.why).collect();
        // Every day of the window: one without rows is a fact too.
        assert_eq!(whys, vec![Why::Definition; if shall_send { 7 } else { 0 }], "{after}");
        world.ingest();
        assert_eq!(world.once().datasets[0].batches, 0, "{after}: once is enough");
    }
}
