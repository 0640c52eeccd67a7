//! What every part of Ribera agrees on: dataset and store definitions, the batch contract, the
//! object-store trait with its backends, the Delta log, the ledger, and (feature `engine`,
//! native only) the DuckDB engine.
//!
//! Nothing here knows a trigger, a host or a source database.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
#![warn(clippy::missing_errors_doc)]
// Futures of stores carry no `Send` bound: WASM clients are not Send.
#![allow(async_fn_in_trait)]

pub mod batch;
pub mod control;
pub mod dataset;
pub mod decimal;
pub mod delta;
#[cfg(feature = "engine")]
pub mod engine;
pub mod error;
pub mod heartbeat;
pub mod hex;
pub mod ids;
pub mod ledger;
pub mod limits;
pub mod numbered;
pub mod object;
pub mod paths;
pub mod ports;
pub mod rebuild;
pub mod retention;
pub mod secret;
pub mod store;
pub mod tax_number;
pub mod text;

pub use decimal::ExactDecimal;
pub use error::{Error, ErrorKind, Result};
pub use ids::{BatchId, DatasetName, Month, StoreId, StoreUnit, Unit};
pub use object::ObjectStore;
pub use tax_number::TaxNumber;
