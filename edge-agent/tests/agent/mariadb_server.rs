//! A private MariaDB server: a folder of its own, a free port of 127.0.0.1, ended with the test
//! process whatever becomes of it.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::servers;

pub struct Server {
    pub socket: PathBuf,
    pub port: u16,
    /// The authority that signed the server's certificate.
    pub ca_file: PathBuf,
    /// Another one, that did not.
    pub other_ca_file: PathBuf,
}

/// The server of this process, started when first asked for. It listens without TLS on no port:
/// clients may choose.
pub fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(start)
}

impl Server {
    /// Runs statements as the owner; gives what the client prints.
    pub fn sql(&self, sql: &str) -> String {
        let mut client = Command::new("mariadb")
            .args(["--no-defaults", "--user=root", "--default-character-set=utf8mb4", "--batch", "--skip-column-names"])
            .arg(format!("--socket={}", self.socket.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the mariadb client is installed (apt-get install mariadb-client)");
        let mut input = client.stdin.take().unwrap();
        std::io::Write::write_all(&mut input, sql.as_bytes()).unwrap();
        drop(input);
        let output = client.wait_with_output().unwrap();
        assert!(output.status.success(), "{sql}");
        String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned()
    }

    /// A fresh database and the name of it.
    pub fn database(&self, name: &str) -> String {
        self.sql(&format!("DROP DATABASE IF EXISTS {name}; CREATE DATABASE {name} CHARACTER SET utf8mb4;"));
        name.to_owned()
    }
}

fn start() -> Server {
    let root = servers::folder();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let socket = root.join("s");
    let data = root.join("data");
    // A server that starts removes the temporary tables of every other one in the same folder.
    let temporary = format!("--tmpdir={}", root.display());
    let user = format!("--user={}", std::env::var("USER").unwrap_or_else(|_| "root".to_owned()));
    let installed = Command::new("mariadb-install-db")
        .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", &user, &temporary])
        .arg(format!("--datadir={}", data.display()))
        .output()
        .expect("mariadb-install-db is installed (apt-get install mariadb-server)");
    assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stdout));
    for name in ["ca", "other"] {
        servers::authority(&root, name);
    }
    servers::certificate(&root);
    let program = ["/usr/sbin/mariadbd", "/usr/bin/mariadbd"].into_iter().find(|path| Path::new(path).exists());
    let log = std::fs::File::create(root.join("log")).unwrap();
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", program.expect("mariadbd is installed"), "--no-defaults", &user, &temporary])
        .arg(format!("--datadir={}", data.display()))
        .arg(format!("--socket={}", socket.display()))
        .arg(format!("--pid-file={}", root.join("pid").display()))
        .arg(format!("--ssl-ca={}", root.join("ca.pem").display()))
        .arg(format!("--ssl-cert={}", root.join("server.pem").display()))
        .arg(format!("--ssl-key={}", root.join("server.key").display()))
        .arg(format!("--port={port}"))
        .args(["--bind-address=127.0.0.1", "--skip-name-resolve", "--skip-log-bin", "--innodb-buffer-pool-size=64M"])
        .args(["--innodb-flush-log-at-trx-commit=0", "--innodb-log-file-size=8M", "--character-set-server=utf8mb4"])
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    servers::spawn(command);
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() || !socket.exists() {
        assert!(begun.elapsed() < Duration::from_secs(120), "mariadbd does not answer");
        std::thread::park_timeout(Duration::from_millis(50));
    }
    let server = Server { socket, port, ca_file: root.join("ca.pem"), other_ca_file: root.join("other.pem") };
    server.sql(
        "CREATE USER lector@'127.0.0.1' IDENTIFIED BY 'secret'; GRANT SELECT ON *.* TO lector@'127.0.0.1';
         CREATE USER cajero@'127.0.0.1' IDENTIFIED BY 'secret'; GRANT SELECT, INSERT ON *.* TO cajero@'127.0.0.1';",
    );
    server
}
