//! BCAST_PROTOCOL: where a broadcast link starts, and what older nodes miss on it
//! (`docs/protocol/wire.md`, BCAST_PROTOCOL).

use super::field as f;
use super::{Carrier, Header, Msg, Route, User, WireError};
use crate::addr::NodeAddr;

/// A message of user BCAST_PROTOCOL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BcastProtocol {
    /// The first sequenced packet on a new link.
    Init {
        /// Sequence and nodes.
        route: Route,
        /// The receiver starts behind this broadcast number.
        last_bcast: u16,
        /// The acknowledgement in the route means nothing yet.
        bc_ack_invalid: bool,
    },
    /// What nodes without the capability BCAST_STATE_NACK send to ask for retransmission.
    Nack(BcastNack),
}

/// Old-style negative acknowledgement: a broadcast-link packet that is not numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BcastNack {
    /// Cluster id.
    pub net_id: u32,
    /// The node that sent the packet.
    pub prev_node: NodeAddr,
    /// The node that misses packets.
    pub orig_node: NodeAddr,
    /// The node whose broadcasts are missing.
    pub dest_node: NodeAddr,
    /// Last broadcast received in order.
    pub bcast_ack: u16,
    /// The gap begins after this number.
    pub gap_after: u16,
    /// Last missing number.
    pub gap_to: u16,
    /// Last number sent on the own broadcast link.
    pub last_bcast: u16,
}

impl BcastProtocol {
    pub(super) fn parse(msg: Msg<'_>) -> Result<Self, WireError> {
        if msg.kind() != 0 {
            return Err(WireError::Malformed("BCAST_PROTOCOL type"));
        }
        let route = Route::parse(msg);
        let last_bcast = msg.get16(f::LAST_BCAST);
        Ok(match route.carrier {
            Carrier::Link { .. } => Self::Init {
                route,
                last_bcast,
                bc_ack_invalid: msg.flag(f::BC_ACK_INVALID),
            },
            Carrier::Broadcast { net_id, .. } => Self::Nack(BcastNack {
                net_id,
                prev_node: route.prev_node,
                orig_node: route.orig_node,
                dest_node: route.dest_node,
                bcast_ack: msg.get16(f::BCAST_ACK),
                gap_after: msg.get16(f::GAP_AFTER),
                gap_to: msg.get16(f::GAP_TO),
                last_bcast,
            }),
        })
    }

    pub(super) fn header(&self) -> Header {
        match self {
            Self::Init {
                route,
                last_bcast,
                bc_ack_invalid,
            } => {
                let mut h = Header::internal(User::BcastProtocol, 0, 0, 0);
                h.set(f::LAST_BCAST, (*last_bcast).into())
                    .set(f::BC_ACK_INVALID, (*bc_ack_invalid).into());
                route.emit(&mut h);
                h
            }
            Self::Nack(nack) => nack.header(),
        }
    }
}

impl BcastNack {
    fn header(&self) -> Header {
        let mut h = Header::internal(User::BcastProtocol, 0, self.orig_node.0, self.dest_node.0);
        h.set(f::NON_SEQ, 1)
            .set(f::PREV_NODE, self.prev_node.0)
            .set(f::BROADCAST_NET_ID, self.net_id)
            .set(f::BCAST_ACK, self.bcast_ack.into())
            .set(f::GAP_AFTER, self.gap_after.into())
            .set(f::GAP_TO, self.gap_to.into())
            .set(f::LAST_BCAST, self.last_bcast.into());
        h
    }
}
