//! Both sides of the audit may be wrong in the same way: what would make them agree on a wrong
//! number, or on none, is refused by name. On every kind of database.

use ribera_agent::report::{Exit, Report};

use crate::each::{KINDS, Kind, Place};
use crate::fixture::{World, extract};

const DAY: &str = "2017-05-09";

const IMPORTES: &str = r#"
name = "importes"
version = 1
kind = "daily"
business_date = "fecha"
key = ["id"]
audit_sums = ["importe"]
lookback_days = 3
titles = { es = "Importes", en = "Amounts" }
column = [
    { name = "fecha", type = "date", nullable = false },
    { name = "id", type = "int64", nullable = false },
    { name = "importe", type = "decimal(18,2)", transforms = [TRANSFORMS] },
]
"#;

/// Rows of one column as `sql_type`, read as `importe` says.
fn read(kind: Kind, name: &str, sql_type: &str, values: &[&str], transforms: &str, importe: &str) -> (World, Report) {
    let place = Place::new(kind, name);
    let mapping = format!(
        "[adapter.caja.importes]\nfrom = \"importes\"\ndate = \"fecha\"\n[adapter.caja.importes.columns]\n\
         id = \"id\"\nimporte = {importe}\n"
    );
    let world = place.world_of(&IMPORTES.replace("TRANSFORMS", transforms), &mapping);
    place.create(&world, "importes", &format!("fecha DATE, id INTEGER, importe {sql_type}"));
    let inserts = values.iter().enumerate();
    let inserts = inserts.map(|(id, value)| format!("INSERT INTO importes VALUES ('{DAY}', {id}, {value})"));
    place.sql(&world, &inserts.collect::<Vec<_>>());
    let report = extract(&world, DAY, DAY);
    (world, report)
}

#[test]
fn a_decimal_comma_is_for_text_alone_and_a_number_keeps_its_point() {
    const PLAIN: &str = "\"importe\"";
    const ROUNDED: &str = "{ sql = \"importe\", round = 2 }";
    const COMMA: &str = "\"decimal_comma\"";
    const NUMBERS: [&str; 3] = ["12.50", "-0.05", "1234.56"];
    for kind in KINDS {
        for (case, transforms) in [("uno", COMMA), ("dos", "\"trim\", \"decimal_comma\"")] {
            let base = format!("coma_{case}");
            let texts = ["'1.234,50'", "' -0,05 '", "NULL", "'7'"];
            let (world, report) = read(kind, &format!("{base}_t"), "VARCHAR(20)", &texts, transforms, PLAIN);
            assert_eq!(report.exit(), Exit::Done, "{kind:?}: {:?}", report.problems);
            let facts = &world.manifests()[0].units[0];
            assert!(facts.is_proven(), "{kind:?}");
            assert_eq!(facts.file.sums["importe"].to_string(), "1241.45", "{kind:?}");

            let (world, report) = read(kind, &format!("{base}_n"), "NUMERIC(18,2)", &NUMBERS, transforms, PLAIN);
            assert_eq!(report.exit(), Exit::Source, "{kind:?}: a number without its point would be 1250");
            let told = &report.problems[0].message;
            for word in ["column importe", "decimal_comma", "round", "12.5"] {
                assert!(told.contains(word), "{kind:?}: {told:?} should name {word:?}");
            }
            assert!(world.manifests().is_empty(), "{kind:?}");

            let (world, report) = read(kind, &format!("{base}_r"), "NUMERIC(18,2)", &NUMBERS, transforms, ROUNDED);
            assert_eq!(report.exit(), Exit::Done, "{kind:?}: {:?}", report.problems);
            let facts = &world.manifests()[0].units[0];
            assert!(facts.is_proven(), "{kind:?}");
            assert_eq!(facts.file.sums["importe"].to_string(), "1247.01", "{kind:?}");
        }
    }
}

#[test]
fn blank_amounts_are_null_on_both_sides_where_the_dataset_says_so() {
    for kind in KINDS {
        let (world, report) = read(
            kind,
            "blancos",
            "VARCHAR(20)",
            &["'  '", "'2,50'", "''"],
            "\"blank_to_null\", \"decimal_comma\"",
            "\"importe\"",
        );
        assert_eq!(report.exit(), Exit::Done, "{kind:?}: {:?}", report.problems);
        let facts = &world.manifests()[0].units[0];
        assert!(facts.is_proven(), "{kind:?}");
        assert_eq!((facts.file.rows, facts.file.sums["importe"].to_string()), (3, "2.50".to_owned()), "{kind:?}");
    }
}

/// MySQL reads what is no number as 0, others as an error: neither may become a null that the audit agrees with.
#[test]
fn an_amount_that_cannot_be_read_is_never_null_on_both_sides() {
    for kind in KINDS {
        for (name, transforms) in [("ilegible_a", "\"decimal_comma\""), ("ilegible_b", "\"trim\"")] {
            let values = ["'2,50'", "'dos'", "NULL"];
            let (world, report) = read(kind, name, "VARCHAR(20)", &values, transforms, "\"importe\"");
            assert_eq!(report.exit(), Exit::Source, "{kind:?}: {:?}", report.problems);
            assert!(world.manifests().is_empty(), "{kind:?}: nothing was sent");
            let told = &report.problems[0].message;
            assert!(told.contains("importe"), "{kind:?}: {told:?}");
        }
    }
}

/// A correction and its counterpart on one day: count and sums stay as they were.
#[test]
fn changes_that_cancel_out_in_count_and_sums_are_found_by_the_hash_and_only_by_it() {
    for kind in KINDS {
        for (name, hash, found) in [("iguales", "", 1), ("iguales_b", "row_hash = false\n", 0)] {
            let place = Place::new(kind, name);
            let total = if kind == Kind::Sqlite { "{ sql = \"total\", round = 2 }" } else { "\"total\"" };
            let world = place.world(&format!(
                "[adapter.caja.ventas]\nfrom = \"lineas\"\ndate = \"fecha\"\n{hash}[adapter.caja.ventas.columns]\n\
                 ticket_id = \"ticket\"\nlinea = \"linea\"\nproducto_id = \"producto\"\ncantidad = \"cantidad\"\n\
                 total = {total}\n"
            ));
            if kind == Kind::Sqlite {
                world.sql("DROP TABLE lineas");
            }
            let columns = "ticket INTEGER, linea INTEGER, fecha DATE, producto VARCHAR(20), cantidad INTEGER,
                           total NUMERIC(18,2)";
            place.create(&world, "lineas", columns);
            let sale = |ticket: u32| format!("INSERT INTO lineas VALUES ({ticket}, 1, '{DAY}', 'p', 2, {ticket}.05)");
            place.sql(&world, &(1..6).map(sale).collect::<Vec<_>>());
            assert_eq!(extract(&world, DAY, DAY).exit(), Exit::Done, "{kind:?}");
            let planned = |change: &str, why: &str, wanted: usize| {
                place.sql(&world, &change.split("; ").map(str::to_owned).collect::<Vec<_>>());
                let report = extract(&world, DAY, DAY);
                assert_eq!(report.exit(), Exit::Done, "{kind:?} {why}: {:?}", report.problems);
                assert_eq!(report.datasets[0].planned.len(), wanted, "{kind:?}: {why}");
                assert_eq!(extract(&world, DAY, DAY).datasets[0].planned.len(), 0, "{kind:?}: {why}, once");
            };
            planned(
                "UPDATE lineas SET total = total + 1 WHERE ticket = 1; UPDATE lineas SET total = total - 1 WHERE ticket = 2",
                "two corrections",
                found,
            );
            planned(
                "DELETE FROM lineas WHERE ticket = 3; INSERT INTO lineas VALUES (9, 1, '2017-05-09', 'p', 2, 3.05)",
                "a void and a late sale of the same amount",
                found,
            );
            planned("UPDATE lineas SET producto = 'q' WHERE ticket = 4", "another product", found);
            // What does not cancel out is found either way.
            planned("INSERT INTO lineas VALUES (10, 1, '2017-05-09', 'p', -1, -2.05)", "a return", 1);
        }
    }
}
