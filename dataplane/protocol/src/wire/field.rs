//! The bit fields of the header, each named once.
//!
//! Words are big-endian and 32 bits wide; bit 31 is the first on the wire. The same bits mean
//! different things for different users; a field's name says for whom it is.

/// A run of bits inside one header word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    word: u8,
    shift: u8,
    bits: u8,
}

impl Field {
    /// Bits `low..=high` of word `word`.
    const fn new(word: u8, high: u8, low: u8) -> Self {
        assert!(word < 15 && low <= high && high < 32);
        Self {
            word,
            shift: low,
            bits: high - low + 1,
        }
    }

    #[inline]
    const fn mask(self) -> u32 {
        if self.bits == 32 {
            u32::MAX
        } else {
            (1 << self.bits) - 1
        }
    }

    /// Index of the word the field lives in.
    #[inline]
    pub const fn word(self) -> usize {
        self.word as usize
    }

    /// The field's value in a header.
    ///
    /// # Panics
    /// If `header` ends before the field's word: [`super::Msg::check`] rules that out for the users
    /// that have the field.
    #[inline]
    pub fn get(self, header: &[u8]) -> u32 {
        word(header, self.word()) >> self.shift & self.mask()
    }

    /// Overwrites the field; bits of `value` beyond the field's width are cut off.
    ///
    /// # Panics
    /// If `header` ends before the field's word.
    #[inline]
    pub fn set(self, header: &mut [u8], value: u32) {
        let mask = self.mask() << self.shift;
        let old = word(header, self.word());
        set_word(
            header,
            self.word(),
            old & !mask | value << self.shift & mask,
        );
    }
}

/// Word `n` of a header.
#[inline]
pub fn word(header: &[u8], n: usize) -> u32 {
    let bytes = &header[4 * n..4 * n + 4];
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// Overwrites word `n` of a header.
#[inline]
pub fn set_word(header: &mut [u8], n: usize, value: u32) {
    header.as_chunks_mut().0[n] = value.to_be_bytes();
}

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident = ($word:literal, $high:literal, $low:literal);)*) => {
        $($(#[$doc])* pub const $name: Field = Field::new($word, $high, $low);)*
    };
}

fields! {
    /// Must be 2; 7 marks an encrypted packet.
    VERSION = (0, 31, 29);
    /// Message user; 0 to 3 is the importance of a data message.
    USER = (0, 28, 25);
    /// Header length in words.
    HEADER_WORDS = (0, 24, 21);
    /// Not part of a unicast link's sequence: discovery and the broadcast link.
    NON_SEQ = (0, 20, 20);
    /// Data: drop silently instead of returning.
    DEST_DROPPABLE = (0, 19, 19);
    /// STATE: a probe or the answer to one.
    KEEPALIVE = (0, 19, 19);
    /// Unicast data: the sender may drop at congestion.
    SRC_DROPPABLE = (0, 18, 18);
    /// Multicast data: sent by replicast.
    IS_RCAST = (0, 18, 18);
    /// CONN data: acknowledge at once.
    ACK_REQUIRED = (0, 18, 18);
    /// CONN_MANAGER CONN_ACK: answers `ACK_REQUIRED`.
    NAGLE_ACK = (0, 18, 18);
    /// Connection request, or multicast method switch.
    SYN = (0, 17, 17);
    /// Header and payload in bytes.
    SIZE = (0, 16, 0);
    /// Message type, by user.
    TYPE = (1, 31, 29);
    /// Reason of rejection.
    ERRCODE = (1, 28, 25);
    /// NAME_DISTRIBUTOR: part of the bulk sent at link-up.
    BULK = (1, 28, 28);
    /// NAME_DISTRIBUTOR: last message of the bulk.
    LAST_BULK = (1, 27, 27);
    /// NAME_DISTRIBUTOR: the sender numbers its updates.
    NON_LEGACY = (1, 26, 26);
    /// NAMED data: secondary look-ups done.
    REROUTE_COUNT = (1, 24, 21);
    /// NAMED and MCAST data: scope of the look-up.
    LOOKUP_SCOPE = (1, 20, 19);
    /// LINK_CONFIG: node capabilities.
    CAPABILITIES = (1, 27, 15);
    /// LINK_CONFIG: signature of the node instance; its top bit is capability bit 0.
    SIGNATURE = (1, 15, 0);
    /// LINK_PROTOCOL STATE: packets missing after `ACK`.
    SEQ_GAP = (1, 28, 16);
    /// LINK_PROTOCOL ACTIVATE: `DEST_SESSION` holds a session.
    DEST_SESSION_VALID = (1, 16, 16);
    /// Last broadcast packet received in order from the addressee.
    BCAST_ACK = (1, 15, 0);
    /// LINK_PROTOCOL ACTIVATE: the session number last received from the addressee.
    DEST_SESSION = (1, 15, 0);
    /// Last packet received in order on this link.
    ACK = (2, 31, 16);
    /// Sequence number on this link.
    SEQNO = (2, 15, 0);
    /// BCAST_PROTOCOL NACK: the gap begins after this number.
    GAP_AFTER = (2, 31, 16);
    /// BCAST_PROTOCOL NACK: last missing number.
    GAP_TO = (2, 15, 0);
    /// LINK_CONFIG: whom the message is for.
    DEST_DOMAIN = (2, 31, 0);
    /// The node that sent the packet.
    PREV_NODE = (3, 31, 0);
    /// Sending socket.
    ORIG_PORT = (4, 31, 0);
    /// LINK_CONFIG: cluster id.
    DISCOVERY_NET_ID = (4, 31, 0);
    /// LINK_PROTOCOL, BCAST_PROTOCOL: last number sent on the own broadcast link.
    LAST_BCAST = (4, 31, 16);
    /// LINK_PROTOCOL: next unicast number to be assigned.
    NEXT_SENT = (4, 15, 0);
    /// MSG_FRAGMENTER, TUNNEL_PROTOCOL: fragment number, from 1.
    FRAGMENT_NO = (4, 31, 16);
    /// TUNNEL_PROTOCOL: number of fragments.
    FRAGMENT_COUNT = (4, 15, 0);
    /// NAME_DISTRIBUTOR: number of the update.
    NAMED_SEQNO = (4, 15, 0);
    /// MSG_CRYPTO: generation of the key.
    KEY_GENERATION = (4, 31, 16);
    /// MSG_CRYPTO: mode of the key.
    KEY_MODE = (4, 3, 0);
    /// Destination socket.
    DEST_PORT = (5, 31, 0);
    /// Every packet of the broadcast link: cluster id.
    BROADCAST_NET_ID = (5, 31, 0);
    /// LINK_PROTOCOL: the sender's session number of this link.
    SESSION = (5, 31, 16);
    /// LINK_PROTOCOL, BCAST_PROTOCOL, bulk: `BCAST_ACK` means nothing yet.
    BC_ACK_INVALID = (5, 14, 14);
    /// LINK_PROTOCOL RESET: the endpoint is being taken down now.
    PEER_STOPPING = (5, 13, 13);
    /// LINK_PROTOCOL: the sender considers the node up.
    REDUNDANT_LINK = (5, 12, 12);
    /// LINK_PROTOCOL, TUNNEL_PROTOCOL: bearer of the sender.
    BEARER_ID = (5, 11, 9);
    /// LINK_PROTOCOL: new priority, 0 for no change.
    LINK_PRIORITY = (5, 8, 4);
    /// LINK_PROTOCOL: network plane, 0 is A.
    NET_PLANE = (5, 3, 1);
    /// LINK_PROTOCOL STATE: answer requested.
    PROBE = (5, 0, 0);
    /// Node where the message originated.
    ORIG_NODE = (6, 31, 0);
    /// Node the message is for.
    DEST_NODE = (7, 31, 0);
    /// Service type.
    NAME_TYPE = (8, 31, 0);
    /// LINK_PROTOCOL STATE: broadcast packets missing after `BCAST_ACK`.
    BC_GAP = (8, 9, 0);
    /// Service instance, or lower bound of a multicast.
    NAME_LOWER = (9, 31, 0);
    /// MSG_BUNDLER, TUNNEL_PROTOCOL: number of messages; SYNCH: synch point.
    MSG_COUNT = (9, 31, 16);
    /// MSG_BUNDLER, MSG_FRAGMENTER: importance of the first inner message.
    INNER_IMPORTANCE = (9, 2, 0);
    /// CONN_MANAGER CONN_ACK: blocks or messages acknowledged.
    CONN_ACK = (9, 31, 16);
    /// CONN_MANAGER CONN_ACK, GROUP_PROTOCOL JOIN and ADV: advertised window.
    ADV_WINDOW = (9, 15, 0);
    /// GROUP_PROTOCOL: synch point, acknowledged or remitted.
    GROUP_COUNT = (9, 31, 16);
    /// LINK_PROTOCOL RESET and ACTIVATE: MTU in units of four bytes.
    MAX_PKT = (9, 31, 16);
    /// LINK_PROTOCOL: tolerance in ms, 0 for no change.
    LINK_TOLERANCE = (9, 15, 0);
    /// Upper bound of a multicast.
    NAME_UPPER = (10, 31, 0);
    /// GRP_BCAST, GRP_MCAST, GRP_UCAST: broadcast number of the group.
    GROUP_BC_SEQNO = (10, 31, 16);
    /// GRP_BCAST, GRP_MCAST: acknowledgement requested.
    GROUP_ACK_REQ = (10, 0, 0);
    /// LINK_CONFIG: see `docs/protocol/discovery.md`.
    PEER_NET_HASH = (13, 31, 0);
    /// LINK_CONFIG TRIAL_FAIL: proposed node address.
    SUGGESTED_ADDR = (14, 31, 0);
}
