//! The table as a whole: against a model, under faults, over time.

use std::cell::Cell;
use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;

use super::files::rows;
use super::*;
use crate::batch::{AgentFacts, CONTRACT_VERSION, Facts, FileFacts, Manifest, UnitFacts};
use crate::dataset::DatasetDefinition;
use crate::decimal::ExactDecimal;
use crate::error::Result;
use crate::ids::{BatchId, Month, Position, Unit};
use crate::object::{ObjectPath, ObjectStore, PutOutcome};
use crate::ports::{Clock, Ports, Random};

mod batches;
mod burst;
mod checkpoints;
mod foreign;
mod keeping;
mod merging;
mod model;
mod rewriting;

/// A clock that stands until it is set, and a seeded random.
struct Host {
    now: Cell<Timestamp>,
    random: Cell<u64>,
}

impl Host {
    fn new(seed: u64) -> Self {
        Self { now: Cell::new("2026-02-01T12:00:00Z".parse().unwrap()), random: Cell::new(seed) }
    }

    fn ports<'a, S>(&'a self, objects: &'a S) -> Ports<'a, S> {
        Ports { objects, clock: self, random: self }
    }
}

impl Clock for Host {
    fn now(&self) -> Timestamp {
        self.now.get()
    }
}

impl Random for Host {
    fn next_u64(&self) -> u64 {
        let next = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(next);
        (next ^ (next >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    }
}

/// A small dataset with every type, by day.
fn dataset() -> DatasetDefinition {
    DatasetDefinition::from_toml(
        r#"
        name = "pruebas"
        version = 1
        kind = "daily"
        business_date = "fecha"
        key = ["id"]
        audit_sums = ["total", "piezas"]
        titles = { es = "Pruebas", en = "Trials" }
        column = [
            { name = "fecha", type = "date", nullable = false },
            { name = "id", type = "text", nullable = false },
            { name = "total", type = "decimal(18,2)", nullable = false },
            { name = "piezas", type = "int32" },
            { name = "hora", type = "timestamp" },
            { name = "abierto", type = "bool" },
            { name = "corto", type = "int16" },
            { name = "largo", type = "int64" },
            { name = "ancho", type = "decimal(30,6)" },
            { name = "peso", type = "float64" },
            { name = "bytes", type = "binary" },
        ]
        "#,
    )
    .unwrap()
}

/// A row: its day (see [`unit`]), its key, its amount in cents.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct TestRow {
    day: i8,
    id: u32,
    cents: i64,
}

/// A batch by what it says.
#[derive(Debug, Clone)]
struct TestBatch {
    store: u8,
    position: Position,
    /// Rows of each day; a day without rows is a fact too.
    days: BTreeMap<i8, Vec<TestRow>>,
}

impl TestBatch {
    fn id(&self) -> BatchId {
        BatchId {
            store: format!("s{}", self.store).parse().unwrap(),
            dataset: "pruebas".parse().unwrap(),
            position: self.position,
        }
    }

    fn rows(&self) -> Vec<TestRow> {
        self.days.values().flatten().cloned().collect()
    }

    fn manifest(&self) -> Manifest {
        let units = self.days.iter().map(|(day, rows)| UnitFacts {
            unit: unit(*day),
            file: facts(rows),
            audit: Some(facts(rows)),
            closed: true,
            extracted_at: "2026-02-01T00:00:00Z".parse().unwrap(),
        });
        let rows = self.rows().len() as u64;
        Manifest {
            contract: CONTRACT_VERSION,
            batch: self.id(),
            dataset_version: 1,
            month: Some(Month::of(date(*self.days.keys().next().unwrap_or(&1)))),
            file: FileFacts { path: "landing/x".into(), bytes: 1, sha256: "0".repeat(64), rows },
            units: units.collect(),
            agent: AgentFacts {
                version: "0".into(),
                journal_id: "j".into(),
                extraction_started_at: "2026-02-01T00:00:00Z".parse().unwrap(),
                extraction_finished_at: "2026-02-01T00:00:00Z".parse().unwrap(),
            },
        }
    }
}

/// Days of January 2026; 32 is the first of February.
fn unit(day: i8) -> Unit {
    Unit::Day(date(day))
}

fn date(day: i8) -> jiff::civil::Date {
    jiff::civil::date(2026, 1, 1).checked_add(jiff::Span::new().days(day - 1)).unwrap()
}

fn facts(rows: &[TestRow]) -> Facts {
    let sums = [
        ("total".to_owned(), ExactDecimal::new(rows.iter().map(|row| i128::from(row.cents)).sum(), 2)),
        ("piezas".to_owned(), ExactDecimal::new(rows.iter().filter(|row| row.id % 3 != 0).count() as i128, 0)),
    ];
    Facts { rows: rows.len() as u64, sums: sums.into() }
}

/// The rows in the dataset's Arrow schema, with NULLs where the type allows them.
fn record_batch(dataset: &DatasetDefinition, rows: &[TestRow]) -> arrow_array::RecordBatch {
    use std::sync::Arc;

    use arrow_array::{
        ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int16Array, Int32Array,
        Int64Array, StringArray, TimestampMicrosecondArray,
    };
    let odd = |row: &TestRow| !row.id.is_multiple_of(3);
    let micros =
        |row: &TestRow| 1_767_225_600_000_000 + i64::from(row.day) * 86_400_000_000 + i64::from(row.id) * 1_000_001;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Date32Array::from_iter_values(rows.iter().map(|row| 20453 + i32::from(row.day)))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| format!("clave-ñ-{:06}", row.id)))),
        Arc::new(
            Decimal128Array::from_iter_values(rows.iter().map(|row| i128::from(row.cents)))
                .with_precision_and_scale(18, 2)
                .unwrap(),
        ),
        Arc::new(rows.iter().map(|row| odd(row).then_some(1)).collect::<Int32Array>()),
        Arc::new(
            rows.iter()
                .map(|row| odd(row).then(|| micros(row)))
                .collect::<TimestampMicrosecondArray>()
                .with_timezone("UTC"),
        ),
        Arc::new(rows.iter().map(|row| odd(row).then_some(row.id % 2 == 0)).collect::<BooleanArray>()),
        Arc::new(rows.iter().map(|row| odd(row).then_some(-5)).collect::<Int16Array>()),
        Arc::new(rows.iter().map(|row| odd(row).then_some(i64::MAX - i64::from(row.id))).collect::<Int64Array>()),
        Arc::new(
            rows.iter()
                .map(|row| odd(row).then_some(-123_456_789_012_345_678_901_234_567_i128 + i128::from(row.cents)))
                .collect::<Decimal128Array>()
                .with_precision_and_scale(30, 6)
                .unwrap(),
        ),
        Arc::new(rows.iter().map(|row| odd(row).then_some(f64::from(row.id) / 3.0)).collect::<Float64Array>()),
        Arc::new(rows.iter().map(|row| odd(row).then_some(vec![0_u8, 255])).collect::<BinaryArray>()),
    ];
    let mut columns = columns;
    let schema = dataset.arrow_schema();
    columns.extend(
        schema.fields()[columns.len()..].iter().map(|field| arrow_array::new_null_array(field.data_type(), rows.len())),
    );
    let columns = columns.into_iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| arrow_cast::cast(&column, field.data_type()).unwrap()).collect();
    arrow_array::RecordBatch::try_new(schema.clone(), columns).unwrap()
}

/// Encodes a batch, puts its files and gives its ready record, as `ingest` would.
async fn encode<S: ObjectStore>(
    table: &Table<'_, S>,
    ports: Ports<'_, S>,
    dataset: &DatasetDefinition,
    batch: &TestBatch,
) -> Result<ReadyRecord> {
    let manifest = batch.manifest();
    let tags = manifest.units.iter().map(|facts| UnitTag::new(&manifest.batch, facts, ports.clock.now())).collect();
    let rows = record_batch(dataset, &batch.rows());
    let mut writer = LakeWriter::new(dataset, tags, LakeWriterOptions::default())?;
    writer.write(&rows)?;
    let files = writer.finish()?;
    let partition = dataset.partition(manifest.month);
    let files = table.put_files(ports, &partition, &files).await?;
    ReadyRecord::new(dataset, &manifest, "0".repeat(64), files, ports.clock.now())
}

/// Encode, put ready, commit: one call of `ingest`.
async fn offer<S: ObjectStore>(
    table: &Table<'_, S>,
    ports: Ports<'_, S>,
    dataset: &DatasetDefinition,
    batch: &TestBatch,
) -> Result<CommitReport> {
    let record = encode(table, ports, dataset, batch).await?;
    table.put_ready(&record).await?;
    table.commit_records(ports, dataset, std::slice::from_ref(&record)).await
}

/// Everything a reader sees: rows by store. Also checks what must hold of every file: that it
/// exists, that statistics and tags are true, that a unit lies in one file only.
async fn content<S: ObjectStore>(
    table: &Table<'_, S>,
    dataset: &DatasetDefinition,
    snapshot: &Snapshot,
) -> BTreeMap<String, Vec<TestRow>> {
    use arrow_array::cast::AsArray;
    use arrow_array::types::{Date32Type, Decimal128Type};
    let mut snapshot = snapshot.clone();
    table.load_facts(&mut snapshot, None, None).await.unwrap();
    let mut content: BTreeMap<String, Vec<TestRow>> = BTreeMap::new();
    let mut seen = std::collections::BTreeSet::new();
    for file in snapshot.files() {
        let bytes = table.read_file(file).await.expect("a referenced file exists");
        assert_eq!(bytes.len() as u64, file.size);
        let mut counter = UnitCounter::new(dataset).unwrap();
        let mut rows = 0;
        for batch in rows::read(bytes, &dataset.lake_schema()).unwrap() {
            let batch = batch.unwrap();
            rows += batch.num_rows() as u64;
            counter.add(&batch).unwrap();
            let (stores, days) = (batch.column(0).as_string::<i32>(), batch.column(1).as_primitive::<Date32Type>());
            let (ids, cents) = (batch.column(2).as_string::<i32>(), batch.column(3).as_primitive::<Decimal128Type>());
            for row in 0..batch.num_rows() {
                content.entry(stores.value(row).to_owned()).or_default().push(TestRow {
                    day: i8::try_from(days.value(row) - 20453).unwrap(),
                    id: ids.value(row).rsplit('-').next().unwrap().parse().unwrap(),
                    cents: i64::try_from(cents.value(row)).unwrap(),
                });
            }
        }
        assert_eq!(file.rows(), Some(rows));
        let counted = counter.finish().unwrap();
        let tags = file.units().unwrap();
        assert!(counted.keys().all(|key| tags.iter().any(|tag| tag.key() == *key)));
        for tag in tags {
            assert!(file.stores().may_hold(tag.store.as_str()), "{tag:?} in {}", file.path);
            assert!(seen.insert(tag.key()), "{} lies in two files", tag.key());
            assert!(counted.get(&tag.key()).cloned().unwrap_or_default().agrees_with(&tag.facts), "{tag:?}");
        }
    }
    content.values_mut().for_each(|rows| rows.sort());
    content
}
