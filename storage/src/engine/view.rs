//! The SQL that shows a dataset: a view over resolved lake files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use jiff::civil::Date;

use crate::dataset::{ColumnType, DatasetDefinition, STORE_COLUMN};
use crate::delta::path;
use crate::ids::StoreId;

/// A lake file as a query needs to know it.
#[derive(Debug, Clone, PartialEq)]
pub struct ViewFile {
    /// Where DuckDB opens it: absolute.
    pub path: String,
    /// Partition column and value. A column that is absent reads as NULL.
    pub partition: BTreeMap<String, String>,
    /// The dataset's columns that the file holds; `None` means all of them. A column that was
    /// added later reads as NULL.
    pub columns: Option<Arc<BTreeSet<String>>>,
    /// First and last business date that its rows can have, where ingest made sure of it.
    pub dates: Option<(Date, Date)>,
    /// The one store whose rows it holds, by its name.
    pub store: Option<String>,
    /// The later of two files has the wider types.
    pub written: i64,
    /// Why it cannot be opened, if it cannot. A query that needs it fails with these words.
    pub unreadable: Option<String>,
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

    /// The local time of `column` as SQL: NULL for a store without a definition. `stores` are those
    /// that rows can be of, if they are known: then the zone of most is taken without asking for the store.
    fn local_sql(&self, column: &str, stores: Option<&BTreeSet<String>>) -> String {
        let local = |zone: &str| format!("timezone({}, {})", quote_text(zone), quote_name(column));
        let null = "CAST(NULL AS TIMESTAMP)".to_owned();
        let is_there = |store: &&str| stores.is_none_or(|stores| stores.contains(*store));
        let mut undefined: BTreeSet<&str> = stores.into_iter().flatten().map(String::as_str).collect();
        let mut groups: Vec<(Vec<&str>, String)> = Vec::new();
        for (zone, members) in &self.by_zone {
            let found: Vec<&str> = members.iter().map(StoreId::as_str).filter(is_there).collect();
            undefined.retain(|store| !found.contains(store));
            groups.push((found, local(zone)));
        }
        groups.push((undefined.into_iter().collect(), null.clone()));
        groups.retain(|(members, _)| !members.is_empty());
        groups.sort_by_key(|(members, _)| members.len());
        let rest = if stores.is_some() { groups.pop().map(|(_, local)| local) } else { None };
        let rest = rest.unwrap_or(null);
        if groups.is_empty() {
            return rest;
        }
        let arms = groups.iter().map(|(members, local)| {
            let members: Vec<String> = members.iter().map(|store| quote_text(store)).collect();
            format!("WHEN {STORE_COLUMN} IN ({}) THEN {local}", members.join(", "))
        });
        format!("CASE {} ELSE {rest} END", arms.collect::<Vec<_>>().join(" "))
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

/// The columns of the dataset's view, in order: store and partition columns, then the dataset's,
/// each timestamp followed by the store's local time.
pub fn view_columns(dataset: &DatasetDefinition) -> Vec<ViewColumn> {
    let mut columns: Vec<ViewColumn> = dataset.place_columns().into_iter().map(place_column).collect();
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

/// A SELECT of the view's columns over `files`; without rows when there are none. `stores` are those
/// that rows can be of, `None` if nobody knows.
///
/// With `state_dates` every part says which business dates its rows can have. DuckDB then skips the
/// parts that a filter on the business date excludes. The answer is the same without it.
pub fn select_sql(
    dataset: &DatasetDefinition,
    files: &[ViewFile],
    stores: Option<&BTreeSet<String>>,
    zones: &StoreZones,
    state_dates: bool,
) -> String {
    let mut outer = Vec::new();
    for name in dataset.place_columns() {
        outer.push(quote_name(&name));
    }
    for column in &dataset.columns {
        outer.push(quote_name(&column.name));
        if let Some(local) = local_name(dataset, &column.name) {
            outer.push(format!("{} AS {}", zones.local_sql(&column.name, stores), quote_name(&local)));
        }
    }
    let purpose = if state_dates { Purpose::NarrowAnswer } else { Purpose::Answer };
    format!("SELECT {} FROM ({})", outer.join(", "), files_sql(dataset, files, purpose))
}

/// A SELECT of `columns` that fails as soon as a row of it is asked for: it stands for a table that
/// a query is thought not to read.
pub(super) fn unread_sql(name: &str, columns: &[ViewColumn]) -> String {
    let message = format!("{name} was not loaded, because the plan of the query does not name it. Name it plainly.");
    let columns = columns.iter().map(|column| failing_column(&message, &column.name, &column.sql_type));
    failing_select(&message, columns.collect())
}

/// No filter can be decided about it: a constant, even NULL, would let a filter drop the failure.
fn failing_column(message: &str, name: &str, sql_type: &str) -> String {
    format!("CAST(error({}) AS {sql_type}) AS {}", quote_text(message), quote_name(name))
}

fn failing_select(message: &str, columns: Vec<String>) -> String {
    format!("SELECT {} WHERE CAST(error({}) AS BOOLEAN)", columns.join(", "), quote_text(message))
}

/// In [`rows_sql`], the path that DuckDB opened. No column has this name: it contains a blank.
pub(super) const FILE_COLUMN: &str = "\"file path\"";

/// A SELECT of store and partition columns, the dataset's columns and [`FILE_COLUMN`].
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

/// A path of DuckDB's that names one file: what would be a pattern in it is taken literally.
pub(super) fn quote_path(path: &str) -> String {
    quote_text(&literal_pattern(path))
}

/// `path` as a pattern that only itself matches.
pub(super) fn literal_pattern(path: &str) -> String {
    let mut pattern = String::with_capacity(path.len());
    for character in path.chars() {
        match character {
            '*' | '?' | '[' => pattern.extend(['[', character, ']']),
            other => pattern.push(other),
        }
    }
    pattern
}

/// What rows are read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// What statistics prove need not be read.
    Answer,
    /// Likewise, and every part says which business dates it can have.
    NarrowAnswer,
    /// Everything is read as it is in the files, with [`FILE_COLUMN`].
    Proof,
}

/// Files that one `read_parquet` reads: with the same columns, of the same month (or year), or of the few files of
/// months long ago.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Part<'a> {
    grain: Grain<'a>,
    store_source: StoreSource,
    columns: Option<&'a BTreeSet<String>>,
    dates: Option<(Date, Date)>,
    unreadable: Option<&'a str>,
    /// Of a file that cannot be read: a query of another store does not need it.
    store: Option<&'a str>,
    /// For [`FILE_COLUMN`], where DuckDB cannot give it.
    path: Option<&'a str>,
}

/// Values of the partition columns.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Grain<'a> {
    /// Of one partition.
    Values(Vec<Option<&'a str>>),
    /// The last folder of each file's path says it; all of them begin like this.
    Path(&'a str),
}

/// In a table of more partitions those of a year (of a decade, if they are years) share a `read_parquet`. DuckDB binds
/// each of them for 1.5 ms, which twenty years of months would feel in every query.
const PARTITIONS_APART_MAX: usize = 24;

/// Partitions of so many files stay apart: a filter on the date would open them all for another month.
const FILES_APART_MIN: usize = 8;

/// What says the store of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum StoreSource {
    /// The file's name: a filter on the store opens no file that it excludes.
    Name,
    /// The column.
    Column,
}

/// One `read_parquet` for each part: it takes names and types from its first file, the newest.
///
/// No folder above the lake has a say: DuckDB's own reading of `name=value` folders is off.
pub(super) fn files_sql(dataset: &DatasetDefinition, files: &[ViewFile], purpose: Purpose) -> String {
    let partitions = dataset.partition_columns();
    let shared = shared_partitions(dataset, &partitions, files, purpose);
    let mut parts: BTreeMap<Part<'_>, Vec<&ViewFile>> = BTreeMap::new();
    for file in files {
        parts.entry(part_of(dataset, file, &partitions, purpose, &shared)).or_default().push(file);
    }
    if parts.is_empty() {
        return no_rows(dataset);
    }
    let parts: Vec<String> =
        parts.into_iter().map(|(part, files)| part_sql(dataset, &partitions, &part, files, purpose)).collect();
    parts.join(" UNION ALL ")
}

/// The value of a partition column in the last folder of a path.
fn in_folder<'a>(path: &'a str, column: &str) -> Option<&'a str> {
    path.rsplit('/').nth(1)?.strip_prefix(column)?.strip_prefix('=')
}

/// The store in the name of a file of one store, as [`path::store_of`] finds it.
const STORE_IN_NAME: &str = "part-[0-9a-f]{32}-([^/]*)[.]parquet$";

/// Values of the partition column that share a `read_parquet` with others: of long ago, with few files. The newest
/// year stays apart.
fn shared_partitions<'a>(
    dataset: &DatasetDefinition,
    partitions: &[String],
    files: &'a [ViewFile],
    purpose: Purpose,
) -> BTreeSet<&'a str> {
    let [column] = partitions else { return BTreeSet::new() };
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for value in files.iter().filter_map(|file| file.partition.get(column)) {
        *counts.entry(value).or_default() += 1;
    }
    let newest = counts.last_key_value().map(|(value, _)| beginning(value));
    if counts.len() <= PARTITIONS_APART_MAX || purpose == Purpose::Proof || has_own_filename(dataset) {
        return BTreeSet::new();
    }
    counts.retain(|value, count| *count < FILES_APART_MIN && newest != Some(beginning(value)));
    counts.into_keys().collect()
}

/// Of a month its year, of a year its decade.
fn beginning(value: &str) -> &str {
    value.rsplit_once('-').map_or_else(|| value.get(..3).unwrap_or(value), |(year, _)| year)
}

fn part_of<'a>(
    dataset: &DatasetDefinition,
    file: &'a ViewFile,
    partitions: &[String],
    purpose: Purpose,
    shared: &BTreeSet<&str>,
) -> Part<'a> {
    let value = |name: &String| file.partition.get(name).map(String::as_str);
    let of_path =
        partitions.first().and_then(|name| in_folder(&file.path, name).filter(|one| value(name) == Some(one)));
    let of_path = of_path.filter(|value| shared.contains(value) && file.unreadable.is_none());
    Part {
        grain: match of_path {
            Some(value) => Grain::Path(beginning(value)),
            None => Grain::Values(partitions.iter().map(value).collect()),
        },
        store_source: match file.store.as_deref() {
            Some(store) if !has_own_filename(dataset) && path::store_of(&file.path) == Some(store) => StoreSource::Name,
            _ => StoreSource::Column,
        },
        columns: file.columns.as_deref(),
        dates: file.dates.filter(|_| purpose == Purpose::NarrowAnswer && of_path.is_none()),
        unreadable: file.unreadable.as_deref(),
        store: file.store.as_deref().filter(|_| file.unreadable.is_some()),
        path: (purpose == Purpose::Proof && has_own_filename(dataset)).then_some(file.path.as_str()),
    }
}

fn part_sql(
    dataset: &DatasetDefinition,
    partitions: &[String],
    part: &Part<'_>,
    mut files: Vec<&ViewFile>,
    purpose: Purpose,
) -> String {
    files.sort_by(|left, right| right.written.cmp(&left.written).then_with(|| left.path.cmp(&right.path)));
    let has = |column: &str| part.columns.is_none_or(|columns| columns.contains(column));
    let grain = partitions.iter().enumerate().map(|(place, name)| {
        let value = match &part.grain {
            Grain::Path(_) => {
                format!("regexp_extract(filename, {}, 1)", quote_text(&format!("/{name}=([^/]*)/[^/]*$")))
            }
            Grain::Values(values) => {
                let value = values.get(place).copied().flatten();
                value.map_or_else(|| "CAST(NULL AS VARCHAR)".to_owned(), quote_text)
            }
        };
        format!("{value} AS {}", quote_name(name))
    });
    // DuckDB evaluates this once for each file. Most other functions it would call for each row.
    let by_name = format!("regexp_extract(filename, {}, 1)", quote_text(STORE_IN_NAME));
    let store = match part.store_source {
        StoreSource::Name => format!("{by_name} AS {STORE_COLUMN}"),
        StoreSource::Column if has(STORE_COLUMN) => STORE_COLUMN.to_owned(),
        StoreSource::Column => format!("CAST(NULL AS VARCHAR) AS {STORE_COLUMN}"),
    };
    if let Some(message) = part.unreadable {
        let store = match part.store {
            Some(store) => format!("{} AS {STORE_COLUMN}", quote_text(store)),
            None => failing_column(message, STORE_COLUMN, "VARCHAR"),
        };
        let columns = dataset.columns.iter().map(|column| match part.store {
            // Ingest takes no row that names another store.
            Some(store) if dataset.store_column.as_ref() == Some(&column.name) => {
                format!("{} AS {}", quote_text(store), quote_name(&column.name))
            }
            _ => failing_column(message, &column.name, &sql_type(column.column_type)),
        });
        return failing_select(message, std::iter::once(store).chain(grain).chain(columns).collect());
    }
    let place = std::iter::once(store).chain(grain);
    let columns = dataset.columns.iter().map(|column| {
        let (name, kind) = (quote_name(&column.name), sql_type(column.column_type));
        // Ingest takes no row that names another store: a constant for each file, quick to group by.
        let is_store = dataset.store_column.as_ref() == Some(&column.name);
        if is_store && part.store_source == StoreSource::Name && purpose != Purpose::Proof {
            return format!("{by_name} AS {name}");
        }
        match has(&column.name) {
            true => format!("CAST({name} AS {kind}) AS {name}"),
            false => format!("CAST(NULL AS {kind}) AS {name}"),
        }
    });
    let file = part.path.map_or_else(|| "filename".to_owned(), quote_text);
    let file = (purpose == Purpose::Proof).then(|| format!("{file} AS {FILE_COLUMN}"));
    let selected: Vec<String> = place.chain(columns).chain(file).collect();
    let dates = match part.grain {
        Grain::Path(_) if purpose == Purpose::NarrowAnswer => dates_of(&files),
        _ => part.dates,
    };
    let dates = dataset.business_date.as_ref().filter(|column| has(column)).zip(dates);
    let filter = dates.map(|(column, (first, last))| {
        format!(" WHERE {} BETWEEN DATE '{first}' AND DATE '{last}'", quote_name(column))
    });
    format!("SELECT {} FROM {}{}", selected.join(", "), read_parquet(dataset, &files), filter.unwrap_or_default())
}

/// First and last business date of all of the files; `None` if one does not tell.
fn dates_of(files: &[&ViewFile]) -> Option<(Date, Date)> {
    let dates: Option<Vec<(Date, Date)>> = files.iter().map(|file| file.dates).collect();
    dates?.into_iter().reduce(|all, one| (all.0.min(one.0), all.1.max(one.1)))
}

/// DuckDB takes a column `filename` for the path of the file, and skips files by filters on it. A
/// dataset with a column of that name does without the path: its parts are smaller.
fn has_own_filename(dataset: &DatasetDefinition) -> bool {
    dataset.column("filename").is_some()
}

fn read_parquet(dataset: &DatasetDefinition, files: &[&ViewFile]) -> String {
    let mut sql = String::from("read_parquet([");
    for (index, file) in files.iter().enumerate() {
        let comma = if index > 0 { ", " } else { "" };
        // Writing to a String does not fail.
        let _ = write!(sql, "{comma}{}", quote_path(&file.path));
    }
    let _ = write!(sql, "], hive_partitioning = false, filename = {})", !has_own_filename(dataset));
    sql
}

fn no_rows(dataset: &DatasetDefinition) -> String {
    let place = dataset.place_columns().into_iter().map(|name| (name, "VARCHAR".to_owned()));
    let columns = dataset.columns.iter().map(|column| (column.name.clone(), sql_type(column.column_type)));
    let columns: Vec<String> =
        place.chain(columns).map(|(name, kind)| format!("CAST(NULL AS {kind}) AS {}", quote_name(&name))).collect();
    format!("SELECT {} WHERE false", columns.join(", "))
}

/// The name of the local time beside timestamp `column`, unless the dataset uses it already.
fn local_name(dataset: &DatasetDefinition, column: &str) -> Option<String> {
    let local = format!("{column}_local");
    let is_timestamp = dataset.column(column).is_some_and(|column| column.column_type == ColumnType::Timestamp);
    (is_timestamp && dataset.column(&local).is_none()).then_some(local)
}

/// The store, or a partition column.
pub(super) fn place_column(name: String) -> ViewColumn {
    let (title_es, title_en) = match name.as_str() {
        "month" => ("Mes", "Month"),
        "year" => ("Año", "Year"),
        _ => ("Tienda", "Store"),
    };
    ViewColumn { name, sql_type: "VARCHAR".into(), title_es: title_es.into(), title_en: title_en.into() }
}
