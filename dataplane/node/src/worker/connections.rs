//! What applications ask for about connections (`docs/protocol/connections.md`): connect, listen, accept, shut down, and
//! what the engine reports of them later.

use xtipc_protocol::addr::{NodeAddr, PortId, SocketAddr};
use xtipc_protocol::connection::{Role, State};
use xtipc_protocol::engine::{AcceptError, ConnectError, Engine, ListenError, ShutdownError};
use xtipc_protocol::host::{ConnectFailure, Incoming};
use xtipc_protocol::port::Port;
use xtipc_protocol::time::Instant;
use xtipc_protocol::wire::{Importance, errcode};
use xtipc_segment::{
    Destination, PEER_SILENT, Phase, Request, SendFlags, SocketAddress, SocketState, Submission,
    Violation, address_value,
};

use super::application::{Held, Socket};
use super::applications::Slot;
use super::host::NodeHost;
use super::requests::{Answer, Outcome, complete, destination_of, retry_held, send_errno};

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
        return await_outcome(engine, host, now, slot, port, submission);
    };
    if connects_at_once(engine, port, submission) {
        return Outcome::Done(begin_connect(engine, host, now, port, destination));
    }
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

/// True for a connect that does not wait for its outcome: it asked for that, or has no time to wait.
fn connects_at_once(engine: &Engine, port: PortId, submission: &Submission) -> bool {
    let Request::Connect { flags, .. } = submission.request else {
        return false;
    };
    let no_time = |port: &Port| port.connect_timeout_ms == 0;
    flags.contains(SendFlags::DONTWAIT) || engine.port(port).is_some_and(no_time)
}

/// Asks for a connection without waiting for the outcome.
fn begin_connect(
    engine: &mut Engine,
    host: &mut NodeHost,
    now: Instant,
    port: PortId,
    destination: Destination,
) -> Answer {
    let before = engine
        .port(port)
        .map(|port| matches!(port.role, Role::Open));
    match engine.connect(now, port, &destination_of(destination), host) {
        Ok(()) if before == Some(true) => Err(libc::EINPROGRESS),
        Ok(()) => Err(libc::EALREADY),
        Err(error) => Err(connect_errno(error)),
    }
}

/// Waits for the outcome of a connect that has begun.
fn await_outcome(
    engine: &Engine,
    host: &mut NodeHost,
    now: Instant,
    slot: Slot,
    port: PortId,
    submission: &Submission,
) -> Outcome {
    match engine
        .port(port)
        .and_then(|p| p.connection())
        .map(|c| c.state)
    {
        Some(State::Connecting) => {
            hold(host, now, slot, port, submission);
            Outcome::Held
        }
        Some(State::Established) => Outcome::Done(Ok([0; 2])),
        Some(State::Disconnecting) => Outcome::Done(Err(libc::ECONNREFUSED)),
        None => Outcome::Done(Err(libc::EINVAL)),
    }
}

/// Connects two new sockets of an application to each other.
pub(super) fn pair(
    engine: &mut Engine,
    host: &mut NodeHost,
    now: Instant,
    slot: Slot,
    ports: [PortId; 2],
) -> Answer {
    let application = host.applications.get_mut(slot).ok_or(libc::EBADF)?;
    let sockets = ports.map(|port| application.sockets.get(&port));
    let [Some(one), Some(other)] = sockets else {
        return Err(libc::EBADF);
    };
    if one.role != other.role || one.role != super::application::Role::Datagram {
        return Err(libc::EINVAL);
    }
    if is_connected_kind(engine, ports[0]) {
        let paired = engine.pair(now, ports, host);
        return paired.map(|()| [0; 2]).map_err(|_| libc::EINVAL);
    }
    let node = engine.own_addr().0;
    for (port, other) in [(ports[0], ports[1]), (ports[1], ports[0])] {
        if let Some(socket) = application.sockets.get_mut(&port) {
            let port = other.0;
            let twin = SocketAddress { port, node };
            socket.twin = Some(twin);
            socket.default_destination = Some(Destination::Socket(twin));
        }
    }
    Ok([0; 2])
}

/// How a socket is.
pub(super) fn state(engine: &Engine, socket: &Socket, port: PortId, readable: bool) -> Answer {
    let is_writable = engine.is_writable(port);
    let about = engine.port(port).ok_or(libc::EBADF)?;
    let (phase, acceptable) = match &about.role {
        Role::Open if socket.twin.is_some() => (Phase::Established, false),
        Role::Open => (Phase::Open, false),
        Role::Listener(listener) => (Phase::Listening, !listener.pending.is_empty()),
        Role::Connection(connection) => match connection.state {
            State::Connecting => (Phase::Connecting, false),
            State::Established => (Phase::Established, false),
            State::Disconnecting => (Phase::Disconnecting, false),
        },
    };
    let mut state = SocketState::new(phase, SocketState::empty());
    state.set(SocketState::WRITABLE, is_writable);
    state.set(SocketState::ACCEPTABLE, acceptable);
    state.set(SocketState::READABLE, readable);
    Ok([state.bits(), about.receive_buffer.into()])
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
            failed: None,
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
        refused: false,
    };
    host.applications.deliver(port, &about, &[][..]);
}

pub(super) fn shutdown(
    engine: &mut Engine,
    host: &mut NodeHost,
    now: Instant,
    slot: Slot,
    port: PortId,
) -> Answer {
    let done = engine.shutdown(now, port, host);
    // Who waits for room, or for the connection, waits in vain. Linux calls that a connect that succeeded.
    let violation = on_connect_outcome(host, slot, port, Ok(()))
        .and_then(|()| retry_held(engine, host, now, slot, port));
    if let Err(violation) = violation
        && let Some(application) = host.applications.get_mut(slot)
    {
        application.violation = Some(violation);
    }
    done.map(|()| [0; 2]).map_err(|error| match error {
        ShutdownError::NoSuchSocket => libc::EBADF,
        ShutdownError::NotConnected => libc::ENOTCONN,
    })
}

/// The peer of a connected socket.
pub(super) fn peer(engine: &Engine, socket: &Socket, port: PortId) -> Answer {
    if let Some(twin) = socket.twin {
        return Ok([address_value(twin.port, twin.node), 0]);
    }
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
