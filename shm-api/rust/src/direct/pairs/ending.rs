//! How a socket comes away from the channel of a pair.

use xtipc_segment::{ChannelNotice, Meta, Request, Violation};

use super::super::Outgoing;
use super::super::leaving::{Leaving, NO_PORT, RETURNED_MAX};
use super::super::waits::now_ns;
use crate::buffer::Buffer;
use crate::core::{Core, Queue};
use crate::pending::Purpose;

impl Core {
    /// Goes on with what the daemon has told of the end of a channel. Whether that is done.
    pub(in crate::direct) fn leave_pair(&mut self, leaving: Leaving) -> bool {
        let Leaving {
            socket,
            peer,
            notice,
        } = leaving;
        if self.unmapped.contains(&(socket, peer)) {
            return false;
        }
        let Ok(queue) = self.queue(socket) else {
            return true;
        };
        let Some(pair) = queue.pair(peer) else {
            // Without a channel there is nothing to stop.
            return notice != ChannelNotice::Idle || self.tell_left(socket, peer, false);
        };
        let is_over = notice == ChannelNotice::Ended;
        if matches!(pair.outgoing, Outgoing::Switching(_)) || (pair.is_unsettled() && !is_over) {
            return false;
        }
        if notice == ChannelNotice::Idle {
            if let Err(violation) = pair.go_back() {
                self.abandon(socket, peer, violation);
                return true;
            }
            if pair.outgoing == Outgoing::Revoked {
                return false;
            }
            pair.outgoing = Outgoing::Never;
            return self.tell_left(socket, peer, false);
        }
        if pair.unclear > 0 && !is_over {
            return false;
        }
        self.drop_pair(socket, peer, is_over);
        true
    }

    /// The peer has written nonsense: it is as if it were no more, and the daemon is told.
    pub(super) fn abandon(&mut self, socket: u32, peer: u32, _violation: Violation) {
        self.drop_pair(socket, peer, true);
        // No room: then the daemon hears of it when the socket is closed.
        self.tell_left(socket, peer, true);
    }

    /// Tells the daemon that nothing more is sent by a channel. False: there is no room for that now.
    fn tell_left(&mut self, socket: u32, peer: u32, at_once: bool) -> bool {
        let request = |_| Request::LeaveChannel { peer, at_once };
        let told = self.submit(socket, &[], request, Purpose::Forget);
        // Without a daemon nobody has to know.
        !matches!(told, Ok(Err(_)))
    }

    /// Takes what has come by a channel, and lets go of it. With `is_over` what the peer has not read comes back.
    fn drop_pair(&mut self, socket: u32, peer: u32, is_over: bool) {
        let Ok(queue) = self.queue(socket) else {
            return;
        };
        let before = queue.messages.len();
        queue.take_last_of_pair(peer, is_over);
        let has_news = queue.messages.len() > before;
        if queue.pairs().is_empty() {
            self.channelled.retain(|other| *other != socket);
        }
        self.note_settled(socket);
        if has_news {
            self.note_news(socket);
        }
    }
}

impl Queue {
    fn take_last_of_pair(&mut self, peer: u32, is_over: bool) {
        let Some(partners) = &mut self.partners else {
            return;
        };
        let Some(at) = partners.place_of(peer) else {
            return;
        };
        // If it is nonsense there is no more.
        let _ = self.pull_pair(at);
        let Some(partners) = &mut self.partners else {
            return;
        };
        let mut pair = partners.pairs.swap_remove(at);
        self.messages.append(&mut pair.later);
        if !is_over {
            return;
        }
        // A peer that lies about what it read harms itself.
        let unread = pair.channel.sender.take_unread(RETURNED_MAX);
        for (envelope, bytes) in unread.unwrap_or_default() {
            // Of empty messages nobody hears.
            if envelope.droppable || bytes.is_empty() {
                continue;
            }
            let meta = Meta {
                error: NO_PORT,
                timestamp_ns: now_ns(),
                ..pair.meta_of(&envelope, bytes.len())
            };
            self.messages.push_back((meta, Buffer::Own(bytes)));
        }
    }
}
