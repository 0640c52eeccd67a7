//! Which tables a query reads, and how far its filters narrow them.
//!
//! The plan that DuckDB prints has no documented form. So it never chooses rows: it says which
//! tables to load (a table that it forgets fails when it is read, see `unread_sql`), and it narrows
//! the note about coverage. A plan of a form that is not known here is answered by the text of the
//! query: every table that it names is read, and nothing is narrowed.

use std::collections::BTreeMap;

use jiff::civil::Date;
use serde_json::Value;

use super::predicate::{Bounds, Literal, Predicate, Unterminated};
use crate::dataset::{DAYS_SUFFIX, DatasetDefinition, STORE_COLUMN};
use crate::ids::{Month, StoreId};

/// Operators that read no table of the lake, although nothing is below them in a plan.
const OTHER_LEAVES: [&str; 9] = [
    "COLUMN_DATA_SCAN",
    "CTE_SCAN",
    "DELIM_SCAN",
    "DUMMY_SCAN",
    "EMPTY_RESULT",
    "GENERATE_SERIES",
    "HASH_GROUP_BY",
    "RANGE",
    "REC_CTE_SCAN",
];

/// Functions that describe the tables instead of reading them, such as `DUCKDB_TABLES`.
const CATALOGUE_LEAVES: &str = "DUCKDB_";

/// The scans of each table that a query reads, by name: a dataset's rows, or its table of days. A
/// dataset of which neither is here is not behind the answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scans {
    by_table: BTreeMap<String, Vec<Scan>>,
}

/// One scan of a table, with the filters pushed into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    predicate: Predicate,
}

impl Scans {
    /// Reads what `EXPLAIN (FORMAT JSON)` prints for `select`. `names` has every name of a table in
    /// SQL, and the table.
    pub fn of_plan(plan: &str, select: &str, names: &BTreeMap<String, String>) -> Self {
        let mut scans = Self::default();
        let understood = serde_json::from_str(plan).is_ok_and(|plan: Value| scans.collect(&plan, names));
        if understood { scans } else { Self::of_text(select, names) }
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

    /// Whether rows of `store` on `date` can be behind the answer (`None`: rows of any date).
    pub fn touch(&self, dataset: &DatasetDefinition, store: &StoreId, date: Option<Date>) -> bool {
        self.touch_some(dataset, store, date.map(|date| (date, date)))
    }

    /// Whether rows of `store` on any day of a run within a month can be behind the answer.
    fn touch_some(&self, dataset: &DatasetDefinition, store: &StoreId, run: Option<(Date, Date)>) -> bool {
        let bounds = |column: &str| run_bounds(dataset, store, run, column);
        self.behind(dataset.name.as_str()).any(|scan| scan.predicate.may_hold(&bounds))
    }

    /// The same of many days, store by store: whether every day of a run within a month is touched (`Some(true)`),
    /// none (`Some(false)`), or some may be (`None`). It always says yes or no of a single day.
    pub fn touched<'a>(
        &'a self,
        dataset: &'a DatasetDefinition,
    ) -> impl FnMut(&StoreId, (Date, Date)) -> Option<bool> + 'a {
        let name = dataset.name.as_str();
        let everything = self.behind(name).any(|scan| scan.predicate == Predicate::Any);
        let asks_store = self.behind(name).any(|scan| scan.predicate.asks(&|column| is_store(dataset, column)));
        let mut store: Option<(StoreId, bool)> = None;
        let mut runs: BTreeMap<(Date, Date), bool> = BTreeMap::new();
        move |one, run| {
            if everything {
                return Some(true);
            }
            if store.as_ref().is_none_or(|(last, _)| last != one) {
                store = Some((one.clone(), self.touch(dataset, one, None)));
                if asks_store {
                    runs.clear();
                }
            }
            if !store.as_ref().is_some_and(|(_, may)| *may) {
                return Some(false);
            }
            let may = *runs.entry(run).or_insert_with(|| self.touch_some(dataset, one, Some(run)));
            (!may || run.0 == run.1).then_some(may)
        }
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

    /// Every table that `select` names, without filters.
    fn of_text(select: &str, names: &BTreeMap<String, String>) -> Self {
        let is_part = |character: char| character.is_alphanumeric() || character == '_';
        let mut scans = Self::default();
        for word in select.split(|character| !is_part(character)).map(str::to_lowercase) {
            if let Some(table) = names.get(&word) {
                scans.by_table.insert(table.clone(), vec![Scan { predicate: Predicate::Any }]);
            }
        }
        scans
    }

    /// False when the plan has a form that is not known here.
    fn collect(&mut self, node: &Value, names: &BTreeMap<String, String>) -> bool {
        if let Some(nodes) = node.as_array() {
            return nodes.iter().all(|one| self.collect(one, names));
        }
        let children = node.get("children").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let info = node.get("extra_info");
        if let Some(table) = info.and_then(|info| info.get("Table")).and_then(Value::as_str) {
            let name = table.rsplit('.').next().unwrap_or(table).trim_matches('"');
            let predicate = pushed_filters(info.and_then(|info| info.get("Filters")));
            self.by_table.entry(name.to_owned()).or_default().push(Scan { predicate });
            return names.contains_key(name) && children.is_empty();
        }
        let is_known_leaf = node
            .get("name")
            .and_then(Value::as_str)
            .map(str::trim)
            .is_some_and(|name| OTHER_LEAVES.contains(&name) || name.starts_with(CATALOGUE_LEAVES));
        (is_known_leaf || !children.is_empty()) && children.iter().all(|child| self.collect(child, names))
    }
}

/// All filters of a scan hold together. A string that holds a line break is printed as two
/// filters: then none of the scan's filters is believed.
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

fn is_store(dataset: &DatasetDefinition, column: &str) -> bool {
    column == STORE_COLUMN || dataset.store_column.as_deref() == Some(column)
}

fn run_bounds(dataset: &DatasetDefinition, store: &StoreId, run: Option<(Date, Date)>, column: &str) -> Option<Bounds> {
    let exactly = |literal: Literal| Some((literal.clone(), literal));
    if is_store(dataset, column) {
        return exactly(Literal::Text(store.to_string()));
    }
    let (first, last) = run?;
    if dataset.business_date.as_deref() == Some(column) {
        return Some((Literal::Date(first), Literal::Date(last)));
    }
    match column {
        "month" => exactly(Literal::Text(Month::of(first).to_string())),
        "year" => exactly(Literal::Text(format!("{:04}", first.year()))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    fn names() -> BTreeMap<String, String> {
        let named = |(name, table): (&str, &str)| (name.to_owned(), table.to_owned());
        [("ventas", "ventas"), ("ventas_raw", "ventas"), ("ventas_days", "ventas_days"), ("inventario", "inventario")]
            .map(named)
            .into()
    }

    fn ventas() -> DatasetDefinition {
        crate::dataset::shipped("ventas").unwrap().unwrap()
    }

    #[test]
    fn a_plan_with_two_scans_touches_what_either_needs() {
        let plan = r#"[{"name": "HASH_JOIN", "extra_info": {}, "children": [
            {"name": "SEQ_SCAN", "children": [], "extra_info":
                {"Table": "memory.main.ventas", "Filters": ["fecha='2017-01-02'::DATE", "ubicacion_id='s1'"]}},
            {"name": "SEQ_SCAN", "children": [], "extra_info":
                {"Table": "memory.main.ventas", "Filters": "month='2017-03'"}}]}]"#;
        let scans = Scans::of_plan(plan, "", &names());
        let (s1, s2): (StoreId, StoreId) = ("s1".parse().unwrap(), "s2".parse().unwrap());
        let definition = ventas();
        assert!(scans.touch(&ventas(), &s1, Some(date(2017, 1, 2))));
        assert!(!scans.touch(&ventas(), &s2, Some(date(2017, 1, 2))));
        assert!(scans.touch(&ventas(), &s2, Some(date(2017, 3, 9))));
        assert!(!scans.touch(&ventas(), &s2, Some(date(2017, 4, 9))));
        let mut touched = scans.touched(&definition);
        for (store, day) in [
            (&s1, date(2017, 1, 2)),
            (&s2, date(2017, 1, 2)),
            (&s2, date(2017, 3, 9)),
            (&s1, date(2017, 3, 9)),
            (&s2, date(2017, 4, 9)),
        ] {
            for _ in 0..2 {
                let expected = Some(scans.touch(&definition, store, Some(day)));
                assert_eq!(touched(store, (day, day)), expected, "{store} {day}");
            }
        }
        let january = (date(2017, 1, 1), date(2017, 1, 31));
        assert_eq!([&s1, &s2].map(|store| touched(store, january)), [None, Some(false)]);
        assert_eq!(touched(&s2, (date(2017, 3, 1), date(2017, 3, 31))), None);
        let inventario = crate::dataset::shipped("inventario").unwrap().unwrap();
        assert_eq!(scans.touched(&inventario)(&s1, january), Some(false), "not read at all");
        assert!(!scans.touch(&inventario, &s1, Some(date(2017, 1, 2))), "not read at all");
    }

    #[test]
    fn a_string_with_a_line_break_cannot_smuggle_in_a_narrower_filter() {
        let plan = r#"[{"name": "SEQ_SCAN", "children": [], "extra_info":
            {"Table": "memory.main.ventas", "Filters": ["vendedor='a", "month='2017-01'", "b'"]}}]"#;
        assert!(!Scans::of_plan(plan, "", &names()).narrow("ventas"));
    }

    #[test]
    fn a_plan_of_an_unknown_form_reads_every_table_that_the_query_names_and_narrows_nothing() {
        let scan = |info: &str| format!(r#"[{{"name": "SEQ_SCAN", "children": [], "extra_info": {info}}}]"#);
        let plans = [
            String::new(),
            "not JSON".to_owned(),
            "[{}]".to_owned(),
            r#"{"plan": []}"#.to_owned(),
            scan(r#"{"Relation": "ventas", "Filters": "month='2017-03'"}"#),
            scan(r#"{"Table": ["ventas"], "Filters": "month='2017-03'"}"#),
            scan(r#"{"Table": "memory.main.ventas@2", "Filters": "month='2017-03'"}"#),
            r#"[{"name": "LAKE_SCAN", "children": []}]"#.to_owned(),
            // One of two scans is known.
            r#"[{"name": "UNION", "children": [
                {"name": "SEQ_SCAN", "extra_info": {"Table": "memory.main.ventas", "Filters": "month='2017-03'"}},
                {"name": "SCAN", "extra_info": {"source": "ventas"}}]}]"#
                .to_owned(),
        ];
        for plan in &plans {
            let select = "SELECT * FROM \"Ventas_Raw\" WHERE month = '2017-03' -- inventarios";
            let scans = Scans::of_plan(plan, select, &names());
            assert_eq!(scans.tables().collect::<Vec<_>>(), ["ventas"], "{plan}");
            assert!(!scans.narrow("ventas"), "{plan}");
            assert!(scans.touch(&ventas(), &"s1".parse().unwrap(), Some(date(2017, 1, 1))), "{plan}");
        }
    }

    #[test]
    fn filters_of_an_unknown_form_narrow_nothing() {
        for filters in [r#"{"month": "2017-03"}"#, r#"[{"column": "month"}]"#, r#""month ≈ '2017-03'""#, "7"] {
            let plan = format!(
                r#"[{{"name": "SEQ_SCAN", "extra_info": {{"Table": "memory.main.ventas", "Filters": {filters}}}}}]"#
            );
            let scans = Scans::of_plan(&plan, "", &names());
            assert!(scans.reads("ventas") && !scans.narrow("ventas"), "{filters}");
        }
    }
}
