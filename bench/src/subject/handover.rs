//! What it costs that a queue is another worker's: the reference to a frame goes there, and one comes back.
//!
//! The rings are those of the daemon's workers; both threads spin, as workers under load do.

use std::hint::spin_loop;
use std::thread;

use anyhow::{Result, ensure};
use xtipc_xsk::ring::{Consumer, Producer, pair};

use crate::lab::pin;
use crate::round_trip::Asker;

/// As long as those of a queue.
const ENTRIES: u32 = 2048;
/// To end the other thread.
const END: [u64; 2] = [u64::MAX; 2];

/// Where a frame is, and how long: as large as an AF_XDP descriptor.
type Reference = [u64; 2];

/// Hands references to a thread on the second processor, which hands them back.
pub(crate) struct Ask {
    to: Producer<Reference>,
    from: Consumer<Reference>,
    next: u64,
}

impl Ask {
    pub(crate) fn new(cpu: usize) -> Self {
        let (to, mut there) = pair(ENTRIES);
        let (mut back, from) = pair(ENTRIES);
        thread::spawn(move || {
            pin(cpu).expect("the run has pinned processes there");
            loop {
                match there.pop() {
                    Some(END) => break,
                    Some(reference) => {
                        there.publish();
                        hand_over(&mut back, reference);
                    }
                    None => spin_loop(),
                }
            }
        });
        Self { to, from, next: 0 }
    }
}

fn hand_over(ring: &mut Producer<Reference>, reference: Reference) {
    assert!(ring.has_room(1), "one is under way at a time");
    ring.push(reference);
    ring.publish();
}

impl Asker for Ask {
    fn ask(&mut self, message: &[u8], answer: &mut [u8]) -> Result<usize> {
        let reference = [self.next, message.len() as u64];
        self.next += 4096;
        hand_over(&mut self.to, reference);
        for _ in 0..u32::MAX {
            if let Some(back) = self.from.pop() {
                self.from.publish();
                ensure!(back == reference, "another reference came back");
                // Bytes stay where they are.
                answer.copy_from_slice(message);
                return Ok(answer.len());
            }
            spin_loop();
        }
        anyhow::bail!("no reference came back")
    }
}

impl Drop for Ask {
    fn drop(&mut self) {
        hand_over(&mut self.to, END);
    }
}
