//! The object store that the configuration names, also while it cannot be reached: the agent
//! goes on filling its spool.

use std::ops::Range;

use bytes::Bytes;
use ribera_storage::object::{FolderStore, ObjectMeta, ObjectPath, PutBody, PutOutcome};
use ribera_storage::{Error, ObjectStore, Result};

use crate::config::ObjectStoreConfig;

/// Where batches go.
#[derive(Debug, Clone)]
pub enum Objects {
    Folder(FolderStore),
    /// Not to be had in this run; every call says why.
    Unreachable {
        place: String,
        why: String,
    },
}

impl Objects {
    /// `token` is unique among all processes. A store that cannot be reached now is no error yet.
    pub fn open(config: &ObjectStoreConfig, token: String) -> Self {
        match FolderStore::open(&config.folder, token) {
            Ok(folder) => Self::Folder(folder),
            Err(error) => Self::Unreachable { place: config.folder.display().to_string(), why: error.to_string() },
        }
    }

    /// Kind and place, without secrets.
    pub fn describe(&self) -> String {
        match self {
            Self::Folder(folder) => folder.root().display().to_string(),
            Self::Unreachable { place, .. } => place.clone(),
        }
    }

    /// Whether the store keeps the promise of put-if-absent.
    pub async fn probe(&self) -> Result<()> {
        self.folder()?.probe().await
    }

    fn folder(&self) -> Result<&FolderStore> {
        match self {
            Self::Folder(folder) => Ok(folder),
            Self::Unreachable { why, .. } => {
                Err(Error::config(format!("object store: cannot be reached: {why}")).with_hint("ribera-agent check"))
            }
        }
    }
}

impl ObjectStore for Objects {
    async fn get(&self, path: &ObjectPath) -> Result<Option<Bytes>> {
        self.folder()?.get(path).await
    }

    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Option<Bytes>> {
        self.folder()?.get_range(path, range).await
    }

    async fn put(&self, path: &ObjectPath, body: PutBody) -> Result<()> {
        self.folder()?.put(path, body).await
    }

    async fn put_if_absent(&self, path: &ObjectPath, body: PutBody) -> Result<PutOutcome> {
        self.folder()?.put_if_absent(path, body).await
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Vec<ObjectMeta>> {
        self.folder()?.list(prefix, start_after, limit).await
    }

    async fn head(&self, path: &ObjectPath) -> Result<Option<ObjectMeta>> {
        self.folder()?.head(path).await
    }

    async fn delete(&self, path: &ObjectPath) -> Result<()> {
        self.folder()?.delete(path).await
    }
}
