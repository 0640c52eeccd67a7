//! Which row it was. A server that refuses to convert a value says the value at best; the rows of that day, asked for
//! as they are, tell column, row and value.

use ribera_storage::dataset::{DatasetKind, Transform};
use ribera_storage::{Error, ErrorKind, ObjectStore};

use crate::agent::Agent;
use crate::calendar::Days;
use crate::encode::Sink;
use crate::run::extract::{Job, sink_context};
use crate::run::session::{ExtractionSession, in_context};
use crate::sql::Dialect;

impl<S: ObjectStore> Agent<S> {
    /// The error of a question about `days`, with the row that it is about where one can be found.
    pub(crate) async fn named(&self, reading: &ExtractionSession<'_>, days: &Days, error: Error) -> Error {
        if error.kind() != ErrorKind::Data || names_a_row(&error) {
            return in_context(error, reading.context);
        }
        let is_one_unit = days.from == days.to || reading.context.definition.kind != DatasetKind::Daily;
        let found = if is_one_unit { self.refused_row(reading, days).await } else { None };
        found.unwrap_or_else(|| in_context(kept_back(error, reading), reading.context))
    }

    /// By a session of its own: where a server refused something its transaction is over, and so is the connection of
    /// some. What stands in its way changes nothing about the error that there is.
    async fn refused_row(&self, reading: &ExtractionSession<'_>, days: &Days) -> Option<Error> {
        // A procedure may do anything, and has done it once.
        if reading.queries.call_procedures() {
            return None;
        }
        let context = reading.context;
        let rows = sink_context(reading, &Job::of(reading, days), self).ok()?;
        let (mut sink, template) = match context.store.source.dialect() {
            // What they cannot round they leave as it is.
            Dialect::Sqlite | Dialect::Mysql => (Sink::new(rows, None).ok()?, &reading.queries.extract),
            _ => (Sink::unrounded(rows).ok()?, reading.queries.unrounded()),
        };
        let statement = template.bind(days.from, days.to, &context.store.config.id);
        let mut session = context.store.source.connect_for(days.from).await.ok()?;
        let at = reading.clocks_of(days).first().copied().unwrap_or(reading.source_now);
        session.enter_zone(&context.calendar.time_zone, at).await.ok()?;
        let asked = session.query(&statement, &mut sink, reading.timeout()).await;
        asked.err().filter(names_a_row)
    }
}

/// Whether the rows' reader said it, which names dataset, column, row and value.
fn names_a_row(error: &Error) -> bool {
    error.message().starts_with("store ") && error.kind() == ErrorKind::Data
}

/// A server's words may hold any value of the row.
fn kept_back(error: Error, reading: &ExtractionSession<'_>) -> Error {
    let hides = |one: &Transform| matches!(one, Transform::Hash | Transform::Drop);
    let has_hidden = reading.context.definition.columns.iter().any(|column| column.transforms.iter().any(hides));
    // Of the agent's own sum: its columns are never hidden.
    let is_of_server = error.message().starts_with("source: ") && !error.message().contains("audit sum: ");
    if !(has_hidden && is_of_server) {
        return error;
    }
    Error::data(
        "the source refused a value; its words are kept back, for they may hold one of a column with hash or drop \
         (run the mapping's query at the source to see them)",
    )
}
