//! The object store's time: a signature is refused when it is a quarter of an hour off, and the
//! clock of a store's machine may be off by years.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

use crate::ports::Clock;

/// A difference that is not worth learning: answers travel, and their dates are whole seconds.
const TOLERANCE_S: i64 = 30;

pub type SharedClock = Arc<dyn Clock + Send + Sync>;

/// This machine's clock, corrected by what the store's answers say. Clones share what they learn.
#[derive(Clone)]
pub(super) struct StoreTime {
    clock: SharedClock,
    /// To be added to this machine's clock.
    offset_s: Arc<AtomicI64>,
}

impl StoreTime {
    pub fn new(clock: SharedClock) -> Self {
        Self { clock, offset_s: Arc::default() }
    }

    pub fn now(&self) -> Timestamp {
        let offset = SignedDuration::from_secs(self.offset_s.load(Ordering::Relaxed));
        let now = self.clock.now();
        now.checked_add(offset).unwrap_or(now)
    }

    /// Takes over what the server says the time is. Whether that was news.
    pub fn learn(&self, server: Timestamp) -> bool {
        if server.duration_since(self.now()).as_secs().abs() <= TOLERANCE_S {
            return false;
        }
        self.offset_s.store(server.duration_since(self.clock.now()).as_secs(), Ordering::Relaxed);
        true
    }
}

impl fmt::Debug for StoreTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreTime").field("offset_s", &self.offset_s).finish_non_exhaustive()
    }
}

/// Certificates are judged by the same time.
impl TimeProvider for StoreTime {
    fn current_time(&self) -> Option<UnixTime> {
        u64::try_from(self.now().as_second()).ok().map(|second| UnixTime::since_unix_epoch(Duration::from_secs(second)))
    }
}
