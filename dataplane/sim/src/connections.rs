//! Connection sockets of a cluster's nodes.

use crate::cluster::Cluster;
use crate::host::Received;
use xtipc_protocol::addr::{Destination, PortId, SocketAddr};
use xtipc_protocol::connection::State;
use xtipc_protocol::engine::{AcceptError, Accepted, ConnectError, Ending, SendError};
use xtipc_protocol::host::Payload;
use xtipc_protocol::port::SocketKind;

impl Cluster {
    /// Opens a socket of this type.
    pub fn open_kind(&mut self, station: usize, kind: SocketKind) -> SocketAddr {
        let port = self.with(station, |node| node.engine.open(kind));
        SocketAddr {
            port,
            node: self.addr(station),
        }
    }

    /// A socket that takes connection requests.
    pub fn listener(&mut self, station: usize, kind: SocketKind) -> SocketAddr {
        let addr = self.open_kind(station, kind);
        self.with(station, |n| n.engine.listen(addr.port, None))
            .expect("a new connection socket can listen");
        addr
    }

    /// Asks for a connection.
    pub fn connect(
        &mut self,
        station: usize,
        port: PortId,
        to: Destination,
    ) -> Result<(), ConnectError> {
        let now = self.now;
        self.with(station, |n| n.engine.connect(now, port, &to, &mut n.host))
    }

    /// Accepts the oldest request.
    pub fn accept(&mut self, station: usize, port: PortId) -> Result<Accepted, AcceptError> {
        let now = self.now;
        self.with(station, |n| {
            n.engine.accept(now, port, &mut n.host, |_, _| {})
        })
    }

    /// Sends on a connection.
    pub fn write<P: Payload + ?Sized>(
        &mut self,
        station: usize,
        port: PortId,
        payload: &P,
    ) -> Result<usize, SendError> {
        let now = self.now;
        self.with(station, |n| {
            n.engine.send_connected(now, port, payload, &mut n.host)
        })
    }

    /// Ends a connection as an application does that shuts its socket down: what it has not read goes
    /// back.
    pub fn shutdown(&mut self, station: usize, port: PortId) {
        self.part(station, port, Ending::Shutdown);
        let now = self.now;
        // Fails for sockets without a connection, which are marked all the same.
        let _ = self.with(station, |n| n.engine.shutdown(now, port, &mut n.host));
    }

    /// Closes a socket with messages that nobody has read.
    pub fn close_unread(&mut self, station: usize, port: PortId) {
        self.part(station, port, Ending::Close);
        self.close(station, port);
    }

    fn part(&mut self, station: usize, port: PortId, ending: Ending) {
        let now = self.now;
        self.with(station, |n| {
            for Received { about, bytes, .. } in n.host.inbox.remove(&port).unwrap_or_default() {
                let message = (&about, &bytes[..]);
                n.engine
                    .return_unread(now, port, ending, message, &mut n.host);
            }
        });
    }

    /// Where a socket's connection stands.
    pub fn state(&self, station: usize, port: PortId) -> Option<State> {
        let port = self.node(station).engine.port(port)?;
        port.connection().map(|c| c.state)
    }
}
