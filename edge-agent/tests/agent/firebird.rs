//! A real Firebird 3: whole cycles, procedures, a till that does not hold still, slow queries, and
//! everything that can be wrong with a connection.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ribera_agent::host::SystemClock;
use ribera_agent::ports::{FailPoints, step};
use ribera_agent::report::{Exit, Report};
use ribera_agent::run::collect::RunMode;
use ribera_storage::ports::Clock;
use ribera_storage::{ErrorKind, Result};

use crate::firebird_server::{Server, plain_server, server};
use crate::fixture::{World, day, days, extract, run};

pub const LINES: &str = "
    CREATE TABLE LINEAS (
        TICKET INTEGER NOT NULL, LINEA INTEGER NOT NULL, FECHA DATE, MOMENTO TIMESTAMP, PRODUCTO VARCHAR(40),
        CANTIDAD NUMERIC(18,3), TOTAL NUMERIC(18,2), PRIMARY KEY (TICKET, LINEA));
    CREATE INDEX LINEAS_FECHA ON LINEAS (FECHA);
    GRANT SELECT ON LINEAS TO LECTOR;";

pub fn store(server: &Server, database: &str, more: &str) -> String {
    let port = server.port;
    format!(
        r#"
folder = "agent"
object_store = {{ folder = "objects" }}
[limits]
chunk_timeout_s = 20
{more}

[[store]]
id = "s1"
time_zone = "America/New_York"
adapter = "caja"
[store.source]
kind = "firebird"
host = "127.0.0.1"
port = {port}
database = "{database}"
user = "lector"
password = "${{CLAVE}}"
"#
    )
}

pub fn config(server: &Server, database: &str, more: &str) -> String {
    let store = store(server, database, more);
    format!(
        r#"{store}
[adapter.caja.ventas]
from = "LINEAS"
date = "FECHA"
[adapter.caja.ventas.columns]
ticket_id = "TICKET"
linea = "LINEA"
vendido_en = "MOMENTO"
producto_id = "PRODUCTO"
cantidad = "CANTIDAD"
total = "TOTAL"
"#
    )
}

pub fn sell(server: &Server, database: &str, date: &str, tickets: std::ops::Range<u32>) {
    let rows: Vec<String> = tickets
        .map(|ticket| {
            format!("INSERT INTO LINEAS VALUES ({ticket}, 1, '{date}', '{date} 10:30:00.5', 'ñ', 2, {ticket}.05);")
        })
        .collect();
    server.sql(database, &rows.join("\n"));
}

fn till(name: &str) -> (&'static Server, String) {
    let server = server();
    let database = server.database(name, "WIN1252");
    server.sql(&database, LINES);
    (server, database)
}

#[test]
fn a_cycle_sends_proves_and_finds_late_changes_that_cancel_out() {
    let (server, database) = till("ciclo");
    sell(server, &database, "2017-05-08", 1..4);
    sell(server, &database, "2017-05-09", 4..9);
    let world = World::with_config(&config(server, &database, ""));
    let sent = |report: &Report| report.datasets[0].planned.iter().map(|one| one.unit).collect::<Vec<_>>();
    let cycle = || extract(&world, "2017-05-08", "2017-05-09");
    let report = cycle();
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    assert!(world.manifests().iter().flat_map(|one| &one.units).all(|facts| facts.is_proven()));
    let lake = world.lake();
    assert_eq!(lake[&day("2017-05-09")], (5, "30.25".to_owned()));
    world.ingest();
    assert!(sent(&cycle()).is_empty(), "nothing changed");
    // Count and sums stay as they were: only the hash of the rows tells.
    server.sql(
        &database,
        "UPDATE LINEAS SET TOTAL = TOTAL + 1 WHERE TICKET = 1; UPDATE LINEAS SET TOTAL = TOTAL - 1 WHERE TICKET = 2;",
    );
    assert_eq!(sent(&cycle()), [day("2017-05-08")]);
    server.sql(&database, "DELETE FROM LINEAS WHERE TICKET = 8; UPDATE LINEAS SET PRODUCTO = 'm' WHERE TICKET = 3;");
    assert_eq!(sent(&cycle()), [day("2017-05-08"), day("2017-05-09")]);
    assert_eq!(world.lake()[&day("2017-05-09")], (4, "22.20".to_owned()));
}

#[test]
fn a_selectable_procedure_gives_rows_and_audit() {
    let (server, database) = till("procedimiento");
    sell(server, &database, "2017-05-08", 1..4);
    sell(server, &database, "2017-05-09", 4..9);
    server.sql(
        &database,
        "SET TERM ^;
         CREATE PROCEDURE VENTAS_DIARIAS (DESDE DATE, HASTA DATE) RETURNS (
             FECHA DATE, TICKET_ID INTEGER, LINEA INTEGER, VENDIDO_EN TIMESTAMP, PRODUCTO_ID VARCHAR(40),
             CANTIDAD NUMERIC(18,3), TOTAL NUMERIC(18,2)) AS
         BEGIN
             FOR SELECT FECHA, TICKET, LINEA, MOMENTO, PRODUCTO, CANTIDAD, TOTAL FROM LINEAS
                 WHERE FECHA BETWEEN :DESDE AND :HASTA ORDER BY FECHA
                 INTO :FECHA, :TICKET_ID, :LINEA, :VENDIDO_EN, :PRODUCTO_ID, :CANTIDAD, :TOTAL DO SUSPEND;
         END^
         CREATE PROCEDURE AUDITORIA (DESDE DATE, HASTA DATE) RETURNS (
             \"day\" DATE, \"rows\" INTEGER, CANTIDAD NUMERIC(18,3), TOTAL NUMERIC(18,2)) AS
         BEGIN
             FOR SELECT FECHA, COUNT(*), SUM(CANTIDAD), SUM(TOTAL) FROM LINEAS
                 WHERE FECHA BETWEEN :DESDE AND :HASTA GROUP BY FECHA
                 INTO :\"day\", :\"rows\", :CANTIDAD, :TOTAL DO SUSPEND;
         END^
         SET TERM ;^
         GRANT EXECUTE ON PROCEDURE VENTAS_DIARIAS TO LECTOR;
         GRANT EXECUTE ON PROCEDURE AUDITORIA TO LECTOR;
         GRANT SELECT ON LINEAS TO PROCEDURE VENTAS_DIARIAS;",
    );
    let by_hand = |extract: &str| {
        let audit = "SELECT * FROM AUDITORIA(:from, :to) -- una fila por día";
        let store = store(server, &database, "");
        World::with_config(&format!("{store}[adapter.caja.ventas]\nextract = \"{extract}\"\naudit = \"{audit}\"\n"))
    };
    let world = by_hand("SELECT p.*, CAST(:store AS VARCHAR(20)) AS UBICACION_ID FROM VENTAS_DIARIAS(:from, :to) p;");
    let report = extract(&world, "2017-05-08", "2017-05-09");
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    assert!(world.manifests().iter().flat_map(|one| &one.units).all(|facts| facts.is_proven()));
    assert_eq!(world.lake()[&day("2017-05-08")], (3, "6.15".to_owned()));
    let refused = extract(&by_hand("EXECUTE PROCEDURE VENTAS_DIARIAS(:from, :to)"), "2017-05-08", "2017-05-08");
    assert!(refused.problems[0].message.contains("EXECUTE"), "{:?}", refused.problems);
    let untyped =
        extract(&by_hand("SELECT p.*, :store AS X FROM VENTAS_DIARIAS(:from, :to) p"), "2017-05-08", "2017-05-08");
    assert!(untyped.problems[0].message.contains("CAST(:store"), "{:?}", untyped.problems);
}

/// Sells one more ticket at every question to the source.
struct BusyTill {
    database: String,
    next: Cell<u32>,
}

impl FailPoints for BusyTill {
    fn hit(&self, at: &'static str) -> Result<()> {
        if at == step::SOURCE_QUERY {
            let ticket = self.next.replace(self.next.get() + 1);
            sell(server(), &self.database, "2017-05-09", ticket..ticket + 1);
        }
        Ok(())
    }
}

#[test]
fn a_snapshot_holds_a_busy_till_still() {
    let (server, database) = till("ocupada");
    sell(server, &database, "2017-05-09", 1..5);
    let world = World::with_config(&config(server, &database, ""));
    let mut ports = world.ports();
    ports.fail_points = Rc::new(BusyTill { database: database.clone(), next: Cell::new(1000) });
    let mut agent = world.start().unwrap();
    agent.ports = ports;
    let report = run(&agent, RunMode::Extract { days: days("2017-05-09", "2017-05-09"), force: false });
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    let manifests = world.manifests();
    assert_eq!(manifests.len(), 1);
    assert!(manifests[0].units[0].is_proven());
    assert_eq!(manifests[0].units[0].file.rows, 5, "the sale before the snapshot, none after");
}

/// A function that keeps the server busy for so many milliseconds.
const WAIT: &str = "
    SET TERM ^;
    CREATE FUNCTION ESPERA (MILISEGUNDOS INTEGER) RETURNS INTEGER AS
        DECLARE DESDE TIMESTAMP;
    BEGIN
        DESDE = CAST('NOW' AS TIMESTAMP);
        WHILE (DATEDIFF(MILLISECOND FROM DESDE TO CAST('NOW' AS TIMESTAMP)) < MILISEGUNDOS) DO BEGIN END
        RETURN 0;
    END^
    SET TERM ;^
    GRANT EXECUTE ON FUNCTION ESPERA TO LECTOR;";

#[test]
fn a_slow_source_is_asked_in_halves_and_stops_working_when_nobody_waits() {
    let (server, database) = till("lenta");
    server.sql(&database, WAIT);
    for (index, date) in days("2017-05-01", "2017-05-08").iter().enumerate() {
        sell(server, &database, &date.to_string(), index as u32 * 10..index as u32 * 10 + 8);
    }
    // 64 rows of 30 ms are more than a second; 16 are not.
    let text = config(server, &database, "chunk_rows_min = 8")
        .replace("chunk_timeout_s = 20", "chunk_timeout_s = 1\nchunk_rows = 64")
        .replace("date = \"FECHA\"", "date = \"FECHA\"\nwhere = \"ESPERA(30) = 0\"\nrow_hash = false");
    let backfill = |world: &World| {
        run(&world.start().unwrap(), RunMode::Backfill { days: days("2017-05-01", "2017-05-08"), force: false })
    };
    let world = World::with_config(&text);
    let report = backfill(&world);
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    let manifest = world.manifests().remove(0);
    assert_eq!((manifest.units.len(), manifest.file.rows), (8, 64));
    assert!(manifest.units.iter().all(|facts| facts.is_proven()));
    let begun = Instant::now();
    let report = backfill(&World::with_config(&text.replace("ESPERA(30)", "ESPERA(20000)")));
    assert_eq!(report.exit(), Exit::Source);
    assert!(report.problems[0].hint.as_ref().unwrap().contains("chunk_timeout_s"), "{:?}", report.problems);
    // Each of those queries would have kept the server busy for minutes.
    while server.sql(&database, "SELECT COUNT(*) FROM MON$ATTACHMENTS WHERE MON$USER = 'LECTOR';") != "0" {
        assert!(begun.elapsed() < Duration::from_secs(60), "the server still works for a connection that is gone");
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

#[test]
fn what_is_wrong_with_a_connection_is_named_and_no_secret_shown() {
    let (server, database) = till("errores");
    let right = config(server, &database, "");
    let port = format!("port = {}", server.port);
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let cases = [
        (right.replace("\"lector\"", "\"nadie\""), ErrorKind::Config, "user or password"),
        (right.replace("\"${CLAVE}\"", "\"hunter2\""), ErrorKind::Config, "user or password"),
        (right.replace(&database, &database.replace("errores", "otra")), ErrorKind::Config, "source.database"),
        (right.replace(&database, "/etc/passwd"), ErrorKind::Config, "source.database"),
        (right.replace(&port, &format!("port = {unused}")), ErrorKind::Retry, "refused"),
        (right.replace("\"127.0.0.1\"", "\"no-such-till.invalid\""), ErrorKind::Retry, "no-such-till.invalid"),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (text, kind, word) in cases {
        let world = World::with_config(&text);
        let agent = world.start().unwrap();
        let connecting = agent.served(&[]).next().unwrap().source.connect();
        let error = runtime.block_on(connecting).err().expect(word);
        let told = error.to_string();
        assert_eq!(error.kind(), kind, "{told}");
        assert!(told.contains(word) && told.contains("ribera-agent check"), "{told} should name {word}");
        assert!(!told.contains("secret") && !told.contains("hunter2"), "{told}");
        let report = extract(&world, "2017-05-09", "2017-05-09");
        assert_eq!(report.exit(), Exit::Source);
        let told = format!("{:?}", report.problems);
        assert!(!told.contains("secret") && !told.contains("hunter2"), "{told}");
    }
    let missing = extract(&World::with_config(&right.replace("\"LINEAS\"", "\"LINIAS\"")), "2017-05-09", "2017-05-09");
    assert!(missing.problems[0].message.contains("LINIAS"), "{:?}", missing.problems);
    server.sql(&database, "CREATE TABLE AJENA (A INTEGER, FECHA DATE);");
    let denied = extract(&World::with_config(&right.replace("\"LINEAS\"", "\"AJENA\"")), "2017-05-09", "2017-05-09");
    assert_eq!(denied.exit(), Exit::Source);
}

#[test]
fn the_clock_is_the_servers_and_rights_to_write_are_told() {
    let (server, database) = till("derechos");
    server.sql(&database, "GRANT INSERT, UPDATE ON LINEAS TO CAJERO; GRANT SELECT ON LINEAS TO CAJERO;");
    let text = config(server, &database, "");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let asked = |text: &str| {
        let world = World::with_config(text);
        let agent = world.start().unwrap();
        runtime.block_on(async {
            let source = &agent.served(&[]).next().unwrap().source;
            let mut session = source.connect().await.unwrap();
            let zone = jiff::tz::TimeZone::system();
            (session.now(&zone).await.unwrap(), session.write_rights().await.unwrap())
        })
    };
    let (now, rights) = asked(&text);
    let here = SystemClock.now();
    assert!(now.duration_since(here).abs() < jiff::SignedDuration::from_secs(5), "{now}, here {here}");
    assert_eq!(rights, None, "a reader");
    let (_, rights) = asked(&text.replace("\"lector\"", "\"cajero\""));
    assert_eq!(rights.as_deref(), Some("INSERT on LINEAS"));
    let owner = text.replace("\"lector\"", "\"sysdba\"").replace("\"${CLAVE}\"", "\"masterkey\"");
    assert_eq!(asked(&owner).1.as_deref(), Some("administrator"));
    server.sql(&database, "GRANT DELETE ON LINEAS TO PUBLIC;");
    assert_eq!(asked(&text).1.as_deref(), Some("DELETE on LINEAS"));
}

#[test]
fn a_server_that_does_not_encrypt_is_read_too() {
    let server = plain_server();
    let database = server.database("clara", "UTF8");
    server.sql(&database, LINES);
    sell(server, &database, "2017-05-09", 1..3);
    let right = config(server, &database, "");
    let report = extract(&World::with_config(&right), "2017-05-09", "2017-05-09");
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    let wrong = extract(&World::with_config(&right.replace("${CLAVE}", "hunter2")), "2017-05-09", "2017-05-09");
    let told = format!("{:?}", wrong.problems);
    assert!(told.contains("user or password") && !told.contains("hunter2"), "{told}");
}

#[test]
fn an_alias_of_the_server_is_a_database_too() {
    let server = server();
    let database = server.database("almacen", "UTF8");
    server.sql(&database, LINES);
    sell(server, &database, "2017-05-09", 1..3);
    let world = World::with_config(&config(server, &database, "").replace(&database, "almacen"));
    let report = extract(&world, "2017-05-09", "2017-05-09");
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
}

#[test]
fn columns_of_more_bytes_together_than_a_message_holds_are_read() {
    let server = crate::firebird_server::server();
    let database = server.database("ancha", "WIN1252");
    server.sql(
        &database,
        "CREATE TABLE lineas (ticket INTEGER, fecha DATE, producto VARCHAR(6000), nota VARCHAR(6000), otra VARCHAR(6000));
         COMMIT;
         INSERT INTO lineas VALUES (1, '2017-05-08', 'ñandú', 'a', 'b');
         GRANT SELECT ON lineas TO LECTOR;",
    );
    let world = crate::fixture::World::with_config(&format!(
        "folder = \"agent\"\nobject_store = {{ folder = \"objects\" }}\n[[store]]\nid = \"s1\"\ntime_zone = \"America/Bogota\"\n\
         adapter = \"caja\"\n[store.source]\nkind = \"firebird\"\nhost = \"127.0.0.1\"\nport = {}\ndatabase = \"{database}\"\n\
         user = \"lector\"\npassword = \"secret\"\n[adapter.caja.ventas]\nfrom = \"lineas\"\ndate = \"fecha\"\n\
         [adapter.caja.ventas.columns]\nticket_id = \"ticket\"\nlinea = \"1\"\nproducto_id = \"producto\"\n\
         cliente_id = \"nota || otra\"\ncantidad = \"1\"\ntotal = \"1\"\n",
        server.port
    ));
    let report = crate::fixture::extract(&world, "2017-05-08", "2017-05-08");
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    assert_eq!(world.lake()[&crate::fixture::day("2017-05-08")].0, 1);
}
