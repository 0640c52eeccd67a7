//! The program itself: its exit codes, its JSON, what it leaves on the disk.

use std::path::Path;
use std::process::{Command, Output};

use ribera_storage::batch::{Ack, AckOutcome, Facts, Manifest};
use ribera_storage::{Unit, paths};
use serde_json::Value;

use crate::fixture::CONFIG;

const TILL: &str = "
    CREATE TABLE lineas (ticket INTEGER, linea INTEGER, fecha TEXT, hora TEXT, producto TEXT,
                         cantidad INTEGER, centavos INTEGER, PRIMARY KEY (ticket, linea));
    INSERT INTO lineas VALUES (1, 1, '2017-01-02', '10:00:00', 'a', 1, 150), (2, 1, '2017-03-04', '11:00:00', 'b', 2, 250);
";

/// A folder with a till and a configuration.
pub fn place() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    rusqlite::Connection::open(folder.path().join("pos.db")).unwrap().execute_batch(TILL).unwrap();
    let config =
        CONFIG.replace("adapter = \"caja\"", "opened = \"2017-01-01\"\nclosed = \"2017-03-31\"\nadapter = \"caja\"");
    std::fs::write(folder.path().join("agent.toml"), config).unwrap();
    folder
}

pub fn agent(folder: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ribera-agent"))
        .arg("--config")
        .arg(folder.join("agent.toml"))
        .args(words)
        .env_remove("RIBERA_LANG")
        .output()
        .unwrap()
}

pub fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {} {}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    })
}

const YEAR: [&str; 4] = ["--from", "2017-01-01", "--to", "2017-12-31"];

pub fn backfill<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["--json", "backfill"], &YEAR[..], more].concat()
}

#[test]
fn a_backfill_reports_in_json_and_running_it_again_sends_nothing() {
    let place = place();
    let first = agent(place.path(), &backfill(&[]));
    assert_eq!(first.status.code(), Some(0), "{first:?}");
    let report = json(&first);
    assert_eq!((report["datasets"][0]["batches"].as_u64(), report["datasets"][0]["rows"].as_u64()), (Some(3), Some(2)));
    assert_eq!((report["upload"]["batches"].as_u64(), report["exit_code"].as_u64()), (Some(3), Some(0)));
    let again = json(&agent(place.path(), &backfill(&[])));
    assert_eq!(again["upload"]["batches"].as_u64(), Some(0));
    let once = json(&agent(place.path(), &["once", "--json"]));
    assert_eq!((once["upload"]["batches"].as_u64(), once["upload"]["waiting"].as_u64()), (Some(0), Some(3)));
    let spool = json(&agent(place.path(), &["spool", "--json"]));
    assert_eq!(spool["batches"].as_array().unwrap().len(), 3);
    assert_eq!(spool["batches"][0]["state"], "uploaded");
    assert!(place.path().join("objects/agents/s1/heartbeat.json").exists());
}

#[test]
fn a_dry_run_leaves_no_trace() {
    let place = place();
    let report = json(&agent(place.path(), &backfill(&["--dry-run"])));
    assert_eq!(report["datasets"][0]["planned"].as_array().unwrap().len(), 90);
    assert!(!place.path().join("agent").exists());
    assert!(!place.path().join("objects/inbox").exists() && !place.path().join("objects/landing").exists());
}

/// Answers every batch in the inbox: the lake holds what `held` makes of what was sent.
pub fn acknowledge(folder: &Path, held: impl Fn(&mut Facts)) {
    let inbox = std::fs::read_dir(folder.join("objects/inbox/s1/ventas")).unwrap();
    for manifest in inbox.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()) {
        let sent = Manifest::from_json(&manifest).unwrap();
        let mut units: Vec<(Unit, Facts)> = sent.units.iter().map(|one| (one.unit, one.file.clone())).collect();
        units.iter_mut().for_each(|(_, facts)| held(facts));
        let rows = units.iter().map(|(_, facts)| facts.rows).sum();
        let ack = Ack {
            manifest_sha256: ribera_storage::hex::sha256_hex(&manifest),
            outcome: AckOutcome::Committed { version: 1, rows, units },
            acknowledged_at: "2017-04-01T00:00:00Z".parse().unwrap(),
            batch: sent.batch,
        };
        let path = folder.join("objects").join(paths::ack(&ack.batch).unwrap().as_str());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, serde_json::to_vec(&ack).unwrap()).unwrap();
    }
}

#[test]
fn an_audit_shows_source_sent_and_lake_side_by_side() {
    let place = place();
    let audit = |more: &[&str]| agent(place.path(), &[&["audit"], &YEAR[..], more].concat());
    let verdicts = |output: &Output| -> Vec<(String, String)> {
        let days = json(output)["days"].as_array().unwrap().clone();
        let text = |day: &Value, field: &str| day[field].as_str().unwrap().to_owned();
        days.iter()
            .filter(|day| day["source"]["rows"] != 0)
            .map(|day| (text(day, "day"), text(day, "verdict")))
            .collect()
    };
    let both = |first: &str, second: &str| {
        vec![("2017-01-02".to_owned(), first.to_owned()), ("2017-03-04".to_owned(), second.to_owned())]
    };
    let unsent = audit(&["--json"]);
    assert_eq!((unsent.status.code(), verdicts(&unsent)), (Some(6), both("source_differs", "source_differs")));
    assert_eq!(agent(place.path(), &backfill(&[])).status.code(), Some(0));
    let waiting = audit(&["--json"]);
    assert_eq!((waiting.status.code(), verdicts(&waiting)), (Some(6), both("waiting", "waiting")));
    acknowledge(place.path(), |_| {});
    agent(place.path(), &["once"]);
    let agreed = audit(&["--json"]);
    assert_eq!((agreed.status.code(), verdicts(&agreed)), (Some(0), both("agrees", "agrees")));
    assert_eq!(json(&agreed)["days"][1]["lake"]["sums"]["total"], "1.50");
    let quiet = String::from_utf8(audit(&[]).stdout).unwrap();
    assert!(quiet.contains("días que coinciden: 90 / 90") && !quiet.contains("2017-01-02"), "{quiet}");
    let till = rusqlite::Connection::open(place.path().join("pos.db")).unwrap();
    till.execute("UPDATE lineas SET centavos = 151 WHERE ticket = 1", []).unwrap();
    let changed = audit(&[]);
    let told = String::from_utf8(changed.stdout).unwrap();
    assert_eq!(changed.status.code(), Some(6));
    for word in ["2017-01-02", "la fuente difiere", "1.51", "1.50", "extract --stores s1 --datasets ventas"] {
        assert!(told.contains(word), "{word}: {told}");
    }
    assert!(!told.contains("2017-03-04"), "{told}");
    // Sent again; and now the lake says that it holds something else.
    agent(place.path(), &backfill(&[]));
    acknowledge(place.path(), |facts| facts.rows += 1);
    agent(place.path(), &["once"]);
    assert_eq!(verdicts(&audit(&["--json"])), both("lake_differs", "agrees"));
}

#[test]
fn a_backfill_leaves_out_who_is_down_says_so_and_can_be_resumed() {
    let place = place();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let down = format!(
        "[[store]]\nid = \"lejos\"\ntime_zone = \"Europe/Madrid\"\nadapter = \"caja\"\n[store.source]\nkind = \"mysql\"\n\
         host = \"127.0.0.1\"\nport = {closed}\ndatabase = \"d\"\nuser = \"u\"\n"
    );
    let config = std::fs::read_to_string(place.path().join("agent.toml")).unwrap();
    let with_down = format!("{config}\n{down}");
    std::fs::write(place.path().join("agent.toml"), &with_down).unwrap();
    assert_eq!(agent(place.path(), &["backfill", "--resume"]).status.code(), Some(2), "nothing was begun");
    let some = agent(place.path(), &backfill(&["--oldest-first", "--sequential"]));
    assert_eq!(some.status.code(), Some(9), "{some:?}");
    let report = json(&some);
    assert_eq!((report["datasets"][0]["batches"].as_u64(), report["exit_code"].as_u64()), (Some(3), Some(9)));
    assert_eq!(report["problems"][0]["store"], "lejos");
    // The oldest month was extracted first.
    assert_eq!(report["datasets"][0]["planned"][0]["unit"], "2017-01-01");
    let none = agent(place.path(), &backfill(&["--stores", "lejos"]));
    assert_eq!(none.status.code(), Some(9));
    // The other store is back, in the shape of a file.
    std::fs::write(
        place.path().join("agent.toml"),
        with_down.split("[store.source]\nkind = \"mysql\"").next().unwrap().to_owned()
            + "source = { kind = \"sqlite\", path = \"pos.db\" }\n",
    )
    .unwrap();
    let resumed = agent(place.path(), &["--json", "backfill", "--resume"]);
    assert_eq!(resumed.status.code(), Some(0), "{resumed:?}");
    let report = json(&resumed);
    assert_eq!(
        (report["datasets"].as_array().unwrap().len(), report["datasets"][0]["store"].as_str()),
        (1, Some("lejos"))
    );
    assert_eq!(agent(place.path(), &["backfill", "--resume"]).status.code(), Some(2), "it is done");
    let book = std::fs::read_to_string(place.path().join("agent/logbook.csv")).unwrap();
    assert!(book.lines().nth(1).unwrap().contains(",backfill,s1,ventas,2017-01-01,2017-03-31,done,3,3,2,"), "{book}");
    assert!(std::fs::read_dir(place.path().join("agent/reports")).unwrap().count() >= 2);
}

#[test]
fn a_configuration_is_checked_without_asking_anybody() {
    let place = place();
    let checked = agent(place.path(), &["config", "check", "--json"]);
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    let stores = json(&checked);
    assert_eq!(
        (stores["stores"][0]["source"].as_str(), stores["stores"][0]["datasets"][0].as_str()),
        (Some("sqlite"), Some("ventas"))
    );
    let text = std::fs::read_to_string(place.path().join("agent.toml")).unwrap();
    std::fs::write(place.path().join("agent.toml"), text.replace("adapter = \"caja\"", "adaptor = \"caja\"")).unwrap();
    let refused = agent(place.path(), &["config", "check"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("adaptor"), "{refused:?}");
}

#[test]
fn what_is_installed_starts_this_program_and_may_write_only_its_folders() {
    let place = place();
    let to = place.path().display().to_string();
    let install = |more: &[&str]| agent(place.path(), &[&["install", "--to", &to], more].concat());
    assert_eq!(install(&[]).status.code(), Some(0));
    let unit = std::fs::read_to_string(place.path().join("ribera-agent.service")).unwrap();
    let program = env!("CARGO_BIN_EXE_ribera-agent");
    for line in [
        format!("ExecStart={program} --config {to}/agent.toml run"),
        format!("ReadWritePaths={to}/agent {to}/objects"),
        "User=ribera".to_owned(),
        "ProtectSystem=strict".to_owned(),
    ] {
        assert!(unit.lines().any(|one| one == line), "{line}\n{unit}");
    }
    assert_eq!(install(&[]).status.code(), Some(0), "the same again is nothing new");
    std::fs::write(place.path().join("ribera-agent.service"), "mine").unwrap();
    let refused = install(&[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--force"));
    assert_eq!(std::fs::read_to_string(place.path().join("ribera-agent.service")).unwrap(), "mine");
    assert_eq!(install(&["--force"]).status.code(), Some(0));
    let line = agent(place.path(), &["install", "--cron", "--print", "--user", "caja"]);
    let line = String::from_utf8(line.stdout).unwrap();
    assert!(line.contains(&format!("caja '{program}' --config ")), "{line}");
    assert_eq!(agent(place.path(), &["install", "--print", "--user", "una caja"]).status.code(), Some(2));
}

#[test]
fn a_quick_check_needs_no_secret_and_tells_the_next_step() {
    let place = place();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let store = |id: &str, kind: &str, port: u16| {
        format!(
            "[[store]]\nid = \"{id}\"\ntime_zone = \"Europe/Madrid\"\nadapter = \"caja\"\n[store.source]\n\
             kind = \"{kind}\"\nhost = \"127.0.0.1\"\nport = {port}\ndatabase = \"d\"\nuser = \"u\"\n\
             password = \"${{NO_SUCH_SECRET}}\"\n"
        )
    };
    let open = store("abierta", "postgres", listener.local_addr().unwrap().port());
    let config = format!("{CONFIG}\n{open}{}", store("cerrada", "mysql", closed));
    std::fs::write(place.path().join("agent.toml"), config).unwrap();
    assert_eq!(agent(place.path(), &["once"]).status.code(), Some(2), "a run does need the secret");
    let answer = agent(place.path(), &["check", "--quick", "--json", "--timeout", "2"]);
    assert_eq!(answer.status.code(), Some(3));
    let answer = json(&answer);
    let state = |store: usize| answer["stores"][store]["state"].as_str();
    assert_eq!((state(0), state(1), state(2)), (None, Some("port_ok"), Some("reachable")), "{answer}");
    assert_eq!(answer["causes"]["port_refused"][0], "cerrada");
    assert_eq!(answer["reachable_percent"], 50.0);
    let told = agent(place.path(), &["check", "--quick", "--sequential", "--stores", "cerrada"]);
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("cerrada: el servicio no escucha en ese puerto"), "{told}");
    assert!(!place.path().join("agent").exists(), "looking leaves no trace");
}

#[test]
fn people_read_spanish_first_and_english_when_they_ask() {
    let place = place();
    let spanish = String::from_utf8(agent(place.path(), &["check"]).stdout).unwrap();
    assert!(spanish.contains("tienda") && spanish.contains("bien"), "{spanish}");
    let english = String::from_utf8(agent(place.path(), &["check", "--lang", "en"]).stdout).unwrap();
    assert!(english.contains("store") && english.contains("ok"), "{english}");
    for verb in ["audit", "check", "once", "run", "extract", "backfill", "spool"] {
        let help = String::from_utf8(agent(place.path(), &[verb, "--help"]).stdout).unwrap();
        assert!(help.contains("Ejemplo") && help.contains("/ Example"), "{verb}: {help}");
    }
}

#[test]
fn exit_codes_tell_what_to_do() {
    let place = place();
    let code = |words: &[&str]| agent(place.path(), words).status.code();
    assert_eq!(code(&["backfill"]), Some(2), "dates are missing");
    assert_eq!(code(&["backfill", "--from", "2017-02-01", "--to", "2017-01-01"]), Some(2));
    assert_eq!(code(&["once", "--stores", "otra"]), Some(2));
    assert_eq!(code(&["--config", "/nowhere.toml", "once"]), Some(2));
    // Another agent holds the folder.
    std::fs::create_dir_all(place.path().join("agent")).unwrap();
    let lock = std::fs::File::create(place.path().join("agent/agent.lock")).unwrap();
    lock.lock().unwrap();
    assert_eq!(code(&["once"]), Some(7));
    assert_eq!((code(&["spool"]), code(&["check"])), (Some(0), Some(0)), "looking is always allowed");
    drop(lock);
    // The till is gone.
    std::fs::rename(place.path().join("pos.db"), place.path().join("elsewhere.db")).unwrap();
    assert_eq!((code(&backfill(&[])), code(&["check"])), (Some(3), Some(3)));
    std::fs::rename(place.path().join("elsewhere.db"), place.path().join("pos.db")).unwrap();
    // The object store is gone: the spool fills all the same, and the next run sends it.
    std::fs::rename(place.path().join("objects"), place.path().join("away")).unwrap();
    std::fs::write(place.path().join("objects"), "a file where the folder was").unwrap();
    assert_eq!(code(&backfill(&[])), Some(4));
    assert_eq!(json(&agent(place.path(), &["spool", "--json"]))["batches"].as_array().unwrap().len(), 3);
    std::fs::remove_file(place.path().join("objects")).unwrap();
    std::fs::rename(place.path().join("away"), place.path().join("objects")).unwrap();
    assert_eq!(json(&agent(place.path(), &["once", "--json"]))["upload"]["batches"].as_u64(), Some(3));
}

#[test]
fn a_damaged_journal_has_its_own_code_and_its_remedy_brings_back_what_waited() {
    let place = place();
    let local = backfill(&["--local-only"]);
    assert_eq!(agent(place.path(), &local).status.code(), Some(0));
    let journal = place.path().join("agent/journal.sqlite");
    let bytes = std::fs::read(&journal).unwrap();
    std::fs::write(&journal, &bytes[..bytes.len() / 2]).unwrap();
    let refused = agent(place.path(), &["once"]);
    assert_eq!(refused.status.code(), Some(8));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("once --new-journal"));
    let report = json(&agent(place.path(), &["once", "--new-journal", "--json"]));
    assert_eq!(report["exit_code"].as_u64(), Some(0), "{report}");
    // All days of the three months that waited are there, though the lookback is far later.
    assert_eq!((report["upload"]["batches"].as_u64(), report["datasets"][0]["rows"].as_u64()), (Some(3), Some(2)));
}

#[cfg(unix)]
#[test]
fn a_running_agent_ends_in_order_when_told_to() {
    let place = place();
    let mut running = Command::new(env!("CARGO_BIN_EXE_ribera-agent"))
        .arg("--config")
        .arg(place.path().join("agent.toml"))
        .arg("run")
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let beat = place.path().join("objects/agents/s1/heartbeat.json");
    for _ in 0..600 {
        if beat.exists() {
            break;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(50));
    }
    assert!(beat.exists(), "no heartbeat");
    let told = Command::new("kill").arg("-TERM").arg(running.id().to_string()).status().unwrap();
    assert!(told.success());
    assert_eq!(running.wait().unwrap().code(), Some(0));
}

#[test]
fn the_adapters_that_come_with_the_agent_are_listed_and_printed_without_a_configuration() {
    let nowhere = tempfile::tempdir().unwrap();
    let listed = json(&agent(nowhere.path(), &["--json", "config", "adapters"]));
    let names: Vec<&str> = listed.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["abasto", "mostrador", "quirofano"]);
    let text = |words: &[&str]| String::from_utf8(agent(nowhere.path(), words).stdout).unwrap();
    assert!(text(&["config", "adapters"]).contains("ventas diarias por producto"));
    assert!(text(&["--lang", "en", "config", "adapters"]).contains("daily sales by product"));
    assert!(text(&["config", "adapters", "abasto"]).contains("[adapter.abasto.ventas_agrupadas]"));
    assert!(text(&["config", "adapters", "quirofano", "--grant"]).contains("GRANT SELECT ON PARTIDAS TO RIBERA"));
    let unknown = agent(nowhere.path(), &["config", "adapters", "otro"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("abasto, mostrador, quirofano"));
}

/// An agent that runs, ended with the test.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..300 {
        if is_so() {
            return;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(100));
    }
    panic!("{what} never came");
}

#[test]
fn a_running_agent_carries_out_a_backfill_that_is_registered_beside_its_daily_work() {
    let place = place();
    let run = Command::new(env!("CARGO_BIN_EXE_ribera-agent"))
        .args(["--config", "agent.toml", "run"])
        .current_dir(place.path())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let _running = Running(run);
    let objects = |part: &str| -> usize {
        let listed = Command::new("find").arg(place.path().join("objects")).args(["-path", part]).output().unwrap();
        String::from_utf8_lossy(&listed.stdout).lines().count()
    };
    until("the first heartbeat", || objects("*heartbeat*.json") > 0);
    assert_eq!(agent(place.path(), &["once"]).status.code(), Some(7), "the folder is in use");
    // Stopped before it begins: it stays as it was asked for.
    let told = agent(place.path(), &["backfill", "--from", "2017-01-01", "--to", "2017-03-31"]);
    assert_eq!(told.status.code(), Some(0), "{told:?}");
    let status = || json(&agent(place.path(), &["--json", "backfill", "--status"]));
    // Asked once: of two answers the first could be of before the order was taken.
    let is_over = || {
        let status = status();
        status["backfill"].is_null() && status["waits"] == false
    };
    until("the end of the backfill", is_over);
    let history = objects("*inbox*") + objects("*done*");
    assert!(history >= 3, "a batch for each month at least, got {history}");
    // One that never ends by itself: its source is gone. It is stopped, goes on, and is forgotten.
    std::fs::rename(place.path().join("pos.db"), place.path().join("away.db")).unwrap();
    assert_eq!(agent(place.path(), &["backfill", "--from", "2016-01-01", "--to", "2016-03-31"]).status.code(), Some(0));
    until("the next backfill", || !status()["backfill"].is_null());
    let order = |order: &str| assert_eq!(agent(place.path(), &["backfill", order]).status.code(), Some(0), "{order}");
    order("--stop");
    until("the stop", || status()["backfill"]["stopped"] == true);
    order("--resume");
    until("the resumption", || status()["backfill"]["stopped"] == false);
    order("--cancel");
    until("the end", is_over);
}
