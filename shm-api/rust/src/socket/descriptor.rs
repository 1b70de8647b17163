//! The descriptor of a socket: a Unix socket of the kernel that stands for it, with its lifetime over dup, fork, exec and passing
//! on, its `O_NONBLOCK`, and, once armed, its readiness (`docs/architecture.md`, the application boundary).
//!
//! Readiness is corrected when somebody has waited in vain, not with each call. Invariants of an armed descriptor, where more than one
//! thread or process may be at work:
//!
//! 1. It is readable while there is something to read. With news the daemon writes a byte. Who is told that it is readable and
//!    finds nothing takes all bytes out, then looks again, and if there is something has a byte written.
//! 2. It is writable while the socket can send. Who finds that it cannot fills it, then says so to the daemon, which empties
//!    it as soon as that changes, or at once if it has changed.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::net::{RecvFlags, SendFlags, sockopt};
use xtipc_segment::attach::DESCRIPTOR_NAME;
use xtipc_segment::{Phase, Request, SocketState};

use super::{Result, Socket, is_connected_kind};
use crate::core::Custody;
use crate::{Node, lock};

const IN: i16 = libc::POLLIN | libc::POLLRDNORM;
const OUT: i16 = libc::POLLOUT;
/// More than a quarter of the smallest send buffer: what makes a Unix socket unwritable.
const FILLER: [u8; 2048] = [0; 2048];

impl Socket {
    /// Makes the descriptor of a socket, once. From now on the socket lives as long as a copy of it is open anywhere, and no
    /// longer.
    pub fn descriptor(&self) -> Result<OwnedFd> {
        Ok(self.attachment.describe(self.id)?)
    }

    /// Whether this is the descriptor of a socket.
    pub fn is_descriptor(fd: BorrowedFd<'_>) -> bool {
        let Ok(Some(peer)) = rustix::net::getpeername(fd) else {
            return false;
        };
        let peer = rustix::net::SocketAddrUnix::try_from(peer);
        peer.is_ok_and(|peer| {
            let name = peer.abstract_name();
            name.is_some_and(|name| name.starts_with(DESCRIPTOR_NAME))
        })
    }

    /// Takes the socket of a descriptor into use that came from another process, or that this process had before it was forked
    /// or became another program. EBUSY: the process that has it has not [shared](Socket::share) it.
    pub fn adopt(node: &Node, descriptor: BorrowedFd<'_>) -> Result<Self> {
        let adopted = node.attachment.adopt(descriptor)?;
        let attachment = Arc::clone(&node.attachment);
        let socket = Self::new(attachment, adopted.id, adopted.kind, false);
        let [state, _] = socket.call(Request::GetState)?;
        let phase = SocketState::from_bits_retain(state).phase();
        let is_fresh = phase == Phase::Open && is_connected_kind(socket.kind);
        socket.fresh.store(is_fresh, Ordering::Relaxed);
        socket.listens.store(adopted.listens, Ordering::Relaxed);
        // It was shared, and so it was armed.
        socket.shared.store(true, Ordering::Release);
        socket.armed.store(true, Ordering::Relaxed);
        socket.refresh(descriptor);
        Ok(socket)
    }

    /// Lets other processes use the socket by its descriptor: each receive then asks the daemon. EOPNOTSUPP: it is a member of
    /// a group.
    pub fn share(&self) -> Result<()> {
        if self.is_shared()? {
            return Ok(());
        }
        self.shared.store(true, Ordering::Release);
        let read = || Ok(self.attachment.core()?.queue(self.id)?.take_read_part());
        self.attachment.hand_over(self.id, read)?;
        self.armed.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Whether this process opened, accepted or adopted it, and not one that forked it.
    pub fn is_ours(&self) -> bool {
        self.attachment.is_ours()
    }

    /// Whether other processes may use it, too.
    pub fn is_shared(&self) -> Result<bool> {
        if !self.shared.load(Ordering::Acquire) {
            return Ok(false);
        }
        Ok(self.attachment.core()?.queue(self.id)?.custody != Custody::Own)
    }

    /// Takes over what another process may have changed of the file description: `O_NONBLOCK` and the time limits.
    pub fn refresh(&self, descriptor: BorrowedFd<'_>) {
        if let Ok(flags) = rustix::fs::fcntl_getfl(descriptor) {
            self.set_nonblocking(flags.contains(rustix::fs::OFlags::NONBLOCK));
        }
        let timeout = |which| sockopt::socket_timeout(descriptor, which).unwrap_or_default();
        let mut settings = lock(&self.settings);
        settings.receive_timeout = timeout(sockopt::Timeout::Recv);
        settings.send_timeout = timeout(sockopt::Timeout::Send);
    }

    /// Whether the calls of poll may wait for the descriptor.
    pub fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Relaxed)
    }

    /// Has the descriptor tell what `poll` is to wait for.
    pub fn arm(&self) -> Result<()> {
        if !self.is_armed() {
            self.call(Request::Arm)?;
            self.armed.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Makes the descriptor one that cannot be written to until the socket can send. To be called when a call on an armed one
    /// would have had to wait for that.
    pub fn block(&self, descriptor: BorrowedFd<'_>) -> Result<()> {
        // If it is full already this does nothing.
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let _ = rustix::net::send(descriptor, &FILLER, flags);
        self.call(Request::Unblock).map(drop)
    }

    /// What `poll` on the socket has to tell where the kernel `told` this of the descriptor: what is there of that, and an
    /// end. Where the kernel was wrong, the descriptor is put right.
    pub fn settle(&self, descriptor: BorrowedFd<'_>, told: i16) -> Result<i16> {
        let mut events = self.poll()?;
        if told & IN != 0 {
            if events & IN == 0 {
                take_bytes(descriptor, usize::MAX);
                events = self.poll()?;
                if events & IN != 0 {
                    self.announce()?;
                }
            } else {
                self.keep_one_byte(descriptor)?;
            }
        }
        let over = libc::POLLHUP | libc::POLLERR;
        if told & OUT != 0 && events & (OUT | over) == 0 {
            self.block(descriptor)?;
        }
        let wanted = IN | OUT | libc::POLLRDHUP;
        Ok(events & (told & wanted | over))
    }

    /// An edge is seen only where there is room for another byte.
    fn keep_one_byte(&self, descriptor: BorrowedFd<'_>) -> Result<()> {
        let bytes = |fd| rustix::io::ioctl_fionread(fd).unwrap_or(1);
        match bytes(descriptor) {
            0 | 1 => Ok(()),
            count => {
                take_bytes(descriptor, (count - 1) as usize);
                // Others may have done the same.
                match bytes(descriptor) {
                    0 => self.announce(),
                    _ => Ok(()),
                }
            }
        }
    }

    fn announce(&self) -> Result<()> {
        self.call(Request::Arm).map(drop)
    }
}

fn take_bytes(descriptor: BorrowedFd<'_>, mut count: usize) {
    let mut bytes = [0; 512];
    while count > 0 {
        let room = count.min(bytes.len());
        match rustix::net::recv(descriptor, &mut bytes[..room], RecvFlags::DONTWAIT) {
            Ok((1.., len)) => count -= len.min(count),
            _ => return,
        }
    }
}
