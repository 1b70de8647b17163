//! Who waits until a socket can accept or send (`Request::Await`): one answer for each such request, given at once or
//! when the engine tells of a change. And who waits with the socket's descriptor, which is kept readable and writable as the
//! socket is, as far as processes ask for that (`Request::Arm`, `Request::Unblock`).

use xtipc_protocol::addr::PortId;
use xtipc_protocol::connection::{Role, State};
use xtipc_protocol::engine::Engine;
use xtipc_protocol::host::Notice;
use xtipc_protocol::time::Instant;
use xtipc_segment::{Ready, Request, Submission, Violation};

use super::applications::Slot;
use super::connections::hold;
use super::host::NodeHost;
use super::requests::{Answer, Outcome};

/// What a socket can do now. One whose connection is over waits for nothing.
fn ready_of(engine: &Engine, port: PortId) -> Ready {
    let Some(socket) = engine.port(port) else {
        return Ready::all();
    };
    let mut ready = Ready::empty();
    let waiting = engine.waiting(port);
    let has_way = waiting.is_none_or(|waiting| waiting.obstacle.is_none());
    match &socket.role {
        Role::Open => ready.set(Ready::SEND, has_way && !socket.is_congested()),
        Role::Listener(listener) => ready.set(Ready::ACCEPT, !listener.pending.is_empty()),
        Role::Connection(connection) => match connection.state {
            State::Connecting => {}
            State::Established => {
                let is_free = !connection.flow.is_congested() && !socket.is_congested();
                ready.set(Ready::SEND, is_free);
            }
            State::Disconnecting => return Ready::all(),
        },
    }
    ready
}

fn answer(engine: &Engine, port: PortId, wanted: Ready) -> Option<Answer> {
    let ready = ready_of(engine, port) & wanted;
    (!ready.is_empty() || wanted.is_empty()).then(|| Ok([ready.bits().into(), 0]))
}

/// Answers now or keeps the request.
pub(super) fn await_ready(
    engine: &Engine,
    host: &mut NodeHost,
    now: Instant,
    slot: Slot,
    port: PortId,
    submission: &Submission,
) -> Outcome {
    let Request::Await { ready } = submission.request else {
        return Outcome::Done(Err(libc::EOPNOTSUPP));
    };
    match answer(engine, port, ready) {
        Some(answer) => {
            call_watch(host, slot, port);
            Outcome::Done(answer)
        }
        None => {
            hold(host, now, slot, port, submission);
            Outcome::Held
        }
    }
}

/// Something changed at a socket: answers who waited for that.
pub(super) fn on_change(
    engine: &Engine,
    host: &mut NodeHost,
    slot: Slot,
    port: PortId,
) -> Result<(), Violation> {
    let Some(application) = host.applications.get_mut(slot) else {
        return Ok(());
    };
    let mut at = 0;
    while let Some(held) = application.held.get(at) {
        let Request::Await { ready } = held.submission.request else {
            at += 1;
            continue;
        };
        let answered = (held.port == port).then(|| answer(engine, port, ready));
        let Some(Some(Ok(values))) = answered else {
            at += 1;
            continue;
        };
        let tag = held.submission.tag;
        application.held.remove(at);
        application.side.complete(tag, 0, values)?;
        application.side.call_watch(port.0);
    }
    Ok(())
}

/// Has the descriptor of a socket told of whatever comes.
pub(super) fn arm(engine: &Engine, host: &mut NodeHost, slot: Slot, port: PortId) -> Answer {
    let applications = &mut host.applications;
    let end = applications.shared.handles.arm(port)?;
    let is_own = applications.shared.holders(port).is_none();
    if is_own && let Some(application) = applications.get_mut(slot) {
        application.side.watch_by(port.0, end);
    }
    hang_up_if_over(engine, host, port);
    Ok([0; 2])
}

/// The end of a round: what processes filled can be written to again where that is so. Whatever changed did so in a round.
pub(super) fn unblock(engine: &Engine, host: &mut NodeHost) {
    host.applications.shared.handles.unblock(|port| {
        engine.port(port).is_none_or(|about| match &about.role {
            Role::Open => engine.is_writable(port),
            Role::Listener(_) => false,
            Role::Connection(connection) => match connection.state {
                State::Connecting => false,
                State::Established => engine.is_writable(port),
                State::Disconnecting => true,
            },
        })
    });
}

/// Has the descriptor of a socket show what happened to it.
pub(super) fn show(engine: &Engine, host: &mut NodeHost, port: PortId, notice: Notice) {
    if matches!(notice, Notice::Acceptable(_)) {
        host.applications.shared.handles.announce(port);
    }
    hang_up_if_over(engine, host, port);
}

/// Who waits for the end of a connection alone is told, too.
pub(super) fn hang_up_if_over(engine: &Engine, host: &mut NodeHost, port: PortId) {
    let connection = engine.port(port).and_then(|about| about.connection());
    if connection.is_some_and(|connection| connection.state == State::Disconnecting) {
        host.applications.shared.handles.hang_up(port);
    }
}

fn call_watch(host: &mut NodeHost, slot: Slot, port: PortId) {
    if let Some(application) = host.applications.get_mut(slot) {
        application.side.call_watch(port.0);
    }
}
