//! Several messages in one payload of the submission arena: a batch, sent with [`SendFlags::SEVERAL`].
//!
//! Each message is a word of 32 bits that says its length, and its bytes; the next word is at the next multiple of
//! four. The application can change all of it at any time: each length is read once, when its message's turn has come, and
//! checked. A batch is limited, because the daemon sends it at once, whatever else waits.

use crate::area::Segment;
use crate::daemon::MessageRef;
use crate::request::PayloadPlace;
#[cfg(doc)]
use crate::request::SendFlags;
use crate::violation::Violation;

/// Bytes of a batch at most.
pub const BATCH_LEN_MAX: usize = 8192;
/// Messages in a batch at most.
pub const BATCH_MESSAGES_MAX: usize = 64;

/// Length of the word before each message.
pub(crate) const LEN_WORD: usize = size_of::<u32>();

/// Bytes that a message of this length takes in a batch.
pub(crate) fn room(len: usize) -> usize {
    LEN_WORD + len.next_multiple_of(LEN_WORD)
}

/// How many of these messages, from the first on, make a batch, and its length.
pub(crate) fn extent<P: AsRef<[u8]>>(payloads: &[P]) -> (usize, usize) {
    let mut len = 0;
    let lens = payloads.iter().map(|payload| room(payload.as_ref().len()));
    let fitting = lens.take(BATCH_MESSAGES_MAX).take_while(|room| {
        let fits = len + room <= BATCH_LEN_MAX;
        len += if fits { *room } else { 0 };
        fits
    });
    (fitting.count(), len)
}

/// Walks the messages of a batch, in the daemon.
#[derive(Debug)]
pub struct Messages<'a> {
    segment: &'a Segment,
    rest: PayloadPlace,
    /// Messages that may come yet.
    left: usize,
    /// The rest before the last message was taken.
    with_last: PayloadPlace,
    violation: Option<Violation>,
}

impl<'a> Messages<'a> {
    /// The place lies inside the submission arena.
    pub(crate) fn new(segment: &'a Segment, batch: PayloadPlace) -> Self {
        Self {
            segment,
            rest: batch,
            left: match batch.len as usize {
                ..=BATCH_LEN_MAX => BATCH_MESSAGES_MAX,
                _ => 0,
            },
            with_last: batch,
            violation: None,
        }
    }

    /// What is left, with the message that was taken last; or what was wrong with the one behind that.
    pub fn from_last(&self) -> Result<PayloadPlace, Violation> {
        self.violation.map_or(Ok(self.with_last), Err)
    }

    /// The message at the start of the rest, if it is one. `len` has the length read of it.
    fn take(&mut self, len: &mut u32) -> Option<MessageRef<'a>> {
        const WORD: u32 = LEN_WORD as u32;
        let PayloadPlace { offset, len: rest } = self.rest;
        self.left = self.left.checked_sub(1)?;
        let behind = rest.checked_sub(WORD)?;
        let mut word = [0; LEN_WORD];
        MessageRef::new(self.segment, self.rest).copy_to(0, &mut word);
        *len = u32::from_ne_bytes(word);
        if *len > behind {
            return None;
        }
        let taken = WORD + len.next_multiple_of(WORD).min(behind);
        self.with_last = self.rest;
        self.rest = PayloadPlace {
            offset: offset + taken,
            len: rest - taken,
        };
        let place = PayloadPlace {
            offset: offset + WORD,
            len: *len,
        };
        Some(MessageRef::new(self.segment, place))
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = MessageRef<'a>;

    fn next(&mut self) -> Option<MessageRef<'a>> {
        if self.rest.len == 0 {
            return None;
        }
        let mut len = 0;
        let message = self.take(&mut len);
        if message.is_none() {
            self.violation = Some(Violation::Payload {
                offset: self.rest.offset,
                len,
                arena: self.rest.len,
            });
            self.rest.len = 0;
        }
        message
    }
}
