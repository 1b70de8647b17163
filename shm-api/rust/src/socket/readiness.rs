//! What `poll` tells of a socket (`docs/protocol/calls.md`, events of poll).

use xtipc_segment::{Phase, Request, SocketState};

use super::{Result, Socket, is_connected_kind};

const IN: i16 = libc::POLLIN | libc::POLLRDNORM;

impl Socket {
    /// The events of `poll` that are there now, whatever was asked for.
    pub fn poll(&self) -> Result<i16> {
        let [state, _] = self.call(Request::GetState)?;
        let state = SocketState::from_bits_retain(state);
        let (readable, shut_down) = {
            let mut core = self.attachment.core()?;
            core.dispatch();
            let queue = core.queue(self.id)?;
            (!queue.messages.is_empty(), queue.shut_down)
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
