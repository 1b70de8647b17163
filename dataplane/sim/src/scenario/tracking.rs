//! Subscribers of a run: one on each node, who hears of all bindings of the run's service.

use super::{Run, SERVICE, Sabotage};
use crate::checks::Violation;
use crate::cluster::service_range;
use crate::tracking::Heard;
use std::collections::BTreeSet;
use xtipc_protocol::addr::PortId;
use xtipc_protocol::topology::{Event, Filter, Subscription};

impl Run {
    /// Takes on a subscriber at a node that has its address.
    pub(super) fn subscribe(&mut self, station: usize) {
        let range = service_range((SERVICE, 0, u32::MAX));
        let subscription = Subscription::new(range, Filter::PORTS, None, [0; 8]);
        let now = self.cluster.now;
        let id = self.cluster.with(station, |node| {
            let id = node.engine.open_subscriber();
            let message = subscription.as_bytes();
            let done = node.engine.request_events(now, id, message, &mut node.host);
            done.expect("a good subscription");
            id
        });
        self.subscribers.insert(station, (id, Heard::default()));
    }

    /// The sockets of a station that are given something else than the messages of streams.
    pub(super) fn other_ports(&self, station: usize) -> BTreeSet<PortId> {
        let mut ports = self.connections.ports(station);
        ports.extend(self.subscribers.get(&station).map(|(id, _)| *id));
        let members = self.members.sockets().filter(|s| s.station == station);
        ports.extend(members.map(|socket| socket.addr.port));
        ports
    }

    /// Takes the events that have arrived.
    pub(super) fn hear(&mut self) -> Result<(), Violation> {
        for (station, (id, heard)) in &mut self.subscribers {
            let waits = |c: &crate::cluster::Cluster| {
                let inbox = &c.node(*station).host.inbox;
                inbox.get(id).is_some_and(|events| !events.is_empty())
            };
            if self.cluster.is_suspended(*station) || !waits(&self.cluster) {
                continue;
            }
            for message in self.cluster.recv_all(*station, *id) {
                self.heard += 1;
                if self.sabotage == Some(Sabotage::Deafen) && self.heard.is_multiple_of(10) {
                    continue;
                }
                let event = message.bytes.first_chunk().and_then(Event::decode);
                if let Some(event) = event
                    && !self.corrupting
                {
                    heard.event(*station, message.serial, &event)?;
                }
            }
        }
        Ok(())
    }

    /// Nothing is under way: subscribers know just what there is.
    pub(super) fn check_events(&mut self) -> Result<(), Violation> {
        self.hear()?;
        for (station, (_, heard)) in &self.subscribers {
            let all = self.cluster.node(*station).engine.publications();
            let all = all.filter(|p| p.range.type_ == SERVICE);
            let found = all.map(|p| (p.range.lower, p.range.upper, (p.node, p.port)));
            heard.finish(*station, found)?;
        }
        Ok(())
    }
}
