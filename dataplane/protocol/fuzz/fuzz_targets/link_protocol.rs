//! Any LINK_PROTOCOL message: what the receive path makes of it survives being sent.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xtipc_protocol::wire::{LinkProtocol, Msg, User, field, size};

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes.to_vec();
    if bytes.len() < size::INT {
        return;
    }
    // Straight to the parser: user, version, header length and size are right.
    let len = bytes.len().min(size::INT + size::MAX_PAYLOAD);
    field::VERSION.set(&mut bytes, 2);
    field::USER.set(&mut bytes, User::LinkProtocol as u32);
    field::HEADER_WORDS.set(&mut bytes, size::INT as u32 / 4);
    field::SIZE.set(&mut bytes, len as u32);
    let msg = Msg::check(&bytes).expect("the header is sound");
    for with_gaps in [false, true] {
        let Ok(parsed) = LinkProtocol::parse(msg, with_gaps) else {
            continue;
        };
        let mut out = [0; size::INT + 516];
        let len = parsed.emit(&mut out);
        let again = Msg::check(&out[..len]).expect("what is sent is a message");
        assert_eq!(LinkProtocol::parse(again, with_gaps).as_ref(), Ok(&parsed));
        if let Ok(Some(domain)) = LinkProtocol::domain(msg, with_gaps) {
            assert!(domain.members().count() <= xtipc_protocol::wire::MAX_DOMAIN_MEMBERS);
        }
    }
});
