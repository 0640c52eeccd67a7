//! Days in several databases, one per fiscal year: the date picks the database. On SQLite files, a
//! real MariaDB and a real Firebird.

use ribera_agent::report::{Exit, Report};
use ribera_agent::run::collect::RunMode;
use ribera_storage::Unit;
use rusqlite::Connection;

use crate::fixture::{World, day, days, extract, run};
use crate::{firebird_server, mariadb_server};

const MAPPING: &str = r#"
[adapter.caja.ventas]
from = "lineas"
date = "fecha"
[adapter.caja.ventas.columns]
ticket_id = "ticket"
linea = "linea"
producto_id = "producto"
cantidad = "cantidad"
total = "total"

[adapter.caja.inventario]
from = "existencias"
columns = { producto_id = "producto", existencia = "cantidad" }
"#;

fn config(source: &str, store: &str, limits: &str) -> String {
    format!(
        r#"
folder = "agent"
object_store = {{ folder = "objects" }}
{limits}
[[store]]
id = "s1"
time_zone = "America/New_York"
adapter = "caja"
{store}
source = {{ {source} }}
{MAPPING}"#
    )
}

/// Tables of a year, with a ticket of 1.25 on each of the days and the year's own stock.
fn year(dates: &[&str], stock: u32) -> String {
    let lines: Vec<String> = dates
        .iter()
        .enumerate()
        .map(|(index, date)| format!("INSERT INTO lineas VALUES ({index}, 1, '{date}', 'p', 1, 1.25);"))
        .collect();
    format!(
        "CREATE TABLE lineas (ticket INTEGER NOT NULL, linea INTEGER NOT NULL, fecha DATE, producto VARCHAR(40),
                              cantidad DECIMAL(18,3), total DECIMAL(18,2), PRIMARY KEY (ticket, linea));
         CREATE TABLE existencias (producto VARCHAR(40), cantidad DECIMAL(18,3));
         {}
         INSERT INTO existencias VALUES ('p', {stock});",
        lines.join("\n")
    )
}

const OLD: [&str; 4] = ["2016-06-30", "2016-12-30", "2016-12-31", "2016-12-31"];
const NEW: [&str; 2] = ["2017-01-01", "2017-01-02"];

/// SQLite has no decimals: amounts that a float holds exactly are counted in quarters.
fn sqlite_year(world: &World, name: &str, dates: &[&str], stock: u32) {
    let file = Connection::open(world.folder.path().join(name)).unwrap();
    file.execute_batch(&year(dates, stock).replace("1.25", "'1.25'").replace("DECIMAL(18,2)", "TEXT")).unwrap();
}

fn sqlite_world(store: &str) -> World {
    let world = World::with_config(&config("kind = \"sqlite\", path = \"emp_{year}.db\"", store, ""));
    sqlite_year(&world, "emp_2016.db", &OLD, 16);
    world
}

fn rows(world: &World) -> Vec<(String, u64, String)> {
    let sales = world.manifests().into_iter().filter(|one| one.batch.dataset.as_str() == "ventas");
    let mut found: Vec<(String, u64, String)> = sales
        .flat_map(|one| one.units)
        .filter(|facts| facts.file.rows > 0)
        .map(|facts| (facts.unit.to_string(), facts.file.rows, facts.file.sums["total"].to_string()))
        .collect();
    found.sort();
    found
}

fn expected() -> Vec<(String, u64, String)> {
    let days =
        [("2016-12-30", 1, "1.25"), ("2016-12-31", 2, "2.50"), ("2017-01-01", 1, "1.25"), ("2017-01-02", 1, "1.25")];
    days.map(|(day, rows, total)| (day.to_owned(), rows, total.to_owned())).to_vec()
}

fn stock(world: &World) -> Vec<String> {
    let stock = world.manifests().into_iter().filter(|one| one.batch.dataset.as_str() == "inventario");
    stock.map(|one| one.units[0].file.sums["existencia"].to_string()).collect()
}

fn is_good(report: &Report, world: &World) {
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    let units = world.manifests().into_iter().flat_map(|one| one.units);
    assert!(units.into_iter().all(|facts| facts.is_proven()));
}

#[test]
fn a_cycle_over_the_years_end_asks_each_database_for_its_own_days() {
    let world = sqlite_world("");
    sqlite_year(&world, "emp_2017.db", &NEW, 17);
    world.clock.set("2017-01-03T17:00:00Z");
    let report = world.once();
    is_good(&report, &world);
    assert_eq!(rows(&world), expected());
    assert_eq!(stock(&world), ["17.000"], "the state now is in the newest database");
    assert_eq!(report.datasets.iter().find(|one| one.dataset.as_str() == "ventas").unwrap().compared, 8);
    world.ingest();
    // A late void in the old year is found, in the window and, once, when the day leaves it.
    let old = Connection::open(world.folder.path().join("emp_2016.db")).unwrap();
    old.execute_batch("DELETE FROM lineas WHERE ticket = 3").unwrap();
    let report = world.once();
    let planned: Vec<Unit> = report.datasets.iter().flat_map(|one| &one.planned).map(|one| one.unit).collect();
    assert_eq!(planned, [day("2016-12-31")]);
    assert_eq!(world.lake_of("ventas")[&day("2016-12-31")], (1, "1.25".to_owned()));
}

#[test]
fn days_whose_database_is_not_there_yet_fail_alone() {
    let world = sqlite_world("");
    world.clock.set("2017-01-02T17:00:00Z");
    let report = world.once();
    assert_eq!(report.exit(), Exit::Source);
    assert_eq!(rows(&world), expected()[..2], "the old year's days came");
    let told = format!("{:?}", report.problems);
    assert!(told.contains("emp_2017.db"), "{told}");
    assert!(stock(&world).is_empty(), "stock of last year is not stock of now");
    assert!(
        world.manifests().iter().flat_map(|one| &one.units).all(|facts| facts.unit < day("2017-01-01")),
        "a day without a database is not a day without rows"
    );
    let history = world.backfill("2016-06-01", "2017-01-02");
    assert_eq!(history.exit(), Exit::Source);
    assert_eq!(
        world.lake_of("ventas")[&day("2016-06-30")],
        (1, "1.25".to_owned()),
        "a backfill goes on with the old year"
    );
    sqlite_year(&world, "emp_2017.db", &NEW, 17);
    assert_eq!(world.once().exit(), Exit::Done);
    assert_eq!(world.lake_of("ventas")[&day("2017-01-01")], (1, "1.25".to_owned()));
    assert_eq!(stock(&world), ["17.000"]);
}

#[test]
fn a_fiscal_year_from_july_and_listed_databases_hold_what_they_say() {
    let july = sqlite_world("fiscal_year_starts = \"07-01\"");
    july.clock.set("2016-07-02T17:00:00Z");
    sqlite_year(&july, "emp_2015.db", &["2016-06-29", "2016-06-30"], 15);
    july.once();
    // Both files hold a 30 June; the one of July 2016 to June 2017 is not asked for it.
    assert_eq!(july.lake_of("ventas")[&day("2016-06-29")], (1, "1.25".to_owned()));
    assert_eq!(july.lake_of("ventas")[&day("2016-06-30")], (1, "1.25".to_owned()));
    assert_eq!(stock(&july), ["16.000"]);

    let listed = World::with_config(&config(
        "kind = \"sqlite\", path = \"unused.db\"",
        "databases = [{ from = \"2017-01-01\", to = \"2017-12-31\", database = \"b.db\" }, \
                      { from = \"2016-01-01\", to = \"2016-12-31\", database = \"a.db\" }]",
        "",
    ));
    sqlite_year(&listed, "a.db", &OLD, 16);
    sqlite_year(&listed, "b.db", &NEW, 17);
    listed.clock.set("2017-01-03T17:00:00Z");
    is_good(&listed.once(), &listed);
    assert_eq!(rows(&listed), expected());
    let outside = listed.backfill("2015-12-01", "2016-01-31");
    assert_eq!(outside.exit(), Exit::Source);
    let told = format!("{:?}", outside.problems);
    assert!(told.contains("2015-12-01") && told.contains("store.databases"), "{told}");
    listed.clock.set("2018-01-02T17:00:00Z");
    assert_eq!(listed.once().exit(), Exit::Source, "no database of today is named");
}

/// On a server: history over the year's end, then the same days again with nothing to do.
fn over_the_years_end(text: &str) {
    let world = World::with_config(text);
    let agent = world.start().unwrap();
    let report = run(&agent, RunMode::Backfill { days: days("2016-12-30", "2017-01-02"), force: false });
    is_good(&report, &world);
    assert_eq!(rows(&world), expected());
    world.ingest();
    let again = extract(&world, "2016-12-30", "2017-01-02");
    assert!(again.datasets.iter().all(|one| one.planned.is_empty()), "{:?}", again.datasets);
    // Without the new year's database, the old one's days are still compared.
    let missing = World::with_config(&text.replace("2_{year}", "3_{year}"));
    let report = extract(&missing, "2016-12-30", "2017-01-02");
    assert_eq!(report.exit(), Exit::Source);
    let told = format!("{:?}", report.problems);
    assert!(told.contains("3_2017"), "{told}");
    assert_eq!(rows(&missing), expected()[..2]);
}

#[test]
fn a_range_over_the_years_end_is_asked_of_two_databases_of_mariadb() {
    let server = mariadb_server::server();
    for (name, dates, stock) in [("emp2_2016", &OLD[..], 16), ("emp2_2017", &NEW[..], 17), ("emp3_2016", &OLD[..], 16)]
    {
        let database = server.database(name);
        server.sql(&format!("USE {database}; {}", year(dates, stock)));
    }
    let source = format!(
        "kind = \"mariadb\", host = \"127.0.0.1\", port = {}, database = \"emp2_{{year}}\", user = \"lector\", \
         password = \"${{CLAVE}}\"",
        server.port
    );
    over_the_years_end(&config(&source, "datasets = [\"ventas\"]", ""));
}

#[test]
fn a_range_over_the_years_end_is_asked_of_two_databases_of_firebird() {
    let server = firebird_server::server();
    let mut folder = String::new();
    for (name, dates, stock) in [("EMP2_2016", &OLD[..], 16), ("EMP2_2017", &NEW[..], 17), ("EMP3_2016", &OLD[..], 16)]
    {
        let database = server.database(name, "WIN1252");
        server.sql(&database, &format!("{} COMMIT;", year(dates, stock).replace("INSERT", "COMMIT;\nINSERT")));
        server.sql(&database, "GRANT SELECT ON LINEAS TO LECTOR; GRANT SELECT ON EXISTENCIAS TO LECTOR;");
        folder = database.trim_end_matches(&format!("{name}.fdb")).to_owned();
    }
    let source = format!(
        "kind = \"firebird\", host = \"127.0.0.1\", port = {}, database = \"{folder}EMP2_{{year}}.fdb\", \
         user = \"lector\", password = \"${{CLAVE}}\"",
        server.port
    );
    over_the_years_end(&config(&source, "datasets = [\"ventas\"]", ""));
}
