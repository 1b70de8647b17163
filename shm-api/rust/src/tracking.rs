//! Subscriptions and events of the topology service: values, and the bytes they travel in.
//!
//! Bytes are in this machine's order (`docs/protocol/topology.md`).

use std::time::Duration;

use xtipc_segment::{ServiceRange, SocketAddress};

/// Type of the bindings by which nodes make themselves known.
const NODE_TYPE: u32 = 0;
/// Type of the bindings that stand for links.
const LINK_TYPE: u32 = 2;
const PORTS: u32 = 1;
const SERVICE: u32 = 2;
const CANCEL: u32 = 4;
const FOR_EVER: u32 = u32::MAX;
/// Longest timeout: from the next value on the service never ends a subscription.
const TIMEOUT_MAX_MS: u32 = i32::MAX as u32;

/// What to be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subscription {
    /// Bindings that have an instance in common with this range are of interest.
    pub range: ServiceRange,
    /// Filter bits: 1 for every binding, 2 for the first and last of each range. More in `docs/protocol/topology.md`.
    pub filter: u32,
    /// In ms; 0xFFFFFFFF for ever. When it is over, an event says so.
    pub timeout_ms: u32,
    /// Comes back in every event.
    pub user_handle: [u8; 8],
}

impl Subscription {
    /// Bytes of a subscription.
    pub const LEN: usize = 28;

    const fn with_filter(range: ServiceRange, filter: u32) -> Self {
        Self {
            range,
            filter,
            timeout_ms: FOR_EVER,
            user_handle: [0; 8],
        }
    }

    /// Every binding in a range.
    pub fn bindings(range: impl Into<ServiceRange>) -> Self {
        Self::with_filter(range.into(), PORTS)
    }

    /// Whether each range is served by anybody: its first and its last binding.
    pub fn services(range: impl Into<ServiceRange>) -> Self {
        Self::with_filter(range.into(), SERVICE)
    }

    /// Which nodes are up, this one among them.
    pub const fn nodes() -> Self {
        Self::with_filter(whole(NODE_TYPE), SERVICE)
    }

    /// Which links of this node are up.
    pub const fn links() -> Self {
        Self::with_filter(whole(LINK_TYPE), PORTS)
    }

    /// The same for a limited time: up to 24 days, in whole milliseconds. Zero asks for what is bound now.
    #[must_use]
    pub fn lasting(self, time: Duration) -> Self {
        let ms = time.as_nanos().div_ceil(1_000_000);
        Self {
            timeout_ms: u32::try_from(ms).map_or(TIMEOUT_MAX_MS, |ms| ms.min(TIMEOUT_MAX_MS)),
            ..self
        }
    }

    /// The same with bytes that come back in every event.
    #[must_use]
    pub const fn with_handle(self, user_handle: [u8; 8]) -> Self {
        Self {
            user_handle,
            ..self
        }
    }

    /// As it travels.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let ServiceRange {
            type_,
            lower,
            upper,
        } = self.range;
        let words = [type_, lower, upper, self.timeout_ms, self.filter];
        for (field, word) in bytes.chunks_exact_mut(4).zip(words) {
            field.copy_from_slice(&word.to_ne_bytes());
        }
        bytes[20..].copy_from_slice(&self.user_handle);
        bytes
    }

    /// The request that takes it back.
    pub(crate) fn to_cancel(self) -> [u8; Self::LEN] {
        let filter = self.filter | CANCEL;
        Self { filter, ..self }.to_bytes()
    }

    /// `None` if it is in the other byte order.
    fn from_bytes(bytes: &[u8; Self::LEN]) -> Option<Self> {
        let [type_, lower, upper, timeout_ms, filter] = words(&bytes[..20])?;
        let user_handle = *bytes[20..].first_chunk()?;
        (filter & (PORTS | SERVICE | CANCEL) != 0).then_some(Self {
            range: ServiceRange {
                type_,
                lower,
                upper,
            },
            filter,
            timeout_ms,
            user_handle,
        })
    }
}

const fn whole(type_: u32) -> ServiceRange {
    ServiceRange {
        type_,
        lower: 0,
        upper: u32::MAX,
    }
}

fn words<const N: usize>(bytes: &[u8]) -> Option<[u32; N]> {
    let mut words = [0; N];
    for (word, field) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_ne_bytes(field.try_into().ok()?);
    }
    Some(words)
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A binding was made, or was there when the subscription came.
    Published,
    /// A binding was withdrawn, by its socket or by the loss of its node.
    Withdrawn,
    /// The subscription's time is over, and so is the subscription.
    Timeout,
}

/// An event of the topology service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The binding's range, whole; of a timeout the range subscribed to.
    pub range: ServiceRange,
    /// The socket of the binding; zeros with a timeout.
    pub socket: SocketAddress,
    /// The subscription it belongs to.
    pub subscription: Subscription,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A socket that serves a range.
    Service(SocketAddress),
    /// A node.
    Node(u32),
    /// A link of this node.
    Link {
        /// The node at its other end.
        peer: u32,
        /// Number of the bearer here.
        bearer: u16,
        /// Number of the bearer there.
        peer_bearer: u16,
    },
}

impl Event {
    /// Bytes of an event.
    pub const LEN: usize = 48;

    /// Reads an event. `None` if these bytes are none, or answer a subscription in the other byte order.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.try_into().ok()?;
        let [kind, lower, upper, port, node] = words(&bytes[..20])?;
        let subscription = Subscription::from_bytes(bytes[20..].first_chunk()?)?;
        let kind = match kind {
            1 => EventKind::Published,
            2 => EventKind::Withdrawn,
            3 => EventKind::Timeout,
            _ => return None,
        };
        Some(Self {
            kind,
            range: ServiceRange {
                type_: subscription.range.type_,
                lower,
                upper,
            },
            socket: SocketAddress { port, node },
            subscription,
        })
    }

    /// What was published or withdrawn; `None` for a timeout.
    pub fn subject(&self) -> Option<Subject> {
        if self.kind == EventKind::Timeout {
            return None;
        }
        Some(match self.range.type_ {
            NODE_TYPE => Subject::Node(self.range.lower),
            LINK_TYPE => Subject::Link {
                peer: self.range.lower,
                bearer: self.socket.port as u16,
                peer_bearer: (self.socket.port >> 16) as u16,
            },
            _ => Subject::Service(self.socket),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u32, subscription: &Subscription, port: u32) -> Vec<u8> {
        let words = [kind, 5, 6, port, 0x0100_1002];
        let numbers = words.into_iter().flat_map(u32::to_ne_bytes);
        numbers.chain(subscription.to_bytes()).collect()
    }

    #[test]
    fn an_event_tells_its_subject_by_the_type_subscribed_to() {
        let range = ServiceRange {
            type_: 18888,
            lower: 0,
            upper: 9,
        };
        let socket = SocketAddress {
            port: 7 << 16 | 3,
            node: 0x0100_1002,
        };
        for (subscription, subject) in [
            (Subscription::bindings(range), Subject::Service(socket)),
            (Subscription::nodes(), Subject::Node(5)),
            (
                Subscription::links(),
                Subject::Link {
                    peer: 5,
                    bearer: 3,
                    peer_bearer: 7,
                },
            ),
        ] {
            let subscription = subscription.with_handle(*b"8 bytes.");
            let read = Event::from_bytes(&event(2, &subscription, socket.port)).expect("an event");
            assert_eq!(read.kind, EventKind::Withdrawn);
            assert_eq!((read.range.lower, read.range.upper), (5, 6));
            assert_eq!(read.subscription, subscription);
            assert_eq!(read.subject(), Some(subject));
            let over = Event::from_bytes(&event(3, &subscription, 0)).expect("an event");
            assert_eq!(over.subject(), None);
        }
    }

    #[test]
    fn what_is_no_event_of_ours_is_not_read_as_one() {
        let good = event(1, &Subscription::nodes(), 0);
        assert!(Event::from_bytes(&good).is_some());
        assert_eq!(Event::from_bytes(&good[..47]), None);
        assert_eq!(
            Event::from_bytes(&event(4, &Subscription::nodes(), 0)),
            None
        );
        let mut other_order = good;
        other_order[20..40]
            .chunks_exact_mut(4)
            .for_each(<[u8]>::reverse);
        assert_eq!(Event::from_bytes(&other_order), None);
    }

    #[test]
    fn timeouts_are_rounded_up_and_cut_to_what_ends_at_all() {
        let ms = |time| Subscription::nodes().lasting(time).timeout_ms;
        assert_eq!(ms(Duration::ZERO), 0);
        assert_eq!(ms(Duration::from_micros(1001)), 2);
        assert_eq!(ms(Duration::from_secs(1 << 40)), 0x7fff_ffff);
    }
}
