//! Clock and randomness of the process.

use std::cell::Cell;
use std::hash::{BuildHasher, Hasher, RandomState};

use jiff::Timestamp;
use ribera_storage::ports::{Clock, Random};

#[derive(Debug, Clone, Copy)]
pub struct WallClock;

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// SplitMix64: quick, and the same seed gives the same numbers.
#[derive(Debug, Clone)]
pub struct SplitMix(Cell<u64>);

impl SplitMix {
    pub fn seeded(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    /// Seeded by the operating system: for names that must differ between processes.
    pub fn fresh() -> Self {
        Self::seeded(RandomState::new().build_hasher().finish())
    }

    /// In [0, 1).
    pub fn unit(&self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// In 0..bound.
    pub fn below(&self, bound: u64) -> u64 {
        (self.unit() * bound as f64) as u64
    }
}

impl Random for SplitMix {
    fn next_u64(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.0.set(state);
        mix(state)
    }
}

/// A well-mixed function of `value`.
pub fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}
