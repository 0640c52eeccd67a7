//! The till never notices: its commits go through while the agent reads, and the server is left alone.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ribera_agent::ports::FailPoints;
use ribera_agent::report::Exit;
use ribera_agent::run::collect::RunMode;
use ribera_storage::Result;
use rusqlite::Connection;

use crate::fixture::{CONFIG, World, block_on, day, days, extract, request, run};
use crate::{mariadb_server, postgres_server};

/// Writes a sale at each step of the agent and does not wait for a lock.
struct ImpatientTill {
    till: Connection,
    sales: Cell<u32>,
    refused: Cell<u32>,
}

impl FailPoints for ImpatientTill {
    fn hit(&self, _: &'static str) -> Result<()> {
        let ticket = 100_000 + self.sales.replace(self.sales.get() + 1);
        let sale = "INSERT INTO lineas VALUES (?1, 1, '2017-05-10', '11:00:00', 'p', 1, 100)";
        if self.till.execute(sale, [ticket]).is_err() {
            self.refused.set(self.refused.get() + 1);
        }
        Ok(())
    }
}

#[test]
fn a_sqlite_till_commits_between_any_two_reads_in_every_journal_mode() {
    for mode in ["DELETE", "TRUNCATE", "PERSIST", "WAL"] {
        let world = World::with_config(
            &CONFIG.replace("folder = \"agent\"", "folder = \"agent\"\nlimits = { chunk_pause_ms = 100 }"),
        );
        world.till.query_row(&format!("PRAGMA journal_mode = {mode}"), [], |_| Ok(())).unwrap();
        for (index, date) in days("2017-03-01", "2017-05-09").iter().enumerate() {
            world.sell(&date.to_string(), index as u32 * 100..index as u32 * 100 + 40);
        }
        let till = Connection::open(world.folder.path().join("pos.db")).unwrap();
        till.busy_timeout(Duration::ZERO).unwrap();
        let till = Rc::new(ImpatientTill { till, sales: Cell::default(), refused: Cell::default() });
        let mut ports = world.ports();
        ports.fail_points = till.clone();
        let mut agent = world.start().unwrap();
        agent.ports = ports;
        let ask = RunMode::Backfill { days: days("2017-03-01", "2017-05-09"), force: false };
        let report = block_on(agent.run("test", &request(ask), Duration::ZERO));
        assert_eq!(report.exit(), Exit::Done, "{mode}: {:?}", report.problems);
        assert!(till.sales.get() > 20, "{mode}: the till sold {}", till.sales.get());
        assert_eq!(till.refused.get(), 0, "{mode}: commits refused of {}", till.sales.get());
        assert_eq!(world.lake().values().map(|(rows, _)| rows).sum::<u64>(), 70 * 40, "{mode}");
        let report = block_on(agent.run("test", &request(RunMode::Cycle), Duration::ZERO));
        // Today does not hold still; no more is wrong.
        assert!(matches!(report.exit(), Exit::Done | Exit::Unproven), "{mode}: {:?}", report.problems);
        assert_eq!(till.refused.get(), 0, "{mode}");
    }
}

#[test]
fn a_till_of_its_own_thread_never_waits_longer_than_its_patience() {
    let world = World::new();
    world.till.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(())).unwrap();
    for (index, date) in days("2017-03-01", "2017-05-09").iter().enumerate() {
        world.sell(&date.to_string(), index as u32 * 1000..index as u32 * 1000 + 300);
    }
    let over = AtomicBool::new(false);
    let path = world.folder.path().join("pos.db");
    let (commits, refused, longest) = std::thread::scope(|scope| {
        let selling = scope.spawn(|| {
            let till = Connection::open(&path).unwrap();
            till.busy_timeout(Duration::from_secs(2)).unwrap();
            let (mut commits, mut refused, mut longest) = (0_u32, 0_u32, Duration::ZERO);
            while !over.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let sale = "INSERT INTO lineas VALUES (?1, 1, '2017-05-10', '11:00:00', 'p', 1, 100)";
                refused += u32::from(till.execute(sale, [900_000 + commits]).is_err());
                commits += 1;
                longest = longest.max(begun.elapsed());
                std::thread::park_timeout(Duration::from_millis(1));
            }
            (commits, refused, longest)
        });
        let report = world.backfill("2017-03-01", "2017-05-09");
        over.store(true, Ordering::Relaxed);
        assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
        selling.join().unwrap()
    });
    assert!(commits > 10, "{commits} commits while the agent read");
    assert_eq!(refused, 0, "of {commits} commits, the longest took {longest:?}");
}

fn mariadb(database: &str, more: &str) -> String {
    let port = mariadb_server::server().port;
    format!(
        "folder = \"agent\"\nobject_store = {{ folder = \"objects\" }}\n[limits]\n{more}\n[[store]]\nid = \"s1\"\n\
         time_zone = \"America/Bogota\"\nadapter = \"caja\"\n[store.source]\nkind = \"mariadb\"\nhost = \"127.0.0.1\"\n\
         port = {port}\ndatabase = \"{database}\"\nuser = \"lector\"\npassword = \"secret\"\n{MAPPING}"
    )
}

const MAPPING: &str = r#"
[adapter.caja.ventas]
from = "lineas"
date = "fecha"
row_hash = false
[adapter.caja.ventas.columns]
ticket_id = "ticket"
linea = "1"
producto_id = "'p'"
cantidad = "1"
total = "total"
"#;

/// A table with a row on each of some days.
fn table(database: &str, engine: &str, from: &str, to: &str) {
    let rows: Vec<String> =
        days(from, to).iter().enumerate().map(|(ticket, date)| format!("({ticket}, '{date}', 1)")).collect();
    mariadb_server::server().sql(&format!(
        "USE {database}; CREATE TABLE lineas (ticket INT PRIMARY KEY, fecha DATE, total DECIMAL(10,2), KEY (fecha)) ENGINE = {engine};
         INSERT INTO lineas VALUES {};",
        rows.join(", ")
    ));
}

fn running(database: &str) -> String {
    mariadb_server::server().sql(&format!(
        "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE DB = '{database}' AND COMMAND <> 'Sleep' AND ID <> CONNECTION_ID()"
    ))
}

#[test]
fn a_query_that_took_too_long_is_ended_at_the_mariadb_server() {
    let server = mariadb_server::server();
    let database = server.database("terca");
    table(&database, "InnoDB", "2017-05-08", "2017-05-09");
    // It works and sends nothing: only the server can end it.
    let heavy = MAPPING.replace("row_hash", "where = \"BENCHMARK(2000000000, MD5(ticket)) = 0\"\nrow_hash");
    let world = World::with_config(&mariadb(&database, "chunk_timeout_s = 1").replace(MAPPING, &heavy));
    let report = extract(&world, "2017-05-08", "2017-05-09");
    assert_eq!(report.exit(), Exit::Source, "{:?}", report.problems);
    let mut left = String::new();
    for _ in 0..50 {
        left = running(&database);
        if left.trim().ends_with('0') {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
    panic!("queries go on at the server: {left}");
}

#[test]
fn a_servers_own_time_limit_is_asked_in_halves_like_the_agents() {
    let server = mariadb_server::server();
    let database = server.database("limitada");
    table(&database, "InnoDB", "2017-05-01", "2017-05-08");
    let slow = MAPPING.replace("row_hash", "where = \"SLEEP(0.15) = 0\"\nrow_hash");
    let text = mariadb(&database, "chunk_timeout_s = 20\nchunk_rows = 8\nchunk_rows_min = 1").replace(MAPPING, &slow);
    server.sql("SET GLOBAL max_statement_time = 1");
    let world = World::with_config(&text);
    let report =
        run(&world.start().unwrap(), RunMode::Backfill { days: days("2017-05-01", "2017-05-08"), force: false });
    server.sql("SET GLOBAL max_statement_time = 0");
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    assert_eq!(world.lake().len(), 8);
}

#[test]
fn a_backfill_holds_no_transaction_longer_than_a_month_and_a_myisam_table_is_let_go_before_rows_are_sent() {
    let server = mariadb_server::server();
    for engine in ["InnoDB", "MyISAM"] {
        let database = server.database(&format!("paciente_{}", engine.to_lowercase()));
        table(&database, engine, "2017-01-01", "2017-04-30");
        server.sql("SET GLOBAL log_output = 'TABLE'; TRUNCATE mysql.general_log; SET GLOBAL general_log = 1");
        let world = World::with_config(&mariadb(&database, "chunk_timeout_s = 20"));
        let report =
            run(&world.start().unwrap(), RunMode::Backfill { days: days("2017-01-01", "2017-04-30"), force: false });
        server.sql("SET GLOBAL general_log = 0");
        assert_eq!(report.exit(), Exit::Done, "{engine}: {:?}", report.problems);
        assert_eq!(world.lake().len(), 120, "{engine}");
        let count = |part: &str| -> u32 {
            let sql = format!("SELECT COUNT(*) FROM mysql.general_log WHERE argument LIKE '{part}'");
            server.sql(&sql).trim().rsplit(['\n', '\t']).next().unwrap().parse().unwrap()
        };
        assert!(count("START TRANSACTION%") >= 4, "{engine}: one for each month");
        let buffered = count("SELECT SQL_BUFFER_RESULT%FROM lineas%");
        assert_eq!(buffered > 0, engine == "MyISAM", "{engine}: {buffered}");
    }
}

#[test]
fn a_pause_between_chunks_is_no_idle_transaction_to_postgres() {
    let server = postgres_server::server();
    let database = server.database("pausada", "UTF8");
    let rows: Vec<String> = days("2017-05-01", "2017-05-04")
        .iter()
        .enumerate()
        .map(|(ticket, date)| format!("({ticket}, '{date}', 1)"))
        .collect();
    server.sql(
        &database,
        &format!(
            "ALTER DATABASE pausada SET idle_in_transaction_session_timeout = '300ms';
             CREATE TABLE lineas (ticket INT PRIMARY KEY, fecha DATE, total DECIMAL(10,2));
             INSERT INTO lineas VALUES {}; GRANT SELECT ON lineas TO lector;",
            rows.join(", ")
        ),
    );
    let text = mariadb("x", "chunk_timeout_s = 20\nchunk_rows = 1\nchunk_rows_min = 1\nchunk_pause_ms = 700");
    let (head, _) = text.split_once("kind = \"mariadb\"").unwrap();
    let source = format!(
        "kind = \"postgres\"\nhost = \"127.0.0.1\"\nport = {}\ndatabase = \"{database}\"\nuser = \"lector\"\npassword = \"contraseña\"\n",
        server.port
    );
    let world = World::with_config(&format!("{head}{source}{MAPPING}"));
    let mut agent = world.start().unwrap();
    agent.ports.timer = Rc::new(ribera_agent::host::TokioTimer);
    let report = run(&agent, RunMode::Backfill { days: days("2017-05-01", "2017-05-04"), force: false });
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    assert_eq!(world.lake()[&day("2017-05-01")].0, 1);
}
