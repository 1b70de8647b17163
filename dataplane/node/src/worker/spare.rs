//! A worker that has nothing to serve: pinned, watched, and asleep until it is told to stop.
//!
//! The node runs on worker 0; peers and queues are not spread over further workers.

use super::{Failure, Source, WorkerConfig};
use crate::clock::now_ns;
use crate::steward::Command;
use crate::wait::{Interest, Waiter};

pub(super) fn run(own: &WorkerConfig) -> Result<(), Failure> {
    let mut waiter = Waiter::new()?;
    waiter.add(&own.commands, Interest::Read, Source::Commands.token(0))?;
    own.pulse().begin(now_ns());
    own.tell_ready(&waiter);
    let mut ready = Vec::with_capacity(1);
    loop {
        own.pulse().start_sleep(None);
        waiter.wait(None, &mut ready)?;
        own.pulse().round(now_ns());
        // Applications and tools are worker 0's; a question dropped here tells the tool that no answer came.
        if own
            .commands
            .drain()
            .any(|command| matches!(command, Command::Stop))
        {
            return Ok(());
        }
    }
}
