//! What the private database servers of the tests share.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A folder for a server, short enough for a socket's path, that goes when this process ends: a server
/// is kept in a `static`, which nobody drops, and a process for each test leaves many of them.
pub fn folder() -> PathBuf {
    let folder = scratch("rb").keep();
    // Its input is a pipe that ends with this process, however that ends; then servers may still be writing.
    let remove = r#"read -r _; for _ in 1 2 3 4 5 6 7 8 9; do rm -rf "$0" && exit; sleep 1; done"#;
    let mut guard = Command::new("sh");
    guard.args(["-c", remove]).arg(&folder).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    // Out of the way of signals that are for the test.
    std::os::unix::process::CommandExt::process_group(&mut guard, 0);
    std::mem::forget(guard.spawn().unwrap());
    folder
}

/// A folder in memory where there is room for it, since every commit waits for the disk; else on disk.
pub fn scratch(prefix: &str) -> tempfile::TempDir {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix);
    match free_bytes("/dev/shm") {
        Some(free) if free > ROOM => builder.tempdir_in("/dev/shm").unwrap(),
        _ => builder.tempdir().unwrap(),
    }
}

/// For the servers of the tests that run beside each other; containers often get 64 MiB.
const ROOM: u64 = 3 << 30;

fn free_bytes(folder: &str) -> Option<u64> {
    let df = Command::new("df").args(["--output=avail", "--block-size=1", folder]).output().ok()?;
    std::str::from_utf8(&df.stdout).ok()?.lines().nth(1)?.trim().parse().ok()
}

/// Starts a server by way of `setpriv --pdeathsig`, so that it ends with this process.
pub fn spawn(mut command: Command) {
    // The signal of a parent's death is of the thread that started the child: one that never ends.
    std::thread::spawn(move || {
        let mut server = command.spawn().expect("setpriv is installed (util-linux)");
        let _ = server.wait();
        std::thread::park();
    });
}

/// The Python of the environment that setup makes from `tests/requirements.txt`, with clients and servers of others.
pub fn python() -> PathBuf {
    let environment = std::env::var_os("VENV").expect("VENV is set (source infra/dev/env.sh after infra/dev/setup.sh)");
    PathBuf::from(environment).join("bin/python")
}

/// The configuration of one store on a server, up to the mapping; `limits` are more keys of that section.
pub fn store(kind: &str, port: u16, database: &str, password: &str, tls: &str, limits: &str) -> String {
    format!(
        r#"
folder = "agent"
object_store = {{ folder = "objects" }}
[limits]
chunk_timeout_s = 20
{limits}

[[store]]
id = "s1"
time_zone = "America/New_York"
adapter = "caja"
[store.source]
kind = "{kind}"
host = "127.0.0.1"
port = {port}
database = "{database}"
user = "lector"
password = "{password}"
tls = "{tls}"

"#
    )
}

/// The mapping of the table `lineas`.
pub const LINES_MAPPING: &str = r#"
[adapter.caja.ventas]
from = "lineas"
date = "fecha"
[adapter.caja.ventas.columns]
ticket_id = "ticket"
linea = "linea"
vendido_en = "momento"
producto_id = "producto"
cantidad = "cantidad"
total = "total"
"#;

/// A certificate authority `name`: its key and `name.pem`.
pub fn authority(root: &Path, name: &str) {
    openssl(
        root,
        &format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN={name} -keyout {name}.key -out {name}.pem"
        ),
    );
}

/// A server's key and certificate for this machine, signed by the authority `ca`.
pub fn certificate(root: &Path) {
    std::fs::write(root.join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").unwrap();
    openssl(
        root,
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=pos -keyout server.key -out server.csr",
    );
    openssl(
        root,
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile names -out server.pem",
    );
}

fn openssl(root: &Path, words: &str) {
    let done = Command::new("openssl").args(words.split(' ')).current_dir(root).stderr(Stdio::null()).status();
    assert!(done.expect("openssl is installed").success(), "openssl {words}");
}
