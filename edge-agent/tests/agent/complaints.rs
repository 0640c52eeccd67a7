//! What users of other tools suffered: docs/complaints.md names the test that keeps it from happening here.
//! Here are those that no other file is about.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use ribera_agent::ports::SpoolDisk;
use ribera_agent::report::{Exit, Report};
use ribera_agent::run::collect::RunMode;
use ribera_storage::heartbeat::Heartbeat;
use ribera_storage::{ObjectStore, Unit, paths};

use crate::cli::{agent, backfill, json, place};
use crate::each::{KINDS, Kind, Place};
use crate::fixture::{CONFIG, World, block_on, day, extract, request};
use crate::{mariadb_server, postgres_server};

/// A program that only looks alive is the worst: while a server does not answer the heart beats on, and what
/// became of the cycle is in the next beat.
#[test]
fn the_heart_beats_while_a_source_is_stuck_and_then_tells_the_failure() {
    let place = Place::new(Kind::Mariadb, "atascada");
    let world = place.world(
        "[adapter.caja.ventas]\nfrom = \"lineas\"\ndate = \"fecha\"\nwhere = \"SLEEP(20) = 0\"\n\
         [adapter.caja.ventas.columns]\nticket_id = \"ticket\"\nlinea = \"linea\"\nproducto_id = \"producto\"\n\
         cantidad = \"cantidad\"\ntotal = \"total\"\n",
    );
    let columns =
        "ticket INTEGER, linea INTEGER, fecha DATE, producto VARCHAR(20), cantidad INTEGER, total NUMERIC(18,2)";
    place.create(&world, "lineas", columns);
    place.sql(&world, &["INSERT INTO lineas VALUES (1, 1, CURRENT_DATE - INTERVAL 1 DAY, 'p', 2, 1.05)".to_owned()]);
    let mut agent = world.start().unwrap();
    agent.config.limits.chunk_timeout_s = 1;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let beat = |world: &World| -> Option<Heartbeat> {
        world.object("agents/s1/heartbeat.json").map(|bytes| serde_json::from_slice(&bytes).unwrap())
    };
    let report: Report = runtime.block_on(async {
        let whole_window = request(RunMode::Cycle);
        let mut cycle = std::pin::pin!(agent.run("run", &whole_window, Duration::ZERO));
        let early = tokio::time::timeout(Duration::from_millis(500), cycle.as_mut()).await;
        assert!(early.is_err(), "the source answers too early");
        let path = paths::heartbeat(&"s1".parse().unwrap()).unwrap();
        world.objects.delete(&path).await.unwrap();
        agent.beat(&[]).await.unwrap();
        assert!(beat(&world).is_some(), "it beats while the cycle waits");
        tokio::time::timeout(Duration::from_secs(60), cycle).await.expect("the cycle ends by itself")
    });
    assert_eq!(report.exit(), Exit::Source);
    runtime.block_on(agent.beat(&[])).unwrap();
    let outcome = &beat(&world).unwrap().runs[0].outcome;
    assert!(outcome.contains("did not answer within 1 s"), "{outcome}");
}

/// Highest resident memory of a program in kB, looked at until it ends; and its exit code.
fn peak_kb(folder: &Path, words: &[&str]) -> (u64, Option<i32>) {
    let mut running = Command::new(env!("CARGO_BIN_EXE_ribera-agent"))
        .arg("--config")
        .arg(folder.join("agent.toml"))
        .args(words)
        // As the allocator of the program that stores get, which gives free memory back.
        .env("MALLOC_MMAP_THRESHOLD_", "131072")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut peak = 0;
    loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", running.id())).unwrap_or_default();
        let high = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
        peak = peak.max(high.unwrap_or(0));
        if let Some(done) = running.try_wait().unwrap() {
            return (peak, done.code());
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn wide_rows_and_a_spool_larger_than_memory_stay_within_64_mb() {
    const LIMIT_KB: u64 = 64 << 10;
    let place = place();
    // 90 MB of text that no compression makes small, in rows of 3 kB, and a row of 1 MB; all in one month,
    // and no index on the day: the source has to sort them all.
    let till = rusqlite::Connection::open(place.path().join("pos.db")).unwrap();
    till.execute_batch(
        "PRAGMA synchronous = OFF;
         WITH RECURSIVE n (i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)
         INSERT INTO lineas SELECT i, 1, date('2017-02-01', '+' || (i % 28) || ' days'), '10:00:00',
             hex(randomblob(1500)), 1, i FROM n;
         INSERT INTO lineas VALUES (5, 1, '2017-02-03', '10:00:00', hex(randomblob(500000)), 1, 5);",
    )
    .unwrap();
    let (peak, code) = peak_kb(place.path(), &backfill(&["--local-only"]));
    assert_eq!(code, Some(0));
    assert!((8 << 10..LIMIT_KB).contains(&peak), "extraction: {peak} kB");
    let spooled: u64 = std::fs::read_dir(place.path().join("agent/spool"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(spooled > 40 << 20, "{spooled} bytes in the spool");
    let (peak, code) = peak_kb(place.path(), &["once"]);
    assert_eq!(code, Some(0));
    assert!((8 << 10..LIMIT_KB).contains(&peak), "start and upload: {peak} kB");
}

/// Two stores of which one name begins the other's, and two datasets likewise.
const NEIGHBOURS: &str = r#"
[[store]]
id = "s"
time_zone = "America/New_York"
adapter = "caja"
source = { kind = "sqlite", path = "pos.db" }

[adapter.caja.ventas_agrupadas]
from = "lineas"
date = "fecha"
[adapter.caja.ventas_agrupadas.columns]
producto_id = "producto"
cantidad = "cantidad"
total = { sql = "centavos", scale = 2 }
"#;

#[test]
fn what_one_store_or_dataset_cleans_up_leaves_a_neighbour_of_nearly_its_name_alone() {
    let mut world = World::with_config(&format!("{CONFIG}{NEIGHBOURS}"));
    let of_neighbours = |world: &World| -> Vec<(String, usize)> {
        let ours = |path: &String| path.contains("/s/ventas/") || path.contains("/ventas/store_id=s/");
        let state = |path: &String| path.starts_with("control/") || path.ends_with("heartbeat.json");
        let all = world.objects_under("").into_iter().filter(|path| !ours(path) && !state(path));
        all.map(|path| (path.clone(), world.object(&path).unwrap().len())).collect()
    };
    world.sell("2017-05-09", 1..4);
    let report = world.once();
    assert_eq!((report.exit(), report.datasets.len()), (Exit::Done, 4), "{:?}", report.problems);
    world.ingest();
    world.once();
    // The neighbours have batches in the spool, lists of differing days and epochs.
    world.config.local_only = true;
    world.sell("2017-05-09", 10..12);
    world.once();
    world.config.local_only = false;
    let ours_alone = |ask| ribera_agent::run::collect::Request {
        ask,
        stores: vec!["s".parse().unwrap()],
        datasets: vec!["ventas".parse().unwrap()],
    };
    let spooled = |world: &World| -> BTreeSet<String> {
        let names = SpoolDisk::list(&world.disk).unwrap().into_iter().map(|(name, _)| name);
        names.filter(|name| !name.starts_with("ventas-s-")).collect()
    };
    let (files, waiting) = (of_neighbours(&world), spooled(&world));
    assert!(files.len() > 10 && waiting.len() >= 3, "{} {waiting:?}", files.len());
    // Of dataset ventas of store s: extracted, replaced, acknowledged, pruned, published; many times.
    world.config.local_only = true;
    for round in 0..4 {
        world.sell("2017-05-09", 20 + round * 10..22 + round * 10);
        let agent = world.start().unwrap();
        let report = block_on(agent.run("test", &ours_alone(RunMode::Cycle), Duration::ZERO));
        assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    }
    assert_eq!((of_neighbours(&world), spooled(&world)), (files, waiting));
    // A journal that is lost is one program's: the spool's files of all its stores are noted and sent again.
    world.config.local_only = false;
    world.once();
    world.ingest();
    let before: BTreeSet<String> = world.objects_under("").into_iter().collect();
    ribera_agent::journal::recover::set_aside(&world.journal_file(), "2017-05-10T16:00:00Z".parse().unwrap()).unwrap();
    world.once();
    world.ingest();
    let after: BTreeSet<String> = world.objects_under("").into_iter().collect();
    let gone: Vec<&String> = before.difference(&after).filter(|path| !path.contains("/differing/")).collect();
    assert!(gone.is_empty(), "{gone:?}");
}

/// A server, a database or a login that writes dates the Spanish or any other way.
#[test]
fn dates_are_read_the_same_whatever_the_servers_locale_says() {
    for kind in KINDS {
        let place = Place::new(kind, "idioma");
        match kind {
            Kind::Mariadb => {
                mariadb_server::server().sql("SET GLOBAL lc_time_names = 'es_ES'");
            }
            Kind::Postgres => {
                let told = "ALTER DATABASE idioma SET datestyle = 'SQL, DMY'; ALTER DATABASE idioma SET lc_time = 'C';
                            ALTER DATABASE idioma SET timezone = 'Asia/Tokyo'";
                postgres_server::server().sql("postgres", told);
            }
            Kind::Sqlite | Kind::Firebird => {}
        }
        let moment = if kind == Kind::Sqlite { "CAST(momento AS TEXT)" } else { "momento" };
        let total = if kind == Kind::Sqlite { "{ sql = \"total\", round = 2 }" } else { "\"total\"" };
        let world = place.world(&format!(
            "[adapter.caja.ventas]\nfrom = \"lineas\"\ndate = \"fecha\"\n[adapter.caja.ventas.columns]\n\
             ticket_id = \"ticket\"\nlinea = \"linea\"\nvendido_en = \"{moment}\"\nproducto_id = \"producto\"\n\
             cantidad = \"cantidad\"\ntotal = {total}\n"
        ));
        if kind == Kind::Sqlite {
            world.sql("DROP TABLE lineas");
        }
        let columns = "ticket INTEGER, linea INTEGER, fecha DATE, momento TIMESTAMP, producto VARCHAR(20),
                       cantidad INTEGER, total NUMERIC(18,2)";
        place.create(&world, "lineas", columns);
        // Days that are other days when day and month change places.
        let dates = ["2017-02-03", "2017-03-02", "2017-01-12", "2017-12-01"];
        let insert = |(index, date): (usize, &&str)| {
            format!("INSERT INTO lineas VALUES ({index}, 1, '{date}', '{date} 01:02:03', 'p', 2, {index}.05)")
        };
        place.sql(&world, &dates.iter().enumerate().map(insert).collect::<Vec<_>>());
        for date in &dates[..3] {
            let report = extract(&world, date, date);
            assert_eq!(report.exit(), Exit::Done, "{kind:?}: {:?}", report.problems);
        }
        let lake = world.lake();
        let found: Vec<(Unit, u64)> = lake.iter().map(|(unit, (rows, _))| (*unit, *rows)).collect();
        assert_eq!(
            found,
            [("2017-01-12", 1), ("2017-02-03", 1), ("2017-03-02", 1)].map(|(date, rows)| (day(date), rows)),
            "{kind:?}"
        );
        for manifest in world.manifests() {
            let rows = &world.rows(&manifest)[0];
            let sold = crate::matrix::show(rows.column_by_name("vendido_en").unwrap(), 0);
            assert_eq!(sold, format!("{}T06:02:03Z", manifest.units[0].unit), "{kind:?}");
            assert!(manifest.units[0].is_proven(), "{kind:?}");
        }
    }
}

/// What a command printed and what it said was wrong with it.
fn problems(folder: &Path, words: &[&str]) -> (i32, Vec<(String, String)>) {
    let told = json(&agent(folder, &[&["--json"], words].concat()));
    let problems = told["problems"].as_array().cloned().unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let code = told["exit_code"].as_i64().unwrap_or(-1) as i32;
    (code, problems.iter().map(|one| (text(&one["message"]), text(&one["hint"]))).collect())
}

type Spoil = fn(&Path);

fn configured(folder: &Path, from: &str, to: &str) {
    let file = folder.join("agent.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{from}");
    std::fs::write(file, text.replace(from, to)).unwrap();
}

fn sql(folder: &Path, text: &str) {
    rusqlite::Connection::open(folder.join("pos.db")).unwrap().execute_batch(text).unwrap();
}

const HISTORY: &[&str] = &["backfill", "--from", "2017-01-01", "--to", "2017-03-31"];

/// What may be wrong, and the code that says so.
const WRONG: &[(&str, i32, Spoil, &[&str])] = &[
    ("no configuration", 2, |folder| std::fs::remove_file(folder.join("agent.toml")).unwrap(), &["once"]),
    ("no TOML", 2, |folder| configured(folder, "folder =", "folder"), &["once"]),
    ("an unknown key", 2, |folder| configured(folder, "adapter = \"caja\"", "adaptor = \"caja\""), &["once"]),
    ("a secret that is not set", 2, |folder| configured(folder, "\"pos.db\"", "\"${NO_SUCH}\""), &["once"]),
    (
        "a value out of bounds",
        2,
        |folder| configured(folder, "[[store]]", "[limits]\nchunk_rows = 0\n[[store]]"),
        &["once"],
    ),
    ("an unknown adapter", 2, |folder| configured(folder, "adapter = \"caja\"", "adapter = \"otra\""), &["once"]),
    ("no time zone", 2, |folder| configured(folder, "time_zone = \"America/New_York\"", ""), &["once"]),
    ("an unknown dataset", 2, |folder| configured(folder, "adapter.caja.ventas", "adapter.caja.pedidos"), &["once"]),
    ("a column that is not mapped", 2, |folder| configured(folder, "ticket_id = \"ticket\"", ""), &["once"]),
    (
        "an unknown parameter",
        2,
        |folder| configured(folder, "date = \"fecha\"", "date = \"fecha\"\nwhere = \"1 = :uno\""),
        &["once"],
    ),
    ("an unknown store", 2, |_| {}, &["once", "--stores", "otra"]),
    ("days in the wrong order", 2, |_| {}, &["extract", "--from", "2017-02-01", "--to", "2017-01-01"]),
    ("nothing to resume", 2, |_| {}, &["backfill", "--resume"]),
    ("no database", 3, |folder| std::fs::remove_file(folder.join("pos.db")).unwrap(), &["once"]),
    (
        "no database file",
        3,
        |folder| std::fs::write(folder.join("pos.db"), "no database at all, only text").unwrap(),
        HISTORY,
    ),
    ("no table", 2, |folder| sql(folder, "ALTER TABLE lineas RENAME TO otras"), HISTORY),
    ("a value that does not fit", 3, |folder| sql(folder, "UPDATE lineas SET hora = 'ayer'"), HISTORY),
    ("a float", 3, |folder| sql(folder, "UPDATE lineas SET cantidad = 0.5"), HISTORY),
    ("a server that refuses", 3, |folder| server(folder, 1), &["once"]),
    ("a server that refuses a backfill", 9, |folder| server(folder, 1), HISTORY),
    ("no object store", 4, |folder| std::fs::write(folder.join("objects"), "a file").unwrap(), HISTORY),
    (
        "a spool that is full",
        5,
        |folder| {
            configured(folder, "[[store]]", "[limits]\nspool_bytes_max = 1048576\n[[store]]");
            sql(
                folder,
                "WITH RECURSIVE n (i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
             INSERT INTO lineas SELECT i, 1, '2017-02-02', '10:00:00', hex(randomblob(2000)), 1, i FROM n",
            );
        },
        HISTORY,
    ),
    ("a folder that is a file", 5, |folder| std::fs::write(folder.join("agent"), "a file").unwrap(), &["once"]),
    (
        "a damaged journal",
        8,
        |folder| {
            std::fs::create_dir_all(folder.join("agent")).unwrap();
            std::fs::write(folder.join("agent/journal.sqlite"), [7; 9000]).unwrap();
        },
        &["once"],
    ),
    (
        "a journal of a later version",
        1,
        |folder| {
            std::fs::create_dir_all(folder.join("agent")).unwrap();
            let journal = rusqlite::Connection::open(folder.join("agent/journal.sqlite")).unwrap();
            journal.execute_batch("PRAGMA user_version = 99; CREATE TABLE x (y)").unwrap();
        },
        &["once"],
    ),
    (
        "a day that cannot be proven",
        6,
        |folder| {
            configured(
                folder,
                "from = \"lineas\"\ndate = \"fecha\"",
                "from = \"lineas\"\ndate = \"fecha\"\nrow_hash = false\norder = [\"RANDOM() LIMIT 1\"]",
            );
            sql(folder, "UPDATE lineas SET fecha = '2017-02-02'");
        },
        &["backfill", "--from", "2017-02-01", "--to", "2017-02-28"],
    ),
];

fn server(folder: &Path, port: u16) {
    configured(
        folder,
        "source = { kind = \"sqlite\", path = \"pos.db\" }",
        &format!(
            "source = {{ kind = \"mysql\", host = \"127.0.0.1\", port = {port}, database = \"d\", user = \"u\" }}"
        ),
    );
}

#[test]
fn every_error_that_an_operator_meets_ends_with_a_command() {
    const COMMANDS: [&str; 7] = ["ribera-agent", "ribera", "df", "ls", "sqlite3", "export", "systemctl"];
    let mut codes = BTreeSet::new();
    let mut wrong = Vec::new();
    for (what, code, spoil, words) in WRONG {
        let place = place();
        spoil(place.path());
        let (found, told) = problems(place.path(), words);
        codes.insert(found);
        if found != *code || told.is_empty() {
            wrong.push(format!("{what}: code {found}, not {code}: {told:?}"));
        }
        for (message, hint) in &told {
            let is_command = hint.split_whitespace().any(|word| COMMANDS.contains(&word));
            if !is_command || message.is_empty() {
                wrong.push(format!("{what}: {message:?} ends with {hint:?}"));
            }
        }
        // The same for people: the last line is the command.
        let text = agent(place.path(), words);
        let text = String::from_utf8(text.stderr).unwrap();
        if !text.lines().last().unwrap_or_default().starts_with("  pruebe: ") {
            wrong.push(format!("{what}: {text}"));
        }
    }
    // One agent is at work already.
    let place = place();
    std::fs::create_dir_all(place.path().join("agent")).unwrap();
    let lock = std::fs::File::create(place.path().join("agent/agent.lock")).unwrap();
    lock.lock().unwrap();
    let (found, told) = problems(place.path(), &["once"]);
    codes.insert(found);
    if told.len() != 1 || !told[0].1.contains("systemctl") {
        wrong.push(format!("locked: {told:?}"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(codes.into_iter().collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7, 8, 9], "every code of docs/agent.md");
}
