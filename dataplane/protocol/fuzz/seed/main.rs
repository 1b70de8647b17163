//! Writes the packets of the captures as seed corpora: `cargo run --example seed`.
//!
//! `decode` gets one packet of each kind and size, the others what is theirs.

#[path = "../../tests/pcap/mod.rs"]
mod pcap;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use xtipc_protocol::topology::Subscription;
use xtipc_protocol::wire::Packet;

const HERE: &str = env!("CARGO_MANIFEST_DIR");

fn main() -> std::io::Result<()> {
    let mut seeds: BTreeMap<(&str, String), Vec<u8>> = BTreeMap::new();
    let mut skipped = 0;
    for path in pcap::files(&format!("{HERE}/../tests/captures")) {
        let capture = pcap::read(&path);
        skipped += capture.incomplete + capture.other;
        for bytes in capture.packets {
            let Ok(packet) = Packet::decode(&bytes) else {
                continue;
            };
            let name = format!("{}-{}", packet.name(), bytes.len());
            match &packet {
                Packet::LinkProtocol { .. } => {
                    seeds.insert(("link_protocol", name.clone()), bytes.clone());
                }
                Packet::MsgBundler(bundle) => {
                    seeds.insert(("bundle", name.clone()), bundle.payload.to_vec());
                }
                // Two bytes of the target's own come first.
                Packet::Data(data) if data.payload.len() == Subscription::SIZE => {
                    let steps = [b"\x0c\x01", data.payload].concat();
                    seeds.insert(("subscription", name.clone()), steps);
                }
                _ => {}
            }
            seeds.insert(("decode", name), bytes);
        }
    }
    println!(
        "{} seeds, {skipped} frames without a whole packet",
        seeds.len()
    );
    for ((target, name), bytes) in seeds {
        let folder = Path::new(HERE).join("corpus").join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name), bytes)?;
    }
    Ok(())
}
