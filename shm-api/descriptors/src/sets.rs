//! What epoll instances wait for at sockets of TIPC.
//!
//! An event names no descriptor, only what the program gave for it. So the kernel is given, instead, a number that no program
//! gives but by chance of 1 in 2^32: a random half and the index of a registration.
//!
//! The kernel forgets a registration when no copy of the socket's descriptor is open in any process, and all of them when no copy of
//! the instance's is. So a registration stays here, as a *stray*, when this process closes a socket that it shares with others.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use xtipc::socket::Errno;

use crate::memory::InOut;
use crate::real;
use crate::table::{self, Open, borrow};

/// What an epoll instance waits for at a socket.
struct Registration {
    /// The instance, by its number in [`Sets`].
    set: u32,
    fd: RawFd,
    /// `None` for a stray.
    open: Option<Open>,
    /// The events asked for.
    events: u32,
    /// What the program gave.
    data: u64,
}

/// The epoll instances of this process that wait for sockets of TIPC.
struct Sets {
    registrations: Vec<Option<Registration>>,
    /// Descriptors of instances, each with the number of the one it is of.
    descriptors: Vec<(RawFd, u32)>,
    /// The number of the next instance.
    next: u32,
}

static SETS: Mutex<Sets> = Mutex::new(Sets {
    registrations: Vec::new(),
    descriptors: Vec::new(),
    next: 0,
});
/// Most registrations that there are before the places of strays are used again: whether the kernel still knows them cannot be told.
const STRAYS_MAX: usize = 1024;
/// The random half, 0 as long as there are no registrations.
static COOKIE: AtomicU32 = AtomicU32::new(0);

const ONCE: u32 = libc::EPOLLONESHOT as u32;
const HANG_UP: u32 = libc::EPOLLRDHUP as u32;
const EXCLUSIVE: u32 = libc::EPOLLEXCLUSIVE as u32;
/// What the kernel tells of a descriptor, but TIPC never of a socket.
const NEVER: u32 = (libc::EPOLLWRNORM | libc::EPOLLWRBAND) as u32;

fn sets() -> MutexGuard<'static, Sets> {
    SETS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Held over a fork, so that the child finds it free.
pub(crate) struct Pause {
    _sets: MutexGuard<'static, Sets>,
}

pub(crate) fn pause() -> Pause {
    Pause { _sets: sets() }
}

impl Sets {
    /// The number of the instance that a descriptor is of.
    fn number(&self, fd: RawFd) -> Option<u32> {
        let it = self.descriptors.iter().find(|(set, _)| *set == fd);
        it.map(|(_, number)| *number)
    }

    /// A place for another registration.
    fn place(&mut self) -> usize {
        let is_free = |place: &Option<Registration>| place.is_none();
        let is_stray =
            |place: &Option<Registration>| place.as_ref().is_some_and(|r| r.open.is_none());
        let places = &mut self.registrations;
        let free = places.iter().position(is_free);
        let free = free.or_else(|| match places.len() {
            ..STRAYS_MAX => None,
            _ => places.iter().position(is_stray),
        });
        free.unwrap_or_else(|| {
            places.push(None);
            places.len() - 1
        })
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
    let mut sets = sets();
    let number = sets.number(set);
    let is_it = |r: &Registration| Some(r.set) == number && r.fd == fd && r.open.is_some();
    let is_it = |place: &Option<Registration>| place.as_ref().is_some_and(is_it);
    let known = sets.registrations.iter().position(is_it);
    if operation == libc::EPOLL_CTL_DEL {
        let result = real::epoll_ctl(set, operation, fd, event);
        if let Some(known) = known.filter(|_| result == 0) {
            sets.registrations[known] = None;
        }
        return Ok(result);
    }
    let wanted = event.read()?;
    open.socket(fd)?.arm()?;
    let index = known.unwrap_or_else(|| sets.place());
    let result = control_real(set, operation, fd, wanted.events, index);
    // A second registration is refused, and the first one stays as it is.
    if result == 0 {
        let number = number.unwrap_or_else(|| {
            let number = sets.next;
            sets.next += 1;
            sets.descriptors.push((set, number));
            table::mark_set(set);
            number
        });
        sets.registrations[index] = Some(Registration {
            set: number,
            fd,
            open: Some(open),
            events: wanted.events,
            data: wanted.u64,
        });
    }
    Ok(result)
}

fn control_real(set: RawFd, operation: i32, fd: RawFd, events: u32, index: usize) -> i32 {
    let end = match events & EXCLUSIVE {
        // The end of a connection is always told, and the descriptor tells it so.
        0 => HANG_UP,
        // Beside this the kernel takes only IN and OUT. Who asks for IN is told by that.
        _ => 0,
    };
    let mut event = libc::epoll_event {
        events: events & !NEVER | end,
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

/// What the program is to see of an event.
pub(crate) enum Seen {
    This(libc::epoll_event),
    /// There was nothing behind it, and it does not come again.
    Nothing,
    /// Nothing, of what another process registered: it may come again.
    Unknown,
}

/// Makes of an event, which the instance behind `set` told, what the program is to see.
pub(crate) fn translate(set: RawFd, event: &libc::epoll_event) -> Seen {
    let index = event.u64 as u32 as usize;
    let (fd, open, asked, data) = {
        let sets = sets();
        let Some(Some(registration)) = sets.registrations.get(index) else {
            return Seen::Unknown;
        };
        let Registration {
            fd,
            open,
            events,
            data,
            ..
        } = registration;
        (*fd, open.clone(), *events, *data)
    };
    let told = event.events as i16 | (asked & HANG_UP) as i16;
    let Some(open) = open else {
        // What it is now only those know who have it open.
        return match event.events & asked {
            0 => Seen::Unknown,
            events => Seen::This(libc::epoll_event { events, u64: data }),
        };
    };
    let events = match open.socket(fd).and_then(|s| s.settle(borrow(fd), told)) {
        Ok(events) => u32::from(events.cast_unsigned()) & (asked | libc::EPOLLHUP as u32),
        // The node is gone, and with it the other end of the descriptor.
        Err(_) => libc::EPOLLIN as u32 | libc::EPOLLHUP as u32,
    };
    if events == 0 {
        if asked & ONCE != 0 {
            control_real(set, libc::EPOLL_CTL_MOD, fd, asked, index);
        }
        return Seen::Nothing;
    }
    Seen::This(libc::epoll_event { events, u64: data })
}

/// `copy` has become a copy of `fd`, which may be an instance.
pub(crate) fn copied(fd: RawFd, copy: RawFd) {
    if !may_have_sockets() || !table::has_room(copy) {
        return;
    }
    let mut sets = sets();
    if let Some(number) = sets.number(fd) {
        sets.descriptors.push((copy, number));
        table::mark_set(copy);
    }
}

/// A descriptor is being closed: a socket, which the kernel takes out of sets when its last copy goes, or a set.
pub(crate) fn forget(fd: RawFd) {
    if !may_have_sockets() {
        return;
    }
    let mut dropped = Vec::new();
    let mut sets = sets();
    let number = sets.number(fd);
    sets.descriptors.retain(|(set, _)| *set != fd);
    let is_left = |number| sets.descriptors.iter().any(|(_, other)| *other == number);
    let closed = number.filter(|number| !is_left(*number));
    for place in &mut sets.registrations {
        let Some(registration) = place else {
            continue;
        };
        if Some(registration.set) == closed {
            dropped.extend(place.take().and_then(|r| r.open));
        } else if registration.fd == fd
            && let Some(open) = &registration.open
        {
            // Under another descriptor it is the same file, which the kernel still waits for.
            let same =
                |other: &RawFd| *other != fd && table::socket(*other).is_some_and(|o| o == *open);
            match table::known(0).find(same) {
                Some(other) => registration.fd = other,
                None if open.may_be_elsewhere() => dropped.extend(registration.open.take()),
                None => dropped.extend(place.take().and_then(|r| r.open)),
            }
        }
    }
    drop(sets);
    drop(dropped);
}
