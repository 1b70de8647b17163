//! Raw AF_XDP: Ethernet frames with the TIPC ethertype and nothing of TIPC in them, through the sockets, the pool and
//! the classifier of xtipc. What xtipc costs above this is protocol, daemon and applications.

use anyhow::{Result, bail, ensure};
use std::time::Instant;
use xtipc_ebpf::{AttachMode, Classifier};
use xtipc_xsk::interface::Interface;
use xtipc_xsk::{BindMode, FramePool, PoolConfig, Reserve, SocketConfig, XskSocket};

use crate::child::say_ready;
use crate::rate::{BATCH, SINK_PATIENCE, Sink, Source, put_number};
use crate::round_trip::{Asker, PATIENCE};
use crate::wire::Wire;

const HEADER_LEN: usize = 14;
const ETHERTYPE: [u8; 2] = [0x88, 0xca];
const FRAME_MAX: usize = 2048;

/// One side's socket on queue 0.
struct Port {
    header: [u8; HEADER_LEN],
    socket: XskSocket,
    pool: FramePool,
    /// Holds the attachment.
    _classifier: Classifier,
}

impl Port {
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
        let interface = Interface::query(&wire.interface)?;
        let mut pool = FramePool::new(&PoolConfig::default())?;
        let config = SocketConfig::new(interface.index, 0, bind);
        let socket = XskSocket::open(&mut pool, &config)?;
        let mut classifier = Classifier::load()?;
        classifier.allow_vlan(0)?;
        classifier.insert_socket(0, &socket)?;
        classifier.attach(&wire.interface, attach)?;
        let mut header = [0; HEADER_LEN];
        header[..6].copy_from_slice(&wire.peer_mac);
        header[6..12].copy_from_slice(&wire.mac);
        header[12..].copy_from_slice(&ETHERTYPE);
        Ok(Self {
            header,
            socket,
            pool,
            _classifier: classifier,
        })
    }

    /// Puts a message into the transmit ring, emptying that into the wire first when it is full.
    fn push(&mut self, message: &[u8]) -> Result<()> {
        let len = HEADER_LEN + message.len();
        loop {
            if let Some(frame) = self.pool.alloc(Reserve::Data) {
                let bytes = self.pool.bytes_mut(frame);
                let bytes = bytes.expect("a frame just allocated is not in transmission");
                bytes[..HEADER_LEN].copy_from_slice(&self.header);
                bytes[HEADER_LEN..len].copy_from_slice(message);
                let pushed = self
                    .socket
                    .send(&mut self.pool, frame, 0, len, Reserve::Data);
                // The ring holds it as long as it needs it.
                self.pool.release(frame);
                if pushed.is_ok() {
                    return Ok(());
                }
            }
            self.kick()?;
        }
    }

    fn kick(&mut self) -> Result<()> {
        self.socket.kick()?;
        self.socket.complete(&mut self.pool);
        Ok(())
    }

    fn receive(&mut self, budget: usize, mut on_message: impl FnMut(&[u8])) -> Result<usize> {
        let received = self.socket.receive(budget, |frame| {
            if let Some(message) = frame.get(HEADER_LEN..) {
                on_message(message);
            }
        });
        self.socket.wake_fill()?;
        Ok(received)
    }
}

/// Sends everything back.
pub(crate) fn echo(wire: &Wire) -> Result<()> {
    let mut port = Port::open(wire)?;
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
pub(crate) struct Ask(Port);

impl Ask {
    pub(crate) fn new(wire: &Wire) -> Result<Self> {
        Ok(Self(Port::open(wire)?))
    }
}

impl Asker for Ask {
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
pub(crate) struct Send {
    port: Port,
    message: Vec<u8>,
}

impl Send {
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

impl Source for Send {
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
pub(crate) struct Receive(Port);

impl Receive {
    pub(crate) fn new(wire: &Wire) -> Result<Self> {
        let port = Port::open(wire)?;
        say_ready();
        Ok(Self(port))
    }
}

impl Sink for Receive {
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
