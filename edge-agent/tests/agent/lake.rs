//! What the lake answers, and what the agent makes of it.

use std::cell::Cell;

use ribera_agent::report::Exit;
use ribera_storage::ObjectStore;
use ribera_storage::batch::{AckOutcome, Facts, Manifest, QuarantineReason};
use ribera_storage::store::StoreDefinition;

use crate::fixture::{World, day};

fn committed(manifest: &Manifest) -> AckOutcome {
    let units = manifest.units.iter().map(|facts| (facts.unit, facts.file.clone())).collect();
    AckOutcome::Committed { version: 1, rows: 0, units }
}

fn refused(reason: QuarantineReason) -> impl Fn(&Manifest) -> AckOutcome {
    move |manifest| match manifest.units[0].unit == day("2017-05-09") {
        true => AckOutcome::Quarantined { reason, detail: "damaged on the way".to_owned() },
        false => committed(manifest),
    }
}

fn sent(world: &World) -> usize {
    world.manifests().iter().filter(|one| one.units[0].unit == day("2017-05-09")).count()
}

#[test]
fn a_committed_batch_leaves_the_spool_and_its_facts_stay() {
    let world = World::new();
    world.sell("2017-05-09", 1..4);
    world.once();
    assert!(!ribera_agent::ports::SpoolDisk::list(&world.disk).unwrap().is_empty());
    world.ingest();
    let report = world.once();
    assert_eq!((report.upload.waiting, report.exit()), (0, Exit::Done));
    assert!(ribera_agent::ports::SpoolDisk::list(&world.disk).unwrap().is_empty());
    let agent = world.start().unwrap();
    let known = agent.journal.all_units(&"s1".parse().unwrap(), &"ventas".parse().unwrap()).unwrap();
    assert_eq!(known[&day("2017-05-09")].lake.as_str(), "agrees");
}

#[test]
fn a_batch_damaged_on_the_way_is_extracted_and_sent_again_a_few_times() {
    let world = World::new();
    world.sell("2017-05-09", 1..4);
    world.once();
    for _ in 0..12 {
        world.ingest_with(refused(QuarantineReason::FileHashMismatch));
        let report = world.once();
        if report.upload.acknowledged > 0 && sent(&world) < 5 {
            assert_eq!(report.exit(), Exit::Unproven);
        }
    }
    assert_eq!(sent(&world), 5, "then it waits for a person");
}

#[test]
fn a_batch_that_breaks_a_rule_is_not_sent_again_until_the_day_changes() {
    let world = World::new();
    world.sell("2017-05-09", 1..4);
    world.once();
    world.ingest_with(refused(QuarantineReason::CheckFailed));
    let report = world.once();
    assert_eq!(report.exit(), Exit::Unproven);
    assert!(report.problems[0].message.contains("check_failed"), "{:?}", report.problems);
    world.once();
    assert_eq!(sent(&world), 1);
    world.sell("2017-05-09", 7..8);
    world.once();
    assert_eq!(sent(&world), 2);
}

#[test]
fn a_store_whose_repair_is_held_is_left_alone_until_a_person_asks() {
    let world = World::new();
    let definition = StoreDefinition::from_toml(
        "id = \"s1\"\nname = \"Uno\"\ntime_zone = \"America/New_York\"\nhold_repair = true\n",
    );
    crate::fixture::block_on(ribera_storage::control::publish_store(&world.objects, &definition.unwrap())).unwrap();
    world.sell("2017-05-09", 1..4);
    world.once();
    world.ingest_with(refused(QuarantineReason::FileHashMismatch));
    world.once();
    world.once();
    assert_eq!(sent(&world), 1);
    world.backfill("2017-05-09", "2017-05-09");
    assert_eq!(sent(&world), 2);
}

#[test]
fn a_lake_that_holds_other_facts_is_told_and_the_day_sent_again() {
    let world = World::new();
    world.sell("2017-05-09", 1..4);
    world.once();
    let first = Cell::new(true);
    world.ingest_with(|manifest| {
        let units = manifest.units.iter().map(|facts| (facts.unit, Facts { rows: 2, ..facts.file.clone() })).collect();
        match manifest.units[0].unit == day("2017-05-09") && first.replace(false) {
            true => AckOutcome::Committed { version: 1, rows: 2, units },
            false => committed(manifest),
        }
    });
    let report = world.once();
    assert_eq!(report.exit(), Exit::Unproven);
    assert!(report.problems[0].message.contains("the lake holds other rows"), "{:?}", report.problems);
    world.once();
    world.ingest();
    assert_eq!((sent(&world), world.once().exit()), (2, Exit::Done));
}

#[test]
fn a_portals_page_instead_of_an_answer_is_no_answer() {
    let world = World::new();
    world.sell("2017-05-09", 1..4);
    world.once();
    for manifest in world.manifests() {
        let path = ribera_storage::paths::ack(&manifest.batch).unwrap();
        let page = b"<html>Bienvenido al WiFi</html>".to_vec();
        crate::fixture::block_on(world.objects.put(&path, page.into())).unwrap();
    }
    let report = world.once();
    assert_eq!((report.upload.acknowledged, report.exit()), (0, Exit::Done));
    world.ingest();
    assert!(world.once().upload.acknowledged > 0);
}

#[test]
fn many_answers_are_listed_and_read_in_one_run() {
    let world = World::new();
    for (index, date) in crate::fixture::days("2017-05-03", "2017-05-09").iter().enumerate() {
        world.sell(&date.to_string(), index as u32 * 10..index as u32 * 10 + 3);
    }
    let sent = world.once().upload.batches;
    world.ingest();
    let report = world.once();
    assert_eq!((report.upload.acknowledged, report.upload.waiting), (sent, 0));
}

#[test]
fn a_heartbeat_tells_what_waits_and_how_the_last_run_went() {
    let world = World::new();
    world.sell("2017-05-09", 1..4);
    world.once();
    let agent = world.start().unwrap();
    crate::fixture::block_on(agent.beat(&[])).unwrap();
    let bytes = world.object("agents/s1/heartbeat.json").unwrap();
    let heartbeat: ribera_storage::heartbeat::Heartbeat = serde_json::from_slice(&bytes).unwrap();
    assert!(heartbeat.spool.batches > 0 && heartbeat.spool.bytes > 0);
    assert_eq!((heartbeat.runs[0].dataset.as_str(), heartbeat.runs[0].outcome.as_str()), ("ventas", "ok"));
}
