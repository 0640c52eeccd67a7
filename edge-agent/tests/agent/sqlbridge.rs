//! A private pysqlbridge: a server of SQL Server's protocol that others wrote, over CSV files.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::servers::{self, python};

pub struct Server {
    pub port: u16,
    /// The authority that signed the server's certificate, and another one that did not.
    pub ca_file: PathBuf,
    pub other_ca_file: PathBuf,
}

/// The server of this process, started when first asked for. It knows the login `lector`.
pub fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(start)
}

const LINES: &str = "ticket,linea,fecha,momento,producto,cantidad,total\n\
    1,1,2017-05-08,2017-05-08 09:00:00,ñ á €,1,10.50\n\
    2,1,2017-05-09,2017-05-09 10:30:00,pan,2,1.05\n\
    2,2,2017-05-09,2017-05-09 10:30:00,\"O'Hara; --\",3,-2.05\n\
    3,1,2017-05-09,,queso,1,0.07\n\
    4,1,2017-05-10,2017-05-10 08:00:00,leche,4,99999.99\n";

/// A master table of companies.
const COMPANIES: &str = "CODIGO,NOMBRE,NIT,EJERCICIO,RUTA\n\
    001,Droguería Ñandú,900.123.456-7,2025,Emp001_2025\n\
    001,Droguería Ñandú,900 123 456 7,2026,Emp001_2026\n\
    002,Otra,900123456,2026,Emp002_2026\n\
    003,Repetida,9001234567,2026,Emp003_2026\n\
    004,Sin número,,2026,Emp004_2026\n";

fn start() -> Server {
    let root = servers::folder();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for name in ["ca", "other"] {
        servers::authority(&root, name);
    }
    servers::certificate(&root);
    std::fs::write(root.join("lineas.csv"), LINES).unwrap();
    std::fs::write(root.join("empresas.csv"), COMPANIES).unwrap();
    let config = r#"{"logins": [{"user": "lector", "password": "${env:CLAVE}"}],
        "tables": [{"name": "lineas", "csv": "lineas.csv"}, {"name": "EMPRESAS", "csv": "empresas.csv"}]}"#;
    std::fs::write(root.join("tables.json"), config).unwrap();
    let log = std::fs::File::create(root.join("log")).unwrap();
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL"])
        .arg(python())
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/servers/sqlbridge.py"))
        .args(["tables.json", "server.pem", "server.key"].map(|name| root.join(name)))
        .arg(port.to_string())
        .env("CLAVE", "secret")
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    servers::spawn(command);
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(60), "pysqlbridge does not answer: {}", said(&root));
        std::thread::park_timeout(Duration::from_millis(50));
    }
    Server { port, ca_file: root.join("ca.pem"), other_ca_file: root.join("other.pem") }
}

fn said(root: &Path) -> String {
    std::fs::read_to_string(root.join("log")).unwrap_or_default()
}
