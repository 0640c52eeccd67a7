//! The port of a named instance, which the service SQL Server Browser tells: by default it differs
//! at each start.

use std::net::SocketAddr;
use std::time::Duration;

use ribera_storage::{Error, Result};
use tokio::net::UdpSocket;

use crate::config::SqlServerConfig;

pub const PORT: u16 = 1433;
const BROWSER_PORT: u16 = 1434;
/// Questions may get lost on the way.
const TRIES: u32 = 3;
const TRY_TIMEOUT: Duration = Duration::from_secs(1);
/// "Which port has the instance of this name?"
const ASK_INSTANCE: u8 = 4;
const ANSWER: u8 = 5;
const ANSWER_BYTES_MAX: usize = 2048;

/// Where the configured server listens.
pub async fn port_of(config: &SqlServerConfig) -> Result<u16> {
    match (config.port, &config.instance) {
        (Some(port), _) => Ok(port),
        (None, None) => Ok(PORT),
        (None, Some(name)) => ask(&config.host, BROWSER_PORT, name).await,
    }
}

async fn ask(host: &str, port: u16, name: &str) -> Result<u16> {
    let text = format!("source: sqlserver: instance {name:?} of {host}");
    let silent = || {
        Error::retry(format!(
            "{text}: the service SQL Server Browser does not answer on UDP port {port}: start it and open that port, or give the instance a fixed TCP port and write source.port in place of source.instance"
        ))
        .with_hint("ribera-agent check")
    };
    let unknown = |_| Error::retry(format!("{text}: the host's name is not known")).with_hint("ribera-agent check");
    let server = tokio::net::lookup_host((host, port)).await.map_err(unknown)?.next().ok_or_else(silent)?;
    let mut packet = vec![ASK_INSTANCE];
    packet.extend(name.as_bytes());
    packet.push(0);
    for _ in 0..TRIES {
        // Anything else: refused or lost.
        if let Ok(Ok(answer)) = tokio::time::timeout(TRY_TIMEOUT, exchange(server, &packet)).await {
            return tcp_port(&answer).ok_or_else(|| {
                Error::config(format!(
                    "{text}: does not listen on TCP: enable TCP/IP for it in SQL Server Configuration Manager"
                ))
            });
        }
    }
    Err(silent())
}

async fn exchange(server: SocketAddr, packet: &[u8]) -> std::io::Result<Vec<u8>> {
    let any: SocketAddr = if server.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(packet).await?;
    let mut answer = vec![0; ANSWER_BYTES_MAX];
    let length = socket.recv(&mut answer).await?;
    answer.truncate(length);
    Ok(answer)
}

/// The value of a name in a list of names and values that semicolons separate.
fn tcp_port(answer: &[u8]) -> Option<u16> {
    let text = answer.get(3..).filter(|_| answer.first() == Some(&ANSWER))?;
    let text = String::from_utf8_lossy(text);
    let mut words = text.split(';');
    words.find(|word| *word == "tcp")?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "ServerName;CAJA1;InstanceName;SQLEXPRESS;IsClustered;No;Version;15.0.2000.5;tcp;49723;np;\\\\CAJA1\\pipe\\MSSQL$SQLEXPRESS\\sql\\query;;";

    fn packet(text: &str) -> Vec<u8> {
        let mut packet = vec![ANSWER];
        packet.extend((text.len() as u16).to_le_bytes());
        packet.extend(text.as_bytes());
        packet
    }

    fn asked(port: u16) -> Result<u16> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(ask("127.0.0.1", port, "SQLEXPRESS"))
    }

    #[test]
    fn the_browser_tells_the_instances_port_even_if_a_question_gets_lost() {
        let browser = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = browser.local_addr().unwrap().port();
        let answering = std::thread::spawn(move || {
            let mut question = [0; 64];
            browser.recv_from(&mut question).unwrap();
            let (length, client) = browser.recv_from(&mut question).unwrap();
            browser.send_to(&packet(TEXT), client).unwrap();
            question[..length].to_vec()
        });
        assert_eq!(asked(port).unwrap(), 49_723);
        assert_eq!(answering.join().unwrap(), b"\x04SQLEXPRESS\0");
    }

    #[test]
    fn an_instance_without_tcp_and_a_browser_that_is_silent_are_told_with_the_next_step() {
        assert_eq!(tcp_port(&packet(&TEXT.replace("tcp;49723;", ""))), None);
        assert_eq!(tcp_port(b"\x05"), None);
        let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let error = asked(closed).unwrap_err();
        assert!(error.message().contains("SQL Server Browser") && error.message().contains("source.port"), "{error}");
    }
}
