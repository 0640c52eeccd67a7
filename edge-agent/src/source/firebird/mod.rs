//! Firebird 3 over its wire protocol. Each session has a thread, for the driver blocks; rows come
//! from there as the driver's own values, a batch at a time.

use std::sync::Arc;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use ribera_storage::{Error, Result};
use rsfbclient_core::{Charset, SqlType};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::{Outcome, Session, Source};
use crate::calendar::Zone;
use crate::config::FirebirdConfig;
use crate::source::Rows;
use crate::sql::{Dialect, Statement};

mod charset;
mod connection_thread;
mod describe;
mod errors;
mod handshake;
mod target;
mod tcp_proxy;
mod values;

use connection_thread::{Command, Event, Link};
use describe::Column;
pub use target::PORT;
use target::Target;
use values::hand_over;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// For what is no query of the operator's: the beginning of a transaction, the clock.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);
/// Batches that wait while one is being read.
const BATCHES: usize = 2;

pub struct FirebirdSource {
    target: Target,
}

impl FirebirdSource {
    pub fn new(config: FirebirdConfig) -> Self {
        Self { target: Target::new(config) }
    }
}

impl Source for FirebirdSource {
    fn dialect(&self) -> Dialect {
        Dialect::Firebird
    }

    fn describe(&self) -> String {
        self.target.describe()
    }

    fn connect(&self) -> LocalBoxFuture<'_, Result<Box<dyn Session>>> {
        Box::pin(async move {
            let opened = timeout(CONNECT_TIMEOUT, Link::open(&self.target)).await.map_err(|_| {
                let seconds = CONNECT_TIMEOUT.as_secs();
                Error::retry(format!("source: {}: no answer within {seconds} s", self.describe()))
                    .with_hint("ribera-agent check")
            });
            let session = FirebirdSession { charset: self.target.charset.clone(), link: Some(opened??) };
            Ok(Box::new(session) as Box<dyn Session>)
        })
    }
}

struct FirebirdSession {
    charset: Charset,
    /// Gone after a query that was ended half-way.
    link: Option<Link>,
}

impl FirebirdSession {
    async fn send(&mut self, command: Command) -> Result<()> {
        let link = self.link.as_ref().ok_or_else(connection_thread::ended)?;
        link.commands.send(command).await.map_err(|_| connection_thread::ended())
    }

    async fn ask<T>(&mut self, command: impl FnOnce(oneshot::Sender<Result<T>>) -> Command) -> Result<T> {
        let (reply, replied) = oneshot::channel();
        self.send(command(reply)).await?;
        match timeout(REPLY_TIMEOUT, replied).await {
            Ok(reply) => reply.map_err(|_| connection_thread::ended())?,
            Err(_) => {
                self.cut();
                Err(connection_thread::ended())
            }
        }
    }

    fn cut(&mut self) {
        if let Some(link) = self.link.take() {
            link.cut();
        }
    }

    async fn receive(&mut self, mut events: mpsc::Receiver<Event>, rows: &mut dyn Rows, deadline: Instant) -> Received {
        let mut columns: Arc<[Column]> = Arc::new([]);
        loop {
            let taken = match timeout_at(deadline, events.recv()).await {
                Err(_) => return Received::Late,
                Ok(None) => return Received::Lost(connection_thread::ended()),
                Ok(Some(Event::Done)) => return Received::All,
                Ok(Some(Event::Failed(error))) => return Received::Failed(error),
                Ok(Some(Event::Columns(these))) => {
                    columns = these;
                    let names: Vec<String> = columns.iter().map(|column| describe::folded(&column.name)).collect();
                    rows.begin(&names)
                }
                Ok(Some(Event::Rows(batch))) => hand_over(&batch, &columns, &self.charset, rows),
            };
            if let Err(error) = taken {
                return Received::Lost(error);
            }
        }
    }
}

enum Received {
    All,
    Late,
    /// The connection is of further use.
    Failed(Error),
    /// It is not.
    Lost(Error),
}

impl Session for FirebirdSession {
    fn now(&mut self, zone: &TimeZone) -> LocalBoxFuture<'_, Result<Timestamp>> {
        let zone = Zone::new(zone.clone());
        Box::pin(async move {
            // Firebird 3 knows no zone: its clock is the wall's, as the rows' moments are.
            const SQL: &str = "SELECT CURRENT_TIMESTAMP AS T FROM RDB$DATABASE";
            let row = self.ask(|reply| Command::Row(SQL, reply)).await?;
            let local = match row.first() {
                Some(SqlType::Timestamp(moment)) => Some(moment.and_utc().timestamp_micros()),
                _ => None,
            };
            let micros = local.and_then(|local| zone.to_utc(local));
            micros
                .and_then(|micros| Timestamp::from_microsecond(micros).ok())
                .ok_or_else(|| Error::data(format!("source: firebird: its clock shows {row:?}")))
        })
    }

    fn begin(&mut self) -> LocalBoxFuture<'_, Result<bool>> {
        Box::pin(async {
            self.ask(Command::Begin).await?;
            Ok(true)
        })
    }

    fn end(&mut self) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async { if self.link.is_some() { self.ask(Command::End).await } else { Ok(()) } })
    }

    fn query<'a>(
        &'a mut self,
        statement: &'a Statement<'a>,
        rows: &'a mut dyn Rows,
        timeout: Duration,
    ) -> LocalBoxFuture<'a, Result<Outcome>> {
        Box::pin(async move {
            let deadline = Instant::now() + timeout;
            let (sender, events) = mpsc::channel(BATCHES);
            let (sql, parameters) = (statement.sql.to_string(), statement.parameters.clone());
            self.send(Command::Query { sql, parameters, events: sender }).await?;
            match self.receive(events, rows, deadline).await {
                Received::All => Ok(Outcome::Done),
                Received::Late => {
                    // There is no time limit for statements at the server; it ends this one because
                    // nobody is connected any more.
                    self.cut();
                    Ok(Outcome::TimedOut)
                }
                Received::Failed(error) => Err(error),
                Received::Lost(error) => {
                    self.cut();
                    Err(error)
                }
            }
        })
    }

    fn write_rights(&mut self) -> LocalBoxFuture<'_, Result<Option<String>>> {
        Box::pin(async {
            // What the user, its role or everyone was granted on tables; the owner has it all.
            const SQL: &str = "
                SELECT CASE
                    WHEN CURRENT_USER = 'SYSDBA' OR CURRENT_ROLE = 'RDB$ADMIN' THEN 'administrator'
                    ELSE (
                        SELECT FIRST 1 DECODE(p.RDB$PRIVILEGE, 'I', 'INSERT', 'U', 'UPDATE', 'D', 'DELETE', 'ALL')
                            || ' on ' || TRIM(p.RDB$RELATION_NAME)
                        FROM RDB$USER_PRIVILEGES p
                        JOIN RDB$RELATIONS r ON r.RDB$RELATION_NAME = p.RDB$RELATION_NAME
                        WHERE p.RDB$USER IN (CURRENT_USER, CURRENT_ROLE, 'PUBLIC')
                            AND p.RDB$PRIVILEGE IN ('I', 'U', 'D', 'A')
                            AND COALESCE(r.RDB$SYSTEM_FLAG, 0) = 0
                        ORDER BY p.RDB$RELATION_NAME, p.RDB$PRIVILEGE)
                    END AS RIGHTS
                FROM RDB$DATABASE";
            let row = self.ask(|reply| Command::Row(SQL, reply)).await?;
            Ok(match row.into_iter().next() {
                Some(SqlType::Text(rights)) => Some(rights.trim_end().to_owned()),
                _ => None,
            })
        })
    }
}
