//! What the agent writes, ingest takes: the two choose and limit Parquet's encodings independently.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::{
    ArrayRef, Date32Array, Decimal128Array, Int32Array, RecordBatch, TimestampMicrosecondArray, new_null_array,
};
use bytes::Bytes;
use jiff::Timestamp;
use jiff::civil::{Date, date};
use ribera_agent::encode::batch_file::BatchFile;
use ribera_agent::host::FolderDisk;
use ribera_agent::ports::NoFailPoints;
use ribera_core::ingest::{self, IngestSettings, Outcome};
use ribera_storage::batch::{Facts, Manifest, UnitFacts};
use ribera_storage::dataset::{DatasetDefinition, shipped};
use ribera_storage::ids::{BatchId, Position, Unit};
use ribera_storage::object::{MemoryStore, ObjectPath, ObjectStore};
use ribera_storage::ports::Host;
use ribera_storage::ports::{Clock, Random};
use ribera_storage::store::StoreDefinition;
use ribera_storage::{ExactDecimal, control, paths};
use ribera_tests::contract::replace_manifest;

const DAY: Date = date(2026, 1, 5);
const ROWS: usize = 250_000;

struct Now;

impl Clock for Now {
    fn now(&self) -> Timestamp {
        "2026-01-06T04:00:00Z".parse().unwrap()
    }
}

struct Counter(std::cell::Cell<u64>);

impl Random for Counter {
    fn next_u64(&self) -> u64 {
        self.0.set(self.0.get() + 1);
        self.0.get().wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
}

/// Every ticket, product and customer different, and longer than any dictionary takes.
fn text(prefix: &str, rows: std::ops::Range<usize>) -> ArrayRef {
    let mut values = StringBuilder::new();
    rows.for_each(|row| {
        values.append_value(format!("{prefix}-{:016x}", (row as u64).wrapping_mul(0x2545_F491_4F6C_DD1D)))
    });
    Arc::new(values.finish())
}

fn batch(dataset: &DatasetDefinition, rows: std::ops::Range<usize>) -> RecordBatch {
    let count = rows.len();
    let days = DAY.duration_since(date(1970, 1, 1)).as_hours() / 24;
    let opening = DAY.to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp().as_microsecond();
    let columns = dataset.columns.iter().map(|column| -> ArrayRef {
        let kind = column.column_type.arrow();
        match column.name.as_str() {
            "fecha" => Arc::new(Date32Array::from(vec![days as i32; count])),
            "ubicacion_id" => Arc::new(arrow_array::StringArray::from(vec!["017"; count])),
            "ticket_id" | "producto_id" | "cliente_id" => text(&column.name, rows.clone()),
            "linea" => Arc::new(Int32Array::from(vec![1; count])),
            "vendido_en" => {
                let moments = rows.clone().map(|row| opening + row as i64 * 100_000);
                Arc::new(TimestampMicrosecondArray::from_iter_values(moments).with_timezone("UTC"))
            }
            "cantidad" | "precio_unitario" | "total" => {
                Arc::new(Decimal128Array::from(vec![1_000; count]).with_data_type(kind))
            }
            _ => new_null_array(&kind, count),
        }
    });
    RecordBatch::try_new(dataset.arrow_schema(), columns.collect()).unwrap()
}

fn manifest(dataset: &DatasetDefinition, file: &[u8]) -> Manifest {
    let batch = BatchId {
        store: "017".parse().unwrap(),
        dataset: dataset.name.clone(),
        position: Position { epoch: 0, sequence: 1 },
    };
    let sum = |scale| ExactDecimal::new(1_000 * ROWS as i128, scale);
    let facts = Facts {
        rows: ROWS as u64,
        sums: BTreeMap::from([("cantidad".to_owned(), sum(3)), ("total".to_owned(), sum(2))]),
    };
    let unit = Unit::Day(DAY);
    let units =
        vec![UnitFacts { unit, audit: Some(facts.clone()), file: facts, closed: true, extracted_at: Now.now() }];
    replace_manifest(dataset, batch, units, file).unwrap()
}

#[test]
fn an_agents_file_whose_text_never_repeats_is_taken_by_ingest() {
    let dataset = shipped("ventas").unwrap().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let disk = FolderDisk::open(folder.path()).unwrap();
    let name = "ventas.parquet".to_owned();
    let mut file = BatchFile::create(&disk, &NoFailPoints, dataset.arrow_schema(), name, 1 << 30, ROWS as u64).unwrap();
    for first in (0..ROWS).step_by(8192) {
        file.write(&batch(&dataset, first..ROWS.min(first + 8192))).unwrap();
    }
    let spooled = file.finish(&[]).unwrap();
    let bytes = Bytes::from(std::fs::read(folder.path().join(&spooled.name)).unwrap());
    let manifest = manifest(&dataset, &bytes);
    assert_eq!(manifest.file.sha256, spooled.sha256);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let outcomes = runtime.block_on(async {
        let objects = MemoryStore::new();
        objects.set_now(Now.now());
        let store =
            StoreDefinition::from_toml("id = \"017\"\nname = \"Uno\"\ntime_zone = \"Europe/Madrid\"\n").unwrap();
        control::publish_store(&objects, &store).await.unwrap();
        let landing = ObjectPath::new(manifest.file.path.clone()).unwrap();
        objects.put(&landing, bytes.into()).await.unwrap();
        let inbox = paths::inbox(&manifest.batch).unwrap();
        objects.put(&inbox, manifest.to_json().unwrap().into()).await.unwrap();
        let host = Host::new(objects, Now, Counter(std::cell::Cell::new(1)));
        ingest::ingest_event(host.ports(), &IngestSettings::default(), &[inbox]).await.unwrap().outcomes
    });
    assert!(
        matches!(outcomes[0].outcome, Outcome::Committed { rows, .. } if rows == ROWS as u64),
        "{:?}",
        outcomes[0].outcome
    );
}
