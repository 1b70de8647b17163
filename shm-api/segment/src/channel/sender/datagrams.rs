//! Datagrams: what is unread is bounded by a credit that the daemon gives, not by acknowledgements, and nobody waits: what
//! finds no room goes by the daemon.

use super::{ChannelSender, SWITCH, Sending};
use crate::channel::envelope::Envelope;
use crate::channel::memory::ENTRIES;
use crate::primitive::Ordering;
use crate::violation::Violation;

/// What a datagram counts beside its bytes in the receive buffer of its receiver.
pub const DATAGRAM_OVERHEAD: u32 = 512;

impl ChannelSender {
    /// Sends a datagram, if what is unread then counts at most `credit`. An entry is left for the switch back.
    ///
    /// # Panics
    /// If it is longer than [`crate::MESSAGE_LEN_MAX`].
    pub fn send_datagram(
        &mut self,
        envelope: &Envelope,
        payload: &[u8],
        credit: u64,
    ) -> Result<Sending, Violation> {
        if self.is_revoked() {
            return Ok(Sending::Revoked(None));
        }
        let cost = payload.len() as u64 + u64::from(DATAGRAM_OVERHEAD);
        if !self.is_within(cost, credit) {
            self.unread()?;
            let read = self.memory.consumed_bytes(self.side.other());
            // Honest receivers count what they were sent; who does not harms itself.
            self.consumed_bytes = read.load(Ordering::Relaxed).min(self.published_bytes);
            if !self.is_within(cost, credit) {
                return Ok(Sending::Congested);
            }
        }
        let number = self.messages.next();
        match self.lay_down(envelope, payload)? {
            true => Ok(self.call(number)),
            false => Ok(Sending::Congested),
        }
    }

    /// Messages that this side has sent.
    pub fn count(&self) -> u64 {
        self.published
    }

    /// As far as this side has seen.
    fn is_within(&self, cost: u64, credit: u64) -> bool {
        let under_way = self.messages.next().wrapping_sub(self.consumed);
        let unread = self.published_bytes - self.consumed_bytes
            + u64::from(under_way) * u64::from(DATAGRAM_OVERHEAD);
        under_way < ENTRIES - 1 && unread + cost <= credit
    }

    /// All that was sent and not consumed, oldest first, each cut to `len` bytes; of a channel whose other side is no more.
    pub fn take_unread(&mut self, len: usize) -> Result<Vec<(Envelope, Vec<u8>)>, Violation> {
        let count = self.unread()?;
        let numbers = (0..count).map(|at| self.consumed.wrapping_add(at));
        let unread = numbers.filter_map(|number| {
            let (kind, _, envelope) = self.sent[(number % ENTRIES) as usize].decode();
            (kind != SWITCH).then(|| (envelope, self.sent(number, len)))
        });
        Ok(unread.collect())
    }
}
