//! One end of a measurement: a process that is pinned, in the network namespace of its side.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::child::{die_with_parent, say_ready};
use crate::lab::{enter, pin};
use crate::rate::{Sink, Source};
use crate::round_trip::Asker;
use crate::subject::{Subject, Wait, tcp, udp, xdp, xtipc};
use crate::{rate, round_trip};

/// What an end does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Role {
    /// Makes round trips.
    Ask,
    /// Answers them.
    Echo,
    /// Sends one way.
    Send,
    /// Receives that.
    Receive,
}

/// All that a process needs to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) role: Role,
    pub(crate) subject: Subject,
    pub(crate) wait: Wait,
    /// Bytes of a message.
    pub(crate) size: usize,
    pub(crate) side: usize,
    pub(crate) cpu: usize,
    /// A process in the network namespace of the side.
    pub(crate) namespace: u32,
    /// Of the side's daemon, if there is one.
    pub(crate) attach_socket: Option<PathBuf>,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
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
    enter(part.namespace)?;
    pin(part.cpu)?;
    match part.role {
        Role::Echo => part.echo(),
        Role::Ask => {
            let mut asker = part.asker()?;
            say_ready();
            let times = round_trip::measure(&mut *asker, part.size, part.warm_up, part.duration)?;
            println!("{}", serde_json::to_string(&times)?);
            Ok(())
        }
        Role::Send => {
            let mut source = part.source()?;
            say_ready();
            let sent = rate::send(&mut *source, part.duration)?;
            println!("{}", serde_json::to_string(&sent)?);
            // What is under way may need this process: a stream, or frames that the kernel still sends.
            std::io::stdin().read_line(&mut String::new())?;
            Ok(())
        }
        Role::Receive => {
            let mut sink = part.sink()?;
            let received = rate::receive(&mut *sink, &FINISHED)?;
            println!("{}", serde_json::to_string(&received)?);
            Ok(())
        }
    }
}

impl Part {
    fn attach_socket(&self) -> Result<&PathBuf> {
        self.attach_socket.as_ref().context("there is no daemon")
    }

    fn echo(&self) -> Result<()> {
        match self.subject {
            Subject::Xtipc => xtipc::echo(self.attach_socket()?, self.wait),
            Subject::Tcp => tcp::echo(self.wait, self.size),
            Subject::Udp => udp::echo(self.wait, self.size),
            Subject::Xdp if self.wait == Wait::Spinning => xdp::echo(self.side),
            Subject::Xdp => bail!("raw AF_XDP spins"),
        }
    }

    fn asker(&self) -> Result<Box<dyn Asker>> {
        Ok(match self.subject {
            Subject::Xtipc => Box::new(xtipc::Ask::new(self.attach_socket()?, self.wait)?),
            Subject::Tcp => Box::new(tcp::Ask::new(self.wait)?),
            Subject::Udp => Box::new(udp::Ask::new(self.wait)?),
            Subject::Xdp => Box::new(xdp::Ask::new(self.side)?),
        })
    }

    fn source(&self) -> Result<Box<dyn Source>> {
        Ok(match self.subject {
            Subject::Xtipc => Box::new(xtipc::Send::new(self.attach_socket()?, self.size)?),
            Subject::Tcp => Box::new(tcp::Send::new(self.size)?),
            Subject::Udp => Box::new(udp::Send::new(self.size)?),
            Subject::Xdp => Box::new(xdp::Send::new(self.side, self.size)?),
        })
    }

    fn sink(&self) -> Result<Box<dyn Sink>> {
        Ok(match self.subject {
            Subject::Xtipc => Box::new(xtipc::Receive::new(self.attach_socket()?)?),
            Subject::Tcp => Box::new(tcp::Receive::new(self.size)?),
            Subject::Udp => Box::new(udp::Receive::new(self.size)?),
            Subject::Xdp => Box::new(xdp::Receive::new(self.side)?),
        })
    }
}
