//! Sessions and transactions of PostgreSQL, directly and behind a real PgBouncer.

use std::process::{Command, Stdio};
use std::time::Duration;

use ribera_agent::report::{Exit, Report};
use ribera_agent::run::collect::RunMode;

use crate::fixture::{World, days, run};
use crate::{postgres_server, servers};

const MAPPING: &str = r#"
[adapter.caja.ventas]
from = "lineas"
date = "vendido::date"
[adapter.caja.ventas.columns]
ticket_id = "ticket"
linea = "1"
producto_id = "'p'"
cantidad = "1"
total = "total"
"#;

/// Starts one before the test server; gives its port.
fn pgbouncer(database: &str, mode: &str, more: &str) -> u16 {
    let root = servers::folder();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = postgres_server::server();
    std::fs::write(root.join("users.txt"), "\"lector\" \"contraseña\"\n").unwrap();
    let config = root.join("pgbouncer.ini");
    std::fs::write(
        &config,
        format!(
            "[databases]\n{database} = host=127.0.0.1 port={} dbname={database} user=lector password=contraseña\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = plain\n\
             auth_file = {}\npool_mode = {mode}\ndefault_pool_size = 3\nserver_tls_sslmode = prefer\n{more}",
            server.port,
            root.join("users.txt").display()
        ),
    )
    .unwrap();
    for file in [&config, &root.join("users.txt")] {
        std::os::unix::fs::chown(file, Some(65534), Some(65534)).unwrap();
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "INT", "--reuid=65534", "--regid=65534", "--clear-groups", "--", "pgbouncer"]);
    command.arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
    servers::spawn(command);
    for _ in 0..100 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return port;
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
    panic!("pgbouncer does not listen");
}

/// Sales before and after midnight of UTC, on one evening of Bogotá, in three months.
fn prepared(name: &str) -> String {
    let server = postgres_server::server();
    let database = server.database(name, "UTF8");
    server.sql(
        &database,
        "CREATE TABLE lineas (ticket INT PRIMARY KEY, vendido TIMESTAMPTZ, total DECIMAL(10,2));
         INSERT INTO lineas VALUES (1, '2017-03-08 18:00:00-05', 1), (2, '2017-03-08 21:00:00-05', 2),
            (3, '2017-04-08 18:00:00-05', 1), (4, '2017-04-08 21:00:00-05', 2),
            (5, '2017-05-08 18:00:00-05', 1), (6, '2017-05-08 21:00:00-05', 2);
         GRANT SELECT ON lineas TO lector;",
    );
    database
}

fn backfill(port: u16, database: &str) -> (World, Report) {
    let world = World::with_config(&format!(
        "folder = \"agent\"\nobject_store = {{ folder = \"objects\" }}\n[limits]\nchunk_timeout_s = 20\n[[store]]\nid = \"s1\"\n\
         time_zone = \"America/Bogota\"\nadapter = \"caja\"\n[store.source]\nkind = \"postgres\"\nhost = \"127.0.0.1\"\n\
         port = {port}\ndatabase = \"{database}\"\nuser = \"lector\"\npassword = \"contraseña\"\ntls = \"off\"\n{MAPPING}"
    ));
    let ask = RunMode::Backfill { days: days("2017-03-01", "2017-05-09"), force: false };
    let report = run(&world.start().unwrap(), ask);
    (world, report)
}

fn sold(world: &World) -> Vec<(String, u64)> {
    world
        .lake()
        .into_iter()
        .filter(|(_, (rows, _))| *rows > 0)
        .map(|(unit, (rows, _))| (unit.to_string(), rows))
        .collect()
}

fn expected() -> Vec<(String, u64)> {
    ["2017-03-08", "2017-04-08", "2017-05-08"].map(|day| (day.to_owned(), 2)).to_vec()
}

#[test]
fn every_month_of_a_backfill_is_read_in_the_stores_zone() {
    let database = prepared("meses_de_zona");
    let (world, report) = backfill(postgres_server::server().port, &database);
    assert_eq!((report.exit(), sold(&world)), (Exit::Done, expected()), "{:?}", report.problems);
}

#[test]
fn behind_a_pool_of_sessions_or_transactions_days_are_as_without_and_nothing_set_is_left_behind() {
    let database = prepared("tras_pgbouncer");
    for mode in ["session", "transaction"] {
        let port = pgbouncer(&database, mode, "ignore_startup_parameters = extra_float_digits\n");
        let (world, report) = backfill(port, &database);
        assert_eq!((report.exit(), sold(&world)), (Exit::Done, expected()), "{mode}: {:?}", report.problems);
        // The till's next statement runs on a connection that the agent had.
        let left = "SELECT current_setting('statement_timeout') || current_setting('row_security')
                    || current_setting('idle_in_transaction_session_timeout')";
        for _ in 0..3 {
            assert_eq!(postgres_server::server().sql_at(port, &database, left), "0on0", "{mode}");
        }
    }
}

#[test]
fn a_pool_that_cannot_serve_is_named_with_the_line_to_write() {
    let database = prepared("tras_otro_pgbouncer");
    let told = |mode: &str, more: &str| {
        let (_, report) = backfill(pgbouncer(&database, mode, more), &database);
        let problem = report.problems.into_iter().next().unwrap();
        assert_eq!(problem.kind, "config", "{problem:?}");
        problem.message
    };
    let parameters = told("transaction", "");
    assert!(parameters.contains("ignore_startup_parameters = extra_float_digits"), "{parameters}");
    let statements = told("statement", "ignore_startup_parameters = extra_float_digits\n");
    assert!(statements.contains("pool_mode = transaction"), "{statements}");
}
