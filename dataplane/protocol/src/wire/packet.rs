//! Any TIPC packet as a value whose named fields are all there is to it.
//!
//! [`Packet::decode`] accepts exactly what [`Packet::encode`] can write again byte for byte. Fields
//! that a sender leaves stale are fields; bits without a field are zero in everything Linux sends,
//! so a packet in which one is set is refused here, by name of the word, rather than shown as
//! something it may not be. The receive path is more liberal: it works on [`Msg`] and
//! ignores such bits.

use super::link_protocol::MAX_EMITTED;
use super::{
    BcastProtocol, ConnManager, Data, DomainRecord, Encrypted, GroupProtocol, Header, LinkConfig,
    LinkProtocol, Msg, MsgBundler, MsgCrypto, MsgFragmenter, NameDistributor, TunnelProtocol, User,
    WireError, size, type_name,
};

/// A decoded packet, or a message from inside one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// Users LOW to CRITICAL.
    Data(Data<'a>),
    /// User BCAST_PROTOCOL.
    BcastProtocol(BcastProtocol),
    /// User MSG_BUNDLER.
    MsgBundler(MsgBundler<'a>),
    /// User LINK_PROTOCOL.
    LinkProtocol {
        /// Header, gap-ack record or interface name.
        message: LinkProtocol<'a>,
        /// What follows the gap-ack record of a STATE.
        domain: Option<DomainRecord<'a>>,
    },
    /// User CONN_MANAGER.
    ConnManager(ConnManager<'a>),
    /// User GROUP_PROTOCOL.
    GroupProtocol(GroupProtocol),
    /// User TUNNEL_PROTOCOL.
    TunnelProtocol(TunnelProtocol<'a>),
    /// User NAME_DISTRIBUTOR.
    NameDistributor(NameDistributor<'a>),
    /// User MSG_FRAGMENTER.
    MsgFragmenter(MsgFragmenter<'a>),
    /// User LINK_CONFIG.
    LinkConfig(LinkConfig),
    /// User MSG_CRYPTO.
    MsgCrypto(MsgCrypto<'a>),
    /// Any user, behind an encryption header.
    Encrypted(Encrypted<'a>),
}

/// Room for the payload of every message that does not borrow its payload.
const SCRATCH: usize = MAX_EMITTED + DomainRecord::MAX_SIZE;
const _: () = assert!(MsgCrypto::MAX_PAYLOAD <= SCRATCH);

impl<'a> Packet<'a> {
    /// Decodes the packet at the start of `frame`; what Ethernet padded behind it is ignored.
    ///
    /// Whether a STATE has a gap-ack record depends on what its sender announced, which a lone
    /// packet does not tell: here one with any payload has, as from every Linux since 5.0.
    pub fn decode(frame: &'a [u8]) -> Result<Self, WireError> {
        if Encrypted::is_at(frame) {
            return Encrypted::parse(frame).map(Self::Encrypted);
        }
        let msg = Msg::check(frame)?;
        let packet = Self::parse(msg)?;
        packet.must_reproduce(msg)?;
        Ok(packet)
    }

    fn parse(msg: Msg<'a>) -> Result<Self, WireError> {
        Ok(match msg.user() {
            User::Low | User::Medium | User::High | User::Critical => Self::Data(Data::parse(msg)?),
            User::BcastProtocol => Self::BcastProtocol(BcastProtocol::parse(msg)?),
            User::MsgBundler => Self::MsgBundler(MsgBundler::parse(msg)?),
            User::LinkProtocol => {
                let with_gaps = !msg.payload().is_empty();
                Self::LinkProtocol {
                    message: LinkProtocol::parse(msg, with_gaps)?,
                    domain: LinkProtocol::domain(msg, with_gaps)?,
                }
            }
            User::ConnManager => Self::ConnManager(ConnManager::parse(msg)?),
            User::GroupProtocol => Self::GroupProtocol(GroupProtocol::parse(msg)?),
            User::TunnelProtocol => Self::TunnelProtocol(TunnelProtocol::parse(msg)?),
            User::NameDistributor => Self::NameDistributor(NameDistributor::parse(msg)?),
            User::MsgFragmenter => Self::MsgFragmenter(MsgFragmenter::parse(msg)?),
            User::LinkConfig => Self::LinkConfig(LinkConfig::parse(msg)?),
            User::MsgCrypto => Self::MsgCrypto(MsgCrypto::parse(msg)?),
            User::System | User::TopSrv => {
                return Err(WireError::Malformed("user: never on the wire"));
            }
        })
    }

    /// Appends the packet to `out`.
    ///
    /// # Panics
    /// If the payload is longer than a message may carry.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut scratch = [0; SCRATCH];
        match self.parts(&mut scratch) {
            Some((mut header, payload)) => {
                assert!(
                    payload.len() <= size::MAX_PAYLOAD,
                    "payload of {} bytes",
                    payload.len()
                );
                header.set_payload_len(payload.len());
                out.extend_from_slice(header.as_bytes());
                out.extend_from_slice(payload);
            }
            None => {
                if let Self::Encrypted(packet) = self {
                    packet.encode(out);
                }
            }
        }
    }

    /// Header, still without the size of the payload, and payload; `None` if encrypted.
    fn parts<'s>(&'s self, scratch: &'s mut [u8; SCRATCH]) -> Option<(Header, &'s [u8])> {
        Some(match self {
            Self::Data(m) => (m.header(), m.payload),
            Self::BcastProtocol(m) => (m.header(), &[]),
            Self::MsgBundler(m) => (m.header(), m.payload),
            Self::LinkProtocol { message, domain } => {
                let gaps = message.emit_payload(scratch);
                let rest = domain
                    .as_ref()
                    .map_or(0, |record| record.emit(&mut scratch[gaps..]));
                (message.header(), &scratch[..gaps + rest])
            }
            Self::ConnManager(m) => (m.header(), m.payload),
            Self::GroupProtocol(m) => (m.header(), &[]),
            Self::TunnelProtocol(m) => (m.header(), m.payload),
            Self::NameDistributor(m) => (m.header(), m.items.0),
            Self::MsgFragmenter(m) => (m.header(), m.payload),
            Self::LinkConfig(m) => {
                let len = m.emit_payload(scratch);
                (m.header(), &scratch[..len])
            }
            Self::MsgCrypto(m) => {
                let len = m.emit_payload(scratch);
                (m.header(), &scratch[..len])
            }
            Self::Encrypted(_) => return None,
        })
    }

    /// Refuses what the fields do not cover.
    fn must_reproduce(&self, msg: Msg<'_>) -> Result<(), WireError> {
        let mut scratch = [0; SCRATCH];
        let Some((mut header, payload)) = self.parts(&mut scratch) else {
            return Ok(());
        };
        if header.len() != msg.header_size() {
            return Err(WireError::Malformed("header length"));
        }
        if payload != msg.payload() {
            return Err(WireError::Malformed(self.name()));
        }
        header.set_payload_len(payload.len());
        let ours = header.as_bytes().as_chunks::<4>().0.iter();
        let theirs = msg.bytes().as_chunks::<4>().0.iter();
        match ours.zip(theirs).position(|(a, b)| a != b) {
            None => Ok(()),
            Some(word) => {
                let (ours, theirs) = (
                    super::field::word(header.as_bytes(), word),
                    super::field::word(msg.bytes(), word),
                );
                Err(WireError::Reserved {
                    word,
                    bits: ours ^ theirs,
                })
            }
        }
    }

    /// The message user.
    pub fn user(&self) -> User {
        match self {
            Self::Data(m) => m.user(),
            Self::BcastProtocol(_) => User::BcastProtocol,
            Self::MsgBundler(_) => User::MsgBundler,
            Self::LinkProtocol { .. } => User::LinkProtocol,
            Self::ConnManager(_) => User::ConnManager,
            Self::GroupProtocol(_) => User::GroupProtocol,
            Self::TunnelProtocol(_) => User::TunnelProtocol,
            Self::NameDistributor(_) => User::NameDistributor,
            Self::MsgFragmenter(_) => User::MsgFragmenter,
            Self::LinkConfig(_) => User::LinkConfig,
            Self::MsgCrypto(_) => User::MsgCrypto,
            Self::Encrypted(m) => m.user,
        }
    }

    /// The message type; its meaning depends on the user.
    pub fn kind(&self) -> u32 {
        match self {
            Self::Data(m) => m.data_type() as u32,
            Self::LinkProtocol { message, .. } => message.type_bits(),
            Self::ConnManager(m) => m.kind.type_bits(),
            Self::GroupProtocol(m) => m.kind.type_bits(),
            Self::TunnelProtocol(m) => m.kind.type_bits(),
            Self::NameDistributor(m) => m.type_bits(),
            Self::MsgFragmenter(m) => m.place as u32,
            Self::LinkConfig(m) => m.kind as u32,
            Self::BcastProtocol(_)
            | Self::MsgBundler(_)
            | Self::MsgCrypto(_)
            | Self::Encrypted(_) => 0,
        }
    }

    /// What the packet is called.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Encrypted(_) => "ENCRYPTED",
            Self::BcastProtocol(BcastProtocol::Nack(_)) => "BCAST_NACK",
            _ => type_name(self.user(), self.kind()),
        }
    }
}

#[cfg(test)]
mod tests;
