//! A wire with faults between two interfaces, for tests: what netem does, where netem is not to be had.
//!
//! AF_XDP transmits past every queueing discipline, and netem in a guest impairs only what the guest sends; so the
//! lab puts this program between a node and its switch (`tests/interop/lab.py`). One thread takes frames from two
//! AF_PACKET sockets; what becomes of each is decided in [`direction`], and what may be asked for is in [`options`].
#![forbid(unsafe_code)]

mod direction;
mod options;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;
use xtipc_xsk::interface::Interface;
use xtipc_xsk::packet::{Listen, PacketConfig, PacketFrame, PacketSocket};

use direction::{Direction, Refused};
use options::Options;

/// The longest frame taken: jumbo frames and a tag. Longer ones, which only offloads make, are refused on sending.
const FRAME_MAX: usize = 1 << 16;
/// What the kernel holds while the relay does not run: some 25,000 frames of 1,500 bytes.
const SOCKET_BUFFER: usize = 64 << 20;
/// Frames taken from one side before it is the other's turn.
const BUDGET: usize = 64;
/// A signal that comes right before the wait is seen after it.
const WAIT_MAX: Duration = Duration::from_millis(50);
/// Destination and source address, behind which a VLAN tag stands.
const ADDRESSES: usize = 12;

/// One end of the wire.
struct End {
    name: String,
    socket: PacketSocket,
}

impl End {
    fn open(name: &str) -> Result<Self> {
        let interface = Interface::query(name)?;
        ensure!(
            interface.up,
            "interface `{name}` is down (ip link set {name} up)"
        );
        let socket = PacketSocket::open(&PacketConfig {
            ifindex: interface.index,
            listen: Listen::Everything,
            frame_len: FRAME_MAX,
            buffer: SOCKET_BUFFER,
        });
        Ok(Self {
            name: name.to_owned(),
            socket: socket.with_context(|| format!("interface `{name}`"))?,
        })
    }

    fn send(&mut self, frame: &[u8]) -> Result<(), Refused> {
        self.socket.send(frame).map_err(|_| Refused)
    }
}

/// Signals that have come.
struct Signals {
    stop: Arc<AtomicBool>,
    report: Arc<AtomicBool>,
}

impl Signals {
    fn catch() -> Result<Self> {
        let (stop, report) = (Arc::default(), Arc::default());
        for (signal, flag) in [(SIGTERM, &stop), (SIGINT, &stop), (SIGUSR1, &report)] {
            flag::register(signal, Arc::clone(flag)).context("cannot catch signals")?;
        }
        Ok(Self { stop, report })
    }
}

/// The wire: both ends, and the direction that starts at each.
struct Wire {
    ends: [End; 2],
    ways: [Direction; 2],
    start: Instant,
    /// A frame with its tag put back.
    tagged: Vec<u8>,
}

impl Wire {
    fn join(options: &Options) -> Result<Self> {
        ensure!(
            options.a != options.b,
            "a wire has two ends: `{}` is named twice",
            options.a
        );
        let [forth, back] = options.faults();
        Ok(Self {
            ends: [End::open(&options.a)?, End::open(&options.b)?],
            ways: [
                Direction::new(forth, options.seed, 0),
                Direction::new(back, options.seed, 1),
            ],
            start: Instant::now(),
            tagged: Vec::with_capacity(FRAME_MAX),
        })
    }

    /// One round: what came and what is due. Returns how many frames came.
    fn round(&mut self) -> usize {
        let now = self.start.elapsed();
        let [a, b] = &mut self.ends;
        let [forth, back] = &mut self.ways;
        carry(now, a, b, forth, &mut self.tagged) + carry(now, b, a, back, &mut self.tagged)
    }

    /// Waits until a frame comes, one is due, or a signal may have come.
    fn wait(&self) -> Result<()> {
        let now = self.start.elapsed();
        let due = self.ways.iter().filter_map(Direction::next_due).min();
        let time = due.map_or(WAIT_MAX, |due| due.saturating_sub(now).min(WAIT_MAX));
        let time = Timespec {
            tv_sec: time.as_secs() as i64,
            tv_nsec: time.subsec_nanos().into(),
        };
        let [a, b] = &self.ends;
        let mut fds = [&a.socket, &b.socket].map(|socket| PollFd::new(socket, PollFlags::IN));
        match poll(&mut fds, Some(&time)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error).context("cannot wait for frames"),
        }
    }

    fn report(&mut self) -> Result<()> {
        let mut directions = Vec::new();
        for (way, direction) in self.ways.iter().enumerate() {
            let to = self.ends[1 - way].name.clone();
            let from = &mut self.ends[way];
            from.socket.read_kernel_drops();
            let mut line = serde_json::to_value(direction.counters)?;
            line["from"] = json!(from.name);
            line["to"] = json!(to);
            line["held"] = json!(direction.held());
            line["overrun"] = json!(from.socket.kernel_drops());
            directions.push(line);
        }
        print(&json!({ "directions": directions }))
    }
}

/// Takes what came from one end to the other.
fn carry(
    now: Duration,
    from: &mut End,
    to: &mut End,
    direction: &mut Direction,
    tagged: &mut Vec<u8>,
) -> usize {
    let frames = from.socket.receive(BUDGET, |frame| {
        put_tag_back(&frame, tagged);
        direction.take(now, tagged, |bytes| to.send(bytes));
    });
    direction.release(now, |bytes| to.send(bytes));
    frames
}

/// The frame as it was on the wire: the kernel takes an outer VLAN tag out and tells it beside the frame.
fn put_tag_back(frame: &PacketFrame<'_>, whole: &mut Vec<u8>) {
    whole.clear();
    match frame.tag {
        Some(tag) if frame.bytes.len() >= ADDRESSES => {
            whole.extend_from_slice(&frame.bytes[..ADDRESSES]);
            whole.extend(tag.protocol.to_be_bytes());
            whole.extend(tag.control.to_be_bytes());
            whole.extend_from_slice(&frame.bytes[ADDRESSES..]);
        }
        _ => whole.extend_from_slice(frame.bytes),
    }
}

fn print(line: &serde_json::Value) -> Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()?;
    Ok(())
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtipc-relay: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let signals = Signals::catch()?;
    let mut wire = Wire::join(options)?;
    print(&json!({ "joined": [options.a, options.b], "seed": options.seed }))?;
    while !signals.stop.load(Ordering::Relaxed) {
        if signals.report.swap(false, Ordering::Relaxed) {
            wire.report()?;
        }
        if wire.round() == 0 {
            wire.wait()?;
        }
    }
    wire.report()
}
