//! The thread of a connection: the driver blocks, the agent does not.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use ribera_storage::{Error, Result};
use rsfbclient_core::{
    Dialect, FbError, FirebirdClientDbOps, FirebirdClientSqlOps, FreeStmtOp, SqlType, TrDataAccessMode,
    TrIsolationLevel, TrLockResolution, TrOp, TransactionConfiguration,
};
use rsfbclient_rust::{DbHandle, RawValue, RustFbClient, TrHandle};
use tokio::sync::{mpsc, oneshot};

use super::describe::{self, Coarse, Column, Described};
use super::errors::{connect_error, query_error};
use super::target::Target;

/// Rows handed over at once: what the driver asks the server for in one go.
const BATCH_ROWS: usize = 200;

type Statement = <RustFbClient as FirebirdClientSqlOps>::StmtHandle;
type Driver<T> = std::result::Result<T, FbError>;

/// The events of a query, in order: columns, rows, then done or failed.
pub enum Event {
    Columns {
        columns: Arc<[Column]>,
        /// Text is UTF-8 already.
        decoded: bool,
    },
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
    /// What the server calls the connection.
    pub attachment: i64,
}

impl Link {
    /// Starts the thread and waits until it is logged in.
    pub async fn open(target: Target) -> Result<Self> {
        let (commands, received) = mpsc::channel(1);
        let (ready, opened) = oneshot::channel();
        spawn(move || match Worker::open(target) {
            Ok((worker, attachment)) => {
                if ready.send(Ok(attachment)).is_ok() {
                    worker.run(received);
                }
            }
            Err(error) => drop(ready.send(Err(error))),
        })?;
        let attachment = opened.await.map_err(|_| ended())??;
        Ok(Self { commands, attachment })
    }
}

/// Ends the attachment of another connection, and with it whatever the server runs for it.
pub async fn end_attachment(target: Target, attachment: i64) -> Result<()> {
    let (done, ended_there) = oneshot::channel();
    spawn(move || {
        let ended = Worker::open(target).and_then(|(mut worker, _)| worker.end_attachment(attachment));
        let _ = done.send(ended);
    })?;
    ended_there.await.map_err(|_| ended())?
}

pub fn ended() -> Error {
    Error::retry("source: firebird: the connection was ended")
}

fn spawn(work: impl FnOnce() + Send + 'static) -> Result<()> {
    let started = std::thread::Builder::new().name("firebird".to_owned()).spawn(work);
    started.map(drop).map_err(|error| Error::retry("source: firebird: no thread").with_source(error))
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
    utf8: bool,
    known: HashMap<String, Arc<Described>>,
}

impl Worker {
    fn open(target: Target) -> Result<(Self, i64)> {
        let place = target.describe();
        let utf8 = target.charset.on_rust.is_none();
        let mut client = RustFbClient::new(target.charset.clone());
        let database = client
            .attach_database(&target.attachment(), Dialect::D3, false)
            .map_err(|error| connect_error(&place, error))?;
        let mut worker = Self { client, database, transaction: None, utf8, known: HashMap::new() };
        const SQL: &str = "SELECT CURRENT_CONNECTION AS C FROM RDB$DATABASE";
        let row = worker.within(|worker, transaction| worker.row(transaction, SQL, &[]));
        match row.map_err(|error| connect_error(&place, error))?.first().map(|column| &column.value) {
            Some(SqlType::Integer(attachment)) => Ok((worker, *attachment)),
            other => Err(Error::bug(format!("source: firebird: CURRENT_CONNECTION is {other:?}"))),
        }
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
                    let values = row.map(|row| row.into_iter().map(|column| column.value).collect());
                    let _ = reply.send(values.map_err(|error| query_error(sql, error)));
                }
                Command::Query { sql, parameters, events } => {
                    let streamed = self.within(|worker, transaction| {
                        worker.stream(transaction, &sql, &parameters, &events)
                    });
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
        let (_, mut statement) =
            self.client.prepare_statement(&mut self.database, &mut transaction, Dialect::D3, sql)?;
        let parameters = parameters.iter().map(|text| SqlType::Text(text.clone())).collect();
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
        let columns: Vec<Coarse> = row
            .into_iter()
            .map(|column| Coarse { name: column.name.to_string(), raw_type: column.raw_type })
            .collect();
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
        let described = Arc::new(describe::described(sql, &columns, &answers, self.utf8));
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
        let decoded = statement.has_blob();
        batch.send(Event::Columns { columns, decoded })?;
        let streamed = match decoded {
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
            batch.add(row.into_iter().map(|column| raw(column.value)))?;
        }
        Ok(())
    }

    fn end_attachment(&mut self, attachment: i64) -> Result<()> {
        let sql = format!("DELETE FROM MON$ATTACHMENTS WHERE MON$ATTACHMENT_ID = {attachment}");
        let configuration = TransactionConfiguration {
            data_access: TrDataAccessMode::ReadWrite,
            isolation: TrIsolationLevel::Concurrency,
            lock_resolution: TrLockResolution::NoWait,
        };
        let ended = (|| {
            let mut transaction = self.client.begin_transaction(&mut self.database, configuration)?;
            self.client.exec_immediate(&mut self.database, &mut transaction, Dialect::D3, &sql)?;
            self.client.transaction_operation(&mut transaction, TrOp::Commit)?;
            self.client.detach_database(&mut self.database)
        })();
        ended.map_err(|error| query_error(&sql, error))
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

fn raw(value: SqlType) -> RawValue {
    match value {
        SqlType::Null => RawValue::Null,
        SqlType::Text(text) => RawValue::Text(Bytes::from(text)),
        SqlType::Binary(bytes) => RawValue::Text(Bytes::from(bytes)),
        SqlType::Integer(number) => RawValue::Integer(number),
        SqlType::Int128(number) => RawValue::Int128(number),
        SqlType::Floating(number) => RawValue::Floating(number),
        SqlType::Timestamp(moment) => RawValue::Timestamp(moment),
        SqlType::Boolean(value) => RawValue::Boolean(value),
    }
}
