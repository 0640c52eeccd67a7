//! SQL Server: logins, TLS, parameters, snapshots, slow queries, errors. On pysqlbridge, which others
//! wrote, and on a responder of ours where that one has no such thing.

use std::process::Command;

use ribera_agent::report::{Exit, Report};
use ribera_agent::run::collect::RunMode;
use ribera_storage::control;
use ribera_storage::dataset::DatasetDefinition;

use crate::fixture::{World, block_on, days, extract, run};
use crate::matrix;
use crate::servers::{self, LINES_MAPPING};
use crate::sqlbridge::server;
use crate::tds::{self, Type};
use crate::tds_responder::{Parameter, Reply, Request, respond, respond_all};

/// A configuration up to the mapping.
pub fn store(port: u16, database: &str, tls: &str) -> String {
    servers::store("sqlserver", port, database, "${CLAVE}", tls, "")
}

/// Decimals as text: pysqlbridge sends them as floats.
pub const BY_HAND: &str = r#"
[adapter.caja.ventas]
extract = """
    SELECT CAST(fecha AS date) AS fecha, :store AS ubicacion_id, ticket AS ticket_id, linea, momento AS vendido_en,
           producto AS producto_id, cantidad, CONVERT(varchar(40), CAST(total AS decimal(18,2))) AS total
    FROM lineas WHERE CAST(fecha AS date) BETWEEN :from AND :to ORDER BY fecha, ticket, linea
"""
audit = """
    SELECT CAST(fecha AS date) AS [day], COUNT(*) AS [rows], SUM(cantidad) AS cantidad,
           CONVERT(varchar(40), CAST(SUM(CAST(total AS decimal(18,2))) AS decimal(18,2))) AS total
    FROM lineas WHERE CAST(fecha AS date) >= :from AND CAST(fecha AS date) < :after GROUP BY CAST(fecha AS date)
"""
"#;

fn bridge(tls: &str) -> String {
    store(server().port, "pySQLbridge", tls) + BY_HAND
}

fn extract_world(text: &str) -> (World, Report) {
    let world = World::with_config(text);
    let report = extract(&world, "2017-05-08", "2017-05-09");
    (world, report)
}

#[test]
fn a_day_of_a_server_that_others_wrote_arrives_as_its_file_has_it() {
    let (world, report) = extract_world(&bridge("require"));
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    let mut manifests = world.manifests();
    manifests.sort_by_key(|manifest| manifest.units[0].unit);
    assert!(manifests.iter().flat_map(|manifest| &manifest.units).all(|unit| unit.is_proven()), "{manifests:?}");
    let batches: Vec<_> = manifests.iter().flat_map(|manifest| world.rows(manifest)).collect();
    let column = |name: &str| -> Vec<String> {
        let shown = |batch: &arrow_array::RecordBatch| {
            let column = batch.column_by_name(name).unwrap().clone();
            (0..batch.num_rows()).map(move |row| matrix::show(column.as_ref(), row)).collect::<Vec<_>>()
        };
        batches.iter().flat_map(shown).collect()
    };
    assert_eq!(column("ticket_id"), ["1", "2", "2", "3"]);
    assert_eq!(column("producto_id"), ["ñ á €", "pan", "O'Hara; --", "queso"]);
    assert_eq!(column("total"), ["10.50", "1.05", "-2.05", "0.07"]);
    assert_eq!(column("fecha"), ["2017-05-08", "2017-05-09", "2017-05-09", "2017-05-09"]);
    assert_eq!(column("vendido_en")[2..], ["2017-05-09T14:30:00Z", "NULL"]);
    assert_eq!(column("ubicacion_id"), ["s1"; 4]);
    let again = extract(&world, "2017-05-08", "2017-05-09");
    assert_eq!((again.exit(), world.manifests().len()), (Exit::Done, 2), "nothing differs");
}

#[test]
fn tls_is_on_by_default_and_checks_what_it_is_told_to_check() {
    let verify = |file: &std::path::Path| {
        bridge("verify").replace("\"verify\"", &format!("\"verify\"\ntls_ca_file = \"{}\"", file.display()))
    };
    assert_eq!(
        extract_world(&bridge("require").replace("tls = \"require\"", "")).1.exit(),
        Exit::Done,
        "on unless switched off"
    );
    let (_, report) = extract_world(&verify(&server().ca_file));
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    let (_, refused) = extract_world(&verify(&server().other_ca_file));
    assert_eq!(refused.exit(), Exit::Source);
    let told = &refused.problems[0].message;
    assert!(told.contains("source.tls") && told.contains("certificate") && !told.contains("Config::"), "{told}");
    let (_, missing) = extract_world(&verify(std::path::Path::new("no-such.pem")));
    assert!(missing.problems[0].message.contains("tls_ca_file"), "{:?}", missing.problems);
    // The responder knows no encryption: nothing goes in the clear unless told to.
    let plain = respond(true, |_| Reply::Hangup);
    let (_, declined) = extract_world(&(store(plain.port, "tienda", "require") + BY_HAND));
    let told = &declined.problems[0].message;
    assert!(told.contains("source.tls") && told.contains("off"), "{told}");
    assert!(plain.seen.lock().unwrap().logins.is_empty(), "no password went out");
}

#[test]
fn a_login_that_is_refused_says_what_to_change_and_no_secret() {
    let told = |text: &str| {
        let (_, report) = extract_world(text);
        assert_eq!(report.exit(), Exit::Source);
        assert_eq!(report.problems[0].kind, "config", "{:?}", report.problems);
        format!("{:?}", report.problems)
    };
    let wrong = told(&bridge("require").replace("${CLAVE}", "hunter2"));
    assert!(wrong.contains("user or password") && wrong.contains("18456") && !wrong.contains("hunter2"), "{wrong}");
    let responder = respond(true, |_| Reply::Hangup);
    let unknown = told(&(store(responder.port, "ninguna", "off") + BY_HAND));
    assert!(unknown.contains("source.database") && unknown.contains("4060"), "{unknown}");
    let login = responder.seen.lock().unwrap().logins[0].clone();
    assert_eq!((login.program.as_str(), login.readonly), ("ribera-agent", true), "{login:?}");
}

#[test]
fn an_error_of_a_query_tells_the_servers_number_and_who_must_act() {
    let (_, report) = extract_world(&bridge("require").replace("FROM lineas", "FROM facturas"));
    let problem = &report.problems[0];
    assert_eq!(problem.kind, "config", "{problem:?}");
    assert!(problem.message.contains("facturas") && problem.message.contains("208"), "{problem:?}");
    for (number, class, kind) in
        [(1205, 13, "retry"), (229, 14, "config"), (8115, 16, "data"), (823, 24, "retry"), (50_000, 16, "config")]
    {
        let responder = respond(false, move |_| {
            Reply::Whole(
                [tds::error(number, class, "dicho por el servidor"), tds::done(tds::DONE, tds::FAILED, 0)].concat(),
            )
        });
        let (_, report) = extract_world(&(store(responder.port, "tienda", "off") + BY_HAND));
        let problem = &report.problems[0];
        assert_eq!(problem.kind, kind, "{number}: {problem:?}");
        assert!(problem.message.contains("dicho por el servidor") && problem.message.contains(&number.to_string()));
    }
}

#[test]
fn a_server_that_stops_in_the_middle_is_told_in_words_that_are_not_the_drivers() {
    let responder = respond(false, |_| Reply::Hangup);
    let (_, report) = extract_world(&(store(responder.port, "tienda", "off") + BY_HAND));
    let problem = &report.problems[0];
    assert_eq!(problem.kind, "retry", "{problem:?}");
    assert!(problem.message.contains("the connection was lost: the server was stopped"), "{problem:?}");
    assert!(!problem.message.contains("performing I/O"), "{problem:?}");
}

#[test]
fn check_says_of_each_store_what_works_and_needs_no_password_for_the_way() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("agent.toml"), bridge("require")).unwrap();
    let check = |words: &[&str], password: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_ribera-agent"))
            .arg("--config")
            .arg(folder.path().join("agent.toml"))
            .args(["--json", "check"])
            .args(words)
            .env("CLAVE", password)
            .output()
            .unwrap();
        let answer: serde_json::Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        (output, answer)
    };
    let (output, answer) = check(&[], "secret");
    assert_eq!(output.status.code(), Some(0), "{answer}");
    let lines = answer["checks"].as_array().unwrap();
    let told: Vec<&str> = lines.iter().map(|line| line["what"].as_str().unwrap()).collect();
    assert_eq!(told, ["object_store", "network", "source", "ventas"], "{answer}");
    assert!(lines[2]["detail"].as_str().unwrap().starts_with("sqlserver pySQLbridge en 127.0.0.1:"), "{answer}");
    assert!(
        !String::from_utf8_lossy(&output.stderr).contains("tiberius"),
        "the driver's own words are for nobody: {output:?}"
    );
    let (output, answer) = check(&[], "hunter2");
    assert_eq!(output.status.code(), Some(3), "{answer}");
    assert!(!format!("{output:?}").contains("hunter2"), "{output:?}");
    let (output, answer) = check(&["--quick"], "");
    assert_eq!((output.status.code(), answer["reachable_percent"].as_f64()), (Some(0), Some(100.0)), "{answer}");
}

const LINES: [(&str, &str); 7] = [
    ("fecha", "date"),
    ("ticket_id", "int"),
    ("linea", "int"),
    ("vendido_en", "datetime"),
    ("producto_id", "varchar(20)"),
    ("cantidad", "decimal(18,3)"),
    ("total", "decimal(18,2)"),
];

fn columns(named: &[(&str, &'static str)]) -> Vec<(String, Type)> {
    named.iter().map(|(name, kind)| ((*name).to_owned(), Type::of(kind))).collect()
}

fn row(values: &[&str]) -> Vec<Option<String>> {
    values.iter().map(|value| Some((*value).to_owned())).collect()
}

/// A sale on each day, asked by statements that were derived from a mapping.
fn sales(request: &Request) -> Reply {
    let days = request.asked_days();
    if request.sql.contains("COUNT(*)") {
        let named = [
            ("day", "date"),
            ("rows", "int"),
            ("cantidad", "decimal(38,3)"),
            ("total", "decimal(38,2)"),
            ("hash", "decimal(38,0)"),
        ];
        let rows: Vec<_> = days.iter().map(|day| row(&[day, "1", "2.000", "1.05", "-77"])).collect();
        return Reply::Tokens(tds::result(&columns(&named), &rows), rows.len());
    }
    let sale = |day: &String| row(&[day, &day[8..], "1", &format!("{day}T10:30:00.000"), "ñ", "2.000", "1.05"]);
    let rows: Vec<_> = days.iter().map(sale).collect();
    Reply::Tokens(tds::result(&columns(&LINES), &rows), rows.len())
}

/// Of a table whose name looks as if a parameter stood in it.
fn derived() -> String {
    LINES_MAPPING.replace("\"lineas\"", "\"dbo.[lineas:todas]\"")
}

#[test]
fn days_go_to_the_server_as_dates_that_no_language_reads_otherwise() {
    let responder = respond(true, sales);
    let (world, report) = extract_world(&(store(responder.port, "tienda", "off") + &derived()));
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    assert!(world.manifests()[0].units.iter().all(|unit| unit.is_proven()));
    let asked = responder.asked("BETWEEN");
    assert!(asked.len() >= 2, "{asked:?}");
    for request in &asked {
        assert!(request.sql.contains("lineas:todas") && request.sql.contains("BETWEEN @P1 AND @P2"), "{}", request.sql);
        assert_eq!(request.declared.replace(' ', ""), "@P1date,@P2date");
        // By their number; as text a Spanish login would read the 5th of August, or of September.
        let days: Vec<&Parameter> = request.parameters.iter().collect();
        assert!(
            matches!(days[..], [Parameter::Date(736_456 | 736_457), Parameter::Date(736_456 | 736_457)]),
            "{days:?}"
        );
    }
    // The settings of the session come before all else, and leave language and format as they are.
    let first = &responder.requests()[0].sql;
    assert!(
        first.starts_with("SET ANSI_NULLS ON") && !first.contains("LANGUAGE") && !first.contains("DATEFORMAT"),
        "{first}"
    );
}

#[test]
fn a_snapshot_is_taken_where_the_database_allows_it_and_all_is_read_within_it() {
    let responder = respond(true, sales);
    extract_world(&(store(responder.port, "tienda", "off") + &derived()));
    assert!(responder.asked("lineas").iter().all(|request| request.transaction == 0x1122_3344_5566_7788));
    assert_eq!(responder.asked("AS [rows]").len(), 1, "one audit is enough");
    assert_eq!(responder.asked("ISOLATION LEVEL SNAPSHOT").len(), 1);
    let without = respond(false, sales);
    let (world, report) = extract_world(&(store(without.port, "tienda", "off") + &derived()));
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    assert!(without.asked("lineas").iter().all(|request| request.transaction == 0));
    assert_eq!(without.asked("AS [rows]").len(), 5, "asked before and after the rows of each day");
    assert!(world.manifests()[0].units.iter().all(|unit| unit.is_proven()));
}

#[test]
fn nothing_is_asked_about_a_statement_within_the_snapshot_that_it_could_end() {
    let responder = respond(true, sales);
    let (_, report) = extract_world(&(store(responder.port, "tienda", "off") + &derived()));
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    let described = responder.asked("dm_exec_describe_first_result_set");
    assert!(described.len() >= 2, "{described:?}");
    assert!(described.iter().all(|request| request.transaction == 0), "{described:?}");
    // Where the till's login has it on, any error would end the transaction.
    assert!(responder.requests()[0].sql.contains("SET XACT_ABORT OFF"), "{:?}", responder.requests()[0]);
}

#[test]
fn a_snapshot_that_the_server_ended_is_noticed_and_counts_as_none() {
    // The server says so of the transaction, as of one that it rolled back, and begins no other.
    let responder = respond_all(true, |request| {
        if request.sql == "SELECT @@TRANCOUNT" {
            return Some(Reply::Tokens(tds::result(&columns(&[("", "int")]), &[row(&["0"])]), 1));
        }
        let is_of_days = request.sql.contains("lineas") && !request.sql.contains("AS c1");
        is_of_days.then(|| sales(request))
    });
    let (world, report) = extract_world(&(store(responder.port, "tienda", "off") + &derived()));
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    assert_eq!(
        responder.asked("AS [rows]").len(),
        5,
        "asked before and after the rows of each day, as without a snapshot"
    );
    assert!(world.manifests()[0].units.iter().all(|unit| unit.is_proven()));
}

#[test]
fn a_table_that_does_not_hold_still_without_snapshots_is_not_proven() {
    let asked = std::sync::atomic::AtomicU32::new(0);
    let responder = respond(false, move |request| {
        if !request.sql.contains("COUNT(*)") {
            return sales(request);
        }
        let sold = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string();
        let columns =
            columns(&[("day", "date"), ("rows", "int"), ("cantidad", "decimal(38,3)"), ("total", "decimal(38,2)")]);
        Reply::Tokens(tds::result(&columns, &[row(&["2017-05-09", &sold, "2.000", "1.05"])]), 1)
    });
    let (world, report) = extract_world(&(store(responder.port, "tienda", "off") + &derived()));
    assert_eq!(report.exit(), Exit::Unproven, "{:?}", report.problems);
    assert!(world.manifests()[0].units.iter().any(|unit| !unit.is_proven()));
}

#[test]
fn a_query_that_takes_too_long_is_ended_at_the_server_and_asked_in_halves() {
    let responder = respond(true, |request| {
        let slow = request.asked_days().len() > 1 && !request.sql.contains("COUNT(*)");
        match sales(request) {
            Reply::Tokens(tokens, _) if slow => Reply::Silence(tokens),
            quick => quick,
        }
    });
    let text = store(responder.port, "tienda", "off") + &derived();
    let text = text.replace("chunk_timeout_s = 20", "chunk_timeout_s = 1\nchunk_rows = 2\nchunk_rows_min = 1");
    let world = World::with_config(&text);
    let report =
        run(&world.start().unwrap(), RunMode::Backfill { days: days("2017-05-08", "2017-05-09"), force: false });
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    assert_eq!(responder.seen.lock().unwrap().attentions, 1, "the server was told");
    assert_eq!(world.manifests()[0].file.rows, 2);
    assert!(world.manifests()[0].units.iter().all(|unit| unit.is_proven()));
}

#[test]
fn a_server_that_never_answers_is_given_up_with_the_hint() {
    let responder = respond(true, |_| Reply::Silence(Vec::new()));
    let text =
        (store(responder.port, "tienda", "off") + &derived()).replace("chunk_timeout_s = 20", "chunk_timeout_s = 1");
    let world = World::with_config(&text);
    let report = extract(&world, "2017-05-09", "2017-05-09");
    assert_eq!(report.exit(), Exit::Source);
    assert!(report.problems[0].hint.as_ref().unwrap().contains("chunk_timeout_s"), "{:?}", report.problems);
    assert_eq!(responder.seen.lock().unwrap().attentions, 1);
}

#[test]
fn a_reader_that_is_sent_on_to_a_copy_of_the_database_goes_there() {
    let copy = respond(true, sales);
    let listener = respond(true, |_| Reply::Hangup);
    let (_, report) = extract_world(&(store(listener.port, &format!("lejos{}", copy.port), "off") + &derived()));
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    assert!(listener.seen.lock().unwrap().logins[0].readonly, "it says that it only reads");
    assert_eq!((listener.requests().len(), copy.asked("lineas").len()), (0, 4));
}

const TYPES: &str = r#"
name = "tipos"
version = 1
kind = "daily"
business_date = "d"
key = ["id"]
audit_sums = ["n"]
lookback_days = 3
titles = { es = "Tipos", en = "Types" }
column = [
    { name = "d", type = "date", nullable = false },
    { name = "id", type = "int64", nullable = false },
    { name = "n", type = "int64" },
]
"#;

#[test]
fn a_procedure_with_several_results_hands_over_the_rows_of_the_one_that_is_meant() {
    let responder = respond(true, |request| {
        let day = |id: &str| row(&["2017-05-09", id, "5"]);
        let rows = columns(&[("d", "date"), ("id", "int"), ("n", "bigint")]);
        let title = columns(&[("titulo", "sql_variant")]);
        let is_asked = request.asked_days().iter().any(|day| day == "2017-05-09");
        let of_day = |columns: &[(String, Type)], rows: &[Vec<Option<String>>]| {
            tds::result(columns, if is_asked { rows } else { &[] })
        };
        let (title, wanted) = if request.sql.contains("auditoria") {
            let columns = columns(&[("day", "date"), ("rows", "int"), ("n", "bigint")]);
            (tds::result(&title, &[row(&["7"])]), of_day(&columns, &[row(&["2017-05-09", "2", "10"])]))
        } else {
            (tds::result(&title, &[row(&["7"])]), of_day(&rows, &[day("1"), day("2")]))
        };
        let between = tds::done(tds::DONE_IN_PROC, tds::MORE | tds::COUNTED, 1);
        // An empty result and a statement that only counts.
        let tokens =
            [title, between.clone(), wanted, between.clone(), tds::result(&columns(&[("x", "int")]), &[]), between];
        Reply::Tokens(tokens.concat(), 0)
    });
    let mapping = "[adapter.caja.tipos]\nextract = \"EXEC ventas_diarias @desde = :from, @hasta = :to\"\naudit = \"EXEC auditoria :from, :to\"\n";
    for choice in ["", "result_set = 2\naudit_result_set = 2\n"] {
        let world = World::with_config(&(store(responder.port, "tienda", "off") + mapping + choice));
        block_on(control::publish_dataset(&world.objects, &DatasetDefinition::from_toml(TYPES).unwrap())).unwrap();
        let report = extract(&world, "2017-05-09", "2017-05-09");
        assert_eq!(report.exit(), Exit::Done, "{choice:?}: {:?}", report.problems);
        let manifest = world.manifests().remove(0);
        assert_eq!(manifest.file.rows, 2);
        assert!(manifest.units[0].is_proven());
    }
    assert_eq!(responder.asked("ventas_diarias")[0].sql, "EXEC ventas_diarias @desde = @P1, @hasta = @P2");
}

#[test]
fn text_of_a_collation_that_the_driver_cannot_read_is_refused_by_name() {
    let responder = respond_all(true, |request| {
        if !request.sql.contains("dm_exec_describe_first_result_set") {
            return None;
        }
        let [Parameter::Text(sql), Parameter::Text(declared)] = &request.parameters[..] else { return None };
        let found = sql.contains("producto").then(|| row(&["producto_id"]));
        assert!(found.is_none() || declared == "@P1 date, @P2 date", "{declared}");
        let rows: Vec<_> = found.into_iter().collect();
        Some(Reply::Tokens(tds::result(&columns(&[("name", "nvarchar(128)")]), &rows), rows.len()))
    });
    let (world, report) = extract_world(&(store(responder.port, "tienda", "off") + &derived()));
    let problem = &report.problems[0];
    assert_eq!((problem.kind, world.manifests().len()), ("config", 0), "{problem:?}");
    assert!(problem.message.contains("column producto_id") && problem.message.contains("nvarchar"), "{problem:?}");
}

#[test]
fn a_day_with_a_bad_value_spoils_only_itself_and_its_reason_is_told() {
    for snapshot in [true, false] {
        let responder = respond(snapshot, |request| match sales(request) {
            Reply::Tokens(..) if request.asked_days() == ["2017-05-09"] && !request.sql.contains("COUNT(*)") => {
                let bad = row(&["2017-05-09", "09", "1", "2017-05-09T10:30:00.000", "ñ", "2.000", "1.05"]);
                let named = LINES.map(|(name, kind)| (name, if name == "total" { "float" } else { kind }));
                Reply::Tokens(tds::result(&columns(&named), &[bad]), 1)
            }
            good => good,
        });
        let (world, report) = extract_world(&(store(responder.port, "tienda", "off") + &derived()));
        assert_eq!(report.exit(), Exit::Source);
        assert!(report.problems[0].message.contains("column total, row ticket_id"), "{:?}", report.problems);
        let manifests = world.manifests();
        assert_eq!(manifests.len(), 1, "the other day was sent");
        assert!(manifests[0].units[0].is_proven() && manifests[0].units[0].unit.to_string() == "2017-05-08");
    }
}
