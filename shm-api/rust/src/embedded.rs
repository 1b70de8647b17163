//! A node of this process's own.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use xtipcd::config::Config;
use xtipcd::embedded::Embedded;

use crate::rounds::Rounds;
use crate::{Error, Node, NodeBuilder, Result};

/// A node inside this process, for latency: a thread that waits in a call makes the rounds of the node itself, so that
/// between the wire and the thread there is no other one to be woken.
///
/// Sockets, semantics and wire protocol are those of a node with a daemon. What differs:
///
/// * The process needs the privileges of the daemon ([`EmbeddedNode::start`] names what is missing), and the interfaces
///   of its bearers belong to it alone. The node lives as long as this, a [`Node`] attached to it, or a socket does; it
///   ends with the process.
/// * No other process can attach. The tools find it: it has the control socket of a daemon in its run directory.
/// * While no thread waits, a thread of the node's own takes the rounds over after an eighth of the shortest link
///   tolerance, so that links stay up; messages sent meanwhile go out at once, what comes is taken in when a call looks for it.
/// * Of several threads that wait one makes the rounds, the others sleep until it finds something for them. One
///   that waits in its own event loop (`as_fd`, the module `tokio`) is served by the node's thread.
///
/// With the policy `adaptive` a waiting thread spins for a while, giving its processor away between two looks, then
/// sleeps; with `busy` it only spins, with `sleep` it never does.
#[derive(Clone, Debug)]
pub struct EmbeddedNode {
    node: Arc<Embedded>,
}

impl EmbeddedNode {
    /// Starts a node and waits until its address is its own, about a second. The settings are the text of a
    /// configuration file of `xtipcd`, with the same keys: `bearer = ["eth:eth1"]`, `identity = "n1"`.
    ///
    /// [`Error::Io`] says which key, privilege, interface or file was wrong and what is accepted.
    pub fn start(settings: &str) -> Result<Self> {
        let config = Config::from_text(settings).map_err(std::io::Error::other)?;
        let node = Embedded::start(config).map_err(std::io::Error::other)?;
        Ok(Self {
            node: Arc::new(node),
        })
    }

    /// Attaches to it. A thread may have an attachment of its own.
    pub fn attach(&self) -> Result<Node> {
        self.attach_as(&NodeBuilder::default())
    }

    /// The same with what the builder says of worker and memory; its socket path means nothing here.
    pub fn attach_as(&self, builder: &NodeBuilder) -> Result<Node> {
        let (own, node): (OwnedFd, OwnedFd) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(std::io::Error::from)?;
        self.node.admit(node).map_err(Error::Io)?;
        builder.attach_over(own, Some(Rounds::new(Arc::clone(&self.node))))
    }
}
