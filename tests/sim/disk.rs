//! A store PC's disk: what was not synced may be gone after a crash, file names too.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Read, Write};
use std::rc::Rc;

use ribera_agent::ports::{SpoolDisk, SpoolFile};
use ribera_storage::object::PutBody;
use ribera_storage::{Error, Result};

use super::cloud::Cloud;
use super::kernel::Sim;
use super::tally::Fault;

type Content = Rc<RefCell<File>>;

#[derive(Debug, Clone, Default)]
struct File {
    bytes: Vec<u8>,
    /// Bytes that survive a crash for certain.
    synced: usize,
    /// A fault changed it: its loss is no one's mistake.
    damaged: bool,
}

#[derive(Debug, Clone, Default)]
struct Names {
    /// As a program sees the folder.
    now: BTreeMap<String, Content>,
    /// As the folder stood when it was last synced.
    synced: BTreeMap<String, Content>,
}

/// Clones share the disk, as two programs on one machine.
#[derive(Clone)]
pub struct SimDisk {
    sim: Sim,
    cloud: Rc<Cloud>,
    names: Rc<RefCell<Names>>,
    /// Without power nothing changes, whatever the destructors of a dead program ask for.
    powered: Rc<Cell<bool>>,
}

impl SimDisk {
    pub fn new(cloud: &Rc<Cloud>) -> Self {
        Self {
            sim: cloud.sim.clone(),
            cloud: Rc::clone(cloud),
            names: Rc::default(),
            powered: Rc::new(Cell::new(true)),
        }
    }

    /// Power is cut: each unsynced file keeps some of its bytes or none, each unsynced change of a
    /// name happened or did not.
    pub fn crash(&self) {
        let mut names = self.names.borrow_mut();
        let all: BTreeSet<String> = names.now.keys().chain(names.synced.keys()).cloned().collect();
        let mut after = BTreeMap::new();
        for name in all {
            let (now, before) = (names.now.get(&name), names.synced.get(&name));
            let same = match (now, before) {
                (Some(now), Some(before)) => Rc::ptr_eq(now, before),
                (now, before) => now.is_none() && before.is_none(),
            };
            let kept = if same || self.sim.chance().percent(50) {
                now
            } else {
                self.cloud.count(Fault::UnsyncedNameLost);
                before
            };
            if let Some(content) = kept {
                after.insert(name, Rc::clone(content));
            }
        }
        for content in after.values() {
            let mut file = content.borrow_mut();
            if file.synced < file.bytes.len() && self.sim.chance().percent(70) {
                let kept = self.sim.chance().between(file.synced as i64, file.bytes.len() as i64);
                file.bytes.truncate(usize::try_from(kept).unwrap_or(0));
                self.cloud.count(Fault::UnsyncedFileLost);
            }
            file.synced = file.bytes.len();
        }
        names.now = after.clone();
        names.synced = after;
    }

    pub fn power(&self, powered: bool) {
        self.powered.set(powered);
    }

    fn is_dead(&self) -> bool {
        !self.powered.get() || std::thread::panicking()
    }

    /// A copy of what stands on the disk, for a clone or an image to come back to.
    pub fn image(&self) -> Self {
        let copy = |names: &BTreeMap<String, Content>| -> BTreeMap<String, Content> {
            names
                .iter()
                .map(|(name, content)| {
                    let mut file = content.borrow().clone();
                    file.synced = file.bytes.len();
                    (name.clone(), Rc::new(RefCell::new(file)))
                })
                .collect()
        };
        let now = copy(&self.names.borrow().now);
        let names = Names { synced: now.clone(), now };
        Self { names: Rc::new(RefCell::new(names)), ..Self::new(&self.cloud) }
    }

    /// Takes over what an image holds.
    pub fn restore(&self, image: &Self) {
        *self.names.borrow_mut() = image.image().names.borrow().clone();
    }

    /// Damages one file of the spool, if there is one.
    pub fn damage(&self, fault: Fault) -> bool {
        let names = self.names.borrow();
        let files: Vec<_> = names.now.iter().filter(|(_, content)| !content.borrow().bytes.is_empty()).collect();
        if files.is_empty() {
            return false;
        }
        let (name, content) = files[self.sim.chance().index(files.len())];
        let mut file = content.borrow_mut();
        let at = self.sim.chance().index(file.bytes.len());
        file.damaged = true;
        if fault == Fault::SpoolCut {
            file.bytes.truncate(at);
            file.synced = at;
        } else {
            file.bytes[at] ^= 1 << self.sim.chance().below(8);
        }
        self.sim.trace(&format!("{} {name} at {at}", fault.name()));
        self.cloud.count(fault);
        true
    }

    /// Whether a file stands with all its bytes, or lost some to a fault of the disk itself.
    pub fn kept(&self, name: &str, bytes: u64) -> bool {
        let names = self.names.borrow();
        names.now.get(name).is_some_and(|content| {
            let file = content.borrow();
            file.damaged || file.bytes.len() as u64 == bytes
        })
    }

    pub fn file_names(&self) -> Vec<String> {
        self.names.borrow().now.keys().cloned().collect()
    }

    pub fn file_count(&self) -> usize {
        self.names.borrow().now.len()
    }
}

struct OpenFile {
    content: Content,
    cloud: Rc<Cloud>,
}

impl Write for OpenFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.cloud.strikes(Fault::SpoolFull, 2_000) {
            return Err(std::io::Error::from(std::io::ErrorKind::StorageFull));
        }
        self.content.borrow_mut().bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl SpoolFile for OpenFile {
    fn sync(&mut self) -> Result<()> {
        let mut file = self.content.borrow_mut();
        file.synced = file.bytes.len();
        Ok(())
    }
}

impl SpoolDisk for SimDisk {
    fn create(&self, name: &str) -> Result<Box<dyn SpoolFile>> {
        let content = Content::default();
        self.names.borrow_mut().now.insert(name.to_owned(), Rc::clone(&content));
        Ok(Box::new(OpenFile { content, cloud: Rc::clone(&self.cloud) }))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let mut names = self.names.borrow_mut();
        let content = names.now.remove(from).ok_or_else(|| Error::retry(format!("simulated: no file {from}")))?;
        names.now.insert(to.to_owned(), content);
        Ok(())
    }

    fn sync_folder(&self) -> Result<()> {
        let mut names = self.names.borrow_mut();
        names.synced = names.now.clone();
        Ok(())
    }

    fn open(&self, name: &str) -> Result<Option<Box<dyn Read>>> {
        let names = self.names.borrow();
        Ok(names.now.get(name).map(|content| {
            let bytes = content.borrow().bytes.clone();
            Box::new(Cursor::new(bytes)) as Box<dyn Read>
        }))
    }

    fn body(&self, name: &str) -> Result<PutBody> {
        let names = self.names.borrow();
        let content = names.now.get(name).ok_or_else(|| Error::retry(format!("simulated: no file {name}")))?;
        Ok(PutBody::from(content.borrow().bytes.clone()))
    }

    fn list(&self) -> Result<Vec<(String, u64)>> {
        let names = self.names.borrow();
        Ok(names.now.iter().map(|(name, content)| (name.clone(), content.borrow().bytes.len() as u64)).collect())
    }

    fn delete(&self, name: &str) -> Result<()> {
        if self.is_dead() {
            return Ok(());
        }
        self.names.borrow_mut().now.remove(name);
        Ok(())
    }
}
