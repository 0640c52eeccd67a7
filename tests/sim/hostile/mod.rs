//! A store whose credential is in the wrong hands: it writes any bytes below its own prefixes, at any
//! time, and deletes what lies there. Its chance is a source of its own.
//!
//! What must hold of the others is checked where it is checked without it too (`lake`, `checker`); what
//! may be called complete of this store is in [`super::guard`].

mod acts;
mod forge;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;
use jiff::ToSpan;
use jiff::civil::Date;
use ribera_storage::batch::Manifest;
use ribera_storage::ids::Position;
use ribera_storage::object::ObjectPath;
use ribera_storage::store::StoreDefinition;
use ribera_storage::{BatchId, DatasetName, StoreId, paths};

pub use acts::Act;

use super::cloud::{Cloud, timestamp};
use super::kernel::{Chance, GroupId, HOUR, MINUTE, Micros};
use super::lake::LakeModel;

/// See the module.
pub struct HostileStore {
    cloud: Rc<Cloud>,
    lake: Rc<LakeModel>,
    store: StoreId,
    dataset: DatasetName,
    chance: Rc<Chance>,
    first: Date,
    days: u32,
    epoch: Cell<u32>,
    sequence: Cell<u64>,
    ticket: Cell<i64>,
    list: Cell<u64>,
    /// What it has put, in order.
    sent: RefCell<Vec<(ObjectPath, Bytes)>>,
    manifests: RefCell<Vec<Manifest>>,
}

/// The id of the hostile store.
pub const STORE: &str = "mala";

/// Where it says it is.
pub fn definition(first: Date) -> StoreDefinition {
    let store = StoreDefinition::new(STORE.parse().expect("a store id"), "Tienda mala", "Europe/Madrid");
    StoreDefinition { opened: Some(first), ..store }
}

impl HostileStore {
    pub fn new(cloud: &Rc<Cloud>, lake: &Rc<LakeModel>, dataset: &DatasetName, first: Date, days: u32) -> Rc<Self> {
        Rc::new(Self {
            cloud: Rc::clone(cloud),
            lake: Rc::clone(lake),
            store: STORE.parse().expect("a store id"),
            dataset: dataset.clone(),
            chance: cloud.sim.chance_of("hostile store"),
            first,
            days,
            epoch: Cell::new(0),
            sequence: Cell::new(1),
            ticket: Cell::new(1),
            list: Cell::new(1),
            sent: RefCell::default(),
            manifests: RefCell::default(),
        })
    }

    /// One act after the other until `end`: every kind once in each round, in an order of its own.
    pub fn live(self: &Rc<Self>, group: GroupId, end: Micros) {
        let me = Rc::clone(self);
        self.cloud.sim.spawn(group, async move {
            let mut deck: Vec<Act> = Vec::new();
            loop {
                me.cloud.sim.sleep(me.chance.between(10 * MINUTE, 2 * HOUR)).await;
                if me.cloud.sim.now() >= end {
                    return;
                }
                if deck.is_empty() {
                    deck = Act::ALL.to_vec();
                }
                let act = deck.swap_remove(me.chance.index(deck.len()));
                me.cloud.sim.trace(&format!("{STORE}: {}", act.name()));
                if me.act(act) {
                    me.cloud.tally.borrow_mut().act(act);
                }
            }
        });
    }

    fn today(&self) -> Date {
        timestamp(self.cloud.sim.now()).to_zoned(jiff::tz::TimeZone::UTC).date()
    }

    /// A day that lies behind, or today when none does yet.
    fn a_day(&self) -> Date {
        let last = self.today().checked_sub(1.day()).expect("a date");
        let behind = i64::from((last - self.first).get_days()).clamp(0, i64::from(self.days) - 1);
        self.first.checked_add(self.chance.between(0, behind + 1).days()).expect("a date")
    }

    fn next_batch(&self) -> BatchId {
        let sequence = self.sequence.replace(self.sequence.get() + 1);
        self.batch(Position { epoch: self.epoch.get(), sequence })
    }

    fn batch(&self, position: Position) -> BatchId {
        BatchId { store: self.store.clone(), dataset: self.dataset.clone(), position }
    }

    fn put(&self, path: &str, bytes: impl Into<Bytes>) -> bool {
        let Ok(path) = ObjectPath::new(path) else { return false };
        let bytes = bytes.into();
        self.cloud.put_at_once(&path, bytes.clone());
        self.sent.borrow_mut().push((path, bytes));
        true
    }

    fn put_manifest(&self, batch: &BatchId, bytes: impl Into<Bytes>) -> bool {
        self.put(paths::inbox(batch).expect("a path").as_str(), bytes)
    }

    /// An object of an own prefix that it put before.
    fn one_sent(&self, prefix: &str) -> Option<(ObjectPath, Bytes)> {
        let sent = self.sent.borrow();
        let of: Vec<_> = sent.iter().filter(|(path, _)| path.as_str().starts_with(prefix)).collect();
        (!of.is_empty()).then(|| (*self.chance.pick(&of)).clone())
    }

    fn one_manifest(&self) -> Option<Manifest> {
        let manifests = self.manifests.borrow();
        (!manifests.is_empty()).then(|| self.chance.pick(&manifests).clone())
    }

    /// Objects of a crowd go as they came, some hours later.
    fn delete_later(self: &Rc<Self>, crowd: Vec<ObjectPath>) {
        let me = Rc::clone(self);
        let group = self.cloud.sim.new_group(|_| {});
        self.cloud.sim.spawn(group, async move {
            me.cloud.sim.sleep(me.chance.between(HOUR, 10 * HOUR)).await;
            crowd.iter().for_each(|path| me.lake.delete_by_own_hand(path));
        });
    }
}
