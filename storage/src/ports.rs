//! What deciding code asks of its host: the object store, time and randomness. The object store's
//! trait has its own module, [`crate::object`].

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

/// What every entry point is given by its host. A copy costs nothing.
pub struct Ports<'a, S> {
    pub objects: &'a S,
    pub clock: &'a dyn Clock,
    pub random: &'a dyn Random,
}

impl<S> Clone for Ports<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Ports<'_, S> {}

/// The owner of what [`Ports`] borrows: a host makes one and lends it to each call.
#[derive(Debug, Clone)]
pub struct Host<S, C, R> {
    pub objects: S,
    pub clock: C,
    pub random: R,
}

impl<S, C: Clock, R: Random> Host<S, C, R> {
    pub fn new(objects: S, clock: C, random: R) -> Self {
        Self { objects, clock, random }
    }

    pub fn ports(&self) -> Ports<'_, S> {
        Ports { objects: &self.objects, clock: &self.clock, random: &self.random }
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
