//! An object store in memory, for tests and simulation.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;

use super::{ObjectMeta, ObjectPath, ObjectStore, Part, PutBody, PutOutcome};
use crate::error::Result;

#[derive(Debug, Clone)]
struct Object {
    bytes: Bytes,
    modified: Timestamp,
}

/// Clones share the same objects.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    objects: Arc<Mutex<BTreeMap<String, Object>>>,
    now: Arc<Mutex<Timestamp>>,
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the store's own clock: the `modified` of what is put from now on.
    pub fn set_now(&self, now: Timestamp) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, Object>> {
        // A panic elsewhere cannot leave a map half written: every change is one insert or remove.
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn object(&self, body: PutBody) -> Result<Object> {
        let bytes = match body {
            PutBody::Bytes(bytes) => bytes,
            PutBody::File { path, .. } => std::fs::read(path)?.into(),
        };
        Ok(Object { bytes, modified: *self.now.lock().unwrap_or_else(PoisonError::into_inner) })
    }
}

impl ObjectStore for MemoryStore {
    async fn get(&self, path: &ObjectPath) -> Result<Option<Bytes>> {
        Ok(self.locked().get(path.as_str()).map(|object| object.bytes.clone()))
    }

    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Option<Part>> {
        Ok(self.locked().get(path.as_str()).map(|object| {
            let cut = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(object.bytes.len());
            let (start, end) = (cut(range.start), cut(range.end));
            Part { bytes: object.bytes.slice(start..end.max(start)), modified: object.modified }
        }))
    }

    async fn put(&self, path: &ObjectPath, body: PutBody) -> Result<()> {
        let object = self.object(body)?;
        self.locked().insert(path.as_str().to_owned(), object);
        Ok(())
    }

    async fn put_if_absent(&self, path: &ObjectPath, body: PutBody) -> Result<PutOutcome> {
        let object = self.object(body)?;
        let mut objects = self.locked();
        if objects.contains_key(path.as_str()) {
            return Ok(PutOutcome::Exists);
        }
        objects.insert(path.as_str().to_owned(), object);
        Ok(PutOutcome::Created)
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Vec<ObjectMeta>> {
        let start = match start_after {
            Some(after) if after >= prefix => Bound::Excluded(after.to_owned()),
            _ => Bound::Included(prefix.to_owned()),
        };
        self.locked()
            .range((start, Bound::Unbounded))
            .take_while(|(path, _)| path.starts_with(prefix))
            .take(limit)
            .map(|(path, object)| meta(path, object))
            .collect()
    }

    async fn head(&self, path: &ObjectPath) -> Result<Option<ObjectMeta>> {
        self.locked().get(path.as_str()).map(|object| meta(path.as_str(), object)).transpose()
    }

    async fn delete(&self, path: &ObjectPath) -> Result<()> {
        self.locked().remove(path.as_str());
        Ok(())
    }
}

fn meta(path: &str, object: &Object) -> Result<ObjectMeta> {
    Ok(ObjectMeta { path: ObjectPath::new(path)?, bytes: object.bytes.len() as u64, modified: object.modified })
}
