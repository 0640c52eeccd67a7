//! Every type of Firebird 3, written by the server's own client and read back from the file.

use std::fmt::Write as _;

use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Decimal128Type, Float64Type, Int16Type, Int32Type, Int64Type};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, TimeUnit};
use proptest::prelude::*;
use proptest::test_runner::{Config as RunnerConfig, TestCaseError, TestError, TestRunner};
use ribera_agent::calendar::{date_text, local_text};
use ribera_agent::report::{Exit, Report};
use ribera_storage::ExactDecimal;
use ribera_storage::control;
use ribera_storage::dataset::DatasetDefinition;
use ribera_storage::hex::hex;

use crate::firebird::store;
use crate::firebird_server::{Server, server};
use crate::fixture::{World, block_on, extract};

/// A column of the source, the dataset's column type, and values as SQL and as they must arrive.
struct Case {
    sql_type: &'static str,
    column_type: &'static str,
    values: Vec<(String, String)>,
}

fn case(sql_type: &'static str, column_type: &'static str, values: &[(&str, &str)]) -> Case {
    let values = values.iter().map(|(sql, arrived)| ((*sql).to_owned(), (*arrived).to_owned())).collect();
    Case { sql_type, column_type, values }
}

/// Values whose SQL is the text that arrives.
fn same(sql_type: &'static str, column_type: &'static str, values: &[&str]) -> Case {
    let pairs: Vec<(&str, &str)> = values.iter().map(|text| (*text, *text)).collect();
    case(sql_type, column_type, &pairs)
}

/// Text in quotes.
fn texts(sql_type: &'static str, values: &[&str]) -> Case {
    let values = values.iter().map(|text| (quoted(text), (*text).to_owned())).collect();
    Case { sql_type, column_type: "text", values }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn numbers() -> Vec<Case> {
    vec![
        same("SMALLINT", "int16", &["-32768", "32767", "0", "-1"]),
        same("INTEGER", "int32", &["-2147483648", "2147483647", "0"]),
        same("BIGINT", "int64", &["-9223372036854775808", "9223372036854775807", "0"]),
        same("BIGINT", "decimal(19,0)", &["-9223372036854775808", "9223372036854775807"]),
        // Kept in 16, 32 and 64 bits: more digits fit than are declared.
        same("NUMERIC(4,2)", "decimal(9,2)", &["-327.68", "327.67", "0.01", "-0.01"]),
        same("DECIMAL(4,1)", "decimal(18,1)", &["-214748364.8", "214748364.7", "-0.1"]),
        same("NUMERIC(9,3)", "decimal(18,3)", &["-2147483.648", "2147483.647", "0.000"]),
        same("NUMERIC(9,9)", "decimal(18,9)", &["-2.147483648", "0.000000001"]),
        same("NUMERIC(18,0)", "decimal(19,0)", &["-9223372036854775808", "9223372036854775807"]),
        // In an order in which no sum of the audit leaves 64 bits.
        same(
            "DECIMAL(18,4)",
            "decimal(19,4)",
            &["-922337203685477.5808", "0.0001", "922337203685477.5807", "90071992547409.9301"],
        ),
        same("NUMERIC(18,2)", "decimal(38,2)", &["90071992547409.93", "-92233720368547758.08", "92233720368547758.07"]),
        same(
            "NUMERIC(18,18)",
            "decimal(38,18)",
            &["-9.223372036854775808", "9.223372036854775807", "0.000000000000000001"],
        ),
        case(
            "FLOAT",
            "float64",
            &[("0.5", "0.5"), ("0.1", "0.10000000149011612"), ("-3e38", &format!("{:?}", f64::from(-3e38_f32)))],
        ),
        case(
            "DOUBLE PRECISION",
            "float64",
            &[("0.1", "0.1"), ("-1e300", &format!("{:?}", -1e300_f64)), ("1e-300", "1e-300"), ("0", "0.0")],
        ),
        same("BOOLEAN", "bool", &["true", "false"]),
    ]
}

fn moments() -> Vec<Case> {
    vec![
        case(
            "DATE",
            "date",
            &[("'0001-01-01'", "0001-01-01"), ("'9999-12-31'", "9999-12-31"), ("'2024-02-29'", "2024-02-29")],
        ),
        // Delphi's zero, and the hour that the store's clocks pass twice.
        case("DATE", "text", &[("'1899-12-30'", "1899-12-30")]),
        case("DATE", "timestamp", &[("'2024-07-01'", "2024-07-01T04:00:00")]),
        case(
            "TIME",
            "text",
            &[
                ("'00:00:00'", "00:00:00"),
                ("'23:59:59.9999'", "23:59:59.999900"),
                ("'12:34:56.0001'", "12:34:56.000100"),
            ],
        ),
        case(
            "TIMESTAMP",
            "timestamp",
            &[
                ("'2024-07-01 12:00:00.1234'", "2024-07-01T16:00:00.123400"),
                ("'1969-12-31 18:59:59.9999'", "1969-12-31T23:59:59.999900"),
                ("'2024-11-03 01:30:00'", "2024-11-03T05:30:00"),
                ("'2024-03-10 02:30:00'", "2024-03-10T07:30:00"),
            ],
        ),
        case(
            "TIMESTAMP",
            "text",
            &[
                ("'0001-01-01 00:00:00'", "0001-01-01T00:00:00"),
                ("'9999-12-31 23:59:59.9999'", "9999-12-31T23:59:59.999900"),
            ],
        ),
        case("TIMESTAMP", "date", &[("'2024-07-01 00:00:00'", "2024-07-01")]),
    ]
}

/// The bytes that a program of Windows writes where no character set is declared.
fn western(text: &str) -> String {
    format!("x'{}'", hex(&rsfbclient_core::charset::WIN_1252.encode(text).unwrap()))
}

/// `utf8`: the connection's character set is UTF8, otherwise WIN1252.
fn letters(default: &str, utf8: bool) -> Vec<Case> {
    let text = if default == "NONE" { western } else { quoted };
    let all_bytes: String = (0..=255_u8).map(|byte| format!("{byte:02x}")).collect();
    let mut bytes =
        case("VARCHAR(300) CHARACTER SET OCTETS", "binary", &[("x''", ""), ("x'00'", "00"), ("x'C3B1FF'", "c3b1ff")]);
    bytes.values.push((format!("x'{all_bytes}'"), all_bytes));
    let blob = "ñ á €, línea\n".repeat(700);
    let raw: String = (0..4000_u32).map(|number| format!("{:02x}", number * 7 % 256)).collect();
    let strings = ["ñ á €", "a  ", "", " b", "O'Hara; --", "€€€€€€€€€€€€€€€€€€€€"];
    let mut cases = vec![
        Case {
            sql_type: "VARCHAR(20)",
            column_type: "text",
            values: strings.map(|one| (text(one), one.to_owned())).to_vec(),
        },
        // A fixed length is padded, as the server gives it.
        Case {
            sql_type: "CHAR(5)",
            column_type: "text",
            values: ["ñ", "€€€€€", ""].map(|one| (text(one), format!("{one:<5}"))).to_vec(),
        },
        texts("VARCHAR(20) CHARACTER SET WIN1252", &["ñ á €", "œ Ž ™"]),
        texts("VARCHAR(20) CHARACTER SET ISO8859_1", &["ñ á ¿"]),
        texts("VARCHAR(20) CHARACTER SET UTF8", &["ñ á €", "Ž"]),
        texts("VARCHAR(20) CHARACTER SET ASCII", &["plain"]),
        texts("VARCHAR(20) CHARACTER SET WIN1252 COLLATE WIN_PTBR", &["ñ á €"]),
        texts("VARCHAR(8000) CHARACTER SET WIN1252", &["ñ".repeat(8000).as_str(), "x"]),
        case(
            "CHAR(16) CHARACTER SET OCTETS",
            "binary",
            &[
                ("x'00FF10C3B1208090A0B0C0D0E0F0FF00'", "00ff10c3b1208090a0b0c0d0e0f0ff00"),
                ("x'41'", "41000000000000000000000000000000"),
            ],
        ),
        bytes,
        texts("BLOB SUB_TYPE TEXT CHARACTER SET WIN1252", &["ñ á €", "", blob.as_str()]),
        texts("BLOB SUB_TYPE TEXT CHARACTER SET UTF8", &["ñ á €"]),
        Case {
            sql_type: "BLOB SUB_TYPE BINARY",
            column_type: "binary",
            values: vec![("x'00FF'".to_owned(), "00ff".to_owned()), (format!("x'{raw}'"), raw)],
        },
    ];
    if utf8 {
        cases.push(texts("VARCHAR(20) CHARACTER SET UTF8", &["😀 日本 ñ", "a\u{301}"]));
        cases.push(texts("VARCHAR(20) CHARACTER SET NONE", &["plain"]));
    } else {
        cases.push(case("VARCHAR(20) CHARACTER SET NONE", "text", &[("x'F1E180'", "ñá€")]));
    }
    cases
}

/// A dataset of these columns, and the mapping of a table that has them.
fn definition(columns: &[&'static str], sums: &[usize]) -> String {
    let sums: Vec<String> = sums.iter().map(|index| format!("\"c{index}\"")).collect();
    let mut text = format!(
        "name = \"tipos\"\nversion = 1\nkind = \"daily\"\nbusiness_date = \"d\"\nkey = [\"id\"]\naudit_sums = [{}]\n\
         lookback_days = 3\ntitles = {{ es = \"Tipos\", en = \"Types\" }}\ncolumn = [\n\
         {{ name = \"d\", type = \"date\", nullable = false }},\n{{ name = \"id\", type = \"int64\", nullable = false }},\n",
        sums.join(", ")
    );
    for (index, column_type) in columns.iter().enumerate() {
        writeln!(text, "{{ name = \"c{index}\", type = \"{column_type}\" }},").unwrap();
    }
    text + "]\n"
}

struct Table<'a> {
    server: &'a Server,
    database: String,
    charset: Option<&'a str>,
    /// Type in the source, type of the dataset's column.
    columns: Vec<(&'static str, &'static str)>,
}

impl Table<'_> {
    fn create(&self) {
        let columns: Vec<String> =
            self.columns.iter().enumerate().map(|(index, (sql_type, _))| format!("C{index} {sql_type}")).collect();
        let columns = columns.join(", ");
        let sql =
            format!("CREATE TABLE T (D DATE, ID BIGINT NOT NULL PRIMARY KEY, {columns}); GRANT SELECT ON T TO LECTOR;");
        self.server.sql(&self.database, &sql);
    }

    fn insert(&self, rows: &[Vec<Option<String>>]) {
        let row = |(id, values): (usize, &Vec<Option<String>>)| {
            let values: Vec<&str> = values.iter().map(|value| value.as_deref().unwrap_or("NULL")).collect();
            format!("INSERT INTO T VALUES ('2024-01-01', {id}, {});", values.join(", "))
        };
        self.server.sql(&self.database, &rows.iter().enumerate().map(row).collect::<Vec<_>>().join("\n"));
    }

    fn extract(&self) -> (World, Report) {
        let columns: Vec<&str> = self.columns.iter().map(|(_, column_type)| *column_type).collect();
        let exact = |index: &usize| columns[*index].starts_with("decimal") || columns[*index].starts_with("int");
        let sums: Vec<usize> = (0..columns.len()).filter(exact).collect();
        let mut text = store(self.server, &self.database, "");
        if let Some(charset) = self.charset {
            text.push_str(&format!("charset = \"{charset}\"\n"));
        }
        text.push_str("[adapter.caja.tipos]\nfrom = \"T\"\ndate = \"D\"\norder = [\"ID\"]\n[adapter.caja.tipos.columns]\nid = \"ID\"\n");
        (0..columns.len()).for_each(|index| text.push_str(&format!("c{index} = \"C{index}\"\n")));
        let world = World::with_config(&text);
        let definition = DatasetDefinition::from_toml(&definition(&columns, &sums)).unwrap();
        block_on(control::publish_dataset(&world.objects, &definition)).unwrap();
        let report = extract(&world, "2024-01-01", "2024-01-01");
        (world, report)
    }

    /// The rows that arrived, in the order of their ids, `None` for NULL.
    fn arrived(&self) -> Vec<Vec<Option<String>>> {
        let (world, report) = self.extract();
        assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
        let manifest = world.manifests().into_iter().next().unwrap();
        let facts = &manifest.units[0];
        assert!(facts.audit.as_ref().is_some_and(|audit| audit.agrees_with(&facts.file)), "{facts:?}");
        let batches = world.rows(&manifest);
        let mut rows: Vec<(i64, Vec<Option<String>>)> = Vec::new();
        for batch in &batches {
            for row in 0..batch.num_rows() {
                let id = batch.column_by_name("id").unwrap().as_primitive::<Int64Type>().value(row);
                let values = (0..self.columns.len()).map(|index| shown(batch, &format!("c{index}"), row)).collect();
                rows.push((id, values));
            }
        }
        rows.sort();
        rows.into_iter().map(|(_, values)| values).collect()
    }
}

/// A value of the file as text.
fn shown(batch: &RecordBatch, name: &str, row: usize) -> Option<String> {
    let column = batch.column_by_name(name).unwrap();
    if column.is_null(row) {
        return None;
    }
    Some(match column.data_type() {
        DataType::Boolean => column.as_boolean().value(row).to_string(),
        DataType::Int16 => column.as_primitive::<Int16Type>().value(row).to_string(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Decimal128(_, scale) => {
            ExactDecimal::new(column.as_primitive::<Decimal128Type>().value(row), *scale as u8).to_string()
        }
        DataType::Float64 => format!("{:?}", column.as_primitive::<Float64Type>().value(row)),
        DataType::Date32 => date_text(column.as_primitive::<Date32Type>().value(row)),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            local_text(column.as_primitive::<arrow_array::types::TimestampMicrosecondType>().value(row))
        }
        DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
        DataType::Binary => hex(column.as_binary::<i32>().value(row)),
        other => panic!("no dataset has {other}"),
    })
}

/// Types and values that arrived as they were written, NULL of each type included.
fn matrix(name: &str, default: &str, charset: Option<&str>, cases: &[Case]) -> (usize, usize) {
    let server = server();
    let database = server.database(name, default);
    let columns = cases.iter().map(|case| (case.sql_type, case.column_type)).collect();
    let table = Table { server, database, charset, columns };
    table.create();
    let longest = cases.iter().map(|case| case.values.len()).max().unwrap();
    let row = |at: usize, pick: fn(&(String, String)) -> &String| -> Vec<Option<String>> {
        cases.iter().map(|case| case.values.get(at).map(|value| pick(value).clone())).collect()
    };
    // The last row has no value at all.
    let written: Vec<_> = (0..=longest).map(|at| row(at, |(sql, _)| sql)).collect();
    let wanted: Vec<_> = (0..=longest).map(|at| row(at, |(_, arrived)| arrived)).collect();
    table.insert(&written);
    let arrived = table.arrived();
    assert_eq!(arrived.len(), wanted.len());
    for (arrived, wanted) in arrived.iter().zip(&wanted) {
        for (case, (arrived, wanted)) in cases.iter().zip(arrived.iter().zip(wanted)) {
            assert_eq!(arrived, wanted, "{name}: {} as {}", case.sql_type, case.column_type);
        }
    }
    (cases.len(), cases.iter().map(|case| case.values.len() + 1).sum())
}

#[test]
fn every_type_of_firebird_arrives_exactly_in_every_character_set() {
    let mut tried = (0, 0);
    for (name, default, charset) in [
        ("tipos_utf8", "UTF8", None),
        ("tipos_win", "WIN1252", None),
        ("tipos_win_win", "WIN1252", Some("WIN1252")),
        ("tipos_none", "NONE", Some("WIN1252")),
    ] {
        let cases: Vec<Case> =
            numbers().into_iter().chain(moments()).chain(letters(default, charset.is_none())).collect();
        // Blobs are read another way, all other columns beside them included.
        let (with_blobs, blobless) = (matrix(&format!("{name}_b"), default, charset, &cases), {
            let cases: Vec<Case> = cases.into_iter().filter(|case| !case.sql_type.starts_with("BLOB")).collect();
            matrix(name, default, charset, &cases)
        });
        tried = (tried.0 + with_blobs.0 + blobless.0, tried.1 + with_blobs.1 + blobless.1);
    }
    println!("firebird: {} columns, {} values", tried.0, tried.1);
}

#[test]
fn what_does_not_fit_is_refused_by_name_and_says_what_to_do() {
    let server = server();
    let refused = |name: &str, default: &str, column: (&'static str, &'static str), value: &str| {
        let database = server.database(name, default);
        let table = Table { server, database, charset: None, columns: vec![column] };
        table.create();
        table.insert(&[vec![Some(value.to_owned())]]);
        let (world, report) = table.extract();
        assert!(world.manifests().is_empty(), "nothing is sent");
        format!("{:?}", report.problems)
    };
    let text = refused("sin_juego", "NONE", ("VARCHAR(20)", "text"), "x'F1E180'");
    assert!(text.contains("column c0") && text.contains("f1, e1, 80") && text.contains("WIN1252"), "{text}");
    let fraction = refused("fraccion", "UTF8", ("NUMERIC(18,4)", "decimal(18,2)"), "1.0001");
    assert!(fraction.contains("column c0") && fraction.contains("1.0001"), "{fraction}");
    let array = refused("arreglo", "UTF8", ("INTEGER [1:3]", "text"), "NULL");
    assert!(array.contains("CAST"), "{array}");
    let float = refused("flotante", "UTF8", ("DOUBLE PRECISION", "decimal(18,2)"), "1.5");
    assert!(float.contains("must be an exact number") || float.contains("round"), "{float}");
}

#[test]
fn random_rows_arrive_as_the_servers_own_client_wrote_them() {
    let server = server();
    let columns = vec![
        ("BIGINT", "int64"),
        ("NUMERIC(18,4)", "decimal(19,4)"),
        ("NUMERIC(18,18)", "decimal(38,18)"),
        ("NUMERIC(4,1)", "decimal(9,1)"),
        ("DOUBLE PRECISION", "float64"),
        ("DATE", "date"),
        ("TIME", "text"),
        ("TIMESTAMP", "text"),
        ("VARCHAR(60)", "text"),
        ("VARCHAR(60) CHARACTER SET WIN1252", "text"),
        ("VARCHAR(40) CHARACTER SET OCTETS", "binary"),
        ("BOOLEAN", "bool"),
    ];
    let database = server.database("azar", "UTF8");
    let table = Table { server, database, charset: None, columns };
    table.create();
    let tried = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(RunnerConfig {
        cases: 6,
        max_shrink_iters: 20,
        failure_persistence: None,
        ..RunnerConfig::default()
    });
    let outcome = runner.run(&prop::collection::vec(random_row(), 1..450), |rows| {
        server.sql(&table.database, "DELETE FROM T;");
        let apart = |row: Vec<Cell>| row.into_iter().unzip::<_, _, Vec<_>, Vec<_>>();
        let (written, wanted): (Vec<_>, Vec<_>) = rows.into_iter().map(apart).unzip();
        table.insert(&written);
        let arrived = table.arrived();
        tried.set(tried.get() + wanted.len() * table.columns.len());
        let cells = |rows: &[Vec<Option<String>>]| rows.concat();
        let differing = cells(&arrived).into_iter().zip(cells(&wanted)).find(|(arrived, wanted)| arrived != wanted);
        match (differing, arrived.len() == wanted.len()) {
            (None, true) => Ok(()),
            (differing, _) => Err(TestCaseError::fail(format!("arrived, wanted: {differing:?}"))),
        }
    });
    if let Err(TestError::Fail(why, _)) = outcome {
        panic!("{why}");
    }
    println!("firebird: {} random values", tried.get());
}

type Cell = (Option<String>, Option<String>);

/// SQL and what must arrive, by column; one in eight is NULL.
fn random_row() -> impl Strategy<Value = Vec<Cell>> {
    let plain = |text: String| (text.clone(), text);
    let decimal = |scale: u8| move |number: i64| plain_text(ExactDecimal::new(number.into(), scale).to_string());
    let moment = || (-719_162_i32..2_932_896, 0_i64..864_000_000);
    let letters = |class: &str| proptest::string::string_regex(class).unwrap();
    // Small enough that the audit's sums stay within the server's 64 bits.
    let wide = -20_000_000_000_000_000_i64..20_000_000_000_000_000;
    let cells: Vec<BoxedStrategy<(String, String)>> = vec![
        wide.clone().prop_map(move |number| plain(number.to_string())).boxed(),
        wide.clone().prop_map(decimal(4)).boxed(),
        wide.prop_map(decimal(18)).boxed(),
        (-32_768_i64..32_768).prop_map(decimal(1)).boxed(),
        // Divided there: literals of many digits are not rounded to the nearest by the server.
        any::<i32>()
            .prop_map(|number| (format!("{number} / 1024e0"), format!("{:?}", f64::from(number) / 1024.0)))
            .boxed(),
        moment().prop_map(|(days, _)| (format!("'{}'", date_text(days)), date_text(days))).boxed(),
        moment().prop_map(|(_, ticks)| time_cell(ticks)).boxed(),
        moment().prop_map(|(days, ticks)| moment_cell(days, ticks)).boxed(),
        letters("[ -~ñáéíóúüÑ¿¡€😀日本\u{e000}]{0,60}").prop_map(|text| (quoted(&text), text)).boxed(),
        letters("[ -~ñáéíóúüÑ¿¡€œŽ™]{0,60}").prop_map(|text| (quoted(&text), text)).boxed(),
        prop::collection::vec(any::<u8>(), 0..40)
            .prop_map(|bytes| (format!("x'{}'", hex(&bytes)), hex(&bytes)))
            .boxed(),
        any::<bool>().prop_map(|value| plain_text(value.to_string())).boxed(),
    ];
    let nullable = |cell: BoxedStrategy<(String, String)>| {
        (cell, 0..8).prop_map(|((sql, arrived), dice)| match dice {
            0 => (None, None),
            _ => (Some(sql), Some(arrived)),
        })
    };
    cells.into_iter().map(nullable).collect::<Vec<_>>()
}

fn plain_text(text: String) -> (String, String) {
    (text.clone(), text)
}

/// Ticks of 100 microseconds, as the server counts.
fn time_cell(ticks: i64) -> (String, String) {
    let text = ribera_agent::calendar::time_text(ticks * 100);
    (format!("'{}'", sql_time(ticks)), text)
}

fn moment_cell(days: i32, ticks: i64) -> (String, String) {
    let micros = i64::from(days) * 86_400_000_000 + ticks * 100;
    (format!("'{} {}'", date_text(days), sql_time(ticks)), local_text(micros))
}

fn sql_time(ticks: i64) -> String {
    let seconds = ticks / 10_000;
    format!("{:02}:{:02}:{:02}.{:04}", seconds / 3600, seconds / 60 % 60, seconds % 60, ticks % 10_000)
}
