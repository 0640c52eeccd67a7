//! PostgreSQL by binary COPY: the server sends rows as fast as the line takes them, and each value
//! goes from the connection's buffer to the column.

use std::time::Duration;

use futures::TryStreamExt;
use futures::future::LocalBoxFuture;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use ribera_storage::{Error, Result};
use sqlx::error::DatabaseError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode, PgTypeInfo, PgTypeKind};
use sqlx::{AssertSqlSafe, Column, ConnectOptions, Connection, Executor, SqlSafeStr, Statement as _, TypeInfo};

use super::{Outcome, Session, Source, sqlx_common};
use crate::config::{Charset, ServerConfig, TlsMode};
use crate::source::Rows;
use crate::sql::{Dialect, Statement};
use copy::{Decoder, Kind};

mod copy;

/// The server ends a slow query itself; a server that does not answer at all is left after this.
const TIMEOUT_GRACE: Duration = Duration::from_secs(3);
pub const PORT: u16 = 5432;

/// SQLSTATE of a query that the server ended, for its time or by an administrator.
const QUERY_CANCELED: &str = "57014";

pub struct PostgresSource {
    config: ServerConfig,
}

impl PostgresSource {
    pub fn new(config: ServerConfig) -> Self {
        Self { config }
    }

    fn options(&self) -> PgConnectOptions {
        let ServerConfig { host, port, socket, database, user, password, tls, tls_ca_file, charset: _ } = &self.config;
        // The driver sets the session's time zone to UTC until it enters the store's, its dates to ISO and its text
        // to UTF-8. No statement is asked twice with the same text, so none is kept at the server.
        let mut options = PgConnectOptions::new_without_pgpass()
            .username(user)
            .database(database)
            .application_name("ribera-agent")
            .statement_cache_capacity(0)
            .ssl_mode(match tls {
                TlsMode::Verify => PgSslMode::VerifyFull,
                TlsMode::Require => PgSslMode::Require,
                TlsMode::Off => PgSslMode::Disable,
            })
            .disable_statement_logging();
        if let Some(password) = password {
            options = options.password(password.expose());
        }
        if let Some(file) = tls_ca_file {
            options = options.ssl_root_cert(file);
        }
        match (socket, host) {
            (Some(folder), _) => options.socket(folder).port(port.unwrap_or(PORT)).ssl_mode(PgSslMode::Disable),
            (None, Some(host)) => options.host(host).port(port.unwrap_or(PORT)),
            (None, None) => options,
        }
    }
}

impl Source for PostgresSource {
    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }

    fn describe(&self) -> String {
        sqlx_common::describe("postgres", &self.config, PORT)
    }

    fn connect(&self) -> LocalBoxFuture<'_, Result<Box<dyn Session>>> {
        Box::pin(async move {
            let options = self.options();
            let connecting = PgConnection::connect_with(&options);
            let connection =
                sqlx_common::connected(&self.describe(), self.config.tls_ca_file.as_deref(), connecting, refusal)
                    .await?;
            Ok(Box::new(PostgresSession::new(connection, self.config.charset)) as Box<dyn Session>)
        })
    }
}

struct PostgresSession {
    /// Gone after a query that failed or was ended half-way: what the server still sends is of no use.
    connection: Option<PgConnection>,
    /// Within a transaction, what is set is set for it alone: behind a pool another program has the connection next.
    is_in_transaction: bool,
    known: Known,
    /// Fraction digits of MONEY, asked for when first needed.
    money_digits: Option<u8>,
    /// Character set of text in a database without encoding.
    charset: Option<Charset>,
    /// Whether it is one, once asked.
    has_no_encoding: Option<bool>,
}

/// What the server was told. It forgets all of it with the transaction in which it was told.
#[derive(Default)]
struct Known {
    settings: bool,
    timeout: Option<Duration>,
    zone: Option<String>,
}

/// A query that row-level security would shorten fails in its place: rows left out are no proof. And a pause between two
/// chunks is no reason to end the session. Old servers lack one or both.
const SETTINGS: &str = "SELECT set_config(name, CASE name WHEN 'row_security' THEN 'off' ELSE '0' END, IS_LOCAL)
    FROM pg_catalog.pg_settings WHERE name IN ('row_security', 'idle_in_transaction_session_timeout')";

impl PostgresSession {
    fn new(connection: PgConnection, charset: Option<Charset>) -> Self {
        let (is_in_transaction, known) = (false, Known::default());
        let (money_digits, has_no_encoding) = (None, None);
        Self { connection: Some(connection), is_in_transaction, known, money_digits, charset, has_no_encoding }
    }

    /// The server converts nothing in a database of encoding SQL_ASCII.
    async fn has_no_encoding(&mut self) -> Result<bool> {
        if let Some(known) = self.has_no_encoding {
            return Ok(known);
        }
        let encoding: String = self.ask("SHOW server_encoding").await?;
        Ok(*self.has_no_encoding.insert(encoding == "SQL_ASCII"))
    }

    fn connection(&mut self) -> Result<&mut PgConnection> {
        self.connection.as_mut().ok_or_else(|| Error::retry("source: postgres: the connection was ended"))
    }

    async fn execute(&mut self, sql: &str) -> Result<()> {
        let done = self.connection()?.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await;
        done.map(drop).map_err(|error| query_error(sql, &error))
    }

    async fn ask<T>(&mut self, sql: &'static str) -> Result<T>
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
    {
        sqlx::query_scalar(sql).fetch_one(self.connection()?).await.map_err(|error| query_error(sql, &error))
    }

    /// Tells the server how long a statement may take, and what holds for all of them.
    async fn limit(&mut self, timeout: Duration) -> Result<()> {
        if !self.known.settings {
            self.execute(&SETTINGS.replace("IS_LOCAL", if self.is_in_transaction { "true" } else { "false" })).await?;
            self.known.settings = true;
        }
        if self.known.timeout != Some(timeout) {
            self.set(&format!("statement_timeout = {}", timeout.as_millis().max(1))).await?;
            self.known.timeout = Some(timeout);
        }
        Ok(())
    }

    async fn set(&mut self, setting: &str) -> Result<()> {
        let reach = if self.is_in_transaction { "LOCAL" } else { "SESSION" };
        self.execute(&format!("SET {reach} {setting}")).await
    }

    /// The names of the query's columns and how each is read.
    async fn describe(&mut self, sql: &str) -> Result<(Vec<String>, Vec<Kind>)> {
        let prepared = self.connection()?.prepare(AssertSqlSafe(sql).into_sql_str()).await;
        let prepared = prepared.map_err(|error| query_error(sql, &error))?;
        let columns: Vec<(String, PgTypeInfo)> =
            prepared.columns().iter().map(|column| (column.name().to_owned(), column.type_info().clone())).collect();
        let money = PgTypeInfo::with_oid(Oid(790));
        if self.money_digits.is_none() && columns.iter().any(|(_, info)| info.type_eq(&money)) {
            // Its currency is the server's setting, which the connection cannot see otherwise.
            let digits: i32 = self.ask("SELECT scale(1::money::numeric)").await?;
            self.money_digits = u8::try_from(digits).ok();
        }
        let mut names = Vec::with_capacity(columns.len());
        let mut kinds = Vec::with_capacity(columns.len());
        for (name, info) in columns {
            kinds.push(kind(&info, self.money_digits.unwrap_or(2)).ok_or_else(|| {
                Error::config(format!(
                    "source: postgres: column {name}: must be of a type that docs/types.md lists, got {}; cast it in the query, for instance to text",
                    info.name()
                ))
            })?);
            names.push(name);
        }
        Ok((names, kinds))
    }

    async fn copy(&mut self, statement: &Statement<'_>, rows: &mut dyn Rows) -> Result<Outcome> {
        let sql = statement.sql.trim().trim_end_matches(';');
        let (names, kinds) = self.describe(sql).await?;
        let mut decoder = Decoder::new(kinds);
        if self.has_no_encoding().await? {
            decoder = decoder.without_encoding(self.charset);
        }
        let copy = format!("COPY ({sql}) TO STDOUT (FORMAT binary)");
        let connection = self.connection()?;
        let failed = |error: sqlx::Error| {
            if is_canceled(&error) { Ok(Outcome::TimedOut) } else { Err(query_error(sql, &error)) }
        };
        let mut pieces = match connection.copy_out_raw(&copy).await {
            Ok(pieces) => pieces,
            Err(error) => return failed(error),
        };
        rows.begin(&names)?;
        loop {
            match pieces.try_next().await {
                Ok(Some(piece)) => decoder.take(&piece, rows)?,
                Ok(None) => break,
                Err(error) => return failed(error),
            }
        }
        decoder.finish().map(|()| Outcome::Done)
    }
}

impl Session for PostgresSession {
    fn enter_zone<'a>(&'a mut self, zone: &'a TimeZone, _at: Timestamp) -> LocalBoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let Some(name) = zone.iana_name().filter(|name| self.known.zone.as_deref() != Some(*name)) else {
                return Ok(());
            };
            // Moments themselves come in UTC, whatever the session's zone: COPY sends them so.
            self.set(&format!("TIME ZONE '{}'", name.replace('\'', "''"))).await?;
            self.known.zone = Some(name.to_owned());
            Ok(())
        })
    }

    fn now(&mut self, _zone: &TimeZone) -> LocalBoxFuture<'_, Result<Timestamp>> {
        Box::pin(async {
            let micros: i64 = self.ask("SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint").await?;
            Timestamp::from_microsecond(micros)
                .map_err(|error| Error::data(format!("source: its clock shows {micros} µs")).with_source(error))
        })
    }

    fn begin(&mut self) -> LocalBoxFuture<'_, Result<bool>> {
        Box::pin(async {
            self.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?;
            (self.is_in_transaction, self.known) = (true, Known::default());
            Ok(true)
        })
    }

    fn end(&mut self) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async {
            (self.is_in_transaction, self.known) = (false, Known::default());
            if self.connection.is_some() { self.execute("ROLLBACK").await } else { Ok(()) }
        })
    }

    fn query<'a>(
        &'a mut self,
        statement: &'a Statement<'a>,
        rows: &'a mut dyn Rows,
        timeout: Duration,
    ) -> LocalBoxFuture<'a, Result<Outcome>> {
        Box::pin(async move {
            let done = tokio::time::timeout(timeout + TIMEOUT_GRACE, async {
                self.limit(timeout).await?;
                self.copy(statement, rows).await
            });
            let done = done.await.unwrap_or(Ok(Outcome::TimedOut));
            if !matches!(done, Ok(Outcome::Done)) {
                self.connection = None;
            }
            done
        })
    }

    fn write_rights(&mut self) -> LocalBoxFuture<'_, Result<Option<String>>> {
        Box::pin(async {
            self.ask(
                "SELECT string_agg(DISTINCT held.name, ', ' ORDER BY held.name)
                 FROM pg_catalog.pg_class c
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                 CROSS JOIN unnest(ARRAY['DELETE', 'INSERT', 'TRUNCATE', 'UPDATE']) AS held (name)
                 WHERE c.relkind IN ('r', 'p') AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
                   AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, held.name)",
            )
            .await
        })
    }
}

fn kind(info: &PgTypeInfo, money_digits: u8) -> Option<Kind> {
    match info.kind() {
        PgTypeKind::Domain(base) => kind(base, money_digits),
        PgTypeKind::Enum(_) => Kind::of("enum", money_digits),
        _ => Kind::of(&info.name().to_uppercase(), money_digits),
    }
}

/// What a person must set right. Others, such as too many sessions, pass.
fn refusal(database: &dyn DatabaseError) -> Option<&'static str> {
    Some(match database.code().unwrap_or_default().as_ref() {
        "28P01" => "user or password",
        "28000" => "user or password, or pg_hba.conf of the server",
        "3D000" => "source.database: no such database",
        "42501" => "source.database: GRANT the user CONNECT on it",
        _ if database.message().contains("unsupported startup parameter") => {
            "a pool stands before the server: set ignore_startup_parameters = extra_float_digits in its pgbouncer.ini, or use the server's own port"
        }
        _ => return None,
    })
}

fn is_canceled(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|database| database.code()).is_some_and(|code| code == QUERY_CANCELED)
}

fn query_error(sql: &str, error: &sqlx::Error) -> Error {
    let text = format!("source: postgres: {}: {error}", sqlx_common::shown(sql));
    let state = error.as_database_error().and_then(|database| database.code()).unwrap_or_default();
    // Syntax, unknown table or column, missing right: a person must act. A value that a cast refuses is of one row.
    if state == "42501" && text.contains("row-level security") {
        return Error::config(format!(
            "{text} (its rows are not all visible to this user: ALTER ROLE user BYPASSRLS, or a policy that is made for it and a view \
             of the table's owner)"
        ));
    }
    if state == "42501" {
        return Error::config(format!("{text} (GRANT the user that right)"));
    }
    if text.contains("not allowed in statement pooling") {
        return Error::config(format!(
            "{text} (all of a day is read in one transaction: pool_mode = transaction or session in pgbouncer.ini, or the server's own port)"
        ));
    }
    match state.get(..2) {
        // A value that a cast refuses.
        Some("22") => Error::data(text),
        Some("42") => Error::config(text),
        _ => Error::retry(text),
    }
}
