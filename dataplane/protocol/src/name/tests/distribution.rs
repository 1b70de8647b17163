//! One test for each rule of `docs/protocol/names.md`

use super::super::distribution::{
    BulkMessage, Distributor, Item, NameFlags, NameMessage, Operation, QUEUED_BYTES_MAX,
    QUEUED_MESSAGES_MAX, UpdateError, UpdateQueue,
};
use super::super::{Publication, Scope};
use super::{OTHER_PEER, OWN, PEER, bound, node_scope, range};

const BULK: NameFlags = NameFlags {
    bulk: true,
    last_bulk: false,
    non_legacy: true,
};
const LAST_BULK: NameFlags = NameFlags {
    bulk: true,
    last_bulk: true,
    non_legacy: true,
};

fn item(port: u32) -> Item {
    bound(range(100, 1, 2), PEER, port).into()
}

/// A PUBLICATION of one item that tells which message it was by its port.
fn receive(queue: &mut UpdateQueue, flags: NameFlags, named_seqno: u16, port: u32) -> Vec<u32> {
    let items = item(port).encode();
    let message = NameMessage {
        origin: PEER,
        message_type: 0,
        flags,
        named_seqno,
        items: &items,
    };
    let mut applied = Vec::new();
    queue
        .on_message(message, |_, item| applied.push(item.port))
        .unwrap();
    applied
}

fn update(queue: &mut UpdateQueue, seqno: u16) -> Vec<u32> {
    receive(queue, NameFlags::UPDATE, seqno, u32::from(seqno))
}

fn open_at(seqno: u16) -> UpdateQueue {
    let mut queue = UpdateQueue::new(PEER);
    assert_eq!(receive(&mut queue, LAST_BULK, seqno, 99), [99]);
    queue
}

#[test]
fn an_item_is_five_big_endian_words() {
    let item = Item {
        range: range(0x0102_0304, 5, 0x0600_0007),
        port: 0xffff_fff8,
        key: 9,
    };
    let bytes = [
        1, 2, 3, 4, 0, 0, 0, 5, 6, 0, 0, 7, 0xff, 0xff, 0xff, 0xf8, 0, 0, 0, 9,
    ];
    assert_eq!(item.encode(), bytes);
    assert_eq!(Item::decode(&bytes), item);
    assert_eq!(item.publication_of(PEER).scope, Scope::Cluster);
    assert_eq!(item.publication_of(PEER).node, PEER);
}

#[test]
fn a_partial_item_at_the_end_is_ignored() {
    let mut data = item(1).encode().to_vec();
    data.extend(item(2).encode());
    data.truncate(39);
    assert_eq!(Item::decode_all(&data).collect::<Vec<_>>(), [item(1)]);
}

#[test]
fn one_counter_numbers_publications_and_withdrawals_of_cluster_scope_only() {
    let mut distributor = Distributor::new();
    let p = bound(range(100, 1, 1), OWN, 1);
    let first = distributor.update(Operation::Publish, p).unwrap();
    assert_eq!(
        (first.named_seqno, first.operation, first.item),
        (0, Operation::Publish, p.into())
    );
    assert_eq!(distributor.update(Operation::Publish, node_scope(p)), None);
    let second = distributor.update(Operation::Withdraw, p).unwrap();
    assert_eq!(
        (second.named_seqno, second.operation),
        (1, Operation::Withdraw)
    );
    assert_eq!(distributor.snd_nxt(), 2);
}

#[test]
fn update_numbers_wrap_after_65535() {
    let mut distributor = Distributor::new();
    let p = bound(range(100, 1, 1), OWN, 1);
    let number = |update: Option<super::super::Update>| update.unwrap().named_seqno;
    let numbers: Vec<u16> = (0..65_537)
        .map(|_| number(distributor.update(Operation::Publish, p)))
        .collect();
    assert_eq!(numbers[65_535..], [65_535, 0]);
}

#[test]
fn the_bulk_is_cut_to_the_room_given_and_only_its_last_message_has_a_number() {
    let publications: Vec<Publication> = (0..5).map(|n| bound(range(100, n, n), OWN, n)).collect();
    let mut distributor = Distributor::new();
    for &p in &publications {
        distributor.update(Operation::Publish, p);
    }
    let mut bulk = distributor.bulk(publications.iter().copied());
    let mut data = [0; 2 * Item::SIZE + 7];
    let (mut headers, mut items) = (Vec::new(), Vec::new());
    while let Some(message) = bulk.next_message(&mut data) {
        headers.push(message);
        items.extend(Item::decode_all(&data[..message.data_size]));
    }
    let full = BulkMessage {
        data_size: 40,
        flags: BULK,
        named_seqno: 0,
    };
    let last = BulkMessage {
        data_size: 20,
        flags: LAST_BULK,
        named_seqno: 5,
    };
    assert_eq!(headers, [full, full, last]);
    assert!(
        items
            .into_iter()
            .eq(publications.into_iter().map(Item::from))
    );
}

#[test]
fn a_bulk_that_fits_exactly_has_no_empty_message_behind_it() {
    let publications = [1, 2].map(|port| bound(range(100, 1, 1), OWN, port));
    let mut bulk = Distributor::new().bulk(publications);
    let mut data = [0; 2 * Item::SIZE];
    assert!(bulk.next_message(&mut data).unwrap().flags.last_bulk);
    assert_eq!(bulk.next_message(&mut data), None);
}

#[test]
fn even_without_bindings_there_is_a_last_bulk_message() {
    let mut bulk = Distributor::new().bulk([]);
    let empty = BulkMessage {
        data_size: 0,
        flags: LAST_BULK,
        named_seqno: 0,
    };
    assert_eq!(bulk.next_message(&mut [0; 20]), Some(empty));
    assert_eq!(bulk.next_message(&mut [0; 20]), None);
}

#[test]
fn bulk_messages_are_applied_as_they_arrive() {
    let mut queue = UpdateQueue::new(PEER);
    assert_eq!(receive(&mut queue, BULK, 0, 1), [1]);
    assert_eq!(receive(&mut queue, BULK, 0, 2), [2]);
    assert_eq!(receive(&mut queue, LAST_BULK, 7, 3), [3]);
}

#[test]
fn updates_that_overtake_the_bulk_wait_for_its_last_message() {
    let mut queue = UpdateQueue::new(PEER);
    assert!(update(&mut queue, 8).is_empty());
    assert!(update(&mut queue, 7).is_empty());
    assert_eq!(receive(&mut queue, BULK, 0, 1), [1]);
    assert_eq!(queue.waiting(), 2);
    assert_eq!(receive(&mut queue, LAST_BULK, 7, 2), [2, 7, 8]);
    assert_eq!(update(&mut queue, 9), [9]);
}

#[test]
fn updates_older_than_the_bulk_are_dropped_before_and_after_it() {
    let mut queue = UpdateQueue::new(PEER);
    assert!(update(&mut queue, 6).is_empty());
    assert_eq!(receive(&mut queue, LAST_BULK, 7, 1), [1]);
    assert_eq!(queue.waiting(), 0);
    assert!(update(&mut queue, 5).is_empty());
    assert_eq!(queue.waiting(), 0);
}

#[test]
fn updates_are_applied_strictly_one_after_the_other() {
    let mut queue = open_at(65_534);
    assert!(update(&mut queue, 0).is_empty());
    assert!(update(&mut queue, 65_535).is_empty());
    assert!(update(&mut queue, 2).is_empty());
    assert_eq!(update(&mut queue, 65_534), [65_534, 65_535, 0]);
    assert_eq!(update(&mut queue, 1), [1, 2]);
}

#[test]
fn of_two_updates_with_one_number_the_first_to_arrive_counts() {
    let mut queue = open_at(5);
    assert!(receive(&mut queue, NameFlags::UPDATE, 6, 60).is_empty());
    assert!(receive(&mut queue, NameFlags::UPDATE, 6, 61).is_empty());
    assert_eq!(update(&mut queue, 5), [5, 60]);
    assert_eq!(queue.waiting(), 0);
}

#[test]
fn serial_comparison_takes_a_distance_of_32768_as_after() {
    let mut queue = open_at(0);
    assert!(update(&mut queue, 0x8001).is_empty());
    assert_eq!(queue.waiting(), 0, "32767 before is old");
    assert!(update(&mut queue, 0x8000).is_empty());
    assert_eq!(queue.waiting(), 1, "32768 away is still to come");
}

#[test]
fn waiting_updates_with_high_numbers_survive_until_the_first_bulk() {
    let mut queue = UpdateQueue::new(PEER);
    assert!(update(&mut queue, 40_000).is_empty());
    assert_eq!(receive(&mut queue, LAST_BULK, 40_000, 1), [1, 40_000]);
}

#[test]
fn after_a_loss_updates_wait_again_whatever_number_was_expected_before() {
    let mut queue = open_at(500);
    assert!(update(&mut queue, 502).is_empty());
    queue.reset();
    assert_eq!(queue.waiting(), 0);
    // The peer rebooted and counts from 0.
    assert!(update(&mut queue, 3).is_empty());
    assert!(update(&mut queue, 500).is_empty());
    assert_eq!(receive(&mut queue, LAST_BULK, 3, 1), [1, 3]);
}

#[test]
fn a_legacy_sender_gets_no_ordering() {
    let mut queue = UpdateQueue::new(PEER);
    let legacy = NameFlags {
        bulk: false,
        last_bulk: false,
        non_legacy: false,
    };
    assert_eq!(receive(&mut queue, legacy, 9, 1), [1]);
    assert_eq!(receive(&mut queue, legacy, 0, 2), [2]);
}

#[test]
fn a_withdrawal_is_handed_out_as_one() {
    let items = item(4).encode();
    let flags = NameFlags {
        bulk: false,
        last_bulk: false,
        non_legacy: false,
    };
    let message = NameMessage {
        origin: PEER,
        message_type: 1,
        flags,
        named_seqno: 0,
        items: &items,
    };
    let mut applied = Vec::new();
    UpdateQueue::new(PEER)
        .on_message(message, |op, i| applied.push((op, i)))
        .unwrap();
    assert_eq!(applied, [(Operation::Withdraw, item(4))]);
}

#[test]
fn an_empty_range_is_ignored_and_the_other_items_are_not() {
    let mut items = Item {
        range: range(1000, 10, 5),
        port: 1,
        key: 1,
    }
    .encode()
    .to_vec();
    items.extend(item(2).encode());
    let message = NameMessage {
        origin: PEER,
        message_type: 0,
        flags: BULK,
        named_seqno: 0,
        items: &items,
    };
    let (mut queue, mut applied) = (UpdateQueue::new(PEER), Vec::new());
    queue
        .on_message(message, |_, item| applied.push(item.port))
        .unwrap();
    assert_eq!((applied, queue.ignored_items()), (vec![2], 1));
}

#[test]
fn an_unknown_message_type_takes_its_number_and_does_nothing() {
    let mut queue = open_at(5);
    let items = item(1).encode();
    let flags = NameFlags::UPDATE;
    let message = NameMessage {
        origin: PEER,
        message_type: 7,
        flags,
        named_seqno: 5,
        items: &items,
    };
    queue
        .on_message(message, |_, item| panic!("{item:?}"))
        .unwrap();
    assert_eq!(queue.ignored_items(), 1);
    assert_eq!(update(&mut queue, 6), [6]);
}

#[test]
fn an_originating_node_other_than_the_link_peer_is_refused() {
    let mut queue = open_at(5);
    for origin in [OWN, OTHER_PEER, 0] {
        let message = NameMessage {
            origin,
            message_type: 0,
            flags: LAST_BULK,
            named_seqno: 9,
            items: &[],
        };
        let refused = queue.on_message(message, |_, item| panic!("{item:?}"));
        assert_eq!(
            refused,
            Err(UpdateError::ForeignOrigin { origin, peer: PEER })
        );
    }
    assert_eq!(
        update(&mut queue, 5),
        [5],
        "the refused last bulk must not have moved the queue"
    );
}

#[test]
fn the_queue_is_bounded_in_messages_and_in_bytes() {
    let mut queue = UpdateQueue::new(PEER);
    let send = |queue: &mut UpdateQueue, seqno, items: &[u8]| {
        let flags = NameFlags::UPDATE;
        let message = NameMessage {
            origin: PEER,
            message_type: 0,
            flags,
            named_seqno: seqno,
            items,
        };
        queue.on_message(message, |_, item| panic!("{item:?}"))
    };
    let one = item(1).encode();
    for seqno in 0..QUEUED_MESSAGES_MAX as u16 {
        assert_eq!(send(&mut queue, seqno, &one), Ok(()));
    }
    assert_eq!(
        send(&mut queue, 5000, &one),
        Err(UpdateError::Overflow(PEER))
    );
    assert_eq!(queue.waiting(), QUEUED_MESSAGES_MAX);

    queue.reset();
    let huge = vec![0; 65_536];
    let fitting = QUEUED_BYTES_MAX / huge.len();
    for seqno in 0..fitting as u16 {
        assert_eq!(send(&mut queue, seqno, &huge), Ok(()));
    }
    assert_eq!(
        send(&mut queue, 100, &one),
        Err(UpdateError::Overflow(PEER))
    );
    assert_eq!(queue.waiting(), fitting);
}
