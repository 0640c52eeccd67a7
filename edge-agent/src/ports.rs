//! What the deciding parts ask of their host, beside the clock, randomness and object store of
//! `ribera-storage`: a timer, the spool's disk, and a hook before every step of I/O.

use std::io::{ErrorKind as Io, Read, Write};
use std::path::Path;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use ribera_storage::object::PutBody;
use ribera_storage::{Error, Result};

use crate::system;

/// Waits. A simulation moves its own clock instead.
pub trait Timer {
    fn sleep(&self, duration: Duration) -> LocalBoxFuture<'_, ()>;
}

/// Called before every step of I/O that changes something (and before reading an
/// acknowledgement). Production tells a log of it, if somebody listens; a test or simulation returns an error to
/// crash the agent at that very point, and goes on returning it until the agent is started again.
pub trait FailPoints {
    fn hit(&self, step: &'static str) -> Result<()>;
}

/// The steps of production: `RIBERA_LOG=warn,ribera_agent::step=trace` shows what the agent was about to do when it
/// was killed.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoggedFailPoints;

impl FailPoints for LoggedFailPoints {
    fn hit(&self, step: &'static str) -> Result<()> {
        tracing::trace!(target: "ribera_agent::step", "{step}");
        Ok(())
    }
}

/// Nothing happens.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFailPoints;

impl FailPoints for NoFailPoints {
    fn hit(&self, _step: &'static str) -> Result<()> {
        Ok(())
    }
}

/// The name of every step, in the order in which a batch meets them.
pub mod step {
    pub const SOURCE_QUERY: &str = "source.query";
    pub const SPOOL_CREATE: &str = "spool.create";
    pub const SPOOL_WRITE: &str = "spool.write";
    pub const SPOOL_SYNC: &str = "spool.sync";
    pub const SPOOL_RENAME: &str = "spool.rename";
    pub const SPOOL_SYNC_FOLDER: &str = "spool.sync_folder";
    pub const JOURNAL_COMMIT: &str = "journal.commit";
    pub const DIFFERING: &str = "differing.put";
    pub const EPOCH_CLAIM: &str = "epoch.claim";
    pub const UPLOAD_FILE: &str = "upload.file";
    pub const UPLOAD_MANIFEST: &str = "upload.manifest";
    pub const ACK_READ: &str = "ack.read";
    pub const SPOOL_PRUNE: &str = "spool.prune";
    pub const HEARTBEAT: &str = "heartbeat.put";

    /// Every step there is.
    pub const ALL: [&str; 14] = [
        SOURCE_QUERY,
        SPOOL_CREATE,
        SPOOL_WRITE,
        SPOOL_SYNC,
        SPOOL_RENAME,
        SPOOL_SYNC_FOLDER,
        JOURNAL_COMMIT,
        DIFFERING,
        EPOCH_CLAIM,
        UPLOAD_FILE,
        UPLOAD_MANIFEST,
        ACK_READ,
        SPOOL_PRUNE,
        HEARTBEAT,
    ];
}

/// A file of the spool being written. What was not synced may be lost with the power.
pub trait SpoolFile: Write {
    /// Makes the content durable.
    fn sync(&mut self) -> Result<()>;
}

/// The folder in which batches wait. Names are plain file names. A created or renamed file is
/// durable only after [`SpoolDisk::sync_folder`].
pub trait SpoolDisk {
    /// A new file; one of that name is replaced.
    fn create(&self, name: &str) -> Result<Box<dyn SpoolFile>>;
    fn rename(&self, from: &str, to: &str) -> Result<()>;
    fn sync_folder(&self) -> Result<()>;
    /// The content from its beginning, or `None` when there is no such file.
    fn open(&self, name: &str) -> Result<Option<Box<dyn Read>>>;
    /// What an upload of the file hands to the object store.
    fn body(&self, name: &str) -> Result<PutBody>;
    /// Every file with its bytes.
    fn list(&self) -> Result<Vec<(String, u64)>>;
    /// It is no error when there is no such file.
    fn delete(&self, name: &str) -> Result<()>;
}

/// Says what the disk refused, and the next step. A full or read-only disk is
/// [`ribera_storage::ErrorKind::Config`]: waiting does not help, a person must act.
pub fn disk_error(doing: &str, path: &Path, error: std::io::Error) -> Error {
    let place = path.display();
    match error.kind() {
        Io::StorageFull | Io::QuotaExceeded => Error::config(format!("spool: {doing} {place}: the disk is full"))
            .with_hint(system::free_space(path.parent().unwrap_or(path))),
        Io::ReadOnlyFilesystem | Io::PermissionDenied => {
            Error::config(format!("spool: {doing} {place}: the folder must be writable by this user"))
                .with_hint(system::folder_rights(path.parent().unwrap_or(path)))
        }
        _ => Error::retry(format!("spool: {doing} {place}")),
    }
    .with_source(error)
}
