//! What stands between an agent and its sources in a test: it hears what they are asked, and tells
//! another time than they do. All else passes.

use std::rc::Rc;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use ribera_agent::agent::ServedStore;
use ribera_agent::source::Rows;
use ribera_agent::source::{Outcome, Session, Source};
use ribera_agent::sql::{Dialect, Statement};
use ribera_storage::Result;

use crate::fixture::TestAgent;

pub trait Between {
    /// What the agent hears when its source tells `told`.
    fn now(&self, told: Timestamp) -> Timestamp {
        told
    }

    fn asked(&self, _: &Statement<'_>) {}
}

pub fn stand_between(agent: &mut TestAgent, between: impl Between + 'static) {
    let between: Rc<dyn Between> = Rc::new(between);
    let stores = std::mem::take(&mut agent.stores);
    let passed_on = |store: ServedStore| ServedStore {
        config: store.config,
        source: Box::new(PassedOn { inner: store.source, between: between.clone() }),
    };
    agent.stores = stores.into_iter().map(passed_on).collect();
}

struct PassedOn<T: ?Sized> {
    between: Rc<dyn Between>,
    inner: Box<T>,
}

impl Source for PassedOn<dyn Source> {
    fn dialect(&self) -> Dialect {
        self.inner.dialect()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn connect(&self) -> LocalBoxFuture<'_, Result<Box<dyn Session>>> {
        Box::pin(async {
            let inner = self.inner.connect().await?;
            Ok(Box::new(PassedOn { inner, between: self.between.clone() }) as Box<dyn Session>)
        })
    }
}

impl Session for PassedOn<dyn Session> {
    fn enter_zone<'a>(&'a mut self, zone: &'a TimeZone, at: Timestamp) -> LocalBoxFuture<'a, Result<()>> {
        self.inner.enter_zone(zone, at)
    }

    fn now(&mut self, zone: &TimeZone) -> LocalBoxFuture<'_, Result<Timestamp>> {
        let zone = zone.clone();
        Box::pin(async move { Ok(self.between.now(self.inner.now(&zone).await?)) })
    }

    fn begin(&mut self) -> LocalBoxFuture<'_, Result<bool>> {
        self.inner.begin()
    }

    fn end(&mut self) -> LocalBoxFuture<'_, Result<()>> {
        self.inner.end()
    }

    fn query<'a>(
        &'a mut self,
        statement: &'a Statement<'a>,
        rows: &'a mut dyn Rows,
        timeout: Duration,
    ) -> LocalBoxFuture<'a, Result<Outcome>> {
        self.between.asked(statement);
        self.inner.query(statement, rows, timeout)
    }
}
