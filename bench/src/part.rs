//! One end of a measurement: a process that is pinned, in the network namespace of its side.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ::xtipc::{EmbeddedNode, Node};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::child::{die_with_parent, say_ready};
use crate::extent::Extent;
use crate::lab::{enter, pin};
use crate::rate::{Sink, Source};
use crate::round_trip::Asker;
#[cfg(feature = "zeromq")]
use crate::step::Place;
use crate::step::Step;
#[cfg(feature = "iceoryx2")]
use crate::subject::iceoryx2;
#[cfg(feature = "zeromq")]
use crate::subject::zeromq;
use crate::subject::{
    Subject, Wait, connect, connection, fan, handover, kernel_tipc, loan, look_up, memory, packet,
    stream, tcp, udp, unix, xdp, xtipc,
};
use crate::wire::Wire;
use crate::{rate, round_trip};

/// What an end does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Role {
    /// Makes round trips.
    Ask,
    /// Answers them.
    Echo,
    /// The same beside a load, with messages of the highest importance.
    AskUrgently,
    EchoUrgently,
    /// Sends one way.
    Send,
    /// Receives that.
    Receive,
    /// Makes round trips between two threads.
    AskItself,
    /// Sends one way from one thread to another.
    SendItself,
    /// Has so many sockets as the step has copies, and does nothing.
    Hold,
}

/// All that a process needs to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) role: Role,
    pub(crate) step: Step,
    /// Of this end, and of the other one.
    pub(crate) cpus: [usize; 2],
    /// A process in the network namespace of the side, if that is not the present one.
    pub(crate) namespace: Option<u32>,
    pub(crate) wire: Wire,
    pub(crate) side: usize,
    /// For a node of its own.
    pub(crate) run_directory: PathBuf,
    /// Of the side's daemon, if there is one.
    pub(crate) attach_socket: Option<PathBuf>,
    pub(crate) extent: Extent,
    /// Of what is paced.
    pub(crate) interval: Option<Duration>,
}

/// What the run says when it wants to know the result.
pub(crate) const FINISH: &str = "finish";

/// The hidden command `part`.
pub(crate) fn run(part: &str) -> Result<()> {
    die_with_parent()?;
    let part: Part = serde_json::from_str(part)?;
    // A thread of its own that is not bound to the processor: it only waits for the word of the run.
    static FINISHED: AtomicBool = AtomicBool::new(false);
    if part.role == Role::Receive {
        thread::spawn(|| {
            let mut line = String::new();
            // The end of the input means the same.
            let _ = std::io::stdin().read_line(&mut line);
            FINISHED.store(true, Ordering::Relaxed);
        });
    }
    if let Some(process) = part.namespace {
        enter(process)?;
    }
    pin(part.cpus[0])?;
    match part.role {
        Role::Echo => part.echo(),
        Role::EchoUrgently => xtipc::echo_urgent(&part.node()?, part.step.wait),
        Role::Ask | Role::AskItself | Role::AskUrgently => {
            let mut asker = part.asker()?;
            say_ready();
            let (touched, interval) = (part.step.touched(), part.interval);
            let times = round_trip::measure(&mut *asker, touched, &part.extent, interval)?;
            if part.role == Role::AskItself {
                // Threads have files to remove, and the run ends this process as soon as it has the answer.
                drop(asker);
            }
            answer(&times)
        }
        Role::Send => {
            let mut source = part.source()?;
            say_ready();
            answer(&rate::send(&mut *source, &part.extent)?)?;
            // What is under way may need this process: a stream, or frames that the kernel still sends.
            std::io::stdin().read_line(&mut String::new())?;
            Ok(())
        }
        Role::Receive => {
            let mut sink = part.sink()?;
            answer(&rate::receive(&mut *sink, part.step.copies, &FINISHED)?)
        }
        Role::SendItself => {
            say_ready();
            part.send_itself()
        }
        Role::Hold => xtipc::hold(&part.node()?, part.step.copies),
    }
}

fn answer(result: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(result)?);
    Ok(())
}

impl Part {
    /// The daemon's, or one of this process's own.
    fn node(&self) -> Result<Node> {
        if self.step.subject != Subject::XtipcEmbedded {
            let socket = self.attach_socket.as_ref().context("there is no daemon")?;
            return Ok(Node::builder().socket_path(socket).attach()?);
        }
        let policy = match self.step.wait {
            Wait::Sleeping => "adaptive",
            Wait::Spinning => "busy",
        };
        let directory = self.run_directory.display();
        let Wire { bearer, .. } = &self.wire;
        let settings = format!(
            "identity = \"bench-{}\"\nbearer = [\"{bearer}\"]\nrun_dir = \"{directory}\"\npolicy = \"{policy}\"\n\
             cpus = [{}]\nlog = \"warn\"\n",
            self.side, self.cpus[0]
        );
        Ok(EmbeddedNode::start(&settings)?.attach()?)
    }

    #[cfg(feature = "zeromq")]
    fn is_local(&self) -> bool {
        self.step.place != Place::Apart
    }

    fn echo(&self) -> Result<()> {
        let Step { size, wait, .. } = self.step;
        match self.step.subject {
            Subject::Xtipc => xtipc::echo(&self.node()?, wait),
            // A call waits as the policy of its node says.
            Subject::XtipcEmbedded => xtipc::echo(&self.node()?, Wait::Sleeping),
            Subject::XtipcConnection => connection::echo(&self.node()?, wait),
            Subject::XtipcLoan => loan::echo(&self.node()?, wait),
            Subject::XtipcConnect => connect::xtipc_echo(&self.node()?),
            Subject::XtipcEvent => fan::event_echo(&self.node()?),
            Subject::XtipcLookUp => look_up::bound(&self.node()?),
            Subject::Tcp => tcp::echo(wait, size),
            Subject::TcpConnect => connect::tcp_echo(size),
            Subject::Udp => udp::echo(wait, size),
            Subject::Packet => packet::echo(&self.wire, wait, size),
            Subject::KernelTipc => kernel_tipc::echo(wait, size),
            Subject::UnixStream => unix::echo(unix::Kind::Stream, wait, size),
            Subject::UnixSeqpacket => unix::echo(unix::Kind::Seqpacket, wait, size),
            Subject::Xdp if wait == Wait::Spinning => xdp::echo::<xdp::Own>(&self.wire),
            #[cfg(feature = "xsk-rs")]
            Subject::XskRs if wait == Wait::Spinning => xdp::echo::<xdp::XskRsSocket>(&self.wire),
            #[cfg(feature = "zeromq")]
            Subject::Zeromq => zeromq::echo(self.is_local()),
            subject => bail!("{subject} has no echo"),
        }
    }

    fn asker(&self) -> Result<Box<dyn Asker>> {
        let Step { size, wait, .. } = self.step;
        let peer = self.wire.peer;
        if self.role == Role::AskUrgently {
            return Ok(Box::new(xtipc::Ask::urgent(&self.node()?, wait)?));
        }
        Ok(match self.step.subject {
            Subject::Xtipc => Box::new(xtipc::Ask::new(&self.node()?, wait)?),
            Subject::XtipcEmbedded => Box::new(xtipc::Ask::new(&self.node()?, Wait::Sleeping)?),
            Subject::XtipcConnection => Box::new(connection::Ask::new(&self.node()?, wait)?),
            Subject::XtipcLoan => Box::new(loan::Ask::new(&self.node()?, wait, size)?),
            Subject::XtipcConnect => Box::new(connect::XtipcAsk::new(&self.node()?)?),
            Subject::XtipcEvent => Box::new(fan::EventAsk::new(&self.node()?)?),
            Subject::XtipcLookUp => Box::new(look_up::Ask::new(&self.node()?)?),
            Subject::Tcp => Box::new(tcp::Ask::new(peer, wait)?),
            Subject::TcpConnect => Box::new(connect::TcpAsk(peer)),
            Subject::Udp => Box::new(udp::Ask::new(peer, wait)?),
            Subject::Xdp => Box::new(xdp::Ask::<xdp::Own>::new(&self.wire)?),
            #[cfg(feature = "xsk-rs")]
            Subject::XskRs => Box::new(xdp::Ask::<xdp::XskRsSocket>::new(&self.wire)?),
            Subject::Packet => Box::new(packet::Ask::new(&self.wire, wait, size)?),
            Subject::KernelTipc => Box::new(kernel_tipc::Ask::new(wait)?),
            Subject::Memory => Box::new(memory::Ask::new(self.cpus[1], size)),
            #[cfg(feature = "iceoryx2")]
            Subject::Iceoryx2 => Box::new(iceoryx2::Ask::new(self.cpus[1], size)?),
            Subject::Handover => Box::new(handover::Ask::new(self.cpus[1])),
            Subject::Eventfd => Box::new(memory::Wake::new(self.cpus[1])?),
            Subject::UnixStream => Box::new(unix::Ask::new(unix::Kind::Stream, wait)?),
            Subject::UnixSeqpacket => Box::new(unix::Ask::new(unix::Kind::Seqpacket, wait)?),
            #[cfg(feature = "zeromq")]
            Subject::Zeromq => Box::new(zeromq::Ask::new(peer)?),
            subject => bail!("{subject} makes no round trips"),
        })
    }

    fn source(&self) -> Result<Box<dyn Source>> {
        let (size, copies, peer) = (self.step.size, self.step.copies, self.wire.peer);
        Ok(match self.step.subject {
            Subject::Xtipc | Subject::XtipcEmbedded => {
                Box::new(xtipc::Send::new(&self.node()?, size)?)
            }
            Subject::XtipcConnection => Box::new(connection::Send::new(&self.node()?, size)?),
            Subject::XtipcStream => Box::new(stream::Send::new(&self.node()?, size)?),
            Subject::XtipcMulticast => Box::new(fan::Multicast::new(&self.node()?, size, copies)?),
            Subject::XtipcGroup => Box::new(fan::Broadcast::new(&self.node()?, size, copies)?),
            Subject::Tcp => Box::new(tcp::Send::new(peer, size)?),
            Subject::Udp => Box::new(udp::Send::new(peer, size)?),
            Subject::UdpFan => Box::new(fan::UdpSend::new(peer, size, copies)?),
            Subject::Xdp => Box::new(xdp::Send::<xdp::Own>::new(&self.wire, size)?),
            #[cfg(feature = "xsk-rs")]
            Subject::XskRs => Box::new(xdp::Send::<xdp::XskRsSocket>::new(&self.wire, size)?),
            Subject::Packet => Box::new(packet::Send::new(&self.wire, size)?),
            Subject::KernelTipc => Box::new(kernel_tipc::Send::new(size)?),
            Subject::UnixStream => Box::new(unix::Send::new(unix::Kind::Stream, size)?),
            Subject::UnixSeqpacket => Box::new(unix::Send::new(unix::Kind::Seqpacket, size)?),
            #[cfg(feature = "zeromq")]
            Subject::Zeromq => Box::new(zeromq::Send::new(peer, size)?),
            subject => bail!("{subject} does not send one way"),
        })
    }

    fn sink(&self) -> Result<Box<dyn Sink>> {
        let (size, copies) = (self.step.size, self.step.copies);
        Ok(match self.step.subject {
            Subject::Xtipc | Subject::XtipcEmbedded => {
                Box::new(xtipc::Receive::new(&self.node()?)?)
            }
            Subject::XtipcConnection => Box::new(connection::Receive::new(&self.node()?)?),
            Subject::XtipcStream => Box::new(stream::Receive::new(&self.node()?, size)?),
            Subject::XtipcMulticast => Box::new(fan::Receivers::bound(&self.node()?, copies)?),
            Subject::XtipcGroup => Box::new(fan::Receivers::joined(&self.node()?, copies)?),
            Subject::Tcp => Box::new(tcp::Receive::new(size)?),
            Subject::Udp => Box::new(udp::Receive::new(size)?),
            Subject::UdpFan => Box::new(fan::UdpReceivers::new(size, copies)?),
            Subject::Xdp => Box::new(xdp::Receive::<xdp::Own>::new(&self.wire)?),
            #[cfg(feature = "xsk-rs")]
            Subject::XskRs => Box::new(xdp::Receive::<xdp::XskRsSocket>::new(&self.wire)?),
            Subject::Packet => Box::new(packet::Receive::new(&self.wire, size)?),
            Subject::KernelTipc => Box::new(kernel_tipc::Receive::new(size)?),
            Subject::UnixStream => Box::new(unix::Receive::new(unix::Kind::Stream, size)?),
            Subject::UnixSeqpacket => Box::new(unix::Receive::new(unix::Kind::Seqpacket, size)?),
            #[cfg(feature = "zeromq")]
            Subject::Zeromq => Box::new(zeromq::Receive::new(size, self.is_local())?),
            subject => bail!("{subject} does not receive one way"),
        })
    }

    fn send_itself(&self) -> Result<()> {
        let size = self.step.size;
        match self.step.subject {
            #[cfg(feature = "iceoryx2")]
            Subject::Iceoryx2 => {
                let send = || iceoryx2::Send::new(size);
                self.between_threads(send, || iceoryx2::Receive::new(size))
            }
            _ => {
                let (send, receive) = memory::ring(size);
                self.between_threads(|| Ok(send), || Ok(receive))
            }
        }
    }

    fn between_threads<S: Source, R: Sink>(
        &self,
        source: impl FnOnce() -> Result<S>,
        sink: impl FnOnce() -> Result<R> + Send,
    ) -> Result<()> {
        let (finished, cpu) = (AtomicBool::new(false), self.cpus[1]);
        let both = thread::scope(|scope| {
            let receiving = scope.spawn(|| {
                pin(cpu)?;
                rate::receive(&mut sink()?, 1, &finished)
            });
            let sent = source().and_then(|mut source| rate::send(&mut source, &self.extent));
            finished.store(true, Ordering::Relaxed);
            let received = receiving
                .join()
                .expect("the receiving thread does not panic");
            anyhow::Ok((sent?, received?))
        })?;
        answer(&both)
    }
}
