//! The worker's work for applications and tools.

use std::os::fd::AsFd;

use xtipc_management::Request;
use xtipc_protocol::time::Instant;
use xtipc_segment::layout::Sizes;

use super::application::Application;
use super::applications::{Client, Slot};
use super::{Failure, Source, Worker, requests};
use crate::steward::Command;
use crate::wait::Interest;

/// Requests taken from an application in one round; of a batch each message counts.
const SUBMIT_BUDGET: usize = 64;
/// Ended applications that wait for their memory to be given back.
const DEPARTED_MAX: usize = 256;

impl Worker {
    pub(super) fn serve_applications(&mut self, now: Instant) -> usize {
        let mut served = 0;
        for slot in 0..self.host.applications.slots() {
            match self.serve(slot, now) {
                Ok(count) => served += count,
                Err(violation) => self.let_go(slot, now, &violation.to_string()),
            }
        }
        served
    }

    pub(super) fn serve(
        &mut self,
        slot: Slot,
        now: Instant,
    ) -> Result<usize, xtipc_segment::Violation> {
        let Some(application) = self.host.applications.get_mut(slot) else {
            return Ok(0);
        };
        if let Some(violation) = application.violation {
            return Err(violation);
        }
        let engine = &mut self.engine;
        let returned = application.take_note_of_reads(engine)?;
        if application.has_parked() {
            application.deliver_parked()?;
        }
        engine.acknowledge_consumed(now, &mut self.host);
        if returned > 0 && self.host.applications.shared.is_stalled() {
            self.host.applications.hand_out_stalled();
        }
        let mut count = returned;
        let limit = returned + SUBMIT_BUDGET;
        while count < limit {
            let Some(application) = self.host.applications.get_mut(slot) else {
                break;
            };
            let Some(submission) = application.side.pop()? else {
                break;
            };
            let before = application.submitted;
            requests::execute(&mut self.engine, &mut self.host, now, slot, submission)?;
            let after = self
                .host
                .applications
                .get(slot)
                .map_or(before, |a| a.submitted);
            // A batch is many.
            count += (after - before).max(1) as usize;
        }
        self.host.applications.note_awaited_reads(slot);
        Ok(count)
    }

    /// Tells them where the worker is and what is there for them. True: one of them waits for the processor.
    pub(super) fn notify_applications(&mut self) -> bool {
        let processor = rustix::thread::sched_getcpu() as u32;
        let idle_class = self.own.pulse().is_idle_class();
        self.shown_idle_class = idle_class;
        let mut waits = false;
        for slot in 0..self.host.applications.slots() {
            if let Some(application) = self.host.applications.get_mut(slot) {
                let (paths, side) = (&mut application.paths, &mut application.side);
                paths.look(&self.engine, |path, state| side.show_path(path, state));
                application.side.run_on(processor, idle_class);
                waits |= application.side.notify();
            }
        }
        waits
    }

    pub(super) fn on_commands(&mut self, now: Instant) -> Result<(), Failure> {
        let commands: Vec<Command> = self.own.commands.drain().collect();
        for command in commands {
            match command {
                Command::AttachClient(connection) => {
                    match self.host.applications.admit(connection, now.0) {
                        Ok((slot, evicted)) => {
                            if let Some(evicted) = evicted {
                                self.let_go(evicted, now, "said nothing");
                            }
                            self.watch_connection(slot)?;
                        }
                        Err(error) => tracing::warn!(%error, "application refused"),
                    }
                }
                Command::Query(mut query) => {
                    if matches!(query.request, Request::SocketList { .. }) {
                        // What applications have read since the worker slept.
                        self.serve_applications(now);
                    }
                    let answer = self.answer(now, &mut query);
                    // The tool may have lost patience.
                    let _ = query.reply.try_send(answer);
                }
                Command::BeginEpoch(epoch) => self.engine.begin_epoch(epoch),
                Command::Stop => self.stopping = true,
            }
        }
        Ok(())
    }

    pub(super) fn watch_connection(&mut self, slot: Slot) -> Result<(), Failure> {
        let fd = match self.host.applications.client(slot) {
            Some(Client::Stranger { connection, .. }) => connection.as_fd(),
            Some(Client::Attached(application)) => application.connection.as_fd(),
            None => return Ok(()),
        };
        Ok(self
            .waiter
            .add(fd, Interest::Read, Source::Connection(slot).token(0))?)
    }

    pub(super) fn on_attached(&mut self, slot: Slot) -> Result<(), Failure> {
        if let Some(Client::Attached(application)) = self.host.applications.client(slot) {
            let application: &Application = application;
            let process = application.process.pidfd.as_fd();
            self.waiter
                .add(process, Interest::Read, Source::Process(slot).token(0))?;
            if let Some(undertaker) = &self.undertaker {
                undertaker.watch(process);
            }
            let bell = application.side.doorbell();
            self.waiter
                .add(bell, Interest::Read, Source::DoorBell(slot).token(0))?;
            tracing::debug!(
                pid = application.process.pid,
                uid = application.process.uid,
                "application attached"
            );
        }
        Ok(())
    }

    /// Lets a process go that has ended or closed its attach socket. What it had submitted counts: it may have done so right
    /// after a post. To give back its memory takes longer than all else, and waits until there is nothing else to do: of many that
    /// end at once each is to be closed soon.
    pub(super) fn outlive(&mut self, slot: Slot, now: Instant, reason: &str) {
        // As much as it can have under way, in case it goes on: its ring full, and twice as many posted messages.
        for _ in 0..3 * Sizes::default().submissions as usize / SUBMIT_BUDGET {
            match self.serve(slot, now) {
                Ok(0) => break,
                Ok(_) => {}
                Err(violation) => return self.let_go(slot, now, &violation.to_string()),
            }
        }
        let departed = self.remove(slot, now, reason);
        self.departed.extend(departed);
        self.departed.truncate(DEPARTED_MAX);
    }

    /// Lets a client go; its sockets are closed by the protocol's rules at once.
    pub(super) fn let_go(&mut self, slot: Slot, now: Instant, reason: &str) {
        self.remove(slot, now, reason);
    }

    fn remove(&mut self, slot: Slot, now: Instant, reason: &str) -> Option<Client> {
        requests::detach(&mut self.engine, &mut self.host, now, slot);
        let client = self.host.applications.remove(slot)?;
        for source in [
            Source::Connection(slot),
            Source::Process(slot),
            Source::DoorBell(slot),
        ] {
            // A stranger has fewer descriptors than an application.
            let _ = self.waiter.remove(source.token(0));
        }
        match &client {
            Client::Attached(application) => {
                let pid = application.process.pid;
                if application.violation.is_some() {
                    tracing::warn!(pid, reason, "application detached");
                } else {
                    tracing::debug!(pid, reason, "application detached");
                }
            }
            Client::Stranger { .. } => tracing::debug!(reason, "connection closed"),
        }
        Some(client)
    }
}
