//! A worker thread: one loop over its inbox, asleep in between.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use xtipc_management::Response;

use crate::clock::now_ns;
use crate::config::Config;
use crate::mail::{Receiver, Sender};
use crate::placement::pin_current;
use crate::steward::{Command, Event};
use crate::wait::{Interest, Token, Waiter};
use crate::watchdog::Pulse;

/// What a worker is started with.
pub struct WorkerConfig {
    /// Its number, from 0.
    pub index: usize,
    /// The daemon's settings.
    pub config: Arc<Config>,
    /// Where it shows the watchdog that it lives.
    pub pulse: Arc<Pulse>,
    /// What the steward tells it.
    pub commands: Receiver<Command>,
    /// What it tells the steward.
    pub events: Sender<Event>,
}

/// Starts a worker thread.
pub fn spawn(config: WorkerConfig) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(format!("worker-{}", config.index))
        .spawn(move || {
            let worker = config.index;
            let last = match run(&config) {
                Ok(()) => Event::Stopped { worker },
                Err(error) => Event::Failed {
                    worker,
                    reason: error.to_string(),
                },
            };
            config.pulse.end();
            // The steward is gone only when the process ends anyway.
            let _ = config.events.send(last);
        })
}

fn run(own: &WorkerConfig) -> Result<(), Box<dyn std::error::Error>> {
    if let Some(&cpu) = own.config.cpus.get(own.index) {
        pin_current(cpu)?;
    }
    let mut waiter = Waiter::new()?;
    waiter.add(&own.commands, Interest::Read, Token(0))?;
    own.pulse.begin(now_ns());
    own.events.send(Event::Ready {
        worker: own.index,
        wait: waiter.description().into(),
    })?;
    let mut ready = Vec::new();
    loop {
        own.pulse.start_sleep(None);
        waiter.wait(None, &mut ready)?;
        own.pulse.round(now_ns());
        for command in own.commands.drain() {
            match command {
                Command::AttachClient(socket) => drop(socket),
                Command::Query(query) => {
                    let answer = Response::error(libc::EOPNOTSUPP, "this worker has no node");
                    // The tool may have lost patience.
                    let _ = query.reply.try_send(answer);
                }
                Command::Stop => return Ok(()),
            }
        }
    }
}
