//! UDP: datagrams, for rates many of them in one system call.

use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, setsockopt, sockopt,
};

use super::{PORT, Wait, insist};
use crate::child::say_ready;
use crate::rate::{BATCH, SINK_PATIENCE, Sink, Source, put_number};
use crate::round_trip::{Asker, PATIENCE};

/// Beyond the system's limit, so that a receiver that is off its processor for a while loses little.
const RECEIVE_BUFFER: usize = 4 << 20;

fn server() -> Result<UdpSocket> {
    Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?)
}

fn client(peer: Ipv4Addr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((peer, PORT))?;
    Ok(socket)
}

/// Sends everything back.
pub(crate) fn echo(wait: Wait, size: usize) -> Result<()> {
    let socket = server()?;
    socket.set_nonblocking(wait == Wait::Spinning)?;
    say_ready();
    let mut message = vec![0; size];
    loop {
        let (len, from) = insist(|| socket.recv_from(&mut message))?;
        insist(|| socket.send_to(&message[..len], from))?;
    }
}

/// The end that asks.
pub(crate) struct Ask {
    socket: UdpSocket,
    wait: Wait,
}

impl Ask {
    pub(crate) fn new(peer: Ipv4Addr, wait: Wait) -> Result<Self> {
        let socket = client(peer)?;
        match wait {
            Wait::Spinning => socket.set_nonblocking(true)?,
            Wait::Sleeping => socket.set_read_timeout(Some(PATIENCE))?,
        }
        Ok(Self { socket, wait })
    }
}

impl Asker for Ask {
    fn ask(&mut self, message: &[u8], answer: &mut [u8]) -> Result<usize> {
        insist(|| self.socket.send(message))?;
        match self.wait {
            Wait::Spinning => Ok(insist(|| self.socket.recv(answer))?),
            Wait::Sleeping => self.socket.recv(answer).context("no echo"),
        }
    }
}

/// The end that sends, by `sendmmsg`.
pub(crate) struct Send {
    socket: UdpSocket,
    messages: Vec<Vec<u8>>,
    headers: MultiHeaders<SockaddrIn>,
}

impl Send {
    pub(crate) fn new(peer: Ipv4Addr, size: usize) -> Result<Self> {
        Ok(Self {
            socket: client(peer)?,
            messages: vec![vec![0; size]; BATCH],
            headers: MultiHeaders::preallocate(BATCH, None),
        })
    }
}

impl Source for Send {
    fn send(&mut self, first: u64) -> Result<u64> {
        for (message, number) in self.messages.iter_mut().zip(first..) {
            put_number(message, number);
        }
        let slices: Vec<_> = self.messages.iter().map(|m| [IoSlice::new(m)]).collect();
        let results = sendmmsg(
            self.socket.as_raw_fd(),
            &mut self.headers,
            &slices,
            [None::<SockaddrIn>; BATCH],
            [] as [ControlMessage<'_>; 0],
            MsgFlags::empty(),
        )?;
        Ok(results.count() as u64)
    }
}

/// The end that receives, by `recvmmsg`.
pub(crate) struct Receive {
    socket: UdpSocket,
    messages: Vec<Vec<u8>>,
    headers: MultiHeaders<SockaddrIn>,
}

impl Receive {
    pub(crate) fn new(size: usize) -> Result<Self> {
        let socket = server()?;
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
        socket.set_read_timeout(Some(SINK_PATIENCE))?;
        say_ready();
        Ok(Self {
            socket,
            messages: vec![vec![0; size]; BATCH],
            headers: MultiHeaders::preallocate(BATCH, None),
        })
    }
}

impl Sink for Receive {
    fn receive(&mut self, seen: &mut dyn FnMut(&[u8])) -> Result<()> {
        let received = {
            let messages = self.messages.iter_mut();
            let mut slices: Vec<_> = messages.map(|m| [IoSliceMut::new(m)]).collect();
            let results = recvmmsg(
                self.socket.as_raw_fd(),
                &mut self.headers,
                &mut slices,
                MsgFlags::MSG_WAITFORONE,
                None,
            );
            match results {
                Ok(results) => results.count(),
                Err(Errno::EAGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        };
        self.messages[..received].iter().for_each(|m| seen(m));
        Ok(())
    }
}
