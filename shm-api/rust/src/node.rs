//! Attaching to a node.

use std::env;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use xtipc_segment::application::{ApplicationSide, MapError};
use xtipc_segment::attach::{self, Message, ReceiveError};
use xtipc_segment::daemon::SegmentFds;
use xtipc_segment::layout::VERSION;

use crate::attachment::Attachment;
use crate::rounds::Rounds;
use crate::{Error, Result};

const RUN_DIRECTORY: &str = "/run/xtipc";
const SOCKET_NAME: &str = "attach.sock";
/// A daemon that takes longer to answer on the attach socket is stuck.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Names the attach socket where the program names none.
const SOCKET_VARIABLE: &str = "XTIPC_SOCKET";

/// An attachment to the node. Cheap to clone; it ends when the last clone and the last socket are dropped.
#[derive(Clone, Debug)]
pub struct Node {
    pub(crate) attachment: Arc<Attachment>,
}

/// Which node to attach to.
#[derive(Clone, Debug, Default)]
pub struct NodeBuilder {
    socket_path: Option<PathBuf>,
    worker: Option<u32>,
    prefault: bool,
    place: Option<fn(OwnedFd) -> io::Result<OwnedFd>>,
}

impl Node {
    /// Attaches to the node of this host: at the socket that `XTIPC_SOCKET` names, else at `/run/xtipc/attach.sock`.
    pub fn attach() -> Result<Self> {
        Self::builder().attach()
    }

    /// Attaches to another one.
    pub fn builder() -> NodeBuilder {
        NodeBuilder::default()
    }

    /// Node address at the time of attaching; 0 if the node had none yet.
    pub fn address(&self) -> u32 {
        self.attachment.welcome.node
    }

    /// Whether this process attached, and the node is still there as far as is known.
    pub fn is_usable(&self) -> bool {
        self.attachment
            .core()
            .is_ok_and(|core| core.failure.is_none())
    }

    /// Node identity.
    pub fn identity(&self) -> [u8; 16] {
        self.attachment.welcome.identity
    }
}

impl NodeBuilder {
    /// Attaches at this socket.
    pub fn socket_path(mut self, path: impl AsRef<Path>) -> Self {
        self.socket_path = Some(path.as_ref().to_owned());
        self
    }

    /// Attaches to the instance of this name: at `/run/xtipc/NAME/attach.sock`.
    pub fn instance(self, name: &str) -> Self {
        self.socket_path(Path::new(RUN_DIRECTORY).join(name).join(SOCKET_NAME))
    }

    /// Asks to be served by this worker of the node, by its number in `xtipc status`; a node refuses if that one serves
    /// no applications. In this version worker 0 does. Default: whichever the node chooses.
    pub fn worker(mut self, worker: u32) -> Self {
        self.worker = Some(worker);
        self
    }

    /// Whether to take all shared memory of the attachment when attaching, some 7 MB, instead of page by page as it is
    /// touched: then no call is held up by a page fault. Default: no.
    pub fn prefault(mut self, prefault: bool) -> Self {
        self.prefault = prefault;
        self
    }

    /// Has each file descriptor that the attachment keeps pass through `place`, which may give it another number: for
    /// programs that take the numbers of their own descriptors for granted.
    pub fn place_descriptors(mut self, place: fn(OwnedFd) -> io::Result<OwnedFd>) -> Self {
        self.place = Some(place);
        self
    }

    /// Attaches.
    pub fn attach(mut self) -> Result<Node> {
        let path = self.socket_path.take().unwrap_or_else(|| {
            env::var_os(SOCKET_VARIABLE)
                .map_or_else(|| Path::new(RUN_DIRECTORY).join(SOCKET_NAME), PathBuf::from)
        });
        let socket = attach::connect(&path).map_err(|cause| Error::NoDaemon { path, cause })?;
        self.attach_over(socket, None)
    }

    /// Attaches over a socket whose other end the node has.
    pub(crate) fn attach_over(&self, socket: OwnedFd, rounds: Option<Rounds>) -> Result<Node> {
        let looking_on = rounds.as_ref().map(Rounds::look_on);
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_TIMEOUT))
            .map_err(io::Error::from)?;
        let hello = Message::Hello {
            version: VERSION,
            worker: self.worker,
        };
        // A daemon may refuse and close before it reads this: its answer tells more than the failure to send.
        let sent = attach::send_message(socket.as_fd(), &hello, &[]);
        let answer = attach::receive_message(socket.as_fd()).map_err(receive_error)?;
        let Some((message, fds)) = answer else {
            sent?;
            return Err(Error::NodeGone);
        };
        let welcome = match message {
            Message::Welcome(welcome) => welcome,
            Message::Refused { version, .. } if version != VERSION => {
                return Err(version_mismatch(version));
            }
            Message::Refused { reason, .. } => return Err(Error::Refused { reason }),
            other => return Err(protocol_error(format!("unexpected answer {other:?}"))),
        };
        if welcome.version != VERSION {
            return Err(version_mismatch(welcome.version));
        }
        // The daemon sends four; the kernel leaves out those that this process has no room for.
        let no_room = || io::Error::from_raw_os_error(libc::EMFILE);
        let mut fds = SegmentFds::from_fds(fds).ok_or_else(no_room)?;
        let mut socket = socket;
        if let Some(place) = self.place {
            socket = place(socket)?;
            fds.doorbell = place(fds.doorbell)?;
            fds.wake = place(fds.wake)?;
        }
        let side = ApplicationSide::map(fds).map_err(|error| match error {
            MapError::Io(error) => Error::Io(error),
            MapError::Layout(error) => protocol_error(error),
        })?;
        if self.prefault {
            side.prefault()?;
        }
        drop(looking_on);
        Ok(Node {
            attachment: Arc::new(Attachment::new(side, socket, welcome, rounds)?),
        })
    }
}

/// An answer on the attach socket that did not come, or made no sense.
pub(crate) fn receive_error(error: ReceiveError) -> Error {
    match error {
        ReceiveError::Io(error) if error.kind() == io::ErrorKind::WouldBlock => Error::TimedOut,
        ReceiveError::Io(error) => error.into(),
        ReceiveError::Message(error) => protocol_error(error),
    }
}

fn version_mismatch(daemon: u32) -> Error {
    Error::VersionMismatch {
        library: VERSION,
        daemon,
    }
}

fn protocol_error(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Io(io::Error::new(io::ErrorKind::InvalidData, error))
}
