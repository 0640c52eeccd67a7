//! The transforms of a dataset definition, applied before a value is converted.

use ribera_storage::dataset::Transform;
use ribera_storage::hex::hex;
use sha2::{Digest, Sha256};

use super::{ColumnReadOptions, Refusal, convert};
use crate::source::Value;

/// `value` after `transforms` in their order. Text that had to change lives in `scratch`.
pub fn apply<'v>(
    transforms: &[Transform],
    reading: &ColumnReadOptions,
    value: Value<'v>,
    scratch: &'v mut String,
) -> Result<Value<'v>, Refusal> {
    if value == Value::Null || transforms.contains(&Transform::Drop) {
        return Ok(Value::Null);
    }
    scratch.clear();
    let has_comma = transforms.contains(&Transform::DecimalComma);
    let is_text = matches!(value, Value::Text(_) | Value::Bytes(_)) && !reading.is_number;
    // The audit would take the point of 12.50 for one of thousands, and so would the rows: both sides would agree.
    if has_comma && reading.comma_in_audit && matches!(value, Value::Decimal(_) | Value::Digits(_) | Value::Float(_)) {
        return Err(Refusal(
            "must be text because the dataset declares decimal_comma (declare `round` for a column of numbers)"
                .to_owned(),
        ));
    }
    // A number stays a number unless a transform is about text.
    if transforms.iter().all(|one| matches!(one, Transform::DecimalComma)) && !is_text {
        return Ok(value);
    }
    convert::text(value, |text| scratch.push_str(text))?;
    for transform in transforms {
        match transform {
            Transform::Trim => *scratch = scratch.trim().to_owned(),
            Transform::Upper => *scratch = scratch.to_uppercase(),
            Transform::BlankToNull if scratch.trim().is_empty() => return Ok(Value::Null),
            Transform::BlankToNull | Transform::Drop => {}
            Transform::DecimalComma if !is_text => {}
            Transform::DecimalComma => *scratch = scratch.trim().replace('.', "").replace(',', "."),
            Transform::CodeMap(map) => {
                if let Some(meaning) = map.get(scratch.as_str()) {
                    scratch.clone_from(meaning);
                }
            }
            Transform::Hash => *scratch = hashed(&reading.salt, scratch),
        }
    }
    Ok(Value::Text(scratch))
}

fn hashed(salt: &str, text: &str) -> String {
    let mut hasher = Sha256::new();
    // The length keeps salt and text apart.
    hasher.update((salt.len() as u64).to_le_bytes());
    hasher.update(salt);
    hasher.update(text);
    hex(&hasher.finalize())
}
