//! The SQL that shows a dataset: a view over resolved lake files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use super::predicate::{Bounds, Literal};
use crate::dataset::{ColumnType, DatasetDefinition, STORE_COLUMN};
use crate::ids::StoreId;

/// A lake file as a query needs to know it.
#[derive(Debug, Clone, PartialEq)]
pub struct ViewFile {
    /// Where DuckDB opens it. Its folders name the partition (`store_id=S/month=M`).
    pub path: String,
    /// Partition column and value.
    pub partition: BTreeMap<String, String>,
    /// The dataset's columns that the file holds; `None` means all of them. A column that was
    /// added later reads as NULL.
    pub columns: Option<Arc<BTreeSet<String>>>,
    /// Least and greatest value of columns for which they are known.
    pub bounds: BTreeMap<String, Bounds>,
    /// The later of two files has the wider types.
    pub written: i64,
}

impl ViewFile {
    /// What is known of `column` in this file.
    pub fn bounds_of(&self, column: &str) -> Option<Bounds> {
        match self.partition.get(column) {
            Some(value) => Some((Literal::Text(value.clone()), Literal::Text(value.clone()))),
            None => self.bounds.get(column).cloned(),
        }
    }
}

/// The time zone of each store, grouped by zone: what the local columns are computed with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoreZones {
    by_zone: BTreeMap<String, BTreeSet<StoreId>>,
}

impl StoreZones {
    pub fn add(&mut self, store: StoreId, zone: &str) {
        self.by_zone.entry(zone.to_owned()).or_default().insert(store);
    }

    /// The local time of `column` as SQL: NULL for a store without a definition.
    fn local_sql(&self, column: &str, stores: &BTreeSet<&str>) -> String {
        let local = |zone: &str| format!("timezone({}, {})", quote_text(zone), quote_name(column));
        let needed: Vec<(&str, Vec<String>)> = self
            .by_zone
            .iter()
            .map(|(zone, members)| {
                let members = members.iter().filter(|store| stores.contains(store.as_str()));
                (zone.as_str(), members.map(|store| quote_text(store.as_str())).collect())
            })
            .filter(|(_, members): &(&str, Vec<String>)| !members.is_empty())
            .collect();
        let known: usize = needed.iter().map(|(_, members)| members.len()).sum();
        match needed.as_slice() {
            [] => "CAST(NULL AS TIMESTAMP)".to_owned(),
            [(zone, _)] if known == stores.len() => local(zone),
            zones => {
                let arms = zones
                    .iter()
                    .map(|(zone, members)| format!("WHEN store_id IN ({}) THEN {}", members.join(", "), local(zone)));
                format!("CASE {} END", arms.collect::<Vec<_>>().join(" "))
            }
        }
    }
}

/// A column that people see: a dataset's own, a partition column or a local time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewColumn {
    pub name: String,
    pub sql_type: String,
    pub title_es: String,
    pub title_en: String,
}

/// The columns of the dataset's view, in order: partition columns, then the dataset's columns,
/// each timestamp followed by the store's local time.
pub fn view_columns(dataset: &DatasetDefinition) -> Vec<ViewColumn> {
    let mut columns: Vec<ViewColumn> = dataset.partition_columns().into_iter().map(partition_column).collect();
    for column in &dataset.columns {
        columns.push(ViewColumn {
            name: column.name.clone(),
            sql_type: sql_type(column.column_type),
            title_es: column.es.clone(),
            title_en: column.en.clone(),
        });
        if let Some(local) = local_name(dataset, &column.name) {
            columns.push(ViewColumn {
                name: local,
                sql_type: "TIMESTAMP".into(),
                title_es: format!("{} (hora local)", column.es.trim_end_matches(" (UTC)")),
                title_en: format!("{} (local time)", column.en.trim_end_matches(" (UTC)")),
            });
        }
    }
    columns
}

/// A SELECT of the view's columns over `files`; of no rows when there are none.
pub fn select_sql(dataset: &DatasetDefinition, files: &[ViewFile], zones: &StoreZones) -> String {
    let stores: BTreeSet<&str> =
        files.iter().filter_map(|file| file.partition.get("store_id").map(String::as_str)).collect();
    let mut outer = Vec::new();
    for name in dataset.partition_columns() {
        outer.push(quote_name(&name));
    }
    for column in &dataset.columns {
        outer.push(quote_name(&column.name));
        if let Some(local) = local_name(dataset, &column.name) {
            outer.push(format!("{} AS {}", zones.local_sql(&column.name, &stores), quote_name(&local)));
        }
    }
    format!("SELECT {} FROM ({})", outer.join(", "), files_sql(dataset, files, Purpose::Answer))
}

/// In [`rows_sql`], the path that DuckDB opened. (No column name has a capital letter.)
pub(super) const FILE_COLUMN: &str = "\"File\"";

/// A SELECT of partition columns, the dataset's columns and [`FILE_COLUMN`].
pub(super) fn rows_sql(dataset: &DatasetDefinition, files: &[ViewFile]) -> String {
    files_sql(dataset, files, Purpose::Proof)
}

/// An empty table of the view's columns, for planning.
pub fn planning_table_sql(dataset: &DatasetDefinition) -> String {
    let columns = view_columns(dataset);
    let columns = columns.iter().map(|column| format!("{} {}", quote_name(&column.name), column.sql_type));
    format!("CREATE TABLE {} ({})", quote_name(dataset.name.as_str()), columns.collect::<Vec<_>>().join(", "))
}

/// DuckDB's type of a column.
pub fn sql_type(column_type: ColumnType) -> String {
    match column_type {
        ColumnType::Bool => "BOOLEAN".into(),
        ColumnType::Int16 => "SMALLINT".into(),
        ColumnType::Int32 => "INTEGER".into(),
        ColumnType::Int64 => "BIGINT".into(),
        ColumnType::Decimal { precision, scale } => format!("DECIMAL({precision},{scale})"),
        ColumnType::Date => "DATE".into(),
        ColumnType::Timestamp => "TIMESTAMP WITH TIME ZONE".into(),
        ColumnType::Text => "VARCHAR".into(),
        ColumnType::Binary => "BLOB".into(),
        ColumnType::Float64 => "DOUBLE".into(),
    }
}

pub fn quote_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub fn quote_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// What rows are read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// What statistics prove need not be read.
    Answer,
    /// Everything is read as it stands in the files, with [`FILE_COLUMN`].
    Proof,
}

/// One `read_parquet` for each set of columns that files have: it takes names and types from its
/// first file, the newest.
pub(super) fn files_sql(dataset: &DatasetDefinition, files: &[ViewFile], purpose: Purpose) -> String {
    let mut groups: BTreeMap<(Option<&BTreeSet<String>>, bool), Vec<&ViewFile>> = BTreeMap::new();
    for file in files {
        let one_store = purpose == Purpose::Answer && names_its_store_only(dataset, file);
        groups.entry((file.columns.as_deref(), one_store)).or_default().push(file);
    }
    let partitions = dataset.partition_columns();
    let parts = groups.into_iter().map(|((present, one_store), mut files)| {
        files.sort_by(|left, right| right.written.cmp(&left.written).then_with(|| left.path.cmp(&right.path)));
        let columns = dataset.columns.iter().map(|column| {
            let (name, kind) = (quote_name(&column.name), sql_type(column.column_type));
            // A constant for each file: nothing to decode, and quick to group by.
            if one_store && dataset.store_column.as_ref() == Some(&column.name) {
                return format!("{STORE_COLUMN} AS {name}");
            }
            match present.is_none_or(|present| present.contains(&column.name)) {
                true => format!("CAST({name} AS {kind}) AS {name}"),
                false => format!("CAST(NULL AS {kind}) AS {name}"),
            }
        });
        let file = (purpose == Purpose::Proof).then(|| format!("filename AS {FILE_COLUMN}"));
        let columns: Vec<String> = partitions.iter().map(|name| quote_name(name)).chain(columns).chain(file).collect();
        format!("SELECT {} FROM {}", columns.join(", "), read_parquet(&partitions, &files))
    });
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { no_rows(dataset) } else { parts.join(" UNION ALL ") }
}

/// Whether the column that names the store is known to hold the partition's store in every row.
fn names_its_store_only(dataset: &DatasetDefinition, file: &ViewFile) -> bool {
    let known = dataset.store_column.as_ref().and_then(|column| file.bounds.get(column));
    let store = file.partition.get(STORE_COLUMN).map(|store| Literal::Text(store.clone()));
    matches!((known, &store), (Some((least, greatest)), Some(store)) if least == store && greatest == store)
}

fn read_parquet(partitions: &[String], files: &[&ViewFile]) -> String {
    let mut sql = String::from("read_parquet([");
    for (index, file) in files.iter().enumerate() {
        let comma = if index > 0 { ", " } else { "" };
        // Writing to a String does not fail.
        let _ = write!(sql, "{comma}{}", quote_text(&file.path));
    }
    let types: Vec<String> = partitions.iter().map(|name| format!("{}: 'VARCHAR'", quote_text(name))).collect();
    let _ = write!(sql, "], hive_partitioning = true, hive_types = {{{}}})", types.join(", "));
    sql
}

fn no_rows(dataset: &DatasetDefinition) -> String {
    let partitions = dataset.partition_columns().into_iter().map(|name| (name, "VARCHAR".to_owned()));
    let columns = dataset.columns.iter().map(|column| (column.name.clone(), sql_type(column.column_type)));
    let columns: Vec<String> = partitions
        .chain(columns)
        .map(|(name, kind)| format!("CAST(NULL AS {kind}) AS {}", quote_name(&name)))
        .collect();
    format!("SELECT {} WHERE false", columns.join(", "))
}

/// The name of the local time beside timestamp `column`, unless the dataset uses it already.
fn local_name(dataset: &DatasetDefinition, column: &str) -> Option<String> {
    let local = format!("{column}_local");
    let is_timestamp = dataset.column(column).is_some_and(|column| column.column_type == ColumnType::Timestamp);
    (is_timestamp && dataset.column(&local).is_none()).then_some(local)
}

pub(super) fn partition_column(name: String) -> ViewColumn {
    let (title_es, title_en) = match name.as_str() {
        "month" => ("Mes", "Month"),
        "year" => ("Año", "Year"),
        _ => ("Tienda", "Store"),
    };
    ViewColumn { name, sql_type: "VARCHAR".into(), title_es: title_es.into(), title_en: title_en.into() }
}
