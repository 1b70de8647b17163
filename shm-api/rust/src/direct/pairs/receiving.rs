//! What comes by the channels of pairs.

use std::collections::VecDeque;
use std::os::fd::AsFd;

use xtipc_segment::channel::{Channel, Incoming, Lookout};
use xtipc_segment::{Meta, Violation};

use super::super::Outgoing;
use super::super::waits::now_ns;
use crate::Result;
use crate::buffer::Buffer;
use crate::core::{Core, Interest, Queue};

/// [`Meta::cookie`] of what is to come back if it is never read.
pub(super) const RETURNABLE: u64 = 1;

impl Queue {
    /// Where a message of the daemon has to wait for the channel of its sender to be read.
    pub(in crate::direct) fn waits_for_channel(
        &mut self,
        meta: &Meta,
    ) -> Option<&mut VecDeque<(Meta, Buffer)>> {
        // What comes back was never on the way here.
        if meta.error != 0 {
            return None;
        }
        let mut pairs = self.pairs().iter_mut().filter(|pair| pair.by_channel);
        let pair = pairs.find(|pair| pair.peer == meta.source)?;
        Some(&mut pair.later)
    }

    /// The program polls a descriptor: the bells of all peers are to make it readable.
    pub(in crate::direct) fn watch_pairs(&mut self) -> Result<()> {
        let (Some(watch), Some(partners)) = (&self.watch, &mut self.partners) else {
            return Ok(());
        };
        for pair in &mut partners.pairs {
            if !pair.watched {
                watch.add(pair.channel.rung.as_fd(), pair.peer.port)?;
                pair.watched = true;
                pair.channel.announce(false);
            }
        }
        Ok(())
    }

    /// Makes the descriptor that the program polls unreadable as far as channels are concerned.
    pub(in crate::direct) fn silence_pairs(&mut self) {
        let (Some(watch), Some(partners)) = (&self.watch, &mut self.partners) else {
            return;
        };
        for port in watch.rung() {
            if let Some(pair) = partners.pair(port) {
                pair.channel.silence();
            }
        }
        for pair in &mut partners.pairs {
            pair.channel.announce(false);
        }
    }

    /// Announces to all peers that a thread is about to sleep.
    pub(in crate::direct) fn announce_to_pairs(&mut self) {
        for pair in self.pairs() {
            // Who waits for a peer to tell what it took is told by the bell in any case.
            pair.channel.announce(false);
        }
    }

    /// Takes that back, but for those whose bells a program polls.
    pub(in crate::direct) fn awake_for_pairs(&mut self) {
        for pair in self.pairs().iter_mut().filter(|pair| !pair.watched) {
            pair.channel.sleep.awake();
        }
    }

    /// What sees a message of the peer come that is the most likely to send one.
    pub(in crate::direct) fn lookout_to_pair(&mut self) -> Option<Lookout> {
        let pair = self.partners.as_mut()?.last()?;
        Some(pair.channel.receiver.lookout())
    }

    /// Its channel, and whether that is watched.
    pub(in crate::direct) fn last_pair(&mut self) -> Option<(&mut Channel, bool)> {
        let pair = self.partners.as_mut()?.last()?;
        Some((&mut pair.channel, pair.watched))
    }

    /// Whether that peer is on the processor of this thread.
    pub(in crate::direct) fn is_pair_here(&mut self) -> Option<bool> {
        let pair = self.partners.as_mut()?.last()?;
        let own = pair.tell_processor();
        Some(pair.channel.sleep.processor_of_peer() == Some(own))
    }
}

impl Core {
    /// Takes what came by the channels of a socket.
    pub(in crate::direct) fn pull_pairs(&mut self, socket: u32) {
        let mut at = 0;
        let mut news = false;
        while let Ok(queue) = self.queue(socket)
            && let Some(pair) = queue.pairs().get_mut(at)
        {
            let port = pair.peer.port;
            if pair.outgoing == Outgoing::Revoked && !pair.is_unsettled() {
                self.note_settled(socket);
                continue;
            }
            match queue.pull_pair(at) {
                Ok(some) => {
                    news |= some;
                    at += 1;
                }
                Err(violation) => self.abandon(socket, port, violation),
            }
        }
        if news {
            self.note_news(socket);
        }
    }

    /// Who waits for a peer that takes nothing more can go on.
    pub(super) fn note_settled(&mut self, socket: u32) {
        self.progress += 1;
        self.tell(|interest| interest == Interest::Room(socket));
    }

    /// A socket has something to receive that the daemon did not bring.
    pub(super) fn note_news(&mut self, socket: u32) {
        if let Ok(queue) = self.queue(socket)
            && let Some(watch) = &mut queue.watch
        {
            watch.set_again();
        }
        self.progress += 1;
        self.tell(|interest| {
            interest == Interest::Socket(socket) || interest == Interest::AnySocket
        });
    }
}

impl Queue {
    /// Takes what came by the channel of one pair. Whether there was anything.
    pub(super) fn pull_pair(&mut self, at: usize) -> std::result::Result<bool, Violation> {
        let Some(partners) = &mut self.partners else {
            return Ok(false);
        };
        let Some(pair) = partners.pairs.get_mut(at) else {
            return Ok(false);
        };
        let mut at_ns = 0;
        while pair.by_channel {
            match pair.channel.receiver.take_next()? {
                None => break,
                Some(Incoming::Switch) => {
                    pair.by_channel = false;
                    self.messages.append(&mut pair.later);
                    at_ns = 1;
                }
                // Receivers throw empty messages away (`docs/protocol/sockets.md`).
                Some(Incoming::Message(_, buffer)) if buffer.is_empty() => buffer.consumed(),
                Some(Incoming::Message(envelope, mut buffer)) => {
                    if at_ns <= 1 {
                        at_ns = now_ns();
                        partners.last = at;
                    }
                    // Datagrams are not loaned.
                    buffer.make_own();
                    let meta = Meta {
                        timestamp_ns: at_ns,
                        cookie: if envelope.droppable { 0 } else { RETURNABLE },
                        ..pair.meta_of(&envelope, buffer.len())
                    };
                    self.messages.push_back((meta, Buffer::Direct(buffer)));
                }
            }
        }
        Ok(at_ns > 0)
    }
}
