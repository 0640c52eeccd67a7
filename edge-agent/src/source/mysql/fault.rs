//! What can go wrong with a server, and what it means to the agent.

use std::fmt;
use std::io;

use ribera_storage::Error;

use super::wire::Fields;

#[derive(Debug)]
pub enum Fault {
    Io(io::Error),
    /// The server answered with an error.
    Server(ServerError),
    /// TLS is asked for and cannot be had, or the certificate is not trusted.
    Tls(String),
    /// The user cannot be authenticated in the way the server wants.
    Login(String),
    /// The server says something that this client does not understand.
    Protocol(String),
    /// Whoever takes the rows refused one.
    Rows(Error),
}

#[derive(Debug)]
pub struct ServerError {
    code: u16,
    /// SQLSTATE; empty when the server did not send one.
    state: String,
    message: String,
}

impl Fault {
    pub fn protocol(what: impl Into<String>) -> Self {
        Self::Protocol(what.into())
    }

    /// Of an error packet.
    pub fn of_packet(payload: &[u8]) -> Self {
        let mut fields = Fields(payload.get(1..).unwrap_or_default());
        let code = fields.u16().unwrap_or_default();
        let state = match fields.0 {
            [b'#', state @ ..] if state.len() >= 5 => {
                fields.0 = &state[5..];
                String::from_utf8_lossy(&state[..5]).into_owned()
            }
            _ => String::new(),
        };
        Self::Server(ServerError { code, state, message: String::from_utf8_lossy(fields.0).into_owned() })
    }

    /// Whether the connection can still be used.
    pub fn leaves_connection(&self) -> bool {
        matches!(self, Self::Server(_) | Self::Rows(_))
    }

    pub fn of_connecting(self, place: &str) -> Error {
        let text = format!("source: {place}: cannot connect");
        let error = match self {
            // The server is there but overloaded or going down.
            Self::Server(server) if server.state.starts_with("08") => Error::retry(format!("{text}: {server}")),
            Self::Server(server) => Error::config(format!("{text}: user, password or database name: {server}")),
            Self::Tls(why) => Error::config(format!("{text}: source.tls: {why}")),
            // How the TLS library says that it does not trust the certificate.
            Self::Io(io) if io.kind() == io::ErrorKind::InvalidData => {
                Error::config(format!("{text}: source.tls: {io}"))
            }
            Self::Login(why) => Error::config(format!("{text}: {why}")),
            Self::Io(io) => Error::retry(text).with_source(io),
            Self::Protocol(what) => Error::retry(format!("{text}: {what}")),
            Self::Rows(error) => error,
        };
        error.with_hint("ribera-agent check")
    }

    pub fn of_query(self, sql: &str) -> Error {
        let shown: String = sql.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(80).collect();
        let text = format!("source: mysql: {shown}");
        match self {
            // Syntax, unknown table or column, missing right: a person must act.
            Self::Server(server) if server.state.starts_with("42") => Error::config(format!("{text}: {server}")),
            Self::Server(server) => Error::retry(format!("{text}: {server}")),
            Self::Io(io) => Error::retry(text).with_source(io),
            Self::Tls(what) | Self::Login(what) | Self::Protocol(what) => Error::retry(format!("{text}: {what}")),
            Self::Rows(error) => error,
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Rows(error)
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.code, self.state, self.message)
    }
}
