//! The names that a dataset has in SQL, and those that a new dataset cannot have.

use super::DatasetDefinition;
use crate::error::Result;

/// Names with this beginning are those of Ribera's own tables, such as `ribera_stores` in an export.
const OWN_PREFIX: &str = "ribera_";

/// Datasets with a second name in SQL.
const OTHER_NAMES: [(&str, &str); 1] = [("ventas", "ventas_raw")];

impl DatasetDefinition {
    /// The second name of the dataset's rows in SQL, if it has one.
    pub fn other_name(&self) -> Option<&'static str> {
        OTHER_NAMES.iter().find(|(name, _)| *name == self.name.as_str()).map(|(_, other)| *other)
    }

    /// Checks the name of a dataset that is not published yet. A name that an older version let
    /// through stays valid: its dataset is read, and can be changed.
    ///
    /// (That a name must not end in `_days` holds for every definition: see [`Self::validate`].)
    ///
    /// # Errors
    /// `Config`, with field, rule and value, for a name that SQL or an export gives to another table.
    pub fn check_new_name(&self) -> Result<()> {
        let name = self.name.as_str();
        if name.starts_with(OWN_PREFIX) {
            let rule = format!("must not begin with {OWN_PREFIX}, as the names of Ribera's own tables do");
            return self.bad("name", &rule, name);
        }
        match OTHER_NAMES.iter().find(|(_, other)| *other == name) {
            Some((dataset, _)) => self.bad("name", &format!("must not be another name of {dataset} in SQL"), name),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::dataset::{SHIPPED, shipped};

    #[test]
    fn names_that_sql_or_an_export_gives_to_another_table_are_refused_with_field_rule_and_value() {
        let mut dataset = shipped("ventas_agrupadas").unwrap().unwrap();
        for name in ["ventas_raw", "ribera_stores", "ribera_export", "ribera_coverage_runs", "ribera_"] {
            dataset.name = name.parse().unwrap();
            let error = dataset.check_new_name().unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Config);
            for words in ["name: must not", &format!("got \"{name}\"")] {
                assert!(error.message().contains(words), "{words} in {error}");
            }
        }
        for name in ["ventas_raw2", "raw_ventas", "x_raw", "select", "main", "memory", "2024", "riberax", "ventas_day"]
        {
            dataset.name = name.parse().unwrap();
            dataset.check_new_name().unwrap();
        }
    }

    #[test]
    fn every_shipped_definition_may_be_published() {
        for (name, _) in SHIPPED {
            shipped(name).unwrap().unwrap().check_new_name().unwrap();
        }
    }
}
