//! The checks a dataset definition declares: each warns or rejects.

use std::fmt;
use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, Float64Type, Int16Type, Int32Type, Int64Type};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use ribera_storage::ExactDecimal;
use ribera_storage::batch::QuarantineReason;
use ribera_storage::dataset::{Check, CheckAction, CheckRule, DatasetDefinition};
use serde::{Deserialize, Serialize};

use super::keys::{KeySet, Lanes, hash_column};
use super::values::value_text;
use crate::ingest::refusal::Refusal;

/// Rows that fail a check that only warns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckWarning {
    pub column: String,
    /// The rule in words.
    pub rule: String,
    pub rows: u64,
    /// Counted from 1.
    pub first_row: u64,
    pub first_value: String,
}

impl fmt::Display for CheckWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { column, rule, rows, first_row, first_value } = self;
        write!(f, "column {column}: {rule}, got {first_value} in row {first_row} ({rows} rows fail)")
    }
}

pub struct Checks(Vec<OneCheck>);

struct OneCheck {
    check: Check,
    columns: Vec<usize>,
    seen: KeySet,
    failed: Option<CheckWarning>,
}

impl Checks {
    pub fn of(definition: &DatasetDefinition) -> Self {
        let index = |name: &String| definition.columns.iter().position(|column| column.name == *name);
        let of = |check: &Check| {
            let mut names = vec![&check.column];
            if let CheckRule::ProductOf { left, right, .. } = &check.rule {
                names.extend([left, right]);
            }
            let columns = names.into_iter().map(index).collect::<Option<Vec<_>>>()?;
            Some(OneCheck { check: check.clone(), columns, seen: KeySet::default(), failed: None })
        };
        Self(definition.checks.iter().filter_map(of).collect())
    }

    pub fn begin_unit(&mut self) {
        for one in &mut self.0 {
            one.seen.clear();
        }
    }

    pub fn check(&mut self, batch: &RecordBatch, rows: Range<usize>, rows_before: u64) {
        for one in &mut self.0 {
            one.check(batch, rows.clone(), rows_before);
        }
    }

    /// Warnings; the first check that rejects refuses the batch.
    pub fn finish(self) -> Result<Vec<CheckWarning>, Refusal> {
        let mut warnings = Vec::new();
        for one in self.0 {
            match (one.failed, one.check.action) {
                (None, _) => {}
                (Some(warning), CheckAction::Warn) => warnings.push(warning),
                (Some(found), CheckAction::Reject) => {
                    return Err(Refusal::new(QuarantineReason::CheckFailed, found.to_string()));
                }
            }
        }
        Ok(warnings)
    }
}

impl OneCheck {
    fn check(&mut self, batch: &RecordBatch, rows: Range<usize>, rows_before: u64) {
        let array = batch.column(self.columns[0]).as_ref();
        match &self.check.rule {
            CheckRule::NotNull => {
                if array.null_count() > 0 {
                    for row in rows {
                        if array.is_null(row) {
                            fail(&mut self.failed, &self.check, array, row, rows_before);
                        }
                    }
                }
            }
            CheckRule::Range { min, max } => {
                for row in rows {
                    let fits =
                        array.is_null(row) || Number::at(array, row).is_none_or(|value| value.within(*min, *max));
                    if !fits {
                        fail(&mut self.failed, &self.check, array, row, rows_before);
                    }
                }
            }
            CheckRule::Unique => {
                let mut hashes = vec![Lanes::START; array.len()];
                hash_column(array, &mut hashes);
                for row in rows {
                    if array.is_valid(row) && !self.seen.insert(hashes[row].joined()) {
                        fail(&mut self.failed, &self.check, array, row, rows_before);
                    }
                }
            }
            CheckRule::Pattern { glob } => {
                let Some(texts) = array.as_string_view_opt() else { return };
                for row in rows {
                    if texts.is_valid(row) && !glob_fits(glob, texts.value(row)) {
                        fail(&mut self.failed, &self.check, array, row, rows_before);
                    }
                }
            }
            CheckRule::ProductOf { tolerance, .. } => {
                let (left, right) = (batch.column(self.columns[1]), batch.column(self.columns[2]));
                for row in rows {
                    let numbers = (Number::at(array, row), Number::at(left, row), Number::at(right, row));
                    let (Some(value), Some(left), Some(right)) = numbers else { continue };
                    if !value.is_product(left, right, *tolerance) {
                        fail(&mut self.failed, &self.check, array, row, rows_before);
                    }
                }
            }
        }
    }
}

fn fail(failed: &mut Option<CheckWarning>, check: &Check, array: &dyn Array, row: usize, rows_before: u64) {
    failed
        .get_or_insert_with(|| CheckWarning {
            column: check.column.clone(),
            rule: rule_text(&check.rule),
            rows: 0,
            first_row: rows_before + row as u64 + 1,
            first_value: value_text(array, row),
        })
        .rows += 1;
}

fn rule_text(rule: &CheckRule) -> String {
    match rule {
        CheckRule::NotNull => "must not be NULL".to_owned(),
        CheckRule::Range { min, max } => {
            let side = |name: &str, bound: &Option<ExactDecimal>| bound.map(|bound| format!("{name} {bound}"));
            let sides: Vec<String> = [side("at least", min), side("at most", max)].into_iter().flatten().collect();
            format!("must be {}", sides.join(" and "))
        }
        CheckRule::Unique => "must be unique within a unit".to_owned(),
        CheckRule::Pattern { glob } => format!("must fit the pattern {glob:?}"),
        CheckRule::ProductOf { left, right, tolerance } => format!("must be {left} times {right} within {tolerance}"),
    }
}

#[derive(Debug, Clone, Copy)]
enum Number {
    Exact(ExactDecimal),
    Float(f64),
}

impl Number {
    /// `None` for NULL and for columns that are no numbers.
    fn at(array: &dyn Array, row: usize) -> Option<Self> {
        if array.is_null(row) {
            return None;
        }
        let whole = |value: i64| Some(Self::Exact(ExactDecimal::new(i128::from(value), 0)));
        match array.data_type() {
            DataType::Int16 => whole(i64::from(array.as_primitive::<Int16Type>().value(row))),
            DataType::Int32 => whole(i64::from(array.as_primitive::<Int32Type>().value(row))),
            DataType::Int64 => whole(array.as_primitive::<Int64Type>().value(row)),
            DataType::Decimal128(_, scale) => {
                let value = array.as_primitive::<Decimal128Type>().value(row);
                Some(Self::Exact(ExactDecimal::new(value, u8::try_from(*scale).ok()?)))
            }
            DataType::Float64 => Some(Self::Float(array.as_primitive::<Float64Type>().value(row))),
            _ => None,
        }
    }

    fn within(self, min: Option<ExactDecimal>, max: Option<ExactDecimal>) -> bool {
        match self {
            Self::Exact(value) => {
                min.is_none_or(|min| less_or_equal(min, value)) && max.is_none_or(|max| less_or_equal(value, max))
            }
            Self::Float(value) => {
                min.is_none_or(|min| float(min) <= value) && max.is_none_or(|max| value <= float(max))
            }
        }
    }

    fn is_product(self, left: Self, right: Self, tolerance: ExactDecimal) -> bool {
        if let (Self::Exact(value), Self::Exact(left), Self::Exact(right)) = (self, left, right) {
            return exact_difference(value, left, right)
                .map(|(difference, scale)| less_or_equal(ExactDecimal::new(difference, scale), tolerance))
                .unwrap_or(false);
        }
        let as_float = |number| match number {
            Self::Exact(value) => float(value),
            Self::Float(value) => value,
        };
        (as_float(self) - as_float(left) * as_float(right)).abs() <= float(tolerance)
    }
}

/// `|value - left * right|` unscaled, and its scale; `None` when it does not fit 38 digits.
fn exact_difference(value: ExactDecimal, left: ExactDecimal, right: ExactDecimal) -> Option<(i128, u8)> {
    let product = ExactDecimal::new(left.unscaled().checked_mul(right.unscaled())?, left.scale() + right.scale());
    let scale = product.scale().max(value.scale());
    let difference = value.rescale(scale)?.unscaled().checked_sub(product.rescale(scale)?.unscaled())?;
    Some((difference.checked_abs()?, scale))
}

fn less_or_equal(left: ExactDecimal, right: ExactDecimal) -> bool {
    let scale = left.scale().max(right.scale());
    match (left.rescale(scale), right.rescale(scale)) {
        (Some(left), Some(right)) => left.unscaled() <= right.unscaled(),
        // One of them does not fit 38 digits in the finer scale: then it is far from the other.
        _ => float(left) <= float(right),
    }
}

fn float(value: ExactDecimal) -> f64 {
    value.unscaled() as f64 / 10_f64.powi(i32::from(value.scale()))
}

/// Whether `text` fits `glob` whole: `*` any run of characters, `?` any one character.
fn glob_fits(glob: &str, text: &str) -> bool {
    let (mut pattern, mut rest) = (glob.chars(), text.chars());
    // Where to begin again after the last star, one character further each time.
    let mut again: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        let mut next = pattern.clone();
        match next.next() {
            Some('*') => {
                again = Some((next.clone(), rest.clone()));
                pattern = next;
                continue;
            }
            None if rest.as_str().is_empty() => return true,
            Some(wanted) => {
                let mut ahead = rest.clone();
                if ahead.next().is_some_and(|found| wanted == '?' || wanted == found) {
                    (pattern, rest) = (next, ahead);
                    continue;
                }
            }
            None => {}
        }
        let Some((after_star, from)) = &mut again else { return false };
        if from.next().is_none() {
            return false;
        }
        (pattern, rest) = (after_star.clone(), from.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_fits_the_whole_text_only() {
        for (glob, text, fits) in [
            ("A*", "A", true),
            ("A*", "BA", false),
            ("*-??", "ñandú-ñ1", true),
            ("*-??", "x-123", false),
            ("a*b*c", "aXbXbXc", true),
            ("a*b*c", "aXbXb", false),
            ("", "", true),
            ("*", "", true),
            ("?", "", false),
        ] {
            assert_eq!(glob_fits(glob, text), fits, "{glob:?} over {text:?}");
        }
    }

    #[test]
    fn a_product_is_compared_exactly_across_scales() {
        let exact = |text: &str| Number::Exact(text.parse().unwrap());
        assert!(exact("3.33").is_product(exact("1.110"), exact("3"), "0".parse().unwrap()));
        assert!(!exact("3.34").is_product(exact("1.110"), exact("3"), "0.009".parse().unwrap()));
        assert!(exact("3.34").is_product(exact("1.110"), exact("3"), "0.01".parse().unwrap()));
    }
}
