//! `S3Store` on a real server, over lines and through proxies as stores have them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use ribera_agent::config::Limits;
use ribera_agent::host::SystemClock;
use ribera_agent::objects::uplink::Uplink;
use ribera_storage::object::s3::{Cause, ProxyChoice, S3Settings, SharedClock, failure_of};
use ribera_storage::object::{ObjectPath, PutBody, PutOutcome, S3Store, conformance};
use ribera_storage::ports::Clock;
use ribera_storage::secret::Secret;
use ribera_storage::{Error, ErrorKind, ObjectStore, Result};

use crate::line::{Fault, Line};
use crate::s3_server::{SECRET, server};

/// This machine's clock, some days off.
pub struct Shifted(pub i64);

impl Clock for Shifted {
    fn now(&self) -> Timestamp {
        SystemClock.now() + SignedDuration::from_hours(24 * self.0)
    }
}

pub fn on_runtime<F: Future>(work: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

pub fn open(settings: &S3Settings) -> S3Store {
    open_at(settings, Arc::new(SystemClock))
}

pub fn open_at(settings: &S3Settings, clock: SharedClock) -> S3Store {
    S3Store::new(settings, clock, "test").unwrap()
}

fn path(text: &str) -> ObjectPath {
    ObjectPath::new(text).unwrap()
}

fn cause(error: &Error) -> Cause {
    failure_of(error).unwrap_or_else(|| panic!("no failure of S3: {error}")).cause
}

/// Neither the secret nor a signed address, whichever way an error is shown.
fn assert_discreet(error: &Error) {
    for text in [error.to_string(), format!("{error:?}")] {
        assert!(!text.contains(SECRET) && !text.contains("X-Amz") && !text.contains("contraseña"), "{text}");
    }
}

#[test]
fn a_bucket_does_what_every_object_store_must() {
    let store = open(&server().settings(server().port, "conformance"));
    on_runtime(conformance::run(&store));
}

#[test]
fn of_sixteen_who_put_the_same_object_into_a_bucket_one_wins() {
    let store = open(&server().settings(server().port, "race"));
    on_runtime(conformance::put_if_absent_has_one_winner(&store, 16, 6, |path, bodies| {
        let store = store.clone();
        async move {
            join_all(bodies.into_iter().map(async |body| {
                // Two at once may both be told to come again; then one of them finds the other's.
                loop {
                    match store.put_if_absent(&path, body.clone().into()).await {
                        Err(error) if error.is_retry() => {}
                        outcome => return outcome.unwrap(),
                    }
                }
            }))
            .await
        }
    }));
}

#[test]
fn a_private_authority_is_trusted_only_where_it_is_named() {
    let encrypted = |ca_file| S3Settings {
        endpoint: format!("https://localhost:{}", server().tls_port),
        ca_file,
        ..server().settings(0, "tls")
    };
    on_runtime(async {
        let trusting = open(&encrypted(Some(server().ca_file.clone())));
        assert_eq!(trusting.put_if_absent(&path("a/b"), Bytes::from("1").into()).await.unwrap(), PutOutcome::Created);
        assert_eq!(trusting.list("a/", None, 10).await.unwrap().len(), 1);
        let error = open(&encrypted(None)).get(&path("a/b")).await.unwrap_err();
        assert_eq!((cause(&error), error.kind()), (Cause::Certificate, ErrorKind::Config), "{error}");
        assert!(error.to_string().contains("ca_file"), "{error}");
        // The certificate is good for a month.
        let late = open_at(&encrypted(Some(server().ca_file.clone())), Arc::new(Shifted(400)));
        let error = late.get(&path("a/b")).await.unwrap_err();
        assert_eq!(cause(&error), Cause::CertificateTime, "{error}");
        assert!(error.to_string().contains("clock"), "{error}");
    });
    let bad = S3Store::new(&encrypted(Some(file!().into())), Arc::new(SystemClock), "t").unwrap_err();
    assert!(bad.to_string().contains("ca_file"), "{bad}");
}

#[test]
fn a_proxy_with_a_user_carries_everything_and_one_that_wants_another_is_told() {
    let line = Line::proxy("tienda:contraseña");
    let through = |endpoint: String, password: &str| S3Settings {
        endpoint,
        ca_file: Some(server().ca_file.clone()),
        proxy: ProxyChoice::Server {
            url: format!("http://127.0.0.1:{}", line.port),
            user: Some("tienda".to_owned()),
            password: Secret::new(password),
        },
        ..server().settings(0, "proxy")
    };
    let plain = format!("http://127.0.0.1:{}", server().port);
    let encrypted = format!("https://127.0.0.1:{}", server().tls_port);
    let body = Bytes::from(vec![7; 300_000]);
    on_runtime(async {
        for (number, endpoint) in [&plain, &encrypted].into_iter().enumerate() {
            let (store, path) = (open(&through(endpoint.clone(), "contraseña")), path(&format!("a/{number}")));
            let before = line.passed();
            store.put(&path, body.clone().into()).await.unwrap();
            assert!(line.passed() >= before + 300_000, "{endpoint}: it went another way");
            assert_eq!(store.get(&path).await.unwrap().unwrap(), body);
            assert_eq!(line.tunnels() > 0, number == 1, "{endpoint}");
            let error = open(&through(endpoint.clone(), "otra contraseña")).get(&path).await.unwrap_err();
            assert_eq!((cause(&error), error.kind()), (Cause::ProxyCredentials, ErrorKind::Config), "{error}");
            assert!(error.to_string().contains("proxy.user"), "{error}");
            assert_discreet(&error);
        }
    });
    assert!(line.refused() >= 2);
}

/// Every call once.
async fn calls(store: &S3Store) -> Vec<(&'static str, Result<()>)> {
    let path = path("portal/object");
    let body = || PutBody::Bytes(Bytes::from_static(b"body"));
    vec![
        ("get", store.get(&path).await.map(drop)),
        ("get_range", store.get_range(&path, 0..2).await.map(drop)),
        ("put", store.put(&path, body()).await),
        ("put_if_absent", store.put_if_absent(&path, body()).await.map(drop)),
        ("list", store.list("portal/", None, 5).await.map(drop)),
        ("head", store.head(&path).await.map(drop)),
        ("delete", store.delete(&path).await),
    ]
}

#[test]
fn nothing_that_answers_in_the_bucket_s_place_is_believed() {
    let line = Line::to(server().port);
    let store = open(&server().settings(line.port, "portal"));
    on_runtime(async {
        store.probe().await.unwrap();
        for fault in [Fault::Portal, Fault::Redirect, Fault::NotFoundPage, Fault::EmptySuccess] {
            line.fail("", &[fault; 12]);
            for (call, done) in calls(&store).await {
                let error = done.expect_err(&format!("{call} believed {fault:?}"));
                assert_eq!(error.kind(), ErrorKind::Retry, "{call} {fault:?}: {error}");
                if fault != Fault::EmptySuccess {
                    assert_eq!(cause(&error), Cause::Portal, "{call} {fault:?}: {error}");
                    assert!(error.to_string().contains("captive portal"), "{error}");
                }
                assert_discreet(&error);
            }
            assert!(line.fired(fault) >= 7);
            line.mend();
        }
        assert_eq!(store.get(&path("portal/object")).await.unwrap(), None, "nothing arrived");
        for (call, done) in calls(&store).await {
            done.unwrap_or_else(|error| panic!("{call}: {error}"));
        }
    });
}

#[test]
fn after_any_fault_of_the_line_the_file_is_there_whole_or_not_at_all() {
    let line = Line::to(server().port);
    let store = open(&S3Settings { timeout: Duration::from_secs(1), ..server().settings(line.port, "faults") });
    let local = tempfile::NamedTempFile::new().unwrap();
    let content: Vec<u8> = (0..700_000_u32).map(|number| (number % 251) as u8).collect();
    std::fs::write(local.path(), &content).unwrap();
    let file = || PutBody::File { path: local.path().to_owned(), bytes: content.len() as u64 };
    let cases = [
        (Fault::SlowDown, Some(Cause::Busy), PutOutcome::Created),
        (Fault::Conflict, Some(Cause::Conflict), PutOutcome::Created),
        (Fault::Reset, None, PutOutcome::Created),
        (Fault::LostAnswer, None, PutOutcome::Exists),
        (Fault::Silence, None, PutOutcome::Created),
    ];
    on_runtime(async {
        store.probe().await.unwrap();
        for (number, (fault, wanted, then)) in cases.into_iter().enumerate() {
            let path = path(&format!("landing/{number}"));
            line.fail("PUT", &[fault]);
            // So that a silence is noticed soon: a big body may travel for long after it was handed over.
            let small = || PutBody::Bytes(Bytes::from_static(b"small"));
            let body = || if fault == Fault::Silence { small() } else { file() };
            let error = store.put_if_absent(&path, body()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Retry, "{fault:?}: {error}");
            if let Some(wanted) = wanted {
                assert_eq!(cause(&error), wanted, "{error}");
            }
            assert_discreet(&error);
            assert_eq!(store.put_if_absent(&path, body()).await.unwrap(), then, "{fault:?}");
            let bytes = store.get(&path).await.unwrap().unwrap();
            assert!(bytes == content || fault == Fault::Silence, "{fault:?}: {} bytes", bytes.len());
        }
    });
    line.assert_all_fired();
}

#[test]
fn a_put_whose_tag_says_nothing_is_proven_by_the_object_itself() {
    let line = Line::to(server().port);
    let store = open(&server().settings(line.port, "tags"));
    on_runtime(async {
        let body = || PutBody::Bytes(Bytes::from_static(b"encrypted with a key of the owner"));
        // The put and the look at the object after it.
        line.fail("PUT", &[Fault::OtherTag]);
        line.fail("HEAD", &[Fault::OtherTag]);
        store.put(&path("a/b"), body()).await.unwrap();
        line.assert_all_fired();
        // What is found is not what was answered.
        line.fail("PUT", &[Fault::OtherTag]);
        let error = store.put(&path("a/b"), body()).await.unwrap_err();
        assert_eq!((cause(&error), error.kind()), (Cause::Damaged, ErrorKind::Retry), "{error}");
        line.assert_all_fired();
    });
}

#[test]
fn a_clock_that_is_four_hundred_days_off_signs_with_the_bucket_s_time() {
    on_runtime(async {
        for days in [400, -400] {
            for first in ["put", "head", "list"] {
                let name = format!("clock{days}{first}");
                let store = open_at(&server().settings(server().port, &name), Arc::new(Shifted(days)));
                let path = path("a/b");
                match first {
                    "head" => assert_eq!(store.head(&path).await.unwrap(), None),
                    "list" => assert_eq!(store.list("", None, 9).await.unwrap(), []),
                    _ => {}
                }
                assert_eq!(store.put_if_absent(&path, Bytes::from("1").into()).await.unwrap(), PutOutcome::Created);
                let modified = store.head(&path).await.unwrap().unwrap().modified;
                assert!(SystemClock.now().duration_since(modified).abs() < SignedDuration::from_mins(2), "{modified}");
            }
        }
    });
    let refused = server().log().lines().filter(|line| line.contains("/clock") && line.ends_with(" 403")).count();
    // The log names no prefix of a listing.
    assert_eq!(refused, 4, "each store was refused once, and then knew the time");
}

#[test]
fn a_store_that_ignores_if_none_match_is_refused_before_anything_is_put_into_it() {
    let store = open(&server().settings(server().port, "nocond"));
    on_runtime(async {
        let error = store.put_if_absent(&path("inbox/1"), Bytes::from("1").into()).await.unwrap_err();
        assert_eq!((cause(&error), error.kind()), (Cause::Conditional, ErrorKind::Config), "{error}");
        assert!(error.to_string().contains("If-None-Match"), "{error}");
        assert_eq!(store.list("", None, 9).await.unwrap(), [], "neither the object nor the probe is left");
    });
}

#[test]
fn what_is_wrong_with_the_credentials_is_named_and_they_are_not_shown() {
    let good = || server().settings(server().port, "keys");
    let cases = [
        (
            S3Settings { secret_access_key: Secret::new("otra contraseña"), ..good() },
            Cause::Signature,
            "secret_access_key",
        ),
        (S3Settings { access_key_id: "NADIE".to_owned(), ..good() }, Cause::Key, "access_key_id"),
        (S3Settings { bucket: "no-such-bucket".to_owned(), ..good() }, Cause::Bucket, "NoSuchBucket"),
        (S3Settings { endpoint: format!("http://{}", "no-such-host.invalid"), ..good() }, Cause::NameUnknown, "name"),
    ];
    on_runtime(async {
        for (settings, wanted, word) in cases {
            let store = open(&settings);
            assert!(!format!("{store:?} {settings:?}").contains("contraseña"));
            for done in [
                store.list("", None, 1).await.map(drop),
                store.put(&path("a"), Bytes::from("1").into()).await,
                store.get(&path("a")).await.map(drop),
            ] {
                let error = done.unwrap_err();
                assert_eq!((cause(&error), error.kind()), (wanted, wanted.kind()), "{error}");
                assert!(error.to_string().contains(word), "{error}");
                assert_discreet(&error);
            }
        }
        let token = S3Settings { session_token: Some(Secret::new("una/ficha+larga=")), ..good() };
        open(&token).put(&path("token"), Bytes::from("1").into()).await.unwrap();
    });
}

#[test]
fn a_file_leaves_as_evenly_as_the_limit_says() {
    const RATE: u64 = 80_000;
    let line = Line::to(server().port);
    let store = open(&server().settings(line.port, "pace"));
    let uplink = Arc::new(Uplink::new(&Limits { upload_bytes_per_s: Some(RATE), ..Limits::default() }));
    store.set_throttle(uplink.clone());
    let local = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(local.path(), vec![1; 200_000]).unwrap();
    let file = PutBody::File { path: local.path().to_owned(), bytes: 200_000 };
    uplink.begin(jiff::civil::date(2026, 3, 1).at(12, 0, 0, 0));
    let begun = Instant::now();
    on_runtime(store.put(&path("landing/file"), file)).unwrap();
    let took = begun.elapsed().as_secs_f64();
    // The last piece waits for nobody behind it.
    assert!((2.2..6.0).contains(&took), "{took} s");
    let seen = line.seen();
    assert_eq!(seen.iter().map(|(_, bytes)| bytes).sum::<usize>(), 200_000);
    for (at, _) in &seen {
        let window = seen.iter().filter(|(other, _)| (*at..*at + Duration::from_secs(1)).contains(other));
        let bytes: usize = window.map(|(_, bytes)| bytes).sum();
        assert!(bytes <= RATE as usize * 3 / 2, "{bytes} bytes in one second");
    }
}
