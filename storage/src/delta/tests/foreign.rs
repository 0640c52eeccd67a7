//! What other programs may do to a table, and what a store may try to write into its log.

use futures::executor::block_on;
use serde_json::{Value, json};

use super::keeping::World;
use super::*;
use crate::ErrorKind;
use crate::object::list_all;

/// Puts an entry as another program would: its own actions, no commit info of ours.
async fn put_entry(world: &World, actions: &[Value]) {
    let version = world.snapshot().await.version() + 1;
    let lines: Vec<String> = actions.iter().map(ToString::to_string).collect();
    let path = crate::paths::log_entry(world.table().name(), version).unwrap();
    world.objects.put(&path, (lines.join("\n") + "\n").into_bytes().into()).await.unwrap();
}

fn foreign_add(name: &str) -> Value {
    json!({"add": {"path": format!("month=2026-01/{name}"), "size": 7, "modificationTime": 1, "dataChange": true,
        "partitionValues": {"month": "2026-01"}, "stats": "{\"numRecords\":3}"}})
}

fn removal(file: &AddFile) -> Value {
    json!({"remove": {"path": file.path, "deletionTimestamp": 1, "dataChange": true}})
}

#[test]
fn a_table_partitioned_by_store_is_of_an_older_release_and_refused_with_the_way_out() {
    block_on(async {
        let world = World::new();
        let metadata = json!({"metaData": {"id": "x", "format": {"provider": "parquet"}, "schemaString": world.dataset.delta_schema(),
            "partitionColumns": ["store_id", "month"], "configuration": {}}});
        let first = [json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}), metadata];
        let lines: Vec<String> = first.iter().map(ToString::to_string).collect();
        let path = crate::paths::log_entry(world.table().name(), 0).unwrap();
        world.objects.put(&path, lines.join("\n").into_bytes().into()).await.unwrap();
        let error = world.table().load().await.unwrap_err();
        assert!(error.kind() == ErrorKind::Data && error.message().contains("store_id, month"), "{error}");
        assert!(error.hint().unwrap().contains("A lake of an older release"), "{error}");
    });
}

/// A table of two days, then an OPTIMIZE of another program that merges them into a file of its own.
async fn optimized_by_another() -> World {
    let world = World::new();
    world.offer(1, &[1]).await;
    world.offer(2, &[2]).await;
    let files: Vec<Value> = world.snapshot().await.files().map(removal).collect();
    let info = json!({"commitInfo": {"timestamp": 5, "operation": "OPTIMIZE"}});
    put_entry(&world, &[vec![info], files, vec![foreign_add("part-00000-abc.c000.snappy.parquet")]].concat()).await;
    world
}

/// The newest checkpoint's bytes with every tag taken away, as older releases of another program
/// write them.
async fn untag_newest_checkpoint(world: &World) {
    let mut snapshot = world.snapshot().await;
    for file in snapshot.files().cloned().collect::<Vec<_>>() {
        snapshot.add(AddFile { tags: None, ..file });
    }
    let bytes = super::super::log::checkpoint::write(&snapshot).unwrap();
    let path = world.table().checkpoint_path(snapshot.version()).unwrap();
    world.objects.put(&path, bytes.into()).await.unwrap();
    let hint = json!({"version": snapshot.version(), "size": 1}).to_string();
    world.objects.put(&world.table().last_checkpoint_path().unwrap(), hint.into_bytes().into()).await.unwrap();
}

#[test]
fn a_new_table_keeps_other_writers_out_and_an_older_one_does_from_its_next_entry_on() {
    block_on(async {
        let world = World::new();
        world.offer(1, &[1]).await;
        let ours = world.snapshot().await.protocol.clone();
        assert_eq!((ours.min_reader_version, ours.min_writer_version), (1, 7));
        assert!(ours.writer_features.unwrap().contains(&"ribera".to_owned()));
        // A table of the time before: reader 1, writer 2.
        let world = World::new();
        let metadata = json!({"metaData": {"id": "x", "format": {"provider": "parquet"}, "schemaString": world.dataset.delta_schema(),
            "partitionColumns": ["month"], "configuration": {}}});
        let first = [json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}), metadata];
        let lines: Vec<String> = first.iter().map(ToString::to_string).collect();
        let path = crate::paths::log_entry(world.table().name(), 0).unwrap();
        world.objects.put(&path, lines.join("\n").into_bytes().into()).await.unwrap();
        world.offer(1, &[1]).await;
        let upgraded = world.snapshot().await;
        assert_eq!((upgraded.version(), upgraded.protocol.min_writer_version), (1, 7));
        world.table().checkpoint(world.host.ports(&world.objects)).await.unwrap();
        world.offer(2, &[2]).await;
        assert!(world.snapshot().await.protocol.upgrade().is_none(), "once is enough, from a checkpoint too");
    });
}

#[test]
fn a_partition_with_a_foreign_file_takes_no_batch_and_others_go_on() {
    block_on(async {
        let world = optimized_by_another().await;
        let batch = |store, days: &[i8]| TestBatch {
            store,
            position: Position { epoch: 0, sequence: 9 },
            days: days.iter().map(|day| (*day, vec![TestRow { day: *day, id: 1, cents: 1 }])).collect(),
        };
        let (touched, other) = (batch(2, &[1]), batch(1, &[40]));
        let ports = world.host.ports(&world.objects);
        for one in [&touched, &other] {
            let record = encode(&world.table(), ports, &world.dataset, one).await.unwrap();
            world.table().put_ready(&record).await.unwrap();
        }
        let report = world.table().commit_ready(ports, &world.dataset, &[]).await.unwrap();
        assert!(matches!(report.outcome(&other.id()), Some(BatchOutcome::Committed { .. })));
        let Some(BatchOutcome::Failed(error)) = report.outcome(&touched.id()) else { panic!("{report:?}") };
        assert!(error.kind() == ErrorKind::Data && error.to_string().contains("ribera repair pruebas"), "{error}");
        let today = jiff::civil::date(2026, 3, 1);
        assert_eq!(
            merge_plan(&world.snapshot().await, today, &MergeOptions::default()),
            [],
            "nothing there is merged either"
        );
    });
}

#[test]
fn a_repair_brings_back_what_another_program_removed_and_later_batches_still_win() {
    block_on(async {
        let world = optimized_by_another().await;
        let ports = world.host.ports(&world.objects);
        let dry = world.table().repair(ports, &world.dataset, true).await.unwrap();
        assert_eq!((dry.version, dry.removed.len(), dry.restored.len()), (None, 1, 2));
        let repaired = world.table().repair(ports, &world.dataset, false).await.unwrap();
        assert_eq!((repaired.removed.len(), repaired.restored.len(), repaired.lost.len()), (1, 2, 0));
        let snapshot = world.snapshot().await;
        assert_eq!(snapshot.foreign_files().count(), 0);
        assert_eq!(world.rows(&snapshot).await["s1"].len(), 6);
        world.offer(3, &[2]).await;
        let rows = world.rows(&world.snapshot().await).await;
        assert_eq!(rows["s1"].iter().filter(|row| row.day == 2).map(|row| row.cents).collect::<Vec<_>>(), [3, 3, 3]);
        let again = world.table().repair(ports, &world.dataset, false).await.unwrap();
        assert_eq!(again, Repaired::default(), "a sound table needs no repair, and an old removal of ours none either");
    });
}

#[test]
fn a_repair_undoes_a_deletion_by_another_program_but_not_over_a_later_batch() {
    block_on(async {
        let world = World::new();
        world.offer(1, &[1, 2]).await;
        let files: Vec<Value> = world.snapshot().await.files().map(removal).collect();
        put_entry(&world, &files).await;
        world.offer(2, &[2]).await;
        let ports = world.host.ports(&world.objects);
        let repaired = world.table().repair(ports, &world.dataset, false).await.unwrap();
        assert_eq!(repaired.restored.len(), 1);
        let rows = world.rows(&world.snapshot().await).await;
        let cents = |day| rows["s1"].iter().filter(|row| row.day == day).map(|row| row.cents).collect::<Vec<_>>();
        assert_eq!((cents(1), cents(2)), (vec![1; 3], vec![2; 3]));
        // What is gone cannot come back, and is named.
        let file = world.snapshot().await.files().next().unwrap().clone();
        put_entry(&world, &[removal(&file)]).await;
        world.objects.delete(&file.object_path(world.table().name()).unwrap()).await.unwrap();
        assert_eq!(world.table().repair(ports, &world.dataset, true).await.unwrap().lost, [file.path]);
    });
}

#[test]
fn a_checkpoint_that_lost_our_tags_is_not_believed() {
    block_on(async {
        let world = World::new();
        for sequence in 1..=3 {
            world.offer(sequence, &[sequence as i8]).await;
        }
        let truth = world.snapshot().await;
        untag_newest_checkpoint(&world).await;
        assert_eq!(
            world.snapshot().await.winners(&"s1".parse().unwrap()).unwrap(),
            truth.winners(&"s1".parse().unwrap()).unwrap()
        );
        world.offer(4, &[3]).await;
        assert_eq!(world.rows(&world.snapshot().await).await["s1"].len(), 9, "nothing is doubled");
    });
}

#[test]
fn a_newer_checkpoint_without_tags_is_passed_over_for_the_one_that_the_hint_names() {
    block_on(async {
        for old_log_is_gone in [false, true] {
            let world = World::new();
            world.offer(1, &[1]).await;
            world.offer(2, &[2]).await;
            let ours = world.table().checkpoint(world.host.ports(&world.objects)).await.unwrap().unwrap();
            let hint_path = world.table().last_checkpoint_path().unwrap();
            let hint = world.objects.get(&hint_path).await.unwrap().unwrap();
            world.offer(3, &[3]).await;
            let truth = world.snapshot().await;
            untag_newest_checkpoint(&world).await;
            // Whoever wrote it died before it wrote the hint, or another writer put its own over it.
            world.objects.put(&hint_path, hint.into()).await.unwrap();
            if old_log_is_gone {
                for version in 0..=ours {
                    let entry = crate::paths::log_entry(world.table().name(), version).unwrap();
                    world.objects.delete(&entry).await.unwrap();
                }
            }
            let (store, read) = ("s1".parse().unwrap(), world.snapshot().await);
            assert_eq!(read.version(), truth.version());
            assert_eq!(read.winners(&store).unwrap(), truth.winners(&store).unwrap(), "{old_log_is_gone}");
            world.offer(4, &[3]).await;
            assert_eq!(world.rows(&world.snapshot().await).await["s1"].len(), 9, "nothing is doubled");
        }
    });
}

#[test]
fn without_an_older_log_the_rows_can_be_read_and_no_batch_is_taken_until_the_tags_are_back() {
    block_on(async {
        let world = World::new();
        world.offer(1, &[1]).await;
        untag_newest_checkpoint(&world).await;
        let entries = list_all(&world.objects, "lake/pruebas/_delta_log/", None).await.unwrap();
        let kept: Vec<_> = entries.into_iter().filter(|meta| meta.path.as_str().ends_with(".json")).collect();
        for meta in &kept {
            world.objects.delete(&meta.path).await.unwrap();
        }
        let snapshot = world.snapshot().await;
        assert_eq!((snapshot.file_count(), snapshot.foreign_files().count()), (1, 1));
        let ports = world.host.ports(&world.objects);
        let repaired = world.table().repair(ports, &world.dataset, true).await.unwrap();
        assert_eq!((repaired.removed.len(), repaired.restored.len()), (1, 0), "nothing is left that knows the tags");
        assert_eq!(world.table().checkpoint(ports).await.unwrap(), None, "the loss is not written down");
    });
}

#[test]
fn a_checkpoint_in_several_files_is_read_and_one_that_misses_a_file_is_passed_over() {
    block_on(async {
        let world = World::new();
        world.offer(1, &[1]).await;
        world.offer(2, &[2]).await;
        let truth = world.snapshot().await;
        // One file holds the schema and one data file, the other the rest.
        let part = |keep: usize| {
            let mut half = truth.clone();
            half.partitions.clear();
            half.add(truth.files().nth(keep).unwrap().clone());
            super::super::log::checkpoint::write(&half).unwrap()
        };
        let name = |part: u32| format!("lake/pruebas/_delta_log/{:020}.checkpoint.{part:010}.0000000002.parquet", 2);
        for number in 1..=2_u32 {
            world.objects.put(&ObjectPath::new(name(number)).unwrap(), part(number as usize - 1).into()).await.unwrap();
        }
        for version in 0..=2 {
            world.objects.delete(&crate::paths::log_entry(world.table().name(), version).unwrap()).await.unwrap();
        }
        assert_eq!(world.rows(&world.snapshot().await).await, world.rows(&truth).await);
        world.offer(3, &[1]).await;
        world.objects.delete(&ObjectPath::new(name(2)).unwrap()).await.unwrap();
        assert!(world.table().load().await.is_err(), "half a checkpoint is none");
    });
}

#[test]
fn a_log_that_begins_with_a_checkpoint_that_cannot_be_read_fails_with_its_number_and_cause() {
    block_on(async {
        let world = World::new();
        world.offer(1, &[1]).await;
        let path = world.table().checkpoint_path(1).unwrap();
        world.objects.put(&path, Bytes::from_static(b"PAR1 and no more PAR1").into()).await.unwrap();
        world.offer(2, &[2]).await;
        for version in 0..=1 {
            world.objects.delete(&crate::paths::log_entry(world.table().name(), version).unwrap()).await.unwrap();
        }
        let error = world.table().load().await.unwrap_err();
        assert!(error.kind() == ErrorKind::Data && error.message().contains("checkpoint 1: "), "{error}");
    });
}

#[test]
fn whatever_another_program_writes_as_commit_info_the_table_can_be_read() {
    block_on(async {
        for info in [
            json!({"operationParameters": null, "timestamp": 1.5, "operation": 7}),
            json!("a text"),
            json!(null),
            json!([1, 2]),
            json!({"ribera": {"writeId": 7}}),
            json!({"ribera": "x", "isBlindAppend": "yes", "engineInfo": {}}),
        ] {
            let world = World::new();
            world.offer(1, &[1]).await;
            put_entry(&world, &[json!({"commitInfo": info})]).await;
            world.offer(2, &[2]).await;
            assert_eq!(world.rows(&world.snapshot().await).await["s1"].len(), 6, "{info}");
            assert_eq!(world.table().history(9).await.unwrap().len(), 4);
        }
    });
}

#[test]
fn nullable_columns_and_comments_of_another_program_stay_through_our_own_changes() {
    block_on(async {
        let world = World::new();
        world.offer(1, &[1]).await;
        let metadata = world.snapshot().await.metadata.clone();
        let mut schema: Value = serde_json::from_str(&metadata.schema_string).unwrap();
        let fields = schema["fields"].as_array_mut().unwrap();
        fields[2]["metadata"] = json!({"comment": "business date"});
        fields.push(json!({"name": "nota", "type": "string", "nullable": true, "metadata": {}}));
        let nested =
            json!({"type": "struct", "fields": [{"name": "a", "type": "long", "nullable": true, "metadata": {}}]});
        fields.push(json!({"name": "extra", "type": nested, "nullable": true, "metadata": {"comment": "x"}}));
        let changed = log::action::Metadata { schema_string: schema.to_string(), ..metadata };
        put_entry(&world, &[json!({"metaData": changed})]).await;
        world.offer(2, &[2]).await;
        let mut wider = world.dataset.clone();
        wider.version = 2;
        wider.columns.push(crate::dataset::Column { name: "caja".into(), ..wider.columns[3].clone() });
        let batch = TestBatch {
            store: 1,
            position: Position { epoch: 0, sequence: 3 },
            days: [(3, vec![TestRow { day: 3, id: 1, cents: 1 }])].into(),
        };
        offer(&world.table(), world.host.ports(&world.objects), &wider, &batch).await.unwrap();
        let found: Value = serde_json::from_str(&world.snapshot().await.metadata.schema_string).unwrap();
        let names: Vec<&str> =
            found["fields"].as_array().unwrap().iter().filter_map(|one| one["name"].as_str()).collect();
        assert!(names.ends_with(&["caja", "nota", "extra"]), "{names:?}");
        assert_eq!(found["fields"][2]["metadata"]["comment"], "business date");
    });
}

#[test]
fn a_table_that_a_person_protects_is_not_written_until_a_repair_unsets_it() {
    block_on(async {
        let world = World::new();
        world.offer(1, &[1]).await;
        let mut metadata = world.snapshot().await.metadata.clone();
        metadata.configuration.insert("delta.appendOnly".into(), "true".into());
        metadata.configuration.insert("delta.logRetentionDuration".into(), "interval 9 days".into());
        put_entry(&world, &[json!({"metaData": metadata})]).await;
        let batch = TestBatch {
            store: 1,
            position: Position { epoch: 0, sequence: 2 },
            days: [(1, vec![TestRow { day: 1, id: 1, cents: 1 }])].into(),
        };
        let ports = world.host.ports(&world.objects);
        let error = offer(&world.table(), ports, &world.dataset, &batch).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.message().contains("delta.appendOnly"), "{error}");
        assert_eq!(error.hint(), Some("ribera repair pruebas"));
        let repaired = world.table().repair(ports, &world.dataset, false).await.unwrap();
        assert_eq!((repaired.unset, repaired.removed.len()), (vec!["delta.appendOnly".to_owned()], 0));
        assert_eq!(world.snapshot().await.metadata.configuration.len(), 1, "other properties stay");
        offer(&world.table(), ports, &world.dataset, &batch).await.unwrap();
        assert_eq!(world.rows(&world.snapshot().await).await["s1"].len(), 1);
    });
}

#[test]
fn a_table_that_another_program_upgraded_is_refused_with_what_to_do() {
    block_on(async {
        for protocol in [
            json!({"minReaderVersion": 1, "minWriterVersion": 3}),
            json!({"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}),
        ] {
            let world = World::new();
            world.offer(1, &[1]).await;
            put_entry(&world, &[json!({"protocol": protocol})]).await;
            let error = world.table().load().await.unwrap_err();
            assert!(error.kind() == ErrorKind::Data && error.message().contains("log entry 2"), "{error}");
            assert!(error.hint().unwrap().contains("docs/operator.md"), "{error}");
        }
    });
}

#[test]
fn vacuum_leaves_the_folders_of_other_programs_alone() {
    block_on(async {
        let world = World::new();
        world.offer(1, &[1]).await;
        for path in
            ["_symlink_format_manifest/manifest", "_change_data/x.parquet", "month=2026-01/.tmp/x", "orphan.parquet"]
        {
            let path = ObjectPath::new(format!("lake/pruebas/{path}")).unwrap();
            world.objects.put(&path, Bytes::from_static(b"x").into()).await.unwrap();
        }
        world.advance(jiff::SignedDuration::from_hours(24 * 30));
        let plan = world.table().vacuum_plan(world.host.now(), VACUUM_RETENTION).await.unwrap();
        let names: Vec<&str> = plan.iter().map(|meta| meta.path.as_str()).collect();
        assert_eq!(names, ["lake/pruebas/orphan.parquet"]);
    });
}

#[test]
fn the_time_of_arrival_goes_with_its_unit_through_every_rewrite() {
    block_on(async {
        let world = World::new();
        world.offer(1, &[1, 2]).await;
        let arrived = world.host.now();
        world.advance(jiff::SignedDuration::from_hours(30));
        world.offer(2, &[2]).await;
        for sequence in 3..=9 {
            world.offer(sequence, &[sequence as i8]).await;
        }
        let ports = world.host.ports(&world.objects);
        let options = MergeOptions { files_min: 2, ..MergeOptions::default() };
        let groups = merge_plan(&world.snapshot().await, jiff::civil::date(2026, 1, 31), &options);
        assert!(world.table().merge(ports, &world.dataset, &groups[0]).await.unwrap().committed);
        let winners = world.snapshot().await.winners(&"s1".parse().unwrap()).unwrap();
        assert_eq!(winners[&unit(1)].received_at, arrived, "written again twice, arrived once");
        assert_ne!(winners[&unit(2)].received_at, arrived);
    });
}

#[test]
fn one_record_whose_units_cannot_be_read_fails_alone_and_a_lost_race_does_not_spread_it() {
    block_on(async {
        let world = World::new();
        let ports = world.host.ports(&world.objects);
        let batch = |store| TestBatch {
            store,
            position: Position { epoch: 0, sequence: 1 },
            days: [(1, vec![TestRow { day: 1, id: 1, cents: 1 }])].into(),
        };
        let mut poisoned = encode(&world.table(), ports, &world.dataset, &batch(1)).await.unwrap();
        poisoned.units = "total,z|@s1|2026-01-05;0;99|2026-01-01;0;1;c?;0".to_owned();
        world.table().put_ready(&poisoned).await.unwrap();
        // Others commit meanwhile: this caller loses races with the poisoned record at hand.
        for store in 2..6 {
            let record = encode(&world.table(), ports, &world.dataset, &batch(store)).await.unwrap();
            world.table().put_ready(&record).await.unwrap();
            let report = world.table().commit_records(ports, &world.dataset, &[record]).await.unwrap();
            assert!(matches!(report.outcome(&batch(store).id()), Some(BatchOutcome::Committed { .. })), "{report:?}");
        }
    });
}
