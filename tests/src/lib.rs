//! What tests share. The simulation of the whole system lives in `tests/sim`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(async_fn_in_trait)]

pub mod contract;
#[path = "../sim/mod.rs"]
pub mod sim;
