//! Servers of another time: Firebird 2.5, and databases that know no TLS of today.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use ribera_agent::report::Exit;
use ribera_storage::ErrorKind;

use crate::firebird::{LINES, config, sell};
use crate::firebird_server::{OLD_USER, plain_server};
use crate::fixture::{World, day, extract};

/// What a driver offers for one protocol: five numbers of four bytes.
const PROTOCOL_BYTES: usize = 20;

/// A port of this machine; each connection to it is handed to `serve`.
fn listen(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || listener.incoming().flatten().for_each(&serve));
    port
}

/// Carries a connection to a server of Firebird 3, from which it hides that the driver knows more
/// than Firebird 2.5: so it takes protocol 12 and the login of that time.
fn as_firebird_2_5(server: u16) -> u16 {
    listen(move |mut driver| {
        let mut server = TcpStream::connect(("127.0.0.1", server)).unwrap();
        let (mut replies, mut from_server) = (driver.try_clone().unwrap(), server.try_clone().unwrap());
        let hello = old_hello(&mut driver);
        server.write_all(&hello).unwrap();
        thread::spawn(move || std::io::copy(&mut from_server, &mut replies));
        thread::spawn(move || {
            let _ = std::io::copy(&mut driver, &mut server);
            let _ = server.shutdown(std::net::Shutdown::Write);
        });
    })
}

/// The driver's first packet without the newest protocol, which it offers last.
fn old_hello(driver: &mut TcpStream) -> Vec<u8> {
    let mut packet = Vec::new();
    let mut take = |bytes: usize| {
        let at = packet.len();
        packet.resize(at + bytes, 0);
        driver.read_exact(&mut packet[at..]).unwrap();
        u32::from_be_bytes(packet[at..at + 4].try_into().unwrap()) as usize
    };
    take(16);
    let database = take(4);
    take(database.next_multiple_of(4));
    let protocols = take(4);
    let user = take(4);
    take(user.next_multiple_of(4));
    assert_eq!(protocols, 4);
    for _ in 0..protocols {
        take(PROTOCOL_BYTES);
    }
    let newest = packet.split_off(packet.len() - PROTOCOL_BYTES);
    assert_eq!(newest[..4], 0xFFFF_800D_u32.to_be_bytes(), "protocol 13 is that of Firebird 3");
    let count = 20 + database.next_multiple_of(4);
    packet[count..count + 4].copy_from_slice(&3_u32.to_be_bytes());
    packet
}

#[test]
fn firebird_2_5_with_its_own_login_and_protocol_is_read() {
    let server = plain_server();
    let database = server.database("vieja", "WIN1252");
    server.sql(&database, LINES);
    server.sql(&database, &format!("GRANT SELECT ON LINEAS TO {OLD_USER};"));
    sell(server, &database, "2017-05-08", 1..4);
    sell(server, &database, "2017-05-09", 4..9);
    // The old protocol marks each NULL by itself.
    server.sql(&database, "UPDATE LINEAS SET MOMENTO = NULL WHERE MOD(TICKET, 2) = 0;");
    let right = config(server, &database, "")
        .replace(&format!("port = {}", server.port), &format!("port = {}", as_firebird_2_5(server.port)))
        .replace("\"lector\"", &format!("\"{OLD_USER}\""));
    let world = World::with_config(&right);
    let report = extract(&world, "2017-05-08", "2017-05-09");
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    assert!(world.manifests().iter().flat_map(|one| &one.units).all(|facts| facts.is_proven()));
    let lake = world.lake();
    assert_eq!(
        (&lake[&day("2017-05-08")], &lake[&day("2017-05-09")]),
        (&(3, "6.15".to_owned()), &(5, "30.25".to_owned()))
    );
    let nulls: usize = world
        .manifests()
        .iter()
        .flat_map(|manifest| world.rows(manifest))
        .map(|rows| arrow_array::Array::null_count(rows.column_by_name("vendido_en").unwrap().as_ref()))
        .sum();
    assert_eq!(nulls, 4);
    let wrong = extract(&World::with_config(&right.replace("${CLAVE}", "hunter2")), "2017-05-09", "2017-05-09");
    let told = format!("{:?}", wrong.problems);
    assert!(told.contains("user or password") && !told.contains("hunter2"), "{told}");
}

/// How an old server goes on once TLS was agreed on: with its own version, or not at all.
const TLS_1_0: [&[u8]; 2] = [&SERVER_HELLO, &[21, 3, 1, 0, 2, 2, 70]];

/// A record with a ServerHello of TLS 1.0: no session, RSA with AES, no compression.
const SERVER_HELLO: [u8; 47] = {
    let mut hello = [7; 47];
    let head = [22, 3, 1, 0, 42, 2, 0, 0, 38, 3, 1];
    let mut at = 0;
    while at < head.len() {
        hello[at] = head[at];
        at += 1;
    }
    hello[43] = 0;
    hello[44] = 0;
    hello[45] = 0x2f;
    hello[46] = 0;
    hello
};

/// A greeting of MySQL 5.1, with or without the offer to encrypt.
fn mysql_greeting(encrypts: bool) -> Vec<u8> {
    let flags: u16 = 0x8208 | if encrypts { 0x0800 } else { 0 };
    let mut text = b"\x0a5.1.73\x00\x01\0\0\x0012345678\0".to_vec();
    text.extend(flags.to_le_bytes());
    text.extend(b"\x21\x02\0\x08\0\x15\0\0\0\0\0\0\0\0\0\x00123456789012\0mysql_native_password\0");
    let mut packet = vec![text.len() as u8, 0, 0, 0];
    packet.extend(text);
    packet
}

/// Answers like MySQL until the client asks for TLS.
fn old_mysql(encrypts: bool, then: &'static [u8]) -> u16 {
    listen(move |mut client| {
        let _ = client.write_all(&mysql_greeting(encrypts));
        let mut request = [0; 36];
        if client.read_exact(&mut request).is_ok() {
            answer_tls(&mut client, then);
        }
    })
}

fn old_postgres(encrypts: bool, then: &'static [u8]) -> u16 {
    listen(move |mut client| {
        let mut request = [0; 8];
        client.read_exact(&mut request).unwrap();
        let _ = client.write_all(if encrypts { b"S" } else { b"N" });
        if encrypts {
            answer_tls(&mut client, then);
        }
    })
}

fn answer_tls(client: &mut TcpStream, then: &[u8]) {
    let mut head = [0; 5];
    client.read_exact(&mut head).unwrap();
    assert_eq!(head[0], 22, "a handshake begins");
    let mut hello = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
    client.read_exact(&mut hello).unwrap();
    let _ = client.write_all(then);
    // Until the client has read it and gone.
    let _ = client.read(&mut head);
}

#[test]
fn a_server_that_knows_only_old_tls_or_none_is_named_with_the_next_step() {
    let [hello, alert] = TLS_1_0;
    let cases = [
        ("mysql", old_mysql(true, hello), "TLS 1.0"),
        ("mysql", old_mysql(true, alert), "TLS 1.0"),
        ("mysql", old_mysql(false, &[]), "does not encrypt"),
        ("postgres", old_postgres(true, hello), "TLS 1.0"),
        ("postgres", old_postgres(true, alert), "TLS 1.0"),
        ("postgres", old_postgres(false, &[]), "does not encrypt"),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (kind, port, words) in cases {
        let source = format!(
            "[store.source]\nkind = \"{kind}\"\nhost = \"127.0.0.1\"\nport = {port}\ndatabase = \"d\"\nuser = \"u\"\npassword = \"hunter2\"\n"
        );
        let text = crate::fixture::CONFIG.replace("source = { kind = \"sqlite\", path = \"pos.db\" }\n", &source);
        let world = World::with_config(&text);
        let agent = world.start().unwrap();
        let error = runtime.block_on(agent.stores[0].source.connect()).err().expect(words);
        let told = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Config, "{kind}: {told}");
        for part in [words, "source.tls", "ribera-agent check"] {
            assert!(told.contains(part), "{kind}: {told} should name {part}");
        }
        assert!(!told.contains("hunter2"), "{told}");
    }
}
