//! How the channel of a pair comes to be.

use std::collections::VecDeque;

use xtipc_segment::attach::ChannelOffer;
use xtipc_segment::channel::Channel;
use xtipc_segment::{ChannelNotice, Completion, Importance, Request, SocketAddress, option};

use super::super::leaving::Leaving;
use super::super::{Outgoing, PAUSE};
use super::{Pair, Partners};
use crate::Result;
use crate::core::{Core, Queue};

/// Sends between two looks at the processor.
const SENDS_PER_LOOK: u64 = 64;

impl Core {
    /// The channel that was offered is mapped.
    pub(in crate::direct) fn add_pair(
        &mut self,
        offer: ChannelOffer,
        channel: Channel,
    ) -> Result<()> {
        let queue = self.queue(offer.socket)?;
        queue.partners().pairs.push(Pair {
            channel,
            peer: offer.peer,
            outgoing: Outgoing::Offered(0),
            credit: 0,
            by_channel: false,
            later: VecDeque::new(),
            watched: false,
            unclear: 0,
        });
        queue.watch_pairs()?;
        if !self.channelled.contains(&offer.socket) {
            self.channelled.push(offer.socket);
        }
        Ok(())
    }

    /// The daemon tells of the channel to this peer.
    pub(in crate::direct) fn on_pair_notice(
        &mut self,
        socket: u32,
        peer: SocketAddress,
        notice: ChannelNotice,
    ) {
        let Ok(queue) = self.queue(socket) else {
            return;
        };
        let pair = queue.pair(peer.port);
        match notice {
            ChannelNotice::Made => self.unmapped.push((socket, peer.port)),
            ChannelNotice::Switched { .. } => {
                if let Some(pair) = pair {
                    pair.by_channel = true;
                }
            }
            ChannelNotice::Return => {
                if let Some(Err(violation)) = pair.map(Pair::go_back) {
                    self.abandon(socket, peer.port, violation);
                }
            }
            ChannelNotice::Idle | ChannelNotice::Left | ChannelNotice::Ended => {
                if notice != ChannelNotice::Idle {
                    // There is nothing to map any more.
                    let is_it = |offer: &ChannelOffer| {
                        offer.socket == socket && offer.peer.port == peer.port
                    };
                    self.unmapped.retain(|ends| *ends != (socket, peer.port));
                    self.offers.retain(|(offer, _)| !is_it(offer));
                }
                let leaving = Leaving {
                    socket,
                    peer: peer.port,
                    notice,
                };
                // At once, if possible: what the daemon delivers next comes behind what is in the channel.
                if !self.leave_pair(leaving) {
                    self.leaving.push(leaving);
                }
            }
        }
    }

    /// What the socket sends to this peer goes by the channel from now on, or does not.
    pub(in crate::direct) fn on_pair_switched(
        &mut self,
        socket: u32,
        peer: u32,
        completion: &Completion,
    ) {
        let Ok(queue) = self.queue(socket) else {
            return;
        };
        let Some(pair) = queue.pair(peer) else {
            return;
        };
        if !matches!(pair.outgoing, Outgoing::Switching(_)) {
            return;
        }
        pair.outgoing = match -completion.result {
            0 => Outgoing::Channel,
            libc::EAGAIN => Outgoing::Offered(PAUSE),
            _ => Outgoing::Never,
        };
        if completion.result == 0 {
            let [credit, options] = completion.values;
            pair.credit = credit;
            let partners = queue.partners();
            partners.importance =
                Importance::from_number(options as u32 & 0xff).unwrap_or_default();
            partners.droppable = options >> 8 & 1 != 0;
        }
    }
}

impl Queue {
    /// Something was set that decides on the way of datagrams, or goes with them.
    pub(in crate::direct) fn note_datagram_setting(&mut self, request: Request) {
        let partners: &mut Partners = self.partners();
        match request {
            Request::Connect { destination, .. } => partners.set_default_destination(destination),
            Request::JoinGroup { .. } => partners.is_member = true,
            Request::LeaveGroup => partners.is_member = false,
            Request::SetOption { option, value } if option == option::IMPORTANCE => {
                partners.importance = Importance::from_number(value).unwrap_or_default();
            }
            Request::SetOption { option, value } if option == option::DEST_DROPPABLE => {
                partners.droppable = value != 0;
            }
            _ => {}
        }
    }
}

impl Pair {
    /// Tells the peer now and then where this side runs.
    pub(super) fn count_send(&mut self) {
        if self.channel.sender.count().is_multiple_of(SENDS_PER_LOOK) {
            self.tell_processor();
        }
    }

    pub(in crate::direct) fn tell_processor(&self) -> u32 {
        let own = rustix::thread::sched_getcpu() as u32;
        self.channel.sleep.run_on(own);
        own
    }
}
