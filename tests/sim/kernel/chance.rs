//! All randomness of a run, from one seed.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash, Hasher};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Draws from a seeded ChaCha stream. The order of draws is part of the run.
#[derive(Debug)]
pub struct Chance(RefCell<ChaCha8Rng>);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(RefCell::new(ChaCha8Rng::seed_from_u64(seed)))
    }

    /// A source of its own: what others draw changes nothing in it.
    pub fn of(seed: u64, name: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        (seed, name).hash(&mut hasher);
        Self::new(hasher.finish())
    }

    pub fn next_u64(&self) -> u64 {
        self.0.borrow_mut().next_u64()
    }

    /// Uniform below `bound`; 0 for a bound of 0. The bias of a modulo is below 2^-40 here.
    pub fn below(&self, bound: u64) -> u64 {
        match bound {
            0 => 0,
            _ => self.next_u64() % bound,
        }
    }

    /// Uniform in `low..high`.
    pub fn between(&self, low: i64, high: i64) -> i64 {
        low + i64::try_from(self.below(high.saturating_sub(low).unsigned_abs())).unwrap_or(0)
    }

    /// True with probability `per_million` / 1,000,000.
    pub fn one_in_million(&self, per_million: u64) -> bool {
        per_million > 0 && self.below(1_000_000) < per_million
    }

    /// True with probability `percent` / 100.
    pub fn percent(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// A member of `choices`.
    pub fn pick<'a, T>(&self, choices: &'a [T]) -> &'a T {
        &choices[self.index(choices.len())]
    }

    /// An index below `len`.
    pub fn index(&self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }
}
