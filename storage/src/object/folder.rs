//! An object store in a folder of a local or network disk. It also runs in WASI over a
//! preopened folder, where renames overwrite silently and file locks do not exist: put-if-absent
//! is a temporary file, fsync, hard link, unlink.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{ErrorKind as Io, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use jiff::Timestamp;

use super::{ObjectMeta, ObjectPath, ObjectStore, Part, PutBody, PutOutcome, keeps_put_if_absent};
use crate::error::{Error, Result};

/// The folder of unfinished writes; no object lies in it.
const TEMPORARY: &str = ".tmp";

/// No write takes so long: a temporary file of this age was left by a crash.
#[cfg(not(target_family = "wasm"))]
const STALE_AFTER: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, Clone)]
pub struct FolderStore {
    root: PathBuf,
    /// Tells this store's temporary files from those of other processes.
    token: String,
    durable: bool,
}

impl FolderStore {
    /// `token` must be unique among all processes and instances that write to the folder (a
    /// fresh random name).
    ///
    /// # Errors
    ///
    /// `Config` when the folder cannot be made or the token is no name.
    pub fn open(root: impl Into<PathBuf>, token: impl Into<String>) -> Result<Self> {
        let root = root.into();
        fs::create_dir_all(root.join(TEMPORARY)).map_err(|error| {
            Error::config(format!("object store folder {}: cannot be written", root.display())).with_source(error)
        })?;
        let store = Self { root, token: token.into(), durable: true };
        // A WASM instance lives for one call: the host that starts it clears up.
        #[cfg(not(target_family = "wasm"))]
        store.remove_stale(STALE_AFTER)?;
        Ok(store)
    }

    /// Removes temporary files that were last written `older_than` ago: what crashed writers left
    /// behind. How many there were.
    ///
    /// # Errors
    ///
    /// `Retry` when the folder cannot be read.
    pub fn remove_stale(&self, older_than: Duration) -> Result<usize> {
        let mut removed = 0;
        for entry in fs::read_dir(self.root.join(TEMPORARY))? {
            let entry = entry?;
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            let is_stale = modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age >= older_than));
            // Another process may be removing it too.
            if is_stale && fs::remove_file(entry.path()).is_ok() {
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// For a folder that this process may only read: nothing is made or checked, and every write
    /// fails.
    pub fn read_only(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), token: String::new(), durable: true }
    }

    /// Leaves out fsync: quicker, and nothing survives a power cut for certain.
    #[must_use]
    pub fn without_sync(mut self) -> Self {
        self.durable = false;
        self
    }

    /// Whether the folder keeps the promise of put-if-absent; an error that says so otherwise.
    ///
    /// # Errors
    ///
    /// `Config` when it does not; `Retry` when it cannot be written.
    pub async fn probe(&self) -> Result<()> {
        let name = format!("{}-{}", self.token, next_number());
        let put = async |path: &ObjectPath, body| self.put_if_absent(path, body).await;
        if keeps_put_if_absent(self, put, &name).await? {
            return Ok(());
        }
        Err(Error::config(format!(
            "object store folder {}: its file system does not keep put-if-absent (hard links that fail when the name exists); use a local disk",
            self.root.display()
        )))
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    fn file(&self, path: &ObjectPath) -> Result<PathBuf> {
        if path.as_str().split('/').next() == Some(TEMPORARY) {
            return Err(Error::reject(format!("object path: must not lie in {TEMPORARY}, got {path}")));
        }
        Ok(self.root.join(path.as_str()))
    }

    /// Writes `body` to a synced temporary file.
    fn write_temporary(&self, body: PutBody) -> Result<PathBuf> {
        let path = self.root.join(TEMPORARY).join(format!("{}-{}", self.token, next_number()));
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        let written = (|| {
            match body {
                PutBody::Bytes(bytes) => file.write_all(&bytes)?,
                PutBody::File { path, .. } => {
                    std::io::copy(&mut File::open(path)?, &mut file)?;
                }
            }
            if self.durable { file.sync_all() } else { Ok(()) }
        })();
        written.map(|()| path.clone()).map_err(|error: std::io::Error| {
            // What is left of the write is of no use, and its removal may fail as well.
            let _ = fs::remove_file(&path);
            Error::from(error).context("object store")
        })
    }

    fn ensure_folder(&self, file: &Path) -> Result<()> {
        let Some(parent) = file.parent() else { return Ok(()) };
        if parent.is_dir() {
            return Ok(());
        }
        let fresh: Vec<&Path> = parent.ancestors().take_while(|folder| !folder.is_dir()).collect();
        fs::create_dir_all(parent)?;
        // A folder survives a power cut once the folder that names it is synced.
        fresh.into_iter().try_for_each(|folder| self.sync_folder(folder))
    }

    /// Syncs the folder that names `file`.
    fn sync_folder(&self, file: &Path) -> Result<()> {
        #[cfg(any(unix, target_os = "wasi"))]
        if self.durable
            && let Some(parent) = file.parent()
        {
            File::open(parent)?.sync_all()?;
        }
        let _ = file;
        Ok(())
    }

    fn walk(&self, folder: &Path, relative: &str, listing: &mut Listing<'_>) -> Result<()> {
        let mut tries = 1;
        let mut names = loop {
            match names_of(folder, relative) {
                // In WASI a file deleted while its folder is read fails the reading: begin again.
                Err(error) if error.kind() == Io::NotFound && tries < READ_TRIES_MAX => tries += 1,
                names => break names.map_err(|error| Error::from(error).context(format!("list {relative}")))?,
            }
        };
        names.sort_unstable();
        for name in names {
            if listing.found.len() >= listing.limit {
                return Ok(());
            }
            if name.ends_with('/') {
                if listing.wants_folder(&name) {
                    self.walk(&self.root.join(name.trim_end_matches('/')), &name, listing)?;
                }
            } else if listing.wants(&name)
                && let Ok(path) = ObjectPath::new(name)
                && let Some(meta) = self.meta(&path)?
            {
                listing.found.push(meta);
            }
        }
        Ok(())
    }

    fn meta(&self, path: &ObjectPath) -> Result<Option<ObjectMeta>> {
        let metadata = match fs::metadata(self.file(path)?) {
            Err(error) if is_absent(&error) => return Ok(None),
            metadata => metadata?,
        };
        if !metadata.is_file() {
            return Ok(None);
        }
        Ok(Some(ObjectMeta { path: path.clone(), bytes: metadata.len(), modified: modified(&metadata)? }))
    }
}

struct Listing<'a> {
    prefix: &'a str,
    start_after: Option<&'a str>,
    limit: usize,
    found: Vec<ObjectMeta>,
}

impl Listing<'_> {
    fn wants(&self, name: &str) -> bool {
        name.starts_with(self.prefix) && self.start_after.is_none_or(|after| name > after)
    }

    fn wants_folder(&self, name: &str) -> bool {
        let shorter = name.len().min(self.prefix.len());
        let on_the_way = name.as_bytes()[..shorter] == self.prefix.as_bytes()[..shorter];
        // Every object below sorts after `name`; those of a folder wholly before the start do not count.
        on_the_way
            && name.strip_suffix('/') != Some(TEMPORARY)
            && self.start_after.is_none_or(|after| name > after || after.starts_with(name))
    }
}

impl ObjectStore for FolderStore {
    async fn get(&self, path: &ObjectPath) -> Result<Option<Bytes>> {
        match fs::read(self.file(path)?) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(Error::from(error).context(path)),
        }
    }

    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Option<Part>> {
        let mut file = match File::open(self.file(path)?) {
            Err(error) if is_absent(&error) => return Ok(None),
            file => file?,
        };
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(range.start))?;
        file.take(range.end.saturating_sub(range.start)).read_to_end(&mut bytes)?;
        Ok(Some(Part { bytes: bytes.into(), modified: modified(&metadata)? }))
    }

    async fn put(&self, path: &ObjectPath, body: PutBody) -> Result<()> {
        let file = self.file(path)?;
        let temporary = self.write_temporary(body)?;
        self.ensure_folder(&file)?;
        fs::rename(&temporary, &file).map_err(|error| Error::from(error).context(path))?;
        self.sync_folder(&file)
    }

    async fn put_if_absent(&self, path: &ObjectPath, body: PutBody) -> Result<PutOutcome> {
        let file = self.file(path)?;
        if file.exists() {
            return Ok(PutOutcome::Exists);
        }
        let temporary = self.write_temporary(body)?;
        self.ensure_folder(&file)?;
        let linked = fs::hard_link(&temporary, &file);
        fs::remove_file(&temporary)?;
        match linked {
            Ok(()) => {
                self.sync_folder(&file)?;
                Ok(PutOutcome::Created)
            }
            Err(error) if error.kind() == Io::AlreadyExists => Ok(PutOutcome::Exists),
            Err(error) => Err(Error::from(error).context(path)),
        }
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Vec<ObjectMeta>> {
        let mut listing = Listing { prefix, start_after, limit, found: Vec::new() };
        // Begin at the deepest folder that the prefix names whole.
        let folder = prefix.rfind('/').map_or("", |slash| &prefix[..=slash]);
        if folder.split('/').any(|segment| segment == ".." || segment == ".") || folder.starts_with('/') {
            return Err(Error::reject(format!("list: prefix: must hold no . or .. segment, got {prefix:?}")));
        }
        if folder.split('/').next() != Some(TEMPORARY) {
            self.walk(&self.root.join(folder.trim_end_matches('/')), folder, &mut listing)?;
        }
        Ok(listing.found)
    }

    async fn head(&self, path: &ObjectPath) -> Result<Option<ObjectMeta>> {
        self.meta(path)
    }

    async fn delete(&self, path: &ObjectPath) -> Result<()> {
        match fs::remove_file(self.file(path)?) {
            Err(error) if !is_absent(&error) => Err(Error::from(error).context(path)),
            _ => Ok(()),
        }
    }
}

/// When the file was written. It got its name just after that.
fn modified(metadata: &Metadata) -> Result<Timestamp> {
    let since = metadata.modified()?.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Ok(Timestamp::from_nanosecond(i128::try_from(since.as_nanos()).unwrap_or(0)).unwrap_or_default())
}

/// Of one folder while others delete from it; each try needs another deletion to fail.
const READ_TRIES_MAX: u32 = 16;

/// The names in `folder` below `relative`; a folder's ends with a slash. Nothing for no folder.
fn names_of(folder: &Path, relative: &str) -> std::io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let kind = match entry.file_type() {
            Err(error) if error.kind() == Io::NotFound => continue,
            kind => kind?,
        };
        // A folder sorts as its objects do: with the slash behind its name.
        names.push(if kind.is_dir() { format!("{relative}{name}/") } else { format!("{relative}{name}") });
    }
    Ok(names)
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), Io::NotFound | Io::NotADirectory | Io::IsADirectory)
}

/// Unique within the process.
fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests;
