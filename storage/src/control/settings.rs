//! The settings of a lake: numbered TOML in `control/settings/`.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::numbered::{self, Published};
use crate::object::ObjectStore;

const SETTINGS: &str = "control/settings";

/// Settings that hold for every store. An absent key has its default; an unknown key is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Coverage from this percentage up, but below 100, is a yellow light; below it a red one.
    /// 0 to 100, default 80.
    pub yellow_percent: u8,
    /// Gaps are not repaired automatically anywhere. (A store has its own `hold_repair`.)
    pub hold_repair: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { yellow_percent: 80, hold_repair: false }
    }
}

impl Settings {
    /// Reads and validates; the error names field, rule and value got.
    ///
    /// # Errors
    ///
    /// `Config` when it is not TOML of settings, or breaks a rule of [`Self::validate`].
    pub fn from_toml(text: &str) -> Result<Self> {
        let settings: Self = toml::from_str(text)
            .map_err(|error| Error::config(format!("settings: {}", error.to_string().trim_end())))?;
        settings.validate()?;
        Ok(settings)
    }

    /// As TOML, the form that is published.
    ///
    /// # Errors
    ///
    /// `Bug` when they do not serialise, which they always do.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|error| Error::bug("the settings do not serialise").with_source(error))
    }

    /// Checks every field.
    ///
    /// # Errors
    ///
    /// `Config`, naming the field, the rule and the value got.
    pub fn validate(&self) -> Result<()> {
        if self.yellow_percent > 100 {
            let got = self.yellow_percent;
            return Err(Error::config(format!("settings: yellow_percent: must be 0 to 100, got {got}")));
        }
        Ok(())
    }
}

/// The latest settings; the defaults when none were published.
///
/// # Errors
///
/// `Retry` when the object store does not answer; `Config` when the latest settings cannot be read.
pub async fn load_settings<S: ObjectStore>(objects: &S) -> Result<Settings> {
    let Some(latest) = numbered::latest(objects, SETTINGS).await? else { return Ok(Settings::default()) };
    let text = std::str::from_utf8(&latest.bytes)
        .map_err(|error| Error::config(format!("{}: is not UTF-8", latest.path)).with_source(error))?;
    Settings::from_toml(text).map_err(|error| error.context(&latest.path))
}

/// Validates and publishes; writes nothing when they stand already.
///
/// # Errors
///
/// `Config` when they are not valid; `Retry` when the object store does not answer.
pub async fn publish_settings<S: ObjectStore>(objects: &S, settings: &Settings) -> Result<Published> {
    settings.validate()?;
    numbered::publish(objects, SETTINGS, "toml", settings.to_toml()?.into()).await
}
