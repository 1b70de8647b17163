//! Sockets that bind an address of their own, ask, and are answered by that address: no question may
//! overtake its sender's binding (`docs/protocol/names.md`, order).

use crate::checks::Violation;
use crate::cluster::{Cluster, service};
use std::collections::{BTreeMap, BTreeSet};
use xtipc_protocol::addr::{Destination, PortId, SocketAddr};
use xtipc_protocol::engine::SendError;

/// Service type that clients bind, each question its own instance.
const REPLY: u32 = 7000;
/// First word of questions and answers, which tells them from what streams carry.
pub const MARK: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Question {
    client: (usize, SocketAddr),
    server: (usize, PortId),
}

/// Questions that have not arrived.
#[derive(Debug, Default)]
pub struct Questions {
    asked: BTreeMap<u32, Question>,
    next: u32,
}

impl Questions {
    /// Has `client` bind and ask `server`.
    pub fn ask(
        &mut self,
        c: &mut Cluster,
        client: (usize, SocketAddr),
        server: (usize, SocketAddr),
    ) {
        let number = self.next;
        self.next += 1;
        c.bind(client.0, client.1.port, (REPLY, number, number));
        let sent = c.send(
            client.0,
            client.1.port,
            Destination::Socket(server.1),
            &message(number)[..],
        );
        if sent.is_ok() {
            let server = (server.0, server.1.port);
            self.asked.insert(number, Question { client, server });
        }
    }

    /// Answers what has arrived, at once. To be called whenever something may have.
    pub fn answer(&mut self, c: &mut Cluster) -> Result<(), Violation> {
        if self.asked.is_empty() {
            return Ok(());
        }
        self.asked.retain(|_, q| c.is_running(q.server.0));
        let servers: BTreeSet<_> = self.asked.values().map(|q| q.server).collect();
        for (station, port) in servers {
            if c.is_suspended(station) {
                continue;
            }
            for number in take(c, station, port) {
                let Some(question) = self.asked.remove(&number) else {
                    continue;
                };
                let answer = c.send(station, port, service(REPLY, number), &message(number)[..]);
                // A node that was stopped may lose the link in the same moment in which it takes the question.
                let client = question.client;
                let linked = c.is_running(client.0) && c.is_up(station, client.0);
                if answer == Err(SendError::Unreachable) && linked && is_bound(c, client, number) {
                    return Err(Violation::OvertookBinding { number, station });
                }
            }
        }
        Ok(())
    }
}

fn message(number: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&MARK.to_be_bytes());
    bytes[4..].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// Takes the questions out of an inbox.
fn take(c: &mut Cluster, station: usize, port: PortId) -> Vec<u32> {
    let inbox = &c.node(station).host.inbox;
    if inbox.get(&port).is_none_or(|messages| messages.is_empty()) {
        return Vec::new();
    }
    let mut numbers = Vec::new();
    c.with(station, |node| {
        let Some(messages) = node.host.inbox.get_mut(&port) else {
            return;
        };
        messages.retain(|message| {
            let words = message.bytes.as_chunks().0;
            let (Some(mark), Some(number)) = (words.first(), words.get(1)) else {
                return true;
            };
            if u32::from_be_bytes(*mark) != MARK {
                return true;
            }
            numbers.push(u32::from_be_bytes(*number));
            node.engine.on_consumed(port, message.about.cost);
            false
        });
    });
    numbers
}

/// Whether the client still has its binding.
fn is_bound(c: &Cluster, (station, client): (usize, SocketAddr), number: u32) -> bool {
    c.is_running(station)
        && c.node(station)
            .engine
            .port(client.port)
            .is_some_and(|port| {
                let mut bindings = port.bindings.iter();
                bindings.any(|b| b.range.type_ == REPLY && b.range.lower == number)
            })
}
