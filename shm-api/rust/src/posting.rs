//! Sending without waiting for the verdict.

use xtipc_segment::{Destination, PayloadPlace, Request, SendFlags};

use crate::Result;
use crate::attachment::{Attachment, Patience};
use crate::pending::Purpose;

impl Attachment {
    /// Sends a message without waiting for the verdict: by a direct channel, or into the submission ring.
    pub(crate) fn post(
        &self,
        socket: u32,
        payload: &[u8],
        destination: Destination,
        patience: Patience,
    ) -> Result<()> {
        self.post_many(socket, &[payload], destination, patience)?;
        Ok(())
    }

    /// The same for several, as far as there is room: at least for one. Gives how many.
    pub(crate) fn post_many<P: AsRef<[u8]>>(
        &self,
        socket: u32,
        payloads: &[P],
        destination: Destination,
        patience: Patience,
    ) -> Result<usize> {
        if self.takes_no_channels() {
            return self.post_to_daemon(socket, payloads, destination, patience);
        }
        let sent = self.send_directly(socket, Some(destination), payloads)?;
        let rest = &payloads[sent..];
        if rest.is_empty() {
            return Ok(sent);
        }
        let posted = self.post_to_daemon(socket, rest, destination, patience);
        self.core()?.note_sent(socket);
        match posted {
            Ok(posted) => Ok(sent + posted),
            Err(_) if sent > 0 => Ok(sent),
            Err(error) => Err(error),
        }
    }

    fn post_to_daemon<P: AsRef<[u8]>>(
        &self,
        socket: u32,
        payloads: &[P],
        destination: Destination,
        patience: Patience,
    ) -> Result<usize> {
        let Some((first, more)) = payloads.split_first() else {
            return Ok(0);
        };
        let (request, purpose) = posting(socket, destination);
        self.submit(socket, first.as_ref(), request, purpose, patience)?;
        let mut core = self.core()?;
        let mut posted = 1;
        for payload in more {
            let entered = core.enter(socket, payload.as_ref(), request, purpose)?;
            if entered.is_err() {
                break;
            }
            posted += 1;
        }
        core.submitter.ring_doorbell();
        drop(core);
        self.send_off();
        Ok(posted)
    }
}

/// The request of a posted send, and what to do with its answer.
fn posting(
    socket: u32,
    destination: Destination,
) -> (impl Fn(PayloadPlace) -> Request + Copy, Purpose) {
    let request = move |payload| Request::Send {
        flags: SendFlags::POSTED,
        destination: Some(destination),
        payload,
    };
    let purpose = Purpose::Post {
        socket,
        destination,
    };
    (request, purpose)
}
