//! Reads TIPC packets out of capture files: Ethernet, and UDP over IPv4 with IP fragments put
//! together. Enough for the captures beside it, not a general reader.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The TIPC packets of one capture file.
pub(crate) struct Capture {
    /// Each packet with everything behind it in its frame or datagram.
    pub(crate) packets: Vec<Vec<u8>>,
    /// Datagrams of which a fragment was not captured.
    pub(crate) incomplete: usize,
    /// Frames of other protocols.
    pub(crate) other: usize,
}

/// The capture files in a folder, in order of their names.
pub(crate) fn files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder of captures exists");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|name| name == "pcap"))
        .collect();
    files.sort();
    files
}

const TIPC: u16 = 0x88ca;
const IPV4: u16 = 0x0800;
const UDP: u8 = 17;
const TIPC_PORT: u16 = 6118;

/// Reads a capture file.
pub(crate) fn read(path: &Path) -> Capture {
    let bytes = fs::read(path).expect("a readable capture");
    let mut datagrams = Datagrams::default();
    let mut capture = Capture {
        packets: Vec::new(),
        incomplete: 0,
        other: 0,
    };
    for frame in frames(&bytes) {
        let (header, body) = frame.split_at(14);
        match be16(header, 12) {
            TIPC => capture.packets.push(body.to_vec()),
            IPV4 if body[9] == UDP => match datagrams.add(body) {
                Some(datagram) if be16(&datagram, 2) == TIPC_PORT => {
                    capture.packets.push(datagram[8..].to_vec());
                }
                Some(_) => capture.other += 1,
                None => {}
            },
            _ => capture.other += 1,
        }
    }
    capture.incomplete = datagrams.0.len();
    capture
}

/// The frames of a little-endian capture file of link type Ethernet.
fn frames(bytes: &[u8]) -> Vec<&[u8]> {
    let le32 = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    assert_eq!(
        (le32(0), le32(20)),
        (0xa1b2_c3d4, 1),
        "a little-endian capture of Ethernet"
    );
    let mut frames = Vec::new();
    let mut at = 24;
    while at < bytes.len() {
        let (kept, length) = (le32(at + 8) as usize, le32(at + 12) as usize);
        assert_eq!(kept, length, "a capture that cuts no frame");
        frames.push(&bytes[at + 16..at + 16 + kept]);
        at += 16 + kept;
    }
    frames
}

/// IPv4 datagrams of which not all fragments have come, by identification and addresses.
#[derive(Default)]
struct Datagrams(BTreeMap<Vec<u8>, Pieces>);

/// Fragments of a datagram by offset, and its size once the last one is there.
#[derive(Default)]
struct Pieces {
    by_offset: BTreeMap<usize, Vec<u8>>,
    size: Option<usize>,
}

impl Datagrams {
    /// Adds an IPv4 packet; gives its payload when it is complete.
    fn add(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let header = usize::from(packet[0] & 15) * 4;
        let payload = &packet[header..usize::from(be16(packet, 2))];
        let (offset, more) = (
            usize::from(be16(packet, 6) & 0x1fff) * 8,
            packet[6] & 0x20 != 0,
        );
        if offset == 0 && !more {
            return Some(payload.to_vec());
        }
        let key = [&packet[4..6], &packet[12..20]].concat();
        let pieces = self.0.entry(key.clone()).or_default();
        pieces.by_offset.insert(offset, payload.to_vec());
        if !more {
            pieces.size = Some(offset + payload.len());
        }
        let have: usize = pieces.by_offset.values().map(Vec::len).sum();
        if pieces.size != Some(have) {
            return None;
        }
        let pieces = self.0.remove(&key)?;
        Some(pieces.by_offset.into_values().flatten().collect())
    }
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}
