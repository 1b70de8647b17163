//! Service tracking: subscribers of a node hear of services, nodes and links of the whole cluster.

use std::collections::BTreeSet;
use std::time::Duration;
use xtipc_protocol::addr::{Destination, PortId};
use xtipc_protocol::connection::State;
use xtipc_protocol::port::{McastMethod, SocketKind};
use xtipc_protocol::topology::{Event, EventKind, Filter, RequestError, Subscription};
use xtipc_protocol::wire::{Msg, User, errcode, field};
use xtipc_sim::checks::table;
use xtipc_sim::cluster::{Cluster, range, service_range};
use xtipc_sim::segment::{Fate, Faults};

use EventKind::{Published, Timeout, Withdrawn};

const ALL: u32 = u32::MAX;

fn subscriber(c: &mut Cluster, station: usize) -> PortId {
    c.with(station, |node| node.engine.open_subscriber())
}

fn request(
    c: &mut Cluster,
    station: usize,
    id: PortId,
    message: &[u8],
) -> Result<(), RequestError> {
    let now = c.now;
    c.with(station, |node| {
        node.engine.request_events(now, id, message, &mut node.host)
    })
}

fn subscribe(
    c: &mut Cluster,
    station: usize,
    id: PortId,
    range: (u32, u32, u32),
    timeout_ms: Option<u32>,
) {
    let range = service_range(range);
    let subscription = Subscription::new(range, Filter::PORTS, timeout_ms, [0; 8]);
    request(c, station, id, subscription.as_bytes()).expect("a good subscription");
}

/// Takes all events; an end of the events is left out.
fn events(c: &mut Cluster, station: usize, id: PortId) -> Vec<Event> {
    let received = c.recv_all(station, id).into_iter();
    let events = received.filter(|message| message.about.errcode == 0);
    events
        .map(|message| {
            let bytes = message.bytes.first_chunk().expect("48 bytes");
            Event::decode(bytes).expect("a known kind")
        })
        .collect()
}

/// Kind, type and lower bound of events.
fn said(events: Vec<Event>) -> Vec<(EventKind, u32, u32)> {
    let said = events
        .iter()
        .map(|e| (e.kind, e.subscription.range().type_, e.found_lower));
    said.collect()
}

#[test]
fn a_subscriber_hears_of_services_nodes_and_links_and_of_their_loss_in_linux_s_order() {
    let mut c = Cluster::settled(31, 2);
    let watcher = subscriber(&mut c, 0);
    for type_ in [0, 2, 9000] {
        subscribe(&mut c, 0, watcher, (type_, 0, ALL), None);
    }
    let [own, peer] = [0, 1].map(|station| c.addr(station).0);
    assert_eq!(
        said(events(&mut c, 0, watcher)),
        [
            (Published, 0, own),
            (Published, 0, peer),
            (Published, 2, peer)
        ]
    );

    let sockets = [c.open(0).port, c.open(1).port];
    c.bind(0, sockets[0], (9000, 1, 1));
    let heard = events(&mut c, 0, watcher);
    assert_eq!((heard[0].port, heard[0].node), (sockets[0].0, own));
    c.bind(1, sockets[1], (9000, 2, 5));
    c.run_for(Duration::from_millis(10));
    let heard = events(&mut c, 0, watcher);
    assert_eq!((heard[0].found_lower, heard[0].found_upper), (2, 5));
    assert_eq!((heard[0].port, heard[0].node), (sockets[1].0, peer));
    c.close(0, sockets[0]);
    assert_eq!(said(events(&mut c, 0, watcher)), [(Withdrawn, 9000, 1)]);

    c.kill(1);
    c.until("the loss is told", |c| {
        !c.node(0).host.inbox[&watcher].is_empty()
    });
    assert_eq!(
        said(events(&mut c, 0, watcher)),
        [
            (Withdrawn, 0, peer),
            (Withdrawn, 9000, 2),
            (Withdrawn, 2, peer)
        ],
        "what came from the node in the order it came, then the link"
    );
    c.start(1);
    c.until("up again", |c| c.is_full_mesh());
    c.run_for(Duration::from_secs(1));
    assert_eq!(
        said(events(&mut c, 0, watcher)),
        [(Published, 2, peer), (Published, 0, peer)]
    );
    c.finish();
}

#[test]
fn a_subscription_ends_when_its_time_is_over_though_nothing_else_happens() {
    let mut c = Cluster::new(32);
    c.start(0);
    c.until("an address", |c| c.addr(0).0 != 0);
    let watcher = subscriber(&mut c, 0);
    subscribe(&mut c, 0, watcher, (9000, 3, 4), Some(250));
    let start = c.now;
    c.reaches(Duration::from_secs(5), |c| {
        c.node(0).engine.topology().is_empty()
    });
    assert_eq!(c.now.since(start), Duration::from_millis(250));
    assert_eq!(said(events(&mut c, 0, watcher)), [(Timeout, 9000, 3)]);
    c.finish();
}

#[test]
fn events_wait_for_a_subscriber_that_does_not_read_and_come_in_order_when_it_does() {
    let mut c = Cluster::settled(33, 2);
    let watcher = subscriber(&mut c, 0);
    subscribe(&mut c, 0, watcher, (9000, 0, ALL), None);
    let socket = c.open(1).port;
    for n in 0..1000 {
        c.bind(1, socket, (9000, n, n));
    }
    c.run_for(Duration::from_secs(1));
    let waiting = c.node(0).host.inbox[&watcher].len();
    assert_eq!(waiting, 256, "the others wait in the engine");
    assert_eq!(c.node(0).engine.blocked_subscribers(), [watcher]);
    let mut heard = Vec::new();
    loop {
        let some = said(events(&mut c, 0, watcher));
        if some.is_empty() {
            break;
        }
        heard.extend(some);
        let now = c.now;
        c.with(0, |node| node.engine.on_time(now, &mut node.host));
    }
    let expected: Vec<_> = (0..1000).map(|n| (Published, 9000, n)).collect();
    assert_eq!(heard, expected);
    assert_eq!(c.node(0).engine.blocked_subscribers(), []);
    c.finish();
}

#[test]
fn a_bad_request_ends_the_events_of_its_subscriber_only() {
    let mut c = Cluster::settled(34, 1);
    let (bad, good) = (subscriber(&mut c, 0), subscriber(&mut c, 0));
    assert_ne!(bad, good);
    for id in [bad, good] {
        subscribe(&mut c, 0, id, (9000, 0, ALL), None);
    }
    let refused = request(&mut c, 0, bad, b"too short");
    assert_eq!(refused, Err(RequestError::TooShort(9)));
    let again = request(&mut c, 0, bad, b"too short");
    assert_eq!(again, Err(RequestError::NoSuchSubscriber));
    let socket = c.open(0).port;
    assert!(![bad, good].contains(&socket), "numbers are not shared");
    c.bind(0, socket, (9000, 1, 1));
    let ends: Vec<_> = c.recv_all(0, bad);
    assert_eq!(ends.len(), 1);
    assert_eq!(u32::from(ends[0].about.errcode), errcode::CONN_SHUTDOWN);
    assert_eq!(said(events(&mut c, 0, good)), [(Published, 9000, 1)]);
    c.close(0, good);
    c.bind(0, socket, (9000, 2, 2));
    assert_eq!(c.recv_all(0, good).len(), 0);
    assert!(c.node(0).engine.topology().is_empty());
    c.finish();
}

#[test]
fn who_follows_all_events_knows_the_table_whatever_the_wire_loses() {
    for seed in 0..5 {
        let mut c = Cluster::settled(seed, 3);
        let watchers = [0, 1, 2].map(|station| {
            let id = subscriber(&mut c, station);
            subscribe(&mut c, station, id, (9000, 0, ALL), None);
            id
        });
        let sockets = [0, 1, 2].map(|station| c.open(station).port);
        c.segment.faults = Faults {
            loss: 150,
            reordering: 150,
            straggle_us: 3000,
            ..Faults::default()
        };
        let mut bound = BTreeSet::new();
        let mut known = [const { BTreeSet::new() }; 3];
        for step in 0..200 {
            let (station, instance) = (c.rng.below(3) as usize, c.rng.below(12) as u32);
            if bound.remove(&(station, instance)) {
                c.unbind(station, sockets[station], (9000, instance, instance + 2));
            } else {
                bound.insert((station, instance));
                c.bind(station, sockets[station], (9000, instance, instance + 2));
            }
            match step {
                60 => c.segment.cut(0, 2),
                140 => c.segment.heal(),
                _ => {}
            }
            c.run_for(Duration::from_millis(if step == 60 { 4000 } else { 5 }));
            for station in 0..3 {
                for e in events(&mut c, station, watchers[station]) {
                    let entry = (e.found_lower, e.found_upper, e.port, e.node);
                    let changed = match e.kind {
                        Published => known[station].insert(entry),
                        _ => known[station].remove(&entry),
                    };
                    assert!(changed, "seed {seed}: {e:?} says nothing new");
                }
                let held = table(&c, station).into_iter();
                let held = held.filter(|b| b.0 == 9000);
                let held: BTreeSet<_> = held
                    .map(|(_, l, u, port, node, _)| (l, u, port, node))
                    .collect();
                assert_eq!(known[station], held, "seed {seed}, node {station}");
            }
        }
        c.segment.faults = Faults::default();
        c.until("healed", |c| c.is_full_mesh());
        c.finish();
    }
}

/// A connection to the topology service of node 0, from one of its own programs or from another node.
fn connected(c: &mut Cluster, station: usize) -> PortId {
    let client = c.open_kind(station, SocketKind::Seqpacket).port;
    let server = Destination::Service {
        kind: 1,
        instance: 1,
        domain: c.addr(0),
    };
    c.connect(station, client, server)
        .expect("the service of a node in reach");
    c.run_for(Duration::from_millis(50));
    client
}

#[test]
fn programs_here_and_on_other_nodes_connect_to_the_service_and_hear_of_bindings() {
    for station in [0, 1] {
        let mut c = Cluster::settled(36, 2);
        let client = connected(&mut c, station);
        let subscription = Subscription::new(
            service_range((9000, 0, ALL)),
            Filter::PORTS,
            None,
            *b"a handle",
        )
        .swapped();
        c.write(station, client, &subscription.as_bytes()[..])
            .expect("a connection");
        let socket = c.open(0).port;
        // More than the window of a connection takes.
        for n in 0..1000 {
            c.bind(0, socket, (9000, n, n));
        }
        let mut heard = Vec::new();
        for _ in 0..100 {
            c.run_for(Duration::from_millis(20));
            heard.extend(events(&mut c, station, client));
        }
        let lower: Vec<u32> = heard.iter().map(|e| e.found_lower).collect();
        assert_eq!(lower, (0..1000).collect::<Vec<_>>());
        assert_eq!(heard[7].subscription, subscription);

        c.close(station, client);
        c.run_for(Duration::from_millis(50));
        assert!(
            c.node(0).engine.topology().is_empty(),
            "it went with its connection"
        );
        c.finish();
    }
}

#[test]
fn one_connection_more_than_the_service_takes_waits_until_another_one_ends() {
    const MAX: usize = 16_384;
    let mut c = Cluster::settled(39, 2);
    let server = Destination::Service {
        kind: 1,
        instance: 1,
        domain: c.addr(0),
    };
    let ask = |c: &mut Cluster| {
        let client = c.open_kind(0, SocketKind::Seqpacket).port;
        c.connect(0, client, server).expect("the own service");
        client
    };
    let clients: Vec<PortId> = (0..MAX).map(|_| ask(&mut c)).collect();
    c.run_for(Duration::from_millis(50));
    let connected = |c: &Cluster, client| c.state(0, client) == Some(State::Established);
    assert!(clients.iter().all(|&client| connected(&c, client)));
    let late = ask(&mut c);
    c.run_for(Duration::from_millis(200));
    assert_eq!(c.state(0, late), Some(State::Connecting));
    c.close(0, clients[0]);
    c.run_for(Duration::from_secs(1));
    assert!(connected(&c, late));
}

#[test]
fn a_malformed_subscription_ends_its_connection_only() {
    let mut c = Cluster::settled(37, 2);
    let (bad, good) = (connected(&mut c, 1), connected(&mut c, 1));
    for client in [bad, good] {
        let range = service_range((9000, 0, ALL));
        let subscription = Subscription::new(range, Filter::PORTS, None, [0; 8]);
        c.write(1, client, &subscription.as_bytes()[..])
            .expect("a connection");
    }
    c.run_for(Duration::from_millis(50));
    assert_eq!(c.node(0).engine.topology().len(), 2);
    c.write(1, bad, &[1; 10][..]).expect("a connection");
    c.run_for(Duration::from_millis(50));
    let end = c.recv(1, bad).expect("the end of the connection");
    assert_eq!(u32::from(end.about.errcode), errcode::CONN_SHUTDOWN);
    assert_eq!(c.node(0).engine.topology().len(), 1);
    let socket = c.open(0).port;
    c.bind(0, socket, (9000, 1, 1));
    c.run_for(Duration::from_millis(50));
    assert_eq!(said(events(&mut c, 1, good)), [(Published, 9000, 1)]);
    // The node of the other subscriber dies.
    c.kill(1);
    c.run_for(Duration::from_secs(4));
    assert!(c.node(0).engine.topology().is_empty());
    c.finish();
}

/// Both are delivered within one input, when what was lost has come again.
#[test]
fn a_subscriber_hears_of_a_binding_before_the_message_behind_it_is_delivered() {
    let mut c = Cluster::settled(38, 2);
    let watcher = subscriber(&mut c, 1);
    subscribe(&mut c, 1, watcher, (9000, 0, ALL), None);
    let (client, server) = (c.open(0).port, c.open(1));
    let mut lost = false;
    c.segment.filter = Some(Box::new(move |flight| {
        let msg = Msg::check(&flight.bytes).expect("nodes send well-formed packets");
        let is_update = flight.from == 0 && msg.user() == User::NameDistributor;
        let is_copy = is_update && !msg.flag(field::NON_SEQ);
        let again = lost;
        lost |= is_copy;
        if is_update && (msg.flag(field::NON_SEQ) || !again) {
            Fate::Lose
        } else {
            Fate::Pass
        }
    }));
    c.bind(0, client, (9000, 1, 1));
    c.send(0, client, Destination::Socket(server), &b"x"[..])
        .expect("the link is up");
    c.run_for(Duration::from_secs(1));
    let event = c.recv(1, watcher).expect("the binding is told");
    let message = c.recv(1, server.port).expect("the message is there");
    assert!(event.serial < message.serial);
    c.segment.filter = None;
    c.finish();
}

/// The broadcast waits for the bindings, and follows them within one input.
#[test]
fn a_subscriber_of_a_newcomer_hears_of_a_binding_before_the_broadcast_that_waited_for_it() {
    let mut c = Cluster::settled(39, 1);
    let sender = c.open(0).port;
    c.with(0, |node| {
        let port = node.engine.port_mut(sender).expect("just opened");
        port.mcast_wanted = Some(McastMethod::Broadcast);
    });
    c.bind(0, sender, (9000, 1, 1));
    let mut lost = false;
    c.segment.filter = Some(Box::new(move |flight| {
        let msg = Msg::check(&flight.bytes).expect("nodes send well-formed packets");
        let is_bulk = flight.from == 0 && msg.user() == User::NameDistributor;
        if is_bulk && !std::mem::replace(&mut lost, true) {
            Fate::Lose
        } else {
            Fate::Pass
        }
    }));
    c.start(1);
    let watcher = subscriber(&mut c, 1);
    subscribe(&mut c, 1, watcher, (9000, 0, ALL), None);
    let receiver = c.with(1, |node| node.engine.open(SocketKind::Rdm));
    c.bind(1, receiver, (9001, 0, 0));
    c.until("the link is up", |c| c.is_up(0, 1) && c.is_up(1, 0));
    c.run_for(Duration::from_millis(1));
    c.send(0, sender, range(9001, 0, 0), &b"x"[..])
        .expect("the link is up");
    c.run_for(Duration::from_millis(1));
    assert!(c.recv(1, watcher).is_none(), "the binding is lost");
    c.run_for(Duration::from_secs(1));
    let event = c.recv(1, watcher).expect("the binding is told");
    let message = c.recv(1, receiver).expect("the message is there");
    assert!(event.serial < message.serial);
    c.segment.filter = None;
    c.finish();
}
