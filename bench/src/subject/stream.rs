//! xtipc: a STREAM connection between applications, cut into messages of one size.

use std::io::{ErrorKind, Read};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use xtipc::{Connection, ConnectionKind, Listener, Node, Scope, ServiceAddress};

use crate::child::say_ready;
use crate::rate::{BATCH, SINK_PATIENCE, Sink, Source, put_number};
use crate::round_trip::PATIENCE;

const SERVICE: ServiceAddress = ServiceAddress {
    type_: 18895,
    instance: 1,
};
const KIND: ConnectionKind = ConnectionKind::Stream;
/// What a receiver reads at once.
const READ_LEN: usize = 128 << 10;

/// The end that sends.
pub(crate) struct Send {
    connection: Connection,
    message: Vec<u8>,
}

impl Send {
    pub(crate) fn new(node: &Node, size: usize) -> Result<Self> {
        let begun = Instant::now();
        let connection = loop {
            match Connection::connect(node, KIND, SERVICE) {
                Ok(connection) => break connection,
                Err(error) => ensure!(begun.elapsed() < PATIENCE, "no connection: {error}"),
            }
            thread::sleep(Duration::from_millis(1));
        };
        let message = vec![0; size];
        Ok(Self {
            connection,
            message,
        })
    }
}

impl Source for Send {
    fn send(&mut self, first: u64) -> Result<u64> {
        for number in first..first + BATCH as u64 {
            put_number(&mut self.message, number);
            let mut rest = &self.message[..];
            while !rest.is_empty() {
                let taken = self.connection.send(rest)?;
                rest = &rest[taken..];
            }
        }
        Ok(BATCH as u64)
    }
}

/// The end that receives.
pub(crate) struct Receive {
    connection: Connection,
    size: usize,
    buffer: Vec<u8>,
    /// Bytes of the buffer that hold an incomplete message.
    filled: usize,
}

impl Receive {
    pub(crate) fn new(node: &Node, size: usize) -> Result<Self> {
        let listener = Listener::bind(node, KIND, SERVICE, Scope::Cluster)?;
        say_ready();
        let (connection, _) = listener.accept()?;
        connection.set_read_timeout(Some(SINK_PATIENCE));
        Ok(Self {
            connection,
            size,
            buffer: vec![0; READ_LEN.max(2 * size)],
            filled: 0,
        })
    }
}

impl Sink for Receive {
    fn receive(&mut self, seen: &mut dyn FnMut(&[u8])) -> Result<()> {
        match (&self.connection).read(&mut self.buffer[self.filled..]) {
            Ok(0) => thread::sleep(SINK_PATIENCE), // closed: nothing more will come
            Ok(n) => self.filled += n,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        let messages = self.buffer[..self.filled].chunks_exact(self.size);
        let rest = messages.remainder().len();
        messages.for_each(seen);
        self.buffer.copy_within(self.filled - rest..self.filled, 0);
        self.filled = rest;
        Ok(())
    }
}
