//! How long a receiver lets a late packet come by itself before it asks for it (`docs/protocol/link.md`, receiving).
//!
//! Owned by the link. A gap mostly means a loss, and then asking at once is best: so it begins. But senders misorder
//! too: Linux numbers packets under a lock and hands them to the device after it, so that a thread which is preempted
//! in between is overtaken by others. What is asked for then comes twice. When half of what was asked for turns out
//! to have been under way, the receiver waits from now on as long as it should have waited, and asks again no sooner
//! either; when nearly all was needed, it waits half as long.

use crate::time::Instant;
use crate::wire::GapBlocks;
use std::time::Duration;

/// Longest wait: what a link loses per real loss at most. Senders under load were seen to be late by 8 ms (Linux 7.3,
/// one emulated processor).
const SPAN_MAX: Duration = Duration::from_millis(20);
/// Shortest wait: timers have no finer grain.
const SPAN_MIN: Duration = Duration::from_millis(1);
/// Packets asked for between two judgements that shorten the wait.
const REVIEW: u32 = 64;

/// The patience of one receiving end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Patience {
    /// The wait in nanoseconds: a [`Duration`] takes four times the room, in every link.
    span_ns: u32,
    /// Packets taken in order so far, which is the number of the next one; unlike the link's, it hardly ever wraps.
    next: u32,
    /// First and last number asked for since the last judgement.
    range: (u32, u32),
    asked: u32,
    unneeded: u32,
    /// When the gap was noticed that was asked for last, and when that was.
    noticed: Instant,
    asked_at: Instant,
}

impl Patience {
    /// The next packet in order has come.
    #[inline]
    pub(super) fn on_accepted(&mut self) {
        self.next = self.next.wrapping_add(1);
    }

    /// When to ask for what is missing before a packet that came at `noticed`.
    pub(super) fn due_at(&self, noticed: Instant) -> Instant {
        if !self.waits() {
            return noticed;
        }
        noticed.max(self.asked_at) + Duration::from_nanos(self.span_ns.into())
    }

    /// True if there is something to wait for at all.
    pub(super) fn waits(&self) -> bool {
        self.span_ns > 0
    }

    /// `gap` packets from the next one on are asked for, and those in the gaps of `blocks`, whose numbers `ahead`
    /// turns into distances from the next one.
    pub(super) fn on_asked(
        &mut self,
        now: Instant,
        noticed: Instant,
        gap: u16,
        blocks: GapBlocks<'_>,
        ahead: impl Fn(u16) -> u16,
    ) {
        if self.asked >= REVIEW {
            self.judge();
        }
        (self.noticed, self.asked_at) = (noticed, now);
        self.ask(0, gap);
        for block in blocks.iter() {
            self.ask(ahead(block.ack).wrapping_add(1), block.gap);
        }
    }

    fn ask(&mut self, start: u16, count: u16) {
        if count == 0 {
            return;
        }
        let first = self.next.wrapping_add(start.into());
        let last = first.wrapping_add(u32::from(count) - 1);
        if self.asked == 0 {
            self.range = (first, first.wrapping_sub(1));
        }
        let asked_to = self.range.1;
        if is_after(last, asked_to) {
            let begin = if is_after(first, asked_to) {
                first.wrapping_sub(1)
            } else {
                asked_to
            };
            self.asked += last.wrapping_sub(begin);
            self.range.1 = last;
        }
    }

    /// A packet came that was here already, `ahead` of the next one expected (or behind it, if negative).
    pub(super) fn on_duplicate(&mut self, now: Instant, ahead: i16) {
        let number = self.next.wrapping_add_signed(ahead.into());
        let (first, last) = self.range;
        if self.asked == 0 || is_after(first, number) || is_after(number, last) {
            return;
        }
        self.unneeded += 1;
        if self.unneeded > 1 && self.unneeded * 2 >= self.asked {
            let late = now.since(self.noticed).clamp(SPAN_MIN, SPAN_MAX);
            self.span_ns = self.span_ns.max(late.as_nanos() as u32);
            (self.asked, self.unneeded) = (0, 0);
        }
    }

    fn judge(&mut self) {
        if self.unneeded * 8 <= self.asked {
            self.span_ns /= 2;
            if u128::from(self.span_ns) < SPAN_MIN.as_nanos() {
                self.span_ns = 0;
            }
        }
        (self.asked, self.unneeded) = (0, 0);
    }
}

fn is_after(number: u32, other: u32) -> bool {
    number.wrapping_sub(other).cast_signed() > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{GapBlock, GapList};

    const MS: u64 = 1_000_000;

    fn at(ms: u64) -> Instant {
        Instant(ms * MS)
    }

    /// Asks for `count` packets from the next one on, noticed at 0 ms, at 1 ms.
    fn ask(patience: &mut Patience, count: u16) {
        patience.on_asked(at(1), at(0), count, GapBlocks::default(), |number| number);
    }

    #[test]
    fn asks_at_once_until_what_was_asked_for_comes_twice() {
        let mut patience = Patience::default();
        assert_eq!(patience.due_at(at(5)), at(5));
        ask(&mut patience, 4);
        (0..4).for_each(|_| patience.on_accepted());
        patience.on_duplicate(at(7), -4);
        assert!(!patience.waits());
        patience.on_duplicate(at(7), -3);
        // Seven milliseconds after the gap was noticed all of it was there.
        assert_eq!(patience.due_at(at(100)), at(107));
    }

    #[test]
    fn copies_of_what_was_not_asked_for_prove_nothing() {
        let mut patience = Patience::default();
        ask(&mut patience, 2);
        for ahead in [-1, 2, 3, 100] {
            (0..10).for_each(|_| patience.on_duplicate(at(9), ahead));
        }
        assert!(!patience.waits());
    }

    #[test]
    fn what_lies_in_the_gaps_of_blocks_is_asked_for_too_and_counted_once() {
        let mut patience = Patience::default();
        let mut list = GapList::default();
        list.extend([GapBlock { ack: 105, gap: 3 }, GapBlock { ack: 110, gap: 0 }]);
        for _ in 0..5 {
            patience.on_asked(at(1), at(0), 2, list.blocks(), |number| number - 100);
        }
        // 0 1, and 6 7 8, of which 2 to 5 lie in between and came before.
        assert_eq!((patience.asked, patience.range), (5, (0, 8)));
    }

    #[test]
    fn real_losses_shorten_the_wait_again() {
        let mut patience = Patience {
            span_ns: 5_000_000,
            ..Patience::default()
        };
        let mut spans = Vec::new();
        for _ in 0..6 * REVIEW {
            ask(&mut patience, 1);
            patience.on_accepted();
            spans.push(patience.span_ns);
        }
        spans.dedup();
        assert_eq!(spans, [5_000_000, 2_500_000, 1_250_000, 0]);
    }

    #[test]
    fn the_wait_has_a_limit_and_asking_again_waits_as_long() {
        let mut patience = Patience::default();
        ask(&mut patience, 2);
        patience.on_duplicate(at(900), 0);
        patience.on_duplicate(at(900), 1);
        assert_eq!(patience.due_at(at(1000)), at(1020));
        patience.on_asked(at(1020), at(1000), 1, GapBlocks::default(), |n| n);
        assert_eq!(patience.due_at(at(1000)), at(1040));
    }

    #[test]
    fn numbers_wrap() {
        let mut patience = Patience {
            next: u32::MAX,
            ..Patience::default()
        };
        ask(&mut patience, 4);
        assert_eq!((patience.asked, patience.range), (4, (u32::MAX, 2)));
        (0..4).for_each(|_| patience.on_accepted());
        patience.on_duplicate(at(2), -2);
        patience.on_duplicate(at(2), -4);
        assert!(patience.waits());
    }
}
