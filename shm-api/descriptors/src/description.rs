//! An open file description of TIPC: the socket, or the way to it.

use std::os::fd::{IntoRawFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use xtipc::socket::{Errno, Socket};

use crate::process;
use crate::table::{self, borrow};

/// See the module. A description that came with fork, exec or a message has no socket until it is first used; the
/// descriptor tells which it is.
pub(crate) struct Description {
    socket: AtomicPtr<Socket>,
    /// A copy of the descriptor that this library made, or `NONE`.
    kept: AtomicI32,
}

const NONE: RawFd = -1;

static ADOPTION: Mutex<()> = Mutex::new(());

/// Held over a fork, so that the child finds it free.
pub(crate) fn pause_adoption() -> MutexGuard<'static, ()> {
    ADOPTION.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Description {
    /// Of a socket that this process made.
    pub(crate) fn of(socket: Socket) -> Self {
        Self {
            socket: AtomicPtr::new(Box::into_raw(Box::new(socket))),
            kept: AtomicI32::new(NONE),
        }
    }

    /// Of a descriptor that came from elsewhere.
    pub(crate) fn inherited() -> Self {
        Self {
            socket: AtomicPtr::new(ptr::null_mut()),
            kept: AtomicI32::new(NONE),
        }
    }

    /// The socket, if this process uses it already.
    pub(crate) fn current(&self) -> Option<&Socket> {
        let socket = self.socket.load(Ordering::Acquire);
        // SAFETY: it is null, or was made by `Box::into_raw` and is freed only with the description.
        let socket = unsafe { socket.as_ref() };
        socket.filter(|socket| socket.is_ours())
    }

    /// The socket. What came from another process is taken into use.
    pub(crate) fn socket(&self, fd: RawFd) -> Result<&Socket, Errno> {
        if let Some(socket) = self.current() {
            return Ok(socket);
        }
        let _turn = pause_adoption();
        if self.current().is_none() {
            let adopted = Socket::adopt(&process::node()?, borrow(fd))?;
            // What the process that forked this one kept, this one has not.
            self.kept.store(NONE, Ordering::Relaxed);
            // The socket of the process that forked this one belongs to that process: it is not dropped.
            self.socket
                .store(Box::into_raw(Box::new(adopted)), Ordering::Release);
        }
        self.current().ok_or(Errno(libc::EBADF))
    }

    /// Has the socket live until the calls at work with it are over, though its descriptor is closed now.
    pub(crate) fn keep(&self, fd: RawFd) {
        let _turn = pause_adoption();
        if self.current().is_some() && self.kept.load(Ordering::Relaxed) == NONE {
            let kept = process::copy(fd).map_or(NONE, IntoRawFd::into_raw_fd);
            self.kept.store(kept, Ordering::Relaxed);
        }
    }

    /// Whether other processes may have copies of the descriptor.
    pub(crate) fn may_be_elsewhere(&self) -> bool {
        self.current()
            .is_none_or(|socket| socket.is_shared().unwrap_or(true))
    }

    /// The same for a call that may have to wait: with the flags and time limits as whoever shares it has set them.
    pub(crate) fn ready(&self, fd: RawFd) -> Result<&Socket, Errno> {
        let socket = self.socket(fd)?;
        if socket.is_shared()? {
            socket.refresh(borrow(fd));
        }
        Ok(socket)
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        let socket = *self.socket.get_mut();
        let is_ours = self.current().is_some();
        if is_ours {
            // First, so that the daemon sees whether it was the last copy anywhere.
            process::close_copy(*self.kept.get_mut());
            // SAFETY: it came from `Box::into_raw`, and this is its only owner.
            drop(unsafe { Box::from_raw(socket) });
        }
    }
}

/// Shares the sockets of descriptors that `passes` lets through with the processes that get copies of them.
pub(crate) fn share(passes: impl Fn(RawFd) -> bool) {
    for fd in table::known(0).filter(|fd| passes(*fd)) {
        share_one(fd);
    }
}

/// Shares the socket of a descriptor, if it is one. A member of a group stays with this process: who gets a copy then hears that.
pub(crate) fn share_one(fd: RawFd) {
    if let Some(open) = table::socket(fd)
        && let Some(socket) = open.current()
    {
        let _ = socket.share();
    }
}

/// Whether a program that this process becomes or starts has a descriptor.
pub(crate) fn is_inheritable(fd: RawFd) -> bool {
    let flags = rustix::io::fcntl_getfd(borrow(fd));
    flags.is_ok_and(|flags| !flags.contains(rustix::io::FdFlags::CLOEXEC))
}
