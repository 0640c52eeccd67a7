//! `ribera up` as the real program.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

use crate::fixture::{Lake, january, ventas};
use crate::{cache_folder, components_given, until};

pub struct Up {
    child: Child,
    out: BufReader<ChildStdout>,
    pub address: String,
    log: PathBuf,
}

impl Up {
    pub fn start(lake: &Lake, words: &[&str]) -> Self {
        Self::start_on(lake, "127.0.0.1:0", words)
    }

    pub fn start_on(lake: &Lake, listen: &str, words: &[&str]) -> Self {
        let log = lake.path("up.log");
        let mut child = command(lake, &[&["up", "--json", "--listen", listen], words].concat())
            .env("RIBERA_LOG", "warn,ribera=debug")
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let page = serde_json::from_str::<Value>(&line).unwrap()["page"].as_str().unwrap().to_owned();
        let address = page.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let address = address.replace("0.0.0.0", "127.0.0.1");
        Self { child, out, address, log }
    }

    pub fn ask(&self, method: &str, target: &str, more: &str, body: &str) -> (u16, String) {
        ask(&self.address, method, target, more, body)
    }

    /// Calls of a function so far that `caller` asked for, as the log says.
    pub fn calls(&self, function: &str, caller: &str) -> usize {
        let log = std::fs::read_to_string(&self.log).unwrap();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines
            .filter(|line| line["message"] == "called" && line["function"] == function && line["caller"] == caller)
            .count()
    }

    fn signal(&self, name: &str) {
        let done = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let ended = self.child.try_wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("ribera up: ended before the test: {ended:?}; the last of its log:");
            lines[lines.len().saturating_sub(20)..].iter().for_each(|line| eprintln!("  {line}"));
        }
    }
}

/// Status and body.
pub fn ask(address: &str, method: &str, target: &str, more: &str, body: &str) -> (u16, String) {
    try_ask(address, method, target, more, body).unwrap_or_else(|error| panic!("{method} {target}: {error}"))
}

/// Status and body. An error when the connection ended without an answer: where the system's queue of
/// connections is short (`net.core.somaxconn`), the kernel resets some of many that come at once.
pub fn try_ask(address: &str, method: &str, target: &str, more: &str, body: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    let length = body.len();
    // A server that refuses a long body may end the connection before all of it is sent.
    let _ = write!(
        stream,
        "{method} {target} HTTP/1.1\r\nconnection: close\r\ncontent-length: {length}\r\n{more}\r\n{body}"
    );
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    if answer.is_empty() {
        return Err(read.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()));
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("{method} {target}: {answer:?}"));
    Ok((status, answer.split_once("\r\n\r\n").unwrap().1.to_owned()))
}

fn command(lake: &Lake, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ribera"));
    command.args(words).env("RIBERA_LAKE", lake.root()).env("RIBERA_CACHE", cache_folder());
    command.env("RIBERA_COMPONENTS", components_given().unwrap());
    command
}

fn deliver(lake: &Lake, store: &str, sequence: i8) {
    let days = january(sequence, sequence);
    lake.deliver(&ventas(), &format!("{store}/ventas/000000-{sequence:010}"), &days, |file| file);
}

fn done(lake: &Lake) -> usize {
    lake.files("done").len()
}

#[test]
fn manifests_are_ingested_as_they_arrive_and_the_page_shows_them() {
    let lake = Lake::new(&["s1", "s2"]);
    // One that waited before the start, and of a store whose folder there is not yet.
    deliver(&lake, "s1", 1);
    let mut up = Up::start(&lake, &[]);
    for sequence in 2..=6 {
        deliver(&lake, "s1", sequence);
        deliver(&lake, "s2", sequence);
    }
    lake.wait(until("all ingested", || done(&lake) == 11));
    assert_eq!(up.ask("GET", "/health", "host: 127.0.0.1\r\n", ""), (200, "ok".into()));
    let summary = || up.ask("GET", "/api/v1/summary?dataset=ventas", "host: localhost\r\n", "");
    lake.wait(until("coverage shown", || summary().0 == 200 && summary().1.contains("\"complete\":11")));
    let (status, page) = up.ask("GET", "/", "host: localhost\r\n", "");
    assert!(status == 200 && page.contains("<html"), "{status} {page}");
    up.signal("-TERM");
    assert!(up.child.wait().unwrap().success());
    let mut rest = String::new();
    up.out.read_to_string(&mut rest).unwrap();
    assert_eq!(lake.value("SELECT count(*) FROM ventas"), 110);
}

#[test]
fn small_files_are_merged_by_schedule_while_the_host_serves() {
    let lake = Lake::new(&["s1"]);
    let settings = lake.path("host.toml");
    std::fs::write(&settings, "[schedule]\nmaintain_seconds = 1").unwrap();
    let mut up = Up::start(&lake, &["--settings", settings.to_str().unwrap()]);
    for sequence in 1..=9 {
        deliver(&lake, "s1", sequence);
    }
    let files = || lake.json(&["tables", "ventas"]).0["tables"][0]["files"].as_u64();
    lake.wait(until("ingested", || done(&lake) == 9));
    lake.wait(until("merged", || files() == Some(1)));
    up.signal("-TERM");
    assert!(up.child.wait().unwrap().success());
    assert_eq!(lake.value("SELECT count(*) FROM ventas"), 90);
    assert_eq!(lake.json(&["verify"]).1, 0);
}

#[test]
fn event_bodies_over_http_are_answered_with_outcomes_and_foreign_pages_are_not_let_in() {
    let lake = Lake::new(&["s1"]);
    let up = Up::start(&lake, &[]);
    let event = r#"{"manifests": ["inbox/s1/ventas/000000-0000000009.json"]}"#;
    let (status, body) = up.ask("POST", "/ingest", "host: 127.0.0.1\r\n", event);
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("already_done"), "{body}");
    let (status, body) = up.ask("POST", "/ingest", "host: 127.0.0.1\r\n", "nonsense");
    assert!(status == 400 && body.contains("\"reject\""), "{status} {body}");
    assert_eq!(up.ask("POST", "/sweep", "host: evil.example\r\n", "").0, 403);
    assert_eq!(up.ask("POST", "/sweep", "host: localhost\r\norigin: https://evil.example\r\n", "").0, 403);
    assert_eq!(up.ask("POST", "/coverage", "host: localhost\r\n", "").0, 200);
    assert_eq!(up.ask("DELETE", "/", "host: localhost\r\n", "").0, 405);
}

#[test]
fn a_host_killed_at_any_moment_loses_nothing_and_doubles_nothing() {
    let lake = Lake::new(&["s1", "s2"]);
    for sequence in 1..=8 {
        deliver(&lake, "s1", sequence);
        deliver(&lake, "s2", sequence);
        let up = Up::start(&lake, &[]);
        std::thread::park_timeout(std::time::Duration::from_millis(u64::try_from(sequence).unwrap() * 9));
        up.signal("-KILL");
    }
    let ended = command(&lake, &["up", "--once", "--json"]).output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(done(&lake), 16);
    assert_eq!(lake.value("SELECT count(*) FROM ventas"), 160);
    assert_eq!(lake.json(&["verify"]).1, 0);
}

#[test]
fn up_once_ingests_what_waits_computes_coverage_and_ends_with_the_counts() {
    let lake = Lake::new(&["s1"]);
    deliver(&lake, "s1", 1);
    lake.deliver(&ventas(), "s1/ventas/000000-0000000002", &january(2, 2), |mut file| {
        file.truncate(100);
        file
    });
    let ended = command(&lake, &["up", "--once", "--json"]).output().unwrap();
    let counts: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!((&counts["committed"], &counts["rows"], &counts["quarantined"]), (&1.into(), &10.into(), &1.into()));
    assert_eq!(counts["notable"][0]["reason"], "file_hash_mismatch");
    let (summary, _) = lake.json(&["coverage", "--summary"]);
    assert!(summary.to_string().contains("\"complete\":1"), "{summary}");
}
