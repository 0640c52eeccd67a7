//! HTTP callers: however many there are, and however slow, the host's own work goes on.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ribera_core::headers::SECURITY_HEADERS;

use crate::fixture::{Lake, january, ventas};
use crate::up::Up;

fn started(settings: &str) -> (Lake, Up) {
    let lake = Lake::new(&["s1", "s2"]);
    lake.batch("s1/ventas/000000-0000000001", &january(1, 9));
    let file = lake.path("host.toml");
    std::fs::write(&file, settings).unwrap();
    let up = Up::start(&lake, &["--settings", file.to_str().unwrap()]);
    (lake, up)
}

/// Until the server ends the connection.
fn rest(mut stream: TcpStream) -> (String, Duration) {
    let begun = Instant::now();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("not cut off: {error}"),
        _ => (String::from_utf8_lossy(&answer).into_owned(), begun.elapsed()),
    }
}

fn connect(up: &Up, sent: &str) -> TcpStream {
    let mut stream = TcpStream::connect(&up.address).unwrap();
    stream.write_all(sent.as_bytes()).unwrap();
    stream
}

#[test]
fn a_client_that_never_ends_its_request_is_cut_off() {
    let (_lake, up) = started("[http]\nrequest_seconds_max = 1");
    for sent in ["", "GET / HT", "GET / HTTP/1.1\r\nhost: localhost\r\nx: "] {
        let (_, took) = rest(connect(&up, sent));
        assert!(took < Duration::from_secs(10), "{sent:?}: {took:?}");
    }
    let (answer, took) = rest(connect(&up, "POST /ingest HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{"));
    assert!(answer.starts_with("HTTP/1.1 408") && took < Duration::from_secs(10), "{answer} {took:?}");
    // An idle connection that was useful once.
    let (answer, took) = rest(connect(&up, "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"));
    assert!(answer.ends_with("ok") && took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_client_that_sends_a_byte_now_and_then_is_cut_off_too() {
    let (_lake, up) = started("[http]\nrequest_seconds_max = 1");
    let mut stream = connect(&up, "GET / HTTP/1.1\r\nhost: localhost\r\nx: ");
    let begun = Instant::now();
    while stream.write_all(b"a").is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(10), "still open");
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

#[test]
fn slow_clients_take_all_connections_for_a_while_only() {
    let (_lake, up) = started("[http]\nrequest_seconds_max = 1\nconnections_max = 2");
    let slow: Vec<TcpStream> = (0..6).map(|_| connect(&up, "GET / HTTP/1.1\r\n")).collect();
    assert_eq!(up.ask("GET", "/health", "host: localhost\r\n", ""), (200, "ok".into()));
    drop(slow);
}

#[test]
fn bodies_and_headers_beyond_their_bounds_are_refused() {
    let (_lake, up) = started("");
    let long = "x".repeat(2 << 20);
    assert_eq!(up.ask("POST", "/ingest", "host: localhost\r\n", &long).0, 400);
    let mut stream = TcpStream::connect(&up.address).unwrap();
    // The server may end the connection while this is sent.
    let _ = write!(stream, "GET / HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "y".repeat(200 << 10));
    assert!(!rest(stream).0.starts_with("HTTP/1.1 200"));
    assert_eq!(up.ask("GET", "/health", "host: localhost\r\n", ""), (200, "ok".into()));
}

#[test]
fn a_thousand_calls_at_once_cause_two_computations_and_the_schedule_goes_on() {
    // A connection each.
    let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limits.maximum, ..limits };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    let (lake, up) = started("[schedule]\ncoverage_seconds = 1\nsweep_seconds = 1");
    lake.wait(crate::until("started", || up.calls("coverage", "Host") >= 1));
    let before = up.calls("coverage", "Host");
    let begun = Instant::now();
    let callers: Vec<_> = (0..1000)
        .map(|_| {
            let address = up.address.clone();
            let call = move || answer_at_last(&address, "/coverage");
            std::thread::Builder::new().stack_size(128 << 10).spawn(call).unwrap()
        })
        .collect();
    let answers: Vec<u16> = callers.into_iter().map(|caller| caller.join().unwrap()).collect();
    let took = begun.elapsed();
    // Each five seconds there may be one more.
    let runs_max = 2 + usize::try_from(took.as_secs() / 5).unwrap();
    let runs = up.calls("coverage", "Outside");
    assert!((1..=runs_max).contains(&runs), "{runs} computations for callers in {took:?}");
    assert_eq!(answers.len(), 1000);
    assert!(answers.iter().all(|status| matches!(status, 200 | 429)), "{answers:?}");
    assert!(answers.contains(&200));
    lake.wait(crate::until("the host's own schedule", || up.calls("coverage", "Host") >= before + 2));
}

/// The status of a POST. The kernel may reset some of many connections that come at once, before the host sees
/// them: such a caller calls again.
fn answer_at_last(address: &str, target: &str) -> u16 {
    let given_up = Instant::now() + Duration::from_secs(60);
    loop {
        match crate::up::try_ask(address, "POST", target, "host: localhost\r\n", "") {
            Ok((status, _)) => return status,
            Err(error) => assert!(Instant::now() < given_up, "POST {target}: {error}"),
        }
        std::thread::park_timeout(Duration::from_millis(200));
    }
}

#[test]
fn callers_beyond_those_that_wait_are_told_when_to_come_back() {
    let (_lake, up) = started("");
    // The first run, and then a pause for those that follow.
    assert_eq!(up.ask("POST", "/coverage", "host: localhost\r\n", "").0, 200);
    let waiting: Vec<TcpStream> = (0..64)
        .map(|_| {
            connect(&up, "POST /coverage HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        })
        .collect();
    std::thread::park_timeout(Duration::from_millis(700));
    let (answer, _) = rest(connect(&up, "POST /coverage HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n"));
    let head = answer.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 429") && head.contains("retry-after: "), "{answer}");
    let answers: Vec<String> = waiting.into_iter().map(|stream| rest(stream).0).collect();
    assert!(
        answers.iter().all(|answer| answer.starts_with("HTTP/1.1 200")),
        "those who waited have the next run's answer"
    );
    assert_eq!(up.calls("coverage", "Outside"), 2);
}

#[test]
fn events_at_once_share_calls_and_each_gets_the_outcome_of_its_own() {
    let (lake, up) = started("");
    for sequence in 2..=9 {
        lake.deliver(&ventas(), &format!("s2/ventas/000000-{sequence:010}"), &january(sequence, sequence), |file| file);
    }
    let callers: Vec<_> = (2..=9)
        .map(|sequence| {
            let address = up.address.clone();
            let path = format!("inbox/s2/ventas/000000-{sequence:010}.json");
            std::thread::spawn(move || {
                let event = format!("{{\"manifests\": [\"{path}\"]}}");
                let (status, body) = crate::up::ask(&address, "POST", "/ingest", "host: localhost\r\n", &event);
                let report: serde_json::Value = serde_json::from_str(&body).unwrap();
                let outcomes = report["outcomes"].as_array().unwrap().clone();
                assert_eq!((status, outcomes.len(), outcomes[0]["path"].as_str().unwrap()), (200, 1, path.as_str()));
            })
        })
        .collect();
    callers.into_iter().for_each(|caller| caller.join().unwrap());
    lake.wait(crate::until("ingested", || lake.files("inbox").is_empty()));
    assert_eq!(lake.value("SELECT count(*) FROM ventas WHERE store_id = 's2'"), 80);
}

#[test]
fn every_answer_carries_the_security_headers() {
    let (_lake, up) = started("");
    let requests = [
        "GET / HTTP/1.1\r\nhost: localhost\r\n",
        "GET /api/v1/summary HTTP/1.1\r\nhost: localhost\r\n",
        "GET /nothing HTTP/1.1\r\nhost: localhost\r\n",
        "GET / HTTP/1.1\r\nhost: evil.example\r\n",
        "DELETE / HTTP/1.1\r\nhost: localhost\r\n",
        "POST /ingest HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n",
        "POST /coverage HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n",
    ];
    for request in requests {
        let body = if request.contains("length: 2") { "{}" } else { "" };
        let (answer, _) = rest(connect(&up, &format!("{request}connection: close\r\n\r\n{body}")));
        let head = answer.split("\r\n\r\n").next().unwrap();
        for (name, value) in SECURITY_HEADERS {
            let found: Vec<&str> = head.lines().filter(|line| line.starts_with(&format!("{name}: "))).collect();
            assert_eq!(found, [format!("{name}: {value}")], "{request}");
        }
    }
}

#[test]
fn on_an_address_of_the_network_only_known_names_are_let_in() {
    let lake = Lake::new(&["s1"]);
    let file = lake.path("host.toml");
    std::fs::write(&file, "[http]\nallowed_hosts = [\"lago.example.com\"]").unwrap();
    let up = Up::start_on(&lake, "0.0.0.0:0", &["--settings", file.to_str().unwrap()]);
    for (host, status) in [("lago.example.com:8480", 200), ("127.0.0.1", 200), ("evil.example", 403)] {
        assert_eq!(up.ask("GET", "/health", &format!("host: {host}\r\n"), "").0, status, "{host}");
    }
    assert!(up.ask("GET", "/", "host: evil.example\r\n", "").1.contains("allowed_hosts"));
}
