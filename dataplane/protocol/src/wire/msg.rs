//! A checked view of one TIPC message.

use super::field::{self, Field};
use super::size;

/// Why bytes are not a TIPC message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Fewer bytes than the header or the message needs.
    #[error("truncated: {need} bytes needed, {have} at hand")]
    Truncated {
        /// Bytes needed.
        need: usize,
        /// Bytes present.
        have: usize,
    },
    /// Neither version 2 nor an encrypted packet.
    #[error("version {0}, only 2 is TIPC")]
    BadVersion(u32),
    /// Header length outside 24 to 60 bytes, or too short for user and type.
    #[error("header of {have} bytes, at least {need} needed")]
    BadHeaderSize {
        /// Smallest header of this user and type.
        need: usize,
        /// Stated header length.
        have: usize,
    },
    /// Message size below the header's or above 66,000 bytes of payload.
    #[error("message size {0} is impossible")]
    BadMessageSize(usize),
    /// A control message whose payload does not hold what its user and type demand.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// Bits that no field of the user and type covers are not zero.
    #[error("reserved bits {bits:08x} set in word {word}")]
    Reserved {
        /// Index of the word.
        word: usize,
        /// The bits.
        bits: u32,
    },
}

/// Who a message is for (word 0, bits 25 to 28).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum User {
    /// Data of LOW importance.
    Low = 0,
    /// Data of MEDIUM importance.
    Medium = 1,
    /// Data of HIGH importance.
    High = 2,
    /// Data of CRITICAL importance.
    Critical = 3,
    /// SYSTEM importance: a class, never on the wire.
    System = 4,
    /// Start point of a broadcast link.
    BcastProtocol = 5,
    /// Several messages in one packet.
    MsgBundler = 6,
    /// STATE, RESET, ACTIVATE.
    LinkProtocol = 7,
    /// Connection probes and acknowledgements.
    ConnManager = 8,
    /// Group membership and flow control.
    GroupProtocol = 9,
    /// SYNCH and FAILOVER.
    TunnelProtocol = 10,
    /// Binding table updates.
    NameDistributor = 11,
    /// A fragment of a larger message.
    MsgFragmenter = 12,
    /// Discovery.
    LinkConfig = 13,
    /// Session key distribution.
    MsgCrypto = 14,
    /// Local pseudo user, never on the wire.
    TopSrv = 15,
}

impl User {
    const ALL: [Self; 16] = [
        Self::Low,
        Self::Medium,
        Self::High,
        Self::Critical,
        Self::System,
        Self::BcastProtocol,
        Self::MsgBundler,
        Self::LinkProtocol,
        Self::ConnManager,
        Self::GroupProtocol,
        Self::TunnelProtocol,
        Self::NameDistributor,
        Self::MsgFragmenter,
        Self::LinkConfig,
        Self::MsgCrypto,
        Self::TopSrv,
    ];

    /// The user with this number; only the low four bits count.
    #[inline]
    pub fn from_bits(bits: u32) -> Self {
        Self::ALL[(bits & 15) as usize]
    }

    /// True for the four importances of data messages.
    #[inline]
    pub fn is_data(self) -> bool {
        (self as u8) < 4
    }
}

/// Importance of a message on a link: it decides the backlog a message may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Importance {
    /// The default.
    Low = 0,
    /// Twice the room of `Low`.
    Medium = 1,
    /// Three times the room of `Low`.
    High = 2,
    /// Four times the room of `Low`.
    Critical = 3,
    /// Protocol messages and returned messages.
    System = 4,
}

impl Importance {
    /// Number of importances, `System` included.
    pub const COUNT: usize = 5;

    /// The importance with this number; above 3 it is `System`.
    #[inline]
    pub fn from_bits(bits: u32) -> Self {
        match bits {
            0 => Self::Low,
            1 => Self::Medium,
            2 => Self::High,
            3 => Self::Critical,
            _ => Self::System,
        }
    }
}

/// Types of data messages (word 1, bits 29 to 31).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DataType {
    /// Connection data.
    Conn = 0,
    /// Multicast to a service range.
    Mcast = 1,
    /// To a service address.
    Named = 2,
    /// To a socket address.
    Direct = 3,
    /// Membership event: local, never accepted from the wire.
    GroupMemberEvent = 4,
    /// Group broadcast.
    GroupBcast = 5,
    /// Group multicast.
    GroupMcast = 6,
    /// Group unicast.
    GroupUcast = 7,
}

impl DataType {
    /// The type with this number; only the low three bits count.
    #[inline]
    pub fn from_bits(bits: u32) -> Self {
        match bits & 7 {
            0 => Self::Conn,
            1 => Self::Mcast,
            2 => Self::Named,
            3 => Self::Direct,
            4 => Self::GroupMemberEvent,
            5 => Self::GroupBcast,
            6 => Self::GroupMcast,
            _ => Self::GroupUcast,
        }
    }

    /// True for the types that are looked up for each receiving socket.
    #[inline]
    pub fn is_multicast(self) -> bool {
        matches!(self, Self::Mcast | Self::GroupBcast | Self::GroupMcast)
    }

    #[inline]
    fn min_header(self) -> usize {
        match self {
            Self::Conn => size::SHORT,
            Self::Direct => size::BASIC,
            Self::Named => size::NAMED,
            Self::Mcast
            | Self::GroupMemberEvent
            | Self::GroupBcast
            | Self::GroupMcast
            | Self::GroupUcast => size::MCAST,
        }
    }
}

/// A message whose header passed [`Msg::check`], cut to its stated size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msg<'a>(&'a [u8]);

/// The stated size of the message at the start of `bytes`, after the checks that need no more than
/// the first word.
#[inline]
pub fn check_size(bytes: &[u8]) -> Result<usize, WireError> {
    let have = bytes.len();
    let Some(head) = bytes.first_chunk::<{ size::MIN }>() else {
        return Err(WireError::Truncated {
            need: size::MIN,
            have,
        });
    };
    let version = field::VERSION.get(head);
    if version != 2 {
        return Err(WireError::BadVersion(version));
    }
    let header = field::HEADER_WORDS.get(head) as usize * 4;
    let need = min_header(
        User::from_bits(field::USER.get(head)),
        field::TYPE.get(head),
    );
    // A header has both node words or none: with only the first, reading the second would leave it.
    let need = if header > size::SHORT {
        need.max(size::BASIC)
    } else {
        need
    };
    if header < need {
        return Err(WireError::BadHeaderSize { need, have: header });
    }
    let message = field::SIZE.get(head) as usize;
    if message < header || message - header > size::MAX_PAYLOAD {
        return Err(WireError::BadMessageSize(message));
    }
    if have < message {
        return Err(WireError::Truncated {
            need: message,
            have,
        });
    }
    Ok(message)
}

#[inline]
fn min_header(user: User, kind: u32) -> usize {
    match user {
        User::Low | User::Medium | User::High | User::Critical => {
            DataType::from_bits(kind).min_header()
        }
        User::LinkConfig => size::MAX,
        // Users that never are on the wire are counted by the link and dropped behind it.
        User::System | User::TopSrv => size::MIN,
        _ => size::INT,
    }
}

impl<'a> Msg<'a> {
    /// The only way in from the wire. Total: any bytes give a message or what was wrong.
    ///
    /// Bytes beyond the stated size (Ethernet pads short frames) are cut off.
    #[inline]
    pub fn check(frame: &'a [u8]) -> Result<Self, WireError> {
        let size = check_size(frame)?;
        Ok(Self(&frame[..size]))
    }

    /// One that begins with the header of this one, and has as many bytes.
    #[inline]
    pub(super) fn with_same_header(self, bytes: &'a [u8]) -> Self {
        debug_assert!(bytes.len() == self.size() && bytes.starts_with(self.header()));
        Self(bytes)
    }

    /// The header.
    #[inline]
    pub fn header(self) -> &'a [u8] {
        &self.0[..self.header_size()]
    }

    /// The whole message.
    #[inline]
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// A header field.
    #[inline]
    pub fn get(self, field: Field) -> u32 {
        field.get(self.0)
    }

    /// A one-bit header field.
    #[inline]
    pub fn flag(self, field: Field) -> bool {
        field.get(self.0) != 0
    }

    /// A 16-bit header field.
    #[inline]
    pub fn get16(self, field: Field) -> u16 {
        field.get(self.0) as u16
    }

    /// The message user.
    #[inline]
    pub fn user(self) -> User {
        User::from_bits(self.get(field::USER))
    }

    /// The message type; its meaning depends on the user.
    #[inline]
    pub fn kind(self) -> u32 {
        self.get(field::TYPE)
    }

    /// The message type of a data message.
    #[inline]
    pub fn data_type(self) -> DataType {
        DataType::from_bits(self.kind())
    }

    /// Header length in bytes.
    #[inline]
    pub fn header_size(self) -> usize {
        self.get(field::HEADER_WORDS) as usize * 4
    }

    /// Header and payload in bytes.
    #[inline]
    pub fn size(self) -> usize {
        self.0.len()
    }

    /// What follows the header.
    #[inline]
    pub fn payload(self) -> &'a [u8] {
        &self.0[self.header_size()..]
    }

    /// Address of the node that sent the packet.
    #[inline]
    pub fn prev_node(self) -> u32 {
        self.get(field::PREV_NODE)
    }

    /// Node where the message originated: a 24-byte header has none, it is the previous node.
    #[inline]
    pub fn orig_node(self) -> u32 {
        if self.header_size() > size::SHORT {
            self.get(field::ORIG_NODE)
        } else {
            self.prev_node()
        }
    }

    /// Importance on a link; a returned message is `System` whatever its user.
    #[inline]
    pub fn importance(self) -> Importance {
        match self.user() {
            User::MsgBundler | User::MsgFragmenter => {
                Importance::from_bits(self.get(field::INNER_IMPORTANCE))
            }
            user if user.is_data() && self.get(field::ERRCODE) == 0 => {
                Importance::from_bits(user as u32)
            }
            _ => Importance::System,
        }
    }
}
