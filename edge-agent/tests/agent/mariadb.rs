//! A real MariaDB: types, snapshots, a till that does not hold still, TLS, slow queries.

use std::cell::Cell;
use std::rc::Rc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Decimal128Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch};
use ribera_agent::ports::{FailPoints, step};
use ribera_agent::report::{Exit, Report};
use ribera_agent::run::collect::RunMode;
use ribera_storage::dataset::DatasetDefinition;
use ribera_storage::{Result, control};

use crate::fixture::{World, block_on, day, days, extract, run};
use crate::mariadb_server::{Server, server};
use crate::servers::{LINES_MAPPING, store};

const LINES: &str = "CREATE TABLE lineas (
    ticket INT, linea INT, fecha DATE, momento DATETIME(6), producto VARCHAR(40),
    cantidad DECIMAL(18,3), total DECIMAL(18,2), PRIMARY KEY (ticket, linea), KEY (fecha))";

fn config(server: &Server, database: &str, more: &str) -> String {
    store("mariadb", server.port, database, "${CLAVE}", "require", more) + LINES_MAPPING
}

fn sell(server: &Server, database: &str, date: &str, tickets: std::ops::Range<u32>) {
    let rows: Vec<String> =
        tickets.map(|ticket| format!("({ticket}, 1, '{date}', '{date} 10:30:00.5', 'p', 2, {ticket}.05)")).collect();
    server.sql(&format!("INSERT INTO {database}.lineas VALUES {}", rows.join(",")));
}

const TYPES: &str = r#"
name = "tipos"
version = 1
kind = "daily"
business_date = "d"
key = ["id"]
audit_sums = ["grande", "importe"]
lookback_days = 3
titles = { es = "Tipos", en = "Types" }
column = [
    { name = "d", type = "date", nullable = false },
    { name = "id", type = "int64", nullable = false },
    { name = "grande", type = "decimal(20,0)" },
    { name = "minimo", type = "int64" },
    { name = "chico", type = "int64" },
    { name = "importe", type = "decimal(38,10)" },
    { name = "local", type = "timestamp" },
    { name = "instante", type = "timestamp" },
    { name = "hora", type = "text" },
    { name = "texto", type = "text" },
    { name = "viejo", type = "text" },
    { name = "bits", type = "int64" },
    { name = "bytes", type = "binary" },
    { name = "si", type = "bool" },
    { name = "anio", type = "int64" },
    { name = "lista", type = "text" },
    { name = "doble", type = "float64" },
]
"#;

fn types_world(server: &Server, insert: &str) -> (World, Report) {
    let database = server.database("tipos");
    server.sql(&format!(
        "USE {database}; SET time_zone = '+00:00'; CREATE TABLE t (
            d DATE, id BIGINT PRIMARY KEY, grande BIGINT UNSIGNED, minimo BIGINT, chico TINYINT(1) UNSIGNED,
            importe DECIMAL(38,10), local DATETIME(6), instante TIMESTAMP(6) NULL, hora TIME(6),
            texto VARCHAR(100) COLLATE utf8mb4_bin, viejo VARCHAR(20) CHARACTER SET latin1, bits BIT(9),
            bytes VARBINARY(20), si BOOLEAN, anio YEAR, lista ENUM('uno', 'dos'), doble DOUBLE);
         SET sql_mode = ''; {insert}"
    ));
    let text = config(server, &database, "");
    let text = text.split("[adapter").next().unwrap().to_owned();
    let columns: Vec<String> = TYPES
        .lines()
        .filter_map(|line| line.trim().strip_prefix("{ name = \"")?.split('"').next())
        .map(|name| format!("{name} = \"`{name}`\""))
        .collect();
    let text = format!(
        "{text}[adapter.caja.tipos]\nfrom = \"t\"\ndate = \"d\"\n[adapter.caja.tipos.columns]\n{}",
        columns.join("\n")
    );
    let world = World::with_config(&text);
    let definition = DatasetDefinition::from_toml(TYPES).unwrap();
    block_on(control::publish_dataset(&world.objects, &definition)).unwrap();
    let report = extract(&world, "2024-01-01", "2024-01-01");
    (world, report)
}

fn rows(world: &World) -> RecordBatch {
    let manifest = world.manifests().into_iter().next().unwrap();
    assert!(manifest.units[0].audit.as_ref().unwrap().agrees_with(&manifest.units[0].file));
    world.rows(&manifest).remove(0)
}

#[test]
fn every_type_of_mariadb_arrives_exactly() {
    let server = server();
    let (world, report) = types_world(
        server,
        "INSERT INTO t VALUES
         ('2024-01-01', -9223372036854775808, 18446744073709551615, -9223372036854775808, 255,
          9999999999999999999999999999.9999999999, '2024-01-01 12:00:00.123456', '2024-07-01 12:00:00.000001',
          '-838:59:59.000001', 'ñ á € 😀', 'ñ á €', b'101010101', x'00ff10', 1, 2024, 'dos', 0.1),
         ('2024-01-01', 9223372036854775807, 0, 0, 0, -0.0000000001, '1969-12-31 23:59:59', NULL, '00:00:00', '', '', 0,
          '', 0, 1901, 'uno', -1e300),
         ('2024-01-01', 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);",
    );
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    let rows = rows(&world);
    let column = |name: &str| rows.column_by_name(name).unwrap().clone();
    let at = |id: i64| column("id").as_primitive::<Int64Type>().values().iter().position(|one| *one == id).unwrap();
    let (first, second, third) = (at(i64::MIN), at(i64::MAX), at(0));
    let decimal = |name: &str, row: usize| column(name).as_primitive::<Decimal128Type>().value(row);
    let int = |name: &str, row: usize| column(name).as_primitive::<Int64Type>().value(row);
    let text = |name: &str, row: usize| column(name).as_string::<i32>().value(row).to_owned();
    let moment = |name: &str, row: usize| {
        jiff::Timestamp::from_microsecond(column(name).as_primitive::<TimestampMicrosecondType>().value(row))
            .unwrap()
            .to_string()
    };
    assert_eq!(column("d").as_primitive::<Date32Type>().value(first), 19_723);
    assert_eq!(decimal("grande", first), i128::from(u64::MAX));
    assert_eq!((int("minimo", first), int("chico", first), int("bits", first)), (i64::MIN, 255, 0b1_0101_0101));
    assert_eq!(decimal("importe", first), 10_i128.pow(38) - 1);
    assert_eq!(decimal("importe", second), -1);
    assert_eq!(moment("local", first), "2024-01-01T17:00:00.123456Z", "a DATETIME is in the store's zone");
    assert_eq!(moment("local", second), "1970-01-01T04:59:59Z");
    assert_eq!(moment("instante", first), "2024-07-01T12:00:00.000001Z", "a TIMESTAMP knows its own");
    assert_eq!(text("hora", first), "-838:59:59.000001");
    assert_eq!((text("texto", first), text("viejo", first)), ("ñ á € 😀".to_owned(), "ñ á €".to_owned()));
    assert_eq!((text("texto", second), text("lista", first)), (String::new(), "dos".to_owned()));
    assert_eq!(column("bytes").as_binary::<i32>().value(first), [0, 0xff, 0x10]);
    assert_eq!((column("si").as_boolean().value(first), column("si").as_boolean().value(second)), (true, false));
    assert_eq!((int("anio", first), int("anio", second)), (2024, 1901));
    for (index, field) in rows.schema().fields().iter().enumerate().skip(2) {
        assert!(rows.column(index).is_null(third), "{}", field.name());
    }
    let sums = &world.manifests()[0].units[0].file.sums;
    assert_eq!(sums["grande"].to_string(), "18446744073709551615");
    assert_eq!(sums["importe"].to_string(), "9999999999999999999999999999.9999999998");
}

#[test]
fn a_zero_date_is_refused_by_name_and_never_becomes_null() {
    let server = server();
    let (_, report) =
        types_world(server, "INSERT INTO t (d, id, local) VALUES ('2024-01-01', 7, '0000-00-00 00:00:00');");
    assert_eq!(report.exit(), Exit::Source);
    let message = &report.problems[0].message;
    for word in ["column local", "id = 7", "zero date"] {
        assert!(message.contains(word), "{message:?} should name {word:?}");
    }
}

/// Sells one more ticket at every question to the source.
struct BusyTill {
    database: &'static str,
    next: Cell<u32>,
    until: u32,
}

impl FailPoints for BusyTill {
    fn hit(&self, at: &'static str) -> Result<()> {
        if at == step::SOURCE_QUERY && self.next.get() < self.until {
            let ticket = self.next.replace(self.next.get() + 1);
            sell(server(), self.database, "2017-05-09", ticket..ticket + 1);
        }
        Ok(())
    }
}

fn busy(world: &World, database: &'static str, sales: u32) -> Report {
    let mut ports = world.ports();
    ports.fail_points = Rc::new(BusyTill { database, next: Cell::new(1000), until: 1000 + sales });
    let mut agent = world.start().unwrap();
    agent.ports = ports;
    run(&agent, RunMode::Extract { days: days("2017-05-09", "2017-05-09"), force: false })
}

#[test]
fn a_snapshot_holds_a_busy_till_still() {
    let server = server();
    let database = server.database("ocupada");
    server.sql(&format!("USE {database}; {LINES} ENGINE = InnoDB;"));
    sell(server, &database, "2017-05-09", 1..5);
    let world = World::with_config(&config(server, &database, ""));
    assert_eq!(busy(&world, "ocupada", 100).exit(), Exit::Done);
    let manifests = world.manifests();
    assert_eq!(manifests.len(), 1);
    assert!(manifests[0].units[0].is_proven());
    assert_eq!(manifests[0].units[0].file.rows, 5, "the sale before the snapshot, none after");
}

#[test]
fn a_till_that_would_not_hold_still_is_sent_as_not_proven_and_proven_later() {
    let server = server();
    let database = server.database("inquieta");
    // MyISAM has no snapshots.
    server.sql(&format!("USE {database}; {LINES} ENGINE = MyISAM;"));
    sell(server, &database, "2017-05-09", 1..5);
    let world = World::with_config(&config(server, &database, ""));
    let report = busy(&world, "inquieta", 100);
    assert_eq!(report.exit(), Exit::Unproven);
    assert_eq!(report.datasets[0].unproven, [day("2017-05-09")]);
    assert!(!world.manifests()[0].units[0].is_proven());
    let report = extract(&world, "2017-05-09", "2017-05-09");
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    let newest = world.manifests().into_iter().max_by_key(|one| one.batch.position).unwrap();
    assert!(newest.units[0].is_proven());
    // A few changes and then quiet: a further try of the same run proves it.
    server.sql("DELETE FROM inquieta.lineas WHERE ticket >= 1000");
    assert_eq!(busy(&world, "inquieta", 3).exit(), Exit::Done);
}

#[test]
fn a_slow_source_is_asked_in_halves_down_to_the_floor() {
    let server = server();
    let database = server.database("lenta");
    server.sql(&format!("USE {database}; {LINES};"));
    for (index, date) in days("2017-05-01", "2017-05-08").iter().enumerate() {
        sell(server, &database, &date.to_string(), index as u32 * 10..index as u32 * 10 + 8);
    }
    // 64 rows of 30 ms are more than a second; 16 are not.
    let text = config(server, &database, "chunk_rows_min = 8")
        .replace("chunk_timeout_s = 20", "chunk_timeout_s = 1\nchunk_rows = 64")
        .replace("date = \"fecha\"", "date = \"fecha\"\nwhere = \"SLEEP(0.03) = 0\"\nrow_hash = false");
    let world = World::with_config(&text);
    let backfill =
        || run(&world.start().unwrap(), RunMode::Backfill { days: days("2017-05-01", "2017-05-08"), force: false });
    let report = backfill();
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    let manifest = world.manifests().remove(0);
    assert_eq!((manifest.units.len(), manifest.file.rows), (8, 64));
    assert!(manifest.units.iter().all(|facts| facts.is_proven()));
    let floor = World::with_config(&text.replace("SLEEP(0.03)", "SLEEP(0.3)"));
    let report =
        run(&floor.start().unwrap(), RunMode::Backfill { days: days("2017-05-01", "2017-05-08"), force: false });
    assert_eq!(report.exit(), Exit::Source);
    assert!(report.problems[0].hint.as_ref().unwrap().contains("chunk_timeout_s"), "{:?}", report.problems);
}

#[test]
fn tls_is_on_by_default_and_checks_what_it_is_told_to_check() {
    let server = server();
    let database = server.database("segura");
    server.sql(&format!("USE {database}; {LINES};"));
    sell(server, &database, "2017-05-09", 1..5);
    let required = config(server, &database, "");
    let encrypted = |text: &str| {
        let world = World::with_config(text);
        extract(&world, "2017-05-09", "2017-05-09")
    };
    server.sql("ALTER USER lector@'127.0.0.1' REQUIRE SSL");
    assert_eq!(encrypted(&required).exit(), Exit::Done);
    assert_eq!(encrypted(&required.replace("tls = \"require\"", "")).exit(), Exit::Done, "on unless switched off");
    let verify = |file: &std::path::Path| {
        required.replace("\"require\"", &format!("\"verify\"\ntls_ca_file = \"{}\"", file.display()))
    };
    let report = encrypted(&verify(&server.ca_file));
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    let refused = encrypted(&verify(&server.other_ca_file));
    assert_eq!(refused.exit(), Exit::Source);
    assert!(refused.problems[0].message.contains("tls"), "{:?}", refused.problems);
    assert_eq!(encrypted(&required.replace("\"require\"", "\"off\"")).exit(), Exit::Source, "the server insists");
    server.sql("ALTER USER lector@'127.0.0.1' REQUIRE NONE");
    assert_eq!(encrypted(&required.replace("\"require\"", "\"off\"")).exit(), Exit::Done);
    let wrong = encrypted(&required.replace("\"lector\"", "\"nadie\""));
    assert_eq!(wrong.exit(), Exit::Source);
    let told = format!("{:?}", wrong.problems);
    assert!(told.contains("user or password") && !told.contains("secret"), "{told}");
}
