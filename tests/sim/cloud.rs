//! The object storage of the world: one [`MemoryStore`], and for each program a view of it that
//! is slow, fails, lies about success and crashes its user.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use futures::FutureExt;
use jiff::Timestamp;
use ribera_storage::batch::{DIFFERING_BYTES_MAX, MANIFEST_BYTES_MAX};
use ribera_storage::heartbeat::HEARTBEAT_BYTES_MAX;
use ribera_storage::object::{MemoryStore, ObjectMeta, ObjectPath, ObjectStore, Part, PutBody, PutOutcome};
use ribera_storage::{Error, Result};

use super::kernel::{Chance, DAY, GroupId, MINUTE, Micros, SECOND, Sim};
use super::tally::{Fault, Tally};

/// How often things go wrong, in parts of a million calls.
#[derive(Debug, Clone)]
pub struct Rates {
    pub call_fails: u64,
    pub timeout_after_effect: u64,
    pub effect_after_timeout: u64,
    pub call_slow: u64,
    pub effect_doubled: u64,
    /// Of data files put.
    pub upload_damaged: u64,
    /// Of crashing at a step that was met `n` times since it was armed: `crash_first / (n + 1)² +
    /// crash_later`. So rare steps crash too, and common ones not all the time.
    pub crash_first: u64,
    pub crash_later: u64,
    pub armed_within: Micros,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            call_fails: 8_000,
            timeout_after_effect: 6_000,
            effect_after_timeout: 3_000,
            call_slow: 2_000,
            effect_doubled: 4_000,
            upload_damaged: 12_000,
            crash_first: 600_000,
            crash_later: 30,
            armed_within: 5 * DAY,
        }
    }
}

/// What every program shares: the objects, the counts, and whether faults fire.
pub struct Cloud {
    pub sim: Sim,
    pub objects: MemoryStore,
    pub tally: RefCell<Tally>,
    pub rates: Rates,
    faulty: Cell<bool>,
    was_faulty: bool,
    began: Micros,
    /// By step: since when it may crash a program, and how often it was met since.
    armed: RefCell<BTreeMap<String, (Micros, u64)>>,
    /// Told of every effect at the moment it happens.
    watchers: RefCell<Vec<Rc<dyn Watcher>>>,
    /// The cloud's own tasks: effects that come late.
    group: GroupId,
    /// Reads of more bytes than anyone may want of such an object.
    greedy: RefCell<Vec<String>>,
}

/// Sees each change of the store as it happens, before anyone else can.
pub trait Watcher {
    fn put(&self, path: &ObjectPath, bytes: &Bytes, replaced: bool);
    fn deleted(&self, path: &ObjectPath);
}

impl Cloud {
    pub fn new(sim: &Sim, rates: Rates, faulty: bool) -> Rc<Self> {
        Rc::new(Self {
            sim: sim.clone(),
            objects: MemoryStore::new(),
            tally: RefCell::default(),
            rates,
            faulty: Cell::new(faulty),
            was_faulty: faulty,
            began: sim.now(),
            armed: RefCell::default(),
            watchers: RefCell::default(),
            group: sim.new_group(|_| {}),
            greedy: RefCell::default(),
        })
    }

    pub fn watch(&self, watcher: Rc<dyn Watcher>) {
        self.watchers.borrow_mut().push(watcher);
    }

    /// Nobody watches any more. Watchers hold the cloud, and the cloud its watchers.
    pub fn unwatch(&self) {
        self.watchers.borrow_mut().clear();
    }

    pub fn is_faulty(&self) -> bool {
        self.faulty.get()
    }

    /// Whether faults have ever been possible in this world.
    pub fn was_faulty(&self) -> bool {
        self.was_faulty
    }

    pub fn set_faulty(&self, faulty: bool) {
        self.faulty.set(faulty && self.was_faulty);
    }

    pub fn now(&self) -> Timestamp {
        timestamp(self.sim.now())
    }

    pub fn count(&self, fault: Fault) {
        self.tally.borrow_mut().fault(fault);
    }

    /// What reads were found too large since this was last asked.
    pub fn take_greedy(&self) -> Vec<String> {
        self.greedy.take()
    }

    /// A write without a way: it is there at once. For worlds' own hands, never for a program.
    pub fn put_at_once(&self, path: &ObjectPath, bytes: Bytes) {
        // A memory store never fails.
        let _ = self.apply(&Change::Put(path.clone(), bytes));
    }

    pub fn delete_at_once(&self, path: &ObjectPath) {
        let _ = self.apply(&Change::Delete(path.clone()));
    }

    /// Draws whether a fault of `per_million` fires now, and counts it.
    pub fn strikes(&self, fault: Fault, per_million: u64) -> bool {
        let strikes = self.is_faulty() && self.sim.chance().one_in_million(per_million);
        if strikes {
            self.count(fault);
            self.sim.trace(fault.name());
        }
        strikes
    }

    /// A named step of a program: it may die here.
    pub fn step(&self, program: &Program, step: &str) {
        let Some(crash) = program.crash else { return };
        self.tally.borrow_mut().meet(step);
        let group = program.group.get();
        if !self.is_faulty() || !self.sim.is_alive(group) {
            return;
        }
        let Some(met) = self.met_since_armed(step) else { return };
        let rate = self.rates.crash_first / (met + 1).saturating_pow(2) + self.rates.crash_later;
        if self.sim.chance().one_in_million(rate) {
            self.tally.borrow_mut().crash(step);
            self.count(crash);
            self.sim.trace(&format!("{} crashes at {step}", program.name));
            self.sim.die(group);
        }
    }

    /// Half the steps are armed at once, the others at a time of their own, so that crashes spread
    /// over the days. A step that is first met after two days is rare, and armed at once.
    fn met_since_armed(&self, step: &str) -> Option<u64> {
        let now = self.sim.now();
        let mut armed = self.armed.borrow_mut();
        let (since, met) = match armed.get_mut(step) {
            Some(entry) => entry,
            None => {
                let later = now < self.began + 2 * DAY && self.sim.chance().percent(50);
                let since = if later { now + self.sim.chance().between(0, self.rates.armed_within) } else { now };
                armed.entry(step.to_owned()).or_insert((since, 0))
            }
        };
        if now < *since {
            return None;
        }
        *met += 1;
        Some(*met - 1)
    }

    fn apply(&self, change: &Change) -> Result<PutOutcome> {
        self.objects.set_now(self.now());
        let outcome = match change {
            Change::Put(path, bytes) => {
                let replaced = ready(self.objects.head(path))?.is_some();
                ready(self.objects.put(path, bytes.clone().into()))?;
                self.saw_put(path, bytes, replaced);
                PutOutcome::Created
            }
            Change::PutIfAbsent(path, bytes) => {
                let outcome = ready(self.objects.put_if_absent(path, bytes.clone().into()))?;
                if outcome == PutOutcome::Created {
                    self.saw_put(path, bytes, false);
                }
                outcome
            }
            Change::Delete(path) => {
                if ready(self.objects.head(path))?.is_some() {
                    ready(self.objects.delete(path))?;
                    self.sim.trace(&format!("gone {path}"));
                    let watchers = self.watchers.borrow().clone();
                    watchers.iter().for_each(|watcher| watcher.deleted(path));
                }
                PutOutcome::Created
            }
        };
        Ok(outcome)
    }

    fn saw_put(&self, path: &ObjectPath, bytes: &Bytes, replaced: bool) {
        self.sim.trace(&format!("put {path} {:016x}", digest(bytes)));
        let watchers = self.watchers.borrow().clone();
        watchers.iter().for_each(|watcher| watcher.put(path, bytes, replaced));
    }
}

/// A program on a machine, as the cloud knows it.
#[derive(Debug)]
pub struct Program {
    pub name: String,
    /// `agent`, `host` or `reader`: the first word of its steps.
    pub kind: &'static str,
    /// What it counts as when it dies at a step; `None` for one that never does.
    pub crash: Option<Fault>,
    /// Its own pace and names.
    pub chance: Rc<Chance>,
    /// The group that dies; changes with each start.
    pub group: Cell<GroupId>,
    /// Its line is down until then.
    pub line_down_until: Cell<Micros>,
}

impl Program {
    pub fn new(sim: &Sim, name: impl Into<String>, kind: &'static str, crash: Option<Fault>) -> Rc<Self> {
        let name = name.into();
        let chance = sim.chance_of(&format!("{kind} {name}"));
        Rc::new(Self { name, kind, crash, chance, group: Cell::new(0), line_down_until: Cell::new(Micros::MIN) })
    }
}

/// The cloud as one program sees it.
#[derive(Clone)]
pub struct SimStore {
    cloud: Rc<Cloud>,
    program: Rc<Program>,
}

#[derive(Clone)]
enum Change {
    Put(ObjectPath, Bytes),
    PutIfAbsent(ObjectPath, Bytes),
    Delete(ObjectPath),
}

impl Change {
    fn path(&self) -> &ObjectPath {
        match self {
            Self::Put(path, _) | Self::PutIfAbsent(path, _) | Self::Delete(path) => path,
        }
    }

    fn verb(&self) -> &'static str {
        match self {
            Self::Put(..) => "put",
            Self::PutIfAbsent(..) => "put-if-absent",
            Self::Delete(_) => "delete",
        }
    }
}

impl SimStore {
    pub fn new(cloud: &Rc<Cloud>, program: &Rc<Program>) -> Self {
        Self { cloud: Rc::clone(cloud), program: Rc::clone(program) }
    }

    async fn write(&self, change: Change) -> Result<PutOutcome> {
        let (cloud, rates) = (&self.cloud, &self.cloud.rates);
        let step = format!("{} {} {}", self.program.kind, change.verb(), kind_of(change.path().as_str()));
        cloud.step(&self.program, &format!("{step}: before"));
        self.travel().await;
        let change = self.perhaps_damaged(change);
        let failed = |what: &str| Error::retry(format!("simulated: {} {}: {what}", change.verb(), change.path()));
        if self.line_is_down() || cloud.strikes(Fault::CallFails, rates.call_fails) {
            return Err(failed("refused"));
        }
        if cloud.strikes(Fault::EffectAfterTimeout, rates.effect_after_timeout) {
            self.apply_later(change.clone());
            return Err(failed("timed out"));
        }
        let mut outcome = cloud.apply(&change)?;
        cloud.step(&self.program, &format!("{step}: after"));
        if cloud.strikes(Fault::EffectDoubled, rates.effect_doubled) {
            self.travel().await;
            outcome = cloud.apply(&change)?;
        }
        if cloud.strikes(Fault::TimeoutAfterEffect, rates.timeout_after_effect) {
            return Err(failed("timed out"));
        }
        cloud.sim.sleep(self.program.chance.between(1_000, 20_000)).await;
        Ok(outcome)
    }

    async fn read<T>(&self, verb: &str, path: &str, answer: impl FnOnce(&MemoryStore) -> Result<T>) -> Result<T> {
        let cloud = &self.cloud;
        cloud.step(&self.program, &format!("{} {verb} {}", self.program.kind, kind_of(path)));
        self.travel().await;
        if self.line_is_down() || cloud.strikes(Fault::CallFails, cloud.rates.call_fails) {
            return Err(Error::retry(format!("simulated: {verb} {path}: refused")));
        }
        answer(&cloud.objects)
    }

    /// Notes a read of a store's object that is larger than its readers may ask for.
    fn measure(&self, path: &ObjectPath, bytes: Option<&Bytes>) {
        let (length, most) = (bytes.map_or(0, Bytes::len), read_most(path.as_str()));
        if length > most {
            let what = format!("{} read {length} bytes of {path}, at most {most} are wanted", self.program.name);
            self.cloud.greedy.borrow_mut().push(what);
        }
    }

    fn perhaps_damaged(&self, change: Change) -> Change {
        match change {
            Change::PutIfAbsent(path, bytes)
                if path.as_str().starts_with("landing/")
                    && !bytes.is_empty()
                    && self.cloud.strikes(Fault::UploadDamaged, self.cloud.rates.upload_damaged) =>
            {
                let mut bytes = bytes.to_vec();
                let index = self.cloud.sim.chance().index(bytes.len());
                bytes[index] ^= 1 << self.cloud.sim.chance().below(8);
                Change::PutIfAbsent(path, bytes.into())
            }
            whole => whole,
        }
    }

    /// The request on its way: 5 to 80 ms, now and then a minute or three.
    async fn travel(&self) {
        let (sim, cloud) = (&self.cloud.sim, &self.cloud);
        let span = if cloud.strikes(Fault::CallSlow, cloud.rates.call_slow) {
            self.program.chance.between(5 * SECOND, 3 * MINUTE)
        } else {
            self.program.chance.between(5_000, 80_000)
        };
        sim.sleep(span).await;
    }

    fn line_is_down(&self) -> bool {
        self.cloud.is_faulty() && self.cloud.sim.now() < self.program.line_down_until.get()
    }

    fn apply_later(&self, change: Change) {
        let cloud = Rc::clone(&self.cloud);
        let span = cloud.sim.chance().between(SECOND, 10 * MINUTE);
        self.cloud.sim.spawn(self.cloud.group, async move {
            cloud.sim.sleep(span).await;
            // Nobody waits for the answer any more.
            let _ = cloud.apply(&change);
        });
    }
}

impl ObjectStore for SimStore {
    async fn get(&self, path: &ObjectPath) -> Result<Option<Bytes>> {
        let bytes = self.read("get", path.as_str(), |objects| ready(objects.get(path))).await?;
        self.measure(path, bytes.as_ref());
        Ok(bytes)
    }

    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Option<Part>> {
        let part = self.read("get", path.as_str(), |objects| ready(objects.get_range(path, range))).await?;
        self.measure(path, part.as_ref().map(|part| &part.bytes));
        Ok(part)
    }

    async fn put(&self, path: &ObjectPath, body: PutBody) -> Result<()> {
        self.write(Change::Put(path.clone(), bytes_of(body)?)).await.map(drop)
    }

    async fn put_if_absent(&self, path: &ObjectPath, body: PutBody) -> Result<PutOutcome> {
        self.write(Change::PutIfAbsent(path.clone(), bytes_of(body)?)).await
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Vec<ObjectMeta>> {
        self.read("list", prefix, |objects| ready(objects.list(prefix, start_after, limit))).await
    }

    async fn head(&self, path: &ObjectPath) -> Result<Option<ObjectMeta>> {
        self.read("head", path.as_str(), |objects| ready(objects.head(path))).await
    }

    async fn delete(&self, path: &ObjectPath) -> Result<()> {
        self.write(Change::Delete(path.clone())).await.map(drop)
    }
}

pub fn timestamp(now: Micros) -> Timestamp {
    Timestamp::from_microsecond(now).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The answer of a memory store, which never waits.
pub fn ready<T>(call: impl Future<Output = Result<T>>) -> Result<T> {
    call.now_or_never().unwrap_or_else(|| Err(Error::bug("a memory store waited")))
}

/// The most that one read may take of an object that a store's credential can write: its limit and the
/// one byte that shows that there is more. Honest data files here have a few kilobytes.
fn read_most(path: &str) -> usize {
    match path.split('/').next() {
        Some("inbox") => MANIFEST_BYTES_MAX + 1,
        Some("agents") if path.ends_with("/heartbeat.json") => HEARTBEAT_BYTES_MAX + 1,
        Some("agents") => DIFFERING_BYTES_MAX + 1,
        Some("landing") => 1 << 20,
        _ => usize::MAX,
    }
}

/// What kind of object a path names: the second half of a step's name.
pub fn kind_of(path: &str) -> &'static str {
    let kinds: [(&str, &'static str); 10] = [
        ("landing", "landing"),
        ("inbox", "inbox"),
        ("done", "done"),
        ("acks", "acks"),
        ("quarantine", "quarantine"),
        ("control", "control"),
        ("state/ready", "ready"),
        ("state/ledger", "ledger"),
        ("state/coverage", "coverage"),
        ("state/runs", "runs"),
    ];
    if let Some((_, kind)) = kinds.iter().find(|(prefix, _)| path.starts_with(prefix)) {
        return kind;
    }
    match path {
        _ if path.starts_with("lake") && path.contains("_last_checkpoint") => "last-checkpoint",
        _ if path.starts_with("lake") && path.contains("checkpoint") => "checkpoint",
        _ if path.starts_with("lake") && path.contains("_delta_log") => "log",
        _ if path.starts_with("lake") => "lake-file",
        _ if path.contains("/epoch/") => "epoch",
        _ if path.ends_with("heartbeat.json") => "heartbeat",
        _ if path.starts_with("agents") => "agents",
        _ => "other",
    }
}

pub fn digest(bytes: &[u8]) -> u64 {
    use std::hash::Hasher;
    let mut hasher = std::collections::hash_map::DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

fn bytes_of(body: PutBody) -> Result<Bytes> {
    match body {
        PutBody::Bytes(bytes) => Ok(bytes),
        PutBody::File { path, .. } => Ok(std::fs::read(path)?.into()),
    }
}
