//! Folders and files that belong to this user alone, as the open descriptors say.
//!
//! A path is walked from the root, one folder at a time, without following links: what was checked is what is
//! used, whatever others do to names meanwhile.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::process::geteuid;

/// Permission bits of others than the owner that let them write.
const OTHERS_WRITE: u32 = 0o022;

/// Every permission bit of others than the owner.
const OTHERS_ALL: u32 = 0o077;

/// A folder that nobody else can write, read or replace.
#[derive(Debug)]
pub struct PrivateFolder {
    folder: OwnedFd,
    path: PathBuf,
}

impl PrivateFolder {
    /// Opens the folder.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is none. `PermissionDenied` if it is not this user's with mode 0700, or if a folder
    /// above it belongs to somebody else than this user or root, or can be written by others. A folder with
    /// the sticky bit, such as `/tmp`, can be written by others.
    pub fn open(path: &Path) -> io::Result<Self> {
        // Links are resolved first, and only what they lead to is walked.
        let path = fs::canonicalize(path)?;
        let mut folder = rustix::fs::open("/", folder_flags() | OFlags::PATH, Mode::empty())?;
        let mut walked = PathBuf::from("/");
        check_above(&folder, &walked)?;
        let mut rest = path.components().filter(|part| *part != Component::RootDir).peekable();
        while let Some(part) = rest.next() {
            walked.push(part);
            // Folders above need not be readable.
            let flags = if rest.peek().is_some() { folder_flags() | OFlags::PATH } else { folder_flags() };
            folder = rustix::fs::openat(&folder, part.as_os_str(), flags, Mode::empty())?;
            match rest.peek() {
                Some(_) => check_above(&folder, &walked)?,
                None => check_own(&folder, &walked)?,
            }
        }
        Ok(Self { folder, path })
    }

    /// Opens the folder, made with what is missing above it.
    ///
    /// # Errors
    ///
    /// As [`PrivateFolder::open`], and whatever making it gives.
    pub fn make(path: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        Self::open(path)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names in it, those that are UTF-8.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.folder)? {
            if let Ok(name) = entry?.file_name().to_str()
                && !matches!(name, "." | "..")
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Opens a file of it to read.
    ///
    /// # Errors
    ///
    /// `PermissionDenied` if it is a link or no plain file, belongs to somebody else, or can be written by others.
    pub fn file(&self, name: &str) -> io::Result<File> {
        // Without waiting: it may be a pipe.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.folder, name, flags, Mode::empty()) {
            Err(rustix::io::Errno::LOOP) => return Err(refused(&self.path.join(name), "must be no link")),
            opened => opened?,
        };
        let stat = rustix::fs::fstat(&file)?;
        let path = self.path.join(name);
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(refused(&path, "must be a plain file"));
        }
        must_be_mine(&stat, &path)?;
        must_lack(&stat, OTHERS_WRITE, &path)?;
        Ok(file.into())
    }

    /// Makes a file that only this user can read; an error where the name is taken.
    pub fn new_file(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.folder, name, flags, Mode::RUSR | Mode::WUSR)?))
    }

    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.folder, from, &self.folder, to)?)
    }

    pub fn remove(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.folder, name, AtFlags::empty())?)
    }

    /// When the file was written, in seconds and nanoseconds.
    pub fn modified(&self, name: &str) -> io::Result<(i64, i64)> {
        let stat = rustix::fs::statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        #[allow(clippy::unnecessary_cast, reason = "the fields' types differ from system to system")]
        Ok((stat.st_mtime as i64, stat.st_mtime_nsec as i64))
    }
}

fn folder_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

/// Whoever can write a folder can put another in the place of one below it.
fn check_above(folder: &OwnedFd, path: &Path) -> io::Result<()> {
    let stat = rustix::fs::fstat(folder)?;
    if stat.st_uid != 0 {
        must_be_mine(&stat, path)?;
    }
    must_lack(&stat, OTHERS_WRITE, path)
}

fn check_own(folder: &OwnedFd, path: &Path) -> io::Result<()> {
    let stat = rustix::fs::fstat(folder)?;
    must_be_mine(&stat, path)?;
    must_lack(&stat, OTHERS_ALL, path)
}

fn must_be_mine(stat: &Stat, path: &Path) -> io::Result<()> {
    let me = geteuid().as_raw();
    if stat.st_uid == me {
        return Ok(());
    }
    Err(refused(path, &format!("owner must be {me}, got {}", stat.st_uid)))
}

fn must_lack(stat: &Stat, bits: u32, path: &Path) -> io::Result<()> {
    #[allow(clippy::useless_conversion, reason = "the field's type differs from system to system")]
    let mode = u32::from(stat.st_mode) & 0o7777;
    if mode & bits == 0 {
        return Ok(());
    }
    Err(refused(path, &format!("mode must lack {bits:03o}, got {mode:04o}")))
}

fn refused(path: &Path, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, format!("{}: {why}", path.display()))
}
