//! What is uploaded: hashed beforehand, then handed over in pieces, as fast as a limit allows.

use std::fs::File;
use std::io::{Error as IoError, ErrorKind as Io, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use futures::stream::try_unfold;
use md5::{Digest, Md5};

use super::answer::{Md5Sum, md5_of};
use crate::error::{Error, Result};
use crate::object::PutBody;

const PIECE_BYTES: usize = 64 << 10;

/// Limits the rate at which files are uploaded.
pub trait Throttle: Send + Sync {
    /// How many bytes to hand over at once, at most.
    fn piece(&self) -> usize;
    /// How long to wait before the next so many bytes.
    fn wait(&self, bytes: usize) -> Duration;
}

/// A body that can be sent more than once.
pub(super) struct Upload {
    body: PutBody,
    pub md5: Md5Sum,
    pub bytes: u64,
}

impl Upload {
    /// Reads the body once, for its hash.
    pub fn new(body: PutBody) -> Result<Self> {
        let (md5, bytes) = match &body {
            PutBody::Bytes(bytes) => (md5_of(bytes), bytes.len() as u64),
            PutBody::File { path, bytes } => (hash(path, *bytes)?, *bytes),
        };
        Ok(Self { body, md5, bytes })
    }

    /// `handed` counts the bytes as they are taken.
    pub fn to_body(&self, pace: Option<Arc<dyn Throttle>>, handed: Arc<AtomicU64>) -> Result<reqwest::Body> {
        match &self.body {
            PutBody::Bytes(bytes) => Ok(bytes.clone().into()),
            PutBody::File { path, bytes } => {
                let file = open(path)?;
                Ok(reqwest::Body::wrap_stream(pieces(file, path.clone(), *bytes, pace, handed)))
            }
        }
    }
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|error| Error::from(error).context(path.display()))
}

fn hash(path: &Path, bytes: u64) -> Result<Md5Sum> {
    let (mut file, mut hasher) = (open(path)?, Md5::new());
    let mut buffer = vec![0; PIECE_BYTES];
    let mut read = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                read += count as u64;
                hasher.update(&buffer[..count]);
            }
            Err(error) if error.kind() == Io::Interrupted => {}
            Err(error) => return Err(Error::from(error).context(path.display())),
        }
    }
    if read != bytes {
        return Err(Error::retry(format!("{}: must have {bytes} bytes, got {read}", path.display())));
    }
    Ok(hasher.finalize().into())
}

fn pieces(
    file: File,
    path: PathBuf,
    bytes: u64,
    pace: Option<Arc<dyn Throttle>>,
    handed: Arc<AtomicU64>,
) -> impl Stream<Item = std::io::Result<Bytes>> + Send {
    try_unfold((file, bytes), move |(mut file, left)| {
        let (pace, handed, path) = (pace.clone(), handed.clone(), path.clone());
        async move {
            let at_once = pace.as_ref().map_or(PIECE_BYTES, |pace| pace.piece().clamp(1, PIECE_BYTES));
            let wanted = at_once.min(usize::try_from(left).unwrap_or(at_once));
            if wanted == 0 {
                return Ok(None);
            }
            if let Some(wait) = pace.map(|pace| pace.wait(wanted)).filter(|wait| !wait.is_zero()) {
                tokio::time::sleep(wait).await;
            }
            let mut piece = vec![0; wanted];
            file.read_exact(&mut piece)
                .map_err(|error| IoError::new(error.kind(), format!("{}: {error}", path.display())))?;
            handed.fetch_add(wanted as u64, Ordering::Relaxed);
            Ok(Some((Bytes::from(piece), (file, left - wanted as u64))))
        }
    })
}
