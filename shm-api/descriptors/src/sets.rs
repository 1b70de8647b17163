//! What epoll instances wait for at sockets of TIPC.
//!
//! An event names no descriptor, only what the program gave for it. So the kernel is given, instead, a number that no program
//! gives but by chance of 1 in 2^32: a random half and the index of a registration.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use xtipc::socket::Errno;

use crate::memory::InOut;
use crate::real;
use crate::table::{self, Open, borrow};

/// What an epoll instance waits for at a socket.
pub(crate) struct Registration {
    set: RawFd,
    fd: RawFd,
    open: Open,
    /// The events asked for.
    events: u32,
    /// What the program gave.
    data: u64,
}

static REGISTRATIONS: Mutex<Vec<Option<Registration>>> = Mutex::new(Vec::new());
/// The random half, 0 as long as there are no registrations.
static COOKIE: AtomicU32 = AtomicU32::new(0);

const ONCE: u32 = libc::EPOLLONESHOT as u32;
const HANG_UP: u32 = libc::EPOLLRDHUP as u32;

fn registrations() -> MutexGuard<'static, Vec<Option<Registration>>> {
    REGISTRATIONS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Held over a fork, so that the child finds it free.
pub(crate) struct Pause {
    _registrations: MutexGuard<'static, Vec<Option<Registration>>>,
}

pub(crate) fn pause() -> Pause {
    Pause {
        _registrations: registrations(),
    }
}

fn cookie() -> u32 {
    match COOKIE.load(Ordering::Relaxed) {
        0 => {
            let mut random = [0; 4];
            let flags = rustix::rand::GetRandomFlags::empty();
            let _ = rustix::rand::getrandom(&mut random, flags);
            let fresh = u32::from_ne_bytes(random) | 1;
            let set = COOKIE.compare_exchange(0, fresh, Ordering::Relaxed, Ordering::Relaxed);
            set.err().unwrap_or(fresh)
        }
        cookie => cookie,
    }
}

/// `epoll_ctl` at a socket of TIPC.
pub(crate) fn control(
    set: RawFd,
    operation: i32,
    fd: RawFd,
    open: Open,
    event: InOut<libc::epoll_event>,
) -> Result<i32, Errno> {
    let mut all = registrations();
    let is_it = |r: &Option<Registration>| r.as_ref().is_some_and(|r| r.set == set && r.fd == fd);
    let known = all.iter().position(is_it);
    if operation == libc::EPOLL_CTL_DEL {
        let result = real::epoll_ctl(set, operation, fd, event);
        if let Some(known) = known.filter(|_| result == 0) {
            all[known] = None;
        }
        return Ok(result);
    }
    let wanted = event.read()?;
    open.socket(fd)?.arm()?;
    let index = known.or_else(|| all.iter().position(Option::is_none));
    let index = index.unwrap_or_else(|| {
        all.push(None);
        all.len() - 1
    });
    let result = control_real(set, operation, fd, wanted.events, index);
    // A second registration is refused, and the first one stays as it is.
    if result == 0 {
        all[index] = Some(Registration {
            set,
            fd,
            open,
            events: wanted.events,
            data: wanted.u64,
        });
        table::mark_set(set);
    }
    Ok(result)
}

fn control_real(set: RawFd, operation: i32, fd: RawFd, events: u32, index: usize) -> i32 {
    let mut event = libc::epoll_event {
        // The end of a connection is always told, and the descriptor tells it so.
        events: events | HANG_UP,
        u64: u64::from(cookie()) << 32 | index as u64,
    };
    real::epoll_ctl(set, operation, fd, InOut::new(&raw mut event))
}

/// Whether any epoll instance waits for sockets of TIPC, as far as this process knows.
pub(crate) fn may_have_sockets() -> bool {
    COOKIE.load(Ordering::Relaxed) != 0
}

/// Whether an event is of a socket of TIPC.
pub(crate) fn is_ours(event: &libc::epoll_event) -> bool {
    (event.u64 >> 32) as u32 == COOKIE.load(Ordering::Relaxed) && event.u64 >> 32 != 0
}

/// Makes of an event what the program is to see. `None`: nothing; it goes on waiting.
pub(crate) fn translate(event: &libc::epoll_event) -> Option<libc::epoll_event> {
    let index = event.u64 as u32 as usize;
    let (set, fd, open, asked, data) = {
        let all = registrations();
        let registration = all.get(index)?.as_ref()?;
        let Registration {
            set,
            fd,
            open,
            events,
            data,
        } = registration;
        (*set, *fd, open.clone(), *events, *data)
    };
    let told = event.events as i16 | (asked & HANG_UP) as i16;
    let events = match open.socket(fd).and_then(|s| s.settle(borrow(fd), told)) {
        Ok(events) => u32::from(events.cast_unsigned()) & (asked | libc::EPOLLHUP as u32),
        // The node is gone, and with it the other end of the descriptor.
        Err(_) => libc::EPOLLIN as u32 | libc::EPOLLHUP as u32,
    };
    if events == 0 {
        if asked & ONCE != 0 {
            control_real(set, libc::EPOLL_CTL_MOD, fd, asked, index);
        }
        return None;
    }
    Some(libc::epoll_event { events, u64: data })
}

/// A descriptor is being closed: a socket, which the kernel takes out of sets when its last copy goes, or a set.
pub(crate) fn forget(fd: RawFd) {
    if !may_have_sockets() {
        return;
    }
    let mut dropped = Vec::new();
    for place in registrations().iter_mut() {
        let Some(registration) = place else {
            continue;
        };
        if registration.set == fd {
            dropped.extend(place.take());
        } else if registration.fd == fd {
            // Under another descriptor it is the same file, which the kernel still waits for.
            let same = |other: &RawFd| {
                *other != fd && table::socket(*other).is_some_and(|o| o == registration.open)
            };
            match table::known(0).find(same) {
                Some(other) => registration.fd = other,
                None => dropped.extend(place.take()),
            }
        }
    }
}
