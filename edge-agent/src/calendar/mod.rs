//! Days and times of a store's calendar. Nothing here reads a clock, a setting or a file.

mod civil;
mod days;
mod zone;

pub use civil::*;
pub use days::Days;
pub use zone::Zone;
