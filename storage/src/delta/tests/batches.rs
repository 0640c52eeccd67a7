//! Single batches: what each comes to, and what it leaves alone.

use futures::executor::block_on;

use super::*;
use crate::ErrorKind;
use crate::dataset::{Column, ColumnType};
use crate::object::MemoryStore;

fn batch(store: u8, sequence: u64, days: &[(i8, &[i64])]) -> TestBatch {
    let rows = |day: i8, cents: &[i64]| {
        cents.iter().enumerate().map(|(id, cents)| TestRow { day, id: id as u32 + 1, cents: *cents }).collect()
    };
    TestBatch {
        store,
        position: Position { epoch: 0, sequence },
        days: days.iter().map(|(day, cents)| (*day, rows(*day, cents))).collect(),
    }
}

fn table(objects: &MemoryStore) -> Table<'_, MemoryStore> {
    Table::new(objects, "pruebas".parse().unwrap())
}

async fn all(objects: &MemoryStore, dataset: &DatasetDefinition) -> BTreeMap<String, Vec<TestRow>> {
    let table = table(objects);
    let snapshot = table.load().await.unwrap().unwrap();
    content(&table, dataset, &snapshot).await
}

fn retyped(column: &str, kind: ColumnType) -> DatasetDefinition {
    let mut dataset = dataset();
    dataset.columns.iter_mut().find(|one| one.name == column).unwrap().column_type = kind;
    dataset
}

#[test]
fn a_day_audited_as_empty_is_a_fact_in_the_lake() {
    block_on(async {
        let (objects, host, dataset) = (MemoryStore::new(), Host::new(1), dataset());
        let empty = batch(1, 1, &[(1, &[])]);
        let report = offer(&table(&objects), host.ports(&objects), &dataset, &empty).await.unwrap();
        let outcome = report.outcome(&empty.id()).unwrap();
        assert!(
            matches!(outcome, BatchOutcome::Committed { version: 1, rows: 0, units } if units.len() == 1),
            "{outcome:?}"
        );
        let snapshot = table(&objects).load().await.unwrap().unwrap();
        let winners = snapshot.winners(&"s1".parse().unwrap()).unwrap();
        assert!(winners[&unit(1)].is_proven());
        assert_eq!(snapshot.files().next().unwrap().rows(), Some(0));
        assert!(content(&table(&objects), &dataset, &snapshot).await.is_empty());
    });
}

#[test]
fn a_batch_offered_again_changes_nothing_and_leaves_no_ready_record() {
    block_on(async {
        let (objects, host, dataset) = (MemoryStore::new(), Host::new(1), dataset());
        let (older, newer) = (batch(1, 1, &[(1, &[5]), (2, &[6])]), batch(1, 2, &[(1, &[7])]));
        for one in [&older, &newer] {
            offer(&table(&objects), host.ports(&objects), &dataset, one).await.unwrap();
        }
        let before = all(&objects, &dataset).await;
        for (one, rows) in [(&older, 1), (&newer, 1)] {
            let report = offer(&table(&objects), host.ports(&objects), &dataset, one).await.unwrap();
            assert_eq!(report.version, None);
            assert!(
                matches!(report.outcome(&one.id()).unwrap(), BatchOutcome::Committed { rows: found, .. } if *found == rows)
            );
        }
        let superseded = batch(1, 0, &[(1, &[1])]);
        let report = offer(&table(&objects), host.ports(&objects), &dataset, &superseded).await.unwrap();
        assert!(matches!(report.outcome(&superseded.id()), Some(BatchOutcome::Superseded)));
        assert_eq!(all(&objects, &dataset).await, before);
        assert_eq!(table(&objects).list_ready().await.unwrap(), []);
    });
}

#[test]
fn one_commit_settles_the_ready_batches_of_all_stores_and_names_them() {
    block_on(async {
        let (objects, host, dataset) = (MemoryStore::new(), Host::new(1), dataset());
        let table = table(&objects);
        for store in 0..9 {
            let record = encode(&table, host.ports(&objects), &dataset, &batch(store, 1, &[(1, &[1])])).await.unwrap();
            table.put_ready(&record).await.unwrap();
        }
        let report = table.commit_ready(host.ports(&objects), &dataset, &[]).await.unwrap();
        assert_eq!((report.version, report.outcomes.len()), (Some(1), 9));
        let history = table.history(10).await.unwrap();
        assert_eq!(history[0].1.ribera.as_ref().unwrap().batches.len(), 9);
        assert_eq!(history[1].1.operation, "CREATE TABLE");
        assert!(table.commit_ready(host.ports(&objects), &dataset, &[]).await.unwrap().outcomes.is_empty());
    });
}

#[test]
fn a_record_older_than_a_day_or_without_its_file_holds_up_no_other() {
    block_on(async {
        let (objects, host, dataset) = (MemoryStore::new(), Host::new(1), dataset());
        let table = table(&objects);
        let (old, broken, good) = (batch(1, 1, &[(1, &[1])]), batch(2, 2, &[(1, &[2])]), batch(3, 1, &[(1, &[3])]));
        let mut record = encode(&table, host.ports(&objects), &dataset, &old).await.unwrap();
        record.ready_at = host.now().checked_sub(jiff::SignedDuration::from_hours(25)).unwrap();
        table.put_ready(&record).await.unwrap();
        // A schema of another time must be read, and the file is gone.
        let mut record = encode(&table, host.ports(&objects), &dataset, &broken).await.unwrap();
        objects.delete(&record.files[0].object_path(table.name()).unwrap()).await.unwrap();
        record.schema_hash = "another".into();
        table.put_ready(&record).await.unwrap();
        let report = offer(&table, host.ports(&objects), &dataset, &good).await.unwrap();
        assert!(matches!(report.outcome(&old.id()), Some(BatchOutcome::Expired)));
        let failed = report.outcome(&broken.id()).unwrap();
        assert!(matches!(failed, BatchOutcome::Failed(error) if error.kind() == ErrorKind::Data), "{failed:?}");
        assert!(matches!(report.outcome(&good.id()), Some(BatchOutcome::Committed { .. })));
        assert_eq!(all(&objects, &dataset).await.len(), 1);
    });
}

#[test]
fn a_column_added_and_a_small_widening_come_with_the_first_batch_that_has_them() {
    block_on(async {
        let (objects, host, old) = (MemoryStore::new(), Host::new(1), dataset());
        let table = table(&objects);
        offer(&table, host.ports(&objects), &old, &batch(1, 1, &[(1, &[1]), (2, &[2])])).await.unwrap();
        let waiting = encode(&table, host.ports(&objects), &old, &batch(2, 1, &[(1, &[5])])).await.unwrap();
        table.put_ready(&waiting).await.unwrap();
        let mut new = retyped("corto", ColumnType::Int32);
        new.columns.push(Column { name: "nota".into(), ..new.columns[1].clone() });
        new.columns.last_mut().unwrap().nullable = true;
        // Replaces day 2 of a file of the old schema: day 1 is written again in the new one.
        let report = offer(&table, host.ports(&objects), &new, &batch(1, 2, &[(2, &[3])])).await.unwrap();
        assert_eq!(report.outcomes.len(), 2);
        let found = all(&objects, &new).await;
        assert_eq!(found["s1"].iter().map(|row| row.cents).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(found["s2"].len(), 1, "a record of the old schema is committed too");
        let snapshot = table.load().await.unwrap().unwrap();
        assert_eq!(snapshot.metadata().schema_string, new.delta_schema());
        let error = offer(&table, host.ports(&objects), &old, &batch(1, 3, &[(2, &[3])])).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.message().contains("corto"), "{error}");
    });
}

#[test]
fn a_widening_to_another_physical_type_is_refused_until_the_table_is_migrated() {
    block_on(async {
        let (objects, host, old) = (MemoryStore::new(), Host::new(1), dataset());
        let table = table(&objects);
        offer(&table, host.ports(&objects), &old, &batch(1, 1, &[(1, &[1, 2]), (2, &[2])])).await.unwrap();
        let waiting = encode(&table, host.ports(&objects), &old, &batch(2, 1, &[(1, &[5])])).await.unwrap();
        table.put_ready(&waiting).await.unwrap();
        let new = retyped("piezas", ColumnType::Int64);
        let error = offer(&table, host.ports(&objects), &new, &batch(1, 2, &[(2, &[3])])).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.hint().is_some(), "{error}");
        assert!(table.migrate(host.ports(&objects), &new).await.unwrap());
        assert!(!table.migrate(host.ports(&objects), &new).await.unwrap(), "once is enough");
        let report = table.commit_ready(host.ports(&objects), &new, &[]).await.unwrap();
        assert_eq!(report.outcomes.len(), 2);
        let found = all(&objects, &new).await;
        assert_eq!(found["s1"].iter().map(|row| row.cents).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(found["s2"].len(), 1);
        let snapshot = table.load().await.unwrap().unwrap();
        for file in snapshot.files() {
            let bytes = table.read_file(file).await.unwrap();
            let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
            assert_eq!(*reader.schema().field_with_name("piezas").unwrap().data_type(), arrow_schema::DataType::Int64);
        }
    });
}

#[test]
fn a_table_upgraded_by_another_program_is_refused_not_written_over() {
    block_on(async {
        let (objects, host, dataset) = (MemoryStore::new(), Host::new(1), dataset());
        let table = table(&objects);
        offer(&table, host.ports(&objects), &dataset, &batch(1, 1, &[(1, &[1])])).await.unwrap();
        let entry = crate::paths::log_entry(table.name(), 2).unwrap();
        let upgrade =
            r#"{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":[],"writerFeatures":[]}}"#;
        objects.put(&entry, Bytes::from_static(upgrade.as_bytes()).into()).await.unwrap();
        let error = offer(&table, host.ports(&objects), &dataset, &batch(1, 2, &[(1, &[1])])).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Data && error.message().contains("reader 3"), "{error}");
    });
}

#[test]
fn a_full_file_ends_at_a_border_between_units_and_the_statistics_are_true() {
    let dataset = dataset();
    let days: BTreeMap<i8, Vec<TestRow>> = (1..=6)
        .map(|day| {
            (
                day,
                (0..day as u32 % 4 * 100).map(|id| TestRow { day, id, cents: i64::from(day) * 1000 - 1500 }).collect(),
            )
        })
        .collect();
    let batch = TestBatch { days, ..batch(1, 1, &[]) };
    let tags =
        batch.manifest().units.iter().map(|facts| UnitTag::new(&batch.id(), facts, facts.extracted_at)).collect();
    let options = LakeWriterOptions { file_bytes_max: 1, ..LakeWriterOptions::default() };
    let mut writer = LakeWriter::new(&dataset, tags, options).unwrap();
    // Ragged pieces: borders of pieces are not borders of units.
    let rows = record_batch(&dataset, &batch.rows());
    for start in (0..rows.num_rows()).step_by(70) {
        writer.write(&rows.slice(start, 70.min(rows.num_rows() - start))).unwrap();
    }
    let files = writer.finish().unwrap();
    let units: Vec<Vec<String>> = files
        .iter()
        .map(|file| file.units.to_vec().unwrap().iter().map(|tag| tag.unit.to_string()[8..].to_owned()).collect())
        .collect();
    assert_eq!(units, [vec!["01"], vec!["02"], vec!["03"], vec!["04", "05"], vec!["06"]]);
    let stats: serde_json::Value = serde_json::from_str(&files[0].stats).unwrap();
    assert_eq!(stats["numRecords"], 100);
    assert_eq!(stats["minValues"]["fecha"], "2026-01-01");
    assert_eq!(stats["maxValues"]["id"], "clave-ñ-000099");
    assert_eq!(stats["minValues"]["largo"], i64::MAX - 98);
    assert_eq!(stats["minValues"]["hora"], "2026-01-02T00:00:01.000001Z");
    assert_eq!(stats["nullCount"]["piezas"], 34);
    assert!(
        files[0].stats.contains("\"total\":-5.00")
            && files[0].stats.contains("\"ancho\":-123456789012345678901.235067"),
        "{}",
        files[0].stats
    );
    assert!(stats["minValues"]["peso"].is_null() && stats["minValues"]["abierto"].is_null());
}

#[test]
fn the_writer_refuses_rows_that_are_not_what_the_units_say() {
    let dataset = dataset();
    let attempt = |units: &[(i8, &[i64])], rows: &[(i8, u32)]| {
        let batch = batch(1, 1, units);
        let units = batch.manifest().units;
        let tags = units.iter().map(|facts| UnitTag::new(&batch.id(), facts, facts.extracted_at)).collect();
        let mut writer = LakeWriter::new(&dataset, tags, LakeWriterOptions::default()).unwrap();
        let rows: Vec<TestRow> = rows.iter().map(|(day, id)| TestRow { day: *day, id: *id, cents: 1 }).collect();
        writer.write(&record_batch(&dataset, &rows)).and_then(|()| writer.finish())
    };
    assert!(attempt(&[(1, &[1]), (2, &[1])], &[(1, 1), (2, 1)]).is_ok());
    for (units, rows, word) in [
        (&[(1_i8, &[1_i64][..]), (2, &[1])][..], &[(2_i8, 1_u32), (1, 1)][..], "order"),
        (&[(1, &[1])], &[(1, 1), (3, 1)], "2026-01-03"),
        (&[(1, &[1, 1])], &[(1, 1)], "must have 2 rows, got 1"),
    ] {
        let error = attempt(units, rows).unwrap_err();
        assert!(error.kind() == ErrorKind::Reject && error.message().contains(word), "{error}");
    }
}
