//! A node inside the process of an application, for one that waits in its calls: who waits, makes the rounds.
//!
//! The same steward and worker as in the daemon, with three differences: the worker goes from thread to thread
//! ([`Turn`]), only this process attaches, and signals are the application's own. The operator's tools find the node in
//! its run directory as they find a daemon.

use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use crate::config::Config;
use crate::mail::Sender;
use crate::signals::{Ender, Signals};
use crate::steward::{self, Command, StewardError};
use crate::worker::Turn;

/// A running node. Dropping it stops it in order: its peers see that at once.
#[derive(Debug)]
pub struct Embedded {
    turn: Arc<Turn>,
    commands: Sender<Command>,
    ender: Ender,
    steward: Option<JoinHandle<Result<(), StewardError>>>,
}

/// Why there is no node.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// The node could not start or go on.
    #[error(transparent)]
    Steward(#[from] StewardError),
    /// The system refused a thread or a pipe.
    #[error("cannot start the node: {0}")]
    System(#[from] std::io::Error),
}

impl Embedded {
    /// Starts a node with these settings and waits until its address is its own: about a second.
    pub fn start(config: Config) -> Result<Self, EmbeddedError> {
        let (signals, ender) = Signals::from_ender()?;
        let turn = Arc::new(Turn::new(config.tolerance_ms_min()));
        let (started, commands) = mpsc::sync_channel(1);
        let steward = std::thread::Builder::new().name("steward".into()).spawn({
            let turn = Arc::clone(&turn);
            move || {
                let steward = steward::start(config, signals, Some(turn))?;
                let worker = steward.commands();
                // Whoever starts the node waits for this.
                let _ = started.send(worker.clone());
                let outcome = steward.serve();
                // A steward that failed has left its worker behind.
                let _ = worker.send(Command::Stop);
                outcome
            }
        })?;
        let Ok(commands) = commands.recv() else {
            join(steward)?;
            return Err(ended());
        };
        let mut node = Self {
            turn,
            commands,
            ender,
            steward: Some(steward),
        };
        if node.turn.wait_until_ready() {
            return Ok(node);
        }
        node.join()?;
        Err(ended())
    }

    /// The right to make its rounds.
    pub fn turn(&self) -> &Arc<Turn> {
        &self.turn
    }

    /// Gives the node one end of a pair of sockets, on which the other end attaches as an application attaches to a daemon.
    pub fn admit(&self, socket: OwnedFd) -> std::io::Result<()> {
        let sent = self.commands.send(Command::AttachClient(socket));
        sent.map_err(|error| std::io::Error::other(error.to_string()))
    }

    fn join(&mut self) -> Result<(), StewardError> {
        self.steward.take().map_or(Ok(()), join)
    }
}

fn join(steward: JoinHandle<Result<(), StewardError>>) -> Result<(), StewardError> {
    // A panic of the steward was told by its thread.
    steward.join().unwrap_or(Ok(()))
}

fn ended() -> EmbeddedError {
    std::io::Error::other("the node ended at once").into()
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.ender.end();
        if let Err(error) = self.join() {
            tracing::warn!(%error, "the embedded node did not stop in order");
        }
    }
}
