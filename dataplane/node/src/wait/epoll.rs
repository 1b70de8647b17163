//! The epoll back end. Deadlines are a timerfd: epoll's own timeout has milliseconds before Linux 5.11.

use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::{Interest, TIMER, Token, WaitError};
use crate::clock::now_ns;

/// Ready fds beyond this are reported by the next wait.
const EVENTS_PER_WAIT: usize = 64;
const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

pub(super) struct Epoll {
    epoll: OwnedFd,
    timer: OwnedFd,
    /// What the timer is set to. Many sleeps keep the deadline of the one before.
    armed_ns: Option<u64>,
    registered: Vec<(Token, RawFd)>,
}

impl Epoll {
    pub(super) fn new() -> Result<Self, WaitError> {
        let refused = |operation| move |e: Errno| WaitError::system(operation)(e.into());
        let epoll =
            epoll::create(epoll::CreateFlags::CLOEXEC).map_err(refused("make an epoll fd"))?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, flags).map_err(refused("make a timer fd"))?;
        let data = epoll::EventData::new_u64(TIMER.0);
        epoll::add(&epoll, &timer, data, epoll::EventFlags::IN)
            .map_err(refused("wait for a timer"))?;
        Ok(Self {
            epoll,
            timer,
            armed_ns: None,
            registered: Vec::new(),
        })
    }

    pub(super) fn add(
        &mut self,
        fd: RawFd,
        interest: Interest,
        token: Token,
    ) -> Result<(), WaitError> {
        if token == TIMER || self.registered.iter().any(|(t, _)| *t == token) {
            return Err(WaitError::TokenTaken(token.0));
        }
        let flags = epoll::EventFlags::from_bits_retain(interest.poll_bits());
        // SAFETY: the fd is open, since `Waiter::add` was handed something that borrows it.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
        epoll::add(
            &self.epoll,
            borrowed,
            epoll::EventData::new_u64(token.0),
            flags,
        )
        .map_err(|e| WaitError::system("wait for an fd")(e.into()))?;
        self.registered.push((token, fd));
        Ok(())
    }

    pub(super) fn remove(&mut self, token: Token) -> Result<(), WaitError> {
        let Some(at) = self.registered.iter().position(|(t, _)| *t == token) else {
            return Err(WaitError::NoSuchToken(token.0));
        };
        let (_, fd) = self.registered.swap_remove(at);
        // SAFETY: `Waiter::add` obliges the owner to keep the fd open until `remove`.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
        epoll::delete(&self.epoll, borrowed)
            .map_err(|e| WaitError::system("stop waiting for an fd")(e.into()))
    }

    pub(super) fn wait(
        &mut self,
        deadline_ns: Option<u64>,
        ready: &mut Vec<Token>,
    ) -> Result<(), WaitError> {
        // A timer that is due at once would still be a sleep, until its interrupt.
        let timeout = match deadline_ns {
            Some(at_ns) if at_ns <= now_ns() => Some(&AT_ONCE),
            _ => None,
        };
        if timeout.is_none() {
            self.arm(deadline_ns)?;
        }
        let mut events = [MaybeUninit::<epoll::Event>::uninit(); EVENTS_PER_WAIT];
        let (events, _) = match epoll::wait(&self.epoll, events.as_mut_slice(), timeout) {
            Ok(events) => events,
            Err(Errno::INTR) => return Ok(()),
            Err(e) => return Err(WaitError::system("wait")(e.into())),
        };
        let tokens = events.iter().map(|event| Token(event.data.u64()));
        ready.extend(tokens.filter(|token| *token != TIMER));
        Ok(())
    }

    fn arm(&mut self, deadline_ns: Option<u64>) -> Result<(), WaitError> {
        // Zero would disarm; the clock is past 1 ns.
        let at_ns = deadline_ns.map(|ns| ns.max(1));
        if at_ns == self.armed_ns {
            return Ok(());
        }
        let setting = Itimerspec {
            it_interval: AT_ONCE,
            it_value: at_ns.map_or(AT_ONCE, timespec),
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &setting)
            .map_err(|e| WaitError::system("set a timer")(e.into()))?;
        self.armed_ns = at_ns;
        Ok(())
    }
}

fn timespec(ns: u64) -> Timespec {
    // Both fit: a u64 of nanoseconds has fewer than 2^35 seconds.
    Timespec {
        tv_sec: (ns / 1_000_000_000).cast_signed(),
        tv_nsec: (ns % 1_000_000_000).cast_signed(),
    }
}
