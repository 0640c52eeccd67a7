//! A real MariaDB whose rows and audit come from stored procedures with several result sets.

use ribera_agent::report::{Exit, Report};
use ribera_storage::ErrorKind;

use crate::fixture::{World, day, extract};
use crate::mariadb_server::{Server, server};

/// What a till's maker ships: names of its own, a header first, a footer last, work in a temporary
/// table, a commit in the middle.
const PROCEDURES: &str = "
    CREATE TABLE lineas (ticket INT, linea INT, fecha DATE, codigo VARCHAR(40),
                         unidades DECIMAL(18,3), importe DECIMAL(18,2), PRIMARY KEY (ticket, linea));
    DELIMITER $$
    CREATE PROCEDURE sp_lineas(desde DATE, hasta DATE)
    BEGIN
        SELECT 'Abarrotes El Niño' AS empresa, desde AS desde, hasta AS hasta;
        DROP TEMPORARY TABLE IF EXISTS pedidas;
        CREATE TEMPORARY TABLE pedidas AS SELECT * FROM lineas WHERE fecha BETWEEN desde AND hasta;
        COMMIT;
        SELECT fecha, ticket, linea, codigo, unidades, importe, 'caja 1' AS cajero FROM pedidas ORDER BY fecha, ticket;
        SELECT COUNT(*) AS total FROM pedidas;
    END$$
    CREATE PROCEDURE sp_auditoria(desde DATE, hasta DATE)
    BEGIN
        SELECT 'auditoría' AS titulo UNION ALL SELECT 'operativa';
        SELECT fecha AS dia, COUNT(*) AS renglones, SUM(unidades) AS unidades, SUM(importe) AS importe,
               COUNT(DISTINCT ticket) AS tickets
        FROM lineas WHERE fecha BETWEEN desde AND hasta GROUP BY fecha;
    END$$
    CREATE PROCEDURE sp_sola(desde DATE, hasta DATE)
        SELECT fecha, ticket, linea, codigo, unidades, importe FROM lineas WHERE fecha BETWEEN desde AND hasta
        ORDER BY fecha$$
    CREATE PROCEDURE sp_nada(desde DATE, hasta DATE) BEGIN SET @x = desde; END$$
    CREATE PROCEDURE sp_rota(desde DATE, hasta DATE)
    BEGIN
        SELECT fecha, ticket, linea, codigo, unidades, importe FROM lineas WHERE fecha BETWEEN desde AND hasta
        ORDER BY fecha;
        SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'se cayó a medio camino';
    END$$
    DELIMITER ;
    INSERT INTO lineas VALUES (1, 1, '2017-05-07', 'ñ1', 1.5, 10.10), (1, 2, '2017-05-07', 'b', -1, -3.05),
        (2, 1, '2017-05-09', 'c', 2, 0.95);";

fn till(name: &str) -> (&'static Server, String) {
    let server = server();
    let database = server.database(name);
    server.sql(&format!("USE {database}; {PROCEDURES} GRANT EXECUTE ON {database}.* TO lector@'127.0.0.1';"));
    (server, database)
}

fn store(server: &Server, database: &str) -> String {
    let port = server.port;
    format!(
        r#"
folder = "agent"
object_store = {{ folder = "objects" }}
[[store]]
id = "s1"
time_zone = "America/New_York"
adapter = "caja"
[store.source]
kind = "mariadb"
host = "127.0.0.1"
port = {port}
database = "{database}"
user = "lector"
password = "${{CLAVE}}"
[adapter.caja.ventas]
"#
    )
}

const COLUMNS: &str = r#"
audit_columns = { day = "dia", rows = "renglones", cantidad = "unidades", total = "importe" }
[adapter.caja.ventas.columns]
ticket_id = "ticket"
producto_id = "codigo"
cantidad = "UNIDADES"
total = "importe"
"#;

const EXTRACT: &str = "extract = \"CALL sp_lineas(:from, :to)\"\nresult_set = 2";
const AUDIT: &str = "audit = \"CALL sp_auditoria(:from, :to)\"\naudit_result_set = 2";

fn asked(server: &Server, database: &str, extract_by: &str, audit_by: &str) -> (World, Report) {
    let world = World::with_config(&format!("{}{extract_by}\n{audit_by}\n{COLUMNS}", store(server, database)));
    let report = extract(&world, "2017-05-07", "2017-05-09");
    (world, report)
}

#[test]
fn a_procedures_result_sets_give_rows_and_audit_under_the_names_it_has() {
    let (server, database) = till("procedimientos");
    let (world, report) = asked(server, &database, EXTRACT, AUDIT);
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    assert!(world.manifests().iter().flat_map(|one| &one.units).all(|facts| facts.is_proven()));
    let lake = world.lake();
    assert_eq!(lake[&day("2017-05-07")], (2, "7.05".to_owned()));
    assert_eq!(lake[&day("2017-05-08")], (0, "0".to_owned()), "a day without rows is a fact");
    assert_eq!(lake[&day("2017-05-09")], (1, "0.95".to_owned()));
    world.ingest();
    server.sql(&format!("UPDATE {database}.lineas SET importe = importe - 1 WHERE codigo = 'c'"));
    let report = extract(&world, "2017-05-07", "2017-05-09");
    assert_eq!(report.datasets[0].planned.len(), 1, "{:?}", report.problems);
    assert_eq!(world.lake()[&day("2017-05-09")], (1, "-0.05".to_owned()));
}

#[test]
fn a_procedure_with_one_result_set_needs_no_number() {
    let (server, database) = till("una");
    let (world, report) = asked(server, &database, "extract = \"CALL sp_sola(:from, :to)\"", AUDIT);
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    assert_eq!(world.lake()[&day("2017-05-08")], (0, "0".to_owned()));
    assert_eq!(world.lake()[&day("2017-05-07")], (2, "7.05".to_owned()));
}

#[test]
fn a_procedure_that_does_not_give_the_rows_is_refused_with_what_it_gives() {
    let (server, database) = till("malas");
    let call = |name: &str, more: &str| format!("extract = \"CALL {name}(:from, :to)\"\n{more}");
    let cases = [
        (call("sp_lineas", ""), "`result_set` (or `audit_result_set`) must say which"),
        (call("sp_lineas", "result_set = 1"), "ticket_id"),
        (call("sp_lineas", "result_set = 7"), "`result_set` must be 1 to 3, got 7"),
        (call("sp_lineas", "result_set = 3"), "must be"),
        (call("sp_nada", ""), "must give a result set"),
        (call("sp_nada", "result_set = 1"), "must give a result set"),
        (call("sp_rota", ""), "se cayó a medio camino"),
        (call("sp_no_hay", ""), "sp_no_hay"),
        ("extract = \"EXEC sp_sola :from, :to\"".to_owned(), "CALL procedure(:from, :to)"),
    ];
    for (extract_by, words) in cases {
        let (world, report) = asked(server, &database, &extract_by, AUDIT);
        assert_ne!(report.exit(), Exit::Done, "{extract_by}");
        let told = format!("{:?}", report.problems);
        assert!(told.contains(words), "{extract_by}: {told} should say {words:?}");
        // Nothing came half-way.
        assert!(world.manifests().is_empty(), "{extract_by}");
    }
}

#[test]
fn a_mapping_that_names_result_sets_without_a_statement_of_its_own_is_refused() {
    let (server, database) = till("mapeo");
    let derived = "from = \"lineas\"\ndate = \"fecha\"\nresult_set = 2\ncolumns = { ticket_id = \"ticket\" }\n";
    let text = format!("{}{derived}", store(server, &database));
    let error = ribera_agent::config::Config::parse(&text, &|_| Some(String::new())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("adapter.caja.ventas.result_set"), "{error}");
}
