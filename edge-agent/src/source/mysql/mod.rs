//! MySQL and MariaDB over the binary protocol: the bytes of each value go from the connection's
//! buffer to the column. Why by a client of our own: `docs/decisions/0008-own-mysql-client.md`.

use std::time::Duration;

use futures::future::LocalBoxFuture;
use jiff::Timestamp;
use ribera_storage::{Error, Result};

use self::fault::Fault;
use self::query::Connection;
use super::{Outcome, Session, Source};
use crate::config::ServerConfig;
use crate::sql::{Dialect, Statement};
use crate::value::{Rows, Value};

mod connect;
mod fault;
mod login;
mod query;
mod tls;
mod value;
mod wire;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

pub struct MysqlSource {
    config: ServerConfig,
}

impl MysqlSource {
    pub fn new(config: ServerConfig) -> Self {
        Self { config }
    }
}

impl Source for MysqlSource {
    fn dialect(&self) -> Dialect {
        Dialect::Mysql
    }

    fn describe(&self) -> String {
        let ServerConfig { host, port, socket, database, .. } = &self.config;
        match (socket, host) {
            (Some(socket), _) => format!("mysql {database} at {}", socket.display()),
            (None, host) => {
                format!("mysql {database} at {}:{}", host.as_deref().unwrap_or_default(), port.unwrap_or(3306))
            }
        }
    }

    fn connect(&self) -> LocalBoxFuture<'_, Result<Box<dyn Session>>> {
        Box::pin(async move {
            match tokio::time::timeout(CONNECT_TIMEOUT, connect::connect(&self.config)).await {
                Ok(Ok(connection)) => Ok(Box::new(MysqlSession { connection: Some(connection) }) as Box<dyn Session>),
                Ok(Err(fault)) => Err(fault.of_connecting(&self.describe())),
                Err(_) => Err(Error::retry(format!(
                    "source: {}: no answer within {} s",
                    self.describe(),
                    CONNECT_TIMEOUT.as_secs()
                ))),
            }
        })
    }
}

struct MysqlSession {
    /// Gone after a query that was ended half-way, or when the line broke: what the server still
    /// sends is of no use.
    connection: Option<Connection>,
}

impl MysqlSession {
    fn connection(&mut self) -> Result<&mut Connection> {
        self.connection.as_mut().ok_or_else(|| Error::retry("source: mysql: the connection was ended"))
    }

    async fn execute(&mut self, sql: &str) -> Result<()> {
        let done = self.connection()?.command(sql).await;
        self.judge(sql, done)
    }

    async fn run(&mut self, statement: &Statement<'_>, rows: &mut dyn Rows) -> Result<()> {
        let done = self.connection()?.run(statement, rows).await;
        self.judge(statement.sql, done)
    }

    fn judge(&mut self, sql: &str, done: std::result::Result<(), Fault>) -> Result<()> {
        done.map_err(|fault| {
            if !fault.leaves_connection() {
                self.connection = None;
            }
            fault.of_query(sql)
        })
    }

    /// The first column of each row of a small answer.
    async fn first_column(&mut self, sql: &str) -> Result<Vec<String>> {
        let mut found = FirstColumn(Vec::new());
        self.run(&Statement { sql, parameters: Vec::new() }, &mut found).await?;
        Ok(found.0)
    }
}

impl Session for MysqlSession {
    fn now(&mut self) -> LocalBoxFuture<'_, Result<Timestamp>> {
        Box::pin(async {
            let found = self.first_column("SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)").await?;
            let shown = found.first().map(String::as_str).unwrap_or_default();
            let moment = shown.parse().ok().and_then(|micros| Timestamp::from_microsecond(micros).ok());
            moment.ok_or_else(|| Error::data(format!("source: its clock shows {shown:?} µs")))
        })
    }

    fn begin(&mut self) -> LocalBoxFuture<'_, Result<bool>> {
        Box::pin(async {
            self.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
            self.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await?;
            Ok(true)
        })
    }

    fn end(&mut self) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async { if self.connection.is_some() { self.execute("ROLLBACK").await } else { Ok(()) } })
    }

    fn query<'a>(
        &'a mut self,
        statement: &'a Statement<'a>,
        rows: &'a mut dyn Rows,
        timeout: Duration,
    ) -> LocalBoxFuture<'a, Result<Outcome>> {
        Box::pin(async move {
            match tokio::time::timeout(timeout, self.run(statement, rows)).await {
                Ok(done) => done.map(|()| Outcome::Done),
                Err(_) => {
                    // Dropping the connection ends the query at the server.
                    self.connection = None;
                    Ok(Outcome::TimedOut)
                }
            }
        })
    }

    fn write_rights(&mut self) -> LocalBoxFuture<'_, Result<Option<String>>> {
        Box::pin(async {
            let grants = self.first_column("SHOW GRANTS").await?;
            let writes = ["ALL PRIVILEGES", "INSERT", "UPDATE", "DELETE", "DROP", "ALTER", "CREATE", "SUPER"];
            // The words stand between GRANT and ON; what follows may hold any name.
            let rights = |grant: &String| grant.split(" ON ").next().unwrap_or_default().to_uppercase();
            Ok(grants
                .iter()
                .map(rights)
                .find(|rights| writes.iter().any(|write| rights.contains(write)))
                .map(|rights| rights.trim_start_matches("GRANT ").to_owned()))
        })
    }
}

struct FirstColumn(Vec<String>);

impl Rows for FirstColumn {
    fn begin(&mut self, _: &[String]) -> Result<()> {
        Ok(())
    }

    fn value(&mut self, index: usize, value: Value<'_>) {
        match value {
            _ if index > 0 => {}
            Value::Text(text) => self.0.push(text.to_owned()),
            other => self.0.push(other.to_string()),
        }
    }

    fn end_row(&mut self) -> Result<()> {
        Ok(())
    }
}
