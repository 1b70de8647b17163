//! What applications ask of groups (`docs/protocol/groups.md`). Errors are those of the socket calls.

use xtipc_protocol::addr::PortId;
use xtipc_protocol::engine::{Engine, JoinError};
use xtipc_protocol::group::Membership;
use xtipc_protocol::time::Instant;
use xtipc_segment::{GroupFlags, Scope, ServiceAddress};

use super::applications::Slot;
use super::channels;
use super::host::NodeHost;
use super::requests::{Answer, bind_errno, retry_held, scope_of};

pub(super) fn join(
    engine: &mut Engine,
    host: &mut NodeHost,
    now: Instant,
    port: PortId,
    address: ServiceAddress,
    scope: Scope,
    flags: GroupFlags,
) -> Answer {
    let membership = Membership {
        group: address.type_,
        instance: address.instance,
        scope: scope_of(scope),
        loopback: flags.contains(GroupFlags::LOOPBACK),
        events: flags.contains(GroupFlags::MEMBER_EVENTS),
    };
    let joined = engine.join_group(now, port, membership, host);
    if joined.is_ok() {
        // A member gets nothing but what members send.
        channels::have_return(&mut host.applications, port);
    }
    joined.map(|()| [0; 2]).map_err(|error| match error {
        JoinError::NoSuchSocket => libc::EBADF,
        JoinError::ReservedType(_) | JoinError::Member(_) => libc::EACCES,
        JoinError::ConnectionType => libc::EINVAL,
        JoinError::TooMany => libc::ENOMEM,
        JoinError::Bind(error) => bind_errno(error),
    })
}

/// A send that waited for a member is answered now.
pub(super) fn leave(
    engine: &mut Engine,
    host: &mut NodeHost,
    now: Instant,
    slot: Slot,
    port: PortId,
) -> Answer {
    engine
        .leave_group(now, port, host)
        .map_err(|_| libc::EINVAL)?;
    retry_held(engine, host, now, slot, port).map_err(|_| libc::EPROTO)?;
    Ok([0; 2])
}
