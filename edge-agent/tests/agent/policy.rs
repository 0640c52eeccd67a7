//! The policy of a store's credential (`infra/policies/store-agent.json`): enough for the agent, and for
//! nothing of another store.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ribera_agent::report::Exit;
use ribera_agent::run::collect::RunMode;
use ribera_storage::object::{
    MemoryStore, ObjectMeta, ObjectPath, Part, PutBody, PutOutcome, keeps_put_if_absent, object_store_now,
};
use ribera_storage::{Error, ObjectStore, Result};
use serde_json::Value;

use crate::fixture::{World, block_on, days, request};

const POLICY: &str = include_str!("../../../infra/policies/store-agent.json");

/// One request as the policy sees it.
struct Asked<'a> {
    action: &'static str,
    /// A key, or the bucket for a listing.
    key: Option<&'a str>,
    prefix: Option<&'a str>,
    if_none_match: bool,
}

/// As S3 decides: something allows it, and nothing denies it.
fn allows(store: &str, asked: &Asked<'_>) -> bool {
    let policy: Value = serde_json::from_str(&POLICY.replace("STORE", store)).unwrap();
    let effects: Vec<&str> = policy["Statement"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|statement| applies(statement, asked))
        .map(|statement| statement["Effect"].as_str().unwrap())
        .collect();
    effects.contains(&"Allow") && !effects.contains(&"Deny")
}

fn applies(statement: &Value, asked: &Asked<'_>) -> bool {
    let resource = asked.key.map_or("arn:aws:s3:::BUCKET".to_owned(), |key| format!("arn:aws:s3:::BUCKET/{key}"));
    let any = |patterns: &Value, text: &str| texts(patterns).iter().any(|pattern| matches(pattern, text));
    any(&statement["Action"], asked.action)
        && any(&statement["Resource"], &resource)
        && statement.get("Condition").is_none_or(|condition| {
            condition.as_object().unwrap().iter().all(|(operator, keys)| match operator.as_str() {
                "StringLike" => asked.prefix.is_some_and(|prefix| any(&keys["s3:prefix"], prefix)),
                "Null" => (keys["s3:if-none-match"] == "true") != asked.if_none_match,
                other => panic!("operator {other} is not known here"),
            })
        })
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(values) => values.iter().map(|value| value.as_str().unwrap().to_owned()).collect(),
        value => vec![value.as_str().unwrap().to_owned()],
    }
}

/// `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((begin, rest)) => text.strip_prefix(begin).is_some_and(|after| {
            (0..=after.len()).filter(|at| after.is_char_boundary(*at)).any(|at| matches(rest, &after[at..]))
        }),
    }
}

/// What a credential of store `s1` opens of these objects.
pub fn policed(objects: &MemoryStore) -> impl ObjectStore + use<> {
    Policed::of(objects)
}

/// An object store that a credential of store `s1` opens.
#[derive(Clone)]
struct Policed {
    objects: MemoryStore,
    refused: Rc<RefCell<BTreeSet<String>>>,
}

impl Policed {
    fn of(objects: &MemoryStore) -> Self {
        Self { objects: objects.clone(), refused: Rc::default() }
    }

    fn check(&self, action: &'static str, key: &ObjectPath, if_none_match: bool) -> Result<()> {
        self.must(&Asked { action, key: Some(key.as_str()), prefix: None, if_none_match })
    }

    fn must(&self, asked: &Asked<'_>) -> Result<()> {
        if allows("s1", asked) {
            return Ok(());
        }
        let what = asked.key.or(asked.prefix).unwrap_or_default();
        self.refused.borrow_mut().insert(format!("{} {what}", asked.action));
        Err(Error::config(format!("{what}: AccessDenied")))
    }
}

impl ObjectStore for Policed {
    async fn get(&self, path: &ObjectPath) -> Result<Option<Bytes>> {
        self.check("s3:GetObject", path, false)?;
        self.objects.get(path).await
    }
    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Option<Part>> {
        self.check("s3:GetObject", path, false)?;
        self.objects.get_range(path, range).await
    }
    async fn put(&self, path: &ObjectPath, body: PutBody) -> Result<()> {
        self.check("s3:PutObject", path, false)?;
        self.objects.put(path, body).await
    }
    async fn put_if_absent(&self, path: &ObjectPath, body: PutBody) -> Result<PutOutcome> {
        self.check("s3:PutObject", path, true)?;
        self.objects.put_if_absent(path, body).await
    }
    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Vec<ObjectMeta>> {
        self.must(&Asked { action: "s3:ListBucket", key: None, prefix: Some(prefix), if_none_match: false })?;
        self.objects.list(prefix, start_after, limit).await
    }
    async fn head(&self, path: &ObjectPath) -> Result<Option<ObjectMeta>> {
        self.check("s3:GetObject", path, false)?;
        self.objects.head(path).await
    }
    async fn delete(&self, path: &ObjectPath) -> Result<()> {
        self.check("s3:DeleteObject", path, false)?;
        self.objects.delete(path).await
    }
}

#[test]
fn the_policy_of_a_store_is_enough_for_everything_its_agent_does() {
    let world = World::new();
    let store = Policed::of(&world.objects);
    let run = |ask: RunMode| {
        let agent = world.start_on(store.clone(), world.journal().unwrap()).unwrap();
        let report = block_on(agent.run("test", &request(ask), Duration::ZERO));
        assert_eq!(store.refused.take(), BTreeSet::new());
        assert_eq!(report.exit(), Exit::Done, "{report:?}");
    };
    world.sell("2017-05-07", 1..10);
    world.sell("2017-05-08", 10..20);
    world.sell("2017-05-09", 20..30);
    run(RunMode::Cycle);
    // Proven, then different: a list is published, and the answers of many batches are listed.
    world.ingest();
    world.sell("2017-05-08", 50..60);
    run(RunMode::Cycle);
    run(RunMode::Extract { days: days("2017-05-07", "2017-05-09"), force: true });
    world.ingest();
    run(RunMode::Cycle);
    block_on(async {
        assert!(
            keeps_put_if_absent(&store, async |path, body| store.put_if_absent(path, body).await, "x").await.unwrap()
        );
        object_store_now(&store, "y").await.unwrap();
    });
}

#[test]
fn a_stolen_credential_of_a_store_reaches_nothing_of_another_and_nothing_of_the_centre() {
    let get = |key| Asked { action: "s3:GetObject", key: Some(key), prefix: None, if_none_match: false };
    let put = |key, if_none_match| Asked { action: "s3:PutObject", key: Some(key), prefix: None, if_none_match };
    let delete = |key| Asked { action: "s3:DeleteObject", key: Some(key), prefix: None, if_none_match: false };
    let list = |prefix| Asked { action: "s3:ListBucket", key: None, prefix, if_none_match: false };
    let names = [
        "inbox/s2/ventas/000000-0000000001.json",
        "landing/ventas/store_id=s2/month=2017-05/x.parquet",
        "landing/ventas/store_id=s10/x.parquet",
        "inbox/s10/ventas/000000-0000000001.json",
        "acks/s2/ventas/x.json",
        "agents/s2/heartbeat.json",
        "agents/s2/ventas/epoch/000001.json",
        "control/stores/s2/0000000001.toml",
        "lake/ventas/_delta_log/00000000000000000000.json",
        "lake/ventas/x.parquet",
        "state/ledger/s1/ventas/x.json",
        "state/ready/ventas/s1~x.json",
        "state/coverage/ventas/0000000001.json",
        "quarantine/s1/ventas/x.json",
        "done/s2/ventas/x.json",
        "control/settings/0000000001.toml",
        "x",
    ];
    for key in names {
        for asked in [get(key), put(key, true), put(key, false), delete(key)] {
            assert!(!allows("s1", &asked), "{} {key}", asked.action);
        }
    }
    // Nothing of its own that counts can be written over or taken away.
    for key in [
        "inbox/s1/ventas/000000-0000000001.json",
        "landing/ventas/store_id=s1/x.parquet",
        "agents/s1/ventas/epoch/000001.json",
        "agents/s1/ventas/differing/0000000001.json",
    ] {
        assert!(allows("s1", &put(key, true)), "{key}");
        assert!(!allows("s1", &put(key, false)), "{key} again");
    }
    for key in [
        "inbox/s1/ventas/000000-0000000001.json",
        "landing/ventas/store_id=s1/x.parquet",
        "acks/s1/ventas/x.json",
        "done/s1/ventas/x.json",
        "agents/s1/ventas/epoch/000001.json",
        "agents/s2/ventas/differing/0000000001.json",
        "agents/s1/heartbeat.json",
    ] {
        assert!(!allows("s1", &delete(key)), "{key}");
    }
    for key in [
        "acks/s1/ventas/x.json",
        "done/s1/ventas/x.json",
        "control/datasets/ventas/0000000001.toml",
        "control/stores/s1/0000000001.toml",
    ] {
        assert!(!allows("s1", &put(key, true)), "{key}");
        assert!(allows("s1", &get(key)), "{key}");
    }
    for prefix in [
        None,
        Some(""),
        Some("acks/"),
        Some("acks/s2/"),
        Some("agents/"),
        Some("inbox/s1/"),
        Some("landing/"),
        Some("lake/"),
        Some("state/probe/"),
        Some("control/stores/"),
    ] {
        assert!(!allows("s1", &list(prefix)), "{prefix:?}");
    }
}
