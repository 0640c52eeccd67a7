//! The real clock, randomness, timer and disk.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind as Io, Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use jiff::Timestamp;
use ribera_storage::Result;
use ribera_storage::object::PutBody;
use ribera_storage::ports::{Clock, Random};

use crate::ports::{SpoolDisk, SpoolFile, Timer, disk_error};

/// The one place where the agent reads the time.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods)]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// The operating system's generator, for names and jitter.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsRandom;

impl Random for OsRandom {
    #[expect(clippy::disallowed_methods)]
    fn next_u64(&self) -> u64 {
        // Without the system's generator the time is still different at every call.
        getrandom::u64().unwrap_or_else(|_| Timestamp::now().as_nanosecond() as u64)
    }
}

#[derive(Debug, Clone, Copy, Default)]
pub struct TokioTimer;

impl Timer for TokioTimer {
    fn sleep(&self, duration: Duration) -> LocalBoxFuture<'_, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// The spool in a folder.
#[derive(Debug, Clone)]
pub struct FolderDisk {
    folder: PathBuf,
}

impl FolderDisk {
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self> {
        let folder = folder.into();
        fs::create_dir_all(&folder).map_err(|error| disk_error("create", &folder, error))?;
        Ok(Self { folder })
    }

    /// A disk for reading only: nothing is created.
    pub fn existing(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

struct FolderFile {
    file: File,
    path: PathBuf,
}

impl Write for FolderFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl SpoolFile for FolderFile {
    fn sync(&mut self) -> Result<()> {
        self.file.sync_all().map_err(|error| disk_error("sync", &self.path, error))
    }
}

impl SpoolDisk for FolderDisk {
    fn create(&self, name: &str) -> Result<Box<dyn SpoolFile>> {
        let path = self.file(name);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(|error| disk_error("create", &path, error))?;
        Ok(Box::new(FolderFile { file, path }))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        fs::rename(self.file(from), self.file(to)).map_err(|error| disk_error("rename", &self.file(to), error))
    }

    fn sync_folder(&self) -> Result<()> {
        // Windows has no handle to sync a folder by; its renames are journalled.
        #[cfg(unix)]
        File::open(&self.folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|error| disk_error("sync", &self.folder, error))?;
        Ok(())
    }

    fn open(&self, name: &str) -> Result<Option<Box<dyn Read>>> {
        match File::open(self.file(name)) {
            Ok(file) => Ok(Some(Box::new(file))),
            Err(error) if error.kind() == Io::NotFound => Ok(None),
            Err(error) => Err(disk_error("read", &self.file(name), error)),
        }
    }

    fn body(&self, name: &str) -> Result<PutBody> {
        let path = self.file(name);
        let bytes = fs::metadata(&path).map_err(|error| disk_error("read", &path, error))?.len();
        Ok(PutBody::File { path, bytes })
    }

    fn list(&self) -> Result<Vec<(String, u64)>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == Io::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| disk_error("list", &self.folder, error))?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| disk_error("list", &self.folder, error))?;
            if let (Ok(name), Ok(metadata)) = (entry.file_name().into_string(), entry.metadata())
                && metadata.is_file()
            {
                files.push((name, metadata.len()));
            }
        }
        files.sort();
        Ok(files)
    }

    fn delete(&self, name: &str) -> Result<()> {
        match fs::remove_file(self.file(name)) {
            Err(error) if error.kind() != Io::NotFound => Err(disk_error("delete", &self.file(name), error)),
            _ => Ok(()),
        }
    }
}
