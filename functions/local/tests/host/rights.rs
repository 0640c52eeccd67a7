//! What a function may not do, it cannot do: attacked with components that try.

use ribera::host::cache;
use ribera::host::call::Callable;
use ribera::host::engine::{self, CallLimits};
use ribera::host::rights::{self, Function, Rights};
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
    let request = axum::http::Request::get("/health").body(bytes::Bytes::new()).unwrap();
    let reply = status.call(request).await.unwrap();
    assert_eq!((reply.status, &reply.body[..]), (200, &b"ok"[..]));
    assert!(reply.headers.contains_key("content-security-policy"));
    assert_eq!(everything(&lake), before);
}
