//! MySQL and MariaDB over the binary protocol: the bytes of each value go from the connection's
//! buffer to the column.

use std::time::Duration;

use futures::TryStreamExt;
use futures::future::LocalBoxFuture;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use ribera_storage::{Error, Result};
use sqlx::error::{DatabaseError, UnexpectedNullError};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlDatabaseError, MySqlRow, MySqlSslMode, MySqlTypeInfo};
use sqlx::{AssertSqlSafe, Column, ConnectOptions, Connection, Decode, Either, Executor, MySql, Row, Type, TypeInfo};

use super::result_sets::ResultSets;
use super::{Outcome, Session, Source, driver};
use crate::config::{ServerConfig, TlsMode};
use crate::sql::{Dialect, ResultSet, Statement};
use crate::value::{Rows, Value, days_of_civil};

pub const PORT: u16 = 3306;

pub struct MysqlSource {
    config: ServerConfig,
}

impl MysqlSource {
    pub fn new(config: ServerConfig) -> Self {
        Self { config }
    }

    fn options(&self) -> MySqlConnectOptions {
        let ServerConfig { host, port, socket, database, user, password, tls, tls_ca_file } = &self.config;
        // Session time in UTC, so that TIMESTAMP columns arrive as UTC; the server's SQL mode stays.
        let mut options = MySqlConnectOptions::new()
            .username(user)
            .database(database)
            .charset("utf8mb4")
            .pipes_as_concat(false)
            .no_engine_substitution(false)
            .statement_cache_capacity(16)
            .ssl_mode(match tls {
                TlsMode::Verify => MySqlSslMode::VerifyIdentity,
                TlsMode::Require => MySqlSslMode::Required,
                TlsMode::Off => MySqlSslMode::Disabled,
            })
            .disable_statement_logging();
        if let Some(password) = password {
            options = options.password(password.expose());
        }
        if let Some(file) = tls_ca_file {
            options = options.ssl_ca(file);
        }
        match (socket, host) {
            (Some(socket), _) => options.socket(socket).ssl_mode(MySqlSslMode::Disabled),
            (None, Some(host)) => options.host(host).port(port.unwrap_or(PORT)),
            (None, None) => options,
        }
    }
}

impl Source for MysqlSource {
    fn dialect(&self) -> Dialect {
        Dialect::Mysql
    }

    fn describe(&self) -> String {
        driver::describe("mysql", &self.config, PORT)
    }

    fn connect(&self) -> LocalBoxFuture<'_, Result<Box<dyn Session>>> {
        Box::pin(async move {
            let options = self.options();
            let connecting = MySqlConnection::connect_with(&options);
            let connection = driver::connected(&self.describe(), connecting, refusal).await?;
            Ok(Box::new(MysqlSession { connection: Some(connection) }) as Box<dyn Session>)
        })
    }
}

struct MysqlSession {
    /// Gone after a query that was ended half-way: what the server still sends is of no use.
    connection: Option<MySqlConnection>,
}

impl MysqlSession {
    fn connection(&mut self) -> Result<&mut MySqlConnection> {
        self.connection.as_mut().ok_or_else(|| Error::retry("source: mysql: the connection was ended"))
    }

    async fn execute(&mut self, sql: &'static str) -> Result<()> {
        self.connection()?.execute(sqlx::raw_sql(sql)).await.map(drop).map_err(|error| query_error(sql, error))
    }
}

impl Session for MysqlSession {
    fn now(&mut self, _zone: &TimeZone) -> LocalBoxFuture<'_, Result<Timestamp>> {
        Box::pin(async {
            const SQL: &str = "SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)";
            let micros: i64 =
                sqlx::query_scalar(SQL).fetch_one(self.connection()?).await.map_err(|error| query_error(SQL, error))?;
            Timestamp::from_microsecond(micros)
                .map_err(|error| Error::data(format!("source: its clock shows {micros} µs")).with_source(error))
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
            let connection = self.connection()?;
            match tokio::time::timeout(timeout, run(connection, statement, rows)).await {
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
            const SQL: &str = "SHOW GRANTS";
            let grants: Vec<String> =
                sqlx::query_scalar(SQL).fetch_all(self.connection()?).await.map_err(|error| query_error(SQL, error))?;
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

async fn run(connection: &mut MySqlConnection, statement: &Statement<'_>, rows: &mut dyn Rows) -> Result<()> {
    // The text comes from the operator's own configuration; values are bound, never spliced.
    let mut query = sqlx::query::<MySql>(AssertSqlSafe(&*statement.sql));
    for parameter in &statement.parameters {
        query = query.bind(parameter);
    }
    let mut found = connection.fetch_many(query);
    let mut sets = ResultSets::new(rows, statement.result_set).with_hidden_columns();
    let mut kinds: Vec<Kind> = Vec::new();
    let mut is_open = false;
    // Ends of sets whose rows never came: the last of a procedure's is that of the call itself.
    let mut ends = 0;
    while let Some(next) = found.try_next().await.map_err(|error| query_error(&statement.sql, error))? {
        let row = match next {
            Either::Right(row) => row,
            Either::Left(_) if std::mem::take(&mut is_open) => continue,
            Either::Left(_) => {
                ends += 1;
                continue;
            }
        };
        if !is_open {
            (0..std::mem::take(&mut ends)).for_each(|_| sets.pass_empty());
            is_open = true;
            kinds = row.columns().iter().map(|column| Kind::of(column.type_info())).collect();
            let names: Vec<String> = row.columns().iter().map(|column| column.name().to_owned()).collect();
            sets.begin(&names)?;
        }
        if sets.wants() {
            hand_over(&row, &kinds, &mut sets)?;
        }
    }
    let without_rows = if statement.result_set == ResultSet::Only { 0 } else { (ends as usize).saturating_sub(1) };
    (0..without_rows).for_each(|_| sets.pass_empty());
    sets.finish()
}

fn hand_over(row: &MySqlRow, kinds: &[Kind], rows: &mut ResultSets<'_>) -> Result<()> {
    for (index, kind) in kinds.iter().enumerate() {
        let raw = row.try_get_raw(index).map_err(|error| query_error("reading a row", error))?;
        // The driver calls zero dates NULL; their bytes are there all the same.
        let value = match <&[u8] as Decode<MySql>>::decode(raw) {
            Ok(bytes) => kind
                .value(bytes)
                .ok_or_else(|| Error::bug(format!("source: mysql: {kind:?} in {} bytes", bytes.len())))?,
            Err(error) if error.is::<UnexpectedNullError>() => Value::Null,
            Err(error) => {
                let column = row.column(index).name();
                return Err(Error::data(format!("source: mysql: column {column}: cannot be read: {error}")));
            }
        };
        rows.value(index, value);
    }
    rows.end_row()
}

/// How the bytes of a column are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Int,
    UInt,
    Float32,
    Float64,
    Decimal,
    Text,
    Bytes,
    Bit,
    Date,
    DateTime,
    Timestamp,
    Time,
}

impl Kind {
    fn of(info: &MySqlTypeInfo) -> Self {
        match info.name() {
            "FLOAT" => Self::Float32,
            "DOUBLE" => Self::Float64,
            "DECIMAL" => Self::Decimal,
            "BIT" => Self::Bit,
            "DATE" => Self::Date,
            "DATETIME" => Self::DateTime,
            "TIMESTAMP" => Self::Timestamp,
            "TIME" => Self::Time,
            "YEAR" => Self::UInt,
            // TINYINT(1), signed or not: only the driver's flag tells.
            name if name == "BOOLEAN" || name.contains("INT") => {
                if <u64 as Type<MySql>>::compatible(info) {
                    Self::UInt
                } else {
                    Self::Int
                }
            }
            "GEOMETRY" => Self::Bytes,
            // Text of a binary collation cannot be told from bytes: what is
            // UTF-8 is taken as text, which every column that takes bytes takes as well.
            _ => Self::Text,
        }
    }

    /// The value, or `None` when the bytes are not of this kind.
    #[inline]
    fn value(self, bytes: &[u8]) -> Option<Value<'_>> {
        Some(match self {
            Self::Int => Value::Int(match bytes.len() {
                1 => i64::from(bytes[0] as i8),
                2 => i64::from(i16::from_le_bytes(bytes.try_into().ok()?)),
                4 => i64::from(i32::from_le_bytes(bytes.try_into().ok()?)),
                _ => i64::from_le_bytes(bytes.try_into().ok()?),
            }),
            Self::UInt => Value::UInt(match bytes.len() {
                1 => u64::from(bytes[0]),
                2 => u64::from(u16::from_le_bytes(bytes.try_into().ok()?)),
                4 => u64::from(u32::from_le_bytes(bytes.try_into().ok()?)),
                _ => u64::from_le_bytes(bytes.try_into().ok()?),
            }),
            Self::Float32 => Value::Float(f64::from(f32::from_le_bytes(bytes.try_into().ok()?))),
            Self::Float64 => Value::Float(f64::from_le_bytes(bytes.try_into().ok()?)),
            Self::Decimal => Value::Digits(std::str::from_utf8(bytes).ok()?),
            Self::Text => match std::str::from_utf8(bytes) {
                Ok(text) => Value::Text(text),
                Err(_) => Value::Bytes(bytes),
            },
            Self::Bytes => Value::Bytes(bytes),
            Self::Bit if bytes.len() <= 8 => {
                Value::UInt(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
            }
            Self::Bit => return None,
            Self::Date => match date_time(bytes)? {
                Some((days, _)) => Value::Date(days),
                None => Value::ZeroDate,
            },
            Self::DateTime => match date_time(bytes)? {
                Some((days, micros)) => Value::Local(i64::from(days) * crate::value::DAY_MICROS + micros),
                None => Value::ZeroDate,
            },
            Self::Timestamp => match date_time(bytes)? {
                Some((days, micros)) => Value::Instant(i64::from(days) * crate::value::DAY_MICROS + micros),
                None => Value::ZeroDate,
            },
            Self::Time => Value::Time(time(bytes)?),
        })
    }
}

/// Days and microseconds of the day; the inner `None` is a zero date, also one with a zero month
/// or day.
fn date_time(bytes: &[u8]) -> Option<Option<(i32, i64)>> {
    let (length, rest) = bytes.split_first()?;
    if *length == 0 {
        return Some(None);
    }
    let year = u16::from_le_bytes(rest.get(..2)?.try_into().ok()?);
    let (month, day) = (*rest.get(2)?, *rest.get(3)?);
    if year == 0 || month == 0 || day == 0 {
        return Some(None);
    }
    let days = days_of_civil(year.into(), month.into(), day.into());
    let micros = match rest.get(4..7) {
        Some(clock) => clock_micros(clock) + fraction(rest.get(7..11)),
        None => 0,
    };
    Some(Some((days, micros)))
}

fn time(bytes: &[u8]) -> Option<i64> {
    let (length, rest) = bytes.split_first()?;
    if *length == 0 {
        return Some(0);
    }
    let days = i64::from(u32::from_le_bytes(rest.get(1..5)?.try_into().ok()?));
    let micros = days * crate::value::DAY_MICROS + clock_micros(rest.get(5..8)?) + fraction(rest.get(8..12));
    Some(if rest[0] == 1 { -micros } else { micros })
}

fn clock_micros(clock: &[u8]) -> i64 {
    let [hour, minute, second] = [clock[0], clock[1], clock[2]].map(i64::from);
    ((hour * 60 + minute) * 60 + second) * 1_000_000
}

fn fraction(bytes: Option<&[u8]>) -> i64 {
    bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, |bytes| i64::from(u32::from_le_bytes(bytes)))
}

/// What the server itself says before a login is done is for a person.
fn refusal(database: &dyn DatabaseError) -> Option<&'static str> {
    let number = database.try_downcast_ref::<MySqlDatabaseError>().map(MySqlDatabaseError::number);
    Some(match number {
        Some(1045 | 1698) => "user or password",
        Some(1049) => "source.database: no such database",
        Some(1044) => "source.database: no such database, or GRANT the user SELECT on it",
        Some(1130) => "the server takes no login from this machine: CREATE USER ...@'this machine'",
        _ => "user, password or database name",
    })
}

fn query_error(sql: &str, error: sqlx::Error) -> Error {
    let shown = driver::shown(sql);
    match &error {
        sqlx::Error::Database(database) => {
            // Syntax, unknown table or column, missing right: a person must act.
            let state = database.code().unwrap_or_default();
            let text = format!("source: mysql: {shown}: {database}");
            match database.try_downcast_ref::<MySqlDatabaseError>().map(MySqlDatabaseError::number) {
                // SELECT on a table, a column; EXECUTE of a procedure.
                Some(1142 | 1143 | 1370) => Error::config(format!("{text} (GRANT the user that right)")),
                _ if state.starts_with("42") => Error::config(text),
                _ => Error::retry(text),
            }
        }
        _ => Error::retry(format!("source: mysql: {shown}")).with_source(error),
    }
}
