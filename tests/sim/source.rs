//! A store's database as the agent reads it: through the agent's own session trait, slow, dropping
//! out, and changing between two queries unless it has snapshots.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use jiff::Timestamp;
use jiff::civil::Date;
use ribera_agent::calendar::days_of;
use ribera_agent::source::{Outcome, Session, Source};
use ribera_agent::source::{Rows as RowsSink, Value};
use ribera_agent::sql::{Dialect, Statement};
use ribera_storage::{Error, ExactDecimal, Result};

use super::cloud::{Cloud, timestamp};
use super::kernel::SECOND;
use super::pos::{Pos, Rows, Sums};
use super::tally::Fault;

/// The two queries of the adapter: this database understands nothing else.
pub const EXTRACT: &str = "extract :from :to";
pub const AUDIT: &str = "audit :from :to";

pub struct SimSource {
    pub cloud: Rc<Cloud>,
    pub pos: Rc<Pos>,
}

impl Source for SimSource {
    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }

    fn describe(&self) -> String {
        format!("simulated {}", self.pos.store)
    }

    fn connect(&self) -> LocalBoxFuture<'_, Result<Box<dyn Session>>> {
        Box::pin(async {
            self.cloud.sim.sleep(self.cloud.sim.chance().between(1_000, 20_000)).await;
            if self.cloud.strikes(Fault::SourceFails, 10_000) {
                return Err(Error::retry("simulated: the database cannot be reached"));
            }
            let (cloud, pos) = (Rc::clone(&self.cloud), Rc::clone(&self.pos));
            let is_restless = cloud.sim.chance().percent(4);
            Ok(Box::new(SimSession { cloud, pos, snapshot: None, is_restless }) as Box<dyn Session>)
        })
    }
}

struct SimSession {
    cloud: Rc<Cloud>,
    pos: Rc<Pos>,
    snapshot: Option<BTreeMap<Date, Rows>>,
    /// Rows move during nearly every query: an audit cannot be had.
    is_restless: bool,
}

impl SimSession {
    fn moves(&self, day: Date) -> bool {
        let rate = if self.is_restless { 700_000 } else { 20_000 };
        self.pos.may_still_change(day) && self.cloud.strikes(Fault::SourceMoves, rate)
    }

    fn rows(&self, day: Date) -> Rows {
        match &self.snapshot {
            Some(snapshot) => snapshot.get(&day).cloned().unwrap_or_default(),
            None => self.pos.rows(day),
        }
    }

    async fn answer(&self, statement: &Statement<'_>, sink: &mut dyn RowsSink, timeout: Duration) -> Result<Outcome> {
        let sim = &self.cloud.sim;
        sim.sleep(sim.chance().between(1_000, 200_000)).await;
        if self.cloud.strikes(Fault::SourceFails, 10_000) {
            return Err(Error::retry("simulated: the database dropped the connection"));
        }
        if self.cloud.strikes(Fault::SourceSlow, 5_000) {
            sim.sleep(i64::try_from(timeout.as_micros()).unwrap_or(SECOND)).await;
            return Ok(Outcome::TimedOut);
        }
        let bad = || Error::bug(format!("simulated: not a query of the adapter: {statement:?}"));
        let day = |index: usize| statement.parameters.get(index).and_then(|text| text.parse::<Date>().ok());
        let (from, to) = (day(0).ok_or_else(bad)?, day(1).ok_or_else(bad)?);
        let days = from.series(jiff::Span::new().days(1)).take_while(|day| *day <= to);
        match statement.sql.split(' ').next() {
            Some("audit") => self.audit(days, sink)?,
            Some("extract") => self.extract(days, sink).await?,
            _ => return Err(bad()),
        }
        if self.moves(to) {
            self.pos.sell(to, false);
        }
        Ok(Outcome::Done)
    }

    fn audit(&self, days: impl Iterator<Item = Date>, sink: &mut dyn RowsSink) -> Result<()> {
        sink.begin(&["day", "rows", "cantidad", "total"].map(str::to_owned))?;
        for day in days {
            let sums = Sums::of(&self.rows(day));
            // A day without rows is absent from a grouped answer.
            if sums.rows > 0 {
                sink.value(0, Value::Date(days_of(day)));
                sink.value(1, Value::UInt(sums.rows));
                sink.value(2, Value::Decimal(ExactDecimal::new(sums.quantity, 3)));
                sink.value(3, Value::Decimal(ExactDecimal::new(sums.total, 2)));
                sink.end_row()?;
            }
        }
        Ok(())
    }

    async fn extract(&self, days: impl Iterator<Item = Date>, sink: &mut dyn RowsSink) -> Result<()> {
        sink.begin(&["fecha", "ticket", "cantidad", "total"].map(str::to_owned))?;
        for day in days {
            let mut rows = self.rows(day);
            if self.snapshot.is_none() && self.moves(day) {
                // A table scan behind which a ticket vanishes and ahead of which another comes: what
                // is read was never there at any one moment.
                self.pos.void_one(day);
                self.pos.sell(day, false);
                rows.extend(self.pos.rows(day));
            }
            for row in rows.values() {
                sink.value(0, Value::Date(days_of(day)));
                sink.value(1, Value::UInt(row.ticket));
                sink.value(2, Value::Decimal(ExactDecimal::new(row.quantity.into(), 3)));
                sink.value(3, Value::Decimal(ExactDecimal::new(row.total.into(), 2)));
                sink.end_row()?;
            }
        }
        Ok(())
    }
}

impl Session for SimSession {
    fn now(&mut self, _zone: &jiff::tz::TimeZone) -> LocalBoxFuture<'_, Result<Timestamp>> {
        Box::pin(async { Ok(timestamp(self.cloud.sim.now() + self.pos.clock_off.get())) })
    }

    fn begin(&mut self) -> LocalBoxFuture<'_, Result<bool>> {
        Box::pin(async {
            if self.pos.has_snapshots {
                self.snapshot = Some(self.pos.snapshot());
            }
            Ok(self.pos.has_snapshots)
        })
    }

    fn end(&mut self) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async {
            self.snapshot = None;
            Ok(())
        })
    }

    fn query<'a>(
        &'a mut self,
        statement: &'a Statement<'a>,
        rows: &'a mut dyn RowsSink,
        timeout: Duration,
    ) -> LocalBoxFuture<'a, Result<Outcome>> {
        Box::pin(self.answer(statement, rows, timeout))
    }
}
