//! The one-machine host: runs the functions as WASM components (or, for benchmarks and debugging,
//! natively), woken by manifests, schedules and HTTP.
//!
//! | module | does |
//! |---|---|
//! | [`rights`] | which folders of the store each function may read or write |
//! | [`engine`] | the WASM engine, its limits, the epoch that ends endless guests |
//! | [`cache`] | finds components, compiles them once, keeps the machine code on disk |
//! | [`private`] | folders and files that belong to this user alone |
//! | [`call`] | one call: a fresh instance, a request in, a reply out |
//! | [`functions`] | ingest, sweep, coverage, status as typed calls, WASM or native |
//! | [`queue`] | manifests that wait, grouped into calls |
//! | [`ingester`] | workers that make the calls; the sweep |
//! | [`watch`] | hears of new manifests |
//! | [`connections`] | HTTP connections within limits |
//! | [`http`] | readers and event bodies |
//! | [`lane`] | runs that callers ask for: one at a time, one more in waiting |
//! | [`serve`] | all of it together, with its schedules |

pub mod cache;
pub mod call;
pub mod connections;
pub mod engine;
pub mod functions;
pub mod http;
pub mod ingester;
pub mod lane;
pub mod private;
pub mod queue;
pub mod rights;
pub mod serve;
pub mod settings;
pub mod tally;
pub mod watch;
