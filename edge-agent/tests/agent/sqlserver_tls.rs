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
