//! A server of SQL Server's protocol that answers what a test tells it to, on a port of its own.
//! It is no database: a test sees what came in and says what goes out.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::tds::{self, counted_text, done, error, short_text, token};

/// A statement as it came in.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub sql: String,
    /// `@P1 date,@P2 nvarchar(4000)`.
    pub declared: String,
    pub parameters: Vec<Parameter>,
    /// Sent by sp_executesql.
    pub by_procedure: bool,
    pub transaction: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Parameter {
    Text(String),
    /// Days since year 1.
    Date(u32),
}

/// What goes out.
pub enum Reply {
    /// Tokens; those of a statement's end are added.
    Tokens(Vec<u8>, usize),
    /// These and no more, as they are.
    Whole(Vec<u8>),
    /// These, and then nothing until the client wants no more.
    Silence(Vec<u8>),
    /// The connection ends.
    Hangup,
}

/// How a login came in.
#[derive(Debug, Clone, Default)]
pub struct Login {
    pub user: String,
    pub database: String,
    pub program: String,
    pub readonly: bool,
}

#[derive(Default)]
pub struct Seen {
    pub logins: Vec<Login>,
    pub requests: Vec<Request>,
    /// How often a client wanted no more.
    pub attentions: usize,
}

type Script = dyn Fn(&Request) -> Reply + Send + Sync;

pub struct Responder {
    pub port: u16,
    pub seen: Arc<Mutex<Seen>>,
}

/// The server has no encryption, or wants all encrypted.
const NOT_ENCRYPTED: u8 = 2;
pub const ENCRYPTED: u8 = 1;
const TRANSACTION: u64 = 0x1122_3344_5566_7788;
/// Kinds of packets; what TLS says while it begins goes as the first.
pub const PRELOGIN: u8 = 0x12;
const ANSWER: u8 = 4;
const PACKET_BYTES: usize = 4096;

/// Answers each statement by `script`, and the agent's own questions as a server does; `snapshot`:
/// the database allows snapshots.
pub fn respond(snapshot: bool, script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Responder {
    start(move |request| own(request, snapshot).unwrap_or_else(|| script(request)))
}

/// The same, where `script` comes first and need not answer everything.
pub fn respond_all(snapshot: bool, script: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static) -> Responder {
    start(move |request| script(request).or_else(|| own(request, snapshot)).unwrap_or_else(|| unknown(request)))
}

fn unknown(request: &Request) -> Reply {
    Reply::Tokens(error(2812, 16, &format!("Could not find: {}", request.sql)), 0)
}

fn start(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Responder {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let script: Arc<Script> = Arc::new(script);
    let shared = seen.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (script, seen) = (script.clone(), shared.clone());
            // A client that goes away is no fault.
            std::thread::spawn(move || serve(stream, &*script, &seen).ok());
        }
    });
    Responder { port, seen }
}

impl Request {
    /// The days that a statement with dates asks for.
    pub fn asked_days(&self) -> Vec<String> {
        let date = |parameter: &Parameter| match parameter {
            Parameter::Date(days) => i32::try_from(*days).unwrap() - 719_162,
            Parameter::Text(text) => panic!("{text} in place of a day"),
        };
        let (from, to) = (date(&self.parameters[0]), date(&self.parameters[1]));
        (from..=to).map(ribera_agent::calendar::date_text).collect()
    }
}

impl Responder {
    pub fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().requests.clone()
    }

    /// What came in that is not the agent's own.
    pub fn asked(&self, part: &str) -> Vec<Request> {
        self.requests().into_iter().filter(|request| request.sql.contains(part)).collect()
    }
}

/// What clients ask of every server.
fn own(request: &Request, snapshot: bool) -> Option<Reply> {
    let sql = request.sql.as_str();
    let one = |name: &str, kind: &'static str, value: Option<&str>| {
        let columns = [(name.to_owned(), tds::Type::of(kind))];
        Some(Reply::Tokens(tds::result(&columns, &[vec![value.map(str::to_owned)]]), 1))
    };
    match sql {
        "SELECT SYSUTCDATETIME()" => one("", "datetime2(7)", Some("2017-05-10T16:00:00.1234567")),
        _ if sql.starts_with("SELECT snapshot_isolation_state") => {
            one("snapshot_isolation_state", "tinyint", Some(if snapshot { "1" } else { "0" }))
        }
        _ if sql.contains("dm_exec_describe_first_result_set") => {
            Some(Reply::Tokens(tds::result(&[("name".to_owned(), tds::Type::of("nvarchar(128)"))], &[]), 0))
        }
        // No table is behind the answers: an empty one has no date to prove.
        _ if sql.contains(" AS c1") => one("c1", "int", Some("0")),
        _ if sql.contains("HAS_PERMS_BY_NAME") => one("rights", "nvarchar(300)", None),
        "BEGIN TRANSACTION" => {
            let body = [&[8, 8][..], &TRANSACTION.to_le_bytes(), &[0]].concat();
            Some(Reply::Tokens(token(0xE3, &body), 0))
        }
        _ if sql.starts_with("IF @@TRANCOUNT > 0 ROLLBACK") => {
            let body = [&[10, 0, 8][..], &TRANSACTION.to_le_bytes()].concat();
            Some(Reply::Tokens(token(0xE3, &body), 0))
        }
        "SELECT @@TRANCOUNT" => one("", "int", Some("1")),
        _ if sql.starts_with("SET ") => Some(Reply::Tokens(Vec::new(), 0)),
        _ => None,
    }
}

fn serve(mut stream: TcpStream, script: &Script, seen: &Mutex<Seen>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    while let Some((kind, packet)) = message(&mut stream)? {
        match kind {
            PRELOGIN => send(&mut stream, &prelogin(NOT_ENCRYPTED))?,
            0x10 => {
                let (answer, login) = login(&packet, stream.local_addr()?.port());
                seen.lock().unwrap().logins.push(login);
                send(&mut stream, &answer)?;
            }
            1 | 3 => {
                let request = if kind == 1 { batch(&packet) } else { procedure(&packet) };
                seen.lock().unwrap().requests.push(request.clone());
                match script(&request) {
                    Reply::Tokens(tokens, rows) => send(&mut stream, &ended(&request, tokens, rows))?,
                    Reply::Whole(tokens) => send(&mut stream, &tokens)?,
                    Reply::Silence(tokens) => send_part(&mut stream, &tokens)?,
                    Reply::Hangup => return Ok(()),
                }
            }
            6 => {
                seen.lock().unwrap().attentions += 1;
                send(&mut stream, &done(tds::DONE, tds::ATTENTION, 0))?;
            }
            other => panic!("a packet of kind {other}"),
        }
    }
    Ok(())
}

fn ended(request: &Request, mut tokens: Vec<u8>, rows: usize) -> Vec<u8> {
    let counted = if rows > 0 { tds::COUNTED } else { 0 };
    if request.by_procedure {
        tokens.extend(done(tds::DONE_IN_PROC, tds::MORE | counted, rows));
        tokens.extend(tds::returned(0));
        tokens.extend(done(tds::DONE_PROC, 0, 0));
    } else {
        tokens.extend(done(tds::DONE, counted, rows));
    }
    tokens
}

/// A whole message, of one packet or several; `None` at the end.
pub fn message(stream: &mut TcpStream) -> std::io::Result<Option<(u8, Vec<u8>)>> {
    let mut body = Vec::new();
    loop {
        let mut header = [0; 8];
        match stream.read_exact(&mut header) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let begun = body.len();
        body.resize(begun + length - header.len(), 0);
        stream.read_exact(&mut body[begun..])?;
        if header[1] & 1 == 1 {
            return Ok(Some((header[0], body)));
        }
    }
}

pub fn send(stream: &mut TcpStream, body: &[u8]) -> std::io::Result<()> {
    send_as(stream, ANSWER, body)
}

pub fn send_as(stream: &mut TcpStream, kind: u8, body: &[u8]) -> std::io::Result<()> {
    let pieces: Vec<&[u8]> = body.chunks(PACKET_BYTES - 8).collect();
    for (index, piece) in pieces.iter().enumerate() {
        packet(stream, kind, piece, index + 1 == pieces.len(), index as u8 + 1)?;
    }
    stream.flush()
}

/// More is to come.
fn send_part(stream: &mut TcpStream, body: &[u8]) -> std::io::Result<()> {
    body.chunks(PACKET_BYTES - 8).try_for_each(|piece| packet(stream, ANSWER, piece, false, 1))
}

fn packet(stream: &mut TcpStream, kind: u8, body: &[u8], last: bool, number: u8) -> std::io::Result<()> {
    let length = (body.len() as u16 + 8).to_be_bytes();
    let header = [kind, u8::from(last), length[0], length[1], 0, 0, number, 0];
    stream.write_all(&[&header[..], body].concat())
}

/// Version 15, one result at a time.
pub fn prelogin(encryption: u8) -> Vec<u8> {
    let options: [(u8, &[u8]); 5] =
        [(0, &[15, 0, 0x07, 0xD0, 0, 0]), (1, &[encryption]), (2, &[0]), (3, &[]), (4, &[0])];
    let mut offset = options.len() as u16 * 5 + 1;
    let (mut head, mut values) = (Vec::new(), Vec::new());
    for (kind, value) in options {
        head.push(kind);
        head.extend(offset.to_be_bytes());
        head.extend((value.len() as u16).to_be_bytes());
        values.extend(value);
        offset += value.len() as u16;
    }
    [&head[..], &[0xFF], &values[..]].concat()
}

/// User `lector`, password `secret`, any database but `ninguna`; `lejos1234` is to be
/// found at port 1234.
fn login(packet: &[u8], here: u16) -> (Vec<u8>, Login) {
    let at = |offset: usize| usize::from(u16::from_le_bytes([packet[offset], packet[offset + 1]]));
    let units = |offset: usize| packet[at(offset)..at(offset) + at(offset + 2) * 2].to_vec();
    let text = |offset: usize| from_utf16(&units(offset));
    let clear: Vec<u8> = units(44).iter().map(|byte| (byte ^ 0xA5).rotate_left(4)).collect();
    let login = Login { user: text(40), database: text(68), program: text(48), readonly: packet[26] & 0x20 != 0 };
    let failed = |number, class, text: &str| [error(number, class, text), done(tds::DONE, tds::FAILED, 0)].concat();
    if login.user != "lector" || from_utf16(&clear) != "secret" {
        return (failed(18456, 14, &format!("Login failed for user '{}'.", login.user)), login);
    }
    if login.database == "ninguna" {
        let text = "Cannot open database \"ninguna\" requested by the login. The login failed.";
        return ([failed(4060, 11, text)].concat(), login);
    }
    let mut answer = Vec::new();
    let changed = |kind: u8, new: &[u8], old: &[u8]| token(0xE3, &[&[kind], new, old].concat());
    answer.extend(changed(1, &short_text(&login.database), &short_text("master")));
    answer.extend(changed(7, &[5, 0x0A, 0x0C, 0xD0, 0, 0], &[0]));
    answer.extend(changed(4, &short_text(&PACKET_BYTES.to_string()), &short_text("4096")));
    // The version of the protocol that was asked for, its bytes the other way round.
    let mut acknowledged = vec![1, packet[7], packet[6], packet[5], packet[4]];
    acknowledged.extend(short_text("Microsoft SQL Server"));
    acknowledged.extend([15, 0, 0x07, 0xD0]);
    answer.extend(token(0xAD, &acknowledged));
    let elsewhere = login.database.strip_prefix("lejos").map(|port| port.parse::<u16>().unwrap());
    if let Some(port) = elsewhere.filter(|port| *port != here) {
        let place = [&[0][..], &port.to_le_bytes(), &counted_text("127.0.0.1")].concat();
        let body = [&[20][..], &(place.len() as u16).to_le_bytes(), &place, &[0, 0]].concat();
        answer.extend(token(0xE3, &body));
    }
    answer.extend(done(tds::DONE, 0, 0));
    (answer, login)
}

/// What stands before a statement: the transaction that it belongs to.
fn headers(packet: &[u8]) -> (u64, &[u8]) {
    let length = u32::from_le_bytes(packet[..4].try_into().unwrap()) as usize;
    let transaction = packet.get(10..18).map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
    (transaction, &packet[length..])
}

fn batch(packet: &[u8]) -> Request {
    let (transaction, sql) = headers(packet);
    Request { sql: from_utf16(sql), transaction, ..Request::default() }
}

/// sp_executesql by its number: statement, declarations, values.
fn procedure(packet: &[u8]) -> Request {
    let (transaction, rest) = headers(packet);
    assert_eq!(rest[..4], [0xFF, 0xFF, 10, 0], "a procedure other than sp_executesql");
    let mut rest = &rest[6..];
    let mut parameters = Vec::new();
    while !rest.is_empty() {
        let name = usize::from(rest[0]) * 2;
        let (value, behind) = parameter(&rest[1 + name + 1..]);
        parameters.push(value);
        rest = behind;
    }
    let mut texts = parameters.drain(..parameters.len().min(2)).map(|one| match one {
        Parameter::Text(text) => text,
        other => panic!("{other:?} in place of a statement"),
    });
    let (sql, declared) = (texts.next().unwrap(), texts.next().unwrap_or_default());
    drop(texts);
    Request { sql, declared, parameters, by_procedure: true, transaction }
}

fn parameter(rest: &[u8]) -> (Parameter, &[u8]) {
    let (kind, rest) = rest.split_first().unwrap();
    match kind {
        0xE7 => {
            let max = u16::from_le_bytes([rest[0], rest[1]]);
            let (bytes, rest) = if max == 0xFFFF { pieces(&rest[7..]) } else { counted(&rest[7..]) };
            (Parameter::Text(from_utf16(&bytes)), rest)
        }
        0x28 => {
            let bytes = &rest[1..1 + usize::from(rest[0])];
            (Parameter::Date(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0])), &rest[1 + bytes.len()..])
        }
        other => panic!("a parameter of type {other:#x}"),
    }
}

fn counted(rest: &[u8]) -> (Vec<u8>, &[u8]) {
    let length = usize::from(u16::from_le_bytes([rest[0], rest[1]]));
    (rest[2..2 + length].to_vec(), &rest[2 + length..])
}

fn pieces(rest: &[u8]) -> (Vec<u8>, &[u8]) {
    let (mut bytes, mut rest) = (Vec::new(), &rest[8..]);
    loop {
        let length = u32::from_le_bytes(rest[..4].try_into().unwrap()) as usize;
        bytes.extend(&rest[4..4 + length]);
        rest = &rest[4 + length..];
        if length == 0 {
            return (bytes, rest);
        }
    }
}

fn from_utf16(bytes: &[u8]) -> String {
    let units: Vec<u16> = bytes.chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    String::from_utf16(&units).unwrap()
}
