//! The topology service answers the requests of a capture with the bytes that Linux answered.
//!
//! `eth-two-nodes-rejections` holds a connection to the service of another node: three subscriptions in the server's
//! byte order, one in the other, what was bound, a timeout, a binding that comes and goes, a cancel.

mod pcap;

use xtipc_protocol::name::{BindingTable, Publication, Scope, ServiceRange};
use xtipc_protocol::time::Instant;
use xtipc_protocol::topology::{Event, Subscriber, Subscription, TopologyService};
use xtipc_protocol::wire::{Msg, Packet};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/captures");
const SERVER: u32 = 0x430d_6465;
const CLIENT: u32 = 0x430e_6465;
const SUBSCRIBER: Subscriber = Subscriber(1);

/// Payloads of this length in messages of connections.
fn payloads<const N: usize>() -> Vec<[u8; N]> {
    let capture = pcap::files(FOLDER)
        .into_iter()
        .find(|path| path.ends_with("eth-two-nodes-rejections.pcap"));
    let mut found = Vec::new();
    for packet in pcap::read(&capture.expect("the capture exists")).packets {
        if let Ok(Packet::Data(_)) = Packet::decode(&packet)
            && let Ok(msg) = Msg::check(&packet)
            && msg.kind() == 0
            && let Ok(payload) = msg.payload().try_into()
        {
            found.push(payload);
        }
    }
    found
}

fn bound(lower: u32, upper: u32, port: u32, node: u32) -> Publication {
    Publication {
        range: ServiceRange {
            type_: 0x497a,
            lower,
            upper,
        },
        scope: Scope::Cluster,
        port,
        node,
        key: port + 1,
    }
}

#[test]
fn linux_s_answers_to_captured_requests_are_ours() {
    if cfg!(target_endian = "big") {
        // The captured server has the other byte order.
        return;
    }
    let requests = payloads::<{ Subscription::SIZE }>();
    let answers = payloads::<{ Event::SIZE }>();
    let [ports, nodes, links, big_endian, cancel] = requests[..] else {
        panic!("five requests: {requests:02x?}");
    };

    let mut table = BindingTable::new(SERVER, 1);
    for publication in [
        Publication::node_state(SERVER),
        Publication::node_state(CLIENT),
        Publication::link_state(SERVER, CLIENT, 0, 0),
        bound(1, 9, 0xef5c_0d0f, SERVER),
    ] {
        table.publish(publication).expect("a new publication");
    }
    let mut service = TopologyService::default();
    service.open(SUBSCRIBER, Some(CLIENT));
    for request in [ports, nodes, links, big_endian] {
        let done = service.on_request(Instant(0), SUBSCRIBER, &request, &table);
        done.expect("what Linux takes");
    }
    service.on_time(Instant::from_millis(700));
    let late = bound(15, 15, 0xa23a_af42, CLIENT);
    service.on_published(&table.publish(late).expect("a new publication"));
    let gone = table.withdraw(late.range, late.port, late.node, late.key);
    service.on_withdrawn(&gone.expect("it was there"));
    let done = service.on_request(Instant(0), SUBSCRIBER, &cancel, &table);
    done.expect("what Linux takes");
    assert_eq!(service.len(), 2, "one timed out, one was cancelled");

    let mut events = Vec::new();
    while let Some(event) = service.next_event(SUBSCRIBER) {
        events.push(*event);
        service.taken(SUBSCRIBER);
    }
    let timeout = 5;
    assert_eq!(events.len(), answers.len());
    for (n, (event, answer)) in events.iter().zip(&answers).enumerate() {
        if n != timeout {
            assert_eq!(event, answer, "event {n}");
        }
    }
    // Linux writes the bounds of this one in its own order, not in the subscriber's.
    assert_eq!(answers[timeout][4..12], [0, 0, 0, 0, 20, 0, 0, 0]);
    assert_eq!(events[timeout][4..12], [0, 0, 0, 0, 0, 0, 0, 20]);
    assert_eq!(events[timeout][..4], answers[timeout][..4]);
    assert_eq!(events[timeout][12..], answers[timeout][12..]);
}
