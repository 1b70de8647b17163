//! Sockets that several processes use: the queue is the daemon's, and each message is asked for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use xtipc_segment::attach::{Message, receive_message, send_message};
use xtipc_segment::{Meta, Request, SendFlags, SocketKind};

use crate::attachment::{Attachment, Look, Patience};
use crate::buffer::Buffer;
use crate::conversation::Conversation;
use crate::core::{Custody, Interest};
use crate::node::receive_error;
use crate::pending::Purpose;
use crate::{Error, Result};

/// The right to use a socket, to be given to another process: a file descriptor that can be inherited or sent over a Unix
/// socket. Whoever has it takes it with the `adopt` of [`crate::Connection`], [`crate::Listener`] or
/// [`crate::Datagram`].
///
/// The socket is closed when no process uses it any more and no handle of it is open. Of those who use it, each message
/// goes to one, and a stream's bytes to whoever reads first; the end of a connection goes to all. A message that a
/// process was given and had not received when it ended goes to another one. A member of a group cannot be shared, nor a
/// socket that is polled, and a shared socket can neither join a group nor be polled.
#[derive(Debug)]
pub struct SharedHandle(OwnedFd);

impl AsFd for SharedHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for SharedHandle {
    /// A descriptor that came from another process. Whether it is a handle shows when it is adopted.
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<SharedHandle> for OwnedFd {
    fn from(handle: SharedHandle) -> Self {
        handle.0
    }
}

/// What was read of the oldest message that is not consumed.
#[derive(Debug, Default)]
pub(crate) struct ReadPart {
    /// So many bytes of a message that the daemon has delivered.
    pub(crate) read: usize,
    /// What is left of one that came by a direct channel.
    pub(crate) rest: Vec<u8>,
}

/// A socket that was adopted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Adopted {
    pub(crate) id: u32,
    pub(crate) kind: SocketKind,
    pub(crate) listens: bool,
}

/// A message of a shared socket that was asked for.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) meta: Meta,
    pub(crate) buffer: Buffer,
    /// Nothing of it is left with the daemon.
    pub(crate) whole: bool,
}

impl Attachment {
    /// Makes the descriptor of a socket that was not shared yet.
    pub(crate) fn describe(&self, socket: u32) -> Result<OwnedFd> {
        if !self.is_ours() {
            return Err(Error::Forked);
        }
        let (turn, attach_socket) = self.converse()?;
        let describe = Message::Describe { socket };
        let answer = |answer: &Message, fds: &mut Vec<OwnedFd>| match answer {
            Message::Described { socket: s, result } if *s == socket => Some((*result, fds.pop())),
            _ => None,
        };
        match ask(&turn, attach_socket, &describe, None, answer)? {
            // The kernel leaves out what the process may not have.
            (0, descriptor) => descriptor.ok_or(Error::from_result(-libc::EMFILE)),
            (errno, _) => Err(Error::from_result(errno)),
        }
    }

    /// Hands the queue of a socket to the daemon, and gives a handle: see [`Attachment::hand_over`].
    pub(crate) fn share(
        &self,
        socket: u32,
        read: impl FnOnce() -> Result<ReadPart>,
    ) -> Result<SharedHandle> {
        let handle = self.hand_over(socket, read)?;
        Ok(SharedHandle(handle.ok_or(Error::NodeGone)?))
    }

    /// Hands the queue of a socket to the daemon, and gives a handle if it has no descriptor. `read` tells of a message that
    /// was read in part, or that sharing has to be given up.
    pub(crate) fn hand_over(
        &self,
        socket: u32,
        read: impl FnOnce() -> Result<ReadPart>,
    ) -> Result<Option<OwnedFd>> {
        let (turn, attach_socket) = self.converse()?;
        {
            let mut core = self.core()?;
            let queue = core.queue(socket)?;
            if queue.watch.is_some() {
                return Err(Error::PolledNotShared);
            }
            if queue.custody == Custody::Own {
                queue.custody = Custody::InTransit;
            }
        }
        let handle = self.restore(socket).and_then(|()| read()).and_then(|part| {
            self.leave_channel(socket, &part.rest)?;
            ask_for_handle(&turn, attach_socket, socket, part.read as u32)
        });
        let custody = match handle {
            Ok(_) => Custody::Shared,
            Err(_) => Custody::Own,
        };
        self.settle_custody(socket, custody)?;
        handle
    }

    /// Tells the daemon the bytes of unread messages that are kept here.
    fn restore(&self, socket: u32) -> Result<()> {
        let kept: Vec<(u64, Vec<u8>)> = {
            let mut core = self.core()?;
            let queue = core.queue(socket)?;
            let partial = queue.partial.iter().map(|(buffer, _)| buffer);
            let unread = partial.chain(queue.messages.iter().map(|(_, buffer)| buffer));
            unread
                .filter_map(|buffer| Some((buffer.kept_id()?, buffer.to_vec())))
                .collect()
        };
        for (id, bytes) in kept {
            self.tell(socket, &bytes, |payload| Request::Restore { id, payload })?;
        }
        Ok(())
    }

    /// What was delivered before the daemon took the queue is the daemon's again.
    fn settle_custody(&self, socket: u32, custody: Custody) -> Result<()> {
        let mut core = self.core()?;
        core.dispatch();
        let queue = core.queue(socket)?;
        if queue.custody != Custody::InTransit {
            return Ok(());
        }
        queue.custody = custody;
        if custody == Custody::Shared {
            for (_, buffer) in std::mem::take(&mut queue.messages) {
                self.give_back(buffer);
            }
        }
        core.tell(|interest| interest == Interest::Socket(socket));
        if core.driver.is_some() {
            drop(core);
            self.wake_driver()?;
        }
        Ok(())
    }

    /// The thread that drives hears of what the daemon does alone: so it answers something.
    fn wake_driver(&self) -> Result<()> {
        // No request has this tag.
        let nothing = |_| Request::Cancel { tag: 0 };
        self.submit(0, &[], nothing, Purpose::Forget, Patience::Endless)?;
        self.send_off();
        Ok(())
    }

    /// Takes the socket of a handle into use.
    pub(crate) fn adopt(&self, handle: BorrowedFd<'_>) -> Result<Adopted> {
        if !self.is_ours() {
            return Err(Error::Forked);
        }
        // It may be the very socket that this process is letting go of.
        self.wait(Patience::Endless, |core| {
            Ok(match core.is_closing() {
                false => Look::Found(()),
                true => Look::WaitFor(Interest::AnyCompletion),
            })
        })?;
        let (turn, attach_socket) = self.converse()?;
        let answer = |answer: &Message, _: &mut Vec<OwnedFd>| match *answer {
            Message::Adopted {
                result,
                socket,
                kind,
                listens,
            } => Some((result, socket, kind, listens)),
            _ => None,
        };
        let (result, id, kind, listens) =
            ask(&turn, attach_socket, &Message::Adopt, Some(handle), answer)?;
        if result < 0 {
            return Err(Error::from_result(result));
        }
        self.core()?.add_shared(id);
        let kind = SocketKind::decode(kind)?;
        let listens = listens != 0;
        Ok(Adopted { id, kind, listens })
    }

    /// Asks the daemon for the next message of a shared socket; of a stream, or in parts, at most `len` bytes. `None`: it
    /// was one that receivers throw away.
    pub(crate) fn ask_for_message(
        &self,
        socket: u32,
        len: usize,
        how: SendFlags,
        patience: Patience,
    ) -> Result<Option<Asked>> {
        let flags = match patience {
            Patience::None => SendFlags::DONTWAIT | how,
            _ => how,
        };
        let receive = Request::Receive {
            flags,
            len: len as u32,
        };
        // With DONTWAIT the daemon answers at once.
        let patience = match patience {
            Patience::None => Patience::Endless,
            patience => patience,
        };
        let [_, whole] = self
            .call_within(socket, receive, patience)?
            .map_err(Error::from_result)?;
        let message = self.core()?.queue(socket)?.pop();
        Ok(message.map(|(meta, buffer)| Asked {
            meta,
            buffer,
            whole: whole != 0,
        }))
    }
}

fn ask_for_handle(
    turn: &Conversation<'_>,
    attach_socket: &OwnedFd,
    socket: u32,
    read: u32,
) -> Result<Option<OwnedFd>> {
    let share = Message::Share { socket, read };
    let answer = |answer: &Message, fds: &mut Vec<OwnedFd>| match answer {
        Message::Shared { socket: s, result } if *s == socket => Some((*result, fds.pop())),
        _ => None,
    };
    match ask(turn, attach_socket, &share, None, answer)? {
        (0, handle) => Ok(handle),
        (errno, _) if errno == -libc::EOPNOTSUPP => Err(Error::MemberNotShared),
        (errno, _) => Err(Error::from_result(errno)),
    }
}

/// Says something on the attach socket and waits for the answer.
fn ask<T>(
    turn: &Conversation<'_>,
    attach_socket: &OwnedFd,
    message: &Message,
    fd: Option<BorrowedFd<'_>>,
    mut is_answer: impl FnMut(&Message, &mut Vec<OwnedFd>) -> Option<T>,
) -> Result<T> {
    send_message(attach_socket.as_fd(), message, fd.as_slice()).map_err(|_| Error::NodeGone)?;
    loop {
        let received = receive_message(attach_socket.as_fd()).map_err(receive_error)?;
        let (message, mut fds) = received.ok_or(Error::NodeGone)?;
        if let Some(answer) = is_answer(&message, &mut fds) {
            return Ok(answer);
        }
        turn.set_aside(message, fds)?;
    }
}
