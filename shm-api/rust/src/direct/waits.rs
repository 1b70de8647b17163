//! What a socket that waits to send by its direct channel shows of that: the daemon has no part in it, and lists it
//! (`docs/protocol/management.md`).

use rustix::time::{ClockId, clock_gettime};
use xtipc_segment::channel::ChannelWait;

use super::Direct;
use crate::Result;
use crate::attachment::{Attachment, Look, Patience};
use crate::core::{Core, Interest};

/// How a socket waits; nanoseconds of CLOCK_MONOTONIC.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    /// Since when messages are refused.
    refused_since: Option<u64>,
    /// Since when each of its calls waits.
    calls: Vec<u64>,
}

impl Direct {
    /// A message was refused.
    pub(super) fn note_refused(&mut self) {
        self.room_awaited = true;
        if self.waits.refused_since.is_none() {
            self.waits.refused_since = Some(now_ns());
            self.show_waits();
        }
    }

    /// A message was sent, or none is any more.
    pub(super) fn note_sent(&mut self) {
        if self.waits.refused_since.take().is_some() {
            self.show_waits();
        }
    }

    fn show_waits(&self) {
        let Waits {
            refused_since,
            calls,
        } = &self.waits;
        self.channel.sender.show(ChannelWait {
            refused_since: refused_since.unwrap_or(0),
            calls: calls.len() as u32,
            calls_since: calls.iter().copied().min().unwrap_or(0),
        });
    }
}

impl Attachment {
    /// Waits until `look` finds what it looks for or there is no channel to look at any more; that this call waits is shown
    /// meanwhile, since then or, where that is the first attempt, since now.
    pub(crate) fn wait_to_send<T>(
        &self,
        socket: u32,
        patience: Patience,
        since: &mut Option<u64>,
        mut look: impl FnMut(&mut Core) -> Result<Option<T>>,
    ) -> Result<T> {
        let since = *since.get_or_insert_with(now_ns);
        self.core()?.show_call(socket, |calls| calls.push(since));
        let waited = self.wait(patience, |core| {
            Ok(match look(core)? {
                Some(found) => Look::Found(found),
                None => Look::WaitFor(Interest::Room(socket)),
            })
        });
        self.core()?.show_call(socket, |calls| {
            if let Some(own) = calls.iter().position(|&other| other == since) {
                calls.swap_remove(own);
            }
        });
        waited
    }

    /// Waits until a message can be sent by the channel, or none is sent there any more.
    pub(crate) fn wait_for_room(
        &self,
        socket: u32,
        patience: Patience,
        since: &mut Option<u64>,
    ) -> Result<()> {
        self.wait_to_send(socket, patience, since, |core| {
            Ok((core.queue(socket)?.may_send() != Some(false)).then_some(()))
        })
    }

    /// Waits until it is known whether the peer, which takes nothing more, took the message of this number.
    pub(crate) fn wait_for_last(&self, socket: u32, number: u32) -> Result<bool> {
        self.wait_to_send(socket, Patience::Endless, &mut None, |core| {
            Ok(core.queue(socket)?.was_taken(number))
        })
    }
}

impl Core {
    fn show_call(&mut self, socket: u32, change: impl FnOnce(&mut Vec<u64>)) {
        if let Ok(queue) = self.queue(socket)
            && let Some(direct) = &mut queue.direct
        {
            change(&mut direct.waits.calls);
            direct.show_waits();
        }
    }
}

pub(super) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
