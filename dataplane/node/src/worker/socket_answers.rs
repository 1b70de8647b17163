//! Sockets as the operator's tools see them: whose they are, where they stand, and what keeps them from sending
//! (`docs/protocol/management.md`).

use xtipc_management::{
    Binding, Call, ChannelInfo, Connection, ConnectionWindow, MemberLacks, Obstacle, SendWait,
    ServiceAddress, SocketDetails, SocketInfo, SocketKind, SocketState, SubscriberInfo,
    WaitingCalls, WindowUnit,
};
use xtipc_protocol::addr::{NodeAddr, PortId};
use xtipc_protocol::connection::{self, Role, State};
use xtipc_protocol::engine::{self, SubscriberView, Waiting};
use xtipc_protocol::group::BlockedOn;
use xtipc_protocol::port::{self, Port};
use xtipc_segment::Request;

use super::Worker;
use super::answers::scope;
use super::applications::Slot;
use crate::clock::now_ns;

impl Worker {
    /// All sockets; with details also what only those show, and subscribers.
    pub(super) fn sockets(&self, details: bool) -> Vec<SocketInfo> {
        let all = self.engine.sockets();
        let mut sockets: Vec<SocketInfo> = all
            .map(|(id, socket)| {
                let (messages, bytes) = self.host.applications.receive_queue(id, socket);
                SocketInfo {
                    port: id.0,
                    kind: kind(socket.kind),
                    pid: self.pid_of(id),
                    bound: socket.bindings.iter().map(binding).collect(),
                    connected: socket.connection().and_then(connection),
                    receive_queue_messages: messages,
                    receive_queue_bytes: bytes,
                    drops: socket.overloads,
                    details: details.then(|| self.details(id, socket)),
                }
            })
            .collect();
        if details {
            self.add_subscribers(&mut sockets);
        }
        sockets.sort_by_key(|socket| socket.port);
        sockets
    }

    /// Subscribers that asked by a connection are sockets already; the others have a line of their own.
    fn add_subscribers(&self, sockets: &mut Vec<SocketInfo>) {
        for subscriber in self.engine.subscribers() {
            let info = Some(SubscriberInfo {
                subscriptions: subscriber.subscriptions,
                events_waiting: subscriber.waiting,
                events_unread: subscriber.unread,
            });
            let port = subscriber.port.0;
            if let Some(details) = sockets
                .iter_mut()
                .find(|socket| socket.port == port)
                .and_then(|socket| socket.details.as_mut())
            {
                details.subscriber = info;
                continue;
            }
            sockets.push(SocketInfo {
                details: Some(SocketDetails {
                    subscriber: info,
                    ..SocketDetails::default()
                }),
                ..self.subscriber(&subscriber)
            });
        }
    }

    fn subscriber(&self, subscriber: &SubscriberView) -> SocketInfo {
        SocketInfo {
            port: subscriber.port.0,
            kind: SocketKind::Subscriber,
            pid: self.pid_of(subscriber.port),
            bound: Vec::new(),
            connected: None,
            receive_queue_messages: subscriber.unread.into(),
            receive_queue_bytes: 0,
            drops: 0,
            details: None,
        }
    }

    fn details(&self, id: PortId, socket: &Port) -> SocketDetails {
        SocketDetails {
            state: state(socket),
            holders: self.holders(id),
            descriptor: self.host.applications.shared.handles.inode(id),
            window: socket.connection().and_then(window),
            backlog: match &socket.role {
                Role::Listener(listener) => Some(listener.pending.len() as u32),
                Role::Open | Role::Connection(_) => None,
            },
            subscriber: None,
            waiting: match self.engine.waiting(id) {
                Some(waiting) => Some(self.wait(&waiting)),
                None => self.wait_in_channel(id, socket),
            },
            calls: self.waiting_calls(id),
            channel: self.channel(id),
        }
    }

    /// All its channels together.
    fn channel(&self, id: PortId) -> Option<ChannelInfo> {
        let channels = self.host.applications.channels_of(id);
        let channels = channels.map(|(_, direct)| direct.traffic());
        let channels = channels.map(|traffic| ChannelInfo {
            sent: traffic.sent,
            received: traffic.received,
            unread: traffic.unread,
        });
        // Programs write these words.
        channels.reduce(|sum, other| ChannelInfo {
            sent: sum.sent.saturating_add(other.sent),
            received: sum.received.saturating_add(other.received),
            unread: sum.unread.saturating_add(other.unread),
        })
    }

    /// The same of a socket that sends by its direct channel, as far as its program says so.
    fn wait_in_channel(&self, id: PortId, socket: &Port) -> Option<SendWait> {
        let (_, direct) = self.host.applications.channels_of(id).next()?;
        let wait = direct.wait();
        let peer = socket.connection().and_then(connection)?;
        // What is read and still in the way is memory that the peer has not let go of.
        let is_in_the_way = wait.calls > 0 || direct.unread_by_peer() > 0;
        (wait.refused_since != 0).then(|| SendWait {
            for_ms: elapsed_ms(wait.refused_since),
            obstacle: is_in_the_way.then_some(Obstacle::Peer {
                address: peer.address,
                port: peer.port,
            }),
        })
    }

    fn wait(&self, waiting: &Waiting) -> SendWait {
        let node = |addr: NodeAddr| addr.0;
        SendWait {
            for_ms: elapsed_ms(waiting.since.0),
            obstacle: waiting.obstacle.map(|obstacle| match obstacle {
                engine::Obstacle::Window(peer) => Obstacle::Peer {
                    address: peer.node.0,
                    port: peer.port.0,
                },
                engine::Obstacle::Member(blocked) => Obstacle::Member {
                    address: blocked.member.node.0,
                    port: blocked.member.port.0,
                    lacks: match blocked.on {
                        BlockedOn::Join => MemberLacks::Join,
                        BlockedOn::Credit { window, needed } => {
                            MemberLacks::Credit { window, needed }
                        }
                        BlockedOn::Acknowledgement => MemberLacks::Acknowledgement,
                    },
                },
                engine::Obstacle::Link(peer, bearer) => Obstacle::Link {
                    link: self.link_text(peer, bearer).0,
                    address: peer.0,
                },
                engine::Obstacle::BroadcastLink(slowest) => Obstacle::BroadcastLink {
                    slowest: slowest.map(node),
                },
                engine::Obstacle::Telling(slowest) => Obstacle::Bindings {
                    slowest: slowest.map(node),
                },
                engine::Obstacle::Frames => Obstacle::Frames,
            }),
        }
    }

    /// What its process has asked on a socket and not been answered.
    fn waiting_calls(&self, id: PortId) -> Vec<WaitingCalls> {
        let mut calls: Vec<WaitingCalls> = Vec::new();
        let Some(application) = self.owner(id) else {
            return calls;
        };
        // Who only wants to hear of it does not wait in a call.
        let is_call = |request: &Request| !matches!(request, Request::Await { .. });
        let held = application.held.iter();
        let of_socket = held.filter(|held| held.port == id && is_call(&held.submission.request));
        for held in of_socket {
            let call = call(&held.submission.request);
            let for_ms = elapsed_ms(held.since.0);
            match calls.iter_mut().find(|calls| calls.call == call) {
                Some(calls) => {
                    calls.count += 1;
                    calls.for_ms = calls.for_ms.max(for_ms);
                }
                None => calls.push(WaitingCalls {
                    call,
                    count: 1,
                    for_ms,
                }),
            }
        }
        if let Some((_, direct)) = self.host.applications.channels_of(id).next()
            && let wait = direct.wait()
            && wait.calls > 0
        {
            calls.push(WaitingCalls {
                call: Call::Send,
                count: wait.calls,
                for_ms: elapsed_ms(wait.calls_since),
            });
        }
        calls
    }

    /// The processes that use a socket, if there are several.
    fn holders(&self, id: PortId) -> Vec<u32> {
        let applications = &self.host.applications;
        let slots = (0..).map_while(|number| applications.holder(id, number));
        let pids: Vec<u32> = slots
            .filter_map(|slot| Some(applications.get(slot)?.process.pid))
            .collect();
        match pids.len() {
            0 | 1 => Vec::new(),
            _ => pids,
        }
    }

    fn pid_of(&self, id: PortId) -> Option<u32> {
        self.owner(id).map(|application| application.process.pid)
    }

    fn owner(&self, id: PortId) -> Option<&super::application::Application> {
        let owner: Slot = self.host.applications.owner(id)?;
        self.host.applications.get(owner)
    }
}

fn elapsed_ms(since_ns: u64) -> u64 {
    now_ns().saturating_sub(since_ns) / 1_000_000
}

fn call(request: &Request) -> Call {
    match request {
        Request::Send { .. } => Call::Send,
        Request::Connect { .. } => Call::Connect,
        Request::Accept { .. } => Call::Accept,
        _ => Call::Other,
    }
}

fn kind(kind: port::SocketKind) -> SocketKind {
    match kind {
        port::SocketKind::Rdm => SocketKind::Rdm,
        port::SocketKind::Dgram => SocketKind::Dgram,
        port::SocketKind::Seqpacket => SocketKind::Seqpacket,
        port::SocketKind::Stream => SocketKind::Stream,
    }
}

fn state(socket: &Port) -> SocketState {
    match &socket.role {
        Role::Open => SocketState::Open,
        Role::Listener(_) => SocketState::Listening,
        Role::Connection(connection) => match connection.state {
            State::Connecting => SocketState::Connecting,
            State::Established => SocketState::Connected,
            State::Disconnecting => SocketState::Disconnected,
        },
    }
}

fn window(connection: &connection::Connection) -> Option<ConnectionWindow> {
    let (under_way, limit) = connection.flow.sent();
    (connection.state == State::Established).then(|| ConnectionWindow {
        unit: if connection.flow.counts_blocks() {
            WindowUnit::Blocks
        } else {
            WindowUnit::Messages
        },
        under_way,
        limit,
        gathered_bytes: connection.nagle.held.len() as u64,
    })
}

fn connection(connection: &connection::Connection) -> Option<Connection> {
    (connection.state == State::Established).then(|| Connection {
        address: connection.peer.node.0,
        port: connection.peer.port.0,
        via: connection.name.map(|name| ServiceAddress {
            service_type: name.kind,
            instance: name.lower,
        }),
    })
}

fn binding(binding: &port::Binding) -> Binding {
    Binding {
        service_type: binding.range.type_,
        lower: binding.range.lower,
        upper: binding.range.upper,
        scope: scope(binding.scope),
    }
}
