//! Flow control of a connection: by blocks of 1024 bytes, or by messages with peers that do not know
//! blocks (`docs/protocol/connections.md`, flow control).

use crate::wire::size;

/// Bytes of a block.
const BLOCK: usize = 1024;
/// Blocks either end may have under way before the first CONN_ACK: what any receiver has room for.
pub const INITIAL_WINDOW: u16 = 128;
/// Messages an end may have under way if they are counted instead.
const MESSAGE_WINDOW: u16 = 512;
/// An acknowledgement is due when this part of the window has been consumed.
const ACK_RATIO: u16 = 4;
/// Bytes of receive buffer behind a block of the advertised window.
const BUFFER_PER_BLOCK: u32 = 4 * BLOCK as u32;
/// Bytes that a message of a peer which counts messages may take.
const LARGEST_COST: u64 = size::MAX_PAYLOAD as u64 + crate::port::MESSAGE_OVERHEAD as u64;

/// The window that a receive buffer allows.
pub fn advertised_window(receive_buffer: u32) -> u16 {
    (receive_buffer / BUFFER_PER_BLOCK).clamp(1, u16::MAX.into()) as u16
}

/// What is under way on a connection, both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    by_block: bool,
    /// Sent and not acknowledged.
    unacked: u32,
    send_window: u16,
    /// Consumed and not yet acknowledged.
    consumed: u32,
    receive_window: u16,
    /// Largest window the peer was ever told: it is never taken back.
    granted: u16,
}

impl Default for Flow {
    fn default() -> Self {
        Self::new(true)
    }
}

impl Flow {
    /// Nothing under way, with a peer that counts blocks or messages.
    pub fn new(by_block: bool) -> Self {
        let window = if by_block {
            INITIAL_WINDOW
        } else {
            MESSAGE_WINDOW
        };
        Self {
            by_block,
            unacked: 0,
            send_window: window,
            consumed: 0,
            receive_window: window,
            granted: window,
        }
    }

    /// What a message of `len` bytes, header included, counts.
    pub fn units(&self, len: usize) -> u32 {
        if self.by_block {
            (len / BLOCK + 1) as u32
        } else {
            1
        }
    }

    /// True if the sender has to wait for the peer. A message that begins within the window may end
    /// beyond it.
    pub fn is_congested(&self) -> bool {
        self.unacked > u32::from(self.send_window)
    }

    /// Whether units are blocks of 1024 bytes, or messages.
    pub fn counts_blocks(&self) -> bool {
        self.by_block
    }

    /// Units under way to the peer, and how many may be before a sender waits.
    pub fn sent(&self) -> (u32, u16) {
        (self.unacked, self.send_window)
    }

    /// Notes that so much is being sent.
    pub fn on_sent(&mut self, units: u32) {
        self.unacked = self.unacked.saturating_add(units);
    }

    /// It could not be sent after all.
    pub fn on_unsent(&mut self, units: u32) {
        self.unacked = self.unacked.saturating_sub(units);
    }

    /// Whether a CONN_ACK may be believed: a peer cannot have consumed more than it was sent.
    pub fn is_plausible(&self, acked: u16) -> bool {
        u32::from(acked) <= self.unacked
    }

    /// The peer has consumed `acked` units and now has room for `window`. True if a waiting sender may
    /// go on.
    pub fn on_ack(&mut self, acked: u16, window: u16) -> bool {
        let waited = self.is_congested();
        self.unacked = self.unacked.saturating_sub(acked.into());
        if self.by_block {
            self.send_window = window;
        }
        waited && !self.is_congested()
    }

    /// A message of `payload` bytes was consumed. True if a CONN_ACK is due. It counts with the
    /// shortest header: an acknowledgement of more than the peer counted would be ignored.
    pub fn on_consumed(&mut self, payload: usize) -> bool {
        self.consumed += self.units(size::SHORT + payload);
        self.consumed >= u32::from((self.receive_window / ACK_RATIO).max(1))
    }

    /// True if a CONN_ACK becomes due when what waits is read: `waiting` messages, `bytes` with their bookkeeping.
    pub fn owes_when_read(&self, waiting: u32, bytes: u64) -> bool {
        let unread = if self.by_block {
            u64::from(waiting) + bytes / BLOCK as u64
        } else {
            waiting.into()
        };
        waiting > 0
            && u64::from(self.consumed) + unread
                >= u64::from((self.receive_window / ACK_RATIO).max(1))
    }

    /// What a CONN_ACK says now: units consumed, and the window, which is `receive_buffer`'s from now
    /// on.
    pub fn acknowledgement(&self, receive_buffer: u32) -> (u16, u16) {
        let acked = self.consumed.min(u16::MAX.into()) as u16;
        let window = if self.by_block {
            advertised_window(receive_buffer)
        } else {
            0
        };
        (acked, window)
    }

    /// Such a CONN_ACK was sent.
    pub fn on_ack_sent(&mut self, acked: u16, window: u16) {
        self.consumed -= u32::from(acked);
        if self.by_block {
            self.receive_window = window;
            self.granted = self.granted.max(window);
        }
    }

    /// It could not be sent after all.
    pub fn on_ack_unsent(&mut self, acked: u16) {
        self.consumed += u32::from(acked);
    }

    /// Bytes of bookkeeping and payload that the peer may make wait here.
    pub fn receive_limit(&self, receive_buffer: u32) -> u64 {
        let largest = (size::MAX_PAYLOAD / BLOCK + 1) as u64;
        let granted = u64::from(self.granted);
        let promised = if self.by_block {
            (granted + largest) * (BLOCK as u64 + u64::from(crate::port::MESSAGE_OVERHEAD))
        } else {
            (granted + 1) * LARGEST_COST
        };
        promised.max(receive_buffer.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_of_1000_byte_messages_stops_at_65_and_the_receiver_acks_after_16() {
        let (mut sender, mut receiver) = (Flow::new(true), Flow::new(true));
        let mut sent = 0;
        while !sender.is_congested() {
            sender.on_sent(sender.units(1024));
            sent += 1;
        }
        assert_eq!((sent, sender.sent()), (65, (130, 128)));
        let read = (1..).find(|_| receiver.on_consumed(1000)).unwrap();
        let (acked, window) = receiver.acknowledgement(2 << 20);
        assert_eq!((read, acked, window), (16, 32, 512));
        receiver.on_ack_sent(acked, window);
        assert!(sender.on_ack(acked, window), "the sender may go on");
        // From now on an acknowledgement comes at a quarter of the larger window.
        let read = (1..).find(|_| receiver.on_consumed(1000)).unwrap();
        assert_eq!(read, 64);
    }

    #[test]
    fn a_message_costs_its_size_in_blocks_rounded_up_beyond_a_full_one() {
        let flow = Flow::new(true);
        let units = [24, 1023, 1024, 2047, 2048, 66_024].map(|len| flow.units(len));
        assert_eq!(units, [1, 1, 2, 2, 3, 65]);
        let messages = Flow::new(false);
        assert_eq!([24, 66_024].map(|len| messages.units(len)), [1, 1]);
    }

    #[test]
    fn messages_are_counted_with_a_window_that_stays_512() {
        let (mut sender, mut receiver) = (Flow::new(false), Flow::new(false));
        let sent = (1..)
            .find(|_| {
                sender.on_sent(sender.units(66_024));
                sender.is_congested()
            })
            .unwrap();
        assert_eq!(sent, 513);
        let read = (1..).find(|_| receiver.on_consumed(66_000)).unwrap();
        let (acked, window) = receiver.acknowledgement(2 << 20);
        assert_eq!((read, acked, window), (128, 128, 0));
        assert!(sender.on_ack(acked, window));
        assert_eq!(sender.sent(), (385, 512));
    }

    #[test]
    fn no_message_within_the_windows_ever_granted_meets_the_receive_limit() {
        for by_block in [true, false] {
            let flow = Flow::new(by_block);
            for payload in [1, 999, 1000, 1001, 66_000] {
                let mut sender = flow;
                let mut waiting = 0;
                while !sender.is_congested() {
                    sender.on_sent(sender.units(size::SHORT + payload));
                    waiting += payload as u64 + u64::from(crate::port::MESSAGE_OVERHEAD);
                }
                assert!(waiting <= flow.receive_limit(0), "{payload}");
            }
        }
    }

    #[test]
    fn every_receive_buffer_advertises_at_least_one_block() {
        let windows = [0, 2304, 4096, 2 << 20, 16 << 20, u32::MAX].map(advertised_window);
        assert_eq!(windows, [1, 1, 1, 512, 4096, u16::MAX]);
    }
}
