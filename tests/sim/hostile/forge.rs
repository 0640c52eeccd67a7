//! Files and manifests of the hostile store: sound ones, from which the bad ones are made.

use std::sync::Arc;

use arrow_array::{ArrayRef, Date32Array, Decimal128Array, Int64Array, RecordBatch};
use bytes::Bytes;
use jiff::civil::{Date, date};
use parquet::arrow::ArrowWriter;
use ribera_storage::batch::{AgentFacts, CONTRACT_VERSION, Facts, FileFacts, Manifest, UnitFacts};
use ribera_storage::hex::sha256_hex;
use ribera_storage::ids::Position;
use ribera_storage::{BatchId, ExactDecimal, Month, Unit, paths};

use super::HostileStore;
use crate::sim::cloud::timestamp;

/// A row as the file has it: day, ticket, thousandths, cents.
pub type Line = (Date, i64, i128, i128);

/// A batch that says what its file holds.
pub struct Forged {
    pub manifest: Manifest,
    pub file: Bytes,
}

impl HostileStore {
    /// Rows of `day` under tickets of their own.
    pub(super) fn lines(&self, day: Date) -> Vec<Line> {
        let line = |_| {
            let ticket = self.ticket.replace(self.ticket.get() + 1);
            (day, ticket, i128::from(self.chance.between(1, 9_000)), i128::from(self.chance.between(1, 90_000_000)))
        };
        (0..self.chance.below(5)).map(line).collect()
    }

    /// A sound batch of `day`, called closed and proven.
    pub(super) fn sound(&self, batch: BatchId, day: Date) -> Forged {
        let lines = self.lines(day);
        self.of_lines(batch, &[day], &lines)
    }

    pub(super) fn of_lines(&self, batch: BatchId, days: &[Date], lines: &[Line]) -> Forged {
        let file = parquet_of(lines);
        let now = timestamp(self.cloud.sim.now());
        let units: Vec<UnitFacts> = days
            .iter()
            .map(|day| {
                let facts = facts_of(lines.iter().filter(|line| line.0 == *day));
                UnitFacts {
                    unit: Unit::Day(*day),
                    file: facts.clone(),
                    audit: Some(facts),
                    closed: true,
                    extracted_at: now,
                }
            })
            .collect();
        let month = days.first().map(|day| Month::of(*day));
        let sha256 = sha256_hex(&file);
        let path = paths::landing(&batch, month, &sha256).expect("a path").to_string();
        let manifest = Manifest {
            contract: CONTRACT_VERSION,
            batch,
            dataset_version: 1,
            month,
            file: FileFacts { path, bytes: file.len() as u64, sha256, rows: lines.len() as u64 },
            units,
            agent: AgentFacts {
                version: "0".to_owned(),
                journal_id: "mala".to_owned(),
                extraction_started_at: now,
                extraction_finished_at: now,
            },
        };
        Forged { manifest, file }
    }

    /// Puts the file and then the manifest, as an agent does.
    pub(super) fn send(&self, forged: &Forged) -> bool {
        self.manifests.borrow_mut().push(forged.manifest.clone());
        self.put(&forged.manifest.file.path, forged.file.clone())
            && self.put_manifest(&forged.manifest.batch, json(&forged.manifest))
    }

    /// The same with other bytes as the file, which the manifest names by their true hash.
    pub(super) fn send_with_file(&self, mut forged: Forged, file: Vec<u8>) -> bool {
        forged.file = file.into();
        name_file(&mut forged.manifest, &forged.file);
        self.send(&forged)
    }

    /// Puts a manifest that some edit of its JSON has made wrong, and its file.
    pub(super) fn send_edited(&self, forged: &Forged, edit: impl FnOnce(&mut serde_json::Value)) -> bool {
        let mut value = serde_json::to_value(&forged.manifest).expect("JSON");
        edit(&mut value);
        self.put(&forged.manifest.file.path, forged.file.clone())
            && self.put_manifest(&forged.manifest.batch, value.to_string().into_bytes())
    }

    pub(super) fn position(&self) -> Position {
        Position { epoch: self.epoch.get(), sequence: self.sequence.get() }
    }
}

pub fn json(manifest: &Manifest) -> Vec<u8> {
    serde_json::to_vec(manifest).expect("JSON")
}

/// States bytes and hash of `file`, and the path that follows from them.
pub fn name_file(manifest: &mut Manifest, file: &[u8]) {
    manifest.file.sha256 = sha256_hex(file);
    manifest.file.bytes = file.len() as u64;
    let path = paths::landing(&manifest.batch, manifest.month, &manifest.file.sha256).expect("a path");
    manifest.file.path = path.to_string();
}

pub fn facts_of<'a>(lines: impl Iterator<Item = &'a Line>) -> Facts {
    let (mut rows, mut quantity, mut total) = (0, 0, 0);
    for line in lines {
        (rows, quantity, total) = (rows + 1, quantity + line.2, total + line.3);
    }
    let sums = [("cantidad", ExactDecimal::new(quantity, 3)), ("total", ExactDecimal::new(total, 2))];
    Facts { rows, sums: sums.map(|(name, sum)| (name.to_owned(), sum)).into() }
}

pub fn parquet_of(lines: &[Line]) -> Bytes {
    let decimal = |values: Vec<i128>, scale| {
        Arc::new(Decimal128Array::from(values).with_precision_and_scale(18, scale).expect("a type")) as ArrayRef
    };
    let day_number = |day: Date| (day - date(1970, 1, 1)).get_days();
    write(vec![
        ("fecha", Arc::new(lines.iter().map(|line| Some(day_number(line.0))).collect::<Date32Array>())),
        ("ticket", Arc::new(lines.iter().map(|line| Some(line.1)).collect::<Int64Array>())),
        ("cantidad", decimal(lines.iter().map(|line| line.2).collect(), 3)),
        ("total", decimal(lines.iter().map(|line| line.3).collect(), 2)),
    ])
}

/// A Parquet file of any columns.
pub fn write(columns: Vec<(&str, ArrayRef)>) -> Bytes {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| {
        let nullable = array.null_count() > 0;
        (name, array, nullable)
    }))
    .expect("columns of one length");
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("memory");
    writer.into_inner().expect("memory").into()
}
