//! What every object store must do: one suite for all backends. Each check panics with what it
//! found; that is its report.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::future::Future;

use bytes::Bytes;

use super::{LIST_PAGE, ObjectPath, ObjectStore, PutBody, PutOutcome, list_all};

/// Everything that can be checked by one task. The store must be empty.
pub async fn run<S: ObjectStore>(store: &S) {
    an_absent_object_is_none_everywhere(store).await;
    an_object_reads_back_whole_and_in_ranges(store).await;
    put_overwrites_and_put_if_absent_does_not(store).await;
    a_file_is_put_as_its_bytes(store).await;
    delete_forgets_and_is_idempotent(store).await;
    listings_are_in_byte_order_of_whole_paths(store).await;
    listings_page_without_gap_or_repeat(store).await;
    names_that_resemble_folders_do_not_collide(store).await;
}

/// Many tasks put the same path if absent: exactly one is told `Created`, and its bytes stand.
/// `race` runs a contender for each number it is given, at once, and gives their answers.
pub async fn put_if_absent_has_one_winner<S, F, Fut>(store: &S, contenders: usize, rounds: usize, race: F)
where
    S: ObjectStore,
    F: Fn(ObjectPath, Vec<Bytes>) -> Fut,
    Fut: Future<Output = Vec<PutOutcome>>,
{
    for round in 0..rounds {
        let path = path(&format!("race/{round:04}"));
        let bodies: Vec<Bytes> = (0..contenders).map(|one| format!("{round}-{one}").repeat(500).into()).collect();
        let outcomes = race(path.clone(), bodies.clone()).await;
        let winners: Vec<usize> = outcomes
            .iter()
            .enumerate()
            .filter(|(_, one)| **one == PutOutcome::Created)
            .map(|(index, _)| index)
            .collect();
        assert_eq!(winners.len(), 1, "round {round}: {outcomes:?}");
        assert_eq!(store.get(&path).await.unwrap().unwrap(), bodies[winners[0]], "round {round}");
    }
}

async fn an_absent_object_is_none_everywhere<S: ObjectStore>(store: &S) {
    for text in ["none", "none/below", "none.json"] {
        let path = path(text);
        assert_eq!(store.get(&path).await.unwrap(), None);
        assert_eq!(store.get_range(&path, 0..10).await.unwrap(), None);
        assert_eq!(store.head(&path).await.unwrap(), None);
        store.delete(&path).await.unwrap();
    }
    assert_eq!(store.list("none", None, 10).await.unwrap(), []);
}

async fn an_object_reads_back_whole_and_in_ranges<S: ObjectStore>(store: &S) {
    let path = path("range/object");
    store.put(&path, body("0123456789")).await.unwrap();
    assert_eq!(store.get(&path).await.unwrap().unwrap(), "0123456789");
    let meta = store.head(&path).await.unwrap().unwrap();
    let cases = [(0..10, "0123456789"), (2..5, "234"), (8..100, "89"), (10..20, ""), (50..60, ""), (3..3, "")];
    for (range, wanted) in cases {
        let part = store.get_range(&path, range.clone()).await.unwrap().unwrap();
        assert_eq!(part.bytes, wanted, "{range:?}");
        // A store may cut the time of an answer to whole seconds; a later one would be a lie.
        let early = meta.modified.duration_since(part.modified);
        assert!((0..1000).contains(&early.as_millis()), "{range:?}: {} of {}", part.modified, meta.modified);
    }
    #[allow(clippy::reversed_empty_ranges)]
    let backwards = store.get_range(&path, 7..2).await.unwrap().unwrap().bytes;
    assert_eq!(backwards, "");
    assert_eq!((meta.path, meta.bytes), (path, 10));
    let empty = self::path("range/empty");
    store.put(&empty, body("")).await.unwrap();
    assert_eq!(store.get(&empty).await.unwrap().unwrap(), "");
    assert_eq!(store.get_range(&empty, 0..1).await.unwrap().unwrap().bytes, "");
    assert_eq!(store.head(&empty).await.unwrap().unwrap().bytes, 0);
}

async fn put_overwrites_and_put_if_absent_does_not<S: ObjectStore>(store: &S) {
    let path = path("put/object");
    store.put(&path, body("a long first text")).await.unwrap();
    store.put(&path, body("second")).await.unwrap();
    assert_eq!(store.get(&path).await.unwrap().unwrap(), "second");
    assert_eq!(store.put_if_absent(&path, body("third")).await.unwrap(), PutOutcome::Exists);
    assert_eq!(store.get(&path).await.unwrap().unwrap(), "second");
    let fresh = self::path("put/fresh");
    assert_eq!(store.put_if_absent(&fresh, body("1")).await.unwrap(), PutOutcome::Created);
    assert_eq!(store.put_if_absent(&fresh, body("1")).await.unwrap(), PutOutcome::Exists);
    store.delete(&fresh).await.unwrap();
    assert_eq!(store.put_if_absent(&fresh, body("2")).await.unwrap(), PutOutcome::Created);
    assert_eq!(store.get(&fresh).await.unwrap().unwrap(), "2");
}

async fn a_file_is_put_as_its_bytes<S: ObjectStore>(store: &S) {
    let name = format!("ribera-conformance-{}-{:p}", std::process::id(), store);
    let local = std::env::temp_dir().join(name);
    std::fs::write(&local, "from a file").unwrap();
    let file = || PutBody::File { path: local.clone(), bytes: 11 };
    let (over, absent) = (path("file/over"), path("file/absent"));
    store.put(&over, file()).await.unwrap();
    assert_eq!(store.put_if_absent(&absent, file()).await.unwrap(), PutOutcome::Created);
    for path in [&over, &absent] {
        assert_eq!(store.get(path).await.unwrap().unwrap(), "from a file");
    }
    std::fs::remove_file(&local).unwrap();
    assert!(store.put(&over, file()).await.is_err(), "a file that is not there cannot be put");
    assert_eq!(store.get(&over).await.unwrap().unwrap(), "from a file", "a failed put leaves the old object");
}

async fn delete_forgets_and_is_idempotent<S: ObjectStore>(store: &S) {
    let (gone, stays) = (path("delete/a"), path("delete/ab"));
    store.put(&gone, body("1")).await.unwrap();
    store.put(&stays, body("2")).await.unwrap();
    store.delete(&gone).await.unwrap();
    store.delete(&gone).await.unwrap();
    assert_eq!(store.get(&gone).await.unwrap(), None);
    assert_eq!(names(store, "delete/", None, 10).await, ["delete/ab"]);
}

async fn listings_are_in_byte_order_of_whole_paths<S: ObjectStore>(store: &S) {
    // '-' and '.' sort before '/', '0' and letters after it: an order by folders would differ.
    let sorted = [
        "order/a",
        "order/a-b",
        "order/a-b/c",
        "order/a.b",
        "order/a.b/c",
        "order/a/b",
        "order/a/b-c",
        "order/a/b.c/d",
        "order/a0",
        "order/a0/b",
        "order/aB",
        "order/a_/b",
        "order/ab",
        "order/b",
        "order/~",
    ];
    // On a folder an object cannot also be a folder: what both would name is left out there.
    let objects: Vec<&str> = sorted.iter().copied().filter(|name| !is_folder_of(name, &sorted)).collect();
    for name in objects.iter().rev() {
        store.put(&path(name), body(name)).await.unwrap();
    }
    assert_eq!(names(store, "order/", None, 100).await, objects);
    for (index, after) in objects.iter().enumerate() {
        assert_eq!(names(store, "order/", Some(after), 100).await, objects[index + 1..], "after {after}");
        assert_eq!(names(store, "order/", Some(after), 2).await, *objects[index + 1..].chunks(2).next().unwrap_or(&[]));
    }
    for prefix in ["order/a", "order/a-", "order/a/", "order/a/b", "order/a.b/", "order/a0", "order/zz", "ord"] {
        let wanted: Vec<&str> = objects.iter().copied().filter(|name| name.starts_with(prefix)).collect();
        assert_eq!(names(store, prefix, None, 100).await, wanted, "prefix {prefix}");
        for after in ["order/a-b", "order/a-b/zzz", "order/a/b", "order/a5", "order/0", "zz", "a"] {
            let wanted: Vec<&str> = wanted.iter().copied().filter(|name| *name > after).collect();
            assert_eq!(names(store, prefix, Some(after), 100).await, wanted, "prefix {prefix} after {after}");
        }
    }
    assert_eq!(store.list("order/", None, 0).await.unwrap(), []);
    for meta in store.list("order/", None, 100).await.unwrap() {
        assert_eq!(meta.bytes, meta.path.as_str().len() as u64);
    }
}

async fn listings_page_without_gap_or_repeat<S: ObjectStore>(store: &S) {
    let count = LIST_PAGE + 3;
    for number in 0..count {
        store.put(&path(&format!("pages/{:02}/{number:06}", number % 7)), body("x")).await.unwrap();
    }
    let all = list_all(store, "pages/", None).await.unwrap();
    assert_eq!(all.len(), count);
    assert!(all.windows(2).all(|pair| pair[0].path < pair[1].path));
    assert_eq!(
        list_all(store, "pages/03/", None).await.unwrap().len(),
        all.iter().filter(|meta| meta.path.as_str().starts_with("pages/03/")).count()
    );
}

async fn names_that_resemble_folders_do_not_collide<S: ObjectStore>(store: &S) {
    store.put(&path("twin/a/object"), body("1")).await.unwrap();
    assert_eq!(store.get(&path("twin/a")).await.unwrap(), None);
    assert_eq!(store.head(&path("twin/a")).await.unwrap(), None);
    assert_eq!(store.get(&path("twin/a/object/below")).await.unwrap(), None);
    store.delete(&path("twin/a/object/below")).await.unwrap();
    assert_eq!(names(store, "twin/a", None, 10).await, ["twin/a/object"]);
    for prefix in ["../", "/", "twin/../twin/", "./twin"] {
        // A prefix is plain text: no object begins so, or the store says that it is none.
        assert!(
            store.list(prefix, None, 10).await.is_ok_and(|found| found.is_empty())
                || store.list(prefix, None, 10).await.is_err()
        );
    }
}

fn is_folder_of(name: &str, all: &[&str]) -> bool {
    all.iter().any(|other| other.strip_prefix(name).is_some_and(|rest| rest.starts_with('/')))
}

async fn names<S: ObjectStore>(store: &S, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    let listed = store.list(prefix, after, limit).await.unwrap();
    listed.into_iter().map(|meta| meta.path.to_string()).collect()
}

fn path(text: &str) -> ObjectPath {
    ObjectPath::new(text).unwrap()
}

fn body(text: &str) -> PutBody {
    Bytes::from(text.to_owned()).into()
}
