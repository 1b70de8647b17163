//! Direct channels of datagram sockets: one for each pair of sockets, which both may use to send.
//!
//! After some messages to one socket the library asks for a channel to it. As with connections each side switches what it
//! sends, but nobody waits for room: what finds none in the channel, or has receivers that only the daemon knows, takes its
//! sender back to the daemon. The receiver keeps the order of each sender: what the daemon delivers of one whose messages
//! come by a channel waits until the switch back.

mod calls;
mod ending;
mod making;
mod receiving;
mod routing;
mod sharing;

use std::collections::VecDeque;

use xtipc_segment::channel::{Channel, Envelope};
use xtipc_segment::{Destination, DestinationName, Importance, Meta, SocketAddress};

use super::Outgoing;
use crate::buffer::Buffer;
use crate::core::Queue;
use routing::Routes;

/// With whom a datagram socket has to do.
#[derive(Debug, Default)]
pub(crate) struct Partners {
    routes: Routes,
    pairs: Vec<Pair>,
    /// The pair that was looked for, or brought something, last.
    last: usize,
    /// Where messages without a destination go, if the program has said so.
    default_destination: Option<Destination>,
    /// It is in a group.
    is_member: bool,
    importance: Importance,
    /// What is not read is dropped, and does not come back.
    droppable: bool,
}

/// A socket that this one has a channel with.
#[derive(Debug)]
struct Pair {
    channel: Channel,
    peer: SocketAddress,
    outgoing: Outgoing,
    /// How much may be unread of what is sent by the channel.
    credit: u64,
    /// Its messages come by the channel.
    by_channel: bool,
    /// What the daemon delivered of it meanwhile.
    later: VecDeque<(Meta, Buffer)>,
    /// The bell is in a descriptor that the program polls.
    watched: bool,
    /// Messages of which it is being found out whether the peer, which takes nothing more, took them.
    unclear: u32,
}

impl Pair {
    /// What a message of so many bytes tells beside its bytes, which the peer has sent or not read.
    fn meta_of(&self, envelope: &Envelope, len: usize) -> Meta {
        Meta {
            importance: envelope.importance,
            source: self.peer,
            destination: envelope
                .name
                .map_or(DestinationName::None, DestinationName::Service),
            original_len: len as u32,
            ..Meta::default()
        }
    }
}

impl Partners {
    fn pair(&mut self, port: u32) -> Option<&mut Pair> {
        let at = self.place_of(port)?;
        self.pairs.get_mut(at)
    }

    fn place_of(&mut self, port: u32) -> Option<usize> {
        let is_it = |pair: &Pair| pair.peer.port == port;
        if !self.pairs.get(self.last).is_some_and(is_it) {
            self.last = self.pairs.iter().position(is_it)?;
        }
        Some(self.last)
    }

    /// The pair whose messages are the most likely to come next.
    fn last(&mut self) -> Option<&mut Pair> {
        self.pairs.get_mut(self.last).filter(|pair| pair.by_channel)
    }

    /// The same, of a socket that is closed.
    pub(crate) fn into_later(self) -> impl Iterator<Item = (Meta, Buffer)> {
        self.pairs.into_iter().flat_map(|pair| pair.later)
    }

    /// What waits for channels to be read.
    pub(crate) fn later(&mut self) -> impl Iterator<Item = &mut (Meta, Buffer)> {
        self.pairs.iter_mut().flat_map(|pair| &mut pair.later)
    }
}

impl Queue {
    /// Of a datagram socket.
    fn partners(&mut self) -> &mut Partners {
        self.partners.get_or_insert_default()
    }

    /// Whether the socket has channels with others.
    pub(crate) fn has_pairs(&self) -> bool {
        let partners = self.partners.as_ref();
        partners.is_some_and(|partners| !partners.pairs.is_empty())
    }

    fn pair(&mut self, port: u32) -> Option<&mut Pair> {
        self.partners.as_mut()?.pair(port)
    }

    fn pairs(&mut self) -> &mut [Pair] {
        match &mut self.partners {
            Some(partners) => &mut partners.pairs,
            None => &mut [],
        }
    }
}
