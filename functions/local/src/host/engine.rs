//! The WASM engine and its limits.

use std::thread;
use std::time::Duration;

use ribera_storage::{Error, Result};
use wasmtime::{Config, Engine, EngineWeak};

/// What one call may cost. Each limit kills the call, never the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallLimits {
    /// Linear memory of one call. More: larger batches fit; the host needs as much for each call
    /// that it runs at once.
    pub memory_bytes_max: usize,
    /// Wall time of one call.
    pub time_max: Duration,
    /// Body of the reply.
    pub reply_bytes_max: usize,
    /// What a function may write to its log.
    pub log_bytes_max: usize,
}

impl Default for CallLimits {
    fn default() -> Self {
        Self {
            memory_bytes_max: 1 << 30,
            time_max: Duration::from_secs(300),
            reply_bytes_max: 16 << 20,
            log_bytes_max: 256 << 10,
        }
    }
}

/// How often the engine asks a running guest whether its time is over.
pub const EPOCH: Duration = Duration::from_millis(20);

/// The number of epochs after which a guest must have ended.
pub fn epochs(time_max: Duration) -> u64 {
    u64::try_from(time_max.as_millis() / EPOCH.as_millis()).unwrap_or(u64::MAX / 2).max(1) + 1
}

/// An engine whose epoch advances for as long as it lives.
pub fn new() -> Result<Engine> {
    let mut config = Config::new();
    config.wasm_component_model_async(true).epoch_interruption(true);
    let engine = Engine::new(&config).map_err(|error| Error::bug(format!("WASM engine: {error:#}")))?;
    let weak = engine.weak();
    thread::Builder::new()
        .name("epoch".into())
        .spawn(move || advance(&weak))
        .map_err(|error| Error::retry("WASM engine: thread").with_source(error))?;
    Ok(engine)
}

#[allow(clippy::disallowed_methods, reason = "a thread of its own, not a task")]
fn advance(engine: &EngineWeak) {
    while let Some(engine) = engine.upgrade() {
        engine.increment_epoch();
        drop(engine);
        thread::sleep(EPOCH);
    }
}
