//! One attached process, or thread of one (`docs/architecture.md`, the application boundary).
//!
//! Its sockets are objects of the daemon; messages for them go to its segment, and wait here while the segment is
//! full. What it writes is never trusted: a violation of the contract ends the attachment.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use hashbrown::HashMap;
use xtipc_protocol::addr::{NodeAddr, PortId, SocketAddr};
use xtipc_protocol::engine::Engine;
use xtipc_protocol::group::MemberNo;
use xtipc_protocol::host::{DestName, FromMember, Incoming, MemberNews, Payload};
use xtipc_protocol::time::Instant;
use xtipc_protocol::wire::{Importance, size};
use xtipc_segment::Submission;
use xtipc_segment::attach::PeerProcess;
use xtipc_segment::daemon::{Consumed, DaemonSide, DeliverError, PayloadRef};
use xtipc_segment::{ChannelNotice, DeliveryFlags, Meta};
use xtipc_segment::{
    Destination, DestinationName, ServiceAddress, ServiceRange, SocketAddress, Violation,
};

use super::paths::Paths;

/// Release notices taken from an application in one round.
const RELEASE_BUDGET: usize = 8192;
/// Messages in a bundle at an MTU of 1500: headers of 32 bytes and a word each.
const BUNDLED_MAX: usize = 40;
// Each message makes two notices. If a round took fewer than it can deliver, memory would come back too slowly, and
// messages be rejected that there was room for.
const _: () = assert!(RELEASE_BUDGET >= 2 * super::RECEIVE_BUDGET * BUNDLED_MAX);

/// A send that waits for congestion to abate.
pub(super) struct Held {
    pub(super) submission: Submission,
    pub(super) port: PortId,
    /// When it began to.
    pub(super) since: Instant,
    /// Why a message of it failed already, if it is a batch.
    pub(super) failed: Option<i32>,
}

/// A message that found no room in the segment.
struct Parked {
    meta: Meta,
    payload: Vec<u8>,
}

/// What a socket of the application is to the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Role {
    /// Exchanges datagrams.
    #[default]
    Datagram,
    /// Hears of the topology service's events.
    Subscriber,
}

/// Whether the next message of a socket waits until this one was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaited {
    Yes,
    No,
}

/// A socket of the application; to the application its id is its port number.
#[derive(Clone, Copy, Default)]
pub(super) struct Socket {
    pub(super) role: Role,
    /// Where messages without a destination go.
    pub(super) default_destination: Option<Destination>,
    /// The other one of a pair of datagram sockets.
    pub(super) twin: Option<SocketAddress>,
}

/// See the module.
pub(super) struct Application {
    pub(super) connection: OwnedFd,
    pub(super) process: PeerProcess,
    pub(super) side: DaemonSide,
    pub(super) sockets: HashMap<PortId, Socket>,
    /// Sends of all its sockets that wait, in order.
    pub(super) held: VecDeque<Held>,
    pub(super) submitted: u64,
    pub(super) delivered: u64,
    /// Messages that went by the direct channels of sockets that are no more.
    pub(super) sent_directly: u64,
    /// Messages that it has given to the daemon, but a direct channel could carry.
    pub(super) detours: u64,
    /// Senders may wait until it has read what it was given.
    pub(super) is_awaited: bool,
    /// Ways to nodes that it looks at.
    pub(super) paths: Paths,
    parked: VecDeque<Parked>,
    /// Shared connections of which it has read what it was given.
    pub(super) awaited_reads: Vec<PortId>,
    /// Set when the application broke the contract while a message was delivered.
    pub(super) violation: Option<Violation>,
}

/// Cookie of a delivery whose sender wants it back if it is never read.
const RETURNABLE: u64 = 1;
/// Above this bit of the cookie: the member of the socket's group that sent the message.
const MEMBER_SHIFT: u32 = 32;
/// Of a shared connection, whose next message waits until this one was read.
const AWAITED: u64 = 2;

impl Application {
    pub(super) fn new(connection: OwnedFd, process: PeerProcess, side: DaemonSide) -> Self {
        Self {
            connection,
            process,
            side,
            sockets: HashMap::new(),
            held: VecDeque::new(),
            submitted: 0,
            delivered: 0,
            sent_directly: 0,
            detours: 0,
            is_awaited: false,
            paths: Paths::default(),
            parked: VecDeque::new(),
            awaited_reads: Vec::new(),
            violation: None,
        }
    }

    /// Delivers messages that came in the round that began at `now_ns` and differ in nothing but their bytes, or keeps them
    /// until there is room.
    pub(super) fn deliver<'a, P: Payload + ?Sized + 'a>(
        &mut self,
        port: PortId,
        about: &Incoming,
        payloads: impl Iterator<Item = &'a P>,
        now_ns: u64,
    ) {
        let mut meta = None;
        for payload in payloads {
            let new = || meta_of(port, about, payload.len(), now_ns);
            let meta = meta.get_or_insert_with(new);
            self.delivered += 1;
            self.put(meta, payload);
        }
    }

    /// Tells a socket of a direct channel, behind all that was delivered to it before.
    pub(super) fn tell_of_channel(
        &mut self,
        port: PortId,
        source: SocketAddress,
        notice: ChannelNotice,
    ) {
        let meta = Meta {
            socket: port.0,
            source,
            flags: DeliveryFlags::NOTICE,
            ..Meta::default()
        };
        self.put(&meta, &notice.encode()[..]);
    }

    fn put<P: Payload + ?Sized>(&mut self, meta: &Meta, payload: &P) {
        let refused = if self.parked.is_empty() {
            self.side
                .deliver(meta, payload.len(), |out| payload.copy_to(0, out))
        } else {
            Err(DeliverError::NoRoom)
        };
        match refused {
            Ok(()) => {}
            Err(DeliverError::NoRoom) => {
                let mut bytes = vec![0; payload.len()];
                payload.copy_to(0, &mut bytes);
                self.parked.push_back(Parked {
                    meta: *meta,
                    payload: bytes,
                });
                // A program that polls descriptors only calls the library, which makes room, if it hears of something.
                self.side.call_watch(meta.socket);
            }
            Err(DeliverError::Violation(violation)) => self.violation = Some(violation),
        }
    }

    /// Tells the engine what the application has read, and takes back the memory of it. How many buffers came back.
    pub(super) fn take_note_of_reads(&mut self, engine: &mut Engine) -> Result<usize, Violation> {
        let awaited_reads = &mut self.awaited_reads;
        self.side.drain_releases(RELEASE_BUDGET, |consumed| {
            if consumed.cookie & AWAITED != 0 {
                awaited_reads.push(PortId(consumed.socket));
            }
            note_consumed(engine, &consumed);
        })
    }

    /// Delivers what a holder of a shared socket asked for, unless there is no room. It came at `at_ns`.
    pub(super) fn hand_over(
        &mut self,
        port: PortId,
        about: &Incoming,
        bytes: &[u8],
        at_ns: u64,
        awaited: Awaited,
    ) -> Result<(), DeliverError> {
        if self.has_parked() {
            return Err(DeliverError::NoRoom);
        }
        let mut meta = meta_of(port, about, bytes.len(), at_ns);
        // It may be another one's next message.
        meta.retained = bytes.len() as u32;
        if awaited == Awaited::Yes {
            meta.cookie |= AWAITED;
        }
        self.side
            .deliver(&meta, bytes.len(), |out| out.copy_from_slice(bytes))?;
        self.delivered += 1;
        Ok(())
    }

    /// Something waits until it has read: messages, here for room in the segment or in the engine for a subscriber, or
    /// senders.
    pub(super) fn wants_room(&self, blocked_subscribers: &[PortId]) -> bool {
        let is_own = |port: &PortId| self.sockets.contains_key(port);
        self.is_awaited || self.has_parked() || blocked_subscribers.iter().any(is_own)
    }

    /// It has asked for nothing, and returned nothing, since the last round.
    pub(super) fn is_quiet(&self) -> bool {
        self.side.is_quiet() && self.parked.is_empty() && self.violation.is_none()
    }

    /// Messages wait here for room in the segment.
    pub(super) fn has_parked(&self) -> bool {
        !self.parked.is_empty()
    }

    /// Delivers what waited for room.
    pub(super) fn deliver_parked(&mut self) -> Result<(), Violation> {
        while let Some(next) = self.parked.front() {
            let payload = &next.payload;
            match self.side.deliver(&next.meta, payload.len(), |out| {
                out.copy_from_slice(payload)
            }) {
                Ok(()) => {
                    self.parked.pop_front();
                }
                Err(DeliverError::NoRoom) => return Ok(()),
                Err(DeliverError::Violation(violation)) => return Err(violation),
            }
        }
        Ok(())
    }

    /// Takes what was delivered to a socket (`None`: to all) and never read, oldest first, with the time at which it came.
    /// `consumed` hears what this found read by the sockets of the application.
    pub(super) fn take_unread(
        &mut self,
        socket: Option<PortId>,
        mut consumed: impl FnMut(&Consumed),
        mut unread: impl FnMut(PortId, &Incoming, &[u8], u64),
    ) {
        let mut hand_out = |meta: &Meta, bytes: &[u8]| {
            if meta.flags.contains(DeliveryFlags::NOTICE) {
                return;
            }
            let at_ns = meta.timestamp_ns;
            unread(PortId(meta.socket), &incoming_of(meta), bytes, at_ns);
        };
        let awaited_reads = &mut self.awaited_reads;
        let taken = self.side.take_unread(
            socket.map(|port| port.0),
            |read| {
                if read.cookie & AWAITED != 0 {
                    awaited_reads.push(PortId(read.socket));
                }
                consumed(&read);
            },
            &mut hand_out,
        );
        if let Err(violation) = taken {
            self.violation = Some(violation);
        }
        self.parked.retain(|parked| {
            let concerned = socket.is_none_or(|port| port.0 == parked.meta.socket);
            if concerned {
                hand_out(&parked.meta, &parked.payload);
            }
            !concerned
        });
    }
}

/// The end of a connection that no message told of.
pub(super) fn incoming_of_end(errcode: u8) -> Incoming {
    Incoming {
        source: SocketAddr {
            port: PortId(0),
            node: NodeAddr::NONE,
        },
        dest_name: None,
        importance: Importance::Low,
        errcode,
        cost: 0,
        returnable: false,
        refused: false,
        group: None,
    }
}

/// Whether there is nothing to do for a message but to read it.
pub(super) fn is_plain(about: &Incoming) -> bool {
    about.errcode == 0 && !about.refused && about.group.is_none()
}

pub(super) fn meta_of(port: PortId, about: &Incoming, len: usize, now_ns: u64) -> Meta {
    Meta {
        socket: port.0,
        error: about.errcode,
        importance: xtipc_segment::Importance::from_number(about.importance as u32)
            .unwrap_or_default(),
        flags: if about.refused {
            DeliveryFlags::REFUSED
        } else {
            about.group.map_or(DeliveryFlags::empty(), flags_of)
        },
        source: SocketAddress {
            port: about.source.port.0,
            node: about.source.node.0,
        },
        destination: match about.dest_name {
            None => about.group.map_or(DestinationName::None, own_name_of),
            Some(DestName { kind, lower, upper }) if lower == upper => {
                DestinationName::Service(ServiceAddress {
                    type_: kind,
                    instance: lower,
                })
            }
            Some(DestName { kind, lower, upper }) => DestinationName::Multicast(ServiceRange {
                type_: kind,
                lower,
                upper,
            }),
        },
        original_len: len as u32,
        timestamp_ns: now_ns,
        cost: about.cost,
        retained: match about.returnable {
            true => len.min(size::MAX_RETURNED) as u32,
            false => 0,
        },
        cookie: match about.group.map(|from| from.news) {
            Some(MemberNews::Message(member)) => u64::from(member.0) << MEMBER_SHIFT,
            _ if about.returnable => RETURNABLE,
            _ => 0,
        },
    }
}

fn flags_of(from: FromMember) -> DeliveryFlags {
    DeliveryFlags::FROM_MEMBER
        | match from.news {
            MemberNews::Message(_) => DeliveryFlags::empty(),
            MemberNews::Joined => DeliveryFlags::JOINED,
            MemberNews::Left => DeliveryFlags::LEFT,
        }
}

fn own_name_of(from: FromMember) -> DestinationName {
    DestinationName::Service(ServiceAddress {
        type_: from.group,
        instance: from.instance,
    })
}

/// Tells the engine of messages that left the receive buffer of their socket.
pub(super) fn note_consumed(engine: &mut Engine, consumed: &Consumed) {
    // What has no cost is in no receive buffer: notices, ends, what was put back.
    if consumed.cost == 0 {
        return;
    }
    let port = PortId(consumed.socket);
    match (consumed.cookie >> MEMBER_SHIFT) as u32 {
        0 => engine.on_several_consumed(port, consumed.cost, consumed.count),
        member => {
            for _ in 0..consumed.count {
                engine.on_group_read(port, MemberNo(member), consumed.cost);
            }
        }
    }
}

fn incoming_of(meta: &Meta) -> Incoming {
    Incoming {
        source: SocketAddr {
            port: PortId(meta.source.port),
            node: NodeAddr(meta.source.node),
        },
        dest_name: match meta.destination {
            DestinationName::None => None,
            DestinationName::Service(name) => Some(DestName {
                kind: name.type_,
                lower: name.instance,
                upper: name.instance,
            }),
            DestinationName::Multicast(range) => Some(DestName {
                kind: range.type_,
                lower: range.lower,
                upper: range.upper,
            }),
        },
        importance: Importance::from_bits(meta.importance as u32),
        errcode: meta.error,
        cost: meta.cost,
        returnable: meta.cookie & RETURNABLE != 0,
        group: None,
        refused: meta.flags.contains(DeliveryFlags::REFUSED),
    }
}

/// A message in the application's memory, which it may change at any time.
pub(super) struct Submitted(pub(super) PayloadRef);

impl Payload for Submitted {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn copy_to(&self, offset: usize, out: &mut [u8]) {
        self.0.copy_to(offset, out);
    }
}
