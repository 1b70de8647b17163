//! Any bytes another node can write into the memory that two nodes of a host share, between any calls of this one: these
//! end, and stay inside the memory.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xtipc_segment::line::{Line, PACKET_MAX};

/// Cursors and sleep words of a direction lie at its start, entries from here on.
const ENTRIES: u64 = 4096;

fuzz_target!(|input: &[u8]| {
    let (mut line, memory) = Line::make().expect("memory for a line");
    let len = rustix::fs::fstat(&memory).expect("a file has a size").st_size as u64;
    let mut packet = vec![0; PACKET_MAX];
    let mut rest = input;
    while let Some((step, after)) = rest.split_first_chunk::<4>() {
        rest = after;
        let [kind, a, b, count] = *step;
        let place = u64::from(a) << 8 | u64::from(b);
        let direction = u64::from(kind / 128) * (len / 2);
        let offset = match kind % 5 {
            // A word that the sides wake each other by, or a cursor.
            0 => direction + u64::from(a % 4) * 128,
            1 => direction + ENTRIES + place % 4096,
            2 => {
                let packet = &packet[..(place as usize).min(PACKET_MAX)];
                if line.send(packet, u32::from(count)).is_err() {
                    return;
                }
                let _ = line.must_ring();
                continue;
            }
            3 => {
                if line.receive(&mut packet).is_err() {
                    return;
                }
                continue;
            }
            _ => {
                let _ = line.may_sleep();
                line.awake();
                continue;
            }
        };
        let (bytes, after) = rest.split_at(usize::from(count % 72).min(rest.len()));
        rest = after;
        // Past the end of the memory nothing can be written, and nothing is.
        let _ = rustix::io::pwrite(&memory, bytes, offset);
    }
});
