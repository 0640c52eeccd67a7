//! A private PostgreSQL server: a folder of its own, a free port of 127.0.0.1, ended with the test
//! process whatever becomes of it.

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::servers;

/// Who runs the server when the tests run as root, which PostgreSQL refuses: nobody.
const UNPRIVILEGED: u32 = 65_534;

pub struct Server {
    folder: PathBuf,
    programs: PathBuf,
    pub port: u16,
    /// The authority that signed the server's certificate.
    pub ca_file: PathBuf,
}

/// The server of this process, started when first asked for. It takes TLS and plain connections.
pub fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(start)
}

impl Server {
    /// Runs statements as the owner; what they answer.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let mut client = Command::new(self.programs.join("psql"))
            .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "-v", "ON_ERROR_STOP=1"])
            .args(["--username=dueno", "--dbname", database])
            .arg(format!("--host={}", self.folder.display()))
            .arg(format!("--port={}", self.port))
            .env("PGCLIENTENCODING", "UTF8")
            .env("PGPASSWORD", "")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("psql is installed (apt-get install postgresql-client)");
        let mut input = client.stdin.take().unwrap();
        std::io::Write::write_all(&mut input, sql.as_bytes()).unwrap();
        drop(input);
        let output = client.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", sql.chars().take(2000).collect::<String>());
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// The same as the reader, through what listens at `port`.
    pub fn sql_at(&self, port: u16, database: &str, sql: &str) -> String {
        let output = Command::new(self.programs.join("psql"))
            .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--username=lector", "--host=127.0.0.1"])
            .args(["--dbname", database, "--command", sql])
            .arg(format!("--port={port}"))
            .env("PGPASSWORD", "contraseña")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// A fresh database of an encoding, which the reader `lector` may read.
    pub fn database(&self, name: &str, encoding: &str) -> String {
        self.sql("postgres", &format!("DROP DATABASE IF EXISTS {name}"));
        self.sql(
            "postgres",
            &format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"),
        );
        self.sql(name, "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO lector");
        name.to_owned()
    }
}

/// The folder of the newest server installed.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let version = |path: &Path| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let newest = versions.map(|entry| entry.path()).filter(|path| path.join("bin/postgres").exists());
    newest.max_by_key(|path| version(path)).expect("PostgreSQL is installed (apt-get install postgresql)").join("bin")
}

fn start() -> Server {
    let (root, programs) = (servers::folder(), programs());
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let is_root = std::fs::metadata("/proc/self").map(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0).unwrap();
    let own = |path: &Path| {
        if is_root {
            chown(path, Some(UNPRIVILEGED), Some(UNPRIVILEGED)).unwrap();
        }
    };
    let command = |program: &Path| {
        let mut command = Command::new(program);
        if is_root {
            command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
        }
        command.current_dir(&root).env("LC_ALL", "C.UTF-8");
        command
    };
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o755)).unwrap();
    own(&root);
    let data = root.join("data");
    let made = command(&programs.join("initdb"))
        .args(["--username=dueno", "--auth-local=trust", "--auth-host=scram-sha-256", "--no-sync", "--pgdata"])
        .arg(&data)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(made.success());
    servers::authority(&root, "ca");
    servers::certificate(&root);
    std::fs::set_permissions(root.join("server.key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    for name in ["server.key", "server.pem"] {
        own(&root.join(name));
    }
    let mut server = command(Path::new("setpriv"));
    server
        .args(["--pdeathsig", "INT", "--"])
        .arg(programs.join("postgres"))
        .arg("-D")
        .arg(&data)
        .args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "ssl=on", "-c", "max_connections=20"])
        .args(["-c", &format!("port={port}")])
        .args(["-c", &format!("unix_socket_directories={}", root.display())])
        .args(["-c", &format!("ssl_cert_file={}", root.join("server.pem").display())])
        .args(["-c", &format!("ssl_key_file={}", root.join("server.key").display())])
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(root.join("log")).unwrap());
    servers::spawn(server);
    let since = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        let log = || std::fs::read_to_string(root.join("log")).unwrap_or_default();
        assert!(since.elapsed() < Duration::from_secs(60), "the server does not listen: {}", log());
        std::thread::park_timeout(Duration::from_millis(50));
    }
    let server = Server { ca_file: root.join("ca.pem"), folder: root, programs, port };
    server.wait();
    server.sql("postgres", "CREATE ROLE lector LOGIN PASSWORD 'contraseña'");
    server
}

impl Server {
    /// It listens before it takes logins.
    fn wait(&self) {
        let since = Instant::now();
        let ready = || {
            let mut ask = Command::new(self.programs.join("pg_isready"));
            ask.arg(format!("--host={}", self.folder.display())).arg(format!("--port={}", self.port));
            ask.stdout(Stdio::null()).status().is_ok_and(|status| status.success())
        };
        while !ready() {
            assert!(since.elapsed() < Duration::from_secs(60), "the server takes no logins");
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }
}
