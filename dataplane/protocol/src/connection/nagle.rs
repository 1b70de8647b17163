//! Bundling of small pieces of a stream (`docs/protocol/connections.md`, Nagle).
//!
//! A sender that gets no answer begins to gather: what it writes joins a message of packet size, and
//! goes out when the peer acknowledges the one before, when anything else arrives, or when 64 blocks
//! are held. No timer is involved: the message sent last always asks for its acknowledgement.

use super::flow::Flow;
use crate::wire::size;

/// Messages sent without an answer before gathering begins.
const START: u16 = 4;
/// What that number grows to where gathering turns out useless.
const START_MAX: u16 = 1024;
/// Blocks that may be held.
pub const HELD_MAX: u32 = 64;

/// What becomes of a piece that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It waits.
    Hold,
    /// All that is held goes out.
    Send,
}

/// Whether and what to gather.
#[derive(Debug, Default)]
pub struct Nagle {
    /// Largest message that is gathered, header included; 0: none is.
    unit: u16,
    /// Messages sent since the last one that was received.
    oneway: u16,
    /// How many there may be before gathering begins.
    start: u16,
    /// A message that asks for an acknowledgement is under way, or held.
    expects_ack: bool,
    /// The last of the messages held asks for an acknowledgement.
    pub asks: bool,
    /// Pieces gathered and messages they made since the last such message.
    pieces: u32,
    messages: u32,
    /// The bytes held, which make messages of `unit` bytes.
    pub held: Vec<u8>,
}

impl Nagle {
    /// Gathers messages of up to `unit` bytes, header included.
    pub fn new(unit: usize) -> Self {
        Self {
            unit: unit.min(u16::MAX.into()) as u16,
            start: START,
            ..Self::default()
        }
    }

    /// Sends every piece at once from now on, or gathers again.
    pub fn set_unit(&mut self, unit: usize) {
        self.unit = unit.min(u16::MAX.into()) as u16;
        self.start = self.start.max(START);
    }

    /// Payload of a full message.
    pub fn piece(&self) -> usize {
        usize::from(self.unit).saturating_sub(size::SHORT).max(1)
    }

    /// Whether a piece of `len` bytes that is about to be sent is gathered. It counts as sent without
    /// an answer.
    pub fn gathers(&mut self, len: usize) -> bool {
        let begun = self.oneway >= self.start;
        self.oneway = self.oneway.saturating_add(1);
        begun && self.unit > 0 && len <= usize::from(self.unit)
    }

    /// A piece was added to what is held.
    pub fn on_added(&mut self, flow: &Flow) -> Verdict {
        self.pieces += 1;
        let held = self.held_units(flow);
        if held <= HELD_MAX && self.expects_ack {
            Verdict::Hold
        } else if held > HELD_MAX {
            self.messages += self.held_messages();
            Verdict::Send
        } else {
            (self.expects_ack, self.asks) = (true, true);
            (self.pieces, self.messages) = (0, 0);
            Verdict::Send
        }
    }

    /// An acknowledgement that was asked for has come: did gathering pay? If so, what is held now
    /// asks for one in turn.
    pub fn on_nagle_ack(&mut self) {
        self.messages += self.held_messages();
        let useless = self.messages == 0 || self.pieces / self.messages < 2;
        if useless {
            self.oneway = 0;
            self.start = (self.start * 2).clamp(START, START_MAX);
            self.expects_ack = false;
        } else {
            self.start = START;
            self.expects_ack = !self.held.is_empty();
        }
        self.asks = self.expects_ack;
        (self.pieces, self.messages) = (0, 0);
    }

    /// What is held is being sent for another reason than being too much.
    pub fn on_pushed(&mut self) {
        if self.pieces > 0 {
            self.messages += self.held_messages();
        }
    }

    /// Something was received.
    pub fn on_received(&mut self) {
        self.oneway = 0;
    }

    /// Messages that the held bytes make.
    pub fn held_messages(&self) -> u32 {
        self.held.len().div_ceil(self.piece()) as u32
    }

    /// What they count for flow control.
    pub fn held_units(&self, flow: &Flow) -> u32 {
        let piece = self.piece();
        let full = (self.held.len() / piece) as u32 * flow.units(size::SHORT + piece);
        match self.held.len() % piece {
            0 => full,
            rest => full + flow.units(size::SHORT + rest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(nagle: &mut Nagle, len: usize) -> Verdict {
        assert!(nagle.gathers(len));
        nagle.held.resize(nagle.held.len() + len, 0);
        nagle.on_added(&Flow::new(true))
    }

    fn send(nagle: &mut Nagle) {
        nagle.held.clear();
        nagle.asks = false;
    }

    fn begun() -> Nagle {
        let mut nagle = Nagle::new(1460);
        for _ in 0..START {
            assert!(!nagle.gathers(10), "the first four go out at once");
        }
        nagle
    }

    #[test]
    fn the_fifth_piece_asks_for_an_acknowledgement_and_the_next_wait_for_it() {
        let mut nagle = begun();
        assert_eq!(add(&mut nagle, 10), Verdict::Send);
        assert!(nagle.asks);
        send(&mut nagle);
        for _ in 0..100 {
            assert_eq!(add(&mut nagle, 10), Verdict::Hold);
        }
        // A hundred pieces in one message: it paid, so what is held asks again.
        nagle.on_nagle_ack();
        assert!(nagle.asks);
        nagle.on_pushed();
        send(&mut nagle);
        assert_eq!(add(&mut nagle, 10), Verdict::Hold);
    }

    #[test]
    fn gathering_that_does_not_pay_begins_later_each_time() {
        let mut nagle = begun();
        assert_eq!(add(&mut nagle, 10), Verdict::Send);
        send(&mut nagle);
        nagle.on_nagle_ack();
        assert!(!nagle.asks, "nothing was gathered meanwhile");
        let before = (0..).find(|_| nagle.gathers(10)).unwrap();
        assert_eq!(before, 8);
    }

    #[test]
    fn an_answer_starts_the_count_anew() {
        let mut nagle = begun();
        nagle.on_received();
        assert!(!nagle.gathers(10));
    }

    #[test]
    fn more_than_64_blocks_are_not_held() {
        let mut nagle = begun();
        assert_eq!(add(&mut nagle, 1), Verdict::Send);
        send(&mut nagle);
        let pieces = (1..)
            .find(|_| add(&mut nagle, 1436) != Verdict::Hold)
            .unwrap();
        // A full message of 1460 bytes counts two blocks.
        assert_eq!(pieces, 33);
    }

    #[test]
    fn pieces_longer_than_a_packet_and_streams_without_nagle_go_out_at_once() {
        let mut nagle = begun();
        assert!(!nagle.gathers(1461));
        let mut off = Nagle::new(0);
        assert!((0..2000).all(|_| !off.gathers(1)));
    }
}
