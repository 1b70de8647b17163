//! What `poll` tells of a socket (`docs/protocol/calls.md`, events of poll).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use xtipc_segment::{Phase, Ready, Request, SocketState};

use super::{Result, Socket, is_connected_kind};
use crate::attachment::Attachment;

const IN: i16 = libc::POLLIN | libc::POLLRDNORM;

impl Socket {
    /// What a [`crate::Poller`] needs to wait for it. The poller knows reading, accepting and sending; [`Socket::poll`]
    /// then tells the events, and is to be asked before each wait.
    pub(crate) fn handle(&self) -> (&Arc<Attachment>, u32, bool) {
        (
            &self.attachment,
            self.id,
            self.listens.load(Ordering::Relaxed),
        )
    }

    /// The events of `poll` that are there now, whatever was asked for.
    pub fn poll(&self) -> Result<i16> {
        let [state, _] = self.call(Request::GetState)?;
        let mut state = SocketState::from_bits_retain(state);
        let (readable, shut_down) = {
            let mut core = self.attachment.core()?;
            core.dispatch();
            core.make_room();
            if let Some(may) = core.queue(self.id)?.may_send() {
                state.set(SocketState::WRITABLE, may);
            }
            // Who waits with a poller next shall be told of the change.
            for (flag, ready) in [
                (SocketState::WRITABLE, Ready::SEND),
                (SocketState::ACCEPTABLE, Ready::ACCEPT),
            ] {
                if !state.contains(flag) {
                    core.note_not_ready(self.id, ready);
                }
            }
            let queue = core.queue(self.id)?;
            (
                state.contains(SocketState::READABLE) || !queue.messages.is_empty(),
                queue.shut_down,
            )
        };
        let writable = state.contains(SocketState::WRITABLE);
        let when = |condition: bool, mask: i16| if condition { mask } else { 0 };
        let of_shutdown = when(shut_down, IN | libc::POLLRDHUP | libc::POLLHUP);
        Ok(match state.phase() {
            Phase::Disconnecting => IN | libc::POLLHUP,
            Phase::Established => of_shutdown | when(writable, libc::POLLOUT) | when(readable, IN),
            Phase::Listening => of_shutdown | when(state.contains(SocketState::ACCEPTABLE), IN),
            Phase::Connecting => of_shutdown | when(readable, IN),
            Phase::Open => {
                let readable = readable && !is_connected_kind(self.kind);
                of_shutdown | when(writable, libc::POLLOUT) | when(readable, IN)
            }
        })
    }
}
