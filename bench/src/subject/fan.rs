//! One message for several receivers, all of which are sockets of one program on the other side; and how soon a
//! subscriber is told of a binding.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use anyhow::{Context, Result};
use xtipc::{
    Datagram, Error, Group, GroupEvent, Joining, Kind, Node, PollEvent, Poller, Readiness, Scope,
    ServiceAddress, ServiceRange, Subscriber, Subscription,
};

use super::PORT;
use crate::child::say_ready;
use crate::rate::{BATCH, SINK_PATIENCE, Sink, Source, put_number};
use crate::round_trip::{Asker, PATIENCE};

const SERVICE: u32 = 18892;
const RANGE: ServiceRange = ServiceRange {
    type_: SERVICE,
    lower: 0,
    upper: 99,
};
/// Of group members: the sender's, and the receivers'.
const SENDER: ServiceAddress = ServiceAddress {
    type_: 18893,
    instance: 1,
};
const RECEIVER: ServiceAddress = ServiceAddress {
    type_: 18893,
    instance: 2,
};
const RECEIVE_BUFFER: u32 = 16 << 20;
/// Messages that a socket gives before the next one is asked.
const TURN: usize = 64;

/// Waits until as many receivers are bound as the sender is to reach.
fn await_receivers(node: &Node, copies: usize) -> Result<()> {
    let subscriber = Subscriber::open(node)?;
    subscriber.subscribe(&Subscription::bindings(RANGE))?;
    subscriber.set_read_timeout(Some(PATIENCE));
    for _ in 0..copies {
        subscriber.recv().context("receivers are not bound")?;
    }
    Ok(())
}

/// The end that sends multicasts.
pub(crate) struct Multicast {
    socket: Datagram,
    message: Vec<u8>,
}

impl Multicast {
    pub(crate) fn new(node: &Node, size: usize, copies: usize) -> Result<Self> {
        await_receivers(node, copies)?;
        let socket = Datagram::open(node, Kind::Rdm)?;
        let message = vec![0; size];
        Ok(Self { socket, message })
    }
}

impl Source for Multicast {
    fn send(&mut self, first: u64) -> Result<u64> {
        for number in first..first + BATCH as u64 {
            put_number(&mut self.message, number);
            self.socket.send_to(&self.message, RANGE)?;
        }
        Ok(BATCH as u64)
    }
}

/// The member that broadcasts to its group.
pub(crate) struct Broadcast {
    group: Group,
    message: Vec<u8>,
}

impl Broadcast {
    pub(crate) fn new(node: &Node, size: usize, copies: usize) -> Result<Self> {
        let group = Group::join(node, SENDER, Joining::default())?;
        let mut members = 0;
        while members < copies {
            let event = group
                .recv_timeout(PATIENCE)
                .context("members are missing")?;
            members += usize::from(matches!(event, GroupEvent::Joined(_)));
        }
        let message = vec![0; size];
        Ok(Self { group, message })
    }
}

impl Source for Broadcast {
    fn send(&mut self, first: u64) -> Result<u64> {
        for number in first..first + BATCH as u64 {
            put_number(&mut self.message, number);
            self.group.broadcast(&self.message)?;
        }
        Ok(BATCH as u64)
    }
}

/// All receivers of multicasts, or all members but the sender.
pub(crate) struct Receivers<T> {
    sockets: Vec<T>,
    poller: Poller,
    events: Vec<PollEvent>,
}

/// One receiver of them.
pub(crate) trait Receiver {
    /// Shows what waits, at most [`TURN`] messages.
    fn take(&self, seen: &mut dyn FnMut(&[u8])) -> Result<()>;
}

impl Receiver for Datagram {
    fn take(&self, seen: &mut dyn FnMut(&[u8])) -> Result<()> {
        for _ in 0..TURN {
            match self.try_recv() {
                Ok(message) => seen(&message),
                Err(Error::WouldBlock) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Receiver for Group {
    fn take(&self, seen: &mut dyn FnMut(&[u8])) -> Result<()> {
        for _ in 0..TURN {
            match self.try_recv() {
                Ok(GroupEvent::Message { message, .. }) => seen(&message),
                Ok(GroupEvent::Joined(_) | GroupEvent::Left(_)) => {}
                Err(Error::WouldBlock) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Receivers<Datagram> {
    pub(crate) fn bound(node: &Node, copies: usize) -> Result<Self> {
        let sockets = (0..copies).map(|_| {
            let socket = Datagram::open(node, Kind::Rdm)?;
            socket.set_receive_buffer(RECEIVE_BUFFER)?;
            Ok(socket)
        });
        let sockets = sockets.collect::<Result<Vec<_>>>()?;
        let poller = Poller::new(node);
        for (token, socket) in sockets.iter().enumerate() {
            poller.add(socket, token, Readiness::READABLE)?;
            socket.bind(RANGE, Scope::Cluster)?;
        }
        say_ready();
        Ok(Self {
            sockets,
            poller,
            events: Vec::new(),
        })
    }
}

impl Receivers<Group> {
    pub(crate) fn joined(node: &Node, copies: usize) -> Result<Self> {
        let poller = Poller::new(node);
        let sockets = (0..copies).map(|token| {
            let group = Group::join(node, RECEIVER, Joining::default())?;
            poller.add(&group, token, Readiness::READABLE)?;
            Ok(group)
        });
        let sockets = sockets.collect::<Result<Vec<_>>>()?;
        say_ready();
        Ok(Self {
            sockets,
            poller,
            events: Vec::new(),
        })
    }
}

impl<T: Receiver> Sink for Receivers<T> {
    fn receive(&mut self, seen: &mut dyn FnMut(&[u8])) -> Result<()> {
        match self.poller.wait(&mut self.events, Some(SINK_PATIENCE)) {
            Ok(()) => {}
            Err(Error::TimedOut) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        for event in self.events.drain(..) {
            self.sockets[event.token].take(seen)?;
        }
        Ok(())
    }
}

/// The end that sends a datagram to each of several UDP sockets.
pub(crate) struct UdpSend {
    socket: UdpSocket,
    peers: Vec<SocketAddrV4>,
    message: Vec<u8>,
}

impl UdpSend {
    pub(crate) fn new(peer: Ipv4Addr, size: usize, copies: usize) -> Result<Self> {
        let peers = (PORT..).take(copies);
        Ok(Self {
            socket: UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?,
            peers: peers.map(|port| SocketAddrV4::new(peer, port)).collect(),
            message: vec![0; size],
        })
    }
}

impl Source for UdpSend {
    fn send(&mut self, first: u64) -> Result<u64> {
        for number in first..first + BATCH as u64 {
            put_number(&mut self.message, number);
            for peer in &self.peers {
                self.socket.send_to(&self.message, peer)?;
            }
        }
        Ok(BATCH as u64)
    }
}

/// Several UDP sockets.
pub(crate) struct UdpReceivers {
    sockets: Vec<UdpSocket>,
    message: Vec<u8>,
}

impl UdpReceivers {
    pub(crate) fn new(size: usize, copies: usize) -> Result<Self> {
        let sockets = (PORT..).take(copies).map(|port| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
            rustix::net::sockopt::set_socket_recv_buffer_size_force(
                &socket,
                RECEIVE_BUFFER as usize,
            )?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        let sockets = sockets.collect::<Result<Vec<_>>>()?;
        say_ready();
        let message = vec![0; size];
        Ok(Self { sockets, message })
    }
}

impl Sink for UdpReceivers {
    fn receive(&mut self, seen: &mut dyn FnMut(&[u8])) -> Result<()> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let patience = Timespec::try_from(SINK_PATIENCE)?;
        let all = self.sockets.iter();
        let mut ready: Vec<_> = all
            .map(|socket| PollFd::new(socket, PollFlags::IN))
            .collect();
        poll(&mut ready, Some(&patience))?;
        for socket in &self.sockets {
            for _ in 0..TURN {
                let Ok(len) = socket.recv(&mut self.message) else {
                    break;
                };
                seen(&self.message[..len]);
            }
        }
        Ok(())
    }
}

/// Subscribed to what the other side binds when it is asked.
pub(crate) struct EventAsk {
    socket: Datagram,
    subscriber: Subscriber,
}

const REQUESTS: ServiceAddress = ServiceAddress {
    type_: 18894,
    instance: 1,
};
const ANSWERS: ServiceAddress = ServiceAddress {
    type_: 18894,
    instance: 2,
};

impl EventAsk {
    pub(crate) fn new(node: &Node) -> Result<Self> {
        let subscriber = Subscriber::open(node)?;
        subscriber.set_read_timeout(Some(PATIENCE));
        subscriber.subscribe(&Subscription::bindings(REQUESTS))?;
        subscriber.recv().context("the other side is not bound")?;
        subscriber.cancel(&Subscription::bindings(REQUESTS))?;
        subscriber.subscribe(&Subscription::bindings(ANSWERS))?;
        let socket = Datagram::open(node, Kind::Rdm)?;
        Ok(Self { socket, subscriber })
    }
}

impl Asker for EventAsk {
    /// The event of a binding, or of its end: in turns.
    fn ask(&mut self, message: &[u8], answer: &mut [u8]) -> Result<usize> {
        self.socket.post_to(message, REQUESTS)?;
        self.subscriber.recv().context("no event")?;
        answer.copy_from_slice(message);
        Ok(answer.len())
    }
}

/// Binds and unbinds in turns, when it is asked to.
pub(crate) fn event_echo(node: &Node) -> Result<()> {
    let socket = Datagram::open(node, Kind::Rdm)?;
    socket.bind(REQUESTS, Scope::Cluster)?;
    say_ready();
    loop {
        for binds in [true, false] {
            socket.recv()?;
            if binds {
                socket.bind(ANSWERS, Scope::Cluster)?;
            } else {
                socket.unbind(ANSWERS, Scope::Cluster)?;
            }
        }
    }
}
