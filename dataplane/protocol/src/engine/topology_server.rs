//! The topology service's listening socket at {1,1}, and subscribers that are connected to it.
//!
//! Reached by programs of this node, and of other nodes that name this one as look-up domain: the
//! binding has node scope. A connection is a subscriber from its acceptance to its end.

use super::{Engine, InnerEvent};
use crate::addr::PortId;
use crate::host::Host;
use crate::name::{Publication, Scope, ServiceRange, TOP_SRV_TYPE};
use crate::port::SocketKind;
use crate::time::Instant;
use crate::topology::Subscriber;
use crate::wire::{Importance, errcode};

impl Engine {
    /// Opens the service for connections, once the node has its address.
    pub(super) fn open_topology_server(&mut self) {
        if self.topology_listener.is_some() {
            return;
        }
        let id = self.open_inner(SocketKind::Seqpacket);
        let Some(port) = self.ports.get_mut(&id) else {
            return;
        };
        port.importance = Importance::Critical;
        let (range, scope) = (ServiceRange::instance(TOP_SRV_TYPE, 1), Scope::Node);
        if let Some(key) = port.next_key() {
            port.on_bound(range, scope, key);
            // A new socket's first binding cannot be there already.
            let _ = self.publish(Publication {
                range,
                scope,
                port: id.0,
                node: self.core.own.0,
                key,
            });
        }
        self.topology_listener = Some(id);
    }

    /// True if connected subscribers have something to say.
    pub(super) fn are_subscribers_waiting(&self) -> bool {
        let listener = self.topology_listener;
        listener.is_some_and(|listener| self.inner.has_of(listener))
    }

    /// Does what connected subscribers ask for.
    pub(super) fn serve_subscribers<H: Host>(&mut self, now: Instant, host: &mut H) {
        let Some(listener) = self.topology_listener else {
            return;
        };
        while let Some(event) = self.inner.pop_of(listener) {
            let subscriber = Subscriber(event.port().0);
            match event {
                InnerEvent::Accepted { peer, .. } => {
                    let is_own = self.is_own(peer.node);
                    self.topology
                        .open(subscriber, (!is_own).then_some(peer.node.0));
                }
                InnerEvent::Message(id, message) => {
                    let done = self
                        .topology
                        .on_request(now, subscriber, &message, &self.names);
                    if done.is_err() {
                        self.hang_up(now, id, host);
                    }
                }
                InnerEvent::Writable(_) => self.topology.put_back(subscriber),
                InnerEvent::Ended(id, _) => {
                    self.topology.close(subscriber);
                    self.discard(now, id, host);
                }
            }
        }
    }

    /// Sends a connected subscriber its events, as many as its window takes. With room comes a
    /// [`InnerEvent::Writable`], with the end of the connection an [`InnerEvent::Ended`].
    pub(super) fn feed_connection<H: Host>(
        &mut self,
        now: Instant,
        subscriber: Subscriber,
        host: &mut H,
    ) {
        let id = PortId(subscriber.0);
        while let Some(event) = self.topology.next_event(subscriber).copied() {
            if self.send_message(now, id, &event[..], host).is_err() {
                return;
            }
            self.topology.taken(subscriber);
        }
    }

    /// Ends the connection of a subscriber that the service has closed.
    pub(super) fn hang_up<H: Host>(&mut self, now: Instant, id: PortId, host: &mut H) {
        self.part(now, id, errcode::CONN_SHUTDOWN, host);
        self.discard(now, id, host);
    }
}
