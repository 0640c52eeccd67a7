//! From the driver's values to ours.

use std::fmt::Write as _;

use ribera_storage::{Error, ExactDecimal, Result};
use tiberius::time::{Date, DateTime, DateTime2, SmallDateTime, Time};
use tiberius::{Column, ColumnData, ColumnType, Row};

use crate::calendar::{DAY_MICROS, NoDate, civil_of_days, date_text};
use crate::source::Value;
use crate::source::result_sets::ResultSets;

/// Days between year 1, and 1900, and 1970.
const DAYS_1_TO_1970: i32 = 719_162;
const DAYS_1900_TO_1970: i32 = 25_567;
/// Days that three bytes hold and a calendar has.
const DAYS_MAX: i32 = 3_652_058;
const TICKS_PER_MICRO: i64 = 10;

/// The driver divides money by 10^4 as a double. Up to here each amount has a double of its own
/// that multiplication and rounding bring back: the errors of both together stay below a half.
const MONEY_MAX: f64 = (1_u64 << 50) as f64;
const MONEY_HINT: &str = "CAST(column AS decimal(19,4)) in the mapping: the driver reads money as a double";

/// Reads the rows of one result.
#[derive(Default)]
pub struct Reader {
    pub names: Vec<String>,
    kinds: Vec<Kind>,
    /// Text being written; kept for its allocation.
    scratch: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Money,
    Text,
    Other,
}

impl Reader {
    /// Refuses columns of types whose values have no one meaning.
    pub fn of(columns: &[Column], names: Vec<String>) -> Result<Self> {
        Ok(Self { names, kinds: columns.iter().map(Kind::of).collect::<Result<_>>()?, scratch: String::new() })
    }

    pub fn hand_over(&mut self, row: &Row, rows: &mut ResultSets<'_>) -> Result<()> {
        let mut large_money = false;
        for (index, ((_, data), kind)) in row.cells().zip(&self.kinds).enumerate() {
            let value = match (data, kind) {
                (ColumnData::F64(Some(amount)), Kind::Money) => money(*amount).unwrap_or_else(|| {
                    large_money = true;
                    Value::LargeMoney(*amount)
                }),
                (data, _) => value(data, &mut self.scratch).unwrap_or_else(|| Value::NoDate(no_date(data))),
            };
            rows.value(index, value);
        }
        rows.end_row().map_err(|error| if large_money { error.with_hint(MONEY_HINT) } else { error })
    }

    /// The error of a text, which the driver reads without saying where it is.
    pub fn unreadable(&self, error: &Error) -> Error {
        let texts = self.names.iter().zip(&self.kinds).filter(|(_, kind)| **kind == Kind::Text);
        let texts: Vec<&str> = texts.map(|(name, _)| name.as_str()).collect();
        let columns = texts.join(", ");
        Error::data(format!(
            "a text that is not of its own character set, in one of the columns {columns}: {}",
            error.message()
        ))
    }
}

impl Kind {
    fn of(column: &Column) -> Result<Self> {
        Ok(match column.column_type() {
            ColumnType::Money | ColumnType::Money4 => Self::Money,
            ColumnType::BigVarChar
            | ColumnType::BigChar
            | ColumnType::Text
            | ColumnType::NVarchar
            | ColumnType::NChar
            | ColumnType::NText
            | ColumnType::Xml => Self::Text,
            ColumnType::SSVariant => return Err(refused(column, "sql_variant", "the type that it holds")),
            ColumnType::Udt => return Err(refused(column, "a type of the server's own programs", "nvarchar(4000)")),
            _ => Self::Other,
        })
    }
}

fn refused(column: &Column, got: &str, cast: &str) -> Error {
    Error::config(format!(
        "source: sqlserver: column {}: must be of a type that docs/types.md lists, got {got}; CAST it in the query to {cast}",
        column.name()
    ))
}

fn money(amount: f64) -> Option<Value<'static>> {
    let units = (amount * 1e4).round();
    (units.abs() < MONEY_MAX).then(|| Value::Decimal(ExactDecimal::new(units as i128, 4)))
}

/// `None` when no calendar has the date or time.
fn value<'v>(data: &'v ColumnData<'static>, scratch: &'v mut String) -> Option<Value<'v>> {
    Some(match data {
        ColumnData::U8(Some(number)) => Value::Int(i64::from(*number)),
        ColumnData::I16(Some(number)) => Value::Int(i64::from(*number)),
        ColumnData::I32(Some(number)) => Value::Int(i64::from(*number)),
        ColumnData::I64(Some(number)) => Value::Int(*number),
        ColumnData::F32(Some(number)) => Value::Float(f64::from(*number)),
        ColumnData::F64(Some(number)) => Value::Float(*number),
        ColumnData::Bit(Some(bit)) => Value::Bool(*bit),
        ColumnData::String(Some(text)) => Value::Text(text),
        ColumnData::Xml(Some(xml)) => {
            let xml: &str = (**xml).as_ref();
            Value::Text(xml)
        }
        ColumnData::Binary(Some(bytes)) => Value::Bytes(bytes),
        ColumnData::Numeric(Some(number)) => Value::Decimal(ExactDecimal::new(number.value(), number.scale())),
        ColumnData::Guid(Some(guid)) => {
            // As the server itself writes it.
            scratch.clear();
            let _ = write!(scratch, "{guid:X}");
            Value::Text(scratch)
        }
        ColumnData::DateTime(Some(moment)) => Value::Local(date_time(*moment)?),
        ColumnData::SmallDateTime(Some(moment)) => Value::Local(small_date_time(*moment)?),
        ColumnData::Date(Some(date)) => Value::Date(days(*date)?),
        ColumnData::Time(Some(time)) => match ticks(*time)? {
            fine if fine % TICKS_PER_MICRO != 0 => {
                scratch.clear();
                write_time(scratch, fine);
                Value::Text(scratch)
            }
            ticks => Value::Time(ticks / TICKS_PER_MICRO),
        },
        ColumnData::DateTime2(Some(moment)) => match moment_ticks(*moment)? {
            fine if fine.1 % TICKS_PER_MICRO != 0 => fine_text(fine, "", scratch),
            (days, ticks) => Value::Local(i64::from(days) * DAY_MICROS + ticks / TICKS_PER_MICRO),
        },
        ColumnData::DateTimeOffset(Some(moment)) => match moment_ticks(moment.datetime2())? {
            fine if fine.1 % TICKS_PER_MICRO != 0 => fine_text(fine, "Z", scratch),
            (days, ticks) => Value::Instant(i64::from(days) * DAY_MICROS + ticks / TICKS_PER_MICRO),
        },
        _ => Value::Null,
    })
}

/// The day of a date or moment that no calendar has, as far as it can be told.
fn no_date(data: &ColumnData<'_>) -> NoDate {
    let days = match data {
        ColumnData::Date(Some(date)) => i64::from(date.days()) - i64::from(DAYS_1_TO_1970),
        ColumnData::DateTime2(Some(moment)) => i64::from(moment.date().days()) - i64::from(DAYS_1_TO_1970),
        ColumnData::DateTimeOffset(Some(moment)) => {
            i64::from(moment.datetime2().date().days()) - i64::from(DAYS_1_TO_1970)
        }
        ColumnData::DateTime(Some(moment)) => i64::from(moment.days()) - i64::from(DAYS_1900_TO_1970),
        ColumnData::SmallDateTime(Some(moment)) => i64::from(moment.days()) - i64::from(DAYS_1900_TO_1970),
        _ => return NoDate { year: 0, month: 0, day: 0 },
    };
    civil_of_days(days)
}

/// A moment without zone in microseconds, finer digits cut.
pub fn micros(data: &ColumnData<'_>) -> Option<i64> {
    match data {
        ColumnData::DateTime2(Some(moment)) => {
            let (days, ticks) = moment_ticks(*moment)?;
            Some(i64::from(days) * DAY_MICROS + ticks / TICKS_PER_MICRO)
        }
        ColumnData::DateTime(Some(moment)) => date_time(*moment),
        _ => None,
    }
}

/// The driver's date, of days since 1970-01-01.
pub fn date(days: i32) -> Option<Date> {
    let days = days + DAYS_1_TO_1970;
    u32::try_from(days).ok().filter(|_| days <= DAYS_MAX).map(Date::new)
}

/// Days since 1970-01-01.
fn days(date: Date) -> Option<i32> {
    let days = i32::try_from(date.days()).ok().filter(|days| *days <= DAYS_MAX)?;
    Some(days - DAYS_1_TO_1970)
}

/// A day has 25,920,000 of these units, 1/300 s each: the nearest microsecond.
fn date_time(moment: DateTime) -> Option<i64> {
    let units = i64::from(moment.seconds_fragments());
    if units >= 25_920_000 || !(-53_690..=2_958_463).contains(&moment.days()) {
        return None;
    }
    Some(i64::from(moment.days() - DAYS_1900_TO_1970) * DAY_MICROS + (units * 20_000 + 3) / 6)
}

fn small_date_time(moment: SmallDateTime) -> Option<i64> {
    let minutes = i64::from(moment.seconds_fragments());
    let days = i32::from(moment.days()) - DAYS_1900_TO_1970;
    (minutes < 1440).then_some(i64::from(days) * DAY_MICROS + minutes * 60_000_000)
}

fn moment_ticks(moment: DateTime2) -> Option<(i32, i64)> {
    Some((days(moment.date())?, ticks(moment.time())?))
}

/// Tenths of a microsecond since midnight.
fn ticks(time: Time) -> Option<i64> {
    let factor = 10_i64.checked_pow(7_u32.checked_sub(time.scale().into())?)?;
    let ticks = i64::try_from(time.increments()).ok()?.checked_mul(factor)?;
    (ticks < DAY_MICROS * TICKS_PER_MICRO).then_some(ticks)
}

/// With all seven digits, which a column cuts if it says `truncate`.
fn fine_text<'v>((days, ticks): (i32, i64), zone: &str, scratch: &'v mut String) -> Value<'v> {
    scratch.clear();
    let _ = write!(scratch, "{}T", date_text(days));
    write_time(scratch, ticks);
    scratch.push_str(zone);
    Value::Text(scratch)
}

fn write_time(text: &mut String, ticks: i64) {
    let (seconds, fraction) = (ticks / 10_000_000, ticks % 10_000_000);
    let _ = write!(text, "{:02}:{:02}:{:02}.{fraction:07}", seconds / 3600, seconds / 60 % 60, seconds % 60);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As the driver reads 8 and 4 bytes.
    fn driven(units: i64) -> f64 {
        let (high, low) = (units >> 32, (units & 0xffff_ffff) as f64);
        ((high << 32) as f64 + low) / 1e4
    }

    fn exact(units: i64) -> Option<Value<'static>> {
        Some(Value::Decimal(ExactDecimal::new(units.into(), 4)))
    }

    proptest! {
        #[test]
        fn money_below_the_bound_is_exact_and_beyond_it_refused(units in any::<i64>(), shift in 0_u32..63) {
            let units = units >> shift;
            let expected = if units.unsigned_abs() < 1 << 50 { exact(units) } else { None };
            prop_assert_eq!(money(driven(units)), expected);
        }

        #[test]
        fn small_money_is_always_exact(units in any::<i32>()) {
            prop_assert_eq!(money(f64::from(units) / 1e4), exact(units.into()));
        }
    }

    #[test]
    fn money_at_the_bound_itself() {
        for (units, expected) in [
            ((1 << 50) - 1, true),
            (1 << 50, false),
            (-(1 << 50) + 1, true),
            (-(1 << 50), false),
            (i64::MAX, false),
            (i64::MIN, false),
        ] {
            assert_eq!(money(driven(units)).is_some(), expected, "{units}");
        }
    }

    #[test]
    fn three_hundredths_of_a_second_are_the_nearest_microsecond() {
        let at = |units| date_time(DateTime::new(25_567, units)).unwrap();
        assert_eq!((at(0), at(1), at(2), at(3)), (0, 3333, 6667, 10_000));
        assert_eq!(at(25_919_999), DAY_MICROS - 3333);
        assert_eq!(date_time(DateTime::new(0, 25_920_000)), None);
    }

    #[test]
    fn dates_beyond_the_calendar_are_not_read() {
        assert_eq!(days(Date::new(3_652_058)), Some(2_932_896));
        assert_eq!(days(Date::new(3_652_059)), None);
        assert_eq!(date(-719_162).map(Date::days), Some(0));
        assert_eq!(date(-719_163), None);
        assert_eq!(ticks(Time::new(864_000_000_000, 7)), None);
    }
}
