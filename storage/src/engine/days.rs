//! The days of a dataset: a small table beside its rows, made of what the log itself says of each
//! store-day (rows, and the exact sum of each audited column). No data file is opened for it.

use std::path::Path;

use duckdb::types::Value;
use duckdb::{Appender, appender_params_from_iter};
use jiff::civil::{Date, date};

use super::predicate::{Bounds, Literal};
use super::resolve::{fill_columns, view_file};
use super::view::{Purpose, ViewColumn, ViewFile, files_sql, partition_column, quote_name, quote_text, view_columns};
use super::{Engine, engine_error};
use crate::batch::Facts;
use crate::dataset::{ColumnType, DAYS_SUFFIX, DatasetDefinition, DatasetKind};
use crate::decimal::ExactDecimal;
use crate::delta::{Snapshot, UnitTag};
use crate::error::{Error, Result};
use crate::ids::Unit;

const EPOCH: Date = date(1970, 1, 1);

/// The name of the dataset's table of days. Only daily facts have one: a snapshot's units are
/// moments, a dimension has one unit.
pub fn days_name(dataset: &DatasetDefinition) -> Option<String> {
    (dataset.kind == DatasetKind::Daily).then(|| format!("{}{DAYS_SUFFIX}", dataset.name))
}

/// The columns of the table of days, in order: partition columns, the business date and every
/// measure under the names they have in the rows, and the number of rows.
pub fn days_columns(dataset: &DatasetDefinition) -> Vec<ViewColumn> {
    let of_rows = view_columns(dataset);
    let titled = |name: &str| of_rows.iter().find(|column| column.name == name).cloned();
    let mut columns: Vec<ViewColumn> = dataset.partition_columns().into_iter().map(partition_column).collect();
    columns.extend(dataset.business_date.as_deref().and_then(titled));
    columns.push(ViewColumn {
        name: count_name(dataset).to_owned(),
        sql_type: "BIGINT".to_owned(),
        title_es: "Filas".to_owned(),
        title_en: "Rows".to_owned(),
    });
    for name in &dataset.audit_sums {
        let sum = titled(name).map(|column| ViewColumn {
            sql_type: sum_type(dataset, name),
            title_es: format!("Suma de {}", lower_first(&column.title_es)),
            title_en: format!("Sum of {}", lower_first(&column.title_en)),
            ..column
        });
        columns.extend(sum);
    }
    columns
}

/// `CREATE TABLE` of the table of days, empty; `None` when the dataset has none.
pub(super) fn days_table_sql(dataset: &DatasetDefinition) -> Option<String> {
    let name = days_name(dataset)?;
    let columns = days_columns(dataset);
    let columns = columns.iter().map(|column| format!("{} {}", quote_name(&column.name), column.sql_type));
    Some(format!("CREATE TABLE {} ({})", quote_name(&name), columns.collect::<Vec<_>>().join(", ")))
}

impl Engine {
    /// Makes the dataset's table of days, if it has one, from the live files of `snapshots` that
    /// `wanted` says yes to. Days whose sums the log lacks (a measure that is summed only since a
    /// later version of the definition, a file of another writer) are counted from their rows.
    pub fn define_days(
        &self,
        dataset: &DatasetDefinition,
        snapshots: &[Snapshot],
        root: &Path,
        wanted: impl Fn(&ViewFile) -> bool,
    ) -> Result<()> {
        let (Some(name), Some(create)) = (days_name(dataset), days_table_sql(dataset)) else { return Ok(()) };
        self.execute(&create)?;
        if snapshots.is_empty() {
            return Ok(());
        }
        self.execute(&staging_sql(dataset))?;
        let root = std::path::absolute(root)?;
        let mut uncounted = Vec::new();
        let mut appender = self
            .connection
            .appender_to_catalog_and_db(STAGING, "temp", "main")
            .map_err(|error| engine_error("days", error))?;
        for snapshot in snapshots {
            for add in snapshot.files() {
                let mut file = view_file(add, &add.object_path(snapshot.table())?, dataset, &root)?;
                let units = add.units()?;
                file.bounds.extend(day_bounds(dataset, &units));
                if !wanted(&file) {
                    continue;
                }
                let counted = !units.is_empty() && units.iter().all(|tag| is_counted(dataset, &tag.facts));
                for tag in units.iter().filter(|tag| counted || tag.facts.rows == 0) {
                    append(&mut appender, dataset, &file, tag)?;
                }
                if !counted {
                    uncounted.push(file);
                }
            }
        }
        appender.flush().map_err(|error| engine_error("days", error))?;
        drop(appender);
        let insert = |select: &str| self.execute(&format!("INSERT INTO {} {select}", quote_name(&name)));
        insert(&staged_sql(dataset))?;
        self.execute(&format!("DROP TABLE temp.{STAGING}"))?;
        if uncounted.is_empty() {
            return Ok(());
        }
        fill_columns(dataset, &mut uncounted)?;
        insert(&counting_sql(dataset, &uncounted))
    }
}

/// Days on their way into a table: sums as whole numbers, because DuckDB takes long to read wide
/// decimals from text.
const STAGING: &str = "ribera_days_staging";

fn staging_sql(dataset: &DatasetDefinition) -> String {
    let partitions = dataset.partition_columns().into_iter().map(|name| format!("{} VARCHAR", quote_name(&name)));
    let sums = dataset.audit_sums.iter().map(|name| format!("{} HUGEINT", quote_name(name)));
    let columns = partitions.chain(["\"Day\" DATE".to_owned(), "\"Rows\" BIGINT".to_owned()]).chain(sums);
    format!("CREATE TEMP TABLE {STAGING} ({})", columns.collect::<Vec<_>>().join(", "))
}

/// The staged days with exact decimals: a whole number times 0.01 as DECIMAL(2,2), which is the
/// whole number 1 inside, is the same digits with the point in its place.
fn staged_sql(dataset: &DatasetDefinition) -> String {
    let partitions = dataset.partition_columns().into_iter().map(|name| quote_name(&name));
    let sums = dataset.audit_sums.iter().map(|name| {
        let whole = format!("CAST({} AS DECIMAL(38,0))", quote_name(name));
        match usize::from(sum_scale(dataset, name)) {
            0 => whole,
            scale => format!("{whole} * CAST('0.{:0>scale$}' AS DECIMAL({scale},{scale}))", 1),
        }
    });
    let columns = partitions.chain(["\"Day\"".to_owned(), "\"Rows\"".to_owned()]).chain(sums);
    format!("SELECT {} FROM temp.{STAGING}", columns.collect::<Vec<_>>().join(", "))
}

/// Of the business date, over all units: days without rows are not in the file's statistics.
fn day_bounds(dataset: &DatasetDefinition, units: &[UnitTag]) -> Option<(String, Bounds)> {
    let days = || {
        units.iter().filter_map(|tag| match tag.unit {
            Unit::Day(day) => Some(day),
            _ => None,
        })
    };
    let bounds = (Literal::Date(days().min()?), Literal::Date(days().max()?));
    Some((dataset.business_date.clone()?, bounds))
}

/// Whether the facts have every measure. Without rows every sum is 0.
fn is_counted(dataset: &DatasetDefinition, facts: &Facts) -> bool {
    facts.rows == 0 || dataset.audit_sums.iter().all(|name| facts.sums.contains_key(name))
}

fn append(appender: &mut Appender<'_>, dataset: &DatasetDefinition, file: &ViewFile, tag: &UnitTag) -> Result<()> {
    let Unit::Day(day) = tag.unit else {
        return Err(Error::data(format!("{}: its units must be days, got {}", file.path, tag.unit)));
    };
    let partition = dataset.partition_columns().into_iter().map(|name| match file.partition.get(&name) {
        Some(value) => Value::Text(value.clone()),
        None => Value::Null,
    });
    let number = i32::try_from(day.duration_since(EPOCH).as_hours() / 24);
    let number = number.map_err(|_| Error::data(format!("{}: {day}: out of range", file.path)))?;
    let rows = i64::try_from(tag.facts.rows)
        .map_err(|_| Error::data(format!("{}: {day}: has {} rows", file.path, tag.facts.rows)))?;
    let sums = dataset.audit_sums.iter().map(|name| {
        let sum = tag.facts.sums.get(name).copied().unwrap_or(ExactDecimal::ZERO);
        let scale = sum_scale(dataset, name);
        let whole = sum.rescale(scale).ok_or_else(|| {
            Error::data(format!("{}: {day}: sum of {name}: must have {scale} fraction digits, got {sum}", file.path))
        })?;
        Ok(Value::HugeInt(whole.unscaled()))
    });
    let known = partition.chain([Value::Date32(number), Value::BigInt(rows)]).map(Ok);
    let cells = known.chain(sums).collect::<Result<Vec<_>>>()?;
    appender
        .append_row(appender_params_from_iter(cells))
        .map_err(|error| engine_error("days", error).context(&file.path))
}

/// The same columns, counted from rows; NULL adds nothing to a sum.
fn counting_sql(dataset: &DatasetDefinition, files: &[ViewFile]) -> String {
    let partitions = dataset.partition_columns();
    let keys: Vec<String> =
        partitions.iter().map(String::as_str).chain(dataset.business_date.as_deref()).map(quote_name).collect();
    let sums = dataset
        .audit_sums
        .iter()
        .map(|name| format!("CAST(coalesce(sum({}), 0) AS {})", quote_name(name), sum_type(dataset, name)));
    let columns: Vec<String> = keys.iter().cloned().chain(["count(*)".to_owned()]).chain(sums).collect();
    format!(
        "SELECT {} FROM ({}) GROUP BY {}",
        columns.join(", "),
        files_sql(dataset, files, Purpose::Answer),
        keys.join(", ")
    )
}

/// `rows`, unless a measure has that name.
fn count_name(dataset: &DatasetDefinition) -> &'static str {
    if dataset.audit_sums.iter().any(|name| name == "rows") { "row_count" } else { "rows" }
}

/// The type that a sum of the column has in SQL as well.
fn sum_type(dataset: &DatasetDefinition, name: &str) -> String {
    format!("DECIMAL(38,{})", sum_scale(dataset, name))
}

fn sum_scale(dataset: &DatasetDefinition, name: &str) -> u8 {
    match dataset.column(name).map(|column| column.column_type) {
        Some(ColumnType::Decimal { scale, .. }) => scale,
        _ => 0,
    }
}

fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// What the table of days is, for clients that show comments.
pub(super) fn days_comment_sql(dataset: &DatasetDefinition) -> Option<String> {
    let titles = &dataset.titles;
    let comment =
        format!("{}: filas y sumas por día y tienda / {}: rows and sums by store and day", titles.es, titles.en);
    Some(format!("COMMENT ON TABLE {} IS {}", quote_name(&days_name(dataset)?), quote_text(&comment)))
}
