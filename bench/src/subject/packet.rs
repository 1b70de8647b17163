//! AF_PACKET: Ethernet frames with an ethertype for experiments, one system call for each.

use std::io;

use anyhow::{Context, Result};
use xtipc_bench_sockets::{Address, RawSocket};

use super::{Wait, insist};
use crate::child::say_ready;
use crate::rate::{BATCH, SINK_PATIENCE, Sink, Source, put_number};
use crate::round_trip::{Asker, PATIENCE};
use crate::wire::Wire;

/// For local experiments. Not TIPC's, which a daemon's classifier would take.
const ETHERTYPE: u16 = 0x88b5;
const HEADER_LEN: usize = 14;
/// Shorter frames are padded on real wires.
const FRAME_MIN: usize = 60;

struct Port {
    socket: RawSocket,
    address: Address,
    frame: Vec<u8>,
}

impl Port {
    fn open(wire: &Wire, size: usize) -> Result<Self> {
        let name = &wire.interface;
        let index = nix::net::if_::if_nametoindex(name.as_str())
            .with_context(|| format!("no interface {name}"))?;
        let family = (libc::AF_PACKET as u16).to_ne_bytes();
        let protocol = ETHERTYPE.to_be_bytes();
        // Family, protocol, index; hardware type, packet type and address are not for senders of whole frames.
        let index = index.to_ne_bytes();
        let address = Address::new(&[&family, &protocol, &index, &[0; 12]]);
        let protocol = u16::from_ne_bytes(protocol).into();
        let socket = RawSocket::open(libc::AF_PACKET, libc::SOCK_RAW, protocol)?;
        socket.bind(&address)?;
        let mut frame = vec![0; (HEADER_LEN + size).max(FRAME_MIN)];
        frame[..6].copy_from_slice(&wire.peer_mac);
        frame[6..12].copy_from_slice(&wire.mac);
        frame[12..14].copy_from_slice(&ETHERTYPE.to_be_bytes());
        Ok(Self {
            socket,
            address,
            frame,
        })
    }

    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.frame[HEADER_LEN..][..message.len()].copy_from_slice(message);
        self.socket.send_to(&self.frame, &self.address)
    }

    /// Receives a message of the length of `out`.
    fn receive(&mut self, out: &mut [u8], wait: Wait) -> io::Result<()> {
        let flags = match wait {
            Wait::Sleeping => 0,
            Wait::Spinning => libc::MSG_DONTWAIT,
        };
        let mut receive = || self.socket.receive(&mut self.frame[..], flags);
        match wait {
            Wait::Sleeping => receive()?,
            Wait::Spinning => insist(receive)?,
        };
        out.copy_from_slice(&self.frame[HEADER_LEN..][..out.len()]);
        // The frame received is that of the other side's header.
        let (to, from) = self.frame[..12].split_at_mut(6);
        to.swap_with_slice(from);
        Ok(())
    }
}

/// Sends everything back.
pub(crate) fn echo(wire: &Wire, wait: Wait, size: usize) -> Result<()> {
    let mut port = Port::open(wire, size)?;
    say_ready();
    let mut message = vec![0; size];
    loop {
        port.receive(&mut message, wait)?;
        port.send(&message)?;
    }
}

/// The end that asks.
pub(crate) struct Ask {
    port: Port,
    wait: Wait,
}

impl Ask {
    pub(crate) fn new(wire: &Wire, wait: Wait, size: usize) -> Result<Self> {
        let port = Port::open(wire, size)?;
        port.socket.set_patience(PATIENCE)?;
        Ok(Self { port, wait })
    }
}

impl Asker for Ask {
    fn ask(&mut self, message: &[u8], answer: &mut [u8]) -> Result<usize> {
        self.port.send(message)?;
        self.port.receive(answer, self.wait).context("no echo")?;
        Ok(answer.len())
    }
}

/// The end that sends.
pub(crate) struct Send {
    port: Port,
    message: Vec<u8>,
}

impl Send {
    pub(crate) fn new(wire: &Wire, size: usize) -> Result<Self> {
        let (port, message) = (Port::open(wire, size)?, vec![0; size]);
        Ok(Self { port, message })
    }
}

impl Source for Send {
    fn send(&mut self, first: u64) -> Result<u64> {
        for number in first..first + BATCH as u64 {
            put_number(&mut self.message, number);
            self.port.send(&self.message)?;
        }
        Ok(BATCH as u64)
    }
}

/// The end that receives.
pub(crate) struct Receive {
    port: Port,
    message: Vec<u8>,
}

impl Receive {
    pub(crate) fn new(wire: &Wire, size: usize) -> Result<Self> {
        let (port, message) = (Port::open(wire, size)?, vec![0; size]);
        port.socket.set_patience(SINK_PATIENCE)?;
        say_ready();
        Ok(Self { port, message })
    }
}

impl Sink for Receive {
    fn receive(&mut self, seen: &mut dyn FnMut(&[u8])) -> Result<()> {
        match self.port.receive(&mut self.message, Wait::Sleeping) {
            Ok(()) => seen(&self.message),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
