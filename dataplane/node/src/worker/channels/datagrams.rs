//! Channels of datagrams: between two sockets that exchange them, one for each pair.
//!
//! How much may be unread in the channels of a socket is lent of its receive buffer: half of it, divided among them. What
//! the daemon delivers counts what is in them; once it holds the other half itself, senders return to the daemon, which
//! refuses by the rules.

use xtipc_protocol::addr::{self, NodeAddr, PortId};
use xtipc_protocol::engine::Engine;
use xtipc_protocol::host::{DestName, Incoming};
use xtipc_protocol::port::{MESSAGE_OVERHEAD, Port};
use xtipc_protocol::wire::Importance;
use xtipc_segment::attach::ChannelOffer;
use xtipc_segment::board::Board;
use xtipc_segment::channel::{DATAGRAM_OVERHEAD, Envelope};
use xtipc_segment::{ChannelNotice, Destination, SocketAddress, address_value};

use super::{ChannelState, End, check_offer, cost_of_unread, hand_out, options_of};
use crate::worker::application::{Role, incoming_of_end};
use crate::worker::applications::{Applications, Slot};
use crate::worker::requests::Answer;

const _: () = assert!(DATAGRAM_OVERHEAD == MESSAGE_OVERHEAD);

/// Offers a socket and the one that it sends to a channel, if they have none.
pub(super) fn make(
    engine: &mut Engine,
    applications: &mut Applications,
    slot: Slot,
    port: PortId,
    destination: Option<Destination>,
) -> Answer {
    let destination = destination.ok_or(libc::EOPNOTSUPP)?;
    let peer = peer_of(engine, applications, port, destination)?;
    if engine.own_addr() == NodeAddr::NONE {
        return Err(libc::EAGAIN);
    }
    let own = End { slot, port };
    let [own_address, peer_address] = [&own, &peer].map(|end| SocketAddress {
        port: end.port.0,
        node: engine.own_addr().0,
    });
    match check_offer(applications, &own, &peer) {
        Ok(()) => {
            if applications.board.is_none() {
                applications.board = Some(Board::create().map_err(|_| libc::EAGAIN)?);
            }
            let offers = [(&own, peer_address), (&peer, own_address)].map(offer_to);
            let told_as = [peer_address, own_address];
            hand_out(applications, [&own, &peer], offers, told_as)?;
            for receiver in [own.port, peer.port] {
                divide(engine, applications, receiver);
            }
        }
        Err(libc::EALREADY) => {}
        Err(errno) => return Err(errno),
    }
    let generation = match (destination, &applications.board) {
        (Destination::Service { address, .. }, Some(board)) => board.generation(address.type_),
        _ => 0,
    };
    let peer_address = address_value(peer_address.port, peer_address.node);
    Ok([peer_address, generation.into()])
}

/// Nothing of datagrams is acknowledged.
fn offer_to((to, peer): (&End, SocketAddress)) -> ChannelOffer {
    ChannelOffer {
        socket: to.port.0,
        side: 0,
        receive_window: u32::MAX,
        next_window: u32::MAX,
        peer,
        name: None,
    }
}

/// A socket has one channel more: what it lends is less for each, where their number passes a power of two.
fn divide(engine: &mut Engine, applications: &mut Applications, receiver: PortId) {
    if let Some(port) = engine.port_mut(receiver) {
        port.lent = port.receive_buffer / 2;
    }
    let count = applications.channels_of(receiver).count();
    if (count - 1).is_power_of_two() {
        have_return(applications, receiver);
    }
}

/// How much each channel of a socket may hold.
fn credit(applications: &Applications, port: &Port) -> u64 {
    let channels = applications.channels_of(port.id).count();
    u64::from(port.lent) / channels.next_power_of_two() as u64
}

/// Has all who send to a socket by channels return to the daemon, for a while at least.
pub(in crate::worker) fn have_return(applications: &mut Applications, receiver: PortId) {
    let peers: Vec<PortId> = applications
        .channels_of(receiver)
        .map(|(peer, _)| peer)
        .collect();
    for sender in peers {
        if let Some(direct) = applications.channels.get_mut(&(sender, receiver))
            && direct.carries_datagrams()
            && direct.state == ChannelState::Sends
        {
            direct.state = ChannelState::Offered;
            let told_as = direct.told_as;
            applications.tell_of_channel(sender, told_as, ChannelNotice::Return);
        }
    }
}

/// The receive buffer of a socket has another size.
pub(in crate::worker) fn note_receive_buffer(
    engine: &mut Engine,
    applications: &mut Applications,
    receiver: PortId,
) {
    if let Some(port) = engine.port_mut(receiver)
        && port.lent > 0
    {
        port.lent = port.receive_buffer / 2;
        have_return(applications, receiver);
    }
}

impl Applications {
    /// What is in the channels to a socket and not read, of what it lends them.
    pub(in crate::worker) fn lent_in_use(&self, receiver: PortId) -> u64 {
        let channels = self.channels_of(receiver);
        let costs = channels.map(|(_, direct)| cost_of_unread(&direct.traffic()));
        costs.fold(0, u64::saturating_add)
    }
}

/// What a socket sends to this peer goes by their channel from now on.
pub(super) fn switch(
    engine: &Engine,
    applications: &mut Applications,
    port: PortId,
    peer: PortId,
) -> Answer {
    let (sender, receiver) = (engine.port(port), engine.port(peer));
    let (sender, receiver) = (sender.ok_or(libc::EBADF)?, receiver.ok_or(libc::EAGAIN)?);
    let credit = credit(applications, receiver);
    let direct = applications.channels.get_mut(&(port, peer));
    let direct = direct.ok_or(libc::EINVAL)?;
    if matches!(direct.state, ChannelState::Leaves | ChannelState::Left)
        || receiver.lends_too_much()
        || sender.group.is_some()
        || receiver.group.is_some()
    {
        return Err(libc::EAGAIN);
    }
    direct.state = ChannelState::Sends;
    let back = applications.channels.get(&(peer, port));
    let told_as = back.ok_or(libc::EAGAIN)?.told_as;
    let switched = ChannelNotice::Switched { unacked: 0 };
    applications.tell_of_channel(peer, told_as, switched);
    Ok([credit, options_of(sender)])
}

/// A socket sends nothing more by a channel. When the peer does not either, both let go of it.
pub(super) fn leave(
    applications: &mut Applications,
    port: PortId,
    peer: PortId,
    at_once: bool,
) -> Answer {
    let direct = applications.channels.get_mut(&(port, peer));
    let direct = direct.ok_or(libc::EINVAL)?;
    if at_once {
        end(applications, port, peer, ChannelNotice::Ended);
        return Ok([0; 2]);
    }
    if direct.state != ChannelState::Leaves {
        return Err(libc::EINVAL);
    }
    direct.state = ChannelState::Left;
    let told_as = direct.told_as;
    let back = applications.channels.get(&(peer, port));
    if back.is_none_or(|direct| direct.state == ChannelState::Left) {
        end(applications, port, peer, ChannelNotice::Left);
        applications.tell_of_channel(port, told_as, ChannelNotice::Left);
    }
    Ok([0; 2])
}

/// A socket has no channels of datagrams any more: it is closed, or is going to be shared.
pub(in crate::worker) fn end_all(
    applications: &mut Applications,
    port: PortId,
    notice: ChannelNotice,
) {
    let channels = applications.channels_of(port);
    let of_datagrams = channels.filter(|(_, direct)| direct.carries_datagrams());
    let peers: Vec<PortId> = of_datagrams.map(|(peer, _)| peer).collect();
    for peer in peers {
        end(applications, port, peer, notice);
    }
}

/// Forgets a channel, and tells the other end.
fn end(applications: &mut Applications, port: PortId, peer: PortId, notice: ChannelNotice) {
    let back = applications.channels.get(&(peer, port));
    let told_as = back.map(|direct| direct.told_as);
    for (of, to) in [(port, peer), (peer, port)] {
        let owner = applications.owner(of);
        applications.remove_channel(of, to, owner);
    }
    if let Some(told_as) = told_as {
        applications.tell_of_channel(peer, told_as, notice);
    }
}

/// Whether what a socket sends to a destination could go by a channel.
pub(in crate::worker) fn may_carry_to(
    engine: &Engine,
    applications: &Applications,
    port: PortId,
    destination: Destination,
) -> bool {
    peer_of(engine, applications, port, destination).is_ok()
}

/// The one socket of this node that gets what a socket sends to a destination, neither of them shared or with a descriptor.
fn peer_of(
    engine: &Engine,
    applications: &Applications,
    port: PortId,
    destination: Destination,
) -> Result<End, i32> {
    let is_here = |node| node == engine.own_addr().0 || node == NodeAddr::NONE.0;
    let peer = match destination {
        Destination::Socket(SocketAddress { port, node }) if is_here(node) => PortId(port),
        // Bindings come and go.
        Destination::Service { address, domain } if is_here(domain) => {
            let sole = engine.sole_socket(address.type_, address.instance);
            let sole = sole.filter(|socket| is_here(socket.node.0));
            sole.ok_or(libc::EAGAIN)?.port
        }
        _ => return Err(libc::EOPNOTSUPP),
    };
    if peer == port {
        return Err(libc::EOPNOTSUPP);
    }
    for end in [port, peer] {
        let about = engine.port(end).ok_or(libc::EAGAIN)?;
        if about.kind.is_connected() || about.inner {
            return Err(libc::EOPNOTSUPP);
        }
        if about.group.is_some() {
            return Err(libc::EAGAIN);
        }
        let described = applications.shared.handles.has_descriptor(end);
        if described || applications.shared.holders(end).is_some() {
            return Err(libc::EOPNOTSUPP);
        }
    }
    let slot = applications.owner(peer).ok_or(libc::EOPNOTSUPP)?;
    let application = applications.get(slot).ok_or(libc::EOPNOTSUPP)?;
    let socket = application.sockets.get(&peer);
    match socket.map(|socket| socket.role) {
        Some(Role::Datagram) => Ok(End { slot, port: peer }),
        _ => Err(libc::EOPNOTSUPP),
    }
}

/// A datagram that had come by a channel.
pub(super) fn incoming_again(source: SocketAddress, envelope: &Envelope) -> Incoming {
    Incoming {
        source: addr::SocketAddr {
            port: PortId(source.port),
            node: NodeAddr(source.node),
        },
        dest_name: envelope.name.map(|name| DestName {
            kind: name.type_,
            lower: name.instance,
            upper: name.instance,
        }),
        importance: Importance::from_bits(envelope.importance as u32),
        returnable: !envelope.droppable,
        ..incoming_of_end(0)
    }
}
