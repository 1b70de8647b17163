//! The attach protocol: datagrams over a Unix SOCK_SEQPACKET socket.
//!
//! ```text
//! application                         daemon
//!   Hello{version}         ─────▶      checks credentials, makes a segment
//!              ◀─────  Welcome{node} + 4 fds   or   Refused{reason}, then closes
//!   Watch{socket}          ─────▶
//!              ◀─────  Watching{socket, result} + read end of a pipe
//!   Share{socket, read}    ─────▶      the socket's queue moves into the daemon
//!              ◀─────  Shared{socket, result} + a handle for other processes, unless the socket has a descriptor
//!   Describe{socket}       ─────▶      the socket lives as long as its descriptor
//!              ◀─────  Described{socket, result} + the descriptor
//!   Adopt + the handle     ─────▶
//!              ◀─────  Adopted{result, socket, kind, listens}
//!              ◀─────  Channel{socket, side, …} + 3 fds     unasked, before a notice at the socket tells of it; of
//!                                                           datagrams a fourth is that of [`crate::board`]
//! ```
//!
//! A handle is one end of a pair of Unix sockets whose other end the daemon holds. Who has it may use the socket; the
//! socket lives as long as a process uses it or a handle of it is open anywhere. A *descriptor* is the one handle that
//! stands for its socket like the file descriptor of a kernel socket: the socket ends with its last copy, whoever uses it
//! then. Its peer has a name that begins with [`DESCRIPTOR_NAME`], by which programs recognise what they inherited. Once
//! armed ([`crate::Request::Arm`]) it is readable while there may be something to read: the daemon writes a byte per round
//! with news, the processes read them. It is writable unless somebody filled it, see [`crate::Request::Unblock`].
//!
//! The connection stays open as long as the attachment: its end tells the application that the daemon died. (The
//! daemon looks at the pidfd, as a forked child keeps the connection open.) A message is the magic, its kind, and
//! numbers of 32 bits in the machine's byte order. Decoding is total.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::daemon::SegmentFds;
use crate::{ServiceAddress, SocketAddress};

/// First bytes of each message.
const MAGIC: [u8; 8] = *b"XTIPCATT";
/// Longest message.
const MESSAGE_MAX: usize = 512;
/// Most fds in a message.
const FDS_MAX: usize = 4;
/// Longest reason of a refusal, in bytes.
const REASON_MAX: usize = 400;

const HELLO: u32 = 1;
const WELCOME: u32 = 2;
const REFUSED: u32 = 3;
const WATCH: u32 = 4;
const WATCHING: u32 = 5;
const SHARE: u32 = 6;
const SHARED: u32 = 7;
const ADOPT: u32 = 8;
const ADOPTED: u32 = 9;
const CHANNEL: u32 = 10;
const DESCRIBE: u32 = 11;
const DESCRIBED: u32 = 12;

/// How the abstract name of a descriptor's peer begins.
pub const DESCRIPTOR_NAME: &[u8] = b"xtipc-descriptor/";

/// Stands for no worker in particular.
const ANY_WORKER: u32 = u32::MAX;

/// A message on the attach socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The application wants to attach.
    Hello {
        /// Layout version it knows ([`crate::layout::VERSION`]).
        version: u32,
        /// The worker it wants to be served by, if it matters. Earlier versions do not say.
        worker: Option<u32>,
    },
    /// It is attached. Comes with the fds of [`SegmentFds`].
    Welcome(Welcome),
    /// It is not.
    Refused {
        /// Layout version the daemon knows.
        version: u32,
        /// Why, for people. Cut to 400 bytes.
        reason: String,
    },
    /// The application wants a pollable fd for a socket.
    Watch {
        /// Id of the socket.
        socket: u32,
    },
    /// Answer to [`Message::Watch`]; comes with one fd if the result is 0.
    Watching {
        /// Id of the socket.
        socket: u32,
        /// 0 or a negative errno.
        result: i32,
    },
    /// The application wants a handle of a socket, to share it with other processes. From now on it asks for each
    /// message by [`crate::Request::Receive`].
    Share {
        /// Id of the socket.
        socket: u32,
        /// Bytes that were read of the oldest message it has not consumed.
        read: u32,
    },
    /// Answer to [`Message::Share`]; comes with the handle if the result is 0. What was delivered before and not
    /// consumed is the daemon's again, and to be returned.
    Shared {
        /// Id of the socket.
        socket: u32,
        /// 0 or a negative errno.
        result: i32,
    },
    /// The application wants the descriptor of a socket that it opened and has not shared.
    Describe {
        /// Id of the socket.
        socket: u32,
    },
    /// Answer to [`Message::Describe`]; comes with the descriptor if the result is 0.
    Described {
        /// Id of the socket.
        socket: u32,
        /// 0 or a negative errno.
        result: i32,
    },
    /// The application wants to use the socket of a handle that comes with the message.
    Adopt,
    /// Answer to [`Message::Adopt`].
    Adopted {
        /// 0 or a negative errno.
        result: i32,
        /// Id of the socket.
        socket: u32,
        /// Its type, as [`crate::SocketKind`] counts.
        kind: u32,
        /// 1 if it takes connection requests.
        listens: u32,
    },
    /// A direct channel to the peer of a connection, or to a socket that exchanges datagrams with this one. Comes with the fds
    /// of [`crate::channel::ChannelFds`], of datagrams also with that of the board.
    Channel(ChannelOffer),
}

/// What an application learns about a direct channel of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelOffer {
    /// Id of the socket.
    pub socket: u32,
    /// Which side of the channel it is, as [`crate::channel::Side::of_number`] counts.
    pub side: u32,
    /// Units that the peer may send ahead, as far as it was told.
    pub receive_window: u32,
    /// The same, to be told next: what the receive buffer allows.
    pub next_window: u32,
    /// The peer.
    pub peer: SocketAddress,
    /// The service address the connection was set up with, as its messages tell.
    pub name: Option<ServiceAddress>,
}

/// What an attached application learns about its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Layout version of the segment.
    pub version: u32,
    /// Node address, 0 while the node has none.
    pub node: u32,
    /// Node identity.
    pub identity: [u8; 16],
    /// So many messages of a connection within the node go by the daemon before it gets a direct channel; 0: it gets none.
    pub direct_after: u32,
}

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// It does not start with the magic.
    #[error("not a message of the xtipc attach protocol")]
    Magic,
    /// It ends too early.
    #[error("attach message of kind {kind} is cut off")]
    Truncated {
        /// Its kind.
        kind: u32,
    },
    /// There is no such kind.
    #[error("attach message of unknown kind {0}")]
    Kind(u32),
}

impl Message {
    /// The bytes to send.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        let mut word = |value: u32| out.extend_from_slice(&value.to_ne_bytes());
        match self {
            Self::Hello { version, worker } => {
                word(HELLO);
                word(*version);
                word(worker.unwrap_or(ANY_WORKER));
            }
            Self::Welcome(welcome) => {
                word(WELCOME);
                word(welcome.version);
                word(welcome.node);
                out.extend_from_slice(&welcome.identity);
                out.extend_from_slice(&welcome.direct_after.to_ne_bytes());
            }
            Self::Refused { version, reason } => {
                word(REFUSED);
                word(*version);
                let end = reason.floor_char_boundary(REASON_MAX);
                out.extend_from_slice(&reason.as_bytes()[..end]);
            }
            Self::Watch { socket } => {
                word(WATCH);
                word(*socket);
            }
            Self::Watching { socket, result } => {
                word(WATCHING);
                word(*socket);
                word(result.cast_unsigned());
            }
            Self::Share { socket, read } => {
                word(SHARE);
                word(*socket);
                word(*read);
            }
            Self::Shared { socket, result } => {
                word(SHARED);
                word(*socket);
                word(result.cast_unsigned());
            }
            Self::Describe { socket } => {
                word(DESCRIBE);
                word(*socket);
            }
            Self::Described { socket, result } => {
                word(DESCRIBED);
                word(*socket);
                word(result.cast_unsigned());
            }
            Self::Adopt => word(ADOPT),
            Self::Adopted {
                result,
                socket,
                kind,
                listens,
            } => {
                word(ADOPTED);
                word(result.cast_unsigned());
                word(*socket);
                word(*kind);
                word(*listens);
            }
            Self::Channel(offer) => {
                word(CHANNEL);
                word(offer.socket);
                word(offer.side);
                word(offer.receive_window);
                word(offer.next_window);
                word(offer.peer.port);
                word(offer.peer.node);
                word(u32::from(offer.name.is_some()));
                let name = offer.name.unwrap_or_default();
                word(name.type_);
                word(name.instance);
            }
        }
        out
    }

    /// Reads a message. Bytes behind it are of a later version and ignored.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut rest = bytes.strip_prefix(&MAGIC).ok_or(MessageError::Magic)?;
        let word = |rest: &mut &[u8], kind: u32| {
            let (first, tail) = rest
                .split_first_chunk::<4>()
                .ok_or(MessageError::Truncated { kind })?;
            *rest = tail;
            Ok(u32::from_ne_bytes(*first))
        };
        let kind = word(&mut rest, 0)?;
        Ok(match kind {
            HELLO => Self::Hello {
                version: word(&mut rest, kind)?,
                worker: match rest {
                    [] => None,
                    _ => Some(word(&mut rest, kind)?).filter(|worker| *worker != ANY_WORKER),
                },
            },
            WELCOME => Self::Welcome(Welcome {
                version: word(&mut rest, kind)?,
                node: word(&mut rest, kind)?,
                identity: {
                    let (identity, tail) = rest
                        .split_first_chunk()
                        .ok_or(MessageError::Truncated { kind })?;
                    rest = tail;
                    *identity
                },
                direct_after: word(&mut rest, kind)?,
            }),
            REFUSED => Self::Refused {
                version: word(&mut rest, kind)?,
                reason: String::from_utf8_lossy(rest).into_owned(),
            },
            WATCH => Self::Watch {
                socket: word(&mut rest, kind)?,
            },
            WATCHING => Self::Watching {
                socket: word(&mut rest, kind)?,
                result: word(&mut rest, kind)?.cast_signed(),
            },
            SHARE => Self::Share {
                socket: word(&mut rest, kind)?,
                read: word(&mut rest, kind)?,
            },
            SHARED => Self::Shared {
                socket: word(&mut rest, kind)?,
                result: word(&mut rest, kind)?.cast_signed(),
            },
            DESCRIBE => Self::Describe {
                socket: word(&mut rest, kind)?,
            },
            DESCRIBED => Self::Described {
                socket: word(&mut rest, kind)?,
                result: word(&mut rest, kind)?.cast_signed(),
            },
            ADOPT => Self::Adopt,
            ADOPTED => Self::Adopted {
                result: word(&mut rest, kind)?.cast_signed(),
                socket: word(&mut rest, kind)?,
                kind: word(&mut rest, kind)?,
                listens: word(&mut rest, kind)?,
            },
            CHANNEL => Self::Channel(ChannelOffer {
                socket: word(&mut rest, kind)?,
                side: word(&mut rest, kind)?,
                receive_window: word(&mut rest, kind)?,
                next_window: word(&mut rest, kind)?,
                peer: SocketAddress {
                    port: word(&mut rest, kind)?,
                    node: word(&mut rest, kind)?,
                },
                name: {
                    let is_there = word(&mut rest, kind)? != 0;
                    let name = ServiceAddress {
                        type_: word(&mut rest, kind)?,
                        instance: word(&mut rest, kind)?,
                    };
                    is_there.then_some(name)
                },
            }),
            kind => return Err(MessageError::Kind(kind)),
        })
    }
}

/// A message could not be received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The socket failed, or would block.
    #[error("attach socket: {0}")]
    Io(#[from] io::Error),
    /// The bytes are no message.
    #[error(transparent)]
    Message(#[from] MessageError),
}

/// Sends a message with up to four fds. Never raises SIGPIPE.
pub fn send_message(
    socket: BorrowedFd<'_>,
    message: &Message,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    send_bytes(socket, &message.encode(), fds)
}

/// Sends a datagram with up to four fds. Never raises SIGPIPE.
pub(crate) fn send_bytes(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(
            socket,
            &[IoSlice::new(bytes)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )
    })?;
    Ok(())
}

/// Receives a message and its fds. `None`: the other side closed.
pub fn receive_message(
    socket: BorrowedFd<'_>,
) -> Result<Option<(Message, Vec<OwnedFd>)>, ReceiveError> {
    receive(socket, RecvFlags::CMSG_CLOEXEC)
}

/// The same, of a message that is there; else an error of kind [`io::ErrorKind::WouldBlock`].
pub fn receive_message_now(
    socket: BorrowedFd<'_>,
) -> Result<Option<(Message, Vec<OwnedFd>)>, ReceiveError> {
    receive(socket, RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT)
}

fn receive(
    socket: BorrowedFd<'_>,
    flags: RecvFlags,
) -> Result<Option<(Message, Vec<OwnedFd>)>, ReceiveError> {
    let mut bytes = [0u8; MESSAGE_MAX];
    let Some((len, fds)) = receive_bytes(socket, &mut bytes, flags)? else {
        return Ok(None);
    };
    Ok(Some((Message::decode(&bytes[..len])?, fds)))
}

/// Receives a datagram and its fds; gives its length. `None`: the other side closed.
pub(crate) fn receive_bytes(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    flags: RecvFlags,
) -> io::Result<Option<(usize, Vec<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let result =
            rustix::net::recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut ancillary, flags);
        match result {
            Ok(received) => break received,
            // Reported once, when the other side closed without having read all of ours; what it sent is still there.
            Err(Errno::CONNRESET | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    };
    // Taking the fds out first: whatever the bytes are, they must not leak.
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the datagram is too long",
        ));
    }
    Ok(Some((received.bytes, fds)))
}

impl SegmentFds {
    /// The fds in the order in which [`Message::Welcome`] carries them.
    pub fn as_fds(&self) -> [BorrowedFd<'_>; 4] {
        [
            self.application.as_fd(),
            self.daemon.as_fd(),
            self.doorbell.as_fd(),
            self.wake.as_fd(),
        ]
    }

    /// The same, received.
    pub fn from_fds(fds: Vec<OwnedFd>) -> Option<Self> {
        let [application, daemon, doorbell, wake] = <[OwnedFd; 4]>::try_from(fds).ok()?;
        Some(Self {
            application,
            daemon,
            doorbell,
            wake,
        })
    }
}

/// Connects to the attach socket at a path.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let socket = seqpacket(SocketFlags::CLOEXEC)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Makes the attach socket at a path, non-blocking. The path must not exist.
pub fn listen(path: &Path) -> io::Result<OwnedFd> {
    let socket = seqpacket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, 128)?;
    Ok(socket)
}

/// Accepts a connection, non-blocking.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(rustix::net::accept_with(
        listener,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
    )?)
}

fn seqpacket(flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

/// The process at the other end, as it was when it connected.
#[derive(Debug)]
pub struct PeerProcess {
    /// Process id.
    pub pid: u32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Readable when the process has ended.
    pub pidfd: OwnedFd,
}

/// Asks the kernel who is at the other end.
pub fn peer_process(socket: BorrowedFd<'_>) -> io::Result<PeerProcess> {
    let credentials = rustix::net::sockopt::socket_peercred(socket)?;
    let pidfd = match peer_pidfd(socket) {
        Ok(pidfd) => pidfd,
        // Kernels before 6.5: between connecting and this call the id might have passed to another process; then the
        // credentials are those of the process that connected, and its attachment ends when the other one does.
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {
            pidfd_open(credentials.pid, PidfdFlags::empty())?
        }
        Err(error) => return Err(error),
    };
    Ok(PeerProcess {
        pid: Pid::as_raw(Some(credentials.pid)).cast_unsigned(),
        uid: credentials.uid.as_raw(),
        gid: credentials.gid.as_raw(),
        pidfd,
    })
}

fn peer_pidfd(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    /// `SO_PEERPIDFD`, which the libc crate does not have on every target.
    const SO_PEERPIDFD: libc::c_int = 77;
    let mut pidfd: libc::c_int = -1;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the option writes one int, and `len` says that there is room for one.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut pidfd).cast(),
            &raw mut len,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: on success the kernel installed a new fd that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(pidfd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_message_reads_as_it_was_written() {
        let messages = [
            Message::Hello {
                version: 1,
                worker: None,
            },
            Message::Hello {
                version: 1,
                worker: Some(3),
            },
            Message::Welcome(Welcome {
                version: 1,
                node: 0x0100_1001,
                identity: *b"0123456789abcdef",
                direct_after: 32,
            }),
            Message::Refused {
                version: 2,
                reason: "uid 7 may not attach".to_owned(),
            },
            Message::Watch { socket: 3 },
            Message::Watching {
                socket: 3,
                result: -9,
            },
            Message::Share {
                socket: 3,
                read: 70,
            },
            Message::Shared {
                socket: 3,
                result: -9,
            },
            Message::Describe { socket: 3 },
            Message::Described {
                socket: 3,
                result: -24,
            },
            Message::Adopt,
            Message::Adopted {
                result: 0,
                socket: 3,
                kind: 2,
                listens: 1,
            },
            Message::Channel(ChannelOffer {
                socket: 3,
                side: 1,
                receive_window: 128,
                next_window: 512,
                peer: SocketAddress { port: 4, node: 5 },
                name: Some(ServiceAddress {
                    type_: 1000,
                    instance: 7,
                }),
            }),
        ];
        for message in messages {
            let bytes = message.encode();
            assert_eq!(Message::decode(&bytes), Ok(message.clone()));
            assert!(bytes.len() <= MESSAGE_MAX);
            if !matches!(message, Message::Refused { .. }) {
                assert!(Message::decode(&bytes[..bytes.len() - 1]).is_err());
            }
        }
    }

    #[test]
    fn a_hello_that_names_no_worker_wants_any() {
        let hello = Message::Hello {
            version: 1,
            worker: None,
        };
        let short = hello.encode().len() - 4;
        assert_eq!(Message::decode(&hello.encode()[..short]), Ok(hello));
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let message = Message::Refused {
            version: 1,
            reason: "é".repeat(300),
        };
        let decoded = Message::decode(&message.encode());
        let Ok(Message::Refused { reason, .. }) = decoded else {
            panic!("{decoded:?}");
        };
        assert_eq!(reason, "é".repeat(200));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(
            magic: bool, bytes in proptest::collection::vec(any::<u8>(), 0..64)
        ) {
            let mut all = if magic { MAGIC.to_vec() } else { Vec::new() };
            all.extend(bytes);
            let _ = Message::decode(&all);
        }
    }
}
