//! Ingest as a whole, over an object store in memory.

use bytes::Bytes;
use futures::executor::block_on;
use jiff::civil::{Date, date};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use ribera_storage::batch::{Ack, AckOutcome, Manifest, QuarantineReason};
use ribera_storage::delta::Table;
use ribera_storage::hex::sha256_hex;
use ribera_storage::object::{MemoryStore, ObjectPath, list_all};
use ribera_storage::store::StoreDefinition;
use ribera_storage::{BatchId, ObjectStore, control, paths};

use super::validate::value_text;
use super::*;
use crate::fixture::*;
use crate::quarantine;
use ribera_storage::ports::Host;

mod bad_input;
mod hostile;
mod repetition;
mod requests;

const NOW: &str = "2026-02-01T12:00:00Z";

type TestHost<S = MemoryStore> = Host<S, FixedClock, SeededRandom>;

/// An object store with `ventas` and the stores s1 to s3 declared.
async fn world() -> TestHost {
    let objects = MemoryStore::new();
    objects.set_now(NOW.parse().unwrap());
    let host = Host::new(objects, FixedClock::at(NOW), SeededRandom::default());
    control::publish_dataset(&host.objects, &ventas()).await.unwrap();
    control::publish_stores(&host.objects, &["s1", "s2", "s3"].map(store)).await.unwrap();
    host
}

fn store(id: &str) -> StoreDefinition {
    StoreDefinition { opened: Some(date(2026, 1, 1)), ..StoreDefinition::new(id.parse().unwrap(), id, "UTC") }
}

/// A batch as its agent puts it.
#[derive(Debug, Clone)]
struct Sent {
    manifest: Manifest,
    file: Bytes,
}

impl Sent {
    /// `count` lines on each of `days`; their amounts tell the sequence.
    fn new(batch: &str, days: &[Date], count: i32) -> Self {
        let id: BatchId = batch.parse().unwrap();
        let mut all: Vec<Line> = days.iter().flat_map(|day| lines(id.store.as_str(), *day, count)).collect();
        for line in &mut all {
            line.total = i128::from(id.position.epoch) * 1_000_000 + i128::from(id.position.sequence);
        }
        let file = parquet_of(&all);
        Self { manifest: manifest(batch, days, &all, &file), file }
    }

    fn inbox(&self) -> ObjectPath {
        paths::inbox(&self.manifest.batch).unwrap()
    }

    /// The manifest states `sha256` of the file, and a path that fits it, whatever the file is.
    fn state_sha256(&mut self, sha256: String) {
        let manifest = &mut self.manifest;
        manifest.file.path = paths::landing(&manifest.batch, manifest.month, &sha256).unwrap().to_string();
        manifest.file.sha256 = sha256;
    }

    async fn put_file<S: ObjectStore>(&self, objects: &S) {
        let path = ObjectPath::new(self.manifest.file.path.clone()).unwrap();
        objects.put(&path, self.file.clone().into()).await.unwrap();
    }

    async fn put_manifest<S: ObjectStore>(&self, objects: &S) {
        objects.put_if_absent(&self.inbox(), self.manifest.to_json().unwrap().into()).await.unwrap();
    }

    async fn put<S: ObjectStore>(&self, objects: &S) {
        self.put_file(objects).await;
        self.put_manifest(objects).await;
    }
}

fn settings() -> IngestSettings {
    IngestSettings::default()
}

async fn ingest<S: ObjectStore>(host: &TestHost<S>, sent: &[&Sent]) -> Vec<Outcome> {
    let paths: Vec<ObjectPath> = sent.iter().map(|sent| sent.inbox()).collect();
    let report = ingest_event(host.ports(), &settings(), &paths).await.unwrap();
    report.outcomes.into_iter().map(|one| one.outcome).collect()
}

async fn swept<S: ObjectStore>(host: &TestHost<S>) -> Vec<Outcome> {
    let report = sweep(host.ports(), &settings(), &SweepBudget::default()).await.unwrap();
    assert!(!report.more);
    report.report.outcomes.into_iter().map(|one| one.outcome).collect()
}

async fn ack_of<S: ObjectStore>(objects: &S, batch: &BatchId) -> Option<Ack> {
    let bytes = objects.get(&paths::ack(batch).unwrap()).await.unwrap()?;
    Some(serde_json::from_slice(&bytes).unwrap())
}

async fn names<S: ObjectStore>(objects: &S, prefix: &str) -> Vec<String> {
    list_all(objects, prefix, None).await.unwrap().into_iter().map(|meta| meta.path.to_string()).collect()
}

/// Every row of the lake as text, sorted: equal for equal content.
async fn content<S: ObjectStore>(objects: &S) -> Vec<String> {
    let table = Table::new(objects, "ventas".parse().unwrap());
    let Some(snapshot) = table.load().await.unwrap() else { return Vec::new() };
    let mut rows = Vec::new();
    for file in snapshot.files() {
        let path = ObjectPath::new(format!("lake/ventas/{}", file.path.replace("%3D", "="))).unwrap();
        let bytes = objects.get(&path).await.unwrap().expect("every referenced file exists");
        for batch in ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap() {
            let batch = batch.unwrap();
            for row in 0..batch.num_rows() {
                let shown: Vec<String> = batch.columns().iter().map(|column| text_of(column, row)).collect();
                rows.push(shown.join("|"));
            }
        }
    }
    rows.sort();
    rows
}

fn text_of(array: &arrow_array::ArrayRef, row: usize) -> String {
    use arrow_array::cast::AsArray;
    match array.as_string_opt::<i32>() {
        Some(texts) if arrow_array::Array::is_valid(texts, row) => texts.value(row).to_owned(),
        _ => value_text(array, row),
    }
}

#[test]
fn a_batch_goes_from_the_inbox_to_the_lake_and_is_acknowledged() {
    block_on(async {
        let host = world().await;
        let sent = Sent::new("s1/ventas/000000-0000000001", &[DAY, DAY.tomorrow().unwrap()], 500);
        sent.put(&host.objects).await;
        assert_eq!(ingest(&host, &[&sent]).await, [Outcome::Committed { version: 1, rows: 1000 }]);
        assert_eq!(content(&host.objects).await.len(), 1000);
        assert_eq!(names(&host.objects, "inbox/").await, Vec::<String>::new());
        assert_eq!(names(&host.objects, "state/ready/").await, Vec::<String>::new());
        assert_eq!(names(&host.objects, "done/").await, ["done/s1/ventas/000000-0000000001.json"]);
        let batch = &sent.manifest.batch;
        let ack = ack_of(&host.objects, batch).await.unwrap();
        assert_eq!(ack.manifest_sha256, sha256_hex(&sent.manifest.to_json().unwrap()));
        let AckOutcome::Committed { rows, units, .. } = ack.outcome else { panic!("{:?}", ack.outcome) };
        assert_eq!((rows, units.len()), (1000, 2));
        assert!(units[0].1.agrees_with(&sent.manifest.units[0].file));
        let ledger = ribera_storage::ledger::load(&host.objects, batch).await.unwrap().unwrap();
        assert_eq!((ledger.rows, ledger.bytes), (1000, sent.file.len() as u64));
    });
}

#[test]
fn many_batches_of_an_event_are_one_commit_and_a_bad_one_holds_up_none() {
    block_on(async {
        let host = world().await;
        let good: Vec<Sent> = (1..=20)
            .map(|number| {
                Sent::new(&format!("s{}/ventas/000000-{number:010}", number % 3 + 1), &[date(2026, 1, number)], 10)
            })
            .collect();
        let mut bad = Sent::new("s1/ventas/000000-0000000099", &[DAY], 10);
        bad.file = Bytes::from_static(b"not parquet at all");
        for sent in good.iter().chain([&bad]) {
            sent.put(&host.objects).await;
        }
        let all: Vec<&Sent> = good.iter().chain([&bad]).collect();
        let outcomes = ingest(&host, &all).await;
        assert!(outcomes[..20].iter().all(|one| matches!(one, Outcome::Committed { version: 1, .. })), "{outcomes:?}");
        assert!(matches!(outcomes[20], Outcome::Quarantined { reason: QuarantineReason::FileHashMismatch, .. }));
        assert_eq!(content(&host.objects).await.len(), 200);
    });
}

#[test]
fn a_later_batch_of_a_day_wins_and_an_older_one_changes_nothing() {
    block_on(async {
        let host = world().await;
        let [first, second, older] = [(2, 30), (3, 20), (1, 10)]
            .map(|(sequence, count)| Sent::new(&format!("s1/ventas/000000-{sequence:010}"), &[DAY], count));
        for (sent, expected, rows) in
            [(&first, "committed", 30), (&second, "committed", 20), (&older, "superseded", 20)]
        {
            sent.put(&host.objects).await;
            let outcome = ingest(&host, &[sent]).await.remove(0);
            assert_eq!(matches!(outcome, Outcome::Committed { .. }), expected == "committed", "{outcome:?}");
            assert_eq!(content(&host.objects).await.len(), rows);
        }
        assert_eq!(ack_of(&host.objects, &older.manifest.batch).await.unwrap().outcome, AckOutcome::Superseded);
    });
}

#[test]
fn a_day_without_rows_is_committed_as_audited_empty() {
    block_on(async {
        let host = world().await;
        let empty = Sent::new("s1/ventas/000000-0000000001", &[DAY], 0);
        empty.put(&host.objects).await;
        assert!(matches!(ingest(&host, &[&empty]).await[0], Outcome::Committed { rows: 0, .. }));
        let coverage = crate::coverage::compute(host.ports(), &"ventas".parse().unwrap()).await.unwrap();
        let states: Vec<_> = coverage.stores.iter().map(|store| store.calendar.state(DAY)).collect();
        use crate::coverage::DayState::{Complete, Missing};
        assert_eq!(states, [Complete, Missing, Missing]);
    });
}

#[test]
fn a_day_is_not_complete_while_a_newer_batch_with_other_facts_waits() {
    block_on(async {
        let host = world().await;
        let first = Sent::new("s1/ventas/000000-0000000001", &[DAY], 5);
        first.put(&host.objects).await;
        ingest(&host, &[&first]).await;
        let state = async || {
            let coverage = crate::coverage::compute(host.ports(), &"ventas".parse().unwrap()).await.unwrap();
            coverage.stores[0].calendar.state(DAY)
        };
        use crate::coverage::DayState::{Complete, Partial};
        assert_eq!(state().await, Complete);
        // The same rows once more are no difference; others are; older ones will not win.
        let mut same = first.clone();
        same.manifest.batch = "s1/ventas/000000-0000000002".parse().unwrap();
        same.put_manifest(&host.objects).await;
        assert_eq!(state().await, Complete);
        Sent::new("s1/ventas/000000-0000000000", &[DAY], 9).put_manifest(&host.objects).await;
        assert_eq!(state().await, Complete);
        let other = Sent::new("s1/ventas/000000-0000000003", &[DAY], 6);
        other.put(&host.objects).await;
        assert_eq!(state().await, Partial);
        ingest(&host, &[&other]).await;
        assert_eq!(state().await, Complete);
    });
}

#[test]
fn a_manifest_of_an_older_dataset_version_is_migrated_to_the_latest() {
    block_on(async {
        let host = world().await;
        let old = Sent::new("s1/ventas/000000-0000000001", &[DAY], 5);
        let mut wider = ventas();
        wider.version = 2;
        let extra = ribera_storage::dataset::Column { name: "caja".to_owned(), ..wider.columns[6].clone() };
        wider.columns.insert(3, extra);
        wider.columns[4].column_type = "int64".parse().unwrap();
        control::publish_dataset(&host.objects, &wider).await.unwrap();
        old.put(&host.objects).await;
        assert!(matches!(ingest(&host, &[&old]).await[0], Outcome::Committed { rows: 5, .. }));
        let rows = content(&host.objects).await;
        assert!(rows[0].contains("|t00000|NULL|0|"), "{}", rows[0]);
        let mut unknown = Sent::new("s1/ventas/000000-0000000002", &[DAY], 5);
        unknown.manifest.dataset_version = 9;
        unknown.put(&host.objects).await;
        let outcome = ingest(&host, &[&unknown]).await.remove(0);
        assert!(
            matches!(outcome, Outcome::Quarantined { reason: QuarantineReason::UnknownDatasetVersion, .. }),
            "{outcome:?}"
        );
    });
}

#[test]
fn a_sweep_stops_at_its_budget_and_says_that_there_is_more() {
    block_on(async {
        let host = world().await;
        for number in 1..=100 {
            let sent = Sent::new(&format!("s1/ventas/000000-{number:010}"), &[date(2026, 1, number % 28 + 1)], 1);
            sent.put(&host.objects).await;
        }
        let budget = SweepBudget { manifests_max: 10, seconds_max: 60 };
        let first = sweep(host.ports(), &settings(), &budget).await.unwrap();
        assert!(first.more && first.report.outcomes.len() == 64, "{}", first.report.outcomes.len());
        let second = sweep(host.ports(), &settings(), &SweepBudget::default()).await.unwrap();
        assert!(!second.more && second.report.outcomes.len() == 36);
        assert_eq!(content(&host.objects).await.len(), 28);
    });
}
