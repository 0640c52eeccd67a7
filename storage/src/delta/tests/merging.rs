//! Merging across stores, and what happens to merged files.

use std::borrow::Cow;

use futures::executor::block_on;

use super::keeping::World;
use super::rewriting::{BY_GROUPS, Counting, WHOLE, table};
use super::*;
use crate::ErrorKind;
use crate::delta::merge::{Input, Inputs};

const IN_MONTH: jiff::civil::Date = jiff::civil::date(2026, 1, 31);
const AFTER: jiff::civil::Date = jiff::civil::date(2026, 3, 1);

fn plan(snapshot: &Snapshot, today: jiff::civil::Date) -> Vec<MergeGroup> {
    merge_plan(snapshot, today, &MergeOptions::default())
}

async fn merge(world: &World, group: &MergeGroup) -> Merged {
    world.table().merge(world.host.ports(&world.objects), &world.dataset, group).await.unwrap()
}

fn inputs(group: &MergeGroup) -> Inputs<'_> {
    let files = group.files.iter().map(|file| Input::new(Cow::Borrowed(file)).unwrap());
    Inputs::new(&group.partition, files.collect())
}

/// Three stores with three batches each.
async fn nine_files() -> World {
    let world = World::new();
    for store in [3, 1, 2] {
        for sequence in 1..=3 {
            world.offer_of(store, sequence, &[10 - sequence as i8, 20 + sequence as i8]).await;
        }
    }
    world
}

#[test]
fn a_merge_across_stores_changes_no_row_and_no_fact() {
    block_on(async {
        let world = nine_files().await;
        let before = world.snapshot().await;
        let groups = plan(&before, IN_MONTH);
        assert_eq!(groups.iter().map(|group| group.files.len()).collect::<Vec<_>>(), [9], "8 files of a size or more");
        assert!(merge(&world, &groups[0]).await.committed);
        let after = world.snapshot().await;
        assert_eq!(after.file_count(), 1);
        let file = after.files().next().unwrap();
        assert_eq!(file.stores(), Stores::Between("s1", "s3"));
        assert_eq!(world.rows(&after).await, world.rows(&before).await);
        for store in ["s1", "s2", "s3"].map(|store| store.parse().unwrap()) {
            assert_eq!(after.winners(&store).unwrap(), before.winners(&store).unwrap());
        }
        assert!(plan(&after, AFTER).is_empty());
        let entry = world.table().read_entry(after.version()).await.unwrap().unwrap();
        let actions = action::from_lines(&entry).unwrap();
        assert!(actions.iter().filter_map(|action| action.add.as_ref()).all(|add| !add.data_change));
    });
}

#[test]
fn a_late_correction_replaces_its_day_in_a_merged_file_and_nothing_else() {
    block_on(async {
        let world = nine_files().await;
        merge(&world, &plan(&world.snapshot().await, IN_MONTH)[0]).await;
        let before = world.rows(&world.snapshot().await).await;
        world.offer_of(2, 9, &[8]).await;
        let snapshot = world.snapshot().await;
        let after = world.rows(&snapshot).await;
        assert_eq!(snapshot.file_count(), 2, "the day's own file, and the merged one without it");
        assert_eq!((&after["s1"], &after["s3"]), (&before["s1"], &before["s3"]));
        let cents = |day: i8| after["s2"].iter().find(|row| row.day == day).unwrap().cents;
        assert_eq!((cents(8), cents(9)), (9, 1));
        // All days of a store leave: its section goes, the others stay.
        world.offer_of(1, 9, &[7, 8, 9, 21, 22, 23]).await;
        let snapshot = world.snapshot().await;
        let merged = snapshot.files().find(|file| matches!(file.stores(), Stores::Between(..))).unwrap();
        assert_eq!(merged.stores(), Stores::Between("s2", "s3"));
        assert_eq!(world.rows(&snapshot).await["s1"].len(), 18);
        // The small files come together with the large one again.
        let groups = plan(&snapshot, AFTER);
        assert!(merge(&world, &groups[0]).await.committed);
        assert_eq!(world.snapshot().await.file_count(), 1);
    });
}

#[test]
fn two_stores_that_correct_one_merged_file_in_one_commit_write_it_again_once() {
    block_on(async {
        let world = nine_files().await;
        merge(&world, &plan(&world.snapshot().await, IN_MONTH)[0]).await;
        let ports = world.host.ports(&world.objects);
        for store in [1, 3] {
            let batch = TestBatch {
                store,
                position: Position { epoch: 0, sequence: 9 },
                days: [(9, vec![TestRow { day: 9, id: 7, cents: 7 }])].into(),
            };
            let record = encode(&world.table(), ports, &world.dataset, &batch).await.unwrap();
            world.table().put_ready(&record).await.unwrap();
        }
        let report = world.table().commit_ready(ports, &world.dataset, &[]).await.unwrap();
        assert_eq!(report.outcomes.len(), 2);
        let snapshot = world.snapshot().await;
        assert_eq!(snapshot.file_count(), 3, "two new files and one merged");
        let rows = world.rows(&snapshot).await;
        assert_eq!(rows.values().flatten().filter(|row| row.cents == 7).count(), 2);
        assert_eq!((rows["s1"].len(), rows["s2"].len()), (16, 18));
    });
}

#[test]
fn days_that_are_open_and_large_files_are_left_out_and_a_month_that_is_over_is_merged_whole() {
    block_on(async {
        let world = nine_files().await;
        let mut snapshot = world.snapshot().await;
        let mut open = snapshot.files().next().unwrap().clone();
        let units = open.units().unwrap().into_iter().map(|tag| UnitTag { closed: false, ..tag });
        open.set_units(&units.collect::<Vec<_>>()).unwrap();
        snapshot.add(open.clone());
        let groups = plan(&snapshot, IN_MONTH);
        assert!(groups[0].files.len() == 8 && !groups[0].files.contains(&open));
        assert_eq!(plan(&snapshot, AFTER)[0].files.len(), 9, "its month is over");
        snapshot.add(AddFile { size: 40 << 20, ..open });
        assert_eq!(plan(&snapshot, AFTER)[0].files.len(), 8, "it is large enough");
        // Sizes: seven small files and one large are too few of each size.
        let mut other = snapshot.files().nth(4).unwrap().clone();
        other.size = 3 << 20;
        snapshot.add(other);
        assert!(plan(&snapshot, IN_MONTH).is_empty());
        let options = MergeOptions { files_min: 7, ..MergeOptions::default() };
        assert_eq!(merge_plan(&snapshot, IN_MONTH, &options)[0].files.len(), 7, "the small ones alone");
        let options = MergeOptions { files_min: 1, ..MergeOptions::default() };
        assert_eq!(merge_plan(&snapshot, IN_MONTH, &options)[0].files.len(), 8, "with all smaller ones");
        let options = MergeOptions { group_bytes_max: 1, ..MergeOptions::default() };
        assert!(merge_plan(&snapshot, AFTER, &options).is_empty(), "no two fit together");
    });
}

#[test]
fn a_merge_that_a_batch_overtakes_is_dropped_and_one_that_lies_is_refused() {
    block_on(async {
        let world = nine_files().await;
        let group = plan(&world.snapshot().await, IN_MONTH).remove(0);
        let inputs = inputs(&group);
        let error = world.table().commit_merge(world.host.ports(&world.objects), &inputs, vec![]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        // One file of each store, so that their units are in order, as if they were what was merged.
        let of_store = |store: &str| group.files.iter().find(|file| file.stores() == Stores::One(store)).unwrap();
        let honest: Vec<AddFile> = ["s1", "s2", "s3"].map(|store| of_store(store).clone()).to_vec();
        let some = MergeGroup { files: honest.clone(), ..group.clone() };
        let lies: [fn(&mut Vec<UnitTag>); 5] = [
            |units| units[1].facts.sums.insert("total".into(), ExactDecimal::new(1, 2)).map(drop).unwrap(),
            |units| units[0].received_at = Timestamp::UNIX_EPOCH,
            |units| units[1].position.sequence += 1,
            |units| units[0].audit = None,
            |units| drop(units.pop()),
        ];
        for (index, lie) in lies.iter().enumerate() {
            let (mut lying, mut units) = (honest.clone(), honest[1].units().unwrap());
            lie(&mut units);
            lying[1].set_units(&units).unwrap();
            let merged =
                world.table().commit_merge(world.host.ports(&world.objects), &self::inputs(&some), lying).await;
            assert_eq!(merged.unwrap_err().kind(), ErrorKind::Data, "{index}");
        }
        world.offer_of(1, 9, &[9]).await;
        let before = world.rows(&world.snapshot().await).await;
        assert!(!merge(&world, &group).await.committed);
        assert_eq!(world.rows(&world.snapshot().await).await, before);
    });
}

#[test]
fn files_that_are_not_what_the_log_says_are_left_alone_and_the_others_are_merged() {
    block_on(async {
        let world = nine_files().await;
        let snapshot = world.snapshot().await;
        let of_s2: Vec<AddFile> = snapshot.store_files(&"s2".parse().unwrap()).cloned().collect();
        let broken = of_s2[0].object_path(world.table().name()).unwrap();
        world.objects.put(&broken, Bytes::from_static(b"PAR1 broken").into()).await.unwrap();
        let mut group = plan(&snapshot, IN_MONTH).remove(0);
        let lying = group.files.iter_mut().find(|file| file.path == of_s2[1].path).unwrap();
        let mut units = lying.units().unwrap();
        units[0].facts.sums.insert("total".into(), ExactDecimal::new(1, 2));
        lying.set_units(&units).unwrap();
        let merged = merge(&world, &group).await;
        assert!(merged.committed, "{merged:?}");
        assert_eq!((merged.files, merged.left_alone.len()), (7, 2), "{merged:?}");
        let after = world.snapshot().await;
        assert_eq!(after.file_count(), 3);
        assert!(after.has(&of_s2[0].path) && after.has(&of_s2[1].path));
    });
}

#[test]
fn facts_that_are_too_long_for_a_tag_lie_in_an_object_that_lives_as_long_as_its_file() {
    block_on(async {
        let world = nine_files().await;
        let before = world.snapshot().await;
        let (ports, group) = (world.host.ports(&world.objects), plan(&before, IN_MONTH).remove(0));
        let mut table = world.table();
        table.bounds.units_tag_bytes_max = 100;
        assert!(table.merge(ports, &world.dataset, &group).await.unwrap().committed);
        table.checkpoint(ports).await.unwrap();
        let mut snapshot = world.snapshot().await;
        let file = snapshot.files().next().unwrap().clone();
        assert!(file.units().is_err(), "nothing is concluded from what was not read");
        table.load_facts(&mut snapshot, None, None).await.unwrap();
        assert_eq!(world.rows(&snapshot).await, world.rows(&before).await);
        for store in ["s1", "s2", "s3"].map(|store| store.parse().unwrap()) {
            assert_eq!(snapshot.winners(&store).unwrap(), before.winners(&store).unwrap());
        }
        // A batch offered again finds itself there, and an older one that it has lost.
        for (sequence, wanted) in [(3, "Committed"), (0, "Superseded")] {
            let batch = TestBatch {
                store: 2,
                position: Position { epoch: 0, sequence },
                days: [(7, vec![TestRow { day: 7, id: 0, cents: 3 }])].into(),
            };
            let settled = table.outcome_of(&world.snapshot().await, &world.dataset, &batch.manifest()).await.unwrap();
            assert!(format!("{settled:?}").contains(wanted), "{settled:?}");
        }
        world.offer_of(2, 9, &[8]).await;
        let mut snapshot = world.snapshot().await;
        table.load_facts(&mut snapshot, None, None).await.unwrap();
        assert_eq!(world.rows(&snapshot).await["s2"].len(), 18);
        // What it replaced goes with its facts, and not before.
        let facts = file.facts_path(table.name()).unwrap();
        let planned = async |days: i64| {
            world.advance(jiff::SignedDuration::from_hours(24 * days));
            let plan = table.vacuum_plan(world.host.now(), VACUUM_RETENTION).await.unwrap();
            plan.iter().any(|meta| meta.path == facts)
        };
        assert!(!planned(6).await && planned(2).await);
    });
}

#[test]
fn facts_that_cannot_be_read_fail_the_stores_of_their_file_and_no_other() {
    block_on(async {
        let world = nine_files().await;
        let ports = world.host.ports(&world.objects);
        let mut table = world.table();
        table.bounds.units_tag_bytes_max = 100;
        table.merge(ports, &world.dataset, &plan(&world.snapshot().await, IN_MONTH)[0]).await.unwrap();
        let merged = world.snapshot().await.files().next().unwrap().clone();
        world.objects.put(&merged.facts_path(table.name()).unwrap(), Bytes::from_static(b"x").into()).await.unwrap();
        let batch = |store: u8| TestBatch {
            store,
            position: Position { epoch: 0, sequence: 9 },
            days: [(9, vec![TestRow { day: 9, id: 7, cents: 7 }])].into(),
        };
        for store in [2, 7] {
            let record = encode(&table, ports, &world.dataset, &batch(store)).await.unwrap();
            table.put_ready(&record).await.unwrap();
        }
        let report = table.commit_ready(ports, &world.dataset, &[]).await.unwrap();
        let Some(BatchOutcome::Failed(error)) = report.outcome(&batch(2).id()) else { panic!("{report:?}") };
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(matches!(report.outcome(&batch(7).id()), Some(BatchOutcome::Committed { .. })), "{report:?}");
        let mut snapshot = world.snapshot().await;
        table.load_facts(&mut snapshot, None, None).await.unwrap();
        assert!(snapshot.winners(&"s2".parse().unwrap()).is_err() && snapshot.winners(&"s7".parse().unwrap()).is_ok());
    });
}

#[test]
fn files_are_merged_in_order_of_their_units_wherever_their_facts_lie() {
    block_on(async {
        let world = World::new();
        let mut table = world.table();
        table.bounds.units_tag_bytes_max = 100;
        let merge_all = async |names: &[AddFile]| {
            let partition = vec![("month".to_owned(), "2026-01".to_owned())];
            let group = MergeGroup { partition, files: names.to_vec(), units: 0, bytes: 0, rows: 0 };
            table.merge(world.host.ports(&world.objects), &world.dataset, &group).await.unwrap()
        };
        // Two merged files, of s0 with the third of s1 and of s1's fifth with s2; then s1's first.
        let mut known: Vec<AddFile> = Vec::new();
        for pair in [[(0, 1, 2), (1, 1, 3)], [(1, 2, 5), (2, 1, 5)]] {
            for (store, sequence, day) in pair {
                world.offer_of(store, sequence, &[day]).await;
            }
            let snapshot = world.snapshot().await;
            let fresh: Vec<AddFile> = snapshot.files().filter(|file| !known.contains(file)).cloned().collect();
            assert!(merge_all(&fresh).await.committed);
            known = world.snapshot().await.files().cloned().collect();
        }
        world.offer_of(1, 3, &[1]).await;
        let before = world.snapshot().await;
        let group = plan(&before, AFTER).remove(0);
        assert_eq!(group.files.len(), 3);
        let merged = table.merge(world.host.ports(&world.objects), &world.dataset, &group).await.unwrap();
        assert!(merged.committed, "{merged:?}");
        assert_eq!(world.rows(&world.snapshot().await).await, world.rows(&before).await);
    });
}

#[test]
fn row_groups_of_a_file_of_many_stores_end_between_two_stores() {
    let dataset = dataset();
    let options = LakeWriterOptions { row_group_rows_min: 15, row_group_rows_max: 24, ..LakeWriterOptions::default() };
    let mut units = Vec::new();
    let mut batches = Vec::new();
    for (store, rows) in [(1, 10), (2, 10), (3, 10), (4, 3), (5, 30), (6, 1)] {
        let day = |day: i8| {
            let rows = (0..rows).map(|id| TestRow { day, id, cents: 1 }).collect();
            TestBatch { store, position: Position { epoch: 0, sequence: 1 }, days: [(day, rows)].into() }
        };
        let batch = day(4);
        units.extend(tags_of(&batch));
        let rows = record_batch(&dataset, &batch.rows());
        let mut columns = rows.columns().to_vec();
        let names = std::iter::repeat_n(format!("s{store}"), rows.num_rows());
        columns.insert(0, std::sync::Arc::new(arrow_array::StringArray::from_iter_values(names)));
        batches.push(arrow_array::RecordBatch::try_new(dataset.lake_schema(), columns).unwrap());
    }
    let all = arrow_select::concat::concat_batches(&dataset.lake_schema(), &batches).unwrap();
    let mut writer = LakeWriter::new(&dataset, units, options).unwrap();
    for start in (0..all.num_rows()).step_by(7) {
        writer.write(&all.slice(start, 7.min(all.num_rows() - start))).unwrap();
    }
    let files = writer.finish().unwrap();
    let reader = parquet::file::reader::SerializedFileReader::new(files[0].bytes.clone()).unwrap();
    let metadata = parquet::file::reader::FileReader::metadata(&reader);
    let groups: Vec<i64> = metadata.row_groups().iter().map(|group| group.num_rows()).collect();
    // s1 and s2; s3 and s4 (s5 would not fit); s5, which alone exceeds a group; what is left of it with s6.
    assert_eq!(groups, [20, 13, 24, 7]);
}

/// Two merged files, of s1 with s2 and of s3, in row groups of a few rows, and a file of s2 besides.
async fn two_merged_files_and_a_small_one() -> World {
    let world = nine_files().await;
    let all = plan(&world.snapshot().await, IN_MONTH).remove(0);
    let table = table(&world.objects, WHOLE);
    for is_s3 in [false, true] {
        let files = all.files.iter().filter(|file| (file.stores() == Stores::One("s3")) == is_s3).cloned().collect();
        let group = MergeGroup { files, ..all.clone() };
        assert!(table.merge(world.host.ports(&world.objects), &world.dataset, &group).await.unwrap().committed);
    }
    world.offer_of(2, 5, &[14]).await;
    world
}

#[test]
fn a_merge_that_reads_files_in_parts_writes_the_bytes_of_one_that_reads_them_whole() {
    block_on(async {
        let mut written = Vec::new();
        for bounds in [BY_GROUPS, WHOLE] {
            let world = two_merged_files_and_a_small_one().await;
            let objects = Counting::new(&world.objects);
            let group = plan(&world.snapshot().await, AFTER).remove(0);
            assert_eq!(group.files.len(), 3);
            let merged =
                table(&objects, bounds).merge(world.host.ports(&objects), &world.dataset, &group).await.unwrap();
            assert!(merged.committed && merged.left_alone.is_empty(), "{merged:?}");
            let reads = (objects.whole.get(), objects.ranges.get() > 8);
            assert_eq!(reads, if bounds.whole_bytes_max == 0 { (0, true) } else { (3, false) });
            let snapshot = world.snapshot().await;
            assert_eq!(snapshot.file_count(), 1);
            let file = snapshot.files().next().unwrap();
            written.push((world.table().read_file(file).await.unwrap(), file.units().unwrap(), file.stats.clone()));
        }
        assert!(written[0] == written[1]);
    });
}

#[test]
fn a_damaged_unit_in_the_middle_of_a_large_file_is_named_and_its_file_alone_is_left_out() {
    block_on(async {
        let lies: [fn(&mut Vec<UnitTag>); 4] = [
            |units| units[5].facts.sums.insert("total".into(), ExactDecimal::new(1, 2)).map(drop).unwrap(),
            |units| units[5].facts.rows += 1,
            |units| drop(units.remove(5)),
            |units| units[5].facts = Facts::default(),
        ];
        for lie in lies {
            let world = two_merged_files_and_a_small_one().await;
            let before = world.rows(&world.snapshot().await).await;
            let mut group = plan(&world.snapshot().await, AFTER).remove(0);
            let lying = group.files.iter_mut().find(|file| file.stores() == Stores::Between("s1", "s2")).unwrap();
            let (path, mut units) = (lying.path.clone(), lying.units().unwrap());
            let damaged = units[5].unit.to_string();
            lie(&mut units);
            lying.set_units(&units).unwrap();
            let table = table(&world.objects, BY_GROUPS);
            let merged = table.merge(world.host.ports(&world.objects), &world.dataset, &group).await.unwrap();
            assert!(merged.committed, "{merged:?}");
            let error = merged.left_alone.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            assert!(merged.left_alone.len() == 1 && error.contains(&path) && error.contains(&damaged), "{error}");
            let after = world.snapshot().await;
            assert!(after.file_count() == 2 && after.has(&path), "{merged:?}");
            assert_eq!(world.rows(&after).await, before);
        }
    });
}

#[test]
fn more_than_a_hundred_thousand_units_become_one_file() {
    block_on(async {
        let world = World::new();
        let (table, ports) = (world.table(), world.host.ports(&world.objects));
        world.offer_of(1, 1, &[1]).await;
        // Store by store a row on the first; the other days without sales are facts too.
        for half in [1000..2650, 2650..4300] {
            let rows: Vec<TestRow> = half.clone().map(|store| TestRow { day: 1, id: store, cents: 5 }).collect();
            let batch = |store: u32| TestBatch {
                store: 0,
                position: Position { epoch: 0, sequence: 1 },
                days: (1..=31).map(|day| (day, rows_of(&rows, store, day))).collect(),
            };
            let named = |store: u32| move |tag: UnitTag| UnitTag { store: format!("t{store}").parse().unwrap(), ..tag };
            let units: Vec<UnitTag> =
                half.clone().flat_map(|store| tags_of(&batch(store)).into_iter().map(named(store))).collect();
            let of_rows = record_batch(&world.dataset, &rows);
            let mut columns = of_rows.columns().to_vec();
            let names = half.map(|store| format!("t{store}"));
            columns.insert(0, std::sync::Arc::new(arrow_array::StringArray::from_iter_values(names)));
            let mut writer = LakeWriter::new(&world.dataset, units, LakeWriterOptions::default()).unwrap();
            writer.write(&arrow_array::RecordBatch::try_new(world.dataset.lake_schema(), columns).unwrap()).unwrap();
            let file = writer.finish().unwrap().remove(0);
            let partition = vec![("month".to_owned(), "2026-01".to_owned())];
            let add = table.put_file(ports, &partition, &file).await.unwrap();
            let version = world.snapshot().await.version() + 1;
            let entry = crate::paths::log_entry(table.name(), version).unwrap();
            let action = action::Action { add: Some(add), ..action::Action::default() };
            world.objects.put(&entry, action::to_lines(&[action]).unwrap().into()).await.unwrap();
        }
        let before = world.snapshot().await;
        let groups = plan(&before, AFTER);
        assert_eq!((groups.len(), groups[0].files.len(), groups[0].units), (1, 3, 3300 * 31 + 1));
        let merged = merge(&world, &groups[0]).await;
        assert!(merged.committed && merged.left_alone.is_empty(), "{:?}", merged.left_alone);
        assert_eq!((merged.units, merged.rows), (102_301, 3303));
        let mut after = world.snapshot().await;
        assert_eq!(after.file_count(), 1);
        // A commit reads of its facts what one store needs.
        let store: crate::ids::StoreId = "t2650".parse().unwrap();
        table.load_facts(&mut after, None, Some(&[store.clone()].into())).await.unwrap();
        let winners = after.winners(&store).unwrap();
        assert_eq!((winners.len(), winners[&unit(1)].facts.rows, winners[&unit(2)].facts.rows), (31, 1, 0));
        assert!(after.winners(&"t1000".parse().unwrap()).is_err(), "what was not read is no answer");
    });
}

fn rows_of(rows: &[TestRow], store: u32, day: i8) -> Vec<TestRow> {
    rows.iter().filter(|row| row.id == store && row.day == day).cloned().collect()
}

fn tags_of(batch: &TestBatch) -> Vec<UnitTag> {
    batch.manifest().units.iter().map(|facts| UnitTag::new(&batch.id(), facts, facts.extracted_at)).collect()
}
