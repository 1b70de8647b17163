//! A received message.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use xtipc_segment::{DeliveryFlags, DestinationName, Importance, Meta, SocketAddress};

use crate::attachment::Attachment;
use crate::buffer::Buffer;
use crate::group::Member;

/// A received message, read in place: it derefs to its bytes.
///
/// Its memory goes back to the daemon when it is dropped, in any order. Memory that is held is not there for new
/// messages of this process: who holds 4,096 messages or 4 MiB gets no more until some are dropped. So what is kept for
/// long is better copied; one of at most 64 bytes is a copy already, and holds nothing. The room it took in the socket's
/// receive buffer is free from the moment it was received.
pub struct Message {
    /// To whom memory of the daemon is given back.
    attachment: Option<Arc<Attachment>>,
    meta: Meta,
    /// `None` only while it is dropped.
    buffer: Option<Buffer>,
}

/// Why a message came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// Nobody is bound to the service address any more.
    NoName,
    /// There is no such socket, or it was closed before it read the message.
    NoPort,
    /// The node cannot be reached.
    NoNode,
    /// The receiver had no room for it.
    Overload,
    /// The receiver was shut down.
    Shutdown,
    /// An error code TIPC does not define.
    Other(u8),
}

impl Message {
    pub(crate) fn new(attachment: &Arc<Attachment>, meta: Meta, buffer: Buffer) -> Self {
        let is_delivered = matches!(buffer, Buffer::Delivered(_));
        Self {
            attachment: is_delivered.then(|| Arc::clone(attachment)),
            meta,
            buffer: Some(buffer),
        }
    }

    /// Makes its bytes readable, if they are in memory of another process.
    pub(crate) fn make_own(&mut self) {
        if let Some(buffer) = &mut self.buffer {
            buffer.make_own();
        }
    }

    pub(crate) fn buffer(&self) -> Option<&Buffer> {
        self.buffer.as_ref()
    }

    /// The socket that sent it, or that rejected it.
    pub fn source(&self) -> SocketAddress {
        self.meta.source
    }

    /// The name it was sent to. For a returned message: the name we sent it to. None for what a member of a group gets.
    pub fn destination(&self) -> DestinationName {
        if self.flags().contains(DeliveryFlags::FROM_MEMBER) {
            return DestinationName::None;
        }
        self.meta.destination
    }

    pub(crate) fn flags(&self) -> DeliveryFlags {
        self.meta.flags
    }

    /// The member of the socket's group that it came from.
    pub(crate) fn member(&self) -> Option<Member> {
        match self.meta.destination {
            DestinationName::Service(address)
                if self.flags().contains(DeliveryFlags::FROM_MEMBER) =>
            {
                Some(Member {
                    socket: self.meta.source,
                    address,
                })
            }
            _ => None,
        }
    }

    /// Why it came back, if it is one of our own messages that was rejected. Of such a message at most 1024 bytes
    /// come back.
    pub fn error(&self) -> Option<Rejection> {
        match self.meta.error {
            0 => None,
            1 => Some(Rejection::NoName),
            2 => Some(Rejection::NoPort),
            3 => Some(Rejection::NoNode),
            4 => Some(Rejection::Overload),
            5 => Some(Rejection::Shutdown),
            code => Some(Rejection::Other(code)),
        }
    }

    /// When the node took it in: the CLOCK_MONOTONIC time of the worker's round that took the packet from the network,
    /// or the message from a program of this node. One reading of the clock serves a round, so messages taken together
    /// have the same time.
    pub fn received_at(&self) -> Duration {
        Duration::from_nanos(self.meta.timestamp_ns)
    }

    /// Its importance.
    pub fn importance(&self) -> Importance {
        self.meta.importance
    }
}

impl Deref for Message {
    type Target = [u8];

    /// # Panics
    /// In a forked child of the process that received it: the memory is not there.
    fn deref(&self) -> &[u8] {
        self.buffer.as_deref().unwrap_or_default()
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        if let Some(attachment) = &self.attachment
            && let Some(buffer) = self.buffer.take()
        {
            attachment.give_back(buffer);
            attachment.settle_releases();
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("source", &self.meta.source)
            .field("destination", &self.meta.destination)
            .field("error", &self.error())
            .field("importance", &self.meta.importance)
            .finish_non_exhaustive()
    }
}
