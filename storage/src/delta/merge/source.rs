//! A file that is being merged, read run by run.

use std::collections::VecDeque;

use arrow_array::RecordBatch;

use crate::delta::units::column::UnitColumn;
use crate::error::Result;

/// Store and number of a unit.
pub(super) type Key = (String, i64);

/// The rows of a file, one run of one unit after the other. The file is in order of units.
pub(super) struct Source<I> {
    /// Its place in the group.
    pub index: usize,
    batches: I,
    column: UnitColumn,
    queue: VecDeque<(Key, RecordBatch)>,
}

impl<I: Iterator<Item = Result<RecordBatch>>> Source<I> {
    pub(super) fn open(index: usize, batches: I, column: UnitColumn) -> Result<Self> {
        let mut source = Self { index, batches, column, queue: VecDeque::new() };
        source.fill()?;
        Ok(source)
    }

    /// The unit of the next run; `None` when there are no more.
    pub(super) fn key(&self) -> Option<&Key> {
        self.queue.front().map(|(key, _)| key)
    }

    pub(super) fn take(&mut self) -> Result<Option<RecordBatch>> {
        let taken = self.queue.pop_front();
        self.fill()?;
        Ok(taken.map(|(_, rows)| rows))
    }

    fn fill(&mut self) -> Result<()> {
        while self.queue.is_empty() {
            let Some(batch) = self.batches.next() else { return Ok(()) };
            let batch = batch?;
            for run in self.column.runs(&batch)? {
                let rows = batch.slice(run.rows.start, run.rows.len());
                self.queue.push_back(((run.store.to_owned(), run.number), rows));
            }
        }
        Ok(())
    }
}
