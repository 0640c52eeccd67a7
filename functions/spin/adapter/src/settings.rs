//! Settings, given by the host as JSON in the environment.

use ribera_core::coverage::CoverageSettings;
use ribera_core::ingest::IngestSettings;
use ribera_storage::{Error, Result};
use serde::Deserialize;

/// The variable that holds [`Settings`]; the defaults where it is absent or empty.
const VARIABLE: &str = "RIBERA_SETTINGS";

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    pub ingest: IngestSettings,
    pub coverage: CoverageSettings,
}

impl Settings {
    pub fn from_environment() -> Result<Self> {
        match std::env::var(VARIABLE) {
            Ok(text) if !text.is_empty() => {
                serde_json::from_str(&text).map_err(|error| Error::config(format!("{VARIABLE}: {error}")))
            }
            _ => Ok(Self::default()),
        }
    }
}
