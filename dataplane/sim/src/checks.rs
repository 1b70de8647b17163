//! What must hold in a cluster, as checkers that only look at observations.
//!
//! Each says what it found wrong as a [`Violation`], so that a test can feed it what an engine must
//! never do and see it object.

use crate::cluster::Cluster;
use crate::members::GroupFault;
use crate::talks::TalkFault;
use crate::tracking::Found;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use xtipc_protocol::link::{LinkParams, TRANSIT_MAX};
use xtipc_protocol::name::{Publication, Scope};
use xtipc_protocol::time::Instant;

/// A socket: node and port.
pub type SocketKey = (u32, u32);

/// What was found wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A payload is not what was sent.
    #[error("a message of stream {0} arrived mangled or from the wrong node")]
    Mangled(usize),
    /// A message arrived a second time.
    #[error("message {number} of stream {stream} arrived twice at {receiver:?}")]
    Doubled {
        /// Its stream.
        stream: usize,
        /// Its number.
        number: u32,
        /// Where.
        receiver: SocketKey,
    },
    /// A message arrived before an earlier one, or an earlier one never.
    #[error("message {number} of stream {stream} followed {last:?} at {receiver:?}")]
    OutOfOrder {
        /// Its stream.
        stream: usize,
        /// Its number.
        number: u32,
        /// The one before it.
        last: Option<u32>,
        /// Where.
        receiver: SocketKey,
    },
    /// The last messages of a stream never arrived.
    #[error("stream {stream} has {sent} messages, and {receiver:?} got {last:?} as its last")]
    Lost {
        /// Their stream.
        stream: usize,
        /// Number of messages.
        sent: u32,
        /// The last one.
        last: Option<u32>,
        /// Where.
        receiver: SocketKey,
    },
    /// Two nodes were of different opinions on their link for too long.
    #[error("nodes {a} and {b} disagree on their link for {span:?}, {bound:?} allowed")]
    Disagree {
        /// One station.
        a: usize,
        /// The other.
        b: usize,
        /// For how long.
        span: Duration,
        /// How long they may.
        bound: Duration,
    },
    /// A node that died was believed in for too long.
    #[error("node {station} believes in {node:x} {span:?} after its end, {bound:?} allowed")]
    NotGivenUp {
        /// Who does.
        station: usize,
        /// Address of the dead node.
        node: u32,
        /// For how long.
        span: Duration,
        /// How long it may.
        bound: Duration,
    },
    /// Links did not come up.
    #[error("node {a} has no link to node {b} within {within:?} after the last fault")]
    NoMesh {
        /// One station.
        a: usize,
        /// The other.
        b: usize,
        /// For how long it was waited.
        within: Duration,
    },
    /// A node lost another one though there was a way to it all the time.
    #[error("node {0:x} lost node {1:x}, to which there was a way all the time")]
    ContactLost(u32, u32),
    /// Binding tables did not converge.
    #[error("node {0} has another binding table than the first, {1} entries differ")]
    TablesDiffer(usize, usize),
    /// A message arrived before a binding that its sender had made.
    #[error("question {number} arrived at node {station} before the binding that its answer needs")]
    OvertookBinding {
        /// Number of the question.
        number: u32,
        /// Where.
        station: usize,
    },
    /// A connection did what it must not.
    #[error("end {end} of connection {number}: {fault}")]
    Connection {
        /// Its number.
        number: usize,
        /// 0 is who asked for it.
        end: usize,
        /// What.
        fault: TalkFault,
    },
    /// A member of a group was given what it must not be, or not what it must.
    #[error("member {member:?} of {of:?}: {fault}")]
    Group {
        /// Who found it.
        member: SocketKey,
        /// Whom it concerns.
        of: SocketKey,
        /// What.
        fault: GroupFault,
    },
    /// A subscriber heard that a binding goes which it did not know.
    #[error(
        "the subscriber of node {station} heard of the end of {found:?}, which it did not know"
    )]
    WrongEvent {
        /// Where.
        station: usize,
        /// Bounds and socket.
        found: Found,
    },
    /// A message was there before the subscriber of its node heard of a binding of its sender.
    #[error("a message was at node {station} before its subscriber heard of {found:?}")]
    OvertookEvent {
        /// Where.
        station: usize,
        /// Bounds and socket.
        found: Found,
    },
    /// A subscriber has heard of other bindings than there are.
    #[error("the subscriber of node {0} heard of other bindings than there are")]
    EventsDiffer(usize),
    /// Nothing is under way, and a sender is told to wait.
    #[error("socket {0:?} is still told to wait though everybody reads")]
    StillWaiting(SocketKey),
    /// A node stopped with frames in its hands.
    #[error("node {0} stopped and keeps {1} frames")]
    FramesLeaked(usize, usize),
}

/// A binding of the whole cluster: type, lower, upper, port, node, key.
pub type Entry = (u32, u32, u32, u32, u32, u32);

/// The cluster-wide part of a node's table.
pub fn table(c: &Cluster, station: usize) -> BTreeSet<Entry> {
    let visible = |p: &Publication| p.scope == Scope::Cluster;
    let entry = |p: Publication| {
        let range = p.range;
        (range.type_, range.lower, range.upper, p.port, p.node, p.key)
    };
    let all = c.node(station).engine.publications();
    all.filter(visible).map(entry).collect()
}

/// Whether all nodes have the same table.
pub fn tables_agree(c: &Cluster) -> bool {
    check_tables(c.stations().into_iter().map(|s| (s, table(c, s)))).is_ok()
}

/// All tables have to be the same.
pub fn check_tables(
    tables: impl IntoIterator<Item = (usize, BTreeSet<Entry>)>,
) -> Result<(), Violation> {
    let mut tables = tables.into_iter();
    let Some((_, first)) = tables.next() else {
        return Ok(());
    };
    for (station, table) in tables {
        let differing = first.symmetric_difference(&table).count();
        if differing > 0 {
            return Err(Violation::TablesDiffer(station, differing));
        }
    }
    Ok(())
}

/// All links between these stations have to be up.
pub fn check_mesh(
    links: &BTreeSet<(usize, usize)>,
    stations: &[usize],
    within: Duration,
) -> Result<(), Violation> {
    let pairs = stations
        .iter()
        .flat_map(|a| stations.iter().map(move |b| (*a, *b)));
    match pairs
        .filter(|(a, b)| a != b)
        .find(|pair| !links.contains(pair))
    {
        None => Ok(()),
        Some((a, b)) => Err(Violation::NoMesh { a, b, within }),
    }
}

/// A node that stopped has to have given back every frame.
pub fn check_frames(station: usize, owned: usize) -> Result<(), Violation> {
    match owned {
        0 => Ok(()),
        _ => Err(Violation::FramesLeaked(station, owned)),
    }
}

/// How long a node that is gone, or no longer takes part in the session of a link, may be believed in.
///
/// A peer is given up when it was silent for the tolerance and the time that an answer may be under way. Packets
/// of before may take `transit`, and whoever samples every `sample` sees it begin and end so much apart.
pub fn silence_bound(params: LinkParams, transit: Duration, sample: Duration) -> Duration {
    let tolerance = Duration::from_millis(params.tolerance_ms.into());
    tolerance + TRANSIT_MAX + transit + sample
}

/// Watches that nodes which are gone are given up in time.
#[derive(Debug)]
pub struct Losses {
    /// How long they may be believed in.
    pub bound: Duration,
    gone: BTreeMap<u32, Instant>,
    /// When a station's process was last seen stopped.
    stopped: BTreeMap<usize, Instant>,
    /// Longest time that a node which was gone was believed in.
    pub longest: Duration,
}

impl Losses {
    /// A watch that allows `bound`.
    pub fn new(bound: Duration) -> Self {
        Self {
            bound,
            gone: BTreeMap::new(),
            stopped: BTreeMap::new(),
            longest: Duration::ZERO,
        }
    }

    /// The node with this address died.
    pub fn died(&mut self, now: Instant, node: u32) {
        self.gone.insert(node, now);
    }

    /// It, or another with its address, is back.
    pub fn returned(&mut self, node: u32) {
        self.gone.remove(&node);
    }

    /// A station's process stands still, and knows nothing.
    pub fn stopped(&mut self, now: Instant, station: usize) {
        self.stopped.insert(station, now);
    }

    /// Takes the nodes to which a station has working links.
    pub fn observe(
        &mut self,
        now: Instant,
        station: usize,
        linked: impl IntoIterator<Item = u32>,
    ) -> Result<(), Violation> {
        for node in linked {
            let Some(died) = self.gone.get(&node) else {
                continue;
            };
            let since = self.stopped.get(&station).map_or(*died, |at| *died.max(at));
            let span = now.since(since);
            self.longest = self.longest.max(span);
            if span > self.bound {
                let bound = self.bound;
                return Err(Violation::NotGivenUp {
                    station,
                    node,
                    span,
                    bound,
                });
            }
        }
        Ok(())
    }
}

/// Watches whether pairs of nodes agree on their link.
///
/// A disagreement in which the other one believes in the link is a new one: both have changed their minds between two
/// samples. When only one of two nodes hears the other, the deaf one gives up, and its ACTIVATE brings up the end of the
/// one that hears: for that the silence begins anew.
#[derive(Debug)]
pub struct Agreement {
    /// How long they may disagree.
    pub bound: Duration,
    /// By pair: since when, and whether it is the first who believes.
    since: BTreeMap<(usize, usize), (Instant, bool)>,
    /// Longest disagreement so far.
    pub longest: Duration,
}

impl Agreement {
    /// A watch that allows disagreement for `bound`.
    pub fn new(bound: Duration) -> Self {
        Self {
            bound,
            since: BTreeMap::new(),
            longest: Duration::ZERO,
        }
    }

    /// A node started anew: what it thought before is gone.
    pub fn forget(&mut self, station: usize) {
        self.since
            .retain(|(a, b), _| *a != station && *b != station);
    }

    /// Takes what two nodes think now.
    pub fn observe(
        &mut self,
        now: Instant,
        (a, b): (usize, usize),
        (a_up, b_up): (bool, bool),
    ) -> Result<(), Violation> {
        if a_up == b_up {
            self.since.remove(&(a, b));
            return Ok(());
        }
        let (since, who) = *self.since.entry((a, b)).or_insert((now, a_up));
        if who != a_up {
            self.since.insert((a, b), (now, a_up));
            return Ok(());
        }
        let (span, bound) = (Duration::from_nanos(now.0 - since.0), self.bound);
        self.longest = self.longest.max(span);
        if span > bound {
            return Err(Violation::Disagree { a, b, span, bound });
        }
        Ok(())
    }
}

/// What a stream's receivers are promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Promise {
    /// This socket gets all messages, once and in order, while the link lasts.
    Socket(SocketKey),
    /// Each of these sockets gets all messages, once and in order, while its link and binding last.
    /// Others may see a part, in order.
    Members(BTreeSet<SocketKey>),
    /// Each message has one receiver in the whole cluster, and gets there at most once.
    Anyone,
}

/// Messages of one sender by one way of addressing.
#[derive(Debug)]
struct Stream {
    sender: SocketKey,
    promise: Promise,
    /// Messages sent.
    sent: u32,
    began: u64,
    last: BTreeMap<SocketKey, u32>,
    taken: BTreeSet<(SocketKey, u32)>,
}

impl Stream {
    /// The sockets that must get every message.
    fn promised(&self) -> impl Iterator<Item = SocketKey> + '_ {
        let (one, all) = match &self.promise {
            Promise::Socket(one) => (Some(*one), None),
            Promise::Members(all) => (None, Some(all)),
            Promise::Anyone => (None, None),
        };
        one.into_iter().chain(all.into_iter().flatten().copied())
    }
}

/// Watches that nothing is lost, doubled or reordered between nodes whose link stays up.
#[derive(Debug, Default)]
pub struct Deliveries {
    streams: Vec<Stream>,
    /// Counts what ends promises.
    serial: u64,
    /// When nodes last lost contact with each other.
    broken: BTreeMap<(u32, u32), u64>,
    /// When a socket's bindings changed last. One that comes and goes while a sender switches the
    /// method of its multicasts may get half of a pair of SYN messages, or only one way's part of the
    /// past, and then TIPC gives no order.
    changed: BTreeMap<SocketKey, u64>,
    closed: BTreeSet<SocketKey>,
    /// By sender and receiver: pairs of SYN messages of which the receiver may have got one half.
    halved: BTreeMap<(SocketKey, SocketKey), u32>,
    /// Messages that arrived.
    pub count: u64,
}

impl Deliveries {
    /// Begins a stream and gives its number.
    pub fn begin(&mut self, sender: SocketKey, promise: Promise) -> usize {
        self.streams.push(Stream {
            sender,
            promise,
            sent: 0,
            began: self.serial,
            last: BTreeMap::new(),
            taken: BTreeSet::new(),
        });
        self.streams.len() - 1
    }

    /// Number of the stream's next message.
    pub fn next_number(&self, stream: usize) -> u32 {
        self.streams[stream].sent
    }

    /// The next message of the stream was sent.
    pub fn sent(&mut self, stream: usize) {
        self.streams[stream].sent += 1;
    }

    /// Two nodes lost contact with each other.
    pub fn broke(&mut self, a: u32, b: u32) {
        self.serial += 1;
        self.broken
            .extend([((a, b), self.serial), ((b, a), self.serial)]);
    }

    /// A socket's bindings changed.
    pub fn changed(&mut self, socket: SocketKey) {
        self.serial += 1;
        self.changed.insert(socket, self.serial);
    }

    /// A sender switched the method of its multicasts, and a socket that had bound without the sender
    /// knowing may get only half of the pair that marks the switch.
    ///
    /// One such half is found out by what follows. Those of two switches match halves of later pairs,
    /// which have no number, and then the order across switches is lost.
    pub fn halved(&mut self, sender: SocketKey, receiver: SocketKey) {
        *self.halved.entry((sender, receiver)).or_default() += 1;
    }

    /// A socket has no binding left, and so waits for no half.
    pub fn left(&mut self, receiver: SocketKey) {
        self.halved.retain(|(_, there), _| *there != receiver);
    }

    /// A socket was closed.
    pub fn closed(&mut self, socket: SocketKey) {
        self.closed.insert(socket);
    }

    /// Whether a promise given when the stream began still holds for the receiver.
    fn holds(&self, stream: &Stream, receiver: SocketKey) -> bool {
        let pair = (stream.sender.0, receiver.0);
        let before = |at: Option<&u64>| at.is_none_or(|at| *at <= stream.began);
        let halved = self.halved.get(&(stream.sender, receiver));
        let ordered = halved.is_none_or(|pairs| *pairs < 2);
        let bound = !matches!(stream.promise, Promise::Members(_));
        before(self.broken.get(&pair)) && (bound || before(self.changed.get(&receiver)) && ordered)
    }

    /// Whether the stream still promises just this to all its receivers.
    pub fn goes_on(&self, stream: usize, promise: &Promise) -> bool {
        let there = &self.streams[stream];
        there.promise == *promise && there.promised().all(|r| self.holds(there, r))
    }

    /// Takes a message that arrived.
    pub fn arrived(
        &mut self,
        stream: usize,
        number: u32,
        source: SocketKey,
        receiver: SocketKey,
    ) -> Result<(), Violation> {
        self.count += 1;
        let there = self
            .streams
            .get(stream)
            .filter(|s| s.sender == source && number < s.sent)
            .ok_or(Violation::Mangled(stream))?;
        let holds = self.holds(there, receiver);
        let whose = match there.promise {
            Promise::Anyone => (0, 0),
            Promise::Socket(_) | Promise::Members(_) => receiver,
        };
        let there = &mut self.streams[stream];
        if !there.taken.insert((whose, number)) {
            return Err(Violation::Doubled {
                stream,
                number,
                receiver,
            });
        }
        let last = there.last.insert(receiver, number);
        let all = there.promised().any(|r| r == receiver);
        let in_order = match &there.promise {
            Promise::Anyone => true,
            _ if all => number == last.map_or(0, |n| n + 1),
            _ => last.is_none_or(|last| last < number),
        };
        if holds && !in_order {
            return Err(Violation::OutOfOrder {
                stream,
                number,
                last,
                receiver,
            });
        }
        Ok(())
    }

    /// To be called when nothing is under way: all that was promised must be there.
    pub fn finish(&self) -> Result<(), Violation> {
        for (index, stream) in self.streams.iter().enumerate() {
            for receiver in stream.promised() {
                let last = stream.last.get(&receiver).copied();
                let due = !self.closed.contains(&receiver) && self.holds(stream, receiver);
                if due && last.map_or(0, |n| n + 1) != stream.sent {
                    return Err(Violation::Lost {
                        stream: index,
                        sent: stream.sent,
                        last,
                        receiver,
                    });
                }
            }
        }
        Ok(())
    }
}
