//! One attachment of this process to a daemon: its lock, and how threads wait for the daemon.
//!
//! Of the threads that wait, one *drives*: it spins for a while (on the processor of the daemon's worker: stands by for
//! it), then announces its sleep to the daemon and reads the wake pipe, whose end is the daemon's end. The
//! others are parked, each on its seat; whoever dispatches tells those it concerns. A thread that leaves hands
//! driving over to a parked one. All state is under one lock, and a seat is taken and called with it, so no notice is lost
//! between threads; none is lost between processes by the handshake of the segment, which is model-checked there.
//!
//! Where no thread waits nothing drives: a thread that calls in dispatches for itself. So does a signal handler whose thread was
//! interrupted as it drove; what the driver waits for is told to it by the pipe, which the handler leaves as it is.

use std::hint::spin_loop;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use xtipc_segment::application::{ApplicationSide, PathReader, Place, Releaser, Wake, take_wake};
use xtipc_segment::attach::Welcome;
use xtipc_segment::channel::Lookout;
use xtipc_segment::fork::Incarnation;
use xtipc_segment::{Completion, PathState, PayloadPlace, Ready, Request, SendFlags};

use crate::core::{Core, Failure, Interest, ThreadName};
use crate::direct::Bells;
pub(crate) use crate::patience::Patience;
use crate::pending::Purpose;
use crate::relay::Relay;
use crate::rounds::{Driving, Rounds, Seen};
use crate::{Error, Result, lock};

/// Longest spin before sleeping: two to four times what it takes to wake a thread on another core.
pub(crate) const SPIN_MAX: Duration = Duration::from_micros(50);
/// Shortest: enough to see an answer of a daemon on another core that is awake.
pub(crate) const SPIN_MIN: Duration = Duration::from_micros(2);
/// Rounds of pure spinning before the spinner yields: the daemon may share its core without our knowing.
const ROUNDS_BEFORE_YIELD: u32 = 32;
/// Looks at a direct channel alone between two at everything, of which one takes some ten times as long.
const GLANCES: u32 = 16;
/// A non-blocking receive makes no system call, so it would never see the daemon's end; each time this many of them
/// found nothing, one asks the kernel.
const FRUITLESS_MAX: u32 = 64;

/// Outcome of looking for something.
pub(crate) enum Look<T> {
    Found(T),
    WaitFor(Interest),
}

#[derive(Debug)]
pub(crate) struct Attachment {
    /// The process that attached. A forked child finds neither memory nor usable locks.
    incarnation: Incarnation,
    /// Locked by `core()`; by its field only again, by who had it so.
    pub(crate) core: Mutex<Core>,
    pub(crate) releaser: Arc<Mutex<Releaser>>,
    /// Entries found the release ring full.
    pub(crate) overflowed: Arc<AtomicBool>,
    pub(crate) wake: Arc<OwnedFd>,
    /// To sleep on instead, once there are direct channels.
    bells: Bells,
    pub(crate) relay: OnceLock<Option<Relay>>,
    /// The attach socket. Its lock is for conversations on it; polling needs none.
    pub(crate) socket: Arc<OwnedFd>,
    pub(crate) conversation: Mutex<()>,
    paths: PathReader,
    pub(crate) welcome: Welcome,
    /// If the node is embedded in this process.
    pub(crate) rounds: Option<Rounds>,
}

impl Attachment {
    pub(crate) fn new(
        side: ApplicationSide,
        socket: OwnedFd,
        welcome: Welcome,
        rounds: Option<Rounds>,
    ) -> Result<Self> {
        let overflowed = side.releaser.overflowed();
        let releaser = Arc::new(Mutex::new(side.releaser));
        let socket = Arc::new(socket);
        let wake = Arc::new(side.wake);
        let bells = Bells::new(&wake);
        Ok(Self {
            wake,
            bells: bells.clone(),
            relay: OnceLock::new(),
            incarnation: Incarnation::current()?,
            core: Mutex::new(Core::new(
                side.submitter,
                side.receiver,
                Arc::clone(&releaser),
                Arc::clone(&socket),
                // Who makes the node's rounds waits for these alone.
                match rounds {
                    Some(_) => 0,
                    None => welcome.direct_after,
                },
                bells,
            )),
            releaser,
            overflowed,
            socket,
            conversation: Mutex::new(()),
            paths: side.paths,
            welcome,
            rounds,
        })
    }

    /// Whether this process attached, and not one that forked it.
    pub(crate) fn is_ours(&self) -> bool {
        self.incarnation.is_current()
    }

    /// The state, for the process that attached.
    pub(crate) fn core(&self) -> Result<MutexGuard<'_, Core>> {
        if !self.is_ours() {
            return Err(Error::Forked);
        }
        Ok(lock(&self.core))
    }

    /// Waits until `look` finds what it looks for. It is called with the lock held, after a dispatch.
    pub(crate) fn wait<T>(
        &self,
        patience: Patience,
        look: impl FnMut(&mut Core) -> Result<Look<T>>,
    ) -> Result<T> {
        self.wait_after(Core::dispatch, patience, look)
    }

    /// The same after a dispatch of this kind.
    pub(crate) fn wait_after<T>(
        &self,
        dispatch: fn(&mut Core),
        patience: Patience,
        mut look: impl FnMut(&mut Core) -> Result<Look<T>>,
    ) -> Result<T> {
        let mut core = self.core()?;
        let mut looked_around = self.rounds.is_none();
        let mut interrupted = false;
        let result = loop {
            dispatch(&mut core);
            let interest = match look(&mut core) {
                Ok(Look::Found(found)) => break Ok(found),
                Ok(Look::WaitFor(interest)) => interest,
                Err(error) => break Err(error),
            };
            core.make_room();
            if let Some(failure) = core.failure {
                break Err(failure.into());
            }
            if interrupted && matches!(patience, Patience::UntilSignal(_)) {
                break Err(Error::Interrupted);
            }
            if self.overflowed.load(Ordering::Relaxed) {
                drop(core);
                self.settle_releases();
                core = lock(&self.core);
                continue;
            }
            let left = match patience.left() {
                Ok(left) => left,
                Err(Error::WouldBlock) if !looked_around => {
                    looked_around = true;
                    core = self.look_around(core);
                    continue;
                }
                Err(error) => break Err(error),
            };
            let wake;
            (core, wake) = match core.driver {
                Some(driver) if driver == ThreadName::own() => self.wait_within(core, left),
                Some(_) => self.park(core, interest, left),
                None => {
                    core.driver = Some(ThreadName::own());
                    let (mut core, wake) = self.drive(core, interest, left, patience);
                    core.driver = None;
                    (core, wake)
                }
            };
            interrupted = wake == Wake::Signal;
        };
        core.hand_over();
        drop(core);
        self.settle_releases();
        result
    }

    /// Waits as a guest of the driver.
    fn park<'a>(
        &'a self,
        mut core: MutexGuard<'a, Core>,
        interest: Interest,
        left: Option<Duration>,
    ) -> (MutexGuard<'a, Core>, Wake) {
        if interest.is_room() && core.asleep {
            // The driver's announcement did not ask for this.
            core.receiver.announce_sleep(true);
            let before = core.progress;
            core.dispatch();
            let has_room = interest == Interest::Ring && core.submitter.has_room().unwrap_or(true);
            if has_room || core.progress != before {
                return (core, Wake::Called);
            }
        }
        let seat = core.park(interest);
        drop(core);
        let wake = seat.sleep(left);
        core = lock(&self.core);
        core.unpark(seat);
        (core, wake)
    }

    /// Waits for the daemon: returns when anything was dispatched, by whomever, or the time is over.
    fn drive<'a>(
        &'a self,
        mut core: MutexGuard<'a, Core>,
        interest: Interest,
        left: Option<Duration>,
        patience: Patience,
    ) -> (MutexGuard<'a, Core>, Wake) {
        let before = core.progress;
        let mut looking_on = None;
        if let Some(rounds) = &self.rounds {
            drop(core);
            match rounds.take() {
                Some(driving) => {
                    let core = self.make_rounds(driving, before, interest, left);
                    return (core, Wake::Called);
                }
                None => looking_on = Some(rounds.look_on()),
            }
            core = lock(&self.core);
        }
        // A signal that comes while others have the processor would end no system call.
        if !matches!(patience, Patience::UntilSignal(_)) {
            let found;
            (core, found) = self.stand_by_for_peer(core, interest, before);
            if found {
                return (core, Wake::Called);
            }
        }
        let budget = left.map_or(core.spin, |left| left.min(core.spin));
        // Not timed before the first look in vain: on the worker's processor most waits need only one.
        let mut begun = None;
        let mut round = 0;
        let stands_by = core.stand_by.is_due();
        let lookout = core.lookout(interest);
        loop {
            let place = core.place_of(interest);
            match place {
                Place::Elsewhere => {}
                Place::Here if stands_by => {
                    let wants_room = interest.is_room() || core.is_room_awaited();
                    core.receiver.stand_by(wants_room);
                }
                Place::Here | Place::Behind => break,
            }
            drop(core);
            if place == Place::Elsewhere && round < ROUNDS_BEFORE_YIELD {
                pause(lookout.as_ref());
            } else {
                thread::yield_now();
            }
            round += 1;
            core = lock(&self.core);
            let has_come = lookout.as_ref().is_some_and(Lookout::sees_it) || core.is_next(interest);
            if !has_come {
                core.dispatch();
            }
            if has_come || core.progress != before || self.ring_has_room(&mut core, interest) {
                core.receiver.awake();
                core.learn(true);
                core.stand_by.learn(true);
                return (core, Wake::Called);
            }
            if begun.get_or_insert_with(Instant::now).elapsed() >= budget {
                if place == Place::Here {
                    core.stand_by.learn(false);
                }
                break;
            }
        }
        let spun = begun.map_or(Duration::ZERO, |begun| begun.elapsed());
        let left = left.map(|left| left.saturating_sub(spun));
        let (mut core, wake) = self.drive_asleep(core, before, interest, left, patience);
        if let Some(begun) = begun {
            core.learn(begun.elapsed() < SPIN_MAX);
        }
        drop(looking_on);
        (core, wake)
    }

    /// The same where this thread is who makes the node's rounds.
    fn make_rounds<'a>(
        &'a self,
        mut driving: Driving<'a>,
        before: u64,
        interest: Interest,
        left: Option<Duration>,
    ) -> MutexGuard<'a, Core> {
        let until_ns = left.and_then(end_on_node_clock);
        // Of what others' rounds brought before this thread had them, no look of its own tells.
        let mut is_first = true;
        loop {
            let seen = driving.look();
            let over =
                until_ns.is_some_and(|until| driving.looked_ns() >= until) || driving.is_over();
            // What changes from here on does so in a round.
            if seen != Seen::Nothing || is_first || over {
                let mut core = lock(&self.core);
                core.dispatch();
                if core.progress != before || self.ring_has_room(&mut core, interest) || over {
                    return core;
                }
            }
            is_first = false;
            if seen != Seen::Work {
                driving.rest(until_ns);
            }
        }
    }

    /// A round of an embedded node for a call that does not wait.
    fn look_around<'a>(&'a self, core: MutexGuard<'a, Core>) -> MutexGuard<'a, Core> {
        drop(core);
        if let Some(mut driving) = self.rounds.as_ref().and_then(Rounds::take) {
            driving.look();
        }
        lock(&self.core)
    }

    /// What was submitted goes out, where no daemon is there to see to that.
    pub(crate) fn send_off(&self) {
        if let Some(rounds) = &self.rounds {
            rounds.make_one();
        }
    }

    /// Descriptors of this attachment are looked at from now on.
    pub(crate) fn note_watched(&self) {
        if let Some(rounds) = &self.rounds {
            rounds.note_watched();
        }
    }

    /// The same, asleep unless something has come since the thread looked: `before` was the progress then. The lock may have
    /// been let go meanwhile.
    fn drive_asleep<'a>(
        &'a self,
        mut core: MutexGuard<'a, Core>,
        before: u64,
        interest: Interest,
        left: Option<Duration>,
        patience: Patience,
    ) -> (MutexGuard<'a, Core>, Wake) {
        let mut wake = Wake::Called;
        let wants_room = interest.is_room() || core.is_room_awaited();
        core.receiver.announce_sleep(wants_room);
        core.announce_to_peers();
        core.asleep = true;
        let has_come = core.is_next(interest);
        if !has_come {
            core.dispatch();
            core.make_room();
        }
        if !core.unmapped.is_empty() {
            // Another thread has the offer in hand.
            drop(core);
            thread::yield_now();
            core = lock(&self.core);
        } else if !has_come
            && core.progress == before
            && !self.overflowed.load(Ordering::Relaxed)
            && !self.ring_has_room(&mut core, interest)
        {
            drop(core);
            wake = self.sleep(left, patience);
            core = lock(&self.core);
            // Of the channels whose bells were silenced nobody else hears; and what the daemon published before it ended is
            // still there.
            match core.is_next(interest) {
                true => _ = core.pull_all(),
                false => core.dispatch(),
            }
            if wake == Wake::Gone {
                core.fail(Failure::Gone);
            }
        }
        core.receiver.awake();
        core.awake_for_peers();
        core.asleep = false;
        (core, wake)
    }

    /// Whether a thread that waits for room in the submission ring can go on.
    fn ring_has_room(&self, core: &mut Core, interest: Interest) -> bool {
        let awaited = core.is_ring_awaited();
        if (interest != Interest::Ring && !awaited) || !core.submitter.has_room().unwrap_or(true) {
            return false;
        }
        core.tell(|interest| interest == Interest::Ring);
        true
    }

    /// Sleeps until the daemon wakes us, or the time is over. If the daemon is gone so is the other end of the pipe.
    fn sleep(&self, left: Option<Duration>, patience: Patience) -> Wake {
        if let Some(bells) = self.bells.get() {
            return self.sleep_on(bells, left, patience);
        }
        self.sleep_on_wake(left)
    }

    /// The same, but no peer of a direct channel wakes.
    fn sleep_on_wake(&self, left: Option<Duration>) -> Wake {
        if left.is_none() {
            return take_wake(self.wake.as_fd());
        }
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let mut fds = [PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(1) => take_wake(self.wake.as_fd()),
            // As a system call with a time limit does, it ends with any signal.
            Err(rustix::io::Errno::INTR) => Wake::Signal,
            Ok(_) | Err(_) => Wake::Called,
        }
    }

    /// Called by a non-blocking receive that found nothing.
    pub(crate) fn note_fruitless(&self, core: &mut Core) {
        core.fruitless += 1;
        if core.fruitless >= FRUITLESS_MAX {
            core.fruitless = 0;
            // With the lock held, which a look at the bells of channels takes.
            if !core.asleep && self.sleep_on_wake(Some(Duration::ZERO)) == Wake::Gone {
                core.dispatch();
                core.fail(Failure::Gone);
            }
        }
    }

    /// Submits a request as soon as there is room for it.
    pub(crate) fn submit(
        &self,
        socket: u32,
        payload: &[u8],
        request: impl Fn(PayloadPlace) -> Request,
        purpose: Purpose,
        patience: Patience,
    ) -> Result<u64> {
        self.wait(patience, |core| {
            if let Some(failure) = core.failure {
                return Err(failure.into());
            }
            Ok(match core.submit(socket, payload, &request, purpose)? {
                Ok(tag) => Look::Found(tag),
                Err(interest) => Look::WaitFor(interest),
            })
        })
    }

    fn completion(&self, tag: u64, patience: Patience) -> Result<Completion> {
        self.wait(patience, |core| {
            Ok(match core.pending.take_done(tag) {
                Some(completion) => Look::Found(completion),
                None => Look::WaitFor(Interest::Tag(tag)),
            })
        })
    }

    /// Makes a request and waits for its answer: the values, or the negative errno.
    pub(crate) fn call(
        &self,
        socket: u32,
        request: Request,
    ) -> Result<std::result::Result<[u64; 2], i32>> {
        self.call_within(socket, request, Patience::Endless)
    }

    /// The same; takes the request back if it is not answered in time.
    pub(crate) fn call_within(
        &self,
        socket: u32,
        request: Request,
        patience: Patience,
    ) -> Result<std::result::Result<[u64; 2], i32>> {
        let purpose = match request {
            Request::OpenSocket { .. } | Request::OpenSubscriber | Request::Accept { .. } => {
                Purpose::Open
            }
            Request::Shutdown => Purpose::Shutdown(socket),
            _ => Purpose::Call,
        };
        let tag = self.submit(socket, &[], |_| request, purpose, Patience::Endless)?;
        let completion = self.completion_or_cancel(tag, patience)?;
        Ok(match completion.result {
            0.. => {
                self.note_setting(socket, request, completion.values[0])?;
                Ok(completion.values)
            }
            errno => Err(errno),
        })
    }

    /// Makes a request with a payload that is no message, and waits for its answer.
    pub(crate) fn tell(
        &self,
        socket: u32,
        payload: &[u8],
        request: impl Fn(PayloadPlace) -> Request,
    ) -> Result<()> {
        let tag = self.submit(socket, payload, request, Purpose::Call, Patience::Endless)?;
        match self.completion(tag, Patience::Endless)?.result {
            0.. => Ok(()),
            errno => Err(Error::from_result(errno)),
        }
    }

    /// Waits for an answer; what is not answered in time is taken back, unless it is done meanwhile.
    fn completion_or_cancel(&self, tag: u64, patience: Patience) -> Result<Completion> {
        match self.completion(tag, patience) {
            Err(end @ (Error::TimedOut | Error::Interrupted)) => {
                let cancel = Request::Cancel { tag };
                self.submit(0, &[], |_| cancel, Purpose::Forget, Patience::Endless)?;
                let completion = self.completion(tag, Patience::Endless)?;
                match completion.result == -libc::ECANCELED && matches!(end, Error::Interrupted) {
                    true => Err(end),
                    false => Ok(completion),
                }
            }
            completion => completion,
        }
    }

    /// Sends a message and waits for the verdict: 0 or a negative errno.
    pub(crate) fn send(
        &self,
        socket: u32,
        payload: &[u8],
        request: impl Fn(PayloadPlace, SendFlags) -> Request,
        patience: Patience,
    ) -> Result<i32> {
        let flags = match patience {
            Patience::None => SendFlags::DONTWAIT,
            _ => SendFlags::empty(),
        };
        let request = |place| request(place, flags);
        let tag = self.submit(socket, payload, request, Purpose::Call, patience)?;
        // With DONTWAIT the daemon answers at once; waiting for that is not waiting for the network.
        let verdict = match patience {
            Patience::None => Patience::Endless,
            patience => patience,
        };
        let result = self.completion_or_cancel(tag, verdict)?.result;
        if result == -libc::EAGAIN {
            self.core()?.note_not_ready(socket, Ready::SEND);
        }
        Ok(result)
    }

    /// Spins until `look` finds what it looks for, or the time is over: no system call, except to let run whom it waits for
    /// where that has the same processor.
    pub(crate) fn spin<T>(
        &self,
        dispatch: fn(&mut Core),
        interest: Interest,
        until: Instant,
        mut look: impl FnMut(&mut Core) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let mut driving = self.rounds.as_ref().and_then(Rounds::take);
        let until_ns = match driving {
            Some(_) => end_on_node_clock(until.saturating_duration_since(Instant::now())),
            None => None,
        };
        let mut core = self.core()?;
        // Who drives has the say over the sleep word; while another thread does, this one only looks.
        let drives = core.driver.is_none();
        core.driver.get_or_insert_with(ThreadName::own);
        let result = loop {
            dispatch(&mut core);
            let found = match look(&mut core) {
                Ok(None) if core.pull_all() => look(&mut core),
                found => found,
            };
            match found {
                Ok(None) => {}
                found => break found,
            }
            core.make_room();
            if self.overflowed.load(Ordering::Relaxed) {
                drop(core);
                self.settle_releases();
                core = lock(&self.core);
            }
            if let Some(failure) = core.failure {
                break Err(failure.into());
            }
            if Instant::now() >= until {
                break Ok(None);
            }
            if let Some(driving) = &mut driving {
                drop(core);
                let is_early = |looked_ns| until_ns.is_none_or(|until_ns| looked_ns < until_ns);
                while driving.look() == Seen::Nothing && is_early(driving.looked_ns()) {}
                core = lock(&self.core);
                continue;
            }
            let (place, lookout) = (core.place_of(interest), core.lookout(interest));
            if drives && place == Place::Here {
                let wants_room = core.is_room_awaited();
                core.receiver.stand_by(wants_room);
            }
            drop(core);
            if place == Place::Elsewhere {
                pause(lookout.as_ref());
            } else {
                thread::yield_now();
            }
            core = lock(&self.core);
        };
        if drives {
            core.receiver.awake();
            core.driver = None;
            core.hand_over();
        }
        result
    }

    /// What the daemon shows in a path slot. Takes no lock.
    pub(crate) fn path_state(&self, slot: u32) -> Result<PathState> {
        if !self.is_ours() {
            return Err(Error::Forked);
        }
        // It is absent only if the daemon stopped in the middle of a change.
        self.paths.read(slot).ok_or(Error::NodeGone)
    }

    /// Frees a path slot without waiting for the answer.
    pub(crate) fn close_path(&self, slot: u32) {
        // Where this fails there is no daemon, and no slot either.
        let _ = self.submit(
            0,
            &[],
            |_| Request::ClosePath { slot },
            Purpose::Forget,
            Patience::Endless,
        );
    }

    /// Closes a socket without waiting for the answer.
    pub(crate) fn close(&self, socket: u32) {
        // Where this fails there is no daemon, and no socket either.
        let _ = self.submit(
            socket,
            &[],
            |_| Request::CloseSocket,
            Purpose::Close(socket),
            Patience::Endless,
        );
        self.send_off();
    }
}

/// Between two looks at everything: looks for what is most likely to come.
fn pause(lookout: Option<&Lookout>) {
    let Some(lookout) = lookout else {
        return spin_loop();
    };
    for _ in 0..GLANCES {
        if lookout.sees_it() {
            return;
        }
        spin_loop();
    }
}

/// The end of a wait on the node's clock, in nanoseconds.
pub(crate) fn end_on_node_clock(left: Duration) -> Option<u64> {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let end = Duration::try_from(now).ok()?.checked_add(left)?;
    u64::try_from(end.as_nanos()).ok()
}
