//! What the fuzz targets share: a small world in which a fuzzed object lies, and what must hold of
//! it whatever the bytes are.
//!
//! A target fails by panicking. `./run soak fuzz` runs each for a while; a crashing input becomes a
//! unit test of the crate that was at fault.

use std::sync::Once;

use futures::executor::block_on;
use jiff::Timestamp;
use jiff::civil::{Date, date};
use ribera_core::coverage::{self, Coverage, DayState};
use ribera_storage::batch::Manifest;
use ribera_storage::dataset::{DatasetDefinition, shipped};
use ribera_storage::delta::{AddFile, Snapshot, Table, UnitTag};
use ribera_storage::object::{MemoryStore, ObjectPath};
use ribera_storage::ports::{Clock, Host, Random};
use ribera_storage::store::StoreDefinition;
use ribera_storage::{ObjectStore, Result, control};

/// The store whose bytes are fuzzed.
pub const HOSTILE: &str = "s1";
/// A store beside it, of which [`DAY`] is complete.
pub const HONEST: &str = "s2";
pub const DAY: Date = date(2026, 1, 10);

const NOW: Timestamp = Timestamp::constant(1_769_904_000, 0);

/// Entry 0 of a table of ours.
pub const ENTRY: &str = include_str!("../seeds/log/entry-0.json");

#[derive(Clone)]
pub struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        NOW
    }
}

#[derive(Clone)]
pub struct NoRandom;

impl Random for NoRandom {
    fn next_u64(&self) -> u64 {
        4
    }
}

pub type World = Host<MemoryStore, FixedClock, NoRandom>;

/// Two stores, the dataset `ventas`, and a table with [`DAY`] of both.
pub fn world() -> World {
    let objects = MemoryStore::new();
    objects.set_now(NOW);
    let world = Host::new(objects, FixedClock, NoRandom);
    let stores: Vec<StoreDefinition> = [HOSTILE, HONEST].map(store).to_vec();
    block_on(async {
        control::publish_dataset(&world.objects, &ventas()).await.expect("a dataset");
        control::publish_stores(&world.objects, &stores).await.expect("stores");
    });
    put(&world, &entry_path(0), ENTRY.as_bytes());
    world
}

pub fn put(world: &World, path: &str, bytes: &[u8]) {
    let path = ObjectPath::new(path).expect("a path");
    block_on(world.objects.put(&path, bytes.to_vec().into())).expect("memory");
}

pub fn entry_path(version: u64) -> String {
    format!("lake/ventas/_delta_log/{version:020}.json")
}

pub fn load(world: &World) -> Result<Option<Snapshot>> {
    block_on(Table::new(&world.objects, "ventas".parse().expect("a name")).load())
}

pub fn compute(world: &World) -> Result<Coverage> {
    block_on(coverage::compute(world.ports(), &ventas().name))
}

/// Whatever the hostile store's object holds: coverage is computed, and the honest store's day is complete.
pub fn others_are_unharmed(world: &World) -> Coverage {
    let coverage = compute(world).expect("one store's bytes never fail the dataset");
    assert_eq!(state(&coverage, HONEST), DayState::Complete);
    for store in &coverage.stores {
        assert!(store.doubts.iter().all(|doubt| is_clean(doubt)), "{:?}", store.doubts);
    }
    coverage
}

pub fn state(coverage: &Coverage, store: &str) -> DayState {
    let found = coverage.stores.iter().find(|one| one.store.as_str() == store);
    found.expect("a declared store").calendar.state(DAY)
}

/// No reader of an action's tags panics, and those that read a tag agree.
pub fn read_everything(file: &AddFile) {
    let units = file.units();
    let positions = file.unit_positions();
    let mut proofs = Vec::new();
    let proven = file.each_proof(|store, proof| proofs.push((store.to_owned(), proof)));
    if let Ok(units) = &units {
        let of_units: Vec<_> = units.iter().map(|tag| (tag.key(), tag.position)).collect();
        assert_eq!(positions.expect("positions of a tag that reads"), of_units);
        proven.expect("proofs of a tag that reads");
        assert_eq!(proofs.len(), units.len());
        for ((store, proof), tag) in proofs.iter().zip(units) {
            assert_eq!(*store, tag.store.to_string());
            assert!(file.units_of(&tag.store).expect("a section of a tag that reads").contains(tag));
            assert_eq!((proof.unit, proof.position, proof.rows), (tag.unit, tag.position, tag.facts.rows));
            assert_eq!((proof.extracted_at, proof.received_at), (tag.extracted_at, tag.received_at));
            assert!(!proof.is_proven || tag.is_proven(), "proven without an audit that agrees");
        }
    }
    let _ = (file.stores(), file.rows(), file.sha256(), file.has_our_name(), file.is_foreign());
}

/// The facts of a manifest's units as the log would have them.
pub fn tags_of(manifest: &Manifest) -> Vec<UnitTag> {
    manifest.units.iter().map(|facts| UnitTag::new(&manifest.batch, facts, NOW)).collect()
}

/// Nothing in it moves a terminal's cursor.
pub fn is_clean(text: &str) -> bool {
    !text.chars().any(ribera_storage::text::is_control)
}

/// A panic that the product catches is no finding; libFuzzer's own hook would end the program at once. One
/// that nobody catches still ends it.
pub fn let_panics_be_caught() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|panic| eprintln!("{panic}"))));
}

pub fn ventas() -> DatasetDefinition {
    shipped("ventas").expect("shipped").expect("a definition")
}

fn store(id: &str) -> StoreDefinition {
    let store = StoreDefinition::new(id.parse().expect("an id"), id, "Europe/Madrid");
    StoreDefinition { opened: Some(date(2026, 1, 1)), ..store }
}
