//! xtipc: RDM sockets of applications that are attached to daemons.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use xtipc::{Datagram, Error, Importance, Kind, Message, Node, Scope, ServiceAddress};

use super::Wait;
use crate::child::say_ready;
use crate::rate::{BATCH, SINK_PATIENCE, Sink, Source, put_number};
use crate::round_trip::{Asker, PATIENCE};

const SERVICE: ServiceAddress = ServiceAddress {
    type_: 18890,
    instance: 1,
};
/// Where echoes are that others' load must not delay.
const URGENT: ServiceAddress = ServiceAddress {
    type_: 18890,
    instance: 2,
};
/// As much as the kernel's sockets have here.
const RECEIVE_BUFFER: u32 = 16 << 20;
/// When nothing came back for so long, nothing more will.
const RETURNS_PATIENCE: Duration = Duration::from_millis(100);
/// How long a sender leaves a receiver alone that rejected messages.
const FULL_PAUSE: Duration = Duration::from_millis(1);

fn open(node: &Node) -> Result<Datagram> {
    let socket = Datagram::open(node, Kind::Rdm)?;
    // What is rejected shall come back, so that every message is accounted for.
    socket.set_dest_droppable(false)?;
    Ok(socket)
}

fn serve(node: &Node, service: ServiceAddress) -> Result<Datagram> {
    let socket = open(node)?;
    socket.bind(service, Scope::Cluster)?;
    say_ready();
    Ok(socket)
}

/// Opens a socket and waits until the binding of the other side has come.
fn reach(node: &Node, service: ServiceAddress) -> Result<Datagram> {
    let socket = open(node)?;
    let begun = Instant::now();
    loop {
        // Receivers throw empty messages away.
        match socket.send_to(b"", service) {
            Ok(()) => return Ok(socket),
            Err(Error::Unreachable { .. }) if begun.elapsed() < PATIENCE => {
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receives; a spinning application lets the daemon on its processor run between two looks.
fn receive(socket: &Datagram, wait: Wait) -> Result<Message, Error> {
    match wait {
        Wait::Sleeping => socket.recv(),
        Wait::Spinning => socket.recv_spin(Instant::now() + PATIENCE),
    }
}

/// Sends everything back.
pub(crate) fn echo(node: &Node, wait: Wait) -> Result<()> {
    echo_at(serve(node, SERVICE)?, wait)
}

/// The same for [`Ask::urgent`].
pub(crate) fn echo_urgent(node: &Node, wait: Wait) -> Result<()> {
    let socket = serve(node, URGENT)?;
    socket.set_importance(Importance::Critical)?;
    echo_at(socket, wait)
}

fn echo_at(socket: Datagram, wait: Wait) -> Result<()> {
    loop {
        match receive(&socket, wait) {
            Ok(message) => socket.post_to(&message, message.source())?,
            Err(Error::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The end that asks.
pub(crate) struct Ask {
    socket: Datagram,
    service: ServiceAddress,
    wait: Wait,
}

impl Ask {
    pub(crate) fn new(node: &Node, wait: Wait) -> Result<Self> {
        let socket = reach(node, SERVICE)?;
        Ok(Self {
            socket,
            service: SERVICE,
            wait,
        })
    }

    /// With messages of the highest importance, to an echo of its own beside other traffic.
    pub(crate) fn urgent(node: &Node, wait: Wait) -> Result<Self> {
        let socket = reach(node, URGENT)?;
        socket.set_importance(Importance::Critical)?;
        Ok(Self {
            socket,
            service: URGENT,
            wait,
        })
    }
}

impl Asker for Ask {
    fn ask(&mut self, message: &[u8], answer: &mut [u8]) -> Result<usize> {
        self.socket.post_to(message, self.service)?;
        let echo = receive(&self.socket, self.wait).context("no echo")?;
        if let Some(reason) = echo.error() {
            bail!("the message came back: {reason:?}");
        }
        let len = echo.len().min(answer.len());
        answer[..len].copy_from_slice(&echo[..len]);
        Ok(len)
    }
}

/// The end that sends: many messages without waiting for the verdict on each.
pub(crate) struct Send {
    socket: Datagram,
    batch: Vec<Vec<u8>>,
    returned: u64,
}

impl Send {
    pub(crate) fn new(node: &Node, size: usize) -> Result<Self> {
        Ok(Self {
            socket: reach(node, SERVICE)?,
            batch: vec![vec![0; size]; BATCH],
            returned: 0,
        })
    }

    /// Counts what came back.
    fn take_returned(&mut self) -> Result<bool> {
        let mut some = false;
        loop {
            match self.socket.try_recv() {
                Ok(_) => (some, self.returned) = (true, self.returned + 1),
                Err(Error::WouldBlock) => return Ok(some),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Source for Send {
    fn send(&mut self, first: u64) -> Result<u64> {
        for (message, number) in self.batch.iter_mut().zip(first..) {
            put_number(message, number);
        }
        let mut rest = &self.batch[..];
        while !rest.is_empty() {
            let posted = self.socket.post_many(rest, SERVICE)?;
            rest = &rest[posted..];
        }
        if self.take_returned()? {
            // The receiver is full. What comes back beyond all measure finds no room to come back.
            thread::sleep(FULL_PAUSE);
        }
        Ok(BATCH as u64)
    }

    fn settle(&mut self) -> Result<u64> {
        self.socket.flush()?;
        let mut last = Instant::now();
        while last.elapsed() < RETURNS_PATIENCE {
            if self.take_returned()? {
                last = Instant::now();
            } else {
                thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(self.returned)
    }
}

/// The end that receives.
pub(crate) struct Receive {
    socket: Datagram,
    batch: Vec<Message>,
}

impl Receive {
    pub(crate) fn new(node: &Node) -> Result<Self> {
        let socket = open(node)?;
        socket.set_receive_buffer(RECEIVE_BUFFER)?;
        socket.bind(SERVICE, Scope::Cluster)?;
        socket.set_read_timeout(Some(SINK_PATIENCE));
        say_ready();
        Ok(Self {
            socket,
            batch: Vec::with_capacity(BATCH),
        })
    }
}

impl Sink for Receive {
    fn receive(&mut self, seen: &mut dyn FnMut(&[u8])) -> Result<()> {
        match self.socket.recv_many(&mut self.batch, BATCH) {
            Ok(_) | Err(Error::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
        for message in self.batch.drain(..) {
            // An empty one asked whether this service is there.
            if !message.is_empty() {
                seen(&message);
            }
        }
        Ok(())
    }
}

/// Opens sockets and keeps them: what is measured is the daemon.
pub(crate) fn hold(node: &Node, sockets: usize) -> Result<()> {
    let open = (0..sockets).map(|_| Datagram::open(node, Kind::Rdm));
    let _sockets = open.collect::<Result<Vec<_>, _>>()?;
    say_ready();
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}
