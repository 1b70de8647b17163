//! LINK_CONFIG: how nodes find each other (`docs/protocol/discovery.md`).

use super::field as f;
use super::{Header, Msg, User, WireError, size};
use crate::addr::{MediaAddr, NodeAddr, NodeId};

/// Capabilities a node announces; what a node sends on a link depends on the peer's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(pub u16);

impl Capabilities {
    /// Connection requests carry the SYN bit.
    pub const SYN_BIT: Self = Self(0x001);
    /// The broadcast start point comes in BCAST_PROTOCOL.
    pub const BCAST_SYNCH: Self = Self(0x002);
    /// Broadcast gaps are reported in STATE.
    pub const BCAST_STATE_NACK: Self = Self(0x004);
    /// Connection flow control counts blocks.
    pub const BLOCK_FLOWCTL: Self = Self(0x008);
    /// Handles replicast.
    pub const BCAST_RCAST: Self = Self(0x010);
    /// Discovery carries the 128-bit identity.
    pub const NODE_ID128: Self = Self(0x020);
    /// STATE messages are numbered.
    pub const LINK_PROTO_SEQNO: Self = Self(0x040);
    /// A change between broadcast and replicast is synchronised.
    pub const MCAST_RBCTL: Self = Self(0x080);
    /// STATE starts with a gap-ack record.
    pub const GAP_ACK_BLOCK: Self = Self(0x100);
    /// SYNCH is one message; FAILOVER packets may be fragmented.
    pub const TUNNEL_ENHANCED: Self = Self(0x200);
    /// Streams may bundle.
    pub const NAGLE: Self = Self(0x400);
    /// Binding updates come by broadcast and are numbered.
    pub const NAMED_BCAST: Self = Self(0x800);
    /// Everything this implementation announces: the set of Linux 6.1.
    pub const OWN: Self = Self(0xfff);

    /// True if every capability of `other` is there.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The four discovery messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DiscoveryKind {
    /// Who is there?
    Request = 0,
    /// Answer to a request.
    Response = 1,
    /// Does anybody use this address?
    Trial = 2,
    /// Veto against a trial address.
    TrialFail = 3,
}

/// A discovery message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkConfig {
    /// What it asks or answers.
    pub kind: DiscoveryKind,
    /// The sender's capabilities.
    pub capabilities: Capabilities,
    /// Identifies the node instance; its top bit is capability bit 0.
    pub signature: u16,
    /// Whom it is for: 0 for anybody; the rejected address in a veto.
    pub dest_domain: u32,
    /// The sender's address, or its trial address.
    pub prev_node: NodeAddr,
    /// Cluster id.
    pub net_id: u32,
    /// Where to answer.
    pub media_addr: MediaAddr,
    /// Random value; with equal identity it tells namespaces of one kernel apart.
    pub net_hash: u32,
    /// Proposed address, in a veto.
    pub suggested: NodeAddr,
    /// The sender's identity; `None` from nodes without the capability for it.
    pub node_id: Option<NodeId>,
}

/// Size of every discovery message this implementation sends.
pub const DISCOVERY_SIZE: usize = size::MAX + 16;

impl LinkConfig {
    /// Parses a message of user LINK_CONFIG.
    pub fn parse(msg: Msg<'_>) -> Result<Self, WireError> {
        let kind = match msg.kind() {
            0 => DiscoveryKind::Request,
            1 => DiscoveryKind::Response,
            2 => DiscoveryKind::Trial,
            3 => DiscoveryKind::TrialFail,
            _ => return Err(WireError::Malformed("LINK_CONFIG type")),
        };
        let capabilities = Capabilities(msg.get16(f::CAPABILITIES));
        let node_id = if capabilities.has(Capabilities::NODE_ID128) {
            let have = msg.payload().len();
            let id = msg
                .payload()
                .first_chunk()
                .ok_or(WireError::Truncated { need: 16, have })?;
            Some(NodeId(*id))
        } else {
            None
        };
        let mut media_addr = [0; 32];
        media_addr.copy_from_slice(&msg.bytes()[20..52]);
        Ok(Self {
            kind,
            capabilities,
            signature: msg.get16(f::SIGNATURE),
            dest_domain: msg.get(f::DEST_DOMAIN),
            prev_node: NodeAddr(msg.prev_node()),
            net_id: msg.get(f::DISCOVERY_NET_ID),
            media_addr: MediaAddr(media_addr),
            net_hash: msg.get(f::PEER_NET_HASH),
            suggested: NodeAddr(msg.get(f::SUGGESTED_ADDR)),
            node_id,
        })
    }

    /// Writes the message to the start of `out`; gives its size.
    ///
    /// # Panics
    /// If `out` has less than 76 bytes.
    pub fn emit(&self, out: &mut [u8]) -> usize {
        let mut h = self.header();
        let id = self.emit_payload(&mut out[size::MAX..]);
        h.set_payload_len(id);
        out[..size::MAX].copy_from_slice(h.as_bytes());
        size::MAX + id
    }

    pub(super) fn header(&self) -> Header {
        let mut h = Header::new(User::LinkConfig, self.kind as u32, size::MAX);
        h.set(f::NON_SEQ, 1)
            .set(f::SIGNATURE, self.signature.into())
            .set(f::CAPABILITIES, self.capabilities.0.into())
            .set(f::DEST_DOMAIN, self.dest_domain)
            .set(f::PREV_NODE, self.prev_node.0)
            .set(f::DISCOVERY_NET_ID, self.net_id)
            .set(f::PEER_NET_HASH, self.net_hash)
            .set(f::SUGGESTED_ADDR, self.suggested.0);
        for (n, word) in self.media_addr.0.chunks_exact(4).enumerate() {
            h.set_word(
                5 + n,
                u32::from_be_bytes([word[0], word[1], word[2], word[3]]),
            );
        }
        h
    }

    /// Writes the identity, if there is one, to the start of `out`; gives its length.
    pub(super) fn emit_payload(&self, out: &mut [u8]) -> usize {
        let Some(id) = &self.node_id else {
            return 0;
        };
        out[..id.0.len()].copy_from_slice(&id.0);
        id.0.len()
    }
}
