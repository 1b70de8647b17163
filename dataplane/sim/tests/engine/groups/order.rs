//! A member sees the messages of one sender in the order they were sent, across all modes.

use super::{members, settle};
use std::time::Duration;
use xtipc_protocol::addr::Destination;
use xtipc_protocol::engine::SendError;
use xtipc_protocol::port::McastMethod;
use xtipc_protocol::wire::Importance;
use xtipc_sim::cluster::Cluster;
use xtipc_sim::groups::{all_at, any_at, membership};
use xtipc_sim::rng::Rng;

/// One member sends to two others in random modes over a bad wire; what each reads has ascending numbers,
/// and none is missing.
fn storm(seed: u64, broadcast: bool) {
    let mut c = Cluster::settled(seed, 3);
    let from = c.join(0, membership(super::GROUP, 1));
    let to = [1, 2].map(|node| (node, c.join(node, membership(super::GROUP, 2))));
    settle(&mut c);
    c.with(0, |node| {
        let port = node.engine.port_mut(from.port).expect("a member");
        port.mcast_wanted = broadcast.then_some(McastMethod::Broadcast);
    });
    let mut rng = Rng::new(seed);
    c.segment.faults.loss = 50;
    c.segment.faults.reordering = 100;
    c.segment.faults.straggle_us = 300;
    let mut expected = [Vec::new(), Vec::new()];
    let mut got = [Vec::new(), Vec::new()];
    for n in 0..400u32 {
        let text = format!("{n:05}{}", "x".repeat(rng.below(3000) as usize));
        let mode = rng.below(5);
        let target = rng.below(2) as usize;
        if rng.below(20) == 0 {
            let importance = [Importance::Low, Importance::High][rng.below(2) as usize];
            c.with(0, |node| {
                let port = node.engine.port_mut(from.port).expect("a member");
                port.importance = importance;
            });
        }
        loop {
            let sent = match mode {
                0 | 1 => c.broadcast(0, from.port, text.as_bytes()),
                2 => c.send(0, from.port, all_at(2), text.as_bytes()),
                3 => c.send(0, from.port, any_at(2), text.as_bytes()),
                _ => {
                    let one = Destination::Socket(to[target].1);
                    c.send(0, from.port, one, text.as_bytes())
                }
            };
            match sent {
                Ok(()) => break,
                Err(SendError::Congested) => {
                    c.run_for(Duration::from_micros(300));
                    for ((node, member), got) in to.iter().zip(&mut got) {
                        let read = c.recv_all(*node, member.port).into_iter();
                        got.extend(
                            read.filter(|m| !m.bytes.is_empty())
                                .map(|m| number(&m.bytes)),
                        );
                    }
                }
                Err(error) => panic!("seed {seed}, message {n}: {error}"),
            }
        }
        match mode {
            0..=2 => expected.iter_mut().for_each(|all| all.push(n)),
            3 => {}
            _ => expected[target].push(n),
        }
        if rng.below(3) == 0 {
            c.run_for(Duration::from_micros(rng.below(2000)));
        }
    }
    c.run_for(Duration::from_secs(3));
    for ((node, member), got) in to.iter().zip(&mut got) {
        let read = c.recv_all(*node, member.port).into_iter();
        got.extend(
            read.filter(|m| !m.bytes.is_empty())
                .map(|m| number(&m.bytes)),
        );
        assert!(got.is_sorted(), "seed {seed}, node {node}: {got:?}");
    }
    let all: usize = got.iter().map(Vec::len).sum();
    for (got, expected) in got.iter().zip(&expected) {
        assert!(expected.iter().all(|n| got.contains(n)), "seed {seed}");
    }
    assert!(all >= expected[0].len() + expected[1].len());
    c.finish();
}

fn number(bytes: &[u8]) -> u32 {
    let digits = std::str::from_utf8(&bytes[..5]).expect("digits");
    digits.parse().expect("a number")
}

#[test]
fn order_holds_across_all_modes_by_broadcast() {
    for seed in 100..110 {
        storm(seed, true);
    }
}

#[test]
fn order_holds_across_all_modes_by_copies() {
    for seed in 110..120 {
        storm(seed, false);
    }
}

#[test]
fn a_message_that_overtook_a_broadcast_waits_for_it() {
    let (mut c, m) = members(121, 3);
    c.with(0, |node| {
        let port = node.engine.port_mut(m[0].port).expect("a member");
        port.mcast_wanted = Some(McastMethod::Broadcast);
    });
    c.broadcast(0, m[0].port, "zero".as_bytes()).unwrap();
    settle(&mut c);
    // The next broadcast is lost on its way to node 1; what goes to it alone is not.
    let mut lost = false;
    c.segment.filter = Some(Box::new(move |flight| {
        let is_broadcast = xtipc_protocol::wire::field::NON_SEQ.get(&flight.bytes) == 1;
        if is_broadcast && flight.to == 1 && !lost {
            lost = true;
            return xtipc_sim::segment::Fate::Lose;
        }
        xtipc_sim::segment::Fate::Pass
    }));
    c.broadcast(0, m[0].port, "one".as_bytes()).unwrap();
    c.send(0, m[0].port, Destination::Socket(m[1]), "two".as_bytes())
        .unwrap();
    c.run_for(Duration::from_micros(100));
    assert_eq!(c.group(1, m[1].port).deferred(), 1);
    c.run_for(Duration::from_secs(2));
    assert_eq!(c.news(1, m[1].port), ["0:zero", "0:one", "0:two"]);
    assert_eq!(c.group(1, m[1].port).deferred(), 0);
}

#[test]
fn more_than_65536_broadcasts_keep_their_order() {
    let (mut c, m) = members(122, 2);
    c.segment.record = false;
    let mut next = 0u32;
    for n in 0..66_000u32 {
        while c.broadcast(0, m[0].port, &n.to_be_bytes()[..]) == Err(SendError::Congested) {
            settle(&mut c);
            for message in c.recv_all(1, m[1].port) {
                assert_eq!(message.bytes, next.to_be_bytes());
                next += 1;
            }
        }
    }
    settle(&mut c);
    next += c.recv_all(1, m[1].port).len() as u32;
    assert_eq!(next, 66_000);
    assert_eq!(c.group(0, m[0].port).bc_snd_nxt(), (66_000 % 65_536) as u16);
}
