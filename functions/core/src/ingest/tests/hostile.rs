//! What one store's credential may write, and that only that store suffers.

use ribera_storage::ExactDecimal;
use ribera_storage::batch::{Facts, MANIFEST_BYTES_MAX, QuarantineReason};
use ribera_storage::delta::{AddFile, Table};

use super::*;
use crate::coverage::{self, CoverageSettings, DayState};

fn id(sequence: u64) -> String {
    format!("s1/ventas/000000-{sequence:010}")
}

/// Puts a manifest past the checks of an honest agent, and its file.
async fn put_raw(host: &TestHost, sent: &Sent) {
    sent.put_file(&host.objects).await;
    host.objects.put(&sent.inbox(), serde_json::to_vec(&sent.manifest).unwrap().into()).await.unwrap();
}

async fn refused(host: &TestHost, sent: &Sent) -> (QuarantineReason, String) {
    match ingest(host, &[sent]).await.remove(0) {
        Outcome::Quarantined { reason, detail } => (reason, detail),
        other => panic!("{other:?}"),
    }
}

/// Coverage of `DAY` in every store, after an honest batch of s2.
async fn states(host: &TestHost) -> Vec<DayState> {
    let coverage = coverage::compute(host.ports(), &"ventas".parse().unwrap()).await.unwrap();
    coverage.stores.iter().map(|store| store.calendar.state(DAY)).collect()
}

async fn honest(host: &TestHost) {
    let sent = Sent::new("s2/ventas/000000-0000000001", &[DAY], 3);
    sent.put(&host.objects).await;
    assert!(matches!(ingest(host, &[&sent]).await[0], Outcome::Committed { .. }));
}

#[test]
fn a_sum_that_the_dataset_does_not_name_is_refused_wherever_it_stands() {
    block_on(async {
        let host = world().await;
        honest(&host).await;
        let names = ["a,b", "z|2026-01-05;0;99", "z|x", "", "a;b", "Ñ", "precio_unitario", "x\u{1b}[2J", "total "];
        for (index, name) in names.into_iter().enumerate() {
            for in_audit in [false, true] {
                let mut sent = Sent::new(&id(index as u64 * 2 + u64::from(in_audit)), &[DAY], 3);
                let unit = &mut sent.manifest.units[0];
                let facts: &mut Facts = if in_audit { unit.audit.as_mut().unwrap() } else { &mut unit.file };
                facts.sums.insert(name.to_owned(), ExactDecimal::ZERO);
                put_raw(&host, &sent).await;
                let (reason, detail) = refused(&host, &sent).await;
                assert_eq!(reason, QuarantineReason::ManifestInvalid, "{name:?}: {detail}");
                assert!(detail.contains("sums") && !detail.contains('\u{1b}'), "{detail}");
            }
        }
        assert_eq!(states(&host).await, [DayState::Partial, DayState::Complete, DayState::Missing]);
        let snapshot = Table::new(&host.objects, "ventas".parse().unwrap()).load().await.unwrap().unwrap();
        assert!(snapshot.files().all(|file| file.units().is_ok()));
    });
}

#[test]
fn a_manifest_that_is_too_large_is_refused_without_being_read_and_makes_only_its_store_doubtful() {
    block_on(async {
        let host = world().await;
        let first = Sent::new("s1/ventas/000000-0000000001", &[DAY], 3);
        first.put(&host.objects).await;
        ingest(&host, &[&first]).await;
        honest(&host).await;
        let large = Sent::new("s1/ventas/000000-0000000009", &[DAY], 3);
        let bytes = vec![b' '; MANIFEST_BYTES_MAX + 7];
        host.objects.put(&large.inbox(), bytes.into()).await.unwrap();
        // While it waits already.
        assert_eq!(states(&host).await[..2], [DayState::Partial, DayState::Complete]);
        let outcomes = swept(&host).await;
        let Outcome::Quarantined { reason, detail } = &outcomes[0] else { panic!("{outcomes:?}") };
        assert_eq!(*reason, QuarantineReason::LimitExceeded);
        assert!(detail.contains(&(MANIFEST_BYTES_MAX + 7).to_string()), "{detail}");
        assert_eq!(names(&host.objects, "inbox/").await, Vec::<String>::new());
        assert_eq!(states(&host).await[..2], [DayState::Partial, DayState::Complete]);
        let entries = quarantine::list(host.ports(), None, 10).await.unwrap();
        assert_eq!(entries[0].record.manifest, "", "nothing of it is kept");
    });
}

#[test]
fn business_dates_that_no_till_can_mean_are_refused() {
    block_on(async {
        let host = world().await;
        // s1 opened on 2026-01-01, and it is 2026-02-01.
        for (index, (day, fits)) in [
            (date(2024, 12, 31), false),
            (date(2025, 1, 1), true),
            (date(2026, 2, 3), true),
            (date(2026, 2, 4), false),
            (date(1, 1, 1), false),
            (date(9999, 12, 31), false),
        ]
        .into_iter()
        .enumerate()
        {
            let sent = Sent::new(&id(index as u64), &[day], 1);
            sent.put(&host.objects).await;
            match (ingest(&host, &[&sent]).await.remove(0), fits) {
                (Outcome::Committed { .. }, true) => {}
                (Outcome::Quarantined { reason: QuarantineReason::DateOutsideBatch, detail }, false) => {
                    assert!(detail.contains(&day.to_string()), "{detail}");
                }
                (other, _) => panic!("{day}: {other:?}"),
            }
        }
    });
}

#[test]
fn more_units_than_a_month_has_days_are_refused() {
    block_on(async {
        let host = world().await;
        let mut sent = Sent::new(&id(1), &[DAY], 1);
        let unit = sent.manifest.units[0].clone();
        sent.manifest.units = vec![unit; 32];
        put_raw(&host, &sent).await;
        assert_eq!(refused(&host, &sent).await.0, QuarantineReason::ManifestInvalid);
        // Rows whose total does not fit a number are no crash.
        let mut sent = Sent::new(&id(2), &[DAY, DAY.tomorrow().unwrap()], 1);
        sent.manifest.units[0].file.rows = u64::MAX;
        sent.manifest.units[1].file.rows = 2;
        put_raw(&host, &sent).await;
        assert_eq!(refused(&host, &sent).await.0, QuarantineReason::ManifestInvalid);
    });
}

#[test]
fn a_crowd_of_manifests_of_one_store_does_not_make_the_others_wait() {
    block_on(async {
        let host = world().await;
        for sequence in 0..600 {
            // Without their file: they wait.
            Sent::new(&id(sequence), &[DAY], 0).put_manifest(&host.objects).await;
        }
        for store in ["s2", "s3"] {
            Sent::new(&format!("{store}/ventas/000000-0000000001"), &[DAY], 3).put(&host.objects).await;
        }
        let budget = SweepBudget { manifests_max: 2, ..SweepBudget::default() };
        let report = sweep(host.ports(), &settings(), &budget).await.unwrap().report;
        assert_eq!(report.count(|outcome| matches!(outcome, Outcome::Committed { .. })), 2);
        assert!(report.outcomes.len() < 300, "a sweep looks at a part of the crowd only");
    });
}

#[test]
fn a_batch_that_fails_in_every_sweep_is_quarantined_with_the_error_and_can_be_replayed() {
    block_on(async {
        let host = world().await;
        honest(&host).await;
        // A foreign file in the partition: no batch of January can be planned.
        let sent = Sent::new(&id(1), &[DAY], 3);
        let add = serde_json::json!({"add": {"path": "month=2026-01/part-00000-x.snappy.parquet", "size": 7,
            "modificationTime": 1, "dataChange": true, "partitionValues": {"month": "2026-01"}}});
        let entry = paths::log_entry(&"ventas".parse().unwrap(), 2).unwrap();
        host.objects.put(&entry, add.to_string().into_bytes().into()).await.unwrap();
        assert_eq!(states(&host).await, [DayState::Missing, DayState::Partial, DayState::Missing]);
        sent.put(&host.objects).await;
        for sweep in 0..2 {
            let outcome = swept(&host).await.remove(0);
            let Outcome::Failed { message, cause } = &outcome else { panic!("{sweep}: {outcome:?}") };
            assert!(*cause == FailureCause::Shared && message.contains("ribera repair"), "{message}");
            host.clock.advance(1800);
        }
        let outcome = swept(&host).await.remove(0);
        let Outcome::Quarantined { reason, detail } = &outcome else { panic!("{outcome:?}") };
        assert!(*reason == QuarantineReason::FailsAlways && detail.contains("another program"), "{detail}");
        assert_eq!(names(&host.objects, "state/failures/").await, Vec::<String>::new());
        assert_eq!(names(&host.objects, "state/ready/").await, Vec::<String>::new());
        let table = Table::new(&host.objects, "ventas".parse().unwrap());
        table.repair(host.ports(), &ventas(), false).await.unwrap();
        quarantine::replay(host.ports(), &sent.manifest.batch).await.unwrap();
        assert!(matches!(swept(&host).await[0], Outcome::Committed { .. }));
        assert_eq!(states(&host).await[0], DayState::Complete);
    });
}

#[test]
fn the_last_hours_of_the_year_9999_are_a_moment_like_any_other() {
    block_on(async {
        use arrow_array::TimestampMicrosecondArray;
        let host = world().await;
        // 9999-12-31T23:59:59.999999Z, later than the last timestamp that jiff knows.
        let last = 253_402_300_799_999_999_i64;
        let all = lines("s1", DAY, 3);
        let mut columns = columns(&all);
        columns[4] = std::sync::Arc::new(TimestampMicrosecondArray::from(vec![last; 3]).with_timezone("UTC"));
        let file = parquet_with(ventas().arrow_schema().as_ref().clone(), columns);
        let sent = Sent { manifest: manifest(&id(1), &[DAY], &all, &file), file };
        sent.put(&host.objects).await;
        assert!(matches!(ingest(&host, &[&sent]).await[0], Outcome::Committed { .. }));
        let snapshot = Table::new(&host.objects, "ventas".parse().unwrap()).load().await.unwrap().unwrap();
        let stats = snapshot.files().next().unwrap().stats.clone().unwrap();
        assert!(stats.contains("9999-12-31T23:59:59.999999Z"), "{stats}");
    });
}

#[test]
fn one_unreadable_tag_in_the_log_makes_only_its_store_doubtful() {
    block_on(async {
        let host = world().await;
        let sent = Sent::new(&id(1), &[DAY], 3);
        sent.put(&host.objects).await;
        ingest(&host, &[&sent]).await;
        honest(&host).await;
        let table = Table::new(&host.objects, "ventas".parse().unwrap());
        let snapshot = table.load().await.unwrap().unwrap();
        let file = snapshot.store_files(&"s1".parse().unwrap()).next().unwrap();
        let mut spoilt: AddFile = file.clone();
        let tag = spoilt.tags.as_mut().unwrap().get_mut("ribera.units").unwrap();
        *tag = Some("cantidad,total,z|2026-01-05;0;99|2026-01-10;0;1;c?;1".to_owned());
        let entry = paths::log_entry(&"ventas".parse().unwrap(), snapshot.version() + 1).unwrap();
        let line = serde_json::json!({"add": spoilt}).to_string();
        host.objects.put(&entry, line.into_bytes().into()).await.unwrap();
        assert_eq!(states(&host).await[1], DayState::Complete);
        assert_ne!(states(&host).await[0], DayState::Complete);
        let refreshed = coverage::refresh(host.ports(), &CoverageSettings::default()).await.unwrap();
        assert_eq!((refreshed.summaries.len(), refreshed.failed.len()), (1, 0));
        let later = Sent::new("s3/ventas/000000-0000000001", &[DAY], 3);
        later.put(&host.objects).await;
        assert!(matches!(ingest(&host, &[&later]).await[0], Outcome::Committed { .. }), "the table goes on");
    });
}

#[test]
fn a_replay_does_not_make_a_batch_younger_than_it_was() {
    block_on(async {
        let host = world().await;
        // It is noon of 1 February: an agent whose clock is ahead has closed the day already.
        let today = date(2026, 2, 1);
        let mut early = Sent::new(&id(1), &[today], 3);
        early.state_sha256("0".repeat(64));
        early.put(&host.objects).await;
        assert_eq!(refused(&host, &early).await.0, QuarantineReason::FileHashMismatch);
        host.clock.advance(3 * 86_400);
        host.objects.set_now("2026-02-04T12:00:00Z".parse().unwrap());
        let error = quarantine::replay(host.ports(), &early.manifest.batch).await.unwrap_err();
        assert!(error.kind() == ribera_storage::ErrorKind::Config && error.message().contains("2026-02-01"), "{error}");
        assert_eq!(quarantine::show(host.ports(), &early.manifest.batch).await.unwrap().len(), 1, "nothing is touched");
        // A day that was over then is offered again, and so is one that was not called closed.
        let mut open = Sent::new(&id(2), &[today], 3);
        open.manifest.units[0].closed = false;
        for (sequence, mut sent) in [(2, open), (3, Sent::new(&id(3), &[DAY], 3))] {
            sent.state_sha256("1".repeat(64));
            sent.put(&host.objects).await;
            refused(&host, &sent).await;
            assert!(quarantine::replay(host.ports(), &sent.manifest.batch).await.is_ok(), "{sequence}");
        }
    });
}

#[test]
fn a_batch_put_before_its_day_was_over_proves_nothing_however_late_its_event_is_handled() {
    for by_event in [true, false] {
        block_on(async {
            let host = world().await;
            let day = date(2026, 2, 1);
            let mut states = Vec::new();
            // The day ends at 03:00 in UTC. An agent whose clock is ahead calls it closed at both times.
            for (sequence, put_at) in [(1, "2026-02-02T02:59:58Z"), (2, "2026-02-02T03:00:00Z")] {
                host.objects.set_now(put_at.parse().unwrap());
                let sent = Sent::new(&id(sequence), &[day], 3);
                sent.put(&host.objects).await;
                // Nobody handles it before 12:00.
                let now = "2026-02-02T12:00:00Z".parse().unwrap();
                host.clock.set(now);
                host.objects.set_now(now);
                let outcomes = if by_event { ingest(&host, &[&sent]).await } else { swept(&host).await };
                assert!(matches!(outcomes[0], Outcome::Committed { .. }), "{outcomes:?}");
                let coverage = coverage::compute(host.ports(), &"ventas".parse().unwrap()).await.unwrap();
                states.push(coverage.stores[0].calendar.state(day));
            }
            assert!(states[0] != DayState::Complete && states[1] == DayState::Complete, "{by_event}: {states:?}");
        });
    }
}

#[test]
fn every_record_in_quarantine_says_when_its_batch_was_put_and_one_that_does_not_is_not_offered_again() {
    block_on(async {
        let host = world().await;
        let put_at: jiff::Timestamp = "2026-02-01T11:00:00Z".parse().unwrap();
        host.objects.set_now(put_at);
        let mut sent = Sent::new(&id(1), &[DAY], 3);
        sent.state_sha256("0".repeat(64));
        sent.put(&host.objects).await;
        let large = Sent::new(&id(2), &[DAY], 3);
        host.objects.put(&large.inbox(), vec![b' '; MANIFEST_BYTES_MAX + 7].into()).await.unwrap();
        let lost = ObjectPath::new("inbox/s1/lost.txt").unwrap();
        host.objects.put(&lost, Bytes::from_static(b"lost").into()).await.unwrap();
        host.objects.set_now(NOW.parse().unwrap());
        assert_eq!(swept(&host).await.len(), 3);
        let entries = quarantine::list(host.ports(), None, 10).await.unwrap();
        assert_eq!(entries.len(), 3);
        assert!(entries.iter().all(|entry| entry.record.received_at == Some(put_at)), "{entries:?}");
        // As an older release wrote it.
        let path = paths::quarantine(&sent.manifest.batch).unwrap();
        let bytes = host.objects.get(&path).await.unwrap().unwrap();
        let mut record: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert!(record.as_object_mut().unwrap().remove("received_at").is_some());
        host.objects.put(&path, record.to_string().into_bytes().into()).await.unwrap();
        let error = quarantine::replay(host.ports(), &sent.manifest.batch).await.unwrap_err();
        assert!(error.message().contains("an unknown time"), "{error}");
        host.objects.put(&path, bytes.into()).await.unwrap();
        assert!(quarantine::replay(host.ports(), &sent.manifest.batch).await.is_ok());
    });
}
