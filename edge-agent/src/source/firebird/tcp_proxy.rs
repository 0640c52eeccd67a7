//! The socket between driver and server. The driver keeps its own to itself and waits on it without
//! limit; so it connects to a port of this machine, and what goes to the server can be ended from
//! here. The server ends what it runs for a connection when that is gone.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::handshake::srp_first;

const TO_SERVER_BYTES: usize = 8 << 10;
const FROM_SERVER_BYTES: usize = 64 << 10;

/// Ends the connection when it goes, unless released.
pub struct Relay {
    /// Where the driver connects, once.
    pub port: u16,
    task: Option<JoinHandle<()>>,
}

impl Relay {
    /// `plain`: for a server that does not encrypt.
    pub async fn open(host: &str, port: u16, plain: bool) -> std::io::Result<Self> {
        let server = TcpStream::connect((host, port)).await?;
        server.set_nodelay(true)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        Ok(Self { port, task: Some(tokio::spawn(carry(listener, server, plain))) })
    }

    /// The connection ends when the driver closes it.
    pub fn release(mut self) {
        self.task = None;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn carry(listener: TcpListener, mut server: TcpStream, plain: bool) {
    let Ok((mut driver, _)) = listener.accept().await else {
        return;
    };
    drop(listener);
    let _ = driver.set_nodelay(true);
    if plain && greet(&mut driver, &mut server).await.is_err() {
        return;
    }
    // Either end sees the other's end as its own.
    let _ = copy_bidirectional_with_sizes(&mut driver, &mut server, TO_SERVER_BYTES, FROM_SERVER_BYTES).await;
}

async fn greet(driver: &mut TcpStream, server: &mut TcpStream) -> std::io::Result<()> {
    let mut packet = Vec::new();
    while packet.len() < TO_SERVER_BYTES && driver.read_buf(&mut packet).await? > 0 {
        if let Some((changed, length)) = srp_first(&packet) {
            server.write_all(&changed).await?;
            packet.drain(..length);
            break;
        }
    }
    server.write_all(&packet).await
}
