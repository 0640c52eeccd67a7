//! What is checked at random moments and at the end: coverage against the truth, rows against
//! the truth, the system's own reading of the lake against the model's.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use futures::FutureExt;
use jiff::civil::Date;
use ribera_core::coverage::{self, Coverage, DayState};
use ribera_core::{quarantine, status};
use ribera_storage::dataset::DatasetDefinition;
use ribera_storage::delta::Table;
use ribera_storage::object::{MemoryStore, ObjectStore, list_all};
use ribera_storage::ports::Host;
use ribera_storage::store::StoreDefinition;
use ribera_storage::{DatasetName, StoreId, Unit, paths, text};

use super::cloud::{Cloud, ready};
use super::host::{SimClock, SimRandom};
use super::kernel::{Chance, Micros};
use super::lake::{LakeFile, LakeModel};
use super::pos::{Pos, Rows};
use super::rows;

pub struct Checker {
    pub cloud: Rc<Cloud>,
    pub lake: Rc<LakeModel>,
    pub stores: BTreeMap<StoreId, Rc<Pos>>,
    pub dataset: DatasetName,
    pub definition: DatasetDefinition,
    /// What is declared of the hostile store, where there is one.
    pub hostile: Option<StoreDefinition>,
    /// Its own random source.
    pub chance: Rc<Chance>,
    /// Local time of the next day at which a day is over.
    pub closes_at: jiff::civil::Time,
}

impl Checker {
    /// At any moment: no day is called complete that is not.
    pub fn coverage_is_honest(&self) {
        match self.coverage() {
            Ok(coverage) => {
                self.judge(&coverage);
                self.judge_hostile(&coverage);
            }
            Err(error) => self.lake.fail(format!("I6 coverage failed on a healthy store: {error:?}")),
        }
    }

    /// At any moment: a random file of the lake holds what its tags say.
    pub fn a_file_is_what_it_says(&self) {
        let files = self.lake.files();
        if !files.is_empty() {
            let (path, file) = &files[self.chance.index(files.len())];
            self.file_rows(path, file);
        }
    }

    /// At any moment: no read of a store's object was larger than it had to be.
    pub fn reads_are_bounded(&self) {
        let greedy = self.cloud.take_greedy();
        self.check("I9 no object of a store is read whole before it is measured", greedy.is_empty(), || {
            greedy.join("; ")
        });
    }

    /// At any moment: the page and the API answer, and nothing in them moves a cursor.
    pub fn status_answers(&self) {
        for target in ["/", "/api/v1/summary?dataset=ventas", "/api/v1/stores?dataset=ventas", "/api/v1/runs"] {
            let request = status::Request { method: "GET".to_owned(), target: target.to_owned() };
            let answer = status::respond(self.host().ports(), &request).now_or_never();
            let fits = answer.as_ref().is_some_and(|answer| {
                answer.status < 500 && !answer.body.chars().any(|letter| letter != '\n' && text::is_control(letter))
            });
            self.check("I9 the page answers whatever a store wrote", fits, || format!("{target}: {answer:?}"));
        }
    }

    /// At any moment: the system reads the table that its log tells.
    pub fn tables_read_as_logged(&self) {
        for name in self.lake.table_names() {
            let table = Table::new(&self.cloud.objects, name.parse().expect("a table's name"));
            match ready(table.load()) {
                Ok(Some(snapshot)) => {
                    let (paths, versions) = self.lake.table(&name);
                    let same = snapshot.file_count() == paths.len()
                        && snapshot.version() + 1 == versions
                        && snapshot.files().all(|file| paths.contains(&file.path));
                    self.check("I4 checkpoint and log tell the same", same, || {
                        format!("{name}: {} files at {}", snapshot.file_count(), snapshot.version())
                    });
                }
                other => self.lake.fail(format!("{name} cannot be read: {:?}", other.err())),
            }
        }
    }

    /// When all is quiet: the lake is the truth, all of it, once.
    pub fn lake_is_complete(&self) {
        let mut found: BTreeMap<(StoreId, Date), Rows> = BTreeMap::new();
        for (path, file) in self.lake.files() {
            for (key, rows) in self.file_rows(&path, &file) {
                let what = format!("{path} {key:?}");
                let twice = found.insert(key, rows).is_some();
                self.check("I2 a unit lies in one file", !twice, || what);
            }
        }
        for (store, pos) in &self.stores {
            for day in pos.days() {
                let (truth, lake) = (pos.rows(day), found.remove(&(store.clone(), day)).unwrap_or_default());
                self.check("I1 every row is in the lake", truth.keys().all(|key| lake.contains_key(key)), || {
                    format!("{store} {day}: {} rows, the lake has {}", truth.len(), lake.len())
                });
                self.check("I3 the lake is what the last batches say", truth == lake, || {
                    format!("{store} {day}: {} rows, the lake has {}", truth.len(), lake.len())
                });
                self.cloud.tally.borrow_mut().amount("rows at the end", lake.len() as u64);
            }
        }
        found.retain(|(store, _), _| !self.lake.is_hostile(store));
        self.check("I2 nothing is in the lake that is nowhere else", found.is_empty(), || {
            format!("{:?}", found.keys())
        });
    }

    /// Rows of honest stores in the lake, by store and day.
    pub fn honest_rows(&self) -> BTreeMap<(StoreId, Date), Rows> {
        let rows = self.lake.files().into_iter().flat_map(|(path, file)| self.file_rows(&path, &file));
        rows.filter(|((store, _), _)| !self.lake.is_hostile(store)).collect()
    }

    /// When all is quiet: every expected, due day is complete, and nothing waits.
    pub fn all_is_settled(&self, last_day: Date) {
        for prefix in ["inbox/", "state/ready/", "state/replay/"] {
            let left = ready(list_all(&self.cloud.objects, prefix, None)).unwrap_or_default();
            self.check("I5 nothing waits when faults have stopped", left.is_empty(), || {
                format!("{} objects below {prefix}, first {:?}", left.len(), left.first())
            });
        }
        let Ok(coverage) = self.coverage() else { return };
        for store in coverage.stores.iter().filter(|store| !self.lake.is_hostile(&store.store)) {
            for (day, state) in store.calendar.days().filter(|(day, _)| *day <= last_day) {
                let settled = matches!(state, DayState::Complete | DayState::NotExpected);
                self.check("I5 every due day is complete when faults have stopped", settled, || {
                    let win = self.lake.winner(&store.store, Unit::Day(day));
                    let said = win.as_ref().map(|win| self.lake.accepted(&store.store, Unit::Day(day), win.position));
                    format!("{} {day} is {state:?}: in the lake {win:?}, as said {said:?}", store.store)
                });
            }
        }
    }

    /// Partial days of which a cloned journal's batch lies in quarantine.
    pub fn days_doubted_by_clones(&self) -> BTreeSet<(StoreId, Date)> {
        let Ok(coverage) = self.coverage() else { return BTreeSet::new() };
        let mut doubted = BTreeSet::new();
        for entry in ready(quarantine::list(self.host().ports(), None, 10_000)).unwrap_or_default() {
            let Some(batch) = entry.batch.filter(|batch| !self.lake.is_hostile(&batch.store)) else { continue };
            let first = paths::quarantine(&batch).map(|path| path.to_string()).unwrap_or_default();
            if entry.path != first {
                let days = entry.record.units.iter().filter_map(|unit| unit.date());
                doubted.extend(days.map(|day| (batch.store.clone(), day)));
            }
        }
        let partial = |(store, day): &(StoreId, Date)| {
            let of_store = coverage.stores.iter().find(|one| one.store == *store);
            let mut days = of_store.into_iter().flat_map(|one| one.calendar.days());
            days.any(|(date, state)| date == *day && state == DayState::Partial)
        };
        doubted.retain(partial);
        doubted
    }

    fn judge(&self, coverage: &Coverage) {
        let now = self.cloud.sim.now();
        for store in &coverage.stores {
            let Some(pos) = self.stores.get(&store.store) else { continue };
            for (day, _) in store.calendar.days().filter(|(_, state)| *state == DayState::Complete) {
                self.judge_day(pos, day, now);
            }
        }
    }

    fn judge_day(&self, pos: &Pos, day: Date, now: Micros) {
        let unit = Unit::Day(day);
        let Some(win) = self.lake.winner(&pos.store, unit) else {
            return self.check("I6 complete is never said falsely", false, || {
                format!("{} {day} is not in the lake", pos.store)
            });
        };
        let closed_since = self.closes(pos, day);
        let honest = pos.ever_looked_like(day, &win.facts, closed_since, now);
        self.check("I6 complete is never said falsely", honest, || {
            format!("{} {day}: the lake's {:?} was never the source's after closing", pos.store, win.facts)
        });
        let waits = self.lake.difference_waits(&self.cloud.objects, &pos.store, unit, &win);
        self.check("I6 complete is not said while a difference waits", !waits, || format!("{} {day}", pos.store));
        let published = self.lake.difference_is_published(&pos.store, unit, &win);
        self.check("I6 complete is not said against the source's own word", !published, || {
            format!("{} {day}", pos.store)
        });
    }

    /// True time at which the source's own clock says that `day` is over.
    pub fn closes(&self, pos: &Pos, day: Date) -> Micros {
        let zone = pos.definition.zone().expect("a zone");
        let closing = day.tomorrow().expect("a date").to_datetime(self.closes_at);
        let closing = zone.to_timestamp(closing).expect("a time").as_microsecond();
        closing - pos.clock_off.get()
    }

    pub fn file_rows(&self, path: &str, file: &LakeFile) -> BTreeMap<(StoreId, Date), Rows> {
        let bytes = ready(self.cloud.objects.get(&file.object)).ok().flatten();
        self.check("I4 every referenced file exists", bytes.is_some(), || format!("{path} is gone"));
        let Some(bytes) = bytes else { return BTreeMap::new() };
        let (days, doubled) = match rows::decode(&bytes) {
            Ok(decoded) => decoded,
            Err(error) => {
                self.lake.fail(format!("I4 {path} cannot be read: {error}"));
                return BTreeMap::new();
            }
        };
        self.check("I2 no row is in a file twice", doubled == 0, || format!("{path}: {doubled}"));
        let none = Rows::new();
        for tag in &file.units {
            let rows = tag.unit.date().and_then(|day| days.get(&(tag.store.clone(), day))).unwrap_or(&none);
            let agrees = super::pos::Sums::of(rows).agree_with(&tag.facts);
            self.check("I3 a file holds what its tags say", agrees, || format!("{path} {}", tag.key()));
        }
        let tagged = days
            .keys()
            .all(|(store, day)| file.units.iter().any(|tag| tag.store == *store && tag.unit == Unit::Day(*day)));
        self.check("I3 a file holds what its tags say", tagged, || format!("{path} has rows of other days"));
        days
    }

    pub fn coverage(&self) -> ribera_storage::Result<Coverage> {
        let full = ready(coverage::compute(self.host().ports(), &self.dataset))?;
        let quick = ready(coverage::brought_up_to_date(self.host().ports(), &self.dataset))?;
        let differs = quick.stores.iter().zip(&full.stores).find(|(quick, full)| quick != full);
        let same = differs.is_none() && quick.stores.len() == full.stores.len();
        self.check("I6 coverage of what changed is coverage computed in full", same, || format!("{differs:?}"));
        Ok(full)
    }

    fn host(&self) -> Host<MemoryStore, SimClock, SimRandom> {
        Host::new(self.cloud.objects.clone(), SimClock::right(&self.cloud.sim), SimRandom(Rc::clone(&self.chance)))
    }

    pub fn check(&self, name: &'static str, holds: bool, what: impl FnOnce() -> String) {
        self.cloud.tally.borrow_mut().check(name);
        if !holds {
            self.lake.fail(format!("{name}: {}", what()));
        }
    }
}
