//! A connection: where to, how protected, and as whom.

use std::time::Duration;

use ribera_storage::{Error, Result};
use tiberius::{AuthMethod, Client, Config, EncryptionLevel};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};

use super::errors::connect_error;
use super::instance::{self, PORT};
use crate::config::{SqlServerConfig, SqlServerLogin, TlsMode};

pub type Link = Client<Compat<TcpStream>>;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// A listener may send a reader on to a copy of the database, and that to another name of itself.
const HOPS_MAX: usize = 3;
/// Fewer, larger packets than by default.
const PACKET_BYTES: u32 = 8000;

/// Kind and place, without secrets.
pub fn describe(config: &SqlServerConfig) -> String {
    let SqlServerConfig { host, port, instance, database, .. } = config;
    match (port, instance) {
        (None, Some(instance)) => format!("sqlserver {database} at {host}\\{instance}"),
        (port, _) => format!("sqlserver {database} at {host}:{}", port.unwrap_or(PORT)),
    }
}

/// Errors: retry (not reachable), config (login, TLS, names).
pub async fn open(config: &SqlServerConfig) -> Result<Link> {
    let place = describe(config);
    match tokio::time::timeout(CONNECT_TIMEOUT, hop(config, &place)).await {
        Ok(opened) => opened,
        Err(_) => {
            let seconds = CONNECT_TIMEOUT.as_secs();
            Err(Error::retry(format!("source: {place}: no answer within {seconds} s")).with_hint("ribera-agent check"))
        }
    }
}

async fn hop(config: &SqlServerConfig, place: &str) -> Result<Link> {
    let unreachable = |error: std::io::Error| {
        Error::retry(format!("source: {place}: cannot connect")).with_source(error).with_hint("ribera-agent check")
    };
    let mut host = config.host.clone();
    let mut port = instance::port_of(config).await?;
    for _ in 0..HOPS_MAX {
        let tcp = TcpStream::connect((host.as_str(), port)).await.map_err(unreachable)?;
        tcp.set_nodelay(true).map_err(unreachable)?;
        match Client::connect(target(config, &host, port)?, tcp.compat_write()).await {
            Ok(link) => return Ok(link),
            Err(tiberius::error::Error::Routing { host: next, port: at }) => (host, port) = (next, at),
            Err(error) => return Err(connect_error(place, &error, config).with_hint("ribera-agent check")),
        }
    }
    Err(Error::config(format!("source: {place}: sent on more than {HOPS_MAX} times, at last to {host}:{port}")))
}

fn target(config: &SqlServerConfig, host: &str, port: u16) -> Result<Config> {
    crate::source::tls::use_ring();
    let mut target = Config::new();
    target.host(host);
    target.port(port);
    target.database(&config.database);
    target.application_name("ribera-agent");
    target.packet_size(PACKET_BYTES);
    // A reader: it may be sent on to a copy of the database that is kept for readers.
    target.readonly(true);
    // The whole of it has its limit above.
    target.handshake_timeout(None);
    target.command_timeout(None);
    target.authentication(authentication(config)?);
    match config.tls {
        TlsMode::Off => target.encryption(EncryptionLevel::NotSupported),
        TlsMode::Require | TlsMode::Verify => target.encryption(EncryptionLevel::Required),
    }
    match (&config.tls_ca_file, config.tls) {
        (Some(file), TlsMode::Verify) => {
            let certificates = std::fs::read(file).map_err(|error| {
                Error::config(format!("source.tls_ca_file: cannot be read: {}", file.display())).with_source(error)
            })?;
            target.trust_cert_ca_bundle(certificates);
        }
        (None, TlsMode::Verify) => {}
        (_, TlsMode::Require | TlsMode::Off) => target.trust_cert(),
    }
    Ok(target)
}

fn authentication(config: &SqlServerConfig) -> Result<AuthMethod> {
    let password = config.password.as_ref().map(|password| password.expose()).unwrap_or_default();
    match config.login() {
        SqlServerLogin::Server(user) => Ok(AuthMethod::sql_server(user, password)),
        #[cfg(windows)]
        SqlServerLogin::Windows(account) => Ok(AuthMethod::windows(account, password)),
        #[cfg(windows)]
        SqlServerLogin::Integrated => Ok(AuthMethod::Integrated),
        #[cfg(not(windows))]
        SqlServerLogin::Windows(_) | SqlServerLogin::Integrated => {
            Err(Error::bug("a login of Windows, which the configuration refuses on this system"))
        }
    }
}
