//! The clock and the randomness of WASI.

use jiff::Timestamp;
use ribera_storage::ports::{Clock, Random};
use spin_sdk::wasip3::random::random::get_random_u64;

#[derive(Debug, Clone, Copy)]
pub struct WasiClock;

impl Clock for WasiClock {
    #[allow(clippy::disallowed_methods, reason = "the host's clock behind the port")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

#[derive(Debug, Clone, Copy)]
pub struct WasiRandom;

impl Random for WasiRandom {
    fn next_u64(&self) -> u64 {
        get_random_u64()
    }
}
