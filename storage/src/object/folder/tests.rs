use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use futures::executor::block_on;

use super::super::{MemoryStore, conformance};
use super::*;

fn open(folder: &Path, token: &str) -> FolderStore {
    FolderStore::open(folder, token).unwrap().without_sync()
}

/// One contender to a thread, each with a store of its own over the same folder.
fn race(stores: Vec<impl ObjectStore + Send + 'static>, path: ObjectPath, bodies: Vec<Bytes>) -> Vec<PutOutcome> {
    let start = Arc::new(std::sync::Barrier::new(bodies.len()));
    let contenders = stores.into_iter().zip(bodies).map(|(store, body)| {
        let (path, start) = (path.clone(), start.clone());
        thread::spawn(move || {
            start.wait();
            block_on(store.put_if_absent(&path, body.into())).unwrap()
        })
    });
    let contenders: Vec<_> = contenders.collect();
    contenders.into_iter().map(|contender| contender.join().unwrap()).collect()
}

#[test]
fn the_folder_store_conforms() {
    let folder = tempfile::tempdir().unwrap();
    block_on(conformance::run(&open(folder.path(), "a")));
    assert_eq!(fs::read_dir(folder.path().join(TEMPORARY)).unwrap().count(), 0, "no temporary file is left");
}

#[test]
fn the_memory_store_conforms() {
    block_on(conformance::run(&MemoryStore::new()));
}

#[test]
fn of_16_threads_that_put_if_absent_exactly_one_wins_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let stores = || (0..16).map(|one| open(folder.path(), &format!("t{one}"))).collect::<Vec<_>>();
    block_on(conformance::put_if_absent_has_one_winner(&open(folder.path(), "a"), 16, 40, |path, bodies| async {
        race(stores(), path, bodies)
    }));
    assert_eq!(fs::read_dir(folder.path().join(TEMPORARY)).unwrap().count(), 0, "no temporary file is left");
}

#[test]
fn of_16_threads_that_put_if_absent_exactly_one_wins_in_memory() {
    let store = MemoryStore::new();
    block_on(conformance::put_if_absent_has_one_winner(&store, 16, 40, |path, bodies| async {
        race(vec![store.clone(); 16], path, bodies)
    }));
}

#[test]
fn the_probe_accepts_a_local_disk_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), "a");
    block_on(async {
        store.probe().await.unwrap();
        assert_eq!(store.list("", None, 10).await.unwrap(), []);
    });
}

#[test]
fn a_half_written_file_is_never_visible_and_goes_once_it_is_old() {
    let folder = tempfile::tempdir().unwrap();
    let left = folder.path().join(TEMPORARY).join("crashed-0");
    let store = open(folder.path(), "a");
    fs::write(&left, "half").unwrap();
    block_on(async {
        assert_eq!(store.list("", None, 10).await.unwrap(), []);
        assert_eq!(store.list(".tmp", None, 10).await.unwrap(), []);
        assert_eq!(store.list(".tmp/", None, 10).await.unwrap(), []);
        let path = ObjectPath::new(".tmp/crashed-0").unwrap();
        assert!(store.get(&path).await.is_err());
        assert!(store.head(&path).await.is_err());
        assert!(store.put(&path, Bytes::new().into()).await.is_err());
    });
    assert_eq!(store.remove_stale(Duration::from_secs(3600)).unwrap(), 0, "another process may be writing it");
    assert_eq!(store.remove_stale(Duration::ZERO).unwrap(), 1);
    assert!(!left.exists());
}

#[test]
fn readers_see_the_old_or_the_new_object_while_it_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = ObjectPath::new("hot/object").unwrap();
    let (old, new) = (Bytes::from(vec![b'a'; 1 << 20]), Bytes::from(vec![b'b'; 1 << 19]));
    let store = open(folder.path(), "w");
    block_on(store.put(&path, old.clone().into())).unwrap();
    let writer = {
        let (store, path, old, new) = (store.clone(), path.clone(), old.clone(), new.clone());
        thread::spawn(move || {
            for turn in 0..60 {
                let body = if turn % 2 == 0 { new.clone() } else { old.clone() };
                block_on(store.put(&path, body.into())).unwrap();
            }
        })
    };
    while !writer.is_finished() {
        let seen = block_on(store.get(&path)).unwrap().unwrap();
        assert!(seen == old || seen == new, "{} bytes", seen.len());
    }
    writer.join().unwrap();
}

#[test]
fn a_listing_beside_deletions_names_every_object_that_stays() {
    let (folder, stop) = (tempfile::tempdir().unwrap(), AtomicBool::new(false));
    let store = open(folder.path(), "a");
    let path = |name: &str| ObjectPath::new(format!("inbox/{name}.json")).unwrap();
    for number in 0..50 {
        block_on(store.put(&path(&format!("stays-{number:02}")), Bytes::from_static(b"x").into())).unwrap();
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            let other = open(folder.path(), "b");
            while !stop.load(Ordering::Relaxed) {
                for number in 0..20 {
                    block_on(other.put(&path(&format!("goes-{number:02}")), Bytes::from_static(b"x").into())).unwrap();
                }
                for number in 0..20 {
                    block_on(other.delete(&path(&format!("goes-{number:02}")))).unwrap();
                }
            }
        });
        for _ in 0..200 {
            let listed = block_on(store.list("inbox/", None, 1000)).unwrap();
            let stays = listed.iter().filter(|meta| meta.path.file_name().starts_with("stays-")).count();
            assert_eq!(stays, 50);
        }
        stop.store(true, Ordering::Relaxed);
    });
}
