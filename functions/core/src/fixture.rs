//! Sales batches as an agent would make them, for tests.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, Date32Array, Decimal128Array, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow_schema::{Schema, SchemaRef};
use bytes::Bytes;
use jiff::civil::{Date, date};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use ribera_storage::batch::{AgentFacts, CONTRACT_VERSION, Facts, FileFacts, Manifest, UnitFacts};
use ribera_storage::dataset::{DatasetDefinition, shipped};
use ribera_storage::hex::sha256_hex;
use ribera_storage::{BatchId, ExactDecimal, Month, Unit, paths};

/// A line of a ticket.
#[derive(Debug, Clone)]
pub struct Line {
    pub day: Date,
    pub store: String,
    pub ticket: String,
    pub line: i32,
    /// Thousandths.
    pub quantity: i128,
    /// Hundredths.
    pub total: i128,
}

pub const DAY: Date = date(2026, 1, 10);

pub fn ventas() -> DatasetDefinition {
    shipped("ventas").unwrap().unwrap()
}

/// `count` lines of `store` on `day`.
pub fn lines(store: &str, day: Date, count: i32) -> Vec<Line> {
    (0..count)
        .map(|index| Line {
            day,
            store: store.to_owned(),
            ticket: format!("t{:05}", index / 3),
            line: index % 3,
            quantity: 1000 * i128::from(index % 5 + 1),
            total: 100 + i128::from(index),
        })
        .collect()
}

/// The columns of `ventas`, as plain arrays.
pub fn record_batch(lines: &[Line]) -> RecordBatch {
    let schema = ventas().arrow_schema();
    RecordBatch::try_new(schema, columns(lines)).unwrap()
}

pub fn columns(lines: &[Line]) -> Vec<ArrayRef> {
    let text = |of: &dyn Fn(&Line) -> String| {
        Arc::new(lines.iter().map(|line| Some(of(line))).collect::<StringArray>()) as ArrayRef
    };
    let decimal = |of: &dyn Fn(&Line) -> i128, scale: i8| {
        let values: Decimal128Array = lines.iter().map(|line| Some(of(line))).collect();
        Arc::new(values.with_precision_and_scale(18, scale).unwrap()) as ArrayRef
    };
    vec![
        Arc::new(lines.iter().map(|line| Some(day_number(line.day))).collect::<Date32Array>()),
        text(&|line| line.store.clone()),
        text(&|line| line.ticket.clone()),
        Arc::new(lines.iter().map(|line| Some(line.line)).collect::<Int32Array>()),
        Arc::new(
            lines
                .iter()
                .map(|line| Some(i64::from(day_number(line.day)) * 86_400_000_000))
                .collect::<TimestampMicrosecondArray>()
                .with_timezone("UTC"),
        ),
        text(&|line| format!("product {}", line.line)),
        Arc::new(lines.iter().map(|_| None::<&str>).collect::<StringArray>()),
        decimal(&|line| line.quantity, 3),
        decimal(&|line| line.total * 100, 4),
        decimal(&|_| 0, 2),
        decimal(&|line| line.total, 2),
    ]
}

pub fn day_number(day: Date) -> i32 {
    day.since((jiff::Unit::Day, date(1970, 1, 1))).unwrap().get_days()
}

pub fn parquet(schema: &SchemaRef, batches: &[RecordBatch]) -> Bytes {
    let properties =
        WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::try_new(1).unwrap())).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(schema), Some(properties)).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.into_inner().unwrap().into()
}

pub fn parquet_of(lines: &[Line]) -> Bytes {
    parquet(&ventas().arrow_schema(), &[record_batch(lines)])
}

/// Any columns, all of `schema`.
pub fn parquet_with(schema: Schema, columns: Vec<ArrayRef>) -> Bytes {
    let schema = Arc::new(schema);
    parquet(&schema, &[RecordBatch::try_new(Arc::clone(&schema), columns).unwrap()])
}

pub fn facts(lines: &[Line]) -> Facts {
    let total = |of: &dyn Fn(&Line) -> i128, scale| ExactDecimal::new(lines.iter().map(of).sum(), scale);
    Facts {
        rows: lines.len() as u64,
        sums: [
            ("cantidad".to_owned(), total(&|line| line.quantity, 3)),
            ("total".to_owned(), total(&|line| line.total, 2)),
        ]
        .into(),
    }
}

/// A manifest that tells the truth about `file`: `days` are its units, each closed and audited.
pub fn manifest(batch: &str, days: &[Date], lines: &[Line], file: &Bytes) -> Manifest {
    let batch: BatchId = batch.parse().unwrap();
    let month = Some(Month::of(days[0]));
    let sha256 = sha256_hex(file);
    let units = days.iter().map(|day| {
        let of_day: Vec<Line> = lines.iter().filter(|line| line.day == *day).cloned().collect();
        UnitFacts {
            unit: Unit::Day(*day),
            file: facts(&of_day),
            audit: Some(facts(&of_day)),
            closed: true,
            extracted_at: "2026-02-01T00:00:00Z".parse().unwrap(),
        }
    });
    Manifest {
        contract: CONTRACT_VERSION,
        file: FileFacts {
            path: paths::landing(&batch, month, &sha256).unwrap().to_string(),
            bytes: file.len() as u64,
            sha256,
            rows: lines.len() as u64,
        },
        batch,
        dataset_version: 1,
        month,
        units: units.collect(),
        agent: AgentFacts {
            version: "0.1.0".to_owned(),
            journal_id: "j1".to_owned(),
            extraction_started_at: "2026-02-01T00:00:00Z".parse().unwrap(),
            extraction_finished_at: "2026-02-01T00:00:01Z".parse().unwrap(),
        },
    }
}

/// A clock that a test sets.
#[derive(Debug, Clone)]
pub struct FixedClock(std::sync::Arc<std::sync::Mutex<jiff::Timestamp>>);

impl FixedClock {
    pub fn at(text: &str) -> Self {
        Self(std::sync::Arc::new(std::sync::Mutex::new(text.parse().unwrap())))
    }

    pub fn set(&self, now: jiff::Timestamp) {
        *self.0.lock().unwrap() = now;
    }

    pub fn advance(&self, seconds: i64) {
        *self.0.lock().unwrap() += jiff::SignedDuration::from_secs(seconds);
    }
}

impl ribera_storage::ports::Clock for FixedClock {
    fn now(&self) -> jiff::Timestamp {
        *self.0.lock().unwrap()
    }
}

/// The same names in the same order, every run.
#[derive(Debug, Clone, Default)]
pub struct SeededRandom(std::sync::Arc<std::sync::atomic::AtomicU64>);

impl ribera_storage::ports::Random for SeededRandom {
    fn next_u64(&self) -> u64 {
        let count = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        (count + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}
