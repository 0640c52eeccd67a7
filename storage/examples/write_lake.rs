//! Writes lake tables into a folder, for other engines to read: `write_lake FOLDER`. Prints what
//! they must find, as JSON.
//!
//! - `sencilla`: three commits, no checkpoint.
//! - `completa`: every type with extremes and NULLs, an empty day alone in its file, days replaced
//!   in part, a checkpoint, columns added and widened after it, a compaction, another checkpoint.
#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::sync::Arc;

use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int16Array, Int32Array,
    Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use futures::executor::block_on;
use jiff::Timestamp;
use ribera_storage::batch::{Facts, Manifest};
use ribera_storage::dataset::DatasetDefinition;
use ribera_storage::delta::{
    LakeWriter, LakeWriterOptions, Ports, ReadyRecord, Table, UnitCounter, UnitTag, compaction_plan,
};
use ribera_storage::ids::Unit;
use ribera_storage::object::FolderStore;
use ribera_storage::ports::{Clock, Random};
use serde_json::json;

const DATASET: &str = r#"
name = "completa"
version = 1
kind = "daily"
business_date = "fecha"
key = ["id"]
audit_sums = ["total", "corto"]
titles = { es = "Completa", en = "Complete" }
column = [
    { name = "fecha", type = "date", nullable = false },
    { name = "id", type = "text", nullable = false },
    { name = "total", type = "decimal(18,2)", nullable = false },
    { name = "corto", type = "int16" },
    { name = "entero", type = "int32" },
    { name = "largo", type = "int64" },
    { name = "chico", type = "decimal(9,3)" },
    { name = "ancho", type = "decimal(38,10)" },
    { name = "momento", type = "timestamp" },
    { name = "abierto", type = "bool" },
    { name = "peso", type = "float64" },
    { name = "bytes", type = "binary" },
]
"#;

struct Host(Cell<u64>);

impl Clock for Host {
    fn now(&self) -> Timestamp {
        "2026-03-05T12:00:00Z".parse().unwrap()
    }
}

impl Random for Host {
    fn next_u64(&self) -> u64 {
        let next = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(next);
        (next ^ (next >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    }
}

fn main() {
    let folder = std::env::args().nth(1).unwrap_or_else(|| {
        eprintln!("usage: write_lake FOLDER");
        std::process::exit(2);
    });
    let objects = FolderStore::open(folder, "example").unwrap();
    let host = Host(Cell::new(1));
    let ports = Ports { clock: &host, random: &host };
    let expected = block_on(async {
        let simple = write_simple(&objects, ports).await;
        let complete = write_complete(&objects, ports).await;
        json!({ "sencilla": simple, "completa": complete })
    });
    println!("{expected}");
}

async fn write_simple(objects: &FolderStore, ports: Ports<'_>) -> serde_json::Value {
    let dataset = dataset("sencilla", &[]);
    let table = Table::new(objects, "sencilla".parse().unwrap());
    for sequence in 1..=3 {
        offer(&table, ports, &dataset, "s1", sequence, &[(sequence as i8, 100)]).await;
    }
    summary(&table, &dataset).await
}

async fn write_complete(objects: &FolderStore, ports: Ports<'_>) -> serde_json::Value {
    let table = Table::new(objects, "completa".parse().unwrap());
    let first = dataset("completa", &[]);
    for sequence in 1..=30 {
        let day = 1 + (sequence % 20) as i8;
        let store = if sequence % 2 == 0 { "s1" } else { "tienda-2_b" };
        offer(&table, ports, &first, store, sequence, &[(day, 50), (day + 1, 0), (day + 2, 25)]).await;
    }
    offer(&table, ports, &first, "vacia", 1, &[(5, 0)]).await;
    table.checkpoint(ports).await.unwrap().unwrap();
    let at_checkpoint = summary(&table, &first).await;
    // A nullable column more, and int16 widened to int32.
    let second = dataset("completa", &["nota"]);
    offer(&table, ports, &second, "s1", 40, &[(3, 10), (4, 20)]).await;
    offer(&table, ports, &second, "tienda-2_b", 41, &[(28, 7)]).await;
    let evolved = summary(&table, &second).await;
    let snapshot = table.load().await.unwrap().unwrap();
    for group in compaction_plan(&snapshot, jiff::civil::date(2026, 2, 1)).unwrap() {
        assert!(table.compact(ports, &second, &group).await.unwrap());
    }
    let compacted = summary(&table, &second).await;
    table.checkpoint(ports).await.unwrap().unwrap();
    json!({ "at_checkpoint": at_checkpoint, "evolved": evolved, "compacted": compacted })
}

fn dataset(name: &str, added: &[&str]) -> DatasetDefinition {
    let mut text = DATASET.replace("\"completa\"", &format!("{name:?}"));
    if !added.is_empty() {
        text = text.replace("\"corto\", type = \"int16\"", "\"corto\", type = \"int32\"");
    }
    for column in added {
        text = text.replace("column = [", &format!("column = [\n    {{ name = {column:?}, type = \"text\" }},"));
    }
    DatasetDefinition::from_toml(&text).unwrap()
}

/// A batch of days of January 2026 with so many rows each.
async fn offer(
    table: &Table<'_, FolderStore>,
    ports: Ports<'_>,
    dataset: &DatasetDefinition,
    store: &str,
    sequence: u64,
    days: &[(i8, usize)],
) {
    let rows = rows(dataset, sequence, days);
    let mut counter = UnitCounter::new(dataset).unwrap();
    counter.add(&rows).unwrap();
    let counted = counter.finish().unwrap();
    let units: Vec<_> = days
        .iter()
        .map(|(day, _)| {
            let unit = Unit::Day(jiff::civil::date(2026, 1, *day));
            let facts = counted.get(&unit).cloned().unwrap_or_else(Facts::default);
            json!({ "unit": unit, "file": facts, "audit": facts, "closed": true, "extracted_at": "2026-02-01T00:00:00Z" })
        })
        .collect();
    let manifest = json!({
        "contract": 1, "kind": "batch", "mode": "replace", "dataset_version": 1, "month": "2026-01",
        "batch": { "store": store, "dataset": dataset.name, "epoch": 0, "sequence": sequence },
        "file": { "path": "landing/none", "bytes": 1, "sha256": "0".repeat(64), "rows": rows.num_rows() },
        "units": units,
        "agent": {
            "version": "0", "journal_id": "example",
            "extraction_started_at": "2026-02-01T00:00:00Z", "extraction_finished_at": "2026-02-01T00:00:01Z",
        },
    });
    let manifest = Manifest::from_json(manifest.to_string().as_bytes()).unwrap();
    let tags = manifest.units.iter().map(|facts| UnitTag::new(manifest.batch.position, facts)).collect();
    let mut writer = LakeWriter::new(dataset, tags, LakeWriterOptions::default()).unwrap();
    writer.write(&rows).unwrap();
    let partition = dataset.partition(&manifest.batch.store, manifest.month);
    let mut files = Vec::new();
    for file in writer.finish().unwrap() {
        files.push(table.put_file(ports, &partition, &file).await.unwrap());
    }
    let record = ReadyRecord::new(table.name(), dataset, &manifest, "0".repeat(64), files, ports.clock.now());
    table.put_ready(&record).await.unwrap();
    let report = table.commit_records(ports, dataset, &[record]).await.unwrap();
    assert!(report.version.is_some());
}

/// Extremes and NULLs in turn.
fn rows(dataset: &DatasetDefinition, sequence: u64, days: &[(i8, usize)]) -> RecordBatch {
    let rows: Vec<(i8, usize)> = days.iter().flat_map(|(day, rows)| (0..*rows).map(|row| (*day, row))).collect();
    let some = |row: usize| !row.is_multiple_of(5);
    let nines = 10_i128.pow(38) - 1;
    let column = |name: &str| -> ArrayRef {
        let rows = rows.iter().copied();
        match name {
            "fecha" => Arc::new(Date32Array::from_iter_values(rows.map(|(day, _)| 20453 + i32::from(day)))),
            "id" => Arc::new(StringArray::from_iter_values(rows.map(|(day, row)| {
                format!("{}-{sequence}-{day}-{row}", if row % 7 == 0 { "ñandú".repeat(9) } else { "z".into() })
            }))),
            "total" => {
                decimal(rows.map(|(_, row)| Some(99_999_999_999_999_i128 - row as i128 * 1_000_000_000_001)), 18, 2)
            }
            "corto" if dataset.column("nota").is_none() => Arc::new(
                rows.map(|(_, row)| some(row).then_some(if row % 2 == 0 { i16::MIN } else { i16::MAX }))
                    .collect::<Int16Array>(),
            ),
            "corto" => Arc::new(rows.map(|(_, row)| some(row).then_some(100_000 + row as i32)).collect::<Int32Array>()),
            "entero" => {
                Arc::new(rows.map(|(_, row)| some(row).then_some(i32::MAX - row as i32)).collect::<Int32Array>())
            }
            "largo" => {
                Arc::new(rows.map(|(_, row)| some(row).then_some(i64::MIN + row as i64)).collect::<Int64Array>())
            }
            "chico" => decimal(rows.map(|(_, row)| some(row).then_some(-999_999_999 + row as i128)), 9, 3),
            "ancho" => {
                decimal(rows.map(|(_, row)| some(row).then_some(if row % 2 == 0 { nines } else { -nines })), 38, 10)
            }
            "momento" => Arc::new(
                rows.map(|(day, row)| {
                    some(row).then_some(1_767_225_600_123_456 + i64::from(day) * 86_400_000_000 + row as i64)
                })
                .collect::<TimestampMicrosecondArray>()
                .with_timezone("UTC"),
            ),
            "abierto" => Arc::new(rows.map(|(_, row)| some(row).then_some(row % 2 == 0)).collect::<BooleanArray>()),
            "peso" => Arc::new(
                rows.map(|(_, row)| some(row).then_some(if row == 1 { f64::NAN } else { row as f64 / 3.0 }))
                    .collect::<Float64Array>(),
            ),
            "bytes" => {
                Arc::new(rows.map(|(_, row)| some(row).then_some(vec![0_u8, 255, row as u8])).collect::<BinaryArray>())
            }
            _ => Arc::new(rows.map(|(_, row)| some(row).then_some("nota \"con comillas\"\n")).collect::<StringArray>()),
        }
    };
    let columns = dataset.columns.iter().map(|one| column(&one.name)).collect();
    RecordBatch::try_new(dataset.arrow_schema(), columns).unwrap()
}

fn decimal(values: impl Iterator<Item = Option<i128>>, precision: u8, scale: i8) -> ArrayRef {
    Arc::new(values.collect::<Decimal128Array>().with_precision_and_scale(precision, scale).unwrap())
}

/// What the log says of the table: version, files, rows, sums.
async fn summary(table: &Table<'_, FolderStore>, dataset: &DatasetDefinition) -> serde_json::Value {
    let snapshot = table.load().await.unwrap().unwrap();
    let mut all = Facts::default();
    let mut empty_units = 0;
    for unit in snapshot.units() {
        let (_, tag) = unit.unwrap();
        empty_units += u32::from(tag.facts.rows == 0);
        all.add(&tag.facts).unwrap();
    }
    assert_eq!(dataset.name.as_str(), table.name().as_str());
    json!({
        "version": snapshot.version(), "files": snapshot.file_count(), "rows": all.rows, "sums": all.sums,
        "empty_units": empty_units,
    })
}
