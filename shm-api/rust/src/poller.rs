//! Waiting for many sockets at once.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bitflags::bitflags;
use xtipc_segment::Ready;

use crate::attachment::{Attachment, Look, Patience};
use crate::core::{Core, Interest};
use crate::{Connection, Datagram, Error, Group, Listener, Node, Result, Subscriber, lock};

/// Longer than any program spins, and short enough for a clock to add.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

bitflags! {
    /// What to wait for, and what there is.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Readiness: u8 {
        /// A receive, an accept, or the end of a connection would not wait.
        const READABLE = 1;
        /// Nothing that was sent before holds the next message up.
        const WRITABLE = 2;
    }
}

/// A socket that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollEvent {
    /// What it was added with.
    pub token: usize,
    /// What it is ready for, of what is waited for.
    pub readiness: Readiness,
}

/// A socket as far as a [`Poller`] needs it.
#[derive(Clone, Copy, Debug)]
pub struct Handle<'a> {
    attachment: &'a Arc<Attachment>,
    socket: u32,
    listens: bool,
}

/// Sockets that a [`Poller`] waits for.
pub trait Pollable {
    /// The socket.
    fn handle(&self) -> Handle<'_>;
}

impl Pollable for Datagram {
    fn handle(&self) -> Handle<'_> {
        Handle::new(self.handle(), false)
    }
}

impl Pollable for Group {
    fn handle(&self) -> Handle<'_> {
        Handle::new(self.socket().handle(), false)
    }
}

impl Pollable for Subscriber {
    fn handle(&self) -> Handle<'_> {
        Handle::new(self.handle(), false)
    }
}

impl Pollable for Connection {
    fn handle(&self) -> Handle<'_> {
        Handle::new(self.handle(), false)
    }
}

impl Pollable for Listener {
    fn handle(&self) -> Handle<'_> {
        Handle::new(self.handle(), true)
    }
}

impl Pollable for crate::socket::Socket {
    fn handle(&self) -> Handle<'_> {
        let (attachment, socket, listens) = self.handle();
        Handle::new((attachment, socket), listens)
    }
}

impl<'a> Handle<'a> {
    fn new((attachment, socket): (&'a Arc<Attachment>, u32), listens: bool) -> Self {
        Self {
            attachment,
            socket,
            listens,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    socket: u32,
    listens: bool,
    token: usize,
    interest: Readiness,
}

/// Waits for many sockets of one attachment: level-triggered, so a socket that stays ready is reported each time. A
/// socket may be reported once in a while although the call would wait: use non-blocking calls. To be used by one
/// thread at a time; others wait for it.
///
/// Whether a socket can send or accept the node alone knows: the first wait for that asks, and later ones only after a
/// call found that it cannot. So a wait without time may miss it once.
///
/// With [`Poller::set_spin`] it spins before it sleeps; while it spins, and whenever something is there at once, it
/// makes no system call but to wake a node that sleeps and is asked something.
#[derive(Debug)]
pub struct Poller {
    attachment: Arc<Attachment>,
    entries: Mutex<Vec<Entry>>,
    spin: Mutex<Duration>,
}

impl Poller {
    /// For sockets of this attachment.
    pub fn new(node: &Node) -> Self {
        Self {
            attachment: Arc::clone(&node.attachment),
            entries: Mutex::new(Vec::new()),
            spin: Mutex::new(Duration::ZERO),
        }
    }

    /// How long each wait spins before it sleeps: `Duration::MAX` to never sleep.
    pub fn set_spin(&self, spin: Duration) {
        *lock(&self.spin) = spin;
    }

    /// Waits for a socket too; the token comes back with its events. What was said of this socket before is replaced.
    pub fn add(&self, socket: &impl Pollable, token: usize, interest: Readiness) -> Result<()> {
        let handle = socket.handle();
        if !Arc::ptr_eq(handle.attachment, &self.attachment) {
            return Err(Error::ForeignSocket);
        }
        let mut entries = lock(&self.entries);
        entries.retain(|entry| entry.socket != handle.socket);
        entries.push(Entry {
            socket: handle.socket,
            listens: handle.listens,
            token,
            interest,
        });
        Ok(())
    }

    /// Waits for a socket no longer. One that was dropped is forgotten by itself.
    pub fn remove(&self, socket: &impl Pollable) {
        let handle = socket.handle();
        lock(&self.entries).retain(|entry| entry.socket != handle.socket);
    }

    /// Waits until a socket is ready, and replaces `events` by those that are. At the end of the time there are none;
    /// without a limit it waits as long as it takes.
    pub fn wait(&self, events: &mut Vec<PollEvent>, timeout: Option<Duration>) -> Result<()> {
        let mut entries = lock(&self.entries);
        events.clear();
        let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut find = |core: &mut Core| -> Result<Look<()>> {
            let lacks = look(core, &mut entries, events)?;
            Ok(if events.is_empty() {
                Look::WaitFor(lacks.unwrap_or(Interest::AnySocket))
            } else {
                Look::Found(())
            })
        };
        let spin = *lock(&self.spin);
        if !spin.is_zero() && timeout != Some(Duration::ZERO) {
            let until = Instant::now() + spin.min(FOR_EVER);
            let until = end.map_or(until, |end| end.min(until));
            let found =
                self.attachment
                    .spin(Core::dispatch, Interest::AnySocket, until, |core| {
                        Ok(match find(core)? {
                            Look::Found(()) => Some(()),
                            Look::WaitFor(_) => None,
                        })
                    })?;
            if found.is_some() {
                return Ok(());
            }
        }
        let patience = match (timeout, end) {
            (Some(Duration::ZERO), _) => Patience::None,
            (_, Some(end)) => Patience::Until(end),
            (_, None) => Patience::Endless,
        };
        match self.attachment.wait(patience, find) {
            Err(Error::TimedOut | Error::WouldBlock) => Ok(()),
            other => other,
        }
    }
}

/// Notes who is ready, and asks the daemon to tell of what it alone knows. What lacks for that is given back.
fn look(
    core: &mut Core,
    entries: &mut Vec<Entry>,
    events: &mut Vec<PollEvent>,
) -> Result<Option<Interest>> {
    // Also when something is ready: the program may pass that over.
    core.make_room();
    let mut lacks = None;
    entries.retain(|entry| core.is_open(entry.socket));
    for entry in entries.iter() {
        let mut wanted = Ready::empty();
        let reads = entry.interest.contains(Readiness::READABLE);
        wanted.set(Ready::ACCEPT, entry.listens && reads);
        let writes = entry.interest.contains(Readiness::WRITABLE);
        wanted.set(Ready::SEND, !entry.listens && writes);
        let queue = core.queue(entry.socket)?;
        if writes && let Some(may) = queue.may_send() {
            queue.ready.set(Ready::SEND, may);
        }
        let missing = wanted - queue.ready;
        let mut readiness = Readiness::empty();
        let is_there = queue.has_rest
            || !queue.messages.is_empty()
            || entry.listens && queue.ready.contains(Ready::ACCEPT);
        readiness.set(Readiness::READABLE, reads && is_there);
        let is_free = queue.ready.contains(Ready::SEND);
        readiness.set(Readiness::WRITABLE, writes && is_free && !entry.listens);
        if !missing.is_empty()
            && let Err(interest) = core.await_ready(entry.socket, missing)?
        {
            lacks = Some(interest);
        }
        if !readiness.is_empty() {
            let token = entry.token;
            events.push(PollEvent { token, readiness });
        }
    }
    Ok(lacks)
}
