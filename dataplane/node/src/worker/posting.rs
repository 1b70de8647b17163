//! Messages that a thread of the application posts while it has the worker of an embedded node (`docs/architecture.md`).
//!
//! They go to the engine from where they lie: no request, no memory for it, no answer. What would have to wait, and what needs
//! more than the engine, is left to the caller, who makes a request of it.

use xtipc_protocol::addr::PortId;
use xtipc_protocol::engine::{Engine, SendError};
use xtipc_protocol::time::Instant;
use xtipc_segment::Destination;

use super::application::Role;
use super::applications::{Applications, Slot};
use super::connections::is_connected_kind;
use super::host::NodeHost;
use super::requests::{destination_of, send_errno};

/// Messages of a socket for one destination.
pub(super) struct Post<'a, 'm> {
    pub(super) port: PortId,
    pub(super) destination: Destination,
    pub(super) messages: &'a mut dyn ExactSizeIterator<Item = &'m [u8]>,
    pub(super) posted: Posted,
}

/// What became of messages that were posted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Posted {
    /// How many, from the first on, are done with.
    pub count: usize,
    /// An errno: why the first of them was not sent that failed.
    pub failed: Option<i32>,
}

impl Post<'_, '_> {
    /// Sends the messages, up to the first that has to wait; none if what was asked for before them is not done.
    pub(super) fn send(&mut self, engine: &mut Engine, host: &mut NodeHost, now: Instant) {
        if is_connected_kind(engine, self.port) {
            return;
        }
        let Some(slot) = free_sender(&host.applications, self.port) else {
            return;
        };
        let destination = destination_of(self.destination);
        self.posted = match (self.messages.len(), self.messages.next()) {
            (_, None) => return,
            // Less is found out than for several.
            (1, Some(message)) => match engine.send(now, self.port, &destination, message, host) {
                Err(SendError::Congested) => Posted::default(),
                sent => Posted {
                    count: 1,
                    failed: sent.err().map(send_errno),
                },
            },
            (_, Some(first)) => {
                let mut taken = 0;
                let messages = std::iter::once(first).chain(&mut *self.messages);
                let messages = messages.inspect(|_| taken += 1);
                let done = engine.send_many(now, self.port, &destination, messages, host);
                Posted {
                    count: taken - usize::from(done.congested),
                    failed: done.failed.map(send_errno),
                }
            }
        };
        if let Some(application) = host.applications.get_mut(slot) {
            application.submitted += self.posted.count as u64;
        }
    }
}

/// The application of a socket, if nothing that it has asked for goes before what the socket sends, and the socket is one that
/// only exchanges datagrams.
fn free_sender(applications: &Applications, port: PortId) -> Option<Slot> {
    let slot = applications.owner(port)?;
    let application = applications.get(slot)?;
    let socket = application.sockets.get(&port)?;
    let is_free = socket.role == Role::Datagram
        && application.side.is_quiet()
        && application.held.iter().all(|held| held.port != port)
        && applications.shared.holders(port).is_none();
    is_free.then_some(slot)
}
