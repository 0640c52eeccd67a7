//! Stores beside each other, heartbeats, and files as Windows programs save them.

use std::cell::RefCell;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use ribera_agent::agent::Progress;
use ribera_agent::config::Config;
use ribera_agent::ports::step;
use ribera_agent::report::Exit;
use ribera_agent::run::collect::RunMode;
use ribera_storage::heartbeat::Heartbeat;
use ribera_storage::object::{MemoryStore, list_all};
use ribera_storage::{DatasetName, StoreId, paths};

use crate::fixture::{CONFIG, World, block_on, request};

fn two_stores() -> World {
    let (head, tail) = CONFIG.split_once("[adapter.caja.ventas]").unwrap();
    let second = "[[store]]\nid = \"s2\"\ntime_zone = \"America/New_York\"\nadapter = \"caja\"\nsource = { kind = \"sqlite\", path = \"pos.db\" }\n\n";
    World::with_config(&format!("{head}{second}[adapter.caja.ventas]{tail}"))
}

#[test]
fn a_store_that_may_not_be_written_leaves_the_others_alone() {
    let world = two_stores();
    world.sell("2017-05-09", 1..5);
    // A credential for the first store only.
    let objects = crate::policy::policed(&world.objects);
    let agent = world.start_on(objects, world.journal().unwrap()).unwrap();
    for _ in 0..2 {
        let report = block_on(agent.run("test", &request(RunMode::Cycle), Duration::ZERO));
        assert_eq!(report.exit(), Exit::ObjectStore, "{:?}", report.problems);
        let blamed = report.problems.iter().filter_map(|problem| problem.store.as_ref()).collect::<Vec<_>>();
        assert!(blamed.iter().all(|store| store.as_str() == "s2"), "{:?}", report.problems);
    }
    let sent = world.manifests();
    assert!(!sent.is_empty() && sent.iter().all(|manifest| manifest.batch.store.as_str() == "s1"), "{}", sent.len());
}

#[test]
fn a_heartbeat_holds_the_lines_of_its_own_store_only() {
    let world = two_stores();
    let agent = world.start().unwrap();
    agent.log("store s1, dataset ventas: of the first");
    agent.log("store s2, dataset ventas: of the second");
    agent.log("store s22: of a neighbour of nearly its name");
    agent.log("of nobody");
    block_on(agent.beat(&[])).unwrap();
    let lines = |store: &str| {
        let path = paths::heartbeat(&store.parse().unwrap()).unwrap();
        let beat: Heartbeat = serde_json::from_slice(&world.object(path.as_str()).unwrap()).unwrap();
        beat.log_tail.iter().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(lines("s1"), ["store s1, dataset ventas: of the first"]);
    assert_eq!(lines("s2"), ["store s2, dataset ventas: of the second"]);
    let alone = World::new();
    let agent = alone.start().unwrap();
    agent.log("of nobody");
    block_on(agent.beat(&[])).unwrap();
    let path = paths::heartbeat(&"s1".parse().unwrap()).unwrap();
    let beat: Heartbeat = serde_json::from_slice(&alone.object(path.as_str()).unwrap()).unwrap();
    assert_eq!(beat.log_tail.len(), 1);
}

#[test]
fn an_idle_store_beats_every_ten_minutes_and_a_change_of_state_at_once() {
    let world = World::new();
    world.sell("2017-05-09", 1..5);
    let agent = world.start().unwrap();
    block_on(agent.run("test", &request(RunMode::Cycle), Duration::ZERO));
    world.ingest();
    block_on(agent.run("test", &request(RunMode::Cycle), Duration::ZERO));
    let beats = |seconds: u32| {
        let before = world.fail_points.seen.borrow().iter().filter(|at| **at == step::HEARTBEAT).count();
        for _ in 0..seconds / 15 {
            block_on(ribera_agent::ports::Timer::sleep(&world.clock, Duration::from_secs(15)));
            block_on(agent.beat_if_due(&[])).unwrap();
        }
        world.fail_points.seen.borrow().iter().filter(|at| **at == step::HEARTBEAT).count() - before
    };
    beats(600);
    // A month of it is 4,464 PUTs: 0.02 USD at S3's list price.
    assert_eq!(beats(24 * 3600), 144);
    world.sql("ALTER TABLE lineas RENAME TO otras");
    block_on(agent.run("test", &request(RunMode::Cycle), Duration::ZERO));
    assert_eq!(beats(15), 1, "the cycle failed, and it is told at once");
    assert_eq!(beats(300), 0);
}

#[test]
fn a_configuration_is_read_as_windows_programs_save_it_or_its_encoding_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    let text = CONFIG.replace("id = \"s1\"", "id = \"s1\"\nopened = 2017-01-01\nclosed = \"2027-01-01\"");
    let wide = |unit: fn(u16) -> [u8; 2], mark: [u8; 2]| {
        mark.into_iter().chain(text.encode_utf16().flat_map(unit)).collect::<Vec<u8>>()
    };
    for bytes in [
        wide(u16::to_le_bytes, [0xFF, 0xFE]),
        wide(u16::to_be_bytes, [0xFE, 0xFF]),
        [&[0xEF, 0xBB, 0xBF], text.replace('\n', "\r\n").as_bytes()].concat(),
    ] {
        std::fs::write(&file, bytes).unwrap();
        let config = Config::load(&file, &|_| None).unwrap();
        assert_eq!(config.stores[0].opened, Some(jiff::civil::date(2017, 1, 1)));
        assert_eq!(config.stores[0].closed, Some(jiff::civil::date(2027, 1, 1)));
    }
    let mut ansi = text.replace("# ", "").into_bytes();
    ansi.extend(b"\n# a\xF1o");
    std::fs::write(&file, ansi).unwrap();
    let error = Config::load(&file, &|_| None).unwrap_err().to_string();
    assert!(error.contains("0xf1") && error.contains("Windows-1252") && error.contains("UTF-8"), "{error}");
    std::fs::write(&file, text.replace("2017-01-01", "2017-13-01")).unwrap();
    let error = Config::load(&file, &|_| None).unwrap_err().to_string();
    assert!(error.contains("opened") || error.contains("2017-13-01"), "{error}");
}

#[test]
fn under_cron_the_secrets_of_the_file_beside_the_configuration_are_known_whatever_a_shell_would_make_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    std::fs::write(&file, format!("hash_salt = \"${{CLAVE}}\"\n{CONFIG}")).unwrap();
    let line = Command::new(env!("CARGO_BIN_EXE_ribera-agent"))
        .args(["install", "--cron", "--print", "--user", "caja", "--config", &file.display().to_string()])
        .output()
        .unwrap();
    let line = String::from_utf8(line.stdout).unwrap();
    let line = line.lines().find(|line| line.starts_with("*/15")).unwrap();
    let command = line.split_once(" caja ").unwrap().1;
    // As cron runs it: by sh, with next to no environment. Built with the whole workspace the program needs DuckDB's library.
    let libraries = std::env::vars_os().filter(|(name, _)| name == "LD_LIBRARY_PATH");
    let libraries: Vec<_> = libraries.collect();
    let run = || Command::new("sh").args(["-c", command]).env_clear().envs(libraries.clone()).output().unwrap();
    let refused = run();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!((refused.status.code(), told.contains("CLAVE")), (Some(2), true), "{told}");
    std::fs::write(folder.path().join("agent.env"), "CLAVE=con blancos, $HOME y 'comillas\n").unwrap();
    // The secret is there; the till's database is not.
    let begun = run();
    assert_eq!(begun.status.code(), Some(3), "{}", String::from_utf8_lossy(&begun.stderr));
    std::fs::remove_file(folder.path().join("agent.env")).unwrap();
    let config = std::fs::read_to_string(&file).unwrap().replace("${CLAVE}", "${file:sal.txt}");
    std::fs::write(&file, config).unwrap();
    assert_eq!(run().status.code(), Some(2));
    std::fs::write(folder.path().join("sal.txt"), "una sal de un archivo\n").unwrap();
    assert_eq!(run().status.code(), Some(3));
    std::fs::write(folder.path().join("sal.txt"), "corta\n").unwrap();
    let refused = run();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("hash_salt: must have 16 characters") && !told.contains("corta"), "{told}");
}

#[test]
fn postgres_hashes_a_row_of_more_columns_than_a_function_takes() {
    let columns: Vec<String> = (0..250).map(|column| format!("c{column}")).collect();
    let sql = ribera_agent::sql::Dialect::Postgres.row_hash(&columns).unwrap();
    let server = crate::postgres_server::server();
    let database = server.database("ancha", "UTF8");
    let table: Vec<String> = columns.iter().map(|column| format!("{column} INTEGER DEFAULT 7")).collect();
    server.sql(&database, &format!("CREATE TABLE t ({}); INSERT INTO t DEFAULT VALUES", table.join(", ")));
    let wide = server.sql(&database, &format!("SELECT {sql} FROM t"));
    // The text that is hashed is that of one flat list.
    let flat = vec!["7"; 250].join("\x1f");
    let oracle =
        server.sql(&database, &format!("SELECT SUM(CAST(CAST('x' || LEFT(MD5('{flat}'), 15) AS BIT(60)) AS BIGINT))"));
    assert_eq!(wide, oracle);
}

/// A MariaDB server's greeting as it is recorded, for a user of another plugin; it hears no more.
fn greeting(plugin: &str) -> u16 {
    use std::io::Write;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let capabilities: u32 = 0x0008_0000 | 0x8000 | 0x0200 | 0x0008;
    let [low0, low1, high0, high1] = capabilities.to_le_bytes();
    let mut payload = vec![10];
    payload.extend(b"11.4.2-MariaDB\0");
    payload.extend([7, 0, 0, 0]);
    payload.extend(b"12345678\0");
    payload.extend([low0, low1, 45, 2, 0, high0, high1, 21]);
    payload.extend([0; 10]);
    payload.extend(b"123456789012\0");
    payload.extend(plugin.as_bytes());
    payload.push(0);
    let mut packet = u32::try_from(payload.len()).unwrap().to_le_bytes()[..3].to_vec();
    packet.push(0);
    packet.extend(payload);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            // A client that goes away is no fault.
            let _ = stream.write_all(&packet);
            let _ = std::io::Read::read(&mut stream, &mut [0; 512]);
        }
    });
    port
}

#[test]
fn a_login_by_a_plugin_that_is_not_spoken_is_named() {
    for plugin in ["client_ed25519", "auth_gssapi_client", "mysql_old_password"] {
        let text = CONFIG.replace(
            "source = { kind = \"sqlite\", path = \"pos.db\" }",
            &format!(
                "source = {{ kind = \"mariadb\", host = \"127.0.0.1\", port = {}, database = \"x\", user = \"moderno\", password = \"secret\", tls = \"off\" }}",
                greeting(plugin)
            ),
        );
        let world = World::with_config(&text);
        let report = crate::fixture::extract(&world, "2017-05-09", "2017-05-09");
        let problem = &report.problems[0];
        assert_eq!(problem.kind, "config", "{problem:?}");
        assert!(problem.message.contains(plugin) && problem.message.contains("mysql_native_password"), "{problem:?}");
    }
}

/// How many manifests have been sent whenever a batch begins.
struct Heard {
    objects: MemoryStore,
    seen: Rc<RefCell<Vec<usize>>>,
}

impl Progress for Heard {
    fn batch_begins(&self, _: &StoreId, _: &DatasetName, _: u64) {
        let sent = ["inbox/", "done/"].map(|prefix| block_on(list_all(&self.objects, prefix, None)).unwrap().len());
        self.seen.borrow_mut().push(sent.iter().sum());
    }
}

#[test]
fn between_two_months_of_history_todays_sales_leave_and_what_waits_is_sent() {
    let world = World::with_config(
        &CONFIG.replace("folder = \"agent\"", "folder = \"agent\"\nlimits = { backfill_hours = \"22:00-23:00\" }"),
    );
    for (index, date) in crate::fixture::days("2016-12-01", "2017-03-31").iter().enumerate() {
        world.sell(&date.to_string(), index as u32 * 10..index as u32 * 10 + 2);
    }
    world.once();
    world.ingest();
    let mut agent = world.start().unwrap();
    agent.beside_daily_work = true;
    // A sale after the backfill was asked for at noon: it must not wait for ten at night.
    world.sell("2017-05-10", 90_000..90_003);
    let seen = Rc::new(RefCell::new(Vec::new()));
    agent.progress = Rc::new(Heard { objects: world.objects.clone(), seen: seen.clone() });
    world.clock.set("2017-05-10T18:00:00Z");
    let ask = RunMode::Backfill { days: crate::fixture::days("2016-12-01", "2017-03-31"), force: false };
    let report = block_on(agent.run("backfill", &request(ask), Duration::ZERO));
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    let sent = world.manifests();
    let of = |date: &str| {
        sent.iter().find(|one| one.units.iter().any(|facts| facts.unit == crate::fixture::day(date))).unwrap()
    };
    let today = of("2017-05-10").agent.extraction_finished_at;
    let history = of("2017-03-15").agent.extraction_finished_at;
    assert!(today < history, "today at {today}, history at {history}");
    // A month is in the object store before the next is read: what had been sent when each began.
    let seen = seen.borrow();
    assert!(seen.len() >= 4 && seen.windows(2).all(|pair| pair[0] < pair[1]), "{seen:?}");
}
