//! Subscribers of the topology service.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use xtipc_segment::Request;

use crate::attachment::{Attachment, Patience};
use crate::tracking::{Event, Subscription};
use crate::watch::Descriptor;
use crate::{Error, Message, Node, Result, lock};

/// Hears of services, nodes and links: of what is there when it subscribes, then of every change, in order.
///
/// It has typed subscriptions and events, and beside them the service's own bytes: [`Subscriber::request`] and
/// [`Subscriber::recv_message`].
#[derive(Debug)]
pub struct Subscriber {
    attachment: Arc<Attachment>,
    id: u32,
    nonblocking: AtomicBool,
    read_timeout: Mutex<Option<Duration>>,
    /// The service has said its last word.
    closed: AtomicBool,
    descriptor: Descriptor,
}

impl Subscriber {
    /// Makes a subscriber of a node's topology service.
    pub fn open(node: &Node) -> Result<Self> {
        let attachment = Arc::clone(&node.attachment);
        let [id, _] = attachment
            .call(0, Request::OpenSubscriber)?
            .map_err(Error::from_result)?;
        Ok(Self {
            attachment,
            id: id as u32,
            nonblocking: AtomicBool::new(false),
            read_timeout: Mutex::new(None),
            closed: AtomicBool::new(false),
            descriptor: Descriptor::default(),
        })
    }

    /// Subscribes. What is bound already is reported first. A subscriber can have many subscriptions, also the same
    /// one twice.
    pub fn subscribe(&self, subscription: &Subscription) -> Result<()> {
        let range = subscription.range;
        if range.lower > range.upper {
            return Err(Error::InvalidRange(range));
        }
        self.send(&subscription.to_bytes())
            .map_err(|result| match result {
                Refusal::Errno(libc::ENOBUFS) => Error::TooManySubscriptions(range),
                other => other.into(),
            })
    }

    /// Takes a subscription back, given exactly as it was made. What was reported before still comes. Nothing happens
    /// if there is none such.
    pub fn cancel(&self, subscription: &Subscription) -> Result<()> {
        Ok(self.send(&subscription.to_cancel())?)
    }

    /// Sends a request in the format of the service: 28 bytes, in either byte order. One that the service refuses
    /// closes the subscriber.
    pub fn request(&self, message: &[u8]) -> Result<()> {
        Ok(self.send(message)?)
    }

    /// Waits for the next event, as [`Subscriber::set_read_timeout`] and [`Subscriber::set_nonblocking`] say.
    pub fn recv(&self) -> Result<Event> {
        event_of(&self.recv_message()?)
    }

    /// The next event, or [`Error::WouldBlock`].
    pub fn try_recv(&self) -> Result<Event> {
        event_of(&self.receive(Patience::None)?)
    }

    /// The next event, spinning for it until then; [`Error::TimedOut`] if none came. Never sleeps.
    pub fn recv_spin(&self, until: Instant) -> Result<Event> {
        let spin = || self.attachment.receive_spinning(self.id, until);
        event_of(&self.unless_closed(spin)?)
    }

    /// Waits likewise for the next event, as its 48 bytes.
    pub fn recv_message(&self) -> Result<Message> {
        let patience = if self.nonblocking.load(Ordering::Relaxed) {
            Patience::None
        } else {
            Patience::lasting(*lock(&self.read_timeout))
        };
        self.receive(patience)
    }

    /// Events as they come, until there will be none any more: each step is a [`Subscriber::recv`].
    pub fn events(&self) -> Events<'_> {
        Events {
            subscriber: self,
            ended: false,
        }
    }

    /// Whether to give [`Error::WouldBlock`] instead of waiting.
    pub fn set_nonblocking(&self, nonblocking: bool) {
        self.nonblocking.store(nonblocking, Ordering::Relaxed);
    }

    /// How long to wait for an event at most; `None`, the default: as long as it takes.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) {
        *lock(&self.read_timeout) = timeout;
    }

    /// A descriptor that is readable when events wait or the node is gone, for poll, epoll and event loops. It may be
    /// readable without an event once in a while: use it with [`Subscriber::try_recv`]. Only to be polled.
    pub fn as_fd(&self) -> Result<BorrowedFd<'_>> {
        self.descriptor.of(&self.attachment, self.id)
    }

    /// The attachment, and the number of the socket.
    pub(crate) fn handle(&self) -> (&Arc<Attachment>, u32) {
        (&self.attachment, self.id)
    }

    fn send(&self, message: &[u8]) -> std::result::Result<(), Refusal> {
        let request = |payload, flags| Request::Send {
            flags,
            destination: None,
            payload,
        };
        let answer = self
            .attachment
            .send(self.id, message, request, Patience::Endless)?;
        match answer {
            0.. => Ok(()),
            result => Err(Refusal::Errno(-result)),
        }
    }

    fn receive(&self, patience: Patience) -> Result<Message> {
        self.unless_closed(|| self.attachment.receive(self.id, patience))
    }

    fn unless_closed(&self, receive: impl FnOnce() -> Result<Message>) -> Result<Message> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::SubscriberClosed);
        }
        let message = receive()?;
        if message.error().is_some() {
            self.closed.store(true, Ordering::Relaxed);
            return Err(Error::SubscriberClosed);
        }
        Ok(message)
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.attachment.close(self.id);
    }
}

impl<'a> IntoIterator for &'a Subscriber {
    type Item = Result<Event>;
    type IntoIter = Events<'a>;

    fn into_iter(self) -> Events<'a> {
        self.events()
    }
}

/// Events of a [`Subscriber`]. Where it gave no event in time it can be asked again; after any other error there is no
/// event any more.
#[derive(Debug)]
pub struct Events<'a> {
    subscriber: &'a Subscriber,
    ended: bool,
}

impl Iterator for Events<'_> {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Result<Event>> {
        if self.ended {
            return None;
        }
        let event = self.subscriber.recv();
        self.ended = !matches!(event, Ok(_) | Err(Error::WouldBlock | Error::TimedOut));
        Some(event)
    }
}

/// Why a request was not carried out.
enum Refusal {
    Errno(i32),
    Other(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Errno(libc::EPIPE) => Self::SubscriberClosed,
            Refusal::Errno(errno) => Self::from_result(-errno),
            Refusal::Other(error) => error,
        }
    }
}

fn event_of(message: &Message) -> Result<Event> {
    Event::from_bytes(message).ok_or(Error::NotAnEvent { len: message.len() })
}
