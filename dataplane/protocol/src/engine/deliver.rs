//! From the link to the sockets (`docs/protocol/sockets.md`, delivery and rejection).

use super::send::Message;
use super::{Engine, PeerIndex};
use crate::addr::{BearerId, NodeAddr, PortId, SocketAddr};
use crate::host::{DestName, DownReason, Host, Incoming, Notice, Payload};
use crate::name::{Lookup, Scope, ScopeFilter, ServiceRange};
use crate::node::Peer;
use crate::port::{Ordered, Overdue, Port, message_cost};
use crate::reassembly::{Assembly, Fragment};
use crate::seqno::SeqNo;
use crate::stats::{Drop, Drops, LinkStats};
use crate::time::Instant;
use crate::wire::{
    Bundle, Capabilities, DataType, Field, Header, Importance, Msg, User, errcode, field, size,
};

/// By which way of a peer a packet came in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    /// The unicast link over this bearer.
    Link(BearerId),
    /// A unicast link that was lost: another one carried it.
    Tunnel,
    /// Its broadcast link.
    Broadcast,
}

impl Engine {
    /// A packet that was received in order.
    pub(super) fn deliver_packet<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        via: Via,
        msg: Msg<'_>,
        host: &mut H,
    ) {
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let Some((stats, assembly)) = reception(peer, via) else {
            return;
        };
        match (msg.user(), via) {
            (User::TunnelProtocol, Via::Link(id)) => self.on_tunnel(now, index, id, msg, host),
            // The message that makes a failover never empty.
            (User::Low, Via::Tunnel) if is_dummy(msg) => {}
            (User::BcastProtocol, Via::Link(_) | Via::Tunnel) => {
                peer.bcast.start(SeqNo(msg.get16(field::LAST_BCAST)));
                // Peers of before this capability do not say which of their bindings are the last.
                peer.bcast.told |= !peer.capabilities.has(Capabilities::NAMED_BCAST);
            }
            (User::MsgBundler, _) => {
                stats.rx_bundles += 1;
                let count = self.deliver_bundle(now, index, Bundle::new(msg), host);
                let peer = self.peers.get_mut(index).and_then(Option::as_mut);
                if let Some((stats, _)) = peer.and_then(|peer| reception(peer, via)) {
                    stats.rx_bundled += count;
                }
            }
            (User::MsgFragmenter, _) => {
                stats.rx_fragments += 1;
                match assembly.on_fragment(msg, &mut self.core.buffers) {
                    Fragment::Pending => {}
                    Fragment::Complete(message) => {
                        stats.rx_fragmented += 1;
                        self.deliver_assembled(now, index, message, host);
                    }
                    Fragment::Broken => {
                        self.core.drops.count(Drop::Reassembly);
                        // The broadcast link lives with it: all others would suffer.
                        if via != Via::Broadcast {
                            self.lose_contact(now, index, DownReason::Reassembly, host);
                        }
                    }
                }
            }
            // Not in a bundle: it would not show whether it came encrypted.
            (User::MsgCrypto, _) => self.on_key_given(now, index, msg),
            _ => self.deliver_message(now, index, msg, host),
        }
    }

    /// The messages of a bundle; how many there were. Datagrams in a row with one header are handed over together.
    fn deliver_bundle<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        mut bundle: Bundle<'_>,
        host: &mut H,
    ) -> u32 {
        let mut count = 0;
        while let Some(msg) = bundle.next() {
            count += 1;
            let id = PortId(msg.get(field::DEST_PORT));
            let port = match is_plain_datagram(msg) {
                true => self.ports.get_mut(&id),
                false => None,
            };
            let Some(port) = port.filter(|port| port.exchanges_datagrams()) else {
                self.deliver_message(now, index, msg, host);
                continue;
            };
            let mut next = Some(msg);
            let more = || {
                next.take().or_else(|| {
                    let alike = bundle.next_alike(msg);
                    count += u32::from(alike.is_some());
                    alike
                })
            };
            if let Some(refused) = take_datagrams(port, msg, more, host) {
                let header = Header::of(refused);
                self.reject(now, &header, refused.payload(), errcode::OVERLOAD, host);
            }
        }
        count
    }

    fn deliver_assembled<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        message: Vec<u8>,
        host: &mut H,
    ) {
        if let Ok(msg) = Msg::check(&message) {
            self.deliver_message(now, index, msg, host);
        }
        self.core.buffers.put(message);
    }

    /// A whole message of a peer. Nothing nests here: a bundle inside a bundle is dropped.
    fn deliver_message<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        msg: Msg<'_>,
        host: &mut H,
    ) {
        match msg.user() {
            User::Low | User::Medium | User::High | User::Critical => match msg.data_type() {
                DataType::Mcast if msg.get(field::ERRCODE) == errcode::OK || is_twin(msg) => {
                    self.deliver_multicast(now, msg, host);
                }
                // Members tell nobody of events: each node makes its own.
                DataType::GroupMemberEvent => self.core.drops.count(Drop::UnexpectedUser),
                DataType::GroupBcast | DataType::GroupMcast | DataType::GroupUcast
                    if !self.is_of_peer(index, msg) =>
                {
                    self.core.drops.count(Drop::NotPeer);
                }
                DataType::GroupBcast | DataType::GroupMcast => {
                    self.deliver_group_cast(now, &Header::of(msg), msg.payload(), host);
                }
                _ => self.deliver_unicast(now, &Header::of(msg), msg.payload(), host),
            },
            User::ConnManager => self.deliver_unicast(now, &Header::of(msg), msg.payload(), host),
            User::NameDistributor => self.on_name_message(now, index, msg, host),
            User::GroupProtocol if !self.is_of_peer(index, msg) => {
                self.core.drops.count(Drop::NotPeer);
            }
            User::GroupProtocol => self.on_group_packet(now, &Header::of(msg), host),
            User::System
            | User::BcastProtocol
            | User::MsgBundler
            | User::LinkProtocol
            | User::TunnelProtocol
            | User::MsgFragmenter
            | User::LinkConfig
            | User::MsgCrypto
            | User::TopSrv => self.core.drops.count(Drop::UnexpectedUser),
        }
    }

    /// True if a message began at the peer it came from: nobody passes on messages of groups.
    #[inline]
    fn is_of_peer(&self, index: PeerIndex, msg: Msg<'_>) -> bool {
        self.peer(index)
            .is_some_and(|peer| peer.addr.0 == msg.orig_node())
    }

    /// A message for one socket of this node.
    pub(super) fn deliver_unicast<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        header: &Header,
        payload: &P,
        host: &mut H,
    ) {
        let id = PortId(header.get(field::DEST_PORT));
        let kind = DataType::from_bits(header.get(field::TYPE));
        let user = User::from_bits(header.get(field::USER));
        let is_data = user.is_data();
        if let Some(port) = self.ports.get_mut(&id) {
            let taken = match (port.kind.is_connected(), is_data) {
                (true, true) => self.take_data(now, id, header, payload, host),
                (_, false) if user == User::ConnManager => {
                    self.on_conn_manager(now, id, header, host);
                    Ok(())
                }
                (_, true) if kind == DataType::GroupUcast && port.group.is_some() => {
                    self.take_group_message(now, id, header, payload, host);
                    Ok(())
                }
                _ => {
                    let get = |field| header.get(field);
                    take_datagram(port, &mut self.core.drops, get, payload, host)
                }
            };
            if let Err(code) = taken {
                self.reject(now, header, payload, code, host);
            }
            return;
        }
        if !is_data || kind != DataType::Named || header.get(field::ERRCODE) != errcode::OK {
            return self.reject(now, header, payload, errcode::NO_PORT, host);
        }
        match self.look_up_again(header) {
            Some(redirected) => self.redirect(now, &redirected, payload, host),
            None => self.reject(now, header, payload, errcode::NO_NAME, host),
        }
    }

    /// The one secondary look-up a named message may have in its life.
    fn look_up_again(&mut self, header: &Header) -> Option<Header> {
        if header.get(field::REROUTE_COUNT) != 0 {
            return None;
        }
        let node_only = header.get(field::LOOKUP_SCOPE) == Scope::Node.to_wire();
        let domain = if node_only { self.core.own.0 } else { 0 };
        let (kind, instance) = (header.get(field::NAME_TYPE), header.get(field::NAME_LOWER));
        let Lookup::Found { port, node } = self.names.anycast(kind, instance, domain) else {
            return None;
        };
        let mut redirected = *header;
        redirected
            .set(field::REROUTE_COUNT, 1)
            .set(field::DEST_PORT, port)
            .set(field::DEST_NODE, node);
        Some(redirected)
    }

    fn redirect<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        header: &Header,
        payload: &P,
        host: &mut H,
    ) {
        let node = NodeAddr(header.get(field::DEST_NODE));
        if node == self.core.own || node == NodeAddr::NONE {
            return self.deliver_unicast(now, header, payload, host);
        }
        let mut onward = *header;
        onward.set(field::PREV_NODE, self.core.own.0);
        if self.transmit(now, node, &onward, payload, host).is_err() {
            self.core.drops.count(Drop::NoName);
        }
    }

    /// A multicast: one copy for each socket here that is bound to an overlapping range.
    fn deliver_multicast<H: Host>(&mut self, now: Instant, msg: Msg<'_>, host: &mut H) {
        let header = Header::of(msg);
        let source = SocketAddr {
            port: PortId(msg.get(field::ORIG_PORT)),
            node: NodeAddr(msg.orig_node()),
        };
        let members = self.members_of(&header, ScopeFilter::Only(Scope::Cluster));
        for id in &members {
            let id = PortId(*id);
            let Some(port) = self.ports.get_mut(&id) else {
                continue;
            };
            // Halves of pairs have the most room: without them the order is lost.
            let importance = if msg.flag(field::SYN) {
                Importance::System
            } else {
                Importance::from_bits(msg.get(field::USER))
            };
            let has_room = port.has_room(importance, message_cost(msg.payload().len()));
            let judged = port.mcast_order.on_message(now, source, msg, has_room);
            self.deliver_ready(now, id, host);
            match judged {
                Ordered::Deliver => self.accept_multicast(now, id, &header, msg.payload(), host),
                Ordered::Held if self.holding.contains(&id) => {}
                Ordered::Held => self.holding.push(id),
                Ordered::Refused => self.refuse_multicast(now, id, &header, msg.payload(), host),
            }
        }
        if members.is_empty() {
            self.core.drops.count(Drop::NoMulticastMember);
        }
        self.members = members;
    }

    pub(super) fn deliver_ready<H: Host>(&mut self, now: Instant, id: PortId, host: &mut H) {
        while let Some(ready) = self
            .ports
            .get_mut(&id)
            .and_then(|port| port.mcast_order.pop_ready())
            && let Ok(msg) = Msg::check(&ready)
        {
            self.accept_multicast(now, id, &Header::of(msg), msg.payload(), host);
        }
    }

    /// Delivers multicasts that have waited too long for another one of this node: it will not come.
    pub(super) fn give_up_held<H: Host>(
        &mut self,
        now: Instant,
        node: NodeAddr,
        overdue: Overdue,
        host: &mut H,
    ) {
        let mut holding = std::mem::take(&mut self.holding);
        holding.retain(|id| {
            if let Some(port) = self.ports.get_mut(id) {
                port.mcast_order.give_up(node, overdue);
            }
            self.deliver_ready(now, *id, host);
            self.ports
                .get(id)
                .is_some_and(|port| !port.mcast_order.is_empty())
        });
        self.holding = holding;
    }

    fn accept_multicast<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        id: PortId,
        header: &Header,
        payload: &P,
        host: &mut H,
    ) {
        if payload.is_empty() {
            return self.core.drops.count(Drop::Empty);
        }
        let mut copy = *header;
        copy.set(field::DEST_PORT, id.0);
        let taken = match self.ports.get_mut(&id) {
            Some(port) => take_datagram(
                port,
                &mut self.core.drops,
                |field| copy.get(field),
                payload,
                host,
            ),
            None => Err(errcode::NO_PORT),
        };
        if let Err(code) = taken {
            self.reject(now, &copy, payload, code, host);
        }
    }

    /// A multicast that would have to wait for its turn, and has no room.
    fn refuse_multicast<H: Host>(
        &mut self,
        now: Instant,
        id: PortId,
        header: &Header,
        payload: &[u8],
        host: &mut H,
    ) {
        if let Some(port) = self.ports.get_mut(&id) {
            port.overloads += 1;
        }
        let mut copy = *header;
        copy.set(field::DEST_PORT, id.0);
        self.reject(now, &copy, payload, errcode::OVERLOAD, host);
    }

    /// A multicast of a socket of this node, for the sockets of this node.
    pub(super) fn deliver_own_multicast<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        header: &Header,
        payload: &P,
        host: &mut H,
    ) {
        let members = self.members_of(header, ScopeFilter::Any);
        for id in &members {
            self.accept_multicast(now, PortId(*id), header, payload, host);
        }
        self.members = members;
    }

    fn members_of(&mut self, header: &Header, filter: ScopeFilter) -> Vec<u32> {
        let range = ServiceRange {
            type_: header.get(field::NAME_TYPE),
            lower: header.get(field::NAME_LOWER),
            upper: header.get(field::NAME_UPPER),
        };
        let mut members = std::mem::take(&mut self.members);
        members.clear();
        members.extend_from_slice(self.names.multicast_ports(range, filter));
        members
    }

    /// Sends a message back to where it came from, unless it may be dropped. A message that was
    /// returned once is never returned again.
    pub(super) fn reject<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        header: &Header,
        payload: &P,
        code: u32,
        host: &mut H,
    ) {
        if let Err(reason) = self.send_back(now, header, payload, code, host) {
            self.core.drops.count(reason);
        }
    }

    /// The same; says why if it did not go back.
    pub(super) fn send_back<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        header: &Header,
        payload: &P,
        code: u32,
        host: &mut H,
    ) -> Result<(), Drop> {
        if header.get(field::ERRCODE) != errcode::OK {
            return Err(Drop::ReturnedNowhere);
        }
        if header.get(field::DEST_DROPPABLE) == 1 {
            return Err(match code {
                errcode::NO_NAME => Drop::NoName,
                errcode::OVERLOAD => Drop::Overload,
                _ => Drop::NoPort,
            });
        }
        let returns_data = header.get(field::SYN) == 0 || code != errcode::OVERLOAD;
        let mut kept = [0; size::MAX_RETURNED];
        let kept = &mut kept[..if returns_data {
            payload.len().min(size::MAX_RETURNED)
        } else {
            0
        }];
        payload.copy_to(0, kept);
        let back_to = NodeAddr(header.get(field::PREV_NODE));
        let mut back = *header;
        if back.len() < size::BASIC {
            back.grow(size::BASIC);
        }
        back.set(field::ERRCODE, code)
            .set(field::NON_SEQ, 0)
            .set(field::ORIG_PORT, header.get(field::DEST_PORT))
            .set(field::DEST_PORT, header.get(field::ORIG_PORT))
            .set(field::DEST_NODE, back_to.0)
            .set(field::PREV_NODE, self.core.own.0)
            .set(field::ORIG_NODE, self.core.own.0)
            .set_payload_len(kept.len());
        let kept = &*kept;
        if self.is_own(back_to) {
            self.deliver_unicast(now, &back, kept, host);
            return Ok(());
        }
        let message = if DataType::from_bits(back.get(field::TYPE)) == DataType::Conn {
            // It ends the connection, and stays behind what was sent on it.
            Message::apart(&back, kept)
        } else {
            Message::new(&back, kept)
        };
        match self.transmit_message(now, back_to, &message, host) {
            Ok(_) => Ok(()),
            Err(_) => Err(Drop::ReturnOverflow),
        }
    }

    /// The header a delivered message had, as far as returning it needs it.
    pub(super) fn header_of_delivered(
        &self,
        id: PortId,
        about: &Incoming,
        payload: usize,
    ) -> Header {
        let user = User::from_bits(about.importance as u32);
        let connected = self.ports.get(&id).is_some_and(|p| p.kind.is_connected());
        let (kind, len) = match about.dest_name {
            _ if connected => (DataType::Conn, size::SHORT),
            Some(name) if name.lower != name.upper => (DataType::Mcast, size::MCAST),
            Some(_) => (DataType::Named, size::NAMED),
            None => (DataType::Direct, size::BASIC),
        };
        let mut header = Header::new(user, kind as u32, len);
        header
            .set(field::PREV_NODE, about.source.node.0)
            .set(field::ORIG_PORT, about.source.port.0)
            .set(field::DEST_PORT, id.0);
        if len > size::SHORT {
            header
                .set(field::ORIG_NODE, about.source.node.0)
                .set(field::DEST_NODE, self.core.own.0);
        }
        if let Some(name) = about.dest_name
            && len > size::BASIC
        {
            header
                .set(field::NAME_TYPE, name.kind)
                .set(field::NAME_LOWER, name.lower);
            if len == size::MCAST {
                header.set(field::NAME_UPPER, name.upper);
            }
        }
        header.set_payload_len(payload);
        header
    }
}

/// True of a message from one socket to another that has bytes, and has not come back.
#[inline]
fn is_plain_datagram(msg: Msg<'_>) -> bool {
    let of_one = matches!(msg.data_type(), DataType::Named | DataType::Direct);
    of_one
        && msg.user().is_data()
        && msg.get(field::ERRCODE) == errcode::OK
        && !msg.payload().is_empty()
}

/// Hands a message to a socket, or says why it refuses. `get` gives the fields of its header.
#[inline]
fn take_datagram<H: Host, P: Payload + ?Sized>(
    port: &mut Port,
    drops: &mut Drops,
    get: impl Fn(Field) -> u32,
    payload: &P,
    host: &mut H,
) -> Result<(), u32> {
    let user = User::from_bits(get(field::USER));
    let kind = DataType::from_bits(get(field::TYPE));
    let takes = matches!(kind, DataType::Mcast | DataType::Named | DataType::Direct);
    if !user.is_data() || !takes || port.kind.is_connected() {
        return Err(errcode::NO_PORT);
    }
    if port.group.is_some() {
        // A member gets messages of members only; others are not told.
        drops.count(Drop::NotMember);
        return Ok(());
    }
    let code = get(field::ERRCODE);
    if payload.is_empty() && code == errcode::OK {
        drops.count(Drop::Empty);
        return Ok(());
    }
    let importance = if code == errcode::OK {
        Importance::from_bits(user as u32)
    } else {
        Importance::System
    };
    let cost = message_cost(payload.len());
    if !has_room(port, importance, cost, host) {
        port.overloads += 1;
        return Err(errcode::OVERLOAD);
    }
    let lent_too_much = port.lends_too_much();
    port.on_waiting(cost);
    tell_if_crowded(port, lent_too_much, host);
    let about = incoming(get, cost);
    host.deliver(port.id, &about, payload);
    Ok(())
}

/// Hands datagrams with the header of `msg` to a socket, until there are no more or one finds no room: that one.
#[inline]
fn take_datagrams<'a, H: Host>(
    port: &mut Port,
    msg: Msg<'a>,
    mut more: impl FnMut() -> Option<Msg<'a>>,
    host: &mut H,
) -> Option<Msg<'a>> {
    let cost = message_cost(msg.payload().len());
    let about = incoming(|field| msg.get(field), cost);
    let id = port.id;
    let lent = match port.lent {
        0 => 0,
        lent => host.lent_in_use(id).min(lent.into()) as u32,
    };
    let lent_too_much = port.lends_too_much();
    let mut refused = None;
    let taken = std::iter::from_fn(|| {
        let msg = more()?;
        if !port.has_room(about.importance, cost.saturating_add(lent)) {
            port.overloads += 1;
            refused = Some(msg);
            return None;
        }
        port.on_waiting(cost);
        Some(msg.payload())
    });
    host.deliver_all(id, &about, taken);
    tell_if_crowded(port, lent_too_much, host);
    refused
}

/// What a socket is told of a datagram. `get` gives the fields of its header.
#[inline]
fn incoming(get: impl Fn(Field) -> u32, cost: u32) -> Incoming {
    let code = get(field::ERRCODE);
    Incoming {
        source: SocketAddr {
            port: PortId(get(field::ORIG_PORT)),
            node: NodeAddr(get(field::ORIG_NODE)),
        },
        dest_name: dest_name(&get, DataType::from_bits(get(field::TYPE))),
        importance: Importance::from_bits(get(field::USER)),
        errcode: code as u8,
        cost,
        returnable: code == errcode::OK && get(field::DEST_DROPPABLE) == 0,
        group: None,
        refused: false,
    }
}

/// Tells the host if a socket lends too much since it took a message.
#[inline]
fn tell_if_crowded<H: Host>(port: &Port, lent_too_much_before: bool, host: &mut H) {
    if port.lent > 0 && !lent_too_much_before && port.lends_too_much() {
        host.notice(Notice::Crowded(port.id));
    }
}

/// Whether a message finds room beside what waits, wherever that is.
#[inline]
fn has_room<H: Host>(port: &Port, importance: Importance, cost: u32, host: &H) -> bool {
    let has_room_beside = |lent: u32| port.has_room(importance, cost.saturating_add(lent));
    match port.lent {
        0 => has_room_beside(0),
        lent if has_room_beside(lent) => true,
        lent => has_room_beside(host.lent_in_use(port.id).min(lent.into()) as u32),
    }
}

/// Counters of the way by which a packet came, and the message being put together there.
#[inline]
fn reception(peer: &mut Peer, via: Via) -> Option<(&mut LinkStats, &mut Assembly)> {
    match via {
        Via::Link(id) => {
            let link = peer.links.get_mut(id)?;
            Some((&mut link.stats, &mut link.assembly))
        }
        Via::Tunnel => {
            let link = peer.links.carrier_mut(0)?;
            Some((&mut link.stats, &mut peer.failover.as_mut()?.assembly))
        }
        Via::Broadcast => Some((&mut peer.bcast.stats, &mut peer.bcast.assembly)),
    }
}

/// True for a message for no socket that came back already.
fn is_dummy(msg: Msg<'_>) -> bool {
    msg.get(field::DEST_PORT) == 0 && msg.get(field::ERRCODE) != errcode::OK
}

/// True for the empty half of a pair that marks a switch of the multicast method. It is flagged as an
/// error so that old nodes drop it; a multicast that really comes back is not empty, or has another
/// error.
fn is_twin(msg: Msg<'_>) -> bool {
    msg.flag(field::SYN) && msg.get(field::ERRCODE) == errcode::NO_PORT && msg.payload().is_empty()
}

#[inline]
fn dest_name(get: impl Fn(Field) -> u32, kind: DataType) -> Option<DestName> {
    let (kind_field, lower) = (field::NAME_TYPE, field::NAME_LOWER);
    match kind {
        DataType::Named => Some(DestName {
            kind: get(kind_field),
            lower: get(lower),
            upper: get(lower),
        }),
        DataType::Mcast => Some(DestName {
            kind: get(kind_field),
            lower: get(lower),
            upper: get(field::NAME_UPPER),
        }),
        _ => None,
    }
}
