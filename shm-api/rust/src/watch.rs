//! Readiness of one socket as a file descriptor that any event loop can poll.
//!
//! The descriptor is an epoll instance over two sources: the read end of a pipe, which the daemon writes to after each
//! delivery to the socket (its end of file is the daemon's end), and an event fd of our own for messages found in the
//! queue after the pipe was emptied. Invariant, under the attachment's lock: each queued message is announced by a
//! byte in the pipe (or one about to be written), or by the event fd.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use rustix::event::{EventfdFlags, epoll, eventfd};
use xtipc_segment::application::drain_wake;
use xtipc_segment::attach::{Message, receive_message, send_message};

use crate::attachment::Attachment;
use crate::core::{Core, Failure};
use crate::node::receive_error;
use crate::{Error, Result};

/// The descriptor of a socket, made when it is first asked for.
#[derive(Debug, Default)]
pub(crate) struct Descriptor(OnceLock<Arc<OwnedFd>>);

impl Descriptor {
    pub(crate) fn of(&self, attachment: &Attachment, socket: u32) -> Result<BorrowedFd<'_>> {
        let fd = match self.0.get() {
            Some(fd) => fd,
            None => {
                let fd = attachment.watch(socket)?;
                self.0.get_or_init(|| fd)
            }
        };
        Ok(fd.as_fd())
    }
}

#[derive(Debug)]
pub(crate) struct Watch {
    pollable: Arc<OwnedFd>,
    pipe: OwnedFd,
    again: OwnedFd,
    /// The event fd is readable.
    again_set: bool,
}

impl Watch {
    fn new(pipe: OwnedFd) -> Result<Self> {
        let again = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(os)?;
        let pollable = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(os)?;
        for source in [pipe.as_fd(), again.as_fd()] {
            let data = epoll::EventData::new_u64(0);
            epoll::add(&pollable, source, data, epoll::EventFlags::IN).map_err(os)?;
        }
        Ok(Self {
            pollable: Arc::new(pollable),
            pipe,
            again,
            again_set: false,
        })
    }

    /// Has the descriptor become readable with this one too, which is told apart by its number if that is not 0.
    pub(crate) fn add(&self, source: BorrowedFd<'_>, number: u32) -> Result<()> {
        let data = epoll::EventData::new_u64(number.into());
        epoll::add(&self.pollable, source, data, epoll::EventFlags::IN).map_err(os)
    }

    /// Numbers of those that are readable, beside 0; the rest is told by the next look if there are many.
    pub(crate) fn rung(&self) -> impl Iterator<Item = u32> {
        let none = epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        };
        let mut events = [none; 64];
        let at_once = rustix::event::Timespec::default();
        let count = epoll::wait(&self.pollable, &mut events[..], Some(&at_once)).unwrap_or(0);
        let numbers = (0..count).map(move |at| { events[at].data }.u64() as u32);
        numbers.filter(|number| *number != 0)
    }

    pub(crate) fn set_again(&mut self) {
        if !self.again_set {
            self.again_set = rustix::io::write(&self.again, &1u64.to_ne_bytes()).is_ok();
        }
    }

    /// Makes the descriptor unreadable. False: the daemon is gone.
    fn clear(&mut self) -> bool {
        if self.again_set {
            let _ = rustix::io::read(&self.again, &mut [0u8; 8]);
            self.again_set = false;
        }
        drain_wake(self.pipe.as_fd())
    }
}

fn os(error: rustix::io::Errno) -> Error {
    Error::Io(error.into())
}

impl Attachment {
    /// Asks the daemon to watch a socket, once.
    pub(crate) fn watch(&self, socket: u32) -> Result<Arc<OwnedFd>> {
        if !self.is_ours() {
            return Err(Error::Forked);
        }
        let (turn, attach_socket) = self.converse()?;
        if let Some(watch) = &self.core()?.queue(socket)?.watch {
            return Ok(Arc::clone(&watch.pollable));
        }
        let gone = |_| Error::NodeGone;
        send_message(attach_socket.as_fd(), &Message::Watch { socket }, &[]).map_err(gone)?;
        let pipe = loop {
            let answer = receive_message(attach_socket.as_fd()).map_err(receive_error)?;
            match answer.ok_or(Error::NodeGone)? {
                (Message::Watching { socket: s, result }, mut fds) if s == socket => {
                    break match result {
                        0 => fds.pop(),
                        errno => return Err(Error::from_result(errno)),
                    };
                }
                (message, fds) => turn.set_aside(message, fds)?,
            }
        };
        let watch = Watch::new(pipe.ok_or(Error::NodeGone)?)?;
        let pollable = Arc::clone(&watch.pollable);
        self.note_watched();
        let mut core = self.core()?;
        core.dispatch();
        let queue = core.queue(socket)?;
        let watch = queue.watch.insert(watch);
        if !queue.messages.is_empty() {
            watch.set_again();
        }
        queue.watch_channel()?;
        // What came by the channel before that.
        core.dispatch();
        Ok(pollable)
    }

    /// After a receive: keeps the invariant when the queue of a watched socket ran empty. True: there is a message
    /// after all.
    pub(crate) fn settle_watch(&self, core: &mut Core, socket: u32) -> Result<bool> {
        let queue = core.queue(socket)?;
        let Some(watch) = &mut queue.watch else {
            return Ok(false);
        };
        if !queue.messages.is_empty() {
            return Ok(false);
        }
        let alive = watch.clear();
        queue.silence_channel();
        core.dispatch();
        if !alive {
            core.fail(Failure::Gone);
        }
        let queue = core.queue(socket)?;
        let Some(watch) = &mut queue.watch else {
            return Ok(false);
        };
        // A failed attachment stays readable: the next receive reports it.
        if !queue.messages.is_empty() {
            watch.set_again();
            return Ok(true);
        }
        Ok(false)
    }
}
