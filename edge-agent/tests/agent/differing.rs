//! A day that was proven and has changed since is published as differing before anything else.

use ribera_agent::ports::step;
use ribera_agent::report::Exit;
use ribera_storage::batch::{Differing, Manifest};
use ribera_storage::ids::Position;

use crate::fixture::{World, block_on, day};

const LISTS: &str = "agents/s1/ventas/differing";

fn position(epoch: u32, sequence: u64) -> Position {
    Position { epoch, sequence }
}

/// What stands as differing, by the highest number.
fn published(world: &World) -> Differing {
    let latest = block_on(ribera_storage::numbered::latest(&world.objects, LISTS)).unwrap();
    latest.map_or(Differing::default(), |latest| serde_json::from_slice(&latest.bytes).unwrap())
}

fn awaited(world: &World, text: &str) -> Option<Position> {
    published(world).units.iter().find(|one| one.unit == day(text)).map(|one| one.awaits)
}

/// A closed day that is proven in the lake.
fn settled() -> World {
    let world = World::new();
    world.sell("2017-05-09", 1..4);
    world.once();
    world.ingest();
    assert_eq!(world.once().exit(), Exit::Done);
    world
}

fn sent(world: &World) -> Vec<Manifest> {
    let mut sent: Vec<Manifest> = world
        .manifests()
        .into_iter()
        .filter(|one| one.units.iter().any(|facts| facts.unit == day("2017-05-09")))
        .collect();
    sent.sort_by_key(|one| one.batch.position);
    sent
}

#[test]
fn nothing_is_published_while_nothing_that_was_proven_changes() {
    let world = settled();
    world.sell("2017-05-10", 10..12);
    world.once();
    world.sell("2017-05-10", 12..14);
    world.once();
    assert_eq!(world.objects_under("agents/s1/ventas/differing"), Vec::<String>::new());
}

#[test]
fn a_late_row_takes_the_proof_away_until_its_batch_is_the_lakes() {
    let world = settled();
    world.sell("2017-05-09", 7..8);
    world.once();
    let batches = sent(&world);
    assert_eq!((batches.len(), awaited(&world, "2017-05-09")), (2, Some(batches[1].batch.position)));
    world.ingest();
    world.once();
    world.once();
    assert_eq!(published(&world), Differing::default());
    assert_eq!(world.objects_under(LISTS).len(), 1, "older lists are cleaned up");
}

#[test]
fn a_second_change_while_the_first_waits_is_awaited_too() {
    let world = settled();
    world.sell("2017-05-09", 7..8);
    world.once();
    world.sell("2017-05-09", 8..9);
    world.once();
    let batches = sent(&world);
    assert_eq!((batches.len(), awaited(&world, "2017-05-09")), (3, Some(batches[2].batch.position)));
}

#[test]
fn a_change_that_cannot_be_extracted_is_published_all_the_same() {
    let world = settled();
    world.sql("INSERT INTO lineas VALUES (9, 1, '2017-05-09', 'ayer', 'p', 2, 100)");
    assert_ne!(world.once().exit(), Exit::Done);
    assert_eq!(sent(&world).len(), 1);
    assert_eq!(awaited(&world, "2017-05-09"), Some(position(0, sent(&world)[0].batch.position.sequence + 1)));
}

#[test]
fn after_a_lost_disk_everything_that_is_sent_anew_is_awaited() {
    let world = settled();
    std::fs::remove_file(world.journal_file()).unwrap();
    world.disk.wipe();
    world.once();
    let batches = sent(&world);
    assert_eq!(batches.last().unwrap().batch.position.epoch, 1);
    let awaits = awaited(&world, "2017-05-09").unwrap();
    assert!(position(1, 0) <= awaits && awaits <= batches.last().unwrap().batch.position, "{awaits}");
}

/// Wherever the agent dies: a manifest that brings a change never exists without the list.
#[test]
fn no_crash_leaves_a_change_in_the_inbox_beside_an_unbroken_proof() {
    let mut crashed_at = Vec::new();
    for nth in 0.. {
        let world = settled();
        world.sell("2017-05-09", 7..8);
        world.fail_points.seen.borrow_mut().clear();
        world.fail_points.nth.set(Some(nth));
        world.once();
        let done = world.fail_points.crashed().is_none();
        crashed_at.extend(world.fail_points.crashed());
        for manifest in sent(&world).iter().skip(1) {
            let awaits = awaited(&world, "2017-05-09").unwrap_or_else(|| panic!("{nth}: nothing is published"));
            assert!(position(0, 0) < awaits && awaits <= manifest.batch.position, "{nth}: {awaits}");
        }
        if done {
            assert_eq!(sent(&world).len(), 2);
            break;
        }
    }
    assert!(crashed_at.contains(&step::DIFFERING) && crashed_at.len() > 10, "{crashed_at:?}");
}
