//! A day that cannot be proven is tried so often, told once, seen by the centre while it lasts, and over when
//! it is proven.

use std::time::Duration;

use ribera_agent::plan::TRIES_MAX;
use ribera_agent::report::{Exit, Report};
use ribera_agent::run::collect::RunMode;
use ribera_storage::batch::{AckOutcome, Facts};
use ribera_storage::heartbeat::{AuditAlarm, Heartbeat, Trouble};

use crate::fixture::{CONFIG, TestAgent, World, block_on, day, days, request};

/// The audit counts what a view says, the rows are the table's.
const BY_VIEW: &str = r#"
[adapter.caja.ventas]
extract = """
    SELECT fecha, ticket AS ticket_id, linea, producto AS producto_id, cantidad, centavos AS total
    FROM lineas WHERE fecha BETWEEN :from AND :to ORDER BY fecha
"""
audit = """
    SELECT fecha AS day, COUNT(*) AS rows, ribera_sum(cantidad) AS cantidad, ribera_sum(centavos) AS total
    FROM contadas WHERE fecha BETWEEN :from AND :to GROUP BY fecha
"""
[adapter.caja.ventas.columns]
total = { scale = 2 }
"#;

fn world() -> World {
    let stores = CONFIG.split("[adapter").next().unwrap();
    let world = World::with_config(&format!("{stores}{BY_VIEW}"));
    world.sql("CREATE VIEW contadas AS SELECT * FROM lineas");
    world
}

fn cycle(agent: &TestAgent) -> Report {
    block_on(agent.run("test", &request(RunMode::Cycle), Duration::ZERO))
}

fn beat(world: &World, agent: &TestAgent) -> Vec<AuditAlarm> {
    block_on(agent.beat(&[])).unwrap();
    let heartbeat: Heartbeat = serde_json::from_slice(&world.object("agents/s1/heartbeat.json").unwrap()).unwrap();
    assert_eq!(heartbeat.alarms_total, heartbeat.alarms.len() as u64);
    heartbeat.alarms
}

fn told(agent: &TestAgent) -> usize {
    agent.log_tail.borrow().iter().filter(|line| line.contains("given up")).count()
}

#[test]
fn a_source_whose_audit_never_agrees_is_tried_then_an_alarm_and_clears_when_it_is_proven() {
    let world = world();
    world.sell("2017-05-09", 1..4);
    // The view forgets a ticket: its count differs from the rows, today and tomorrow.
    world.sql("DROP VIEW contadas; CREATE VIEW contadas AS SELECT * FROM lineas WHERE ticket <> 2");
    let agent = world.start().unwrap();
    for run in 1..=TRIES_MAX {
        assert!(beat(&world, &agent).is_empty(), "run {run}");
        let report = cycle(&agent);
        assert_eq!((report.exit(), report.datasets[0].unproven.clone()), (Exit::Unproven, vec![day("2017-05-09")]));
        assert!(report.datasets[0].tries >= 3, "each run tries three times: {:?}", report.datasets);
        world.ingest();
    }
    let raised = cycle(&agent);
    assert_eq!(raised.datasets[0].batches, 0, "it is left alone now");
    let sent = world.manifests().len();
    for _ in 0..5 {
        let report = cycle(&agent);
        assert_eq!((report.exit(), report.problems.len(), report.alarms.len()), (Exit::Unproven, 0, 1));
        assert_eq!((world.manifests().len(), told(&agent)), (sent, 1), "told once, not at each cycle");
    }
    let alarms = beat(&world, &agent);
    assert_eq!(alarms.len(), 1);
    let AuditAlarm { unit, trouble, tries, source, sent, .. } = &alarms[0];
    assert_eq!((*unit, *trouble, *tries), (day("2017-05-09"), Trouble::Unproven, TRIES_MAX));
    assert_eq!((source.rows, sent.rows), (2, 3), "the facts of both sides");
    // Somebody mends the view: the day is proven and acknowledged.
    world.sql("DROP VIEW contadas; CREATE VIEW contadas AS SELECT * FROM lineas");
    let report = cycle(&agent);
    assert_eq!((report.exit(), report.alarms.len()), (Exit::Unproven, 1), "not before the lake has it");
    world.ingest();
    let report = cycle(&agent);
    assert_eq!((report.exit(), report.alarms.len()), (Exit::Done, 0), "{:?}", report.problems);
    assert!(agent.log_tail.borrow().last().unwrap().contains("in order again"));
    assert!(beat(&world, &agent).is_empty());
    // Once more, and it is told once more.
    world.sql("DROP VIEW contadas; CREATE VIEW contadas AS SELECT * FROM lineas WHERE ticket <> 3");
    for _ in 0..=TRIES_MAX {
        cycle(&agent);
        world.ingest();
    }
    assert_eq!((told(&agent), beat(&world, &agent).len()), (2, 1));
}

#[test]
fn an_alarm_is_told_by_one_run_and_remembered_by_every_later_one() {
    let world = world();
    world.sell("2017-05-09", 1..4);
    world.sql("DROP VIEW contadas; CREATE VIEW contadas AS SELECT * FROM lineas WHERE ticket <> 2");
    // From cron: each run is a program of its own.
    let reports: Vec<Report> = (0..TRIES_MAX + 4).map(|_| world.once()).collect();
    let tellers = reports.iter().filter(|one| one.problems.iter().any(|two| two.message.contains("given up")));
    let telling: Vec<&Report> = tellers.collect();
    assert_eq!(telling.len(), 1);
    let problem = telling[0].problems.iter().find(|one| one.message.contains("given up")).unwrap();
    assert_eq!(
        problem.hint.as_deref(),
        Some("ribera-agent audit --stores s1 --datasets ventas --from 2017-05-09 --to 2017-05-09")
    );
    for report in reports.iter().rev().take(3) {
        assert_eq!((report.exit_code, report.alarms.len(), report.problems.len()), (6, 1, 0), "cron sees the code");
    }
}

#[test]
fn a_lake_that_always_reports_other_sums_raises_the_alarm_and_a_person_ends_it() {
    let world = world();
    world.sell("2017-05-09", 1..4);
    let agent = world.start().unwrap();
    let other = |manifest: &ribera_storage::batch::Manifest| {
        let wrong = |facts: &Facts| {
            let mut facts = facts.clone();
            let total = facts.sums.get_mut("total").unwrap();
            *total = total.checked_add("0.01".parse().unwrap()).unwrap();
            facts
        };
        let is_it = |unit| unit == day("2017-05-09");
        let held = manifest.units.iter().map(|facts| match is_it(facts.unit) {
            true => (facts.unit, wrong(&facts.file)),
            false => (facts.unit, facts.file.clone()),
        });
        AckOutcome::Committed { version: 1, rows: 0, units: held.collect() }
    };
    // An answer is read at the end of a cycle, and acted on in the next.
    for _ in 0..2 * TRIES_MAX + 2 {
        cycle(&agent);
        world.ingest_with(other);
    }
    let report = cycle(&agent);
    assert_eq!((report.exit(), report.datasets[0].batches, told(&agent)), (Exit::Unproven, 0, 1));
    let of_the_day =
        |world: &World| world.manifests().iter().filter(|one| one.units[0].unit == day("2017-05-09")).count();
    assert_eq!(of_the_day(&world), TRIES_MAX as usize, "sent so often, and no more");
    assert_eq!(beat(&world, &agent)[0].trouble, Trouble::LakeDiffers);
    // Somebody mended the lake, and asks.
    let asked = RunMode::Extract { days: days("2017-05-09", "2017-05-09"), force: false };
    block_on(agent.run("test", &request(asked), Duration::ZERO));
    world.ingest();
    assert_eq!((cycle(&agent).exit(), beat(&world, &agent).len()), (Exit::Done, 0));
}

#[test]
fn a_day_that_was_not_proven_when_it_left_the_lookback_is_tried_on_and_then_told() {
    let world = world();
    world.sell("2017-04-03", 1..4);
    world.sql("DROP VIEW contadas; CREATE VIEW contadas AS SELECT * FROM lineas WHERE ticket <> 2");
    let agent = world.start().unwrap();
    let backfill = RunMode::Backfill { days: days("2017-04-03", "2017-04-03"), force: false };
    block_on(agent.run("test", &request(backfill), Duration::ZERO));
    world.ingest();
    for _ in 0..TRIES_MAX + 2 {
        assert_eq!(cycle(&agent).exit(), Exit::Unproven);
        world.ingest();
    }
    assert_eq!((told(&agent), beat(&world, &agent)[0].unit), (1, day("2017-04-03")));
    let sent = world.manifests().iter().filter(|one| one.units[0].unit == day("2017-04-03")).count();
    assert_eq!(sent, TRIES_MAX as usize);
}

#[test]
fn an_alarm_ends_with_the_facts_of_its_day() {
    let mut world = world();
    world.config.limits.facts_days = 31;
    world.sell("2017-05-09", 1..4);
    world.sql("DROP VIEW contadas; CREATE VIEW contadas AS SELECT * FROM lineas WHERE ticket <> 2");
    for _ in 0..TRIES_MAX + 1 {
        world.once();
        world.ingest();
    }
    assert_eq!(world.once().alarms.len(), 1);
    world.clock.set("2017-08-10T16:00:00Z");
    world.once();
    world.ingest();
    world.once();
    assert!(world.once().alarms.is_empty(), "nothing is known of the day any more");
}

#[test]
fn a_snapshot_that_was_refused_is_told_and_made_up_for_by_the_next() {
    let stock = "[adapter.caja.inventario]\nfrom = \"existencias\"\n[adapter.caja.inventario.columns]\n\
                 producto_id = \"codigo\"\nexistencia = \"cantidad\"\n";
    let world = World::with_config(&format!("{CONFIG}{stock}"));
    world.sql("CREATE TABLE existencias (codigo TEXT, cantidad INTEGER); INSERT INTO existencias VALUES ('a', 5)");
    let agent = world.start().unwrap();
    cycle(&agent);
    world.ingest_with(|manifest| match manifest.batch.dataset.as_str() {
        "inventario" => AckOutcome::Quarantined {
            reason: ribera_storage::batch::QuarantineReason::CheckFailed,
            detail: "existencia: below 0".to_owned(),
        },
        _ => {
            let units = manifest.units.iter().map(|facts| (facts.unit, facts.file.clone())).collect();
            AckOutcome::Committed { version: 1, rows: 0, units }
        }
    });
    let report = cycle(&agent);
    assert_eq!((report.exit(), report.alarms.len(), told(&agent)), (Exit::Unproven, 1, 1));
    assert_eq!(beat(&world, &agent)[0].trouble, Trouble::Quarantined);
    world.clock.set("2017-05-10T21:00:00Z");
    cycle(&agent);
    world.ingest();
    let report = cycle(&agent);
    assert_eq!((report.exit(), report.alarms.len()), (Exit::Done, 0), "{:?}", report.problems);
}
