//! What each function decides: plain async functions over an object store, a clock and
//! randomness. No I/O of its own, no wall clock, no host.
//!
//! | entry point | woken by |
//! |---|---|
//! | [`ingest::ingest_event`] | a manifest created; bodies are read by [`ingest::event::manifest_paths`] |
//! | [`ingest::sweep`] | a schedule; the listing is the truth |
//! | [`coverage::refresh`] | a schedule; after ingest |
//! | [`status::respond`] | HTTP |
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
// Futures of stores carry no `Send` bound: WASM clients are not Send.
#![allow(async_fn_in_trait)]

pub mod coverage;
#[cfg(test)]
mod fixture;
pub mod headers;
pub mod ingest;
pub mod lang;
pub mod quarantine;
pub mod status;

pub use lang::Lang;
