//! A deterministic world: one thread, virtual time, one seed. It knows nothing of Ribera.
//!
//! Tasks interleave only where they await, in an order drawn from the seed. A group of tasks (a
//! program on one machine) can be killed at any named step: its futures are dropped as a process
//! loses its memory.

mod chance;
mod exec;
mod trace;

pub use chance::Chance;
pub use exec::{GroupId, Sim, TaskId};
pub use trace::Trace;

/// Virtual microseconds since 1970-01-01T00:00:00Z.
pub type Micros = i64;

pub const SECOND: Micros = 1_000_000;
pub const MINUTE: Micros = 60 * SECOND;
pub const HOUR: Micros = 60 * MINUTE;
pub const DAY: Micros = 24 * HOUR;
