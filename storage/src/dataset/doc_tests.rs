//! `docs/datasets.md` says what the code does.

use super::{Check, DatasetDefinition, SHIPPED};
use crate::store::StoreDefinition;

const DOC: &str = include_str!("../../../docs/datasets.md");

#[test]
fn the_datasets_page_lists_every_column_of_the_shipped_datasets() {
    for (name, text) in SHIPPED {
        let dataset = DatasetDefinition::from_toml(text).unwrap();
        let heading = format!("### `{name}`: {} / {}\n", dataset.titles.es, dataset.titles.en);
        let (_, section) = DOC.split_once(&heading).unwrap_or_else(|| panic!("no heading {heading:?}"));
        let section = section.split("\n#").next().unwrap();
        let rows: Vec<String> = dataset
            .columns
            .iter()
            .map(|column| {
                let null = if column.nullable { "yes" } else { "no" };
                format!("| `{}` | {} | {null} | {} | {} |", column.name, column.column_type, column.es, column.en)
            })
            .collect();
        let found: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(found, rows, "columns of {name}");
    }
}

#[test]
fn the_examples_of_the_datasets_page_are_valid() {
    let examples: Vec<&str> =
        DOC.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default()).collect();
    let [dataset, store] = examples.as_slice() else { panic!("{} examples", examples.len()) };
    let dataset = DatasetDefinition::from_toml(dataset).unwrap();
    assert!(!dataset.checks.is_empty());
    StoreDefinition::from_toml(store).unwrap();
}

#[test]
fn the_datasets_page_describes_every_key() {
    let expected = |error: String| -> Vec<String> {
        let (_, list) = error.split_once("expected one of ").unwrap_or_else(|| panic!("{error}"));
        list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let keys = [
        expected(DatasetDefinition::from_toml("no_such_key = 1").unwrap_err().to_string()),
        expected(StoreDefinition::from_toml("no_such_key = 1").unwrap_err().to_string()),
        expected(toml::from_str::<super::Column>("no_such_key = 1").unwrap_err().to_string()),
        expected(toml::from_str::<Check>("column = 'a'\naction = 'warn'\nrule = 'x'").unwrap_err().to_string()),
        expected(serde_json::from_str::<super::Transform>("\"x\"").unwrap_err().to_string()),
    ];
    for key in keys.iter().flatten() {
        assert!(DOC.contains(&format!("`{key}`")) || DOC.contains(&format!("{{ {key} =")), "{key} is not described");
    }
}
