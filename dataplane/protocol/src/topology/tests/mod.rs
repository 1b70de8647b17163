//! Tests of the topology service.

mod against_oracle;
mod codec;
mod events;
mod limits;

use super::{
    Event, EventKind, Filter, Limits, RequestError, Subscriber, Subscription, TopologyService,
};
use crate::name::{BindingTable, Change, Publication, Scope, ServiceRange};
use crate::time::Instant;

const OWN: u32 = 0x0100_1001;
const PEER: u32 = 0x0100_1002;
const ANNA: Subscriber = Subscriber(1);
const BERT: Subscriber = Subscriber(2);

fn range(type_: u32, lower: u32, upper: u32) -> ServiceRange {
    ServiceRange {
        type_,
        lower,
        upper,
    }
}

/// A binding of the own node, in the whole cluster.
fn bound(range: ServiceRange, port: u32) -> Publication {
    Publication {
        range,
        scope: Scope::Cluster,
        port,
        node: OWN,
        key: port + 1,
    }
}

fn node_scope(publication: Publication) -> Publication {
    Publication {
        scope: Scope::Node,
        ..publication
    }
}

/// A subscription for ever whose handle is the filter.
fn wants(range: ServiceRange, filter: Filter) -> Subscription {
    Subscription::new(range, filter, None, u64::from(filter.0).to_be_bytes())
}

fn lasting(range: ServiceRange, filter: Filter, timeout_ms: u32) -> Subscription {
    Subscription::new(range, filter, Some(timeout_ms), *b"lasting ")
}

fn with_cancel(subscription: Subscription) -> [u8; Subscription::SIZE] {
    let mut bytes = *subscription.as_bytes();
    let filter = u32::from_ne_bytes(*bytes[16..].first_chunk().expect("inside"));
    let cancel = if subscription.is_swapped() {
        Filter::CANCEL.0.swap_bytes()
    } else {
        Filter::CANCEL.0
    };
    bytes[16..20].copy_from_slice(&(filter | cancel).to_ne_bytes());
    bytes
}

/// What an event says of a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Up(u32, u32, u32),
    Down(u32, u32, u32),
    Timeout(u32, u32),
}

/// A node's table and service, at one point in time.
struct Lab {
    now: Instant,
    table: BindingTable,
    service: TopologyService,
}

impl Lab {
    fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    /// With the subscribers Anna and Bert, of this node.
    fn with_limits(limits: Limits) -> Self {
        let mut service = TopologyService::with_limits(limits);
        service.open(ANNA, None);
        service.open(BERT, None);
        Self {
            now: Instant(0),
            table: BindingTable::new(OWN, 7),
            service,
        }
    }

    fn send(&mut self, from: Subscriber, message: &[u8]) -> Result<(), RequestError> {
        self.service
            .on_request(self.now, from, message, &self.table)
    }

    fn subscribe(&mut self, from: Subscriber, subscription: Subscription) {
        self.send(from, subscription.as_bytes())
            .expect("a good subscription");
    }

    fn publish(&mut self, publication: Publication) {
        if let Ok(change) = self.table.publish(publication) {
            self.service.on_published(&change);
        }
    }

    fn withdraw(&mut self, p: Publication) {
        if let Some(change) = self.table.withdraw(p.range, p.port, p.node, p.key) {
            self.service.on_withdrawn(&change);
        }
    }

    fn publish_all(&mut self, all: impl IntoIterator<Item = Publication>) {
        all.into_iter().for_each(|p| self.publish(p));
    }

    fn withdraw_all(&mut self, all: impl IntoIterator<Item = Publication>) {
        all.into_iter().for_each(|p| self.withdraw(p));
    }

    fn lose(&mut self, node: u32) {
        let Self { table, service, .. } = self;
        table.purge_node(node, |change: Change| service.on_withdrawn(&change));
    }

    fn pass(&mut self, ms: u64) {
        self.now = Instant::from_millis(self.now.as_millis() + ms);
        self.service.on_time(self.now);
    }

    /// Takes all events that wait for a subscriber.
    fn events(&mut self, of: Subscriber) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(bytes) = self.service.next_event(of) {
            events.push(Event::decode(bytes).expect("a known kind"));
            self.service.taken(of);
        }
        events
    }

    /// The same, without the subscriptions they belong to.
    fn said(&mut self, to: Subscriber) -> Vec<Said> {
        let events = self.events(to).into_iter();
        let said = events.map(|e| match e.kind {
            EventKind::Published => Said::Up(e.found_lower, e.found_upper, e.port),
            EventKind::Withdrawn => Said::Down(e.found_lower, e.found_upper, e.port),
            EventKind::Timeout => Said::Timeout(e.found_lower, e.found_upper),
        });
        said.collect()
    }
}
