//! ZeroMQ through the system's libzmq: REQ and REP, PUSH and PULL, over TCP between nodes and over ipc inside of one.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use zmq::{Context, DONTWAIT, Socket, SocketType};

use super::PORT;
use crate::child::say_ready;
use crate::rate::{BATCH, SINK_PATIENCE, Sink, Source, put_number};
use crate::round_trip::{Asker, PATIENCE};

/// Abstract, as this subject's namespaces of names are the network namespaces.
const LOCAL: &str = "ipc://@xtipc-bench-zeromq";

fn address(peer: Ipv4Addr) -> String {
    if peer.is_loopback() {
        LOCAL.into()
    } else {
        format!("tcp://{peer}:{PORT}")
    }
}

fn milliseconds(duration: Duration) -> i32 {
    duration.as_millis() as i32
}

/// Sockets outlive their context's handle: it ends with its last socket.
fn bound(kind: SocketType, local: bool) -> Result<Socket> {
    let socket = Context::new().socket(kind)?;
    let address = if local {
        LOCAL.into()
    } else {
        format!("tcp://*:{PORT}")
    };
    socket.bind(&address)?;
    say_ready();
    Ok(socket)
}

fn connected(kind: SocketType, peer: Ipv4Addr) -> Result<Socket> {
    let socket = Context::new().socket(kind)?;
    socket.set_rcvtimeo(milliseconds(PATIENCE))?;
    socket.set_linger(0)?;
    socket.connect(&address(peer))?;
    Ok(socket)
}

/// Sends everything back.
pub(crate) fn echo(local: bool) -> Result<()> {
    let socket = bound(SocketType::REP, local)?;
    loop {
        let message = socket.recv_msg(0)?;
        socket.send(message, 0)?;
    }
}

/// The end that asks.
pub(crate) struct Ask(Socket);

impl Ask {
    pub(crate) fn new(peer: Ipv4Addr) -> Result<Self> {
        Ok(Self(connected(SocketType::REQ, peer)?))
    }
}

impl Asker for Ask {
    fn ask(&mut self, message: &[u8], answer: &mut [u8]) -> Result<usize> {
        self.0.send(message, 0)?;
        self.0.recv_into(answer, 0).context("no echo")
    }
}

/// The end that sends.
pub(crate) struct Send {
    socket: Socket,
    message: Vec<u8>,
}

impl Send {
    pub(crate) fn new(peer: Ipv4Addr, size: usize) -> Result<Self> {
        Ok(Self {
            socket: connected(SocketType::PUSH, peer)?,
            message: vec![0; size],
        })
    }
}

impl Source for Send {
    fn send(&mut self, first: u64) -> Result<u64> {
        for number in first..first + BATCH as u64 {
            put_number(&mut self.message, number);
            self.socket.send(&self.message[..], 0)?;
        }
        Ok(BATCH as u64)
    }
}

/// The end that receives.
pub(crate) struct Receive {
    socket: Socket,
    message: Vec<u8>,
}

impl Receive {
    pub(crate) fn new(size: usize, local: bool) -> Result<Self> {
        let socket = bound(SocketType::PULL, local)?;
        socket.set_rcvtimeo(milliseconds(SINK_PATIENCE))?;
        let message = vec![0; size];
        Ok(Self { socket, message })
    }
}

impl Sink for Receive {
    fn receive(&mut self, seen: &mut dyn FnMut(&[u8])) -> Result<()> {
        let mut flags = 0;
        for _ in 0..BATCH {
            match self.socket.recv_into(&mut self.message, flags) {
                Ok(len) => seen(&self.message[..len]),
                Err(zmq::Error::EAGAIN) => break,
                Err(error) => return Err(error.into()),
            }
            flags = DONTWAIT;
        }
        Ok(())
    }
}
