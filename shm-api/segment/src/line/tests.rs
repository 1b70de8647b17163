use std::collections::VecDeque;

use proptest::prelude::*;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::*;

fn pair() -> (Line, Line, OwnedFd) {
    let (caller, memory) = Line::make().unwrap();
    let called = Line::join(&memory).unwrap();
    (caller, called, memory)
}

fn take(line: &mut Line) -> Result<Option<Vec<u8>>, Violation> {
    let mut packet = vec![0; PACKET_MAX];
    let len = line.receive(&mut packet)?;
    Ok(len.map(|len| packet[..len].to_vec()))
}

fn sockets() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
}

#[test]
fn packets_of_all_sizes_pass_both_ways_in_order() {
    let (mut caller, mut called, _memory) = pair();
    for len in [0, 1, 60, 4096, PACKET_MAX] {
        assert_eq!(caller.send(&vec![7; len], 0), Ok(true));
        assert_eq!(take(&mut called), Ok(Some(vec![7; len])));
        assert_eq!(called.send(&vec![8; len], 0), Ok(true));
        assert_eq!(take(&mut caller), Ok(Some(vec![8; len])));
        assert_eq!((take(&mut caller), take(&mut called)), (Ok(None), Ok(None)));
    }
}

#[test]
fn a_full_ring_takes_no_more_and_a_reserve_is_left_to_who_may_use_it() {
    let (mut caller, mut called, _memory) = pair();
    for number in 0..PACKETS - 16 {
        assert_eq!(caller.send(&number.to_ne_bytes(), 16), Ok(true));
    }
    assert_eq!(caller.send(b"data", 16), Ok(false));
    for _ in 0..16 {
        assert_eq!(caller.send(b"control", 0), Ok(true));
    }
    assert_eq!(caller.send(b"control", 0), Ok(false));
    assert_eq!(take(&mut called), Ok(Some(0u32.to_ne_bytes().to_vec())));
    assert_eq!(caller.send(b"control", 0), Ok(true));
}

#[test]
fn a_bell_is_due_once_for_each_sleep() {
    let (mut caller, mut called, _memory) = pair();
    caller.send(b"unheard", 0).unwrap();
    assert!(!caller.must_ring());
    assert!(!called.may_sleep());
    called.awake();
    take(&mut called).unwrap();
    for _ in 0..3 {
        assert!(called.may_sleep());
        caller.send(b"one", 0).unwrap();
        assert!(caller.must_ring());
        caller.send(b"two", 0).unwrap();
        assert!(!caller.must_ring());
        assert!(!called.may_sleep());
        called.awake();
        while take(&mut called).unwrap().is_some() {}
    }
}

#[test]
fn a_bell_is_heard_and_the_end_of_its_socket_is_the_end_of_the_other_side() {
    let (near, far) = sockets();
    for _ in 0..10_000 {
        ring_bell(far.as_fd());
    }
    assert!(silence_bell(near.as_fd()));
    ring_bell(far.as_fd());
    drop(far);
    assert!(!silence_bell(near.as_fd()));
    ring_bell(near.as_fd());
}

#[test]
fn greetings_are_read_as_they_were_sent_and_strangers_refused() {
    let (near, far) = sockets();
    let (_line, memory) = Line::make().unwrap();
    let greeting = Greeting { station: 0x1234 };
    greeting.send(far.as_fd(), Some(memory.as_fd())).unwrap();
    let (heard, fds) = Greeting::receive(near.as_fd()).unwrap().unwrap();
    assert_eq!((heard, fds.len()), (greeting, 1));
    Line::join(&fds[0]).unwrap();
    for (bytes, expected) in [
        (b"XTIPCSHM".to_vec(), "not a greeting"),
        (b"GET / HTTP/1.1\r\n".to_vec(), "not a greeting"),
        (
            [&MAGIC[..], &9u32.to_ne_bytes(), &[0; 8]].concat(),
            "version 9",
        ),
    ] {
        send_bytes(far.as_fd(), &bytes, &[]).unwrap();
        let error = Greeting::receive(near.as_fd()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    drop(far);
    assert!(Greeting::receive(near.as_fd()).unwrap().is_none());
}

#[test]
fn memory_that_could_shrink_or_has_another_size_is_refused() {
    let unsealed = memfd_create("test", MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&unsealed, LEN as u64).unwrap();
    let error = Line::join(&unsealed).unwrap_err().to_string();
    assert!(error.contains("not sealed"), "{error}");
    let small = make_memfd("test", LEN - 4096).unwrap();
    assert!(matches!(Line::join(&small), Err(LineError::Size(_))));
    let (socket, _) = sockets();
    Line::join(&socket).unwrap_err();
}

#[test]
fn impossible_cursors_and_lengths_are_violations() {
    let write = |memory: &OwnedFd, place: usize, bytes: &[u8]| {
        rustix::io::pwrite(memory, bytes, place as u64).unwrap();
    };
    let (_caller, mut called, memory) = pair();
    write(&memory, TAIL, &(PACKETS + 1).to_ne_bytes());
    assert!(matches!(take(&mut called), Err(Violation::Cursor { .. })));
    assert!(!called.may_sleep());

    let (mut caller, _called, memory) = pair();
    write(&memory, HEAD, &(PACKETS + 9).to_ne_bytes());
    for _ in 0..PACKETS {
        let _ = caller.send(b"x", 0);
    }
    assert!(matches!(
        caller.send(b"x", 0),
        Err(Violation::Cursor { .. })
    ));

    let (mut caller, mut called, memory) = pair();
    for len in [PACKET_MAX as u64 + 1, u64::MAX] {
        caller.send(b"x", 0).unwrap();
        write(&memory, ENTRIES, &len.to_ne_bytes());
        assert!(matches!(take(&mut called), Err(Violation::Payload { .. })));
    }
}

proptest! {
    #[test]
    fn a_line_behaves_like_two_queues(steps in proptest::collection::vec((0u8..4, 0usize..300), 1..400)) {
        let (mut caller, mut called, _memory) = pair();
        let mut oracle = [VecDeque::new(), VecDeque::new()];
        for (step, len) in steps {
            let way = usize::from(step & 1);
            let (from, to) = if way == 0 { (&mut caller, &mut called) } else { (&mut called, &mut caller) };
            if step < 2 {
                let packet = vec![len as u8; len];
                let fits = oracle[way].len() < PACKETS as usize;
                prop_assert_eq!(from.send(&packet, 0), Ok(fits));
                if fits {
                    oracle[way].push_back(packet);
                }
            } else {
                prop_assert_eq!(take(to), Ok(oracle[way].pop_front()));
            }
        }
    }
}
