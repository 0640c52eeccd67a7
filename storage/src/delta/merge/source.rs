//! A file that is being merged, read run by run and proven unit by unit: its rows must be those that its
//! tags name, in the same order, and no others.

use std::cmp::Ordering;
use std::collections::VecDeque;

use arrow_array::RecordBatch;

use super::digest::Digester;
use super::inputs::Input;
use crate::batch::Facts;
use crate::delta::files::batches::Batches;
use crate::delta::files::rows::RunCounter;
use crate::delta::units::column::{UnitColumn, UnitRun};
use crate::delta::units::cursor::{Key, UnitCursor, key_of};
use crate::delta::units::tags::UnitTag;
use crate::error::{Error, Result};
use crate::ids::Unit;
use crate::object::ObjectStore;
use crate::text::quoted;

/// What comes next of a file.
pub(super) struct Piece {
    pub key: Key,
    /// When it is the beginning of a unit.
    pub tag: Option<UnitTag>,
    pub rows: Option<RecordBatch>,
}

/// How the rows of a dataset are counted, and what came in of all files.
pub(super) struct Counting {
    pub column: UnitColumn,
    pub counter: RunCounter,
    pub came_in: Digester,
}

/// A unit whose rows come.
struct OpenUnit {
    key: Key,
    unit: Unit,
    /// What its tag says, and what was counted.
    wanted: Facts,
    counted: Facts,
}

impl OpenUnit {
    fn new(tag: &UnitTag) -> Self {
        Self { key: key_of(tag), unit: tag.unit, wanted: tag.facts.clone(), counted: Facts::default() }
    }

    fn prove(self) -> Result<()> {
        if self.counted.agrees_with(&self.wanted) {
            return Ok(());
        }
        let Self { key: (store, _), unit, wanted, counted } = self;
        Err(Error::data(format!("unit {unit} of {store}: must be {wanted:?}, got {counted:?}")))
    }
}

/// The rows of a file, one run of one unit after the other.
pub(super) struct Source<'a, S> {
    pub input: &'a Input<'a>,
    batches: Batches<'a, S>,
    units: UnitCursor<'a>,
    open: Option<OpenUnit>,
    queue: VecDeque<Piece>,
}

impl<'a, S: ObjectStore> Source<'a, S> {
    pub(super) async fn open(input: &'a Input<'a>, batches: Batches<'a, S>, counting: &mut Counting) -> Result<Self> {
        let units = input.file.unit_cursor()?;
        let mut source = Self { input, batches, units, open: None, queue: VecDeque::new() };
        source.fill(counting).await?;
        Ok(source)
    }

    /// The unit of the next piece; `None` when there are no more.
    pub(super) fn key(&self) -> Option<&Key> {
        self.queue.front().map(|piece| &piece.key)
    }

    pub(super) async fn take(&mut self, counting: &mut Counting) -> Result<Option<Piece>> {
        let taken = self.queue.pop_front();
        self.fill(counting).await?;
        Ok(taken)
    }

    async fn fill(&mut self, counting: &mut Counting) -> Result<()> {
        while self.queue.is_empty() {
            if let Some(batch) = self.batches.next().await? {
                counting.came_in.add(&batch)?;
                for run in counting.column.runs(&batch)? {
                    self.add(&run, &batch, counting)?;
                }
                continue;
            }
            self.close_unit()?;
            match self.units.next()? {
                Some(tag) => self.add_empty(tag)?,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    fn add(&mut self, run: &UnitRun<'_>, batch: &RecordBatch, counting: &Counting) -> Result<()> {
        let goes_on = |open: &OpenUnit| place(&open.key) == (run.store, run.number);
        let tag = match &self.open {
            Some(open) if goes_on(open) => None,
            _ => Some(self.begin_unit(run, counting)?),
        };
        let Some(open) = &mut self.open else { return Err(Error::bug("no open unit")) };
        counting.counter.add(batch, &run.rows, &mut open.counted)?;
        let rows = Some(batch.slice(run.rows.start, run.rows.len()));
        self.queue.push_back(Piece { key: open.key.clone(), tag, rows });
        Ok(())
    }

    /// The tag of the unit that `run` begins. Those before it have no rows.
    fn begin_unit(&mut self, run: &UnitRun<'_>, counting: &Counting) -> Result<UnitTag> {
        self.close_unit()?;
        while let Some(tag) = self.units.next()? {
            match place(&key_of(&tag)).cmp(&(run.store, run.number)) {
                Ordering::Less => self.add_empty(tag)?,
                Ordering::Equal => {
                    self.open = Some(OpenUnit::new(&tag));
                    return Ok(tag);
                }
                Ordering::Greater => break,
            }
        }
        let unit = counting.column.unit(run.number)?;
        Err(Error::data(format!(
            "rows: unit: must be one of the file's, in order, got {unit} of {}",
            quoted(run.store)
        )))
    }

    fn add_empty(&mut self, tag: UnitTag) -> Result<()> {
        OpenUnit::new(&tag).prove()?;
        self.queue.push_back(Piece { key: key_of(&tag), tag: Some(tag), rows: None });
        Ok(())
    }

    fn close_unit(&mut self) -> Result<()> {
        self.open.take().map_or(Ok(()), OpenUnit::prove)
    }
}

fn place((store, number): &Key) -> (&str, i64) {
    (store.as_str(), *number)
}
