//! What threads do that use direct channels.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::Timespec;
use xtipc_segment::application::{Wake, take_wake};
use xtipc_segment::channel::Envelope;
use xtipc_segment::{Importance, PayloadPlace, Ready, Request, SendFlags, SocketAddress, option};

use super::standing_by::give_way;
use super::{Bells, Outgoing, Way};
use crate::attachment::{Attachment, Look, Patience};
use crate::core::Interest;
use crate::relay::Relay;
use crate::{Error, Result};

impl Attachment {
    /// Sends a message on a connection, by its direct channel if it has one; 0 or a negative errno.
    pub(crate) fn send_connected(
        &self,
        socket: u32,
        payload: &[u8],
        request: impl Fn(PayloadPlace, SendFlags) -> Request,
        patience: Patience,
    ) -> Result<i32> {
        let mut waits_since = None;
        loop {
            let way = {
                let mut core = self.core()?;
                core.dispatch_of_daemon();
                if let Some(failure) = core.failure {
                    return Err(failure.into());
                }
                core.route(socket, payload)?
            };
            match way {
                Way::Sent(is_awaited) => {
                    give_way(is_awaited);
                    return Ok(0);
                }
                Way::Daemon => {
                    let result = self.send(socket, payload, &request, patience);
                    self.core()?.note_sent(socket);
                    return result;
                }
                Way::Switching(tag) => self.wait(Patience::Endless, |core| {
                    Ok(match core.queue(socket)?.outgoing {
                        Outgoing::Switching(_) => Look::WaitFor(Interest::Tag(tag)),
                        _ => Look::Found(()),
                    })
                })?,
                Way::Revoked(number) => {
                    let taken = self.wait_for_last(socket, number.unwrap_or(0))?;
                    if number.is_some() {
                        self.core()?.note_clear(socket);
                        if taken {
                            return Ok(0);
                        }
                    }
                }
                Way::Congested if matches!(patience, Patience::None) => {
                    self.core()?.note_not_ready(socket, Ready::SEND);
                    return Ok(-libc::EAGAIN);
                }
                Way::Congested => self.wait_for_room(socket, patience, &mut waits_since)?,
            }
        }
    }

    /// Leaves the channel of a socket that is being shared: what came by it and was not read is the daemon's. `rest`: what
    /// is left of a message read in part.
    pub(crate) fn leave_channel(&self, socket: u32, rest: &[u8]) -> Result<()> {
        let unread = self.core()?.leave_channel(socket)?;
        let rest = (!rest.is_empty()).then_some(rest);
        for message in rest.into_iter().chain(unread.iter().map(Vec::as_slice)) {
            self.put_back(
                socket,
                SocketAddress::default(),
                &Envelope::default(),
                message,
            )?;
        }
        self.core()?.left_channel(socket);
        for (source, envelope, message) in self.leave_pairs(socket)? {
            self.put_back(socket, source, &envelope, &message)?;
        }
        self.core()?.left_pairs(socket);
        Ok(())
    }

    /// Has the daemon deliver a message again.
    fn put_back(
        &self,
        socket: u32,
        source: SocketAddress,
        envelope: &Envelope,
        message: &[u8],
    ) -> Result<()> {
        let request = |payload: PayloadPlace, _| Request::PutBack {
            source,
            envelope: *envelope,
            payload,
        };
        loop {
            match self.send(socket, message, request, Patience::Endless)? {
                0.. => return Ok(()),
                errno if errno == -libc::EAGAIN => std::thread::yield_now(),
                errno => return Err(Error::from_result(errno)),
            }
        }
    }

    /// Something was set that a direct channel has to know.
    pub(crate) fn note_setting(&self, socket: u32, request: Request, answer: u64) -> Result<()> {
        match request {
            Request::SetReceiveBuffer { .. } => {
                self.core()?
                    .queue(socket)?
                    .set_receive_buffer(answer as u32);
            }
            Request::SetOption { option, value } if option == option::IMPORTANCE => {
                let importance = Importance::from_number(value).unwrap_or_default();
                self.core()?.queue(socket)?.set_importance(importance);
            }
            Request::SetOption { option, value } if option == option::DEST_DROPPABLE => {
                self.core()?.queue(socket)?.set_droppable(value != 0);
            }
            _ => {}
        }
        if let Request::Connect { .. }
        | Request::JoinGroup { .. }
        | Request::LeaveGroup
        | Request::SetOption { .. } = request
            && !self.takes_no_channels()
        {
            self.core()?.queue(socket)?.note_datagram_setting(request);
        }
        Ok(())
    }

    /// Sleeps until the daemon or the peer of a direct channel wakes us, or the time is over.
    pub(crate) fn sleep_on(
        &self,
        bells: &Arc<OwnedFd>,
        left: Option<Duration>,
        patience: Patience,
    ) -> Wake {
        let relay = || Relay::start(bells, &self.wake).ok();
        let mut left = left;
        if patience.outlasts_restarts()
            && let Some(relay) = self.relay.get_or_init(relay)
        {
            if relay.sleep() == Wake::Signal {
                return Wake::Signal;
            }
            left = Some(Duration::ZERO);
        }
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match Bells::sleep(bells, timeout.as_ref()) {
            Ok(true) => take_wake(self.wake.as_fd()),
            Ok(false) => Wake::Called,
            Err(rustix::io::Errno::INTR) => Wake::Signal,
            Err(_) => Wake::Called,
        }
    }
}
