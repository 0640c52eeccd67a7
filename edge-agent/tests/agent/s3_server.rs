//! A private S3 server: moto behind a gate that checks every signature (`tests/servers/s3.py`), on
//! free ports of 127.0.0.1, with TLS too, ended with the test process.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use ribera_storage::object::s3::{ProxyChoice, S3Settings};
use ribera_storage::secret::Secret;

use crate::servers::{self, python};

pub const KEY: &str = "AKIATIENDA";
pub const SECRET: &str = "un/secreto+muy-largo";
pub const BUCKET: &str = "ribera-pruebas";

pub struct Server {
    folder: PathBuf,
    pub port: u16,
    pub tls_port: u16,
    /// The authority that signed its certificate.
    pub ca_file: PathBuf,
}

/// The server of this process, started when first asked for.
pub fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(start)
}

impl Server {
    /// In the clear, at this port (the server's own, or one on the way to it). Each `name` is a world of its own.
    pub fn settings(&self, port: u16, name: &str) -> S3Settings {
        S3Settings {
            endpoint: format!("http://127.0.0.1:{port}"),
            bucket: BUCKET.to_owned(),
            region: "eu-west-1".to_owned(),
            prefix: format!("{name}/"),
            access_key_id: KEY.to_owned(),
            secret_access_key: Secret::new(SECRET),
            session_token: None,
            path_style: true,
            ca_file: None,
            proxy: ProxyChoice::Direct,
            timeout: Duration::from_secs(5),
        }
    }

    /// `[object_store.s3]` of an agent's configuration.
    /// A key that `more` has is taken from there.
    pub fn toml(&self, endpoint: &str, name: &str, more: &str) -> String {
        let key = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
        let usual = format!(
            "endpoint = \"{endpoint}\"\nbucket = \"{BUCKET}\"\nregion = \"eu-west-1\"\nprefix = \"{name}\"\n\
             access_key_id = \"{KEY}\"\nsecret_access_key = \"${{S3_SECRET}}\""
        );
        let kept: Vec<&str> = usual.lines().filter(|line| more.lines().all(|other| key(other) != key(line))).collect();
        format!("[object_store.s3]\n{}\n{more}\n", kept.join("\n"))
    }

    /// Runs a program of Python with `s3`, a client of boto3, and `BUCKET`; what it prints.
    pub fn boto(&self, program: &str) -> String {
        let prelude = format!(
            "import boto3\ns3 = boto3.client('s3', endpoint_url='http://127.0.0.1:{}', region_name='us-east-1', \
             aws_access_key_id='{KEY}', aws_secret_access_key='{SECRET}')\nBUCKET = '{BUCKET}'\n",
            self.port
        );
        // Left at once: threads of pyarrow may abort an interpreter that ends by itself.
        let end = "\nimport os, sys\nsys.stdout.flush()\nos._exit(0)\n";
        let program = format!("{prelude}{program}{end}");
        let output = Command::new(python()).arg("-c").arg(program).env("NO_PROXY", "127.0.0.1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

fn start() -> Server {
    let folder = servers::folder();
    let root = folder.as_path();
    servers::authority(root, "ca");
    servers::certificate(root);
    let free = || TcpListener::bind("127.0.0.1:0").unwrap();
    let (plain, tls) = (free(), free());
    let (port, tls_port) = (plain.local_addr().unwrap().port(), tls.local_addr().unwrap().port());
    drop((plain, tls));
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/servers/s3.py");
    let mut server = Command::new("setpriv");
    server
        .args(["--pdeathsig", "KILL", "--"])
        .arg(python())
        .arg("-B")
        .arg(program)
        .args(["--port", &port.to_string(), "--tls-port", &tls_port.to_string()])
        .arg("--cert")
        .arg(root.join("server.pem"))
        .arg("--cert-key")
        .arg(root.join("server.key"))
        .args(["--key", KEY, "--secret", SECRET, "--buckets", BUCKET])
        .env("NO_PROXY", "127.0.0.1")
        .env("TMPDIR", root)
        .stdout(File::create(root.join("log")).unwrap())
        .stderr(File::create(root.join("errors")).unwrap());
    servers::spawn(server);
    let since = Instant::now();
    while TcpStream::connect(("127.0.0.1", tls_port)).is_err() {
        let errors = || std::fs::read_to_string(root.join("errors")).unwrap_or_default();
        assert!(since.elapsed() < Duration::from_secs(60), "the server does not listen: {}", errors());
        std::thread::park_timeout(Duration::from_millis(50));
    }
    Server { ca_file: root.join("ca.pem"), folder, port, tls_port }
}

impl Server {
    /// What the server answered so far, a line for each request.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap()
    }
}
