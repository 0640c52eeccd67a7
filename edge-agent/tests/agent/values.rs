//! Every value is exact in the lake, or refused by the name of its column, its row and itself. On every kind of
//! database.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow_array::RecordBatch;
use ribera_agent::report::{Exit, Report};
use ribera_storage::dataset::DatasetDefinition;
use ribera_storage::limits::VALUE_BYTES_MAX;

use crate::each::{KINDS, Kind, Place};
use crate::fixture::{World, extract};
use crate::matrix::show;

const DAY: &str = "2017-05-09";

/// What a test reads: one column `v`, beside the business date and the key.
#[derive(Clone)]
pub struct Case {
    /// The column's type in the till.
    pub sql_type: &'static str,
    /// Its type in the lake, and the rest of its definition.
    pub lake: &'static str,
    /// As the mapping has it.
    pub mapping: &'static str,
    /// Further keys of [store.source].
    pub source: &'static str,
}

pub const PLAIN: Case = Case { sql_type: "", lake: "", mapping: "\"v\"", source: "" };

/// Literals into `v`, one a row; `id` counts from 1.
fn place(kind: Kind, case: &Case, values: &[&str]) -> (Place, World) {
    static PLACES: AtomicUsize = AtomicUsize::new(0);
    let place = Place::new(kind, &format!("valores_{}", PLACES.fetch_add(1, Ordering::Relaxed)));
    // Servers have no exact sum of text, unless it is rounded.
    let has_sum = kind == Kind::Sqlite || !case.sql_type.starts_with("VARCHAR") || case.mapping.contains("round");
    let sums = if has_sum && case.lake.starts_with("type = \"decimal") { "\"v\"" } else { "" };
    let definition = format!(
        "name = \"valores\"\nversion = 1\nkind = \"daily\"\nbusiness_date = \"fecha\"\nkey = [\"id\"]\n\
         audit_sums = [{sums}]\nlookback_days = 3\ntitles = {{ es = \"Valores\", en = \"Values\" }}\ncolumn = [\n\
         {{ name = \"fecha\", type = \"date\", nullable = false }},\n\
         {{ name = \"id\", type = \"int64\", nullable = false }},\n{{ name = \"v\", {} }},\n]\n",
        case.lake
    );
    let mapping = format!(
        "{}[adapter.caja.valores]\nfrom = \"valores\"\ndate = \"fecha\"\n[adapter.caja.valores.columns]\nid = \"id\"\nv = {}\n",
        case.source, case.mapping
    );
    let world = place.world_of(&definition, &mapping);
    place.create(&world, "valores", &format!("fecha DATE, id INTEGER, v {}", case.sql_type));
    let insert =
        |(index, value): (usize, &&str)| format!("INSERT INTO valores VALUES ('{DAY}', {}, {value})", index + 1);
    let mut statements: Vec<String> = values.iter().enumerate().map(insert).collect();
    if kind == Kind::Mariadb {
        statements.insert(0, "SET sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00'".to_owned());
    }
    place.sql(&world, &statements);
    (place, world)
}

fn read(kind: Kind, case: &Case, values: &[&str]) -> (World, Report) {
    let (_, world) = place(kind, case, values);
    let report = extract(&world, DAY, DAY);
    (world, report)
}

/// The rows that were sent, proven, as text.
fn sent(kind: Kind, case: &Case, values: &[&str]) -> Vec<String> {
    let (world, report) = read(kind, case, values);
    assert_eq!(report.exit(), Exit::Done, "{kind:?} {values:?}: {:?}", report.problems);
    let manifest = world.manifests().remove(0);
    assert!(manifest.units[0].is_proven(), "{kind:?} {values:?}");
    let rows: RecordBatch = world.rows(&manifest).remove(0);
    let column = |name: &str, row: usize| show(rows.column_by_name(name).unwrap(), row);
    // In the order of the literals: a server may have another.
    let found: BTreeMap<usize, String> =
        (0..rows.num_rows()).map(|row| (column("id", row).parse().unwrap(), column("v", row))).collect();
    found.into_values().collect()
}

/// What was told instead of sending anything.
fn refused(kind: Kind, case: &Case, values: &[&str], words: &[&str]) -> String {
    let (world, report) = read(kind, case, values);
    assert_eq!(report.exit(), Exit::Source, "{kind:?} {values:?}: {:?}", report.problems);
    assert!(world.manifests().is_empty(), "{kind:?} {values:?}: nothing was sent");
    let told = report.problems[0].message.clone();
    for word in ["dataset valores", "column v"].iter().chain(words) {
        assert!(told.contains(word), "{kind:?} {values:?}: {told:?} should name {word:?}");
    }
    told
}

#[test]
fn a_text_that_is_no_number_is_never_rounded_to_one() {
    const ROUNDED: Case = Case {
        lake: "type = \"decimal(18,2)\"",
        mapping: "{ sql = \"v\", round = 2 }",
        sql_type: "VARCHAR(60)",
        ..PLAIN
    };
    const BAD: [&str; 9] = ["12,50", "N/A", "", "1.234,50", "12.5x", "--1", "1 2", "0x1F", "nan"];
    for kind in KINDS {
        for bad in BAD {
            // Firebird and newer PostgreSQL read it as the number that it is.
            if bad == "0x1F" && matches!(kind, Kind::Firebird | Kind::Postgres) {
                continue;
            }
            let values = ["'10.25'", &format!("'{bad}'"), "NULL"];
            let told = refused(kind, &ROUNDED, &values, &["id = 2"]);
            assert!(told.contains(&format!("{bad:?}")) || (bad == "nan" && told.contains("NaN")), "{kind:?}: {told}");
        }
        let good = ["'10.25'", "'-0.055'", "NULL", "'7'", "'+1.5'", "'.5'"];
        let found = sent(kind, &ROUNDED, &good);
        assert_eq!(found, ["10.25", "-0.06", "NULL", "7.00", "1.50", "0.50"], "{kind:?}");
    }
}

/// A column that holds what it likes whatever it was declared as.
#[test]
fn sqlite_rounds_numbers_of_every_storage_class_and_nothing_else() {
    for sql_type in ["REAL", "NUMERIC", "INTEGER", "TEXT", "BLOB", "DECIMAL(10,2)", ""] {
        let case = Case { sql_type, lake: "type = \"decimal(38,2)\"", mapping: "{ sql = \"v\", round = 2 }", ..PLAIN };
        let good = ["1.005", "2.675", "'3.5'", "9007199254740993", "-9223372036854775808", "1e15", "NULL", "-0.001"];
        let found = sent(Kind::Sqlite, &case, &good);
        let exact = match sql_type {
            // The column lost them; and of a float the library shows 16 digits.
            "REAL" => ["9007199254740992.00", "-9223372036854776000.00"],
            _ => ["9007199254740993.00", "-9223372036854775808.00"],
        };
        assert_eq!(found[3..5], exact, "{sql_type}");
        assert_eq!((&*found[2], &*found[5], &*found[6]), ("3.50", "1000000000000000.00", "NULL"), "{sql_type}");
        for (bad, word) in [("'12,50'", "12,50"), ("x'31322c35'", "bytes"), ("9e999", "Inf"), ("'1e400'", "38 digits")]
        {
            refused(Kind::Sqlite, &case, &["1.5", bad], &["id = 2", word]);
        }
        refused(Kind::Sqlite, &case, &["1e40"], &["id = 1", "38 digits"]);
    }
}

#[test]
fn a_text_in_a_column_of_numbers_is_refused_with_its_row() {
    for kind in KINDS {
        for lake in ["type = \"decimal(18,2)\"", "type = \"int64\"", "type = \"float64\""] {
            let case = Case { sql_type: "VARCHAR(20)", lake, ..PLAIN };
            for bad in ["12,50", "muchos", ""] {
                let values = ["'1'", &format!("'{bad}'")];
                refused(kind, &case, &values, &["id = 2", &format!("{bad:?}")]);
            }
        }
    }
}

/// MariaDB keeps what no calendar has, where it is told to allow it.
#[test]
fn a_date_that_no_calendar_has_is_refused_as_it_stands() {
    let days = [
        ("2024-02-31", "2024-02-31"),
        ("2023-02-29", "2023-02-29"),
        ("2024-04-31", "2024-04-31"),
        ("2024-00-10", "2024-00-10"),
        ("2024-02-00", "2024-02-00"),
        ("0000-02-03", "0000-02-03"),
        ("0000-00-00", "zero date"),
    ];
    for sql_type in ["DATE", "DATETIME(6)"] {
        for lake in ["date", "timestamp", "text"] {
            let lake: &'static str = Box::leak(format!("type = \"{lake}\"").into_boxed_str());
            let case = Case { sql_type, lake, ..PLAIN };
            for (day, word) in days {
                let values = ["'2024-02-29'", &format!("'{day}'")];
                refused(Kind::Mariadb, &case, &values, &["id = 2", word]);
            }
        }
    }
    let case = Case { sql_type: "DATE", lake: "type = \"date\"", ..PLAIN };
    assert_eq!(sent(Kind::Mariadb, &case, &["'2024-02-29'", "'9999-12-31'"]), ["2024-02-29", "9999-12-31"]);
    for day in ["2024-02-31", "2024-13-01", "0000-01-01", "2024-1-5"] {
        refused(Kind::Sqlite, &case, &[&format!("'{day}'")], &["id = 1", day]);
    }
}

#[test]
fn a_moment_outside_the_years_1_to_9999_in_utc_is_refused_with_its_row() {
    // The store is in New York: five hours west of Greenwich, and before railways 4:56:02.
    for kind in KINDS {
        let sql_type = if kind == Kind::Sqlite { "TEXT" } else { "TIMESTAMP" };
        let case = Case { sql_type, lake: "type = \"timestamp\"", ..PLAIN };
        let late = ["'2024-01-01 00:00:00'", "'9999-12-31 23:59:59'"];
        refused(kind, &case, &late, &["id = 2", "9999-12-31", "1 to 9999"]);
        let good = ["'9999-12-31 18:59:59'", "'1000-01-01 00:00:00'", "'9999-12-31 00:00:00'"];
        let found = sent(kind, &case, &good);
        assert_eq!(found, ["9999-12-31T23:59:59Z", "1000-01-01T04:56:02Z", "9999-12-31T05:00:00Z"], "{kind:?}");
        let mapping = "{ sql = \"v\", zone = \"Asia/Tokyo\" }";
        let east = Case { mapping, ..case.clone() };
        assert_eq!(sent(kind, &east, &["'9999-12-31 23:59:59'"]), ["9999-12-31T14:59:59Z"], "{kind:?}");
        if kind != Kind::Mariadb {
            refused(kind, &east, &["'0001-01-01 00:00:00'"], &["id = 1", "0001-01-01", "1 to 9999"]);
        }
    }
    let written = Case { sql_type: "TEXT", lake: "type = \"timestamp\"", ..PLAIN };
    for bad in ["9999-12-31T23:59:59-00:01", "0001-01-01 00:00:00+00:01"] {
        refused(Kind::Sqlite, &written, &[&format!("'{bad}'")], &["id = 1", bad, "1 to 9999"]);
    }
}

#[test]
fn years_that_postgres_has_and_no_calendar_of_the_lake_does_are_refused_with_their_row() {
    let cases = [
        ("date", "date", "'5874897-12-31'", "5874897-12-31"),
        ("date", "date", "'0044-03-15 BC'", "-000043-03-15"),
        ("date", "text", "'10000-01-01'", "10000-01-01"),
        ("date", "timestamp", "'0044-03-15 BC'", "-000043-03-15"),
        ("timestamp", "timestamp", "'294276-12-31 23:59:59.999999'", "294276-12-31"),
        ("timestamp", "text", "'294276-12-31 23:59:59.999999'", "294276-12-31"),
        ("timestamp", "date", "'10000-01-01'", "10000-01-01"),
        ("timestamptz", "timestamp", "'294276-12-31 23:59:59.999999+00'", "294276-12-31"),
        ("timestamptz", "timestamp", "'4713-01-01 00:00:00+00 BC'", "-004712-01-01"),
        ("timestamptz", "timestamp", "'9999-12-31 23:59:59-01'", "10000-01-01"),
        ("date", "date", "'infinity'", "infinity"),
    ];
    for (sql_type, lake, value, word) in cases {
        let lake: &'static str = Box::leak(format!("type = \"{lake}\"").into_boxed_str());
        let case = Case { sql_type, lake, ..PLAIN };
        refused(Kind::Postgres, &case, &[value], &["id = 1", word]);
    }
}

#[test]
fn whole_numbers_of_every_width_and_sign_count_from_1970() {
    const S: &str = "{ sql = \"v\", epoch = \"s\" }";
    const MS: &str = "{ sql = \"v\", epoch = \"ms\" }";
    const SUNDAY: &str = "2024-01-05T16:00:00Z";
    let types = |kind| match kind {
        Kind::Sqlite => vec!["INTEGER", "TEXT", "NUMERIC", "REAL"],
        Kind::Mariadb => vec![
            "INT",
            "INT UNSIGNED",
            "BIGINT",
            "BIGINT UNSIGNED",
            "DECIMAL(14,0)",
            "DECIMAL(20,3)",
            "VARCHAR(20)",
            "DOUBLE",
        ],
        Kind::Postgres => vec!["integer", "bigint", "numeric(14,0)", "numeric", "oid", "text", "double precision"],
        Kind::Firebird => {
            vec!["INTEGER", "BIGINT", "NUMERIC(14,0)", "NUMERIC(18,3)", "VARCHAR(20)", "DOUBLE PRECISION"]
        }
    };
    for kind in KINDS {
        for sql_type in types(kind) {
            let case = Case { sql_type, lake: "type = \"timestamp\"", mapping: S, ..PLAIN };
            assert_eq!(sent(kind, &case, &["1704470400", "NULL"]), [SUNDAY, "NULL"], "{kind:?} {sql_type}");
            if !sql_type.contains("UNSIGNED") && sql_type != "oid" {
                assert_eq!(sent(kind, &case, &["-1"]), ["1969-12-31T23:59:59Z"], "{kind:?} {sql_type}");
            }
            let narrow = matches!(sql_type, "INT" | "INT UNSIGNED" | "integer" | "oid");
            if !narrow && (sql_type != "INTEGER" || kind == Kind::Sqlite) {
                let milliseconds = Case { mapping: MS, ..case.clone() };
                let found = sent(kind, &milliseconds, &["1704470400123"]);
                assert_eq!(found, ["2024-01-05T16:00:00.123000Z"], "{kind:?} {sql_type}");
                refused(kind, &case, &["253402300800"], &["id = 1", "253402300800", "1 to 9999"]);
                if !sql_type.contains("UNSIGNED") {
                    refused(kind, &case, &["1704470400", "-62135596801"], &["id = 2", "62135596801", "1 to 9999"]);
                }
            }
        }
    }
    let case = Case { sql_type: "DECIMAL(20,3)", lake: "type = \"timestamp\"", mapping: MS, ..PLAIN };
    refused(Kind::Mariadb, &Case { sql_type: "DECIMAL(20,4)", ..case }, &["0.0001"], &["id = 1", "0.0001"]);
    let huge = Case { sql_type: "BIGINT UNSIGNED", lake: "type = \"timestamp\"", mapping: S, ..PLAIN };
    refused(Kind::Mariadb, &huge, &["18446744073709551615"], &["id = 1", "18446744073709551615"]);
}

#[test]
fn codes_filled_with_zeros_keep_them_as_text_and_are_numbers_as_numbers() {
    let types = [
        ("INT(5) ZEROFILL", "42", "00042", "42"),
        ("INT ZEROFILL", "42", "0000000042", "42"),
        ("BIGINT(12) ZEROFILL", "7", "000000000007", "7"),
        ("TINYINT(3) ZEROFILL", "7", "007", "7"),
        ("SMALLINT(5) UNSIGNED ZEROFILL", "123", "00123", "123"),
        ("MEDIUMINT(8) ZEROFILL", "0", "00000000", "0"),
        ("INT(3) ZEROFILL", "12345", "12345", "12345"),
        ("DECIMAL(8,0) ZEROFILL", "42", "00000042", "42"),
    ];
    for (sql_type, value, text, number) in types {
        let as_text = Case { sql_type, lake: "type = \"text\"", ..PLAIN };
        assert_eq!(sent(Kind::Mariadb, &as_text, &[value]), [text], "{sql_type}");
        let as_number = Case { sql_type, lake: "type = \"int64\"", ..PLAIN };
        assert_eq!(sent(Kind::Mariadb, &as_number, &[value]), [number], "{sql_type}");
        let as_decimal = Case { sql_type, lake: "type = \"decimal(18,0)\"", ..PLAIN };
        assert_eq!(sent(Kind::Mariadb, &as_decimal, &[value]), [number], "{sql_type}");
    }
    let flag = Case { sql_type: "TINYINT(1) ZEROFILL", lake: "type = \"bool\"", ..PLAIN };
    assert_eq!(sent(Kind::Mariadb, &flag, &["1", "0"]), ["true", "false"]);
}

#[test]
fn a_value_longer_than_the_centre_takes_is_refused_with_its_row() {
    for kind in KINDS {
        let (text, bytes) = match kind {
            Kind::Sqlite => ("TEXT", "BLOB"),
            Kind::Mariadb => ("LONGTEXT", "LONGBLOB"),
            Kind::Postgres => ("TEXT", "BYTEA"),
            Kind::Firebird => ("BLOB SUB_TYPE TEXT", "BLOB SUB_TYPE BINARY"),
        };
        for (sql_type, lake) in [(text, "text"), (bytes, "binary")] {
            let lake: &'static str = Box::leak(format!("type = \"{lake}\"").into_boxed_str());
            let case = Case { sql_type, lake, ..PLAIN };
            // What a statement may hold is less than that in some of them: so it doubles there.
            let (place, world) = place(kind, &case, &["'0123456789abcdef'"]);
            let doubled = match (kind, sql_type) {
                (Kind::Mariadb, _) => "UPDATE valores SET v = CONCAT(v, v)",
                (Kind::Sqlite, "BLOB") => "UPDATE valores SET v = CAST(CAST(v AS TEXT) || v AS BLOB)",
                _ => "UPDATE valores SET v = v || v",
            };
            // 16 bytes doubled 16 times are the limit.
            place.sql(&world, &vec![doubled.to_owned(); 16]);
            let report = extract(&world, DAY, DAY);
            assert_eq!(report.exit(), Exit::Done, "{kind:?} {sql_type}: {:?}", report.problems);
            let sent = world.rows(&world.manifests()[0]).remove(0);
            assert_eq!(show(sent.column_by_name("v").unwrap(), 0).len() as u64 % VALUE_BYTES_MAX, 0, "{kind:?}");
            let one_more = match (kind, sql_type) {
                (Kind::Mariadb, _) => "UPDATE valores SET v = CONCAT(v, 'x')",
                (Kind::Sqlite, "BLOB") => "UPDATE valores SET v = CAST(CAST(v AS TEXT) || 'x' AS BLOB)",
                (Kind::Postgres, "BYTEA") => "UPDATE valores SET v = v || '\\x00'",
                _ => "UPDATE valores SET v = v || 'x'",
            };
            place.sql(&world, &[one_more.to_owned()]);
            let report = extract(&world, DAY, DAY);
            let told = &report.problems[0].message;
            for word in ["dataset valores", "column v", "id = 1", "1048576", "1048577"] {
                assert!(told.contains(word), "{kind:?} {sql_type}: {told:?} should name {word:?}");
            }
            assert!(told.len() < 1000, "{}", told.len());
        }
    }
}

#[test]
fn text_in_a_declared_character_set_is_read_as_declared() {
    const COLUMN: &str = "{ sql = \"v\", charset = \"windows-1252\" }";
    const SOURCE: &str = "charset = \"windows-1252\"\n";
    // ñ, €, and two letters that would also be one of UTF-8.
    let values = ["CAST(x'5045d141' AS TEXT)", "CAST(x'80' AS TEXT)", "CAST(x'434146c9ae' AS TEXT)", "'plain'", "''"];
    let right = ["PEÑA", "€", "CAFÉ®", "plain", ""];
    for (index, (mapping, source)) in [(COLUMN, ""), ("\"v\"", SOURCE), (COLUMN, SOURCE)].iter().enumerate() {
        let case = Case { sql_type: "TEXT", lake: "type = \"text\"", mapping, source };
        assert_eq!(sent(Kind::Sqlite, &case, &values), right, "sqlite {index}");
        let bytes: Vec<String> =
            values.iter().map(|value| value.replace("CAST(", "").replace(" AS TEXT)", "")).collect();
        let bytes: Vec<&str> = bytes.iter().map(String::as_str).collect();
        let case = Case { sql_type: "VARBINARY(40)", ..case };
        assert_eq!(sent(Kind::Mariadb, &case, &bytes), right, "mariadb {index}");
        // What the server converts itself is not converted twice.
        let case = Case { sql_type: "VARCHAR(40) CHARACTER SET latin1", ..case };
        let found = sent(Kind::Mariadb, &case, &["'PEÑA'", "'Ã±'", "'€'"]);
        assert_eq!(found, ["PEÑA", "Ã±", "€"], "mariadb {index}");
    }
    let case = Case { sql_type: "TEXT", lake: "type = \"text\"", ..PLAIN };
    refused(Kind::Sqlite, &case, &values[..1], &["id = 1", "UTF-8", "charset"]);
    // A column that says otherwise than its source; one of bytes, which no character set touches.
    let own = Case { mapping: "{ sql = \"v\", charset = \"utf-8\" }", source: SOURCE, ..case.clone() };
    assert_eq!(sent(Kind::Sqlite, &own, &["'ñ'"]), ["ñ"]);
    refused(Kind::Sqlite, &own, &values[..1], &["id = 1", "utf-8"]);
    let bytes = Case { lake: "type = \"binary\"", source: SOURCE, ..case.clone() };
    assert_eq!(sent(Kind::Sqlite, &bytes, &values[..1]), ["5045d141"]);
    let folded = Case { lake: "type = \"text\", transforms = [\"trim\", \"upper\"]", mapping: COLUMN, ..case };
    assert_eq!(sent(Kind::Sqlite, &folded, &["CAST(x'20f120' AS TEXT)"]), ["Ñ"]);
}

#[test]
fn no_value_of_a_hidden_column_is_told() {
    let secret = |told: &str| {
        for part in ["Juan", "4a75616e", "4a, 75", "74", "12345678"] {
            assert!(!told.contains(part), "{told}");
        }
    };
    for (lake, value) in [
        ("type = \"text\", transforms = [\"hash\"]", "CAST(x'4a75616eff' AS TEXT)"),
        ("type = \"text\", transforms = [\"hash\"], nullable = false", "NULL"),
        ("type = \"text\", transforms = [\"hash\"]", "12345678.5"),
    ] {
        let lake: &'static str = Box::leak(lake.to_owned().into_boxed_str());
        let case = Case { lake, ..PLAIN };
        let (_, mut world) = place(Kind::Sqlite, &case, &["'ok'", value]);
        world.config.hash_salt = Some(ribera_storage::secret::Secret::new("sal"));
        let report = extract(&world, DAY, DAY);
        assert_eq!(report.exit(), Exit::Source, "{:?}", report.problems);
        let told = format!("{:?}", report.problems);
        assert!(told.contains("column v") && told.contains("id = 2"), "{told}");
        secret(&told);
    }
}

#[test]
fn a_definition_that_could_tell_a_hidden_value_or_sum_it_is_refused() {
    let definition = |column: &str, sums: &str| {
        DatasetDefinition::from_toml(&format!(
            "name = \"x\"\nversion = 1\nkind = \"dimension\"\nkey = [\"id\"]\naudit_sums = [{sums}]\n\
             titles = {{ es = \"\", en = \"\" }}\ncolumn = [\n{{ name = \"id\", type = \"int64\", nullable = false }},\n\
             {{ name = \"v\", {column} }},\n]\n"
        ))
    };
    for (column, sums, word) in [
        ("type = \"text\", nullable = false, transforms = [\"drop\"]", "", "nullable"),
        ("type = \"int64\", transforms = [\"hash\"]", "", "text"),
        ("type = \"decimal(18,2)\", transforms = [\"trim\", \"hash\"]", "\"v\"", "text"),
        ("type = \"int64\", transforms = [\"drop\"]", "\"v\"", "audit_sums"),
    ] {
        let error = definition(column, sums).unwrap_err();
        for part in ["dataset x", "v", word] {
            assert!(error.message().contains(part), "{column}: {error}");
        }
    }
    definition("type = \"int64\", transforms = [\"drop\"]", "").unwrap();
    definition("type = \"text\", transforms = [\"hash\"], nullable = false", "").unwrap();
}

/// Whatever the server says: its words may hold the value.
#[test]
fn the_words_of_a_server_are_kept_back_where_they_may_hold_a_hidden_value() {
    for (kind, cast) in [(Kind::Postgres, "CAST(v AS bigint)"), (Kind::Firebird, "CAST(v AS BIGINT)")] {
        let mapping: &'static str = Box::leak(format!("\"{cast}\"").into_boxed_str());
        let lake = "type = \"text\", transforms = [\"hash\"]";
        let case = Case { sql_type: "VARCHAR(20)", lake, mapping, ..PLAIN };
        let (_, mut world) = place(kind, &case, &["'12345678x'"]);
        world.config.hash_salt = Some(ribera_storage::secret::Secret::new("sal"));
        let report = extract(&world, DAY, DAY);
        assert_eq!(report.exit(), Exit::Source, "{kind:?}: {:?}", report.problems);
        let told = format!("{:?}", report.problems);
        assert!(!told.contains("12345678") && told.contains("hash or drop"), "{kind:?}: {told}");
        // What is dropped is not even asked for.
        let case = Case { lake: "type = \"text\", transforms = [\"drop\"]", ..case };
        assert_eq!(sent(kind, &case, &["'12345678x'"]), ["NULL"], "{kind:?}");
    }
}

#[test]
fn a_float_of_postgres_is_rounded_with_all_its_digits() {
    let case = Case { lake: "type = \"decimal(18,2)\"", mapping: "{ sql = \"v\", round = 2 }", ..PLAIN };
    let values = ["16777.17", "0.285", "123456.78", "-0.005"];
    for sql_type in ["real", "double precision", "numeric", "text"] {
        let case = Case { sql_type, ..case.clone() };
        let quoted = values.map(|value| format!("'{value}'"));
        let found = sent(Kind::Postgres, &case, &quoted.each_ref().map(String::as_str));
        assert_eq!(found, ["16777.17", "0.29", "123456.78", "-0.01"], "{sql_type}");
    }
    let case = Case { sql_type: "double precision", ..case };
    assert_eq!(sent(Kind::Postgres, &case, &["12345678901234.56"]), ["12345678901234.56"]);
    for bad in ["'NaN'", "'Infinity'", "1e37"] {
        refused(Kind::Postgres, &case, &["1.5", bad], &["id = 2"]);
    }
}

#[test]
fn a_number_that_no_decimal_holds_is_not_cut_to_the_largest_that_mariadb_has() {
    let case = Case { lake: "type = \"decimal(38,2)\"", mapping: "{ sql = \"v\", round = 2 }", ..PLAIN };
    for (sql_type, bad) in [("DOUBLE", "1e37"), ("VARCHAR(60)", "'9999999999999999999999999999999999999999'")] {
        let case = Case { sql_type, ..case.clone() };
        refused(Kind::Mariadb, &case, &["1.5", bad], &["id = 2"]);
    }
    let doubles = Case { sql_type: "DOUBLE", ..case.clone() };
    assert_eq!(sent(Kind::Mariadb, &doubles, &["1e3", "-0.005", "NULL"]), ["1000.00", "-0.01", "NULL"]);
    let floats = Case { sql_type: "FLOAT", ..case };
    assert_eq!(sent(Kind::Mariadb, &floats, &["16777.17"]), ["16777.17"]);
}

#[test]
fn text_of_a_postgres_database_without_encoding_is_read_as_declared() {
    let server = crate::postgres_server::server();
    for (number, (charset, mapping)) in
        [("charset = \"windows-1252\"\n", ""), ("", ", charset = \"windows-1252\"")].into_iter().enumerate()
    {
        let database = server.database(&format!("sin_juego_{number}"), "SQL_ASCII");
        server.sql(
            &database,
            "CREATE TABLE lineas (ticket int, linea int, fecha date, momento timestamp, producto text, cantidad int, total numeric(18,2));
             INSERT INTO lineas VALUES (1, 1, '2017-05-09', NULL, E'CAF\\xc9\\xae', 1, 1)",
        );
        let config = crate::servers::store("postgres", server.port, &database, "contraseña", "require", "")
            + charset
            + &crate::servers::LINES_MAPPING.replace("\"producto\"", &format!("{{ sql = \"producto\"{mapping} }}"));
        let world = World::with_config(&config);
        let report = extract(&world, DAY, DAY);
        assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
        let rows = world.rows(&world.manifests()[0]).remove(0);
        assert_eq!(show(rows.column_by_name("producto_id").unwrap(), 0), "CAFÉ®");
    }
}

/// A page of the file is what is encoded at once, and the centre takes none of more than 32 MiB.
#[test]
fn many_long_values_make_pages_that_the_centre_takes() {
    let case = Case { sql_type: "TEXT", lake: "type = \"text\"", ..PLAIN };
    let (_, world) = place(Kind::Sqlite, &case, &["'x'"]);
    world.sql(&format!(
        "DELETE FROM valores; WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60)
         INSERT INTO valores SELECT '{DAY}', i, hex(randomblob(500000)) FROM n"
    ));
    let report = extract(&world, DAY, DAY);
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    let bytes = world.object(&world.manifests()[0].file.path).unwrap();
    let file = parquet::file::serialized_reader::SerializedFileReader::new(bytes).unwrap();
    let mut largest = 0;
    for group in 0..parquet::file::reader::FileReader::num_row_groups(&file) {
        let group = parquet::file::reader::FileReader::get_row_group(&file, group).unwrap();
        for column in 0..group.num_columns() {
            let mut pages = group.get_column_page_reader(column).unwrap();
            while let Some(page) = pages.get_next_page().unwrap() {
                largest = largest.max(page.buffer().len());
            }
        }
    }
    assert!((1 << 19..8 << 20).contains(&largest), "a page of {largest} bytes");
}
