//! The node's topology service among its parts (`docs/protocol/topology.md`): changes of the binding
//! table go to it, what it has to say goes to its subscribers.

use super::Engine;
use crate::addr::{PortId, SocketAddr};
use crate::host::{Host, Incoming};
use crate::name::{Change, Publication, PublishError, ServiceRange};
use crate::time::Instant;
use crate::topology::{RequestError, Subscriber, TopologyService};
use crate::wire::{Importance, errcode};

/// Events that a subscriber of the host may have unread; the others wait in the engine, where they take
/// a tenth of the room.
const UNREAD_MAX: u32 = 256;
/// What an event counts, so that the host gives back how many were read.
const EVENT_COST: u32 = 1;

/// A subscriber that needs no connection, since its events go to the host.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// Events handed to the host and not consumed.
    unread: u32,
}

impl Reader {
    /// Events handed to the host and not consumed.
    pub(super) fn unread(&self) -> u32 {
        self.unread
    }
}

impl Engine {
    /// Takes on a subscriber of the topology service whose events are delivered as messages of its
    /// number: each in 48 bytes, and without bytes, with an errcode, when the service closes
    /// it. No other message reaches it. [`Engine::close`] lets it go.
    pub fn open_subscriber(&mut self) -> PortId {
        let id = self.free_port();
        self.readers.insert(id, Reader::default());
        self.topology.open(Subscriber(id.0), None);
        id
    }

    /// Lets a subscriber go.
    pub(super) fn close_subscriber(&mut self, id: PortId) {
        if self.readers.remove(&id).is_some() {
            self.topology.close(Subscriber(id.0));
            self.blocked_readers.retain(|blocked| *blocked != id);
        }
    }

    /// A request of a subscriber: a subscription, or the cancel of one. An error has closed it.
    pub fn request_events<H: Host>(
        &mut self,
        now: Instant,
        id: PortId,
        message: &[u8],
        host: &mut H,
    ) -> Result<(), RequestError> {
        let subscriber = Subscriber(id.0);
        let was_open = self.topology.is_open(subscriber);
        let done = self
            .topology
            .on_request(now, subscriber, message, &self.names);
        if was_open && done.is_err() {
            self.end_events(id, host);
        }
        self.settle(now, host);
        done
    }

    /// The topology service.
    pub fn topology(&self) -> &TopologyService {
        &self.topology
    }

    /// Subscribers with events that wait until they have read some of those they have. The host should
    /// then let the engine know of that at once.
    pub fn blocked_subscribers(&self) -> &[PortId] {
        &self.blocked_readers
    }

    /// A subscriber has read events of this cost. More are delivered at the end of the next input.
    pub(super) fn on_events_read(&mut self, id: PortId, cost: u32, count: u32) {
        if let Some(reader) = self.readers.get_mut(&id) {
            reader.unread = reader.unread.saturating_sub(cost.saturating_mul(count));
            let blocked = self.blocked_readers.iter().position(|b| *b == id);
            if let Some(blocked) = blocked {
                self.blocked_readers.swap_remove(blocked);
                self.topology.put_back(Subscriber(id.0));
            }
        }
    }

    /// Puts a publication into the table and tells subscribers.
    pub(super) fn publish(&mut self, publication: Publication) -> Result<(), PublishError> {
        let change = self.names.publish(publication)?;
        self.topology.on_published(&change);
        Ok(())
    }

    /// Takes a publication of this node out of the table and tells subscribers.
    pub(super) fn retract(&mut self, range: ServiceRange, port: u32, key: u32) -> Option<Change> {
        let node = self.names.own_node();
        let change = self.names.withdraw(range, port, node, key)?;
        self.topology.on_withdrawn(&change);
        Some(change)
    }

    /// Takes everything a lost peer published out of the table and tells subscribers.
    pub(super) fn purge(&mut self, peer: u32) {
        let topology = &mut self.topology;
        self.names
            .purge_node(peer, |change| topology.on_withdrawn(&change));
    }

    /// Hands events to the subscribers that can take them.
    pub(super) fn tell_subscribers<H: Host>(&mut self, now: Instant, host: &mut H) {
        while let Some(subscriber) = self.topology.take_ready() {
            let id = PortId(subscriber.0);
            if self.readers.contains_key(&id) {
                self.feed_reader(subscriber, host);
            } else if self.group(id).is_some() {
                self.feed_group(now, subscriber, host);
            } else {
                self.feed_connection(now, subscriber, host);
            }
        }
        while let Some(Subscriber(id)) = self.topology.take_closed() {
            let id = PortId(id);
            if self.readers.contains_key(&id) {
                self.end_events(id, host);
            } else if self.group(id).is_some() {
                self.resume_group(now, id, host);
            } else {
                self.hang_up(now, id, host);
            }
        }
    }

    fn end_events<H: Host>(&self, id: PortId, host: &mut H) {
        let about = Incoming {
            errcode: errcode::CONN_SHUTDOWN as u8,
            ..self.about_event()
        };
        host.deliver(id, &about, &[][..]);
    }

    fn feed_reader<H: Host>(&mut self, subscriber: Subscriber, host: &mut H) {
        let (id, about) = (PortId(subscriber.0), self.about_event());
        let Some(reader) = self.readers.get_mut(&id) else {
            return;
        };
        while let Some(event) = self.topology.next_event(subscriber) {
            if reader.unread >= UNREAD_MAX {
                if !self.blocked_readers.contains(&id) {
                    self.blocked_readers.push(id);
                }
                return;
            }
            reader.unread += EVENT_COST;
            host.deliver(id, &about, &event[..]);
            self.topology.taken(subscriber);
        }
    }

    /// Events come from the node itself.
    fn about_event(&self) -> Incoming {
        Incoming {
            source: SocketAddr {
                port: PortId(0),
                node: self.core.own,
            },
            dest_name: None,
            importance: Importance::Critical,
            errcode: 0,
            cost: EVENT_COST,
            returnable: false,
            group: None,
            refused: false,
        }
    }
}
