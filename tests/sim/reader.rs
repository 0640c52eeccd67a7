//! Somebody who asks the lake while batches are committed, as `ribera sql` does: evidence first, then
//! the tables, then the rows, which takes its time; judged at last by the newest tables. The answer is
//! held against what the stores' databases held.

use std::collections::BTreeMap;
use std::rc::Rc;

use jiff::civil::Date;
use ribera_core::coverage::{self, Coverage, DayState, Evidence};
use ribera_storage::delta::{AddFile, Snapshot, Table};
use ribera_storage::object::ObjectStore;
use ribera_storage::ports::Host;
use ribera_storage::{Result, StoreId, Unit};

use super::checker::Checker;
use super::cloud::{Cloud, Program, SimStore};
use super::host::{SimClock, SimRandom};
use super::kernel::{Chance, HOUR, MINUTE, Micros};
use super::pos::{Rows, Sums};
use super::rows;

pub struct Reader {
    cloud: Rc<Cloud>,
    checker: Rc<Checker>,
    program: Rc<Program>,
    chance: Rc<Chance>,
}

/// What was answered: rows by store and day, and what was said of them.
struct Answer {
    /// Before anything was asked.
    begun: Micros,
    is_older: bool,
    rows: BTreeMap<(StoreId, Date), Rows>,
    coverage: Coverage,
}

impl Reader {
    pub fn new(cloud: &Rc<Cloud>, checker: &Rc<Checker>) -> Rc<Self> {
        let program = Program::new(&cloud.sim, "reader", "reader", None);
        let chance = cloud.sim.chance_of("reader's pace");
        Rc::new(Self { cloud: Rc::clone(cloud), checker: Rc::clone(checker), program, chance })
    }

    /// Asks every few hours, for as long as the world lasts. It is no program that crashes: what is
    /// tried is the order of its reads.
    pub fn start(self: &Rc<Self>) {
        let me = Rc::clone(self);
        let group = self.cloud.sim.new_group(|_| {});
        self.program.group.set(group);
        self.cloud.sim.spawn(group, async move {
            loop {
                me.cloud.sim.sleep(me.chance.between(HOUR, 9 * HOUR)).await;
                match me.ask().await {
                    Ok(Some(answer)) => me.check(&answer),
                    Ok(None) => {}
                    Err(error) if error.is_retry() => me.cloud.sim.trace(&format!("reader {error}")),
                    Err(error) => me.checker.lake.fail(format!("I6 a query is answered: {error:?}")),
                }
            }
        });
    }

    async fn ask(&self) -> Result<Option<Answer>> {
        let objects = SimStore::new(&self.cloud, &self.program);
        let dataset = &self.checker.definition;
        let begun = self.cloud.sim.now();
        let evidence = Evidence::gather(&objects, std::slice::from_ref(dataset)).await?;
        let is_older = self.chance.percent(40);
        let table = Table::new(&objects, dataset.name.clone());
        let Some(newest) = table.load().await? else { return Ok(None) };
        let back = if is_older { self.chance.below(newest.version().min(20) + 1) } else { 0 };
        let mut snapshot = if back == 0 { newest } else { table.load_at(newest.version() - back).await? };
        table.load_facts(&mut snapshot, None, None).await?;
        let rows = self.read_rows(&snapshot).await?;
        let random = SimRandom(Rc::clone(&self.program.chance));
        let own = Host::new(&objects, SimClock::right(&self.cloud.sim), random);
        let coverage = coverage::judge_answer(own.ports(), &evidence, dataset, Some(snapshot)).await?;
        Ok(Some(Answer { begun, is_older, rows, coverage }))
    }

    /// The rows of a query that takes seconds or hours. The files are those of the snapshot: an engine
    /// reads no others. Those of an old version may be gone.
    async fn read_rows(&self, snapshot: &Snapshot) -> Result<BTreeMap<(StoreId, Date), Rows>> {
        let long = self.chance.percent(60);
        let span = if long { self.chance.between(10 * MINUTE, 14 * HOUR) } else { self.chance.between(0, MINUTE) };
        self.cloud.sim.sleep(span).await;
        let mut read = BTreeMap::new();
        for file in snapshot.files() {
            let days = self.decoded(snapshot, file).await?;
            // Every unit of the file is answered, those without rows too.
            for (key, _) in file.unit_positions()? {
                let Some(day) = key.unit.date() else { continue };
                let key = (key.store, day);
                let rows = days.get(&key).cloned().unwrap_or_default();
                read.insert(key, rows);
            }
        }
        Ok(read)
    }

    async fn decoded(&self, snapshot: &Snapshot, file: &AddFile) -> Result<BTreeMap<(StoreId, Date), Rows>> {
        let path = file.object_path(snapshot.table())?;
        let bytes = self.cloud.objects.get(&path).await?;
        let gone = || ribera_storage::Error::retry(format!("{path}: was vacuumed"));
        let (days, _) = rows::decode(&bytes.ok_or_else(gone)?).map_err(ribera_storage::Error::data)?;
        Ok(days)
    }

    /// False complete: none.
    fn check(&self, answer: &Answer) {
        for store in &answer.coverage.stores {
            let Some(pos) = self.checker.stores.get(&store.store) else { continue };
            for (day, _) in store.calendar.days().filter(|(_, state)| *state == DayState::Complete) {
                let what =
                    if answer.is_older { "complete days of an older version" } else { "complete days of an answer" };
                self.cloud.tally.borrow_mut().amount(what, 1);
                let wrong = match answer.rows.get(&(store.store.clone(), day)) {
                    Some(rows) => self.why_false(pos, day, rows, answer.begun),
                    None => Some("it was not read".to_owned()),
                };
                self.checker.check("I6 no answer says complete falsely", wrong.is_none(), || {
                    format!("{} {day}, older {}: {}", store.store, answer.is_older, wrong.unwrap_or_default())
                });
            }
        }
    }

    /// Why the rows of a day that was called complete are not what was promised: the source held exactly
    /// these at some moment after closing, the lake has had nothing else of the day since before the
    /// question, and the source had not disowned them when it was asked.
    fn why_false(&self, pos: &super::pos::Pos, day: Date, rows: &Rows, begun: Micros) -> Option<String> {
        let (unit, lake) = (Unit::Day(day), &self.checker.lake);
        let closed_since = self.checker.closes(pos, day);
        if !pos.ever_held(day, Sums::of(rows), closed_since, self.cloud.sim.now()) {
            return Some(format!("the source never held these {} rows after closing", rows.len()));
        }
        let since = lake.wins_since(&pos.store, unit, begun);
        let mut same = since.iter().filter(|win| Sums::of(rows).agree_with(&win.facts)).peekable();
        if same.peek().is_none() {
            return Some(format!("the lake had others when it was asked: {:?}", since.first().map(|win| &win.facts)));
        }
        // A batch that came after the question may have said the same again, and is what was awaited.
        let disowned = same.all(|win| lake.was_disowned(&pos.store, unit, win, begun));
        disowned.then(|| format!("asked {begun}, the source had disowned it: {since:?}"))
    }
}
