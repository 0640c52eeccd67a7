//! The line between a store and its object store: it passes requests on, or does to them what lines do. Also
//! an HTTP proxy with a user and password.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Result, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// 503 SlowDown; nothing was done.
    SlowDown,
    /// 409 ConditionalRequestConflict; nothing was done.
    Conflict,
    /// The connection is reset in the middle of the body.
    Reset,
    /// The server does it; the answer is lost.
    LostAnswer,
    /// 200 and a page for people; nothing was done.
    Portal,
    /// 302 to a page for people.
    Redirect,
    /// 404 and a page for people, as filters answer.
    NotFoundPage,
    /// It is done; the answer's ETag is another than the MD5, as of objects that are encrypted with an owner's key.
    OtherTag,
    /// 200 with an ETag and no more; nothing was done.
    EmptySuccess,
    /// No answer at all, and the connection stays open.
    Silence,
}

pub struct Line {
    pub port: u16,
    state: Arc<State>,
}

struct State {
    upstream: u16,
    /// `user:password` that a client of the proxy must have.
    user: Option<String>,
    portal: AtomicBool,
    /// For requests whose first line begins so.
    faults: Mutex<VecDeque<(&'static str, Fault)>>,
    fired: Mutex<BTreeMap<Fault, u64>>,
    /// Bytes that a client sent through.
    passed: AtomicU64,
    tunnels: AtomicU64,
    refused: AtomicU64,
    /// When bytes of bodies came, and how many.
    seen: Mutex<Vec<(Instant, usize)>>,
    held: Mutex<Vec<TcpStream>>,
}

impl Line {
    /// To a server of this machine; each request is one connection.
    pub fn to(upstream: u16) -> Self {
        Self::start(upstream, None)
    }

    /// A proxy that wants this `user:password`.
    pub fn proxy(user: &str) -> Self {
        Self::start(0, Some(user.to_owned()))
    }

    fn start(upstream: u16, user: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            upstream,
            user,
            portal: AtomicBool::default(),
            faults: Mutex::default(),
            fired: Mutex::default(),
            passed: AtomicU64::default(),
            tunnels: AtomicU64::default(),
            refused: AtomicU64::default(),
            seen: Mutex::default(),
            held: Mutex::default(),
        });
        let shared = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = shared.clone();
                // A line that breaks is what this is for.
                std::thread::spawn(move || drop(state.serve(client)));
            }
        });
        Self { port, state }
    }

    /// Whether a portal answers everything.
    pub fn set_portal(&self, on: bool) {
        self.state.portal.store(on, Ordering::SeqCst);
    }

    /// The next requests whose first line begins with `begins`, such as `PUT`, meet these.
    pub fn fail(&self, begins: &'static str, faults: &[Fault]) {
        self.state.faults.lock().unwrap().extend(faults.iter().map(|fault| (begins, *fault)));
    }

    pub fn fired(&self, fault: Fault) -> u64 {
        self.state.fired.lock().unwrap().get(&fault).copied().unwrap_or(0)
    }

    /// Every fault that was ordered happened.
    pub fn assert_all_fired(&self) {
        let left = self.state.faults.lock().unwrap();
        assert!(left.is_empty(), "never fired: {left:?}");
    }

    /// Forgets what was ordered and did not happen, because a call asks more or less often.
    pub fn mend(&self) {
        self.state.faults.lock().unwrap().clear();
    }

    pub fn passed(&self) -> u64 {
        self.state.passed.load(Ordering::SeqCst)
    }

    pub fn tunnels(&self) -> u64 {
        self.state.tunnels.load(Ordering::SeqCst)
    }

    /// Clients without the right user.
    pub fn refused(&self) -> u64 {
        self.state.refused.load(Ordering::SeqCst)
    }

    /// When the bytes of bodies came, and how many at once.
    pub fn seen(&self) -> Vec<(Instant, usize)> {
        self.state.seen.lock().unwrap().clone()
    }
}

/// What comes back of an answer.
#[derive(Clone, Copy)]
enum Back {
    Whole,
    OtherTag,
    Nothing,
}

/// The first line and the headers, in the words they came in.
struct Head {
    first: String,
    headers: Vec<(String, String)>,
}

impl Head {
    fn read(client: &mut TcpStream) -> Result<Option<Self>> {
        let (mut text, mut byte) = (Vec::new(), [0]);
        while !text.ends_with(b"\r\n\r\n") {
            if client.read(&mut byte)? == 0 {
                return Ok(None);
            }
            text.push(byte[0]);
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default().to_owned();
        let headers = lines.filter_map(|line| line.split_once(": "));
        Ok(Some(Self {
            first,
            headers: headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect(),
        }))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn body_bytes(&self) -> u64 {
        self.get("content-length").map_or(0, |text| text.parse().unwrap())
    }
}

impl State {
    fn serve(&self, mut client: TcpStream) -> Result<()> {
        let Some(head) = Head::read(&mut client)? else { return Ok(()) };
        if let Some(user) = &self.user {
            return self.serve_proxy(client, head, user);
        }
        match self.next_fault(&head) {
            Some(fault) => {
                *self.fired.lock().unwrap().entry(fault).or_default() += 1;
                self.harm(client, &head, fault)
            }
            None => self.pass(client, &head, &head.first, self.upstream, Back::Whole),
        }
    }

    fn next_fault(&self, head: &Head) -> Option<Fault> {
        if self.portal.load(Ordering::SeqCst) {
            return Some(Fault::Portal);
        }
        let mut faults = self.faults.lock().unwrap();
        let at = faults.iter().position(|(begins, _)| head.first.starts_with(begins))?;
        faults.remove(at).map(|(_, fault)| fault)
    }

    fn harm(&self, mut client: TcpStream, head: &Head, fault: Fault) -> Result<()> {
        let page = "<!DOCTYPE html><html><body>Bienvenido a la red. Acepte las condiciones.</body></html>";
        let error = |code: &str| format!("<Error><Code>{code}</Code><Message>Later.</Message></Error>");
        match fault {
            Fault::LostAnswer => return self.pass(client, head, &head.first, self.upstream, Back::Nothing),
            Fault::OtherTag => return self.pass(client, head, &head.first, self.upstream, Back::OtherTag),
            Fault::Reset => {
                // What is not read when a connection closes makes it a reset.
                let half = head.body_bytes() / 2;
                std::io::copy(&mut Read::by_ref(&mut client).take(half), &mut std::io::sink())?;
                std::thread::park_timeout(std::time::Duration::from_millis(30));
                return Ok(());
            }
            Fault::Silence => {
                std::io::copy(&mut Read::by_ref(&mut client).take(head.body_bytes()), &mut std::io::sink())?;
                self.held.lock().unwrap().push(client);
                return Ok(());
            }
            _ => {}
        }
        std::io::copy(&mut Read::by_ref(&mut client).take(head.body_bytes()), &mut std::io::sink())?;
        let html = "text/html; charset=utf-8";
        match fault {
            Fault::SlowDown => answer(&mut client, "503 Slow Down", "application/xml", "", &error("SlowDown")),
            Fault::Conflict => {
                answer(&mut client, "409 Conflict", "application/xml", "", &error("ConditionalRequestConflict"))
            }
            Fault::Redirect => {
                answer(&mut client, "302 Found", html, "Location: http://portal.example/login\r\n", page)
            }
            Fault::NotFoundPage => answer(&mut client, "404 Not Found", html, "", page),
            Fault::EmptySuccess => answer(&mut client, "200 OK", "text/plain", "ETag: \"1\"\r\n", ""),
            _ => answer(&mut client, "200 OK", html, "", page),
        }
    }

    /// Hands a request on, and its answer back, unless that is to be lost.
    fn pass(&self, mut client: TcpStream, head: &Head, first: &str, port: u16, back: Back) -> Result<()> {
        let mut server = TcpStream::connect(("127.0.0.1", port))?;
        let mut text = format!("{first}\r\n");
        for (name, value) in &head.headers {
            if !["connection", "proxy-connection", "proxy-authorization"].contains(&name.as_str()) {
                text += &format!("{name}: {value}\r\n");
            }
        }
        server.write_all(format!("{text}connection: close\r\n\r\n").as_bytes())?;
        let (mut left, mut buffer) = (head.body_bytes(), vec![0; 64 << 10]);
        while left > 0 {
            let wanted = buffer.len().min(left as usize);
            let read = client.read(&mut buffer[..wanted])?;
            if read == 0 {
                return Ok(());
            }
            self.passed.fetch_add(read as u64, Ordering::SeqCst);
            self.seen.lock().unwrap().push((Instant::now(), read));
            server.write_all(&buffer[..read])?;
            left -= read as u64;
        }
        let mut whole = Vec::new();
        server.read_to_end(&mut whole)?;
        match back {
            Back::Nothing => return Ok(()),
            Back::Whole => {}
            Back::OtherTag => {
                let name = b"ETag: \"";
                let at = whole.windows(name.len()).position(|window| window.eq_ignore_ascii_case(name));
                let at = at.expect("an answer with an ETag") + name.len();
                whole[at..at + 32].reverse();
            }
        }
        client.write_all(&whole)?;
        client.shutdown(Shutdown::Write)
    }

    fn serve_proxy(&self, mut client: TcpStream, head: Head, user: &str) -> Result<()> {
        if head.get("proxy-authorization") != Some(&format!("Basic {}", base64(user.as_bytes()))) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            let wants = "Proxy-Authenticate: Basic realm=\"tienda\"\r\n";
            return answer(&mut client, "407 Proxy Authentication Required", "text/html", wants, "<html>407</html>");
        }
        let mut words = head.first.split(' ');
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        if method == "CONNECT" {
            let server = TcpStream::connect(target)?;
            self.tunnels.fetch_add(1, Ordering::SeqCst);
            client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
            return self.tunnel(client, server);
        }
        let (host, path) = target.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let port = host.rsplit_once(':').unwrap().1.parse().unwrap();
        self.pass(client, &head, &format!("{method} /{path} HTTP/1.1"), port, Back::Whole)
    }

    fn tunnel(&self, mut client: TcpStream, mut server: TcpStream) -> Result<()> {
        let (mut back, mut to) = (server.try_clone()?, client.try_clone()?);
        let answers = std::thread::spawn(move || {
            let _ = std::io::copy(&mut back, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = client.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            self.passed.fetch_add(read as u64, Ordering::SeqCst);
            server.write_all(&buffer[..read])?;
        }
        server.shutdown(Shutdown::Write)?;
        let _ = answers.join();
        Ok(())
    }
}

fn answer(client: &mut TcpStream, status: &str, kind: &str, more: &str, body: &str) -> Result<()> {
    let bytes = body.len();
    write!(
        client,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{more}Content-Length: {bytes}\r\nConnection: close\r\n\r\n{body}"
    )?;
    client.shutdown(Shutdown::Write)
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let three = [chunk[0], *chunk.get(1).unwrap_or(&0), *chunk.get(2).unwrap_or(&0)];
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for digit in 0..4 {
            let used = digit <= chunk.len();
            text.push(if used { DIGITS[(bits >> (18 - 6 * digit)) as usize & 63] as char } else { '=' });
        }
    }
    text
}
