//! The daemon's record of messages that the application keeps in its own memory, unread.
//!
//! Their number is limited by the receive buffers of the sockets alone, so whoever reads one socket is never held up by
//! what it does not read of others.

use std::collections::{HashMap, VecDeque};

use crate::buffers::Unread;
use crate::daemon::Consumed;
use crate::delivery::Meta;
use crate::violation::Violation;

#[derive(Debug)]
pub(crate) struct KeptMessage {
    pub(crate) meta: Meta,
    /// Order of delivery.
    pub(crate) number: u64,
    /// What the daemon retained of it.
    pub(crate) bytes: Box<[u8]>,
}

#[derive(Debug, Default)]
pub(crate) struct Kept {
    messages: HashMap<u64, KeptMessage>,
    /// Those of each socket, oldest first; some may be gone.
    of_socket: HashMap<u32, VecDeque<u64>>,
    /// How many were kept so far: the id of the next.
    count: u64,
}

impl Kept {
    /// Gives the next id, to a message unless it is none of ours any more.
    pub(crate) fn add(&mut self, message: Option<(Unread, Box<[u8]>)>) {
        if let Some((unread, bytes)) = message {
            let ids = self.of_socket.entry(unread.meta.socket).or_default();
            ids.push_back(self.count);
            let message = KeptMessage {
                meta: unread.meta,
                number: unread.number,
                bytes,
            };
            self.messages.insert(self.count, message);
        }
        self.count += 1;
    }

    /// A message was read, or let go unread. `None`: it was taken before.
    pub(crate) fn release(&mut self, id: u64, read: bool) -> Result<Option<Consumed>, Violation> {
        self.check(id)?;
        let Some(message) = self.messages.remove(&id) else {
            return Ok(None);
        };
        let meta = message.meta;
        if let Some(ids) = self.of_socket.get_mut(&meta.socket) {
            while ids
                .pop_front_if(|id| !self.messages.contains_key(id))
                .is_some()
            {}
            if ids.is_empty() {
                self.of_socket.remove(&meta.socket);
            }
        }
        Ok(Some(Consumed {
            socket: meta.socket,
            cost: meta.cost,
            cookie: meta.cookie,
            read,
            count: 1,
        }))
    }

    /// The application tells all bytes of a message again: a place for them, unless it was taken before.
    pub(crate) fn restore(
        &mut self,
        id: u64,
        len: u32,
    ) -> Result<Option<&mut Box<[u8]>>, Violation> {
        self.check(id)?;
        let Some(message) = self.messages.get_mut(&id) else {
            return Ok(None);
        };
        if message.meta.original_len != len {
            return Err(Violation::Field {
                field: "length of a kept message",
                value: len,
            });
        }
        Ok(Some(&mut message.bytes))
    }

    fn check(&self, id: u64) -> Result<(), Violation> {
        match id < self.count {
            true => Ok(()),
            false => Err(Violation::Kept { id }),
        }
    }

    /// Takes those of a socket, or all.
    pub(crate) fn take(&mut self, socket: Option<u32>) -> Vec<KeptMessage> {
        match socket {
            Some(socket) => {
                let ids = self.of_socket.remove(&socket).unwrap_or_default();
                let taken = ids.iter().filter_map(|id| self.messages.remove(id));
                taken.collect()
            }
            None => {
                self.of_socket.clear();
                self.messages.drain().map(|(_, message)| message).collect()
            }
        }
    }
}
