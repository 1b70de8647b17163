//! Numbers of the family `TIPCv2` and of the one that tells of families, as in `linux/tipc_netlink.h` and `linux/genetlink.h`.

pub(crate) const NAME: &str = "TIPCv2";
pub(crate) const VERSION: u32 = 1;
/// The type of its messages. Linux gives families numbers from 16 to 1023: this is none that the machine's kernel may use.
pub(crate) const TYPE: u16 = 0x7470;
/// The highest attribute.
pub(crate) const ATTRIBUTE_MAX: u32 = 10;

/// Messages of netlink itself.
pub(crate) const ERROR: u16 = 2;
pub(crate) const DONE: u16 = 3;
/// What follows an error, if it is asked for.
pub(crate) const ERROR_TEXT: u16 = 1;

/// The family that tells of families.
pub(crate) mod control {
    pub(crate) const TYPE: u16 = 16;
    pub(crate) const NEW_FAMILY: u8 = 1;
    pub(crate) const GET_FAMILY: u8 = 3;
    pub(crate) const FAMILY_ID: u16 = 1;
    pub(crate) const FAMILY_NAME: u16 = 2;
    pub(crate) const VERSION: u16 = 3;
    pub(crate) const HEADER_SIZE: u16 = 4;
    pub(crate) const ATTRIBUTE_MAX: u16 = 5;
    pub(crate) const OPERATIONS: u16 = 6;
    pub(crate) const OPERATION_ID: u16 = 1;
    pub(crate) const OPERATION_FLAGS: u16 = 2;
    /// A command can be done, can be dumped, has a policy.
    pub(crate) const CAN_DO: u32 = 2;
    pub(crate) const CAN_DUMP: u32 = 4;
}

/// What the commands do, as far as they are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Command {
    BearerDisable = 2,
    BearerEnable,
    BearerGet,
    BearerSet,
    SocketGet,
    PublicationGet,
    LinkGet,
    LinkSet,
    LinkResetStatistics,
    MediaGet,
    MediaSet,
    NodeGet,
    NetGet,
    NetSet,
    NameTableGet,
    MonitorSet,
    MonitorGet,
    MonitorPeerGet,
    PeerRemove,
    BearerAdd,
    UdpGetRemote,
    KeySet,
    KeyFlush,
    LegacyAddressGet,
}

impl Command {
    pub(crate) const ALL: [Self; 24] = [
        Self::BearerDisable,
        Self::BearerEnable,
        Self::BearerGet,
        Self::BearerSet,
        Self::SocketGet,
        Self::PublicationGet,
        Self::LinkGet,
        Self::LinkSet,
        Self::LinkResetStatistics,
        Self::MediaGet,
        Self::MediaSet,
        Self::NodeGet,
        Self::NetGet,
        Self::NetSet,
        Self::NameTableGet,
        Self::MonitorSet,
        Self::MonitorGet,
        Self::MonitorPeerGet,
        Self::PeerRemove,
        Self::BearerAdd,
        Self::UdpGetRemote,
        Self::KeySet,
        Self::KeyFlush,
        Self::LegacyAddressGet,
    ];

    pub(crate) fn of(number: u8) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|command| *command as u8 == number)
    }

    /// It gives a list, of whatever there is.
    pub(crate) fn dumps(self) -> bool {
        matches!(
            self,
            Self::BearerGet
                | Self::SocketGet
                | Self::PublicationGet
                | Self::LinkGet
                | Self::MediaGet
                | Self::NodeGet
                | Self::NetGet
                | Self::NameTableGet
                | Self::MonitorGet
                | Self::MonitorPeerGet
                | Self::UdpGetRemote
        )
    }

    /// It is about one thing.
    pub(crate) fn does(self) -> bool {
        let also = matches!(
            self,
            Self::BearerGet | Self::LinkGet | Self::MediaGet | Self::MonitorGet
        );
        !self.dumps() || also
    }
}

/// Attributes of a message: one, that holds others.
pub(crate) mod top {
    pub(crate) const BEARER: u16 = 1;
    pub(crate) const SOCKET: u16 = 2;
    pub(crate) const PUBLICATION: u16 = 3;
    pub(crate) const LINK: u16 = 4;
    pub(crate) const MEDIA: u16 = 5;
    pub(crate) const NODE: u16 = 6;
    pub(crate) const NET: u16 = 7;
    pub(crate) const NAME_TABLE: u16 = 8;
    pub(crate) const MONITOR: u16 = 9;
    pub(crate) const MONITOR_PEER: u16 = 10;
}

pub(crate) mod bearer {
    pub(crate) const NAME: u16 = 1;
    pub(crate) const PROPERTIES: u16 = 2;
    pub(crate) const UDP: u16 = 4;
}

pub(crate) mod udp {
    pub(crate) const LOCAL: u16 = 1;
    pub(crate) const REMOTE: u16 = 2;
    pub(crate) const SEVERAL_REMOTES: u16 = 3;
}

pub(crate) mod socket {
    pub(crate) const NODE: u16 = 1;
    pub(crate) const PORT: u16 = 2;
    pub(crate) const CONNECTION: u16 = 3;
    pub(crate) const IS_BOUND: u16 = 4;
    pub(crate) const CONNECTION_HAS_SERVICE: u16 = 1;
    pub(crate) const CONNECTION_NODE: u16 = 2;
    pub(crate) const CONNECTION_PORT: u16 = 3;
    pub(crate) const CONNECTION_TYPE: u16 = 4;
    pub(crate) const CONNECTION_INSTANCE: u16 = 5;
}

pub(crate) mod publication {
    /// In an entry of the name table.
    pub(crate) const ENTRY: u16 = 1;
    pub(crate) const TYPE: u16 = 1;
    pub(crate) const LOWER: u16 = 2;
    pub(crate) const UPPER: u16 = 3;
    pub(crate) const SCOPE: u16 = 4;
    pub(crate) const NODE: u16 = 5;
    pub(crate) const PORT: u16 = 6;
    pub(crate) const KEY: u16 = 7;
}

pub(crate) mod link {
    pub(crate) const NAME: u16 = 1;
    pub(crate) const MTU: u16 = 3;
    pub(crate) const BROADCAST: u16 = 4;
    pub(crate) const UP: u16 = 5;
    pub(crate) const ACTIVE: u16 = 6;
    pub(crate) const PROPERTIES: u16 = 7;
    pub(crate) const STATISTICS: u16 = 8;
    pub(crate) const RECEIVED: u16 = 9;
    pub(crate) const SENT: u16 = 10;
}

pub(crate) mod media {
    pub(crate) const NAME: u16 = 1;
    pub(crate) const PROPERTIES: u16 = 2;
}

pub(crate) mod node {
    pub(crate) const ADDRESS: u16 = 1;
    pub(crate) const UP: u16 = 2;
    pub(crate) const ID: u16 = 3;
    pub(crate) const KEY: u16 = 4;
    pub(crate) const KEY_IS_MASTER: u16 = 5;
    pub(crate) const REKEYING: u16 = 6;
}

pub(crate) mod net {
    pub(crate) const CLUSTER_ID: u16 = 1;
    /// The two halves of the identity.
    pub(crate) const IDENTITY: [u16; 2] = [3, 4];
}

pub(crate) mod monitor {
    pub(crate) const THRESHOLD: u16 = 1;
    pub(crate) const BEARER: u16 = 2;
    pub(crate) const IS_RING: u16 = 3;
    pub(crate) const BEARER_NAME: u16 = 4;
    pub(crate) const PEERS: u16 = 5;
    pub(crate) const GENERATION: u16 = 6;
    pub(crate) const PEER_ADDRESS: u16 = 1;
    pub(crate) const PEER_GENERATION: u16 = 2;
    pub(crate) const PEER_APPLIED: u16 = 3;
    pub(crate) const PEER_MEMBERS_UP: u16 = 4;
    pub(crate) const PEER_MEMBERS: u16 = 5;
    pub(crate) const PEER_UP: u16 = 6;
    pub(crate) const PEER_IS_HEAD: u16 = 7;
    pub(crate) const PEER_IS_LOCAL: u16 = 8;
}

/// Of links, bearers and media.
pub(crate) mod property {
    pub(crate) const PRIORITY: u16 = 1;
    pub(crate) const TOLERANCE: u16 = 2;
    pub(crate) const WINDOW: u16 = 3;
    pub(crate) const MTU: u16 = 4;
    pub(crate) const BROADCAST: u16 = 5;
    pub(crate) const BROADCAST_RATIO: u16 = 6;
}
