//! SQL Server over TDS. Rows are read one by one from the connection; days go to the server as
//! dates, not as text that it would read by its language.

use std::time::Duration;

use futures::TryStreamExt;
use futures::future::LocalBoxFuture;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use ribera_storage::{Error, Result};
use tiberius::{ColumnData, QueryItem, ToSql};
use tokio::time::timeout;

use super::result_sets::ResultSets;
use super::{Outcome, Session, Source};
use crate::calendar::days_of;
use crate::config::SqlServerConfig;
use crate::source::Rows;
use crate::sql::{Dialect, Statement};

mod connect;
mod describe;
mod errors;
mod instance;
mod values;

pub use instance::{PORT, port_of};

use connect::Link;
use describe::Describer;
use errors::query_error;
use values::Reader;

/// For what is no query of the operator's: the beginning of a transaction, the clock.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the server may take to say that it ended a query.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(3);

/// What the till's own program may have set otherwise. An overflow is an error and never NULL, long
/// text comes whole, if two block each other the till goes on, and an error ends no transaction that others go on in.
const SETTINGS: &str = "SET ANSI_NULLS ON; SET ANSI_PADDING ON; SET ANSI_WARNINGS ON; SET ARITHABORT ON; \
     SET CONCAT_NULL_YIELDS_NULL ON; SET QUOTED_IDENTIFIER ON; SET NUMERIC_ROUNDABORT OFF; SET NOCOUNT ON; \
     SET TEXTSIZE 2147483647; SET DEADLOCK_PRIORITY LOW; SET XACT_ABORT OFF;";

pub struct SqlServerSource {
    config: SqlServerConfig,
}

impl SqlServerSource {
    pub fn new(config: SqlServerConfig) -> Self {
        Self { config }
    }
}

impl Source for SqlServerSource {
    fn dialect(&self) -> Dialect {
        Dialect::SqlServer
    }

    fn describe(&self) -> String {
        connect::describe(&self.config)
    }

    fn connect(&self) -> LocalBoxFuture<'_, Result<Box<dyn Session>>> {
        Box::pin(async move {
            let link = connect::open(&self.config).await?;
            let mut session =
                SqlServerSession { link: Some(link), in_transaction: false, describer: Describer::default() };
            session.execute(SETTINGS).await?;
            Ok(Box::new(session) as Box<dyn Session>)
        })
    }
}

struct SqlServerSession {
    /// Gone after a query that failed or was ended half-way: what the server still sends is of no use.
    link: Option<Link>,
    in_transaction: bool,
    describer: Describer,
}

impl SqlServerSession {
    fn link(&mut self) -> Result<&mut Link> {
        self.link.as_mut().ok_or_else(ended)
    }

    /// Statements of ours, as a batch: settings last beyond it.
    async fn execute(&mut self, sql: &'static str) -> Result<()> {
        self.ask(sql).await.map(drop)
    }

    /// The first value of the first row.
    async fn ask(&mut self, sql: &'static str) -> Result<Option<ColumnData<'static>>> {
        let link = self.link()?;
        let asked = timeout(REPLY_TIMEOUT, async { link.simple_query(sql).await?.into_first_result().await });
        match asked.await {
            Ok(Ok(rows)) => Ok(rows.into_iter().next().and_then(|row| row.into_iter().next())),
            Ok(Err(error)) => Err(query_error(sql, &error)),
            Err(_) => {
                self.link = None;
                Err(silent(sql))
            }
        }
    }

    /// Notices a transaction that the server ended by itself, at an error or because a statement did so.
    async fn look_at_transaction(&mut self) -> Result<()> {
        if self.in_transaction {
            let open = self.ask("SELECT @@TRANCOUNT").await?;
            self.in_transaction = !matches!(open, Some(ColumnData::I32(Some(0))));
        }
        Ok(())
    }

    /// Tells the server to end the query, and leaves the connection either way.
    async fn cancel(&mut self) {
        if let Some(mut link) = self.link.take() {
            let _ = timeout(CANCEL_TIMEOUT, link.cancel_query()).await;
        }
    }
}

impl Session for SqlServerSession {
    fn now(&mut self, _zone: &TimeZone) -> LocalBoxFuture<'_, Result<Timestamp>> {
        Box::pin(async {
            let now = self.ask("SELECT SYSUTCDATETIME()").await?;
            now.as_ref()
                .and_then(values::micros)
                .and_then(|micros| Timestamp::from_microsecond(micros).ok())
                .ok_or_else(|| Error::data(format!("source: sqlserver: its clock shows {now:?}")))
        })
    }

    fn prepare<'a>(&'a mut self, statements: &'a [Statement<'a>]) -> LocalBoxFuture<'a, Result<()>> {
        Box::pin(async move {
            for statement in statements {
                let Self { link, describer, .. } = self;
                let link = link.as_mut().ok_or_else(ended)?;
                match timeout(REPLY_TIMEOUT, describer.check(link, statement)).await {
                    Ok(checked) => checked?,
                    Err(_) => {
                        self.link = None;
                        return Err(silent(describe::SQL));
                    }
                }
            }
            Ok(())
        })
    }

    fn is_transaction_open(&self) -> bool {
        self.in_transaction
    }

    fn begin(&mut self) -> LocalBoxFuture<'_, Result<bool>> {
        Box::pin(async {
            // Without it readers and writers wait for each other's rows, and a query's rows are of
            // many moments: then no transaction is begun, which would only make the till wait longer.
            const ALLOWED: &str = "SELECT snapshot_isolation_state FROM sys.databases WHERE database_id = DB_ID()";
            if !matches!(self.ask(ALLOWED).await?, Some(ColumnData::U8(Some(1)))) {
                return Ok(false);
            }
            self.execute("SET TRANSACTION ISOLATION LEVEL SNAPSHOT").await?;
            self.execute("BEGIN TRANSACTION").await?;
            self.in_transaction = true;
            Ok(true)
        })
    }

    fn end(&mut self) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async {
            if std::mem::take(&mut self.in_transaction) && self.link.is_some() {
                self.execute("IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION").await?;
            }
            Ok(())
        })
    }

    fn query<'a>(
        &'a mut self,
        statement: &'a Statement<'a>,
        rows: &'a mut dyn Rows,
        limit: Duration,
    ) -> LocalBoxFuture<'a, Result<Outcome>> {
        Box::pin(async move {
            let Self { link, describer, .. } = self;
            let link = link.as_mut().ok_or_else(ended)?;
            let done = timeout(limit, async {
                describer.check(link, statement).await?;
                run(link, statement, rows).await
            });
            match done.await {
                Ok(Ok(())) => {
                    self.look_at_transaction().await?;
                    Ok(Outcome::Done)
                }
                Ok(Err(error)) => {
                    self.link = None;
                    Err(error)
                }
                Err(_) => {
                    self.cancel().await;
                    Ok(Outcome::TimedOut)
                }
            }
        })
    }

    fn write_rights(&mut self) -> LocalBoxFuture<'_, Result<Option<String>>> {
        Box::pin(async {
            // Rights on the whole database, as db_datawriter gives them, or on one table.
            const SQL: &str = "
                SELECT CASE WHEN IS_SRVROLEMEMBER(N'sysadmin') = 1 THEN N'sysadmin'
                    WHEN HAS_PERMS_BY_NAME(DB_NAME(), N'DATABASE', N'CONTROL') = 1 THEN N'CONTROL on the database'
                    WHEN HAS_PERMS_BY_NAME(DB_NAME(), N'DATABASE', N'INSERT') = 1 THEN N'INSERT on the database'
                    WHEN HAS_PERMS_BY_NAME(DB_NAME(), N'DATABASE', N'UPDATE') = 1 THEN N'UPDATE on the database'
                    WHEN HAS_PERMS_BY_NAME(DB_NAME(), N'DATABASE', N'DELETE') = 1 THEN N'DELETE on the database'
                    ELSE (
                        SELECT TOP (1) held.name + N' on ' + s.name + N'.' + t.name
                        FROM sys.tables AS t JOIN sys.schemas AS s ON s.schema_id = t.schema_id
                        CROSS JOIN (SELECT N'INSERT' AS name UNION ALL SELECT N'UPDATE' UNION ALL SELECT N'DELETE') AS held
                        WHERE HAS_PERMS_BY_NAME(QUOTENAME(s.name) + N'.' + QUOTENAME(t.name), N'OBJECT', held.name) = 1
                        ORDER BY s.name, t.name, held.name)
                    END AS rights";
            Ok(match self.ask(SQL).await? {
                Some(ColumnData::String(Some(rights))) => Some(rights.into_owned()),
                _ => None,
            })
        })
    }
}

fn silent(sql: &str) -> Error {
    let seconds = REPLY_TIMEOUT.as_secs();
    Error::retry(format!("source: sqlserver: no answer within {seconds} s: {}", errors::shown(sql)))
}

fn ended() -> Error {
    Error::retry("source: sqlserver: the connection was ended")
}

/// Hands over the rows; of a procedure with several results those of the one that holds them.
async fn run(link: &mut Link, statement: &Statement<'_>, rows: &mut dyn Rows) -> Result<()> {
    let bound = bound(statement);
    let bound: Vec<&dyn ToSql> = bound.iter().map(|one| one as &dyn ToSql).collect();
    let failed = |error: tiberius::error::Error| query_error(&statement.sql, &error);
    let mut found = link.query(&*statement.sql, &bound).await.map_err(failed)?;
    let mut sets = ResultSets::new(rows, statement.result_set);
    let mut reader = Reader::default();
    loop {
        match found.try_next().await {
            Ok(Some(QueryItem::Metadata(metadata))) => {
                let names: Vec<String> = metadata.columns().iter().map(|column| column.name().to_owned()).collect();
                sets.begin(&names)?;
                reader = if sets.wants() { Reader::of(metadata.columns(), names)? } else { Reader::default() };
            }
            Ok(Some(QueryItem::Row(row))) if sets.wants() => reader.hand_over(&row, &mut sets)?,
            Ok(Some(QueryItem::Row(_))) => {}
            Ok(None) => return sets.finish(),
            Err(error) if errors::is_of_letters(&error) => return Err(reader.unreadable(&failed(error))),
            Err(error) => return Err(failed(error)),
        }
    }
}

/// The parameters with their types: a day is a date, whatever the login's language and date format.
fn bound<'a>(statement: &'a Statement<'_>) -> Vec<Bound<'a>> {
    let values = statement.parameters.iter().zip(&statement.days);
    values.map(|(text, day)| day.map_or(Bound::Text(text), |day| Bound::Day(days_of(day)))).collect()
}

enum Bound<'a> {
    /// Days since 1970-01-01.
    Day(i32),
    Text(&'a str),
}

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> ColumnData<'_> {
        match self {
            Self::Text(text) => ColumnData::String(Some((*text).into())),
            Self::Day(days) => ColumnData::Date(values::date(*days)),
        }
    }
}
