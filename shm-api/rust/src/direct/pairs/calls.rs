//! What threads do that send datagrams.

use xtipc_segment::{Destination, PayloadPlace, Request, SendFlags};

use super::super::Outgoing;
use super::super::standing_by::give_way;
use super::routing::PairWay;
use crate::Result;
use crate::attachment::{Attachment, Look, Patience};
use crate::core::Interest;

impl Attachment {
    /// Sends a datagram, by a direct channel if there is one; 0 or a negative errno.
    pub(crate) fn send_datagram(
        &self,
        socket: u32,
        payload: &[u8],
        destination: Option<Destination>,
        patience: Patience,
    ) -> Result<i32> {
        let request = |payload: PayloadPlace, flags: SendFlags| Request::Send {
            flags,
            destination,
            payload,
        };
        if self.takes_no_channels() {
            return self.send(socket, payload, request, patience);
        }
        if self.send_directly(socket, destination, &[payload])? == 1 {
            return Ok(0);
        }
        let result = self.send(socket, payload, request, patience);
        self.core()?.note_sent(socket);
        result
    }

    /// Sends datagrams of one socket to one destination by a direct channel, as many as find room there; gives how many. The
    /// next one is to be given to the daemon, if there is one, and [`crate::core::Core::note_sent`] called when that has it.
    pub(crate) fn send_directly<P: AsRef<[u8]>>(
        &self,
        socket: u32,
        destination: Option<Destination>,
        payloads: &[P],
    ) -> Result<usize> {
        let mut sent = 0;
        while let Some(payload) = payloads.get(sent) {
            let way = {
                let mut core = self.core()?;
                core.dispatch();
                if let Some(failure) = core.failure {
                    return Err(failure.into());
                }
                loop {
                    let payload = payloads.get(sent).unwrap_or(payload);
                    match core.route_datagram(socket, destination, payload.as_ref())? {
                        PairWay::Sent(_) if sent + 1 < payloads.len() => sent += 1,
                        way => break way,
                    }
                }
            };
            match way {
                PairWay::Sent(is_awaited) => {
                    sent += 1;
                    give_way(is_awaited);
                }
                PairWay::Daemon => break,
                PairWay::Switching(tag) => self.await_switch(socket, tag)?,
                PairWay::Revoked(peer, number) => {
                    if self.was_taken_by(socket, peer, number.unwrap_or(0))? && number.is_some() {
                        sent += 1;
                    }
                    if number.is_some()
                        && let Some(pair) = self.core()?.queue(socket)?.pair(peer)
                    {
                        pair.unclear = pair.unclear.saturating_sub(1);
                    }
                }
            }
        }
        Ok(sent)
    }

    fn await_switch(&self, socket: u32, tag: u64) -> Result<()> {
        self.wait(Patience::Endless, |core| {
            let mut pairs = core.queue(socket)?.pairs().iter();
            Ok(
                match pairs.any(|pair| pair.outgoing == Outgoing::Switching(tag)) {
                    true => Look::WaitFor(Interest::Tag(tag)),
                    false => Look::Found(()),
                },
            )
        })
    }

    /// Waits until it is known whether a peer, which takes nothing more, took the message of this number. If it is no more
    /// the message has come back.
    fn was_taken_by(&self, socket: u32, peer: u32, number: u32) -> Result<bool> {
        self.wait(Patience::Endless, |core| {
            let taken = match core.queue(socket)?.pair(peer) {
                Some(pair) => pair.channel.sender.was_taken(number),
                None => Some(true),
            };
            Ok(match taken {
                Some(taken) => Look::Found(taken),
                None => Look::WaitFor(Interest::Room(socket)),
            })
        })
    }

    /// Whether this program's node makes no channels, or it is embedded in the program.
    pub(crate) fn takes_no_channels(&self) -> bool {
        self.rounds.is_some() || self.welcome.direct_after == 0
    }
}
