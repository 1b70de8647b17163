//! What every sequenced message carries for the node and link that pass it on.

use super::field::{self as f, Field};
use super::{Header, Msg, size};
use crate::addr::NodeAddr;

/// Which sequence a packet belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// A unicast link; all zero in messages inside a bundle.
    Link {
        /// Number on the link.
        seqno: u16,
        /// Last packet received in order on the link.
        ack: u16,
        /// Last broadcast packet received in order from the addressee.
        bcast_ack: u16,
    },
    /// The sender's broadcast link. It overwrites word 5, whatever the message has there, and
    /// acknowledges nothing.
    Broadcast {
        /// Number on the broadcast link.
        seqno: u16,
        /// Cluster id: packets of another cluster are dropped.
        net_id: u32,
    },
}

/// Words 1 to 3, 6 and 7, as far as they mean the same for every user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The sequence it belongs to.
    pub carrier: Carrier,
    /// The node that sent the packet.
    pub prev_node: NodeAddr,
    /// The node where the message originated. Not in a 24-byte header: the previous node.
    pub orig_node: NodeAddr,
    /// The node it is for, 0 in broadcasts. Not in a 24-byte header: 0.
    pub dest_node: NodeAddr,
}

impl Route {
    pub(super) fn parse(msg: Msg<'_>) -> Self {
        let seqno = msg.get16(f::SEQNO);
        let carrier = if msg.flag(f::NON_SEQ) {
            Carrier::Broadcast {
                seqno,
                net_id: msg.get(f::BROADCAST_NET_ID),
            }
        } else {
            Carrier::Link {
                seqno,
                ack: msg.get16(f::ACK),
                bcast_ack: msg.get16(f::BCAST_ACK),
            }
        };
        let short = msg.header_size() == size::SHORT;
        Self {
            carrier,
            prev_node: NodeAddr(msg.prev_node()),
            orig_node: NodeAddr(msg.orig_node()),
            dest_node: if short {
                NodeAddr::NONE
            } else {
                NodeAddr(msg.get(f::DEST_NODE))
            },
        }
    }

    /// Fills in the route. Comes last: in a broadcast the network id replaces word 5.
    pub(super) fn emit(&self, header: &mut Header) {
        header.set(f::PREV_NODE, self.prev_node.0);
        if header.len() > size::SHORT {
            header
                .set(f::ORIG_NODE, self.orig_node.0)
                .set(f::DEST_NODE, self.dest_node.0);
        }
        match self.carrier {
            Carrier::Link {
                seqno,
                ack,
                bcast_ack,
            } => header
                .set(f::SEQNO, seqno.into())
                .set(f::ACK, ack.into())
                .set(f::BCAST_ACK, bcast_ack.into()),
            Carrier::Broadcast { seqno, net_id } => header
                .set(f::NON_SEQ, 1)
                .set(f::SEQNO, seqno.into())
                .set(f::BROADCAST_NET_ID, net_id),
        };
    }

    /// True for a packet of the broadcast link.
    pub fn is_broadcast(&self) -> bool {
        matches!(self.carrier, Carrier::Broadcast { .. })
    }

    /// A field of word 5, which a broadcast packet does not have.
    pub(super) fn word5(&self, msg: Msg<'_>, field: Field) -> u32 {
        if self.is_broadcast() {
            0
        } else {
            msg.get(field)
        }
    }
}
