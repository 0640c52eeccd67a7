//! The lake as an outsider sees it: every log entry is replayed the moment it appears, by code
//! that shares with the system only the parsing of one tag, and held against the invariants.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::Bytes;
use jiff::SignedDuration;
use ribera_storage::batch::{Ack, AckOutcome, Differing, Facts, Manifest, QuarantineReason};
use ribera_storage::delta::UnitTag;
use ribera_storage::delta::facts::{self, FACTS_TAG};
use ribera_storage::delta::tags::{self, UNITS_TAG};
use ribera_storage::hex::sha256_hex;
use ribera_storage::ids::Position;
use ribera_storage::object::{MemoryStore, ObjectPath, ObjectStore};
use ribera_storage::{BatchId, DatasetName, StoreId, Unit, paths};
use serde_json::Value;

use super::cloud::{Cloud, Watcher, ready};
use super::kernel::Micros;

mod hostile;

/// A manifest as it was put.
#[derive(Debug, Clone)]
pub struct Sent {
    pub bytes: Bytes,
    pub manifest: Manifest,
    /// When these bytes were put the last time.
    pub at: Micros,
}

/// A file of a table.
#[derive(Debug, Clone)]
pub struct LakeFile {
    pub units: Vec<UnitTag>,
    pub object: ObjectPath,
}

/// Who won a unit, when, and with what facts.
#[derive(Debug, Clone)]
pub struct Win {
    pub at: Micros,
    pub version: u64,
    pub position: Position,
    pub facts: Facts,
}

type Key = (StoreId, Unit);

/// Why an honest batch may be refused: its upload was damaged, its journal was restored or cloned, or
/// calls died over it.
const EXPLAINED: [QuarantineReason; 4] = [
    QuarantineReason::FileHashMismatch,
    QuarantineReason::ClonedJournal,
    QuarantineReason::LimitExceeded,
    QuarantineReason::FailsAlways,
];

#[derive(Debug, Default)]
struct Table {
    next_version: u64,
    active: BTreeMap<String, LakeFile>,
    /// Files that were of the table once, and since when they are not.
    removed: BTreeMap<String, Micros>,
    /// Every change of every unit, in order.
    wins: BTreeMap<Key, Vec<Win>>,
}

#[derive(Debug, Default)]
struct State {
    tables: BTreeMap<String, Table>,
    /// Every manifest that ever stood in the inbox, by batch: more than one only for clones.
    manifests: BTreeMap<BatchId, Vec<Sent>>,
    /// The manifests that the log names for a position: more than one only if the store wrote several under
    /// one number, each of other units.
    accepted: BTreeMap<(StoreId, Position), Vec<Sent>>,
    /// Since when an honest batch waits for its answer.
    unanswered: BTreeMap<BatchId, Micros>,
    /// The longest that an honest batch waited from its manifest to its answer.
    longest_wait: Micros,
    /// Batches of honest stores that were refused.
    honest_refused: u64,
    /// Units of replace batches by stream position, for the check of whole batches.
    units: BTreeMap<(StoreId, Position), BTreeSet<Unit>>,
    /// By store: what its agents have published as differing from what they sent, in order.
    differing: BTreeMap<StoreId, Vec<(Micros, Differing)>>,
    violations: Vec<String>,
    /// The trace before the first of them.
    tail: Option<Vec<String>>,
}

/// See the module.
pub struct LakeModel {
    cloud: Rc<Cloud>,
    dataset: DatasetName,
    retention: SignedDuration,
    /// The store that writes what it likes below its own prefixes.
    hostile: Option<StoreId>,
    /// It deletes something of its own just now.
    by_own_hand: Cell<bool>,
    state: RefCell<State>,
}

impl LakeModel {
    pub fn new(
        cloud: &Rc<Cloud>,
        dataset: &DatasetName,
        retention: SignedDuration,
        hostile: Option<StoreId>,
    ) -> Rc<Self> {
        let (cloud, dataset) = (Rc::clone(cloud), dataset.clone());
        let (by_own_hand, state) = (Cell::new(false), RefCell::default());
        Rc::new(Self { cloud, dataset, retention, hostile, by_own_hand, state })
    }

    /// What was found wrong so far, in order.
    pub fn violations(&self) -> Vec<String> {
        self.state.borrow().violations.clone()
    }

    pub fn fail(&self, what: String) {
        self.cloud.sim.trace(&format!("VIOLATION {what}"));
        let mut state = self.state.borrow_mut();
        state.tail.get_or_insert_with(|| self.cloud.sim.trace_tail());
        state.violations.push(what);
    }

    pub fn is_good(&self) -> bool {
        self.state.borrow().violations.is_empty()
    }

    pub fn first_tail(&self) -> Option<Vec<String>> {
        self.state.borrow().tail.clone()
    }

    /// Who has the unit now.
    pub fn winner(&self, store: &StoreId, unit: Unit) -> Option<Win> {
        let state = self.state.borrow();
        let key = (store.clone(), unit);
        state.tables.values().filter_map(|table| table.wins.get(&key)?.last().cloned()).next()
    }

    /// Who had the unit at a moment, and who got it until now.
    pub fn wins_since(&self, store: &StoreId, unit: Unit, from: Micros) -> Vec<Win> {
        let state = self.state.borrow();
        let key = (store.clone(), unit);
        let Some(wins) = state.tables.values().find_map(|table| table.wins.get(&key)) else { return Vec::new() };
        let first = wins.iter().rposition(|win| win.at <= from).unwrap_or(0);
        wins[first..].to_vec()
    }

    /// Every file of every table now.
    pub fn files(&self) -> Vec<(String, LakeFile)> {
        let state = self.state.borrow();
        state
            .tables
            .values()
            .flat_map(|table| table.active.iter().map(|(path, file)| (path.clone(), file.clone())))
            .collect()
    }

    /// Paths of the files of one table and the number of its versions.
    pub fn table(&self, name: &str) -> (BTreeSet<String>, u64) {
        let state = self.state.borrow();
        state
            .tables
            .get(name)
            .map(|table| (table.active.keys().cloned().collect(), table.next_version))
            .unwrap_or_default()
    }

    pub fn table_names(&self) -> Vec<String> {
        self.state.borrow().tables.keys().cloned().collect()
    }

    /// Whether a manifest in the inbox outranks the winner of its unit with other rows or sums.
    pub fn difference_waits(&self, objects: &MemoryStore, store: &StoreId, unit: Unit, winner: &Win) -> bool {
        let state = self.state.borrow();
        let differs = |manifest: &Manifest| {
            manifest.units.iter().any(|facts| facts.unit == unit && !facts.file.agrees_with(&winner.facts))
        };
        state.manifests.iter().any(|(batch, manifests)| {
            batch.store == *store
                && batch.position > winner.position
                && manifests.iter().any(|sent| differs(&sent.manifest))
                && paths::inbox(batch).is_ok_and(|path| ready(objects.head(&path)).is_ok_and(|found| found.is_some()))
        })
    }

    /// Whether an agent has said that the winner's facts are not the source's any more.
    pub fn difference_is_published(&self, store: &StoreId, unit: Unit, winner: &Win) -> bool {
        let state = self.state.borrow();
        let published =
            state.differing.get(store).and_then(|lists| lists.last()).map(|(_, list)| list.units.as_slice());
        published
            .unwrap_or_default()
            .iter()
            .any(|differing| differing.unit == unit && differing.awaits > winner.position)
    }

    /// Whether the list that was the newest `at` that moment said that a batch before the winner's or the
    /// winner's own is not what the source holds, and no batch has said since that it is.
    pub fn was_disowned(&self, store: &StoreId, unit: Unit, winner: &Win, at: Micros) -> bool {
        let state = self.state.borrow();
        let lists = state.differing.get(store).map(Vec::as_slice).unwrap_or_default();
        let newest = lists.iter().rev().find(|(since, _)| *since <= at);
        let names = |list: &Differing| list.units.iter().any(|one| one.unit == unit && one.awaits > winner.position);
        let later = state.manifests.iter().filter(|(batch, _)| {
            batch.store == *store && batch.dataset == self.dataset && batch.position > winner.position
        });
        let said = later.flat_map(|(_, all)| all).flat_map(|sent| &sent.manifest.units);
        let last = said.filter(|facts| facts.unit == unit && facts.is_proven()).last();
        newest.is_some_and(|(_, list)| names(list)) && !last.is_some_and(|facts| facts.file.agrees_with(&winner.facts))
    }

    fn saw_differing(&self, path: &str, bytes: &Bytes) {
        let store = path.split('/').nth(1).and_then(|store| store.parse().ok());
        match (store, serde_json::from_slice(bytes)) {
            (Some(store), Ok(published)) => {
                let lists = &mut self.state.borrow_mut().differing;
                lists.entry(store).or_default().push((self.cloud.sim.now(), published));
            }
            _ if self.is_of_hostile(path) => {}
            _ => self.fail(format!("{path} is no list of differing units")),
        }
    }

    pub fn manifest_count(&self) -> usize {
        self.state.borrow().manifests.len()
    }

    fn check(&self, name: &'static str, holds: bool, what: impl FnOnce() -> String) {
        self.cloud.tally.borrow_mut().check(name);
        if !holds {
            self.fail(format!("{name}: {}", what()));
        }
    }

    fn saw_manifest(&self, path: &ObjectPath, bytes: &Bytes) {
        let Ok(batch) = paths::batch_of("inbox", path) else { return };
        let Ok(manifest) = Manifest::from_json(bytes) else {
            if self.is_hostile(&batch.store) {
                return;
            }
            return self.fail(format!("an agent wrote a manifest that is none: {path}"));
        };
        let mut state = self.state.borrow_mut();
        let units = manifest.units.iter().map(|facts| facts.unit).collect();
        // Of two manifests with one number only the first can be taken.
        state.units.entry((batch.store.clone(), batch.position)).or_insert(units);
        let at = self.cloud.sim.now();
        if !self.is_hostile(&batch.store) {
            state.unanswered.entry(batch.clone()).or_insert(at);
        }
        let all = state.manifests.entry(batch).or_default();
        all.retain(|sent| sent.bytes != bytes);
        all.push(Sent { bytes: bytes.clone(), manifest, at });
    }

    fn saw_entry(&self, table_name: &str, version: u64, bytes: &Bytes, replaced: bool) {
        self.check("I3 a log entry is written once", !replaced, || format!("{table_name} {version} was overwritten"));
        let Ok(text) = std::str::from_utf8(bytes) else { return self.fail(format!("entry {version} is not UTF-8")) };
        let actions: Result<Vec<Value>, _> = text.lines().map(serde_json::from_str).collect();
        let Ok(actions) = actions else { return self.fail(format!("{table_name} {version}: is not JSON lines")) };
        let mut state = self.state.borrow_mut();
        let table = state.tables.entry(table_name.to_owned()).or_default();
        let expected = std::mem::replace(&mut table.next_version, version + 1);
        drop(state);
        self.check("I3 versions have no gap", expected == version, || {
            format!("{table_name}: {expected}, got {version}")
        });
        self.replay(table_name, version, &actions);
    }

    fn replay(&self, table_name: &str, version: u64, actions: &[Value]) {
        let now = self.cloud.sim.now();
        self.accept(table_name, version, actions);
        let mut touched: BTreeSet<StoreId> = BTreeSet::new();
        let mut removed_units: BTreeMap<Key, UnitTag> = BTreeMap::new();
        for action in actions.iter().filter_map(|action| action.get("remove")) {
            let path = action["path"].as_str().unwrap_or_default().to_owned();
            let file = self.with_table(table_name, |table| {
                table.removed.insert(path.clone(), now);
                table.active.remove(&path)
            });
            self.check("I4 only files of the table are removed", file.is_some(), || {
                format!("{table_name} {version} {path}")
            });
            if let Some(file) = file {
                touched.extend(file.units.iter().map(|tag| tag.store.clone()));
                removed_units.extend(file.units.into_iter().map(|tag| ((tag.store.clone(), tag.unit), tag)));
            }
        }
        let mut added_units: BTreeMap<Key, UnitTag> = BTreeMap::new();
        for add in actions.iter().filter_map(|action| action.get("add")) {
            let path = add["path"].as_str().unwrap_or_default().to_owned();
            let Some(file) = self.read_add(table_name, &path, add) else { continue };
            touched.extend(file.units.iter().map(|tag| tag.store.clone()));
            for tag in &file.units {
                let before = added_units.insert((tag.store.clone(), tag.unit), tag.clone());
                self.check("I2 a unit lies in one file", before.is_none(), || {
                    format!("{table_name} {version} {}", tag.unit)
                });
            }
            self.with_table(table_name, |table| table.active.insert(path, file));
        }
        self.settle(table_name, version, &removed_units, &added_units);
        for store in touched {
            self.check_whole_batches(table_name, version, &store);
        }
    }

    /// Notes which manifest the log names for each batch: of several under one number it may be any.
    fn accept(&self, table_name: &str, version: u64, actions: &[Value]) {
        let batches = actions.iter().filter_map(|action| action["commitInfo"]["ribera"]["batches"].as_array());
        for settled in batches.flatten() {
            let id = settled["id"].as_str().and_then(|id| id.parse::<BatchId>().ok());
            let sent = id.as_ref().and_then(|id| {
                let state = self.state.borrow();
                let wanted =
                    |sent: &&Sent| Some(sha256_hex(&sent.bytes).as_str()) == settled["manifestSha256"].as_str();
                state.manifests.get(id)?.iter().find(wanted).cloned()
            });
            self.check("I3 the log names manifests that were sent", sent.is_some(), || {
                format!("{table_name} {version}: {settled}")
            });
            if let (Some(id), Some(sent)) = (id, sent) {
                let key = (id.store, id.position);
                let units = sent.manifest.units.iter().map(|facts| facts.unit).collect();
                let mut state = self.state.borrow_mut();
                state.units.insert(key.clone(), units);
                state.accepted.entry(key).or_default().push(sent);
            }
        }
    }

    fn read_add(&self, table_name: &str, path: &str, add: &Value) -> Option<LakeFile> {
        let object = ObjectPath::new(format!("lake/{table_name}/{path}")).ok();
        let meta = object.as_ref().and_then(|object| ready(self.cloud.objects.head(object)).ok().flatten());
        let size = add["size"].as_u64();
        self.check("I4 every referenced file exists", meta.as_ref().map(|meta| meta.bytes) == size, || {
            format!("{path}: size {size:?}, got {meta:?}")
        });
        let in_log = add["tags"][UNITS_TAG].as_str().and_then(|text| tags::decode(text).ok());
        let units = in_log.or_else(|| self.read_facts(table_name, path, add));
        self.check("I6 every file says what was proven", units.as_ref().is_some_and(|units| !units.is_empty()), || {
            format!("{path} has no facts")
        });
        let stores: BTreeSet<&StoreId> = units.iter().flatten().map(|tag| &tag.store).collect();
        self.cloud.tally.borrow_mut().amount("files of many stores", u64::from(stores.len() > 1));
        Some(LakeFile { units: units?, object: object? })
    }

    /// The facts of a file that has them in an object beside it.
    fn read_facts(&self, table_name: &str, path: &str, add: &Value) -> Option<Vec<UnitTag>> {
        let tag = add["tags"][FACTS_TAG].as_str()?;
        let (folder, name) = path.rsplit_once('/')?;
        let object = format!("lake/{table_name}/{folder}/_{}.facts", name.strip_suffix(".parquet")?);
        let bytes = ready(self.cloud.objects.get(&ObjectPath::new(object).ok()?)).ok()??;
        self.cloud.tally.borrow_mut().amount("files with facts of their own", 1);
        facts::decode(tag, &bytes).ok()
    }

    /// Notes who won what, and that nothing went back or away.
    fn settle(&self, table_name: &str, version: u64, removed: &BTreeMap<Key, UnitTag>, added: &BTreeMap<Key, UnitTag>) {
        let now = self.cloud.sim.now();
        for key in removed.keys() {
            self.check("I1 no unit leaves the table", added.contains_key(key), || {
                format!("{table_name} {version} {key:?}")
            });
        }
        for (key, tag) in added {
            let before = self.with_table(table_name, |table| table.wins.get(key).and_then(|wins| wins.last().cloned()));
            let was_removed = removed.contains_key(key);
            self.check("I2 a unit lies in one file", before.is_none() || was_removed, || {
                format!("{table_name} {version} {key:?} stands twice")
            });
            if let Some(before) = &before {
                self.check("I3 the higher position wins", tag.position >= before.position, || {
                    format!("{table_name} {version} {key:?}: {} after {}", tag.position, before.position)
                });
                let same = tag.position != before.position || tag.facts.agrees_with(&before.facts);
                self.check("I3 a rewrite keeps the facts", same, || format!("{table_name} {version} {key:?}"));
                if before.position == tag.position {
                    continue;
                }
            }
            let win = Win { at: now, version, position: tag.position, facts: tag.facts.clone() };
            self.with_table(table_name, |table| table.wins.entry(key.clone()).or_default().push(win));
        }
    }

    /// If any unit of a batch shows, all its units show it or something newer.
    fn check_whole_batches(&self, table_name: &str, version: u64, store: &StoreId) {
        let halves = {
            let state = self.state.borrow();
            let Some(table) = state.tables.get(table_name) else { return };
            let unit_min = (store.clone(), Unit::Table);
            let winners: BTreeMap<Unit, Position> = table
                .wins
                .range(unit_min..)
                .take_while(|((of, _), _)| of == store)
                .filter_map(|((_, unit), wins)| Some((*unit, wins.last()?.position)))
                .collect();
            let shown: BTreeSet<Position> = winners.values().copied().collect();
            let is_half = |position: &Position| {
                let units = state.units.get(&(store.clone(), *position));
                units.is_none_or(|units| units.iter().any(|unit| winners.get(unit).is_none_or(|won| won < position)))
            };
            shown.into_iter().filter(is_half).collect::<Vec<_>>()
        };
        self.check("I4 a reader sees whole batches", halves.is_empty(), || {
            format!("{table_name} {version} {store}: {halves:?}")
        });
    }

    fn saw_ack(&self, bytes: &Bytes) {
        let Ok(ack) = serde_json::from_slice::<Ack>(bytes) else { return self.fail("an ack is no ack".to_owned()) };
        let units = self.answered(&ack);
        let positions: Vec<Option<Position>> =
            units.iter().map(|unit| self.winner(&ack.batch.store, *unit).map(|win| win.position)).collect();
        let position = ack.batch.position;
        let all = |test: fn(Position, Position) -> bool| {
            !positions.is_empty() && positions.iter().all(|won| won.is_some_and(|won| test(won, position)))
        };
        match &ack.outcome {
            AckOutcome::Committed { .. } => {
                self.check("I1 what is acknowledged is in the lake", all(|won, own| won >= own), || {
                    format!("{} acknowledged, the lake has {positions:?}", ack.batch)
                });
            }
            AckOutcome::Superseded => {
                self.check("I1 what is acknowledged is in the lake", all(|won, own| won > own), || {
                    format!("{} superseded, the lake has {positions:?}", ack.batch)
                });
            }
            AckOutcome::Quarantined { reason, .. } => {
                let standing =
                    paths::quarantine(&ack.batch).ok().and_then(|path| ready(self.cloud.objects.head(&path)).ok()?);
                self.check("I8 a refusal is on record", standing.is_some(), || format!("{} {reason:?}", ack.batch));
                self.cloud.tally.borrow_mut().amount(reason.as_str(), 1);
                if !self.is_hostile(&ack.batch.store) {
                    self.state.borrow_mut().honest_refused += 1;
                    let explained = EXPLAINED.contains(reason) && self.cloud.was_faulty();
                    self.check("I9 no honest batch is refused but for its own fault", explained, || {
                        format!("{} {reason:?}", ack.batch)
                    });
                }
            }
        }
    }

    /// The units of the manifest that an answer is about; an honest batch waits no longer.
    fn answered(&self, ack: &Ack) -> BTreeSet<Unit> {
        let mut state = self.state.borrow_mut();
        if let Some(since) = state.unanswered.remove(&ack.batch) {
            state.longest_wait = state.longest_wait.max(self.cloud.sim.now() - since);
        }
        let sent = state.manifests.get(&ack.batch).into_iter().flatten();
        let this = sent.into_iter().find(|sent| sha256_hex(&sent.bytes) == ack.manifest_sha256);
        match this {
            Some(sent) if self.is_hostile(&ack.batch.store) => {
                sent.manifest.units.iter().map(|facts| facts.unit).collect()
            }
            _ => state.units.get(&(ack.batch.store.clone(), ack.batch.position)).cloned().unwrap_or_default(),
        }
    }

    fn gone_from_inbox(&self, path: &ObjectPath) {
        if self.is_of_hostile(path.as_str()) {
            return self.hostile_gone(path);
        }
        let Ok(batch) = paths::batch_of("inbox", path) else { return };
        let objects = &self.cloud.objects;
        let there = |path: ribera_storage::Result<ObjectPath>| {
            path.ok().is_some_and(|path| ready(objects.head(&path)).is_ok_and(|found| found.is_some()))
        };
        // A replay takes the answer away before it gives the next one.
        let answered = there(paths::ack(&batch)) || there(paths::replay(&batch));
        let settled = answered && there(paths::done(&batch));
        self.check("I1 a manifest leaves the inbox acknowledged", settled, || format!("{batch}"));
    }

    fn gone_from_lake(&self, path: &ObjectPath) {
        let now = self.cloud.sim.now();
        let fate = {
            let state = self.state.borrow();
            let found = state.tables.iter().find_map(|(name, table)| {
                let relative = path.as_str().strip_prefix("lake/")?.strip_prefix(name.as_str())?.strip_prefix('/')?;
                Some((table.active.contains_key(relative), table.removed.get(relative).copied()))
            });
            found.unwrap_or((false, None))
        };
        self.check("I4 every referenced file exists", !fate.0, || format!("{path} was deleted while in the table"));
        if let Some(since) = fate.1 {
            let kept = SignedDuration::from_micros(now - since);
            self.check("I4 removed files outlive readers", kept >= self.retention, || {
                format!("{path} was deleted {kept:?} after it was removed")
            });
        }
    }

    fn with_table<T>(&self, name: &str, act: impl FnOnce(&mut Table) -> T) -> T {
        act(self.state.borrow_mut().tables.entry(name.to_owned()).or_default())
    }

    /// The dataset whose tables are watched.
    pub fn dataset(&self) -> &DatasetName {
        &self.dataset
    }
}

impl Watcher for LakeModel {
    fn put(&self, path: &ObjectPath, bytes: &Bytes, replaced: bool) {
        let text = path.as_str();
        if text.starts_with("inbox/") {
            let own = self.is_of_hostile(text);
            self.check("I3 a manifest is never overwritten", !replaced || own, || text.to_owned());
            self.saw_manifest(path, bytes);
        } else if text.starts_with("acks/") {
            self.saw_ack(bytes);
        } else if text.starts_with("quarantine/") {
            self.saw_refusal(text, bytes);
        } else if text.starts_with("agents/") && text.contains("/differing/") {
            self.saw_differing(text, bytes);
        } else if let Some((table, version)) = log_entry(text) {
            self.saw_entry(table, version, bytes, replaced);
        } else if text.starts_with("lake/") && text.contains("/part-") {
            self.check("I4 a lake file is never overwritten", !replaced, || text.to_owned());
        }
    }

    fn deleted(&self, path: &ObjectPath) {
        if path.as_str().starts_with("inbox/") {
            self.gone_from_inbox(path);
        } else if path.as_str().starts_with("lake/") && path.as_str().contains("/part-") {
            self.gone_from_lake(path);
        } else if path.as_str().starts_with("landing/") && !self.by_own_hand.get() {
            self.fail(format!("I1 a batch file was deleted: {path}"));
        }
    }
}

/// Table and version of `lake/TABLE/_delta_log/VERSION.json`.
fn log_entry(path: &str) -> Option<(&str, u64)> {
    let (table, name) = path.strip_prefix("lake/")?.split_once("/_delta_log/")?;
    let version = name.strip_suffix(".json")?;
    (version.len() == 20 && version.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| version.parse().ok())?
        .map(|version| (table, version))
}
