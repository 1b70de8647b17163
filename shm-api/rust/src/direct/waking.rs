//! Sleeping where the peers of channels can wake, and where those are.

use std::os::fd::AsFd;

use xtipc_segment::application::Place;
use xtipc_segment::channel::Lookout;

use super::Direct;
use crate::Result;
use crate::core::{Core, Interest, Queue};

impl Queue {
    /// The program polls a descriptor: the peer's bell is to make it readable.
    pub(crate) fn watch_channel(&mut self) -> Result<()> {
        if let (Some(watch), Some(direct)) = (&self.watch, &mut self.direct)
            && !direct.watched
        {
            watch.add(direct.channel.rung.as_fd(), 0)?;
            direct.watched = true;
            direct.channel.announce(true);
        }
        self.watch_pairs()
    }

    /// Makes the descriptor that the program polls unreadable as far as the channel is concerned. To be followed by a look
    /// at the channel.
    pub(crate) fn silence_channel(&mut self) {
        if let Some(direct) = &mut self.direct {
            direct.channel.silence();
            direct.channel.announce(true);
        }
        self.silence_pairs();
    }
}

impl Core {
    /// Announces to the peers of all channels that a thread is about to sleep.
    pub(crate) fn announce_to_peers(&mut self) {
        for at in 0..self.channelled.len() {
            let socket = self.channelled[at];
            let Ok(queue) = self.queue(socket) else {
                continue;
            };
            queue.announce_to_pairs();
            if let Some(direct) = &mut queue.direct {
                direct
                    .channel
                    .announce(direct.room_awaited || direct.watched);
            }
        }
    }

    /// Takes the announcement back, but for those whose bells a program polls.
    pub(crate) fn awake_for_peers(&mut self) {
        for at in 0..self.channelled.len() {
            let socket = self.channelled[at];
            let Ok(queue) = self.queue(socket) else {
                continue;
            };
            queue.awake_for_pairs();
            if let Some(direct) = &mut queue.direct
                && !direct.watched
            {
                direct.channel.sleep.awake();
            }
        }
    }

    /// Where that is what a thread waits for, seen from it.
    pub(crate) fn place_of(&mut self, interest: Interest) -> Place {
        match self.is_peer_here(interest) {
            Some(true) => Place::Behind,
            Some(false) => Place::Elsewhere,
            None => self.receiver.place_of_daemon(),
        }
    }

    /// What sees a message come that a thread waits for, if it comes by a channel.
    pub(crate) fn lookout(&mut self, interest: Interest) -> Option<Lookout> {
        let Interest::Socket(socket) = interest else {
            return None;
        };
        let queue = self.queue(socket).ok()?;
        if !queue.by_channel {
            return queue.lookout_to_pair();
        }
        Some(queue.direct.as_ref()?.channel.receiver.lookout())
    }

    /// Whether the peer that a thread waits for is on its own processor; `None`: it waits for the daemon.
    pub(super) fn is_peer_here(&mut self, interest: Interest) -> Option<bool> {
        let (Interest::Socket(socket) | Interest::Room(socket)) = interest else {
            return None;
        };
        let queue = self.queue(socket).ok()?;
        if interest == Interest::Socket(socket) && !queue.by_channel {
            return queue.is_pair_here();
        }
        let direct = queue.direct.as_ref()?;
        let own = direct.tell_processor();
        Some(direct.channel.sleep.processor_of_peer() == Some(own))
    }
}

impl Direct {
    pub(super) fn tell_processor(&self) -> u32 {
        let own = rustix::thread::sched_getcpu() as u32;
        self.channel.sleep.run_on(own);
        own
    }
}
