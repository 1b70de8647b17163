//! xtipc: a SEQPACKET connection between applications.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use xtipc::{Connection, ConnectionKind, Error, Listener, Message, Node, Scope, ServiceAddress};

use super::Wait;
use crate::child::say_ready;
use crate::rate::{BATCH, SINK_PATIENCE, Sink, Source, put_number};
use crate::round_trip::{Asker, PATIENCE};

const SERVICE: ServiceAddress = ServiceAddress {
    type_: 18896,
    instance: 1,
};
const KIND: ConnectionKind = ConnectionKind::Seqpacket;

pub(super) fn connect(node: &Node) -> Result<Connection> {
    let begun = Instant::now();
    loop {
        match Connection::connect(node, KIND, SERVICE) {
            Ok(connection) => return Ok(connection),
            Err(error) => ensure!(begun.elapsed() < PATIENCE, "no connection: {error}"),
        }
        thread::sleep(Duration::from_millis(1));
    }
}

pub(super) fn accept(node: &Node) -> Result<Connection> {
    let listener = Listener::bind(node, KIND, SERVICE, Scope::Cluster)?;
    say_ready();
    Ok(listener.accept()?.0)
}

fn receive(connection: &Connection, wait: Wait) -> Result<Message> {
    let received = match wait {
        Wait::Sleeping => connection.recv(),
        Wait::Spinning => connection.recv_spin(Instant::now() + PATIENCE),
    };
    received?.context("the peer has ended the connection")
}

/// Sends everything back.
pub(crate) fn echo(node: &Node, wait: Wait) -> Result<()> {
    let connection = accept(node)?;
    // Until the other end closes, in order or by force.
    while let Ok(message) = receive(&connection, wait) {
        connection.send(&message)?;
    }
    Ok(())
}

/// The end that asks.
pub(crate) struct Ask {
    connection: Connection,
    wait: Wait,
}

impl Ask {
    pub(crate) fn new(node: &Node, wait: Wait) -> Result<Self> {
        let connection = connect(node)?;
        Ok(Self { connection, wait })
    }
}

impl Asker for Ask {
    fn ask(&mut self, message: &[u8], answer: &mut [u8]) -> Result<usize> {
        self.connection.send(message)?;
        let echo = receive(&self.connection, self.wait)?;
        let len = echo.len().min(answer.len());
        answer[..len].copy_from_slice(&echo[..len]);
        Ok(len)
    }
}

/// The end that sends.
pub(crate) struct Send {
    connection: Connection,
    messages: Vec<Vec<u8>>,
}

impl Send {
    pub(crate) fn new(node: &Node, size: usize) -> Result<Self> {
        Ok(Self {
            connection: connect(node)?,
            messages: vec![vec![0; size]; BATCH],
        })
    }
}

impl Source for Send {
    fn send(&mut self, first: u64) -> Result<u64> {
        for (number, message) in (first..).zip(&mut self.messages) {
            put_number(message, number);
        }
        Ok(self.connection.send_many(&self.messages)? as u64)
    }
}

/// The end that receives.
pub(crate) struct Receive {
    connection: Connection,
    messages: Vec<Message>,
}

impl Receive {
    pub(crate) fn new(node: &Node) -> Result<Self> {
        let connection = accept(node)?;
        connection.set_read_timeout(Some(SINK_PATIENCE));
        Ok(Self {
            connection,
            messages: Vec::with_capacity(BATCH),
        })
    }
}

impl Sink for Receive {
    fn receive(&mut self, seen: &mut dyn FnMut(&[u8])) -> Result<()> {
        match self.connection.recv_many(&mut self.messages, BATCH) {
            Ok(0) => thread::sleep(SINK_PATIENCE), // closed: nothing more will come
            Ok(_) => self.messages.drain(..).for_each(|message| seen(&message)),
            Err(Error::TimedOut | Error::WouldBlock) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
