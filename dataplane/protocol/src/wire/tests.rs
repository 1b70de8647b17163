//! The worked examples of `docs/protocol/wire.md`, byte for byte.

use super::*;
use crate::addr::{MediaAddr, NodeAddr, NodeId};

const A: u32 = 0x6602_0012;
const B: u32 = 0x9fbb_00ab;
const MAC_A: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

pub(super) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn discovery_request_matches_the_worked_example() {
    let request = LinkConfig {
        kind: DiscoveryKind::Request,
        capabilities: Capabilities::OWN,
        signature: 0x3b4a,
        dest_domain: 0,
        prev_node: NodeAddr(A),
        net_id: 4711,
        media_addr: MediaAddr::ethernet(MAC_A),
        net_hash: 0x1d2c_3b4a,
        suggested: NodeAddr::NONE,
        node_id: Some(NodeId::from_mac(MAC_A)),
    };
    let expected = hex(
        "5bf0004c 07ffbb4a 00000000 66020012 00001267 00000001 52540012 34560000
        00000000 00000000 00000000 00000000 00000000 1d2c3b4a 00000000
        52540012 34560000 00000000 00000000",
    );
    let mut out = [0; 76];
    assert_eq!(request.emit(&mut out), 76);
    assert_eq!(out[..], expected[..]);
    let parsed = LinkConfig::parse(Msg::check(&out).unwrap()).unwrap();
    // The signature's top bit is capability bit 0.
    assert_eq!(
        parsed,
        LinkConfig {
            signature: 0xbb4a,
            ..request
        }
    );
}

#[test]
fn identities_hash_to_the_addresses_linux_gives_them() {
    for (id, addr) in [
        (NodeId::from_mac(MAC_A), A),
        (NodeId::from_mac([0x52, 0x54, 0, 0xab, 0xcd, 0xef]), B),
        (NodeId::from_text("node1").unwrap(), 0x5f6f_6465),
    ] {
        assert_eq!(id.hash(), NodeAddr(addr));
    }
    assert_eq!(NodeId::from_mac(MAC_A).to_string(), "525400123456");
    assert_eq!(NodeId::from_text("node1").unwrap().to_string(), "node1");
    assert_eq!(NodeId::from_text("no blanks"), None);
}

fn link_protocol(body: Body) -> LinkProtocol {
    LinkProtocol {
        own: A,
        peer: B,
        session: 0x2f31,
        bearer_id: 0,
        net_plane: 0,
        tolerance_ms: 0,
        priority: 0,
        redundant_link: false,
        bc_ack_invalid: true,
        bcast_ack: 0,
        last_bcast: 0,
        next_sent: 1,
        ack: 0,
        seqno: 0x8000,
        body,
    }
}

fn assert_wire(message: &LinkProtocol, expected: &str) {
    let expected = hex(expected);
    let mut out = [0xee; 600];
    let len = message.emit(&mut out);
    assert_eq!(out[..len], expected[..]);
    let msg = Msg::check(&out).unwrap();
    assert_eq!(LinkProtocol::parse(msg, true).unwrap(), *message);
}

#[test]
fn reset_matches_the_worked_example() {
    let mut interface = [0; 16];
    interface[..4].copy_from_slice(b"eth0");
    let reset = Reset {
        peer_stopping: false,
        max_packet: 1500,
        interface,
    };
    assert_wire(
        &link_protocol(Body::Reset(reset)),
        "4f400038 20000000 00008000 66020012 00000001 2f314000 66020012 9fbb00ab
         00000000 01770000 65746830 00000000 00000000 00000000",
    );
}

#[test]
fn activate_matches_the_worked_example() {
    let mut interface = [0; 16];
    interface[..4].copy_from_slice(b"ens3");
    let reset = Reset {
        peer_stopping: false,
        max_packet: 1500,
        interface,
    };
    let message = LinkProtocol {
        own: B,
        peer: A,
        session: 0x7a05,
        bearer_id: 1,
        net_plane: 1,
        ..link_protocol(Body::Activate {
            reset,
            dest_session: Some(0x2f31),
        })
    };
    assert_wire(
        &message,
        "4f400038 40012f31 00008000 9fbb00ab 00000001 7a054202 9fbb00ab 66020012
         00000000 01770000 656e7333 00000000 00000000 00000000",
    );
}

#[test]
fn state_with_gaps_matches_the_worked_example() {
    let block = |ack, gap| GapBlock { ack, gap };
    let [mut broadcast, mut unicast] = [GapList::default(), GapList::default()];
    broadcast.extend([block(25, 0)]);
    unicast.extend([block(105, 2), block(108, 0)]);
    let gaps = GapAckRecord {
        broadcast: broadcast.blocks(),
        unicast: unicast.blocks(),
    };
    let message = LinkProtocol {
        redundant_link: true,
        bc_ack_invalid: false,
        bcast_ack: 20,
        last_bcast: 32,
        next_sent: 57,
        ack: 100,
        seqno: 42,
        ..link_protocol(Body::State(State {
            probe: true,
            keepalive: true,
            seq_gap: 3,
            bc_gap: 2,
            gaps: Some(gaps),
            max_packet: None,
        }))
    };
    assert_wire(
        &message,
        "4f480038 00030014 0064002a 66020012 00200039 2f311001 66020012 9fbb00ab
         00000002 00000000 00100201 00190000 00690002 006c0000",
    );
}

#[test]
fn gap_record_longer_than_the_message_is_malformed() {
    for bytes in [&[4, 0, 0, 255][..], &[0, 3, 0, 0], &[0, 4, 0], &[]] {
        assert!(GapAckRecord::parse(bytes).is_err(), "{bytes:?}");
    }
    // Contradicting counts: the blocks are skipped, the record's length still counts.
    let (record, len) = GapAckRecord::parse(&[0, 8, 0, 0, 1, 2, 3, 4]).unwrap();
    assert_eq!((record, len), (GapAckRecord::default(), 8));
}

#[test]
fn header_size_must_fit_user_and_type() {
    for (user, kind, least) in [
        (0, 0, 24),
        (0, 3, 32),
        (1, 2, 40),
        (2, 1, 44),
        (3, 7, 44),
        (7, 0, 40),
        (12, 0, 40),
        (13, 0, 60),
    ] {
        for header in (0..=60).step_by(4) {
            let word0: u32 = 2 << 29 | user << 25 | (header as u32 / 4) << 21 | 60;
            let mut frame = [0; 60];
            frame[..4].copy_from_slice(&word0.to_be_bytes());
            frame[4..8].copy_from_slice(&((kind as u32) << 29).to_be_bytes());
            assert_eq!(
                Msg::check(&frame).is_ok(),
                header >= least && header != 28,
                "user {user} type {kind} header {header}"
            );
        }
    }
}

#[test]
fn impossible_sizes_are_refused() {
    let frame = |size: u32| {
        let mut frame = vec![0; 70_000];
        frame[..4].copy_from_slice(&(2u32 << 29 | 6 << 21 | size).to_be_bytes());
        frame
    };
    for size in [0, 23, 24 + 66_001, 0x1_ffff] {
        assert!(
            matches!(Msg::check(&frame(size)), Err(WireError::BadMessageSize(_))),
            "{size}"
        );
    }
    for size in [24, 25, 24 + 66_000] {
        assert_eq!(Msg::check(&frame(size)).unwrap().size() as u32, size);
    }
    assert!(matches!(
        Msg::check(&frame(100)[..99]),
        Err(WireError::Truncated {
            need: 100,
            have: 99
        })
    ));
}

#[test]
fn bundle_walk_stops_at_the_first_malformed_message() {
    let mut bytes = Header::new(User::MsgBundler, 0, size::INT)
        .as_bytes()
        .to_vec();
    let mut inner = Header::new(User::Low, 3, size::BASIC);
    inner.set_payload_len(5);
    for _ in 0..2 {
        bytes.extend_from_slice(inner.as_bytes());
        bytes.extend_from_slice(b"hello\0\0\0");
    }
    bytes.extend_from_slice(&[0xff; 30]);
    let mut header = Header::of(Msg::check(&bytes).unwrap());
    header.set_payload_len(bytes.len() - size::INT);
    bytes[..size::INT].copy_from_slice(header.as_bytes());
    let sizes: Vec<usize> = Bundle::new(Msg::check(&bytes).unwrap())
        .map(Msg::size)
        .collect();
    assert_eq!(sizes, [37, 37]);
}
