//! A private Firebird 3 server: a folder of its own, a free port of 127.0.0.1, ended with the test
//! process whatever becomes of it.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::servers;

pub struct Server {
    root: PathBuf,
    pub port: u16,
}

/// Who logs in as with Firebird 2.5, on the server that knows it.
pub const OLD_USER: &str = "VIEJO";

/// The server of this process, started when first asked for.
pub fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| start("Srp", "Enabled"))
}

/// One that encrypts nothing and still knows clients of Firebird 2, as many stores have it.
pub fn plain_server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| start("Srp, Legacy_Auth", "Disabled"))
}

impl Server {
    /// A fresh database and its place on the server; `charset` is that of columns that name none.
    pub fn database(&self, name: &str, charset: &str) -> String {
        let path = self.root.join(format!("{name}.fdb")).display().to_string();
        let place = format!("127.0.0.1/{}:{path}", self.port);
        isql(
            &self.root,
            None,
            &format!("CREATE DATABASE '{place}' USER SYSDBA PASSWORD 'masterkey' DEFAULT CHARACTER SET {charset};"),
        );
        path
    }

    /// Runs statements as the owner with the server's own client; gives what it prints.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        isql(&self.root, Some(&format!("127.0.0.1/{}:{database}", self.port)), sql)
    }
}

fn isql(root: &Path, place: Option<&str>, sql: &str) -> String {
    let mut client = Command::new("isql-fb")
        .args(["-quiet", "-bail", "-charset", "UTF8", "-user", "SYSDBA", "-password", "masterkey"])
        .args(place)
        .envs(places(root))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("isql-fb is installed (apt-get install firebird3.0-utils)");
    let mut input = client.stdin.take().unwrap();
    let text = format!("SET HEADING OFF;\n{sql}\nCOMMIT;\n");
    // Beside reading what it prints, or both would wait.
    let writing = std::thread::spawn(move || std::io::Write::write_all(&mut input, text.as_bytes()));
    let output = client.wait_with_output().unwrap();
    let _ = writing.join();
    let errors = String::from_utf8_lossy(&output.stderr);
    let shown: String = sql.chars().take(2000).collect();
    assert!(output.status.success() && errors.is_empty(), "{errors}\n{shown}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn places(root: &Path) -> [(&'static str, PathBuf); 3] {
    [("FIREBIRD", root.to_owned()), ("FIREBIRD_LOCK", root.join("lock")), ("FIREBIRD_TMP", root.join("tmp"))]
}

fn start(logins: &str, encryption: &str) -> Server {
    let root = servers::folder();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for name in ["lock", "tmp", "intl"] {
        std::fs::create_dir(root.join(name)).unwrap();
    }
    let installed = installed();
    // Copies: the server does not find its character sets behind a link.
    for name in ["plugins.conf", "intl/fbintl.conf", "intl/libfbintl.so"] {
        std::fs::copy(installed.join(name), root.join(name)).unwrap();
    }
    std::fs::write(root.join("databases.conf"), "almacen = $(root)/almacen.fdb\n").unwrap();
    let settings = [
        format!("RemoteServicePort = {port}"),
        "RemoteBindAddress = 127.0.0.1".to_owned(),
        format!("SecurityDatabase = {}", root.join("security3.fdb").display()),
        format!("DatabaseAccess = Restrict {}", root.display()),
        format!(
            "ServerMode = Super\nAuthServer = {logins}\nUserManager = Srp, Legacy_UserManager\nWireCrypt = {encryption}"
        ),
    ];
    std::fs::write(root.join("firebird.conf"), settings.join("\n")).unwrap();
    let security = root.join("security3.fdb").display().to_string();
    isql(&root, None, &format!("CREATE DATABASE '{security}';"));
    let users = [("SYSDBA", "masterkey"), ("LECTOR", "secret"), ("CAJERO", "secret")];
    let users = users.map(|(name, password)| format!("CREATE USER {name} PASSWORD '{password}' USING PLUGIN Srp;"));
    isql(&root, Some(&security), &users.join("\n"));
    if logins.contains("Legacy_Auth") {
        // The tables of that login come with the server's package.
        let script = program().ancestors().nth(3).unwrap().join("usr/share/firebird/3.0/security.sql");
        isql(&root, Some(&security), &std::fs::read_to_string(script).unwrap());
        isql(
            &root,
            Some(&security),
            &format!("CREATE USER {OLD_USER} PASSWORD 'secret' USING PLUGIN Legacy_UserManager;"),
        );
    }
    let log = std::fs::File::create(root.join("log")).unwrap();
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL"])
        .arg(program())
        .args([Path::new("-e"), &root])
        .envs(places(&root))
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    // The signal of a parent's death is of the thread that started the child: one that never ends.
    std::thread::spawn(move || {
        let mut server = command.spawn().expect("setpriv is installed (util-linux)");
        let _ = server.wait();
        std::thread::park();
    });
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(60), "firebird does not answer");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    Server { root, port }
}

/// Unpacked by infra/dev/setup.sh, or installed.
fn program() -> PathBuf {
    let tools = std::env::var_os("RIBERA_TOOLS").map(PathBuf::from);
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    let unpacked = tools.or_else(|| cache.map(|cache| cache.join("ribera")));
    let unpacked = unpacked.map(|tools| tools.join("firebird-3.0/usr/sbin/firebird"));
    let places = unpacked.into_iter().chain([PathBuf::from("/usr/sbin/firebird")]);
    places.into_iter().find(|path| path.exists()).expect("Firebird's server is there (infra/dev/setup.sh)")
}

/// The folder of Debian's package, which has the machine's name in it.
fn installed() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap().flatten();
    let mut folders = folders.map(|entry| entry.path().join("firebird/3.0"));
    folders.find(|path| path.join("plugins.conf").exists()).expect("apt-get install firebird3.0-server-core")
}
