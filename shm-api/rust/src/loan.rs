//! Large messages that are handed over, not copied: between programs of one node whose connection has a direct channel
//! (`docs/protocol/channels.md`). On any other way they are copied, and all else is the same.

use std::sync::Arc;
use std::time::Instant;

use xtipc_segment::channel::{self, Sending, SharedBytes};
use xtipc_segment::{MESSAGE_LEN_MAX, Meta, PayloadPlace, Request, SendFlags};

use crate::attachment::{Attachment, Patience};
use crate::buffer::Buffer;
use crate::connection::Inbox;
use crate::core::{Core, Queue};
use crate::datagram::check_len;
use crate::direct::give_way;
use crate::{Connection, Error, Message, Result};

/// Memory for a message to be sent on one connection: [`Connection::loan`]. Its bytes are 0 or old ones of the program's own
/// until they are written.
#[derive(Debug)]
pub struct Loan {
    attachment: Arc<Attachment>,
    socket: u32,
    memory: Memory,
}

#[derive(Debug)]
enum Memory {
    /// In the channel; `None` once it was sent.
    Channel(Option<channel::Loan>),
    Own(Vec<u8>),
}

impl Loan {
    /// Its length.
    pub fn len(&self) -> usize {
        match &self.memory {
            Memory::Channel(loan) => loan.as_ref().map_or(0, channel::Loan::len),
            Memory::Own(bytes) => bytes.len(),
        }
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies bytes into it, from `offset` on.
    ///
    /// # Panics
    /// If they do not fit, or in a forked child of the process that took the loan.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        match &mut self.memory {
            Memory::Channel(Some(loan)) => loan.write(offset, bytes),
            Memory::Channel(None) => {}
            Memory::Own(own) => own[offset..offset + bytes.len()].copy_from_slice(bytes),
        }
    }

    /// Where its bytes are, for writers of their own. With a direct channel the receiver can write there, too.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        match &mut self.memory {
            Memory::Channel(Some(loan)) => loan.as_mut_ptr(),
            Memory::Channel(None) => std::ptr::NonNull::dangling().as_ptr(),
            Memory::Own(own) => own.as_mut_ptr(),
        }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Memory::Channel(loan) = &mut self.memory
            && let Some(loan) = loan.take()
            && let Ok(mut core) = self.attachment.core()
        {
            core.take_loan_back(self.socket, loan);
        }
    }
}

/// A message received by [`Connection::recv_shared`]. If it was loaned it lies in memory of its sender, who may change it: its
/// bytes can be copied, not borrowed. That memory goes back when this is dropped, in any order.
#[derive(Debug)]
pub enum SharedMessage {
    /// It was loaned.
    Shared(SharedBytes),
    /// It was not, or came another way.
    Own(Message),
}

impl SharedMessage {
    /// Its length.
    pub fn len(&self) -> usize {
        match self {
            Self::Shared(bytes) => bytes.len(),
            Self::Own(message) => message.as_ref().len(),
        }
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies `out.len()` bytes from `offset` on.
    ///
    /// # Panics
    /// If there are not so many, or in a forked child of the process that received it.
    pub fn copy_to(&self, offset: usize, out: &mut [u8]) {
        match self {
            Self::Shared(bytes) => bytes.copy_to(offset, out),
            Self::Own(message) => out.copy_from_slice(&message[offset..offset + out.len()]),
        }
    }

    /// A copy of all.
    pub fn to_vec(&self) -> Vec<u8> {
        match self {
            Self::Shared(bytes) => bytes.to_vec(),
            Self::Own(message) => message.to_vec(),
        }
    }
}

impl Connection {
    /// Memory for a message of `len` bytes, at most 66,000, to be filled and sent by [`Connection::send_loan`]. With a direct
    /// channel the receiver gets this very memory, as far as the channel has room; else it is the program's own.
    pub fn loan(&self, len: usize) -> Result<Loan> {
        check_len(len)?;
        let (attachment, socket) = self.handle();
        let memory = match attachment.core()?.loan(socket, len)? {
            Some(loan) => Memory::Channel(Some(loan)),
            None => Memory::Own(vec![0; len]),
        };
        Ok(Loan {
            attachment: Arc::clone(attachment),
            socket,
            memory,
        })
    }

    /// Sends a loan of this connection, as [`Connection::send`] sends bytes. One that is refused is gone.
    pub fn send_loan(&self, loan: Loan) -> Result<usize> {
        let (attachment, socket) = self.handle();
        if loan.socket != socket || !Arc::ptr_eq(&loan.attachment, attachment) {
            return Err(Error::from_result(-libc::EINVAL));
        }
        let len = loan.len();
        match attachment.send_loan(loan, self.patience_to_write())? {
            0.. => Ok(len),
            result => Err(Error::from_result(result)),
        }
    }

    /// Receives as [`Connection::recv`], but does not copy what was loaned.
    pub fn recv_shared(&self) -> Result<Option<SharedMessage>> {
        let patience = Inbox::patience_to_read;
        let next = self.next(MESSAGE_LEN_MAX, patience, Queue::pop_shared, |_, _| true)?;
        Ok(next.map(|(meta, buffer)| self.shared_message(meta, buffer)))
    }

    /// The same, spinning until then; [`Error::TimedOut`] if nothing came. Never sleeps.
    pub fn recv_shared_spin(&self, until: Instant) -> Result<Option<SharedMessage>> {
        let next = self.next_spinning(until, Queue::pop_shared)?;
        Ok(next.map(|(meta, buffer)| self.shared_message(meta, buffer)))
    }

    fn shared_message(&self, meta: Meta, buffer: Buffer) -> SharedMessage {
        match buffer {
            Buffer::Direct(direct) if direct.is_loan() => match direct.into_shared() {
                Some(bytes) => SharedMessage::Shared(bytes),
                None => SharedMessage::Own(self.message(meta, Buffer::Own(Vec::new()))),
            },
            buffer => SharedMessage::Own(self.message(meta, buffer)),
        }
    }
}

/// What came of an attempt to send a loan.
enum Attempt {
    /// The peer stands by or not.
    Sent(bool),
    /// The message of this number is too late, or not: see [`Core::was_taken`].
    Unclear(u32),
    /// It has to wait for the peer to read.
    Congested,
    /// It has to be sent as other bytes are.
    Copied(Vec<u8>),
}

impl Attachment {
    fn send_loan(&self, mut loan: Loan, patience: Patience) -> Result<i32> {
        let socket = loan.socket;
        let request = |payload: PayloadPlace, flags: SendFlags| Request::Send {
            flags,
            destination: None,
            payload,
        };
        if let Memory::Own(bytes) = &loan.memory {
            return self.send_connected(socket, bytes, request, patience);
        }
        let mut waits_since = None;
        loop {
            let attempt = {
                let mut core = self.core()?;
                core.dispatch_of_daemon();
                if let Some(failure) = core.failure {
                    return Err(failure.into());
                }
                core.try_loan(&mut loan)?
            };
            match attempt {
                Attempt::Sent(is_awaited) => {
                    give_way(is_awaited);
                    return Ok(0);
                }
                Attempt::Copied(bytes) => {
                    drop(loan);
                    return self.send_connected(socket, &bytes, request, patience);
                }
                Attempt::Unclear(number) => {
                    let taken = self.wait_for_last(socket, number)?;
                    let bytes = {
                        let mut core = self.core()?;
                        let bytes = core.sent_by_channel(socket, number);
                        core.note_clear(socket);
                        bytes
                    };
                    if taken {
                        return Ok(0);
                    }
                    return self.send_connected(socket, &bytes, request, patience);
                }
                Attempt::Congested if matches!(patience, Patience::None) => {
                    return Ok(-libc::EAGAIN);
                }
                Attempt::Congested => self.wait_for_room(socket, patience, &mut waits_since)?,
            }
        }
    }
}

impl Core {
    fn try_loan(&mut self, loan: &mut Loan) -> Result<Attempt> {
        let Memory::Channel(memory) = &mut loan.memory else {
            return Ok(Attempt::Congested);
        };
        let Some(own) = memory.take() else {
            return Ok(Attempt::Sent(false));
        };
        let sent = match self.send_by_channel(loan.socket, own) {
            Some(sent) => sent?,
            None => return Err(Error::from_result(-libc::EPIPE)),
        };
        Ok(match sent {
            Ok(Sending::Revoked(Some(number))) => Attempt::Unclear(number),
            Ok(_) => Attempt::Sent(self.is_awaited(loan.socket)),
            Err((own, Sending::Congested)) => {
                *memory = Some(own);
                Attempt::Congested
            }
            Err((own, _)) => {
                let bytes = own.to_vec();
                *memory = Some(own);
                Attempt::Copied(bytes)
            }
        })
    }
}
