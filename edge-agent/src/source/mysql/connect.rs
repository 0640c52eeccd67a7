//! From a socket to a session: greeting, TLS, login.

use tokio::net::TcpStream;

use super::fault::Fault;
use super::login::{Method, plain};
use super::query::Connection;
use super::tls;
use super::wire::{Fields, Line, Wire, put_number};
use crate::config::{ServerConfig, TlsMode};

/// What client and server can do.
mod capability {
    pub const LONG_PASSWORD: u32 = 1;
    pub const LONG_FLAG: u32 = 1 << 2;
    pub const CONNECT_WITH_DB: u32 = 1 << 3;
    pub const PROTOCOL_41: u32 = 1 << 9;
    pub const SSL: u32 = 1 << 11;
    pub const TRANSACTIONS: u32 = 1 << 13;
    pub const SECURE_CONNECTION: u32 = 1 << 15;
    pub const MULTI_RESULTS: u32 = 1 << 17;
    pub const PS_MULTI_RESULTS: u32 = 1 << 18;
    pub const PLUGIN_AUTH: u32 = 1 << 19;
    pub const PLUGIN_AUTH_LENENC: u32 = 1 << 21;
    pub const DEPRECATE_EOF: u32 = 1 << 24;
    /// Without these no server of the last twenty years can be meant.
    pub const NEEDED: u32 = PROTOCOL_41 | SECURE_CONNECTION;
}

use capability as can;

/// Neither several statements in one nor files of the client: a source is only ever read.
const WANTED: u32 = can::LONG_PASSWORD
    | can::LONG_FLAG
    | can::CONNECT_WITH_DB
    | can::PROTOCOL_41
    | can::TRANSACTIONS
    | can::SECURE_CONNECTION
    | can::MULTI_RESULTS
    | can::PS_MULTI_RESULTS
    | can::PLUGIN_AUTH
    | can::PLUGIN_AUTH_LENENC
    | can::DEPRECATE_EOF;

const PORT: u16 = 3306;
const PACKET_BYTES_MAX: u32 = 16 << 20;
/// `utf8mb4_general_ci`.
const COLLATION: u8 = 45;
const NONCE_BYTES: usize = 20;
/// A server may ask for another method once; more rounds than these no method has.
const ROUNDS_MAX: usize = 8;

/// Connects and logs in.
pub async fn connect(config: &ServerConfig) -> Result<Connection, Fault> {
    let (line, is_local) = open(config).await?;
    let mut wire = Wire::new(line);
    wire.receive().await?;
    let greeting = Greeting::read(wire.payload())?;
    let mut capabilities = WANTED & greeting.capabilities;
    if capabilities & can::NEEDED != can::NEEDED {
        return Err(Fault::protocol("a server older than MySQL 4.1"));
    }
    let encrypted = config.tls != TlsMode::Off && !is_local;
    if encrypted {
        if greeting.capabilities & can::SSL == 0 {
            return Err(Fault::Tls("must be \"off\" because the server does not offer TLS".to_owned()));
        }
        capabilities |= can::SSL;
        wire.send(&start_of_answer(capabilities)).await?;
        let (line, sequence) = wire.upgrade()?;
        let host = config.host.as_deref().unwrap_or_default();
        wire = Wire::resume(tls::encrypt(line, host, config).await?, sequence);
    }
    log_in(&mut wire, config, &greeting, capabilities, encrypted || is_local).await?;
    let mut connection = Connection::new(wire, capabilities & can::DEPRECATE_EOF == 0);
    // Session time in UTC, so that TIMESTAMP columns arrive as UTC; the server's SQL mode stays.
    connection.command("SET NAMES utf8mb4").await?;
    connection.command("SET time_zone = '+00:00'").await?;
    Ok(connection)
}

/// The line, and whether it never leaves this machine.
async fn open(config: &ServerConfig) -> Result<(Box<dyn Line>, bool), Fault> {
    if let Some(socket) = &config.socket {
        #[cfg(unix)]
        return Ok((Box::new(tokio::net::UnixStream::connect(socket).await?), true));
        #[cfg(not(unix))]
        return Err(Fault::Login(format!("source.socket: must be left out on this system, got {}", socket.display())));
    }
    let host = config.host.as_deref().unwrap_or("localhost");
    let stream = TcpStream::connect((host, config.port.unwrap_or(PORT))).await?;
    stream.set_nodelay(true)?;
    Ok((Box::new(stream), false))
}

/// What a server says first.
#[derive(Debug, PartialEq, Eq)]
struct Greeting {
    capabilities: u32,
    nonce: Vec<u8>,
    method: Vec<u8>,
}

impl Greeting {
    fn read(packet: &[u8]) -> Result<Self, Fault> {
        match packet.first() {
            Some(0x0a) => Self::fields(packet).ok_or_else(|| Fault::protocol("a greeting that is cut off")),
            Some(0xff) => Err(Fault::of_packet(packet)),
            _ => Err(Fault::protocol("this is no MySQL or MariaDB server")),
        }
    }

    fn fields(packet: &[u8]) -> Option<Self> {
        let mut fields = Fields(packet);
        fields.u8()?;
        let _version = fields.until_zero();
        let _connection = fields.u32()?;
        let mut nonce = fields.bytes(8)?.to_vec();
        fields.u8()?;
        let low = fields.u16()?;
        let _collation_and_status = fields.bytes(3)?;
        let high = fields.u16()?;
        let nonce_bytes = usize::from(fields.u8()?);
        let _reserved = fields.bytes(10)?;
        let rest = fields.bytes(nonce_bytes.saturating_sub(8).max(13).min(fields.0.len()))?;
        nonce.extend_from_slice(rest);
        nonce.truncate(NONCE_BYTES);
        Some(Self { capabilities: u32::from(low) | u32::from(high) << 16, nonce, method: fields.until_zero().to_vec() })
    }
}

/// What a request for TLS and the answer to the greeting begin with.
fn start_of_answer(capabilities: u32) -> Vec<u8> {
    let mut packet = Vec::with_capacity(128);
    packet.extend_from_slice(&capabilities.to_le_bytes());
    packet.extend_from_slice(&PACKET_BYTES_MAX.to_le_bytes());
    packet.push(COLLATION);
    packet.extend_from_slice(&[0; 23]);
    packet
}

fn answer(capabilities: u32, config: &ServerConfig, method: Method, proof: &[u8]) -> Vec<u8> {
    let mut packet = start_of_answer(capabilities);
    packet.extend_from_slice(config.user.as_bytes());
    packet.push(0);
    if capabilities & can::PLUGIN_AUTH_LENENC != 0 {
        put_number(&mut packet, proof.len());
    } else {
        packet.push(proof.len() as u8);
    }
    packet.extend_from_slice(proof);
    if capabilities & can::CONNECT_WITH_DB != 0 {
        packet.extend_from_slice(config.database.as_bytes());
        packet.push(0);
    }
    if capabilities & can::PLUGIN_AUTH != 0 {
        packet.extend_from_slice(method.name().as_bytes());
        packet.push(0);
    }
    packet
}

async fn log_in(
    wire: &mut Wire,
    config: &ServerConfig,
    greeting: &Greeting,
    capabilities: u32,
    is_safe: bool,
) -> Result<(), Fault> {
    let password = config.password.as_ref().map_or("", |password| password.expose());
    // A server whose own choice is unknown here asks again by the user's.
    let offered = Method::of(&greeting.method).filter(|method| *method != Method::Sha256);
    let mut method = offered.unwrap_or(Method::Native);
    let proof = method.answer(password, &greeting.nonce, is_safe)?;
    wire.send(&answer(capabilities, config, method, &proof)).await?;
    for _ in 0..ROUNDS_MAX {
        wire.receive().await?;
        let reply = match wire.payload() {
            [0x00, ..] => return Ok(()),
            packet @ [0xff, ..] => return Err(Fault::of_packet(packet)),
            [0xfe, rest @ ..] => {
                let (other, nonce) = other_method(rest)?;
                method = other;
                method.answer(password, nonce, is_safe)?
            }
            // The password was right the last time and is so now; "well done" follows.
            [0x01, 0x03] if method == Method::CachingSha2 => continue,
            [0x01, 0x04] if method == Method::CachingSha2 => plain(password, is_safe)?,
            _ => return Err(Fault::protocol("an answer to the login that this client does not know")),
        };
        wire.send(&reply).await?;
    }
    Err(Fault::protocol("a login without an end"))
}

/// The method and the nonce that a server asks for instead.
fn other_method(request: &[u8]) -> Result<(Method, &[u8]), Fault> {
    let mut fields = Fields(request);
    let name = fields.until_zero();
    let nonce = fields.0.strip_suffix(&[0]).unwrap_or(fields.0);
    match Method::of(name) {
        Some(method) => Ok((method, nonce)),
        None => Err(Fault::Login(format!(
            "source.user: must log in by mysql_native_password, caching_sha2_password or sha256_password, got {:?}",
            String::from_utf8_lossy(name)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting() -> Vec<u8> {
        let mut packet = vec![0x0a];
        packet.extend_from_slice(b"5.5.5-10.11.6-MariaDB\0");
        packet.extend_from_slice(&7_u32.to_le_bytes());
        packet.extend_from_slice(b"12345678\0");
        packet.extend_from_slice(&[0xfe, 0xf7, 45, 2, 0, 0xff, 0x81, 21]);
        packet.extend_from_slice(&[0; 10]);
        packet.extend_from_slice(b"abcdefghijkl\0mysql_native_password\0");
        packet
    }

    #[test]
    fn a_greeting_gives_capabilities_nonce_and_method() {
        let read = Greeting::read(&greeting()).unwrap();
        assert_eq!(read.capabilities, 0x81ff_f7fe);
        assert_eq!(read.nonce, b"12345678abcdefghijkl");
        assert_eq!(Method::of(&read.method), Some(Method::Native));
    }

    #[test]
    fn a_greeting_cut_off_anywhere_is_refused_or_read_without_a_panic() {
        let whole = greeting();
        for length in 0..40 {
            assert!(Greeting::read(&whole[..length]).is_err(), "{length}");
        }
        for length in 40..whole.len() {
            let _ = Greeting::read(&whole[..length]);
        }
    }

    #[test]
    fn an_unknown_method_is_named_and_the_old_one_too() {
        for (request, name) in [(&b"auth_gssapi_client\0abc"[..], "auth_gssapi_client"), (&b""[..], "\"\"")] {
            assert!(matches!(other_method(request), Err(Fault::Login(why)) if why.contains(name)));
        }
        let (method, nonce) = other_method(b"caching_sha2_password\0abcdefghijklmnopqrst\0").unwrap();
        assert_eq!((method, nonce), (Method::CachingSha2, &b"abcdefghijklmnopqrst"[..]));
    }
}
