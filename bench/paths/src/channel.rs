//! A direct channel with both its sides: messages of 64 bytes one at a time and in batches, and loans of 60,000.

use xtipc_segment::Importance;
use xtipc_segment::channel::{Channel, DirectBuffer, Sending, Side, create};

const PAYLOAD: [u8; 64] = [7; 64];
const LOAN: usize = 60_000;
/// Units that a side may send ahead, as of a receive buffer of 2 MiB.
const WINDOW: u32 = 512;
/// Messages sent and received by one call.
const BATCH: u64 = 50;
const HONEST: &str = "both sides are ours";

fn pair() -> [Channel; 2] {
    let ([first, second], _) = create().expect("memory for a channel");
    let map = |fds, side| {
        let mut channel = Channel::map(fds, side, WINDOW).expect("our own channel");
        channel.sender.begin(0, WINDOW);
        channel
    };
    [map(first, Side::First), map(second, Side::Second)]
}

/// Messages one at a time.
pub(crate) fn messages(count: u64) {
    let [mut from, mut to] = pair();
    for _ in 0..count {
        let sent = from.sender.send(Importance::Low, &PAYLOAD).expect(HONEST);
        assert_eq!(sent, Sending::Done);
        let received = to.receiver.take_message().expect(HONEST);
        let (_, buffer) = received.expect("a message");
        buffer.consumed();
        assert_eq!(buffer[..], PAYLOAD);
    }
}

/// Messages in batches.
pub(crate) fn batches(count: u64) {
    let [mut from, mut to] = pair();
    for _ in 0..count / BATCH {
        let batch = (0..BATCH).map(|_| &PAYLOAD[..]);
        let sent = from.sender.send_all(Importance::Low, batch).expect(HONEST);
        assert_eq!(sent, (BATCH as u32, Sending::Done));
        let mut received = 0;
        let each = |_, buffer: DirectBuffer| {
            assert_eq!(buffer[..], PAYLOAD);
            received += 1;
        };
        to.receiver.consume(BATCH as usize, each).expect(HONEST);
        assert_eq!(received, BATCH);
    }
}

/// Loans, of which the first bytes are written and read.
pub(crate) fn loans(count: u64) {
    let [mut from, mut to] = pair();
    for _ in 0..count {
        let loan = from.sender.loan(LOAN).expect(HONEST);
        let mut loan = loan.expect("room");
        loan.write(0, &PAYLOAD);
        let sent = from.sender.send_loan(Importance::Low, loan).expect(HONEST);
        assert!(matches!(sent, Ok(Sending::Done)));
        let received = to.receiver.take_message().expect(HONEST);
        let (_, buffer) = received.expect("a message");
        buffer.consumed();
        let shared = buffer.into_shared().expect("a loan");
        let mut first = [0; PAYLOAD.len()];
        shared.copy_to(0, &mut first);
        assert_eq!(first, PAYLOAD);
    }
}
