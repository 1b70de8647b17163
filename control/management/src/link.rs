//! Links and their counters.
//!
//! Reference: `docs/protocol/management.md`, `docs/protocol/link.md`

use serde::{Deserialize, Serialize};

/// A line of the link list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkSummary {
    /// `broadcast-link` or `<own>:<if>-<peer>:<if>`.
    pub name: String,
    /// `broadcast-link` is always up.
    pub up: bool,
}

/// Which links a statistics request is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkFilter {
    /// The broadcast send link and the unicast links.
    Usual,
    /// Those and the broadcast receive links of each peer.
    All,
    /// Those of `All` whose name contains this text.
    Name(String),
}

impl LinkFilter {
    /// What `tipc link statistics show link TEXT` means by its TEXT.
    pub fn from_text(text: &str) -> Self {
        if text == "all" {
            Self::All
        } else {
            Self::Name(text.to_owned())
        }
    }

    /// Whether the link of this name is meant.
    pub fn selects(&self, name: &str) -> bool {
        match self {
            Self::Usual => !name.starts_with("broadcast-link:"),
            Self::All => true,
            Self::Name(part) => name.contains(part.as_str()),
        }
    }
}

/// All facts about a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkInfo {
    /// `broadcast-link`, `broadcast-link:<peer>` or `<own>:<if>-<peer>:<if>`.
    pub name: String,
    /// The current send window of a unicast link, the largest one of a broadcast link.
    pub window: u32,
    /// What only unicast links have.
    pub kind: LinkKind,
    /// Counted since the link was reset.
    pub statistics: LinkStatistics,
}

/// The kinds of link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkKind {
    /// A link to one peer over one bearer.
    Unicast {
        /// Whether and how it is used.
        state: LinkState,
        /// The largest packet.
        mtu: u32,
        /// 0 to 31; links of a peer with the same priority share the load.
        priority: u32,
        /// Silence after which the peer counts as lost.
        tolerance_ms: u32,
        /// The largest window it may come to.
        #[serde(default)]
        window_max: u32,
    },
    /// `broadcast-link`, whose receive counters stand in the per-peer links.
    BroadcastSend,
    /// `broadcast-link:<peer>`.
    BroadcastReceive,
}

/// Use of a unicast link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkState {
    /// Carries traffic.
    Active,
    /// Up, with a lower priority than another.
    Standby,
    /// Down.
    Defunct,
}

/// The counters of a link; those that a kind of link does not have are 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkStatistics {
    /// Packets accepted in sequence.
    pub rx_packets: u32,
    /// Fragments received in sequence.
    pub rx_fragments: u32,
    /// Messages completed from fragments.
    pub rx_fragmented: u32,
    /// Bundles received.
    pub rx_bundles: u32,
    /// Messages that were in them.
    pub rx_bundled: u32,
    /// Packets first transmitted, without LINK_PROTOCOL and retransmissions.
    pub tx_packets: u32,
    /// Fragments sent.
    pub tx_fragments: u32,
    /// Messages sent in fragments.
    pub tx_fragmented: u32,
    /// Bundles created.
    pub tx_bundles: u32,
    /// Messages put into them.
    pub tx_bundled: u32,
    /// Sizes of sampled sent messages; unicast only.
    pub tx_profile: SizeProfile,
    /// Valid STATE messages received; unicast only.
    pub rx_states: u32,
    /// Of these, with the probe flag; unicast only.
    pub rx_probes: u32,
    /// Negative acknowledgements received.
    pub rx_naks: u32,
    /// Packets that arrived out of order.
    pub rx_deferred: u32,
    /// Packets that had been received already.
    pub rx_duplicates: u32,
    /// STATE messages sent; unicast only.
    pub tx_states: u32,
    /// Of these, with the probe flag; unicast only.
    pub tx_probes: u32,
    /// Negative acknowledgements sent.
    pub tx_naks: u32,
    /// Explicit acknowledgements sent.
    pub tx_acks: u32,
    /// Packets retransmitted.
    pub retransmitted: u32,
    /// Times a sender met a full link.
    pub link_congestions: u32,
    /// High-water mark of the transmit queue.
    pub send_queue_max: u32,
    /// Its mean length.
    pub send_queue_average: u32,
}

/// A histogram of message sizes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SizeProfile {
    /// How many messages were sampled.
    pub samples: u32,
    /// Octets in all of them.
    pub octets: u64,
    /// Samples of at most 64, 256, 1024, 4096, 16384, 32768 octets, and larger ones.
    pub counts: [u32; 7],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_substring_and_only_then_shows_broadcast_receive_links() {
        let usual = LinkFilter::Usual;
        assert!(usual.selects("broadcast-link") && usual.selects("a:eth0-b:eth0"));
        assert!(!usual.selects("broadcast-link:node-2"));
        assert!(LinkFilter::from_text("all").selects("broadcast-link:node-2"));
        let part = LinkFilter::from_text("node-2");
        assert!(part.selects("broadcast-link:node-2") && part.selects("a:eth0-node-2:eth0"));
        assert!(!part.selects("broadcast-link"));
    }
}
