//! The codec under arbitrary values and arbitrary bytes.
//!
//! Each message kind: what is encoded decodes to the same value. Any bytes, and captured packets
//! with errors in them: nothing panics, and what decodes encodes to the bytes it came from.

mod pcap;
mod strategies;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use std::sync::LazyLock;
use strategies as any_of;
use xtipc_protocol::wire::{
    Bundle, DomainRecord, Encrypted, GapAckRecord, LinkConfig, LinkProtocol, Msg, MsgCrypto,
    Packet, WireError, field, size,
};

fn assert_round_trip(packet: &Packet<'_>) -> Result<(), TestCaseError> {
    let mut bytes = Vec::new();
    packet.encode(&mut bytes);
    let decoded = Packet::decode(&bytes);
    prop_assert_eq!(decoded.as_ref(), Ok(packet));
    if !matches!(packet, Packet::Encrypted(_)) {
        let size = bytes.len();
        bytes.extend_from_slice(&[0xee; 7]);
        let msg = Msg::check(&bytes).expect("what decodes is a message");
        prop_assert_eq!(msg.size(), size);
        prop_assert_eq!(
            msg.name(),
            if packet.name() == "BCAST_NACK" {
                "BCAST_INIT"
            } else {
                packet.name()
            }
        );
    }
    Ok(())
}

/// Everything there is to do with bytes from the wire.
fn assert_harmless(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(msg) = Msg::check(bytes) {
        prop_assert!(msg.size() <= bytes.len() && msg.header_size() <= msg.size());
        let _ = (
            msg.name(),
            msg.importance(),
            msg.orig_node(),
            msg.prev_node(),
            msg.data_type(),
        );
        if msg.header_size() > size::SHORT {
            let _ = msg.get(field::DEST_NODE);
        }
        if msg.header_size() >= size::INT {
            prop_assert!(Bundle::new(msg).count() <= bytes.len() / 24);
            for with_gaps in [false, true] {
                if let Ok(parsed) = LinkProtocol::parse(msg, with_gaps) {
                    let mut out = [0; 1024];
                    parsed.emit(&mut out);
                }
                let _ = LinkProtocol::domain(msg, with_gaps);
            }
            let _ = MsgCrypto::parse(msg);
        }
        if msg.header_size() == size::MAX {
            let _ = LinkConfig::parse(msg);
        }
    }
    let _ = (GapAckRecord::parse(bytes), DomainRecord::parse(bytes));
    if let Ok(packet) = Packet::decode(bytes) {
        let mut again = Vec::new();
        packet.encode(&mut again);
        prop_assert_eq!(&again[..], &bytes[..again.len()]);
        prop_assert!(!packet.to_string().contains('\n'));
    }
    Ok(())
}

/// Packets of all captures, one of each size for each first two words' worth of meaning.
static CAPTURED: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut packets: Vec<Vec<u8>> =
        pcap::files(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/captures"))
            .iter()
            .flat_map(|path| pcap::read(path).packets)
            .collect();
    packets.sort_by_key(|packet| (packet[0], packet[4] >> 5, packet.len()));
    packets.dedup_by_key(|packet| (packet[0], packet[4] >> 5, packet.len()));
    packets
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn data_decodes_to_what_was_encoded(message in any_of::data(), payload in vec(any::<u8>(), 0..200)) {
        let mut message = message;
        message.payload = &payload;
        assert_round_trip(&Packet::Data(message))?;
    }

    #[test]
    fn messages_without_payload_decode_to_what_was_encoded(
        broadcast in any_of::bcast_protocol(),
        group in any_of::group_protocol(),
        discovery in any_of::link_config(),
    ) {
        assert_round_trip(&Packet::BcastProtocol(broadcast))?;
        assert_round_trip(&Packet::GroupProtocol(group))?;
        assert_round_trip(&Packet::LinkConfig(discovery))?;
    }

    #[test]
    fn link_protocol_decodes_to_what_was_encoded(
        message in any_of::link_protocol(),
        domain in proptest::option::of((any::<u16>(), any::<u16>(), any::<u64>())),
        members in vec(any::<[u8; 4]>(), 0..=64),
    ) {
        let domain = domain.filter(|_| any_of::has_gaps(&message)).map(|(generation, ack, up_map)| {
            DomainRecord { generation, ack_generation: ack, up_map, members: &members }
        });
        assert_round_trip(&Packet::LinkProtocol { message, domain })?;
    }

    #[test]
    fn messages_with_payload_decode_to_what_was_encoded(
        conn in any_of::conn_manager(),
        tunnel in any_of::tunnel(),
        names in any_of::name_distributor(),
        fragment in any_of::fragment(),
        bundle in any_of::bundler(),
        payload in vec(any::<u8>(), 0..200),
    ) {
        let (mut conn, mut tunnel, mut names) = (conn, tunnel, names);
        let (mut fragment, mut bundle) = (fragment, bundle);
        conn.payload = &payload;
        tunnel.payload = &payload;
        names.items.0 = &payload;
        fragment.payload = &payload;
        bundle.payload = &payload;
        for packet in [
            Packet::ConnManager(conn),
            Packet::TunnelProtocol(tunnel),
            Packet::NameDistributor(names),
            Packet::MsgFragmenter(fragment),
            Packet::MsgBundler(bundle),
        ] {
            assert_round_trip(&packet)?;
        }
    }

    #[test]
    fn keys_and_encryption_headers_decode_to_what_was_encoded(
        route in any_of::route(),
        (generation, mode) in (any::<u16>(), 0..16u8),
        algorithm in any::<[u8; 32]>(),
        key in vec(any::<u8>(), 0..40),
        header in any_of::encryption_header(),
        ciphertext in vec(any::<u8>(), 0..60),
    ) {
        let mut bytes = Vec::new();
        let message = MsgCrypto { route, generation, mode, algorithm: &algorithm, key: &key };
        match key.len() {
            20 | 28 | 36 => assert_round_trip(&Packet::MsgCrypto(message))?,
            0..=36 => {
                Packet::MsgCrypto(message).encode(&mut bytes);
                prop_assert_eq!(Packet::decode(&bytes), Err(WireError::Malformed("key length")));
            }
            _ => {}
        }
        let packet = Encrypted { ciphertext: &ciphertext, ..header };
        if ciphertext.len() > 16 {
            assert_round_trip(&Packet::Encrypted(packet))?;
        } else {
            bytes.clear();
            packet.encode(&mut bytes);
            let is_refused = matches!(Packet::decode(&bytes), Err(WireError::Truncated { .. }));
            prop_assert!(is_refused);
        }
    }

    #[test]
    fn arbitrary_bytes_are_harmless(bytes in vec(any::<u8>(), 0..300)) {
        assert_harmless(&bytes)?;
    }

    #[test]
    fn arbitrary_messages_are_harmless(
        user in 0..16u32,
        header_words in 6..=15u32,
        words in vec(any::<u32>(), 15..80),
        tight in any::<bool>(),
        cut in any::<Index>(),
    ) {
        let mut words = words;
        // Half of the messages end in or right behind their header.
        let size = if tight { 4 * header_words + words[1] % 4 } else { 4 * words.len() as u32 };
        words[0] = 2 << 29 | user << 25 | header_words << 21 | words[0] & 0x1e_0000 | size;
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        assert_harmless(&bytes)?;
        assert_harmless(&bytes[..(size as usize).min(bytes.len())])?;
        assert_harmless(&bytes[..cut.index(bytes.len())])?;
    }

    #[test]
    fn captured_packets_with_errors_in_them_are_harmless(
        packet in any::<Index>(),
        errors in vec((any::<Index>(), any::<u8>()), 1..6),
        end in proptest::option::of(any::<Index>()),
        in_header in any::<bool>(),
    ) {
        let mut bytes = CAPTURED[packet.index(CAPTURED.len())].clone();
        let range = if in_header { bytes.len().min(60) } else { bytes.len() };
        for (at, error) in errors {
            bytes[at.index(range)] ^= error;
        }
        if let Some(end) = end {
            bytes.truncate(end.index(bytes.len()));
        }
        assert_harmless(&bytes)?;
    }
}
