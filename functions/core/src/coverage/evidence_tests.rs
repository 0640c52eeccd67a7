//! Evidence that cannot be read, is on its way, or is old: never "complete", and never another
//! store's trouble.

use futures::executor::block_on;
use ribera_storage::batch::{DIFFERING_BYTES_MAX, Differing, DifferingUnit};
use ribera_storage::ids::Position;
use ribera_storage::object::{MemoryStore, ObjectPath};
use ribera_storage::ports::Host;
use ribera_storage::{ObjectStore, Unit};

use super::*;
use crate::fixture::*;
use crate::ingest::{self, IngestSettings, Outcome};

const NOW: &str = "2026-02-01T12:00:00Z";

type World = Host<MemoryStore, FixedClock, SeededRandom>;

/// `ventas` with one proven day in s1 and in s2.
async fn world() -> World {
    let world = declared().await;
    for store in ["s1", "s2"] {
        commit(&world, store, 1, 3).await;
    }
    world
}

/// `ventas`, s1 and s2, and no table.
async fn declared() -> World {
    let objects = MemoryStore::new();
    objects.set_now(NOW.parse().unwrap());
    let world = Host::new(objects, FixedClock::at(NOW), SeededRandom::default());
    control::publish_dataset(&world.objects, &ventas()).await.unwrap();
    let store = |id: &str| {
        let text = format!("id = \"{id}\"\nname = \"{id}\"\ntime_zone = \"UTC\"\nopened = \"2026-01-10\"");
        StoreDefinition::from_toml(&text).unwrap()
    };
    control::publish_stores(&world.objects, &["s1", "s2"].map(store)).await.unwrap();
    world
}

async fn put_batch(world: &World, store: &str, sequence: u64, rows: i32) -> ObjectPath {
    let all = lines(store, DAY, rows);
    let file = parquet_of(&all);
    let manifest = manifest(&format!("{store}/ventas/000000-{sequence:010}"), &[DAY], &all, &file);
    let inbox = paths::inbox(&manifest.batch).unwrap();
    world.objects.put(&ObjectPath::new(manifest.file.path.clone()).unwrap(), file.into()).await.unwrap();
    world.objects.put(&inbox, manifest.to_json().unwrap().into()).await.unwrap();
    inbox
}

async fn commit(world: &World, store: &str, sequence: u64, rows: i32) {
    let inbox = put_batch(world, store, sequence, rows).await;
    let report = ingest::ingest_event(world.ports(), &IngestSettings::default(), &[inbox]).await.unwrap();
    assert!(matches!(report.outcomes[0].outcome, Outcome::Committed { .. }), "{report:?}");
}

async fn states(world: &World) -> [DayState; 2] {
    let coverage = compute(world.ports(), &"ventas".parse().unwrap()).await.unwrap();
    [0, 1].map(|store: usize| coverage.stores[store].calendar.state(DAY))
}

async fn put(world: &World, path: &str, bytes: Vec<u8>) {
    world.objects.put(&ObjectPath::new(path).unwrap(), bytes.into()).await.unwrap();
}

const SOUND: [DayState; 2] = [DayState::Complete, DayState::Complete];
const ONE_IN_DOUBT: [DayState; 2] = [DayState::Partial, DayState::Complete];

#[test]
fn a_list_of_differences_that_cannot_be_read_is_doubt_and_one_with_unknown_keys_is_read() {
    block_on(async {
        let day = serde_json::json!({"unit": "2026-01-10", "awaits": {"epoch": 0, "sequence": 2}});
        let other = serde_json::json!({"unit": "2026-01-11", "awaits": {"epoch": 0, "sequence": 2}});
        let with_more = |unit: &serde_json::Value| {
            let mut unit = unit.clone();
            unit["why"] = "a newer agent".into();
            serde_json::json!({"units": [unit], "since": 7}).to_string().into_bytes()
        };
        let cases: [(Vec<u8>, [DayState; 2]); 8] = [
            (b"".to_vec(), ONE_IN_DOUBT),
            (b"{\"units\":7}".to_vec(), ONE_IN_DOUBT),
            (b"\xff\xfe".to_vec(), ONE_IN_DOUBT),
            (vec![b' '; DIFFERING_BYTES_MAX + 1], ONE_IN_DOUBT),
            (serde_json::json!({"units": [{"unit": "ayer", "awaits": 1}]}).to_string().into_bytes(), ONE_IN_DOUBT),
            (with_more(&day), ONE_IN_DOUBT),
            (with_more(&other), SOUND),
            (b"{\"units\":[]}".to_vec(), SOUND),
        ];
        for (bytes, expected) in cases {
            let world = world().await;
            assert_eq!(states(&world).await, SOUND);
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
            put(&world, "agents/s1/ventas/differing/0000000001.json", bytes).await;
            assert_eq!(states(&world).await, expected, "{shown}");
            // The agent's next list counts, whatever the last one was.
            put(&world, "agents/s1/ventas/differing/0000000002.json", b"{\"units\":[]}".to_vec()).await;
            assert_eq!(states(&world).await, SOUND, "{shown}");
        }
    });
}

#[test]
fn a_crowd_of_objects_of_one_store_makes_only_that_store_doubtful() {
    block_on(async {
        for prefix in ["agents/s1/ventas/differing/", "agents/s1/x", "quarantine/s1/ventas/", "inbox/s1/ventas/"] {
            let world = world().await;
            for number in 0..2100 {
                put(&world, &format!("{prefix}{number:010}-x.json"), b"x".to_vec()).await;
            }
            assert_eq!(states(&world).await, ONE_IN_DOUBT, "{prefix}");
        }
    });
}

#[test]
fn a_record_in_quarantine_that_cannot_be_read_makes_its_stream_doubtful_until_later_batches_win() {
    block_on(async {
        for bytes in [b"".to_vec(), b"{}".to_vec(), vec![b'x'; 1 << 20]] {
            let world = world().await;
            put(&world, "quarantine/s1/ventas/000000-0000000002.json", bytes).await;
            assert_eq!(states(&world).await, ONE_IN_DOUBT);
            commit(&world, "s1", 3, 3).await;
            assert_eq!(states(&world).await, SOUND);
        }
    });
}

#[test]
fn a_batch_on_its_way_back_from_quarantine_counts_as_waiting() {
    block_on(async {
        let world = world().await;
        let inbox = put_batch(&world, "s1", 2, 9).await;
        assert_eq!(states(&world).await, ONE_IN_DOUBT, "it waits in the inbox");
        let manifest = world.objects.get(&inbox).await.unwrap().unwrap();
        world.objects.delete(&inbox).await.unwrap();
        assert_eq!(states(&world).await, SOUND);
        put(&world, "state/replay/s1/ventas/000000-0000000002.json", manifest.to_vec()).await;
        assert_eq!(states(&world).await, ONE_IN_DOUBT);
    });
}

#[test]
fn the_table_that_the_fuzz_targets_begin_with_is_one_of_this_release() {
    // They are built by a nightly toolchain and run in `./run soak` alone: a change of layout would break them unseen.
    block_on(async {
        let world = declared().await;
        let entries = [
            include_str!("../../../../tests/fuzz/seeds/log/entry-0.json"),
            include_str!("../../../../tests/fuzz/seeds/log/entry-1.json"),
        ];
        for (version, entry) in (0..).zip(entries) {
            let path = paths::log_entry(&"ventas".parse().unwrap(), version).unwrap();
            put(&world, path.as_str(), entry.as_bytes().to_vec()).await;
            assert_eq!(states(&world).await, SOUND, "{version}");
        }
    });
}

#[test]
fn an_older_version_is_judged_by_what_is_known_now() {
    block_on(async {
        let world = world().await;
        let table = ribera_storage::delta::Table::new(&world.objects, "ventas".parse().unwrap());
        let older = table.load().await.unwrap().unwrap();
        let evidence = Evidence::gather(&world.objects, &[ventas()]).await.unwrap();
        let judged = async || {
            let found = judge_answer(world.ports(), &evidence, &ventas(), Some(older.clone())).await.unwrap();
            [0, 1].map(|store: usize| found.stores[store].calendar.state(DAY))
        };
        assert_eq!(judged().await, SOUND);
        refresh(world.ports(), &CoverageSettings::default()).await.unwrap();
        assert_eq!(judged().await, SOUND, "what is kept stands");
        commit(&world, "s1", 2, 9).await;
        // The same rows and sums as before.
        commit(&world, "s2", 2, 3).await;
        assert_eq!(judged().await, ONE_IN_DOUBT);
        refresh(world.ports(), &CoverageSettings::default()).await.unwrap();
        assert_eq!(judged().await, ONE_IN_DOUBT, "what is kept of a newer version does not stand for an older one");
    });
}

#[test]
fn evidence_gathered_before_a_correction_keeps_its_doubt() {
    block_on(async {
        let world = world().await;
        let differing = Differing {
            units: vec![DifferingUnit { unit: Unit::Day(DAY), awaits: Position { epoch: 0, sequence: 2 } }],
        };
        put(&world, "agents/s1/ventas/differing/0000000001.json", serde_json::to_vec(&differing).unwrap()).await;
        let table = ribera_storage::delta::Table::new(&world.objects, "ventas".parse().unwrap());
        let evidence = Evidence::gather(&world.objects, &[ventas()]).await.unwrap();
        let snapshot = table.load().await.unwrap().unwrap();
        // While the query runs, the correction arrives and the agent withdraws its list.
        commit(&world, "s1", 2, 9).await;
        put(&world, "agents/s1/ventas/differing/0000000002.json", b"{\"units\":[]}".to_vec()).await;
        let found = judge_answer(world.ports(), &evidence, &ventas(), Some(snapshot)).await.unwrap();
        assert_eq!(found.stores[0].calendar.state(DAY), DayState::Partial);
    });
}

#[test]
fn a_dataset_that_cannot_be_computed_holds_up_no_other_and_its_kept_coverage_says_so() {
    block_on(async {
        let world = world().await;
        let settings = CoverageSettings::default();
        control::publish_dataset(&world.objects, &ribera_storage::dataset::shipped("inventario").unwrap().unwrap())
            .await
            .unwrap();
        assert_eq!(refresh(world.ports(), &settings).await.unwrap().summaries.len(), 2);
        // Another program raises the protocol of one table.
        let path = paths::log_entry(&"ventas".parse().unwrap(), 9).unwrap();
        put(&world, path.as_str(), b"{}".to_vec()).await;
        world.clock.advance(60);
        let refreshed = refresh(world.ports(), &settings).await.unwrap();
        assert_eq!(refreshed.summaries.iter().map(|one| one.dataset.as_str()).collect::<Vec<_>>(), ["inventario"]);
        assert_eq!(refreshed.failed[0].dataset.as_str(), "ventas");
        assert!(refreshed.failed[0].error.contains("missing"), "{refreshed:?}");
        let get = async |target: &str| {
            let asked = crate::status::Request { method: "GET".to_owned(), target: target.to_owned() };
            crate::status::respond(world.ports(), &asked).await.body
        };
        let summary = get("/api/v1/summary?dataset=ventas").await;
        assert!(summary.contains("\"failed\":{") && summary.contains("\"is_old\":false"), "{summary}");
        assert!(get("/?dataset=ventas").await.contains("falló"));
        assert!(!get("/?dataset=inventario").await.contains("falló"));
        world.clock.advance(i64::from(settings.old_after_seconds));
        let summary = get("/api/v1/summary?dataset=ventas").await;
        assert!(summary.contains("\"is_old\":true") && summary.contains("\"lights\":{\"unknown\":2}"), "{summary}");
        assert!(get("/api/v1/stores?dataset=ventas").await.contains("\"light\":\"unknown\""));
        assert!(get("/?dataset=ventas").await.contains("Datos antiguos"));
        assert!(get("/?dataset=ventas&lang=en").await.contains("Old data"));
        world.objects.delete(&path).await.unwrap();
        refresh(world.ports(), &settings).await.unwrap();
        let summary = get("/api/v1/summary?dataset=ventas").await;
        assert!(summary.contains("\"is_old\":false") && !summary.contains("\"failed\""), "{summary}");
    });
}
