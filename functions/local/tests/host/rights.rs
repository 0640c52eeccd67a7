//! What a function may not do, it cannot do: attacked with components that try.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;

use bytes::Bytes;
use ribera::host::cache;
use ribera::host::call::{Callable, Reply};
use ribera::host::engine::{self, CallLimits};
use ribera::host::rights::{self, Function, Rights};
use ribera::ports::{SystemClock, SystemRandom};
use ribera_core::coverage::CoverageSettings;
use ribera_core::ingest::{IngestSettings, SweepBudget};
use ribera_core::quarantine;
use ribera_core::{coverage, ingest, status};
use ribera_storage::object::{FolderStore, ObjectMeta, ObjectPath, Part, PutBody, PutOutcome};
use ribera_storage::ports::Host;
use ribera_storage::{ObjectStore, Result};
use tokio::task::block_in_place;

use crate::fixture::{Lake, january, ventas};
use crate::{folders, post};

fn lake_with_a_batch() -> Lake {
    let lake = Lake::new(&["s1"]);
    lake.deliver(&ventas(), "s1/ventas/000000-0000000001", &january(1, 2), |file| file);
    rights::make_folders(&lake.root()).unwrap();
    lake
}

/// The component of `function` with the rights given.
fn with_rights(function: Function, rights: Rights, lake: &Lake) -> Callable {
    let engine = engine::new().unwrap();
    let loaded = cache::load(&engine, &folders(), function).unwrap();
    let limits = CallLimits::default();
    Callable::new(function.name(), &engine, &loaded.component, &lake.root(), rights, String::new(), limits, 1).unwrap()
}

fn everything(lake: &Lake) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    lake.files("").into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_writes_changes_nothing_where_it_may_only_read() {
    let lake = block_in_place(lake_with_a_batch);
    let before = everything(&lake);
    let Rights { mut read, write } = rights::of(Function::Ingest).unwrap();
    read.extend(write);
    let ingest = with_rights(Function::Ingest, Rights { read, write: Vec::new() }, &lake);
    // Whatever it says of it, nothing may have been written.
    let _ = ingest.call(post("/sweep", "")).await;
    assert_eq!(everything(&lake), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_with_the_rights_of_status_sees_no_rows_and_writes_nothing() {
    let lake = block_in_place(lake_with_a_batch);
    let before = everything(&lake);
    let rights = rights::of(Function::Status).unwrap();
    assert!(!rights.read.iter().any(|folder| folder == "landing" || folder == "lake"));
    let ingest = with_rights(Function::Ingest, rights, &lake);
    let _ = ingest.call(post("/sweep", "")).await;
    assert_eq!(everything(&lake), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_answers_with_the_rights_it_has() {
    let lake = block_in_place(lake_with_a_batch);
    let before = everything(&lake);
    let status = with_rights(Function::Status, rights::of(Function::Status).unwrap(), &lake);
    let reply = get(&status, "/health").await;
    assert_eq!((reply.status, &reply.body[..]), (200, &b"ok"[..]));
    assert!(reply.headers.contains_key("content-security-policy"));
    assert_eq!(everything(&lake), before);
}

/// Notes the folders that are read and written below the root.
struct Recording<'a> {
    objects: &'a FolderStore,
    read: RefCell<BTreeSet<String>>,
    written: RefCell<BTreeSet<String>>,
}

impl<'a> Recording<'a> {
    fn of(objects: &'a FolderStore) -> Self {
        Self { objects, read: RefCell::default(), written: RefCell::default() }
    }

    fn reads(&self, path: &str) {
        self.read.borrow_mut().insert(path.split('/').next().unwrap().to_owned());
    }

    fn writes(&self, path: &ObjectPath) {
        self.written.borrow_mut().insert(path.as_str().split('/').next().unwrap().to_owned());
    }
}

impl ObjectStore for Recording<'_> {
    async fn get(&self, path: &ObjectPath) -> Result<Option<Bytes>> {
        self.reads(path.as_str());
        self.objects.get(path).await
    }
    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Option<Part>> {
        self.reads(path.as_str());
        self.objects.get_range(path, range).await
    }
    async fn put(&self, path: &ObjectPath, body: PutBody) -> Result<()> {
        self.writes(path);
        self.objects.put(path, body).await
    }
    async fn put_if_absent(&self, path: &ObjectPath, body: PutBody) -> Result<PutOutcome> {
        self.writes(path);
        self.objects.put_if_absent(path, body).await
    }
    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Vec<ObjectMeta>> {
        self.reads(prefix);
        self.objects.list(prefix, start_after, limit).await
    }
    async fn head(&self, path: &ObjectPath) -> Result<Option<ObjectMeta>> {
        self.reads(path.as_str());
        self.objects.head(path).await
    }
    async fn delete(&self, path: &ObjectPath) -> Result<()> {
        self.writes(path);
        self.objects.delete(path).await
    }
}

/// Everything a function may meet: batches that are good, damaged, replayed, late, of an unknown dataset; a
/// manifest that is none; a source that published a difference.
fn eventful_lake() -> Lake {
    let lake = Lake::new(&["s1", "s2"]);
    let refused = "s1/ventas/000000-0000000001";
    lake.upload(&ventas(), refused, &january(1, 2), |file| file[..50].to_vec());
    lake.wait(quarantine::replay(
        Host::new(&lake.objects, SystemClock, SystemRandom).ports(),
        &refused.parse().unwrap(),
    ))
    .unwrap();
    lake.batch("s1/ventas/000000-0000000002", &january(3, 4));
    lake.deliver(&ventas(), "s1/ventas/000000-0000000003", &january(3, 6), |file| file);
    lake.deliver(&ventas(), "s2/otro/000000-0000000001", &january(3, 6), |file| file);
    let differing = r#"{"units":[{"unit":"2026-01-03","awaits":"000000-0000000009"}]}"#;
    let objects = [
        ("inbox/s1/ventas/odd.txt", "nonsense"),
        ("agents/s1/ventas/differing/0000000001.json", differing),
        ("agents/s1/heartbeat.json", "{}"),
    ];
    for (path, text) in objects {
        lake.wait(lake.objects.put(&ObjectPath::new(path).unwrap(), Bytes::from(text).into())).unwrap();
    }
    lake
}

/// The folders that the core of a function read and wrote.
fn used(function: Function, lake: &Lake) -> (BTreeSet<String>, BTreeSet<String>) {
    let recording = Recording::of(&lake.objects);
    let host = Host::new(&recording, SystemClock, SystemRandom);
    lake.wait(async {
        match function {
            Function::Ingest => {
                let (settings, budget) = (IngestSettings::default(), SweepBudget::default());
                ingest::sweep(host.ports(), &settings, &budget).await.unwrap();
                // A second time, as after a call that died.
                let manifest = ObjectPath::new("inbox/s1/ventas/000000-0000000002.json").unwrap();
                ingest::ingest_event(host.ports(), &settings, &[manifest]).await.unwrap();
            }
            Function::Coverage => drop(coverage::refresh(host.ports(), &CoverageSettings::default()).await.unwrap()),
            Function::Status => {
                let targets = [
                    "/",
                    "/?store=s1",
                    "/api/v1/datasets",
                    "/api/v1/summary",
                    "/api/v1/stores",
                    "/api/v1/calendar?store=s1&month=2026-01",
                    "/api/v1/runs",
                    "/health",
                    "/nothing",
                ];
                for target in targets {
                    let request = status::Request { method: "GET".into(), target: target.into() };
                    let answer = status::respond(host.ports(), &request).await;
                    assert!(answer.status == 200 || target == "/nothing", "{target}: {}", answer.body);
                }
            }
        }
    });
    (recording.read.take(), recording.written.take())
}

#[test]
fn each_function_has_the_rights_that_it_uses_and_no_other() {
    let lake = eventful_lake();
    for function in [Function::Ingest, Function::Coverage, Function::Status] {
        let (read, written) = used(function, &lake);
        let stated = rights::of(function).unwrap();
        let mut write: BTreeSet<String> = stated.write.into_iter().collect();
        // Folder stores put each file together there.
        assert_eq!(write.remove(".tmp"), !written.is_empty(), "{}", function.name());
        assert_eq!(write, written, "{} writes", function.name());
        let only_read: BTreeSet<String> = read.difference(&written).cloned().collect();
        assert_eq!(stated.read.into_iter().collect::<BTreeSet<_>>(), only_read, "{} reads", function.name());
    }
}

#[test]
fn the_rights_are_those_that_the_documents_promise() {
    let of = |function| {
        let Rights { read, write } = rights::of(function).unwrap();
        (read.join(" "), write.join(" "))
    };
    let pair = |read: &str, write: &str| (read.to_owned(), write.to_owned());
    assert_eq!(of(Function::Ingest), pair("control landing", ".tmp acks done inbox lake quarantine state"));
    assert_eq!(of(Function::Coverage), pair("agents control inbox lake quarantine", ".tmp state"));
    assert_eq!(of(Function::Status), pair("state", ""));
}

async fn get(callable: &Callable, target: &str) -> Reply {
    let request = axum::http::Request::get(target).body(Bytes::new()).unwrap();
    callable.call(request).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_without_a_right_cannot_read_what_it_is_for() {
    let lake = block_in_place(|| {
        let lake = eventful_lake();
        used(Function::Ingest, &lake);
        used(Function::Coverage, &lake);
        lake
    });
    let stated = rights::of(Function::Status).unwrap();
    let status = with_rights(Function::Status, stated.clone(), &lake);
    let summary = get(&status, "/api/v1/summary").await;
    assert_eq!(summary.status, 200, "{:?}", summary.body);
    let without = Rights { read: vec!["quarantine".into(), "agents".into(), "lake".into()], write: Vec::new() };
    let status = with_rights(Function::Status, without, &lake);
    assert_ne!(get(&status, "/api/v1/summary").await.status, 200);
    // Nor with a path that leads out of what it has.
    let status = with_rights(Function::Status, stated, &lake);
    for target in ["/api/v1/summary?dataset=../../quarantine", "/api/v1/summary?dataset=..%2f..%2fquarantine"] {
        assert_ne!(get(&status, target).await.status, 200, "{target}");
    }
    for folder in ["lake", "control"] {
        let mut rights = rights::of(Function::Coverage).unwrap();
        rights.read.retain(|name| name != folder);
        let coverage = with_rights(Function::Coverage, rights, &lake);
        let reply = coverage.call(post("/coverage", "")).await.unwrap();
        let complete = String::from_utf8_lossy(&reply.body).contains("\"rows\":20");
        assert!(!complete, "coverage without {folder}: {:?}", reply.body);
    }
}
