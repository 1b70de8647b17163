//! Any bytes a peer can write into a channel, between any calls of the other side: these end, and stay inside its
//! memory.
//!
//! The address sanitizer sees accesses outside the mappings, and of copies.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xtipc_segment::channel::{Channel, DirectBuffer, Envelope, Incoming, Side, create};
use xtipc_segment::{Importance, ServiceAddress};

fuzz_target!(|input: &[u8]| {
    let ([ours, theirs], _view) = create().expect("memory and pipes");
    let mut channel = Channel::map(ours, Side::First, 128).expect("a good channel");
    channel.sender.begin(0, 128);
    let (mut held, mut loans) = (Vec::new(), Vec::new());
    let mut rest = input;
    while let Some((step, after)) = rest.split_first_chunk::<4>() {
        rest = after;
        let [kind, a, b, len] = *step;
        let place = u64::from(a) << 8 | u64::from(b);
        let base = match kind % 12 {
            0 => 1024,
            1 => 266_240,
            2 => 536_576,
            3 => place * 40,
            4 => {
                let _ = channel.sender.send(Importance::Low, &vec![len; place as usize]);
                continue;
            }
            5 => {
                if let Ok(Some(mut loan)) = channel.sender.loan(place as usize) {
                    loan.write(0, &vec![len; place as usize]);
                    loans.push(loan);
                }
                continue;
            }
            6 => {
                match loans.pop() {
                    Some(loan) if len % 2 == 0 => channel.sender.take_back(loan),
                    Some(loan) => drop(channel.sender.send_loan(Importance::Low, loan)),
                    None => {}
                }
                continue;
            }
            7 => {
                held.truncate(usize::from(a));
                continue;
            }
            8 => {
                let _ = channel.sender.oldest_unread(usize::from(a) * 8);
                channel.announce(a % 2 == 0);
                let _ = channel.sender.was_taken(u32::from(b));
                if len == 255 {
                    channel.sleep.revoke();
                    channel.receiver.finish();
                }
                continue;
            }
            9 => {
                let from = held.len();
                let max = usize::from(a) % 8;
                let _ = channel.receiver.consume(max, |_, buffer| held.push(buffer));
                held[from..].iter_mut().for_each(DirectBuffer::make_own);
                continue;
            }
            10 => {
                let envelope = Envelope {
                    droppable: b % 2 == 0,
                    name: (b % 3 == 0).then_some(ServiceAddress {
                        type_: u32::from(a),
                        instance: u32::from(b),
                    }),
                    ..Envelope::default()
                };
                let credit = place << (len % 16);
                let payload = vec![len; place as usize];
                let _ = channel.sender.send_datagram(&envelope, &payload, credit);
                let _ = channel.sender.take_unread(usize::from(a) * 8);
                continue;
            }
            _ => {
                if let Ok(Some(Incoming::Message(_, mut buffer))) = channel.receiver.take_next() {
                    buffer.consumed();
                    if len % 2 == 0 {
                        buffer.make_own();
                        assert_eq!(buffer.iter().count(), buffer.len());
                    }
                    held.push(buffer);
                }
                continue;
            }
        };
        let (bytes, after) = rest.split_at(usize::from(len % 72).min(rest.len()));
        rest = after;
        // Past the end nothing can be written, and nothing is.
        let _ = rustix::io::pwrite(&theirs.memory, bytes, base + place % 2048);
    }
});
