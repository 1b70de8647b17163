//! Several messages in one packet (`docs/protocol/wire.md`, bundles).

use super::field as f;
use super::{Header, Importance, Msg, Route, User, WireError, size};

/// Rounds up to the four-byte boundary on which an inner message starts.
#[inline]
pub fn aligned(len: usize) -> usize {
    len.next_multiple_of(4)
}

/// Walks the inner messages of a bundle. The stated number of messages is not believed; the first
/// malformed message ends the walk, those before it stand.
#[derive(Clone, Debug)]
pub struct Bundle<'a> {
    rest: &'a [u8],
}

impl<'a> Bundle<'a> {
    /// `msg` must be a MSG_BUNDLER packet; any payload will do.
    #[inline]
    pub fn new(msg: Msg<'a>) -> Self {
        Self {
            rest: msg.payload(),
        }
    }
}

impl<'a> Bundle<'a> {
    /// The next message, if its header is the same as this one's, word by word: what is told of one holds for the other.
    #[inline]
    pub fn next_alike(&mut self, msg: Msg<'a>) -> Option<Msg<'a>> {
        let header = msg.header();
        let alike = self.rest.get(..msg.size())?;
        if !alike.starts_with(header) {
            return None;
        }
        self.rest = self.rest.get(aligned(alike.len())..).unwrap_or(&[]);
        Some(msg.with_same_header(alike))
    }
}

impl<'a> Iterator for Bundle<'a> {
    type Item = Msg<'a>;

    #[inline]
    fn next(&mut self) -> Option<Msg<'a>> {
        if self.rest.len() < size::MIN {
            return None;
        }
        let Ok(inner) = Msg::check(self.rest) else {
            self.rest = &[];
            return None;
        };
        self.rest = self.rest.get(aligned(inner.size())..).unwrap_or(&[]);
        Some(inner)
    }
}

/// A message of user MSG_BUNDLER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsgBundler<'a> {
    /// Sequence and nodes.
    pub route: Route,
    /// Importance of the first inner message.
    pub importance: Importance,
    /// Stated number of messages, not to be believed.
    pub count: u16,
    /// The messages, each on a four-byte boundary; what is between them means nothing.
    pub payload: &'a [u8],
}

impl<'a> MsgBundler<'a> {
    pub(super) fn parse(msg: Msg<'a>) -> Result<Self, WireError> {
        if msg.kind() != 0 {
            return Err(WireError::Malformed("MSG_BUNDLER type"));
        }
        Ok(Self {
            route: Route::parse(msg),
            importance: Importance::from_bits(msg.get(f::INNER_IMPORTANCE)),
            count: msg.get16(f::MSG_COUNT),
            payload: msg.payload(),
        })
    }

    /// Walks the inner messages.
    pub fn messages(&self) -> Bundle<'a> {
        Bundle { rest: self.payload }
    }

    pub(super) fn header(&self) -> Header {
        let mut h = Header::internal(User::MsgBundler, 0, 0, 0);
        h.set(f::INNER_IMPORTANCE, self.importance as u32)
            .set(f::MSG_COUNT, self.count.into());
        self.route.emit(&mut h);
        h
    }
}
