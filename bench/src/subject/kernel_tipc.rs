//! The kernel's TIPC, where the kernel has it: RDM by service address, as xtipc is measured.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use xtipc_bench_sockets::{Address, RawSocket};

use super::{Wait, insist};
use crate::child::say_ready;
use crate::rate::{BATCH, SINK_PATIENCE, Sink, Source, put_number};
use crate::round_trip::{Asker, PATIENCE};

/// As in the kernel's headers.
const ADDRESS_RANGE: u8 = 1;
const ADDRESS_SERVICE: u8 = 2;
const SCOPE_CLUSTER: i8 = 2;
const SERVICE: u32 = 18890;
const INSTANCE: u32 = 1;

/// Whether this kernel has it.
pub(crate) fn is_there() -> bool {
    RawSocket::open(libc::AF_TIPC, libc::SOCK_RDM, 0).is_ok()
}

fn address(kind: u8, words: [u32; 3]) -> Address {
    let family = (libc::AF_TIPC as u16).to_ne_bytes();
    let [a, b, c] = words.map(u32::to_ne_bytes);
    Address::new(&[&family, &[kind, SCOPE_CLUSTER as u8], &a, &b, &c])
}

fn open() -> Result<RawSocket> {
    let socket = RawSocket::open(libc::AF_TIPC, libc::SOCK_RDM, 0);
    socket.context("the kernel has no TIPC socket")
}

fn serve() -> Result<RawSocket> {
    let socket = open()?;
    socket.bind(&address(ADDRESS_RANGE, [SERVICE, INSTANCE, INSTANCE]))?;
    say_ready();
    Ok(socket)
}

/// Opens a socket and waits until the binding of the other side has come.
fn reach() -> Result<(RawSocket, Address)> {
    let (socket, service) = (open()?, address(ADDRESS_SERVICE, [SERVICE, INSTANCE, 0]));
    socket.set_patience(PATIENCE)?;
    let begun = Instant::now();
    // Receivers throw empty messages away.
    while let Err(error) = socket.send_to(b"", &service) {
        ensure!(begun.elapsed() < PATIENCE, "nobody is bound: {error}");
        thread::sleep(Duration::from_millis(1));
    }
    Ok((socket, service))
}

const fn flags(wait: Wait) -> i32 {
    match wait {
        Wait::Sleeping => 0,
        Wait::Spinning => libc::MSG_DONTWAIT,
    }
}

/// Sends everything back.
pub(crate) fn echo(wait: Wait, size: usize) -> Result<()> {
    let socket = serve()?;
    let mut message = vec![0; size];
    loop {
        let (len, from) = insist(|| socket.receive(&mut message, flags(wait)))?;
        if len > 0 {
            socket.send_to(&message[..len], &from)?;
        }
    }
}

/// The end that asks.
pub(crate) struct Ask {
    socket: RawSocket,
    service: Address,
    wait: Wait,
}

impl Ask {
    pub(crate) fn new(wait: Wait) -> Result<Self> {
        let (socket, service) = reach()?;
        Ok(Self {
            socket,
            service,
            wait,
        })
    }
}

impl Asker for Ask {
    fn ask(&mut self, message: &[u8], answer: &mut [u8]) -> Result<usize> {
        self.socket.send_to(message, &self.service)?;
        let mut receive = || self.socket.receive(answer, flags(self.wait));
        let outcome = match self.wait {
            Wait::Sleeping => receive(),
            Wait::Spinning => insist(receive),
        };
        Ok(outcome.context("no echo")?.0)
    }
}

/// The end that sends: one call for each message.
pub(crate) struct Send {
    socket: RawSocket,
    service: Address,
    message: Vec<u8>,
}

impl Send {
    pub(crate) fn new(size: usize) -> Result<Self> {
        let (socket, service) = reach()?;
        Ok(Self {
            socket,
            service,
            message: vec![0; size],
        })
    }
}

impl Source for Send {
    fn send(&mut self, first: u64) -> Result<u64> {
        for number in first..first + BATCH as u64 {
            put_number(&mut self.message, number);
            self.socket.send_to(&self.message, &self.service)?;
        }
        Ok(BATCH as u64)
    }
}

/// The end that receives: one call for each message.
pub(crate) struct Receive {
    socket: RawSocket,
    buffer: Vec<u8>,
}

impl Receive {
    pub(crate) fn new(size: usize) -> Result<Self> {
        let socket = serve()?;
        socket.set_patience(SINK_PATIENCE)?;
        Ok(Self {
            socket,
            buffer: vec![0; size],
        })
    }
}

impl Sink for Receive {
    fn receive(&mut self, seen: &mut dyn FnMut(&[u8])) -> Result<()> {
        match self.socket.receive(&mut self.buffer, 0) {
            Ok((0, _)) => {}
            Ok((len, _)) => seen(&self.buffer[..len]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
