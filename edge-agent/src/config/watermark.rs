//! A column that says when a row was last written, for tables too large to fingerprint at each cycle.

use std::time::Duration;

use jiff::SignedDuration;
use ribera_storage::{Error, Result};
use serde::Deserialize;

use super::EpochUnit;

const LAG_MAX: Duration = Duration::from_secs(7 * 86_400);

/// `watermark = { column = "modificado_en", lag = "15m" }`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watermark {
    /// SQL expression of the moment a row was last written; an index should serve it.
    pub column: String,
    /// How much later than that moment a transaction may be committed.
    #[serde(default)]
    pub lag: Lag,
    /// Zone of a moment without one: IANA name; the store's by default.
    #[serde(default)]
    pub zone: Option<String>,
    /// The column is an integer that counts from 1970-01-01 UTC.
    #[serde(default)]
    pub epoch: Option<EpochUnit>,
}

/// A time such as `15m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Lag(pub Duration);

impl Default for Lag {
    fn default() -> Self {
        Self(Duration::from_secs(900))
    }
}

impl TryFrom<String> for Lag {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let lag = text.parse::<SignedDuration>().ok().and_then(|lag| Duration::try_from(lag).ok());
        lag.filter(|lag| *lag <= LAG_MAX)
            .map(Self)
            .ok_or_else(|| format!("lag: must be a time of 7 days at most, such as 15m, got {text:?}"))
    }
}

impl Watermark {
    pub(super) fn validate(&self, field: &str) -> Result<()> {
        let bad = |name: &str, rule: &str, got: &str| {
            Err(Error::config(format!("configuration: {field}.watermark.{name}: {rule}, got {got:?}")))
        };
        if self.column.trim().is_empty() {
            return bad("column", "must be an SQL expression", &self.column);
        }
        match &self.zone {
            Some(zone) if jiff::tz::TimeZone::get(zone).is_err() => {
                bad("zone", "must be an IANA time zone such as Europe/Madrid", zone)
            }
            Some(zone) if self.epoch.is_some() => bad("zone", "must be absent beside `epoch`, which counts UTC", zone),
            _ => Ok(()),
        }
    }
}
