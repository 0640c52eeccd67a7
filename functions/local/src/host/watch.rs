//! Hears of new manifests from the kernel (Linux inotify). A hint only: what is missed here the
//! sweep finds.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use ribera_storage::object::ObjectPath;
use ribera_storage::{Error, Result};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    Manifest(ObjectPath),
    /// The kernel dropped events, or a folder cannot be watched: list the inbox.
    Lost,
}

/// Watches `inbox/`, `inbox/STORE/` and `inbox/STORE/DATASET/`.
pub struct Watch {
    store_root: PathBuf,
    events: AsyncFd<OwnedFd>,
    /// The folder of each watch, relative to the store's root.
    folders: HashMap<i32, String>,
}

/// `inbox/STORE/DATASET`: where manifests lie.
const DEPTH: usize = 3;

impl Watch {
    /// Must be called within a tokio runtime. Returns what lies there already as well.
    pub fn start(store_root: &Path) -> Result<(Self, Vec<Heard>)> {
        let failed = |error: Errno| Error::retry("inotify").with_source(std::io::Error::from(error));
        let events = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(failed)?;
        let events = wait_on(events)?;
        let mut watch = Self { store_root: store_root.to_owned(), events, folders: HashMap::new() };
        let mut heard = Vec::new();
        watch.add("inbox".into(), &mut heard);
        if watch.folders.is_empty() {
            return Err(Error::retry(format!("inotify: {}: cannot be watched", store_root.join("inbox").display())));
        }
        Ok((watch, heard))
    }

    /// Waits for the next news.
    pub async fn next(&mut self) -> Result<Vec<Heard>> {
        loop {
            let mut events = Vec::new();
            let mut ready = self.events.readable().await?;
            let read = ready.try_io(|fd| read_events(fd.get_ref(), &mut events));
            drop(ready);
            if let Ok(read) = read {
                read?;
            }
            let mut heard = Vec::new();
            for event in events {
                self.understand(event, &mut heard);
            }
            if !heard.is_empty() {
                return Ok(heard);
            }
        }
    }

    fn understand(&mut self, event: RawEvent, heard: &mut Vec<Heard>) {
        if event.flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            heard.push(Heard::Lost);
            return;
        }
        if event.flags.contains(ReadFlags::IGNORED) {
            self.folders.remove(&event.watch);
            return;
        }
        let (Some(folder), Some(name)) = (self.folders.get(&event.watch), event.name) else { return };
        let path = format!("{folder}/{name}");
        if event.flags.contains(ReadFlags::ISDIR) {
            self.add(path, heard);
        } else {
            heard.extend(manifest(path));
        }
    }

    /// Watches a folder, then looks into it: what came before the watch makes no event.
    fn add(&mut self, folder: String, heard: &mut Vec<Heard>) {
        let depth = folder.split('/').count();
        if depth > DEPTH {
            return;
        }
        let wanted = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
        let full = self.store_root.join(&folder);
        match inotify::add_watch(&self.events, &full, wanted) {
            Ok(watch) => {
                self.folders.insert(watch, folder.clone());
            }
            Err(Errno::NOENT) => return,
            Err(_) => {
                heard.push(Heard::Lost);
                return;
            }
        }
        for entry in std::fs::read_dir(&full).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = format!("{folder}/{name}");
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => self.add(path, heard),
                Ok(_) => heard.extend(manifest(path)),
                Err(_) => {}
            }
        }
    }
}

#[allow(unsafe_code)]
fn wait_on(events: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned, and nothing replaces or closes it before it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(events, Interest::READABLE) }?)
}

struct RawEvent {
    watch: i32,
    flags: ReadFlags,
    name: Option<String>,
}

/// Everything that is there to read; `WouldBlock` when there was nothing.
fn read_events(fd: &OwnedFd, events: &mut Vec<RawEvent>) -> std::io::Result<()> {
    let mut buffer = [MaybeUninit::uninit(); 16 << 10];
    let mut reader = Reader::new(fd, &mut buffer);
    loop {
        match reader.next() {
            Ok(event) => events.push(RawEvent {
                watch: event.wd(),
                flags: event.events(),
                name: event.file_name().and_then(|name| name.to_str().ok()).map(str::to_owned),
            }),
            Err(Errno::WOULDBLOCK) if !events.is_empty() => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn manifest(path: String) -> Option<Heard> {
    let is_manifest = path.split('/').count() == DEPTH + 1 && path.ends_with(".json");
    is_manifest.then(|| ObjectPath::new(path).ok().map(Heard::Manifest)).flatten()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ribera_storage::ObjectStore;
    use ribera_storage::object::FolderStore;

    use super::*;

    #[tokio::test]
    async fn every_manifest_is_heard_of_even_in_folders_made_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::open(folder.path(), "test").unwrap();
        let path = |store: usize, number: usize| {
            ObjectPath::new(format!("inbox/s{store}/ventas/000000-{number:010}.json")).unwrap()
        };
        store.put_if_absent(&path(0, 0), b"{}".to_vec().into()).await.unwrap();
        let (mut watch, mut heard) = Watch::start(folder.path()).unwrap();
        let writing = async {
            for store_number in 0..20 {
                for number in 0..20 {
                    store.put_if_absent(&path(store_number, number), b"{}".to_vec().into()).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        };
        let hearing = async {
            let mut seen = std::collections::BTreeSet::new();
            while seen.len() < 400 {
                for one in std::mem::take(&mut heard) {
                    match one {
                        Heard::Manifest(path) => seen.insert(path),
                        Heard::Lost => panic!("lost events"),
                    };
                }
                if seen.len() < 400 {
                    heard = watch.next().await.unwrap();
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), futures::future::join(writing, hearing)).await.unwrap();
    }
}
