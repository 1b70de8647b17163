//! Two ends of a channel on one processor: who waits for a message gives the processor to the peer once before it sleeps, and
//! the peer gives it back when it has sent one. Between two that do little else neither a bell nor a sleep is needed.
//!
//! The rules are those by which the daemon is stood by for ([`crate::stand_by`]). It has brought nothing, too, where it took
//! as long as others compute at a time: who sleeps is woken before these.

use std::sync::MutexGuard;
use std::thread;
use std::time::Instant;

use crate::attachment::{Attachment, SPIN_MAX};
use crate::core::{Core, Interest, Queue};
use crate::lock;

/// Something was sent by a channel, and no lock is held any more.
pub(crate) fn give_way(is_awaited: bool) {
    if is_awaited {
        thread::yield_now();
    }
}

impl Attachment {
    /// Stands by for the peer that a thread waits for, if it is here and that pays: whether it has brought something.
    pub(crate) fn stand_by_for_peer<'a>(
        &'a self,
        mut core: MutexGuard<'a, Core>,
        interest: Interest,
        before: u64,
    ) -> (MutexGuard<'a, Core>, bool) {
        let Interest::Socket(socket) = interest else {
            return (core, false);
        };
        if core.is_peer_here(interest) != Some(true)
            || !core.stand_by_for_peers.is_due()
            || !core.say_standing_by(socket, true)
        {
            return (core, false);
        }
        drop(core);
        let begun = Instant::now();
        thread::yield_now();
        let mut core = lock(&self.core);
        core.say_standing_by(socket, false);
        let mut found = core.queue(socket).is_ok_and(Queue::has_come);
        if !found {
            core.dispatch();
            found = core.progress != before;
        }
        let pays = found && begun.elapsed() < SPIN_MAX;
        core.stand_by_for_peers.learn(pays);
        (core, found)
    }
}

impl Core {
    /// Whether the peer of a connection stands by.
    pub(crate) fn is_awaited(&mut self, socket: u32) -> bool {
        let direct = |queue: &mut Queue| {
            let direct = queue.direct.as_ref();
            direct.is_some_and(|direct| direct.channel.sender.is_awaited())
        };
        self.queue(socket).is_ok_and(direct)
    }

    /// False: the peer is to ring, whatever threads do.
    fn say_standing_by(&mut self, socket: u32, stands_by: bool) -> bool {
        let Ok(queue) = self.queue(socket) else {
            return false;
        };
        let (channel, watched) = match &mut queue.direct {
            Some(direct) => (&mut direct.channel, direct.watched),
            None => match queue.last_pair() {
                Some(both) => both,
                None => return false,
            },
        };
        if watched {
            return false;
        }
        match stands_by {
            true => channel.sleep.stand_by(),
            false => channel.sleep.awake(),
        }
        true
    }
}

impl Queue {
    /// Whether the next message is there by the channel that one is awaited of.
    fn has_come(&mut self) -> bool {
        match &self.direct {
            Some(direct) => direct.channel.receiver.has_next(),
            None => {
                let last = self.last_pair();
                last.is_some_and(|(channel, _)| channel.receiver.has_next())
            }
        }
    }
}
