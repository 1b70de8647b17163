//! Direct channels between the applications of this node (`docs/protocol/channels.md`): made and handed out here, and from
//! then on no affair of the daemon's, which keeps a view of the counts to show them.
//!
//! The engine still has the connection: its end is told by the daemon, whoever ends it and however.

mod datagrams;

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::Arc;

use xtipc_protocol::addr::PortId;
use xtipc_protocol::connection::{Connection, State, advertised_window};
use xtipc_protocol::engine::Engine;
use xtipc_protocol::host::Incoming;
use xtipc_protocol::port::{MESSAGE_OVERHEAD, Port};
use xtipc_segment::attach::{ChannelOffer, Message, send_message};
use xtipc_segment::board::Board;
use xtipc_segment::channel::{self, ChannelFds, ChannelTraffic, ChannelView, ChannelWait, Side};
use xtipc_segment::{
    ChannelNotice, Destination, MESSAGE_LEN_MAX, Request, ServiceAddress, SocketAddress, Submission,
};

pub(super) use datagrams::{end_all, have_return, may_carry_to, note_receive_buffer};

use super::application::{Awaited, Held, incoming_of_end};
use super::applications::{Applications, Slot};
use super::connections::is_connected_kind;
use super::host::NodeHost;
use super::requests::Answer;
use crate::clock::now_ns;

/// Channels that end at one attachment, at most: each costs it two descriptors, and memory of which the other end can make
/// it pay for 2.5 MiB.
const CHANNELS_MAX: usize = 64;

/// A channel that nothing went by for so long may be given up for another one.
const SPARE_NS: u64 = 1_000_000_000;

/// All channels, seen from both ends: by the socket and its peer.
pub(super) type Channels = BTreeMap<(PortId, PortId), Direct>;

/// What is known of the channel of a socket.
pub(super) struct Direct {
    view: Arc<ChannelView>,
    side: Side,
    /// The peer's address, by which notices tell the channel from others of datagrams. Port 0: it is that of a connection.
    told_as: SocketAddress,
    state: ChannelState,
    made_ns: u64,
    /// Messages that had gone by it when it was last looked at.
    seen: u64,
    /// Since when no more did.
    idle_since_ns: u64,
}

/// How far the socket is with its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChannelState {
    /// It was offered one.
    Offered,
    /// It sends by it.
    Sends,
    /// It was told to leave it.
    Leaves,
    /// It has left one of datagrams, but the peer has not.
    Left,
}

impl Direct {
    fn new(view: &Arc<ChannelView>, side: Side, told_as: SocketAddress, made_ns: u64) -> Self {
        Self {
            view: Arc::clone(view),
            side,
            told_as,
            state: ChannelState::Offered,
            made_ns,
            seen: 0,
            idle_since_ns: made_ns,
        }
    }

    fn carries_datagrams(&self) -> bool {
        self.told_as.port != 0
    }

    /// Notes whether something has gone by it since the last look.
    fn look(&mut self, now_ns: u64) {
        let traffic = self.traffic();
        let seen = traffic.sent.wrapping_add(traffic.received);
        if seen != self.seen {
            self.seen = seen;
            self.idle_since_ns = now_ns;
        }
    }

    /// Whether nothing went by it for so long, and nothing waits in it.
    fn is_idle(&self, now_ns: u64, long_ns: u64) -> bool {
        now_ns.saturating_sub(self.idle_since_ns) >= long_ns
            && self.traffic().unread == 0
            && self.unread_by_peer() == 0
    }

    /// What went by it.
    pub(super) fn traffic(&self) -> ChannelTraffic {
        self.view.traffic(self.side)
    }

    /// Of what went by it, what the program at the other end has not received.
    pub(super) fn unread_by_peer(&self) -> u32 {
        self.view.traffic(self.side.other()).unread
    }

    /// How its program says that it waits to send by it. No time is before there was a channel.
    pub(super) fn wait(&self) -> ChannelWait {
        let told = self.view.wait(self.side);
        let checked = |since: u64| match since {
            0 => 0,
            since => since.max(self.made_ns),
        };
        ChannelWait {
            refused_since: checked(told.refused_since),
            calls: told.calls,
            calls_since: checked(told.calls_since),
        }
    }
}

impl Applications {
    /// The channels of a socket, and their other ends: of a connection one at most.
    pub(super) fn channels_of(
        &self,
        port: PortId,
    ) -> impl DoubleEndedIterator<Item = (PortId, &Direct)> + Clone {
        let all = (port, PortId(0))..=(port, PortId(u32::MAX));
        let all = self.channels.range(all);
        all.map(|(&(_, peer), direct)| (peer, direct))
    }

    /// Messages of a socket that its program has not received, and what they cost in its receive buffer; of direct channels,
    /// too, where they are in none.
    pub(super) fn receive_queue(&self, id: PortId, port: &Port) -> (u64, u64) {
        let mut queue = (u64::from(port.waiting), port.used);
        for (_, direct) in self.channels_of(id) {
            let traffic = direct.traffic();
            queue.0 += u64::from(traffic.unread);
            queue.1 = queue.1.saturating_add(cost_of_unread(&traffic));
        }
        queue
    }

    /// Takes note that a socket has no such channel any more, but what went by it counts.
    pub(super) fn remove_channel(&mut self, port: PortId, peer: PortId, owner: Option<Slot>) {
        if let Some(direct) = self.channels.remove(&(port, peer))
            && let Some(application) = owner.and_then(|slot| self.get_mut(slot))
        {
            application.sent_directly += direct.traffic().sent;
        }
    }

    /// Tells a socket of one of its channels.
    fn tell_of_channel(&mut self, port: PortId, told_as: SocketAddress, notice: ChannelNotice) {
        if let Some(slot) = self.owner(port)
            && let Some(application) = self.get_mut(slot)
        {
            application.tell_of_channel(port, told_as, notice);
        }
    }
}

/// What the unread messages of a channel count in the receive buffer.
fn cost_of_unread(traffic: &ChannelTraffic) -> u64 {
    let overhead = u64::from(traffic.unread) * u64::from(MESSAGE_OVERHEAD);
    traffic.unread_bytes.saturating_add(overhead)
}

/// One end of a channel, and who has it.
struct End {
    slot: Slot,
    port: PortId,
}

/// Whether what a socket sends on its connection could go by a channel.
pub(super) fn may_carry(engine: &Engine, applications: &Applications, port: PortId) -> bool {
    peer_of(engine, applications, port).is_ok()
}

/// Offers both ends a channel. Of datagrams the destination decides on the other end.
pub(super) fn make(
    engine: &mut Engine,
    host: &mut NodeHost,
    slot: Slot,
    port: PortId,
    destination: Option<Destination>,
) -> Answer {
    let applications = &mut host.applications;
    if !is_connected_kind(engine, port) {
        return datagrams::make(engine, applications, slot, port, destination);
    }
    let peer = peer_of(engine, applications, port)?;
    let own = End { slot, port };
    check_offer(applications, &own, &peer)?;
    let offers = [
        offer_to(engine, &own, &peer)?,
        offer_to(engine, &peer, &own)?,
    ];
    let no_names = [SocketAddress::default(); 2];
    hand_out(applications, [&own, &peer], offers, no_names)?;
    Ok([0; 2])
}

/// Makes a channel, and tells both ends of it. `told_as`: for each the address of the other end.
fn hand_out(
    applications: &mut Applications,
    [own, peer]: [&End; 2],
    [first_offer, second_offer]: [ChannelOffer; 2],
    [to_own, to_peer]: [SocketAddress; 2],
) -> Result<(), i32> {
    let ([first, second], view) = channel::create().map_err(|_| libc::EAGAIN)?;
    offer(applications, peer, Side::Second, second_offer, &second)?;
    offer(applications, own, Side::First, first_offer, &first)?;
    let view = Arc::new(view);
    for (end, other, side, told_as) in [
        (own, peer, Side::First, to_own),
        (peer, own, Side::Second, to_peer),
    ] {
        let direct = Direct::new(&view, side, told_as, now_ns());
        let channel = (end.port, other.port);
        applications.channels.insert(channel, direct);
        applications.tell_of_channel(end.port, told_as, ChannelNotice::Made);
    }
    Ok(())
}

/// What a socket sends goes by its channel from now on: that of its connection, or that to this peer.
pub(super) fn switch(
    engine: &Engine,
    host: &mut NodeHost,
    slot: Slot,
    port: PortId,
    to: PortId,
) -> Answer {
    let applications = &mut host.applications;
    let application = applications.get(slot).ok_or(libc::EBADF)?;
    let sends =
        |held: &Held| held.port == port && matches!(held.submission.request, Request::Send { .. });
    if application.held.iter().any(sends) {
        return Err(libc::EAGAIN);
    }
    if to != PortId(0) {
        return datagrams::switch(engine, applications, port, to);
    }
    let peer = peer_of(engine, applications, port)?;
    let connection = connection_of(engine, port)?;
    if connection.nagle.held_messages() > 0 || !connection.owed.is_nothing() {
        return Err(libc::EAGAIN);
    }
    let direct = applications.channels.get_mut(&(port, peer.port));
    let direct = direct.ok_or(libc::EINVAL)?;
    match direct.state {
        ChannelState::Offered => direct.state = ChannelState::Sends,
        ChannelState::Leaves => return Err(libc::EAGAIN),
        ChannelState::Sends | ChannelState::Left => return Err(libc::EINVAL),
    }
    let (unacked, window) = connection.flow.sent();
    let switched = ChannelNotice::Switched { unacked };
    applications.tell_of_channel(peer.port, SocketAddress::default(), switched);
    let about = engine.port(port).ok_or(libc::EBADF)?;
    let flow = u64::from(window) << 32 | u64::from(unacked);
    Ok([flow, options_of(about)])
}

/// What the library has to know of a socket that sends by a channel.
fn options_of(port: &Port) -> u64 {
    port.importance as u64 | u64::from(port.dest_droppable) << 8
}

/// Has the channels left by which nothing has gone for `long_ns`; 0: none.
pub(super) fn look_for_idle(applications: &mut Applications, now_ns: u64, long_ns: u64) {
    let mut idle = Vec::new();
    for (ends, direct) in &mut applications.channels {
        direct.look(now_ns);
        if long_ns > 0 && direct.is_idle(now_ns, long_ns) {
            idle.push(*ends);
        }
    }
    for ends in idle {
        have_left(applications, ends);
    }
}

/// Has both ends leave their channel, unless they have been told, or are no more.
fn have_left(applications: &mut Applications, (one, other): (PortId, PortId)) {
    for ends in [(one, other), (other, one)] {
        if let Some(direct) = applications.channels.get_mut(&ends)
            && matches!(direct.state, ChannelState::Offered | ChannelState::Sends)
        {
            direct.state = ChannelState::Leaves;
            let told_as = direct.told_as;
            applications.tell_of_channel(ends.0, told_as, ChannelNotice::Idle);
        }
    }
}

/// A socket has left its channel.
pub(super) fn leave(
    host: &mut NodeHost,
    slot: Slot,
    port: PortId,
    peer: PortId,
    at_once: bool,
) -> Answer {
    let applications = &mut host.applications;
    if peer != PortId(0) {
        return datagrams::leave(applications, port, peer, at_once);
    }
    let (peer, direct) = applications.channels_of(port).next().ok_or(libc::EINVAL)?;
    if direct.state != ChannelState::Leaves || direct.carries_datagrams() {
        return Err(libc::EINVAL);
    }
    applications.remove_channel(port, peer, Some(slot));
    Ok([0; 2])
}

/// Delivers again what came by the channel and was not read: it is in no receive buffer, but goes back to the peer if it is
/// never read.
pub(super) fn put_back(
    engine: &Engine,
    host: &mut NodeHost,
    slot: Slot,
    port: PortId,
    submission: &Submission,
) -> Answer {
    let about = engine.port(port).ok_or(libc::EBADF)?;
    let incoming = match (about.connection(), submission.request) {
        (Some(connection), _) => Incoming {
            source: connection.peer,
            dest_name: connection.name,
            importance: about.importance,
            returnable: true,
            ..incoming_of_end(0)
        },
        (
            None,
            Request::PutBack {
                source, envelope, ..
            },
        ) if !about.kind.is_connected() => datagrams::incoming_again(source, &envelope),
        _ => return Err(libc::EINVAL),
    };
    let at_ns = host.applications.round_ns;
    let application = host.applications.get_mut(slot).ok_or(libc::EBADF)?;
    let payload = application.side.payload(submission);
    if payload.len() > MESSAGE_LEN_MAX {
        return Err(libc::EMSGSIZE);
    }
    let mut bytes = vec![0; payload.len()];
    payload.copy_to(0, &mut bytes);
    let delivered = application.hand_over(port, &incoming, &bytes, at_ns, Awaited::No);
    delivered.map(|()| [0; 2]).map_err(|_| libc::EAGAIN)
}

/// The other end of an established connection between sockets of applications of this node, neither of them shared or with a descriptor.
fn peer_of(engine: &Engine, applications: &Applications, port: PortId) -> Result<End, i32> {
    let connection = connection_of(engine, port)?;
    let peer = connection.peer;
    if peer.node != engine.own_addr() || peer.port == port {
        return Err(libc::EOPNOTSUPP);
    }
    let back = connection_of(engine, peer.port)?;
    if back.peer.port != port || !connection.flow.counts_blocks() {
        return Err(libc::EOPNOTSUPP);
    }
    for end in [port, peer.port] {
        let described = applications.shared.handles.has_descriptor(end);
        if described || applications.shared.holders(end).is_some() {
            return Err(libc::EOPNOTSUPP);
        }
    }
    let slot = applications.owner(peer.port).ok_or(libc::EOPNOTSUPP)?;
    let port = peer.port;
    Ok(End { slot, port })
}

fn connection_of(engine: &Engine, port: PortId) -> Result<&Connection, i32> {
    let connection = engine.port(port).and_then(|port| port.connection());
    connection
        .filter(|connection| connection.state == State::Established)
        .ok_or(libc::EOPNOTSUPP)
}

/// Whether a channel can be made; of an end that has too many, the one that was idle the longest is given up for that.
fn check_offer(applications: &mut Applications, own: &End, peer: &End) -> Result<(), i32> {
    let state = |one: &End, other: &End| {
        let direct = applications.channels.get(&(one.port, other.port));
        direct.map(|direct| direct.state)
    };
    if let Some(ChannelState::Offered | ChannelState::Sends) = state(own, peer) {
        return Err(libc::EALREADY);
    }
    // It has not left the last one.
    if state(own, peer).or(state(peer, own)).is_some() {
        return Err(libc::EAGAIN);
    }
    for end in [own, peer] {
        let is_of_end = |ends: &(PortId, PortId)| applications.owner(ends.0) == Some(end.slot);
        let used = applications
            .channels
            .iter()
            .filter(|(ends, _)| is_of_end(ends));
        if used.clone().count() < CHANNELS_MAX {
            continue;
        }
        let is_leaving =
            |direct: &Direct| matches!(direct.state, ChannelState::Leaves | ChannelState::Left);
        let now_ns = now_ns();
        let spare = used
            .clone()
            .filter(|(_, direct)| direct.is_idle(now_ns, SPARE_NS))
            .min_by_key(|(_, direct)| direct.idle_since_ns);
        if let Some((&ends, _)) = spare
            && !used.clone().any(|(_, direct)| is_leaving(direct))
        {
            have_left(applications, ends);
        }
        return Err(libc::EAGAIN);
    }
    Ok(())
}

/// What an end of a connection is to know of its channel.
fn offer_to(engine: &Engine, to: &End, peer: &End) -> Result<ChannelOffer, i32> {
    let window_of = |port| connection_of(engine, port).map(|c| c.flow.sent().1);
    let receive_buffer = engine.port(to.port).map_or(0, |port| port.receive_buffer);
    let name = connection_of(engine, to.port)?.name;
    Ok(ChannelOffer {
        socket: to.port.0,
        side: 0,
        receive_window: window_of(peer.port)?.into(),
        next_window: advertised_window(receive_buffer).into(),
        peer: SocketAddress {
            port: peer.port.0,
            node: engine.own_addr().0,
        },
        name: name.map(|name| ServiceAddress {
            type_: name.kind,
            instance: name.lower,
        }),
    })
}

fn offer(
    applications: &Applications,
    to: &End,
    side: Side,
    offer: ChannelOffer,
    fds: &ChannelFds,
) -> Result<(), i32> {
    let side = side as u32;
    let offer = Message::Channel(ChannelOffer { side, ..offer });
    let application = applications.get(to.slot).ok_or(libc::EAGAIN)?;
    let mut fds = fds.as_fds().to_vec();
    fds.extend(applications.board.as_ref().map(Board::as_fd));
    // An application that takes nothing off its socket gets no channels.
    send_message(application.connection.as_fd(), &offer, &fds).map_err(|_| libc::EAGAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_says_nonsense_of_its_waiting_shows_no_time_before_the_channel() {
        let ([first, _second], view) = channel::create().expect("memory and pipes");
        let program = channel::Channel::map(first, Side::First, 128).expect("a good channel");
        let direct = Direct::new(&Arc::new(view), Side::First, SocketAddress::default(), 1000);
        assert_eq!(direct.wait(), ChannelWait::default());
        for (told, shown) in [(1, 1000), (999, 1000), (1001, 1001), (u64::MAX, u64::MAX)] {
            let wait = |since| ChannelWait {
                refused_since: since,
                calls: u32::MAX,
                calls_since: since,
            };
            program.sender.show(wait(told));
            assert_eq!(direct.wait(), wait(shown));
        }
    }
}
