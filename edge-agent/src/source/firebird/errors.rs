//! What the server's errors mean for whoever runs the agent. The driver gives their text, in
//! English whatever the server's language, and rarely a code.

use ribera_storage::{Error, ErrorKind};
use rsfbclient_core::FbError;

use crate::source::sqlx_common::shown;

/// A part of a message, what it means, and what to do.
type Meaning = (&'static str, ErrorKind, &'static str);

const CONNECT: &[Meaning] = &[
    ("user name and password are not defined", ErrorKind::Config, "user or password"),
    // The server would try another login with that user and password.
    ("(ContAuth)", ErrorKind::Config, "user or password"),
    (
        "Error occurred during login",
        ErrorKind::Config,
        "user or password, or a server that offers only logins of Firebird 2: its firebird.log says more; there AuthServer = Srp, and CREATE USER ... USING PLUGIN Srp",
    ),
    (
        "Invalid auth plugin",
        ErrorKind::Config,
        "the server offers only logins of Firebird 2: set AuthServer = Srp in its firebird.conf and CREATE USER ... USING PLUGIN Srp",
    ),
    ("Incompatible wire encryption", ErrorKind::Config, "set WireCrypt = Enabled in the server's firebird.conf"),
    ("Role ", ErrorKind::Config, "source.role"),
    ("CHARACTER SET", ErrorKind::Config, "source.charset"),
    ("is not a valid database", ErrorKind::Config, "source.database"),
    ("unsupported on-disk structure", ErrorKind::Config, "source.database is of another version of Firebird"),
    ("No such file", ErrorKind::Config, "source.database: no such file or alias on the server"),
    ("Error while trying to open file", ErrorKind::Config, "source.database: the server cannot open it"),
    (
        "is not allowed by server configuration",
        ErrorKind::Config,
        "source.database: see DatabaseAccess in firebird.conf",
    ),
    ("unavailable database", ErrorKind::Config, "set WireCrypt = Enabled in the server's firebird.conf"),
];

const QUERY: &[Meaning] = &[
    ("no permission for", ErrorKind::Config, "GRANT the user that right"),
    (
        "Malformed string",
        ErrorKind::Config,
        "text without a declared character set: set source.charset to the one its programs write, such as WIN1252",
    ),
    (
        "Cannot transliterate",
        ErrorKind::Config,
        "text that source.charset cannot hold: remove source.charset, which then is UTF8",
    ),
    ("Data type unknown", ErrorKind::Config, "give the parameter a type: CAST(:store AS VARCHAR(64))"),
    (
        "Unsupported column type",
        ErrorKind::Config,
        "a type of Firebird 4, an array or a BLOB of its own sub type: CAST the column in the mapping",
    ),
    ("read-only transaction", ErrorKind::Config, "the agent only reads; a procedure it asks must not write"),
    ("database SQL dialect 1", ErrorKind::Config, "in place of `round` write CAST(... AS NUMERIC(9,N))"),
    ("Token unknown", ErrorKind::Config, ""),
    ("SQL error code = -", ErrorKind::Config, ""),
    ("Invalid expression in the select list", ErrorKind::Config, ""),
    ("no column name specified", ErrorKind::Config, "give each result column a name: AS \"name\""),
    ("was specified multiple times", ErrorKind::Config, "give each result column a name of its own"),
    ("numeric overflow, or string truncation", ErrorKind::Data, ""),
    ("conversion error from string", ErrorKind::Data, ""),
    ("Integer overflow", ErrorKind::Data, ""),
    ("Integer divide by zero", ErrorKind::Data, ""),
    ("Floating-point divide by zero", ErrorKind::Data, ""),
];

pub fn connect_error(place: &str, error: FbError) -> Error {
    let text = format!("source: {place}: cannot connect");
    meant(CONNECT, &text, error).with_hint("ribera-agent check")
}

pub fn query_error(sql: &str, error: FbError) -> Error {
    meant(QUERY, &format!("source: firebird: {}", shown(sql)), error)
}

/// Another try, unless the message is known to mean that a person must act.
fn meant(known: &[Meaning], text: &str, error: FbError) -> Error {
    let message = match error {
        FbError::Io(io) => return Error::retry(text).with_source(io),
        FbError::Sql { msg, .. } | FbError::Other(msg) => msg.trim_end().replace('\n', "; "),
    };
    match known.iter().find(|(part, ..)| message.contains(part)) {
        Some((_, kind, "")) => Error::new(*kind, format!("{text}: {message}")),
        Some((_, kind, advice)) => Error::new(*kind, format!("{text}: {message} ({advice})")),
        None => Error::retry(format!("{text}: {message}")),
    }
}
