//! Any payload of a bundle: the walk ends, stays inside and takes whole messages.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xtipc_protocol::wire::{Bundle, Header, Msg, User, aligned, size};

fuzz_target!(|payload: &[u8]| {
    let payload = &payload[..payload.len().min(size::MAX_PAYLOAD)];
    let mut header = Header::new(User::MsgBundler, 0, size::INT);
    header.set_payload_len(payload.len());
    let bytes = [header.as_bytes(), payload].concat();
    let mut at = 0;
    for inner in Bundle::new(Msg::check(&bytes).expect("the header is sound")) {
        assert_eq!(inner.bytes(), &payload[at..at + inner.size()]);
        assert!(inner.header_size() <= inner.size());
        at += aligned(inner.size());
    }
    assert!(at <= aligned(payload.len()));
});
