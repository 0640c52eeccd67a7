//! A till that sells by the server's own client while a backfill and daily cycles read: no commit is refused, and what
//! came meanwhile is sent.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ribera_agent::host::TokioTimer;
use ribera_agent::report::Exit;
use ribera_agent::run::collect::RunMode;

use crate::each::{Kind, Place};
use crate::fixture::{World, day, days, request};

const MAPPING: &str = r#"
[adapter.caja.ventas]
from = "lineas"
date = "fecha"
chunk_rows = 100
[adapter.caja.ventas.columns]
ticket_id = "ticket"
linea = "1"
producto_id = "'p'"
cantidad = "1"
total = "total"
"#;
const ROWS_A_DAY: u32 = 60;

/// What the till does: it gives up after a second, as programs at a counter do.
fn sale(kind: Kind, ticket: u32) -> String {
    let insert = format!("INSERT INTO lineas VALUES ({ticket}, '2017-05-09', 1)");
    let update = format!("UPDATE lineas SET total = total + 1 WHERE ticket = {}", ticket % 3000);
    match kind {
        Kind::Mariadb => {
            format!("SET SESSION lock_wait_timeout = 1, innodb_lock_wait_timeout = 1; {insert}; {update};")
        }
        Kind::Postgres => format!("SET lock_timeout = '1s'; {insert}; {update};"),
        Kind::Firebird => format!("COMMIT;\nSET TRANSACTION READ WRITE WAIT LOCK TIMEOUT 1;\n{insert};\n{update};"),
        Kind::Sqlite => format!("{insert}; {update};"),
    }
}

fn fill(place: &Place, world: &World, engine: &str) {
    place.create(world, "lineas", "ticket INTEGER NOT NULL PRIMARY KEY, fecha DATE, total DECIMAL(10,2)");
    let mut statements = Vec::new();
    if place.kind == Kind::Mariadb {
        statements.push(format!("ALTER TABLE lineas ENGINE = {engine}"));
    }
    if place.kind == Kind::Firebird {
        // A till holds its database open. Here each sale connects: one that meets the end of the last other connection
        // waits a second until the server has closed the file.
        statements.push("ALTER DATABASE SET LINGER TO 60".to_owned());
    }
    statements.push("CREATE INDEX lineas_fecha ON lineas (fecha)".to_owned());
    let mut ticket = 0;
    for date in days("2017-03-01", "2017-05-09").iter() {
        // Firebird takes one row at a time.
        for _ in 0..ROWS_A_DAY {
            statements.push(format!("INSERT INTO lineas VALUES ({ticket}, '{date}', 1)"));
            ticket += 1;
        }
    }
    place.sql(world, &statements);
}

struct Sold {
    commits: u32,
    refused: Vec<String>,
    waits: Vec<Duration>,
}

impl Sold {
    fn p99(&self) -> Duration {
        let mut waits = self.waits.clone();
        waits.sort_unstable();
        waits.get((waits.len() * 99 / 100).min(waits.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

/// Sells until it is over; ticket numbers from `first`.
fn sell(place: &Place, first: u32, over: &AtomicBool) -> Sold {
    let mut sold = Sold { commits: 0, refused: Vec::new(), waits: Vec::new() };
    while !over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let sql = sale(place.kind, first + sold.commits);
        if catch_unwind(AssertUnwindSafe(|| place.client(&sql))).is_err() {
            sold.refused.push(sql);
        }
        sold.waits.push(begun.elapsed());
        sold.commits += 1;
    }
    sold
}

fn beside(kind: Kind, engine: &str) {
    let place = Place::new(kind, &format!("junto_{}", engine.to_lowercase()));
    let world = place.world(MAPPING);
    fill(&place, &world, engine);
    let mut agent = world.start().unwrap();
    agent.config.limits.chunk_pause_ms = 60;
    agent.ports.timer = Rc::new(TokioTimer);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let run = |ask: RunMode| runtime.block_on(agent.run("test", &request(ask), Duration::ZERO));
    let alone = {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let selling = scope.spawn(|| sell(&place, 1_000_000, &over));
            std::thread::park_timeout(Duration::from_millis(700));
            over.store(true, Ordering::Relaxed);
            selling.join().unwrap()
        })
    };
    let over = AtomicBool::new(false);
    let sold = std::thread::scope(|scope| {
        let selling = scope.spawn(|| sell(&place, 2_000_000, &over));
        for ask in
            [RunMode::Backfill { days: days("2017-03-01", "2017-05-09"), force: true }, RunMode::Cycle, RunMode::Cycle]
        {
            let report = run(ask);
            // A day that does not hold still may be unproven: the next run proves it.
            assert!(matches!(report.exit(), Exit::Done | Exit::Unproven), "{engine}: {:?}", report.problems);
        }
        over.store(true, Ordering::Relaxed);
        selling.join().unwrap()
    });
    println!("{engine}: p99 {:?} alone, {:?} beside the agent, {} commits", alone.p99(), sold.p99(), sold.commits);
    assert!(sold.commits > 10, "{engine}: the till sold {}", sold.commits);
    assert_eq!((&sold.refused, &alone.refused), (&Vec::new(), &Vec::new()), "{engine}: of {}", sold.commits);
    let report = run(RunMode::Extract { days: days("2017-03-01", "2017-05-09"), force: false });
    assert_eq!(report.exit(), Exit::Done, "{engine}: {:?}", report.problems);
    // As the server's own client counts them.
    let rows = place.ask(&world, "SELECT COUNT(*) FROM lineas WHERE fecha = '2017-05-09'");
    assert_eq!(world.lake()[&day("2017-05-09")].0.to_string(), rows.trim(), "{engine}");
    let all = place.ask(&world, "SELECT COUNT(*) FROM lineas");
    assert_eq!(world.lake().values().map(|(rows, _)| rows).sum::<u64>().to_string(), all.trim(), "{engine}");
}

#[test]
fn a_till_on_innodb_sells_beside_backfill_and_cycles() {
    beside(Kind::Mariadb, "InnoDB");
}

#[test]
fn a_till_on_myisam_sells_beside_backfill_and_cycles() {
    beside(Kind::Mariadb, "MyISAM");
}

#[test]
fn a_till_on_postgres_sells_beside_backfill_and_cycles() {
    beside(Kind::Postgres, "Postgres");
}

#[test]
fn a_till_on_firebird_sells_beside_backfill_and_cycles() {
    beside(Kind::Firebird, "Firebird");
}
