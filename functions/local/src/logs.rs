//! Logs: one line for each record, to standard error.

use tracing_subscriber::EnvFilter;

use crate::terminal::LogOutput;

/// What is logged: `RIBERA_LOG`, such as `info` or `ribera=debug`; by default `info` of our own.
const VARIABLE: &str = "RIBERA_LOG";

/// Starts logging; a second call changes nothing. `json`: each line one JSON object.
pub fn start(json: bool) {
    let filter = EnvFilter::try_from_env(VARIABLE).unwrap_or_else(|_| EnvFilter::new("warn,ribera=info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(LogOutput { json })
        .with_ansi(false)
        .with_target(false);
    // Fails only when logging was started before.
    let _ = if json { lines.json().flatten_event(true).try_init() } else { lines.compact().try_init() };
}
