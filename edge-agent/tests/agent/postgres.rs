//! A real PostgreSQL: types, encodings, snapshots, slow queries, TLS, functions.

use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};
use ribera_agent::report::{Exit, Report};
use ribera_agent::run::collect::RunMode;
use ribera_storage::{Unit, control};

use crate::fixture::{World, block_on, day, days, extract, run};
use crate::matrix::{self, Case};
use crate::postgres_server::{Server, server};
use crate::servers::{LINES_MAPPING, store};

const LINES: &str = "CREATE TABLE lineas (
    ticket INT, linea INT, fecha DATE, momento TIMESTAMP(6), producto VARCHAR(40),
    cantidad NUMERIC(18,3), total NUMERIC(18,2), PRIMARY KEY (ticket, linea)); CREATE INDEX ON lineas (fecha);";

fn config(server: &Server, database: &str, mapping: &str) -> String {
    store("postgres", server.port, database, "contraseña", "require", "") + mapping
}

fn sell(server: &Server, database: &str, date: &str, tickets: std::ops::Range<u32>) {
    let rows: Vec<String> =
        tickets.map(|ticket| format!("({ticket}, 1, '{date}', '{date} 10:30:00.5', 'p', 2, {ticket}.05)")).collect();
    server.sql(database, &format!("INSERT INTO lineas VALUES {}", rows.join(",")));
}

const MATRIX: &[Case] = &[
    ("smallint", "int16", &[("-32768", "-32768"), ("32767", "32767"), ("0", "0")]),
    ("integer", "int32", &[("-2147483648", "-2147483648"), ("2147483647", "2147483647")]),
    (
        "bigint",
        "int64",
        &[("-9223372036854775808", "-9223372036854775808"), ("9223372036854775807", "9223372036854775807")],
    ),
    ("oid", "int64", &[("4294967295", "4294967295")]),
    (
        "numeric(18,4)",
        "decimal(18,4)",
        &[
            ("99999999999999.9999", "99999999999999.9999"),
            ("-99999999999999.9999", "-99999999999999.9999"),
            ("0.0001", "0.0001"),
            ("-0.0001", "-0.0001"),
            ("10000", "10000.0000"),
            ("0", "0.0000"),
        ],
    ),
    (
        "numeric(38,10)",
        "decimal(38,10)",
        &[
            ("9999999999999999999999999999.9999999999", "9999999999999999999999999999.9999999999"),
            ("-9999999999999999999999999999.9999999999", "-9999999999999999999999999999.9999999999"),
        ],
    ),
    (
        "numeric",
        "decimal(38,6)",
        &[("12345.678", "12345.678000"), ("1e20", "100000000000000000000.000000"), ("1.5000000000000", "1.500000")],
    ),
    (
        "numeric(38,0)",
        "decimal(38,0)",
        &[("99999999999999999999999999999999999999", "99999999999999999999999999999999999999")],
    ),
    (
        "numeric(60,0)",
        "text",
        &[(
            "123456789012345678901234567890123456789012345678901234567890",
            "123456789012345678901234567890123456789012345678901234567890",
        )],
    ),
    (
        "numeric",
        "text",
        &[
            ("'NaN'", "NaN"),
            ("1234.50", "1234.50"),
            ("-0.000000000000000000000000000000000000000000012", "-0.000000000000000000000000000000000000000000012"),
        ],
    ),
    (
        "money",
        "decimal(19,2)",
        &[("'92233720368547758.07'", "92233720368547758.07"), ("'-92233720368547758.08'", "-92233720368547758.08")],
    ),
    ("real", "float64", &[("1.5", "1.5"), ("-3.4e38", "-3.3999999521443642e38")]),
    ("double precision", "float64", &[("0.1", "0.1"), ("-1e300", "-1e300")]),
    ("double precision", "decimal(18,2)", &[]),
    ("boolean", "bool", &[("true", "true"), ("false", "false")]),
    ("date", "date", &[("'0001-01-01'", "0001-01-01"), ("'9999-12-31'", "9999-12-31"), ("'2000-02-29'", "2000-02-29")]),
    (
        "timestamp(6)",
        "timestamp",
        &[
            ("'2024-01-01 12:00:00.123456'", "2024-01-01T17:00:00.123456Z"),
            ("'2024-07-01 00:00:00'", "2024-07-01T04:00:00Z"),
            ("'1969-12-31 23:59:59.999999'", "1970-01-01T04:59:59.999999Z"),
        ],
    ),
    (
        "timestamptz(6)",
        "timestamp",
        &[
            ("'2024-07-01 12:00:00.000001+02'", "2024-07-01T10:00:00.000001Z"),
            ("'0001-01-01 00:00:00+00'", "0001-01-01T00:00:00Z"),
        ],
    ),
    ("time(6)", "text", &[("'23:59:59.999999'", "23:59:59.999999"), ("'24:00:00'", "24:00:00")]),
    ("timetz(6)", "text", &[("'10:00:00.5+05:30'", "10:00:00.500000+05:30"), ("'10:00:00-03'", "10:00:00-03:00")]),
    (
        "interval",
        "text",
        &[("'1 day 2 hours'", "26:00:00"), ("'-1 second'", "-00:00:01"), ("'1 month'", "P1M0DT0.000000S")],
    ),
    ("varchar(100)", "text", &[("'ñ á € 😀'", "ñ á € 😀"), ("''", ""), ("'  a  '", "  a  ")]),
    ("char(10)", "text", &[("'ñandú'", "ñandú"), ("' a'", " a"), ("''", "")]),
    ("text", "text", &[("repeat('ñ', 100000)", ""), ("E'a\\nb\\tc'", "a\nb\tc")]),
    ("text", "decimal(18,2)", &[("'-12.50'", "-12.50")]),
    ("name", "text", &[("'tienda'", "tienda")]),
    ("json", "text", &[("'{\"a\": 1}'", "{\"a\": 1}")]),
    ("jsonb", "text", &[("'{\"b\":2}'", "{\"b\": 2}")]),
    ("xml", "text", &[("'<a>ñ</a>'", "<a>ñ</a>")]),
    ("uuid", "text", &[("'00112233-4455-6677-8899-aabbccddeeff'", "00112233-4455-6677-8899-aabbccddeeff")]),
    ("bytea", "binary", &[("'\\x00ff10'", "00ff10"), ("''", "")]),
    ("bit(9)", "int64", &[("B'101010101'", "341")]),
    ("varbit(12)", "int64", &[("B'000000000001'", "1"), ("B''", "0")]),
    ("color", "text", &[("'verde'", "verde")]),
    ("importe", "decimal(12,2)", &[("1234567890.12", "1234567890.12")]),
];

/// Those whose sum is asked of the server too.
const SUMMED: &[usize] = &[2, 4, 5, 10];

fn matrix_mapping(cases: &[Case]) -> String {
    let columns: String = (0..cases.len())
        .map(|index| format!("{0} = {{ sql = \"{0}\"{1} }}\n", matrix::column(index), rounding(&cases[index])))
        .collect();
    format!("[adapter.caja.tipos]\nfrom = \"t\"\ndate = \"d\"\n[adapter.caja.tipos.columns]\nid = \"id\"\n{columns}")
}

/// A float becomes a decimal only where the mapping says how.
fn rounding(case: &Case) -> &'static str {
    if case.0.starts_with("double") && case.1.starts_with("decimal") { ", round = 2" } else { "" }
}

fn matrix_world(server: &Server, database: &str, cases: &[Case], sums: &[usize]) -> (World, Report) {
    let columns: String =
        cases.iter().enumerate().map(|(index, (kind, _, _))| format!(", {} {kind}", matrix::column(index))).collect();
    let rows: Vec<String> = (0..matrix::row_count(cases))
        .map(|row| format!("('{}', {row}, {})", matrix::DAY, matrix::literals(cases, row).join(", ")))
        .collect();
    server.sql(
        database,
        &format!(
            "CREATE TYPE color AS ENUM ('rojo', 'verde'); CREATE DOMAIN importe AS numeric(12,2);
             CREATE TABLE t (d date, id bigint PRIMARY KEY{columns}); INSERT INTO t VALUES {};",
            rows.join(",\n")
        ),
    );
    let world = World::with_config(&config(server, database, &matrix_mapping(cases)));
    block_on(control::publish_dataset(&world.objects, &matrix::dataset(cases, sums))).unwrap();
    let report = extract(&world, matrix::DAY, matrix::DAY);
    (world, report)
}

#[test]
fn every_type_of_postgres_arrives_exactly() {
    let server = server();
    let database = server.database("tipos", "UTF8");
    let (world, report) = matrix_world(server, &database, MATRIX, SUMMED);
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    let manifest = world.manifests().remove(0);
    assert!(manifest.units[0].is_proven(), "{:?}", manifest.units[0]);
    let rows = world.rows(&manifest).remove(0);
    let long = "ñ".repeat(100_000);
    let mut cases = MATRIX.to_vec();
    let place = cases.iter().position(|case| case.0 == "text" && case.1 == "text").unwrap();
    let with_long: &'static [(&str, &str)] = vec![("repeat", &*long.leak()), cases[place].2[1]].leak();
    cases[place].2 = with_long;
    let compared = matrix::check(&cases, &rows);
    println!("PostgreSQL: {} types, {compared} values, and NULL in each", MATRIX.len());
    // The exactness of a sum that no 64-bit integer and no double holds.
    let sums = &manifest.units[0].file.sums;
    assert_eq!(sums[&matrix::column(5)].to_string(), "0.0000000000");
    assert_eq!(sums[&matrix::column(10)].to_string(), "-0.01");
}

#[test]
fn what_no_column_can_hold_is_refused_by_name_and_never_becomes_null() {
    let server = server();
    for (kind, lake, literal, words) in [
        ("numeric", "decimal(18,2)", "'NaN'", ["NaN", "decimal(18,2)"]),
        ("numeric", "decimal(18,2)", "1.005", ["1.005", "decimal(18,2)"]),
        ("numeric", "decimal(38,0)", "1e38", ["100000000", "decimal(38,0)"]),
        ("date", "date", "'infinity'", ["infinity", "date"]),
        ("timestamp", "timestamp", "'-infinity'", ["infinity", "YYYY-MM-DD"]),
        ("double precision", "decimal(18,2)", "0.1", ["float", "round"]),
        ("bigint", "int32", "2147483648", ["2147483648", "2147483647"]),
        ("inet", "text", "'10.0.0.1'", ["inet", "cast it"]),
    ] {
        let database = server.database("malos", "UTF8");
        let cases: [Case; 1] = [(kind, lake, vec![(literal, "")].leak())];
        server.sql(&database, "DROP TABLE IF EXISTS t");
        let mapping = "[adapter.caja.tipos]\nfrom = \"t\"\ndate = \"d\"\n[adapter.caja.tipos.columns]\nid = \"id\"\nc0 = \"c0\"\n";
        server.sql(
            &database,
            &format!(
                "CREATE TABLE t (d date, id bigint, c0 {kind}); INSERT INTO t VALUES ('2017-05-01', 7, {literal})"
            ),
        );
        let world = World::with_config(&config(server, &database, mapping));
        block_on(control::publish_dataset(&world.objects, &matrix::dataset(&cases, &[]))).unwrap();
        let report = extract(&world, matrix::DAY, matrix::DAY);
        assert_eq!(report.exit(), Exit::Source, "{kind} {literal}");
        let message = format!("{:?}", report.problems).to_lowercase();
        for word in words.into_iter().chain(["column c0"]) {
            assert!(message.contains(&word.to_lowercase()), "{message} should name {word:?}");
        }
        assert!(world.manifests().is_empty());
    }
}

#[test]
fn old_encodings_give_the_right_letters() {
    let server = server();
    for (encoding, letters) in
        [("LATIN1", "ñ á Ç ü"), ("WIN1252", "ñ á € š"), ("LATIN9", "ñ á € Œ"), ("UTF8", "ñ á € 😀")]
    {
        let database = server.database("letras", encoding);
        server.sql(&database, LINES);
        server.sql(&database, &format!("INSERT INTO lineas VALUES (1, 1, '2017-05-09', NULL, '{letters}', 1, 1)"));
        let stored = server.sql(&database, "SELECT octet_length(producto) FROM lineas");
        assert_eq!(stored == "7", encoding != "UTF8", "{encoding}: one byte a letter, as the database stores it");
        let world = World::with_config(&config(server, &database, LINES_MAPPING));
        assert_eq!(extract(&world, "2017-05-09", "2017-05-09").exit(), Exit::Done);
        let rows = world.rows(&world.manifests()[0]).remove(0);
        assert_eq!(matrix::show(rows.column_by_name("producto_id").unwrap().as_ref(), 0), letters, "{encoding}");
    }
}

/// What random rows hold: amount, moment, text.
fn random_rows() -> impl Strategy<Value = Vec<(i64, i64, Option<String>)>> {
    // Microseconds of the years 1 to 9998; characters that UTF-8 has and a text may hold.
    let row = (any::<i64>(), -62_000_000_000_000_000_i64..250_000_000_000_000_000, prop::option::of("[^\u{0}]{0,30}"));
    prop::collection::vec(row, 1..60)
}

#[test]
fn random_rows_written_by_the_servers_own_client_are_read_back_exactly() {
    let server = server();
    let database = server.database("azar", "UTF8");
    server
        .sql(&database, "CREATE TABLE t (d date, id bigint PRIMARY KEY, c0 numeric(19,4), c1 timestamptz(6), c2 text)");
    let cases: [Case; 3] = [("", "decimal(19,4)", &[]), ("", "timestamp", &[]), ("", "text", &[])];
    let mapping = "[adapter.caja.tipos]\nfrom = \"t\"\ndate = \"d\"\n[adapter.caja.tipos.columns]\nid = \"id\"\nc0 = \"c0\"\nc1 = \"c1\"\nc2 = \"c2\"\n";
    let values = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(Cases { cases: 25, failure_persistence: None, ..Cases::default() });
    let done = runner.run(&random_rows(), |rows| {
        let inserts: Vec<String> = rows
            .iter()
            .enumerate()
            .map(|(id, (amount, micros, text))| {
                let text = text.as_ref().map_or("NULL".to_owned(), |text| format!("'{}'", text.replace('\'', "''")));
                format!(
                    "('2017-05-01', {id}, {amount} / 10000::numeric, to_timestamp(0) + {} * interval '1 second' + {} * interval '1 microsecond', {text})",
                    micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000)
                )
            })
            .collect();
        server.sql(&database, &format!("TRUNCATE t; INSERT INTO t VALUES {}", inserts.join(",\n")));
        let world = World::with_config(&config(server, &database, mapping));
        block_on(control::publish_dataset(&world.objects, &matrix::dataset(&cases, &[0]))).unwrap();
        let report = extract(&world, matrix::DAY, matrix::DAY);
        prop_assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
        let manifest = world.manifests().remove(0);
        prop_assert!(manifest.units[0].is_proven(), "{:?}", manifest.units[0]);
        let found = world.rows(&manifest).remove(0);
        prop_assert_eq!(found.num_rows(), rows.len());
        let ids = found.column_by_name("id").unwrap();
        for place in 0..found.num_rows() {
            let (amount, micros, text) = &rows[matrix::show(ids.as_ref(), place).parse::<usize>().unwrap()];
            let shown = |name: &str| matrix::show(found.column_by_name(name).unwrap().as_ref(), place);
            prop_assert_eq!(shown("c0"), ribera_storage::ExactDecimal::new((*amount).into(), 4).to_string());
            prop_assert_eq!(shown("c1"), format!("{}Z", ribera_agent::calendar::local_text(*micros)));
            prop_assert_eq!(shown("c2"), text.clone().unwrap_or("NULL".to_owned()));
        }
        values.set(values.get() + rows.len() * 3);
        Ok(())
    });
    done.unwrap();
    println!("PostgreSQL: {} random values", values.get());
}

#[test]
fn a_late_change_that_keeps_count_and_sums_is_found_by_the_hash_of_the_rows() {
    let server = server();
    let database = server.database("tarde", "UTF8");
    server.sql(&database, LINES);
    sell(server, &database, "2017-05-09", 1..8);
    let world = World::with_config(&config(server, &database, LINES_MAPPING));
    let once = || extract(&world, "2017-05-09", "2017-05-09");
    assert_eq!(once().exit(), Exit::Done);
    let sent = world.manifests().len();
    assert!(world.manifests().iter().all(|one| one.units.iter().all(|facts| facts.is_proven())));
    assert_eq!(once().datasets[0].planned.len(), 0, "nothing changed");
    server.sql(
        &database,
        "UPDATE lineas SET total = total + 1 WHERE ticket = 2; UPDATE lineas SET total = total - 1 WHERE ticket = 3",
    );
    let report = once();
    let planned: Vec<Unit> = report.datasets[0].planned.iter().map(|one| one.unit).collect();
    assert_eq!((planned, world.manifests().len()), (vec![day("2017-05-09")], sent + 1));
}

#[test]
fn a_function_with_parameters_is_asked_like_a_table() {
    let server = server();
    let database = server.database("funcion", "UTF8");
    server.sql(&database, LINES);
    sell(server, &database, "2017-05-09", 1..8);
    server.sql(
        &database,
        "CREATE FUNCTION ventas_diarias(desde date, hasta date, tienda text) RETURNS TABLE
             (fecha date, ticket_id text, linea int, producto_id text, cantidad numeric, total numeric)
         LANGUAGE sql STABLE AS $$
             SELECT fecha, ticket::text, linea, producto, cantidad, total FROM lineas
             WHERE fecha BETWEEN desde AND hasta AND tienda = 's1' $$;",
    );
    let mapping = r#"
[adapter.caja.ventas]
extract = "SELECT * FROM ventas_diarias(:from, :to, :store);"
audit = """SELECT fecha AS day, count(*) AS rows, sum(cantidad) AS cantidad, sum(total) AS total
           FROM ventas_diarias(:from, :to, :store) GROUP BY fecha"""
"#;
    let world = World::with_config(&config(server, &database, mapping));
    let report = extract(&world, "2017-05-09", "2017-05-09");
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    let facts = &world.manifests()[0].units[0];
    assert!(facts.is_proven());
    assert_eq!((facts.file.rows, facts.file.sums["total"].to_string().as_str()), (7, "28.35"));
}

#[test]
fn a_slow_server_is_asked_in_halves_and_left_at_the_floor() {
    let server = server();
    let database = server.database("lenta", "UTF8");
    server.sql(&database, LINES);
    for (index, date) in days("2017-05-01", "2017-05-08").iter().enumerate() {
        sell(server, &database, &date.to_string(), index as u32 * 10..index as u32 * 10 + 8);
    }
    // 64 rows of 30 ms are more than a second; 16 are not.
    let mapping = LINES_MAPPING.replace(
        "date = \"fecha\"",
        "date = \"fecha\"\nwhere = \"pg_sleep(0.03 + 0 * ticket)::text = ''\"\nrow_hash = false",
    );
    let text = config(server, &database, &mapping)
        .replace("chunk_timeout_s = 20", "chunk_timeout_s = 1\nchunk_rows = 64\nchunk_rows_min = 8");
    let backfill = |text: &str| {
        let world = World::with_config(text);
        let report =
            run(&world.start().unwrap(), RunMode::Backfill { days: days("2017-05-01", "2017-05-08"), force: false });
        (world, report)
    };
    let (world, report) = backfill(&text);
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    let manifest = world.manifests().remove(0);
    assert_eq!((manifest.units.len(), manifest.file.rows), (8, 64));
    assert!(manifest.units.iter().all(|facts| facts.is_proven()));
    let (_, report) = backfill(&text.replace("pg_sleep(0.03", "pg_sleep(0.3"));
    assert_eq!(report.exit(), Exit::Source);
    assert!(report.problems[0].hint.as_ref().unwrap().contains("chunk_timeout_s"), "{:?}", report.problems);
    let running = server.sql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(0.3%' AND state = 'active' AND pid <> pg_backend_pid()");
    assert_eq!(running, "0", "the server does not go on with what nobody waits for");
}

#[test]
fn tls_and_logins_are_checked_and_a_writing_user_is_told() {
    let server = server();
    let database = server.database("segura", "UTF8");
    server.sql(&database, LINES);
    sell(server, &database, "2017-05-09", 1..5);
    let required = config(server, &database, LINES_MAPPING);
    let exit = |text: &str| extract(&World::with_config(text), "2017-05-09", "2017-05-09");
    let verify =
        required.replace("\"require\"", &format!("\"verify\"\ntls_ca_file = \"{}\"", server.ca_file.display()));
    assert_eq!(exit(&required).exit(), Exit::Done);
    assert_eq!(exit(&required.replace("\"require\"", "\"off\"")).exit(), Exit::Done);
    let report = exit(&verify);
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    let unknown = exit(&required.replace("\"require\"", "\"verify\""));
    assert_eq!(unknown.exit(), Exit::Source);
    assert!(unknown.problems[0].message.contains("source.tls"), "{:?}", unknown.problems);
    for (from, to) in [("\"lector\"", "\"nadie\""), ("\"contraseña\"", "\"otra-clave\""), ("\"segura\"", "\"ninguna\"")]
    {
        let told = exit(&required.replace(from, to));
        assert_eq!(told.exit(), Exit::Source);
        let text = format!("{:?}", told.problems);
        assert!(text.contains("user or password") || text.contains("source.database: no such database"), "{text}");
        assert!(!text.contains("otra-clave") && !text.contains("contraseña"), "{text}");
    }
    let rights = || {
        let world = World::with_config(&required);
        let agent = world.start().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { agent.stores[0].source.connect().await?.write_rights().await }).unwrap()
    };
    assert_eq!(rights(), None);
    server.sql(&database, "GRANT INSERT, UPDATE ON lineas TO lector");
    assert_eq!(rights().as_deref(), Some("INSERT, UPDATE"));
}
