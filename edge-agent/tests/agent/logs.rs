//! The log file of the program itself: bounded, turned over in the middle of a run, silent about
//! secrets, and never in the way.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use crate::fixture::CONFIG;
use crate::{firebird_server, mariadb_server, postgres_server};

const TILL: &str = "CREATE TABLE lineas (ticket INTEGER, linea INTEGER, fecha TEXT, hora TEXT, producto TEXT, \
    cantidad INTEGER, centavos INTEGER, PRIMARY KEY (ticket, linea));";

fn place(log: &str, stores: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    rusqlite::Connection::open(folder.path().join("pos.db")).unwrap().execute_batch(TILL).unwrap();
    let (head, rest) = CONFIG.split_once("[[store]]").unwrap();
    std::fs::write(folder.path().join("agent.toml"), format!("{head}{log}\n{stores}[[store]]{rest}")).unwrap();
    folder
}

fn agent(folder: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ribera-agent"))
        .arg("--config")
        .arg(folder.join("agent.toml"))
        .args(words)
        .env("RIBERA_LOG", "trace")
        .output()
        .unwrap()
}

/// Name and text of each log file, the newest last.
fn logs(folder: &Path) -> Vec<(String, String)> {
    let entries = std::fs::read_dir(folder.join("agent")).unwrap().flatten();
    let name = |entry: &std::fs::DirEntry| entry.file_name().into_string().unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| name(&entry)).filter(|name| name.starts_with("agent.log")).collect();
    names.sort();
    names.reverse();
    names
        .into_iter()
        .map(|name| (name.clone(), std::fs::read_to_string(folder.join("agent").join(&name)).unwrap()))
        .collect()
}

#[test]
fn a_log_stays_within_its_bytes_though_one_run_turns_it_over_many_times() {
    // Stores whose databases are not there: a few lines each.
    let stores: String = (0..120)
        .map(|number| {
            format!(
                "[[store]]\nid = \"x{number:03}\"\ntime_zone = \"UTC\"\nadapter = \"caja\"\nsource = {{ kind = \"sqlite\", path = \"none-{number}.db\" }}\n"
            )
        })
        .collect();
    let place = place("[log]\nfile = \"agent.log\"\nbytes_max = 20000\nfiles = 4", &stores);
    let done = agent(place.path(), &["once"]);
    assert_eq!(done.status.code(), Some(3), "the stores that are not there");
    let logs = logs(place.path());
    let names: Vec<&str> = logs.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["agent.log.3", "agent.log.2", "agent.log.1", "agent.log"]);
    let sizes: Vec<usize> = logs.iter().map(|(_, text)| text.len()).collect();
    assert!(sizes.iter().sum::<usize>() <= 20_000 && sizes[..3].iter().all(|size| *size > 3_000), "{sizes:?}");
    // The newest lines are whole, in order, and say what happened.
    let lines: Vec<serde_json::Value> = logs
        .iter()
        .flat_map(|(_, text)| text.lines())
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let last = lines.iter().rev().find_map(|line| line["store"].as_str());
    assert_eq!(last, Some("x119"));
    assert!(lines.iter().all(|line| line["timestamp"].is_string() && line["level"].is_string()), "{lines:?}");
    assert!(!lines.iter().any(|line| line["store"] == "x000"), "the oldest lines are gone");
}

#[test]
fn a_log_that_cannot_be_written_stops_nothing() {
    let full = place("[log]\nfile = \"agent.log\"\nformat = \"text\"", "");
    std::fs::create_dir_all(full.path().join("agent")).unwrap();
    std::os::unix::fs::symlink("/dev/full", full.path().join("agent/agent.log")).unwrap();
    assert_eq!(agent(full.path(), &["once"]).status.code(), Some(0));
    let no_folder = place("[log]\nfile = \"../pos.db/agent.log\"", "");
    assert_eq!(agent(no_folder.path(), &["once"]).status.code(), Some(0));
    let text = place("[log]\nfile = \"agent.log\"\nformat = \"text\"\nlevel = \"info\"", "");
    assert_eq!(agent(text.path(), &["once"]).status.code(), Some(0));
    let told = logs(text.path()).remove(0).1;
    assert!(told.contains("begins") && told.contains("INFO") && told.contains("store=\"s1\""), "{told}");
    assert_eq!(agent(text.path(), &["once", "--dry-run"]).status.code(), Some(0));
    assert_eq!(logs(text.path()).remove(0).1, told, "a dry run writes nothing");
    for bad in ["files = 0", "bytes_max = 10000", "level = \"loud\"", "colour = 1"] {
        let place = place(&format!("[log]\nfile = \"agent.log\"\n{bad}"), "");
        let refused = agent(place.path(), &["once"]);
        assert_eq!(refused.status.code(), Some(2), "{bad}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains(bad.split(' ').next().unwrap()), "{refused:?}");
    }
}

#[test]
fn no_secret_is_in_any_line_whatever_goes_wrong() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let ports = [
        ("mysql", mariadb_server::server().port),
        ("postgres", postgres_server::server().port),
        ("firebird", firebird_server::server().port),
    ];
    let secret = |kind: &str, what: &str| format!("S3cr3t-{kind}-{what}");
    let mut stores = String::new();
    for (kind, port) in ports {
        for (what, port, user) in [("clave", port, "lector"), ("usuario", port, "nadie"), ("cerrado", closed, "lector")]
        {
            let password = secret(kind, what);
            stores.push_str(&format!(
                "[[store]]\nid = \"{kind}-{what}\"\ntime_zone = \"UTC\"\nadapter = \"caja\"\n[store.source]\nkind = \"{kind}\"\n\
                 host = \"127.0.0.1\"\nport = {port}\ndatabase = \"d\"\nuser = \"{user}\"\npassword = \"{password}\"\n"
            ));
        }
    }
    let log = "hash_salt = \"S3cr3t-salt-of-some-length\"\n[log]\nfile = \"agent.log\"\nlevel = \"debug\"";
    let place = place(log, &stores);
    let mut told = String::new();
    // The object store is away, and so is the proxy to it.
    let text = std::fs::read_to_string(place.path().join("agent.toml")).unwrap();
    let away = format!(
        "object_store = {{ s3 = {{ endpoint = \"http://127.0.0.1:{closed}\", bucket = \"cubo\", region = \"eu-west-1\", access_key_id = \"K\", \
         secret_access_key = \"S3cr3t-s3\", session_token = \"S3cr3t-token\", timeout_s = 1, \
         proxy = {{ url = \"http://127.0.0.1:{closed}\", user = \"u\", password = \"S3cr3t-proxy\" }} }} }}"
    );
    let folder = "object_store = { folder = \"objects\" }";
    assert!(text.contains(folder), "{text}");
    std::fs::write(place.path().join("agent.toml"), text.replace(folder, &away)).unwrap();
    let done = agent(place.path(), &["check"]);
    assert!([Some(3), Some(4)].contains(&done.status.code()), "{done:?}");
    told += &String::from_utf8_lossy(&[done.stdout, done.stderr].concat());
    assert!(told.contains(&closed.to_string()), "the object store was tried: {told}");
    std::fs::write(place.path().join("agent.toml"), text).unwrap();
    for words in [
        &["once"][..],
        &["once", "--json"],
        &["check"],
        &["backfill", "--from", "2026-01-01", "--to", "2026-01-02"],
        &["config", "check"],
    ] {
        let done = agent(place.path(), words);
        told += &String::from_utf8_lossy(&done.stdout);
        told += &String::from_utf8_lossy(&done.stderr);
    }
    let logs = logs(place.path());
    let lines: usize = logs.iter().map(|(_, text)| text.lines().count()).sum();
    for (kind, _) in ports {
        let store = format!("{kind}-clave");
        assert!(logs.iter().any(|(_, text)| text.contains(&store)) && told.contains(&store), "{store} was tried");
    }
    assert!(lines > 15, "{lines}");
    for file in std::fs::read_dir(place.path().join("agent"))
        .unwrap()
        .chain(std::fs::read_dir(place.path().join("agent/reports")).unwrap())
    {
        let path = file.unwrap().path();
        if path.is_file() {
            told += &String::from_utf8_lossy(&std::fs::read(path).unwrap());
        }
    }
    let leaked: Vec<&str> = told.lines().filter(|line| line.contains("S3cr3t")).collect();
    assert!(leaked.is_empty(), "{leaked:?}");
}

#[test]
fn what_a_database_says_reaches_no_terminal_and_no_log_as_a_command_to_it() {
    use ribera_storage::text::is_control;
    for format in ["json", "text"] {
        let place = place(&format!("[log]\nfile = \"agent.log\"\nformat = \"{format}\""), "");
        let config = std::fs::read_to_string(place.path().join("agent.toml")).unwrap();
        let hostile =
            config.replace("from = \"lineas\"", r#"from = "[no\u001b[2J\u007f\u009b1m\u202e\u2066\u061c\r]""#);
        assert_ne!(config, hostile);
        std::fs::write(place.path().join("agent.toml"), hostile).unwrap();
        for words in [&["once"][..], &["check"], &["once", "--json"], &["config", "check"]] {
            let done = agent(place.path(), words);
            for out in [done.stdout, done.stderr] {
                let text = String::from_utf8(out).unwrap();
                let bad: Vec<char> = text.chars().filter(|letter| is_control(*letter) && *letter != '\n').collect();
                assert!(bad.is_empty(), "{words:?}: {bad:?} in {text:?}");
            }
        }
        let log: String = logs(place.path()).into_iter().map(|(_, text)| text).collect();
        assert!(log.contains("2J"), "the fault is there: {log}");
        assert!(!log.chars().any(|letter| is_control(letter) && letter != '\n'), "{format}: {log:?}");
    }
}

#[test]
fn a_configuration_that_windows_programs_saved_has_its_log_file_all_the_same() {
    let place = place("[log]\nfile = \"agent.log\"", "");
    let file = place.path().join("agent.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let wide: Vec<u8> = [0xFF, 0xFE].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect();
    let marked = [b"\xEF\xBB\xBF", text.as_bytes()].concat();
    for bytes in [wide, marked] {
        std::fs::write(&file, bytes).unwrap();
        assert_eq!(agent(place.path(), &["once"]).status.code(), Some(0));
        assert_eq!(logs(place.path()).len(), 1);
        std::fs::remove_dir_all(place.path().join("agent")).unwrap();
    }
}
