//! One direction of the wire: which frame is lost, doubled, held back or changed, and when each goes on.
//!
//! Without I/O and without a clock: time is an argument, counted from any fixed point. What happens to frame *n* of
//! a direction follows from the seed and *n* alone (bursts of loss also from the frames before), never from the
//! frame's content or time, so a run that sends the same frames meets the same faults.
//!
//! A frame passes two places. In the first a reordered frame may wait for others to overtake it
//! ([`Faults::behind`]); the second is the wire itself, where every frame stays for its delay and a
//! reordered one for longer. Without reordering a direction keeps the order, whatever the jitter.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use serde::Serialize;
use xtipc_sim::rng::Rng;

/// Frames that a direction holds at most; more are dropped and counted. At 100,000 frames/s this is over half
/// a second of delay.
pub(crate) const HELD_MAX: usize = 1 << 16;
/// Bytes of an Ethernet header, which corruption leaves alone: TIPC has no say in it.
const ETHERNET_HEADER: usize = 14;
/// Whole of a [`Share`].
const WHOLE: u64 = 1_000_000;

/// A part of the frames, in millionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share(pub(crate) u32);

/// What goes wrong in a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Faults {
    /// Frames that do not arrive.
    pub(crate) loss: Share,
    /// Losses come in runs of so many frames, at the same share of all frames.
    pub(crate) burst: u32,
    /// Frames that arrive twice.
    pub(crate) duplication: Share,
    /// Frames that are held back, so that later ones overtake them.
    pub(crate) reordering: Share,
    /// Longest time a reordered frame is held back.
    pub(crate) straggle: Duration,
    /// A reordered frame goes on as soon as so many later frames have overtaken it, at the latest after `straggle`.
    /// 0: after a random time up to `straggle`.
    pub(crate) behind: u32,
    /// Frames with a changed byte.
    pub(crate) corruption: Share,
    /// The changed byte is among the first so many after the Ethernet header.
    pub(crate) corrupt_within: usize,
    /// Time that every frame takes.
    pub(crate) delay: Duration,
    /// Longest additional time of a frame.
    pub(crate) jitter: Duration,
}

/// What happened to the frames of a direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counters {
    /// Frames taken from the interface.
    pub(crate) frames: u64,
    /// Bytes in them.
    pub(crate) bytes: u64,
    /// Lost by decision.
    pub(crate) lost: u64,
    /// Changed in one byte.
    pub(crate) corrupted: u64,
    /// Sent twice.
    pub(crate) duplicated: u64,
    /// Copies held back.
    pub(crate) reordered: u64,
    /// Dropped since the direction held too many already.
    pub(crate) overflow: u64,
    /// Frames given to the other interface.
    pub(crate) sent: u64,
    /// Refused by the other interface.
    pub(crate) refused: u64,
}

/// The other interface did not take a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused;

/// What one copy of a frame meets.
#[derive(Clone, Copy, Debug)]
struct Passage {
    /// How long it is held back, if it is.
    late: Option<Duration>,
    jitter: Duration,
}

/// What is drawn for one frame.
#[derive(Clone, Copy, Debug)]
struct Fate {
    starts_loss: bool,
    /// Random place of the changed byte, and what it is combined with.
    change: Option<(u64, u8)>,
    doubled: bool,
    passages: [Passage; 2],
}

/// A frame on the wire; the first field decides who goes on first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    due: Duration,
    serial: u64,
    slot: usize,
}

/// A frame that waits for others to overtake it.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// Goes on when this many frames have come.
    after: u64,
    /// Goes on then at the latest.
    latest: Duration,
    passage: Passage,
    slot: usize,
}

/// One direction of the wire.
#[derive(Debug)]
pub(crate) struct Direction {
    faults: Faults,
    seed: u64,
    /// Losses still to come of the burst.
    burst_left: u32,
    /// When the last frame in order is due: none may overtake it.
    last_due: Duration,
    waiting: VecDeque<Waiting>,
    wire: BinaryHeap<Reverse<Held>>,
    slots: Vec<Vec<u8>>,
    free: Vec<usize>,
    serial: u64,
    /// What has happened so far.
    pub(crate) counters: Counters,
}

impl Direction {
    /// A direction without frames. The two directions of a wire take their decisions apart: `number` is 0 or 1.
    pub(crate) fn new(faults: Faults, seed: u64, number: u64) -> Self {
        let mut rng = Rng::new(seed);
        for _ in 0..number {
            rng.next_u64();
        }
        Self {
            faults,
            seed: rng.next_u64(),
            burst_left: 0,
            last_due: Duration::ZERO,
            waiting: VecDeque::new(),
            wire: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            serial: 0,
            counters: Counters::default(),
        }
    }

    /// Takes a frame from the interface; what goes on at once is given to `send`. The frame's bytes may be changed.
    pub(crate) fn take(
        &mut self,
        now: Duration,
        frame: &mut [u8],
        mut send: impl FnMut(&[u8]) -> Result<(), Refused>,
    ) {
        let fate = self.fate(self.counters.frames);
        self.counters.frames += 1;
        self.counters.bytes += frame.len() as u64;
        if self.loses(fate.starts_loss) {
            self.counters.lost += 1;
        } else {
            self.change(frame, fate.change);
            self.counters.duplicated += u64::from(fate.doubled);
            let copies = 1 + usize::from(fate.doubled);
            for passage in &fate.passages[..copies] {
                self.route(now, frame, *passage, &mut send);
            }
        }
        self.release(now, send);
    }

    /// Gives all frames that are due to `send`.
    pub(crate) fn release(
        &mut self,
        now: Duration,
        mut send: impl FnMut(&[u8]) -> Result<(), Refused>,
    ) {
        while let Some(first) = self.waiting.front() {
            if first.after > self.counters.frames && first.latest > now {
                break;
            }
            if let Some(waiting) = self.waiting.pop_front() {
                self.launch(now, waiting.slot, waiting.passage.jitter);
            }
        }
        while let Some(Reverse(first)) = self.wire.peek()
            && first.due <= now
        {
            let slot = first.slot;
            self.wire.pop();
            let result = send(&self.slots[slot]);
            self.count_sent(result);
            self.free.push(slot);
        }
    }

    /// When to call [`Self::release`] next.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        let waiting = self.waiting.front().map(|waiting| waiting.latest);
        let wire = self.wire.peek().map(|Reverse(held)| held.due);
        waiting.into_iter().chain(wire).min()
    }

    /// Frames held now.
    pub(crate) fn held(&self) -> usize {
        self.waiting.len() + self.wire.len()
    }

    fn fate(&self, number: u64) -> Fate {
        // Each frame has a generator of its own; a step of the generator is far from that of the next frame.
        let mut rng = Rng::new(self.seed ^ number.wrapping_mul(0xd134_2543_de82_ef95));
        let faults = &self.faults;
        let starts_loss = rng.below(WHOLE) < burst_start(faults.loss, faults.burst);
        let changes = draw(&mut rng, faults.corruption);
        let change = (rng.next_u64(), 1 + rng.below(255) as u8);
        let doubled = draw(&mut rng, faults.duplication);
        let passages = [(); 2].map(|()| {
            let is_late = draw(&mut rng, faults.reordering);
            let late = up_to(&mut rng, faults.straggle);
            Passage {
                late: is_late.then_some(late),
                jitter: up_to(&mut rng, faults.jitter),
            }
        });
        Fate {
            starts_loss,
            change: changes.then_some(change),
            doubled,
            passages,
        }
    }

    fn loses(&mut self, starts: bool) -> bool {
        if self.burst_left > 0 {
            self.burst_left -= 1;
            return true;
        }
        if starts {
            self.burst_left = self.faults.burst.saturating_sub(1);
        }
        starts
    }

    fn change(&mut self, frame: &mut [u8], change: Option<(u64, u8)>) {
        let Some((place, mask)) = change else {
            return;
        };
        let body = frame.get_mut(ETHERNET_HEADER..).unwrap_or_default();
        let within = body.len().min(self.faults.corrupt_within);
        if within > 0 {
            body[(place % within as u64) as usize] ^= mask;
            self.counters.corrupted += 1;
        }
    }

    fn route(
        &mut self,
        now: Duration,
        frame: &[u8],
        passage: Passage,
        send: &mut impl FnMut(&[u8]) -> Result<(), Refused>,
    ) {
        self.counters.reordered += u64::from(passage.late.is_some());
        let delay = self.faults.delay + passage.jitter;
        if passage.late.is_none() && delay.is_zero() && self.is_clear() {
            let result = send(frame);
            self.count_sent(result);
            return;
        }
        let Some(slot) = self.store(frame) else {
            self.counters.overflow += 1;
            return;
        };
        match passage.late {
            Some(_) if self.faults.behind > 0 => self.waiting.push_back(Waiting {
                after: self.counters.frames + u64::from(self.faults.behind),
                latest: now + self.faults.straggle,
                passage,
                slot,
            }),
            Some(late) => self.put(now + delay + late, slot),
            None => self.launch(now, slot, passage.jitter),
        }
    }

    /// True if a frame in order need not wait for another one in order.
    fn is_clear(&self) -> bool {
        self.faults.delay.is_zero() && self.faults.jitter.is_zero()
    }

    /// Puts a frame on the wire behind those that are there in order.
    fn launch(&mut self, now: Duration, slot: usize, jitter: Duration) {
        self.last_due = self.last_due.max(now + self.faults.delay + jitter);
        self.put(self.last_due, slot);
    }

    fn put(&mut self, due: Duration, slot: usize) {
        self.serial += 1;
        let serial = self.serial;
        self.wire.push(Reverse(Held { due, serial, slot }));
    }

    fn store(&mut self, frame: &[u8]) -> Option<usize> {
        if self.held() >= HELD_MAX {
            return None;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Vec::new());
            self.slots.len() - 1
        });
        self.slots[slot].clear();
        self.slots[slot].extend_from_slice(frame);
        Some(slot)
    }

    fn count_sent(&mut self, result: Result<(), Refused>) {
        match result {
            Ok(()) => self.counters.sent += 1,
            Err(Refused) => self.counters.refused += 1,
        }
    }
}

/// In millionths, how often a burst has to start outside of bursts for `loss` of all frames to be lost.
fn burst_start(loss: Share, burst: u32) -> u64 {
    let (loss, burst) = (u64::from(loss.0), u64::from(burst.max(1)));
    match burst * (WHOLE - loss) + loss {
        0 => 0,
        frames => loss * WHOLE / frames,
    }
}

fn draw(rng: &mut Rng, share: Share) -> bool {
    rng.below(WHOLE) < u64::from(share.0)
}

fn up_to(rng: &mut Rng, longest: Duration) -> Duration {
    Duration::from_nanos(rng.below(longest.as_nanos() as u64 + 1))
}

#[cfg(test)]
mod tests;
