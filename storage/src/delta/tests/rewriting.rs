//! Files that lose units: what is copied as bytes, what is decoded, and that both come to the same rows.

use arrow_array::RecordBatch;
use arrow_select::concat::concat_batches;
use futures::executor::block_on;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use proptest::prelude::*;

use super::keeping::World;
use super::*;
use crate::ErrorKind;
use crate::delta::files::ranged::ReadBounds;
use crate::delta::units::staying::Keep;
use crate::ids::StoreUnit;
use crate::object::{MemoryStore, ObjectMeta, Part, PutBody};

/// Row groups of two dozen rows, each read by itself.
fn options() -> LakeWriterOptions {
    LakeWriterOptions { row_group_rows_min: 20, row_group_rows_max: 24, ..LakeWriterOptions::default() }
}

pub(super) const BY_GROUPS: ReadBounds = ReadBounds { whole_bytes_max: 0, tail_bytes: 8, part_bytes_max: 1 };
pub(super) const WHOLE: ReadBounds = ReadBounds { whole_bytes_max: u64::MAX, ..BY_GROUPS };

pub(super) fn table<S: ObjectStore>(objects: &S, bounds: ReadBounds) -> Table<'_, S> {
    let mut table = Table::new(objects, "pruebas".parse().unwrap());
    (table.bounds.writer, table.bounds.reads) = (options(), bounds);
    table
}

/// Rows of each day of each store.
type Units = BTreeMap<(u8, i8), u32>;

fn units(stores: std::ops::RangeInclusive<u8>, days: std::ops::RangeInclusive<i8>, rows: u32) -> Units {
    stores.flat_map(|store| days.clone().map(move |day| ((store, day), rows))).collect()
}

fn name(store: u8) -> crate::ids::StoreId {
    format!("s{store}").parse().unwrap()
}

/// A merged file of all `units` in a table of its own.
async fn merged(world: &World, units: &Units) -> AddFile {
    let table = table(&world.objects, BY_GROUPS);
    let ports = world.host.ports(&world.objects);
    for store in units.keys().map(|(store, _)| *store).collect::<std::collections::BTreeSet<_>>() {
        let days = units.iter().filter(|((of, _), _)| *of == store);
        let rows = |day: i8, rows: u32| (0..rows).map(|id| TestRow { day, id, cents: i64::from(store) }).collect();
        let days = days.map(|((_, day), count)| (*day, rows(*day, *count))).collect();
        let batch = TestBatch { store, position: Position { epoch: 0, sequence: 1 }, days };
        offer(&table, ports, &world.dataset, &batch).await.unwrap();
    }
    let snapshot = world.snapshot().await;
    let files: Vec<AddFile> = snapshot.files().cloned().collect();
    if files.len() == 1 {
        return files[0].clone();
    }
    let partition = vec![("month".to_owned(), "2026-01".to_owned())];
    let group = MergeGroup { partition, files, units: 0, bytes: 0, rows: 0 };
    assert!(table.merge(ports, &world.dataset, &group).await.unwrap().committed);
    world.snapshot().await.files().next().unwrap().clone()
}

/// The file without some units.
async fn without(world: &World, bounds: ReadBounds, file: &AddFile, lost: &[(u8, i8)]) -> AddFile {
    let lost = lost.iter().map(|(store, day)| StoreUnit { store: name(*store), unit: unit(*day) });
    let (table, keep) = (table(&world.objects, bounds), Keep::AllBut(lost.collect()));
    let mut files = table.rewrite(world.host.ports(&world.objects), &world.dataset, file, &keep).await.unwrap();
    assert_eq!(files.len(), 1);
    files.remove(0)
}

/// All units but those of a store.
fn without_store(file: &AddFile, store: u8) -> Keep {
    let units = file.units().unwrap().into_iter().map(|tag| tag.key());
    Keep::AllBut(units.filter(|unit| unit.store == name(store)).collect())
}

async fn bytes_of(world: &World, file: &AddFile) -> Bytes {
    world.table().read_file(file).await.unwrap()
}

async fn rows_of(world: &World, file: &AddFile) -> RecordBatch {
    let schema = world.dataset.lake_schema();
    let batches = rows::read(bytes_of(world, file).await, &schema).unwrap().map(Result::unwrap).collect::<Vec<_>>();
    concat_batches(&schema, &batches).unwrap()
}

fn footer(bytes: &Bytes) -> ParquetMetaData {
    ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Optional).parse_and_finish(bytes).unwrap()
}

/// The compressed bytes of each column of each row group.
fn chunks(bytes: &Bytes) -> Vec<Vec<Bytes>> {
    let of = |group: &RowGroupMetaData| {
        let ranges = group.columns().iter().map(|column| column.byte_range());
        ranges.map(|(start, length)| bytes.slice(start as usize..(start + length) as usize)).collect()
    };
    footer(bytes).row_groups().iter().map(of).collect()
}

fn group_rows(bytes: &Bytes) -> Vec<i64> {
    footer(bytes).row_groups().iter().map(RowGroupMetaData::num_rows).collect()
}

/// By store and day, from the rows themselves.
fn counted(rows: &RecordBatch) -> Units {
    use arrow_array::cast::AsArray;
    use arrow_array::types::Date32Type;
    let (stores, days) = (rows.column(0).as_string::<i32>(), rows.column(1).as_primitive::<Date32Type>());
    let mut counted = Units::new();
    for row in 0..rows.num_rows() {
        let store = stores.value(row)[1..].parse().unwrap();
        *counted.entry((store, i8::try_from(days.value(row) - 20453).unwrap())).or_default() += 1;
    }
    counted
}

#[test]
fn row_groups_that_lose_nothing_are_copied_byte_for_byte() {
    block_on(async {
        let world = World::new();
        let units = units(1..=6, 1..=10, 3);
        let file = merged(&world, &units).await;
        let before = bytes_of(&world, &file).await;
        assert_eq!(group_rows(&before), [24, 6].repeat(6), "each store lies in two row groups");
        // A correction of the ninth of s3, the whole way.
        let batch = TestBatch {
            store: 3,
            position: Position { epoch: 0, sequence: 2 },
            days: [(9, vec![TestRow { day: 9, id: 7, cents: 77 }])].into(),
        };
        let table = table(&world.objects, BY_GROUPS);
        offer(&table, world.host.ports(&world.objects), &world.dataset, &batch).await.unwrap();
        let snapshot = world.snapshot().await;
        assert_eq!(snapshot.file_count(), 2);
        let rows = world.rows(&snapshot).await;
        assert_eq!(rows["s3"].iter().filter(|row| row.day == 9).collect::<Vec<_>>(), [&batch.rows()[0]]);
        assert_eq!((rows["s3"].len(), rows["s2"].len()), (28, 30));
        let file = snapshot.files().find(|file| matches!(file.stores(), Stores::Between(..))).unwrap();
        let after = bytes_of(&world, file).await;
        let (before_chunks, after_chunks) = (chunks(&before), chunks(&after));
        for group in (0..12).filter(|group| *group != 5) {
            assert!(before_chunks[group] == after_chunks[group], "row group {group}");
        }
        assert!(before_chunks[5] != after_chunks[5]);
        assert_eq!(group_rows(&after)[5], 3, "the tenth is left of it");
        // What the footer says of a copied group is what it said, at another place.
        let (old, new) = (footer(&before), footer(&after));
        let last = |metadata: &ParquetMetaData| metadata.row_group(11).clone();
        for (old, new) in last(&old).columns().iter().zip(last(&new).columns()) {
            assert_eq!(old.statistics(), new.statistics());
            assert_eq!(old.page_encoding_stats_mask(), new.page_encoding_stats_mask());
            assert_eq!((old.compression(), old.encodings_mask()), (new.compression(), new.encodings_mask()));
        }
        assert_ne!(last(&old).column(0).byte_range(), last(&new).column(0).byte_range());
        for column in 0..new.row_group(11).num_columns() {
            let pages = new.page_index_for_row_group(11).offset_index(column).unwrap().page_locations().to_vec();
            let chunk = new.row_group(11).column(column);
            assert_eq!(pages[0].offset, chunk.data_page_offset(), "the page index follows the pages");
        }
        let columns = last(&new);
        assert!(columns.columns().iter().any(|column| column.dictionary_page_offset().is_some()));
        assert!(columns.columns().iter().any(|column| column.statistics().unwrap().null_count_opt() > Some(0)));
    });
}

#[test]
fn row_groups_of_which_every_unit_leaves_are_gone_first_and_last_ones_too() {
    block_on(async {
        let world = World::new();
        let units = units(1..=4, 1..=2, 12);
        let file = merged(&world, &units).await;
        assert_eq!(group_rows(&bytes_of(&world, &file).await), [24; 4]);
        for (lost, groups) in [
            (vec![(1, 1), (1, 2)], vec![24, 24, 24]),
            (vec![(4, 1), (4, 2)], vec![24, 24, 24]),
            (vec![(1, 1), (4, 2)], vec![12, 24, 24, 12]),
            (vec![(1, 1), (1, 2), (2, 1), (3, 1), (3, 2), (4, 1), (4, 2)], vec![12]),
        ] {
            let written = without(&world, BY_GROUPS, &file, &lost).await;
            assert_eq!(group_rows(&bytes_of(&world, &written).await), groups, "{lost:?}");
            let wanted: Units = units.clone().into_iter().filter(|(unit, _)| !lost.contains(unit)).collect();
            assert_eq!(counted(&rows_of(&world, &written).await), wanted);
            assert_eq!(written.rows(), Some(wanted.values().map(|rows| u64::from(*rows)).sum()));
        }
    });
}

#[test]
fn a_unit_that_goes_over_row_groups_stays_or_leaves_as_a_whole() {
    block_on(async {
        let world = World::new();
        let units: Units = [((1, 1), 5), ((1, 2), 60), ((1, 3), 5), ((2, 1), 0), ((2, 2), 30)].into();
        let file = merged(&world, &units).await;
        let before = bytes_of(&world, &file).await;
        assert_eq!(group_rows(&before), [24, 24, 22, 24, 6]);
        let written = without(&world, BY_GROUPS, &file, &[(1, 2)]).await;
        let after = bytes_of(&world, &written).await;
        assert_eq!(group_rows(&after), [5, 5, 24, 6]);
        assert!(chunks(&before)[3..] == chunks(&after)[2..]);
        // It stays: the row group within it and the one before are copied.
        let written = without(&world, BY_GROUPS, &file, &[(1, 3)]).await;
        let after = bytes_of(&world, &written).await;
        assert_eq!(group_rows(&after), [24, 24, 17, 24, 6]);
        assert!(chunks(&before)[..2] == chunks(&after)[..2]);
        assert_eq!(counted(&rows_of(&world, &written).await)[&(1, 2)], 60);
        let tags: Vec<_> = written.units().unwrap().into_iter().map(|tag| tag.key().to_string()).collect();
        assert_eq!(tags.len(), 4, "the day without rows is still a fact: {tags:?}");
    });
}

#[test]
fn a_file_of_an_older_schema_is_decoded_and_gets_the_present_one() {
    block_on(async {
        let mut world = World::new();
        let file = merged(&world, &units(1..=3, 1..=2, 12)).await;
        let corto = world.dataset.columns.iter().position(|column| column.name == "corto").unwrap();
        world.dataset.columns[corto].column_type = crate::dataset::ColumnType::Int64;
        let caja = crate::dataset::Column { name: "caja".into(), ..world.dataset.columns[3].clone() };
        world.dataset.columns.push(caja);
        let written = without(&world, BY_GROUPS, &file, &[(2, 1)]).await;
        let after = bytes_of(&world, &written).await;
        let columns = footer(&after).file_metadata().schema_descr().num_columns();
        assert_eq!(columns, world.dataset.lake_schema().fields().len());
        assert!(written.stats.as_deref().unwrap().contains("\"caja\":60"), "{:?}", written.stats);
        assert_eq!(counted(&rows_of(&world, &written).await).len(), 5);
        assert_eq!(kind_of(&after, "corto"), parquet::basic::Type::INT64);
    });
}

fn kind_of(bytes: &Bytes, column: &str) -> parquet::basic::Type {
    let metadata = footer(bytes);
    let schema = metadata.file_metadata().schema_descr();
    schema.columns().iter().find(|one| one.name() == column).unwrap().physical_type()
}

#[test]
fn rows_that_are_not_what_the_tags_say_are_refused_in_copied_row_groups_too() {
    block_on(async {
        let world = World::new();
        let file = merged(&world, &units(1..=4, 1..=2, 12)).await;
        let ports = world.host.ports(&world.objects);
        for bounds in [BY_GROUPS, WHOLE] {
            let (mut lying, mut tags) = (file.clone(), file.units().unwrap());
            tags[1].facts.rows += 1;
            lying.set_units(&tags).unwrap();
            let keep = without_store(&file, 3);
            let error = table(&world.objects, bounds).rewrite(ports, &world.dataset, &lying, &keep).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Data);
            let line = error.line();
            assert!(line.contains("its rows are not what its tags say"), "{line}");
            assert!(line.contains("unit 2026-01-02: must have 13 rows, got 12"), "{line}");
        }
        // Rows of a unit that no tag names are not taken over, though their row group loses nothing else.
        let written = without(&world, BY_GROUPS, &file, &[(2, 2)]).await;
        let mut unnamed = file.clone();
        unnamed.set_units(&written.units().unwrap()).unwrap();
        let written = without(&world, BY_GROUPS, &unnamed, &[]).await;
        assert_eq!(counted(&rows_of(&world, &written).await).get(&(2, 2)), None);
    });
}

#[test]
fn a_file_that_is_cut_off_damaged_or_gone_is_an_error_of_its_data() {
    block_on(async {
        let world = World::new();
        let file = merged(&world, &units(1..=4, 1..=2, 12)).await;
        let (bytes, path) = (bytes_of(&world, &file).await, file.object_path(world.table().name()).unwrap());
        let keep = without_store(&file, 3);
        let mut holed = bytes.to_vec();
        let (start, _) = footer(&bytes).row_group(0).column(0).byte_range();
        holed[start as usize..start as usize + 12].fill(0xff);
        let cut = bytes.slice(..bytes.len() - 9);
        for (damaged, wanted) in [
            (Some(cut), "must have"),
            (Some(holed.into()), "not readable as Parquet"),
            (Some(Bytes::from(vec![0; bytes.len()])), "not readable as Parquet"),
            (None, "named by the log but absent"),
        ] {
            match damaged {
                Some(bytes) => world.objects.put(&path, bytes.into()).await.unwrap(),
                None => world.objects.delete(&path).await.unwrap(),
            }
            let ports = world.host.ports(&world.objects);
            let table = table(&world.objects, BY_GROUPS);
            let error = table.rewrite(ports, &world.dataset, &file, &keep).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Data, "{error:?}");
            assert!(error.to_string().contains(wanted) && error.to_string().contains(&file.path), "{error}");
        }
    });
}

/// Counts what is read of data files.
pub(super) struct Counting {
    inner: MemoryStore,
    pub(super) whole: Cell<u64>,
    pub(super) ranges: Cell<u64>,
    bytes: Cell<u64>,
    longest: Cell<u64>,
}

impl Counting {
    pub(super) fn new(inner: &MemoryStore) -> Self {
        let zero = || Cell::new(0);
        Self { inner: inner.clone(), whole: zero(), ranges: zero(), bytes: zero(), longest: zero() }
    }
}

impl ObjectStore for Counting {
    async fn get(&self, path: &ObjectPath) -> Result<Option<Bytes>> {
        self.whole.set(self.whole.get() + u64::from(path.as_str().ends_with(".parquet")));
        self.inner.get(path).await
    }

    async fn get_range(&self, path: &ObjectPath, range: std::ops::Range<u64>) -> Result<Option<Part>> {
        let part = self.inner.get_range(path, range).await?;
        let bytes = part.as_ref().map_or(0, |part| part.bytes.len() as u64);
        self.ranges.set(self.ranges.get() + 1);
        self.bytes.set(self.bytes.get() + bytes);
        self.longest.set(self.longest.get().max(bytes));
        Ok(part)
    }

    async fn put(&self, path: &ObjectPath, body: PutBody) -> Result<()> {
        self.inner.put(path, body).await
    }

    async fn put_if_absent(&self, path: &ObjectPath, body: PutBody) -> Result<PutOutcome> {
        self.inner.put_if_absent(path, body).await
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Vec<ObjectMeta>> {
        self.inner.list(prefix, start_after, limit).await
    }

    async fn head(&self, path: &ObjectPath) -> Result<Option<ObjectMeta>> {
        self.inner.head(path).await
    }

    async fn delete(&self, path: &ObjectPath) -> Result<()> {
        self.inner.delete(path).await
    }
}

#[test]
fn a_file_is_read_once_and_in_parts() {
    block_on(async {
        let world = World::new();
        let file = merged(&world, &units(1..=9, 1..=2, 12)).await;
        let bytes = bytes_of(&world, &file).await;
        let groups = footer(&bytes).num_row_groups();
        assert_eq!(groups, 9);
        let group_bytes = |group: &RowGroupMetaData| group.compressed_size() as u64;
        let all: u64 = footer(&bytes).row_groups().iter().map(group_bytes).sum();
        let three = footer(&bytes).row_groups().iter().map(group_bytes).max().unwrap() * 3;
        let tail_bytes = file.size - all;
        // One row group at a time; three; all of them.
        for (part_bytes_max, parts) in [(1, 9), (three, 3), (u64::MAX, 1)] {
            let objects = Counting::new(&world.objects);
            let bounds = ReadBounds { whole_bytes_max: 0, tail_bytes, part_bytes_max };
            let keep = without_store(&file, 4);
            let ports = world.host.ports(&objects);
            table(&objects, bounds).rewrite(ports, &world.dataset, &file, &keep).await.unwrap();
            assert_eq!((objects.whole.get(), objects.ranges.get()), (0, 1 + parts));
            assert_eq!(objects.bytes.get(), tail_bytes + all, "each row group once");
            assert!(objects.longest.get() <= part_bytes_max.max(three / 3).max(tail_bytes));
        }
    });
}

fn case() -> impl Strategy<Value = (Units, Vec<bool>, bool)> {
    let units = prop::collection::btree_map((1_u8..5, 1_i8..6), 0_u32..40, 2..14);
    (units, prop::collection::vec(any::<bool>(), 14), any::<bool>())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn copying_row_groups_gives_what_decoding_all_of_them_gives((units, lost, few) in case()) {
        block_on(async {
            let world = World::new();
            let file = merged(&world, &units).await;
            // One unit stays at least; in half of the cases one leaves only.
            let mut lost: Vec<(u8, i8)> =
                units.keys().skip(1).zip(lost).filter(|(_, lost)| *lost).map(|(unit, _)| *unit).collect();
            lost.truncate(if few { 1 } else { usize::MAX });
            let copied = without(&world, BY_GROUPS, &file, &lost).await;
            let decoded = without(&world, WHOLE, &file, &lost).await;
            assert_eq!(rows_of(&world, &copied).await, rows_of(&world, &decoded).await);
            assert_eq!((&copied.stats, copied.units().unwrap()), (&decoded.stats, decoded.units().unwrap()));
            assert!(group_rows(&bytes_of(&world, &copied).await).iter().all(|rows| *rows > 0));
            let wanted: Units =
                units.into_iter().filter(|(unit, rows)| *rows > 0 && !lost.contains(unit)).collect();
            assert_eq!(counted(&rows_of(&world, &copied).await), wanted);
        });
    }
}
