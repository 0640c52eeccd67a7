//! Functions that SQLite lacks, registered on our own connection: an exact sum, rounding that reads no number into a
//! text, a hash of rows.

use ribera_storage::ExactDecimal;
use rusqlite::functions::{Aggregate, Context, FunctionFlags};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Error, Result};
use twox_hash::XxHash3_128;

pub fn register(connection: &Connection) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_aggregate_function("ribera_sum", 1, flags, ExactSum)?;
    connection.create_scalar_function("ribera_round", 2, flags, |context| {
        Ok(rounded(context.get_raw(0), context.get::<u8>(1)?))
    })?;
    connection.create_aggregate_function("ribera_hash", -1, flags, RowHash)
}

/// An integer or decimal text with `digits` fraction digits, as text; what is neither as it is, for the rows' reader
/// to refuse by name. Floats do not come here.
fn rounded(value: ValueRef<'_>, digits: u8) -> Value {
    let number = match value {
        ValueRef::Integer(number) => Some(ExactDecimal::new(number.into(), 0)),
        ValueRef::Text(text) => std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()),
        _ => None,
    };
    match (number.and_then(|number| number.rounded(digits)), value) {
        (Some(number), _) => Value::Text(number.to_string()),
        (None, ValueRef::Text(bytes)) => match std::str::from_utf8(bytes) {
            Ok(text) => Value::Text(text.to_owned()),
            Err(_) => Value::Blob(bytes.to_owned()),
        },
        (None, ValueRef::Blob(bytes)) => Value::Blob(bytes.to_owned()),
        (None, ValueRef::Integer(number)) => Value::Integer(number),
        (None, ValueRef::Real(number)) => Value::Real(number),
        (None, ValueRef::Null) => Value::Null,
    }
}

/// The sum of integers and of decimal text; a float is an error, for its sum depends on the order.
struct ExactSum;

impl Aggregate<ExactDecimal, Option<String>> for ExactSum {
    fn init(&self, _: &mut Context<'_>) -> Result<ExactDecimal> {
        Ok(ExactDecimal::ZERO)
    }

    fn step(&self, context: &mut Context<'_>, total: &mut ExactDecimal) -> Result<()> {
        let value = match context.get_raw(0) {
            ValueRef::Null => return Ok(()),
            ValueRef::Integer(number) => ExactDecimal::new(number.into(), 0),
            ValueRef::Text(text) => {
                std::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok()).ok_or_else(|| {
                    refused(&format!("must be a decimal number, got {:?}", String::from_utf8_lossy(text)))
                })?
            }
            ValueRef::Real(number) => {
                return Err(refused(&format!(
                    "must be exact: declare `round` for the column, got the float {number:?}"
                )));
            }
            ValueRef::Blob(_) => return Err(refused("must be a number, got bytes")),
        };
        *total = total.checked_add(value).ok_or_else(|| refused("must fit 38 digits"))?;
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, total: Option<ExactDecimal>) -> Result<Option<String>> {
        Ok(total.map(|total| total.to_string()))
    }
}

fn refused(rule: &str) -> Error {
    Error::UserFunctionError(format!("audit sum: {rule}").into())
}

/// The sum of the rows' hashes, which does not depend on their order. It finds changes, not forgers:
/// the till's software is believed, and MD5 on a server is no more. SHA-256 took 8 % of a reading.
struct RowHash;

#[derive(Default)]
struct Hashed {
    total: u128,
    /// The bytes of a row; kept for its room.
    row: Vec<u8>,
}

impl Aggregate<Hashed, Option<String>> for RowHash {
    fn init(&self, _: &mut Context<'_>) -> Result<Hashed> {
        Ok(Hashed::default())
    }

    fn step(&self, context: &mut Context<'_>, hashed: &mut Hashed) -> Result<()> {
        let Hashed { total, row } = hashed;
        row.clear();
        for index in 0..context.len() {
            // Type and length stand before each value, so that no two rows look alike.
            match context.get_raw(index) {
                ValueRef::Null => row.push(0),
                ValueRef::Integer(number) => {
                    row.push(1);
                    row.extend_from_slice(&number.to_le_bytes());
                }
                ValueRef::Real(number) => {
                    row.push(2);
                    row.extend_from_slice(&number.to_bits().to_le_bytes());
                }
                ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
                    row.push(3);
                    row.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
                    row.extend_from_slice(bytes);
                }
            }
        }
        *total = total.wrapping_add(XxHash3_128::oneshot(row));
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, hashed: Option<Hashed>) -> Result<Option<String>> {
        Ok(hashed.map(|hashed| format!("{:032x}", hashed.total)))
    }
}
