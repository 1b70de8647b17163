//! Ports: the sockets of this node as the protocol sees them (`docs/protocol/sockets.md`).

mod mcast_order;

pub use mcast_order::{McastOrder, Ordered, Overdue};

use crate::addr::{NodeAddr, PortId};
use crate::connection::{CONNECT_TIMEOUT_MS, Connection, Role, State};
use crate::group::Group;
use crate::name::{Scope, ServiceRange};
use crate::seqno::SeqNo;
use crate::time::Instant;
use crate::wire::Importance;

/// Type of a socket. The two datagram types differ in one header bit; the two connection types in
/// nothing that the wire shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SocketKind {
    /// SOCK_RDM: reliable datagrams.
    Rdm,
    /// SOCK_DGRAM: the sender may drop at congestion.
    Dgram,
    /// SOCK_SEQPACKET: messages over a connection.
    Seqpacket,
    /// SOCK_STREAM: bytes over a connection.
    Stream,
}

impl SocketKind {
    /// True if sockets of this type connect.
    #[inline]
    pub fn is_connected(self) -> bool {
        matches!(self, Self::Seqpacket | Self::Stream)
    }
}

/// Receive buffer of a new socket in bytes.
pub const RECEIVE_BUFFER_DEFAULT: u32 = 2 << 20;
/// What a message counts beside its bytes: its bookkeeping wherever it waits.
pub const MESSAGE_OVERHEAD: u32 = 512;
/// What a message of so many bytes counts.
#[inline]
pub const fn message_cost(bytes: usize) -> u32 {
    bytes as u32 + MESSAGE_OVERHEAD
}
/// Smallest and largest receive buffer a socket may ask for.
pub const RECEIVE_BUFFER_RANGE: std::ops::RangeInclusive<u32> = 2304..=16 << 20;

/// A binding a socket made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// What is bound.
    pub range: ServiceRange,
    /// How far it is visible.
    pub scope: Scope,
    /// Tells several bindings of the socket apart.
    pub key: u32,
}

/// How a socket's multicasts travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum McastMethod {
    /// By the broadcast link.
    Broadcast,
    /// As copies over the links.
    Replicast,
}

/// A socket.
#[derive(Debug)]
pub struct Port {
    /// Its number.
    pub id: PortId,
    /// Its type.
    pub kind: SocketKind,
    /// Who has it, for the host to say. No message of an owner overtakes what its sockets bound before.
    pub owner: u32,
    /// Importance of what it sends.
    pub importance: Importance,
    /// What it sends is dropped where it cannot be delivered, instead of coming back.
    pub dest_droppable: bool,
    /// What it sends may be dropped at congestion.
    pub src_droppable: bool,
    /// Limit of what waits for it, in bytes; each importance doubles it.
    pub receive_buffer: u32,
    /// Bytes of that for messages which the host takes to it without the engine.
    pub lent: u32,
    /// What waits for it, in bytes.
    pub used: u64,
    /// Messages that wait for it.
    pub waiting: u32,
    /// Messages dropped or sent back since its buffer was full.
    pub overloads: u64,
    /// Its bindings, oldest first.
    pub bindings: Vec<Binding>,
    /// Method of its last multicast.
    pub mcast_method: McastMethod,
    /// Method its owner asked for.
    pub mcast_wanted: Option<McastMethod>,
    /// Restores the order of multicasts that came by both methods.
    pub mcast_order: McastOrder,
    /// What it is as far as connections go.
    pub role: Role,
    /// The group it is a member of.
    pub group: Option<Box<Group>>,
    /// Number of its next broadcast in a group. It goes on from one membership to the next, so that a
    /// late broadcast of an earlier one is not taken for one of the next.
    pub bc_snd_nxt: SeqNo,
    /// How long its connect waits; decides as well how soon a refused request is sent again.
    pub connect_timeout_ms: u16,
    /// A stream that sends every piece at once.
    pub nodelay: bool,
    /// It belongs to the engine itself: what arrives does not go to the host.
    pub inner: bool,
    /// Listed among those whose reading others may wait for.
    pub is_awaited: bool,
    /// When a message of it was refused for the first time since it could send.
    pub refused_at: Option<Instant>,
    bindings_made: u32,
    /// Where its last message met congestion; `NONE` stands for the broadcast link.
    congested: Vec<NodeAddr>,
}

impl Port {
    /// A socket with the defaults of its type.
    pub fn new(id: PortId, kind: SocketKind, receive_buffer: u32) -> Self {
        Self {
            id,
            kind,
            owner: 0,
            importance: Importance::Low,
            dest_droppable: !kind.is_connected(),
            src_droppable: kind == SocketKind::Dgram,
            receive_buffer,
            lent: 0,
            used: 0,
            waiting: 0,
            overloads: 0,
            bindings: Vec::new(),
            // As in Linux, where the first multicast to few nodes therefore is a switch of method.
            mcast_method: McastMethod::Broadcast,
            mcast_wanted: None,
            mcast_order: McastOrder::default(),
            role: Role::Open,
            group: None,
            bc_snd_nxt: SeqNo(0),
            connect_timeout_ms: CONNECT_TIMEOUT_MS,
            nodelay: false,
            inner: false,
            is_awaited: false,
            refused_at: None,
            bindings_made: 0,
            congested: Vec::new(),
        }
    }

    /// Its connection, if it has, seeks or had one.
    #[inline]
    pub fn connection(&self) -> Option<&Connection> {
        match &self.role {
            Role::Connection(connection) => Some(connection),
            Role::Open | Role::Listener(_) => None,
        }
    }

    /// The same, to be changed.
    #[inline]
    pub fn connection_mut(&mut self) -> Option<&mut Connection> {
        match &mut self.role {
            Role::Connection(connection) => Some(connection),
            Role::Open | Role::Listener(_) => None,
        }
    }

    /// True of a datagram socket that is in no group.
    #[inline]
    pub fn exchanges_datagrams(&self) -> bool {
        !self.kind.is_connected() && self.group.is_none()
    }

    /// Counts a message that waits for the socket.
    #[inline]
    pub fn on_waiting(&mut self, cost: u32) {
        self.used += u64::from(cost);
        self.waiting += 1;
    }

    /// So many such messages wait no longer.
    #[inline]
    pub fn on_taken(&mut self, cost: u32, count: u32) {
        self.used = self.used.saturating_sub(u64::from(cost) * u64::from(count));
        self.waiting = self.waiting.saturating_sub(count);
    }

    /// True if a sender may be waiting until what waits here is read: then somebody should soon look what was.
    pub fn reading_matters(&self) -> bool {
        if let Some(connection) = self.connection() {
            return connection.state == State::Established
                && connection.flow.owes_when_read(self.waiting, self.used);
        }
        self.group.is_some() && self.waiting > 0
    }

    /// The key of the next binding, or `None` when the numbers are used up.
    pub fn next_key(&self) -> Option<u32> {
        let key = self.id.0.wrapping_add(self.bindings_made).wrapping_add(1);
        (key != self.id.0).then_some(key)
    }

    /// Notes a binding made with [`Self::next_key`].
    pub fn on_bound(&mut self, range: ServiceRange, scope: Scope, key: u32) {
        self.bindings_made = self.bindings_made.wrapping_add(1);
        self.bindings.push(Binding { range, scope, key });
    }

    /// Whether a message of `cost` bytes finds room. The message's importance counts, not the
    /// socket's; a returned message has the most room of all.
    #[inline]
    pub fn has_room(&self, importance: Importance, cost: u32) -> bool {
        let limit = match &self.group {
            Some(group) => group.receive_limit(),
            None => u64::from(self.receive_buffer) << (importance as u32),
        };
        self.used + self.mcast_order.cost() + u64::from(cost) < limit
    }

    /// True if what waits here and what is lent may be more than messages of low importance find room for.
    #[inline]
    pub fn lends_too_much(&self) -> bool {
        self.used + u64::from(self.lent) > u64::from(self.receive_buffer)
    }

    /// True if a send to this node (`NONE`: a broadcast) has to wait.
    #[inline]
    pub fn is_congested_to(&self, node: NodeAddr) -> bool {
        self.congested.contains(&node)
    }

    /// True if anything the socket sent met congestion that has not abated.
    #[inline]
    pub fn is_congested(&self) -> bool {
        !self.congested.is_empty()
    }

    /// Notes that a message to `node` met congestion.
    pub fn on_congestion(&mut self, node: NodeAddr) {
        if !self.congested.contains(&node) {
            self.congested.push(node);
        }
    }

    /// There is room again somewhere: the next send finds out where.
    pub fn on_abated(&mut self) {
        self.congested.clear();
    }

    /// Where what it sent met congestion; `NONE` stands for the broadcast link.
    pub fn congested(&self) -> &[NodeAddr] {
        &self.congested
    }
}
