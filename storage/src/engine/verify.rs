//! Proves a table from its files: every one is there, is the one that was written, holds what its
//! statistics and facts say. Two readers look, and neither is the writer: DuckDB and the parquet
//! crate.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Engine;
use super::resolve::{fill_columns, view_file};
use super::view::{FILE_COLUMN, ViewFile, quote_name, quote_text, rows_sql};
use crate::batch::Facts;
use crate::dataset::{Column, ColumnType, DatasetDefinition, STORE_COLUMN};
use crate::decimal::ExactDecimal;
use crate::delta::{AddFile, Snapshot, UnitCounter, UnitTag, read_rows};
use crate::error::{Error, Result};
use crate::hex::sha256_hex;
use crate::ids::{DatasetName, StoreUnit, Unit};
use crate::object::{ObjectPath, ObjectStore};

/// What was looked at, and what is wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerifyReport {
    pub table: DatasetName,
    pub version: u64,
    pub files: u64,
    pub bytes: u64,
    pub rows: u64,
    /// Units (store-days) whose facts were counted again.
    pub units: u64,
    pub findings: Vec<Finding>,
}

/// Something that is not as the log says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub kind: FindingKind,
    /// The file's path in the object store.
    pub path: String,
    /// What should be, and what was got.
    pub detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    FileMissing,
    SizeDiffers,
    HashDiffers,
    FileUnreadable,
    RowsDiffer,
    StatisticsDiffer,
    FactsDiffer,
    /// Rows of a store or date that the file must not hold.
    RowMisplaced,
    /// A unit of a store lies in two files.
    UnitTwice,
    /// Another program wrote the file, or wrote a checkpoint without its units tag.
    ForeignFile,
    /// The units tag cannot be read.
    UnitsUnreadable,
    /// The statistics are not JSON.
    StatisticsUnreadable,
    /// The log names no month or year for the file.
    PartitionUnreadable,
    /// The log names a path outside the table.
    PathUnreadable,
}

impl FindingKind {
    /// Whether the bytes themselves are wrong, or what the log says about them.
    fn is_about_bytes(self) -> bool {
        !matches!(
            self,
            Self::UnitTwice
                | Self::ForeignFile
                | Self::UnitsUnreadable
                | Self::StatisticsUnreadable
                | Self::PartitionUnreadable
        )
    }

    /// The stable text form, such as `hash_differs`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FileMissing => "file_missing",
            Self::SizeDiffers => "size_differs",
            Self::HashDiffers => "hash_differs",
            Self::FileUnreadable => "file_unreadable",
            Self::RowsDiffer => "rows_differ",
            Self::StatisticsDiffer => "statistics_differ",
            Self::FactsDiffer => "facts_differ",
            Self::RowMisplaced => "row_misplaced",
            Self::UnitTwice => "unit_twice",
            Self::ForeignFile => "foreign_file",
            Self::UnitsUnreadable => "units_unreadable",
            Self::StatisticsUnreadable => "statistics_unreadable",
            Self::PartitionUnreadable => "partition_unreadable",
            Self::PathUnreadable => "path_unreadable",
        }
    }
}

/// Files that DuckDB reads in one query.
const FILES_PER_QUERY: usize = 500;

/// Verifies every file of `snapshot`. `root` is the folder of the object store; `engine` may open
/// files below it. `progress` hears of every file that is done.
///
/// # Errors
///
/// `Retry` when the object store does not answer. What is wrong with a file is in the report.
pub async fn verify<S: ObjectStore>(
    objects: &S,
    engine: &Engine,
    snapshot: &Snapshot,
    dataset: &DatasetDefinition,
    root: &Path,
    mut progress: impl FnMut(u64),
) -> Result<VerifyReport> {
    let mut report = VerifyReport {
        table: snapshot.table().clone(),
        version: snapshot.version(),
        files: snapshot.file_count() as u64,
        bytes: 0,
        rows: 0,
        units: 0,
        findings: Vec::new(),
    };
    let root = std::path::absolute(root)?;
    let mut seen: BTreeMap<StoreUnit, String> = BTreeMap::new();
    let mut sound = Vec::new();
    for (index, add) in snapshot.files().enumerate() {
        let mut file = FileCheck::new(add, snapshot, dataset);
        file.check_units_once(&mut seen);
        if file.check_bytes(objects, &mut report).await? && file.resolve(snapshot.table(), &root) {
            sound.push(file);
        } else {
            report.findings.append(&mut file.findings);
        }
        progress(index as u64 + 1);
    }
    // Only files that the parquet crate could read are asked of DuckDB: the others' answer must come.
    for chunk in sound.chunks_mut(FILES_PER_QUERY) {
        check_with_duckdb(engine, dataset, chunk);
    }
    report.findings.extend(sound.into_iter().flat_map(|file| file.findings));
    report.findings.sort_by(|left, right| left.path.cmp(&right.path).then(left.kind.cmp(&right.kind)));
    Ok(report)
}

struct FileCheck<'a> {
    add: &'a AddFile,
    dataset: &'a DatasetDefinition,
    /// Its path in the object store; as the log has it when that is no path of the table.
    object: String,
    units: Vec<UnitTag>,
    stats: Option<Stats>,
    /// As DuckDB opens it.
    view: Option<ViewFile>,
    findings: Vec<Finding>,
}

impl<'a> FileCheck<'a> {
    /// Reads what the log says about the file; what cannot be read is a finding.
    fn new(add: &'a AddFile, snapshot: &Snapshot, dataset: &'a DatasetDefinition) -> Self {
        let object = add.object_path(snapshot.table());
        let mut check = Self {
            add,
            dataset,
            object: object.as_ref().map_or_else(|_| add.path.clone(), ToString::to_string),
            units: Vec::new(),
            stats: None,
            view: None,
            findings: Vec::new(),
        };
        if let Err(error) = object {
            check.find(FindingKind::PathUnreadable, error.to_string());
        }
        let absent = |name: &&String| add.partition_values.get(*name).is_none_or(Option::is_none);
        if let Some(name) = dataset.partition_columns().iter().find(absent) {
            check.find(FindingKind::PartitionUnreadable, format!("must have a partition value {name}, got none"));
        }
        match add.units() {
            Ok(units) => check.units = units,
            Err(error) => check.find(FindingKind::UnitsUnreadable, error.to_string()),
        }
        if add.is_foreign() {
            check.find(FindingKind::ForeignFile, "must have a units tag, got none: another program wrote it".into());
        }
        match add.stats.as_deref().map(serde_json::from_str) {
            Some(Ok(stats)) => check.stats = Some(stats),
            Some(Err(error)) => check.find(FindingKind::StatisticsUnreadable, format!("must be JSON, got {error}")),
            None => {}
        }
        check
    }

    /// A unit of a store must lie in one file.
    fn check_units_once(&mut self, seen: &mut BTreeMap<StoreUnit, String>) {
        for key in self.units.iter().map(UnitTag::key).collect::<Vec<_>>() {
            if let Some(other) = seen.insert(key.clone(), self.object.clone()) {
                self.find(FindingKind::UnitTwice, format!("{key}: must lie in one file, got {other} too"));
            }
        }
    }

    /// Finds out how DuckDB opens the file. False when it cannot.
    fn resolve(&mut self, table: &DatasetName, root: &Path) -> bool {
        let mut views: Vec<ViewFile> = match view_file(self.add, table, self.dataset, root) {
            Ok(view) => view.into_iter().collect(),
            Err(error) => {
                self.find(FindingKind::FileUnreadable, error.to_string());
                return false;
            }
        };
        fill_columns(self.dataset, &mut views);
        self.view = views.pop();
        let unreadable = self.view.as_ref().and_then(|view| view.unreadable.clone());
        let readable = self.view.is_some() && unreadable.is_none();
        unreadable.into_iter().for_each(|why| self.find(FindingKind::FileUnreadable, why));
        readable
    }

    fn find(&mut self, kind: FindingKind, detail: String) {
        self.findings.push(Finding { kind, path: self.object.clone(), detail });
    }

    /// Existence, size, hash, and what the parquet crate counts. False when DuckDB need not look.
    async fn check_bytes<S: ObjectStore>(&mut self, objects: &S, report: &mut VerifyReport) -> Result<bool> {
        let Ok(path) = ObjectPath::new(self.object.clone()) else { return Ok(false) };
        let Some(bytes) = objects.get(&path).await? else {
            self.find(FindingKind::FileMissing, "must exist, got nothing".into());
            return Ok(false);
        };
        report.bytes += bytes.len() as u64;
        if bytes.len() as u64 != self.add.size {
            self.find(FindingKind::SizeDiffers, format!("must be {} bytes, got {}", self.add.size, bytes.len()));
        }
        let hash = sha256_hex(&bytes);
        if let Some(wanted) = self.add.sha256()
            && wanted != hash
        {
            self.find(FindingKind::HashDiffers, format!("must be {wanted}, got {hash}"));
        }
        let counted = match count_units(self.dataset, bytes) {
            Ok(counted) => counted,
            Err(error) => {
                self.find(FindingKind::FileUnreadable, error.to_string());
                return Ok(false);
            }
        };
        report.rows += counted.values().map(|facts| facts.rows).sum::<u64>();
        report.units += self.units.len() as u64;
        self.check_facts("parquet", &counted);
        Ok(self.findings.iter().all(|finding| !finding.kind.is_about_bytes()))
    }

    /// Facts of every unit against its tag; units without rows are not among `counted`.
    fn check_facts(&mut self, reader: &str, counted: &BTreeMap<StoreUnit, Facts>) {
        let rows: u64 = counted.values().map(|facts| facts.rows).sum();
        if self.add.rows().is_some_and(|wanted| wanted != rows) {
            let wanted = self.add.rows().unwrap_or(0);
            self.find(FindingKind::RowsDiffer, format!("numRecords: must be {wanted}, {reader} got {rows}"));
        }
        for tag in self.units.clone() {
            let got = counted.get(&tag.key()).cloned().unwrap_or_default();
            if !got.agrees_with(&tag.facts) {
                let (wanted, got) = (facts_text(&tag.facts), facts_text(&got));
                self.find(FindingKind::FactsDiffer, format!("{}: must be {wanted}, {reader} got {got}", tag.key()));
            }
        }
        // Without units there is nothing to compare with: that is a finding of its own.
        if self.units.is_empty() {
            return;
        }
        let tagged: BTreeSet<StoreUnit> = self.units.iter().map(UnitTag::key).collect();
        for key in counted.keys().filter(|key| !tagged.contains(key)) {
            self.find(FindingKind::FactsDiffer, format!("{key}: must have no rows, {reader} got some"));
        }
    }

    fn check_statistics(&mut self, row: &[Option<String>]) {
        let Some(stats) = self.stats.take() else { return };
        for (index, column) in lake_columns(self.dataset).iter().enumerate() {
            let cell = |offset: usize| row.get(2 + index * 3 + offset).and_then(Option::as_deref);
            if let Some(wanted) = stats.null_count.get(&column.name).and_then(Value::as_u64)
                && cell(0).and_then(|text| text.parse().ok()) != Some(wanted)
            {
                let got = cell(0).unwrap_or("nothing");
                let detail = format!("nullCount.{}: must be {got}, the log says {wanted}", column.name);
                self.find(FindingKind::StatisticsDiffer, detail);
            }
            for (name, values, offset, order) in
                [("minValues", &stats.min_values, 1, Order::Min), ("maxValues", &stats.max_values, 2, Order::Max)]
            {
                let Some(said) = values.get(&column.name) else { continue };
                if let Some(detail) = statistic_differs(column, said, cell(offset), order) {
                    self.find(FindingKind::StatisticsDiffer, format!("{name}.{}: {detail}", column.name));
                }
            }
        }
    }

    /// Rows that name another store than theirs, or are of another partition than the file's.
    fn check_places(&mut self, row: &[Option<String>]) {
        let last = row.len().saturating_sub(2);
        let count = |index: usize| {
            row.get(index).and_then(Option::as_deref).and_then(|text| text.parse().ok()).unwrap_or(0_u64)
        };
        for (index, what) in
            [(last, "store column: must name the row's store"), (last + 1, "month or year: must be the partition's")]
        {
            if count(index) > 0 {
                let detail = format!("{what}, got {} rows of another", count(index));
                self.find(FindingKind::RowMisplaced, detail);
            }
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Stats {
    min_values: BTreeMap<String, Value>,
    max_values: BTreeMap<String, Value>,
    null_count: BTreeMap<String, Value>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Min,
    Max,
}

/// Numbers, dates and times must be exact; texts are cut, so they must be bounds.
fn statistic_differs(column: &Column, said: &Value, got: Option<&str>, order: Order) -> Option<String> {
    let said_text = said.as_str().map_or_else(|| said.to_string(), str::to_owned);
    let Some(got) = got else { return Some(format!("must be absent, the log says {said_text}")) };
    let holds = match column.column_type {
        ColumnType::Text if order == Order::Min => said_text.as_bytes() <= got.as_bytes(),
        ColumnType::Text => said_text.as_bytes() >= got.as_bytes(),
        ColumnType::Date => said_text == got,
        ColumnType::Timestamp => {
            said_text.parse::<jiff::Timestamp>().ok().map(|at| at.as_microsecond().to_string()).as_deref() == Some(got)
        }
        // JSON numbers are read as doubles: equal doubles are all that can be asked of them.
        _ => said.as_f64().is_some() && said.as_f64() == got.parse().ok(),
    };
    (!holds).then(|| format!("must be {got}, the log says {said_text}"))
}

fn count_units(dataset: &DatasetDefinition, bytes: bytes::Bytes) -> Result<BTreeMap<StoreUnit, Facts>> {
    let mut counter = UnitCounter::new(dataset)?;
    for batch in read_rows(bytes, &dataset.lake_schema())? {
        counter.add(&batch?)?;
    }
    counter.finish()
}

/// Lets DuckDB count the files, all at once; one by one when it fails, so that the file that it
/// cannot read is named and the others are proven.
fn check_with_duckdb(engine: &Engine, dataset: &DatasetDefinition, files: &mut [FileCheck<'_>]) {
    let Err(error) = ask_duckdb(engine, dataset, files) else { return };
    match files {
        [file] => file.find(FindingKind::FileUnreadable, format!("DuckDB: {error}")),
        files => files.chunks_mut(1).for_each(|file| check_with_duckdb(engine, dataset, file)),
    }
}

fn ask_duckdb(engine: &Engine, dataset: &DatasetDefinition, files: &mut [FileCheck<'_>]) -> Result<()> {
    let views: Vec<ViewFile> = files.iter().filter_map(|file| file.view.clone()).collect();
    let rows = rows_sql(dataset, &views);
    let statistics: BTreeMap<String, Vec<Option<String>>> = engine
        .rows(&statistics_sql(dataset, &rows))?
        .into_iter()
        .filter_map(|row| Some((row.first().cloned().flatten()?, row)))
        .collect();
    let facts = file_facts(engine, dataset, &rows)?;
    for file in files {
        let path = file.view.as_ref().map(|view| view.path.clone()).unwrap_or_default();
        // A file without rows is no row of the answer.
        if let Some(row) = statistics.get(&path) {
            file.check_statistics(row);
            file.check_places(row);
        }
        file.check_facts("DuckDB", facts.get(&path).unwrap_or(&BTreeMap::new()));
    }
    Ok(())
}

/// By file: rows; nulls, least and greatest of every column; rows of another store, of another month.
fn statistics_sql(dataset: &DatasetDefinition, rows: &str) -> String {
    let text = |expression: String| format!("CAST({expression} AS VARCHAR)");
    let mut columns = vec![FILE_COLUMN.to_owned(), text("count(*)".into())];
    for column in lake_columns(dataset) {
        let name = quote_name(&column.name);
        columns.push(text(format!("count(*) - count({name})")));
        for function in ["min", "max"] {
            columns.push(text(match column.column_type {
                ColumnType::Timestamp => format!("epoch_us({function}({name}))"),
                ColumnType::Bool | ColumnType::Binary | ColumnType::Float64 => "NULL".to_owned(),
                _ => format!("{function}({name})"),
            }));
        }
    }
    let other_store = dataset
        .store_column
        .as_deref()
        .map_or("false".to_owned(), |column| format!("{} IS DISTINCT FROM store_id", quote_name(column)));
    let grain = dataset.partition_columns().into_iter().next();
    let other_month = match (dataset.business_date.as_deref(), grain.as_deref()) {
        (Some(column), Some("month")) => format!("strftime({}, '%Y-%m') IS DISTINCT FROM month", quote_name(column)),
        (Some(column), Some("year")) => format!("strftime({}, '%Y') IS DISTINCT FROM year", quote_name(column)),
        _ => "false".to_owned(),
    };
    columns.push(text(format!("count(*) FILTER (WHERE {other_store})")));
    columns.push(text(format!("count(*) FILTER (WHERE {other_month})")));
    format!("SELECT {} FROM ({rows}) GROUP BY {FILE_COLUMN}", columns.join(", "))
}

/// Rows and sums of every unit of every file, as DuckDB counts them.
pub(super) fn file_facts(
    engine: &Engine,
    dataset: &DatasetDefinition,
    rows: &str,
) -> Result<BTreeMap<String, BTreeMap<StoreUnit, Facts>>> {
    let unit = match dataset.unit_column() {
        None => quote_text("*"),
        Some(column) => match dataset.column(column).map(|column| column.column_type) {
            Some(ColumnType::Timestamp) => format!("CAST(epoch_us({}) AS VARCHAR)", quote_name(column)),
            _ => format!("CAST({} AS VARCHAR)", quote_name(column)),
        },
    };
    let sums = dataset.audit_sums.iter().map(|name| format!("CAST(sum({}) AS VARCHAR)", quote_name(name)));
    let keys = [FILE_COLUMN, STORE_COLUMN, &unit, "CAST(count(*) AS VARCHAR)"].map(str::to_owned);
    let columns: Vec<String> = keys.into_iter().chain(sums).collect();
    let sql = format!("SELECT {} FROM ({rows}) GROUP BY 1, 2, 3", columns.join(", "));
    let mut facts: BTreeMap<String, BTreeMap<StoreUnit, Facts>> = BTreeMap::new();
    engine.each_row(&sql, |row| {
        let cell = |index: usize| row.get(index).copied().flatten();
        let mut of_unit = Facts { rows: parsed(cell(3))?, ..Facts::default() };
        for (index, name) in dataset.audit_sums.iter().enumerate() {
            let sum = cell(4 + index).map_or(Ok(ExactDecimal::ZERO), str::parse)?;
            of_unit.sums.insert(name.clone(), sum);
        }
        let key = StoreUnit { store: cell(1).unwrap_or_default().parse()?, unit: unit_of(dataset, cell(2))? };
        facts.entry(cell(0).unwrap_or_default().to_owned()).or_default().insert(key, of_unit);
        Ok(())
    })?;
    Ok(facts)
}

/// The columns of a lake file: the store, then the dataset's.
fn lake_columns(dataset: &DatasetDefinition) -> Vec<Column> {
    let store = Column {
        name: STORE_COLUMN.to_owned(),
        column_type: ColumnType::Text,
        nullable: false,
        es: String::new(),
        en: String::new(),
        transforms: Vec::new(),
    };
    std::iter::once(store).chain(dataset.columns.iter().cloned()).collect()
}

fn unit_of(dataset: &DatasetDefinition, text: Option<&str>) -> Result<Unit> {
    let text = text.ok_or_else(|| Error::data("unit column: must not be NULL, got NULL"))?;
    let is_moment = dataset
        .unit_column()
        .and_then(|column| dataset.column(column))
        .is_some_and(|column| column.column_type == ColumnType::Timestamp);
    if !is_moment {
        return text.parse();
    }
    jiff::Timestamp::from_microsecond(parsed(Some(text))?)
        .map(Unit::Moment)
        .map_err(|error| Error::data(format!("moment: got {text}")).with_source(error))
}

fn parsed<T: std::str::FromStr>(text: Option<&str>) -> Result<T> {
    text.and_then(|text| text.parse().ok()).ok_or_else(|| Error::bug(format!("expected a number, got {text:?}")))
}

fn facts_text(facts: &Facts) -> String {
    let sums: Vec<String> = facts.sums.iter().map(|(name, sum)| format!("{name} {sum}")).collect();
    if sums.is_empty() { format!("{} rows", facts.rows) } else { format!("{} rows, {}", facts.rows, sums.join(", ")) }
}
