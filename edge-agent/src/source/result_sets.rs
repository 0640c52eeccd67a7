//! The result sets of a procedure: one of them holds the rows, the others are read through and
//! dropped as they come.

use ribera_storage::{Error, Result};

use crate::config::Charset;
use crate::source::{Rows, Value};
use crate::sql::ResultSet;

/// Result sets, and columns of each, that an error shows.
const SETS_SHOWN: usize = 8;
const COLUMNS_SHOWN: usize = 12;

/// Hands the rows of the wanted result set on.
pub struct ResultSets<'a> {
    rows: &'a mut dyn Rows,
    wanted: ResultSet,
    /// The driver tells the columns of a set only with its first row.
    columns_hide: bool,
    count: usize,
    /// The columns of the first sets, for errors.
    seen: Vec<String>,
    /// The number of the set whose rows are handed on.
    taken: Option<usize>,
    /// Why the first set that did not fit does not.
    refused: Option<Error>,
}

impl<'a> ResultSets<'a> {
    pub fn new(rows: &'a mut dyn Rows, wanted: ResultSet) -> Self {
        Self { rows, wanted, columns_hide: false, count: 0, seen: Vec::new(), taken: None, refused: None }
    }

    /// For a driver that tells the columns of a set only with its first row. Of several sets none can
    /// be chosen by its columns then: a day without rows would be a guess.
    pub fn with_hidden_columns(self) -> Self {
        Self { columns_hide: true, ..self }
    }

    /// A result set begins.
    pub fn begin(&mut self, names: &[String]) -> Result<()> {
        self.note(|| shown(names));
        match self.wanted {
            ResultSet::Only if self.count > 1 => {
                return Err(self.error("must give one result set, or `result_set` say which"));
            }
            ResultSet::Only => self.rows.begin(names)?,
            ResultSet::Nth(wanted) if wanted as usize == self.count => self.rows.begin(names)?,
            ResultSet::Fitting if self.taken.is_none() => {
                if let Err(error) = self.rows.begin(names) {
                    self.refused.get_or_insert(error);
                    return Ok(());
                }
            }
            ResultSet::Nth(_) | ResultSet::Fitting => return Ok(()),
        }
        self.taken = Some(self.count);
        Ok(())
    }

    /// A result set came and went without a row, and its columns with it.
    pub fn pass_empty(&mut self) {
        self.note(|| "no rows".to_owned());
        let is_it = match self.wanted {
            ResultSet::Nth(wanted) => wanted as usize == self.count,
            ResultSet::Only | ResultSet::Fitting => self.count == 1,
        };
        if is_it {
            self.taken = Some(self.count);
        }
    }

    /// Whether the rows of the set that began last are wanted.
    #[inline]
    pub fn wants(&self) -> bool {
        self.taken == Some(self.count)
    }

    #[inline]
    pub fn value(&mut self, index: usize, value: Value<'_>) {
        self.rows.value(index, value);
    }

    #[inline]
    pub fn raw_text(&mut self, index: usize, bytes: &[u8], charset: Option<Charset>) {
        self.rows.raw_text(index, bytes, charset);
    }

    #[inline]
    pub fn end_row(&mut self) -> Result<()> {
        self.rows.end_row()
    }

    /// The statement is at its end.
    pub fn finish(self) -> Result<()> {
        match (self.wanted, self.taken) {
            (ResultSet::Only, _) => Ok(()),
            _ if self.count == 0 => Err(self.error("the procedure must give a result set")),
            (ResultSet::Nth(wanted), None) => {
                Err(self.error(&format!("`result_set` must be 1 to {}, got {wanted}", self.count)))
            }
            (ResultSet::Fitting, taken) if self.columns_hide && self.count > 1 => {
                let fits = taken.map(|number| format!("; {number} has the columns")).unwrap_or_default();
                Err(self.error(&format!(
                    "`result_set` (or `audit_result_set`) must say which of several holds the rows{fits}"
                )))
            }
            (ResultSet::Fitting, None) => {
                let error = self.error("one result set must have the columns that are needed");
                Err(match self.refused {
                    Some(refused) => Error::config(format!("{}: {}", error.message(), refused.message())),
                    None => error,
                })
            }
            _ => Ok(()),
        }
    }

    fn note(&mut self, columns: impl FnOnce() -> String) {
        self.count += 1;
        if self.seen.len() < SETS_SHOWN {
            self.seen.push(columns());
        }
    }

    fn error(&self, rule: &str) -> Error {
        let sets = self.seen.iter().enumerate().map(|(index, columns)| format!("{} ({columns})", index + 1));
        let sets: Vec<String> = sets.collect();
        let sets = if sets.is_empty() { "none".to_owned() } else { sets.join(", ") };
        Error::config(format!("adapter: query: {rule}; the result sets are {sets}"))
    }
}

fn shown(names: &[String]) -> String {
    let first: Vec<&str> = names.iter().take(COLUMNS_SHOWN).map(String::as_str).collect();
    let more = if names.len() > COLUMNS_SHOWN { ", ..." } else { "" };
    format!("{}{more}", first.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sets of a procedure: the column that each begins with, and its rows.
    type Sets<'a> = &'a [(&'a str, u32)];

    /// Wants a column `day`; counts rows.
    #[derive(Default)]
    struct Days {
        rows: u32,
    }

    impl Rows for Days {
        fn begin(&mut self, names: &[String]) -> Result<()> {
            let found = names.iter().any(|name| name == "day");
            found.then_some(()).ok_or_else(|| Error::config("day: must be a result column, got none of that name"))
        }
        fn value(&mut self, _: usize, _: Value<'_>) {}
        fn end_row(&mut self) -> Result<()> {
            self.rows += 1;
            Ok(())
        }
    }

    /// Sets by their one column, each of as many rows; how many were handed on.
    fn taken(wanted: ResultSet, hidden: bool, sets: Sets<'_>) -> Result<u32> {
        let mut days = Days::default();
        let mut result_sets = ResultSets::new(&mut days, wanted);
        if hidden {
            result_sets = result_sets.with_hidden_columns();
        }
        for (column, rows) in sets {
            if hidden && *rows == 0 {
                result_sets.pass_empty();
                continue;
            }
            result_sets.begin(&[(*column).to_owned()])?;
            for _ in 0..*rows {
                if result_sets.wants() {
                    result_sets.value(0, Value::Int(1));
                    result_sets.end_row()?;
                }
            }
        }
        result_sets.finish()?;
        Ok(days.rows)
    }

    #[test]
    fn the_rows_of_the_wanted_result_set_are_handed_on_and_no_others() {
        use ResultSet::{Fitting, Nth, Only};
        let three = [("company", 1), ("day", 5), ("day", 7)];
        let ok = [
            (Only, false, &three[1..2], 5),
            (Fitting, false, &three[..], 5),
            (Fitting, false, &[("company", 1), ("day", 0)][..], 0),
            (Nth(3), false, &three[..], 7),
            (Nth(2), true, &three[..], 5),
            (Nth(2), true, &[("company", 1), ("day", 0)][..], 0),
            (Fitting, true, &three[1..2], 5),
            (Fitting, true, &[("day", 0)][..], 0),
        ];
        for (wanted, hidden, sets, rows) in ok {
            assert_eq!(taken(wanted, hidden, sets).unwrap(), rows, "{wanted:?} {sets:?}");
        }
        let refused: [(ResultSet, bool, Sets<'_>, &str); 7] = [
            (Only, false, &three[1..], "say which"),
            (Fitting, false, &[], "must give a result set; the result sets are none"),
            (Fitting, false, &three[..1], "1 (company): day: must be a result column"),
            (Fitting, true, &three[..1], "1 (company): day: must be a result column"),
            (Fitting, true, &three, "; 2 has the columns; the result sets are 1 (company), 2 (day), 3 (day)"),
            (Nth(4), true, &three, "must be 1 to 3, got 4"),
            (Nth(1), true, &three, "day: must be a result column"),
        ];
        for (wanted, hidden, sets, words) in refused {
            let error = taken(wanted, hidden, sets).unwrap_err().to_string();
            assert!(error.contains(words), "{error:?} should say {words:?}");
        }
    }
}
