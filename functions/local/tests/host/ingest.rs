//! Ingest calls through WASM.

use ribera_core::ingest::Outcome;
use tokio::task::block_in_place;

use crate::fixture::{Lake, january, ventas};
use crate::functions;

fn lake_with_batches(stores: &[&str]) -> (Lake, Vec<ribera_storage::object::ObjectPath>) {
    let lake = Lake::new(stores);
    let mut manifests = Vec::new();
    for store in stores {
        for sequence in 1..=3 {
            let days = january(sequence * 5 - 4, sequence * 5);
            manifests
                .push(lake.deliver(&ventas(), &format!("{store}/ventas/000000-{sequence:010}"), &days, |file| file));
        }
    }
    (lake, manifests)
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_ingest_calls_at_once_over_the_same_manifests_commit_each_batch_once() {
    let (lake, manifests) = block_in_place(|| lake_with_batches(&["s1", "s2", "s3"]));
    let functions = functions(&lake.root(), "[call]\ningest_calls_max = 16").await;
    let calls = (0..16).map(|turn| {
        let (functions, mut manifests) = (functions.clone(), manifests.clone());
        // Each call has them in another order, some doubled.
        let count = manifests.len();
        manifests.rotate_left(turn % count);
        manifests.push(manifests[0].clone());
        tokio::spawn(async move { functions.ingest(&manifests).await })
    });
    for report in futures::future::join_all(calls).await {
        for one in report.unwrap().unwrap().outcomes {
            let lost_no_race = !matches!(one.outcome, Outcome::Quarantined { .. } | Outcome::Waiting);
            assert!(lost_no_race, "{one:?}");
        }
    }
    functions.sweep(&Default::default()).await.unwrap();
    block_in_place(|| {
        assert!(lake.files("inbox").is_empty());
        assert_eq!(lake.files("done").len(), 9);
        assert_eq!(lake.value("SELECT count(*) FROM ventas"), 3 * 15 * 10);
        assert_eq!(lake.json(&["verify"]).1, 0);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_decodes_to_more_than_the_setting_allows_is_quarantined() {
    let (lake, manifests) = block_in_place(|| lake_with_batches(&["s1"]));
    let functions = functions(&lake.root(), "[ingest.limits]\ndecoded_bytes_max = 1000").await;
    let report = functions.ingest(&manifests).await.unwrap();
    for one in report.outcomes {
        let Outcome::Quarantined { reason, detail } = one.outcome else { panic!("{one:?}") };
        assert_eq!(reason.as_str(), "limit_exceeded", "{detail}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_body_that_is_no_event_is_refused_with_a_reason() {
    let lake = block_in_place(|| Lake::new(&[]));
    let functions = functions(&lake.root(), "").await;
    let error = functions.ingest_event("nonsense".into()).await.unwrap_err();
    assert_eq!(error.kind(), ribera_storage::ErrorKind::Reject, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wasm_and_native_come_to_the_same_coverage() {
    let (lake, _) = block_in_place(|| lake_with_batches(&["s1", "s2"]));
    let wasm = functions(&lake.root(), "").await;
    wasm.sweep(&Default::default()).await.unwrap();
    let through_wasm = wasm.coverage().await.unwrap().summaries;
    let args = ribera::host::settings::FunctionArgs { native: true, ..Default::default() };
    let native = ribera::host::functions::Functions::start(&lake.root(), Default::default(), &args).await.unwrap();
    let mut natively = native.coverage().await.unwrap().summaries;
    assert_eq!(through_wasm.len(), 1);
    assert_eq!(through_wasm[0].totals.rows, 2 * 15 * 10);
    assert_eq!(through_wasm[0].totals.days.complete, 2 * 15);
    // The second has nothing new to compute, or comes to the same but for its time.
    for (one, other) in natively.iter_mut().zip(&through_wasm) {
        one.computed_at = other.computed_at;
        assert_eq!(one, other);
    }
}
