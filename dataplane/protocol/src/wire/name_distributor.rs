//! NAME_DISTRIBUTOR: bindings published and withdrawn
//! (`docs/protocol/wire.md`, NAME_DISTRIBUTOR items).

use super::field as f;
use super::{Header, Msg, Route, User, WireError};

/// A message of user NAME_DISTRIBUTOR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameDistributor<'a> {
    /// Sequence and nodes; the originating node is where the bindings are.
    pub route: Route,
    /// WITHDRAWAL instead of PUBLICATION.
    pub withdrawal: bool,
    /// Part of the bulk sent when a link comes up.
    pub bulk: bool,
    /// Last message of the bulk.
    pub last_bulk: bool,
    /// The sender numbers its updates.
    pub non_legacy: bool,
    /// Number of the update; in the last message of the bulk, of the first update to follow.
    pub named_seqno: u16,
    /// The broadcast acknowledgement in the route means nothing yet.
    pub bc_ack_invalid: bool,
    /// The bindings.
    pub items: NameItems<'a>,
}

/// One binding, 20 bytes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameItem {
    /// Service type.
    pub service: u32,
    /// Lowest instance.
    pub lower: u32,
    /// Highest instance; an item below its lower bound means nothing.
    pub upper: u32,
    /// Bound socket.
    pub port: u32,
    /// Tells the bindings of one socket apart.
    pub key: u32,
}

impl NameItem {
    /// Bytes of an item.
    pub const SIZE: usize = 20;

    /// The item in these bytes.
    pub fn parse(bytes: &[u8; Self::SIZE]) -> Self {
        Self {
            service: f::word(bytes, 0),
            lower: f::word(bytes, 1),
            upper: f::word(bytes, 2),
            port: f::word(bytes, 3),
            key: f::word(bytes, 4),
        }
    }

    /// The item as it goes on the wire.
    pub fn emit(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let words = [self.service, self.lower, self.upper, self.port, self.key];
        for (n, value) in words.into_iter().enumerate() {
            f::set_word(&mut bytes, n, value);
        }
        bytes
    }
}

/// The items of a message. What is left behind the last whole item is kept, and means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameItems<'a>(pub &'a [u8]);

impl<'a> NameItems<'a> {
    /// The items in order.
    pub fn iter(self) -> impl ExactSizeIterator<Item = NameItem> + 'a {
        self.0.as_chunks().0.iter().map(NameItem::parse)
    }
}

const PUBLICATION: u32 = 0;
const WITHDRAWAL: u32 = 1;

impl<'a> NameDistributor<'a> {
    pub(super) fn parse(msg: Msg<'a>) -> Result<Self, WireError> {
        let withdrawal = match msg.kind() {
            PUBLICATION => false,
            WITHDRAWAL => true,
            _ => return Err(WireError::Malformed("NAME_DISTRIBUTOR type")),
        };
        let route = Route::parse(msg);
        Ok(Self {
            route,
            withdrawal,
            bulk: msg.flag(f::BULK),
            last_bulk: msg.flag(f::LAST_BULK),
            non_legacy: msg.flag(f::NON_LEGACY),
            named_seqno: msg.get16(f::NAMED_SEQNO),
            bc_ack_invalid: route.word5(msg, f::BC_ACK_INVALID) != 0,
            items: NameItems(msg.payload()),
        })
    }

    pub(super) fn type_bits(&self) -> u32 {
        if self.withdrawal {
            WITHDRAWAL
        } else {
            PUBLICATION
        }
    }

    pub(super) fn header(&self) -> Header {
        let mut h = Header::internal(User::NameDistributor, self.type_bits(), 0, 0);
        h.set(f::BULK, self.bulk.into())
            .set(f::LAST_BULK, self.last_bulk.into())
            .set(f::NON_LEGACY, self.non_legacy.into())
            .set(f::NAMED_SEQNO, self.named_seqno.into())
            .set(f::BC_ACK_INVALID, self.bc_ack_invalid.into());
        self.route.emit(&mut h);
        h
    }
}
