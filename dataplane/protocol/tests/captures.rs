//! Captures of real Linux clusters: every packet decodes, encodes to the same bytes and is what the
//! reviewed table says it is.
//!
//! The table is `captures/counts.txt`; `XTIPC_BLESS=1` writes it anew, for review by `git diff`.

mod pcap;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use xtipc_protocol::wire::{Encrypted, Msg, NameItems, Packet, User, WireError, type_name};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/captures");

/// How often each kind of packet occurs.
type Counts = BTreeMap<String, usize>;

/// What carries the message, its user and its name.
fn label(place: &str, packet: &Packet<'_>) -> String {
    match packet {
        Packet::Data(m) => format!("{place}{:?} {}", m.user(), packet.name()),
        _ => format!("{place}{}", packet.name()),
    }
}

/// Decodes a packet and what it contains, and checks that each comes back as the same bytes.
fn check(bytes: &[u8], place: &str, counts: &mut Counts) -> Result<(), WireError> {
    let packet = Packet::decode(bytes)?;
    let size = if Encrypted::is_at(bytes) {
        bytes.len()
    } else {
        Msg::check(bytes)?.size()
    };
    let mut again = Vec::new();
    packet.encode(&mut again);
    assert_eq!(again, bytes[..size], "{packet}");
    *counts.entry(label(place, &packet)).or_default() += 1;
    assert!(packet.to_string().starts_with(packet.name()));
    match packet {
        Packet::MsgBundler(bundle) => {
            let inner: Vec<_> = bundle.messages().collect();
            assert_eq!(
                inner.len(),
                usize::from(bundle.count),
                "every message of a bundle is walked"
            );
            for message in inner {
                check(message.bytes(), "BUNDLE: ", counts)?;
            }
        }
        Packet::TunnelProtocol(tunnel) => {
            if let Some(inner) = tunnel.inner() {
                check(inner?.bytes(), "FAILOVER: ", counts)?;
            }
        }
        Packet::NameDistributor(names) => {
            let items: Vec<u8> = names.items.iter().flat_map(|item| item.emit()).collect();
            assert_eq!(NameItems(&items), names.items);
        }
        _ => {}
    }
    Ok(())
}

fn check_file(path: &Path) -> Counts {
    let capture = pcap::read(path);
    let mut counts = Counts::new();
    for (n, packet) in capture.packets.iter().enumerate() {
        if let Err(error) = check(packet, "", &mut counts) {
            panic!("{} packet {n}: {error}: {packet:02x?}", path.display());
        }
    }
    for (name, count) in [
        ("(incomplete datagrams)", capture.incomplete),
        ("(other)", capture.other),
    ] {
        if count > 0 {
            counts.insert(name.to_owned(), count);
        }
    }
    counts
}

#[test]
fn every_captured_packet_decodes_encodes_to_the_same_bytes_and_is_in_the_table() {
    let mut table = String::new();
    for path in pcap::files(FOLDER) {
        let name = path
            .file_stem()
            .expect("files have names")
            .to_string_lossy();
        writeln!(table, "{name}").expect("strings take text");
        for (label, count) in check_file(&path) {
            writeln!(table, "  {count:5} {label}").expect("strings take text");
        }
    }
    let golden = Path::new(FOLDER).join("counts.txt");
    if std::env::var_os("XTIPC_BLESS").is_some() {
        fs::write(&golden, &table).expect("the table can be written");
    }
    assert_eq!(
        table,
        fs::read_to_string(golden).expect("the table exists"),
        "see the head of this file"
    );
}

#[test]
fn the_packets_in_the_captures_are_all_that_linux_sends_but_these() {
    let mut seen = BTreeSet::new();
    for path in pcap::files(FOLDER) {
        for packet in pcap::read(&path).packets {
            let Ok(packet) = Packet::decode(&packet) else {
                continue;
            };
            if !matches!(packet, Packet::Encrypted(_)) {
                seen.insert(packet.name());
            }
        }
    }
    let every = (0..16)
        .map(User::from_bits)
        .flat_map(|user| (0..8).map(move |kind| type_name(user, kind)))
        .filter(|name| *name != "?");
    let missing: BTreeSet<&str> = every.filter(|name| !seen.contains(name)).collect();
    let expected = [
        "CONN_PROBE",       // an hour of silence on a connection comes first
        "CONN_PROBE_REPLY", // likewise
        "GRP_MEMBER_EVT",   // local to a node
        "KEY_DISTR",        // only inside encrypted packets
    ];
    assert_eq!(missing, BTreeSet::from(expected));
}

#[test]
fn encryption_headers_name_their_sender_and_count_packets() {
    let packets = pcap::read(&Path::new(FOLDER).join("crypto-three-nodes.pcap")).packets;
    let headers: Vec<Encrypted<'_>> = packets
        .iter()
        .map(|packet| Encrypted::parse(packet).expect("all are encrypted"))
        .collect();
    assert!(
        headers
            .iter()
            .all(|header| header.seqno > 0 && header.ciphertext.len() % 4 == 0)
    );
    assert!(headers.iter().any(|header| header.user == User::LinkConfig));
    assert!(headers.iter().any(|header| header.destined) && headers.iter().any(|h| !h.destined));
}
