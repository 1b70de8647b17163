use super::*;
use proptest::prelude::*;

const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
const NEXT: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Sender and receiver in both families.
const ENDS: [[&str; 2]; 2] = [
    ["10.0.0.1:6118", "10.0.0.2:7000"],
    ["[fd00::1]:6118", "[fd00::2]:7000"],
];

fn frame(ends: [&str; 2], payload: &[u8]) -> Vec<u8> {
    let [from, to] = ends.map(|end| end.parse().unwrap());
    let source = Source {
        mac: OWN,
        socket: from,
    };
    let headers = Headers::new(source, NEXT, to, 64, 7, payload).unwrap();
    [headers.as_bytes(), payload].concat()
}

/// Where the UDP header is.
fn udp_at(frame: &[u8]) -> usize {
    ETHERNET
        + if frame[12..14] == ETHERTYPE_IPV4 {
            IPV4
        } else {
            IPV6
        }
}

/// The frame with its IPv4 header changed and summed anew.
fn with_header(frame: &[u8], change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut frame = frame.to_vec();
    change(&mut frame[ETHERNET..ETHERNET + IPV4]);
    frame[24..26].fill(0);
    let checksum = !fold(sum(&frame[ETHERNET..ETHERNET + IPV4]));
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame
}

#[test]
fn a_datagram_is_read_as_it_was_written() {
    for ends in ENDS {
        for len in [0, 1, 2, 3, 24, 1472, 60_000] {
            let payload: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let mut frame = frame(ends, &payload);
            // A short frame is padded on the wire.
            frame.extend([0xee; 18]);
            let read = Datagram::parse(&frame).unwrap();
            assert_eq!(read.payload, payload);
            assert_eq!([read.from, read.to].map(|end| end.to_string()), ends);
        }
    }
}

#[test]
fn the_bytes_are_those_of_the_standards() {
    // Summed by hand.
    let bytes = [
        2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 30, 0, 7, 0, 0, 64, 17, 0x66, 0xc6,
        10, 0, 0, 1, 10, 0, 0, 2, 0x17, 0xe6, 0x1b, 0x58, 0, 10, 0x50, 0x30, b'h', b'i',
    ];
    assert_eq!(frame(ENDS[0], b"hi"), bytes);
}

#[test]
fn a_wrong_checksum_is_refused_and_none_is_accepted_over_ipv4_only() {
    for ends in ENDS {
        let frame = frame(ends, b"payload");
        for at in udp_at(&frame)..frame.len() {
            let mut wrong = frame.clone();
            wrong[at] ^= 1;
            assert!(Datagram::parse(&wrong).is_err(), "byte {at}");
        }
        let mut none = frame.clone();
        let at = udp_at(&none) + 6;
        none[at..at + 2].fill(0);
        let expected = match ends == ENDS[0] {
            true => None,
            false => Some(Checksum),
        };
        assert_eq!(Datagram::parse(&none).err(), expected);
    }
    let mut header = frame(ENDS[0], b"payload");
    header[22] = 63;
    assert_eq!(Datagram::parse(&header), Err(Checksum), "time to live");
}

#[test]
fn a_checksum_left_to_a_device_is_accepted() {
    for ends in ENDS {
        let mut frame = frame(ends, b"payload");
        let [from, to] = ends.map(|end| end.parse::<SocketAddr>().unwrap().ip());
        let at = udp_at(&frame) + 6;
        let left = fold(pseudo_sum(from, to, UDP + 7));
        frame[at..at + 2].copy_from_slice(&left.to_be_bytes());
        assert_eq!(Datagram::parse(&frame).unwrap().payload, b"payload");
    }
}

#[test]
fn no_datagram_is_sent_with_the_checksum_that_stands_for_none() {
    // Some payload of two bytes makes the sum zero.
    let zero = (0..=u16::MAX).find_map(|word| {
        let frame = frame(ENDS[0], &word.to_be_bytes());
        let at = udp_at(&frame) + 6;
        let checksum = u16::from_be_bytes([frame[at], frame[at + 1]]);
        assert_ne!(checksum, 0);
        (checksum == 0xffff).then_some(frame)
    });
    assert!(Datagram::parse(&zero.unwrap()).is_ok());
}

#[test]
fn fragments_options_and_cut_or_foreign_packets_are_refused() {
    let whole = frame(ENDS[0], b"payload");
    let malformed: [fn(&mut [u8]); 7] = [
        |header| header[6] = 0x20,
        |header| header[7] = 1,
        |header| header[0] = 0x46,
        |header| header[0] = 0x65,
        |header| header[9] = 6,
        |header| header[12] = 224,
        |header| header[3] += 1,
    ];
    for (number, change) in malformed.iter().enumerate() {
        let changed = with_header(&whole, change);
        assert_eq!(Datagram::parse(&changed), Err(Malformed), "change {number}");
    }
    let kept_whole = with_header(&whole, |header| header[6] = 0x40);
    assert!(Datagram::parse(&kept_whole).is_ok(), "don't fragment");
    for ends in ENDS {
        let whole = frame(ends, b"payload");
        for len in 0..whole.len() {
            assert_eq!(Datagram::parse(&whole[..len]), Err(Malformed), "{len}");
        }
    }
    let mut extended = frame(ENDS[1], b"payload");
    extended[20] = 44;
    assert_eq!(Datagram::parse(&extended), Err(Malformed), "IPv6 fragment");
    let mut tagged = whole;
    tagged[12..14].copy_from_slice(&[0x81, 0]);
    assert_eq!(Datagram::parse(&tagged), Err(Malformed));
}

#[test]
fn what_does_not_go_together_is_not_written() {
    let source = |socket: &str| Source {
        mac: OWN,
        socket: socket.parse().unwrap(),
    };
    let write = |from, to: &str, len| {
        let payload = vec![0; len];
        Headers::new(source(from), NEXT, to.parse().unwrap(), 1, 0, &payload).is_some()
    };
    assert!(!write(ENDS[0][0], ENDS[1][1], 1), "two families");
    assert!(write(ENDS[0][0], ENDS[0][1], 65_507));
    assert!(
        !write(ENDS[0][0], ENDS[0][1], 65_508),
        "longer than a packet"
    );
    assert!(
        !write(ENDS[1][0], ENDS[1][1], 65_528),
        "longer than a datagram"
    );
}

#[test]
fn a_group_has_the_hardware_address_of_its_last_bits() {
    for (group, mac) in [
        ("228.128.18.103", [1, 0, 0x5e, 0, 18, 103]),
        ("ff02::4711", [0x33, 0x33, 0, 0, 0x47, 0x11]),
    ] {
        assert_eq!(group_mac(group.parse().unwrap()), mac);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Datagram::parse(&bytes);
    }

    #[test]
    fn any_payload_comes_through(payload in prop::collection::vec(any::<u8>(), 0..3000)) {
        for ends in ENDS {
            let frame = frame(ends, &payload);
            prop_assert_eq!(Datagram::parse(&frame).unwrap().payload, &payload[..]);
        }
    }
}
