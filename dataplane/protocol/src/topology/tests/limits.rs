//! Subscribers that want too much, do not read, or send nonsense.

use super::Said::Up;
use super::*;

const PORTS: Filter = Filter::PORTS;

#[test]
fn a_bad_request_closes_its_subscriber_with_all_subscriptions_and_nobody_else() {
    for bad in [
        &[0; 27][..],
        wants(range(7, 2, 1), PORTS).as_bytes(),
        wants(range(7, 1, 2), PORTS.with(Filter::SERVICE)).as_bytes(),
    ] {
        let mut lab = Lab::new();
        lab.subscribe(ANNA, wants(range(7, 0, 9), PORTS));
        lab.subscribe(ANNA, lasting(range(8, 0, 9), PORTS, 10));
        lab.subscribe(BERT, wants(range(7, 0, 9), PORTS));
        lab.publish(bound(range(7, 1, 1), 1));
        assert!(lab.send(ANNA, bad).is_err());
        assert!(!lab.service.is_open(ANNA));
        assert_eq!(lab.service.len(), 1);
        assert_eq!(lab.service.next_timeout(), None);
        lab.publish(bound(range(7, 2, 2), 2));
        assert_eq!(lab.said(ANNA), []);
        assert_eq!(lab.said(BERT), [Up(1, 1, 1), Up(2, 2, 2)]);
        let again = lab.send(ANNA, wants(range(7, 0, 9), PORTS).as_bytes());
        assert_eq!(again, Err(RequestError::NoSuchSubscriber));
        assert_eq!(lab.service.take_closed(), None, "the caller knows already");
    }
}

#[test]
fn the_65536th_subscription_is_refused_and_room_comes_back() {
    let mut lab = Lab::new();
    for n in 0..65_535 {
        lab.subscribe(ANNA, wants(range(7, n, n), PORTS));
    }
    let one_more = wants(range(8, 0, 0), PORTS);
    let refused = lab.send(BERT, one_more.as_bytes());
    assert_eq!(refused, Err(RequestError::TooMany(65_535)));
    lab.service.open(BERT, None);
    lab.send(ANNA, &with_cancel(wants(range(7, 9, 9), PORTS)))
        .expect("a cancel");
    lab.subscribe(BERT, one_more);
    lab.service.close(ANNA);
    assert_eq!(lab.service.len(), 1);
}

#[test]
fn one_node_and_all_others_together_leave_room_for_the_rest() {
    let mut lab = Lab::with_limits(Limits {
        subscriptions: 10,
        of_peer: 4,
        of_peers: 6,
        ..Limits::default()
    });
    let subscription = wants(range(7, 0, 0), PORTS);
    let (first, second, third) = (Subscriber(11), Subscriber(12), Subscriber(13));
    lab.service.open(first, Some(PEER));
    lab.service.open(second, Some(PEER));
    lab.service.open(third, Some(PEER + 1));
    for subscriber in [first, first, second, second, third, third] {
        lab.subscribe(subscriber, subscription);
    }
    let refused = lab.send(second, subscription.as_bytes());
    assert_eq!(refused, Err(RequestError::TooManyOfPeer(PEER, 4)));
    lab.subscribe(first, subscription);
    lab.subscribe(first, subscription);
    let refused = lab.send(third, subscription.as_bytes());
    assert_eq!(refused, Err(RequestError::TooManyOfPeers(6)));
    for _ in 0..6 {
        lab.subscribe(ANNA, subscription);
    }
    assert_eq!(lab.service.len(), 10);
}

#[test]
fn of_those_who_do_not_read_the_one_with_the_longest_queue_is_closed() {
    let mut lab = Lab::with_limits(Limits {
        events: 30,
        ..Limits::default()
    });
    lab.subscribe(ANNA, wants(range(7, 0, 99), PORTS));
    lab.subscribe(BERT, wants(range(7, 0, 4), PORTS));
    let far = Subscriber(9);
    lab.service.open(far, Some(PEER));
    lab.subscribe(far, wants(range(7, 0, 99), PORTS));
    for n in 0..30 {
        lab.publish(bound(range(7, n, n), n));
    }
    assert_eq!(lab.service.take_closed(), Some(ANNA));
    assert_eq!(lab.service.take_closed(), None);
    assert_eq!(lab.said(ANNA), []);
    assert_eq!(lab.said(BERT).len(), 5, "untouched");
    assert_eq!(lab.said(far).len(), 30, "others have a limit of their own");
    for n in 30..61 {
        lab.publish(bound(range(7, n, n), n));
    }
    assert_eq!(lab.service.take_closed(), Some(far));
    assert_eq!(lab.service.len(), 1);
}

#[test]
fn a_subscriber_that_reads_is_ready_once_for_each_batch() {
    let mut lab = Lab::new();
    lab.subscribe(ANNA, wants(range(7, 0, 99), PORTS));
    assert_eq!(lab.service.take_ready(), None);
    lab.publish(bound(range(7, 1, 1), 1));
    lab.publish(bound(range(7, 2, 2), 2));
    assert_eq!(lab.service.take_ready(), Some(ANNA));
    assert_eq!(lab.service.take_ready(), None);
    lab.service.taken(ANNA);
    lab.service.put_back(ANNA);
    lab.service.put_back(ANNA);
    assert_eq!(lab.service.take_ready(), Some(ANNA));
    assert_eq!(lab.said(ANNA), [Up(2, 2, 2)]);
    lab.service.put_back(ANNA);
    assert_eq!(lab.service.take_ready(), None, "nothing waits");
    lab.service.taken(ANNA);
    lab.publish(bound(range(7, 3, 3), 3));
    lab.service.close(ANNA);
    assert_eq!(lab.service.take_ready(), None, "it is gone");
}
