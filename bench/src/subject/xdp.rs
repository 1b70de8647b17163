//! Raw AF_XDP: Ethernet frames with the TIPC ethertype and nothing of TIPC in them, which the classifier of xtipc gives to
//! sockets of xtipc or of another crate ([`Rings`]). What xtipc costs above its own is protocol, daemon and applications; what
//! its own cost above another crate's is how frames and rings are kept.

mod own;
#[cfg(feature = "xsk-rs")]
mod xsk_rs;

use std::os::fd::AsFd;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
pub(crate) use own::Own;
#[cfg(feature = "xsk-rs")]
pub(crate) use xtipc_bench_sockets::xsk_rs::XskRsSocket;
use xtipc_ebpf::{AttachMode, Classifier};
use xtipc_xsk::BindMode;

use crate::child::say_ready;
use crate::rate::{BATCH, SINK_PATIENCE, Sink, Source, put_number};
use crate::round_trip::{Asker, PATIENCE};
use crate::wire::Wire;

const HEADER_LEN: usize = 14;
const ETHERTYPE: [u8; 2] = [0x88, 0xca];
const FRAME_MAX: usize = 2048;

/// A socket on queue 0 of an interface and the memory of its frames, as a crate has them.
pub(crate) trait Rings: AsFd + Sized {
    /// Binds in this mode, with wake-ups where they are needed.
    fn open(interface: &str, bind: BindMode) -> Result<Self>;

    /// Puts a frame of these two parts among those to be sent; `false` if there is no room before the next kick.
    fn push(&mut self, header: &[u8], message: &[u8]) -> Result<bool>;

    /// Has the kernel send them, and takes back what it has sent.
    fn kick(&mut self) -> Result<()>;

    /// Shows up to `budget` frames and gives them back to the kernel; returns how many.
    fn receive(&mut self, budget: usize, on_frame: impl FnMut(&[u8])) -> Result<usize>;
}

/// One side's socket, with the program that gives it frames.
struct Port<R> {
    header: [u8; HEADER_LEN],
    /// Of what the other side sends here.
    expected: [u8; HEADER_LEN],
    rings: R,
    /// Holds the attachment.
    _classifier: Classifier,
}

impl<R: Rings> Port<R> {
    /// In the fastest mode that the interface grants: generic where no driver of a device is behind it, as on veth.
    fn open(wire: &Wire) -> Result<Self> {
        let device = format!("/sys/class/net/{}/device", wire.interface);
        if std::fs::exists(device)? {
            for bind in [BindMode::ZeroCopy, BindMode::Copy] {
                if let Ok(port) = Self::open_in(wire, AttachMode::Native, bind) {
                    return Ok(port);
                }
            }
        }
        Self::open_in(wire, AttachMode::Generic, BindMode::Copy)
    }

    fn open_in(wire: &Wire, attach: AttachMode, bind: BindMode) -> Result<Self> {
        let rings = R::open(&wire.interface, bind)
            .with_context(|| format!("a socket on {} in mode {bind:?}", wire.interface))?;
        let mut classifier = Classifier::load()?;
        classifier.allow_vlan(0)?;
        classifier.insert_socket(0, &rings)?;
        classifier.attach(&wire.interface, attach)?;
        let header = |to: [u8; 6], from: [u8; 6]| {
            let mut header = [0; HEADER_LEN];
            header[..6].copy_from_slice(&to);
            header[6..12].copy_from_slice(&from);
            header[12..].copy_from_slice(&ETHERTYPE);
            header
        };
        Ok(Self {
            header: header(wire.peer_mac, wire.mac),
            expected: header(wire.mac, wire.peer_mac),
            rings,
            _classifier: classifier,
        })
    }

    /// Puts a message among those to be sent, sending those before when there is no room.
    fn push(&mut self, message: &[u8]) -> Result<()> {
        while !self.rings.push(&self.header, message)? {
            self.rings.kick()?;
        }
        Ok(())
    }

    fn kick(&mut self) -> Result<()> {
        self.rings.kick()
    }

    /// Shows messages of the other side, and tells how many. Nodes on the same network send frames of TIPC, too.
    fn receive(&mut self, budget: usize, mut on_message: impl FnMut(&[u8])) -> Result<usize> {
        let (expected, mut messages) = (self.expected, 0);
        self.rings.receive(budget, |frame| {
            if let Some(message) = frame.strip_prefix(&expected) {
                messages += 1;
                on_message(message);
            }
        })?;
        Ok(messages)
    }
}

/// Sends everything back.
pub(crate) fn echo<R: Rings>(wire: &Wire) -> Result<()> {
    let mut port = Port::<R>::open(wire)?;
    say_ready();
    let (mut answer, mut len) = ([0; FRAME_MAX], 0);
    loop {
        let received = port.receive(1, |message| {
            len = message.len();
            answer[..len].copy_from_slice(message);
        })?;
        if received > 0 {
            port.push(&answer[..len])?;
            port.kick()?;
        }
    }
}

/// The end that asks.
pub(crate) struct Ask<R>(Port<R>);

impl<R: Rings> Ask<R> {
    pub(crate) fn new(wire: &Wire) -> Result<Self> {
        Ok(Self(Port::open(wire)?))
    }
}

impl<R: Rings> Asker for Ask<R> {
    fn ask(&mut self, message: &[u8], answer: &mut [u8]) -> Result<usize> {
        self.0.push(message)?;
        self.0.kick()?;
        let mut len = 0;
        // The clock is for failures only, and costs a hundredth of a round trip when read this rarely.
        let begun = Instant::now();
        for round in 1_u32.. {
            let received = self.0.receive(1, |message| {
                len = message.len().min(answer.len());
                answer[..len].copy_from_slice(&message[..len]);
            })?;
            if received > 0 {
                break;
            }
            if round % 1024 == 0 && begun.elapsed() > PATIENCE {
                bail!("no echo");
            }
        }
        Ok(len)
    }
}

/// The end that sends.
pub(crate) struct Send<R> {
    port: Port<R>,
    message: Vec<u8>,
}

impl<R: Rings> Send<R> {
    pub(crate) fn new(wire: &Wire, size: usize) -> Result<Self> {
        ensure!(
            HEADER_LEN + size <= FRAME_MAX,
            "raw frames have at most {FRAME_MAX} bytes"
        );
        Ok(Self {
            port: Port::open(wire)?,
            message: vec![0; size],
        })
    }
}

impl<R: Rings> Source for Send<R> {
    fn send(&mut self, first: u64) -> Result<u64> {
        for number in first..first + BATCH as u64 {
            put_number(&mut self.message, number);
            self.port.push(&self.message)?;
        }
        self.port.kick()?;
        Ok(BATCH as u64)
    }
}

/// The end that receives, spinning.
pub(crate) struct Receive<R>(Port<R>);

impl<R: Rings> Receive<R> {
    pub(crate) fn new(wire: &Wire) -> Result<Self> {
        let port = Port::open(wire)?;
        say_ready();
        Ok(Self(port))
    }
}

impl<R: Rings> Sink for Receive<R> {
    fn receive(&mut self, seen: &mut dyn FnMut(&[u8])) -> Result<()> {
        let begun = Instant::now();
        for round in 1_u32.. {
            let received = self.0.receive(BATCH, &mut *seen)?;
            if received > 0 || (round % 256 == 0 && begun.elapsed() > SINK_PATIENCE) {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
