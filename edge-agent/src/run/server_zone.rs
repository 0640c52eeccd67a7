//! The zone of the computer on which a source runs.

use ribera_storage::{ObjectStore, Result};

use crate::agent::Agent;
use crate::ports::step;
use crate::run::session::ExtractionSession;
use crate::source::{Rows, Value};
use crate::sql::{DayOf, ResultSet, Statement};

impl<S: ObjectStore> Agent<S> {
    /// Seconds from UTC to the clock that the till's own programs are shown, if the source tells.
    pub(crate) async fn server_offset(&self, reading: &mut ExtractionSession<'_>) -> Result<Option<i64>> {
        let Some(sql) = reading.context.store.source.dialect().server_offset() else { return Ok(None) };
        let statement =
            Statement { sql: sql.into(), parameters: Vec::new(), result_set: ResultSet::Only, days: Vec::new() };
        let mut server_s = Seconds::default();
        let timeout = reading.timeout();
        self.ports.fail_points.hit(step::SOURCE_QUERY)?;
        let begun_at = self.ports.clock.now();
        let outcome = reading.session.query(&statement, &mut server_s, timeout).await;
        reading.note_query(begun_at, self.ports.clock.now());
        outcome?;
        Ok(server_s.0)
    }

    /// # Errors
    /// Config: the mapping's date makes days of moments, and they are not the store's.
    pub(crate) async fn refuse_days_of_another_zone(&self, reading: &mut ExtractionSession<'_>) -> Result<()> {
        let context = reading.context;
        let dialect = context.store.source.dialect();
        let Some(day) = context.mapping.date.as_deref().and_then(|date| DayOf::of(date, dialect)) else {
            return Ok(());
        };
        let computer_s = if day == DayOf::Computer { self.server_offset(reading).await? } else { None };
        let store_s = context.calendar.time_zone.to_offset(reading.source_now).seconds();
        day.refuse_others(store_s.into(), computer_s, dialect, context.name.as_str())
    }
}

/// A result of one whole number.
#[derive(Default)]
struct Seconds(Option<i64>);

impl Rows for Seconds {
    fn begin(&mut self, _: &[String]) -> Result<()> {
        Ok(())
    }

    fn value(&mut self, _: usize, value: Value<'_>) {
        if let Value::Int(seconds) = value {
            self.0 = Some(seconds);
        }
    }

    fn end_row(&mut self) -> Result<()> {
        Ok(())
    }
}
