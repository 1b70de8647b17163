//! TIPC sockets over shared memory: the Rust API of xtipc.
//!
//! A process attaches to the node's daemon once ([`Node::attach`]) and opens sockets on it ([`Datagram::open`]).
//! Sending and receiving go through shared memory; a system call is made only to wake a daemon that sleeps, or to
//! sleep oneself. Messages are read where the daemon put them: a [`Message`] is a guard over that memory.
//!
//! ```no_run
//! use xtipc::{Datagram, Kind, Node, Scope, ServiceAddress};
//!
//! # fn main() -> xtipc::Result<()> {
//! let node = Node::attach()?;
//! let service = ServiceAddress { type_: 18888, instance: 17 };
//!
//! let server = Datagram::open(&node, Kind::Rdm)?;
//! server.bind(service, Scope::Cluster)?;
//!
//! let client = Datagram::open(&node, Kind::Rdm)?;
//! client.send_to(b"hello", service)?;
//!
//! let greeting = server.recv()?;
//! assert_eq!(&*greeting, b"hello");
//! server.send_to(b"hello yourself", greeting.source())?;
//! # Ok(())
//! # }
//! ```
//!
//! Connections are made by [`Listener`] and [`Connection`]:
//!
//! ```no_run
//! use std::io::{Read, Write};
//! use xtipc::{Connection, ConnectionKind, Listener, Node, Scope, ServiceAddress};
//!
//! # fn main() -> std::io::Result<()> {
//! let node = Node::attach()?;
//! let service = ServiceAddress { type_: 18888, instance: 18 };
//! let listener = Listener::bind(&node, ConnectionKind::Stream, service, Scope::Cluster)?;
//! std::thread::spawn(move || -> std::io::Result<()> {
//!     let mut client = Connection::connect(&node, ConnectionKind::Stream, service)?;
//!     client.write_all(b"hello")?;
//!     Ok(client.shutdown()?)
//! });
//! let (mut server, _) = listener.accept()?;
//! let mut greeting = String::new();
//! server.read_to_string(&mut greeting)?;
//! # Ok(())
//! # }
//! ```
//!
//! Members of a [`Group`] send to one of them, to those with an instance, or to all, in order and with flow control:
//!
//! ```no_run
//! use xtipc::{Group, GroupEvent, Joining, Node, ServiceAddress};
//!
//! # fn main() -> xtipc::Result<()> {
//! let me = ServiceAddress { type_: 4711, instance: 1 };
//! let group = Group::join(&Node::attach()?, me, Joining::default())?;
//! loop {
//!     match group.recv()? {
//!         GroupEvent::Joined(member) => group.send_to(b"welcome", member.socket)?,
//!         GroupEvent::Message { from, message } => println!("{}: {} bytes", from.address, message.len()),
//!         GroupEvent::Left(_) => group.broadcast(b"one less")?,
//!     }
//! }
//! # }
//! ```
//!
//! A [`Subscriber`] is told which services are bound and withdrawn, which nodes and which links are up:
//!
//! ```no_run
//! use xtipc::{Event, EventKind, Node, ServiceRange, Subject, Subscriber, Subscription};
//!
//! # fn main() -> xtipc::Result<()> {
//! let subscriber = Subscriber::open(&Node::attach()?)?;
//! subscriber.subscribe(&Subscription::bindings(ServiceRange { type_: 18888, lower: 0, upper: 99 }))?;
//! subscriber.subscribe(&Subscription::nodes())?;
//! for event in &subscriber {
//!     match event? {
//!         Event { kind: EventKind::Published, range, socket, .. } => println!("{range} is served by {socket}"),
//!         Event { kind: EventKind::Withdrawn, range, .. } => println!("{range} is not"),
//!         Event { kind: EventKind::Timeout, .. } => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Other ways to wait: a [`Poller`] for many sockets of one attachment, which can spin before it sleeps;
//! [`Datagram::recv_spin`] and its kin of the other sockets, which never sleep; `as_fd` of a datagram socket or subscriber for
//! event loops; with the feature `tokio` the sockets of the module `tokio`. What a path to a node is like can be read at any
//! time: [`Node::path`], [`Connection::path`].
//!
//! # Shapes of waiting
//!
//! | call | while there is nothing |
//! |---|---|
//! | `recv`, `accept`, `send` | sleeps, after a short spin that adapts; as long as the timeouts set say |
//! | `try_recv`, `try_read`, `try_accept`, `try_send` | gives [`Error::WouldBlock`] |
//! | `recv_spin` | spins until a deadline, then [`Error::TimedOut`] |
//! | [`Poller::wait`] | for many sockets: spins for a given time, then sleeps |
//! | `as_fd` | a descriptor for poll, epoll and other event loops |
//! | module `tokio` | suspends the task |
//!
//! A receive never asks the node; a send does, unless it is posted ([`Datagram::post_to`]). An error says what was wrong and what
//! is accepted; [`Error::errno`] is what the socket interface of the kernel would give.
//!
//! # Calls that make no system call and allocate nothing
//!
//! * a receive that finds something: [`Datagram::recv`], [`Datagram::try_recv`], [`Datagram::recv_spin`],
//!   [`Connection::recv`] with its kin, [`Connection::try_read`], [`Subscriber::try_recv`];
//! * [`Poller::wait`] that finds something, or that looks for things to read and does not wait;
//! * dropping a [`Message`], and all it can tell; [`Path::state`].
//!
//! There are four exceptions. The first calls find out how large tables have to be. While a program has more unread
//! messages than its shared memory takes (4,096, or 4 MiB), a call that has to wait, and [`Poller::wait`], copy them out. A receive, or a message dropped, wakes a node
//! that sleeps if somebody waits for that: for an acknowledgement that becomes due on the connection, a member of the
//! group, or messages that found no room. A receive that finds nothing asks the kernel now and then whether the node is still there, and one
//! on a socket whose descriptor is polled clears that.
//!
//! All types can be used from several threads at once. A forked child must attach itself: what it inherited gives
//! [`Error::Forked`].

#![forbid(unsafe_code)]

mod attachment;
mod batch;
mod buffer;
mod catching;
mod connection;
mod conversation;
mod core;
mod datagram;
mod direct;
#[cfg(feature = "embedded")]
mod embedded;
mod error;
mod giving_back;
mod group;
mod interruption;
mod loan;
mod message;
mod node;
mod path;
mod patience;
mod pending;
mod poller;
mod posting;
mod queues;
mod relay;
mod rounds;
mod seat;
mod sharing;
pub mod socket;
mod stand_by;
mod subscriber;
mod taking;
#[cfg(feature = "tokio")]
pub mod tokio;
mod tracking;
mod watch;

pub use connection::{Connection, ConnectionKind, Listener};
pub use datagram::{Datagram, MulticastMethod};
#[cfg(feature = "embedded")]
pub use embedded::EmbeddedNode;
pub use error::{Error, Result};
pub use group::{Group, GroupEvent, Joining, Member};
pub use loan::{Loan, SharedMessage};
pub use message::{Message, Rejection};
pub use node::{Node, NodeBuilder};
pub use path::Path;
pub use poller::{Handle, PollEvent, Pollable, Poller, Readiness};
pub use sharing::SharedHandle;
pub use subscriber::{Events, Subscriber};
pub use tracking::{Event, EventKind, Subject, Subscription};
pub use xtipc_segment::channel::SharedBytes;
pub use xtipc_segment::{
    ConnectionWindow, Destination, DestinationName, Importance, MESSAGE_LEN_MAX, PathState, Scope,
    ServiceAddress, ServiceRange, SocketAddress, SocketKind as Kind,
};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// State under a lock stays consistent at every point where a thread could panic, so poisoning means nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
