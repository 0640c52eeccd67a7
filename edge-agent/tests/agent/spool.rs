//! The spool under stress: full, read-only, damaged, gone.

use ribera_agent::report::Exit;

use crate::fixture::{CONFIG, MemoryDisk, World, day};

#[test]
fn a_full_disk_is_named_and_nothing_is_lost_when_there_is_room_again() {
    let world = World::new();
    world.sell("2017-05-08", 1..50);
    world.sell("2017-05-09", 60..99);
    world.disk.set_bytes_max(Some(3000));
    let report = world.once();
    assert_eq!(report.exit(), Exit::Spool, "{:?}", report.problems);
    assert!(report.problems[0].message.contains("the disk is full"), "{:?}", report.problems);
    world.disk.set_bytes_max(None);
    assert_eq!(world.once().exit(), Exit::Done);
    assert_eq!((world.lake()[&day("2017-05-08")].0, world.lake()[&day("2017-05-09")].0), (49, 39));
}

#[test]
fn a_read_only_spool_is_named_with_the_next_step() {
    let world = World::new();
    world.sell("2017-05-09", 1..4);
    world.disk.set_read_only(true);
    let report = world.once();
    assert_eq!(report.exit(), Exit::Spool);
    let problem = &report.problems[0];
    assert!(problem.message.contains("must be writable") && problem.hint.is_some(), "{problem:?}");
    world.disk.set_read_only(false);
    world.once();
    assert_eq!(world.lake()[&day("2017-05-09")].0, 3);
}

#[test]
fn a_spool_at_its_limit_takes_no_new_day_and_keeps_what_waits() {
    let limited = format!("{CONFIG}\n[limits]\nspool_bytes_max = 1_048_576\n");
    let mut world = World::with_config(&limited);
    world.config.local_only = true;
    world.config.limits.spool_bytes_max = 70_000;
    for (index, date) in ["2017-05-06", "2017-05-07", "2017-05-08", "2017-05-09"].iter().enumerate() {
        world.sell(date, index as u32 * 100..index as u32 * 100 + 50);
    }
    let report = world.once();
    assert_eq!(report.exit(), Exit::Spool);
    assert!(report.problems[0].message.contains("spool_bytes_max"), "{:?}", report.problems);
    assert!(report.upload.waiting > 0, "what fitted waits");
    // The newest days went in first.
    world.config.local_only = false;
    world.once();
    assert_eq!(world.lake()[&day("2017-05-09")].0, 50);
    world.ingest();
    world.once();
    world.once();
    assert_eq!(world.lake()[&day("2017-05-06")].0, 50);
}

#[test]
fn damaged_cut_and_vanished_files_are_extracted_again_before_anything_is_sent() {
    type Harm = fn(&MemoryDisk);
    let harms: [(&str, Harm); 3] =
        [("a bit flipped", MemoryDisk::damage), ("cut off", MemoryDisk::cut), ("gone", MemoryDisk::wipe)];
    for (name, harm) in harms {
        let mut world = World::new();
        world.sell("2017-05-09", 1..4);
        world.config.local_only = true;
        world.once();
        harm(&world.disk);
        world.config.local_only = false;
        world.once();
        world.once();
        assert_eq!(world.lake()[&day("2017-05-09")], (3, "6.15".to_owned()), "{name}");
        for manifest in world.manifests() {
            world.rows(&manifest);
        }
    }
}

#[test]
fn a_batch_whose_file_is_lost_before_its_manifest_is_forgotten_and_its_days_come_again() {
    let world = World::new();
    world.sell("2017-05-09", 1..4);
    // Crash just before the first manifest: the number is taken.
    let nth = {
        let whole = World::new();
        whole.sell("2017-05-09", 1..4);
        whole.once();
        let seen = whole.fail_points.seen.borrow();
        seen.iter().position(|step| *step == "upload.manifest").unwrap()
    };
    world.fail_points.nth.set(Some(nth));
    world.once();
    world.fail_points.nth.set(None);
    world.disk.damage();
    world.once();
    world.once();
    let manifests = world.manifests();
    assert!(manifests.iter().all(|one| one.batch.position.sequence > 0), "number 0 is never used");
    assert_eq!(world.lake()[&day("2017-05-09")].0, 3);
}

#[test]
fn a_newer_extraction_replaces_its_unsent_predecessor() {
    let mut world = World::new();
    world.sell("2017-05-09", 1..4);
    world.config.local_only = true;
    world.once();
    let files = ribera_agent::ports::SpoolDisk::list(&world.disk).unwrap().len();
    world.sell("2017-05-09", 10..12);
    world.once();
    assert_eq!(ribera_agent::ports::SpoolDisk::list(&world.disk).unwrap().len(), files);
    world.config.local_only = false;
    world.once();
    let of_the_day = world.manifests().into_iter().filter(|one| one.units[0].unit == day("2017-05-09"));
    assert_eq!(of_the_day.map(|one| one.units[0].file.rows).collect::<Vec<_>>(), [5]);
}

#[test]
fn a_day_extracted_anew_is_numbered_after_the_month_that_holds_it_too() {
    let mut world = World::new();
    world.sell("2017-05-05", 1..4);
    world.sell("2017-05-09", 10..14);
    world.config.local_only = true;
    world.backfill("2017-05-01", "2017-05-09");
    world.sell("2017-05-09", 20..22);
    world.once();
    world.config.local_only = false;
    world.once();
    assert_eq!(world.lake()[&day("2017-05-09")].0, 6);
    assert_eq!(world.lake()[&day("2017-05-05")].0, 3);
}
