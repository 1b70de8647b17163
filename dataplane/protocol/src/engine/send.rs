//! From a socket to the links (`docs/protocol/sockets.md`, sending).

use super::{Engine, PeerIndex};
use crate::addr::{Destination, NodeAddr, PortId, SocketAddr};
use crate::frame::{Frame, FrameList};
use crate::host::{Host, Payload, Reserve};
use crate::link::Link;
use crate::name::{Lookup, Scope, ServiceRange};
use crate::port::{McastMethod, Port};
use crate::seqno::SeqNo;
use crate::stats::Drop;
use crate::time::Instant;
use crate::wire::{
    Capabilities, DataType, FragmentPlace, Header, Importance, User, errcode, field, size,
};

/// Why a message was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The sending socket does not exist.
    #[error("no such socket")]
    NoSuchSocket,
    /// More than a message holds.
    #[error("message of {0} bytes: at most {max} accepted", max = size::MAX_PAYLOAD)]
    TooLong(usize),
    /// lower > upper.
    #[error("range {0}..{1} is empty: lower must not be above upper")]
    EmptyRange(u32, u32),
    /// No binding, or no link to the node.
    #[error("no socket is bound to the address, or its node cannot be reached")]
    Unreachable,
    /// An earlier message met congestion: [`crate::host::Notice::Writable`] tells when to try again.
    #[error("the path to the destination is congested")]
    Congested,
    /// The socket needs a connection and has none.
    #[error("the socket is not connected")]
    NotConnected,
    /// The socket's connection is over.
    #[error("the connection is over")]
    Disconnected,
    /// A socket with bindings cannot connect.
    #[error("the socket is bound: it can listen, but not connect")]
    Bound,
    /// Connections are between two sockets.
    #[error("a connection goes to a socket or service address, not to a service range")]
    Range,
}

/// What sending asks of a socket, read once per message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sender {
    port: PortId,
    importance: Importance,
    dest_droppable: bool,
    src_droppable: bool,
    /// Something it sent met congestion that has not abated.
    is_congested: bool,
}

impl Sender {
    #[inline]
    pub(super) fn of(port: &Port) -> Self {
        Self {
            port: port.id,
            importance: port.importance,
            dest_droppable: port.dest_droppable,
            src_droppable: port.src_droppable,
            is_congested: port.is_congested(),
        }
    }
}

/// What became of a message handed to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handed {
    /// The link has it.
    Sent,
    /// The link has it, and no room for another.
    SentCongested,
}

impl Engine {
    /// Sends a message of a socket.
    pub fn send<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        from: PortId,
        to: &Destination,
        payload: &P,
        host: &mut H,
    ) -> Result<(), SendError> {
        let Some(port) = self.ports.get_mut(&from) else {
            return Err(SendError::NoSuchSocket);
        };
        let refused_at = port.refused_at.take();
        let sender = Sender::of(port);
        let result = if payload.len() > size::MAX_PAYLOAD {
            Err(SendError::TooLong(payload.len()))
        } else if port.kind.is_connected() {
            self.send_connecting(now, from, to, payload, host)
        } else if port.group.is_some() {
            self.send_in_group(now, from, to, payload, host)
        } else {
            self.send_to(now, &sender, to, payload, host)
        };
        self.note_outcome(now, from, refused_at, result);
        self.settle(now, host);
        result
    }

    /// From here to [`Self::end_gathering`] small messages to the same node share packets. For a host
    /// that has several messages at hand; nothing may wait in between.
    pub fn begin_gathering(&mut self) {
        self.core.gathering = true;
    }

    /// Sends what was gathered.
    pub fn end_gathering<H: Host>(&mut self, now: Instant, host: &mut H) {
        self.core.gathering = false;
        while let Some(node) = self.core.gathered.pop() {
            let Some(index) = self.reachable(node) else {
                continue;
            };
            if let Some((peer, _, mut ctx)) = self.at_peer(index, now, host) {
                for link in peer.links.iter_mut() {
                    link.advance(&mut ctx);
                }
            }
        }
    }

    fn send_to<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        sender: &Sender,
        to: &Destination,
        payload: &P,
        host: &mut H,
    ) -> Result<(), SendError> {
        match *to {
            Destination::Socket(_) | Destination::Service { .. } => {
                let header = self.unicast_header(sender, to, payload.len())?;
                let node = NodeAddr(header.get(field::DEST_NODE));
                if sender.is_congested && self.is_congested_to(sender.port, node) {
                    return Err(SendError::Congested);
                }
                let message = Message::new(&header, payload);
                self.hand_over(now, sender.port, node, &message, host)
            }
            Destination::Range { lower, upper, .. } if lower > upper => {
                Err(SendError::EmptyRange(lower, upper))
            }
            Destination::Range { .. } if sender.is_congested => Err(SendError::Congested),
            Destination::Range { kind, lower, upper } => {
                let mut header = self.data_header(sender, DataType::Mcast, size::MCAST);
                header
                    .set(field::LOOKUP_SCOPE, Scope::Cluster.to_wire())
                    .set(field::NAME_TYPE, kind)
                    .set(field::NAME_LOWER, lower)
                    .set(field::NAME_UPPER, upper);
                self.multicast(now, sender.port, header, payload, host)
            }
        }
    }

    /// The header of a message of `len` bytes to one socket.
    #[inline]
    pub(super) fn unicast_header(
        &mut self,
        sender: &Sender,
        to: &Destination,
        len: usize,
    ) -> Result<Header, SendError> {
        let (mut header, port, node) = match *to {
            Destination::Socket(SocketAddr { port, node }) => {
                let header = self.data_header(sender, DataType::Direct, size::BASIC);
                (header, port.0, node)
            }
            Destination::Service {
                kind,
                instance,
                domain,
            } => {
                let (port, node) = match self.names.anycast(kind, instance, domain.0) {
                    Lookup::Found { port, node } => (port, node),
                    Lookup::Delegate { node } => (0, node),
                    Lookup::None => return Err(SendError::Unreachable),
                };
                let scope = if domain == NodeAddr::NONE {
                    Scope::Cluster
                } else {
                    Scope::Node
                };
                let mut header = self.data_header(sender, DataType::Named, size::NAMED);
                header
                    .set(field::LOOKUP_SCOPE, scope.to_wire())
                    .set(field::NAME_TYPE, kind)
                    .set(field::NAME_LOWER, instance);
                (header, port, NodeAddr(node))
            }
            Destination::Range { .. } => return Err(SendError::Range),
        };
        let node = if node == NodeAddr::NONE {
            self.core.own
        } else {
            node
        };
        header
            .set(field::DEST_PORT, port)
            .set(field::DEST_NODE, node.0)
            .set_payload_len(len);
        Ok(header)
    }

    /// What all messages of a socket have in common.
    #[inline]
    pub(super) fn data_header(&self, sender: &Sender, kind: DataType, len: usize) -> Header {
        let own = self.core.own.0;
        let user = User::from_bits(sender.importance as u32);
        let mut header = Header::new(user, kind as u32, len);
        header
            .set(field::DEST_DROPPABLE, sender.dest_droppable.into())
            .set(field::SRC_DROPPABLE, sender.src_droppable.into())
            .set(field::PREV_NODE, own)
            .set(field::ORIG_PORT, sender.port.0)
            .set(field::ORIG_NODE, own);
        header
    }

    /// True if what the socket sends to this node has to wait.
    fn is_congested_to(&self, id: PortId, node: NodeAddr) -> bool {
        let port = self.ports.get(&id);
        port.is_some_and(|port| port.is_congested_to(node))
    }

    /// Takes a message of a socket to a socket of `node`, and puts the sender to wait if that met
    /// congestion.
    pub(super) fn hand_over<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        from: PortId,
        node: NodeAddr,
        message: &Message<'_, P>,
        host: &mut H,
    ) -> Result<(), SendError> {
        if self.is_own(node) {
            self.deliver_unicast(now, message.header, message.payload, host);
            return Ok(());
        }
        let index = self.reachable(node).ok_or(SendError::Unreachable)?;
        self.await_telling(from, node)?;
        let mss = self.mss_to(index);
        let frames = packet_count(message.len(), mss);
        if !self.tell_first(now, index, message.selector(), host)
            || !self.starved.admits(from, frames, host.frames_free())
        {
            self.note_starved(from, node, frames);
            return Err(SendError::Congested);
        }
        match self.transmit_cut(now, index, message, mss, host)? {
            Handed::Sent => {}
            Handed::SentCongested => self.note_congestion(from, node),
        }
        Ok(())
    }

    /// Has the sender wait as long as the cluster was not told of what it bound before.
    #[inline]
    pub(super) fn await_telling(&mut self, from: PortId, node: NodeAddr) -> Result<(), SendError> {
        if self.untold.is_empty() {
            return Ok(());
        }
        self.await_untold(from, node)
    }

    fn await_untold(&mut self, from: PortId, node: NodeAddr) -> Result<(), SendError> {
        let Some(port) = self.ports.get_mut(&from) else {
            return Err(SendError::NoSuchSocket);
        };
        let numbered = self.distributor.numbered();
        let Some(due) = self.untold.holds_back(port.owner, numbered) else {
            return Ok(());
        };
        port.on_congestion(node);
        self.untold.wait(from, due);
        Err(SendError::Congested)
    }

    /// True for this node, by its address or by none.
    #[inline]
    pub(super) fn is_own(&self, node: NodeAddr) -> bool {
        node == self.core.own || node == NodeAddr::NONE
    }

    fn note_congestion(&mut self, from: PortId, node: NodeAddr) {
        let Some(port) = self.ports.get_mut(&from) else {
            return;
        };
        port.on_congestion(node);
        let importance = port.importance;
        let index = self.index_of(node);
        let peer = index.and_then(|index| self.peers[index].as_mut());
        let link = peer.and_then(|peer| peer.links.carrier_mut(from.0));
        match link {
            Some(link) => link.wait(from, importance),
            None => self.bcast.wait(from),
        }
    }

    /// Too few frames were free: the socket hears as soon as there are enough.
    pub(super) fn note_starved(&mut self, from: PortId, node: NodeAddr, frames: usize) {
        let Some(port) = self.ports.get_mut(&from) else {
            return;
        };
        port.on_congestion(node);
        // A message that needs most of the pool must not wait until nobody else has a frame.
        let frames = frames.min(self.core.table.len() / 2);
        self.starved.wait(from, frames);
    }

    /// Puts a message on the link to `node`, whole, bundled or in fragments.
    pub(super) fn transmit<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        node: NodeAddr,
        header: &Header,
        payload: &P,
        host: &mut H,
    ) -> Result<Handed, SendError> {
        self.transmit_message(now, node, &Message::new(header, payload), host)
    }

    /// The same for a message that knows whether it may be bundled.
    pub(super) fn transmit_message<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        node: NodeAddr,
        message: &Message<'_, P>,
        host: &mut H,
    ) -> Result<Handed, SendError> {
        let index = self.reachable(node).ok_or(SendError::Unreachable)?;
        self.transmit_cut(now, index, message, self.mss_to(index), host)
    }

    /// Largest message that goes to a peer in one packet, by whichever link.
    #[inline]
    pub(super) fn mss_to(&self, index: PeerIndex) -> usize {
        let mss = self.peer(index).and_then(|peer| peer.links.mss());
        mss.unwrap_or(usize::MAX)
    }

    /// The same with packets of at most `mss` bytes.
    fn transmit_cut<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        message: &Message<'_, P>,
        mss: usize,
        host: &mut H,
    ) -> Result<Handed, SendError> {
        let Some((peer, _, mut ctx)) = self.at_peer(index, now, host) else {
            return Err(SendError::Unreachable);
        };
        let link = peer.links.carrier_mut(message.selector());
        let link = link.ok_or(SendError::Unreachable)?;
        let importance = message.importance();
        let congested = link.is_congested(importance);
        if congested && importance == Importance::System {
            // What the peer provoked must not take the link down.
            return Err(SendError::Congested);
        }
        let handed = if congested {
            Handed::SentCongested
        } else {
            Handed::Sent
        };
        let len = message.len();
        let whole = len <= mss;
        let bundles = whole && message.joins;
        if bundles && link.bundle(&mut ctx, importance, len, |out| message.write(0, out)) {
            return Ok(handed);
        }
        if whole {
            let packet = message.packet(&mut ctx).ok_or(SendError::Congested)?;
            link.submit(&mut ctx, packet, bundles);
            return Ok(handed);
        }
        let mut packets = cut(&mut ctx, message, mss).ok_or(SendError::Congested)?;
        link.count_fragments(packets.len() as u32);
        while let Some(packet) = packets.pop_front(&ctx.core.table) {
            link.submit(&mut ctx, packet, false);
        }
        Ok(handed)
    }

    fn multicast<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        from: PortId,
        mut header: Header,
        payload: &P,
        host: &mut H,
    ) -> Result<(), SendError> {
        let range = ServiceRange {
            type_: header.get(field::NAME_TYPE),
            lower: header.get(field::NAME_LOWER),
            upper: header.get(field::NAME_UPPER),
        };
        let own = self.core.own.0;
        let nodes = self.names.multicast_nodes(range);
        if nodes.is_empty() {
            return Err(SendError::Unreachable);
        }
        let local = nodes.contains(&own);
        let mut remote = std::mem::take(&mut self.receivers);
        remote.clear();
        remote.extend(nodes.iter().filter(|n| **n != own).map(|n| NodeAddr(*n)));
        header.set_payload_len(payload.len());
        let sent = if remote.is_empty() {
            Ok(())
        } else {
            self.multicast_to(now, from, &header, payload, &remote, host)
        };
        self.receivers = remote;
        sent?;
        if local {
            self.deliver_own_multicast(now, &header, payload, host);
        }
        Ok(())
    }

    /// All or nothing: half of a pair of SYN messages, or a copy for some nodes only, would be worse
    /// than no message.
    fn multicast_to<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        from: PortId,
        header: &Header,
        payload: &P,
        nodes: &[NodeAddr],
        host: &mut H,
    ) -> Result<(), SendError> {
        self.await_telling(from, NodeAddr::NONE)?;
        let (wanted, synchronised) = self.choose_method(from, nodes.len());
        let before = self.ports.get(&from).map_or(wanted, |p| p.mcast_method);
        // A twin that has to wait for the window comes so late that its receivers hold all that follows
        // by the new way, which nothing slows down.
        let method = if synchronised && self.is_waiting(before, from, nodes) {
            before
        } else {
            wanted
        };
        let is_switch = method != before && synchronised;
        if is_switch || method == McastMethod::Replicast {
            for node in nodes {
                if let Some(index) = self.reachable(*node)
                    && !self.tell_first(now, index, from.0, host)
                {
                    self.note_starved(from, NodeAddr::NONE, nodes.len());
                    return Err(SendError::Congested);
                }
            }
        }
        let copies = |method| {
            if method == McastMethod::Broadcast {
                1
            } else {
                nodes.len()
            }
        };
        let packets = nodes
            .iter()
            .filter_map(|node| self.reachable(*node))
            .map(|index| self.mss_to(index));
        let mss = packets.fold(self.bcast.mss(), usize::min);
        let frames = copies(method) * packet_count(header.len() + payload.len(), mss)
            + if is_switch { copies(before) } else { 0 };
        if !self.starved.admits(from, frames, host.frames_free()) {
            self.note_starved(from, NodeAddr::NONE, frames);
            return Err(SendError::Congested);
        }
        let mut message = *header;
        message.set(field::IS_RCAST, (method == McastMethod::Replicast).into());
        if is_switch {
            message.set(field::SYN, 1);
            let mut twin = message;
            twin.set(field::IS_RCAST, (before == McastMethod::Replicast).into())
                .set(field::ERRCODE, errcode::NO_PORT)
                .set_payload_len(0);
            let twin = Message::new(&twin, &[][..]);
            self.multicast_by(now, from, before, &twin, nodes, host);
        }
        let message = Message::new(&message, payload);
        self.multicast_by(now, from, method, &message, nodes, host);
        if let Some(port) = self.ports.get_mut(&from) {
            port.mcast_method = method;
        }
        Ok(())
    }

    /// Whether a multicast by this method would wait behind others for a window.
    fn is_waiting(&self, method: McastMethod, from: PortId, nodes: &[NodeAddr]) -> bool {
        if method == McastMethod::Broadcast {
            return self.bcast.is_waiting();
        }
        let links = nodes
            .iter()
            .filter_map(|node| self.peer(self.reachable(*node)?)?.links.carrier(from.0));
        links.into_iter().any(Link::is_waiting)
    }

    /// How a multicast to `nodes` other nodes travels, and whether the cluster understands a switch.
    pub(super) fn choose_method(&self, from: PortId, nodes: usize) -> (McastMethod, bool) {
        let up = || self.peers.iter().flatten().filter(|p| p.is_up());
        let all_have = |capability| up().all(|p| p.capabilities.has(capability));
        let synchronised = all_have(Capabilities::MCAST_RBCTL);
        let port = self.ports.get(&from);
        let method = if !all_have(Capabilities::BCAST_RCAST) {
            McastMethod::Broadcast
        } else if let Some(wanted) = port.and_then(|p| p.mcast_wanted) {
            wanted
        } else if !self.can_broadcast() || nodes * 100 <= 100 + up().count() * BROADCAST_RATIO {
            McastMethod::Replicast
        } else {
            McastMethod::Broadcast
        };
        (method, synchronised)
    }

    /// Whether every bearer with a link reaches all its stations with one packet.
    fn can_broadcast(&self) -> bool {
        let in_use = self.bearers.iter().flatten().filter(|b| b.links_up > 0);
        in_use.into_iter().all(|bearer| bearer.setup.broadcast)
    }

    /// Sends a message by one of the two ways; its frames have been counted.
    pub(super) fn multicast_by<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        from: PortId,
        method: McastMethod,
        message: &Message<'_, P>,
        nodes: &[NodeAddr],
        host: &mut H,
    ) {
        if method == McastMethod::Broadcast {
            return self.broadcast(now, from, message, host);
        }
        for node in nodes {
            let Some(index) = self.reachable(*node) else {
                continue;
            };
            let mss = self.bcast.mss().min(self.mss_to(index));
            if self.transmit_cut(now, index, message, mss, host) == Ok(Handed::SentCongested) {
                self.note_congestion(from, *node);
            }
        }
    }

    /// Sends a message by the broadcast link.
    fn broadcast<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        from: PortId,
        message: &Message<'_, P>,
        host: &mut H,
    ) {
        if self.bcast.is_congested(message.importance()) {
            self.note_congestion(from, NodeAddr::NONE);
        }
        let mss = self.bcast.mss();
        let mut ctx = super::Ctx {
            now,
            core: &mut self.core,
            host,
            bcast_ack: SeqNo(0),
        };
        if message.len() <= mss {
            return match message.packet(&mut ctx) {
                Some(packet) => self.bcast.submit(&mut ctx, packet),
                None => ctx.core.drops.count(Drop::NoFrame),
            };
        }
        let Some(mut packets) = cut(&mut ctx, message, mss) else {
            return ctx.core.drops.count(Drop::NoFrame);
        };
        self.bcast.count_fragments(packets.len() as u32);
        while let Some(packet) = packets.pop_front(&ctx.core.table) {
            self.bcast.submit(&mut ctx, packet);
        }
    }
}

/// Share of the cluster in percent up to which a multicast goes as copies.
const BROADCAST_RATIO: usize = 10;

/// A message in its two parts.
pub(super) struct Message<'a, P: ?Sized> {
    header: &'a Header,
    payload: &'a P,
    /// It may join a packet of its importance that waits already, ahead of others.
    joins: bool,
}

impl<'a, P: Payload + ?Sized> Message<'a, P> {
    #[inline]
    pub(super) fn new(header: &'a Header, payload: &'a P) -> Self {
        Self {
            header,
            payload,
            joins: true,
        }
    }

    /// One that stays behind everything that was sent before it.
    pub(super) fn apart(header: &'a Header, payload: &'a P) -> Self {
        Self {
            joins: false,
            ..Self::new(header, payload)
        }
    }

    /// What decides which of two links it takes, always the same for a sending socket.
    #[inline]
    fn selector(&self) -> u32 {
        self.header.get(field::ORIG_PORT)
    }

    fn len(&self) -> usize {
        self.header.len() + self.payload.len()
    }

    #[inline]
    fn importance(&self) -> Importance {
        let user = self.header.get(field::USER);
        let plain_data =
            User::from_bits(user).is_data() && self.header.get(field::ERRCODE) == errcode::OK;
        if plain_data {
            Importance::from_bits(user)
        } else {
            Importance::System
        }
    }

    /// The message as one packet. `None` if there is no frame.
    fn packet<H: Host>(&self, ctx: &mut super::Ctx<'_, H>) -> Option<Frame> {
        let write = |out: &mut [u8]| self.write(0, out);
        ctx.alloc_written(Reserve::Data, self.importance(), self.len(), write)
    }

    /// Writes the bytes from `start` on.
    fn write(&self, start: usize, out: &mut [u8]) {
        let header = self.header.len();
        let from_header = header.saturating_sub(start).min(out.len());
        if from_header > 0 {
            let part = &self.header.as_bytes()[start..start + from_header];
            out[..from_header].copy_from_slice(part);
        }
        let rest = &mut out[from_header..];
        if !rest.is_empty() {
            self.payload.copy_to(start + from_header - header, rest);
        }
    }
}

/// Packets of at most `mss` bytes that a message of `len` bytes makes.
#[inline]
pub(super) fn packet_count(len: usize, mss: usize) -> usize {
    if len <= mss {
        1
    } else {
        len.div_ceil(mss - size::INT)
    }
}

/// The packets of a message that is longer than `mss`. `None` if there are not frames enough for all of them: fragments that
/// begin a message and do not end it would break the link.
fn cut<H: Host, P: Payload + ?Sized>(
    ctx: &mut super::Ctx<'_, H>,
    message: &Message<'_, P>,
    mss: usize,
) -> Option<FrameList> {
    let importance = message.importance();
    let count = packet_count(message.len(), mss);
    let mut packets = FrameList::default();
    let mut header = fragment_header(message);
    for n in 0..count {
        let start = n * (mss - size::INT);
        let len = (message.len() - start).min(mss - size::INT);
        let place = match n {
            0 => FragmentPlace::First,
            _ if n + 1 < count => FragmentPlace::Inner,
            _ => FragmentPlace::Last,
        };
        header
            .set(field::TYPE, place as u32)
            .set(field::FRAGMENT_NO, n as u32 + 1)
            .set_payload_len(len);
        let frame = ctx.alloc_written(Reserve::Data, importance, size::INT + len, |out| {
            out[..size::INT].copy_from_slice(header.as_bytes());
            message.write(start, &mut out[size::INT..]);
        });
        let Some(frame) = frame else {
            packets.free_all(&ctx.core.table, ctx.host);
            return None;
        };
        packets.push_back(&mut ctx.core.table, frame);
    }
    Some(packets)
}

/// What the headers of all fragments of a message have in common.
fn fragment_header<P: Payload + ?Sized>(message: &Message<'_, P>) -> Header {
    let own = message.header.get(field::PREV_NODE);
    // A 24-byte header names no destination; the link sets it where it sends the packet.
    let dest = message.header.get(field::DEST_NODE);
    let mut header = Header::internal(User::MsgFragmenter, 0, own, dest);
    header.set(field::INNER_IMPORTANCE, message.importance() as u32);
    header
}
