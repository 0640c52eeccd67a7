//! From the driver's values to ours.

use ribera_storage::{Error, ExactDecimal, Result};
use rsfbclient_core::Charset;
use rsfbclient_rust::RawValue;

use super::describe::{Column, Kind};
use crate::calendar::DAY_MICROS;
use crate::source::{Rows, Value};

/// For a row with text that is in another character set than the connection.
const FOREIGN: &str = "charset = \"WIN1252\" in [store.source], if that is what the till's programs write";

/// Hands over rows that lie one behind the other in `batch`.
pub fn hand_over(batch: &[RawValue], columns: &[Column], charset: &Charset, rows: &mut dyn Rows) -> Result<()> {
    let mut foreign = false;
    for row in batch.chunks_exact(columns.len()) {
        for (index, (raw, column)) in row.iter().zip(columns).enumerate() {
            match (raw, column.kind) {
                (RawValue::Text(bytes), kind) => foreign |= !text(bytes, kind, index, column, charset, rows)?,
                (raw, kind) => rows.value(index, plain(raw, kind)),
            }
        }
        rows.end_row().map_err(|error| if foreign { error.with_hint(FOREIGN) } else { error })?;
    }
    Ok(())
}

fn plain(raw: &RawValue, kind: Kind) -> Value<'static> {
    match raw {
        RawValue::Null | RawValue::Text(_) => Value::Null,
        RawValue::Integer(number) => Value::Int(*number),
        RawValue::Int128(number) => Value::Decimal(ExactDecimal::new(*number, 0)),
        RawValue::Floating(number) => Value::Float(*number),
        RawValue::Boolean(value) => Value::Bool(*value),
        RawValue::Timestamp(moment) => {
            let micros = moment.and_utc().timestamp_micros();
            match kind {
                Kind::Date => Value::Date(micros.div_euclid(DAY_MICROS) as i32),
                // The server puts the day of the query before a time.
                Kind::Time => Value::Time(micros.rem_euclid(DAY_MICROS)),
                _ => Value::Local(micros),
            }
        }
    }
}

/// Hands over what came as text; `false` when it is not of the connection's character set.
fn text(
    bytes: &[u8],
    kind: Kind,
    index: usize,
    column: &Column,
    charset: &Charset,
    rows: &mut dyn Rows,
) -> Result<bool> {
    let unreadable =
        |what: &str| Error::data(format!("source: firebird: column {}: {what}: {}", column.name, Value::Bytes(bytes)));
    match kind {
        Kind::Exact => rows.value(index, Value::Decimal(exact(bytes).ok_or_else(|| unreadable("not a number"))?)),
        Kind::Bytes => rows.value(index, Value::Bytes(bytes)),
        // Every character set in use here has ASCII in the same place; UTF-8 needs no decoding.
        _ if charset.on_rust.is_none() || bytes.is_ascii() => match std::str::from_utf8(bytes) {
            Ok(text) => rows.value(index, Value::Text(text)),
            Err(_) => return refused(bytes, index, rows),
        },
        _ => match charset.decode(bytes) {
            Ok(text) => rows.value(index, Value::Text(&text)),
            Err(_) => return refused(bytes, index, rows),
        },
    }
    Ok(true)
}

/// As bytes, which a column of text does not take.
fn refused(bytes: &[u8], index: usize, rows: &mut dyn Rows) -> Result<bool> {
    rows.value(index, Value::Bytes(bytes));
    Ok(false)
}

/// A number as the server writes it: sign, digits, point, digits.
fn exact(bytes: &[u8]) -> Option<ExactDecimal> {
    let (negative, digits) = match bytes.split_first()? {
        (b'-', rest) => (true, rest),
        _ => (false, bytes),
    };
    // What fits 64 bits is nearly every value, and quicker.
    if digits.len() > 18 {
        return std::str::from_utf8(bytes).ok()?.parse().ok();
    }
    let mut number: i64 = 0;
    let mut scale: Option<u8> = None;
    for byte in digits {
        match byte {
            b'.' if scale.is_none() => scale = Some(0),
            b'0'..=b'9' => {
                number = number * 10 + i64::from(byte - b'0');
                scale = scale.map(|scale| scale + 1);
            }
            _ => return None,
        }
    }
    if digits.is_empty() || digits == b"." {
        return None;
    }
    Some(ExactDecimal::new(i128::from(if negative { -number } else { number }), scale.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_number_is_read_as_the_exact_decimal_reads_it(unscaled in any::<i64>(), scale in 0_u8..19) {
            let value = ExactDecimal::new(unscaled.into(), scale);
            let read = exact(value.to_string().as_bytes()).unwrap();
            prop_assert_eq!((read.unscaled(), read.scale()), (value.unscaled(), value.scale()));
        }
    }

    #[test]
    fn what_is_no_number_is_none() {
        for text in ["", "-", ".", "1e5", "1.2.3", "--1", " 1", "0x1", "9999999999999999999999999999999999999999999"] {
            assert!(exact(text.as_bytes()).is_none(), "{text:?}");
        }
    }
}
