//! The message-rate kind: one end sends as fast as it can, the other counts.
//!
//! The rate is that of the receiver: messages after the first one, over the time from the first to the last. Every
//! message is numbered, so that what was sent is known to be received, returned to its sender, or lost, and nothing
//! counts twice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::extent::Extent;

/// Messages in one call, where a subject can send several.
pub(crate) const BATCH: usize = 64;
/// How long a sink waits at most before it says that nothing came.
pub(crate) const SINK_PATIENCE: Duration = Duration::from_millis(20);
/// The sender has finished: what does not come within this time is lost.
const QUIET: Duration = Duration::from_millis(100);

/// The end that sends.
pub(crate) trait Source {
    /// Sends a batch of messages, numbered from `first`; gives how many.
    fn send(&mut self, first: u64) -> Result<u64>;

    /// After the last: waits until all have left. Gives how many came back.
    fn settle(&mut self) -> Result<u64> {
        Ok(0)
    }
}

/// The end that receives.
pub(crate) trait Sink {
    /// Waits for messages, at most [`SINK_PATIENCE`], and shows each.
    fn receive(&mut self, seen: &mut dyn FnMut(&[u8])) -> Result<()>;
}

/// Writes the number of a message into its first eight bytes, or into all it has.
pub(crate) fn put_number(message: &mut [u8], number: u64) {
    let bytes = number.to_le_bytes();
    let len = message.len().min(bytes.len());
    message[..len].copy_from_slice(&bytes[..len]);
}

/// The number of a message, where the next one is expected to be `next`: short messages have its lowest bytes only.
fn number_of(message: &[u8], next: u64) -> u64 {
    let mut bytes = [0; 8];
    let len = message.len().min(bytes.len());
    bytes[..len].copy_from_slice(&message[..len]);
    let number = u64::from_le_bytes(bytes);
    match 1_u64.checked_shl(8 * len as u32) {
        None => number,
        // The one of those with these bytes that is nearest to what is expected.
        Some(span) => {
            let ahead = number.wrapping_sub(next) % span;
            if ahead < span / 2 || next < span - ahead {
                next + ahead
            } else {
                next - (span - ahead)
            }
        }
    }
}

/// What a sender tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sent {
    pub(crate) messages: u64,
    /// Rejected by the receiver.
    pub(crate) returned: u64,
    /// When it began, by this host's monotonic clock.
    pub(crate) begun_ns: u64,
}

/// What a receiver tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Received {
    pub(crate) messages: u64,
    /// Came after a later one, or again.
    pub(crate) out_of_order: u64,
    /// From the first to the last.
    pub(crate) nanoseconds: u64,
    /// When the last one came, by this host's monotonic clock.
    pub(crate) ended_ns: u64,
}

/// Both sides of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Flow {
    /// Of all receiving sockets together.
    pub(crate) messages_per_second: f64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) returned: u64,
    pub(crate) lost: u64,
    pub(crate) out_of_order: u64,
    /// Packets of the sender's node, where they are known.
    pub(crate) packets: Option<u64>,
    /// The share of what could go by a direct channel that did, where there is such.
    pub(crate) direct: Option<f64>,
}

impl Flow {
    /// The same where every message counts from when the sender began: all its work is in the time.
    pub(crate) fn whole(sent: Sent, mut received: Received, packets: Option<u64>) -> Option<Self> {
        received.nanoseconds = received.ended_ns.saturating_sub(sent.begun_ns);
        Self::of(sent, received, 1, packets)
    }

    /// Whether more came than was sent. Each message goes to so many `copies`.
    pub(crate) const fn is_doubled(&self, copies: usize) -> bool {
        self.received + self.returned > self.sent * copies as u64
    }

    /// `None` if so few were received that there is no rate. Each message goes to so many `copies`.
    pub(crate) fn of(
        sent: Sent,
        received: Received,
        copies: usize,
        packets: Option<u64>,
    ) -> Option<Self> {
        let due = sent.messages * copies as u64;
        let seconds = received.nanoseconds as f64 / 1e9;
        (received.messages > 1 && seconds > 0.0).then(|| Self {
            messages_per_second: (received.messages - 1) as f64 / seconds,
            sent: sent.messages,
            received: received.messages,
            returned: sent.returned,
            lost: due.saturating_sub(received.messages + sent.returned),
            out_of_order: received.out_of_order,
            packets,
            direct: None,
        })
    }
}

/// Of a clock that all processes of a host share.
fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Sends for so long.
pub(crate) fn send(source: &mut dyn Source, extent: &Extent) -> Result<Sent> {
    let mut messages = 0;
    let (begun_ns, begun) = (monotonic_ns(), Instant::now());
    while !extent.is_over(messages, begun.elapsed()) {
        messages += source.send(messages)?;
    }
    let returned = source.settle()?;
    Ok(Sent {
        messages,
        returned,
        begun_ns,
    })
}

/// Receives until `finished`, and then what is still under way.
///
/// With `copies` sockets each message comes so many times: only counted.
pub(crate) fn receive(
    sink: &mut dyn Sink,
    copies: usize,
    finished: &AtomicBool,
) -> Result<Received> {
    let mut received = Received::default();
    let mut next = 0;
    let mut first: Option<Instant> = None;
    let mut last = Instant::now();
    loop {
        let before = received.messages;
        sink.receive(&mut |message| {
            received.messages += 1;
            let number = number_of(message, next);
            if copies == 1 && number < next {
                received.out_of_order += 1;
            } else {
                next = number + 1;
            }
        })?;
        let now = Instant::now();
        if received.messages > before {
            last = now;
            received.ended_ns = monotonic_ns();
            first.get_or_insert(now);
        } else if finished.load(Ordering::Relaxed) && now - last > QUIET {
            let first = first.context("no message came")?;
            received.nanoseconds = (last - first).as_nanos().try_into()?;
            return Ok(received);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands out batches of numbers, then nothing.
    struct Script(Vec<Vec<u64>>, usize);

    impl Sink for Script {
        fn receive(&mut self, seen: &mut dyn FnMut(&[u8])) -> Result<()> {
            std::thread::sleep(Duration::from_millis(1));
            if !self.0.is_empty() {
                for number in self.0.remove(0) {
                    let mut message = vec![0; self.1];
                    put_number(&mut message, number);
                    seen(&message);
                }
            }
            Ok(())
        }
    }

    #[test]
    fn a_receiver_counts_each_message_and_what_is_out_of_order() {
        let mut sink = Script(vec![vec![0, 1], vec![2, 5, 4, 5], vec![6]], 8);
        let begun = Instant::now();
        let received = receive(&mut sink, 1, &AtomicBool::new(true)).unwrap();
        assert_eq!((received.messages, received.out_of_order), (7, 2));
        let elapsed = Duration::from_nanos(received.nanoseconds);
        assert!(elapsed >= Duration::from_millis(2), "{elapsed:?}");
        let all = begun.elapsed();
        assert!(all >= elapsed + QUIET, "the wait for more does not count");
    }

    #[test]
    fn numbers_of_short_messages_go_round_and_gaps_in_them_are_gaps() {
        let numbers: Vec<u64> = (0..600).filter(|n| n % 7 != 3).collect();
        let expected = numbers.len() as u64;
        let mut sink = Script(vec![numbers, vec![598]], 1);
        let received = receive(&mut sink, 1, &AtomicBool::new(true)).unwrap();
        assert_eq!(received.messages, expected + 1);
        assert_eq!(received.out_of_order, 1, "only the last one, which is old");
    }

    #[test]
    fn every_message_sent_is_received_returned_or_lost() {
        let sent = Sent {
            messages: 1000,
            returned: 100,
            begun_ns: 5_000,
        };
        let received = Received {
            messages: 801,
            out_of_order: 0,
            nanoseconds: 1_000_000,
            ended_ns: 2_005_000,
        };
        let flow = Flow::of(sent, received, 1, None).unwrap();
        assert_eq!(flow.lost, 99);
        assert_eq!(Flow::of(sent, received, 2, None).unwrap().lost, 1099);
        assert!(!flow.is_doubled(1));
        let more = Received {
            messages: 901,
            ..received
        };
        assert!(Flow::of(sent, more, 1, None).unwrap().is_doubled(1));
        assert_eq!(flow.messages_per_second, 800_000.0);
        let whole = Flow::whole(sent, received, None).unwrap();
        assert_eq!(whole.messages_per_second, 400_000.0);
        assert_eq!(Flow::of(sent, Received::default(), 1, None), None);
    }

    struct Counter(u64);

    impl Source for Counter {
        fn send(&mut self, first: u64) -> Result<u64> {
            assert_eq!(first, self.0);
            self.0 += 10;
            Ok(10)
        }

        fn settle(&mut self) -> Result<u64> {
            Ok(3)
        }
    }

    #[test]
    fn a_sender_numbers_its_messages_and_tells_what_came_back() {
        let mut source = Counter(0);
        let extent = Extent::Lasting(Duration::from_millis(1));
        let sent = send(&mut source, &extent).unwrap();
        assert_eq!(sent.messages, source.0);
        assert_eq!(sent.returned, 3);
    }
}
