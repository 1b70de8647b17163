//! The four ways to send.

use super::{DataType, GROUP, group_data, is_told_to_go_on, members, settle};
use xtipc_protocol::addr::{Destination, NodeAddr, SocketAddr};
use xtipc_protocol::engine::SendError;
use xtipc_protocol::group::{BlockedOn, Membership};
use xtipc_protocol::host::MemberNews;
use xtipc_protocol::port::McastMethod;
use xtipc_sim::cluster::Cluster;
use xtipc_sim::groups::{all_at, any_at, membership};

#[test]
fn every_mode_reaches_whom_it_means() {
    let mut c = Cluster::settled(20, 3);
    let instances = [1, 2, 2];
    let m: Vec<SocketAddr> = (0..3)
        .map(|node| c.join(node, membership(GROUP, instances[node])))
        .collect();
    settle(&mut c);
    for (node, member) in m.iter().enumerate() {
        c.news(node, member.port);
    }
    let from = m[0].port;
    c.broadcast(0, from, "all".as_bytes()).unwrap();
    settle(&mut c);
    c.send(0, from, all_at(2), "both".as_bytes()).unwrap();
    settle(&mut c);
    c.send(0, from, Destination::Socket(m[2]), "one".as_bytes())
        .unwrap();
    settle(&mut c);
    assert_eq!(c.news(1, m[1].port), ["1:all", "1:both"]);
    assert_eq!(c.news(2, m[2].port), ["1:all", "1:both", "1:one"]);
    for n in 0..4 {
        c.send(0, from, any_at(2), format!("any {n}").as_bytes())
            .unwrap();
        settle(&mut c);
    }
    let got: Vec<usize> = [1, 2].map(|n| c.news(n, m[n].port).len()).into();
    assert_eq!(got, [2, 2], "in turns");
    assert_eq!(c.news(0, from), [""; 0], "nothing to itself");
}

#[test]
fn a_message_tells_who_sent_it_by_both_addresses() {
    let (mut c, m) = members(21, 2);
    c.broadcast(0, m[0].port, "hello".as_bytes()).unwrap();
    settle(&mut c);
    let message = c.recv(1, m[1].port).unwrap();
    let from = message.about.group.unwrap();
    assert_eq!(message.about.source, m[0]);
    assert_eq!((from.group, from.instance), (GROUP, 0));
    assert!(matches!(from.news, MemberNews::Message(_)));
    assert_eq!(message.about.dest_name, None);
    assert!(!message.about.returnable);
}

#[test]
fn a_multicast_for_a_single_member_goes_to_it_alone() {
    let (mut c, m) = members(22, 3);
    c.send(0, m[0].port, all_at(1), "only".as_bytes()).unwrap();
    settle(&mut c);
    assert_eq!(group_data(&c), [(DataType::GroupUcast, 0, false, false)]);
    assert_eq!(c.news(1, m[1].port), ["0:only"]);
}

#[test]
fn who_is_no_member_cannot_be_sent_to() {
    let (mut c, m) = members(23, 2);
    let nobody = Destination::Socket(SocketAddr {
        port: m[0].port,
        node: NodeAddr(0x99),
    });
    for to in [any_at(9), all_at(9), nobody, Destination::Socket(m[0])] {
        let sent = c.send(0, m[0].port, to, &b"x"[..]);
        assert_eq!(sent, Err(SendError::Unreachable), "{to:?}");
    }
    let upside_down = xtipc_sim::cluster::range(GROUP, 3, 2);
    let sent = c.send(0, m[0].port, upside_down, &b"x"[..]);
    assert_eq!(sent, Err(SendError::EmptyRange(3, 2)));
    let long = vec![0; 66_001];
    let sent = c.broadcast(0, m[0].port, &long[..]);
    assert_eq!(sent, Err(SendError::TooLong(66_001)));
    let alone = c.join(0, membership(6000, 1));
    let sent = c.broadcast(0, alone.port, &b"x"[..]);
    assert_eq!(sent, Err(SendError::Unreachable));
    let outside = c.open(0);
    let sent = c.broadcast(0, outside.port, &b"x"[..]);
    assert_eq!(sent, Err(SendError::NotConnected));
}

#[test]
fn the_largest_message_reaches_everybody_in_fragments() {
    let (mut c, m) = members(24, 3);
    let bytes: Vec<u8> = (0..66_000u32).map(|n| n as u8).collect();
    c.broadcast(0, m[0].port, &bytes[..]).unwrap();
    settle(&mut c);
    for node in [1, 2] {
        let got = c.recv(node, m[node].port).map(|r| r.bytes);
        assert!(got == Some(bytes.clone()), "node {node}");
    }
}

#[test]
fn the_first_broadcast_goes_as_copies_and_asks_for_acknowledgements_the_next_does_not() {
    let (mut c, m) = members(25, 3);
    set_method(&mut c, m[0], McastMethod::Broadcast);
    for text in ["one", "two"] {
        c.broadcast(0, m[0].port, text.as_bytes()).unwrap();
        settle(&mut c);
    }
    let copy = (DataType::GroupBcast, 0, true, false);
    assert_eq!(
        group_data(&c),
        [copy, copy, (DataType::GroupBcast, 1, false, true)]
    );
    assert_eq!(c.news(1, m[1].port), ["0:one", "0:two"]);
}

#[test]
fn a_broadcast_behind_a_message_to_one_member_goes_as_copies_and_the_next_waits_for_acknowledgements()
 {
    let (mut c, m) = members(26, 3);
    set_method(&mut c, m[0], McastMethod::Broadcast);
    c.broadcast(0, m[0].port, "zero".as_bytes()).unwrap();
    settle(&mut c);
    c.segment.seen.clear();
    c.send(0, m[0].port, Destination::Socket(m[1]), "single".as_bytes())
        .unwrap();
    c.broadcast(0, m[0].port, "behind".as_bytes()).unwrap();
    let early = c.broadcast(0, m[0].port, "waits".as_bytes());
    assert_eq!(early, Err(SendError::Congested));
    let blocked = c.group(0, m[0].port).blocked().unwrap();
    assert_eq!(blocked.on, BlockedOn::Acknowledgement);
    assert!(m[1..].contains(&blocked.member));
    settle(&mut c);
    assert!(is_told_to_go_on(&mut c, 0, m[0].port));
    c.broadcast(0, m[0].port, "waits".as_bytes()).unwrap();
    settle(&mut c);
    let data = group_data(&c);
    assert_eq!(
        data,
        [
            (DataType::GroupUcast, 1, false, false),
            (DataType::GroupBcast, 1, true, false),
            (DataType::GroupBcast, 1, true, false),
            (DataType::GroupBcast, 2, false, true),
        ]
    );
    assert_eq!(
        c.news(1, m[1].port),
        ["0:zero", "0:single", "0:behind", "0:waits"]
    );
}

#[test]
fn a_member_that_leaves_or_is_lost_owes_no_acknowledgement() {
    let (mut c, m) = members(27, 3);
    c.segment.cut(0, 2);
    c.broadcast(0, m[0].port, "first".as_bytes()).unwrap();
    let second = c.broadcast(0, m[0].port, "second".as_bytes());
    assert_eq!(second, Err(SendError::Congested));
    settle(&mut c);
    assert!(
        !is_told_to_go_on(&mut c, 0, m[0].port),
        "node 2 has not answered"
    );
    c.run_for(std::time::Duration::from_secs(3));
    assert!(is_told_to_go_on(&mut c, 0, m[0].port), "node 2 was lost");
    c.broadcast(0, m[0].port, "second".as_bytes()).unwrap();
    settle(&mut c);
    let got: Vec<String> = c.news(1, m[1].port);
    assert!(got.ends_with(&["0:second".to_string()]), "{got:?}");
}

#[test]
fn a_member_with_its_own_messages_is_among_the_receivers() {
    let mut c = Cluster::settled(28, 2);
    let with_own = Membership {
        loopback: true,
        ..membership(GROUP, 1)
    };
    let own = c.join(0, with_own);
    let other = c.join(1, with_own);
    settle(&mut c);
    c.news(0, own.port);
    c.news(1, other.port);
    c.broadcast(0, own.port, "all".as_bytes()).unwrap();
    settle(&mut c);
    c.send(0, own.port, all_at(1), "both".as_bytes()).unwrap();
    settle(&mut c);
    for _ in 0..2 {
        c.send(0, own.port, any_at(1), "any".as_bytes()).unwrap();
        settle(&mut c);
    }
    let got = ["1:all", "1:both", "1:any"];
    assert_eq!(c.news(0, own.port), got);
    assert_eq!(c.news(1, other.port), got);
}

fn set_method(c: &mut Cluster, member: SocketAddr, method: McastMethod) {
    c.with(0, |node| {
        let port = node.engine.port_mut(member.port).expect("a member");
        port.mcast_wanted = Some(method);
    });
}
