use super::*;
use proptest::prelude::*;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::{pread, pwrite};

use crate::{Importance, ServiceAddress};

const WINDOW: u32 = 128;

fn pair() -> (Channel, Channel, OwnedFd) {
    let ([first, second], _view) = create().expect("memory and pipes");
    let memory = first.memory.try_clone().expect("fd");
    let map = |fds, side| Channel::map(fds, side, WINDOW).expect("a good channel");
    let mut pair = (map(first, Side::First), map(second, Side::Second));
    pair.0.sender.begin(0, WINDOW);
    pair.1.sender.begin(0, WINDOW);
    (pair.0, pair.1, memory)
}

fn next(channel: &mut Channel) -> Option<DirectBuffer> {
    match channel.receiver.take_next().expect("an honest peer")? {
        Incoming::Message(_, buffer) => Some(buffer),
        Incoming::Switch => panic!("nobody switched"),
    }
}

fn send(channel: &mut Channel, payload: &[u8]) -> bool {
    let sent = channel.sender.send(Importance::Low, payload);
    match sent.expect("an honest peer") {
        Sending::Done => true,
        Sending::Congested => false,
        Sending::Revoked(_) => panic!("nobody revoked"),
    }
}

#[test]
fn the_layout_is_the_documented_one() {
    let (mut one, _, memory) = pair();
    assert!(send(&mut one, b"inline"));
    assert!(send(&mut one, &[7; 193]));
    let word = |offset| {
        let mut bytes = [0; 8];
        pread(&memory, &mut bytes, offset).expect("read");
        u64::from_le_bytes(bytes)
    };
    assert_eq!(word(4096), (1 << 19 | 6) << 32 | 1);
    assert_eq!(word(4096 + 8).to_le_bytes()[..6], *b"inline");
    assert_eq!(word(4096 + 256), (2 << 19 | 193) << 32 | 2);
    assert_eq!(word(4096 + 264), 0, "offset and handle");
    assert_eq!(word(544_768).to_le_bytes(), [7; 8]);
    assert_eq!(CHANNEL_LEN, 1_593_344 + (1 << 20));
}

#[test]
fn messages_of_every_size_arrive_whole_and_in_order_both_ways() {
    let (mut one, mut other, _memory) = pair();
    for len in [
        0, 1, 7, 8, 9, 63, 64, 65, 191, 192, 193, 1000, 4096, 65_999, 66_000,
    ] {
        let bytes: Vec<u8> = (0..len).map(|at| (at * 7) as u8).collect();
        assert!(send(&mut one, &bytes));
        assert!(send(&mut other, &bytes));
        for side in [&mut one, &mut other] {
            let buffer = next(side).expect("it was sent");
            assert_eq!(*buffer, bytes);
            buffer.consumed();
            assert!(next(side).is_none());
        }
    }
}

#[test]
fn a_sender_stops_at_the_window_and_goes_on_when_a_quarter_was_consumed() {
    let (mut one, mut other, _memory) = pair();
    let mut sent = 0;
    while send(&mut one, b"x") {
        sent += 1;
    }
    assert_eq!(sent, WINDOW + 1, "the last begins within the window");
    for consumed in 1..=WINDOW / 4 {
        assert!(!send(&mut one, b"x"));
        assert_eq!(one.sender.unread().expect("honest"), sent - consumed + 1);
        next(&mut other).expect("there are more").consumed();
    }
    for _ in 0..WINDOW / 4 {
        assert!(send(&mut one, b"x"));
    }
    assert!(!send(&mut one, b"x"));
}

#[test]
fn of_several_messages_those_are_sent_that_there_is_room_for_with_one_call() {
    let (mut one, mut other, _memory) = pair();
    other.announce(false);
    let payloads: Vec<Vec<u8>> = (0..=255).map(|len| vec![len as u8; len]).collect();
    let send_all = |one: &mut Channel, from: usize| {
        let payloads = payloads[from..].iter().map(Vec::as_slice);
        one.sender.send_all(Importance::High, payloads)
    };
    let window = WINDOW + 1;
    assert_eq!(send_all(&mut one, 0), Ok((window, Sending::Congested)));
    assert_eq!(rustix::io::read(&other.rung, &mut [0; 8]), Ok(1));
    assert_eq!(send_all(&mut one, 0), Ok((0, Sending::Congested)));
    let first: Vec<_> = std::iter::from_fn(|| next(&mut other)).collect();
    assert_eq!(other.receiver.unread(), window);
    DirectBuffer::all_consumed(&first);
    assert_eq!(other.receiver.unread(), 0);
    let rest = send_all(&mut one, window as usize);
    assert_eq!(rest, Ok((256 - window, Sending::Done)));
    let rest = std::iter::from_fn(|| next(&mut other));
    let all: Vec<_> = first.into_iter().chain(rest).collect();
    assert!(
        all.iter()
            .map(|buffer| &**buffer)
            .eq(payloads.iter().map(Vec::as_slice))
    );
}

/// An envelope with a name.
fn named(instance: u32) -> Envelope {
    Envelope {
        importance: Importance::High,
        droppable: instance % 2 == 1,
        name: Some(ServiceAddress {
            type_: 6000,
            instance,
        }),
    }
}

#[test]
fn a_datagram_tells_what_it_was_sent_to_and_comes_back_with_that_if_it_is_not_read() {
    let (mut one, mut other, _memory) = pair();
    let plain = Envelope::default();
    let sizes = [1, 8, 191, 192, 193, 5000, 66_000];
    for (number, len) in sizes.into_iter().enumerate() {
        for envelope in [plain, named(number as u32)] {
            let payload = vec![len as u8; len];
            let sent = one.sender.send_datagram(&envelope, &payload, u64::MAX);
            assert_eq!(sent, Ok(Sending::Done));
        }
    }
    assert_eq!(one.sender.switch_back(), Ok(Sending::Done));
    for (number, len) in sizes.into_iter().enumerate().take(3) {
        for expected in [plain, named(number as u32)] {
            let Ok(Some(Incoming::Message(envelope, buffer))) = other.receiver.take_next() else {
                panic!("it was sent");
            };
            assert_eq!((envelope, &*buffer), (expected, &vec![len as u8; len][..]));
            buffer.consumed();
        }
    }
    let unread = one.sender.take_unread(1024).expect("honest");
    let expected = sizes
        .into_iter()
        .enumerate()
        .skip(3)
        .flat_map(|(number, len)| {
            let bytes = vec![len as u8; len.min(1024)];
            [(plain, bytes.clone()), (named(number as u32), bytes)]
        });
    assert!(unread.into_iter().eq(expected));
}

#[test]
fn what_is_unread_of_datagrams_counts_at_most_the_credit_and_leaves_an_entry() {
    let (mut one, mut other, _memory) = pair();
    let mut send = |credit, len| {
        let sent = one
            .sender
            .send_datagram(&Envelope::default(), &vec![1; len], credit);
        sent.expect("honest")
    };
    let cost = u64::from(DATAGRAM_OVERHEAD) + 100;
    for _ in 0..3 {
        assert_eq!(send(3 * cost, 100), Sending::Done);
    }
    assert_eq!(send(3 * cost, 100), Sending::Congested);
    next(&mut other).expect("it was sent").consumed();
    assert_eq!(send(3 * cost, 101), Sending::Congested);
    assert_eq!(send(3 * cost, 100), Sending::Done);
    for _ in 3..CHANNEL_MESSAGES - 1 {
        assert_eq!(send(u64::MAX, 100), Sending::Done);
    }
    assert_eq!(send(u64::MAX, 100), Sending::Congested);
    assert_eq!(one.sender.switch_back(), Ok(Sending::Done));
}

#[test]
fn what_several_channels_brought_is_consumed_at_once() {
    let (mut one, mut other, _memory) = pair();
    let (mut third, mut fourth, _memory) = pair();
    assert!(send(&mut one, b"1") && send(&mut third, b"2") && send(&mut one, b"3"));
    let taken = [next(&mut other), next(&mut fourth), next(&mut other)];
    let taken = taken.map(|buffer| buffer.expect("it was sent"));
    DirectBuffer::all_consumed(&taken);
    assert_eq!(one.sender.unread(), Ok(0));
    assert_eq!(third.sender.unread(), Ok(0));
}

#[test]
fn what_was_under_way_before_counts_until_it_was_consumed() {
    let (mut one, other, _memory) = pair();
    one.sender.begin(WINDOW, 2 * WINDOW);
    other.acknowledger.set_window(1);
    let send_all = |one: &mut Channel| (0..).take_while(|_| send(one, b"x")).count() as u32;
    assert_eq!(send_all(&mut one), WINDOW + 1);
    other.acknowledger.take_over(WINDOW);
    assert_eq!(send_all(&mut one), 0, "now the window is 1");
}

#[test]
fn a_window_that_became_smaller_before_the_switch_holds_nobody_up() {
    let (mut one, mut other, _memory) = pair();
    // The sender has heard of the new window by the daemon, the receiver was told of it when the channel was made.
    one.sender.begin(0, 1);
    other.acknowledger.set_window(1);
    other.acknowledger.take_over(0);
    for n in 0..100 {
        assert!(send(&mut one, b"x"), "message {n}");
        next(&mut other).expect("it was sent").consumed();
    }
}

#[test]
fn the_ring_bounds_what_a_huge_window_would_allow_and_calls_the_sender_all_the_same() {
    let (mut one, mut other, _memory) = pair();
    one.sender.begin(WINDOW, WINDOW);
    other.acknowledger.set_window(60_000);
    other.acknowledger.take_over(WINDOW);
    let mut sent = 0;
    while send(&mut one, b"x") {
        sent += 1;
    }
    assert_eq!(sent, CHANNEL_MESSAGES);
    one.announce(true);
    for _ in 0..127 {
        next(&mut other).expect("there are more").consumed();
    }
    assert!(rustix::io::read(&one.rung, &mut [0; 8]).is_err());
    next(&mut other).expect("there are more").consumed();
    assert_eq!(rustix::io::read(&one.rung, &mut [0; 8]), Ok(1));
    assert!(send(&mut one, b"x"));
}

#[test]
fn loans_are_handed_over_uncopied_and_come_back_in_any_order() {
    let (mut one, mut other, _memory) = pair();
    let mut received = Vec::new();
    // As many as it takes for the sender to look what came back.
    for fill in 1..=4 {
        let mut loan = one
            .sender
            .loan(66_000)
            .expect("honest")
            .expect("an empty arena");
        loan.write(0, &[fill; 66_000]);
        let sent = one.sender.send_loan(Importance::High, loan);
        assert!(sent.expect("honest").is_ok());
        let buffer = next(&mut other).expect("it was sent");
        buffer.consumed();
        received.push(buffer.into_shared().expect("a loan"));
    }
    let mut byte = [0];
    received[1].copy_to(65_999, &mut byte);
    assert_eq!(byte, [2]);
    let pieces: Vec<u8> = received[2]
        .chunks::<4096>()
        .flat_map(|(piece, len)| piece[..len].to_vec())
        .collect();
    assert_eq!(pieces, [3; 66_000]);
    // What was returned first is used again first.
    let place = received[1].as_ptr() as usize % 4096;
    drop(received.remove(1));
    let mut again = one.sender.loan(66_000).expect("honest").expect("room");
    assert_eq!(again.as_mut_ptr() as usize % 4096, place);
    one.sender.take_back(again);
    drop(received);
    let mut all = Vec::new();
    while let Some(loan) = one.sender.loan(66_000).expect("honest") {
        all.push(loan);
    }
    assert_eq!(all.len(), 15, "the whole arena is there again");
}

#[test]
fn what_is_consumed_at_once_is_read_up_to_the_switch_and_tells_so_once() {
    let (mut one, mut other, _memory) = pair();
    let lens = [1, 64, 65, 193, 0, 1000];
    let (copied, loaned) = lens.split_at(4);
    for &len in copied {
        assert!(send(&mut one, &vec![len as u8; len]));
    }
    for &len in loaned {
        let loan = one.sender.loan(len).expect("honest").expect("room");
        let sent = one.sender.send_loan(Importance::High, loan);
        assert!(sent.expect("honest").is_ok());
    }
    assert_eq!(one.sender.switch_back(), Ok(Sending::Done));
    let mut received = Vec::new();
    for (max, unread) in [(2, 5), (usize::MAX, 1), (1, 1)] {
        let taken = other
            .receiver
            .consume(max, |envelope, buffer| received.push((envelope, buffer)));
        taken.expect("an honest peer");
        assert_eq!(one.sender.unread(), Ok(unread));
    }
    assert_eq!(other.receiver.unread(), 0);
    let of_lens: Vec<usize> = received.iter().map(|(_, buffer)| buffer.len()).collect();
    assert_eq!(of_lens, lens);
    for (envelope, buffer) in &received[..4] {
        assert_eq!(envelope.importance, Importance::Low);
        assert_eq!(buffer[..], vec![buffer.len() as u8; buffer.len()]);
    }
    assert!(matches!(other.receiver.take_message(), Ok(None)));
    DirectBuffer::all_consumed(received.iter().map(|(_, buffer)| buffer));
    received[0].1.consumed();
    assert_eq!(one.sender.unread(), Ok(1), "of these all was told");
    let switch = other.receiver.take_next();
    assert!(matches!(switch, Ok(Some(Incoming::Switch))));
    assert_eq!(one.sender.unread(), Ok(0));
    drop(received);
    let loans = std::iter::from_fn(|| one.sender.loan(66_000).expect("honest"));
    assert_eq!(loans.count(), 15, "the whole arena is there again");
}

#[test]
fn a_sender_without_memory_may_send_again_when_its_message_finds_room() {
    let (mut one, mut other, _memory) = pair();
    one.sender.begin(0, 60_000);
    let sent = (0..).take_while(|_| send(&mut one, &[1; 66_000])).count();
    assert_eq!(sent, 15, "the arena is full, the window is not");
    assert_eq!(one.sender.may_send(), Ok(false));
    assert!(send(&mut one, b"x"), "this one needs none of it");
    assert!(!send(&mut one, &[1; 66_000]));
    let first = next(&mut other).expect("it was sent");
    assert_eq!(one.sender.may_send(), Ok(false));
    first.consumed();
    assert_eq!(one.sender.may_send(), Ok(true));
    assert!(send(&mut one, &[1; 66_000]));
}

#[test]
fn who_looks_on_sees_how_a_side_waits() {
    let ([first, _second], view) = create().expect("memory and pipes");
    let one = Channel::map(first, Side::First, WINDOW).expect("a good channel");
    assert_eq!(view.wait(Side::First), ChannelWait::default());
    let wait = ChannelWait {
        refused_since: 1 << 40,
        calls: 3,
        calls_since: 2 << 40,
    };
    one.sender.show(wait);
    assert_eq!(view.wait(Side::First), wait);
    assert_eq!(view.wait(Side::Second), ChannelWait::default());
}

#[test]
fn a_loan_that_is_not_asked_for_as_such_is_copied() {
    let (mut one, mut other, _memory) = pair();
    let mut loan = one.sender.loan(3).expect("honest").expect("room");
    loan.write(0, b"abc");
    assert!(
        one.sender
            .send_loan(Importance::Low, loan)
            .expect("honest")
            .is_ok()
    );
    let mut buffer = next(&mut other).expect("it was sent");
    assert_eq!(buffer.len(), 3);
    buffer.make_own();
    assert_eq!(&*buffer, b"abc");
}

#[test]
fn the_oldest_message_not_consumed_is_known_to_its_sender() {
    let (mut one, mut other, _memory) = pair();
    assert_eq!(one.sender.oldest_unread(1024), Ok(None));
    for payload in [&b"first"[..], &[2; 2000], b"third"] {
        assert!(send(&mut one, payload));
    }
    // Taken out, but not consumed.
    let buffers: Vec<DirectBuffer> = std::iter::from_fn(|| next(&mut other)).collect();
    for oldest in [b"first".to_vec(), vec![2; 1024], b"third".to_vec()]
        .into_iter()
        .zip(&buffers)
    {
        assert_eq!(one.sender.oldest_unread(1024), Ok(Some(oldest.0)));
        oldest.1.consumed();
    }
    assert_eq!(one.sender.oldest_unread(1024), Ok(None));
}

#[test]
fn a_sleeper_is_rung_once_and_a_ringer_survives_its_end() {
    let (mut one, mut other, _memory) = pair();
    let rung = |channel: &Channel| rustix::io::read(&channel.rung, &mut [0; 8]).unwrap_or(0);
    assert!(send(&mut one, b"x"));
    assert_eq!(rung(&other), 0);
    other.announce(false);
    assert!(send(&mut one, b"x"));
    assert!(send(&mut one, b"x"));
    assert_eq!(rung(&other), 1);
    next(&mut other).expect("there is one").consumed();
    other.announce(false);
    drop(other);
    assert!(send(&mut one, b"x"), "no SIGPIPE");
}

#[test]
fn a_bell_that_nobody_empties_is_heard_each_time() {
    // One more than a pipe takes.
    const COUNT: u32 = 65_537;
    let (mut one, mut other, _memory) = pair();
    let bells = epoll::create(epoll::CreateFlags::CLOEXEC).expect("epoll");
    let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
    let data = epoll::EventData::new_u64(0);
    epoll::add(&bells, &other.rung, data, flags).expect("added");
    let mut events = Vec::with_capacity(1);
    for _ in 0..COUNT {
        other.announce(false);
        assert!(send(&mut one, b"x"));
        let at_once = Some(&Timespec::default());
        events.clear();
        let heard = epoll::wait(&bells, spare_capacity(&mut events), at_once);
        assert_eq!(heard, Ok(1));
        next(&mut other).expect("there is one").consumed();
    }
}

#[test]
fn who_stands_by_is_not_rung_and_known_to_be_waiting() {
    let (mut one, mut other, _memory) = pair();
    assert!(!one.sender.is_awaited());
    other.sleep.stand_by();
    assert!(send(&mut one, b"x"));
    assert!(one.sender.is_awaited());
    assert!(rustix::io::read(&other.rung, &mut [0; 8]).is_err());
    other.sleep.awake();
    assert!(!one.sender.is_awaited());
    other.announce(false);
    assert!(!one.sender.is_awaited(), "it sleeps");
    other.sleep.revoke();
    other.sleep.stand_by();
    assert!(!one.sender.is_awaited(), "it takes nothing more");
}

#[test]
fn the_switch_comes_behind_what_was_sent_before() {
    let (mut one, mut other, _memory) = pair();
    assert!(send(&mut one, b"x"));
    assert_eq!(one.sender.switch_back(), Ok(Sending::Done));
    next(&mut other).expect("the message").consumed();
    let switch = other.receiver.take_next();
    assert!(matches!(switch, Ok(Some(Incoming::Switch))));
    assert_eq!(one.sender.unread(), Ok(0));
}

#[test]
fn a_receiver_that_takes_no_more_tells_what_it_took() {
    let (mut one, mut other, _memory) = pair();
    assert!(send(&mut one, b"in time"));
    other.sleep.revoke();
    // The sender did not see that before it published.
    let sent = one.sender.send(Importance::Low, b"x");
    assert_eq!(sent, Ok(Sending::Revoked(None)));
    next(&mut other).expect("what was in time").consumed();
    assert_eq!(one.sender.was_taken(0), None);
    other.receiver.finish();
    assert_eq!(one.sender.was_taken(0), Some(true));
    assert_eq!(one.sender.was_taken(1), Some(false));
    other.announce(true);
    other.sleep.awake();
    let sent = one.sender.send(Importance::Low, b"x");
    assert_eq!(sent, Ok(Sending::Revoked(None)), "for ever");
}

#[test]
fn of_several_messages_each_is_known_to_be_taken_or_not() {
    let (mut one, mut other, _) = pair();
    let payloads = (0..5).map(|number| {
        if number == 3 {
            other.sleep.revoke();
        }
        &b"x"[..]
    });
    let sent = one.sender.send_all(Importance::Low, payloads);
    assert_eq!(sent, Ok((3, Sending::Revoked(Some(0)))));
    for _ in 0..2 {
        next(&mut other).expect("it was sent").consumed();
    }
    // As if the last one had come too late.
    other.receiver.finish();
    let taken = [0, 1, 2].map(|number| one.sender.was_taken(number));
    assert_eq!(taken, [Some(true), Some(true), Some(false)]);
    let more = one.sender.send_all(Importance::Low, [&b"x"[..]]);
    assert_eq!(more, Ok((0, Sending::Revoked(None))));
}

#[test]
fn who_finishes_wakes_a_side_that_waits_for_it_and_has_revoked_itself() {
    let (mut one, mut other, _) = pair();
    one.sleep.revoke();
    other.sleep.revoke();
    assert_eq!(one.sender.switch_back(), Ok(Sending::Revoked(Some(0))));
    let mut bell = [0; 8];
    assert!(rustix::io::read(&one.rung, &mut bell).is_err());
    other.receiver.finish();
    assert_eq!(rustix::io::read(&one.rung, &mut bell), Ok(1));
    assert_eq!(one.sender.was_taken(0), Some(false));
}

#[test]
fn all_is_read_when_the_messages_are_that_the_other_side_took() {
    let (mut one, mut other, _) = pair();
    assert_eq!(one.sender.is_all_read(), Ok(true));
    assert!(send(&mut one, b"first"));
    let first = next(&mut other).expect("it was sent");
    assert_eq!(one.sender.is_all_read(), Ok(false));
    assert_eq!(other.receiver.unread(), 1);
    assert_eq!(one.sender.switch_back(), Ok(Sending::Done));
    assert_eq!(one.sender.is_all_read(), Ok(false));
    first.consumed();
    assert_eq!(other.receiver.unread(), 0);
    assert_eq!(one.sender.is_all_read(), Ok(true), "the switch is none");

    let (mut one, mut other, _) = pair();
    other.sleep.revoke();
    other.receiver.finish();
    assert_eq!(one.sender.switch_back(), Ok(Sending::Revoked(Some(0))));
    assert_eq!(one.sender.is_all_read(), Ok(true), "what is late is none");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn nothing_a_peer_can_write_harms_the_other_side(
        steps in proptest::collection::vec((0u8..8, 0u64..2048, prop_oneof![
            any::<u64>(), 0u64..40, (1u64..5, 0u64..70_000, 0u64..4).prop_map(
                |(kind, len, stamp)| (kind << 19 | len) << 32 | stamp
            ),
        ]), 1..80),
    ) {
        let (mut one, _other, memory) = pair();
        let mut held = Vec::new();
        for (step, word, value) in steps {
            match step {
                // The peer's control block, messages, returns.
                0 => { pwrite(&memory, &value.to_ne_bytes(), 1024 + word % 4 * 8).expect("write"); }
                1 => { pwrite(&memory, &value.to_ne_bytes(), 266_240 + word % 96 * 8).expect("write"); }
                2 => { pwrite(&memory, &value.to_ne_bytes(), 536_576 + word % 4 * 8).expect("write"); }
                3 => { let _ = one.sender.send(Importance::Low, &vec![1; word as usize]); }
                4 => if let Ok(Some(loan)) = one.sender.loan(word as usize) {
                    let _ = one.sender.send_loan(Importance::Low, loan);
                },
                5 => {
                    let from = held.len();
                    let _ = one.receiver.consume(word as usize % 4, |_, buffer| held.push(buffer));
                    held[from..].iter_mut().for_each(DirectBuffer::make_own);
                }
                6 => {
                    let _ = one.sender.send_datagram(&named(value as u32), &vec![1; word as usize], value);
                    let _ = one.sender.take_unread(1024);
                }
                _ => if let Ok(Some(Incoming::Message(_, mut buffer))) = one.receiver.take_next() {
                    buffer.consumed();
                    buffer.make_own();
                    prop_assert_eq!(buffer.iter().count(), buffer.len());
                    held.push(buffer);
                },
            }
            let _ = one.sender.oldest_unread(1024);
        }
    }
}
