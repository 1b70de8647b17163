//! One wait for everything a thread sleeps on: rings, event fds, sockets, timers, control.
//!
//! Owned by the thread that waits. The back end is chosen once: io_uring, or epoll where io_uring is
//! refused (containers) or too old. Both are level-triggered as seen from outside: a token is reported by
//! each wait for as long as its fd is ready. No allocation per wait once `ready` has grown to its size.

mod epoll;
#[cfg(test)]
mod tests;
mod uring;

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use epoll::Epoll;
use uring::Uring;

/// Names a registered fd to its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub u64);

/// Not to be used by callers: the epoll back end's own timer.
const TIMER: Token = Token(u64::MAX);

/// What an fd is waited for. Errors and hang-up are always waited for as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Something to read or accept.
    Read,
    /// Room to write.
    Write,
    /// Either.
    ReadWrite,
    /// Neither: only that its other end is closed.
    HangUp,
}

impl Interest {
    /// The bits, which poll and epoll share.
    fn poll_bits(self) -> u32 {
        let bits = match self {
            Self::Read => libc::POLLIN,
            Self::Write => libc::POLLOUT,
            Self::ReadWrite => libc::POLLIN | libc::POLLOUT,
            Self::HangUp => 0,
        };
        u32::from(bits.cast_unsigned())
    }
}

/// The way a thread waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// One io_uring_enter arms, waits and carries the timeout.
    IoUring,
    /// epoll_wait and a timerfd.
    Epoll,
}

/// Why an fd cannot be waited for.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// The system refused.
    #[error("cannot {operation}: {source}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A token names one fd at a time.
    #[error("token {0} is in use; accepted: a number that no registered fd has, below 2^64-1")]
    TokenTaken(u64),
    /// Nothing is registered by this token.
    #[error("token {0} is not registered")]
    NoSuchToken(u64),
}

impl WaitError {
    fn system(operation: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::System { operation, source }
    }
}

enum Kind {
    Uring(Box<Uring>),
    Epoll(Epoll),
}

/// One wait for everything.
pub struct Waiter {
    kind: Kind,
    description: String,
}

impl Waiter {
    /// io_uring if the system grants it, else epoll. For the thread that makes it: the kernel refuses an io_uring to
    /// others.
    pub fn new() -> Result<Self, WaitError> {
        match Uring::new() {
            Ok(uring) => Ok(Self::from_kind(
                Kind::Uring(Box::new(uring)),
                "io_uring".into(),
            )),
            Err(why) => {
                let epoll = Epoll::new()?;
                Ok(Self::from_kind(
                    Kind::Epoll(epoll),
                    format!("epoll ({why})"),
                ))
            }
        }
    }

    /// This back end or none.
    pub fn with_backend(backend: Backend) -> Result<Self, WaitError> {
        Ok(match backend {
            Backend::IoUring => {
                Self::from_kind(Kind::Uring(Box::new(Uring::new()?)), "io_uring".into())
            }
            Backend::Epoll => Self::from_kind(Kind::Epoll(Epoll::new()?), "epoll".into()),
        })
    }

    fn from_kind(kind: Kind, description: String) -> Self {
        Self { kind, description }
    }

    /// The back end in use.
    pub fn backend(&self) -> Backend {
        match self.kind {
            Kind::Uring(_) => Backend::IoUring,
            Kind::Epoll(_) => Backend::Epoll,
        }
    }

    /// The back end as text, with the reason if it is not the first choice.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Waits for `fd` from now on. The caller keeps it open until [`Self::remove`].
    pub fn add(
        &mut self,
        fd: impl AsFd,
        interest: Interest,
        token: Token,
    ) -> Result<(), WaitError> {
        let fd = fd.as_fd().as_raw_fd();
        match &mut self.kind {
            Kind::Uring(uring) => uring.add(fd, interest, token),
            Kind::Epoll(epoll) => epoll.add(fd, interest, token),
        }
    }

    /// Waits for it no more; when this returns the kernel holds no reference to the fd for us, so that
    /// closing it is seen at its other end. Must come before the fd is closed.
    pub fn remove(&mut self, token: Token) -> Result<(), WaitError> {
        match &mut self.kind {
            Kind::Uring(uring) => uring.remove(token),
            Kind::Epoll(epoll) => epoll.remove(token),
        }
    }

    /// Sleeps until an fd is ready, the clock ([`crate::clock::now_ns`]) reaches `deadline_ns`, or a signal
    /// comes. `ready` is cleared and filled, each token once; empty at the deadline or a signal. With a
    /// deadline in the past it only looks.
    pub fn wait(
        &mut self,
        deadline_ns: Option<u64>,
        ready: &mut Vec<Token>,
    ) -> Result<(), WaitError> {
        ready.clear();
        match &mut self.kind {
            Kind::Uring(uring) => uring.wait(deadline_ns, ready),
            Kind::Epoll(epoll) => epoll.wait(deadline_ns, ready),
        }
    }
}
