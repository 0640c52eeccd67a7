//! The host: real wasmtime, the real components, hostile ones beside them. The components are
//! found as `ribera up` finds them (`RIBERA_COMPONENTS`, or cargo's output folder); where they are
//! absent the error says how to build them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)]
#[path = "operator/fixture.rs"]
mod fixture;

#[path = "host/cache.rs"]
mod cache;
#[path = "host/http.rs"]
mod http;
#[path = "host/ingest.rs"]
mod ingest;
#[path = "host/limits.rs"]
mod limits;
#[path = "host/replay.rs"]
mod replay;
#[path = "host/rights.rs"]
mod rights;
#[path = "host/up.rs"]
mod up;

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::Request;
use bytes::Bytes;
use ribera::host::cache::ComponentFolders;
use ribera::host::functions::Functions;
use ribera::host::settings::{ComponentArgs, HostSettings};

/// Machine code is kept from one run of the tests to the next.
fn cache_folder() -> PathBuf {
    fixture::private_folder().join("components")
}

fn folders() -> ComponentFolders {
    ComponentFolders::find(components_given(), Some(cache_folder())).unwrap()
}

/// As given in the environment, else beside the program under test.
fn components_given() -> Option<PathBuf> {
    std::env::var_os("RIBERA_COMPONENTS")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(env!("CARGO_BIN_EXE_ribera")).parent()?.join("../wasm32-wasip2/release")))
}

/// Every function over a lake, as `ribera up` has them.
async fn functions(store_root: &Path, settings: &str) -> Functions {
    let args = ComponentArgs { components: components_given(), cache: Some(cache_folder()), settings: None };
    Functions::isolated(store_root, HostSettings::from_toml(settings).unwrap(), &args).await.unwrap()
}

fn post(path: &str, body: impl Into<Bytes>) -> Request<Bytes> {
    Request::post(path).body(body.into()).unwrap()
}

/// Looks again and again until `done`, for a minute at most.
async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..600 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("not within a minute: {what}");
}
