//! Members of communication groups. Semantics as in `docs/protocol/groups.md`.

use std::fmt;
use std::time::{Duration, Instant};

use xtipc_segment::{
    DeliveryFlags, Destination, GroupFlags, Request, Scope, ServiceAddress, ServiceRange,
    SocketAddress, SocketKind,
};

use crate::datagram::check_bindable;
use crate::{Datagram, Error, Message, Node, Result};

/// A member of a group: a service type whose bound sockets know each other.
///
/// What one member sends arrives at each other in the order sent, whatever the way of sending, and nothing is sent
/// that a member has no room for: a send waits for the members it goes to, as [`Datagram::set_write_timeout`] and
/// [`Datagram::set_nonblocking`] of [`Group::socket`] say. Dropped, it leaves the group.
#[derive(Debug)]
pub struct Group {
    socket: Datagram,
    address: ServiceAddress,
}

/// How to join a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joining {
    /// Type of the socket: RDM or DGRAM.
    pub kind: SocketKind,
    /// Whether members on other nodes belong to it.
    pub scope: Scope,
    /// Whether own messages come back to this member too, where they are addressed to it.
    pub loopback: bool,
    /// Whether to be told who is there, joins and leaves.
    pub events: bool,
}

impl Default for Joining {
    /// In the whole cluster, told of the others, without own messages.
    fn default() -> Self {
        Self {
            kind: SocketKind::Rdm,
            scope: Scope::Cluster,
            loopback: false,
            events: true,
        }
    }
}

/// A member of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// Its socket.
    pub socket: SocketAddress,
    /// The group and its instance. Several members may have the same.
    pub address: ServiceAddress,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.address, self.socket)
    }
}

/// What a member receives.
#[derive(Debug)]
pub enum GroupEvent {
    /// A message.
    Message {
        /// The member that sent it.
        from: Member,
        /// The message.
        message: Message,
    },
    /// A member is there. Its messages follow.
    Joined(Member),
    /// A member is gone. All its messages came before.
    Left(Member),
}

impl Group {
    /// Joins a group. The other members are reported as they become known, if events are wanted; until then they
    /// cannot be sent to.
    pub fn join(node: &Node, address: ServiceAddress, joining: Joining) -> Result<Self> {
        let range = check_bindable(ServiceRange {
            type_: address.type_,
            lower: address.instance,
            upper: address.instance,
        })?;
        let socket = Datagram::open(node, joining.kind)?;
        let mut flags = GroupFlags::empty();
        flags.set(GroupFlags::LOOPBACK, joining.loopback);
        flags.set(GroupFlags::MEMBER_EVENTS, joining.events);
        let scope = joining.scope;
        let request = Request::JoinGroup {
            address,
            scope,
            flags,
        };
        socket.call(request)?.map_err(|result| match -result {
            libc::EINVAL => Error::TooManyBindings(range),
            libc::ENOMEM => Error::TooManySubscriptions(range),
            _ => Error::from_result(result),
        })?;
        Ok(Self { socket, address })
    }

    /// Leaves the group. Messages of this member that were sent still arrive before the others hear that it left.
    pub fn leave(self) -> Result<()> {
        self.socket
            .call(Request::LeaveGroup)?
            .map_err(Error::from_result)?;
        Ok(())
    }

    /// The group and this member's instance.
    pub fn address(&self) -> ServiceAddress {
        self.address
    }

    /// This member's socket address.
    pub fn local_addr(&self) -> Result<SocketAddress> {
        self.socket.local_addr()
    }

    /// The socket, for its options and its descriptor. Messages are better received by [`Group::recv`], which tells
    /// them from events.
    pub fn socket(&self) -> &Datagram {
        &self.socket
    }

    /// Sends to all members. Waits until each of them has room.
    pub fn broadcast(&self, payload: &[u8]) -> Result<()> {
        self.send(payload, None)
    }

    /// Sends to all members with this instance.
    pub fn multicast(&self, payload: &[u8], instance: u32) -> Result<()> {
        let to = ServiceRange {
            type_: self.address.type_,
            lower: instance,
            upper: instance,
        };
        self.send(payload, Some(Destination::Multicast(to)))
    }

    /// Sends to one of the members with this instance: to one that has room.
    pub fn anycast(&self, payload: &[u8], instance: u32) -> Result<()> {
        let address = ServiceAddress {
            type_: self.address.type_,
            instance,
        };
        let to = Destination::Service { address, domain: 0 };
        self.send(payload, Some(to))
    }

    /// Sends to one member.
    pub fn send_to(&self, payload: &[u8], member: SocketAddress) -> Result<()> {
        self.send(payload, Some(Destination::Socket(member)))
    }

    /// Receives the next message or event, in the order in which a member's came; waits for it as
    /// [`Datagram::set_read_timeout`] and [`Datagram::set_nonblocking`] of [`Group::socket`] say.
    pub fn recv(&self) -> Result<GroupEvent> {
        self.next(Datagram::recv)
    }

    /// The same, waiting at most so long.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<GroupEvent> {
        self.next(|socket| socket.recv_timeout(timeout))
    }

    /// The same, spinning until then; [`Error::TimedOut`] if nothing came. Never sleeps.
    pub fn recv_spin(&self, until: Instant) -> Result<GroupEvent> {
        self.next(|socket| socket.recv_spin(until))
    }

    /// The next message or event if one is there; else [`Error::WouldBlock`].
    pub fn try_recv(&self) -> Result<GroupEvent> {
        self.next(Datagram::try_recv)
    }

    /// What came before the socket was in the group is passed over.
    fn next(&self, receive: impl Fn(&Datagram) -> Result<Message>) -> Result<GroupEvent> {
        loop {
            let message = receive(&self.socket)?;
            let Some(from) = message.member() else {
                continue;
            };
            let flags = message.flags();
            return Ok(if flags.contains(DeliveryFlags::JOINED) {
                GroupEvent::Joined(from)
            } else if flags.contains(DeliveryFlags::LEFT) {
                GroupEvent::Left(from)
            } else {
                GroupEvent::Message { from, message }
            });
        }
    }

    fn send(&self, payload: &[u8], to: Option<Destination>) -> Result<()> {
        let sent = self.socket.send_message(payload, to);
        sent.map_err(|error| match error {
            Error::Unreachable { .. } | Error::DefaultUnreachable => Error::NoMember {
                group: self.address.type_,
            },
            other => other,
        })
    }
}
