//! Ways to nodes that applications look at without asking (`docs/architecture.md`, the application boundary): after each
//! round what has changed is written into their segments.

use xtipc_protocol::addr::{NodeAddr, PortId};
use xtipc_protocol::connection::State;
use xtipc_protocol::engine::Engine;
use xtipc_segment::{ConnectionWindow, PATHS_MAX, PathState};

use super::applications::Slot;
use super::host::NodeHost;
use super::requests::Answer;

/// What a path leads to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    Node(NodeAddr),
    /// The peer of this socket.
    Connection(PortId),
}

/// A path that an application has open.
#[derive(Debug)]
struct OpenPath {
    slot: u32,
    target: Target,
    /// What the segment holds.
    shown: PathState,
}

/// The paths of an application.
#[derive(Debug, Default)]
pub(super) struct Paths(Vec<OpenPath>);

impl Paths {
    fn free_slot(&self) -> Option<u32> {
        (0..PATHS_MAX).find(|slot| self.0.iter().all(|path| path.slot != *slot))
    }

    /// Looks at every path again, and has `show` told of those that changed.
    pub(super) fn look(&mut self, engine: &Engine, mut show: impl FnMut(u32, &PathState)) {
        for path in &mut self.0 {
            let state = state_of(engine, path.target);
            if state != path.shown {
                path.shown = state;
                show(path.slot, &state);
            }
        }
    }
}

/// Opens a path to a node, or with a socket to its peer.
pub(super) fn open(
    engine: &Engine,
    host: &mut NodeHost,
    application: Slot,
    socket: PortId,
    node: u32,
) -> Answer {
    let application = host.applications.get_mut(application).ok_or(libc::EBADF)?;
    let target = if socket == PortId(0) {
        Target::Node(NodeAddr(node))
    } else if !application.sockets.contains_key(&socket) {
        return Err(libc::EBADF);
    } else {
        let connection = engine.port(socket).and_then(|port| port.connection());
        connection
            .filter(|connection| connection.state == State::Established)
            .ok_or(libc::ENOTCONN)?;
        Target::Connection(socket)
    };
    let slot = application.paths.free_slot().ok_or(libc::ENOBUFS)?;
    let shown = state_of(engine, target);
    application.side.show_path(slot, &shown);
    application.paths.0.push(OpenPath {
        slot,
        target,
        shown,
    });
    Ok([slot.into(), 0])
}

/// Frees a slot.
pub(super) fn close(host: &mut NodeHost, application: Slot, slot: u32) -> Answer {
    let application = host.applications.get_mut(application).ok_or(libc::EBADF)?;
    let paths = &mut application.paths.0;
    let at = paths.iter().position(|path| path.slot == slot);
    paths.swap_remove(at.ok_or(libc::ENOENT)?);
    Ok([0; 2])
}

fn state_of(engine: &Engine, target: Target) -> PathState {
    let (node, connection) = match target {
        Target::Node(node) => (node, None),
        Target::Connection(port) => {
            let connection = engine.port(port).and_then(|port| port.connection());
            match connection.filter(|c| c.state == State::Established) {
                Some(connection) => (connection.peer.node, Some(connection)),
                None => return PathState::default(),
            }
        }
    };
    let view = engine.path(node);
    PathState {
        is_up: view.up,
        is_congested: view.congested || connection.is_some_and(|c| c.flow.is_congested()),
        round_trip: view.round_trip,
        in_flight: view.in_flight,
        waiting: view.waiting,
        window: view.window,
        single_packet_max: view.mss,
        connection: connection.map(|connection| {
            let (under_way, limit) = connection.flow.sent();
            ConnectionWindow {
                under_way,
                limit: limit.into(),
            }
        }),
    }
}
