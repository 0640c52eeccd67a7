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
pub mod status;

pub use lang::Lang;

use ribera_storage::ObjectStore;
use ribera_storage::ports::{Clock, Random};

/// What every entry point is given by its host.
#[derive(Debug, Clone)]
pub struct Deps<S, C, R> {
    pub store: S,
    pub clock: C,
    pub random: R,
}

impl<S: ObjectStore, C: Clock, R: Random> Deps<S, C, R> {
    pub fn new(store: S, clock: C, random: R) -> Self {
        Self { store, clock, random }
    }
}
