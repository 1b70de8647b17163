//! The io_uring back end: one-shot polls, armed again by the very call that waits.
//!
//! A poll that has fired is armed again by the next wait, in the same io_uring_enter that sleeps; arming looks
//! at the fd, so one that is still ready fires at once. That gives level-triggered waits without an extra
//! system call, and a door bell that rings often while its worker is awake costs one completion, not many
//! (which is why these are not multishot polls). What fired before the wait began is not reported from memory
//! but looked at anew.
//!
//! With deferred task work completions are only made inside our own calls, so a worker that is busy is never
//! interrupted by one.

use std::io;
use std::os::fd::RawFd;

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use super::{Interest, TIMER, Token, WaitError};
use crate::clock::now_ns;

/// Submissions collected for one call; more are handed over in several calls.
const ENTRIES: u32 = 64;
/// Completion of a removal. Never a slot, whose index stays below 2^32 - 1.
const REMOVAL: u64 = u64::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Poll {
    /// To be armed by the next wait.
    Idle,
    /// The kernel has it.
    Armed,
}

struct Registered {
    token: Token,
    fd: RawFd,
    interest: Interest,
    poll: Poll,
}

pub(super) struct Uring {
    ring: IoUring,
    /// Index is the poll's user data. A slot is emptied only after its poll has completed, so a
    /// completion never meets another registration.
    slots: Vec<Option<Registered>>,
    /// Slots in [`Poll::Idle`], each once. As long as `slots`, so that a wait never allocates.
    idle: Vec<u32>,
}

impl Uring {
    pub(super) fn new() -> Result<Self, WaitError> {
        let refused = WaitError::system("make an io_uring");
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            // A look takes notice of deferred work only if this says that there is some.
            .setup_taskrun_flag()
            .dontfork()
            .build(ENTRIES)
            .or_else(|error| match error.raw_os_error() {
                // Linux before 6.1 does not know the flags.
                Some(libc::EINVAL) => IoUring::builder().dontfork().build(ENTRIES),
                _ => Err(error),
            })
            .map_err(&refused)?;
        // The timeout travels with the call since 5.11; a lost completion would be a lost door bell.
        if !ring.params().is_feature_ext_arg() || !ring.params().is_feature_nodrop() {
            return Err(refused(io::ErrorKind::Unsupported.into()));
        }
        Ok(Self {
            ring,
            slots: Vec::new(),
            idle: Vec::new(),
        })
    }

    pub(super) fn add(
        &mut self,
        fd: RawFd,
        interest: Interest,
        token: Token,
    ) -> Result<(), WaitError> {
        if token == TIMER || self.find(token).is_some() {
            return Err(WaitError::TokenTaken(token.0));
        }
        let registered = Registered {
            token,
            fd,
            interest,
            poll: Poll::Idle,
        };
        let slot = match self.slots.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                self.slots.push(None);
                self.slots.len() - 1
            }
        };
        self.slots[slot] = Some(registered);
        self.idle.reserve(self.slots.len() - self.idle.len());
        self.idle
            .push(u32::try_from(slot).expect("fds are numbered by an i32"));
        Ok(())
    }

    pub(super) fn remove(&mut self, token: Token) -> Result<(), WaitError> {
        let Some(slot) = self.find(token) else {
            return Err(WaitError::NoSuchToken(token.0));
        };
        // The poll completes once, by firing or by a removal; until then the kernel holds the file. A removal that comes while
        // the kernel looks at the fd fails, and a look that finds nothing arms the poll again: so removals go on.
        while self.is_armed(slot) {
            let removal = opcode::PollRemove::new(slot as u64).build();
            self.push(removal.user_data(REMOVAL))?;
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(e) if is_interruption(&e) => {}
                Err(e) => return Err(WaitError::system("stop waiting for an fd")(e)),
            }
            self.reap(None);
        }
        self.slots[slot] = None;
        self.idle.retain(|idle| *idle as usize != slot);
        Ok(())
    }

    pub(super) fn wait(
        &mut self,
        deadline_ns: Option<u64>,
        ready: &mut Vec<Token>,
    ) -> Result<(), WaitError> {
        self.reap(None);
        while let Some(slot) = self.idle.pop() {
            let Some(registered) = &mut self.slots[slot as usize] else {
                continue;
            };
            let bits = registered.interest.poll_bits();
            let poll = opcode::PollAdd::new(Fd(registered.fd), bits).build();
            self.push(poll.user_data(u64::from(slot)))?;
            if let Some(registered) = &mut self.slots[slot as usize] {
                registered.poll = Poll::Armed;
            }
        }
        self.enter(deadline_ns)?;
        self.reap(Some(ready));
        Ok(())
    }

    fn enter(&self, deadline_ns: Option<u64>) -> Result<(), WaitError> {
        let entered = match deadline_ns {
            None => self.ring.submit_and_wait(1),
            Some(deadline_ns) => {
                let left_ns = deadline_ns.saturating_sub(now_ns());
                // The remainder of a division by 10^9 fits.
                #[allow(
                    clippy::cast_possible_truncation,
                    reason = "below 10^9 by the division"
                )]
                let left = Timespec::new()
                    .sec(left_ns / 1_000_000_000)
                    .nsec((left_ns % 1_000_000_000) as u32);
                let args = SubmitArgs::new().timespec(&left);
                // Where no time is left a look: to wait for a timer that is due at once is a sleep until its interrupt.
                let wanted = usize::from(left_ns > 0);
                self.ring.submitter().submit_with_args(wanted, &args)
            }
        };
        match entered {
            Ok(_) => Ok(()),
            Err(e) if is_interruption(&e) => Ok(()),
            Err(e) => Err(WaitError::system("wait")(e)),
        }
    }

    fn push(&mut self, entry: squeue::Entry) -> Result<(), WaitError> {
        if self.ring.submission().is_full() {
            self.ring
                .submit()
                .map_err(WaitError::system("hand polls to io_uring"))?;
        }
        // SAFETY: a poll and a poll removal point to no memory of ours.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.map_err(|_| {
            WaitError::system("hand polls to io_uring")(io::ErrorKind::WouldBlock.into())
        })
    }

    /// Takes all completions: their polls are idle again, and those that fired are reported.
    fn reap(&mut self, mut ready: Option<&mut Vec<Token>>) {
        for completion in self.ring.completion() {
            if completion.user_data() == REMOVAL {
                continue;
            }
            let Some((slot, registered)) = armed(&mut self.slots, &completion) else {
                continue;
            };
            registered.poll = Poll::Idle;
            self.idle.push(slot);
            // A poll that fails tells as much as one that fires: the owner's next call on the fd will say what.
            if let Some(ready) = ready.as_mut() {
                ready.push(registered.token);
            }
        }
    }

    fn find(&self, token: Token) -> Option<usize> {
        let same = |r: &Option<Registered>| r.as_ref().is_some_and(|r| r.token == token);
        self.slots.iter().position(same)
    }

    fn is_armed(&self, slot: usize) -> bool {
        let registered = self.slots[slot].as_ref();
        registered.is_some_and(|r| r.poll == Poll::Armed)
    }
}

/// The armed registration whose poll has completed.
fn armed<'s>(
    slots: &'s mut [Option<Registered>],
    completion: &cqueue::Entry,
) -> Option<(u32, &'s mut Registered)> {
    let slot = u32::try_from(completion.user_data()).ok()?;
    let registered = slots.get_mut(slot as usize)?.as_mut()?;
    (registered.poll == Poll::Armed).then_some((slot, registered))
}

/// The deadline came, a signal came, or completions must be taken first: all of them just end the wait.
fn is_interruption(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)
    )
}
