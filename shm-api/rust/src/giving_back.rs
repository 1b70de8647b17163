//! Telling the daemon what was read, and giving its memory back.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use xtipc_segment::Meta;
use xtipc_segment::channel::DirectBuffer;

use crate::attachment::Attachment;
use crate::buffer::Buffer;
use crate::{Result, lock};

/// Between two looks whether the daemon has taken entries of a full release ring.
const FULL_WAIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000,
};

impl Attachment {
    /// Gives the memory of a message back.
    pub(crate) fn give_back(&self, buffer: Buffer) {
        if let Buffer::Delivered(buffer) = buffer
            && self.is_ours()
        {
            // It fails only if the daemon lost count, and then the next call that can report it does.
            let _ = lock(&self.releaser).returned(buffer);
        }
    }

    /// Tells the daemon, or the peer of a direct channel, that a message was read.
    pub(crate) fn consume(&self, buffer: &mut Buffer) -> Result<()> {
        match buffer {
            Buffer::Direct(buffer) => buffer.consumed(),
            Buffer::Delivered(_) => {
                let mut releaser = lock(&self.releaser);
                buffer.consume(&mut releaser)?;
                releaser.ring_doorbell()?;
            }
            Buffer::Own(_) | Buffer::Short { .. } => {}
        }
        Ok(())
    }

    /// The same of several; each is then handed to `each`.
    pub(crate) fn consume_all(
        &self,
        taken: impl Iterator<Item = (Meta, Buffer)>,
        mut each: impl FnMut(Meta, Buffer),
    ) -> Result<()> {
        let mut releaser = None;
        for (meta, mut buffer) in taken {
            if matches!(buffer, Buffer::Delivered(_)) {
                buffer.consume(releaser.get_or_insert_with(|| lock(&self.releaser)))?;
            }
            each(meta, buffer);
        }
        if let Some(mut releaser) = releaser {
            releaser.ring_doorbell()?;
        }
        Ok(())
    }

    /// Tells of several that stay where they are.
    pub(crate) fn note_all_consumed<'a>(
        &self,
        buffers: impl IntoIterator<Item = &'a Buffer, IntoIter: Clone>,
    ) -> Result<()> {
        let buffers = buffers.into_iter();
        DirectBuffer::all_consumed(buffers.clone().filter_map(Buffer::as_direct));
        let mut releaser = None;
        for buffer in buffers {
            if let Buffer::Delivered(buffer) = buffer {
                let releaser = releaser.get_or_insert_with(|| lock(&self.releaser));
                releaser.consumed(buffer)?;
            }
        }
        if let Some(mut releaser) = releaser {
            releaser.ring_doorbell()?;
        }
        Ok(())
    }

    /// Has the daemon take what found the release ring full. Not to be called with the lock held: another thread may need
    /// it to have the daemon work.
    pub(crate) fn settle_releases(&self) {
        while self.overflowed.load(Ordering::Relaxed) && self.is_ours() {
            if !matches!(lock(&self.releaser).flush(), Ok(false)) {
                return;
            }
            self.send_off();
            let mut daemon = [PollFd::from_borrowed_fd(
                self.wake.as_fd(),
                PollFlags::empty(),
            )];
            if let Ok(1..) = poll(&mut daemon, Some(&FULL_WAIT)) {
                // It has closed its end: nobody takes anything any more.
                return;
            }
        }
    }
}
