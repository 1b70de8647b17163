//! Several messages posted by one request ([`xtipc_segment::batch`]).

use xtipc_protocol::addr::PortId;
use xtipc_protocol::engine::Engine;
use xtipc_protocol::host::Payload;
use xtipc_protocol::time::Instant;
use xtipc_segment::daemon::MessageRef;
use xtipc_segment::{Request, Submission};

use super::applications::Slot;
use super::channels;
use super::connections::is_connected_kind;
use super::host::NodeHost;
use super::requests::{Answer, destination_of, send_errno};

/// A message in the application's memory, which it may change at any time.
struct Posted<'a>(MessageRef<'a>);

impl Payload for Posted<'_> {
    #[inline]
    fn len(&self) -> usize {
        self.0.len()
    }

    #[inline]
    fn copy_to(&self, offset: usize, out: &mut [u8]) {
        self.0.copy_to(offset, out);
    }
}

/// Sends the messages of a batch. -EAGAIN: those that are left in the submission then have to wait; `failed` is why one
/// of those before them was not sent, if one was not.
pub(super) fn send(
    engine: &mut Engine,
    host: &mut NodeHost,
    now: Instant,
    slot: Slot,
    port: PortId,
    submission: &mut Submission,
    failed: &mut Option<i32>,
) -> Answer {
    let application = host.applications.get_mut(slot).ok_or(libc::EBADF)?;
    let batch = application.side.payload(submission);
    let Request::Send {
        destination,
        payload,
        ..
    } = &mut submission.request
    else {
        return Err(libc::EOPNOTSUPP);
    };
    if is_connected_kind(engine, port) {
        return Err(libc::EOPNOTSUPP);
    }
    let destination = destination.ok_or(libc::EDESTADDRREQ)?;
    let mut messages = batch.messages();
    let mut taken = 0;
    let posted = messages.by_ref().inspect(|_| taken += 1).map(Posted);
    let done = engine.send_many(now, port, &destination_of(destination), posted, host);
    let detours = match done.sent {
        0 => 0,
        _ if channels::may_carry_to(engine, &host.applications, port, destination) => done.sent,
        _ => 0,
    };
    let application = host.applications.get_mut(slot).ok_or(libc::EBADF)?;
    application.submitted += taken - u64::from(done.congested);
    application.detours += detours as u64;
    *failed = failed.or(done.failed.map(send_errno));
    match messages.from_last() {
        Err(violation) => {
            application.violation = Some(violation);
            Err(libc::EINVAL)
        }
        Ok(rest) if done.congested => {
            *payload = rest;
            Err(libc::EAGAIN)
        }
        Ok(_) => failed.map_or(Ok([0; 2]), Err),
    }
}
