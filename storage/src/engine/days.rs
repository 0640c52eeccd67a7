//! The days of a dataset: a small table beside its rows, made of what the log says about each
//! store-day (rows, and the exact sum of each audited column). No data file is opened for it.

use std::collections::BTreeSet;
use std::path::Path;

use duckdb::appender_params_from_iter;
use duckdb::types::Value;
use jiff::civil::{Date, date};

use super::resolve::{fill_columns, view_file};
use super::view::{
    Purpose, ViewColumn, ViewFile, files_sql, place_column, quote_name, quote_text, unread_sql, view_columns,
};
use super::{Engine, engine_error};
use crate::batch::Facts;
use crate::dataset::{ColumnType, DAYS_SUFFIX, DatasetDefinition, DatasetKind};
use crate::decimal::ExactDecimal;
use crate::delta::{Snapshot, UnitTag};
use crate::error::Result;
use crate::ids::Unit;

const EPOCH: Date = date(1970, 1, 1);

/// The name of the dataset's table of days. Only daily facts have one: a snapshot's units are
/// moments, a dimension has one unit.
pub fn days_name(dataset: &DatasetDefinition) -> Option<String> {
    (dataset.kind == DatasetKind::Daily).then(|| format!("{}{DAYS_SUFFIX}", dataset.name))
}

/// The columns of the table of days, in order: store and partition columns, the business date and every
/// measure under the names they have in the rows, and the number of rows.
pub fn days_columns(dataset: &DatasetDefinition) -> Vec<ViewColumn> {
    let of_rows = view_columns(dataset);
    let titled = |name: &str| of_rows.iter().find(|column| column.name == name).cloned();
    let mut columns: Vec<ViewColumn> = dataset.place_columns().into_iter().map(place_column).collect();
    columns.extend(dataset.business_date.as_deref().and_then(titled));
    columns.push(ViewColumn {
        name: count_name(dataset),
        sql_type: "BIGINT".to_owned(),
        title_es: "Filas".to_owned(),
        title_en: "Rows".to_owned(),
    });
    for name in measures(dataset) {
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
    /// Makes the dataset's table of days, if it has one, from the live files of `snapshot`. Days
    /// that the log does not tell are counted from their rows: a measure that is summed only since a
    /// later version of the definition, a file of another program, a tag that cannot be read.
    ///
    /// # Errors
    ///
    /// `Config` with DuckDB's message when it refuses the table; `Data` when a path or file cannot be read.
    pub fn define_days(&self, dataset: &DatasetDefinition, snapshot: Option<&Snapshot>, root: &Path) -> Result<()> {
        let (Some(name), Some(create)) = (days_name(dataset), days_table_sql(dataset)) else { return Ok(()) };
        self.execute(&create)?;
        let Some(snapshot) = snapshot else { return Ok(()) };
        self.execute(&staging_sql(dataset))?;
        let mut uncounted = self.stage_days(dataset, snapshot, &std::path::absolute(root)?)?;
        let insert = |select: &str| self.execute(&format!("INSERT INTO {} {select}", quote_name(&name)));
        insert(&staged_sql(dataset))?;
        self.execute(&format!("DROP TABLE temp.{STAGING}"))?;
        if uncounted.is_empty() {
            return Ok(());
        }
        fill_columns(dataset, &mut uncounted);
        insert(&counting_sql(dataset, &uncounted))
    }

    /// Stands for the table of days of a query that is thought not to read it.
    ///
    /// # Errors
    ///
    /// `Config` with DuckDB's message when it refuses the view.
    pub fn define_unread_days(&self, dataset: &DatasetDefinition) -> Result<()> {
        let Some(name) = days_name(dataset) else { return Ok(()) };
        self.execute(&format!("CREATE VIEW {} AS {}", quote_name(&name), unread_sql(&name, &days_columns(dataset))))
    }

    /// Appends what the log tells to the staging table. Returns the files whose rows must be
    /// counted.
    fn stage_days(&self, dataset: &DatasetDefinition, snapshot: &Snapshot, root: &Path) -> Result<Vec<ViewFile>> {
        let failed = |error| engine_error("days", error);
        let mut uncounted = Vec::new();
        let mut appender = self.connection.appender_to_catalog_and_db(STAGING, "temp", "main").map_err(failed)?;
        for add in snapshot.files() {
            let Some(file) = view_file(add, snapshot.table(), dataset, root)? else { continue };
            let known = known_days(dataset, &file, &add.units().unwrap_or_default());
            for cells in known.rows {
                appender
                    .append_row(appender_params_from_iter(cells))
                    .map_err(|error| failed(error).context(&file.path))?;
            }
            if !known.all {
                uncounted.push(file);
            }
        }
        appender.flush().map_err(failed)?;
        Ok(uncounted)
    }
}

/// What the tags of a file tell of its days.
struct KnownDays {
    /// Cells of the staging table.
    rows: Vec<Vec<Value>>,
    /// Every day with rows is among them.
    all: bool,
}

fn known_days(dataset: &DatasetDefinition, file: &ViewFile, units: &[UnitTag]) -> KnownDays {
    let counted = !units.is_empty() && units.iter().all(|tag| is_counted(dataset, &tag.facts));
    // A day without rows cannot be counted from rows.
    let kept = units.iter().filter(|tag| counted || tag.facts.rows == 0);
    match kept.map(|tag| cells(dataset, file, tag)).collect() {
        Some(rows) => KnownDays { rows, all: counted },
        None => KnownDays { rows: Vec::new(), all: false },
    }
}

/// Days on their way into a table: sums as whole numbers, because DuckDB takes long to read wide
/// decimals from text.
const STAGING: &str = "ribera_days_staging";

/// Columns of the staging table. No column of a dataset has these names: they contain a blank.
const DAY: &str = "\"business day\"";
const ROWS: &str = "\"row count\"";

fn staging_sql(dataset: &DatasetDefinition) -> String {
    let place = dataset.place_columns().into_iter().map(|name| format!("{} VARCHAR", quote_name(&name)));
    let sums = measures(dataset).into_iter().map(|name| format!("{} HUGEINT", quote_name(name)));
    let columns = place.chain([format!("{DAY} DATE"), format!("{ROWS} BIGINT")]).chain(sums);
    format!("CREATE TEMP TABLE {STAGING} ({})", columns.collect::<Vec<_>>().join(", "))
}

/// The staged days with exact decimals: a whole number times 0.01 as DECIMAL(2,2), which is the
/// whole number 1 inside, is the same digits with the point in its place.
fn staged_sql(dataset: &DatasetDefinition) -> String {
    let place = dataset.place_columns().into_iter().map(|name| quote_name(&name));
    let sums = measures(dataset).into_iter().map(|name| {
        let whole = format!("CAST({} AS DECIMAL(38,0))", quote_name(name));
        match usize::from(sum_scale(dataset, name)) {
            0 => whole,
            scale => format!("{whole} * CAST('0.{:0>scale$}' AS DECIMAL({scale},{scale}))", 1),
        }
    });
    let columns = place.chain([DAY.to_owned(), ROWS.to_owned()]).chain(sums);
    format!("SELECT {} FROM temp.{STAGING}", columns.collect::<Vec<_>>().join(", "))
}

/// Whether the facts have every measure. Without rows every sum is 0.
fn is_counted(dataset: &DatasetDefinition, facts: &Facts) -> bool {
    facts.rows == 0 || dataset.audit_sums.iter().all(|name| facts.sums.contains_key(name))
}

/// A row of the staging table; `None` when a value of the tag does not fit it.
fn cells(dataset: &DatasetDefinition, file: &ViewFile, tag: &UnitTag) -> Option<Vec<Value>> {
    let Unit::Day(day) = tag.unit else { return None };
    let partition = dataset.partition_columns().into_iter().map(|name| match file.partition.get(&name) {
        Some(value) => Value::Text(value.clone()),
        None => Value::Null,
    });
    let number = i32::try_from(day.duration_since(EPOCH).as_hours() / 24).ok()?;
    let rows = i64::try_from(tag.facts.rows).ok()?;
    let store = std::iter::once(Value::Text(tag.store.to_string()));
    let mut cells: Vec<Value> = store.chain(partition).chain([Value::Date32(number), Value::BigInt(rows)]).collect();
    for name in measures(dataset) {
        let sum = tag.facts.sums.get(name).copied().unwrap_or(ExactDecimal::ZERO);
        cells.push(Value::HugeInt(sum.rescale(sum_scale(dataset, name))?.unscaled()));
    }
    Some(cells)
}

/// The audited columns, each once.
fn measures(dataset: &DatasetDefinition) -> Vec<&str> {
    let mut seen = BTreeSet::new();
    dataset.audit_sums.iter().map(String::as_str).filter(|name| seen.insert(*name)).collect()
}

/// The columns of the table of days, counted from rows; NULL adds nothing to a sum.
fn counting_sql(dataset: &DatasetDefinition, files: &[ViewFile]) -> String {
    let place = dataset.place_columns();
    let keys: Vec<String> =
        place.iter().map(String::as_str).chain(dataset.business_date.as_deref()).map(quote_name).collect();
    let sums = measures(dataset)
        .into_iter()
        .map(|name| format!("CAST(coalesce(sum({}), 0) AS {})", quote_name(name), sum_type(dataset, name)));
    let columns: Vec<String> = keys.iter().cloned().chain(["count(*)".to_owned()]).chain(sums).collect();
    format!(
        "SELECT {} FROM ({}) GROUP BY {}",
        columns.join(", "),
        files_sql(dataset, files, Purpose::Answer),
        keys.join(", ")
    )
}

/// `rows`, unless another column of the table of days has that name.
fn count_name(dataset: &DatasetDefinition) -> String {
    let taken = |name: &str| {
        dataset.business_date.as_deref() == Some(name) || dataset.audit_sums.iter().any(|column| column == name)
    };
    let numbered = (2..).map(|number| format!("row_count_{number}"));
    let mut names = ["rows".to_owned(), "row_count".to_owned()].into_iter().chain(numbered);
    names.find(|name| !taken(name)).unwrap_or_default()
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
