//! PostgreSQL's binary COPY: the stream's frame, and its values by type. The format is that of the
//! server's documentation of COPY; the values are those of its types' send functions.

use std::fmt::Write;

use ribera_storage::{Error, ExactDecimal, Result};

use crate::calendar::{DAY_MICROS, civil_of_days, time_text};
use crate::config::Charset;
use crate::source::{Rows, Value};

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// Signature, flags, length of the extension.
const HEADER_BYTES: usize = SIGNATURE.len() + 8;
/// The count of fields that ends the stream.
const TRAILER: i16 = -1;

/// How the bytes of a column are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Int16,
    Int32,
    Int64,
    Oid,
    Float32,
    Float64,
    Numeric,
    /// Fraction digits of the server's currency.
    Money(u8),
    Date,
    Time,
    TimeWithZone,
    Timestamp,
    TimestampWithZone,
    Interval,
    Text,
    /// Filled up with blanks, which are no part of the value.
    Char,
    Jsonb,
    Uuid,
    Bytes,
    Bits,
}

impl Kind {
    /// The kind of a type by its name, as the server calls it, an enumeration's as `enum`; `None` for types whose
    /// binary form is not read here. `money_digits` are the fraction digits of MONEY.
    pub fn of(name: &str, money_digits: u8) -> Option<Self> {
        Some(match name {
            "BOOL" => Self::Bool,
            "INT2" => Self::Int16,
            "INT4" => Self::Int32,
            "INT8" => Self::Int64,
            "OID" => Self::Oid,
            "FLOAT4" => Self::Float32,
            "FLOAT8" => Self::Float64,
            "NUMERIC" => Self::Numeric,
            "MONEY" => Self::Money(money_digits),
            "DATE" => Self::Date,
            "TIME" => Self::Time,
            "TIMETZ" => Self::TimeWithZone,
            "TIMESTAMP" => Self::Timestamp,
            "TIMESTAMPTZ" => Self::TimestampWithZone,
            "INTERVAL" => Self::Interval,
            "TEXT" | "VARCHAR" | "NAME" | "UNKNOWN" | "JSON" | "XML" | "CITEXT" | "\"CHAR\"" | "enum" => Self::Text,
            "CHAR" | "BPCHAR" => Self::Char,
            "JSONB" => Self::Jsonb,
            "UUID" => Self::Uuid,
            "BYTEA" => Self::Bytes,
            "BIT" | "VARBIT" => Self::Bits,
            _ => return None,
        })
    }
}

/// Takes the stream piece by piece and hands over its values.
pub struct Decoder {
    kinds: Vec<Kind>,
    has_header: bool,
    has_trailer: bool,
    /// The beginning of a row whose end has not come yet.
    rest: Vec<u8>,
    /// Text made of a value that is none.
    scratch: String,
    /// A database of encoding SQL_ASCII: its text is what its programs wrote, perhaps in a character set declared here.
    unconverted: Option<Option<Charset>>,
}

impl Decoder {
    pub fn new(kinds: Vec<Kind>) -> Self {
        Self {
            kinds,
            has_header: false,
            has_trailer: false,
            rest: Vec::new(),
            scratch: String::new(),
            unconverted: None,
        }
    }

    /// For a database whose server does not know what its text is in.
    pub fn without_encoding(self, charset: Option<Charset>) -> Self {
        Self { unconverted: Some(charset), ..self }
    }

    /// Hands over every row that `piece` completes.
    pub fn take(&mut self, piece: &[u8], rows: &mut dyn Rows) -> Result<()> {
        if self.rest.is_empty() {
            let used = self.rows_of(piece, rows)?;
            self.rest.extend_from_slice(&piece[used..]);
            return Ok(());
        }
        let mut whole = std::mem::take(&mut self.rest);
        whole.extend_from_slice(piece);
        let used = self.rows_of(&whole, rows)?;
        whole.drain(..used);
        self.rest = whole;
        Ok(())
    }

    /// An error when the stream ended too early.
    pub fn finish(&self) -> Result<()> {
        if self.has_trailer && self.rest.is_empty() {
            Ok(())
        } else {
            Err(Error::retry("source: postgres: the answer ended before its last row"))
        }
    }

    /// Bytes of `bytes` that were whole rows, all of them handed over.
    fn rows_of(&mut self, bytes: &[u8], rows: &mut dyn Rows) -> Result<usize> {
        let mut used = 0;
        if !self.has_header {
            let Some(length) = header_bytes(bytes)? else { return Ok(0) };
            self.has_header = true;
            used = length;
        }
        while let Some(length) = row_bytes(&bytes[used..], self.kinds.len())? {
            let row = &bytes[used..used + length];
            used += length;
            if row == TRAILER.to_be_bytes() {
                self.has_trailer = true;
                break;
            }
            self.hand_over(&row[2..], rows)?;
        }
        Ok(used)
    }

    fn hand_over(&mut self, mut fields: &[u8], rows: &mut dyn Rows) -> Result<()> {
        for (index, kind) in self.kinds.iter().enumerate() {
            let (length, behind) = fields.split_at(4);
            let length = i32::from_be_bytes(length.try_into().unwrap_or_default());
            let Ok(length) = usize::try_from(length) else {
                rows.value(index, Value::Null);
                fields = behind;
                continue;
            };
            let (bytes, behind) = behind.split_at(length);
            fields = behind;
            if let (Some(charset), Kind::Text | Kind::Char) = (self.unconverted, kind) {
                let text = if *kind == Kind::Char { without_blanks(bytes) } else { bytes };
                rows.raw_text(index, text, charset);
                continue;
            }
            let value = value(*kind, bytes, &mut self.scratch)
                .ok_or_else(|| Error::bug(format!("source: postgres: {kind:?} in {length} bytes")))?;
            rows.value(index, value);
        }
        rows.end_row()
    }
}

/// The length of the header, once all of it is there.
fn header_bytes(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(header) = bytes.get(..HEADER_BYTES) else { return Ok(None) };
    if !header.starts_with(SIGNATURE) {
        return Err(Error::bug("source: postgres: the answer is no binary COPY"));
    }
    let extension = header[HEADER_BYTES - 4..].try_into().map_or(0, u32::from_be_bytes) as usize;
    Ok((bytes.len() >= HEADER_BYTES + extension).then_some(HEADER_BYTES + extension))
}

/// The length of the row (or trailer) at the start of `bytes`, if it is there whole.
fn row_bytes(bytes: &[u8], columns: usize) -> Result<Option<usize>> {
    let Some(count) = bytes.get(..2).and_then(|count| count.try_into().ok()).map(i16::from_be_bytes) else {
        return Ok(None);
    };
    if count == TRAILER {
        return Ok(Some(2));
    }
    if usize::try_from(count) != Ok(columns) {
        return Err(Error::bug(format!("source: postgres: a row of {count} values, its columns are {columns}")));
    }
    let mut at = 2;
    for _ in 0..columns {
        let Some(length) = bytes.get(at..at + 4).and_then(|length| length.try_into().ok()) else { return Ok(None) };
        at += 4 + usize::try_from(i32::from_be_bytes(length)).unwrap_or(0);
    }
    Ok((at <= bytes.len()).then_some(at))
}

/// Days from 1970-01-01 to 2000-01-01, from which the server counts.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROS: i64 = EPOCH_DAYS as i64 * DAY_MICROS;

/// The value, or `None` when the bytes are not of this kind.
#[inline]
fn value<'a>(kind: Kind, bytes: &'a [u8], scratch: &'a mut String) -> Option<Value<'a>> {
    Some(match kind {
        Kind::Bool => Value::Bool(*bytes.first()? != 0),
        Kind::Int16 => Value::Int(i16::from_be_bytes(bytes.try_into().ok()?).into()),
        Kind::Int32 => Value::Int(i32::from_be_bytes(bytes.try_into().ok()?).into()),
        Kind::Int64 => Value::Int(i64::from_be_bytes(bytes.try_into().ok()?)),
        Kind::Oid => Value::UInt(u32::from_be_bytes(bytes.try_into().ok()?).into()),
        Kind::Float32 => Value::Float(f32::from_be_bytes(bytes.try_into().ok()?).into()),
        Kind::Float64 => Value::Float(f64::from_be_bytes(bytes.try_into().ok()?)),
        Kind::Numeric => numeric(bytes, scratch)?,
        Kind::Money(digits) => {
            Value::Decimal(ExactDecimal::new(i64::from_be_bytes(bytes.try_into().ok()?).into(), digits))
        }
        Kind::Date => match i32::from_be_bytes(bytes.try_into().ok()?) {
            i32::MAX => Value::Text("infinity"),
            i32::MIN => Value::Text("-infinity"),
            days => match days.checked_add(EPOCH_DAYS) {
                Some(days) => Value::Date(days),
                None => Value::NoDate(civil_of_days(i64::from(days) + i64::from(EPOCH_DAYS))),
            },
        },
        Kind::Timestamp => moment(bytes, Value::Local)?,
        Kind::TimestampWithZone => moment(bytes, Value::Instant)?,
        Kind::Time => Value::Time(i64::from_be_bytes(bytes.try_into().ok()?)),
        Kind::TimeWithZone => {
            let (micros, west) = bytes.split_at_checked(8)?;
            let micros = i64::from_be_bytes(micros.try_into().ok()?);
            zoned_time(micros, i32::from_be_bytes(west.try_into().ok()?), scratch)
        }
        Kind::Interval => interval(bytes, scratch)?,
        Kind::Text => text(bytes),
        Kind::Char => text(without_blanks(bytes)),
        // A version, then text.
        Kind::Jsonb => text(bytes.split_first().filter(|(version, _)| **version == 1)?.1),
        Kind::Uuid => uuid(bytes, scratch)?,
        Kind::Bytes => Value::Bytes(bytes),
        Kind::Bits => bits(bytes)?,
    })
}

fn without_blanks(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
    &bytes[..end]
}

/// A database of encoding SQL_ASCII may hold anything.
fn text(bytes: &[u8]) -> Value<'_> {
    std::str::from_utf8(bytes).map_or(Value::Bytes(bytes), Value::Text)
}

fn moment<'a>(bytes: &[u8], value: impl Fn(i64) -> Value<'a>) -> Option<Value<'a>> {
    Some(match i64::from_be_bytes(bytes.try_into().ok()?) {
        i64::MAX => Value::Text("infinity"),
        i64::MIN => Value::Text("-infinity"),
        micros => match micros.checked_add(EPOCH_MICROS) {
            Some(micros) => value(micros),
            // The server's years reach further than ours do in 64 bits.
            None => Value::NoDate(civil_of_days(micros.div_euclid(DAY_MICROS) + i64::from(EPOCH_DAYS))),
        },
    })
}

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xc000;
const INFINITE: u16 = 0xd000;
const MINUS_INFINITE: u16 = 0xf000;

/// Digits in base 10,000, the first of weight `10,000 ^ weight`, with `scale` decimal digits behind
/// the point. What 38 digits do not hold comes as its digits, which no decimal column takes.
fn numeric<'a>(bytes: &[u8], scratch: &'a mut String) -> Option<Value<'a>> {
    let word = |index: usize| bytes.get(index * 2..index * 2 + 2)?.try_into().ok().map(u16::from_be_bytes);
    let (count, weight, sign, scale) = (usize::from(word(0)?), word(1)? as i16, word(2)?, word(3)?);
    match sign {
        NAN => return Some(Value::Digits("NaN")),
        INFINITE => return Some(Value::Digits("Infinity")),
        MINUS_INFINITE => return Some(Value::Digits("-Infinity")),
        _ => {}
    }
    let digits = bytes.get(8..8 + count * 2)?;
    let digits = digits.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let is_negative = sign == NEGATIVE;
    match unscaled(digits.clone(), weight.into(), scale) {
        Some(number) => {
            let number = if is_negative { -number } else { number };
            Some(Value::Decimal(ExactDecimal::new(number, scale as u8)))
        }
        None => {
            scratch.clear();
            write_numeric(digits, weight.into(), scale, is_negative, scratch);
            Some(Value::Digits(scratch))
        }
    }
}

/// The number times 10^scale, unless it does not fit 38 digits.
fn unscaled(digits: impl ExactSizeIterator<Item = u16>, weight: i32, scale: u16) -> Option<i128> {
    const SCALE_MAX: u16 = 38;
    if scale > SCALE_MAX {
        return None;
    }
    if digits.len() == 0 {
        return Some(0);
    }
    let mut number: i128 = 0;
    // Decimal digits behind the point, up to the group that was added last.
    let mut behind = -4 * (weight + 1);
    for digit in digits {
        behind += 4;
        let surplus = behind - i32::from(scale);
        if surplus >= 4 {
            // Beyond the scale only zeros are stored.
            if digit != 0 {
                return None;
            }
            behind -= 4;
            continue;
        }
        let (times, digit) = match u32::try_from(surplus) {
            Ok(surplus) if surplus > 0 => {
                let unit = 10_u16.pow(surplus);
                if digit % unit != 0 {
                    return None;
                }
                behind -= surplus as i32;
                (10_i128.pow(4 - surplus), digit / unit)
            }
            _ => (10_000, digit),
        };
        number = number.checked_mul(times)?.checked_add(digit.into())?;
    }
    let missing = u32::try_from(i32::from(scale) - behind).ok()?;
    let number = number.checked_mul(10_i128.checked_pow(missing)?)?;
    (number.unsigned_abs() < 10_u128.pow(38)).then_some(number)
}

fn write_numeric(digits: impl Iterator<Item = u16>, weight: i32, scale: u16, is_negative: bool, text: &mut String) {
    let digits: Vec<u16> = digits.collect();
    let group = |at: i32| usize::try_from(weight - at).ok().and_then(|index| digits.get(index)).copied().unwrap_or(0);
    if is_negative {
        text.push('-');
    }
    let first = weight.max(0);
    // Writing to a string cannot fail.
    let _ = write!(text, "{}", group(first));
    for at in (0..first).rev() {
        let _ = write!(text, "{:04}", group(at));
    }
    if scale > 0 {
        text.push('.');
        let end = text.len() + usize::from(scale);
        let mut at = -1;
        while text.len() < end {
            let _ = write!(text, "{:04}", group(at));
            at -= 1;
        }
        text.truncate(end);
    }
}

/// `HH:MM:SS[.ffffff]+HH:MM`; the server counts the seconds west of Greenwich.
fn zoned_time(micros: i64, west_s: i32, scratch: &mut String) -> Value<'_> {
    let (sign, offset) = if west_s > 0 { ('-', west_s) } else { ('+', -west_s) };
    scratch.clear();
    let _ = write!(scratch, "{}{sign}{:02}:{:02}", time_text(micros), offset / 3600, offset / 60 % 60);
    if offset % 60 != 0 {
        let _ = write!(scratch, ":{:02}", offset % 60);
    }
    Value::Text(scratch)
}

/// Days and time are a span of time; months have no length, so that an interval with months is
/// text as ISO 8601 has it.
fn interval<'a>(bytes: &[u8], scratch: &'a mut String) -> Option<Value<'a>> {
    let micros = i64::from_be_bytes(bytes.get(..8)?.try_into().ok()?);
    let days = i32::from_be_bytes(bytes.get(8..12)?.try_into().ok()?);
    let months = i32::from_be_bytes(bytes.get(12..16)?.try_into().ok()?);
    if months == 0
        && let Some(span) = i64::from(days).checked_mul(DAY_MICROS).and_then(|span| span.checked_add(micros))
    {
        return Some(Value::Time(span));
    }
    scratch.clear();
    let (whole, fraction) = (micros / 1_000_000, (micros % 1_000_000).abs());
    let sign = if micros < 0 && whole == 0 { "-" } else { "" };
    let _ = write!(scratch, "P{months}M{days}DT{sign}{whole}.{fraction:06}S");
    Some(Value::Text(scratch))
}

fn uuid<'a>(bytes: &[u8], scratch: &'a mut String) -> Option<Value<'a>> {
    let number = u128::from_be_bytes(bytes.try_into().ok()?);
    let digits = format!("{number:032x}");
    scratch.clear();
    for (index, range) in [0..8, 8..12, 12..16, 16..20, 20..32].into_iter().enumerate() {
        if index > 0 {
            scratch.push('-');
        }
        scratch.push_str(digits.get(range)?);
    }
    Some(Value::Text(scratch))
}

/// Up to 64 bits are a number, as MySQL's are; more are bytes, filled up with zeros at the end.
fn bits(bytes: &[u8]) -> Option<Value<'_>> {
    let (length, bytes) = bytes.split_at_checked(4)?;
    let length = u32::from_be_bytes(length.try_into().ok()?);
    if length > 64 {
        return Some(Value::Bytes(bytes));
    }
    let number = bytes.iter().fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
    let unused = u32::try_from(bytes.len() * 8).ok()?.checked_sub(length)?;
    u64::try_from(number >> unused).ok().map(Value::UInt)
}

#[cfg(test)]
#[path = "copy_tests.rs"]
mod tests;
