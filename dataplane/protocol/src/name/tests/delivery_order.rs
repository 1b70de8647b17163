//! Whatever way bulk and updates interleave on their two paths, the receiver ends with the table
//! of the sender.

use super::super::distribution::{
    Distributor, Item, NameFlags, NameMessage, Operation, UpdateQueue,
};
use super::super::{BindingTable, Publication, Scope, ServiceRange};
use super::{OWN, PEER};
use proptest::prelude::*;
use std::collections::VecDeque;

struct Sent {
    message_type: u8,
    flags: NameFlags,
    named_seqno: u16,
    items: Vec<u8>,
}

/// The node under observation, and the two paths to its peer: each keeps its order, neither that
/// of the other.
struct Sender {
    table: BindingTable,
    distributor: Distributor,
    paths: [VecDeque<Sent>; 2],
}

#[derive(Clone, Debug)]
struct Toggle {
    publication: Publication,
    /// By broadcast, or as a copy by the unicast link.
    path: usize,
}

impl Sender {
    fn new(updates_before: u32) -> Self {
        let mut sender = Self {
            table: BindingTable::new(PEER, 1),
            distributor: Distributor::new(),
            paths: Default::default(),
        };
        let state = Publication::node_state(PEER);
        sender.table.publish(state).unwrap();
        for _ in 0..=updates_before {
            sender.distributor.update(Operation::Publish, state);
        }
        sender
    }

    /// Binds what is not bound and unbinds what is.
    fn toggle(&mut self, Toggle { publication, path }: Toggle) {
        let Publication {
            range,
            port,
            node,
            key,
            ..
        } = publication;
        let operation = match self.table.withdraw(range, port, node, key) {
            Some(_) => Operation::Withdraw,
            None => {
                self.table.publish(publication).unwrap();
                Operation::Publish
            }
        };
        if let Some(update) = self.distributor.update(operation, publication) {
            self.paths[path].push_back(Sent {
                message_type: operation.to_wire(),
                flags: NameFlags::UPDATE,
                named_seqno: update.named_seqno,
                items: update.item.encode().to_vec(),
            });
        }
    }

    /// `late` happens between the snapshot of the number and the traversal of the bindings.
    fn send_bulk(&mut self, items_max: usize, late: Vec<Toggle>) {
        let named_seqno = self.distributor.snd_nxt();
        late.into_iter().for_each(|toggle| self.toggle(toggle));
        let mut bulk = self.distributor.bulk(self.table.own_cluster_publications());
        let mut data = vec![0; items_max * Item::SIZE];
        while let Some(message) = bulk.next_message(&mut data) {
            self.paths[0].push_back(Sent {
                message_type: Operation::Publish.to_wire(),
                flags: message.flags,
                named_seqno: if message.flags.last_bulk {
                    named_seqno
                } else {
                    0
                },
                items: data[..message.data_size].to_vec(),
            });
        }
    }
}

struct Receiver {
    table: BindingTable,
    queue: UpdateQueue,
}

impl Receiver {
    fn receive(&mut self, sent: Sent) {
        let Sent {
            message_type,
            flags,
            named_seqno,
            items,
        } = sent;
        let message = NameMessage {
            origin: PEER,
            message_type,
            flags,
            named_seqno,
            items: &items,
        };
        let table = &mut self.table;
        let apply = |operation, item: Item| match operation {
            // Duplicates and unknown withdrawals are part of the protocol: bindings may be both in
            // the bulk and in an update.
            Operation::Publish => drop(table.publish(item.publication_of(PEER))),
            Operation::Withdraw => drop(table.withdraw(item.range, item.port, PEER, item.key)),
        };
        self.queue.on_message(message, apply).unwrap();
    }

    /// Takes from the two paths by the schedule until both are empty.
    fn drain(&mut self, paths: &mut [VecDeque<Sent>; 2], schedule: &[bool]) {
        let mut schedule = schedule.iter().cycle();
        while paths.iter().any(|path| !path.is_empty()) {
            let turn = usize::from(schedule.next().copied().unwrap_or_default());
            let sent = paths[turn]
                .pop_front()
                .or_else(|| paths[1 - turn].pop_front());
            sent.into_iter().for_each(|sent| self.receive(sent));
        }
    }
}

fn toggles(length: usize) -> impl Strategy<Value = Vec<Toggle>> {
    let one = (0u32..8, 1u32..3, any::<bool>(), 0usize..2).prop_map(|(lower, port, node, path)| {
        let range = ServiceRange {
            type_: 100,
            lower,
            upper: lower + port,
        };
        // A binding keeps its scope from bind to unbind.
        let scope = if node && lower == 7 {
            Scope::Node
        } else {
            Scope::Cluster
        };
        let key = scope.to_wire();
        Toggle {
            publication: Publication {
                range,
                scope,
                port,
                node: PEER,
                key,
            },
            path,
        }
    });
    prop::collection::vec(one, 0..length)
}

fn sorted(publications: impl Iterator<Item = Publication>) -> Vec<(ServiceRange, u32, u32, u32)> {
    let mut all: Vec<_> = publications
        .map(|p| (p.range, p.port, p.node, p.key))
        .collect();
    all.sort_unstable();
    all
}

#[derive(Clone, Debug)]
struct Contact {
    updates_before: u32,
    before: Vec<Toggle>,
    /// How many of the updates made before the contact still arrive.
    stale: usize,
    late: Vec<Toggle>,
    after: Vec<Toggle>,
    items_max: usize,
    schedule: Vec<bool>,
}

fn a_contact() -> impl Strategy<Value = Contact> {
    let start = prop_oneof![0u32..50, 32_740u32..32_780, 65_500u32..65_540];
    (
        start,
        toggles(20),
        0usize..8,
        toggles(6),
        toggles(30),
        1usize..6,
        any::<[bool; 17]>(),
    )
        .prop_map(
            |(updates_before, before, stale, late, after, items_max, schedule)| Contact {
                updates_before,
                before,
                stale,
                late,
                after,
                items_max,
                schedule: schedule.to_vec(),
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_receiver_ends_with_the_table_of_the_sender_at_every_contact(
        contacts in prop::collection::vec(a_contact(), 1..4),
    ) {
        let mut receiver =
            Receiver { table: BindingTable::new(OWN, 2), queue: UpdateQueue::new(PEER) };
        for contact in contacts {
            // A peer that rebooted: it knows nothing of the contact before.
            let mut sender = Sender::new(contact.updates_before);
            contact.before.into_iter().for_each(|toggle| sender.toggle(toggle));
            for path in &mut sender.paths {
                path.drain(..path.len().saturating_sub(contact.stale));
            }
            sender.send_bulk(contact.items_max, contact.late);
            contact.after.into_iter().for_each(|toggle| sender.toggle(toggle));
            receiver.drain(&mut sender.paths, &contact.schedule);

            prop_assert_eq!(receiver.queue.waiting(), 0);
            prop_assert_eq!(
                sorted(receiver.table.iter()),
                sorted(sender.table.own_cluster_publications())
            );
            receiver.queue.reset();
            receiver.table.purge_node(PEER, |_| ());
            prop_assert!(receiver.table.is_empty());
        }
    }
}
