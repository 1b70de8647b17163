use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::clock::now_ns;

const MS: u64 = 1_000_000;

fn seen(phase: Phase, last_round_ms: u64) -> Observation {
    Observation {
        phase,
        last_round_ns: last_round_ms * MS,
        gap_ns: 0,
    }
}

#[test]
fn only_a_spinning_worker_that_is_late_is_held() {
    let mut watch = Watch::new(187 * MS, 1000 * MS);
    assert_eq!(
        watch.judge(1187 * MS, seen(Phase::Spinning, 1000)),
        Verdict::Leave
    );
    assert_eq!(
        watch.judge(1300 * MS, seen(Phase::Working, 1000)),
        Verdict::Leave
    );
    assert_eq!(
        watch.judge(9000 * MS, seen(Phase::Asleep, 1000)),
        Verdict::Leave
    );
    assert_eq!(
        watch.judge(9188 * MS, seen(Phase::Spinning, 9000)),
        Verdict::Hold
    );
}

#[test]
fn a_held_worker_is_released_after_a_second_of_quiet_that_any_disturbance_restarts() {
    let mut watch = Watch::new(187 * MS, 1000 * MS);
    assert_eq!(
        watch.judge(1000 * MS, seen(Phase::Spinning, 0)),
        Verdict::Hold
    );
    // Quiet from 1100, but disturbed at 2000 by a gap that is over already.
    for at in (1100..2000).step_by(100) {
        assert_eq!(
            watch.judge(at * MS, seen(Phase::Spinning, at)),
            Verdict::Leave
        );
    }
    let gap = Observation {
        gap_ns: 188 * MS,
        ..seen(Phase::Asleep, 2000)
    };
    assert_eq!(watch.judge(2000 * MS, gap), Verdict::Leave);
    // Quiet from 2100, but at work at 3000.
    for at in (2100..3000).step_by(100) {
        assert_eq!(
            watch.judge(at * MS, seen(Phase::Asleep, at)),
            Verdict::Leave
        );
    }
    assert_eq!(
        watch.judge(3000 * MS, seen(Phase::Working, 3000)),
        Verdict::Leave
    );
    for at in (3100..4100).step_by(100) {
        assert_eq!(
            watch.judge(at * MS, seen(Phase::Spinning, at)),
            Verdict::Leave
        );
    }
    assert_eq!(
        watch.judge(4100 * MS, seen(Phase::Spinning, 4100)),
        Verdict::Release
    );
    assert_eq!(
        watch.judge(4300 * MS, seen(Phase::Spinning, 4100)),
        Verdict::Hold,
        "the next time it is late it is held again"
    );
}

#[test]
fn a_worker_that_is_late_soon_after_each_release_is_held_for_longer_each_time() {
    let mut watch = Watch::new(187 * MS, 1000 * MS);
    let mut at = 1000;
    let held_for = |watch: &mut Watch, at: &mut u64| {
        assert_eq!(
            watch.judge(*at * MS, seen(Phase::Spinning, *at - 188)),
            Verdict::Hold
        );
        let since = *at;
        while watch.judge(*at * MS, seen(Phase::Asleep, *at)) == Verdict::Leave {
            *at += 100;
        }
        *at - since
    };
    for quiet in [1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 64_000] {
        assert_eq!(held_for(&mut watch, &mut at), quiet);
        at += 9 * quiet;
    }
    at += 640_000;
    assert_eq!(held_for(&mut watch, &mut at), 1000);
}

#[test]
fn a_gap_counts_between_rounds_and_after_a_timer_was_due_but_not_in_sleep() {
    let pulse = Pulse::new(Core::Own);
    pulse.begin(1000);
    pulse.round(1500);
    assert_eq!(pulse.observe().gap_ns, 500);
    pulse.start_sleep(Some(9000));
    pulse.round(5000); // a door bell, before the timer
    assert_eq!(pulse.observe().gap_ns, 0);
    pulse.start_sleep(Some(9000));
    pulse.round(9700);
    assert_eq!(pulse.observe().gap_ns, 700);
    pulse.start_sleep(None);
    pulse.round(1_000_000);
    assert_eq!(pulse.observe().gap_ns, 0);
    assert_eq!(pulse.phase(), Phase::Working);
}

/// What the kernel says about a thread.
fn class_of(thread: Pid) -> i32 {
    // SAFETY: takes a thread id and returns a number.
    unsafe { libc::sched_getscheduler(thread.as_raw_nonzero().get()) }
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = now_ns() + 5_000 * MS;
    while !done() {
        assert!(now_ns() < end, "waited 5 s until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

type Order = fn(&Pulse);

/// A spin that lasts.
fn spin(pulse: &Pulse) {
    let begun_ns = now_ns();
    pulse.spin(begun_ns);
    pulse.spin(begun_ns + IDLE_CLASS_AFTER_NS);
}

/// A worker thread that does as it is told.
fn worker(core: Core) -> (Arc<Pulse>, mpsc::Sender<Order>, Pid) {
    let pulse = Arc::new(Pulse::new(core));
    let (orders, inbox) = mpsc::channel::<Order>();
    let own = Arc::clone(&pulse);
    std::thread::spawn(move || {
        own.begin(now_ns());
        for order in inbox {
            order(&own);
        }
        own.end();
    });
    wait_until("the worker has begun", || pulse.thread().is_some());
    let thread = pulse.thread().unwrap();
    (pulse, orders, thread)
}

#[test]
fn a_spin_is_idle_class_on_a_shared_core_and_work_or_sleep_ends_that() {
    let (pulse, orders, thread) = worker(Core::Shared);
    assert_eq!(class_of(thread), libc::SCHED_OTHER);
    for end_of_spin in [Pulse::stop_spin, |p: &Pulse| p.start_sleep(None)] {
        orders.send(spin).unwrap();
        wait_until("spinning", || class_of(thread) == libc::SCHED_IDLE);
        assert_eq!(pulse.phase(), Phase::Spinning);
        orders.send(end_of_spin).unwrap();
        wait_until("normal", || {
            pulse.phase() != Phase::Spinning && class_of(thread) == libc::SCHED_OTHER
        });
    }
}

#[test]
fn a_short_spin_changes_no_class() {
    let (pulse, orders, thread) = worker(Core::Shared);
    let short: Order = |pulse| {
        pulse.spin(MS);
        pulse.spin(MS + IDLE_CLASS_AFTER_NS - 1);
        pulse.stop_spin();
        pulse.spin(MS + IDLE_CLASS_AFTER_NS);
    };
    orders.send(short).unwrap();
    orders
        .send(|pulse| pulse.due_ns.store(0, Ordering::Relaxed))
        .unwrap();
    wait_until("obeyed", || pulse.due_ns.load(Ordering::Relaxed) == 0);
    assert_eq!(pulse.phase(), Phase::Spinning);
    assert_eq!(class_of(thread), libc::SCHED_OTHER);
}

#[test]
fn a_worker_that_is_kept_from_its_spin_stays_in_the_normal_class_for_a_while() {
    let (pulse, orders, thread) = worker(Core::Shared);
    orders
        .send(|pulse| {
            pulse.round(MS);
            pulse.spin(MS);
            pulse.round(MS + IDLE_CLASS_AFTER_NS);
            pulse.spin(MS + IDLE_CLASS_AFTER_NS);
        })
        .unwrap();
    wait_until("spinning", || class_of(thread) == libc::SCHED_IDLE);
    orders
        .send(|pulse| {
            pulse.round(2 * MS);
            pulse.spin(2 * MS);
            pulse.spin(CROWDED_NS);
        })
        .unwrap();
    wait_until("set back", || class_of(thread) == libc::SCHED_OTHER);
    assert_eq!(pulse.phase(), Phase::Spinning);
    orders
        .send(|pulse| pulse.spin(2 * MS + CROWDED_NS))
        .unwrap();
    wait_until("idle again", || class_of(thread) == libc::SCHED_IDLE);
}

#[test]
fn a_spin_on_an_own_core_changes_no_class() {
    let (pulse, orders, thread) = worker(Core::Own);
    orders.send(spin).unwrap();
    wait_until("spinning", || pulse.phase() == Phase::Spinning);
    assert_eq!(class_of(thread), libc::SCHED_OTHER);
}

#[test]
fn a_worker_that_stands_still_in_its_spin_is_set_back_and_held_until_quiet() {
    let (pulse, orders, thread) = worker(Core::Shared);
    let mut watchdog = Watchdog::new(400); // late after 50 ms
    watchdog.watch(0, Arc::clone(&pulse));
    orders.send(spin).unwrap();
    wait_until("spinning", || class_of(thread) == libc::SCHED_IDLE);

    // The worker makes no round: what starvation looks like from outside.
    let stopped_ns = pulse.observe().last_round_ns;
    watchdog.tick(stopped_ns + 40 * MS);
    assert_eq!(class_of(thread), libc::SCHED_IDLE);
    watchdog.tick(stopped_ns + 60 * MS);
    assert_eq!(class_of(thread), libc::SCHED_OTHER);
    assert_eq!(watchdog.gaps().next().map(|(.., rescues)| rescues), Some(1));

    // It works on and spins again: held in the normal class.
    orders.send(Pulse::stop_spin).unwrap();
    orders.send(spin).unwrap();
    wait_until("spinning again", || pulse.phase() == Phase::Spinning);
    assert_eq!(class_of(thread), libc::SCHED_OTHER);

    // A second of quiet, on the watchdog's clock.
    for at_ms in (0..=1000).step_by(50) {
        let now = stopped_ns + (1000 + at_ms) * MS;
        pulse.last_round_ns.store(now, Ordering::Release);
        watchdog.tick(now);
    }
    orders.send(Pulse::stop_spin).unwrap();
    orders.send(spin).unwrap();
    wait_until("released", || class_of(thread) == libc::SCHED_IDLE);
}

#[test]
fn another_tolerance_sets_another_limit() {
    let (pulse, orders, thread) = worker(Core::Shared);
    let mut watchdog = Watchdog::new(400);
    watchdog.watch(0, Arc::clone(&pulse));
    watchdog.set_tolerance(1600); // late after 200 ms
    assert_eq!(watchdog.interval_ns(), 200 * MS);
    orders.send(spin).unwrap();
    wait_until("spinning", || class_of(thread) == libc::SCHED_IDLE);
    let stopped_ns = pulse.observe().last_round_ns;
    watchdog.tick(stopped_ns + 190 * MS);
    assert_eq!(class_of(thread), libc::SCHED_IDLE);
    watchdog.set_tolerance(50);
    watchdog.tick(stopped_ns + 190 * MS);
    assert_eq!(class_of(thread), libc::SCHED_OTHER);
}

/// The real thing: a spinning worker and a program that computes, on one processor.
#[test]
fn beside_a_busy_program_no_gap_is_much_longer_than_the_limit() {
    use crate::placement::{allowed_cpus, pin_current};
    let cpu = allowed_cpus()[0];
    let running = Arc::new(AtomicBool::new(true));
    let pulse = Arc::new(Pulse::new(Core::Shared));
    let spinner = {
        let (running, pulse) = (Arc::clone(&running), Arc::clone(&pulse));
        std::thread::spawn(move || {
            pin_current(cpu).unwrap();
            pulse.begin(now_ns());
            while running.load(Ordering::Relaxed) {
                let now_ns = now_ns();
                pulse.round(now_ns);
                pulse.spin(now_ns);
            }
            pulse.end();
        })
    };
    let program = {
        let running = Arc::clone(&running);
        std::thread::spawn(move || {
            pin_current(cpu).unwrap();
            while running.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        })
    };
    let mut watchdog = Watchdog::new(400);
    watchdog.watch(0, Arc::clone(&pulse));
    let end = now_ns() + 3_000 * MS;
    while now_ns() < end {
        std::thread::sleep(Duration::from_nanos(watchdog.interval_ns()));
        watchdog.tick(now_ns());
        assert!(watchdog.all_alive(now_ns()));
    }
    running.store(false, Ordering::Relaxed);
    spinner.join().unwrap();
    program.join().unwrap();
    let (_, gap_ns, rescues) = watchdog.gaps().next().unwrap();
    println!("longest gap {} ms, {rescues} rescues", gap_ns / MS);
    assert!(gap_ns > CROWDED_GAP_NS, "the worker was never starved");
    // The limit, one interval until it is seen, and time slices of others on a loaded machine.
    assert!(gap_ns < 400 * MS, "longest gap {} ms", gap_ns / MS);
}
