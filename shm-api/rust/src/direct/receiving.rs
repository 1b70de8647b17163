//! What comes to a socket by its channel.

use xtipc_segment::channel::{DirectBuffer, Envelope, Incoming};
use xtipc_segment::{Meta, Violation};

use super::Direct;
use super::waits::now_ns;
use crate::buffer::Buffer;
use crate::core::{Core, Interest, Queue};

/// Bytes for each unit of the window in the receive buffer.
const BUFFER_PER_UNIT: u32 = 4096;

impl Queue {
    /// Takes the next message out, with its bytes readable.
    pub(crate) fn pop(&mut self) -> Option<(Meta, Buffer)> {
        let mut message = self.pop_shared();
        if let Some((_, buffer)) = &mut message {
            buffer.make_own();
        }
        message
    }

    /// The same; what was loaned stays where it is.
    pub(crate) fn pop_shared(&mut self) -> Option<(Meta, Buffer)> {
        if self.messages.is_empty() {
            return self.take_direct();
        }
        let message = self.messages.pop_front();
        self.settle_take_over();
        message
    }

    /// The next message of the channel, of which nothing waits in the queue. All that is no message, [`Core::pull`] finds.
    fn take_direct(&mut self) -> Option<(Meta, Buffer)> {
        if !self.by_channel {
            return None;
        }
        self.settle_take_over();
        let direct = self.direct.as_mut()?;
        loop {
            let (envelope, buffer) = direct.channel.receiver.take_message().ok()??;
            if !buffer.is_empty() {
                let meta = meta_of(direct.about(now_ns()), &envelope, &buffer);
                return Some((meta, Buffer::Direct(buffer)));
            }
            buffer.consumed();
        }
    }

    /// Takes messages of the channel, at most `max`, if nothing waits in the queue: they are consumed.
    pub(crate) fn consume_direct(&mut self, max: usize, mut each: impl FnMut(Meta, DirectBuffer)) {
        if !self.by_channel || !self.messages.is_empty() {
            return;
        }
        self.settle_take_over();
        let Some(direct) = &mut self.direct else {
            return;
        };
        if !direct.channel.receiver.has_next() {
            return;
        }
        let about = direct.about(now_ns());
        // What is no message is found by [`Core::pull`].
        let _ = direct.channel.receiver.consume(max, |envelope, buffer| {
            if !buffer.is_empty() {
                each(meta_of(about, &envelope, &buffer), buffer);
            }
        });
    }

    /// What the daemon delivered.
    pub(crate) fn arrive(&mut self, meta: Meta, buffer: Buffer) {
        if self.by_channel {
            self.later.push_back((meta, buffer));
        } else if self.partners.is_some()
            && let Some(later) = self.waits_for_channel(&meta)
        {
            later.push_back((meta, buffer));
        } else {
            self.messages.push_back((meta, buffer));
        }
    }

    /// What came by the daemon before the switch was taken out: the peer may send as much again.
    pub(super) fn settle_take_over(&mut self) {
        let by_daemon = |message: &(Meta, Buffer)| matches!(message.1, Buffer::Delivered(_));
        if let Some(direct) = &mut self.direct
            && direct.take_over.is_some()
            && !self.messages.front().is_some_and(by_daemon)
            && let Some(units) = direct.take_over.take()
        {
            direct.channel.acknowledger.take_over(units);
        }
    }

    /// The receive buffer has this size now.
    pub(crate) fn set_receive_buffer(&mut self, bytes: u32) {
        if let Some(direct) = &self.direct {
            let units = (bytes / BUFFER_PER_UNIT).clamp(1, u16::MAX.into());
            direct.channel.acknowledger.set_window(units);
        }
    }
}

impl Direct {
    /// What is the same of all its messages.
    fn about(&self, timestamp_ns: u64) -> Meta {
        Meta {
            source: self.peer,
            destination: self.name,
            timestamp_ns,
            ..Meta::default()
        }
    }
}

fn meta_of(about: Meta, envelope: &Envelope, buffer: &DirectBuffer) -> Meta {
    Meta {
        importance: envelope.importance,
        original_len: buffer.len() as u32,
        ..about
    }
}

impl Core {
    /// Takes what came by channels, and notes where there is room again: whether there was anything.
    pub(crate) fn pull_all(&mut self) -> bool {
        let before = self.progress;
        let mut at = 0;
        while let Some(&socket) = self.channelled.get(at) {
            if self.queue(socket).is_err() {
                self.channelled.swap_remove(at);
                continue;
            }
            if let Err(violation) = self.pull(socket) {
                // Without a daemon the connection is over anyway.
                let _ = self.abort_connection(socket, violation);
            }
            self.pull_pairs(socket);
            at += 1;
        }
        self.progress != before
    }

    pub(super) fn pull(&mut self, socket: u32) -> std::result::Result<(), Violation> {
        let Ok(queue) = self.queue(socket) else {
            return Ok(());
        };
        queue.settle_take_over();
        let mut news = 0;
        let mut at_ns = 0;
        while queue.by_channel {
            let Some(direct) = &mut queue.direct else {
                break;
            };
            match direct.channel.receiver.take_next()? {
                None => {
                    // After its end the peer sends nothing more.
                    if queue.later.front().is_some_and(|(meta, _)| meta.error != 0) {
                        queue.leave_channel();
                        news += 1;
                    }
                    break;
                }
                Some(Incoming::Switch) => {
                    queue.leave_channel();
                    news += 1;
                }
                // Receivers throw empty messages away (`docs/protocol/sockets.md`).
                Some(Incoming::Message(_, buffer)) if buffer.is_empty() => buffer.consumed(),
                Some(Incoming::Message(envelope, buffer)) => {
                    if at_ns == 0 {
                        at_ns = now_ns();
                    }
                    let meta = meta_of(direct.about(at_ns), &envelope, &buffer);
                    queue.messages.push_back((meta, Buffer::Direct(buffer)));
                    news += 1;
                }
            }
        }
        if news > 0
            && let Some(watch) = &mut queue.watch
        {
            watch.set_again();
        }
        let awaited = |direct: &Direct| direct.room_awaited;
        let room = queue.direct.as_deref().is_some_and(awaited) && queue.may_send() != Some(false);
        if room {
            queue.note_room();
        }
        if news == 0 && !room {
            return Ok(());
        }
        self.progress += 1;
        self.tell(|interest| match interest {
            Interest::Socket(id) => news > 0 && id == socket,
            Interest::Room(id) => room && id == socket,
            Interest::AnySocket => true,
            _ => false,
        });
        Ok(())
    }
}
