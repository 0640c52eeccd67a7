//! `ribera export duckdb`.

use duckdb::{AccessMode, Config, Connection};

use super::fixture::{Lake, january};

/// As a plain DuckDB would open it: no extension is loaded or fetched, no lake is near.
fn open(path: &std::path::Path) -> Connection {
    let config = Config::default()
        .enable_autoload_extension(false)
        .and_then(|config| config.enable_external_access(false))
        .and_then(|config| config.access_mode(AccessMode::ReadOnly))
        .unwrap();
    Connection::open_with_flags(path, config).unwrap()
}

fn text(database: &Connection, sql: &str) -> String {
    database.query_row(&format!("SELECT CAST(({sql}) AS VARCHAR)"), [], |row| row.get(0)).unwrap()
}

#[test]
fn the_export_opens_alone_and_says_what_the_lake_says() {
    let lake = Lake::new(&["s1", "s2"]);
    lake.batch("s1/ventas/000000-0000000001", &january(1, 31));
    lake.batch("s2/ventas/000000-0000000001", &january(1, 20));
    let file = lake.path("out.duckdb");
    let (answer, code) = lake.json(&["export", "duckdb", "out.duckdb"]);
    assert_eq!((code, &answer["tables"][0]["rows"]), (0, &serde_json::json!(510)));
    // The lake may go: the export stands alone.
    std::fs::rename(lake.root().join("lake"), lake.path("gone")).unwrap();

    let database = open(&file);
    assert_eq!(text(&database, "SELECT count(*) FROM ventas_raw"), "510");
    assert_eq!(text(&database, "SELECT sum(cantidad) FROM ventas WHERE store_id = 's2'"), "200.000");
    assert_eq!(text(&database, "SELECT DISTINCT hour(vendido_en_local) FROM ventas"), "12");
    let missing =
        "SELECT sum(to_date - from_date + 1) FROM ribera_coverage_runs WHERE state = 'missing' AND store_id = 's2'";
    assert_eq!(text(&database, missing), "11");
    assert_eq!(text(&database, "SELECT count(*) FROM ribera_stores"), "2");
}

#[test]
fn a_new_export_is_swapped_in_whole_while_the_old_one_is_being_read() {
    let lake = Lake::new(&["s1"]);
    lake.batch("s1/ventas/000000-0000000001", &january(1, 1));
    let file = lake.path("out.duckdb");
    assert_eq!(lake.json(&["export", "duckdb", "out.duckdb"]).1, 0);
    let old = open(&file);
    lake.batch("s1/ventas/000000-0000000002", &january(2, 2));
    assert_eq!(lake.json(&["export", "duckdb", "out.duckdb", "--dataset", "ventas"]).1, 0);
    assert_eq!(text(&old, "SELECT count(*) FROM ventas"), "10");
    drop(old);
    assert_eq!(text(&open(&file), "SELECT count(*) FROM ventas"), "20");
    let left: Vec<_> = std::fs::read_dir(lake.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains(".tmp")), "{left:?}");
}
