//! CONN_MANAGER: supervision and flow control of connections
//! (`docs/protocol/wire.md`, internal messages).

use super::field as f;
use super::{Header, Msg, Route, User, WireError};
use crate::addr::{NodeAddr, PortId, SocketAddr};

/// A message of user CONN_MANAGER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnManager<'a> {
    /// Sequence and nodes.
    pub route: Route,
    /// Why it came back; 0 for a message that did not.
    pub errcode: u8,
    /// Drop silently instead of returning.
    pub dest_droppable: bool,
    /// Sending socket.
    pub orig_port: PortId,
    /// Destination socket; 0 for packets of the broadcast link, which have none.
    pub dest_port: PortId,
    /// What it says.
    pub kind: ConnKind,
    /// Empty, unless an older sender returned one with data.
    pub payload: &'a [u8],
}

/// The types of CONN_MANAGER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnKind {
    /// Are you there?
    Probe,
    /// Answer to a probe.
    ProbeReply,
    /// Flow control.
    Ack {
        /// Answers a message that asked for it at once.
        nagle_ack: bool,
        /// Blocks or messages consumed since the last one.
        acked: u16,
        /// The receive window, in the same unit.
        window: u16,
    },
}

const PROBE: u32 = 0;
const PROBE_REPLY: u32 = 1;
const ACK: u32 = 2;

impl ConnKind {
    /// The header of such a message from a socket of this node to its peer.
    pub fn header(self, own: NodeAddr, from: PortId, to: SocketAddr) -> Header {
        let mut h = Header::internal(User::ConnManager, self.type_bits(), own.0, to.node.0);
        h.set(f::ORIG_PORT, from.0).set(f::DEST_PORT, to.port.0);
        self.emit(&mut h);
        h
    }

    fn emit(self, h: &mut Header) {
        if let Self::Ack {
            nagle_ack,
            acked,
            window,
        } = self
        {
            h.set(f::NAGLE_ACK, nagle_ack.into())
                .set(f::CONN_ACK, acked.into())
                .set(f::ADV_WINDOW, window.into());
        }
    }

    pub(super) fn type_bits(self) -> u32 {
        match self {
            Self::Probe => PROBE,
            Self::ProbeReply => PROBE_REPLY,
            Self::Ack { .. } => ACK,
        }
    }
}

impl<'a> ConnManager<'a> {
    pub(super) fn parse(msg: Msg<'a>) -> Result<Self, WireError> {
        let kind = match msg.kind() {
            PROBE => ConnKind::Probe,
            PROBE_REPLY => ConnKind::ProbeReply,
            ACK => ConnKind::Ack {
                nagle_ack: msg.flag(f::NAGLE_ACK),
                acked: msg.get16(f::CONN_ACK),
                window: msg.get16(f::ADV_WINDOW),
            },
            _ => return Err(WireError::Malformed("CONN_MANAGER type")),
        };
        let route = Route::parse(msg);
        Ok(Self {
            route,
            errcode: msg.get(f::ERRCODE) as u8,
            dest_droppable: msg.flag(f::DEST_DROPPABLE),
            orig_port: PortId(msg.get(f::ORIG_PORT)),
            dest_port: PortId(route.word5(msg, f::DEST_PORT)),
            kind,
            payload: msg.payload(),
        })
    }

    pub(super) fn header(&self) -> Header {
        let mut h = Header::internal(User::ConnManager, self.kind.type_bits(), 0, 0);
        h.set(f::ERRCODE, self.errcode.into())
            .set(f::DEST_DROPPABLE, self.dest_droppable.into())
            .set(f::ORIG_PORT, self.orig_port.0)
            .set(f::DEST_PORT, self.dest_port.0);
        self.kind.emit(&mut h);
        self.route.emit(&mut h);
        h
    }
}
