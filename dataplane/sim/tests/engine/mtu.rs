//! Nodes that take packets of different lengths, and change that while they run.

use crate::link::{down_reasons, link_protocol, state, unicast_from};
use std::time::Duration;
use xtipc_protocol::addr::{BearerId, Destination, PortId, SocketAddr};
use xtipc_protocol::port::McastMethod;
use xtipc_protocol::wire::{Msg, User, field};
use xtipc_sim::cluster::{Cluster, range};
use xtipc_sim::segment::{Fate, Seen, mac_of};

const MS: Duration = Duration::from_millis(1);
const SERVICE: u32 = 5000;

fn set_mtu(c: &mut Cluster, station: usize, mtu: usize) {
    let now = c.now;
    c.with(station, |n| {
        n.engine.set_bearer_mtu(now, BearerId(0), mtu, &mut n.host)
    });
}

fn mtu(c: &Cluster, of: usize) -> usize {
    c.link_view(of, 1 - of).mtu
}

/// Numbered messages from node 0 to node 1 for this time: each comes, whole and in order. The longest packet of each node, to
/// the nearest hundred: room is left for a tunnel.
fn flow(c: &mut Cluster, from: PortId, to: SocketAddr, span: Duration) -> [usize; 2] {
    c.segment.record = true;
    c.segment.seen.clear();
    let end = c.now + span;
    let (mut sent, mut got) = (0u8, 0u8);
    while c.now < end {
        let back = SocketAddr {
            port: from,
            node: c.addr(0),
        };
        for (station, port, dest) in [(0, from, to), (1, to.port, back)] {
            let message = &[sent; 4000][..];
            c.send(station, port, Destination::Socket(dest), message)
                .unwrap();
        }
        sent = sent.wrapping_add(1);
        c.run_for(20 * MS);
        for message in c.recv_all(1, to.port) {
            assert_eq!(message.bytes, [got; 4000]);
            got = got.wrapping_add(1);
        }
        c.recv_all(0, from);
    }
    assert_eq!(got, sent);
    [0, 1].map(|node| {
        let of_node = c.segment.seen.iter().filter(|seen| seen.from == node);
        let longest = of_node.map(|seen| seen.bytes.len()).max();
        longest.unwrap_or(0).next_multiple_of(100)
    })
}

#[test]
fn an_mtu_that_is_changed_under_traffic_is_followed_by_both_ends_and_takes_no_link_down() {
    for lost in 0..4 {
        let mut c = Cluster::settled(1, 2);
        let (from, to) = crate::link::pair(&mut c);
        c.notices(0);
        c.notices(1);
        assert_eq!(flow(&mut c, from, to, 100 * MS), [1500, 1500]);
        let mut announced = 0;
        c.segment.filter = Some(Box::new(move |flight| {
            let message = link_protocol(&flight.bytes);
            let told = message.as_ref().and_then(state);
            let announces = told.is_some_and(|state| state.max_packet.is_some());
            announced += u32::from(announces);
            match announces && announced <= lost {
                true => Fate::Lose,
                false => Fate::Pass,
            }
        }));
        set_mtu(&mut c, 0, 600);
        flow(&mut c, from, to, 2000 * MS);
        assert_eq!(flow(&mut c, from, to, 500 * MS), [600, 600]);
        assert_eq!((mtu(&c, 0), mtu(&c, 1)), (600, 600));
        // Not longer than the other end takes.
        set_mtu(&mut c, 1, 1200);
        set_mtu(&mut c, 0, 1500);
        flow(&mut c, from, to, 2000 * MS);
        assert_eq!(flow(&mut c, from, to, 500 * MS), [1200, 1200]);
        set_mtu(&mut c, 1, 1500);
        flow(&mut c, from, to, 2000 * MS);
        assert_eq!((mtu(&c, 0), mtu(&c, 1)), (1500, 1500));
        assert!(down_reasons(&mut c, 0).is_empty() && down_reasons(&mut c, 1).is_empty());
        c.segment.filter = None;
        c.finish();
    }
}

#[test]
fn an_mtu_that_one_state_alone_tells_is_not_believed() {
    let mut c = Cluster::settled(3, 2);
    c.segment.record = true;
    c.run_for(1000 * MS);
    let seen = unicast_from(&c.segment.seen, 0);
    let is_state = |seen: &&Seen| {
        let message = link_protocol(&seen.bytes);
        message.is_some_and(|message| state(&message).is_some())
    };
    let mut damaged = seen.iter().rfind(is_state).unwrap().bytes.clone();
    let number = link_protocol(&damaged).unwrap().seqno;
    field::SEQNO.set(&mut damaged, u32::from(number) + 1);
    field::MAX_PKT.set(&mut damaged, 50);
    c.receive(1, mac_of(0), &damaged);
    c.run_for(5000 * MS);
    assert_eq!((mtu(&c, 0), mtu(&c, 1)), (1500, 1500));
    c.finish();
}

/// A multicast of 5000 bytes by broadcast: every node has it, cut into packets of this length at most.
fn multicast(c: &mut Cluster, from: PortId, receivers: &[(usize, PortId)]) -> usize {
    c.segment.record = true;
    c.segment.seen.clear();
    c.send(0, from, range(SERVICE, 3, 3), &[7; 5000][..])
        .unwrap();
    c.run_for(500 * MS);
    for (station, port) in receivers {
        let got = c.recv_all(*station, *port);
        assert_eq!(got.len(), 1, "at {station}");
        assert_eq!(got[0].bytes, [7; 5000]);
    }
    let sent = c
        .segment
        .seen
        .iter()
        .filter(|s| s.from == 0 && s.to.is_none());
    let sent = sent.filter(|s| Msg::check(&s.bytes).unwrap().user() != User::LinkConfig);
    sent.map(|s| s.bytes.len()).max().unwrap_or(0)
}

#[test]
fn broadcasts_are_as_long_as_all_who_hear_them_take() {
    let mut c = Cluster::settled(2, 2);
    c.recipe.mtu = 600;
    c.start(2);
    c.until("up", |c| c.is_full_mesh());
    let from = c.open(0).port;
    c.with(0, |n| {
        n.engine.port_mut(from).unwrap().mcast_wanted = Some(McastMethod::Broadcast)
    });
    let mut receivers = Vec::new();
    for station in [1, 2] {
        let port = c.open(station).port;
        c.bind(station, port, (SERVICE, 0, 99));
        receivers.push((station, port));
    }
    c.run_for(1000 * MS);
    assert!((500..=600).contains(&multicast(&mut c, from, &receivers)));
    // One that is told while the link is up counts, too.
    set_mtu(&mut c, 1, 400);
    c.run_for(2000 * MS);
    assert!((300..=400).contains(&multicast(&mut c, from, &receivers)));
    set_mtu(&mut c, 1, 1500);
    c.stop(2);
    c.run_for(2000 * MS);
    assert!((1400..=1500).contains(&multicast(&mut c, from, &receivers[..1])));
    c.finish();
}
