//! Checkpoints, time travel, vacuum and the cleaning of the log.

use futures::executor::block_on;
use jiff::SignedDuration;

use super::*;
use crate::ErrorKind;
use crate::object::{MemoryStore, list_all};

pub(super) struct World {
    pub(super) objects: MemoryStore,
    pub(super) host: Host,
    pub(super) dataset: DatasetDefinition,
}

impl World {
    pub(super) fn new() -> Self {
        let world = Self { objects: MemoryStore::new(), host: Host::new(3), dataset: dataset() };
        world.advance(SignedDuration::ZERO);
        world
    }

    pub(super) fn table(&self) -> Table<'_, MemoryStore> {
        Table::new(&self.objects, "pruebas".parse().unwrap())
    }

    pub(super) fn advance(&self, by: SignedDuration) {
        self.host.now.set(self.host.now.get().checked_add(by).unwrap());
        self.objects.set_now(self.host.now.get());
    }

    pub(super) async fn offer(&self, sequence: u64, days: &[i8]) {
        self.offer_of(1, sequence, days).await;
    }

    pub(super) async fn snapshot(&self) -> Snapshot {
        self.table().load().await.unwrap().unwrap()
    }

    pub(super) async fn rows(&self, snapshot: &Snapshot) -> BTreeMap<String, Vec<TestRow>> {
        content(&self.table(), &self.dataset, snapshot).await
    }

    pub(super) async fn offer_of(&self, store: u8, sequence: u64, days: &[i8]) {
        let row = |day: i8| (0..3).map(|id| TestRow { day, id, cents: sequence as i64 }).collect();
        let batch = TestBatch {
            store,
            position: Position { epoch: 0, sequence },
            days: days.iter().map(|day| (*day, row(*day))).collect(),
        };
        offer(&self.table(), self.host.ports(&self.objects), &self.dataset, &batch).await.unwrap();
    }

    async fn count(&self, prefix: &str) -> usize {
        list_all(&self.objects, prefix, None).await.unwrap().len()
    }
}

fn same(left: &Snapshot, right: &Snapshot) {
    assert_eq!(left.version(), right.version());
    assert_eq!((&left.protocol, &left.metadata), (&right.protocol, &right.metadata));
    let files = |snapshot: &Snapshot| -> Vec<AddFile> {
        // A checkpoint tells nothing of which entry changed data.
        snapshot.files().map(|file| AddFile { data_change: false, ..file.clone() }).collect()
    };
    assert_eq!(files(left), files(right));
}

#[test]
fn a_checkpoint_stands_for_all_entries_before_it() {
    block_on(async {
        let world = World::new();
        for sequence in 1..=5 {
            world.offer(sequence, &[sequence as i8, 20]).await;
        }
        let before = world.snapshot().await;
        assert_eq!(before.checkpoint_version(), None);
        assert_eq!(world.table().checkpoint(world.host.ports(&world.objects)).await.unwrap(), Some(5));
        assert_eq!(
            world.table().checkpoint(world.host.ports(&world.objects)).await.unwrap(),
            None,
            "it stands already"
        );
        for version in 0..=5 {
            world.objects.delete(&crate::paths::log_entry(world.table().name(), version).unwrap()).await.unwrap();
        }
        same(&world.snapshot().await, &before);
        world.offer(6, &[6, 20]).await;
        let after = world.snapshot().await;
        assert_eq!((after.version(), after.checkpoint_version()), (6, Some(5)));
        assert_eq!(world.rows(&after).await["s1"].len(), 7 * 3);
    });
}

#[test]
fn a_hint_or_checkpoint_that_lies_costs_time_and_no_truth() {
    block_on(async {
        let world = World::new();
        for sequence in 1..=4 {
            world.offer(sequence, &[sequence as i8]).await;
            if sequence % 2 == 0 {
                world.table().checkpoint(world.host.ports(&world.objects)).await.unwrap();
            }
        }
        let table = world.table();
        let truth = world.snapshot().await;
        let (hint, newest) = (table.last_checkpoint_path().unwrap(), table.checkpoint_path(4).unwrap());
        for text in ["", "{", r#"{"version":2,"size":1}"#, r#"{"version":77,"size":1}"#, r#"{"version":4,"size":1}"#] {
            world.objects.put(&hint, Bytes::from_static(text.as_bytes()).into()).await.unwrap();
            same(&world.snapshot().await, &truth);
        }
        for broken in [Bytes::from_static(b"PAR1"), Bytes::new()] {
            world.objects.put(&newest, broken.into()).await.unwrap();
            same(&world.snapshot().await, &truth);
        }
        world.objects.delete(&newest).await.unwrap();
        same(&world.snapshot().await, &truth);
    });
}

#[test]
fn a_refreshed_snapshot_is_the_same_as_a_fresh_one_and_says_what_changed() {
    block_on(async {
        let world = World::new();
        world.offer(1, &[1]).await;
        let mut snapshot = world.snapshot().await;
        for sequence in 2..=40 {
            world.offer(sequence, &[1 + (sequence % 9) as i8]).await;
        }
        let changes = world.table().refresh(&mut snapshot).await.unwrap();
        same(&snapshot, &world.snapshot().await);
        assert_eq!(changes.partitions, ["month=2026-01".to_owned()].into());
        assert!(!changes.metadata);
        assert_eq!(world.table().refresh(&mut snapshot).await.unwrap(), Changes::default());
    });
}

#[test]
fn every_kept_version_can_be_read_and_one_that_is_not_says_so() {
    block_on(async {
        let world = World::new();
        let mut then = Vec::new();
        for sequence in 1..=6 {
            world.offer(sequence, &[1, 1 + sequence as i8]).await;
            then.push(world.rows(&world.snapshot().await).await);
            if sequence == 3 {
                world.table().checkpoint(world.host.ports(&world.objects)).await.unwrap();
            }
        }
        for (version, rows) in (1..).zip(&then) {
            let snapshot = world.table().load_at(version).await.unwrap();
            assert_eq!((snapshot.version(), &world.rows(&snapshot).await), (version, rows));
        }
        let error = world.table().load_at(7).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.message().contains("got 7"), "{error}");
    });
}

#[test]
fn vacuum_takes_what_nobody_can_need_and_nothing_else() {
    block_on(async {
        let world = World::new();
        let table = world.table();
        world.offer(1, &[1, 2]).await;
        let orphan = TestBatch { store: 2, ..one_row(1) };
        encode(&table, world.host.ports(&world.objects), &world.dataset, &orphan).await.unwrap();
        let waiting = TestBatch { store: 3, ..one_row(1) };
        let record = encode(&table, world.host.ports(&world.objects), &world.dataset, &waiting).await.unwrap();
        let record = ReadyRecord { batch: waiting.id(), ..record };
        table.put_ready(&record).await.unwrap();
        world.advance(SignedDuration::from_hours(24 * 6));
        // The waiting record is a day old and expires; somebody puts it again. Day 2 alone is rewritten.
        world.offer(2, &[1]).await;
        table.put_ready(&record).await.unwrap();
        world.advance(SignedDuration::from_hours(24 * 3));
        let plan = table.vacuum_plan(world.host.now(), VACUUM_RETENTION).await.unwrap();
        let stores: Vec<bool> = plan.iter().map(|meta| meta.path.as_str().ends_with("-s2.parquet")).collect();
        assert_eq!(stores, [true], "removed three days ago, or named by a ready record, stays");
        world.advance(SignedDuration::from_hours(24 * 5));
        let plan = table.vacuum_plan(world.host.now(), VACUUM_RETENTION).await.unwrap();
        assert_eq!(plan.len(), 2, "the file removed eight days ago goes too");
        table.delete_objects(&plan).await.unwrap();
        assert_eq!(table.vacuum_plan(world.host.now(), VACUUM_RETENTION).await.unwrap(), []);
        assert_eq!(world.rows(&world.snapshot().await).await["s1"].len(), 6);
    });
}

#[test]
fn vacuum_after_a_checkpoint_still_spares_what_was_removed_lately() {
    block_on(async {
        let world = World::new();
        world.offer(1, &[1]).await;
        world.advance(SignedDuration::from_hours(24 * 30));
        world.offer(2, &[1]).await;
        world.table().checkpoint(world.host.ports(&world.objects)).await.unwrap();
        assert_eq!(world.table().vacuum_plan(world.host.now(), VACUUM_RETENTION).await.unwrap(), []);
        let older = world.table().load_at(1).await.unwrap();
        assert_eq!(world.rows(&older).await["s1"].len(), 3);
        world.advance(SignedDuration::from_hours(24 * 8));
        assert_eq!(world.table().vacuum_plan(world.host.now(), VACUUM_RETENTION).await.unwrap().len(), 1);
    });
}

#[test]
fn the_log_is_cleaned_up_to_an_old_checkpoint_and_stays_readable() {
    block_on(async {
        let world = World::new();
        for sequence in 1..=12 {
            world.offer(sequence, &[sequence as i8]).await;
            if sequence % 2 == 0 {
                world.table().checkpoint(world.host.ports(&world.objects)).await.unwrap();
            }
            world.advance(SignedDuration::from_hours(24 * 6 + 1));
        }
        let table = world.table();
        let truth = world.snapshot().await;
        let before = world.count("lake/pruebas/_delta_log/").await;
        let plan = table.log_cleanup_plan(world.host.now()).await.unwrap();
        table.delete_objects(&plan).await.unwrap();
        assert!(world.count("lake/pruebas/_delta_log/").await < before);
        same(&world.snapshot().await, &truth);
        assert!(table.load_at(8).await.is_ok(), "30 days back and a little");
        assert_eq!(table.load_at(1).await.unwrap_err().kind(), ErrorKind::Config);
        assert_eq!(table.log_cleanup_plan(world.host.now()).await.unwrap(), []);
    });
}

fn one_row(sequence: u64) -> TestBatch {
    TestBatch {
        store: 1,
        position: Position { epoch: 0, sequence },
        days: [(1, vec![TestRow { day: 1, id: 1, cents: 1 }])].into(),
    }
}

#[test]
fn ledger_and_acks_are_made_again_from_log_quarantine_and_manifests() {
    block_on(async {
        use crate::batch::{Ack, AckOutcome, QuarantineReason, QuarantineRecord};
        use crate::{ledger, paths, rebuild};
        let world = World::new();
        crate::control::publish_dataset(&world.objects, &world.dataset).await.unwrap();
        for sequence in 1..=3 {
            world.offer(sequence, &[1, sequence as i8]).await;
        }
        let with = |sequence, day: i8| TestBatch { days: [(day, Vec::new())].into(), ..one_row(sequence) };
        let (won, lost, bad, gone) = (with(3, 1), with(0, 1), with(4, 9), with(5, 8));
        for batch in [&won, &lost, &bad, &gone] {
            let manifest = batch.manifest().to_json().unwrap();
            world.objects.put(&paths::done(&batch.id()).unwrap(), manifest.into()).await.unwrap();
        }
        let record = QuarantineRecord {
            reason: QuarantineReason::SumsMismatch,
            detail: "d".into(),
            manifest_path: "inbox/x".into(),
            manifest: String::new(),
            units: Vec::new(),
            quarantined_at: world.host.now(),
            received_at: None,
        };
        let quarantined = serde_json::to_vec(&record).unwrap();
        world.objects.put(&paths::quarantine(&bad.id()).unwrap(), quarantined.into()).await.unwrap();
        let strange = ObjectPath::new("done/strange").unwrap();
        world.objects.put(&strange, Bytes::new().into()).await.unwrap();
        let rebuilt = rebuild::rebuild(&world.objects, &world.host).await.unwrap();
        assert_eq!((rebuilt.batches, rebuilt.reopened, rebuilt.unreadable), (3, vec![gone.id()], vec![strange]));
        let outcome = async |batch: &TestBatch| {
            let bytes = world.objects.get(&paths::ack(&batch.id()).unwrap()).await.unwrap().unwrap();
            let ack: Ack = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(ledger::load(&world.objects, &batch.id()).await.unwrap().unwrap().outcome, ack.outcome);
            ack.outcome
        };
        assert!(matches!(outcome(&won).await, AckOutcome::Committed { version: 3, .. }));
        assert_eq!(outcome(&lost).await, AckOutcome::Superseded);
        assert!(matches!(outcome(&bad).await, AckOutcome::Quarantined { reason: QuarantineReason::SumsMismatch, .. }));
        assert!(world.objects.get(&paths::inbox(&gone.id()).unwrap()).await.unwrap().is_some());
        assert_eq!(world.objects.get(&paths::done(&gone.id()).unwrap()).await.unwrap(), None);
    });
}

#[test]
fn a_rebuild_after_retention_makes_the_rest_again_and_reopens_nothing() {
    block_on(async {
        let world = World::new();
        let settle = async |sequence: u64| {
            world.offer(sequence, &[sequence as i8]).await;
            let batch = TestBatch { days: [(sequence as i8, Vec::new())].into(), ..one_row(sequence) };
            let manifest = batch.manifest();
            let done = crate::paths::done(&manifest.batch).unwrap();
            let landing = crate::paths::landing(&manifest.batch, manifest.month, &"a".repeat(64)).unwrap();
            world.objects.put(&done, manifest.to_json().unwrap().into()).await.unwrap();
            world.objects.put(&landing, Bytes::from_static(b"x").into()).await.unwrap();
        };
        crate::control::publish_dataset(&world.objects, &world.dataset).await.unwrap();
        settle(1).await;
        world.advance(SignedDuration::from_hours(24 * 390));
        settle(2).await;
        world.advance(SignedDuration::from_hours(24 * 20));
        let plan = crate::retention::plan(&world.objects, world.host.now()).await.unwrap();
        assert_eq!(plan.len(), 2, "the first batch's file and manifest: {plan:?}");
        crate::retention::delete(&world.objects, &plan).await.unwrap();
        let rebuilt = crate::rebuild::rebuild(&world.objects, &world.host).await.unwrap();
        assert_eq!((rebuilt.batches, rebuilt.reopened.len(), rebuilt.unreadable.len()), (1, 0, 0));
        assert_eq!(world.rows(&world.snapshot().await).await["s1"].len(), 6);
    });
}
