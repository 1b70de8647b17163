//! What the engine runs on: frames, transmission, delivery to sockets, notices.
//!
//! The daemon implements [`Host`] over its frame pool, its bearers and the shared memory of its
//! applications; tests implement it over vectors. The engine calls it only from within one of its own
//! inputs and never waits for it.

use crate::addr::{BearerId, MediaAddr, NodeAddr, PortId, SocketAddr};
use crate::frame::{Frame, FrameRef};
use crate::group::MemberNo;
use crate::wire::Importance;

/// Which frames and transmit slots a packet may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// Application data: leaves a reserve untouched.
    Data,
    /// Link protocol, discovery, binding updates: may use the reserve.
    Control,
}

/// Where a packet goes on its bearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaDest {
    /// One station.
    Unicast(MediaAddr),
    /// Everybody on the bearer.
    Broadcast,
}

/// Message bytes that may lie in an application's shared memory: they can be copied, not looked at.
pub trait Payload {
    /// Length in bytes.
    fn len(&self) -> usize;

    /// Copies the `out.len()` bytes from `offset` on.
    fn copy_to(&self, offset: usize, out: &mut [u8]);

    /// True if there are no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<P: Payload + ?Sized> Payload for &P {
    #[inline]
    fn len(&self) -> usize {
        (**self).len()
    }

    #[inline]
    fn copy_to(&self, offset: usize, out: &mut [u8]) {
        (**self).copy_to(offset, out);
    }
}

impl Payload for [u8] {
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    fn copy_to(&self, offset: usize, out: &mut [u8]) {
        out.copy_from_slice(&self[offset..offset + out.len()]);
    }
}

/// The service address or range a message was sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DestName {
    /// Service type.
    pub kind: u32,
    /// Lowest instance.
    pub lower: u32,
    /// Highest instance; equal to `lower` unless the message was a multicast.
    pub upper: u32,
}

/// What a socket is told of a message beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// The sender; of a returned message, the socket that did not take it.
    pub source: SocketAddr,
    /// The service address or range it was sent to, if it was.
    pub dest_name: Option<DestName>,
    /// Importance given by the sender.
    pub importance: Importance,
    /// 0, or why the message, once sent by this socket, comes back. At a socket of a connection type:
    /// why the connection is over; the bytes are those of a message that came back, if one did.
    pub errcode: u8,
    /// What it counts against the receive buffer until [`crate::engine::Engine::on_consumed`].
    pub cost: u32,
    /// The sender wants it back if the socket never takes it.
    pub returnable: bool,
    /// At a socket of a connection type: what is over was never a connection.
    pub refused: bool,
    /// What it means to a member of a group.
    pub group: Option<FromMember>,
}

/// The member of a group that a message came from, or that came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FromMember {
    /// The group.
    pub group: u32,
    /// The member's instance.
    pub instance: u32,
    /// Message or event.
    pub news: MemberNews,
}

/// What came from a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberNews {
    /// A message. The number is to come back by [`crate::engine::Engine::on_group_read`].
    Message(MemberNo),
    /// An event: the member joined. There are no bytes.
    Joined,
    /// An event: the member left. There are no bytes.
    Left,
}

/// News for the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The node's address is final.
    AddressFinal(NodeAddr),
    /// The link over a bearer went up.
    LinkUp(NodeAddr, BearerId),
    /// The link over a bearer went down.
    LinkDown(NodeAddr, DownReason, BearerId),
    /// The last link to a node went down, or the first went up.
    Contact {
        /// The node.
        node: NodeAddr,
        /// True for up.
        up: bool,
    },
    /// A socket that met congestion may send again.
    Writable(PortId),
    /// A socket needs the part of its receive buffer that it has lent.
    Crowded(PortId),
    /// The session key has been in use for long enough: a new one of this many random bytes is to be given to
    /// [`crate::engine::Engine::rekey`].
    RekeyDue(usize),
    /// The counters of encrypted frames come to their end: a new epoch is to be given to
    /// [`crate::engine::Engine::begin_epoch`].
    EpochWanted,
    /// Another node uses this node's address.
    DuplicateAddress(NodeAddr),
    /// A request waits at a listening socket.
    Acceptable(PortId),
    /// The connection that a socket asked for is established.
    Connected(PortId),
    /// Whoever waits for a socket to be connected waits in vain.
    ConnectFailed(PortId, ConnectFailure),
    /// A socket's connection is over. If the reason came in a message, the socket is given that too,
    /// behind all data.
    Disconnected(PortId, Disconnect),
}

/// Why a socket is not connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectFailure {
    /// The request came back with this errcode; the socket is of no more use.
    Refused(u8),
    /// No answer in time. One that still comes connects the socket.
    TimedOut,
}

/// Why a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disconnect {
    /// The peer, or the node for it, said so by this errcode.
    Errcode(u8),
    /// The peer answers no probe.
    Silent,
}

/// Why a link went down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DownReason {
    /// Nothing was heard for the link's tolerance.
    Silence,
    /// Several nodes that watch the peer report it lost.
    Reported,
    /// The peer reset its endpoint.
    PeerReset,
    /// The peer stopped in order.
    PeerStopping,
    /// A packet could not be brought across for ten tolerances.
    RetransmitFailure,
    /// Fragments in an impossible order or of an impossible message.
    Reassembly,
    /// The backlog of protocol messages overflowed.
    Overflow,
    /// The peer changed the link's priority.
    PriorityChange,
    /// The peer announced another media address.
    MediaAddressChange,
    /// The bearer's interface is down, or without carrier.
    Interface,
    /// The bearer or the node stopped.
    Stopped,
    /// The peer had lost it: what it still held comes over another link.
    Failover,
    /// What a lost link held cannot be brought by another one.
    Tunnel,
}

/// What the engine runs on.
pub trait Host {
    /// Frames in the pool; the engine makes its table that large.
    fn frame_count(&self) -> u32;

    /// Frames that application data could take now.
    fn frames_free(&self) -> usize;

    /// Largest packet a frame holds.
    fn frame_room(&self) -> usize;

    /// A frame, or `None` if the pool is exhausted for this use.
    fn alloc(&mut self, reserve: Reserve) -> Option<Frame>;

    /// Gives a frame back; it becomes free once no transmission holds it any more.
    fn free(&mut self, frame: Frame);

    /// The packet bytes of a frame, all of its room.
    fn bytes(&self, frame: FrameRef) -> &[u8];

    /// The same for writing; `None` while a transmission holds the frame.
    fn bytes_mut(&mut self, frame: FrameRef) -> Option<&mut [u8]>;

    /// Sends the first `len` bytes of a frame that a queue keeps. Loss is normal: nothing is told.
    fn transmit(
        &mut self,
        bearer: BearerId,
        to: MediaDest,
        frame: FrameRef,
        len: usize,
        reserve: Reserve,
    );

    /// Hands a message to a socket. The engine has checked the socket's receive limits; the host keeps
    /// the message until the socket takes it.
    fn deliver<P: Payload + ?Sized>(&mut self, to: PortId, about: &Incoming, payload: &P);

    /// The same of messages that differ in nothing but their bytes, and of these not in number.
    fn deliver_all<'a, P: Payload + ?Sized + 'a>(
        &mut self,
        to: PortId,
        about: &Incoming,
        payloads: impl Iterator<Item = &'a P>,
    ) {
        for payload in payloads {
            self.deliver(to, about, payload);
        }
    }

    /// How much is in use of the part of a socket's receive buffer that it has lent: messages that the engine does not see.
    fn lent_in_use(&self, _port: PortId) -> u64 {
        0
    }

    /// The bindings of a service type have changed. Neither a subscriber nor who has asked for that knows of it yet.
    fn on_bindings_changed(&mut self, _kind: u32) {}

    /// Tells the host something.
    fn notice(&mut self, notice: Notice);
}
