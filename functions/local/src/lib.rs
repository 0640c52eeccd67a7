//! The `ribera` command: the one-machine host of the functions, SQL, maintenance and operator
//! commands. One verb, one file in [`commands`].
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod cli;
pub mod commands;
mod evidence;
pub mod host;
pub mod lake;
pub mod logs;
pub mod maintain;
pub mod ports;
pub mod progress;
pub mod show;
pub mod terminal;
