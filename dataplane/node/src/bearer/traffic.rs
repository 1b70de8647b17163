//! What a bearer counts: traffic, and each drop by its reason.

use rustix::io::Errno;
use xtipc_management::{BearerInfo, Counters};

/// Why a packet was not sent. Loss is normal to the link layer; the counters tell an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TxDrop {
    /// The transmit ring or send buffer was full.
    Full,
    /// A copy was needed, and the pool had no frame for it.
    NoFrame,
    /// The kernel had no memory, or the device's own queue was full.
    NoBuffers,
    /// The interface is down or gone.
    InterfaceDown,
    /// The packet exceeds the MTU.
    TooLong,
    /// Any other refusal of the kernel.
    Refused,
    /// No station has the address, or it is gone.
    NoStation,
}

impl TxDrop {
    /// What the refusal of an AF_PACKET socket means.
    pub(super) fn of(error: Errno) -> Self {
        match error {
            Errno::AGAIN => Self::Full,
            Errno::NOBUFS | Errno::NOMEM => Self::NoBuffers,
            Errno::NETDOWN | Errno::NXIO | Errno::NODEV => Self::InterfaceDown,
            Errno::MSGSIZE => Self::TooLong,
            _ => Self::Refused,
        }
    }
}

const TX_DROPS: [(TxDrop, &str); 7] = [
    (TxDrop::Full, "tx-full"),
    (TxDrop::NoFrame, "tx-no-frame"),
    (TxDrop::NoBuffers, "tx-no-buffers"),
    (TxDrop::InterfaceDown, "tx-interface-down"),
    (TxDrop::TooLong, "tx-too-long"),
    (TxDrop::Refused, "tx-refused"),
    (TxDrop::NoStation, "tx-no-station"),
];

/// Counters of one bearer, from its opening on.
#[derive(Clone, Debug, Default)]
pub(super) struct Traffic {
    pub(super) rx_packets: u64,
    pub(super) rx_bytes: u64,
    pub(super) tx_packets: u64,
    pub(super) tx_bytes: u64,
    /// No whole Ethernet header, or another ethertype behind the tag; no whole datagram.
    pub(super) rx_malformed: u64,
    /// Of IP or UDP.
    pub(super) rx_checksum: u64,
    /// Flooded to us by a bridge.
    pub(super) rx_foreign_mac: u64,
    pub(super) rx_other_vlan: u64,
    /// From a peer that an operator has removed.
    pub(super) rx_removed_peer: u64,
    tx_drops: [u64; TX_DROPS.len()],
}

impl Traffic {
    pub(super) fn received(&mut self, len: usize) {
        self.rx_packets += 1;
        self.rx_bytes += len as u64;
    }

    pub(super) fn sent(&mut self, len: usize, result: Result<(), TxDrop>) {
        match result {
            Ok(()) => {
                self.tx_packets += 1;
                self.tx_bytes += len as u64;
            }
            Err(reason) => self.tx_drops[reason as usize] += 1,
        }
    }

    /// What the tools show of it; all else is the caller's to fill in.
    pub(super) fn info(&self) -> BearerInfo {
        BearerInfo {
            rx_packets: self.rx_packets,
            rx_bytes: self.rx_bytes,
            tx_packets: self.tx_packets,
            tx_bytes: self.tx_bytes,
            ..BearerInfo::default()
        }
    }

    /// The drops that happened, by name.
    pub(super) fn drops(&self) -> Counters {
        let rx = [
            ("rx-malformed", self.rx_malformed),
            ("rx-checksum", self.rx_checksum),
            ("rx-foreign-mac", self.rx_foreign_mac),
            ("rx-other-vlan", self.rx_other_vlan),
            ("rx-removed-peer", self.rx_removed_peer),
        ];
        let tx = TX_DROPS.map(|(reason, name)| (name, self.tx_drops[reason as usize]));
        named(rx.into_iter().chain(tx))
    }
}

/// Counters that are not zero.
pub(super) fn named<'a>(counters: impl IntoIterator<Item = (&'a str, u64)>) -> Counters {
    counters
        .into_iter()
        .filter(|&(_, count)| count > 0)
        .map(|(name, count)| (name.to_owned(), count))
        .collect()
}
