//! `ribera-agent check`: everything that can stand between the agent and a store's data, brought
//! about with real servers, is named with its next step.

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::each::{KINDS, Kind, Place};
use crate::fixture::World;
use crate::{firebird_server, mariadb_server, postgres_server};

const ADAPTER: &str = "[adapter.caja.ventas]\nfrom = \"lineas\"\ndate = \"fecha\"\n[adapter.caja.ventas.columns]\n\
    ticket_id = \"ticket\"\nlinea = \"linea\"\nproducto_id = \"producto\"\ncantidad = \"cantidad\"\ntotal = \"total\"\n";
const TABLE: &str = "(ticket INTEGER NOT NULL, linea INTEGER NOT NULL, fecha DATE, producto VARCHAR(40), \
    cantidad NUMERIC(18,3), total NUMERIC(18,2), PRIMARY KEY (ticket, linea))";

/// A database, and how a reader is kept from it.
struct Till {
    kind: &'static str,
    port: u16,
    database: String,
    /// A database in which the reader has no right to the table.
    closed: String,
    password: &'static str,
}

fn tills() -> Vec<Till> {
    let mariadb = mariadb_server::server();
    for name in ["chequeo", "chequeo_cerrado"] {
        let database = mariadb.database(name);
        mariadb.sql(&format!("CREATE TABLE {database}.lineas {TABLE}; CREATE TABLE {database}.otra (a INTEGER);"));
    }
    // This reader may read one table of the closed database, and it is another.
    mariadb.sql(
        "CREATE USER IF NOT EXISTS chequeo@'127.0.0.1' IDENTIFIED BY 'secreto-1';
         GRANT SELECT ON chequeo.* TO chequeo@'127.0.0.1'; GRANT SELECT ON chequeo_cerrado.otra TO chequeo@'127.0.0.1';",
    );
    let postgres = postgres_server::server();
    postgres.sql(
        "postgres",
        "DO $$ BEGIN CREATE ROLE chequeo LOGIN PASSWORD 'secreto-1'; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
    );
    for name in ["chequeo", "chequeo_cerrado"] {
        let database = postgres.database(name, "UTF8");
        postgres.sql(&database, &format!("CREATE TABLE lineas {TABLE}"));
    }
    postgres.sql("chequeo", "GRANT SELECT ON lineas TO chequeo");
    let firebird = firebird_server::server();
    let [open, closed] = ["chequeo", "chequeo_cerrado"].map(|name| firebird.database(name, "UTF8"));
    for database in [&open, &closed] {
        firebird.sql(database, &format!("CREATE TABLE LINEAS {TABLE};"));
    }
    firebird.sql(&open, "GRANT SELECT ON LINEAS TO LECTOR;");
    let named = |name: &str| name.to_owned();
    vec![
        Till {
            kind: "mysql",
            port: mariadb.port,
            database: named("chequeo"),
            closed: named("chequeo_cerrado"),
            password: "secreto-1",
        },
        Till {
            kind: "postgres",
            port: postgres.port,
            database: named("chequeo"),
            closed: named("chequeo_cerrado"),
            password: "secreto-1",
        },
        Till { kind: "firebird", port: firebird.port, database: open, closed, password: "secret" },
    ]
}

fn store(id: &str, kind: &str, host: &str, port: u16, database: &str, password: &str) -> String {
    let user = if kind == "firebird" { "lector" } else { "chequeo" };
    format!(
        "[[store]]\nid = \"{id}\"\ntime_zone = \"Europe/Madrid\"\nadapter = \"caja\"\n[store.source]\nkind = \"{kind}\"\n\
         host = \"{host}\"\nport = {port}\ndatabase = '{database}'\nuser = \"{user}\"\npassword = \"{password}\"\n"
    )
}

/// A port whose queue of connections is full: it answers nothing any more.
fn silent_port() -> (TcpListener, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(connection) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        waiting.push(connection);
        assert!(waiting.len() < 20_000, "the queue does not fill");
    }
    (listener, waiting)
}

/// A `ping` that ends with `code`, 0 for an answer: not every machine has one that works.
fn ping(folder: &Path, code: u8) {
    let program = folder.join("ping");
    std::fs::write(&program, format!("#!/bin/sh\nexit {code}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn check(folder: &Path, words: &[&str]) -> std::process::Output {
    let path = std::env::join_paths(
        [folder.to_owned()].into_iter().chain(std::env::split_paths(&std::env::var("PATH").unwrap())),
    );
    Command::new(env!("CARGO_BIN_EXE_ribera-agent"))
        .arg("--config")
        .arg(folder.join("agent.toml"))
        .args(["check", "--timeout", "1"])
        .args(words)
        .env("PATH", path.unwrap())
        .env_remove("RIBERA_LANG")
        .output()
        .unwrap()
}

#[test]
fn each_obstacle_is_named_with_its_next_step_and_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (silent, _waiting) = silent_port();
    ping(folder.path(), 0);
    let mut config = "folder = \"agent\"\nobject_store = { folder = \"objects\" }\n".to_owned();
    let mut wanted = Vec::new();
    for till in tills() {
        let Till { kind, port, database, closed: no_right, password } = &till;
        let elsewhere = database.replace("chequeo", "no_existe");
        let cases = [
            (store(&format!("{kind}-bien"), kind, "127.0.0.1", *port, database, password), None),
            (store(&format!("{kind}-servicio"), kind, "127.0.0.1", closed, database, password), Some("port_refused")),
            (store(&format!("{kind}-clave"), kind, "127.0.0.1", *port, database, "hunter2"), Some("credentials")),
            (
                store(&format!("{kind}-base"), kind, "127.0.0.1", *port, &elsewhere, password),
                if *kind == "mysql" { Some("permissions") } else { Some("database") },
            ),
            (store(&format!("{kind}-permiso"), kind, "127.0.0.1", *port, no_right, password), Some("permissions")),
            (
                store(&format!("{kind}-nombre"), kind, "no-such-till.invalid", *port, database, password),
                Some("name_unknown"),
            ),
        ];
        wanted.extend(cases.iter().map(|(text, cause)| {
            let id = text.split('"').nth(1).unwrap().to_owned();
            (id, cause.map(str::to_owned))
        }));
        cases.iter().for_each(|(text, _)| config.push_str(text));
    }
    let silent = silent.local_addr().unwrap().port();
    config.push_str(&store("cortafuegos", "mysql", "127.0.0.1", silent, "d", "secreto-1"));
    wanted.push(("cortafuegos".to_owned(), Some("port_silent".to_owned())));
    std::fs::write(folder.path().join("agent.toml"), config + ADAPTER).unwrap();

    let answer = check(folder.path(), &["--json"]);
    assert_eq!(answer.status.code(), Some(3), "{answer:?}");
    let text = String::from_utf8(answer.stdout).unwrap();
    let answer: Value = serde_json::from_str(&text).unwrap();
    let lines = answer["checks"].as_array().unwrap();
    for (id, cause) in &wanted {
        let failed = lines.iter().find(|line| line["store"] == **id && line["ok"] == false);
        let found = failed.map(|line| line["cause"].as_str().map(str::to_owned));
        assert_eq!(found, cause.clone().map(Some), "{id}: {failed:?}");
    }
    let shown = String::from_utf8(check(folder.path(), &[]).stdout).unwrap();
    for step in [
        "postgres-clave: usuario o clave no valen",
        "firebird-base, postgres-base: la base de datos no existe",
        "firebird-permiso, mysql-base, mysql-permiso, postgres-permiso: al usuario le falta un permiso",
        "el nombre no existe en el DNS",
        "inicie la base de datos",
        "abra el puerto en su cortafuegos",
    ] {
        assert!(shown.contains(step), "{step}\n{shown}");
    }
    for secret in ["hunter2", "secreto-1"] {
        assert!(!text.contains(secret) && !shown.contains(secret), "{shown}");
    }
}

#[test]
fn a_line_that_is_down_is_told_from_a_service_that_is() {
    let folder = tempfile::tempdir().unwrap();
    // Neither port nor ping is answered, as where the line or the machine is down.
    let (silent, _waiting) = silent_port();
    ping(folder.path(), 1);
    let lost = store("perdida", "postgres", "127.0.0.1", silent.local_addr().unwrap().port(), "d", "secreto-1");
    let text = format!("folder = \"agent\"\nobject_store = {{ folder = \"objects\" }}\n{lost}{ADAPTER}");
    std::fs::write(folder.path().join("agent.toml"), text).unwrap();
    let told = String::from_utf8(check(folder.path(), &["--quick", "--lang", "en"]).stdout).unwrap();
    assert!(told.contains("perdida: the machine does not answer: check that it is on, its line"), "{told}");
    assert!(told.contains("reachable: 0 %"), "{told}");
}

#[test]
fn an_instance_whose_browser_is_silent_is_told_so_and_no_port_is_blamed() {
    let folder = tempfile::tempdir().unwrap();
    ping(folder.path(), 0);
    let instance = "[[store]]\nid = \"expres\"\ntime_zone = \"Europe/Madrid\"\nadapter = \"caja\"\n[store.source]\nkind = \"sqlserver\"\n\
        host = \"127.0.0.1\"\ninstance = \"SQLEXPRESS\"\ndatabase = \"Caja\"\nuser = \"u\"\npassword = \"secreto-1\"\n";
    let text = format!("folder = \"agent\"\nobject_store = {{ folder = \"objects\" }}\n{instance}{ADAPTER}");
    std::fs::write(folder.path().join("agent.toml"), text).unwrap();
    for words in [&[][..], &["--quick"]] {
        let told = String::from_utf8(check(folder.path(), &[words, &["--lang", "en"]].concat()).stdout).unwrap();
        let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
        for step in ["127.0.0.1\\SQLEXPRESS", "SQL Server Browser (UDP 1434)"] {
            assert!(told.contains(step), "{step}: {told}");
        }
        assert!(!told.contains("1433") && !told.contains("correct source.port"), "{told}");
    }
    let answer: Value = serde_json::from_slice(&check(folder.path(), &["--quick", "--json"]).stdout).unwrap();
    assert_eq!(answer["causes"]["browser_silent"][0], "expres", "{answer}");
}

/// The lines of `check` about dataset ventas.
fn of_ventas(world: &World) -> Value {
    let answer = check(world.folder.path(), &["--json"]);
    let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
    answer["checks"].as_array().unwrap().iter().find(|line| line["what"] == "ventas").unwrap().clone()
}

const ROW: &str = "(1, 1, '2017-05-08', 'p', 1, 2)";
const WITHOUT_KEY: &str = "ticket INTEGER, linea INTEGER, fecha DATE, producto VARCHAR(40), cantidad NUMERIC(18,3), \
    total NUMERIC(18,2), cajero VARCHAR(40)";

#[test]
fn a_view_that_shows_each_user_other_rows_is_named() {
    for kind in [Kind::Mariadb, Kind::Postgres, Kind::Firebird] {
        let place = Place::new(kind, "vistas_por_usuario");
        let world = place.world(&ADAPTER.replace("\"lineas\"", "\"resumen\""));
        place.create(&world, "ventas", WITHOUT_KEY);
        let of_user = if kind == Kind::Mariadb { "SUBSTRING_INDEX(USER(), '@', 1)" } else { "CURRENT_USER" };
        let mut statements = vec![
            format!("INSERT INTO ventas VALUES {}", ROW.replace(", 2)", ", 2, 'LECTOR')")),
            format!("CREATE VIEW mias AS SELECT * FROM ventas WHERE UPPER(cajero) = UPPER({of_user})"),
            "CREATE VIEW resumen AS SELECT ticket, linea, fecha, producto, cantidad, total FROM mias".to_owned(),
        ];
        match kind {
            Kind::Firebird => statements.push("GRANT SELECT ON resumen TO LECTOR".to_owned()),
            Kind::Mariadb => {
                statements.push("GRANT SELECT, SHOW VIEW ON vistas_por_usuario.* TO lector@'127.0.0.1'".to_owned())
            }
            _ => {}
        }
        place.sql(&world, &statements);
        let line = of_ventas(&world);
        let warning = line["warning"].as_str().unwrap_or_default().to_lowercase();
        assert!(line["ok"] == true && warning.contains("resumen filtra según el usuario"), "{kind:?}: {line}");
        // One that all users see alike is none to speak of.
        let plain = place.world(&ADAPTER.replace("\"lineas\"", "\"ventas\""));
        assert!(of_ventas(&plain)["warning"].is_null(), "{kind:?}");
    }
    // MariaDB does not show the text of a view without the right to see it.
    let place = Place::new(Kind::Mariadb, "vistas_cerradas");
    let world = place.world(&ADAPTER.replace("\"lineas\"", "\"resumen\""));
    place.create(&world, "ventas", WITHOUT_KEY);
    place.sql(&world, &["CREATE VIEW resumen AS SELECT * FROM ventas".to_owned()]);
    let warning = of_ventas(&world)["warning"].to_string();
    assert!(warning.contains("resumen no es visible") && warning.contains("SHOW VIEW"), "{warning}");
}

#[test]
fn a_key_that_repeats_within_a_day_is_told_before_the_centre_refuses_the_day() {
    for kind in KINDS {
        let place = Place::new(kind, "claves_repetidas");
        let world = place.world(ADAPTER);
        if kind == Kind::Sqlite {
            world.sql("DROP TABLE lineas");
        }
        place.create(&world, "lineas", WITHOUT_KEY);
        let insert = format!("INSERT INTO lineas VALUES {}", ROW.replace(", 2)", ", 2, 'a')"));
        // The same ticket on another day repeats nothing.
        place.sql(&world, &[insert.clone(), insert.replace("05-08", "05-07")]);
        assert_eq!(of_ventas(&world)["ok"], true, "{kind:?}");
        place.sql(&world, &[insert.clone(), insert]);
        let line = of_ventas(&world);
        assert_eq!(line["ok"], false, "{kind:?}: {line}");
        let told = line["problem"]["message"].as_str().unwrap();
        for part in ["key (ticket_id, linea)", "got 2 of 2017-05-08", "ticket_id = \"1\", linea = 1"] {
            assert!(told.contains(part), "{kind:?}: {told}");
        }
    }
}
