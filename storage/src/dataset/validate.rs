//! The rules of a dataset definition. Every error names dataset, field, rule and value got.

use super::{CheckRule, ColumnType, DAYS_SUFFIX, DatasetDefinition, DatasetKind, STORE_COLUMN, Transform};
use crate::error::{Error, Result};

const RESERVED: [&str; 3] = [STORE_COLUMN, "month", "year"];
const COLUMNS_MAX: usize = 500;

impl DatasetDefinition {
    /// Checks every field, alone and against the others.
    ///
    /// # Errors
    ///
    /// `Config`, naming the field, the rule and the value got.
    pub fn validate(&self) -> Result<()> {
        self.validate_columns()?;
        self.validate_hidden()?;
        self.validate_kind()?;
        self.validate_references()?;
        self.schedule_seconds().map(drop)
    }

    /// `schedule` in seconds: a whole number and `s`, `m`, `h` or `d`.
    ///
    /// # Errors
    ///
    /// `Config` when it is not such a text, or is longer than a number holds.
    pub fn schedule_seconds(&self) -> Result<u64> {
        let text = self.schedule.as_str();
        let split = text.len().saturating_sub(1);
        let factor = match text.get(split..) {
            Some("s") => 1,
            Some("m") => 60,
            Some("h") => 3600,
            Some("d") => 86_400,
            _ => 0,
        };
        match text.get(..split).map(str::parse::<u64>) {
            Some(Ok(number)) if factor > 0 && number > 0 && number <= 100_000 => Ok(number * factor),
            _ => self.bad("schedule", "must be a number with s, m, h or d, such as 4h", text),
        }
    }

    fn validate_columns(&self) -> Result<()> {
        if self.name.as_str().ends_with(DAYS_SUFFIX) {
            return self.bad("name", "must not end in _days, which names a table of days in SQL", self.name.as_str());
        }
        if self.version == 0 {
            return self.bad("version", "must be 1 or more", "0");
        }
        if self.columns.is_empty() || self.columns.len() > COLUMNS_MAX {
            return self.bad("column", &format!("must be 1 to {COLUMNS_MAX} columns"), &self.columns.len().to_string());
        }
        for (index, column) in self.columns.iter().enumerate() {
            let fits = column.name.len() <= 64
                && column.name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase())
                && column.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
            if !fits {
                return self.bad(
                    "column.name",
                    "must be a-z, 0-9 and _, begin with a letter, 64 characters at most",
                    &column.name,
                );
            }
            if RESERVED.contains(&column.name.as_str()) {
                return self.bad("column.name", "must not be a partition column's name", &column.name);
            }
            if self.columns[..index].iter().any(|other| other.name == column.name) {
                return self.bad("column.name", "must be unique", &column.name);
            }
        }
        Ok(())
    }

    /// Columns whose values nobody shall see.
    fn validate_hidden(&self) -> Result<()> {
        for column in &self.columns {
            let (hashes, drops) =
                (column.transforms.contains(&Transform::Hash), column.transforms.contains(&Transform::Drop));
            if drops && !column.nullable {
                return self.bad("column.transforms", "drop must be of a column with nullable = true", &column.name);
            }
            if hashes && column.column_type != ColumnType::Text {
                let got = format!("{} of type {}", column.name, column.column_type);
                return self.bad("column.transforms", "hash must be of a column of type text", &got);
            }
            if (hashes || drops) && self.audit_sums.contains(&column.name) {
                return self.bad("audit_sums", "must not be columns with hash or drop", &column.name);
            }
            if hashes && self.store_column.as_ref() == Some(&column.name) {
                return self.bad("store_column", "must not be a column with hash", &column.name);
            }
        }
        Ok(())
    }

    fn validate_kind(&self) -> Result<()> {
        let dated = self.kind != DatasetKind::Dimension;
        match &self.business_date {
            Some(name) if dated => self.require(name, "business_date", &[ColumnType::Date])?,
            Some(name) => return self.bad("business_date", "must be absent for a dimension", name),
            None if dated => {
                return self.bad("business_date", "must name a column of type date", "nothing");
            }
            None => {}
        }
        match &self.moment {
            Some(name) if self.kind == DatasetKind::Snapshot => {
                self.require(name, "moment", &[ColumnType::Timestamp])?
            }
            Some(name) => {
                return self.bad("moment", "must be absent unless kind is snapshot", name);
            }
            None if self.kind == DatasetKind::Snapshot => {
                return self.bad("moment", "must name a column of type timestamp", "nothing");
            }
            None => {}
        }
        Ok(())
    }

    fn validate_references(&self) -> Result<()> {
        if self.key.is_empty() {
            return self.bad("key", "must name at least one column", "none");
        }
        for name in &self.key {
            match self.column(name) {
                Some(column) if column.nullable => {
                    return self.bad("key", "must be columns with nullable = false", name);
                }
                Some(_) => {}
                None => return self.bad("key", "must be columns of the dataset", name),
            }
        }
        for name in &self.audit_sums {
            if !self.column(name).is_some_and(|column| column.column_type.is_exact_number()) {
                return self.bad("audit_sums", "must be integer or decimal columns of the dataset", name);
            }
        }
        if let Some(name) = &self.store_column {
            self.require(name, "store_column", &[ColumnType::Text])?;
        }
        for check in &self.checks {
            let others: &[&String] = match &check.rule {
                CheckRule::ProductOf { left, right, .. } => &[left, right],
                _ => &[],
            };
            if let Some(name) =
                std::iter::once(&check.column).chain(others.iter().copied()).find(|name| self.column(name).is_none())
            {
                return self.bad("check.column", "must be a column of the dataset", name);
            }
        }
        Ok(())
    }

    /// `name` is a column that cannot be NULL of one of `types`.
    fn require(&self, name: &str, field: &str, types: &[ColumnType]) -> Result<()> {
        match self.column(name) {
            None => self.bad(field, "must be a column of the dataset", name),
            Some(column) if !types.contains(&column.column_type) => self.bad(
                field,
                &format!("must be of type {}", types[0]),
                &format!("{name} of type {}", column.column_type),
            ),
            Some(column) if column.nullable => self.bad(field, "must have nullable = false", name),
            Some(_) => Ok(()),
        }
    }

    pub(super) fn bad<T>(&self, field: &str, rule: &str, got: &str) -> Result<T> {
        Err(Error::config(format!("dataset {}: {field}: {rule}, got {got:?}", self.name)))
    }
}
