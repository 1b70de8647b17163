//! TCP: a stream cut into messages of one size. The kernel's default congestion control.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::Result;

use super::{PORT, Wait};
use crate::child::say_ready;
use crate::rate::{BATCH, SINK_PATIENCE, Sink, Source, put_number};
use crate::round_trip::{Asker, PATIENCE};

/// What a receiver of a stream reads at once.
const READ_LEN: usize = 128 << 10;

fn configure(stream: &TcpStream, wait: Wait) -> Result<()> {
    stream.set_nodelay(true)?;
    stream.set_nonblocking(wait == Wait::Spinning)?;
    Ok(())
}

fn accept(wait: Wait) -> Result<TcpStream> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    say_ready();
    let (stream, _) = listener.accept()?;
    configure(&stream, wait)?;
    Ok(stream)
}

fn connect(peer: Ipv4Addr, wait: Wait) -> Result<TcpStream> {
    let address = SocketAddr::from((peer, PORT));
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    configure(&stream, wait)?;
    if wait == Wait::Sleeping {
        stream.set_read_timeout(Some(PATIENCE))?;
    }
    Ok(stream)
}

/// `read_exact`, also where reading does not wait. False: the other end has closed.
fn read_message(stream: &mut TcpStream, message: &mut [u8]) -> Result<bool> {
    let mut filled = 0;
    while filled < message.len() {
        match stream.read(&mut message[filled..]) {
            Ok(0) => return Ok(false),
            Ok(n) => filled += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::hint::spin_loop(),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

fn write_message(stream: &mut TcpStream, mut message: &[u8]) -> Result<()> {
    while !message.is_empty() {
        match stream.write(message) {
            Ok(n) => message = &message[n..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::hint::spin_loop(),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Sends everything back until the other end closes.
pub(crate) fn echo(wait: Wait, size: usize) -> Result<()> {
    let mut stream = accept(wait)?;
    let mut message = vec![0; size];
    while read_message(&mut stream, &mut message)? {
        write_message(&mut stream, &message)?;
    }
    Ok(())
}

/// The end that asks.
pub(crate) struct Ask(TcpStream);

impl Ask {
    pub(crate) fn new(peer: Ipv4Addr, wait: Wait) -> Result<Self> {
        Ok(Self(connect(peer, wait)?))
    }
}

impl Asker for Ask {
    fn ask(&mut self, message: &[u8], answer: &mut [u8]) -> Result<usize> {
        write_message(&mut self.0, message)?;
        let whole = read_message(&mut self.0, answer)?;
        Ok(if whole { answer.len() } else { 0 })
    }
}

/// The end that sends: one write for each message.
pub(crate) struct Send {
    stream: TcpStream,
    message: Vec<u8>,
}

impl Send {
    pub(crate) fn new(peer: Ipv4Addr, size: usize) -> Result<Self> {
        let stream = connect(peer, Wait::Sleeping)?;
        // As a program does that wants throughput.
        stream.set_nodelay(false)?;
        Ok(Self {
            stream,
            message: vec![0; size],
        })
    }
}

impl Source for Send {
    fn send(&mut self, first: u64) -> Result<u64> {
        for number in first..first + BATCH as u64 {
            put_number(&mut self.message, number);
            self.stream.write_all(&self.message)?;
        }
        Ok(BATCH as u64)
    }
}

/// The end that receives.
pub(crate) struct Receive {
    stream: TcpStream,
    size: usize,
    buffer: Vec<u8>,
    /// Bytes of the buffer that hold an incomplete message.
    filled: usize,
}

impl Receive {
    pub(crate) fn new(size: usize) -> Result<Self> {
        let stream = accept(Wait::Sleeping)?;
        stream.set_read_timeout(Some(SINK_PATIENCE))?;
        Ok(Self {
            stream,
            size,
            buffer: vec![0; READ_LEN.max(size)],
            filled: 0,
        })
    }
}

impl Sink for Receive {
    fn receive(&mut self, seen: &mut dyn FnMut(&[u8])) -> Result<()> {
        match self.stream.read(&mut self.buffer[self.filled..]) {
            Ok(0) => std::thread::sleep(Duration::from_millis(1)), // closed: nothing more will come
            Ok(n) => self.filled += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
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
