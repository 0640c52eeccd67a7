//! Lakes in which the log record of one store's file cannot be trusted: the other stores go on, and
//! every command names the file.

use serde_json::{Value, json};

use super::fixture::{Lake, january};

/// What happened to the record of `s1`, and the finding that names it.
type Damage = (fn(&str) -> String, &'static str);

const DAMAGES: [Damage; 6] = [
    (|line| cut_tag(line, "|x"), "units_unreadable"),
    (|line| cut_tag(line, "cantidad,z|@s1|2026-01-05;0;99,total|2026-01-05;0;1;c=;0;5;1;1"), "units_unreadable"),
    (|line| cut_tag(line, ""), "foreign_file"),
    (|line| line.replace("\"tags\":{", "\"tagz\":{"), "foreign_file"),
    (|line| line.replace("\"ribera.units\":", "\"other.units\":"), "foreign_file"),
    (|line| line.replace("\"stats\":\"{", "\"stats\":\"["), "statistics_unreadable"),
];

/// The line with another text in its units tag.
fn cut_tag(line: &str, text: &str) -> String {
    let begin = line.find("\"ribera.units\":\"").unwrap() + "\"ribera.units\":\"".len();
    let end = begin + line[begin..].find('"').unwrap();
    format!("{}{text}{}", &line[..begin], &line[end..])
}

fn damaged(damage: fn(&str) -> String) -> Lake {
    let lake = Lake::new(&["s1", "s2"]);
    lake.batch("s1/ventas/000000-0000000001", &january(1, 5));
    lake.batch("s2/ventas/000000-0000000001", &january(1, 31));
    lake.edit_log("s1", damage);
    lake
}

#[test]
fn sql_answers_with_all_rows_and_names_the_doubtful_file() {
    let by_store = json!([{"store_id": "s1", "n": 50, "t": "52.25"}, {"store_id": "s2", "n": 310, "t": "323.95"}]);
    for (damage, kind) in DAMAGES {
        let lake = damaged(damage);
        for sql in [
            "SELECT store_id, count(*) AS n, sum(total) AS t FROM ventas GROUP BY ALL ORDER BY ALL",
            "SELECT store_id, count(*) AS n, sum(total) AS t FROM ventas WHERE fecha >= '2026-01-01' GROUP BY ALL ORDER BY ALL",
            "SELECT store_id, sum(rows) AS n, sum(total) AS t FROM ventas_days GROUP BY ALL ORDER BY ALL",
        ] {
            let (answer, code) = lake.json(&["sql", "--require-complete", sql]);
            assert_eq!((code, &answer["rows"]), (1, &by_store), "{kind}: {sql}");
            let behind = &answer["coverage"][0];
            assert_eq!((&behind["complete"], &behind["doubtful"][0]["store"]), (&json!(false), &json!("s1")), "{kind}");
            assert_eq!(
                (&behind["doubtful"][0]["doubt"], &behind["doubtful"][1]),
                (&json!(kind), &Value::Null),
                "{kind}"
            );
        }
        let (text, _) = lake.text(&["sql", "SELECT count(*) FROM ventas"]);
        for words in ["360", "Doubtful files of ventas", "  s1  month=2026-01/", "ribera verify --dataset ventas"] {
            assert!(text.contains(words), "{kind}: {words} in {text}");
        }
    }
}

#[test]
fn an_answer_about_another_store_is_free_of_the_doubt() {
    for (damage, kind) in DAMAGES {
        let lake = damaged(damage);
        let (answer, _) = lake.json(&["sql", "SELECT count(*) AS n FROM ventas WHERE store_id = 's2'"]);
        let behind = &answer["coverage"][0];
        assert_eq!((&answer["rows"][0]["n"], &behind["doubtful"]), (&json!(310), &json!([])), "{kind}");
    }
}

#[test]
fn a_file_that_is_gone_fails_the_answers_that_need_it_and_no_other() {
    let lake = Lake::new(&["s1", "s2"]);
    lake.batch("s1/ventas/000000-0000000001", &january(1, 5));
    lake.batch("s2/ventas/000000-0000000001", &january(1, 31));
    lake.remove_files_of("s1");
    for filter in ["store_id = 's2'", "ubicacion_id = 's2'", "store_id > 's1' AND fecha < '2027-01-01'"] {
        let (answer, code) = lake.json(&["sql", &format!("SELECT count(*) AS n FROM ventas WHERE {filter}")]);
        assert_eq!((code, &answer["rows"][0]["n"]), (0, &json!(310)), "{filter}");
    }
    for sql in [
        "SELECT count(*) FROM ventas",
        "SELECT sum(total) FROM ventas WHERE store_id = 's1'",
        "SELECT sum(total) FROM ventas WHERE fecha = '2026-01-02'",
        "SELECT count(*) FROM ventas WHERE cliente_id IS NOT NULL",
        "SELECT max(total) FROM ventas WHERE total > 1",
    ] {
        let (text, code) = lake.text(&["sql", sql]);
        assert!(code == 2 && text.contains("-s1.parquet") && text.contains("ribera verify"), "{sql}: {text}");
    }
    assert_eq!(lake.value("SELECT sum(rows) FROM ventas_days"), 360);
}

#[test]
fn verify_names_the_file_and_proves_the_others() {
    for (damage, kind) in DAMAGES {
        let lake = damaged(damage);
        let (report, code) = lake.json(&["verify"]);
        let table = &report["tables"][0];
        assert_eq!((code, &table["files"], &table["rows"]), (1, &json!(2), &json!(360)), "{kind}: {report}");
        let findings = table["findings"].as_array().unwrap();
        assert_eq!(findings.len(), 1, "{kind}: {report}");
        assert_eq!(findings[0]["kind"], kind, "{report}");
        assert!(findings[0]["path"].as_str().unwrap().contains("-s1.parquet"), "{report}");
        let (text, _) = lake.text(&["verify"]);
        assert_eq!(text.contains("ribera repair ventas"), kind == "foreign_file", "{text}");
    }
}

#[test]
fn verify_goes_on_behind_a_file_of_which_the_log_says_nothing_right() {
    let damages: [Damage; 3] = [
        (|line| line.replace("\"month\":\"2026-01\"", "\"month\":null"), "partition_unreadable"),
        (|line| line.replace("\"path\":\"month=", "\"path\":\"../month="), "path_unreadable"),
        (|line| line.replace("\"size\":", "\"size\":9"), "size_differs"),
    ];
    for (damage, kind) in damages {
        let (report, code) = damaged(damage).json(&["verify"]);
        let findings = report["tables"][0]["findings"].as_array().unwrap();
        assert!(code == 1 && findings.iter().any(|one| one["kind"] == kind), "{kind}: {report}");
        assert!(findings.iter().all(|one| !one["path"].as_str().unwrap().contains("s2")), "{kind}: {report}");
    }
}

#[test]
fn export_and_tables_go_on_and_name_the_file() {
    for (damage, kind) in DAMAGES {
        let lake = damaged(damage);
        let (answer, code) = lake.json(&["export", "duckdb", "out.duckdb"]);
        assert_eq!((code, &answer["tables"][0]["rows"]), (0, &json!(360)), "{kind}: {answer}");
        assert_eq!((&answer["doubtful"][0]["store"], &answer["doubtful"][0]["doubt"]), (&json!("s1"), &json!(kind)));
        let database = duckdb::Connection::open(lake.path("out.duckdb")).unwrap();
        let found: String = database
            .query_row("SELECT concat_ws(' ', dataset, store_id, doubt) FROM ribera_doubtful_files", [], |row| {
                row.get(0)
            })
            .unwrap();
        assert_eq!(found, format!("ventas s1 {kind}"));
        let same: bool = database
            .query_row("SELECT (SELECT sum(total) FROM ventas_days) = (SELECT sum(total) FROM ventas)", [], |row| {
                row.get(0)
            })
            .unwrap();
        assert!(same, "{kind}");
        let (tables, code) = lake.json(&["tables"]);
        let line = tables["tables"].as_array().unwrap().iter().find(|line| line["table"] == "ventas").unwrap();
        assert_eq!((code, &line["doubtful"][0]["doubt"]), (0, &json!(kind)), "{kind}");
        assert!(lake.text(&["tables"]).0.contains("ribera verify"), "{kind}");
    }
}
