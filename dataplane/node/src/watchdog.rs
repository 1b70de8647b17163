//! Keeps an idly spinning worker from being starved (docs/architecture.md, sleeping and spinning).
//!
//! A worker that spins for long with nothing to do on a shared core runs as SCHED_IDLE, so that applications there
//! lose nothing. Beside a program that computes without pause such a thread was seen to stand still for
//! 1.4 s, enough to lose every link. So each worker keeps a [`Pulse`], and the steward's [`Watchdog`] sets a
//! late one back to SCHED_OTHER until it has been idle and undisturbed for a second.
//!
//! Invariant: a worker is in SCHED_IDLE only while its phase is [`Phase::Spinning`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use rustix::thread::Pid;

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
/// After such a gap, spins stay in SCHED_OTHER for so long.
const CROWDED_NS: u64 = 100_000_000;

/// `due_ns` of a sleep that no timer ends.
const NO_TIMER: u64 = u64::MAX;

/// What one worker tells the watchdog. The worker writes all but `held`, which the watchdog writes,
/// and `gap_ns`, which the watchdog takes back to zero.
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
    /// Longest gap between rounds since the watchdog last looked.
    gap_ns: AtomicU64,
    /// Longest gap of all.
    longest_gap_ns: AtomicU64,
    /// Zero until the worker has begun.
    thread: AtomicI32,
    /// The worker has entered SCHED_IDLE and not left it.
    idle_class: AtomicBool,
    /// The system refused a change of class, so this worker never tries again.
    refused: AtomicBool,
    /// The watchdog wants this worker to stay in SCHED_OTHER.
    held: AtomicBool,
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
            held: AtomicBool::new(false),
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
        let expected_ns = match Phase::from_word(self.phase.load(Ordering::Relaxed)) {
            Phase::Working | Phase::Spinning => self.last_round_ns.load(Ordering::Relaxed),
            Phase::Asleep => {
                self.set_phase(Phase::Working);
                self.due_ns.load(Ordering::Relaxed)
            }
        };
        let gap_ns = now_ns.saturating_sub(expected_ns);
        if gap_ns > self.gap_ns.load(Ordering::Relaxed) {
            self.gap_ns.store(gap_ns, Ordering::Relaxed);
            self.longest_gap_ns.fetch_max(gap_ns, Ordering::Relaxed);
        }
        if gap_ns > CROWDED_GAP_NS && self.idle_class.load(Ordering::Relaxed) {
            let until_ns = now_ns + CROWDED_NS;
            self.crowded_until_ns.store(until_ns, Ordering::Relaxed);
            self.leave_idle_class();
        }
        self.last_round_ns.store(now_ns, Ordering::Release);
        gap_ns
    }

    /// Worker: a round found nothing and the next will come at once. A system call only when the spin has lasted.
    pub fn spin(&self, now_ns: u64) {
        if self.phase() != Phase::Spinning {
            self.spin_begun_ns.store(now_ns, Ordering::Relaxed);
            self.set_phase(Phase::Spinning);
            return;
        }
        let spun_ns = now_ns.saturating_sub(self.spin_begun_ns.load(Ordering::Relaxed));
        let stay = self.core == Core::Own
            || spun_ns < IDLE_CLASS_AFTER_NS
            || self.idle_class.load(Ordering::Relaxed)
            || now_ns < self.crowded_until_ns.load(Ordering::Relaxed)
            || self.refused.load(Ordering::Relaxed)
            || self.held.load(Ordering::Relaxed);
        if stay {
            return;
        }
        self.idle_class.store(true, Ordering::Relaxed);
        self.change_own_class(Class::Idle);
        // SYNC(held): either the watchdog's change of class comes after ours, or we see here that it holds us.
        if self.held.load(Ordering::SeqCst) {
            self.leave_idle_class();
        }
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
    /// looked what that is.
    pub fn raise(&self) {
        // Seen by the worker at its next look, so the class has to be changed before.
        if let Some(worker) = self.thread()
            && set_class(worker, Class::Urgent).is_ok()
        {
            self.raised.store(true, Ordering::Release);
        }
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

    fn observe(&self) -> Observation {
        Observation {
            phase: self.phase(),
            last_round_ns: self.last_round_ns(),
            gap_ns: self.gap_ns.swap(0, Ordering::Relaxed),
        }
    }
}

/// What the watchdog sees of a worker at one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// What the worker is doing.
    pub phase: Phase,
    /// Time of its last round.
    pub last_round_ns: u64,
    /// Longest gap between two rounds since the last look.
    pub gap_ns: u64,
}

/// What the watchdog does about a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Leave,
    /// Set it to SCHED_OTHER and keep it there.
    Hold,
    /// Let it be SCHED_IDLE again when it spins.
    Release,
}

/// The decision about one worker. Pure: time and observation are arguments.
#[derive(Clone, Debug)]
pub struct Watch {
    late_ns: u64,
    /// The shortest quiet that a held worker is released after.
    quiet_ns: u64,
    /// The quiet that it is released after this time.
    wanted_quiet_ns: u64,
    held: bool,
    quiet_since_ns: Option<u64>,
    released_ns: Option<u64>,
}

impl Watch {
    /// A worker may be without a round for `late_ns`; a held one is released after `quiet_ns` of quiet, and after twice as long
    /// as the last time if it was late again sooner than ten times that after its release: what computes there is likely to
    /// be there still.
    pub fn new(late_ns: u64, quiet_ns: u64) -> Self {
        Self {
            late_ns,
            quiet_ns,
            wanted_quiet_ns: quiet_ns,
            held: false,
            quiet_since_ns: None,
            released_ns: None,
        }
    }

    /// Call it every `late_ns`.
    pub fn judge(&mut self, now_ns: u64, seen: Observation) -> Verdict {
        let standing = now_ns.saturating_sub(seen.last_round_ns) > self.late_ns;
        let late = match seen.phase {
            Phase::Spinning => standing,
            // In SCHED_OTHER already: nothing to be done about it.
            Phase::Working | Phase::Asleep => false,
        };
        if !self.held {
            if !late {
                return Verdict::Leave;
            }
            self.hold(now_ns);
            return Verdict::Hold;
        }
        let disturbed = late || seen.gap_ns > self.late_ns || seen.phase == Phase::Working;
        if disturbed {
            self.quiet_since_ns = None;
            return Verdict::Leave;
        }
        let since_ns = *self.quiet_since_ns.get_or_insert(now_ns);
        if now_ns.saturating_sub(since_ns) < self.wanted_quiet_ns {
            return Verdict::Leave;
        }
        self.held = false;
        self.released_ns = Some(now_ns);
        Verdict::Release
    }

    fn hold(&mut self, now_ns: u64) {
        self.held = true;
        self.quiet_since_ns = None;
        let soon = self.released_ns.is_some_and(|released_ns| {
            now_ns.saturating_sub(released_ns) < 10 * self.wanted_quiet_ns
        });
        self.wanted_quiet_ns = if soon {
            (2 * self.wanted_quiet_ns).min(QUIET_FACTOR_MAX * self.quiet_ns)
        } else {
            self.quiet_ns
        };
    }
}

/// Idle and undisturbed for this long, a worker may be SCHED_IDLE again.
const QUIET_NS: u64 = 1_000_000_000;
/// The quiet after which a worker is released that was late again and again, in shortest ones.
const QUIET_FACTOR_MAX: u64 = 64;
/// One warning for each worker in this time.
const WARNING_INTERVAL_NS: u64 = 10_000_000_000;
/// A worker without a round for this long is stuck, not late.
const STUCK_NS: u64 = 10_000_000_000;

struct Watched {
    worker: usize,
    pulse: Arc<Pulse>,
    watch: Watch,
    longest_gap_ns: u64,
    rescues: u64,
    next_warning_ns: u64,
}

/// The steward's side: looks at every pulse and acts. Owned by the steward thread.
pub struct Watchdog {
    late_ns: u64,
    watched: Vec<Watched>,
}

impl Watchdog {
    /// For workers whose shortest link tolerance is `tolerance_ms_min`.
    pub fn new(tolerance_ms_min: u32) -> Self {
        Self {
            late_ns: late_ns(tolerance_ms_min),
            watched: Vec::new(),
        }
    }

    /// The shortest link tolerance is another one now.
    pub fn set_tolerance(&mut self, tolerance_ms_min: u32) {
        self.late_ns = late_ns(tolerance_ms_min);
        for watched in &mut self.watched {
            watched.watch.late_ns = self.late_ns;
        }
    }

    /// How often [`Self::tick`] is to be called, and how late a worker may be.
    pub fn interval_ns(&self) -> u64 {
        self.late_ns
    }

    /// Starts to watch a worker.
    pub fn watch(&mut self, worker: usize, pulse: Arc<Pulse>) {
        self.watched.push(Watched {
            worker,
            pulse,
            watch: Watch::new(self.late_ns, QUIET_NS),
            longest_gap_ns: 0,
            rescues: 0,
            next_warning_ns: 0,
        });
    }

    /// One look at every worker that has begun.
    pub fn tick(&mut self, now_ns: u64) {
        for watched in &mut self.watched {
            if let Some(thread) = watched.pulse.thread() {
                watched.tick(now_ns, thread, self.late_ns);
            }
        }
    }

    /// False when a worker that is not asleep has made no round for ten seconds.
    pub fn all_alive(&self, now_ns: u64) -> bool {
        self.watched.iter().all(|w| {
            let seen = w.pulse.last_round_ns();
            w.pulse.thread().is_none()
                || w.pulse.phase() == Phase::Asleep
                || now_ns.saturating_sub(seen) < STUCK_NS
        })
    }

    /// Longest gap between two rounds of a worker so far, and how often it was set back to SCHED_OTHER.
    pub fn gaps(&self) -> impl Iterator<Item = (usize, u64, u64)> {
        self.watched
            .iter()
            .map(|w| (w.worker, w.longest_gap_ns, w.rescues))
    }
}

/// How late a worker may be: an eighth of the shortest tolerance.
fn late_ns(tolerance_ms_min: u32) -> u64 {
    u64::from(tolerance_ms_min) * 1_000_000 / 8
}

impl Watched {
    fn tick(&mut self, now_ns: u64, thread: Pid, late_ns: u64) {
        let seen = self.pulse.observe();
        match self.watch.judge(now_ns, seen) {
            Verdict::Leave => {}
            Verdict::Hold => {
                // SYNC(held): stored before the change of class, see `Pulse::spin`.
                self.pulse.held.store(true, Ordering::SeqCst);
                self.rescues += 1;
                if let Err(error) = set_class(thread, Class::Normal) {
                    tracing::warn!(worker = self.worker, %error, "cannot set a late worker to SCHED_OTHER");
                }
            }
            Verdict::Release => self.pulse.held.store(false, Ordering::SeqCst),
        }
        self.longest_gap_ns = self.longest_gap_ns.max(seen.gap_ns);
        if seen.gap_ns > late_ns && now_ns >= self.next_warning_ns {
            self.next_warning_ns = now_ns + WARNING_INTERVAL_NS;
            tracing::warn!(
                worker = self.worker,
                gap_ms = seen.gap_ns / 1_000_000,
                limit_ms = late_ns / 1_000_000,
                "a worker stood still: too little processor time for it"
            );
        }
    }
}

#[cfg(test)]
mod tests;
