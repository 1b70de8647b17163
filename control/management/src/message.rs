//! Requests, responses, and the facts about nodes and media.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{
    BearerInfo, KeyText, KeysInfo, LinkFilter, LinkInfo, LinkSummary, MonitorsInfo, NodeIdentity,
    Publication, RekeyingTime, SocketInfo, Status,
};

/// What a tool asks the daemon. In JSON an object whose `request` names it, such as
/// `{"request":"link-statistics","filter":{"name":"eth0"}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// The known peers, without the own node. Answer: [`Reply::Nodes`].
    NodeList,
    /// The own node. Answer: [`Reply::Node`].
    NodeGet,
    /// Names and states: `broadcast-link` first, then the unicast links, also those that are down. Answer:
    /// [`Reply::Links`].
    LinkList,
    /// All facts about the links that `filter` selects, in the order of `LinkList`. Answer: [`Reply::LinkStatistics`].
    LinkStatistics {
        /// Which links.
        filter: LinkFilter,
    },
    /// All facts about one link, by its exact name; `EINVAL` when there is none. Answer: [`Reply::Link`].
    LinkGet {
        /// The link name as `LinkList` gives it, `broadcast-link` or `broadcast-link:<peer>`.
        name: String,
    },
    /// The bearers in slot order. Answer: [`Reply::Bearers`].
    BearerList,
    /// The media this daemon has, in the order eth, ib, udp. Answer: [`Reply::Media`].
    MediaList,
    /// The binding table. Answer: [`Reply::NameTable`].
    NameTable,
    /// All sockets, the topology server's own included. Answer: [`Reply::Sockets`].
    SocketList {
        /// Also [`SocketInfo::details`], and subscribers without a connection among the sockets.
        #[serde(default)]
        details: bool,
    },
    /// How the daemon runs. Answer: [`Reply::Status`].
    Status,
    /// Enable a bearer. Answer: [`Reply::Done`].
    BearerEnable {
        /// As `bearer` has it in the configuration of the daemon, such as `eth:eth0,priority=5`.
        bearer: String,
    },
    /// Disable a bearer. Answer: [`Reply::Done`].
    BearerDisable {
        /// Its name, such as `eth:eth0`.
        name: String,
    },
    /// Add a peer to a UDP bearer that sends copies. Answer: [`Reply::Done`].
    BearerAdd {
        /// Its name, such as `udp:UDP1`.
        name: String,
        /// The peer.
        remote: SocketAddr,
    },
    /// Remove such a peer; its link goes, those to others stay. Answer: [`Reply::Done`].
    BearerRemove {
        /// The bearer's name.
        name: String,
        /// The peer.
        remote: SocketAddr,
    },
    /// Change what the links of a bearer start with; a tolerance counts for those it has, too. Answer: [`Reply::Done`].
    BearerSet {
        /// Its name.
        name: String,
        /// What to change.
        property: Property,
        /// To what.
        value: u32,
    },
    /// Change a link. Answer: [`Reply::Done`].
    LinkSet {
        /// Its name as `LinkList` gives it.
        name: String,
        /// What to change.
        property: Property,
        /// To what.
        value: u32,
    },
    /// Set a key, or when the session key is replaced. For the daemon's user and root only. Answer: [`Reply::Done`].
    KeySet {
        /// The key, unless only the time is set.
        #[serde(default)]
        key: Option<KeyText>,
        /// `gcm(aes)`.
        algorithm: String,
        /// The node that encrypts with it, if it is not the cluster's.
        #[serde(default)]
        node: Option<NodeIdentity>,
        /// It is the master key.
        #[serde(default)]
        master: bool,
        /// When the session key is replaced.
        #[serde(default)]
        rekeying: Option<RekeyingTime>,
    },
    /// Forget all keys. For the daemon's user and root only. Answer: [`Reply::Done`].
    KeyFlush,
    /// Which keys there are. Answer: [`Reply::Keys`].
    KeyGet,
    /// Who watches whom. Answer: [`Reply::Monitors`].
    MonitorGet,
    /// Change the threshold of the monitors. Answer: [`Reply::Done`].
    MonitorSet {
        /// 0 to 4095 nodes.
        threshold: u32,
    },
    /// Change what bearers of a media start with that are enabled later. Answer: [`Reply::Done`].
    MediaSet {
        /// Its name.
        name: String,
        /// What to change.
        property: Property,
        /// To what.
        value: u32,
    },
}

/// What can be asked for and changed of a link, a bearer or a media.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Property {
    /// Of two links to a peer the one with more of it is used, those with the same share the load.
    Priority,
    /// Silence in milliseconds after which the peer counts as lost.
    Tolerance,
    /// Packets in flight at most.
    Window,
    /// Largest packet.
    Mtu,
}

impl Property {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Priority => "priority",
            Self::Tolerance => "tolerance",
            Self::Window => "window",
            Self::Mtu => "mtu",
        }
    }
}

/// What the daemon answers: `{"ok":{…}}` or `{"error":{…}}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// The request was carried out.
    Ok(Reply),
    /// It was not.
    Error(Failure),
}

impl Response {
    /// An error response.
    pub fn error(errno: i32, text: impl Into<String>) -> Self {
        Self::Error(Failure {
            errno,
            text: text.into(),
        })
    }
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text} (errno {errno})")]
pub struct Failure {
    /// The positive error number Linux TIPC answers in the same case.
    pub errno: i32,
    /// What was wrong and what is accepted, without a full stop; may be empty.
    pub text: String,
}

/// The facts asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// To [`Request::NodeList`].
    Nodes(Vec<NodeInfo>),
    /// To [`Request::NodeGet`].
    Node(OwnNode),
    /// To [`Request::LinkList`].
    Links(Vec<LinkSummary>),
    /// To [`Request::LinkStatistics`].
    LinkStatistics(Vec<LinkInfo>),
    /// To [`Request::LinkGet`].
    Link(LinkInfo),
    /// To [`Request::BearerList`].
    Bearers(Vec<BearerInfo>),
    /// To [`Request::MediaList`].
    Media(Vec<MediaInfo>),
    /// To [`Request::NameTable`].
    NameTable(Vec<Publication>),
    /// To [`Request::SocketList`].
    Sockets(Vec<SocketInfo>),
    /// To [`Request::MonitorGet`].
    Monitors(MonitorsInfo),
    /// To [`Request::KeyGet`].
    Keys(KeysInfo),
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To what changes something.
    Done,
}

/// A peer node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its identity.
    pub identity: NodeIdentity,
    /// Its node address.
    pub address: u32,
    /// Whether there is contact.
    pub up: bool,
}

/// The own node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnNode {
    /// All zero before one is configured or derived.
    pub identity: NodeIdentity,
    /// The node address, or the candidate during the trial period; 0 before an identity exists.
    pub address: u32,
    /// Whether the address trial is over.
    #[serde(default)]
    pub address_is_final: bool,
    /// The cluster id, also called net id.
    pub cluster_id: u32,
}

/// A media and the values it gives to bearers enabled later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaInfo {
    /// `eth`, `ib` or `udp`.
    pub name: String,
    /// Link priority, 0 to 31.
    pub priority: u32,
    /// Link tolerance.
    pub tolerance_ms: u32,
    /// Largest send window.
    pub window: u32,
    /// Only for media that have one of their own (udp).
    pub mtu: Option<u32>,
}
