//! Short messages for a thread of the application that waits for them and has the worker of an embedded node
//! (`docs/architecture.md`).
//!
//! They go from the engine into its hands: no memory of the segment, no delivery to take out, nothing to give back. It has
//! taken out all that was delivered before, and of each look only what comes first for its socket is caught, so messages
//! stay in order.

use xtipc_protocol::addr::PortId;
use xtipc_protocol::host::{Incoming, Payload};
use xtipc_segment::Meta;
use xtipc_segment::application::SHORT_MAX;
use xtipc_segment::daemon::Consumed;

use super::application::{is_plain, meta_of, note_consumed};
use super::{Failure, Seen, Worker};

/// A message, as its reader gets it.
#[derive(Clone, Copy, Debug)]
pub struct Caught {
    /// About it.
    pub meta: Meta,
    /// How many of the bytes it has.
    pub len: u8,
    /// They, and zeros.
    pub bytes: [u8; SHORT_MAX],
}

/// What is to be caught in the look that is under way.
#[derive(Default)]
pub(super) struct Catcher {
    wanted: Option<PortId>,
    caught: Option<Caught>,
}

impl Catcher {
    /// Whether what comes next for a socket may be caught.
    #[inline]
    pub(super) fn awaits(&self, port: PortId) -> bool {
        self.wanted == Some(port)
    }

    /// Offers what comes next for the socket. False: it is to be delivered, as all is that follows.
    pub(super) fn offer<P: Payload + ?Sized>(
        &mut self,
        port: PortId,
        about: &Incoming,
        payload: &P,
        now_ns: u64,
    ) -> bool {
        self.wanted = None;
        let len = payload.len();
        if !is_plain(about) || !(1..=SHORT_MAX).contains(&len) {
            return false;
        }
        let mut bytes = [0; SHORT_MAX];
        payload.copy_to(0, &mut bytes[..len]);
        self.caught = Some(Caught {
            meta: meta_of(port, about, len, now_ns),
            len: len as u8,
            bytes,
        });
        true
    }
}

impl Worker {
    /// A look that catches a message for a socket, if one comes first that can be. It counts as read.
    pub(super) fn look_for(&mut self, port: PortId) -> Result<(Seen, Option<Caught>), Failure> {
        let catcher = &mut self.host.applications.catcher;
        catcher.wanted = Some(port);
        let seen = self.look();
        let catcher = &mut self.host.applications.catcher;
        catcher.wanted = None;
        let caught = catcher.caught.take();
        if let Some(Caught { meta, .. }) = &caught {
            let consumed = Consumed {
                socket: meta.socket,
                cost: meta.cost,
                cookie: meta.cookie,
                read: true,
                count: 1,
            };
            // Events that wait for room may have it now.
            self.stirred |= !self.engine.blocked_subscribers().is_empty();
            note_consumed(&mut self.engine, &consumed);
        }
        seen.map(|seen| (seen, caught))
    }
}
