use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::clock::now_ns;

const MS: u64 = 1_000_000;

#[test]
fn a_gap_counts_between_rounds_and_after_a_timer_was_due_but_not_in_sleep() {
    let pulse = Pulse::new(Core::Own);
    pulse.begin(1000);
    pulse.round(1500);
    assert_eq!(gap_ns(&pulse), 500);
    pulse.start_sleep(Some(9000));
    pulse.round(5000); // a door bell, before the timer
    assert_eq!(gap_ns(&pulse), 0);
    pulse.start_sleep(Some(9000));
    pulse.round(9700);
    assert_eq!(gap_ns(&pulse), 700);
    pulse.start_sleep(None);
    pulse.round(1_000_000);
    assert_eq!(gap_ns(&pulse), 0);
    assert_eq!(pulse.phase(), Phase::Working);
}

/// The longest since the last look.
fn gap_ns(pulse: &Pulse) -> u64 {
    pulse.gap_ns.swap(0, Ordering::Relaxed)
}

/// What the kernel says about a thread.
fn class_of(thread: Pid) -> i32 {
    // SAFETY: takes a thread id and returns a number.
    unsafe { libc::sched_getscheduler(thread.as_raw_nonzero().get()) }
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    // A thread of the idle class waits for seconds where many others run.
    let end = now_ns() + 60_000 * MS;
    while !done() {
        assert!(now_ns() < end, "waited 60 s until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

type Order = Box<dyn FnOnce(&Pulse) + Send>;

/// A spin that lasts.
fn spin(pulse: &Pulse) {
    let begun_ns = now_ns();
    pulse.spin(begun_ns, false);
    pulse.spin(begun_ns + IDLE_CLASS_AFTER_NS, false);
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
    for end_of_spin in [Pulse::stop_spin, |pulse: &Pulse| pulse.start_sleep(None)] {
        orders.send(Box::new(spin)).unwrap();
        wait_until("spinning", || class_of(thread) == libc::SCHED_IDLE);
        assert_eq!(pulse.phase(), Phase::Spinning);
        orders.send(Box::new(end_of_spin)).unwrap();
        wait_until("normal", || {
            pulse.phase() != Phase::Spinning && class_of(thread) == libc::SCHED_OTHER
        });
    }
}

#[test]
fn a_short_spin_changes_no_class() {
    let (pulse, orders, thread) = worker(Core::Shared);
    let short = |pulse: &Pulse| {
        pulse.spin(MS, false);
        pulse.spin(MS + IDLE_CLASS_AFTER_NS - 1, false);
        pulse.stop_spin();
        pulse.spin(MS + IDLE_CLASS_AFTER_NS, false);
        pulse.due_ns.store(0, Ordering::Relaxed);
    };
    orders.send(Box::new(short)).unwrap();
    wait_until("obeyed", || pulse.due_ns.load(Ordering::Relaxed) == 0);
    assert_eq!(pulse.phase(), Phase::Spinning);
    assert_eq!(class_of(thread), libc::SCHED_OTHER);
}

#[test]
fn a_worker_that_is_kept_from_its_spin_stays_in_the_normal_class_for_a_thousand_times_as_long() {
    let (pulse, orders, thread) = worker(Core::Shared);
    let mut at_ns = MS;
    for (gap_ns, crowded_ns) in [
        (MS, 1000 * MS),
        (30 * MS, 30_000 * MS),
        (400 * MS, CROWDED_NS_MAX),
    ] {
        let orders_at = |order: fn(&Pulse, u64), at_ns: u64| {
            orders
                .send(Box::new(move |pulse| order(pulse, at_ns)))
                .unwrap();
        };
        orders_at(|pulse, at_ns| pulse.spin(at_ns, false), at_ns);
        at_ns += IDLE_CLASS_AFTER_NS;
        orders_at(
            |pulse, at_ns| {
                pulse.round(at_ns);
            },
            at_ns,
        );
        orders_at(|pulse, at_ns| pulse.spin(at_ns, false), at_ns);
        wait_until("spinning", || class_of(thread) == libc::SCHED_IDLE);
        at_ns += gap_ns;
        orders_at(
            |pulse, at_ns| {
                pulse.round(at_ns);
            },
            at_ns,
        );
        wait_until("set back", || class_of(thread) == libc::SCHED_OTHER);
        assert_eq!(pulse.phase(), Phase::Spinning);
        at_ns += crowded_ns;
        orders_at(|pulse, at_ns| pulse.spin(at_ns, false), at_ns - 1);
        orders_at(|pulse, _| pulse.due_ns.store(7, Ordering::Relaxed), 0);
        wait_until("obeyed", || pulse.due_ns.swap(0, Ordering::Relaxed) == 7);
        assert_eq!(class_of(thread), libc::SCHED_OTHER);
        orders_at(|pulse, at_ns| pulse.spin(at_ns, false), at_ns);
        wait_until("idle again", || class_of(thread) == libc::SCHED_IDLE);
        orders_at(|pulse, _| pulse.stop_spin(), 0);
    }
}

#[test]
fn a_spin_where_others_take_the_core_changes_no_class() {
    let (pulse, orders, thread) = worker(Core::Shared);
    let order = |pulse: &Pulse| {
        pulse.spin(MS, true);
        pulse.spin(MS + 10 * IDLE_CLASS_AFTER_NS, true);
        pulse.due_ns.store(0, Ordering::Relaxed);
    };
    orders.send(Box::new(order)).unwrap();
    wait_until("obeyed", || pulse.due_ns.load(Ordering::Relaxed) == 0);
    assert_eq!(class_of(thread), libc::SCHED_OTHER);
}

#[test]
fn a_spin_on_an_own_core_changes_no_class() {
    let (pulse, orders, thread) = worker(Core::Own);
    orders.send(Box::new(spin)).unwrap();
    wait_until("spinning", || pulse.phase() == Phase::Spinning);
    assert_eq!(class_of(thread), libc::SCHED_OTHER);
}

/// Whether a late worker is raised here; else it is set back to SCHED_OTHER only.
fn real_time_is_granted() -> bool {
    let own = rustix::thread::gettid();
    let granted = set_class(own, Class::Urgent).is_ok();
    if granted {
        set_class(own, Class::Normal).unwrap();
    }
    granted
}

#[test]
fn a_late_worker_runs_before_others_until_its_round_is_over() {
    let (pulse, orders, thread) = worker(Core::Shared);
    let raised = if real_time_is_granted() {
        libc::SCHED_FIFO
    } else {
        libc::SCHED_OTHER
    };
    let mut watchdog = Watchdog::new(400); // late after 50 ms
    watchdog.watch(0, Arc::clone(&pulse));
    let rescues = |watchdog: &Watchdog| watchdog.gaps().next().map(|(.., rescues)| rescues);

    // The worker makes no round: what starvation looks like from outside.
    orders.send(Box::new(spin)).unwrap();
    wait_until("spinning", || class_of(thread) == libc::SCHED_IDLE);
    let stopped_ns = pulse.last_round_ns();
    watchdog.tick(stopped_ns + 40 * MS);
    assert_eq!(class_of(thread), libc::SCHED_IDLE);
    watchdog.tick(stopped_ns + 60 * MS);
    assert_eq!(class_of(thread), raised);
    assert_eq!(rescues(&watchdog), Some(1));
    // Its round begins, which says that others compute here.
    let round_ns = stopped_ns + 61 * MS;
    orders
        .send(Box::new(move |pulse| {
            pulse.round(round_ns);
        }))
        .unwrap();
    wait_until("a round", || pulse.last_round_ns() == round_ns);
    assert_eq!(class_of(thread), raised);
    orders.send(Box::new(Pulse::come_down)).unwrap();
    wait_until("its end", || class_of(thread) == libc::SCHED_OTHER);

    // At work, and so in SCHED_OTHER.
    orders.send(Box::new(Pulse::stop_spin)).unwrap();
    wait_until("at work", || pulse.phase() == Phase::Working);
    watchdog.tick(round_ns + 40 * MS);
    assert_eq!(class_of(thread), libc::SCHED_OTHER);
    watchdog.tick(round_ns + 60 * MS);
    assert_eq!(class_of(thread), raised);
    orders.send(Box::new(Pulse::come_down)).unwrap();

    // Asleep: late from when its timer is due.
    let due_ns = round_ns + 500 * MS;
    orders
        .send(Box::new(move |pulse| pulse.start_sleep(Some(due_ns))))
        .unwrap();
    wait_until("asleep", || pulse.phase() == Phase::Asleep);
    watchdog.tick(due_ns + 40 * MS);
    assert_eq!(class_of(thread), libc::SCHED_OTHER);
    watchdog.tick(due_ns + 60 * MS);
    assert_eq!(class_of(thread), raised);
    assert_eq!(rescues(&watchdog), Some(3));
    orders
        .send(Box::new(|pulse| pulse.start_sleep(None)))
        .unwrap();
    orders.send(Box::new(Pulse::come_down)).unwrap();
    wait_until("down", || class_of(thread) == libc::SCHED_OTHER);
    watchdog.tick(due_ns + 90_000 * MS);
    assert_eq!(rescues(&watchdog), Some(3));
}

#[test]
fn another_tolerance_sets_another_limit() {
    let (pulse, orders, thread) = worker(Core::Shared);
    let mut watchdog = Watchdog::new(400);
    watchdog.watch(0, Arc::clone(&pulse));
    watchdog.set_tolerance(1600); // late after 200 ms
    orders.send(Box::new(spin)).unwrap();
    wait_until("spinning", || class_of(thread) == libc::SCHED_IDLE);
    let stopped_ns = pulse.last_round_ns();
    watchdog.tick(stopped_ns + 190 * MS);
    assert_eq!(class_of(thread), libc::SCHED_IDLE);
    watchdog.set_tolerance(50);
    watchdog.tick(stopped_ns + 190 * MS);
    assert_ne!(class_of(thread), libc::SCHED_IDLE);
}

/// The real thing: a spinning worker and a program that computes, on one processor.
#[test]
fn beside_a_busy_program_no_gap_is_much_longer_than_the_limit() {
    use crate::placement::{allowed_cpus, pin_current};
    let cpu = allowed_cpus()[0];
    let running = Arc::new(AtomicBool::new(true));
    let pulse = Arc::new(Pulse::new(Core::Shared));
    let mut watchdog = Watchdog::new(1500);
    watchdog.watch(0, Arc::clone(&pulse));
    let mut watching = Watching::start(watchdog).unwrap();
    watching.set_tolerance(400);
    let spinner = {
        let (running, pulse) = (Arc::clone(&running), Arc::clone(&pulse));
        std::thread::spawn(move || {
            pin_current(cpu).unwrap();
            pulse.begin(now_ns());
            while running.load(Ordering::Relaxed) {
                let now_ns = now_ns();
                pulse.round(now_ns);
                if pulse.is_raised() {
                    pulse.come_down();
                }
                pulse.spin(now_ns, false);
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
    let end = now_ns() + 3_000 * MS;
    while now_ns() < end {
        std::thread::sleep(Duration::from_millis(50));
        assert!(pulse.is_alive(now_ns()));
    }
    running.store(false, Ordering::Relaxed);
    spinner.join().unwrap();
    program.join().unwrap();
    let watchdog = watching.end().unwrap();
    let (_, gap_ns, rescues) = watchdog.gaps().next().unwrap();
    println!("longest gap {} ms, {rescues} rescues", gap_ns / MS);
    assert!(gap_ns > CROWDED_GAP_NS, "the worker was never starved");
    // The limit, one interval until it is seen, and time slices of others on a loaded machine.
    assert!(gap_ns < 400 * MS, "longest gap {} ms", gap_ns / MS);
}
