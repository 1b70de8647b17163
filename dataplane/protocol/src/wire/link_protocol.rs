//! STATE, RESET and ACTIVATE: how two link endpoints talk (`docs/protocol/wire.md`, LINK_PROTOCOL).

use super::field as f;
use super::{DomainRecord, GapAckRecord, Header, MAX_GAP_BLOCKS, Msg, User, WireError, size};

/// Length of the interface name that follows a RESET or ACTIVATE header.
pub const INTERFACE_NAME: usize = 16;

/// Largest payload of a valid message: a gap-ack record with every count at its limit of one byte,
/// and a monitor record.
const MAX_PAYLOAD: usize = 4 + 4 * 2 * 255 + DomainRecord::MAX_SIZE;

/// A LINK_PROTOCOL message. What all three types carry stands beside what only one has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkProtocol<'a> {
    /// Sending node.
    pub own: u32,
    /// Receiving node.
    pub peer: u32,
    /// The sender's session number of this link.
    pub session: u16,
    /// The sender's bearer.
    pub bearer_id: u8,
    /// Network plane, 0 is A.
    pub net_plane: u8,
    /// New tolerance in ms; 0 for no change.
    pub tolerance_ms: u16,
    /// New priority; 0 for no change.
    pub priority: u8,
    /// The sender considers the node up.
    pub redundant_link: bool,
    /// `bcast_ack` and `bc_gap` mean nothing yet.
    pub bc_ack_invalid: bool,
    /// Last broadcast received in order from the addressee (not in ACTIVATE).
    pub bcast_ack: u16,
    /// Last number sent on the sender's broadcast link.
    pub last_bcast: u16,
    /// Next unicast number the sender will assign.
    pub next_sent: u16,
    /// Last unicast packet received in order.
    pub ack: u16,
    /// STATE number, or `next_sent` + 32767 in RESET and ACTIVATE.
    pub seqno: u16,
    /// What only this type carries.
    pub body: Body<'a>,
}

/// The part of a LINK_PROTOCOL message that depends on its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// STATE.
    State(State<'a>),
    /// RESET.
    Reset(Reset),
    /// ACTIVATE, which answers a session of the addressee.
    Activate {
        /// The same as in a RESET.
        reset: Reset,
        /// Session number last received from the addressee, if any.
        dest_session: Option<u16>,
    },
}

/// What STATE carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State<'a> {
    /// An answer is requested.
    pub probe: bool,
    /// A probe, or the answer to one.
    pub keepalive: bool,
    /// Packets missing after `ack`.
    pub seq_gap: u16,
    /// Broadcast packets missing after `bcast_ack`.
    pub bc_gap: u16,
    /// The gap-ack record, which peers with that capability send always.
    pub gaps: Option<GapAckRecord<'a>>,
    /// The MTU in bytes, a multiple of four on the wire, where the sender has changed it. Linux neither writes nor reads it.
    pub max_packet: Option<u32>,
}

/// What RESET and ACTIVATE carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reset {
    /// The endpoint is being taken down now.
    pub peer_stopping: bool,
    /// MTU in bytes, a multiple of four on the wire.
    pub max_packet: u32,
    /// NUL-terminated interface name; bytes after the NUL mean nothing.
    pub interface: [u8; INTERFACE_NAME],
}

impl Reset {
    /// The interface name as text, up to the first NUL.
    pub fn interface_name(&self) -> &[u8] {
        let end = self
            .interface
            .iter()
            .position(|b| *b == 0)
            .unwrap_or(INTERFACE_NAME);
        &self.interface[..end]
    }
}

/// Largest payload [`LinkProtocol::emit`] writes.
pub(super) const MAX_EMITTED: usize = 4 + 4 * 2 * MAX_GAP_BLOCKS;

const STATE: u32 = 0;
const RESET: u32 = 1;
const ACTIVATE: u32 = 2;

impl<'a> LinkProtocol<'a> {
    /// Parses a message of user LINK_PROTOCOL. `with_gaps` tells whether the sender announced the
    /// capability for gap-ack records: then a STATE without one is malformed.
    pub fn parse(msg: Msg<'a>, with_gaps: bool) -> Result<Self, WireError> {
        if msg.payload().len() > MAX_PAYLOAD {
            return Err(WireError::Malformed("LINK_PROTOCOL size"));
        }
        let body = match msg.kind() {
            STATE => Body::State(State {
                probe: msg.flag(f::PROBE),
                keepalive: msg.flag(f::KEEPALIVE),
                seq_gap: msg.get16(f::SEQ_GAP),
                bc_gap: msg.get16(f::BC_GAP),
                gaps: match with_gaps {
                    true => Some(GapAckRecord::parse(msg.payload())?.0),
                    false => None,
                },
                max_packet: Some(msg.get(f::MAX_PKT) * 4).filter(|max_packet| *max_packet > 0),
            }),
            RESET => Body::Reset(Self::parse_reset(msg)?),
            ACTIVATE => Body::Activate {
                reset: Self::parse_reset(msg)?,
                dest_session: msg
                    .flag(f::DEST_SESSION_VALID)
                    .then(|| msg.get16(f::DEST_SESSION)),
            },
            _ => return Err(WireError::Malformed("LINK_PROTOCOL type")),
        };
        let activate = matches!(body, Body::Activate { .. });
        Ok(Self {
            own: msg.prev_node(),
            peer: msg.get(f::DEST_NODE),
            session: msg.get16(f::SESSION),
            bearer_id: msg.get(f::BEARER_ID) as u8,
            net_plane: msg.get(f::NET_PLANE) as u8,
            tolerance_ms: msg.get16(f::LINK_TOLERANCE),
            priority: msg.get(f::LINK_PRIORITY) as u8,
            redundant_link: msg.flag(f::REDUNDANT_LINK),
            bc_ack_invalid: msg.flag(f::BC_ACK_INVALID),
            bcast_ack: if activate { 0 } else { msg.get16(f::BCAST_ACK) },
            last_bcast: msg.get16(f::LAST_BCAST),
            next_sent: msg.get16(f::NEXT_SENT),
            ack: msg.get16(f::ACK),
            seqno: msg.get16(f::SEQNO),
            body,
        })
    }

    /// The monitor record of a STATE, if there is one. `with_gaps` as in [`Self::parse`]. A record
    /// that contradicts itself or its length is an error, which leaves the rest of the STATE valid.
    pub fn domain(msg: Msg<'a>, with_gaps: bool) -> Result<Option<DomainRecord<'a>>, WireError> {
        if msg.kind() != STATE {
            return Ok(None);
        }
        let gaps = if with_gaps {
            GapAckRecord::parse(msg.payload())?.1
        } else {
            0
        };
        match &msg.payload()[gaps..] {
            [] => Ok(None),
            record => DomainRecord::parse(record).map(Some),
        }
    }

    fn parse_reset(msg: Msg<'_>) -> Result<Reset, WireError> {
        let Some(interface) = msg.payload().first_chunk::<INTERFACE_NAME>() else {
            return Err(WireError::Truncated {
                need: INTERFACE_NAME,
                have: msg.payload().len(),
            });
        };
        Ok(Reset {
            peer_stopping: msg.flag(f::PEER_STOPPING),
            max_packet: msg.get(f::MAX_PKT) * 4,
            interface: *interface,
        })
    }

    /// Writes the message to the start of `out`; gives its size.
    ///
    /// # Panics
    /// If `out` has no room: 40 bytes and a full gap-ack record are at most 556 bytes.
    pub fn emit(&self, out: &mut [u8]) -> usize {
        let payload = self.emit_payload(&mut out[size::INT..]);
        let mut header = self.header();
        header.set_payload_len(payload);
        out[..size::INT].copy_from_slice(header.as_bytes());
        size::INT + payload
    }

    /// Writes what follows the header to the start of `out`; gives its length.
    pub(super) fn emit_payload(&self, out: &mut [u8]) -> usize {
        match &self.body {
            Body::State(State { gaps: None, .. }) => 0,
            Body::State(State {
                gaps: Some(gaps), ..
            }) => {
                gaps.emit(out);
                gaps.wire_len()
            }
            Body::Reset(reset) | Body::Activate { reset, .. } => {
                out[..INTERFACE_NAME].copy_from_slice(&reset.interface);
                INTERFACE_NAME
            }
        }
    }

    pub(super) fn type_bits(&self) -> u32 {
        match self.body {
            Body::State(_) => STATE,
            Body::Reset(_) => RESET,
            Body::Activate { .. } => ACTIVATE,
        }
    }

    pub(super) fn header(&self) -> Header {
        let mut h = Header::internal(User::LinkProtocol, self.type_bits(), self.own, self.peer);
        h.set(f::BCAST_ACK, self.bcast_ack.into())
            .set(f::ACK, self.ack.into())
            .set(f::SEQNO, self.seqno.into())
            .set(f::LAST_BCAST, self.last_bcast.into())
            .set(f::NEXT_SENT, self.next_sent.into())
            .set(f::SESSION, self.session.into())
            .set(f::BC_ACK_INVALID, self.bc_ack_invalid.into())
            .set(f::REDUNDANT_LINK, self.redundant_link.into())
            .set(f::BEARER_ID, self.bearer_id.into())
            .set(f::LINK_PRIORITY, self.priority.into())
            .set(f::NET_PLANE, self.net_plane.into())
            .set(f::LINK_TOLERANCE, self.tolerance_ms.into());
        match &self.body {
            Body::State(state) => {
                h.set(f::KEEPALIVE, state.keepalive.into())
                    .set(f::PROBE, state.probe.into())
                    .set(f::SEQ_GAP, state.seq_gap.into())
                    .set(f::BC_GAP, state.bc_gap.into())
                    .set(f::MAX_PKT, state.max_packet.unwrap_or(0) / 4);
            }
            Body::Reset(reset) | Body::Activate { reset, .. } => {
                h.set(f::PEER_STOPPING, reset.peer_stopping.into())
                    .set(f::MAX_PKT, reset.max_packet / 4);
            }
        }
        if let Body::Activate {
            dest_session: Some(session),
            ..
        } = self.body
        {
            h.set(f::DEST_SESSION_VALID, 1)
                .set(f::DEST_SESSION, session.into());
        }
        h
    }
}
