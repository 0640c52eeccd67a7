//! The stores' own databases: the truth that the lake is compared with. Every past state of every
//! day is kept, so that a claim about a day can be held against what was true when.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use jiff::ToSpan;
use jiff::civil::Date;
use ribera_storage::batch::Facts;
use ribera_storage::store::StoreDefinition;
use ribera_storage::{ExactDecimal, StoreId};

use super::kernel::{Chance, Micros, Sim};

/// A ticket line. The key is (ticket, line).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    pub ticket: u64,
    /// Thousandths; negative for a return.
    pub quantity: i64,
    /// Cents.
    pub total: i64,
}

pub type Rows = BTreeMap<u64, Row>;

/// The facts of some rows as the contract counts them: rows, quantity, total.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Sums {
    pub rows: u64,
    pub quantity: i128,
    pub total: i128,
}

impl Sums {
    pub fn of(rows: &Rows) -> Self {
        let sum = |value: fn(&Row) -> i64| rows.values().map(|row| i128::from(value(row))).sum();
        Self { rows: rows.len() as u64, quantity: sum(|row| row.quantity), total: sum(|row| row.total) }
    }

    /// The same numbers in the contract's form.
    pub fn agree_with(self, facts: &Facts) -> bool {
        let sum = |name: &str, unscaled: i128, scale| {
            facts.sums.get(name).copied().unwrap_or(ExactDecimal::ZERO) == ExactDecimal::new(unscaled, scale)
        };
        self.rows == facts.rows && sum("cantidad", self.quantity, 3) && sum("total", self.total, 2)
    }
}

/// One business day through time.
#[derive(Debug, Default)]
pub struct Day {
    pub rows: Rows,
    /// Since when it looked like what; in order. Before the first it was empty.
    pub history: Vec<(Micros, Sums)>,
}

/// A store's database and the clock on its wall.
pub struct Pos {
    pub store: StoreId,
    pub definition: StoreDefinition,
    days: RefCell<BTreeMap<Date, Day>>,
    next_ticket: Cell<u64>,
    /// Added to true time by the database server's clock.
    pub clock_off: Cell<Micros>,
    /// Reads of one transaction see one moment.
    pub has_snapshots: bool,
    /// What happens in the store is drawn from a source of its own: the same truth whoever else is in the world.
    chance: Rc<Chance>,
    sim: Sim,
}

impl Pos {
    pub fn new(sim: &Sim, definition: StoreDefinition, has_snapshots: bool) -> Rc<Self> {
        let chance = sim.chance_of(definition.id.as_str());
        Rc::new(Self {
            store: definition.id.clone(),
            definition,
            days: RefCell::default(),
            next_ticket: Cell::new(1),
            clock_off: Cell::new(0),
            has_snapshots,
            chance,
            sim: sim.clone(),
        })
    }

    /// A sale, or a return when the quantity is negative. Its amount is drawn from so many that
    /// two states of a day practically never agree in count and sums by chance.
    pub fn sell(&self, day: Date, is_return: bool) {
        let ticket = self.next_ticket.replace(self.next_ticket.get() + 1);
        let sign = if is_return { -1 } else { 1 };
        let chance = &self.chance;
        let row =
            Row { ticket, quantity: sign * chance.between(1, 9_000), total: sign * chance.between(1, 90_000_000) };
        self.change(day, |rows| rows.insert(ticket, row).is_none());
    }

    /// A ticket vanishes; nothing when the day is empty.
    pub fn void_one(&self, day: Date) {
        let pick = self.chance.next_u64();
        self.change(day, |rows| {
            let key = nth(rows, pick);
            key.and_then(|key| rows.remove(&key)).is_some()
        });
    }

    /// A ticket gets another amount; nothing when the day is empty.
    pub fn correct_one(&self, day: Date) {
        let (pick, total) = (self.chance.next_u64(), self.chance.between(1, 90_000_000));
        self.change(day, |rows| {
            let key = nth(rows, pick);
            key.and_then(|key| rows.get_mut(&key)).map(|row| row.total = total).is_some()
        });
    }

    /// Everything of the day vanishes.
    pub fn void_all(&self, day: Date) {
        self.change(day, |rows| {
            let some = !rows.is_empty();
            rows.clear();
            some
        });
    }

    pub fn rows(&self, day: Date) -> Rows {
        self.days.borrow().get(&day).map(|day| day.rows.clone()).unwrap_or_default()
    }

    pub fn sums(&self, day: Date) -> Sums {
        self.days.borrow().get(&day).map(|day| Sums::of(&day.rows)).unwrap_or_default()
    }

    /// Whether a change of `day` now is still within what agents look back on, with a day to spare. Nothing is sold
    /// before the store opens, whoever asks about such a day.
    pub fn may_still_change(&self, day: Date) -> bool {
        let zone = self.definition.zone().expect("a zone");
        let today = zone.to_datetime(super::cloud::timestamp(self.sim.now())).date();
        let last = day.checked_add(super::nature::LATE_DAYS_MAX.days()).expect("a date");
        let is_open = self.definition.opened.is_none_or(|opened| opened <= day);
        is_open && day <= today && today < last
    }

    /// Days that ever had rows.
    pub fn days(&self) -> Vec<Date> {
        self.days.borrow().keys().copied().collect()
    }

    /// A copy of everything, as a transaction sees it.
    pub fn snapshot(&self) -> BTreeMap<Date, Rows> {
        self.days.borrow().iter().map(|(date, day)| (*date, day.rows.clone())).collect()
    }

    /// Whether the day looked like `facts` at some moment in `from..=to`.
    pub fn ever_looked_like(&self, day: Date, facts: &Facts, from: Micros, to: Micros) -> bool {
        let days = self.days.borrow();
        let history = days.get(&day).map(|day| day.history.as_slice()).unwrap_or_default();
        let states = std::iter::once((Micros::MIN, Sums::default())).chain(history.iter().copied());
        let ends = history.iter().map(|(since, _)| *since).chain([Micros::MAX]);
        states.zip(ends).any(|((since, sums), until)| since <= to && until > from && sums.agree_with(facts))
    }

    /// Whether the day had exactly these sums at some moment in `from..=to`.
    pub fn ever_held(&self, day: Date, wanted: Sums, from: Micros, to: Micros) -> bool {
        let days = self.days.borrow();
        let history = days.get(&day).map(|day| day.history.as_slice()).unwrap_or_default();
        let states = std::iter::once((Micros::MIN, Sums::default())).chain(history.iter().copied());
        let ends = history.iter().map(|(since, _)| *since).chain([Micros::MAX]);
        states.zip(ends).any(|((since, sums), until)| since <= to && until > from && sums == wanted)
    }

    fn change(&self, day: Date, edit: impl FnOnce(&mut Rows) -> bool) {
        let mut days = self.days.borrow_mut();
        let entry = days.entry(day).or_default();
        if !edit(&mut entry.rows) {
            return;
        }
        let sums = Sums::of(&entry.rows);
        entry.history.push((self.sim.now(), sums));
        drop(days);
        self.sim.trace(&format!("pos {} {day} {sums:?}", self.store));
    }
}

fn nth(rows: &Rows, pick: u64) -> Option<u64> {
    let len = rows.len() as u64;
    (len > 0).then(|| rows.keys().nth((pick % len) as usize).copied()).flatten()
}
