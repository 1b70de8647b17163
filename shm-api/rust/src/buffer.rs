//! The memory of a message, wherever it came from.

use std::ops::Deref;

use xtipc_segment::application::{Delivery, DeliveryBuffer, Releaser, SHORT_MAX};
use xtipc_segment::channel::DirectBuffer;
use xtipc_segment::{Meta, Violation};

/// See the module. To be given back by [`crate::attachment::Attachment::give_back`].
#[derive(Debug)]
pub(crate) enum Buffer {
    /// The daemon wrote it.
    Delivered(DeliveryBuffer),
    /// It came by a direct channel.
    Direct(DirectBuffer),
    /// Made by this library: a message of the program's own that came back.
    Own(Vec<u8>),
    /// The few bytes of a message that was read, copied: nothing is to be given back.
    Short {
        /// How many.
        len: u8,
        /// They, and any others.
        bytes: [u8; SHORT_MAX],
    },
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Delivered(buffer) => buffer,
            Self::Direct(buffer) => buffer,
            Self::Own(bytes) => bytes,
            Self::Short { len, bytes } => &bytes[..usize::from(*len)],
        }
    }
}

impl Buffer {
    /// Tells the daemon that a message of it was read. Memory of a short one goes back at once: that costs less than to give
    /// it back later. After one or several: [`Releaser::ring_doorbell`].
    pub(crate) fn consume(&mut self, releaser: &mut Releaser) -> Result<(), Violation> {
        let Self::Delivered(buffer) = self else {
            return Ok(());
        };
        if buffer.len() > SHORT_MAX || buffer.kept_id().is_some() {
            return releaser.consumed(buffer);
        }
        let copy = Self::short(buffer);
        match std::mem::replace(self, copy) {
            Self::Delivered(buffer) => releaser.used_up(buffer),
            _ => Ok(()),
        }
    }

    /// A copy of at most [`SHORT_MAX`] bytes.
    #[inline]
    fn short(message: &[u8]) -> Self {
        let mut bytes = [0; SHORT_MAX];
        bytes[..message.len()].copy_from_slice(message);
        let len = message.len() as u8;
        Self::Short { len, bytes }
    }

    /// Hands a message of the daemon to its reader, noted as read as [`Self::consume`] does.
    #[inline]
    pub(crate) fn read(
        delivery: Delivery<'_>,
        releaser: &mut Releaser,
        reader: impl FnOnce(Meta, Self),
    ) -> Result<(), Violation> {
        if let Some(bytes) = delivery.short() {
            let (len, bytes) = (delivery.len() as u8, *bytes);
            reader(*delivery.meta(), Self::Short { len, bytes });
            return delivery.use_up(releaser);
        }
        let (meta, buffer) = delivery.take();
        releaser.consumed(&buffer)?;
        reader(meta, Self::Delivered(buffer));
        Ok(())
    }

    /// Moves it out of the memory that is for messages on their way.
    pub(crate) fn keep(&mut self, releaser: &mut Releaser) -> Result<(), Violation> {
        match self {
            Self::Delivered(buffer) => releaser.keep(buffer),
            Self::Direct(_) | Self::Own(_) | Self::Short { .. } => Ok(()),
        }
    }

    /// Its number if the daemon knows it as kept.
    pub(crate) fn kept_id(&self) -> Option<u64> {
        match self {
            Self::Delivered(buffer) => buffer.kept_id(),
            Self::Direct(_) | Self::Own(_) | Self::Short { .. } => None,
        }
    }

    /// What came by a direct channel.
    pub(crate) fn as_direct(&self) -> Option<&DirectBuffer> {
        match self {
            Self::Direct(buffer) => Some(buffer),
            Self::Delivered(_) | Self::Own(_) | Self::Short { .. } => None,
        }
    }

    /// Makes its bytes readable, if they are in memory of another process.
    pub(crate) fn make_own(&mut self) {
        if let Self::Direct(buffer) = self {
            buffer.make_own();
        }
    }
}
