//! Store definitions (TOML) and the store calendar: which days are expected.

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ids::StoreId;
use crate::tax_number::TaxNumber;

/// A store, as declared in TOML and published to `control/stores/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreDefinition {
    pub id: StoreId,
    /// Shown to people.
    pub name: String,
    /// The company's tax number, as [`TaxNumber`] writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Where the store's database is reachable from the centre, if at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// IANA name, such as `Europe/Madrid`.
    pub time_zone: String,
    /// First business day; days before it are not expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened: Option<Date>,
    /// Last business day; days after it are not expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<Date>,
    /// Days of every week without business.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rest_days: Vec<WeekdayName>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holidays: Vec<Date>,
    /// Declared exceptions; they win over rest days and holidays.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exceptions: Vec<CalendarException>,
    /// An inactive store is not expected and stands outside totals unless asked for.
    #[serde(default = "yes")]
    pub active: bool,
    /// Gaps of this store are left alone by automatic repair.
    #[serde(default, skip_serializing_if = "is_false")]
    pub hold_repair: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeekdayName {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

/// A day or run of days that departs from the calendar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalendarException {
    pub from: Date,
    /// Inclusive.
    pub to: Date,
    /// Whether the store trades on these days.
    pub expected: bool,
    /// Shown to people.
    #[serde(default)]
    pub reason: String,
}

impl StoreDefinition {
    /// An active store that trades every day, with nothing else said of it. Not validated.
    pub fn new(id: StoreId, name: impl Into<String>, time_zone: impl Into<String>) -> Self {
        Self {
            id,
            name: name.into(),
            time_zone: time_zone.into(),
            tenant: None,
            host: None,
            port: None,
            opened: None,
            closed: None,
            rest_days: Vec::new(),
            holidays: Vec::new(),
            exceptions: Vec::new(),
            active: true,
            hold_repair: false,
        }
    }

    /// Reads and validates; the error names field, rule and value got.
    ///
    /// # Errors
    ///
    /// `Config` when it is not TOML of a store, or breaks a rule of [`Self::validate`].
    pub fn from_toml(text: &str) -> Result<Self> {
        let store: Self = toml::from_str(text)
            .map_err(|error| Error::config(format!("store definition: {}", error.to_string().trim_end())))?;
        store.validate()?;
        Ok(store)
    }

    /// As TOML, the form that is published.
    ///
    /// # Errors
    ///
    /// `Bug` when it does not serialise, which it always does.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|error| Error::bug("store definition does not serialise").with_source(error))
    }

    /// Checks every field, alone and against the others.
    ///
    /// # Errors
    ///
    /// `Config`, naming the field, the rule and the value got.
    pub fn validate(&self) -> Result<()> {
        let bad = |field: &str, rule: &str, got: &str| {
            Err(Error::config(format!("store {}: {field}: {rule}, got {got:?}", self.id)))
        };
        if self.name.trim().is_empty() {
            return bad("name", "must not be blank", &self.name);
        }
        self.zone()?;
        if let Some(tenant) = &self.tenant
            && tenant.parse::<TaxNumber>().ok().is_none_or(|number| number.as_str() != tenant)
        {
            return bad("tenant", "must be upper case letters and digits only (no dots, dashes or blanks)", tenant);
        }
        if let (Some(opened), Some(closed)) = (self.opened, self.closed)
            && closed < opened
        {
            return bad("closed", "must not lie before `opened`", &closed.to_string());
        }
        for exception in &self.exceptions {
            if exception.to < exception.from {
                return bad("exceptions.to", "must not lie before `from`", &exception.to.to_string());
            }
        }
        Ok(())
    }

    /// The time zone of `time_zone`.
    ///
    /// # Errors
    ///
    /// `Config` when `time_zone` is no IANA name.
    pub fn zone(&self) -> Result<TimeZone> {
        TimeZone::get(&self.time_zone).map_err(|_| {
            Error::config(format!(
                "store {}: time_zone: must be an IANA time zone such as Europe/Madrid, got {:?}",
                self.id, self.time_zone
            ))
        })
    }

    /// Whether the store is to have data for `date` (see design: coverage).
    pub fn expects(&self, date: Date) -> bool {
        if !self.active
            || self.opened.is_some_and(|opened| date < opened)
            || self.closed.is_some_and(|closed| date > closed)
        {
            return false;
        }
        if let Some(exception) = self.exceptions.iter().rev().find(|one| one.from <= date && date <= one.to) {
            return exception.expected;
        }
        !self.holidays.contains(&date) && !self.rest_days.iter().any(|rest| rest.weekday() == date.weekday())
    }
}

impl WeekdayName {
    pub fn weekday(self) -> Weekday {
        match self {
            Self::Monday => Weekday::Monday,
            Self::Tuesday => Weekday::Tuesday,
            Self::Wednesday => Weekday::Wednesday,
            Self::Thursday => Weekday::Thursday,
            Self::Friday => Weekday::Friday,
            Self::Saturday => Weekday::Saturday,
            Self::Sunday => Weekday::Sunday,
        }
    }
}

fn yes() -> bool {
    true
}

fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    const STORE: &str = r#"
        id = "s1"
        name = "Centro"
        time_zone = "America/New_York"
        opened = "2017-01-02"
        rest_days = ["sunday"]
        holidays = ["2017-12-25"]
        exceptions = [{ from = "2017-12-24", to = "2017-12-24", expected = true, reason = "Nochebuena" }]
    "#;

    #[test]
    fn a_calendar_expects_open_days_only_and_exceptions_win() {
        let store = StoreDefinition::from_toml(STORE).unwrap();
        assert!(!store.expects(date(2017, 1, 1)), "before opening");
        assert!(store.expects(date(2017, 1, 2)));
        assert!(!store.expects(date(2017, 1, 8)), "sunday");
        assert!(!store.expects(date(2017, 12, 25)), "holiday");
        assert!(store.expects(date(2017, 12, 24)), "a sunday declared open");
    }

    #[test]
    fn a_store_definition_survives_its_own_toml() {
        let store = StoreDefinition::from_toml(STORE).unwrap();
        assert_eq!(StoreDefinition::from_toml(&store.to_toml().unwrap()).unwrap(), store);
    }

    #[test]
    fn a_bad_store_definition_is_refused_naming_field_rule_and_value() {
        let cases = [
            ("id = \"s1\"\nname = \"x\"\ntime_zone = \"Mars/Base\"", &["time_zone", "Mars/Base"][..]),
            ("id = \"S 1\"\nname = \"x\"\ntime_zone = \"UTC\"", &["store id", "S 1"]),
            ("id = \"s1\"\nname = \"x\"\ntime_zone = \"UTC\"\ncolour = 1", &["colour"]),
            ("id = \"s1\"\nname = \"x\"\ntime_zone = \"UTC\"\nactive = \"yes\"", &["active", "yes"]),
            ("id = \"s1\"\nname = \"x\"\ntime_zone = \"UTC\"\ntenant = \"76.123-4\"", &["tenant", "76.123-4"]),
            ("id = \"s1\"\nname = \"x\"\ntime_zone = \"UTC\"\ntenant = \"7612345k\"", &["tenant", "7612345k"]),
        ];
        for (text, words) in cases {
            let error = StoreDefinition::from_toml(text).unwrap_err().to_string();
            for word in words {
                assert!(error.contains(word), "{error:?} should name {word}");
            }
        }
    }
}
