//! A till, an object store and an agent on virtual time, whose disk and steps can fail.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use arrow_array::RecordBatch;
use bytes::Bytes;
use futures::future::LocalBoxFuture;
use jiff::Timestamp;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use ribera_agent::agent::{Agent, Ports, ServedStore};
use ribera_agent::calendar::Days;
use ribera_agent::config::Config;
use ribera_agent::journal::Journal;
use ribera_agent::ports::{FailPoints, SpoolDisk, SpoolFile, Timer};
use ribera_agent::report::Report;
use ribera_agent::run::collect::{Request, RunMode};
use ribera_storage::batch::{Ack, AckOutcome, Manifest};
use ribera_storage::object::{MemoryStore, ObjectPath, PutBody, list_all};
use ribera_storage::ports::{Clock, Random};
use ribera_storage::{Error, ObjectStore, Result, Unit, paths};
use rusqlite::Connection;
use sha2::{Digest, Sha256};

/// Runs a future that never waits for anything real.
/// Runs one request on a runtime, for sources with sockets.
pub fn run(agent: &TestAgent, ask: RunMode) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(agent.run("test", &request(ask), Duration::ZERO))
}

/// These days if they differ, by an agent of their own on such a runtime.
pub fn extract(world: &World, from: &str, to: &str) -> Report {
    run(&world.start().unwrap(), RunMode::Extract { days: days(from, to), force: false })
}

pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    for _ in 0..1_000_000 {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
    panic!("a future of the simulation waits for something")
}

pub const CONFIG: &str = r#"
folder = "agent"
object_store = { folder = "objects" }

[[store]]
id = "s1"
time_zone = "America/New_York"
adapter = "caja"
source = { kind = "sqlite", path = "pos.db" }

[adapter.caja.ventas]
from = "lineas"
date = "fecha"

[adapter.caja.ventas.columns]
ticket_id = "ticket"
linea = "linea"
vendido_en = "fecha || ' ' || hora"
producto_id = "producto"
cantidad = "cantidad"
total = { sql = "centavos", scale = 2 }
"#;

const TILL: &str = "
    CREATE TABLE lineas (ticket INTEGER, linea INTEGER, fecha TEXT, hora TEXT, producto TEXT,
                         cantidad INTEGER, centavos INTEGER, PRIMARY KEY (ticket, linea));
    CREATE INDEX lineas_fecha ON lineas (fecha);
";

/// Virtual time, the agent's and the object store's; sleeping moves it.
#[derive(Clone)]
pub struct VirtualClock {
    now: Rc<Cell<Timestamp>>,
    objects: MemoryStore,
}

impl VirtualClock {
    pub fn at(text: &str, objects: &MemoryStore) -> Self {
        let clock = Self { now: Rc::default(), objects: objects.clone() };
        clock.set(text);
        clock
    }

    pub fn set(&self, text: &str) {
        self.move_to(text.parse().unwrap());
    }

    fn move_to(&self, now: Timestamp) {
        self.now.set(now);
        self.objects.set_now(now);
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        self.now.get()
    }
}

impl Timer for VirtualClock {
    fn sleep(&self, duration: Duration) -> LocalBoxFuture<'_, ()> {
        self.move_to(self.now.get() + duration);
        Box::pin(std::future::ready(()))
    }
}

/// Counts up, scrambled.
pub struct Seeded(pub Cell<u64>);

impl Random for Seeded {
    fn next_u64(&self) -> u64 {
        self.0.set(self.0.get() + 1);
        self.0.get().wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31)
    }
}

/// Crashes at the `nth` step (counted from 0), and at every one after it.
#[derive(Default)]
pub struct CrashAt {
    pub nth: Cell<Option<usize>>,
    pub seen: RefCell<Vec<&'static str>>,
}

impl CrashAt {
    pub fn crashed(&self) -> Option<&'static str> {
        let nth = self.nth.get()?;
        self.seen.borrow().get(nth).copied()
    }
}

impl FailPoints for CrashAt {
    fn hit(&self, step: &'static str) -> Result<()> {
        let at = self.seen.borrow().len();
        self.seen.borrow_mut().push(step);
        match self.nth.get() {
            Some(nth) if at >= nth => Err(Error::bug(format!("crashed at {step}"))),
            _ => Ok(()),
        }
    }
}

/// A disk that forgets at a power cut what was not synced, and that can be full or read-only.
#[derive(Clone, Default)]
pub struct MemoryDisk(Rc<RefCell<DiskState>>);

#[derive(Default)]
struct DiskState {
    files: BTreeMap<usize, FileState>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    next: usize,
    bytes_max: Option<usize>,
    read_only: bool,
}

#[derive(Default, Clone)]
struct FileState {
    written: Vec<u8>,
    synced: Vec<u8>,
}

impl MemoryDisk {
    pub fn lose_power(&self) {
        let mut state = self.0.borrow_mut();
        state.names = state.durable_names.clone();
        for file in state.files.values_mut() {
            file.written = file.synced.clone();
        }
    }

    pub fn set_bytes_max(&self, bytes: Option<usize>) {
        self.0.borrow_mut().bytes_max = bytes;
    }

    pub fn set_read_only(&self, read_only: bool) {
        self.0.borrow_mut().read_only = read_only;
    }

    /// Flips one bit of every file.
    pub fn damage(&self) {
        for file in self.0.borrow_mut().files.values_mut() {
            let middle = file.written.len() / 2;
            file.written[middle] ^= 1;
        }
    }

    /// Cuts off the second half of every file.
    pub fn cut(&self) {
        for file in self.0.borrow_mut().files.values_mut() {
            let half = file.written.len() / 2;
            file.written.truncate(half);
        }
    }

    pub fn wipe(&self) {
        let mut state = self.0.borrow_mut();
        state.names.clear();
        state.durable_names.clear();
    }

    fn writable(&self, doing: &str) -> Result<()> {
        if self.0.borrow().read_only {
            let error = std::io::Error::from(std::io::ErrorKind::ReadOnlyFilesystem);
            return Err(ribera_agent::ports::disk_error(doing, &PathBuf::from("spool/x"), error));
        }
        Ok(())
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    inode: usize,
}

impl Write for MemoryFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut state = self.disk.0.borrow_mut();
        let used: usize = state.names.values().map(|inode| state.files[inode].written.len()).sum();
        if state.bytes_max.is_some_and(|max| used + bytes.len() > max) {
            return Err(std::io::Error::from(std::io::ErrorKind::StorageFull));
        }
        state.files.get_mut(&self.inode).unwrap().written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl SpoolFile for MemoryFile {
    fn sync(&mut self) -> Result<()> {
        let mut state = self.disk.0.borrow_mut();
        let file = state.files.get_mut(&self.inode).unwrap();
        file.synced = file.written.clone();
        Ok(())
    }
}

impl SpoolDisk for MemoryDisk {
    fn create(&self, name: &str) -> Result<Box<dyn SpoolFile>> {
        self.writable("create")?;
        let mut state = self.0.borrow_mut();
        state.next += 1;
        let inode = state.next;
        state.files.insert(inode, FileState::default());
        state.names.insert(name.to_owned(), inode);
        Ok(Box::new(MemoryFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.writable("rename")?;
        let mut state = self.0.borrow_mut();
        let inode = state.names.remove(from).unwrap();
        state.names.insert(to.to_owned(), inode);
        Ok(())
    }

    fn sync_folder(&self) -> Result<()> {
        let mut state = self.0.borrow_mut();
        state.durable_names = state.names.clone();
        Ok(())
    }

    fn open(&self, name: &str) -> Result<Option<Box<dyn Read>>> {
        let state = self.0.borrow();
        let found = state.names.get(name).map(|inode| state.files[inode].written.clone());
        Ok(found.map(|bytes| Box::new(Cursor::new(bytes)) as Box<dyn Read>))
    }

    fn body(&self, name: &str) -> Result<PutBody> {
        let state = self.0.borrow();
        Ok(PutBody::Bytes(Bytes::from(state.files[&state.names[name]].written.clone())))
    }

    fn list(&self) -> Result<Vec<(String, u64)>> {
        let state = self.0.borrow();
        Ok(state.names.iter().map(|(name, inode)| (name.clone(), state.files[inode].written.len() as u64)).collect())
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.0.borrow_mut().names.remove(name);
        Ok(())
    }
}

/// Everything around an agent that outlives it.
pub struct World {
    pub folder: tempfile::TempDir,
    pub till: Connection,
    pub objects: MemoryStore,
    pub disk: MemoryDisk,
    pub clock: VirtualClock,
    pub fail_points: Rc<CrashAt>,
    pub config: Config,
    random: Rc<Seeded>,
}

pub type TestAgent = Agent<MemoryStore>;

impl World {
    /// Noon in New York of 2017-05-10, a Wednesday.
    pub fn new() -> Self {
        Self::with_config(CONFIG)
    }

    pub fn with_config(config: &str) -> Self {
        // In memory where there is such a folder: every journal commit waits for the disk.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let till = Connection::open(folder.path().join("pos.db")).unwrap();
        till.execute_batch("PRAGMA synchronous = OFF").unwrap();
        till.execute_batch(TILL).unwrap();
        let file = folder.path().join("agent.toml");
        std::fs::write(&file, config).unwrap();
        let config = Config::load(&file, &|_| Some("secret".to_owned())).unwrap();
        let objects = MemoryStore::new();
        Self {
            folder,
            till,
            clock: VirtualClock::at("2017-05-10T16:00:00Z", &objects),
            objects,
            disk: MemoryDisk::default(),
            fail_points: Rc::new(CrashAt::default()),
            config,
            random: Rc::new(Seeded(Cell::new(0))),
        }
    }

    /// `lines` tickets of one line on `day`; amounts differ from each other.
    pub fn sell(&self, day: &str, tickets: std::ops::Range<u32>) {
        for ticket in tickets {
            self.till
                .execute(
                    "INSERT INTO lineas VALUES (?1, 1, ?2, '10:30:00', 'p' || ?1, 2, ?1 * 100 + 5)",
                    rusqlite::params![ticket, day],
                )
                .unwrap();
        }
    }

    pub fn sql(&self, sql: &str) {
        self.till.execute_batch(sql).unwrap();
    }

    pub fn journal_file(&self) -> PathBuf {
        self.folder.path().join("journal.sqlite")
    }

    pub fn ports(&self) -> Ports<MemoryStore> {
        Ports {
            objects: self.objects.clone(),
            clock: Rc::new(self.clock.clone()),
            random: self.random.clone(),
            timer: Rc::new(self.clock.clone()),
            disk: Rc::new(self.disk.clone()),
            fail_points: self.fail_points.clone(),
        }
    }

    pub fn start(&self) -> Result<TestAgent> {
        self.start_with(self.journal()?)
    }

    pub fn journal(&self) -> Result<Journal> {
        Journal::open_file(&self.journal_file(), self.random.as_ref(), self.fail_points.clone())
    }

    pub fn start_with(&self, journal: Journal) -> Result<TestAgent> {
        self.start_on(self.objects.clone(), journal)
    }

    /// With another object store.
    pub fn start_on<S: ObjectStore>(&self, objects: S, journal: Journal) -> Result<Agent<S>> {
        let clock: Rc<dyn Clock> = Rc::new(self.clock.clone());
        let served = |store: &ribera_agent::config::StoreConfig| ServedStore {
            config: store.clone(),
            source: ribera_agent::source::open(store, &clock).unwrap(),
        };
        let stores = self.config.stores.iter().map(served).collect();
        let Ports { clock, random, timer, disk, fail_points, .. } = self.ports();
        Agent::start(self.config.clone(), Ports { objects, clock, random, timer, disk, fail_points }, journal, stores)
    }

    /// Starts an agent, runs one request, ends the agent.
    pub fn run(&self, ask: RunMode) -> Report {
        block_on(self.start().unwrap().run("test", &request(ask), Duration::ZERO))
    }

    pub fn once(&self) -> Report {
        self.run(RunMode::Cycle)
    }

    pub fn backfill(&self, from: &str, to: &str) -> Report {
        self.run(RunMode::Backfill { days: days(from, to), force: false })
    }

    /// Plays the lake: takes every manifest in the inbox, acknowledges, moves it to done.
    pub fn ingest(&self) -> Vec<Manifest> {
        self.ingest_with(|manifest| {
            let units = manifest.units.iter().map(|facts| (facts.unit, facts.file.clone())).collect();
            AckOutcome::Committed { version: 1, rows: manifest.file.rows, units }
        })
    }

    pub fn ingest_with(&self, outcome: impl Fn(&Manifest) -> AckOutcome) -> Vec<Manifest> {
        let mut taken = Vec::new();
        for meta in block_on(list_all(&self.objects, "inbox/", None)).unwrap() {
            let bytes = self.object(meta.path.as_str()).unwrap();
            let manifest = Manifest::from_json(&bytes).unwrap();
            let ack = Ack {
                batch: manifest.batch.clone(),
                manifest_sha256: Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect(),
                outcome: outcome(&manifest),
                acknowledged_at: self.clock.now(),
            };
            let ack = serde_json::to_vec(&ack).unwrap();
            block_on(self.objects.put(&paths::ack(&manifest.batch).unwrap(), ack.into())).unwrap();
            block_on(self.objects.put(&paths::done(&manifest.batch).unwrap(), bytes.into())).unwrap();
            block_on(self.objects.delete(&meta.path)).unwrap();
            taken.push(manifest);
        }
        taken
    }

    pub fn object(&self, path: &str) -> Option<Bytes> {
        block_on(self.objects.get(&ObjectPath::new(path).unwrap())).unwrap()
    }

    pub fn objects_under(&self, prefix: &str) -> Vec<String> {
        block_on(list_all(&self.objects, prefix, None)).unwrap().into_iter().map(|meta| meta.path.to_string()).collect()
    }

    /// Every manifest ever sent, in the order of paths.
    pub fn manifests(&self) -> Vec<Manifest> {
        let paths = self.objects_under("inbox/").into_iter().chain(self.objects_under("done/"));
        paths.map(|path| Manifest::from_json(&self.object(&path).unwrap()).unwrap()).collect()
    }

    /// The rows of a manifest's file, which must have the hash it says.
    pub fn rows(&self, manifest: &Manifest) -> Vec<RecordBatch> {
        let file = &manifest.file;
        let bytes = self.object(&file.path).expect("the data file came before its manifest");
        let hash: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((hash, bytes.len() as u64), (file.sha256.clone(), file.bytes));
        ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap().map(|batch| batch.unwrap()).collect()
    }

    /// What the lake holds by the rule of the highest position: per day, rows and total.
    pub fn lake(&self) -> BTreeMap<Unit, (u64, String)> {
        self.lake_of("ventas")
    }

    pub fn lake_of(&self, dataset: &str) -> BTreeMap<Unit, (u64, String)> {
        let mut winners: BTreeMap<Unit, (ribera_storage::ids::Position, u64, String)> = BTreeMap::new();
        for manifest in self.manifests().into_iter().filter(|one| one.batch.dataset.as_str() == dataset) {
            for facts in &manifest.units {
                let total = facts.file.sums["total"].to_string();
                let entry = (manifest.batch.position, facts.file.rows, total);
                match winners.get(&facts.unit) {
                    Some(known) if known.0 > entry.0 => {}
                    _ => {
                        winners.insert(facts.unit, entry);
                    }
                }
            }
        }
        winners.into_iter().map(|(unit, (_, rows, total))| (unit, (rows, total))).collect()
    }
}

pub fn request(ask: RunMode) -> Request {
    Request { ask, stores: vec![], datasets: vec![] }
}

pub fn days(from: &str, to: &str) -> Days {
    Days { from: from.parse().unwrap(), to: to.parse().unwrap() }
}

pub fn day(text: &str) -> Unit {
    Unit::Day(text.parse().unwrap())
}
