//! `ribera sql`.

use serde_json::json;

use super::fixture::{Day, Lake, january, ventas};

#[test]
fn an_answer_says_which_store_days_behind_it_are_missing_and_filters_narrow_them() {
    let lake = Lake::new(&["s1", "s2"]);
    lake.batch("s1/ventas/000000-0000000001", &january(1, 31));
    let with_gap = [january(1, 9), january(13, 31)].concat();
    lake.batch("s2/ventas/000000-0000000001", &with_gap);

    let (answer, code) = lake.json(&["sql", "SELECT sum(cantidad) AS units, count(*) AS n FROM ventas_raw"]);
    assert_eq!(code, 0);
    assert_eq!(answer["rows"], json!([{"units": "590.000", "n": 590}]));
    let behind = &answer["coverage"][0];
    assert_eq!((&behind["complete"], &behind["narrowed"]), (&json!(false), &json!(false)));
    assert_eq!(behind["days"]["complete"], 59);
    assert_eq!(behind["gaps"].as_array().unwrap().len(), 1);
    assert_eq!(
        (
            &behind["gaps"][0]["store"],
            &behind["gaps"][0]["from"],
            &behind["gaps"][0]["to"],
            &behind["gaps"][0]["missing"]
        ),
        (&json!("s2"), &json!("2026-01-10"), &json!("2026-01-12"), &json!(3))
    );

    let complete = [
        "SELECT sum(total) FROM ventas WHERE store_id = 's1'",
        "SELECT sum(total) FROM ventas WHERE ubicacion_id = 's2' AND fecha >= '2026-01-13'",
        "SELECT sum(total) FROM ventas WHERE fecha IN ('2026-01-09', '2026-01-13', '2026-01-20')",
    ];
    for sql in complete {
        let (answer, code) = lake.json(&["sql", "--require-complete", sql]);
        assert_eq!((code, &answer["coverage"][0]["complete"]), (0, &json!(true)), "{sql}");
        assert_eq!(answer["coverage"][0]["narrowed"], json!(true), "{sql}");
    }
    let incomplete = [
        ("SELECT sum(total) FROM ventas WHERE store_id = 's2'", 3),
        ("SELECT sum(total) FROM ventas WHERE fecha = '2026-01-10'", 1),
        ("SELECT sum(total) FROM ventas WHERE store_id <> 's1' OR fecha = '2026-01-12'", 3),
    ];
    for (sql, missing) in incomplete {
        let (answer, code) = lake.json(&["sql", "--require-complete", sql]);
        assert_eq!((code, &answer["coverage"][0]["days"]["missing"]), (1, &json!(missing)), "{sql}");
    }
    assert_eq!(lake.json(&["sql", "SELECT 1 AS one"]).0["coverage"], json!([]));
}

#[test]
fn people_get_a_table_and_the_gaps_with_the_command_that_recovers_them() {
    let lake = Lake::new(&["s1"]);
    lake.batch("s1/ventas/000000-0000000001", &january(1, 28));
    let (text, code) = lake.text(&["sql", "SELECT store_id, count(*) AS n FROM ventas GROUP BY 1"]);
    assert_eq!(code, 0);
    for words in ["s1", "280", "3 missing", "2026-01-29..2026-01-31", "ribera recover --dataset ventas"] {
        assert!(text.contains(words), "{words} in {text}");
    }
    let (spanish, _) = lake.text(&["--lang", "es", "sql", "SELECT count(*) FROM ventas WHERE fecha < '2026-01-29'"]);
    assert!(spanish.contains("completos los 28 días-tienda"), "{spanish}");

    let output = lake.run(&["sql", "--csv", "SELECT fecha, producto_id, total FROM ventas ORDER BY ALL LIMIT 2"]);
    let csv = String::from_utf8(output.stdout).unwrap();
    assert_eq!(csv, "fecha,producto_id,total\n2026-01-01,product 0,1.00\n2026-01-01,product 0,1.03\n");
    assert!(String::from_utf8(output.stderr).unwrap().contains("3 missing"));
}

#[test]
fn an_older_version_is_read_as_it_was() {
    let lake = Lake::new(&["s1"]);
    lake.batch("s1/ventas/000000-0000000001", &january(1, 3));
    let version = lake.json(&["tables", "ventas"]).0["tables"][0]["version"].as_u64().unwrap().to_string();
    let again = [Day { extra: 500, ..january(2, 2)[0] }];
    lake.batch("s1/ventas/000000-0000000002", &again);
    let sql = "SELECT sum(cantidad) AS units FROM ventas";
    assert_eq!(lake.value(sql), "35.000");
    let (old, _) = lake.json(&["sql", "--version", &version, sql]);
    assert_eq!(old["rows"][0]["units"], "30.000");
    assert_eq!(old["coverage"][0]["versions"]["ventas"].to_string(), version);
    let (text, code) = lake.text(&["sql", "--version", "99", sql]);
    assert_eq!(code, 2, "{text}");
}

#[test]
fn rows_from_before_a_column_was_added_read_it_as_null() {
    let lake = Lake::new(&["s1"]);
    lake.batch("s1/ventas/000000-0000000001", &january(1, 2));
    let mut wider = ventas();
    wider.version = 2;
    let mut column = wider.column("cliente_id").unwrap().clone();
    column.name = "caja".into();
    wider.columns.push(column);
    lake.publish(&wider);
    lake.batch_of(&wider, "s1/ventas/000000-0000000002", &january(3, 4));
    let (answer, _) =
        lake.json(&["sql", "SELECT count(*) AS n, count(caja) AS with_it, min(caja) AS least FROM ventas"]);
    assert_eq!(answer["rows"], json!([{"n": 40, "with_it": 20, "least": "caja 0"}]));
}

#[test]
fn the_stores_local_time_stands_beside_utc() {
    let lake = Lake::new(&["s1"]);
    lake.batch("s1/ventas/000000-0000000001", &january(1, 1));
    let (answer, _) =
        lake.json(&["sql", "SELECT DISTINCT vendido_en, vendido_en_local, hour(vendido_en_local) AS h FROM ventas"]);
    assert_eq!(
        answer["rows"],
        json!([{"vendido_en": "2026-01-01T17:00:00Z", "vendido_en_local": "2026-01-01T12:00:00", "h": 12}])
    );
}

#[test]
fn nothing_is_written_and_no_byte_of_a_store_is_opened() {
    let lake = Lake::new(&["s1"]);
    lake.batch("s1/ventas/000000-0000000001", &january(1, 1));
    let landing = lake.files("landing").remove(0);
    for sql in [
        "DELETE FROM ventas".to_owned(),
        "COPY ventas TO 'x.csv'".to_owned(),
        "ATTACH 'x.db'".to_owned(),
        "SET threads = 1".to_owned(),
        format!("SELECT * FROM '{}'", landing.display()),
        format!("SELECT * FROM read_parquet('{}')", landing.display()),
        "SELECT * FROM read_text('/etc/hostname')".to_owned(),
    ] {
        let (text, code) = lake.text(&["sql", &sql]);
        assert_eq!(code, 2, "{sql}: {text}");
    }
    assert!(lake.files("lake").iter().all(|path| !path.ends_with("x.csv")));
}
