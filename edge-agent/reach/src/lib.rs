//! Whether a database server can be reached, before any login: its name is looked up, it is pinged,
//! its port is tried. It needs no credentials, and says what to do next. Of use to the agent and to
//! the centre alike.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;

mod obstacle;

pub use obstacle::Obstacle;

/// How far the way to a server goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing answers.
    Unreachable,
    /// The machine answers, the port does not.
    Reachable,
    /// Something listens on the port.
    PortOk,
}

/// Why it goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Nobody knows the host's name.
    NameUnknown,
    /// Neither ping nor port answered: the line, the machine, or a firewall that is silent.
    NoAnswer,
    /// The machine refuses the port: the service does not run, or on another port.
    PortRefused,
    /// The machine answers a ping, its port is silent: a firewall.
    PortSilent,
    /// SQL Server Browser, which knows the port of a named instance, does not answer for it.
    BrowserSilent,
    /// SQL Server Browser says that the instance has no TCP port.
    InstanceWithoutTcp,
}

impl Cause {
    /// The next step, in Spanish and in English.
    pub fn next_step(self) -> (&'static str, &'static str) {
        match self {
            Self::NameUnknown => (
                "el nombre no existe en el DNS: revise source.host o escriba la dirección IP",
                "the name is not in the DNS: check source.host, or write the IP address",
            ),
            Self::NoAnswer => (
                "la máquina no responde: revise que esté encendida, su línea y el cortafuegos",
                "the machine does not answer: check that it is on, its line, and the firewall",
            ),
            Self::PortRefused => (
                "el servicio no escucha en ese puerto: inicie la base de datos o corrija source.port",
                "no service listens on that port: start the database, or correct source.port",
            ),
            Self::PortSilent => (
                "la máquina responde y el puerto no: abra el puerto en su cortafuegos",
                "the machine answers, the port does not: open the port in its firewall",
            ),
            Self::BrowserSilent => (
                "el servicio SQL Server Browser (UDP 1434) no responde por esa instancia: inícielo, abra ese puerto y revise \
                 source.instance; o fije un puerto TCP a la instancia y escriba source.port en vez de source.instance",
                "the service SQL Server Browser (UDP 1434) does not answer for that instance: start it, open that port and check \
                 source.instance; or give the instance a fixed TCP port and write source.port in place of source.instance",
            ),
            Self::InstanceWithoutTcp => (
                "la instancia no escucha por TCP: active TCP/IP en SQL Server Configuration Manager y reiníciela",
                "the instance does not listen on TCP: enable TCP/IP for it in SQL Server Configuration Manager and restart it",
            ),
        }
    }
}

/// What came of it. Times are milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reach {
    pub host: String,
    /// `None`: no port was asked for.
    pub port: Option<u16>,
    pub address: Option<IpAddr>,
    pub lookup_ms: Option<f64>,
    /// `None` too where this system has no ping or forbids it.
    pub ping_ms: Option<f64>,
    /// Of a connection that was made.
    pub port_ms: Option<f64>,
    pub state: State,
    pub cause: Option<Cause>,
}

/// Tries `host` and, if given, `port`; each step takes `timeout` at most. Without a port a machine
/// that answers is [`State::Reachable`] and nothing is wrong.
pub async fn reach(host: &str, port: Option<u16>, timeout: Duration) -> Reach {
    let mut reach = Reach {
        host: host.to_owned(),
        port,
        address: None,
        lookup_ms: None,
        ping_ms: None,
        port_ms: None,
        state: State::Unreachable,
        cause: Some(Cause::NameUnknown),
    };
    let begun = Instant::now();
    let found = tokio::time::timeout(timeout, tokio::net::lookup_host((host, port.unwrap_or(0)))).await;
    let addresses: Vec<SocketAddr> = found.ok().and_then(Result::ok).map(Iterator::collect).unwrap_or_default();
    let Some(first) = addresses.first().copied() else { return reach };
    reach.lookup_ms = Some(millis(begun.elapsed()));
    let asked = async {
        match port {
            Some(_) => Some(try_ports(&addresses, timeout).await),
            None => None,
        }
    };
    let (port, ping) = tokio::join!(asked, ping(first.ip(), timeout));
    let (address, port) = port.map_or((first, None), |(address, port)| (address, Some(port)));
    reach.address = Some(address.ip());
    reach.ping_ms = ping;
    if let Some(Port::Open(took)) = port {
        reach.port_ms = Some(millis(took));
    }
    (reach.state, reach.cause) = judge(port, ping.is_some());
    reach
}

fn judge(port: Option<Port>, pinged: bool) -> (State, Option<Cause>) {
    match (port, pinged) {
        (Some(Port::Open(_)), _) => (State::PortOk, None),
        // Only a machine that is there can refuse.
        (Some(Port::Refused), _) => (State::Reachable, Some(Cause::PortRefused)),
        (Some(Port::Silent), true) => (State::Reachable, Some(Cause::PortSilent)),
        (None, true) => (State::Reachable, None),
        (Some(Port::Silent) | None, false) => (State::Unreachable, Some(Cause::NoAnswer)),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Port {
    Open(Duration),
    Refused,
    /// No answer, or a router's that there is no way.
    Silent,
}

/// The port of the first address that is open, tried one after the other as the drivers do: Windows resolves
/// `localhost` to `::1` first, where a server bound to 127.0.0.1 does not listen. Else the best answer there was.
async fn try_ports(addresses: &[SocketAddr], timeout: Duration) -> (SocketAddr, Port) {
    let mut best: Option<(u8, SocketAddr, Port)> = None;
    for address in addresses {
        let port = try_port(*address, timeout).await;
        let rank = match port {
            Port::Open(_) => return (*address, port),
            Port::Refused => 1,
            Port::Silent => 0,
        };
        if best.as_ref().is_none_or(|(known, ..)| rank > *known) {
            best = Some((rank, *address, port));
        }
    }
    best.map_or((addresses[0], Port::Silent), |(_, address, port)| (address, port))
}

async fn try_port(address: SocketAddr, timeout: Duration) -> Port {
    let begun = Instant::now();
    match tokio::time::timeout(timeout, tokio::net::TcpStream::connect(address)).await {
        Ok(Ok(_)) => Port::Open(begun.elapsed()),
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => Port::Refused,
        _ => Port::Silent,
    }
}

/// By the system's own program, which has the right to that an ordinary user's program lacks.
async fn ping(address: IpAddr, timeout: Duration) -> Option<f64> {
    let seconds = timeout.as_secs().max(1).to_string();
    let asked = tokio::task::spawn_blocking(move || {
        let begun = Instant::now();
        let words: [&str; 4] = if cfg!(windows) { ["-n", "1", "-w", "1000"] } else { ["-c", "1", "-W", &seconds] };
        let answered = Command::new("ping")
            .args(words)
            .arg(address.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        answered.is_ok_and(|status| status.success()).then(|| millis(begun.elapsed()))
    });
    asked.await.ok().flatten()
}

fn millis(took: Duration) -> f64 {
    (took.as_secs_f64() * 1e5).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(host: &str, port: u16) -> Reach {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(reach(host, Some(port), Duration::from_secs(2)))
    }

    #[test]
    fn a_port_that_listens_is_ok_and_one_that_is_refused_proves_the_machine() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let open = reached("localhost", port);
        assert_eq!((open.state, open.cause), (State::PortOk, None), "{open:?}");
        assert!(open.lookup_ms.is_some() && open.port_ms.is_some());
        drop(listener);
        let refused = reached("127.0.0.1", port);
        assert_eq!((refused.state, refused.cause), (State::Reachable, Some(Cause::PortRefused)), "{refused:?}");
        assert_eq!(refused.port_ms, None);
    }

    #[test]
    fn a_name_that_nobody_knows_is_told_as_such() {
        let unknown = reached("no-such-host.invalid", 1);
        assert_eq!((unknown.state, unknown.cause), (State::Unreachable, Some(Cause::NameUnknown)), "{unknown:?}");
    }

    #[test]
    fn silence_is_a_firewall_only_where_a_ping_is_answered() {
        assert_eq!(judge(Some(Port::Silent), true), (State::Reachable, Some(Cause::PortSilent)));
        assert_eq!(judge(Some(Port::Silent), false), (State::Unreachable, Some(Cause::NoAnswer)));
        assert_eq!(judge(None, true), (State::Reachable, None), "no port was asked for");
        assert_eq!(judge(Some(Port::Refused), false), (State::Reachable, Some(Cause::PortRefused)));
    }
}
