//! What it takes to set up a connection: one is opened, carries a message there and back, and is closed.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use xtipc::{Connection, ConnectionKind, Listener, Node, Scope, ServiceAddress};

use super::PORT;
use crate::child::say_ready;
use crate::round_trip::{Asker, PATIENCE};

const SERVICE: ServiceAddress = ServiceAddress {
    type_: 18891,
    instance: 1,
};
const KIND: ConnectionKind = ConnectionKind::Seqpacket;

/// Answers on one connection after the other.
pub(crate) fn xtipc_echo(node: &Node) -> Result<()> {
    let listener = Listener::bind(node, KIND, SERVICE, Scope::Cluster)?;
    say_ready();
    loop {
        let (connection, _) = listener.accept()?;
        // Until the client closes, in order or by force.
        while let Ok(Some(message)) = connection.recv() {
            connection.send(&message)?;
        }
    }
}

/// The end that asks.
pub(crate) struct XtipcAsk(Node);

impl XtipcAsk {
    pub(crate) fn new(node: &Node) -> Result<Self> {
        let begun = Instant::now();
        loop {
            match Connection::connect(node, KIND, SERVICE) {
                Ok(_) => return Ok(Self(node.clone())),
                Err(error) => ensure!(begun.elapsed() < PATIENCE, "no connection: {error}"),
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Asker for XtipcAsk {
    fn ask(&mut self, message: &[u8], answer: &mut [u8]) -> Result<usize> {
        let connection = Connection::connect(&self.0, KIND, SERVICE)?;
        connection.send(message)?;
        connection.set_read_timeout(Some(PATIENCE));
        let echo = connection.recv()?.context("no echo")?;
        let len = echo.len().min(answer.len());
        answer[..len].copy_from_slice(&echo[..len]);
        Ok(len)
    }
}

/// Answers on one connection after the other.
pub(crate) fn tcp_echo(size: usize) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    say_ready();
    let mut message = vec![0; size];
    loop {
        let (mut stream, _) = listener.accept()?;
        while stream.read_exact(&mut message).is_ok() {
            stream.write_all(&message)?;
        }
    }
}

/// The end that asks.
pub(crate) struct TcpAsk(pub(crate) Ipv4Addr);

impl Asker for TcpAsk {
    fn ask(&mut self, message: &[u8], answer: &mut [u8]) -> Result<usize> {
        let mut stream = TcpStream::connect((self.0, PORT))?;
        stream.set_nodelay(true)?;
        // No port is held in TIME_WAIT: there are more connections than ports.
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
        stream.write_all(message)?;
        stream.read_exact(answer)?;
        Ok(answer.len())
    }
}
