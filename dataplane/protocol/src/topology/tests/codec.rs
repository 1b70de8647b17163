//! Bytes of subscriptions and events, in both byte orders.

use super::super::Request;
use super::*;
use proptest::prelude::*;
use std::time::Duration;

/// Type 5000, 17 to 99, 3 s, PORTS, handle "abcdefgh".
const LITTLE: [u8; 28] = *b"\x88\x13\0\0\x11\0\0\0\x63\0\0\0\xb8\x0b\0\0\x01\0\0\0abcdefgh";
const BIG: [u8; 28] = *b"\0\0\x13\x88\0\0\0\x11\0\0\0\x63\0\0\x0b\xb8\0\0\0\x01abcdefgh";

#[test]
fn both_byte_orders_read_as_the_same_subscription() {
    for (bytes, swapped) in [
        (LITTLE, cfg!(target_endian = "big")),
        (BIG, cfg!(target_endian = "little")),
    ] {
        let Ok(Request::Subscribe(subscription)) = Request::parse(&bytes) else {
            panic!("a good subscription");
        };
        assert_eq!(subscription.is_swapped(), swapped);
        assert_eq!(subscription.range(), range(5000, 17, 99));
        assert_eq!(subscription.timeout(), Some(Duration::from_secs(3)));
        assert_eq!(subscription.filter(), Filter::PORTS);
        assert_eq!(subscription.user_handle(), *b"abcdefgh");
        assert_eq!(*subscription.as_bytes(), bytes);
    }
}

#[test]
fn an_event_has_the_byte_order_of_its_subscription_and_the_subscription_verbatim() {
    let head: [(_, &[u8; 20]); 2] = [
        (
            LITTLE,
            b"\x02\0\0\0\x14\0\0\0\x15\0\0\0\x4d\x3c\x2b\x1a\x01\x10\0\x01",
        ),
        (
            BIG,
            b"\0\0\0\x02\0\0\0\x14\0\0\0\x15\x1a\x2b\x3c\x4d\x01\0\x10\x01",
        ),
    ];
    for (subscription, head) in head {
        let event = Event {
            kind: EventKind::Withdrawn,
            found_lower: 20,
            found_upper: 21,
            port: 0x1a2b_3c4d,
            node: OWN,
            subscription: Subscription::from_bytes(subscription),
        };
        let bytes = event.encode();
        assert_eq!(bytes[..20], head[..]);
        assert_eq!(bytes[20..], subscription);
        assert_eq!(Event::decode(&bytes), Some(event));
    }
}

#[test]
fn a_timeout_names_the_subscribed_range_in_the_subscribers_order_and_no_socket() {
    let mut lab = Lab::new();
    lab.send(ANNA, &BIG).expect("a good subscription");
    lab.pass(3000);
    let bytes = *lab.service.next_event(ANNA).expect("the timeout");
    assert_eq!(
        bytes[..20],
        *b"\0\0\0\x03\0\0\0\x11\0\0\0\x63\0\0\0\0\0\0\0\0"
    );
    assert_eq!(bytes[20..], BIG);
}

#[test]
fn a_filter_that_shows_no_byte_order_is_read_in_the_other_one() {
    let subscription = wants(range(1, 2, 3), Filter(0));
    assert!(subscription.is_swapped());
    assert_eq!(
        subscription.range(),
        range(1 << 24, 2 << 24, 3 << 24),
        "as Linux reads it"
    );
    let scope_only = wants(range(1, 2, 3), Filter::CLUSTER_SCOPE);
    assert!(scope_only.is_swapped());
}

#[test]
fn what_follows_a_subscription_is_ignored_and_less_than_one_is_refused() {
    let mut long = [0xff; 66_000];
    long[..28].copy_from_slice(&LITTLE);
    assert_eq!(Request::parse(&long), Request::parse(&LITTLE));
    for len in 0..28 {
        let refused = Request::parse(&LITTLE[..len]);
        assert_eq!(refused, Err(RequestError::TooShort(len)));
    }
}

#[test]
fn ports_and_service_at_once_and_an_empty_range_are_refused_unless_they_cancel() {
    let both = Filter::PORTS.with(Filter::SERVICE);
    let contradiction = wants(range(7, 0, 9), both);
    let empty = wants(range(7, 9, 8), Filter::PORTS);
    for swap in [false, true] {
        let sent = |s: Subscription| if swap { s.swapped() } else { s };
        let parse = |s| Request::parse(sent(s).as_bytes());
        assert_eq!(parse(contradiction), Err(RequestError::Contradiction(3)));
        assert_eq!(parse(empty), Err(RequestError::EmptyRange(9, 8)));
        for subscription in [contradiction, empty] {
            let cancel = Request::parse(&with_cancel(sent(subscription)));
            assert_eq!(cancel, Ok(Request::Cancel(sent(subscription))));
        }
    }
}

#[test]
fn a_timeout_of_half_the_range_or_more_lasts_for_ever_as_in_linux() {
    let timeout = |ms| lasting(range(7, 0, 9), Filter::PORTS, ms).timeout();
    assert_eq!(timeout(0), Some(Duration::ZERO));
    assert_eq!(
        timeout(0x7fff_ffff),
        Some(Duration::from_millis(0x7fff_ffff))
    );
    assert_eq!(timeout(0x8000_0000), None);
    assert_eq!(timeout(u32::MAX), None);
}

proptest! {
    #[test]
    fn any_bytes_are_a_request_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        match Request::parse(&bytes) {
            Ok(Request::Subscribe(s)) => {
                prop_assert_eq!(&s.as_bytes()[..], &bytes[..28]);
                prop_assert!(s.range().is_valid());
            }
            Ok(Request::Cancel(s)) => prop_assert_eq!(&s.as_bytes()[..16], &bytes[..16]),
            Err(_) => {}
        }
    }

    #[test]
    fn a_subscription_of_either_order_reads_as_it_was_written(
        (type_, a, b) in any::<(u32, u32, u32)>(), bits in 1u32..8, scope in 0u32..8, ms: u32, handle: [u8; 8],
    ) {
        let range = range(type_, a.min(b), a.max(b));
        let filter = Filter(bits | scope << 5);
        let written = Subscription::new(range, filter, Some(ms), handle);
        for subscription in [written, written.swapped()] {
            prop_assert_eq!(subscription.range(), range);
            prop_assert_eq!(subscription.filter(), filter);
            prop_assert_eq!(subscription.user_handle(), handle);
        }
    }
}
