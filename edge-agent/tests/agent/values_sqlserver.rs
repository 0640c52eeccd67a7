//! What SQL Server refuses: its words say the value, the agent finds the row.

use ribera_agent::report::{Exit, Report};

use crate::fixture::{World, extract};
use crate::tds::{self, Type};
use crate::tds_responder::{Reply, Request, respond};

const DAY: &str = "2017-05-09";

fn columns(columns: &[(&str, &'static str)]) -> Vec<(String, Type)> {
    columns.iter().map(|(name, kind)| ((*name).to_owned(), Type::of(kind))).collect()
}

fn row(values: &[&str]) -> Vec<Option<String>> {
    values.iter().map(|value| Some((*value).to_owned())).collect()
}

fn failed(number: u32, words: &str) -> Vec<u8> {
    [tds::error(number, 16, words), tds::done(tds::DONE, tds::FAILED, 0)].concat()
}

/// Rows of `lineas` with totals as the till keeps them.
fn rows(kind: &'static str, totals: &[&str]) -> Reply {
    let columns = columns(&[
        ("fecha", "date"),
        ("ticket_id", "int"),
        ("linea", "int"),
        ("producto_id", "nvarchar(20)"),
        ("cantidad", "int"),
        ("total", kind),
    ]);
    let each = totals.iter().enumerate();
    let rows: Vec<_> = each.map(|(ticket, total)| row(&[DAY, &ticket.to_string(), "1", "p", "1", total])).collect();
    Reply::Tokens(tds::result(&columns, &rows), rows.len())
}

fn audit(rows: &str, total: &str) -> Reply {
    let columns =
        columns(&[("day", "date"), ("rows", "int"), ("cantidad", "decimal(38,3)"), ("total", "decimal(38,2)")]);
    Reply::Tokens(tds::result(&columns, &[row(&[DAY, rows, &format!("{rows}.000"), total])]), 1)
}

fn read(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> (World, Report) {
    let responder = respond(true, script);
    let mapping = crate::servers::LINES_MAPPING
        .replace("date = \"fecha\"", "date = \"fecha\"\nrow_hash = false")
        .replace("vendido_en = \"momento\"\n", "")
        .replace("\"total\"", "{ sql = \"total\", round = 2 }");
    let world = World::with_config(&(crate::sqlserver::store(responder.port, "tienda", "off") + &mapping));
    let report = extract(&world, DAY, DAY);
    (world, report)
}

fn is_audit(request: &Request) -> bool {
    request.sql.contains("COUNT(*)")
}

fn is_rounded(request: &Request) -> bool {
    request.sql.contains("CAST((total) AS DECIMAL(38,2))")
}

#[test]
fn a_text_that_sql_server_cannot_round_is_named_with_its_row() {
    const WORDS: &str = "Error converting data type varchar to numeric.";
    for (totals, value) in [(["10.25", "12,50"], "12,50"), (["10.25", "N/A"], "N/A"), (["10.25", ""], "")] {
        // The audit refuses, or it is the rows.
        for audits in [false, true] {
            let (world, report) = read(move |request| match (is_audit(request), is_rounded(request)) {
                (true, _) if audits => audit("2", "22.75"),
                (_, true) => Reply::Whole(failed(8114, WORDS)),
                _ => rows("varchar(20)", &totals),
            });
            assert_eq!(report.exit(), Exit::Source);
            assert!(world.manifests().is_empty());
            let told = &report.problems[0].message;
            for word in ["dataset ventas", "column total", "ticket_id = \"1\"", "linea = 1", &format!("{value:?}")] {
                assert!(told.contains(word), "{told:?} should name {word:?}");
            }
        }
    }
    // Where the rows show none, the server's words stand.
    let (_, report) = read(|request| match is_rounded(request) {
        true => Reply::Whole(failed(8114, WORDS)),
        false => rows("varchar(20)", &["10.25"]),
    });
    assert!(report.problems[0].message.contains(WORDS), "{:?}", report.problems);
}

#[test]
fn an_overflow_in_the_middle_of_the_rows_is_not_told_as_one_of_letters() {
    for (number, words) in [(8115, "Arithmetic overflow error"), (8134, "Divide by zero error encountered")] {
        let (_, report) = read(move |request| match is_audit(request) {
            true => audit("1", "10.25"),
            false => match rows("decimal(38,2)", &["10.25"]) {
                Reply::Tokens(tokens, _) => Reply::Whole([tokens, failed(number, words)].concat()),
                other => other,
            },
        });
        assert_eq!((report.exit(), report.problems[0].kind), (Exit::Source, "data"), "{:?}", report.problems);
        let told = &report.problems[0].message;
        assert!(told.contains(words) && !told.contains("character set"), "{told}");
    }
}
