//! What applications ask for about connections (`docs/protocol/connections.md`): connect, listen, accept, shut down, and
//! what the engine reports of them later.

use xtipc_protocol::addr::{NodeAddr, PortId, SocketAddr};
use xtipc_protocol::connection::{Role, State};
use xtipc_protocol::engine::{AcceptError, ConnectError, Engine, ListenError, ShutdownError};
use xtipc_protocol::host::{ConnectFailure, Incoming};
use xtipc_protocol::time::Instant;
use xtipc_protocol::wire::{Importance, errcode};
use xtipc_segment::{
    Destination, PEER_SILENT, Request, SendFlags, Submission, Violation, address_value,
};

use super::application::{Held, Socket};
use super::applications::Slot;
use super::host::NodeHost;
use super::requests::{Answer, Outcome, complete, destination_of, send_errno};

/// True if sockets of this type connect.
pub(super) fn is_connected_kind(engine: &Engine, port: PortId) -> bool {
    engine
        .port(port)
        .is_some_and(|port| port.kind.is_connected())
}

/// True if a send with an address asks for a connection.
pub(super) fn is_open(engine: &Engine, port: PortId) -> bool {
    engine
        .port(port)
        .is_some_and(|port| matches!(port.role, Role::Open))
}

/// Connects a socket; answered when the engine tells the outcome.
pub(super) fn connect(
    engine: &mut Engine,
    host: &mut NodeHost,
    now: Instant,
    slot: Slot,
    port: PortId,
    submission: &Submission,
    destination: Option<Destination>,
) -> Outcome {
    let Some(destination) = destination else {
        return Outcome::Done(Err(libc::EINVAL));
    };
    hold(host, now, slot, port, submission);
    match engine.connect(now, port, &destination_of(destination), host) {
        Ok(()) => Outcome::Held,
        Err(error) => {
            if let Some(application) = host.applications.get_mut(slot) {
                let tag = submission.tag;
                application.held.retain(|held| held.submission.tag != tag);
            }
            Outcome::Done(Err(connect_errno(error)))
        }
    }
}

/// Keeps a request that waits; it is answered later.
pub(super) fn hold(
    host: &mut NodeHost,
    now: Instant,
    slot: Slot,
    port: PortId,
    submission: &Submission,
) {
    if let Some(application) = host.applications.get_mut(slot) {
        application.held.push_back(Held {
            submission: *submission,
            port,
            since: now,
        });
    }
}

pub(super) fn listen(engine: &mut Engine, port: PortId, limit: u32) -> Answer {
    let limit = (limit > 0).then_some(limit);
    engine.listen(port, limit).map_err(|error| match error {
        ListenError::NoSuchSocket => libc::EBADF,
        ListenError::NotSupported => libc::EOPNOTSUPP,
        ListenError::State => libc::EINVAL,
    })?;
    Ok([0; 2])
}

/// Accepts a request now, or when one comes.
pub(super) fn accept(
    engine: &mut Engine,
    host: &mut NodeHost,
    now: Instant,
    slot: Slot,
    port: PortId,
    submission: &Submission,
) -> Outcome {
    let Request::Accept { flags } = submission.request else {
        return Outcome::Done(Err(libc::EOPNOTSUPP));
    };
    match try_accept(engine, host, now, slot, port, submission.tag) {
        Ok(()) => Outcome::Held,
        Err(libc::EAGAIN) if !flags.contains(SendFlags::DONTWAIT) => {
            hold(host, now, slot, port, submission);
            Outcome::Held
        }
        Err(errno) => Outcome::Done(Err(errno)),
    }
}

/// Accepts a request and answers. The application knows of the socket before the first message for it comes.
fn try_accept(
    engine: &mut Engine,
    host: &mut NodeHost,
    now: Instant,
    slot: Slot,
    port: PortId,
    tag: u64,
) -> Result<(), i32> {
    let accepted = engine.accept(now, port, host, |host, accepted| {
        host.applications.own(accepted.port, slot);
        if let Some(application) = host.applications.get_mut(slot) {
            application.sockets.insert(accepted.port, Socket::default());
            let peer = address_value(accepted.peer.port.0, accepted.peer.node.0);
            let values = [accepted.port.0.into(), peer];
            if let Err(violation) = application.side.complete(tag, 0, values) {
                application.violation = Some(violation);
            }
        }
    });
    accepted.map(|_| ()).map_err(|error| match error {
        AcceptError::NoSuchSocket => libc::EBADF,
        AcceptError::NotSupported => libc::EOPNOTSUPP,
        AcceptError::NotListening => libc::EINVAL,
        AcceptError::Nothing => libc::EAGAIN,
    })
}

/// Accepts requests for who waits for them.
pub(super) fn on_acceptable(
    engine: &mut Engine,
    host: &mut NodeHost,
    now: Instant,
    slot: Slot,
    port: PortId,
) -> Result<(), Violation> {
    let is_accept = |r: &Request| matches!(r, Request::Accept { .. });
    while let Some(held) = take_held(host, slot, port, is_accept) {
        match try_accept(engine, host, now, slot, port, held.submission.tag) {
            Ok(()) => {}
            Err(libc::EAGAIN) => {
                if let Some(application) = host.applications.get_mut(slot) {
                    application.held.push_front(held);
                }
                return Ok(());
            }
            Err(errno) => complete(host, slot, held.submission.tag, Err(errno))?,
        }
    }
    Ok(())
}

/// Takes the first request that waits on a socket and is of a kind.
fn take_held(
    host: &mut NodeHost,
    slot: Slot,
    port: PortId,
    is: impl Fn(&Request) -> bool,
) -> Option<Held> {
    let application = host.applications.get_mut(slot)?;
    let mut held = application.held.iter();
    let at = held.position(|held| held.port == port && is(&held.submission.request))?;
    application.held.remove(at)
}

/// Answers who waits for a socket to be connected.
pub(super) fn on_connect_outcome(
    host: &mut NodeHost,
    slot: Slot,
    port: PortId,
    outcome: Result<(), ConnectFailure>,
) -> Result<(), Violation> {
    let answer = outcome.map(|()| [0; 2]).map_err(|why| match why {
        ConnectFailure::Refused(code) if u32::from(code) == errcode::NO_NODE => libc::EHOSTUNREACH,
        ConnectFailure::Refused(_) => libc::ECONNREFUSED,
        ConnectFailure::TimedOut => libc::ETIMEDOUT,
    });
    let is_connect = |r: &Request| matches!(r, Request::Connect { .. });
    while let Some(held) = take_held(host, slot, port, is_connect) {
        complete(host, slot, held.submission.tag, answer)?;
    }
    Ok(())
}

/// Tells a reader that the peer answers no probe: no message says so.
pub(super) fn deliver_silence(engine: &Engine, host: &mut NodeHost, port: PortId) {
    let peer = engine.port(port).and_then(|p| p.connection());
    let about = Incoming {
        source: peer.map_or(
            SocketAddr {
                port: PortId(0),
                node: NodeAddr::NONE,
            },
            |c| c.peer,
        ),
        dest_name: None,
        importance: Importance::Low,
        errcode: PEER_SILENT,
        cost: 0,
        returnable: false,
        group: None,
    };
    host.applications.deliver(port, &about, &[][..]);
}

pub(super) fn shutdown(
    engine: &mut Engine,
    host: &mut NodeHost,
    now: Instant,
    port: PortId,
) -> Answer {
    engine
        .shutdown(now, port, host)
        .map_err(|error| match error {
            ShutdownError::NoSuchSocket => libc::EBADF,
            ShutdownError::NotConnected => libc::ENOTCONN,
        })?;
    Ok([0; 2])
}

/// The peer of a connected socket.
pub(super) fn peer(engine: &Engine, port: PortId) -> Answer {
    let connection = engine.port(port).and_then(|p| p.connection());
    let connection = connection.filter(|c| c.state == State::Established);
    let peer = connection.ok_or(libc::ENOTCONN)?.peer;
    Ok([address_value(peer.port.0, peer.node.0), 0])
}

fn connect_errno(error: ConnectError) -> i32 {
    match error {
        ConnectError::NoSuchSocket => libc::EBADF,
        ConnectError::NotSupported => libc::EOPNOTSUPP,
        ConnectError::Connected => libc::EISCONN,
        ConnectError::State => libc::EINVAL,
        ConnectError::Send(error) => send_errno(error),
    }
}
