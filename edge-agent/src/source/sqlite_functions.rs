//! Aggregates that SQLite lacks, registered on our own connection: an exact sum and a hash of
//! rows.

use ribera_storage::ExactDecimal;
use rusqlite::functions::{Aggregate, Context, FunctionFlags};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error, Result};
use sha2::{Digest, Sha256};

pub fn register(connection: &Connection) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_aggregate_function("ribera_sum", 1, flags, ExactSum)?;
    connection.create_aggregate_function("ribera_hash", -1, flags, RowHash)
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

/// The sum of the rows' hashes, which does not depend on their order.
struct RowHash;

impl Aggregate<u128, Option<String>> for RowHash {
    fn init(&self, _: &mut Context<'_>) -> Result<u128> {
        Ok(0)
    }

    fn step(&self, context: &mut Context<'_>, total: &mut u128) -> Result<()> {
        let mut hasher = Sha256::new();
        for index in 0..context.len() {
            // Type and length stand before each value, so that no two rows look alike.
            match context.get_raw(index) {
                ValueRef::Null => hasher.update([0]),
                ValueRef::Integer(number) => {
                    hasher.update([1]);
                    hasher.update(number.to_le_bytes());
                }
                ValueRef::Real(number) => {
                    hasher.update([2]);
                    hasher.update(number.to_bits().to_le_bytes());
                }
                ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
                    hasher.update([3]);
                    hasher.update((bytes.len() as u64).to_le_bytes());
                    hasher.update(bytes);
                }
            }
        }
        let digest = hasher.finalize();
        let mut half = [0; 16];
        half.copy_from_slice(&digest[..16]);
        *total = total.wrapping_add(u128::from_le_bytes(half));
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, total: Option<u128>) -> Result<Option<String>> {
        Ok(total.map(|total| format!("{total:032x}")))
    }
}
