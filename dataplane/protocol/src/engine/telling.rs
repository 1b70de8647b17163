//! Telling the cluster of own bindings (`docs/protocol/names.md`, distribution): everything to a peer
//! whose link came up, each change to all by the broadcast link, and what a peer may not have heard
//! yet to that peer before the next message.

use super::{Engine, FastMap, PeerIndex};
use crate::addr::PortId;
use crate::frame::FrameRef;
use crate::host::{DownReason, Host, Reserve};
use crate::name::{Item, Operation, Publication, Scope, Update};
use crate::time::Instant;
use crate::wire::{Bundle, Capabilities, Header, Importance, Msg, User, field, size};
use std::collections::VecDeque;

/// Changes the cluster has not been told, beyond which nothing new is bound.
const UNTOLD_MAX: usize = 65_536;

/// Changes of own bindings that the cluster has not been told for want of room, and who waits for that.
#[derive(Debug, Default)]
pub(super) struct Untold {
    /// Oldest first. They get their numbers in this order.
    changes: VecDeque<(Operation, Publication)>,
    /// By owner of sockets: the number of updates there will have been when its last change is told.
    due: FastMap<u32, u64>,
    /// Sockets with a message that must not overtake a change, and the number of updates they wait for.
    waiting: Vec<(PortId, u64)>,
}

impl Untold {
    /// True if the cluster has been told everything.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// True if nothing more may be bound for now.
    pub(super) fn is_full(&self) -> bool {
        self.changes.len() >= UNTOLD_MAX
    }

    /// What a socket of `owner` has to wait for before it sends, with `numbered` updates told.
    pub(super) fn holds_back(&self, owner: u32, numbered: u64) -> Option<u64> {
        self.due.get(&owner).copied().filter(|due| *due > numbered)
    }

    /// Lines a socket up.
    pub(super) fn wait(&mut self, port: PortId, due: u64) {
        self.forget(port);
        self.waiting.push((port, due));
    }

    /// True if this socket is lined up.
    pub(super) fn awaits(&self, port: PortId) -> bool {
        self.waiting.iter().any(|(waiting, _)| *waiting == port)
    }

    /// Forgets a socket that no longer exists, or has been called.
    pub(super) fn forget(&mut self, port: PortId) {
        self.waiting.retain(|(waiting, _)| *waiting != port);
    }

    /// Calls the sockets that need not wait any longer.
    fn release(&mut self, numbered: u64, woken: &mut VecDeque<PortId>) {
        self.waiting.retain(|(port, due)| {
            let is_told = *due <= numbered;
            if is_told {
                woken.push_back(*port);
            }
            !is_told
        });
    }
}

impl Engine {
    /// Tells the cluster of a change made by a socket of `owner`, at once or as soon as there is room.
    pub(super) fn tell<H: Host>(
        &mut self,
        now: Instant,
        owner: u32,
        operation: Operation,
        what: Publication,
        host: &mut H,
    ) {
        if what.scope == Scope::Node {
            return;
        }
        self.untold.changes.push_back((operation, what));
        self.tell_untold(now, host);
        let untold = self.untold.changes.len();
        if untold > 0 {
            let due = self.distributor.numbered() + untold as u64;
            self.untold.due.insert(owner, due);
        }
    }

    /// Tells the cluster of changes in the order made. One that is not told gets no number yet: peers
    /// would wait for it in vain.
    pub(super) fn tell_untold<H: Host>(&mut self, now: Instant, host: &mut H) {
        if self.untold.changes.is_empty() {
            return;
        }
        while let Some((operation, what)) = self.untold.changes.front().copied()
            && self.try_tell(now, operation, what, host)
        {
            self.untold.changes.pop_front();
        }
        let numbered = self.distributor.numbered();
        self.untold.release(numbered, &mut self.core.woken);
        if self.untold.changes.is_empty() {
            self.untold.due.clear();
        }
    }

    /// By the broadcast link, or as copies if a peer does not take that. False if there is no room.
    fn try_tell<H: Host>(
        &mut self,
        now: Instant,
        operation: Operation,
        what: Publication,
        host: &mut H,
    ) -> bool {
        let up = || {
            self.peers
                .iter()
                .enumerate()
                .filter(|(_, p)| p.as_ref().is_some_and(|p| p.is_up()))
        };
        let legacy = |p: &Option<crate::node::Peer>| {
            p.as_ref()
                .is_some_and(|p| !p.capabilities.has(Capabilities::NAMED_BCAST))
        };
        if up().any(|(_, p)| legacy(p)) {
            let indexes: Vec<PeerIndex> = up().map(|(index, _)| index).collect();
            if let Some(update) = self.distributor.update(operation, what) {
                for index in indexes {
                    self.send_update(now, index, &update, host);
                }
            }
            return true;
        }
        if self.bcast.peers() == 0 {
            self.distributor.update(operation, what);
            return true;
        }
        if self.bcast.is_congested(Importance::System) {
            return false;
        }
        let mut ctx = super::Ctx {
            now,
            core: &mut self.core,
            host,
            bcast_ack: crate::seqno::SeqNo(0),
        };
        let own = ctx.core.own.0;
        // It can wait, unlike what keeps links alive: the reserve is not for it.
        let distributor = &mut self.distributor;
        self.bcast.submit_update(&mut ctx, UPDATE_SIZE, |out| {
            if let Some(update) = distributor.update(operation, what) {
                out.copy_from_slice(&update_message(&update, own, 0));
            }
        })
    }

    fn send_update<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        update: &Update,
        host: &mut H,
    ) {
        let Some((peer, _, mut ctx)) = self.at_peer(index, now, host) else {
            return;
        };
        let message = update_message(update, ctx.core.own.0, peer.addr.0);
        let Some(link) = peer.links.carrier_mut(0) else {
            return;
        };
        let is_queued = link.queue_update(&mut ctx, &message);
        link.advance(&mut ctx);
        if !is_queued {
            // Its table would never be right again.
            self.lose_contact(now, index, DownReason::Overflow, host);
        }
    }

    /// Sees to it that the next message to a peer does not overtake the bindings made before it: they
    /// travel by the broadcast link, and until the peer has said that it has them, copies go ahead of
    /// the message by the link it takes. The peer drops what comes second.
    ///
    /// False if there are not frames enough for all copies.
    #[inline]
    pub(super) fn tell_first<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        selector: u32,
        host: &mut H,
    ) -> bool {
        let numbered = self.distributor.numbered();
        let link = self
            .peer(index)
            .and_then(|peer| peer.links.carrier(selector));
        if link.is_none_or(|link| link.told == numbered) {
            return true;
        }
        self.copy_updates(now, index, selector, host)
    }

    #[inline(never)]
    fn copy_updates<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        selector: u32,
        host: &mut H,
    ) -> bool {
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return true;
        };
        let Some(link) = peer.links.carrier_mut(selector) else {
            return true;
        };
        let mut ctx = super::Ctx {
            now,
            core: &mut self.core,
            host,
            bcast_ack: peer.bcast.ack(),
        };
        let mut complete = true;
        let mut at = None;
        'packets: while let Some(frame) = self.bcast.next_missing(&ctx.core.table, &peer.bcast, at)
        {
            at = Some(frame);
            for number in 0.. {
                let Some(update) = read_update(&ctx, frame, number) else {
                    break;
                };
                let index = self.distributor.index_of(update.named_seqno);
                if index < link.told {
                    continue;
                }
                let message = update_message(&update, ctx.core.own.0, peer.addr.0);
                complete = link.queue_update(&mut ctx, &message);
                if !complete {
                    break 'packets;
                }
                link.told = index + 1;
            }
        }
        if complete {
            link.told = self.distributor.numbered();
        }
        link.advance(&mut ctx);
        complete
    }

    /// Tells a peer that has just come up all bindings of this node.
    pub(super) fn send_bulk<H: Host>(&mut self, now: Instant, index: PeerIndex, host: &mut H) {
        let own = self.core.own.0;
        let mut bulk = self.distributor.bulk(self.names.own_cluster_publications());
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let Some(link) = peer.links.carrier_mut(0) else {
            return;
        };
        let mut ctx = super::Ctx {
            now,
            core: &mut self.core,
            host,
            bcast_ack: peer.bcast.ack(),
        };
        link.told = self.distributor.numbered();
        let mut items = vec![0; link.mss() - size::INT];
        let mut complete = true;
        while let Some(message) = bulk.next_message(&mut items) {
            let mut header = Header::internal(User::NameDistributor, 0, own, peer.addr.0);
            header
                .set(field::BULK, 1)
                .set(field::LAST_BULK, message.flags.last_bulk.into())
                .set(field::NON_LEGACY, 1)
                .set(field::BC_ACK_INVALID, 1)
                .set(field::NAMED_SEQNO, message.named_seqno.into())
                .set_payload_len(message.data_size);
            let len = size::INT + message.data_size;
            let frame = ctx.alloc_written(Reserve::Control, Importance::System, len, |out| {
                out[..size::INT].copy_from_slice(header.as_bytes());
                out[size::INT..].copy_from_slice(&items[..message.data_size]);
            });
            let Some(frame) = frame else {
                complete = false;
                break;
            };
            link.submit(&mut ctx, frame, false);
        }
        drop(bulk);
        if !complete {
            // Its table would never be right; with the next contact it gets a new bulk.
            self.lose_contact(now, index, DownReason::Overflow, host);
        }
    }
}

/// Size of an update: header and one item.
const UPDATE_SIZE: usize = size::INT + Item::SIZE;

/// An update as a message; `dest` is 0 in a broadcast.
fn update_message(update: &Update, own: u32, dest: u32) -> [u8; UPDATE_SIZE] {
    let kind = update.operation.to_wire().into();
    let mut header = Header::internal(User::NameDistributor, kind, own, dest);
    header
        .set(field::NON_LEGACY, 1)
        .set(field::NAMED_SEQNO, update.named_seqno.into())
        .set_payload_len(Item::SIZE);
    let mut message = [0; UPDATE_SIZE];
    message[..size::INT].copy_from_slice(header.as_bytes());
    message[size::INT..].copy_from_slice(&update.item.encode());
    message
}

/// An update in a packet of the broadcast link, the first being number 0, if it holds so many.
fn read_update<H: Host>(ctx: &super::Ctx<'_, H>, frame: FrameRef, number: usize) -> Option<Update> {
    let meta = ctx.core.table.meta(frame);
    if meta.importance != Importance::System {
        return None;
    }
    let packet = Msg::check(ctx.host.bytes(frame).get(..meta.len as usize)?).ok()?;
    let msg = match packet.user() {
        User::MsgBundler => Bundle::new(packet).nth(number)?,
        _ if number == 0 => packet,
        _ => return None,
    };
    if msg.user() != User::NameDistributor {
        return None;
    }
    Some(Update {
        operation: Operation::from_wire(msg.kind() as u8)?,
        item: Item::decode(msg.payload().first_chunk()?),
        named_seqno: msg.get16(field::NAMED_SEQNO),
    })
}
