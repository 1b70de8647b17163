//! The sending half of a socket: TX ring, completion ring, and which frames they hold.
//!
//! No system call happens here, so the whole half runs on anonymous memory in tests.
//! Invariant: for each frame, `outstanding[frame].descriptors` of all sockets add up to the `in_tx`
//! of the frame table. It is kept per socket so that closing one socket frees exactly its frames.

use crate::pool::{CHUNK_SIZE, FrameIndex, FramePool, Reserve};
use crate::ring::{Consumer, Producer};
use rustix::net::xdp::{XdpDesc, XdpDescOptions};
use std::time::Duration;

#[cfg(all(test, not(loom)))]
mod tests;

/// The TX ring has no room for this packet; [`crate::XskSocket::kick`] and
/// [`crate::XskSocket::complete`] make some.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the TX ring is full")]
pub struct TxFull;

/// What the sending half counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransmitCounters {
    /// Packets put into the TX ring.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets refused because the TX ring was full or only its control reserve was left.
    pub ring_full: u64,
    /// Descriptors the kernel completed.
    pub completions: u64,
    /// Completions of chunks that this socket had not sent: ignored.
    pub completions_foreign: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Outstanding {
    descriptors: u16,
    /// The clock at the oldest of them, in ms, wrapping.
    since_ms: u32,
}

#[derive(Debug)]
pub(crate) struct Transmit {
    ring: Producer<XdpDesc>,
    completions: Consumer<u64>,
    control_reserve: u32,
    multi_buffer: bool,
    /// By frame index.
    outstanding: Box<[Outstanding]>,
    outstanding_descriptors: u32,
    clock_ms: u32,
    counters: TransmitCounters,
}

impl Transmit {
    pub(crate) fn new(
        ring: Producer<XdpDesc>,
        completions: Consumer<u64>,
        control_reserve: u32,
        multi_buffer: bool,
        frame_count: u32,
    ) -> Self {
        Self {
            ring,
            completions,
            control_reserve,
            multi_buffer,
            outstanding: vec![Outstanding::default(); frame_count as usize].into_boxed_slice(),
            outstanding_descriptors: 0,
            clock_ms: 0,
            counters: TransmitCounters::default(),
        }
    }

    pub(crate) fn set_clock(&mut self, now: Duration) {
        self.clock_ms = wrapping_ms(now);
    }

    /// Puts `len` bytes of a frame, from `offset`, into the TX ring; visible to the kernel when that is published.
    pub(crate) fn send(
        &mut self,
        pool: &mut FramePool,
        frame: FrameIndex,
        offset: usize,
        len: usize,
        reserve: Reserve,
    ) -> Result<(), TxFull> {
        assert!(
            len > 0,
            "an empty packet: the kernel would never complete it"
        );
        let end = offset.checked_add(len);
        assert!(
            end.is_some_and(|end| end <= pool.frame_len()),
            "{len} bytes at {offset} of a frame"
        );
        let first_chunk = offset / CHUNK_SIZE;
        let descriptors = ((offset + len - 1) / CHUNK_SIZE - first_chunk + 1) as u16;
        assert!(
            descriptors == 1 || self.multi_buffer,
            "a packet over {descriptors} chunks without XDP_USE_SG"
        );

        let kept_free = match reserve {
            Reserve::Data => self.control_reserve,
            Reserve::Control => 0,
        };
        if !self.ring.has_room(u32::from(descriptors) + kept_free) {
            self.counters.ring_full += 1;
            return Err(TxFull);
        }
        // Before the first descriptor: from here on nobody may write the bytes.
        pool.tx_started(frame, descriptors);
        self.push_descriptors(pool.address(frame) + offset as u64, len);

        let held = &mut self.outstanding[frame.0 as usize];
        if held.descriptors == 0 {
            held.since_ms = self.clock_ms;
        }
        // Cannot overflow: it is part of `in_tx`, which `tx_started` has checked.
        held.descriptors += descriptors;
        self.outstanding_descriptors += u32::from(descriptors);
        self.counters.packets += 1;
        self.counters.bytes += len as u64;
        Ok(())
    }

    fn push_descriptors(&mut self, mut addr: u64, mut len: usize) {
        while len > 0 {
            let here = len.min(CHUNK_SIZE - addr as usize % CHUNK_SIZE);
            let more = if here < len {
                XdpDescOptions::XDP_PKT_CONTD
            } else {
                XdpDescOptions::empty()
            };
            self.ring.push(XdpDesc {
                addr,
                len: here as u32,
                options: more,
            });
            addr += here as u64;
            len -= here;
        }
    }

    /// Goes on with these rings instead of its own, which it gives away with what lies in them.
    pub(crate) fn exchange_rings(
        &mut self,
        ring: Producer<XdpDesc>,
        completions: Consumer<u64>,
    ) -> (Producer<XdpDesc>, Consumer<u64>) {
        let before = std::mem::replace(&mut self.ring, ring);
        (
            before,
            std::mem::replace(&mut self.completions, completions),
        )
    }

    /// The ring of what is to be sent.
    pub(crate) fn ring(&mut self) -> &mut Producer<XdpDesc> {
        &mut self.ring
    }

    /// Whether something was completed since [`Self::complete`].
    pub(crate) fn has_completions(&self) -> bool {
        self.completions.is_ready()
    }

    /// Whether the kernel has taken all and completed nothing since [`Self::complete`].
    pub(crate) fn is_quiet(&self) -> bool {
        self.ring.is_drained() && !self.has_completions()
    }

    /// Takes what the kernel completed; returns the number of descriptors.
    pub(crate) fn complete(&mut self, pool: &mut FramePool) -> usize {
        let mut completed = 0;
        while let Some(address) = self.completions.pop() {
            completed += 1;
            let sent = pool
                .frame_at(address)
                .map(|frame| (frame, &mut self.outstanding[frame.0 as usize]))
                .filter(|(_, held)| held.descriptors > 0);
            let Some((frame, held)) = sent else {
                self.counters.completions_foreign += 1;
                continue;
            };
            held.descriptors -= 1;
            self.outstanding_descriptors -= 1;
            pool.tx_finished(frame, 1);
        }
        if completed > 0 {
            self.completions.publish();
            self.counters.completions += completed as u64;
        }
        completed
    }

    /// Descriptors sent and not completed.
    pub(crate) fn outstanding(&self) -> u32 {
        self.outstanding_descriptors
    }

    /// The frames of these. Looks at every frame while there is one: for rare occasions.
    pub(crate) fn frames(&self) -> impl Iterator<Item = FrameIndex> + '_ {
        let outstanding = match self.outstanding_descriptors {
            0 => &[],
            _ => &self.outstanding[..],
        };
        let by_frame = (0..).map(FrameIndex).zip(outstanding);
        by_frame
            .filter(|(_, held)| held.descriptors > 0)
            .map(|(frame, _)| frame)
    }

    /// How long the oldest frame has waited for its completion. Looks at every frame while there is
    /// one (8 bytes each): for a timer, not for each round.
    pub(crate) fn oldest_age(&self, now: Duration) -> Option<Duration> {
        if self.outstanding_descriptors == 0 {
            return None;
        }
        let now_ms = wrapping_ms(now);
        let held = self.outstanding.iter().filter(|held| held.descriptors > 0);
        let age_ms = held.map(|held| now_ms.wrapping_sub(held.since_ms)).max()?;
        Some(Duration::from_millis(u64::from(age_ms)))
    }

    pub(crate) fn counters(&self) -> TransmitCounters {
        self.counters
    }

    /// Ends this half: what the kernel still holds, by frame.
    pub(crate) fn into_outstanding(self) -> Vec<(FrameIndex, u16)> {
        let by_frame = (0..).map(FrameIndex).zip(self.outstanding);
        by_frame
            .filter(|(_, held)| held.descriptors > 0)
            .map(|(frame, held)| (frame, held.descriptors))
            .collect()
    }
}

/// Milliseconds modulo 2^32 (49 days): ages are differences, and none gets near that.
fn wrapping_ms(now: Duration) -> u32 {
    now.as_millis() as u32
}
