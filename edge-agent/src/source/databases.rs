//! A store whose days lie in several databases, one per fiscal year: the date picks the database.

use std::rc::Rc;

use futures::future::LocalBoxFuture;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use ribera_storage::ports::Clock;
use ribera_storage::{Error, Result};

use super::{Session, Source};
use crate::calendar::Days;
use crate::config::{Databases, StoreConfig};
use crate::sql::Dialect;

type Open = dyn Fn(&str) -> Box<dyn Source>;

/// Sources that differ in nothing but the database.
pub struct DatabasesSource {
    databases: Databases,
    open: Box<Open>,
    clock: Rc<dyn Clock>,
    zone: TimeZone,
}

impl DatabasesSource {
    /// `open` makes the source of a database; `clock` says which one is today's until a server is asked.
    pub fn new(store: &StoreConfig, databases: Databases, clock: Rc<dyn Clock>, open: Box<Open>) -> Self {
        let zone = store.time_zone.as_deref().and_then(|name| TimeZone::get(name).ok()).unwrap_or(TimeZone::UTC);
        Self { databases, open, clock, zone }
    }

    fn today(&self) -> Date {
        self.clock.now().to_zoned(self.zone.clone()).date()
    }

    fn of(&self, day: Date) -> Result<Box<dyn Source>> {
        let name = self.databases.of(day).ok_or_else(|| {
            Error::config(format!("store.databases: must say which database holds {day}, got none"))
                .with_hint("ribera-agent config check")
        })?;
        Ok((self.open)(&name))
    }
}

impl Source for DatabasesSource {
    fn dialect(&self) -> Dialect {
        (self.open)("").dialect()
    }

    fn describe(&self) -> String {
        self.describe_for(self.today())
    }

    fn describe_for(&self, day: Date) -> String {
        self.of(day).map_or_else(|error| error.message().to_owned(), |source| source.describe())
    }

    fn connect(&self) -> LocalBoxFuture<'_, Result<Box<dyn Session>>> {
        self.connect_for(self.today())
    }

    fn span(&self, day: Date) -> Days {
        self.databases.span(day)
    }

    fn connect_for(&self, day: Date) -> LocalBoxFuture<'_, Result<Box<dyn Session>>> {
        Box::pin(async move {
            let source = self.of(day)?;
            source.connect().await.map_err(|error| error.context(format_args!("the database of {day}")))
        })
    }
}

/// The days in pieces that lie in one database each, in order.
pub fn pieces(source: &dyn Source, days: &Days) -> Vec<Days> {
    let mut pieces = Vec::new();
    let mut from = days.from;
    while from <= days.to {
        let to = source.span(from).to.min(days.to);
        pieces.push(Days { from, to });
        match to.tomorrow() {
            Ok(next) => from = next,
            Err(_) => break,
        }
    }
    pieces
}

/// A session for asking the time, and the days that its database holds. The database of a year that
/// has just begun may not be there yet: the one before tells the time as well.
pub async fn connect_for_clock(source: &dyn Source, day: Date) -> Result<(Box<dyn Session>, Days)> {
    let span = source.span(day);
    let error = match source.connect_for(day).await {
        Ok(session) => return Ok((session, span)),
        Err(error) => error,
    };
    let Some(before) = span.from.yesterday().ok().filter(|_| span.from > Date::MIN) else { return Err(error) };
    match source.connect_for(before).await {
        Ok(session) => Ok((session, source.span(before))),
        Err(_) => Err(error),
    }
}
