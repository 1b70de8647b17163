//! How a channel comes to be: asked for, offered, mapped, switched to.

use std::os::fd::{AsFd, OwnedFd};

use xtipc_segment::attach::{ChannelOffer, Message, receive_message_now};
use xtipc_segment::board::BoardReader;
use xtipc_segment::channel::{Channel, ChannelFds, Side};
use xtipc_segment::{
    ChannelNotice, Completion, Destination, DestinationName, Importance, Request, SocketAddress,
    Violation,
};

use super::{Direct, Leaving, Outgoing, PAUSE, Waits};
use crate::core::Core;
use crate::pending::Purpose;
use crate::{Error, Result};

/// An offer whose notice was not seen yet.
pub(crate) type Offer = (ChannelOffer, Vec<OwnedFd>);

impl Core {
    /// Goes a step further towards a channel, if it is time for one.
    pub(super) fn promote(&mut self, socket: u32) -> Result<()> {
        let queue = self.queue(socket)?;
        match &mut queue.outgoing {
            Outgoing::Daemon(left) | Outgoing::Offered(left) if *left > 0 => *left -= 1,
            Outgoing::Daemon(_) => {
                let destination = None;
                let purpose = Purpose::MakeChannel {
                    socket,
                    destination,
                };
                let request = |_| Request::MakeChannel { destination };
                if self.submit(socket, &[], request, purpose)?.is_ok() {
                    self.queue(socket)?.outgoing = Outgoing::Asked;
                }
            }
            Outgoing::Offered(_) => {
                let present = |direct: &Direct| direct.channel.is_peer_present();
                if queue.sends_under_way == 0
                    && queue.direct.as_deref().is_some_and(present)
                    && let Ok(tag) = self.submit(
                        socket,
                        &[],
                        |_| Request::SwitchToChannel { peer: 0 },
                        Purpose::SwitchToChannel { socket, peer: 0 },
                    )?
                {
                    self.queue(socket)?.outgoing = Outgoing::Switching(tag);
                }
            }
            Outgoing::Revoked => self.settle_revoked(socket),
            Outgoing::Asked | Outgoing::Switching(_) | Outgoing::Channel | Outgoing::Never => {}
        }
        Ok(())
    }

    /// The daemon has made a channel, or has not.
    pub(crate) fn on_made(
        &mut self,
        socket: u32,
        destination: Option<Destination>,
        completion: &Completion,
    ) {
        if let Some(destination) = destination {
            return self.on_pair_made(socket, destination, completion);
        }
        if let Ok(queue) = self.queue(socket)
            && queue.outgoing == Outgoing::Asked
        {
            queue.outgoing = match -completion.result {
                // A notice follows.
                0 | libc::EALREADY => Outgoing::Asked,
                libc::EAGAIN => Outgoing::Daemon(PAUSE),
                _ => Outgoing::Never,
            };
        }
    }

    /// What the socket sends goes by the channel from now on, or does not.
    pub(crate) fn on_switched(&mut self, socket: u32, peer: u32, completion: &Completion) {
        if peer != 0 {
            return self.on_pair_switched(socket, peer, completion);
        }
        let Ok(queue) = self.queue(socket) else {
            return;
        };
        if !matches!(queue.outgoing, Outgoing::Switching(_)) {
            return;
        }
        queue.outgoing = match (-completion.result, &mut queue.direct) {
            (0, Some(direct)) => {
                let [flow, options] = completion.values;
                let (unacked, window) = (flow as u32, (flow >> 32) as u32);
                direct.channel.sender.begin(unacked, window);
                direct.importance =
                    Importance::from_number(options as u32 & 0xff).unwrap_or_default();
                direct.droppable = options >> 8 & 1 != 0;
                Outgoing::Channel
            }
            (libc::EAGAIN, _) => Outgoing::Offered(PAUSE),
            _ => Outgoing::Never,
        };
    }

    /// The daemon tells of a channel.
    pub(crate) fn on_notice(
        &mut self,
        socket: u32,
        peer: SocketAddress,
        payload: &[u8],
    ) -> std::result::Result<(), Violation> {
        let notice = ChannelNotice::decode(payload)?;
        if peer.port != 0 {
            self.on_pair_notice(socket, peer, notice);
            return Ok(());
        }
        let Ok(queue) = self.queue(socket) else {
            return Ok(());
        };
        match (notice, &mut queue.direct) {
            (ChannelNotice::Made, _) => self.unmapped.push((socket, 0)),
            (ChannelNotice::Switched { unacked }, Some(direct)) => {
                direct.take_over = Some(unacked);
                queue.by_channel = true;
                queue.settle_take_over();
            }
            // This side has left the channel, and the peer hears of that before it sends.
            (ChannelNotice::Switched { .. }, None) => {}
            (ChannelNotice::Idle, _) => self.leaving.push(Leaving {
                socket,
                peer: 0,
                notice,
            }),
            (ChannelNotice::Return | ChannelNotice::Left | ChannelNotice::Ended, _) => {}
        }
        Ok(())
    }

    /// Maps channels whose notices came. While another thread talks on the attach socket it takes the offers off there, and
    /// this comes later.
    pub(crate) fn map_offered(&mut self) {
        if self.unmapped.is_empty() {
            return;
        }
        while !self.conversing
            && let Ok(Some((message, fds))) = receive_message_now(self.socket.as_fd())
        {
            if let Message::Channel(offer) = message
                && self.direct_after > 0
            {
                self.note_offer((offer, fds));
            }
        }
        let conversing = self.conversing;
        let mut unmapped = std::mem::take(&mut self.unmapped);
        unmapped.retain(|(socket, peer)| {
            let offered = self.offers.iter().position(|(offer, _)| {
                offer.socket == *socket && (*peer == 0 || offer.peer.port == *peer)
            });
            if let Some(at) = offered {
                let offer = self.offers.swap_remove(at);
                // Without memory or descriptors the peer never sees this side, and all goes by the daemon.
                let _ = self.map_channel(offer, *peer);
            }
            offered.is_none() && conversing
        });
        self.unmapped = unmapped;
    }

    /// Keeps an offer until its notice is seen, instead of an older one, whose channel did not come to be.
    pub(crate) fn note_offer(&mut self, offer: Offer) {
        let ends = |offer: &Offer| (offer.0.socket, offer.0.peer.port);
        self.offers.retain(|older| ends(older) != ends(&offer));
        self.offers.push(offer);
    }

    fn map_channel(&mut self, (offer, fds): Offer, peer: u32) -> Result<()> {
        let lacking = || Error::from_result(-libc::EMFILE);
        if let Some(board) = fds.get(3)
            && self.board.is_none()
        {
            self.board = Some(BoardReader::map(board)?);
        }
        let fds = ChannelFds::from_fds(fds).ok_or_else(lacking)?;
        let side = Side::of_number(offer.side).ok_or_else(lacking)?;
        let channel = Channel::map(fds, side, offer.receive_window)?;
        channel.acknowledger.set_window(offer.next_window);
        self.bells.add(channel.rung.as_fd())?;
        if peer != 0 {
            return self.add_pair(offer, channel);
        }
        let queue = self.queue(offer.socket)?;
        queue.direct = Some(Box::new(Direct {
            channel,
            peer: offer.peer,
            name: offer
                .name
                .map_or(DestinationName::None, DestinationName::Service),
            importance: Importance::default(),
            droppable: false,
            room_awaited: false,
            waits: Waits::default(),
            watched: false,
            unclear: 0,
            take_over: None,
            sends: 0,
        }));
        queue.watch_channel()?;
        if matches!(queue.outgoing, Outgoing::Daemon(_) | Outgoing::Asked) {
            queue.outgoing = Outgoing::Offered(0);
        }
        self.channelled.push(offer.socket);
        Ok(())
    }
}
