//! Names that are allowed are answered rightly, wherever the lake lies; the others are refused. The
//! rows that were put are the oracle.

use duckdb::Connection;
use ribera_storage::dataset::{Column, ColumnType, DatasetDefinition};
use serde_json::{Value, json};

use super::fixture::{Day, Lake, january, value, ventas};

/// Folders above the lake. DuckDB reads some of these as partitions, some as patterns.
const FOLDERS: [&str; 24] = [
    "fecha=2020-01-01",
    "month=1999-12",
    "store_id=other/month=2026-01",
    "total=7/ubicacion_id=s2",
    "year=x",
    "a=b=c",
    "with 'quotes'",
    "\"double\"",
    "with blanks ",
    "*",
    "**",
    "s*re",
    "what?",
    "[abc]",
    "[!x]",
    "[",
    "]",
    "{a,b}",
    "{",
    "50%",
    "%41%2F",
    "ñandú 日本 🦙",
    "back\\slash",
    "line\nbreak",
];

/// Names of columns that DuckDB's readers add or treat in their own way, SQL's words, and names that
/// Ribera itself uses.
const COLUMNS: [&str; 34] = [
    "filename",
    "file_row_number",
    "file_index",
    "file",
    "file_path",
    "rows",
    "row_count",
    "day",
    "days",
    "date",
    "rowid",
    "row_number",
    "columns",
    "select",
    "from",
    "group",
    "order",
    "table",
    "null",
    "true",
    "case",
    "values",
    "all",
    "not",
    "optional",
    "year_",
    "months",
    "store",
    "lake_file",
    "ventas",
    "unit",
    "part",
    "hash",
    "exclude",
];

/// Names of datasets: words of SQL, DuckDB's catalogue, names close to those that others derive.
const DATASETS: [&str; 29] = [
    "select",
    "order",
    "table",
    "values",
    "left",
    "main",
    "memory",
    "temp",
    "system",
    "information_schema",
    "pg_catalog",
    "sqlite_master",
    "duckdb_tables",
    "duckdb_columns",
    "pragma_user_agent",
    "lake_export",
    "2024",
    "_x",
    "__x",
    "x_raw",
    "ventas_day",
    "days",
    "file",
    "rows",
    "rowid",
    "fecha",
    "store_id",
    "month",
    "ribera",
];

fn named(name: &str) -> DatasetDefinition {
    let mut dataset = ventas();
    dataset.name = name.parse().unwrap();
    dataset
}

fn column(name: &str, column_type: ColumnType, nullable: bool) -> Column {
    Column {
        name: name.to_owned(),
        column_type,
        nullable,
        es: format!("{name} es"),
        en: format!("{name} en"),
        transforms: Vec::new(),
    }
}

/// Two stores, two months; the rows that were put by store and day.
struct Put {
    batches: Vec<(&'static str, Vec<Day>)>,
}

fn february(from: i8, to: i8) -> Vec<Day> {
    (from..=to).map(|day| Day::new(jiff::civil::date(2026, 2, day), 3)).collect()
}

impl Put {
    fn into(lake: &Lake, dataset: &DatasetDefinition) -> Self {
        let batches = vec![("s1", january(1, 4)), ("s2", january(3, 5)), ("s1", february(1, 2))];
        for (number, (store, days)) in batches.iter().enumerate() {
            lake.batch_of(dataset, &format!("{store}/{}/000000-{:010}", dataset.name, number + 1), days);
        }
        Self { batches }
    }

    /// Rows and, in hundredths, the sum of `measure` (a decimal of scale 2) by store, month and day.
    fn by_day(&self, measure: &str) -> Vec<Value> {
        let mut rows: Vec<(String, String, i32, i128)> = Vec::new();
        for (store, days) in &self.batches {
            for day in days {
                let sum = (0..day.rows).map(|row| value(measure, day, row)).sum();
                rows.push(((*store).to_owned(), day.date.to_string(), day.rows, sum));
            }
        }
        rows.sort();
        let text = |sum: i128| format!("{}.{:02}", sum / 100, sum % 100);
        rows.into_iter().map(|(s, d, n, t)| json!({"s": s, "m": &d[..7], "d": d, "n": n, "t": text(t)})).collect()
    }

    fn rows(&self) -> i32 {
        self.batches.iter().flat_map(|(_, days)| days).map(|day| day.rows).sum()
    }
}

/// Rows and days of `dataset`, as `sql` answers, are those that were put.
fn check_sql(lake: &Lake, dataset: &DatasetDefinition, put: &Put, measure: &str, context: &str) {
    let (name, date) = (&dataset.name, dataset.business_date.as_ref().unwrap());
    let expected = put.by_day(measure);
    let rows = format!(
        "SELECT store_id s, month m, \"{date}\" d, count(*) n, sum(\"{measure}\") t FROM \"{name}\" GROUP BY ALL ORDER BY s, d"
    );
    let counted = ["rows", "row_count", "row_count_2"];
    let taken = |name: &&str| dataset.audit_sums.iter().any(|sum| sum == name) || date == name;
    let count = counted.iter().find(|name| !taken(name)).unwrap();
    let days = format!(
        "SELECT store_id s, month m, \"{date}\" d, \"{count}\" n, \"{measure}\" t FROM \"{name}_days\" ORDER BY s, d"
    );
    for sql in [rows, days] {
        let (answer, code) = lake.json(&["sql", &sql]);
        assert_eq!(code, 0, "{context}: {answer}");
        assert_eq!(answer["rows"], json!(expected), "{context}: {sql}");
    }
    let store = dataset.store_column.as_ref().unwrap();
    let filters = [
        "store_id = 's1' AND month = '2026-02'".to_owned(),
        format!("\"{store}\" = 's1' AND \"{date}\" >= '2026-01-31'"),
        format!("\"{date}\" BETWEEN '2026-02-01' AND '2026-02-02'"),
        format!("\"{date}\" IN ('2026-02-01', '2026-02-02')"),
        format!("date_trunc('month', \"{date}\") = '2026-02-01'"),
    ];
    assert_eq!(counts(lake, name.as_str(), &filters), vec![6; 5], "{context}: {filters:?}");
}

/// The rows that each filter leaves, in one query.
fn counts(lake: &Lake, table: &str, filters: &[String]) -> Vec<i64> {
    let one =
        |(number, filter): (usize, &String)| format!("SELECT {number} i, count(*) n FROM \"{table}\" WHERE {filter}");
    let all: Vec<String> = filters.iter().enumerate().map(one).collect();
    let (answer, code) = lake.json(&["sql", &format!("{} ORDER BY i", all.join(" UNION ALL "))]);
    assert_eq!(code, 0, "{answer}");
    answer["rows"].as_array().unwrap().iter().map(|row| row["n"].as_i64().unwrap()).collect()
}

/// `verify` finds nothing, `export` has the rows.
fn check_files(lake: &Lake, context: &str) -> Connection {
    let (report, code) = lake.json(&["verify"]);
    assert_eq!((code, &report["sound"]), (0, &json!(true)), "{context}: {report}");
    let (answer, code) = lake.json(&["export", "duckdb", "out.duckdb"]);
    assert_eq!(code, 0, "{context}: {answer}");
    Connection::open(lake.path("out.duckdb")).unwrap()
}

fn count(database: &Connection, table: &str) -> i32 {
    database.query_row(&format!("SELECT count(*)::INT FROM \"{table}\""), [], |row| row.get(0)).unwrap()
}

#[test]
fn the_folders_above_the_lake_have_no_say() {
    for folder in FOLDERS {
        let lake = Lake::below(folder, &["s1", "s2"]);
        // What a pattern would match too.
        for other in ["sure", "whats", "a", "x"] {
            let other = lake.path(other).join("store");
            std::fs::create_dir_all(other.join("lake/ventas/month=2026-01")).unwrap();
        }
        let put = Put::into(&lake, &ventas());
        check_sql(&lake, &ventas(), &put, "total", folder);
        let database = check_files(&lake, folder);
        assert_eq!((count(&database, "ventas"), count(&database, "ventas_days")), (put.rows(), 9), "{folder}");
        let (tables, _) = lake.json(&["tables", "ventas"]);
        assert_eq!(tables["tables"][0]["rows"], put.rows(), "{folder}");
    }
}

#[test]
fn a_lake_that_was_moved_below_a_folder_of_another_date_answers_as_before() {
    let mut lake = Lake::new(&["s1", "s2"]);
    let put = Put::into(&lake, &ventas());
    lake.move_below("fecha=2020-01-01/month=2020-01/store_id=s9");
    check_sql(&lake, &ventas(), &put, "total", "moved");
    check_files(&lake, "moved");
}

#[test]
fn a_column_of_any_allowed_name_keeps_its_values() {
    let lake = Lake::below("filename=x/rows=1", &["s1", "s2"]);
    let mut texts = named("textos");
    texts.columns.extend(COLUMNS.map(|name| column(name, ColumnType::Text, true)));
    let mut sums = named("sumas");
    sums.columns.extend(COLUMNS.map(|name| column(name, ColumnType::Decimal { precision: 18, scale: 2 }, false)));
    sums.audit_sums.extend(COLUMNS.map(str::to_owned));
    lake.publish(&texts);
    lake.publish(&sums);
    let (of_texts, of_sums) = (Put::into(&lake, &texts), Put::into(&lake, &sums));
    check_sql(&lake, &texts, &of_texts, "total", "texts");
    for name in COLUMNS {
        check_sql(&lake, &sums, &of_sums, name, name);
    }
    let filters = COLUMNS.map(|name| format!("\"{name}\" IN ('{name} 2', 'no') OR \"{name}\" LIKE '{name} 3%'"));
    // Nine days; seven of them have ten rows, two have three.
    assert_eq!(counts(&lake, "textos", &filters), vec![9 + 7; COLUMNS.len()]);
    let narrow = COLUMNS.map(|name| format!("\"{name}\" = '{name} 1'"));
    assert_eq!(counts(&lake, "textos", &narrow), vec![9; COLUMNS.len()], "one row of each day");
    let database = check_files(&lake, "columns");
    assert_eq!((count(&database, "textos"), count(&database, "sumas_days")), (of_texts.rows(), 9));
}

#[test]
fn a_column_of_any_allowed_name_may_be_date_store_or_moment() {
    let lake = Lake::new(&["s1", "s2"]);
    let mut of_each = Vec::new();
    for (number, name) in COLUMNS.into_iter().enumerate() {
        let renamed = ["fecha", "ubicacion_id", "vendido_en", "total"][number % 4];
        let mut dataset = named(&format!("d{number}"));
        let rename = |text: &mut String| {
            if text == renamed {
                name.clone_into(text);
            }
        };
        dataset.columns.iter_mut().for_each(|column| rename(&mut column.name));
        dataset
            .business_date
            .iter_mut()
            .chain(&mut dataset.store_column)
            .chain(&mut dataset.audit_sums)
            .for_each(rename);
        lake.publish(&dataset);
        let put = Put::into(&lake, &dataset);
        let measure = if renamed == "total" { name } else { "total" };
        check_sql(&lake, &dataset, &put, measure, &format!("{renamed} as {name}"));
        let moment = if renamed == "vendido_en" { name } else { "vendido_en" };
        let sql = format!("SELECT DISTINCT hour(\"{moment}_local\") h FROM {}", dataset.name);
        assert_eq!(lake.json(&["sql", &sql]).0["rows"], json!([{"h": 12}]), "{name}");
        of_each.push((dataset, put));
    }
    let database = check_files(&lake, "roles");
    for (dataset, put) in of_each {
        assert_eq!(count(&database, dataset.name.as_str()), put.rows(), "{}", dataset.name);
    }
}

#[test]
fn a_dataset_of_any_allowed_name_is_answered_beside_all_others() {
    let lake = Lake::new(&["s1", "s2"]);
    let mut put = Vec::new();
    for name in DATASETS {
        std::fs::write(lake.path("d.toml"), named(name).to_toml().unwrap()).unwrap();
        let (text, code) = lake.text(&["dataset", "check", "d.toml"]);
        assert_eq!(code, 0, "{name}: {text}");
        let (text, code) = lake.text(&["dataset", "publish", "d.toml"]);
        assert_eq!(code, 0, "{name}: {text}");
        put.push(Put::into(&lake, &named(name)));
    }
    for (name, put) in DATASETS.into_iter().zip(&put) {
        check_sql(&lake, &named(name), put, "total", name);
        let (tables, code) = lake.json(&["tables", name]);
        assert_eq!((code, &tables["tables"][0]["rows"]), (0, &json!(put.rows())), "{name}");
    }
    let database = check_files(&lake, "datasets");
    for (name, put) in DATASETS.into_iter().zip(&put) {
        assert_eq!((count(&database, name), count(&database, &format!("{name}_days"))), (put.rows(), 9), "{name}");
    }
}

#[test]
fn names_that_cannot_work_are_refused_by_check_and_publish_with_field_rule_and_value() {
    let lake = Lake::new(&["s1"]);
    let with_name =
        |name: &str| ventas().to_toml().unwrap().replace("name = \"ventas\"", &format!("name = \"{name}\""));
    let with_column = |name: &str| ventas().to_toml().unwrap().replace("cliente_id", name);
    let refused = [
        (with_name("ventas_raw"), "name", "ventas_raw"),
        (with_name("otra_days"), "name", "otra_days"),
        (with_name("ventas_days"), "name", "ventas_days"),
        (with_name("ribera_stores"), "name", "ribera_stores"),
        (with_name("Ventas"), "name", "Ventas"),
        (with_name("a.b"), "name", "a.b"),
        (with_name(""), "name", "\"\""),
        (with_column("store_id"), "column.name", "store_id"),
        (with_column("month"), "column.name", "month"),
        (with_column("year"), "column.name", "year"),
        (with_column("__x"), "column.name", "__x"),
        (with_column("Total"), "column.name", "Total"),
        (with_column("total"), "column.name", "total"),
        (with_column("1a"), "column.name", "1a"),
    ];
    for (toml, field, got) in refused {
        std::fs::write(lake.path("d.toml"), toml).unwrap();
        for verb in ["check", "publish"] {
            let (text, code) = lake.text(&["dataset", verb, "d.toml"]);
            assert_eq!(code, 2, "{got}: {text}");
            for words in [field, got, "got"] {
                assert!(text.contains(words), "{verb}: {words} in {text}");
            }
        }
    }
    assert_eq!(lake.json(&["sql", "SELECT count(*) FROM ventas_raw"]).1, 0, "nothing was published");
}

#[test]
fn a_dataset_that_an_older_version_published_as_another_ones_name_harms_nobody() {
    let lake = Lake::new(&["s1", "s2"]);
    let old = named("ventas_raw");
    let path = ribera_storage::object::ObjectPath::new(format!(
        "{}/0000000001.toml",
        ribera_storage::paths::dataset_definitions(&old.name)
    ));
    lake.wait(ribera_storage::ObjectStore::put(
        &lake.objects,
        &path.unwrap(),
        old.to_toml().unwrap().into_bytes().into(),
    ))
    .unwrap();
    let (put, put_old) = (Put::into(&lake, &ventas()), Put::into(&lake, &old));
    check_sql(&lake, &ventas(), &put, "total", "ventas");
    check_sql(&lake, &old, &put_old, "total", "ventas_raw");
    let database = check_files(&lake, "old");
    assert_eq!(count(&database, "ventas_raw_days"), 9);
    // It can still be changed.
    let mut changed = old;
    changed.lookback_days = 3;
    lake.publish(&changed);
}
