//! A dry run asks for a row too: fingerprints name only some of the columns, so that a column that does not exist
//! would be found by the first extraction.

use jiff::civil::Date;
use ribera_storage::{ErrorKind, ObjectStore, Result};

use crate::agent::Agent;
use crate::ports::step;
use crate::run::session::{ExtractionSession, in_context};
use crate::source::{Outcome, Rows, Value};

impl<S: ObjectStore> Agent<S> {
    /// Asks once in a session for one row of `day` by the derived query, and drops it. Queries written by hand are
    /// left alone: they cannot be cut to a row, and a procedure may do anything.
    ///
    /// # Errors
    /// Config: the server does not take the query, for instance for a column that is not there.
    pub(crate) async fn try_one_row(&self, day: Date, reading: &mut ExtractionSession<'_>) -> Result<()> {
        let Some(sample) = reading.queries.sample.clone().filter(|_| !reading.is_tried) else { return Ok(()) };
        reading.is_tried = true;
        self.ports.fail_points.hit(step::SOURCE_QUERY)?;
        let context = reading.context;
        let statement = sample.bind(day, day, &context.store.config.id);
        let timeout = reading.timeout();
        match reading.session.query(&statement, &mut Dropped, timeout).await {
            Ok(Outcome::Done) => Ok(()),
            Ok(Outcome::TimedOut) => self.reconnect(reading).await,
            // A value that the server cannot convert costs its day, which is told when it is sent.
            Err(error) if error.kind() == ErrorKind::Data => self.reconnect(reading).await,
            Err(error) => Err(in_context(error, context)),
        }
    }
}

struct Dropped;

impl Rows for Dropped {
    fn begin(&mut self, _: &[String]) -> Result<()> {
        Ok(())
    }

    fn value(&mut self, _: usize, _: Value<'_>) {}

    fn end_row(&mut self) -> Result<()> {
        Ok(())
    }
}
