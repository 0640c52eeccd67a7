//! Guests that never end, or want all memory: the call ends, the host goes on.

use std::time::{Duration, Instant};

use ribera::host::cache;
use ribera::host::call::{CallError, Callable};
use ribera::host::engine::{self, CallLimits};
use ribera::host::rights::{self, Function, Rights};
use tokio::task::block_in_place;
use wasmtime::component::Component;

use crate::fixture::{Lake, january, ventas};
use crate::{folders, post};

/// A component that does `start` before it can be called.
fn hostile(start: &str) -> Vec<u8> {
    wat::parse_str(format!(
        r#"(component
            (core module $m
                (memory 1)
                (func $start {start})
                (start $start)
                (func (export "handle")))
            (core instance $i (instantiate $m))
            (func $handle (canon lift (core func $i "handle")))
            (instance $handler (export "handle" (func $handle)))
            (export "wasi:http/handler@0.3.0" (instance $handler)))"#
    ))
    .unwrap()
}

const ENDLESS: &str = "(loop br 0)";
const GREEDY: &str = "(loop (drop (memory.grow (i32.const 16))) br 0)";

fn limits(memory_mib: usize, time_max: Duration) -> CallLimits {
    CallLimits { memory_bytes_max: memory_mib << 20, time_max, ..CallLimits::default() }
}

fn callable(wasm: &[u8], engine: &wasmtime::Engine, lake: &Lake, limits: CallLimits) -> Callable {
    let component = Component::new(engine, wasm).unwrap();
    Callable::new("hostile", engine, &component, &lake.root(), Rights::default(), String::new(), limits, 4).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_guest_is_ended_at_its_time_and_the_host_goes_on() {
    let lake = block_in_place(|| Lake::new(&["s1"]));
    let engine = engine::new().unwrap();
    let endless = callable(&hostile(ENDLESS), &engine, &lake, limits(16, Duration::from_millis(300)));
    let started = Instant::now();
    // Four at once: none of them may hold up this thread.
    let calls = futures::future::join_all((0..4).map(|_| endless.call(post("/ingest", "")))).await;
    for call in calls {
        assert!(matches!(call, Err(CallError::TimeLimit { .. })), "{call:?}");
    }
    assert!(started.elapsed() >= Duration::from_millis(300) && started.elapsed() < Duration::from_secs(20));
    sweeps_well(&engine, &lake).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_wants_all_memory_is_ended_at_its_limit_and_the_host_goes_on() {
    let lake = block_in_place(|| Lake::new(&["s1"]));
    let engine = engine::new().unwrap();
    let greedy = callable(&hostile(GREEDY), &engine, &lake, limits(16, Duration::from_secs(60)));
    let call = greedy.call(post("/ingest", "")).await;
    assert!(matches!(call, Err(CallError::MemoryLimit { bytes_max }) if bytes_max == 16 << 20), "{call:?}");
    sweeps_well(&engine, &lake).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_too_large_for_the_memory_of_a_call_is_reported_as_such() {
    let lake = block_in_place(|| {
        let lake = Lake::new(&["s1"]);
        let mut days = january(1, 2);
        days[0].rows = 200_000;
        lake.deliver(&ventas(), "s1/ventas/000000-0000000001", &days, |file| file);
        lake
    });
    let engine = engine::new().unwrap();
    let call = ingest(&engine, &lake, limits(16, Duration::from_secs(120))).call(post("/sweep", "")).await;
    assert!(matches!(call, Err(CallError::MemoryLimit { .. })), "{call:?}");
    // The same batch with enough of it.
    sweeps_well(&engine, &lake).await;
    assert!(lake.files("inbox").is_empty());
}

fn ingest(engine: &wasmtime::Engine, lake: &Lake, limits: CallLimits) -> Callable {
    rights::make_folders(&lake.root()).unwrap();
    let loaded = cache::load(engine, &folders(), Function::Ingest).unwrap();
    let rights = rights::of(Function::Ingest).unwrap();
    Callable::new("ingest", engine, &loaded.component, &lake.root(), rights, String::new(), limits, 4).unwrap()
}

async fn sweeps_well(engine: &wasmtime::Engine, lake: &Lake) {
    let reply = ingest(engine, lake, CallLimits::default()).call(post("/sweep", "")).await.unwrap();
    assert_eq!(reply.status, 200, "{:?}", reply.body);
}
