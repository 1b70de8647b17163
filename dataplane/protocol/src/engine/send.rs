//! From a socket to the links (`docs/protocol/sockets.md`, sending).

use super::{Engine, PeerIndex};
use crate::addr::{Destination, NodeAddr, PortId, SocketAddr};
use crate::host::{Host, Payload, Reserve};
use crate::name::{Lookup, Scope, ServiceRange};
use crate::port::McastMethod;
use crate::seqno::SeqNo;
use crate::time::Instant;
use crate::wire::{Capabilities, DataType, Header, Importance, User, errcode, field, size};

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
        let result = self.send_to(now, from, to, payload, host);
        self.settle(host);
        result
    }

    fn send_to<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        from: PortId,
        to: &Destination,
        payload: &P,
        host: &mut H,
    ) -> Result<(), SendError> {
        if !self.ports.contains_key(&from) {
            return Err(SendError::NoSuchSocket);
        }
        if payload.len() > size::MAX_PAYLOAD {
            return Err(SendError::TooLong(payload.len()));
        }
        match *to {
            Destination::Socket(SocketAddr { port, node }) => {
                let header = self.data_header(from, DataType::Direct, size::BASIC);
                self.unicast(now, from, header, (port.0, node.0), payload, host)
            }
            Destination::Service { kind, instance, domain } => {
                let (port, node) = match self.names.anycast(kind, instance, domain.0) {
                    Lookup::Found { port, node } => (port, node),
                    Lookup::Delegate { node } => (0, node),
                    Lookup::None => return Err(SendError::Unreachable),
                };
                let scope = if domain == NodeAddr::NONE { Scope::Cluster } else { Scope::Node };
                let mut header = self.data_header(from, DataType::Named, size::NAMED);
                header
                    .set(field::LOOKUP_SCOPE, scope.to_wire())
                    .set(field::NAME_TYPE, kind)
                    .set(field::NAME_LOWER, instance);
                self.unicast(now, from, header, (port, node), payload, host)
            }
            Destination::Range { kind, lower, upper } if lower <= upper => {
                let mut header = self.data_header(from, DataType::Mcast, size::MCAST);
                header
                    .set(field::LOOKUP_SCOPE, Scope::Cluster.to_wire())
                    .set(field::NAME_TYPE, kind)
                    .set(field::NAME_LOWER, lower)
                    .set(field::NAME_UPPER, upper);
                self.multicast(now, from, header, payload, host)
            }
            Destination::Range { lower, upper, .. } => Err(SendError::EmptyRange(lower, upper)),
        }
    }

    /// What all messages of a socket have in common.
    fn data_header(&self, from: PortId, kind: DataType, len: usize) -> Header {
        let own = self.core.own.0;
        let mut header = Header::new(User::Low, kind as u32, len);
        header.set(field::PREV_NODE, own).set(field::ORIG_PORT, from.0).set(field::ORIG_NODE, own);
        if let Some(port) = self.ports.get(&from) {
            header
                .set(field::USER, port.importance as u32)
                .set(field::DEST_DROPPABLE, port.dest_droppable.into())
                .set(field::SRC_DROPPABLE, port.src_droppable.into());
        }
        header
    }

    fn unicast<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        from: PortId,
        mut header: Header,
        (port, node): (u32, u32),
        payload: &P,
        host: &mut H,
    ) -> Result<(), SendError> {
        let local = node == self.core.own.0 || node == NodeAddr::NONE.0;
        let node = if local { self.core.own } else { NodeAddr(node) };
        header.set(field::DEST_PORT, port).set(field::DEST_NODE, node.0).set_payload_len(payload.len());
        if local {
            self.deliver_unicast(now, &header, payload, host);
            return Ok(());
        }
        if self.ports.get(&from).is_some_and(|p| p.is_congested_to(node)) {
            return Err(SendError::Congested);
        }
        match self.transmit(now, node, &header, payload, host) {
            Ok(Handed::Sent) => Ok(()),
            Ok(Handed::SentCongested) => {
                self.note_congestion(from, node);
                Ok(())
            }
            Err(SendError::Congested) => {
                self.note_starved(from, node);
                Err(SendError::Congested)
            }
            Err(error) => Err(error),
        }
    }

    fn note_congestion(&mut self, from: PortId, node: NodeAddr) {
        let Some(port) = self.ports.get_mut(&from) else {
            return;
        };
        port.on_congestion(node);
        let importance = port.importance;
        let index = self.peer_index.get(&node).copied();
        let link = index.and_then(|index| self.peers[index].as_mut()?.link.as_mut());
        match link {
            Some(link) => link.wait(from, importance),
            None => self.bcast.wait(from),
        }
    }

    /// No frame was free: the socket hears as soon as there is one.
    fn note_starved(&mut self, from: PortId, node: NodeAddr) {
        if let Some(port) = self.ports.get_mut(&from) {
            port.on_congestion(node);
            self.starved.push(from);
        }
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
        let index = self.reachable(node).ok_or(SendError::Unreachable)?;
        let mss = self.peer(index).and_then(|p| p.link.as_ref()).map_or(0, |link| link.mss());
        self.transmit_cut(now, index, header, payload, mss, host)
    }

    /// The same with packets of at most `mss` bytes.
    fn transmit_cut<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        header: &Header,
        payload: &P,
        mss: usize,
        host: &mut H,
    ) -> Result<Handed, SendError> {
        let Some((peer, _, mut ctx)) = self.at_peer(index, now, host) else {
            return Err(SendError::Unreachable);
        };
        let link = peer.up_link().ok_or(SendError::Unreachable)?;
        let message = Message { header, payload };
        let importance = message.importance();
        let congested = link.is_congested(importance);
        if congested && importance == Importance::System {
            // What the peer provoked must not take the link down.
            return Err(SendError::Congested);
        }
        let handed = if congested { Handed::SentCongested } else { Handed::Sent };
        let len = message.len();
        if len > mss {
            let count = fragment_count(len, mss);
            if ctx.host.frames_free() < count {
                return Err(SendError::Congested);
            }
            link.count_fragments(count as u32);
            for n in 0..count {
                let (fragment, range) = fragment_of(&message, mss, n, count);
                let frame = ctx.alloc_written(Reserve::Data, importance, size::INT + range.len(), |out| {
                    out[..size::INT].copy_from_slice(fragment.as_bytes());
                    message.write(range.start, &mut out[size::INT..]);
                });
                link.submit(&mut ctx, frame.ok_or(SendError::Congested)?, false);
            }
            return Ok(handed);
        }
        if link.bundle(&mut ctx, importance, len, |out| message.write(0, out)) {
            return Ok(handed);
        }
        let frame = ctx.alloc_written(Reserve::Data, importance, len, |out| message.write(0, out));
        link.submit(&mut ctx, frame.ok_or(SendError::Congested)?, true);
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
        if self.ports.get(&from).is_some_and(|p| p.is_congested()) {
            return Err(SendError::Congested);
        }
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
        let remote: Vec<NodeAddr> = nodes.iter().filter(|n| **n != own).map(|n| NodeAddr(*n)).collect();
        header.set_payload_len(payload.len());
        if !remote.is_empty() {
            self.multicast_to(now, from, &header, payload, &remote, host)?;
        }
        if local {
            self.deliver_own_multicast(now, &header, payload, host);
        }
        Ok(())
    }

    fn multicast_to<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        from: PortId,
        header: &Header,
        payload: &P,
        nodes: &[NodeAddr],
        host: &mut H,
    ) -> Result<(), SendError> {
        let (method, synchronised) = self.choose_method(from, nodes.len());
        let before = self.ports.get(&from).map_or(method, |p| p.mcast_method);
        let mut message = *header;
        message.set(field::IS_RCAST, (method == McastMethod::Replicast).into());
        if method != before && synchronised {
            message.set(field::SYN, 1);
            let mut twin = message;
            twin.set(field::IS_RCAST, (before == McastMethod::Replicast).into())
                .set(field::ERRCODE, errcode::NO_PORT)
                .set_payload_len(0);
            self.multicast_by(now, from, before, &twin, &[][..], nodes, host)?;
        }
        self.multicast_by(now, from, method, &message, payload, nodes, host)?;
        if let Some(port) = self.ports.get_mut(&from) {
            port.mcast_method = method;
        }
        Ok(())
    }

    /// How a multicast to `nodes` other nodes travels, and whether the cluster understands a switch.
    fn choose_method(&self, from: PortId, nodes: usize) -> (McastMethod, bool) {
        let up = || self.peers.iter().flatten().filter(|p| p.is_up());
        let all_have = |capability| up().all(|p| p.capabilities.has(capability));
        let synchronised = all_have(Capabilities::MCAST_RBCTL);
        let port = self.ports.get(&from);
        let method = if !all_have(Capabilities::BCAST_RCAST) {
            McastMethod::Broadcast
        } else if let Some(wanted) = port.and_then(|p| p.mcast_wanted) {
            wanted
        } else if nodes * 100 <= 100 + up().count() * BROADCAST_RATIO {
            McastMethod::Replicast
        } else {
            McastMethod::Broadcast
        };
        (method, synchronised)
    }

    #[expect(clippy::too_many_arguments, reason = "a message, its method and its receivers")]
    fn multicast_by<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        from: PortId,
        method: McastMethod,
        header: &Header,
        payload: &P,
        nodes: &[NodeAddr],
        host: &mut H,
    ) -> Result<(), SendError> {
        if method == McastMethod::Broadcast {
            return self.broadcast(now, from, header, payload, host);
        }
        let mss = self.bcast.mss();
        for node in nodes {
            let Some(index) = self.reachable(*node) else {
                continue;
            };
            let mss = mss.min(self.peer(index).and_then(|p| p.link.as_ref()).map_or(mss, |l| l.mss()));
            match self.transmit_cut(now, index, header, payload, mss, host) {
                Ok(Handed::SentCongested) => self.note_congestion(from, *node),
                Err(SendError::Congested) => self.note_starved(from, *node),
                Ok(Handed::Sent) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Sends a message by the broadcast link.
    fn broadcast<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        from: PortId,
        header: &Header,
        payload: &P,
        host: &mut H,
    ) -> Result<(), SendError> {
        let message = Message { header, payload };
        let importance = message.importance();
        let (len, mss) = (message.len(), self.bcast.mss());
        let count = if len > mss { fragment_count(len, mss) } else { 1 };
        if host.frames_free() < count {
            self.note_starved(from, NodeAddr::NONE);
            return Err(SendError::Congested);
        }
        if self.bcast.is_congested(importance) {
            self.note_congestion(from, NodeAddr::NONE);
        }
        let mut ctx = super::Ctx { now, core: &mut self.core, host, bcast_ack: SeqNo(0) };
        if count == 1 {
            let frame = ctx.alloc_written(Reserve::Data, importance, len, |out| message.write(0, out));
            self.bcast.submit(&mut ctx, frame.ok_or(SendError::Congested)?);
            return Ok(());
        }
        self.bcast.count_fragments(count as u32);
        for n in 0..count {
            let (fragment, range) = fragment_of(&message, mss, n, count);
            let frame = ctx.alloc_written(Reserve::Data, importance, size::INT + range.len(), |out| {
                out[..size::INT].copy_from_slice(fragment.as_bytes());
                message.write(range.start, &mut out[size::INT..]);
            });
            self.bcast.submit(&mut ctx, frame.ok_or(SendError::Congested)?);
        }
        Ok(())
    }
}

/// Share of the cluster in percent up to which a multicast goes as copies.
const BROADCAST_RATIO: usize = 10;

/// A message in its two parts.
struct Message<'a, P: ?Sized> {
    header: &'a Header,
    payload: &'a P,
}

impl<P: Payload + ?Sized> Message<'_, P> {
    fn len(&self) -> usize {
        self.header.len() + self.payload.len()
    }

    fn importance(&self) -> Importance {
        let user = self.header.get(field::USER);
        let plain_data = User::from_bits(user).is_data() && self.header.get(field::ERRCODE) == errcode::OK;
        if plain_data { Importance::from_bits(user) } else { Importance::System }
    }

    /// Writes the bytes from `start` on.
    fn write(&self, start: usize, out: &mut [u8]) {
        let header = self.header.as_bytes();
        let from_header = header.len().saturating_sub(start).min(out.len());
        if from_header > 0 {
            out[..from_header].copy_from_slice(&header[start..start + from_header]);
        }
        let rest = &mut out[from_header..];
        if !rest.is_empty() {
            self.payload.copy_to(start + from_header - header.len(), rest);
        }
    }
}

fn fragment_count(len: usize, mss: usize) -> usize {
    len.div_ceil(mss - size::INT)
}

/// Header of fragment `n` of `count`, and the part of the message in it.
fn fragment_of<P: Payload + ?Sized>(
    message: &Message<'_, P>,
    mss: usize,
    n: usize,
    count: usize,
) -> (Header, std::ops::Range<usize>) {
    let piece = mss - size::INT;
    let range = n * piece..((n + 1) * piece).min(message.len());
    let kind = if n == 0 {
        0
    } else if n + 1 < count {
        1
    } else {
        2
    };
    let own = message.header.get(field::PREV_NODE);
    let dest = message.header.get(field::DEST_NODE);
    let mut header = Header::internal(User::MsgFragmenter, kind, own, dest);
    header
        .set(field::FRAGMENT_NO, n as u32 + 1)
        .set(field::INNER_IMPORTANCE, message.importance() as u32)
        .set_payload_len(range.len());
    (header, range)
}
