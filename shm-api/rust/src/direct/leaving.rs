//! How a socket comes away from its channel: the connection ends, or is going to be shared.

use xtipc_segment::{Meta, Request, Violation};

use super::Outgoing;
use crate::buffer::Buffer;
use crate::core::{Core, Interest, Queue};
use crate::pending::Purpose;
use crate::sharing::ReadPart;
use crate::{Error, Result};

/// Of an unread message that comes back.
const RETURNED_MAX: usize = 1024;
/// Errcode of a socket that is not there.
const NO_PORT: u8 = 2;

impl Queue {
    /// What comes next comes by the daemon.
    pub(super) fn leave_channel(&mut self) {
        self.by_channel = false;
        let mut later = std::mem::take(&mut self.later);
        self.messages.append(&mut later);
    }

    /// Of a channel that the peer has revoked: whether it took the message of this number. `None`: that is not known yet.
    pub(crate) fn was_taken(&mut self, number: u32) -> Option<bool> {
        let Outgoing::Revoked = self.outgoing else {
            // The connection ended meanwhile.
            return Some(false);
        };
        let Some(direct) = &mut self.direct else {
            return Some(false);
        };
        let taken = direct.channel.sender.was_taken(number);
        direct.room_awaited = taken.is_none();
        taken
    }

    /// What was read of the first message, for the daemon; of one that came by the channel the rest goes there.
    pub(crate) fn take_read_part(&mut self) -> ReadPart {
        if self.read > 0
            && let Some((_, Buffer::Direct(direct))) = self.messages.front()
        {
            direct.consumed();
            let rest = direct[std::mem::take(&mut self.read)..].to_vec();
            self.messages.pop_front();
            return ReadPart { read: 0, rest };
        }
        ReadPart {
            read: self.read,
            rest: Vec::new(),
        }
    }
}

impl Core {
    /// The end of a connection has come: of what was sent by the channel and not read, the oldest comes back with it.
    pub(crate) fn take_returned(&mut self, socket: u32) -> Option<Vec<u8>> {
        let outgoing = self.queue(socket).ok()?.outgoing;
        let sent = matches!(outgoing, Outgoing::Channel | Outgoing::Revoked);
        self.end_sending(socket);
        let queue = self.queue(socket).ok()?;
        let direct = queue
            .direct
            .as_mut()
            .filter(|direct| sent && !direct.droppable)?;
        // A peer that lies about what it read harms itself.
        direct.channel.sender.oldest_unread(RETURNED_MAX).ok()?
    }

    /// Nothing more is sent by the channel: who waits to send shall ask the daemon, which knows why.
    pub(crate) fn end_sending(&mut self, socket: u32) {
        if let Ok(queue) = self.queue(socket) {
            queue.outgoing = Outgoing::Never;
            if let Some(direct) = &mut queue.direct {
                direct.note_sent();
            }
            self.progress += 1;
            self.tell(|interest| interest == Interest::Room(socket));
        }
    }

    /// Leaves the channel both ways; the socket is being shared. Gives what came by it and was not read, which the daemon is to
    /// have before [`Core::left_channel`] lets the peer go on. `Err`: that is not possible now.
    pub(crate) fn leave_channel(&mut self, socket: u32) -> Result<Vec<Vec<u8>>> {
        let busy = || Error::from_result(-libc::EBUSY);
        self.dispatch();
        let queue = self.queue(socket)?;
        let Some(direct) = &mut queue.direct else {
            return Ok(Vec::new());
        };
        let switched = match queue.outgoing {
            Outgoing::Switching(_) | Outgoing::Revoked => false,
            Outgoing::Channel => direct.channel.sender.switch_back().map_err(|_| busy())?,
            _ => true,
        };
        if !switched || queue.later.front().is_some() {
            return Err(busy());
        }
        direct.channel.sleep.revoke();
        self.pull(socket).map_err(|_| busy())?;
        self.end_sending(socket);
        let queue = self.queue(socket)?;
        let mut unread = Vec::new();
        queue.messages.retain_mut(|(_, buffer)| {
            if let Buffer::Direct(direct) = buffer {
                direct.consumed();
                direct.make_own();
                unread.push(direct.to_vec());
                return false;
            }
            true
        });
        Ok(unread)
    }

    /// The daemon has what was not read.
    pub(crate) fn left_channel(&mut self, socket: u32) {
        if let Ok(queue) = self.queue(socket)
            && let Some(direct) = queue.direct.take()
        {
            queue.leave_channel();
            direct.channel.receiver.finish();
        }
    }

    /// The peer has written nonsense: this end of the connection is over, and the daemon is told.
    pub(super) fn abort_connection(&mut self, socket: u32, _violation: Violation) -> Result<()> {
        self.end_sending(socket);
        let queue = self.queue(socket)?;
        queue.leave_channel();
        let peer = queue.direct.take().map(|direct| direct.peer);
        let meta = Meta {
            socket,
            error: NO_PORT,
            source: peer.unwrap_or_default(),
            ..Meta::default()
        };
        queue.messages.push_back((meta, Buffer::Own(Vec::new())));
        self.progress += 1;
        self.tell(|interest| {
            interest == Interest::Socket(socket) || interest == Interest::AnySocket
        });
        // No room: then the connection ends when it is closed.
        let _ = self.submit(socket, &[], |_| Request::Shutdown, Purpose::Forget)?;
        Ok(())
    }
}
