//! The thread of a connection: the driver blocks, the agent does not.

use std::collections::HashMap;
use std::sync::Arc;

use ribera_storage::{Error, Result};
use rsfbclient_core::{
    Charset, Dialect, FbError, FirebirdClientDbOps, FirebirdClientSqlOps, FreeStmtOp, SqlType, TrDataAccessMode,
    TrIsolationLevel, TrLockResolution, TrOp, TransactionConfiguration,
};
use rsfbclient_rust::{DbHandle, RawValue, RustFbClient, TrHandle};
use tokio::sync::{mpsc, oneshot};

use super::charset::{self, Wire};
use super::describe::{self, Coarse, Column, Described};
use super::errors::{connect_error, query_error};
use super::target::{Attachment, Target};
use super::tcp_proxy::Relay;

/// Rows handed over at once: what the driver asks the server for in one go.
const BATCH_ROWS: usize = 200;

type Statement = <RustFbClient as FirebirdClientSqlOps>::StmtHandle;
type Driver<T> = std::result::Result<T, FbError>;

/// The events of a query, in order: columns, rows, then done or failed.
pub enum Event {
    Columns(Arc<[Column]>),
    /// Whole rows, one behind the other.
    Rows(Vec<RawValue>),
    Done,
    Failed(Error),
}

pub enum Command {
    Begin(oneshot::Sender<Result<()>>),
    End(oneshot::Sender<Result<()>>),
    /// The first row of a statement of ours.
    Row(&'static str, oneshot::Sender<Result<Vec<SqlType>>>),
    Query {
        sql: String,
        parameters: Vec<String>,
        events: mpsc::Sender<Event>,
    },
}

/// A connection. When it goes, its thread detaches and ends.
pub struct Link {
    pub commands: mpsc::Sender<Command>,
    relay: Option<Relay>,
}

impl Link {
    pub async fn open(target: &Target) -> Result<Self> {
        let opened = match Self::attempt(target, false).await {
            // What a server says that does not encrypt.
            Err(FbError::Sql { msg, .. }) if msg.contains("unavailable database") => Self::attempt(target, true).await,
            opened => opened,
        };
        opened.map_err(|error| connect_error(&target.describe(), error))
    }

    /// Starts the thread and waits until it is logged in.
    async fn attempt(target: &Target, plain: bool) -> Driver<Self> {
        let relay = Relay::open(target.host(), target.port(), plain).await?;
        let (commands, received) = mpsc::channel(1);
        let (ready, opened) = oneshot::channel();
        let (attachment, charset) = (target.attachment(relay.port), target.charset.clone());
        let worker = move || match Worker::open(&attachment, charset) {
            Ok(worker) => {
                if ready.send(Ok(())).is_ok() {
                    worker.run(received);
                }
            }
            Err(error) => drop(ready.send(Err(error))),
        };
        std::thread::Builder::new().name("firebird".to_owned()).spawn(worker)?;
        opened.await.map_err(|_| FbError::from("the connection was ended"))??;
        Ok(Self { commands, relay: Some(relay) })
    }

    /// Ends the connection at once, and with it what the server does for it.
    pub fn cut(mut self) {
        drop(self.relay.take());
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(relay) = self.relay.take() {
            relay.release();
        }
    }
}

pub fn ended() -> Error {
    Error::retry("source: firebird: the connection was ended")
}

/// Why a query ended before its last row.
enum Stop {
    Failed(FbError),
    /// Nobody waits for its rows any more.
    Unwanted,
}

impl From<FbError> for Stop {
    fn from(error: FbError) -> Self {
        Self::Failed(error)
    }
}

struct Worker {
    client: RustFbClient,
    database: DbHandle,
    transaction: Option<TrHandle>,
    wire: Wire,
    known: HashMap<String, Arc<Described>>,
}

impl Worker {
    fn open(attachment: &Attachment, charset: Charset) -> Driver<Self> {
        let wire = Wire::new(charset);
        let mut client = RustFbClient::new(wire.drivers());
        let database = client.attach_database(attachment, Dialect::D3, false)?;
        Ok(Self { client, database, transaction: None, wire, known: HashMap::new() })
    }

    fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        while let Some(command) = commands.blocking_recv() {
            match command {
                Command::Begin(reply) => {
                    let _ = reply.send(self.begin().map_err(|error| query_error("SET TRANSACTION", error)));
                }
                Command::End(reply) => {
                    let _ = reply.send(self.end().map_err(|error| query_error("ROLLBACK", error)));
                }
                Command::Row(sql, reply) => {
                    let row = self.within(|worker, transaction| worker.row(transaction, sql, &[]));
                    let values = row.and_then(|row| row.into_iter().map(|one| self.wire.value(one.value)).collect());
                    let _ = reply.send(values.map_err(|error| query_error(sql, error)));
                }
                Command::Query { sql, parameters, events } => {
                    let streamed =
                        self.within(|worker, transaction| worker.stream(transaction, &sql, &parameters, &events));
                    let last = match streamed {
                        Ok(()) => Event::Done,
                        Err(Stop::Failed(error)) => Event::Failed(query_error(&sql, error)),
                        // Rows of the query are still on their way: nothing else can be asked.
                        Err(Stop::Unwanted) => return,
                    };
                    let _ = events.blocking_send(last);
                }
            }
        }
        let _ = self.end();
        let _ = self.client.detach_database(&mut self.database);
    }

    /// A read-only transaction that sees the database as it is now.
    fn begin(&mut self) -> Driver<()> {
        let configuration = TransactionConfiguration {
            data_access: TrDataAccessMode::ReadOnly,
            isolation: TrIsolationLevel::Concurrency,
            lock_resolution: TrLockResolution::NoWait,
        };
        self.end()?;
        self.transaction = Some(self.client.begin_transaction(&mut self.database, configuration)?);
        Ok(())
    }

    fn end(&mut self) -> Driver<()> {
        match self.transaction.take() {
            Some(mut transaction) => self.client.transaction_operation(&mut transaction, TrOp::Rollback),
            None => Ok(()),
        }
    }

    /// Within the transaction begun, or one of its own.
    fn within<T, E: From<FbError>>(&mut self, work: impl FnOnce(&mut Self, TrHandle) -> Result<T, E>) -> Result<T, E> {
        match self.transaction {
            Some(transaction) => work(self, transaction),
            None => {
                self.begin()?;
                let transaction = self.transaction.ok_or_else(|| FbError::from("no transaction"))?;
                let done = work(self, transaction);
                let ended = self.end();
                let done = done?;
                ended?;
                Ok(done)
            }
        }
    }

    fn open_statement(&mut self, mut transaction: TrHandle, sql: &str, parameters: &[String]) -> Driver<Statement> {
        let sql = self.wire.sent(sql)?;
        let parameters = parameters.iter().map(|text| self.wire.sent(text).map(SqlType::Text));
        let parameters = parameters.collect::<Driver<Vec<SqlType>>>()?;
        let (_, mut statement) =
            self.client.prepare_statement(&mut self.database, &mut transaction, Dialect::D3, &sql)?;
        match self.client.execute(&mut self.database, &mut transaction, &mut statement, parameters) {
            Ok(_) => Ok(statement),
            Err(error) => {
                let _ = self.client.free_statement(&mut statement, FreeStmtOp::Drop);
                Err(error)
            }
        }
    }

    /// The first row; none at all when there is no row.
    fn row(
        &mut self,
        mut transaction: TrHandle,
        sql: &str,
        parameters: &[String],
    ) -> Driver<Vec<rsfbclient_core::Column>> {
        let mut statement = self.open_statement(transaction, sql, parameters)?;
        let row = self.client.fetch(&mut self.database, &mut transaction, &mut statement);
        self.client.free_statement(&mut statement, FreeStmtOp::Drop)?;
        Ok(row?.unwrap_or_default())
    }

    fn described(&mut self, transaction: TrHandle, sql: &str, parameters: &[String]) -> Driver<Arc<Described>> {
        if let Some(known) = self.known.get(sql) {
            return Ok(known.clone());
        }
        let row = self.row(transaction, &describe::names_sql(sql), parameters)?;
        let columns: Vec<Coarse> =
            row.into_iter().map(|column| Coarse { name: column.name.to_string(), raw_type: column.raw_type }).collect();
        let answers = match describe::questions_sql(sql, &columns) {
            Some(questions) => self.row(transaction, &questions, parameters)?,
            None => Vec::new(),
        };
        let answers: Vec<i64> = answers
            .iter()
            .map(|column| match column.value {
                SqlType::Integer(answer) => answer,
                _ => -1,
            })
            .collect();
        let described = Arc::new(describe::described(sql, &columns, &answers));
        self.known.insert(sql.to_owned(), described.clone());
        Ok(described)
    }

    fn stream(
        &mut self,
        transaction: TrHandle,
        sql: &str,
        parameters: &[String],
        events: &mpsc::Sender<Event>,
    ) -> Result<(), Stop> {
        let described = self.described(transaction, sql, parameters)?;
        let mut statement = self.open_statement(transaction, &described.sql, parameters)?;
        let columns = described.columns.clone();
        let mut batch = Batch { values: Vec::new(), length: columns.len() * BATCH_ROWS, events, wanted: true };
        batch.send(Event::Columns(columns))?;
        let streamed = match statement.has_blob() {
            true => self.fetch(transaction, &mut statement, &mut batch),
            false => self.client.stream_raw(&mut statement, |row| batch.add(row.iter().cloned())),
        };
        if !batch.wanted {
            return Err(Stop::Unwanted);
        }
        let freed = self.client.free_statement(&mut statement, FreeStmtOp::Drop);
        streamed.and(freed)?;
        let rest = std::mem::take(&mut batch.values);
        Ok(batch.send(Event::Rows(rest))?)
    }

    /// Rows with blobs, which the driver fetches one by one.
    fn fetch(&mut self, mut transaction: TrHandle, statement: &mut Statement, batch: &mut Batch<'_>) -> Driver<()> {
        while let Some(row) = self.client.fetch(&mut self.database, &mut transaction, statement)? {
            batch.add(row.into_iter().map(|column| charset::raw(column.value)))?;
        }
        Ok(())
    }
}

/// Rows on their way to the agent.
struct Batch<'a> {
    values: Vec<RawValue>,
    /// Values that are sent at once.
    length: usize,
    events: &'a mpsc::Sender<Event>,
    wanted: bool,
}

impl Batch<'_> {
    fn add(&mut self, row: impl Iterator<Item = RawValue>) -> Driver<()> {
        self.values.extend(row);
        if self.values.len() < self.length {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.values, Vec::with_capacity(self.length));
        self.send(Event::Rows(full))
    }

    fn send(&mut self, event: Event) -> Driver<()> {
        self.events.blocking_send(event).map_err(|_| {
            self.wanted = false;
            FbError::from("nobody waits for the rows")
        })
    }
}
