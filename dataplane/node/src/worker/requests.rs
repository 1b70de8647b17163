//! What applications ask for, done on the engine. Errors are those of the socket calls (`docs/protocol/sockets.md`).

use xtipc_protocol::addr::{self, BearerId, NodeAddr, PortId};
use xtipc_protocol::engine::{BindError, Ending, Engine, SendError};
use xtipc_protocol::host::Payload;
use xtipc_protocol::name;
use xtipc_protocol::port::{McastMethod, SocketKind};
use xtipc_protocol::time::Instant;
use xtipc_protocol::topology::{RequestError, Subscription};
use xtipc_protocol::wire::Importance;
use xtipc_segment::Destination;
use xtipc_segment::{Request, SendFlags, Submission, address_value, option};
use xtipc_segment::{Scope, ServiceRange};

use super::application::{Application, Held, Role, Socket, Submitted, note_consumed};
use super::applications::{Applications, Slot};
use super::connections::{self, is_connected_kind, is_open};
use super::groups;
use super::host::NodeHost;
use super::{batches, channels, paths, readiness, sharing};

/// Sockets of one attachment at most.
pub(super) const SOCKETS_MAX: usize = 65_536;

/// An answer: values, or an errno.
pub(super) type Answer = Result<[u64; 2], i32>;

/// What a request led to.
pub(super) enum Outcome {
    Done(Answer),
    /// It waits and is answered later, or it is answered already.
    Held,
}

/// Does what a submission asks for and answers it. `Err` names what the application did wrong.
pub(super) fn execute(
    engine: &mut Engine,
    host: &mut NodeHost,
    now: Instant,
    slot: Slot,
    submission: Submission,
) -> Result<(), xtipc_segment::Violation> {
    let outcome = perform(engine, host, now, slot, &submission);
    match outcome {
        Outcome::Held => Ok(()),
        Outcome::Done(answer) => answer_to(&submission, host, slot, answer),
    }
}

fn answer_to(
    submission: &Submission,
    host: &mut NodeHost,
    slot: Slot,
    answer: Answer,
) -> Result<(), xtipc_segment::Violation> {
    let posted = matches!(submission.request, Request::Send { flags, .. } if flags.contains(SendFlags::POSTED));
    if !posted {
        return complete(host, slot, submission.tag, answer);
    }
    let Some(application) = host.applications.get_mut(slot) else {
        return Ok(());
    };
    let result = answer.map_or_else(|errno| -errno, |_| 0);
    application.side.complete_posted(submission.tag, result)
}

pub(super) fn complete(
    host: &mut NodeHost,
    slot: Slot,
    tag: u64,
    answer: Answer,
) -> Result<(), xtipc_segment::Violation> {
    let Some(application) = host.applications.get_mut(slot) else {
        return Ok(());
    };
    let (result, values) = match answer {
        Ok(values) => (0, values),
        Err(errno) => (-errno, [0; 2]),
    };
    application.side.complete(tag, result, values)
}

fn perform(
    engine: &mut Engine,
    host: &mut NodeHost,
    now: Instant,
    slot: Slot,
    submission: &Submission,
) -> Outcome {
    let id = submission.socket;
    match submission.request {
        Request::OpenSocket { kind } => Outcome::Done(open(engine, host, slot, kind)),
        Request::OpenSubscriber => Outcome::Done(open_subscriber(engine, host, slot)),
        Request::Cancel { tag } => Outcome::Done(cancel(engine, host, now, slot, tag)),
        Request::OpenPath { node } => {
            Outcome::Done(paths::open(engine, host, slot, PortId(id), node))
        }
        Request::ClosePath { slot: path } => Outcome::Done(paths::close(host, slot, path)),
        Request::Unknown { .. } => Outcome::Done(Err(libc::EOPNOTSUPP)),
        request => {
            let port = PortId(id);
            let application = host.applications.get_mut(slot);
            let Some(socket) = application.and_then(|a| a.sockets.get(&port)) else {
                return Outcome::Done(Err(libc::EBADF));
            };
            match request {
                Request::CloseSocket => {
                    close(engine, host, now, slot, port);
                    Outcome::Done(Ok([0; 2]))
                }
                _ if socket.role == Role::Subscriber => {
                    Outcome::Done(on_subscriber(engine, host, now, slot, port, submission))
                }
                Request::Send { .. } => send(engine, host, now, slot, port, submission),
                Request::Await { .. } => {
                    readiness::await_ready(engine, host, now, slot, port, submission)
                }
                Request::LeaveGroup => Outcome::Done(groups::leave(engine, host, now, slot, port)),
                Request::Connect { .. } if engine.group(port).is_some() => {
                    Outcome::Done(Err(libc::EINVAL))
                }
                Request::Connect { destination, .. } if is_connected_kind(engine, port) => {
                    let (to, on) = (destination, submission);
                    connections::connect(engine, host, now, slot, port, on, to)
                }
                Request::Accept { .. } => {
                    connections::accept(engine, host, now, slot, port, submission)
                }
                Request::MakeChannel { destination } => {
                    Outcome::Done(channels::make(engine, host, slot, port, destination))
                }
                Request::PutBack { .. } => {
                    Outcome::Done(channels::put_back(engine, host, slot, port, submission))
                }
                Request::SwitchToChannel { peer } => {
                    Outcome::Done(channels::switch(engine, host, slot, port, PortId(peer)))
                }
                Request::LeaveChannel { peer, at_once } => {
                    Outcome::Done(channels::leave(host, slot, port, PortId(peer), at_once))
                }
                Request::Receive { .. } => sharing::receive(host, now, slot, port, submission),
                Request::Arm => Outcome::Done(readiness::arm(engine, host, slot, port)),
                Request::Unblock => {
                    host.applications.shared.handles.block(port);
                    Outcome::Done(Ok([0; 2]))
                }
                Request::Restore { id, .. } => Outcome::Done(restore(host, slot, submission, id)),
                request => Outcome::Done(on_socket(engine, host, now, slot, port, request)),
            }
        }
    }
}

fn open(
    engine: &mut Engine,
    host: &mut NodeHost,
    slot: Slot,
    kind: xtipc_segment::SocketKind,
) -> Answer {
    let application = host.applications.get_mut(slot).ok_or(libc::EBADF)?;
    if application.sockets.len() >= SOCKETS_MAX {
        return Err(libc::EMFILE);
    }
    let port = engine.open(match kind {
        xtipc_segment::SocketKind::Rdm => SocketKind::Rdm,
        xtipc_segment::SocketKind::Dgram => SocketKind::Dgram,
        xtipc_segment::SocketKind::Seqpacket => SocketKind::Seqpacket,
        xtipc_segment::SocketKind::Stream => SocketKind::Stream,
    });
    if let Some(socket) = engine.port_mut(port) {
        // All attachments of a process are one sender.
        socket.owner = application.process.pid;
    }
    application.sockets.insert(port, Socket::default());
    host.applications.own(port, slot);
    Ok([port.0.into(), address_value(port.0, engine.own_addr().0)])
}

fn open_subscriber(engine: &mut Engine, host: &mut NodeHost, slot: Slot) -> Answer {
    let application = host.applications.get_mut(slot).ok_or(libc::EBADF)?;
    if application.sockets.len() >= SOCKETS_MAX {
        return Err(libc::EMFILE);
    }
    let port = engine.open_subscriber();
    let socket = Socket {
        role: Role::Subscriber,
        ..Socket::default()
    };
    application.sockets.insert(port, socket);
    host.applications.own(port, slot);
    Ok([port.0.into(), 0])
}

/// A subscriber sends requests of the topology service's own format, and nothing else.
fn on_subscriber(
    engine: &mut Engine,
    host: &mut NodeHost,
    now: Instant,
    slot: Slot,
    port: PortId,
    submission: &Submission,
) -> Answer {
    let is_batch = match submission.request {
        Request::Send { flags, .. } => flags.contains(SendFlags::SEVERAL),
        _ => true,
    };
    if is_batch {
        return Err(libc::EOPNOTSUPP);
    }
    let application = host.applications.get_mut(slot).ok_or(libc::EBADF)?;
    application.submitted += 1;
    let payload = Submitted(application.side.payload(submission));
    let mut message = [0; Subscription::SIZE];
    let len = payload.len().min(message.len());
    payload.copy_to(0, &mut message[..len]);
    let done = engine.request_events(now, port, &message[..len], host);
    done.map(|()| [payload.len() as u64, 0])
        .map_err(subscription_errno)
}

fn on_socket(
    engine: &mut Engine,
    host: &mut NodeHost,
    now: Instant,
    slot: Slot,
    port: PortId,
    request: Request,
) -> Answer {
    match request {
        Request::Bind { .. } if socket_of(host, slot, port)?.twin.is_some() => Err(libc::EINVAL),
        Request::Bind { range, scope } => {
            let done = engine.bind(now, port, range_of(range), scope_of(scope), host);
            done.map(|()| [0; 2]).map_err(bind_errno)
        }
        Request::Unbind { range, scope } => {
            let done = engine.unbind(now, port, range_of(range), scope_of(scope), host);
            done.map(|()| [0; 2]).map_err(bind_errno)
        }
        Request::UnbindAll => {
            let done = engine.unbind_all(now, port, host);
            done.map(|()| [0; 2]).map_err(bind_errno)
        }
        Request::Connect { destination, .. } => {
            let application = host.applications.get_mut(slot).ok_or(libc::EBADF)?;
            let socket = application.sockets.get_mut(&port).ok_or(libc::EBADF)?;
            socket.default_destination = destination;
            Ok([0; 2])
        }
        Request::SetOption { option, value } => set_option(engine, port, option, value),
        Request::GetOption { option } => {
            settle_reads(engine, host, now, slot)?;
            get_option(engine, &host.applications, port, option)
        }
        Request::SetReceiveBuffer { bytes } => {
            let set = engine.set_receive_buffer(port, bytes).ok_or(libc::EBADF)?;
            channels::note_receive_buffer(engine, &mut host.applications, port);
            Ok([set.into(), 0])
        }
        Request::GetName => Ok([address_value(port.0, engine.own_addr().0), 0]),
        Request::Listen { limit } => connections::listen(engine, port, limit),
        Request::Shutdown => {
            return_unread(engine, host, now, slot, Some(port), Ending::Shutdown);
            sharing::end(engine, host, now, port, Ending::Shutdown);
            let done = connections::shutdown(engine, host, now, slot, port);
            host.applications.shared.handles.announce(port);
            readiness::hang_up_if_over(engine, host, port);
            done
        }
        // Who reads a message of a group tells its sender, which a shared queue does not know.
        Request::JoinGroup { .. } if host.applications.shared.holders(port).is_some() => {
            Err(libc::EOPNOTSUPP)
        }
        Request::JoinGroup {
            address,
            scope,
            flags,
        } => groups::join(engine, host, now, port, address, scope, flags),
        Request::GetPeer => connections::peer(engine, socket_of(host, slot, port)?, port),
        Request::Pair { other } => {
            connections::pair(engine, host, now, slot, [port, PortId(other)])
        }
        Request::GetState => {
            settle_reads(engine, host, now, slot)?;
            let readable = host.applications.shared.is_readable(port);
            connections::state(engine, socket_of(host, slot, port)?, port, readable)
        }
        Request::GetNodeIdentity { node } => node_identity(engine, node),
        Request::GetLinkName {
            node,
            bearer,
            offset,
        } => link_name(engine, node, bearer, offset),
        Request::OpenSocket { .. }
        | Request::OpenSubscriber
        | Request::CloseSocket
        | Request::Send { .. }
        | Request::Accept { .. }
        | Request::LeaveGroup
        | Request::Receive { .. }
        | Request::Restore { .. }
        | Request::Cancel { .. }
        | Request::Await { .. }
        | Request::Arm
        | Request::Unblock
        | Request::OpenPath { .. }
        | Request::ClosePath { .. }
        | Request::MakeChannel { .. }
        | Request::SwitchToChannel { .. }
        | Request::LeaveChannel { .. }
        | Request::PutBack { .. }
        | Request::Unknown { .. } => Err(libc::EOPNOTSUPP),
    }
}

/// The application tells a message again that it keeps.
fn restore(host: &mut NodeHost, slot: Slot, submission: &Submission, id: u64) -> Answer {
    let application = host.applications.get_mut(slot).ok_or(libc::EBADF)?;
    let payload = application.side.payload(submission);
    match application.side.restore(id, &payload) {
        Ok(()) => Ok([0; 2]),
        Err(violation) => {
            application.violation = Some(violation);
            Err(libc::EINVAL)
        }
    }
}

fn socket_of(host: &mut NodeHost, slot: Slot, port: PortId) -> Result<&Socket, i32> {
    let application = host.applications.get_mut(slot).ok_or(libc::EBADF)?;
    application.sockets.get(&port).ok_or(libc::EBADF)
}

/// Takes note of what the application has read until now, for an answer that depends on it; tells whether it has read
/// anything.
fn settle_reads(
    engine: &mut Engine,
    host: &mut NodeHost,
    now: Instant,
    slot: Slot,
) -> Result<bool, i32> {
    let application = host.applications.get_mut(slot).ok_or(libc::EBADF)?;
    match application.take_note_of_reads(engine) {
        Ok(returned) => {
            engine.acknowledge_consumed(now, host);
            Ok(returned > 0)
        }
        Err(violation) => {
            application.violation = Some(violation);
            Err(libc::EPROTO)
        }
    }
}

fn node_identity(engine: &Engine, node: u32) -> Answer {
    let identity = match node {
        0 => None,
        node => engine.identity_of(NodeAddr(node)),
    };
    Ok(halves_of(identity.ok_or(libc::EADDRNOTAVAIL)?.0))
}

fn link_name(engine: &Engine, node: u32, bearer: u32, offset: u32) -> Answer {
    let bearer = u8::try_from(bearer & 0xffff).map_err(|_| libc::EADDRNOTAVAIL)?;
    let name = engine.name_of_link(NodeAddr(node), BearerId(bearer));
    let name = name.ok_or(libc::EADDRNOTAVAIL)?;
    let mut part = [0; 16];
    let rest = name.as_bytes().get(offset as usize..).unwrap_or_default();
    let len = rest.len().min(part.len());
    part[..len].copy_from_slice(&rest[..len]);
    Ok(halves_of(part))
}

/// 16 bytes as the two values of an answer.
fn halves_of(bytes: [u8; 16]) -> [u64; 2] {
    let value = u128::from_le_bytes(bytes);
    [value as u64, (value >> 64) as u64]
}

fn set_option(engine: &mut Engine, id: PortId, number: u32, value: u32) -> Answer {
    if number == option::NODELAY {
        engine.set_nodelay(id, value != 0).ok_or(libc::EBADF)?;
        return Ok([0; 2]);
    }
    let port = engine.port_mut(id).ok_or(libc::EBADF)?;
    match number {
        option::IMPORTANCE if value <= 3 => port.importance = Importance::from_bits(value),
        option::SRC_DROPPABLE if port.kind == SocketKind::Stream => {
            return Err(libc::ENOPROTOOPT);
        }
        option::SRC_DROPPABLE => port.src_droppable = value != 0,
        // 16 bits, as in Linux.
        option::CONN_TIMEOUT => port.connect_timeout_ms = value as u16,
        option::DEST_DROPPABLE => port.dest_droppable = value != 0,
        option::MCAST_BROADCAST => port.mcast_wanted = Some(McastMethod::Broadcast),
        option::MCAST_REPLICAST => port.mcast_wanted = Some(McastMethod::Replicast),
        _ => return Err(libc::EINVAL),
    }
    Ok([0; 2])
}

fn get_option(engine: &Engine, applications: &Applications, id: PortId, number: u32) -> Answer {
    let port = engine.port(id).ok_or(libc::EBADF)?;
    let value = match number {
        option::IMPORTANCE => port.importance as u64,
        option::SRC_DROPPABLE => port.src_droppable.into(),
        option::DEST_DROPPABLE => port.dest_droppable.into(),
        option::CONN_TIMEOUT => port.connect_timeout_ms.into(),
        option::SOCK_RECVQ_DEPTH => applications.receive_queue(id, port).0,
        option::SOCK_RECVQ_USED => applications.receive_queue(id, port).1,
        option::GROUP_JOIN => port
            .group
            .as_ref()
            .map_or(0, |group| group.membership.group.into()),
        _ => return Err(libc::EINVAL),
    };
    Ok([value, 0])
}

/// Sends a message. Behind a send of the same socket that waits, it waits too.
fn send(
    engine: &mut Engine,
    host: &mut NodeHost,
    now: Instant,
    slot: Slot,
    port: PortId,
    submission: &Submission,
) -> Outcome {
    let Request::Send { flags, .. } = submission.request else {
        return Outcome::Done(Err(libc::EOPNOTSUPP));
    };
    let Some(application) = host.applications.get_mut(slot) else {
        return Outcome::Done(Err(libc::EBADF));
    };
    let mut submission = *submission;
    let mut failed = None;
    let answer = if follows_a_held_one(application, application.held.len(), port, &submission) {
        Err(libc::EAGAIN)
    } else {
        match try_send(engine, host, now, slot, port, &mut submission, &mut failed) {
            // The other end may be the application's own, and have read since.
            Err(libc::EAGAIN) if settle_reads(engine, host, now, slot) == Ok(true) => {
                try_send(engine, host, now, slot, port, &mut submission, &mut failed)
            }
            answer => answer,
        }
    };
    if answer == Err(libc::EAGAIN) && !flags.contains(SendFlags::DONTWAIT) {
        if let Some(application) = host.applications.get_mut(slot) {
            application.held.push_back(Held {
                submission,
                port,
                since: now,
                failed,
            });
        }
        return Outcome::Held;
    }
    Outcome::Done(answer)
}

/// Sends a message, or what can be sent of a batch. What has to wait does not count as submitted yet.
fn try_send(
    engine: &mut Engine,
    host: &mut NodeHost,
    now: Instant,
    slot: Slot,
    port: PortId,
    submission: &mut Submission,
    failed: &mut Option<i32>,
) -> Answer {
    let Request::Send {
        destination, flags, ..
    } = submission.request
    else {
        return Err(libc::EOPNOTSUPP);
    };
    if flags.contains(SendFlags::SEVERAL) {
        return batches::send(engine, host, now, slot, port, submission, failed);
    }
    let answer = send_one(engine, host, now, slot, port, submission, destination);
    if answer != Err(libc::EAGAIN)
        && let Some(application) = host.applications.get_mut(slot)
    {
        application.submitted += 1;
    }
    answer
}

fn send_one(
    engine: &mut Engine,
    host: &mut NodeHost,
    now: Instant,
    slot: Slot,
    port: PortId,
    submission: &Submission,
    destination: Option<xtipc_segment::Destination>,
) -> Answer {
    let application = host.applications.get_mut(slot).ok_or(libc::EBADF)?;
    let payload = Submitted(application.side.payload(submission));
    if is_connected_kind(engine, port) && !(destination.is_some() && is_open(engine, port)) {
        let sent = engine.send_connected(now, port, &payload, host);
        if sent.is_ok()
            && channels::may_carry(engine, &host.applications, port)
            && let Some(application) = host.applications.get_mut(slot)
        {
            application.detours += 1;
        }
        return sent.map(|len| [len as u64, 0]).map_err(send_errno);
    }
    let len = payload.0.len() as u64;
    if destination.is_none() && engine.group(port).is_some() {
        let sent = engine.send_to_group(now, port, &payload, host);
        return sent.map(|()| [len, 0]).map_err(send_errno);
    }
    let default = application
        .sockets
        .get(&port)
        .and_then(|s| s.default_destination);
    let destination = destination.or(default).ok_or(libc::EDESTADDRREQ)?;
    let delivered = host.applications.deliveries;
    let sent = engine.send(now, port, &destination_of(destination), &payload, host);
    // The channel is asked for only where the message has not left the node.
    if sent.is_ok()
        && host.applications.deliveries != delivered
        && channels::may_carry_to(engine, &host.applications, port, destination)
        && let Some(application) = host.applications.get_mut(slot)
    {
        application.detours += 1;
    }
    sent.map(|()| [len, 0]).map_err(send_errno)
}

/// Tries again what waits, after a socket heard that there is room.
pub(super) fn retry_held(
    engine: &mut Engine,
    host: &mut NodeHost,
    now: Instant,
    slot: Slot,
    port: PortId,
) -> Result<(), xtipc_segment::Violation> {
    let mut at = 0;
    while let Some(application) = host.applications.get_mut(slot)
        && let Some(held) = application.held.get(at)
    {
        let (mut submission, mut failed, of) = (held.submission, held.failed, held.port);
        let is_send = of == port && matches!(submission.request, Request::Send { .. });
        if !is_send || follows_a_held_one(application, at, port, &submission) {
            at += 1;
            continue;
        }
        let answer = try_send(engine, host, now, slot, port, &mut submission, &mut failed);
        if answer == Err(libc::EAGAIN) {
            let application = host.applications.get_mut(slot);
            if let Some(held) = application.and_then(|application| application.held.get_mut(at)) {
                (held.submission, held.failed) = (submission, failed);
            }
            at += 1;
            continue;
        }
        if let Some(application) = host.applications.get_mut(slot) {
            application.held.remove(at);
        }
        answer_to(&submission, host, slot, answer)?;
    }
    Ok(())
}

/// True if one of the first `count` held messages of a socket must go before this one: to the same destination, or one
/// of the two did not wait for the other in its call. Whoever waits in a send holds up nobody who sends elsewhere.
fn follows_a_held_one(
    application: &Application,
    count: usize,
    port: PortId,
    submission: &Submission,
) -> bool {
    let send_of = |request: Request| match request {
        Request::Send {
            flags, destination, ..
        } => Some((flags.contains(SendFlags::POSTED), destination)),
        _ => None,
    };
    let Some((posted, destination)) = send_of(submission.request) else {
        return false;
    };
    let earlier = application.held.iter().take(count);
    let mut sends = earlier
        .filter(|held| held.port == port)
        .filter_map(|held| send_of(held.submission.request));
    sends.any(|(earlier_posted, to)| posted || earlier_posted || to == destination)
}

fn cancel(engine: &mut Engine, host: &mut NodeHost, now: Instant, slot: Slot, tag: u64) -> Answer {
    let application = host.applications.get_mut(slot).ok_or(libc::EBADF)?;
    let held = application
        .held
        .iter()
        .position(|held| held.submission.tag == tag);
    let held = application.held.remove(held.ok_or(libc::ENOENT)?);
    complete(host, slot, tag, Err(libc::ECANCELED)).map_err(|_| libc::EPROTO)?;
    let held = held.ok_or(libc::ENOENT)?;
    match held.submission.request {
        Request::Receive { .. } => {
            sharing::forget_receiver(&mut host.applications, slot, held.port, Some(tag));
        }
        // Those behind it may have a way where it had none.
        Request::Send { .. } => {
            retry_held(engine, host, now, slot, held.port).map_err(|_| libc::EPROTO)?;
        }
        _ => {}
    }
    Ok([0; 2])
}

/// Closes one socket by the protocol's rules: what was not read goes back to who wants it back.
pub(super) fn close(
    engine: &mut Engine,
    host: &mut NodeHost,
    now: Instant,
    slot: Slot,
    port: PortId,
) {
    host.applications.leave_to_others(engine, slot, port);
    let Some(application) = host.applications.get_mut(slot) else {
        return;
    };
    application.sockets.remove(&port);
    application.side.unwatch(port.0);
    let held: Vec<u64> = application
        .held
        .iter()
        .filter(|h| h.port == port)
        .map(|h| h.submission.tag)
        .collect();
    application.held.retain(|h| h.port != port);
    if !sharing::release(engine, host, now, slot, port) {
        return_unread(engine, host, now, slot, Some(port), Ending::Close);
        host.applications.disown(port);
        host.applications.shared.handles.forget(port);
        engine.close(now, port, host);
    }
    for tag in held {
        // A violation shows at the next request.
        let _ = complete(host, slot, tag, Err(libc::EBADF));
    }
}

/// Lets an application go: closes its sockets.
pub(super) fn detach(engine: &mut Engine, host: &mut NodeHost, now: Instant, slot: Slot) {
    let Some(application) = host.applications.get_mut(slot) else {
        return;
    };
    let mut ports: Vec<PortId> = application.sockets.keys().copied().collect();
    for port in &ports {
        host.applications.leave_to_others(engine, slot, *port);
    }
    ports.retain(|port| !sharing::release(engine, host, now, slot, *port));
    return_unread(engine, host, now, slot, None, Ending::Close);
    for port in &ports {
        host.applications.disown(*port);
        host.applications.shared.handles.forget(*port);
    }
    for port in ports {
        engine.close(now, port, host);
    }
}

/// Sends back what a socket (`None`: any of the application) was given and will never read.
pub(super) fn return_unread(
    engine: &mut Engine,
    host: &mut NodeHost,
    now: Instant,
    slot: Slot,
    socket: Option<PortId>,
    ending: Ending,
) {
    let Some(application) = host.applications.get_mut(slot) else {
        return;
    };
    let mut unread = Vec::new();
    application.take_unread(
        socket,
        |consumed| note_consumed(engine, consumed),
        |port, about, bytes, _| {
            if about.returnable {
                unread.push((port, *about, bytes.to_vec()));
            }
        },
    );
    for (port, about, bytes) in unread {
        engine.return_unread(now, port, ending, (&about, &bytes[..]), host);
    }
}

fn range_of(range: ServiceRange) -> name::ServiceRange {
    name::ServiceRange {
        type_: range.type_,
        lower: range.lower,
        upper: range.upper,
    }
}

pub(super) fn scope_of(scope: Scope) -> name::Scope {
    match scope {
        Scope::Cluster => name::Scope::Cluster,
        Scope::Node => name::Scope::Node,
    }
}

pub(super) fn destination_of(destination: Destination) -> addr::Destination {
    match destination {
        Destination::Socket(socket) => addr::Destination::Socket(addr::SocketAddr {
            port: PortId(socket.port),
            node: NodeAddr(socket.node),
        }),
        Destination::Service { address, domain } => addr::Destination::Service {
            kind: address.type_,
            instance: address.instance,
            domain: NodeAddr(domain),
        },
        Destination::Multicast(range) => addr::Destination::Range {
            kind: range.type_,
            lower: range.lower,
            upper: range.upper,
        },
    }
}

pub(super) fn bind_errno(error: BindError) -> i32 {
    match error {
        BindError::NoSuchSocket => libc::EBADF,
        BindError::ReservedType(_) | BindError::Member => libc::EACCES,
        BindError::KeysUsedUp => libc::EADDRINUSE,
        BindError::EmptyRange { .. }
        | BindError::TooMany
        | BindError::NotBound
        | BindError::Connected => libc::EINVAL,
    }
}

fn subscription_errno(error: RequestError) -> i32 {
    match error {
        RequestError::TooShort(_)
        | RequestError::EmptyRange(..)
        | RequestError::Contradiction(_) => libc::EINVAL,
        RequestError::TooMany(_)
        | RequestError::TooManyOfPeer(..)
        | RequestError::TooManyOfPeers(_) => libc::ENOBUFS,
        RequestError::NoSuchSubscriber => libc::EPIPE,
    }
}

pub(super) fn send_errno(error: SendError) -> i32 {
    match error {
        SendError::NoSuchSocket => libc::EBADF,
        SendError::TooLong(_) => libc::EMSGSIZE,
        SendError::EmptyRange(..) | SendError::Range => libc::EINVAL,
        SendError::Unreachable => libc::EHOSTUNREACH,
        SendError::Congested => libc::EAGAIN,
        SendError::NotConnected => libc::ENOTCONN,
        SendError::Disconnected => libc::EPIPE,
        SendError::Bound => libc::EOPNOTSUPP,
    }
}
