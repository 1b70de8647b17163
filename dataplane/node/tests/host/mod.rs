//! A daemon without bearers, which needs no privileges.
#![allow(dead_code, reason = "each test binary uses its part of this module")]

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use xtipc::{Connection, ConnectionKind, Listener, Node, Scope, ServiceAddress, SocketAddress};
use xtipc_management::{Client, SocketInfo};

/// A daemon of its own for one test.
pub(crate) struct Host {
    directory: tempfile::TempDir,
    daemon: Child,
}

impl Host {
    /// Starts it and waits until it can be used.
    pub(crate) fn start() -> Self {
        // The tests of `over_channels.rs` are those of other files, with channels from the second message on.
        match module_path!().starts_with("over_channels") {
            true => Self::start_with(&["--direct-after=1"]),
            false => Self::start_with(&[]),
        }
    }

    /// The same with further options.
    pub(crate) fn start_with(options: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let notify = directory.path().join("notify");
        let ready = UnixDatagram::bind(&notify).unwrap();
        ready
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let empty = directory.path().join("empty.toml");
        std::fs::write(&empty, "").unwrap();
        let daemon = Command::new(env!("CARGO_BIN_EXE_xtipcd"))
            .args(["--identity", "alone", "--config"])
            .arg(empty)
            .arg("--run-dir")
            .arg(directory.path().join("run"))
            .args(options)
            .env("NOTIFY_SOCKET", notify)
            .env_remove("XTIPC_LOG")
            .spawn()
            .unwrap();
        ready.recv(&mut [0; 64]).expect("the daemon becomes ready");
        Self { directory, daemon }
    }

    /// Attaches: each call stands for another program.
    pub(crate) fn attach(&self) -> Node {
        Node::builder()
            .socket_path(self.attach_socket())
            .attach()
            .unwrap()
    }

    /// A connection of `node` to a server of another program: its ends, and the address of the first.
    pub(crate) fn connect(
        &self,
        node: &Node,
        kind: ConnectionKind,
        service: ServiceAddress,
    ) -> (Connection, Connection, SocketAddress) {
        let listener = Listener::bind(&self.attach(), kind, service, Scope::Cluster).unwrap();
        let (client, (server, address)) = thread::scope(|s| {
            let client = s.spawn(|| Connection::connect(node, kind, service).unwrap());
            let server = listener.accept().unwrap();
            (client.join().unwrap(), server)
        });
        (client, server, address)
    }

    /// Where programs attach.
    pub(crate) fn attach_socket(&self) -> PathBuf {
        self.directory.path().join("run/attach.sock")
    }

    /// The daemon's process.
    pub(crate) fn pid(&self) -> u32 {
        self.daemon.id()
    }

    /// A tool of the operator.
    pub(crate) fn tool(&self) -> Client {
        Client::connect(&self.directory.path().join("run/control.sock")).unwrap()
    }

    /// Waits until this holds of a socket.
    pub(crate) fn await_socket(&self, port: u32, holds: impl Fn(&SocketInfo) -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let sockets = self.tool().sockets(true).unwrap();
            let about = sockets.into_iter().find(|socket| socket.port == port);
            let about = about.expect("there is such a socket");
            if holds(&about) {
                return;
            }
            assert!(Instant::now() < end, "{about:?}");
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
