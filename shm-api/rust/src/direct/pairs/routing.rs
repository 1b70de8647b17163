//! Which way a datagram goes.

use xtipc_segment::channel::{Envelope, Sending};
use xtipc_segment::{Completion, Destination, Request, ServiceAddress, address_of_value};

use super::super::{Outgoing, PAUSE};
use super::{Pair, Partners};
use crate::Result;
use crate::core::Core;
use crate::pending::Purpose;

/// Destinations without a channel that are told apart.
const ROUTES_MAX: usize = 64;

/// What is to be done with a datagram.
pub(crate) enum PairWay {
    /// It was sent by the channel, and the peer stands by or not.
    Sent(bool),
    /// It has to wait for the answer to a request.
    Switching(u64),
    /// It has to wait for this peer to tell whether it took the message of this number, if that is this one.
    Revoked(u32, Option<u32>),
    /// It is to be given to the daemon, and [`Core::note_sent`] called when that has it.
    Daemon,
}

/// How far a destination is from having a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leads {
    /// So many messages until a channel is asked for.
    Counting(u32),
    /// The daemon was asked.
    Asked,
    /// One socket is bound to the service: that of this port, since the board has shown this.
    To { port: u32, since: u32 },
    /// There is none.
    Nowhere,
}

/// Destinations that messages are sent to: services, and sockets as long as there is no channel.
#[derive(Debug, Default)]
pub(super) struct Routes {
    all: Vec<(Destination, Leads)>,
    /// The one used last.
    last: usize,
    /// The one to give way next.
    next: usize,
}

impl Routes {
    fn get(&mut self, destination: Destination) -> Option<&mut Leads> {
        let is_it = |route: &(Destination, Leads)| route.0 == destination;
        if !self.all.get(self.last).is_some_and(is_it) {
            self.last = self.all.iter().position(is_it)?;
        }
        self.all.get_mut(self.last).map(|(_, leads)| leads)
    }

    fn add(&mut self, destination: Destination, leads: Leads) {
        if self.all.len() < ROUTES_MAX {
            self.all.push((destination, leads));
        } else {
            self.next = (self.next + 1) % ROUTES_MAX;
            self.all[self.next] = (destination, leads);
        }
    }

    fn remove(&mut self, destination: Destination) {
        self.all.retain(|(other, _)| *other != destination);
    }
}

impl Core {
    /// Finds the way for a datagram, and sends it if that is a channel.
    pub(super) fn route_datagram(
        &mut self,
        socket: u32,
        destination: Option<Destination>,
        payload: &[u8],
    ) -> Result<PairWay> {
        let partners = self.queue(socket)?.partners();
        let destination = destination.or(partners.default_destination);
        match destination {
            _ if partners.is_member => self.send_to_unknown(socket),
            Some(Destination::Socket(peer)) => {
                let is_it = |pair: &&mut Pair| peer.node == 0 || peer.node == pair.peer.node;
                if partners.pair(peer.port).filter(is_it).is_some() {
                    return self.send_to_pair(socket, peer.port, None, payload);
                }
                self.approach(socket, Destination::Socket(peer))?;
                self.by_daemon_to_partner(socket)
            }
            Some(service @ Destination::Service { address, .. }) => {
                if let Some(port) = self.sole_receiver(socket, service, address.type_)? {
                    return self.send_to_pair(socket, port, Some(address), payload);
                }
                self.approach(socket, service)?;
                self.send_to_unknown(socket)
            }
            _ => self.send_to_unknown(socket),
        }
    }

    /// The one socket that is bound to a service, if that is known and there is a channel to it.
    fn sole_receiver(
        &mut self,
        socket: u32,
        service: Destination,
        type_: u32,
    ) -> Result<Option<u32>> {
        let generation = self.board.as_ref().map(|board| board.generation(type_));
        let partners = self.queue(socket)?.partners();
        let Some(leads) = partners.routes.get(service) else {
            return Ok(None);
        };
        let Leads::To { port, since } = *leads else {
            return Ok(None);
        };
        if generation != Some(since) {
            *leads = Leads::Counting(PAUSE);
            return Ok(None);
        }
        Ok(partners.pair(port).map(|pair| pair.peer.port))
    }

    fn send_to_pair(
        &mut self,
        socket: u32,
        peer: u32,
        name: Option<ServiceAddress>,
        payload: &[u8],
    ) -> Result<PairWay> {
        let partners = self.queue(socket)?.partners();
        let envelope = Envelope {
            importance: partners.importance,
            droppable: partners.droppable,
            name,
        };
        let sent = match partners.pair(peer) {
            Some(pair) if pair.outgoing == Outgoing::Channel => {
                pair.count_send();
                let sender = &mut pair.channel.sender;
                let sent = sender.send_datagram(&envelope, payload, pair.credit);
                match sent {
                    Ok(Sending::Done) => return Ok(PairWay::Sent(sender.is_awaited())),
                    Ok(Sending::Revoked(number)) => {
                        pair.outgoing = Outgoing::Revoked;
                        pair.unclear += u32::from(number.is_some());
                        return Ok(PairWay::Revoked(peer, number));
                    }
                    Ok(Sending::Congested) => pair.go_back(),
                    Err(violation) => Err(violation),
                }
            }
            _ => return self.promote_pair(socket, peer),
        };
        if let Err(violation) = sent {
            self.abandon(socket, peer, violation);
        }
        self.by_daemon_to_partner(socket)
    }

    /// Several sockets may get what is sent, or one that the daemon chooses: for the sake of order nothing goes by channels
    /// meanwhile.
    fn send_to_unknown(&mut self, socket: u32) -> Result<PairWay> {
        let mut at = 0;
        while let Some(pair) = self.queue(socket)?.pairs().get_mut(at) {
            let port = pair.peer.port;
            if let Outgoing::Switching(tag) = pair.outgoing {
                return Ok(PairWay::Switching(tag));
            }
            if pair.is_unsettled() {
                return Ok(PairWay::Revoked(port, None));
            }
            match pair.go_back() {
                Ok(()) => at += 1,
                Err(violation) => self.abandon(socket, port, violation),
            }
        }
        self.by_daemon_to_partner(socket)
    }

    fn by_daemon_to_partner(&mut self, socket: u32) -> Result<PairWay> {
        self.queue(socket)?.sends_under_way += 1;
        Ok(PairWay::Daemon)
    }

    /// Asks for a channel to a destination that has none, if it is time for that.
    fn approach(&mut self, socket: u32, destination: Destination) -> Result<()> {
        let direct_after = self.direct_after;
        let routes = &mut self.queue(socket)?.partners().routes;
        let Some(leads) = routes.get(destination) else {
            routes.add(destination, Leads::Counting(direct_after - 1));
            return Ok(());
        };
        match leads {
            Leads::Counting(0) => {
                let purpose = Purpose::MakeChannel {
                    socket,
                    destination: Some(destination),
                };
                let request = |_| Request::MakeChannel {
                    destination: Some(destination),
                };
                if self.submit(socket, &[], request, purpose)?.is_ok()
                    && let Some(leads) = self.queue(socket)?.partners().routes.get(destination)
                {
                    *leads = Leads::Asked;
                }
            }
            Leads::Counting(left) => *left -= 1,
            // The channel is not there yet, or no more.
            Leads::To { .. } => *leads = Leads::Counting(PAUSE),
            Leads::Asked | Leads::Nowhere => {}
        }
        Ok(())
    }

    /// So many messages to a destination were given to the daemon without their way being looked for.
    pub(crate) fn note_posted(&mut self, socket: u32, destination: Destination, count: usize) {
        let Ok(queue) = self.queue(socket) else {
            return;
        };
        let partners = queue.partners();
        let leads = partners.routes.get(destination);
        let port = match (leads, destination) {
            (Some(Leads::Counting(left)), _) => {
                *left = left.saturating_sub(count as u32);
                return;
            }
            (Some(Leads::To { port, .. }), _) => *port,
            (None, Destination::Socket(peer)) => peer.port,
            _ => return,
        };
        if let Some(pair) = partners.pair(port)
            && let Outgoing::Offered(left) = &mut pair.outgoing
        {
            *left = left.saturating_sub(count as u32);
        }
    }

    /// Goes a step further towards sending by the channel that there is.
    fn promote_pair(&mut self, socket: u32, peer: u32) -> Result<PairWay> {
        let queue = self.queue(socket)?;
        let quiet = queue.sends_under_way == 0;
        let Some(pair) = queue.pair(peer) else {
            return self.by_daemon_to_partner(socket);
        };
        if pair.is_unsettled() {
            return Ok(PairWay::Revoked(peer, None));
        }
        match pair.outgoing {
            Outgoing::Switching(tag) => return Ok(PairWay::Switching(tag)),
            Outgoing::Offered(0) if quiet && pair.channel.is_peer_present() => {
                // What the channel still holds of earlier times shows that its reader is slow.
                if pair.channel.sender.unread() != Ok(0) {
                    pair.outgoing = Outgoing::Offered(PAUSE);
                    return self.by_daemon_to_partner(socket);
                }
                let request = |_| Request::SwitchToChannel { peer };
                let purpose = Purpose::SwitchToChannel { socket, peer };
                if let Ok(tag) = self.submit(socket, &[], request, purpose)?
                    && let Some(pair) = self.queue(socket)?.pair(peer)
                {
                    pair.outgoing = Outgoing::Switching(tag);
                    return Ok(PairWay::Switching(tag));
                }
            }
            Outgoing::Offered(left) => pair.outgoing = Outgoing::Offered(left.saturating_sub(1)),
            _ => {}
        }
        self.by_daemon_to_partner(socket)
    }

    /// The daemon has made a channel to a destination, or has not.
    pub(in crate::direct) fn on_pair_made(
        &mut self,
        socket: u32,
        destination: Destination,
        completion: &Completion,
    ) {
        let Ok(queue) = self.queue(socket) else {
            return;
        };
        let routes = &mut queue.partners().routes;
        if let Some(leads) = routes.get(destination) {
            match -completion.result {
                // A notice follows, or has come.
                0 => match destination {
                    Destination::Service { .. } => {
                        let [peer, since] = completion.values;
                        let port = address_of_value(peer).port;
                        let since = since as u32;
                        *leads = Leads::To { port, since };
                    }
                    _ => routes.remove(destination),
                },
                libc::EAGAIN => *leads = Leads::Counting(PAUSE),
                _ => *leads = Leads::Nowhere,
            }
        }
    }
}

impl Pair {
    /// Sends by the daemon for a while, if it does not already.
    pub(super) fn go_back(&mut self) -> std::result::Result<(), xtipc_segment::Violation> {
        if self.outgoing == Outgoing::Channel {
            self.outgoing = match self.channel.sender.switch_back()? {
                Sending::Revoked(_) => Outgoing::Revoked,
                // There is always an entry left for that.
                Sending::Done | Sending::Congested => Outgoing::Offered(PAUSE),
            };
        }
        Ok(())
    }

    /// Whether the peer takes nothing more, and has not told what it took. Once it has, nothing is sent by the channel.
    pub(super) fn is_unsettled(&mut self) -> bool {
        if self.outgoing == Outgoing::Revoked && self.channel.sender.was_taken(0).is_some() {
            self.outgoing = Outgoing::Never;
        }
        self.outgoing == Outgoing::Revoked
    }
}

impl Partners {
    pub(super) fn set_default_destination(&mut self, destination: Option<Destination>) {
        self.default_destination = destination;
    }
}
