//! Unix sockets: streams, and sequences of packets. Only inside of a machine.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, listen, recv,
    send, socket,
};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::{Wait, insist};
use crate::child::say_ready;
use crate::rate::{BATCH, SINK_PATIENCE, Sink, Source, put_number};
use crate::round_trip::{Asker, PATIENCE};

/// In the abstract namespace, which each network namespace has of its own.
const NAME: &[u8] = b"xtipc-bench";

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Stream,
    Seqpacket,
}

struct End {
    fd: OwnedFd,
    kind: Kind,
    flags: MsgFlags,
}

fn open(kind: Kind) -> Result<OwnedFd> {
    let kind = match kind {
        Kind::Stream => SockType::Stream,
        Kind::Seqpacket => SockType::SeqPacket,
    };
    Ok(socket(
        AddressFamily::Unix,
        kind,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?)
}

impl End {
    fn new(fd: OwnedFd, kind: Kind, wait: Wait) -> Self {
        let flags = match wait {
            Wait::Sleeping => MsgFlags::empty(),
            Wait::Spinning => MsgFlags::MSG_DONTWAIT,
        };
        Self { fd, kind, flags }
    }

    fn accept(kind: Kind, wait: Wait) -> Result<Self> {
        let listener = open(kind)?;
        bind(listener.as_raw_fd(), &UnixAddr::new_abstract(NAME)?)?;
        listen(&listener, Backlog::new(1)?)?;
        say_ready();
        let fd = rustix::net::accept(&listener)?;
        Ok(Self::new(fd, kind, wait))
    }

    fn connect(kind: Kind, wait: Wait) -> Result<Self> {
        let fd = open(kind)?;
        connect(fd.as_raw_fd(), &UnixAddr::new_abstract(NAME)?)?;
        set_socket_timeout(fd.as_fd(), Timeout::Recv, Some(PATIENCE))?;
        Ok(Self::new(fd, kind, wait))
    }

    fn write(&self, mut message: &[u8]) -> io::Result<()> {
        while !message.is_empty() {
            let fd = self.fd.as_raw_fd();
            let sent = insist(|| Ok(send(fd, message, self.flags)?))?;
            message = &message[sent..];
        }
        Ok(())
    }

    /// False: the other end has closed.
    fn read(&self, message: &mut [u8]) -> io::Result<bool> {
        let fd = self.fd.as_raw_fd();
        let mut filled = 0;
        while filled < message.len() {
            let mut receive = || Ok(recv(fd, &mut message[filled..], self.flags)?);
            // Of a message that has begun the rest is under way.
            let received = if self.flags.is_empty() && filled == 0 {
                receive()?
            } else {
                insist(receive)?
            };
            match (received, self.kind) {
                (0, _) => return Ok(false),
                (_, Kind::Seqpacket) => break,
                (received, Kind::Stream) => filled += received,
            }
        }
        Ok(true)
    }
}

/// Sends everything back until the other end closes.
pub(crate) fn echo(kind: Kind, wait: Wait, size: usize) -> Result<()> {
    let end = End::accept(kind, wait)?;
    let mut message = vec![0; size];
    while end.read(&mut message)? {
        end.write(&message)?;
    }
    Ok(())
}

/// The end that asks.
pub(crate) struct Ask(End);

impl Ask {
    pub(crate) fn new(kind: Kind, wait: Wait) -> Result<Self> {
        Ok(Self(End::connect(kind, wait)?))
    }
}

impl Asker for Ask {
    fn ask(&mut self, message: &[u8], answer: &mut [u8]) -> Result<usize> {
        self.0.write(message)?;
        ensure!(self.0.read(answer).context("no echo")?, "the echo ended");
        Ok(answer.len())
    }
}

/// The end that sends: one call for each message.
pub(crate) struct Send {
    end: End,
    message: Vec<u8>,
}

impl Send {
    pub(crate) fn new(kind: Kind, size: usize) -> Result<Self> {
        let (end, message) = (End::connect(kind, Wait::Sleeping)?, vec![0; size]);
        Ok(Self { end, message })
    }
}

impl Source for Send {
    fn send(&mut self, first: u64) -> Result<u64> {
        for number in first..first + BATCH as u64 {
            put_number(&mut self.message, number);
            self.end.write(&self.message)?;
        }
        Ok(BATCH as u64)
    }
}

/// The end that receives: one call for each message.
pub(crate) struct Receive {
    end: End,
    message: Vec<u8>,
}

impl Receive {
    pub(crate) fn new(kind: Kind, size: usize) -> Result<Self> {
        let end = End::accept(kind, Wait::Sleeping)?;
        set_socket_timeout(end.fd.as_fd(), Timeout::Recv, Some(SINK_PATIENCE))?;
        let message = vec![0; size];
        Ok(Self { end, message })
    }
}

impl Sink for Receive {
    fn receive(&mut self, seen: &mut dyn FnMut(&[u8])) -> Result<()> {
        match self.end.read(&mut self.message) {
            Ok(true) => seen(&self.message),
            Ok(false) => std::thread::sleep(SINK_PATIENCE), // closed: nothing more will come
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
