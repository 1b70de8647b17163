//! Taking what waits for a socket, wherever that is.

use std::sync::Arc;
use std::time::Instant;

use xtipc_segment::{MESSAGE_LEN_MAX, Meta, SendFlags};

use crate::attachment::{Attachment, Look, Patience};
use crate::buffer::Buffer;
use crate::core::{Core, Custody, Interest, Queue};
use crate::{Error, Message, Result};

impl Attachment {
    /// The next message for a socket.
    pub(crate) fn receive(self: &Arc<Self>, socket: u32, patience: Patience) -> Result<Message> {
        let mut taken = None;
        let len = MESSAGE_LEN_MAX;
        self.next(socket, len, patience, Queue::pop, |_, _| true, &mut taken)?;
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
            if let Some(asked) = asked {
                if consumes(&asked.meta, &asked.buffer) {
                    self.note_all_consumed([&asked.buffer])?;
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
            self.note_consumed(buffer)?;
        }
        Ok(Some(()))
    }

    /// Waits until `take` finds what it takes out of a socket's queue.
    pub(crate) fn take<T>(
        &self,
        socket: u32,
        patience: Patience,
        mut take: impl FnMut(&mut Core, u32) -> Result<Option<T>>,
    ) -> Result<T> {
        self.wait_after(Core::dispatch_of_daemon, patience, |core| {
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
        let (meta, buffer) = found.ok_or(Error::TimedOut)?;
        let mut core = self.core()?;
        self.settle_watch(&mut core, socket)?;
        drop(core);
        let message = Message::new(self, meta, buffer);
        self.note_all_consumed(message.buffer())?;
        Ok(message)
    }
}
