//! A datagram socket leaves its channels to be shared by processes: its queue has to be the daemon's.

use xtipc_segment::channel::Envelope;
use xtipc_segment::{DestinationName, SocketAddress};

use super::super::Outgoing;
use super::receiving::RETURNABLE;
use crate::attachment::{Attachment, Look, Patience};
use crate::buffer::Buffer;
use crate::core::{Core, Interest};
use crate::{Error, Result};

/// A message that came by a channel and was not read.
pub(in crate::direct) type Unread = (SocketAddress, Envelope, Vec<u8>);

impl Attachment {
    /// Sends nothing more by channels, and has peers send nothing more; gives what came and was not read.
    pub(in crate::direct) fn leave_pairs(&self, socket: u32) -> Result<Vec<Unread>> {
        self.wait(Patience::Endless, |core| {
            let mut pairs = core.queue(socket)?.pairs().iter();
            let switching = pairs.find_map(|pair| match pair.outgoing {
                Outgoing::Switching(tag) => Some(tag),
                _ => None,
            });
            Ok(match switching {
                Some(tag) => Look::WaitFor(Interest::Tag(tag)),
                None => Look::Found(()),
            })
        })?;
        self.core()?.leave_pairs(socket)
    }
}

impl Core {
    fn leave_pairs(&mut self, socket: u32) -> Result<Vec<Unread>> {
        let busy = || Error::from_result(-libc::EBUSY);
        self.dispatch();
        let queue = self.queue(socket)?;
        // Of one sender, behind what the daemon has nothing could be put back in order.
        let mut direct = Vec::new();
        for (meta, buffer) in &queue.messages {
            match buffer {
                Buffer::Direct(_) => direct.push(meta.source),
                _ if meta.error == 0 && direct.contains(&meta.source) => return Err(busy()),
                _ => {}
            }
        }
        for pair in queue.pairs() {
            // The peer is being shared, too.
            if pair.is_unsettled() {
                return Err(busy());
            }
            pair.go_back().map_err(|_| busy())?;
        }
        for pair in queue.pairs() {
            pair.outgoing = Outgoing::Never;
            pair.channel.sleep.revoke();
        }
        self.pull_pairs(socket);
        let mut unread = Vec::new();
        self.queue(socket)?.messages.retain(|(meta, buffer)| {
            let Buffer::Direct(buffer) = buffer else {
                return true;
            };
            buffer.consumed();
            let envelope = Envelope {
                importance: meta.importance,
                droppable: meta.cookie & RETURNABLE == 0,
                name: match meta.destination {
                    DestinationName::Service(name) => Some(name),
                    _ => None,
                },
            };
            unread.push((meta.source, envelope, buffer.to_vec()));
            false
        });
        Ok(unread)
    }

    /// The daemon has what was not read: peers may go on.
    pub(in crate::direct) fn left_pairs(&mut self, socket: u32) {
        let Ok(queue) = self.queue(socket) else {
            return;
        };
        let Some(partners) = &mut queue.partners else {
            return;
        };
        for mut pair in partners.pairs.drain(..) {
            pair.channel.receiver.finish();
            queue.messages.append(&mut pair.later);
        }
        self.channelled.retain(|other| *other != socket);
    }
}
