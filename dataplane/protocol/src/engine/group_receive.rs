//! From the other members to a member (`docs/protocol/groups.md`, order and delivery).

use super::Engine;
use crate::addr::{NodeAddr, PortId, SocketAddr};
use crate::group::{Arrival, Arriving, Held, MemberNo};
use crate::host::{FromMember, Host, Incoming, MemberNews, Payload};
use crate::port::message_cost;
use crate::stats::Drop;
use crate::time::Instant;
use crate::wire::{Header, Importance, errcode, field};

impl Engine {
    /// A message for a socket that is in a group.
    pub(super) fn take_group_message<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        id: PortId,
        header: &Header,
        payload: &P,
        host: &mut H,
    ) {
        if header.get(field::ERRCODE) != errcode::OK {
            return self.core.drops.count(Drop::ReturnedNowhere);
        }
        let source = SocketAddr {
            port: PortId(header.get(field::ORIG_PORT)),
            node: NodeAddr(header.get(field::ORIG_NODE)),
        };
        let about = Arriving::of(header, payload.len());
        let arrival = self.in_group(id, host, |group, notes| {
            group.on_message(source, &about, notes)
        });
        let member = match arrival {
            Some(Arrival::Deliver(member)) => {
                self.deliver_of_member(id, member, about.importance, payload, host);
                member
            }
            Some(Arrival::NotForUs(member)) => member,
            Some(Arrival::Early(member)) => {
                let mut bytes = vec![0; payload.len()];
                payload.copy_to(0, &mut bytes);
                let held = Held {
                    about,
                    payload: bytes,
                };
                self.in_group(id, host, |group, notes| {
                    group.hold(now, member, held, notes)
                });
                member
            }
            Some(Arrival::Duplicate) => return self.core.drops.count(Drop::Duplicate),
            Some(Arrival::Stranger) => return self.core.drops.count(Drop::NotMember),
            None => return self.core.drops.count(Drop::NoPort),
        };
        while let Some(held) = self
            .in_group(id, host, |group, notes| {
                group.next_in_turn(now, member, notes)
            })
            .flatten()
        {
            let importance = held.about.importance;
            self.deliver_of_member(id, member, importance, &held.payload[..], host);
        }
    }

    /// Hands a message to the member. One without bytes is none, as in Linux; and what a member was
    /// granted always finds room. What is not handed over is as good as read.
    fn deliver_of_member<H: Host, P: Payload + ?Sized>(
        &mut self,
        id: PortId,
        member: MemberNo,
        importance: Importance,
        payload: &P,
        host: &mut H,
    ) {
        let cost = message_cost(payload.len());
        let from = self.group(id).and_then(|group| {
            let from = group.numbered(member)?;
            Some((from.addr, from.instance, group.membership.group))
        });
        let (Some(port), Some((source, instance, group))) = (self.ports.get_mut(&id), from) else {
            return;
        };
        let refusal = if payload.is_empty() {
            Some(Drop::Empty)
        } else if !port.has_room(importance, cost) {
            port.overloads += 1;
            Some(Drop::Overload)
        } else {
            None
        };
        port.on_waiting(cost);
        if let Some(refusal) = refusal {
            self.core.drops.count(refusal);
            return self.on_group_read(id, member, cost);
        }
        self.note_awaited(id);
        let about = Incoming {
            source,
            dest_name: None,
            importance,
            errcode: errcode::OK as u8,
            cost,
            returnable: false,
            refused: false,
            group: Some(FromMember {
                group,
                instance,
                news: MemberNews::Message(member),
            }),
        };
        host.deliver(id, &about, payload);
    }
}
