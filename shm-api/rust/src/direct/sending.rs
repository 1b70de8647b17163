//! What a socket sends by its channel, and which way the next message goes.

use xtipc_segment::channel::{Loan, Sending};
use xtipc_segment::{Importance, MESSAGE_LEN_MAX, Ready, Request};

use super::{Direct, Outgoing, Way};
use crate::core::{Core, Queue};
use crate::pending::Purpose;
use crate::{Error, Result};

/// Sends between two looks at the processor.
const SENDS_PER_LOOK: u32 = 64;

impl Core {
    /// Finds the way for a message of a connection, and sends it if that is the channel.
    pub(crate) fn route(&mut self, socket: u32, payload: &[u8]) -> Result<Way> {
        let queue = self.queue(socket)?;
        if queue.outgoing == Outgoing::Channel
            && let Some(direct) = &mut queue.direct
        {
            direct.count_sends(1);
            return match direct.channel.sender.send(direct.importance, payload) {
                Ok(outcome) => {
                    let is_awaited = direct.channel.sender.is_awaited();
                    queue.note_outcome(outcome);
                    Ok(match outcome {
                        Sending::Done => Way::Sent(is_awaited),
                        Sending::Congested => Way::Congested,
                        Sending::Revoked(number) => Way::Revoked(number),
                    })
                }
                Err(violation) => {
                    self.abort_connection(socket, violation)?;
                    Ok(self.by_daemon(socket)?)
                }
            };
        }
        self.promote(socket)?;
        match self.queue(socket)?.outgoing {
            Outgoing::Switching(tag) => Ok(Way::Switching(tag)),
            Outgoing::Revoked => Ok(Way::Revoked(None)),
            _ => self.by_daemon(socket),
        }
    }

    /// Sends by the channel, if it is that, as many messages as there is room for: how many. If the peer takes nothing more
    /// there is the number of the first one: whether they were in time is to be found out.
    pub(crate) fn send_all<P: AsRef<[u8]>>(
        &mut self,
        socket: u32,
        payloads: &[P],
    ) -> Result<(u32, Option<u32>)> {
        let queue = self.queue(socket)?;
        let Some(direct) = &mut queue.direct else {
            return Ok((0, None));
        };
        if queue.outgoing != Outgoing::Channel {
            return Ok((0, None));
        }
        let payloads = payloads.iter().map(P::as_ref);
        let (sent, next) = match direct.channel.sender.send_all(direct.importance, payloads) {
            Ok(both) => both,
            Err(violation) => {
                self.abort_connection(socket, violation)?;
                return Ok((0, None));
            }
        };
        direct.count_sends(sent);
        if sent > 0 {
            queue.note_outcome(Sending::Done);
        }
        queue.note_outcome(next);
        Ok(match next {
            Sending::Done | Sending::Congested => (sent, None),
            Sending::Revoked(first) => (sent, first),
        })
    }

    /// Memory of a channel for a message. `None`: there is no channel, or no room in it.
    pub(crate) fn loan(&mut self, socket: u32, len: usize) -> Result<Option<Loan>> {
        let queue = self.queue(socket)?;
        match &mut queue.direct {
            Some(direct) if queue.outgoing == Outgoing::Channel => {
                Ok(direct.channel.sender.loan(len).unwrap_or_default())
            }
            _ => Ok(None),
        }
    }

    /// Takes a loan back that was not sent.
    pub(crate) fn take_loan_back(&mut self, socket: u32, loan: Loan) {
        if let Ok(queue) = self.queue(socket)
            && let Some(direct) = &mut queue.direct
        {
            direct.channel.sender.take_back(loan);
            if direct.room_awaited {
                // Who waits for it may be asleep, and wakes when the daemon answers something.
                let nothing = Request::Cancel { tag: 0 };
                let _ = self.submit(socket, &[], |_| nothing, Purpose::Forget);
            }
        }
    }

    /// Sends a loan. `None`: there is no channel any more, nor a connection.
    pub(crate) fn send_by_channel(
        &mut self,
        socket: u32,
        loan: Loan,
    ) -> Option<Result<std::result::Result<Sending, (Loan, Sending)>>> {
        let queue = self.queue(socket).ok()?;
        let is_of_another = |direct: &Direct| !direct.channel.sender.owns(&loan);
        if queue.outgoing != Outgoing::Channel || queue.direct.as_deref().is_some_and(is_of_another)
        {
            return Some(Ok(Err((loan, Sending::Revoked(None)))));
        }
        let direct = queue.direct.as_mut()?;
        Some(
            match direct.channel.sender.send_loan(direct.importance, loan) {
                Ok(sent) => {
                    let (Ok(outcome) | Err((_, outcome))) = &sent;
                    queue.note_outcome(*outcome);
                    Ok(sent)
                }
                Err(violation) => match self.abort_connection(socket, violation) {
                    Ok(()) => Err(Error::from_result(-libc::ECONNRESET)),
                    Err(error) => Err(error),
                },
            },
        )
    }

    /// It is known whether a message, which [`Sending::Revoked`] was told of, was taken.
    pub(crate) fn note_clear(&mut self, socket: u32) {
        if let Ok(queue) = self.queue(socket)
            && let Some(direct) = &mut queue.direct
        {
            direct.unclear = direct.unclear.saturating_sub(1);
        }
    }

    /// A message that was sent by a channel, and was too late.
    pub(crate) fn sent_by_channel(&mut self, socket: u32, number: u32) -> Vec<u8> {
        let direct = self
            .queue(socket)
            .ok()
            .and_then(|queue| queue.direct.as_ref());
        direct.map_or_else(Vec::new, |direct| {
            direct.channel.sender.sent(number, MESSAGE_LEN_MAX)
        })
    }

    fn by_daemon(&mut self, socket: u32) -> Result<Way> {
        self.queue(socket)?.sends_under_way += 1;
        Ok(Way::Daemon)
    }

    /// The daemon has answered a send.
    pub(crate) fn note_sent(&mut self, socket: u32) {
        if let Ok(queue) = self.queue(socket) {
            queue.sends_under_way -= 1;
        }
    }

    /// Whether a message could be sent by the channel now; if not, the program is to hear when it can. `None`: it would not go
    /// there.
    pub(crate) fn await_room(&mut self, socket: u32) -> Result<Option<bool>> {
        let queue = self.queue(socket)?;
        if queue.may_send() != Some(false) || queue.watch.is_none() {
            return Ok(queue.may_send());
        }
        queue.silence_channel();
        self.pull_all();
        Ok(self.queue(socket)?.may_send())
    }
}

impl Direct {
    /// Tells the peer now and then where this side runs.
    fn count_sends(&mut self, count: u32) {
        let looks = self.sends / SENDS_PER_LOOK;
        self.sends = self.sends.wrapping_add(count);
        if self.sends / SENDS_PER_LOOK != looks {
            self.tell_processor();
        }
    }
}

impl Queue {
    /// Whether a message could be sent by the channel now. `None`: it would not go there.
    pub(crate) fn may_send(&mut self) -> Option<bool> {
        let direct = match self.outgoing {
            Outgoing::Channel => self.direct.as_mut()?,
            Outgoing::Revoked => return self.was_taken(0).is_none().then_some(false),
            _ => return None,
        };
        let may = direct.channel.sender.may_send().unwrap_or(true);
        direct.room_awaited = !may;
        Some(may)
    }

    /// What came of sending by the channel.
    fn note_outcome(&mut self, outcome: Sending) {
        let Some(direct) = &mut self.direct else {
            return;
        };
        match outcome {
            Sending::Done => direct.note_sent(),
            Sending::Congested => direct.note_refused(),
            Sending::Revoked(number) => {
                self.outgoing = Outgoing::Revoked;
                direct.unclear += u32::from(number.is_some());
            }
        }
    }

    /// The option of the socket was set.
    pub(crate) fn set_importance(&mut self, importance: Importance) {
        if let Some(direct) = &mut self.direct {
            direct.importance = importance;
        }
    }

    /// The option of the socket was set.
    pub(crate) fn set_droppable(&mut self, droppable: bool) {
        if let Some(direct) = &mut self.direct {
            direct.droppable = droppable;
        }
    }

    /// There is room for what waits to be sent.
    pub(super) fn note_room(&mut self) {
        self.ready |= Ready::SEND;
        if let Some(watch) = &mut self.watch {
            watch.set_again();
        }
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
    }
}
