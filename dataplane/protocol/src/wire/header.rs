//! Building headers.

use super::field::{self, Field, set_word};
use super::{Msg, User, size};

/// A header being built: up to 60 bytes, by value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Header {
    bytes: [u8; size::MAX],
    len: usize,
}

impl std::fmt::Debug for Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Header").field(&self.as_bytes()).finish()
    }
}

impl Header {
    /// A header of `len` bytes (24 to 60, a multiple of four) whose message has no payload yet.
    #[inline]
    pub fn new(user: User, kind: u32, len: usize) -> Self {
        assert!((size::MIN..=size::MAX).contains(&len) && len.is_multiple_of(4));
        let mut header = Self {
            bytes: [0; size::MAX],
            len,
        };
        header
            .set(field::VERSION, 2)
            .set(field::USER, user as u32)
            .set(field::HEADER_WORDS, len as u32 / 4)
            .set(field::SIZE, len as u32)
            .set(field::TYPE, kind);
        header
    }

    /// An internal message from this node to `dest` (0 in broadcasts).
    pub fn internal(user: User, kind: u32, own: u32, dest: u32) -> Self {
        let mut header = Self::new(user, kind, size::INT);
        header
            .set(field::PREV_NODE, own)
            .set(field::ORIG_NODE, own)
            .set(field::DEST_NODE, dest);
        header
    }

    /// The header of a checked message.
    #[inline]
    pub fn of(msg: Msg<'_>) -> Self {
        let len = msg.header_size();
        let mut header = Self {
            bytes: [0; size::MAX],
            len,
        };
        header.bytes[..len].copy_from_slice(&msg.bytes()[..len]);
        header
    }

    /// Sets a field.
    #[inline]
    pub fn set(&mut self, field: Field, value: u32) -> &mut Self {
        assert!(field.word() * 4 < self.len, "field beyond the header");
        field.set(&mut self.bytes, value);
        self
    }

    /// A field's value; 0 if the header ends before it.
    #[inline]
    pub fn get(&self, field: Field) -> u32 {
        field.get(&self.bytes)
    }

    /// Node where the message originated: a 24-byte header has none, it is the previous node.
    #[inline]
    pub fn orig_node(&self) -> u32 {
        if self.len > size::SHORT {
            self.get(field::ORIG_NODE)
        } else {
            self.get(field::PREV_NODE)
        }
    }

    /// Overwrites a whole word.
    #[inline]
    pub fn set_word(&mut self, n: usize, value: u32) -> &mut Self {
        assert!(n * 4 < self.len, "word beyond the header");
        set_word(&mut self.bytes, n, value);
        self
    }

    /// States the size of the payload that follows.
    #[inline]
    pub fn set_payload_len(&mut self, payload: usize) -> &mut Self {
        let size = self.len + payload;
        self.set(field::SIZE, size as u32)
    }

    /// Enlarges the header to `len` bytes, the new words zero, the payload size kept.
    pub fn grow(&mut self, len: usize) -> &mut Self {
        assert!(len >= self.len && len <= size::MAX);
        let payload = self.get(field::SIZE) as usize - self.len;
        self.len = len;
        self.set(field::HEADER_WORDS, len as u32 / 4);
        self.set_payload_len(payload)
    }

    /// Header length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Always false: a header has at least 24 bytes.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Header and payload in bytes.
    #[inline]
    pub fn message_size(&self) -> usize {
        self.get(field::SIZE) as usize
    }

    /// The header as it goes on the wire.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}
