//! Journals that are damaged, lost, cloned or restored.

use ribera_agent::host::OsRandom;
use ribera_agent::report::{Exit, UploadReport};
use ribera_storage::ErrorKind;
use ribera_storage::batch::{AckOutcome, QuarantineReason};

use crate::fixture::{World, block_on, day};

#[test]
fn a_journal_cut_off_in_the_middle_is_named_with_the_command_that_helps() {
    let world = World::new();
    world.sell("2017-05-09", 1..4);
    world.once();
    let bytes = std::fs::read(world.journal_file()).unwrap();
    for cut in [bytes.len() / 2, 5000, 100] {
        std::fs::write(world.journal_file(), &bytes[..cut]).unwrap();
        let Err(error) = world.start().map(drop) else { panic!("a cut journal was opened, {cut} bytes") };
        assert_eq!(error.kind(), ErrorKind::Data, "{error}");
        assert!(error.message().contains("damaged") && error.hint().unwrap().contains("--new-journal"), "{error}");
    }
}

#[test]
fn a_new_journal_takes_a_new_epoch_and_wins_over_the_old_one() {
    let world = World::new();
    world.sell("2017-05-09", 1..4);
    world.once();
    world.ingest();
    ribera_agent::journal::recover::set_aside(&world.journal_file(), "2017-05-10T16:00:00Z".parse().unwrap()).unwrap();
    world.sell("2017-05-09", 10..12);
    world.once();
    let newest = world.manifests().into_iter().max_by_key(|one| one.batch.position).unwrap();
    assert_eq!(newest.batch.position.epoch, 1);
    assert_eq!(world.lake()[&day("2017-05-09")].0, 5);
}

#[test]
fn a_journal_restored_from_a_backup_takes_a_new_epoch_and_sends_everything_it_knows_again() {
    let world = World::new();
    world.sell("2017-05-08", 1..4);
    world.once();
    world.ingest();
    world.once();
    let backup = std::fs::read(world.journal_file()).unwrap();
    world.sell("2017-05-09", 10..14);
    world.once();
    world.ingest();
    world.once();
    // The disk died: yesterday's journal is back, and the till has new sales.
    std::fs::write(world.journal_file(), backup).unwrap();
    world.sell("2017-05-09", 20..21);
    world.once();
    world.ingest_with(cloned_or_committed);
    world.once();
    world.ingest_with(cloned_or_committed);
    world.once();
    let lake = world.lake();
    assert_eq!((lake[&day("2017-05-08")].0, lake[&day("2017-05-09")].0), (3, 5));
    let newest = world.manifests().into_iter().max_by_key(|one| one.batch.position).unwrap();
    assert_eq!(newest.batch.position.epoch, 1, "a number was used twice, so a new epoch begins");
}

#[test]
fn of_two_agents_on_copies_of_one_disk_each_ends_in_an_epoch_of_its_own() {
    let mut world = World::new();
    let clone = agent_on_a_copy(&mut world);
    // The first goes on, unseen by the second; both use the same next number.
    world.sell("2017-05-09", 10..14);
    world.once();
    world.sell("2017-05-09", 20..21);
    let request = crate::fixture::request(ribera_agent::run::collect::RunMode::Cycle);
    let report = block_on(clone.run("test", &request, std::time::Duration::ZERO));
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    assert_eq!(report.upload.new_epochs, 1);
    let stream = clone.journal.stream(&"s1".parse().unwrap(), &"ventas".parse().unwrap()).unwrap().unwrap();
    assert_eq!(stream.epoch, 1);
    assert_eq!(world.lake()[&day("2017-05-09")].0, 5, "the clone's epoch is the higher one");
}

#[test]
fn an_agent_answers_the_epoch_of_a_copy_that_sent_older_rows_and_died() {
    let mut world = World::new();
    let clone = agent_on_a_copy(&mut world);
    world.sell("2017-05-09", 10..14);
    let cycle = crate::fixture::request(ribera_agent::run::collect::RunMode::Cycle);
    block_on(clone.collect(&cycle));
    // The first reads more and sends it; then the copy sends what it has, and ends.
    world.sell("2017-05-09", 20..21);
    world.once();
    block_on(clone.upload(&[], &mut UploadReport::default())).unwrap();
    drop(clone);
    world.ingest();
    let report = world.once();
    assert_eq!((report.upload.waiting, report.exit()), (0, Exit::Done), "all is well, as far as the first knows");
    assert_eq!(world.lake()[&day("2017-05-09")].0, 4, "the copy's epoch is the higher one");
    world.clock.set("2017-05-10T17:00:00Z");
    let report = world.once();
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    assert_eq!(world.lake()[&day("2017-05-09")].0, 5);
    world.ingest();
    let batches = world.manifests().len();
    world.clock.set("2017-05-10T18:00:00Z");
    world.once();
    assert_eq!(world.manifests().len(), batches, "and then it is quiet");
}

#[test]
fn two_live_copies_do_not_make_each_other_read_everything_at_every_cycle() {
    let mut world = World::new();
    let clone = agent_on_a_copy(&mut world);
    let first = world.start().unwrap();
    let cycle = crate::fixture::request(ribera_agent::run::collect::RunMode::Cycle);
    let begin: jiff::Timestamp = "2017-05-10T17:00:00Z".parse().unwrap();
    for half_hour in 0..96 {
        world.clock.set(&(begin + jiff::SignedDuration::from_mins(half_hour * 30)).to_string());
        let agent = if half_hour % 2 == 0 { &first } else { &clone };
        block_on(agent.run("test", &cycle, std::time::Duration::ZERO));
        world.ingest();
    }
    let epochs = world.objects_under("agents/s1/ventas/epoch/").len();
    assert!((3..20).contains(&epochs), "{epochs} epochs in two days");
}

/// A second agent, on a copy of the disk as it was when the first had sent a day and its spool was empty.
fn agent_on_a_copy(world: &mut World) -> crate::fixture::TestAgent {
    world.sell("2017-05-08", 1..4);
    world.once();
    world.ingest();
    world.once();
    let copy = world.folder.path().join("copy.sqlite");
    std::fs::copy(world.journal_file(), &copy).unwrap();
    let journal = ribera_agent::journal::Journal::open_file(&copy, &OsRandom, world.fail_points.clone()).unwrap();
    let disk = std::mem::take(&mut world.disk);
    let clone = world.start_with(journal).unwrap();
    world.disk = disk;
    clone
}

/// The lake refuses a position that it has accepted with another content.
fn cloned_or_committed(manifest: &ribera_storage::batch::Manifest) -> AckOutcome {
    if manifest.batch.position.epoch == 0 {
        return AckOutcome::Quarantined {
            reason: QuarantineReason::ClonedJournal,
            detail: "accepted before".to_owned(),
        };
    }
    let units = manifest.units.iter().map(|facts| (facts.unit, facts.file.clone())).collect();
    AckOutcome::Committed { version: 1, rows: 0, units }
}

#[test]
fn a_batch_that_the_version_before_wrote_otherwise_is_known_again_when_it_is_answered() {
    let world = World::new();
    world.sell("2017-05-08", 1..5);
    world.sell("2017-05-09", 5..9);
    world.once();
    // The same manifests as a program that writes JSON with blanks puts and keeps them.
    let old = rusqlite::Connection::open(world.journal_file()).unwrap();
    let texts: Vec<(i64, String)> = old
        .prepare("SELECT id, manifest FROM batch")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .map(|row| row.unwrap())
        .collect();
    let count = texts.len() as u64;
    assert!(count >= 2);
    for (id, text) in texts {
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let otherwise = serde_json::to_string_pretty(&value).unwrap();
        old.execute("UPDATE batch SET manifest = ? WHERE id = ?", rusqlite::params![otherwise, id]).unwrap();
        let manifest = ribera_storage::batch::Manifest::from_json(text.as_bytes()).unwrap();
        let path = ribera_storage::paths::inbox(&manifest.batch).unwrap();
        block_on(ribera_storage::ObjectStore::put(&world.objects, &path, otherwise.into_bytes().into())).unwrap();
    }
    drop(old);
    world.ingest();
    let report = world.once();
    assert_eq!((report.exit(), report.upload.acknowledged), (Exit::Done, count), "{:?}", report.problems);
    assert_eq!(report.upload.new_epochs, 0, "no journal but ours used the stream");
    assert!(report.datasets[0].planned.is_empty());
}
