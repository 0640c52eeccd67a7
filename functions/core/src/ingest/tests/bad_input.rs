//! What is refused, why, and what a person can do about it.

use ribera_storage::batch::QuarantineReason::*;
use ribera_storage::batch::QuarantineRecord;

use super::*;
use crate::quarantine;

/// Sends, ingests, and expects the refusal: outcome, record and ack agree, and the inbox is clear.
async fn assert_refused(host: &TestHost, sent: &Sent, reason: QuarantineReason, word: &str) {
    let outcome = ingest(host, &[sent]).await.remove(0);
    let Outcome::Quarantined { reason: found, detail } = &outcome else { panic!("{outcome:?}") };
    assert_eq!(*found, reason, "{detail}");
    assert!(detail.contains(word), "{detail:?} should name {word:?}");
    let batch = sent.manifest.batch.clone();
    let entries = quarantine::show(host.ports(), &batch).await.unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].record.reason, &entries[0].record.detail), (reason, detail));
    let ack = ack_of(&host.objects, &batch).await.unwrap();
    assert_eq!(ack.outcome, AckOutcome::Quarantined { reason, detail: detail.clone() });
    assert!(host.objects.head(&sent.inbox()).await.unwrap().is_none());
    assert_eq!(content(&host.objects).await, Vec::<String>::new());
}

fn good() -> Sent {
    Sent::new("s1/ventas/000000-0000000001", &[DAY], 10)
}

#[test]
fn a_file_with_other_bytes_than_the_manifest_says_is_refused() {
    block_on(async {
        for file in [&b"short"[..], &[0; 100_000], b""] {
            let host = world().await;
            let sent = Sent { file: Bytes::copy_from_slice(file), ..good() };
            sent.put(&host.objects).await;
            assert_refused(&host, &sent, FileHashMismatch, "file: bytes").await;
        }
        let host = world().await;
        let mut sent = good();
        let mut flipped = sent.file.to_vec();
        flipped[100] ^= 1;
        sent.file = flipped.into();
        sent.put(&host.objects).await;
        assert_refused(&host, &sent, FileHashMismatch, "file: sha256").await;
    });
}

#[test]
fn a_file_that_is_what_the_manifest_says_and_no_parquet_is_refused() {
    block_on(async {
        let host = world().await;
        let mut sent = good();
        sent.file = Bytes::from_static(b"fecha;total\n2026-01-10;1,50\n");
        let honest = manifest("s1/ventas/000000-0000000001", &[DAY], &lines("s1", DAY, 10), &sent.file);
        sent.manifest = honest;
        sent.put(&host.objects).await;
        assert_refused(&host, &sent, FileUnreadable, "Parquet").await;
    });
}

#[test]
fn a_manifest_waits_a_quarter_of_an_hour_for_its_file_and_no_longer() {
    block_on(async {
        let (host, sent) = (world().await, good());
        sent.put_manifest(&host.objects).await;
        assert_eq!(ingest(&host, &[&sent]).await, [Outcome::Waiting]);
        host.clock.advance(899);
        assert_eq!(swept(&host).await, [Outcome::Waiting]);
        host.clock.advance(1);
        assert_refused(&host, &sent, FileAbsent, "landing/ventas/store_id=s1/month=2026-01/").await;
        let (host, sent) = (world().await, good());
        sent.put_manifest(&host.objects).await;
        host.clock.advance(600);
        assert_eq!(swept(&host).await, [Outcome::Waiting]);
        sent.put_file(&host.objects).await;
        assert!(matches!(swept(&host).await[0], Outcome::Committed { rows: 10, .. }));
    });
}

#[test]
fn a_manifest_that_contradicts_its_path_or_the_contract_is_refused() {
    type Spoil = fn(&mut Manifest);
    let cases: [(Spoil, QuarantineReason, &str); 5] = [
        (|manifest| manifest.batch.store = "s2".parse().unwrap(), ManifestMisplaced, "s2/ventas"),
        (|manifest| manifest.batch.position.sequence = 7, ManifestMisplaced, "0000000007"),
        (
            |manifest| manifest.file.path = "control/stores/s2/0000000001.toml".to_owned(),
            ManifestMisplaced,
            "file.path",
        ),
        (|manifest| manifest.contract = 99, ManifestInvalid, "contract"),
        (|manifest| manifest.units[0].unit = "*".parse().unwrap(), ManifestInvalid, "units"),
    ];
    block_on(async {
        for (spoil, reason, word) in cases {
            let (host, mut sent) = (world().await, good());
            sent.put_file(&host.objects).await;
            let path = sent.inbox();
            spoil(&mut sent.manifest);
            // Straight to the path, past the checks of an honest agent.
            host.objects.put(&path, serde_json::to_vec(&sent.manifest).unwrap().into()).await.unwrap();
            sent.manifest.batch = good().manifest.batch;
            assert_refused(&host, &sent, reason, word).await;
        }
        let (host, sent) = (world().await, good());
        host.objects.put(&sent.inbox(), Bytes::from_static(b"{\"contract\":1,").into()).await.unwrap();
        assert_refused(&host, &sent, ManifestInvalid, "manifest").await;
    });
}

#[test]
fn an_unknown_store_or_dataset_is_refused_and_can_be_replayed_once_declared() {
    block_on(async {
        let host = world().await;
        let sent = Sent::new("nuevo/ventas/000000-0000000001", &[DAY], 10);
        sent.put(&host.objects).await;
        assert_refused(&host, &sent, UnknownStore, "nuevo").await;
        let other = Sent {
            manifest: serde_json::from_str(
                &serde_json::to_string(&good().manifest).unwrap().replace("ventas", "unknown"),
            )
            .unwrap(),
            ..good()
        };
        other.put(&host.objects).await;
        assert_refused(&host, &other, UnknownDataset, "unknown").await;

        control::publish_store(&host.objects, &store("nuevo")).await.unwrap();
        let path = quarantine::replay(host.ports(), &sent.manifest.batch).await.unwrap();
        assert_eq!(path, sent.inbox());
        assert!(ack_of(&host.objects, &sent.manifest.batch).await.is_none());
        assert!(matches!(ingest(&host, &[&sent]).await[0], Outcome::Committed { rows: 10, .. }));
        assert!(quarantine::show(host.ports(), &sent.manifest.batch).await.unwrap().is_empty());
        let error = quarantine::replay(host.ports(), &sent.manifest.batch).await.unwrap_err();
        assert!(error.hint().is_some());
        assert_eq!(quarantine::list(host.ports(), None, 100).await.unwrap().len(), 1);
    });
}

#[test]
fn a_replay_that_died_half_way_is_finished_by_the_next_sweep() {
    block_on(async {
        let host = world().await;
        let sent = Sent::new("nuevo/ventas/000000-0000000001", &[DAY], 10);
        sent.put(&host.objects).await;
        ingest(&host, &[&sent]).await;
        control::publish_store(&host.objects, &store("nuevo")).await.unwrap();
        // All that a replay does before it deletes anything.
        let intent = paths::replay(&sent.manifest.batch).unwrap();
        host.objects.put(&intent, sent.manifest.to_json().unwrap().into()).await.unwrap();
        assert!(matches!(swept(&host).await[0], Outcome::Committed { rows: 10, .. }));
        assert!(host.objects.head(&intent).await.unwrap().is_none());
    });
}

#[test]
fn a_clone_of_a_journal_is_refused_and_the_first_keeps_its_ack() {
    block_on(async {
        let (host, first) = (world().await, good());
        first.put(&host.objects).await;
        ingest(&host, &[&first]).await;
        let before = ack_of(&host.objects, &first.manifest.batch).await.unwrap();
        let clone = Sent::new("s1/ventas/000000-0000000001", &[DAY], 99);
        clone.put(&host.objects).await;
        let outcome = ingest(&host, &[&clone]).await.remove(0);
        assert!(matches!(outcome, Outcome::Quarantined { reason: ClonedJournal, .. }), "{outcome:?}");
        assert_eq!(ack_of(&host.objects, &first.manifest.batch).await.unwrap(), before);
        assert_ne!(before.manifest_sha256, sha256_hex(&clone.manifest.to_json().unwrap()));
        let entries = quarantine::show(host.ports(), &first.manifest.batch).await.unwrap();
        assert_eq!(entries.len(), 1);
        assert!(entries[0].path.contains('~'), "{}", entries[0].path);
        assert_eq!(content(&host.objects).await.len(), 10);
        // What the clone claimed is in doubt until a later batch settles it.
        let ventas = "ventas".parse().unwrap();
        let state = |coverage: crate::coverage::Coverage| coverage.stores[0].calendar.state(DAY);
        assert_eq!(
            state(crate::coverage::compute(host.ports(), &ventas).await.unwrap()),
            crate::coverage::DayState::Partial
        );
        let next = Sent::new("s1/ventas/000001-0000000001", &[DAY], 99);
        next.put(&host.objects).await;
        ingest(&host, &[&next]).await;
        assert_eq!(
            state(crate::coverage::compute(host.ports(), &ventas).await.unwrap()),
            crate::coverage::DayState::Complete
        );
    });
}

#[test]
fn objects_in_the_inbox_that_name_no_batch_are_put_aside_and_the_rest_goes_on() {
    block_on(async {
        let (host, sent) = (world().await, good());
        for path in [
            "inbox/x",
            "inbox/s1/ventas/1-1.json",
            "inbox/S1/ventas/000000-0000000001.json",
            "inbox/s1/ventas/a/b.json",
        ] {
            host.objects.put(&ObjectPath::new(path).unwrap(), Bytes::from_static(b"{}").into()).await.unwrap();
        }
        sent.put(&host.objects).await;
        let outcomes = swept(&host).await;
        assert_eq!(
            outcomes.iter().filter(|one| matches!(one, Outcome::Quarantined { reason: ManifestMisplaced, .. })).count(),
            4
        );
        assert_eq!(outcomes.iter().filter(|one| matches!(one, Outcome::Committed { .. })).count(), 1);
        assert_eq!(names(&host.objects, "quarantine/_unreadable/").await.len(), 4);
        assert_eq!(names(&host.objects, "inbox/").await, Vec::<String>::new());
        assert_eq!(quarantine::list(host.ports(), None, 100).await.unwrap().len(), 4);
    });
}

#[test]
fn a_quarantine_record_keeps_the_manifest_byte_by_byte() {
    block_on(async {
        let (host, sent) = (world().await, Sent::new("nuevo/ventas/000000-0000000001", &[DAY], 1));
        sent.put(&host.objects).await;
        ingest(&host, &[&sent]).await;
        let bytes = host.objects.get(&paths::quarantine(&sent.manifest.batch).unwrap()).await.unwrap().unwrap();
        let record: QuarantineRecord = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(record.manifest.as_bytes(), sent.manifest.to_json().unwrap());
        assert_eq!(record.units, [ribera_storage::Unit::Day(DAY)]);
    });
}

#[test]
fn a_manifest_that_kills_its_call_again_and_again_is_quarantined_and_the_others_get_through() {
    block_on(async {
        let (host, killer) = (world().await, good());
        let innocent = Sent::new("s1/ventas/000000-0000000002", &[DAY.tomorrow().unwrap()], 10);
        killer.put(&host.objects).await;
        innocent.put(&host.objects).await;
        // A sweep died over both; two more over the killer alone.
        poison::mark(host.ports(), &[killer.inbox(), innocent.inbox()]).await.unwrap();
        for _ in 0..3 {
            poison::mark(host.ports(), &[killer.inbox()]).await.unwrap();
        }
        // Those calls may still be running: nothing is condemned yet.
        assert!(
            poison::PoisonTracker::load(&host.objects, host.ports().clock.now())
                .await
                .unwrap()
                .crash_count(&killer.inbox())
                == 0
        );
        host.clock.advance(601);
        let outcomes = swept(&host).await;
        assert!(matches!(outcomes[0], Outcome::Committed { rows: 10, .. }), "{outcomes:?}");
        assert!(
            matches!(&outcomes[1], Outcome::Quarantined { reason: LimitExceeded, detail } if detail.contains("died")),
            "{outcomes:?}"
        );
        assert_eq!(names(&host.objects, "state/attempts/").await, Vec::<String>::new());
    });
}

#[test]
fn a_definition_that_cannot_be_read_fails_only_its_own_manifests_and_they_stay() {
    block_on(async {
        let host = world().await;
        let mine = good();
        let other = Sent::new("s2/ventas/000000-0000000001", &[DAY], 10);
        mine.put(&host.objects).await;
        other.put(&host.objects).await;
        let broken = ObjectPath::new("control/stores/s2/0000000009.toml").unwrap();
        host.objects.put(&broken, Bytes::from_static(b"id = 7").into()).await.unwrap();
        let outcomes = ingest(&host, &[&mine, &other]).await;
        assert!(matches!(outcomes[0], Outcome::Committed { .. }), "{outcomes:?}");
        assert!(
            matches!(&outcomes[1], Outcome::Failed { message, .. } if message.contains("0000000009")),
            "{outcomes:?}"
        );
        host.objects.delete(&broken).await.unwrap();
        assert!(matches!(swept(&host).await[0], Outcome::Committed { .. }));
    });
}
