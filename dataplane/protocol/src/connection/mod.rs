//! Connections: what a SEQPACKET or STREAM socket keeps of its peer (`docs/protocol/connections.md`).
//!
//! A [`Connection`] belongs to its socket ([`crate::port::Port`]). It counts, holds back and remembers;
//! [`crate::engine`] sends and delivers. Sockets without a connection have none of it: a connection
//! lies in a box of its own.

mod flow;
mod listener;
mod nagle;
mod probe;
mod syn;

pub use flow::{Flow, INITIAL_WINDOW, advertised_window};
pub use listener::{Listener, PendingSyn};
pub use nagle::{HELD_MAX, Nagle, Verdict};
pub use probe::{PROBE_INTERVAL, Probe, ProbeDue};
pub use syn::{CONNECT_TIMEOUT_MS, Syn, retry_delay};

use crate::addr::SocketAddr;
use crate::host::DestName;
use crate::wire::Importance;

/// Where a connection stands. There is no way back, and none out of `Disconnecting`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The request was sent.
    Connecting,
    /// Both ends know each other.
    Established,
    /// It is over; only closing the socket remains.
    Disconnecting,
}

/// What a socket is as far as connections go.
#[derive(Debug, Default)]
pub enum Role {
    /// Not connected: a datagram socket, or one that may still connect or listen.
    #[default]
    Open,
    /// It waits for connection requests.
    Listener(Box<Listener>),
    /// It has, seeks or had a peer.
    Connection(Box<Connection>),
}

/// Messages that found no room on the way to the peer and are tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owed {
    /// The message without data that tells the client of its acceptance.
    pub acceptance: bool,
    /// A CONN_ACK for what was consumed.
    pub ack: bool,
    /// A CONN_ACK that a message asked for.
    pub nagle_ack: bool,
    /// The answer to a probe.
    pub probe_reply: bool,
}

impl Owed {
    /// True if nothing is owed.
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

/// One end of a connection.
#[derive(Debug)]
pub struct Connection {
    /// Where it stands.
    pub state: State,
    /// The socket at the other end; while `Connecting` the one the request went to, whose port is 0 if
    /// its node is to look it up.
    pub peer: SocketAddr,
    /// The service address it was set up with.
    pub name: Option<DestName>,
    /// What is under way in both directions.
    pub flow: Flow,
    /// Small pieces of a stream that wait to share a packet.
    pub nagle: Nagle,
    /// Is the peer still there?
    pub probe: Probe,
    /// The request, until it was answered.
    pub syn: Option<Box<Syn>>,
    /// What could not be sent.
    pub owed: Owed,
    /// Importance of the last message sent. Packets of different importance fill independently: the
    /// first message of another importance must not join one that waits already.
    pub sent_importance: Option<Importance>,
}

impl Connection {
    /// One whose request is about to be sent to `peer`.
    pub fn connecting(peer: SocketAddr, syn: Syn) -> Self {
        Self {
            state: State::Connecting,
            peer,
            name: syn.name(),
            flow: Flow::default(),
            nagle: Nagle::default(),
            probe: Probe::default(),
            syn: Some(Box::new(syn)),
            owed: Owed::default(),
            sent_importance: None,
        }
    }

    /// One that begins with its peer known; [`crate::engine`] completes it.
    pub fn accepted(peer: SocketAddr, name: Option<DestName>) -> Self {
        Self {
            state: State::Connecting,
            peer,
            name,
            flow: Flow::default(),
            nagle: Nagle::default(),
            probe: Probe::default(),
            syn: None,
            owed: Owed::default(),
            sent_importance: None,
        }
    }

    /// True if `origin` is the peer of an established connection.
    pub fn is_peer(&self, origin: SocketAddr) -> bool {
        self.state == State::Established && self.peer == origin
    }
}
