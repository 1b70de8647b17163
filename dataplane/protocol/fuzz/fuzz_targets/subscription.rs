//! Any requests of two subscribers of the topology service, with changes of the binding table between them: nothing
//! panics, events read as they were written, and nothing is left when the subscribers go.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xtipc_protocol::name::{BindingTable, Publication, Scope, ServiceRange};
use xtipc_protocol::time::Instant;
use xtipc_protocol::topology::{Event, Request, Subscriber, Subscription, TopologyService};

const OWN: u32 = 0x0100_1001;

fuzz_target!(|bytes: &[u8]| {
    let mut table = BindingTable::new(OWN, 1);
    let mut service = TopologyService::default();
    let subscribers = [Subscriber(1), Subscriber(2)];
    for (step, chunk) in bytes.chunks(Subscription::SIZE + 2).enumerate() {
        let (&[choice, extra], message) = chunk.split_first_chunk().unwrap_or((&[0, 0], &[]));
        let now = Instant::from_millis(step as u64 * u64::from(extra));
        service.on_time(now);
        let subscriber = subscribers[usize::from(choice) % 2];
        if !service.is_open(subscriber) {
            service.open(subscriber, (extra % 3 == 0).then_some(OWN + 1));
        }
        let _ = service.on_request(now, subscriber, message, &table);
        // A binding to what was just asked for, or whatever these bytes are.
        if let Ok(Request::Subscribe(s) | Request::Cancel(s)) = Request::parse(message) {
            let ServiceRange {
                type_,
                lower,
                upper,
            } = s.range();
            let scope = if choice & 2 == 0 {
                Scope::Cluster
            } else {
                Scope::Node
            };
            let publication = Publication {
                range: ServiceRange {
                    type_,
                    lower,
                    upper: upper.max(lower),
                },
                scope,
                port: extra.into(),
                node: OWN,
                key: choice.into(),
            };
            if let Ok(change) = table.publish(publication) {
                service.on_published(&change);
            }
            if choice & 4 != 0 {
                let p = publication;
                if let Some(change) = table.withdraw(p.range, p.port, p.node, p.key) {
                    service.on_withdrawn(&change);
                }
            }
        }
        if choice & 8 != 0 {
            while let Some(ready) = service.take_ready() {
                while let Some(event) = service.next_event(ready) {
                    let decoded = Event::decode(event).expect("events are of a known kind");
                    assert_eq!(decoded.encode(), *event);
                    service.taken(ready);
                }
            }
        }
    }
    for subscriber in subscribers {
        service.close(subscriber);
    }
    assert!(service.is_empty() && service.next_timeout().is_none());
});
