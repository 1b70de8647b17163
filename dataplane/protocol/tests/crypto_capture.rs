//! Captures of encrypted Linux clusters: every frame opens with the keys that were set or distributed, and its
//! content seals to the same frame again.

mod pcap;

use xtipc_protocol::addr::NodeAddr;
use xtipc_protocol::crypto::{Key, KeyMaterial, KeyMode};
use xtipc_protocol::wire::{Encrypted, GCM_AES, Msg, MsgCrypto, Packet, TAG_SIZE, User};

/// Keys in the order in which they came up.
struct Ring {
    keys: Vec<Key>,
    /// Addresses seen: a frame for one node has its address in the nonce and not in the header.
    nodes: Vec<NodeAddr>,
    distributed: usize,
}

impl Ring {
    fn new(text: &[u8]) -> Self {
        Self {
            keys: vec![Key::new(KeyMaterial::new(text).unwrap(), KeyMode::Cluster)],
            nodes: vec![NodeAddr::NONE],
            distributed: 0,
        }
    }

    /// Opens a frame, seals it again, and takes what it tells.
    fn check(&mut self, frame: &[u8]) -> bool {
        let packet = Encrypted::parse(frame).expect("an encryption header");
        let header = &frame[..packet.header_len()];
        let sender = NodeAddr(u32::from_be_bytes(header[12..16].try_into().unwrap()));
        for key in self.keys.iter().rev() {
            let nodes = match key.mode {
                KeyMode::Cluster => std::slice::from_ref(&sender),
                KeyMode::PerNode => &self.nodes[..],
            };
            for node in nodes {
                let mut plain = Vec::new();
                if !key.open(header, *node, packet.seqno, packet.ciphertext, &mut plain) {
                    continue;
                }
                let mut again = vec![0; plain.len() + TAG_SIZE];
                key.seal(header, *node, packet.seqno, &plain, &mut again);
                assert_eq!(again, packet.ciphertext);
                self.learn(&packet, &plain);
                return true;
            }
        }
        false
    }

    fn learn(&mut self, packet: &Encrypted<'_>, plain: &[u8]) {
        let msg = Msg::check(plain).expect("a message");
        assert!(plain.len() - msg.size() < 4, "padded to whole words");
        let node = NodeAddr(msg.prev_node());
        if !self.nodes.contains(&node) {
            self.nodes.push(node);
        }
        match Packet::decode(plain).expect("a packet of Linux") {
            Packet::MsgCrypto(MsgCrypto {
                mode,
                algorithm,
                key,
                ..
            }) => {
                assert_eq!(algorithm, GCM_AES);
                let material = KeyMaterial::new(key).unwrap();
                let mode = KeyMode::from_bits(mode).unwrap();
                self.keys.push(Key::new(material, mode));
                self.distributed += 1;
            }
            inner => assert_eq!(
                packet.user == User::LinkConfig,
                inner.user() == User::LinkConfig
            ),
        }
    }
}

fn frames(name: &str) -> Vec<Vec<u8>> {
    let mut files = pcap::files(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/captures"));
    files.retain(|path| path.ends_with(name));
    pcap::read(&files[0]).packets
}

#[test]
fn frames_of_a_cluster_key_open_and_seal_to_the_same_bytes() {
    let mut ring = Ring::new(b"this_is_key16\x00\x01\x02\xaa\xbb\xcc\xdd");
    let frames = frames("crypto-three-nodes.pcap");
    let opened = frames.iter().filter(|frame| ring.check(frame)).count();
    assert!(frames.len() > 500);
    assert_eq!(opened, frames.len());
    assert_eq!(ring.nodes.len() - 1, 3, "three nodes spoke");
}

#[test]
fn frames_of_a_master_key_and_of_distributed_keys_open_and_seal_to_the_same_bytes() {
    let mut ring = Ring::new(b"this_is_a_master_key");
    let mut sealed: Vec<_> = frames("crypto-udp-two-nodes-rekeying.pcap");
    sealed.retain(|frame| Encrypted::is_at(frame));
    let opened = sealed.iter().filter(|frame| ring.check(frame)).count();
    assert!(sealed.len() > 500);
    assert_eq!(opened, sealed.len());
    assert!(ring.distributed >= 3, "{}", ring.distributed);
}
