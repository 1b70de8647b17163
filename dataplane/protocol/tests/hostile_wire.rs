//! Messages made to hurt a decoder, one test for each published weakness or class of input
//! (`docs/protocol/limits-and-hostile-input.md`). What a test calls refused changes no state.

use xtipc_protocol::wire::{
    Bundle, DomainRecord, GapAckRecord, Header, LinkConfig, LinkProtocol, MAX_GAP_BLOCKS, Msg,
    MsgCrypto, Packet, User, WireError, field, size,
};

/// A message of a user and type with a payload and the header it should have.
fn message(user: User, kind: u32, payload: &[u8]) -> Vec<u8> {
    let header = if user == User::LinkConfig {
        size::MAX
    } else {
        size::INT
    };
    let mut header = Header::new(user, kind, header);
    header.set_payload_len(payload.len());
    [header.as_bytes(), payload].concat()
}

fn check(bytes: &[u8]) -> Msg<'_> {
    Msg::check(bytes).expect("a sound header")
}

/// A frame that claims a user, type, header length and size, with as many bytes as it claims.
fn claim(user: u32, kind: u32, header: u32, size: u32) -> Vec<u8> {
    let mut bytes = vec![0; size.max(60) as usize];
    field::set_word(
        &mut bytes,
        0,
        2 << 29 | user << 25 | (header / 4) << 21 | size,
    );
    field::set_word(&mut bytes, 1, kind << 29);
    bytes
}

#[test]
fn a_header_too_short_for_its_type_is_refused() {
    for (user, kind, header) in [
        (0, 1, 24),
        (1, 5, 24),
        (2, 6, 40),
        (3, 7, 40),
        (0, 2, 32),
        (0, 3, 24),
        (8, 2, 24),
        (13, 0, 24),
    ] {
        let bytes = claim(user, kind, header, header);
        let refused = Msg::check(&bytes);
        assert!(
            matches!(refused, Err(WireError::BadHeaderSize { .. })),
            "{user} {kind} {header}"
        );
    }
}

#[test]
fn a_header_that_ends_between_the_node_words_is_refused() {
    for (user, kind) in [(0, 0), (4, 0), (15, 0)] {
        for total in 28..=32 {
            assert_eq!(
                Msg::check(&claim(user, kind, 28, total)),
                Err(WireError::BadHeaderSize {
                    need: size::BASIC,
                    have: 28
                })
            );
        }
    }
}

#[test]
fn discovery_that_announces_an_identity_but_has_none_is_refused() {
    let mut bytes = message(User::LinkConfig, 0, &[0; 15]);
    field::CAPABILITIES.set(&mut bytes, 0xfff);
    assert_eq!(
        LinkConfig::parse(check(&bytes)),
        Err(WireError::Truncated { need: 16, have: 15 })
    );
    field::CAPABILITIES.set(&mut bytes, 0xfdf);
    assert_eq!(
        LinkConfig::parse(check(&bytes)).map(|parsed| parsed.node_id),
        Ok(None)
    );
}

#[test]
fn sizes_below_the_header_above_the_limit_or_above_the_frame_are_refused() {
    for size in [0, 23, 39, 40 + 66_001, 0x1_ffff] {
        assert_eq!(
            Msg::check(&claim(6, 0, 40, size)),
            Err(WireError::BadMessageSize(size as usize))
        );
    }
    let whole = claim(6, 0, 40, 100);
    for have in 0..100 {
        assert!(
            matches!(Msg::check(&whole[..have]), Err(WireError::Truncated { .. })),
            "{have}"
        );
    }
}

#[test]
fn what_a_frame_carries_behind_the_message_is_cut_off() {
    let mut bytes = message(User::MsgBundler, 0, &[]);
    bytes.extend_from_slice(&[0xff; 50]);
    assert_eq!(check(&bytes).size(), size::INT);
    assert_eq!(Bundle::new(check(&bytes)).count(), 0);
}

#[test]
fn a_bundle_is_walked_no_further_than_its_payload() {
    let inner = |size: u32| Vec::from(&claim(0, 0, 24, size)[..24]);
    // Less than a header; inner sizes of nothing, too little, too much; more messages claimed.
    for (payload, messages) in [
        (vec![0x40; 23], 0),
        (inner(0), 0),
        (inner(23), 0),
        (inner(25), 0),
        ([inner(24), inner(26)].concat(), 1),
        (inner(24).repeat(60), 60),
    ] {
        let mut bytes = message(User::MsgBundler, 0, &payload);
        field::MSG_COUNT.set(&mut bytes, 0xffff);
        assert_eq!(Bundle::new(check(&bytes)).count(), messages);
    }
}

#[test]
fn a_gap_ack_record_longer_than_the_message_is_refused() {
    // CVE-2026-64450: self-consistent, 255 broadcast blocks claimed, four bytes present.
    let bytes = message(User::LinkProtocol, 0, &[0x04, 0x00, 0, 0xff]);
    let refused = Err(WireError::Malformed("gap-ack record length"));
    assert_eq!(LinkProtocol::parse(check(&bytes), true), refused);
    // Without the capability there is no record to believe.
    assert!(LinkProtocol::parse(check(&bytes), false).is_ok());
}

#[test]
fn a_state_too_short_for_a_gap_ack_record_is_refused() {
    for len in 0..4 {
        let bytes = message(User::LinkProtocol, 0, &[0, 4, 0][..len.min(3)]);
        assert!(LinkProtocol::parse(check(&bytes), true).is_err(), "{len}");
    }
}

#[test]
fn more_gap_blocks_than_allowed_are_left_unread() {
    let mut payload = vec![0x07, 0xfc, 0xff, 0xff];
    payload.resize(4 + 4 * 510, 1);
    let bytes = message(User::LinkProtocol, 0, &payload);
    assert!(LinkProtocol::parse(check(&bytes), true).is_ok());
    let (record, len) = GapAckRecord::parse(&payload).expect("the length agrees");
    assert_eq!(len, payload.len());
    assert_eq!(
        [record.broadcast.len(), record.unicast.len()],
        [MAX_GAP_BLOCKS; 2]
    );
}

#[test]
fn link_protocol_with_more_than_its_records_is_refused() {
    let bytes = message(User::LinkProtocol, 0, &vec![0; 65_536]);
    assert_eq!(
        LinkProtocol::parse(check(&bytes), true),
        Err(WireError::Malformed("LINK_PROTOCOL size"))
    );
}

/// A monitor record with stated length and members, and room for `members`.
fn domain(len: u16, count: u16, members: usize) -> Vec<u8> {
    let mut bytes = vec![0; 16 + 4 * members];
    bytes[..2].copy_from_slice(&len.to_be_bytes());
    bytes[6..8].copy_from_slice(&count.to_be_bytes());
    bytes
}

#[test]
fn a_monitor_record_must_agree_with_itself_and_with_the_message() {
    // CVE-2022-0435 first: more than 64 members, consistent otherwise.
    for (len, count, members) in [
        (276, 65, 65),
        (1616, 400, 400),
        (20, 0, 1),
        (16, 1, 1),
        (20, 1, 0),
        (20, 1, 2),
        (0, 0, 0),
    ] {
        let bytes = domain(len, count, members);
        assert!(
            DomainRecord::parse(&bytes).is_err(),
            "{len} {count} {members}"
        );
        // The rest of the STATE stands.
        let state = message(User::LinkProtocol, 0, &[&[0, 4, 0, 0], &bytes[..]].concat());
        assert!(LinkProtocol::parse(check(&state), true).is_ok());
        assert!(LinkProtocol::domain(check(&state), true).is_err());
    }
    assert!(DomainRecord::parse(&domain(272, 64, 64)).is_ok());
    for cut in 0..16 {
        assert!(
            DomainRecord::parse(&domain(16, 0, 0)[..cut]).is_err(),
            "{cut}"
        );
    }
}

#[test]
fn key_lengths_that_the_message_does_not_bear_out_are_refused() {
    // CVE-2021-43267 first; the last wraps to 0 when 36 is added in 32 bits.
    for (stated, present) in [
        (0xffff, 20),
        (0x4000_0000, 20),
        (21, 20),
        (21, 21),
        (20, 28),
        (0xffff_ffdc, 20),
        (0, 0),
    ] {
        let mut payload = vec![0; 36 + present];
        payload[32..36].copy_from_slice(&u32::to_be_bytes(stated));
        let bytes = message(User::MsgCrypto, 0, &payload);
        assert_eq!(
            MsgCrypto::parse(check(&bytes)),
            Err(WireError::Malformed("key length")),
            "{stated} {present}"
        );
    }
    for short in 0..36 {
        let bytes = message(User::MsgCrypto, 0, &vec![0; short]);
        assert!(MsgCrypto::parse(check(&bytes)).is_err(), "{short}");
    }
}

#[test]
fn reset_and_activate_without_a_whole_interface_name_are_refused() {
    for (kind, len) in [(1, 0), (1, 15), (2, 4)] {
        let bytes = message(User::LinkProtocol, kind, &vec![b'x'; len]);
        let need = WireError::Truncated {
            need: 16,
            have: len,
        };
        assert_eq!(LinkProtocol::parse(check(&bytes), true), Err(need));
    }
}

#[test]
fn an_interface_name_without_an_end_and_a_hostile_one_are_harmless() {
    let bytes = message(User::LinkProtocol, 1, b"x\n\x1b[31m\xff\"'\\abcde");
    let text = Packet::decode(&bytes)
        .expect("any bytes are a name")
        .to_string();
    assert!(
        text.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
        "{text}"
    );
}

#[test]
fn local_messages_are_never_taken_from_the_wire() {
    for (user, kind) in [(User::Low, 4), (User::System, 0), (User::TopSrv, 0)] {
        let mut header = Header::new(user, kind, size::MCAST);
        header.set_payload_len(48);
        let bytes = [header.as_bytes(), &[0; 48]].concat();
        assert!(
            matches!(Packet::decode(&bytes), Err(WireError::Malformed(_))),
            "{user:?}"
        );
    }
}

#[test]
fn encrypted_frames_too_short_to_hold_anything_are_refused() {
    for (first, header) in [(0xe0, 16), (0xfa, 28)] {
        let mut bytes = vec![0; header + 17];
        bytes[0] = first;
        assert!(Packet::decode(&bytes).is_ok());
        for len in 0..header + 17 {
            assert!(Packet::decode(&bytes[..len]).is_err(), "{len}");
        }
        bytes[1] = 1;
        assert_eq!(
            Packet::decode(&bytes),
            Err(WireError::Reserved {
                word: 0,
                bits: 0x1_0000
            })
        );
    }
}
