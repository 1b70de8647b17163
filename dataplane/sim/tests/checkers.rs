//! Each checker objects to what an engine must never do, and to nothing else.

use std::collections::BTreeSet;
use std::time::Duration;
use xtipc_protocol::addr::{NodeAddr, PortId, SocketAddr};
use xtipc_protocol::group::MemberNo;
use xtipc_protocol::host::{FromMember, Host, Incoming, MemberNews, Reserve};
use xtipc_protocol::link::LinkParams;
use xtipc_protocol::time::Instant;
use xtipc_protocol::topology::{Event, EventKind, Filter, Subscription};
use xtipc_protocol::wire::Importance;
use xtipc_sim::checks::{
    Agreement, Deliveries, Losses, Promise, SocketKey, Violation, check_frames, check_mesh,
    check_tables, silence_bound,
};
use xtipc_sim::cluster::{Cluster, service_range};
use xtipc_sim::host::Received;
use xtipc_sim::members::{Ear, GroupFault, Voice};
use xtipc_sim::scenario::{Plan, Sabotage, run};
use xtipc_sim::talks::{Talk, TalkFault};
use xtipc_sim::tracking::Heard;

const SENDER: SocketKey = (1, 10);
const RECEIVER: SocketKey = (2, 20);

/// A stream of five messages.
fn five(promise: Promise) -> (Deliveries, usize) {
    let mut deliveries = Deliveries::default();
    let stream = deliveries.begin(SENDER, promise);
    (0..5).for_each(|_| deliveries.sent(stream));
    (deliveries, stream)
}

fn to_members() -> Promise {
    Promise::Members(BTreeSet::from([RECEIVER]))
}

fn arrive(
    deliveries: &mut Deliveries,
    stream: usize,
    numbers: impl IntoIterator<Item = u32>,
) -> Result<(), Violation> {
    let mut numbers = numbers.into_iter();
    numbers.try_for_each(|n| deliveries.arrived(stream, n, SENDER, RECEIVER))
}

#[test]
fn all_messages_once_and_in_order_are_right() {
    for promise in [Promise::Socket(RECEIVER), to_members()] {
        let (mut deliveries, stream) = five(promise);
        assert_eq!(arrive(&mut deliveries, stream, 0..5), Ok(()));
        assert_eq!(deliveries.finish(), Ok(()));
    }
}

#[test]
fn a_gap_a_swap_and_a_repetition_are_found() {
    for promise in [Promise::Socket(RECEIVER), to_members()] {
        for numbers in [vec![1], vec![0, 2], vec![0, 1, 3, 2]] {
            let (mut deliveries, stream) = five(promise.clone());
            let found = arrive(&mut deliveries, stream, numbers);
            assert!(matches!(found, Err(Violation::OutOfOrder { .. })));
        }
        let (mut deliveries, stream) = five(promise);
        let found = arrive(&mut deliveries, stream, [0, 1, 1]);
        assert!(matches!(found, Err(Violation::Doubled { number: 1, .. })));
    }
}

#[test]
fn an_anycast_message_at_two_receivers_is_found() {
    let (mut deliveries, stream) = five(Promise::Anyone);
    assert_eq!(deliveries.arrived(stream, 3, SENDER, RECEIVER), Ok(()));
    let found = deliveries.arrived(stream, 3, SENDER, (3, 30));
    assert!(matches!(found, Err(Violation::Doubled { .. })));
}

#[test]
fn a_lost_end_of_a_stream_is_found() {
    for promise in [Promise::Socket(RECEIVER), to_members()] {
        for count in 0..5 {
            let (mut deliveries, stream) = five(promise.clone());
            assert_eq!(arrive(&mut deliveries, stream, 0..count), Ok(()));
            let found = deliveries.finish();
            assert!(matches!(found, Err(Violation::Lost { sent: 5, .. })));
        }
    }
}

#[test]
fn a_message_that_was_never_sent_or_comes_from_another_node_is_found() {
    let (mut deliveries, stream) = five(Promise::Anyone);
    let mangled = Err(Violation::Mangled(stream));
    assert_eq!(deliveries.arrived(stream, 5, SENDER, RECEIVER), mangled);
    assert_eq!(deliveries.arrived(stream, 0, (9, 10), RECEIVER), mangled);
}

#[test]
fn a_promise_ends_with_the_contact_the_binding_or_the_socket_and_begins_anew() {
    let (mut deliveries, stream) = five(Promise::Socket(RECEIVER));
    deliveries.broke(2, 1);
    assert_eq!(arrive(&mut deliveries, stream, [1]), Ok(()));
    assert_eq!(deliveries.finish(), Ok(()));
    let next = deliveries.begin(SENDER, Promise::Socket(RECEIVER));
    deliveries.sent(next);
    assert!(deliveries.finish().is_err());
    deliveries.closed(RECEIVER);
    assert_eq!(deliveries.finish(), Ok(()));

    let (mut deliveries, _) = five(to_members());
    deliveries.changed(RECEIVER);
    assert_eq!(deliveries.finish(), Ok(()));
    let (mut deliveries, _) = five(Promise::Socket(RECEIVER));
    deliveries.changed(RECEIVER);
    assert!(deliveries.finish().is_err(), "it was not sent to a binding");
}

#[test]
fn nodes_that_disagree_for_longer_than_the_bound_are_found() {
    let bound = silence_bound(LinkParams::default(), Duration::ZERO, Duration::ZERO);
    assert_eq!(bound, Duration::from_millis(1550));
    let at = |ms: u64| Instant::from_millis(1000 + ms);
    let mut agreement = Agreement::new(bound);
    assert_eq!(agreement.observe(at(0), (0, 1), (true, false)), Ok(()));
    assert_eq!(agreement.observe(at(1550), (0, 1), (true, false)), Ok(()));
    let found = agreement.observe(at(1551), (0, 1), (true, false));
    assert!(matches!(found, Err(Violation::Disagree { a: 0, b: 1, .. })));
    // Agreeing in between, a change of roles, or a new start, begins the count anew.
    assert_eq!(agreement.observe(at(1551), (0, 1), (false, true)), Ok(()));
    assert_eq!(agreement.observe(at(3101), (0, 1), (false, true)), Ok(()));
    let found = agreement.observe(at(3102), (0, 1), (false, true));
    assert!(matches!(found, Err(Violation::Disagree { a: 0, b: 1, .. })));
    assert_eq!(agreement.observe(at(3103), (0, 1), (true, true)), Ok(()));
    assert_eq!(agreement.observe(at(3104), (0, 1), (true, false)), Ok(()));
    agreement.forget(1);
    assert_eq!(agreement.observe(at(9000), (0, 1), (true, false)), Ok(()));
}

#[test]
fn a_dead_node_that_is_believed_in_for_too_long_is_found() {
    let at = |ms: u64| Instant::from_millis(1000 + ms);
    let mut losses = Losses::new(Duration::from_millis(100));
    assert_eq!(losses.observe(at(0), 0, [7, 8]), Ok(()));
    losses.died(at(0), 7);
    assert_eq!(losses.observe(at(100), 0, [7, 8]), Ok(()));
    let found = losses.observe(at(101), 0, [8, 7]);
    assert!(matches!(
        found,
        Err(Violation::NotGivenUp {
            station: 0,
            node: 7,
            ..
        })
    ));
    // Who stood still has the same time from then on, and a node that came back is alive.
    losses.stopped(at(200), 1);
    assert_eq!(losses.observe(at(300), 1, [7]), Ok(()));
    assert!(losses.observe(at(301), 1, [7]).is_err());
    losses.returned(7);
    assert_eq!(losses.observe(at(900), 1, [7]), Ok(()));
}

/// Something a member is given by a member at [`SENDER`].
fn news(news: MemberNews, bytes: Vec<u8>) -> Received {
    Received {
        about: Incoming {
            source: SocketAddr {
                node: NodeAddr(SENDER.0),
                port: PortId(SENDER.1),
            },
            dest_name: None,
            importance: Importance::Low,
            errcode: 0,
            cost: 0,
            returnable: false,
            refused: false,
            group: Some(FromMember {
                group: 6000,
                instance: 1,
                news,
            }),
        },
        bytes,
        serial: 0,
    }
}

/// Four messages of a member: broadcast, to one, broadcast, broadcast.
fn words(voice: &mut Voice) -> Vec<Received> {
    let say = |is_broadcast| {
        let bytes = voice.message(is_broadcast, 100);
        voice.sent(is_broadcast);
        news(MemberNews::Message(MemberNo(1)), bytes)
    };
    [true, false, true, true].map(say).into()
}

fn hears(given: &[&Received]) -> Result<Ear, GroupFault> {
    let mut ear = Ear::default();
    for message in given {
        match ear.take(RECEIVER, message) {
            Ok(()) => {}
            Err(Violation::Group { member, of, fault }) => {
                assert_eq!((member, of), (RECEIVER, SENDER));
                return Err(fault);
            }
            Err(other) => panic!("{other}"),
        }
    }
    Ok(ear)
}

#[test]
fn what_a_member_hears_too_early_late_twice_never_or_mangled_is_found() {
    let mut voice = Voice::default();
    let said = words(&mut voice);
    let [one, two, three, four] = &said[..] else {
        panic!("four messages");
    };
    let joined = &news(MemberNews::Joined, Vec::new());
    let left = &news(MemberNews::Left, Vec::new());
    let ear = hears(&[joined, one, two, three, four]).expect("all in order");
    assert!(ear.knows(SENDER) && ear.check_last(RECEIVER, SENDER, &voice).is_ok());
    // Whom a message to one was for is not said, and who comes late has not missed anything.
    assert!(hears(&[joined, one, three, four]).is_ok() && hears(&[joined, four]).is_ok());
    let again = hears(&[joined, one, left, joined, four, left]).expect("two memberships");
    assert!(!again.knows(SENDER));
    let fault = |given: &[&Received]| hears(given).expect_err("a fault");
    assert_eq!(fault(&[one]), GroupFault::Stranger);
    assert_eq!(fault(&[joined, one, left, two]), GroupFault::Stranger);
    assert_eq!(fault(&[joined, joined]), GroupFault::JoinedTwice);
    assert_eq!(fault(&[left]), GroupFault::NeverJoined);
    let (number, last) = (1, 1);
    let twice = GroupFault::OutOfOrder { number, last };
    assert_eq!(fault(&[joined, two, two]), twice);
    let swapped = GroupFault::OutOfOrder { number, last: 2 };
    assert_eq!(fault(&[joined, three, two]), swapped);
    let missed = GroupFault::Missed { number: 2, last: 0 };
    assert_eq!(fault(&[joined, one, two, four]), missed);
    for bytes in [vec![0, 0], [one.bytes.as_slice(), &[9]].concat()] {
        let mangled = news(MemberNews::Message(MemberNo(1)), bytes);
        assert_eq!(fault(&[joined, &mangled]), GroupFault::Mangled);
    }
    let ear = hears(&[joined, one, two, three]).expect("in order");
    let end = ear.check_last(RECEIVER, SENDER, &voice);
    let (sent, last) = (3, Some(1));
    let fault = GroupFault::LastMissed { sent, last };
    let (member, of) = (RECEIVER, SENDER);
    assert_eq!(end, Err(Violation::Group { member, of, fault }));
}

/// A connection whose client has sent ten bytes.
fn talk() -> (Talk, Vec<u8>) {
    let mut talk = Talk::new(3);
    talk.accept();
    let bytes = talk.bytes(0, 10);
    talk.wrote(0, 10);
    (talk, bytes)
}

fn fault(found: Result<(), Violation>) -> TalkFault {
    match found {
        Err(Violation::Connection { fault, .. }) => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn bytes_that_are_lost_doubled_or_exchanged_are_found() {
    let (mut right, bytes) = talk();
    assert_eq!(right.read(1, &bytes[..4]), Ok(()));
    assert_eq!(right.read(1, &bytes[4..]), Ok(()));
    assert!(right.read(1, &[0]).is_err(), "more than was sent");
    for wrong in [[1, 2, 3, 4], [0, 1, 1, 2], [1, 0, 2, 3]] {
        let (mut talk, bytes) = talk();
        let wrong = wrong.map(|at: usize| bytes[at]);
        assert_eq!(fault(talk.read(1, &wrong)), TalkFault::OtherBytes(0));
    }
}

#[test]
fn an_end_that_comes_early_without_a_reason_or_never_is_found() {
    const SHUTDOWN: u8 = 5;
    let (mut early, bytes) = talk();
    early.close(0);
    assert_eq!(early.read(1, &bytes[..9]), Ok(()));
    let cut = TalkFault::CutShort { got: 9, sent: 10 };
    assert_eq!(fault(early.finish()), TalkFault::NotTold);
    assert_eq!(fault(early.told(1, SHUTDOWN)), cut);
    let (mut unasked, _) = talk();
    assert_eq!(
        fault(unasked.told(1, SHUTDOWN)),
        TalkFault::NoReason(SHUTDOWN)
    );
    let (mut parted, bytes) = talk();
    parted.part();
    assert_eq!(fault(parted.finish()), TalkFault::NotTold);
    assert_eq!((parted.told(0, 3), parted.told(1, 3)), (Ok(()), Ok(())));
    assert_eq!(parted.finish(), Ok(()));
    assert_eq!(fault(parted.read(1, &bytes)), TalkFault::BehindTheEnd);
}

#[test]
fn a_connection_that_is_stuck_is_found() {
    let (mut talk, bytes) = talk();
    let (got, sent, goal) = (0, 10, 10);
    assert_eq!(
        fault(talk.has_reached([goal, 0])),
        TalkFault::Stuck { got, sent, goal }
    );
    assert_eq!(talk.read(1, &bytes), Ok(()));
    assert_eq!(talk.has_reached([10, 0]), Ok(()));
    assert!(talk.has_reached([11, 0]).is_err() && talk.has_reached([10, 1]).is_err());
}

#[test]
fn events_that_come_twice_late_or_never_are_found() {
    let found = (1, 9, SENDER);
    let event = |kind| {
        let range = service_range((5000, 0, u32::MAX));
        Event {
            kind,
            found_lower: 1,
            found_upper: 9,
            port: SENDER.1,
            node: SENDER.0,
            subscription: Subscription::new(range, Filter::PORTS, None, [0; 8]),
        }
    };
    let (made, gone) = (event(EventKind::Published), event(EventKind::Withdrawn));
    let mut heard = Heard::default();
    assert!(heard.message(0, 1, found).is_err(), "not heard of at all");
    assert_eq!(heard.event(0, 5, &made), Ok(()));
    assert!(heard.message(0, 4, found).is_err(), "the message was first");
    assert_eq!(heard.message(0, 6, found), Ok(()));
    assert_eq!(heard.finish(0, [found]), Ok(()));
    assert_eq!(heard.finish(0, []), Err(Violation::EventsDiffer(0)));
    assert_eq!(heard.event(0, 7, &made), Ok(()));
    let twice = heard.finish(0, [found]);
    assert_eq!(twice, Err(Violation::EventsDiffer(0)));
    assert_eq!(heard.event(0, 8, &gone), Ok(()));
    assert_eq!(heard.event(0, 9, &gone), Ok(()));
    assert_eq!(heard.finish(0, []), Ok(()));
    let unknown = heard.event(0, 10, &gone);
    assert!(matches!(unknown, Err(Violation::WrongEvent { .. })));
}

#[test]
fn tables_that_differ_are_found() {
    let one = BTreeSet::from([(5000, 0, 9, 1, 2, 3)]);
    let two = BTreeSet::from([(5000, 0, 9, 1, 2, 4)]);
    assert_eq!(check_tables([(0, one.clone()), (1, one.clone())]), Ok(()));
    let found = check_tables([(0, one.clone()), (1, one), (2, two)]);
    assert_eq!(found, Err(Violation::TablesDiffer(2, 2)));
}

#[test]
fn a_link_that_is_missing_is_found() {
    let within = Duration::from_secs(1);
    let links = BTreeSet::from([(0, 1), (1, 0), (0, 2), (2, 0), (1, 2)]);
    assert_eq!(check_mesh(&links, &[0, 1], within), Ok(()));
    let found = check_mesh(&links, &[0, 1, 2], within);
    assert_eq!(found, Err(Violation::NoMesh { a: 2, b: 1, within }));
}

#[test]
fn a_frame_that_a_node_keeps_is_found() {
    let mut cluster = Cluster::settled(1, 2);
    let _kept = cluster.with(1, |node| node.host.alloc(Reserve::Data));
    let owned = [0, 1].map(|station| cluster.stop_counting(station));
    assert_eq!(check_frames(0, owned[0]), Ok(()));
    assert_eq!(
        check_frames(1, owned[1]),
        Err(Violation::FramesLeaked(1, 1))
    );
}

#[test]
fn order_is_promised_to_a_member_with_one_half_of_a_pair_and_not_with_two() {
    let (mut deliveries, stream) = five(to_members());
    deliveries.halved(SENDER, RECEIVER);
    assert!(arrive(&mut deliveries, stream, [1]).is_err());
    deliveries.halved(SENDER, RECEIVER);
    assert_eq!(arrive(&mut deliveries, stream, [3]), Ok(()));
    // What is left out of the promise is order: nothing may come twice.
    assert!(arrive(&mut deliveries, stream, [3]).is_err());
    deliveries.left(RECEIVER);
    let next = deliveries.begin(SENDER, to_members());
    (0..2).for_each(|_| deliveries.sent(next));
    assert!(arrive(&mut deliveries, next, [1]).is_err());
}

/// What runs with this sabotage are found guilty of: some of these few seeds show each kind.
fn sabotaged(sabotage: Sabotage) -> Vec<Violation> {
    let plan = Plan {
        nodes: 2..5,
        events: 300,
        grouping: 300,
        sabotage: Some(sabotage),
        ..Plan::default()
    };
    let guilty = (0..10).filter_map(|seed| run(seed, &plan).err());
    guilty.collect()
}

#[test]
fn a_run_that_breaks_a_property_fails_by_it() {
    use Violation as V;
    type Expected = fn(&Violation) -> bool;
    let cases: [(Sabotage, Expected); 14] = [
        (Sabotage::Lose, |v| {
            matches!(v, V::OutOfOrder { .. } | V::Lost { .. })
        }),
        (Sabotage::Double, |v| matches!(v, V::Doubled { .. })),
        (Sabotage::Swap, |v| matches!(v, V::OutOfOrder { .. })),
        (Sabotage::Mangle, |v| matches!(v, V::Mangled(_))),
        (Sabotage::Disagree, |v| {
            matches!(v, V::Disagree { a: 0, b: 1, .. })
        }),
        (Sabotage::Believe, |v| matches!(v, V::NotGivenUp { .. })),
        (Sabotage::Garble, |v| {
            let other = |fault: &TalkFault| matches!(fault, TalkFault::OtherBytes(_));
            matches!(v, V::Connection { fault, .. } if other(fault))
        }),
        (Sabotage::Block, |v| {
            let stuck = |fault: &TalkFault| matches!(fault, TalkFault::Stuck { .. });
            matches!(v, V::Connection { fault, .. } if stuck(fault))
        }),
        (Sabotage::Mishear, |v| matches!(v, V::Group { .. })),
        (Sabotage::Ignore, |v| {
            let stuck = GroupFault::StillWaiting;
            matches!(v, V::Group { fault, .. } if *fault == stuck)
        }),
        (Sabotage::Deafen, |v| {
            matches!(
                v,
                V::OvertookEvent { .. } | V::EventsDiffer(_) | V::WrongEvent { .. }
            )
        }),
        (Sabotage::Cut, |v| matches!(v, V::NoMesh { .. })),
        (Sabotage::Hide, |v| matches!(v, V::TablesDiffer(..))),
        (Sabotage::Leak, |v| matches!(v, V::FramesLeaked(0, 1))),
    ];
    for (sabotage, expected) in cases {
        let found = sabotaged(sabotage);
        assert!(found.len() >= 5, "{sabotage:?}: {found:?}");
        assert!(found.iter().all(expected), "{sabotage:?}: {found:?}");
    }
}
