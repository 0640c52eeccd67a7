//! A crash between any two steps, then a start: exactly one batch per day, with the right rows.

use std::collections::BTreeMap;
use std::time::Duration;

use ribera_agent::ports::step;
use ribera_agent::report::Exit;
use ribera_agent::run::collect::RunMode;

use crate::fixture::{World, block_on, day, days, request};

fn world() -> World {
    let world = World::new();
    world.sell("2017-04-20", 100..110);
    world.sell("2017-04-21", 120..125);
    world.sell("2017-05-08", 1..10);
    world.sell("2017-05-09", 20..30);
    world
}

fn work(world: &World) {
    let Ok(agent) = world.start() else { return };
    let backfill = RunMode::Backfill { days: days("2017-04-20", "2017-05-09"), force: false };
    block_on(agent.run("test", &request(backfill), Duration::ZERO));
    world.ingest();
    block_on(agent.run("test", &request(RunMode::Cycle), Duration::ZERO));
}

fn crash_everywhere(power_cut: bool) {
    let whole = world();
    work(&whole);
    let wanted = whole.lake();
    let steps = whole.fail_points.seen.borrow().clone();
    let mut crashed_at: BTreeMap<&str, u32> = BTreeMap::new();
    for (nth, step) in steps.iter().enumerate() {
        let world = world();
        world.fail_points.nth.set(Some(nth));
        work(&world);
        *crashed_at.entry(world.fail_points.crashed().unwrap()).or_default() += 1;
        if power_cut {
            world.disk.lose_power();
        }
        world.fail_points.nth.set(None);
        work(&world);
        work(&world);
        let place = format!("crash at step {nth}, {step}");
        assert_eq!(world.lake(), wanted, "{place}");
        let mut times: BTreeMap<_, u32> = BTreeMap::new();
        for manifest in world.manifests() {
            let rows: usize = world.rows(&manifest).iter().map(|batch| batch.num_rows()).sum();
            assert_eq!(rows as u64, manifest.file.rows, "{place}");
            manifest.units.iter().for_each(|facts| *times.entry(facts.unit).or_default() += 1);
        }
        assert!(times.values().all(|times| *times == 1), "{place}: a day was sent twice: {times:?}");
        let report = world.once();
        assert_eq!((report.exit(), report.upload.waiting), (Exit::Done, 0), "{place}: {:?}", report.problems);
        assert!(
            ribera_agent::ports::SpoolDisk::list(&world.disk).unwrap().is_empty(),
            "{place}: the spool is not empty"
        );
    }
    // Neither beats, nor has anything that was proven changed: see `differing`.
    for step in step::ALL.into_iter().filter(|step| ![step::HEARTBEAT, step::DIFFERING].contains(step)) {
        assert!(crashed_at.contains_key(step), "no crash at {step}: {crashed_at:?}");
    }
}

#[test]
fn a_kill_between_any_two_steps_loses_and_doubles_nothing() {
    crash_everywhere(false);
}

#[test]
fn a_power_cut_that_drops_unsynced_writes_loses_and_doubles_nothing() {
    crash_everywhere(true);
}

#[test]
fn a_change_between_crash_and_restart_reaches_the_lake() {
    let steps = {
        let world = world();
        work(&world);
        world.fail_points.seen.borrow().len()
    };
    for nth in 0..steps {
        let world = world();
        world.fail_points.nth.set(Some(nth));
        work(&world);
        world.fail_points.nth.set(None);
        world.sell("2017-05-09", 70..75);
        world.sql("DELETE FROM lineas WHERE ticket = 3");
        world.clock.set("2017-05-10T18:00:00Z");
        work(&world);
        let lake = world.lake();
        assert_eq!((lake[&day("2017-05-09")].0, lake[&day("2017-05-08")].0), (15, 8), "crash at step {nth}");
    }
}
