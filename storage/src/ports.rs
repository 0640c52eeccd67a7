//! What deciding code asks of its host: time and randomness. The object store has its own
//! module, [`crate::object`].

use jiff::Timestamp;

/// The wall clock.
pub trait Clock {
    fn now(&self) -> Timestamp;
}

/// Randomness for names and jitter (never for secrets).
pub trait Random {
    fn next_u64(&self) -> u64;

    /// A fresh name: 128 random bits as 32 hexadecimal digits.
    fn fresh_name(&self) -> String {
        format!("{:016x}{:016x}", self.next_u64(), self.next_u64())
    }
}

impl<T: Clock + ?Sized> Clock for &T {
    fn now(&self) -> Timestamp {
        (**self).now()
    }
}

impl<T: Random + ?Sized> Random for &T {
    fn next_u64(&self) -> u64 {
        (**self).next_u64()
    }
}
