//! A lake in a temporary folder, filled through landing, inbox and a sweep.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;

use arrow_array::{
    ArrayRef, Date32Array, Decimal128Array, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use jiff::civil::{Date, date};
use parquet::arrow::ArrowWriter;
use ribera::ports::{SystemClock, SystemRandom};
use ribera_core::ingest::{IngestSettings, Outcome, SweepBudget, SweepReport, sweep};
use ribera_storage::batch::{AgentFacts, CONTRACT_VERSION, Facts, FileFacts, Manifest, UnitFacts};
use ribera_storage::control;
use ribera_storage::dataset::{ColumnType, DatasetDefinition, shipped};
use ribera_storage::hex::sha256_hex;
use ribera_storage::object::{FolderStore, ObjectPath};
use ribera_storage::ports::Host;
use ribera_storage::store::StoreDefinition;
use ribera_storage::{BatchId, ExactDecimal, Month, ObjectStore, Unit, paths};
use serde_json::Value;

pub struct Lake {
    folder: tempfile::TempDir,
    root: PathBuf,
    pub objects: FolderStore,
}

/// A business day of a batch.
#[derive(Clone, Copy)]
pub struct Day {
    pub date: Date,
    pub rows: i32,
    /// Added to the quantity of every row, in thousandths: tells one extraction from another.
    pub extra: i128,
    /// The source's own audit agrees; else it counted a row more.
    pub proven: bool,
}

impl Day {
    pub fn new(date: Date, rows: i32) -> Self {
        Self { date, rows, extra: 0, proven: true }
    }
}

/// Days `from` to `to` of January 2026 with 10 rows each.
pub fn january(from: i8, to: i8) -> Vec<Day> {
    (from..=to).map(|day| Day::new(date(2026, 1, day), 10)).collect()
}

impl Lake {
    /// With `ventas` published and the given stores open from 2026-01-01 to 2026-01-31.
    pub fn new(stores: &[&str]) -> Self {
        Self::below("", stores)
    }

    /// Likewise, with the object store below folders of these names.
    pub fn below(folders: &str, stores: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join(folders).join("store");
        std::fs::create_dir_all(&root).unwrap();
        let objects = FolderStore::open(&root, "test").unwrap().without_sync();
        let lake = Self { folder, root, objects };
        lake.publish(&ventas());
        for store in stores {
            lake.store(&format!(
                "id = \"{store}\"\nname = \"Tienda {store}\"\ntime_zone = \"America/New_York\"\n\
                 opened = \"2026-01-01\"\nclosed = \"2026-01-31\""
            ));
        }
        lake
    }

    pub fn root(&self) -> PathBuf {
        self.root.clone()
    }

    /// Moves the object store below folders of these names.
    pub fn move_below(&mut self, folders: &str) {
        let root = self.folder.path().join(folders).join("store");
        std::fs::create_dir_all(root.parent().unwrap()).unwrap();
        std::fs::rename(&self.root, &root).unwrap();
        self.objects = FolderStore::open(&root, "test").unwrap().without_sync();
        self.root = root;
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn store(&self, toml: &str) {
        let store = StoreDefinition::from_toml(toml).unwrap();
        self.wait(control::publish_store(&self.objects, &store)).unwrap();
    }

    pub fn publish(&self, dataset: &DatasetDefinition) {
        self.wait(control::publish_dataset(&self.objects, dataset)).unwrap();
    }

    /// Uploads a batch of `ventas` and ingests it; it must be committed.
    pub fn batch(&self, id: &str, days: &[Day]) {
        self.batch_of(&ventas(), id, days);
    }

    pub fn batch_of(&self, dataset: &DatasetDefinition, id: &str, days: &[Day]) {
        let outcome = self.upload(dataset, id, days, |file| file);
        assert!(matches!(outcome, Outcome::Committed { .. }), "{id}: {outcome:?}");
    }

    /// Uploads a batch whose file `damage` changes on the way, and ingests it.
    pub fn upload(
        &self,
        dataset: &DatasetDefinition,
        id: &str,
        days: &[Day],
        damage: impl Fn(Vec<u8>) -> Vec<u8>,
    ) -> Outcome {
        let batch: BatchId = id.parse().unwrap();
        self.deliver(dataset, id, days, damage);
        let report = self.sweep();
        report.report.outcomes.into_iter().find(|one| one.batch.as_ref() == Some(&batch)).unwrap().outcome
    }

    /// Ingests whatever waits.
    pub fn sweep(&self) -> SweepReport {
        let host = Host::new(&self.objects, SystemClock, SystemRandom);
        self.wait(sweep(host.ports(), &IngestSettings::default(), &SweepBudget::default())).unwrap()
    }

    /// Uploads a batch and leaves it to whoever ingests; its manifest's path.
    pub fn deliver(
        &self,
        dataset: &DatasetDefinition,
        id: &str,
        days: &[Day],
        damage: impl Fn(Vec<u8>) -> Vec<u8>,
    ) -> ObjectPath {
        let batch: BatchId = id.parse().unwrap();
        let file = parquet(dataset, batch.store.as_str(), days);
        let manifest = manifest(dataset, &batch, days, &file);
        let landing = ObjectPath::new(manifest.file.path.clone()).unwrap();
        let inbox = paths::inbox(&batch).unwrap();
        self.wait(async {
            self.objects.put(&landing, damage(file).into()).await.unwrap();
            self.objects.put_if_absent(&inbox, manifest.to_json().unwrap().into()).await.unwrap();
        });
        inbox
    }

    /// Runs `ribera` with these words.
    pub fn run(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_ribera"))
            .args(words)
            .env("RIBERA_LAKE", self.root())
            .env("RIBERA_LANG", "en")
            .env("NO_COLOR", "1")
            .env("RIBERA_CACHE", private_folder().join("components"))
            .current_dir(self.folder.path())
            .output()
            .unwrap()
    }

    /// The JSON answer and the exit code.
    pub fn json(&self, words: &[&str]) -> (Value, i32) {
        let output = self.run(&[words, &["--json"]].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        let value = serde_json::from_str(&text)
            .unwrap_or_else(|_| panic!("{words:?}: {text}{}", String::from_utf8_lossy(&output.stderr)));
        (value, output.status.code().unwrap())
    }

    /// What a person sees, and the exit code.
    pub fn text(&self, words: &[&str]) -> (String, i32) {
        let output = self.run(words);
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
        (text, output.status.code().unwrap())
    }

    /// Changes the lines of `ventas`' log that add a file of `store`; at least one must change.
    pub fn edit_log(&self, store: &str, edit: impl Fn(&str) -> String) {
        let mut edited = 0;
        let is_entry = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json");
        for entry in self.files("lake/ventas/_delta_log").into_iter().filter(is_entry) {
            let text = std::fs::read_to_string(&entry).unwrap();
            let lines = text.lines().map(|line| {
                let adds = line.contains("\"add\"") && line.contains(&format!("-{store}.parquet"));
                if adds { edit(line) } else { line.to_owned() }
            });
            let changed = lines.collect::<Vec<_>>().join("\n") + "\n";
            edited += usize::from(changed != text);
            std::fs::write(&entry, changed).unwrap();
        }
        assert!(edited > 0, "the entry was found and changed");
    }

    /// Deletes the lake files that hold rows of `store` alone.
    pub fn remove_files_of(&self, store: &str) {
        let files = self.files("lake/ventas");
        let own: Vec<&PathBuf> =
            files.iter().filter(|path| path.to_string_lossy().ends_with(&format!("-{store}.parquet"))).collect();
        assert!(!own.is_empty());
        own.into_iter().for_each(|path| std::fs::remove_file(path).unwrap());
    }

    /// The first cell of the first row of a query.
    pub fn value(&self, sql: &str) -> Value {
        let (answer, code) = self.json(&["sql", sql]);
        assert_eq!(code, 0, "{sql}");
        answer["rows"][0].as_object().unwrap().values().next().unwrap().clone()
    }

    /// Every object below a folder of the object store, in order.
    pub fn files(&self, below: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.root().join(below)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { found.push(path) }
            }
        }
        found.sort();
        found
    }

    pub fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }
}

/// A folder for compiled components, which are trusted only where nobody else can write: cargo's, or where that
/// lies below `/tmp`, one of the user's cache.
pub fn private_folder() -> PathBuf {
    let cargo = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let closed = |folder: &std::path::Path| std::fs::metadata(folder).unwrap().permissions().mode() & 0o022 == 0;
    if cargo.ancestors().all(closed) {
        return cargo;
    }
    let cache = PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/ribera/tests");
    std::fs::create_dir_all(&cache).unwrap();
    cache
}

pub fn ventas() -> DatasetDefinition {
    shipped("ventas").unwrap().unwrap()
}

fn parquet(dataset: &DatasetDefinition, store: &str, days: &[Day]) -> Vec<u8> {
    let rows: Vec<(Day, i32)> = days.iter().flat_map(|day| (0..day.rows).map(|row| (*day, row))).collect();
    let number = |day: Date| (day - date(1970, 1, 1)).get_days();
    let text = |of: &dyn Fn(i32) -> Option<String>| -> ArrayRef {
        Arc::new(rows.iter().map(|(_, row)| of(*row)).collect::<StringArray>())
    };
    let columns = dataset.columns.iter().map(|column| -> ArrayRef {
        match (column.name.as_str(), column.column_type) {
            (name, ColumnType::Text) if Some(name) == dataset.store_column.as_deref() => {
                text(&|_| Some(store.to_owned()))
            }
            ("ticket_id", _) => text(&|row| Some(format!("t{row:05}"))),
            ("producto_id", _) => text(&|row| Some(format!("product {}", row % 3))),
            ("cliente_id", _) => text(&|_| None),
            (name, ColumnType::Text) => text(&|row| Some(format!("{name} {row}"))),
            (_, ColumnType::Date) => {
                Arc::new(rows.iter().map(|(day, _)| Some(number(day.date))).collect::<Date32Array>())
            }
            (_, ColumnType::Int32) => Arc::new(rows.iter().map(|_| Some(1)).collect::<Int32Array>()),
            (_, ColumnType::Timestamp) => Arc::new(
                // 17:00 UTC: noon in New York's winter.
                rows.iter()
                    .map(|(day, _)| Some((i64::from(number(day.date)) * 24 + 17) * 3_600_000_000))
                    .collect::<TimestampMicrosecondArray>()
                    .with_timezone("UTC"),
            ),
            (name, ColumnType::Decimal { precision, scale }) => {
                let values: Decimal128Array = rows.iter().map(|(day, row)| Some(value(name, day, *row))).collect();
                Arc::new(values.with_precision_and_scale(precision, i8::try_from(scale).unwrap()).unwrap())
            }
            (name, other) => panic!("no values for {name} {other}"),
        }
    });
    let schema = dataset.arrow_schema();
    let batch = RecordBatch::try_new(schema.clone(), columns.collect()).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

/// Unscaled.
pub fn value(column: &str, day: &Day, row: i32) -> i128 {
    match column {
        "cantidad" => 1000 + day.extra,
        "total" => 100 + i128::from(row),
        "precio_unitario" => 10_001 + i128::from(row),
        "descuento" => 0,
        other => i128::try_from(other.len()).unwrap() * 100 + i128::from(row),
    }
}

fn manifest(dataset: &DatasetDefinition, batch: &BatchId, days: &[Day], file: &[u8]) -> Manifest {
    let month = Some(Month::of(days[0].date));
    let sha256 = sha256_hex(file);
    let units = days.iter().map(|day| {
        let sum = |column: &String| {
            let Some(ColumnType::Decimal { scale, .. }) = dataset.column(column).map(|column| column.column_type)
            else {
                panic!("{column} is no decimal")
            };
            let total = (0..day.rows).map(|row| value(column, day, row)).sum();
            (column.clone(), ExactDecimal::new(total, scale))
        };
        let facts =
            Facts { rows: u64::try_from(day.rows).unwrap(), sums: dataset.audit_sums.iter().map(sum).collect() };
        let audit = Facts { rows: facts.rows + u64::from(!day.proven), ..facts.clone() };
        UnitFacts {
            unit: Unit::Day(day.date),
            file: facts,
            audit: Some(audit),
            closed: true,
            extracted_at: "2026-02-01T12:00:00Z".parse().unwrap(),
        }
    });
    Manifest {
        contract: CONTRACT_VERSION,
        batch: batch.clone(),
        dataset_version: dataset.version,
        month,
        file: FileFacts {
            path: paths::landing(batch, month, &sha256).unwrap().to_string(),
            bytes: file.len() as u64,
            sha256,
            rows: days.iter().map(|day| u64::try_from(day.rows).unwrap()).sum(),
        },
        units: units.collect(),
        agent: AgentFacts {
            version: "0.1.0".to_owned(),
            journal_id: "j1".to_owned(),
            extraction_started_at: "2026-02-01T12:00:00Z".parse().unwrap(),
            extraction_finished_at: "2026-02-01T12:00:01Z".parse().unwrap(),
        },
    }
}
