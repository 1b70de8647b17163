//! Direct channels between the applications of this node (`docs/protocol/channels.md`): made and handed out here, and from
//! then on no affair of the daemon's, which keeps a view of the counts to show them.
//!
//! The engine still has the connection: its end is told by the daemon, whoever ends it and however.

use std::os::fd::AsFd;
use std::sync::Arc;

use xtipc_protocol::addr::PortId;
use xtipc_protocol::connection::{Connection, State, advertised_window};
use xtipc_protocol::engine::Engine;
use xtipc_protocol::host::Incoming;
use xtipc_protocol::port::{MESSAGE_OVERHEAD, Port};
use xtipc_segment::attach::{ChannelOffer, Message, send_message};
use xtipc_segment::channel::{self, ChannelFds, ChannelTraffic, ChannelView, ChannelWait, Side};
use xtipc_segment::{
    ChannelNotice, MESSAGE_LEN_MAX, Request, ServiceAddress, SocketAddress, Submission,
};

use super::application::{Awaited, ChannelUse, Held, Socket, incoming_of_end};
use super::applications::{Applications, Slot};
use super::host::NodeHost;
use super::requests::Answer;
use crate::clock::now_ns;

/// Sockets of one attachment that have a direct channel at most: each costs it two descriptors, and memory of which the
/// other end can make it pay for 2.5 MiB.
const CHANNELS_MAX: usize = 64;

/// A channel that nothing went by for so long may be given up for another one.
const SPARE_NS: u64 = 1_000_000_000;

/// What is known of the channel of a socket.
pub(super) struct Direct {
    view: Arc<ChannelView>,
    side: Side,
    peer: PortId,
    made_ns: u64,
    /// Messages that had gone by it when it was last looked at.
    seen: u64,
    /// Since when no more did.
    idle_since_ns: u64,
}

impl Direct {
    fn new(view: Arc<ChannelView>, side: Side, peer: PortId, made_ns: u64) -> Self {
        Self {
            view,
            side,
            peer,
            made_ns,
            seen: 0,
            idle_since_ns: made_ns,
        }
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
    /// Messages of a socket that its program has not received, and what they cost in its receive buffer; of a direct channel,
    /// too, where they are in none.
    pub(super) fn receive_queue(&self, id: PortId, port: &Port) -> (u64, u64) {
        let traffic = self.channels.get(&id).map(Direct::traffic);
        let ChannelTraffic {
            unread,
            unread_bytes,
            ..
        } = traffic.unwrap_or_default();
        let direct = unread_bytes + u64::from(unread) * u64::from(MESSAGE_OVERHEAD);
        (
            u64::from(port.waiting) + u64::from(unread),
            port.used + direct,
        )
    }
}

/// One end of a connection, and who has it.
struct End {
    slot: Slot,
    port: PortId,
}

/// Whether what a socket sends on its connection could go by a channel.
pub(super) fn may_carry(engine: &Engine, applications: &Applications, port: PortId) -> bool {
    peer_of(engine, applications, port).is_ok()
}

/// Offers both ends of a connection a channel.
pub(super) fn make(engine: &Engine, host: &mut NodeHost, slot: Slot, port: PortId) -> Answer {
    let applications = &mut host.applications;
    let peer = peer_of(engine, applications, port)?;
    let own = End { slot, port };
    check_offer(applications, &own, &peer)?;
    let ([first, second], view) = channel::create().map_err(|_| libc::EAGAIN)?;
    offer(engine, applications, &peer, &own, 1, &second)?;
    offer(engine, applications, &own, &peer, 0, &first)?;
    let view = Arc::new(view);
    let (own_port, peer_port) = (own.port, peer.port);
    for (end, side, peer) in [
        (own, Side::First, peer_port),
        (peer, Side::Second, own_port),
    ] {
        let direct = Direct::new(Arc::clone(&view), side, peer, now_ns());
        applications.channels.insert(end.port, direct);
        let application = applications.get_mut(end.slot).ok_or(libc::EAGAIN)?;
        if let Some(socket) = application.sockets.get_mut(&end.port) {
            socket.channel = ChannelUse::Offered;
        }
        application.tell_of_channel(end.port, ChannelNotice::Made);
    }
    Ok([0; 2])
}

/// What a socket sends goes by its channel from now on.
pub(super) fn switch(engine: &Engine, host: &mut NodeHost, slot: Slot, port: PortId) -> Answer {
    let applications = &mut host.applications;
    let peer = peer_of(engine, applications, port)?;
    let connection = connection_of(engine, port)?;
    let application = applications.get_mut(slot).ok_or(libc::EBADF)?;
    let sends =
        |held: &Held| held.port == port && matches!(held.submission.request, Request::Send { .. });
    if application.held.iter().any(sends)
        || connection.nagle.held_messages() > 0
        || !connection.owed.is_nothing()
    {
        return Err(libc::EAGAIN);
    }
    let socket = application.sockets.get_mut(&port).ok_or(libc::EBADF)?;
    match socket.channel {
        ChannelUse::Offered => socket.channel = ChannelUse::Sends,
        ChannelUse::Leaves => return Err(libc::EAGAIN),
        ChannelUse::None | ChannelUse::Sends => return Err(libc::EINVAL),
    }
    let (unacked, window) = connection.flow.sent();
    let receiver = applications.get_mut(peer.slot).ok_or(libc::EAGAIN)?;
    receiver.tell_of_channel(peer.port, ChannelNotice::Switched { unacked });
    let about = engine.port(port).ok_or(libc::EBADF)?;
    let options = about.importance as u64 | u64::from(about.dest_droppable) << 8;
    Ok([u64::from(window) << 32 | u64::from(unacked), options])
}

/// Has the channels left by which nothing has gone for `long_ns`; 0: none.
pub(super) fn look_for_idle(applications: &mut Applications, now_ns: u64, long_ns: u64) {
    let mut idle = Vec::new();
    for (port, direct) in &mut applications.channels {
        direct.look(now_ns);
        if long_ns > 0 && direct.is_idle(now_ns, long_ns) {
            idle.push([*port, direct.peer]);
        }
    }
    for ends in idle {
        have_left(applications, ends);
    }
}

/// Has both ends leave their channel, unless they have been told, or are no more.
fn have_left(applications: &mut Applications, [one, other]: [PortId; 2]) {
    for (port, peer) in [(one, other), (other, one)] {
        // A number may be another socket's by now.
        let direct = applications.channels.get(&port);
        if direct.is_some_and(|direct| direct.peer == peer)
            && let Some(slot) = applications.owner(port)
            && let Some(application) = applications.get_mut(slot)
            && let Some(socket) = application.sockets.get_mut(&port)
            && matches!(socket.channel, ChannelUse::Offered | ChannelUse::Sends)
        {
            socket.channel = ChannelUse::Leaves;
            application.tell_of_channel(port, ChannelNotice::Idle);
        }
    }
}

/// A socket has left its channel.
pub(super) fn leave(host: &mut NodeHost, slot: Slot, port: PortId) -> Answer {
    let applications = &mut host.applications;
    let application = applications.get_mut(slot).ok_or(libc::EBADF)?;
    let socket = application.sockets.get_mut(&port).ok_or(libc::EBADF)?;
    if socket.channel != ChannelUse::Leaves {
        return Err(libc::EINVAL);
    }
    socket.channel = ChannelUse::None;
    applications.forget_channel(port, Some(slot));
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
    let connection = about.connection().ok_or(libc::EINVAL)?;
    let incoming = Incoming {
        source: connection.peer,
        dest_name: connection.name,
        importance: about.importance,
        returnable: true,
        ..incoming_of_end(0)
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
    if let ChannelUse::Offered | ChannelUse::Sends = channel_use(applications, own)? {
        return Err(libc::EALREADY);
    }
    for end in [own, peer] {
        // It has not left the last one.
        if channel_use(applications, end)? != ChannelUse::None {
            return Err(libc::EAGAIN);
        }
    }
    for end in [own, peer] {
        let application = applications.get(end.slot).ok_or(libc::EAGAIN)?;
        let all = application.sockets.iter();
        let used = all.filter(|(_, socket)| socket.channel != ChannelUse::None);
        if used.clone().count() < CHANNELS_MAX {
            continue;
        }
        let is_leaving = |(_, socket): (&PortId, &Socket)| socket.channel == ChannelUse::Leaves;
        let now_ns = now_ns();
        let spare = used
            .clone()
            .filter_map(|(port, _)| Some((*port, applications.channels.get(port)?)))
            .filter(|(_, direct)| direct.is_idle(now_ns, SPARE_NS))
            .min_by_key(|(_, direct)| direct.idle_since_ns)
            .map(|(port, direct)| [port, direct.peer]);
        if let Some(ends) = spare
            && !used.clone().any(is_leaving)
        {
            have_left(applications, ends);
        }
        return Err(libc::EAGAIN);
    }
    Ok(())
}

fn channel_use(applications: &Applications, end: &End) -> Result<ChannelUse, i32> {
    let application = applications.get(end.slot).ok_or(libc::EAGAIN)?;
    let socket = application.sockets.get(&end.port).ok_or(libc::EAGAIN)?;
    Ok(socket.channel)
}

fn offer(
    engine: &Engine,
    applications: &Applications,
    to: &End,
    peer: &End,
    side: u32,
    fds: &ChannelFds,
) -> Result<(), i32> {
    let window_of = |port| connection_of(engine, port).map(|c| c.flow.sent().1);
    let receive_buffer = engine.port(to.port).map_or(0, |port| port.receive_buffer);
    let name = connection_of(engine, to.port)?.name;
    let offer = Message::Channel(ChannelOffer {
        socket: to.port.0,
        side,
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
    });
    let application = applications.get(to.slot).ok_or(libc::EAGAIN)?;
    // An application that takes nothing off its socket gets no channels.
    send_message(application.connection.as_fd(), &offer, &fds.as_fds()).map_err(|_| libc::EAGAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_says_nonsense_of_its_waiting_shows_no_time_before_the_channel() {
        let ([first, _second], view) = channel::create().expect("memory and pipes");
        let program = channel::Channel::map(first, Side::First, 128).expect("a good channel");
        let direct = Direct::new(Arc::new(view), Side::First, PortId(2), 1000);
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
