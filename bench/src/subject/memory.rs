//! The limits inside of a machine: memory that two threads share, and the cheapest way to wake one.
//!
//! A message is copied into the shared words by one thread and out of them by the other.

use std::hint::spin_loop;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Result, ensure};
use rustix::event::{EventfdFlags, eventfd};

use crate::lab::pin;
use crate::rate::{BATCH, SINK_PATIENCE, Sink, Source, put_number};
use crate::round_trip::{Asker, PATIENCE};

const WORD: usize = size_of::<u64>();
/// Messages that fit into a ring.
const SLOTS: usize = 1024;

/// Alone in its pair of cache lines.
#[repr(align(128))]
#[derive(Default)]
struct Index(AtomicUsize);

fn words(bytes: usize) -> Box<[AtomicU64]> {
    (0..bytes.div_ceil(WORD))
        .map(|_| AtomicU64::new(0))
        .collect()
}

fn copy_in(to: &[AtomicU64], message: &[u8]) {
    for (word, chunk) in to.iter().zip(message.chunks(WORD)) {
        let mut bytes = [0; WORD];
        bytes[..chunk.len()].copy_from_slice(chunk);
        word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
    }
}

fn copy_out(out: &mut [u8], from: &[AtomicU64]) {
    for (chunk, word) in out.chunks_mut(WORD).zip(from) {
        let bytes = word.load(Ordering::Relaxed).to_ne_bytes();
        chunk.copy_from_slice(&bytes[..chunk.len()]);
    }
}

/// Messages from one thread to another, which both spin.
pub(crate) struct Ring {
    /// Messages written so far; moved by the producer.
    written: Index,
    /// Messages read so far; moved by the consumer.
    read: Index,
    slots: Box<[Box<[AtomicU64]>]>,
}

impl Ring {
    fn new(slots: usize, size: usize) -> Arc<Self> {
        Arc::new(Self {
            written: Index::default(),
            read: Index::default(),
            slots: (0..slots).map(|_| words(size)).collect(),
        })
    }

    fn slot(&self, number: usize) -> &[AtomicU64] {
        &self.slots[number % self.slots.len()]
    }
}

/// Of a ring.
struct Producer {
    ring: Arc<Ring>,
    written: usize,
    /// What the consumer had read when last looked at.
    read: usize,
}

impl Producer {
    const fn new(ring: Arc<Ring>) -> Self {
        Self {
            ring,
            written: 0,
            read: 0,
        }
    }

    fn push(&mut self, message: &[u8], stop: &AtomicBool) {
        while self.written - self.read == self.ring.slots.len() {
            // Pairs with the Release store in `pop`: what was read may be overwritten.
            self.read = self.ring.read.0.load(Ordering::Acquire);
            if stop.load(Ordering::Relaxed) {
                return;
            }
        }
        copy_in(self.ring.slot(self.written), message);
        self.written += 1;
        // Pairs with the Acquire load in `pop`: who sees the index sees the words.
        self.ring.written.0.store(self.written, Ordering::Release);
    }
}

/// Of a ring.
struct Consumer {
    ring: Arc<Ring>,
    read: usize,
    written: usize,
}

impl Consumer {
    const fn new(ring: Arc<Ring>) -> Self {
        Self {
            ring,
            read: 0,
            written: 0,
        }
    }

    fn pop(&mut self, out: &mut [u8]) -> bool {
        if self.read == self.written {
            // Pairs with the Release store in `push`.
            self.written = self.ring.written.0.load(Ordering::Acquire);
            if self.read == self.written {
                return false;
            }
        }
        copy_out(out, self.ring.slot(self.read));
        self.read += 1;
        // Pairs with the Acquire load in `push`.
        self.ring.read.0.store(self.read, Ordering::Release);
        true
    }
}

/// Asks a thread on the second processor over two rings of one message, until `stop`.
pub(crate) struct Ask {
    to: Producer,
    from: Consumer,
    stop: Arc<AtomicBool>,
}

impl Ask {
    pub(crate) fn new(cpu: usize, size: usize) -> Self {
        let (there, back) = (Ring::new(1, size), Ring::new(1, size));
        let stop = Arc::new(AtomicBool::new(false));
        let mut from = Consumer::new(Arc::clone(&there));
        let mut to = Producer::new(Arc::clone(&back));
        let stopped = Arc::clone(&stop);
        thread::spawn(move || {
            pin(cpu).expect("the run has pinned processes there");
            let mut message = vec![0; size];
            while !stopped.load(Ordering::Relaxed) {
                if from.pop(&mut message) {
                    to.push(&message, &stopped);
                } else {
                    spin_loop();
                }
            }
        });
        Self {
            to: Producer::new(there),
            from: Consumer::new(back),
            stop,
        }
    }
}

impl Asker for Ask {
    fn ask(&mut self, message: &[u8], answer: &mut [u8]) -> Result<usize> {
        self.to.push(message, &self.stop);
        let mut round = 0_u32;
        while !self.from.pop(answer) {
            spin_loop();
            round += 1;
            ensure!(round < u32::MAX, "no echo");
        }
        Ok(answer.len())
    }
}

impl Drop for Ask {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Both ends of a ring.
pub(crate) fn ring(size: usize) -> (Send, Receive) {
    let ring = Ring::new(SLOTS, size);
    let send = Send {
        to: Producer::new(Arc::clone(&ring)),
        message: vec![0; size],
        stop: AtomicBool::new(false),
    };
    let receive = Receive {
        from: Consumer::new(ring),
        message: vec![0; size],
    };
    (send, receive)
}

/// The end that sends.
pub(crate) struct Send {
    to: Producer,
    message: Vec<u8>,
    stop: AtomicBool,
}

impl Source for Send {
    fn send(&mut self, first: u64) -> Result<u64> {
        for number in first..first + BATCH as u64 {
            put_number(&mut self.message, number);
            self.to.push(&self.message, &self.stop);
        }
        Ok(BATCH as u64)
    }
}

/// The end that receives.
pub(crate) struct Receive {
    from: Consumer,
    message: Vec<u8>,
}

impl Sink for Receive {
    fn receive(&mut self, seen: &mut dyn FnMut(&[u8])) -> Result<()> {
        let begun = Instant::now();
        let mut received = 0;
        for round in 1_u32.. {
            if self.from.pop(&mut self.message) {
                seen(&self.message);
                received += 1;
            } else {
                spin_loop();
            }
            let over = round.is_multiple_of(256) && begun.elapsed() > SINK_PATIENCE;
            if received == BATCH || over {
                break;
            }
        }
        Ok(())
    }
}

/// Wakes a thread on the second processor, which wakes this one.
pub(crate) struct Wake {
    there: Arc<OwnedFd>,
    back: Arc<OwnedFd>,
}

impl Wake {
    pub(crate) fn new(cpu: usize) -> Result<Self> {
        let make = || anyhow::Ok(Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?));
        let (there, back) = (make()?, make()?);
        let (request, answer) = (Arc::clone(&there), Arc::clone(&back));
        thread::spawn(move || {
            pin(cpu).expect("the run has pinned processes there");
            let mut count = [0; WORD];
            // It ends with the process.
            while rustix::io::read(&*request, &mut count).is_ok() {
                if rustix::io::write(&*answer, &1_u64.to_ne_bytes()).is_err() {
                    break;
                }
            }
        });
        Ok(Self { there, back })
    }
}

impl Asker for Wake {
    fn ask(&mut self, message: &[u8], answer: &mut [u8]) -> Result<usize> {
        rustix::io::write(&*self.there, &1_u64.to_ne_bytes())?;
        let begun = Instant::now();
        rustix::io::read(&*self.back, &mut [0; WORD])?;
        ensure!(begun.elapsed() < PATIENCE, "no echo");
        // Nothing is carried.
        answer.copy_from_slice(message);
        Ok(answer.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_gives_messages_in_order_and_holds_the_sender_when_full() {
        let (mut send, mut receive) = ring(24);
        let sender = thread::spawn(move || {
            for first in (0..64 * BATCH as u64).step_by(BATCH) {
                send.send(first).unwrap();
            }
        });
        let mut next = 0;
        while next < 64 * BATCH as u64 {
            receive
                .receive(&mut |message| {
                    assert_eq!(message.len(), 24);
                    assert_eq!(message[..8], next.to_le_bytes());
                    next += 1;
                })
                .unwrap();
        }
        sender.join().unwrap();
    }

    #[test]
    fn copies_have_all_bytes_also_of_an_odd_length() {
        let shared = words(13);
        let message: Vec<u8> = (0..13).collect();
        copy_in(&shared, &message);
        let mut out = [0; 13];
        copy_out(&mut out, &shared);
        assert_eq!(out[..], message);
    }
}
