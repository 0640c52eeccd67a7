//! Whether the rows of a batch are what its manifest and its dataset definition say.
//!
//! Batches go through in file order; memory grows with the rows of one unit (16 bytes a row for
//! the key check), never with the file.

use arrow_array::RecordBatch;
use ribera_storage::batch::{Facts, Manifest, QuarantineReason};
use ribera_storage::dataset::DatasetDefinition;
use ribera_storage::{ExactDecimal, StoreId};

use super::limits::Limits;
use super::refusal::Refusal;

mod checks;
mod keys;
mod sums;
mod units;
mod values;

pub use checks::CheckWarning;
#[cfg(test)]
pub use values::value_text;

use checks::Checks;
use keys::Keys;
use sums::SumColumn;
use units::UnitCursor;

/// Takes the batches of one file, in order, then gives its verdict.
pub struct Validator<'a> {
    definition: &'a DatasetDefinition,
    manifest: &'a Manifest,
    sender: &'a StoreId,
    limits: &'a Limits,
    units: UnitCursor,
    sums: Vec<SumColumn>,
    /// By unit of the manifest: rows, and sums in the order of `sums`.
    found: Vec<(u64, Vec<i128>)>,
    keys: Keys,
    checks: Checks,
    rows: u64,
    value_bytes: u64,
}

impl<'a> Validator<'a> {
    /// `manifest` must have been validated; its units must fit the dataset's kind.
    pub fn new(
        definition: &'a DatasetDefinition,
        manifest: &'a Manifest,
        sender: &'a StoreId,
        limits: &'a Limits,
    ) -> Result<Self, Refusal> {
        let sums: Vec<SumColumn> =
            definition.audit_sums.iter().filter_map(|name| SumColumn::of(definition, name)).collect();
        Ok(Self {
            units: UnitCursor::new(definition, manifest)?,
            found: vec![(0, vec![0; sums.len()]); manifest.units.len()],
            keys: Keys::of(definition),
            checks: Checks::of(definition),
            definition,
            manifest,
            sender,
            limits,
            sums,
            rows: 0,
            value_bytes: 0,
        })
    }

    /// Tests the next batch, whose columns are the definition's.
    pub fn check(&mut self, batch: &RecordBatch) -> Result<(), Refusal> {
        let rows_before = self.rows;
        self.rows += batch.num_rows() as u64;
        values::check_nulls(self.definition, batch, rows_before)?;
        self.value_bytes += values::check_values(self.definition, batch, rows_before, self.limits)?;
        if self.value_bytes > self.limits.decoded_bytes_max {
            return Err(Refusal::limit("bytes of all values", self.limits.decoded_bytes_max, self.value_bytes));
        }
        values::check_sender(self.definition, batch, rows_before, self.sender)?;
        self.keys.hash(batch);
        for run in self.units.runs(batch, rows_before)? {
            if run.begins_unit {
                self.keys.clear();
                self.checks.begin_unit();
            }
            let (rows, totals) = &mut self.found[run.unit];
            *rows += run.rows.len() as u64;
            for (column, total) in self.sums.iter().zip(totals) {
                *total = column.add(*total, batch, run.rows.clone())?;
            }
            self.keys.check(batch, run.rows.clone(), rows_before)?;
            self.checks.check(batch, run.rows, rows_before);
        }
        Ok(())
    }

    /// The verdict once every batch went through; warnings of checks that do not reject.
    pub fn finish(self) -> Result<Vec<CheckWarning>, Refusal> {
        for (unit, (rows, totals)) in self.manifest.units.iter().zip(&self.found) {
            if *rows != unit.file.rows {
                return Err(Refusal::new(
                    QuarantineReason::RowsMismatch,
                    format!("rows of {}: must be {} as the manifest says, got {rows}", unit.unit, unit.file.rows),
                ));
            }
            let sums = self
                .sums
                .iter()
                .zip(totals)
                .map(|(column, total)| (column.name.clone(), ExactDecimal::new(*total, column.scale)))
                .collect();
            let found = Facts { rows: *rows, sums };
            if !found.agrees_with(&unit.file) {
                return Err(sum_mismatch(&unit.unit.to_string(), &found, &unit.file));
            }
        }
        self.checks.finish()
    }
}

fn sum_mismatch(unit: &str, found: &Facts, stated: &Facts) -> Refusal {
    let of = |facts: &Facts, name: &str| facts.sums.get(name).copied().unwrap_or(ExactDecimal::ZERO);
    let differing = found.sums.keys().chain(stated.sums.keys()).find(|name| of(found, name) != of(stated, name));
    let name = differing.map_or("", String::as_str);
    Refusal::new(
        QuarantineReason::SumsMismatch,
        format!("sum of {name} of {unit}: must be {} as the manifest says, got {}", of(stated, name), of(found, name)),
    )
}

#[cfg(test)]
mod tests;
