//! What a subscriber is told: an event of 48 bytes, in the byte order of its subscription.
//!
//! ```text
//!  0 event   4 found lower   8 found upper   12 port   16 node   20 the subscription, verbatim
//! ```

use super::subscription::Subscription;
use crate::name::Publication;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum EventKind {
    /// A publication was made, or was there when the subscription came.
    Published = 1,
    /// A publication was withdrawn.
    Withdrawn = 2,
    /// The subscription's time is over. There will be no other event of it.
    Timeout = 3,
}

/// An event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// First instance of the publication, or of a subscription that timed out.
    pub found_lower: u32,
    /// Last instance likewise.
    pub found_upper: u32,
    /// Port of the socket; 0 with a timeout and for node states, the bearers' numbers for link states.
    pub port: u32,
    /// Node of the socket; 0 with a timeout.
    pub node: u32,
    /// The subscription it belongs to.
    pub subscription: Subscription,
}

impl Event {
    /// Size in bytes.
    pub const SIZE: usize = 20 + Subscription::SIZE;

    /// A change of a publication, as one subscription sees it: with the publication's own bounds.
    pub(super) fn of(kind: EventKind, publication: &Publication, to: Subscription) -> Self {
        Self {
            kind,
            found_lower: publication.range.lower,
            found_upper: publication.range.upper,
            port: publication.port,
            node: publication.node,
            subscription: to,
        }
    }

    /// The end of a subscription's time.
    pub(super) fn timeout(of: Subscription) -> Self {
        let range = of.range();
        Self {
            kind: EventKind::Timeout,
            found_lower: range.lower,
            found_upper: range.upper,
            port: 0,
            node: 0,
            subscription: of,
        }
    }

    /// The bytes for the subscriber, all numbers in its order. (Linux has the bounds of a timeout in the wrong order
    /// for a subscriber whose order is not the node's.)
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let (numbers, subscription) = bytes.split_at_mut(20);
        let words = [
            self.kind as u32,
            self.found_lower,
            self.found_upper,
            self.port,
            self.node,
        ];
        for (field, word) in numbers.chunks_exact_mut(4).zip(words) {
            field.copy_from_slice(&self.subscription.ordered(word).to_ne_bytes());
        }
        subscription.copy_from_slice(self.subscription.as_bytes());
        bytes
    }

    /// Reads an event; `None` if it is of no known kind.
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Option<Self> {
        let (numbers, subscription) = bytes.split_first_chunk::<20>()?;
        let subscription = Subscription::from_bytes(*subscription.first_chunk()?);
        let word = |at: usize| {
            let field = numbers[at..].first_chunk().expect("fields lie inside");
            subscription.ordered(u32::from_ne_bytes(*field))
        };
        let kind = match word(0) {
            1 => EventKind::Published,
            2 => EventKind::Withdrawn,
            3 => EventKind::Timeout,
            _ => return None,
        };
        Some(Self {
            kind,
            found_lower: word(4),
            found_upper: word(8),
            port: word(12),
            node: word(16),
            subscription,
        })
    }
}
