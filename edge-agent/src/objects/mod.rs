//! The object store that the configuration names, also while it cannot be reached: the agent
//! goes on filling its spool.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use ribera_storage::object::s3::Throttle;
use ribera_storage::object::{FolderStore, ObjectMeta, ObjectPath, Part, PutBody, PutOutcome, S3Store};
use ribera_storage::{Error, ErrorKind, ObjectStore, Result};

use crate::config::ObjectStoreConfig;
use crate::host::SystemClock;

pub mod uplink;

/// Where batches go.
#[derive(Debug, Clone)]
pub enum Objects {
    Folder(FolderStore),
    S3(S3Store),
    /// Not to be had in this run; every call says why.
    Unreachable {
        place: String,
        why: String,
    },
}

impl Objects {
    /// `token` is unique among all processes. A store that cannot be reached now is no error yet.
    pub fn open(config: &ObjectStoreConfig, token: String) -> Self {
        let (place, opened) = match (&config.s3, &config.folder) {
            (Some(s3), _) => {
                let opened = S3Store::new(&s3.settings(), Arc::new(SystemClock), token).map(Self::S3);
                (format!("{}/{}", s3.endpoint, s3.bucket), opened)
            }
            (None, Some(folder)) => (folder.display().to_string(), FolderStore::open(folder, token).map(Self::Folder)),
            (None, None) => (String::new(), Err(Error::config("object store: none is configured"))),
        };
        opened.unwrap_or_else(|error| Self::Unreachable { place, why: error.to_string() })
    }

    /// Kind and place, without secrets.
    pub fn describe(&self) -> String {
        match self {
            Self::Folder(folder) => folder.root().display().to_string(),
            Self::S3(s3) => s3.place().to_owned(),
            Self::Unreachable { place, .. } => place.clone(),
        }
    }

    /// Files leave no faster than this. A folder takes them whole: there the agent waits afterwards.
    pub fn set_throttle(&self, pace: Arc<dyn Throttle>) {
        if let Self::S3(s3) = self {
            s3.set_throttle(pace);
        }
    }

    /// Whether the store keeps the promise of put-if-absent.
    pub async fn probe(&self) -> Result<()> {
        match self {
            Self::Folder(folder) => folder.probe().await,
            Self::S3(s3) => helped(s3.probe().await),
            Self::Unreachable { why, .. } => unreachable(why),
        }
    }
}

fn unreachable<T>(why: &str) -> Result<T> {
    Err(Error::config(format!("object store: cannot be reached: {why}")).with_hint("ribera-agent check"))
}

/// What a person must mend ends with the command that says how.
fn helped<T>(done: Result<T>) -> Result<T> {
    done.map_err(|error| if error.kind() == ErrorKind::Config { error.with_hint("ribera-agent check") } else { error })
}

/// Calls the store that is configured.
macro_rules! delegate {
    ($self:ident, $call:ident ( $($argument:expr),* )) => {
        match $self {
            Objects::Folder(folder) => folder.$call($($argument),*).await,
            Objects::S3(s3) => helped(s3.$call($($argument),*).await),
            Objects::Unreachable { why, .. } => unreachable(why),
        }
    };
}

impl ObjectStore for Objects {
    async fn get(&self, path: &ObjectPath) -> Result<Option<Bytes>> {
        delegate!(self, get(path))
    }

    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Option<Part>> {
        delegate!(self, get_range(path, range))
    }

    async fn put(&self, path: &ObjectPath, body: PutBody) -> Result<()> {
        delegate!(self, put(path, body))
    }

    async fn put_timed(&self, path: &ObjectPath, body: PutBody) -> Result<Option<Timestamp>> {
        delegate!(self, put_timed(path, body))
    }

    async fn put_if_absent(&self, path: &ObjectPath, body: PutBody) -> Result<PutOutcome> {
        delegate!(self, put_if_absent(path, body))
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Vec<ObjectMeta>> {
        delegate!(self, list(prefix, start_after, limit))
    }

    async fn head(&self, path: &ObjectPath) -> Result<Option<ObjectMeta>> {
        delegate!(self, head(path))
    }

    async fn delete(&self, path: &ObjectPath) -> Result<()> {
        delegate!(self, delete(path))
    }
}
