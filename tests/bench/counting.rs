//! An object store that counts what is asked of it, by kind, and the bytes that go either way.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use ribera_storage::Result;
use ribera_storage::object::{ObjectMeta, ObjectPath, ObjectStore, Part, PutBody, PutOutcome};

/// Requests by kind, and bytes, since the counters were last taken.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    pub requests: BTreeMap<&'static str, u64>,
    pub read_bytes: u64,
    pub written_bytes: u64,
}

impl Seen {
    pub fn of(&self, kinds: &[&str]) -> u64 {
        kinds.iter().filter_map(|kind| self.requests.get(kind)).sum()
    }
}

/// Clones share their counters.
#[derive(Debug, Clone)]
pub struct CountingStore<S> {
    inner: S,
    seen: Rc<RefCell<Seen>>,
}

impl<S> CountingStore<S> {
    pub fn new(inner: S) -> Self {
        Self { inner, seen: Rc::default() }
    }

    /// What was counted; the counters begin again.
    pub fn take(&self) -> Seen {
        self.seen.take()
    }

    fn note(&self, kind: &'static str) {
        *self.seen.borrow_mut().requests.entry(kind).or_default() += 1;
    }

    fn note_read(&self, bytes: Option<&Bytes>) {
        self.seen.borrow_mut().read_bytes += bytes.map_or(0, |bytes| bytes.len() as u64);
    }

    fn note_written(&self, body: &PutBody) {
        self.note("put");
        self.seen.borrow_mut().written_bytes += body_bytes(body);
    }
}

pub fn body_bytes(body: &PutBody) -> u64 {
    match body {
        PutBody::Bytes(bytes) => bytes.len() as u64,
        PutBody::File { bytes, .. } => *bytes,
    }
}

impl<S: ObjectStore> ObjectStore for CountingStore<S> {
    async fn get(&self, path: &ObjectPath) -> Result<Option<Bytes>> {
        self.note("get");
        let found = self.inner.get(path).await?;
        self.note_read(found.as_ref());
        Ok(found)
    }

    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Option<Part>> {
        self.note("get_range");
        let found = self.inner.get_range(path, range).await?;
        self.note_read(found.as_ref().map(|part| &part.bytes));
        Ok(found)
    }

    async fn put(&self, path: &ObjectPath, body: PutBody) -> Result<()> {
        self.note_written(&body);
        self.inner.put(path, body).await
    }

    async fn put_if_absent(&self, path: &ObjectPath, body: PutBody) -> Result<PutOutcome> {
        self.note_written(&body);
        self.inner.put_if_absent(path, body).await
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Vec<ObjectMeta>> {
        self.note("list");
        self.inner.list(prefix, start_after, limit).await
    }

    async fn head(&self, path: &ObjectPath) -> Result<Option<ObjectMeta>> {
        self.note("head");
        self.inner.head(path).await
    }

    async fn delete(&self, path: &ObjectPath) -> Result<()> {
        self.note("delete");
        self.inner.delete(path).await
    }
}
