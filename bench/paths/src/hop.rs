//! A reference to a frame that goes to another worker and comes back, alone: what handing a queue over adds to a packet at
//! most. In a batch the indices are published once for all.

use std::hint::black_box;

use xtipc_xsk::ring::pair;

/// As an AF_XDP descriptor: where the packet is, and how long.
#[derive(Clone, Copy)]
struct Reference {
    address: u64,
    len: u32,
    options: u32,
}

/// See the module.
pub(crate) fn there_and_back(count: u64) {
    let (mut there, mut from_there) = pair::<Reference>(2048);
    let (mut back, mut from_back) = pair::<u64>(4096);
    for number in 0..count {
        assert!(there.has_room(1));
        there.push(black_box(Reference {
            address: number << 12,
            len: 64,
            options: 0,
        }));
        there.publish();
        assert!(!there.must_wake(), "nobody sleeps");

        let reference = from_there.pop().expect("it was just published");
        from_there.publish();
        assert_eq!((reference.len, reference.options), (64, 0));
        assert!(back.has_room(1));
        back.push(black_box(reference.address));
        back.publish();
        assert!(!back.must_wake(), "nobody sleeps");

        assert_eq!(from_back.pop(), Some(number << 12));
        from_back.publish();
    }
}
