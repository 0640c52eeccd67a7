//! The store program: reads a store's own database by business day and sends Parquet batches to
//! object storage, through a spool and a journal that survive crashes.
//!
//! The deciding parts take their clock, randomness, timer, disk and object store as traits
//! ([`ports`]), so that a simulation runs the same code.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
#![allow(async_fn_in_trait)]

pub mod agent;
pub mod calendar;
pub mod cli;
pub mod config;
pub mod delivery;
pub mod discover;
pub mod encode;
pub mod host;
pub mod journal;
pub mod objects;
pub mod plan;
pub mod ports;
pub mod report;
pub mod run;
pub mod source;
pub mod sql;
pub mod system;
pub mod terminal;
