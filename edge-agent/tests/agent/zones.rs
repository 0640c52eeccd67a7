//! The business date is the store's local day on every source, whatever zone the server or its session is in.

use ribera_agent::report::Exit;
use ribera_agent::run::collect::RunMode;

use crate::fixture::{World, day, days, extract, run};
use crate::{mariadb_server, postgres_server};

/// A store in `zone` whose table `ventas` has a column `momento` of moments; `date` and `range` are of it.
fn world(source: &str, zone: &str, date: &str, moment: &str) -> World {
    World::with_config(&format!(
        "folder = \"agent\"\nobject_store = {{ folder = \"objects\" }}\n[limits]\nchunk_timeout_s = 20\n\
         [[store]]\nid = \"s1\"\ntime_zone = \"{zone}\"\nadapter = \"caja\"\n[store.source]\n{source}\n\
         [adapter.caja.ventas]\nfrom = \"ventas\"\ndate = \"{date}\"\n[adapter.caja.ventas.columns]\n\
         ticket_id = \"ticket\"\nlinea = \"1\"\nproducto_id = \"'p'\"\ncantidad = \"1\"\ntotal = \"total\"\nvendido_en = \"{moment}\"\n"
    ))
}

fn mariadb(database: &str) -> String {
    let port = mariadb_server::server().port;
    format!(
        "kind = \"mariadb\"\nhost = \"127.0.0.1\"\nport = {port}\ndatabase = \"{database}\"\nuser = \"lector\"\npassword = \"secret\"\n"
    )
}

fn postgres(database: &str) -> String {
    let port = postgres_server::server().port;
    format!(
        "kind = \"postgres\"\nhost = \"127.0.0.1\"\nport = {port}\ndatabase = \"{database}\"\nuser = \"lector\"\npassword = \"contraseña\"\n"
    )
}

/// Moments as UTC, and the store's day and clock that the server's own client shows for them in the till's zone.
fn sold(world: &World, unit: &str) -> Vec<String> {
    let mut moments = Vec::new();
    let manifest = world.manifests().into_iter().filter(|one| one.units.iter().any(|facts| facts.unit == day(unit)));
    for manifest in manifest {
        for batch in world.rows(&manifest) {
            let (dates, times) =
                (batch.column_by_name("fecha").unwrap().clone(), batch.column_by_name("vendido_en").unwrap().clone());
            for row in 0..batch.num_rows() {
                if crate::matrix::show(dates.as_ref(), row) == unit {
                    moments.push(crate::matrix::show(times.as_ref(), row));
                }
            }
        }
    }
    moments
}

#[test]
fn an_evening_sale_lies_on_the_stores_day_on_mariadb_and_postgres() {
    let server = mariadb_server::server();
    let database = server.database("zona_bogota");
    // The till's own session writes in its zone; the server's is another.
    server.sql(&format!(
        "SET GLOBAL time_zone = '+09:00'; USE {database}; SET time_zone = '-05:00';
         CREATE TABLE ventas (ticket INT PRIMARY KEY, momento TIMESTAMP(6) NOT NULL, total DECIMAL(10,2));
         INSERT INTO ventas VALUES (1, '2017-05-08 00:00:00', 1), (2, '2017-05-08 20:15:00', 2), (3, '2017-05-08 23:59:59.999999', 4),
                                   (4, '2017-05-09 00:00:00', 8), (5, '2017-05-09 19:00:00', 16);"
    ));
    let maria = world(&mariadb(&database), "America/Bogota", "DATE(momento)", "momento");
    let server = postgres_server::server();
    let database = server.database("zona_bogota", "UTF8");
    server.sql(
        &database,
        "ALTER DATABASE zona_bogota SET TimeZone = 'Asia/Tokyo'; SET TIME ZONE 'America/Bogota';
         CREATE TABLE ventas (ticket INT PRIMARY KEY, momento TIMESTAMPTZ NOT NULL, total DECIMAL(10,2));
         INSERT INTO ventas VALUES (1, '2017-05-08 00:00:00', 1), (2, '2017-05-08 20:15:00', 2), (3, '2017-05-08 23:59:59.999999', 4),
                                   (4, '2017-05-09 00:00:00', 8), (5, '2017-05-09 19:00:00', 16);
         GRANT SELECT ON ventas TO lector;",
    );
    let postgres = world(&postgres(&database), "America/Bogota", "momento::date", "momento");
    for (kind, world) in [("mariadb", maria), ("postgres", postgres)] {
        let report = extract(&world, "2017-05-07", "2017-05-10");
        assert_eq!(report.exit(), Exit::Done, "{kind}: {:?}", report.problems);
        let lake = world.lake();
        assert_eq!(lake[&day("2017-05-08")], (3, "7.00".to_owned()), "{kind}");
        assert_eq!(lake[&day("2017-05-09")], (2, "24.00".to_owned()), "{kind}");
        assert_eq!(
            sold(&world, "2017-05-08"),
            ["2017-05-08T05:00:00Z", "2017-05-09T01:15:00Z", "2017-05-09T04:59:59.999999Z"],
            "{kind}"
        );
        let again =
            run(&world.start().unwrap(), RunMode::Backfill { days: days("2017-05-01", "2017-05-10"), force: false });
        assert!(again.datasets[0].planned.iter().all(|one| !lake.contains_key(&one.unit)), "{kind}: nothing differs");
    }
    mariadb_server::server().sql("SET GLOBAL time_zone = '+00:00'");
}

#[test]
fn where_the_clock_changes_days_are_exact_and_the_day_itself_is_refused_with_what_to_write() {
    let server = mariadb_server::server();
    let database = server.database("zona_ny");
    // As UTC: the evenings before and after the 12th of March 2017, 02:00, when New York's clock goes forward.
    server.sql(&format!(
        "USE {database}; SET time_zone = '+00:00';
         CREATE TABLE ventas (ticket INT PRIMARY KEY, momento TIMESTAMP NOT NULL, total DECIMAL(10,2));
         INSERT INTO ventas VALUES (1, '2017-03-12 04:30:00', 1), (2, '2017-03-12 05:30:00', 2), (3, '2017-03-13 03:30:00', 4),
                                   (4, '2017-03-13 04:30:00', 8), (5, '2017-03-14 03:59:59', 16), (6, '2017-03-14 04:00:00', 32);"
    ));
    let text = (mariadb(&database), "America/New_York", "DATE(momento)", "momento");
    let maria = world(&text.0, text.1, text.2, text.3);
    let report = extract(&maria, "2017-03-10", "2017-03-15");
    let refused = &report.datasets[0].refused;
    assert_eq!(refused.len(), 1, "{refused:?} {:?}", report.problems);
    assert_eq!(refused[0].unit, day("2017-03-12"));
    assert!(refused[0].reason.contains("CONVERT_TZ"), "{refused:?}");
    let lake = maria.lake();
    assert_eq!(lake[&day("2017-03-11")], (1, "1.00".to_owned()), "23:30 of the 11th");
    assert_eq!(lake[&day("2017-03-13")], (2, "24.00".to_owned()), "00:30 and 23:59:59 of the 13th");
    assert_eq!(lake[&day("2017-03-14")], (1, "32.00".to_owned()));
    // A date of its own does not move with the clock, and the moments beside it are exact.
    server.sql(&format!("USE {database}; ALTER TABLE ventas ADD fecha DATE; SET time_zone = '-05:00'; UPDATE ventas SET fecha = '2017-03-12', momento = momento"));
    let own = world(&text.0, text.1, "fecha", "momento");
    let report = extract(&own, "2017-03-12", "2017-03-12");
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    assert_eq!(sold(&own, "2017-03-12")[..3], ["2017-03-12T04:30:00Z", "2017-03-12T05:30:00Z", "2017-03-13T03:30:00Z"]);
    // PostgreSQL knows the zone itself.
    let server = postgres_server::server();
    let database = server.database("zona_ny", "UTF8");
    server.sql(
        &database,
        "SET TIME ZONE 'UTC'; CREATE TABLE ventas (ticket INT PRIMARY KEY, momento TIMESTAMPTZ NOT NULL, total DECIMAL(10,2));
         INSERT INTO ventas VALUES (1, '2017-03-12 04:30:00', 1), (2, '2017-03-12 05:30:00', 2), (3, '2017-03-13 03:30:00', 4),
                                   (4, '2017-03-13 04:30:00', 8);
         GRANT SELECT ON ventas TO lector;",
    );
    let postgres = world(&postgres(&database), text.1, "momento::date", "momento");
    let report = extract(&postgres, "2017-03-10", "2017-03-15");
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    let lake = postgres.lake();
    let found = ["2017-03-11", "2017-03-12", "2017-03-13"].map(|date| lake[&day(date)].clone());
    assert_eq!(found, [(1, "1.00".to_owned()), (2, "6.00".to_owned()), (1, "8.00".to_owned())]);
}

#[test]
fn rows_that_row_level_security_hides_are_named_and_prove_no_day() {
    let server = postgres_server::server();
    let database = server.database("oculta", "UTF8");
    server.sql(
        &database,
        "CREATE TABLE ventas (ticket INT PRIMARY KEY, fecha DATE NOT NULL, cajero TEXT, total DECIMAL(10,2));
         INSERT INTO ventas VALUES (1, '2017-05-08', 'lector', 1), (2, '2017-05-08', 'otra', 2);
         ALTER TABLE ventas ENABLE ROW LEVEL SECURITY;
         CREATE POLICY propias ON ventas USING (cajero = current_user);
         GRANT SELECT ON ventas TO lector;",
    );
    let text = world(&postgres(&database), "America/Bogota", "fecha", "NULL");
    let report = extract(&text, "2017-05-08", "2017-05-08");
    assert_eq!((report.exit(), text.manifests().len()), (Exit::Source, 0), "{:?}", report.problems);
    let problem = &report.problems[0];
    assert_eq!(problem.kind, "config", "{problem:?}");
    assert!(problem.message.contains("row-level security") && problem.message.contains("BYPASSRLS"), "{problem:?}");
    server.sql(&database, "ALTER TABLE ventas DISABLE ROW LEVEL SECURITY");
    assert_eq!(extract(&text, "2017-05-08", "2017-05-08").exit(), Exit::Done);
}

#[test]
fn seconds_since_1970_lie_on_the_stores_day_on_sqlite_and_days_of_another_clock_are_refused() {
    let config = |zone: &str, date: &str| {
        format!(
            "folder = \"agent\"\nobject_store = {{ folder = \"objects\" }}\n[[store]]\nid = \"s1\"\ntime_zone = \"{zone}\"\n\
             adapter = \"caja\"\nsource = {{ kind = \"sqlite\", path = \"pos.db\" }}\n[adapter.caja.ventas]\nfrom = \"ventas\"\n\
             {date}\n[adapter.caja.ventas.columns]\nticket_id = \"ticket\"\nlinea = \"1\"\nproducto_id = \"'p'\"\n\
             cantidad = \"1\"\ntotal = {{ sql = \"total\", scale = 2 }}\nvendido_en = {{ sql = \"momento\", epoch = \"s\" }}\n"
        )
    };
    let opened = |zone: &str, date: &str| {
        let world = World::with_config(&config(zone, date));
        // 20:15 and 23:59:59 of the 8th, and midnight of the 9th, in New York.
        world.sql(
            "CREATE TABLE ventas (ticket INTEGER, momento INTEGER, total INTEGER); CREATE INDEX m ON ventas (momento);
             INSERT INTO ventas VALUES (1, 1494288900, 100), (2, 1494302399, 200), (3, 1494302400, 400);",
        );
        world
    };
    let start = "momento >= ribera_day_start(:from) AND momento < ribera_day_start(:after)";
    for date in ["date = \"ribera_day(momento)\"", &format!("date = \"ribera_day(momento)\"\nrange = \"{start}\"")] {
        let world = opened("America/New_York", date);
        let report = extract(&world, "2017-05-07", "2017-05-09");
        assert_eq!(report.exit(), Exit::Done, "{date}: {:?}", report.problems);
        let lake = world.lake();
        let found = ["2017-05-08", "2017-05-09"].map(|date| lake[&day(date)].clone());
        assert_eq!(found, [(2, "3.00".to_owned()), (1, "4.00".to_owned())], "{date}");
        assert_eq!(sold(&world, "2017-05-08"), ["2017-05-09T00:15:00Z", "2017-05-09T03:59:59Z"]);
    }
    for date in ["date(momento, 'unixepoch')", "date(momento, 'unixepoch', 'localtime')"] {
        let world = opened("Asia/Kathmandu", &format!("date = \"{date}\""));
        for ask in [RunMode::Cycle, RunMode::Extract { days: days("2017-05-08", "2017-05-09"), force: false }] {
            let report = run(&world.start().unwrap(), ask);
            assert_eq!((report.exit(), world.manifests().len()), (Exit::Config, 0), "{date}: {:?}", report.problems);
            assert!(report.problems[0].message.contains("ribera_day(SECONDS)"), "{:?}", report.problems);
        }
    }
    let world = opened("UTC", "date = \"date(momento, 'unixepoch')\"");
    assert_eq!(extract(&world, "2017-05-09", "2017-05-09").exit(), Exit::Done);
    assert_eq!(world.lake()[&day("2017-05-09")].0, 3);
}
