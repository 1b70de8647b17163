//! What a worker with nothing to do does next: spin, yield or sleep (docs/architecture.md, sleeping and spinning).
//!
//! Owned by the worker. Pure: time is an argument, the caller performs the step. The spin begins with the
//! last work that came from outside; a wake for a timer that found no such work goes straight back to sleep,
//! so an idle node does not pay a spin for each of its probes.

/// The configured policy of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Never sleeps; for a core of its own.
    Busy,
    /// Spins for about as long as waking would cost, then sleeps.
    Adaptive,
    /// Sleeps at once.
    Sleep,
}

/// Whose core the worker runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Core {
    /// Nobody else is expected there.
    Own,
    /// Applications run there too and must get it while the worker has nothing to do.
    Shared,
}

/// What to do after a round that found nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Look again at once.
    Spin,
    /// Look again, and let others on the core run now and then ([`IdlePolicy::is_yield_due`]).
    Yield,
    /// Wait for a door bell or timer.
    Sleep,
}

/// A spin in SCHED_IDLE takes nothing from anybody, while one that ends just before the answer to what was
/// sent costs a wake: an answer takes some wakes and switches of the other side.
const SPIN_NS_MIN: u64 = 50_000;
const SPIN_NS_MAX: u64 = 100_000;
/// Waking a halted virtual processor took 11 to 17 µs; the measurement replaces it within some wakes.
const WAKE_COST_NS_INITIAL: u64 = 15_000;
/// A sample above this is a descheduled worker, not the cost of a wake.
const WAKE_COST_NS_MAX: u64 = 200_000;
/// Weight of a new sample is 1/8.
const WAKE_COST_SHIFT: u32 = 3;

/// A yield that takes longer gave the core to somebody: it takes 150 to 500 ns where nobody wants it.
const GIVEN_WAY_NS: u64 = 1_000;
/// Looks, of less than 0.1 µs each, between two yields where nobody took the core the last time: what comes during a yield is not
/// seen, and who comes to want the core waits once for so long.
const LOOKS_ALONE: u32 = 32;

/// Decides the steps of one worker.
#[derive(Clone, Debug)]
pub struct IdlePolicy {
    policy: Policy,
    core: Core,
    wake_cost_ns: u64,
    last_work_ns: Option<u64>,
    /// Since the last yield.
    looks: u32,
    /// Somebody took the core at the last yield.
    gave_way: bool,
}

impl IdlePolicy {
    /// A worker that has not worked yet.
    pub fn new(policy: Policy, core: Core) -> Self {
        Self {
            policy,
            core,
            wake_cost_ns: WAKE_COST_NS_INITIAL,
            last_work_ns: None,
            looks: 0,
            gave_way: true,
        }
    }

    /// Applications came to the core or left it.
    pub fn set_core(&mut self, core: Core) {
        self.core = core;
    }

    /// A round did something for somebody else: frames, submissions, commands; not timers alone.
    pub fn worked(&mut self, now_ns: u64) {
        self.last_work_ns = Some(now_ns);
    }

    /// The first instruction after a sleep, `rung_ns` being when the door bell was rung or the timer was due.
    pub fn woken(&mut self, rung_ns: u64, now_ns: u64) {
        let sample = now_ns.saturating_sub(rung_ns).min(WAKE_COST_NS_MAX);
        let kept = self.wake_cost_ns - (self.wake_cost_ns >> WAKE_COST_SHIFT);
        self.wake_cost_ns = kept + (sample >> WAKE_COST_SHIFT);
    }

    /// A round found nothing to do.
    pub fn idle(&self, now_ns: u64) -> Step {
        let spinning = match self.policy {
            Policy::Busy => true,
            Policy::Sleep => false,
            Policy::Adaptive => self
                .last_work_ns
                .is_some_and(|last| now_ns.saturating_sub(last) < self.spin_budget_ns()),
        };
        match (spinning, self.core) {
            (false, _) => Step::Sleep,
            (true, Core::Own) => Step::Spin,
            (true, Core::Shared) => Step::Yield,
        }
    }

    /// At each look where others may want the core: whether it is their turn.
    pub fn is_yield_due(&mut self) -> bool {
        self.looks += 1;
        let due = self.gave_way || self.looks == LOOKS_ALONE;
        if due {
            self.looks = 0;
        }
        due
    }

    /// A yield took so long.
    pub fn yielded(&mut self, took_ns: u64) {
        self.gave_way = took_ns > GIVEN_WAY_NS;
    }

    /// Whether somebody took the core when it was last given away.
    pub fn is_shared(&self) -> bool {
        self.gave_way
    }

    /// How long an adaptive worker spins: twice what a wake costs, within limits.
    pub fn spin_budget_ns(&self) -> u64 {
        (2 * self.wake_cost_ns).clamp(SPIN_NS_MIN, SPIN_NS_MAX)
    }

    /// Moving average of door bell to first instruction.
    pub fn wake_cost_ns(&self) -> u64 {
        self.wake_cost_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn busy_never_sleeps_and_sleep_never_spins() {
        let mut busy = IdlePolicy::new(Policy::Busy, Core::Own);
        let mut sleep = IdlePolicy::new(Policy::Sleep, Core::Own);
        busy.worked(0);
        sleep.worked(0);
        assert_eq!(busy.idle(3_600_000 * MS), Step::Spin);
        assert_eq!(sleep.idle(1), Step::Sleep);
    }

    #[test]
    fn adaptive_spins_for_twice_the_cost_of_a_wake_after_work_then_sleeps() {
        let mut idle = IdlePolicy::new(Policy::Adaptive, Core::Own);
        for _ in 0..100 {
            idle.woken(0, 30_000);
        }
        let budget = idle.spin_budget_ns();
        assert!((58_000..=60_000).contains(&budget), "{budget}");
        idle.worked(MS);
        assert_eq!(idle.idle(MS), Step::Spin);
        assert_eq!(idle.idle(MS + budget - 1), Step::Spin);
        assert_eq!(idle.idle(MS + budget), Step::Sleep);
    }

    #[test]
    fn adaptive_yields_to_applications_on_its_core_within_the_spin() {
        let mut idle = IdlePolicy::new(Policy::Adaptive, Core::Shared);
        idle.worked(MS);
        assert_eq!(idle.idle(MS + 1), Step::Yield);
        idle.set_core(Core::Own);
        assert_eq!(idle.idle(MS + 1), Step::Spin);
    }

    #[test]
    fn others_on_the_core_have_their_turn_at_each_look_as_long_as_they_take_it() {
        let mut idle = IdlePolicy::new(Policy::Adaptive, Core::Shared);
        for _ in 0..10 {
            assert!(idle.is_yield_due());
            idle.yielded(2_000);
        }
        idle.yielded(300);
        let turns = (0..10 * LOOKS_ALONE).filter(|_| idle.is_yield_due());
        assert_eq!(turns.count(), 10);
        idle.yielded(1_000_000);
        assert!(idle.is_yield_due());
    }

    #[test]
    fn a_wake_that_finds_no_work_goes_back_to_sleep_without_a_spin() {
        let mut idle = IdlePolicy::new(Policy::Adaptive, Core::Own);
        assert_eq!(idle.idle(0), Step::Sleep, "nothing was ever done");
        idle.worked(MS);
        idle.woken(376 * MS, 376 * MS + 12_000);
        assert_eq!(idle.idle(376 * MS + 12_000), Step::Sleep);
    }

    #[test]
    fn the_budget_follows_the_measured_cost_within_its_limits() {
        let mut idle = IdlePolicy::new(Policy::Adaptive, Core::Own);
        for _ in 0..100 {
            idle.woken(0, 1_000);
        }
        assert_eq!(idle.spin_budget_ns(), SPIN_NS_MIN);
        for _ in 0..100 {
            idle.woken(0, 40_000);
        }
        assert!((78_000..=80_000).contains(&idle.spin_budget_ns()));
        for _ in 0..100 {
            idle.woken(0, 90_000);
        }
        assert_eq!(idle.spin_budget_ns(), SPIN_NS_MAX);
    }

    #[test]
    fn one_descheduled_wake_does_not_dominate_the_cost() {
        let mut idle = IdlePolicy::new(Policy::Adaptive, Core::Own);
        idle.woken(0, 1_400 * MS);
        assert!(idle.wake_cost_ns() < 40_000);
        idle.woken(2 * MS, MS); // a clock read before the bell counts as no cost
        assert!(idle.wake_cost_ns() < 40_000);
    }

    /// A frame of the peer for each probe interval of one link, is far below 1 % of a core.
    #[test]
    fn an_idle_link_costs_less_than_a_hundredth_of_a_core_in_spins() {
        let mut idle = IdlePolicy::new(Policy::Adaptive, Core::Shared);
        for _ in 0..100 {
            idle.woken(0, WAKE_COST_NS_MAX);
        }
        let wakes_per_minute = 60_000 / 150;
        let spun_ns = wakes_per_minute * idle.spin_budget_ns();
        assert!(
            spun_ns < 60_000 * MS / 1000,
            "spun {spun_ns} ns in a minute"
        );
    }
}
