//! A real server whose clock is the test's: the only thing that a session does not pass on.

use std::time::Duration;

use futures::future::LocalBoxFuture;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use ribera_agent::agent::ServedStore;
use ribera_agent::source::{Outcome, Session, Source};
use ribera_agent::sql::{Dialect, Statement};
use ribera_agent::value::Rows;
use ribera_storage::Result;
use ribera_storage::ports::Clock;

use crate::fixture::{TestAgent, VirtualClock};

/// Lets the sources of an agent tell the virtual time.
pub fn on_virtual_time(agent: &mut TestAgent, clock: &VirtualClock) {
    let stores = std::mem::take(&mut agent.stores);
    let shifted = |store: ServedStore| ServedStore {
        config: store.config,
        source: Box::new(VirtualSource { inner: store.source, clock: clock.clone() }),
    };
    agent.stores = stores.into_iter().map(shifted).collect();
}

struct VirtualSource {
    inner: Box<dyn Source>,
    clock: VirtualClock,
}

struct VirtualSession {
    inner: Box<dyn Session>,
    clock: VirtualClock,
}

impl Source for VirtualSource {
    fn dialect(&self) -> Dialect {
        self.inner.dialect()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn connect(&self) -> LocalBoxFuture<'_, Result<Box<dyn Session>>> {
        Box::pin(async {
            let inner = self.inner.connect().await?;
            Ok(Box::new(VirtualSession { inner, clock: self.clock.clone() }) as Box<dyn Session>)
        })
    }
}

impl Session for VirtualSession {
    fn now(&mut self, _zone: &TimeZone) -> LocalBoxFuture<'_, Result<Timestamp>> {
        Box::pin(async { Ok(self.clock.now()) })
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
        self.inner.query(statement, rows, timeout)
    }
}
