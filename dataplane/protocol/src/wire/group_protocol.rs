//! GROUP_PROTOCOL: membership and flow control of communication groups
//! (`docs/protocol/wire.md`, internal messages).

use super::field as f;
use super::{Header, Msg, Route, User, WireError};
use crate::addr::{PortId, SocketAddr};

/// A message of user GROUP_PROTOCOL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupProtocol {
    /// Sequence and nodes.
    pub route: Route,
    /// Drop silently instead of returning.
    pub dest_droppable: bool,
    /// Sending member.
    pub orig_port: PortId,
    /// Receiving member; 0 for packets of the broadcast link, which have none.
    pub dest_port: PortId,
    /// What it says.
    pub kind: GroupKind,
}

/// The types of GROUP_PROTOCOL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupKind {
    /// I am a member.
    Join {
        /// Number of the sender's next broadcast.
        bc_syncpt: u16,
        /// Blocks it may be sent.
        window: u16,
    },
    /// I leave.
    Leave {
        /// Number of the sender's next broadcast.
        bc_syncpt: u16,
    },
    /// More window.
    Adv {
        /// Blocks it may be sent in addition.
        window: u16,
    },
    /// Answer to a broadcast that asked for it.
    Ack {
        /// The next broadcast number expected.
        bc_acked: u16,
    },
    /// Give window back.
    Reclaim,
    /// Window given back.
    Remit {
        /// Blocks not used.
        remitted: u16,
    },
}

const JOIN: u32 = 0;
const LEAVE: u32 = 1;
const ADV: u32 = 2;
const ACK: u32 = 3;
const RECLAIM: u32 = 4;
const REMIT: u32 = 5;

impl GroupKind {
    /// What a received message says; `None` if it is of no known type.
    pub fn of(header: &Header) -> Option<Self> {
        let half = |field| header.get(field) as u16;
        let (count, window) = (half(f::GROUP_COUNT), half(f::ADV_WINDOW));
        Some(match header.get(f::TYPE) {
            JOIN => Self::Join {
                bc_syncpt: count,
                window,
            },
            LEAVE => Self::Leave { bc_syncpt: count },
            ADV => Self::Adv { window },
            ACK => Self::Ack { bc_acked: count },
            RECLAIM => Self::Reclaim,
            REMIT => Self::Remit { remitted: count },
            _ => return None,
        })
    }

    /// The message, from one member to another.
    pub fn message(self, from: SocketAddr, to: SocketAddr) -> Header {
        let (count, window) = self.word9();
        let mut h = Header::internal(
            User::GroupProtocol,
            self.type_bits(),
            from.node.0,
            to.node.0,
        );
        h.set(f::DEST_DROPPABLE, 1)
            .set(f::ORIG_PORT, from.port.0)
            .set(f::DEST_PORT, to.port.0)
            .set(f::GROUP_COUNT, count.into())
            .set(f::ADV_WINDOW, window.into());
        h
    }

    pub(super) fn type_bits(self) -> u32 {
        match self {
            Self::Join { .. } => JOIN,
            Self::Leave { .. } => LEAVE,
            Self::Adv { .. } => ADV,
            Self::Ack { .. } => ACK,
            Self::Reclaim => RECLAIM,
            Self::Remit { .. } => REMIT,
        }
    }

    /// Word 9: what is counted, and the window.
    fn word9(self) -> (u16, u16) {
        match self {
            Self::Join { bc_syncpt, window } => (bc_syncpt, window),
            Self::Leave { bc_syncpt } => (bc_syncpt, 0),
            Self::Adv { window } => (0, window),
            Self::Ack { bc_acked } => (bc_acked, 0),
            Self::Reclaim => (0, 0),
            Self::Remit { remitted } => (remitted, 0),
        }
    }
}

impl GroupProtocol {
    pub(super) fn parse(msg: Msg<'_>) -> Result<Self, WireError> {
        let kind =
            GroupKind::of(&Header::of(msg)).ok_or(WireError::Malformed("GROUP_PROTOCOL type"))?;
        let route = Route::parse(msg);
        Ok(Self {
            route,
            dest_droppable: msg.flag(f::DEST_DROPPABLE),
            orig_port: PortId(msg.get(f::ORIG_PORT)),
            dest_port: PortId(route.word5(msg, f::DEST_PORT)),
            kind,
        })
    }

    pub(super) fn header(&self) -> Header {
        let (count, window) = self.kind.word9();
        let mut h = Header::internal(User::GroupProtocol, self.kind.type_bits(), 0, 0);
        h.set(f::DEST_DROPPABLE, self.dest_droppable.into())
            .set(f::ORIG_PORT, self.orig_port.0)
            .set(f::DEST_PORT, self.dest_port.0)
            .set(f::GROUP_COUNT, count.into())
            .set(f::ADV_WINDOW, window.into());
        self.route.emit(&mut h);
        h
    }
}
