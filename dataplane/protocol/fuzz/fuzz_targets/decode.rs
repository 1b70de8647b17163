//! Any bytes: the decoder ends, and what it accepts it can write again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xtipc_protocol::wire::Packet;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(packet) = Packet::decode(bytes) {
        let mut again = Vec::new();
        packet.encode(&mut again);
        assert_eq!(again, bytes[..again.len()]);
        assert_eq!(Packet::decode(&again).as_ref(), Ok(&packet));
        assert!(packet.to_string().starts_with(packet.name()));
    }
});
