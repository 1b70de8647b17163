//! A door: a listening socket of the daemon, and what becomes of who connects.
//!
//! A crowd that comes at once waits until those who serve it have room: one guest in the door, which is shut meanwhile,
//! and the others in the backlog, where connecting blocks. When there has been no room for a while, they are refused.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use crate::clock::now_ns;
use crate::complaints::Complaints;
use crate::wait::{Interest, Token, WaitError, Waiter};

/// Connections taken between two looks at signals; the next wait reports the rest.
const ACCEPTS_MAX: usize = 32;
/// A crowd is through after a few milliseconds; a worker that is stuck and tools that say nothing take longer.
const PATIENCE_NS: u64 = 1_000_000_000;

/// What became of a connection.
pub(crate) enum Admission {
    /// It is served.
    Served,
    /// There is no room for it now.
    NoRoom {
        socket: OwnedFd,
        reason: &'static str,
    },
    /// It is closed, and the other end sees that.
    Refused(String),
}

/// See the module.
pub(crate) struct Door {
    listener: OwnedFd,
    token: Token,
    open: bool,
    /// Waits for room.
    guest: Option<OwnedFd>,
    /// Since when there has been no room.
    full_since_ns: Option<u64>,
    complaints: Complaints,
}

impl Door {
    /// A shut one. The waiter tells with `token` that somebody has connected.
    pub(crate) fn new(listener: OwnedFd, token: Token) -> Self {
        Self {
            listener,
            token,
            open: false,
            guest: None,
            full_since_ns: None,
            complaints: Complaints::default(),
        }
    }

    /// What the waiter tells it with.
    pub(crate) fn token(&self) -> Token {
        self.token
    }

    /// Whether somebody waits for room.
    pub(crate) fn has_guest(&self) -> bool {
        self.guest.is_some()
    }

    /// Opens it, unless somebody waits in it.
    pub(crate) fn open(&mut self, waiter: &mut Waiter) -> Result<(), WaitError> {
        if !self.open && self.guest.is_none() {
            waiter.add(&self.listener, Interest::Read, self.token)?;
            self.open = true;
        }
        Ok(())
    }

    fn shut(&mut self, waiter: &mut Waiter) -> Result<(), WaitError> {
        self.open = false;
        waiter.remove(self.token)
    }

    /// Lets in who has connected.
    pub(crate) fn answer(
        &mut self,
        waiter: &mut Waiter,
        admit: impl Fn(OwnedFd) -> Admission,
    ) -> Result<(), WaitError> {
        for _ in 0..ACCEPTS_MAX {
            match accept_with(&self.listener, SocketFlags::CLOEXEC) {
                Ok(socket) => self.lead_in(admit(socket)),
                Err(Errno::WOULDBLOCK) => return Ok(()),
                Err(Errno::CONNABORTED | Errno::INTR) => continue,
                Err(error) => {
                    if let Some(untold) = self.complaints.occur(now_ns()) {
                        tracing::warn!(%error, untold, "cannot accept a connection, pausing");
                    }
                    // Else the wait would return at once for ever; the steward opens it again.
                    return self.shut(waiter);
                }
            }
            if self.guest.is_some() {
                return self.shut(waiter);
            }
        }
        Ok(())
    }

    /// Tries again to let in who waits, and opens if that ends the waiting.
    pub(crate) fn retry(
        &mut self,
        waiter: &mut Waiter,
        admit: impl Fn(OwnedFd) -> Admission,
    ) -> Result<(), WaitError> {
        match self.guest.take() {
            Some(socket) => self.lead_in(admit(socket)),
            None => return Ok(()),
        }
        self.open(waiter)
    }

    fn lead_in(&mut self, admission: Admission) {
        let now_ns = now_ns();
        let refusal = match admission {
            Admission::Served => {
                self.full_since_ns = None;
                return;
            }
            Admission::NoRoom { socket, reason } => {
                let since_ns = *self.full_since_ns.get_or_insert(now_ns);
                if now_ns < since_ns + PATIENCE_NS {
                    self.guest = Some(socket);
                    return;
                }
                reason.to_owned()
            }
            Admission::Refused(reason) => reason,
        };
        if let Some(untold) = self.complaints.occur(now_ns) {
            tracing::warn!(error = refusal, untold, "connection refused");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::Read;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    const TOKEN: Token = Token(7);

    /// An open door, where to knock, and the waiter.
    fn door() -> (tempfile::TempDir, Door, impl Fn() -> UnixStream, Waiter) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("door.sock");
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut door = Door::new(listener.into(), TOKEN);
        let mut waiter = Waiter::new().unwrap();
        door.open(&mut waiter).unwrap();
        let knock = move || UnixStream::connect(&path).unwrap();
        (directory, door, knock, waiter)
    }

    fn knocks(waiter: &mut Waiter) -> bool {
        let mut ready = Vec::new();
        waiter.wait(Some(now_ns()), &mut ready).unwrap();
        ready.contains(&TOKEN)
    }

    #[test]
    fn who_comes_when_there_is_no_room_waits_and_so_do_those_behind() {
        let (_directory, mut door, knock, mut waiter) = door();
        let (room, served) = (Cell::new(1), Cell::new(0));
        let admit = |socket| {
            if room.get() == served.get() {
                let reason = "no room";
                return Admission::NoRoom { socket, reason };
            }
            served.set(served.get() + 1);
            Admission::Served
        };
        let _crowd = [knock(), knock(), knock()];
        assert!(knocks(&mut waiter));
        door.answer(&mut waiter, admit).unwrap();
        door.retry(&mut waiter, admit).unwrap();
        door.open(&mut waiter).unwrap();
        assert!(served.get() == 1 && door.has_guest() && !knocks(&mut waiter));
        room.set(2);
        door.retry(&mut waiter, admit).unwrap();
        assert!(served.get() == 2 && !door.has_guest() && knocks(&mut waiter));
        room.set(3);
        door.answer(&mut waiter, admit).unwrap();
        assert!(served.get() == 3 && !door.has_guest() && !knocks(&mut waiter));
    }

    #[test]
    fn without_room_for_a_while_all_are_refused_until_there_is_some() {
        let (_directory, mut door, knock, mut waiter) = door();
        let full = |socket| Admission::NoRoom {
            socket,
            reason: "no room",
        };
        let mut crowd = [knock(), knock()];
        door.answer(&mut waiter, full).unwrap();
        door.full_since_ns = Some(now_ns() - PATIENCE_NS);
        door.retry(&mut waiter, full).unwrap();
        door.answer(&mut waiter, full).unwrap();
        for refused in &mut crowd {
            assert_eq!(refused.read(&mut [0]).unwrap(), 0);
        }
        let _served = knock();
        door.answer(&mut waiter, |_| Admission::Served).unwrap();
        let _waits = knock();
        door.answer(&mut waiter, full).unwrap();
        assert!(door.has_guest());
    }
}
