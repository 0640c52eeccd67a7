//! The names everything is known by. Each checks itself when made, so a path built of them is
//! safe.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

macro_rules! checked_name {
    ($(#[$doc:meta])* $name:ident, $field:literal, $max:literal, $extra:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self> {
                let fits = (1..=$max).contains(&text.len())
                    && text.bytes().all(|byte| {
                        byte.is_ascii_lowercase() || byte.is_ascii_digit() || $extra.contains(&byte)
                    });
                if !fits {
                    return Err(Error::reject(format!(
                        "{}: expected 1 to {} characters of a-z, 0-9 and {}, got {text:?}",
                        $field, $max, String::from_utf8_lossy($extra),
                    )));
                }
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

checked_name! {
    /// A store: `[a-z0-9_-]{1,32}`.
    StoreId, "store id", 32, b"_-"
}
checked_name! {
    /// A dataset, and the Delta table that holds its rows: `[a-z0-9_]{1,48}`.
    DatasetName, "dataset name", 48, b"_"
}
/// A calendar month, `YYYY-MM`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Month {
    year: i16,
    month: i8,
}

impl Month {
    pub fn of(date: Date) -> Self {
        Self { year: date.year(), month: date.month() }
    }

    pub fn year(self) -> i16 {
        self.year
    }

    pub fn first_day(self) -> Date {
        jiff::civil::date(self.year, self.month, 1)
    }

    pub fn last_day(self) -> Date {
        self.first_day().last_of_month()
    }

    /// The days of the month in order.
    pub fn days(self) -> impl Iterator<Item = Date> {
        self.first_day().series(jiff::Span::new().days(1)).take_while(move |day| Self::of(*day) == self)
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

impl FromStr for Month {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::reject(format!("month: expected YYYY-MM, got {text:?}"));
        if text.len() != 7 {
            return Err(bad());
        }
        format!("{text}-01").parse::<Date>().map(Self::of).map_err(|_| bad())
    }
}

impl TryFrom<String> for Month {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Month> for String {
    fn from(month: Month) -> String {
        month.to_string()
    }
}

/// What a `replace` batch wins or loses as one: a business day, a snapshot moment, or the whole
/// dimension table. Text forms: `2026-01-31`, `2026-01-31T12:00:00Z`, `*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Unit {
    Table,
    Day(Date),
    Moment(Timestamp),
}

impl Unit {
    /// The business date of a day, the UTC date of a moment, nothing for a whole table.
    pub fn date(self) -> Option<Date> {
        match self {
            Self::Table => None,
            Self::Day(date) => Some(date),
            Self::Moment(moment) => Some(moment.to_zoned(jiff::tz::TimeZone::UTC).date()),
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table => f.write_str("*"),
            Self::Day(date) => write!(f, "{date}"),
            Self::Moment(moment) => write!(f, "{moment}"),
        }
    }
}

impl FromStr for Unit {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::reject(format!("unit: expected YYYY-MM-DD, a UTC moment or *, got {text:?}"));
        match text {
            "*" => Ok(Self::Table),
            _ if text.len() == 10 => plain_date(text).map(Self::Day).ok_or_else(bad),
            _ => text.parse().map(Self::Moment).map_err(|_| bad()),
        }
    }
}

/// `YYYY-MM-DD` and nothing else; coverage parses millions of them.
fn plain_date(text: &str) -> Option<Date> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text.as_bytes() else { return None };
    let number = |digits: &[u8]| {
        digits
            .iter()
            .try_fold(0_i16, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i16::from(digit - b'0')))
    };
    let (month, day) = (number(&[*m1, *m2])?, number(&[*d1, *d2])?);
    Date::new(number(&[*y1, *y2, *y3, *y4])?, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()
}

impl TryFrom<String> for Unit {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Unit> for String {
    fn from(unit: Unit) -> String {
        unit.to_string()
    }
}

/// A unit of one store: what lies in one file of the lake, and what a batch wins.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreUnit {
    pub store: StoreId,
    pub unit: Unit,
}

impl fmt::Display for StoreUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.unit, self.store)
    }
}

/// Where a batch stands in its stream. Compared by (epoch, sequence), never by a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    pub epoch: u32,
    pub sequence: u64,
}

impl fmt::Display for Position {
    /// Zero-padded, so that a listing is in order: `000001-0000000042`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06}-{:010}", self.epoch, self.sequence)
    }
}

impl FromStr for Position {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::reject(format!("position: expected EPOCH-SEQUENCE as 6 and 10 digits, got {text:?}"));
        let (epoch, sequence) = text.split_once('-').ok_or_else(bad)?;
        let digits = |part: &str, length| part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(epoch, 6) || !digits(sequence, 10) {
            return Err(bad());
        }
        Ok(Self { epoch: epoch.parse().map_err(|_| bad())?, sequence: sequence.parse().map_err(|_| bad())? })
    }
}

/// A batch's place: a stream is one dataset of one store. With the content hash it is the
/// batch's identity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BatchId {
    pub store: StoreId,
    pub dataset: DatasetName,
    #[serde(flatten)]
    pub position: Position,
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.store, self.dataset, self.position)
    }
}

impl FromStr for BatchId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let [store, dataset, position] = parts.as_slice() else {
            return Err(Error::reject(format!("batch: expected STORE/DATASET/EPOCH-SEQUENCE, got {text:?}")));
        };
        Ok(Self { store: store.parse()?, dataset: dataset.parse()?, position: position.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_refuse_path_tricks_and_say_what_they_got() {
        for text in ["", "..", "a/b", "A", "ñ", "a b", &"x".repeat(33)] {
            let error = text.parse::<StoreId>().unwrap_err();
            assert!(error.message().contains("store id"), "{error}");
        }
        assert_eq!("tienda_01-a".parse::<StoreId>().unwrap().as_str(), "tienda_01-a");
    }

    #[test]
    fn a_month_lists_its_days_in_order() {
        let month: Month = "2024-02".parse().unwrap();
        assert_eq!(month.days().count(), 29);
        assert_eq!(month.last_day().to_string(), "2024-02-29");
        assert!("2024-13".parse::<Month>().is_err());
    }

    #[test]
    fn units_and_batch_ids_print_and_parse_to_the_same_value() {
        for text in ["*", "2026-01-31", "2026-01-31T12:00:00Z"] {
            assert_eq!(text.parse::<Unit>().unwrap().to_string(), text);
        }
        for text in ["2026-02-29", "2026-1-031", "20260-1-31", "2026-01-3x", "+026-01-01", "2026/01/31"] {
            assert!(text.parse::<Unit>().is_err(), "{text}");
        }
        let id: BatchId = "s1/ventas/000002-0000000007".parse().unwrap();
        assert_eq!(id.to_string(), "s1/ventas/000002-0000000007");
        assert!("s1/ventas/2-7".parse::<BatchId>().is_err());
    }
}
