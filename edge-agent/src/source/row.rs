//! One value on its way from a source's driver to a column, borrowed from the driver's buffer.

use std::fmt;

use ribera_storage::{ExactDecimal, Result};

use crate::calendar::{NoDate, date_text, local_text, time_text};
use crate::config::{Charset, decoded};

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

/// Receives rows: the columns' names once, then each row value by value.
pub trait Rows {
    /// The result's column names, in order; called once before the first row of each result.
    fn begin(&mut self, names: &[String]) -> Result<()>;
    /// The value of column `index` of the current row. A value that does not fit is remembered
    /// and told by `end_row`, which knows the whole row.
    fn value(&mut self, index: usize, value: Value<'_>);
    /// The bytes of a text in column `index`, whose character set is known only by `charset` of the source or of the
    /// column.
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
