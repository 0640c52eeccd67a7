//! Calls of the object store that are made again.

use std::time::Duration;

use ribera_storage::{ErrorKind, ObjectStore, Result};

use crate::agent::Agent;

/// The first pause after a failed attempt; it doubles up to the last.
const PAUSE_FIRST_MS: u64 = 250;
const PAUSE_LAST_MS: u64 = 30_000;

impl<S: ObjectStore> Agent<S> {
    /// Runs `call` until it succeeds, with growing pauses; gives up after `upload_tries` or at an
    /// error that waiting does not cure.
    pub(crate) async fn with_retries<T>(&self, call: impl AsyncFn() -> Result<T>) -> Result<T> {
        let mut pause_ms = PAUSE_FIRST_MS;
        let mut tries = 1;
        loop {
            match call().await {
                Err(error) if error.kind() == ErrorKind::Retry && tries < self.config.limits.upload_tries => {
                    // Between half and one and a half of the pause, so that stores do not move in step.
                    let jittered = pause_ms / 2 + self.ports.random.next_u64() % pause_ms;
                    self.ports.timer.sleep(Duration::from_millis(jittered)).await;
                    pause_ms = (pause_ms * 2).min(PAUSE_LAST_MS);
                    tries += 1;
                }
                other => return other,
            }
        }
    }
}
