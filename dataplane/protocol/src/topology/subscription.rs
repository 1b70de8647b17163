//! What a subscriber sends: a subscription of 28 bytes, in its own byte order, or the same with CANCEL set.
//!
//! ```text
//!  0 type   4 lower   8 upper   12 timeout in ms   16 filter   20 user handle (8 bytes, never looked at)
//! ```
//!
//! The filter tells the order: if, read in the node's own, it has none of PORTS, SERVICE and CANCEL, the subscriber's
//! order is the other one. Whatever came comes back verbatim in events, so it is kept as it came.

use super::filter::Filter;
use crate::name::ServiceRange;
use std::fmt;
use std::time::Duration;

const TYPE: usize = 0;
const LOWER: usize = 4;
const UPPER: usize = 8;
const TIMEOUT: usize = 12;
const FILTER: usize = 16;
const USER_HANDLE: usize = 20;

/// Timeouts of half the range and more last for ever, as in Linux, whose timers take them for infinite.
const TIMEOUT_MAX_MS: u32 = i32::MAX as u32;

/// A subscription as its subscriber wrote it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Subscription([u8; Self::SIZE]);

impl Subscription {
    /// Size in bytes.
    pub const SIZE: usize = 28;

    /// A subscription in this node's byte order. Without a timeout it lasts until it is cancelled.
    pub fn new(
        range: ServiceRange,
        filter: Filter,
        timeout_ms: Option<u32>,
        user_handle: [u8; 8],
    ) -> Self {
        let mut bytes = [0; Self::SIZE];
        let timeout_ms = timeout_ms.unwrap_or(u32::MAX);
        let words = [range.type_, range.lower, range.upper, timeout_ms, filter.0];
        for (field, word) in bytes.chunks_exact_mut(4).zip(words) {
            field.copy_from_slice(&word.to_ne_bytes());
        }
        bytes[USER_HANDLE..].copy_from_slice(&user_handle);
        Self(bytes)
    }

    /// The bytes as they came.
    pub const fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        Self(bytes)
    }

    /// The bytes as they came.
    pub const fn as_bytes(&self) -> &[u8; Self::SIZE] {
        &self.0
    }

    /// The same, from a subscriber of the other byte order.
    #[must_use]
    pub fn swapped(mut self) -> Self {
        for field in self.0[..USER_HANDLE].chunks_exact_mut(4) {
            field.reverse();
        }
        self
    }

    /// True if the subscriber has the other byte order than this node.
    pub fn is_swapped(&self) -> bool {
        !Filter(self.native_word(FILTER)).has_any(Filter::ORDER_MARK)
    }

    /// What is subscribed to.
    pub fn range(&self) -> ServiceRange {
        ServiceRange {
            type_: self.word(TYPE),
            lower: self.word(LOWER),
            upper: self.word(UPPER),
        }
    }

    /// How long it lasts; `None`: until it is cancelled.
    pub fn timeout(&self) -> Option<Duration> {
        let ms = self.word(TIMEOUT);
        (ms <= TIMEOUT_MAX_MS).then(|| Duration::from_millis(ms.into()))
    }

    /// Its filter bits.
    pub fn filter(&self) -> Filter {
        Filter(self.word(FILTER))
    }

    /// Bytes that mean something to the subscriber only.
    pub fn user_handle(&self) -> [u8; 8] {
        *self.0[USER_HANDLE..]
            .first_chunk()
            .expect("the user handle is the last 8 of 28 bytes")
    }

    /// In the subscriber's byte order, read or to be written.
    pub(super) fn ordered(&self, word: u32) -> u32 {
        if self.is_swapped() {
            word.swap_bytes()
        } else {
            word
        }
    }

    fn word(&self, at: usize) -> u32 {
        self.ordered(self.native_word(at))
    }

    fn native_word(&self, at: usize) -> u32 {
        let field = self.0[at..].first_chunk().expect("fields lie inside");
        u32::from_ne_bytes(*field)
    }

    /// The subscription that this one, with CANCEL set, takes back.
    fn without_cancel(self) -> Self {
        let filter = self.ordered(self.filter().0 & !Filter::CANCEL.0);
        let mut cancelled = self;
        cancelled.0[FILTER..USER_HANDLE].copy_from_slice(&filter.to_ne_bytes());
        cancelled
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("range", &self.range())
            .field("filter", &self.filter())
            .field("timeout", &self.timeout())
            .field("user_handle", &self.user_handle())
            .field("swapped", &self.is_swapped())
            .finish()
    }
}

/// One message of a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Tell me.
    Subscribe(Subscription),
    /// Tell me no more: takes back what was subscribed with exactly these bytes.
    Cancel(Subscription),
}

/// Why a request cannot be carried out. Linux closes the connection it came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Shorter than a subscription.
    #[error("a request of {0} bytes: a subscription has {size}", size = Subscription::SIZE)]
    TooShort(usize),
    /// No instance is in the range.
    #[error("range {0}..{1} is empty: lower must not be above upper")]
    EmptyRange(u32, u32),
    /// PORTS and SERVICE at once.
    #[error("filter {0:#x} asks for PORTS and for SERVICE: only one of them is possible")]
    Contradiction(u32),
    /// As many subscriptions as the node takes.
    #[error("the node has {0} subscriptions, the most it may have")]
    TooMany(u32),
    /// As many subscriptions as the node takes from one other node.
    #[error("node {0:#x} has {1} subscriptions here, the most another node may have")]
    TooManyOfPeer(u32, u32),
    /// As many subscriptions as the node takes from all others together.
    #[error("other nodes have {0} subscriptions here, the most they may have")]
    TooManyOfPeers(u32),
    /// Not a subscriber, or no longer.
    #[error("no such subscriber")]
    NoSuchSubscriber,
}

impl Request {
    /// Reads a message. Total: any bytes give a request or an error; what follows a subscription is ignored.
    pub fn parse(message: &[u8]) -> Result<Self, RequestError> {
        let bytes = message
            .first_chunk()
            .ok_or(RequestError::TooShort(message.len()))?;
        let subscription = Subscription(*bytes);
        let (range, filter) = (subscription.range(), subscription.filter());
        if filter.has_any(Filter::CANCEL) {
            return Ok(Self::Cancel(subscription.without_cancel()));
        }
        if filter.contradicts_itself() {
            return Err(RequestError::Contradiction(filter.0));
        }
        if !range.is_valid() {
            return Err(RequestError::EmptyRange(range.lower, range.upper));
        }
        Ok(Self::Subscribe(subscription))
    }
}
