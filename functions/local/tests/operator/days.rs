//! `ventas_days`: the store-days' rows and sums from the log must be those of the rows, whatever
//! became of the files.

use jiff::civil::date;
use serde_json::{Value, json};

use super::fixture::{Day, Lake, january, ventas};

const ROWS: &str = "SELECT store_id, month, fecha, count(*) AS rows, sum(cantidad) AS cantidad, sum(total) AS total \
                    FROM ventas GROUP BY ALL ORDER BY ALL";
const DAYS: &str = "SELECT store_id, month, fecha, rows, cantidad, total FROM ventas_days WHERE rows > 0 ORDER BY ALL";

/// The days, proven against the rows: cells, types and the note of what is missing behind them.
fn days(lake: &Lake, version: Option<u64>) -> Value {
    let version = version.map(|version| format!("--version={version}"));
    let ask = |sql: &str| {
        let words: Vec<&str> = ["sql"].into_iter().chain(version.as_deref()).chain([sql]).collect();
        let (answer, code) = lake.json(&words);
        assert_eq!(code, 0, "{answer}");
        answer
    };
    let (from_rows, from_log) = (ask(ROWS), ask(DAYS));
    for part in ["columns", "rows"] {
        assert_eq!(from_log[part], from_rows[part], "{part}");
    }
    for part in ["complete", "versions", "days", "gaps"] {
        assert_eq!(from_log["coverage"][0][part], from_rows["coverage"][0][part], "{part}");
    }
    from_log
}

fn version(lake: &Lake) -> u64 {
    lake.json(&["tables", "ventas"]).0["tables"][0]["version"].as_u64().unwrap()
}

#[test]
fn days_are_the_sums_of_the_rows_through_replaces_merges_and_time_travel() {
    let lake = Lake::new(&["s1", "s2"]);
    lake.batch("s1/ventas/000000-0000000001", &january(1, 20));
    lake.batch("s2/ventas/000000-0000000001", &january(4, 9));
    let first = version(&lake);
    let then = days(&lake, None);
    assert_eq!(then["row_count"], 26);
    assert_eq!(then["coverage"][0]["days"]["missing"], 11 + 25);

    // Part of a file is replaced, a day becomes empty, an older batch comes late.
    let again = [Day { extra: -2500, ..Day::new(date(2026, 1, 5), 7) }, Day::new(date(2026, 1, 6), 0)];
    lake.batch("s1/ventas/000000-0000000003", &again);
    let late = lake.upload(&ventas(), "s1/ventas/000000-0000000002", &january(5, 6), |file| file);
    assert!(matches!(late, ribera_core::ingest::Outcome::Superseded), "{late:?}");
    lake.batch("s2/ventas/000000-0000000002", &[Day { proven: false, ..january(10, 10)[0] }]);
    let now = days(&lake, None);
    assert_eq!(now["row_count"], 26);
    assert_eq!(
        lake.value("SELECT cantidad FROM ventas_days WHERE fecha = '2026-01-05' AND store_id = 's1'"),
        "-10.500"
    );
    assert_eq!(lake.value("SELECT rows FROM ventas_days WHERE fecha = '2026-01-06' AND store_id = 's1'"), 0);
    assert_eq!(days(&lake, Some(first))["rows"], then["rows"]);

    let (done, code) = lake.json(&["maintain"]);
    assert_eq!(code, 0, "{done}");
    assert_ne!(done["tables"][0]["rows_merged"], 0, "{done}");
    assert_eq!(days(&lake, None)["rows"], now["rows"]);
    assert_eq!(days(&lake, Some(first))["rows"], then["rows"]);
}

#[test]
fn days_need_no_data_file_and_filters_narrow_what_is_said_of_them() {
    let lake = Lake::new(&["s1", "s2"]);
    lake.batch("s1/ventas/000000-0000000001", &january(1, 31));
    lake.batch("s2/ventas/000000-0000000001", &[january(1, 9), january(13, 31)].concat());
    lake.remove_files_of("s1");
    let sql = "SELECT store_id, month, sum(rows) AS n, sum(total) AS total FROM ventas_days GROUP BY ALL ORDER BY ALL";
    let (answer, code) = lake.json(&["sql", "--require-complete", sql]);
    assert_eq!(code, 1, "three days are missing");
    assert_eq!(answer["coverage"][0]["days"]["missing"], 3);
    assert_eq!(
        answer["rows"],
        json!([
            {"store_id": "s1", "month": "2026-01", "n": 310, "total": "323.95"},
            {"store_id": "s2", "month": "2026-01", "n": 280, "total": "292.60"},
        ])
    );
    for (filter, missing, narrowed) in [
        ("store_id = 's1'", 0, true),
        ("fecha = '2026-01-10'", 1, true),
        ("store_id = 's2' AND fecha >= '2026-01-12'", 1, true),
        ("month = '2026-02'", 0, true),
        ("total + rows > 1", 3, false),
    ] {
        let (answer, _) = lake.json(&["sql", &format!("SELECT sum(total) FROM ventas_days WHERE {filter}")]);
        let behind = &answer["coverage"][0];
        assert_eq!((&behind["days"]["missing"], &behind["narrowed"]), (&json!(missing), &json!(narrowed)), "{filter}");
    }
    let joined = "SELECT sum(d.total) FROM ventas_days d JOIN ventas v USING (fecha) \
                  WHERE d.store_id = 's2' AND v.store_id = 's2' AND v.fecha < '2026-01-05' AND d.fecha < '2026-01-05'";
    assert_eq!(lake.json(&["sql", joined]).0["coverage"][0]["days"]["missing"], 0);
}

#[test]
fn days_are_right_when_a_measure_is_summed_only_since_a_later_version() {
    let lake = Lake::new(&["s1"]);
    lake.batch("s1/ventas/000000-0000000001", &[january(1, 3), vec![Day::new(date(2026, 1, 4), 0)]].concat());
    let mut wider = ventas();
    wider.version = 2;
    wider.audit_sums.push("precio_unitario".to_owned());
    lake.publish(&wider);
    lake.batch_of(&wider, "s1/ventas/000000-0000000002", &january(5, 6));
    let rows = "SELECT fecha, count(*) AS rows, sum(precio_unitario) AS p FROM ventas GROUP BY ALL ORDER BY ALL";
    let of_log = "SELECT fecha, rows, precio_unitario AS p FROM ventas_days WHERE rows > 0 ORDER BY ALL";
    let (expected, found) = (lake.json(&["sql", rows]).0, lake.json(&["sql", of_log]).0);
    assert_eq!((&found["rows"], &found["columns"]), (&expected["rows"], &expected["columns"]));
    assert_eq!(found["row_count"], 5);
    assert_eq!(lake.value("SELECT count(*) FROM ventas_days"), 6, "the empty day too, once");
    days(&lake, None);
}

#[test]
fn days_are_described_listed_and_exported() {
    let lake = Lake::new(&["s1"]);
    lake.batch("s1/ventas/000000-0000000001", &january(1, 3));
    let (tables, _) = lake.json(&["tables", "ventas"]);
    let of_days = &tables["tables"][0]["days"];
    assert_eq!(of_days["name"], "ventas_days");
    let columns: Vec<Value> =
        of_days["columns"].as_array().unwrap().iter().map(|column| json!([column["name"], column["type"]])).collect();
    assert_eq!(
        json!(columns),
        json!([
            ["store_id", "VARCHAR"],
            ["month", "VARCHAR"],
            ["fecha", "DATE"],
            ["rows", "BIGINT"],
            ["cantidad", "DECIMAL(38,3)"],
            ["total", "DECIMAL(38,2)"]
        ])
    );
    assert!(lake.text(&["tables", "ventas"]).0.contains("ventas_days"));
    assert_eq!(lake.json(&["tables", "productos"]).0["tables"][0]["days"], json!(null), "only daily facts have days");
    assert_eq!(lake.json(&["sql", "SELECT column_name FROM (DESCRIBE ventas_days)"]).0["row_count"], 6);

    let (answer, code) = lake.json(&["export", "duckdb", "out.duckdb"]);
    assert_eq!((code, &answer["tables"][1]), (0, &json!({"name": "ventas_days", "rows": 3})));
    let database = duckdb::Connection::open(lake.path("out.duckdb")).unwrap();
    let same: bool = database
        .query_row(
            "SELECT (SELECT sum(total) FROM ventas_days) = (SELECT sum(total) FROM ventas) \
             AND (SELECT sum(rows) FROM ventas_days) = (SELECT count(*) FROM ventas)",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert!(same);
}
