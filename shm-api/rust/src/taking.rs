//! Taking what waits for a socket, wherever that is.

use std::sync::Arc;
use std::time::Instant;

use xtipc_segment::application::Delivery;
use xtipc_segment::{DeliveryFlags, MESSAGE_LEN_MAX, Meta, SendFlags, Violation};

use crate::attachment::{Attachment, Look, Patience};
use crate::buffer::Buffer;
use crate::core::{Core, Custody, Failure, Interest, Queue};
use crate::{Error, Message, Result, lock};

impl Attachment {
    /// The next message for a socket.
    pub(crate) fn receive(self: &Arc<Self>, socket: u32, patience: Patience) -> Result<Message> {
        let mut taken = None;
        let each = |meta, buffer| taken = Some((meta, buffer));
        let at_once = self.core()?.take_at_once(socket, 1, each);
        if at_once > 0 {
            self.settle_releases();
        } else if let Some((meta, buffer)) = self.catch(socket, patience) {
            return Ok(Message::new(self, meta, buffer));
        } else {
            let len = MESSAGE_LEN_MAX;
            self.next(socket, len, patience, Queue::pop, |_, _| true, &mut taken)?;
        }
        let (meta, buffer) = taken.ok_or(Error::WouldBlock)?;
        Ok(Message::new(self, meta, buffer))
    }

    /// The next message for a socket, wherever it waits; of a shared stream at most `len` bytes. It is in `taken` when this
    /// succeeds: it is large, and would be copied from hand to hand. What the caller `consumes` is noted as read in one step
    /// with taking it: a socket being shared meanwhile finds it on one side.
    pub(crate) fn next(
        &self,
        socket: u32,
        len: usize,
        patience: Patience,
        pop: fn(&mut Queue) -> Option<(Meta, Buffer)>,
        consumes: impl Fn(&Meta, &Buffer) -> bool,
        taken: &mut Option<(Meta, Buffer)>,
    ) -> Result<()> {
        while taken.is_none() {
            self.take(socket, patience, |core, socket| {
                self.pop(core, socket, pop, &consumes, taken)
            })?;
            if taken.is_some() {
                break;
            }
            let asked = self.ask_for_message(socket, len, SendFlags::empty(), patience)?;
            if let Some(mut asked) = asked {
                if consumes(&asked.meta, &asked.buffer) {
                    self.consume(&mut asked.buffer)?;
                }
                *taken = Some((asked.meta, asked.buffer));
            }
        }
        Ok(())
    }

    /// Takes what waits for a socket here. `Some` with nothing taken: the daemon has it.
    pub(crate) fn pop(
        &self,
        core: &mut Core,
        socket: u32,
        pop: fn(&mut Queue) -> Option<(Meta, Buffer)>,
        consumes: impl Fn(&Meta, &Buffer) -> bool,
        taken: &mut Option<(Meta, Buffer)>,
    ) -> Result<Option<()>> {
        let queue = core.queue(socket)?;
        if queue.custody != Custody::Own {
            return Ok((queue.custody == Custody::Shared).then_some(()));
        }
        *taken = pop(queue);
        let Some((meta, buffer)) = taken else {
            return Ok(None);
        };
        if consumes(meta, buffer) {
            self.consume(buffer)?;
        }
        Ok(Some(()))
    }

    /// Waits until `take` finds what it takes out of a socket's queue.
    pub(crate) fn take<T>(
        &self,
        socket: u32,
        patience: Patience,
        take: impl FnMut(&mut Core, u32) -> Result<Option<T>>,
    ) -> Result<T> {
        self.take_after(Core::dispatch_of_daemon, socket, patience, take)
    }

    /// The same after a dispatch of this kind.
    pub(crate) fn take_after<T>(
        &self,
        dispatch: fn(&mut Core),
        socket: u32,
        patience: Patience,
        mut take: impl FnMut(&mut Core, u32) -> Result<Option<T>>,
    ) -> Result<T> {
        self.wait_after(dispatch, patience, |core| {
            loop {
                if let Some(taken) = take(core, socket)? {
                    self.settle_watch(core, socket)?;
                    return Ok(Look::Found(taken));
                }
                if !core.pull_all() && !self.settle_watch(core, socket)? {
                    if matches!(patience, Patience::None) {
                        self.note_fruitless(core);
                    }
                    return Ok(Look::WaitFor(Interest::Socket(socket)));
                }
            }
        })
    }

    /// The next message for a socket, spinning.
    pub(crate) fn receive_spinning(
        self: &Arc<Self>,
        socket: u32,
        until: Instant,
    ) -> Result<Message> {
        let pop = |core: &mut Core| Ok(core.queue(socket)?.pop());
        let found = self.spin(Core::dispatch, Interest::Socket(socket), until, pop)?;
        let (meta, mut buffer) = found.ok_or(Error::TimedOut)?;
        let mut core = self.core()?;
        self.settle_watch(&mut core, socket)?;
        drop(core);
        self.consume(&mut buffer)?;
        Ok(Message::new(self, meta, buffer))
    }
}

impl Core {
    /// Hands messages of a socket, at most `max`, to their reader: what was dispatched before, then what is the next in the
    /// ring of deliveries, if nothing has to be done but that. All else is the dispatcher's. How many there were.
    pub(crate) fn take_at_once(
        &mut self,
        socket: u32,
        max: usize,
        mut each: impl FnMut(Meta, Buffer),
    ) -> usize {
        if !self.may_take_at_once(socket) {
            return 0;
        }
        let mut taken = 0;
        let outcome = self.take_delivered(socket, max, |meta, buffer| {
            taken += 1;
            each(meta, buffer);
        });
        if let Err(violation) = outcome {
            self.fail(Failure::Corrupted(violation));
        }
        taken
    }

    /// Whether the next message of a socket may be caught: nothing comes before it, and nothing else is to be dispatched.
    pub(crate) fn may_catch(&mut self, socket: u32) -> bool {
        let all_is_taken = !self.receiver.has_next() && !self.receiver.is_crowded();
        all_is_taken
            && self.may_take_at_once(socket)
            && self
                .queue(socket)
                .is_ok_and(|queue| queue.messages.is_empty())
    }

    /// Whether the next in the ring of deliveries is what this waits for, and can be taken at once.
    pub(crate) fn is_next(&mut self, awaited: Interest) -> bool {
        let Interest::Socket(socket) = awaited else {
            return false;
        };
        self.receiver.has_next()
            && self.may_take_at_once(socket)
            && matches!(self.receiver.look_at_delivery(), Ok(Some(next)) if is_plain(&next, socket))
    }

    /// Whether a socket gets what the daemon delivered as it is, and nothing else is to be dispatched before.
    fn may_take_at_once(&mut self, socket: u32) -> bool {
        let has_more_to_do = self.failure.is_some()
            || !self.unmapped.is_empty()
            || !self.leaving.is_empty()
            || self.receiver.has_completion();
        !has_more_to_do
            && self.queue(socket).is_ok_and(|queue| {
                queue.custody == Custody::Own
                    && queue.direct.is_none()
                    && !queue.has_pairs()
                    && queue.watch.is_none()
                    && !queue.is_closing()
            })
    }

    fn take_delivered(
        &mut self,
        socket: u32,
        max: usize,
        mut each: impl FnMut(Meta, Buffer),
    ) -> std::result::Result<(), Violation> {
        let mut locked = None;
        let mut left = max;
        if let Some(queue) = self.queues.get_mut(socket)
            && !queue.messages.is_empty()
        {
            let dispatched = max.min(queue.messages.len());
            left -= dispatched;
            for (meta, mut buffer) in queue.messages.drain(..dispatched) {
                let releaser = locked.get_or_insert_with(|| lock(&self.releaser));
                buffer.consume(releaser)?;
                each(meta, buffer);
            }
        }
        for _ in 0..left {
            let Some(delivery) = self.receiver.look_at_delivery()? else {
                break;
            };
            if !is_plain(&delivery, socket) {
                break;
            }
            let releaser = locked.get_or_insert_with(|| lock(&self.releaser));
            Buffer::read(delivery, releaser, &mut each)?;
        }
        if let Some(mut releaser) = locked {
            releaser.ring_doorbell()?;
        }
        Ok(())
    }
}

/// A message for a socket that there is nothing to do for but to read it.
#[inline]
fn is_plain(delivery: &Delivery<'_>, socket: u32) -> bool {
    let meta = delivery.meta();
    let is_message = meta.error == 0 && meta.flags == DeliveryFlags::empty();
    meta.socket == socket && is_message && !delivery.is_empty()
}
