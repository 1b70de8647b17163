//! Coming and going.

use super::{GROUP, group_protocol, members, settle, view};
use std::time::Duration;
use xtipc_protocol::addr::PortId;
use xtipc_protocol::engine::{BindError, JoinError, NoMember, SendError};
use xtipc_protocol::group::{BlockedOn, MemberState, Membership};
use xtipc_protocol::name::{Scope, ServiceRange};
use xtipc_protocol::port::SocketKind;
use xtipc_protocol::wire::GroupKind;
use xtipc_sim::cluster::Cluster;
use xtipc_sim::groups::membership;

#[test]
fn two_members_know_each_other_after_the_four_messages_of_a_join() {
    let mut c = Cluster::settled(1, 2);
    let old = c.join(0, membership(GROUP, 7));
    settle(&mut c);
    c.segment.record = true;
    c.segment.seen.clear();
    let new = c.join(1, membership(GROUP, 8));
    settle(&mut c);
    let join = |window| GroupKind::Join {
        bc_syncpt: 0,
        window,
    };
    let adv = GroupKind::Adv { window: 65 };
    let said = group_protocol(&c);
    let of = |station| -> Vec<GroupKind> {
        let by = said.iter().filter(|(from, _)| *from == station);
        by.map(|(_, kind)| *kind).collect()
    };
    // The binding goes ahead of the newcomer's JOIN.
    assert_eq!(of(0), [join(0), adv]);
    assert_eq!(of(1), [join(0), adv]);
    assert_eq!(view(&c, 0, old, new), (MemberState::Joined, 65, 65));
    assert_eq!(view(&c, 1, new, old), (MemberState::Joined, 65, 65));
    assert_eq!(c.news(0, old.port), ["+8"]);
    assert_eq!(c.news(1, new.port), ["+7"]);
    assert_eq!(c.group(1, new.port).member(old).unwrap().instance, 7);
}

#[test]
fn members_on_one_node_know_each_other_at_once() {
    let mut c = Cluster::settled(2, 1);
    let a = c.join(0, membership(GROUP, 1));
    let b = c.join(0, membership(GROUP, 2));
    assert_eq!(view(&c, 0, a, b), (MemberState::Joined, 65, 65));
    assert_eq!(view(&c, 0, b, a), (MemberState::Joined, 65, 65));
    assert_eq!(c.news(0, a.port), ["+2"]);
    assert_eq!(c.news(0, b.port), ["+1"]);
}

#[test]
fn a_member_that_wants_its_own_messages_is_a_member_of_itself() {
    let mut c = Cluster::settled(3, 1);
    let alone = c.join(
        0,
        Membership {
            loopback: true,
            ..membership(GROUP, 1)
        },
    );
    assert_eq!(view(&c, 0, alone, alone), (MemberState::Joined, 65, 65));
    c.broadcast(0, alone.port, "to myself".as_bytes()).unwrap();
    assert_eq!(c.news(0, alone.port), ["+1", "1:to myself"]);
}

#[test]
fn a_join_is_refused_for_the_reasons_of_linux() {
    let mut c = Cluster::settled(4, 1);
    let socket = c.open(0);
    let stream = c.open_kind(0, SocketKind::Stream);
    let join = |c: &mut Cluster, port, group| c.try_join(0, port, membership(group, 1));
    assert_eq!(join(&mut c, PortId(1), GROUP), Err(JoinError::NoSuchSocket));
    assert_eq!(
        join(&mut c, socket.port, 63),
        Err(JoinError::ReservedType(63))
    );
    assert_eq!(
        join(&mut c, stream.port, GROUP),
        Err(JoinError::ConnectionType)
    );
    assert_eq!(join(&mut c, socket.port, GROUP), Ok(()));
    assert_eq!(
        join(&mut c, socket.port, 6000),
        Err(JoinError::Member(GROUP))
    );
    assert_eq!(c.leave(0, socket.port), Ok(()));
    assert_eq!(c.leave(0, socket.port), Err(NoMember));
    assert_eq!(
        join(&mut c, socket.port, 6000),
        Ok(()),
        "another one, later"
    );
}

#[test]
fn a_member_binds_nothing_else() {
    let mut c = Cluster::settled(5, 1);
    let member = c.join(0, membership(GROUP, 1));
    let now = c.now;
    let (range, scope) = (ServiceRange::instance(7000, 1), Scope::Cluster);
    let refused = c.with(0, |n| {
        let (engine, host) = (&mut n.engine, &mut n.host);
        [
            engine.bind(now, member.port, range, scope, host),
            engine.unbind(now, member.port, range, scope, host),
            engine.unbind_all(now, member.port, host),
        ]
    });
    assert_eq!(refused, [Err(BindError::Member); 3]);
    c.leave(0, member.port).unwrap();
    let bindings = c.node(0).engine.publications();
    assert_eq!(bindings.filter(|p| p.range.type_ == GROUP).count(), 0);
    c.bind(0, member.port, (7000, 1, 1));
}

#[test]
fn leaving_is_told_before_the_binding_goes_and_nothing_remains() {
    let (mut c, m) = members(6, 3);
    c.leave(1, m[1].port).unwrap();
    settle(&mut c);
    let leave = (1, GroupKind::Leave { bc_syncpt: 0 });
    assert_eq!(group_protocol(&c), [leave, leave]);
    for node in [0, 2] {
        assert_eq!(c.news(node, m[node].port), ["-1"]);
        assert_eq!(c.group(node, m[node].port).members().len(), 1);
    }
    assert!(c.node(1).engine.group(m[1].port).is_none());
    assert_eq!(
        c.send(0, m[0].port, super::Destination::Socket(m[1]), &b"x"[..]),
        Err(SendError::Unreachable)
    );
}

#[test]
fn a_closed_socket_leaves_its_group() {
    let (mut c, m) = members(7, 2);
    c.close(1, m[1].port);
    settle(&mut c);
    assert_eq!(c.news(0, m[0].port), ["-1"]);
}

#[test]
fn a_member_may_leave_and_come_back_at_once() {
    let (mut c, m) = members(8, 2);
    for round in 0..20 {
        c.leave(1, m[1].port).unwrap();
        c.try_join(1, m[1].port, membership(GROUP, 1)).unwrap();
        settle(&mut c);
        assert_eq!(c.news(0, m[0].port), ["-1", "+1"], "round {round}");
        assert_eq!(c.news(1, m[1].port), ["+0"], "round {round}");
        c.broadcast(0, m[0].port, "still there?".as_bytes())
            .unwrap();
        settle(&mut c);
        assert_eq!(c.news(1, m[1].port), ["0:still there?"], "round {round}");
    }
}

#[test]
fn a_member_of_node_scope_is_alone_with_its_node() {
    let mut c = Cluster::settled(9, 2);
    let node_scope = Membership {
        scope: Scope::Node,
        ..membership(GROUP, 1)
    };
    let a = c.join(0, node_scope);
    let b = c.join(0, node_scope);
    let cluster = c.join(0, membership(GROUP, 2));
    let far = c.join(1, node_scope);
    settle(&mut c);
    assert_eq!(c.group(0, a.port).members().len(), 1);
    assert_eq!(c.group(0, cluster.port).members().len(), 0);
    assert_eq!(c.group(1, far.port).members().len(), 0);
    c.broadcast(0, a.port, "here".as_bytes()).unwrap();
    assert_eq!(c.news(0, b.port), ["+1", "1:here"]);
    assert_eq!(c.news(0, cluster.port), [""; 0]);
}

#[test]
fn a_lost_node_takes_its_members_along_and_brings_them_back() {
    let (mut c, m) = members(10, 3);
    c.suspend(2, Duration::from_secs(5), 1000);
    c.run_for(Duration::from_millis(2000));
    for node in [0, 1] {
        assert_eq!(c.news(node, m[node].port), ["-2"]);
    }
    assert!(!c.is_up(0, 2));
    // Both sides find each other anew.
    c.run_for(Duration::from_secs(60));
    for node in [0, 1] {
        assert_eq!(c.news(node, m[node].port), ["+2"]);
    }
    c.broadcast(2, m[2].port, "back".as_bytes()).unwrap();
    settle(&mut c);
    assert_eq!(c.news(0, m[0].port), ["2:back"]);
}

#[test]
fn a_socket_bound_to_the_group_s_type_is_no_member_and_delays_broadcasts_for_five_seconds_only() {
    let (mut c, m) = members(11, 2);
    let plain = c.open(1);
    c.bind(1, plain.port, (GROUP, 77, 77));
    settle(&mut c);
    let member = c.group(0, m[0].port).member(plain).map(|m| m.state);
    assert_eq!(member, Some(MemberState::Published));
    let refused = c.broadcast(0, m[0].port, "hello".as_bytes());
    assert_eq!(refused, Err(SendError::Congested));
    let blocked = c.group(0, m[0].port).blocked().unwrap();
    assert_eq!((blocked.member, blocked.on), (plain, BlockedOn::Join));
    c.run_for(Duration::from_secs(4));
    assert!(!super::is_told_to_go_on(&mut c, 0, m[0].port));
    c.run_for(Duration::from_millis(1100));
    assert!(super::is_told_to_go_on(&mut c, 0, m[0].port));
    c.broadcast(0, m[0].port, "hello".as_bytes()).unwrap();
    settle(&mut c);
    assert_eq!(c.news(1, m[1].port), ["0:hello"]);
    assert_eq!(
        c.send(0, m[0].port, super::Destination::Socket(plain), &b"x"[..]),
        Err(SendError::Unreachable)
    );
    // One that comes late is told where the broadcasts are by now.
    c.unbind(1, plain.port, (GROUP, 77, 77));
    settle(&mut c);
    assert!(c.group(0, m[0].port).member(plain).is_none());
}
