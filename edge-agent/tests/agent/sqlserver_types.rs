//! Every type of SQL Server, sent as the protocol has it, read back from the file; and what was
//! sent read by two other clients, so that the sender is no judge in its own cause.

use std::process::Command;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};
use ribera_agent::calendar::{date_text, local_text, time_text};
use ribera_agent::report::{Exit, Report};
use ribera_storage::{ExactDecimal, control};

use crate::fixture::{World, block_on, extract};
use crate::matrix::{self, Case};
use crate::servers::python;
use crate::sqlserver::store;
use crate::tds::{self, Type};
use crate::tds_responder::{Reply, Request, Responder, respond};

const MATRIX: &[Case] = &[
    ("tinyint", "int16", &[("0", "0"), ("255", "255")]),
    ("smallint", "int16", &[("-32768", "-32768"), ("32767", "32767")]),
    ("int", "int32", &[("-2147483648", "-2147483648"), ("2147483647", "2147483647")]),
    (
        "bigint",
        "int64",
        &[("-9223372036854775808", "-9223372036854775808"), ("9223372036854775807", "9223372036854775807")],
    ),
    ("bigint", "decimal(20,0)", &[("-9223372036854775808", "-9223372036854775808")]),
    ("bit", "bool", &[("1", "true"), ("0", "false")]),
    ("bit", "int16", &[("1", "1"), ("0", "0")]),
    ("decimal(1,0)", "decimal(9,0)", &[("9", "9"), ("-9", "-9"), ("0", "0")]),
    ("decimal(9,2)", "decimal(9,2)", &[("9999999.99", "9999999.99"), ("-0.01", "-0.01")]),
    (
        "decimal(18,4)",
        "decimal(18,4)",
        &[
            ("99999999999999.9999", "99999999999999.9999"),
            ("90071992547409.9301", "90071992547409.9301"),
            ("10", "10.0000"),
        ],
    ),
    (
        "numeric(19,4)",
        "decimal(19,4)",
        &[("-999999999999999.9999", "-999999999999999.9999"), ("922337203685477.5807", "922337203685477.5807")],
    ),
    (
        "numeric(28,10)",
        "decimal(28,10)",
        &[
            ("999999999999999999.9999999999", "999999999999999999.9999999999"),
            ("-4294967296.0000000001", "-4294967296.0000000001"),
        ],
    ),
    (
        "decimal(38,10)",
        "decimal(38,10)",
        &[
            ("9999999999999999999999999999.9999999999", "9999999999999999999999999999.9999999999"),
            ("-9999999999999999999999999999.9999999999", "-9999999999999999999999999999.9999999999"),
        ],
    ),
    (
        "decimal(38,38)",
        "decimal(38,38)",
        &[
            ("0.99999999999999999999999999999999999999", "0.99999999999999999999999999999999999999"),
            ("-0.00000000000000000000000000000000000001", "-0.00000000000000000000000000000000000001"),
        ],
    ),
    (
        "decimal(38,0)",
        "decimal(38,0)",
        &[("-99999999999999999999999999999999999999", "-99999999999999999999999999999999999999")],
    ),
    (
        "money",
        "decimal(19,4)",
        &[
            ("112589990684.2623", "112589990684.2623"),
            ("-112589990684.2623", "-112589990684.2623"),
            ("0.0001", "0.0001"),
            ("-0.0001", "-0.0001"),
            ("79228162514.2643", "79228162514.2643"),
        ],
    ),
    (
        "smallmoney",
        "decimal(18,4)",
        &[("214748.3647", "214748.3647"), ("-214748.3648", "-214748.3648"), ("0.07", "0.0700")],
    ),
    ("money", "decimal(18,2)", &[("12.50", "12.50")]),
    ("real", "float64", &[("1.5", "1.5"), ("-3.4e38", "-3.3999999521443642e38")]),
    ("float", "float64", &[("0.1", "0.1"), ("-1e300", "-1e300"), ("5e-324", "5e-324")]),
    ("date", "date", &[("0001-01-01", "0001-01-01"), ("9999-12-31", "9999-12-31"), ("2024-02-29", "2024-02-29")]),
    ("date", "timestamp", &[("2024-07-01", "2024-07-01T04:00:00Z")]),
    ("time(0)", "text", &[("23:59:59", "23:59:59"), ("00:00:00", "00:00:00")]),
    ("time(3)", "text", &[("12:34:56.789", "12:34:56.789000")]),
    ("time(6)", "text", &[("23:59:59.999999", "23:59:59.999999")]),
    ("time(7)", "text", &[("23:59:59.9999999", "23:59:59.9999999"), ("00:00:00.0000010", "00:00:00.000001")]),
    (
        "datetime",
        "timestamp",
        &[
            ("2024-01-01T12:00:00.000", "2024-01-01T17:00:00Z"),
            ("2024-07-01T23:59:59.997", "2024-07-02T03:59:59.996667Z"),
            ("1753-01-01T00:00:00.003", "1753-01-01T04:56:02.003333Z"),
            ("9999-12-31T12:00:00.007", "9999-12-31T17:00:00.006667Z"),
        ],
    ),
    ("datetime", "date", &[("2024-07-01T00:00:00.000", "2024-07-01")]),
    (
        "smalldatetime",
        "timestamp",
        &[("1900-01-01T00:00:00", "1900-01-01T05:00:00Z"), ("2079-06-06T23:59:00", "2079-06-07T03:59:00Z")],
    ),
    ("datetime2(0)", "timestamp", &[("2024-07-01T12:00:01", "2024-07-01T16:00:01Z")]),
    (
        "datetime2(3)",
        "timestamp",
        &[
            ("2024-11-03T01:30:00.123", "2024-11-03T05:30:00.123000Z"),
            ("2024-03-10T02:30:00.001", "2024-03-10T07:30:00.001000Z"),
        ],
    ),
    ("datetime2(6)", "timestamp", &[("1969-12-31T18:59:59.999999", "1969-12-31T23:59:59.999999Z")]),
    ("datetime2(7)", "timestamp", &[("2024-07-01T12:00:00.1234560", "2024-07-01T16:00:00.123456Z")]),
    (
        "datetime2(7)",
        "text",
        &[
            ("0001-01-01T00:00:00.0000001", "0001-01-01T00:00:00.0000001"),
            ("9999-12-31T23:59:59.9999999", "9999-12-31T23:59:59.9999999"),
        ],
    ),
    (
        "datetimeoffset(7)",
        "timestamp",
        &[
            ("2024-07-01T12:00:00.1234560+05:30", "2024-07-01T06:30:00.123456Z"),
            ("2024-01-01T00:00:00.0000000-14:00", "2024-01-01T14:00:00Z"),
        ],
    ),
    ("datetimeoffset(0)", "timestamp", &[("2024-07-01T12:00:00+00:00", "2024-07-01T12:00:00Z")]),
    ("datetimeoffset(7)", "text", &[("2024-07-01T12:00:00.1234567+02:00", "2024-07-01T10:00:00.1234567Z")]),
    ("char(5)", "text", &[("ñ    ", "ñ    "), ("€uro ", "€uro ")]),
    ("varchar(20)", "text", &[("ñ á € œ Ž ™", "ñ á € œ Ž ™"), ("", ""), ("a  ", "a  "), ("O'Hara; --", "O'Hara; --")]),
    ("varchar(20) sorted", "text", &[("ñ á €", "ñ á €")]),
    ("varchar(20) 1251", "text", &[("Привет, Ёж № 5", "Привет, Ёж № 5")]),
    ("char(3) 1251", "text", &[("Щит", "Щит")]),
    ("nchar(4)", "text", &[("日本  ", "日本  ")]),
    ("nvarchar(40)", "text", &[("ñ á € 😀 日本", "ñ á € 😀 日本"), ("", ""), ("a\u{301}\u{FEFF}", "a\u{301}\u{FEFF}")]),
    ("text", "text", &[("ñ á €, línea\n", "ñ á €, línea\n")]),
    ("text 1251", "text", &[("Привет", "Привет")]),
    ("ntext", "text", &[("ñ 😀", "ñ 😀"), ("x", "x")]),
    ("xml", "text", &[("<a b=\"ñ\">😀</a>", "<a b=\"ñ\">😀</a>")]),
    ("varchar(max)", "text", &[("ñ á €", "ñ á €"), ("", "")]),
    ("varchar(max) 1251", "text", &[("Ёж", "Ёж")]),
    ("nvarchar(max)", "text", &[("😀 ñ", "😀 ñ"), ("", "")]),
    ("uniqueidentifier", "text", &[("6F9619FF-8B86-D011-B42D-00C04FC964FF", "6F9619FF-8B86-D011-B42D-00C04FC964FF")]),
    ("binary(3)", "binary", &[("00ff10", "00ff10")]),
    ("varbinary(20)", "binary", &[("00ff10", "00ff10"), ("", "")]),
    ("varbinary(max)", "binary", &[("c3b1ff00", "c3b1ff00"), ("", "")]),
    ("image", "binary", &[("00ff", "00ff")]),
    ("rowversion", "binary", &[("00000000000007d1", "00000000000007d1")]),
];

/// Columns that are NOT NULL come by other tokens, with two values each.
const NOT_NULL: &[Case] = &[
    ("tinyint!", "int16", &[("0", "0"), ("255", "255")]),
    ("bit!", "bool", &[("1", "true"), ("0", "false")]),
    ("smallint!", "int16", &[("-32768", "-32768"), ("32767", "32767")]),
    ("int!", "int32", &[("-2147483648", "-2147483648"), ("2147483647", "2147483647")]),
    ("bigint!", "int64", &[("-9223372036854775808", "-9223372036854775808"), ("1", "1")]),
    ("real!", "float64", &[("1.5", "1.5"), ("-0.25", "-0.25")]),
    ("float!", "float64", &[("0.1", "0.1"), ("-1e300", "-1e300")]),
    ("money!", "decimal(19,4)", &[("112589990684.2623", "112589990684.2623"), ("-0.0001", "-0.0001")]),
    ("smallmoney!", "decimal(18,4)", &[("-214748.3648", "-214748.3648"), ("214748.3647", "214748.3647")]),
    (
        "datetime!",
        "timestamp",
        &[
            ("2024-07-01T23:59:59.997", "2024-07-02T03:59:59.996667Z"),
            ("2000-01-01T00:00:00.000", "2000-01-01T05:00:00Z"),
        ],
    ),
    (
        "smalldatetime!",
        "timestamp",
        &[("2079-06-06T23:59:00", "2079-06-07T03:59:00Z"), ("2000-01-01T12:00:00", "2000-01-01T17:00:00Z")],
    ),
    ("decimal(18,4)!", "decimal(18,4)", &[("-99999999999999.9999", "-99999999999999.9999"), ("0.0001", "0.0001")]),
    ("varchar(20)!", "text", &[("ñ á €", "ñ á €"), ("", "")]),
    ("nvarchar(20)!", "text", &[("😀", "😀"), ("", "")]),
    (
        "uniqueidentifier!",
        "text",
        &[
            ("6F9619FF-8B86-D011-B42D-00C04FC964FF", "6F9619FF-8B86-D011-B42D-00C04FC964FF"),
            ("00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000001"),
        ],
    ),
];

/// A table that the responder has: date, id and a column per case.
#[derive(Clone)]
struct Table {
    columns: Vec<(String, Type)>,
    rows: Vec<Vec<Option<String>>>,
    /// Columns that the audit sums, and their fraction digits in the lake.
    sums: Vec<usize>,
}

impl Table {
    fn new(cases: &[Case], rows: Vec<Vec<Option<String>>>) -> Self {
        let kinds = cases.iter().enumerate().map(|(index, (kind, ..))| (matrix::column(index), Type::of(kind)));
        let key = [("d".to_owned(), Type::of("date!")), ("id".to_owned(), Type::of("bigint!"))];
        let rows = rows.into_iter().enumerate().map(|(id, values)| {
            [Some(matrix::DAY.to_owned()), Some(id.to_string())].into_iter().chain(values).collect()
        });
        Self { columns: key.into_iter().chain(kinds).collect(), rows: rows.collect(), sums: sums(cases) }
    }

    fn rows(&self) -> Reply {
        Reply::Tokens(tds::result(&self.columns, &self.rows), self.rows.len())
    }

    fn audit(&self) -> Reply {
        let mut columns = vec![("day".to_owned(), Type::of("date")), ("rows".to_owned(), Type::of("int"))];
        let mut row = vec![Some(matrix::DAY.to_owned()), Some(self.rows.len().to_string())];
        for index in &self.sums {
            let values = self.rows.iter().filter_map(|row| row[index + 2].as_deref());
            let sum = values.map(|value| value.parse::<ExactDecimal>().unwrap().rescale(10).unwrap().unscaled()).sum();
            columns.push((matrix::column(*index), Type::of("decimal(38,10)")));
            row.push(Some(ExactDecimal::new(sum, 10).to_string()));
        }
        let rows: &[_] = if self.rows.is_empty() { &[] } else { &[row] };
        Reply::Tokens(tds::result(&columns, rows), rows.len())
    }

    fn respond(self) -> Responder {
        respond(true, move |request: &Request| {
            // Other clients ask for all.
            let asked = request.parameters.is_empty() || request.asked_days().iter().any(|day| day == matrix::DAY);
            match request.sql.contains("auditoria") {
                true if asked => self.audit(),
                true => Self { rows: Vec::new(), ..self.clone() }.audit(),
                false if asked => self.rows(),
                false => Self { rows: Vec::new(), ..self.clone() }.rows(),
            }
        })
    }
}

/// Numbers whose sums fit the lake's decimals.
fn sums(cases: &[Case]) -> Vec<usize> {
    let summed = |case: &Case| case.1.starts_with("int") && !case.0.starts_with("bit") || case.1 == "decimal(18,4)";
    (0..cases.len()).filter(|index| summed(&cases[*index])).collect()
}

/// Extracts the responder's table by an agent of the test's.
fn extracted(responder: &Responder, cases: &[Case], more: &str) -> (World, Report) {
    let names: Vec<String> = (0..cases.len()).map(matrix::column).collect();
    let text = format!(
        "{}[adapter.caja.tipos]\nextract = \"SELECT d, id, {} FROM tipos WHERE d BETWEEN :from AND :to ORDER BY d\"\n\
         audit = \"SELECT * FROM auditoria WHERE day BETWEEN :from AND :to\"\n{more}",
        store(responder.port, "tienda", "off"),
        names.join(", ")
    );
    let world = World::with_config(&text);
    block_on(control::publish_dataset(&world.objects, &matrix::dataset(cases, &sums(cases)))).unwrap();
    let report = extract(&world, matrix::DAY, matrix::DAY);
    (world, report)
}

fn literals(cases: &[Case], rows: usize) -> Vec<Vec<Option<String>>> {
    let value = |row: usize, case: &Case| case.2.get(row).map(|(literal, _)| (*literal).to_owned());
    (0..rows).map(|row| cases.iter().map(|case| value(row, case)).collect()).collect()
}

/// What another client must say of a literal: times cut to microseconds, which is all they have.
fn told(kind: &str, literal: Option<&str>) -> String {
    let Some(literal) = literal else { return "NULL".to_owned() };
    let kind = kind.trim_end_matches('!');
    // Without zeros at its end: not every client writes them.
    let number = |scale: u8| {
        let number = literal.parse::<ExactDecimal>().unwrap().rescale(scale).unwrap().to_string();
        if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.').to_owned() } else { number }
    };
    // Two texts may mean the same float.
    let bits = |number: f64| ribera_storage::hex::hex(&number.to_le_bytes());
    let scale = || kind.trim_end_matches(')').rsplit_once(',').map_or(0, |(_, scale)| scale.parse().unwrap());
    let micros = |text: &str| {
        let (clock, fraction) = text.split_once('.').unwrap_or((text, ""));
        format!("{clock}.{:0<6}", fraction.chars().take(6).collect::<String>())
    };
    match kind.split(['(', ' ']).next().unwrap() {
        "decimal" | "numeric" => number(scale()),
        "money" | "smallmoney" => number(4),
        "real" => bits(f64::from(literal.parse::<f32>().unwrap())),
        "float" => bits(literal.parse().unwrap()),
        "time" | "datetime2" | "smalldatetime" => micros(literal),
        "datetime" => {
            // Thirds of ten milliseconds, shown as milliseconds.
            let (rest, millis) = literal.split_at(literal.len() - 3);
            let units = (millis.parse::<u32>().unwrap() * 3 + 5) / 10;
            format!("{rest}{:03}000", (units * 20 + 3) / 6)
        }
        "datetimeoffset" => {
            let moment: jiff::Timestamp = literal.parse().unwrap();
            local_text(moment.as_microsecond()).split_once('.').map_or_else(
                || format!("{}.000000", local_text(moment.as_microsecond())),
                |(clock, fraction)| format!("{clock}.{fraction}"),
            )
        }
        _ => literal.to_owned(),
    }
}

/// What two other clients read of the table.
fn judged(responder: &Responder, cases: &[Case], rows: &[Vec<Option<String>>]) -> usize {
    let mut read = 0;
    for client in ["pytds", "freetds"] {
        let output = Command::new(python())
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/agent/clients/read_sqlserver.py"))
            .args([client, &responder.port.to_string(), "SELECT * FROM tipos"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{client}: {}", String::from_utf8_lossy(&output.stderr));
        let found: Vec<Vec<String>> = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found.len(), rows.len(), "{client}");
        let mut wrong = Vec::new();
        for (found, row) in found.iter().zip(rows) {
            for ((found, (kind, ..)), literal) in found[2..].iter().zip(cases).zip(row) {
                let expected = told(kind, literal.as_deref());
                if *found != expected {
                    wrong.push(format!("{client}: {kind}: {literal:?} must be {expected:?}, got {found:?}"));
                }
                read += 1;
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
    read
}

#[test]
fn every_type_of_sql_server_arrives_exactly_and_other_clients_read_the_same() {
    let rows = literals(MATRIX, matrix::row_count(MATRIX));
    let responder = Table::new(MATRIX, rows.clone()).respond();
    let (world, report) = extracted(&responder, MATRIX, "");
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    let manifest = world.manifests().remove(0);
    assert!(manifest.units[0].is_proven(), "{:?}", manifest.units);
    let compared = matrix::check(MATRIX, &world.rows(&manifest).remove(0));
    let read = judged(&responder, MATRIX, &rows);
    println!("sqlserver: {} types, {compared} values beside NULL, {read} read by other clients", MATRIX.len());
}

#[test]
fn columns_that_are_not_null_have_tokens_of_their_own_and_arrive_exactly() {
    let rows = literals(NOT_NULL, 2);
    let responder = Table::new(NOT_NULL, rows.clone()).respond();
    let (world, report) = extracted(&responder, NOT_NULL, "");
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    let batch = world.rows(&world.manifests()[0]).remove(0);
    for (index, (kind, _, values)) in NOT_NULL.iter().enumerate() {
        let column = batch.column_by_name(&matrix::column(index)).unwrap();
        for (row, (_, expected)) in values.iter().enumerate() {
            assert_eq!(matrix::show(column.as_ref(), row), *expected, "{kind}");
        }
    }
    let read = judged(&responder, NOT_NULL, &rows);
    println!(
        "sqlserver: {} types NOT NULL, {} values, {read} read by other clients",
        NOT_NULL.len(),
        NOT_NULL.len() * 2
    );
}

#[test]
fn long_values_come_whole_over_many_packets() {
    let long = "ñ€ línea larga; ".repeat(4000);
    let wide = "😀 ñ 日本 ".repeat(4000);
    let bytes: String = (0..40_000_u32).map(|number| format!("{:02x}", number * 7 % 256)).collect();
    let cases: [Case; 6] = [
        ("varchar(max)", "text", &[]),
        ("nvarchar(max)", "text", &[]),
        ("xml", "text", &[]),
        ("varbinary(max)", "binary", &[]),
        ("text", "text", &[]),
        ("image", "binary", &[]),
    ];
    let row: Vec<Option<String>> = [&long, &wide, &wide, &bytes, &long, &bytes].map(|one| Some(one.clone())).to_vec();
    let responder = Table::new(&cases, vec![row.clone(), row.clone()]).respond();
    let (world, report) = extracted(&responder, &cases, "");
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    let batch = world.rows(&world.manifests()[0]).remove(0);
    for (index, expected) in row.iter().enumerate() {
        let column = batch.column_by_name(&matrix::column(index)).unwrap();
        assert!(Some(matrix::show(column.as_ref(), 1)) == *expected, "{}", cases[index].0);
    }
    judged(&responder, &cases, &[row.clone(), row]);
}

#[test]
fn what_does_not_fit_is_refused_by_name_and_says_what_to_do() {
    let refused = |kind: &'static str, lake: &'static str, literal: &str, more: &str| {
        let cases: [Case; 1] = [(kind, lake, &[])];
        let responder = Table::new(&cases, vec![vec![Some(literal.to_owned())]]).respond();
        let (world, report) = extracted(&responder, &cases, more);
        (world.manifests().len(), format!("{:?}", report.problems))
    };
    for (kind, lake, literal, words) in [
        ("money", "decimal(19,4)", "112589990684.2624", &["column c0", "id = 0", "CAST(column AS decimal(19,4))"][..]),
        ("money", "decimal(19,4)", "-922337203685477.5808", &["column c0", "CAST(column AS decimal(19,4))"]),
        ("datetime2(7)", "timestamp", "2024-07-01T12:00:00.1234567", &["column c0", "id = 0", "truncate", "1234567"]),
        ("datetimeoffset(7)", "timestamp", "2024-07-01T12:00:00.1234567+02:00", &["column c0", "truncate"]),
        ("sql_variant", "int32", "7", &["column c0", "sql_variant", "CAST"]),
        ("hierarchyid", "text", "58", &["column c0", "CAST"]),
        ("float", "decimal(18,2)", "1.5", &["column c0", "round"]),
        ("decimal(18,4)", "decimal(18,2)", "1.0001", &["column c0", "1.0001"]),
        ("tinyint", "bool", "2", &["column c0", "0, 1, true or false"]),
    ] {
        let (sent, told) = refused(kind, lake, literal, "");
        assert_eq!(sent, 0, "{kind}");
        for word in words {
            assert!(told.contains(word), "{kind}: {told:?} should say {word:?}");
        }
        assert!(kind != "money" || (told.contains("112589990684.2623") && !told.contains("float")), "{told:?}");
    }
    let cut = "[adapter.caja.tipos.columns]\nc0 = { truncate = true }\n";
    for (kind, literal) in
        [("datetime2(7)", "2024-07-01T12:00:00.1234567"), ("datetimeoffset(7)", "2024-07-01T12:00:00.1234567+02:00")]
    {
        assert_eq!(refused(kind, "timestamp", literal, cut).0, 1, "{kind} cut when told to");
    }
}

#[test]
fn text_that_is_not_of_its_own_character_set_names_the_columns_it_may_be_in() {
    let columns = [("d", "date"), ("id", "bigint"), ("c0", "nvarchar(10)"), ("c1", "int")];
    let columns: Vec<(String, Type)> =
        columns.iter().map(|(name, kind)| ((*name).to_owned(), Type::of(kind))).collect();
    let row = [matrix::DAY, "1", "ab", "3"].map(|value| Some(value.to_owned())).to_vec();
    let mut tokens = tds::result(&columns, &[row]);
    // Half of a pair in place of "b".
    let at = tokens.windows(4).rposition(|four| four == tds::utf16("ab")).unwrap();
    tokens[at + 2..at + 4].copy_from_slice(&0xD800_u16.to_le_bytes());
    let tokens = Arc::new(tokens);
    let cases: [Case; 2] = [("nvarchar(10)", "text", &[]), ("int", "int32", &[])];
    let table = Table::new(&cases, vec![vec![None, Some("3".to_owned())]]);
    let responder = respond(true, move |request| {
        if !request.asked_days().iter().any(|day| day == matrix::DAY) {
            Table { rows: Vec::new(), ..table.clone() }.audit()
        } else if request.sql.contains("auditoria") {
            table.audit()
        } else {
            Reply::Tokens(tokens.to_vec(), 1)
        }
    });
    let (world, report) = extracted(&responder, &cases, "");
    let told = format!("{:?}", report.problems);
    assert!(world.manifests().is_empty() && told.contains("character set") && told.contains("columns c0:"), "{told}");
}

const RANDOM: &[Case] = &[
    ("bigint", "int64", &[]),
    ("decimal(18,4)", "decimal(18,4)", &[]),
    ("decimal(38,20)", "decimal(38,20)", &[]),
    ("money", "decimal(19,4)", &[]),
    ("smallmoney", "decimal(18,4)", &[]),
    ("float", "float64", &[]),
    ("date", "date", &[]),
    ("time(7)", "text", &[]),
    ("datetime", "text", &[]),
    ("datetime2(6)", "text", &[]),
    ("varchar(60)", "text", &[]),
    ("varchar(60) 1251", "text", &[]),
    ("nvarchar(60)", "text", &[]),
    ("nvarchar(max)", "text", &[]),
    ("varbinary(60)", "binary", &[]),
    ("bit", "bool", &[]),
];

type Cell = Option<(String, String)>;

/// Literals and what must arrive, by column; one in eight is NULL.
fn random_row() -> impl Strategy<Value = Vec<Cell>> {
    let same = |text: String| (text.clone(), text);
    let decimal = move |scale: u8| move |number: i128| same(ExactDecimal::new(number, scale).to_string());
    let letters = |class: &str| proptest::string::string_regex(class).unwrap();
    let day = -719_162_i32..2_932_896;
    let digits = |clock: String, fraction: i64, width: usize| format!("{clock}.{fraction:0width$}");
    let fine = move |ticks: i64| {
        let clock = time_text(ticks / 10_000_000 * 1_000_000);
        let arrived =
            if ticks % 10 == 0 { time_text(ticks / 10) } else { digits(clock.clone(), ticks % 10_000_000, 7) };
        (digits(clock, ticks % 10_000_000, 7), arrived)
    };
    let wide = 10_i128.pow(13);
    let cells: Vec<BoxedStrategy<(String, String)>> = vec![
        any::<i32>().prop_map(move |number| same((i64::from(number) << 20).to_string())).boxed(),
        (-wide..wide).prop_map(decimal(4)).boxed(),
        (-10_i128.pow(37)..10_i128.pow(37)).prop_map(decimal(20)).boxed(),
        (-(1_i128 << 50) + 1..1 << 50).prop_map(decimal(4)).boxed(),
        any::<i32>().prop_map(move |number| decimal(4)(number.into())).boxed(),
        any::<i64>()
            .prop_map(|number| number as f64 / 1024.0)
            .prop_map(move |float| same(format!("{float:?}")))
            .boxed(),
        day.clone().prop_map(move |days| same(date_text(days))).boxed(),
        (0..864_000_000_000_i64).prop_map(fine).boxed(),
        // Milliseconds as the server shows them, and the nearest third of ten of them.
        (-79_247..2_932_896_i32, (0..86_400_i64, 0..999_i64).prop_map(|(second, millis)| second * 1000 + millis))
            .prop_map(move |(days, millis)| {
                let units = (millis * 3 + 5) / 10;
                let micros = (units * 2_000_000 + 300) / 600;
                let clock = digits(time_text(millis / 1000 * 1_000_000), millis % 1000, 3);
                let arrived = local_text(i64::from(days) * 86_400_000_000 + micros);
                (format!("{}T{clock}", date_text(days)), arrived)
            })
            .boxed(),
        (day, 0..86_400_000_000_i64)
            .prop_map(move |(days, micros)| {
                let clock = digits(time_text(micros / 1_000_000 * 1_000_000), micros % 1_000_000, 6);
                (format!("{}T{clock}", date_text(days)), local_text(i64::from(days) * 86_400_000_000 + micros))
            })
            .boxed(),
        letters("[ -~ñáéíóúüÑ¿¡€œŽ™]{0,60}").prop_map(same).boxed(),
        letters("[ -~а-яА-ЯЁё№]{0,60}").prop_map(same).boxed(),
        letters("[ -~ñáéíóúüÑ¿¡€日本\u{e000}😀]{0,30}").prop_map(same).boxed(),
        letters("[ -~ñ😀]{0,400}").prop_map(same).boxed(),
        prop::collection::vec(any::<u8>(), 0..60).prop_map(move |bytes| same(ribera_storage::hex::hex(&bytes))).boxed(),
        any::<bool>().prop_map(|bit| (u8::from(bit).to_string(), bit.to_string())).boxed(),
    ];
    let nullable =
        |cell: BoxedStrategy<(String, String)>| (cell, 0..8).prop_map(|(cell, dice)| (dice > 0).then_some(cell));
    cells.into_iter().map(nullable).collect::<Vec<_>>()
}

#[test]
fn random_rows_arrive_as_they_were_sent() {
    let tried = std::cell::Cell::new((0, 0));
    let mut runner =
        TestRunner::new(Cases { cases: 8, max_shrink_iters: 30, failure_persistence: None, ..Cases::default() });
    let judge_once = std::cell::Cell::new(true);
    let outcome = runner.run(&prop::collection::vec(random_row(), 1..200), |rows| {
        let sent: Vec<Vec<Option<String>>> = rows
            .iter()
            .map(|row| row.iter().map(|cell| cell.as_ref().map(|(sent, _)| sent.clone())).collect())
            .collect();
        let responder = Table::new(RANDOM, sent.clone()).respond();
        let (world, report) = extracted(&responder, RANDOM, "");
        prop_assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
        let batch = world.rows(&world.manifests()[0]).remove(0);
        prop_assert_eq!(batch.num_rows(), rows.len());
        for (index, (kind, ..)) in RANDOM.iter().enumerate() {
            let column = batch.column_by_name(&matrix::column(index)).unwrap();
            for (row, cells) in rows.iter().enumerate() {
                let wanted = cells[index].as_ref().map_or("NULL", |(_, arrived)| arrived.as_str());
                prop_assert_eq!(matrix::show(column.as_ref(), row), wanted, "{} row {}", kind, row);
            }
        }
        let (values, mut read) = tried.get();
        // Once is enough for the sender; each start of a client takes a second.
        if judge_once.replace(false) {
            read += judged(&responder, RANDOM, &sent);
        }
        tried.set((values + rows.len() * RANDOM.len(), read));
        Ok(())
    });
    if let Err(failed) = outcome {
        panic!("{failed}");
    }
    println!("sqlserver: {} random values, {} read by other clients", tried.get().0, tried.get().1);
}
