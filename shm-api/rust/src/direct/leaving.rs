//! How a socket comes away from its channel: the connection ends, is going to be shared, or is idle.

use xtipc_segment::channel::Sending;
use xtipc_segment::{ChannelNotice, Meta, Request, Violation};

use super::{Outgoing, PAUSE};
use crate::buffer::Buffer;
use crate::core::{Core, Interest, Queue};
use crate::pending::Purpose;
use crate::sharing::ReadPart;
use crate::{Error, Result};

/// Of an unread message that comes back.
pub(super) const RETURNED_MAX: usize = 1024;
/// Errcode of a socket that is not there.
pub(super) const NO_PORT: u8 = 2;

/// What the daemon has told of the end of a channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaving {
    pub(super) socket: u32,
    /// Port of the peer of one of datagrams, else 0.
    pub(super) peer: u32,
    pub(super) notice: ChannelNotice,
}

impl Queue {
    /// What comes next comes by the daemon.
    pub(super) fn leave_channel(&mut self) {
        self.by_channel = false;
        let mut later = std::mem::take(&mut self.later);
        self.messages.append(&mut later);
    }

    /// Of a channel that the peer has revoked: whether it took the message of this number. `None`: that is not known yet.
    pub(crate) fn was_taken(&mut self, number: u32) -> Option<bool> {
        let Some(direct) = &mut self.direct else {
            return Some(false);
        };
        let taken = direct.channel.sender.was_taken(number);
        if self.outgoing != Outgoing::Revoked {
            // The connection ended meanwhile, or another thread was told.
            return taken.or(Some(false));
        }
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
        let sent = outgoing != Outgoing::Never;
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
        self.stop_sending(socket, Outgoing::Never);
    }

    /// Nothing more is sent by the channel, but another way.
    fn stop_sending(&mut self, socket: u32, outgoing: Outgoing) {
        if let Ok(queue) = self.queue(socket) {
            queue.outgoing = outgoing;
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
            Outgoing::Channel => {
                let switched = direct.channel.sender.switch_back().map_err(|_| busy())?;
                switched != Sending::Congested
            }
            _ => true,
        };
        let is_direct = |message: &(Meta, Buffer)| matches!(message.1, Buffer::Direct(_));
        // Behind what the daemon has, it could not be put back in order.
        let mut behind = queue
            .messages
            .iter()
            .skip_while(|message| !is_direct(message));
        let is_mixed = !behind.all(is_direct);
        if !switched || is_mixed || queue.later.front().is_some() {
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

    /// Goes on with leaving the channels that the daemon has told to leave.
    pub(crate) fn leave_idle(&mut self) {
        if self.leaving.is_empty() {
            return;
        }
        self.pull_all();
        let mut leaving = std::mem::take(&mut self.leaving);
        leaving.retain(|leaving| {
            if leaving.peer != 0 {
                return !self.leave_pair(*leaving);
            }
            match self.leave(leaving.socket) {
                Ok(has_left) => !has_left,
                Err(violation) => {
                    // Without a daemon the connection is over anyway.
                    let _ = self.abort_connection(leaving.socket, violation);
                    false
                }
            }
        });
        self.leaving = leaving;
    }

    /// Goes on with leaving a channel: neither side sends anything more by it, and when what came by it was read, it is given
    /// back. Whether that is so, or the socket is no more.
    fn leave(&mut self, socket: u32) -> std::result::Result<bool, Violation> {
        if self.unmapped.contains(&(socket, 0)) {
            return Ok(false);
        }
        if !self.stop_both_ways(socket)? {
            return Ok(false);
        }
        let Ok(queue) = self.queue(socket) else {
            return Ok(true);
        };
        if let Some(direct) = &mut queue.direct {
            let is_read = direct.channel.sender.is_all_read()?;
            if !is_read || direct.channel.receiver.unread() > 0 || direct.unclear > 0 {
                return Ok(false);
            }
        }
        let request = |_| Request::LeaveChannel {
            peer: 0,
            at_once: false,
        };
        match self.submit(socket, &[], request, Purpose::Forget) {
            Ok(Ok(_)) => {}
            // There is no room for that now.
            Ok(Err(_)) => return Ok(false),
            // There is no daemon any more.
            Err(_) => return Ok(true),
        }
        self.channelled.retain(|other| *other != socket);
        let direct_after = self.direct_after;
        if let Ok(queue) = self.queue(socket) {
            queue.direct = None;
            if queue.outgoing != Outgoing::Never {
                queue.outgoing = Outgoing::Daemon(direct_after);
            }
        }
        Ok(true)
    }

    /// Nothing more goes by the channel of a socket: it sends by the daemon, and so does its peer, which may be making no
    /// calls at all. Whether that is so.
    fn stop_both_ways(&mut self, socket: u32) -> std::result::Result<bool, Violation> {
        let Ok(queue) = self.queue(socket) else {
            return Ok(true);
        };
        let Some(direct) = &mut queue.direct else {
            return Ok(true);
        };
        if queue.outgoing == Outgoing::Channel {
            match direct.channel.sender.switch_back()? {
                Sending::Done => self.go_on_by_daemon(socket),
                Sending::Congested => return Ok(false),
                Sending::Revoked(_) => queue.outgoing = Outgoing::Revoked,
            }
        }
        let by_channel = |queue: &mut Queue| queue.by_channel;
        if self.queue(socket).is_ok_and(by_channel) {
            self.take_last(socket)?;
        }
        self.settle_revoked(socket);
        let Ok(queue) = self.queue(socket) else {
            return Ok(true);
        };
        let is_unsettled = matches!(queue.outgoing, Outgoing::Switching(_) | Outgoing::Revoked);
        Ok(!is_unsettled)
    }

    /// Has the peer send nothing more by the channel, and takes what it has sent.
    fn take_last(&mut self, socket: u32) -> std::result::Result<(), Violation> {
        if let Ok(queue) = self.queue(socket)
            && let Some(direct) = &mut queue.direct
        {
            direct.channel.sleep.revoke();
        }
        self.pull(socket)?;
        if let Ok(queue) = self.queue(socket)
            && let Some(direct) = &mut queue.direct
        {
            direct.channel.receiver.finish();
            queue.leave_channel();
        }
        Ok(())
    }

    /// Once the peer, which takes nothing more, has told what it took: the daemon takes what is sent.
    pub(super) fn settle_revoked(&mut self, socket: u32) {
        if let Ok(queue) = self.queue(socket)
            && queue.outgoing == Outgoing::Revoked
            && queue.was_taken(0).is_some()
        {
            self.go_on_by_daemon(socket);
        }
    }

    /// Who waits to send has room.
    fn go_on_by_daemon(&mut self, socket: u32) {
        self.stop_sending(socket, Outgoing::Daemon(PAUSE));
        if let Ok(queue) = self.queue(socket) {
            queue.note_room();
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
