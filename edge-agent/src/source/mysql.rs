//! MySQL and MariaDB over the binary protocol: the bytes of each value go from the connection's
//! buffer to the column.

use std::fmt::Write as _;
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
use super::{Outcome, Session, Source, sqlx_common};
use crate::calendar::{NoDate, civil_of_days, days_of_civil};
use crate::config::{Charset, ServerConfig, TlsMode};
use crate::source::{Rows, Value};
use crate::sql::{Dialect, ResultSet, Statement};

pub const PORT: u16 = 3306;
/// For the end of a query that took too long.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

pub struct MysqlSource {
    config: ServerConfig,
}

impl MysqlSource {
    pub fn new(config: ServerConfig) -> Self {
        Self { config }
    }

    fn options(&self) -> MySqlConnectOptions {
        let ServerConfig { host, port, socket, database, user, password, tls, tls_ca_file, charset: _ } = &self.config;
        // The session's time is UTC until it enters the store's zone; the server's SQL mode stays.
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
        sqlx_common::describe("mysql", &self.config, PORT)
    }

    fn connect(&self) -> LocalBoxFuture<'_, Result<Box<dyn Session>>> {
        Box::pin(async move {
            let options = self.options();
            let connecting = MySqlConnection::connect_with(&options);
            let mut connection =
                sqlx_common::connected(&self.describe(), self.config.tls_ca_file.as_deref(), connecting, refusal)
                    .await?;
            const SQL: &str = "SELECT CAST(CONNECTION_ID() AS UNSIGNED)";
            let id: u64 =
                sqlx::query_scalar(SQL).fetch_one(&mut connection).await.map_err(|error| query_error(SQL, error))?;
            let charset = self.config.charset;
            let connection = Some(connection);
            let session = MysqlSession { charset, connection, id, options, offset_s: 0, unsnapshotted: None };
            Ok(Box::new(session) as Box<dyn Session>)
        })
    }
}

struct MysqlSession {
    /// Character set of text that the server does not convert: of columns of bytes.
    charset: Option<Charset>,
    /// Gone after a query that was ended half-way: what the server still sends is of no use.
    connection: Option<MySqlConnection>,
    /// The server's number of the connection.
    id: u64,
    /// For a second connection, which ends the query of the first.
    options: MySqlConnectOptions,
    /// Tables and views that a snapshot does not hold still, and whose readers keep writers waiting; asked once.
    unsnapshotted: Option<Vec<String>>,
    /// Seconds from UTC to the session's clock.
    offset_s: i32,
}

impl MysqlSession {
    fn connection(&mut self) -> Result<&mut MySqlConnection> {
        self.connection.as_mut().ok_or_else(|| Error::retry("source: mysql: the connection was ended"))
    }

    /// Names of tables that are not InnoDB's, and of views if there are such tables: a view may read them.
    async fn ask_unsnapshotted(&mut self) -> Result<Vec<String>> {
        const SQL: &str = "SELECT CONVERT(TABLE_NAME USING utf8), COALESCE(ENGINE, '') <> '' FROM information_schema.TABLES \
                           WHERE TABLE_SCHEMA = DATABASE() AND COALESCE(ENGINE, '') <> 'InnoDB'";
        let found: Vec<(String, i64)> =
            sqlx::query_as(SQL).fetch_all(self.connection()?).await.map_err(|error| query_error(SQL, error))?;
        let any_table = found.iter().any(|(_, is_table)| *is_table == 1);
        Ok(if any_table { found.into_iter().map(|(name, _)| name.to_lowercase()).collect() } else { Vec::new() })
    }

    /// Ends the running query at the server, if that can be done soon. Each user may end what is its own.
    async fn kill_query(&self) {
        let kill = format!("KILL QUERY {}", self.id);
        let done = async {
            let mut other = MySqlConnection::connect_with(&self.options).await?;
            other.execute(sqlx::raw_sql(AssertSqlSafe(kill.as_str()))).await?;
            other.close().await
        };
        // What cannot be ended in time ends by itself; the session is given up either way.
        let _ = tokio::time::timeout(KILL_TIMEOUT, done).await;
    }

    async fn execute(&mut self, sql: &'static str) -> Result<()> {
        self.connection()?.execute(sqlx::raw_sql(sql)).await.map(drop).map_err(|error| query_error(sql, error))
    }
}

impl Session for MysqlSession {
    fn enter_zone<'a>(&'a mut self, zone: &'a TimeZone, at: Timestamp) -> LocalBoxFuture<'a, Result<()>> {
        Box::pin(async move {
            // The server knows whole minutes; clocks were set by seconds before it existed.
            let minutes = zone.to_offset(at).seconds() / 60;
            if minutes * 60 == self.offset_s {
                return Ok(());
            }
            let sign = if minutes < 0 { '-' } else { '+' };
            let sql = format!("SET time_zone = '{sign}{:02}:{:02}'", minutes.abs() / 60, minutes.abs() % 60);
            let done = self.connection()?.execute(sqlx::raw_sql(AssertSqlSafe(sql.as_str()))).await;
            done.map_err(|error| query_error(&sql, error))?;
            self.offset_s = minutes * 60;
            Ok(())
        })
    }

    fn now(&mut self, _zone: &TimeZone) -> LocalBoxFuture<'_, Result<Timestamp>> {
        Box::pin(async {
            const SQL: &str = "SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)";
            /// For servers before MySQL 5.6.4 and MariaDB 5.3, whose clock shows whole seconds.
            const OLD: &str = "SELECT CAST(UNIX_TIMESTAMP(NOW()) * 1000000 AS SIGNED)";
            let told = sqlx::query_scalar(SQL).fetch_one(self.connection()?).await;
            let micros: i64 = match told {
                Err(error) if is_unknown_syntax(&error) => sqlx::query_scalar(OLD)
                    .fetch_one(self.connection()?)
                    .await
                    .map_err(|error| query_error(OLD, error))?,
                told => told.map_err(|error| query_error(SQL, error))?,
            };
            Timestamp::from_microsecond(micros)
                .map_err(|error| Error::data(format!("source: its clock shows {micros} µs")).with_source(error))
        })
    }

    fn begin(&mut self) -> LocalBoxFuture<'_, Result<bool>> {
        Box::pin(async {
            self.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
            const BEGIN: &str = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";
            match self.connection()?.execute(sqlx::raw_sql(BEGIN)).await {
                // Servers before MySQL 5.6.5 and MariaDB 10.0: that the user may only read has to do.
                Err(error) if is_unknown_syntax(&error) => {
                    self.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT").await?;
                }
                begun => begun.map(drop).map_err(|error| query_error(BEGIN, error))?,
            }
            if self.unsnapshotted.is_none() {
                self.unsnapshotted = Some(self.ask_unsnapshotted().await?);
            }
            Ok(true)
        })
    }

    fn is_in_snapshot(&self, sql: &str) -> bool {
        let sql = sql.to_lowercase();
        let mut words = sql.split(|letter: char| !(letter.is_alphanumeric() || matches!(letter, '_' | '$')));
        let unsnapshotted = self.unsnapshotted.as_deref().unwrap_or_default();
        !words.any(|word| unsnapshotted.iter().any(|name| name == word))
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
            let reading = RowOptions { offset_s: self.offset_s, charset: self.charset };
            let buffered = (!self.is_in_snapshot(&statement.sql)).then(|| buffered(statement)).flatten();
            let statement = buffered.as_ref().unwrap_or(statement);
            let connection = self.connection()?;
            match tokio::time::timeout(timeout, run(connection, statement, reading, rows)).await {
                Ok(done) => done,
                Err(_) => {
                    // The server notices a client that is gone only when it sends the next row: while it sorts or
                    // counts it works on.
                    self.kill_query().await;
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

async fn run(
    connection: &mut MySqlConnection,
    statement: &Statement<'_>,
    reading: RowOptions,
    rows: &mut dyn Rows,
) -> Result<Outcome> {
    // The text comes from the operator's own configuration; values are bound, never spliced.
    let mut query = sqlx::query::<MySql>(AssertSqlSafe(&*statement.sql));
    for parameter in &statement.parameters {
        query = query.bind(parameter);
    }
    let mut found = connection.fetch_many(query);
    let mut sets = ResultSets::new(rows, statement.result_set).with_hidden_columns();
    let mut kinds: Vec<Kind> = Vec::new();
    let mut scratch = String::new();
    let mut is_open = false;
    // Ends of sets whose rows never came: the last of a procedure's is that of the call itself.
    let mut ends = 0;
    loop {
        let next = match found.try_next().await {
            Ok(Some(next)) => next,
            Ok(None) => break,
            Err(error) if is_out_of_time(&error) => return Ok(Outcome::TimedOut),
            Err(error) => return Err(query_error(&statement.sql, error)),
        };
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
            hand_over(&row, &kinds, reading, &mut scratch, &mut sets)?;
        }
    }
    let without_rows = if statement.result_set == ResultSet::Only { 0 } else { (ends as usize).saturating_sub(1) };
    (0..without_rows).for_each(|_| sets.pass_empty());
    sets.finish().map(|()| Outcome::Done)
}

/// What an older server does not know.
fn is_unknown_syntax(error: &sqlx::Error) -> bool {
    number_of(error) == Some(1064)
}

fn number_of(error: &sqlx::Error) -> Option<u16> {
    let database = error.as_database_error()?.try_downcast_ref::<MySqlDatabaseError>()?;
    Some(database.number())
}

/// The server's own limit for a query: `max_statement_time` of MariaDB, `max_execution_time` of MySQL; or another
/// ended it.
fn is_out_of_time(error: &sqlx::Error) -> bool {
    matches!(number_of(error), Some(1317 | 1969 | 3024))
}

/// The query with its result set aside at the server: a MyISAM table is locked until its last row is sent, however
/// slow the line is. `None` if it does not begin as our own queries do.
fn buffered<'a>(statement: &Statement<'a>) -> Option<Statement<'a>> {
    let rest = statement.sql.strip_prefix("SELECT ")?;
    Some(Statement { sql: format!("SELECT SQL_BUFFER_RESULT {rest}").into(), ..statement.clone() })
}

/// What a value means beside its bytes.
#[derive(Clone, Copy)]
struct RowOptions {
    /// Seconds from UTC to the session's clock.
    offset_s: i32,
    charset: Option<Charset>,
}

fn hand_over(
    row: &MySqlRow,
    kinds: &[Kind],
    reading: RowOptions,
    scratch: &mut String,
    rows: &mut ResultSets<'_>,
) -> Result<()> {
    for (index, kind) in kinds.iter().enumerate() {
        let raw = row.try_get_raw(index).map_err(|error| query_error("reading a row", error))?;
        // The driver calls zero dates NULL; their bytes are there all the same.
        let value = match <&[u8] as Decode<MySql>>::decode(raw) {
            Ok(bytes) if *kind == Kind::Raw => {
                rows.raw_text(index, bytes, reading.charset);
                continue;
            }
            Ok(bytes) => kind
                .value(bytes, scratch)
                .ok_or_else(|| Error::bug(format!("source: mysql: {kind:?} in {} bytes", bytes.len())))?,
            Err(error) if error.is::<UnexpectedNullError>() => Value::Null,
            Err(error) => {
                let column = row.column(index).name();
                return Err(Error::data(format!("source: mysql: column {column}: cannot be read: {error}")));
            }
        };
        // A moment comes as the session's clock shows it.
        let value = match value {
            Value::Instant(micros) => Value::Instant(micros - i64::from(reading.offset_s) * 1_000_000),
            other => other,
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
    /// An integer of a column that is shown with so many digits.
    ZeroFilled {
        width: usize,
        is_signed: bool,
    },
    Text,
    /// Text or bytes: the server does not convert it.
    Raw,
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
                let is_signed = !<u64 as Type<MySql>>::compatible(info);
                match (zero_filled(info), is_signed) {
                    (Some(width), is_signed) => Self::ZeroFilled { width, is_signed },
                    (None, true) => Self::Int,
                    (None, false) => Self::UInt,
                }
            }
            "GEOMETRY" => Self::Bytes,
            "JSON" => Self::Text,
            _ if <str as Type<MySql>>::compatible(info) => Self::Text,
            // Without `charset` what is UTF-8 is taken as text, which every column of bytes takes as well.
            _ => Self::Raw,
        }
    }

    /// The value, or `None` when the bytes are not of this kind.
    #[inline]
    fn value<'a>(self, bytes: &'a [u8], scratch: &'a mut String) -> Option<Value<'a>> {
        Some(match self {
            Self::Int => Value::Int(int(bytes)?),
            Self::UInt => Value::UInt(uint(bytes)?),
            Self::ZeroFilled { width, is_signed } => {
                scratch.clear();
                // Writing to a string cannot fail. What is zero-filled is UNSIGNED, unless an expression made it signed.
                let _ = match is_signed {
                    true => write!(scratch, "{:0width$}", int(bytes)?),
                    false => write!(scratch, "{:0width$}", uint(bytes)?),
                };
                Value::Digits(scratch)
            }
            Self::Float32 => Value::Float(f64::from(f32::from_le_bytes(bytes.try_into().ok()?))),
            Self::Float64 => Value::Float(f64::from_le_bytes(bytes.try_into().ok()?)),
            Self::Decimal => Value::Digits(std::str::from_utf8(bytes).ok()?),
            Self::Text | Self::Raw => match std::str::from_utf8(bytes) {
                Ok(text) => Value::Text(text),
                Err(_) => Value::Bytes(bytes),
            },
            Self::Bytes => Value::Bytes(bytes),
            Self::Bit if bytes.len() <= 8 => {
                Value::UInt(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
            }
            Self::Bit => return None,
            Self::Date => match date_time(bytes)? {
                Ok((days, _)) => Value::Date(days),
                Err(date) => Value::NoDate(date),
            },
            Self::DateTime => match date_time(bytes)? {
                Ok((days, micros)) => Value::Local(i64::from(days) * crate::calendar::DAY_MICROS + micros),
                Err(date) => Value::NoDate(date),
            },
            Self::Timestamp => match date_time(bytes)? {
                Ok((days, micros)) => Value::Instant(i64::from(days) * crate::calendar::DAY_MICROS + micros),
                Err(date) => Value::NoDate(date),
            },
            Self::Time => Value::Time(time(bytes)?),
        })
    }
}

fn int(bytes: &[u8]) -> Option<i64> {
    Some(match bytes.len() {
        1 => i64::from(bytes[0] as i8),
        2 => i64::from(i16::from_le_bytes(bytes.try_into().ok()?)),
        4 => i64::from(i32::from_le_bytes(bytes.try_into().ok()?)),
        _ => i64::from_le_bytes(bytes.try_into().ok()?),
    })
}

fn uint(bytes: &[u8]) -> Option<u64> {
    Some(match bytes.len() {
        1 => u64::from(bytes[0]),
        2 => u64::from(u16::from_le_bytes(bytes.try_into().ok()?)),
        4 => u64::from(u32::from_le_bytes(bytes.try_into().ok()?)),
        _ => u64::from_le_bytes(bytes.try_into().ok()?),
    })
}

/// The digits that the server shows at least. The driver knows the column's flags and width and has no function for
/// them; a test on a real server holds it to this.
fn zero_filled(info: &MySqlTypeInfo) -> Option<usize> {
    let told = format!("{info:?}");
    let flags = told.split_once("flags: ")?.1.split_once(')')?.0;
    flags.contains("ZEROFILL").then_some(())?;
    let width = told.split_once("max_size: Some(")?.1.split_once(')')?.0;
    // No integer has more; a width is what the table's owner wrote.
    width.parse().ok().map(|width: usize| width.min(255))
}

/// Days and microseconds of the day; the error is a day that no calendar has, which a server keeps as its SQL mode
/// was when it came: a zero date, one with a zero month or day, the 31st of February.
fn date_time(bytes: &[u8]) -> Option<Result<(i32, i64), NoDate>> {
    let (length, rest) = bytes.split_first()?;
    if *length == 0 {
        return Some(Err(NoDate { year: 0, month: 0, day: 0 }));
    }
    let year = i64::from(u16::from_le_bytes(rest.get(..2)?.try_into().ok()?));
    let (month, day) = (*rest.get(2)?, *rest.get(3)?);
    let date = NoDate { year, month, day };
    let days = days_of_civil(year, month.into(), day.into());
    if year == 0 || month == 0 || civil_of_days(days.into()) != date {
        return Some(Err(date));
    }
    let micros = match rest.get(4..7) {
        Some(clock) => clock_micros(clock) + fraction(rest.get(7..11)),
        None => 0,
    };
    Some(Ok((days, micros)))
}

fn time(bytes: &[u8]) -> Option<i64> {
    let (length, rest) = bytes.split_first()?;
    if *length == 0 {
        return Some(0);
    }
    let days = i64::from(u32::from_le_bytes(rest.get(1..5)?.try_into().ok()?));
    let micros = days * crate::calendar::DAY_MICROS + clock_micros(rest.get(5..8)?) + fraction(rest.get(8..12));
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
    let shown = sqlx_common::shown(sql);
    match &error {
        sqlx::Error::Database(database) => {
            // Syntax, unknown table or column, missing right: a person must act.
            let state = database.code().unwrap_or_default();
            let text = format!("source: mysql: {shown}: {database}");
            match database.try_downcast_ref::<MySqlDatabaseError>().map(MySqlDatabaseError::number) {
                // SELECT on a table, a column; EXECUTE of a procedure.
                Some(1142 | 1143 | 1370) => Error::config(format!("{text} (GRANT the user that right)")),
                _ if state.starts_with("42") => Error::config(text),
                // A value that a conversion refuses.
                _ if state.starts_with("22") => Error::data(text),
                _ => Error::retry(text),
            }
        }
        _ => Error::retry(format!("source: mysql: {shown}")).with_source(error),
    }
}
