//! Keeps workers from being starved (docs/architecture.md, sleeping and spinning).
//!
//! A worker that spins for long with nothing to do on a shared core runs as SCHED_IDLE, so that applications there
//! lose nothing. Beside a program that computes without pause such a thread was seen to stand still for 1.4 s, enough to
//! lose every link. In SCHED_OTHER, too, a worker that yields between its rounds waits for the time slices of all who compute there.
//! So each worker keeps a [`Pulse`], and a thread of real-time priority, the [`Watchdog`]'s, has a late one run before all others for one
//! round.
//!
//! Invariant: a worker is in SCHED_IDLE only while its phase is [`Phase::Spinning`].

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_utils::CachePadded;
use rustix::thread::Pid;

use crate::clock::now_ns;
use crate::placement::{Class, set_class};
use crate::policy::Core;

/// What a worker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Rounds with work, or between work and the start of a spin.
    Working,
    /// Rounds since the first that found nothing: in SCHED_IDLE on a shared core.
    Spinning,
    /// Waiting in the kernel.
    Asleep,
}

impl Phase {
    fn from_word(word: u8) -> Self {
        match word {
            1 => Self::Spinning,
            2 => Self::Asleep,
            _ => Self::Working,
        }
    }
}

/// A spin is in SCHED_IDLE only when it has lasted so long: there and back takes 0.9 µs of every message that is answered
/// sooner, and a worker that yields in each round takes little from others meanwhile.
const IDLE_CLASS_AFTER_NS: u64 = 20_000;
/// A gap of this length in SCHED_IDLE: others compute on this core, and do not let a worker see what comes.
const CROWDED_GAP_NS: u64 = 100_000;
/// After such a gap, spins stay in SCHED_OTHER for so many times its length: beside a program that goes on computing, a thousandth
/// of the time is lost. A daemon that is killed in a longer one takes minutes to end, because it has no more of the processor for that.
const CROWDED_FACTOR: u64 = 1000;
/// And for so long at most.
const CROWDED_NS_MAX: u64 = 64_000_000_000;

/// `due_ns` of a sleep that no timer ends.
const NO_TIMER: u64 = u64::MAX;

/// What one worker tells the watchdog. The worker writes all but `raised`, which others set,
/// and `gap_ns`, which who tells of gaps takes back to zero.
#[derive(Debug)]
pub struct Pulse {
    /// Alone on its line: stored each round.
    last_round_ns: CachePadded<AtomicU64>,
    core: Core,
    phase: AtomicU8,
    /// When a sleeping worker is to wake by itself.
    due_ns: AtomicU64,
    /// When the present spin began. The worker's own, as the next one.
    spin_begun_ns: AtomicU64,
    /// Until when others are expected on the core.
    crowded_until_ns: AtomicU64,
    /// Longest gap between rounds since [`Pulse::take_gap_ns`].
    gap_ns: AtomicU64,
    /// Longest gap of all.
    longest_gap_ns: AtomicU64,
    /// Zero until the worker has begun.
    thread: AtomicI32,
    /// The worker has entered SCHED_IDLE and not left it.
    idle_class: AtomicBool,
    /// The system refused a change of class, so this worker never tries again.
    refused: AtomicBool,
    /// The worker was raised to SCHED_FIFO, and has not come down from it.
    raised: AtomicBool,
}

impl Pulse {
    /// For a worker that has not begun. On its own core it never becomes SCHED_IDLE.
    pub fn new(core: Core) -> Self {
        Self {
            last_round_ns: CachePadded::new(AtomicU64::new(0)),
            core,
            phase: AtomicU8::new(Phase::Working as u8),
            due_ns: AtomicU64::new(NO_TIMER),
            spin_begun_ns: AtomicU64::new(0),
            crowded_until_ns: AtomicU64::new(0),
            gap_ns: AtomicU64::new(0),
            longest_gap_ns: AtomicU64::new(0),
            thread: AtomicI32::new(0),
            idle_class: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            raised: AtomicBool::new(false),
        }
    }

    /// The calling thread is the worker from now on.
    pub fn begin(&self, now_ns: u64) {
        self.last_round_ns.store(now_ns, Ordering::Relaxed);
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        // SYNC(thread): the watchdog reads the first round only after it sees a thread.
        self.thread.store(thread, Ordering::Release);
    }

    /// The thread has ended or is about to: nobody may change its class any more.
    pub fn end(&self) {
        self.thread.store(0, Ordering::Release);
    }

    /// Worker, at the top of each round and first thing after a sleep. One store unless a gap was the longest.
    /// Returns the gap: the time since the last round, or since a sleep should have ended.
    pub fn round(&self, now_ns: u64) -> u64 {
        let gap_ns = now_ns.saturating_sub(self.expected_ns());
        if self.phase() == Phase::Asleep {
            self.set_phase(Phase::Working);
        }
        if gap_ns > self.gap_ns.load(Ordering::Relaxed) {
            self.gap_ns.store(gap_ns, Ordering::Relaxed);
            self.longest_gap_ns.fetch_max(gap_ns, Ordering::Relaxed);
        }
        if gap_ns > CROWDED_GAP_NS && self.idle_class.load(Ordering::Relaxed) {
            let crowded_ns = gap_ns.saturating_mul(CROWDED_FACTOR).min(CROWDED_NS_MAX);
            self.crowded_until_ns
                .store(now_ns + crowded_ns, Ordering::Relaxed);
            // Who was raised comes down when the round is over.
            if !self.is_raised() {
                self.leave_idle_class();
            }
        }
        self.last_round_ns.store(now_ns, Ordering::Release);
        gap_ns
    }

    /// Worker: a round found nothing and the next will come at once; `is_shared`: others take the core when it is given away, and
    /// so would keep it. A system call only when the spin has lasted.
    pub fn spin(&self, now_ns: u64, is_shared: bool) {
        if self.phase() != Phase::Spinning {
            self.spin_begun_ns.store(now_ns, Ordering::Relaxed);
            self.set_phase(Phase::Spinning);
            return;
        }
        let spun_ns = now_ns.saturating_sub(self.spin_begun_ns.load(Ordering::Relaxed));
        let stay = is_shared
            || self.core == Core::Own
            || spun_ns < IDLE_CLASS_AFTER_NS
            || self.idle_class.load(Ordering::Relaxed)
            || now_ns < self.crowded_until_ns.load(Ordering::Relaxed)
            || self.refused.load(Ordering::Relaxed);
        if stay {
            return;
        }
        self.idle_class.store(true, Ordering::Relaxed);
        self.change_own_class(Class::Idle);
    }

    /// Whether the worker is in SCHED_IDLE, as far as it did that itself.
    pub fn is_idle_class(&self) -> bool {
        self.idle_class.load(Ordering::Relaxed)
    }

    /// Worker: there is work. Costs a system call only after a spin in SCHED_IDLE.
    pub fn stop_spin(&self) {
        if self.phase() == Phase::Spinning {
            self.leave_idle_class();
            self.set_phase(Phase::Working);
        }
    }

    /// Worker, just before it waits in the kernel; `due_ns` is the time of its next timer.
    pub fn start_sleep(&self, due_ns: Option<u64>) {
        self.stop_spin();
        self.due_ns
            .store(due_ns.unwrap_or(NO_TIMER), Ordering::Relaxed);
        self.set_phase(Phase::Asleep);
    }

    /// Another thread: something cannot wait until the worker has its turn on a processor. It runs before all others until it has
    /// looked what that is. False: the system grants no real-time priority.
    pub fn raise(&self) -> bool {
        // Seen by the worker at its next look, so the class has to be changed before.
        let raised = self
            .thread()
            .is_some_and(|worker| set_class(worker, Class::Urgent).is_ok());
        if raised {
            self.raised.store(true, Ordering::Release);
        }
        raised
    }

    /// Worker: whether it has been raised.
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// Worker: it has done what it was raised for.
    pub fn come_down(&self) {
        self.raised.store(false, Ordering::Release);
        self.change_own_class(Class::Normal);
        self.idle_class.store(false, Ordering::Relaxed);
    }

    /// When the worker made its last round.
    pub fn last_round_ns(&self) -> u64 {
        self.last_round_ns.load(Ordering::Acquire)
    }

    /// Longest gap between two rounds so far.
    pub fn longest_gap_ns(&self) -> u64 {
        self.longest_gap_ns.load(Ordering::Relaxed)
    }

    /// Longest gap since the last call.
    pub fn take_gap_ns(&self) -> u64 {
        self.gap_ns.swap(0, Ordering::Relaxed)
    }

    /// What the worker is doing.
    pub fn phase(&self) -> Phase {
        Phase::from_word(self.phase.load(Ordering::Acquire))
    }

    fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    fn leave_idle_class(&self) {
        if self.idle_class.load(Ordering::Relaxed) {
            self.change_own_class(Class::Normal);
            self.idle_class.store(false, Ordering::Relaxed);
        }
    }

    fn change_own_class(&self, class: Class) {
        let changed = self.thread().map(|own| set_class(own, class));
        if changed.is_some_and(|result| result.is_err()) {
            self.refused.store(true, Ordering::Relaxed);
        }
    }

    /// The worker's thread id, 0 before its first round.
    pub fn thread_id(&self) -> u32 {
        self.thread.load(Ordering::Relaxed).cast_unsigned()
    }

    fn thread(&self) -> Option<Pid> {
        Pid::from_raw(self.thread.load(Ordering::Acquire))
    }

    /// False when a worker that is not asleep has made no round for ten seconds.
    pub fn is_alive(&self, now_ns: u64) -> bool {
        self.thread().is_none()
            || self.phase() == Phase::Asleep
            || now_ns.saturating_sub(self.last_round_ns()) < STUCK_NS
    }

    /// Since when the worker is expected to make a round.
    fn expected_ns(&self) -> u64 {
        match self.phase() {
            Phase::Working | Phase::Spinning => self.last_round_ns(),
            Phase::Asleep => self.due_ns.load(Ordering::Relaxed),
        }
    }
}

/// A worker without a round for this long is stuck, not late.
const STUCK_NS: u64 = 10_000_000_000;

struct Watched {
    worker: usize,
    pulse: Arc<Pulse>,
    rescues: u64,
}

/// Looks at every pulse and acts. It writes no log and takes no lock: whoever holds that may be kept from the processor by
/// the very program that a worker is to be raised above.
pub struct Watchdog {
    tolerance_ms_min: u32,
    watched: Vec<Watched>,
}

impl Watchdog {
    /// For workers whose shortest link tolerance is `tolerance_ms_min`.
    pub fn new(tolerance_ms_min: u32) -> Self {
        Self {
            tolerance_ms_min,
            watched: Vec::new(),
        }
    }

    /// The shortest link tolerance is another one now.
    pub fn set_tolerance(&mut self, tolerance_ms_min: u32) {
        self.tolerance_ms_min = tolerance_ms_min;
    }

    /// Starts to watch a worker.
    pub fn watch(&mut self, worker: usize, pulse: Arc<Pulse>) {
        self.watched.push(Watched {
            worker,
            pulse,
            rescues: 0,
        });
    }

    /// One look at every worker that has begun; every eighth of the shortest tolerance, which is also how late a worker may be.
    pub fn tick(&mut self, now_ns: u64) {
        let late_ns = late_ns(self.tolerance_ms_min);
        for watched in &mut self.watched {
            if let Some(thread) = watched.pulse.thread() {
                watched.tick(now_ns, thread, late_ns);
            }
        }
    }

    /// Longest gap between two rounds of a worker so far, and how often it was raised.
    pub fn gaps(&self) -> impl Iterator<Item = (usize, u64, u64)> {
        self.watched
            .iter()
            .map(|w| (w.worker, w.pulse.longest_gap_ns(), w.rescues))
    }
}

/// The thread of a [`Watchdog`]; it ends when this is dropped.
pub struct Watching {
    orders: Arc<Orders>,
    thread: Option<JoinHandle<Watchdog>>,
}

/// What it is told.
struct Orders {
    tolerance_ms_min: AtomicU32,
    end: AtomicBool,
}

impl Watching {
    /// It runs before all others where the system grants that, so that it is not late itself.
    pub fn start(mut watchdog: Watchdog) -> io::Result<Self> {
        let orders = Arc::new(Orders {
            tolerance_ms_min: AtomicU32::new(watchdog.tolerance_ms_min),
            end: AtomicBool::new(false),
        });
        let told = Arc::clone(&orders);
        let watch = move || {
            // Refused: it is as late as others are.
            let _ = set_class(rustix::thread::gettid(), Class::Urgent);
            while !told.end.load(Ordering::Acquire) {
                watchdog.set_tolerance(told.tolerance_ms_min.load(Ordering::Relaxed));
                watchdog.tick(now_ns());
                std::thread::park_timeout(Duration::from_nanos(late_ns(watchdog.tolerance_ms_min)));
            }
            watchdog
        };
        let thread = std::thread::Builder::new()
            .name("watchdog".into())
            .spawn(watch)?;
        let thread = Some(thread);
        Ok(Self { orders, thread })
    }

    /// The shortest link tolerance is another one now.
    pub fn set_tolerance(&self, tolerance_ms_min: u32) {
        self.orders
            .tolerance_ms_min
            .store(tolerance_ms_min, Ordering::Relaxed);
        self.wake();
    }

    /// It sees to the workers no longer. What it saw, the first time.
    pub fn end(&mut self) -> Option<Watchdog> {
        self.orders.end.store(true, Ordering::Release);
        self.wake();
        // It does not panic.
        self.thread.take()?.join().ok()
    }

    /// How late a worker may be.
    pub fn late_ns(&self) -> u64 {
        late_ns(self.orders.tolerance_ms_min.load(Ordering::Relaxed))
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.end();
    }
}

/// How late a worker may be: an eighth of the shortest tolerance.
pub(crate) fn late_ns(tolerance_ms_min: u32) -> u64 {
    u64::from(tolerance_ms_min) * 1_000_000 / 8
}

impl Watched {
    fn tick(&mut self, now_ns: u64, thread: Pid, late_ns: u64) {
        if now_ns.saturating_sub(self.pulse.expected_ns()) > late_ns {
            self.rescues += 1;
            if !self.pulse.raise() && set_class(thread, Class::Normal).is_err() {
                self.pulse.refused.store(true, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests;
