//! What can go wrong, each with the errno that the socket interface of the kernel would give.

use std::io;
use std::path::PathBuf;

use xtipc_segment::{Destination, ServiceRange, Violation};

/// Result of every operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody listens at the attach socket.
    #[error(
        "no xtipc daemon at {path}: {cause} (is xtipcd running? XTIPC_SOCKET names another attach socket)"
    )]
    NoDaemon {
        /// The attach socket.
        path: PathBuf,
        /// What the system said. Not a `source`: it is in the text already.
        cause: io::Error,
    },
    /// The daemon does not let this process attach.
    #[error("the daemon refused: {reason}")]
    Refused {
        /// The daemon's words.
        reason: String,
    },
    /// Library and daemon speak different versions of the boundary.
    #[error(
        "this library speaks version {library} of the application boundary, the daemon {daemon}"
    )]
    VersionMismatch {
        /// Version of this library.
        library: u32,
        /// Version of the daemon.
        daemon: u32,
    },
    /// The daemon has ended, or has ended this attachment. Its sockets are gone: attach again.
    #[error("the node is gone: its daemon ended or detached this process")]
    NodeGone,
    /// The attachment belongs to the process that forked this one. Attach again.
    #[error("attached before fork: a forked child must attach itself")]
    Forked,
    /// The daemon wrote what cannot be.
    #[error("the daemon broke the application boundary: {0}")]
    Corrupted(#[from] Violation),
    /// The message is longer than TIPC carries.
    #[error("message of {len} bytes: at most {max} can be sent")]
    MessageTooLong {
        /// Its length.
        len: usize,
        /// The longest possible.
        max: usize,
    },
    /// No socket is bound to the destination, or its node cannot be reached.
    #[error("no route to {destination}: nobody is bound to it, or its node cannot be reached")]
    Unreachable {
        /// Where the message was to go.
        destination: Destination,
    },
    /// The default destination is unreachable.
    #[error(
        "no route to the default destination: nobody is bound to it, or its node cannot be reached"
    )]
    DefaultUnreachable,
    /// The group has no member that is meant, or none but this one.
    #[error("group {group} has no such member")]
    NoMember {
        /// The group.
        group: u32,
    },
    /// Neither a destination nor a default destination was given.
    #[error("no destination: name one, or set a default with connect()")]
    NoDestination,
    /// The operation would have to wait.
    #[error("would block")]
    WouldBlock,
    /// The time allowed is over.
    #[error("timed out")]
    TimedOut,
    /// A signal came. Only the calls of [`crate::socket`] end with it.
    #[error("interrupted by a signal")]
    Interrupted,
    /// A range ends before it begins.
    #[error("service range {0}: lower is above upper")]
    InvalidRange(ServiceRange),
    /// Service types below 64 cannot be bound.
    #[error("service type {type_} is reserved: types from 64 on can be bound")]
    ReservedType {
        /// The type.
        type_: u32,
    },
    /// There is no such binding of this socket.
    #[error("not bound to {0} with this scope")]
    NotBound(ServiceRange),
    /// The node or the process has as many bindings as it may have.
    #[error("cannot bind {0}: the limit of bindings is reached")]
    TooManyBindings(ServiceRange),
    /// The topology service has closed the subscriber: a request was refused, or too many events were not read. Its
    /// subscriptions are gone.
    #[error("the topology service closed this subscriber: its subscriptions are gone")]
    SubscriberClosed,
    /// The node has as many subscriptions as it may have. The subscriber is closed.
    #[error("cannot subscribe to {0}: the limit of subscriptions is reached")]
    TooManySubscriptions(ServiceRange),
    /// What the topology service said is no event.
    #[error("the topology service sent {len} bytes that are no event in this node's byte order")]
    NotAnEvent {
        /// Their number.
        len: usize,
    },
    /// A socket of another attachment cannot be waited for.
    #[error("the socket belongs to another attachment: a poller waits for sockets of one")]
    ForeignSocket,
    /// A member of a group is one process's: what it reads, its senders are told.
    #[error(
        "the socket is a member of a group, which processes cannot share: have each join, or leave the group first"
    )]
    MemberNotShared,
    /// A socket that this process polls is its own.
    #[error(
        "the socket is polled by a descriptor or a runtime, and then processes cannot share it: share it before that"
    )]
    PolledNotShared,
    /// The attachment has as many paths open as it may have.
    #[error("{} paths are open: drop one of them", xtipc_segment::PATHS_MAX)]
    TooManyPaths,
    /// The system or the daemon gave this errno.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Error {
    /// The errno of this error on the socket interface.
    pub fn errno(&self) -> i32 {
        match self {
            Self::NoDaemon { cause, .. } | Self::Io(cause) => {
                cause.raw_os_error().unwrap_or(libc::EIO)
            }
            Self::Refused { .. } | Self::ReservedType { .. } => libc::EACCES,
            Self::VersionMismatch { .. } => libc::EPROTO,
            Self::NodeGone => libc::ENETDOWN,
            Self::Forked => libc::EBADF,
            Self::Corrupted(_) => libc::EIO,
            Self::MessageTooLong { .. } => libc::EMSGSIZE,
            Self::Unreachable { .. } | Self::DefaultUnreachable | Self::NoMember { .. } => {
                libc::EHOSTUNREACH
            }
            Self::NoDestination => libc::EDESTADDRREQ,
            Self::WouldBlock | Self::TimedOut => libc::EAGAIN,
            Self::Interrupted => libc::EINTR,
            Self::SubscriberClosed => libc::EPIPE,
            Self::TooManySubscriptions(_) | Self::TooManyPaths => libc::ENOBUFS,
            Self::NotAnEvent { .. } => libc::EPROTO,
            Self::MemberNotShared => libc::EOPNOTSUPP,
            Self::PolledNotShared => libc::EBUSY,
            Self::ForeignSocket
            | Self::InvalidRange(_)
            | Self::NotBound(_)
            | Self::TooManyBindings(_) => libc::EINVAL,
        }
    }

    /// The error for a negative errno without further context.
    pub(crate) fn from_result(result: i32) -> Self {
        match -result {
            libc::EAGAIN => Self::WouldBlock,
            libc::EDESTADDRREQ => Self::NoDestination,
            libc::ECANCELED => Self::TimedOut,
            errno => Self::Io(io::Error::from_raw_os_error(errno)),
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) => error,
            Error::TimedOut => Self::new(io::ErrorKind::TimedOut, error),
            other => {
                let kind = Self::from_raw_os_error(other.errno()).kind();
                Self::new(kind, other)
            }
        }
    }
}
