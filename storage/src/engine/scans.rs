//! What a query touches: the scans of its plan and the filters pushed into them.

use std::collections::BTreeMap;

use jiff::civil::Date;
use serde_json::Value;

use super::predicate::{Bounds, Literal, Predicate, Unterminated};
use crate::dataset::{DAYS_SUFFIX, DatasetDefinition, STORE_COLUMN};
use crate::error::{Error, Result};
use crate::ids::{Month, StoreId};

/// The scans of each table that a query reads, by name: a dataset's rows, or its table of days. A
/// dataset of which neither is here is not behind the answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scans {
    by_table: BTreeMap<String, Vec<Scan>>,
}

/// One reading of a dataset with the filters pushed into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    predicate: Predicate,
}

impl Scans {
    /// Reads the text that `EXPLAIN (FORMAT JSON)` answers over tables named after the datasets.
    pub fn from_explain(text: &str) -> Result<Self> {
        let plan: Value =
            serde_json::from_str(text).map_err(|error| Error::bug("the query plan is not JSON").with_source(error))?;
        let mut scans = Self::default();
        scans.collect(&plan);
        Ok(scans)
    }

    pub fn tables(&self) -> impl Iterator<Item = &str> {
        self.by_table.keys().map(String::as_str)
    }

    /// Whether the query reads `table`.
    pub fn reads(&self, table: &str) -> bool {
        !self.of(table).is_empty()
    }

    /// Whether the query reads the dataset's rows or its days.
    pub fn reads_of(&self, dataset: &str) -> bool {
        self.behind(dataset).next().is_some()
    }

    /// Whether rows of `store` on `date` can be behind the answer (`None`: rows without a date).
    pub fn touch(&self, dataset: &DatasetDefinition, store: &StoreId, date: Option<Date>) -> bool {
        let bounds = |column: &str| day_bounds(dataset, store, date, column);
        self.behind(dataset.name.as_str()).any(|scan| scan.predicate.may_hold(&bounds))
    }

    /// Whether what `table` shows of a file whose columns lie within `bounds` can be behind the
    /// answer.
    pub fn may_need(&self, table: &str, bounds: &impl Fn(&str) -> Option<Bounds>) -> bool {
        self.of(table).iter().any(|scan| scan.predicate.may_hold(bounds))
    }

    /// Whether some filter narrows the dataset.
    pub fn narrow(&self, dataset: &str) -> bool {
        self.reads_of(dataset) && self.behind(dataset).all(|scan| scan.predicate != Predicate::Any)
    }

    fn of(&self, table: &str) -> &[Scan] {
        self.by_table.get(table).map_or(&[], Vec::as_slice)
    }

    /// The scans of the dataset's rows and of its days, which go by the same column names.
    fn behind(&self, dataset: &str) -> impl Iterator<Item = &Scan> {
        self.of(dataset).iter().chain(self.of(&format!("{dataset}{DAYS_SUFFIX}")))
    }

    fn collect(&mut self, node: &Value) {
        if let Some(nodes) = node.as_array() {
            nodes.iter().for_each(|one| self.collect(one));
            return;
        }
        let info = node.get("extra_info");
        if let Some(table) = info.and_then(|info| info.get("Table")).and_then(Value::as_str) {
            let name = table.rsplit('.').next().unwrap_or(table).trim_matches('"');
            let predicate = pushed_filters(info.and_then(|info| info.get("Filters")));
            self.by_table.entry(name.to_owned()).or_default().push(Scan { predicate });
        }
        if let Some(children) = node.get("children") {
            self.collect(children);
        }
    }
}

/// All filters of a scan hold together. A string that holds a line break is printed as two
/// filters: then nothing of the scan's filters is taken for understood.
fn pushed_filters(filters: Option<&Value>) -> Predicate {
    let texts: Vec<&str> = match filters {
        Some(Value::String(text)) => vec![text.as_str()],
        Some(Value::Array(texts)) => texts.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let parsed: Result<Vec<Predicate>, Unterminated> = texts.into_iter().map(Predicate::parse).collect();
    let mut understood = parsed.unwrap_or_default();
    understood.retain(|one| *one != Predicate::Any);
    match understood.len() {
        0 => Predicate::Any,
        1 => understood.remove(0),
        _ => Predicate::And(understood),
    }
}

fn day_bounds(dataset: &DatasetDefinition, store: &StoreId, date: Option<Date>, column: &str) -> Option<Bounds> {
    let exactly = |literal: Literal| Some((literal.clone(), literal));
    if column == STORE_COLUMN || dataset.store_column.as_deref() == Some(column) {
        return exactly(Literal::Text(store.to_string()));
    }
    let date = date?;
    if dataset.business_date.as_deref() == Some(column) {
        return exactly(Literal::Date(date));
    }
    match column {
        "month" => exactly(Literal::Text(Month::of(date).to_string())),
        "year" => exactly(Literal::Text(format!("{:04}", date.year()))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn a_plan_with_two_scans_touches_what_either_needs() {
        let plan = r#"[{"name": "HASH_JOIN", "extra_info": {}, "children": [
            {"name": "SEQ_SCAN", "children": [], "extra_info":
                {"Table": "memory.main.ventas", "Filters": ["fecha='2017-01-02'::DATE", "ubicacion_id='s1'"]}},
            {"name": "SEQ_SCAN", "children": [], "extra_info":
                {"Table": "memory.main.ventas", "Filters": "month='2017-03'"}}]}]"#;
        let scans = Scans::from_explain(plan).unwrap();
        let ventas = crate::dataset::shipped("ventas").unwrap().unwrap();
        let (s1, s2): (StoreId, StoreId) = ("s1".parse().unwrap(), "s2".parse().unwrap());
        assert!(scans.touch(&ventas, &s1, Some(date(2017, 1, 2))));
        assert!(!scans.touch(&ventas, &s2, Some(date(2017, 1, 2))));
        assert!(scans.touch(&ventas, &s2, Some(date(2017, 3, 9))));
        assert!(!scans.touch(&ventas, &s2, Some(date(2017, 4, 9))));
        let inventario = crate::dataset::shipped("inventario").unwrap().unwrap();
        assert!(!scans.touch(&inventario, &s1, Some(date(2017, 1, 2))), "not read at all");
    }

    #[test]
    fn a_string_with_a_line_break_cannot_smuggle_in_a_narrower_filter() {
        let plan = r#"[{"name": "SEQ_SCAN", "children": [], "extra_info":
            {"Table": "memory.main.ventas", "Filters": ["vendedor='a", "month='2017-01'", "b'"]}}]"#;
        let scans = Scans::from_explain(plan).unwrap();
        assert!(!scans.narrow("ventas"));
    }
}
