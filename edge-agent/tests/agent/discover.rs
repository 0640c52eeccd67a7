//! `ribera-agent discover` on real servers: what it finds, what it writes, and that an agent can
//! read with it.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use ribera_agent::config::{Config, SourceConfig};
use ribera_agent::host::SystemClock;
use ribera_storage::ports::Clock;
use serde_json::{Value, json};

use crate::{firebird_server, mariadb_server, postgres_server, sqlbridge};

const MASTER: &str = "(CODIGO VARCHAR(20), NOMBRE VARCHAR(60), NIT VARCHAR(30), EJERCICIO INTEGER, RUTA VARCHAR(255))";
const LINES: &str =
    "(TICKET INTEGER, LINEA INTEGER, FECHA DATE, PRODUCTO VARCHAR(40), CANTIDAD NUMERIC(18,3), TOTAL NUMERIC(18,2))";
const ADAPTER: &str = "[adapter.caja.ventas]\nfrom = \"LINEAS\"\ndate = \"FECHA\"\n[adapter.caja.ventas.columns]\n\
    ticket_id = \"TICKET\"\nlinea = \"LINEA\"\nproducto_id = \"PRODUCTO\"\ncantidad = \"CANTIDAD\"\ntotal = \"TOTAL\"\n";

fn agent(folder: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ribera-agent"))
        .arg("--config")
        .arg(folder.join("cadena.toml"))
        .args(words)
        .env("CLAVE", "secret")
        .env("CLAVE_PG", "contraseña")
        .env_remove("RIBERA_LANG")
        .output()
        .unwrap()
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn insert(table: &str, rows: &[(&str, &str, &str, &str, &str)]) -> String {
    let row = |(code, name, number, year, path): &(&str, &str, &str, &str, &str)| {
        let number = if number.is_empty() { "NULL".to_owned() } else { format!("'{number}'") };
        format!("INSERT INTO {table} VALUES ('{code}', '{name}', {number}, {year}, '{path}');\n")
    };
    rows.iter().map(row).collect()
}

/// Last year and this one: an agent that reads today needs this year's database.
fn years() -> (String, String) {
    let this = SystemClock.now().to_zoned(jiff::tz::TimeZone::UTC).year();
    ((this - 1).to_string(), this.to_string())
}

/// A chain of three servers: a master table in Firebird, one in MariaDB under other names, and a
/// server that does not answer.
struct Chain {
    folder: tempfile::TempDir,
    master: String,
}

impl Chain {
    fn new(name: &str) -> Self {
        let firebird = firebird_server::server();
        let master = firebird.database(&format!("{name}_maestra"), "WIN1252");
        let (last, this) = years();
        let databases: Vec<String> = [last.as_str(), &this, "otra"]
            .map(|year| {
                let database = firebird.database(&format!("{name}_{year}"), "WIN1252");
                firebird.sql(&database, &format!("CREATE TABLE LINEAS {LINES}; GRANT SELECT ON LINEAS TO LECTOR;"));
                database
            })
            .into();
        for (day, database) in [format!("{last}-12-31"), format!("{this}-01-01")].iter().zip(&databases) {
            firebird.sql(database, &format!("INSERT INTO LINEAS VALUES (1, 1, '{day}', 'ñ', 1, 5.00);"));
        }
        firebird.sql(&master, &format!("CREATE TABLE EMPRESAS {MASTER}; GRANT SELECT ON EMPRESAS TO LECTOR;"));
        let rows = [
            ("001", "Droguería Ñandú", "900.123.456-7", last.as_str(), databases[0].as_str()),
            ("001", "Droguería Ñandú", "900 123 456 7", &this, &databases[1]),
            ("002", "Otra", "900123456", &this, &databases[2]),
            ("003", "Sin número", "", &this, "C:\\\\x.fdb"),
            ("004", "Ceros", "000.000.000-0", &this, "C:\\\\y.fdb"),
        ];
        firebird.sql(&master, &insert("EMPRESAS", &rows));
        let mariadb = mariadb_server::server();
        let central = mariadb.database(&format!("{name}_central"));
        let shop = mariadb.database(&format!("{name}_tienda"));
        mariadb.sql(&format!(
            "CREATE TABLE {central}.cias {MASTER}; CREATE TABLE {shop}.LINEAS {LINES};
             INSERT INTO {shop}.LINEAS VALUES (1, 1, '{this}-01-01', 'b', 1, 5.00);\n{}",
            insert(
                &format!("{central}.cias"),
                &[("A 1", "Repetida", "9001234567", &this, &shop), ("A 2", "Tercera", "800.1-K", &this, &shop)]
            )
        ));
        let folder = tempfile::tempdir().unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = |name: &str, kind: &str, port: u16, database: &str| {
            format!(
                "[[discover.server]]\nname = \"{name}\"\n[discover.server.source]\nkind = \"{kind}\"\nhost = \"127.0.0.1\"\n\
                 port = {port}\ndatabase = '{database}'\nuser = \"lector\"\npassword = \"${{CLAVE}}\"\n"
            )
        };
        let text = format!(
            "folder = \"agent\"\nobject_store = {{ folder = \"objects\" }}\n# A person's own words.\n{ADAPTER}\
             [discover]\nprefix = \"t-\"\n[discover.store]\nadapter = \"caja\"\ntime_zone = \"America/Bogota\"\nopened = \"{last}-12-01\"\n{}{}",
            server("norte", "firebird", firebird.port, &master),
            server("caida", "postgres", closed, "maestra"),
        );
        std::fs::write(folder.path().join("cadena.toml"), text).unwrap();
        let query = "query = \"SELECT CODIGO AS code, NOMBRE AS name, NIT AS tax_number, EJERCICIO AS fiscal_year, RUTA AS path FROM cias ORDER BY CODIGO\"";
        let other = format!(
            "[discover]\n{query}\n[discover.store]\nadapter = \"caja\"\ntime_zone = \"America/Bogota\"\n{}",
            server("sur", "mysql", mariadb.port, &central)
        );
        std::fs::write(folder.path().join("sur.toml"), other).unwrap();
        Self { folder, master }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn run(&self, words: &[&str]) -> Output {
        agent(self.folder.path(), words)
    }
}

fn changes(answer: &Value) -> Vec<(&str, &str)> {
    let changes = answer["changes"].as_array().unwrap();
    changes.iter().map(|one| (one["store"].as_str().unwrap(), one["change"].as_str().unwrap())).collect()
}

#[test]
fn a_chain_is_found_written_read_and_compared_again() {
    let chain = Chain::new("cadena");
    let output = chain.path("agent.toml");
    let first = chain.run(&["discover", "--json", "--output", &output]);
    assert_eq!(first.status.code(), Some(9), "a server is down: {first:?}");
    let answer = json_of(&first);
    assert_eq!(answer["counts"], json!({"found": 5, "first": 3, "skipped": 0, "without_number": 2, "unusable": 0}));
    assert_eq!(answer["near"], json!([{"stem": "900123456", "numbers": ["900123456", "9001234567"]}]));
    assert_eq!(changes(&answer), [("t-001", "new"), ("t-002", "new")]);
    assert_eq!((&answer["written"], &answer["variables"]), (&json!(true), &json!(["CLAVE"])));
    let problem = &answer["servers"][1]["problem"];
    assert!(problem["message"].as_str().unwrap().contains("inicie la base de datos"), "{problem}");

    // What was written is a configuration, holds no secret, and an agent reads with it.
    let text = std::fs::read_to_string(&output).unwrap();
    assert!(!text.contains("secret\"") && text.contains("# A person's own words."), "{text}");
    let config = Config::load(Path::new(&output), &|name| (name == "CLAVE").then(|| "secret".to_owned())).unwrap();
    assert_eq!(config.stores.len(), 2);
    assert_eq!(config.stores[0].tenant.as_ref().map(|tenant| tenant.as_str()), Some("9001234567"));
    let (last, this) = years();
    let read = |words: &[&str]| {
        let done = Command::new(env!("CARGO_BIN_EXE_ribera-agent"))
            .args(["--config", &output, "--dry-run", "--json", "--stores", "t-001"])
            .args(words)
            .env("CLAVE", "secret")
            .output()
            .unwrap();
        assert_eq!(done.status.code(), Some(0), "{done:?}");
        json_of(&done)["datasets"][0].clone()
    };
    assert_eq!(read(&["once"])["store"], "t-001");
    // Over the end of the year: the date picks the database.
    let over = read(&["extract", "--from", &format!("{last}-12-31"), "--to", &format!("{this}-01-01")]);
    assert_eq!(over["planned"].as_array().unwrap().len(), 2, "{over}");

    // Again: nothing is new; with another company, a gone one and a moved one all three are told.
    let again = chain.run(&["discover", "--json", "--output", &output]);
    assert_eq!((again.status.code(), json_of(&again)["written"].as_bool()), (Some(9), Some(false)));
    assert_eq!(changes(&json_of(&again)), [("t-001", "same"), ("t-002", "same")]);
    let shown = chain.run(&["discover", "--lang", "en"]);
    let told = String::from_utf8([shown.stdout, shown.stderr].concat()).unwrap();
    for words in ["900123456, 9001234567: differ only", "not joined", "start the database", "without number: 2"] {
        assert!(told.contains(words), "{words}\n{told}");
    }
    let firebird = firebird_server::server();
    firebird.sql(
        &chain.master,
        &format!("DELETE FROM EMPRESAS WHERE CODIGO = '002'; UPDATE EMPRESAS SET RUTA = 'otra.fdb' WHERE EJERCICIO = {this} AND CODIGO = '001';
         INSERT INTO EMPRESAS VALUES ('005', 'Nueva', '123.456-7', NULL, 'nueva.fdb');"),
    );
    let refused = chain.run(&["discover", "--json", "--output", &output]);
    assert_eq!(changes(&json_of(&refused)), [("t-001", "changed"), ("t-005", "new"), ("t-002", "gone")]);
    assert_eq!(std::fs::read_to_string(&output).unwrap(), text, "it stays unless --force");
    let forced = chain.run(&["discover", "--output", &output, "--force", "--lang", "en"]);
    let told = String::from_utf8(forced.stdout).unwrap();
    for words in ["store t-005: new", "store t-002: no server holds it any more", "changed: databases", "no tax number"]
    {
        assert!(told.contains(words), "{words}\n{told}");
    }
    let config = Config::load(Path::new(&output), &|_| Some("secret".to_owned())).unwrap();
    let ids: Vec<&str> = config.stores.iter().map(|store| store.id.as_str()).collect();
    assert_eq!(ids, ["t-001", "t-005", "t-002"], "what is gone stays until a person takes it out");
}

#[test]
fn the_first_server_keeps_a_company_and_a_login_that_is_refused_stops_nobody() {
    let chain = Chain::new("orden");
    let (north, south) = (chain.path("cadena.toml"), chain.path("sur.toml"));
    let read = |path: &str| std::fs::read_to_string(path).unwrap();
    let found = json_of(&chain.run(&["discover", "--json", "--servers", &south]));
    assert_eq!(found["counts"]["first"], 2);
    assert_eq!(found["companies"][1]["number"], "8001K");
    // Both, with a query that fits both; then the north with a wrong password.
    let query = read(&south).lines().nth(1).unwrap().replace("FROM cias", "FROM EMPRESAS");
    mariadb_server::server().sql("CREATE OR REPLACE VIEW orden_central.EMPRESAS AS SELECT * FROM orden_central.cias;");
    let servers = |text: &str| text.split_once("[[discover.server]]").unwrap().1.to_owned();
    let up = servers(&read(&north)).split("[[discover.server]]").next().unwrap().to_owned();
    let both = format!("[discover]\n{query}\n[[discover.server]]{up}[[discover.server]]{}", servers(&read(&south)));
    let path = chain.path("ambas.toml");
    std::fs::write(&path, &both).unwrap();
    let answer = chain.run(&["discover", "--json", "--servers", &path]);
    assert_eq!(answer.status.code(), Some(0), "{answer:?}");
    let answer = json_of(&answer);
    let skipped: Vec<&Value> =
        answer["companies"].as_array().unwrap().iter().filter(|one| one["result"] == "skipped").collect();
    assert_eq!(skipped.len(), 1);
    assert_eq!(
        [&skipped[0]["server"], &skipped[0]["first_server"], &skipped[0]["first_code"]],
        [&json!("sur"), &json!("norte"), &json!("001")]
    );
    std::fs::write(&path, both.replacen("\"lector\"", "\"cajero\"", 1).replacen("${CLAVE}", "${CLAVE_PG}", 1)).unwrap();
    let refused = chain.run(&["discover", "--json", "--servers", &path]);
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    let refused = json_of(&refused);
    let message = refused["servers"][0]["problem"]["message"].as_str().unwrap();
    assert!(message.contains("user or password") && !message.contains("contraseña"), "{message}");
    assert_eq!(refused["counts"]["first"], 2, "the other server's");
}

#[test]
fn servers_without_a_master_table_are_listed_by_their_databases() {
    let postgres = postgres_server::server();
    for name in ["lista_uno", "lista_dos"] {
        let database = postgres.database(name, "UTF8");
        postgres.sql(&database, &format!("CREATE TABLE lineas {LINES}"));
    }
    let mariadb = mariadb_server::server();
    mariadb.database("lista_tres");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("cadena.toml"), ADAPTER).unwrap();
    let port = postgres.port.to_string();
    let output = folder.path().join("agent.toml").display().to_string();
    let words = |kind: &'static str, port: &str, database: &str, env: &str| -> Vec<String> {
        [
            "discover",
            "--json",
            "--kind",
            kind,
            "--host",
            "127.0.0.1",
            "--port",
            port,
            "--database",
            database,
            "--user",
            "lector",
            "--password-env",
            env,
            "--all-databases",
            "--adapter",
            "caja",
            "--zone",
            "Europe/Madrid",
        ]
        .map(str::to_owned)
        .into()
    };
    let run = |words: &[String]| agent(folder.path(), &words.iter().map(String::as_str).collect::<Vec<_>>());
    let found =
        run(&[words("postgres", &port, "postgres", "CLAVE_PG"), vec!["--output".to_owned(), output.clone()]].concat());
    assert_eq!(found.status.code(), Some(0), "{found:?}");
    let answer = json_of(&found);
    let ids: Vec<&str> = changes(&answer).into_iter().map(|(id, _)| id).collect();
    assert!(ids.contains(&"lista_uno") && ids.contains(&"lista_dos") && !ids.contains(&"postgres"), "{ids:?}");
    assert_eq!(answer["counts"]["without_number"], answer["counts"]["found"]);
    // The file can be used for the next discovery as it is.
    let again = Command::new(env!("CARGO_BIN_EXE_ribera-agent"))
        .args(["--config", &output, "discover", "--json", "--output", &output])
        .env("CLAVE_PG", "contraseña")
        .output()
        .unwrap();
    let again = json_of(&again);
    assert!(changes(&again).iter().all(|(id, change)| !id.starts_with("lista_") || *change == "same"), "{again}");
    let port = mariadb.port.to_string();
    let found = json_of(&run(&words("mysql", &port, "information_schema", "CLAVE")));
    let codes: Vec<&str> =
        found["companies"].as_array().unwrap().iter().map(|one| one["code"].as_str().unwrap()).collect();
    assert!(codes.contains(&"lista_tres") && !codes.contains(&"mysql"), "{codes:?}");
    let firebird = firebird_server::server();
    let master = firebird.database("lista", "UTF8");
    let refused = run(&words("firebird", &firebird.port.to_string(), &master, "CLAVE"));
    assert_eq!(refused.status.code(), Some(3));
    assert!(json_of(&refused)["servers"][0]["problem"]["message"].as_str().unwrap().contains("discover.databases"));
}

#[test]
fn a_sql_servers_master_table_and_list_of_databases_are_read() {
    let bridge = sqlbridge::server();
    let folder = tempfile::tempdir().unwrap();
    let port = bridge.port.to_string();
    let text = format!(
        "folder = \"agent\"\nobject_store = {{ folder = \"objects\" }}\n{ADAPTER}\
         [discover]\nprefix = \"t-\"\n[discover.store]\nadapter = \"caja\"\ntime_zone = \"America/Bogota\"\n\
         [[discover.server]]\nname = \"centro\"\n[discover.server.source]\nkind = \"sqlserver\"\nhost = \"127.0.0.1\"\n\
         port = {port}\ndatabase = \"pySQLbridge\"\nuser = \"lector\"\npassword = \"${{CLAVE}}\"\ntls_ca_file = '{}'\n",
        bridge.ca_file.display()
    );
    std::fs::write(folder.path().join("cadena.toml"), text).unwrap();
    let output = folder.path().join("agent.toml").display().to_string();
    let found = agent(folder.path(), &["discover", "--json", "--output", &output]);
    assert_eq!(found.status.code(), Some(0), "{found:?}");
    let answer = json_of(&found);
    assert_eq!(answer["counts"], json!({"found": 5, "first": 3, "skipped": 1, "without_number": 1, "unusable": 0}));
    assert_eq!(answer["near"], json!([{"stem": "900123456", "numbers": ["900123456", "9001234567"]}]));
    let skipped = answer["companies"].as_array().unwrap().iter().find(|one| one["result"] == "skipped").unwrap();
    assert_eq!([&skipped["code"], &skipped["first_server"], &skipped["first_code"]], ["003", "centro", "001"]);
    assert_eq!(changes(&answer), [("t-001", "new"), ("t-002", "new")]);
    let config = Config::load(Path::new(&output), &|_| Some("secret".to_owned())).unwrap();
    let SourceConfig::SqlServer(source) = &config.stores[1].source else { panic!("{:?}", config.stores[1].source) };
    assert_eq!(source.database, "Emp002_2026");
    // It has one database, which is not a user's own.
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::write(elsewhere.path().join("cadena.toml"), ADAPTER).unwrap();
    let words = format!(
        "discover --json --kind sqlserver --host 127.0.0.1 --port {port} --database pySQLbridge --user lector \
         --password-env CLAVE --tls require --all-databases --adapter caja --zone Europe/Madrid"
    );
    let listed = agent(elsewhere.path(), &words.split(' ').collect::<Vec<_>>());
    assert_eq!(listed.status.code(), Some(0), "{listed:?}");
    assert_eq!(json_of(&listed)["counts"]["found"], 0);
}

#[test]
fn what_cannot_be_used_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let write = |text: &str| std::fs::write(folder.path().join("cadena.toml"), text).unwrap();
    let output = folder.path().join("agent.toml").display().to_string();
    let refused = |words: &[&str]| {
        let output = agent(folder.path(), words);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refused(&["discover"]).contains("--servers"), "no file at all");
    rusqlite::Connection::open(folder.path().join("maestra.db"))
        .unwrap()
        .execute_batch(&format!(
            "CREATE TABLE EMPRESAS {MASTER}; INSERT INTO EMPRESAS VALUES ('1', 'n', '91', 2025, 'd.db');"
        ))
        .unwrap();
    let server = "[[discover.server]]\nname = \"n\"\nsource = { kind = \"sqlite\", path = \"maestra.db\" }\n";
    write(server);
    let told = refused(&["discover", "--output", &output]);
    assert!(told.contains("adapter"), "a store needs one: {told}");
    write(&format!(
        "{ADAPTER}{server}[discover.store]\nadapter = \"caja\"\n[discover.store.source]\npassword = \"hunter2\"\n"
    ));
    let told = refused(&["discover", "--output", &output]);
    assert!(told.contains("source.password") && !told.contains("hunter2"), "{told}");
    write(&format!("[discover.columns]\ncode = \"NO_SUCH\"\n{server}"));
    let unknown = agent(folder.path(), &["discover", "--json"]);
    assert_eq!(unknown.status.code(), Some(3));
    assert!(json_of(&unknown)["servers"][0]["problem"]["message"].as_str().unwrap().contains("NO_SUCH"));
    assert!(!Path::new(&output).exists());
}

#[test]
fn a_discovery_on_the_command_line_names_a_next_command_that_works() {
    let folder = tempfile::tempdir().unwrap();
    let port = sqlbridge::server().port.to_string();
    std::fs::write(folder.path().join("mi cadena.toml"), ADAPTER).unwrap();
    let asked = Command::new(env!("CARGO_BIN_EXE_ribera-agent"))
        .args([
            "--config",
            "mi cadena.toml",
            "discover",
            "--kind",
            "sqlserver",
            "--host",
            "127.0.0.1",
            "--port",
            &port,
            "--database",
            "pySQLbridge",
        ])
        .args(["--user", "lector", "--password-env", "CLAVE", "--table", "EMPRESAS", "--adapter", "caja"])
        .args(["--zone", "America/Bogota"])
        .env("CLAVE", "secret")
        .env_remove("RIBERA_LANG")
        .current_dir(folder.path())
        .output()
        .unwrap();
    let told = String::from_utf8(asked.stdout.clone()).unwrap();
    assert_eq!(asked.status.code(), Some(0), "{asked:?}");
    let next = told.split("siguiente:\n").nth(1).unwrap().trim().to_owned();
    let program = env!("CARGO_BIN_EXE_ribera-agent");
    let followed = Command::new("sh")
        .args(["-c", &next.replacen("ribera-agent", program, 1)])
        .env("CLAVE", "secret")
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(followed.status.code(), Some(0), "{next}: {followed:?}");
    let written = std::fs::read_to_string(folder.path().join("agent.toml")).unwrap();
    assert!(written.contains("Emp001_2026") && written.contains("[adapter.caja.ventas]"), "{written}");
}
