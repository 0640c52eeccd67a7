//! One value on its way from a source's driver to a column, borrowed from the driver's buffer.

use std::fmt;

use ribera_storage::{ExactDecimal, Result};

use crate::charset::{Charset, decoded};

/// What a source can give. Nothing here passes through a float unless the source itself has one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Float(f64),
    /// An amount of SQL Server's money that the driver reads as a double with other digits.
    LargeMoney(f64),
    Decimal(ExactDecimal),
    /// A number of the source as its digits, exact and of any length. No transform of text touches it.
    Digits(&'a str),
    Text(&'a str),
    Bytes(&'a [u8]),
    /// Days since 1970-01-01.
    Date(i32),
    /// Wall-clock microseconds since 1970-01-01T00:00, without a zone.
    Local(i64),
    /// Microseconds since 1970-01-01T00:00 UTC.
    Instant(i64),
    /// Microseconds; may be negative or beyond a day, as MySQL's TIME.
    Time(i64),
    /// A day that no calendar has, such as MySQL's 0000-00-00 and 2024-02-31, or a moment on it.
    NoDate(NoDate),
}

/// Year, month and day as the source has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoDate {
    pub year: i64,
    pub month: u8,
    pub day: u8,
}

/// Receives rows: the columns' names once, then each row value by value.
pub trait Rows {
    /// The result's column names, in order; called once before the first row of each result.
    fn begin(&mut self, names: &[String]) -> Result<()>;
    /// The value of column `index` of the current row. A value that does not fit is remembered
    /// and told by `end_row`, which knows the whole row.
    fn value(&mut self, index: usize, value: Value<'_>);
    /// The same for a text as the till's program wrote it, in a character set that nobody knows but by `charset` of
    /// the source or of the column.
    fn raw_text(&mut self, index: usize, bytes: &[u8], charset: Option<Charset>) {
        match decoded(bytes, charset) {
            Some(text) => self.value(index, Value::Text(&text)),
            None => self.value(index, Value::Bytes(bytes)),
        }
    }
    fn end_row(&mut self) -> Result<()>;
}

impl fmt::Display for Value<'_> {
    /// For error messages; long text is cut.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::UInt(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "the float {value:?}"),
            Self::LargeMoney(value) => write!(f, "about {value:.0}"),
            Self::Decimal(value) => write!(f, "{value}"),
            Self::Digits(digits) => f.write_str(digits),
            Self::Text(text) if text.len() > 100 => write!(f, "{:?}...", text.chars().take(100).collect::<String>()),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Bytes(bytes) => write!(f, "{} bytes {:02x?}", bytes.len(), &bytes[..bytes.len().min(16)]),
            Self::Date(days) => write!(f, "the date {}", date_text(*days)),
            Self::Local(micros) => write!(f, "the local time {}", local_text(*micros)),
            Self::Instant(micros) => write!(f, "the UTC time {}", local_text(*micros)),
            Self::Time(micros) => f.write_str(&time_text(*micros)),
            Self::NoDate(date) => write!(f, "{date}"),
        }
    }
}

impl Value<'_> {
    /// What it is, without itself: for columns whose values nobody may see.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "NULL",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::UInt(_) => "an integer",
            Self::Float(_) => "a float",
            Self::LargeMoney(_) => "money",
            Self::Decimal(_) | Self::Digits(_) => "a number",
            Self::Text(_) => "a text",
            Self::Bytes(_) => "bytes",
            Self::Date(_) => "a date",
            Self::Local(_) | Self::Instant(_) => "a date and time",
            Self::Time(_) => "a time",
            Self::NoDate(_) => "a date that no calendar has",
        }
    }
}

impl fmt::Display for NoDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, day } = self;
        match (year, month, day) {
            (0, 0, 0) => f.write_str("a zero date (0000-00-00)"),
            _ => write!(f, "the date {year:04}-{month:02}-{day:02}, which no calendar has"),
        }
    }
}

/// `YYYY-MM-DD`.
pub fn date_text(days: i32) -> String {
    match date_of(days) {
        Some(date) => date.to_string(),
        None => {
            let NoDate { year, month, day } = civil_of_days(days.into());
            format!("{year:04}-{month:02}-{day:02}")
        }
    }
}

/// The proleptic Gregorian date of days since 1970-01-01, in any year: the inverse of [`days_of_civil`].
pub fn civil_of_days(days: i64) -> NoDate {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    NoDate { year, month: month as u8, day: day as u8 }
}

/// The civil date of days since 1970-01-01, within the years -9999 to 9999.
pub fn date_of(days: i32) -> Option<jiff::civil::Date> {
    jiff::civil::date(1970, 1, 1).checked_add(jiff::Span::new().try_days(days).ok()?).ok()
}

/// Days since 1970-01-01.
pub fn days_of(date: jiff::civil::Date) -> i32 {
    days_of_civil(i64::from(date.year()), i64::from(date.month()), i64::from(date.day()))
}

/// Days since 1970-01-01 of a proleptic Gregorian date (Howard Hinnant's days-from-civil).
pub fn days_of_civil(year: i64, month: i64, day: i64) -> i32 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era - 719_468) as i32
}

pub const DAY_MICROS: i64 = 86_400_000_000;

/// `YYYY-MM-DDTHH:MM:SS[.ffffff]`.
pub fn local_text(micros: i64) -> String {
    let days = micros.div_euclid(DAY_MICROS);
    format!("{}T{}", date_text(days as i32), time_text(micros.rem_euclid(DAY_MICROS)))
}

/// `[-]HH:MM:SS[.ffffff]`.
pub fn time_text(micros: i64) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let (seconds, fraction) = (micros.unsigned_abs() / 1_000_000, micros.unsigned_abs() % 1_000_000);
    let text = format!("{sign}{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if fraction == 0 { text } else { format!("{text}.{fraction:06}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_dates_agree_over_eight_centuries() {
        for days in (-146_097..146_097).step_by(13) {
            let date = date_of(days).unwrap();
            assert_eq!(days_of(date), days, "{date}");
            let NoDate { year, month, day } = civil_of_days(days.into());
            let civil = (i64::from(date.year()), date.month() as u8, date.day() as u8);
            assert_eq!((year, month, day), civil, "{date}");
        }
    }

    #[test]
    fn times_print_with_the_digits_they_need() {
        assert_eq!(time_text(3_661_000_000), "01:01:01");
        assert_eq!(time_text(-1), "-00:00:00.000001");
        assert_eq!(local_text(-1), "1969-12-31T23:59:59.999999");
    }
}
