//! The engine over small Parquet files.
#![cfg(feature = "engine")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use duckdb::Connection;
use jiff::civil::date;
use ribera_storage::dataset::{DatasetDefinition, shipped};
use ribera_storage::engine::{Engine, EngineOptions, Planner, Scans, StoreZones, ViewFile, quote_text, view_columns};

const COLUMNS: &str = "date '2017-01-02' + i::INTEGER AS fecha, 's1' AS ubicacion_id, 't' || i AS ticket_id, \
    1::INTEGER AS linea, timestamptz '2017-01-02 03:30:00+00' + to_days(i::INTEGER) AS vendido_en, 'p' AS producto_id, \
    NULL::VARCHAR AS cliente_id, 1.5::DECIMAL(18,3) AS cantidad, NULL::DECIMAL(18,4) AS precio_unitario, \
    {descuento} 10.25::DECIMAL(18,2) AS total";

struct Lake {
    folder: tempfile::TempDir,
    writer: Connection,
}

impl Lake {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), writer: Connection::open_in_memory().unwrap() }
    }

    /// Writes a file of `days` days of store `store`, with or without the column `descuento`.
    fn file(&self, store: &str, name: &str, days: i64, with_discount: bool) -> ViewFile {
        let folder = self.folder.path().join("ventas/month=2017-01");
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(format!("part-{:032x}-{store}.parquet", name.as_bytes()[0])).display().to_string();
        let discount = if with_discount { "0.50::DECIMAL(18,2) AS descuento," } else { "" };
        let columns = COLUMNS.replace("{descuento}", discount).replace("'s1'", &quote_text(store));
        let own = quote_text(store);
        let sql = format!(
            "COPY (SELECT {own} AS store_id, {columns} FROM range({days}) r(i)) TO {} (FORMAT parquet)",
            quote_text(&path)
        );
        self.writer.execute_batch(&format!("SET TimeZone='UTC'; {sql}")).unwrap();
        let mut present: BTreeSet<String> =
            shipped("ventas").unwrap().unwrap().columns.iter().map(|column| column.name.clone()).collect();
        present.insert("store_id".to_owned());
        if !with_discount {
            present.remove("descuento");
        }
        ViewFile {
            path,
            partition: BTreeMap::from([("month".into(), "2017-01".into())]),
            columns: Some(Arc::new(present)),
            dates: Some((date(2017, 1, 1), date(2017, 1, 31))),
            store: Some(store.to_owned()),
            written: 0,
            unreadable: None,
        }
    }

    fn engine(&self, files: &[ViewFile], zones: &StoreZones) -> Engine {
        self.engine_with(files, zones, false)
    }

    fn engine_with(&self, files: &[ViewFile], zones: &StoreZones, state_dates: bool) -> Engine {
        let engine = Engine::open(&EngineOptions::new(vec![self.folder.path().to_owned()])).unwrap();
        let ventas = ventas();
        let stores = files.iter().map(|file| file.store.clone()).collect();
        engine.define(&ventas, files, Option::as_ref(&stores), zones, state_dates).unwrap();
        engine.define_other_names([&ventas]).unwrap();
        engine.lock().unwrap();
        engine
    }

    /// A file of another month that no reader can read, beside one that can be read.
    fn broken(&self, store: &str) -> [ViewFile; 2] {
        let other_month = |name: &str, written: i64| {
            let mut file = self.file(store, name, 1, true);
            let path = file.path.replace("month=2017-01", "month=2016-05");
            std::fs::create_dir_all(std::path::Path::new(&path).parent().unwrap()).unwrap();
            std::fs::rename(&file.path, &path).unwrap();
            file.partition.insert("month".into(), "2016-05".into());
            ViewFile { path, dates: Some((date(2016, 5, 1), date(2016, 5, 31))), written, ..file }
        };
        // DuckDB takes names and types from the newest file: it must be readable.
        let files = [other_month("readable.parquet", 1), other_month("broken.parquet", 0)];
        std::fs::write(&files[1].path, "no Parquet").unwrap();
        files
    }
}

fn ventas() -> DatasetDefinition {
    shipped("ventas").unwrap().unwrap()
}

fn zones() -> StoreZones {
    let mut zones = StoreZones::default();
    zones.add("s1".parse().unwrap(), "America/New_York");
    zones.add("s2".parse().unwrap(), "Europe/Madrid");
    zones
}

fn planner() -> Planner {
    Planner::open([&shipped("ventas").unwrap().unwrap(), &shipped("inventario").unwrap().unwrap()]).unwrap()
}

fn answer(engine: &Engine, sql: &str) -> Vec<Vec<Option<String>>> {
    let mut rows = Vec::new();
    let select = planner().read_only(sql).unwrap();
    engine
        .ask(&select)
        .unwrap()
        .each_row(|row| {
            rows.push(row.iter().map(|cell| cell.map(str::to_owned)).collect());
            Ok(())
        })
        .unwrap();
    rows
}

fn texts(row: &[Option<String>]) -> Vec<&str> {
    row.iter().map(|cell| cell.as_deref().unwrap_or("NULL")).collect()
}

#[test]
fn files_from_before_a_column_was_added_read_it_as_null_beside_newer_files() {
    let lake = Lake::new();
    let files = [lake.file("s1", "old.parquet", 3, false), lake.file("s1", "new.parquet", 2, true)];
    let engine = lake.engine(&files, &zones());
    let rows = answer(&engine, "SELECT count(*), count(descuento), sum(descuento), sum(total) FROM ventas_raw");
    assert_eq!(texts(&rows[0]), ["5", "2", "1.00", "51.25"]);
}

#[test]
fn each_store_sees_its_own_local_time_beside_utc() {
    let lake = Lake::new();
    let files = [lake.file("s1", "a.parquet", 1, true), lake.file("s2", "b.parquet", 1, true)];
    let engine = lake.engine(&files, &zones());
    let rows = answer(&engine, "SELECT store_id, vendido_en, vendido_en_local FROM ventas ORDER BY 1;");
    assert_eq!(texts(&rows[0]), ["s1", "2017-01-02 03:30:00+00", "2017-01-01 22:30:00"]);
    assert_eq!(texts(&rows[1]), ["s2", "2017-01-02 03:30:00+00", "2017-01-02 04:30:00"]);
}

#[test]
fn local_time_is_right_of_every_store_when_nobody_knows_which_stores_have_rows() {
    let lake = Lake::new();
    // A file without a store's name: another program's, say; and a store that is not declared.
    let unnamed = |store: &str, name: &str| ViewFile { store: None, ..lake.file(store, name, 1, true) };
    let files = [unnamed("s1", "a.parquet"), unnamed("s2", "b.parquet"), unnamed("s3", "c.parquet")];
    let engine = lake.engine(&files, &zones());
    let rows = answer(&engine, "SELECT store_id, vendido_en_local FROM ventas ORDER BY 1;");
    assert_eq!(texts(&rows[0]), ["s1", "2017-01-01 22:30:00"]);
    assert_eq!(texts(&rows[1]), ["s2", "2017-01-02 04:30:00"]);
    assert_eq!(texts(&rows[2]), ["s3", "NULL"]);
}

#[test]
fn a_dataset_without_files_is_an_empty_view_of_the_right_types() {
    let lake = Lake::new();
    let engine = lake.engine(&[], &StoreZones::default());
    assert_eq!(texts(&answer(&engine, "SELECT count(*), sum(total) FROM ventas")[0]), ["0", "NULL"]);
    let select = planner().read_only("FROM ventas").unwrap();
    let columns = engine.ask(&select).unwrap().columns;
    let types: Vec<(&str, &str)> =
        columns.iter().map(|column| (column.name.as_str(), column.sql_type.as_str())).collect();
    assert_eq!(types[0], ("store_id", "VARCHAR"));
    assert!(types.contains(&("vendido_en", "TIMESTAMP WITH TIME ZONE")));
    assert!(types.contains(&("vendido_en_local", "TIMESTAMP")));
    assert!(types.contains(&("cantidad", "DECIMAL(18,3)")));
    assert_eq!(columns.len(), view_columns(&shipped("ventas").unwrap().unwrap()).len());
}

#[test]
fn whatever_is_not_one_select_is_refused() {
    let planner = planner();
    let refused = [
        "INSERT INTO ventas VALUES (1)",
        "COPY ventas TO '/tmp/x.csv'",
        "ATTACH '/tmp/x.db'",
        "SET threads = 1",
        "DROP VIEW ventas",
        "INSTALL httpfs",
        "SELECT 1; SELECT 2",
        "",
    ];
    for sql in refused {
        let error = planner.read_only(sql).unwrap_err();
        assert_eq!(error.kind(), ribera_storage::ErrorKind::Config, "{sql}: {error}");
    }
    for sql in ["SELECT ';' -- ; note\n;", "FROM ventas", "DESCRIBE ventas", "WITH x AS (SELECT 1 AS a) FROM x"] {
        planner.scans(&planner.read_only(sql).unwrap()).unwrap();
    }
}

#[test]
fn nothing_outside_the_given_folders_can_be_opened() {
    let lake = Lake::new();
    let outside = tempfile::NamedTempFile::with_suffix(".csv").unwrap();
    let engine = lake.engine(&[], &StoreZones::default());
    for sql in [
        format!("SELECT * FROM read_csv('{}')", outside.path().display()),
        format!("SELECT * FROM read_text('{}/../x')", lake.folder.path().display()),
        "SELECT * FROM glob('/*')".into(),
    ] {
        let error = engine.ask(&sql).and_then(|answer| answer.each_row(|_| Ok(()))).unwrap_err();
        assert!(error.message().contains("Permission"), "{sql}: {error}");
    }
    assert!(engine.execute("SET enable_external_access = true").is_err());
    assert!(engine.execute("SET allowed_directories = ['/']").is_err());
}

#[test]
fn a_plan_names_the_datasets_behind_an_answer_and_how_far_filters_narrow_them() {
    let planner = planner();
    let ventas = shipped("ventas").unwrap().unwrap();
    let (s1, s2) = ("s1".parse().unwrap(), "s2".parse().unwrap());
    let scans = |sql: &str| -> Scans { planner.scans(&planner.read_only(sql).unwrap()).unwrap() };

    let narrow = scans(
        "SELECT sum(total) FROM ventas_raw WHERE store_id = 's1' AND fecha BETWEEN '2017-01-05' AND '2017-01-09'",
    );
    assert_eq!(narrow.tables().collect::<Vec<_>>(), ["ventas"]);
    assert!(narrow.touch(&ventas, &s1, Some(date(2017, 1, 9))));
    assert!(!narrow.touch(&ventas, &s1, Some(date(2017, 1, 10))));
    assert!(!narrow.touch(&ventas, &s2, Some(date(2017, 1, 9))));

    for sql in [
        "SELECT sum(total) FROM ventas WHERE date_trunc('month', fecha) = '2017-01-01'",
        "SELECT sum(total) FROM ventas WHERE fecha IN ('2017-01-03', '2017-01-09', '2017-01-11')",
        "SELECT sum(total) FROM ventas WHERE fecha >= date '2017-02-01' - interval 31 day AND month < '2017-02'",
        "SELECT a.total FROM ventas a JOIN ventas b ON a.fecha = b.fecha WHERE a.fecha < '2017-01-10'",
        "SELECT total FROM (SELECT *, row_number() OVER (PARTITION BY month) n FROM ventas) WHERE month = '2017-01'",
    ] {
        let scans = scans(sql);
        assert!(scans.touch(&ventas, &s1, Some(date(2017, 1, 9))), "{sql}");
        assert!(!scans.touch(&ventas, &s1, Some(date(2017, 2, 9))), "{sql}");
    }
    for sql in
        ["SELECT count(*) FROM ventas", "SELECT count(*) FROM ventas WHERE store_id = 's1' OR fecha = '2017-01-01'"]
    {
        assert!(scans(sql).touch(&ventas, &s2, Some(date(2017, 2, 9))), "{sql}");
    }
    assert_eq!(scans("SELECT 1").tables().count(), 0);
    assert_eq!(scans("SELECT * FROM ventas v JOIN inventario i USING (producto_id)").tables().count(), 2);
}

#[test]
fn an_unknown_table_is_an_error_that_names_it() {
    let planner = planner();
    let error = planner.scans("SELECT * FROM venta").unwrap_err();
    assert!(error.message().contains("venta"), "{error}");
}

#[test]
fn a_filter_on_store_month_or_date_opens_no_file_that_it_excludes() {
    let lake = Lake::new();
    let files = [&lake.broken("s2")[..], &[lake.file("s1", "a.parquet", 9, true)]].concat();
    for filter in [
        "store_id = 's1'",
        "month = '2017-01'",
        "month > '2016-12'",
        "fecha = '2017-01-05'",
        "fecha >= '2017-01-01'",
        "fecha > date '2017-02-01' - interval 31 day",
        "fecha BETWEEN '2017-01-02' AND '2017-01-20'",
        "date_trunc('month', fecha) = '2017-01-01'",
    ] {
        let sql = format!("SELECT count(*) > 0 FROM ventas WHERE {filter}");
        assert_eq!(texts(&answer(&lake.engine_with(&files, &zones(), true), &sql)[0]), ["true"], "{filter}");
    }
    let all = lake.engine_with(&files, &zones(), true);
    assert!(all.ask("SELECT sum(total) FROM ventas").unwrap().each_row(|_| Ok(())).is_err(), "it is really broken");
}

/// A file of the first days of each month from 2012-01 to 2015-06: many partitions of few files.
fn many_months(lake: &Lake) -> Vec<ViewFile> {
    let months = (2012..=2015_i16).flat_map(|year| (1..=12_i8).map(move |month| date(year, month, 1)));
    let months = months.filter(|month| *month < date(2015, 7, 1));
    let file = |month: jiff::civil::Date| {
        let file = lake.file("s1", "a.parquet", 3, true);
        let name = month.strftime("%Y-%m").to_string();
        let path = file.path.replace("2017-01", &name);
        std::fs::create_dir_all(std::path::Path::new(&path).parent().unwrap()).unwrap();
        let sql = format!(
            "COPY (SELECT * REPLACE (date '{month}' + (fecha - date '2017-01-02')::INTEGER AS fecha) FROM read_parquet({})) \
             TO {} (FORMAT parquet)",
            quote_text(&file.path),
            quote_text(&path)
        );
        lake.writer.execute_batch(&sql).unwrap();
        let dates = Some((month, month.last_of_month()));
        ViewFile { path, partition: BTreeMap::from([("month".into(), name)]), dates, ..file }
    };
    months.map(file).collect()
}

#[test]
fn months_of_long_ago_are_read_together_and_answers_are_those_of_plain_sql() {
    let lake = Lake::new();
    let files = many_months(&lake);
    let plain = Engine::open(&EngineOptions::new(vec![lake.folder.path().to_owned()])).unwrap();
    let all = lake.folder.path().join("ventas/*/*.parquet").display().to_string();
    std::fs::remove_dir_all(lake.folder.path().join("ventas/month=2017-01")).unwrap();
    plain
        .execute(&format!("CREATE VIEW ventas AS FROM read_parquet({}, hive_types_autocast = false)", quote_text(&all)))
        .unwrap();
    for state_dates in [false, true] {
        let engine = lake.engine_with(&files, &zones(), state_dates);
        for sql in [
            "SELECT month, count(*), sum(total) FROM ventas GROUP BY ALL ORDER BY ALL",
            "SELECT count(*), min(fecha), max(month) FROM ventas WHERE fecha BETWEEN '2013-02-02' AND '2014-01-01'",
            "SELECT count(*), min(fecha) FROM ventas WHERE month = '2013-11' OR month > '2015-04'",
            "SELECT count(*) FROM ventas WHERE month IS NULL OR fecha = '2012-01-02'",
            "SELECT a.month, count(*) FROM ventas a JOIN ventas b ON a.month < b.month GROUP BY ALL ORDER BY ALL",
        ] {
            let expected = answer(&plain, sql);
            assert!(!expected.is_empty());
            assert_eq!(answer(&engine, sql), expected, "{sql}");
        }
    }
}

#[test]
fn a_broken_file_of_long_ago_harms_the_dates_of_its_year_alone() {
    let lake = Lake::new();
    let files = many_months(&lake);
    let broken = files.iter().find(|file| file.path.contains("month=2013-03")).unwrap();
    std::fs::write(&broken.path, "no Parquet").unwrap();
    let engine = lake.engine_with(&files, &zones(), true);
    let count = |filter: &str| {
        let sql = format!("SELECT count(*)::VARCHAR FROM ventas WHERE {filter}");
        let mut counted = None;
        let asked = engine.ask(&sql)?.each_row(|row| {
            counted = row[0].map(str::to_owned);
            Ok(())
        });
        asked.map(|()| counted.unwrap())
    };
    for (filter, days) in [
        ("fecha = '2015-06-02'", "1"),
        ("fecha = '2012-06-02'", "1"),
        ("month = '2013-04' AND fecha <> '2013-04-01'", "2"),
    ] {
        assert_eq!(count(filter).unwrap(), days, "{filter}");
    }
    assert!(count("fecha = '2013-03-02'").is_err() && count("total > 0").is_err(), "it is really broken");
}

#[test]
fn what_is_thought_of_the_filters_changes_no_answer() {
    let lake = Lake::new();
    let files = [
        lake.file("s1", "a.parquet", 9, true),
        ViewFile { dates: None, ..lake.file("s1", "b.parquet", 40, true) },
        lake.file("s2", "c.parquet", 3, false),
    ];
    let (plain, stated) = (lake.engine_with(&files, &zones(), false), lake.engine_with(&files, &zones(), true));
    for sql in [
        "SELECT store_id, month, fecha, count(*), sum(total) FROM ventas GROUP BY ALL ORDER BY ALL",
        "SELECT count(*) FROM ventas WHERE fecha IN ('2017-01-03', '2017-02-05', '2018-01-01')",
        "SELECT count(*) FROM ventas WHERE NOT fecha = '2017-01-03'",
        "SELECT count(*) FROM ventas WHERE fecha = '2017-01-03' OR store_id = 's2' OR month IS NULL",
        "SELECT count(*) FROM ventas a JOIN ventas b USING (fecha) WHERE a.store_id < b.store_id",
        "SELECT max(fecha) FROM ventas WHERE fecha < (SELECT max(fecha) FROM ventas)",
    ] {
        assert_eq!(answer(&plain, sql), answer(&stated, sql), "{sql}");
    }
}

#[test]
fn a_table_that_the_plan_forgot_fails_when_it_is_read() {
    let engine = Engine::open(&EngineOptions::new(Vec::new())).unwrap();
    let ventas = ventas();
    engine.define_unread(&ventas).unwrap();
    engine.define_unread_days(&ventas).unwrap();
    engine.define_other_names([&ventas]).unwrap();
    for sql in [
        "SELECT count(*) FROM ventas",
        "SELECT sum(total) FROM ventas_raw WHERE store_id = 's1'",
        "SELECT 1 WHERE EXISTS (FROM ventas_days)",
        "SELECT max(fecha) FROM ventas_days",
        "SELECT i, (SELECT count(*) FROM ventas WHERE linea = i) FROM range(3) r(i)",
        "FROM ventas LIMIT 1",
        "SELECT count(*) FROM ventas WHERE cliente_id IS NULL AND total > 5 AND month IN ('2017-01', '2017-02')",
    ] {
        let error = engine.ask(sql).and_then(|answer| answer.each_row(|_| Ok(()))).unwrap_err();
        assert!(error.message().contains("was not loaded"), "{sql}: {error}");
    }
    let described = engine.rows("SELECT column_name FROM (DESCRIBE ventas)").unwrap();
    assert_eq!(described.len(), view_columns(&ventas).len());
}

#[test]
fn files_outside_the_folder_of_their_partition_are_read_with_the_values_of_the_log() {
    let lake = Lake::new();
    let mut moved = lake.file("s1", "a.parquet", 2, true);
    let path = lake.folder.path().join("ventas/elsewhere.parquet").display().to_string();
    std::fs::rename(&moved.path, &path).unwrap();
    moved.path = path;
    let mut homeless = lake.file("s9", "b.parquet", 1, true);
    homeless.partition.clear();
    let engine = lake.engine(&[moved, homeless], &zones());
    let rows = answer(&engine, "SELECT store_id, month, count(*) FROM ventas GROUP BY ALL ORDER BY 3");
    assert_eq!(texts(&rows[0]), ["s9", "NULL", "1"]);
    assert_eq!(texts(&rows[1]), ["s1", "2017-01", "2"]);
}
