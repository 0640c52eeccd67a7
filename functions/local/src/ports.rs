//! The clock and the randomness of a native host.

#![allow(clippy::disallowed_methods, reason = "the native host's clock and randomness come from here")]

use jiff::Timestamp;
use ribera_storage::ports::{Clock, Random};

/// The wall clock of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the host's clock")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// The random numbers of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    #[allow(clippy::disallowed_methods, reason = "this is the host's randomness")]
    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        match getrandom::fill(&mut bytes) {
            Ok(()) => u64::from_ne_bytes(bytes),
            // Names only have to differ: where the system gives none, hasher keys and the clock do.
            Err(_) => {
                use std::hash::{BuildHasher, Hasher, RandomState};
                let mut hasher = RandomState::new().build_hasher();
                hasher.write_i128(Timestamp::now().as_nanosecond());
                hasher.finish()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_fresh_names_differ() {
        assert_ne!(SystemRandom.fresh_name(), SystemRandom.fresh_name());
    }
}
