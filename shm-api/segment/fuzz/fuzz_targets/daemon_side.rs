//! Any bytes an application can write into its area, between any calls of the daemon: these end, and stay
//! inside the segment.
//!
//! The address sanitizer sees reads outside the mappings; budgets see an application that would keep the
//! daemon busy for ever.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::os::fd::OwnedFd;
use xtipc_segment::daemon::DaemonSide;
use xtipc_segment::layout::Sizes;
use xtipc_segment::{Meta, Violation};

const SIZES: Sizes = Sizes {
    submissions: 8,
    deliveries: 8,
    submission_arena: 128 << 10,
    delivery_arena: 128 << 10,
};
/// Where the cursors and sleep words begin, and the bytes from one to the next.
const CURSORS: (u64, u64) = (1024, 128);
/// Where the rings begin.
const RINGS: u64 = 4096;

fn write(area: &OwnedFd, offset: u64, bytes: &[u8]) {
    // Past the end of the area nothing can be written, and nothing is.
    let _ = rustix::io::pwrite(area, bytes, offset);
}

/// Everything a worker does in a round.
fn round(daemon: &mut DaemonSide) -> Result<(), Violation> {
    for _ in 0..2 * SIZES.submissions {
        let Some(submission) = daemon.pop()? else {
            break;
        };
        let payload = daemon.payload(&submission);
        payload.copy_to(0, &mut vec![0; payload.len()]);
        let mut messages = payload.messages();
        for message in messages.by_ref() {
            message.copy_to(0, &mut vec![0; message.len()]);
        }
        let rest = messages.from_last().map_or(0, |rest| rest.len as usize);
        assert!(rest <= payload.len());
        daemon.complete(submission.tag, 0, [0, 0])?;
    }
    daemon.drain_releases(64, |_| ())?;
    daemon.notify();
    daemon.before_sleep(true)?;
    daemon.after_sleep();
    Ok(())
}

fuzz_target!(|input: &[u8]| {
    let (mut daemon, fds) = DaemonSide::create(&SIZES).expect("memory for a small segment");
    let mut rest = input;
    while let Some((step, after)) = rest.split_first_chunk::<4>() {
        rest = after;
        let [kind, a, b, len] = *step;
        let place = u64::from(a) << 8 | u64::from(b);
        let (bytes, after) = rest.split_at(usize::from(len % 72).min(rest.len()));
        match kind % 6 {
            0 => write(&fds.application, CURSORS.0 + u64::from(a % 8) * CURSORS.1, bytes),
            1 => write(&fds.application, RINGS + place % 2048, bytes),
            2 => write(&fds.application, place * 4, bytes),
            3 => {
                // Detached by the first violation, as the daemon does.
                if round(&mut daemon).is_err() {
                    let _ = daemon.take_unread(None, |_| (), |_, _| ());
                    return;
                }
                continue;
            }
            4 => {
                let meta = Meta {
                    socket: u32::from(a % 4),
                    ..Meta::default()
                };
                // No room is an answer too.
                let _ = daemon.deliver(&meta, usize::from(b) * 300, |room| room.fill(1));
                continue;
            }
            _ => {
                let _ = daemon.take_unread(Some(u32::from(a % 4)), |_| (), |_, _| ());
                continue;
            }
        }
        rest = after;
    }
    assert!(daemon.delivered() <= SIZES.deliveries as usize);
});
