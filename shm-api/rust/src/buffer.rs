//! The memory of a message, wherever it came from.

use std::ops::Deref;

use xtipc_segment::Violation;
use xtipc_segment::application::{DeliveryBuffer, Releaser};
use xtipc_segment::channel::DirectBuffer;

/// See the module. To be given back by [`crate::attachment::Attachment::give_back`].
#[derive(Debug)]
pub(crate) enum Buffer {
    /// The daemon wrote it.
    Delivered(DeliveryBuffer),
    /// It came by a direct channel.
    Direct(DirectBuffer),
    /// Made by this library: a message of the program's own that came back.
    Own(Vec<u8>),
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Delivered(buffer) => buffer,
            Self::Direct(buffer) => buffer,
            Self::Own(bytes) => bytes,
        }
    }
}

impl Buffer {
    /// Moves it out of the memory that is for messages on their way.
    pub(crate) fn keep(&mut self, releaser: &mut Releaser) -> Result<(), Violation> {
        match self {
            Self::Delivered(buffer) => releaser.keep(buffer),
            Self::Direct(_) | Self::Own(_) => Ok(()),
        }
    }

    /// Its number if the daemon knows it as kept.
    pub(crate) fn kept_id(&self) -> Option<u64> {
        match self {
            Self::Delivered(buffer) => buffer.kept_id(),
            Self::Direct(_) | Self::Own(_) => None,
        }
    }

    /// What came by a direct channel.
    pub(crate) fn as_direct(&self) -> Option<&DirectBuffer> {
        match self {
            Self::Direct(buffer) => Some(buffer),
            Self::Delivered(_) | Self::Own(_) => None,
        }
    }

    /// Makes its bytes readable, if they are in memory of another process.
    pub(crate) fn make_own(&mut self) {
        if let Self::Direct(buffer) = self {
            buffer.make_own();
        }
    }
}
