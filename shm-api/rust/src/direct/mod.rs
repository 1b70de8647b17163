//! Direct channels of the attachment's sockets (`docs/protocol/channels.md`).
//!
//! A channel is one more source of a socket's queue, and one more way for what it sends; nobody else need know of it. After
//! some messages the library asks the daemon for a channel; the daemon offers it to both ends. Each end then switches
//! what it sends, when the other one has mapped the channel and nothing of its own is under way by the daemon. The notice of
//! that stands in the peer's queue, behind what came by the daemon; what comes by the daemon later waits until the
//! channel was read up to the switch back, or to the end of the connection.
//!
//! All of it is under the attachment's lock, but what tells the peer of consumption, which is in the messages.

mod calls;
mod waits;

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll;
use xtipc_segment::application::Place;
use xtipc_segment::attach::{ChannelOffer, Message, receive_message_now};
use xtipc_segment::channel::{Channel, ChannelFds, Incoming, Loan, Lookout, Sending, Side};
use xtipc_segment::{
    ChannelNotice, Completion, DestinationName, Importance, MESSAGE_LEN_MAX, Meta, Ready, Request,
    SocketAddress, Violation,
};

use crate::buffer::Buffer;
use crate::core::{Core, Interest, Queue};
use crate::pending::Purpose;
use crate::sharing::ReadPart;
use crate::{Error, Result};
use waits::{Waits, now_ns};

/// Messages by the daemon before it is asked again for what it could not do.
const PAUSE: u32 = 64;
/// Of an unread message that comes back.
const RETURNED_MAX: usize = 1024;
/// Bytes for each unit of the window in the receive buffer.
const BUFFER_PER_UNIT: u32 = 4096;
/// Errcode of a socket that is not there.
const NO_PORT: u8 = 2;
/// Sends between two looks at the processor.
const SENDS_PER_LOOK: u32 = 64;

/// Which way a socket sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Outgoing {
    /// By the daemon; so many messages until a channel is asked for.
    Daemon(u32),
    /// By the daemon, which was asked for a channel.
    Asked,
    /// By the daemon; there is a channel, so many messages until the next attempt to switch.
    Offered(u32),
    /// The request to switch is under way: nothing can be sent.
    Switching(u64),
    /// By the channel.
    Channel,
    /// By the daemon, once the peer has told what it took of the channel.
    Revoked,
    /// By the daemon, for ever.
    #[default]
    Never,
}

/// What is to be done with a message to be sent.
pub(crate) enum Way {
    /// It was sent by the channel.
    Sent,
    /// It has to wait for the peer to read.
    Congested,
    /// It has to wait for the answer to a request.
    Switching(u64),
    /// It has to wait for the peer to tell whether it took the message of this number, if that is this one.
    Revoked(Option<u32>),
    /// It is to be given to the daemon, and [`Core::note_sent`] called when that has answered.
    Daemon,
}

/// The channel of a socket.
#[derive(Debug)]
pub(crate) struct Direct {
    channel: Channel,
    peer: SocketAddress,
    name: DestinationName,
    importance: Importance,
    /// What is not read is dropped, and does not come back.
    droppable: bool,
    /// Somebody waits to be able to send.
    room_awaited: bool,
    /// How it waits, for who looks on.
    waits: Waits,
    /// The bell is in a descriptor that the program polls.
    watched: bool,
    /// Units unacknowledged of what came by the daemon, until all of that was taken out of the queue.
    take_over: Option<u32>,
    sends: u32,
}

/// An offer whose notice was not seen yet.
pub(crate) type Offer = (ChannelOffer, Vec<OwnedFd>);

impl Queue {
    /// Takes the next message out, with its bytes readable.
    pub(crate) fn pop(&mut self) -> Option<(Meta, Buffer)> {
        let (meta, mut buffer) = self.pop_shared()?;
        buffer.make_own();
        Some((meta, buffer))
    }

    /// What was read of the first message, for the daemon; of one that came by the channel the rest goes there.
    pub(crate) fn take_read_part(&mut self) -> ReadPart {
        if self.read > 0
            && let Some((_, Buffer::Direct(direct))) = self.messages.front()
        {
            direct.consumed();
            let rest = direct[std::mem::take(&mut self.read)..].to_vec();
            self.messages.pop_front();
            return ReadPart { read: 0, rest };
        }
        ReadPart {
            read: self.read,
            rest: Vec::new(),
        }
    }

    /// The same; what was loaned stays where it is.
    pub(crate) fn pop_shared(&mut self) -> Option<(Meta, Buffer)> {
        let message = self.messages.pop_front()?;
        self.settle_take_over();
        Some(message)
    }

    /// What the daemon delivered.
    pub(crate) fn arrive(&mut self, meta: Meta, buffer: Buffer) {
        if self.by_channel {
            self.later.push_back((meta, buffer));
        } else {
            self.messages.push_back((meta, buffer));
        }
    }

    /// What came by the daemon before the switch was taken out: the peer may send as much again.
    fn settle_take_over(&mut self) {
        let by_daemon = |message: &(Meta, Buffer)| matches!(message.1, Buffer::Delivered(_));
        if let Some(direct) = &mut self.direct
            && direct.take_over.is_some()
            && !self.messages.front().is_some_and(by_daemon)
            && let Some(units) = direct.take_over.take()
        {
            direct.channel.acknowledger.take_over(units);
        }
    }

    /// What comes next comes by the daemon.
    fn leave_channel(&mut self) {
        self.by_channel = false;
        let mut later = std::mem::take(&mut self.later);
        self.messages.append(&mut later);
    }

    /// Whether a message could be sent by the channel now. `None`: it would not go there.
    pub(crate) fn may_send(&mut self) -> Option<bool> {
        let direct = match self.outgoing {
            Outgoing::Channel => self.direct.as_mut()?,
            Outgoing::Revoked => return self.was_taken(0).is_none().then_some(false),
            _ => return None,
        };
        let may = direct.channel.sender.may_send().unwrap_or(true);
        direct.room_awaited = !may;
        Some(may)
    }

    /// Of a channel that the peer has revoked: whether it took the message of this number. `None`: that is not known yet.
    pub(crate) fn was_taken(&mut self, number: u32) -> Option<bool> {
        let Outgoing::Revoked = self.outgoing else {
            // The connection ended meanwhile.
            return Some(false);
        };
        let Some(direct) = &mut self.direct else {
            return Some(false);
        };
        let taken = direct.channel.sender.was_taken(number);
        direct.room_awaited = taken.is_none();
        taken
    }

    /// The option of the socket was set.
    pub(crate) fn set_importance(&mut self, importance: Importance) {
        if let Some(direct) = &mut self.direct {
            direct.importance = importance;
        }
    }

    /// The option of the socket was set.
    pub(crate) fn set_droppable(&mut self, droppable: bool) {
        if let Some(direct) = &mut self.direct {
            direct.droppable = droppable;
        }
    }

    /// The receive buffer has this size now.
    pub(crate) fn set_receive_buffer(&mut self, bytes: u32) {
        if let Some(direct) = &self.direct {
            let units = (bytes / BUFFER_PER_UNIT).clamp(1, u16::MAX.into());
            direct.channel.acknowledger.set_window(units);
        }
    }

    /// The program polls a descriptor: the peer's bell is to make it readable.
    pub(crate) fn watch_channel(&mut self) -> Result<()> {
        if let (Some(watch), Some(direct)) = (&self.watch, &mut self.direct)
            && !direct.watched
        {
            watch.add(direct.channel.rung.as_fd())?;
            direct.watched = true;
            direct.channel.sleep.announce(true);
        }
        Ok(())
    }

    /// Makes the descriptor that the program polls unreadable as far as the channel is concerned. To be followed by a look
    /// at the channel.
    pub(crate) fn silence_channel(&mut self) {
        if let Some(direct) = &mut self.direct {
            direct.silence();
            direct.channel.sleep.announce(true);
        }
    }
}

impl Direct {
    fn silence(&self) {
        // Empty is as good as emptied.
        let _ = rustix::io::read(&self.channel.rung, &mut [0u8; 256]);
    }
}

impl Core {
    /// Finds the way for a message of a connection, and sends it if that is the channel.
    pub(crate) fn route(&mut self, socket: u32, payload: &[u8]) -> Result<Way> {
        let queue = self.queue(socket)?;
        if queue.outgoing == Outgoing::Channel
            && let Some(direct) = &mut queue.direct
        {
            direct.sends = direct.sends.wrapping_add(1);
            if direct.sends.is_multiple_of(SENDS_PER_LOOK) {
                direct.tell_processor();
            }
            return match direct.channel.sender.send(direct.importance, payload) {
                Ok(Sending::Done) => {
                    direct.note_sent();
                    Ok(Way::Sent)
                }
                Ok(Sending::Congested) => {
                    direct.note_refused();
                    Ok(Way::Congested)
                }
                Ok(Sending::Revoked(number)) => {
                    queue.outgoing = Outgoing::Revoked;
                    Ok(Way::Revoked(number))
                }
                Err(violation) => {
                    self.abort_connection(socket, violation)?;
                    Ok(self.by_daemon(socket)?)
                }
            };
        }
        self.promote(socket)?;
        match self.queue(socket)?.outgoing {
            Outgoing::Switching(tag) => Ok(Way::Switching(tag)),
            Outgoing::Revoked => Ok(Way::Revoked(None)),
            _ => self.by_daemon(socket),
        }
    }

    /// Memory of a channel for a message. `None`: there is no channel, or no room in it.
    pub(crate) fn loan(&mut self, socket: u32, len: usize) -> Result<Option<Loan>> {
        let queue = self.queue(socket)?;
        match &mut queue.direct {
            Some(direct) if queue.outgoing == Outgoing::Channel => {
                Ok(direct.channel.sender.loan(len).unwrap_or_default())
            }
            _ => Ok(None),
        }
    }

    /// Takes a loan back that was not sent.
    pub(crate) fn take_loan_back(&mut self, socket: u32, loan: Loan) {
        if let Ok(queue) = self.queue(socket)
            && let Some(direct) = &mut queue.direct
        {
            direct.channel.sender.take_back(loan);
            if direct.room_awaited {
                // Who waits for it may be asleep, and wakes when the daemon answers something.
                let nothing = Request::Cancel { tag: 0 };
                let _ = self.submit(socket, &[], |_| nothing, Purpose::Forget);
            }
        }
    }

    /// Sends a loan. `None`: there is no channel any more, nor a connection.
    pub(crate) fn send_by_channel(
        &mut self,
        socket: u32,
        loan: Loan,
    ) -> Option<Result<std::result::Result<Sending, (Loan, Sending)>>> {
        let queue = self.queue(socket).ok()?;
        if queue.outgoing != Outgoing::Channel {
            return Some(Ok(Err((loan, Sending::Revoked(None)))));
        }
        let direct = queue.direct.as_mut()?;
        Some(
            match direct.channel.sender.send_loan(direct.importance, loan) {
                Ok(sent) => {
                    match &sent {
                        Err((_, Sending::Congested)) => direct.note_refused(),
                        Ok(Sending::Done) => direct.note_sent(),
                        Ok(Sending::Revoked(_)) | Err((_, Sending::Revoked(_))) => {
                            queue.outgoing = Outgoing::Revoked;
                        }
                        _ => {}
                    }
                    Ok(sent)
                }
                Err(violation) => match self.abort_connection(socket, violation) {
                    Ok(()) => Err(Error::from_result(-libc::ECONNRESET)),
                    Err(error) => Err(error),
                },
            },
        )
    }

    /// A message that was sent by a channel, and was too late.
    pub(crate) fn sent_by_channel(&mut self, socket: u32, number: u32) -> Vec<u8> {
        let direct = self
            .queue(socket)
            .ok()
            .and_then(|queue| queue.direct.as_ref());
        direct.map_or_else(Vec::new, |direct| {
            direct.channel.sender.sent(number, MESSAGE_LEN_MAX)
        })
    }

    fn by_daemon(&mut self, socket: u32) -> Result<Way> {
        self.queue(socket)?.sends_under_way += 1;
        Ok(Way::Daemon)
    }

    /// The daemon has answered a send.
    pub(crate) fn note_sent(&mut self, socket: u32) {
        if let Ok(queue) = self.queue(socket) {
            queue.sends_under_way -= 1;
        }
    }

    /// Goes a step further towards a channel, if it is time for one.
    fn promote(&mut self, socket: u32) -> Result<()> {
        let queue = self.queue(socket)?;
        match &mut queue.outgoing {
            Outgoing::Daemon(left) | Outgoing::Offered(left) if *left > 0 => *left -= 1,
            Outgoing::Daemon(_) => {
                let purpose = Purpose::MakeChannel(socket);
                if self
                    .submit(socket, &[], |_| Request::MakeChannel, purpose)?
                    .is_ok()
                {
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
                        |_| Request::SwitchToChannel,
                        Purpose::SwitchToChannel(socket),
                    )?
                {
                    self.queue(socket)?.outgoing = Outgoing::Switching(tag);
                }
            }
            Outgoing::Revoked => {
                if queue.was_taken(0).is_some() {
                    self.end_sending(socket);
                }
            }
            Outgoing::Asked | Outgoing::Switching(_) | Outgoing::Channel | Outgoing::Never => {}
        }
        Ok(())
    }

    /// The daemon has made a channel, or has not.
    pub(crate) fn on_made(&mut self, socket: u32, result: i32) {
        if let Ok(queue) = self.queue(socket)
            && queue.outgoing == Outgoing::Asked
        {
            queue.outgoing = match -result {
                // A notice follows.
                0 | libc::EALREADY => Outgoing::Asked,
                libc::EAGAIN => Outgoing::Daemon(PAUSE),
                _ => Outgoing::Never,
            };
        }
    }

    /// What the socket sends goes by the channel from now on, or does not.
    pub(crate) fn on_switched(&mut self, socket: u32, completion: &Completion) {
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
        payload: &[u8],
    ) -> std::result::Result<(), Violation> {
        let notice = ChannelNotice::decode(payload)?;
        let Ok(queue) = self.queue(socket) else {
            return Ok(());
        };
        match (notice, &mut queue.direct) {
            (ChannelNotice::Made, _) => self.unmapped.push(socket),
            (ChannelNotice::Switched { unacked }, Some(direct)) => {
                direct.take_over = Some(unacked);
                queue.by_channel = true;
                queue.settle_take_over();
            }
            // This side has left the channel, and the peer hears of that before it sends.
            (ChannelNotice::Switched { .. }, None) => {}
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
                self.offers.push((offer, fds));
            }
        }
        let conversing = self.conversing;
        let mut unmapped = std::mem::take(&mut self.unmapped);
        unmapped.retain(|socket| {
            let offered = self
                .offers
                .iter()
                .position(|offer| offer.0.socket == *socket);
            if let Some(at) = offered {
                let offer = self.offers.swap_remove(at);
                // Without memory or descriptors the peer never sees this side, and all goes by the daemon.
                let _ = self.map_channel(offer);
            }
            offered.is_none() && conversing
        });
        self.unmapped = unmapped;
    }

    fn map_channel(&mut self, (offer, fds): Offer) -> Result<()> {
        let lacking = || Error::from_result(-libc::EMFILE);
        let fds = ChannelFds::from_fds(fds).ok_or_else(lacking)?;
        let side = Side::of_number(offer.side).ok_or_else(lacking)?;
        let channel = Channel::map(fds, side, offer.receive_window)?;
        channel.acknowledger.set_window(offer.next_window);
        let bells = self.bells()?;
        let data = epoll::EventData::new_u64(offer.socket.into());
        epoll::add(&bells, &channel.rung, data, epoll::EventFlags::IN)
            .map_err(std::io::Error::from)?;
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

    /// Whether a message could be sent by the channel now; if not, the program is to hear when it can. `None`: it would not go
    /// there.
    pub(crate) fn await_room(&mut self, socket: u32) -> Result<Option<bool>> {
        let queue = self.queue(socket)?;
        if queue.may_send() != Some(false) || queue.watch.is_none() {
            return Ok(queue.may_send());
        }
        queue.silence_channel();
        self.pull_all();
        Ok(self.queue(socket)?.may_send())
    }

    /// Takes what came by channels, and notes where there is room again.
    pub(crate) fn pull_all(&mut self) {
        let mut at = 0;
        while let Some(&socket) = self.channelled.get(at) {
            if self.queue(socket).is_err() {
                self.channelled.swap_remove(at);
                continue;
            }
            if let Err(violation) = self.pull(socket) {
                // Without a daemon the connection is over anyway.
                let _ = self.abort_connection(socket, violation);
            }
            at += 1;
        }
    }

    fn pull(&mut self, socket: u32) -> std::result::Result<(), Violation> {
        let Ok(queue) = self.queue(socket) else {
            return Ok(());
        };
        queue.settle_take_over();
        let mut news = 0;
        let mut at_ns = 0;
        while queue.by_channel {
            let Some(direct) = &mut queue.direct else {
                break;
            };
            match direct.channel.receiver.take_next()? {
                None => {
                    // After its end the peer sends nothing more.
                    if queue.later.front().is_some_and(|(meta, _)| meta.error != 0) {
                        queue.leave_channel();
                        news += 1;
                    }
                    break;
                }
                Some(Incoming::Switch) => {
                    queue.leave_channel();
                    news += 1;
                }
                // Receivers throw empty messages away (`docs/protocol/sockets.md`).
                Some(Incoming::Message(_, buffer)) if buffer.is_empty() => buffer.consumed(),
                Some(Incoming::Message(importance, buffer)) => {
                    if at_ns == 0 {
                        at_ns = now_ns();
                    }
                    let meta = Meta {
                        socket,
                        importance,
                        source: direct.peer,
                        destination: direct.name,
                        original_len: buffer.len() as u32,
                        timestamp_ns: at_ns,
                        ..Meta::default()
                    };
                    queue.messages.push_back((meta, Buffer::Direct(buffer)));
                    news += 1;
                }
            }
        }
        if news > 0
            && let Some(watch) = &mut queue.watch
        {
            watch.set_again();
        }
        let awaited = |direct: &Direct| direct.room_awaited;
        let room = queue.direct.as_deref().is_some_and(awaited) && queue.may_send() != Some(false);
        if room {
            queue.note_room();
        }
        if news == 0 && !room {
            return Ok(());
        }
        self.progress += 1;
        self.tell(|interest| match interest {
            Interest::Socket(id) => news > 0 && id == socket,
            Interest::Room(id) => room && id == socket,
            Interest::AnySocket => true,
            _ => false,
        });
        Ok(())
    }

    /// The end of a connection has come: of what was sent by the channel and not read, the oldest comes back with it.
    pub(crate) fn take_returned(&mut self, socket: u32) -> Option<Vec<u8>> {
        let outgoing = self.queue(socket).ok()?.outgoing;
        let sent = matches!(outgoing, Outgoing::Channel | Outgoing::Revoked);
        self.end_sending(socket);
        let queue = self.queue(socket).ok()?;
        let direct = queue
            .direct
            .as_mut()
            .filter(|direct| sent && !direct.droppable)?;
        // A peer that lies about what it read harms itself.
        direct.channel.sender.oldest_unread(RETURNED_MAX).ok()?
    }

    /// Nothing more is sent by the channel: who waits to send shall ask the daemon, which knows why.
    pub(crate) fn end_sending(&mut self, socket: u32) {
        if let Ok(queue) = self.queue(socket) {
            queue.outgoing = Outgoing::Never;
            if let Some(direct) = &mut queue.direct {
                direct.note_sent();
            }
            self.progress += 1;
            self.tell(|interest| interest == Interest::Room(socket));
        }
    }

    /// Leaves the channel both ways; the socket is being shared. Gives what came by it and was not read, which the daemon is to
    /// have before [`Core::left_channel`] lets the peer go on. `Err`: that is not possible now.
    pub(crate) fn leave_channel(&mut self, socket: u32) -> Result<Vec<Vec<u8>>> {
        let busy = || Error::from_result(-libc::EBUSY);
        self.dispatch();
        let queue = self.queue(socket)?;
        let Some(direct) = &mut queue.direct else {
            return Ok(Vec::new());
        };
        let switched = match queue.outgoing {
            Outgoing::Switching(_) | Outgoing::Revoked => false,
            Outgoing::Channel => direct.channel.sender.switch_back().map_err(|_| busy())?,
            _ => true,
        };
        if !switched || queue.later.front().is_some() {
            return Err(busy());
        }
        direct.channel.sleep.revoke();
        self.pull(socket).map_err(|_| busy())?;
        self.end_sending(socket);
        let queue = self.queue(socket)?;
        let mut unread = Vec::new();
        queue.messages.retain_mut(|(_, buffer)| {
            if let Buffer::Direct(direct) = buffer {
                direct.consumed();
                direct.make_own();
                unread.push(direct.to_vec());
                return false;
            }
            true
        });
        Ok(unread)
    }

    /// The daemon has what was not read.
    pub(crate) fn left_channel(&mut self, socket: u32) {
        if let Ok(queue) = self.queue(socket)
            && let Some(direct) = queue.direct.take()
        {
            queue.leave_channel();
            direct.channel.receiver.finish();
        }
    }

    /// The peer has written nonsense: this end of the connection is over, and the daemon is told.
    fn abort_connection(&mut self, socket: u32, _violation: Violation) -> Result<()> {
        self.end_sending(socket);
        let queue = self.queue(socket)?;
        queue.leave_channel();
        let peer = queue.direct.take().map(|direct| direct.peer);
        let meta = Meta {
            socket,
            error: NO_PORT,
            source: peer.unwrap_or_default(),
            ..Meta::default()
        };
        queue.messages.push_back((meta, Buffer::Own(Vec::new())));
        self.progress += 1;
        self.tell(|interest| {
            interest == Interest::Socket(socket) || interest == Interest::AnySocket
        });
        // No room: then the connection ends when it is closed.
        let _ = self.submit(socket, &[], |_| Request::Shutdown, Purpose::Forget)?;
        Ok(())
    }

    /// Announces to the peers of all channels that a thread is about to sleep.
    pub(crate) fn announce_to_peers(&mut self) {
        for at in 0..self.channelled.len() {
            let socket = self.channelled[at];
            if let Ok(queue) = self.queue(socket)
                && let Some(direct) = &mut queue.direct
            {
                direct
                    .channel
                    .sleep
                    .announce(direct.room_awaited || direct.watched);
            }
        }
    }

    /// Takes the announcement back, but for those whose bells a program polls.
    pub(crate) fn awake_for_peers(&mut self) {
        for at in 0..self.channelled.len() {
            let socket = self.channelled[at];
            if let Ok(queue) = self.queue(socket)
                && let Some(direct) = &mut queue.direct
                && !direct.watched
            {
                direct.channel.sleep.awake();
            }
        }
    }

    /// The bell of a channel has rung.
    pub(crate) fn silence(&mut self, socket: u32) {
        if let Ok(queue) = self.queue(socket)
            && let Some(direct) = &queue.direct
        {
            direct.silence();
        }
    }

    /// Where that is what a thread waits for, seen from it.
    pub(crate) fn place_of(&mut self, interest: Interest) -> Place {
        match self.is_peer_here(interest) {
            Some(true) => Place::Behind,
            Some(false) => Place::Elsewhere,
            None => self.receiver.place_of_daemon(),
        }
    }

    /// What sees a message come that a thread waits for, if it comes by a channel.
    pub(crate) fn lookout(&mut self, interest: Interest) -> Option<Lookout> {
        let Interest::Socket(socket) = interest else {
            return None;
        };
        let queue = self.queue(socket).ok().filter(|queue| queue.by_channel)?;
        Some(queue.direct.as_ref()?.channel.receiver.lookout())
    }

    /// Whether the peer that a thread waits for is on its own processor; `None`: it waits for the daemon.
    fn is_peer_here(&mut self, interest: Interest) -> Option<bool> {
        let (Interest::Socket(socket) | Interest::Room(socket)) = interest else {
            return None;
        };
        let queue = self.queue(socket).ok()?;
        if interest == Interest::Socket(socket) && !queue.by_channel {
            return None;
        }
        let direct = queue.direct.as_ref()?;
        let own = direct.tell_processor();
        Some(direct.channel.sleep.processor_of_peer() == Some(own))
    }
}

impl Direct {
    fn tell_processor(&self) -> u32 {
        let own = rustix::thread::sched_getcpu() as u32;
        self.channel.sleep.run_on(own);
        own
    }
}

impl Queue {
    /// There is room for what waits to be sent.
    fn note_room(&mut self) {
        self.ready |= Ready::SEND;
        if let Some(watch) = &mut self.watch {
            watch.set_again();
        }
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
    }
}
