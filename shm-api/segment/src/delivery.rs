//! Entries of the delivery ring (a message for the application) and of the release ring (what became of it).
//!
//! ```text
//! delivery, 8 words                                       release, 1 word
//!   0  socket:32 error:8 importance:8 name kind:8 flags:8   0  id:56 kind:8 (1 consumed, 2 returned, 3 both, 4 keep,
//!   1  source port:32 source node:32                                         5 kept one consumed, 6 kept one let go)
//!   2  name type:32 lower:32                                   the id is a handle:48 more:8, or the number of a kept
//!   3  name upper:32 zero:32                                   message
//!   4  payload offset:32 length:32
//!   5  original length:32 zero:32
//!   6  time stamp in ns, 0 if none
//!   7  handle:48 zero:16
//! ```
//!
//! "Consumed" is the moment recv hands the message to the caller: it frees room in the socket's receive buffer.
//! "Returned" is the moment the caller lets go of the memory. A buffer returned without having been consumed was
//! never read.
//!
//! Of kind 3 an entry may be for *more* messages, which were delivered one directly after the other: the handle of each
//! is the [`Handle::next`] of the one before. Else `more` is zero.
//!
//! A message can be *kept*: the application has copied it to memory of its own and gives the buffer back, though nobody
//! has read it. From then on it goes by a number that both sides count: the first that is kept is 0, the next 1.

use bitflags::bitflags;

use crate::address::{DestinationName, Importance, SocketAddress};
use crate::handle::{HANDLE_BITS, Handle};
use crate::layout::DELIVERY_WORDS;
use crate::request::{PayloadPlace, check_payload};
use crate::violation::Violation;

/// [`Meta::error`] of a connection whose peer answers no probe. Other errors have four bits.
pub const PEER_SILENT: u8 = 16;

bitflags! {
    /// Properties of a delivered message.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct DeliveryFlags: u8 {
        /// The payload is shorter than the original message (only a returned message is cut).
        const TRUNCATED = 1;
        /// From a member of the socket's group: the name is not where it was sent to, but the member's own.
        const FROM_MEMBER = 2;
        /// No message: the member has joined.
        const JOINED = 4;
        /// No message: the member has left.
        const LEFT = 8;
        /// At a socket of a connection type: the connection that is over was never established.
        const REFUSED = 16;
        /// No message, but a [`ChannelNotice`].
        const NOTICE = 32;
    }
}

/// What a socket is told about its direct channel. The payload is two words of 32 bits. The source is the peer's address
/// where the channel is one of datagrams, of which a socket may have several; else its port is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelNotice {
    /// There is one: the offer was sent on the attach socket.
    Made,
    /// What the peer sends from now on comes by it.
    Switched {
        /// Units of what came before that were unacknowledged then.
        unacked: u32,
    },
    /// Nothing went by it for a while, or another socket is to have one: it is to be left
    /// ([`crate::Request::LeaveChannel`]).
    Idle,
    /// Of datagrams: what the socket sends from now on is to go by the daemon.
    Return,
    /// Of datagrams: both ends have left it.
    Left,
    /// Of datagrams: the other end is no more. What it has not consumed comes back.
    Ended,
}

impl ChannelNotice {
    /// The payload.
    pub fn encode(self) -> [u8; 8] {
        let (kind, unacked) = match self {
            Self::Made => (1u32, 0),
            Self::Switched { unacked } => (2, unacked),
            Self::Idle => (3, 0),
            Self::Return => (4, 0),
            Self::Left => (5, 0),
            Self::Ended => (6, 0),
        };
        (u64::from(unacked) << 32 | u64::from(kind)).to_ne_bytes()
    }

    /// Gives a payload a meaning.
    pub fn decode(payload: &[u8]) -> Result<Self, Violation> {
        let word = payload
            .first_chunk()
            .map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        match word as u32 {
            1 => Ok(Self::Made),
            2 => Ok(Self::Switched {
                unacked: (word >> 32) as u32,
            }),
            3 => Ok(Self::Idle),
            4 => Ok(Self::Return),
            5 => Ok(Self::Left),
            6 => Ok(Self::Ended),
            value => Err(Violation::Field {
                field: "channel notice",
                value,
            }),
        }
    }
}

/// All about a message but its payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// The socket it is for.
    pub socket: u32,
    /// 0, or why it came back: 1 no such service, 2 no such port, 3 node unreachable, 4 overload, 5 shut down. At a
    /// socket of a connection type: why the connection is over; also [`PEER_SILENT`].
    pub error: u8,
    /// Its importance.
    pub importance: Importance,
    /// Properties.
    pub flags: DeliveryFlags,
    /// Who sent it; for a returned message, who rejected it.
    pub source: SocketAddress,
    /// The name it was sent to, or the member's own, see [`DeliveryFlags::FROM_MEMBER`].
    pub destination: DestinationName,
    /// Length of the message as it was sent.
    pub original_len: u32,
    /// When it arrived, 0 if not taken.
    pub timestamp_ns: u64,
    /// What it costs in the socket's receive buffer. Not shared: reported back by the release.
    pub cost: u32,
    /// So many bytes of it stay with the daemon when the application keeps it. Not shared.
    pub retained: u32,
    /// For the daemon's own use. Not shared.
    pub cookie: u64,
}

/// One entry of the delivery ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeliveryEntry {
    pub(crate) meta: Meta,
    pub(crate) handle: Handle,
    pub(crate) payload: PayloadPlace,
}

impl DeliveryEntry {
    pub(crate) fn encode(&self) -> [u64; DELIVERY_WORDS] {
        let meta = &self.meta;
        let (name_kind, [type_, lower, upper]) = meta.destination.encode();
        let pair = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
        let small = u32::from_le_bytes([
            meta.error,
            meta.importance as u8,
            name_kind,
            meta.flags.bits(),
        ]);
        [
            pair(meta.socket, small),
            pair(meta.source.port, meta.source.node),
            pair(type_, lower),
            pair(upper, 0),
            pair(self.payload.offset, self.payload.len),
            pair(meta.original_len, 0),
            meta.timestamp_ns,
            self.handle.bits(),
        ]
    }

    /// Gives the words a meaning; checks that the payload lies inside an arena of `arena` bytes.
    #[inline]
    pub(crate) fn decode(words: &[u64; DELIVERY_WORDS], arena: u32) -> Result<Self, Violation> {
        let halves = |word: u64| [word as u32, (word >> 32) as u32];
        let [socket, small] = halves(words[0]);
        let [error, importance, name_kind, flags] = small.to_le_bytes();
        let [port, node] = halves(words[1]);
        let [type_, lower] = halves(words[2]);
        let [upper, _] = halves(words[3]);
        Ok(Self {
            meta: Meta {
                socket,
                error,
                importance: Importance::decode(importance.into())?,
                flags: DeliveryFlags::from_bits_truncate(flags),
                source: SocketAddress { port, node },
                destination: DestinationName::decode(name_kind, [type_, lower, upper])?,
                original_len: words[5] as u32,
                timestamp_ns: words[6],
                cost: 0,
                retained: 0,
                cookie: 0,
            },
            handle: Handle::from_bits(words[7] & HANDLE_MASK),
            payload: check_payload(words[4], arena)?,
        })
    }
}

bitflags! {
    /// What became of a delivery buffer, or of a kept message.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct ReleaseKind: u8 {
        const CONSUMED = 1;
        const RETURNED = 2;
        const KEPT = 4;
        const USED_UP = Self::CONSUMED.bits() | Self::RETURNED.bits();
    }
}

const KIND_SHIFT: u32 = 56;
const HANDLE_MASK: u64 = (1 << HANDLE_BITS) - 1;

/// The id of a run of used up messages: the first and so many more.
pub(crate) fn encode_run(first: Handle, more: u8) -> u64 {
    u64::from(more) << HANDLE_BITS | first.bits()
}

pub(crate) fn decode_run(id: u64) -> (Handle, u8) {
    let first = Handle::from_bits(id & HANDLE_MASK);
    (first, (id >> HANDLE_BITS) as u8)
}

/// `id` has at most 56 bits.
pub(crate) fn encode_release(id: u64, kind: ReleaseKind) -> u64 {
    u64::from(kind.bits()) << KIND_SHIFT | id
}

pub(crate) fn decode_release(word: u64) -> Result<(u64, ReleaseKind), Violation> {
    let value = (word >> KIND_SHIFT) as u8;
    match ReleaseKind::from_bits(value) {
        Some(kind) if !kind.is_empty() && !kind.is_all() => {
            Ok((word & ((1 << KIND_SHIFT) - 1), kind))
        }
        _ => Err(Violation::Field {
            field: "release kind",
            value: value.into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{ServiceAddress, ServiceRange};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_delivery_reads_as_it_was_written(
            socket: u32, error: u8, importance in 0u32..4, port: u32, node: u32,
            name_kind in 0u8..3, name: [u32; 3], handle in 0..1u64 << HANDLE_BITS, original_len: u32, timestamp_ns: u64, flags: u8,
        ) {
            let [type_, lower, upper] = name;
            let entry = DeliveryEntry {
                meta: Meta {
                    socket,
                    error,
                    importance: Importance::from_number(importance).expect("0 to 3"),
                    flags: DeliveryFlags::from_bits_truncate(flags),
                    source: SocketAddress { port, node },
                    destination: match name_kind {
                        0 => DestinationName::None,
                        1 => DestinationName::Multicast(ServiceRange { type_, lower, upper }),
                        _ => DestinationName::Service(ServiceAddress { type_, instance: lower }),
                    },
                    original_len,
                    timestamp_ns,
                    cost: 0,
                    retained: 0,
                    cookie: 0,
                },
                handle: Handle::from_bits(handle),
                payload: PayloadPlace { offset: 100, len: 50 },
            };
            prop_assert_eq!(DeliveryEntry::decode(&entry.encode(), 150), Ok(entry));
        }

        #[test]
        fn any_words_are_a_delivery_inside_the_arena_or_a_violation(
            words in any::<[u64; DELIVERY_WORDS]>(), arena in 0u32..100_000,
        ) {
            if let Ok(entry) = DeliveryEntry::decode(&words, arena) {
                let end = u64::from(entry.payload.offset) + u64::from(entry.payload.len);
                prop_assert!(end <= u64::from(arena));
            }
        }
    }

    #[test]
    fn a_release_of_no_kind_is_a_violation() {
        assert!(decode_release(7).is_err());
        assert!(decode_release(7 << KIND_SHIFT).is_err());
        assert!(decode_release(u64::MAX).is_err());
        let both = ReleaseKind::CONSUMED | ReleaseKind::RETURNED;
        assert_eq!(decode_release(encode_release(7, both)), Ok((7, both)));
    }
}
