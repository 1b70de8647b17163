//! Counters: per link as the `tipc` tool shows them, and the node's drops by reason.

/// Counters of a link, zero after each reset. Sent counters of the broadcast link belong to the node,
/// its received ones to each peer. Those that probes change come first, side by side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct LinkStats {
    /// Sum over all ticks of the transmit queue's length.
    pub queue_length_sum: u64,
    /// Ticks while up.
    pub ticks: u32,
    /// Longest transmit queue seen at a tick.
    pub queue_length_max: u32,
    /// Valid STATE messages received.
    pub rx_states: u32,
    /// Probes among them.
    pub rx_probes: u32,
    /// STATE messages sent.
    pub tx_states: u32,
    /// Probes among them.
    pub tx_probes: u32,
    /// Packets accepted in sequence.
    pub rx_packets: u32,
    /// Packets sent for the first time.
    pub tx_packets: u32,
    /// Fragments received in sequence.
    pub rx_fragments: u32,
    /// Messages put together from fragments.
    pub rx_fragmented: u32,
    /// Bundles received.
    pub rx_bundles: u32,
    /// Messages received in bundles.
    pub rx_bundled: u32,
    /// Fragments submitted.
    pub tx_fragments: u32,
    /// Messages cut into fragments.
    pub tx_fragmented: u32,
    /// Bundles made.
    pub tx_bundles: u32,
    /// Messages sent in bundles.
    pub tx_bundled: u32,
    /// Negative acknowledgements received.
    pub rx_naks: u32,
    /// Packets that came out of order.
    pub rx_deferred: u32,
    /// Packets outside the receive window or known already.
    pub rx_duplicates: u32,
    /// Negative acknowledgements sent.
    pub tx_naks: u32,
    /// STATE messages sent only to acknowledge.
    pub tx_acks: u32,
    /// Packets sent again.
    pub retransmitted: u32,
    /// Senders that were put to wait.
    pub congested: u32,
    /// Samples of the transmit profile.
    pub profile_samples: u32,
    /// Sum of the sampled sizes.
    pub profile_bytes: u64,
    /// Samples up to 64, 256, 1024, 4096, 16384, 32768 and 66000 bytes.
    pub profile: [u32; 7],
}

impl LinkStats {
    /// Adds a sample to the transmit profile.
    pub fn sample(&mut self, size: u32) {
        let limits = [64, 256, 1024, 4096, 16_384, 32_768, u32::MAX];
        let class = limits.iter().position(|limit| size <= *limit).unwrap_or(6);
        self.profile[class] += 1;
        self.profile_samples += 1;
        self.profile_bytes += u64::from(size);
    }
}

macro_rules! drops {
    ($($(#[$doc:meta])* $variant:ident => $label:literal,)*) => {
        /// Why something was dropped. The label is what `xtipc status` and the metrics show.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Drop {
            $($(#[$doc])* $variant,)*
        }

        impl Drop {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The reason as a label.
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)*
                }
            }
        }
    };
}

drops! {
    /// Not a TIPC message.
    Malformed => "malformed",
    /// A control message whose content is impossible.
    MalformedControl => "malformed_control",
    /// Encrypted, and this node has no key at all.
    Encrypted => "encrypted",
    /// Encrypted with a key that is not here; or sent without a key where only encrypted packets may be.
    NoKey => "no_key",
    /// Encrypted with a key that is here, or so it claims, and changed on its way.
    Undecryptable => "undecryptable",
    /// Not encrypted, and only encrypted packets are taken.
    ClearText => "clear_text",
    /// Encrypted, and came before.
    Replayed => "replayed",
    /// A session key of an unknown kind.
    BadKey => "bad_key",
    /// A session key, and this node takes none from others.
    UnwantedKey => "unwanted_key",
    /// The previous node is this node: an own packet came back.
    OwnPacket => "own_packet",
    /// Addressed to another node.
    OtherNode => "other_node",
    /// From a node that discovery has not shown.
    UnknownNode => "unknown_node",
    /// From a station that is not the one the node announced.
    ForeignStation => "foreign_station",
    /// Discovery of another cluster.
    OtherCluster => "other_cluster",
    /// Discovery meant for other nodes.
    OtherDomain => "other_domain",
    /// Discovery with this node's address and another identity.
    DuplicateAddress => "duplicate_address",
    /// Discovery whose media address is not the station it came from, or no station's at all.
    SpoofedMediaAddress => "spoofed_media_address",
    /// More nodes than the node may know.
    TooManyNodes => "too_many_nodes",
    /// Not acceptable in the peer's state.
    PeerState => "peer_state",
    /// No link, or a link that is not up.
    LinkDown => "link_down",
    /// What came through a tunnel leads nowhere.
    Tunnel => "tunnel",
    /// LINK_PROTOCOL of another session.
    StaleSession => "stale_session",
    /// Acknowledges what was never sent.
    ImpossibleAck => "impossible_ack",
    /// Known already or outside the receive window.
    Duplicate => "duplicate",
    /// Out of order, and the peer pins its share of frames already.
    DeferredLimit => "deferred_limit",
    /// No frame free.
    NoFrame => "no_frame",
    /// Fragments in an impossible order or of an impossible message.
    Reassembly => "reassembly",
    /// A user that may not arrive this way.
    UnexpectedUser => "unexpected_user",
    /// A broadcast before its start point is known.
    BroadcastNotOpen => "broadcast_not_open",
    /// A broadcast of another cluster.
    BroadcastOtherCluster => "broadcast_other_cluster",
    /// A binding update that may not come from this peer.
    BadBinding => "bad_binding",
    /// The destination socket does not exist, and the message may be dropped.
    NoPort => "no_port",
    /// No binding for the service address, and the message may be dropped.
    NoName => "no_name",
    /// The socket's receive buffer is full, and the message may be dropped.
    Overload => "overload",
    /// A returned message that nobody waits for.
    ReturnedNowhere => "returned_nowhere",
    /// A returned message that found no room on the link.
    ReturnOverflow => "return_overflow",
    /// A multicast that no socket here wants.
    NoMulticastMember => "no_multicast_member",
    /// A message about a connection from a socket that is not its other end.
    NotPeer => "not_peer",
    /// Group traffic from a socket that is no member, or other traffic to a member.
    NotMember => "not_member",
    /// What a member of a group may not say, or more members than one may know.
    GroupViolation => "group_violation",
    /// A message without bytes that is no message.
    Empty => "empty",
    /// A retransmission asked for while the frame is still in transmission.
    RetransmitInFlight => "retransmit_in_flight",
}

/// Drops of the node by reason.
#[derive(Clone, Debug)]
pub struct Drops([u64; Drop::ALL.len()]);

impl Default for Drops {
    fn default() -> Self {
        Self([0; Drop::ALL.len()])
    }
}

impl Drops {
    /// Counts one.
    pub fn count(&mut self, reason: Drop) {
        self.0[reason as usize] += 1;
    }

    /// How many for this reason.
    pub fn get(&self, reason: Drop) -> u64 {
        self.0[reason as usize]
    }

    /// All reasons with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Drop, u64)> + '_ {
        Drop::ALL.iter().map(|reason| (*reason, self.get(*reason)))
    }
}
