//! Any frame is read as a datagram or refused; what was read is written and read again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xtipc_xsk::datagram::{Datagram, Headers, Source};

/// From here on the frame is taken as it is; before, its first byte chooses the family, so that both are reached.
const TYPE: std::ops::Range<usize> = 12..15;

fuzz_target!(|bytes: &[u8]| {
    let mut frame = bytes.to_vec();
    if let Some(start) = frame.get_mut(TYPE) {
        start.copy_from_slice(match bytes[0] % 4 {
            0 => &[0x08, 0x00, 0x45],
            1 => &[0x86, 0xdd, 0x60],
            _ => &bytes[TYPE],
        });
    }
    let Ok(read) = Datagram::parse(&frame) else {
        return;
    };
    let source = Source {
        mac: [2; 6],
        socket: read.from,
    };
    let headers = Headers::new(source, [4; 6], read.to, 64, 1, read.payload)
        .expect("what came in one datagram goes into one");
    let written = [headers.as_bytes(), read.payload].concat();
    assert_eq!(Datagram::parse(&written), Ok(read));
});
