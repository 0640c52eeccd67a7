//! Large checkpoints are read by parts and written row group by row group: what is known of a table is the same
//! as of one that is read whole.

use std::cell::RefCell;
use std::ops::Range;

use futures::executor::block_on;
use proptest::prelude::*;

use super::*;
use crate::delta::action::{self, Action, AddFile};
use crate::delta::log::checkpoint::{CheckpointBounds, Wanted};
use crate::delta::log::path;
use crate::ids::StoreId;
use crate::object::{MemoryStore, ObjectMeta, Part, PutBody};

const SMALL: CheckpointBounds = CheckpointBounds { group_rows_max: 4, whole_bytes_max: 0 };

/// A file by its month (1 to 4), its stores and a number.
#[derive(Debug, Clone)]
struct TestFile {
    month: i8,
    stores: Vec<u8>,
    number: u32,
}

impl TestFile {
    fn add(&self, host: &Host) -> AddFile {
        let month = [("month".to_owned(), format!("2026-{:02}", self.month))];
        let units: Vec<UnitTag> = self.stores.iter().map(|store| self.unit(*store)).collect();
        let one = (units.len() == 1).then(|| units[0].store.clone());
        let mut add = AddFile {
            path: path::data_file(&month, &format!("{:032x}", self.number), one.as_ref()),
            partition_values: month.iter().map(|(name, value)| (name.clone(), Some(value.clone()))).collect(),
            size: 1 + u64::from(self.number),
            modification_time: host.now().as_millisecond(),
            data_change: false,
            stats: Some(format!(r#"{{"numRecords":{}}}"#, self.number)),
            tags: None,
            facts: LoadedFacts::default(),
        };
        add.set_text(tags::encode(&units).unwrap());
        add
    }

    fn unit(&self, store: u8) -> UnitTag {
        UnitTag {
            store: store_id(store),
            unit: Unit::Day(jiff::civil::date(2026, self.month, 1 + (self.number % 28) as i8)),
            position: Position { epoch: 0, sequence: 1 + u64::from(self.number) },
            audit: None,
            facts: facts(&[]),
            closed: true,
            extracted_at: "2026-02-01T00:00:00Z".parse().unwrap(),
            received_at: "2026-02-01T00:00:00Z".parse().unwrap(),
        }
    }
}

fn store_id(store: u8) -> StoreId {
    format!("s{store}").parse().unwrap()
}

/// What an entry does: adds files, removes some that stand.
type TestEntry = (Vec<(i8, Vec<u8>)>, Vec<prop::sample::Index>);

fn entries() -> impl Strategy<Value = Vec<TestEntry>> {
    let stores = prop_oneof![
        3 => (0_u8..6).prop_map(|store| vec![store]),
        1 => prop::collection::btree_set(0_u8..6, 2..5).prop_map(|stores| stores.into_iter().collect()),
    ];
    let adds = prop::collection::vec((1_i8..5, stores), 0..8);
    prop::collection::vec((adds, prop::collection::vec(any::<prop::sample::Index>(), 0..3)), 1..9)
}

/// A table whose entries are put one by one.
struct Log {
    objects: MemoryStore,
    host: Host,
    standing: Vec<AddFile>,
    number: u32,
    version: u64,
}

impl Log {
    async fn new() -> Self {
        let log = Self { objects: MemoryStore::new(), host: Host::new(1), standing: Vec::new(), number: 0, version: 0 };
        log.table().load_or_create(log.host.ports(&log.objects), &dataset()).await.unwrap();
        log
    }

    fn table(&self) -> Table<'_, MemoryStore> {
        let mut table = Table::new(&self.objects, "pruebas".parse().unwrap());
        table.bounds.checkpoints = SMALL;
        table
    }

    async fn put(&mut self, (adds, removes): &TestEntry) {
        let mut actions = Vec::new();
        for index in removes {
            if !self.standing.is_empty() {
                let file = self.standing.swap_remove(index.index(self.standing.len()));
                let remove = file.removed(self.host.now(), true);
                actions.push(Action { remove: Some(remove), ..Action::default() });
            }
        }
        for (month, stores) in adds {
            self.number += 1;
            let add = TestFile { month: *month, stores: stores.clone(), number: self.number }.add(&self.host);
            self.standing.push(add.clone());
            actions.push(Action { add: Some(add), ..Action::default() });
        }
        self.version += 1;
        let entry = crate::paths::log_entry(&"pruebas".parse().unwrap(), self.version).unwrap();
        self.objects.put(&entry, action::to_lines(&actions).unwrap().into()).await.unwrap();
    }

    async fn checkpoint(&self) -> Option<u64> {
        self.table().checkpoint(self.host.ports(&self.objects)).await.unwrap()
    }

    /// The paths of files that may hold rows of a store, by the entries alone.
    fn expected(&self, month: i8, store: u8) -> Vec<String> {
        let partition = format!("month=2026-{month:02}/");
        let holds =
            |file: &&AddFile| file.path.starts_with(&partition) && file.stores().may_hold(store_id(store).as_str());
        let mut paths: Vec<String> = self.standing.iter().filter(holds).map(|file| file.path.clone()).collect();
        paths.sort();
        paths
    }

    /// A snapshot in which only the files of that store and month were asked for gives them.
    async fn check(&self, month: i8, store: u8) {
        let mut snapshot = self.table().load_partial().await.unwrap().unwrap();
        self.ask(&mut snapshot, month, store).await;
        assert_eq!(found(&snapshot, month, store), self.expected(month, store), "month {month} of store {store}");
    }

    /// The same of every month, for whoever asks for units alone.
    async fn check_everywhere(&self, store: u8) {
        let mut snapshot = self.table().load_to_read_stores().await.unwrap().unwrap();
        self.table().read_stores(&mut snapshot, [store_id(store)].into()).await.unwrap();
        let files = snapshot.store_files(&store_id(store)).unwrap();
        let mut paths: Vec<&str> = files.into_iter().map(|file| file.path.as_str()).collect();
        paths.sort_unstable();
        let mut expected: Vec<String> = (1..13).flat_map(|month| self.expected(month, store)).collect();
        expected.sort_unstable();
        assert_eq!(paths, expected, "store {store}");
    }

    async fn ask(&self, snapshot: &mut PartialSnapshot, month: i8, store: u8) {
        let mut wanted = Wanted::default();
        wanted.add_store(format!("month=2026-{month:02}"), &store_id(store));
        self.table().read_partial(snapshot, &wanted).await.unwrap();
    }
}

fn found(snapshot: &PartialSnapshot, month: i8, store: u8) -> Vec<String> {
    let files = snapshot.files_of(&format!("month=2026-{month:02}"), &store_id(store)).unwrap();
    let mut paths: Vec<String> = files.into_iter().map(|file| file.path.clone()).collect();
    paths.sort();
    paths
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_read_on_demand_is_what_the_entries_say(entries in entries(), every in 1_usize..4) {
        block_on(async {
            let mut log = Log::new().await;
            // Read once and kept up to date: what is asked for late must still be true.
            let mut old = log.table().load_partial().await.unwrap().unwrap();
            for (index, entry) in entries.iter().enumerate() {
                log.put(entry).await;
                if index % every == 0 {
                    log.checkpoint().await;
                    old = log.table().load_partial().await.unwrap().unwrap();
                }
                log.table().refresh_partial(&mut old).await.unwrap();
            }
            for month in 1..5 {
                for store in 0..6 {
                    log.check(month, store).await;
                    log.ask(&mut old, month, store).await;
                    assert_eq!(found(&old, month, store), log.expected(month, store));
                }
            }
            for store in 0..6 {
                log.check_everywhere(store).await;
            }
            let mut whole: Vec<AddFile> = log.table().load().await.unwrap().unwrap().files().cloned().collect();
            whole.sort_by(|left, right| left.path.cmp(&right.path));
            log.standing.sort_by(|left, right| left.path.cmp(&right.path));
            assert_eq!(whole, log.standing);
        });
    }
}

/// A log whose last checkpoint has many row groups, with entries after it.
async fn large() -> Log {
    let mut log = Log::new().await;
    for round in 0..12 {
        let adds = (0..8).map(|store| (1 + (round % 4) as i8, vec![store])).collect();
        log.put(&(adds, Vec::new())).await;
    }
    assert_eq!(log.checkpoint().await, Some(12));
    log.put(&(vec![(2, vec![3]), (2, vec![1, 5])], Vec::new())).await;
    log
}

#[test]
fn files_that_were_not_asked_for_are_an_error_and_never_absent() {
    block_on(async {
        let log = large().await;
        let mut snapshot = log.table().load_partial().await.unwrap().unwrap();
        let error = snapshot.files_of("month=2026-02", &store_id(3)).unwrap_err();
        assert!(error.message().contains("were not read"), "{error}");
        log.ask(&mut snapshot, 2, 3).await;
        assert_eq!(found(&snapshot, 2, 3), log.expected(2, 3));
        assert!(snapshot.files_of("month=2026-04", &store_id(3)).is_err(), "asked for nothing of April");
        assert_eq!(snapshot.files_of("month=2026-09", &store_id(3)).unwrap(), Vec::<&AddFile>::new());
        assert_eq!(snapshot.file_count(), 98);
        let mut snapshot = log.table().load_to_read_stores().await.unwrap().unwrap();
        assert!(snapshot.store_files(&store_id(3)).is_err());
        log.table().read_stores(&mut snapshot, [store_id(3)].into()).await.unwrap();
        assert_eq!(snapshot.store_files(&store_id(3)).unwrap().len(), 14);
    });
}

#[test]
fn a_checkpoint_from_another_one_and_entries_holds_what_one_from_entries_alone_does() {
    block_on(async {
        let mut log = large().await;
        log.put(&(vec![(4, vec![2])], Vec::new())).await;
        // Removes one file of the checkpoint and one of the entries after it.
        for path in [log.expected(1, 4)[0].clone(), log.expected(2, 3).pop().unwrap()] {
            let at = log.standing.iter().position(|file| file.path == path).unwrap();
            let remove = log.standing.remove(at).removed(log.host.now(), true);
            log.version += 1;
            let entry = crate::paths::log_entry(&"pruebas".parse().unwrap(), log.version).unwrap();
            let lines = action::to_lines(&[Action { remove: Some(remove), ..Action::default() }]).unwrap();
            log.objects.put(&entry, lines.into()).await.unwrap();
        }
        assert_eq!(log.checkpoint().await, Some(log.version));
        let from_parts = log.table().load_latest(log::checkpoint::Parts::ALL).await.unwrap().unwrap();
        // The same from the entries alone.
        let listed = crate::object::list_all(&log.objects, "lake/pruebas/_delta_log/", None).await.unwrap();
        for meta in listed.iter().filter(|meta| !meta.path.as_str().ends_with(".json")) {
            log.objects.delete(&meta.path).await.unwrap();
        }
        let from_entries = log.table().load_latest(log::checkpoint::Parts::ALL).await.unwrap().unwrap();
        assert_eq!(from_parts.partitions, from_entries.partitions);
        let removed = |snapshot: &Snapshot| snapshot.tombstones.keys().cloned().collect::<Vec<_>>();
        assert_eq!(removed(&from_parts), removed(&from_entries));
        assert_eq!(removed(&from_parts).len(), 2);
    });
}

#[test]
fn a_checkpoint_that_is_written_again_while_it_is_read_is_read_anew() {
    block_on(async {
        let mut log = large().await;
        let mut snapshot = log.table().load_partial().await.unwrap().unwrap();
        // Of the same version and other bytes, as a second call writes it that forgets other removals.
        let whole = log.table().load_at(12).await.unwrap();
        let other = log::checkpoint::write(&whole).unwrap();
        log.objects.put(&log.table().checkpoint_path(12).unwrap(), other.into()).await.unwrap();
        log.ask(&mut snapshot, 2, 3).await;
        assert_eq!(found(&snapshot, 2, 3), log.expected(2, 3));
        // Damaged in place, and no other is left but the entries.
        let path = log.table().checkpoint_path(12).unwrap();
        log.objects.delete(&path).await.unwrap();
        log.checkpoint().await.unwrap();
        log.put(&(vec![(3, vec![1])], Vec::new())).await;
        let mut snapshot = log.table().load_partial().await.unwrap().unwrap();
        let path = log.table().checkpoint_path(13).unwrap();
        let mut bytes = log.objects.get(&path).await.unwrap().unwrap().to_vec();
        bytes[4..400].fill(0);
        log.objects.put(&path, bytes.into()).await.unwrap();
        log.ask(&mut snapshot, 1, 1).await;
        assert_eq!(found(&snapshot, 1, 1), log.expected(1, 1));
        assert_eq!(log.checkpoint().await, Some(14), "a damaged row group keeps nobody from the next checkpoint");
        log.check(3, 1).await;
    });
}

#[test]
fn a_small_checkpoint_is_one_row_group_without_an_index() {
    block_on(async {
        let mut log = Log::new().await;
        log.put(&(vec![(1, vec![1]), (2, vec![2])], Vec::new())).await;
        log.checkpoint().await;
        log.check(1, 1).await;
        let bytes = log.objects.get(&log.table().checkpoint_path(1).unwrap()).await.unwrap().unwrap();
        let footer = parquet::file::metadata::ParquetMetaDataReader::new().parse_and_finish(&bytes).unwrap();
        assert_eq!((footer.num_row_groups(), footer.file_metadata().key_value_metadata()), (1, None));
    });
}

/// Counts what is read.
struct Counting<'a> {
    objects: &'a MemoryStore,
    reads: RefCell<Vec<(String, u64)>>,
}

impl Counting<'_> {
    fn note(&self, path: &ObjectPath, bytes: usize) {
        self.reads.borrow_mut().push((path.to_string(), bytes as u64));
    }
}

impl ObjectStore for Counting<'_> {
    async fn get(&self, path: &ObjectPath) -> Result<Option<Bytes>> {
        let found = self.objects.get(path).await?;
        self.note(path, found.as_ref().map_or(0, Bytes::len));
        Ok(found)
    }
    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Option<Part>> {
        let found = self.objects.get_range(path, range).await?;
        self.note(path, found.as_ref().map_or(0, |part| part.bytes.len()));
        Ok(found)
    }
    async fn put(&self, path: &ObjectPath, body: PutBody) -> Result<()> {
        self.objects.put(path, body).await
    }
    async fn put_if_absent(&self, path: &ObjectPath, body: PutBody) -> Result<PutOutcome> {
        self.objects.put_if_absent(path, body).await
    }
    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Vec<ObjectMeta>> {
        self.objects.list(prefix, start_after, limit).await
    }
    async fn head(&self, path: &ObjectPath) -> Result<Option<ObjectMeta>> {
        self.objects.head(path).await
    }
    async fn delete(&self, path: &ObjectPath) -> Result<()> {
        self.objects.delete(path).await
    }
}

#[test]
fn a_commit_reads_of_a_large_checkpoint_only_its_footer_and_the_row_groups_of_its_stores() {
    block_on(async {
        let mut log = Log::new().await;
        // 20,000 files in 4 months, of 250 stores.
        for round in 0..25_u64 {
            let adds = (0..800_u64).map(|index| (1 + (round % 4) as i8, vec![(index % 250) as u8])).collect();
            log.put(&(adds, Vec::new())).await;
        }
        let table = Table::new(&log.objects, "pruebas".parse().unwrap());
        table.checkpoint(log.host.ports(&log.objects)).await.unwrap();
        let bytes = log.objects.head(&table.checkpoint_path(25).unwrap()).await.unwrap().unwrap().bytes;
        let batch = TestBatch {
            store: 255,
            position: Position { epoch: 1, sequence: 1 },
            days: [(1, vec![TestRow { day: 1, id: 1, cents: 1 }])].into(),
        };
        let counting = Counting { objects: &log.objects, reads: RefCell::default() };
        let table = Table::new(&counting, "pruebas".parse().unwrap());
        let record = encode(&table, log.host.ports(&counting), &dataset(), &batch).await.unwrap();
        counting.reads.borrow_mut().clear();
        let report = table.commit_records(log.host.ports(&counting), &dataset(), &[record]).await;
        assert!(matches!(report.unwrap().outcome(&batch.id()), Some(BatchOutcome::Committed { .. })));
        let reads = counting.reads.borrow();
        let of_checkpoint: Vec<u64> =
            reads.iter().filter(|(path, _)| path.contains(".checkpoint.")).map(|(_, bytes)| *bytes).collect();
        assert!(bytes > 512 << 10, "{bytes}");
        assert!((2..=3).contains(&of_checkpoint.len()), "{of_checkpoint:?}");
        assert!(of_checkpoint.iter().sum::<u64>() < bytes / 3, "{of_checkpoint:?} of {bytes}");
    });
}

#[test]
fn a_commits_own_checkpoint_holds_what_the_entries_say_removals_too() {
    block_on(async {
        for bounds in [testing::small(), table::Bounds::default()] {
            let (objects, host, dataset) = (MemoryStore::new(), Host::new(1), dataset());
            let mut table = Table::new(&objects, "pruebas".parse().unwrap());
            table.bounds = bounds;
            let mut checkpoints = Vec::new();
            for sequence in 1..=13 {
                let day = 1 + (sequence % 3) as i8;
                let batch = TestBatch {
                    store: (sequence % 2) as u8,
                    position: Position { epoch: 0, sequence },
                    days: [(day, vec![TestRow { day, id: 1, cents: 1 }])].into(),
                };
                let report = offer(&table, host.ports(&objects), &dataset, &batch).await.unwrap();
                if let Some(snapshot) = &report.checkpoint_due {
                    checkpoints.extend(table.checkpoint_of(host.ports(&objects), snapshot).await.unwrap());
                }
            }
            assert_eq!(checkpoints, [6, 12]);
            let mut known = Vec::new();
            for _ in 0..2 {
                let found = table.load_latest(log::checkpoint::Parts::ALL).await.unwrap().unwrap();
                let files: Vec<String> = found.files().map(|file| file.path.clone()).collect();
                known.push((files, found.tombstones.into_keys().collect::<Vec<_>>()));
                for version in &checkpoints {
                    objects.delete(&table.checkpoint_path(*version).unwrap()).await.unwrap();
                }
            }
            assert!(known[0] == known[1] && !known[0].1.is_empty(), "{known:?}");
        }
    });
}
