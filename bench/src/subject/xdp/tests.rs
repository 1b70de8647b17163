//! Sockets of each crate at the two ends of a veth pair.

use std::process::Command;
use std::time::{Duration, Instant};

use nix::sched::CloneFlags;

use super::*;

/// More than there are frames: they are used again.
const MESSAGES: u64 = 320 * BATCH as u64;
/// Less than the kernel queues where it has no time for them now: nothing is lost.
const UNDER_WAY: u64 = 4 * BATCH as u64;
const SIZE: usize = 64;

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(status.unwrap().success(), "ip {arguments}");
}

/// The two ends; `None`, with the reason printed, where that is not allowed.
fn pair() -> Option<[Wire; 2]> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root to make a network namespace");
        return None;
    }
    // Of this thread only; the pair goes with it.
    nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
    ip("link add x0 address 02:00:00:00:00:00 type veth peer name x1 address 02:00:00:00:00:01");
    Some([0, 1].map(|side: u8| {
        ip(&format!("link set x{side} addrgenmode none up"));
        Wire {
            bearer: format!("eth:x{side}"),
            interface: format!("x{side}"),
            mac: [2, 0, 0, 0, 0, side],
            peer_mac: [2, 0, 0, 0, 0, 1 - side],
            peer: std::net::Ipv4Addr::LOCALHOST,
        }
    }))
}

/// Sends from the one to the other, which looks after each batch.
fn flow(from: &mut Port<impl Rings>, to: &mut Port<impl Rings>) {
    let mut message = [0; SIZE];
    let (mut sent, mut received) = (0, 0);
    let begun = Instant::now();
    while received < MESSAGES {
        if sent < MESSAGES && sent - received < UNDER_WAY {
            for number in sent..sent + BATCH as u64 {
                put_number(&mut message, number);
                from.push(&message).unwrap();
            }
            sent += BATCH as u64;
        }
        from.kick().unwrap();
        let mut expected = [0; SIZE];
        to.receive(BATCH, |message| {
            put_number(&mut expected, received);
            assert_eq!(message, expected);
            received += 1;
        })
        .unwrap();
        assert!(begun.elapsed() < Duration::from_secs(20), "{received} came");
    }
}

/// In a thread of its own, which is the only one in its namespace.
fn both_ways<A: Rings, B: Rings>() {
    std::thread::scope(|scope| scope.spawn(exchange::<A, B>).join().unwrap());
}

fn exchange<A: Rings, B: Rings>() {
    let Some([one, other]) = pair() else {
        return;
    };
    {
        let mut here = Port::<A>::open(&one).unwrap();
        let mut there = Port::<B>::open(&other).unwrap();
        // What a third station sends is none of the measurement.
        let own = here.header;
        here.header[11] = 77;
        here.push(&[7; SIZE]).unwrap();
        here.kick().unwrap();
        here.header = own;
        flow(&mut here, &mut there);
        flow(&mut there, &mut here);
    }
    for side in ["x0", "x1"] {
        let left = || xtipc_ebpf::Interface::query(side).unwrap().occupants;
        let begun = Instant::now();
        // Whatever another test executes right now has its descriptors too, until it does.
        while !left().is_empty() {
            assert!(begun.elapsed() < PATIENCE, "{side}: {:?}", left());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn what_a_socket_of_ours_sends_comes_whole_and_nothing_is_left_behind() {
    both_ways::<Own, Own>();
}

#[cfg(feature = "xsk-rs")]
#[test]
fn what_a_socket_of_xsk_rs_sends_comes_whole_and_nothing_is_left_behind() {
    both_ways::<XskRsSocket, XskRsSocket>();
}

#[cfg(feature = "xsk-rs")]
#[test]
fn sockets_of_both_crates_understand_each_other() {
    both_ways::<Own, XskRsSocket>();
}
