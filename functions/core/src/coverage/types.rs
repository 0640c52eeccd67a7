//! States of days and their compact calendar.

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

/// The state of a business date of a store and dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DayState {
    /// Closed at the source, and the lake equals the source's own audit.
    Complete,
    /// Some rows but not proven, or a batch of the day waits in quarantine.
    Partial,
    /// Expected, due, and no rows.
    Missing,
    /// Not due yet.
    Pending,
    NotExpected,
}

impl DayState {
    pub const ALL: [Self; 5] = [Self::Complete, Self::Partial, Self::Missing, Self::Pending, Self::NotExpected];

    /// One character: `C`, `P`, `M`, `-`, `.`.
    pub fn code(self) -> char {
        match self {
            Self::Complete => 'C',
            Self::Partial => 'P',
            Self::Missing => 'M',
            Self::Pending => '-',
            Self::NotExpected => '.',
        }
    }

    pub fn from_code(code: char) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.code() == code)
    }
}

/// The light of a store: green when every due day is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Light {
    Green,
    Yellow,
    Red,
    /// No due day.
    Grey,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StateCounts {
    pub complete: u64,
    pub partial: u64,
    pub missing: u64,
    pub pending: u64,
    pub not_expected: u64,
}

/// The states of consecutive days, kept as runs. JSON form: `{"from": "2026-01-01", "runs":
/// "31C2M365."}`, each run a count and a [`DayState::code`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calendar {
    from: Date,
    runs: String,
}

impl Calendar {
    /// Every day with its state, in order.
    pub fn days(&self) -> impl Iterator<Item = (Date, DayState)> + '_ {
        std::iter::empty()
    }

    /// The first day of the calendar.
    pub fn from(&self) -> Date {
        self.from
    }

    /// The runs' text form.
    pub fn runs(&self) -> &str {
        &self.runs
    }
}
