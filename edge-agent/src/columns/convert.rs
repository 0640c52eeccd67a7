//! One value into one type: exactly, or refused with the rule it breaks.

use std::fmt::Write;

use ribera_storage::ExactDecimal;

use super::{Reading, Refusal, parse};
use crate::config::EpochUnit;
use crate::value::{DAY_MICROS, Value, date_text, local_text, time_text};

type Converted<T> = Result<T, Refusal>;

pub fn boolean(value: Value<'_>) -> Converted<bool> {
    match value {
        Value::Bool(value) => Ok(value),
        Value::Int(0) | Value::UInt(0) | Value::Text("0" | "false") | Value::Digits("0") | Value::Bytes(&[0]) => {
            Ok(false)
        }
        Value::Int(1) | Value::UInt(1) | Value::Text("1" | "true") | Value::Digits("1") | Value::Bytes(&[1]) => {
            Ok(true)
        }
        _ => refuse("must be 0, 1, true or false"),
    }
}

pub fn integer(value: Value<'_>, min: i64, max: i64) -> Converted<i64> {
    let number = match value {
        Value::Int(number) => Some(number),
        Value::UInt(number) => i64::try_from(number).ok(),
        Value::Bool(value) => Some(i64::from(value)),
        Value::Decimal(decimal) => decimal.rescale(0).and_then(|whole| i64::try_from(whole.unscaled()).ok()),
        Value::Text(text) | Value::Digits(text) => {
            parse::decimal(text.as_bytes(), 0).and_then(|number| i64::try_from(number).ok())
        }
        Value::Float(_) => return refuse("must not be a float (round or cast it in the query)"),
        _ => None,
    };
    match number {
        Some(number) if (min..=max).contains(&number) => Ok(number),
        _ => refuse(format!("must be a whole number from {min} to {max}")),
    }
}

/// The unscaled number at `scale` fraction digits.
pub fn decimal(value: Value<'_>, reading: &Reading, precision: u8, scale: u8) -> Converted<i128> {
    let does_not_fit = || Refusal(format!("must fit decimal({precision},{scale}) without losing digits"));
    // An integer of the source counts 10^-reading.scale.
    let shifted = |number: i128| ExactDecimal::new(number, reading.scale).rescale(scale).map(ExactDecimal::unscaled);
    let number = match value {
        Value::Int(number) => shifted(number.into()),
        Value::UInt(number) => shifted(number.into()),
        Value::Text(text) | Value::Digits(text) if reading.scale == 0 => parse::decimal(text.as_bytes(), scale),
        Value::Text(text) | Value::Digits(text) => parse::decimal(text.as_bytes(), 0).and_then(shifted),
        Value::Decimal(decimal) if reading.scale == 0 => decimal.rescale(scale).map(ExactDecimal::unscaled),
        Value::Decimal(decimal) => decimal.rescale(0).and_then(|whole| shifted(whole.unscaled())),
        Value::Float(_) => {
            return refuse("must not be a float: declare `round` for the column, or cast it in the query");
        }
        _ => None,
    };
    match number {
        Some(number) if fits(number, precision) => Ok(number),
        _ => Err(does_not_fit()),
    }
}

/// Up to 38 digits; 10^38 is the largest power of ten that 128 bits hold.
fn fits(number: i128, precision: u8) -> bool {
    const POWERS: [u128; 39] = {
        let mut powers = [1; 39];
        let mut at = 1;
        while at < powers.len() {
            powers[at] = powers[at - 1] * 10;
            at += 1;
        }
        powers
    };
    POWERS.get(usize::from(precision)).is_some_and(|power| number.unsigned_abs() < *power)
}

pub fn date(value: Value<'_>) -> Converted<i32> {
    const RULE: &str = "must be a date (YYYY-MM-DD, or a moment at midnight)";
    match value {
        Value::Date(days) => Ok(days),
        Value::Local(micros) if micros % DAY_MICROS == 0 => Ok((micros / DAY_MICROS) as i32),
        Value::Text(text) => match parse::date_time(text, false) {
            Some(parse::DateTime { local, offset: None, .. }) if local % DAY_MICROS == 0 => {
                Ok((local / DAY_MICROS) as i32)
            }
            _ => refuse(RULE),
        },
        _ => refuse(RULE),
    }
}

/// UTC microseconds.
pub fn timestamp(value: Value<'_>, reading: &Reading) -> Converted<i64> {
    let local =
        |micros| reading.zone.to_utc(micros).ok_or_else(|| Refusal("must lie in the years 1 to 9999".to_owned()));
    match value {
        Value::Instant(micros) => Ok(micros),
        Value::Local(micros) => local(micros),
        Value::Date(days) => local(i64::from(days) * DAY_MICROS),
        Value::Text(text) => match parse::date_time(text, reading.truncate) {
            Some(parse::DateTime { local: micros, offset: Some(offset) }) => Ok(micros - offset),
            Some(parse::DateTime { local: micros, offset: None }) => local(micros),
            None => {
                refuse("must be YYYY-MM-DD HH:MM:SS with at most 6 fraction digits (declare `truncate` to cut more)")
            }
        },
        Value::Int(number) => {
            let factor = match reading.epoch {
                Some(EpochUnit::S) => 1_000_000,
                Some(EpochUnit::Ms) => 1000,
                Some(EpochUnit::Us) => 1,
                None => {
                    return refuse("must be a date and time (declare `epoch` for an integer that counts from 1970)");
                }
            };
            number.checked_mul(factor).ok_or_else(|| Refusal("must fit 64-bit microseconds".to_owned()))
        }
        _ => refuse("must be a date and time"),
    }
}

/// Hands the text to `append`.
pub fn text(value: Value<'_>, append: impl FnOnce(&str)) -> Converted<()> {
    let mut digits = Digits::default();
    match value {
        Value::Text(text) | Value::Digits(text) => append(text),
        Value::Int(number) => append(digits.of(number)),
        Value::UInt(number) => append(digits.of(number)),
        Value::Decimal(decimal) => append(&decimal.to_string()),
        Value::Bool(value) => append(if value { "true" } else { "false" }),
        Value::Date(days) => append(&date_text(days)),
        Value::Local(micros) => append(&local_text(micros)),
        Value::Instant(micros) => append(&format!("{}Z", local_text(micros))),
        Value::Time(micros) => append(&time_text(micros)),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => append(text),
            Err(_) => return refuse("must be UTF-8 text"),
        },
        Value::Float(_) => return refuse("must not be a float (round or cast it in the query)"),
        Value::ZeroDate => return refuse("must be a date of the calendar (use NULLIF in the query)"),
        Value::Null => return refuse("must not be NULL"),
    }
    Ok(())
}

pub fn binary(value: Value<'_>) -> Converted<&[u8]> {
    match value {
        Value::Bytes(bytes) => Ok(bytes),
        Value::Text(text) | Value::Digits(text) => Ok(text.as_bytes()),
        _ => refuse("must be bytes or text"),
    }
}

pub fn float(value: Value<'_>) -> Converted<f64> {
    const EXACT_MAX: i64 = 1 << 53;
    match value {
        Value::Float(number) => Ok(number),
        Value::Int(number) if (-EXACT_MAX..=EXACT_MAX).contains(&number) => Ok(number as f64),
        Value::UInt(number) if number <= EXACT_MAX as u64 => Ok(number as f64),
        Value::Text(text) | Value::Digits(text) => text.parse().map_err(|_| Refusal("must be a number".to_owned())),
        Value::Decimal(decimal) => decimal.to_string().parse().map_err(|_| Refusal("must be a number".to_owned())),
        _ => refuse("must be a number that a 64-bit float holds exactly"),
    }
}

fn refuse<T>(rule: impl Into<String>) -> Converted<T> {
    Err(Refusal(rule.into()))
}

/// Integers as text without an allocation per value.
#[derive(Default)]
struct Digits {
    bytes: [u8; 20],
    length: usize,
}

impl Digits {
    fn of(&mut self, number: impl std::fmt::Display) -> &str {
        // Twenty bytes hold every 64-bit integer, so writing cannot fail.
        let _ = write!(self, "{number}");
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

impl Write for Digits {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.length + text.len();
        self.bytes.get_mut(self.length..end).ok_or(std::fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}
