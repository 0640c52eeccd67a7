//! The store program: reads a store's own database by business day and sends Parquet batches to
//! object storage, through a spool and a journal that survive crashes.
//!
//! The deciding parts take their clock, randomness, timer, disk and object store as traits
//! ([`ports`]), so that a simulation runs the same code.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
#![allow(async_fn_in_trait)]

pub mod acks;
pub mod adapters;
pub mod agent;
mod alarms;
pub mod backfill;
pub mod batch_file;
mod blame;
pub mod charset;
pub mod cli;
pub mod columns;
pub mod config;
pub mod cycle;
mod daily;
mod differing;
pub mod discover;
mod epoch;
pub mod extract;
pub mod heartbeat;
pub mod host;
pub mod journal;
pub mod logbook;
pub mod logfile;
pub mod objects;
mod pace;
pub mod plan;
pub mod ports;
mod question;
pub mod reach;
pub mod recover;
pub mod report;
pub mod run;
pub mod session;
pub mod sink;
pub mod source;
pub mod source_clock;
pub mod sql;
pub mod system;
pub mod terminal;
mod tls;
mod trial;
pub mod uplink;
pub mod upload;
pub mod value;
mod watermark;
pub mod zone;
