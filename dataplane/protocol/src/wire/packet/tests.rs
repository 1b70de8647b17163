//! Packets by hand, above all those that no capture has.

use super::super::tests::hex;
use super::*;
use crate::addr::{NodeAddr, NodeId, PortId};
use crate::wire::{
    BcastNack, Body, Carrier, ConnKind, EncryptedSender, Form, FragmentPlace, Importance, NameItem,
    NameItems, Route, State, TunnelKind,
};

const A: NodeAddr = NodeAddr(0x6602_0012);
const B: NodeAddr = NodeAddr(0x9fbb_00ab);
const PORT: PortId = PortId(0x8f3a_1201);
const OTHER_PORT: PortId = PortId(0x21c4_0077);

fn route(seqno: u16, ack: u16) -> Route {
    let carrier = Carrier::Link {
        seqno,
        ack,
        bcast_ack: 0,
    };
    Route {
        carrier,
        prev_node: A,
        orig_node: A,
        dest_node: B,
    }
}

/// Asserts both directions.
#[track_caller]
fn assert_wire(packet: &Packet<'_>, expected: &str) {
    let expected = hex(expected);
    let mut bytes = Vec::new();
    packet.encode(&mut bytes);
    assert_eq!(bytes, expected);
    assert_eq!(Packet::decode(&expected).as_ref(), Ok(packet));
}

/// Asserts what a packet decodes to, without writing out all of its fields.
#[track_caller]
fn assert_text(bytes: &str, expected: &str) {
    let bytes = hex(bytes);
    let packet = Packet::decode(&bytes).unwrap();
    assert_eq!(packet.to_string(), expected);
    let mut again = Vec::new();
    packet.encode(&mut again);
    assert_eq!(again, bytes);
}

#[test]
fn direct_and_named_data_match_the_worked_examples() {
    let direct = Data {
        route: route(3, 2),
        importance: Importance::Low,
        errcode: 0,
        dest_droppable: true,
        syn: false,
        orig_port: PORT,
        dest_port: OTHER_PORT,
        form: Form::Direct {
            src_droppable: false,
        },
        payload: b"hello",
    };
    assert_wire(
        &Packet::Data(direct),
        "41080025 60000000 00020003 66020012 8f3a1201 21c40077 66020012 9fbb00ab 68656c6c 6f",
    );
    let form = Form::Named {
        src_droppable: false,
        reroute_count: 0,
        scope: 2,
        service: 1000,
        instance: 5,
    };
    let importance = Importance::Medium;
    let named = Data {
        route: route(4, 2),
        importance,
        form,
        payload: b"hi",
        ..direct
    };
    assert_wire(
        &Packet::Data(named),
        "4348002a 40100000 00020004 66020012 8f3a1201 21c40077 66020012 9fbb00ab
         000003e8 00000005 6869",
    );
}

#[test]
fn link_start_matches_the_worked_examples() {
    assert_text(
        "4f40002c 00000000 00000001 66020012 00000001 2f314000 66020012 9fbb00ab
         00000000 00000000 00040000",
        "STATE 66020012>9fbb00ab session 12081 seq 1 ack 0 next 1 last_bcast 0 bc_ack_invalid",
    );
    let init = BcastProtocol::Init {
        route: route(1, 0),
        last_bcast: 0,
        bc_ack_invalid: true,
    };
    assert_wire(
        &Packet::BcastProtocol(init),
        "4b400028 00000000 00000001 66020012 00000000 00004000 66020012 9fbb00ab
         00000000 00000000",
    );
}

#[test]
fn bulk_and_withdrawal_match_the_worked_examples() {
    let node = NameItem {
        service: 0,
        lower: A.0,
        upper: A.0,
        port: 0,
        key: A.0,
    };
    let (port, key) = (PORT.0, PORT.0 + 1);
    let socket = NameItem {
        service: 1000,
        lower: 1,
        upper: 10,
        port,
        key,
    };
    let items = [node.emit(), socket.emit()];
    let bulk = NameDistributor {
        route: route(2, 0),
        withdrawal: false,
        bulk: true,
        last_bulk: true,
        non_legacy: true,
        named_seqno: 2,
        bc_ack_invalid: true,
        items: NameItems(items.as_flattened()),
    };
    assert!(bulk.items.iter().eq([node, socket]));
    assert_wire(
        &Packet::NameDistributor(bulk),
        "57400050 1c000000 00000002 66020012 00000002 00004000 66020012 9fbb00ab
         00000000 00000000 00000000 66020012 66020012 00000000 66020012
         000003e8 00000001 0000000a 8f3a1201 8f3a1202",
    );
    let carrier = Carrier::Broadcast {
        seqno: 34,
        net_id: 4711,
    };
    let withdrawal = NameDistributor {
        route: Route {
            carrier,
            dest_node: NodeAddr::NONE,
            ..bulk.route
        },
        withdrawal: true,
        bulk: false,
        last_bulk: false,
        named_seqno: 7,
        bc_ack_invalid: false,
        items: NameItems(&items[1]),
        ..bulk
    };
    assert_wire(
        &Packet::NameDistributor(withdrawal),
        "5750003c 24000000 00000022 66020012 00000007 00001267 66020012 00000000
         00000000 00000000 000003e8 00000001 0000000a 8f3a1201 8f3a1202",
    );
}

#[test]
fn connection_messages_match_the_worked_example() {
    let ack = ConnManager {
        route: route(0, 0),
        errcode: 0,
        dest_droppable: false,
        orig_port: PORT,
        dest_port: OTHER_PORT,
        kind: ConnKind::Ack {
            nagle_ack: false,
            acked: 5,
            window: 512,
        },
        payload: &[],
    };
    assert_wire(
        &Packet::ConnManager(ack),
        "51400028 40000000 00000000 66020012 8f3a1201 21c40077 66020012 9fbb00ab
         00000000 00050200",
    );
    for (kind, word1) in [
        (ConnKind::Probe, "00000000"),
        (ConnKind::ProbeReply, "20000000"),
    ] {
        let probe = ConnManager { kind, ..ack };
        let words = [
            "51400028",
            word1,
            "00000000 66020012 8f3a1201 21c40077 66020012 9fbb00ab",
        ];
        assert_wire(
            &Packet::ConnManager(probe),
            &(words.join(" ") + " 00000000 00000000"),
        );
    }
}

#[test]
fn tunnels_match_the_worked_example() {
    let kind = TunnelKind::Synch { sync_point: 200 };
    let synch = TunnelProtocol {
        route: route(1, 0),
        bearer_id: 1,
        kind,
        payload: &[],
    };
    assert_eq!(synch.inner(), None);
    assert_wire(
        &Packet::TunnelProtocol(synch),
        "55400028 00000000 00000001 66020012 00000000 00000200 66020012 9fbb00ab
         00000000 00c80000",
    );
    // A synchronisation of the old kind wraps each packet.
    let inner = hex("40c00018 00000000 00000009 66020012 00000001 00000002");
    let wrapped = TunnelProtocol {
        payload: &inner,
        ..synch
    };
    assert_eq!(wrapped.inner().unwrap().unwrap().bytes(), inner);
    // A piece of a packet is not one.
    let kind = TunnelKind::Failover {
        count: 3,
        fragment_no: 1,
        fragment_count: 2,
    };
    let piece = TunnelProtocol {
        kind,
        payload: &inner[..20],
        ..synch
    };
    assert_eq!(piece.inner(), None);
    assert_wire(
        &Packet::TunnelProtocol(piece),
        "5540003c 20000000 00000001 66020012 00010002 00000200 66020012 9fbb00ab
         00000000 00030000 40c00018 00000000 00000009 66020012 00000001",
    );
    let torn = TunnelKind::Failover {
        count: 1,
        fragment_no: 0,
        fragment_count: 0,
    };
    assert!(
        TunnelProtocol {
            kind: torn,
            ..piece
        }
        .inner()
        .unwrap()
        .is_err()
    );
}

#[test]
fn fragments_and_bundles_match_the_worked_examples() {
    let first = hex(
        "59400594 00000000 00020005 66020012 00010000 00000000 66020012 9fbb00ab
                     00000000 00000000",
    );
    let payload = vec![0x5a; 1428 - size::INT];
    let packet = MsgFragmenter {
        route: route(5, 2),
        place: FragmentPlace::First,
        fragment_no: 1,
        fragment_count: 0,
        importance: Importance::Low,
        payload: &payload,
    };
    let mut bytes = Vec::new();
    Packet::MsgFragmenter(packet).encode(&mut bytes);
    assert_eq!(bytes[..size::INT], first[..]);
    assert_eq!(Packet::decode(&bytes), Ok(Packet::MsgFragmenter(packet)));

    let inner = |size: u8, text: &str| {
        let head = format!("410800{size:02x} 60000000 00000000 66020012 00000001 00000002");
        hex(&(head + "66020012 9fbb00ab" + text))
    };
    let payload = [inner(37, "68656c6c 6f000000"), inner(33, "21")].concat();
    let bundle = MsgBundler {
        route: route(0, 0),
        importance: Importance::Low,
        count: 2,
        payload: &payload,
    };
    assert!(
        bundle
            .messages()
            .map(|m| m.payload())
            .eq([&b"hello"[..], b"!"])
    );
    let mut bytes = Vec::new();
    Packet::MsgBundler(bundle).encode(&mut bytes);
    assert_eq!(
        bytes[..size::INT],
        hex("4d400071 00000000 00000000 66020012 00000000 00000000
                                        66020012 9fbb00ab 00000000 00020000")[..]
    );
    let text = "BUNDLE 66020012>9fbb00ab seq 0 ack 0 2 messages: DIRECT_MSG/37 DIRECT_MSG/33";
    assert_eq!(Packet::decode(&bytes).unwrap().to_string(), text);
}

#[test]
fn old_broadcast_nacks_are_understood() {
    let nack = BcastNack {
        net_id: 4711,
        prev_node: A,
        orig_node: A,
        dest_node: B,
        bcast_ack: 20,
        gap_after: 20,
        gap_to: 22,
        last_bcast: 5,
    };
    let packet = Packet::BcastProtocol(BcastProtocol::Nack(nack));
    assert_eq!(packet.name(), "BCAST_NACK");
    assert_wire(
        &packet,
        "4b500028 00000014 00140016 66020012 00050000 00001267 66020012 9fbb00ab
         00000000 00000000",
    );
}

#[test]
fn a_monitor_record_follows_the_gap_ack_record() {
    let state = "4f480048 00000000 00000002 66020012 00000001 2f311001 66020012 9fbb00ab
                 00000000 00000000 00040000
                 001c0005 00090003 00000000 00000005 00000002 00000003 00000004";
    let bytes = hex(state);
    let Packet::LinkProtocol {
        message,
        domain: Some(domain),
    } = Packet::decode(&bytes).unwrap()
    else {
        panic!("a STATE with a monitor record");
    };
    assert!(matches!(
        message.body,
        Body::State(State { gaps: Some(_), .. })
    ));
    assert_eq!((domain.generation, domain.ack_generation), (5, 9));
    let members: Vec<_> = domain.members().map(|(addr, up)| (addr.0, up)).collect();
    assert_eq!(members, [(2, true), (3, false), (4, true)]);
    assert_text(
        state,
        "STATE probe 66020012>9fbb00ab session 12081 seq 2 ack 0 next 1 last_bcast 0 \
         redundant_link domain 5 ack 9 members 3",
    );
}

#[test]
fn key_distribution_is_decoded_without_showing_the_key() {
    let message = "5d400060 00000000 00000007 66020012 00010001 00000000 66020012 9fbb00ab
                   00000000 00000000 67636d28 61657329
                   00000000 00000000 00000000 00000000 00000000 00000000 00000014
                   00010203 04050607 08090a0b 0c0d0e0f a0a1a2a3";
    assert_text(
        message,
        "KEY_DISTR 66020012>9fbb00ab seq 7 ack 0 generation 1 mode 1 key 20 B",
    );
    let bytes = hex(message);
    let Packet::MsgCrypto(key) = Packet::decode(&bytes).unwrap() else {
        panic!("a key");
    };
    assert_eq!(&key.algorithm[..9], b"gcm(aes)\0");
    assert_eq!(key.key[..4], [0, 1, 2, 3]);
}

#[test]
fn encryption_headers_of_both_forms_are_decoded() {
    let ciphertext = [0x5a; 48];
    let packet = Encrypted {
        user: User::Low,
        destined: true,
        tx_key: 1,
        rx_key_active: 2,
        keepalive: false,
        master_key: false,
        rx_nokey: false,
        seqno: 1,
        sender: EncryptedSender::Address(NodeAddr(0x0100_1001)),
        ciphertext: &ciphertext,
    };
    let text = "5a".repeat(48);
    assert_wire(
        &Packet::Encrypted(packet),
        &("e1600000 00000000 00000001 01001001".to_owned() + &text),
    );
    let discovery = Encrypted {
        user: User::LinkConfig,
        destined: false,
        rx_key_active: 0,
        master_key: true,
        seqno: 3,
        sender: EncryptedSender::Identity(NodeId::from_mac([0x52, 0x54, 0, 0x12, 0x34, 0x56])),
        ..packet
    };
    assert_wire(
        &Packet::Encrypted(discovery),
        &("fa440000 00000000 00000003 52540012 34560000 00000000 00000000".to_owned() + &text),
    );
}

#[test]
fn bits_without_a_field_are_refused_by_word() {
    let init = hex(
        "4b400028 00000000 00000001 66020012 00000000 00004000 66020012 9fbb00ab
                    00000000 00000000",
    );
    for (word, bit) in [(1, 28), (1, 16), (4, 0), (5, 15), (8, 0), (9, 31)] {
        let mut bytes = init.clone();
        let value = super::super::field::word(&bytes, word) ^ 1 << bit;
        super::super::field::set_word(&mut bytes, word, value);
        let reserved = WireError::Reserved {
            word,
            bits: 1 << bit,
        };
        assert_eq!(
            Packet::decode(&bytes),
            Err(reserved),
            "word {word} bit {bit}"
        );
        // The receive path does not look at them.
        assert!(Msg::check(&bytes).is_ok());
    }
    // A message without payload that has one, and a header longer than its type's.
    let mut bytes = init.clone();
    bytes[3] += 4;
    bytes.extend_from_slice(&[0; 4]);
    assert_eq!(
        Packet::decode(&bytes),
        Err(WireError::Malformed("BCAST_INIT"))
    );
    bytes[1] = 0x60;
    assert_eq!(
        Packet::decode(&bytes),
        Err(WireError::Malformed("header length"))
    );
}

#[test]
fn users_and_types_that_are_never_on_the_wire_are_refused() {
    let valid_types = [8, 8, 8, 8, 0, 1, 1, 3, 3, 6, 2, 2, 3, 4, 1, 0];
    for (user, types) in (0..).zip(valid_types) {
        for kind in 0..8 {
            let user = User::from_bits(user);
            let header = if user == User::LinkConfig {
                size::MAX
            } else {
                size::MCAST.min(40)
            };
            let long = user.is_data() && !matches!(kind, 0 | 2 | 3);
            let mut header = Header::new(user, kind, if long { size::MCAST } else { header });
            let payload = match user {
                User::LinkProtocol => vec![0; 16],
                _ => vec![],
            };
            header.set_payload_len(payload.len());
            let bytes = [header.as_bytes(), &payload].concat();
            let is_type_error = matches!(
                Packet::decode(&bytes),
                Err(WireError::Malformed(what)) if what.contains("type") || what.contains("user")
            );
            let is_valid = kind < types && !(user.is_data() && kind == 4);
            assert_eq!(
                is_type_error,
                !is_valid,
                "{user:?} {kind}: {:?}",
                Packet::decode(&bytes)
            );
        }
    }
}
