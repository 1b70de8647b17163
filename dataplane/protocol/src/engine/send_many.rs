//! Several messages of a socket to one destination. What sending finds out is the same for all of them as long as nothing
//! stands in the way: it is found out once.

use super::Engine;
use super::send::{SendError, Sender};
use crate::addr::{Destination, NodeAddr, PortId};
use crate::host::{Host, Payload};
use crate::time::Instant;
use crate::wire::field;
use std::iter::Peekable;

/// What became of several messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SentMany {
    /// Messages that were sent.
    pub sent: usize,
    /// Why the first one was not that failed.
    pub failed: Option<SendError>,
    /// The message taken last met congestion, and none behind it was taken.
    pub congested: bool,
}

impl Engine {
    /// Sends messages of a socket one after the other, up to the first that meets congestion.
    pub fn send_many<H: Host, P: Payload>(
        &mut self,
        now: Instant,
        from: PortId,
        to: &Destination,
        messages: impl Iterator<Item = P>,
        host: &mut H,
    ) -> SentMany {
        let mut messages = messages.peekable();
        let mut done = SentMany::default();
        let mut alike = true;
        loop {
            if alike {
                let sent = self.send_alike(now, from, to, &mut messages, host);
                alike = sent.is_some();
                done.sent += sent.unwrap_or(0);
            }
            let Some(message) = messages.next() else {
                return done;
            };
            match self.send(now, from, to, &message, host) {
                Ok(()) => done.sent += 1,
                Err(SendError::Congested) => {
                    done.congested = true;
                    return done;
                }
                Err(error) => {
                    done.failed.get_or_insert(error);
                }
            }
        }
    }

    /// Sends messages, as many as need nothing but a link to another node. `None`: such messages need more.
    fn send_alike<H: Host, P: Payload>(
        &mut self,
        now: Instant,
        from: PortId,
        to: &Destination,
        messages: &mut Peekable<impl Iterator<Item = P>>,
        host: &mut H,
    ) -> Option<usize> {
        let port = self.ports.get(&from)?;
        if !port.exchanges_datagrams() || port.refused_at.is_some() || port.is_congested() {
            return None;
        }
        let others_wait = !self.untold.is_empty() || !self.starved.is_empty();
        if others_wait || !self.is_constant(to) {
            return None;
        }
        let mut header = self.unicast_header(&Sender::of(port), to, 0).ok()?;
        let node = NodeAddr(header.get(field::DEST_NODE));
        if self.is_own(node) {
            return None;
        }
        let index = self.reachable(node)?;
        if !self.tell_first(now, index, from.0, host) {
            return None;
        }
        let mss = self.mss_to(index);
        let (peer, _, mut ctx) = self.at_peer(index, now, host)?;
        let link = peer.links.carrier_mut(from.0)?;
        let sent = link.submit_alike(&mut ctx, &mut header, mss, messages);
        self.settle(now, host);
        Some(sent)
    }

    /// Whether all messages to this destination go to the same socket, or are for the same node to decide on.
    fn is_constant(&self, to: &Destination) -> bool {
        match *to {
            Destination::Socket(_) => true,
            Destination::Service {
                kind,
                instance,
                domain,
            } => self.names.is_anycast_constant(kind, instance, domain.0),
            Destination::Range { .. } => false,
        }
    }
}
