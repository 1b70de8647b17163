//! Sockets as the C interface has them: raw addresses, flags, ancillary data, options by number, an errno for each
//! failure. For layers that give programs written for the kernel's TIPC sockets what they expect; other programs are
//! better off with the crate's own types. Semantics as in `docs/protocol/calls.md`; what
//! Linux does in each situation is recorded in `tests/differential`.
//!
//! A [`Socket`] is one file description: its flags and time limits are those of all who share it. What the daemon knows
//! of a socket it is asked for; kept here are the messages not yet read and what only the calls need. A socket can have a
//! [descriptor](Socket::descriptor), by which the kernel knows it.

mod address;
mod control;
mod descriptor;
mod names;
mod options;
mod readiness;
mod receive;
mod send;
mod socket_level;

pub use address::{ADDRESS_LEN, AddressError, RawAddress};
pub use names::{SIOCGETLINKNAME, SIOCGETNODEID};
pub use receive::{ReceiveRoom, Received};

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use xtipc_segment::{Destination, Ready, Request, SendFlags, SocketKind, address_of_value};

use crate::attachment::{Attachment, Patience};
use crate::core::Interest;
use crate::{Error, Node, lock};
use address::Name;
use socket_level::Settings;

/// Family of TIPC addresses.
pub const AF_TIPC: i32 = 30;
/// Level of TIPC's options and ancillary data.
pub const SOL_TIPC: i32 = 271;
/// Longer than the daemon waits for the answer to a connection request. A call with a time limit ends with any signal.
const CONNECT_LIMIT: Duration = Duration::from_secs(120);
/// First service type that can be bound.
const FIRST_USER_TYPE: u32 = 64;

/// The number of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

impl std::error::Error for Errno {}

impl From<Error> for Errno {
    /// What a socket that lost its node gets: its peers are as lost to it as those of a connection that was reset.
    fn from(error: Error) -> Self {
        match error {
            Error::NodeGone => Self(libc::ECONNRESET),
            error => Self(error.errno()),
        }
    }
}

/// Result of the calls.
pub type Result<T> = std::result::Result<T, Errno>;

/// A socket. Closed on drop.
#[derive(Debug)]
pub struct Socket {
    attachment: Arc<Attachment>,
    id: u32,
    kind: SocketKind,
    /// Of a connection type, and neither listened nor connected: only this socket's own calls change that.
    fresh: AtomicBool,
    listens: AtomicBool,
    nonblocking: AtomicBool,
    /// Its descriptor tells of readiness.
    armed: AtomicBool,
    /// It was shared, or is being shared: only this socket's own calls do that.
    shared: AtomicBool,
    settings: Mutex<Settings>,
}

impl Socket {
    /// `socket(AF_TIPC, kind, protocol)`; `ENETDOWN` once the node is gone.
    pub fn open(node: &Node, kind: i32, protocol: i32) -> Result<Self> {
        let kind = kind_of(kind, protocol)?;
        let attachment = Arc::clone(&node.attachment);
        let answer = attachment
            .call(0, Request::OpenSocket { kind })
            .map_err(|error| Errno(error.errno()))?;
        let [id, _] = answer.map_err(errno)?;
        Ok(Self::new(attachment, id as u32, kind, true))
    }

    /// `socketpair(AF_TIPC, kind, protocol)`.
    pub fn pair(node: &Node, kind: i32, protocol: i32) -> Result<(Self, Self)> {
        let one = Self::open(node, kind, protocol)?;
        let other = Self::open(node, kind, protocol)?;
        one.call(Request::Pair { other: other.id })?;
        for socket in [&one, &other] {
            socket.fresh.store(false, Ordering::Relaxed);
        }
        Ok((one, other))
    }

    fn new(attachment: Arc<Attachment>, id: u32, kind: SocketKind, fresh: bool) -> Self {
        Self {
            attachment,
            id,
            kind,
            fresh: AtomicBool::new(fresh && is_connected_kind(kind)),
            listens: AtomicBool::new(false),
            nonblocking: AtomicBool::new(false),
            armed: AtomicBool::new(false),
            shared: AtomicBool::new(false),
            settings: Mutex::default(),
        }
    }

    /// `bind` of an address, by its bytes. A scope below 0 takes the binding back; no bytes take all back.
    pub fn bind(&self, address: &[u8]) -> Result<()> {
        if address.is_empty() {
            return self.call(Request::UnbindAll).map(drop);
        }
        let address = RawAddress::parse(address)?;
        let range = address.range().ok_or(Errno(libc::EAFNOSUPPORT))?;
        if range.type_ < FIRST_USER_TYPE {
            return Err(Errno(libc::EACCES));
        }
        let scope = address.binding_scope();
        let request = if address.scope < 0 {
            Request::Unbind { range, scope }
        } else {
            Request::Bind { range, scope }
        };
        self.call(request).map(drop)
    }

    /// `connect` to an address, by its bytes.
    pub fn connect(&self, address: &[u8]) -> Result<()> {
        if address.len() != ADDRESS_LEN {
            return Err(Errno(libc::EINVAL));
        }
        let is_datagram = !is_connected_kind(self.kind);
        let destination = match RawAddress::parse(address) {
            Err(AddressError::Unspecified) if is_datagram => None,
            Err(error) => return Err(error.into()),
            Ok(address) => Some(address.name),
        };
        if matches!(destination, Some(Name::Range(_))) && !is_datagram {
            return Err(Errno(libc::EINVAL));
        }
        let destination = destination.map(Destination::from);
        let flags = self.wait_flags(0);
        let request = Request::Connect { flags, destination };
        let patience = Patience::lasting(Some(CONNECT_LIMIT)).of_system_call();
        let answer = self.attachment.call_within(self.id, request, patience)?;
        let result = answer.map_err(errno);
        if is_datagram {
            return result.map(drop);
        }
        match result {
            Err(Errno(libc::EOPNOTSUPP | libc::EHOSTUNREACH)) if self.is_fresh() => {}
            _ => self.fresh.store(false, Ordering::Relaxed),
        }
        match result {
            // This tells it: it is no error of the next call.
            Err(Errno(libc::ECONNREFUSED)) => self.take_error().and(result),
            _ => result,
        }
        .map(drop)
    }

    /// `listen`. The backlog has no meaning: as many may wait as the receive buffer takes.
    pub fn listen(&self, _backlog: i32) -> Result<()> {
        self.call(Request::Listen { limit: 0 })?;
        self.fresh.store(false, Ordering::Relaxed);
        self.listens.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// `accept`: the new socket, and the address of its peer.
    pub fn accept(&self) -> Result<(Self, RawAddress)> {
        let timeout = lock(&self.settings).receive_timeout;
        let request = Request::Accept {
            flags: self.wait_flags(0),
        };
        let patience = Patience::lasting(timeout).of_system_call();
        let answer = self.attachment.call_within(self.id, request, patience)?;
        if answer == Err(-libc::EAGAIN) {
            let mut core = self.attachment.core()?;
            core.note_not_ready(self.id, Ready::ACCEPT);
        }
        let [id, peer] = answer.map_err(errno)?;
        let attachment = Arc::clone(&self.attachment);
        let socket = Self::new(attachment, id as u32, self.kind, false);
        Ok((socket, RawAddress::of_socket(address_of_value(peer))))
    }

    /// `shutdown`; the only way is both ways.
    pub fn shutdown(&self, how: i32) -> Result<()> {
        if how != libc::SHUT_RDWR {
            return Err(Errno(libc::EINVAL));
        }
        self.discard_read_part()?;
        {
            // Before the request: its answer wakes a reader that drives, which then finds this.
            let mut core = self.attachment.core()?;
            core.queue(self.id)?.shut_down = true;
            core.tell(|interest| interest == Interest::Socket(self.id));
        }
        let result = self.call(Request::Shutdown);
        let unread = {
            let mut core = self.attachment.core()?;
            core.dispatch();
            std::mem::take(&mut core.queue(self.id)?.messages)
        };
        for (_, buffer) in unread {
            self.attachment.give_back(buffer);
        }
        result.map(drop)
    }

    /// Whether calls that would have to wait fail instead, as with `O_NONBLOCK`.
    pub fn set_nonblocking(&self, nonblocking: bool) {
        self.nonblocking.store(nonblocking, Ordering::Relaxed);
    }

    /// `getsockname`.
    pub fn local_address(&self) -> Result<RawAddress> {
        let [value, _] = self.call(Request::GetName)?;
        Ok(RawAddress::of_socket(address_of_value(value)))
    }

    /// `getpeername`.
    pub fn peer_address(&self) -> Result<RawAddress> {
        let [value, _] = self.call(Request::GetPeer)?;
        Ok(RawAddress::of_socket(address_of_value(value)))
    }

    fn is_fresh(&self) -> bool {
        self.fresh.load(Ordering::Relaxed)
    }

    fn call(&self, request: Request) -> Result<[u64; 2]> {
        self.attachment.call(self.id, request)?.map_err(errno)
    }

    /// Whether a call with these flags may wait.
    fn waits(&self, flags: i32) -> bool {
        flags & libc::MSG_DONTWAIT == 0 && !self.nonblocking.load(Ordering::Relaxed)
    }

    fn wait_flags(&self, flags: i32) -> SendFlags {
        if self.waits(flags) {
            SendFlags::empty()
        } else {
            SendFlags::DONTWAIT
        }
    }

    /// The error that the next call is to report, if there is one.
    fn take_error(&self) -> Result<()> {
        if self.is_shared()? {
            // A look at the end of the connection, if that is next, tells.
            let how = SendFlags::PEEK | SendFlags::PARTS;
            let seen = self
                .attachment
                .ask_for_message(self.id, 1, how, Patience::None);
            if let Ok(Some(seen)) = seen {
                self.attachment.give_back(seen.buffer);
            }
        }
        let mut core = self.attachment.core()?;
        core.dispatch();
        match std::mem::take(&mut core.queue(self.id)?.error) {
            0 => Ok(()),
            error => Err(Errno(error)),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Where this fails there is no daemon that would want the memory back.
        let _ = self.discard_read_part();
        self.attachment.close(self.id);
    }
}

fn kind_of(kind: i32, protocol: i32) -> Result<SocketKind> {
    if protocol != 0 {
        return Err(Errno(libc::EPROTONOSUPPORT));
    }
    match kind {
        libc::SOCK_STREAM => Ok(SocketKind::Stream),
        libc::SOCK_DGRAM => Ok(SocketKind::Dgram),
        libc::SOCK_RDM => Ok(SocketKind::Rdm),
        libc::SOCK_SEQPACKET => Ok(SocketKind::Seqpacket),
        _ => Err(Errno(libc::EPROTOTYPE)),
    }
}

fn is_connected_kind(kind: SocketKind) -> bool {
    matches!(kind, SocketKind::Stream | SocketKind::Seqpacket)
}

fn errno(result: i32) -> Errno {
    match -result {
        // A request taken back since its time was over.
        libc::ECANCELED => Errno(libc::EAGAIN),
        errno => Errno(errno),
    }
}
