//! The attached applications: coming, going, and which of them a socket belongs to.

use std::io;
use std::iter;
use std::os::fd::OwnedFd;

use hashbrown::HashMap;
use xtipc_protocol::addr::PortId;
use xtipc_protocol::host::{Incoming, Payload};
use xtipc_segment::ChannelNotice;
use xtipc_segment::attach::{Message, Welcome, peer_process, receive_message, send_message};
use xtipc_segment::board::Board;
use xtipc_segment::daemon::DaemonSide;
use xtipc_segment::layout::{Sizes, VERSION};

use super::application::Application;
use super::catching::Catcher;
use super::channels::{self, Channels};
use super::sharing::SharedSockets;

/// With more connections that have not said what they want the oldest has to go, if it is silent for so long.
const STRANGERS_MAX: usize = 64;
/// A program that was started in a crowd says it when it gets a processor.
const SILENCE_MAX_NS: u64 = 1_000_000_000;
/// With more of them it has to go in any case.
const CROWD_MAX: usize = 1024;
/// Attached processes and threads at most.
const APPLICATIONS_MAX: usize = 4096;

/// The worker that owns the segments of the applications.
const SERVING_WORKER: u32 = 0;

/// Index of an application in its table; also part of its tokens.
pub(super) type Slot = usize;

/// A connection to the attach socket.
pub(super) enum Client {
    /// Has said nothing yet.
    Stranger {
        connection: OwnedFd,
        /// When it came.
        since_ns: u64,
    },
    /// Attached.
    Attached(Box<Application>),
}

/// What came of a message on a connection.
pub(super) enum Heard {
    /// Nothing to do.
    Nothing,
    /// It is attached now.
    Attached,
    /// An attached process asks for something.
    Asked(Message, Vec<OwnedFd>),
    /// It is to be let go.
    Gone(String),
}

/// See the module.
#[derive(Default)]
pub(super) struct Applications {
    clients: Vec<Option<Client>>,
    /// Of a shared socket, the first of those who hold it.
    owners: HashMap<PortId, Slot>,
    /// How often messages were handed to a socket of this node, shared ones too.
    pub(super) deliveries: u64,
    /// When the round began that is being worked on: the time stamp of what it delivers.
    pub(super) round_ns: u64,
    pub(super) shared: SharedSockets,
    /// Direct channels.
    pub(super) channels: Channels,
    /// What changes of bindings, once there are channels of datagrams.
    pub(super) board: Option<Board>,
    pub(super) catcher: Catcher,
}

impl Applications {
    /// Takes a new connection; gives its slot, and the slot of a stranger that had to make room.
    pub(super) fn admit(
        &mut self,
        connection: OwnedFd,
        now_ns: u64,
    ) -> Result<(Slot, Option<Slot>), io::Error> {
        if self.iter().count() >= APPLICATIONS_MAX {
            return Err(io::Error::other(format!(
                "{APPLICATIONS_MAX} applications are attached already"
            )));
        }
        rustix::io::ioctl_fionbio(&connection, true)?;
        let strangers = || {
            let all = self.clients.iter().enumerate();
            all.filter_map(|(slot, client)| match client {
                Some(Client::Stranger { since_ns, .. }) => Some((*since_ns, slot)),
                _ => None,
            })
        };
        let limit = |since_ns| match now_ns.saturating_sub(since_ns) < SILENCE_MAX_NS {
            true => CROWD_MAX,
            false => STRANGERS_MAX,
        };
        let oldest = strangers().min();
        let evicted = oldest.filter(|(since_ns, _)| strangers().count() >= limit(*since_ns));
        let slot = match self.clients.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                self.clients.push(None);
                self.clients.len() - 1
            }
        };
        let since_ns = now_ns;
        self.clients[slot] = Some(Client::Stranger {
            connection,
            since_ns,
        });
        Ok((slot, evicted.map(|(_, slot)| slot)))
    }

    /// The connection in a slot.
    pub(super) fn client(&self, slot: Slot) -> Option<&Client> {
        self.clients.get(slot)?.as_ref()
    }

    /// The application in a slot.
    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut Application> {
        match self.clients.get_mut(slot)? {
            Some(Client::Attached(application)) => Some(application),
            _ => None,
        }
    }

    /// The same, to be looked at.
    pub(super) fn get(&self, slot: Slot) -> Option<&Application> {
        match self.client(slot)? {
            Client::Attached(application) => Some(application),
            Client::Stranger { .. } => None,
        }
    }

    /// All applications with their slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Slot, &Application)> {
        self.clients
            .iter()
            .enumerate()
            .filter_map(|(slot, client)| match client {
                Some(Client::Attached(application)) => Some((slot, &**application)),
                _ => None,
            })
    }

    /// Whether an application stands by and has taken all there is for it.
    pub(super) fn any_stands_by(&self) -> bool {
        self.iter()
            .any(|(_, application)| application.side.stands_by_for_news())
    }

    /// The worker is awake: applications need not wake it.
    pub(super) fn note_awake(&mut self) {
        for client in self.clients.iter_mut().flatten() {
            if let Client::Attached(application) = client {
                application.side.awake();
            }
        }
    }

    /// Slots in use lie below this.
    pub(super) fn slots(&self) -> usize {
        self.clients.len()
    }

    /// Empties a slot.
    pub(super) fn remove(&mut self, slot: Slot) -> Option<Client> {
        let client = self.clients.get_mut(slot)?.take();
        self.owners.retain(|_, owner| *owner != slot);
        let owners = &self.owners;
        self.channels
            .retain(|(port, _), _| owners.contains_key(port));
        client
    }

    /// Notes which application a socket belongs to.
    pub(super) fn own(&mut self, port: PortId, slot: Slot) {
        self.owners.insert(port, slot);
    }

    /// A socket is no more.
    pub(super) fn disown(&mut self, port: PortId) {
        channels::end_all(self, port, ChannelNotice::Ended);
        let owner = self.owners.remove(&port);
        // The end of a connection is told in another way.
        let connected = self.channels_of(port).next().map(|(peer, _)| peer);
        if let Some(peer) = connected {
            self.remove_channel(port, peer, owner);
        }
    }

    /// Notes which applications have sockets that senders wait for to read.
    pub(super) fn note_awaited(&mut self, readers: &[PortId]) {
        for client in self.clients.iter_mut().flatten() {
            if let Client::Attached(application) = client {
                application.is_awaited = false;
            }
        }
        for reader in readers {
            let mut number = 0;
            while let Some(slot) = self.holder(*reader, number) {
                if let Some(application) = self.get_mut(slot) {
                    application.is_awaited = true;
                }
                number += 1;
            }
        }
    }

    /// The application a socket belongs to.
    pub(super) fn owner(&self, port: PortId) -> Option<Slot> {
        self.owners.get(&port).copied()
    }

    /// Those who use a socket, one after the other.
    pub(super) fn holder(&self, port: PortId, number: usize) -> Option<Slot> {
        match self.shared.holders(port) {
            Some(holders) => holders.get(number).copied(),
            None if number == 0 => self.owner(port),
            None => None,
        }
    }

    /// Hands a message to the application of a socket.
    pub(super) fn deliver<P: Payload + ?Sized>(
        &mut self,
        port: PortId,
        about: &Incoming,
        payload: &P,
    ) {
        self.deliver_all(port, about, iter::once(payload));
    }

    /// The same of messages that differ in nothing but their bytes.
    pub(super) fn deliver_all<'a, P: Payload + ?Sized + 'a>(
        &mut self,
        port: PortId,
        about: &Incoming,
        mut payloads: impl Iterator<Item = &'a P>,
    ) {
        if self.catcher.awaits(port)
            && let Some(first) = payloads.next()
            && !self.catch(port, about, first)
        {
            self.put_all(port, about, iter::once(first));
        }
        self.put_all(port, about, payloads);
    }

    /// Offers a message to who awaits it. False: it is to be delivered.
    #[cold]
    fn catch<P: Payload + ?Sized>(&mut self, port: PortId, about: &Incoming, payload: &P) -> bool {
        let now_ns = self.round_ns;
        if self.shared.holders(port).is_none()
            && let Some(slot) = self.owner(port)
            && let Some(Client::Attached(application)) = &mut self.clients[slot]
            && !application.has_parked()
            && self.catcher.offer(port, about, payload, now_ns)
        {
            application.delivered += 1;
            return true;
        }
        false
    }

    fn put_all<'a, P: Payload + ?Sized + 'a>(
        &mut self,
        port: PortId,
        about: &Incoming,
        payloads: impl Iterator<Item = &'a P>,
    ) {
        let now_ns = self.round_ns;
        self.deliveries += 1;
        if self.shared.holders(port).is_none()
            && let Some(slot) = self.owner(port)
            && let Some(application) = self.get_mut(slot)
        {
            return application.deliver(port, about, payloads, now_ns);
        }
        for payload in payloads {
            self.deliver_shared(port, about, payload);
        }
    }

    /// Reads what a client says on its connection. `welcome` tells it about the node.
    pub(super) fn listen_to(&mut self, slot: Slot, about: &Welcome) -> Heard {
        let Some(client) = self.clients.get_mut(slot).and_then(Option::as_mut) else {
            return Heard::Nothing;
        };
        let connection = match client {
            Client::Stranger { connection, .. } => &*connection,
            Client::Attached(application) => &application.connection,
        };
        let message = match receive_message(std::os::fd::AsFd::as_fd(connection)) {
            Ok(Some(message)) => message,
            Ok(None) => return Heard::Gone("closed its connection".into()),
            Err(xtipc_segment::attach::ReceiveError::Io(error))
                if error.kind() == io::ErrorKind::WouldBlock =>
            {
                return Heard::Nothing;
            }
            Err(error) => return Heard::Gone(error.to_string()),
        };
        match (message, client) {
            ((Message::Hello { version, worker }, _), Client::Stranger { .. }) => {
                self.attach(slot, version, worker, about)
            }
            ((Message::Watch { socket }, _), Client::Attached(application)) => {
                match watch(application, socket) {
                    Ok(()) => Heard::Nothing,
                    Err(error) => Heard::Gone(error.to_string()),
                }
            }
            ((message, fds), Client::Attached(_)) => Heard::Asked(message, fds),
            ((message, _), Client::Stranger { .. }) => {
                Heard::Gone(format!("said {message:?} out of turn"))
            }
        }
    }

    fn attach(&mut self, slot: Slot, version: u32, worker: Option<u32>, about: &Welcome) -> Heard {
        let Some(Client::Stranger {
            connection,
            since_ns,
        }) = self.clients.get_mut(slot).and_then(Option::take)
        else {
            return Heard::Nothing;
        };
        let outcome = welcome(&connection, version, worker, about);
        match outcome {
            Ok((process, side)) => {
                let application = Application::new(connection, process, side);
                self.clients[slot] = Some(Client::Attached(Box::new(application)));
                Heard::Attached
            }
            Err(reason) => {
                self.clients[slot] = Some(Client::Stranger {
                    connection,
                    since_ns,
                });
                Heard::Gone(reason)
            }
        }
    }
}

fn welcome(
    connection: &OwnedFd,
    version: u32,
    worker: Option<u32>,
    about: &Welcome,
) -> Result<(xtipc_segment::attach::PeerProcess, DaemonSide), String> {
    let fd = std::os::fd::AsFd::as_fd(connection);
    let refuse = |reason: String| {
        let refused = Message::Refused {
            version: VERSION,
            reason: reason.clone(),
        };
        // It may be gone already.
        let _ = send_message(fd, &refused, &[]);
        Err(reason)
    };
    if version != VERSION {
        return refuse(format!(
            "segment version {version} is not known here, {VERSION} is"
        ));
    }
    if let Some(worker) = worker
        && worker != SERVING_WORKER
    {
        return refuse(format!(
            "worker {worker} serves no applications, worker {SERVING_WORKER} does"
        ));
    }
    let process = match peer_process(fd) {
        Ok(process) => process,
        Err(error) => return refuse(format!("cannot identify the process: {error}")),
    };
    let (side, fds) = match DaemonSide::create(&Sizes::default()) {
        Ok(made) => made,
        Err(error) => return refuse(error.to_string()),
    };
    let message = Message::Welcome(*about);
    send_message(fd, &message, &fds.as_fds()).map_err(|error| error.to_string())?;
    Ok((process, side))
}

fn watch(application: &mut Application, socket: u32) -> io::Result<()> {
    let connection = std::os::fd::AsFd::as_fd(&application.connection);
    let known = application.sockets.contains_key(&PortId(socket));
    if !known {
        let result = -libc::EBADF;
        return send_message(connection, &Message::Watching { socket, result }, &[]);
    }
    let read_end = application.side.watch(socket)?;
    let fds = [std::os::fd::AsFd::as_fd(&read_end)];
    send_message(connection, &Message::Watching { socket, result: 0 }, &fds)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn of_many_strangers_the_oldest_goes_but_not_one_that_has_just_come() {
        let mut applications = Applications::default();
        let mut others = Vec::new();
        let mut admit = |since_ns| {
            let (other, ours) = UnixStream::pair().unwrap();
            others.push(other);
            let (_, evicted) = applications.admit(ours.into(), since_ns).unwrap();
            if let Some(evicted) = evicted {
                applications.remove(evicted);
            }
            evicted
        };
        for slot in 0..STRANGERS_MAX {
            // The first slot is not the oldest's.
            assert_eq!(admit(STRANGERS_MAX as u64 - slot as u64), None);
        }
        assert_eq!(admit(SILENCE_MAX_NS), None);
        let oldest = STRANGERS_MAX - 1;
        assert_eq!(admit(SILENCE_MAX_NS + 1), Some(oldest));
        assert_eq!(admit(SILENCE_MAX_NS + 1), None);
        for _ in STRANGERS_MAX + 2..CROWD_MAX {
            assert_eq!(admit(SILENCE_MAX_NS + 1), None);
        }
        assert_eq!(admit(SILENCE_MAX_NS + 1), Some(oldest - 1));
    }
}
