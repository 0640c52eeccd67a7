//! One value into one type: exactly, or refused with the rule it breaks.

use std::fmt::Write;

use ribera_storage::ExactDecimal;
use ribera_storage::limits::{FIRST_DAY, FIRST_MICROS, LAST_DAY, LAST_MICROS, VALUE_BYTES_MAX};

use super::{ColumnReadOptions, Refusal, parse};
use crate::calendar::{DAY_MICROS, date_text, local_text, time_text};
use crate::config::EpochUnit;
use crate::source::Value;

const ROUNDED: &str = "must be a number of at most 38 digits because the mapping declares `round`";
/// See `source::sqlserver::values`.
const LARGE_MONEY: &str = "must be money from -112589990684.2623 to 112589990684.2623, which is what the driver reads exactly; \
     CAST(column AS decimal(19,4)) in the query reads more";
const YEARS: &str = "must lie in the years 1 to 9999";

type Converted<T> = Result<T, Refusal>;

pub fn boolean(value: Value<'_>) -> Converted<bool> {
    match value {
        Value::Bool(value) => Ok(value),
        Value::Int(0) | Value::UInt(0) | Value::Text("0" | "false") | Value::Bytes(&[0]) => Ok(false),
        Value::Int(1) | Value::UInt(1) | Value::Text("1" | "true") | Value::Bytes(&[1]) => Ok(true),
        // Perhaps filled up with zeros.
        Value::Digits(digits) if digits.trim_start_matches('0').is_empty() && !digits.is_empty() => Ok(false),
        Value::Digits(digits) if digits.trim_start_matches('0') == "1" => Ok(true),
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
        Value::LargeMoney(_) => return refuse(LARGE_MONEY),
        _ => None,
    };
    match number {
        Some(number) if (min..=max).contains(&number) => Ok(number),
        _ => refuse(format!("must be a whole number from {min} to {max}")),
    }
}

/// The unscaled number at `scale` fraction digits.
pub fn decimal(value: Value<'_>, reading: &ColumnReadOptions, precision: u8, scale: u8) -> Converted<i128> {
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
        Value::LargeMoney(_) => return refuse(LARGE_MONEY),
        _ => None,
    };
    match number {
        Some(number) if fits(number, precision) => Ok(number),
        _ => Err(does_not_fit()),
    }
}

/// What a column with `round` holds: a number. SQLite hands over what is none as it is.
pub fn rounded(value: Value<'_>) -> Converted<Value<'_>> {
    match value {
        Value::Null | Value::Int(_) | Value::UInt(_) | Value::Decimal(_) | Value::Float(_) | Value::LargeMoney(_) => {
            Ok(value)
        }
        Value::Text(text) | Value::Digits(text) if text.parse::<ExactDecimal>().is_ok() => Ok(value),
        _ => refuse(ROUNDED),
    }
}

/// A number that was not rounded as it would be, near enough to tell whether it fits: its row is not sent, it is
/// looked for because the source refused one.
pub fn unrounded(value: Value<'_>, digits: u8) -> Converted<Value<'static>> {
    let number = match value {
        Value::Null => return Ok(Value::Null),
        Value::Float(number) | Value::LargeMoney(number) => Some(number),
        Value::Int(_) | Value::UInt(_) | Value::Decimal(_) => value.to_string().parse().ok(),
        // Beside digits a float may be written as a word.
        Value::Text(text) | Value::Digits(text) if text.bytes().any(|byte| byte.is_ascii_digit()) => {
            text.trim().parse().ok()
        }
        _ => None,
    };
    match number.map(|number| number * 10_f64.powi(digits.into())) {
        Some(number) if number.abs() < 1e38 => Ok(Value::Decimal(ExactDecimal::new(number as i128, digits))),
        _ => refuse(ROUNDED),
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
    let days = |days: i64| match i32::try_from(days) {
        Ok(days) if (FIRST_DAY..=LAST_DAY).contains(&days) => Ok(days),
        _ => refuse(YEARS),
    };
    match value {
        Value::Date(date) => days(date.into()),
        Value::Local(micros) if micros % DAY_MICROS == 0 => days(micros / DAY_MICROS),
        Value::Text(text) => match parse::date_time(text, false) {
            Some(parse::DateTime { local, offset: None, .. }) if local % DAY_MICROS == 0 => {
                Ok((local / DAY_MICROS) as i32)
            }
            _ => refuse(RULE),
        },
        _ => refuse(RULE),
    }
}

/// UTC microseconds, of a moment that the centre takes.
pub fn timestamp(value: Value<'_>, reading: &ColumnReadOptions) -> Converted<i64> {
    match micros(value, reading)? {
        micros if (FIRST_MICROS..=LAST_MICROS).contains(&micros) => Ok(micros),
        micros => refuse(format!("{YEARS} in UTC, where it is {}", local_text(micros))),
    }
}

fn micros(value: Value<'_>, reading: &ColumnReadOptions) -> Converted<i64> {
    let local = |micros| reading.zone.to_utc(micros).ok_or_else(|| Refusal(YEARS.to_owned()));
    if let Some(unit) = reading.epoch
        && let Some(counted) = counted(value, unit)
    {
        return counted;
    }
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
        Value::Int(_) | Value::UInt(_) | Value::Decimal(_) | Value::Digits(_) => {
            refuse("must be a date and time (declare `epoch` for a number that counts from 1970)")
        }
        _ => refuse("must be a date and time"),
    }
}

/// Microseconds of what counts from 1970, whatever its type; `None` for what is no number, which may be a date and
/// time as others are.
fn counted(value: Value<'_>, unit: EpochUnit) -> Option<Converted<i64>> {
    let (digits, name) = match unit {
        EpochUnit::S => (6, "seconds"),
        EpochUnit::Ms => (3, "milliseconds"),
        EpochUnit::Us => (0, "microseconds"),
    };
    let exact = match value {
        Value::Int(number) => ExactDecimal::new(number.into(), 0).rescale(digits),
        Value::UInt(number) => ExactDecimal::new(number.into(), 0).rescale(digits),
        Value::Decimal(number) => number.rescale(digits),
        Value::Digits(text) => text.parse::<ExactDecimal>().ok().and_then(|number| number.rescale(digits)),
        Value::Text(text) => text.parse::<ExactDecimal>().ok()?.rescale(digits),
        // Some tills keep whole numbers as floats, which are exact up to here.
        Value::Float(number) if number.fract() == 0.0 && number.abs() <= FLOAT_EXACT_MAX as f64 => {
            ExactDecimal::new(number as i128, 0).rescale(digits)
        }
        Value::Float(_) => None,
        _ => return None,
    };
    let counts = exact.ok_or_else(|| Refusal(format!("must count whole microseconds in {name} from 1970")));
    // Far beyond both ends of the calendar: as such it is refused.
    Some(counts.map(|number| i64::try_from(number.unscaled()).unwrap_or(i64::MAX)))
}

/// Hands the text to `append`.
pub fn text(value: Value<'_>, append: impl FnOnce(&str)) -> Converted<()> {
    let mut digits = Digits::default();
    let in_years = |day: i64| if (FIRST_DAY.into()..=LAST_DAY.into()).contains(&day) { Ok(()) } else { refuse(YEARS) };
    match value {
        Value::Text(text) | Value::Digits(text) => append(text),
        Value::Int(number) => append(digits.of(number)),
        Value::UInt(number) => append(digits.of(number)),
        Value::Decimal(decimal) => append(&decimal.to_string()),
        Value::Bool(value) => append(if value { "true" } else { "false" }),
        Value::Date(days) => {
            in_years(days.into())?;
            append(&date_text(days));
        }
        Value::Local(micros) => {
            in_years(micros.div_euclid(DAY_MICROS))?;
            append(&local_text(micros));
        }
        Value::Instant(micros) => {
            in_years(micros.div_euclid(DAY_MICROS))?;
            append(&format!("{}Z", local_text(micros)));
        }
        Value::Time(micros) => append(&time_text(micros)),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => append(text),
            Err(_) => return refuse("must be UTF-8 text (declare `charset` for another character set)"),
        },
        Value::Float(_) => return refuse("must not be a float (round or cast it in the query)"),
        Value::LargeMoney(_) => return refuse(LARGE_MONEY),
        Value::NoDate(_) => return refuse("must be a date of the calendar (use NULLIF in the query)"),
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

/// A batch with a longer text or binary value would be refused by the centre, which does not know the row at the till.
pub fn fits_centre(value: Value<'_>) -> Converted<()> {
    let length = match value {
        Value::Text(text) | Value::Digits(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        _ => 0,
    } as u64;
    if length <= VALUE_BYTES_MAX {
        return Ok(());
    }
    refuse(format!("must be at most {VALUE_BYTES_MAX} bytes long, which are {length}"))
}

pub fn float(value: Value<'_>) -> Converted<f64> {
    match value {
        Value::Float(number) | Value::LargeMoney(number) => Ok(number),
        Value::Int(number) if (-FLOAT_EXACT_MAX..=FLOAT_EXACT_MAX).contains(&number) => Ok(number as f64),
        Value::UInt(number) if number <= FLOAT_EXACT_MAX as u64 => Ok(number as f64),
        Value::Text(text) | Value::Digits(text) => match text.parse::<f64>() {
            // Written out it was a number that a float cannot hold.
            Ok(number) if number.is_infinite() && text.bytes().any(|byte| byte.is_ascii_digit()) => {
                refuse("must be a number that a 64-bit float holds")
            }
            Ok(number) => Ok(number),
            Err(_) => refuse("must be a number"),
        },
        Value::Decimal(decimal) => decimal.to_string().parse().map_err(|_| Refusal("must be a number".to_owned())),
        _ => refuse("must be a number that a 64-bit float holds exactly"),
    }
}

/// Up to here every integer is a float of its own.
const FLOAT_EXACT_MAX: i64 = 1 << 53;

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
