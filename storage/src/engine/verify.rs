//! Proves a table from its files: every one is there, is the one that was written, holds what its
//! statistics and facts say. Two readers look, and neither is the writer: DuckDB and the parquet
//! crate.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::view::{FILE_COLUMN, ViewFile, quote_name, quote_text, rows_sql};
use super::{Engine, view_files};
use crate::batch::Facts;
use crate::dataset::{Column, ColumnType, DatasetDefinition};
use crate::decimal::ExactDecimal;
use crate::delta::{AddFile, Snapshot, UnitCounter, UnitTag, read_rows};
use crate::error::{Error, Result};
use crate::hex::sha256_hex;
use crate::ids::{StoreId, TableName, Unit};
use crate::object::ObjectStore;

/// What was looked at, and what is wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerifyReport {
    pub table: TableName,
    pub version: u64,
    pub files: u64,
    pub bytes: u64,
    pub rows: u64,
    /// Units (store-days) whose facts were counted anew.
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
}

impl FindingKind {
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
        }
    }
}

/// Files that DuckDB reads in one query.
const FILES_PER_QUERY: usize = 500;

/// Verifies every file of `snapshot`. `root` is the folder of the object store; `engine` may open
/// files below it. `progress` hears of every file that is done.
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
    let mut seen: BTreeMap<(StoreId, Unit), String> = BTreeMap::new();
    let mut sound = Vec::new();
    for (index, add) in snapshot.files().enumerate() {
        let mut file = FileCheck::new(add, snapshot, dataset)?;
        for tag in &file.units {
            if let Some(other) = seen.insert((file.store.clone(), tag.unit), file.object.clone()) {
                let detail = format!("{}: must lie in one file, got {other} too", tag.unit);
                file.findings.push(Finding { kind: FindingKind::UnitTwice, path: file.object.clone(), detail });
            }
        }
        if file.check_bytes(objects, &mut report).await? {
            sound.push(file);
        } else {
            report.findings.append(&mut file.findings);
        }
        progress(index as u64 + 1);
    }
    // Statistics of a file that DuckDB cannot read are not asked for: the others' answer must come.
    let wanted: BTreeSet<&str> = sound.iter().map(|file| file.object.as_str()).collect();
    let root = std::path::absolute(root)?;
    let object = |view: &ViewFile| object_of(&root, &view.path).map(str::to_owned);
    let views = if wanted.is_empty() {
        Vec::new()
    } else {
        view_files(snapshot, dataset, &root, |view| {
            object(view).is_some_and(|object| wanted.contains(object.as_str()))
        })?
    };
    let views: BTreeMap<String, ViewFile> = views.into_iter().filter_map(|view| Some((object(&view)?, view))).collect();
    for chunk in sound.chunks_mut(FILES_PER_QUERY) {
        check_with_duckdb(engine, dataset, chunk, &views)?;
    }
    report.findings.extend(sound.into_iter().flat_map(|file| file.findings));
    report.findings.sort_by(|left, right| left.path.cmp(&right.path).then(left.kind.cmp(&right.kind)));
    Ok(report)
}

struct FileCheck<'a> {
    add: &'a AddFile,
    dataset: &'a DatasetDefinition,
    object: String,
    store: StoreId,
    units: Vec<UnitTag>,
    findings: Vec<Finding>,
}

impl<'a> FileCheck<'a> {
    fn new(add: &'a AddFile, snapshot: &Snapshot, dataset: &'a DatasetDefinition) -> Result<Self> {
        Ok(Self {
            add,
            dataset,
            object: add.object_path(snapshot.table())?.to_string(),
            store: add.store()?,
            units: add.units()?,
            findings: Vec::new(),
        })
    }

    fn find(&mut self, kind: FindingKind, detail: String) {
        self.findings.push(Finding { kind, path: self.object.clone(), detail });
    }

    /// Existence, size, hash, and what the parquet crate counts. False when there is no reading on.
    async fn check_bytes<S: ObjectStore>(&mut self, objects: &S, report: &mut VerifyReport) -> Result<bool> {
        let path = crate::object::ObjectPath::new(self.object.clone())?;
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
        Ok(self.findings.iter().all(|finding| finding.kind == FindingKind::UnitTwice))
    }

    /// Facts of every unit against its tag; units without rows are not among `counted`.
    fn check_facts(&mut self, reader: &str, counted: &BTreeMap<Unit, Facts>) {
        let rows: u64 = counted.values().map(|facts| facts.rows).sum();
        if self.add.rows().is_some_and(|wanted| wanted != rows) {
            let wanted = self.add.rows().unwrap_or(0);
            self.find(FindingKind::RowsDiffer, format!("numRecords: must be {wanted}, {reader} got {rows}"));
        }
        for tag in self.units.clone() {
            let got = counted.get(&tag.unit).cloned().unwrap_or_default();
            if !got.agrees_with(&tag.facts) {
                let (wanted, got) = (facts_text(&tag.facts), facts_text(&got));
                self.find(FindingKind::FactsDiffer, format!("{}: must be {wanted}, {reader} got {got}", tag.unit));
            }
        }
        // A file of another writer has no facts at all.
        if self.units.is_empty() {
            return;
        }
        for unit in counted.keys() {
            if !self.units.iter().any(|tag| tag.unit == *unit) {
                self.find(FindingKind::FactsDiffer, format!("{unit}: must have no rows, {reader} got some"));
            }
        }
    }

    fn check_statistics(&mut self, row: &[Option<String>]) -> Result<()> {
        let stats: Stats = match &self.add.stats {
            Some(text) => serde_json::from_str(text)
                .map_err(|error| Error::data(format!("{}: statistics", self.object)).with_source(error))?,
            None => return Ok(()),
        };
        for (index, column) in self.dataset.columns.iter().enumerate() {
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
        Ok(())
    }

    /// Rows of another store or another partition than the file's.
    fn check_places(&mut self, row: &[Option<String>]) {
        let last = row.len().saturating_sub(2);
        let count = |index: usize| {
            row.get(index).and_then(Option::as_deref).and_then(|text| text.parse().ok()).unwrap_or(0_u64)
        };
        for (index, what) in [(last, "store"), (last + 1, "month")] {
            if count(index) > 0 {
                let detail = format!("{what}: must be the partition's, got {} rows of another", count(index));
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

fn count_units(dataset: &DatasetDefinition, bytes: bytes::Bytes) -> Result<BTreeMap<Unit, Facts>> {
    let mut counter = UnitCounter::new(dataset)?;
    for batch in read_rows(bytes, &dataset.arrow_schema())? {
        counter.add(&batch?)?;
    }
    counter.finish()
}

fn check_with_duckdb(
    engine: &Engine,
    dataset: &DatasetDefinition,
    files: &mut [FileCheck<'_>],
    views: &BTreeMap<String, ViewFile>,
) -> Result<()> {
    let chosen: Vec<ViewFile> = files.iter().filter_map(|file| views.get(&file.object)).cloned().collect();
    if chosen.is_empty() {
        return Ok(());
    }
    let by_path: BTreeMap<String, String> =
        files.iter().filter_map(|file| Some((views.get(&file.object)?.path.clone(), file.object.clone()))).collect();
    let rows = rows_sql(dataset, &chosen);
    let statistics = engine.rows(&statistics_sql(dataset, &rows))?;
    let facts = file_facts(engine, dataset, &rows)?;
    for file in files {
        let of_file = |row: &&Vec<Option<String>>| {
            row.first().and_then(Option::as_deref).and_then(|path| by_path.get(path)) == Some(&file.object)
        };
        // A file without rows is no row of the answer.
        if let Some(row) = statistics.iter().find(of_file) {
            let row = row.clone();
            file.check_statistics(&row)?;
            file.check_places(&row);
        }
        let path = views.get(&file.object).map(|view| view.path.as_str()).unwrap_or_default();
        file.check_facts("DuckDB", facts.get(path).unwrap_or(&BTreeMap::new()));
    }
    Ok(())
}

/// By file: rows; nulls, least and greatest of every column; rows of another store, of another month.
fn statistics_sql(dataset: &DatasetDefinition, rows: &str) -> String {
    let text = |expression: String| format!("CAST({expression} AS VARCHAR)");
    let mut columns = vec![FILE_COLUMN.to_owned(), text("count(*)".into())];
    for column in &dataset.columns {
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
    let partitions = dataset.partition_columns();
    let other_month = match (dataset.business_date.as_deref(), partitions.iter().any(|name| name == "month")) {
        (Some(column), true) => format!("strftime({}, '%Y-%m') IS DISTINCT FROM month", quote_name(column)),
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
) -> Result<BTreeMap<String, BTreeMap<Unit, Facts>>> {
    let unit = match dataset.unit_column() {
        None => quote_text("*"),
        Some(column) => match dataset.column(column).map(|column| column.column_type) {
            Some(ColumnType::Timestamp) => format!("CAST(epoch_us({}) AS VARCHAR)", quote_name(column)),
            _ => format!("CAST({} AS VARCHAR)", quote_name(column)),
        },
    };
    let sums = dataset.audit_sums.iter().map(|name| format!("CAST(sum({}) AS VARCHAR)", quote_name(name)));
    let columns: Vec<String> =
        [FILE_COLUMN.to_owned(), unit, "CAST(count(*) AS VARCHAR)".to_owned()].into_iter().chain(sums).collect();
    let sql = format!("SELECT {} FROM ({rows}) GROUP BY 1, 2", columns.join(", "));
    let mut facts: BTreeMap<String, BTreeMap<Unit, Facts>> = BTreeMap::new();
    engine.each_row(&sql, |row| {
        let cell = |index: usize| row.get(index).copied().flatten();
        let mut of_unit = Facts { rows: parsed(cell(2))?, ..Facts::default() };
        for (index, name) in dataset.audit_sums.iter().enumerate() {
            let sum = cell(3 + index).map_or(Ok(ExactDecimal::ZERO), str::parse)?;
            of_unit.sums.insert(name.clone(), sum);
        }
        let unit = unit_of(dataset, cell(1))?;
        facts.entry(cell(0).unwrap_or_default().to_owned()).or_default().insert(unit, of_unit);
        Ok(())
    })?;
    Ok(facts)
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

fn object_of<'a>(root: &Path, path: &'a str) -> Option<&'a str> {
    path.strip_prefix(&root.display().to_string()).map(|rest| rest.trim_start_matches('/'))
}
