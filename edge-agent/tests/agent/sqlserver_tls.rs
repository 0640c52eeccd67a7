//! Servers of SQL Server's protocol whose TLS is too old, as stores still have them: what the agent
//! says of them.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ribera_agent::report::Exit;

use crate::fixture::{World, extract};
use crate::servers;
use crate::sqlserver::{BY_HAND, store};
use crate::tds_responder::{ENCRYPTED, PRELOGIN, message, prelogin, send, send_as};

/// A server that wants encryption, and hands the client's first words of it to `answer`.
fn greeter(answer: impl Fn(TcpStream, Vec<u8>) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            if let Ok(Some(_)) = message(&mut stream)
                && send(&mut stream, &prelogin(ENCRYPTED)).is_ok()
                && let Ok(Some((_, hello))) = message(&mut stream)
            {
                answer(stream, hello);
            }
        }
    });
    port
}

/// What the agent says of the server at `port`.
fn told(port: u16) -> (String, String) {
    let world = World::with_config(&(store(port, "tienda", "require") + BY_HAND));
    let mut report = extract(&world, "2017-05-09", "2017-05-09");
    assert_eq!(report.exit(), Exit::Source);
    let problem = report.problems.remove(0);
    (problem.kind.to_string(), problem.message)
}

fn names_the_next_step(told: &str) {
    for words in ["source.tls", "TLS 1.2", "2012 SP4", "2014 SP3", "tls = \"off\""] {
        assert!(told.contains(words), "{told:?} should say {words:?}");
    }
}

/// OpenSSL as a server that knows nothing newer than TLS 1.0.
fn old_openssl(root: &std::path::Path) -> u16 {
    servers::authority(root, "old");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "openssl", "s_server", "-quiet", "-tls1", "-cipher", "ALL:@SECLEVEL=0"])
        .args(["-key", "old.key", "-cert", "old.pem", "-accept", &port.to_string()])
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    servers::spawn(command);
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(20), "openssl s_server does not answer");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    port
}

#[test]
fn a_server_that_only_speaks_tls_1_0_is_named_with_the_next_step() {
    let folder = tempfile::tempdir().unwrap();
    let openssl = old_openssl(folder.path());
    let port = greeter(move |mut client, hello| {
        let mut server = TcpStream::connect(("127.0.0.1", openssl)).unwrap();
        server.write_all(&hello).unwrap();
        let mut answer = vec![0; 4096];
        let length = server.read(&mut answer).unwrap();
        assert!(length > 0, "openssl said nothing");
        send_as(&mut client, PRELOGIN, &answer[..length]).unwrap();
    });
    let (kind, message) = told(port);
    assert_eq!(kind, "config", "{message}");
    names_the_next_step(&message);
}

#[test]
fn a_server_that_answers_in_tls_1_0_although_asked_for_more_is_named_too() {
    let port = greeter(|mut client, _| {
        // ServerHello of TLS 1.0: a random number, no session, ECDHE_RSA_WITH_AES_256_CBC_SHA, no compression.
        let hello = [&[3, 1][..], &[7; 32], &[0, 0xC0, 0x14, 0]].concat();
        let handshake = [&[2, 0, 0, hello.len() as u8][..], &hello].concat();
        let record = [&[0x16, 3, 1, 0, handshake.len() as u8][..], &handshake].concat();
        send_as(&mut client, PRELOGIN, &record).unwrap();
    });
    let (kind, message) = told(port);
    assert_eq!(kind, "config", "{message}");
    names_the_next_step(&message);
}

#[test]
fn a_server_that_ends_the_connection_at_once_may_be_such_a_one() {
    let (kind, message) = told(greeter(|client, _| drop(client)));
    assert_eq!(kind, "retry", "it may pass: {message}");
    names_the_next_step(&message);
}

/// OpenSSL as a server with that certificate.
fn openssl_with(root: &std::path::Path, certificate: &str) -> u16 {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "openssl", "s_server", "-quiet", "-accept", &port.to_string()])
        .args(["-key", &format!("{certificate}.key"), "-cert", &format!("{certificate}.pem")])
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    servers::spawn(command);
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(20), "openssl s_server does not answer");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    port
}

/// Hands what TLS says to a server behind this one, and its answers back.
fn greeter_for(openssl: u16) -> u16 {
    greeter(move |mut client, hello| {
        let mut server = TcpStream::connect(("127.0.0.1", openssl)).unwrap();
        server.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        server.write_all(&hello).unwrap();
        let (mut answer, mut buffer) = (Vec::new(), vec![0; 16_384]);
        while let Ok(length @ 1..) = server.read(&mut buffer) {
            answer.extend(&buffer[..length]);
        }
        assert!(!answer.is_empty(), "openssl said nothing");
        send_as(&mut client, PRELOGIN, &answer).unwrap();
        // The client ends the connection if it does not trust what it saw.
        let _ = message(&mut client);
    })
}

/// What the agent says of a server with `certificate` when it checks it against `file`.
fn distrust(root: &std::path::Path, certificate: &str, file: &str) -> String {
    let port = greeter_for(openssl_with(root, certificate));
    let text = store(port, "tienda", "verify");
    let checked = format!("\"verify\"\ntls_ca_file = '{}'", root.join(file).display());
    let world = World::with_config(&(text.replace("\"verify\"", &checked) + BY_HAND));
    let report = extract(&world, "2017-05-09", "2017-05-09");
    assert_eq!(report.problems[0].kind, "config", "{:?}", report.problems);
    report.problems[0].message.clone()
}

#[test]
fn a_certificate_that_is_not_trusted_is_told_with_the_file_that_was_asked_and_the_next_step() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let make = |words: &str| {
        let done = Command::new("openssl").args(words.split(' ')).current_dir(root).stderr(Stdio::null()).status();
        assert!(done.unwrap().success(), "openssl {words}");
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=pos";
    let name = "-addext subjectAltName=IP:127.0.0.1";
    // As `openssl req -x509` makes it; one of a server that signed itself; one of another server; one of version 1.
    make(&format!("req -x509 {key} {name} -keyout authority.key -out authority.pem"));
    make(&format!("req -x509 {} -keyout strange.key -out strange.pem", key.replace("CN=pos", "CN=otra")));
    make(&format!("req -x509 {key} {name} -addext basicConstraints=critical,CA:FALSE -keyout self.key -out self.pem"));
    make(&format!(
        "req -x509 {key} -addext subjectAltName=DNS:otra -addext basicConstraints=critical,CA:FALSE -keyout other.key -out other.pem"
    ));
    make(&format!("req {key} -keyout old.key -out old.csr"));
    make("x509 -req -in old.csr -CA authority.pem -CAkey authority.key -CAcreateserial -out old.pem");
    std::fs::write(root.join("empty.pem"), "").unwrap();
    let cases = [
        ("self", "strange.pem", "authority that signed"),
        // Of the same name: another key.
        ("self", "authority.pem", "authority that signed"),
        ("authority", "authority.pem", "basicConstraints=critical,CA:FALSE"),
        ("old", "authority.pem", "version 3"),
        ("other", "other.pem", "subjectAltName"),
        ("self", "empty.pem", "must be a PEM file that holds a certificate"),
    ];
    for (certificate, file, step) in cases {
        let told = distrust(root, certificate, file);
        let path = root.join(file).display().to_string();
        assert!(told.contains(step) && told.contains(&path) && told.contains("source.tls"), "{certificate}: {told}");
        assert!(!told.contains("0 bytes") && !told.contains("Config::"), "{told}");
    }
    // The kind that the advice names is trusted: what fails then is the login, which this server does not know.
    let port = greeter_for(openssl_with(root, "self"));
    let checked = format!("\"verify\"\ntls_ca_file = '{}'", root.join("self.pem").display());
    let world = World::with_config(&(store(port, "tienda", "verify").replace("\"verify\"", &checked) + BY_HAND));
    let report = extract(&world, "2017-05-09", "2017-05-09");
    assert_eq!(report.problems[0].kind, "retry", "{:?}", report.problems);
}
