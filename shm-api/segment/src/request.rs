//! What an application asks of the daemon, and the answer: entries of the submission and completion rings.
//!
//! Every submission is answered by exactly one completion with its tag, also [`Request::Cancel`] itself. A send's
//! payload belongs to the daemon until then. Results are 0 or a negative errno.
//!
//! ```text
//! submission, 8 words                              completion, 4 words
//!   0  opcode:8 kind:8 flags:16 socket:32            0  tag
//!   1  tag                                           1  result (i32) in the low half
//!   2  a:32 b:32                                     2  first value
//!   3  c:32 d:32                                     3  second value
//!   4  payload offset:32 length:32
//!   5..7  zero
//! ```

use bitflags::bitflags;

use crate::address::{
    Destination, Importance, Scope, ServiceAddress, ServiceRange, SocketAddress, SocketKind,
};
use crate::channel::Envelope;
use crate::layout::{COMPLETION_WORDS, SUBMISSION_WORDS};
use crate::violation::Violation;

bitflags! {
    /// How to send.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct SendFlags: u16 {
        /// Answer -EAGAIN instead of holding the request until it can be done; to a connect, -EINPROGRESS.
        const DONTWAIT = 1;
        /// Nobody waits for the answer in particular: it shall wake only a sleeper that waits for room.
        const POSTED = 2;
        /// Of a receive: leave the message where it is.
        const PEEK = 4;
        /// Of a receive: a message may be taken in parts, as a stream is.
        const PARTS = 8;
        /// Of a posted send: the payload is several messages ([`crate::batch`]), which are sent one after the other. The
        /// result is that of the first one that fails.
        const SEVERAL = 16;
    }
}

bitflags! {
    /// What a member of a group wants.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct GroupFlags: u32 {
        /// Its own messages too, where it is addressed.
        const LOOPBACK = 1;
        /// To be told who joins and who leaves.
        const MEMBER_EVENTS = 2;
    }
}

bitflags! {
    /// What a socket can do without waiting.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Ready: u32 {
        /// A connection request waits.
        const ACCEPT = 1;
        /// Nothing that it sent before holds the next message up.
        const SEND = 2;
    }
}

/// Numbers for [`Request::SetOption`] and [`Request::GetOption`]: those of the `SOL_TIPC` level.
pub mod option {
    /// Importance of messages sent, 0 to 3.
    pub const IMPORTANCE: u32 = 127;
    /// Messages sent may be dropped by a congested sender.
    pub const SRC_DROPPABLE: u32 = 128;
    /// Messages that cannot be delivered are dropped, not returned.
    pub const DEST_DROPPABLE: u32 = 129;
    /// How long a connect waits, in ms.
    pub const CONN_TIMEOUT: u32 = 130;
    /// Number of messages in the receive queue (get only).
    pub const SOCK_RECVQ_DEPTH: u32 = 132;
    /// Send multicast by broadcast (set only).
    pub const MCAST_BROADCAST: u32 = 133;
    /// Send multicast as replicated unicast (set only).
    pub const MCAST_REPLICAST: u32 = 134;
    /// The group of the socket, 0 if it is in none (get only).
    pub const GROUP_JOIN: u32 = 135;
    /// Bytes of the receive buffer in use (get only).
    pub const SOCK_RECVQ_USED: u32 = 137;
    /// A stream sends every piece at once (set only).
    pub const NODELAY: u32 = 138;
}

/// Place of a message in the submission arena.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PayloadPlace {
    /// Offset in the arena.
    pub offset: u32,
    /// Length in bytes.
    pub len: u32,
}

/// A request without its payload memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Make a socket. The values answered are its id and [`address_value`].
    OpenSocket {
        /// Its type.
        kind: SocketKind,
    },
    /// Make a subscriber of the topology service. The value answered is its id. Its requests, in the format of the
    /// service, are sent to it by [`Request::Send`] without a destination; events are delivered to it as messages, and
    /// an empty one with error 5 when the service closes it.
    OpenSubscriber,
    /// Close a socket or a subscriber. Messages delivered to it but not consumed are unread.
    CloseSocket,
    /// Bind to a range.
    Bind {
        /// The range.
        range: ServiceRange,
        /// How far it can be seen.
        scope: Scope,
    },
    /// Take one binding back.
    Unbind {
        /// The range, exactly as bound.
        range: ServiceRange,
        /// The scope, exactly as bound.
        scope: Scope,
    },
    /// Take all bindings of the socket back.
    UnbindAll,
    /// Send a message. The value answered is its length.
    Send {
        /// How.
        flags: SendFlags,
        /// Where to; if `None` the default destination, or for a member of a group all members.
        destination: Option<Destination>,
        /// The message.
        payload: PayloadPlace,
    },
    /// Set or clear the default destination of a datagram socket. A socket of a connection type connects, and the
    /// answer comes when it is connected or has failed; without a destination it waits for the outcome of what it has
    /// begun, for as long as that takes.
    Connect {
        /// How.
        flags: SendFlags,
        /// The new default, or `None` to clear it; where to connect.
        destination: Option<Destination>,
    },
    /// Connect two new sockets of this attachment and of the same type to each other. Those of a datagram type become each
    /// other's default destination.
    Pair {
        /// The other one.
        other: u32,
    },
    /// The values answered are a [`SocketState`](crate::SocketState) and the bytes of the receive buffer.
    GetState,
    /// The values answered are the identity of a node, its first byte the lowest of the first value; -EADDRNOTAVAIL if
    /// it is not known.
    GetNodeIdentity {
        /// The node's address.
        node: u32,
    },
    /// The values answered are 16 bytes of the name of the link to a node, zeros behind its end; -EADDRNOTAVAIL if there
    /// is no such link.
    GetLinkName {
        /// The node's address.
        node: u32,
        /// The bearer's number.
        bearer: u32,
        /// Where the bytes begin.
        offset: u32,
    },
    /// Take connection requests.
    Listen {
        /// How many may wait; 0 for as many as the receive buffer takes.
        limit: u32,
    },
    /// Accept a connection request, or wait for one. The values answered are the id of the new socket and
    /// [`address_value`] of its peer.
    Accept {
        /// How.
        flags: SendFlags,
    },
    /// Take the next message of a shared socket, or wait for one: it is delivered before this is answered. The values
    /// answered are its length, and 1 if that is all of it.
    Receive {
        /// How.
        flags: SendFlags,
        /// Most bytes of a stream to take.
        len: u32,
    },
    /// Tell the daemon the bytes of a message that is kept, as before its socket is shared.
    Restore {
        /// Its number among those kept.
        id: u64,
        /// The message.
        payload: PayloadPlace,
    },
    /// End the connection in order.
    Shutdown,
    /// The value answered is [`address_value`] of the peer.
    GetPeer,
    /// Set a socket option.
    SetOption {
        /// Its number, see [`option`].
        option: u32,
        /// Its value.
        value: u32,
    },
    /// Get a socket option; the value answered is its value.
    GetOption {
        /// Its number, see [`option`].
        option: u32,
    },
    /// Set the size of the receive buffer.
    SetReceiveBuffer {
        /// Bytes, as for `SO_RCVBUF`.
        bytes: u32,
    },
    /// The value answered is [`address_value`] of the socket.
    GetName,
    /// Become a member of a group.
    JoinGroup {
        /// The group, and the member's instance in it.
        address: ServiceAddress,
        /// Whether members of other nodes belong to it.
        scope: Scope,
        /// What the member wants.
        flags: GroupFlags,
    },
    /// Leave the group.
    LeaveGroup,
    /// Give up a send that is held for congestion: it completes with -ECANCELED, unless it was done before. The
    /// result is 0, or -ENOENT if no such send is held.
    Cancel {
        /// Tag of the send.
        tag: u64,
    },
    /// Show the state of the way to a node from now on, or to the peer of the connection that this is asked of. The value
    /// answered is the slot it is shown in.
    OpenPath {
        /// The node; not looked at for a connection.
        node: u32,
    },
    /// Answer as soon as a socket can do one of these without waiting, or its connection is over. The value answered is
    /// what it can do then.
    Await {
        /// What is waited for.
        ready: Ready,
    },
    /// Make a direct channel between a connected socket and its peer, or between a datagram socket and the one that it
    /// sends to. The offer of it comes by the attach socket to both, and both are told by a notice
    /// ([`crate::DeliveryFlags::NOTICE`]). The value answered is [`address_value`] of the peer of a datagram socket; there
    /// may have been a channel already. -EAGAIN: not now; other errors: never.
    MakeChannel {
        /// Where the datagrams go.
        destination: Option<Destination>,
    },
    /// What the socket sends from now on goes by its direct channel; the peer is told by a notice behind what went by the
    /// daemon. The values answered are what is under way: units unacknowledged in the lower half, the window in the upper;
    /// and the importance of the socket, with bit 8 if rejected messages are dropped. Of datagrams the first value is
    /// how much may be unread. -EAGAIN: not now.
    SwitchToChannel {
        /// Port of the socket at the other end, of datagrams; else 0.
        peer: u32,
    },
    /// The socket has left its direct channel, as it was told to ([`crate::ChannelNotice::Idle`]): it sends nothing more
    /// there. A connection has given its memory back; of datagrams both ends are told when both have left.
    LeaveChannel {
        /// Port of the socket at the other end, of datagrams; else 0.
        peer: u32,
        /// It was not told to: the other end has written nonsense. It is told that this one is no more.
        at_once: bool,
    },
    /// From now on keep the socket's descriptor readable while there is something to read, accept or be told.
    /// Readable it is made in any case: who finds nothing takes out what is in it.
    Arm,
    /// The application filled the descriptor so that nothing can be written to it: empty it as soon as the socket can
    /// send, or its connection is over.
    Unblock,
    /// Deliver to the socket again what came by its direct channel and was not read, before it is shared. -EAGAIN: there is
    /// no room now.
    PutBack {
        /// Who sent it, a datagram; else port 0.
        source: SocketAddress,
        /// What it says of itself.
        envelope: Envelope,
        /// The message.
        payload: PayloadPlace,
    },
    /// Free a slot.
    ClosePath {
        /// The slot.
        slot: u32,
    },
    /// An operation of a later version; to be answered with -EOPNOTSUPP.
    Unknown {
        /// Its number.
        opcode: u8,
    },
}

/// One entry of the submission ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submission {
    /// Chosen by the application, comes back in the completion.
    pub tag: u64,
    /// The socket or subscriber it is for; 0 for those that open one, for [`Request::Cancel`], and for paths that are no
    /// connection's.
    pub socket: u32,
    /// What to do.
    pub request: Request,
}

/// One entry of the completion ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Tag of the submission.
    pub tag: u64,
    /// 0, or a negative errno.
    pub result: i32,
    /// Depend on the request.
    pub values: [u64; 2],
}

/// Port number and node address of a socket as one value of a completion.
pub fn address_value(port: u32, node: u32) -> u64 {
    u64::from(port) << 32 | u64::from(node)
}

/// The socket address in such a value.
pub fn address_of_value(value: u64) -> SocketAddress {
    SocketAddress {
        port: (value >> 32) as u32,
        node: value as u32,
    }
}

const OPEN_SOCKET: u8 = 1;
const CLOSE_SOCKET: u8 = 2;
const BIND: u8 = 3;
const UNBIND: u8 = 4;
const UNBIND_ALL: u8 = 5;
const SEND: u8 = 6;
const CONNECT: u8 = 7;
const SET_OPTION: u8 = 8;
const GET_OPTION: u8 = 9;
const SET_RECEIVE_BUFFER: u8 = 10;
const GET_NAME: u8 = 11;
const CANCEL: u8 = 12;
const LISTEN: u8 = 13;
const ACCEPT: u8 = 14;
const SHUTDOWN: u8 = 15;
const GET_PEER: u8 = 16;
const OPEN_SUBSCRIBER: u8 = 17;
const JOIN_GROUP: u8 = 18;
const LEAVE_GROUP: u8 = 19;
const PAIR: u8 = 20;
const GET_STATE: u8 = 21;
const GET_NODE_IDENTITY: u8 = 22;
const GET_LINK_NAME: u8 = 23;
const OPEN_PATH: u8 = 40;
const CLOSE_PATH: u8 = 41;
const AWAIT: u8 = 42;
const ARM: u8 = 43;
const UNBLOCK: u8 = 44;
const RECEIVE: u8 = 32;
const MAKE_CHANNEL: u8 = 50;
const SWITCH_TO_CHANNEL: u8 = 51;
const PUT_BACK: u8 = 52;
const LEAVE_CHANNEL: u8 = 53;
const RESTORE: u8 = 33;

/// The fields of a submission before they have a meaning.
#[derive(Default)]
struct Raw {
    opcode: u8,
    kind: u8,
    flags: u16,
    args: [u32; 4],
    payload: PayloadPlace,
}

impl Raw {
    fn op(opcode: u8) -> Self {
        Self {
            opcode,
            ..Self::default()
        }
    }

    fn with(opcode: u8, args: [u32; 4]) -> Self {
        Self {
            opcode,
            args,
            ..Self::default()
        }
    }

    fn towards(opcode: u8, destination: Option<Destination>) -> Self {
        let (kind, [a, b, c]) = destination.map_or((0, [0; 3]), Destination::encode);
        Self {
            opcode,
            kind,
            args: [a, b, c, 0],
            ..Self::default()
        }
    }
}

fn pair(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

fn halves(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}

impl Submission {
    pub(crate) fn encode(&self) -> [u64; SUBMISSION_WORDS] {
        let range_args = |r: ServiceRange, scope| [r.type_, r.lower, r.upper, scope as u32];
        let raw = match self.request {
            Request::OpenSocket { kind } => Raw::with(OPEN_SOCKET, [kind as u32, 0, 0, 0]),
            Request::OpenSubscriber => Raw::op(OPEN_SUBSCRIBER),
            Request::CloseSocket => Raw::op(CLOSE_SOCKET),
            Request::Bind { range, scope } => Raw::with(BIND, range_args(range, scope)),
            Request::Unbind { range, scope } => Raw::with(UNBIND, range_args(range, scope)),
            Request::UnbindAll => Raw::op(UNBIND_ALL),
            Request::Send {
                flags,
                destination,
                payload,
            } => Raw {
                flags: flags.bits(),
                payload,
                ..Raw::towards(SEND, destination)
            },
            Request::Connect { flags, destination } => Raw {
                flags: flags.bits(),
                ..Raw::towards(CONNECT, destination)
            },
            Request::Pair { other } => Raw::with(PAIR, [other, 0, 0, 0]),
            Request::GetState => Raw::op(GET_STATE),
            Request::GetNodeIdentity { node } => Raw::with(GET_NODE_IDENTITY, [node, 0, 0, 0]),
            Request::GetLinkName {
                node,
                bearer,
                offset,
            } => Raw::with(GET_LINK_NAME, [node, bearer, offset, 0]),
            Request::SetOption { option, value } => Raw::with(SET_OPTION, [option, value, 0, 0]),
            Request::GetOption { option } => Raw::with(GET_OPTION, [option, 0, 0, 0]),
            Request::SetReceiveBuffer { bytes } => Raw::with(SET_RECEIVE_BUFFER, [bytes, 0, 0, 0]),
            Request::GetName => Raw::op(GET_NAME),
            Request::Listen { limit } => Raw::with(LISTEN, [limit, 0, 0, 0]),
            Request::Accept { flags } => Raw {
                flags: flags.bits(),
                ..Raw::op(ACCEPT)
            },
            Request::Receive { flags, len } => Raw {
                flags: flags.bits(),
                ..Raw::with(RECEIVE, [len, 0, 0, 0])
            },
            Request::Restore { id, payload } => {
                let [low, high] = halves(id);
                Raw {
                    payload,
                    ..Raw::with(RESTORE, [low, high, 0, 0])
                }
            }
            Request::Shutdown => Raw::op(SHUTDOWN),
            Request::JoinGroup {
                address,
                scope,
                flags,
            } => {
                let (type_, instance) = (address.type_, address.instance);
                Raw::with(JOIN_GROUP, [type_, instance, scope as u32, flags.bits()])
            }
            Request::LeaveGroup => Raw::op(LEAVE_GROUP),
            Request::GetPeer => Raw::op(GET_PEER),
            Request::Cancel { tag } => {
                let [low, high] = halves(tag);
                Raw::with(CANCEL, [low, high, 0, 0])
            }
            Request::OpenPath { node } => Raw::with(OPEN_PATH, [node, 0, 0, 0]),
            Request::Await { ready } => Raw::with(AWAIT, [ready.bits(), 0, 0, 0]),
            Request::MakeChannel { destination } => Raw::towards(MAKE_CHANNEL, destination),
            Request::SwitchToChannel { peer } => Raw::with(SWITCH_TO_CHANNEL, [peer, 0, 0, 0]),
            Request::LeaveChannel { peer, at_once } => {
                Raw::with(LEAVE_CHANNEL, [peer, at_once.into(), 0, 0])
            }
            Request::Arm => Raw::op(ARM),
            Request::Unblock => Raw::op(UNBLOCK),
            Request::PutBack {
                source,
                envelope,
                payload,
            } => {
                let name = envelope.name.unwrap_or_default();
                let args = [source.port, source.node, name.type_, name.instance];
                Raw {
                    payload,
                    kind: envelope.name.is_some().into(),
                    flags: envelope.importance as u16 | u16::from(envelope.droppable) << 2,
                    ..Raw::with(PUT_BACK, args)
                }
            }
            Request::ClosePath { slot } => Raw::with(CLOSE_PATH, [slot, 0, 0, 0]),
            Request::Unknown { opcode } => Raw::op(opcode),
        };
        let first = u32::from(raw.opcode) | u32::from(raw.kind) << 8 | u32::from(raw.flags) << 16;
        let [a, b, c, d] = raw.args;
        [
            pair(first, self.socket),
            self.tag,
            pair(a, b),
            pair(c, d),
            pair(raw.payload.offset, raw.payload.len),
            0,
            0,
            0,
        ]
    }

    /// Gives the words a meaning; checks that a payload lies inside an arena of `arena` bytes.
    pub(crate) fn decode(words: &[u64; SUBMISSION_WORDS], arena: u32) -> Result<Self, Violation> {
        let [first, socket] = halves(words[0]);
        let ([a, b], [c, d]) = (halves(words[2]), halves(words[3]));
        let (opcode, kind, flags) = (first as u8, (first >> 8) as u8, (first >> 16) as u16);
        let range = ServiceRange {
            type_: a,
            lower: b,
            upper: c,
        };
        let request = match opcode {
            OPEN_SOCKET => Request::OpenSocket {
                kind: SocketKind::decode(a)?,
            },
            OPEN_SUBSCRIBER => Request::OpenSubscriber,
            OPEN_PATH => Request::OpenPath { node: a },
            MAKE_CHANNEL => Request::MakeChannel {
                destination: Destination::decode(kind, [a, b, c])?,
            },
            SWITCH_TO_CHANNEL => Request::SwitchToChannel { peer: a },
            LEAVE_CHANNEL => Request::LeaveChannel {
                peer: a,
                at_once: b != 0,
            },
            PUT_BACK => Request::PutBack {
                source: SocketAddress { port: a, node: b },
                envelope: Envelope {
                    importance: Importance::decode(u32::from(flags) & 3)?,
                    droppable: flags & 4 != 0,
                    name: (kind != 0).then_some(ServiceAddress {
                        type_: c,
                        instance: d,
                    }),
                },
                payload: check_payload(words[4], arena)?,
            },
            CLOSE_PATH => Request::ClosePath { slot: a },
            AWAIT => Request::Await {
                ready: Ready::from_bits_truncate(a),
            },
            ARM => Request::Arm,
            UNBLOCK => Request::Unblock,
            CLOSE_SOCKET => Request::CloseSocket,
            BIND => Request::Bind {
                range,
                scope: Scope::decode(d)?,
            },
            UNBIND => Request::Unbind {
                range,
                scope: Scope::decode(d)?,
            },
            UNBIND_ALL => Request::UnbindAll,
            SEND => Request::Send {
                flags: SendFlags::from_bits_truncate(flags),
                destination: Destination::decode(kind, [a, b, c])?,
                payload: check_payload(words[4], arena)?,
            },
            PAIR => Request::Pair { other: a },
            GET_STATE => Request::GetState,
            GET_NODE_IDENTITY => Request::GetNodeIdentity { node: a },
            GET_LINK_NAME => Request::GetLinkName {
                node: a,
                bearer: b,
                offset: c,
            },
            CONNECT => Request::Connect {
                flags: SendFlags::from_bits_truncate(flags),
                destination: Destination::decode(kind, [a, b, c])?,
            },
            SET_OPTION => Request::SetOption {
                option: a,
                value: b,
            },
            GET_OPTION => Request::GetOption { option: a },
            SET_RECEIVE_BUFFER => Request::SetReceiveBuffer { bytes: a },
            GET_NAME => Request::GetName,
            LISTEN => Request::Listen { limit: a },
            ACCEPT => Request::Accept {
                flags: SendFlags::from_bits_truncate(flags),
            },
            RECEIVE => Request::Receive {
                flags: SendFlags::from_bits_truncate(flags),
                len: a,
            },
            RESTORE => Request::Restore {
                id: pair(a, b),
                payload: check_payload(words[4], arena)?,
            },
            SHUTDOWN => Request::Shutdown,
            GET_PEER => Request::GetPeer,
            JOIN_GROUP => Request::JoinGroup {
                address: ServiceAddress {
                    type_: a,
                    instance: b,
                },
                scope: Scope::decode(c)?,
                flags: GroupFlags::from_bits_truncate(d),
            },
            LEAVE_GROUP => Request::LeaveGroup,
            CANCEL => Request::Cancel { tag: pair(a, b) },
            opcode => Request::Unknown { opcode },
        };
        Ok(Self {
            tag: words[1],
            socket,
            request,
        })
    }
}

/// Checks that a place lies inside an arena.
pub(crate) fn check_payload(word: u64, arena: u32) -> Result<PayloadPlace, Violation> {
    let [offset, len] = halves(word);
    if offset > arena || len > arena - offset {
        return Err(Violation::Payload { offset, len, arena });
    }
    Ok(PayloadPlace { offset, len })
}

impl Completion {
    pub(crate) fn encode(&self) -> [u64; COMPLETION_WORDS] {
        [
            self.tag,
            u64::from(self.result.cast_unsigned()),
            self.values[0],
            self.values[1],
        ]
    }

    pub(crate) fn decode(words: &[u64; COMPLETION_WORDS]) -> Self {
        Self {
            tag: words[0],
            result: (words[1] as u32).cast_signed(),
            values: [words[2], words[3]],
        }
    }
}

#[cfg(test)]
mod tests;
