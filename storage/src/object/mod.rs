//! The object store: everything that the parts of Ribera share.
//!
//! The trait is small enough to fake. Put-if-absent is its only atomic primitive; everything
//! else is built so that a lost, doubled or late call does no harm.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use bytes::Bytes;
use jiff::Timestamp;

use crate::error::{Error, Result};

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
#[cfg(any(test, feature = "testing"))]
pub mod faulty;
pub mod folder;
mod json;
pub mod memory;
#[cfg(feature = "s3")]
pub mod s3;

pub use folder::FolderStore;
pub use json::put_json;
pub use memory::MemoryStore;
#[cfg(feature = "s3")]
pub use s3::S3Store;

/// The key of an object: segments of `[A-Za-z0-9._=+~-]` joined by `/`, none of them empty,
/// `.` or `..`, 512 bytes at most. Checked when made, so that no key escapes a folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectPath(String);

impl ObjectPath {
    /// Checks the rule above.
    ///
    /// # Errors
    ///
    /// `Reject`, naming the rule and the text got.
    pub fn new(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        let segment_fits = |segment: &str| {
            !segment.is_empty()
                && segment != "."
                && segment != ".."
                && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._=+~-".contains(&byte))
        };
        if text.len() > 512 || !text.split('/').all(segment_fits) {
            return Err(Error::reject(format!(
                "object path: expected segments of A-Z a-z 0-9 . _ = + ~ - joined by /, 512 bytes at most, got {text:?}"
            )));
        }
        Ok(Self(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last segment.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a listing or `head` tells of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    pub path: ObjectPath,
    pub bytes: u64,
    /// By the store's own clock.
    pub modified: Timestamp,
}

/// A part of an object, as one request gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub bytes: Bytes,
    /// When the object was put, by the store's own clock; never later than it was.
    pub modified: Timestamp,
}

/// What is put: bytes in memory, or a local file that is streamed.
#[derive(Debug, Clone)]
pub enum PutBody {
    Bytes(Bytes),
    File { path: PathBuf, bytes: u64 },
}

impl From<Bytes> for PutBody {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<Vec<u8>> for PutBody {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    Created,
    /// Nothing was written: the object was there already.
    Exists,
}

/// An object store. Every call may fail with [`crate::ErrorKind::Retry`] and may have had its
/// effect all the same: after any error of a write, read back and compare.
pub trait ObjectStore {
    /// The whole object, or `None` when there is none.
    async fn get(&self, path: &ObjectPath) -> Result<Option<Bytes>>;

    /// The bytes of `range` cut to the object's length, or `None` when there is no object.
    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Option<Part>>;

    /// Writes whole, over whatever was there. Readers see the old or the new object.
    async fn put(&self, path: &ObjectPath, body: PutBody) -> Result<()>;

    /// As [`ObjectStore::put`], and what time it was then by the store's own clock; `None` where that is not told.
    async fn put_timed(&self, path: &ObjectPath, body: PutBody) -> Result<Option<Timestamp>> {
        self.put(path, body).await?;
        Ok(self.head(path).await?.map(|meta| meta.modified))
    }

    /// Writes whole only if no object is there: of many callers exactly one gets `Created`.
    async fn put_if_absent(&self, path: &ObjectPath, body: PutBody) -> Result<PutOutcome>;

    /// At most `limit` objects whose path begins with `prefix` (plain text, not a folder), in
    /// byte order of their paths, beginning after `start_after`.
    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Vec<ObjectMeta>>;

    async fn head(&self, path: &ObjectPath) -> Result<Option<ObjectMeta>>;

    /// Deletes the object; it is no error when there is none.
    async fn delete(&self, path: &ObjectPath) -> Result<()>;
}

/// A page of a listing as S3 gives it.
pub const LIST_PAGE: usize = 1000;

/// Every object under `prefix` in order, page by page.
///
/// # Errors
///
/// `Retry` when the object store does not answer.
pub async fn list_all<S: ObjectStore>(store: &S, prefix: &str, start_after: Option<&str>) -> Result<Vec<ObjectMeta>> {
    let mut all = Vec::new();
    let mut after = start_after.map(str::to_owned);
    loop {
        let page = store.list(prefix, after.as_deref(), LIST_PAGE).await?;
        let full = page.len() >= LIST_PAGE;
        after = page.last().map(|meta| meta.path.as_str().to_owned());
        all.extend(page);
        if !full {
            return Ok(all);
        }
    }
}

/// An object that may be larger than its reader wants to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bounded {
    Absent,
    Whole(Part),
    /// Larger than the bound: nothing of it is kept.
    TooLarge,
}

/// The object, if it is at most `bytes_max` long: never more than that and one byte are read. For
/// everything that a store's credential can write.
///
/// # Errors
///
/// `Retry` when the object store does not answer.
pub async fn get_at_most<S: ObjectStore>(objects: &S, path: &ObjectPath, bytes_max: usize) -> Result<Bounded> {
    let wanted = bytes_max as u64 + 1;
    Ok(match objects.get_range(path, 0..wanted).await? {
        None => Bounded::Absent,
        Some(part) if part.bytes.len() > bytes_max => Bounded::TooLarge,
        Some(part) => Bounded::Whole(part),
    })
}

/// The objects of one owner below a prefix: those of `PREFIX OWNER/...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    pub owner: String,
    /// In order, at most as many as were asked for.
    pub listed: Vec<ObjectMeta>,
    /// The owner has more.
    pub more: bool,
}

/// Lists `prefix` (which ends with `/`) by the next part of the paths, in order of the owners: at
/// most `per_owner_max` objects of each. An owner with a million objects costs one page more than
/// others: the listing goes on behind it.
///
/// # Errors
///
/// `Retry` when the object store does not answer.
pub async fn list_by_owner<S: ObjectStore>(objects: &S, prefix: &str, per_owner_max: usize) -> Result<Vec<Owned>> {
    let mut owners: Vec<Owned> = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = objects.list(prefix, after.as_deref(), LIST_PAGE).await?;
        let full = page.len() >= LIST_PAGE;
        after = page.last().map(|meta| meta.path.to_string());
        for meta in page {
            let rest = meta.path.as_str().strip_prefix(prefix).unwrap_or_default();
            let owner = rest.split('/').next().unwrap_or_default();
            match owners.last_mut() {
                Some(last) if last.owner == owner && last.listed.len() < per_owner_max => last.listed.push(meta),
                Some(last) if last.owner == owner => last.more = true,
                _ => owners.push(Owned { owner: owner.to_owned(), listed: vec![meta], more: false }),
            }
        }
        if !full {
            return Ok(owners);
        }
        if let Some(last) = owners.last().filter(|last| last.more) {
            // '0' follows '/': all of the owner's paths lie before it.
            after = Some(format!("{prefix}{}0", last.owner));
        }
    }
}

/// What one owner has below a prefix, as [`list_by_owner`] would give it.
///
/// # Errors
///
/// As [`list_all`].
pub async fn list_owner<S: ObjectStore>(objects: &S, prefix: &str, owner: &str, per_owner_max: usize) -> Result<Owned> {
    let mut listed: Vec<ObjectMeta> = Vec::new();
    loop {
        let after = listed.last().map(|meta| meta.path.to_string());
        let page = objects.list(&format!("{prefix}{owner}/"), after.as_deref(), LIST_PAGE).await?;
        let full = page.len() >= LIST_PAGE;
        listed.extend(page);
        let more = listed.len() > per_owner_max;
        if more || !full {
            listed.truncate(per_owner_max);
            return Ok(Owned { owner: owner.to_owned(), listed, more });
        }
    }
}

/// What time it is by the store's own clock: that of an object put just now. `fresh_name` must be
/// random.
///
/// # Errors
///
/// `Retry` when the object store does not answer, or does not say.
pub async fn object_store_now<S: ObjectStore>(store: &S, fresh_name: &str) -> Result<Timestamp> {
    let path = ObjectPath::new(format!("state/probe/clock-{fresh_name}"))?;
    let now = store.put_timed(&path, Bytes::from_static(b"now").into()).await?;
    store.delete(&path).await?;
    now.ok_or_else(|| Error::retry(format!("{path}: the object store does not say what time it is")))
}

/// Whether of two puts of a fresh object only the first one counts. `put` is the store's own
/// put-if-absent; `fresh_name` must be random.
///
/// # Errors
///
/// `Retry` when the object store does not answer.
pub async fn keeps_put_if_absent<S: ObjectStore>(
    store: &S,
    put: impl AsyncFn(&ObjectPath, PutBody) -> Result<PutOutcome>,
    fresh_name: &str,
) -> Result<bool> {
    let path = ObjectPath::new(format!("state/probe/{fresh_name}"))?;
    let first = put(&path, Bytes::from_static(b"1").into()).await?;
    let second = put(&path, Bytes::from_static(b"2").into()).await?;
    let kept = store.get(&path).await?;
    store.delete(&path).await?;
    Ok(first == PutOutcome::Created && second == PutOutcome::Exists && kept.as_deref() == Some(b"1"))
}

impl<T: ObjectStore> ObjectStore for &T {
    async fn get(&self, path: &ObjectPath) -> Result<Option<Bytes>> {
        (**self).get(path).await
    }
    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Option<Part>> {
        (**self).get_range(path, range).await
    }
    async fn put(&self, path: &ObjectPath, body: PutBody) -> Result<()> {
        (**self).put(path, body).await
    }
    async fn put_timed(&self, path: &ObjectPath, body: PutBody) -> Result<Option<Timestamp>> {
        (**self).put_timed(path, body).await
    }
    async fn put_if_absent(&self, path: &ObjectPath, body: PutBody) -> Result<PutOutcome> {
        (**self).put_if_absent(path, body).await
    }
    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Vec<ObjectMeta>> {
        (**self).list(prefix, start_after, limit).await
    }
    async fn head(&self, path: &ObjectPath) -> Result<Option<ObjectMeta>> {
        (**self).head(path).await
    }
    async fn delete(&self, path: &ObjectPath) -> Result<()> {
        (**self).delete(path).await
    }
}
