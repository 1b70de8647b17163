//! What comes to a socket by its channel.

use xtipc_segment::channel::Incoming;
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
        let (meta, mut buffer) = self.pop_shared()?;
        buffer.make_own();
        Some((meta, buffer))
    }

    /// The same; what was loaned stays where it is.
    pub(crate) fn pop_shared(&mut self) -> Option<(Meta, Buffer)> {
        let message = self.messages.pop_front()?;
        self.settle_take_over();
        Some(message)
    }

    /// What the daemon delivered.
    pub(crate) fn arrive(&mut self, meta: Meta, buffer: Buffer) {
        if self.by_channel {
            self.later.push_back((meta, buffer));
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

impl Core {
    /// Takes what came by channels, and notes where there is room again.
    pub(crate) fn pull_all(&mut self) {
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
            at += 1;
        }
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
                Some(Incoming::Message(importance, buffer)) => {
                    if at_ns == 0 {
                        at_ns = now_ns();
                    }
                    let meta = Meta {
                        socket,
                        importance,
                        source: direct.peer,
                        destination: direct.name,
                        original_len: buffer.len() as u32,
                        timestamp_ns: at_ns,
                        ..Meta::default()
                    };
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
