//! Bindings: the same table everywhere, whatever happens on the way.

use std::collections::BTreeSet;
use std::time::Duration;
use xtipc_protocol::addr::{Destination, NodeAddr};
use xtipc_protocol::engine::BindError;
use xtipc_protocol::name::{Publication, Scope};
use xtipc_protocol::stats::Drop;
use xtipc_protocol::wire::{Msg, User, field};
use xtipc_sim::checks::{table, tables_agree};
use xtipc_sim::cluster::{Cluster, service, service_range};
use xtipc_sim::segment::Faults;

#[test]
fn bindings_made_before_and_after_contact_are_known_everywhere() {
    let mut c = Cluster::new(1);
    for station in 0..3 {
        c.start(station);
        let early = c.open(station).port;
        c.bind(station, early, (6000 + station as u32, 0, 9));
    }
    c.until("up", |c| c.is_full_mesh());
    for station in 0..3 {
        let late = c.open(station).port;
        c.bind(station, late, (7000, 1, 1));
        c.bind_scoped(station, late, (7001, 1, 1), Scope::Node);
    }
    c.run_for(Duration::from_secs(1));
    assert!(tables_agree(&c));
    let all = table(&c, 0);
    // Three NODE_STATE, three early and three late ones.
    assert_eq!(all.len(), 9);
    for station in 0..3 {
        assert!(all.contains(&{
            let a = c.addr(station).0;
            (0, a, a, 0, a, a)
        }));
    }
    // Of node scope one sees the own ones only: the binding, and one per working link.
    let own = |p: &Publication| p.scope == Scope::Node;
    let own: Vec<_> = c
        .node(0)
        .engine
        .publications()
        .filter(own)
        .map(|p| p.range.type_)
        .collect();
    assert_eq!(own.iter().filter(|t| **t == 2).count(), 2);
    assert_eq!(own.iter().filter(|t| **t == 7001).count(), 1);
    c.finish();
}

#[test]
fn updates_by_broadcast_are_applied_in_order_under_heavy_loss() {
    for seed in 0..10 {
        let mut c = Cluster::settled(seed, 4);
        c.segment.faults = Faults {
            loss: 200,
            duplication: 50,
            reordering: 200,
            straggle_us: 3000,
            corruption: 0,
        };
        let sockets: Vec<_> = (0..4).map(|s| c.open(s).port).collect();
        let mut bound = vec![BTreeSet::new(); 4];
        for _ in 0..300 {
            let station = c.rng.below(4) as usize;
            let instance = c.rng.below(12) as u32;
            // The same binding again and again: only the order tells whether it is there.
            if bound[station].remove(&instance) {
                c.unbind(station, sockets[station], (8000, instance, instance));
            } else {
                bound[station].insert(instance);
                c.bind(station, sockets[station], (8000, instance, instance));
            }
            let pause = c.rng.below(4000);
            c.run_for(Duration::from_micros(pause));
        }
        c.segment.faults = Faults::default();
        c.run_for(Duration::from_secs(3));
        assert!(tables_agree(&c), "seed {seed}");
        let want: usize = bound.iter().map(BTreeSet::len).sum();
        assert_eq!(
            table(&c, 0).iter().filter(|e| e.0 == 8000).count(),
            want,
            "seed {seed}"
        );
        c.finish();
    }
}

#[test]
fn a_lost_node_takes_its_bindings_with_it_and_brings_them_back() {
    let mut c = Cluster::settled(2, 3);
    let socket = c.open(2).port;
    (0..200).for_each(|n| c.bind(2, socket, (9000, n, n)));
    c.run_for(Duration::from_secs(1));
    let before = table(&c, 0);
    assert_eq!(before.len(), 203);
    c.segment.cut(0, 2);
    c.run_for(Duration::from_secs(4));
    assert_eq!(table(&c, 0).len(), 2);
    assert_eq!(table(&c, 1), before, "the cut did not concern node 1");
    c.unbind(2, socket, (9000, 7, 7));
    c.segment.heal();
    c.until("healed", |c| c.is_full_mesh());
    c.run_for(Duration::from_secs(1));
    assert!(tables_agree(&c));
    assert_eq!(table(&c, 0).len(), 202);
    c.finish();
}

#[test]
fn a_large_table_comes_in_bulk_and_updates_meanwhile_are_not_lost() {
    let mut c = Cluster::settled(3, 2);
    let socket = c.open(0).port;
    (0..5000).for_each(|n| c.bind(0, socket, (9000, n, n)));
    c.run_for(Duration::from_secs(2));
    c.segment.record = true;
    c.start(2);
    c.until("first link of node 2", |c| c.is_up(0, 2));
    // While the bulk is on its way.
    c.segment.faults.loss = 150;
    for n in 0..100 {
        c.unbind(0, socket, (9000, n * 50, n * 50));
        c.bind(0, socket, (9001, n, n));
        c.run_for(Duration::from_micros(200));
    }
    c.segment.faults.loss = 0;
    c.run_for(Duration::from_secs(5));
    assert!(c.is_full_mesh() && tables_agree(&c));
    assert_eq!(table(&c, 2).len(), 3 + 5000);
    let bulk = c.segment.seen.iter().filter(|s| {
        let msg = Msg::check(&s.bytes).unwrap();
        msg.user() == User::NameDistributor && s.from == 0 && msg.flag(field::BULK)
    });
    assert!(
        bulk.map(|s| Msg::check(&s.bytes).unwrap().payload().len() / 20)
            .max()
            == Some(69)
    );
    c.finish();
}

#[test]
fn a_storm_of_bindings_is_told_piece_by_piece_and_leaves_frames_for_the_protocol() {
    let mut c = Cluster::new(4);
    c.recipe.frames = 700;
    (0..3).for_each(|s| c.start(s));
    c.until("up", |c| c.is_full_mesh());
    c.notices(0);
    let socket = c.open(0).port;
    c.segment.cut(0, 1);
    for n in 0..3000 {
        c.bind(0, socket, (9000, n, n));
    }
    (0..1000).for_each(|n| c.unbind(0, socket, (9000, n, n)));
    c.run_for(Duration::from_secs(1));
    c.segment.heal();
    c.run_for(Duration::from_secs(8));
    assert!(c.is_full_mesh() && tables_agree(&c));
    assert_eq!(table(&c, 1).len(), 3 + 2000);
    assert!(c.notices(0).is_empty(), "no link went down");
    assert_eq!(
        c.node(0).engine.drops().get(Drop::NoFrame),
        0,
        "the protocol had its frames"
    );
    c.close(0, socket);
    c.run_for(Duration::from_secs(8));
    assert_eq!(table(&c, 2).len(), 3);
    c.finish();
}

#[test]
fn bindings_made_at_once_share_packets_and_no_message_overtakes_them() {
    let mut c = Cluster::settled(13, 2);
    let (server, client) = (c.open(0).port, c.open(1));
    for n in 0..1000 {
        c.bind(0, server, (9000, n, n));
    }
    let packets = c.node(0).engine.broadcast_link().queue_len;
    assert!(packets < 100, "{packets} packets");
    c.send(0, server, Destination::Socket(client), &b"bound"[..])
        .unwrap();
    while c.texts(1, client.port).is_empty() {
        c.run_for(Duration::from_micros(10));
    }
    assert_eq!(table(&c, 1).len(), 2 + 1000);
    c.close(0, server);
    c.run_for(Duration::from_millis(100));
    assert_eq!(table(&c, 1).len(), 2);
    assert!(tables_agree(&c));
    c.finish();
}

#[test]
fn anycast_goes_round_the_sockets_newest_first_and_heeds_domains() {
    let mut c = Cluster::settled(5, 3);
    let servers: Vec<_> = (0..3)
        .map(|s| {
            let port = c.open(s).port;
            c.bind(s, port, (9000, 0, 9));
            c.run_for(Duration::from_millis(50));
            port
        })
        .collect();
    c.run_for(Duration::from_secs(1));
    let client = c.open(0).port;
    let mut order = Vec::new();
    for _ in 0..6 {
        c.send(0, client, service(9000, 5), &b"x"[..]).unwrap();
        c.run_for(Duration::from_millis(5));
        order.extend((0..3).filter(|s| !c.texts(*s, servers[*s]).is_empty()));
    }
    assert_eq!(order, [2, 1, 0, 2, 1, 0]);
    // A domain names the node that looks the service up.
    let domain = c.addr(1);
    c.segment.record = true;
    let to = Destination::Service {
        kind: 9000,
        instance: 5,
        domain,
    };
    for _ in 0..3 {
        c.send(0, client, to, &b"y"[..]).unwrap();
    }
    c.run_for(Duration::from_millis(5));
    assert_eq!(c.texts(1, servers[1]).len(), 3);
    let packet = c
        .segment
        .seen
        .iter()
        .find(|s| Msg::check(&s.bytes).unwrap().user().is_data())
        .unwrap();
    let msg = Msg::check(&packet.bytes).unwrap();
    assert_eq!(
        (msg.get(field::DEST_PORT), msg.get(field::LOOKUP_SCOPE)),
        (0, 3)
    );
    c.finish();
}

#[test]
fn a_socket_of_node_scope_is_found_by_who_names_its_node() {
    let mut c = Cluster::settled(6, 2);
    let server = c.open(1).port;
    c.bind_scoped(1, server, (9000, 0, 9), Scope::Node);
    c.run_for(Duration::from_secs(1));
    let client = c.open(0).port;
    assert!(c.send(0, client, service(9000, 1), &b"?"[..]).is_err());
    let domain = c.addr(1);
    c.send(
        0,
        client,
        Destination::Service {
            kind: 9000,
            instance: 1,
            domain,
        },
        &b"!"[..],
    )
    .unwrap();
    c.run_for(Duration::from_secs(1));
    assert_eq!(c.texts(1, server), ["!"]);
    let domain = NodeAddr(0x0505_0505);
    let nowhere = Destination::Service {
        kind: 9000,
        instance: 1,
        domain,
    };
    assert!(c.send(0, client, nowhere, &b"?"[..]).is_err());
    c.finish();
}

#[test]
fn a_message_to_a_socket_that_has_moved_is_looked_up_once_more_and_once_only() {
    let mut c = Cluster::settled(7, 3);
    let old = c.open(1).port;
    c.bind(1, old, (9000, 0, 9));
    let new = c.open(2).port;
    c.run_for(Duration::from_secs(1));
    c.bind(2, new, (9000, 0, 9));
    c.run_for(Duration::from_secs(1));
    let client = c.open_returning(0).port;
    // In flight while its socket closes on node 1.
    c.segment.delay_us = 5_000;
    for text in ["to the newest", "follow me"] {
        c.send(0, client, service(9000, 5), text.as_bytes())
            .unwrap();
    }
    c.close(1, old);
    c.run_for(Duration::from_millis(500));
    c.segment.delay_us = 20;
    assert_eq!(c.texts(2, new), ["to the newest", "follow me"]);
    assert!(c.recv(0, client).is_none());
    // Nobody there any more when it arrives: it comes back, NO_NAME.
    c.run_for(Duration::from_secs(1));
    c.segment.delay_us = 5_000;
    c.send(0, client, service(9000, 5), &b"nobody"[..]).unwrap();
    c.close(2, new);
    c.run_for(Duration::from_millis(500));
    let back = c.recv_all(0, client);
    assert_eq!(
        back.iter().map(|m| m.about.errcode).collect::<Vec<_>>(),
        [1]
    );
    assert_eq!(back[0].text(), "nobody");
    c.finish();
}

#[test]
fn what_cannot_be_bound_is_refused_with_its_reason() {
    let mut c = Cluster::settled(8, 1);
    let port = c.open(0).port;
    let now = c.now;
    let mut bind = |range, port| {
        c.with(0, |n| {
            n.engine
                .bind(now, port, service_range(range), Scope::Cluster, &mut n.host)
        })
    };
    assert_eq!(
        bind((9000, 5, 4), port),
        Err(BindError::EmptyRange { lower: 5, upper: 4 })
    );
    assert_eq!(bind((63, 0, 0), port), Err(BindError::ReservedType(63)));
    assert_eq!(
        bind((64, 0, 0), xtipc_protocol::addr::PortId(0)),
        Err(BindError::NoSuchSocket)
    );
    assert_eq!(bind((64, 0, 0), port), Ok(()));
    c.finish();
}
