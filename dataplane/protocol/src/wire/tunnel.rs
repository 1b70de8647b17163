//! TUNNEL_PROTOCOL: what one link carries for the other (`docs/protocol/wire.md`, tunnels).

use super::field as f;
use super::{Header, Msg, Route, User, WireError};

/// A message of user TUNNEL_PROTOCOL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelProtocol<'a> {
    /// Sequence and nodes.
    pub route: Route,
    /// The bearer that the receiver uses for the link this is about.
    pub bearer_id: u8,
    /// Synchronisation or failover.
    pub kind: TunnelKind,
    /// A packet of the other link, a piece of one, or nothing.
    pub payload: &'a [u8],
}

/// The types of TUNNEL_PROTOCOL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelKind {
    /// A second link comes up.
    Synch {
        /// Number of the last packet queued on the first link; from nodes without the capability
        /// TUNNEL_ENHANCED, how many packets are tunnelled.
        sync_point: u16,
    },
    /// A link failed.
    Failover {
        /// How many packets are tunnelled.
        count: u16,
        /// Number of this piece, from 1; 0 if the packet is whole.
        fragment_no: u16,
        /// Number of pieces; 0 if the packet is whole.
        fragment_count: u16,
    },
}

const SYNCH: u32 = 0;
const FAILOVER: u32 = 1;

impl TunnelKind {
    /// The header of a tunnel message between these nodes, without payload, about the link over the bearer that the
    /// receiver numbers so.
    pub fn header(self, own: u32, peer: u32, bearer_id: u8) -> Header {
        let mut h = Header::internal(User::TunnelProtocol, self.type_bits(), own, peer);
        h.set(f::BEARER_ID, bearer_id.into());
        match self {
            Self::Synch { sync_point } => h.set(f::MSG_COUNT, sync_point.into()),
            Self::Failover {
                count,
                fragment_no,
                fragment_count,
            } => h
                .set(f::MSG_COUNT, count.into())
                .set(f::FRAGMENT_NO, fragment_no.into())
                .set(f::FRAGMENT_COUNT, fragment_count.into()),
        };
        h.set_payload_len(0);
        h
    }

    pub(super) fn type_bits(self) -> u32 {
        match self {
            Self::Synch { .. } => SYNCH,
            Self::Failover { .. } => FAILOVER,
        }
    }
}

impl<'a> TunnelProtocol<'a> {
    /// Reads a checked message of this user.
    pub fn parse(msg: Msg<'a>) -> Result<Self, WireError> {
        let kind = match msg.kind() {
            SYNCH => TunnelKind::Synch {
                sync_point: msg.get16(f::MSG_COUNT),
            },
            FAILOVER => TunnelKind::Failover {
                count: msg.get16(f::MSG_COUNT),
                fragment_no: msg.get16(f::FRAGMENT_NO),
                fragment_count: msg.get16(f::FRAGMENT_COUNT),
            },
            _ => return Err(WireError::Malformed("TUNNEL_PROTOCOL type")),
        };
        let route = Route::parse(msg);
        let bearer_id = route.word5(msg, f::BEARER_ID) as u8;
        Ok(Self {
            route,
            bearer_id,
            kind,
            payload: msg.payload(),
        })
    }

    pub(super) fn header(&self) -> Header {
        let mut h = self.kind.header(0, 0, self.bearer_id);
        self.route.emit(&mut h);
        h
    }

    /// The tunnelled packet, if the payload is a whole one.
    pub fn inner(&self) -> Option<Result<Msg<'a>, WireError>> {
        let whole = match self.kind {
            TunnelKind::Synch { .. } => true,
            TunnelKind::Failover { fragment_count, .. } => fragment_count == 0,
        };
        (whole && !self.payload.is_empty()).then(|| Msg::check(self.payload))
    }
}
