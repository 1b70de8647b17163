//! MSG_FRAGMENTER: a piece of a message larger than the link's MTU
//! (`docs/protocol/wire.md`, fragments).

use super::field as f;
use super::{Header, Importance, Msg, Route, User, WireError};

/// A message of user MSG_FRAGMENTER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsgFragmenter<'a> {
    /// Sequence and nodes.
    pub route: Route,
    /// Place of the piece; the only thing receivers look at.
    pub place: FragmentPlace,
    /// Number of the piece, from 1.
    pub fragment_no: u16,
    /// 0 in what Linux sends.
    pub fragment_count: u16,
    /// Importance of the whole message.
    pub importance: Importance,
    /// The piece; the first one begins with the header of the whole message.
    pub payload: &'a [u8],
}

/// The types of MSG_FRAGMENTER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FragmentPlace {
    /// Begins a message.
    First = 0,
    /// Continues it.
    Inner = 1,
    /// Completes it.
    Last = 2,
}

impl<'a> MsgFragmenter<'a> {
    pub(super) fn parse(msg: Msg<'a>) -> Result<Self, WireError> {
        let place = match msg.kind() {
            0 => FragmentPlace::First,
            1 => FragmentPlace::Inner,
            2 => FragmentPlace::Last,
            _ => return Err(WireError::Malformed("MSG_FRAGMENTER type")),
        };
        Ok(Self {
            route: Route::parse(msg),
            place,
            fragment_no: msg.get16(f::FRAGMENT_NO),
            fragment_count: msg.get16(f::FRAGMENT_COUNT),
            importance: Importance::from_bits(msg.get(f::INNER_IMPORTANCE)),
            payload: msg.payload(),
        })
    }

    pub(super) fn header(&self) -> Header {
        let mut h = Header::internal(User::MsgFragmenter, self.place as u32, 0, 0);
        h.set(f::FRAGMENT_NO, self.fragment_no.into())
            .set(f::FRAGMENT_COUNT, self.fragment_count.into())
            .set(f::INNER_IMPORTANCE, self.importance as u32);
        self.route.emit(&mut h);
        h
    }
}
