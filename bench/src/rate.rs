//! The message-rate kind: one end sends as fast as it can, the other counts.
//!
//! The rate is that of the receiver: messages after the first one, over the time from the first to the last. Every
//! message is numbered, so that what was sent is known to be received, returned to its sender, or lost, and nothing
//! counts twice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

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
    /// Waits for messages, at most [`SINK_PATIENCE`], and tells the number of each.
    fn receive(&mut self, seen: &mut dyn FnMut(u64)) -> Result<()>;
}

/// What a sender tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sent {
    pub(crate) messages: u64,
    /// Rejected by the receiver.
    pub(crate) returned: u64,
}

/// What a receiver tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Received {
    pub(crate) messages: u64,
    /// Came after a later one, or again.
    pub(crate) out_of_order: u64,
    /// From the first to the last.
    pub(crate) nanoseconds: u64,
}

/// Both sides of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Flow {
    pub(crate) messages_per_second: f64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) returned: u64,
    pub(crate) lost: u64,
    pub(crate) out_of_order: u64,
    /// Packets of the sender's node, where they are known.
    pub(crate) packets: Option<u64>,
}

impl Flow {
    /// `None` if so few were received that there is no rate.
    pub(crate) fn of(sent: Sent, received: Received, packets: Option<u64>) -> Option<Self> {
        let seconds = received.nanoseconds as f64 / 1e9;
        (received.messages > 1 && seconds > 0.0).then(|| Self {
            messages_per_second: (received.messages - 1) as f64 / seconds,
            sent: sent.messages,
            received: received.messages,
            returned: sent.returned,
            lost: sent
                .messages
                .saturating_sub(received.messages + sent.returned),
            out_of_order: received.out_of_order,
            packets,
        })
    }
}

/// Sends for so long.
pub(crate) fn send(source: &mut dyn Source, duration: Duration) -> Result<Sent> {
    let mut messages = 0;
    let begun = Instant::now();
    while begun.elapsed() < duration {
        messages += source.send(messages)?;
    }
    let returned = source.settle()?;
    Ok(Sent { messages, returned })
}

/// Receives until `finished`, and then what is still under way.
pub(crate) fn receive(sink: &mut dyn Sink, finished: &AtomicBool) -> Result<Received> {
    let mut received = Received::default();
    let mut next = 0;
    let mut first: Option<Instant> = None;
    let mut last = Instant::now();
    loop {
        let before = received.messages;
        sink.receive(&mut |number| {
            received.messages += 1;
            if number < next {
                received.out_of_order += 1;
            } else {
                next = number + 1;
            }
        })?;
        let now = Instant::now();
        if received.messages > before {
            last = now;
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
    struct Script(Vec<Vec<u64>>);

    impl Sink for Script {
        fn receive(&mut self, seen: &mut dyn FnMut(u64)) -> Result<()> {
            std::thread::sleep(Duration::from_millis(1));
            if !self.0.is_empty() {
                self.0.remove(0).into_iter().for_each(seen);
            }
            Ok(())
        }
    }

    #[test]
    fn a_receiver_counts_each_message_and_what_is_out_of_order() {
        let mut sink = Script(vec![vec![0, 1], vec![2, 5, 4, 5], vec![6]]);
        let received = receive(&mut sink, &AtomicBool::new(true)).unwrap();
        assert_eq!((received.messages, received.out_of_order), (7, 2));
        let elapsed = Duration::from_nanos(received.nanoseconds);
        assert!(elapsed >= Duration::from_millis(2), "{elapsed:?}");
        assert!(elapsed < QUIET, "the wait for more does not count");
    }

    #[test]
    fn every_message_sent_is_received_returned_or_lost() {
        let sent = Sent {
            messages: 1000,
            returned: 100,
        };
        let received = Received {
            messages: 801,
            out_of_order: 0,
            nanoseconds: 1_000_000,
        };
        let flow = Flow::of(sent, received, None).unwrap();
        assert_eq!(flow.lost, 99);
        assert_eq!(flow.messages_per_second, 800_000.0);
        assert_eq!(Flow::of(sent, Received::default(), None), None);
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
        let sent = send(&mut source, Duration::from_millis(1)).unwrap();
        assert_eq!(sent.messages, source.0);
        assert_eq!(sent.returned, 3);
    }
}
