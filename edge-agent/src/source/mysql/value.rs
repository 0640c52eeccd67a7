//! Values of the binary protocol, borrowed from the packet they came in.

use super::wire::Fields;
use crate::value::{DAY_MICROS, Value, days_of_civil};

/// How the bytes of a column are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Int8,
    Int16,
    Int32,
    Int64,
    UInt8,
    UInt16,
    UInt32,
    UInt64,
    Float32,
    Float64,
    Text,
    Bytes,
    Bit,
    Date,
    DateTime,
    Timestamp,
    Time,
    Null,
}

const UNSIGNED: u16 = 32;

impl Kind {
    /// By a column definition's type and flags.
    pub fn of(code: u8, flags: u16) -> Self {
        let integer = |signed, unsigned| if flags & UNSIGNED == 0 { signed } else { unsigned };
        match code {
            1 => integer(Self::Int8, Self::UInt8),
            2 => integer(Self::Int16, Self::UInt16),
            // INT and MEDIUMINT.
            3 | 9 => integer(Self::Int32, Self::UInt32),
            8 => integer(Self::Int64, Self::UInt64),
            4 => Self::Float32,
            5 => Self::Float64,
            6 => Self::Null,
            7 | 17 => Self::Timestamp,
            10 | 14 => Self::Date,
            11 | 19 => Self::Time,
            12 | 18 => Self::DateTime,
            // YEAR.
            13 => Self::UInt16,
            16 => Self::Bit,
            // GEOMETRY.
            255 => Self::Bytes,
            // Decimals come as text. Text of a binary collation cannot be told from bytes: what is
            // UTF-8 is taken as text, which every column that takes bytes takes as well.
            _ => Self::Text,
        }
    }

    /// The next value, or `None` when the bytes are not of this kind.
    #[inline]
    pub fn read<'a>(self, fields: &mut Fields<'a>) -> Option<Value<'a>> {
        Some(match self {
            Self::Text => {
                let bytes = fields.text()?;
                match std::str::from_utf8(bytes) {
                    Ok(text) => Value::Text(text),
                    Err(_) => Value::Bytes(bytes),
                }
            }
            Self::Int8 => Value::Int(i8::from_le_bytes(fields.array()?).into()),
            Self::Int16 => Value::Int(i16::from_le_bytes(fields.array()?).into()),
            Self::Int32 => Value::Int(i32::from_le_bytes(fields.array()?).into()),
            Self::Int64 => Value::Int(i64::from_le_bytes(fields.array()?)),
            Self::UInt8 => Value::UInt(u8::from_le_bytes(fields.array()?).into()),
            Self::UInt16 => Value::UInt(u16::from_le_bytes(fields.array()?).into()),
            Self::UInt32 => Value::UInt(u32::from_le_bytes(fields.array()?).into()),
            Self::UInt64 => Value::UInt(u64::from_le_bytes(fields.array()?)),
            Self::Float32 => Value::Float(f32::from_le_bytes(fields.array()?).into()),
            Self::Float64 => Value::Float(f64::from_le_bytes(fields.array()?)),
            Self::Bytes => Value::Bytes(fields.text()?),
            Self::Bit => {
                let bytes = fields.text()?;
                if bytes.len() > 8 {
                    return None;
                }
                Value::UInt(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
            }
            Self::Date => date_time(fields)?.map_or(Value::ZeroDate, |(days, _)| Value::Date(days)),
            Self::DateTime => date_time(fields)?.map_or(Value::ZeroDate, |moment| Value::Local(micros_of(moment))),
            Self::Timestamp => date_time(fields)?.map_or(Value::ZeroDate, |moment| Value::Instant(micros_of(moment))),
            Self::Time => Value::Time(time(fields)?),
            Self::Null => Value::Null,
        })
    }
}

fn micros_of((days, micros): (i32, i64)) -> i64 {
    i64::from(days) * DAY_MICROS + micros
}

/// Days and microseconds of the day; the inner `None` is a zero date, also one with a zero month
/// or day. What is zero at the end is left out.
fn date_time(fields: &mut Fields<'_>) -> Option<Option<(i32, i64)>> {
    let length = fields.u8()?;
    let mut value = Fields(fields.bytes(length.into())?);
    if length == 0 {
        return Some(None);
    }
    let (year, month, day) = (value.u16()?, value.u8()?, value.u8()?);
    let micros = if length > 4 { clock_micros(&mut value)? } else { 0 };
    if year == 0 || month == 0 || day == 0 {
        return Some(None);
    }
    Some(Some((days_of_civil(year.into(), month.into(), day.into()), micros)))
}

/// Microseconds; may be negative or beyond a day.
fn time(fields: &mut Fields<'_>) -> Option<i64> {
    let length = fields.u8()?;
    let mut value = Fields(fields.bytes(length.into())?);
    if length == 0 {
        return Some(0);
    }
    let is_negative = value.u8()? == 1;
    let micros = i64::from(value.u32()?) * DAY_MICROS + clock_micros(&mut value)?;
    Some(if is_negative { -micros } else { micros })
}

/// Hour, minute, second and, unless it is zero, the fraction.
fn clock_micros(value: &mut Fields<'_>) -> Option<i64> {
    let [hour, minute, second] = value.array::<3>()?.map(i64::from);
    let fraction = if value.0.is_empty() { 0 } else { value.u32()? };
    Some(((hour * 60 + minute) * 60 + second) * 1_000_000 + i64::from(fraction))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(kind: Kind, bytes: &[u8]) -> Option<Value<'_>> {
        kind.read(&mut Fields(bytes))
    }

    #[test]
    fn dates_and_times_may_leave_out_zeros_at_their_end() {
        assert_eq!(read(Kind::Date, &[4, 0xe1, 7, 1, 2]), Some(Value::Date(17_168)));
        assert_eq!(read(Kind::DateTime, &[7, 0xe1, 7, 1, 1, 0, 0, 9]), Some(Value::Local(1_483_228_809_000_000)));
        assert_eq!(
            read(Kind::Timestamp, &[11, 0xe1, 7, 1, 1, 0, 0, 9, 1, 0, 0, 0]),
            Some(Value::Instant(1_483_228_809_000_001))
        );
        assert_eq!(read(Kind::DateTime, &[0]), Some(Value::ZeroDate));
        assert_eq!(read(Kind::DateTime, &[4, 0xe1, 7, 0, 1]), Some(Value::ZeroDate));
        assert_eq!(read(Kind::Time, &[8, 1, 1, 0, 0, 0, 1, 0, 0]), Some(Value::Time(-(DAY_MICROS + 3_600_000_000))));
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_value_panic(code in any::<u8>(), flags in any::<u16>(), bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut fields = Fields(&bytes);
            while !fields.0.is_empty() && Kind::of(code, flags).read(&mut fields).is_some_and(|value| value != Value::Null) {}
        }
    }
}
