//! The family of poll and epoll. The kernel waits, for descriptors that stand for sockets; what it tells of those is
//! put right. Where nothing is left of it, the wait goes on.

use std::ffi::c_int;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use libc::{epoll_event, fd_set, nfds_t, pollfd, sigset_t, size_t, timespec, timeval};
use xtipc::socket::Errno;

use crate::errno::{done, fail, last, made};
use crate::memory::{In, InOut};
use crate::sets::Seen;
use crate::table::{self, Open, borrow};
use crate::{real, sets};

/// What the kernel tells of a descriptor, but TIPC never of a socket.
const NEVER: i16 = libc::POLLWRNORM | libc::POLLWRBAND;
const OVER: i16 = libc::POLLHUP | libc::POLLERR | libc::POLLNVAL;

/// Until when to wait.
#[derive(Clone, Copy)]
pub(super) enum Until {
    Ever,
    Then(Instant),
}

impl Until {
    fn millis(timeout: c_int) -> Self {
        u64::try_from(timeout).map_or(Self::Ever, |ms| Self::after(Duration::from_millis(ms)))
    }

    fn after(limit: Duration) -> Self {
        Instant::now()
            .checked_add(limit)
            .map_or(Self::Ever, Self::Then)
    }

    pub(super) fn time(limit: In<timespec>) -> Result<Self, Errno> {
        if limit.is_null() {
            return Ok(Self::Ever);
        }
        let limit = limit.read()?;
        match (u64::try_from(limit.tv_sec), u32::try_from(limit.tv_nsec)) {
            (Ok(secs), Ok(nanos @ 0..=999_999_999)) => Ok(Self::after(Duration::new(secs, nanos))),
            _ => Err(Errno(libc::EINVAL)),
        }
    }

    pub(super) fn is_over(self) -> bool {
        matches!(self, Self::Then(end) if end <= Instant::now())
    }

    fn left(self) -> Option<timespec> {
        let Self::Then(end) = self else {
            return None;
        };
        let left = end.saturating_duration_since(Instant::now());
        Some(timespec {
            tv_sec: left.as_secs().cast_signed(),
            tv_nsec: left.subsec_nanos().into(),
        })
    }
}

/// A pointer to a limit, or null.
fn pointer(limit: &Option<timespec>) -> In<timespec> {
    limit.as_ref().map_or(In::null(), |limit| In::new(limit))
}

/// What `poll` is to tell of a socket where the kernel `told` this of its descriptor.
fn settle(open: &Open, fd: RawFd, told: i16, asked: i16) -> i16 {
    let settled = open
        .socket(fd)
        .and_then(|socket| socket.settle(borrow(fd), told | asked & libc::POLLRDHUP));
    match settled {
        Ok(events) => events & (asked | OVER),
        // The node is gone, and with it the other end of the descriptor.
        Err(_) => libc::POLLIN & asked | libc::POLLHUP,
    }
}

fn arm(open: &Open, fd: RawFd) {
    // Where this fails the descriptor tells of the end of the node.
    let _ = open.socket(fd).and_then(|socket| socket.arm());
}

#[inline(always)]
fn has_sockets(fds: InOut<pollfd>, count: nfds_t) -> bool {
    // More than a process can have are refused before they are looked at.
    let fds = match count as usize {
        ..=table::SIZE => fds.slice(count as usize),
        _ => Ok(&mut [][..]),
    };
    fds.is_ok_and(|fds| fds.iter().any(|entry| table::is_known(entry.fd)))
}

/// `poll`
#[unsafe(no_mangle)]
pub extern "C" fn poll(fds: InOut<pollfd>, count: nfds_t, timeout: c_int) -> c_int {
    match has_sockets(fds, count) {
        true => poll_known(fds, count, timeout),
        false => real::poll(fds, count, timeout),
    }
}

#[cold]
#[inline(never)]
fn poll_known(fds: InOut<pollfd>, count: nfds_t, timeout: c_int) -> c_int {
    made(poll_mixed(fds, count, Until::millis(timeout), In::null()))
}

/// `poll`, by the other name it has.
#[unsafe(no_mangle)]
pub extern "C" fn __poll(fds: InOut<pollfd>, count: nfds_t, timeout: c_int) -> c_int {
    poll(fds, count, timeout)
}

/// `poll` of programs built with `_FORTIFY_SOURCE`.
#[unsafe(no_mangle)]
pub extern "C" fn __poll_chk(
    fds: InOut<pollfd>,
    count: nfds_t,
    timeout: c_int,
    room: size_t,
) -> c_int {
    match room / size_of::<pollfd>() >= count as usize && has_sockets(fds, count) {
        true => poll(fds, count, timeout),
        false => real::__poll_chk(fds, count, timeout, room),
    }
}

/// `ppoll`
#[unsafe(no_mangle)]
pub extern "C" fn ppoll(
    fds: InOut<pollfd>,
    count: nfds_t,
    timeout: In<timespec>,
    mask: In<sigset_t>,
) -> c_int {
    match has_sockets(fds, count) {
        true => made(Until::time(timeout).and_then(|until| poll_mixed(fds, count, until, mask))),
        false => real::ppoll(fds, count, timeout, mask),
    }
}

/// `ppoll` of programs built with `_FORTIFY_SOURCE`.
#[unsafe(no_mangle)]
pub extern "C" fn __ppoll_chk(
    fds: InOut<pollfd>,
    count: nfds_t,
    timeout: In<timespec>,
    mask: In<sigset_t>,
    room: size_t,
) -> c_int {
    match room / size_of::<pollfd>() >= count as usize && has_sockets(fds, count) {
        true => ppoll(fds, count, timeout, mask),
        false => real::__ppoll_chk(fds, count, timeout, mask, room),
    }
}

fn poll_mixed(
    fds: InOut<pollfd>,
    count: nfds_t,
    until: Until,
    mask: In<sigset_t>,
) -> Result<c_int, Errno> {
    let fds = fds.slice(count as usize)?;
    let sockets: Vec<Option<Open>> = fds.iter().map(|entry| table::socket(entry.fd)).collect();
    for (entry, open) in fds.iter().zip(&sockets) {
        if let Some(open) = open {
            arm(open, entry.fd);
        }
    }
    let mut asked = fds.to_vec();
    for (entry, open) in asked.iter_mut().zip(&sockets) {
        if open.is_some() {
            // The end of a connection is told in any case, and that is how the descriptor tells it.
            entry.events = entry.events & !NEVER | libc::POLLRDHUP;
        }
    }
    loop {
        let left = until.left();
        let told = real::ppoll(InOut::new(asked.as_mut_ptr()), count, pointer(&left), mask);
        if told < 0 {
            return Err(Errno(last()));
        }
        let mut ready = 0;
        for ((entry, from), open) in fds.iter_mut().zip(&asked).zip(&sockets) {
            entry.revents = match open {
                Some(open) if from.revents & !libc::POLLNVAL != 0 => {
                    settle(open, entry.fd, from.revents, entry.events)
                }
                // What this process has read since may have made room, of which nobody has told yet.
                Some(open) if told == 0 => open
                    .socket(entry.fd)
                    .and_then(|socket| socket.poll())
                    .map_or(0, |events| events & (entry.events | OVER)),
                _ => from.revents,
            };
            ready += c_int::from(entry.revents != 0);
        }
        if told == 0 || ready > 0 {
            return Ok(ready);
        }
    }
}

/// `select`
#[unsafe(no_mangle)]
pub extern "C" fn select(
    count: c_int,
    read: InOut<fd_set>,
    write: InOut<fd_set>,
    except: InOut<fd_set>,
    timeout: InOut<timeval>,
) -> c_int {
    match selects_sockets(count, read, write, except) {
        true => select_known(count, read, write, except, timeout),
        false => real::select(count, read, write, except, timeout),
    }
}

#[cold]
#[inline(never)]
fn select_known(
    count: c_int,
    read: InOut<fd_set>,
    write: InOut<fd_set>,
    except: InOut<fd_set>,
    timeout: InOut<timeval>,
) -> c_int {
    let until = match timeout.read() {
        Err(_) => Until::Ever,
        Ok(limit) if limit.tv_sec < 0 || limit.tv_usec < 0 => return fail(libc::EINVAL),
        Ok(limit) => Until::after(
            Duration::from_secs(limit.tv_sec as u64) + Duration::from_micros(limit.tv_usec as u64),
        ),
    };
    let result = select_mixed(count, [read, write, except], until, In::null());
    // As in Linux, what is left.
    if let Some(left) = until.left() {
        let left = timeval {
            tv_sec: left.tv_sec,
            tv_usec: left.tv_nsec / 1000,
        };
        let _ = timeout.write(left);
    }
    made(result)
}

/// `select`, by the other name it has.
#[unsafe(no_mangle)]
pub extern "C" fn __select(
    count: c_int,
    read: InOut<fd_set>,
    write: InOut<fd_set>,
    except: InOut<fd_set>,
    timeout: InOut<timeval>,
) -> c_int {
    select(count, read, write, except, timeout)
}

/// `pselect`
#[unsafe(no_mangle)]
pub extern "C" fn pselect(
    count: c_int,
    read: InOut<fd_set>,
    write: InOut<fd_set>,
    except: InOut<fd_set>,
    timeout: In<timespec>,
    mask: In<sigset_t>,
) -> c_int {
    let sets = [read, write, except];
    match selects_sockets(count, read, write, except) {
        true => made(Until::time(timeout).and_then(|until| select_mixed(count, sets, until, mask))),
        false => real::pselect(count, read, write, except, timeout, mask),
    }
}

const BITS: usize = usize::BITS as usize;

/// How many words a set of descriptors below `count` has. Programs may have made it larger than `fd_set` is.
#[inline(always)]
fn words_below(count: c_int) -> usize {
    let words = (count.max(0) as usize).div_ceil(BITS);
    words.min(table::SET_WORDS)
}

#[inline(always)]
fn words<'a>(set: InOut<fd_set>, len: usize) -> &'a mut [usize] {
    let words = InOut::<usize>::new(set.address() as *mut usize).slice(len);
    words.unwrap_or_default()
}

fn has(words: &[usize], fd: RawFd) -> bool {
    let fd = fd as usize;
    words
        .get(fd / BITS)
        .is_some_and(|word| word >> (fd % BITS) & 1 != 0)
}

#[inline(always)]
fn selects_sockets(
    count: c_int,
    read: InOut<fd_set>,
    write: InOut<fd_set>,
    except: InOut<fd_set>,
) -> bool {
    // Mostly a word is enough.
    if !(1..=BITS as c_int).contains(&count) {
        return select_sockets_of_many(count, [read, write, except]);
    }
    let known = table::known_in(0);
    let selects = |set: InOut<fd_set>| {
        InOut::<usize>::new(set.address() as *mut usize)
            .read()
            .is_ok_and(|first| first & known != 0)
    };
    selects(read) || selects(write) || selects(except)
}

#[inline(never)]
fn select_sockets_of_many(count: c_int, sets: [InOut<fd_set>; 3]) -> bool {
    sets.into_iter().any(|set| {
        let mut words = words(set, words_below(count)).iter().enumerate();
        words.any(|(index, word)| word & table::known_in(index) != 0)
    })
}

/// The sets are made into a poll, whose answer is made into sets.
fn select_mixed(
    count: c_int,
    sets: [InOut<fd_set>; 3],
    until: Until,
    mask: In<sigset_t>,
) -> Result<c_int, Errno> {
    let [read, write, except] = sets.map(|set| words(set, words_below(count)));
    let mut fds = Vec::new();
    for fd in 0..count.max(0) {
        let mut events = 0;
        for (words, event) in [
            (&read, libc::POLLIN),
            (&write, libc::POLLOUT),
            (&except, libc::POLLPRI),
        ] {
            if has(words, fd) {
                events |= event;
            }
        }
        if events != 0 {
            fds.push(pollfd {
                fd,
                events,
                revents: 0,
            });
        }
    }
    poll_mixed(
        InOut::new(fds.as_mut_ptr()),
        fds.len() as nfds_t,
        until,
        mask,
    )?;
    if fds.iter().any(|entry| entry.revents & libc::POLLNVAL != 0) {
        return Err(Errno(libc::EBADF));
    }
    let mut ready = 0;
    for (words, event, also) in [
        (read, libc::POLLIN, libc::POLLHUP | libc::POLLERR),
        (write, libc::POLLOUT, libc::POLLERR),
        (except, libc::POLLPRI, 0),
    ] {
        words.fill(0);
        for entry in &fds {
            if entry.events & event != 0 && entry.revents & (event | also) != 0 {
                words[entry.fd as usize / BITS] |= 1 << (entry.fd as usize % BITS);
                ready += 1;
            }
        }
    }
    Ok(ready)
}

/// `epoll_ctl`
#[unsafe(no_mangle)]
pub extern "C" fn epoll_ctl(
    set: c_int,
    operation: c_int,
    fd: c_int,
    event: InOut<epoll_event>,
) -> c_int {
    match table::socket(fd) {
        Some(open) => made(sets::control(set, operation, fd, open, event)),
        None => real::epoll_ctl(set, operation, fd, event),
    }
}

/// Has the kernel wait until nothing is left to be put right, or something to be told. `wait` waits for so long.
fn wait_for_events(
    set: RawFd,
    events: InOut<epoll_event>,
    until: Until,
    wait: impl Fn(Option<timespec>) -> c_int,
) -> c_int {
    loop {
        let told = wait(until.left());
        let Ok(count @ 1..) = usize::try_from(told) else {
            return told;
        };
        let (kept, may_repeat) = match events.slice(count) {
            Ok(events) => keep(set, events),
            Err(errno) => return done(Err(errno)),
        };
        if kept > 0 || (may_repeat && until.is_over()) {
            return kept as c_int;
        }
    }
}

/// Puts right what the kernel told of sockets; gives how many events are left, and whether others may be told again at once.
fn keep(set: RawFd, events: &mut [epoll_event]) -> (usize, bool) {
    let (mut kept, mut may_repeat) = (0, false);
    for index in 0..events.len() {
        let event = events[index];
        let seen = match sets::is_ours(&event) {
            true => sets::translate(set, &event),
            false => Seen::This(event),
        };
        match seen {
            Seen::This(event) => {
                events[kept] = event;
                kept += 1;
            }
            Seen::Nothing => {}
            Seen::Unknown => may_repeat = true,
        }
    }
    (kept, may_repeat)
}

/// `epoll_wait`
#[unsafe(no_mangle)]
pub extern "C" fn epoll_wait(
    set: c_int,
    events: InOut<epoll_event>,
    room: c_int,
    timeout: c_int,
) -> c_int {
    match sets::may_have_sockets() {
        true => epoll_pwait(set, events, room, timeout, In::null()),
        false => real::epoll_wait(set, events, room, timeout),
    }
}

/// `epoll_pwait`
#[unsafe(no_mangle)]
pub extern "C" fn epoll_pwait(
    set: c_int,
    events: InOut<epoll_event>,
    room: c_int,
    timeout: c_int,
    mask: In<sigset_t>,
) -> c_int {
    if !sets::may_have_sockets() {
        return real::epoll_pwait(set, events, room, timeout, mask);
    }
    let wait = |left: Option<timespec>| {
        let millis = left.map_or(-1, |left| {
            let whole = left.tv_sec.saturating_mul(1000);
            whole.saturating_add(
                left.tv_nsec
                    .cast_unsigned()
                    .div_ceil(1_000_000)
                    .cast_signed(),
            )
        });
        let millis = c_int::try_from(millis).unwrap_or(c_int::MAX);
        real::epoll_pwait(set, events, room, millis, mask)
    };
    wait_for_events(set, events, Until::millis(timeout), wait)
}

/// `epoll_pwait2`
#[unsafe(no_mangle)]
pub extern "C" fn epoll_pwait2(
    set: c_int,
    events: InOut<epoll_event>,
    room: c_int,
    timeout: In<timespec>,
    mask: In<sigset_t>,
) -> c_int {
    if !sets::may_have_sockets() {
        return real::epoll_pwait2(set, events, room, timeout, mask);
    }
    match Until::time(timeout) {
        Ok(until) => wait_for_events(set, events, until, |left| {
            real::epoll_pwait2(set, events, room, pointer(&left), mask)
        }),
        Err(errno) => fail(errno.0),
    }
}
